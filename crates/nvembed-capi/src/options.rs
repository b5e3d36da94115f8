//! Options: handles with setters, so that a new option is a new function and nothing else changes.

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvembed::{EmbedOptions, ModelOptions, SpecialTokens, Truncation};

use crate::cancel::nvembed_cancel;
use crate::codes::{NVEMBED_INVALID_ARGUMENT, nvembed_code};
use crate::error::{Failure, nvembed_error};
use crate::handle::{self, Handle, Table};
use crate::{guard, memory};

/// Options that are fixed while a model is open.
///
/// An option that the chosen provider ignores makes nvembed_model_open() fail with NVEMBED_OPTION, unless it has its default.
pub struct nvembed_model_options;

/// Options of one call.
pub struct nvembed_embed_options;

/// Cut a text that is too long on the right, which loses the closing `</s>`. NVIDIA's code does the same.
pub const NVEMBED_TRUNCATION_REFERENCE: i32 = 0;
/// Cut a text that is too long on the right, and make its last token `</s>`.
pub const NVEMBED_TRUNCATION_KEEP_EOS: i32 = 1;
/// Refuse a text that is too long with NVEMBED_TOO_LONG.
pub const NVEMBED_TRUNCATION_ERROR: i32 = 2;
/// Leave out the start of a text that is too long. `<s>`, the instruction, the end of the text and the closing `</s>` are kept.
pub const NVEMBED_TRUNCATION_START: i32 = 3;

/// Read a literal `<s>`, `</s>` or `<unk>` in a prompt as the special token. NVIDIA's code does the same.
pub const NVEMBED_SPECIAL_TOKENS_PARSE: i32 = 0;
/// Read a literal `<s>`, `</s>` or `<unk>` in a prompt as plain text: for users who must not be able to write special tokens.
pub const NVEMBED_SPECIAL_TOKENS_LITERAL: i32 = 1;

static MODEL_OPTIONS: Table<Mutex<ModelOptions>> = Table::new();
static EMBED_OPTIONS: Table<Mutex<CallOptions>> = Table::new();

/// What an [`nvembed_embed_options`] holds. The deadline becomes a point in time when a call starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallOptions {
    embed: EmbedOptions,
    deadline: Option<Duration>,
}

