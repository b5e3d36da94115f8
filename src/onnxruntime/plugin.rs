//! Execution providers in libraries of their own: finding one, registering it with ONNX Runtime, and its devices.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::AsPointer;
use ort::device::Device;
use ort::memory::DeviceType;
use ort::session::builder::SessionBuilder;

use super::Library;
use super::explain::explain;
use super::places::{Place, absolute, packages_of, virtual_environments};
use crate::error::{Error, ErrorKind, Result};
use crate::options::ModelOptions;
use crate::provider::{MAX_NAME, Package, PluginSpec, Provider, Source};

/// What ONNX Runtime's names of execution providers end in. It may be left out.
const SUFFIX: &str = "ExecutionProvider";

/// The libraries that were registered, and the addresses of the devices that each offers. ONNX Runtime keeps both until the
/// process ends.
static REGISTERED: Mutex<Vec<(PathBuf, Vec<usize>)>> = Mutex::new(Vec::new());

/// A plugin that is registered, and offers devices for a provider.
#[derive(Debug, Clone)]
pub struct Plugin {
    provider: Provider,
    path: PathBuf,
    origin: &'static str,
    /// The name that it gives the provider.
    ep_name: String,
    devices: Vec<PluginDevice>,
}

/// A device that a plugin offers.
#[derive(Debug, Clone)]
struct PluginDevice {
    address: usize,
    description: String,
}

impl Plugin {
    /// The provider that it is for.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The file of the library.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it was found, for example "virtual environment".
    pub fn origin(&self) -> &'static str {
        self.origin
    }

    /// The name that it gives the provider, for example `OpenVINOExecutionProvider`.
    pub fn ep_name(&self) -> &str {
        &self.ep_name
    }

    /// The devices that it offers on this machine, for example "GPU of NVIDIA".
    pub fn devices(&self) -> Vec<&str> {
        self.devices.iter().map(|device| device.description.as_str()).collect()
    }

    /// The session options with the provider on the device of this number, and with its own options.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when ONNX Runtime or the plugin refuses them.
    pub(super) fn attach(
        &self,
        library: &Library,
        builder: SessionBuilder,
        device: usize,
        pairs: &[(String, String)],
    ) -> Result<SessionBuilder> {
        let Some(wanted) = self.devices.get(device) else {
            let message = format!(
                "{} offers {}, numbered from 0: there is no device {device}",
                self.path.display(),
                self.offer()
            );
            return Err(Error::new(ErrorKind::Provider, message));
        };
        let devices = library.environment().devices().filter(|device| address(device) == wanted.address);
        // `ort` takes the options of several providers in one list.
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| (format!("{}.{name}", self.ep_name), value.clone())).collect();
        builder.with_devices(devices, Some(&pairs)).map_err(|error| {
            let message = format!("execution provider {} could not be started", self.provider);
            let cause = error.to_string();
            let reason = explain(&cause).map_or_else(String::new, |reason| format!(": {reason}"));
            Error::new(ErrorKind::Provider, message + &reason).because(cause)
        })
    }

    fn offer(&self) -> String {
        self.devices().join(", ")
    }
}

