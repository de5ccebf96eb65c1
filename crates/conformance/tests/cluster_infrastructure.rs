//! Infrastructure that fails under a run, on a real cluster: what is affected is inconclusive with its cause, nothing passes that could not be
//! judged, what could not be removed is named, and `conformance clean` removes it once the fault is over. docs/verdicts.md is written by
//! these tests. Run by `make test-cluster`; see `support` for the cluster. Those of `whole_lab` need the lab and harm all that runs on it:
//! they run alone, after the others.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod support;

use conformance::removal;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, EvictParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;
use support::proxy::{Fault, Lasts, Proxy, Rule, Seen};
use support::verdicts::{self, Expected};
use support::{Outcome, conformance, delete, namespaces, outcome, provision, run_id, tenant};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What these tests ask for: an item of every sort, so that each fault leaves some that must pass.
const CHECKS: &str = "NET-01,NET-02,NET-03,PROV-13,PROV-14,QUO-01,RBAC-01";
const NETWORK: &str = "NET-01,NET-02,NET-03,PROV-14";

/// Held to read by who shares the cluster, and to write by who breaks it.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// One fault: a proxy, two tenants of its own, and a place for ledgers and reports.
struct Scene {
    client: Client,
    proxy: Proxy,
    state: TempDir,
    names: [String; 2],
    existing: bool,
    _share: (
        Option<RwLockReadGuard<'static, ()>>,
        Option<RwLockWriteGuard<'static, ()>>,
    ),
}

impl Scene {
    /// Its tenants are named after the fault, and made by the run.
    async fn new(word: &str) -> Scene {
        Scene::with(word, (Some(CLUSTER.read().await), None)).await
    }

    /// One that has the cluster for itself.
    async fn alone(word: &str) -> Scene {
        Scene::with(word, (None, Some(CLUSTER.write().await))).await
    }

    async fn with(
        word: &str,
        share: (
            Option<RwLockReadGuard<'static, ()>>,
            Option<RwLockWriteGuard<'static, ()>>,
        ),
    ) -> Scene {
        let client = support::client().await;
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("settings.yaml"), "{}").unwrap();
        Scene {
            client,
            proxy: Proxy::start().await,
            state,
            names: [format!("infra-{word}-a"), format!("infra-{word}-b")],
            existing: false,
            _share: share,
        }
    }

    /// Waits for less: for a fault that lasts as long as the run.
    fn within(self, limits: &str) -> Scene {
        std::fs::write(self.state.path().join("settings.yaml"), limits).unwrap();
        self
    }

    /// The tenants are there before the run, and serve.
    async fn with_tenants(mut self) -> Scene {
        let [a, b] = &self.names;
        futures::join!(provision(&self.client, a, None), provision(&self.client, b, None));
        for name in &self.names {
            let tenant = provisioner::Tenant::standard(tenant(name));
            let limit = Duration::from_secs(60);
            provisioner::ready::wait_ready(&self.client, &tenant, limit, &provisioner::Silent)
                .await
                .unwrap();
        }
        self.existing = true;
        self
    }

    fn namespace(&self, index: usize) -> String {
        format!("ai-agents-{}", self.names[index])
    }

    /// A run of these checks through the proxy.
    async fn run(&self, only: &str, more: &[&str]) -> Outcome {
        self.run_as(None, only, more).await
    }

    async fn run_as(&self, token: Option<&str>, only: &str, more: &[&str]) -> Outcome {
        let directory = self.state.path();
        let (junit, settings) = (directory.join("junit.xml"), directory.join("settings.yaml"));
        let mut command = conformance(
            directory,
            &["run", "--only", only, "--tenants", &self.names.join(",")],
        );
        command
            .arg("--config")
            .arg(settings)
            .arg("--junit")
            .arg(&junit)
            .args(more);
        command.env("KUBECONFIG", self.proxy.kubeconfig(directory, token));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        outcome(&output, &junit)
    }

    /// Lifts the fault, cleans, and compares with what was expected; then with the row of docs/verdicts.md.
    async fn end(self, fault: &str, made: &str, expected: &Expected<'_>, outcome: Outcome) {
        self.proxy.lift();
        let run = run_id(&outcome.text);
        let directory = self.state.path();
        let mut clean = conformance(directory, &["clean", "--run", &run]);
        clean.env("KUBECONFIG", self.proxy.kubeconfig(directory, None));
        let cleaned = tokio::task::spawn_blocking(move || clean.output().unwrap())
            .await
            .unwrap();
        let left = removal::of_run(&self.client, &run).await.unwrap();
        let ledgers = std::fs::read_dir(directory.join("ai-agents-conformance")).map_or(0, Iterator::count);
        if self.existing {
            futures::join!(
                delete(&self.client, &self.names[0]),
                delete(&self.client, &self.names[1])
            );
        }
        let namespaces = namespaces(&self.client, &[&run, &self.names[0], &self.names[1]]).await;

        let names = [self.names[0].as_str(), self.names[1].as_str()];
        verdicts::compare(&outcome, expected, names);
        let said = String::from_utf8_lossy(&cleaned.stdout).into_owned();
        assert_eq!(
            cleaned.status.code(),
            Some(0),
            "{said}{}",
            String::from_utf8_lossy(&cleaned.stderr)
        );
        assert!(
            left.is_empty() && namespaces.is_empty() && ledgers == 0,
            "{left:?} {namespaces:?} {said}"
        );
        let removed = said.contains("removed  ");
        assert_eq!(removed, !expected.left.is_empty(), "{said}");
        let cleaned = if removed {
            "`clean` removes it"
        } else {
            "`clean` finds nothing"
        };
        assert!(FAULTS.contains(&fault), "{fault} is not in FAULTS");
        verdicts::record(fault, made, expected, cleaned);
    }
}

