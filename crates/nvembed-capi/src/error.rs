//! The error object: a code and a message.

use std::any::Any;
use std::ffi::{CString, c_char};

use crate::codes::{NVEMBED_IN_CALLBACK, NVEMBED_INTERNAL, NVEMBED_INVALID_HANDLE, nvembed_code};
use crate::handle::{self, Handle, Table};
use crate::{guard, names};

/// Why a call failed. The call creates it, the caller frees it with nvembed_error_free().
pub struct nvembed_error;

static ERRORS: Table<Failure> = Table::new();

impl Handle for nvembed_error {
    type Value = Failure;
    const NAME: &'static str = "nvembed_error";
    fn table() -> &'static Table<Failure> {
        &ERRORS
    }
}

/// What an [`nvembed_error`] holds.
#[derive(Debug)]
pub(crate) struct Failure {
    code: nvembed_code,
    message: CString,
}

impl Failure {
    pub(crate) fn new(code: nvembed_code, message: impl Into<String>) -> Self {
        // A NUL would end the message early. Our own texts have none, but a path from the caller might.
        let message = CString::new(message.into().replace('\0', "\u{fffd}")).unwrap_or_default();
        Self { code, message }
    }

    pub(crate) fn code(&self) -> nvembed_code {
        self.code
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        self.message.to_str().unwrap_or_default()
    }

    pub(crate) fn in_callback() -> Self {
        Self::new(NVEMBED_IN_CALLBACK, "the log callback must not call functions of nvembed")
    }

    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Self::new(NVEMBED_INTERNAL, format!("a bug in nvembed: {message}"))
    }
}

impl From<nvembed::Error> for Failure {
    fn from(error: nvembed::Error) -> Self {
        Self::new(error.kind().code(), error.report(names::in_c))
    }
}

pub(crate) fn into_handle(failure: Failure) -> *mut nvembed_error {
    handle::insert(failure)
}

/// Returns the code of an error, the same that the call returned, or NVEMBED_INVALID_HANDLE if `error` is not an open error.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_error_code(error: *const nvembed_error) -> nvembed_code {
    handle::get(error).map_or(NVEMBED_INVALID_HANDLE, |failure| failure.code)
}

/// Returns the message of an error: NUL-terminated UTF-8 with the offending value, the limit and what to do, never a user's
/// text. It is valid until the error is freed. If `error` is not an open error, the message says so; it is never NULL.
///
/// Thread-safe, but do not read the message while another thread frees the error.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_error_message(error: *const nvembed_error) -> *const c_char {
    // The pointer outlives the clone of the Arc: the table holds another until the error is freed.
    handle::get(error).map_or(c"not an open nvembed_error".as_ptr(), |failure| failure.message.as_ptr())
}

/// Frees an error. NULL is allowed.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_error_free(error: *mut nvembed_error) -> nvembed_code {
    // SAFETY: NULL, so nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(error)) }
}
