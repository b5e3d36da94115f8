//! NVIDIA GPUs: the driver, a worker thread per device, its session and buffers, and embeddings that stay on the device.

mod buckets;
mod buffers;
mod driver;
mod embeddings;
mod libraries;
mod memory;
mod session;
mod shapes;
mod support;
mod worker;

pub use driver::{DeviceInfo, devices, driver_version, free_memory};
pub use embeddings::{DeviceEmbeddings, DeviceRows};
pub use libraries::{SharedLibrary, preload_libraries};

pub use support::{KNOWN_LIBRARY, check_device, check_driver};

pub(super) use libraries::preload_checked;
pub(crate) use libraries::tensorrt_version;
pub(crate) use session::GpuSession;
pub(crate) use shapes::Shapes;
pub(crate) use support::check_gpus;
pub(crate) use worker::{Ticket, Worker};
