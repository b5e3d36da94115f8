//! Results as a Markdown table, and the facts below it.

use super::summary::{Cell, Spread, Summary};

/// The table, notes and facts; ends with a line feed.
pub(super) fn markdown(summary: &Summary) -> String {
    let width = summary.series.first().map_or(0, |series| series.name.len());
    let named = ["provider", "precision"].into_iter().chain(std::iter::repeat_n("", width.saturating_sub(2)));
    let measured = ["workload", "tokens/s (least to largest)", "p50 ms", "p99 ms", "of matmul peak", "1 − cosine"];
    let header: Vec<_> = named.chain(measured).map(str::to_owned).collect();
    let mut text = line(&header);
    text.push_str(&format!("{}{}|\n", "|---".repeat(width + 1), "|---:".repeat(measured.len() - 1)));
    for cell in summary.cells.iter().filter(|cell| cell.status == "ok") {
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

/// The cells behind the workload.
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

/// Where, with what, when and how: one paragraph.
fn facts(summary: &Summary) -> String {
    let day = |seconds: u64| civil_day(seconds / 86_400);
    let [first, last] = summary.time_unix_s.map(day);
    let days = if first == last { first } else { format!("{first} to {last}") };
    let load = summary.load.map_or(String::new(), |[least, most]| format!(", load {least} to {most}"));
    let most = summary.cells.iter().filter(|cell| cell.status == "ok").map(|cell| cell.rounds).max().unwrap_or(0);
    let rounds = if most > 1 { format!("; medians of up to {most} rounds") } else { String::new() };
    let mut facts: Vec<_> =
        [&summary.machines, &summary.gpus, &summary.versions].into_iter().flatten().cloned().collect();
    facts.push(format!("{days}{load}{rounds}"));
    facts.extend(summary.commands.iter().map(|command| format!("`{command}`")));
    let notes: Vec<_> = summary.warnings.iter().chain(&summary.notes).map(String::as_str).collect();
    format!("{}. {}", facts.join("; "), notes.join(" ")).trim_end().to_owned()
}

/// A line of a table; what would end a cell is escaped.
fn line(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|").replace(['\n', '\r'], " ")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Three digits, or all before the point, in groups of three.
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

/// Year, month and day of a number of days since 1970-01-01 (<https://howardhinnant.github.io/date_algorithms.html>,
/// `civil_from_days`, without dates before then).
fn civil_day(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
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
        // `date -u -d @SECONDS +%F`
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_795_470_400, "2026-11-23"),
            (4_107_542_399, "2100-02-28"),
        ] {
            assert_eq!(civil_day(seconds / 86_400), day);
        }
    }

    #[test]
    fn what_would_end_a_cell_is_escaped() {
        assert_eq!(line(&["a|b".to_owned(), "c\nd".to_owned()]), "| a\\|b | c d |\n");
    }
}
