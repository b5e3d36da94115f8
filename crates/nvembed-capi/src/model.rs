//! Models: open, inspect, close.

use std::ffi::c_char;

use nvembed::{Embedder, Prompt};

use crate::cancel::nvembed_cancel;
use crate::codes::{NVEMBED_INVALID_ARGUMENT, nvembed_code};
use crate::error::{Failure, nvembed_error};
use crate::handle::{self, Handle, Table};
use crate::options::{nvembed_embed_options, nvembed_model_options, of_call, snapshot};
use crate::{guard, memory};

/// An open model.
pub struct nvembed_model;

/// The name of the model, for example "NV-Embed-v2".
pub const NVEMBED_METADATA_NAME: i32 = 0;
/// Where the checkpoint comes from, for example "nvidia/NV-Embed-v2".
pub const NVEMBED_METADATA_SOURCE: i32 = 1;
/// The license of the weights, for example "cc-by-nc-4.0", which forbids commercial use.
pub const NVEMBED_METADATA_LICENSE: i32 = 2;
/// The precision of the graph: "fp32", "fp16", "bf16", "int8", "int4" or "w8a8".
pub const NVEMBED_METADATA_PRECISION: i32 = 3;
/// The version of the exporter that wrote the model folder.
pub const NVEMBED_METADATA_EXPORTER_VERSION: i32 = 4;
/// The version of the loaded ONNX Runtime library, without its patch number, for example "1.32".
pub const NVEMBED_METADATA_LIBRARY_VERSION: i32 = 5;
/// The file of the loaded ONNX Runtime library.
pub const NVEMBED_METADATA_LIBRARY_PATH: i32 = 6;

static MODELS: Table<Embedder> = Table::new();

impl Handle for nvembed_model {
    type Value = Embedder;
    const NAME: &'static str = "nvembed_model";
    fn table() -> &'static Table<Embedder> {
        &MODELS
    }
}

/// Opens a model folder written by nvembed-export. `options` may be NULL. After a failure there is nothing to close.
///
/// Thread-safe. The first calls of a process load ONNX Runtime one after the other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_open(
    folder: *const c_char,
    folder_length: usize,
    options: *const nvembed_model_options,
    model: *mut *mut nvembed_model,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `folder` points to `folder_length` bytes; `model` and `error` are NULL or may be written.
    unsafe {
        guard(error, || {
            memory::write("model", model, std::ptr::null_mut())?;
            let folder = memory::text("the folder's path", folder, folder_length)?;
            let options = snapshot(options)?;
            memory::write("model", model, handle::insert(Embedder::open(folder, &options)?))
        })
    }
}

/// Closes a model. NULL is allowed. Calls that use it in other threads finish normally, and the last one frees it.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_model_close(model: *mut nvembed_model) -> nvembed_code {
    // SAFETY: NULL, so nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(model)) }
}

/// Writes D, the number of elements of an embedding, to `*dimension`.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_dimension(
    model: *const nvembed_model,
    dimension: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `dimension` and `error` are NULL or may be written.
    unsafe { guard(error, || memory::write("dimension", dimension, handle::get(model)?.dim())) }
}

/// Writes the longest row that the model accepts, in tokens, to `*max_length`.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_max_length(
    model: *const nvembed_model,
    max_length: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `max_length` and `error` are NULL or may be written.
    unsafe { guard(error, || memory::write("max_length", max_length, handle::get(model)?.manifest().max_length())) }
}

/// Allocates memory and records CUDA graphs on each GPU for every shape that calls with these options can need, so that no
/// call has to. Writes the number of shapes to `*shapes`; on the CPU it is 0. `options`, `cancel` and `shapes` may be NULL.
/// After a failure some shapes are ready, and the model can be used.
///
/// Thread-safe. Runs of other calls are executed between two shapes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_warm_up(
    model: *const nvembed_model,
    options: *const nvembed_embed_options,
    cancel: *const nvembed_cancel,
    shapes: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `shapes` and `error` are NULL or may be written.
    unsafe {
        guard(error, || {
            let options = of_call(options, cancel)?;
            let model = handle::get(model)?;
            if !shapes.is_null() {
                memory::check("shapes", shapes)?;
            }
            let ready = model.warm_up(&options)?;
            if shapes.is_null() { Ok(()) } else { memory::write("shapes", shapes, ready) }
        })
    }
}

/// Copies a property of the model and a NUL to `buffer`: `field` is an NVEMBED_METADATA_... constant. Writes the length without
/// the NUL to `*length`, even if the buffer is too small. A NULL buffer asks for the length only; `length` may be NULL if
/// `buffer` is not.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_metadata(
    model: *const nvembed_model,
    field: i32,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `buffer` is NULL or points to `capacity` bytes; `length` and `error` are NULL or may be written.
    unsafe {
        guard(error, || {
            let model = handle::get(model)?;
            let (manifest, library) = (model.manifest(), model.library());
            let value = match field {
                NVEMBED_METADATA_NAME => manifest.name().to_owned(),
                NVEMBED_METADATA_SOURCE => manifest.source().to_owned(),
                NVEMBED_METADATA_LICENSE => manifest.license().to_owned(),
                NVEMBED_METADATA_PRECISION => manifest.precision().to_string(),
                NVEMBED_METADATA_EXPORTER_VERSION => manifest.exporter_version().to_owned(),
                NVEMBED_METADATA_LIBRARY_VERSION => library.version(),
                NVEMBED_METADATA_LIBRARY_PATH => library.path().display().to_string(),
                other => {
                    let message = format!("field must be an NVEMBED_METADATA constant, got {other}");
                    return Err(Failure::new(NVEMBED_INVALID_ARGUMENT, message));
                }
            };
            memory::copy_out(&value, buffer, capacity, length)
        })
    }
}

/// Copies the instruction of a query to `buffer`, given its task in one English sentence: "Instruct: {task}\nQuery: ".
/// `buffer`, `capacity` and `length` are as in nvembed_model_metadata().
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_query_instruction(
    task: *const c_char,
    task_length: usize,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `task` points to `task_length` bytes, `buffer` is NULL or points to `capacity` bytes; `length` and `error`
    // are NULL or may be written.
    unsafe {
        guard(error, || {
            let task = memory::text("the task", task, task_length)?;
            memory::copy_out(&Prompt::instruction_for(task), buffer, capacity, length)
        })
    }
}
