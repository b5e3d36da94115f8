//! Handles: odd numbers in the guise of pointers, looked up in a table of what is open.
//!
//! A number is never given out twice and never dereferenced, so a handle that was closed, belongs to another type, or is
//! some other pointer (those of objects are even) is found out. A call holds what it uses by an `Arc`: closing a handle in
//! another thread takes it out of the table, and the last call frees it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::codes::NVEMBED_INVALID_HANDLE;
use super::error::Failure;

/// The next number for a handle of any type.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// What is open of one type.
pub(super) struct Table<T> {
    open: RwLock<BTreeMap<usize, Arc<T>>>,
}

/// A type of handle: what C sees a pointer to.
pub(super) trait Handle: Sized + 'static {
    /// What stands behind it.
    type Value: Send + Sync;
    /// The name of the C type.
    const NAME: &'static str;
    /// All that is open.
    fn table() -> &'static Table<Self::Value>;
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self { open: RwLock::new(BTreeMap::new()) }
    }
}

/// A new handle for a value.
pub(super) fn insert<H: Handle>(value: H::Value) -> *mut H {
    let number = NEXT.fetch_add(2, Ordering::Relaxed);
    H::table().open.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(value));
    std::ptr::without_provenance_mut(number)
}

/// What a handle stands for, kept for as long as the caller holds it.
pub(super) fn get<H: Handle>(handle: *const H) -> Result<Arc<H::Value>, Failure> {
    let open = H::table().open.read().unwrap_or_else(PoisonError::into_inner);
    open.get(&handle.addr()).map(Arc::clone).ok_or_else(|| invalid(handle))
}

/// Closes a handle; NULL is none and fine. What it stood for is freed here, or by the last call that still uses it.
pub(super) fn close<H: Handle>(handle: *const H) -> Result<(), Failure> {
    if handle.is_null() {
        return Ok(());
    }
    // The lock is released before the value is dropped: a model takes a while.
    take(handle).map(drop)
}

/// Closes a handle that is not NULL, and returns what it stood for.
pub(super) fn take<H: Handle>(handle: *const H) -> Result<Arc<H::Value>, Failure> {
    let value = H::table().open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.addr());
    value.ok_or_else(|| invalid(handle))
}

fn invalid<H: Handle>(handle: *const H) -> Failure {
    let what = if handle.is_null() { "NULL" } else { "closed, or was never one" };
    Failure::new(NVEMBED_INVALID_HANDLE, format!("the {} handle is {what}", H::NAME))
}
