//! What a call through C costs compared with the same call in Rust.
//!
//!     cargo bench -p nvembed-capi --bench c_boundary -- MODEL
//!
//! Both sides start from strings and end with the rows in memory, which in C is the caller's. The rows are compared first.
//! Then the sides take turns, the first one changing from pair to pair, and the medians of the pairs' ratios and differences
//! are printed. Each side has a session of its own with one thread, so that their thread pools do not disturb each other; both
//! are opened several times, since two sessions of the same model differ in speed by chance. The row "Rust, again" compares
//! Rust with Rust: how far it is from 1 is the noise.
#![expect(unsafe_code, reason = "it calls the C functions")]
#![allow(
    clippy::print_stdout,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark reports, and stops at failures"
)]

use std::time::{Duration, Instant};

use nvembed::{EmbedOptions, Embedder, ModelOptions, Prompt, Rows};
use nvembed_capi::{
    NVEMBED_F32, NVEMBED_MEMORY_HOST, NVEMBED_OK, nvembed_embed, nvembed_model, nvembed_model_close,
    nvembed_model_open, nvembed_model_options, nvembed_model_options_free, nvembed_model_options_new,
    nvembed_model_options_set_intra_threads, nvembed_output, nvembed_prompt, nvembed_string,
};

const OPENINGS: usize = 5;

/// One way to embed texts; returns the time of the call.
type Side<'a> = Box<dyn FnMut(&[String]) -> Duration + 'a>;

fn in_rust(embedder: &Embedder) -> Side<'_> {
    let options = EmbedOptions::default();
    Box::new(move |texts| {
        let start = Instant::now();
        let prompts: Vec<_> = texts.iter().map(|text| Prompt::passage(text.as_str())).collect();
        let embeddings = embedder.embed(&prompts, &options).unwrap();
        std::hint::black_box(embeddings.rows());
        start.elapsed()
    })
}

fn string(text: &str) -> nvembed_string {
    nvembed_string { data: text.as_ptr().cast(), length: text.len() }
}

fn embed_in_c(model: *const nvembed_model, texts: &[String], rows: &mut [f32]) {
    let prompts: Vec<_> =
        texts.iter().map(|text| nvembed_prompt { instruction: string(""), text: string(text) }).collect();
    let output = nvembed_output {
        struct_size: size_of::<nvembed_output>(),
        data: rows.as_mut_ptr().cast(),
        capacity: rows.len(),
        row_stride: 0,
        dtype: NVEMBED_F32,
        memory: NVEMBED_MEMORY_HOST,
        token_counts: std::ptr::null_mut(),
        truncated: std::ptr::null_mut(),
        scales: std::ptr::null_mut(),
    };
    let (none, no_error) = (std::ptr::null(), std::ptr::null_mut());
    // SAFETY: the prompts and the output describe memory that lives during the call.
    let code =
        unsafe { nvembed_embed(model, prompts.as_ptr(), prompts.len(), none, &output, std::ptr::null(), no_error) };
    assert_eq!(code, NVEMBED_OK);
}

fn in_c(model: *const nvembed_model, dim: usize) -> Side<'static> {
    let mut rows = Vec::new();
    Box::new(move |texts| {
        rows.resize(texts.len() * dim, 0.0);
        let start = Instant::now();
        embed_in_c(model, texts, &mut rows);
        std::hint::black_box(&rows);
        start.elapsed()
    })
}

/// The times of pairs of calls, in microseconds.
#[derive(Default)]
struct Pairs {
    ratios: Vec<f64>,
    differences: Vec<f64>,
    /// Times of the second side.
    times: Vec<f64>,
}

