//! The buffers of one shape on a device: made once, used for every run of that shape.
#![expect(unsafe_code, reason = "device memory is known by its address only")]

use std::fmt::Debug;
use std::time::Instant;

use cudarc::driver::{CudaEvent, DeviceRepr, PinnedHostSlice, ValidAsZeroBits, result, sys};
use half::f16;
use half::slice::HalfBitsSliceExt;
use ndarray::Array2;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{PrimitiveTensorElementType, Tensor, TensorRefMut};

use super::driver::Device;
use super::memory::DeviceMemory;
use crate::batch::{Batch, Shape};
use crate::embeddings::{Dtype, Rows};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Input, Layout, Manifest};
use crate::onnxruntime::explain;

/// The run option by which ONNX Runtime tells CUDA graphs apart.
const GRAPH_ID: &str = "gpu_graph_id";
/// Its value for a run without one.
const NO_GRAPH: i32 = -1;

/// Inputs and output on the device, their staging in pinned host memory, and the binding that ONNX Runtime runs with.
///
/// A CUDA graph holds the addresses of these buffers and the sizes of this shape, and ONNX Runtime would replay it on others
/// without complaint. So a graph's number belongs to one `Buffers`, and to no other, and after a failure both are given up: a
/// recording that failed halfway would be replayed as well.
///
/// A graph also goes on writing to the addresses that its intermediate results had when it was recorded, which ONNX Runtime's
/// arena gives to others afterwards. Inputs may lie there, since they are copied anew before each run. The output, which
/// callers hold over later runs, has memory of its own.
pub(super) struct Buffers {
    layout: Layout,
    shape: Shape,
    /// Bound to the session; dropped before the tensors that it holds on to.
    binding: IoBinding,
    /// Of runs without a graph.
    plain: RunOptions,
    /// Of runs that record or replay this shape's graph, once it has a number.
    graph: Option<RunOptions>,
    may_record: bool,
    /// The end of the last run that succeeded.
    pub(super) last_used: Option<Instant>,
    /// Each input with its address and size; the tensors keep the memory.
    inputs: Vec<(sys::CUdeviceptr, usize, Tensor<i64>)>,
    output: Output,
    /// All inputs, one after the other: written by the host, read by the copies to the device.
    staging: PinnedHostSlice<i64>,
    /// The copies out of `staging` are done.
    uploaded: CudaEvent,
    /// The output is complete.
    done: CudaEvent,
    pub(super) held: bool,
}

/// The output `[B, D]`, and pinned memory of its size.
enum Output {
    F16(DeviceMemory, PinnedHostSlice<u16>),
    F32(DeviceMemory, PinnedHostSlice<f32>),
}

/// Where an output is, for callers that read it on the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Location {
    pub(super) address: u64,
    pub(super) event: usize,
    pub(super) stream: usize,
    pub(super) dtype: Dtype,
}

