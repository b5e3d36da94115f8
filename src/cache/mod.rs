//! What is made once from a model for a machine, and kept.

mod prepared;
mod store;

pub(crate) use prepared::{Entry, Place, target_gpu};
