//! The platform's objects, against the scripted server: what is said, what is written, what is refused.

use crate::server::{Server, status};
use provisioner::platform::{self, Difference, Ingress, PodIngress, State};
use provisioner::{
    Applied, ApplyError, ApplyOptions, Manifest, Platform, Silent, Step, Templates, render_platform,
};
use rstest::rstest;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Mutex;

const DATABASE: &str = "/api/v1/namespaces/database";
const DENY: &str = "/apis/networking.k8s.io/v1/namespaces/database/networkpolicies/default-deny-ingress";
const REDIS: &str = "/apis/networking.k8s.io/v1/namespaces/database/networkpolicies/allow-tenants-to-redis";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const ROLES_ADMIN: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/ai-agents-platform-admin";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

fn standard() -> Vec<Manifest> {
    render_platform(&Platform::default(), &Templates::embedded_platform()).unwrap()
}

/// The standard templates, changed by these files.
fn changed(files: &[(&str, &str)]) -> Vec<Manifest> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let templates = Templates::embedded_platform()
        .changed_by(directory.path())
        .unwrap();
    render_platform(&Platform::default(), &templates).unwrap()
}

async fn server() -> Server {
    let server = Server::start().await;
    server.put(
        DATABASE,
        json!({"kind": "Namespace", "metadata": {"name": "database"}}),
    );
    server
}

async fn diff(server: &Server, manifests: &[Manifest]) -> Result<Difference, ApplyError> {
    platform::diff(&server.client().await, &Platform::default(), manifests, &Silent).await
}

async fn apply(server: &Server, manifests: &[Manifest]) -> Result<Applied, ApplyError> {
    apply_with(server, manifests, &ApplyOptions::default()).await
}

async fn apply_with(
    server: &Server,
    manifests: &[Manifest],
    options: &ApplyOptions,
) -> Result<Applied, ApplyError> {
    platform::apply(
        &server.client().await,
        &Platform::default(),
        manifests,
        options,
        &Silent,
    )
    .await
}

fn states(difference: &Difference) -> Vec<(&str, &State)> {
    let differing = difference.objects.iter().filter(|it| it.state != State::Same);
    differing.map(|it| (it.object.name.as_str(), &it.state)).collect()
}

