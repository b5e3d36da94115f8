//! Files that appear whole, and locks between processes.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// What an unfinished file's name begins and ends with.
const UNFINISHED: (&str, &str) = (".nvembed-", ".partial");

/// A locked temporary file in a folder. Dropping it removes it.
///
/// # Errors
/// [`Error::Output`].
pub(crate) fn unfinished(folder: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let (prefix, suffix) = UNFINISHED;
    let file = builder.prefix(prefix).suffix(suffix).tempfile_in(folder);
    let file = file.map_err(|error| Error::output(folder, error))?;
    // Says that its process lives. A file system without locks leaves unfinished files to their owner.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Removes what killed processes left unfinished.
pub(crate) fn remove_abandoned(folder: &Path) {
    let Ok(entries) = folder.read_dir() else { return };
    let (prefix, suffix) = UNFINISHED;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_unfinished = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix));
        if is_unfinished && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            tracing::info!("removing {}, which a process left unfinished", entry.path().display());
            // If it stays, it is in nobody's way.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Gives a temporary file its name, on the disk too.
///
/// # Errors
/// [`Error::Output`].
pub(crate) fn publish(file: NamedTempFile, path: &Path) -> Result<()> {
    let failed = |error| Error::output(path, error);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_folder(path).map_err(failed)
}

/// Writes a whole file, unless there is one of that name.
///
/// # Errors
/// [`Error::Output`].
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::output(path, error);
    let mut file = unfinished(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => sync_folder(path).map_err(failed),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error.error)),
    }
}

/// A name is on the disk once its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Reads JSON; `None` when there is no such file.
///
/// # Errors
/// [`Error::Incomplete`] when it cannot be read, or is no JSON.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>> {
    let failed =
        |error: &dyn std::fmt::Display| Error::Incomplete(format!("{} cannot be read: {error}", path.display()));
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// Held while a process makes the parts of a shard.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// [`Error::Output`] when another process holds it, or the file cannot be created.
    pub(crate) fn take(path: &Path, what: &str) -> Result<Self> {
        let file = File::create(path).map_err(|error| Error::output(path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Option(format!("another process is at work on {what}")));
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!("{}: this file system has no locks ({error}); run each shard once", path.display());
            }
        }
        Ok(Self { _file: file })
    }
}
