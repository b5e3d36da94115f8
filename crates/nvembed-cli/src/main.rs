//! The command line program `nvembed`: dispatch and exit codes. Each command is a file in `commands/`.

mod arguments;
mod commands;
mod exit;
mod io;
mod log;
mod progress;
mod similarity;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Run NVIDIA NV-Embed text-embedding models on ONNX Runtime.
#[derive(Debug, Parser)]
#[command(name = "nvembed", version, max_term_width = 110, after_help = exit::HELP)]
struct Cli {
    /// Increase verbosity (-vv for library messages); RUST_LOG overrides.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Embed texts from files or stdin, one per line.
    Embed(commands::embed::Arguments),
    /// Embed a corpus of any size into Parquet files, in jobs that can be killed, resumed and shared between machines.
    Corpus(Box<commands::corpus::Arguments>),
    /// Print the similarity of each query to each passage.
    Score(commands::score::Arguments),
    /// Describe a model folder, the ONNX Runtime library and this machine.
    Inspect(commands::inspect::Arguments),
    /// Evaluate retrieval on your own queries, and what smaller embeddings cost there.
    Eval(commands::eval::Arguments),
    /// Compare a model's embeddings with known ones.
    Verify(commands::verify::Arguments),
    /// Benchmark throughput and latency; embeddings are verified first.
    Bench(commands::bench::Arguments),
    /// Optimize a model for this machine so that it opens faster and processes share its weights.
    Prepare(commands::prepare::Arguments),
    /// Serve a model over HTTP, to the clients of OpenAI, NVIDIA NIM and text-embeddings-inference.
    Serve(commands::serve::Arguments),
    /// Check the library, driver, GPUs and model, and report what is wrong.
    Doctor(commands::doctor::Arguments),
}

fn main() -> ExitCode {
    let program = Cli::command();
    let matches = program.clone().get_matches();
    if let Some(command) = matches.subcommand_name().and_then(|name| program.find_subcommand(name)) {
        arguments::keep_flags(command);
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match &cli.command {
        Command::Serve(arguments) => log::start_server(cli.verbose, arguments.log_format),
        _ => log::start(cli.verbose),
    }
    let outcome = match cli.command {
        Command::Embed(arguments) => commands::embed::run(arguments),
        Command::Corpus(arguments) => commands::corpus::run(*arguments),
        Command::Score(arguments) => commands::score::run(arguments),
        Command::Inspect(arguments) => commands::inspect::run(arguments),
        Command::Eval(arguments) => commands::eval::run(arguments),
        Command::Verify(arguments) => commands::verify::run(arguments),
        Command::Bench(arguments) => commands::bench::run(arguments),
        Command::Prepare(arguments) => commands::prepare::run(arguments),
        Command::Serve(arguments) => commands::serve::run(arguments),
        Command::Doctor(arguments) => commands::doctor::run(arguments),
    };
    exit::report(outcome)
}
