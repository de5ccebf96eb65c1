//! Two at once on one tenant, and one that is killed: the second comes at every request of the first, before it is carried out and after.
//! Neither does harm, and the next command brings everything to where it must be.

use crate::apply::{self, tenant};
use crate::server::{Held, Hold, Server};
use provisioner::{ApplyOptions, DeleteOptions, Manifest, Silent, Stamp, Templates, delete, render};
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::task::JoinHandle;

const NAMESPACE: &str = "/api/v1/namespaces/ai-agents-acme";
const CREDENTIALS: &str = "/api/v1/namespaces/ai-agents-acme/secrets/ai-agents-credentials";
const WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Apply,
    /// Of the tenant as somebody changed its file meanwhile: another name, no worker.
    ApplyChanged,
    Delete,
}

/// Whether the tenant is there when the first begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Absent,
    There,
}

/// The tenant's manifests, rendered once for all.
pub(crate) fn manifests() -> &'static [Manifest] {
    static ALL: LazyLock<Vec<Manifest>> = LazyLock::new(apply::manifests);
    &ALL
}

/// Something to change, something to prune, and a Secret that is looked at.
pub(crate) fn changed() -> &'static [Manifest] {
    static ALL: LazyLock<Vec<Manifest>> = LazyLock::new(|| {
        let mut tenant = tenant();
        tenant.name = Some("Another name".parse().unwrap());
        let mut manifests = render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap();
        manifests.retain(|manifest| manifest.template != "deployment-worker");
        manifests
    });
    &ALL
}

impl Operation {
    /// What it says, or the error.
    async fn run(self, server: &Server) -> Result<String, String> {
        let client = server.client().await;
        let id = tenant().id;
        let applied = async |manifests: &[Manifest]| {
            let options = ApplyOptions {
                patience: WITHIN,
                ..ApplyOptions::default()
            };
            let applied = provisioner::apply(&client, manifests, &id, &options, &Silent).await;
            applied
                .map(|applied| applied.to_string())
                .map_err(|error| error.to_string())
        };
        match self {
            Self::Apply => applied(manifests()).await,
            Self::ApplyChanged => applied(changed()).await,
            Self::Delete => {
                let options = DeleteOptions { deadline: WITHIN };
                let deleted = delete(&client, &id, &options, &Silent).await;
                deleted
                    .map(|deleted| format!("existed: {}", deleted.existed))
                    .map_err(|error| error.to_string())
            }
        }
    }

    fn spawn(self, server: &Arc<Server>) -> JoinHandle<Result<String, String>> {
        let server = Arc::clone(server);
        tokio::spawn(async move { self.run(&server).await })
    }

    /// All objects, where nobody disturbs it.
    async fn undisturbed(self) -> BTreeMap<String, Value> {
        let server = Server::start().await;
        self.run(&server).await.unwrap();
        server.objects()
    }
}

async fn server(begin: Begin) -> Arc<Server> {
    let server = Server::start().await;
    if begin == Begin::There {
        Operation::Apply.run(&server).await.unwrap();
    }
    Arc::new(server)
}

async fn like(server: &Server) -> Arc<Server> {
    Arc::new(Server::like(server).await)
}

/// The values that were generated, where there are any.
fn credentials(server: &Server) -> Option<Value> {
    let state = server.state();
    let data = &state.objects.get(CREDENTIALS)?["data"];
    (!data.is_null()).then(|| data.clone())
}

fn is_the_same_namespace(server: &Server, uid: &Value) -> bool {
    let state = server.state();
    let namespace = state.objects.get(NAMESPACE);
    !uid.is_null() && namespace.is_some_and(|namespace| namespace["metadata"]["uid"] == *uid)
}

fn uid(server: &Server) -> Value {
    let state = server.state();
    let namespace = state.objects.get(NAMESPACE);
    namespace.map_or(Value::Null, |namespace| namespace["metadata"]["uid"].clone())
}

/// Begins it, and returns when it is held at this request of its own; none if it ends before that.
async fn begin(
    first: Operation,
    server: &Arc<Server>,
    hold: Hold,
    at: usize,
) -> Option<(JoinHandle<Result<String, String>>, Held)> {
    let mut held = server.hold(hold, at);
    let mut running = first.spawn(server);
    tokio::select! {
        _ = &mut held.arrived => Some((running, held)),
        ended = &mut running => {
            ended.unwrap().unwrap();
            None
        }
    }
}

/// What may come of an operation beside another one.
fn is_clear(said: &Result<String, String>, beside: Operation) -> bool {
    match said {
        Ok(_) => true,
        Err(error) => {
            beside == Operation::Delete
                && [
                    "it was deleted by somebody else in the meantime",
                    "it is being deleted by somebody else in the meantime",
                ]
                .iter()
                .any(|clear| error.ends_with(clear))
        }
    }
}

