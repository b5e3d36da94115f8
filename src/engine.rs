//! Where batches run: on the host, in the caller's thread, or on GPUs, each with a thread of its own.

use std::sync::Arc;

use crate::batch::{BATCH_TOKENS_ON_CPU, BATCH_TOKENS_ON_GPU, Batch, RUN_COST_ON_CPU, RUN_COST_ON_GPU};
use crate::buckets::Buckets;
use crate::cancel::Patience;
use crate::device::Runner;
use crate::error::{Error, ErrorKind, Result};
use crate::libraries;
use crate::library::Library;
use crate::manifest::Manifest;
use crate::options::{EncodeOptions, LoadOptions};
use crate::provider::Placement;
use crate::session::{RawOutput, Session, Source};
use crate::worker::{Ticket, Worker};

/// The longest row that TensorRT engines are made for by default: they reserve memory for their largest shape.
const ENGINE_LENGTH: usize = 512;
/// The shape that TensorRT tunes an engine for, where the buckets have it: eight short passages.
const TYPICAL: (usize, usize) = (8, 128);

/// An open graph, and what runs it.
pub(crate) enum Engine {
    Host(Session),
    Device { workers: Vec<Arc<Worker>>, buckets: Buckets },
}

/// A batch on its way.
pub(crate) enum Run {
    Done(Result<RawOutput>),
    Waiting(Ticket<RawOutput>),
}

impl Engine {
    /// # Errors
    /// As [`Session::open`] and [`Runner::open`]; [`ErrorKind::Option`] when an option is out of range.
    pub(crate) fn open(manifest: &Manifest, library: &Library, options: &LoadOptions, source: &Source) -> Result<Self> {
        if !options.provider.is_gpu() {
            return Ok(Self::Host(Session::open(manifest, library, options, source)?));
        }
        libraries::preload_checked(library.path(), options.provider)?;
        let (buckets, mut placement) = plan(manifest, options)?;
        placement.engines = match source {
            Source::Save(folder) | Source::Prepared(folder) => Some(folder.clone()),
            Source::Model if options.provider.builds_engines() && !options.tensorrt.build_on_open => {
                let message = format!(
                    "no {} engine was prepared for {} with this library, GPU and these options; make one with nvembed \
                     prepare, which takes minutes, or allow it when the model opens (build_on_open)",
                    options.provider,
                    manifest.folder().display()
                );
                return Err(Error::new(ErrorKind::Provider, message));
            }
            Source::Model => None,
        };
        let mut workers = Vec::with_capacity(options.cuda.device_ids.len());
        for device_id in options.cuda.device_ids.iter().copied() {
            let (manifest, library, options) = (manifest.clone(), library.clone(), options.clone());
            let (buckets, placement) = (buckets.clone(), placement.clone());
            let open = move || Runner::open(device_id, &manifest, &library, &options, &buckets, placement);
            workers.push(Arc::new(Worker::start(device_id, open)?));
        }
        Ok(Self::Device { workers, buckets })
    }

    /// How many rows of `length` tokens a batch takes within the call's limits and the provider's.
    pub(crate) fn max_rows(&self, length: usize, options: &EncodeOptions) -> usize {
        let (max_batch_tokens, max_batch_size) = (self.max_batch_tokens(options), options.max_batch_size);
        match self {
            Self::Host(session) => (max_batch_tokens / length.max(1)).min(max_batch_size).min(session.max_rows(length)),
            Self::Device { buckets, .. } => buckets.max_rows(length, max_batch_tokens, max_batch_size),
        }
    }

    /// The call's limit of padded tokens in a batch, or the provider's own.
    fn max_batch_tokens(&self, options: &EncodeOptions) -> usize {
        options.max_batch_tokens.unwrap_or(match self {
            Self::Host(_) => BATCH_TOKENS_ON_CPU,
            Self::Device { .. } => BATCH_TOKENS_ON_GPU,
        })
    }

    /// What a run costs beside its tokens, in tokens.
    pub(crate) fn run_cost(&self) -> usize {
        match self {
            Self::Host(_) => RUN_COST_ON_CPU,
            Self::Device { .. } => RUN_COST_ON_GPU,
        }
    }

    /// What running `rows` rows of at most `length` tokens together costs, beside [`Self::run_cost`], in tokens.
    pub(crate) fn cost(&self, rows: usize, length: usize) -> usize {
        match self {
            Self::Host(session) => session.cost(rows, length),
            Self::Device { buckets, .. } => positions(buckets, rows, length),
        }
    }

    /// How many positions a batch of this shape, with this many real tokens, makes the model compute.
    pub(crate) fn computed(&self, (rows, length): (usize, usize), tokens: usize) -> usize {
        match self {
            Self::Host(session) => session.computed((rows, length), tokens),
            Self::Device { buckets, .. } => positions(buckets, rows, length),
        }
    }

    /// # Errors
    /// [`ErrorKind::TooLong`] when not even one row of `length` tokens can be run.
    pub(crate) fn check_length(&self, length: usize) -> Result<()> {
        match self {
            Self::Host(session) => session.check_length(length),
            Self::Device { buckets, .. } if length > buckets.max_length() => {
                let message = format!(
                    "a row of {length} tokens is longer than the longest sequence bucket, {}; lower max_length, or open \
                     the model with a longer bucket",
                    buckets.max_length()
                );
                Err(Error::new(ErrorKind::TooLong, message))
            }
            Self::Device { .. } => Ok(()),
        }
    }