/// The kind of object in a request, behind its namespace.
fn of_namespace<'s>(seen: &'s Seen, namespace: &str) -> Option<&'s str> {
    seen.path
        .split_once(&format!("/namespaces/{namespace}/"))
        .map(|(_, rest)| rest)
}

/// The first exec into an agent of this run whose namespace has this end.
fn is_exec_in(seen: &Seen, end: &str) -> bool {
    let namespace = seen.path.split('/').nth(4).unwrap_or_default();
    seen.is_exec() && namespace.ends_with(end)
}

fn makes_a_pod(seen: &Seen) -> bool {
    seen.method == "POST" && seen.path.ends_with("/pods") && seen.path.contains("/conformance-")
}

const THREE_SECONDS: Lasts = Lasts::For(Duration::from_secs(3));

/// The table of docs/verdicts.md has a row for each of these, in this order; a test that names another fails.
const FAULTS: [&str; 19] = [
    "API server throttles for a while",
    "API server fails for a while, having done what it was asked",
    "API server fails to the end",
    "API server 2 s slow",
    "exec reset in the middle, once",
    "exec reset in the middle, always",
    "watch cut",
    "a tenant's token revoked",
    "the run's own token revoked",
    "probe pod evicted",
    "target's agent dead",
    "image missing",
    "quota already used up",
    "a tenant's namespace already terminating",
    "node NotReady",
    "DNS off",
    "PostgreSQL down",
    "Redis down",
    "Cilium's agent stopped",
];

#[test]
fn the_table_has_a_row_for_each_fault_and_no_other() {
    assert_eq!(verdicts::listed(), FAULTS);
}

