//! A session on a device, with the buffers of every shape it was run with.
#![expect(unsafe_code, reason = "an event is known by its address only")]

use cudarc::driver::{result, sys};
use ort::session::Session;

use super::Shapes;
use super::buffers::{Buffers, Location};
use super::driver::Device;
use crate::batch::{Batch, Shape};
use crate::embeddings::Rows;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Manifest;
use crate::onnxruntime::{GraphFile, Library, open_graph};
use crate::options::ModelOptions;
use crate::provider::{GpuOptions, Placement};

/// Everything of one device that one thread owns.
///
/// Fields are dropped in their order: buffers before the session that owns their memory, the session before its stream.
pub(crate) struct GpuSession {
    buffers: Vec<Buffers>,
    session: Session,
    device: Device,
    manifest: Manifest,
    shapes: Shapes,
    options: GpuOptions,
}

/// Buffers whose output the caller holds on the device: a number that [`GpuSession::release`] takes.
pub(super) type Slot = usize;

impl GpuSession {
    /// Opens the graph on a device.
    ///
    /// # Errors
    /// As [`open_graph`], and [`ErrorKind::Provider`] when the device cannot be used.
    pub(crate) fn open(
        device_id: usize,
        manifest: Manifest,
        library: &Library,
        options: ModelOptions,
        shapes: Shapes,
        placement: Placement,
    ) -> Result<Self> {
        let device = Device::open(device_id, options.gpu.stream)?;
        let placement = Placement { device_id, stream: device.stream_address(), ..placement };
        let dispatch = options.provider.dispatch(&options.gpu, &options.provider_options, &placement);
        let session = open_graph(&manifest, library, &options, &GraphFile::Model, dispatch)?;
        Ok(Self { buffers: Vec::new(), session, device, manifest, shapes, options: options.gpu })
    }

    /// Runs a batch, and brings its rows to the host.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] or [`ErrorKind::Inference`].
    pub(super) fn run(&mut self, batch: &Batch) -> Result<Rows> {
        let slot = self.start(batch)?;
        self.buffers[slot].read(&self.device, batch.shape().rows, self.manifest.dim())
    }

    /// Runs a batch and leaves its rows on the device, in buffers that no other run gets until they are released.
    ///
    /// # Errors
    /// As [`GpuSession::run`].
    pub(super) fn hold(&mut self, batch: &Batch) -> Result<(Slot, Location)> {
        let slot = self.start(batch)?;
        self.buffers[slot].held = true;
        Ok((slot, self.buffers[slot].location(&self.device)))
    }

    /// Lets the buffers be used again; if an event is given by its address, by runs after that event.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when the driver refuses the event.
    pub(super) fn release(&mut self, slot: Slot, event: Option<usize>) -> Result<()> {
        self.buffers[slot].held = false;
        let Some(event) = event else { return Ok(()) };
        let failed = |error| self.device.error("waiting for the caller's event failed", error);
        self.device.context.bind_to_thread().map_err(failed)?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: whoever gave the event promised that it is one and still exists (DeviceEmbeddings::release_after).
        unsafe { result::stream::wait_event(self.device.stream.cu_stream(), event as sys::CUevent, flags) }
            .map_err(failed)
    }

    /// Allocates and records a shape ahead of its first batch.
    ///
    /// # Errors
    /// As [`GpuSession::run`].
    pub(super) fn warm_up(&mut self, shape: Shape) -> Result<()> {
        let slot = self.slot(shape)?;
        let nothing = Batch::empty();
        self.buffers[slot].run(&self.device, &mut self.session, &nothing, self.manifest.pad_token_id())?;
        self.device.synchronize()
    }

    /// Whether the device is still usable; after some errors nothing on it works in this process.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] with the driver's reason.
    pub(super) fn check(&self) -> Result<()> {
        self.device.synchronize()
    }

    fn start(&mut self, batch: &Batch) -> Result<Slot> {
        let shape = self.shapes.shape(batch.shape()).ok_or_else(|| {
            let message = format!("a batch of {} does not fit any bucket", batch.shape());
            Error::new(ErrorKind::Inference, message)
        })?;
        let slot = self.slot(shape)?;
        self.buffers[slot].run(&self.device, &mut self.session, batch, self.manifest.pad_token_id())?;
        Ok(slot)
    }

    /// Buffers of that shape that nobody holds; new ones if there are none.
    fn slot(&mut self, shape: Shape) -> Result<Slot> {
        let of_shape = |buffers: &&Buffers| buffers.shape() == shape;
        if let Some(slot) = self.buffers.iter().position(|buffers| buffers.shape() == shape && !buffers.held) {
            return Ok(slot);
        }
        let held = self.buffers.iter().filter(of_shape).count();
        if held >= self.options.buffer_sets {
            let message = format!(
                "GPU {}: all {held} outputs of {shape} are held; drop one, or raise `buffer_sets`",
                self.device.id()
            );
            return Err(Error::new(ErrorKind::Device, message));
        }
        let number = self.buffers.len();
        let graph = (self.options.cuda_graphs && number < self.options.max_cuda_graphs)
            .then(|| i32::try_from(number + 1).unwrap_or(i32::MAX));
        self.buffers.push(Buffers::new(&self.device, &self.session, &self.manifest, shape, graph)?);
        Ok(number)
    }
}
