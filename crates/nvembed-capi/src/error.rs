//! The error object: a code and a message.

use std::any::Any;
use std::ffi::{CString, c_char};

use super::codes::{NVEMBED_IN_CALLBACK, NVEMBED_INTERNAL, NVEMBED_INVALID_HANDLE, code_of, nvembed_code};
use super::guard;
use super::handle::{self, Handle, Table};

/// Why a call failed. Made by the call, freed by the caller with nvembed_error_free().
pub struct nvembed_error;

static ERRORS: Table<Failure> = Table::new();

impl Handle for nvembed_error {
    type Value = Failure;
    const NAME: &'static str = "nvembed_error";
    fn table() -> &'static Table<Failure> {
        &ERRORS
    }
}

/// A failure on its way to the caller.
#[derive(Debug)]
pub(super) struct Failure {
    code: nvembed_code,
    message: CString,
}

impl Failure {
    pub(super) fn new(code: nvembed_code, message: impl Into<String>) -> Self {
        // A NUL would end the message early; none of ours has one, but a path from the caller might.
        let message = CString::new(message.into().replace('\0', "\u{fffd}")).unwrap_or_default();
        Self { code, message }
    }

    pub(super) fn code(&self) -> nvembed_code {
        self.code
    }

    pub(super) fn in_callback() -> Self {
        Self::new(NVEMBED_IN_CALLBACK, "functions of nvembed cannot be called from the log callback")
    }

    pub(super) fn panic(payload: &(dyn Any + Send)) -> Self {
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Self::new(NVEMBED_INTERNAL, format!("a bug in nvembed: {message}"))
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self::new(code_of(error.kind()), error.to_string())
    }
}

pub(super) fn into_handle(failure: Failure) -> *mut nvembed_error {
    handle::insert(failure)
}

/// The code of an error, the same that the call returned; NVEMBED_INVALID_HANDLE when this is no live error.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_error_code(error: *const nvembed_error) -> nvembed_code {
    handle::get(error).map_or(NVEMBED_INVALID_HANDLE, |failure| failure.code)
}

/// The message of an error: UTF-8, ended by NUL, with the offending value and the limit; never a user's text. It lives
/// until the error is freed. A constant message when this is no live error; never NULL.
///
/// Threads: any, at the same time; the message must not be read while another thread frees the error.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_error_message(error: *const nvembed_error) -> *const c_char {
    // The pointer outlives the clone of the Arc: the table holds another until the error is freed.
    handle::get(error).map_or(c"not a live nvembed_error".as_ptr(), |failure| failure.message.as_ptr())
}

/// Frees an error. NULL is fine.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_error_free(error: *mut nvembed_error) -> nvembed_code {
    // SAFETY: NULL, nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(error)) }
}
