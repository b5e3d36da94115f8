//! Cancellation.

use super::codes::nvembed_code;
use super::error::nvembed_error;
use super::guard;
use super::handle::{self, Handle, Table};
use super::memory;
use crate::CancelToken;

/// Stops the calls it was given to. Closed with nvembed_cancel_free(), also while calls use it.
pub struct nvembed_cancel;

static TOKENS: Table<CancelToken> = Table::new();

impl Handle for nvembed_cancel {
    type Value = CancelToken;
    const NAME: &'static str = "nvembed_cancel";
    fn table() -> &'static Table<CancelToken> {
        &TOKENS
    }
}

/// Makes a token. One token may be given to many calls, at the same time and one after the other.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_cancel_new(
    cancel: *mut *mut nvembed_cancel,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: the caller keeps docs/c-api.md: `error` and `cancel` are NULL or may be written.
    unsafe {
        guard(error, || {
            memory::check("cancel", cancel)?;
            memory::write("cancel", cancel, handle::insert(CancelToken::new()))
        })
    }
}

/// Ends the calls that have this token, with NVEMBED_CANCELLED, and every call that gets it later. Returns at once; a run
/// of the graph ends between two of its nodes. A token cannot be used again: make a new one.
///
/// Threads: any, at the same time; that is what it is for. Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_cancel_request(
    cancel: *const nvembed_cancel,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            handle::get(cancel)?.cancel();
            Ok(())
        })
    }
}

/// Closes a token. NULL is fine. It does not cancel: calls that have the token go on.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_cancel_free(cancel: *mut nvembed_cancel) -> nvembed_code {
    // SAFETY: NULL, nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(cancel)) }
}
