//! One request to the API server, made to see whether it is let through. Real requests, since an access review may say something else than
//! the authorizer does. Whatever could change something is a dry run, unless it says otherwise, at a name that only the run uses. What an
//! answer means for a promise is left to the checks.

use crate::cluster::ANSWER;
use crate::denial::{Denial, classify};
use crate::error::chain;
use crate::manifest::{self, Mark};
use crate::names::RUN_ID;
use crate::probing::combine;
use crate::stage::Site;
use crate::verdict::{Observation, Observed};
use futures::future::join_all;
use http::Request;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// The verbs of a tenant's Role.
pub const VERBS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];

/// The resources of a tenant's Role.
pub const TENANT_RESOURCES: [Resource; 5] = [
    Resource::core("pods"),
    Resource::core("services"),
    Resource::core("configmaps"),
    Resource::core("secrets"),
    Resource::of("apps/v1", "deployments"),
];

/// Subresources, with the verbs that use them. A right to a resource is none to these (Kubernetes, "Using RBAC Authorization", "Referring to
/// resources").
pub const SUBRESOURCES: [(&[&str], Resource); 15] = [
    // Websockets connect by get, and needed no more than that before Kubernetes 1.35 (kubernetes/kubernetes#78741).
    (&["get", "create"], Resource::core("pods/exec")),
    (&["get", "create"], Resource::core("pods/attach")),
    (&["get", "create"], Resource::core("pods/portforward")),
    (&["get", "create"], Resource::core("pods/proxy")),
    (&["get"], Resource::core("pods/log")),
    (&["create"], Resource::core("pods/eviction")),
    (&["create"], Resource::core("pods/binding")),
    (&["patch"], Resource::core("pods/ephemeralcontainers")),
    (&["patch"], Resource::core("pods/resize")),
    (&["patch"], Resource::core("pods/status")),
    (&["get", "create"], Resource::core("services/proxy")),
    (&["patch"], Resource::core("services/status")),
    (&["get", "patch"], Resource::of("apps/v1", "deployments/scale")),
    (&["patch"], Resource::of("apps/v1", "deployments/status")),
    (&["create"], Resource::core("serviceaccounts/token")),
];

/// Between two rounds of requests.
const AGAIN: Duration = Duration::from_secs(1);

/// A resource of the API, or a subresource: `pods/exec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Its API: `apps/v1`, `v1`.
    api: &'static str,
    /// Its name in paths and rules.
    pub name: &'static str,
}

impl Resource {
    /// One of the core group.
    pub const fn core(name: &'static str) -> Self {
        Resource { api: "v1", name }
    }

    /// One of another group.
    pub const fn of(api: &'static str, name: &'static str) -> Self {
        Resource { api, name }
    }

    /// Its API group; empty for core.
    pub fn group(self) -> &'static str {
        self.api.split_once('/').map_or("", |(group, _)| group)
    }

    fn prefix(self) -> String {
        let root = if self.group().is_empty() { "api" } else { "apis" };
        format!("/{root}/{}", self.api)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.name)
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Access<'a> {
    /// The verb, as in rules: `get`, `deletecollection`.
    pub verb: &'static str,
    /// On what.
    pub resource: Resource,
    /// Where; nowhere for what is not in a namespace.
    pub namespace: Option<&'a str>,
    /// Which one, for the verbs that name one and for subresources.
    pub name: &'a str,
    /// What to create or write, or the options of a deletion. An empty one is refused for its content by a server that lets the request
    /// through.
    pub body: Value,
    /// Whether a change is made, and not only tried.
    pub really: bool,
}

impl<'a> Access<'a> {
    /// One with an empty body, and a dry run.
    pub fn new(verb: &'static str, resource: Resource, namespace: Option<&'a str>, name: &'a str) -> Self {
        Access {
            verb,
            resource,
            namespace,
            name,
            body: json!({}),
            really: false,
        }
    }

    /// The same with this body.
    #[must_use]
    pub fn with(mut self, body: Value) -> Self {
        self.body = body;
        self
    }

