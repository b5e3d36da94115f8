//! What each step of a call costs on the host: tokenizing, planning, masks, conversion; and a whole call on nv-embed-mini.
//!
//!     cargo bench --bench steps              # after `make models`
//!     cargo bench --bench steps -- plan      # one group
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark stops at failures"
)]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nvembed::half::f16;
use nvembed::ndarray::Array2;
use nvembed::steps::{self, Encodings};
use nvembed::{Dtype, EmbedOptions, Embedder, ErrorKind, ModelOptions, Prompt, Rows};

const TASK: &str = "Given a question, retrieve passages that answer the question";

fn open(precision: &str) -> Embedder {
    let folder = format!("{}/build/models/nv-embed-mini-{precision}", env!("CARGO_MANIFEST_DIR"));
    Embedder::open(folder, &ModelOptions::default()).unwrap()
}

/// w8a8 is refused on processors without VNNI.
fn open_if_it_runs_here(precision: &str) -> Option<Embedder> {
    let folder = format!("{}/build/models/nv-embed-mini-{precision}", env!("CARGO_MANIFEST_DIR"));
    match Embedder::open(folder, &ModelOptions::default()) {
        Ok(embedder) => Some(embedder),
        Err(error) if error.kind() == ErrorKind::Provider => {
            eprintln!("SKIPPED {precision}: {error}");
            None
        }
        Err(error) => panic!("{}", error.report(str::to_owned)),
    }
}

/// Dictionary definitions, 19 tokens each on average.
fn passages(count: usize) -> Vec<Prompt<'static>> {
    #[derive(serde::Deserialize)]
    struct Line {
        passage: String,
    }
    let lines = include_str!("../tests/eval/wordnet.jsonl").lines();
    let texts = lines.map(|line| serde_json::from_str::<Line>(line).unwrap().passage);
    texts.take(count).map(Prompt::passage).collect()
}

fn long_passage(words: usize) -> Prompt<'static> {
    Prompt::passage("rivers and the towns beside them, ".repeat(words / 6))
}

fn tokenizer(criterion: &mut Criterion) {
    let embedder = open("fp32");
    let options = EmbedOptions::default();
    let mut group = criterion.benchmark_group("tokenizer");
    let cases = [
        ("query", vec![Prompt::query(TASK, "who wrote the odyssey?")]),
        ("passage of 400 words", vec![long_passage(400)]),
        ("passage of 40,000 words, cut", vec![long_passage(40_000)]),
        ("1,000 passages", passages(1000)),
    ];
    for (name, prompts) in cases {
        let tokens: usize = embedder.tokenize(&prompts, &options).unwrap().iter().map(|tokens| tokens.ids.len()).sum();
        group.throughput(Throughput::Elements(tokens as u64));
        group
            .bench_function(name, |bencher| bencher.iter(|| embedder.tokenize(black_box(&prompts), &options).unwrap()));
    }
}

fn plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    for count in [10, 1_000, 100_000] {
        // Many short, a long tail; the same at every run.
        let lengths: Vec<usize> =
            (0..count).map(|row| 8 + (row * 7919) % 97 + 900 / (1 + (row * 104_729) % 311)).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &lengths, |bencher, lengths| {
            bencher.iter(|| steps::plan(black_box(lengths), 16_384, 256));
        });
    }
}

fn masks(criterion: &mut Criterion) {
    let embedder = open("fp32");
    let mut group = criterion.benchmark_group("padding and masks");
    let cases = [
        ("1 query", vec![Prompt::query(TASK, "who wrote the odyssey?")]),
        ("32 passages", passages(32)),
        ("32 × 512", (0..32).map(|_| long_passage(600)).collect()),
    ];
    for (name, prompts) in cases {
        let mut options = EmbedOptions::default();
        options.max_length = Some(512);
        let encodings = Encodings::new(&embedder, &prompts, &options).unwrap();
        let (rows, length) = encodings.padded();
        group.throughput(Throughput::Elements((rows * length) as u64));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&encodings).padded()));
    }
}

fn conversion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("embeddings of 4,096 numbers");
    for rows in [1, 256] {
        let wide = Array2::from_shape_fn((rows, 4096), |(row, column)| ((row * 31 + column) % 97) as f32 / 97.0 - 0.5);
        let narrow = Rows::F16(wide.mapv(f16::from_f32));
        let wide = Rows::F32(wide);
        group.throughput(Throughput::Elements((rows * 4096) as u64));
        group.bench_function(BenchmarkId::new("f16 to f32", rows), |bencher| {
            bencher.iter_batched(
                || narrow.clone(),
                |rows| steps::collect(&rows, Dtype::F32).unwrap(),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("f32 to f16", rows), |bencher| {
            bencher.iter_batched(
                || wide.clone(),
                |rows| steps::collect(&rows, Dtype::F16).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
}

fn end_to_end(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nv-embed-mini, end to end");
    group.sample_size(20);
    for precision in ["fp32", "w8a8"] {
        let Some(embedder) = open_if_it_runs_here(precision) else { continue };
        let cases = [("query", vec![Prompt::query(TASK, "who wrote the odyssey?")]), ("100 passages", passages(100))];
        for (name, prompts) in cases {
            group.throughput(Throughput::Elements(prompts.len() as u64));
            group.bench_function(BenchmarkId::new(name, precision), |bencher| {
                bencher.iter(|| embedder.embed(black_box(&prompts), &EmbedOptions::default()).unwrap());
            });
        }
    }
}

criterion_group!(benches, tokenizer, plan, masks, conversion, end_to_end);
criterion_main!(benches);
