//! Embeddings that stay on a GPU.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::{Arc, OnceLock};

use nvembed::gpu::DeviceEmbeddings;

use crate::cancel::nvembed_cancel;
use crate::codes::{NVEMBED_BUFFER_TOO_SMALL, NVEMBED_NULL_POINTER, nvembed_code};
use crate::embed::{PerRow, dtype_in_c, nvembed_prompt, prompts_of};
use crate::error::{Failure, nvembed_error};
use crate::handle::{self, Handle, Table};
use crate::model::nvembed_model;
use crate::options::{nvembed_embed_options, of_call};
use crate::{guard, memory};

/// Rows in a GPU's memory: a contiguous array of rows x dimension elements, row i for prompt i.
pub struct nvembed_device_embeddings;

/// Rows and, after nvembed_device_embeddings_release_after(), the event. The last call that uses the rows releases them.
pub(crate) struct Held {
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
        // SAFETY: taken only here, and not used afterwards.
        let embeddings = unsafe { ManuallyDrop::take(&mut self.embeddings) };
        match self.release_after.get() {
            // SAFETY: the caller of nvembed_device_embeddings_release_after() made this promise about the event.
            Some(event) => unsafe { embeddings.release_after(*event) },
            None => drop(embeddings),
        }
    }
}

/// Embeds `count` prompts on a GPU and leaves the rows there, for a search on that GPU. `options` and `cancel` may be NULL.
/// After a failure there is nothing to release.
///
/// The prompts run as one batch. NVEMBED_OPTION if there are none, or more than fit in one batch within max_batch_tokens,
/// max_batch_size and the model's buckets, or if the model is on the CPU. The call returns when the computation has started,
/// not when it is done: see nvembed_device_embeddings_event(). NVEMBED_DEVICE if as many results of that shape are already
/// held as nvembed_model_options_set_buffer_sets() allows.
///
/// Thread-safe, even on one model: calls take turns on the GPU.
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
    // SAFETY: the pointers are as the contract says.
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

/// Writes the address of the first element in the GPU's memory, a CUdeviceptr, to `*pointer`. The address and the elements do
/// not change until the rows are released.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_pointer(
    embeddings: *const nvembed_device_embeddings,
    pointer: *mut u64,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `pointer` and `error` are NULL or may be written.
    unsafe { get(embeddings, "pointer", pointer, error, |rows| Ok(rows.device_pointer())) }
}

/// Writes the CUstream that the rows are computed on, in the GPU's primary context, to `*stream`. It belongs to the model; do
/// not destroy it.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_stream(
    embeddings: *const nvembed_device_embeddings,
    stream: *mut *mut c_void,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    let address = |rows: &DeviceEmbeddings| Ok(std::ptr::with_exposed_provenance_mut(rows.stream()));
    // SAFETY: `stream` and `error` are NULL or may be written.
    unsafe { get(embeddings, "stream", stream, error, address) }
}

/// Writes the CUevent that is recorded after the computation to `*event`: the rows are complete when it has passed. Let your
/// stream (cuStreamWaitEvent) or the host (cuEventSynchronize) wait for it before the rows are read. The event belongs to the
/// model, and to this result until the rows are released; do not destroy or record it.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_event(
    embeddings: *const nvembed_device_embeddings,
    event: *mut *mut c_void,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    let address = |rows: &DeviceEmbeddings| Ok(std::ptr::with_exposed_provenance_mut(rows.event()));
    // SAFETY: `event` and `error` are NULL or may be written.
    unsafe { get(embeddings, "event", event, error, address) }
}

/// Writes the GPU's number, as CUDA numbers it, to `*device_id`.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_device_id(
    embeddings: *const nvembed_device_embeddings,
    device_id: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `device_id` and `error` are NULL or may be written.
    unsafe { get(embeddings, "device_id", device_id, error, |rows| Ok(rows.device_id())) }
}

/// Writes the element type of the rows, NVEMBED_F32 or NVEMBED_F16, to `*dtype`: 16-bit floats for an fp16 model.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_dtype(
    embeddings: *const nvembed_device_embeddings,
    dtype: *mut i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `dtype` and `error` are NULL or may be written.
    unsafe { get(embeddings, "dtype", dtype, error, |rows| dtype_in_c(rows.dtype())) }
}

/// Writes the number of rows, which is the number of prompts, to `*rows`.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_rows(
    embeddings: *const nvembed_device_embeddings,
    rows: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `rows` and `error` are NULL or may be written.
    unsafe { get(embeddings, "rows", rows, error, |held| Ok(held.shape().0)) }
}

/// Writes D, the number of elements of a row, to `*dimension`.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_dimension(
    embeddings: *const nvembed_device_embeddings,
    dimension: *mut usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `dimension` and `error` are NULL or may be written.
    unsafe { get(embeddings, "dimension", dimension, error, |rows| Ok(rows.shape().1)) }
}

/// Copies the token count of each row, and whether it was truncated: `token_counts` and `truncated`, each NULL or an array of
/// `capacity` numbers, are filled as in nvembed_output. NVEMBED_BUFFER_TOO_SMALL if `capacity` is below the number of rows.
///
/// Thread-safe.
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
            let arrays = PerRow::new(token_counts, truncated)?;
            let (rows, _) = held.embeddings.shape();
            if capacity < rows {
                let message = format!("the capacity must be at least {rows} numbers for {rows} rows, got {capacity}");
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

/// Closes the handle and returns the memory to the model. NULL is allowed. Everything that reads the rows must be done, on the
/// GPU too.
///
/// Thread-safe. If several threads release the same rows, one succeeds.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_device_embeddings_release(embeddings: *mut nvembed_device_embeddings) -> nvembed_code {
    // SAFETY: NULL, so nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(embeddings)) }
}

/// Closes the handle and returns the memory to runs of the model after `event`, a CUevent that you recorded after everything
/// that reads the rows. Returns at once: the GPU waits, not the host.
///
/// The caller promises that the event belongs to the GPU's primary context, and that it exists until a later call of
/// nvembed_embed_on_device() on the same GPU has returned, or until the model and its results are closed.
///
/// Thread-safe. If several threads release the same rows, one succeeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_device_embeddings_release_after(
    embeddings: *mut nvembed_device_embeddings,
    event: *mut c_void,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `event` is NULL or as promised above, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            if event.is_null() {
                return Err(Failure::new(NVEMBED_NULL_POINTER, "event is NULL"));
            }
            // Only one thread takes the value. A getter in another thread may drop it last, and then sees the event.
            let held: Arc<Held> = handle::take(embeddings)?;
            held.release_after.get_or_init(|| event.expose_provenance());
            Ok(())
        })
    }
}

/// The body of every getter: writes a property of the rows to `*out`.
///
/// # Safety
/// `out` and `error` are NULL or may be written.
unsafe fn get<T>(
    embeddings: *const nvembed_device_embeddings,
    name: &str,
    out: *mut T,
    error: *mut *mut nvembed_error,
    property: impl FnOnce(&DeviceEmbeddings) -> Result<T, Failure>,
) -> nvembed_code {
    // SAFETY: as this function's.
    unsafe {
        guard(error, || {
            let held = handle::get(embeddings)?;
            memory::write(name, out, property(&held.embeddings)?)
        })
    }
}