fn measure(texts: &[String], count: usize, one: &mut Side<'_>, other: &mut Side<'_>, sums: &mut Pairs) {
    for pair in 0..count {
        let (of_one, of_other) = if pair % 2 == 0 {
            let of_one = one(texts);
            (of_one, other(texts))
        } else {
            let of_other = other(texts);
            (one(texts), of_other)
        };
        let [of_one, of_other] = [of_one, of_other].map(|time| time.as_secs_f64() * 1e6);
        sums.ratios.push(of_one / of_other);
        sums.differences.push(of_one - of_other);
        sums.times.push(of_other);
    }
}

/// The value that `share` of all values are below.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

fn open_in_c(folder: &str) -> *mut nvembed_model {
    let mut options: *mut nvembed_model_options = std::ptr::null_mut();
    let mut model = std::ptr::null_mut();
    let no_error = std::ptr::null_mut();
    // SAFETY: local variables, and a string that lives during the call.
    unsafe {
        assert_eq!(nvembed_model_options_new(&mut options, no_error), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_intra_threads(options, 1, no_error), NVEMBED_OK);
        let code = nvembed_model_open(folder.as_ptr().cast(), folder.len(), options, &mut model, no_error);
        assert_eq!(code, NVEMBED_OK);
    }
    assert_eq!(nvembed_model_options_free(options), NVEMBED_OK);
    model
}

fn main() {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    // Cargo runs benchmarks in the folder of their package.
    let folder = folder.unwrap_or_else(|| "../../build/models/nv-embed-mini-fp32".to_owned());
    let cases = [
        ("no text: the fixed cost alone", vec![], 20_000),
        ("1 text of 7 tokens", vec!["who wrote the odyssey?".to_owned()], 1000),
        ("32 texts", (0..32).map(|index| format!("text {index}: {}", "rain falls ".repeat(index % 9))).collect(), 60),
        ("1 text of 2,000 tokens", vec!["rain falls on the plain ".repeat(400)], 6),
    ];
    let mut options = ModelOptions::default();
    options.intra_threads = Some(1);
    let mut results: Vec<[Pairs; 2]> = cases.iter().map(|_| Default::default()).collect();
    for _ in 0..OPENINGS {
        let embedder = Embedder::open(&folder, &options).unwrap();
        let second = Embedder::open(&folder, &options).unwrap();
        let model = open_in_c(&folder);
        for ((_, texts, count), [through_c, control]) in cases.iter().zip(&mut results) {
            let mut rows = vec![0.0; texts.len() * embedder.dim()];
            embed_in_c(model, texts, &mut rows);
            let prompts: Vec<_> = texts.iter().map(|text| Prompt::passage(text.as_str())).collect();
            let expected = embedder.embed(&prompts, &EmbedOptions::default()).unwrap();
            let Rows::F32(expected) = expected.rows() else { panic!("embeddings are 32-bit floats by default") };
            assert_eq!(expected.as_slice().unwrap(), rows, "both sides must return the same bits");
            second.embed(&prompts, &EmbedOptions::default()).unwrap();

            let mut rust = in_rust(&embedder);
            for (sums, mut side) in [(through_c, in_c(model, embedder.dim())), (control, in_rust(&second))] {
                measure(texts, *count, &mut side, &mut rust, sums);
            }
        }
        assert_eq!(nvembed_model_close(model), NVEMBED_OK);
    }
    for ((name, texts, _), [through_c, control]) in cases.iter().zip(&mut results) {
        println!("{name} ({} bytes), {} pairs:", texts.iter().map(String::len).sum::<usize>(), through_c.ratios.len());
        for (what, pairs) in [("C / Rust", through_c), ("Rust, again", control)] {
            let [low, median, high] = [0.25, 0.5, 0.75].map(|share| quantile(&mut pairs.ratios, share));
            let (difference, time) = (quantile(&mut pairs.differences, 0.5), quantile(&mut pairs.times, 0.5));
            println!(
                "  {what:11}  ratio {median:.4} (quartiles {low:.4} to {high:.4}), difference {difference:+.2} µs; \
                 a call in Rust {time:.1} µs"
            );
        }
    }
}