impl Handle for nvembed_model_options {
    type Value = Mutex<ModelOptions>;
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

/// A copy of the options behind a handle; the defaults for NULL.
pub(crate) fn snapshot<H, O>(options: *const H) -> Result<O, Failure>
where
    H: Handle<Value = Mutex<O>>,
    O: Default + Clone,
{
    if options.is_null() {
        return Ok(O::default());
    }
    Ok(handle::get(options)?.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// The options of a call that starts now; either handle may be NULL.
pub(crate) fn of_call(
    options: *const nvembed_embed_options,
    cancel: *const nvembed_cancel,
) -> Result<EmbedOptions, Failure> {
    let now = Instant::now();
    let CallOptions { mut embed, deadline } = snapshot(options)?;
    // A point in time that the clock cannot represent is never reached.
    embed.deadline = deadline.and_then(|deadline| now.checked_add(deadline));
    if !cancel.is_null() {
        embed.cancel = Some((*handle::get(cancel)?).clone());
    }
    Ok(embed)
}

/// The body of every setter: assigns a value to a field of the options, unless the value is refused.
///
/// # Safety
/// `error` is NULL or may be written.
pub(crate) unsafe fn set<H, O, V>(
    options: *mut H,
    error: *mut *mut nvembed_error,
    field: fn(&mut O) -> &mut V,
    value: impl FnOnce() -> Result<V, Failure>,
) -> nvembed_code
where
    H: Handle<Value = Mutex<O>>,
{
    let change = || {
        let value = value()?;
        let options = handle::get(options)?;
        *field(&mut options.lock().unwrap_or_else(PoisonError::into_inner)) = value;
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { guard(error, change) }
}

/// `None` for 0, which means "not set" in C.
pub(crate) fn unless_0<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn unknown(what: &str, values: &str, value: i32) -> Failure {
    Failure::new(NVEMBED_INVALID_ARGUMENT, format!("{what} must be an {values} constant, got {value}"))
}

/// Creates model options with their defaults.
///
/// Thread-safe.
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

/// Closes options. NULL is allowed. Models that were opened with them are not affected.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_model_options_free(options: *mut nvembed_model_options) -> nvembed_code {
    // SAFETY: NULL, so nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(options)) }
}

/// Where the model runs: "cpu" (the default), "cuda", "tensorrt", "nv-tensorrt-rtx" or "openvino"; or, together with
/// nvembed_model_options_set_provider_library(), the name that a plugin gives its provider. If the provider is not known or
/// cannot be used, opening the model fails; it never runs on the CPU instead.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_provider(
    options: *mut nvembed_model_options,
    name: *const c_char,
    name_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `name` points to `name_length` bytes, `error` is NULL or may be written.
    unsafe {
        let provider = || Ok(memory::text("the provider's name", name, name_length)?.parse()?);
        set(options, error, |options| &mut options.provider, provider)
    }
}

/// The ONNX Runtime library to load, a file or a folder. Not set, or of length 0: nvembed searches for it, as
/// docs/guides/c-and-cpp.md describes. A process loads one library: to name another one later is an error when a model opens.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_library(
    options: *mut nvembed_model_options,
    path: *const c_char,
    path_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `path` points to `path_length` bytes, `error` is NULL or may be written.
    unsafe {
        let library = || memory::path("the library's path", path, path_length);
        set(options, error, |options| &mut options.library, library)
    }
}

/// The plugin that has the provider: the file of a library that is registered with ONNX Runtime. Not set, or of length 0: for
/// nv-tensorrt-rtx, nvembed searches for the one of its PyPI package, as docs/guides/c-and-cpp.md describes. Only for
/// providers that come as plugins.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_provider_library(
    options: *mut nvembed_model_options,
    path: *const c_char,
    path_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `path` points to `path_length` bytes, `error` is NULL or may be written.
    unsafe {
        let library = || memory::path("the plugin's path", path, path_length);
        set(options, error, |options| &mut options.provider_library, library)
    }
}

/// Threads per run, 1 to 1,024. 0, the default: one per physical core that the process may use. CPU and OpenVINO only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_intra_threads(
    options: *mut nvembed_model_options,
    threads: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.intra_threads, || Ok(unless_0(threads))) }
}

/// Whether (not 0) to compare the SHA-256 of every file with the manifest, which reads the whole model. Default: 0.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_verify_hashes(
    options: *mut nvembed_model_options,
    verify_hashes: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.verify_hashes, || Ok(verify_hashes != 0)) }
}

/// Whether (not 0) to run the golden rows of the model folder when a model opens, alone and in one batch, and to refuse to open
/// when an embedding is wrong. That is done once for each model, library, machine and options. Default: 1.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_self_check(
    options: *mut nvembed_model_options,
    self_check: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.self_check, || Ok(self_check != 0)) }
}

/// The folder where the command `nvembed prepare` stores optimized graphs and TensorRT engines, and where nvembed_model_open()
/// looks for them and remembers that it checked a model. Not set, or of length 0: the folder `cache` in the model folder.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_cache(
    options: *mut nvembed_model_options,
    path: *const c_char,
    path_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `path` points to `path_length` bytes, `error` is NULL or may be written.
    unsafe {
        let cache = || memory::path("the cache's path", path, path_length);
        set(options, error, |options| &mut options.cache, cache)
    }
}

/// Whether (not 0) all threads rearrange the weights for the processor when a model opens. That is faster, but until it is
/// done resident memory shows up to twice the model. Default: 0. CPU only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_parallel_prepacking(
    options: *mut nvembed_model_options,
    parallel_prepacking: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.parallel_prepacking, || Ok(parallel_prepacking != 0)) }
}

