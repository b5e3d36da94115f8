//! Running a graph in the caller's thread, on the CPU: the CPU provider and OpenVINO.

use std::sync::{Mutex, PoisonError};

use half::f16;
use ndarray::{Array2, Ix2};
use ort::session::{RunOptions, Session};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorRef};

use super::Opening;
use crate::batch::{Batch, Shape};
use crate::embeddings::{Dtype, Rows};
use crate::error::{Error, ErrorKind, Result};
use crate::machine;
use crate::model::{Layout, Target};
use crate::onnxruntime::{GraphFile, open_graph};
use crate::options::CancelToken;
use crate::provider::{Placement, Provider};

/// What the scores of several rows that run together may take, in bytes: 8 GiB. More rows at once would not run faster.
const MAX_SCORES_TOGETHER: u64 = 8 << 30;

/// The memory for attention scores in bytes, where the system does not say how much there is.
const UNKNOWN_MEMORY: u64 = 8 << 30;

/// What a run needs for each byte of scores, in eighths: the scores, their softmax, and other tensors of that row. Measured with
/// nv-embed-mini and rows of 4,096 tokens: 2.08 bytes.
const EIGHTHS_PER_SCORE: u64 = 17;

/// An open graph on the host.
///
/// ONNX Runtime's `Run` is documented as thread-safe, but `ort` asks for exclusive access and gives reasons; runs therefore
/// take turns. Each run uses all threads of its session, so running two at once would gain nothing.
pub(crate) struct Host {
    session: Mutex<Session>,
    layout: Layout,
    pad_token_id: u32,
    /// The graph's output type, which was checked when it was opened.
    dtype: Dtype,
    /// Whether runs keep memory for the next run.
    has_arena: bool,
    /// Bytes of attention scores per row and squared token, where the provider stores them.
    score_bytes: Option<u64>,
    /// The memory that is left to this process once the model is open, in bytes.
    memory: u64,
    /// For a graph that computes real tokens only: the cost of attention to another token, in tokens.
    attention_cost: Option<f64>,
}

/// What a run does with the memory it took, if the session has an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arena {
    /// Keep it for the next run.
    Keep,
    /// Return what is free after the run to the system.
    Shrink,
}

impl Host {
    /// Opens the graph of a model folder.
    ///
    /// # Errors
    /// As [`open_graph`].
    pub(crate) fn open(opening: &Opening, file: &GraphFile) -> Result<Self> {
        let Opening { manifest, library, options, .. } = opening;
        let placement = Placement {
            precision: Some(manifest.precision()),
            threads: Some(options.intra_threads.unwrap_or_else(machine::threads)),
            arena: !options.low_memory,
            ..Placement::default()
        };
        let attachment = options.provider.attachment(&options.gpu, &options.provider_options, &placement);
        let session = open_graph(manifest, library, options, file, &attachment)?;
        // The graph for the CPU goes through the scores in blocks, and so do OpenVINO's kernels.
        let stores_scores =
            matches!(manifest.target(), Target::Any | Target::Cuda) && options.provider == Provider::Cpu;
        Ok(Self {
            session: Mutex::new(session),
            layout: manifest.layout(),
            pad_token_id: manifest.pad_token_id(),
            dtype: manifest.output_dtype(),
            has_arena: options.provider == Provider::Cpu && placement.arena,
            memory: memory_left(),
            score_bytes: stores_scores.then(|| (manifest.architecture().num_attention_heads as u64).saturating_mul(4)),
            attention_cost: matches!(manifest.target(), Target::Cpu | Target::Cuda | Target::OpenVino)
                .then(|| manifest.architecture().attention_cost()),
        })
    }

    /// The cost of running rows of this shape together, in tokens, without the fixed cost of a run.
    pub(crate) fn cost(&self, shape: Shape) -> usize {
        match self.attention_cost {
            // Products leave padding out, attention does not.
            Some(cost) => ((shape.positions() * shape.length) as f64 * cost) as usize,
            None => shape.positions(),
        }
    }

    /// How many positions are computed for a batch of this shape.
    pub(crate) fn computed(&self, shape: Shape) -> usize {
        if self.attention_cost.is_some() { shape.tokens } else { shape.positions() }
    }

