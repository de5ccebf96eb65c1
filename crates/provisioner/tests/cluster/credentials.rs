//! Credentials on a real cluster: server-side apply and field managers as Kubernetes has them.

use super::{Case, with_tenant, without_workloads};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use provisioner::{ApplyOptions, Manifest};
use serde_json::json;
use std::collections::BTreeMap;

const KEYS: [(&str, usize); 3] = [
    ("POSTGRESQL_PASSWORD", 48),
    ("REDIS_PASSWORD", 48),
    ("WEBHOOK_SECRET", 64),
];

fn secrets(case: &Case) -> Api<Secret> {
    Api::namespaced(case.client.clone(), &case.namespace())
}

pub(super) async fn values(case: &Case) -> BTreeMap<String, ByteString> {
    let secret = secrets(case).get("ai-agents-credentials").await.unwrap();
    secret.data.unwrap_or_default()
}

/// The manifests with a value of the template's own for one key.
fn with_value(case: &Case, value: &str) -> Vec<Manifest> {
    case.manifests_with("51-secret-credentials.yaml.hbs", |text| {
        text + &format!("stringData:\n  REDIS_PASSWORD: {value}\n")
    })
}

async fn applied(case: &Case, manifests: &[Manifest]) -> String {
    let applied = case.apply(manifests, ApplyOptions::default()).await;
    applied.unwrap().to_string()
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn values_are_kept_and_only_what_is_missing_is_made() {
    with_tenant("kept", async |mut case| {
        without_workloads(&mut case);
        let manifests = case.manifests();
        assert_eq!(applied(&case, &manifests).await, "13 created");
        let first = values(&case).await;
        let seen: Vec<(&str, usize)> = first
            .iter()
            .map(|(key, value)| (key.as_str(), value.0.len()))
            .collect();
        assert_eq!(seen, KEYS);
        let before = case.specs().await;
        assert_eq!(applied(&case, &manifests).await, "13 unchanged");
        assert_eq!(case.specs().await, before);
        assert_eq!(values(&case).await, first);

        let gone = Patch::Merge(json!({"data": {"REDIS_PASSWORD": null}}));
        secrets(&case)
            .patch("ai-agents-credentials", &PatchParams::default(), &gone)
            .await
            .unwrap();
        assert_eq!(applied(&case, &manifests).await, "1 changed, 12 unchanged");
        let mut second = values(&case).await;
        assert_ne!(
            second
                .insert("REDIS_PASSWORD".to_owned(), first["REDIS_PASSWORD"].clone())
                .unwrap(),
            first["REDIS_PASSWORD"]
        );
        assert_eq!(second, first);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_value_of_the_template_holds_for_as_long_as_the_template_has_it() {
    with_tenant("override", async |mut case| {
        without_workloads(&mut case);
        let (standard, chosen, other) = (
            case.manifests(),
            with_value(&case, "chosen"),
            with_value(&case, "other"),
        );
        applied(&case, &standard).await;
        let generated = values(&case).await;
        // Over a value that was generated, over one of its own, and back.
        for (manifests, value) in [(&chosen, "chosen"), (&other, "other"), (&chosen, "chosen")] {
            assert_eq!(
                applied(&case, manifests).await,
                "1 changed, 12 unchanged",
                "{value}"
            );
            let mut now = values(&case).await;
            let held = now.insert("REDIS_PASSWORD".to_owned(), generated["REDIS_PASSWORD"].clone());
            assert_eq!(held.unwrap().0, value.as_bytes());
            assert_eq!(now, generated);
            assert_eq!(applied(&case, manifests).await, "13 unchanged", "{value}");
        }
        assert_eq!(applied(&case, &standard).await, "1 changed, 12 unchanged");
        let now = values(&case).await;
        assert_eq!(now["REDIS_PASSWORD"].0.len(), 48);
        assert_eq!(now["WEBHOOK_SECRET"], generated["WEBHOOK_SECRET"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_template_may_bring_a_value_from_the_first_apply_on() {
    with_tenant("brought", async |mut case| {
        without_workloads(&mut case);
        let chosen = with_value(&case, "chosen");
        assert_eq!(applied(&case, &chosen).await, "13 created");
        let values = values(&case).await;
        assert_eq!(values["REDIS_PASSWORD"].0, b"chosen");
        assert_eq!(values.len(), 3);
        assert_eq!(applied(&case, &chosen).await, "13 unchanged");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_value_that_somebody_set_is_a_conflict_that_shows_neither() {
    with_tenant("theirs", async |mut case| {
        without_workloads(&mut case);
        applied(&case, &with_value(&case, "chosen")).await;
        let theirs = Patch::Merge(json!({"stringData": {"REDIS_PASSWORD": "theirs"}}));
        let edit = PatchParams {
            field_manager: Some("kubectl-edit".to_owned()),
            ..PatchParams::default()
        };
        secrets(&case)
            .patch("ai-agents-credentials", &edit, &theirs)
            .await
            .unwrap();
        let error = case
            .apply(&with_value(&case, "chosen"), ApplyOptions::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(
                ".data.REDIS_PASSWORD is (hidden), set by \"kubectl-edit\"; the templates say (hidden)"
            ),
            "{error}"
        );
        // A template without a value has none to insist on.
        assert_eq!(applied(&case, &case.manifests()).await, "13 unchanged");
        assert_eq!(values(&case).await["REDIS_PASSWORD"].0, b"theirs");
    })
    .await;
}
