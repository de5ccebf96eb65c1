//! The platform's objects on a real cluster. Each test has a namespace of its own, `platform-test-…`, in place of the shared
//! services', and removes it. The objects in the cluster are those that everybody shares: they are left as the templates have them.

use super::connected;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, ObjectMeta};
use kube::{Api, Client};
use provisioner::platform::{self, Difference, State};
use provisioner::{
    Applied, ApplyError, ApplyOptions, Manifest, Platform, Silent, Templates, render_platform,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::Mutex;

/// What one test adds to the cluster another would prune.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[derive(Clone)]
struct Case {
    client: Client,
    settings: Platform,
}

async fn with_namespace<F: Future<Output = ()> + Send + 'static>(name: &str, test: impl FnOnce(Case) -> F) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let client = connected().await;
    let name = format!("platform-test-{name}-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let mut settings = Platform::default();
    settings.shared_services.namespace = name.parse().unwrap();
    let case = Case { client, settings };
    let outcome = tokio::spawn(test(case.clone())).await;
    let restored = case.apply(&case.standard()).await;
    let at_once = DeleteParams::default();
    namespaces.delete(&name, &at_once).await.unwrap();
    while namespaces.get_opt(&name).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic.into_panic());
    }
    restored.expect("the standard templates can be applied");
}

impl Case {
    fn namespace(&self) -> &str {
        self.settings.shared_services.namespace.as_str()
    }

    fn standard(&self) -> Vec<Manifest> {
        render_platform(&self.settings, &Templates::embedded_platform()).unwrap()
    }

    fn changed(&self, files: &[(&str, String)]) -> Vec<Manifest> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let templates = Templates::embedded_platform()
            .changed_by(directory.path())
            .unwrap();
        render_platform(&self.settings, &templates).unwrap()
    }

    async fn apply(&self, manifests: &[Manifest]) -> Result<Applied, ApplyError> {
        self.apply_with(manifests, &ApplyOptions::default()).await
    }

    async fn force(&self) -> Result<Applied, ApplyError> {
        let options = ApplyOptions {
            force_conflicts: true,
            ..ApplyOptions::default()
        };
        self.apply_with(&self.standard(), &options).await
    }

    async fn apply_with(
        &self,
        manifests: &[Manifest],
        options: &ApplyOptions,
    ) -> Result<Applied, ApplyError> {
        platform::apply(&self.client, &self.settings, manifests, options, &Silent).await
    }

    async fn diff(&self) -> Difference {
        platform::diff(&self.client, &self.settings, &self.standard(), &Silent)
            .await
            .unwrap()
    }

    fn policies(&self) -> Api<NetworkPolicy> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    /// A pod that no node takes; by its labels policies select it all the same.
    async fn pod(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace());
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeSelector": {"no-such": "node"}, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "ai-agents.local/probe:1"}],
            },
        });
        let pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }

    /// What `kubectl edit` does.
    async fn edit(&self, name: &str, change: &Value) {
        let parameters = PatchParams {
            field_manager: Some("kubectl-edit".to_owned()),
            ..PatchParams::default()
        };
        self.policies()
            .patch(name, &parameters, &Patch::Merge(change))
            .await
            .unwrap();
    }

    /// Every object's version: a write changes it.
    async fn versions(&self) -> Vec<Option<String>> {
        let mut versions = Vec::new();
        for manifest in self.standard() {
            let resource = manifest.kind.resource();
            let api: Api<DynamicObject> = match &manifest.object.metadata.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            versions.push(api.get(manifest.name()).await.unwrap().metadata.resource_version);
        }
        versions
    }
}

