//! `nvembed doctor`: whether this machine can run a model on its GPU, and if not, why.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use nvembed::model::Manifest;
use nvembed::onnxruntime::Library;
use nvembed::{EmbedOptions, Embedder, ModelOptions, Prompt, Provider, gpu, machine};
use serde_json::json;

use super::advice;
use crate::arguments::{GpuArguments, LibraryArguments, flag, parse};
use crate::exit::CliError;
use crate::io::print;

/// Check the library, driver, GPUs and model, and report what is wrong.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "All checks run, whatever earlier ones found, and the other providers are looked at too. The last \
                        lines say which export suits this machine. The exit code is 5 if a check of the chosen provider \
                        found a problem."
)]
pub(crate) struct Arguments {
    /// Model folder to open and run. Without one, only the machine is checked.
    #[arg(short, long, value_name = "DIR", env = "NVEMBED_MODEL")]
    model: Option<PathBuf>,
    /// Execution provider: cpu, cuda, tensorrt, nv-tensorrt-rtx or openvino.
    #[arg(long, default_value_t = Provider::Cuda, value_name = "NAME", value_parser = parse::<Provider>)]
    provider: Provider,
    /// Open the model without running its golden rows.
    #[arg(long)]
    no_self_check: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    library: LibraryArguments,
    #[command(flatten)]
    gpu: GpuArguments,
}

/// The result of a check: what was found, or what is wrong.
struct Finding {
    check: String,
    outcome: Result<String, String>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut options = ModelOptions::default();
    options.provider = arguments.provider;
    options.library = arguments.library.library.clone();
    options.gpu = arguments.gpu.options();
    options.self_check = !arguments.no_self_check;
    let mut findings = Vec::new();
    check_library(&options, &mut findings);
    if options.provider.is_gpu() {
        let runs_kernels = matches!(options.provider, Provider::Cuda | Provider::TensorRt);
        let library = Library::load(options.library.as_deref()).ok().filter(|_| runs_kernels);
        check_devices(&options, library.map(|library| library.version_numbers()), &mut findings);
    }
    if let Some(folder) = &arguments.model {
        check_model(folder, &options, &mut findings);
    }
    check_other_providers(&options, &mut findings);
    advise(&options, &mut findings);
    print(&if arguments.json { as_json(&findings) } else { as_table(&findings) })?;
    let problems = findings.iter().filter(|finding| finding.outcome.is_err()).count();
    match problems {
        0 => Ok(()),
        1 => Err(CliError::Doctor("found 1 problem".to_owned()).into()),
        more => Err(CliError::Doctor(format!("found {more} problems")).into()),
    }
}

fn check_library(options: &ModelOptions, findings: &mut Vec<Finding>) {
    let library = match Library::load(options.library.as_deref()) {
        Ok(library) => library,
        Err(error) => return add(findings, "ONNX Runtime", Err(error.report(flag))),
    };
    add(findings, "ONNX Runtime", Ok(format!("{} at {}", library.version(), library.path().display())));
    let has: Vec<_> = library.providers().into_iter().map(Provider::name).collect();
    let found = if library.providers().contains(&options.provider) {
        Ok(has.join(", "))
    } else if let Some(plugin) = library.plugin(options).transpose() {
        plugin
            .map(|plugin| format!("{} on {}", plugin.path().display(), plugin.devices().join(", ")))
            .map_err(|error| error.report(flag))
    } else {
        Err(format!(
            "{} is not among {}; load {} with --library",
            options.provider,
            has.join(", "),
            options.provider.remedy()
        ))
    };
    add(findings, "provider", found);
    for library in gpu::preload_libraries(library.path(), options.provider) {
        let found = match library.problem {
            None => Ok(library.version.unwrap_or_else(|| "found".to_owned())),
            Some(_) if library.optional => Ok("not found; only some kernels need it".to_owned()),
            Some(problem) => Err(problem),
        };
        add(findings, library.name, found);
    }
}

/// Which of the other providers could be used on this machine. None of that is a problem: nobody asked for them.
fn check_other_providers(options: &ModelOptions, findings: &mut Vec<Finding>) {
    let Ok(library) = Library::load(options.library.as_deref()) else { return };
    for provider in Provider::ALL.iter().copied().filter(|provider| *provider != options.provider) {
        let found = match unusable(provider, options, &library) {
            None => "can be used on this machine".to_owned(),
            Some(reason) => format!("cannot be used: {reason}"),
        };
        add(findings, provider.name(), Ok(found));
    }
}

