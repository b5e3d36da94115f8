//! The page of plots: one file that loads nothing.

use crate::summary::Summary;

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

/// The page, as HTML.
///
/// # Errors
/// None in practice: a summary can always be written as JSON.
pub fn page(summary: &Summary) -> serde_json::Result<String> {
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
