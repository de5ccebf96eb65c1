use super::*;
use rstest::rstest;
use std::path::Path;

fn tenant(id: &str) -> Tenant {
    Tenant::standard(id.parse().unwrap())
}

fn with(file: &str, text: &str) -> Templates {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(file), text).unwrap();
    Templates::with_overrides(directory.path()).unwrap()
}

fn rendered(tenant: &Tenant, templates: &Templates) -> Result<Vec<Manifest>, RenderError> {
    render(tenant, templates, &Stamp::default())
}

fn find(manifests: &[Manifest], template: &str) -> Value {
    let manifest = manifests
        .iter()
        .find(|manifest| manifest.template == template)
        .unwrap();
    serde_json::to_value(&manifest.object).unwrap()
}

#[test]
fn manifests_of_the_standard_tenant() {
    let manifests = rendered(&tenant("acme"), &Templates::embedded()).unwrap();
    for manifest in manifests {
        insta::assert_snapshot!(manifest.file_name.clone(), manifest.to_yaml().unwrap());
    }
}

#[test]
fn where_the_worker_is_autoscaled_its_number_is_not_ours() {
    let file = "id: acme\nautoscaling: {enabled: true, maxReplicas: 2}\n";
    let manifests = rendered(&Tenant::from_yaml(file).unwrap(), &Templates::embedded()).unwrap();
    let autoscaler = find(&manifests, "horizontalpodautoscaler-worker");
    assert_eq!(autoscaler["spec"]["scaleTargetRef"]["name"], "ai-agents-worker");
    assert_eq!(autoscaler["spec"]["minReplicas"], 1);
    assert_eq!(autoscaler["spec"]["maxReplicas"], 2);
    let target = &autoscaler["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(target["averageValue"], "400m");
    let replicas = |template| find(&manifests, template)["spec"]["replicas"].clone();
    assert_eq!(replicas("deployment-worker"), Value::Null);
    assert_eq!(replicas("deployment-api"), 1);
}

#[test]
fn without_autoscaling_there_is_no_autoscaler() {
    let manifests = rendered(&tenant("acme"), &Templates::embedded()).unwrap();
    assert!(
        manifests
            .iter()
            .all(|manifest| manifest.kind.kind != "HorizontalPodAutoscaler")
    );
    assert_eq!(find(&manifests, "deployment-worker")["spec"]["replicas"], 1);
}

#[test]
fn manifests_of_the_platform() {
    let platform = Platform {
        database_client_namespaces: vec!["monitoring".parse().unwrap()],
        ..Platform::default()
    };
    for manifest in render_platform(&platform, &Templates::embedded_platform()).unwrap() {
        insta::assert_snapshot!(
            format!("platform-{}", manifest.file_name),
            manifest.to_yaml().unwrap()
        );
    }
}

/// The text of a policy's expressions, as one.
fn expressions(policy: &Value) -> String {
    policy["spec"]["validations"].to_string()
}

#[test]
fn what_admission_lets_through_is_a_setting() {
    let text = "admission:\n  allowedPriorityClasses: [batch-low]\n  reservedNames: [edge]\n  exemptNamespaces: [ai-agents-old]\n";
    let settings = Platform::from_yaml(text).unwrap();
    let manifests = render_platform(&settings, &Templates::embedded_platform()).unwrap();
    let priority = expressions(&find(&manifests, "validatingadmissionpolicy-priority-classes"));
    assert!(priority.contains(r#"in [\"batch-low\"]"#), "{priority}");
    let namespaces = expressions(&find(&manifests, "validatingadmissionpolicy-namespaces"));
    assert!(namespaces.contains(r#"in [\"edge\"]"#), "{namespaces}");
    let exempt = |name: &str| {
        let binding = find(&manifests, &format!("validatingadmissionpolicybinding-{name}"));
        let selector = &binding["spec"]["matchResources"]["namespaceSelector"];
        selector["matchExpressions"][1]["values"] == serde_json::json!(["ai-agents-old"])
    };
    for name in [
        "services",
        "token-secrets",
        "identity-settings",
        "identity-workloads",
        "priority-classes",
    ] {
        assert!(exempt(name), "{name}");
    }
    // Whoever could name a namespace so would be free to wear any label on it.
    assert!(!exempt("namespaces"));
}

#[rstest]
#[case::namespaces("namespaces", &["namespaces"])]
#[case::services("services", &["services"])]
#[case::token_secrets("tokenSecrets", &["token-secrets"])]
#[case::identity("identity", &["identity-settings", "identity-workloads"])]
#[case::priority_classes("priorityClasses", &["priority-classes"])]
fn each_admission_policy_can_be_turned_off_by_itself(#[case] setting: &str, #[case] gone: &[&str]) {
    let settings = Platform::from_yaml(&format!("admission: {{{setting}: false}}\n")).unwrap();
    let names = |settings: &Platform| -> Vec<String> {
        let manifests = render_platform(settings, &Templates::embedded_platform()).unwrap();
        manifests.into_iter().map(|manifest| manifest.template).collect()
    };
    let left = names(&settings);
    let all = names(&Platform::default()).into_iter();
    let missing: std::collections::BTreeSet<String> = all.filter(|name| !left.contains(name)).collect();
    let both = |name: &&str| {
        [
            format!("validatingadmissionpolicy-{name}"),
            format!("validatingadmissionpolicybinding-{name}"),
        ]
    };
    assert_eq!(missing, gone.iter().flat_map(both).collect());
}

#[test]
fn every_admission_policy_is_bound_and_every_binding_has_its_policy() {
    let manifests = render_platform(&Platform::default(), &Templates::embedded_platform()).unwrap();
    let of_kind = |kind: &str| {
        manifests
            .iter()
            .filter(|it| it.kind.kind == kind)
            .collect::<Vec<_>>()
    };
    let policies: Vec<&str> = of_kind("ValidatingAdmissionPolicy")
        .iter()
        .map(|it| it.name())
        .collect();
    let bound = of_kind("ValidatingAdmissionPolicyBinding");
    let bound: Vec<&str> = bound
        .iter()
        .map(|it| it.object.data["spec"]["policyName"].as_str().unwrap())
        .collect();
    assert_eq!(policies, bound);
    for manifest in of_kind("ValidatingAdmissionPolicy") {
        assert_eq!(
            manifest.object.data["spec"]["failurePolicy"],
            "Fail",
            "{}",
            manifest.name()
        );
    }
}

#[test]
fn the_example_tenant_file_renders() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tenants/premium.yaml");
    let tenant = Tenant::from_yaml(&std::fs::read_to_string(path).unwrap()).unwrap();
    let manifests = rendered(&tenant, &Templates::embedded()).unwrap();
    assert_eq!(
        find(&manifests, "resourcequota")["spec"]["hard"]["limits.cpu"],
        "16"
    );
    assert_eq!(find(&manifests, "deployment-worker")["spec"]["replicas"], 3);
}

#[rstest]
#[case::any_host(None)]
#[case::one_host(Some("hooks.example.com"))]
fn an_ingress_object_is_made_where_its_class_is_named(#[case] host: Option<&str>) {
    let mut tenant = tenant("acme");
    tenant.ingress.class_name = Some("nginx".parse().unwrap());
    tenant.ingress.host = host.map(|host| host.parse().unwrap());
    let ingress = find(&rendered(&tenant, &Templates::embedded()).unwrap(), "ingress");
    let service = serde_json::json!({ "name": "ai-agents-api", "port": { "number": 8000 } });
    let path = serde_json::json!({ "path": "/webhook/acme", "pathType": "Exact", "backend": { "service": service } });
    let mut rule = serde_json::json!({ "http": { "paths": [path] } });
    if let Some(host) = host {
        rule["host"] = host.into();
    }
    let spec = serde_json::json!({ "ingressClassName": "nginx", "rules": [rule] });
    assert_eq!(ingress["spec"], spec);
}

#[test]
fn destinations_of_a_tenant_are_a_policy_of_their_own() {
    let mut tenant = tenant("acme");
    let text =
        "[{cidr: 192.0.2.10/32, ports: [443, 8443]}, {cidr: 10.20.0.0/16, ports: [123], protocol: UDP}]";
    tenant.egress = crate::yaml::read(text).unwrap();
    let manifests = rendered(&tenant, &Templates::embedded()).unwrap();
    let policy = find(&manifests, "networkpolicy-allow-egress-destinations");
    let to = |cidr: &str| serde_json::json!([{"ipBlock": {"cidr": cidr}}]);
    let expected = serde_json::json!([
        {"to": to("192.0.2.10/32"), "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 8443}]},
        {"to": to("10.20.0.0/16"), "ports": [{"protocol": "UDP", "port": 123}]},
    ]);
    assert_eq!(policy["spec"]["egress"], expected);
    assert_eq!(policy["spec"]["podSelector"], serde_json::json!({}));
    assert_eq!(manifests.len(), 16);
}

#[test]
fn labels_of_a_tenant_are_on_every_object_and_on_no_pod() {
    let text = "id: acme\nlabels: {example.com/cost-center: \"4711\"}\nannotations: {example.com/contact: \"on call: {{TENANT_ID}}\"}";
    let tenant = Tenant::from_yaml(text).unwrap();
    let manifests = rendered(&tenant, &Templates::embedded()).unwrap();
    for manifest in &manifests {
        let metadata = &manifest.object.metadata;
        let (labels, annotations) = (
            metadata.labels.as_ref().unwrap(),
            metadata.annotations.as_ref().unwrap(),
        );
        assert_eq!(
            labels["example.com/cost-center"], "4711",
            "{}",
            manifest.file_name
        );
        assert_eq!(labels["managed-by"], "ai-agents-platform");
        assert_eq!(annotations["example.com/contact"], "on call: {{TENANT_ID}}");
    }
    let pods = &find(&manifests, "deployment-api")["spec"]["template"]["metadata"]["labels"];
    assert!(
        pods["app"].is_string() && pods["example.com/cost-center"].is_null(),
        "{pods}"
    );
}

#[rstest]
#[case::a_number("007")]
#[case::a_float("1e3")]
#[case::a_boolean("no")]
#[case::null("null")]
#[case::longest("a23456789-123456789-123456789-123456789-123456789-123")]
fn an_id_stays_a_string(#[case] id: &str) {
    let manifests = rendered(&tenant(id), &Templates::embedded()).unwrap();
    assert_eq!(manifests.len(), 15);
    for manifest in &manifests {
        assert_eq!(manifest.object.metadata.labels.as_ref().unwrap()["tenant"], id);
        let longest = if matches!(manifest.kind.kind, "Namespace" | "Service") {
            63
        } else {
            253
        };
        assert!(manifest.name().len() <= longest, "{}", manifest.name());
    }
    let config = find(&manifests, "configmap");
    assert_eq!(config["data"]["TENANT_ID"], id);
}

#[test]
fn written_yaml_reads_back_as_the_same_object() {
    for manifest in rendered(&tenant("no"), &Templates::embedded()).unwrap() {
        let read = crate::yaml::document(&manifest.to_yaml().unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(
            read,
            serde_json::to_value(&manifest.object).unwrap(),
            "{}",
            manifest.file_name
        );
    }
}

#[test]
fn free_text_does_not_leave_its_place() {
    let mut tenant = tenant("acme");
    tenant.api.args = vec!["\"]\u{2028}, privileged: true # {{TENANT_ID}}".parse().unwrap()];
    tenant.name = Some("O'Neill, Sons & Co. (EU)".parse().unwrap());
    let manifests = rendered(&tenant, &Templates::embedded()).unwrap();
    let container = &find(&manifests, "deployment-api")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], serde_json::json!(tenant.api.args));
    assert_eq!(container["securityContext"].get("privileged"), None);
    let namespace = find(&manifests, "namespace");
    assert_eq!(
        namespace["metadata"]["annotations"][labels::TENANT_NAME],
        "O'Neill, Sons & Co. (EU)"
    );
}

#[test]
fn the_namespace_comes_first_and_workloads_last_whatever_the_numbers() {
    let last = "apiVersion: v1\nkind: Secret\nmetadata: {name: late, namespace: \"{{NAMESPACE}}\"}\n";
    let manifests = rendered(&tenant("acme"), &with("99-late.yaml.hbs", last)).unwrap();
    assert_eq!(manifests[0].kind.kind, "Namespace");
    let phases: Vec<_> = manifests.iter().map(|manifest| manifest.kind.phase).collect();
    assert!(phases.is_sorted());
}

#[test]
fn the_stamp_marks_the_namespace_only() {
    let stamp = Stamp {
        labels: BTreeMap::from([(labels::RUN_ID.to_owned(), "r1".to_owned())]),
        annotations: BTreeMap::from([(labels::EXPIRES.to_owned(), "2030-01-01T00:00:00Z".to_owned())]),
    };
    let manifests = render(&tenant("acme"), &Templates::embedded(), &stamp).unwrap();
    let marked: Vec<_> = manifests
        .iter()
        .filter(|manifest| {
            manifest
                .object
                .metadata
                .labels
                .as_ref()
                .unwrap()
                .contains_key(labels::RUN_ID)
        })
        .map(|manifest| manifest.kind.kind)
        .collect();
    assert_eq!(marked, ["Namespace"]);
    assert_eq!(
        find(&manifests, "namespace")["metadata"]["annotations"][labels::EXPIRES],
        "2030-01-01T00:00:00Z"
    );
}

#[test]
fn a_stamp_cannot_change_the_owner() {
    let stamp = Stamp {
        labels: BTreeMap::from([("tenant".into(), "other".into())]),
        ..Stamp::default()
    };
    let error = render(&tenant("acme"), &Templates::embedded(), &stamp)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("sets the owner's label tenant to \"other\", not \"acme\""),
        "{error}"
    );
}

#[test]
fn a_template_that_renders_to_nothing_makes_nothing() {
    let templates = with(
        "extra.yaml.hbs",
        "# nothing\n{{#unless API_ARGS}}\nkind: Pod\n{{/unless}}\n",
    );
    assert_eq!(rendered(&tenant("acme"), &templates).unwrap().len(), 15);
}

const CONFIG: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: \"{{NAMESPACE}}\"\n";

#[rstest]
#[case::missing_variable(
    "data:\n  A: {{TENANT}}\n",
    "extra.yaml.hbs:7: variable TENANT does not exist; did you mean TENANT_ID?"
)]
#[case::far_off(
    "data: {{WHATEVER_ELSE}}\n",
    "extra.yaml.hbs:6: variable WHATEVER_ELSE does not exist"
)]
#[case::missing_in_if(
    "{{#if TENANT_IDD}}\ndata: {}\n{{/if}}\n",
    "extra.yaml.hbs:6: variable TENANT_IDD does not exist"
)]
#[case::missing_in_block(
    "{{#if TENANT_ID}}\ndata: {{NOPE_NOPE}}\n{{/if}}\n",
    "extra.yaml.hbs:7: variable NOPE_NOPE does not exist"
)]
#[case::missing_in_helper(
    "data: {{json IMAGE_APP}}\n",
    "extra.yaml.hbs:6: variable IMAGE_APP does not exist; did you mean IMAGE_API?"
)]
#[case::missing_in_each(
    "{{#each NOTHING_SUCH}}\n{{this}}\n{{/each}}\n",
    "extra.yaml.hbs:6: variable NOTHING_SUCH does not exist"
)]
#[case::unclosed("data: {{TENANT_ID\n", "extra.yaml.hbs:7: invalid handlebars syntax")]
#[case::partial("{{> other}}\n", "extra.yaml.hbs:6: ")]
#[case::duplicate_key(
    "data:\n  A: x\n  A: y\n",
    "extra.yaml.hbs: what it renders to is not usable: data: duplicate entry with key \"A\""
)]
#[case::bad_yaml("data: [\n", "extra.yaml.hbs: what it renders to is not usable: ")]
#[case::tag(
    "data: !secret x\n",
    "extra.yaml.hbs: what it renders to is not usable: has the tag !secret"
)]
#[case::two_documents(
    "---\nkind: ConfigMap\n",
    "extra.yaml.hbs: what it renders to is not usable: has more than one document"
)]
#[case::number_as_key(
    "data: {1: x}\n",
    "extra.yaml.hbs: what it renders to is not usable: has a key that is no string"
)]
fn mistakes_name_file_line_and_variable(#[case] more: &str, #[case] message: &str) {
    let error = rendered(
        &tenant("acme"),
        &with("extra.yaml.hbs", &format!("{CONFIG}{more}")),
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains(message), "{error}");
}

