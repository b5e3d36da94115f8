//! Embedding the missing parts, one after another.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use nvembed::{Embedder, Embedding, ErrorKind, Prompt};
use sha2::{Digest, Sha256};

use crate::columns::{Layout, OutputRow};
use crate::error::{Error, Result};
use crate::input::{Id, Kind, Lines, ParquetRows, Reason, Record};
use crate::job::Job;
use crate::manifest::Manifest;
use crate::part::PartWriter;
use crate::plan::State;

/// Bytes of text that the reader is ahead of the model, times [`CHUNKS`].
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks between reader and model.
const CHUNKS: usize = 4;
/// The most records of a chunk.
const CHUNK_RECORDS: usize = 1024;

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
    /// Token ids.
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
            let read = || {
                let mut reader = PartReader::new(self, part);
                while let Some(chunk) = reader.chunk().transpose() {
                    let ends = chunk.is_err();
                    // Nobody listens any more when the part has failed.
                    if sender.send(chunk).is_err() || ends {
                        break;
                    }
                }
                drop(sender);
            };
            std::thread::Builder::new()
                .name("corpus reader".to_owned())
                .spawn_scoped(scope, read)
                .map_err(|error| Error::output(Path::new("a thread"), error))?;
            self.embed(part, embedder, Records::new(receiver), &mut writer, (progress, start), watch)
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
        records: Records,
        writer: &mut PartWriter,
        (progress, start): (&mut Progress, Instant),
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let (skips, hashes) = (self.manifest.options.skips_errors(), self.manifest.options.text_hash);
        let numbered = self.manifest.fields.id.is_none();
        let rows = self.manifest.rows_of(part);
        // What the source of prompts has met, which is read by the loop below: an error that ends the part, and rows without
        // a prompt.
        let failure = Cell::new(None);
        let skipped = RefCell::new(VecDeque::new());
        let mut numbers = rows.clone();
        let mut records = records;
        let prompts = std::iter::from_fn(|| {
            loop {
                let record = match records.next()? {
                    Ok(record) => record,
                    Err(error) => {
                        failure.set(Some(error));
                        return None;
                    }
                };
                let row = numbers.next()?;
                let id = if numbered { i64::try_from(row).ok().map(Id::Number) } else { record.id };
                match record.content {
                    Ok((instruction, text)) => {
                        let text_sha256 = hashes.then(|| Sha256::digest(&text).into());
                        let instruction = instruction.unwrap_or_else(|| self.options.instruction.clone());
                        let prompt = Prompt::with_instruction(instruction, text);
                        let again = skips.then(|| prompt.clone());
                        return Some((Tag { row, id, text_sha256, prompt: again }, prompt));
                    }
                    Err(reason) if skips => skipped.borrow_mut().push_back((row, id, reason)),
                    Err(reason) => {
                        failure.set(Some(self.record_error(row, id.as_ref(), &reason.message)));
                        return None;
                    }
                }
            }
        });
        let before = *progress;
        let mut results = embedder.embed_iter(prompts, &self.options.embed)?;
        let mut written = 0_u64;
        while let Some((tag, result)) = results.next() {
            write_skipped(&mut skipped.borrow_mut(), tag.row, writer, progress, &mut written)?;
            let content = self.outcome(&tag, result, embedder, skips)?;
            match &content {
                Ok(embedding) => {
                    progress.truncated += u64::from(embedding.truncated);
                    progress.tokens += embedding.tokens as u64;
                }
                Err(_) => progress.errors += 1,
            }
            writer.row(OutputRow { id: tag.id, text_sha256: tag.text_sha256, content })?;
            written += 1;
            if results.is_between_windows() {
                progress.rows = before.rows + written;
                let share = written as f64 / (rows.end - rows.start).max(1) as f64;
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
        write_skipped(&mut skipped.borrow_mut(), u64::MAX, writer, progress, &mut written)?;
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

/// Writes the rows without a prompt that come before a row.
fn write_skipped(
    skipped: &mut VecDeque<(u64, Option<Id>, Reason)>,
    before: u64,
    writer: &mut PartWriter,
    progress: &mut Progress,
    written: &mut u64,
) -> Result<()> {
    while skipped.front().is_some_and(|(row, ..)| *row < before) {
        let Some((_, id, reason)) = skipped.pop_front() else { break };
        progress.errors += 1;
        *written += 1;
        writer.row(OutputRow { id, text_sha256: None, content: Err(reason) })?;
    }
    Ok(())
}

/// Records as they come from the reader's thread.
struct Records {
    receiver: Receiver<Result<Vec<Record>>>,
    chunk: std::vec::IntoIter<Record>,
}

impl Records {
    fn new(receiver: Receiver<Result<Vec<Record>>>) -> Self {
        Self { receiver, chunk: Vec::new().into_iter() }
    }

    fn next(&mut self) -> Option<Result<Record>> {
        loop {
            if let Some(record) = self.chunk.next() {
                return Some(Ok(record));
            }
            match self.receiver.recv().ok()? {
                Ok(chunk) => self.chunk = chunk.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Reads the records of a part, from file to file.
struct PartReader<'j> {
    manifest: &'j Manifest,
    paths: &'j [std::path::PathBuf],
    input: usize,
    offset: u64,
    left: u64,
    file: Option<Source>,
}

enum Source {
    Lines(Lines),
    Parquet(Box<ParquetRows>),
}

impl<'j> PartReader<'j> {
    fn new(job: &'j Job, part: usize) -> Self {
        let (start, rows) = (job.manifest.parts[part], job.manifest.rows_of(part));
        let (input, offset, left) = (start.input, start.offset, rows.end - rows.start);
        Self { manifest: &job.manifest, paths: &job.options.inputs, input, offset, left, file: None }
    }

    /// Some records; `None` at the end.
    fn chunk(&mut self) -> Result<Option<Vec<Record>>> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            let Some(record) = self.next()? else { break };
            bytes += record.content.as_ref().map_or(0, |(_, text)| text.len());
            chunk.push(record);
        }
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    fn next(&mut self) -> Result<Option<Record>> {
        let fields = &self.manifest.fields;
        while self.left > 0 && self.input < self.paths.len() {
            let path = &self.paths[self.input];
            let record = match &mut self.file {
                Some(Source::Lines(lines)) => lines.next(fields)?,
                Some(Source::Parquet(rows)) => rows.next(fields)?,
                None => {
                    self.file = Some(match self.manifest.inputs[self.input].kind {
                        Kind::Parquet => {
                            Source::Parquet(Box::new(ParquetRows::open(path, fields, self.offset, self.left)?))
                        }
                        kind => Source::Lines(Lines::open(path, kind, self.offset)?),
                    });
                    continue;
                }
            };
            if record.is_some() {
                self.left -= 1;
                return Ok(record);
            }
            (self.input, self.offset, self.file) = (self.input + 1, 0, None);
        }
        Ok(None)
    }
}
