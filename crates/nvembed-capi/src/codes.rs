//! The numbers of the interface. New ones are added; none is ever changed or reused.

use std::ffi::c_char;

/// What a call returns: NVEMBED_OK, or the reason why it failed. Later versions may return codes that are not listed here.
pub type nvembed_code = i32;

/// Success.
pub const NVEMBED_OK: i32 = 0;
/// No usable ONNX Runtime library: none found, not loadable, or too old. The message lists the places searched.
pub const NVEMBED_LIBRARY: i32 = 1;
/// The execution provider is not in the library, could not be started, or cannot run this model.
pub const NVEMBED_PROVIDER: i32 = 2;
/// The model folder is missing, incomplete, damaged, or of another schema version.
pub const NVEMBED_MODEL: i32 = 3;
/// A prompt cannot be embedded: for example, its instruction fills the whole row and nothing is left to pool.
pub const NVEMBED_INPUT: i32 = 4;
/// A prompt is longer than the limit and truncation is off, or too long for the provider to hold its attention scores.
pub const NVEMBED_TOO_LONG: i32 = 5;
/// An option is out of range, or the provider ignores it.
pub const NVEMBED_OPTION: i32 = 6;
/// ONNX Runtime failed during a run, or returned something that is not an embedding.
pub const NVEMBED_INFERENCE: i32 = 7;
/// The call was cancelled.
pub const NVEMBED_CANCELLED: i32 = 8;
/// The cache folder cannot be written.
pub const NVEMBED_CACHE: i32 = 9;
/// A GPU failed: out of memory, a driver error, or an error that makes the device unusable until the process restarts.
pub const NVEMBED_DEVICE: i32 = 10;
/// The call's deadline passed before it finished.
pub const NVEMBED_DEADLINE_EXCEEDED: i32 = 11;
/// A queue has no room for the request, or too much waits before it to meet its deadline.
pub const NVEMBED_OVERLOADED: i32 = 12;
/// A queue was closed: it takes no more requests, or ended before this one ran.
pub const NVEMBED_CLOSED: i32 = 13;
/// The system refused what the process needs: a thread, a file descriptor, memory, or /proc. Handles stay usable; the same call
/// may succeed later, or with a higher limit.
pub const NVEMBED_SYSTEM: i32 = 14;
/// The handle is NULL, closed, of another type, or not a handle at all.
pub const NVEMBED_INVALID_HANDLE: i32 = 100;
/// A required pointer is NULL.
pub const NVEMBED_NULL_POINTER: i32 = 101;
/// An argument is invalid: a misaligned pointer, an impossible length, or an unknown constant.
pub const NVEMBED_INVALID_ARGUMENT: i32 = 102;
/// A string is not valid UTF-8.
pub const NVEMBED_INVALID_UTF8: i32 = 103;
/// The caller's buffer is too small; the message says how large it must be.
pub const NVEMBED_BUFFER_TOO_SMALL: i32 = 104;
/// The struct_size of a struct is not one that this library knows: it was not set, or the header is newer than the library.
pub const NVEMBED_STRUCT_SIZE: i32 = 105;
/// A function was called from inside the log callback.
pub const NVEMBED_IN_CALLBACK: i32 = 106;
/// A bug in nvembed. The call ended; all handles are still valid.
pub const NVEMBED_INTERNAL: i32 = 199;

/// Returns the name of a code, for example "NVEMBED_MODEL", or "unknown code": a constant; do not free it.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_code_name(code: nvembed_code) -> *const c_char {
    let name = match code {
        NVEMBED_OK => c"NVEMBED_OK",
        NVEMBED_LIBRARY => c"NVEMBED_LIBRARY",
        NVEMBED_PROVIDER => c"NVEMBED_PROVIDER",
        NVEMBED_MODEL => c"NVEMBED_MODEL",
        NVEMBED_INPUT => c"NVEMBED_INPUT",
        NVEMBED_TOO_LONG => c"NVEMBED_TOO_LONG",
        NVEMBED_OPTION => c"NVEMBED_OPTION",
        NVEMBED_INFERENCE => c"NVEMBED_INFERENCE",
        NVEMBED_CANCELLED => c"NVEMBED_CANCELLED",
        NVEMBED_CACHE => c"NVEMBED_CACHE",
        NVEMBED_DEVICE => c"NVEMBED_DEVICE",
        NVEMBED_DEADLINE_EXCEEDED => c"NVEMBED_DEADLINE_EXCEEDED",
        NVEMBED_OVERLOADED => c"NVEMBED_OVERLOADED",
        NVEMBED_CLOSED => c"NVEMBED_CLOSED",
        NVEMBED_SYSTEM => c"NVEMBED_SYSTEM",
        NVEMBED_INVALID_HANDLE => c"NVEMBED_INVALID_HANDLE",
        NVEMBED_NULL_POINTER => c"NVEMBED_NULL_POINTER",
        NVEMBED_INVALID_ARGUMENT => c"NVEMBED_INVALID_ARGUMENT",
        NVEMBED_INVALID_UTF8 => c"NVEMBED_INVALID_UTF8",
        NVEMBED_BUFFER_TOO_SMALL => c"NVEMBED_BUFFER_TOO_SMALL",
        NVEMBED_STRUCT_SIZE => c"NVEMBED_STRUCT_SIZE",
        NVEMBED_IN_CALLBACK => c"NVEMBED_IN_CALLBACK",
        NVEMBED_INTERNAL => c"NVEMBED_INTERNAL",
        _ => c"unknown code",
    };
    name.as_ptr()
}