/// Faults that touch only what belongs to their own run and tenants: side by side.
mod own_tenants {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn throttled_for_a_while() {
        let scene = Scene::new("throttled").await;
        let fault = Fault::Answer {
            status: 429,
            retry_after: 1,
        };
        scene
            .proxy
            .add(Rule::from(makes_a_pod, |_| true, THREE_SECONDS, fault));
        let outcome = scene.run(CHECKS, &[]).await;
        let expected = Expected {
            inconclusive: &[],
            retried: &["the API server answered 429"],
            left: &[],
        };
        let made = "3 s from the first agent on, every request is answered 429 with Retry-After 1";
        scene
            .end("API server throttles for a while", made, &expected, outcome)
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn answers_lost_for_a_while() {
        let scene = Scene::new("lost").await;
        let namespaces = |seen: &Seen| seen.method == "POST" && seen.path == "/api/v1/namespaces";
        // What is under way for long has no answer to lose.
        let all = |seen: &Seen| !seen.is_exec() && !seen.query.contains("watch=");
        scene
            .proxy
            .add(Rule::from(namespaces, all, THREE_SECONDS, Fault::LoseAnswer(500)));
        let outcome = scene.run(CHECKS, &[]).await;
        let expected = Expected {
            inconclusive: &[],
            retried: &["the API server answered 500"],
            left: &[],
        };
        let made = "3 s from the first namespace on, every request is carried out and answered 500";
        scene
            .end(
                "API server fails for a while, having done what it was asked",
                made,
                &expected,
                outcome,
            )
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn fails_to_the_end() {
        let scene = Scene::new("down").await.within("cleanUpWithin: 15s");
        let fault = Fault::Answer {
            status: 500,
            retry_after: 0,
        };
        scene
            .proxy
            .add(Rule::from(makes_a_pod, |_| true, Lasts::Always, fault));
        let outcome = scene.run("NET-01,NET-02,NET-03,PROV-14", &[]).await;
        let expected = Expected {
            inconclusive: &[(
                &["NET-01", "NET-02", "NET-03", "PROV-14"],
                "a fault on purpose (500)",
            )],
            retried: &["the API server answered 500"],
            left: &[
                "namespace conformance-",
                "tenant infra-down-a",
                "lease conformance-infra-down-a",
            ],
        };
        let made = "from the first agent to the end of clean-up, every request is answered 500";
        scene
            .end("API server fails to the end", made, &expected, outcome)
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn slow() {
        let scene = Scene::new("slow").await.with_tenants().await;
        scene.proxy.add(Rule::new(
            |_| true,
            Lasts::Always,
            Fault::Delay(Duration::from_secs(2)),
        ));
        let outcome = scene.run("NET-01,PROV-13,RBAC-01", &[]).await;
        let expected = Expected {
            inconclusive: &[],
            retried: &[],
            left: &[],
        };
        let made = "every request is passed on after 2 s";
        scene.end("API server 2 s slow", made, &expected, outcome).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn exec_reset_once() {
        let scene = Scene::new("reset").await;
        for end in ["-outsider", "-canary", "ai-agents-infra-reset-a"] {
            scene.proxy.add(Rule::new(
                move |seen| is_exec_in(seen, end),
                Lasts::Times(1),
                Fault::CutExec,
            ));
        }
        let outcome = scene.run(NETWORK, &[]).await;
        let expected = Expected {
            inconclusive: &[],
            retried: &["the exec of an agent was cut off"],
            left: &[],
        };
        let made = "the first exec into the outsider, the canary and a tenant each is closed in the middle of its attempts";
        scene
            .end("exec reset in the middle, once", made, &expected, outcome)
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn exec_reset_always() {
        let scene = Scene::new("cut").await;
        scene.proxy.add(Rule::new(
            |seen| is_exec_in(seen, "-outsider"),
            Lasts::Always,
            Fault::CutExec,
        ));
        let outcome = scene.run(CHECKS, &[]).await;
        let expected = Expected {
            inconclusive: &[(&["NET-02", "NET-03"], "agent outsider: exec in pod agent")],
            retried: &["the exec of an agent was cut off"],
            left: &[],
        };
        let made = "every exec into the outsider is closed in the middle of its attempts";
        scene
            .end("exec reset in the middle, always", made, &expected, outcome)
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn watches_cut() {
        let scene = Scene::new("watch").await;
        let fault = Fault::Cut(Duration::from_millis(300));
        scene.proxy.add(Rule::new(
            |seen| seen.query.contains("watch=true"),
            Lasts::Always,
            fault,
        ));
        let outcome = scene.run(NETWORK, &[]).await;
        let expected = Expected {
            inconclusive: &[],
            retried: &["a watch was cut"],
            left: &[],
        };
        scene
            .end(
                "watch cut",
                "every watch is reset after 300 ms",
                &expected,
                outcome,
            )
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn a_tenants_token_revoked() {
        let scene = Scene::new("token").await;
        let (client, namespace) = (scene.client.clone(), scene.namespace(0));
        let other = scene.namespace(1);
        let account = format!("sa-{}", scene.names[0]);
        // b's own token only reads there.
        let probes = move |seen: &Seen| {
            seen.authorization.is_some() && seen.method != "GET" && of_namespace(seen, &other).is_some()
        };
        scene.proxy.add(Rule::new(
            probes,
            Lasts::Always,
            support::proxy::after(move |seen| {
                let (client, namespace, account) = (client.clone(), namespace.clone(), account.clone());
                async move { revoke(&client, &namespace, &account, &seen).await }
            }),
        ));
        let outcome = scene.run(CHECKS, &[]).await;
        let expected = Expected {
            inconclusive: &[(&["RBAC-01 a -> b"], "401, the identity was not accepted")],
            retried: &[],
            left: &[],
        };
        let made = "as a's token is first used in b, its ServiceAccount is deleted and made again, until the token is refused";
        scene
            .end("a tenant's token revoked", made, &expected, outcome)
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn our_own_token_revoked() {
        let scene = Scene::new("own").await.within("cleanUpWithin: 15s");
        let token = administrator(&scene.client, "infra-own").await;
        let (client, ours) = (scene.client.clone(), format!("Bearer {token}"));
        scene.proxy.add(Rule::from(
            makes_a_pod,
            move |seen| seen.authorization.as_ref() == Some(&ours),
            Lasts::Always,
            support::proxy::after(move |seen| {
                let client = client.clone();
                async move { revoke(&client, "infra-own", "harness", &seen).await }
            }),
        ));
        let outcome = scene.run_as(Some(&token), NETWORK, &[]).await;
        no_administrator(&scene.client, "infra-own").await;
        let expected = Expected {
            inconclusive: &[(&["NET-01", "NET-02", "NET-03", "PROV-14"], "Unauthorized")],
            retried: &[],
            left: &[
                "namespace conformance-",
                "tenant infra-own-a",
                "lease conformance-infra-own-a",
            ],
        };
        let made = "as the first agent is made, the ServiceAccount that the run acts as is deleted and made again, until its token is refused";
        scene
            .end("the run's own token revoked", made, &expected, outcome)
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn an_agent_evicted() {
        let scene = Scene::new("evicted").await;
        let client = scene.client.clone();
        scene.proxy.add(Rule::new(
            |seen| is_exec_in(seen, "-outsider"),
            Lasts::Always,
            support::proxy::after(move |seen| {
                let client = client.clone();
                async move { evict(&client, &seen).await }
            }),
        ));
        let outcome = scene.run(CHECKS, &[]).await;
        let expected = Expected {
            inconclusive: &[(&["NET-02", "NET-03"], "pods \"agent\" not found")],
            retried: &[],
            left: &[],
        };
        let made = "the outsider's pod is evicted when it is first asked";
        scene.end("probe pod evicted", made, &expected, outcome).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn image_missing() {
        let scene = Scene::new("image").await;
        let tenant = scene.state.path().join("tenant.yaml");
        let none = "image: ai-agents.local/none:1";
        std::fs::write(&tenant, format!("id: any\napi: {{{none}}}\nworker: {{{none}}}\n")).unwrap();
        let scene = scene.within(&format!("startWithin: 30s\ntenantFile: {}", tenant.display()));
        let outcome = scene
            .run(CHECKS, &["--agent-image", "ai-agents.local/none:1"])
            .await;
        let expected = Expected {
            inconclusive: &[
                (&["NET-01", "NET-02", "NET-03"], "ai-agents.local/none:1"),
                (&["PROV-13"], "ai-agents.local/none:1"),
            ],
            retried: &[],
            left: &[],
        };
        let made = "`--agent-image` names an image that no node has, and so does the tenant file";
        scene.end("image missing", made, &expected, outcome).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn the_targets_agent_dead() {
        let scene = Scene::new("dead").await;
        let (client, target) = (scene.client.clone(), scene.namespace(1));
        let asks_api = |seen: &Seen| seen.is_exec() && seen.path.ends_with("-api/exec");
        let target_of = target.clone();
        scene.proxy.add(Rule::from(
            move |seen| asks_api(seen) && is_exec_in(seen, &target_of),
            |seen| seen.is_exec() && seen.path.contains("/ai-agents-"),
            Lasts::Always,
            support::proxy::after(move |_| {
                let (client, target) = (client.clone(), target.clone());
                async move { kill_agent(&client, &target).await }
            }),
        ));
        let outcome = scene.run(CHECKS, &[]).await;
        let expected = Expected {
            inconclusive: &[(&["NET-02", "NET-03 b -> a"], "api")],
            retried: &[],
            left: &[],
        };
        let made = "b's agent in the API's costume is killed (SIGKILL) when it is first asked";
        scene.end("target's agent dead", made, &expected, outcome).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn quota_used_up() {
        let scene = Scene::new("quota").await.with_tenants().await;
        use_up(&scene.client, &scene.namespace(1)).await;
        let outcome = scene.run(CHECKS, &[]).await;
        let expected = Expected {
            inconclusive: &[
                (&["NET-02", "NET-03"], "exceeded quota"),
                (&["QUO-01 b"], "used up already"),
            ],
            retried: &[],
            left: &[],
        };
        let made = "a pod of b takes all that is left of `limits.cpu`";
        scene.end("quota already used up", made, &expected, outcome).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a cluster: make test-cluster"]
    async fn a_namespace_terminating() {
        let scene = Scene::new("going").await.within("startWithin: 30s");
        let held = hold_namespace(&scene.client, &scene.names[0]).await;
        let outcome = scene.run(CHECKS, &[]).await;
        release(&scene.client, &held).await;
        let expected = Expected {
            inconclusive: &[(
                &["NET-02", "NET-03", "PROV-13 a", "QUO-01 a", "RBAC-01"],
                "was being deleted when the run began, and is still there after 30 s",
            )],
            retried: &[],
            left: &[],
        };
        let made = "a's namespace is being deleted, and a finalizer holds it";
        scene
            .end(
                "a tenant's namespace already terminating",
                made,
                &expected,
                outcome,
            )
            .await;
    }
}

/// Faults that harm all that runs on the lab: one at a time, when the others have ended.
mod whole_lab {
    use super::*;
    use k8s_openapi::api::core::v1::Node;

    const SHORT: &str = "{startWithin: 15s, cleanUpWithin: 15s}";

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs the lab: make test-cluster"]
    async fn cilium_stopped() {
        let scene = Scene::alone("cilium").await.within(SHORT).with_tenants().await;
        let stopped = Stopped::new("cilium-agent");
        let outcome = scene.run(CHECKS, &[]).await;
        drop(stopped);
        let expected = Expected {
            inconclusive: &[
                (
                    &["NET-01", "NET-02", "NET-03"],
                    "its container is in ContainerCreating",
                ),
                (
                    &["PROV-14"],
                    "its deletion was accepted, and is not carried out yet",
                ),
            ],
            retried: &[],
            left: &["pod agent in namespace conformance-", "namespace conformance-"],
        };
        let made =
            "the tenants serve; the agent's process is stopped (SIGSTOP), so that no new pod gets a network";
        scene
            .end("Cilium's agent stopped", made, &expected, outcome)
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs the lab: make test-cluster"]
    async fn dns_off() {
        let scene = Scene::alone("dns").await;
        let off = Off::new("kube-system", "deployment/coredns");
        let outcome = scene.run(CHECKS, &[]).await;
        drop(off);
        let expected = Expected {
            inconclusive: &[(&["NET-02", "NET-03"], "cluster DNS")],
            retried: &[],
            left: &[],
        };
        scene
            .end("DNS off", "CoreDNS is scaled to zero", &expected, outcome)
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs the lab: make test-cluster"]
    async fn node_not_ready() {
        let scene = Scene::alone("node").await.within(SHORT).with_tenants().await;
        let nodes = Api::<Node>::all(scene.client.clone());
        let stopped = Stopped::new("kubelet");
        await_ready(&nodes, "Unknown").await;
        let outcome = scene.run(CHECKS, &[]).await;
        drop(stopped);
        await_ready(&nodes, "True").await;
        let expected = Expected {
            inconclusive: &[
                (&["NET-01"], "no node is ready"),
                (&["NET-02", "NET-03"], "it is not scheduled"),
                (&["PROV-13"], "not ready after"),
            ],
            retried: &[],
            left: &[],
        };
        let made =
            "the tenants serve; the only node's kubelet is stopped (SIGSTOP), until the node counts as lost";
        scene.end("node NotReady", made, &expected, outcome).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs the lab: make test-cluster"]
    async fn postgresql_down() {
        without("statefulset/postgresql", "PostgreSQL down").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs the lab: make test-cluster"]
    async fn redis_down() {
        without("statefulset/redis", "Redis down").await;
    }

    async fn without(service: &str, fault: &str) {
        let scene = Scene::alone(service.rsplit('/').next().unwrap())
            .await
            .within(SHORT);
        let off = Off::new("database", service);
        let outcome = scene
            .run(
                "APP-08,NET-03,NET-08,NET-09,PG-01,PROV-13,PROV-14,RBAC-01,RD-02",
                &[],
            )
            .await;
        drop(off);
        let expected = Expected {
            inconclusive: &[
                (&["NET-08", "NET-09"], "database"),
                (&["APP-08", "PG-01", "RD-02"], fault.split(' ').next().unwrap()),
            ],
            retried: &[],
            left: &[],
        };
        let made = format!("{service} in `database` is scaled to zero");
        scene.end(fault, &made, &expected, outcome).await;
    }

    async fn await_ready(nodes: &Api<Node>, wanted: &str) {
        for _ in 0..240 {
            let node = nodes.list(&Default::default()).await.unwrap().items.remove(0);
            let conditions = node.status.unwrap().conditions.unwrap();
            let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let is = conditions
                .iter()
                .any(|each| each.type_ == "Ready" && each.status == wanted);
            if is && taints.is_empty() == (wanted == "True") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("the node's condition Ready is not {wanted}");
    }

    /// A workload of one pod that has none until this is dropped.
    struct Off<'n>(&'n str, String);

    impl<'n> Off<'n> {
        fn new(namespace: &'n str, workload: &str) -> Off<'n> {
            let off = Off(namespace, workload.to_owned());
            off.scale("0");
            while !matches!(
                off.kubectl(&["get", workload, "-o=jsonpath={.status.replicas}"])
                    .as_str(),
                "" | "0"
            ) {
                std::thread::sleep(Duration::from_millis(300));
            }
            off
        }

        fn scale(&self, replicas: &str) {
            self.kubectl(&["scale", &self.1, "--replicas", replicas]);
        }

        fn kubectl(&self, arguments: &[&str]) -> String {
            lab(&[&["kubectl", "--namespace", self.0], arguments].concat())
        }
    }

    impl Drop for Off<'_> {
        fn drop(&mut self) {
            self.scale("1");
            self.kubectl(&["rollout", "status", &self.1, "--timeout=60s"]);
        }
    }

    /// A component of the lab that does nothing until this is dropped.
    struct Stopped(String);

    impl Stopped {
        fn new(component: &str) -> Stopped {
            let status: Value = serde_json::from_str(&lab(&["status", "-o", "json"])).unwrap();
            let all = status["components"].as_array().unwrap();
            let found = all
                .iter()
                .find(|each| each["name"] == component)
                .expect("a component of the lab");
            let stopped = Stopped(found["pid"].to_string());
            lab(&["enter", "--", "kill", "-STOP", &stopped.0]);
            stopped
        }
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            lab(&["enter", "--", "kill", "-CONT", &self.0]);
        }
    }

    fn lab(arguments: &[&str]) -> String {
        let lab =
            std::env::var_os("LAB_BINARY").expect("LAB_BINARY is not set. hint: run `make test-cluster`");
        let output = std::process::Command::new(lab).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A token of an account that may do everything, in a namespace of its own.
async fn administrator(client: &Client, namespace: &str) -> String {
    use k8s_openapi::api::authentication::v1::TokenRequest;
    use k8s_openapi::api::core::v1::ServiceAccount;
    use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
    let post = PostParams::default();
    let object = json!({ "metadata": { "name": namespace } });
    Api::<Namespace>::all(client.clone())
        .create(&post, &serde_json::from_value(object).unwrap())
        .await
        .unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let object = json!({ "metadata": { "name": "harness" } });
    accounts
        .create(&post, &serde_json::from_value(object).unwrap())
        .await
        .unwrap();
    let object = json!({
        "metadata": { "name": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": "harness", "namespace": namespace }],
    });
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    bindings
        .create(&post, &serde_json::from_value(object).unwrap())
        .await
        .unwrap();
    let minted = accounts
        .create_token_request("harness", &post, &TokenRequest::default())
        .await
        .unwrap();
    minted.status.unwrap().token
}

async fn no_administrator(client: &Client, namespace: &str) {
    use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
    Api::<ClusterRoleBinding>::all(client.clone())
        .delete(namespace, &Default::default())
        .await
        .unwrap();
    Api::<Namespace>::all(client.clone())
        .delete(namespace, &Default::default())
        .await
        .unwrap();
}

/// Deletes the account and makes it again, and waits until the token of this request is no longer accepted: API servers remember tokens for
/// ten seconds.
async fn revoke(client: &Client, namespace: &str, account: &str, seen: &Seen) {
    use k8s_openapi::api::core::v1::ServiceAccount;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let mut again = accounts.get(account).await.unwrap();
    accounts.delete(account, &Default::default()).await.unwrap();
    again.metadata.resource_version = None;
    again.metadata.uid = None;
    again.metadata.managed_fields = None;
    accounts.create(&PostParams::default(), &again).await.unwrap();
    let token = seen
        .authorization
        .as_deref()
        .and_then(|header| header.strip_prefix("Bearer "))
        .unwrap();
    let connection = support::connection().await;
    let holder = provisioner::client_with_token(&connection.config, token).unwrap();
    for _ in 0..60 {
        if let Err(kube::Error::Api(status)) = holder.apiserver_version().await
            && status.code == 401
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("the token of a ServiceAccount that is gone is still accepted");
}

/// Namespace and name of the pod of an exec.
fn pod_of(seen: &Seen) -> (String, String) {
    let words: Vec<&str> = seen.path.split('/').collect();
    (words[4].to_owned(), words[6].to_owned())
}

async fn evict(client: &Client, seen: &Seen) {
    let (namespace, pod) = pod_of(seen);
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    pods.evict(&pod, &EvictParams::default()).await.unwrap();
    while pods.get_opt(&pod).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Kills the program of the tenant's agent in the API's costume. Its processes are this machine's too.
async fn kill_agent(client: &Client, namespace: &str) {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let agents = pods
        .list(&kube::api::ListParams::default().labels("ai-agents-platform/probe=agent"))
        .await
        .unwrap();
    let agent = agents
        .items
        .into_iter()
        .find(|pod| pod.name_any().ends_with("-api"))
        .unwrap();
    let uid = agent.uid().unwrap();
    let mut killed = 0;
    for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let groups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if name.trim() == "probe" && (groups.contains(&uid) || groups.contains(&uid.replace('-', "_"))) {
            let id = process.file_name().into_string().unwrap();
            let status = std::process::Command::new("kill")
                .args(["-KILL", &id])
                .status()
                .unwrap();
            killed += usize::from(status.success());
        }
    }
    assert!(
        killed > 0,
        "no process of pod {} was found on this machine",
        agent.name_any()
    );
    for _ in 0..100 {
        let pod = pods.get(&agent.name_any()).await.unwrap();
        if pod.status.unwrap_or_default().phase.as_deref() == Some("Failed") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the agent lives");
}

/// A pod that is never scheduled and takes all that is left of `limits.cpu`.
async fn use_up(client: &Client, namespace: &str) {
    use k8s_openapi::api::core::v1::ResourceQuota;
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), namespace);
    let quota = quotas
        .list(&Default::default())
        .await
        .unwrap()
        .items
        .remove(0)
        .status
        .unwrap();
    let amount = |amounts: Option<
        std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >| {
        let text = amounts.unwrap()["limits.cpu"].0.clone();
        text.strip_suffix('m').map_or_else(
            || text.parse::<u64>().unwrap() * 1000,
            |milli| milli.parse().unwrap(),
        )
    };
    let left = amount(quota.hard) - amount(quota.used);
    let pod: Value = json!({
        "metadata": { "name": "greedy" },
        "spec": {
            "schedulingGates": [{ "name": "example.com/never" }],
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "greedy", "image": "ai-agents.local/probe:1",
                "resources": { "requests": { "cpu": "1m", "memory": "1Mi" }, "limits": { "cpu": format!("{left}m"), "memory": "1Mi" } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
        .await
        .unwrap();
}

/// Makes a tenant whose namespace is being deleted and does not go.
async fn hold_namespace(client: &Client, id: &str) -> String {
    let namespaces = Api::<Namespace>::all(client.clone());
    let name = format!("ai-agents-{id}");
    let namespace = json!({ "metadata": {
        "name": name,
        "labels": { "app": "ai-agents", "tenant": id, "managed-by": "ai-agents-platform" },
        "finalizers": ["example.com/nobody"],
    } });
    namespaces
        .create(
            &PostParams::default(),
            &serde_json::from_value(namespace).unwrap(),
        )
        .await
        .unwrap();
    namespaces.delete(&name, &Default::default()).await.unwrap();
    name
}

async fn release(client: &Client, namespace: &str) {
    let namespaces = Api::<Namespace>::all(client.clone());
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    namespaces
        .patch(namespace, &PatchParams::default(), &none)
        .await
        .unwrap();
    while namespaces.get_opt(namespace).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
