//! Which rows make which part: fixed by the input and the number of rows alone.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::hash::{hex, sha256_of_file};
use crate::input::{Columns, Fields, IdType, Kind, Lines, first_id_of_line, row_groups, scan_lines};
use crate::options::CorpusOptions;

/// An input file, as it was when the corpus was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// When the file was last changed, in nanoseconds since 1970: while path, size and this are the same, so is the hash.
    pub(crate) modified: u64,
}

/// Where a part begins. It ends where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The index of the input.
    pub(crate) input: usize,
    /// The byte of a file of lines, or the row of a Parquet file.
    pub(crate) offset: u64,
    /// Bytes of input before this part, as a measure of work.
    pub(crate) bytes_before: u64,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) inputs: Vec<Input>,
    pub(crate) fields: Fields,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) parts: Vec<Start>,
}

impl Plan {
    /// Reads all inputs once.
    ///
    /// # Errors
    /// [`Error::Input`] for a file that cannot be read, or lacks a column.
    pub(crate) fn new(options: &CorpusOptions) -> Result<Self> {
        let kinds = options.inputs.iter().map(|path| Kind::of(path, options.format)).collect::<Result<Vec<_>>>()?;
        // Every file is opened before the first is read through.
        for path in &options.inputs {
            crate::input::open(path)?;
        }
        let fields = fields(options, &kinds)?;
        let mut plan = Self { inputs: Vec::new(), fields, rows: 0, bytes: 0, parts: Vec::new() };
        for (path, kind) in options.inputs.iter().zip(kinds) {
            plan.add(path, kind, options.shard_rows)?;
        }
        if plan.parts.is_empty() {
            // Readers of an empty corpus find a file with its columns.
            plan.parts.push(Start { input: 0, offset: 0, bytes_before: 0 });
        }
        Ok(plan)
    }

    fn add(&mut self, path: &Path, kind: Kind, shard_rows: u64) -> Result<()> {
        let (input, bytes_before, rows_before) = (self.inputs.len(), self.bytes, self.rows);
        let state = State::of(path)?;
        let sha256 = if kind == Kind::Parquet {
            Columns::open(path)?.check(&self.fields)?;
            for (rows, bytes) in row_groups(path, &self.fields.text)? {
                let first = self.rows;
                while let Some(row) = next_start(self.rows, first + rows, shard_rows) {
                    let before = self.bytes + (bytes as u128 * (row - first) as u128 / rows.max(1) as u128) as u64;
                    self.parts.push(Start { input, offset: row - rows_before, bytes_before: before });
                    self.rows = row + 1;
                }
                (self.rows, self.bytes) = (first + rows, self.bytes + bytes);
            }
            sha256_of_file(path).map_err(|error| Error::input(path, format!("cannot be read: {error}")))?
        } else {
            let (mut hasher, mut rows, parts) = (Sha256::new(), self.rows, &mut self.parts);
            let on_row = |offset| {
                if rows.is_multiple_of(shard_rows) {
                    parts.push(Start { input, offset, bytes_before: bytes_before + offset });
                }
                rows += 1;
                Ok(())
            };
            scan_lines(path, kind, |bytes| hasher.update(bytes), on_row)?;
            (self.rows, self.bytes) = (rows, self.bytes + state.bytes);
            hex(&hasher.finalize())
        };
        if State::of(path)? != state {
            return Err(Error::input(path, "changed while it was read; start again once it is complete"));
        }
        self.inputs.push(Input {
            path: path.display().to_string(),
            kind,
            rows: self.rows - rows_before,
            bytes: state.bytes,
            sha256,
            modified: state.modified,
        });
        Ok(())
    }
}

/// The first row from `row` on and before `end` that begins a part.
fn next_start(row: u64, end: u64, shard_rows: u64) -> Option<u64> {
    Some(row.next_multiple_of(shard_rows)).filter(|start| *start < end)
}

/// What tells that a file is still the same, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) bytes: u64,
    pub(crate) modified: u64,
}

