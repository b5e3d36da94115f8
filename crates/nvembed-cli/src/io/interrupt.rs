//! Ctrl-C, SIGTERM and SIGHUP: end at once, in the middle of a run if need be, but not in the middle of a written row.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The file or folder that is being written and must not survive an interruption; held only for moments.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);
/// Held by whoever writes a row, for as long as that takes.
static ROW: Mutex<()> = Mutex::new(());

/// Locks the name of what is unfinished: to set it, or to give it its final name and clear it.
pub(crate) fn unfinished() -> MutexGuard<'static, Option<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks the output while a whole row is written.
pub(crate) fn row() -> MutexGuard<'static, ()> {
    ROW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on an interruption removes what is unfinished and exits with code 130. Signals that the caller had ignored
/// (as `nohup` and a script's background jobs do) stay so.
#[cfg(unix)]
pub(crate) fn watch() -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let ignored = ignored_signals();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = Signals::new(wanted)?;
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            end();
        }
    })?;
    Ok(())
}

/// Elsewhere the system's default holds: the program ends, and the unfinished file keeps its temporary name.
#[cfg(not(unix))]
pub(crate) fn watch() -> anyhow::Result<()> {
    Ok(())
}

/// Both locks are kept until the process is gone, so that nothing is created, written or renamed behind our back. A row
/// that cannot be written, since its reader stalls, is waited for a moment only. Leaves without running destructors:
/// those of ONNX Runtime crash while a run is under way.
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
        // Nothing is left to report to; the file's temporary name already says that it is not finished.
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    signal_hook::low_level::exit(super::exit::INTERRUPTED)
}

/// The signals this process was started with as ignored, bit n - 1 for signal n; where it cannot be told, none.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
