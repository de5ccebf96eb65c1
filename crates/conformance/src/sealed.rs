//! A namespace of the run's own under those policies of a tenant's that allow nothing outward, and an agent in it: what remains of a tenant
//! whose allow rules are all gone. Nothing in the tenant itself is touched. What it means is left to NET-17.

use crate::agent::Agent;
use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::ledger::{Entry, Kind};
use crate::manifest::{AgentPod, Mark};
use crate::names::RunId;
use crate::removal;
use crate::resource::Place;
use crate::stage::{Site, make_namespace, start};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use kube::api::{Api, ListParams};
use provisioner::TenantId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long taking the copies away may take.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);

/// The namespace, by the tenant's number in the run: its id may be too long to be part of another name.
pub fn namespace(run: &RunId, number: usize) -> String {
    run.namespace(&format!("sealed-{number}"))
}

/// What is made for a tenant of one policy that allows nothing outward, which is what the templates give it.
pub fn objects(run: &RunId, number: usize) -> Vec<Entry> {
    let namespace = namespace(run, number);
    let object = |kind, name: String| Entry {
        kind,
        namespace: Some(namespace.clone()),
        name,
    };
    vec![
        Entry {
            kind: Kind::Namespace,
            namespace: None,
            name: namespace.clone(),
        },
        object(Kind::NetworkPolicy, copy_name(0)),
        object(Kind::Pod, "agent".to_owned()),
    ]
}

/// Puts it up. The policies come first: a pod is isolated before it starts by those that were there (Kubernetes, "Network Policies",
/// "NetworkPolicy and Pod lifecycle").
///
/// # Errors
/// The tenant's policies cannot be read, or the agent does not start.
pub async fn put_up(site: &Site, tenant: &TenantId, number: usize) -> Result<Agent, HarnessError> {
    let client = &site.cluster.client;
    let (of, own) = (tenant.namespace(), namespace(&site.mark.run, number));
    let policies = Api::<NetworkPolicy>::namespaced(client.clone(), &of);
    let doing = format!("list network policies in namespace {of}");
    let (params, none) = (ListParams::default(), BTreeMap::new());
    let (found, made) = futures::join!(
        within(ANSWER, doing, policies.list(&params)),
        make_namespace(site, &own, &none)
    );
    made?;
    for (index, policy) in found?.items.iter().filter_map(closing).enumerate() {
        let copy = copy(&site.mark, &own, index, &policy)?;
        site.ledger.create(client, copy).await?;
    }
    let agent = AgentPod {
        mark: &site.mark,
        name: "agent".to_owned(),
        namespace: own,
        image: &site.settings.agent_image,
        labels: BTreeMap::new(),
        owner: None,
        node: None,
        may_become_ready: true,
    };
    start(site, Place::Sealed(tenant.clone(), number), agent).await
}

/// The copies that there are.
pub fn copies(site: &Site, number: usize) -> Vec<Entry> {
    let own = namespace(&site.mark.run, number);
    let mut entries = site.ledger.newest_first();
    entries.retain(|entry| entry.kind == Kind::NetworkPolicy && entry.namespace.as_ref() == Some(&own));
    entries
}

/// Takes the copies away.
///
/// # Errors
/// One of them stays.
pub async fn unseal(site: &Site, number: usize) -> Result<(), HarnessError> {
    let (client, run) = (&site.cluster.client, site.mark.run.as_str());
    let gone = |entry: &Entry| site.ledger.gone(entry);
    let failed = removal::remove(client, run, &copies(site, number), REMOVED_WITHIN, &gone).await;
    match failed.first() {
        Some((entry, why)) => Err(HarnessError::new(format!("{entry} could not be removed: {why}"))),
        None => Ok(()),
    }
}

/// The half of a policy that closes the way out, where it opens none: `Egress` among its types, and no rule (Kubernetes, "Network
/// Policies", "Default deny all egress traffic"). The API server fills the types in.
fn closing(policy: &NetworkPolicy) -> Option<NetworkPolicySpec> {
    let spec = policy.spec.as_ref()?;
    let isolates = spec.policy_types.iter().flatten().any(|each| each == "Egress");
    let allows = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    (isolates && !allows).then(|| NetworkPolicySpec {
        pod_selector: spec.pod_selector.clone(),
        policy_types: Some(vec!["Egress".to_owned()]),
        ..NetworkPolicySpec::default()
    })
}

fn copy_name(index: usize) -> String {
    format!("copy-{index}")
}

