//! The C ABI: `include/nvembed.h` is generated from these modules, and `docs/c-api.md` is the contract they keep.
//!
//! Every function goes through `guard`, which turns a failure into a code and an error object and stops panics. Handles
//! are numbers that are looked up in a table and never dereferenced, so that a closed or foreign handle is an error.
//!
//! What is here is for C. From Rust, use the crate itself.
#![expect(unsafe_code, reason = "pointers from C; each function trusts them no further than docs/c-api.md says")]
#![allow(non_camel_case_types, reason = "the names are those of the C header")]
#![allow(clippy::missing_safety_doc, reason = "docs/c-api.md states once, for all functions, what pointers must be")]

mod cancel;
mod codes;
mod embed;
mod error;
mod gpu_options;
mod handle;
mod log;
mod memory;
mod model;
mod on_device;
mod options;

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use cancel::*;
pub use codes::*;
pub use embed::*;
pub use error::*;
pub use gpu_options::*;
pub use log::*;
pub use model::*;
pub use on_device::*;
pub use options::*;

use error::Failure;

#[cfg(panic = "abort")]
compile_error!("the C ABI promises that no panic ends the process: build it with panic = \"unwind\"");

/// The version of the interface that this header describes; compare with nvembed_abi_version().
///
/// Raised by one with each addition. Nothing is removed or changed while the shared library's name ends in ".so.0".
pub const NVEMBED_ABI_VERSION: u32 = 1;

/// The version of the interface that the library implements: everything in headers of this version and older.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_abi_version() -> u32 {
    NVEMBED_ABI_VERSION
}

/// The library's version, for example "0.1.0"; a constant that is never freed.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Runs a function's body and reports its outcome: the code as the result, the error object in `*error` where asked for.
///
/// # Safety
/// `error` is NULL or points to a pointer that may be written.
unsafe fn guard(error: *mut *mut nvembed_error, body: impl FnOnce() -> Result<(), Failure>) -> nvembed_code {
    if !error.is_aligned() {
        return NVEMBED_INVALID_ARGUMENT;
    }
    let checked = || if log::in_callback() { Err(Failure::in_callback()) } else { body() };
    // After a panic nothing half-done is used again: a body owns its values, and locks recover from poisoning.
    let outcome = catch_unwind(AssertUnwindSafe(checked)).unwrap_or_else(|payload| Err(Failure::panic(&*payload)));
    let (code, object) = match outcome {
        Ok(()) => (NVEMBED_OK, std::ptr::null_mut()),
        Err(failure) if error.is_null() => (failure.code(), std::ptr::null_mut()),
        Err(failure) => (failure.code(), error::into_handle(failure)),
    };
    if !error.is_null() {
        // SAFETY: not NULL and aligned, and the caller says that it may be written.
        unsafe { error.write(object) };
    }
    code
}

#[cfg(test)]
mod tests;
