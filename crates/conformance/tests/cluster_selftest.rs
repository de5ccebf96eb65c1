//! `conformance selftest` on a real cluster, where it must not be green: wrong expectations are told, and an interrupted one leaves
//! nothing. That it is green otherwise is shown by running it: `make test-cluster` does. Makes tenants and removes them.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use support::{conformance, namespaces};

/// A fault that takes a's quota away, with this for what it is expected to do.
fn fault(root: &Path, name: &str, expected: &str) {
    let tenant = root.join(name).join("tenant-a");
    std::fs::create_dir_all(&tenant).unwrap();
    std::fs::write(
        root.join(name).join("fault.yaml"),
        format!("breaks: a has no ResourceQuota\n{expected}\n"),
    )
    .unwrap();
    std::fs::write(tenant.join("20-resourcequota.delete"), "").unwrap();
}

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn a_wrong_expectation_ends_in_exit_code_1_with_the_difference_named() {
    let client = support::client().await;
    let (state, faults) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let junit = state.path().join("junit.xml");
    fault(
        faults.path(),
        "red-unseen",
        "failed: [QUO-01 a, QUO-02 a, QUO-03 a, NET-03 a -> b]\ninconclusive: [APP-17 a -> b]",
    );
    fault(
        faults.path(),
        "red-unexpected",
        "failed: [QUO-02 a, QUO-03 a]\ninconclusive: [APP-17 a -> b, QUO-01 a]",
    );
    fault(
        faults.path(),
        "red-exact",
        "failed: [QUO-01 a, QUO-02 a, QUO-03 a]\ninconclusive: [APP-17 a -> b]",
    );
    let arguments = ["selftest", "--faults", faults.path().to_str().unwrap()];
    let output = conformance(state.path(), &arguments)
        .arg("--junit")
        .arg(&junit)
        .output()
        .unwrap();
    let (shown, closing) = (
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        closing.contains("kill matrix: 1 of 3 exact in ") && closing.contains("(clean pass, 3 faults)"),
        "{closing}"
    );
    let lines: Vec<&str> = shown.lines().map(str::trim).collect();
    for expected in [
        ["expected     NET-03 a -> b failed", "seen         passed"],
        ["expected     QUO-01 a inconclusive", "seen         failed: "],
    ] {
        let at = lines.iter().position(|line| *line == expected[0]);
        let at = at.unwrap_or_else(|| panic!("{:?} in {shown}", expected[0]));
        assert!(lines[at + 1].starts_with(expected[1].trim_end()), "{shown}");
    }
    assert!(
        lines
            .iter()
            .any(|line| line.contains("red-exact") && line.contains("as expected: failed QUO-01 a")),
        "{shown}"
    );
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(
        xml.contains("tests=\"4\" failures=\"2\" errors=\"0\" skipped=\"0\""),
        "{xml}"
    );
    left_nothing(&client, state.path(), &["red-"], &shown).await;
}

#[tokio::test]
#[ignore = "needs a cluster: make test-cluster"]
async fn an_interrupted_selftest_leaves_nothing_not_even_what_will_not_go() {
    let client = support::client().await;
    let state = tempfile::tempdir().unwrap();
    let faults = [
        "selftest",
        "--only",
        "foreign-finalizer,harmless-unrelated-namespace",
    ];
    let mut child = conformance(state.path(), &faults)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("clean-pass  ") {
        assert_ne!(
            lines.read_line(&mut text).unwrap(),
            0,
            "it ended before it began: {text}"
        );
    }
    // The clean pass is over, so both faults are being planted or stand.
    let made = namespaces(&client, &["foreign-finalizer-", "harmless-unrelated-namespace"]).await;
    let status = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
    lines.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
    assert!(!made.is_empty(), "{text}");
    assert!(text.contains("stopping, then cleaning up"), "{text}");
    assert!(!text.contains("trouble"), "{text}");
    left_nothing(
        &client,
        state.path(),
        &["foreign-finalizer-", "harmless-unrelated-namespace"],
        &text,
    )
    .await;
}

async fn left_nothing(client: &kube::Client, state: &Path, words: &[&str], text: &str) {
    let left = namespaces(client, words).await;
    assert!(left.is_empty(), "{left:?} {text}");
    let ledgers = std::fs::read_dir(state.join("ai-agents-conformance")).map_or(0, Iterator::count);
    assert_eq!(ledgers, 0, "a ledger was left: {text}");
}