impl Library {
    /// The plugin with the provider of the options, registered; `None` when the provider is part of the library.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when there is no such file, it is no plugin, it is for another ONNX Runtime, or it offers no
    /// device for the provider on this machine.
    pub fn plugin(&self, options: &ModelOptions) -> Result<Option<Plugin>> {
        let provider = options.provider;
        let Source::Plugin(spec) = provider.spec().source else { return Ok(None) };
        let Place { path, origin } = match (&options.provider_library, &spec.package) {
            (Some(path), _) => Place { path: absolute(path), origin: "given as an option" },
            (None, Some(package)) => self.find(provider, package)?,
            // ModelOptions::check asks for the file first.
            (None, None) => return Err(provider.check_name(false).err().unwrap_or_else(|| missing(provider, ""))),
        };
        let offered = self.register(provider, &spec, &path)?;
        let devices = self.environment().devices().filter(|device| offered.contains(&address(device)));
        let devices: Vec<_> = devices.map(|device| (name_of(&device), device)).collect();
        let is_wanted = |(name, device): &&(String, Device<'_>)| {
            let named = spec.ep_name.map_or_else(|| is_named(name, provider.name()), |wanted| wanted == name);
            named && spec.device.is_none_or(|kind| device.hardware_device().ty() == kind)
        };
        let Some((ep_name, _)) = devices.iter().find(is_wanted) else {
            let all: Vec<_> = devices.iter().map(|(name, device)| format!("{name} on {}", describe(device))).collect();
            return Err(no_device(provider, &spec, &path, &all));
        };
        let devices = devices.iter().filter(is_wanted).filter(|(name, _)| name == ep_name);
        let devices =
            devices.map(|(_, device)| PluginDevice { address: address(device), description: describe(device) });
        Ok(Some(Plugin { provider, path, origin, ep_name: ep_name.clone(), devices: devices.collect() }))
    }

    /// Every plugin that nvembed knows and finds on this machine, each with its devices or the reason why it has none.
    pub fn plugins(&self) -> Vec<(Provider, Result<Plugin>)> {
        let mut found = Vec::new();
        for provider in Provider::ALL.iter().copied() {
            let Source::Plugin(PluginSpec { package: Some(package), .. }) = provider.spec().source else { continue };
            if self.find(provider, &package).is_err() {
                continue;
            }
            let options = ModelOptions { provider, ..ModelOptions::default() };
            found.extend(self.plugin(&options).transpose().map(|plugin| (provider, plugin)));
        }
        found
    }

    /// The file of a package's plugin.
    fn find(&self, provider: Provider, package: &Package) -> Result<Place> {
        let active = virtual_environments().into_iter().flat_map(|environment| {
            packages_of(&environment).into_iter().map(|path| Place { path, origin: "virtual environment" })
        });
        // site-packages/onnxruntime/capi/libonnxruntime.so
        let beside = self.path().ancestors().nth(3).filter(|path| !path.as_os_str().is_empty());
        let beside = beside.map(|path| Place { path: path.to_owned(), origin: "beside the ONNX Runtime library" });
        let mut tried = String::new();
        for Place { path, origin } in active.chain(beside) {
            let file = path.join(package.folder).join(package.file);
            if file.is_file() {
                return Ok(Place { path: file, origin });
            }
            tried.push_str(&format!("\n  {} ({origin}): no such file", file.display()));
        }
        Err(missing(provider, &tried))
    }

    /// Registers a library unless it is registered already, and returns the addresses of its devices.
    fn register(&self, provider: Provider, spec: &PluginSpec, path: &Path) -> Result<Vec<usize>> {
        let failed = |problem: String| {
            Error::new(ErrorKind::Provider, format!("{} cannot be used as a plugin: {problem}", path.display()))
        };
        let file = path.canonicalize().map_err(|error| {
            let remedy = provider.spec().remedy;
            failed(format!("there is no such file; name {remedy}")).because(error)
        })?;
        if !file.is_file() {
            return Err(failed("it is no file; name the plugin's shared library".to_owned()));
        }
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, devices)) = registered.iter().find(|(known, _)| *known == file) {
            return Ok(devices.clone());
        }
        if let Some(package) = &spec.package {
            preload(&file, package);
        }
        let addresses = || self.environment().devices().map(|device| address(&device)).collect::<Vec<_>>();
        let before = addresses();
        // Some plugins take this name for their provider. A second library cannot have it too.
        let name = spec.ep_name.unwrap_or(provider.name());
        let name = match self.environment().devices().any(|device| name_of(&device) == name) {
            true => format!("{name}-{}", registered.len()),
            false => name.to_owned(),
        };
        self.environment().register_ep_library(name, &file).map_err(|error| {
            let cause = error.to_string();
            failed(explain(&cause).unwrap_or_else(|| not_a_plugin(&cause, &self.version()))).because(cause)
        })?;
        let new: Vec<_> = addresses().into_iter().filter(|address| !before.contains(address)).collect();
        tracing::info!(path = %file.display(), devices = new.len(), "registered a plugin");
        registered.push((file, new.clone()));
        Ok(new)
    }
}

