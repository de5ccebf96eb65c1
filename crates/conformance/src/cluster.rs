//! The cluster a run is pointed at: how it is reached, who we are there, whether it says of itself that it is a local one, and whether we
//! may test it at all.

use crate::error::{HarnessError, chain, within};
use crate::names::{INGRESS, INTERNET, LOCAL_CLUSTER};
use crate::pace::{Pace, PaceLayer};
use crate::retry::{Retries, patient};
use crate::settings::{Internet, Settings};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, ListParams, PostParams};
use kube::client::ClientBuilder;
use kube::config::AuthInfo;
use kube::{Client, Config};
use provisioner::{ConnectOptions, Connection};
use std::sync::Arc;
use std::time::Duration;

/// How long one answer of the API server may take.
pub const ANSWER: Duration = Duration::from_secs(15);
/// The enforcement canary covers at most so many nodes.
const MAX_NODES: usize = 5;

/// A cluster, reached and looked at.
pub struct Cluster {
    /// The client, paced, and patient with what passes.
    pub client: Client,
    /// What was asked again, by all clients.
    pub retries: Arc<Retries>,
    config: Config,
    /// How hard it may be asked, by all clients together.
    pub pace: Arc<Pace>,
    /// The kubeconfig context.
    pub context: String,
    /// The API server's address.
    pub server: String,
    /// Its version: `v1.34.4`.
    pub version: String,
    /// Who it takes us for.
    pub user: String,
    /// The uid of `kube-system`: the cluster's own identity.
    pub uid: String,
    /// The kind of local cluster it says it is, or why it is not one.
    pub local: Result<String, String>,
    /// The nodes that pods can be scheduled on, at most five.
    pub nodes: Vec<String>,
    /// The host on the internet that a local cluster's nodes name in an annotation.
    pub internet: Option<String>,
    /// The ingress that a local cluster's nodes name in an annotation: a URL of this machine's loopback, without a path.
    pub ingress: Option<String>,
}

/// Why a cluster is not tested.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig does not lead to it.
    #[error("{0}")]
    Configuration(HarnessError),
    /// It cannot be reached, or did not answer.
    #[error("{0}")]
    Unreachable(HarnessError),
    /// It is not local, and was not allowed.
    #[error("cluster {name} ({server}) is not a local one, and testing it was not allowed: {why}")]
    NotAllowed {
        /// Its name.
        name: String,
        /// Its address.
        server: String,
        /// What is missing to make it local.
        why: String,
    },
}

/// Connects to the cluster of the settings and looks at it.
///
/// # Errors
/// [`ClusterError::Configuration`] and [`ClusterError::Unreachable`].
pub async fn survey(settings: &Settings) -> Result<Cluster, ClusterError> {
    let options = ConnectOptions {
        kubeconfig: settings.cluster.kubeconfig.clone(),
        context: settings.cluster.context.clone(),
    };
    let connection = provisioner::connect(&options).await.map_err(|error| {
        let hint = error.hint();
        let error = HarnessError::new(chain(&error));
        ClusterError::Configuration(HarnessError { hint, ..error })
    })?;
    look(connection).await.map_err(ClusterError::Unreachable)
}

async fn look(connection: Connection) -> Result<Cluster, HarnessError> {
    let Connection {
        config,
        context,
        server,
        ..
    } = connection;
    let retries = Arc::new(Retries::default());
    // A handful of requests, before it is known whether it is a local one.
    let client = paced(&config, &Arc::new(Pace::local()), &retries)?;
    let reach = |error: HarnessError| {
        error.hint(format!("check that the cluster runs and that {server} can be reached from here: kubectl --context {context} version"))
    };
    let version = within(
        ANSWER,
        format!("ask {server} for its version"),
        client.apiserver_version(),
    )
    .await
    .map_err(reach)?;
    let user = user(&client).await?;
    let nodes = Api::<Node>::all(client.clone());
    let nodes = within(ANSWER, "list nodes", nodes.list(&ListParams::default()))
        .await?
        .items;
    let system = Api::<Namespace>::all(client.clone());
    let system = within(ANSWER, "get namespace kube-system", system.get("kube-system")).await?;
    let local = local(&server, &nodes);
    let pace = Arc::new(if local.is_ok() {
        Pace::local()
    } else {
        Pace::gentle()
    });
    Ok(Cluster {
        client: paced(&config, &pace, &retries)?,
        retries,
        config,
        pace,
        context,
        server,
        version: version.git_version,
        user,
        uid: system.metadata.uid.unwrap_or_default(),
        internet: local.is_ok().then(|| annotated(&nodes, INTERNET)).flatten(),
        ingress: local.is_ok().then(|| ingress(&nodes)).flatten(),
        local,
        nodes: schedulable(&nodes),
    })
}

