//! Embedding the missing parts, one after another.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use nvembed::{Embedder, Embedding, ErrorKind, Prompt};

use crate::columns::{Layout, OutputRow};
use crate::error::{Error, Result};
use crate::input::{Id, Reason};
use crate::job::Job;
use crate::part::PartWriter;
use crate::plan::State;
use crate::reader::{CHUNKS, InputRow, InputRows, Work, send_rows};
use crate::repeats::Key;

/// What a job tells while it runs.
pub trait Watch {
    /// After each window of rows, and when a part is complete.
    fn progress(&mut self, progress: &Progress);
    /// The file that is being written, and is to be removed if the process ends now; `None` once it has its name.
    fn writing(&mut self, _file: Option<&Path>) {}
}

/// What is done of the parts that were missing.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Complete parts.
    pub parts: usize,
    /// Rows embedded, in complete parts or not.
    pub rows: u64,
    /// Rows that could not be embedded.
    pub errors: u64,
    /// Rows that were truncated.
    pub truncated: u64,
    /// Rows that repeat the embedding of another one.
    pub repeated: u64,
    /// Token ids that were embedded.
    pub tokens: u64,
    /// Bytes of input, as a measure of work.
    pub bytes: u64,
    /// Time since the first part was begun.
    pub time: Duration,
    /// Time inside ONNX Runtime.
    pub session_time: Duration,
}

/// What is known of a row while it is being embedded.
struct Tag {
    row: u64,
    id: Option<Id>,
    text_sha256: Option<[u8; 32]>,
    /// How many rows repeat its embedding.
    again: Option<(Key, u32)>,
    /// For another try, where errors are skipped.
    prompt: Option<Prompt<'static>>,
}

impl Job {
    /// Makes the missing parts.
    ///
    /// # Errors
    /// [`Error::Input`] naming the first record that cannot be embedded, unless errors are skipped, or an input that changed;
    /// [`Error::Output`]; [`Error::Embed`] when a run fails, or the model is not the one that the job was opened for. Parts
    /// that are complete stay.
    pub fn run(&mut self, embedder: &Embedder, watch: &mut dyn Watch) -> Result<Progress> {
        if embedder.manifest().digest() != self.manifest.model.digest {
            return Err(Error::Option("the open model is not the one that the job was opened for".to_owned()));
        }
        let start = Instant::now();
        let mut progress = Progress::default();
        for part in self.missing.clone() {
            // Another process may have made it, if shards overlap.
            if self.path_of(part).exists() && self.is_done(part) {
                continue;
            }
            self.make(part, embedder, &mut progress, start, watch)?;
            self.missing.retain(|missing| *missing != part);
            progress.parts += 1;
            watch.progress(&progress);
        }
        progress.time = start.elapsed();
        Ok(progress)
    }

