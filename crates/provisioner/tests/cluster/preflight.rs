//! Preflight on a real cluster: the canary shows that policies are enforced, is interrupted, and never stays.

use super::{connected, with_tenant};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client};
use provisioner::preflight::{AGENT_IMAGE, Check, Finding, Report, Request, State};
use provisioner::{Manifest, Silent, Tenant, preflight};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Mutex;

/// Who looks for what is left takes anybody's canary for his own.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn look(
    client: &Client,
    tenants: &[(Tenant, Vec<Manifest>)],
    image: &str,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> Report {
    let request = Request {
        tenants,
        skip: BTreeSet::new(),
        platform_apply: true,
        agent_image: image,
    };
    preflight(client, &request, interrupted, &Silent).await
}

fn finding(report: &Report, check: Check) -> &Finding {
    report.findings.iter().find(|it| it.check == check).unwrap()
}

/// The namespaces of canaries, but for those that were there before: another test's, or somebody's.
async fn canaries(client: &Client, before: &BTreeSet<String>) -> BTreeSet<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    let list = api
        .list_metadata(&ListParams::default().labels("ai-agents-platform/preflight"))
        .await
        .unwrap();
    let names = list.items.into_iter().filter_map(|item| item.metadata.name);
    names.filter(|name| !before.contains(name)).collect()
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER; makes and removes a namespace preflight-…"]
async fn on_a_cluster_that_has_all_nothing_is_missing_and_policies_are_enforced() {
    let _alone = ONE_AT_A_TIME.lock().await;
    with_tenant("preflight", async |case| {
        let tenants = [(case.tenant.clone(), case.manifests())];
        let report = look(&case.client, &tenants, AGENT_IMAGE, std::future::pending()).await;
        assert!(report.is_complete(), "{report}");
        let enforcement = finding(&report, Check::Enforcement);
        assert_eq!(enforcement.state, State::Ok, "{report}");
        assert!(enforcement.detail.contains("in and out"), "{report}");
        assert_eq!(finding(&report, Check::Metrics).state, State::Skipped, "{report}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER; makes and removes a namespace preflight-…"]
async fn a_canary_that_cannot_start_or_is_interrupted_leaves_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let client = connected().await;
    let before = canaries(&client, &BTreeSet::new()).await;
    let report = look(&client, &[], "ai-agents.local/none:1", std::future::pending()).await;
    let enforcement = finding(&report, Check::Enforcement);
    assert_eq!(enforcement.state, State::Unknown, "{report}");
    assert!(enforcement.detail.contains("none:1"), "{report}");
    assert!(
        enforcement
            .remedy
            .as_ref()
            .unwrap()
            .contains("--agent-image IMAGE"),
        "{report}"
    );
    assert_eq!(report.left, Vec::<String>::new());
    let soon = tokio::time::sleep(Duration::from_secs(2));
    let report = look(&client, &[], AGENT_IMAGE, soon).await;
    assert!(report.interrupted, "{report}");
    assert_eq!(report.left, Vec::<String>::new());
    assert_eq!(canaries(&client, &before).await, BTreeSet::new());
}