/// What differs, as text.
fn differing(difference: &Difference) -> Vec<String> {
    let objects = difference.objects.iter().filter(|it| it.state != State::Same);
    objects
        .flat_map(|it| match &it.state {
            State::Change(changes) | State::Foreign { changes, .. } => changes
                .iter()
                .map(|change| format!("{} {change}", it.object.name))
                .collect(),
            other => vec![format!("{} {other:?}", it.object.name)],
        })
        .collect()
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn the_platform_is_applied_and_the_second_apply_writes_nothing() {
    with_namespace("twice", async |case| {
        let before = case.diff().await;
        let created = before.objects.iter().filter(|it| it.state == State::Create);
        assert!(created.count() >= 4, "{before}");
        case.apply(&case.standard()).await.unwrap();
        let versions = case.versions().await;
        let again = case.apply(&case.standard()).await.unwrap();
        assert_eq!(again.to_string(), "18 unchanged");
        assert_eq!(case.versions().await, versions);
        let after = case.diff().await;
        assert!(after.is_same(), "{after}");
        assert_eq!(case.versions().await, versions);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn the_pods_that_become_isolated_are_named_and_those_that_were_before_are_not() {
    with_namespace("pods", async |case| {
        case.pod("backup").await;
        case.pod("isolated").await;
        let theirs = json!({
            "metadata": {"name": "theirs"},
            "spec": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["backup"]}]}},
        });
        let theirs = serde_json::from_value(theirs).unwrap();
        case.policies().create(&PostParams::default(), &theirs).await.unwrap();
        let isolated = |difference: &Difference| -> Vec<(String, bool)> {
            difference.pods.iter().map(|pod| (pod.pod.clone(), pod.becomes_isolated())).collect()
        };
        let named = |backup| vec![("backup".to_owned(), backup), ("isolated".to_owned(), false)];
        let before = case.diff().await;
        assert_eq!(isolated(&before), named(true));
        case.apply(&case.standard()).await.unwrap();
        let after = case.diff().await;
        assert_eq!(isolated(&after), named(false));
        // What was announced is what is in force.
        let then: Vec<_> = before.pods.into_iter().map(|pod| pod.then).collect();
        let now: Vec<_> = after.pods.into_iter().map(|pod| pod.now).collect();
        assert_eq!(then, now);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn an_edit_is_shown_with_its_manager_refused_as_a_conflict_and_taken_back_by_force() {
    with_namespace("edit", async |case| {
        case.apply(&case.standard()).await.unwrap();
        case.edit("default-deny-ingress", &json!({"spec": {"ingress": [{}]}})).await;
        case.edit("allow-same-namespace", &json!({"spec": {"podSelector": {"matchLabels": {"app": "x"}}}})).await;
        let edited = case.diff().await;
        assert_eq!(
            differing(&edited),
            [
                "default-deny-ingress .spec.ingress: on the cluster [{}] (set by \"kubectl-edit\"), in the template not set",
                "allow-same-namespace .spec.podSelector: on the cluster {\"matchLabels\":{\"app\":\"x\"}} (set by \"kubectl-edit\"), in the template {}",
            ]
        );
        let versions = case.versions().await;
        let error = case.apply(&case.standard()).await.unwrap_err();
        let ApplyError::Conflicts(conflicts) = &error else {
            panic!("{error}")
        };
        let conflicts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        let namespace = case.namespace();
        assert_eq!(
            conflicts,
            [
                format!("NetworkPolicy default-deny-ingress in {namespace}: .spec.ingress is [{{}}], set by \"kubectl-edit\"; the templates say not set"),
                format!("NetworkPolicy allow-same-namespace in {namespace}: .spec.podSelector is {{\"matchLabels\":{{\"app\":\"x\"}}}}, set by \"kubectl-edit\"; the templates say {{}}"),
            ]
        );
        assert_eq!(case.versions().await, versions);
        assert_eq!(case.force().await.unwrap().to_string(), "2 changed, 16 unchanged");
        assert!(case.diff().await.is_same());
        assert_eq!(case.apply(&case.standard()).await.unwrap().to_string(), "18 unchanged");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn overrides_are_planted_and_taken_back_and_what_others_made_stays() {
    with_namespace("overrides", async |case| {
        let name = case.namespace().to_owned();
        let policy = |name: &str| {
            format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\n  namespace: \"{{{{SHARED_SERVICES_NAMESPACE}}}}\"\nspec:\n  podSelector: {{}}\n  policyTypes: [Ingress]\n  ingress: [{{}}]\n")
        };
        let role = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: {name}\nrules: []\n"
        );
        let planted = case.changed(&[
            ("clusterrole-extra.yaml.hbs", role),
            ("networkpolicy-database-open.yaml.hbs", policy("open")),
            ("networkpolicy-database-default-deny-ingress.yaml.hbs", policy("default-deny-ingress")),
            ("networkpolicy-database-allow-tenants-to-redis.delete", String::new()),
        ]);
        case.apply(&case.standard()).await.unwrap();
        let mut theirs = case.policies().get("default-deny-ingress").await.unwrap();
        theirs.metadata = ObjectMeta {
            name: Some("theirs".to_owned()),
            labels: theirs.metadata.labels,
            ..ObjectMeta::default()
        };
        case.policies().create(&PostParams::default(), &theirs).await.unwrap();

        let applied = case.apply(&planted).await.unwrap();
        assert_eq!(applied.to_string(), "2 created, 1 changed, 16 unchanged, 1 pruned");
        let drift = differing(&case.diff().await);
        let expected = [
            "default-deny-ingress .spec.ingress: on the cluster [{}], in the template not set".to_owned(),
            "allow-tenants-to-redis Create".to_owned(),
            format!("{name} Prune"),
            "open Prune".to_owned(),
        ];
        assert_eq!(drift, expected);
        let applied = case.apply(&case.standard()).await.unwrap();
        assert_eq!(applied.to_string(), "1 created, 1 changed, 16 unchanged, 2 pruned");
        let after = case.diff().await;
        assert!(after.is_same(), "{after}");
        assert!(case.policies().get("theirs").await.is_ok());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_policy_of_the_same_name_that_somebody_made_is_refused_and_taken_over_by_force() {
    with_namespace("foreign", async |case| {
        // The same values: without a look at the owner no conflict would tell.
        let theirs = json!({"metadata": {"name": "default-deny-ingress"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
        let theirs = serde_json::from_value(theirs).unwrap();
        let theirs = case.policies().create(&PostParams::default(), &theirs).await.unwrap();
        let error = case.apply(&case.standard()).await.unwrap_err();
        assert!(matches!(&error, ApplyError::Taken(taken) if taken.len() == 1), "{error}");
        let live = case.policies().get("default-deny-ingress").await.unwrap();
        assert_eq!(live.metadata.resource_version, theirs.metadata.resource_version);
        case.force().await.unwrap();
        assert!(case.diff().await.is_same());
    })
    .await;
}
