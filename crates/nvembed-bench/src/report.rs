//! The page of plots: a single file that loads nothing.

use crate::summary::Summary;

/// The parts of the page, by placeholder, in the template's order.
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

/// The page as HTML.
///
/// # Errors
/// In practice none: every summary can be written as JSON.
pub fn page(summary: &Summary) -> serde_json::Result<String> {
    let page = PARTS.iter().fold(TEMPLATE.to_owned(), |page, (place, part)| page.replacen(place, part, 1));
    // Last, because the results may contain a placeholder. "<" is escaped: it could close the script element.
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
