//! How long batches of given shapes take, as JSON lines: a first table until there is a benchmark.
//!
//!     cargo run --release --example measure -- --model MODEL --provider cuda --shapes 1x32,8x128
//!
//! Each shape is checked before it is timed: every row must have length 1 and not depend on the batch it is in. Timed are
//! whole calls, tokenization included, from texts in memory to embeddings in memory, in one thread.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use nvembed::{CudaOptions, Embedder, EncodeOptions, LoadOptions, Prompt, Provider, Truncation};
use serde_json::json;

/// Largest difference between a row alone and in a batch. Products are cut into other sums for other shapes; the values of
/// a unit row are of the order of 0.02, of which float16 keeps eleven bits.
const BATCH_DIFFERENCE: f32 = 2e-3;

#[derive(Parser)]
struct Arguments {
    /// Model folder.
    #[arg(long)]
    model: PathBuf,
    #[arg(long, default_value_t = Provider::Cpu)]
    provider: Provider,
    /// Shapes, as rows x tokens.
    #[arg(long, value_delimiter = ',', value_parser = shape, default_value = "1x32,1x128,8x128,32x128,8x512")]
    shapes: Vec<(usize, usize)>,
    /// Timed calls of each shape.
    #[arg(long, default_value_t = 50)]
    calls: usize,
    /// Where prepared engines are.
    #[arg(long)]
    cache: Option<PathBuf>,
    #[arg(long)]
    no_cuda_graphs: bool,
    /// Run each shape once, check and time nothing.
    #[arg(long)]
    dry_run: bool,
}

fn shape(text: &str) -> anyhow::Result<(usize, usize)> {
    let (rows, tokens) = text.split_once('x').context("a shape is ROWSxTOKENS")?;
    Ok((rows.parse()?, tokens.parse()?))
}

#[expect(clippy::print_stdout, reason = "the result")]
fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let cuda = CudaOptions { cuda_graphs: !arguments.no_cuda_graphs, ..CudaOptions::default() };
    let options =
        LoadOptions { provider: arguments.provider, cuda, cache: arguments.cache.clone(), ..LoadOptions::default() };
    let embedder = Embedder::open(&arguments.model, &options)?;
    for (rows, tokens) in arguments.shapes.iter().copied() {
        // Texts that are cut to the length wanted, each of its own beginning.
        let texts: Vec<String> =
            (0..rows).map(|row| format!("text number {row} {}", "of many words ".repeat(tokens))).collect();
        let prompts: Vec<_> = texts.iter().map(|text| Prompt::passage(text.as_str())).collect();
        let encode = EncodeOptions {
            max_length: Some(tokens),
            truncation: Truncation::Reference,
            max_batch_tokens: rows * tokens,
            max_batch_size: rows,
            ..EncodeOptions::default()
        };
        let embeddings = embedder.embed(&prompts, &encode)?;
        ensure!(embeddings.stats().tokens == rows * tokens, "the texts are not of {tokens} tokens");
        let mut line = json!({"rows": rows, "tokens": tokens, "batches": embeddings.stats().batches, "padded_tokens": embeddings.stats().padded_tokens});
        if arguments.provider.is_gpu() {
            // Of the first device, by whomever: its owner's tools tell the rest.
            let used = nvembed::devices()?.first().map_or(0, |device| device.total_memory - device.free_memory);
            line["device_memory_bytes"] = used.into();
        }
        if !arguments.dry_run {
            check(&embedder, &prompts, &encode)?;
            let mut times = (0..arguments.calls.max(1))
                .map(|_| timed(|| embedder.embed(&prompts, &encode)))
                .collect::<Result<Vec<_>, _>>()?;
            times.sort_unstable();
            let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
            line["median_ms"] = at(50).into();
            line["p95_ms"] = at(95).into();
            line["tokens_per_s"] = ((rows * tokens) as f64 / at(50) * 1e3).into();
        }
        println!("{line}");
    }
    Ok(())
}

/// A figure of a wrong answer is no figure.
fn check(embedder: &Embedder, prompts: &[Prompt<'_>], encode: &EncodeOptions) -> anyhow::Result<()> {
    let rows = embedder.embed(prompts, encode)?.to_f32();
    for (row, prompt) in rows.rows().into_iter().zip(prompts) {
        let length = row.dot(&row).sqrt();
        if (length - 1.0).abs() > BATCH_DIFFERENCE {
            bail!("a row has length {length}, not 1: the result is wrong, and was not timed");
        }
        let alone = embedder.embed(std::slice::from_ref(prompt), encode)?.to_f32();
        let difference = row.iter().zip(&alone).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        ensure!(difference <= BATCH_DIFFERENCE, "a row differs by {difference} from itself alone");
    }
    Ok(())
}

fn timed<T, E>(call: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let start = Instant::now();
    call()?;
    Ok(start.elapsed())
}
