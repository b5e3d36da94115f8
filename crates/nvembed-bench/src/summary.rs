//! Results combined: which of them form one series, and the rounds of one measurement.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::Kind;
use crate::row::{Latency, Row, Status};

/// What the page and the tables show.
#[derive(Serialize)]
pub struct Summary {
    /// In the order of their first rows, like all lists here.
    pub(crate) series: Vec<Series>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) machines: Vec<String>,
    pub(crate) gpus: Vec<String>,
    pub(crate) versions: Vec<String>,
    /// ONNX Runtime's build information.
    builds: Vec<String>,
    pub(crate) commands: Vec<String>,
    /// Of the first and the last row.
    pub(crate) time_unix_s: [u64; 2],
    /// Minimum and maximum.
    pub(crate) load: Option<[f64; 2]>,
    /// What was not timed, with the reason.
    pub(crate) problems: Vec<Problem>,
    /// What makes numbers unfit for comparison.
    pub(crate) warnings: Vec<String>,
    /// Other things to know before comparing numbers.
    pub(crate) notes: Vec<String>,
    /// The number of rows that were combined.
    pub(crate) rows: usize,
}

/// What the points of one line share: model, precision, provider, machine and versions.
#[derive(Serialize)]
pub(crate) struct Series {
    /// Provider, precision, and whatever else distinguishes it from the other series.
    pub(crate) name: Vec<String>,
    model: String,
    folder: String,
    precision: String,
}

/// One workload of one series: the rounds that ended with the same status.
#[derive(Serialize)]
pub(crate) struct Cell {
    /// Which of [`Summary::series`].
    pub(crate) series: usize,
    pub(crate) workload: String,
    /// Rows and tokens of a batch, if the workload is one.
    shape: Option<[usize; 2]>,
    /// Requests per second, if they were sent at a fixed rate.
    rate: Option<f64>,
    pub(crate) status: Status,
    pub(crate) error: Option<String>,
    pub(crate) rounds: usize,
    /// Over all rounds.
    calls: usize,
    /// Prompts per call.
    rows: usize,
    /// Real tokens per call.
    tokens: usize,
    pub(crate) tokens_per_s: Option<Spread>,
    texts_per_s: Option<Spread>,
    /// The fastest and the slowest call.
    range_ms: Option<[f64; 2]>,
    pub(crate) p50_ms: Option<Spread>,
    p90_ms: Option<Spread>,
    pub(crate) p99_ms: Option<Spread>,
    session_share: Option<Spread>,
    padding_waste: Option<Spread>,
    gflop_per_s: Option<Spread>,
    peak_gflop_per_s: Option<Spread>,
    pub(crate) share_of_peak: Option<Spread>,
    /// The minimum over rounds.
    pub(crate) cosine_min: Option<f64>,
    verified_against: Option<String>,
    open_s: Option<Spread>,
    peak_memory_bytes: Option<Spread>,
    device_memory_bytes: Option<Spread>,
}

/// Workloads of one series that were not timed for the same reason.
#[derive(Serialize)]
pub(crate) struct Problem {
    pub(crate) series: usize,
    pub(crate) status: Status,
    pub(crate) error: Option<String>,
    pub(crate) workloads: Vec<String>,
}

/// A value over rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) largest: f64,
}

impl Summary {
    /// Combines rows; `None` without rows.
    pub fn of(rows: &[Row]) -> Option<Self> {
        let (mut identities, mut machines, mut versions, mut builds) = (vec![], vec![], vec![], vec![]);
        let (mut gpus, mut commands, mut keys, mut groups) = (vec![], vec![], vec![], Vec::<Vec<&Row>>::new());
        for row in rows {
            index(&mut machines, machine(row));
            index(&mut versions, version(row));
            row.gpu.iter().for_each(|gpu| _ = index(&mut gpus, gpu.clone()));
            row.facts.onnxruntime.iter().for_each(|build| _ = index(&mut builds, build.clone()));
            index(&mut commands, row.facts.command.clone());
            let series = index(&mut identities, identity(row));
            let group = index(&mut keys, (series, workload(row, rows), row.status));
            groups.resize_with(keys.len(), Vec::new);
            groups[group].push(row);
        }
        let series = names(&identities).into_iter().zip(&identities).filter_map(|(name, wanted)| {
            let row = rows.iter().find(|row| identity(row) == *wanted)?;
            let [model, folder, precision] = [&row.model, &row.folder, &row.precision].map(String::clone);
            Some(Series { name, model, folder, precision })
        });
        let times = || rows.iter().map(|row| row.facts.time_unix_s);
        let series = series.collect();
        let cells: Vec<_> = keys.into_iter().zip(&groups).map(|(key, rows)| Cell::of(key, rows)).collect();
        Some(Self {
            series,
            problems: problems(&cells),
            warnings: warnings(rows, machines.len().max(gpus.len())),
            notes: notes(rows, &groups),
            cells,
            machines,
            gpus,
            versions,
            builds,
            commands,
            time_unix_s: [times().min()?, times().max()?],
            load: range(rows.iter().filter_map(|row| row.facts.load)),
            rows: rows.len(),
        })
    }
}

