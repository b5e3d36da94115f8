//! The program as a user calls it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod bad_input;
mod bench;
mod bench_report;
#[path = "../../../../tests/common/mod.rs"]
mod common;
mod corpus;
mod deploy;
mod eval;
#[cfg(target_os = "linux")]
mod gpu;
mod openvino;
mod outputs;
mod performance_tables;
mod prepare;
mod program;
#[cfg(unix)]
mod serve;

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// The program, without what the caller's environment would change about it.
fn nvembed() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvembed"));
    command.current_dir(common::root()).env_remove("NVEMBED_MODEL").env_remove("RUST_LOG");
    command
}

/// Runs the program with `input` on stdin.
fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nvembed starts");
    // A program that fails early closes its end, which is its right.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Makes the program start with signals as a terminal's foreground job has them, however the tests themselves were started: a
/// background job of a script ignores SIGINT, and so would every program that it starts.
#[cfg(unix)]
fn as_in_the_foreground(command: &Command) -> Command {
    // `env` resets what was ignored; the shell cannot, for a signal that was ignored when it started.
    let mut reset = Command::new("env");
    reset.arg("--default-signal=INT,TERM,HUP").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => reset.env(name, value),
            None => reset.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        reset.current_dir(folder);
    }
    reset
}
