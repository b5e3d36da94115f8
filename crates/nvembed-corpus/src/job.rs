//! A corpus job: what is there, and what is missing.

use std::path::{Path, PathBuf};

use nvembed::model;

use crate::error::{Error, Result};
use crate::files::{Lock, remove_abandoned};
use crate::manifest::{FILE_NAME, Manifest, Model, Settings};
use crate::options::CorpusOptions;
use crate::part;
use crate::plan::{Plan, State};

/// A job of one process: the parts of its shard that are not there yet.
#[derive(Debug)]
pub struct Job {
    pub(crate) options: CorpusOptions,
    pub(crate) manifest: Manifest,
    /// What the inputs' files were like when the job opened.
    pub(crate) states: Vec<State>,
    pub(crate) missing: Vec<usize>,
    done: usize,
    _lock: Lock,
}

impl Job {
    /// Plans a corpus, or goes on with the one in the folder, and looks at which parts are there. Opens no model.
    ///
    /// # Errors
    /// [`Error::Option`] when the folder's corpus was begun with another model, option or input, when another process is at
    /// work on the same shard, and for an option out of range; [`Error::Input`] for input that cannot be read;
    /// [`Error::Output`] when the folder cannot be written; [`Error::Incomplete`] for parts without their manifest.
    pub fn open(options: CorpusOptions, model: &model::Manifest, provider: &str) -> Result<Self> {
        options.check()?;
        let folder = options.out.clone();
        std::fs::create_dir_all(&folder).map_err(|error| Error::output(&folder, error))?;
        if options.start_over {
            remove(&folder)?;
        }
        let (here, settings) = (Model::of(model, provider), Settings::of(&options, model));
        let manifest = match Manifest::find(&folder)? {
            Some(manifest) => manifest,
            None => begin(&folder, &options, here.clone(), settings.clone())?,
        };
        manifest.check_same(&folder, &here, &settings)?;
        let states = manifest.check_inputs(&folder, &options)?;
        let name = format!(".shard-{}.lock", options.shard.to_string().replace('/', "-of-"));
        let lock = Lock::take(&folder.join(name), &format!("shard {} of {}", options.shard, folder.display()))?;
        remove_abandoned(&folder);
        let mut job = Self { options, manifest, states, missing: Vec::new(), done: 0, _lock: lock };
        for part in (0..job.manifest.parts()).filter(|part| job.options.shard.has(*part)) {
            if job.is_done(part) { job.done += 1 } else { job.missing.push(part) }
        }
        Ok(job)
    }

    /// Whether a part is there and whole. One that is there and is not will be made again.
    pub(crate) fn is_done(&self, part: usize) -> bool {
        let path = self.path_of(part);
        match part::check(&path, &self.manifest, part) {
            Ok(()) => true,
            Err(reason) => {
                if path.exists() {
                    tracing::warn!("{} is made again: {reason}", path.display());
                }
                false
            }
        }
    }

    pub(crate) fn path_of(&self, part: usize) -> PathBuf {
        self.options.out.join(self.manifest.name_of(part))
    }

    /// The folder of the corpus.
    pub fn folder(&self) -> &Path {
        &self.options.out
    }

    /// What the corpus is made of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The parts of this shard that are there.
    pub fn done(&self) -> usize {
        self.done
    }

    /// The parts of this shard that are not.
    pub fn missing(&self) -> &[usize] {
        &self.missing
    }

    /// The rows of the missing parts.
    pub fn rows(&self) -> u64 {
        self.missing.iter().map(|part| self.manifest.rows_of(*part)).map(|rows| rows.end - rows.start).sum()
    }

    /// Bytes of input of the missing parts.
    pub fn bytes(&self) -> u64 {
        self.missing.iter().map(|part| self.manifest.bytes_of(*part)).sum()
    }
}

/// Plans a corpus and writes its manifest. Returns what is then in the folder: another process may have been faster.
fn begin(folder: &Path, options: &CorpusOptions, model: Model, settings: Settings) -> Result<Manifest> {
    if let Some(name) = parts(folder)?.first() {
        return Err(Error::Incomplete(format!(
            "{} has {name}, but no {FILE_NAME} that says what it is; name another folder (`out`), or remove the parts \
             (`start_over`)",
            folder.display()
        )));
    }
    let manifest = Manifest::new(model, settings, Plan::new(options)?);
    manifest.write(folder)?;
    match Manifest::find(folder)? {
        Some(manifest) => Ok(manifest),
        None => Err(Error::output(&folder.join(FILE_NAME), std::io::ErrorKind::NotFound.into())),
    }
}

/// Removes a corpus, and nothing else that may be in the folder.
fn remove(folder: &Path) -> Result<()> {
    let mut names = parts(folder)?;
    // Without it, what is left says that it is no corpus.
    names.insert(0, FILE_NAME.to_owned());
    for name in names {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::output(&path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// The names of the parts in a folder.
fn parts(folder: &Path) -> Result<Vec<String>> {
    let unreadable = |error| Error::output(folder, error);
    let mut names = Vec::new();
    for entry in folder.read_dir().map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        let middle = name.strip_prefix("part-").and_then(|name| name.strip_suffix(".parquet"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let numbers = middle.and_then(|middle| middle.split_once("-of-"));
        if numbers.is_some_and(|(part, parts)| is_number(part) && is_number(parts)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