fn paced(config: &Config, pace: &Arc<Pace>, retries: &Arc<Retries>) -> Result<Client, HarnessError> {
    let builder = ClientBuilder::try_from(config.clone())
        .map_err(|error| HarnessError::during("make a client", &error))?;
    let client = builder.with_layer(&PaceLayer(Arc::clone(pace))).build();
    // Outside of the pace: who waits to ask again holds nobody up.
    Ok(patient(client, Arc::clone(retries)))
}

impl Cluster {
    /// One that nobody looked at, for tests.
    #[cfg(test)]
    pub(crate) fn unseen(client: Client, config: Config) -> Self {
        Cluster {
            client,
            retries: Arc::new(Retries::none()),
            config,
            pace: Arc::new(Pace::local()),
            context: "scripted".to_owned(),
            server: "http://127.0.0.1".to_owned(),
            version: "v1.34.4".to_owned(),
            user: "tester".to_owned(),
            uid: "uid".to_owned(),
            local: Ok("scripted".to_owned()),
            nodes: vec!["node".to_owned()],
            internet: None,
            ingress: None,
        }
    }

    /// The settings with what this cluster brings itself.
    #[must_use]
    pub fn complete(&self, mut settings: Settings) -> Settings {
        let host = self.internet.as_ref().and_then(|host| host.parse().ok());
        settings.internet = settings.internet.or(host.map(Internet::on));
        let ingress = self.ingress.as_deref().map(|url| url.trim_end_matches('/'));
        settings.application.ingress = settings.application.ingress.or(ingress.map(ToOwned::to_owned));
        settings
    }

    /// A client for the same cluster with this bearer token and no other credentials, at the same pace.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn client_with_token(&self, token: String) -> Result<Client, HarnessError> {
        self.client_with(AuthInfo {
            token: Some(token.into()),
            ..AuthInfo::default()
        })
    }

    /// A client for the same cluster without any credentials, at the same pace.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn anonymous(&self) -> Result<Client, HarnessError> {
        self.client_with(AuthInfo::default())
    }

    fn client_with(&self, auth_info: AuthInfo) -> Result<Client, HarnessError> {
        let mut config = self.config.clone();
        // Headers may carry credentials too.
        config.headers.clear();
        config.auth_info = auth_info;
        paced(&config, &self.pace, &self.retries)
    }

    /// A client for the same cluster with our own credentials, which asks to be taken for this user and these groups.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client, HarnessError> {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(groups.iter().map(|group| (*group).to_owned()).collect());
        paced(&config, &self.pace, &self.retries)
    }
}

/// Who the API server takes this client for.
///
/// # Errors
/// It did not answer, or does not accept the credentials.
pub async fn user(client: &Client) -> Result<String, HarnessError> {
    let review = within(
        ANSWER,
        "ask the API server who we are (SelfSubjectReview)",
        identity(client),
    )
    .await?;
    review
        .username
        .ok_or_else(|| HarnessError::new("the API server named no user in its SelfSubjectReview"))
}

/// Whom the API server takes this client for, groups included.
///
/// # Errors
/// As the API server says.
pub async fn identity(client: &Client) -> Result<UserInfo, kube::Error> {
    let reviews = Api::<SelfSubjectReview>::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    Ok(review
        .status
        .and_then(|status| status.user_info)
        .unwrap_or_default())
}

