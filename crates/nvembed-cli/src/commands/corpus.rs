//! `nvembed corpus`: embeddings of a corpus in Parquet, by jobs that resume.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use nvembed::model::Manifest;
use nvembed::{Dtype, Embedder, Prompt};
use nvembed_corpus::{Compression, CorpusOptions, Format, Job, OnError, Shard, Status, skipped_rows};
use serde_json::json;

use crate::arguments::{EmbedArguments, ModelArguments, parse, parse_corpus};
use crate::exit::CliError;
use crate::io::{interrupt, print};
use crate::progress::Reporter;

/// Embed a corpus of any size into Parquet files, in jobs that can be killed, resumed and shared between machines.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "The same command resumes a job that ended early. A folder takes one corpus: another model, option or input is
refused.

Examples:
  nvembed corpus -m MODEL --input docs/*.parquet --text body --id doc_id --out embeddings
  nvembed corpus -m MODEL --input docs.jsonl --out embeddings --shard 3/8     (the fourth of eight machines)
  nvembed corpus status embeddings"
)]
pub(crate) struct Arguments {
    // First, since the action is then taken out of what clap found.
    #[command(flatten)]
    job: UnlessAction,
    #[command(subcommand)]
    action: Option<Action>,
}

/// The arguments of a job, which are there unless there is an action. clap would take an
/// `Option<JobArguments>` for absent even when they are given.
#[derive(Debug)]
struct UnlessAction(Option<JobArguments>);

impl clap::FromArgMatches for UnlessAction {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let job = matches.subcommand_name().is_none().then(|| JobArguments::from_arg_matches(matches));
        job.transpose().map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for UnlessAction {
    fn augment_args(command: clap::Command) -> clap::Command {
        JobArguments::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        JobArguments::augment_args_for_update(command)
    }
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say what is done and what is missing. Exit code 0 only for a complete corpus.
    Status {
        /// The folder of the corpus.
        folder: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read every part and compare it with what was written. Exit code 0 only for a complete corpus without damage.
    Verify {
        /// The folder of the corpus.
        folder: PathBuf,
    },
    /// Print the rows that --on-error skip left without an embedding, as JSON lines.
    Errors {
        /// The folder of the corpus.
        folder: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct JobArguments {
    /// Files with the texts: Parquet, JSON lines, or lines.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    input: Vec<PathBuf>,
    /// Folder for the manifest and the parts.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What the files hold: parquet, jsonl or lines. auto goes by their names.
    #[arg(long, value_name = "FORMAT", default_value_t, value_parser = parse_corpus::<Format>)]
    format: Format,
    /// Column or field with the text.
    #[arg(long, value_name = "FIELD", default_value = "text")]
    text: String,
    /// Column or field with the identifier, an integer or a string. Default: id where the input has it, otherwise rows are
    /// numbered from 0.
    #[arg(long, value_name = "FIELD")]
    id: Option<String>,
    /// Column or field with a literal instruction for each text.
    #[arg(long, value_name = "FIELD")]
    instruction_field: Option<String>,
    /// Task of the texts, in one English sentence; sets the instruction "Instruct: {task}\nQuery: ". Documents have none.
    #[arg(long, value_name = "SENTENCE", conflicts_with = "instruction")]
    task: Option<String>,
    /// Literal instruction for texts that have none of their own.
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Element type of the embeddings: f32; f16; int8, with a column of scales; or binary, eight signs a byte.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = parse::<Dtype>)]
    dtype: Dtype,
    /// Rows of a part, which is what an interruption costs.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    shard_rows: u64,
    /// Make only every N-th part, beginning with part I, from 0: the share of one of N processes, here or on other machines.
    #[arg(long, value_name = "I/N", default_value_t, value_parser = parse_corpus::<Shard>)]
    shard: Shard,
    /// What happens to a record that cannot be embedded: stop ends the job and names it; skip writes a null embedding and the
    /// reason.
    #[arg(long, value_name = "WHAT", default_value_t, value_parser = parse_corpus::<OnError>)]
    on_error: OnError,
    /// Compression of the columns: zstd or none.
    #[arg(long, value_name = "CODEC", default_value_t, value_parser = parse_corpus::<Compression>)]
    compression: Compression,
    /// Also write the SHA-256 of each text.
    #[arg(long)]
    text_hash: bool,
    /// Embed a text that comes more than once in a part once.
    #[arg(long)]
    dedupe: bool,
    /// Remove a corpus that is already in the folder.
    #[arg(long)]
    start_over: bool,
    /// Plan the job, say how large it is, and stop. The model is not opened.
    #[arg(long)]
    plan: bool,
    /// Texts read at a time: a larger window fills batches better.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    window: usize,
    /// No progress and no summary.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    embed: EmbedArguments,
    #[command(flatten)]
    model: ModelArguments,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match (arguments.action, arguments.job.0) {
        (Some(Action::Status { folder, json }), _) => status(&folder, json),
        (Some(Action::Verify { folder }), _) => verify(&folder),
        (Some(Action::Errors { folder }), _) => errors(&folder),
        (None, Some(job)) => embed(job),
        (None, None) => Err(CliError::Usage("there is nothing to do: see --help".to_owned()).into()),
    }
}

fn embed(arguments: JobArguments) -> anyhow::Result<()> {
    let mut options = CorpusOptions::new(arguments.input, arguments.out);
    options.embed = arguments.embed.options();
    options.embed.dtype = arguments.dtype;
    options.embed.window = arguments.window;
    options.format = arguments.format;
    options.text = arguments.text;
    options.id = arguments.id;
    options.instruction_field = arguments.instruction_field;
    let instruction = arguments.task.map(|task| Prompt::instruction_for(&task)).or(arguments.instruction);
    options.instruction = instruction.unwrap_or_default();
    options.shard_rows = arguments.shard_rows;
    options.shard = arguments.shard;
    options.on_error = arguments.on_error;
    options.compression = arguments.compression;
    options.text_hash = arguments.text_hash;
    options.dedupe = arguments.dedupe;
    options.start_over = arguments.start_over;
    interrupt::watch()?;
    let (folder, model_options) = arguments.model.resolve();
    // A folder with another corpus is refused before the model is opened, which may take minutes.
    let mut job = Job::open(options, &Manifest::open(&folder)?, &model_options.provider.to_string())?;
    let mut reporter = Reporter::new(arguments.quiet, &job);
    reporter.plan(&job);
    if arguments.plan || job.missing().is_empty() {
        return Ok(());
    }
    let embedder = Embedder::open(folder, &model_options)?;
    if !arguments.quiet
        && let Some(estimate) = job.estimate(&embedder)?
    {
        reporter.estimate(&estimate, job.manifest());
    }
    let progress = job.run(&embedder, &mut reporter);
    reporter.finish(progress.as_ref().ok());
    progress?;
    Ok(())
}

fn status(folder: &Path, as_json: bool) -> anyhow::Result<()> {
    let status = Status::of(folder)?;
    let (parts, rows) = (status.manifest.parts(), status.manifest.rows());
    let seconds = status.time_left.map(|time| time.as_secs());
    let text = if as_json {
        let damaged: Vec<_> = status.damaged.iter().map(|(part, _)| status.name_of(*part)).collect();
        let value = json!({
            "complete": status.is_complete(), "parts": parts, "parts_done": status.done.len(), "rows": rows,
            "rows_done": status.rows_done, "missing": status.missing, "damaged": damaged, "seconds_left": seconds,
        });
        format!("{value}\n")
    } else {
        let mut text = format!("{} of {parts} parts, {} of {rows} rows\n", status.done.len(), status.rows_done);
        for (part, reason) in &status.damaged {
            text.push_str(&format!("{} is damaged and will be made again: {reason}\n", status.name_of(*part)));
        }
        if let (Some(seconds), false) = (seconds, status.is_complete()) {
            text.push_str(&format!("{} left, at the pace of the parts that are there\n", indicatif_time(seconds)));
        }
        text
    };
    print(&text)?;
    complete(folder, &status)
}

fn indicatif_time(seconds: u64) -> String {
    indicatif::HumanDuration(std::time::Duration::from_secs(seconds)).to_string()
}

fn verify(folder: &Path) -> anyhow::Result<()> {
    let status = Status::verify(folder, &mut |path| tracing::info!("reading {}", path.display()))?;
    let mut text = String::new();
    for (part, reason) in &status.damaged {
        text.push_str(&format!("{}: {reason}\n", status.name_of(*part)));
    }
    text.push_str(&format!("{} parts with {} rows are as they were written\n", status.done.len(), status.rows_done));
    print(&text)?;
    complete(folder, &status)
}

/// # Errors
/// [`CliError::Verify`] unless all parts are there and whole.
fn complete(folder: &Path, status: &Status) -> anyhow::Result<()> {
    if status.is_complete() {
        return Ok(());
    }
    let (missing, damaged) = (status.missing.len(), status.damaged.len());
    let folder = folder.display();
    Err(CliError::Verify(format!("{folder} is incomplete: {missing} parts are missing and {damaged} are damaged"))
        .into())
}

fn errors(folder: &Path) -> anyhow::Result<()> {
    skipped_rows(folder, |row| {
        let line = format!("{}\n", serde_json::to_string(&row).unwrap_or_default());
        print(&line).map_err(|error| match error {
            CliError::Output { what, source } => nvembed_corpus::Error::Output { what, source },
            other => nvembed_corpus::Error::Incomplete(other.to_string()),
        })
    })?;
    Ok(())
}
