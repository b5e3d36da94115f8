//! Records from input files: lines, JSON lines, Parquet.

mod json;
mod lines;
mod parquet;

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub(crate) use lines::{Lines, scan_lines};
pub(crate) use parquet::{Columns, ParquetRows, row_groups};

use crate::error::{Error, Result};
use crate::options::Format;

/// What an input file holds, once that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Lines,
    Jsonl,
    Parquet,
}

/// Where a record's parts are, and how its identifier is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fields {
    pub(crate) text: String,
    pub(crate) id: Option<String>,
    pub(crate) id_type: IdType,
    pub(crate) instruction: Option<String>,
}

/// The type of the identifiers' column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IdType {
    Int64,
    String,
}

/// An identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Id {
    Number(i64),
    Text(String),
}

/// One text with its instruction, or why there is none.
#[derive(Debug)]
pub(crate) struct Record {
    /// `None` where the record has none, or none that can be read.
    pub(crate) id: Option<Id>,
    /// The instruction, if the record has its own, and the text.
    pub(crate) content: std::result::Result<(Option<String>, String), Reason>,
}

/// Why a record is not embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// `input`, `too_long` or `inference`.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Reason {
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self { kind: "input", message: message.into() }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl Kind {
    /// # Errors
    /// [`Error::Input`] for standard input, and for a compressed file.
    pub(crate) fn of(path: &Path, format: Format) -> Result<Self> {
        if path == Path::new("-") {
            let message =
                "a corpus is read again when a job resumes, so it cannot be standard input: write it to a file";
            return Err(Error::Input(message.to_owned()));
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        let kind = match (format, extension) {
            (Format::Lines, _) => Self::Lines,
            (Format::Jsonl, _) | (Format::Auto, Some("jsonl" | "ndjson")) => Self::Jsonl,
            (Format::Parquet, _) | (Format::Auto, Some("parquet")) => Self::Parquet,
            (Format::Auto, Some(packed @ ("gz" | "zst" | "bz2" | "xz"))) => {
                let message =
                    format!("a .{packed} file has no places to resume at; unpack it, or convert it to Parquet");
                return Err(Error::input(path, message));
            }
            (Format::Auto, _) => Self::Lines,
        };
        Ok(kind)
    }
}

/// # Errors
/// [`Error::Input`].
pub(crate) fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| Error::input(path, format!("cannot be opened: {error}")))?;
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    // A folder opens, and a pipe cannot be read again.
    if is_file { Ok(file) } else { Err(Error::input(path, "is not a regular file")) }
}

/// The identifiers' field and type, from the first record.
///
/// # Errors
/// [`Reason`] when the field was asked for and the record lacks it, or its type is another.
pub(crate) fn first_id_of_line(
    line: &[u8],
    fields: &Fields,
    wanted: Option<&str>,
) -> std::result::Result<Option<(String, IdType)>, Reason> {
    let name = wanted.unwrap_or("id");
    let asked = Fields { id: Some(name.to_owned()), ..fields.clone() };
    let found = match json::id_type(line, &asked) {
        // A first record that is no record is met again, in its place, when its part is made.
        Err(_) if wanted.is_none() => None,
        other => other?,
    };
    match (found, wanted) {
        (Some(id_type), _) => Ok(Some((name.to_owned(), id_type))),
        (None, None) => Ok(None),
        (None, Some(name)) => Err(Reason::input(format!("the first record has no field {name:?} (`id`)"))),
    }
}
