//! `nvembed bench report`: results as a page of plots that needs nothing else, and as Markdown tables.

use std::path::PathBuf;

use super::markdown::markdown;
use super::record::read;
use super::summary::Summary;
use crate::cli::exit::CliError;
use crate::cli::output::write_file;
use crate::cli::score::print;

/// Where the page takes its parts from, in the order of the template's places.
const PARTS: [(&str, &str); 6] = [
    ("{{style}}", include_str!("report/page.css")),
    ("{{licences}}", include_str!("report/vendor/LICENSES.txt")),
    ("{{d3}}", include_str!("report/vendor/d3-7.9.2.min.js")),
    ("{{plot}}", include_str!("report/vendor/plot-0.6.17.umd.min.js")),
    ("{{charts}}", include_str!("report/charts.js")),
    ("{{page}}", include_str!("report/page.js")),
];
const TEMPLATE: &str = include_str!("report/page.html");
const RESULTS: &str = "{{results}}";

/// Show results as a page of plots, or as Markdown tables.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The page is one file that loads nothing from anywhere. Rounds of one measurement are shown as their median, with the
least and the largest."
)]
pub(crate) struct Arguments {
    /// Files of results.
    #[arg(required = true, value_name = "RESULTS")]
    results: Vec<PathBuf>,
    /// The page to write.
    #[arg(short, long, value_name = "FILE", required_unless_present = "markdown")]
    output: Option<PathBuf>,
    /// Print a Markdown table.
    #[arg(long)]
    markdown: bool,
    /// Only these workloads, such as 8x128.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    workload: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for path in &arguments.results {
        rows.extend(read(path)?);
    }
    for name in &arguments.workload {
        if !rows.iter().any(|row| row.workload == *name) {
            return Err(CliError::Usage(format!("--workload {name}: no row of the results has it")).into());
        }
    }
    rows.retain(|row| arguments.workload.is_empty() || arguments.workload.contains(&row.workload));
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

fn page(summary: &Summary) -> serde_json::Result<String> {
    let page = PARTS.iter().fold(TEMPLATE.to_owned(), |page, (place, part)| page.replacen(place, part, 1));
    // Last, since it may hold anything; "<" could end the element that it stands in.
    Ok(page.replacen(RESULTS, &serde_json::to_string(summary)?.replace('<', "\\u003c"), 1))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_part_has_a_place_and_ends_no_element() {
        for (place, part) in PARTS {
            assert_eq!(TEMPLATE.matches(place).count(), 1, "{place}");
            assert!(!part.contains("</s") && !part.contains("{{"), "{place}");
        }
        assert_eq!(TEMPLATE.matches(RESULTS).count(), 1);
    }

    #[test]
    fn the_libraries_are_the_ones_that_were_published() {
        let list = include_str!("report/vendor/README.md");
        for (place, part) in &PARTS[2..4] {
            let digest: String = Sha256::digest(part.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(list.contains(&digest), "{place}: {digest}");
        }
    }
}
