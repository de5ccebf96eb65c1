//! Values of tiers and tenant files on a real cluster, and what is said of tenants there.

use super::{READY_WITHIN, connected, run_the_agent};
use kube::Client;
use provisioner::status::{Registration, State};
use provisioner::tenant::Tiers;
use provisioner::{
    ApplyOptions, DeleteOptions, Manifest, Silent, Stamp, Templates, Tenant, apply, delete, list, render,
    status, wait_ready_for,
};

fn tenant() -> (Tenant, Vec<Manifest>) {
    let text = format!(
        "id: prov-fleet-{}\nregistration: false\ntier: gold\nlabels: {{example.com/team: blue}}\n\
         annotations: {{example.com/contact: 'on call: 1'}}\n",
        std::process::id()
    );
    let gold = "tiers: {gold: {labels: {example.com/tier: gold}, quota: {pods: 17}, egress: [{cidr: 192.0.2.0/24, ports: [123, 124], protocol: UDP}]}}";
    let tiers = Tiers::embedded().with_yaml(gold).unwrap();
    let mut tenant = tiers.fitting_tenant(&text).unwrap();
    run_the_agent(&mut tenant);
    let manifests = render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap();
    (tenant, manifests)
}

async fn shown(client: &Client, tenant: &Tenant, manifests: &[Manifest]) {
    let options = ApplyOptions::default();
    let applied = apply(client, manifests, &tenant.id, &options, &Silent)
        .await
        .unwrap();
    assert_eq!(applied.created.len(), 16);
    wait_ready_for(client, &tenant.id, manifests, READY_WITHIN, &Silent)
        .await
        .unwrap();
    let again = apply(client, manifests, &tenant.id, &options, &Silent)
        .await
        .unwrap();
    assert_eq!(again.unchanged.len(), 16, "{again}");

    let tenants = list(client, &Silent).await.unwrap();
    let standing = tenants.iter().find(|standing| standing.id == tenant.id).unwrap();
    assert_eq!(
        (standing.tier.as_deref(), standing.word()),
        (Some("gold"), "ready")
    );
    let pods = standing.used("pods").unwrap();
    assert_eq!((pods.used.as_deref(), pods.hard.as_str()), (Some("2"), "17"));

    const ASK: bool = true;
    let found = status(client, tenant, manifests, ASK, &Silent).await.unwrap();
    assert_eq!((found.state, found.missing.len()), (State::Ready, 0));
    assert_eq!(found.registration, Registration::Elsewhere);
}

/// Makes a tenant of its own, and removes it.
#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn values_of_tier_and_file_are_applied_once_and_told_afterwards() {
    let client = connected().await;
    let (tenant, manifests) = tenant();
    let case = (client.clone(), tenant.clone(), manifests.clone());
    let outcome = tokio::spawn(async move { shown(&case.0, &case.1, &case.2).await }).await;
    let removed = delete(&client, &tenant.id, &DeleteOptions::default(), &Silent).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic.into_panic());
    }
    removed.expect("the tenant can be removed");
    const ASK: bool = true;
    let found = status(&client, &tenant, &manifests, ASK, &Silent).await.unwrap();
    assert_eq!(found.state, State::Absent);
}
