//! The files for operators say what the program has: its options, routes and metrics.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::nvembed;
use crate::serve::{Serving, get};

fn folder() -> PathBuf {
    crate::common::root().join("crates/nvembed-server/deploy")
}

fn file(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// Words that begin so, without what follows a name.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let ends = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
    let pieces = text.match_indices(start).filter(|(at, _)| text[..*at].chars().next_back().is_none_or(ends));
    pieces.map(|(at, _)| text[at..].split(ends).next().unwrap_or_default().to_owned()).collect()
}

/// Without comments.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_option_in_them_is_one_of_serve() {
    let help = nvembed().args(["serve", "--help"]).output().unwrap();
    let known = words(&String::from_utf8(help.stdout).unwrap(), "--");
    let arguments = [
        file("Containerfile").lines().filter(|line| line.starts_with("CMD")).collect::<String>(),
        code(&file("nvembed.service")),
        code(&file("kubernetes.yaml")),
    ];
    for text in arguments {
        let used: Vec<_> =
            words(&text, "--").into_iter().filter(|word| word.chars().any(char::is_alphabetic)).collect();
        assert!(used.contains(&"--model".to_owned()), "{text}");
        for option in used {
            assert!(known.contains(&option), "{option}: {text}");
        }
    }
}

#[test]
fn every_metric_in_them_is_one_of_the_servers_and_every_probe_is_a_route() {
    let (serving, address) = Serving::start(&["--drain-delay", "0"]);
    let metrics = get(&address, "/metrics");
    let known = words(&metrics, "nvembed_").into_iter().chain(words(&metrics, "process_")).collect::<BTreeSet<_>>();
    let grafana: Value = serde_json::from_str(&file("grafana.json")).unwrap();
    let mut used = BTreeSet::new();
    for panel in grafana["panels"].as_array().unwrap() {
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let names: BTreeSet<_> = words(query, "nvembed_").into_iter().chain(words(query, "process_")).collect();
            assert!(!names.is_empty(), "{query}");
            used.extend(names);
        }
    }
    used.extend(words(&code(&file("autoscaling.yaml")), "nvembed_"));
    for name in used {
        assert!(known.contains(&name), "{name} is no metric of: {known:?}");
    }
    let manifest = code(&file("kubernetes.yaml"));
    let probes: Vec<_> = manifest.lines().filter_map(|line| line.split("httpGet: {path: ").nth(1)).collect();
    assert_eq!(probes.len(), 3);
    for probe in probes {
        let path = probe.split(',').next().unwrap();
        assert!(get(&address, path).starts_with("HTTP/1.1 200"), "{path}");
    }
    assert_eq!(serving.end("-TERM").2, Some(0));
}

#[test]
fn they_give_a_server_the_time_to_drain() {
    let number = |text: &str, name: &str| -> u64 {
        let after = text.split(name).nth(1).unwrap_or_else(|| panic!("{name} in {text}"));
        let digits: String = after.chars().skip_while(|letter| !letter.is_ascii_digit()).collect();
        digits.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let help = nvembed().args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let default = |option: &str| number(help.split(option).nth(1).unwrap(), "[default:");
    let drain = default("--drain-delay <S>") + default("--drain-timeout <S>");
    assert!(number(&code(&file("kubernetes.yaml")), "terminationGracePeriodSeconds:") > drain, "{drain}");
    assert!(number(&code(&file("nvembed.service")), "TimeoutStopSec=") > drain, "{drain}");
}
