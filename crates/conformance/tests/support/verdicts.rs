//! The table of docs/verdicts.md, one row for each fault. Tests compare their row with what they saw; with UPDATE_VERDICTS=1 they write it.

use super::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

/// What a run under a fault comes to. Items are written with `a` and `b` for the tenants; a check's id alone stands for all its items.
pub struct Expected<'e> {
    /// The items that cannot be judged, and what the cause of each says. All others that were asked for pass.
    pub inconclusive: &'e [(&'e [&'e str], &'e str)],
    /// What was asked again.
    pub retried: &'e [&'e str],
    /// What could not be removed.
    pub left: &'e [&'e str],
}

/// Compares a run with what is expected of it. The names are those of the tenants.
pub fn compare(outcome: &Outcome, expected: &Expected<'_>, names: [&str; 2]) {
    let text = &outcome.text;
    let planned: BTreeSet<String> = outcome
        .passed
        .iter()
        .chain(&outcome.inconclusive)
        .cloned()
        .collect();
    let mut causes: BTreeMap<String, &str> = BTreeMap::new();
    for (items, cause) in expected.inconclusive {
        for item in items.iter().flat_map(|item| all(item, names, &planned)) {
            causes.insert(item, cause);
        }
    }
    assert!(outcome.failed.is_empty(), "{text}");
    let inconclusive: BTreeSet<String> = causes.keys().cloned().collect();
    assert_eq!(
        outcome
            .inconclusive
            .iter()
            .filter(|item| is_item(item))
            .cloned()
            .collect::<BTreeSet<_>>(),
        inconclusive,
        "{text}"
    );
    for (item, cause) in causes {
        assert!(
            outcome.causes[&item].contains(cause),
            "{item}: {cause:?} in {:?}\n{text}",
            outcome.causes[&item]
        );
    }
    for what in expected.retried {
        let told = outcome.retried.iter().any(|line| line.starts_with(what));
        assert!(
            told && text.contains(what),
            "{what:?} in {:?}\n{text}",
            outcome.retried
        );
    }
    for what in expected.left {
        let line = |line: &str| line.contains("left behind") && line.contains(what);
        assert!(text.lines().any(line), "{what:?} is not named: {text}");
    }
    assert_eq!(text.contains("left behind"), !expected.left.is_empty(), "{text}");
    let code = if inconclusive.is_empty() && expected.left.is_empty() {
        0
    } else {
        3
    };
    assert_eq!(outcome.code, code, "{text}");
}

/// Not what the report says of the run itself.
fn is_item(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
}

/// The items that `NET-02` or `NET-02 a -> b` stands for.
fn all(item: &str, [a, b]: [&str; 2], planned: &BTreeSet<String>) -> Vec<String> {
    let mut words: Vec<&str> = item.split(' ').collect();
    for word in &mut words {
        *word = match *word {
            "a" => a,
            "b" => b,
            other => other,
        };
    }
    if words.len() > 1 {
        return vec![words.join(" ")];
    }
    let of_check = planned.iter().filter(|name| name.split(' ').next() == Some(item));
    of_check.cloned().collect()
}

/// One at a time: tests run side by side.
static FILE: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/verdicts.md")
}

/// The faults of the table, in its order.
pub fn listed() -> Vec<String> {
    let text = std::fs::read_to_string(path()).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned())
        .collect()
}

/// Compares or writes the row of a fault: how it is made, what was asked for, and what came of it, which was seen before.
pub fn record(fault: &str, made: &str, expected: &Expected<'_>, cleaned: &str) {
    let row = row(fault, made, expected, cleaned);
    let _one = FILE.lock().unwrap();
    let text = std::fs::read_to_string(path()).unwrap();
    let start = format!("| {fault} |");
    let found = text.lines().find(|line| line.starts_with(&start));
    if std::env::var_os("UPDATE_VERDICTS").is_some() {
        let text = match found {
            Some(old) => text.replace(old, &row),
            None => format!("{}\n{row}\n", text.trim_end()),
        };
        std::fs::write(path(), text).unwrap();
    } else {
        assert_eq!(
            found,
            Some(row.as_str()),
            "docs/verdicts.md is stale: run this test with UPDATE_VERDICTS=1"
        );
    }
}

fn row(fault: &str, made: &str, expected: &Expected<'_>, cleaned: &str) -> String {
    let causes: Vec<String> = expected
        .inconclusive
        .iter()
        .map(|(items, cause)| format!("{}: `{cause}`", items.join(", ").replace("->", "→")))
        .collect();
    let or_none = |lines: String| {
        if lines.is_empty() {
            "none".to_owned()
        } else {
            lines
        }
    };
    let told: Vec<String> = expected
        .retried
        .iter()
        .map(|line| format!("`{line} N times; asked again`"))
        .collect();
    let left = expected.left.join(", ");
    let left = if left.is_empty() {
        "nothing is left".to_owned()
    } else {
        format!("names {left}")
    };
    format!(
        "| {fault} | {made} | {} | {} | {left}; {cleaned} |",
        or_none(causes.join("<br>")),
        or_none(told.join("<br>")),
    )
}