impl Buffers {
    /// Allocates for a shape.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when memory runs out.
    pub(super) fn new(device: &Device, session: &Session, manifest: &Manifest, shape: Shape) -> Result<Self> {
        let out_of_memory = |cause: Box<dyn std::error::Error + Send + Sync>| {
            let message = format!("GPU {}: allocating buffers for {shape} failed", device.id());
            Error::new(ErrorKind::Device, message).because(cause)
        };
        let failed = |error: ort::Error| out_of_memory(error.into());
        let allocator = Allocator::new(session, memory_info(device).map_err(failed)?).map_err(failed)?;
        let mut binding = session.create_binding().map_err(failed)?;
        let layout = manifest.layout();
        let make_input = |input: &Input| {
            let dimensions = shape.of(input);
            let numbers = dimensions.iter().product();
            let mut tensor = Tensor::<i64>::new(&allocator, dimensions)?;
            binding.bind_input(input.name, &tensor)?;
            Ok((tensor.data_ptr_mut() as sys::CUdeviceptr, numbers, tensor))
        };
        let inputs = layout.inputs().iter().map(make_input).collect::<ort::Result<Vec<_>>>().map_err(failed)?;
        let (_, outputs) = manifest.contract();
        let (rows, dim) = (shape.rows, manifest.dim());
        let (name, size) = (outputs[0].name.as_str(), [rows, dim]);
        let allocate =
            |bytes: usize| DeviceMemory::new(device, rows * dim * bytes).map_err(|error| out_of_memory(error.into()));
        let output = match manifest.output_dtype() {
            Dtype::F16 => {
                let memory = allocate(size_of::<f16>())?;
                bind_output::<f16>(&mut binding, device, name, &memory, size).map_err(failed)?;
                Output::F16(memory, pinned(device, rows * dim, 0)?)
            }
            // Graphs return floats of either kind.
            _ => {
                let memory = allocate(size_of::<f32>())?;
                bind_output::<f32>(&mut binding, device, name, &memory, size).map_err(failed)?;
                Output::F32(memory, pinned(device, rows * dim, 0)?)
            }
        };
        let event =
            || device.context.new_event(None).map_err(|error| device.error("creating a CUDA event failed", error));
        Ok(Self {
            layout,
            shape,
            binding,
            plain: run_options(NO_GRAPH).map_err(failed)?,
            graph: None,
            may_record: true,
            last_used: None,
            inputs,
            output,
            // Write-combined: the host only writes it, and the device reads it faster.
            staging: pinned(device, shape.numbers(layout), sys::CU_MEMHOSTALLOC_WRITECOMBINED)?,
            uploaded: event()?,
            done: event()?,
            held: false,
        })
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the next run can be recorded: a run came before it, in which the arena took the memory that this shape needs
    /// and kernels were loaded, and there is no graph yet.
    pub(super) fn can_record(&self) -> bool {
        self.may_record && self.graph.is_none() && self.last_used.is_some()
    }

    /// Has all runs go without a graph.
    pub(super) fn never_record(&mut self) {
        self.may_record = false;
    }

    /// Has the next run recorded under a number that no graph of this session ever had; later runs replay it.
    ///
    /// # Errors
    /// [`ErrorKind::Inference`] when ONNX Runtime refuses the number.
    pub(super) fn record_as(&mut self, number: i32) -> Result<()> {
        let failed = |error| Error::new(ErrorKind::Inference, "ONNX Runtime refused a run option").because(error);
        self.graph = Some(run_options(number).map_err(failed)?);
        Ok(())
    }

    /// Whether the buffers have a CUDA graph.
    pub(super) fn has_graph(&self) -> bool {
        self.graph.is_some()
    }

    /// Copies the batch to the device and runs it: put on the stream, not waited for.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when a copy fails or memory is short, [`ErrorKind::Inference`] when ONNX Runtime fails.
    pub(super) fn run(
        &mut self,
        device: &Device,
        session: &mut Session,
        batch: &Batch,
        pad_token_id: u32,
    ) -> Result<()> {
        let failed = |error| device.error("copying the input failed", error);
        // The run before may still be reading what is about to be overwritten.
        self.uploaded.synchronize().map_err(failed)?;
        let staging = self.staging.as_mut_slice().map_err(failed)?;
        batch.write(self.layout, self.shape, pad_token_id, staging);
        device.context.bind_to_thread().map_err(failed)?;
        let mut rest = &*staging;
        for (address, numbers, _) in &self.inputs {
            let (array, others) = rest.split_at(*numbers);
            rest = others;
            // SAFETY: the tensor at `address` has that many int64 and lives as long as self; the staging memory is not
            // written before `uploaded` has passed, and not freed before the stream is done (Drop).
            unsafe { result::memcpy_htod_async(*address, array, device.stream.cu_stream()) }.map_err(failed)?;
        }
        self.uploaded.record(&device.stream).map_err(failed)?;
        let options = self.graph.as_ref().unwrap_or(&self.plain);
        session.run_binding_with_options(&self.binding, options).map_err(|error| {
            let batch = format!("a batch of {}", self.shape);
            let failed = match explain(&error.to_string()) {
                Some(why) => Error::new(ErrorKind::Device, format!("GPU {}: {batch} failed: {why}", device.id())),
                None => Error::new(ErrorKind::Inference, format!("ONNX Runtime failed on {batch}")),
            };
            failed.because(error)
        })?;
        self.done.record(&device.stream).map_err(|error| device.error("recording the end of a run failed", error))?;
        self.last_used = Some(Instant::now());
        Ok(())
    }

    /// Waits for the run, and copies the first `rows` rows of the output to the host.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when the copy, or anything before it on the stream, fails.
    pub(super) fn read(&mut self, device: &Device, rows: usize, dim: usize) -> Result<Rows> {
        match &mut self.output {
            Output::F16(memory, host) => {
                let bits = read(device, memory.address(), host, rows * dim)?;
                array(rows, dim, bits.reinterpret_cast::<f16>()).map(Rows::F16)
            }
            Output::F32(memory, host) => {
                array(rows, dim, read(device, memory.address(), host, rows * dim)?).map(Rows::F32)
            }
        }
    }

    pub(super) fn location(&self, device: &Device) -> Location {
        let (event, stream) = (self.done.cu_event() as usize, device.stream_address());
        let (address, dtype) = match &self.output {
            Output::F16(memory, _) => (memory.address(), Dtype::F16),
            Output::F32(memory, _) => (memory.address(), Dtype::F32),
        };
        Location { address, event, stream, dtype }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // Work that is still on the stream uses this memory. The event was recorded after the last of it.
        if let Err(error) = self.done.synchronize() {
            tracing::warn!(?error, "a GPU failed while its buffers were freed");
        }
    }
}

fn memory_info(device: &Device) -> ort::Result<MemoryInfo<'static>> {
    let id = i32::try_from(device.id()).unwrap_or(i32::MAX);
    MemoryInfo::new(AllocationDevice::CUDA, id, AllocatorType::Device, MemoryType::Default)
}

