//! Options: handles with setters, so that a new option is a new function and nothing else changes.

use std::ffi::c_char;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cancel::nvembed_cancel;
use super::codes::{NVEMBED_INVALID_ARGUMENT, nvembed_code};
use super::error::{Failure, nvembed_error};
use super::handle::{self, Handle, Table};
use super::{guard, memory};
use crate::{EncodeOptions, LoadOptions, Provider, SpecialTokens, Truncation};

/// Choices that are fixed while a model is open. A new one has the defaults.
pub struct nvembed_model_options;

/// Choices of a call. A new one has the defaults.
pub struct nvembed_embed_options;

/// A text that is too long is cut on the right; the closing `</s>` is lost. That is what NVIDIA's code does.
pub const NVEMBED_TRUNCATION_REFERENCE: i32 = 0;
/// A text that is too long is cut on the right, and its last token becomes `</s>`.
pub const NVEMBED_TRUNCATION_KEEP_EOS: i32 = 1;
/// A text that is too long is refused with NVEMBED_TOO_LONG.
pub const NVEMBED_TRUNCATION_ERROR: i32 = 2;

/// A literal `<s>`, `</s>` or `<unk>` in a prompt is the special token. That is what NVIDIA's code does.
pub const NVEMBED_SPECIAL_TOKENS_PARSE: i32 = 0;
/// A literal `<s>`, `</s>` or `<unk>` in a prompt is plain text: for texts from users who must not write special tokens.
pub const NVEMBED_SPECIAL_TOKENS_LITERAL: i32 = 1;

static MODEL_OPTIONS: Table<Mutex<LoadOptions>> = Table::new();
static EMBED_OPTIONS: Table<Mutex<CallOptions>> = Table::new();

/// What stands behind nvembed_embed_options: the deadline becomes a point in time when a call begins.
#[derive(Debug, Clone, Default)]
pub(super) struct CallOptions {
    encode: EncodeOptions,
    deadline: Option<Duration>,
}

impl Handle for nvembed_model_options {
    type Value = Mutex<LoadOptions>;
    const NAME: &'static str = "nvembed_model_options";
    fn table() -> &'static Table<Self::Value> {
        &MODEL_OPTIONS
    }
}

impl Handle for nvembed_embed_options {
    type Value = Mutex<CallOptions>;
    const NAME: &'static str = "nvembed_embed_options";
    fn table() -> &'static Table<Self::Value> {
        &EMBED_OPTIONS
    }
}

/// The options behind a handle as they are now; the defaults for NULL.
pub(super) fn snapshot<H, O>(options: *const H) -> Result<O, Failure>
where
    H: Handle<Value = Mutex<O>>,
    O: Default + Clone,
{
    if options.is_null() {
        return Ok(O::default());
    }
    Ok(handle::get(options)?.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// The options of a call that begins now; either handle may be NULL.
pub(super) fn of_call(
    options: *const nvembed_embed_options,
    cancel: *const nvembed_cancel,
) -> Result<EncodeOptions, Failure> {
    let now = Instant::now();
    let CallOptions { mut encode, deadline } = snapshot(options)?;
    // Later than the clock can tell is never.
    encode.deadline = deadline.and_then(|deadline| now.checked_add(deadline));
    if !cancel.is_null() {
        encode.cancel = Some((*handle::get(cancel)?).clone());
    }
    Ok(encode)
}

pub(super) fn change<H, O>(options: *mut H, set: impl FnOnce(&mut O)) -> Result<(), Failure>
where
    H: Handle<Value = Mutex<O>>,
{
    set(&mut handle::get(options)?.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

fn unknown(what: &str, value: i32) -> Failure {
    Failure::new(NVEMBED_INVALID_ARGUMENT, format!("{what} is {value}, which is none of its constants"))
}

/// Makes options of a model, with the defaults.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_new(
    options: *mut *mut nvembed_model_options,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `options` and `error` are NULL or may be written.
    unsafe {
        guard(error, || {
            memory::check("options", options)?;
            memory::write("options", options, handle::insert(Mutex::default()))
        })
    }
}

/// Closes options. NULL is fine. Models opened with them are not affected.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_model_options_free(options: *mut nvembed_model_options) -> nvembed_code {
    // SAFETY: NULL, nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(options)) }
}

/// Where the computation runs: "cpu" (the default), "cuda", "tensorrt", "nv-tensorrt-rtx" or "openvino". A provider that the loaded
/// library does not have is an error when the model is opened, never a silent run on the CPU.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_provider(
    options: *mut nvembed_model_options,
    name: *const c_char,
    name_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `name` points to `name_length` bytes, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let name = memory::text("the provider's name", name, name_length)?;
            let provider: Provider = name.parse()?;
            change(options, |options: &mut LoadOptions| options.provider = provider)
        })
    }
}

/// The ONNX Runtime library to load, a file or a folder. Not set, or of length 0: it is looked for, see docs/c-api.md.
/// A process loads one; naming another one later is an error when a model is opened.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_library(
    options: *mut nvembed_model_options,
    path: *const c_char,
    path_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `path` points to `path_length` bytes, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let path = memory::text("the library's path", path, path_length)?;
            let library = (!path.is_empty()).then(|| PathBuf::from(path));
            change(options, |options: &mut LoadOptions| options.library = library)
        })
    }
}

