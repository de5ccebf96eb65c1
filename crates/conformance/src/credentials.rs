//! Tenants' own credentials, as their workloads have them: from Secrets in their namespaces, read through the API server. Never an
//! administrator's: what those may do says nothing about tenants.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::settings::{SecretRef, Settings};
use k8s_openapi::api::core::v1::Secret as Object;
use kube::api::Api;
pub use probe::protocol::Secret;
use provisioner::TenantId;

/// What a tenant authenticates with. Each by itself: where one is missing, the other may still be used.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The password of its role in PostgreSQL.
    pub postgresql: Result<Secret, HarnessError>,
    /// The password of its user in Redis.
    pub redis: Result<Secret, HarnessError>,
}

/// Both of a tenant.
pub async fn of(client: &kube::Client, tenant: &TenantId, settings: &Settings) -> Credentials {
    let (postgresql, redis) = futures::join!(
        read(client, tenant, &settings.postgresql.secret),
        read(client, tenant, &settings.redis.secret),
    );
    Credentials { postgresql, redis }
}

/// One value of a Secret in a tenant's namespace, as it is there.
///
/// # Errors
/// The Secret or its key is missing, the value is empty or no text, or the API server does not give it out.
pub async fn read(client: &kube::Client, tenant: &TenantId, of: &SecretRef) -> Result<Secret, HarnessError> {
    let SecretRef { name, key } = of;
    let namespace = tenant.namespace();
    let place = format!("secret {name} in namespace {namespace}");
    let missing = |what: String| {
        HarnessError::new(what).hint(format!(
            "provisioner apply --tenant-id {tenant} makes what is missing in it, and registers the tenant with PostgreSQL and Redis; where an application has a Secret of its own, name it in the settings"
        ))
    };
    let objects = Api::<Object>::namespaced(client.clone(), &namespace);
    let found = within(ANSWER, format!("get {place}"), objects.get_opt(name)).await;
    let found = found.map_err(|error| error.hint("a run needs to get secrets in the tenants' namespaces"))?;
    let Some(found) = found else {
        return Err(missing(format!("{place}: there is none")));
    };
    let value = found.data.and_then(|mut data| data.remove(key));
    let Some(value) = value else {
        return Err(missing(format!("{place}: it has no key {key}")));
    };
    match String::from_utf8(value.0) {
        Ok(text) if !text.is_empty() => Ok(Secret::new(text)),
        _ => Err(
            HarnessError::new(format!("{place}: the value of {key} is empty, or no text")).hint(format!(
                "delete the key; then provisioner apply --tenant-id {tenant} makes it anew"
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{ok, refuse, respond};
    use axum::response::Response;
    use rstest::rstest;
    use serde_json::json;

    fn reference() -> SecretRef {
        SecretRef {
            name: "s".into(),
            key: "K".into(),
        }
    }

    fn secret(data: &serde_json::Value) -> Response {
        ok(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "data": data }))
    }

    async fn answered(
        script: impl Fn() -> Response + Clone + Send + Sync + 'static,
    ) -> Result<Secret, HarnessError> {
        let server = respond(move |asked| {
            assert_eq!(asked.path, "/api/v1/namespaces/ai-agents-a/secrets/s");
            script()
        })
        .await;
        read(&server.client(), &TenantId::try_from("a").unwrap(), &reference()).await
    }

    #[tokio::test]
    async fn the_value_is_read_as_it_is_and_not_shown() {
        let found = answered(|| secret(&json!({ "K": "aHVudGVyMg==" })))
            .await
            .unwrap();
        assert_eq!(found.expose(), "hunter2");
        assert_eq!(format!("{found:?}"), "[redacted]");
    }

    #[rstest]
    #[case::no_secret(|| refuse(404, "NotFound", "secrets \"s\" not found"), "there is none", "provisioner apply --tenant-id a")]
    #[case::no_key(|| secret(&json!({ "k": "eA==" })), "it has no key K", "provisioner apply --tenant-id a")]
    #[case::no_data(|| secret(&json!(null)), "it has no key K", "provisioner apply --tenant-id a")]
    #[case::empty(|| secret(&json!({ "K": "" })), "the value of K is empty", "delete the key")]
    #[case::no_text(|| secret(&json!({ "K": "/w==" })), "the value of K is empty, or no text", "delete the key")]
    #[case::forbidden(|| refuse(403, "Forbidden", "no"), "get secret s in namespace ai-agents-a", "needs to get secrets")]
    #[tokio::test]
    async fn what_is_missing_is_named_with_the_command_that_makes_it(
        #[case] script: fn() -> Response,
        #[case] what: &str,
        #[case] hint: &str,
    ) {
        let error = answered(script).await.unwrap_err();
        assert!(error.what.contains(what), "{error}");
        assert!(error.hint.unwrap().contains(hint));
    }
}
