//! The rows of a part, read by a thread of their own from file to file.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender};

use nvembed::Prompt;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::input::{Id, Kind, Lines, ParquetRows, Reason, Record};
use crate::job::Job;
use crate::manifest::Manifest;
use crate::repeats::{Key, Repeats, Turn, key};

/// Bytes of text that the reader is ahead of the model, times [`CHUNKS`].
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks between reader and model.
pub(crate) const CHUNKS: usize = 4;
/// The most rows of a chunk.
const CHUNK_ROWS: usize = 1024;

/// A row of a part before it is embedded.
pub(crate) struct InputRow {
    /// Its number in the corpus.
    pub(crate) row: u64,
    pub(crate) id: Option<Id>,
    pub(crate) text_sha256: Option<[u8; 32]>,
    pub(crate) work: Work,
}

/// What is to be done for a row.
pub(crate) enum Work {
    /// Embed this prompt. `again` says how many of the following rows get the same embedding.
    Embed { prompt: Prompt<'static>, again: Option<(Key, u32)> },
    /// Repeat the embedding of an earlier row.
    Repeat(Key),
    /// Nothing: there is no text that could be embedded.
    Skip(Reason),
}

/// What the reader's thread does: sends the rows of a part, until nobody listens.
pub(crate) fn send_rows(job: &Job, part: usize, sender: &SyncSender<Result<Vec<InputRow>>>) {
    let mut rows = match Rows::new(job, part) {
        Ok(rows) => rows,
        Err(error) => {
            // Nobody listens any more when the part has failed.
            let _ = sender.send(Err(error));
            return;
        }
    };
    while let Some(chunk) = rows.chunk().transpose() {
        let ends = chunk.is_err();
        if sender.send(chunk).is_err() || ends {
            return;
        }
    }
}

/// The rows of a part, and what is to be done for each.
struct Rows<'j> {
    job: &'j Job,
    records: PartReader<'j>,
    repeats: Option<Repeats>,
    next: u64,
}

impl<'j> Rows<'j> {
    fn new(job: &'j Job, part: usize) -> Result<Self> {
        let mut repeats = None;
        if job.manifest.options.dedupe {
            let mut found = Repeats::new(job.manifest.bytes_per_row());
            let mut records = PartReader::new(job, part);
            while let Some(record) = records.next()? {
                if let Ok((instruction, text)) = &record.content {
                    found.count(key(instruction.as_deref().unwrap_or(&job.options.instruction), text));
                }
            }
            found.counted();
            repeats = Some(found);
        }
        Ok(Self { job, records: PartReader::new(job, part), repeats, next: job.manifest.rows_of(part).start })
    }

    /// Some rows; `None` at the end.
    fn chunk(&mut self) -> Result<Option<Vec<InputRow>>> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
            let Some(record) = self.records.next()? else { break };
            let row = self.row(record);
            if let Work::Embed { prompt, .. } = &row.work {
                bytes += prompt.text().len();
            }
            chunk.push(row);
        }
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    fn row(&mut self, record: Record) -> InputRow {
        let (row, settings) = (self.next, &self.job.manifest.options);
        self.next += 1;
        let numbered = self.job.manifest.fields.id.is_none();
        let id = if numbered { i64::try_from(row).ok().map(Id::Number) } else { record.id };
        let (instruction, text) = match record.content {
            Ok(content) => content,
            Err(reason) => return InputRow { row, id, text_sha256: None, work: Work::Skip(reason) },
        };
        let instruction = instruction.unwrap_or_else(|| self.job.options.instruction.clone());
        let text_sha256 = settings.text_hash.then(|| Sha256::digest(&text).into());
        let turn = self.repeats.as_mut().map_or(Turn::Once, |repeats| repeats.turn(key(&instruction, &text)));
        let prompt = |again| Work::Embed { prompt: Prompt::with_instruction(instruction, text), again };
        let work = match turn {
            Turn::Once => prompt(None),
            Turn::First(key, more) => prompt(Some((key, more))),
            Turn::Again(key) => Work::Repeat(key),
        };
        InputRow { row, id, text_sha256, work }
    }
}

/// Rows as they come from the reader's thread.
pub(crate) struct InputRows {
    receiver: Receiver<Result<Vec<InputRow>>>,
    chunk: std::vec::IntoIter<InputRow>,
}

impl InputRows {
    pub(crate) fn new(receiver: Receiver<Result<Vec<InputRow>>>) -> Self {
        Self { receiver, chunk: Vec::new().into_iter() }
    }

    pub(crate) fn next(&mut self) -> Option<Result<InputRow>> {
        loop {
            if let Some(row) = self.chunk.next() {
                return Some(Ok(row));
            }
            match self.receiver.recv().ok()? {
                Ok(chunk) => self.chunk = chunk.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Reads the records of a part, from file to file.
pub(crate) struct PartReader<'j> {
    manifest: &'j Manifest,
    paths: &'j [PathBuf],
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
    pub(crate) fn new(job: &'j Job, part: usize) -> Self {
        let (start, rows) = (job.manifest.parts[part], job.manifest.rows_of(part));
        let (input, offset, left) = (start.input, start.offset, rows.end - rows.start);
        Self { manifest: &job.manifest, paths: &job.options.inputs, input, offset, left, file: None }
    }

    /// The next record; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
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
