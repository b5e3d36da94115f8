//! `nvembed bench`: throughput and latency, of embeddings that were verified first.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nvembed::{ModelOptions, Provider};
use nvembed_bench::{Facts, Limits, Row, Status, Summary, Sweep, Workload, compare, markdown, page, read};

use crate::arguments::{OpenArguments, flag, parse};
use crate::exit::CliError;
use crate::io::atomic::write_file;
use crate::io::reader::{InputFormat, Reader};
use crate::io::{interrupt, print};

/// Benchmark throughput and latency; embeddings are verified first.
///
/// Measures every model on every provider with every workload. Embeddings are first compared with known ones; only then are
/// calls timed. Each row is written as soon as it is measured, as a line of JSON.
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
    /// Model folder made by nvembed-export. Repeatable.
    #[arg(short, long = "model", value_name = "DIR", required = true)]
    models: Vec<PathBuf>,
    /// Execution providers. Each gets the options that it reads.
    #[arg(long = "provider", value_name = "NAME,...", value_delimiter = ',', default_value = "cpu", value_parser = parse::<Provider>)]
    providers: Vec<Provider>,
    /// Rows per batch; each is combined with each length.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Tokens per row.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "32,128,512")]
    length: Vec<usize>,
    /// Measure these texts instead of shapes: all in one call, batched as usual.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Send the texts one by one at this rate per second, and measure how long each waits for its embedding.
    #[arg(long, value_name = "R", requires = "texts")]
    rate: Option<f64>,
    /// The most requests in flight with --rate; later ones wait, which counts.
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,
    /// fp32 model of the same weights: every workload's embeddings are compared with its embeddings on the CPU. By default,
    /// only the golden embeddings in each model folder are compared.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Seconds per workload.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// The least number of calls per workload.
    #[arg(long, value_name = "N", default_value_t = 5)]
    min_calls: usize,
    /// Repeat everything, so that models take turns.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: usize,
    /// Run each workload once without verifying or timing: to see the memory it needs.
    #[arg(long, conflicts_with_all = ["rate", "reference"])]
    dry_run: bool,
    /// File to append rows to; a table is then printed. Default: rows go to standard output.
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
    /// Compare two files of results: B's tokens per second over A's, workload by workload.
    Compare(CompareArguments),
    /// Show results as a page of plots, or as Markdown tables.
    Report(ReportArguments),
}

/// Compare two files of results: B's tokens per second over A's.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Rows are compared when their model, precision, provider and workload are the same; with --across, when \
                        the workload is. Ratios are taken round by round; their median, minimum and maximum are printed."
)]
struct CompareArguments {
    /// Results of one side.
    a: PathBuf,
    /// Results of the other side.
    b: PathBuf,
    /// Compare rows of the same workload, whatever their model, precision and provider.
    #[arg(long)]
    across: bool,
}

/// Show results as a page of plots, or as Markdown tables.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The page is one file and loads nothing from anywhere. The rounds of a measurement are shown as their \
                        median, with the minimum and the maximum."
)]
struct ReportArguments {
    /// Files of results.
    #[arg(required = true, value_name = "RESULTS")]
    results: Vec<PathBuf>,
    /// The page to write.
    #[arg(short, long, value_name = "FILE", required_unless_present = "markdown")]
    output: Option<PathBuf>,
    /// Print a Markdown table.
    #[arg(long)]
    markdown: bool,
    /// Only these workloads, for example 8x128.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    workload: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Some(Command::Compare(arguments)) => run_compare(arguments),
        Some(Command::Report(arguments)) => run_report(arguments),
        None => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    interrupt::watch()?;
    arguments.check()?;
    let (providers, workloads) = (arguments.providers()?, arguments.workloads()?);
    let mut writer = Rows::open(arguments.output.as_deref())?;
    let limits = Limits {
        time: Duration::from_secs_f64(arguments.seconds),
        min_calls: arguments.min_calls,
        rate: arguments.rate,
        clients: arguments.clients,
        dry_run: arguments.dry_run,
    };
    let threads = arguments.open.options(Provider::Cpu).intra_threads;
    let facts = Facts::new(threads, option_env!("NVEMBED_COMMIT"));
    let mut sweep = Sweep::new(arguments.models.clone(), providers, workloads, limits, facts);
    sweep.name = flag;
    sweep.rounds = arguments.rounds;
    if let Some(folder) = &arguments.reference {
        let options = arguments.open.options(Provider::Cpu).for_provider(Provider::Cpu);
        sweep.set_reference(folder.clone(), &options).map_err(cli_error)?;
    }
    let (total, mut bad) = (sweep.len(), 0);
    let bar = progress_bar(total as u64, arguments.quiet);
    let outcome = sweep.run(
        |next| bar.set_message(next),
        |row| {
            bad += usize::from(matches!(row.status, Status::Wrong | Status::Failed));
            bar.suspend(|| writer.write(row))?;
            bar.inc(1);
            Ok::<_, CliError>(())
        },
    );
    bar.finish_and_clear();
    outcome.map_err(cli_error)?;
    if bad > 0 {
        let message = format!("{bad} of {total} rows are wrong or failed; their \"error\" says why");
        return Err(CliError::Verify(message).into());
    }
    Ok(())
}

