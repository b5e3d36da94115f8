//! The CUDA driver: its version, the devices, and a device with its stream.
//!
//! Copies go through the CUDA driver (cudarc), runs through ONNX Runtime, both on one stream of ours: each starts when the one
//! before has finished, and nothing waits on the host. The driver is opened at run time.
#![expect(unsafe_code, reason = "CUDA's driver is C")]

use std::ffi::CStr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use crate::error::{Error, ErrorKind, Result};
use crate::provider::UserStream;

/// A GPU, with the stream that orders all of its copies and runs.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    id: usize,
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
}

/// A GPU, as the driver describes it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its number in [`GpuOptions::device_ids`](crate::gpu::GpuOptions::device_ids).
    pub id: usize,
    /// The product name.
    pub name: String,
    /// Compute capability, for example (9, 0).
    pub compute_capability: (i32, i32),
    /// Device memory in bytes.
    pub total_memory: usize,
}

/// The newest CUDA that the driver supports, as (major, minor).
///
/// # Errors
/// [`ErrorKind::Provider`] when there is no NVIDIA driver or it does not start.
pub fn driver_version() -> Result<(i32, i32)> {
    start_driver()?;
    let mut version = 0;
    // SAFETY: writes one int to the address of one.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    status.result().map_err(|error| driver_error("asking the NVIDIA driver for its version failed", error))?;
    Ok((version / 1000, version % 1000 / 10))
}

/// All GPUs that the driver shows this process; `CUDA_VISIBLE_DEVICES` limits them. Opens none of them, so that one that is
/// busy or broken does not hide the others.
///
/// # Errors
/// [`ErrorKind::Provider`] when there is no NVIDIA driver, it does not start, or it has no device.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    (0..device_count()?).map(describe).collect()
}

fn describe(id: usize) -> Result<DeviceInfo> {
    let ask = || -> std::result::Result<DeviceInfo, DriverError> {
        let device = result::device::get(i32::try_from(id).unwrap_or(i32::MAX))?;
        // SAFETY: the device exists, and attributes are ints.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        Ok(DeviceInfo {
            id,
            name: result::device::get_name(device)?,
            compute_capability: (
                attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            // SAFETY: the device exists.
            total_memory: unsafe { result::device::total_mem(device) }?,
        })
    };
    ask().map_err(|error| driver_error(&format!("asking GPU {id} about itself failed"), error))
}

/// Free memory of a GPU in bytes. Opens the GPU, which takes some of that memory.
///
/// # Errors
/// [`ErrorKind::Provider`] when there is no driver or no such GPU, [`ErrorKind::Device`] when the GPU does not answer.
pub fn free_memory(device_id: usize) -> Result<usize> {
    let device = Device::open(device_id, None)?;
    let failed = |error| device.error("asking the device for its free memory failed", error);
    device.context.mem_get_info().map(|(free, _)| free).map_err(failed)
}

/// # Errors
/// [`ErrorKind::Provider`] when libcuda is missing or refuses to start.
fn start_driver() -> Result<()> {
    // SAFETY: opens and closes a library whose initializers are the driver's own.
    if !unsafe { sys::is_culib_present() } {
        let message = "there is no NVIDIA driver on this machine (libcuda.so.1 was not found); install it, or start the \
                       container with the GPU (docker run --gpus all)";
        return Err(Error::new(ErrorKind::Provider, message));
    }
    result::init().map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => {
            Error::new(ErrorKind::Provider, "the NVIDIA driver finds no GPU; check whether CUDA_VISIBLE_DEVICES hides it")
        }
        sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            let message = "the NVIDIA driver's library and kernel module have different versions; reboot, or install the \
                           driver again";
            Error::new(ErrorKind::Provider, message)
        }
        _ => driver_error("starting the NVIDIA driver failed", error),
    })
}

/// Lets this thread, which must be ours, call CUDA while another thread records a run. In CUDA's default mode those calls would
/// fail, and spoil the recording; to make a context is such a call.
///
/// # Errors
/// [`ErrorKind::Provider`] when there is no driver, or it refuses.
pub(super) fn ignore_recordings_of_other_threads() -> Result<()> {
    start_driver()?;
    let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: reads and writes one mode.
    let exchanged = unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) }.result();
    exchanged.map_err(|error| driver_error("setting the thread's capture mode failed", error))
}

