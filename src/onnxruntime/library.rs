//! Finding and loading ONNX Runtime's shared library, once per process.

use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ort::environment::Environment;

use super::places::{Place, absolute, packages_of, virtual_environments};
use crate::error::{Error, ErrorKind, Result, refused_by_the_system};
use crate::options::ModelOptions;
use crate::provider::{self, Provider, Source};

/// The oldest ONNX Runtime that is accepted, as (major, minor): the oldest one on which the graphs were run.
pub const MINIMUM_VERSION: (u32, u32) = provider::MINIMUM_VERSION;

/// The oldest ONNX Runtime that is accepted if it has the OpenVINO provider, and then for that provider only.
pub const OPENVINO_MINIMUM_VERSION: (u32, u32) = provider::OPENVINO_MINIMUM_VERSION;

/// The environment variable that names the library, for every program that uses `ort`.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The file beside an ONNX Runtime library that has the OpenVINO provider.
const OPENVINO_FILE: &str = "libonnxruntime_providers_openvino.so";

/// Where distributions keep shared libraries. The system's loader is asked after these.
const SYSTEM_FOLDERS: [&str; 5] =
    ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// The library of this process. ONNX Runtime can be loaded only once, so the first success is kept.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// The ONNX Runtime library this process has loaded.
#[derive(Debug, Clone)]
pub struct Library {
    path: PathBuf,
    origin: &'static str,
    minor_version: u32,
    environment: Environment,
}

impl Library {
    /// Loads ONNX Runtime, or returns the library that is already loaded.
    ///
    /// Searches, in this order: `path`, a file or folder; the file or folder that `ORT_DYLIB_PATH` names; the executable's
    /// folder and `../lib` beside it; the `onnxruntime` wheel in the active virtual environment (`VIRTUAL_ENV`), then in a
    /// `.venv` in any folder above the executable; the system's library folders. If `path` or the variable is given, nothing
    /// else is searched.
    ///
    /// # Errors
    /// [`ErrorKind::Library`] when no place has a library that loads and is new enough; the message lists each place and what
    /// was wrong with it. Also when this process has already loaded a library other than `path`.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        // A panic in here is a bug elsewhere; the stored value is still whole.
        let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(library) = &*loaded {
            return library.clone().matching(path);
        }
        let mut tried = String::new();
        let mut refused = None;
        let mut reject = |path: &Path, origin: &str, reason: &str| {
            if refused.is_none() && refused_by_the_system(reason).is_some() {
                refused = Some(reason.to_owned());
            }
            tracing::debug!(path = %path.display(), reason, "not usable as ONNX Runtime");
            tried.push_str(&format!("\n  {} ({origin}): {reason}", path.display()));
        };
        for Place { path, origin } in places(path) {
            let files = match libraries_of(&path) {
                Ok(files) => files,
                Err(error) => {
                    reject(&path, origin, &error.to_string());
                    continue;
                }
            };
            if files.is_empty() {
                reject(&path, origin, "no ONNX Runtime library in this folder");
            }
            for file in files {
                match try_load(&file, origin) {
                    Ok(library) => {
                        tracing::info!(path = %file.display(), version = library.version(), "loaded ONNX Runtime");
                        return Ok(loaded.insert(library).clone());
                    }
                    Err(reason) => reject(&file, origin, &reason),
                }
            }
        }
        let (major, minor) = MINIMUM_VERSION;
        let error = Error::new(
            ErrorKind::Library,
            format!(
                "no usable ONNX Runtime library (version {major}.{minor} or newer); searched:{tried}\nget one with `pip install \
                 onnxruntime` in a virtual environment, or name one with `library` or {VARIABLE}"
            ),
        );
        Err(match refused {
            Some(cause) => error.because(cause),
            None => error,
        })
    }

    fn matching(self, path: Option<&Path>) -> Result<Self> {
        let same = |one: &Path, other: &Path| match (one.canonicalize(), other.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            _ => one == other,
        };
        match path {
            Some(path)
                if !same(path, &self.path)
                    && !libraries_of(path).is_ok_and(|files| files.iter().any(|file| same(file, &self.path))) =>
            {
                Err(Error::new(
                    ErrorKind::Library,
                    format!(
                        "{} cannot be loaded: this process has already loaded {}, and ONNX Runtime loads once per process",
                        path.display(),
                        self.path.display()
                    ),
                ))
            }
            _ => Ok(self),
        }
    }

    /// The library's file, or only its name when the system's loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it was found, for example "virtual environment".
    pub fn origin(&self) -> &'static str {
        self.origin
    }

    /// The version without its patch number, for example "1.32".
    pub fn version(&self) -> String {
        format!("1.{}", self.minor_version)
    }

    /// The version as (major, minor).
    pub fn version_numbers(&self) -> (u32, u32) {
        (1, self.minor_version)
    }

    /// ONNX Runtime's own description of its build.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }

    /// The execution providers that this library can run without a [plugin](Library::plugins): those it was built with and
    /// that were tested with a version this old.
    pub fn providers(&self) -> Vec<Provider> {
        let new_enough = |provider: &Provider| self.minor_version >= provider.minimum_version().1;
        Provider::ALL.iter().copied().filter(new_enough).filter(|provider| provider.is_built_in()).collect()
    }

    /// Whether it knows [`ModelOptions::parallel_prepacking`](crate::ModelOptions::parallel_prepacking).
    pub(crate) fn prepacks_in_parallel(&self) -> bool {
        self.minor_version >= 32
    }

    /// Registers the provider's plugin, if it comes as one.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the library lacks the provider, naming what the library has; as [`Library::plugin`].
    pub(crate) fn check_provider(&self, options: &ModelOptions) -> Result<()> {
        let provider = options.provider;
        let has = self.providers();
        if has.contains(&provider) {
            return Ok(());
        }
        let (major, minor) = provider.minimum_version();
        let is_plugin = matches!(provider.spec().source, Source::Plugin(_));
        let problem = if (is_plugin || provider.is_built_in()) && self.minor_version < minor {
            format!("needs ONNX Runtime {major}.{minor}, {} is {}", self.path.display(), self.version())
        } else if is_plugin {
            return self.plugin(options).map(drop);
        } else {
            let names: Vec<_> = has.into_iter().map(Provider::name).collect();
            format!("is not in the loaded ONNX Runtime library, which has {}", names.join(", "))
        };
        let message = format!("execution provider {provider} {problem}; load {} (`library`)", provider.remedy());
        Err(Error::new(ErrorKind::Provider, message))
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}