/// Loads the libraries that a plugin is linked to and that lie beside it under names that the system's loader does not look
/// for: `libcudart.so.13.4.36`, which stands for `libcudart.so.13`. What is missing shows when the plugin itself is loaded.
fn preload(plugin: &Path, package: &Package) {
    let Some(folder) = plugin.parent() else { return };
    for wanted in package.preload {
        if ort::util::preload_dylib(*wanted).is_ok() {
            continue;
        }
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_wanted =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(wanted));
        let mut files: Vec<_> = files.filter(is_wanted).collect();
        files.sort();
        // The whole version is the file; shorter ones are links to it.
        let Some(file) = files.pop() else { continue };
        let outcome = ort::util::preload_dylib(&file);
        tracing::debug!(path = %file.display(), ?outcome, "preloaded a plugin's library");
    }
}

fn not_a_plugin(cause: &str, version: &str) -> String {
    let is_other = ["CreateEpFactories", "undefined symbol", "invalid ELF header", "GetProvider"];
    if is_other.iter().any(|words| cause.contains(words)) {
        return "it is a library of another kind; name one with the functions CreateEpFactories and ReleaseEpFactory"
            .to_owned();
    }
    format!("ONNX Runtime {version} refused it; use the versions of the two that its documentation names")
}

fn missing(provider: Provider, tried: &str) -> Error {
    let message = format!(
        "execution provider {provider} comes as a plugin, and none was found; searched:{tried}\nload {}, or name its file with \
         `provider_library`",
        provider.spec().remedy
    );
    Error::new(ErrorKind::Provider, message)
}

fn no_device(provider: Provider, spec: &PluginSpec, path: &Path, offered: &[String]) -> Error {
    let path = path.display();
    let message = if offered.is_empty() {
        format!("{path} is a plugin that offers no device on this machine; it needs {}", spec.needs)
    } else {
        let all = offered.join(", ");
        format!(
            "{path} does not offer execution provider {provider}; it offers {all}: set `provider` to one of these names"
        )
    };
    Error::new(ErrorKind::Provider, message)
}

/// Whether a plugin's name for its provider is the one that the caller gave, with or without the usual ending.
fn is_named(ep_name: &str, wanted: &str) -> bool {
    let short = ep_name.strip_suffix(SUFFIX).unwrap_or(ep_name);
    ep_name.eq_ignore_ascii_case(wanted) || short.eq_ignore_ascii_case(wanted)
}

/// A device's provider; empty for one that `ort` could not name either.
fn name_of(device: &Device<'_>) -> String {
    device.ep().ok().filter(|name| name.len() <= MAX_NAME).unwrap_or_default().to_owned()
}

fn describe(device: &Device<'_>) -> String {
    let device = device.hardware_device();
    let kind = match device.ty() {
        DeviceType::CPU => "CPU",
        DeviceType::GPU => "GPU",
        DeviceType::NPU => "NPU",
        DeviceType::FPGA => "FPGA",
    };
    format!("{kind} of {}", device.vendor().unwrap_or("an unnamed maker"))
}

fn address(device: &Device<'_>) -> usize {
    device.ptr().addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_named_with_or_without_the_usual_ending() {
        for name in ["WebGpuExecutionProvider", "WebGpu", "webgpu", "webgpuexecutionprovider"] {
            assert!(is_named("WebGpuExecutionProvider", name), "{name}");
        }
        for name in ["", "Web", "ExecutionProvider", "cuda"] {
            assert!(!is_named("WebGpuExecutionProvider", name), "{name}");
        }
        assert!(is_named("example_ep", "example_ep") && !is_named("", "webgpu"));
    }
}
