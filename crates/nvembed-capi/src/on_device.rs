//! Embeddings that stay on a GPU.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::{Arc, OnceLock};

use super::cancel::nvembed_cancel;
use super::codes::{NVEMBED_BUFFER_TOO_SMALL, NVEMBED_NULL_POINTER, nvembed_code};
use super::embed::{NVEMBED_F16, NVEMBED_F32, Rows, nvembed_prompt, prompts_of};
use super::error::{Failure, nvembed_error};
use super::handle::{self, Handle, Table};
use super::model::nvembed_model;
use super::options::{nvembed_embed_options, of_call};
use super::{guard, memory};
use crate::DeviceEmbeddings;

/// Rows in a GPU's memory: a contiguous array of rows x dimension elements, row i of prompt i.
pub struct nvembed_device_embeddings;

/// Rows and, once they are released, the event behind what reads them. The last call that uses them gives them back.
pub(super) struct Held {
    embeddings: ManuallyDrop<DeviceEmbeddings>,
    release_after: OnceLock<usize>,
}

static HELD: Table<Held> = Table::new();

impl Handle for nvembed_device_embeddings {
    type Value = Held;
    const NAME: &'static str = "nvembed_device_embeddings";
    fn table() -> &'static Table<Held> {
        &HELD
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: taken once, here, after which nothing can use it.
        let embeddings = unsafe { ManuallyDrop::take(&mut self.embeddings) };
        match self.release_after.get() {
            // SAFETY: whoever gave the event promised nvembed_device_embeddings_release_after() what this asks for.
            Some(event) => unsafe { embeddings.release_after(*event) },
            None => drop(embeddings),
        }
    }
}

/// Embeds `count` prompts on a GPU and leaves the rows there, for a search on that GPU. `options` and `cancel` may be NULL.
/// After a failure there is nothing to release.
///
/// The prompts run as one batch: 1 or more, and no more than fit in one within max_batch_tokens, max_batch_size and the
/// model's buckets, else NVEMBED_OPTION; a model on the CPU is NVEMBED_OPTION too. The call returns when the computation
/// is on its way, not when it is done: see nvembed_device_embeddings_event(). While as many results of one shape are held
/// as nvembed_model_options_set_buffer_sets() allows, another one of that shape is NVEMBED_DEVICE.
///
/// Threads: any, at the same time, also on one model: they take turns on the GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_on_device(
    model: *const nvembed_model,
    prompts: *const nvembed_prompt,
    count: usize,
    options: *const nvembed_embed_options,
    cancel: *const nvembed_cancel,
    embeddings: *mut *mut nvembed_device_embeddings,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: the pointers are as docs/c-api.md says.
    unsafe {
        guard(error, || {
            memory::write("embeddings", embeddings, std::ptr::null_mut())?;
            let options = of_call(options, cancel)?;
            let model = handle::get(model)?;
            let prompts = prompts_of(memory::slice("prompts", prompts, count)?)?;
            let rows = model.embed_on_device(&prompts, &options)?;
            let held = Held { embeddings: ManuallyDrop::new(rows), release_after: OnceLock::new() };
            memory::write("embeddings", embeddings, handle::insert(held))
        })
    }
}

/// The address of the first element in the memory of the GPU: a CUdeviceptr. It stays as it is, and so do the elements
/// behind it, until the rows are released.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_pointer(
    embeddings: *const nvembed_device_embeddings,
    pointer: *mut u64,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `pointer` and `error` are NULL or may be written.
    unsafe { ask("pointer", embeddings, pointer, error, DeviceEmbeddings::device_pointer) }
}

/// The CUstream that the rows are computed on, of the GPU's primary context. It is the model's; do not destroy it.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_stream(
    embeddings: *const nvembed_device_embeddings,
    stream: *mut *mut c_void,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `stream` and `error` are NULL or may be written.
    unsafe { ask("stream", embeddings, stream, error, |rows| std::ptr::with_exposed_provenance_mut(rows.stream())) }
}

/// The CUevent behind the computation: the rows are complete when it has passed. Let your stream wait for it
/// (cuStreamWaitEvent), or the host (cuEventSynchronize), before the rows are read. It is the model's; do not destroy or
/// record it. It is this result's until the rows are released.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_event(
    embeddings: *const nvembed_device_embeddings,
    event: *mut *mut c_void,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `event` and `error` are NULL or may be written.
    unsafe { ask("event", embeddings, event, error, |rows| std::ptr::with_exposed_provenance_mut(rows.event())) }
}

