//! NET-01's planted fault is a state of the cluster: a network plugin that accepts policies and ignores them, the most common real fault
//! there is. `conformance selftest` cannot plant it, so it is judged here. Run by `make test-cluster` on a lab started with `--cni none`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod support;

use conformance::fault;
use std::collections::BTreeSet;
use support::run;

#[test]
#[ignore = "needs a cluster that ignores policies: make test-cluster"]
fn a_cluster_that_ignores_policies_fails_every_denial_of_the_network_and_nothing_else() {
    let faults = fault::embedded().unwrap();
    let fault = faults
        .iter()
        .find(|fault| fault.cluster.as_deref() == Some("cni-none"))
        .unwrap();
    let [a, b] = fault.tenants.each_ref().map(ToString::to_string);
    let outcome = run(&["--tenants", &format!("{a},{b}")]);
    // fault.yaml calls the tenants a and b.
    let named = |items: &BTreeSet<String>| -> BTreeSet<String> {
        let word = |word: &str| match word {
            "a" => a.clone(),
            "b" => b.clone(),
            other => other.to_owned(),
        };
        let item = |item: &String| item.split(' ').map(word).collect::<Vec<_>>().join(" ");
        items.iter().map(item).collect()
    };
    assert!(!fault.expected.failed.is_empty());
    assert_eq!(outcome.failed, named(&fault.expected.failed), "{}", outcome.text);
    assert_eq!(
        outcome.inconclusive,
        named(&fault.expected.inconclusive),
        "{}",
        outcome.text
    );
    assert!(
        outcome.skipped.is_empty() && outcome.code == 1,
        "{}",
        outcome.text
    );
    assert!(
        outcome
            .text
            .contains("install a network plugin that enforces NetworkPolicy"),
        "{}",
        outcome.text
    );
}
