//! Device memory that the session's arena knows nothing of.
#![expect(unsafe_code, reason = "device memory is known by its address only")]

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, DriverError, result, sys};

use super::driver::Device;

/// Memory of a device, freed when it is dropped.
pub(super) struct DeviceMemory {
    address: sys::CUdeviceptr,
    context: Arc<CudaContext>,
}

impl DeviceMemory {
    /// # Errors
    /// The driver's, when memory runs out.
    pub(super) fn new(device: &Device, bytes: usize) -> std::result::Result<Self, DriverError> {
        let context = Arc::clone(&device.context);
        context.bind_to_thread()?;
        // SAFETY: the memory is unset; a run or a copy writes it before it is read.
        let address = unsafe { result::malloc_sync(bytes) }?;
        Ok(Self { address, context })
    }

    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once, after everything of ours that used it: Buffers and Copy wait for that. The
        // driver waits for what others have put on streams of the device.
        let freed = self.context.bind_to_thread().and_then(|()| unsafe { result::free_sync(self.address) });
        if let Err(error) = freed {
            tracing::warn!(?error, "a GPU failed while its memory was freed");
        }
    }
}

/// A copy of device memory, which is complete once [`Copy::wait`] has returned.
pub(crate) struct Copy {
    memory: DeviceMemory,
    ready: CudaEvent,
}

impl Copy {
    /// Copies after everything on the device's stream, and before what is put there later.
    ///
    /// # Errors
    /// The driver's, when memory runs out or the device fails.
    pub(super) fn start(device: &Device, source: u64, bytes: usize) -> std::result::Result<Self, DriverError> {
        let memory = DeviceMemory::new(device, bytes)?;
        let ready = device.context.new_event(None)?;
        // SAFETY: the source is an output of the session with at least `bytes` bytes, the target has `bytes`, and it is not freed
        // before the event that follows, since Drop waits for it.
        let copied = unsafe { result::memcpy_dtod_async(memory.address, source, bytes, device.stream.cu_stream()) };
        copied.and_then(|()| ready.record(&device.stream))?;
        Ok(Self { memory, ready })
    }

    /// # Errors
    /// The driver's, when the run before the copy failed.
    pub(super) fn wait(&self) -> std::result::Result<(), DriverError> {
        self.ready.synchronize()
    }

    pub(super) fn address(&self) -> u64 {
        self.memory.address
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Most are complete long ago, and a device that failed is reported by who asked for the copy.
        let _ = self.wait();
    }
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copy").field("address", &self.memory.address).finish_non_exhaustive()
    }
}
