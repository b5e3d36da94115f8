//! A row of results, and the facts that every row carries.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use nvembed::onnxruntime::Library;
use serde::{Deserialize, Serialize};

use crate::{Error, Kind};

/// The version of a row's form.
pub const SCHEMA_VERSION: u32 = 2;

/// How a measurement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Verified and timed.
    Ok,
    /// The embeddings differ from the known ones; nothing was timed.
    Wrong,
    /// See the row's `error`.
    Failed,
    /// Ran once, neither verified nor timed.
    DryRun,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Wrong => "wrong",
            Self::Failed => "failed",
            Self::DryRun => "dry run",
        })
    }
}

/// One measurement: a line of JSON. What could not be measured is null. docs/guides/model-folder.md describes the fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// How the measurement ended.
    pub status: Status,
    /// Why it is not "ok".
    pub error: Option<String>,
    /// The model's name.
    pub model: String,
    /// The model folder.
    pub folder: String,
    /// The model's precision.
    pub precision: String,
    /// How the weights are quantized.
    pub quantization: Option<String>,
    /// The providers the graph was exported for.
    pub target: String,
    /// The execution provider.
    pub provider: String,
    /// The first GPU's name, for a provider that runs on GPUs.
    pub gpu: Option<String>,
    /// What was measured.
    pub workload: Kind,
    /// Requests per second that were sent, whether earlier ones were answered or not; `None`: one call after another.
    pub rate_per_s: Option<f64>,
    /// The repetition of the whole sweep, from 0.
    pub round: usize,
    /// Prompts per call.
    pub rows: usize,
    /// Real tokens per call.
    pub tokens: usize,
    /// The share of computed positions that were padding, 0 to 1.
    pub padding_waste: Option<f64>,
    /// The least cosine to the known embeddings, over golden rows and, if a reference was given, over the workload's own.
    pub cosine_min: Option<f64>,
    /// What the embeddings were compared with.
    pub verified_against: Option<String>,
    /// Timed calls.
    pub calls: usize,
    /// Times per call.
    pub latency_ms: Option<Latency>,
    /// Real tokens per second, at the median time of a call.
    pub tokens_per_s: Option<f64>,
    /// Texts per second, at the median time of a call.
    pub texts_per_s: Option<f64>,
    /// The share of the calls' time inside ONNX Runtime, 0 to 1.
    pub session_share: Option<f64>,
    /// Operations on real tokens per second, in 10⁹.
    pub gflop_per_s: Option<f64>,
    /// The same of one matrix product alone, with as many rows as the workload has tokens (1,024 at most), in this run.
    pub peak_gflop_per_s: Option<f64>,
    /// Their ratio.
    pub share_of_peak: Option<f64>,
    /// Time to open the model, in seconds.
    pub open_s: Option<f64>,
    /// The largest resident memory of the process since the model began to open.
    pub peak_memory_bytes: Option<u64>,
    /// Memory in use on the first GPU after the workload, by any process.
    pub device_memory_bytes: Option<u64>,
    /// Where and with what it was measured.
    #[serde(flatten)]
    pub facts: Facts,
}

impl Row {
    /// The workload's name: "8x128" (rows × tokens), "texts", or "texts at 20/s".
    pub fn workload_name(&self) -> String {
        match self.rate_per_s {
            Some(rate) => format!("{} at {rate}/s", self.workload),
            None => self.workload.to_string(),
        }
    }
}

/// Times of calls in milliseconds. Percentiles are measured values (nearest rank).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

/// Where and with what rows were measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// When the row was written.
    pub time_unix_s: u64,
    /// The processor's name.
    pub processor: String,
    /// Cores that the process could use.
    pub cores: usize,
    /// Operating system and architecture.
    pub system: String,
    /// The load average of the last minute when the row was written.
    pub load: Option<f64>,
    /// Threads per run, if they were chosen.
    pub threads: Option<usize>,
    /// The version of nvembed.
    pub nvembed: String,
    /// The commit the program was built from, if the build was told (NVEMBED_COMMIT).
    pub commit: Option<String>,
    /// The version and build of ONNX Runtime.
    pub onnxruntime: Option<String>,
    /// The command line.
    pub command: String,
}

/// The rows of a file of results, in its order.
///
/// # Errors
/// [`Error::Results`] when the file cannot be read, or a line is not a row of this version.
pub fn read(path: &Path) -> Result<Vec<Row>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Results(format!("{} cannot be read: {error}", path.display())))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let invalid = |reason: String| Error::Results(format!("{}:{}: {reason}", path.display(), number + 1));
            let no_row = |error: serde_json::Error| invalid(format!("not a row of results: {error}"));
            // The version first: a row of another version may differ anywhere.
            let value: serde_json::Value = serde_json::from_str(line).map_err(no_row)?;
            match value.get("schema_version").and_then(serde_json::Value::as_u64) {
                Some(found) if found != u64::from(SCHEMA_VERSION) => Err(invalid(format!(
                    "schema_version is {found}, this nvembed reads {SCHEMA_VERSION}; measure again"
                ))),
                _ => serde_json::from_value(value).map_err(no_row),
            }
        })
        .collect()
}

impl Latency {
    /// `None` without times.
    pub(crate) fn of(times: &[Duration]) -> Option<Self> {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { min: rank(0)?, p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, max: rank(100)? })
    }
}

impl Facts {
    /// Facts about this machine and process. `commit` is the one that the program was built from.
    pub fn new(threads: Option<usize>, commit: Option<&str>) -> Self {
        Self {
            time_unix_s: 0,
            processor: nvembed::machine::processor().unwrap_or_else(|| "unknown".to_owned()),
            cores: nvembed::machine::cores(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            load: None,
            threads,
            nvembed: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit.filter(|commit| !commit.is_empty()).map(str::to_owned),
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
