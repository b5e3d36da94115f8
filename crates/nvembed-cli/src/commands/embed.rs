//! `nvembed embed`: texts in, embeddings out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nvembed::{Embedder, Prompt, Stats};
use serde_json::value::RawValue;

use super::exit::CliError;
use super::input::{InputFormat, Reader, Record};
use super::output::{Dtype, OutputFormat, Writer};
use super::{EncodeArguments, ModelArguments, interrupt};

/// Embed texts from files or stdin, one a line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nvembed embed -m MODEL passages.txt -o passages.npy
  nvembed embed -m MODEL --task 'Given a question, retrieve passages that answer the question' queries.txt
  printf '%s\\n' '{\"text\": \"a line\\nand another\", \"id\": 7}' | nvembed embed -m MODEL --format jsonl")]
pub(crate) struct Arguments {
    /// Files to read; none or - reads stdin.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How a line holds a text.
    #[arg(long, value_enum, default_value = "auto")]
    format: InputFormat,
    /// Task of the queries, one English sentence; sets the instruction "Instruct: {task}\nQuery: ".
    #[arg(long, value_name = "SENTENCE", conflicts_with = "instruction")]
    task: Option<String>,
    /// Literal instruction in front of texts that have none of their own.
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// File to write; it appears when it is complete. None or -: standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How embeddings are written.
    #[arg(long, value_enum, default_value = "auto")]
    output_format: OutputFormat,
    /// Element type of .npy files. Default: f32.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// No progress bar, no summary.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    encode: EncodeArguments,
    #[command(flatten)]
    model: ModelArguments,
}

/// What is kept of a record while its text is being embedded.
struct Pending {
    id: Option<Box<RawValue>>,
    place: String,
    bytes_read: u64,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { files, format, task, instruction, output, output_format, dtype, quiet, encode, model } = arguments;
    interrupt::watch()?;
    check_output_is_no_input(&files, output.as_deref())?;
    let embedder = model.open()?;
    let start = Instant::now();
    let bar = if quiet { ProgressBar::hidden() } else { progress_bar(&files) };
    let instruction = task.map(|task| Prompt::instruction_for(&task)).or(instruction).unwrap_or_default();
    let reader = Reader::new(files, format, instruction);
    let mut writer = Writer::open(output.as_deref(), output_format, dtype, embedder.dim())?;
    let result = embed(&embedder, reader, &encode, &mut writer, &bar);
    bar.finish_and_clear();
    let (summary, stats) = result?;
    writer.finish()?;
    if !quiet {
        summary.print(&stats, start.elapsed());
    }
    Ok(())
}

/// An output that replaced its own input would destroy the texts.
fn check_output_is_no_input(files: &[PathBuf], output: Option<&Path>) -> Result<(), CliError> {
    let Some(output) = output.and_then(|path| path.canonicalize().ok()) else { return Ok(()) };
    match files.iter().find(|file| file.canonicalize().is_ok_and(|file| file == output)) {
        Some(file) => Err(CliError::Usage(format!("{} is both input and output", file.display()))),
        None => Ok(()),
    }
}

/// What the user is told at the end.
#[derive(Default)]
struct Summary {
    texts: usize,
    truncated: usize,
}

fn embed(
    embedder: &Embedder,
    reader: Reader,
    encode: &EncodeArguments,
    writer: &mut Writer,
    bar: &ProgressBar,
) -> anyhow::Result<(Summary, Stats)> {
    // The reader runs ahead of the results by one window; each result finds its record at the front of the queue.
    let pending = RefCell::new(VecDeque::new());
    let failure = Cell::new(None);
    let prompts = reader.map_while(|record| match record {
        Ok(Record { prompt, id, place, bytes_read }) => {
            pending.borrow_mut().push_back(Pending { id, place, bytes_read });
            Some(prompt)
        }
        Err(error) => {
            failure.set(Some(error));
            None
        }
    });
    let mut summary = Summary::default();
    let mut results = embedder.embed_iter(prompts, &encode.options())?;
    for result in results.by_ref() {
        let Some(record) = pending.borrow_mut().pop_front() else { anyhow::bail!("more embeddings than texts") };
        let embedding = result.map_err(|error| match error.kind() {
            nvembed::ErrorKind::Input | nvembed::ErrorKind::TooLong => {
                anyhow::Error::from(CliError::Input(format!("{}: {error}", record.place)))
            }
            _ => error.into(),
        })?;
        writer.row(&embedding, record.id.as_deref())?;
        summary.texts += 1;
        summary.truncated += usize::from(embedding.truncated);
        if pending.borrow().is_empty() {
            writer.flush()?;
        }
        bar.set_position(record.bytes_read);
    }
    if let Some(error) = failure.take() {
        return Err(error.into());
    }
    if summary.texts == 0 {
        return Err(CliError::Input("the input is empty: there is no text to embed".to_owned()).into());
    }
    Ok((summary, *results.stats()))
}

/// A bar over the bytes of the input, or a counter when their number is not known; hidden unless stderr is a terminal.
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
            "{texts} texts, {} tokens in {seconds:.2} s: {:.0} texts/s, {:.0} tokens/s; padding {:.1} %, outside the \
             session {:.1} % of the time; {truncated} truncated",
            stats.tokens,
            *texts as f64 / seconds,
            stats.tokens as f64 / seconds,
            100.0 * stats.padding_waste(),
            100.0 * (1.0 - stats.session_time.as_secs_f64() / seconds),
        );
    }
}