    fn make(
        &self,
        part: usize,
        embedder: &Embedder,
        progress: &mut Progress,
        start: Instant,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let manifest = &self.manifest;
        let layout = Layout {
            dtype: self.options.embed.dtype,
            dimensions: manifest.options.dimensions,
            id_type: manifest.fields.id_type,
            has_errors: manifest.options.skips_errors(),
            has_hashes: manifest.options.text_hash,
        };
        let mut writer = PartWriter::create(&self.options.out, manifest, part, layout)?;
        watch.writing(Some(writer.unfinished()));
        let (sender, receiver) = sync_channel(CHUNKS);
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("corpus reader".to_owned())
                .spawn_scoped(scope, move || send_rows(self, part, &sender))
                .map_err(|error| Error::output(Path::new("a thread"), error))?;
            self.embed(part, embedder, InputRows::new(receiver), &mut writer, (progress, start), watch)
        })?;
        for (input, state) in manifest.inputs.iter().zip(&self.states) {
            let path = Path::new(&input.path);
            if path.exists() && State::of(path)? != *state {
                return Err(Error::input(
                    path,
                    "changed while it was read; a corpus needs inputs that stay as they are",
                ));
            }
        }
        writer.finish(manifest, part)?;
        watch.writing(None);
        Ok(())
    }

    fn embed(
        &self,
        part: usize,
        embedder: &Embedder,
        mut input: InputRows,
        writer: &mut PartWriter,
        (progress, start): (&mut Progress, Instant),
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let skips = self.manifest.options.skips_errors();
        let rows = self.manifest.rows_of(part);
        // What the source of prompts has met, which is read by the loop below: an error that ends the part, and rows without
        // a prompt.
        let failure = Cell::new(None);
        let waiting = RefCell::new(VecDeque::new());
        let prompts = std::iter::from_fn(|| {
            loop {
                let InputRow { row, id, text_sha256, work } = match input.next()? {
                    Ok(row) => row,
                    Err(error) => {
                        failure.set(Some(error));
                        return None;
                    }
                };
                let outcome = match work {
                    Work::Embed { prompt, again } => {
                        let another = skips.then(|| prompt.clone());
                        return Some((Tag { row, id, text_sha256, again, prompt: another }, prompt));
                    }
                    Work::Repeat(key) => Ok(key),
                    Work::Skip(reason) if skips => Err(reason),
                    Work::Skip(reason) => {
                        failure.set(Some(self.record_error(row, id.as_ref(), &reason.message)));
                        return None;
                    }
                };
                waiting.borrow_mut().push_back(Waiting { row, id, text_sha256, outcome });
            }
        });
        let before = *progress;
        let mut results = embedder.embed_iter(prompts, &self.options.embed)?;
        let mut output = Output { writer, progress, kept: HashMap::new(), written: 0 };
        while let Some((tag, result)) = results.next() {
            output.waiting(&mut waiting.borrow_mut(), tag.row)?;
            let content = self.outcome(&tag, result, embedder, skips)?;
            output.embedded(tag, content)?;
            if results.is_between_windows() {
                let Output { progress, written, .. } = &mut output;
                progress.rows = before.rows + *written;
                let share = *written as f64 / (rows.end - rows.start).max(1) as f64;
                progress.bytes = before.bytes + (share * self.manifest.bytes_of(part) as f64) as u64;
                progress.session_time = before.session_time + results.stats().session_time;
                progress.time = start.elapsed();
                watch.progress(progress);
            }
        }
        let session_time = results.stats().session_time;
        drop(results);
        if let Some(error) = failure.take() {
            return Err(error);
        }
        output.waiting(&mut waiting.borrow_mut(), u64::MAX)?;
        let Output { progress, written, .. } = output;
        if written != rows.end - rows.start {
            let message = format!(
                "the input of part {part} has {written} rows, and had {} when it was planned",
                rows.end - rows.start
            );
            return Err(Error::Input(message));
        }
        progress.rows = before.rows + written;
        progress.bytes = before.bytes + self.manifest.bytes_of(part);
        progress.session_time = before.session_time + session_time;
        progress.time = start.elapsed();
        Ok(())
    }

    /// What becomes of a row: its embedding, or the reason why it has none, or the end of the part.
    fn outcome(
        &self,
        tag: &Tag,
        result: nvembed::Result<Embedding>,
        embedder: &Embedder,
        skips: bool,
    ) -> Result<std::result::Result<Embedding, Reason>> {
        let error = match result {
            Ok(embedding) => return Ok(Ok(embedding)),
            Err(error) => error,
        };
        let kind = match error.kind() {
            ErrorKind::Input => "input",
            ErrorKind::TooLong => "too_long",
            ErrorKind::Inference if skips => {
                // A run failed, and all of its window with it: only rows that fail alone are skipped.
                let again = tag.prompt.clone().into_iter().map(|prompt| ((), prompt));
                return match embedder.embed_iter(again, &self.options.embed)?.next() {
                    Some(((), Ok(embedding))) => Ok(Ok(embedding)),
                    Some(((), Err(error))) if error.kind() == ErrorKind::Inference => {
                        Ok(Err(Reason { kind: "inference", message: error.report(str::to_owned) }))
                    }
                    Some(((), Err(error))) => Err(error.into()),
                    None => Err(error.into()),
                };
            }
            _ => return Err(error.into()),
        };
        let message = error.report(str::to_owned);
        if skips {
            Ok(Err(Reason { kind, message }))
        } else {
            Err(self.record_error(tag.row, tag.id.as_ref(), &message))
        }
    }

    fn record_error(&self, row: u64, id: Option<&Id>, reason: &str) -> Error {
        let place = self.manifest.place_of(row);
        let id = match (id, &self.manifest.fields.id) {
            (Some(id), Some(_)) => format!(" (id {id})"),
            _ => String::new(),
        };
        Error::Input(format!("{place}{id}: {reason}"))
    }
}

/// A row without a prompt, which is written behind the rows before it.
struct Waiting {
    row: u64,
    id: Option<Id>,
    text_sha256: Option<[u8; 32]>,
    /// The text whose embedding it repeats, or why it has none.
    outcome: std::result::Result<Key, Reason>,
}

/// Where rows go.
struct Output<'w> {
    writer: &'w mut PartWriter,
    progress: &'w mut Progress,
    /// The embeddings, or the reasons why there are none, that following rows repeat; and how many rows do.
    kept: HashMap<Key, (std::result::Result<Embedding, Reason>, u32)>,
    /// Rows of this part.
    written: u64,
}

impl Output<'_> {
    fn embedded(&mut self, tag: Tag, content: std::result::Result<Embedding, Reason>) -> Result<()> {
        let Tag { id, text_sha256, again, .. } = tag;
        if let Some((key, rows)) = again {
            self.kept.insert(key, (content.clone(), rows));
        }
        self.progress.tokens += content.as_ref().map_or(0, |embedding| embedding.tokens as u64);
        self.write(id, text_sha256, content)
    }

    /// Writes the rows without a prompt that come before a row.
    fn waiting(&mut self, rows: &mut VecDeque<Waiting>, before: u64) -> Result<()> {
        while rows.front().is_some_and(|row| row.row < before) {
            let Some(row) = rows.pop_front() else { break };
            let content = match row.outcome {
                Ok(key) => self.repeat(key)?,
                Err(reason) => Err(reason),
            };
            self.write(row.id, row.text_sha256, content)?;
        }
        Ok(())
    }

    fn repeat(&mut self, key: Key) -> Result<std::result::Result<Embedding, Reason>> {
        let Entry::Occupied(mut kept) = self.kept.entry(key) else {
            return Err(Error::Incomplete("a row repeats an embedding that was not kept".to_owned()));
        };
        self.progress.repeated += 1;
        kept.get_mut().1 -= 1;
        Ok(if kept.get().1 > 0 { kept.get().0.clone() } else { kept.remove().0 })
    }

    fn write(
        &mut self,
        id: Option<Id>,
        text_sha256: Option<[u8; 32]>,
        content: std::result::Result<Embedding, Reason>,
    ) -> Result<()> {
        match &content {
            Ok(embedding) => self.progress.truncated += u64::from(embedding.truncated),
            Err(_) => self.progress.errors += 1,
        }
        self.written += 1;
        self.writer.row(OutputRow { id, text_sha256, content })
    }
}
