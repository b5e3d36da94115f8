//! `nvembed prepare`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{mini, root};
use crate::{as_in_the_foreground, nvembed, run};

/// A folder for a cache, on the disk that has room for it.
fn cache() -> tempfile::TempDir {
    tempfile::tempdir_in(root().join("build")).unwrap()
}

#[test]
fn the_program_prepares_once_and_prints_where() {
    let cache = cache();
    let prepare = |place: &Path| {
        let mut command = nvembed();
        command.args(["prepare", "--model"]).arg(mini("int8")).arg("--cache").arg(place);
        run(&mut command, b"")
    };
    let (first, second) = (prepare(cache.path()), prepare(cache.path()));
    assert!(first.status.success(), "{first:?}");
    assert_eq!(first.stdout, second.stdout);
    let entry = PathBuf::from(String::from_utf8(first.stdout).unwrap().trim_end());
    let facts: serde_json::Value = serde_json::from_slice(&fs::read(entry.join("entry.json")).unwrap()).unwrap();
    assert!(facts["depends_on"]["onnxruntime"].as_str().unwrap().starts_with("1."), "{facts}");
    let mut embed = nvembed();
    embed.args(["embed", "-v", "--quiet", "--model"]).arg(mini("int8")).arg("--cache").arg(cache.path());
    let log = String::from_utf8(run(&mut embed, b"text\n").stderr).unwrap();
    assert!(log.contains(entry.to_str().unwrap()), "{log}");
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(prepare(&file).status.code(), Some(7));
}

#[cfg(unix)]
#[test]
fn an_interrupted_preparation_leaves_no_files() {
    let cache = cache();
    let mut command = nvembed();
    command.args(["prepare", "--model"]).arg(mini("fp32")).arg("--cache").arg(cache.path());
    let mut child = as_in_the_foreground(&command).spawn().unwrap();
    let folders = || -> Vec<_> {
        let entries = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    };
    while folders().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "ended before it could be interrupted");
        std::thread::yield_now();
    }
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(folders(), Vec::<PathBuf>::new());
}
