//! The C ABI of nvembed. `include/nvembed.h` is generated from these modules; docs/guides/c-and-cpp.md is their contract.
//!
//! Every function goes through `guard`, which turns a failure into a code and an error object, and catches panics. Handles
//! are numbers, looked up in a table and never dereferenced, so that a closed or foreign handle is an error.
//!
//! These functions are for C. From Rust, use the crate `nvembed`.
#![expect(unsafe_code, reason = "pointers from C, trusted only as far as the contract says")]
#![allow(non_camel_case_types, reason = "these are the names in the C header")]
#![allow(clippy::missing_safety_doc, reason = "the contract states the rules for pointers once, for all functions")]

mod cancel;
mod codes;
mod embed;
mod error;
mod gpu_options;
mod guard;
mod handle;
mod log;
mod memory;
mod model;
mod names;
mod on_device;
mod options;
mod version;

pub use cancel::*;
pub use codes::*;
pub use embed::*;
pub use error::*;
pub use gpu_options::*;
pub use log::*;
pub use model::*;
pub use on_device::*;
pub use options::*;
pub use version::*;

use guard::guard;

#[cfg(test)]
mod tests;
