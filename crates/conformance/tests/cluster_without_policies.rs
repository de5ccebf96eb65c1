//! NET-01's planted fault is a state of the cluster: a network plugin that accepts policies and ignores them, the most common real fault
//! there is. Run by `make test-cluster` on a lab started with `--cni none`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod support;

use std::collections::BTreeSet;
use support::run;

#[test]
#[ignore = "needs a cluster that ignores policies: make test-cluster"]
fn a_cluster_that_ignores_policies_fails_every_denial_of_the_network_and_nothing_else() {
    let outcome = run(&["--tenants", "open-a,open-b"]);
    let denials = [
        "NET-01 cluster",
        "NET-02 open-a -> open-b",
        "NET-02 open-b -> open-a",
        "NET-03 open-a -> open-b",
        "NET-03 open-b -> open-a",
    ];
    assert_eq!(
        outcome.failed,
        denials.map(str::to_owned).into_iter().collect::<BTreeSet<_>>(),
        "{}",
        outcome.text
    );
    assert_eq!((outcome.code, outcome.passed.len()), (1, 7), "{}", outcome.text);
    assert!(
        outcome
            .text
            .contains("install a network plugin that enforces NetworkPolicy"),
        "{}",
        outcome.text
    );
}