impl Cell {
    fn of((series, workload, status): (usize, String, Status), rows: &[&Row]) -> Self {
        let spread = |value: &dyn Fn(&Row) -> Option<f64>| Spread::of(rows.iter().filter_map(|row| value(row)));
        let latency = |value: &dyn Fn(&Latency) -> f64| spread(&|row| row.latency_ms.as_ref().map(value));
        let bytes = |value: &dyn Fn(&Row) -> Option<u64>| spread(&|row| value(row).map(|bytes| bytes as f64));
        let times = || rows.iter().filter_map(|row| row.latency_ms.as_ref());
        let first = rows.first();
        Self {
            series,
            shape: first.and_then(|row| shape(row)),
            rate: first.and_then(|row| row.rate_per_s),
            workload,
            status,
            error: rows.iter().find_map(|row| row.error.clone()),
            rounds: rows.len(),
            calls: rows.iter().map(|row| row.calls).sum(),
            rows: first.map_or(0, |row| row.rows),
            tokens: first.map_or(0, |row| row.tokens),
            tokens_per_s: spread(&|row| row.tokens_per_s),
            texts_per_s: spread(&|row| row.texts_per_s),
            range_ms: range(times().flat_map(|latency| [latency.min, latency.max])),
            p50_ms: latency(&|latency| latency.p50),
            p90_ms: latency(&|latency| latency.p90),
            p99_ms: latency(&|latency| latency.p99),
            session_share: spread(&|row| row.session_share),
            padding_waste: spread(&|row| row.padding_waste),
            gflop_per_s: spread(&|row| row.gflop_per_s),
            peak_gflop_per_s: spread(&|row| row.peak_gflop_per_s),
            share_of_peak: spread(&|row| row.share_of_peak),
            cosine_min: rows.iter().filter_map(|row| row.cosine_min).reduce(f64::min),
            verified_against: first.and_then(|row| row.verified_against.clone()),
            open_s: spread(&|row| row.open_s),
            peak_memory_bytes: bytes(&|row| row.peak_memory_bytes),
            device_memory_bytes: bytes(&|row| row.device_memory_bytes),
        }
    }
}

impl Spread {
    /// Of any number of values; `None` without values.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<_> = values.collect();
        let [least, largest] = range(values.iter().copied())?;
        Some(Self { median: median(&values), least, largest })
    }
}

/// Of at least one number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Minimum and maximum.
fn range(values: impl Iterator<Item = f64> + Clone) -> Option<[f64; 2]> {
    Some([values.clone().reduce(f64::min)?, values.reduce(f64::max)?])
}

/// The value's position in the list; a new value is appended.
fn index<T: PartialEq>(list: &mut Vec<T>, value: T) -> usize {
    list.iter().position(|known| *known == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    })
}

/// What the rows of one series share, in the order in which names use it: always provider and precision, the rest as needed.
fn identity(row: &Row) -> Vec<String> {
    let facts = &row.facts;
    vec![
        row.provider.clone(),
        row.precision.clone(),
        row.model.clone(),
        row.quantization.clone().unwrap_or_else(|| "not quantized".to_owned()),
        format!("exported for {}", row.target),
        facts.threads.map_or("default threads".to_owned(), |threads| format!("--intra-threads {threads}")),
        format!("ONNX Runtime {}", library_version(row)),
        row.gpu.clone().unwrap_or_else(|| "no GPU".to_owned()),
        machine(row),
        format!("nvembed {}", facts.nvembed),
        format!("commit {}", facts.commit.as_deref().unwrap_or("unknown")),
        row.folder.clone(),
        facts.onnxruntime.clone().unwrap_or_else(|| "unknown build".to_owned()),
    ]
}

