//! `nvembed bench`: speed, of answers that were checked first.

mod compare;
mod markdown;
mod measure;
mod record;
mod report;
mod summary;
mod work;

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nvembed::{Embedder, Manifest, Precision, Provider};

use self::measure::{Check, Limits};
use self::record::{Facts, Row, SCHEMA_VERSION};
use self::work::Workload;
use super::exit::CliError;
use super::input::{InputFormat, Reader};
use super::{OpenArguments, interrupt};

/// Measure speed, of answers that were checked.
///
/// Every model, on every provider, with every workload: embeddings are compared with known ones first, then the call is
/// repeated. Each row is written as soon as it is measured, as a line of JSON; what is wrong is not timed.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  nvembed bench -m MODEL_FP32 -m MODEL_INT8 --batch 1,8 --length 32,128,512 --rounds 3 -o results.jsonl
  nvembed bench -m MODEL --texts passages.txt --rate 20
  nvembed bench compare before.jsonl after.jsonl
  nvembed bench report results.jsonl -o report.html")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Model folders made by nvembed-export.
    #[arg(short, long = "model", value_name = "DIR", required = true)]
    models: Vec<PathBuf>,
    /// Execution providers.
    #[arg(long = "provider", value_name = "NAME,...", value_delimiter = ',', default_value = "cpu")]
    providers: Vec<Provider>,
    /// Rows of a batch; each with each length.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Tokens of a row.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "32,128,512")]
    length: Vec<usize>,
    /// Measure these texts instead of shapes: all in one call, batched as usual.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Send the texts one by one at this rate a second, and measure how long each waits for its embedding.
    #[arg(long, value_name = "R", requires = "texts")]
    rate: Option<f64>,
    /// Requests that may be under way at the same time with --rate; later ones wait, which counts.
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,
    /// fp32 model of the same weights, whose embeddings on the CPU every workload's are compared with. Without it, only
    /// the golden embeddings of each model folder are.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Time for each workload.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Calls of each workload at least.
    #[arg(long, value_name = "N", default_value_t = 5)]
    min_calls: usize,
    /// Repeat the whole sweep, so that models take turns.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: usize,
    /// Run each workload once, and check and time nothing: for the memory that it needs.
    #[arg(long, conflicts_with_all = ["rate", "reference"])]
    dry_run: bool,
    /// File to which rows are appended; a table is then printed. None: rows on standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// No progress bar.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    open: OpenArguments,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare two files of results: B's speed over A's, workload by workload.
    Compare(compare::Arguments),
    /// Show results as a page of plots, or as Markdown tables.
    Report(report::Arguments),
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(Command::Compare(arguments)) => return compare::run(arguments),
        Some(Command::Report(arguments)) => return report::run(arguments),
        None => {}
    }
    interrupt::watch()?;
    arguments.check()?;
    let workloads = arguments.workloads()?;
    let mut writer = Rows::open(arguments.output.as_deref())?;
    let reference = arguments.reference()?;
    let total = arguments.models.len() * arguments.providers.len() * workloads.len() * arguments.rounds;
    let bar = progress_bar(total as u64, arguments.quiet);
    let limits = Limits {
        time: Duration::from_secs_f64(arguments.seconds),
        min_calls: arguments.min_calls,
        rate: arguments.rate,
        clients: arguments.clients,
        dry_run: arguments.dry_run,
    };
    let mut facts = Facts::new(arguments.open.threads());
    let mut bad = 0;
    for round in 0..arguments.rounds {
        for model in &arguments.models {
            for provider in arguments.providers.iter().copied() {
                let manifest = Manifest::open(model)?;
                let row = empty_row(&manifest, provider, round, &facts);
                let options = arguments.open.options(provider);
                let peak_memory = measure::PeakMemory::start();
                let start = Instant::now();
                let opened = Embedder::open(model, &options);
                let row = Row { open_s: opened.is_ok().then(|| start.elapsed().as_secs_f64()), ..row };
                let check = opened.map_err(anyhow::Error::from).and_then(|embedder| {
                    facts.library(embedder.library());
                    Check::new(embedder, options, reference.as_ref(), &limits)
                });
                for workload in &workloads {
                    bar.set_message(format!("{} {provider} {}", row.precision, workload.name));
                    let row = Row { facts: facts.now(), workload: limits.name(workload), ..row.clone() };
                    let row = match &check {
                        Ok(check) => {
                            check.measure(workload, &limits, row.clone()).unwrap_or_else(|error| failed(row, &error))
                        }
                        Err(error) => failed(row, error),
                    };
                    bad += usize::from(matches!(row.status.as_str(), "wrong" | "failed"));
                    bar.suspend(|| writer.write(&Row { peak_memory_bytes: peak_memory.bytes(), ..row }))?;
                    bar.inc(1);
                }
            }
        }
    }
    bar.finish_and_clear();
    if bad > 0 {
        let message = format!("{bad} of {total} rows are wrong or failed; they say why");
        return Err(CliError::Verify(message).into());
    }
    Ok(())
}