fn copy(mark: &Mark, namespace: &str, index: usize, spec: &NetworkPolicySpec) -> Result<Value, HarnessError> {
    let spec =
        serde_json::to_value(spec).map_err(|error| HarnessError::during("copy a network policy", &error))?;
    Ok(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": mark.metadata(&copy_name(index), Some(namespace)),
        "spec": spec,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Resource;
    use crate::scripted::{Asked, ok, refuse, respond};
    use rstest::rstest;
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    fn policy(spec: &Value) -> NetworkPolicy {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    #[rstest]
    #[case::default_deny_egress(json!({ "podSelector": {}, "policyTypes": ["Egress"] }), Some(json!({})))]
    #[case::of_the_api_only(json!({ "podSelector": { "matchLabels": { "app": "ai-agents-api" } }, "policyTypes": ["Egress"] }), Some(json!({ "matchLabels": { "app": "ai-agents-api" } })))]
    #[case::both_ways(json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}] }), Some(json!({})))]
    #[case::an_empty_list(json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [] }), Some(json!({})))]
    #[case::an_allow_rule(json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": 53 }] }] }), None)]
    #[case::everything(json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] }), None)]
    #[case::default_deny_ingress(json!({ "podSelector": {}, "policyTypes": ["Ingress"] }), None)]
    fn what_closes_the_way_out_and_opens_none_is_kept(#[case] spec: Value, #[case] selector: Option<Value>) {
        let kept = closing(&policy(&spec)).map(|spec| serde_json::to_value(spec).unwrap());
        let expected = selector.map(|selector| json!({ "podSelector": selector, "policyTypes": ["Egress"] }));
        assert_eq!(kept, expected);
    }

    /// What is asked of an API server that has these policies of `a`, and starts no pod.
    async fn made(policies: &'static str) -> Vec<(String, Value)> {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let script = move |asked: &Asked| {
            let path = asked.path.as_str();
            if asked.method == "GET" && path.ends_with("/ai-agents-a/networkpolicies") {
                return ok(&serde_json::from_str(policies).unwrap());
            }
            if asked.method == "POST" {
                seen.lock().unwrap().push((path.to_owned(), asked.body.clone()));
                if path.ends_with("/pods") {
                    return refuse(403, "Forbidden", "no pods today");
                }
                return ok(&asked.body);
            }
            // The account that every namespace gets.
            ok(&json!({ "metadata": { "name": "default" } }))
        };
        let server = respond(script).await;
        let tenant = TenantId::try_from("a").unwrap();
        let needs = BTreeSet::from([Resource::Tenant(tenant.clone())]);
        let cx = server.context(&needs);
        let error = put_up(&cx.site, &tenant, 0).await.err().unwrap();
        assert!(error.to_string().contains("no pods today"), "{error}");
        assert_eq!(copies(&cx.site, 0).len(), asked.lock().unwrap().len() - 2);
        drop(cx);
        std::mem::take(&mut *asked.lock().unwrap())
    }

    #[tokio::test]
    async fn policies_are_there_before_the_pod_and_none_that_allows_is() {
        let policies = r#"{ "metadata": {}, "items": [
            { "metadata": { "name": "default-deny-egress" }, "spec": { "podSelector": {}, "policyTypes": ["Egress"] } },
            { "metadata": { "name": "allow-egress-shared-services" }, "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": 53 }] }] } }
        ] }"#;
        let made = made(policies).await;
        let kinds: Vec<&str> = made
            .iter()
            .filter_map(|(_, body)| body["kind"].as_str())
            .collect();
        assert_eq!(kinds, ["Namespace", "NetworkPolicy", "Pod"]);
        assert_eq!(
            made[1].0,
            "/apis/networking.k8s.io/v1/namespaces/conformance-0a1b2c3d-sealed-0/networkpolicies"
        );
        assert_eq!(
            made[1].1["spec"],
            json!({ "podSelector": {}, "policyTypes": ["Egress"] })
        );
    }

    #[tokio::test]
    async fn of_a_tenant_that_only_allows_nothing_is_copied() {
        let policies = r#"{ "metadata": {}, "items": [
            { "metadata": { "name": "allow" }, "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] } }
        ] }"#;
        let made = made(policies).await;
        let kinds: Vec<&str> = made
            .iter()
            .filter_map(|(_, body)| body["kind"].as_str())
            .collect();
        assert_eq!(kinds, ["Namespace", "Pod"]);
    }

    #[test]
    fn the_longest_run_of_tenants_has_names_that_fit() {
        let run = RunId::parse("0a1b2c3d").unwrap();
        assert!(namespace(&run, 9999).len() <= 63);
    }
}
