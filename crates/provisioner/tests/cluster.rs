//! The library against a real cluster: server-side apply, admission, quota and deletion as Kubernetes has them.
//!
//! `CONFORMANCE_TEST_CLUSTER=CONTEXT cargo test -p provisioner --test cluster -- --include-ignored`, with the kubeconfig in `KUBECONFIG`.
//! Each test makes tenants of its own, `prov-…`, and removes them, whether it passes or not. The cluster's nodes need the image
//! `ai-agents.local/probe:1`, which stands in for the application here, and the cluster the shared services.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests"
)]

#[path = "cluster/adopt.rs"]
mod adopt;
#[path = "cluster/credentials.rs"]
mod credentials;
#[path = "cluster/fleet.rs"]
mod fleet;
#[path = "cluster/killed.rs"]
mod killed;
#[path = "cluster/platform.rs"]
mod platform;
#[path = "cluster/preflight.rs"]
mod preflight;
#[path = "cluster/registration.rs"]
mod registration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use provisioner::registration::{Change, purge, register};
use provisioner::{
    Applied, ApplyError, ApplyOptions, ConnectOptions, DeleteOptions, Manifest, Ownership, Platform, Reason,
    Silent, Stamp, Templates, Tenant, apply, connect, delete, ownership, render, render_platform, wait_ready,
};
use rstest::rstest;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A tenant of one test, and the cluster.
#[derive(Clone)]
struct Case {
    client: Client,
    tenant: Tenant,
    /// Its manifests include workloads.
    workloads: bool,
}

async fn connected() -> Client {
    let context = std::env::var("CONFORMANCE_TEST_CLUSTER")
        .expect("CONFORMANCE_TEST_CLUSTER names a kubeconfig context");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = ConnectOptions {
        kubeconfig: None,
        context: Some(context),
    };
    connect(&options).await.expect("the context can be used").client
}

/// Runs the test with a tenant of that name, and removes the tenant whatever happens.
async fn with_tenant<F: Future<Output = ()> + Send + 'static>(name: &str, test: impl FnOnce(Case) -> F) {
    let client = connected().await;
    let mut tenant = Tenant::standard(format!("prov-{name}-{}", std::process::id()).parse().unwrap());
    run_the_agent(&mut tenant);
    let case = Case {
        client,
        tenant,
        workloads: true,
    };
    let outcome = tokio::spawn(test(case.clone())).await;
    let removed = delete(&case.client, &case.tenant.id, &DeleteOptions::default(), &Silent).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic.into_panic());
    }
    removed.expect("the tenant can be removed");
}

/// What is shown here needs no application.
fn run_the_agent(tenant: &mut Tenant) {
    for workload in [&mut tenant.api, &mut tenant.worker] {
        workload.image = "ai-agents.local/probe:1".parse().unwrap();
        workload.args = ["serve", "--tcp", "8000"]
            .map(|word| word.parse().unwrap())
            .to_vec();
    }
    tenant.worker.readiness_command = ["/probe", "witness"].map(|word| word.parse().unwrap()).to_vec();
}

impl Case {
    fn namespace(&self) -> String {
        self.tenant.namespace()
    }

    fn manifests(&self) -> Vec<Manifest> {
        self.render(&Templates::embedded())
    }

    fn manifests_with(&self, file: &str, change: impl FnOnce(String) -> String) -> Vec<Manifest> {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates/tenant");
        let original = std::fs::read_to_string(templates.join(file)).unwrap_or_default();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(file), change(original)).unwrap();
        self.render(&Templates::with_overrides(directory.path()).unwrap())
    }

    fn render(&self, templates: &Templates) -> Vec<Manifest> {
        let mut manifests = render(&self.tenant, templates, &Stamp::default()).unwrap();
        manifests.retain(|manifest| self.workloads || manifest.kind.kind != "Deployment");
        manifests
    }

    async fn apply(&self, manifests: &[Manifest], options: ApplyOptions) -> Result<Applied, ApplyError> {
        apply(&self.client, manifests, &self.tenant.id, &options, &Silent).await
    }

    async fn live(&self, manifest: &Manifest) -> DynamicObject {
        let resource = manifest.kind.resource();
        let api: Api<DynamicObject> = match &manifest.object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        api.get(manifest.name()).await.unwrap()
    }

    /// What a write would change, object by object. (Not the version: of a quota, say, controllers write the status.)
    async fn specs(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for manifest in self.manifests() {
            let mut live = self.live(&manifest).await;
            live.data.as_object_mut().unwrap().remove("status");
            live.metadata.resource_version = None;
            // Entries of the status come and go; ours has to stay as it is, with its time.
            live.metadata
                .managed_fields
                .iter_mut()
                .flatten()
                .for_each(|entry| entry.fields_v1 = None);
            live.metadata
                .managed_fields
                .iter_mut()
                .for_each(|all| all.retain(|it| it.subresource.is_none()));
            all.insert(
                manifest.reference().to_string(),
                serde_json::to_string(&live).unwrap(),
            );
        }
        all
    }
}

