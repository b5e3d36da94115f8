//! A folder of entries, each named by everything that it depends on.
//!
//! An entry is a folder `<kind>-<digest>` with its files and `entry.json`, which lists them with sizes and hashes and spells out
//! what the digest stands for. It is made under another name and renamed when it is complete. Makers of the same entry take
//! turns by locking a file beside it; the system releases the lock of one that dies. Another file beside it says when its bytes
//! were last read and found right.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind as IoErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::hash::{fingerprint, sha256, sha256_of_file};

/// The file that makes a folder an entry.
const ENTRY_FILE: &str = "entry.json";
/// What ends the name of an entry that is being made.
const PARTIAL: &str = ".partial";

/// Everything that an entry depends on, as names and values.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    kind: &'static str,
    parts: BTreeMap<&'static str, String>,
}

impl Key {
    /// A key of entries of one kind, a word that starts their folders' names.
    pub(crate) fn new<const N: usize>(kind: &'static str, parts: [(&'static str, String); N]) -> Self {
        Self { kind, parts: parts.into() }
    }

    /// The name of the entry's folder: the kind, and 64 bits of the SHA-256 of all names and values.
    fn folder_name(&self) -> String {
        // The lengths keep parts apart that would otherwise read the same.
        let parts = self.parts.iter().map(|(name, value)| format!("{}:{name}{}:{value}", name.len(), value.len()));
        format!("{}-{}", self.kind, &sha256(parts.collect::<String>())[..16])
    }
}

/// What `entry.json` holds.
#[derive(Serialize, Deserialize)]
struct Contents {
    depends_on: BTreeMap<String, String>,
    files: BTreeMap<String, FileFacts>,
}

/// The size and hash of a file of an entry.
#[derive(Serialize, Deserialize)]
struct FileFacts {
    bytes: u64,
    sha256: String,
}

/// A folder of entries.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in `folder`, which need not exist.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The entry's folder, if it exists and its files have the bytes they were made with. They are read, which takes a second
    /// for each gigabyte or so, when one of them was written to since they were read last, or if `verify_hashes`.
    ///
    /// A damaged entry counts as missing, with a warning in the log: everything here can be made again.
    pub(crate) fn find(&self, key: &Key, verify_hashes: bool) -> Option<PathBuf> {
        let entry = self.folder.join(key.folder_name());
        if !entry.is_dir() {
            return None;
        }
        match check(&entry, verify_hashes) {
            Ok(()) => Some(entry),
            Err(reason) => {
                tracing::warn!(entry = %entry.display(), reason, "ignoring a damaged cache entry, which can be deleted");
                None
            }
        }
    }

    /// Makes an entry: `make` fills the empty folder it is given. An existing entry is returned unchanged.
    ///
    /// Waits while another process or thread makes the same entry.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] when the folder cannot be written, and what `make` returns. Nothing is left then.
    pub(crate) fn make(&self, key: &Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = key.folder_name();
        let entry = self.folder.join(&name);
        fs::create_dir_all(&self.folder).map_err(|error| cannot_write(&self.folder, &error))?;
        let _lock = lock(&self.folder.join(format!("{name}.lock")))?;
        if let Some(entry) = self.find(key, true) {
            return Ok(entry);
        }
        self.remove_leftovers();
        // Only the holder of the lock is here: leftovers are a dead maker's, or damaged.
        let partial = self.folder.join(format!("{name}{PARTIAL}"));
        for left in [&partial, &entry] {
            remove(left).map_err(|error| cannot_write(left, &error))?;
        }
        let made = fs::create_dir(&partial)
            .map_err(|error| cannot_write(&partial, &error))
            .and_then(|()| make(&partial))
            .and_then(|()| seal(&partial, key).map_err(|error| cannot_write(&partial, &error)))
            .and_then(|()| put_in_place(&partial, &entry).map_err(|error| cannot_write(&entry, &error)));
        if let Err(error) = made {
            if let Err(left) = remove(&partial) {
                tracing::warn!(folder = %partial.display(), %left, "cannot remove the unfinished entry");
            }
            return Err(error);
        }
        if let Ok(found) = contents(&entry).and_then(|contents| fingerprints(&entry, &contents)) {
            note_seen(&entry, &found);
        }
        Ok(entry)
    }

    /// Removes what dead makers of other entries left: whoever makes one holds its lock. An entry can be as large as the model.
    fn remove_leftovers(&self) {
        for file in self.folder.read_dir().into_iter().flatten().flatten() {
            let name = file.file_name();
            let Some(entry) = name.to_str().and_then(|name| name.strip_suffix(PARTIAL)) else { continue };
            let Ok(lock) = File::options().write(true).open(self.folder.join(format!("{entry}.lock"))) else {
                continue;
            };
            if lock.try_lock().is_ok() {
                tracing::debug!(folder = %file.path().display(), "removing what a killed process left");
                // Nobody asked for this entry: it may stay.
                let _ = remove(&file.path());
            }
        }
    }
}