/// The GPU, as CUDA numbers it.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_device_id(
    embeddings: *const nvembed_device_embeddings,
    device_id: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `device_id` and `error` are NULL or may be written.
    unsafe { ask("device_id", embeddings, device_id, error, DeviceEmbeddings::device_id) }
}

/// NVEMBED_F32 or NVEMBED_F16: what the model's graph computes, fp16 graphs in 16-bit floats.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_dtype(
    embeddings: *const nvembed_device_embeddings,
    dtype: *mut i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `dtype` and `error` are NULL or may be written.
    unsafe { ask("dtype", embeddings, dtype, error, |rows| if rows.is_f16() { NVEMBED_F16 } else { NVEMBED_F32 }) }
}

/// The number of rows, which is that of the prompts.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_rows(
    embeddings: *const nvembed_device_embeddings,
    rows: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `rows` and `error` are NULL or may be written.
    unsafe { ask("rows", embeddings, rows, error, |held| held.shape().0) }
}

/// D, the elements of a row.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_dimension(
    embeddings: *const nvembed_device_embeddings,
    dimension: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `dimension` and `error` are NULL or may be written.
    unsafe { ask("dimension", embeddings, dimension, error, |held| held.shape().1) }
}

/// Copies out what happened to each row: `token_counts` and `truncated`, each NULL or with room for `capacity` numbers,
/// are filled as those of nvembed_output. A capacity below the number of rows is NVEMBED_BUFFER_TOO_SMALL.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_tokens(
    embeddings: *const nvembed_device_embeddings,
    token_counts: *mut usize,
    truncated: *mut u8,
    capacity: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: the arrays are NULL or have `capacity` elements, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let held = handle::get(embeddings)?;
            let arrays = Rows::new(token_counts, truncated)?;
            let (rows, _) = held.embeddings.shape();
            if capacity < rows {
                let message = format!("the capacity is {capacity} numbers, {rows} rows need {rows}");
                return Err(Failure::new(NVEMBED_BUFFER_TOO_SMALL, message));
            }
            let of_rows = held.embeddings.token_counts().iter().zip(held.embeddings.truncated());
            for (index, (tokens, truncated)) in of_rows.enumerate() {
                arrays.set(index, *tokens, *truncated);
            }
            Ok(())
        })
    }
}

/// Closes the handle and gives the memory back to the model's next calls. NULL is fine. All that reads the rows must be
/// done, on the GPU too.
///
/// Threads: any, at the same time; of several that release the same rows, one succeeds.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_device_embeddings_release(embeddings: *mut nvembed_device_embeddings) -> nvembed_code {
    // SAFETY: NULL, nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(embeddings)) }
}

/// Closes the handle and gives the memory back to calls that come after `event`, a CUevent that was recorded behind what
/// reads the rows. Returns at once: the GPU waits, not the host.
///
/// The caller promises that it is an event of the GPU's primary context, and that it exists until a later call of
/// nvembed_embed_on_device() on the same GPU has returned, or until the model and its results are closed.
///
/// Threads: any, at the same time; of several that release the same rows, one succeeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_release_after(
    embeddings: *mut nvembed_device_embeddings,
    event: *mut c_void,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `event` is NULL or as said above, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            if event.is_null() {
                return Err(Failure::new(NVEMBED_NULL_POINTER, "event is NULL"));
            }
            // Whoever takes it is the only one to do so: a getter in another thread may drop it last, with the event set.
            let held: Arc<Held> = handle::take(embeddings)?;
            held.release_after.get_or_init(|| event.expose_provenance());
            Ok(())
        })
    }
}

/// Writes one thing that is known of rows.
///
/// # Safety
/// `out` and `error` are NULL or may be written.
unsafe fn ask<T>(
    name: &str,
    embeddings: *const nvembed_device_embeddings,
    out: *mut T,
    error: *mut *mut nvembed_error,
    known: impl FnOnce(&DeviceEmbeddings) -> T,
) -> nvembed_code {
    // SAFETY: as this function's.
    unsafe {
        guard(error, || {
            let held = handle::get(embeddings)?;
            memory::write(name, out, known(&held.embeddings))
        })
    }
}
