//! Running batches: on the host in the caller's thread, or on GPUs with a worker thread each.

mod call;
mod executor;
pub(crate) mod gpu;
mod host;
mod opening;

pub(crate) use call::Call;
pub(crate) use executor::{Executor, Submitted};
pub(crate) use host::Arena;
pub(crate) use opening::Opening;
