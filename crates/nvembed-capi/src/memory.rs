//! The caller's memory. What can be checked about a pointer is checked here; the rest is the caller's promise.

use std::ffi::c_char;
use std::fmt::Display;
use std::path::PathBuf;

use crate::codes::{NVEMBED_BUFFER_TOO_SMALL, NVEMBED_INVALID_ARGUMENT, NVEMBED_INVALID_UTF8, NVEMBED_NULL_POINTER};
use crate::error::Failure;

/// Checks a pointer before it is read or written through.
pub(crate) fn check<T>(name: impl Display, pointer: *const T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::new(NVEMBED_NULL_POINTER, format!("{name} is NULL")));
    }
    if !pointer.is_aligned() {
        let message = format!("{name} must be aligned to {} bytes", align_of::<T>());
        return Err(Failure::new(NVEMBED_INVALID_ARGUMENT, message));
    }
    Ok(())
}

/// Writes a result.
///
/// # Safety
/// `pointer`, unless it is NULL or misaligned, may be written.
pub(crate) unsafe fn write<T>(name: impl Display, pointer: *mut T, value: T) -> Result<(), Failure> {
    check(name, pointer)?;
    // SAFETY: not NULL and aligned; writable by the caller's promise.
    unsafe { pointer.write(value) };
    Ok(())
}

/// The caller's array. NULL is allowed if it is empty.
///
/// # Safety
/// `pointer`, unless it is NULL or misaligned, points to `count` values that nobody writes during `'a`.
pub(crate) unsafe fn slice<'a, T>(
    name: impl Display + Copy,
    pointer: *const T,
    count: usize,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check(name, pointer)?;
    let most = isize::MAX as usize / size_of::<T>();
    if count > most {
        let message = format!("the length of {name} must be at most {most}, got {count}");
        return Err(Failure::new(NVEMBED_INVALID_ARGUMENT, message));
    }
    // SAFETY: not NULL, aligned, of a possible size; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// A copy of the caller's array.
///
/// # Safety
/// As [`slice`].
pub(crate) unsafe fn list<T: Copy>(
    name: impl Display + Copy,
    pointer: *const T,
    count: usize,
) -> Result<Vec<T>, Failure> {
    // SAFETY: as this function's.
    Ok(unsafe { slice(name, pointer, count)? }.to_vec())
}

/// The caller's string.
///
/// # Safety
/// As [`slice`].
pub(crate) unsafe fn text<'a>(
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

/// The caller's path; `None` if it is empty.
///
/// # Safety
/// As [`slice`].
pub(crate) unsafe fn path(
    name: impl Display + Copy,
    pointer: *const c_char,
    length: usize,
) -> Result<Option<PathBuf>, Failure> {
    // SAFETY: as this function's.
    let path = unsafe { text(name, pointer, length)? };
    Ok((!path.is_empty()).then(|| PathBuf::from(path)))
}

/// Copies a string and a NUL to the caller's buffer, and writes its length without the NUL to `*length`. With a NULL buffer
/// only the length is written.
///
/// # Safety
/// `buffer`, unless it is NULL, points to `capacity` bytes that may be written, and `length`, unless it is NULL, to a
/// number that may be.
pub(crate) unsafe fn copy_out(
    string: &str,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> Result<(), Failure> {
    if !length.is_null() {
        // SAFETY: as this function's.
        unsafe { write("length", length, string.len())? };
    } else if buffer.is_null() {
        return Err(Failure::new(NVEMBED_NULL_POINTER, "buffer and length are both NULL; pass at least one"));
    }
    if buffer.is_null() {
        return Ok(());
    }
    let needed = string.len() + 1;
    if capacity < needed {
        let message = format!("the buffer must have at least {needed} bytes, got {capacity}");
        return Err(Failure::new(NVEMBED_BUFFER_TOO_SMALL, message));
    }
    // SAFETY: the buffer has at least `needed` bytes, by the check and the caller's promise. `copy` allows any overlap.
    unsafe {
        std::ptr::copy(string.as_ptr(), buffer.cast(), string.len());
        buffer.add(string.len()).write(0);
    }
    Ok(())
}