    /// The HTTP request. Reads are of metadata only: where a Secret may be read, its content must not come here. Deleting many
    /// selects a label that nothing has.
    ///
    /// # Errors
    /// The names make no address.
    pub fn request(&self, mark: &Mark) -> Result<Request<Vec<u8>>, http::Error> {
        let (plural, subresource) = match self.resource.name.split_once('/') {
            Some((plural, subresource)) => (plural, Some(subresource)),
            None => (self.resource.name, None),
        };
        let place = self
            .namespace
            .map(|namespace| format!("/namespaces/{namespace}"))
            .unwrap_or_default();
        let all = format!("{}{place}/{plural}", self.resource.prefix());
        let one = match subresource {
            Some(subresource) => format!("{all}/{}/{subresource}", self.name),
            None => format!("{all}/{}", self.name),
        };
        let to = if subresource.is_some() { &one } else { &all };
        let metadata = |kind: &str| match subresource {
            Some(_) => "*/*".to_owned(),
            None => format!("application/json;as={kind};g=meta.k8s.io;v=v1"),
        };
        let (object, list) = (
            metadata("PartialObjectMetadata"),
            metadata("PartialObjectMetadataList"),
        );
        let dry = if self.really { "" } else { "dryRun=All" };
        let read = |uri: String, accept: String| Request::get(uri).header("Accept", accept).body(Vec::new());
        let write = |method: &str, uri: String, kind: &str| {
            let mut body = self.body.clone();
            // The options of a deletion count from its body, and then not from its address.
            if method == "DELETE" && !self.really {
                body["dryRun"] = json!(["All"]);
            }
            let request = Request::builder().method(method).uri(uri);
            request
                .header("Content-Type", kind)
                .body(body.to_string().into_bytes())
        };
        match self.verb {
            "get" => read(one, object),
            "list" => read(format!("{all}?limit=1"), list),
            "watch" => read(
                format!(
                    "{all}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3D{}",
                    self.name
                ),
                object,
            ),
            "create" => write("POST", format!("{to}?{dry}"), "application/json"),
            "update" => write("PUT", format!("{one}?{dry}"), "application/json"),
            "patch" => write("PATCH", format!("{one}?{dry}"), "application/merge-patch+json"),
            "deletecollection" => {
                let none = format!("{}%3D{}-none", RUN_ID.replace('/', "%2F"), mark.run);
                write(
                    "DELETE",
                    format!("{all}?{dry}&labelSelector={none}"),
                    "application/json",
                )
            }
            _ => write("DELETE", format!("{one}?{dry}"), "application/json"),
        }
    }
}

/// Why a request brought no answer of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The API server refused it, for this reason and with these words.
    Refused(Denial, String),
    /// No answer that says anything.
    NoAnswer(String),
}

impl Refusal {
    /// What it says about authorization: see [`Denial::as_authorization`].
    pub fn as_authorization(&self) -> Observation {
        match self {
            Refusal::Refused(denial, message) => denial.as_authorization(message),
            Refusal::NoAnswer(why) => Observation::Broken(why.clone()),
        }
    }
}

/// Makes a request; answers what came, but nothing of a watch.
///
/// # Errors
/// [`Refusal`].
pub async fn send(client: &kube::Client, access: &Access<'_>, site: &Site) -> Result<Value, Refusal> {
    let _turn = site.cluster.pace.one_of_many().await;
    let request = access
        .request(&site.mark)
        .map_err(|error| Refusal::NoAnswer(chain(&error)))?;
    let answer = async {
        if access.verb == "watch" {
            // It is let through or refused before its first event.
            client.request_stream(request).await.map(|_| Value::Null)
        } else {
            let text = client.request_text(request).await?;
            Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
        }
    };
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(Refusal::Refused(classify(&status), status.message)),
        Ok(Err(error)) => Err(Refusal::NoAnswer(chain(&error))),
        Err(_) => Err(Refusal::NoAnswer(format!(
            "no answer within {} s",
            ANSWER.as_secs()
        ))),
    }
}

/// Whether the authorizer lets a request through.
pub async fn ask(client: &kube::Client, access: &Access<'_>, site: &Site) -> Observation {
    match send(client, access, site).await {
        Ok(_) => Observation::Reached("allowed".to_owned()),
        Err(refusal) => refusal.as_authorization(),
    }
}