/// Whether (not 0) to return the memory of each node of the graph to the system as soon as it is free. That is slower, and a
/// text of many thousand tokens takes about a third less memory. Default: 0. CPU only.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_model_options_set_low_memory(
    options: *mut nvembed_model_options,
    low_memory: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.low_memory, || Ok(low_memory != 0)) }
}

/// Creates call options with their defaults.
///
/// Thread-safe.
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

/// Closes options. NULL is allowed. A call uses the options as they were when it started.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_embed_options_free(options: *mut nvembed_embed_options) -> nvembed_code {
    // SAFETY: NULL, so nothing is written.
    unsafe { guard(std::ptr::null_mut(), || handle::close(options)) }
}

/// The longest row in tokens, including `<s>`, the instruction and `</s>`: 1 to nvembed_model_max_length(). 0, the default:
/// the model's own limit. The call that uses the options checks this and the other ranges.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_max_length(
    options: *mut nvembed_embed_options,
    max_length: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.embed.max_length, || Ok(unless_0(max_length))) }
}

/// What happens to a text that is too long: an NVEMBED_TRUNCATION_... constant.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_truncation(
    options: *mut nvembed_embed_options,
    truncation: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    let value = || match truncation {
        NVEMBED_TRUNCATION_REFERENCE => Ok(Truncation::Reference),
        NVEMBED_TRUNCATION_KEEP_EOS => Ok(Truncation::KeepEos),
        NVEMBED_TRUNCATION_ERROR => Ok(Truncation::Error),
        NVEMBED_TRUNCATION_START => Ok(Truncation::Start),
        other => Err(unknown("truncation", "NVEMBED_TRUNCATION", other)),
    };
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.embed.truncation, value) }
}

/// How special tokens written in a prompt are read: an NVEMBED_SPECIAL_TOKENS_... constant.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_special_tokens(
    options: *mut nvembed_embed_options,
    special_tokens: i32,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    let value = || match special_tokens {
        NVEMBED_SPECIAL_TOKENS_PARSE => Ok(SpecialTokens::Parse),
        NVEMBED_SPECIAL_TOKENS_LITERAL => Ok(SpecialTokens::Literal),
        other => Err(unknown("special_tokens", "NVEMBED_SPECIAL_TOKENS", other)),
    };
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.embed.special_tokens, value) }
}

/// The most padded tokens per batch, rows x longest row: 1 to 1,048,576. Default: 1,024 on the CPU, 4,096 on a GPU. A single
/// longer row runs in a batch of its own.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_max_batch_tokens(
    options: *mut nvembed_embed_options,
    max_batch_tokens: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.embed.max_batch_tokens, || Ok(Some(max_batch_tokens))) }
}

/// The most rows per batch: 1 to 8,192. Default: 256.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_max_batch_size(
    options: *mut nvembed_embed_options,
    max_batch_size: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.embed.max_batch_size, || Ok(max_batch_size)) }
}

/// How many of the embedding's numbers are returned: the first ones, brought back to unit length. 1 to nvembed_model_dimension();
/// 0, the default: all. It takes the place of the dimension in nvembed_output. NV-Embed was not trained for it, so measure what
/// it costs on your texts.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_dimensions(
    options: *mut nvembed_embed_options,
    dimensions: usize,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.embed.dimensions, || Ok(unless_0(dimensions))) }
}

/// The most time that a call may take, in milliseconds from its start; it then fails with NVEMBED_DEADLINE_EXCEEDED. 0, the
/// default: no deadline. It is checked where cancellation is, except that a run on the CPU that has started finishes first.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvembed_embed_options_set_deadline(
    options: *mut nvembed_embed_options,
    milliseconds: u64,
    error: *mut *mut nvembed_error,
) -> nvembed_code {
    let deadline = || Ok(unless_0(milliseconds).map(Duration::from_millis));
    // SAFETY: `error` is NULL or may be written.
    unsafe { set(options, error, |options| &mut options.deadline, deadline) }
}