/// For each identity its first two parts, and the fewest others that make all names different.
fn names(identities: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut names: Vec<_> = identities.iter().map(|parts| parts[..2].to_vec()).collect();
    for part in 2..identities.first().map_or(0, Vec::len) {
        let differs =
            |one: usize, other: usize| names[one] == names[other] && identities[one][part] != identities[other][part];
        if (0..names.len()).any(|one| (0..one).any(|other| differs(one, other))) {
            names.iter_mut().zip(identities).for_each(|(name, parts)| name.push(parts[part].clone()));
        }
    }
    names
}

fn machine(row: &Row) -> String {
    let facts = &row.facts;
    format!("{}, {} cores, {}", facts.processor, facts.cores, facts.system)
}

fn version(row: &Row) -> String {
    let facts = &row.facts;
    let commit = facts.commit.as_deref().unwrap_or("unknown");
    format!("nvembed {}, commit {commit}, ONNX Runtime {}", facts.nvembed, library_version(row))
}

fn library_version(row: &Row) -> &str {
    let build = row.facts.onnxruntime.as_deref().unwrap_or("unknown");
    build.split(' ').next().unwrap_or(build)
}

/// The workload's name, with the amount of text if workloads of the same name differ in it.
fn workload(row: &Row, rows: &[Row]) -> String {
    let (name, amount) = (row.workload_name(), |row: &Row| (row.rows, row.tokens));
    let like = rows.iter().filter(|other| other.workload_name() == name && other.tokens > 0);
    if shape(row).is_some() || row.tokens == 0 || like.map(amount).collect::<BTreeSet<_>>().len() < 2 {
        return name;
    }
    format!("{name} ({} × {} tokens)", row.rows, row.tokens / row.rows.max(1))
}

fn shape(row: &Row) -> Option<[usize; 2]> {
    match row.workload {
        Kind::Shape { batch, length } => Some([batch, length]),
        Kind::Texts => None,
    }
}

fn problems(cells: &[Cell]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.status != Status::Ok) {
        let same = |problem: &&mut Problem| {
            (problem.series, problem.status, &problem.error) == (cell.series, cell.status, &cell.error)
        };
        if let Some(problem) = problems.iter_mut().find(same) {
            problem.workloads.push(cell.workload.clone());
        } else {
            let (status, error) = (cell.status, cell.error.clone());
            problems.push(Problem { series: cell.series, status, error, workloads: vec![cell.workload.clone()] });
        }
    }
    problems
}

fn warnings(rows: &[Row], machines: usize) -> Vec<String> {
    let statuses = [(Status::Wrong, "wrong embeddings"), (Status::Failed, "failed"), (Status::DryRun, "dry run")];
    let mut warnings = Vec::new();
    for (status, what) in statuses {
        let count = rows.iter().filter(|row| row.status == status).count();
        if count > 0 {
            warnings.push(format!("Not timed: {count} of {} results ({what}).", rows.len()));
        }
    }
    if machines > 1 {
        warnings.push(format!("Results come from {machines} machines. Compare software on one machine only."));
    }
    warnings
}

fn notes(rows: &[Row], groups: &[Vec<&Row>]) -> Vec<String> {
    let mut notes = Vec::new();
    let timed = || groups.iter().filter(|group| group[0].status == Status::Ok);
    if timed().any(|group| group.len() == 1) {
        notes.push("Measurements with a single round show no spread.".to_owned());
    }
    if timed().any(|group| group.iter().any(|row| row.facts.command != group[0].facts.command)) {
        notes.push("Some medians combine rounds of different commands.".to_owned());
    }
    if rows.iter().any(|row| row.status == Status::Ok && row.calls < 100) {
        notes.push("With fewer than 100 calls, p99 is the slowest call.".to_owned());
    }
    let busy = |row: &&Row| row.facts.load.is_some_and(|load| load > row.facts.cores as f64 + 1.0);
    let busy = rows.iter().filter(busy).count();
    if busy > 0 {
        notes.push(format!(
            "The machine was busy with other work during {busy} of {} results (load average more than 1 above the number of \
             cores).",
            rows.len()
        ));
    }
    notes
}
