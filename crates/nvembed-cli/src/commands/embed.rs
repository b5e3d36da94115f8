//! `nvembed embed`: texts in, embeddings out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nvembed::{Dtype, EmbedOptions, Embedder, Embedding, ErrorKind, Prompt, Stats};
use serde_json::value::RawValue;

use crate::arguments::{EmbedArguments, ModelArguments, flag, instruction, parse};
use crate::exit::CliError;
use crate::io::interrupt;
use crate::io::reader::{BadRecord, InputFormat, ReadError, Reader, Record};
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
    /// Pass over unknown fields of JSON lines, such as "title". Without it they are refused: a misspelt "instruction" would
    /// change the embedding.
    #[arg(long)]
    ignore_unknown_fields: bool,
    /// Write an output without rows, [0, D] in .npy, for an input without texts, which is otherwise an error.
    #[arg(long)]
    allow_empty: bool,
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
    /// What happens to a text that cannot be embedded: stop ends the command and names it; skip lists it on stderr and writes
    /// null and the reason, or zeros in .npy.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "stop")]
    on_error: OnError,
    /// No progress bar and no summary.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    embed: EmbedArguments,
    #[command(flatten)]
    model: ModelArguments,
}

/// What happens to a text that cannot be embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnError {
    /// The command ends.
    Stop,
    /// The text has no embedding.
    Skip,
}

/// What is kept of a record while its text is being embedded.
struct Tag {
    /// The record's number, bad records included.
    number: usize,
    id: Option<Box<RawValue>>,
    place: String,
    bytes_read: u64,
    /// For another try, where errors are skipped.
    prompt: Option<Prompt<'static>>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        files,
        format,
        ignore_unknown_fields,
        allow_empty,
        task,
        instruction,
        output,
        output_format,
        dtype,
        window,
        on_error,
        quiet,
        embed,
        model,
    } = arguments;
    let mut options = embed.options();
    options.window = window;
    options.dtype = dtype;
    interrupt::watch()?;
    check_output_is_no_input(&files, output.as_deref())?;
    Reader::check(&files)?;
    let embedder = model.open()?;
    let start = Instant::now();
    let bar = if quiet { ProgressBar::hidden() } else { progress_bar(&files) };
    let instruction = instruction::resolve(task.as_deref(), instruction);
    let reader = Reader::new(files, format, instruction).ignoring_unknown_fields(ignore_unknown_fields);
    let dim = options.dimensions.unwrap_or(embedder.dim());
    let mut writer = Writer::open(output.as_deref(), output_format, dtype, dim)?;
    let result = embed_all(&embedder, reader, &options, on_error, &mut writer, &bar);
    bar.finish_and_clear();
    let (summary, stats) = result?;
    if summary.texts + summary.skipped == 0 && !allow_empty {
        let message = "the input is empty: there is no text to embed; --allow-empty writes an output without rows";
        return Err(CliError::Input(message.to_owned()).into());
    }
    let says_what_was_cut = writer.says_what_was_cut();
    writer.finish()?;
    if !quiet {
        summary.print(&stats, start.elapsed());
    } else if summary.truncated > 0 && !says_what_was_cut {
        let Summary { texts, truncated, .. } = summary;
        note(&format!(
            "{truncated} of {texts} texts are longer than the limit and were cut, which .npy cannot say; --truncation error \
             refuses them"
        ));
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
    skipped: usize,
}

