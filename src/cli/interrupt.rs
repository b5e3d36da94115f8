//! Ctrl-C and SIGTERM: end at once, in the middle of a run if need be, but never in the middle of a written row.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::exit::INTERRUPTED;

/// The file that is being written and must not survive an interruption.
///
/// Whoever writes output holds this lock for each whole row, so that the program never ends inside one.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Locks the output against interruption.
pub(crate) fn hold() -> MutexGuard<'static, Option<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on an interruption removes the unfinished file and exits with code 130.
pub(crate) fn watch() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if let Some(path) = hold().take() {
            // Nothing is left to report to; the file's temporary name already says that it is not finished.
            let _ = std::fs::remove_file(path);
        }
        std::process::exit(INTERRUPTED);
    })?;
    Ok(())
}
