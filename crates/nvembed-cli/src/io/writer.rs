//! Embeddings to a file or stdout, as JSON lines or .npy.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use nvembed::{Dtype, Embedding, Row};
use serde::Serialize;
use serde_json::value::RawValue;

use super::atomic::{AtomicFile, write_file};
use super::format::is_named_npy;
use super::interrupt;
use crate::exit::CliError;

/// How embeddings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// .npy for files named so, otherwise JSON lines.
    Auto,
    /// One JSON object per text: index, id if the input had one, tokens, truncated, embedding, and scale with --dtype int8.
    Jsonl,
    /// A NumPy array [N, D]; only to a file. With --dtype int8, the scales [N] go to a second file, .scales.npy.
    Npy,
}

/// The fixed size of the .npy header, so that it can be written again when N is known.
const NPY_HEADER_BYTES: usize = 128;

/// Where embeddings go, row by row.
pub(crate) struct Writer {
    target: Target,
    format: RowFormat,
    rows: usize,
    /// Those of int8 rows, for their file.
    scales: Vec<f32>,
}

enum Target {
    Stdout(BufWriter<io::Stdout>),
    File(AtomicFile),
}

enum RowFormat {
    Jsonl,
    Npy { dim: usize, dtype: Dtype, scales: PathBuf },
}

/// The elements of a row, as JSON has them: numbers, or the bytes of bits.
#[derive(Serialize)]
#[serde(untagged)]
enum Elements<'a> {
    Floats(Cow<'a, [f32]>),
    Integers(&'a [i8]),
    Bytes(&'a [u8]),
}

#[derive(Serialize)]
struct JsonRow<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    tokens: usize,
    truncated: bool,
    embedding: Elements<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f32>,
}

#[derive(Serialize)]
struct JsonSkipped<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    /// null.
    embedding: (),
    error: &'a str,
}

impl Writer {
    /// Opens the output for rows of `dim` numbers of an element type.
    ///
    /// # Errors
    /// [`CliError::Usage`] for .npy on stdout, [`CliError::Output`] when the file cannot be created.
    pub(crate) fn open(path: Option<&Path>, format: OutputFormat, dtype: Dtype, dim: usize) -> Result<Self, CliError> {
        let path = path.filter(|path| *path != Path::new("-"));
        let is_npy = match format {
            OutputFormat::Npy => true,
            OutputFormat::Jsonl => false,
            OutputFormat::Auto => path.is_some_and(is_named_npy),
        };
        let format = if is_npy {
            let scales = path.map(|path| path.with_extension("scales.npy")).unwrap_or_default();
            RowFormat::Npy { dim: dtype.elements(dim), dtype, scales }
        } else {
            RowFormat::Jsonl
        };
        let target = match path {
            None if is_npy => {
                let message = ".npy cannot go to standard output, because its header has the number of rows; name a file with \
                               --output";
                return Err(CliError::Usage(message.to_owned()));
            }
            None => Target::Stdout(BufWriter::new(io::stdout())),
            Some(path) => Target::File(AtomicFile::create(path)?),
        };
        let mut writer = Self { target, format, rows: 0, scales: Vec::new() };
        if is_npy {
            writer.write(&[0; NPY_HEADER_BYTES])?;
        }
        Ok(writer)
    }

