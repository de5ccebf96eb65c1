//! What a deletion takes away, said before it does: the objects of the namespace, and the DNS entries that lead to them, which are
//! somebody else's to remove. Changes nothing.

use super::workloads;
use crate::calls::{self, CallError, Calls, Cause};
use crate::kinds::{self, Scope};
use crate::manifest::ObjectRef;
use crate::names::TenantId;
use crate::progress::Silent;
use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, ObjectMeta};
use kube::{Api, Client};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long passing failures are ridden out.
const PATIENCE: Duration = Duration::from_secs(15);
/// So many names of a kind are told.
const TOLD: usize = 6;
/// The hosts that external-dns makes entries for
/// (<https://kubernetes-sigs.github.io/external-dns/latest/docs/annotations/annotations/>).
const HOSTNAMES: &str = "external-dns.alpha.kubernetes.io/hostname";

/// What is in a tenant's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// All objects of the kinds that tenants and their workloads are made of.
    pub objects: Vec<ObjectRef>,
    /// DNS entries that lead to the tenant.
    pub dns_entries: Vec<DnsEntry>,
    /// Kinds that may not be looked at, by their plural.
    pub unseen: Vec<String>,
}

/// An entry of a DNS zone that leads to an object of the tenant, and to nobody once that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsEntry {
    /// The host, or which entries are meant.
    pub name: String,
    /// What tells so, as in `Ingress ai-agents-api`.
    pub from: String,
}

impl Inventory {
    /// One line for each kind, as in `Deployment: ai-agents-api, ai-agents-worker`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut kinds: Vec<(&str, Vec<&str>)> = Vec::new();
        for object in &self.objects {
            match kinds.iter_mut().find(|(kind, _)| *kind == object.kind) {
                Some((_, names)) => names.push(&object.name),
                None => kinds.push((&object.kind, vec![&object.name])),
            }
        }
        let line = |(kind, names): (&str, Vec<&str>)| {
            let told = names.iter().take(TOLD).copied().collect::<Vec<_>>().join(", ");
            match names.len().saturating_sub(TOLD) {
                0 => format!("{kind}: {told}"),
                more => format!("{kind}: {told}, and {more} more"),
            }
        };
        let mut lines: Vec<String> = kinds.into_iter().map(line).collect();
        if !self.unseen.is_empty() {
            let unseen = self.unseen.join(", ");
            lines.push(format!(
                "and what there is of these, which you may not list: {unseen}"
            ));
        }
        lines
    }
}

/// Looks at what is in the tenant's namespace, and at what leads there.
///
/// # Errors
/// The API server did not answer.
pub async fn inventory(client: &Client, tenant: &TenantId) -> Result<Inventory, CallError> {
    let calls = Calls::new(PATIENCE, &Silent);
    let namespace = tenant.namespace();
    let looker = Looker {
        client,
        calls: &calls,
        namespace: &namespace,
    };
    let kinds = kinds::TENANT
        .iter()
        .filter(|kind| kind.scope == Scope::Namespaced);
    let mut resources = workloads::resources();
    for kind in kinds {
        let resource = kind.resource();
        if !resources.iter().any(|known| known.kind == resource.kind) {
            resources.push(resource);
        }
    }
    let lists = calls::all(resources.iter().map(|resource| looker.names(resource).boxed())).await;
    let mut inventory = Inventory::default();
    for (resource, names) in resources.iter().zip(lists) {
        match names? {
            None => inventory.unseen.push(resource.plural.clone()),
            Some(names) => inventory.objects.extend(names.into_iter().map(|name| ObjectRef {
                kind: resource.kind.clone(),
                name,
                namespace: Some(namespace.clone()),
            })),
        }
    }
    let ingresses = looker.list::<Ingress>("ingresses").await?;
    let services = looker.list::<Service>("services").await?;
    inventory.dns_entries = dns_entries(&ingresses, &services);
    Ok(inventory)
}

struct Looker<'a> {
    client: &'a Client,
    calls: &'a Calls<'a>,
    namespace: &'a str,
}

