//! `nvembed inspect`: describes a model folder, the ONNX Runtime library and the machine.

use std::fmt::Write;
use std::path::PathBuf;

use nvembed::Provider;
use nvembed::machine;
use nvembed::model::{Manifest, Precision, Tolerance};
use nvembed::onnxruntime::{Library, Plugin};
use serde_json::{Value, json};

use crate::arguments::{LibraryArguments, flag};
use crate::io::print;

/// Describe a model folder, the ONNX Runtime library and this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Model folder. Without one, only the library and the machine are described.
    #[arg(value_name = "DIR", env = "NVEMBED_MODEL")]
    model: Option<PathBuf>,
    /// Compare every file's SHA-256 with the manifest.
    #[arg(long, requires = "model")]
    verify_hashes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    library: LibraryArguments,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut report = serde_json::Map::new();
    if let Some(folder) = &arguments.model {
        let manifest = Manifest::open(folder)?;
        if arguments.verify_hashes {
            manifest.verify_hashes()?;
        }
        report.insert("model".to_owned(), model(&manifest, arguments.verify_hashes));
    }
    report.insert("machine".to_owned(), describe_machine());
    report.insert("tolerances".to_owned(), tolerances());
    // The library last: the rest is worth printing even where it is missing.
    let library = Library::load(arguments.library.library.as_deref());
    if let Ok(library) = &library {
        report.insert("library".to_owned(), describe(library));
    }
    print(&if arguments.json { format!("{}\n", Value::Object(report)) } else { table(&report) })?;
    library?;
    Ok(())
}

fn model(manifest: &Manifest, hashes_verified: bool) -> Value {
    let shape = manifest.architecture();
    json!({
        "name": manifest.name(),
        "source": manifest.source(),
        "license": manifest.license(),
        "folder": manifest.folder().display().to_string(),
        "precision": manifest.precision().to_string(),
        "quantization": manifest.quantization().map_or("none".to_owned(), |quantization| quantization.to_string()),
        "pooler": manifest.pooler(),
        "target": manifest.target().to_string(),
        "embedding_dimension": manifest.dim(),
        "max_length": manifest.max_length(),
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "num_latents_value": shape.num_latents_value,
        "num_cross_heads": shape.num_cross_heads,
        "cross_dim_head": shape.cross_dim_head,
        "opset": manifest.opset(),
        "weights_bytes": manifest.data_bytes(),
        "exporter_version": manifest.exporter_version(),
        "hashes_verified": hashes_verified,
    })
}

fn describe(library: &Library) -> Value {
    let providers: Vec<_> = library.providers().into_iter().map(|provider| provider.name()).collect();
    let plugin = |(provider, plugin): (Provider, nvembed::Result<Plugin>)| match plugin {
        Ok(plugin) => format!("{provider} on {} ({})", plugin.devices().join(" and "), plugin.path().display()),
        Err(error) => format!("{provider}: {}", error.report(flag)),
    };
    let plugins: Vec<_> = library.plugins().into_iter().map(plugin).collect();
    json!({
        "path": library.path().display().to_string(),
        "found": library.origin(),
        "version": library.version(),
        "providers": providers,
        "plugins": plugins,
        "build": library.build_info(),
    })
}

/// How far right embeddings may be from a reference, per precision: what `nvembed verify` and the benchmarks allow.
fn tolerances() -> Value {
    let one = |precision: Precision| match precision.tolerance() {
        Tolerance::LargestDifference(bound) => json!({ "largest_difference": bound }),
        Tolerance::CosineDistance(bound) => json!({ "cosine_distance": bound }),
        other => json!(other.to_string()),
    };
    Precision::ALL.iter().map(|precision| (precision.to_string(), one(*precision))).collect()
}

fn describe_machine() -> Value {
    let unknown = || "unknown".to_owned();
    json!({
        "nvembed": env!("CARGO_PKG_VERSION"),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "processor": machine::processor().unwrap_or_else(unknown),
        "cores": machine::cores(),
        "memory": machine::memory().map_or_else(unknown, |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))),
    })
}

fn table(report: &serde_json::Map<String, Value>) -> String {
    let mut text = String::new();
    for (section, fields) in report {
        let _ = writeln!(text, "{section}");
        for (name, value) in fields.as_object().into_iter().flatten() {
            let value = match value {
                Value::String(value) => value.clone(),
                Value::Object(fields) => {
                    let fields = fields.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " ")));
                    fields.collect::<Vec<_>>().join(", ")
                }
                Value::Array(values) => values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
                other => other.to_string(),
            };
            let _ = writeln!(text, "  {:<20} {value}", name.replace('_', " "));
        }
    }
    text
}
