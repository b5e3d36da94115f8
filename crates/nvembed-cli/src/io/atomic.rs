//! Files that appear complete: written under a temporary name beside their place and renamed at the end, so that a file of the
//! wanted name is always complete. A file that cannot be replaced, such as one that is mounted into a container, gets the
//! complete content at the end. What is complete is never thrown away.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::interrupt;
use crate::exit::CliError;

const PREFIX: &str = ".nvembed-";
const SUFFIX: &str = ".partial";
/// How long after its last change a file without a lock is a leftover.
const SETTLED: Duration = Duration::from_secs(60);
/// As Linux counts them.
const MOST_LINKS: usize = 40;

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
    let path = followed(path);
    let mut permissions = None;
    if let Ok(existing) = path.metadata() {
        if existing.is_dir() {
            return Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder"));
        }
        if !existing.is_file() {
            // A device or pipe is not a file that another file can replace.
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file; use standard output"));
        }
        if existing.permissions().readonly() {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "it is read-only"));
        }
        // What cannot be written is known before anything is computed.
        File::options().append(true).open(&path)?;
        permissions = Some(existing.permissions());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unfinished = interrupt::unfinished();
    let beside = partial_file(folder, permissions.clone());
    let file = match beside {
        // A file mounted into a folder that may not be written: the output is copied into it at the end.
        Err(error) if permissions.is_some() && is_forbidden(&error) => partial_file(&std::env::temp_dir(), None)?,
        beside => beside?,
    };
    *unfinished = Some(file.path().to_owned());
    Ok(AtomicFile { file: BufWriter::with_capacity(1 << 16, file), path })
}

/// A new temporary file in `folder`, locked for as long as it is open. Those that nobody has locked are leftovers of programs
/// that were killed, and are removed.
fn partial_file(folder: &Path, permissions: Option<Permissions>) -> io::Result<NamedTempFile> {
    remove_leftovers(folder);
    let file = tempfile::Builder::new()
        .prefix(PREFIX)
        .suffix(SUFFIX)
        .permissions(permissions.unwrap_or_else(new_file_permissions))
        .tempfile_in(folder)?;
    // Where there are no locks, nobody removes the file as a leftover either.
    let _ = file.as_file().try_lock();
    Ok(file)
}

fn remove_leftovers(folder: &Path) {
    let Ok(entries) = folder.read_dir() else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_partial = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        // Between its creation and its lock, a file of a running program looks like a leftover.
        let is_old = entry.metadata().is_ok_and(|file| {
            file.is_file() && file.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > SETTLED))
        });
        if is_partial
            && is_old
            && let Ok(file) = File::options().append(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            tracing::debug!(file = %entry.path().display(), "removing the leftover of a program that was killed");
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The file that a path leads to, through links, also where the last of them leads to a file that does not exist yet.
fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if let Ok(file) = path.canonicalize() {
            return file;
        }
        let Ok(target) = path.read_link() else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
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
    let mut file: NamedTempFile = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    sync(file.as_file())?;
    let mut unfinished = interrupt::unfinished();
    let is_beside = file.path().parent()
        == path.parent().map(|folder| if folder == Path::new("") { Path::new(".") } else { folder });
    if is_beside {
        match file.persist(path) {
            Ok(_) => {
                *unfinished = None;
                return Ok(());
            }
            // A mounted file cannot be replaced by another one, and some file systems do not rename.
            Err(error) if is_forbidden(&error.error) => file = error.file,
            Err(error) => return Err(kept(error.file, error.error, &mut unfinished)),
        }
    }
    match copy(&mut file, path) {
        Ok(()) => {
            *unfinished = None;
            Ok(())
        }
        Err(error) => Err(kept(file, error, &mut unfinished)),
    }
}

/// Writes the content into the file that is there.
fn copy(from: &mut NamedTempFile, path: &Path) -> io::Result<()> {
    let mut target = File::create(path)?;
    from.as_file_mut().seek(SeekFrom::Start(0))?;
    io::copy(from.as_file_mut(), &mut target)?;
    sync(&target)
}

/// Keeps a complete file that cannot get its name, and adds to the error where it is.
fn kept(file: NamedTempFile, error: io::Error, unfinished: &mut Option<PathBuf>) -> io::Error {
    *unfinished = None;
    let name = file.path().with_extension("complete");
    match file.keep() {
        Ok((_, path)) => {
            let path = if std::fs::rename(&path, &name).is_ok() { name } else { path };
            io::Error::new(error.kind(), format!("{error}; the complete output was kept: {}", path.display()))
        }
        Err(_) => error,
    }
}

/// Makes the disk have the content. A file system that cannot promise that is no failure.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// Whether an operation on names was refused where reading and writing the file itself may still be possible.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::Unsupported
            | ErrorKind::InvalidInput
    )
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_link_to_a_file_that_is_not_there_yet_is_followed() {
        let (folder, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, second, real) = (folder.path().join("a"), folder.path().join("b"), disk.path().join("real"));
        std::os::unix::fs::symlink("b", &link).unwrap();
        std::os::unix::fs::symlink(&real, &second).unwrap();
        write_file(&link, b"content").unwrap();
        assert!(link.is_symlink() && second.is_symlink() && !real.is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"content");
        let circle = folder.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert_eq!(followed(&circle), circle);
    }

    #[test]
    fn leftovers_of_killed_programs_are_removed_and_those_of_running_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, age: u64| {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            (path, file)
        };
        let (killed, lock) = file(".nvembed-abc.partial", 3600);
        drop(lock);
        let (running, held) = file(".nvembed-def.partial", 3600);
        held.lock().unwrap();
        let (new, lock) = file(".nvembed-ghi.partial", 1);
        drop(lock);
        let (other, lock) = file("other.partial", 3600);
        drop(lock);
        write_file(&folder.path().join("out"), b"x").unwrap();
        assert!(!killed.exists() && running.exists() && new.exists() && other.exists());
        drop(held);
        write_file(&folder.path().join("out"), b"y").unwrap();
        assert!(!running.exists() && new.exists());
    }

    #[test]
    fn an_output_being_written_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let writing = AtomicFile::create(&folder.path().join("out")).unwrap();
        let partial = folder.path().read_dir().unwrap().next().unwrap().unwrap().path();
        assert!(File::open(&partial).unwrap().try_lock().is_err());
        drop(writing);
        assert!(!partial.exists());
    }

    #[test]
    fn a_complete_output_that_cannot_be_put_in_place_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"content").unwrap();
        std::fs::create_dir(&path).unwrap();
        let message = file.finish(&[]).unwrap_err().to_string();
        let kept = message.rsplit("was kept: ").next().unwrap();
        assert_eq!(std::fs::read(kept).unwrap(), b"content", "{message}");
    }
}
