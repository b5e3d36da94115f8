//! A sweep: every model, on every provider, with every workload, in rounds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nvembed::model::{Manifest, Precision};
use nvembed::{Embedder, ModelOptions, Provider, gpu};

use crate::measure::{Check, Failure, PeakMemory};
use crate::row::{Facts, Row, SCHEMA_VERSION, Status};
use crate::workload::Workload;
use crate::{Error, Kind};

/// How long and how often a workload is measured, and in which way.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The time per workload.
    pub time: Duration,
    /// The least number of calls per workload.
    pub min_calls: usize,
    /// Prompts per second, each a call of its own, whether earlier ones are done or not; `None`: one call after another.
    pub rate: Option<f64>,
    /// The most calls in flight at a rate.
    pub clients: usize,
    /// Run each workload once; verify and time nothing.
    pub dry_run: bool,
}

/// What a sweep measures.
pub struct Sweep {
    /// Model folders.
    pub models: Vec<PathBuf>,
    /// Execution providers, each with how models are opened on it.
    pub providers: Vec<ModelOptions>,
    /// Workloads.
    pub workloads: Vec<Workload>,
    /// Repetitions of everything, so that models take turns.
    pub rounds: usize,
    /// How each is measured.
    pub limits: Limits,
    /// What every row says of the machine and the program.
    pub facts: Facts,
    /// What messages call an option of the library, for example a flag. By default, what the library calls it.
    pub name: fn(&str) -> String,
    /// An fp32 model on the CPU whose embeddings every workload's are compared with.
    reference: Option<(Embedder, String)>,
}

impl Sweep {
    /// A sweep of one round, without a reference.
    pub fn new(
        models: Vec<PathBuf>,
        providers: Vec<ModelOptions>,
        workloads: Vec<Workload>,
        limits: Limits,
        facts: Facts,
    ) -> Self {
        Self { models, providers, workloads, rounds: 1, limits, facts, name: str::to_owned, reference: None }
    }

    /// Compares every workload's embeddings with those of the fp32 model in this folder, opened with these options.
    ///
    /// # Errors
    /// [`Error::Reference`] when the model is not fp32, or has another dimension than one of the models; what opening it
    /// returns.
    pub fn set_reference(&mut self, folder: PathBuf, options: &ModelOptions) -> Result<(), Error> {
        let manifest = Manifest::open(&folder)?;
        let refuse =
            |reason: String| Err(Error::Reference(format!("{} cannot be the reference: {reason}", folder.display())));
        if manifest.precision() != Precision::Fp32 {
            return refuse(format!("an fp32 model is needed, got {}", manifest.precision()));
        }
        for model in &self.models {
            let dim = Manifest::open(model)?.dim();
            if dim != manifest.dim() {
                let found = manifest.dim();
                return refuse(format!("its embedding dimension is {found}, but {dim} in {}", model.display()));
            }
        }
        self.reference = Some((Embedder::open(&folder, options)?, folder.display().to_string()));
        Ok(())
    }

    /// The number of rows there will be.
    pub fn len(&self) -> usize {
        self.models.len() * self.providers.len() * self.workloads.len() * self.rounds
    }

    /// Whether there is nothing to measure.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Measures everything. `begin` gets what comes next, `done` each row as soon as it is measured; an error of
    /// `done` ends the sweep.
    ///
    /// # Errors
    /// When a model folder cannot be read; that of `done`. Failures of single rows are rows.
    pub fn run<E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        mut begin: impl FnMut(String),
        mut done: impl FnMut(&Row) -> Result<(), E>,
    ) -> Result<(), Error> {
        for round in 0..self.rounds {
            for model in &self.models {
                let manifest = Manifest::open(model)?;
                for options in &self.providers {
                    let provider = options.provider;
                    let gpu = gpu_name(provider);
                    let peak_memory = PeakMemory::start();
                    let start = Instant::now();
                    let opened = Embedder::open(model, options).map_err(|error| error.report(self.name));
                    let open_s = opened.is_ok().then(|| start.elapsed().as_secs_f64());
                    let check = opened.and_then(|embedder| {
                        self.facts.library(embedder.library());
                        Check::new(embedder, options.clone(), self.reference.as_ref(), &self.limits, self.name)
                    });
                    for workload in &self.workloads {
                        begin(format!("{} {provider} {}", manifest.precision(), workload.kind));
                        let row = empty_row(&manifest, provider, workload.kind, round, self.facts.now());
                        let row = Row { open_s, gpu: gpu.clone(), rate_per_s: self.limits.rate, ..row };
                        let measured: Result<Row, Failure> = match &check {
                            Ok(check) => check.measure(workload, &self.limits, row.clone()),
                            Err(failure) => Err(failure.clone()),
                        };
                        let failed = |failure| Row { status: Status::Failed, error: Some(failure), ..row };
                        let row = measured.unwrap_or_else(failed);
                        let row = Row { peak_memory_bytes: peak_memory.bytes(), ..row };
                        done(&row).map_err(|error| Error::Receiver(Box::new(error)))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn empty_row(manifest: &Manifest, provider: Provider, workload: Kind, round: usize, facts: Facts) -> Row {
    Row {
        schema_version: SCHEMA_VERSION,
        status: Status::Ok,
        error: None,
        model: manifest.name().to_owned(),
        folder: manifest.folder().display().to_string(),
        precision: manifest.precision().to_string(),
        quantization: manifest.quantization().map(|quantization| quantization.to_string()),
        target: manifest.target().to_string(),
        provider: provider.to_string(),
        gpu: None,
        workload,
        rate_per_s: None,
        round,
        rows: 0,
        tokens: 0,
        padding_waste: None,
        cosine_min: None,
        verified_against: None,
        calls: 0,
        latency_ms: None,
        tokens_per_s: None,
        texts_per_s: None,
        session_share: None,
        gflop_per_s: None,
        peak_gflop_per_s: None,
        share_of_peak: None,
        open_s: None,
        peak_memory_bytes: None,
        device_memory_bytes: None,
        facts,
    }
}

/// The name of the first GPU; `None` on the CPU, and where the driver does not say.
fn gpu_name(provider: Provider) -> Option<String> {
    let devices = provider.is_gpu().then(gpu::devices)?.ok()?;
    devices.into_iter().next().map(|device| device.name)
}