fn clients(ingress: &Ingress) -> Vec<String> {
    match ingress {
        Ingress::Only(allowed) => allowed.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn pod(server: &Server, name: &str, app: &str) {
    server.put(
        &format!("{DATABASE}/pods/{name}"),
        json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": {"containers": []}, "status": {"phase": "Running"}}),
    );
}

fn conflict(field: &str) -> Value {
    let mut body = status(409, "Conflict", "Apply failed with 1 conflict");
    body["details"] = json!({"causes": [{
        "reason": "FieldManagerConflict",
        "message": "conflict with \"kubectl-edit\" using networking.k8s.io/v1",
        "field": field,
    }]});
    body
}

#[tokio::test]
async fn a_diff_says_what_would_be_created_and_whom_it_isolates_and_writes_nothing() {
    let server = server().await;
    pod(&server, "postgresql-0", "ai-agents-postgresql");
    pod(&server, "backup-0", "backup");
    let difference = diff(&server, &standard()).await.unwrap();
    assert_eq!(difference.objects.len(), 18);
    assert!(difference.objects.iter().all(|it| it.state == State::Create));
    assert!(
        difference.pods.iter().all(PodIngress::becomes_isolated),
        "{difference}"
    );
    let then = |at: usize| clients(&difference.pods[at].then);
    let inside = "pods of database: any port (allow-same-namespace)";
    let tenants = "pods of namespaces with app=ai-agents,managed-by=ai-agents-platform: TCP 5432 (allow-tenants-to-postgresql)";
    assert_eq!(difference.pods[0].pod, "backup-0");
    assert_eq!(then(0), [inside]);
    assert_eq!(then(1), [inside, tenants]);
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn the_second_apply_writes_nothing_and_then_there_is_no_difference() {
    let server = server().await;
    assert_eq!(
        apply(&server, &standard()).await.unwrap().to_string(),
        "18 created"
    );
    let writes = server.writes();
    assert!(writes[..11].iter().all(|write| !write.contains("binding")));
    assert!(writes[11..].iter().all(|write| write.contains("binding")));
    assert_eq!(
        apply(&server, &standard()).await.unwrap().to_string(),
        "18 unchanged"
    );
    assert!(diff(&server, &standard()).await.unwrap().is_same());
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_changed_variable_is_one_field_of_one_object() {
    let server = server().await;
    apply(&server, &standard()).await.unwrap();
    let mut settings = Platform::default();
    settings.shared_services.redis.port = 6380.try_into().unwrap();
    let wanted = render_platform(&settings, &Templates::embedded_platform()).unwrap();
    let difference = diff(&server, &wanted).await.unwrap();
    let [("allow-tenants-to-redis", State::Change(changes))] = states(&difference)[..] else {
        panic!("{difference}")
    };
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [".spec.ingress[0].ports[0].port: on the cluster 6379, in the template 6380"]
    );
}

#[tokio::test]
async fn an_edit_is_a_difference_with_its_manager_and_a_conflict_that_changes_nothing() {
    let server = server().await;
    apply(&server, &standard()).await.unwrap();
    server.writes();
    server.state().objects.get_mut(DENY).unwrap()["spec"]["ingress"] = json!([{}]);
    server.script(
        "PATCH",
        "/default-deny-ingress",
        1,
        409,
        conflict(".spec.ingress"),
    );
    let difference = diff(&server, &standard()).await.unwrap();
    let [("default-deny-ingress", State::Change(changes))] = states(&difference)[..] else {
        panic!("{difference}")
    };
    assert_eq!(
        changes[0].to_string(),
        ".spec.ingress: on the cluster [{}] (set by \"kubectl-edit\"), in the template not set"
    );
    server.script(
        "PATCH",
        "/default-deny-ingress",
        1,
        409,
        conflict(".spec.ingress"),
    );
    let error = apply(&server, &standard()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "apply: a field is set by others:\n  NetworkPolicy default-deny-ingress in database: .spec.ingress is [{}], set by \"kubectl-edit\"; the templates say not set"
    );
    assert_eq!(server.writes(), Vec::<String>::new());
    let force = ApplyOptions {
        force_conflicts: true,
        ..ApplyOptions::default()
    };
    let applied = apply_with(&server, &standard(), &force).await.unwrap();
    assert_eq!(applied.changed[0].name, "default-deny-ingress");
    assert_eq!(server.state().objects[DENY]["spec"]["ingress"], Value::Null);
}

/// What makes a template's object one of its own.
fn cluster_role(name: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: {name}\nrules: []\n"
    )
}

#[tokio::test]
async fn overrides_are_planted_and_taken_back() {
    let server = server().await;
    apply(&server, &standard()).await.unwrap();
    let planted = changed(&[
        ("clusterrole-extra.yaml.hbs", &cluster_role("extra")),
        ("networkpolicy-database-allow-tenants-to-redis.delete", ""),
    ]);
    let applied = apply(&server, &planted).await.unwrap();
    assert_eq!(applied.to_string(), "1 created, 17 unchanged, 1 pruned");
    assert!(!server.has(REDIS) && server.has(&format!("{ROLES}/extra")));
    let difference = diff(&server, &standard()).await.unwrap();
    assert_eq!(
        states(&difference),
        [
            ("allow-tenants-to-redis", &State::Create),
            ("extra", &State::Prune)
        ]
    );
    let applied = apply(&server, &standard()).await.unwrap();
    assert_eq!(applied.to_string(), "1 created, 17 unchanged, 1 pruned");
    assert!(server.has(REDIS) && !server.has(&format!("{ROLES}/extra")));
}

#[tokio::test]
async fn pods_are_judged_with_what_is_pruned_gone_and_what_is_changed_as_it_will_be() {
    let server = server().await;
    let open = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: open\n  namespace: database\nspec:\n  podSelector: {}\n  ingress: [{}]\n";
    let mut wider = changed(&[("open.yaml.hbs", open)]);
    for manifest in &mut wider {
        if manifest.name() == "allow-same-namespace" {
            manifest.object.data["spec"]["ingress"][0]["from"] =
                json!([{"podSelector": {"matchLabels": {"a": "b"}}}]);
        }
    }
    apply(&server, &wider).await.unwrap();
    pod(&server, "backup-0", "backup");
    let difference = diff(&server, &standard()).await.unwrap();
    assert_eq!(
        clients(&difference.pods[0].now),
        [
            "everybody: any port (open)",
            "pods with a=b of database: any port (allow-same-namespace)"
        ]
    );
    assert_eq!(
        clients(&difference.pods[0].then),
        ["pods of database: any port (allow-same-namespace)"]
    );
}

#[rstest]
#[case::applied_by_others(json!({"managed-by": "ai-agents-platform"}), "kubectl", "Apply")]
#[case::made_by_us_without_applying(json!({"managed-by": "ai-agents-platform"}), "ai-agents-provisioner", "Update")]
#[case::without_our_label(json!({}), "ai-agents-provisioner", "Apply")]
#[tokio::test]
async fn what_is_not_ours_is_never_pruned(
    #[case] labels: Value,
    #[case] manager: &str,
    #[case] operation: &str,
) {
    let server = server().await;
    let theirs = format!("{ROLES}/theirs");
    server.put(
        &theirs,
        json!({"kind": "ClusterRole", "metadata": {
            "name": "theirs", "labels": labels, "managedFields": [{"manager": manager, "operation": operation}],
        }}),
    );
    assert_eq!(
        apply(&server, &standard()).await.unwrap().to_string(),
        "18 created"
    );
    assert!(server.has(&theirs));
}

#[tokio::test]
async fn an_object_of_the_same_name_that_is_not_ours_is_refused_until_forced() {
    let server = server().await;
    server.put(
        DENY,
        json!({"kind": "NetworkPolicy", "metadata": {"name": "default-deny-ingress", "namespace": "database"}, "spec": {"podSelector": {"matchLabels": {"app": "x"}}}}),
    );
    let difference = diff(&server, &standard()).await.unwrap();
    let (_, State::Foreign { why, changes }) = states(&difference)
        .into_iter()
        .find(|(name, _)| *name == "default-deny-ingress")
        .unwrap()
    else {
        panic!("{difference}")
    };
    assert_eq!(
        why,
        "label managed-by is missing, expected \"ai-agents-platform\""
    );
    assert!(
        changes.iter().any(|change| change.path == ".spec.podSelector"),
        "{changes:?}"
    );
    let error = apply(&server, &standard()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "apply platform: there are objects that are not ours:\n  NetworkPolicy default-deny-ingress in database: label managed-by is missing, expected \"ai-agents-platform\""
    );
    assert!(error.hint().unwrap().contains("--force-conflicts"));
    assert_eq!(server.writes(), Vec::<String>::new());
    let force = ApplyOptions {
        force_conflicts: true,
        ..ApplyOptions::default()
    };
    let applied = apply_with(&server, &standard(), &force).await.unwrap();
    assert_eq!(applied.to_string(), "17 created, 1 changed");
}

#[rstest]
#[case::absent(None, "find Namespace database of the shared services: it does not exist")]
#[case::going(
    Some(json!({"kind": "Namespace", "metadata": {"name": "database", "deletionTimestamp": "2026-01-01T00:00:00Z"}})),
    "find Namespace database of the shared services: it is being deleted",
)]
#[tokio::test]
async fn without_the_shared_services_namespace_nothing_is_made(
    #[case] namespace: Option<Value>,
    #[case] message: &str,
) {
    let server = Server::start().await;
    if let Some(namespace) = namespace {
        server.put(DATABASE, namespace);
    }
    for error in [
        diff(&server, &standard()).await.unwrap_err(),
        apply(&server, &standard()).await.unwrap_err(),
    ] {
        assert_eq!(error.to_string(), message);
        assert!(
            error
                .hint()
                .unwrap()
                .contains("kubectl create namespace database")
        );
    }
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_of_before_admission_policies_gets_all_else_and_says_what_it_lacks() {
    let server = server().await;
    server.state().has_no_admission_policies = true;
    let applied = apply(&server, &standard()).await.unwrap();
    assert_eq!(applied.to_string(), "6 created, 12 skipped");
    assert!(
        server.has(ROLES_ADMIN)
            && !server.has(&format!(
                "{ADMISSION}/validatingadmissionpolicies/ai-agents-namespaces"
            ))
    );
    let difference = diff(&server, &standard()).await.unwrap();
    assert!(difference.is_same(), "{difference}");
    let text = difference.to_string();
    let why = "skip     ValidatingAdmissionPolicy ai-agents-namespaces\n         this server has no validatingadmissionpolicies in admissionregistration.k8s.io/v1: Kubernetes has them since 1.30";
    assert!(text.contains(why), "{text}");
}

#[tokio::test]
async fn whether_a_server_has_admission_policies_is_not_guessed_where_it_does_not_say() {
    let server = server().await;
    let refusal = status(403, "Forbidden", "User \"me\" cannot get path");
    server.script("GET", ADMISSION, 1, 403, refusal);
    let error = apply(&server, &standard()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ask which kinds the server has in admissionregistration.k8s.io/v1"
    );
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[rstest]
#[case::by_a_setting(|settings: &mut Platform| settings.admission.services = false, None)]
#[case::by_an_override(|_: &mut Platform| {}, Some(["validatingadmissionpolicy-services.delete", "validatingadmissionpolicybinding-services.delete"]))]
#[tokio::test]
async fn an_admission_policy_that_is_turned_off_is_pruned(
    #[case] change: fn(&mut Platform),
    #[case] deleted: Option<[&str; 2]>,
) {
    let server = server().await;
    apply(&server, &standard()).await.unwrap();
    let mut settings = Platform::default();
    change(&mut settings);
    let wanted = match deleted {
        Some(files) => changed(&files.map(|file| (file, ""))),
        None => render_platform(&settings, &Templates::embedded_platform()).unwrap(),
    };
    let applied = apply(&server, &wanted).await.unwrap();
    assert_eq!(applied.to_string(), "16 unchanged, 2 pruned");
    let policy = |name: &str| format!("{ADMISSION}/validatingadmissionpolicies/ai-agents-{name}");
    let binding = |name: &str| format!("{ADMISSION}/validatingadmissionpolicybindings/ai-agents-{name}");
    assert!(!server.has(&policy("services")) && !server.has(&binding("services")));
    assert!(server.has(&policy("namespaces")) && server.has(&binding("namespaces")));
}

fn extras(difference: &Difference) -> Vec<String> {
    let extras = difference.extras.iter();
    extras
        .map(|extra| format!("{}: {}", extra.object, extra.opens.join("; ")))
        .collect()
}

#[tokio::test]
async fn what_others_put_beside_the_shared_services_is_told_where_it_opens_them() {
    let server = server().await;
    apply(&server, &standard()).await.unwrap();
    server.writes();
    let policies = "/apis/networking.k8s.io/v1/namespaces/database/networkpolicies";
    let policy = |name: &str, spec: Value| {
        let object = json!({"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "database"}, "spec": spec});
        server.put(&format!("{policies}/{name}"), object);
    };
    policy("open", json!({"podSelector": {}, "ingress": [{}]}));
    policy("closed", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    policy(
        "outwards",
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
    );
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/database/rolebindings";
    let binding = |name: &str, kind: &str, subject: &str| {
        let object = json!({
            "metadata": {"name": name, "namespace": "database"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": kind, "name": subject}],
        });
        server.put(&format!("{bindings}/{name}"), object);
    };
    binding("tenants", "Group", "system:serviceaccounts:ai-agents-acme");
    binding("person", "User", "jane");
    let difference = diff(&server, &standard()).await.unwrap();
    assert_eq!(
        extras(&difference),
        [
            "NetworkPolicy open in database: ingress from everybody to all pods: any port",
            "RoleBinding tenants in database: the rights of ClusterRole view, in database, to Group system:serviceaccounts:ai-agents-acme",
        ]
    );
    assert!(difference.is_applied() && !difference.is_same(), "{difference}");
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn an_admission_policy_that_others_made_judge_less_is_told() {
    let server = server().await;
    apply(&server, &standard()).await.unwrap();
    let policy = format!("{ADMISSION}/validatingadmissionpolicies/ai-agents-namespaces");
    server.state().objects.get_mut(&policy).unwrap()["spec"]["matchConditions"] =
        json!([{"expression": "false", "name": "never"}]);
    let difference = diff(&server, &standard()).await.unwrap();
    assert!(states(&difference).is_empty(), "{difference}");
    assert_eq!(
        extras(&difference),
        [
            "ValidatingAdmissionPolicy ai-agents-namespaces: requests that are judged no more: spec.matchConditions has {\"expression\":\"false\",\"name\":\"never\"}"
        ]
    );
    assert!(!difference.is_same());
}

#[tokio::test]
async fn kinds_that_may_not_be_listed_and_that_no_template_makes_are_told() {
    let server = server().await;
    apply(&server, &standard()).await.unwrap();
    let refusal =
        "clusterrolebindings is forbidden: User \"me\" cannot list resource \"clusterrolebindings\"";
    server.script(
        "GET",
        "/clusterrolebindings",
        2,
        403,
        status(403, "Forbidden", refusal),
    );
    let without: Vec<Manifest> = standard()
        .into_iter()
        .filter(|manifest| manifest.kind.kind != "ClusterRoleBinding")
        .collect();
    let difference = diff(&server, &without).await.unwrap();
    assert!(difference.is_same(), "{difference}");
    let unseen = format!("list clusterrolebindings: {refusal}; a cluster administrator may");
    assert_eq!(difference.unseen, [unseen]);
    let told = Mutex::new(Vec::new());
    let progress = |step: &Step| {
        if let Step::Note(text) = step {
            told.lock().unwrap().push(text.clone());
        }
    };
    let client = server.client().await;
    let options = ApplyOptions::default();
    let applied = platform::apply(&client, &Platform::default(), &without, &options, &progress)
        .await
        .unwrap();
    assert_eq!(applied.to_string(), "17 unchanged");
    let note = format!(
        "list clusterrolebindings: {refusal}; what is left over of these, if anything, is not pruned"
    );
    assert_eq!(*told.lock().unwrap(), [note]);
}

#[tokio::test]
async fn a_tenants_objects_are_none_of_the_platforms() {
    let server = server().await;
    apply(&server, &standard()).await.unwrap();
    let requests = server.state().requests.clone();
    assert!(requests.contains(&format!("GET {ROLES}")), "{requests:#?}");
    let asked = server.state().selectors.clone();
    assert_eq!(asked, ["managed-by=ai-agents-platform,!tenant"; 5]);
}

#[tokio::test]
async fn who_lacks_rights_in_the_cluster_is_told_who_has_them() {
    let server = server().await;
    let refusal = "clusterroles.rbac.authorization.k8s.io is forbidden: User \"me\" cannot list resource \"clusterroles\"";
    server.script("GET", "/clusterroles", 1, 403, status(403, "Forbidden", refusal));
    let error = diff(&server, &standard()).await.unwrap_err();
    assert_eq!(error.to_string(), "list clusterroles");
    assert!(error.hint().unwrap().ends_with("such as a cluster administrator"));
}

#[test]
fn the_settings_of_the_documentation_can_be_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/templates.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, after) = text.split_once("```yaml\n# The platform's settings").unwrap();
    let (example, _) = after.split_once("```").unwrap();
    let settings = Platform::from_yaml(&format!("#{example}")).unwrap();
    assert_ne!(settings, Platform::default());
}