/// The API of admission policies: there since Kubernetes 1.30, but for servers on which it was turned off
/// (<https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>).
const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// Whether the API server has ValidatingAdmissionPolicies. Asked of its discovery documents, which are open to whoever is authenticated.
///
/// # Errors
/// It did not answer.
pub async fn has_admission_policies(client: &Client) -> Result<bool, HarnessError> {
    let doing = format!("ask which kinds the server has in {ADMISSION}");
    let asked = async {
        match client.list_api_group_resources(ADMISSION).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            found => found.map(|list| list.resources),
        }
    };
    let kinds = within(ANSWER, doing, asked).await?;
    Ok(kinds
        .iter()
        .any(|kind| kind.name == "validatingadmissionpolicies"))
}

/// The kind of local cluster this is: an API on loopback, and every node says so, by the lab's annotation or kind's providerID. Never
/// the name. Otherwise what is missing.
fn local(server: &str, nodes: &[Node]) -> Result<String, String> {
    let host = server
        .parse::<http::Uri>()
        .ok()
        .and_then(|uri| uri.host().map(ToOwned::to_owned))
        .unwrap_or_default();
    if !on_loopback(&host) {
        return Err(format!("its API server {host} is not on loopback"));
    }
    let mut kinds: Vec<String> = Vec::new();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or("?");
        let annotation = annotated(std::slice::from_ref(node), LOCAL_CLUSTER);
        let provider = node
            .spec
            .as_ref()
            .and_then(|spec| spec.provider_id.as_deref())
            .unwrap_or_default();
        let kind = annotation.or_else(|| provider.starts_with("kind://").then(|| "kind".to_owned()));
        let kind = kind.ok_or_else(|| {
            format!("node {name} carries neither the annotation {LOCAL_CLUSTER} nor a providerID kind://")
        })?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        Err("it has no nodes".to_owned())
    } else {
        Ok(kinds.join(", "))
    }
}

fn on_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The ingress that the nodes name. One that is not `http://` and a host on loopback, with a port or without, is not taken: requests go
/// there, and nodes' annotations must not send them elsewhere.
fn ingress(nodes: &[Node]) -> Option<String> {
    let url = annotated(nodes, INGRESS)?;
    let authority: http::uri::Authority = url.strip_prefix("http://")?.parse().ok()?;
    let alone = !authority.as_str().contains('@') && on_loopback(authority.host());
    alone.then_some(url)
}

/// What the first node that has it says.
fn annotated(nodes: &[Node], annotation: &str) -> Option<String> {
    let value = |node: &Node| node.metadata.annotations.as_ref()?.get(annotation).cloned();
    nodes.iter().find_map(value)
}

fn schedulable(nodes: &[Node]) -> Vec<String> {
    let usable = nodes.iter().filter(|node| {
        let spec = node.spec.clone().unwrap_or_default();
        let taints = spec.taints.unwrap_or_default();
        let repels = taints.iter().any(|taint| taint.effect != "PreferNoSchedule");
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.is_some_and(|all| {
            all.iter()
                .any(|each| each.type_ == "Ready" && each.status == "True")
        });
        !spec.unschedulable.unwrap_or(false) && !repels && ready
    });
    let hostname = |node: &Node| {
        let label = node
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("kubernetes.io/hostname"));
        label.or(node.metadata.name.as_ref()).cloned()
    };
    usable.filter_map(hostname).take(MAX_NODES).collect()
}

/// Refuses a cluster that is neither local nor allowed.
///
/// # Errors
/// [`ClusterError::NotAllowed`].
pub fn gate(cluster: &Cluster, settings: &Settings) -> Result<(), ClusterError> {
    match &cluster.local {
        Err(why) if !settings.cluster.allow => Err(ClusterError::NotAllowed {
            name: settings.cluster_name.clone(),
            server: cluster.server.clone(),
            why: why.clone(),
        }),
        _ => Ok(()),
    }
}

/// Something the harness must be permitted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// The verb.
    pub verb: &'static str,
    /// The API group; empty for core.
    pub group: &'static str,
    /// The resource, with its subresource behind a slash.
    pub resource: &'static str,
}

