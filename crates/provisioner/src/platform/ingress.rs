//! Who may reach a pod by the network policies of its namespace: with those that are there, and with those that would be. Pure; counts
//! NetworkPolicy only, no policies of a network plugin's own.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Expression, Selector, SelectorExt};
use std::collections::BTreeMap;
use std::fmt;

/// Who may reach one pod, before and after.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PodIngress {
    /// The pod's name.
    pub pod: String,
    /// With the policies that are there.
    pub now: Ingress,
    /// With those that would be.
    pub then: Ingress,
}

impl PodIngress {
    /// Whether an apply isolates the pod that no policy selects now.
    #[must_use]
    pub fn becomes_isolated(&self) -> bool {
        self.now == Ingress::Open && matches!(self.then, Ingress::Only(_))
    }
}

/// Who may reach a pod.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Ingress {
    /// The pod uses its node's network, which policies do not reach.
    NodeNetwork,
    /// Everybody: no policy for ingress selects it.
    Open,
    /// It is isolated, but for these. Empty: nobody reaches it.
    Only(Vec<Allowed>),
}

/// Somebody who may reach an isolated pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Allowed {
    /// Who, as in `pods of namespace monitoring`.
    pub from: String,
    /// Where, as in `TCP 5432`.
    pub ports: String,
    /// The policy that says so.
    pub policy: String,
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.from, self.ports, self.policy)
    }
}

/// Every pod that has not ended, by name.
pub(super) fn of_pods(
    pods: &[Pod],
    now: &[NetworkPolicy],
    then: &[NetworkPolicy],
    namespace: &str,
) -> Vec<PodIngress> {
    let alive = pods.iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    });
    let mut all: Vec<PodIngress> = alive
        .map(|pod| PodIngress {
            pod: pod.metadata.name.clone().unwrap_or_default(),
            now: ingress(pod, now, namespace),
            then: ingress(pod, then, namespace),
        })
        .collect();
    all.sort_by(|a, b| a.pod.cmp(&b.pod));
    all
}

fn ingress(pod: &Pod, policies: &[NetworkPolicy], namespace: &str) -> Ingress {
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        return Ingress::NodeNetwork;
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let mut selecting = policies
        .iter()
        .filter_map(|policy| Some((policy, policy.spec.as_ref()?)))
        .filter(|(_, spec)| isolates(spec, &labels))
        .peekable();
    if selecting.peek().is_none() {
        return Ingress::Open;
    }
    let mut allowed: Vec<Allowed> = selecting
        .flat_map(|(policy, spec)| allowed(policy.metadata.name.as_deref(), spec, namespace))
        .collect();
    allowed.sort();
    allowed.dedup();
    Ingress::Only(allowed)
}

fn isolates(spec: &NetworkPolicySpec, labels: &BTreeMap<String, String>) -> bool {
    // Without policyTypes a policy is always one for ingress.
    let for_ingress = spec
        .policy_types
        .as_ref()
        .is_none_or(|types| types.is_empty() || types.iter().any(|it| it == "Ingress"));
    for_ingress && selector(spec.pod_selector.as_ref()).matches(labels)
}

/// The server admits no selector that cannot be read.
pub(crate) fn selector(selector: Option<&LabelSelector>) -> Selector {
    Selector::try_from(selector.cloned().unwrap_or_default()).unwrap_or_default()
}