/// Threads of one run, 1 to 1,024; 0, the default: ONNX Runtime takes one for each physical core.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_intra_threads(
    options: *mut nvembed_model_options,
    threads: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let intra_threads = (threads > 0).then_some(threads);
            change(options, |options: &mut LoadOptions| options.intra_threads = intra_threads)
        })
    }
}

/// Whether (not 0) every file of the model is read and compared with the manifest when it is opened. Default: 0.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_verify_hashes(
    options: *mut nvembed_model_options,
    verify_hashes: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { guard(error, || change(options, |options: &mut LoadOptions| options.verify_hashes = verify_hashes != 0)) }
}

/// The folder in which the program's `nvembed prepare` keeps what it makes ahead, and in which opening looks for it. Not
/// set, or of length 0: the folder `cache` in the model folder.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_cache(
    options: *mut nvembed_model_options,
    path: *const c_char,
    path_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `path` points to `path_length` bytes, `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let path = memory::text("the cache's path", path, path_length)?;
            let cache = (!path.is_empty()).then(|| PathBuf::from(path));
            change(options, |options: &mut LoadOptions| options.cache = cache)
        })
    }
}

/// Whether (not 0) all threads rearrange the weights when a model is opened on the CPU: faster, and the process's resident
/// memory shows up to twice the model meanwhile. Default: 0.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_parallel_prepacking(
    options: *mut nvembed_model_options,
    parallel_prepacking: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            change(options, |options: &mut LoadOptions| options.parallel_prepacking = parallel_prepacking != 0)
        })
    }
}

/// Whether (not 0) the memory of each node of the graph goes back to the system as soon as it is free, on the CPU: a third
/// less memory for a text of many thousand tokens, and slower. Default: 0.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_low_memory(
    options: *mut nvembed_model_options,
    low_memory: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { guard(error, || change(options, |options: &mut LoadOptions| options.low_memory = low_memory != 0)) }
}

/// Makes options of a call, with the defaults.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_new(
    options: *mut *mut nvembed_embed_options,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `options` and `error` are NULL or may be written.
    unsafe {
        guard(error, || {
            memory::check("options", options)?;
            memory::write("options", options, handle::insert(Mutex::default()))
        })
    }
}

/// Closes options. NULL is fine. A call that has them goes on with what they were when it began.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_embed_options_free(options: *mut nvembed_embed_options) -> nvembed_code {
    // SAFETY: NULL, nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(options)) }
}

/// The longest row in tokens, `<s>`, instruction and `</s>` included: 1 to nvembed_model_max_length(). 0, the default:
/// the model's own limit. Checked by the call that gets the options, as are the other ranges.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_max_length(
    options: *mut nvembed_embed_options,
    max_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let max_length = (max_length > 0).then_some(max_length);
            change(options, |options: &mut CallOptions| options.encode.max_length = max_length)
        })
    }
}

/// What happens to a text that is too long: an NVEMBED_TRUNCATION_... constant.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_truncation(
    options: *mut nvembed_embed_options,
    truncation: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let truncation = match truncation {
                NVEMBED_TRUNCATION_REFERENCE => Truncation::Reference,
                NVEMBED_TRUNCATION_KEEP_EOS => Truncation::KeepEos,
                NVEMBED_TRUNCATION_ERROR => Truncation::Error,
                other => return Err(unknown("truncation", other)),
            };
            change(options, |options: &mut CallOptions| options.encode.truncation = truncation)
        })
    }
}

/// How special tokens written in a prompt are read: an NVEMBED_SPECIAL_TOKENS_... constant.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_special_tokens(
    options: *mut nvembed_embed_options,
    special_tokens: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let special_tokens = match special_tokens {
                NVEMBED_SPECIAL_TOKENS_PARSE => SpecialTokens::Parse,
                NVEMBED_SPECIAL_TOKENS_LITERAL => SpecialTokens::Literal,
                other => return Err(unknown("special_tokens", other)),
            };
            change(options, |options: &mut CallOptions| options.encode.special_tokens = special_tokens)
        })
    }
}

/// Padded tokens of one batch, rows x longest row: 1 to 1,048,576. Default: 1,024 on the CPU, 4,096 on a GPU. A single
/// longer row runs alone.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_max_batch_tokens(
    options: *mut nvembed_embed_options,
    max_batch_tokens: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            change(options, |options: &mut CallOptions| options.encode.max_batch_tokens = Some(max_batch_tokens))
        })
    }
}

/// Rows of one batch: 1 to 8,192. Default: 256.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_max_batch_size(
    options: *mut nvembed_embed_options,
    max_batch_size: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || change(options, |options: &mut CallOptions| options.encode.max_batch_size = max_batch_size))
    }
}

/// The longest that a call may take, in milliseconds from its start; then it ends with NVEMBED_DEADLINE_EXCEEDED. 0, the
/// default: no deadline. A call looks at it where it looks for cancellation, but a run on the CPU that has begun ends first.
///
/// Threads: any, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_deadline(
    options: *mut nvembed_embed_options,
    milliseconds: u64,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe {
        guard(error, || {
            let deadline = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
            change(options, |options: &mut CallOptions| options.deadline = deadline)
        })
    }
}
