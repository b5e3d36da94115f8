//! How a corpus job is watched: a bar on a terminal, otherwise a JSON line now and then. Both go to stderr.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use nvembed_corpus::{Job, Progress, Watch};
use serde_json::{Value, json};

use crate::io::interrupt;

/// How often a line is written where nobody looks at a bar: often enough to see that a job lives, and a day's log stays small.
const INTERVAL: Duration = Duration::from_secs(30);

/// Reports on one job.
pub(crate) struct Reporter {
    form: Form,
    total: Total,
    /// When the last line was written.
    last: Instant,
}

enum Form {
    Silent,
    Bar(ProgressBar),
    Lines,
}

/// What is to be done.
struct Total {
    parts: usize,
    rows: u64,
    bytes: u64,
}

impl Reporter {
    pub(crate) fn new(quiet: bool, job: &Job) -> Self {
        let total = Total { parts: job.missing().len(), rows: job.rows(), bytes: job.bytes() };
        let form = if quiet {
            Form::Silent
        } else if stderr().is_terminal() {
            Form::Bar(bar(total.bytes))
        } else {
            Form::Lines
        };
        Self { form, total, last: Instant::now() }
    }

    /// Says how large the job is.
    pub(crate) fn plan(&self, job: &Job) {
        let manifest = job.manifest();
        let (rows, parts) = (manifest.rows(), manifest.parts());
        let size = self.total.rows * manifest.bytes_per_row();
        let id = manifest.id_field();
        match &self.form {
            Form::Silent => {}
            Form::Bar(bar) => bar.suspend(|| {
                say(&format!(
                    "{} rows in {} files ({}), {parts} parts; identifiers: {}",
                    HumanCount(rows),
                    manifest.inputs(),
                    HumanBytes(manifest.bytes()),
                    id.unwrap_or("row numbers")
                ));
                say(&format!(
                    "{} parts of shard are there; {} are missing: {} rows, {} of embeddings before compression",
                    job.done(),
                    self.total.parts,
                    HumanCount(self.total.rows),
                    HumanBytes(size)
                ));
            }),
            Form::Lines => say_json(&json!({
                "event": "plan", "rows": rows, "files": manifest.inputs(), "bytes": manifest.bytes(), "parts": parts, "id": id,
                "parts_done": job.done(), "parts_missing": self.total.parts, "rows_missing": self.total.rows,
                "bytes_per_row": manifest.bytes_per_row(), "embedding_bytes": size,
            })),
        }
    }

    /// Says what was done; `None` when the job failed.
    pub(crate) fn finish(&self, progress: Option<&Progress>) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
        let Some(progress) = progress else { return };
        match &self.form {
            Form::Silent => {}
            Form::Lines => say_json(&self.line("done", progress)),
            Form::Bar(_) => {
                let seconds = progress.time.as_secs_f64().max(f64::MIN_POSITIVE);
                say(&format!(
                    "{} rows, {} tokens in {}: {:.0} tokens/s; {:.1} % of the time outside ONNX Runtime; {} truncated, {} without \
                     an embedding",
                    HumanCount(progress.rows),
                    HumanCount(progress.tokens),
                    HumanDuration(progress.time),
                    progress.tokens as f64 / seconds,
                    100.0 * (1.0 - progress.session_time.as_secs_f64() / seconds),
                    HumanCount(progress.truncated),
                    HumanCount(progress.errors)
                ));
            }
        }
    }

    fn line(&self, event: &str, progress: &Progress) -> Value {
        let seconds = progress.time.as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 };
        let left = self.total.bytes.saturating_sub(progress.bytes);
        let seconds_left = (progress.bytes > 0).then(|| (left as f64 * seconds / progress.bytes as f64).round());
        json!({
            "event": event, "parts": progress.parts, "parts_total": self.total.parts, "rows": progress.rows,
            "rows_total": self.total.rows, "tokens": progress.tokens, "tokens_per_s": rate(progress.tokens),
            "rows_per_s": rate(progress.rows), "seconds": seconds, "seconds_left": seconds_left,
            "session_seconds": progress.session_time.as_secs_f64(), "truncated": progress.truncated, "errors": progress.errors,
        })
    }
}

impl Watch for Reporter {
    fn progress(&mut self, progress: &Progress) {
        match &self.form {
            Form::Silent => {}
            Form::Bar(bar) => {
                bar.set_position(progress.bytes);
                let rate = progress.tokens as f64 / progress.time.as_secs_f64().max(f64::MIN_POSITIVE);
                bar.set_message(format!("part {}/{}, {rate:.0} tokens/s", progress.parts, self.total.parts));
            }
            Form::Lines => {
                if self.last.elapsed() >= INTERVAL {
                    self.last = Instant::now();
                    say_json(&self.line("progress", progress));
                }
            }
        }
    }

    fn writing(&mut self, file: Option<&Path>) {
        *interrupt::unfinished() = file.map(Path::to_owned);
    }
}

fn bar(bytes: u64) -> ProgressBar {
    let template = "{bar:40} {binary_bytes}/{binary_total_bytes}, {msg}, {eta} left";
    let bar = ProgressBar::new(bytes);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn say_json(value: &Value) {
    say(&value.to_string());
}

#[expect(
    clippy::print_stderr,
    reason = "progress is for the person or program that watches the job, not a log message"
)]
fn say(text: &str) {
    eprintln!("{text}");
}