fn device_count() -> Result<usize> {
    start_driver()?;
    let count = result::device::get_count()
        .map_err(|error| driver_error("asking the NVIDIA driver for its devices failed", error))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The result of a function without parameters in a loaded library: how NVIDIA's libraries tell their version.
pub(crate) fn ask_library(library: &str, function: &str) -> Option<i32> {
    // SAFETY: the library is loaded already, so that no initializer runs; the callers name functions of this type. One
    // that returns a wider integer has the lower half where a narrower one has all.
    unsafe {
        let library = libloading::Library::new(library).ok()?;
        let function = library.get::<unsafe extern "C" fn() -> i32>(function.as_bytes()).ok()?;
        Some(function())
    }
}

impl Device {
    /// Opens a device, and makes a stream on it unless the caller gives one.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when there is no driver or no such device.
    pub(crate) fn open(id: usize, stream: Option<UserStream>) -> Result<Self> {
        let count = device_count()?;
        if id >= count {
            let message =
                format!("there is no GPU {id}: the NVIDIA driver has {count}, numbered from 0; see `device_ids`");
            return Err(Error::new(ErrorKind::Provider, message));
        }
        let failed = |error| driver_error(&format!("opening GPU {id} failed"), error);
        let context = CudaContext::new(id).map_err(failed)?;
        let stream = match stream {
            // SAFETY: whoever made the UserStream promised that it is a stream of this device and outlives this.
            Some(stream) => unsafe { context.wrap_borrowed_stream(stream.address() as sys::CUstream) },
            None => context.new_stream().map_err(failed)?,
        };
        Ok(Self { id, context, stream })
    }

    pub(crate) fn id(&self) -> usize {
        self.id
    }

    /// The stream's address, as ONNX Runtime and callers take it.
    pub(crate) fn stream_address(&self) -> usize {
        self.stream.cu_stream() as usize
    }

    /// Waits until everything on the stream is done.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when any of it failed.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| self.error("a run or copy failed", error))
    }

    /// Whether the device can still be used. A stream that is being recorded cannot say, and asking would spoil the recording.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] with the driver's reason when it cannot.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_recorded() { Ok(()) } else { self.synchronize() }
    }

    /// Refuses a stream that is being recorded before a run: what would be put on it would not run. Only a caller's can be.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when it is.
    pub(super) fn refuse_callers_recording(&self) -> Result<()> {
        if !self.is_recorded() {
            return Ok(());
        }
        let message = format!(
            "GPU {}: the stream given as `stream` is being recorded (cuStreamBeginCapture), and runs cannot be part of a \
             recording; end the recording, or give another stream",
            self.id
        );
        Err(Error::new(ErrorKind::Device, message))
    }

    /// Ends a recording that was left open by a failed run, or was spoilt by another thread. Then the stream can be used again.
    pub(super) fn end_recording(&self) {
        if !self.is_recorded() {
            return;
        }
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is being recorded; one handle is written, which is null when the recording was spoilt.
        let ended = unsafe { sys::cuStreamEndCapture(self.stream.cu_stream(), &raw mut graph) }.result();
        if ended.is_ok() && !graph.is_null() {
            // SAFETY: the graph was just made and nothing else knows it.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
    }

    fn is_recorded(&self) -> bool {
        let none = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let mut status = none;
        // SAFETY: the stream is alive; one status is written.
        let asked = unsafe { sys::cuStreamIsCapturing(self.stream.cu_stream(), &raw mut status) }.result();
        asked.is_ok() && status != none
    }

    /// An error of this device: what failed, and the driver's reason.
    pub(super) fn error(&self, what: &str, error: DriverError) -> Error {
        Error::new(ErrorKind::Device, format!("GPU {}: {what}: {}", self.id, in_words(error)))
    }
}

fn driver_error(what: &str, error: DriverError) -> Error {
    Error::new(ErrorKind::Provider, format!("{what}: {}", in_words(error)))
}

/// The driver's name and text for an error.
fn in_words(error: DriverError) -> String {
    let text = |words: std::result::Result<&CStr, DriverError>| {
        words.map_or_else(|_| "unknown".to_owned(), |words| words.to_string_lossy().into_owned())
    };
    format!("{} ({}, CUDA error {})", text(error.error_string()), text(error.error_name()), error.0 as i32)
}