impl State {
    /// # Errors
    /// [`Error::Input`].
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let metadata = path.metadata().map_err(|error| Error::input(path, format!("cannot be opened: {error}")))?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        Ok(Self { bytes: metadata.len(), modified })
    }
}

/// The fields in use. Where identifiers are not asked for, the first file that has rows decides.
fn fields(options: &CorpusOptions, kinds: &[Kind]) -> Result<Fields> {
    let mut fields = Fields {
        text: options.text.clone(),
        id: None,
        id_type: IdType::Int64,
        instruction: options.instruction_field.clone(),
    };
    for (path, kind) in options.inputs.iter().zip(kinds) {
        let found = match kind {
            Kind::Lines => {
                if let Some(id) = &options.id {
                    let message = format!("lines have no field {id:?} (`id`): their rows are numbered");
                    return Err(Error::input(path, message));
                }
                return Ok(fields);
            }
            Kind::Parquet => {
                let name = options.id.as_deref().unwrap_or("id");
                Some(Columns::open(path)?.id_type(name)?.map(|id_type| (name.to_owned(), id_type)))
            }
            Kind::Jsonl => match Lines::open(path, *kind, 0)?.first_line()? {
                Some(line) => {
                    let found = first_id_of_line(&line, &fields, options.id.as_deref());
                    Some(found.map_err(|reason| Error::input(path, reason.message))?)
                }
                None => None,
            },
        };
        if let Some(found) = found {
            if let Some((name, id_type)) = found {
                (fields.id, fields.id_type) = (Some(name), id_type);
            } else {
                // The file's own check says that the column is missing.
                fields.id.clone_from(&options.id);
            }
            break;
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(files: &[(&str, &str)], shard_rows: u64) -> Plan {
        let folder = tempfile::tempdir().unwrap();
        let paths = files.iter().map(|(name, content)| {
            std::fs::write(folder.path().join(name), content).unwrap();
            folder.path().join(name)
        });
        let mut options = CorpusOptions::new(paths.collect(), "out");
        options.shard_rows = shard_rows;
        Plan::new(&options).unwrap()
    }

    #[test]
    fn parts_run_on_from_file_to_file() {
        let plan = plan(&[("a.txt", "1\n2\n3\n"), ("b.txt", ""), ("c.txt", "4\n5")], 2);
        assert_eq!((plan.rows, plan.bytes), (5, 9));
        assert_eq!(plan.inputs.iter().map(|input| input.rows).collect::<Vec<_>>(), [3, 0, 2]);
        let starts: Vec<_> = plan.parts.iter().map(|part| (part.input, part.offset, part.bytes_before)).collect();
        assert_eq!(starts, [(0, 0, 0), (0, 4, 4), (2, 2, 8)]);
    }

    #[test]
    fn a_corpus_without_rows_has_one_part() {
        assert_eq!(plan(&[("a.txt", ""), ("b.jsonl", "\n\n")], 2).parts.len(), 1);
    }

    #[test]
    fn identifiers_are_those_of_the_first_record() {
        let plan_of = |line: &str| plan(&[("a.jsonl", ""), ("b.jsonl", line)], 9).fields;
        assert_eq!(plan_of("{\"text\": \"a\", \"id\": \"x\"}").id_type, IdType::String);
        let numbers = plan_of("\u{feff}{\"text\": \"a\", \"id\": 7}");
        assert_eq!((numbers.id.as_deref(), numbers.id_type), (Some("id"), IdType::Int64));
        assert_eq!(plan_of("{\"text\": \"a\"}").id, None);
        assert_eq!(plan_of("{\"te").id, None, "it is reported when its part is made");
    }

    #[test]
    fn every_multiple_begins_a_part() {
        assert_eq!(next_start(0, 10, 4), Some(0));
        assert_eq!(next_start(1, 10, 4), Some(4));
        assert_eq!(next_start(9, 10, 4), None);
        assert_eq!(next_start(5, 8, 4), None);
    }
}