#[rstest]
#[case::cluster_kind(
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: x}\n",
    "makes kind \"ClusterRole\""
)]
#[case::pod(
    "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: \"{{NAMESPACE}}\"}\n",
    "makes kind \"Pod\""
)]
#[case::old_version(
    "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: x}\n",
    "of apiVersion \"extensions/v1beta1\""
)]
#[case::other_namespace(
    "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: kube-system}\n",
    "in namespace \"kube-system\", not in \"ai-agents-acme\""
)]
#[case::no_namespace(
    "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n",
    "in namespace \"\", not in \"ai-agents-acme\""
)]
#[case::second_namespace(
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: ai-agents-other}\n",
    "makes Namespace ai-agents-other, not ai-agents-acme"
)]
#[case::no_name(
    "apiVersion: v1\nkind: Secret\nmetadata: {namespace: \"{{NAMESPACE}}\"}\n",
    "makes a Secret without a name"
)]
#[case::doubled(
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ai-agents-config, namespace: \"{{NAMESPACE}}\"}\n",
    "makes ConfigMap ai-agents-config in ai-agents-acme, and so does templates/tenant/50-configmap.yaml.hbs"
)]
#[case::misspelt_metadata(
    "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: \"{{NAMESPACE}}\", lables: {}}\n",
    "unknown field metadata.lables"
)]
#[case::owner(
    "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: \"{{NAMESPACE}}\", labels: {managed-by: helm}}\n",
    "sets the owner's label managed-by to \"helm\""
)]
#[case::generated(
    "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: \"{{NAMESPACE}}\", annotations: {ai-agents-platform/generate: A=8}}\n",
    "has an annotation ai-agents-platform/generate with \"A=8\", expected KEY=BYTES of 16 to 1024 bytes"
)]
#[case::string_data(
    "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: \"{{NAMESPACE}}\"}\nstringData: {A: 1}\n",
    "has a stringData.A that is no string"
)]
#[case::list("- a\n", "makes no object")]
fn objects_that_a_template_must_not_make(#[case] text: &str, #[case] message: &str) {
    let error = rendered(&tenant("acme"), &with("extra.yaml.hbs", text))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(message) && error.contains("extra.yaml.hbs"),
        "{error}"
    );
}

