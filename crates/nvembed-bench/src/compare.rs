//! `nvembed bench compare`: ratios of two files of results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::record::read;
use super::summary::median;
use crate::cli::exit::CliError;
use crate::cli::score::print;

/// Compare two files of results: B's tokens a second over A's.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Rows are the same when model, precision, provider and workload are; --across compares any with any of the same
workload, such as two precisions. Ratios are taken round by round: their median, the least and the largest are printed."
)]
pub(crate) struct Arguments {
    /// Results of the one side.
    a: PathBuf,
    /// Results of the other.
    b: PathBuf,
    /// Compare rows of the same workload, whatever model, precision and provider they are of.
    #[arg(long)]
    across: bool,
}

/// Speeds by what was measured, in the order of rounds.
type Speeds = BTreeMap<String, Vec<f64>>;

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let a = speeds(&arguments.a, arguments.across)?;
    let b = speeds(&arguments.b, arguments.across)?;
    let mut report =
        format!("{:<56}{:>12}{:>12}{:>9}{:>16}\n", "", "A tokens/s", "B tokens/s", "B / A", "least, largest");
    let mut compared = 0;
    for (what, one) in &a {
        let Some(other) = b.get(what) else { continue };
        compared += 1;
        let mut ratios: Vec<f64> = one.iter().zip(other).map(|(one, other)| other / one).collect();
        ratios.sort_by(f64::total_cmp);
        let spread = format!("{:.2}, {:.2}", ratios[0], ratios[ratios.len() - 1]);
        report.push_str(&format!(
            "{what:<56}{:>12.0}{:>12.0}{:>9.2}{spread:>16}\n",
            median(one),
            median(other),
            median(&ratios)
        ));
    }
    if compared == 0 {
        let list = |speeds: &Speeds| speeds.keys().cloned().collect::<Vec<_>>().join("; ");
        let message = format!("no row of A ({}) is in B ({}); see --across", list(&a), list(&b));
        return Err(CliError::Input(message).into());
    }
    for (name, one, other) in [("A", &a, &b), ("B", &b, &a)] {
        let alone: Vec<_> = one.keys().filter(|what| !other.contains_key(*what)).map(String::as_str).collect();
        if !alone.is_empty() {
            report.push_str(&format!("only in {name}: {}\n", alone.join("; ")));
        }
    }
    print(&report)
}

fn speeds(path: &Path, across: bool) -> anyhow::Result<Speeds> {
    let (mut speeds, mut kinds) = (Speeds::new(), BTreeSet::new());
    for row in read(path)? {
        let kind = format!("{} {} {}", row.model, row.precision, row.provider);
        let what = if across { row.workload } else { format!("{kind} {}", row.workload) };
        if let Some(speed) = row.tokens_per_s.filter(|_| row.status == "ok") {
            speeds.entry(what).or_default().push(speed);
            kinds.insert(kind);
        }
    }
    if across && kinds.len() > 1 {
        let kinds = kinds.into_iter().collect::<Vec<_>>().join("; ");
        let message = format!("{} has rows of {kinds}; --across compares files with one of them each", path.display());
        return Err(CliError::Input(message).into());
    }
    Ok(speeds)
}