/// Gives a complete entry its name. Where folders cannot be renamed, its files are moved one by one, the file that makes it an
/// entry last: the work of an hour is not thrown away for its name.
fn put_in_place(partial: &Path, entry: &Path) -> io::Result<()> {
    if fs::rename(partial, entry).is_ok() {
        return Ok(());
    }
    let moved = move_files(partial, entry);
    if moved.is_err() {
        // Half an entry is no entry, and the error that counts is the first.
        let _ = remove(entry);
    }
    moved
}

fn move_files(partial: &Path, entry: &Path) -> io::Result<()> {
    fs::create_dir(entry)?;
    let mut names = fs::read_dir(partial)?.map(|file| Ok(file?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_by_key(|name| name == ENTRY_FILE);
    for name in names {
        let (from, to) = (partial.join(&name), entry.join(&name));
        if fs::rename(&from, &to).is_err() {
            fs::copy(&from, &to)?;
            sync(&to)?;
        }
    }
    remove(partial)
}

/// Makes the disk have a file's content. A file system that cannot promise that is no failure.
fn sync(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(error) if matches!(error.kind(), IoErrorKind::InvalidInput | IoErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// Waits for the lock of an entry. It is released when the returned file is closed.
fn lock(path: &Path) -> Result<File> {
    let failed = |error: std::io::Error| cannot_write(path, &error);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            tracing::info!(lock = %path.display(), "waiting for another process or thread that makes this entry");
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.lock().map_err(failed)?;
    Ok(file)
}

/// Writes `entry.json`, and flushes everything to the disk.
fn seal(folder: &Path, key: &Key) -> std::io::Result<()> {
    let mut files = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        sync(&file.path())?;
        let facts = FileFacts { bytes: file.metadata()?.len(), sha256: sha256_of_file(&file.path())? };
        files.insert(file.file_name().to_string_lossy().into_owned(), facts);
    }
    let depends_on = key.parts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let text = serde_json::to_string_pretty(&Contents { depends_on, files })?;
    let path = folder.join(ENTRY_FILE);
    fs::write(&path, text)?;
    sync(&path)
}

fn check(entry: &Path, verify_hashes: bool) -> std::result::Result<(), String> {
    let contents = contents(entry)?;
    let found = fingerprints(entry, &contents)?;
    if !verify_hashes && fs::read_to_string(seen_file(entry)).is_ok_and(|seen| seen == found) {
        return Ok(());
    }
    for (name, wanted) in contents.files {
        let file = entry.join(&name);
        let bytes = fs::metadata(&file).map_err(|error| format!("{name}: {error}"))?.len();
        if bytes != wanted.bytes {
            return Err(format!("{name} has {bytes} bytes, not {}", wanted.bytes));
        }
        if sha256_of_file(&file).map_err(|error| format!("{name}: {error}"))? != wanted.sha256 {
            return Err(format!("{name} was changed: its sha256 is not {}", wanted.sha256));
        }
    }
    note_seen(entry, &found);
    Ok(())
}

fn contents(entry: &Path) -> std::result::Result<Contents, String> {
    let text = fs::read_to_string(entry.join(ENTRY_FILE)).map_err(|error| format!("{ENTRY_FILE}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{ENTRY_FILE}: {error}"))
}

/// What shows that a file of the entry was written to.
fn fingerprints(entry: &Path, contents: &Contents) -> std::result::Result<String, String> {
    let files = contents.files.keys().map(String::as_str).chain([ENTRY_FILE]);
    let of_file = |name| fingerprint(&entry.join(name)).map(|found| format!("{name}: {found}\n"));
    files.map(|name| of_file(name).map_err(|error| format!("{name}: {error}"))).collect()
}

/// The file that holds the fingerprints of an entry when its bytes were right. It lies beside the entry.
fn seen_file(entry: &Path) -> PathBuf {
    entry.with_extension("seen")
}

fn note_seen(entry: &Path, fingerprints: &str) {
    let file = seen_file(entry);
    if let Err(error) = fs::write(&file, fingerprints) {
        tracing::info!(file = %file.display(), %error, "cannot be written: the entry is read whenever it is opened");
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != IoErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    let message = format!("{} cannot be written; name another folder with `cache`", path.display());
    Error::new(ErrorKind::Cache, message).because(std::io::Error::new(error.kind(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(value: &str) -> Key {
        Key::new("thing", [("one", value.to_owned()), ("two", String::new())])
    }

    fn write(content: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |folder| {
            fs::write(folder.join("file"), content).unwrap();
            Ok(())
        }
    }

    #[test]
    fn an_entry_is_found_by_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("new/cache"));
        assert_eq!(cache.find(&key("a"), false), None);
        let entry = cache.make(&key("a"), write("content")).unwrap();
        assert_eq!(cache.find(&key("a"), false), Some(entry.clone()));
        assert_eq!(fs::read(entry.join("file")).unwrap(), b"content");
        assert_eq!(cache.find(&key("b"), false), None);
        let swapped = Key::new("thing", [("one", String::new()), ("two", "a".to_owned())]);
        assert_eq!(cache.find(&swapped, false), None);
    }

    #[test]
    fn an_entry_is_made_once_by_many_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = |folder: &Path| {
                        made.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        write("content")(folder)
                    };
                    cache.make(&key("a"), make).unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_failed_maker_leaves_nothing_and_the_next_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        let fail = |folder: &Path| {
            fs::write(folder.join("half"), "half").unwrap();
            Err(Error::new(ErrorKind::Model, "no".to_owned()))
        };
        assert_eq!(cache.make(&key("a"), fail).unwrap_err().kind(), ErrorKind::Model);
        assert_eq!(cache.find(&key("a"), false), None);
        let folders = fs::read_dir(folder.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
        assert_eq!(folders.count(), 0);
        // What a killed maker leaves.
        let partial = folder.path().join(format!("{}.partial", key("a").folder_name()));
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join("half"), "half").unwrap();
        let entry = cache.make(&key("a"), write("content")).unwrap();
        assert!(!entry.join("half").exists() && !partial.exists());
    }

    #[test]
    fn a_damaged_entry_is_not_found_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        let damages: [fn(&Path); 4] = [
            |entry| fs::write(entry.join("file"), "cont").unwrap(),
            |entry| fs::remove_file(entry.join("file")).unwrap(),
            |entry| fs::remove_file(entry.join(ENTRY_FILE)).unwrap(),
            |entry| fs::write(entry.join(ENTRY_FILE), "{").unwrap(),
        ];
        for damage in damages {
            damage(&cache.make(&key("a"), write("content")).unwrap());
            assert_eq!(cache.find(&key("a"), false), None);
            let entry = cache.make(&key("a"), write("content")).unwrap();
            assert_eq!(fs::read(entry.join("file")).unwrap(), b"content");
        }
    }

    #[test]
    fn a_changed_byte_is_seen_and_bytes_are_read_only_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        let entry = cache.make(&key("a"), write("content")).unwrap();
        let modified = fs::metadata(entry.join("file")).unwrap().modified().unwrap();
        fs::write(entry.join("file"), "cOntent").unwrap();
        // As a copy does that keeps the times.
        File::options().write(true).open(entry.join("file")).unwrap().set_modified(modified).unwrap();
        assert_eq!(cache.find(&key("a"), false), None);
        // Only what was noted says that nothing changed since the bytes were read.
        note_seen(&entry, &fingerprints(&entry, &contents(&entry).unwrap()).unwrap());
        assert_eq!(cache.find(&key("a"), false), Some(entry.clone()));
        assert_eq!(cache.find(&key("a"), true), None);
        cache.make(&key("a"), write("content")).unwrap();
        assert_eq!(cache.find(&key("a"), true), Some(entry));
    }

    #[test]
    fn what_a_killed_maker_of_another_entry_left_is_removed_and_what_is_being_made_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        let partial = |value: &str| {
            let partial = folder.path().join(format!("{}{PARTIAL}", key(value).folder_name()));
            fs::create_dir(&partial).unwrap();
            fs::write(partial.join("half"), "half").unwrap();
            (partial, lock(&folder.path().join(format!("{}.lock", key(value).folder_name()))).unwrap())
        };
        let (dead, released) = partial("dead");
        let (running, held) = partial("running");
        drop(released);
        cache.make(&key("a"), write("content")).unwrap();
        assert!(!dead.exists() && running.exists());
        drop(held);
        cache.make(&key("b"), write("content")).unwrap();
        assert!(!running.exists());
    }

    #[test]
    fn an_entry_gets_its_name_where_folders_cannot_be_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let (partial, entry) = (folder.path().join("a.partial"), folder.path().join("a"));
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join("file"), "content").unwrap();
        seal(&partial, &key("a")).unwrap();
        move_files(&partial, &entry).unwrap();
        assert_eq!(check(&entry, true), Ok(()));
        assert!(!partial.exists());
        // A place that is taken by something else is left as it was.
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join("file"), "content").unwrap();
        let file = folder.path().join("taken");
        fs::write(&file, "mine").unwrap();
        assert!(put_in_place(&partial, &file).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Cache::new(file.clone()).make(&key("a"), write("content")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cache);
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
}