fn try_load(path: &Path, origin: &'static str) -> std::result::Result<Library, String> {
    let by_name = path.components().count() == 1;
    if !by_name {
        // The system's own reason, which the loader does not pass on: for example, that no more files may be opened.
        File::open(path).map_err(|error| match error.kind() {
            IoErrorKind::NotFound => "no such file or folder".to_owned(),
            _ => error.to_string(),
        })?;
    }
    // `ort` looks for a relative path beside the executable first, and panics where nothing says what that is.
    if path.is_relative() && std::env::current_exe().is_err() {
        return Err("not searched by name, because the system does not say where this program is (is /proc mounted?); name the \
                    library's whole path"
            .to_owned());
    }
    let Some(minor_version) = ort::util::probe(path) else {
        return Err(
            if by_name { "not known to the system's loader" } else { "not an ONNX Runtime 1.x library" }.to_owned()
        );
    };
    // Checked by the file beside it: once the library is loaded, no other can be.
    let with_openvino = path.with_file_name(OPENVINO_FILE).is_file();
    let (major, minor) = if with_openvino { OPENVINO_MINIMUM_VERSION } else { MINIMUM_VERSION };
    if minor_version < minor {
        return Err(format!("version 1.{minor_version} is too old, {major}.{minor} or newer is needed"));
    }
    let builder = ort::init_from(path).map_err(|error| error.to_string())?;
    let environment = builder.with_name("nvembed").with_telemetry(false).build().map_err(|error| error.to_string())?;
    Ok(Library { path: path.to_owned(), origin, minor_version, environment })
}

/// The places to search, in order. An explicit place is the only one.
fn places(path: Option<&Path>) -> Vec<Place> {
    if let Some(path) = path {
        return vec![Place { path: absolute(path), origin: "given as an option" }];
    }
    if let Some(path) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return vec![Place { path: absolute(Path::new(&path)), origin: VARIABLE }];
    }
    let mut places = Vec::new();
    let mut add = |path: PathBuf, origin| places.push(Place { path, origin });
    let executable = std::env::current_exe().unwrap_or_default();
    if let Some(folder) = executable.parent() {
        add(folder.to_owned(), "beside the executable");
        add(folder.join("../lib"), "beside the executable");
    }
    for packages in virtual_environments().iter().flat_map(|environment| packages_of(environment)) {
        add(packages.join("onnxruntime/capi"), "virtual environment");
    }
    for folder in SYSTEM_FOLDERS {
        add(PathBuf::from(folder), "system");
    }
    let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    add(PathBuf::from(name), "system");
    places
}

/// A file itself, and of a folder those that may be the library. A path that does not exist counts as a file.
fn libraries_of(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(path) {
        Ok(entries) => Ok(libraries_in(entries)),
        Err(error) if refused_by_the_system(&error.to_string()).is_some() => Err(error),
        Err(_) if path.is_dir() => Ok(Vec::new()),
        Err(_) => Ok(vec![path.to_owned()]),
    }
}

/// The files in a folder named like ONNX Runtime's library, with or without a version; the plain name first.
fn libraries_in(entries: std::fs::ReadDir) -> Vec<PathBuf> {
    let is_library = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "onnxruntime.dll"
            || name == "libonnxruntime.so"
            || name.starts_with("libonnxruntime.so.")
            || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| is_library(path)).collect();
    paths.sort();
    paths
}
