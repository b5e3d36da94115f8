//! What cannot be seen from C: panics, and the table behind the handles. The rest is tested from C, in `tests/c-api/`.
#![allow(clippy::panic, reason = "panics are what is tested")]

use std::time::{Duration, Instant};

use super::handle::{Handle, close, get, insert};
use super::options::snapshot;
use super::*;
use crate::{LoadOptions, TensorRtOptions, UserStream};

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
        assert!(!read().low_memory);
        assert_eq!(nvembed_model_options_set_low_memory(options, 1, none), NVEMBED_OK);
        assert!(read().low_memory);
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

#[test]
fn every_option_of_gpus_lands_in_its_field() {
    let null = std::ptr::null_mut();
    let mut options = std::ptr::null_mut::<nvembed_model_options>();
    let numbers = [1_usize, 2, 3, 4, 5, 6];
    // SAFETY: local variables; the stream is an address that no model is opened with.
    let codes = unsafe {
        [
            nvembed_model_options_new(&raw mut options, null),
            nvembed_model_options_set_device_ids(options, numbers.as_ptr(), 2, null),
            nvembed_model_options_set_memory_limit(options, 10, null),
            nvembed_model_options_set_stream(options, std::ptr::without_provenance_mut(12), null),
            nvembed_model_options_set_cuda_graphs(options, 0, null),
            nvembed_model_options_set_buffer_sets(options, 13, null),
            nvembed_model_options_set_sequence_buckets(options, numbers[2..].as_ptr(), 2, null),
            nvembed_model_options_set_batch_buckets(options, numbers[4..].as_ptr(), 2, null),
            nvembed_model_options_set_builder_optimization_level(options, 5, null),
            nvembed_model_options_set_workspace(options, 14, null),
            nvembed_model_options_set_build_on_open(options, 2, null),
        ]
    };
    assert_eq!(codes, [NVEMBED_OK; 11]);
    let LoadOptions { cuda, tensorrt, .. } = options::snapshot(options.cast_const()).unwrap();
    assert_eq!(cuda.device_ids, [1, 2]);
    assert_eq!((cuda.memory_limit, cuda.cuda_graphs, cuda.buffer_sets), (Some(10), false, 13));
    // SAFETY: only compared.
    assert_eq!(cuda.stream, Some(unsafe { UserStream::new(12) }));
    assert_eq!((cuda.buckets.sequence, cuda.buckets.batch), (vec![3, 4], vec![5, 6]));
    let TensorRtOptions { builder_optimization_level, workspace, build_on_open, .. } = tensorrt;
    assert_eq!((builder_optimization_level, workspace, build_on_open), (5, Some(14), true));
    assert_eq!(nvembed_model_options_free(options), NVEMBED_OK);
}

#[test]
fn a_deadline_counts_from_each_call_and_0_is_none() {
    let null = std::ptr::null_mut();
    let mut options = std::ptr::null_mut::<nvembed_embed_options>();
    // SAFETY: local variables.
    assert_eq!(unsafe { nvembed_embed_options_new(&raw mut options, null) }, NVEMBED_OK);
    let deadline = |milliseconds| {
        // SAFETY: as above.
        assert_eq!(unsafe { nvembed_embed_options_set_deadline(options, milliseconds, null) }, NVEMBED_OK);
        let (before, found) = (Instant::now(), options::of_call(options, std::ptr::null()).unwrap().deadline);
        (before, found, Instant::now())
    };
    for _ in 0..2 {
        let (before, found, after) = deadline(600_000);
        let found = found.unwrap();
        assert!(found >= before + Duration::from_secs(600) && found <= after + Duration::from_secs(600));
    }
    assert_eq!(deadline(0).1, None);
    // Whether or not the clock can tell that time: no panic, and not in the past.
    let (_, found, after) = deadline(u64::MAX);
    assert!(found.is_none_or(|deadline| deadline > after));
    assert_eq!(nvembed_embed_options_free(options), NVEMBED_OK);
}
