//! Embeddings to a file or stdout, as JSON lines or .npy; any other file that is written at once.
//!
//! A file is written under a temporary name beside its place and renamed when it is whole, so that a file of the wanted
//! name is always complete.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use half::f16;
use nvembed::Embedding;
use serde::Serialize;
use serde_json::value::RawValue;
use tempfile::NamedTempFile;

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
    File {
        file: BufWriter<NamedTempFile>,
        path: PathBuf,
    },
    /// A file that has its name.
    Finished,
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
    /// [`CliError::Usage`] for .npy on stdout or an element type of JSON lines, [`CliError::Output`] when the file cannot
    /// be created.
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
            (true, dtype) => RowFormat::Npy { dim, dtype: dtype.unwrap_or(Dtype::F32) },
            (false, None) => RowFormat::Jsonl,
            (false, Some(_)) => {
                return Err(CliError::Usage("--dtype is for .npy files; JSON lines hold decimal numbers".to_owned()));
            }
        };
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
    pub(crate) fn row(&mut self, embedding: &Embedding, id: Option<&RawValue>) -> Result<(), CliError> {
        let bytes = match self.format {
            RowFormat::Jsonl => {
                let Embedding { values, tokens, truncated, .. } = embedding;
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
        let _whole_row = interrupt::row();
        self.write(&bytes)?;
        self.rows += 1;
        Ok(())
    }

    /// Makes everything written so far visible to a reader of stdout.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        let _whole_rows = interrupt::row();
        match &mut self.target {
            Target::Stdout(stdout) => stdout.flush(),
            Target::File { .. } | Target::Finished => Ok(()),
        }
        .map_err(|source| self.error(source))
    }

    /// Completes the output: only now does the file get its name.
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        self.flush()?;
        match std::mem::replace(&mut self.target, Target::Finished) {
            Target::File { file, path } => complete(file, &path, self.format, self.rows)
                .map_err(|source| output_error(path.display().to_string(), source)),
            Target::Stdout(_) | Target::Finished => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match &mut self.target {
            Target::Stdout(stdout) => stdout.write_all(bytes),
            Target::File { file, .. } => file.write_all(bytes),
            Target::Finished => Ok(()),
        }
        .map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> CliError {
        let what = match &self.target {
            Target::Stdout(_) | Target::Finished => "standard output".to_owned(),
            Target::File { path, .. } => path.display().to_string(),
        };
        output_error(what, source)
    }
}

/// Writes a file, which gets its name only when it is complete.
///
/// # Errors
/// [`CliError::Output`].
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let mut writer = Writer::open(Some(path), OutputFormat::Jsonl, None, 0)?;
    writer.write(bytes)?;
    writer.finish()
}

fn output_error(what: String, source: io::Error) -> CliError {
    CliError::Output { what, source }
}

/// A temporary file beside the one to write, which is what a symbolic link stands for. Dropping it removes it.
fn create(path: &Path) -> io::Result<Target> {
    // Of a file that is not there yet, or of a folder that is not, the path is taken as it is.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut permissions = None;
    if let Ok(existing) = path.metadata() {
        if existing.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        if !existing.is_file() {
            // A device or pipe is no file that could be replaced by another.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file; use standard output"));
        }
        if existing.permissions().readonly() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only"));
        }
        permissions = Some(existing.permissions());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unfinished = interrupt::unfinished();
    let file = tempfile::Builder::new()
        .prefix(".nvembed-")
        .suffix(".partial")
        .permissions(permissions.unwrap_or_else(new_file_permissions))
        .tempfile_in(folder)?;
    *unfinished = Some(file.path().to_owned());
    Ok(Target::File { file: BufWriter::with_capacity(1 << 16, file), path })
}

/// What any program's new file has: all may read and write, less the user's umask.
fn new_file_permissions() -> Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

fn complete(mut file: BufWriter<NamedTempFile>, path: &Path, format: RowFormat, rows: usize) -> io::Result<()> {
    if let RowFormat::Npy { dim, dtype } = format {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&npy_header(rows, dim, dtype))?;
    }
    let file: NamedTempFile = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    File::sync_all(file.as_file())?;
    let mut unfinished = interrupt::unfinished();
    file.persist(path).map_err(|error| error.error)?;
    *unfinished = None;
    Ok(())
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
