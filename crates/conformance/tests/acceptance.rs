//! `docs/acceptance.md` names checks, faults and tests: that there are such, and that the faults make the checks of their line fail.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use conformance::check;
use conformance::fault::{self, Fault};
use std::collections::BTreeSet;
use std::path::Path;

/// The lines of every table: what shows them, and what turns them red.
fn lines() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(root().join("docs/acceptance.md")).unwrap();
    let rows = text
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("| line") && !line.starts_with("|---"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 3, "{row}");
        (cells[0].to_owned(), cells[1].to_owned(), cells[2].to_owned())
    })
    .collect()
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of all test functions below a directory.
fn tests_below(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, names);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let functions = words.windows(2).filter(|pair| pair[0] == "fn");
        names.extend(functions.map(|pair| pair[1].to_owned()));
    }
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// What is not in backquotes: ids of checks.
fn checks(cell: &str) -> Vec<&str> {
    let outside = cell.split('`').step_by(2);
    let words = outside.flat_map(|part| part.split([',', ' ']));
    words.filter(|word| !word.is_empty()).collect()
}

fn fails(fault: &Fault, check: &str) -> bool {
    let is_of = |item: &&String| item.split(' ').next() == Some(check);
    // SEN-01 judges the harness itself, and never fails.
    let red = match check {
        "SEN-01" => &fault.expected.inconclusive,
        _ => &fault.expected.failed,
    };
    red.iter().any(|item| is_of(&item))
}

#[test]
fn every_line_is_shown_by_something_that_exists_and_can_fail() {
    let faults = fault::embedded().unwrap();
    let mut tests = BTreeSet::new();
    for krate in ["conformance", "provisioner"] {
        tests_below(&root().join("crates").join(krate).join("tests"), &mut tests);
    }
    let lines = lines();
    assert!(lines.len() > 30, "{} lines", lines.len());
    for (line, shown, red) in lines {
        assert!(!shown.is_empty(), "{line}: shown by nothing");
        for test in quoted(&shown) {
            assert!(tests.contains(test), "{line}: no test {test}");
        }
        let faults: Vec<&Fault> = quoted(&red)
            .into_iter()
            .map(|name| {
                let found = faults.iter().find(|fault| fault.name == name);
                found.unwrap_or_else(|| panic!("{line}: no fault {name}"))
            })
            .collect();
        let checks = checks(&shown);
        for id in &checks {
            assert!(check::find(id).is_some(), "{line}: no check {id}");
            assert!(
                faults.iter().any(|fault| fails(fault, id)),
                "{line}: no fault of it fails {id}"
            );
        }
        for fault in faults {
            assert!(
                checks.iter().any(|id| fails(fault, id)),
                "{line}: {} fails none of its checks",
                fault.name
            );
        }
    }
}
