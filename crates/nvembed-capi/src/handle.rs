//! Handles: odd numbers passed as pointers, looked up in a table of what is open.
//!
//! A number is never used twice and never dereferenced, so the table detects a handle that is closed, of another type, or a
//! pointer to something else (objects have even addresses). A call keeps what it uses alive through an `Arc`: closing a handle
//! in another thread removes it from the table, and the last call frees it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::codes::NVEMBED_INVALID_HANDLE;
use crate::error::Failure;

/// The number of the next handle, of any type.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// The open handles of one type.
pub(crate) struct Table<T> {
    open: RwLock<BTreeMap<usize, Arc<T>>>,
}

/// A type that C sees only as a pointer.
pub(crate) trait Handle: Sized + 'static {
    /// What the handle stands for.
    type Value: Send + Sync;
    /// The name of the C type.
    const NAME: &'static str;
    /// The open handles of this type.
    fn table() -> &'static Table<Self::Value>;
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self { open: RwLock::new(BTreeMap::new()) }
    }
}

/// Opens a handle for a value.
pub(crate) fn insert<H: Handle>(value: H::Value) -> *mut H {
    let number = NEXT.fetch_add(2, Ordering::Relaxed);
    H::table().open.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(value));
    std::ptr::without_provenance_mut(number)
}

/// The value of a handle, which lives at least as long as the `Arc`.
pub(crate) fn get<H: Handle>(handle: *const H) -> Result<Arc<H::Value>, Failure> {
    let open = H::table().open.read().unwrap_or_else(PoisonError::into_inner);
    open.get(&handle.addr()).map(Arc::clone).ok_or_else(|| invalid(handle))
}

/// Closes a handle; NULL is allowed. The value is freed here, or by the last call that uses it.
pub(crate) fn close<H: Handle>(handle: *const H) -> Result<(), Failure> {
    if handle.is_null() {
        return Ok(());
    }
    // The value is dropped after the lock is released: dropping a model takes a while.
    take(handle).map(drop)
}

/// Closes a handle that is not NULL, and returns its value.
pub(crate) fn take<H: Handle>(handle: *const H) -> Result<Arc<H::Value>, Failure> {
    let value = H::table().open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.addr());
    value.ok_or_else(|| invalid(handle))
}

fn invalid<H: Handle>(handle: *const H) -> Failure {
    let what = if handle.is_null() { "NULL" } else { "closed, or not a handle of this type" };
    Failure::new(NVEMBED_INVALID_HANDLE, format!("the {} handle is {what}", H::NAME))
}