impl Arguments {
    fn check(&self) -> Result<(), CliError> {
        let out_of_range = |name: &str, value: String, limits: &str| {
            Err(CliError::Usage(format!("{name} is {value}, allowed are {limits}")))
        };
        if !(0.01..=86_400.0).contains(&self.seconds) {
            return out_of_range("--seconds", self.seconds.to_string(), "0.01 to 86400");
        }
        if let Some(rate) = self.rate.filter(|rate| !(0.01..=1e6).contains(rate)) {
            return out_of_range("--rate", rate.to_string(), "0.01 to 1000000");
        }
        let counts = [("--min-calls", self.min_calls), ("--rounds", self.rounds), ("--clients", self.clients)];
        let sizes =
            self.batch.iter().map(|size| ("--batch", *size)).chain(self.length.iter().map(|size| ("--length", *size)));
        for (name, value) in counts.into_iter().chain(sizes) {
            if !(1..=1 << 20).contains(&value) {
                return out_of_range(name, value.to_string(), "1 to 1048576");
            }
        }
        Ok(())
    }

    /// The model that all others are compared with, and what rows call it.
    fn reference(&self) -> anyhow::Result<Option<(Embedder, String)>> {
        let Some(folder) = &self.reference else { return Ok(None) };
        let manifest = Manifest::open(folder)?;
        let refuse =
            |reason: String| Err(CliError::Usage(format!("--reference {}: {reason}", folder.display())).into());
        if manifest.precision() != Precision::Fp32 {
            return refuse(format!("the model is {}, an fp32 model is needed", manifest.precision()));
        }
        for model in &self.models {
            let dim = Manifest::open(model)?.dim();
            if dim != manifest.dim() {
                let found = manifest.dim();
                return refuse(format!("its embedding dimension is {found}, that of {} is {dim}", model.display()));
            }
        }
        let embedder = Embedder::open(folder, &self.open.options(Provider::Cpu))?;
        Ok(Some((embedder, folder.display().to_string())))
    }

    fn workloads(&self) -> anyhow::Result<Vec<Workload>> {
        let Some(file) = &self.texts else {
            let shapes = self.length.iter().flat_map(|length| self.batch.iter().map(|batch| (*batch, *length)));
            return Ok(shapes.map(|(batch, length)| Workload::shape(batch, length)).collect());
        };
        let records = Reader::new(vec![file.clone()], InputFormat::Auto, String::new());
        let prompts = records.map(|record| Ok(record?.prompt)).collect::<Result<Vec<_>, CliError>>()?;
        if prompts.is_empty() {
            return Err(CliError::Input(format!("{} holds no texts", file.display())).into());
        }
        Ok(vec![Workload::texts(prompts)])
    }
}

