//! What cannot be seen from C: panics, and the table behind the handles. The rest is tested from C, in `tests/c-api/`.
#![allow(clippy::panic, reason = "panics are what is tested")]

use super::handle::{Handle, close, get, insert};
use super::*;

#[test]
fn a_panic_becomes_a_code_and_a_message() {
    let mut error = std::ptr::null_mut();
    // SAFETY: `error` is a local variable.
    let code = unsafe { guard(&mut error, || panic!("the sum is {}", 1 + 1)) };
    assert_eq!(code, NVEMBED_INTERNAL);
    // SAFETY: a message ends with NUL and lives until the error is freed.
    let message = unsafe { std::ffi::CStr::from_ptr(nvembed_error_message(error)) };
    assert_eq!(message.to_str(), Ok("a bug in nvembed: the sum is 2"));
    assert_eq!(nvembed_error_free(error), NVEMBED_OK);
    // SAFETY: NULL is allowed.
    assert_eq!(unsafe { guard(std::ptr::null_mut(), || panic!("no object asked for")) }, NVEMBED_INTERNAL);
}

#[test]
fn success_clears_the_error() {
    let mut error = std::ptr::without_provenance_mut(77);
    // SAFETY: `error` is a local variable.
    assert_eq!(unsafe { guard(&mut error, || Ok(())) }, NVEMBED_OK);
    assert!(error.is_null());
}

#[test]
fn a_value_in_use_outlives_its_handle() {
    let handle: *mut nvembed_cancel = insert(crate::CancelToken::new());
    let in_use = get(handle).unwrap();
    close(handle).unwrap();
    in_use.cancel();
    assert!(in_use.is_cancelled());
    assert_eq!(get(handle).unwrap_err().code(), NVEMBED_INVALID_HANDLE);
    assert_eq!(std::sync::Arc::strong_count(&in_use), 1, "the table keeps nothing of what is closed");
}

#[test]
fn a_handle_of_one_type_is_none_of_another_and_never_comes_again() {
    let cancel: *mut nvembed_cancel = insert(crate::CancelToken::new());
    assert_eq!(get::<nvembed_model>(cancel.cast()).unwrap_err().code(), NVEMBED_INVALID_HANDLE);
    assert_eq!(cancel.addr() % 2, 1, "no object of C begins at an odd address");
    close(cancel).unwrap();
    let next: *mut nvembed_cancel = insert(crate::CancelToken::new());
    assert_ne!(cancel, next);
    close(next).unwrap();
    assert_eq!(<nvembed_cancel as Handle>::NAME, "nvembed_cancel");
}
