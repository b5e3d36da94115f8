//! Results as a Markdown table, and the facts below it.

use std::time::{Duration, UNIX_EPOCH};

use crate::row::Status;
use crate::summary::{Cell, Spread, Summary};

/// The table, notes and facts; ends with a line feed.
pub fn markdown(summary: &Summary) -> String {
    let width = summary.series.first().map_or(0, |series| series.name.len());
    let named = ["provider", "precision"].into_iter().chain(std::iter::repeat_n("", width.saturating_sub(2)));
    let measured = ["workload", "tokens/s (min to max)", "p50 ms", "p99 ms", "of matmul peak", "1 − cosine"];
    let header: Vec<_> = named.chain(measured).map(str::to_owned).collect();
    let mut text = line(&header);
    text.push_str(&format!("{}{}|\n", "|---".repeat(width + 1), "|---:".repeat(measured.len() - 1)));
    for cell in summary.cells.iter().filter(|cell| cell.status == Status::Ok) {
        let mut cells = summary.series[cell.series].name.clone();
        cells.push(cell.workload.clone());
        cells.extend(numbers(cell));
        text.push_str(&line(&cells));
    }
    for problem in &summary.problems {
        let mut cells = summary.series[problem.series].name.clone();
        let error = problem.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
        cells.extend([problem.workloads.join(", "), format!("**{}**{error}", problem.status)]);
        cells.resize(header.len(), String::new());
        text.push_str(&line(&cells));
    }
    text.push('\n');
    text + &facts(summary) + "\n"
}

/// The cells after the workload.
fn numbers(cell: &Cell) -> [String; 5] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let spread = |spread: Spread| {
        let [median, least, largest] = [spread.median, spread.least, spread.largest].map(rounded);
        if cell.rounds == 1 { median } else { format!("{median} ({least} to {largest})") }
    };
    let median = |spread: Option<Spread>| or_dash(spread.map(|spread| rounded(spread.median)));
    [
        or_dash(cell.tokens_per_s.map(spread)),
        median(cell.p50_ms),
        median(cell.p99_ms),
        or_dash(cell.share_of_peak.map(|share| format!("{:.0} %", 100.0 * share.median))),
        or_dash(cell.cosine_min.map(|cosine| format!("{:.1e}", (1.0 - cosine).max(0.0)))),
    ]
}

/// Machines, versions, dates and commands in one paragraph.
fn facts(summary: &Summary) -> String {
    let [first, last] = summary.time_unix_s.map(day);
    let days = if first == last { first } else { format!("{first} to {last}") };
    let load = summary.load.map_or(String::new(), |[least, most]| format!(", load {least} to {most}"));
    let most = summary.cells.iter().filter(|cell| cell.status == Status::Ok).map(|cell| cell.rounds).max().unwrap_or(0);
    let rounds = if most > 1 { format!("; medians of up to {most} rounds") } else { String::new() };
    let mut facts: Vec<_> =
        [&summary.machines, &summary.gpus, &summary.versions].into_iter().flatten().cloned().collect();
    facts.push(format!("{days}{load}{rounds}"));
    facts.extend(summary.commands.iter().map(|command| format!("`{command}`")));
    let notes: Vec<_> = summary.warnings.iter().chain(&summary.notes).map(String::as_str).collect();
    format!("{}. {}", facts.join("; "), notes.join(" ")).trim_end().to_owned()
}

/// A line of a table, with cell separators escaped.
fn line(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|").replace(['\n', '\r'], " ")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Three digits, or all before the point with thousands separators.
fn rounded(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let grouped = whole.char_indices().map(|(place, digit)| {
        let comma = place > 0 && (whole.len() - place).is_multiple_of(3);
        format!("{}{digit}", if comma { "," } else { "" })
    });
    grouped.collect::<String>() + fraction
}

/// Year, month and day; at most 9999-12-31.
fn day(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(time).to_string()[..10].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        let wanted = [(0.01234, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (999.6, "1,000"), (1234567.8, "1,234,568")];
        for (value, text) in wanted {
            assert_eq!(rounded(value), text);
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!([0, 1_795_470_400, u64::MAX].map(day), ["1970-01-01", "2026-11-23", "9999-12-31"]);
    }

    #[test]
    fn what_would_end_a_cell_is_escaped() {
        assert_eq!(line(&["a|b".to_owned(), "c\nd".to_owned()]), "| a\\|b | c d |\n");
    }
}
