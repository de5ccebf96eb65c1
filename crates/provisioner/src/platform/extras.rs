//! What others put into the shared services' namespace that opens it, and what they added to our admission policies in fields that no
//! template names, so that these judge less. An apply leaves both alone.

use crate::calls::{CallError, Calls, Cause};
use crate::diff::bindings::given_to_tenants_in;
use crate::diff::extras::{Extra, extra, list, unnamed};
use crate::diff::objects::kubectl_delete;
use crate::diff::policies::opened;
use crate::kinds;
use crate::manifest::{Manifest, ObjectRef};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::core::{DynamicObject, ObjectMeta};
use serde_json::Value;
use std::collections::BTreeSet;

/// Which requests a policy or its binding is for
/// (<https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#parameter-resources>).
const MATCHING: [&str; 5] = [
    "resourceRules",
    "excludeResourceRules",
    "namespaceSelector",
    "objectSelector",
    "matchPolicy",
];

/// Policies of others, as far as they let somebody in whom no template's policy does. What they say of egress does not count: where no
/// template isolates pods for that, such a policy only tightens.
pub(super) fn of_policies(
    live: &[NetworkPolicy],
    ours: &[NetworkPolicy],
    known: &BTreeSet<ObjectRef>,
    namespace: &str,
) -> Vec<Extra> {
    let theirs = live.iter().filter_map(|policy| {
        let object = within(namespace, "NetworkPolicy", &policy.metadata);
        if known.contains(&object) {
            return None;
        }
        let mut inwards = policy.clone();
        if let Some(spec) = &mut inwards.spec {
            spec.egress = None;
        }
        let opens = opened(&inwards, ours, namespace);
        (!opens.is_empty()).then(|| extra(object, &policy.metadata, opens, false))
    });
    theirs.collect()
}

/// What bindings there give to tenants' accounts or everybody, and which of them could not be looked at.
pub(super) async fn of_bindings(
    client: &Client,
    calls: &Calls<'_>,
    namespace: &str,
) -> Result<(Vec<Extra>, Vec<String>), CallError> {
    let Some(kind) = kinds::TENANT.iter().find(|kind| kind.kind == "RoleBinding") else {
        return Ok((Vec::new(), Vec::new()));
    };
    match list(client, calls, kind, namespace).await {
        Ok(bindings) => {
            let found = bindings.iter().filter_map(|binding| given(binding, namespace));
            Ok((found.collect(), Vec::new()))
        }
        Err(CallError {
            what,
            cause: Cause::Refused(status),
            ..
        }) if status.code == 403 => {
            let refusal = format!("{what}: {}", status.message);
            Ok((Vec::new(), vec![unseen(&refusal)]))
        }
        Err(error) => Err(error),
    }
}

/// What is said of what we may not look at.
pub(super) fn unseen(refusal: &str) -> String {
    format!("{refusal}; a cluster administrator may")
}

fn given(binding: &DynamicObject, namespace: &str) -> Option<Extra> {
    let opens = given_to_tenants_in(binding, namespace);
    if opens.is_empty() {
        return None;
    }
    let object = within(namespace, "RoleBinding", &binding.metadata);
    // No template of the platform's can make one.
    let remedy = format!(
        "unless a cluster administrator means it: {}",
        kubectl_delete(&object)
    );
    Some(Extra {
        remedy,
        ..extra(object, &binding.metadata, opens, false)
    })
}

fn within(namespace: &str, kind: &str, metadata: &ObjectMeta) -> ObjectRef {
    ObjectRef {
        kind: kind.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        namespace: Some(namespace.to_owned()),
    }
}

/// What was added to an admission policy of ours, or to its binding, so that it is for fewer requests.
pub(super) fn of_admission(manifest: &Manifest, live: &DynamicObject) -> Option<Extra> {
    let (now, ours) = (&live.data, &manifest.object.data);
    let mut added = Vec::new();
    match manifest.kind.kind {
        "ValidatingAdmissionPolicy" => {
            added.extend(conditions(now, ours));
            added.extend(matching(now, ours, "matchConstraints"));
        }
        "ValidatingAdmissionPolicyBinding" => {
            added.extend(matching(now, ours, "matchResources"));
            added.extend(field(now, ours, "paramRef"));
        }
        _ => {}
    }
    let opens: Vec<String> = added
        .into_iter()
        .map(|added| format!("requests that are judged no more: {added}"))
        .collect();
    (!opens.is_empty()).then(|| extra(manifest.reference(), &live.metadata, opens, true))
}

/// Conditions of names that no condition of ours has. All of them have to hold for a request to be judged.
fn conditions(live: &Value, ours: &Value) -> Vec<String> {
    let ours: Vec<Option<&Value>> = conditions_of(ours).map(|it| it.get("name")).collect();
    conditions_of(live)
        .filter(|it| !ours.contains(&it.get("name")))
        .map(|it| format!("spec.matchConditions has {it}"))
        .collect()
}

fn conditions_of(policy: &Value) -> impl Iterator<Item = &Value> {
    let conditions = policy.pointer("/spec/matchConditions");
    conditions.and_then(Value::as_array).into_iter().flatten()
}

fn matching(live: &Value, ours: &Value, parent: &str) -> Vec<String> {
    let added = MATCHING
        .iter()
        .filter_map(|name| field(live, ours, &format!("{parent}/{name}")));
    added.collect()
}

