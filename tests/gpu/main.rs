//! The GPU path on the CUDA shim. No kernel runs, so nothing here is about results or speed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "skipped tests are printed")]
#![allow(unsafe_code, reason = "device memory is known by its address only")]
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod device_rows;
mod failures;
mod graphs;
mod packed;
mod runs;
