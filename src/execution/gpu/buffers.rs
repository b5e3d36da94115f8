//! The buffers of one shape on a device: made once, used for every run of that shape.
#![expect(unsafe_code, reason = "device memory is known by its address only")]

use std::fmt::Debug;

use cudarc::driver::{CudaEvent, DeviceRepr, PinnedHostSlice, ValidAsZeroBits, result, sys};
use half::f16;
use half::slice::HalfBitsSliceExt;
use ndarray::Array2;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{PrimitiveTensorElementType, Tensor};

use super::driver::Device;
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
/// without complaint. So a graph's number belongs to one `Buffers`, and to no other.
pub(super) struct Buffers {
    layout: Layout,
    shape: Shape,
    /// Bound to the session; dropped before the tensors that it holds on to.
    binding: IoBinding,
    options: RunOptions,
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
    F16(sys::CUdeviceptr, PinnedHostSlice<u16>),
    F32(sys::CUdeviceptr, PinnedHostSlice<f32>),
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
    /// Allocates for a shape. `graph` is a number for its CUDA graph, one that no other buffers have.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when memory runs out.
    pub(super) fn new(
        device: &Device,
        session: &Session,
        manifest: &Manifest,
        shape: Shape,
        graph: Option<i32>,
    ) -> Result<Self> {
        let failed = |error: ort::Error| {
            let message = format!("GPU {}: allocating buffers for {shape} failed", device.id());
            Error::new(ErrorKind::Device, message).because(error)
        };
        let id = i32::try_from(device.id()).unwrap_or(i32::MAX);
        let memory = MemoryInfo::new(AllocationDevice::CUDA, id, AllocatorType::Device, MemoryType::Default);
        let allocator = Allocator::new(session, memory.map_err(failed)?).map_err(failed)?;
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
        let rows = shape.rows;
        let name = outputs[0].name.as_str();
        let dim = manifest.dim();
        let output = match manifest.output_dtype() {
            Dtype::F16 => {
                let address = bind_output::<f16>(&mut binding, &allocator, name, [rows, dim]).map_err(failed)?;
                Output::F16(address, pinned(device, rows * dim, 0)?)
            }
            Dtype::F32 => {
                let address = bind_output::<f32>(&mut binding, &allocator, name, [rows, dim]).map_err(failed)?;
                Output::F32(address, pinned(device, rows * dim, 0)?)
            }
        };
        let mut options = RunOptions::new().map_err(failed)?;
        options.set(GRAPH_ID, graph.unwrap_or(NO_GRAPH).to_string()).map_err(failed)?;
        // The copy back follows on the same stream, and that is waited for.
        options.disable_device_sync().map_err(failed)?;
        let event =
            || device.context.new_event(None).map_err(|error| device.error("creating a CUDA event failed", error));
        Ok(Self {
            layout,
            shape,
            binding,
            options,
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
        session.run_binding_with_options(&self.binding, &self.options).map_err(|error| {
            let batch = format!("a batch of {}", self.shape);
            let failed = match explain(&error.to_string()) {
                Some(why) => Error::new(ErrorKind::Device, format!("GPU {}: {batch} failed: {why}", device.id())),
                None => Error::new(ErrorKind::Inference, format!("ONNX Runtime failed on {batch}")),
            };
            failed.because(error)
        })?;
        self.done.record(&device.stream).map_err(|error| device.error("recording the end of a run failed", error))
    }

    /// Waits for the run, and copies the first `rows` rows of the output to the host.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when the copy, or anything before it on the stream, fails.
    pub(super) fn read(&mut self, device: &Device, rows: usize, dim: usize) -> Result<Rows> {
        match &mut self.output {
            Output::F16(address, host) => {
                let bits = read(device, *address, host, rows * dim)?;
                array(rows, dim, bits.reinterpret_cast::<f16>()).map(Rows::F16)
            }
            Output::F32(address, host) => array(rows, dim, read(device, *address, host, rows * dim)?).map(Rows::F32),
        }
    }

    pub(super) fn location(&self, device: &Device) -> Location {
        let (event, stream) = (self.done.cu_event() as usize, device.stream_address());
        let (address, dtype) = match &self.output {
            Output::F16(address, _) => (*address, Dtype::F16),
            Output::F32(address, _) => (*address, Dtype::F32),
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

fn bind_output<T: PrimitiveTensorElementType + Debug>(
    binding: &mut IoBinding,
    allocator: &Allocator,
    name: &str,
    shape: [usize; 2],
) -> ort::Result<sys::CUdeviceptr> {
    let mut tensor = Tensor::<T>::new(allocator, shape)?;
    let address = tensor.data_ptr_mut() as sys::CUdeviceptr;
    // The binding keeps the tensor alive.
    binding.bind_output(name, tensor)?;
    Ok(address)
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
