//! Models: opened, asked about, closed.

use std::ffi::c_char;

use super::cancel::nvembed_cancel;
use super::codes::{NVEMBED_INVALID_ARGUMENT, nvembed_code};
use super::error::{Failure, nvembed_error};
use super::handle::{self, Handle, Table};
use super::options::{nvembed_embed_options, nvembed_model_options, of_call, snapshot};
use super::{guard, memory};
use crate::{Embedder, Prompt};

/// An open model.
pub struct nvembed_model;

/// The model's name, for example "NV-Embed-v2".
pub const NVEMBED_METADATA_NAME: i32 = 0;
/// Where the checkpoint says it comes from, for example "nvidia/NV-Embed-v2".
pub const NVEMBED_METADATA_SOURCE: i32 = 1;
/// The licence of the weights, for example "cc-by-nc-4.0": not for commercial use.
pub const NVEMBED_METADATA_LICENSE: i32 = 2;
/// The arithmetic of the graph: "fp32", "fp16", "bf16", "int8", "int4" or "w8a8".
pub const NVEMBED_METADATA_PRECISION: i32 = 3;
/// The version of the exporter that made the folder.
pub const NVEMBED_METADATA_EXPORTER_VERSION: i32 = 4;
/// The version of the ONNX Runtime library in use, without its patch number, for example "1.32".
pub const NVEMBED_METADATA_LIBRARY_VERSION: i32 = 5;
/// The file of the ONNX Runtime library in use.
pub const NVEMBED_METADATA_LIBRARY_PATH: i32 = 6;

static MODELS: Table<Embedder> = Table::new();

impl Handle for nvembed_model {
    type Value = Embedder;
    const NAME: &'static str = "nvembed_model";
    fn table() -> &'static Table<Embedder> {
        &MODELS
    }
}

/// Opens a model folder made by nvembed-export. `options` may be NULL. After a failure there is nothing to close.
///
/// Threads: any, at the same time; the first calls of a process load ONNX Runtime one after the other.
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

/// Closes a model. NULL is fine. Calls that use it in other threads end as usual, and the last one frees it.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_model_close(model: *mut nvembed_model) -> nvembed_code {
    // SAFETY: NULL, nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(model)) }
}

/// D, the numbers of an embedding.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_dimension(
    model: *const nvembed_model,
    dimension: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `dimension` and `error` are NULL or may be written.
    unsafe { guard(error, || memory::write("dimension", dimension, handle::get(model)?.dim())) }
}

/// The longest row in tokens that the model accepts.
///
/// Threads: any, at the same time.
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
/// call waits for that. `*shapes` becomes their number; on the CPU there are none. `options`, `cancel` and `shapes` may be
/// NULL. After a failure some shapes are ready, and the model can be used.
///
/// Threads: any, at the same time; other calls' runs come between two shapes.
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

/// What the model says of itself: `field` is an NVEMBED_METADATA_... constant. Copies the string and a NUL to `buffer`;
/// `*length` becomes its length without the NUL, also when the buffer is too small. A NULL buffer asks for the length only;
/// `length` may be NULL when `buffer` is not.
///
/// Threads: any, at the same time.
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
                    let message = format!("field is {other}, which is no NVEMBED_METADATA constant");
                    return Err(Failure::new(NVEMBED_INVALID_ARGUMENT, message));
                }
            };
            memory::copy_out(&value, buffer, capacity, length)
        })
    }
}

/// The instruction of a query whose task is described in one English sentence: "Instruct: {task}\nQuery: ". Buffer and
/// length as of nvembed_model_metadata().
///
/// Threads: any, at the same time.
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
