//! How a corpus job is watched: a bar on a terminal, otherwise a JSON line now and then. Both go to stderr.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use nvembed_corpus::{Estimate, Job, Manifest, Progress, Watch};
use serde_json::{Value, json};

use crate::io::interrupt;

/// How often a line is written where nobody looks at a bar: often enough to see that a job lives, and a day's log stays small.
const INTERVAL: Duration = Duration::from_secs(30);
/// A part that takes longer is worth a hint: that much is lost by an interruption.
const LONG_PART: Duration = Duration::from_secs(600);

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
        let free = free_space(job.folder());
        // Floats of embeddings take 0.93 of their size when they are compressed.
        if let Some(free) = free.filter(|free| size / 5 * 4 > *free) {
            tracing::warn!(
                "the embeddings take about {} and {} has {} free",
                HumanBytes(size),
                job.folder().display(),
                HumanBytes(free)
            );
        }
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
                "bytes_per_row": manifest.bytes_per_row(), "embedding_bytes": size, "free_bytes": free,
            })),
        }
    }

    /// Says how long the job will take.
    pub(crate) fn estimate(&self, estimate: &Estimate, manifest: &Manifest) {
        let Estimate { sample, tokens, time, part_time, .. } = *estimate;
        match &self.form {
            Form::Silent => {}
            Form::Lines => say_json(&json!({
                "event": "estimate", "sample_rows": sample, "tokens": tokens, "seconds": time.as_secs_f64().round(),
                "seconds_per_part": part_time.as_secs_f64().round(),
            })),
            Form::Bar(bar) => bar.suspend(|| {
                say(&format!(
                    "about {} tokens in {}, by a sample of {sample} rows; {} a part",
                    HumanCount(tokens),
                    HumanDuration(time),
                    HumanDuration(part_time)
                ));
                if part_time > LONG_PART {
                    let rows = manifest.shard_rows() as f64 * LONG_PART.as_secs_f64() / part_time.as_secs_f64() / 2.0;
                    say(&format!(
                        "An interruption costs the part it was at. With --shard-rows {:.0}, a new corpus (--start-over) has parts \
                         of five minutes.",
                        rows.max(1.0)
                    ));
                }
            }),
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
                    "{} rows, {} tokens in {}: {:.0} tokens/s; {:.1} % of the time outside ONNX Runtime; {} truncated, {} \
                     repeated, {} without an embedding",
                    HumanCount(progress.rows),
                    HumanCount(progress.tokens),
                    HumanDuration(progress.time),
                    progress.tokens as f64 / seconds,
                    100.0 * (1.0 - progress.session_time.as_secs_f64() / seconds),
                    HumanCount(progress.truncated),
                    HumanCount(progress.repeated),
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
            "session_seconds": progress.session_time.as_secs_f64(), "truncated": progress.truncated,
            "repeated": progress.repeated, "errors": progress.errors,
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

/// Bytes that may still be written to a folder's file system.
#[cfg(unix)]
fn free_space(folder: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(folder).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(not(unix))]
fn free_space(_folder: &Path) -> Option<u64> {
    None
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
