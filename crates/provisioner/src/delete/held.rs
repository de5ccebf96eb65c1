//! What keeps a namespace that is being deleted: its objects with finalizers, and who takes those away
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/>).

use crate::calls::Calls;
use futures::future;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::Value;

/// Who takes this finalizer away, as far as its name tells.
pub(super) fn keeper(finalizer: &str) -> String {
    let keeper = match finalizer {
        "kubernetes.io/pvc-protection" => "kube-controller-manager, once no pod uses the claim",
        "kubernetes.io/pv-protection" => "kube-controller-manager, once no claim uses the volume",
        "foregroundDeletion" | "orphan" => "the garbage collector of kube-controller-manager",
        "batch.kubernetes.io/job-tracking" => "the Job controller of kube-controller-manager",
        "service.kubernetes.io/load-balancer-cleanup" => {
            "the cloud's controller, once the load balancer is gone"
        }
        "kubernetes" => "the namespace controller of kube-controller-manager, once nothing is left in it",
        other => match other.split_once('/') {
            Some((domain, _)) => return format!("the controller of {domain}"),
            None => "whoever put it there: its name tells no domain",
        },
    };
    keeper.to_owned()
}

/// `finalizer example.org/hold (taken away by the controller of example.org)`.
pub(super) fn describe(finalizers: &[String]) -> String {
    let each = finalizers
        .iter()
        .map(|finalizer| format!("finalizer {finalizer} (taken away by {})", keeper(finalizer)));
    each.collect::<Vec<_>>().join(", ")
}

/// Each object that the namespace waits for and that has finalizers, with those. What may not be read is left out.
pub(super) async fn objects(client: &Client, namespace: &Namespace) -> Vec<String> {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let looks = left(namespace)
        .into_iter()
        .map(|(plural, group)| of_kind(client, name, plural, group));
    future::join_all(looks).await.concat()
}

/// Plural and group of what the namespace controller says is left: `pods. has 1 resource instances, widgets.example.org has 2 …`
/// (`NamespaceContentRemaining`: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/namespace-v1/#NamespaceStatus>).
fn left(namespace: &Namespace) -> Vec<(&str, &str)> {
    let status = namespace.status.iter();
    let conditions = status.flat_map(|status| status.conditions.iter().flatten());
    let content = conditions.filter(|it| it.type_ == "NamespaceContentRemaining" && it.status == "True");
    let messages = content.filter_map(|condition| condition.message.as_deref());
    let list = messages.filter_map(|message| message.split_once(": ").map(|(_, list)| list));
    list.flat_map(|list| list.split(", "))
        .filter_map(|part| part.split_once(" has ")?.0.trim().split_once('.'))
        .collect()
}

async fn of_kind(client: &Client, namespace: &str, plural: &str, group: &str) -> Vec<String> {
    let Some(resource) = discover(client, plural, group).await else {
        return Vec::new();
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let what = format!("list {plural} in {namespace}");
    let everything = ListParams::default();
    let listed = Calls::once(what, api.list_metadata(&everything)).await;
    let items = listed.map(|list| list.items).unwrap_or_default();
    let held = items.into_iter().filter_map(|item| {
        let finalizers = item.metadata.finalizers.filter(|all| !all.is_empty())?;
        let name = item.metadata.name?;
        Some(format!(
            "{} {name} in {namespace}: {}",
            resource.kind,
            describe(&finalizers)
        ))
    });
    held.collect()
}

/// How the server serves that plural.
async fn discover(client: &Client, plural: &str, group: &str) -> Option<ApiResource> {
    let api_version = if group.is_empty() {
        "v1".to_owned()
    } else {
        let about = get(client, &format!("/apis/{group}")).await?;
        about["preferredVersion"]["groupVersion"].as_str()?.to_owned()
    };
    let root = if group.is_empty() { "/api" } else { "/apis" };
    let served = get(client, &format!("{root}/{api_version}")).await?;
    let mut resources = served["resources"].as_array()?.iter();
    let found = resources.find(|resource| resource["name"] == plural)?;
    let version = api_version.rsplit('/').next()?.to_owned();
    Some(ApiResource {
        group: group.to_owned(),
        version,
        kind: found["kind"].as_str()?.to_owned(),
        plural: plural.to_owned(),
        api_version,
    })
}

async fn get(client: &Client, path: &str) -> Option<Value> {
    let request = http::Request::get(path).body(Vec::new()).ok()?;
    let answer = Calls::once(format!("get {path}"), client.request::<Value>(request)).await;
    answer.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::foreign("example.org/hold", "the controller of example.org")]
    #[case::claim(
        "kubernetes.io/pvc-protection",
        "kube-controller-manager, once no pod uses the claim"
    )]
    #[case::foreground("foregroundDeletion", "the garbage collector of kube-controller-manager")]
    #[case::nameless("hold", "whoever put it there: its name tells no domain")]
    fn a_finalizer_tells_who_takes_it_away(#[case] finalizer: &str, #[case] expected: &str) {
        assert_eq!(keeper(finalizer), expected);
    }

    #[test]
    fn what_is_left_is_read_from_the_condition() {
        let message = "Some resources are remaining: configmaps. has 1 resource instances, widgets.example.org has 2 resource instances";
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions": [
            {"type": "NamespaceContentRemaining", "status": "True", "message": message},
            {"type": "NamespaceFinalizersRemaining", "status": "True", "message": "Some content in the namespace has finalizers remaining: example.org/hold in 1 resource instances"},
        ]}}))
        .unwrap();
        assert_eq!(left(&namespace), [("configmaps", ""), ("widgets", "example.org")]);
    }
}
