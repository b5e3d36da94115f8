//! What every function is wrapped in.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::codes::{NVEMBED_INVALID_ARGUMENT, NVEMBED_OK, nvembed_code};
use crate::error::{self, Failure, nvembed_error};
use crate::log;

#[cfg(panic = "abort")]
compile_error!("the C ABI promises that no panic ends the process: build it with panic = \"unwind\"");

/// Runs the body of a function. Returns its code, and writes the error object to `*error` if the caller wants one.
///
/// # Safety
/// `error` is NULL or points to a pointer that may be written.
pub(crate) unsafe fn guard(error: *mut *mut nvembed_error, body: impl FnOnce() -> Result<(), Failure>) -> nvembed_code {
    if !error.is_aligned() {
        return NVEMBED_INVALID_ARGUMENT;
    }
    let checked = || if log::in_callback() { Err(Failure::in_callback()) } else { body() };
    // Nothing half-done is used after a panic: a body owns its values, and locks recover from poisoning.
    let outcome = catch_unwind(AssertUnwindSafe(checked)).unwrap_or_else(|payload| Err(Failure::panic(&*payload)));
    let (code, object) = match outcome {
        Ok(()) => (NVEMBED_OK, std::ptr::null_mut()),
        Err(failure) if error.is_null() => (failure.code(), std::ptr::null_mut()),
        Err(failure) => (failure.code(), error::into_handle(failure)),
    };
    if !error.is_null() {
        // SAFETY: not NULL and aligned; the caller promises that it may be written.
        unsafe { error.write(object) };
    }
    code
}