#[rstest]
#[case::unknown_field("id: acme\nquotas: {}\n", "unknown field `quotas`")]
#[case::nested("id: acme\nquota: {requestsCPU: 2}\n", "unknown field `requestsCPU`")]
#[case::duplicate("id: acme\nid: other\n", "duplicate field `id`")]
#[case::invalid_id("id: Acme\n", "has 'A' at position 1")]
#[case::missing_id("name: Acme\n", "missing field `id`")]
#[case::quantity(
    "id: acme\nquota: {limitsMemory: 8GB}\n",
    "quantity \"8GB\" has an unknown suffix"
)]
#[case::port("id: acme\nsharedServices: {redis: {port: 0}}\n", "nonzero")]
#[case::root("id: acme\nrunAsUser: 0\n", "nonzero")]
#[case::database(
    "id: acme\nsharedServices: {postgresql: {database: a-b}}\n",
    "has '-' at position 2; use 1 to 63 of a-z, 0-9 and '_'"
)]
#[case::redis_has_no_database(
    "id: acme\nsharedServices: {redis: {database: a}}\n",
    "unknown field `database`"
)]
fn tenant_files_with_a_mistake_are_refused(#[case] text: &str, #[case] message: &str) {
    let error = Tenant::from_yaml(text).unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
}