fn embed_all(
    embedder: &Embedder,
    reader: Reader,
    options: &EmbedOptions,
    on_error: OnError,
    writer: &mut Writer,
    bar: &ProgressBar,
) -> anyhow::Result<(Summary, Stats)> {
    let skips = on_error == OnError::Skip;
    // An error that ends the stream is returned after the results of the records before it. Bad records wait for their turn.
    let (failure, skipped) = (Cell::new(None), RefCell::new(VecDeque::new()));
    let prompts = reader.enumerate().map_while(|(number, record)| match record {
        Ok(Record { prompt, id, place, bytes_read }) => {
            let again = skips.then(|| prompt.clone());
            Some(Some((Tag { number, id, place, bytes_read, prompt: again }, prompt)))
        }
        Err(ReadError::Record(record)) if skips => {
            skipped.borrow_mut().push_back((number, record));
            Some(None)
        }
        Err(error) => {
            failure.set(Some(error));
            None
        }
    });
    let mut summary = Summary::default();
    let mut skip = |BadRecord { place, id, reason, bytes_read }: BadRecord, writer: &mut Writer| {
        bar.suspend(|| note(&format!("{place}: {reason}: no embedding")));
        bar.set_position(bytes_read);
        summary.skipped += 1;
        writer.skipped(&reason, id.as_deref())
    };
    let (mut texts, mut truncated) = (0, 0);
    let mut results = embedder.embed_iter(prompts.flatten(), options)?;
    while let Some((tag, result)) = results.next() {
        while skipped.borrow().front().is_some_and(|(number, _)| *number < tag.number) {
            let Some((_, record)) = skipped.borrow_mut().pop_front() else { break };
            skip(record, writer)?;
        }
        let result = match result {
            // A run failed, and its whole window with it: only texts that fail alone are skipped.
            Err(error) if skips && error.kind() == ErrorKind::Inference => alone(&tag, embedder, options, error)?,
            result => result,
        };
        let embedding = match result {
            Ok(embedding) => embedding,
            Err(error) => {
                let is_of_text = matches!(error.kind(), ErrorKind::Input | ErrorKind::TooLong);
                let reason = error.report(flag);
                match (is_of_text, skips) {
                    (true, false) => return Err(CliError::Input(format!("{}: {reason}", tag.place)).into()),
                    (true, true) => {}
                    (false, _) if skips && error.kind() == ErrorKind::Inference => {}
                    (false, _) => return Err(error.into()),
                }
                let Tag { place, id, bytes_read, .. } = tag;
                skip(BadRecord { place, id, reason, bytes_read }, writer)?;
                continue;
            }
        };
        writer.row(&embedding, tag.id.as_deref())?;
        texts += 1;
        truncated += usize::from(embedding.truncated);
        if results.is_between_windows() {
            writer.flush()?;
        }
        bar.set_position(tag.bytes_read);
    }
    let stats = *results.stats();
    drop(results);
    if let Some(error) = failure.take() {
        return Err(error.into());
    }
    for (_, record) in skipped.take() {
        skip(record, writer)?;
    }
    (summary.texts, summary.truncated) = (texts, truncated);
    Ok((summary, stats))
}

/// Embeds a text again by itself.
fn alone(
    tag: &Tag,
    embedder: &Embedder,
    options: &EmbedOptions,
    error: nvembed::Error,
) -> nvembed::Result<nvembed::Result<Embedding>> {
    let again = tag.prompt.clone().into_iter().map(|prompt| ((), prompt));
    let result = embedder.embed_iter(again, options)?.next();
    Ok(result.map_or(Err(error), |((), result)| result))
}

#[expect(clippy::print_stderr, reason = "what was lost is said to whoever runs the program, however quiet")]
fn note(text: &str) {
    eprintln!("{text}");
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
        let Self { texts, truncated, skipped } = self;
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        eprintln!(
            "{texts} texts, {} tokens in {seconds:.2} s: {:.0} texts/s, {:.0} tokens/s; {:.1} % padding; {:.1} % of the time \
             outside ONNX Runtime; {truncated} truncated{}",
            stats.tokens,
            *texts as f64 / seconds,
            stats.tokens as f64 / seconds,
            100.0 * stats.padding_waste(),
            100.0 * (1.0 - stats.session_time.as_secs_f64() / seconds),
            if *skipped > 0 { format!(", {skipped} without an embedding") } else { String::new() },
        );
    }
}
