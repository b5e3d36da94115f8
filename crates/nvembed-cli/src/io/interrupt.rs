//! Ctrl-C, SIGTERM and SIGHUP end the program at once, in the middle of a run if need be, but not in the middle of a row.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(unix)]
use crate::exit::CliError;

/// The file or folder that is being written and must not survive an interruption. Held only briefly.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);
/// Held while a row is written.
static ROW: Mutex<()> = Mutex::new(());

/// Locks the name of the unfinished file: to set it, or to give the file its final name and clear it.
pub(crate) fn unfinished() -> MutexGuard<'static, Option<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks the output while a whole row is written.
pub(crate) fn row() -> MutexGuard<'static, ()> {
    ROW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on an interruption removes the unfinished file and exits with code 130. Signals that were ignored when the
/// program started (by `nohup`, or in a script's background job) stay ignored.
#[cfg(unix)]
pub(crate) fn watch() -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let ignored = ignored_signals();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = Signals::new(wanted).map_err(CliError::no_signals)?;
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                end();
            }
        })
        .map_err(CliError::no_signals)?;
    Ok(())
}

/// On other systems the default applies: the program ends, and the unfinished file keeps its temporary name.
#[cfg(not(unix))]
pub(crate) fn watch() -> anyhow::Result<()> {
    Ok(())
}

/// Both locks are held until the process is gone, so that nothing more is created, written or renamed. A row that cannot be
/// written, because its reader stalls, is waited for only briefly. No destructors run: those of ONNX Runtime crash during a
/// run.
#[cfg(unix)]
fn end() -> ! {
    let mut row = ROW.try_lock();
    for _ in 0..20 {
        if row.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        row = ROW.try_lock();
    }
    let mut unfinished = unfinished();
    if let Some(path) = unfinished.take() {
        // Nobody is left to report to, and the temporary name already says that the file is not finished.
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    signal_hook::low_level::exit(crate::exit::INTERRUPTED)
}

/// The signals that were ignored when this process started, bit n - 1 for signal n; none where the system does not say.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
