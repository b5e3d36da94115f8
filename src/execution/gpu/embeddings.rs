//! Embeddings that stay on the GPU.

use std::sync::Arc;

use super::Worker;
use super::buffers::Location;
use super::memory::Copy;
use super::session::Slot;
use crate::batch::Batch;
use crate::embeddings::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Stop;
use crate::tokenize::Encoding;

/// Embeddings in a GPU's memory, one contiguous row per prompt, `[N, D]`, for a search on that GPU.
///
/// The rows are complete when [`DeviceEmbeddings::event`] has passed on [`DeviceEmbeddings::stream`]; the host has not
/// waited for them. They stay unchanged until this value is dropped; then the buffer is reused. So drop it once everything
/// that reads the rows is done, or call [`DeviceEmbeddings::release_after`].
#[derive(Debug)]
pub struct DeviceEmbeddings {
    worker: Arc<Worker>,
    slot: Slot,
    location: Location,
    rows: usize,
    dim: usize,
    tokens: Vec<usize>,
    truncated: Vec<bool>,
    event: Option<usize>,
}

impl DeviceEmbeddings {
    /// Runs encodings as one batch and keeps the rows on the worker's GPU. Waits until the run has started.
    ///
    /// # Errors
    /// As [`Worker::hold`].
    pub(crate) fn run(worker: &Arc<Worker>, encodings: &[Encoding], dim: usize, stop: &Stop) -> Result<Self> {
        let batch = Batch::new(&encodings.iter().collect::<Vec<_>>());
        let (slot, location) = worker.hold(batch, stop)?;
        let tokens = encodings.iter().map(|encoding| encoding.ids().len()).collect();
        let truncated = encodings.iter().map(Encoding::truncated).collect();
        let (worker, rows) = (Arc::clone(worker), encodings.len());
        Ok(Self { worker, slot, location, rows, dim, tokens, truncated, event: None })
    }

    /// The address of the first number in the memory of GPU [`DeviceEmbeddings::device_id`] (a `CUdeviceptr`).
    pub fn device_pointer(&self) -> u64 {
        self.location.address
    }

    /// The `CUstream` that the rows are computed on, in the device's primary context.
    pub fn stream(&self) -> usize {
        self.location.stream
    }

    /// The `CUevent` recorded after the computation: let your stream wait for it (`cuStreamWaitEvent`).
    pub fn event(&self) -> usize {
        self.location.event
    }

    /// The element type: that of the model's graph, 16-bit floats for an fp16 model.
    pub fn dtype(&self) -> Dtype {
        self.location.dtype
    }

    /// The GPU's number in [`GpuOptions::device_ids`](crate::gpu::GpuOptions::device_ids).
    pub fn device_id(&self) -> usize {
        self.worker.device_id()
    }

    /// (N, D).
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.dim)
    }

    /// The number of token ids in each row, including `<s>` and the instruction.
    pub fn token_counts(&self) -> &[usize] {
        &self.tokens
    }

    /// Whether ids of each row were cut off.
    pub fn truncated(&self) -> &[bool] {
        &self.truncated
    }

    /// Copies the rows into memory of their own, waits until they are complete, and lets other runs have the buffer.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when memory runs out or the run failed.
    pub fn into_rows(self) -> Result<DeviceRows> {
        let size = match self.dtype() {
            Dtype::F16 => size_of::<half::f16>(),
            _ => size_of::<f32>(),
        };
        let memory = self.worker.copy(self.slot, self.rows * self.dim * size)?;
        memory.wait().map_err(|error| {
            Error::new(ErrorKind::Device, format!("GPU {}: a run failed", self.device_id())).because(error)
        })?;
        Ok(DeviceRows { memory, device_id: self.device_id(), dtype: self.dtype(), shape: self.shape() })
    }

    /// Lets runs after `event` reuse the buffer. Record the event after everything that reads the rows; the host does not
    /// wait.
    ///
    /// # Safety
    /// `event` is a `CUevent` of the device's primary context and is not destroyed before this model's next call on the
    /// device has returned.
    #[expect(unsafe_code, reason = "an event is known by its address only")]
    pub unsafe fn release_after(mut self, event: usize) {
        self.event = Some(event);
    }
}

impl Drop for DeviceEmbeddings {
    fn drop(&mut self) {
        self.worker.release(self.slot, self.event);
    }
}

/// Embeddings in a GPU's memory that is theirs alone, one contiguous row per prompt, `[N, D]`, complete and free to be kept.
///
/// They outlive the model, and hold none of its buffers. Dropping them frees the memory, for which the driver waits until the
/// device is idle.
#[derive(Debug)]
pub struct DeviceRows {
    memory: Copy,
    device_id: usize,
    dtype: Dtype,
    shape: (usize, usize),
}

impl DeviceRows {
    /// The address of the first number in the memory of GPU [`DeviceRows::device_id`] (a `CUdeviceptr`).
    pub fn device_pointer(&self) -> u64 {
        self.memory.address()
    }

    /// The element type: 16-bit floats or f32.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The GPU's number among those that the driver shows this process.
    pub fn device_id(&self) -> usize {
        self.device_id
    }

    /// (N, D).
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }
}