#[test]
fn a_tenant_file_changes_what_it_names_and_no_more() {
    let text = "id: acme\nquota:\n  limitsCpu: 8\napi:\n  replicas: 2\nregistration: false\nsharedServices:\n  postgresql: {adminSecret: root}\n";
    let read = Tenant::from_yaml(text).unwrap();
    let mut expected = tenant("acme");
    expected.registration = false;
    expected.shared_services.postgresql.admin_secret = "root".parse().unwrap();
    expected.quota.limits_cpu = "8".parse().unwrap();
    expected.api.replicas = 2;
    assert_eq!(read, expected);
}

/// The tables of `docs/templates.md` are generated: `UPDATE_DOCS=1 cargo test -p provisioner` writes them.
#[test]
fn the_documented_variables_are_those_that_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/templates.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let tenant_table = table(variables::TENANT, &tenant("acme"));
    let updated = between(&text, "tenant", &tenant_table);
    let updated = between(
        &updated,
        "platform",
        &table(variables::PLATFORM, &Platform::default()),
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &updated).unwrap();
    }
    assert!(
        text == updated,
        "docs/templates.md is out of date; run UPDATE_DOCS=1 cargo test -p provisioner"
    );
}

fn table<T>(variables: &[variables::Variable<T>], standard: &T) -> String {
    let mut text = String::from(
        "| variable | field | what it holds | standard value (tenant `acme`) |\n|---|---|---|---|\n",
    );
    for variable in variables {
        let value = match (variable.value)(standard) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let (name, field, about) = (variable.name, variable.field, variable.about);
        text.push_str(&format!(
            "| `{{{{{name}}}}}` | `{field}` | {about} | `{value}` |\n"
        ));
    }
    text
}

fn between(text: &str, mark: &str, inner: &str) -> String {
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->\n"));
    let (head, rest) = text.split_once(&begin).unwrap();
    let (_, tail) = rest.split_once(&end).unwrap();
    format!("{head}{begin}{inner}{end}{tail}")
}
