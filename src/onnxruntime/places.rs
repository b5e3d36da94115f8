//! Where libraries are searched.

use std::path::{Path, PathBuf};

/// A place where a library may be (a file, a folder of libraries, or a name for the loader), and why it is searched.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) origin: &'static str,
}

/// A relative path is relative to the working directory; `ort` would look beside the executable first.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The active virtual environment, then a `.venv` in any folder above the executable.
pub(super) fn virtual_environments() -> Vec<PathBuf> {
    let executable = std::env::current_exe().unwrap_or_default();
    let active = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let above = executable.ancestors().skip(1).map(|folder| folder.join(".venv"));
    active.into_iter().chain(above).collect()
}

/// Where a virtual environment keeps packages, for each Python version in it.
pub(super) fn packages_of(environment: &Path) -> Vec<PathBuf> {
    let Ok(pythons) = std::fs::read_dir(environment.join("lib")) else { return Vec::new() };
    pythons.flatten().map(|python| python.path().join("site-packages")).collect()
}
