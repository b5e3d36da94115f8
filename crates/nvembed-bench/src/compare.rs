//! Ratios of two sets of results.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::row::{Row, Status};
use crate::summary::median;

/// Speeds by what was measured, in the order of rounds.
type Speeds = BTreeMap<String, Vec<f64>>;

/// A table of B's tokens per second over A's, workload by workload.
///
/// Rows are alike when model, precision, provider and workload are; `across` compares rows of the same workload, whatever
/// else they are of. Ratios are taken round by round: the table has their median, minimum and maximum.
///
/// # Errors
/// [`Error::Results`] when no row of one side is alike to one of the other, or `across` would mix kinds.
pub fn compare(a: &[Row], b: &[Row], across: bool) -> Result<String, Error> {
    let (a, b) = (speeds("A", a, across)?, speeds("B", b, across)?);
    let mut table = format!("{:<56}{:>12}{:>12}{:>9}{:>16}\n", "", "A tokens/s", "B tokens/s", "B / A", "min, max");
    let mut compared = 0;
    for (what, one) in &a {
        let Some(other) = b.get(what) else { continue };
        compared += 1;
        let mut ratios: Vec<f64> = one.iter().zip(other).map(|(one, other)| other / one).collect();
        ratios.sort_by(f64::total_cmp);
        let spread = format!("{:.2}, {:.2}", ratios[0], ratios[ratios.len() - 1]);
        let (one, other, ratio) = (median(one), median(other), median(&ratios));
        table.push_str(&format!("{what:<56}{one:>12.0}{other:>12.0}{ratio:>9.2}{spread:>16}\n"));
    }
    if compared == 0 {
        let list = |speeds: &Speeds| speeds.keys().cloned().collect::<Vec<_>>().join("; ");
        return Err(Error::Results(format!("no row of A ({}) is in B ({}); see --across", list(&a), list(&b))));
    }
    for (name, one, other) in [("A", &a, &b), ("B", &b, &a)] {
        let alone: Vec<_> = one.keys().filter(|what| !other.contains_key(*what)).map(String::as_str).collect();
        if !alone.is_empty() {
            table.push_str(&format!("only in {name}: {}\n", alone.join("; ")));
        }
    }
    Ok(table)
}

fn speeds(name: &str, rows: &[Row], across: bool) -> Result<Speeds, Error> {
    let (mut speeds, mut kinds) = (Speeds::new(), BTreeSet::new());
    for row in rows {
        let kind = format!("{} {} {}", row.model, row.precision, row.provider);
        let workload = row.workload_name();
        let what = if across { workload } else { format!("{kind} {workload}") };
        if let Some(speed) = row.tokens_per_s.filter(|_| row.status == Status::Ok) {
            speeds.entry(what).or_default().push(speed);
            kinds.insert(kind);
        }
    }
    if across && kinds.len() > 1 {
        let kinds = kinds.into_iter().collect::<Vec<_>>().join("; ");
        let message = format!("{name} has rows of {kinds}; --across needs rows of one of them on each side");
        return Err(Error::Results(message));
    }
    Ok(speeds)
}