/// Why a provider cannot be used on this machine, as far as is known without a model.
fn unusable(provider: Provider, options: &ModelOptions, library: &Library) -> Option<String> {
    let options = options.for_provider(provider);
    match library.plugin(&options) {
        Err(error) => return Some(error.report(flag)),
        Ok(None) if !library.providers().contains(&provider) => {
            return Some(format!("it is not in this ONNX Runtime; load {}", provider.remedy()));
        }
        Ok(_) => {}
    }
    if !provider.is_gpu() {
        return None;
    }
    let checked = gpu::check_driver().and_then(|_| gpu::devices()).and_then(|devices| {
        let runs_kernels = matches!(provider, Provider::Cuda | Provider::TensorRt);
        let mut chosen = devices.iter().filter(|device| runs_kernels && options.gpu.device_ids.contains(&device.id));
        chosen.try_for_each(|device| gpu::check_device(library.version_numbers(), device, None))
    });
    if let Err(error) = checked {
        return Some(error.report(flag));
    }
    gpu::preload_libraries(library.path(), provider)
        .into_iter()
        .filter(|library| !library.optional)
        .find_map(|one| one.problem)
}

/// What to export for this machine.
fn advise(options: &ModelOptions, findings: &mut Vec<Finding>) {
    let advised = advice::for_cpu(machine::has_exact_int8_products());
    add(findings, "export for the CPU", Ok(advised.to_owned()));
    let Ok(library) = Library::load(options.library.as_deref()) else { return };
    // A library without CUDA says nothing about the one that would run the model.
    let has_cuda = library.providers().contains(&Provider::Cuda);
    let version = if has_cuda { library.version_numbers() } else { gpu::KNOWN_LIBRARY };
    // Without a driver there is no GPU to advise for; the lines of the GPU providers say that it is missing.
    for device in gpu::devices().unwrap_or_default() {
        let has_kernels = gpu::check_device(version, &device, None).is_ok();
        let found = advice::for_gpu(&device, has_kernels);
        add(findings, format!("export for GPU {}", device.id), Ok(found));
    }
}

/// `library` is the version whose CUDA kernels the GPUs have to run, if there is one.
fn check_devices(options: &ModelOptions, library: Option<(u32, u32)>, findings: &mut Vec<Finding>) {
    let driver = gpu::check_driver().map(|(major, minor)| format!("supports CUDA {major}.{minor}"));
    add(findings, "NVIDIA driver", driver.map_err(|error| error.report(flag)));
    let devices = match gpu::devices() {
        Ok(devices) => devices,
        Err(error) => return add(findings, "GPUs", Err(error.report(flag))),
    };
    for device in &devices {
        let (major, minor) = device.compute_capability;
        let found = format!("{}, compute capability {major}.{minor}, {}", device.name, gibibytes(device.total_memory));
        let checked = library.map_or(Ok(()), |library| gpu::check_device(library, device, None));
        add(findings, format!("GPU {}", device.id), checked.map(|()| found).map_err(|error| error.report(flag)));
    }
    for id in &options.gpu.device_ids {
        if devices.iter().all(|device| device.id != *id) {
            add(findings, format!("GPU {id}"), Err(format!("does not exist; there are {}", devices.len())));
        }
    }
}

fn check_model(folder: &Path, options: &ModelOptions, findings: &mut Vec<Finding>) {
    let manifest = match Manifest::open(folder) {
        Ok(manifest) => manifest,
        Err(error) => return add(findings, "model", Err(error.report(flag))),
    };
    let bytes = usize::try_from(manifest.data_bytes()).unwrap_or(usize::MAX);
    let size = gibibytes(bytes);
    add(findings, "model", Ok(format!("{}, {}, {size} of weights", manifest.name(), manifest.precision())));
    if options.provider.is_gpu() {
        for id in &options.gpu.device_ids {
            let found = match gpu::free_memory(*id) {
                Ok(free) if free > bytes => {
                    Ok(format!("{} free on GPU {id} for {size} of weights and the activations", gibibytes(free)))
                }
                Ok(free) => Err(format!("{} free on GPU {id} is too little for {size} of weights", gibibytes(free))),
                Err(error) => Err(error.report(flag)),
            };
            add(findings, "memory", found);
        }
    }
    let embedder = match Embedder::open(folder, options) {
        Ok(embedder) => embedder,
        Err(error) => return add(findings, "opening", Err(error.report(flag))),
    };
    add(findings, "opening", Ok("opened".to_owned()));
    let result = embedder.embed(&[Prompt::passage("The harbour lies east of the old town.")], &EmbedOptions::default());
    let found = result.map(|embeddings| format!("{} embedding of {} numbers", embeddings.len(), embeddings.dim()));
    add(findings, "a run", found.map_err(|error| error.report(flag)));
}

fn add(findings: &mut Vec<Finding>, check: impl Into<String>, outcome: Result<String, String>) {
    findings.push(Finding { check: check.into(), outcome });
}

fn gibibytes(bytes: usize) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn as_table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { check, outcome } in findings {
        let (mark, words) = match outcome {
            Ok(words) => ("ok", words),
            Err(words) => ("PROBLEM", words),
        };
        let _ = writeln!(text, "{mark:<8} {check:<22} {words}");
    }
    text
}

fn as_json(findings: &[Finding]) -> String {
    let list: Vec<_> = findings
        .iter()
        .map(|Finding { check, outcome }| match outcome {
            Ok(words) => json!({"check": check, "ok": true, "found": words}),
            Err(words) => json!({"check": check, "ok": false, "found": words}),
        })
        .collect();
    format!("{}\n", serde_json::Value::Array(list))
}