#[rstest]
#[case::both_make_it(Begin::Absent, Operation::Apply, Operation::Apply)]
#[case::both_make_it_differently(Begin::Absent, Operation::Apply, Operation::ApplyChanged)]
#[case::both_bring_it_up_to_date(Begin::There, Operation::ApplyChanged, Operation::ApplyChanged)]
#[case::one_makes_it_and_one_deletes_it(Begin::Absent, Operation::Apply, Operation::Delete)]
#[case::one_changes_it_and_one_deletes_it(Begin::There, Operation::ApplyChanged, Operation::Delete)]
#[case::one_deletes_it_and_one_applies_it(Begin::There, Operation::Delete, Operation::Apply)]
#[case::both_delete_it(Begin::There, Operation::Delete, Operation::Delete)]
#[tokio::test]
async fn two_at_once_do_no_harm(#[case] start: Begin, #[case] first: Operation, #[case] second: Operation) {
    let goal = Operation::Apply.undisturbed().await;
    let beginning = server(start).await;
    for hold in [Hold::Before, Hold::After] {
        for at in 0.. {
            let server = like(&beginning).await;
            let Some((running, held)) = begin(first, &server, hold, at).await else {
                assert!(at > 5, "held at {at} requests only");
                break;
            };
            let place = format!("{first:?} held {hold:?} request {at}, then {second:?}");
            let other = second.run(&server).await;
            assert!(is_clear(&other, first), "{place}: the second: {other:?}");
            drop(held.release);
            let one = running.await.unwrap();
            assert!(is_clear(&one, second), "{place}: the first: {one:?}");
            let (values, namespace) = (credentials(&server), uid(&server));
            let after = Operation::Apply.run(&server).await;
            assert!(after.is_ok(), "{place}: the next apply: {after:?}");
            assert_eq!(server.objects(), goal, "{place}");
            if is_the_same_namespace(&server, &namespace) && values.is_some() {
                assert_eq!(credentials(&server), values, "{place}: credentials are kept");
            }
            assert_eq!(
                Operation::Apply.run(&server).await.as_deref(),
                Ok("15 unchanged"),
                "{place}"
            );
        }
    }
}

#[rstest]
#[case::first_apply(Begin::Absent, Operation::Apply)]
#[case::later_apply(Begin::There, Operation::ApplyChanged)]
#[case::delete(Begin::There, Operation::Delete)]
#[tokio::test]
async fn one_that_is_killed_is_made_up_for_by_the_next(
    #[case] start: Begin,
    #[case] killed: Operation,
    #[values(Operation::Apply, Operation::ApplyChanged, Operation::Delete)] next: Operation,
) {
    let goal = match next {
        Operation::Delete => BTreeMap::new(),
        apply => apply.undisturbed().await,
    };
    let beginning = server(start).await;
    for hold in [Hold::Before, Hold::After] {
        for at in 0.. {
            let server = like(&beginning).await;
            let Some((running, held)) = begin(killed, &server, hold, at).await else {
                assert!(at > 5, "held at {at} requests only");
                break;
            };
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
            let place = format!("{killed:?} killed {hold:?} request {at}, then {next:?}");
            let (values, namespace) = (credentials(&server), uid(&server));
            let said = next.run(&server).await;
            assert!(said.is_ok(), "{place}: {said:?}");
            assert_eq!(server.objects(), goal, "{place}");
            if is_the_same_namespace(&server, &namespace) && values.is_some() {
                assert_eq!(credentials(&server), values, "{place}: credentials are kept");
            }
            // Until here: what was held is never carried out.
            drop(held.release);
        }
    }
}

#[tokio::test]
async fn a_deletion_takes_away_what_somebody_makes_beside_it() {
    let server = server(Begin::There).await;
    let pod = |name: &str| format!("{NAMESPACE}/pods/{name}");
    let made = |name: &str| json!({"kind": "Pod", "metadata": {"name": name}, "spec": {"containers": []}});
    server.put(&pod("p1"), made("p1"));
    server.state().sticky.push("/pods/".to_owned());
    let running = Operation::Delete.spawn(&server);
    until(|| server.state().requests.contains(&format!("DELETE {}", pod("p1")))).await;
    // An apply that had its plan already.
    let deployment = "/apis/apps/v1/namespaces/ai-agents-acme/deployments/ai-agents-api";
    server.put(
        deployment,
        json!({"kind": "Deployment", "metadata": {"name": "ai-agents-api"}, "spec": {"replicas": 1}}),
    );
    server.put(&pod("p2"), made("p2"));
    until(|| !server.has(deployment)).await;
    server.state().sticky.clear();
    for name in ["p1", "p2"] {
        server.state().objects.remove(&pod(name));
    }
    assert_eq!(running.await.unwrap().as_deref(), Ok("existed: true"));
    assert!(!server.has(NAMESPACE));
}

async fn until(mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WITHIN, met).await.expect("in time");
}
