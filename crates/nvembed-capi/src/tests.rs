//! What C cannot see: panics, the table behind the handles, and what the setters set. tests/ tests the rest, from C.
#![allow(clippy::panic, reason = "panics are what is tested")]

use std::ffi::CStr;
use std::time::{Duration, Instant};

use nvembed::gpu::{GpuOptions, UserStream};
use nvembed::{CancelToken, Dtype, EmbedOptions, ErrorKind, ModelOptions, Provider};

use crate::error::Failure;
use crate::handle::{Handle, close, get, insert};
use crate::options::{of_call, snapshot};
use crate::*;

#[test]
fn a_panic_becomes_a_code_and_a_message() {
    let mut error = std::ptr::null_mut();
    // SAFETY: `error` is a local variable.
    let code = unsafe { guard(&mut error, || panic!("the sum is {}", 1 + 1)) };
    assert_eq!(code, NVEMBED_INTERNAL);
    // SAFETY: a message ends with NUL and lives until the error is freed.
    let message = unsafe { CStr::from_ptr(nvembed_error_message(error)) };
    assert_eq!(message.to_str(), Ok("a bug in nvembed: the sum is 2"));
    assert_eq!(nvembed_error_free(error), NVEMBED_OK);
    // SAFETY: NULL is allowed.
    assert_eq!(unsafe { guard(std::ptr::null_mut(), || panic!("nobody wants the error object")) }, NVEMBED_INTERNAL);
}

#[test]
fn success_clears_the_error() {
    let mut error = std::ptr::without_provenance_mut(77);
    // SAFETY: `error` is a local variable.
    assert_eq!(unsafe { guard(&mut error, || Ok(())) }, NVEMBED_OK);
    assert!(error.is_null());
}

#[test]
fn every_kind_of_error_has_the_code_that_is_named_after_it() {
    for &kind in ErrorKind::ALL {
        let mut wanted = "NVEMBED".to_owned();
        for letter in format!("{kind:?}").chars() {
            if letter.is_ascii_uppercase() {
                wanted.push('_');
            }
            wanted.push(letter.to_ascii_uppercase());
        }
        // SAFETY: the name of a code is a constant that ends with NUL.
        let name = unsafe { CStr::from_ptr(nvembed_code_name(kind.code())) };
        assert_eq!(name.to_str(), Ok(wanted.as_str()));
    }
}

#[test]
fn every_element_type_has_a_number() {
    let dtypes: Vec<_> = Dtype::ALL.iter().map(|dtype| embed::dtype_in_c(*dtype).unwrap()).collect();
    assert_eq!(dtypes, [NVEMBED_F32, NVEMBED_F16, NVEMBED_INT8, NVEMBED_BINARY]);
}

#[test]
fn errors_name_options_by_setters_that_exist() {
    let header = include_str!("../include/nvembed.h");
    let options = [ModelOptions::NAMES, GpuOptions::NAMES, EmbedOptions::NAMES].concat();
    for name in &options {
        let in_c = names::in_c(name);
        if in_c.starts_with("nvembed_") {
            let setter = in_c.strip_suffix("()").unwrap();
            assert!(header.contains(&format!("nvembed_code {setter}(")), "{in_c} is not in the header");
        } else {
            assert!(names::WITHOUT_A_SETTER.contains(name), "{name}");
            assert!(!header.contains(&format!("_options_set_{name}(")), "{name} has a setter");
        }
    }
    assert!(names::WITHOUT_A_SETTER.iter().all(|name| options.contains(name)));
    let setters = header.lines().filter(|line| line.starts_with("nvembed_code ") && line.contains("_options_set_"));
    assert_eq!(setters.count(), options.len() - names::WITHOUT_A_SETTER.len());
    assert_eq!(names::in_c("dtype"), "the output's dtype");
}

#[test]
fn an_error_of_the_library_keeps_its_code_and_names_the_setter() {
    let failure = Failure::from("g p u".parse::<Provider>().unwrap_err());
    assert_eq!(failure.code(), NVEMBED_OPTION);
    let wanted = "nvembed_model_options_set_provider() must have 1 to 64 letters, digits, _, - or ., got \"g p u\"";
    assert_eq!(failure.message(), wanted);
}

#[test]
fn a_value_in_use_outlives_its_handle() {
    let handle: *mut nvembed_cancel = insert(CancelToken::new());
    let in_use = get(handle).unwrap();
    close(handle).unwrap();
    in_use.cancel();
    assert!(in_use.is_cancelled());
    assert_eq!(get(handle).unwrap_err().code(), NVEMBED_INVALID_HANDLE);
    assert_eq!(std::sync::Arc::strong_count(&in_use), 1, "the table keeps nothing that is closed");
}