    /// How many batches are worth handing over before the first is waited for: none on the host, which runs them at once.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Host(_) => 0,
            Self::Device { workers, .. } => 2 * workers.len(),
        }
    }

    /// Runs a batch on the host, or hands it to the device that has the least to do. `gives_back`: the host then keeps none
    /// of the memory that runs took.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when every device has failed; those of `patience`.
    pub(crate) fn submit(&self, batch: Batch, patience: &Patience, gives_back: bool) -> Result<Run> {
        patience.check()?;
        match self {
            Self::Host(session) => Ok(Run::Done(session.run(&batch, patience.cancel.as_ref(), gives_back))),
            Self::Device { workers, .. } => least_loaded(workers)?.submit(batch, patience).map(Run::Waiting),
        }
    }

    /// The device that has the least to do; `None` on the host.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when every device has failed.
    pub(crate) fn worker(&self) -> Result<Option<&Arc<Worker>>> {
        match self {
            Self::Host(_) => Ok(None),
            Self::Device { workers, .. } => least_loaded(workers).map(Some),
        }
    }

    /// Makes every shape ready that a call with these options can need, on every device; returns how many.
    ///
    /// # Errors
    /// As [`Worker::warm_up`].
    pub(crate) fn warm_up(&self, options: &EncodeOptions) -> Result<usize> {
        let Self::Device { workers, buckets } = self else { return Ok(0) };
        let patience = Patience::of(options);
        let shapes = buckets.shapes(self.max_batch_tokens(options), options.max_batch_size);
        for shape in &shapes {
            for worker in workers {
                patience.check()?;
                worker.warm_up(*shape, &patience)?;
            }
        }
        Ok(shapes.len())
    }
}

impl Run {
    /// # Errors
    /// Those of the run.
    pub(crate) fn wait(self) -> Result<RawOutput> {
        match self {
            Self::Done(result) => result,
            Self::Waiting(ticket) => ticket.wait(),
        }
    }
}

/// How many positions a batch has when it is padded to its bucket.
fn positions(buckets: &Buckets, rows: usize, length: usize) -> usize {
    let (rows, length) = buckets.shape(rows, length).unwrap_or((rows, length));
    rows * length
}

fn least_loaded(workers: &[Arc<Worker>]) -> Result<&Arc<Worker>> {
    let working = workers.iter().filter_map(|worker| Some((worker.load()?, worker)));
    working.min_by_key(|(load, _)| *load).map(|(_, worker)| worker).ok_or_else(|| {
        // The first one's own words: with one device, as usual, they are the whole story.
        let words = workers.first().and_then(|worker| worker.failure()).map(|error| error.to_string());
        Error::new(ErrorKind::Device, words.unwrap_or_else(|| "no GPU is left".to_owned()))
    })
}

/// The shapes that a model will see on a GPU, and what a session must know of them.
///
/// # Errors
/// [`ErrorKind::Option`] when an option is out of range.
pub(crate) fn plan(manifest: &Manifest, options: &LoadOptions) -> Result<(Buckets, Placement)> {
    options.cuda.check()?;
    options.tensorrt.check()?;
    let buckets = buckets(options, manifest.max_length())?;
    let placement = Placement {
        profile: profile(&buckets),
        inputs: manifest.contract().0.into_iter().map(|input| input.name).collect(),
        weights: manifest.data_bytes(),
        ..Placement::default()
    };
    Ok((buckets, placement))
}

fn buckets(options: &LoadOptions, max_length: usize) -> Result<Buckets> {
    let limit = if options.provider.builds_engines() && options.cuda.buckets.sequence.is_empty() {
        max_length.min(ENGINE_LENGTH)
    } else {
        max_length
    };
    options.cuda.buckets.resolve(limit)
}

/// Smallest, typical and largest shape of a TensorRT profile.
fn profile(buckets: &Buckets) -> [(usize, usize); 3] {
    let ends = |list: &[usize], typical: usize| {
        let first = list.first().copied().unwrap_or(1);
        let last = list.last().copied().unwrap_or(1);
        [first, typical.clamp(first, last), last]
    };
    let (rows, lengths) = (ends(&buckets.batch, TYPICAL.0), ends(&buckets.sequence, TYPICAL.1));
    [0, 1, 2].map(|index| (rows[index], lengths[index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Provider;

    #[test]
    fn a_tensorrt_profile_spans_the_buckets() {
        let buckets = Buckets { sequence: vec![16, 64, 512], batch: vec![1, 32] };
        assert_eq!(profile(&buckets), [(1, 16), (8, 128), (32, 512)]);
        assert_eq!(profile(&Buckets { sequence: vec![64], batch: vec![2] }), [(2, 64), (2, 64), (2, 64)]);
    }

    #[test]
    fn engines_end_at_512_ids_unless_longer_buckets_are_given() {
        let mut options = LoadOptions { provider: Provider::TensorRt, ..LoadOptions::default() };
        assert_eq!(super::buckets(&options, 32_768).unwrap().max_length(), 512);
        options.cuda.buckets.sequence = vec![1024];
        assert_eq!(super::buckets(&options, 32_768).unwrap().max_length(), 1024);
        options.provider = Provider::Cuda;
        options.cuda.buckets.sequence.clear();
        assert_eq!(super::buckets(&options, 32_768).unwrap().max_length(), 32_768);
    }
}
