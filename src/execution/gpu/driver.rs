//! The CUDA driver: its version, the devices, and a device with its stream.
//!
//! Copies go through the CUDA driver (cudarc), runs through ONNX Runtime, both on one stream of ours: each starts when the one
//! before has finished, and nothing waits on the host. The driver is opened at run time.
#![expect(unsafe_code, reason = "CUDA's driver is C")]

use std::ffi::CStr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, sys};

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
    /// Free device memory in bytes.
    pub free_memory: usize,
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

/// All GPUs that the driver shows this process; `CUDA_VISIBLE_DEVICES` limits them.
///
/// # Errors
/// [`ErrorKind::Provider`] when there is no NVIDIA driver, it does not start, or it has no device.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    (0..device_count()?).map(|id| Device::open(id, None)?.info()).collect()
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
    cudarc::driver::result::init().map_err(|error| match error.0 {
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

fn device_count() -> Result<usize> {
    start_driver()?;
    let count = cudarc::driver::result::device::get_count()
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

    /// # Errors
    /// [`ErrorKind::Device`] when the driver fails.
    pub(crate) fn info(&self) -> Result<DeviceInfo> {
        let failed = |error| self.error("asking the device about itself failed", error);
        let (free_memory, total_memory) = self.context.mem_get_info().map_err(failed)?;
        Ok(DeviceInfo {
            id: self.id,
            name: self.context.name().map_err(failed)?,
            compute_capability: self.context.compute_capability().map_err(failed)?,
            total_memory,
            free_memory,
        })
    }

    /// Waits until everything on the stream is done.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when any of it failed.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| self.error("a run or copy failed", error))
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
