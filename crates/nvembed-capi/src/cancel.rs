//! Cancellation.

use nvembed::CancelToken;

use crate::codes::nvembed_code;
use crate::error::nvembed_error;
use crate::handle::{self, Handle, Table};
use crate::{guard, memory};

/// A token that cancels the calls it is passed to. Close it with nvembed_cancel_free(), even while calls use it.
pub struct nvembed_cancel;

static TOKENS: Table<CancelToken> = Table::new();

impl Handle for nvembed_cancel {
    type Value = CancelToken;
    const NAME: &'static str = "nvembed_cancel";
    fn table() -> &'static Table<CancelToken> {
        &TOKENS
    }
}

/// Creates a token. Many calls can share it, at the same time or one after the other.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_cancel_new(
    cancel: *mut *mut nvembed_cancel,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: the caller keeps the contract: `error` and `cancel` are NULL or may be written.
    unsafe {
        guard(error, || {
            memory::check("cancel", cancel)?;
            memory::write("cancel", cancel, handle::insert(CancelToken::new()))
        })
    }
}

/// Cancels the calls that have this token, and every call that gets it later; they return NVEMBED_CANCELLED. This function
/// returns at once. Calls check their token before they tokenize and before each run of the graph. A run that has begun ends
/// between two nodes of the graph on the CPU and finishes first on OpenVINO; a call on a GPU does not wait for it. A token
/// cannot be reset: create a new one.
///
/// Thread-safe, but not for signal handlers.
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

/// Closes a token without cancelling: calls that have it continue. NULL is allowed.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_cancel_free(cancel: *mut nvembed_cancel) -> nvembed_code {
    // SAFETY: NULL, so nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(cancel)) }
}