/// A field that no template names, unless it has the value that the server gives it by itself.
fn field(live: &Value, ours: &Value, path: &str) -> Option<String> {
    let value = unnamed(live, ours, &format!("/spec/{path}"))?;
    let path = path.replace('/', ".");
    let is_default = says_nothing(value) || value.as_str() == Some("Equivalent");
    (!is_default).then(|| format!("spec.{path} is {value}"))
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Platform;
    use crate::{Templates, render_platform};
    use rstest::rstest;
    use serde_json::json;

    const POLICY: &str = "ValidatingAdmissionPolicy";
    const BINDING: &str = "ValidatingAdmissionPolicyBinding";

    fn ours(kind: &str, name: &str) -> Manifest {
        let all = render_platform(&Platform::default(), &Templates::embedded_platform()).unwrap();
        let mut found = all
            .into_iter()
            .filter(|it| it.kind.kind == kind && it.name() == name);
        found.next().unwrap()
    }

    #[rstest]
    #[case::as_it_is(POLICY, "ai-agents-services", |_: &mut Value| {}, &[])]
    #[case::what_the_server_fills_in(
        POLICY,
        "ai-agents-services",
        |spec: &mut Value| {
            spec["matchConstraints"]["matchPolicy"] = json!("Equivalent");
            spec["matchConstraints"]["namespaceSelector"] = json!({});
            spec["matchConstraints"]["objectSelector"] = json!({});
            spec["matchConstraints"]["excludeResourceRules"] = json!([]);
        },
        &[],
    )]
    #[case::condition_beside_ours(
        POLICY,
        "ai-agents-services",
        |spec: &mut Value| spec["matchConditions"].as_array_mut().unwrap().push(json!({"expression": "false", "name": "never"})),
        &["spec.matchConditions has {\"expression\":\"false\",\"name\":\"never\"}"],
    )]
    #[case::condition_where_ours_has_none(
        POLICY,
        "ai-agents-namespaces",
        |spec: &mut Value| spec["matchConditions"] = json!([{"expression": "false", "name": "never"}]),
        &["spec.matchConditions has {\"expression\":\"false\",\"name\":\"never\"}"],
    )]
    #[case::exclusion_and_selector(
        POLICY,
        "ai-agents-namespaces",
        |spec: &mut Value| {
            spec["matchConstraints"]["excludeResourceRules"] = json!([{"resources": ["*"]}]);
            spec["matchConstraints"]["objectSelector"] = json!({"matchLabels": {"x": "y"}});
        },
        &[
            "spec.matchConstraints.excludeResourceRules is [{\"resources\":[\"*\"]}]",
            "spec.matchConstraints.objectSelector is {\"matchLabels\":{\"x\":\"y\"}}",
        ],
    )]
    #[case::binding_of_fewer_namespaces(
        BINDING,
        "ai-agents-namespaces",
        |spec: &mut Value| spec["matchResources"] = json!({"namespaceSelector": {"matchLabels": {"x": "y"}}, "matchPolicy": "Equivalent"}),
        &["spec.matchResources.namespaceSelector is {\"matchLabels\":{\"x\":\"y\"}}"],
    )]
    #[case::binding_of_fewer_objects(
        BINDING,
        "ai-agents-services",
        |spec: &mut Value| {
            spec["matchResources"]["objectSelector"] = json!({"matchLabels": {"x": "y"}});
            spec["matchResources"]["matchPolicy"] = json!("Exact");
        },
        &[
            "spec.matchResources.objectSelector is {\"matchLabels\":{\"x\":\"y\"}}",
            "spec.matchResources.matchPolicy is \"Exact\"",
        ],
    )]
    #[case::parameters(
        BINDING,
        "ai-agents-services",
        |spec: &mut Value| spec["paramRef"] = json!({"name": "none"}),
        &["spec.paramRef is {\"name\":\"none\"}"],
    )]
    #[case::parameters_of_ours(BINDING, "ai-agents-priority-classes", |_: &mut Value| {}, &[])]
    fn what_makes_an_admission_policy_judge_less_is_said(
        #[case] kind: &str,
        #[case] name: &str,
        #[case] change: fn(&mut Value),
        #[case] expected: &[&str],
    ) {
        let manifest = ours(kind, name);
        let mut live = manifest.object.clone();
        change(&mut live.data["spec"]);
        let found = of_admission(&manifest, &live);
        let found: Vec<String> = found.into_iter().flat_map(|extra| extra.opens).collect();
        let expected: Vec<String> = expected
            .iter()
            .map(|added| format!("requests that are judged no more: {added}"))
            .collect();
        assert_eq!(found, expected);
    }

    fn policy(name: &str, spec: &Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    #[test]
    fn of_policies_those_count_that_let_somebody_in_whom_ours_do_not() {
        let ours = [policy(
            "ours",
            &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
        )];
        let live = [
            policy("ours", &json!({"podSelector": {}, "ingress": [{}]})),
            policy("open", &json!({"podSelector": {}, "ingress": [{}]})),
            policy(
                "same",
                &json!({"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{"from": [{"podSelector": {}}]}]}),
            ),
            policy(
                "narrower",
                &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}]}),
            ),
            policy(
                "egress",
                &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
            ),
            policy("closed", &json!({"podSelector": {}})),
        ];
        let known = [within("database", "NetworkPolicy", &ours[0].metadata)].into();
        let found = of_policies(&live, &ours, &known, "database");
        let found: Vec<(String, Vec<String>)> = found
            .into_iter()
            .map(|extra| (extra.object.to_string(), extra.opens))
            .collect();
        let opens = vec!["ingress from everybody to all pods: any port".to_owned()];
        assert_eq!(found, [("NetworkPolicy open in database".to_owned(), opens)]);
    }
}
