//! What a Deployment's pods get of their node, where no policy and no namespace holds them
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline>). Pure.

use super::extras::unnamed;
use serde_json::Value;

/// Where a Deployment says what its pods are.
const POD: &str = "/spec/template/spec";
/// What a pod may share with its node.
const SHARED: [(&str, &str); 3] = [
    ("hostNetwork", "network"),
    ("hostPID", "processes"),
    ("hostIPC", "shared memory"),
];
const CONTAINERS: [&str; 2] = ["initContainers", "containers"];
const PRIVILEGED: &str = "/securityContext/privileged";

/// What the Deployment's pods have of their node, that `ours` does not name.
pub(super) fn of_the_node(live: &Value, ours: &Value) -> Vec<String> {
    let shared = SHARED.iter().filter_map(|(field, what)| {
        let is_on = unnamed(live, ours, &format!("{POD}/{field}"))?.as_bool()?;
        is_on.then(|| format!("the node's {what} to the pods: {field}"))
    });
    let containers = CONTAINERS.iter().flat_map(|list| privileged(live, ours, list));
    shared.chain(paths(live, ours)).chain(containers).collect()
}

fn paths(live: &Value, ours: &Value) -> Vec<String> {
    let added = items(live, "volumes").iter().filter_map(|volume| {
        let path = volume.pointer("/hostPath/path")?.as_str()?;
        let ours = same(ours, "volumes", volume);
        let is_named = ours.is_some_and(|ours| ours.get("hostPath").is_some());
        (!is_named).then(|| {
            format!(
                "{path} of the node to the pods: hostPath of volume {}",
                name(volume)
            )
        })
    });
    added.collect()
}

fn privileged(live: &Value, ours: &Value, list: &str) -> Vec<String> {
    let added = items(live, list).iter().filter(|container| {
        let ours = same(ours, list, container);
        let is_named = ours.is_some_and(|ours| ours.pointer(PRIVILEGED).is_some());
        !is_named && container.pointer(PRIVILEGED).and_then(Value::as_bool) == Some(true)
    });
    added
        .map(|container| format!("the whole node to container {}: privileged", name(container)))
        .collect()
}

fn items<'o>(deployment: &'o Value, list: &str) -> &'o [Value] {
    let items = deployment.pointer(&format!("{POD}/{list}"));
    items
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The item of the same name.
fn same<'o>(ours: &'o Value, list: &str, item: &Value) -> Option<&'o Value> {
    items(ours, list).iter().find(|each| name(each) == name(item))
}

fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn deployment(pod: &Value) -> Value {
        json!({"spec": {"template": {"spec": pod}}})
    }

    fn ours() -> Value {
        json!({"containers": [{"name": "api"}], "volumes": [{"name": "tmp", "emptyDir": {}}]})
    }

    #[rstest]
    #[case::as_it_is(ours(), &[])]
    #[case::network(json!({"hostNetwork": true}), &["the node's network to the pods: hostNetwork"])]
    #[case::not_shared(json!({"hostNetwork": false, "hostPID": null}), &[])]
    #[case::processes_and_memory(
        json!({"hostPID": true, "hostIPC": true}),
        &["the node's processes to the pods: hostPID", "the node's shared memory to the pods: hostIPC"],
    )]
    #[case::path(
        json!({"volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "root", "hostPath": {"path": "/"}}]}),
        &["/ of the node to the pods: hostPath of volume root"],
    )]
    #[case::privileged(
        json!({"containers": [{"name": "api", "securityContext": {"privileged": true}}], "initContainers": [{"name": "init", "securityContext": {"privileged": true}}]}),
        &["the whole node to container init: privileged", "the whole node to container api: privileged"],
    )]
    #[case::a_container_more(json!({"containers": [{"name": "api"}, {"name": "log", "securityContext": {"privileged": false}}]}), &[])]
    fn what_pods_have_of_their_node_is_said(#[case] pod: Value, #[case] expected: &[&str]) {
        assert_eq!(of_the_node(&deployment(&pod), &deployment(&ours())), expected);
        assert_eq!(of_the_node(&deployment(&pod), &Value::Null), expected);
    }

    #[test]
    fn what_our_template_says_itself_is_meant() {
        let all = deployment(&json!({
            "hostNetwork": true, "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
            "containers": [{"name": "api", "securityContext": {"privileged": true}}],
        }));
        assert_eq!(of_the_node(&all, &all), Vec::<String>::new());
    }
}
