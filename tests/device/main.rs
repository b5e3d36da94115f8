//! What only a GPU can show. Skipped unless `NVEMBED_DEVICE_MODELS` names exported models for the CUDA provider, separated by
//! colons; `make gpu-acceptance` does that. Each test prints what it found, for the acceptance's report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "what was found is reported")]

#[path = "../common/mod.rs"]
#[allow(unused_imports, reason = "each test program uses its own part")]
mod common;
mod memory;
mod rows;
mod threads;

use std::path::PathBuf;

use ndarray::Array2;
use nvembed::gpu::GpuOptions;
use nvembed::model::{Deviation, Precision};
use nvembed::{EmbedOptions, Embedder, ModelOptions, Prompt, Provider};

use common::{embed_options, model_options};

const VARIABLE: &str = "NVEMBED_DEVICE_MODELS";
/// The texts of calls have at most this many tokens, which `warm_up` prepares for.
const MAX_LENGTH: usize = 512;

/// Runs a test on each model, or says that it was skipped.
fn on_each_model(name: &str, test: impl Fn(&Model)) {
    let Some(models) = std::env::var_os(VARIABLE) else {
        return common::skipped(name, &format!("{VARIABLE} names no models; `make gpu-acceptance` runs it on a GPU"));
    };
    for folder in std::env::split_paths(&models) {
        test(&Model { folder });
    }
}

/// A model to open on the GPU.
struct Model {
    folder: PathBuf,
}

impl Model {
    fn options(change: impl FnOnce(&mut GpuOptions)) -> ModelOptions {
        model_options(|options| {
            options.provider = Provider::Cuda;
            change(&mut options.gpu);
        })
    }

    fn open(&self) -> Embedder {
        self.open_with(|_| {})
    }

    fn open_with(&self, change: impl FnOnce(&mut GpuOptions)) -> Embedder {
        Embedder::open(&self.folder, &Self::options(change)).unwrap()
    }

    fn name(&self) -> String {
        self.folder.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// Prints a line of the report.
    fn report(&self, found: &str) {
        println!("found: {}: {found}", self.name());
    }
}

fn call_options() -> EmbedOptions {
    embed_options(|options| options.max_length = Some(MAX_LENGTH))
}

/// A passage of `words` words, which `seed` makes differ from others.
fn passage(seed: usize, words: usize) -> Prompt<'static> {
    const WORDS: [&str; 12] =
        ["river", "engine", "maple", "the", "of", "eleven", "quiet", "signal", "harbour", "under", "copper", "letters"];
    let text: Vec<&str> = (0..words).map(|word| WORDS[(seed * 7 + word * 5 + word * word * (seed % 3)) % 12]).collect();
    Prompt::passage(format!("{seed} {}", text.join(" ")))
}

/// Batches of 40 shapes: 1 to 8 passages of 1 to 240 words.
fn batches() -> Vec<Vec<Prompt<'static>>> {
    (0..40).map(|shape| (0..=shape % 8).map(|row| passage(shape * 8 + row, 1 + shape * 6)).collect()).collect()
}

/// The largest deviation of rows from others, checked against the precision's tolerance.
fn compare(precision: Precision, found: &Array2<f32>, wanted: &Array2<f32>) -> f64 {
    assert_eq!(found.dim(), wanted.dim());
    let mut largest = 0.0_f64;
    for (one, other) in found.rows().into_iter().zip(wanted.rows()) {
        let deviation = Deviation::between(one, other);
        assert!(precision.tolerance().allows(deviation), "{deviation:?} is beyond {}", precision.tolerance());
        largest = largest.max(deviation.largest_difference);
    }
    largest
}
