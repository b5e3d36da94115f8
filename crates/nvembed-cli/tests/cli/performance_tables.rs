//! The documents' tables of measurements are what the program says of the committed results.

use std::fs;

use crate::common::root;
use crate::{nvembed, run};

const DOCUMENTS: [&str; 3] = ["README.md", "docs/guides/performance.md", "docs/lab/cpu-speed.md"];
const START: &str = "<!-- nvembed bench report ";
const END: &str = "<!-- end of report -->";

/// The text with every table as the command of its marker prints it.
fn filled(text: &str) -> String {
    let mut parts = text.split(START);
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let (arguments, rest) = part.split_once(" -->").expect("a marker ends in its line");
        let (_, rest) = rest.split_once(END).unwrap_or_else(|| panic!("no {END} behind {arguments}"));
        let mut command = nvembed();
        command.current_dir(root()).args(["bench", "report"]).args(arguments.split(' '));
        let output = run(&mut command, b"");
        assert!(output.status.success(), "{arguments}: {output:?}");
        let table = String::from_utf8(output.stdout).unwrap();
        filled.push_str(&format!("{START}{arguments} -->\n\n{table}\n{END}{rest}"));
    }
    filled
}

#[test]
fn committed_tables_are_what_committed_results_give() {
    for name in DOCUMENTS {
        let path = root().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(START), "{name} has no table");
        let wanted = filled(&text);
        if std::env::var_os("NVEMBED_WRITE_TABLES").is_some() {
            fs::write(&path, wanted).unwrap();
        } else {
            assert!(
                text == wanted,
                "a table of {name} is not what its results give; `make performance-tables` writes it"
            );
        }
    }
}