#[test]
fn a_handle_has_one_type_and_is_never_reused() {
    let cancel: *mut nvembed_cancel = insert(CancelToken::new());
    assert_eq!(get::<nvembed_model>(cancel.cast()).unwrap_err().code(), NVEMBED_INVALID_HANDLE);
    assert_eq!(cancel.addr() % 2, 1, "no object in C has an odd address");
    close(cancel).unwrap();
    let next: *mut nvembed_cancel = insert(CancelToken::new());
    assert_ne!(cancel, next);
    close(next).unwrap();
    assert_eq!(<nvembed_cancel as Handle>::NAME, "nvembed_cancel");
}

#[test]
fn every_setter_of_model_options_sets_its_field() {
    let (options, none): (*mut nvembed_model_options, _) = (insert(Default::default()), std::ptr::null_mut());
    let read = || -> ModelOptions { snapshot(options).unwrap() };
    // SAFETY: the strings live during the calls.
    unsafe {
        assert_eq!(nvembed_model_options_set_provider(options, c"tensorrt".as_ptr(), 8, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_library(options, c"lib".as_ptr(), 3, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_provider_library(options, c"plug".as_ptr(), 4, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_cache(options, c"here".as_ptr(), 4, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_intra_threads(options, 3, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_verify_hashes(options, 2, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_parallel_prepacking(options, -1, none), NVEMBED_OK);
        let ModelOptions { provider, library, intra_threads, verify_hashes, cache, parallel_prepacking, .. } = read();
        assert!(!read().low_memory);
        assert_eq!(nvembed_model_options_set_low_memory(options, 1, none), NVEMBED_OK);
        assert!(read().low_memory);
        assert_eq!((provider, intra_threads), (Provider::TensorRt, Some(3)));
        assert_eq!((library, cache), (Some("lib".into()), Some("here".into())));
        assert!(verify_hashes && parallel_prepacking);
        assert!(read().self_check);
        assert_eq!(nvembed_model_options_set_self_check(options, 0, none), NVEMBED_OK);
        assert!(!read().self_check);
        assert_eq!(read().provider_library, Some("plug".into()));

        assert_eq!(nvembed_model_options_set_provider_library(options, std::ptr::null(), 0, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_library(options, std::ptr::null(), 0, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_cache(options, std::ptr::null(), 0, none), NVEMBED_OK);
        assert_eq!(nvembed_model_options_set_intra_threads(options, 0, none), NVEMBED_OK);
    }
    assert_eq!((read().library, read().cache, read().intra_threads), (None, None, None));
    assert_eq!(read().provider_library, None);
    close(options).unwrap();
}

#[test]
fn every_setter_of_gpu_options_sets_its_field() {
    let null = std::ptr::null_mut();
    let mut options = std::ptr::null_mut::<nvembed_model_options>();
    let numbers = [1_usize, 2, 3, 4, 5, 6];
    // SAFETY: local variables; no model is opened with the stream's address.
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
    let ModelOptions { gpu, .. } = snapshot(options.cast_const()).unwrap();
    let mut wanted = GpuOptions::default();
    wanted.device_ids = vec![1, 2];
    wanted.memory_limit = Some(10);
    // SAFETY: only compared.
    wanted.stream = Some(unsafe { UserStream::new(12) });
    wanted.cuda_graphs = false;
    wanted.buffer_sets = 13;
    wanted.sequence_buckets = vec![3, 4];
    wanted.batch_buckets = vec![5, 6];
    wanted.builder_optimization_level = 5;
    wanted.workspace = Some(14);
    wanted.build_on_open = true;
    assert_eq!(gpu, wanted);
    assert_eq!(nvembed_model_options_free(options), NVEMBED_OK);
}

#[test]
fn a_deadline_counts_from_the_start_of_each_call_and_0_is_none() {
    let null = std::ptr::null_mut();
    let mut options = std::ptr::null_mut::<nvembed_embed_options>();
    // SAFETY: local variables.
    assert_eq!(unsafe { nvembed_embed_options_new(&raw mut options, null) }, NVEMBED_OK);
    let deadline = |milliseconds| {
        // SAFETY: as above.
        assert_eq!(unsafe { nvembed_embed_options_set_deadline(options, milliseconds, null) }, NVEMBED_OK);
        let (before, found) = (Instant::now(), of_call(options, std::ptr::null()).unwrap().deadline);
        (before, found, Instant::now())
    };
    for _ in 0..2 {
        let (before, found, after) = deadline(600_000);
        let found = found.unwrap();
        assert!(found >= before + Duration::from_secs(600) && found <= after + Duration::from_secs(600));
    }
    assert_eq!(deadline(0).1, None);
    // Whether or not the clock can represent that time: no panic, and not in the past.
    let (_, found, after) = deadline(u64::MAX);
    assert!(found.is_none_or(|deadline| deadline > after));
    assert_eq!(nvembed_embed_options_free(options), NVEMBED_OK);
}
