//! Every planted fault of `fixtures/faults` on a real cluster: exactly the items that it names do not pass. Run by `make test-cluster`; see
//! `support` for the cluster. Makes two tenants for each fault, named after it, and removes them.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod support;

use rstest::rstest;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use support::{delete, provision, run};

/// `fault.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    /// What it breaks, for people.
    breaks: String,
    /// The planned items that fail; `a` and `b` stand for the tenants.
    #[serde(default)]
    failed: BTreeSet<String>,
    /// Those that cannot be judged.
    #[serde(default)]
    inconclusive: BTreeSet<String>,
}

/// `NET-02 a -> b` with the tenants' names.
fn named(items: &BTreeSet<String>, a: &str, b: &str) -> BTreeSet<String> {
    let name = |word: &str| match word {
        "a" => a.to_owned(),
        "b" => b.to_owned(),
        other => other.to_owned(),
    };
    items
        .iter()
        .map(|item| item.split(' ').map(name).collect::<Vec<_>>().join(" "))
        .collect()
}

/// The overrides of one tenant, with the other's namespace for `@NEIGHBOUR@`.
fn overrides(directory: &Path, neighbour: &str) -> Option<tempfile::TempDir> {
    let files = std::fs::read_dir(directory).ok()?;
    let filled = tempfile::tempdir().unwrap();
    for file in files.map(Result::unwrap) {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let text = text.replace("@NEIGHBOUR@", &format!("ai-agents-{neighbour}"));
        std::fs::write(filled.path().join(file.file_name()), text).unwrap();
    }
    Some(filled)
}

#[rstest]
#[ignore = "needs a cluster: make test-cluster"]
#[tokio::test]
async fn exactly_the_named_items_turn_red(#[files("../../fixtures/faults/*/fault.yaml")] file: PathBuf) {
    let fault: Fault = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let directory = file.parent().unwrap();
    // What is the whole cluster's must be planted while nothing else runs.
    if directory.join("platform").is_dir() {
        return;
    }
    let name = directory.file_name().unwrap().to_string_lossy();
    let (a, b) = (format!("{name}-a"), format!("{name}-b"));
    let client = support::client().await;
    for (id, side, neighbour) in [(&a, "tenant-a", &b), (&b, "tenant-b", &a)] {
        let overrides = overrides(&directory.join(side), neighbour);
        provision(&client, id, overrides.as_ref().map(tempfile::TempDir::path)).await;
    }
    let outcome = run(&["--tenants", &format!("{a},{b}")]);
    futures::join!(delete(&client, &a), delete(&client, &b));

    assert!(!fault.breaks.is_empty());
    assert_eq!(outcome.failed, named(&fault.failed, &a, &b), "{}", outcome.text);
    assert_eq!(
        outcome.inconclusive,
        named(&fault.inconclusive, &a, &b),
        "{}",
        outcome.text
    );
    let code = if fault.failed.is_empty() { 0 } else { 1 };
    assert_eq!(outcome.code, code, "{}", outcome.text);
}
