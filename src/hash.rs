//! SHA-256 of files and bytes, in lower-case hex; and what shows that a file was written to.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

/// The SHA-256 of bytes.
pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file.
pub(crate) fn sha256_of_file(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// The size of a file and the times of its last changes. Nobody can write to a file without a change of it: on Unix, the time of
/// the last status change cannot be set back.
pub(crate) fn fingerprint(path: &Path) -> std::io::Result<String> {
    let facts = std::fs::metadata(path)?;
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        format!("{}.{:09}", facts.ctime(), facts.ctime_nsec())
    };
    #[cfg(not(unix))]
    let changed = "";
    Ok(format!("{} bytes, modified {:?}, changed {changed}", facts.len(), facts.modified()?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
