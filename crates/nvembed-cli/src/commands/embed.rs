//! `nvembed embed`: texts in, embeddings out.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nvembed::{Dtype, EmbedOptions, Embedder, ErrorKind, Stats};
use serde_json::value::RawValue;

use crate::arguments::{EmbedArguments, ModelArguments, flag, instruction, parse};
use crate::exit::CliError;
use crate::io::interrupt;
use crate::io::reader::{InputFormat, Reader, Record};
use crate::io::writer::{OutputFormat, Writer};

/// Embed texts from files or stdin, one per line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nvembed embed -m MODEL passages.txt -o passages.npy
  nvembed embed -m MODEL --task 'Find passages that answer the question' queries.txt
  printf '%s\\n' '{\"text\": \"a line\\nand another\", \"id\": 7}' | nvembed embed -m MODEL --format jsonl")]
pub(crate) struct Arguments {
    /// Files to read. Without one, or for -, reads stdin.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How a line holds a text.
    #[arg(long, value_enum, default_value = "auto")]
    format: InputFormat,
    /// Task of the queries, in one English sentence; sets the instruction "Instruct: {task}\nQuery: ".
    #[arg(long, value_name = "SENTENCE", conflicts_with = "instruction")]
    task: Option<String>,
    /// Literal instruction for texts that have none of their own.
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// File to write; it appears only once it is complete. Default, or for -: standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How embeddings are written.
    #[arg(long, value_enum, default_value = "auto")]
    output_format: OutputFormat,
    /// Element type: f32; f16; int8, with a scale per row; or binary, eight signs a byte, the first in the most significant
    /// bit.
    #[arg(long, value_name = "TYPE", default_value_t, value_parser = parse::<Dtype>)]
    dtype: Dtype,
    /// Texts read at a time: a larger window fills batches better, a smaller one returns results sooner.
    #[arg(long, value_name = "N", default_value_t = EmbedOptions::default().window)]
    window: usize,
    /// No progress bar and no summary.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    embed: EmbedArguments,
    #[command(flatten)]
    model: ModelArguments,
}

/// What is kept of a record while its text is being embedded.
struct Tag {
    id: Option<Box<RawValue>>,
    place: String,
    bytes_read: u64,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { files, format, task, instruction, output, output_format, dtype, window, quiet, embed, model } =
        arguments;
    let mut options = embed.options();
    options.window = window;
    options.dtype = dtype;
    interrupt::watch()?;
    check_output_is_no_input(&files, output.as_deref())?;
    let embedder = model.open()?;
    let start = Instant::now();
    let bar = if quiet { ProgressBar::hidden() } else { progress_bar(&files) };
    let instruction = instruction::resolve(task.as_deref(), instruction);
    let reader = Reader::new(files, format, instruction);
    let dim = options.dimensions.unwrap_or(embedder.dim());
    let mut writer = Writer::open(output.as_deref(), output_format, dtype, dim)?;
    let result = embed_all(&embedder, reader, &options, &mut writer, &bar);
    bar.finish_and_clear();
    let (summary, stats) = result?;
    writer.finish()?;
    if !quiet {
        summary.print(&stats, start.elapsed());
    }
    Ok(())
}

/// An output that replaces its own input would destroy the texts.
fn check_output_is_no_input(files: &[PathBuf], output: Option<&Path>) -> Result<(), CliError> {
    let Some(output) = output.and_then(|path| path.canonicalize().ok()) else { return Ok(()) };
    match files.iter().find(|file| file.canonicalize().is_ok_and(|file| file == output)) {
        Some(file) => Err(CliError::Usage(format!("{} is both input and output; name another output", file.display()))),
        None => Ok(()),
    }
}

/// What is printed at the end.
#[derive(Default)]
struct Summary {
    texts: usize,
    truncated: usize,
}

fn embed_all(
    embedder: &Embedder,
    reader: Reader,
    options: &EmbedOptions,
    writer: &mut Writer,
    bar: &ProgressBar,
) -> anyhow::Result<(Summary, Stats)> {
    // A record that cannot be read ends the stream; its error is returned after the results of those before it.
    let failure = Cell::new(None);
    let prompts = reader.map_while(|record| match record {
        Ok(Record { prompt, id, place, bytes_read }) => Some((Tag { id, place, bytes_read }, prompt)),
        Err(error) => {
            failure.set(Some(error));
            None
        }
    });
    let mut summary = Summary::default();
    let mut results = embedder.embed_iter(prompts, options)?;
    while let Some((tag, result)) = results.next() {
        let embedding = result.map_err(|error| match error.kind() {
            ErrorKind::Input | ErrorKind::TooLong => {
                anyhow::Error::from(CliError::Input(format!("{}: {}", tag.place, error.report(flag))))
            }
            _ => error.into(),
        })?;
        writer.row(&embedding, tag.id.as_deref())?;
        summary.texts += 1;
        summary.truncated += usize::from(embedding.truncated);
        if results.is_between_windows() {
            writer.flush()?;
        }
        bar.set_position(tag.bytes_read);
    }
    if let Some(error) = failure.take() {
        return Err(error.into());
    }
    if summary.texts == 0 {
        return Err(CliError::Input("the input is empty: there is no text to embed".to_owned()).into());
    }
    Ok((summary, *results.stats()))
}

/// A bar over the bytes of the input, or a counter when their number is unknown; hidden unless stderr is a terminal.
fn progress_bar(files: &[PathBuf]) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sizes: Option<Vec<u64>> = files
        .iter()
        .map(|path| std::fs::metadata(path).ok().filter(|file| file.is_file()).map(|file| file.len()))
        .collect();
    let (bar, template) = match sizes {
        Some(sizes) if !sizes.is_empty() => {
            (ProgressBar::new(sizes.iter().sum()), "{bar:40} {binary_bytes}/{binary_total_bytes}, {eta} left")
        }
        _ => (ProgressBar::no_length(), "{spinner} {binary_bytes} read, {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Summary {
    #[expect(clippy::print_stderr, reason = "the summary is for the person at the terminal, not a log message")]
    fn print(&self, stats: &Stats, time: Duration) {
        let Self { texts, truncated } = self;
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        eprintln!(
            "{texts} texts, {} tokens in {seconds:.2} s: {:.0} texts/s, {:.0} tokens/s; {:.1} % padding; {:.1} % of the time \
             outside ONNX Runtime; {truncated} truncated",
            stats.tokens,
            *texts as f64 / seconds,
            stats.tokens as f64 / seconds,
            100.0 * stats.padding_waste(),
            100.0 * (1.0 - stats.session_time.as_secs_f64() / seconds),
        );
    }
}
