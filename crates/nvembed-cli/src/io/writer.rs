//! Embeddings to a file or stdout, as JSON lines or .npy.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use clap::ValueEnum;
use half::f16;
use nvembed::{Dtype, Embedding};
use serde::Serialize;
use serde_json::value::RawValue;

use super::atomic::AtomicFile;
use super::interrupt;
use crate::exit::CliError;

/// How embeddings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// .npy for files named so, otherwise JSON lines.
    Auto,
    /// One JSON object per text: index, id if the input had one, tokens, truncated, embedding.
    Jsonl,
    /// A NumPy array [N, D]; only to a file.
    Npy,
}

/// The fixed size of the .npy header, so that it can be written again when N is known.
const NPY_HEADER_BYTES: usize = 128;

/// Where embeddings go, row by row.
pub(crate) struct Writer {
    target: Target,
    format: RowFormat,
    rows: usize,
}

enum Target {
    Stdout(BufWriter<io::Stdout>),
    File(AtomicFile),
}

#[derive(Clone, Copy)]
enum RowFormat {
    Jsonl,
    Npy { dim: usize, dtype: Dtype },
}

#[derive(Serialize)]
struct JsonRow<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    tokens: usize,
    truncated: bool,
    embedding: &'a [f32],
}

impl Writer {
    /// Opens the output for rows of `dim` numbers.
    ///
    /// # Errors
    /// [`CliError::Usage`] for .npy on stdout or an element type of JSON lines, [`CliError::Output`] when the file cannot be
    /// created.
    pub(crate) fn open(
        path: Option<&Path>,
        format: OutputFormat,
        dtype: Option<Dtype>,
        dim: usize,
    ) -> Result<Self, CliError> {
        let path = path.filter(|path| *path != Path::new("-"));
        let is_npy = match format {
            OutputFormat::Npy => true,
            OutputFormat::Jsonl => false,
            OutputFormat::Auto => path.and_then(Path::extension).is_some_and(|extension| extension == "npy"),
        };
        let format = match (is_npy, dtype) {
            (true, dtype) => RowFormat::Npy { dim, dtype: dtype.unwrap_or_default() },
            (false, None) => RowFormat::Jsonl,
            (false, Some(_)) => {
                let message = "--dtype is for .npy files only: JSON lines hold decimal numbers";
                return Err(CliError::Usage(message.to_owned()));
            }
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
        let mut writer = Self { target, format, rows: 0 };
        if let RowFormat::Npy { .. } = format {
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
        let bytes = match self.format {
            RowFormat::Jsonl => {
                let row = JsonRow { index: self.rows, id, tokens: *tokens, truncated: *truncated, embedding: values };
                let mut line = serde_json::to_vec(&row).map_err(|error| CliError::stdout(error.into()))?;
                line.push(b'\n');
                line
            }
            RowFormat::Npy { dtype: Dtype::F16, .. } => {
                values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
            }
            RowFormat::Npy { .. } => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let _whole_row = interrupt::row();
        self.write(&bytes)?;
        self.rows += 1;
        Ok(())
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
            (Target::File(file), RowFormat::Npy { dim, dtype }) => file.finish(&npy_header(self.rows, dim, dtype)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match &mut self.target {
            Target::Stdout(stdout) => stdout.write_all(bytes).map_err(CliError::stdout),
            Target::File(file) => file.write(bytes),
        }
    }
}

/// The header of a .npy file, version 1.0, padded with spaces to its fixed size
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
fn npy_header(rows: usize, dim: usize, dtype: Dtype) -> Vec<u8> {
    let descr = if dtype == Dtype::F16 { "<f2" } else { "<f4" };
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((NPY_HEADER_BYTES - 10) as u16).to_le_bytes());
    header.extend(dictionary.bytes());
    header.resize(NPY_HEADER_BYTES - 1, b' ');
    header.push(b'\n');
    header
}