    /// Whether a batch's attention scores fit into memory, on a provider that stores them all.
    pub(crate) fn fits(&self, shape: Shape) -> bool {
        let scores = self.scores(shape.length).saturating_mul(shape.rows as u64);
        scores <= self.memory && (shape.rows == 1 || scores <= MAX_SCORES_TOGETHER)
    }

    /// The memory for the attention scores that are stored for a row of `length` tokens, in bytes.
    fn scores(&self, length: usize) -> u64 {
        let scores = self.score_bytes.unwrap_or(0).saturating_mul((length as u64).saturating_pow(2));
        scores.saturating_mul(EIGHTHS_PER_SCORE) / 8
    }

    /// # Errors
    /// [`ErrorKind::TooLong`] when not even one row of `length` tokens fits.
    pub(crate) fn check_length(&self, length: usize) -> Result<()> {
        let row = self.scores(length);
        if row <= self.memory {
            return Ok(());
        }
        let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let message = format!(
            "a row of {length} tokens needs {:.1} GiB for attention scores on the CPU, and {:.1} GiB are left of the memory that \
             this process may use; lower `max_length`, or export the model with --target cpu, which does not store them",
            gibibytes(row),
            gibibytes(self.memory)
        );
        Err(Error::new(ErrorKind::TooLong, message))
    }

    /// Runs one batch. Waits while another thread runs.
    ///
    /// # Errors
    /// [`ErrorKind::Inference`] when ONNX Runtime fails or the output has another shape than `[B, D]`;
    /// [`ErrorKind::Cancelled`] when the token is, before or while the batch runs.
    pub(crate) fn run(&self, batch: &Batch, cancel: Option<&CancelToken>, arena: Arena) -> Result<Rows> {
        let shape = batch.shape();
        let failed = |error: ort::Error| {
            let message = format!("ONNX Runtime failed on a batch of {shape}");
            Error::new(ErrorKind::Inference, message).because(error)
        };
        let mut numbers = vec![0; shape.numbers(self.layout)];
        batch.write(self.layout, shape, self.pad_token_id, &mut numbers);
        let mut inputs = Vec::with_capacity(self.layout.inputs().len());
        let mut rest = numbers.as_slice();
        for input in self.layout.inputs() {
            let dimensions = shape.of(input);
            let (array, others) = rest.split_at(dimensions.iter().product());
            rest = others;
            inputs.push((input.name, TensorRef::from_array_view((dimensions, array)).map_err(failed)?));
        }
        // A thread that panicked while it held the lock left the session itself whole: it is not ours to change.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = RunOptions::new().map_err(failed)?;
        if arena == Arena::Shrink && self.has_arena {
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0").map_err(failed)?;
        }
        let (stoppable, plain);
        let options = match cancel {
            Some(cancel) => {
                stoppable = cancel.start_run(options)?;
                stoppable.options()
            }
            None => {
                plain = options;
                &plain
            }
        };
        let outcome = session.run_with_options(inputs, options);
        // ONNX Runtime reports that a run was stopped only in the text of its error.
        let outputs =
            outcome.map_err(|error| cancel.and_then(|token| token.check().err()).unwrap_or_else(|| failed(error)))?;
        match self.dtype {
            Dtype::F16 => rows::<f16>(&outputs[0]).map(Rows::F16),
            // Graphs return floats of either kind.
            _ => rows::<f32>(&outputs[0]).map(Rows::F32),
        }
        .map_err(failed)
    }
}

/// What this process may still use of the machine's memory, or of its cgroup's.
fn memory_left() -> u64 {
    let limit = machine::memory_limit();
    limit.map_or(UNKNOWN_MEMORY, |limit| limit.saturating_sub(machine::resident_memory().unwrap_or(0)))
}

fn rows<T: PrimitiveTensorElementType + Clone>(value: &DynValue) -> ort::Result<Array2<T>> {
    let array = value.try_extract_array::<T>()?;
    array.to_owned().into_dimensionality::<Ix2>().map_err(ort::Error::wrap)
}