/// What a run does itself, in all namespaces, since its own have names that are not known beforehand.
const OWN: &[(&str, &str, &[&str])] = &[
    ("", "nodes", &["list"]),
    ("", "namespaces", &["get", "list", "create", "delete"]),
    ("", "pods", &["get", "list", "watch", "create", "delete"]),
    ("", "pods/exec", &["get", "create"]),
    // To register tenants with PostgreSQL and Redis.
    ("", "pods/portforward", &["get", "create"]),
    ("", "configmaps", &["get", "list", "create", "delete"]),
    ("", "services", &["get"]),
    ("", "serviceaccounts", &["get"]),
    ("", "serviceaccounts/token", &["create"]),
    ("", "resourcequotas", &["list"]),
    ("apps", "deployments", &["get", "list", "create", "delete"]),
    ("batch", "jobs", &["get", "list", "create", "delete"]),
    (
        "networking.k8s.io",
        "networkpolicies",
        &["get", "list", "create", "delete"],
    ),
    ("discovery.k8s.io", "endpointslices", &["list"]),
    (
        "coordination.k8s.io",
        "leases",
        &["get", "list", "create", "update", "delete"],
    ),
];

/// What single checks need beside that: the check, and what it needs. A run goes on without.
pub const OPTIONAL: &[(&str, &str)] = &[
    ("RBAC-06", "impersonate on users"),
    ("PROV-05", "list on clusterrolebindings"),
    ("RBAC-15", "impersonate on users and groups"),
    (
        "APP-*",
        "get on secrets (the tenants' signing keys) and on pods/log",
    ),
];

/// What provisioning and deleting a tenant takes for every kind that a tenant consists of.
const PROVISIONING: [&str; 5] = ["get", "list", "create", "patch", "delete"];

/// Everything a run may need. Where it is not to provision its tenants it needs less; that is not told apart here.
pub fn permissions() -> Vec<Permission> {
    let own = OWN.iter().flat_map(|(group, resource, verbs)| {
        verbs.iter().map(move |verb| Permission {
            verb,
            group,
            resource,
        })
    });
    let tenant = provisioner::kinds::TENANT.iter().flat_map(|kind| {
        PROVISIONING.map(|verb| Permission {
            verb,
            group: kind.group,
            resource: kind.plural,
        })
    });
    let mut all: Vec<Permission> = own.chain(tenant).collect();
    all.push(Permission {
        verb: "list",
        group: "",
        resource: "events",
    });
    all.push(Permission {
        verb: "list",
        group: "apps",
        resource: "replicasets",
    });
    all.sort();
    all.dedup();
    all
}

/// Which of [`permissions`] we do not have.
///
/// # Errors
/// The API server did not answer.
pub async fn missing_permissions(client: &Client) -> Result<Vec<String>, HarnessError> {
    if allowed(client, "*", "*", "*").await? {
        return Ok(Vec::new());
    }
    let asked = permissions().into_iter().map(|wanted| async move {
        let answer = allowed(client, wanted.verb, wanted.group, wanted.resource).await?;
        Ok::<_, HarnessError>((!answer).then(|| format!("{} {}", wanted.verb, wanted.resource)))
    });
    let answers = futures::future::try_join_all(asked).await?;
    Ok(answers.into_iter().flatten().collect())
}

/// Whether this client may do something in all namespaces, by the API server's own word.
///
/// # Errors
/// It did not answer.
pub async fn allowed(client: &Client, verb: &str, group: &str, resource: &str) -> Result<bool, HarnessError> {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        ..ResourceAttributes::default()
    };
    permitted(client, attributes).await
}

