//! The versions of the interface and of the library.

use std::ffi::c_char;

/// The version of the interface in this header; compare it with nvembed_abi_version().
///
/// Each addition raises it by one. Nothing is removed or changed as long as the shared library is libnvembed.so.0.
pub const NVEMBED_ABI_VERSION: u32 = 3;

/// Returns the interface version of the library. The library implements all headers of this version and older.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_abi_version() -> u32 {
    NVEMBED_ABI_VERSION
}

/// Returns the version of the library, for example "0.1.0": a constant; do not free it.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn nvembed_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
