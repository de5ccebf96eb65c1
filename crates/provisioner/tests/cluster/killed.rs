//! The command itself on a real cluster: killed (`kill -9`) at random moments of apply and of delete, registration with PostgreSQL and Redis
//! included, and two at once. Prints the seed of the moments and a table; `KILL_SEED` and `KILL_MOMENTS` name others.

use super::connected;
use futures::stream::{self, StreamExt};
use kube::core::DynamicObject;
use kube::{Api, Client};
use provisioner::{Manifest, Stamp, Templates, Tenant, render};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// More would wait for each other on two cores.
const AT_ONCE: usize = 5;
/// Where `KILL_MOMENTS` does not say otherwise. The table in docs/reliability.md is of thirty.
const MOMENTS: usize = 10;

/// A tenant without pods, and a directory to work in.
struct Site {
    directory: tempfile::TempDir,
    tenant: Tenant,
    context: String,
}

impl Site {
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tenant = Tenant::standard(format!("prov-{name}-{}", std::process::id()).parse().unwrap());
        let templates = directory.path().join("templates");
        std::fs::create_dir(&templates).unwrap();
        for workload in ["61-deployment-api", "62-deployment-worker"] {
            let file = format!("{workload}.yaml.hbs");
            let embedded = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../templates/tenant")
                .join(&file);
            let text = std::fs::read_to_string(embedded).unwrap();
            std::fs::write(templates.join(&file), without_replicas(&text)).unwrap();
        }
        let context = std::env::var("CONFORMANCE_TEST_CLUSTER").unwrap();
        Self {
            directory,
            tenant,
            context,
        }
    }

    fn apply(&self) -> Vec<&str> {
        vec![
            "apply",
            "--tenant-id",
            self.tenant.id.as_str(),
            "--templates",
            "templates",
        ]
    }

    fn delete(&self) -> Vec<&str> {
        vec![
            "delete",
            "--tenant-id",
            self.tenant.id.as_str(),
            "--yes",
            "--purge-data",
        ]
    }

    fn start(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_provisioner"))
            .args(arguments)
            .args(["--context", &self.context])
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// What it prints on stdout, or what it complains of.
    async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.start(arguments).wait_with_output().await.unwrap();
        said(&output)
    }

    /// Whether it was killed: it was not if it ended before.
    async fn kill(&self, arguments: &[&str], after: Duration) -> bool {
        let mut child = self.start(arguments);
        let ended = timeout(after, child.wait()).await.is_ok();
        if !ended {
            child.kill().await.unwrap();
        }
        !ended
    }

    fn manifests(&self) -> Vec<Manifest> {
        let templates = Templates::with_overrides(&self.directory.path().join("templates")).unwrap();
        render(&self.tenant, &templates, &Stamp::default()).unwrap()
    }

    /// What is generated, hidden directories of a command that was killed included.
    fn generated(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join("generated"));
        let names = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// What is not as one undisturbed apply leaves it; none if nothing is.
    async fn is_whole(&self, client: &Client) -> Result<(), String> {
        let manifests = self.manifests();
        for manifest in &manifests {
            is_ours(client, manifest).await?;
        }
        let again = self.start(&self.apply()).wait_with_output().await.unwrap();
        let stdout = said(&again)?;
        let expected = format!(
            "namespace {} is ready: {} unchanged\n",
            self.tenant.namespace(),
            manifests.len()
        );
        if stdout != expected {
            return Err(format!("the next apply says {stdout:?}, expected {expected:?}"));
        }
        let log = String::from_utf8_lossy(&again.stderr);
        let parts = ["role", "user"].map(|part| {
            log.matches(&format!("unchanged {part} tenant-{}", self.tenant.id))
                .count()
        });
        if parts != [1, 1] {
            return Err(format!("the next apply had to register something: {log}"));
        }
        let files = self.generated();
        if files != [self.tenant.id.as_str()] {
            return Err(format!("generated: {files:?}"));
        }
        let directory = self
            .directory
            .path()
            .join("generated")
            .join(self.tenant.id.as_str());
        let written = manifests.iter().filter(|manifest| {
            let text = std::fs::read_to_string(directory.join(&manifest.file_name));
            text.is_ok_and(|text| text == manifest.to_yaml().unwrap())
        });
        match written.count() {
            count if count == manifests.len() => Ok(()),
            count => Err(format!(
                "{count} of {} generated files are as they must be",
                manifests.len()
            )),
        }
    }

    /// What is left of the tenant; none if nothing is.
    async fn is_gone(&self, client: &Client) -> Result<(), String> {
        let ownership = provisioner::ownership(client, &self.tenant.id).await.unwrap();
        if ownership != provisioner::Ownership::Absent {
            return Err(format!("its namespace is left: {ownership:?}"));
        }
        let again = self.run(&self.delete()).await?;
        if !again.contains("does not exist\n")
            || !again.contains("removed from PostgreSQL and Redis: nothing\n")
        {
            return Err(format!("the next delete says {again:?}"));
        }
        match self.generated() {
            files if files.is_empty() => Ok(()),
            files => Err(format!("generated: {files:?}")),
        }
    }

    /// Kills an apply, then has the next one make up for it; the same for a delete.
    async fn round(&self, client: &Client, moments: [Duration; 2]) -> [Trial; 2] {
        let killed = self.kill(&self.apply(), moments[0]).await;
        let result = match self.run(&self.apply()).await {
            Ok(_) => self.is_whole(client).await,
            Err(error) => Err(error),
        };
        let of_apply = Trial { killed, result };
        let killed = self.kill(&self.delete(), moments[1]).await;
        let result = match self.run(&self.delete()).await {
            Ok(_) => self.is_gone(client).await,
            Err(error) => Err(error),
        };
        [of_apply, Trial { killed, result }]
    }
}