fn allowed(policy: Option<&str>, spec: &NetworkPolicySpec, namespace: &str) -> Vec<Allowed> {
    let rules = spec.ingress.iter().flatten();
    rules
        .flat_map(|rule| {
            let ports = ports(rule.ports.as_deref().unwrap_or_default());
            let peers = rule.from.as_deref().unwrap_or_default();
            let from = if peers.is_empty() {
                vec!["everybody".to_owned()]
            } else {
                peers.iter().map(|peer| describe(peer, namespace)).collect()
            };
            from.into_iter().map(move |from| Allowed {
                from,
                ports: ports.clone(),
                policy: policy.unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// The other end, as a reader would say it: `pods of namespace monitoring`.
pub(crate) fn describe(peer: &NetworkPolicyPeer, namespace: &str) -> String {
    if let Some(block) = &peer.ip_block {
        return addresses(block);
    }
    let pods = match selector(peer.pod_selector.as_ref()) {
        all if all.selects_all() => "pods".to_owned(),
        some => format!("pods with {some}"),
    };
    let namespaces = match &peer.namespace_selector {
        None => namespace.to_owned(),
        Some(selection) => namespaces(selector(Some(selection))),
    };
    format!("{pods} of {namespaces}")
}

fn addresses(block: &IPBlock) -> String {
    match block.except.as_deref().unwrap_or_default() {
        [] => format!("addresses {}", block.cidr),
        except => format!("addresses {} but {}", block.cidr, except.join(", ")),
    }
}

fn namespaces(selector: Selector) -> String {
    if selector.selects_all() {
        return "every namespace".to_owned();
    }
    let shown = format!("namespaces with {selector}");
    match selector.into_iter().collect::<Vec<_>>().as_slice() {
        [Expression::Equal(key, name)] if key == "kubernetes.io/metadata.name" => name.clone(),
        _ => shown,
    }
}

/// The ports of a rule, as in `TCP 5432`.
pub(crate) fn ports(ports: &[NetworkPolicyPort]) -> String {
    let shown: Vec<String> = ports.iter().map(port).collect();
    if shown.is_empty() {
        "any port".to_owned()
    } else {
        shown.join(", ")
    }
}

fn port(port: &NetworkPolicyPort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match (&port.port, port.end_port) {
        (None, _) => format!("any {protocol} port"),
        (Some(IntOrString::Int(first)), Some(last)) => format!("{protocol} {first} to {last}"),
        (Some(IntOrString::Int(number)), None) => format!("{protocol} {number}"),
        (Some(IntOrString::String(name)), _) => format!("{protocol} {name}"),
    }
}

/// The pods as text: those that an apply isolates first, those with the same fate together.
pub(super) fn show(pods: &[PodIngress], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if pods.is_empty() {
        return writeln!(f, "  there are none");
    }
    let mut fates: Vec<(&PodIngress, Vec<&str>)> = Vec::new();
    for pod in pods {
        match fates
            .iter_mut()
            .find(|(other, _)| other.now == pod.now && other.then == pod.then)
        {
            Some((_, names)) => names.push(&pod.pod),
            None => fates.push((pod, vec![&pod.pod])),
        }
    }
    fates.sort_by_key(|(pod, _)| (!pod.becomes_isolated(), pod.now == pod.then));
    for (pod, names) in fates {
        writeln!(f, "  {}: {}", fate(pod), names.join(", "))?;
        if pod.now == pod.then {
            reached("reached by", &pod.then, f)?;
        } else if pod.becomes_isolated() {
            reached("still reached by", &pod.then, f)?;
        } else {
            reached("reached now by", &pod.now, f)?;
            reached("reached then by", &pod.then, f)?;
        }
    }
    Ok(())
}

fn fate(pod: &PodIngress) -> &'static str {
    match (&pod.now, &pod.then) {
        (Ingress::NodeNetwork, _) | (_, Ingress::NodeNetwork) => {
            "on the node's network, out of reach of policies"
        }
        (Ingress::Open, Ingress::Only(_)) => "becomes isolated, no policy selects it now",
        (Ingress::Only(_), Ingress::Open) => "is no longer isolated",
        (Ingress::Open, Ingress::Open) => "not isolated",
        (now, then) if now == then => "isolated already",
        _ => "isolated already, but its clients change",
    }
}

fn reached(by: &str, ingress: &Ingress, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match ingress {
        Ingress::NodeNetwork => Ok(()),
        Ingress::Open => writeln!(f, "    {by} everybody"),
        Ingress::Only(allowed) if allowed.is_empty() => writeln!(f, "    {by} nobody"),
        Ingress::Only(allowed) => allowed.iter().try_for_each(|it| writeln!(f, "    {by} {it}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn policy(name: &str, spec: &Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    fn pod(name: &str, labels: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels}, "spec": {"containers": []}, "status": {"phase": "Running"},
        }))
        .unwrap()
    }

    fn deny() -> NetworkPolicy {
        policy("deny", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}))
    }

    #[rstest]
    #[case::all(json!({}), true)]
    #[case::label(json!({"matchLabels": {"app": "db"}}), true)]
    #[case::other_label(json!({"matchLabels": {"app": "x"}}), false)]
    #[case::one_of_two_labels(json!({"matchLabels": {"app": "db", "tier": "x"}}), false)]
    #[case::one_of(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "db"]}]}), true)]
    #[case::none_of(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x", "db"]}]}), false)]
    #[case::none_of_what_it_lacks(json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}), true)]
    #[case::has(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true)]
    #[case::lacks(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false)]
    #[case::labels_and_expressions(json!({"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false)]
    fn a_policy_isolates_the_pods_that_its_selector_selects(#[case] selector: Value, #[case] selected: bool) {
        let policies = [policy(
            "p",
            &json!({"podSelector": selector, "policyTypes": ["Ingress"]}),
        )];
        let [found] = of_pods(&[pod("db-0", &json!({"app": "db"}))], &[], &policies, "database")
            .try_into()
            .unwrap();
        assert_eq!(found.becomes_isolated(), selected);
    }

    #[rstest]
    #[case::ingress(json!({"policyTypes": ["Ingress"]}), true)]
    #[case::both(json!({"policyTypes": ["Egress", "Ingress"]}), true)]
    #[case::egress(json!({"policyTypes": ["Egress"]}), false)]
    #[case::unsaid(json!({}), true)]
    fn a_policy_for_egress_isolates_nobody_for_ingress(#[case] mut spec: Value, #[case] isolates: bool) {
        spec["podSelector"] = json!({});
        let policies = [policy("p", &spec)];
        let found = of_pods(&[pod("db-0", &json!({}))], &policies, &[], "database");
        assert_eq!(found[0].now != Ingress::Open, isolates);
    }

    #[test]
    fn a_pod_that_a_policy_of_others_selects_already_does_not_become_isolated() {
        let theirs = policy("theirs", &json!({"podSelector": {"matchLabels": {"app": "db"}}}));
        let pods = [
            pod("db-0", &json!({"app": "db"})),
            pod("backup", &json!({"app": "backup"})),
        ];
        let found = of_pods(
            &pods,
            std::slice::from_ref(&theirs),
            &[theirs.clone(), deny()],
            "database",
        );
        let isolated: Vec<(&str, bool)> = found
            .iter()
            .map(|pod| (pod.pod.as_str(), pod.becomes_isolated()))
            .collect();
        assert_eq!(isolated, [("backup", true), ("db-0", false)]);
    }

    #[test]
    fn pods_that_ended_do_not_count_and_those_on_the_nodes_network_are_out_of_reach() {
        let mut ended = pod("job", &json!({}));
        ended.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
        let mut node = pod("exporter", &json!({}));
        node.spec.as_mut().unwrap().host_network = Some(true);
        let found = of_pods(&[ended, node], &[], &[deny()], "database");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].then, Ingress::NodeNetwork);
        assert!(!found[0].becomes_isolated());
    }

    #[rstest]
    #[case::everybody(json!({}), "everybody: any port (p)")]
    #[case::same_namespace(json!({"from": [{"podSelector": {}}]}), "pods of database: any port (p)")]
    #[case::some_pods(
        json!({"from": [{"podSelector": {"matchLabels": {"app": "x"}}}], "ports": [{"port": 5432, "protocol": "TCP"}, {"protocol": "UDP"}]}),
        "pods with app=x of database: TCP 5432, any UDP port (p)",
    )]
    #[case::named_namespace(
        json!({"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}], "ports": [{"port": "metrics"}]}),
        "pods of monitoring: TCP metrics (p)",
    )]
    #[case::labelled_namespaces(
        json!({"from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}}], "ports": [{"port": 80, "endPort": 90}]}),
        "pods with x of namespaces with a=b: TCP 80 to 90 (p)",
    )]
    #[case::every_namespace(json!({"from": [{"namespaceSelector": {}}]}), "pods of every namespace: any port (p)")]
    #[case::addresses(
        json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}),
        "addresses 10.0.0.0/8 but 10.1.0.0/16: any port (p)",
    )]
    fn clients_are_named_as_the_policy_selects_them(#[case] rule: Value, #[case] expected: &str) {
        let policies = [policy("p", &json!({"podSelector": {}, "ingress": [rule]}))];
        let found = of_pods(&[pod("db-0", &json!({}))], &[], &policies, "database");
        let Ingress::Only(allowed) = &found[0].then else {
            panic!("{found:?}")
        };
        assert_eq!(
            allowed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [expected]
        );
    }
}
