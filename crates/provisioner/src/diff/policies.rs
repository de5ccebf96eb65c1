//! What a NetworkPolicy allows beyond what ours do. Policies are additive: a connection is allowed that any of them allows
//! (<https://kubernetes.io/docs/concepts/services-networking/network-policies/#the-two-sorts-of-pod-isolation>), so one that allows
//! nothing only tightens. Pure.

use crate::platform::ingress::{describe, ports, selector};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

/// One way that a policy opens: to or from whom, on which ports; all of them where none is named.
struct Way<'p> {
    direction: Direction,
    pods: Option<&'p LabelSelector>,
    peer: Option<&'p NetworkPolicyPeer>,
    ports: &'p [NetworkPolicyPort],
}

impl Way<'_> {
    /// Whether this way leads wherever the other one does. Selectors are compared as they are written: one that selects the same pods in
    /// other words counts as another.
    fn covers(&self, other: &Way<'_>) -> bool {
        let all_pods = self.pods.is_none_or(|pods| *pods == LabelSelector::default());
        let all_ports = self.ports.is_empty();
        self.direction == other.direction
            && (all_pods || self.pods == other.pods)
            && (self.peer.is_none() || self.peer == other.peer || self.is_from_all_pods_of(other))
            && (all_ports
                || !other.ports.is_empty() && other.ports.iter().all(|port| self.ports.contains(port)))
    }

    /// Whether it names every pod of the namespaces in which the other one names some.
    fn is_from_all_pods_of(&self, other: &Way<'_>) -> bool {
        let (Some(all), Some(some)) = (self.peer, other.peer) else {
            return false;
        };
        let of_pods = all.ip_block.is_none() && some.ip_block.is_none();
        let every = all
            .pod_selector
            .as_ref()
            .is_none_or(|pods| *pods == LabelSelector::default());
        of_pods && every && all.namespace_selector == some.namespace_selector
    }

    fn show(&self, namespace: &str) -> String {
        let pods = match selector(self.pods) {
            all if all.selects_all() => "all pods".to_owned(),
            some => format!("pods with {some}"),
        };
        let peer = self
            .peer
            .map_or_else(|| "everybody".to_owned(), |peer| describe(peer, namespace));
        let ports = ports(self.ports);
        match self.direction {
            Direction::Ingress => format!("ingress from {peer} to {pods}: {ports}"),
            Direction::Egress => format!("egress of {pods} to {peer}: {ports}"),
        }
    }
}

fn ways(policy: &NetworkPolicy) -> Vec<Way<'_>> {
    let Some(spec) = &policy.spec else {
        return Vec::new();
    };
    let named = spec.policy_types.as_deref().filter(|types| !types.is_empty());
    // Without policyTypes a policy is one for ingress, and one for egress where it has rules for that:
    // https://kubernetes.io/docs/concepts/services-networking/network-policies/#networkpolicy-resource
    let is_for = |kind: &str| named.is_none_or(|types| types.iter().any(|it| it == kind));
    let ingress = spec.ingress.iter().flatten().filter(|_| is_for("Ingress"));
    let ingress = ingress.map(|rule| (Direction::Ingress, rule.from.as_deref(), rule.ports.as_deref()));
    let egress = spec.egress.iter().flatten().filter(|_| is_for("Egress"));
    let egress = egress.map(|rule| (Direction::Egress, rule.to.as_deref(), rule.ports.as_deref()));
    let mut ways = Vec::new();
    for (direction, peers, ports) in ingress.chain(egress) {
        let way = |peer| Way {
            direction,
            pods: spec.pod_selector.as_ref(),
            peer,
            ports: ports.unwrap_or_default(),
        };
        match peers.filter(|peers| !peers.is_empty()) {
            None => ways.push(way(None)),
            Some(peers) => ways.extend(peers.iter().map(|peer| way(Some(peer)))),
        }
    }
    ways
}

/// What the policy allows that none of ours does.
pub(crate) fn opened(policy: &NetworkPolicy, ours: &[NetworkPolicy], namespace: &str) -> Vec<String> {
    let allowed: Vec<Way<'_>> = ours.iter().flat_map(ways).collect();
    ways(policy)
        .iter()
        .filter(|way| !allowed.iter().any(|ours| ours.covers(way)))
        .map(|way| way.show(namespace))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn policy(spec: &Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn ours() -> Vec<NetworkPolicy> {
        let nginx =
            json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]);
        vec![
            policy(&json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
            policy(
                &json!({"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": nginx, "ports": [{"protocol": "TCP", "port": 8000}]}]}),
            ),
            policy(&json!({"podSelector": {}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 80}]}]})),
        ]
    }

    #[rstest]
    #[case::denies_more(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}), &[])]
    #[case::addresses(
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 8000}]}]}),
        &["ingress from addresses 203.0.113.0/24 to all pods: TCP 8000"],
    )]
    #[case::everybody(json!({"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [{}]}), &["ingress from everybody to pods with app=api: any port"])]
    #[case::egress(
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]}),
        &["egress of all pods to pods of every namespace: any port"],
    )]
    #[case::both(
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}),
        &["ingress from everybody to all pods: any port", "egress of all pods to everybody: any port"],
    )]
    #[case::egress_without_its_type(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}), &[])]
    #[case::egress_without_types(json!({"podSelector": {}, "egress": [{}]}), &["egress of all pods to everybody: any port"])]
    #[case::what_ours_allow_already(
        json!({"podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"protocol": "TCP", "port": 443}]}]}),
        &[],
    )]
    #[case::another_port(
        json!({"podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 25}]}]}),
        &["egress of all pods to addresses 0.0.0.0/0: TCP 443, TCP 25"],
    )]
    #[case::all_ports(
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}),
        &["egress of all pods to addresses 0.0.0.0/0: any port"],
    )]
    #[case::for_more_pods_than_ours(
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
            "ports": [{"protocol": "TCP", "port": 8000}]}]}),
        &["ingress from pods of ingress-nginx to all pods: TCP 8000"],
    )]
    fn what_it_allows_beyond_ours_is_said(#[case] spec: Value, #[case] expected: &[&str]) {
        assert_eq!(opened(&policy(&spec), &ours(), "ai-agents-acme"), expected);
    }
}
