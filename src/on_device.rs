//! Embeddings that stay on the GPU.

use std::sync::Arc;

use crate::device::Location;
use crate::worker::Worker;

/// Embeddings in a GPU's memory, one contiguous row a prompt, `[N, D]`, for a search on that GPU.
///
/// The rows are complete when [`DeviceEmbeddings::event`] has passed on [`DeviceEmbeddings::stream`]; the host has not
/// waited for them. They stay as they are until this is dropped; then the buffer is used again. So drop it when all that
/// reads the rows is done, or call [`DeviceEmbeddings::release_after`].
#[derive(Debug)]
pub struct DeviceEmbeddings {
    worker: Arc<Worker>,
    slot: usize,
    location: Location,
    rows: usize,
    dim: usize,
    tokens: Vec<usize>,
    truncated: Vec<bool>,
    event: Option<usize>,
}

impl DeviceEmbeddings {
    pub(crate) fn new(
        worker: Arc<Worker>,
        (slot, location): (usize, Location),
        dim: usize,
        tokens: Vec<usize>,
        truncated: Vec<bool>,
    ) -> Self {
        let rows = tokens.len();
        Self { worker, slot, location, rows, dim, tokens, truncated, event: None }
    }

    /// The address of the first number in the memory of GPU [`DeviceEmbeddings::device_id`] (a `CUdeviceptr`).
    pub fn device_pointer(&self) -> u64 {
        self.location.address
    }

    /// The `CUstream` that the rows are computed on, in the device's primary context.
    pub fn stream(&self) -> usize {
        self.location.stream
    }

    /// The `CUevent` behind the computation: let your stream wait for it (`cuStreamWaitEvent`).
    pub fn event(&self) -> usize {
        self.location.event
    }

    /// Whether the numbers are float16; else they are float32.
    pub fn is_f16(&self) -> bool {
        self.location.half
    }

    /// The GPU, as [`crate::CudaOptions::device_ids`] numbers it.
    pub fn device_id(&self) -> usize {
        self.worker.device_id()
    }

    /// (N, D).
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.dim)
    }

    /// The number of token ids of each row, `<s>` and instruction included.
    pub fn token_counts(&self) -> &[usize] {
        &self.tokens
    }

    /// Whether ids of each row were cut off.
    pub fn truncated(&self) -> &[bool] {
        &self.truncated
    }

    /// Gives the buffer back to runs that come after `event`, which you recorded behind what reads the rows; the host
    /// does not wait.
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
        self.worker.give_back(self.slot, self.event);
    }
}
