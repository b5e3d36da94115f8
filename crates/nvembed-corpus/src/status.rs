//! What is there of a corpus, and whether it is what was written. Needs neither model nor input.

use std::path::Path;
use std::time::{Duration, SystemTime};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::manifest::{FILE_NAME, Manifest};
use crate::part;

/// What is there of a corpus.
#[derive(Debug)]
#[non_exhaustive]
pub struct Status {
    /// What it is made of.
    pub manifest: Manifest,
    /// The parts that are there and whole.
    pub done: Vec<usize>,
    /// Those that are not there.
    pub missing: Vec<usize>,
    /// Those that are there and damaged, with the reason. The next run makes them again.
    pub damaged: Vec<(usize, String)>,
    /// The rows of the parts that are there.
    pub rows_done: u64,
    /// How long the missing parts will take at the pace of those that are there; `None` before there are two.
    pub time_left: Option<Duration>,
}

impl Status {
    /// Looks at the parts' footers.
    ///
    /// # Errors
    /// [`Error::Incomplete`] when the folder holds no corpus.
    pub fn of(folder: &Path) -> Result<Self> {
        Self::look(folder, &mut |_| Ok(()))
    }

    /// Reads every part and compares its content with the hash in its footer. `on_part` gets each part's file before it is read.
    ///
    /// # Errors
    /// As [`Status::of`].
    pub fn verify(folder: &Path, on_part: &mut dyn FnMut(&Path)) -> Result<Self> {
        Self::look(folder, &mut |path| {
            on_part(path);
            part::read(path, |_| ())
        })
    }

    fn look(folder: &Path, more: &mut dyn FnMut(&Path) -> std::result::Result<(), String>) -> Result<Self> {
        let manifest = manifest(folder)?;
        let mut status = Self {
            manifest,
            done: Vec::new(),
            missing: Vec::new(),
            damaged: Vec::new(),
            rows_done: 0,
            time_left: None,
        };
        let (mut written, mut bytes_done) = (Vec::new(), 0);
        for part in 0..status.manifest.parts() {
            let path = folder.join(status.manifest.name_of(part));
            if !path.exists() {
                status.missing.push(part);
                continue;
            }
            match part::check(&path, &status.manifest, part).and_then(|()| more(&path)) {
                Ok(()) => {
                    let rows = status.manifest.rows_of(part);
                    status.rows_done += rows.end - rows.start;
                    bytes_done += status.manifest.bytes_of(part);
                    written.extend(path.metadata().and_then(|metadata| metadata.modified()).ok());
                    status.done.push(part);
                }
                Err(reason) => status.damaged.push((part, reason)),
            }
        }
        status.time_left = status.pace(&written, bytes_done);
        Ok(status)
    }

    /// From when the parts were written. A pause counts as work, so this is the pace of the job and not of the machine.
    fn pace(&self, written: &[SystemTime], bytes_done: u64) -> Option<Duration> {
        let (first, last) = (written.iter().min()?, written.iter().max()?);
        let time = last.duration_since(*first).ok()?;
        // The first part was begun before it was written.
        let (parts, left) = (written.len().checked_sub(1)?, self.manifest.bytes - bytes_done);
        if parts == 0 || time.is_zero() || bytes_done == 0 {
            return None;
        }
        let bytes = bytes_done as f64 * parts as f64 / written.len() as f64;
        Some(time.mul_f64(left as f64 / bytes))
    }

    /// Whether all parts are there and whole.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty()
    }

    /// The name of a part's file.
    pub fn name_of(&self, part: usize) -> String {
        self.manifest.name_of(part)
    }
}

/// A row that has no embedding.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct SkippedRow {
    /// The row of the corpus, from 0.
    pub row: u64,
    /// Its identifier; null when it has none that can be read.
    pub id: Value,
    /// `input`, `too_long` or `inference`.
    pub kind: String,
    /// Why. No text of the corpus is in it.
    pub reason: String,
}

/// The rows of complete parts that have no embedding.
///
/// # Errors
/// [`Error::Incomplete`] when the folder holds no corpus, or a part cannot be read.
pub fn skipped_rows(folder: &Path, mut each: impl FnMut(SkippedRow) -> Result<()>) -> Result<()> {
    let manifest = manifest(folder)?;
    for part in 0..manifest.parts() {
        let path = folder.join(manifest.name_of(part));
        if !manifest.options.skips_errors() || !path.exists() {
            continue;
        }
        let (mut row, mut outcome) = (manifest.rows_of(part).start, Ok(()));
        let read = part::read_columns(&path, &["id", "error_kind", "error"], |batch| {
            for index in 0..batch.num_rows() {
                if let (Some(kind), Ok(())) = (string(batch, "error_kind", index), &outcome) {
                    let reason = string(batch, "error", index).unwrap_or_default();
                    outcome = each(SkippedRow { row, id: id(batch, index), kind, reason });
                }
                row += 1;
            }
        });
        outcome?;
        read.map_err(|reason| Error::Incomplete(format!("{}: {reason}", path.display())))?;
    }
    Ok(())
}

fn manifest(folder: &Path) -> Result<Manifest> {
    Manifest::find(folder)?
        .ok_or_else(|| Error::Incomplete(format!("{} holds no corpus: it has no {FILE_NAME}", folder.display())))
}

fn string(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn id(batch: &RecordBatch, row: usize) -> Value {
    let column = batch.column_by_name("id").and_then(|column| column.as_primitive_opt::<Int64Type>());
    match column {
        Some(column) if column.is_valid(row) => column.value(row).into(),
        Some(_) => Value::Null,
        None => string(batch, "id", row).into(),
    }
}
