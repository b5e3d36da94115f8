//! Embeddings to a file or stdout, as JSON lines or .npy.
//!
//! A file is written under a temporary name beside its place and renamed when it is whole, so that a file of the wanted
//! name is always complete.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use half::f16;
use nvembed::Embedding;
use serde::Serialize;

use super::exit::CliError;
use super::interrupt;

/// How embeddings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// .npy for files named so, else JSON lines.
    Auto,
    /// One JSON object a text: index, id if the input had one, tokens, truncated, embedding.
    Jsonl,
    /// A NumPy array [N, D]; only to a file.
    Npy,
}

/// The element type of .npy files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
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
    File { file: BufWriter<File>, temporary: PathBuf, path: PathBuf },
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
    id: Option<&'a serde_json::Value>,
    tokens: usize,
    truncated: bool,
    embedding: &'a [f32],
}

impl Writer {
    /// Opens the output for rows of `dim` numbers.
    ///
    /// # Errors
    /// [`CliError::Usage`] for .npy on stdout, [`CliError::Output`] when the file cannot be created.
    pub(crate) fn open(path: Option<&Path>, format: OutputFormat, dtype: Dtype, dim: usize) -> Result<Self, CliError> {
        let is_npy = match format {
            OutputFormat::Npy => true,
            OutputFormat::Jsonl => false,
            OutputFormat::Auto => path.and_then(Path::extension).is_some_and(|extension| extension == "npy"),
        };
        let format = if is_npy { RowFormat::Npy { dim, dtype } } else { RowFormat::Jsonl };
        let target = match path {
            None if is_npy => {
                let message =
                    ".npy cannot go to standard output, since its size stands in front; name a file with --output";
                return Err(CliError::Usage(message.to_owned()));
            }
            None => Target::Stdout(BufWriter::new(io::stdout())),
            Some(path) => create(path).map_err(|source| output_error(path.display().to_string(), source))?,
        };
        let mut writer = Self { target, format, rows: 0 };
        if let RowFormat::Npy { .. } = format {
            writer.write(&[0; NPY_HEADER_BYTES])?;
        }
        Ok(writer)
    }

    /// Writes one embedding.
    pub(crate) fn row(&mut self, embedding: &Embedding, id: Option<&serde_json::Value>) -> Result<(), CliError> {
        let bytes = match self.format {
            RowFormat::Jsonl => {
                let Embedding { values, tokens, truncated } = embedding;
                let row = JsonRow { index: self.rows, id, tokens: *tokens, truncated: *truncated, embedding: values };
                let mut line = serde_json::to_vec(&row).map_err(|error| self.error(error.into()))?;
                line.push(b'\n');
                line
            }
            RowFormat::Npy { dtype: Dtype::F32, .. } => embedding.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            RowFormat::Npy { dtype: Dtype::F16, .. } => {
                embedding.values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
            }
        };
        let _whole_rows = interrupt::hold();
        self.write(&bytes)?;
        self.rows += 1;
        Ok(())
    }

    /// Makes everything written so far visible to a reader of stdout.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        let _whole_rows = interrupt::hold();
        match &mut self.target {
            Target::Stdout(stdout) => stdout.flush(),
            Target::File { .. } => Ok(()),
        }
        .map_err(|source| self.error(source))
    }

    /// Completes the output: only now does the file get its name.
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        self.flush()?;
        let mut unfinished = interrupt::hold();
        self.complete().map_err(|source| self.error(source))?;
        *unfinished = None;
        Ok(())
    }

    fn complete(&mut self) -> io::Result<()> {
        let Target::File { file, temporary, path } = &mut self.target else { return Ok(()) };
        if let RowFormat::Npy { dim, dtype } = self.format {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&npy_header(self.rows, dim, dtype))?;
        }
        file.flush()?;
        file.get_ref().sync_all()?;
        std::fs::rename(temporary, path)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match &mut self.target {
            Target::Stdout(stdout) => stdout.write_all(bytes),
            Target::File { file, .. } => file.write_all(bytes),
        }
        .map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> CliError {
        let what = match &self.target {
            Target::Stdout(_) => "standard output".to_owned(),
            Target::File { path, .. } => path.display().to_string(),
        };
        output_error(what, source)
    }
}

impl Drop for Writer {
    /// Removes a file that was not finished.
    fn drop(&mut self) {
        if let Some(temporary) = interrupt::hold().take() {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn output_error(what: String, source: io::Error) -> CliError {
    CliError::Output { what, source }
}

fn create(path: &Path) -> io::Result<Target> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        // A device or pipe is no file that could be replaced by another.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file; use standard output"));
    }
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".partial-{}", std::process::id()));
    let temporary = path.with_file_name(hidden);
    let mut unfinished = interrupt::hold();
    let file = BufWriter::with_capacity(1 << 16, File::create(&temporary)?);
    *unfinished = Some(temporary.clone());
    Ok(Target::File { file, temporary, path: path.to_owned() })
}

/// The header of a .npy file, version 1.0, padded with spaces to its fixed size
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
fn npy_header(rows: usize, dim: usize, dtype: Dtype) -> Vec<u8> {
    let descr = match dtype {
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
    };
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((NPY_HEADER_BYTES - 10) as u16).to_le_bytes());
    header.extend(dictionary.bytes());
    header.resize(NPY_HEADER_BYTES - 1, b' ');
    header.push(b'\n');
    header
}
