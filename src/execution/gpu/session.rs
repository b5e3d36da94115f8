//! A session on a device, with the buffers of every shape it was run with.
#![expect(unsafe_code, reason = "an event is known by its address only")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{result, sys};
use ort::session::Session;

use super::Shapes;
use super::buffers::{Buffers, Location};
use super::driver::{Device, ignore_recordings_of_other_threads};
use super::memory::Copy;
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
    buffers: BTreeMap<Slot, Buffers>,
    /// The slot that the next buffers get. None is used twice, so that one that a caller holds is never another's.
    next_slot: Slot,
    /// The number that the next CUDA graph gets. None is used twice: ONNX Runtime keeps what it recorded under a number, also
    /// when the recording failed.
    next_graph: i32,
    session: Session,
    device: Device,
    manifest: Manifest,
    shapes: Shapes,
    options: GpuOptions,
}

/// Buffers whose output the caller holds on the device: a number that [`GpuSession::release`] takes.
pub(super) type Slot = u64;

/// One recording at a time in the whole process. ONNX Runtime records in CUDA's global mode, in which calls of other threads
/// can spoil a recording.
static RECORDING: Mutex<()> = Mutex::new(());

/// The most buffers without a graph that are kept for later runs. They cost an allocation to make again.
const MOST_KEPT: usize = 64;

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
        ignore_recordings_of_other_threads()?;
        let device = Device::open(device_id, options.gpu.stream)?;
        let placement = Placement { device_id, stream: device.stream_address(), ..placement };
        let attachment = options.provider.attachment(&options.gpu, &options.provider_options, &placement);
        let file = match placement.engines.filter(|_| options.provider.compiles()) {
            Some(entry) => GraphFile::Prepared(entry),
            None => GraphFile::Model,
        };
        let session = open_graph(&manifest, library, &options, &file, &attachment)?;
        let mut options = options.gpu;
        // Its operators copy tables from host memory in each run, which a graph would read again when they are gone.
        options.cuda_graphs &= !manifest.has_direct_pooler();
        Ok(Self { buffers: BTreeMap::new(), next_slot: 0, next_graph: 1, session, device, manifest, shapes, options })
    }

    /// Runs a batch, and brings its rows to the host.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] or [`ErrorKind::Inference`].
    pub(super) fn run(&mut self, batch: &Batch) -> Result<Rows> {
        let slot = self.start(batch)?;
        let (rows, dim) = (batch.shape().rows, self.manifest.dim());
        let read = buffers(&mut self.buffers, slot)?.read(&self.device, rows, dim);
        read.inspect_err(|_| self.discard(slot))
    }

    /// Runs a batch and leaves its rows on the device, in buffers that no other run gets until they are released.
    ///
    /// # Errors
    /// As [`GpuSession::run`].
    pub(super) fn hold(&mut self, batch: &Batch) -> Result<(Slot, Location)> {
        let slot = self.start(batch)?;
        let buffers = buffers(&mut self.buffers, slot)?;
        buffers.held = true;
        Ok((slot, buffers.location(&self.device)))
    }

    /// Lets the buffers be used again; if an event is given by its address, by runs after that event.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when the driver refuses the event.
    pub(super) fn release(&mut self, slot: Slot, event: Option<usize>) -> Result<()> {
        // Buffers of a run that failed are gone.
        if let Some(buffers) = self.buffers.get_mut(&slot) {
            buffers.held = false;
        }
        let Some(event) = event else { return Ok(()) };
        let failed = |error| self.device.error("waiting for the caller's event failed", error);
        self.device.context.bind_to_thread().map_err(failed)?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: whoever gave the event promised that it is one and still exists (DeviceEmbeddings::release_after).
        unsafe { result::stream::wait_event(self.device.stream.cu_stream(), event as sys::CUevent, flags) }
            .map_err(failed)
    }

    /// Starts to copy the first `bytes` bytes of held buffers' output into memory of their own.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when memory runs out, or the run failed and its buffers are gone.
    pub(super) fn copy(&mut self, slot: Slot, bytes: usize) -> Result<Copy> {
        let location = buffers(&mut self.buffers, slot)?.location(&self.device);
        let failed = |error| self.device.error(&format!("copying {bytes} bytes of rows on the device failed"), error);
        Copy::start(&self.device, location.address, bytes).map_err(failed)
    }

    /// Allocates and records a shape ahead of its first batch.
    ///
    /// # Errors
    /// As [`GpuSession::run`].
    pub(super) fn warm_up(&mut self, shape: Shape) -> Result<()> {
        let nothing = Batch::empty();
        loop {
            let slot = self.run_in(shape, &nothing)?;
            if !self.will_record(slot, shape) {
                return self.device.synchronize();
            }
        }
    }

    /// Whether the device is still usable; after some errors nothing on it works in this process.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] with the driver's reason.
    pub(super) fn check(&self) -> Result<()> {
        self.device.check()
    }

    fn start(&mut self, batch: &Batch) -> Result<Slot> {
        let shape = self.shapes.shape(batch.shape()).ok_or_else(|| {
            let message = format!("a batch of {} does not fit any bucket", batch.shape());
            Error::new(ErrorKind::Inference, message)
        })?;
        self.run_in(shape, batch)
    }

    /// Runs a batch in buffers of that shape. If the run was to be recorded and failed, runs it once more without: another
    /// thread of the process may have spoiled the recording.
    fn run_in(&mut self, shape: Shape, batch: &Batch) -> Result<Slot> {
        self.device.refuse_callers_recording()?;
        let slot = self.slot(shape)?;
        if !self.will_record(slot, shape) {
            return self.attempt(slot, batch);
        }
        let _one_at_a_time = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.next_graph;
        self.next_graph += 1;
        buffers(&mut self.buffers, slot)?.record_as(number)?;
        self.attempt(slot, batch).or_else(|error| {
            tracing::warn!(error = error.report(str::to_owned), %shape, "recording a CUDA graph failed; running without");
            let slot = self.slot(shape)?;
            buffers(&mut self.buffers, slot)?.never_record();
            self.attempt(slot, batch)
        })
    }

    /// Whether the next run in these buffers is recorded.
    fn will_record(&self, slot: Slot, shape: Shape) -> bool {
        let wanted = self.options.cuda_graphs && self.shapes.is_worth_recording(shape);
        let most = i32::try_from(self.options.max_cuda_graphs).unwrap_or(i32::MAX);
        wanted && self.next_graph <= most && self.buffers.get(&slot).is_some_and(Buffers::can_record)
    }

    /// Runs a batch. After a failure the buffers are gone, and with them the number of their graph.
    fn attempt(&mut self, slot: Slot, batch: &Batch) -> Result<Slot> {
        let pad_token_id = self.manifest.pad_token_id();
        let run = buffers(&mut self.buffers, slot)?.run(&self.device, &mut self.session, batch, pad_token_id);
        run.inspect_err(|_| self.discard(slot))?;
        Ok(slot)
    }

    fn discard(&mut self, slot: Slot) {
        // First, since buffers cannot be freed while their stream is recorded.
        self.device.end_recording();
        self.buffers.remove(&slot);
    }

    /// Buffers of that shape that nobody holds; new ones if there are none.
    fn slot(&mut self, shape: Shape) -> Result<Slot> {
        let of_shape = || self.buffers.iter().filter(|(_, buffers)| buffers.shape() == shape);
        if let Some((slot, _)) = of_shape().find(|(_, buffers)| !buffers.held) {
            return Ok(*slot);
        }
        let held = of_shape().count();
        if held >= self.options.buffer_sets {
            let message = format!(
                "GPU {}: all {held} outputs of {shape} are held; drop one, or raise `buffer_sets`",
                self.device.id()
            );
            return Err(Error::new(ErrorKind::Device, message));
        }
        self.make_room();
        let slot = self.next_slot;
        self.buffers.insert(slot, Buffers::new(&self.device, &self.session, &self.manifest, shape)?);
        self.next_slot += 1;
        Ok(slot)
    }

    /// Frees the buffers that were not used for the longest time, if there are too many.
    fn make_room(&mut self) {
        let free = || self.buffers.iter().filter(|(_, buffers)| !buffers.held && !buffers.has_graph());
        if free().count() >= MOST_KEPT
            && let Some(slot) = free().min_by_key(|(_, buffers)| buffers.last_used).map(|(slot, _)| *slot)
        {
            self.buffers.remove(&slot);
        }
    }
}

/// # Errors
/// [`ErrorKind::Inference`] when there are none in that slot, which is a bug.
fn buffers(all: &mut BTreeMap<Slot, Buffers>, slot: Slot) -> Result<&mut Buffers> {
    let missing = || Error::new(ErrorKind::Inference, "the buffers of a run are gone, which is a bug in nvembed");
    all.get_mut(&slot).ok_or_else(missing)
}
