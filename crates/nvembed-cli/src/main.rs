//! The `nvembed` command line program: dispatch and exit codes. Each command is a file in `cli/`.

mod cli;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, exit};

fn main() -> ExitCode {
    let arguments = Cli::parse();
    cli::log::start(arguments.verbose);
    let outcome = match arguments.command {
        Command::Embed(arguments) => cli::embed::run(arguments),
        Command::Score(arguments) => cli::score::run(arguments),
        Command::Inspect(arguments) => cli::inspect::run(arguments),
        Command::Verify(arguments) => cli::verify::run(arguments),
        Command::Bench(arguments) => cli::bench::run(arguments),
        Command::Prepare(arguments) => cli::prepare::run(arguments),
        Command::Doctor(arguments) => cli::doctor::run(arguments),
    };
    exit::report(outcome)
}