    /// Writes one embedding.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub(crate) fn row(&mut self, embedding: &Embedding, id: Option<&RawValue>) -> Result<(), CliError> {
        let Embedding { values, tokens, truncated, .. } = embedding;
        let scale = if let Row::Int8 { scale, .. } = values { Some(*scale) } else { None };
        let bytes = match self.format {
            RowFormat::Jsonl => {
                let (index, tokens, truncated) = (self.rows, *tokens, *truncated);
                let row = JsonRow { index, id, tokens, truncated, embedding: in_json(values), scale };
                let mut line = serde_json::to_vec(&row).map_err(|error| CliError::stdout(error.into()))?;
                line.push(b'\n');
                line
            }
            RowFormat::Npy { .. } => {
                self.scales.extend(scale);
                little_endian(values)
            }
        };
        let _whole_row = interrupt::row();
        self.write(&bytes)?;
        self.rows += 1;
        Ok(())
    }

    /// Writes a row for a text that has no embedding: null and the reason in JSON lines, zeros in .npy.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub(crate) fn skipped(&mut self, reason: &str, id: Option<&RawValue>) -> Result<(), CliError> {
        let bytes = match self.format {
            RowFormat::Jsonl => {
                let row = JsonSkipped { index: self.rows, id, embedding: (), error: reason };
                let mut line = serde_json::to_vec(&row).map_err(|error| CliError::stdout(error.into()))?;
                line.push(b'\n');
                line
            }
            RowFormat::Npy { dim, dtype, .. } => {
                if dtype == Dtype::Int8 {
                    self.scales.push(0.0);
                }
                let bytes = match dtype {
                    Dtype::F16 => 2,
                    Dtype::Int8 | Dtype::Binary => 1,
                    _ => 4,
                };
                vec![0; bytes * dim]
            }
        };
        let _whole_row = interrupt::row();
        self.write(&bytes)?;
        self.rows += 1;
        Ok(())
    }

    /// Whether a row says that its text was cut.
    pub(crate) fn says_what_was_cut(&self) -> bool {
        matches!(self.format, RowFormat::Jsonl)
    }

    /// Makes everything written so far visible to a reader of stdout.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        let _whole_rows = interrupt::row();
        match &mut self.target {
            Target::Stdout(stdout) => stdout.flush().map_err(CliError::stdout),
            Target::File(_) => Ok(()),
        }
    }

    /// Completes the output: only now does the file get its name.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        self.flush()?;
        match (self.target, self.format) {
            (Target::Stdout(_), _) => Ok(()),
            (Target::File(file), RowFormat::Jsonl) => file.finish(&[]),
            (Target::File(file), RowFormat::Npy { dim, dtype, scales }) => {
                if dtype == Dtype::Int8 {
                    // Before the rows, which are complete only with them.
                    let numbers = self.scales.iter().flat_map(|scale| scale.to_le_bytes());
                    let header = npy_header(&format!("{},", self.rows), "<f4");
                    write_file(&scales, &header.into_iter().chain(numbers).collect::<Vec<_>>())?;
                }
                file.finish(&npy_header(&format!("{}, {dim}", self.rows), descr(dtype)))
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match &mut self.target {
            Target::Stdout(stdout) => stdout.write_all(bytes).map_err(CliError::stdout),
            Target::File(file) => file.write(bytes),
        }
    }
}

fn in_json(row: &Row) -> Elements<'_> {
    match row {
        Row::F32(values) => Elements::Floats(values.into()),
        Row::Int8 { values, .. } => Elements::Integers(values),
        Row::Binary { bytes, .. } => Elements::Bytes(bytes),
        other => Elements::Floats(other.to_f32().into()),
    }
}

fn little_endian(row: &Row) -> Vec<u8> {
    match row {
        Row::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Row::Int8 { values, .. } => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Row::Binary { bytes, .. } => bytes.clone(),
        other => other.to_f32().iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// What NumPy calls the elements of rows of this type.
fn descr(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "<f2",
        Dtype::Int8 => "|i1",
        Dtype::Binary => "|u1",
        _ => "<f4",
    }
}

/// The header of a .npy file, version 1.0, padded with spaces to its fixed size
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
fn npy_header(shape: &str, descr: &str) -> Vec<u8> {
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((NPY_HEADER_BYTES - 10) as u16).to_le_bytes());
    header.extend(dictionary.bytes());
    header.resize(NPY_HEADER_BYTES - 1, b' ');
    header.push(b'\n');
    header
}
