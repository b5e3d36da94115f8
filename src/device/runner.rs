//! A session on a device, with the buffers of every shape it was run with.

use cudarc::driver::{result, sys};
use ort::session::Session as OrtSession;

use super::Device;
use super::buffers::{Buffers, Location};
use crate::batch::Batch;
use crate::buckets::Buckets;
use crate::error::{Error, ErrorKind, Result};
use crate::library::Library;
use crate::manifest::Manifest;
use crate::options::LoadOptions;
use crate::provider::{CudaOptions, Placement};
use crate::session::{RawOutput, Source, open_graph};

/// Everything of one device that one thread owns.
///
/// The order of the fields is the order in which they end: buffers before the session whose memory they are, the session
/// before the stream that it works on.
pub(crate) struct Runner {
    buffers: Vec<Buffers>,
    session: OrtSession,
    device: Device,
    manifest: Manifest,
    buckets: Buckets,
    options: CudaOptions,
}

/// Buffers whose output the caller holds on the device: a number that [`Runner::give_back`] takes.
pub(crate) type Slot = usize;

impl Runner {
    /// Opens the graph on a device.
    ///
    /// # Errors
    /// As [`crate::session::Session::open`], and [`ErrorKind::Provider`] when the device cannot be had.
    pub(crate) fn open(
        device_id: usize,
        manifest: &Manifest,
        library: &Library,
        options: &LoadOptions,
        buckets: &Buckets,
        placement: Placement,
    ) -> Result<Self> {
        let device = Device::open(device_id, options.cuda.stream)?;
        let placement = Placement { device_id, stream: device.stream_address(), ..placement };
        let dispatch = options.provider.dispatch(&options.cuda, &options.tensorrt, &placement);
        let session = open_graph(manifest, library, options, &Source::Model, dispatch)?;
        let (buckets, options) = (buckets.clone(), options.cuda.clone());
        Ok(Self { buffers: Vec::new(), session, device, manifest: manifest.clone(), buckets, options })
    }

    /// Runs a batch, and brings its rows to the host.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] or [`ErrorKind::Inference`].
    pub(crate) fn run(&mut self, batch: &Batch) -> Result<RawOutput> {
        let slot = self.start(batch)?;
        let (rows, _) = batch.shape();
        self.buffers[slot].read(&self.device, rows, self.manifest.dim())
    }

    /// Runs a batch and leaves its rows on the device, in buffers that no other run gets until they are given back.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub(crate) fn hold(&mut self, batch: &Batch) -> Result<(Slot, Location)> {
        let slot = self.start(batch)?;
        self.buffers[slot].held = true;
        Ok((slot, self.buffers[slot].location(&self.device)))
    }

    /// Lets the buffers be used again, by runs behind the event at address `event` if one is given.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when the driver refuses the event.
    pub(crate) fn give_back(&mut self, slot: Slot, event: Option<usize>) -> Result<()> {
        self.buffers[slot].held = false;
        let Some(event) = event else { return Ok(()) };
        let failed = |error| self.device.error("cannot wait for the caller's event", error);
        self.device.context.bind_to_thread().map_err(failed)?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: whoever gave the event promised that it is one and still exists (DeviceEmbeddings::release_after).
        unsafe { result::stream::wait_event(self.device.stream.cu_stream(), event as sys::CUevent, flags) }
            .map_err(failed)
    }

    /// Allocates and records a shape ahead of its first batch.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub(crate) fn warm_up(&mut self, shape: (usize, usize)) -> Result<()> {
        let slot = self.slot(shape)?;
        let nothing = Batch::empty();
        self.buffers[slot].run(&self.device, &mut self.session, &nothing, self.manifest.pad_token_id())?;
        self.device.synchronize()
    }

    /// Whether the device can still be used; after some errors nothing on it works any more in this process.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] with the driver's reason.
    pub(crate) fn check(&self) -> Result<()> {
        self.device.synchronize()
    }

    fn start(&mut self, batch: &Batch) -> Result<Slot> {
        let (rows, length) = batch.shape();
        let shape = self.buckets.shape(rows, length).ok_or_else(|| {
            let message = format!("a batch of {rows} rows of {length} tokens is larger than every bucket");
            Error::new(ErrorKind::Inference, message)
        })?;
        let slot = self.slot(shape)?;
        self.buffers[slot].run(&self.device, &mut self.session, batch, self.manifest.pad_token_id())?;
        Ok(slot)
    }

    /// Buffers of that shape that nobody holds, new ones if need be.
    fn slot(&mut self, shape: (usize, usize)) -> Result<Slot> {
        let of_shape = |buffers: &&Buffers| buffers.shape() == shape;
        if let Some(slot) = self.buffers.iter().position(|buffers| buffers.shape() == shape && !buffers.held) {
            return Ok(slot);
        }
        let held = self.buffers.iter().filter(of_shape).count();
        if held >= self.options.buffer_sets {
            let (rows, length) = shape;
            let message = format!(
                "all {held} outputs of {rows} rows of {length} tokens on GPU {} are held; drop one, or raise buffer_sets",
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
