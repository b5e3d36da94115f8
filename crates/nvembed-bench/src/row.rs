//! A row of results, and the facts that every row carries.

use std::path::Path;
use std::time::Duration;

use nvembed::Library;
use serde::{Deserialize, Serialize};

use crate::cli::exit::CliError;
use crate::cli::inspect::proc_field;

/// The version of a row's form.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// One measurement, a line of JSON. What could not be measured is null.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) schema_version: u32,
    /// "ok"; "wrong": the embeddings differ from the known ones, nothing was timed; "failed": see `error`; "dry run": ran
    /// once, neither checked nor timed.
    pub(crate) status: String,
    pub(crate) error: Option<String>,
    pub(crate) model: String,
    pub(crate) folder: String,
    pub(crate) precision: String,
    pub(crate) quantization: Option<String>,
    pub(crate) target: String,
    pub(crate) provider: String,
    /// The first GPU's name, of a provider that runs on one.
    pub(crate) gpu: Option<String>,
    /// "8x128" (rows × tokens), "texts", or "texts at 20/s".
    pub(crate) workload: String,
    /// Which repetition of the whole sweep, from 0.
    pub(crate) round: usize,
    /// Prompts of a call.
    pub(crate) rows: usize,
    /// Real tokens of a call.
    pub(crate) tokens: usize,
    /// Computed positions that were padding, 0 to 1.
    pub(crate) padding_waste: Option<f64>,
    /// Least cosine to the known embeddings, over golden rows and, if a reference was given, over the workload's own.
    pub(crate) cosine_min: Option<f64>,
    /// What the embeddings were compared with.
    pub(crate) verified_against: Option<String>,
    pub(crate) calls: usize,
    pub(crate) latency_ms: Option<Latency>,
    pub(crate) tokens_per_s: Option<f64>,
    pub(crate) texts_per_s: Option<f64>,
    /// The share of the calls' time inside ONNX Runtime, 0 to 1.
    pub(crate) session_share: Option<f64>,
    /// Operations of real tokens a second, in 10⁹.
    pub(crate) gflop_per_s: Option<f64>,
    /// The same of one matrix product alone, of as many rows as the workload has tokens (1,024 at most), in this run.
    pub(crate) peak_gflop_per_s: Option<f64>,
    /// Their ratio.
    pub(crate) share_of_peak: Option<f64>,
    pub(crate) open_s: Option<f64>,
    /// Largest resident memory of the process since the model began to open.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// Memory in use on the first GPU after the workload, by whomever.
    pub(crate) device_memory_bytes: Option<u64>,
    #[serde(flatten)]
    pub(crate) facts: Facts,
}

/// Times of calls in milliseconds; percentiles are values that were measured (nearest rank).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Where and with what rows were measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) time_unix_s: u64,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) system: String,
    /// The load of the last minute when the row was written.
    pub(crate) load: Option<f64>,
    pub(crate) threads: Option<usize>,
    pub(crate) nvembed: String,
    /// The commit that the program was built from, if whoever built it said so (NVEMBED_COMMIT).
    pub(crate) commit: Option<String>,
    pub(crate) onnxruntime: Option<String>,
    pub(crate) command: String,
}

/// The rows of a file of results, in its order.
///
/// # Errors
/// [`CliError::Input`] when the file cannot be read, or a line is no row of this version.
pub(super) fn read(path: &Path) -> Result<Vec<Row>, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::Input(format!("{} cannot be read: {error}", path.display())))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let invalid = |reason: String| CliError::Input(format!("{}:{}: {reason}", path.display(), number + 1));
            let row: Row =
                serde_json::from_str(line).map_err(|error| invalid(format!("no row of results: {error}")))?;
            if row.schema_version != SCHEMA_VERSION {
                let found = row.schema_version;
                return Err(invalid(format!("schema_version is {found}, this nvembed reads {SCHEMA_VERSION}")));
            }
            Ok(row)
        })
        .collect()
}

impl Latency {
    /// Of at least one time.
    pub(crate) fn of(times: &[Duration]) -> Option<Self> {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { min: rank(0)?, p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, max: rank(100)? })
    }
}

impl Facts {
    pub(crate) fn new(threads: Option<usize>) -> Self {
        Self {
            time_unix_s: 0,
            processor: proc_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            load: None,
            threads,
            nvembed: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("NVEMBED_COMMIT").filter(|commit| !commit.is_empty()).map(str::to_owned),
            onnxruntime: None,
            command: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }

    pub(crate) fn library(&mut self, library: &Library) {
        self.onnxruntime = Some(format!("{} {}", library.version(), library.build_info()));
    }

    /// The same facts, now.
    pub(crate) fn now(&self) -> Self {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        let load = load.and_then(|text| text.split(' ').next()?.parse().ok());
        Self { time_unix_s: since.as_secs(), load, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values_by_nearest_rank() {
        let times: Vec<_> = (1..=10).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(&times).unwrap();
        assert_eq!([latency.min, latency.p50, latency.p90, latency.p99, latency.max], [1.0, 5.0, 9.0, 10.0, 10.0]);
        let one = Latency::of(&times[..1]).unwrap();
        assert_eq!([one.min, one.p50, one.p99], [10.0; 3]);
        assert!(Latency::of(&[]).is_none());
    }
}