/// What became of one moment.
struct Trial {
    killed: bool,
    result: Result<(), String>,
}

fn said(output: &Output) -> Result<String, String> {
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn without_replicas(template: &str) -> String {
    let lines = template.lines().map(|line| match line.split_once("replicas: ") {
        Some((indent, _)) => format!("{indent}replicas: 0\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// An object is ours where the server has us recorded as who applied it, and never as who made or changed it otherwise.
async fn is_ours(client: &Client, manifest: &Manifest) -> Result<(), String> {
    let (resource, name) = (manifest.kind.resource(), manifest.name());
    let api: Api<DynamicObject> = match &manifest.object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let live = api
        .get(name)
        .await
        .map_err(|error| format!("{}: {error}", manifest.reference()))?;
    let entries = live.metadata.managed_fields.iter().flatten();
    let ours = entries.filter(|entry| entry.manager.as_deref() == Some("ai-agents-provisioner"));
    let operations: Vec<_> = ours.filter_map(|entry| entry.operation.clone()).collect();
    if operations == ["Apply"] {
        Ok(())
    } else {
        Err(format!("{}: ours by {operations:?}", manifest.reference()))
    }
}

/// Numbers that look random, the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        f64::from(u32::try_from(mixed >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, expected a number")),
    )
}

/// How long an apply and a delete take where as many run at once as will.
async fn durations() -> [Duration; 2] {
    let sites: Vec<Site> = (0..AT_ONCE)
        .map(|number| Site::new(&format!("time-{number}")))
        .collect();
    let timed = stream::iter(&sites).map(async |site| {
        let begin = Instant::now();
        let applied = site.run(&site.apply()).await;
        let apply = begin.elapsed();
        let begin = Instant::now();
        let deleted = site.run(&site.delete()).await;
        applied.and(deleted).unwrap();
        [apply, begin.elapsed()]
    });
    let timed: Vec<[Duration; 2]> = timed.buffer_unordered(AT_ONCE).collect().await;
    let count = u32::try_from(timed.len()).unwrap();
    [0, 1].map(|which| timed.iter().map(|both| both[which]).sum::<Duration>() / count)
}

fn row(title: &str, trials: &[Trial]) -> String {
    let killed = trials.iter().filter(|trial| trial.killed).count();
    let right = trials.iter().filter(|trial| trial.result.is_ok()).count();
    format!("| {title} | {} | {killed} | {right} |", trials.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn whoever_is_killed_at_a_random_moment_is_made_up_for_by_the_next_command() {
    let client = connected().await;
    let seed = setting("KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let moments = setting("KILL_MOMENTS").map_or(MOMENTS, |count| usize::try_from(count).unwrap());
    let durations = durations().await;
    eprintln!(
        "seed {seed}, {moments} moments within {:.1?} of apply and {:.1?} of delete",
        durations[0], durations[1]
    );
    let mut dice = Dice(seed);
    let rounds: Vec<(Site, [Duration; 2])> = (0..moments)
        .map(|number| {
            // Of a deletion most is waiting for the cluster: early moments are tried more often.
            let [apply, delete] = [dice.roll(), dice.roll().powi(2)];
            (
                Site::new(&format!("kill-{number}")),
                [durations[0].mul_f64(apply), durations[1].mul_f64(delete)],
            )
        })
        .collect();
    let trials = stream::iter(&rounds)
        .map(async |(site, moments)| site.round(&client, *moments).await)
        .buffered(AT_ONCE);
    let (of_apply, of_delete): (Vec<Trial>, Vec<Trial>) =
        trials.map(|[apply, delete]| (apply, delete)).unzip().await;
    eprintln!("| killed | moments | killed before it ended | made up for by the next |\n|---|---|---|---|");
    eprintln!(
        "{}\n{}",
        row("`apply`", &of_apply),
        row("`delete --purge-data`", &of_delete)
    );
    for (name, trials) in [("apply", &of_apply), ("delete", &of_delete)] {
        for (number, (trial, (_, moments))) in trials.iter().zip(&rounds).enumerate() {
            let place =
                format!("seed {seed}, tenant {number}, {name}, killed after {moments:.2?} (apply, delete)");
            assert_eq!(trial.result, Ok(()), "{place}");
        }
        let killed = trials.iter().filter(|trial| trial.killed).count();
        assert!(
            killed * 2 > moments,
            "{name} was killed {killed} times only: it is faster than when it was timed"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn applies_of_one_tenant_at_once_all_succeed_and_leave_what_one_leaves() {
    let client = connected().await;
    let sites: Vec<Site> = (0..3)
        .map(|number| Site::new(&format!("both-{number}")))
        .collect();
    let mut failed = Vec::new();
    for site in &sites {
        let arguments = site.apply();
        let both = stream::iter(0..3)
            .map(|_| site.run(&arguments))
            .buffer_unordered(3);
        let both: Vec<Result<String, String>> = both.collect().await;
        let whole = site.is_whole(&client).await;
        let deleted = site.run(&site.delete()).await;
        failed.extend(
            both.into_iter()
                .filter_map(Result::err)
                .chain(whole.err())
                .chain(deleted.err()),
        );
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