fn until_ready() -> ApplyOptions {
    ApplyOptions {
        readiness: Some(READY_WITHIN),
        ..ApplyOptions::default()
    }
}

/// Without pods nothing waits for nodes.
fn without_workloads(case: &mut Case) {
    case.workloads = false;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_tenant_becomes_ready_and_the_second_apply_writes_nothing() {
    with_tenant("ready", async |case| {
        let manifests = case.manifests();
        let first = case.apply(&manifests, until_ready()).await.unwrap();
        assert_eq!(first.to_string(), "15 created");
        wait_ready(&case.client, &case.tenant, Duration::from_secs(5), &Silent)
            .await
            .unwrap();
        let pods: Api<Pod> = Api::namespaced(case.client.clone(), &case.namespace());
        let accounts = pods.list(&ListParams::default()).await.unwrap().items.into_iter();
        let accounts: Vec<String> = accounts
            .filter_map(|pod| pod.spec?.service_account_name)
            .collect();
        let account = format!("sa-{}", case.tenant.id);
        assert_eq!(accounts, [account.clone(), account]);

        let before = case.specs().await;
        let second = case.apply(&manifests, until_ready()).await.unwrap();
        assert_eq!(second.to_string(), "15 unchanged");
        assert_eq!(case.specs().await, before);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn without_pods_a_tenant_is_made_within_a_second() {
    with_tenant("fast", async |mut case| {
        without_workloads(&mut case);
        let started = Instant::now();
        case.apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        let first = started.elapsed();
        let started = Instant::now();
        case.apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        eprintln!("first apply {first:.2?}, second {:.2?}", started.elapsed());
        assert!(first < Duration::from_secs(1), "{first:.2?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn the_quota_is_in_force_as_soon_as_apply_returns() {
    with_tenant("quota", async |mut case| {
        without_workloads(&mut case);
        case.apply(&case.manifests(), ApplyOptions::default()).await.unwrap();
        let pod = json!({
            "metadata": {"name": "large"},
            "spec": {
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "c", "image": "ai-agents.local/probe:1",
                    "resources": {"limits": {"cpu": "5", "memory": "64Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        let pods: Api<Pod> = Api::namespaced(case.client.clone(), &case.namespace());
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let refusal = pods.create(&parameters, &pod).await.unwrap_err().to_string();
        assert!(refusal.contains("exceeded quota") && refusal.contains("limits.cpu"), "{refusal}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_conflict_changes_nothing_and_force_takes_the_field_back() {
    with_tenant("conflict", async |mut case| {
        without_workloads(&mut case);
        let manifests = case.manifests();
        case.apply(&manifests, ApplyOptions::default()).await.unwrap();
        let config = manifests.iter().find(|manifest| manifest.kind.kind == "ConfigMap").unwrap();
        let api: Api<DynamicObject> =
            Api::namespaced_with(case.client.clone(), &case.namespace(), &config.kind.resource());
        let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"REDIS_PORT": "1"}});
        let parameters = PatchParams { force: true, ..PatchParams::apply("somebody") };
        api.patch(config.name(), &parameters, &Patch::Apply(&theirs)).await.unwrap();

        let before = case.specs().await;
        let mut wanted = case.clone();
        wanted.tenant.quota.pods = 20;
        let error = wanted.apply(&wanted.manifests(), ApplyOptions::default()).await.unwrap_err();
        let expected = format!(
            "apply: a field is set by others:\n  ConfigMap ai-agents-config in {}: .data.REDIS_PORT is \"1\", set by \"somebody\"; the templates say \"6379\"",
            case.namespace()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(case.specs().await, before);

        let force = ApplyOptions { force_conflicts: true, ..ApplyOptions::default() };
        let applied = case.apply(&manifests, force).await.unwrap();
        assert_eq!(applied.to_string(), "1 changed, 12 unchanged");
        assert_eq!(case.live(config).await.data["data"]["REDIS_PORT"], "6379");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_rule_that_somebody_adds_to_a_policy_that_denies_is_a_conflict() {
    with_tenant("opened", async |mut case| {
        without_workloads(&mut case);
        let manifests = case.manifests();
        case.apply(&manifests, ApplyOptions::default()).await.unwrap();
        let policies: Api<NetworkPolicy> = Api::namespaced(case.client.clone(), &case.namespace());
        for direction in ["ingress", "egress"] {
            let opened = Patch::Merge(json!({"spec": {direction: [{}]}}));
            let edit = PatchParams {
                field_manager: Some("kubectl-edit".to_owned()),
                ..PatchParams::default()
            };
            let name = format!("default-deny-{direction}");
            policies.patch(&name, &edit, &opened).await.unwrap();
            let error = case
                .apply(&manifests, ApplyOptions::default())
                .await
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!(".spec.{direction} is [{{}}], set by \"kubectl-edit\"")),
                "{error}"
            );
            let force = ApplyOptions {
                force_conflicts: true,
                ..ApplyOptions::default()
            };
            let applied = case.apply(&manifests, force).await.unwrap();
            assert_eq!(applied.to_string(), "1 changed, 12 unchanged");
            let applied = case.apply(&manifests, ApplyOptions::default()).await.unwrap();
            assert_eq!(applied.to_string(), "13 unchanged");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn what_the_templates_no_longer_contain_is_pruned_and_nothing_else() {
    with_tenant("prune", async |mut case| {
        without_workloads(&mut case);
        let extra =
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: extra\n  namespace: \"{{NAMESPACE}}\"\n";
        case.apply(
            &case.manifests_with("extra.yaml.hbs", |_| extra.to_owned()),
            ApplyOptions::default(),
        )
        .await
        .unwrap();
        let configs: Api<k8s_openapi::api::core::v1::ConfigMap> =
            Api::namespaced(case.client.clone(), &case.namespace());
        let theirs = k8s_openapi::api::core::v1::ConfigMap {
            metadata: ObjectMeta {
                name: Some("theirs".into()),
                labels: configs.get("extra").await.unwrap().metadata.labels,
                ..ObjectMeta::default()
            },
            ..Default::default()
        };
        configs.create(&PostParams::default(), &theirs).await.unwrap();

        let applied = case
            .apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        assert_eq!(applied.to_string(), "13 unchanged, 1 pruned");
        assert_eq!(applied.pruned[0].name, "extra");
        let left = configs
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .into_iter();
        let left: Vec<String> = left.filter_map(|config| config.metadata.name).collect();
        assert_eq!(left, ["ai-agents-config", "kube-root-ca.crt", "theirs"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_namespace_of_somebody_else_is_left_as_it_is() {
    with_tenant("foreign", async |case| {
        let namespaces: Api<Namespace> = Api::all(case.client.clone());
        let theirs = Namespace {
            metadata: ObjectMeta {
                name: Some(case.namespace()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespaces.create(&PostParams::default(), &theirs).await.unwrap();
        let applied = case.apply(&case.manifests(), ApplyOptions::default()).await;
        let deleted = delete(&case.client, &case.tenant.id, &DeleteOptions::default(), &Silent).await;
        let live = namespaces.get(&case.namespace()).await.unwrap();
        namespaces
            .delete(&case.namespace(), &DeleteParams::default())
            .await
            .unwrap();
        while namespaces.get_opt(&case.namespace()).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(matches!(applied, Err(ApplyError::Foreign { .. })), "{applied:?}");
        assert!(
            matches!(deleted, Err(provisioner::DeleteError::Foreign { .. })),
            "{deleted:?}"
        );
        assert_eq!(live.metadata.deletion_timestamp, None);
        assert!(!live.metadata.labels.unwrap_or_default().contains_key("tenant"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn deletion_leaves_nothing_and_apply_waits_for_a_namespace_on_its_way_out() {
    with_tenant("delete", async |mut case| {
        case.apply(&case.manifests(), until_ready()).await.unwrap();
        let deleted = delete(&case.client, &case.tenant.id, &DeleteOptions::default(), &Silent)
            .await
            .unwrap();
        assert!(deleted.existed);
        assert_eq!(
            ownership(&case.client, &case.tenant.id).await.unwrap(),
            Ownership::Absent
        );

        without_workloads(&mut case);
        case.apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        let namespaces: Api<Namespace> = Api::all(case.client.clone());
        namespaces
            .delete(&case.namespace(), &DeleteParams::default())
            .await
            .unwrap();
        let applied = case
            .apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        assert_eq!(applied.to_string(), "13 created");
    })
    .await;
}

#[rstest]
#[case::image("ai-agents.local/probe:1", "ai-agents.local/none:1", Reason::Image, "none:1")]
#[case::pod_security(
    "allowPrivilegeEscalation: false",
    "allowPrivilegeEscalation: true",
    Reason::PodSecurity,
    "violates PodSecurity"
)]
#[case::quota("\"{{API_CPU_LIMIT}}\"", "\"5\"", Reason::Quota, "exceeded quota")]
#[case::scheduling(
    "      enableServiceLinks",
    "      nodeSelector: {no-such: node}\n      enableServiceLinks",
    Reason::Scheduling,
    "is not scheduled"
)]
#[case::probe(
    "/healthz\n              port: 8000",
    "/healthz\n              port: 8001",
    Reason::Probe,
    "has not passed its probe"
)]
#[case::crash(
    "          envFrom",
    "          command: [/probe, no-such-subcommand]\n          envFrom",
    Reason::Crash,
    "last line of its log: "
)]
#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn what_is_not_ready_is_named_with_its_reason(
    #[case] original: &'static str,
    #[case] replacement: &'static str,
    #[case] reason: Reason,
    #[case] message: &'static str,
) {
    with_tenant(&format!("{reason:?}").to_lowercase(), async move |case| {
        let mut manifests = case.manifests_with("61-deployment-api.yaml.hbs", |text| {
            let text = text.replace("\"{{IMAGE_API}}\"", "\"ai-agents.local/probe:1\"");
            assert!(text.contains(original), "{original}");
            text.replace(original, replacement)
        });
        manifests.retain(|manifest| manifest.template != "deployment-worker");
        let options = ApplyOptions {
            readiness: Some(Duration::from_secs(8)),
            ..ApplyOptions::default()
        };
        let Err(ApplyError::NotReady(not_ready)) = case.apply(&manifests, options).await else {
            panic!("ready")
        };
        eprintln!("{not_ready}");
        let missing = not_ready
            .missing
            .iter()
            .find(|missing| missing.object.kind == "Deployment")
            .unwrap();
        assert_eq!(missing.reason, reason, "{not_ready}");
        assert!(missing.detail.contains(message), "{not_ready}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn what_an_autoscaler_decided_is_not_taken_back() {
    with_tenant("scaled", async |mut case| {
        case.tenant.autoscaling.enabled = true;
        let manifests = case.manifests();
        case.apply(&manifests, until_ready()).await.unwrap();
        let deployments: Api<Deployment> = Api::namespaced(case.client.clone(), &case.namespace());
        // As the autoscaler does: by the subresource that it writes.
        let two = Patch::Merge(json!({"spec": {"replicas": 2}}));
        let parameters = PatchParams::default();
        deployments
            .patch_scale("ai-agents-worker", &parameters, &two)
            .await
            .unwrap();
        let again = case.apply(&manifests, until_ready()).await.unwrap();
        assert_eq!(again.to_string(), format!("{} unchanged", manifests.len()));
        let scale = deployments.get_scale("ai-agents-worker").await.unwrap();
        assert_eq!(scale.spec.unwrap().replicas, Some(2));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn an_object_that_a_finalizer_holds_is_named_with_who_takes_it_away() {
    with_tenant("held", async |mut case| {
        without_workloads(&mut case);
        case.apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        let settings: Api<ConfigMap> = Api::namespaced(case.client.clone(), &case.namespace());
        let held =
            serde_json::from_value(json!({"metadata": {"name": "keep", "finalizers": ["example.org/hold"]}}));
        settings
            .create(&PostParams::default(), &held.unwrap())
            .await
            .unwrap();
        let options = DeleteOptions {
            deadline: Duration::from_secs(10),
        };
        let error = delete(&case.client, &case.tenant.id, &options, &Silent).await;
        let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        settings
            .patch("keep", &PatchParams::default(), &released)
            .await
            .unwrap();
        let error = error.unwrap_err().to_string();
        let line = format!(
            "ConfigMap keep in {}: finalizer example.org/hold (taken away by the controller of example.org)",
            case.namespace()
        );
        assert!(error.contains(&line), "{error}");
    })
    .await;
}

/// The rules of platform admins, under names of this test's own, for as long as the test runs.
async fn grant_platform_admin(case: &Case, name: &str) -> [Api<DynamicObject>; 2] {
    let manifests = render_platform(&Platform::default(), &Templates::embedded_platform()).unwrap();
    let mut apis = Vec::new();
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        let manifest = manifests
            .iter()
            .find(|manifest| manifest.kind.kind == kind)
            .unwrap();
        let mut object = manifest.object.clone();
        object.metadata.name = Some(name.to_owned());
        if kind == "ClusterRoleBinding" {
            object.data["roleRef"]["name"] = json!(name);
            object.data["subjects"][0]["name"] = json!(name);
        }
        let api: Api<DynamicObject> = Api::all_with(case.client.clone(), &manifest.kind.resource());
        api.create(&PostParams::default(), &object).await.unwrap();
        apis.push(api);
    }
    apis.try_into().unwrap_or_else(|_| panic!("two kinds"))
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_platform_admin_may_make_and_remove_tenants() {
    with_tenant("admin", async |case| {
        let name = case.namespace();
        let grants = grant_platform_admin(&case, &name).await;
        let context = std::env::var("CONFORMANCE_TEST_CLUSTER").unwrap();
        let mut config = connect(&ConnectOptions {
            kubeconfig: None,
            context: Some(context),
        })
        .await
        .unwrap()
        .config;
        config.auth_info.impersonate = Some("prov-test".to_owned());
        config.auth_info.impersonate_groups = Some(vec![name.clone()]);
        let client = Client::try_from(config).unwrap();
        let made = apply(
            &client,
            &case.manifests(),
            &case.tenant.id,
            &until_ready(),
            &Silent,
        )
        .await;
        let again = apply(
            &client,
            &case.manifests(),
            &case.tenant.id,
            &until_ready(),
            &Silent,
        )
        .await;
        for manifest in case
            .manifests()
            .iter()
            .filter(|manifest| manifest.kind.plural.starts_with("role"))
        {
            let api: Api<DynamicObject> =
                Api::namespaced_with(case.client.clone(), &name, &manifest.kind.resource());
            api.delete(manifest.name(), &DeleteParams::default())
                .await
                .unwrap();
        }
        let mended = apply(
            &client,
            &case.manifests(),
            &case.tenant.id,
            &until_ready(),
            &Silent,
        )
        .await;
        let within = Duration::from_secs(20);
        let registered = register(&client, &case.tenant, &Silent, within).await;
        let removed = delete(&client, &case.tenant.id, &DeleteOptions::default(), &Silent).await;
        let shared = &case.tenant.shared_services;
        let purged = purge(&client, shared, &case.tenant.id, &Silent, within).await;
        for api in grants {
            api.delete(&name, &DeleteParams::default()).await.unwrap();
        }
        assert_eq!(made.unwrap().to_string(), "15 created");
        assert_eq!(again.unwrap().to_string(), "15 unchanged");
        assert_eq!(mended.unwrap().to_string(), "2 created, 13 unchanged");
        assert_eq!(registered.unwrap().role, Change::Created);
        assert!(removed.unwrap().existed);
        assert!(purged.unwrap().role);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn the_namespace_that_apply_makes_is_recorded_as_applied() {
    with_tenant("recorded", async |mut case| {
        without_workloads(&mut case);
        case.apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        let namespace = case.live(&case.manifests()[0]).await;
        let entries = namespace.metadata.managed_fields.unwrap_or_default();
        let ours = entries
            .iter()
            .filter(|entry| entry.manager.as_deref() == Some("ai-agents-provisioner"));
        let ours: Vec<Option<&str>> = ours.map(|entry| entry.operation.as_deref()).collect();
        assert_eq!(ours, [Some("Apply")]);

        case.tenant.name = Some("Another name".parse().unwrap());
        case.apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        let namespace = case.live(&case.manifests()[0]).await;
        assert_eq!(
            namespace.metadata.annotations.unwrap_or_default()["ai-agents-platform/tenant-name"],
            "Another name"
        );
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn two_applies_at_once_do_no_harm() {
    with_tenant("twice", async |mut case| {
        without_workloads(&mut case);
        let manifests = case.manifests();
        let both = futures::join!(
            case.apply(&manifests, ApplyOptions::default()),
            case.apply(&manifests, ApplyOptions::default())
        );
        both.0.unwrap();
        both.1.unwrap();
        let after = case.apply(&manifests, ApplyOptions::default()).await.unwrap();
        assert_eq!(after.to_string(), "13 unchanged");
    })
    .await;
}