/// The same of many: what is tried, and its request.
pub async fn ask_all(client: &kube::Client, asked: Vec<(String, Access<'_>)>, site: &Site) -> Vec<Observed> {
    let asked = asked.into_iter().map(|(what, access)| async move {
        Observed {
            observation: ask(client, &access, site).await,
            what,
        }
    });
    join_all(asked).await
}

/// The same, twice: see [`twice`].
pub async fn ask_all_twice(
    client: &kube::Client,
    asked: Vec<(String, Access<'_>)>,
    site: &Site,
) -> Vec<Observed> {
    twice(|| ask_all(client, asked.clone(), site)).await
}

/// Two rounds of the same requests, since API servers learn of bindings one after the other, and late. A right that shows once counts.
pub async fn twice<F: Future<Output = Vec<Observed>>>(round: impl Fn() -> F) -> Vec<Observed> {
    let first = round().await;
    tokio::time::sleep(AGAIN).await;
    let both = first.into_iter().zip(round().await);
    both.map(|(first, second)| Observed {
        observation: combine(first.observation, second.observation),
        what: first.what,
    })
    .collect()
}

/// An object of one of [`TENANT_RESOURCES`] that complies with everything, so that only authorization can refuse it. It runs nothing.
pub fn compliant(resource: Resource, name: &str, namespace: &str, mark: &Mark, image: &str) -> Value {
    let resources = manifest::resources("1m", "1m", "1Mi", "1Mi");
    let metadata = mark.metadata(name, Some(namespace));
    match resource.name {
        "pods" => manifest::inert_pod(mark, name, namespace, image, &resources),
        "deployments" => {
            let mut deployment = manifest::inert_deployment(mark, name, namespace, image, &resources);
            deployment["spec"]["replicas"] = json!(0);
            deployment
        }
        "services" => {
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": { "ports": [{ "port": 80 }] } })
        }
        "secrets" => json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata }),
        _ => json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RunId;
    use rstest::rstest;

    fn mark() -> Mark {
        Mark {
            run: RunId::parse("0a1b2c3d").unwrap(),
            expires: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn nothing_that_changes_anything_is_more_than_a_dry_run() {
        for resource in TENANT_RESOURCES {
            for verb in VERBS.into_iter().chain(["deletecollection"]) {
                let access = Access::new(verb, resource, Some("ai-agents-b"), "own");
                let request = access.request(&mark()).unwrap();
                let reads = request.method() == "GET";
                let query = request.uri().query().unwrap_or_default();
                assert!(reads || query.starts_with("dryRun=All"), "{verb} {resource}");
                let options: Value = serde_json::from_slice(request.body()).unwrap_or_default();
                assert!(
                    request.method() != "DELETE" || options == json!({ "dryRun": ["All"] }),
                    "{verb} {resource}: {options}"
                );
                assert_eq!(reads, ["get", "list", "watch"].contains(&verb), "{verb}");
                let names_one = request.uri().path().ends_with("/own");
                assert_eq!(
                    names_one,
                    ["get", "update", "patch", "delete"].contains(&verb),
                    "{verb}"
                );
            }
        }
    }

    #[rstest]
    #[case::many(
        "deletecollection",
        Resource::core("pods"),
        "DELETE",
        "/api/v1/namespaces/n/pods?dryRun=All&labelSelector=ai-agents-platform%2Frun-id%3D0a1b2c3d-none"
    )]
    #[case::subresource_get(
        "get",
        Resource::core("pods/exec"),
        "GET",
        "/api/v1/namespaces/n/pods/own/exec"
    )]
    #[case::subresource_create(
        "create",
        Resource::core("serviceaccounts/token"),
        "POST",
        "/api/v1/namespaces/n/serviceaccounts/own/token?dryRun=All"
    )]
    #[case::another_group(
        "patch",
        Resource::of("apps/v1", "deployments/scale"),
        "PATCH",
        "/apis/apps/v1/namespaces/n/deployments/own/scale?dryRun=All"
    )]
    fn verbs_and_resources_become_addresses(
        #[case] verb: &'static str,
        #[case] resource: Resource,
        #[case] method: &str,
        #[case] uri: &str,
    ) {
        let request = Access::new(verb, resource, Some("n"), "own")
            .request(&mark())
            .unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string().as_str()),
            (method, uri)
        );
    }
}