fn empty_row(manifest: &Manifest, provider: Provider, round: usize, facts: &Facts) -> Row {
    Row {
        schema_version: SCHEMA_VERSION,
        status: "ok".to_owned(),
        error: None,
        model: manifest.name().to_owned(),
        folder: manifest.folder().display().to_string(),
        precision: manifest.precision().to_string(),
        quantization: manifest.quantization().map(|quantization| quantization.to_string()),
        target: manifest.target().to_string(),
        provider: provider.to_string(),
        gpu: gpu(provider),
        workload: String::new(),
        round,
        rows: 0,
        tokens: 0,
        padding_waste: None,
        cosine_min: None,
        verified_against: None,
        calls: 0,
        latency_ms: None,
        tokens_per_s: None,
        texts_per_s: None,
        session_share: None,
        gflop_per_s: None,
        peak_gflop_per_s: None,
        share_of_peak: None,
        open_s: None,
        peak_memory_bytes: None,
        device_memory_bytes: None,
        facts: facts.clone(),
    }
}

/// The name of the first GPU; `None` on the CPU, and where the driver does not say.
fn gpu(provider: Provider) -> Option<String> {
    let devices = provider.is_gpu().then(nvembed::devices)?.ok()?;
    devices.into_iter().next().map(|device| device.name)
}

fn failed(row: Row, error: &anyhow::Error) -> Row {
    Row { status: "failed".to_owned(), error: Some(error.to_string()), ..row }
}

/// Where rows go.
struct Rows {
    /// `None`: to standard output.
    file: Option<(File, PathBuf)>,
    header_written: bool,
}

impl Rows {
    fn open(path: Option<&std::path::Path>) -> Result<Self, CliError> {
        let file = path.map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map(|file| (file, path.to_owned())).map_err(|source| output_error(path.display().to_string(), source))
        });
        Ok(Self { file: file.transpose()?, header_written: false })
    }

    /// Writes a row to the end, and a line of the table if rows go to a file.
    fn write(&mut self, row: &Row) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(row)?);
        let _whole = interrupt::row();
        let mut out = stdout().lock();
        let Some((file, path)) = &mut self.file else {
            let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            return Ok(written.map_err(|source| output_error("standard output".to_owned(), source))?);
        };
        file.write_all(line.as_bytes()).map_err(|source| output_error(path.display().to_string(), source))?;
        let header = if self.header_written { String::new() } else { table_header() };
        self.header_written = true;
        let written = write!(out, "{header}{}", table_line(row)).and_then(|()| out.flush());
        Ok(written.map_err(|source| output_error("standard output".to_owned(), source))?)
    }
}

fn output_error(what: String, source: std::io::Error) -> CliError {
    CliError::Output { what, source }
}

fn table_header() -> String {
    let columns = ["p50 ms", "p99 ms", "tokens/s", "texts/s", "padding", "GFLOP/s", "of peak", "cosine"];
    let numbers: String = columns.iter().map(|name| format!("{name:>10}")).collect();
    format!("{:<24}{:<6}{:<9}{:<15}{numbers}\n", "model", "", "provider", "workload")
}

fn table_line(row: &Row) -> String {
    let start = format!("{:<24}{:<6}{:<9}{:<15}", row.model, row.precision, row.provider, row.workload);
    if row.status != "ok" {
        return format!("{start}  {}: {}\n", row.status, row.error.as_deref().unwrap_or_default());
    }
    let number = |value: Option<f64>, digits: usize| match value {
        Some(value) => format!("{value:>10.digits$}"),
        None => format!("{:>10}", "-"),
    };
    let percent = |share: Option<f64>| share.map_or(format!("{:>10}", "-"), |share| format!("{:>9.1}%", 100.0 * share));
    let latency = row.latency_ms.as_ref();
    [
        start,
        number(latency.map(|latency| latency.p50), 2),
        number(latency.map(|latency| latency.p99), 2),
        number(row.tokens_per_s, 0),
        number(row.texts_per_s, 1),
        percent(row.padding_waste),
        number(row.gflop_per_s, 1),
        percent(row.share_of_peak),
        number(row.cosine_min, 6),
        "\n".to_owned(),
    ]
    .concat()
}

fn progress_bar(total: u64, quiet: bool) -> ProgressBar {
    if quiet || !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    match ProgressStyle::with_template("{bar:30} {pos}/{len}, {eta} left, {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
