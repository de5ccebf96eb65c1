//! What an Ingress leads to from outside of the cluster
//! (<https://kubernetes.io/docs/concepts/services-networking/ingress/#the-ingress-resource>). Pure.

use super::extras::unnamed;
use serde_json::Value;

/// What it leads to, one line for each path, that `ours` does not name.
pub(super) fn led_in(live: &Value, ours: &Value) -> Vec<String> {
    let default = unnamed(live, ours, "/spec/defaultBackend").map(|backend| {
        let backend = target(backend);
        format!("{backend} to clients outside of the cluster: defaultBackend, for all that no rule names")
    });
    let rules = unnamed(live, ours, "/spec/rules").and_then(Value::as_array);
    let rules = rules.into_iter().flatten().flat_map(by_rule);
    default.into_iter().chain(rules).collect()
}

fn by_rule(rule: &Value) -> Vec<String> {
    let host = rule.get("host").and_then(Value::as_str);
    let host = host.map_or_else(|| "every host".to_owned(), |host| format!("host {host}"));
    let paths = rule.pointer("/http/paths").and_then(Value::as_array);
    paths
        .into_iter()
        .flatten()
        .map(|path| {
            let backend = path.get("backend").map_or_else(unknown, target);
            let path = path.get("path").and_then(Value::as_str).unwrap_or("/");
            format!("{backend} to clients outside of the cluster: {path} of {host}")
        })
        .collect()
}

/// A Service, or an object of another kind that the controller knows.
fn target(backend: &Value) -> String {
    let text = |path| backend.pointer(path).and_then(Value::as_str);
    match (
        text("/service/name"),
        text("/resource/kind"),
        text("/resource/name"),
    ) {
        (Some(service), _, _) => format!("Service {service}"),
        (None, Some(kind), Some(name)) => format!("{kind} {name}"),
        _ => unknown(),
    }
}

fn unknown() -> String {
    "an unknown backend".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::nothing(json!({}), &[])]
    #[case::default(
        json!({"defaultBackend": {"service": {"name": "api", "port": {"number": 8000}}}}),
        &["Service api to clients outside of the cluster: defaultBackend, for all that no rule names"],
    )]
    #[case::rules(
        json!({"rules": [
            {"http": {"paths": [{"path": "/admin", "backend": {"service": {"name": "api"}}}, {"backend": {"resource": {"kind": "Bucket", "name": "b"}}}]}},
            {"host": "x.example.com", "http": {"paths": [{"path": "/", "backend": {"service": {"name": "api"}}}]}},
            {"host": "without.example.com"},
        ]}),
        &[
            "Service api to clients outside of the cluster: /admin of every host",
            "Bucket b to clients outside of the cluster: / of every host",
            "Service api to clients outside of the cluster: / of host x.example.com",
        ],
    )]
    fn what_it_leads_to_is_said(#[case] spec: Value, #[case] expected: &[&str]) {
        assert_eq!(led_in(&json!({"spec": spec}), &Value::Null), expected);
    }

    #[test]
    fn fields_that_our_template_names_are_compared_with_it_elsewhere() {
        let rules = json!([{"http": {"paths": [{"path": "/", "backend": {"service": {"name": "api"}}}]}}]);
        let ours = json!({"spec": {"rules": []}});
        let live = json!({"spec": {"rules": rules, "defaultBackend": {"service": {"name": "api"}}}});
        assert_eq!(led_in(&live, &ours).len(), 1);
    }
}
