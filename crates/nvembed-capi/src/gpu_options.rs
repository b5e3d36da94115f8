//! What can be chosen of GPUs and of TensorRT: further setters of a model's options, named as the fields they set.

use std::ffi::c_void;

use super::codes::{NVEMBED_OPTION, nvembed_code};
use super::error::{Failure, nvembed_error};
use super::options::{change, nvembed_model_options};
use super::{guard, memory};
use crate::{LoadOptions, UserStream};

/// The GPUs that a model is opened on, as CUDA numbers them: 1 to 64 numbers, none twice. Each GPU gets the whole model.
/// Not set: GPU 0. Checked when a model is opened on a GPU, as are the other ranges; on the CPU nothing reads them.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_device_ids(
    options: *mut nvembed_model_options,
    device_ids: *const usize,
    count: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `device_ids` points to `count` numbers, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let device_ids = memory::slice("device_ids", device_ids, count)?.to_vec();
            change(options, |options: &mut LoadOptions| options.cuda.device_ids = device_ids)
        })
    }
}

/// The most memory that ONNX Runtime takes on each GPU, in bytes. 0, the default: no limit but the GPU's.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_memory_limit(
    options: *mut nvembed_model_options,
    memory_limit: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let memory_limit = (memory_limit > 0).then_some(memory_limit);
            change(options, |options: &mut LoadOptions| options.cuda.memory_limit = memory_limit)
        })
    }
}

/// A CUstream of the caller's that copies and runs are put on, of one GPU only. NULL, the default: one of the model's own.
///
/// The caller promises that it is a stream of the GPU's primary context, that nothing captures it while the model runs,
/// and that it exists until the model and every nvembed_device_embeddings of it are closed and no call uses them.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_stream(
    options: *mut nvembed_model_options,
    stream: *mut c_void,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `stream` is NULL or as said above, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let stream = (!stream.is_null()).then(|| UserStream::new(stream.expose_provenance()));
            change(options, |options: &mut LoadOptions| options.cuda.stream = stream)
        })
    }
}

/// Whether (not 0) the kernels of a run are recorded once for each shape and replayed with one call. Default: 1.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_cuda_graphs(
    options: *mut nvembed_model_options,
    cuda_graphs: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { guard(error, || change(options, |options: &mut LoadOptions| options.cuda.cuda_graphs = cuda_graphs != 0)) }
}

/// How many results of one shape may be held on a GPU at once, see nvembed_embed_on_device(): 1 to 256. Default: 2.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_buffer_sets(
    options: *mut nvembed_model_options,
    buffer_sets: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { guard(error, || change(options, |options: &mut LoadOptions| options.cuda.buffer_sets = buffer_sets)) }
}

/// The lengths in tokens that batches are padded to on a GPU: up to 256 numbers that rise, none over the model's limit. A
/// longer text is an error. Of count 0, the default: 16, 32, 48, 64, 96, 128 and so on, up to the model's limit.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_sequence_buckets(
    options: *mut nvembed_model_options,
    lengths: *const usize,
    count: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `lengths` points to `count` numbers, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let lengths = memory::slice("lengths", lengths, count)?.to_vec();
            change(options, |options: &mut LoadOptions| options.cuda.buckets.sequence = lengths)
        })
    }
}

/// The numbers of rows that batches are padded to on a GPU: up to 256 numbers that rise. Of count 0, the default: 1, 2,
/// 4 and so on, up to 64.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_batch_buckets(
    options: *mut nvembed_model_options,
    rows: *const usize,
    count: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `rows` points to `count` numbers, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let rows = memory::slice("rows", rows, count)?.to_vec();
            change(options, |options: &mut LoadOptions| options.cuda.buckets.batch = rows)
        })
    }
}

/// How hard TensorRT looks for fast kernels when it builds an engine: 0 to 5. Default: 3, TensorRT's own.
///
/// Engines are built by the program's `nvembed prepare`, and one is found when a model is opened with the same options.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_builder_optimization_level(
    options: *mut nvembed_model_options,
    level: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            // What does not fit the option's type cannot wait for the check when the model is opened.
            let level = u8::try_from(level).map_err(|_| {
                Failure::new(NVEMBED_OPTION, format!("builder_optimization_level is {level}, allowed are 0 to 5"))
            })?;
            change(options, |options: &mut LoadOptions| options.tensorrt.builder_optimization_level = level)
        })
    }
}

/// The most scratch memory that TensorRT's kernels may use, in bytes. 0, the default: TensorRT's own limit, the GPU's
/// memory.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_workspace(
    options: *mut nvembed_model_options,
    workspace: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let workspace = (workspace > 0).then_some(workspace);
            change(options, |options: &mut LoadOptions| options.tensorrt.workspace = workspace)
        })
    }
}

/// Whether (not 0) TensorRT builds an engine when a model is opened for which none was prepared: minutes each time, and
/// nothing is kept. Default: 0, which makes that an error.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_build_on_open(
    options: *mut nvembed_model_options,
    build_on_open: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            change(options, |options: &mut LoadOptions| options.tensorrt.build_on_open = build_on_open != 0)
        })
    }
}
