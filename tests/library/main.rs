//! The library as a service uses it, on the mini model and on random models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "figures of numeric tests are printed")]

#[path = "../common/mod.rs"]
mod common;
mod embedder;
mod model_folder;
mod numerics;
mod prepare;
mod providers;
mod queue;
mod rescoring;
mod self_check;
mod tokens;
