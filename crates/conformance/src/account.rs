//! A tenant's own account, and the one that its namespace has by default: a token, which the API server takes for that account and no
//! other, and that the rights of the tenant's own are in force.

use crate::access::{Access, Resource, ask};
use crate::cluster::{ANSWER, user};
use crate::context::Context;
use crate::error::{HarnessError, within};
use crate::stage::Site;
use crate::verdict::{Control, Observation, Observed};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use provisioner::TenantId;
use std::time::Duration;

/// How long the minted token lives: the shortest that the API server grants.
const TOKEN_SECONDS: i64 = 600;
/// How long a binding may take until the authorizer knows it.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(250);
/// The account that Kubernetes makes in every namespace.
pub const DEFAULT: &str = "default";

/// What the API server calls the tenant's account.
pub fn name(tenant: &TenantId) -> String {
    username(&tenant.namespace(), &format!("sa-{tenant}"))
}

/// What it calls an account (Kubernetes, "Authenticating", "Service account tokens").
pub fn username(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// A client of the tenant's account, which the API server takes for that account.
///
/// # Errors
/// No token, or one that is somebody else's.
pub async fn act_as(cx: &Context, tenant: &TenantId) -> Result<kube::Client, HarnessError> {
    act_as_account(cx, &tenant.namespace(), &format!("sa-{tenant}")).await
}

/// A client of the account that every pod of the tenant's namespace runs as which names none. Kubernetes makes it, and it is granted
/// nothing but what broad groups are.
///
/// # Errors
/// As for [`act_as`].
pub async fn act_as_default(cx: &Context, tenant: &TenantId) -> Result<kube::Client, HarnessError> {
    act_as_account(cx, &tenant.namespace(), DEFAULT).await
}

/// A client of any account.
///
/// # Errors
/// As for [`act_as`].
pub async fn act_as_account(
    cx: &Context,
    namespace: &str,
    account: &str,
) -> Result<kube::Client, HarnessError> {
    let token = mint(&cx.site.cluster.client, namespace, account).await?;
    let client = cx.site.cluster.client_with_token(token)?;
    identity(&client, &username(namespace, account)).await?;
    Ok(client)
}

/// A tenant's account lists pods in its own namespace, soon after the binding was made.
pub async fn own_control(client: &kube::Client, tenant: &TenantId, site: &Site) -> Control {
    let namespace = tenant.namespace();
    let what = format!("{} lists pods in {namespace}", name(tenant));
    let access = Access::new("list", Resource::core("pods"), Some(&namespace), "");
    let deadline = tokio::time::Instant::now() + IN_FORCE_WITHIN;
    loop {
        let observation = ask(client, &access, site).await;
        if matches!(observation, Observation::Reached(_)) || tokio::time::Instant::now() > deadline {
            return Control::reached(&Observed { what, observation });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A token for an account.
async fn mint(client: &kube::Client, namespace: &str, account: &str) -> Result<String, HarnessError> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec {
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest {
        spec,
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let minted = accounts.create_token_request(account, &params, &request);
    let minted = within(
        ANSWER,
        format!("mint a token for serviceaccount {account} in namespace {namespace}"),
        minted,
    )
    .await?;
    minted
        .status
        .map(|status| status.token)
        .ok_or_else(|| HarnessError::new(format!("no token came for {account}")))
}

/// The token is that account's: anybody else's would make every answer worthless.
async fn identity(client: &kube::Client, expected: &str) -> Result<(), HarnessError> {
    let found = user(client).await?;
    if found == expected {
        return Ok(());
    }
    Err(HarnessError::new(format!(
        "the minted token is {found}'s, expected {expected}'s"
    )))
}