/// Whether this client may do exactly this, by the API server's own word.
///
/// # Errors
/// It did not answer.
pub async fn permitted(client: &Client, attributes: ResourceAttributes) -> Result<bool, HarnessError> {
    let word = |field: &Option<String>| field.clone().unwrap_or_default();
    let doing = format!(
        "ask whether we may {} {} (SelfSubjectAccessReview)",
        word(&attributes.verb),
        word(&attributes.resource)
    );
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        ..Default::default()
    };
    let review = SelfSubjectAccessReview {
        spec,
        ..Default::default()
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let answer = within(ANSWER, &doing, reviews.create(&PostParams::default(), &review)).await?;
    match answer.status {
        None => Err(HarnessError::new(format!("{doing}: the answer has no status"))),
        // Whether an authorizer that failed would have said yes is not known.
        Some(SubjectAccessReviewStatus {
            allowed: false,
            evaluation_error: Some(error),
            ..
        }) => Err(HarnessError::new(format!("{doing}: {error}"))),
        Some(status) => Ok(status.allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn node(annotations: &Value, provider: &str) -> Node {
        let metadata = json!({ "name": "n", "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "providerID": provider } })).unwrap()
    }
    fn lab() -> Node {
        node(&json!({ LOCAL_CLUSTER: "lab" }), "")
    }
    fn kind() -> Node {
        node(&json!({}), "kind://docker/kind/control-plane")
    }
    fn cloud() -> Node {
        node(&json!({}), "aws:///eu-central-1a/i-0")
    }

    #[rstest]
    #[case::lab("https://127.0.0.1:16443", vec![lab()], Some("lab"))]
    #[case::kind("https://127.0.0.1:40000", vec![kind(), kind()], Some("kind"))]
    #[case::by_name("https://localhost:6443", vec![kind()], Some("kind"))]
    #[case::six("https://[::1]:6443", vec![lab()], Some("lab"))]
    #[case::a_tunnel_to_the_cloud("https://127.0.0.1:6443", vec![cloud()], None)]
    #[case::one_node_of_another_kind("https://127.0.0.1:6443", vec![lab(), cloud()], None)]
    #[case::marked_but_far_away("https://10.0.0.1:6443", vec![lab()], None)]
    #[case::no_nodes("https://127.0.0.1:6443", vec![], None)]
    #[case::a_name_that_only_begins_so("https://localhost.example.com", vec![kind()], None)]
    fn local_is_what_says_so_itself(
        #[case] server: &str,
        #[case] nodes: Vec<Node>,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(local(server, &nodes).ok().as_deref(), expected);
    }

    #[rstest]
    #[case::lab("http://127.0.0.1:16080", true)]
    #[case::without_port("http://127.0.0.1", true)]
    #[case::by_name("http://localhost:16080", true)]
    #[case::six("http://[::1]:16080", true)]
    #[case::encrypted("https://127.0.0.1:16080", false)]
    #[case::with_path("http://127.0.0.1:16080/", false)]
    #[case::with_query("http://127.0.0.1:16080?x", false)]
    #[case::far_away("http://203.0.113.10:80", false)]
    #[case::a_name_that_only_begins_so("http://localhost.example.com", false)]
    #[case::as_somebody("http://127.0.0.1:80@203.0.113.10", false)]
    #[case::on_loopback_as_somebody("http://user@127.0.0.1:80", false)]
    #[case::no_host("http://", false)]
    #[case::no_url("ingress-nginx", false)]
    fn an_ingress_is_taken_on_loopback_alone(#[case] said: &str, #[case] taken: bool) {
        let nodes = [kind(), node(&json!({ INGRESS: said }), "")];
        assert_eq!(ingress(&nodes).as_deref(), taken.then_some(said));
        assert_eq!(ingress(&[kind()]), None);
    }

    #[test]
    fn what_is_missing_to_be_local_is_named() {
        assert!(
            local("https://127.0.0.1:1", &[cloud()])
                .unwrap_err()
                .contains("node n carries neither")
        );
        assert!(
            local("https://10.1.2.3:1", &[lab()])
                .unwrap_err()
                .contains("10.1.2.3 is not on loopback")
        );
    }

    #[test]
    fn a_tainted_or_unready_node_takes_no_canary() {
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let node = |name: &str, spec: Value, conditions: &Value| -> Node {
            let object =
                json!({ "metadata": { "name": name }, "spec": spec, "status": { "conditions": conditions } });
            serde_json::from_value(object).unwrap()
        };
        let nodes = [
            node("good", json!({}), &ready),
            node(
                "tainted",
                json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] }),
                &ready,
            ),
            node("cordoned", json!({ "unschedulable": true }), &ready),
            node(
                "down",
                json!({}),
                &json!([{ "type": "Ready", "status": "False" }]),
            ),
        ];
        assert_eq!(schedulable(&nodes), ["good"]);
    }
}