fn run_compare(arguments: &CompareArguments) -> anyhow::Result<()> {
    let rows = |path: &Path| read(path).map_err(cli_error);
    let table = compare(&rows(&arguments.a)?, &rows(&arguments.b)?, arguments.across).map_err(|error| {
        let (a, b) = (arguments.a.display(), arguments.b.display());
        CliError::Input(format!("{error} (A is {a}, B is {b})"))
    })?;
    Ok(print(&table)?)
}

fn run_report(arguments: &ReportArguments) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for path in &arguments.results {
        rows.extend(read(path).map_err(cli_error)?);
    }
    for name in &arguments.workload {
        if !rows.iter().any(|row| row.workload_name() == *name) {
            return Err(CliError::Usage(format!("--workload {name}: no row of the results has it")).into());
        }
    }
    rows.retain(|row| arguments.workload.is_empty() || arguments.workload.contains(&row.workload_name()));
    let Some(summary) = Summary::of(&rows) else {
        let names: Vec<_> = arguments.results.iter().map(|path| path.display().to_string()).collect();
        return Err(CliError::Input(format!("{}: no rows", names.join(", "))).into());
    };
    if let Some(path) = &arguments.output {
        write_file(path, page(&summary)?.as_bytes())?;
    }
    if arguments.markdown {
        print(&markdown(&summary))?;
    }
    Ok(())
}

/// The same error with its exit code.
fn cli_error(error: nvembed_bench::Error) -> anyhow::Error {
    match error {
        nvembed_bench::Error::Nvembed(error) => error.into(),
        nvembed_bench::Error::Receiver(error) => match error.downcast::<CliError>() {
            Ok(error) => (*error).into(),
            Err(error) => anyhow::Error::from_boxed(error),
        },
        nvembed_bench::Error::Reference(message) => CliError::Usage(message).into(),
        error => CliError::Input(error.to_string()).into(),
    }
}

impl Arguments {
    fn check(&self) -> Result<(), CliError> {
        let out_of_range = |name: &str, value: String, range: &str| {
            Err(CliError::Usage(format!("{name} must be {range}, got {value}")))
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

    /// How models are opened on each provider: with the options that it reads. One that no provider reads is an error.
    fn providers(&self) -> Result<Vec<ModelOptions>, CliError> {
        let mut all: Vec<_> = self.providers.iter().map(|provider| self.open.options(*provider)).collect();
        for options in &mut all {
            // Each row of results compares the golden rows, and the time to open is one of its figures.
            options.self_check = false;
        }
        // The reference reads the options of the CPU.
        let reference = self.reference.as_ref().map(|_| self.open.options(Provider::Cpu));
        let ignored: Vec<_> = all.iter().chain(&reference).map(ModelOptions::ignored).collect();
        let by_all = ignored.first().into_iter().flatten().find(|name| ignored.iter().all(|list| list.contains(name)));
        if let Some(name) = by_all {
            let names: Vec<_> = self.providers.iter().map(|provider| provider.name()).collect();
            let message = format!("{} has no effect on {}; leave it out", flag(name), names.join(", "));
            return Err(CliError::Usage(message));
        }
        Ok(all.iter().map(|options| options.for_provider(options.provider)).collect())
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

/// Where rows go.
struct Rows {
    /// `None`: to standard output.
    file: Option<(File, PathBuf)>,
    header_written: bool,
}

impl Rows {
    fn open(path: Option<&Path>) -> Result<Self, CliError> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map(|file| (file, path.to_owned())).map_err(|source| CliError::output(path, source))
        };
        Ok(Self { file: path.map(open).transpose()?, header_written: false })
    }

    /// Writes a row to the end, and a line of the table if rows go to a file.
    fn write(&mut self, row: &Row) -> Result<(), CliError> {
        let line = serde_json::to_string(row).map_err(|error| CliError::stdout(error.into()))? + "\n";
        let _whole = interrupt::row();
        let mut out = stdout().lock();
        let Some((file, path)) = &mut self.file else {
            return out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(CliError::stdout);
        };
        file.write_all(line.as_bytes()).map_err(|source| CliError::output(path, source))?;
        let header = if self.header_written { String::new() } else { table_header() };
        self.header_written = true;
        write!(out, "{header}{}", table_line(row)).and_then(|()| out.flush()).map_err(CliError::stdout)
    }
}

fn table_header() -> String {
    let columns = ["p50 ms", "p99 ms", "tokens/s", "texts/s", "padding", "GFLOP/s", "of peak", "cosine"];
    let numbers: String = columns.iter().map(|name| format!("{name:>10}")).collect();
    format!("{:<24}{:<6}{:<9}{:<15}{numbers}\n", "model", "", "provider", "workload")
}

fn table_line(row: &Row) -> String {
    let start = format!("{:<24}{:<6}{:<9}{:<15}", row.model, row.precision, row.provider, row.workload_name());
    if row.status != Status::Ok {
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
