//! The caller's memory: what can be checked of a pointer is checked here, the rest is the contract's.

use std::ffi::c_char;
use std::fmt::Display;

use super::codes::{NVEMBED_BUFFER_TOO_SMALL, NVEMBED_INVALID_ARGUMENT, NVEMBED_INVALID_UTF8, NVEMBED_NULL_POINTER};
use super::error::Failure;

/// Checks a pointer through which something is read or written.
pub(super) fn check<T>(name: impl Display, pointer: *const T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::new(NVEMBED_NULL_POINTER, format!("{name} is NULL")));
    }
    if !pointer.is_aligned() {
        let message = format!("{name} is not aligned to {} bytes", align_of::<T>());
        return Err(Failure::new(NVEMBED_INVALID_ARGUMENT, message));
    }
    Ok(())
}

/// Writes a result.
///
/// # Safety
/// `pointer`, unless it is NULL or misaligned, may be written.
pub(super) unsafe fn write<T>(name: impl Display, pointer: *mut T, value: T) -> Result<(), Failure> {
    check(name, pointer)?;
    // SAFETY: not NULL and aligned; writable by the caller's promise.
    unsafe { pointer.write(value) };
    Ok(())
}

/// An array of the caller's. NULL is an empty one.
///
/// # Safety
/// `pointer`, unless it is NULL or misaligned, points to `count` values that nobody writes during `'a`.
pub(super) unsafe fn slice<'a, T>(
    name: impl Display + Copy,
    pointer: *const T,
    count: usize,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check(name, pointer)?;
    if count > isize::MAX as usize / size_of::<T>() {
        let message = format!("the length of {name} is {count}, which no memory can hold");
        return Err(Failure::new(NVEMBED_INVALID_ARGUMENT, message));
    }
    // SAFETY: not NULL, aligned, of a possible size; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// A string of the caller's.
///
/// # Safety
/// As [`slice`].
pub(super) unsafe fn text<'a>(
    name: impl Display + Copy,
    pointer: *const c_char,
    length: usize,
) -> Result<&'a str, Failure> {
    // SAFETY: as this function's.
    let bytes = unsafe { slice(name, pointer.cast::<u8>(), length)? };
    std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("{name} is not valid UTF-8 at byte {}", error.valid_up_to() + 1);
        Failure::new(NVEMBED_INVALID_UTF8, message)
    })
}

/// Copies a string and a NUL to the caller's buffer; `*length` becomes its length without the NUL. A NULL buffer asks for
/// the length only.
///
/// # Safety
/// `buffer`, unless it is NULL, points to `capacity` bytes that may be written, and `length`, unless it is NULL, to a
/// number that may be.
pub(super) unsafe fn copy_out(
    string: &str,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> Result<(), Failure> {
    if !length.is_null() {
        // SAFETY: as this function's.
        unsafe { write("length", length, string.len())? };
    } else if buffer.is_null() {
        return Err(Failure::new(NVEMBED_NULL_POINTER, "buffer and length are both NULL: nothing is asked for"));
    }
    if buffer.is_null() {
        return Ok(());
    }
    let needed = string.len() + 1;
    if capacity < needed {
        let message = format!("the buffer has {capacity} bytes, {needed} are needed");
        return Err(Failure::new(NVEMBED_BUFFER_TOO_SMALL, message));
    }
    // SAFETY: the buffer has at least `needed` bytes, by the check and the caller's promise. `copy` allows any overlap.
    unsafe {
        std::ptr::copy(string.as_ptr(), buffer.cast(), string.len());
        buffer.add(string.len()).write(0);
    }
    Ok(())
}