impl Looker<'_> {
    /// None where they may not be listed; no names of a kind that the server does not have.
    async fn names(&self, resource: &ApiResource) -> Result<Option<Vec<String>>, CallError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), self.namespace, resource);
        let what = format!("list {} in {}", resource.plural, self.namespace);
        let everything = ListParams::default();
        match self.calls.make(what, || api.list_metadata(&everything)).await {
            Ok(list) => Ok(Some(
                list.items
                    .into_iter()
                    .filter_map(|item| item.metadata.name)
                    .collect(),
            )),
            Err(CallError {
                cause: Cause::Refused(status),
                ..
            }) if status.code == 403 => Ok(None),
            Err(CallError {
                cause: Cause::Refused(status),
                ..
            }) if status.code == 404 => Ok(Some(Vec::new())),
            Err(error) => Err(error),
        }
    }

    /// None of a kind that may not be listed: its absence is told by its name.
    async fn list<K>(&self, plural: &str) -> Result<Vec<K>, CallError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        let what = format!("list {plural} in {}", self.namespace);
        let everything = ListParams::default();
        match self.calls.make(what, || api.list(&everything)).await {
            Ok(list) => Ok(list.items),
            Err(error)
                if error
                    .status()
                    .is_some_and(|status| matches!(status.code, 403 | 404)) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// The hosts of Ingress objects, those that external-dns was asked for, and what leads to a load balancer of the tenant's own.
fn dns_entries(ingresses: &[Ingress], services: &[Service]) -> Vec<DnsEntry> {
    let mut entries: Vec<DnsEntry> = Vec::new();
    let mut add = |name: &str, from: &str| {
        let name = name.trim();
        if !name.is_empty() && !entries.iter().any(|entry| entry.name == name) {
            entries.push(DnsEntry {
                name: name.to_owned(),
                from: from.to_owned(),
            });
        }
    };
    for ingress in ingresses {
        let from = format!("Ingress {}", ingress.metadata.name.as_deref().unwrap_or_default());
        let spec = ingress.spec.iter();
        let rules = spec.clone().flat_map(|spec| spec.rules.iter().flatten());
        let hosts = rules.filter_map(|rule| rule.host.as_deref());
        let tls = spec.flat_map(|spec| spec.tls.iter().flatten());
        let tls = tls.flat_map(|tls| tls.hosts.iter().flatten().map(String::as_str));
        hosts
            .chain(tls)
            .chain(asked_for(&ingress.metadata))
            .for_each(|host| add(host, &from));
    }
    for service in services {
        let from = format!("Service {}", service.metadata.name.as_deref().unwrap_or_default());
        let mut named = asked_for(&service.metadata).peekable();
        if named.peek().is_some() {
            named.for_each(|host| add(host, &from));
            continue;
        }
        let status = service
            .status
            .iter()
            .filter_map(|status| status.load_balancer.as_ref());
        let points = status.flat_map(|balancer| balancer.ingress.iter().flatten());
        let addresses = points.filter_map(|point| point.hostname.as_deref().or(point.ip.as_deref()));
        addresses.for_each(|address| add(&format!("whatever leads to {address}"), &from));
    }
    entries
}

fn asked_for(metadata: &ObjectMeta) -> impl Iterator<Item = &str> {
    let annotations: Option<&BTreeMap<String, String>> = metadata.annotations.as_ref();
    let hosts = annotations.and_then(|all| all.get(HOSTNAMES));
    hosts.into_iter().flat_map(|hosts| hosts.split(','))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).unwrap()
    }

    fn entry(name: &str, from: &str) -> DnsEntry {
        DnsEntry {
            name: name.to_owned(),
            from: from.to_owned(),
        }
    }

    #[test]
    fn every_host_that_leads_to_the_tenant_is_named_once() {
        let ingress: Ingress = read(json!({
            "metadata": {"name": "web", "annotations": {HOSTNAMES: "a.example.org, c.example.org"}},
            "spec": {"rules": [{"host": "a.example.org"}, {}], "tls": [{"hosts": ["a.example.org", "b.example.org"]}]},
        }));
        let inside: Service = read(json!({"metadata": {"name": "inside"}, "spec": {"type": "ClusterIP"}}));
        let named: Service = read(json!({
            "metadata": {"name": "named", "annotations": {HOSTNAMES: "d.example.org"}},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        }));
        let balanced: Service = read(
            json!({"metadata": {"name": "balanced"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}}),
        );
        assert_eq!(
            dns_entries(&[ingress], &[inside, named, balanced]),
            [
                entry("a.example.org", "Ingress web"),
                entry("b.example.org", "Ingress web"),
                entry("c.example.org", "Ingress web"),
                entry("d.example.org", "Service named"),
                entry("whatever leads to 192.0.2.2", "Service balanced"),
            ]
        );
    }

    #[test]
    fn of_many_objects_of_a_kind_the_first_are_named_and_the_rest_counted() {
        let object = |kind: &str, name: String| ObjectRef {
            kind: kind.to_owned(),
            name,
            namespace: None,
        };
        let mut objects: Vec<ObjectRef> = (0..8).map(|number| object("Pod", format!("p{number}"))).collect();
        objects.push(object("Service", "api".to_owned()));
        let inventory = Inventory {
            objects,
            unseen: vec!["secrets".to_owned()],
            ..Inventory::default()
        };
        assert_eq!(
            inventory.lines(),
            [
                "Pod: p0, p1, p2, p3, p4, p5, and 2 more",
                "Service: api",
                "and what there is of these, which you may not list: secrets"
            ]
        );
    }
}
