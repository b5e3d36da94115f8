//! Where batches run: on the host, in the caller's thread, or on GPUs, each with a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;

use super::Opening;
use super::gpu::{GpuSession, Shapes, Ticket, Worker};
use super::host::{Arena, Host};
use crate::batch::{BATCH_TOKENS_ON_CPU, BATCH_TOKENS_ON_GPU, Batch, RUN_COST_ON_CPU, RUN_COST_ON_GPU, Shape};
use crate::embeddings::Rows;
use crate::error::{Error, ErrorKind, Result};
use crate::onnxruntime::GraphFile;
use crate::options::{EmbedOptions, Stop};
use crate::provider::Placement;

/// An open graph, and what runs it.
pub(crate) enum Executor {
    Host(Host),
    Gpu { workers: Vec<Arc<Worker>>, shapes: Shapes },
}

/// A batch that was handed over.
pub(crate) enum Submitted {
    Done(Result<Rows>),
    Running(Ticket<Rows>),
}

impl Executor {
    /// Opens a graph on the host.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub(crate) fn on_host(opening: &Opening, file: &GraphFile) -> Result<Self> {
        Host::open(opening, file).map(Self::Host)
    }

    /// Opens a graph on every GPU of the options, for these shapes. `engines` is the folder that TensorRT's engines are read
    /// from and written to.
    ///
    /// # Errors
    /// As [`GpuSession::open`].
    pub(crate) fn on_gpus(opening: &Opening, shapes: &Shapes, engines: Option<PathBuf>) -> Result<Self> {
        let Opening { manifest, library, options, .. } = opening;
        let placement = Placement { engines, ..Placement::for_gpu(manifest, shapes.profile()) };
        let mut workers = Vec::with_capacity(options.gpu.device_ids.len());
        for device_id in options.gpu.device_ids.iter().copied() {
            let (manifest, library, options) = (manifest.clone(), library.clone(), options.clone());
            let (shapes, placement) = (shapes.clone(), placement.clone());
            let open = move || GpuSession::open(device_id, manifest, &library, options, shapes, placement);
            workers.push(Arc::new(Worker::start(device_id, open)?));
        }
        Ok(Self::Gpu { workers, shapes: shapes.clone() })
    }

    /// Whether rows of this shape are one batch within the limits of the call and of the provider.
    pub(crate) fn fits(&self, shape: Shape, options: &EmbedOptions) -> bool {
        match self {
            Self::Host(host) => {
                shape.rows <= options.max_batch_size
                    && shape.positions() <= self.max_batch_tokens(options)
                    && host.fits(shape)
            }
            Self::Gpu { shapes, .. } => shapes.fits(shape, self.max_batch_tokens(options), options.max_batch_size),
        }
    }

    /// The call's limit of padded tokens per batch, or the provider's default.
    pub(crate) fn max_batch_tokens(&self, options: &EmbedOptions) -> usize {
        options.max_batch_tokens.unwrap_or(match self {
            Self::Host(_) => BATCH_TOKENS_ON_CPU,
            Self::Gpu { .. } => BATCH_TOKENS_ON_GPU,
        })
    }

    /// The fixed cost of a run, in tokens.
    pub(crate) fn run_cost(&self) -> usize {
        match self {
            Self::Host(_) => RUN_COST_ON_CPU,
            Self::Gpu { .. } => RUN_COST_ON_GPU,
        }
    }

    /// The cost of running rows of this shape together without [`Self::run_cost`], in tokens.
    pub(crate) fn cost(&self, shape: Shape) -> usize {
        match self {
            Self::Host(host) => host.cost(shape),
            Self::Gpu { shapes, .. } => shapes.cost(shape),
        }
    }

    /// How many positions are computed for a batch of this shape.
    pub(crate) fn computed(&self, shape: Shape) -> usize {
        match self {
            Self::Host(host) => host.computed(shape),
            Self::Gpu { shapes, .. } => shapes.computed(shape),
        }
    }

    /// # Errors
    /// [`ErrorKind::TooLong`] when not even one row of `length` tokens can be run.
    pub(crate) fn check_length(&self, length: usize) -> Result<()> {
        match self {
            Self::Host(host) => host.check_length(length),
            Self::Gpu { shapes, .. } if length > shapes.max_length() => {
                let message = format!(
                    "a row of {length} tokens is longer than the longest of `sequence_buckets`, {}; lower `max_length`, or open \
                     the model with a longer bucket",
                    shapes.max_length()
                );
                Err(Error::new(ErrorKind::TooLong, message))
            }
            Self::Gpu { .. } => Ok(()),
        }
    }

    /// How many batches are worth handing over before the first is waited for: none on the host, which runs them at once.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Host(_) => 0,
            Self::Gpu { workers, .. } => 2 * workers.len(),
        }
    }

    /// Runs a batch on the host, or hands it to the least loaded GPU.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when every device has failed; those of `stop`.
    pub(crate) fn submit(&self, batch: Batch, stop: &Stop, arena: Arena) -> Result<Submitted> {
        stop.check()?;
        match self {
            Self::Host(host) => Ok(Submitted::Done(host.run(&batch, stop.cancel.as_ref(), arena))),
            Self::Gpu { workers, .. } => least_loaded(workers)?.submit(batch, stop).map(Submitted::Running),
        }
    }

    /// Runs the same batch on the host, or on every GPU as often as it takes to run it without a CUDA graph, to record one and to
    /// replay it. The rows of each run, in their order.
    ///
    /// # Errors
    /// Of the first run that fails; those of `stop`.
    pub(crate) fn run_everywhere(&self, batch: impl Fn() -> Batch, stop: &Stop) -> Result<Vec<Rows>> {
        match self {
            Self::Host(host) => Ok(vec![host.run(&batch(), stop.cancel.as_ref(), Arena::Keep)?]),
            Self::Gpu { workers, .. } => {
                let runs = workers.iter().flat_map(|worker| std::iter::repeat_n(worker, 3));
                runs.map(|worker| worker.submit(batch(), stop)?.wait()).collect()
            }
        }
    }

    /// The least loaded GPU's worker; `None` on the host.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when every device has failed.
    pub(crate) fn worker(&self) -> Result<Option<&Arc<Worker>>> {
        match self {
            Self::Host(_) => Ok(None),
            Self::Gpu { workers, .. } => least_loaded(workers).map(Some),
        }
    }

    /// Makes every shape ready that calls with these options can need for rows of up to `max_length` tokens, on every device;
    /// returns how many shapes.
    ///
    /// # Errors
    /// As [`Worker::warm_up`].
    pub(crate) fn warm_up(&self, options: &EmbedOptions, max_length: usize) -> Result<usize> {
        let Self::Gpu { workers, shapes } = self else { return Ok(0) };
        let stop = options.stop();
        let shapes = shapes.shapes(self.max_batch_tokens(options), options.max_batch_size, max_length);
        for shape in &shapes {
            for worker in workers {
                stop.check()?;
                worker.warm_up(*shape, &stop)?;
            }
        }
        Ok(shapes.len())
    }
}

impl Submitted {
    /// # Errors
    /// Those of the run.
    pub(crate) fn wait(self) -> Result<Rows> {
        match self {
            Self::Done(result) => result,
            Self::Running(ticket) => ticket.wait(),
        }
    }
}

fn least_loaded(workers: &[Arc<Worker>]) -> Result<&Arc<Worker>> {
    let working = workers.iter().filter_map(|worker| Some((worker.load()?, worker)));
    working.min_by_key(|(load, _)| *load).map(|(_, worker)| worker).ok_or_else(|| {
        // The first one's own error: with one device, as usual, it is the whole story.
        let failure = workers.first().and_then(|worker| worker.failure()).cloned();
        failure.unwrap_or_else(|| Error::new(ErrorKind::Device, "no GPU is left"))
    })
}
