//! Every planted fault of `fixtures/faults` on a real cluster: exactly the items that it names do not pass. Run by `make test-cluster`; see
//! `support` for the cluster. Makes the tenants `fault-a` and `fault-b` and removes them.

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
fn named(items: &BTreeSet<String>) -> BTreeSet<String> {
    let name = |word: &str| match word {
        "a" => "fault-a".to_owned(),
        "b" => "fault-b".to_owned(),
        other => other.to_owned(),
    };
    items
        .iter()
        .map(|item| item.split(' ').map(name).collect::<Vec<_>>().join(" "))
        .collect()
}

#[rstest]
#[ignore = "needs a cluster: make test-cluster"]
#[tokio::test]
async fn exactly_the_named_items_turn_red(#[files("../../fixtures/faults/*/fault.yaml")] file: PathBuf) {
    let fault: Fault = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let directory: &Path = file.parent().unwrap();
    let client = support::client().await;
    provision(&client, "fault-a", Some(&directory.join("tenant-a"))).await;
    provision(&client, "fault-b", Some(&directory.join("tenant-b"))).await;
    let outcome = run(&["--tenants", "fault-a,fault-b"]);
    delete(&client, "fault-a").await;
    delete(&client, "fault-b").await;

    assert!(!fault.breaks.is_empty());
    assert_eq!(outcome.failed, named(&fault.failed), "{}", outcome.text);
    assert_eq!(
        outcome.inconclusive,
        named(&fault.inconclusive),
        "{}",
        outcome.text
    );
    let code = if fault.failed.is_empty() { 0 } else { 1 };
    assert_eq!(outcome.code, code, "{}", outcome.text);
}
