//! What cannot be seen from C: panics, and the table behind the handles. The rest is tested from C, in `tests/c-api/`.
#![allow(clippy::panic, reason = "panics are what is tested")]

use super::handle::{Handle, close, get, insert};
use super::options::snapshot;
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

#[test]
fn setters_set_what_they_are_named_after() {
    let (options, none): (*mut nvembed_model_options, _) = (insert(Default::default()), std::ptr::null_mut());
    let read = || -> crate::LoadOptions { snapshot(options).unwrap() };
    // SAFETY: the strings live during the calls.
    unsafe {
        assert_eq!(nvembed_model_options_set_provider(options, c"tensorrt".as_ptr(), 8, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_library(options, c"lib".as_ptr(), 3, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_cache(options, c"here".as_ptr(), 4, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_intra_threads(options, 3, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_verify_hashes(options, 2, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_parallel_prepacking(options, -1, none), NVEMBED_OK);
        let crate::LoadOptions { provider, library, intra_threads, verify_hashes, cache, parallel_prepacking, .. } =
            read();
        assert_eq!((provider, intra_threads), (crate::Provider::TensorRt, Some(3)));
        assert_eq!((library, cache), (Some("lib".into()), Some("here".into())));
        assert!(verify_hashes && parallel_prepacking);

        assert_eq!(nvembed_model_options_set_library(options, std::ptr::null(), 0, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_cache(options, std::ptr::null(), 0, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_intra_threads(options, 0, none), NVEMBED_OK);
    }
    assert_eq!((read().library, read().cache, read().intra_threads), (None, None, None));
    close(options).unwrap();
}
