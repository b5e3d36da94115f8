//! Files that appear complete: written under a temporary name beside their place and renamed at the end, so that a file of the
//! wanted name is always complete.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::interrupt;
use crate::exit::CliError;

/// A file that does not have its name yet. Dropping it removes it.
pub(crate) struct AtomicFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates a temporary file beside `path`, or beside the file that `path` links to.
    ///
    /// # Errors
    /// [`CliError::Output`] when the place cannot be written, or is something other than a regular file.
    pub(crate) fn create(path: &Path) -> Result<Self, CliError> {
        create(path).map_err(|source| CliError::output(path, source))
    }

    /// Writes to the end.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.file.write_all(bytes).map_err(|source| CliError::output(&self.path, source))
    }

    /// Writes `start` over the start of the file, flushes everything to the disk, and gives the file its name.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub(crate) fn finish(self, start: &[u8]) -> Result<(), CliError> {
        let Self { file, path } = self;
        finish(file, start, &path).map_err(|source| CliError::output(&path, source))
    }
}

/// Writes a whole file.
///
/// # Errors
/// [`CliError::Output`].
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.finish(&[])
}

fn create(path: &Path) -> io::Result<AtomicFile> {
    // The path of a file or folder that does not exist is taken as it is.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut permissions = None;
    if let Ok(existing) = path.metadata() {
        if existing.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        if !existing.is_file() {
            // A device or pipe is not a file that another file can replace.
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
    Ok(AtomicFile { file: BufWriter::with_capacity(1 << 16, file), path })
}

/// Those of any program's new file: everybody may read and write, less the user's umask.
fn new_file_permissions() -> Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

fn finish(mut file: BufWriter<NamedTempFile>, start: &[u8], path: &Path) -> io::Result<()> {
    if !start.is_empty() {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(start)?;
    }
    let file: NamedTempFile = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    File::sync_all(file.as_file())?;
    let mut unfinished = interrupt::unfinished();
    file.persist(path).map_err(|error| error.error)?;
    *unfinished = None;
    Ok(())
}