fn bind_output<T: PrimitiveTensorElementType + Debug>(
    binding: &mut IoBinding,
    device: &Device,
    name: &str,
    memory: &DeviceMemory,
    size: [usize; 2],
) -> ort::Result<()> {
    let size = size.map(|size| size as i64);
    let address = memory.address() as *mut std::ffi::c_void;
    // SAFETY: the memory is the device's, has room for `size`, and is freed after the binding, which has the tensor.
    let tensor = unsafe { TensorRefMut::<T>::from_raw(memory_info(device)?, address, size.into()) }?;
    binding.bind_output(name, tensor)
}

fn run_options(graph: i32) -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set(GRAPH_ID, graph.to_string())?;
    // The copy back follows on the same stream, and that is waited for.
    options.disable_device_sync()?;
    Ok(options)
}

fn pinned<T: DeviceRepr + ValidAsZeroBits>(device: &Device, len: usize, flags: u32) -> Result<PinnedHostSlice<T>> {
    // SAFETY: the memory is unset; every use writes it before it is read, and any bits are a T.
    unsafe { device.context.alloc_pinned_with_flags(len, flags) }
        .map_err(|error| device.error("allocating pinned host memory failed", error))
}

fn read<'a, T: DeviceRepr + ValidAsZeroBits>(
    device: &Device,
    address: sys::CUdeviceptr,
    host: &'a mut PinnedHostSlice<T>,
    len: usize,
) -> Result<&'a [T]> {
    let failed = |error| device.error("copying the output failed", error);
    let memory = &mut host.as_mut_slice().map_err(failed)?[..len];
    device.context.bind_to_thread().map_err(failed)?;
    // SAFETY: the output at `address` has at least `len` elements; the stream is waited for before `memory` is read.
    unsafe { result::memcpy_dtoh_async(memory, address, device.stream.cu_stream()) }.map_err(failed)?;
    device.stream.synchronize().map_err(failed)?;
    Ok(memory)
}

fn array<T: Clone>(rows: usize, dim: usize, values: &[T]) -> Result<Array2<T>> {
    Array2::from_shape_vec((rows, dim), values.to_vec())
        .map_err(|error| Error::new(ErrorKind::Inference, "the output has another shape").because(error))
}
