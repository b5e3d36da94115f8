//! Options of the GPU providers: more setters of a model's options, named after the fields they set.

use std::ffi::c_void;

use nvembed::gpu::UserStream;

use crate::codes::{NVEMBED_OPTION, nvembed_code};
use crate::error::{Failure, nvembed_error};
use crate::options::{nvembed_model_options, set, unless_0};
use crate::{memory, names};

/// The GPUs to open the model on, as CUDA numbers them: 1 to 64 different numbers. Each GPU gets the whole model. Not set:
/// GPU 0. nvembed_model_open() checks this and the other ranges. GPU providers only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_device_ids(
    options: *mut nvembed_model_options,
    device_ids: *const usize,
    count: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `device_ids` points to `count` numbers, `error` is NULL or may be written.
    unsafe {
        let device_ids = || memory::list("device_ids", device_ids, count);
        set(options, error, |options| &mut options.gpu.device_ids, device_ids)
    }
}

/// The most memory that ONNX Runtime allocates on each GPU, in bytes. 0, the default: no limit. CUDA only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_memory_limit(
    options: *mut nvembed_model_options,
    memory_limit: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.gpu.memory_limit, || Ok(unless_0(memory_limit))) }
}

/// A CUstream of the caller for copies and runs, if the model is on one GPU. NULL, the default: the model creates its own. GPU
/// providers only.
///
/// The caller promises that the stream belongs to the GPU's primary context, that nothing captures it while the model runs,
/// and that it exists until the model and all of its nvembed_device_embeddings are closed and no call uses them.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_stream(
    options: *mut nvembed_model_options,
    stream: *mut c_void,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `stream` is NULL or as promised above, `error` is NULL or may be written.
    unsafe {
        let stream = || Ok((!stream.is_null()).then(|| UserStream::new(stream.expose_provenance())));
        set(options, error, |options| &mut options.gpu.stream, stream)
    }
}

/// Whether (not 0) to record the kernels of a run once per shape and replay them with one call. Default: 1. CUDA only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_cuda_graphs(
    options: *mut nvembed_model_options,
    cuda_graphs: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.gpu.cuda_graphs, || Ok(cuda_graphs != 0)) }
}

/// How many results of one shape can be held on a GPU at once, see nvembed_embed_on_device(): 1 to 256. Default: 2. GPU
/// providers only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_buffer_sets(
    options: *mut nvembed_model_options,
    buffer_sets: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.gpu.buffer_sets, || Ok(buffer_sets)) }
}

/// The row lengths in tokens that batches are padded to: up to 256 numbers, strictly increasing, up to the model's limit. A
/// longer text is an error. Empty, the default: 16, 32, 48, 64, 96, 128 and so on, up to the model's limit (for TensorRT, up
/// to 512). GPU providers only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_sequence_buckets(
    options: *mut nvembed_model_options,
    lengths: *const usize,
    count: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `lengths` points to `count` numbers, `error` is NULL or may be written.
    unsafe {
        let lengths = || memory::list("lengths", lengths, count);
        set(options, error, |options| &mut options.gpu.sequence_buckets, lengths)
    }
}

/// The row counts that batches are padded to: up to 256 numbers, strictly increasing. Empty, the default: 1, 2, 4 and so on,
/// up to 64. GPU providers only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_batch_buckets(
    options: *mut nvembed_model_options,
    rows: *const usize,
    count: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `rows` points to `count` numbers, `error` is NULL or may be written.
    unsafe {
        let rows = || memory::list("rows", rows, count);
        set(options, error, |options| &mut options.gpu.batch_buckets, rows)
    }
}

/// How hard TensorRT looks for fast kernels when it builds an engine: 0 to 5. Default: 3, TensorRT's own. TensorRT only.
///
/// The command `nvembed prepare` builds engines. A model that opens with the same options finds them.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_builder_optimization_level(
    options: *mut nvembed_model_options,
    level: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // A number that does not fit the field has to be refused here, not when the model opens.
    let level = || {
        u8::try_from(level).map_err(|_| {
            let option = names::in_c("builder_optimization_level");
            Failure::new(NVEMBED_OPTION, format!("{option} must be 0 to 5, got {level}"))
        })
    };
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.gpu.builder_optimization_level, level) }
}

/// The most scratch memory that TensorRT's kernels may use, in bytes. 0, the default: the GPU's memory. TensorRT only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_workspace(
    options: *mut nvembed_model_options,
    workspace: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.gpu.workspace, || Ok(unless_0(workspace))) }
}

/// Whether (not 0) TensorRT builds the engines that were not prepared when a model opens: minutes each time, and nothing is
/// kept. Default: 0, which makes opening such a model an error. TensorRT only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_build_on_open(
    options: *mut nvembed_model_options,
    build_on_open: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.gpu.build_on_open, || Ok(build_on_open != 0)) }
}
