//! What a run has made, in memory and on disk: written down before it is created, struck off once it is gone. The file outlives a crash;
//! `conformance clean` reads it. Deleting is left to `removal`.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::names::{FIELD_MANAGER, RUN_ID, RunId};
use crate::removal::belongs;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The kinds of things that a run makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A tenant that the run provisioned: a namespace and all in it.
    Tenant,
    /// The registration of a tenant that the run provisioned with PostgreSQL and Redis: no object of the API server's.
    Registration,
    /// A namespace of the run's own.
    Namespace,
    /// A Pod.
    Pod,
    /// A Deployment.
    Deployment,
    /// A Job: its pod goes with it.
    Job,
    /// A ConfigMap.
    ConfigMap,
    /// A Secret, without content.
    Secret,
    /// A Service.
    Service,
    /// A PersistentVolumeClaim.
    PersistentVolumeClaim,
    /// A NetworkPolicy.
    NetworkPolicy,
    /// A ClusterRole, on local clusters only.
    ClusterRole,
    /// A ClusterRoleBinding, on local clusters only.
    ClusterRoleBinding,
    /// The Lease that guards a tenant.
    Lease,
}

impl Kind {
    /// Those that the API server knows.
    pub const ALL: [Kind; 13] = [
        Kind::Tenant,
        Kind::Namespace,
        Kind::Pod,
        Kind::Deployment,
        Kind::Job,
        Kind::ConfigMap,
        Kind::Secret,
        Kind::Service,
        Kind::PersistentVolumeClaim,
        Kind::NetworkPolicy,
        Kind::ClusterRole,
        Kind::ClusterRoleBinding,
        Kind::Lease,
    ];

    /// How the API server knows it; a tenant is its namespace.
    pub fn resource(self) -> ApiResource {
        match self {
            // A registration has none; where one is asked for, its tenant's stands for it.
            Kind::Tenant | Kind::Registration | Kind::Namespace => ApiResource::erase::<Namespace>(&()),
            Kind::Pod => ApiResource::erase::<Pod>(&()),
            Kind::Deployment => ApiResource::erase::<Deployment>(&()),
            Kind::Job => ApiResource::erase::<Job>(&()),
            Kind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Kind::Secret => ApiResource::erase::<Secret>(&()),
            Kind::Service => ApiResource::erase::<Service>(&()),
            Kind::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Kind::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Kind::ClusterRole => ApiResource::erase::<ClusterRole>(&()),
            Kind::ClusterRoleBinding => ApiResource::erase::<ClusterRoleBinding>(&()),
            Kind::Lease => ApiResource::erase::<Lease>(&()),
        }
    }

    /// Whether runs make such objects only where they may do everything.
    pub fn takes_all_rights(self) -> bool {
        matches!(self, Kind::ClusterRole | Kind::ClusterRoleBinding)
    }

    /// The kind of an object of a run; nothing where runs make none such.
    pub fn of(object: &Value) -> Option<Kind> {
        let kind = object["kind"].as_str()?;
        Kind::ALL
            .into_iter()
            .filter(|each| *each != Kind::Tenant)
            .find(|each| format!("{each:?}") == kind)
    }
}

/// One thing that was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Where it is; absent for namespaces and tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name; for a tenant its id.
    pub name: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = format!("{:?}", self.kind).to_lowercase();
        match &self.namespace {
            Some(namespace) => write!(out, "{kind} {} in namespace {namespace}", self.name),
            None => write!(out, "{kind} {}", self.name),
        }
    }
}

/// The first line of a ledger's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// The run.
    pub run: String,
    /// The cluster's own identity: the uid of its namespace `kube-system`.
    pub cluster: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Made(Entry),
    Gone(Entry),
}

/// The ledger of one run.
pub struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
    entries: Mutex<Vec<Entry>>,
}

impl Ledger {
    /// Opens a new one below `directory`, and holds its lock: while it is held the run lives.
    ///
    /// # Errors
    /// The directory or the file cannot be written.
    pub fn open(directory: &Path, run: &RunId, cluster: &str) -> io::Result<Ledger> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{run}.jsonl"));
        let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        file.lock()?;
        let heading = Heading {
            run: run.to_string(),
            cluster: cluster.to_owned(),
        };
        write_line(&mut file, &heading)?;
        Ok(Ledger {
            path,
            file: Mutex::new(file),
            entries: Mutex::new(Vec::new()),
        })
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down what is about to be made.
    ///
    /// # Errors
    /// It could not be written down; then it must not be made.
    pub fn made(&self, entry: Entry) -> io::Result<()> {
        write_line(
            &mut self.file.lock().unwrap_or_else(PoisonError::into_inner),
            &Line::Made(entry.clone()),
        )?;
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(entry);
        Ok(())
    }

    /// Strikes off what is gone.
    pub fn gone(&self, entry: &Entry) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|each| each != entry);
        // A line too many on disk is harmless: what is gone is found gone.
        let line = Line::Gone(entry.clone());
        let _ = write_line(
            &mut self.file.lock().unwrap_or_else(PoisonError::into_inner),
            &line,
        );
    }

    /// What is there still, newest first.
    pub fn newest_first(&self) -> Vec<Entry> {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .rev()
            .cloned()
            .collect()
    }

    /// Removes the file, once nothing is left.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn close(&self) -> io::Result<()> {
        if self.newest_first().is_empty() {
            self.forget()
        } else {
            Ok(())
        }
    }

    /// Removes the file all the same: what is kept on purpose is found by its labels, and is not a crashed run's.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// Writes down and creates an object; answers it as the server has it. One that is there already with this run's mark was made by a
    /// request whose answer was lost.
    ///
    /// # Errors
    /// It could not be written down, or the server refused it: then it is struck off again, unless it is not known whether it was made.
    pub async fn create(&self, client: &kube::Client, object: Value) -> Result<DynamicObject, HarnessError> {
        let doing = format!("create {}", entry(&object)?);
        self.attempt(client, object)
            .await?
            .map_err(|status| HarnessError::during(doing, &kube::Error::Api(status)))
    }

    /// The same where a refusal is an answer too: the inner error.
    ///
    /// # Errors
    /// It could not be written down, or no answer came.
    pub async fn attempt(
        &self,
        client: &kube::Client,
        object: Value,
    ) -> Result<Result<DynamicObject, Box<Status>>, HarnessError> {
        let entry = entry(&object)?;
        let doing = format!("create {entry}");
        self.made(entry.clone())
            .map_err(|error| self.unwritable(&error))?;
        let object: DynamicObject =
            serde_json::from_value(object).map_err(|error| HarnessError::during(&doing, &error))?;
        let post = post();
        let objects = api(client, &entry);
        let created = tokio::time::timeout(ANSWER, objects.create(&post, &object));
        match created.await {
            Ok(Ok(object)) => Ok(Ok(object)),
            Ok(Err(kube::Error::Api(status))) => {
                if (400..500).contains(&status.code) {
                    // A request whose answer was lost is sent again, and refused then for what it did itself.
                    if let Some(made) = made_before(&objects, &entry, &object).await? {
                        return Ok(Ok(made));
                    }
                    self.gone(&entry);
                }
                Ok(Err(status))
            }
            // Not known to be made or not: it stays in the ledger.
            Ok(Err(error)) => Err(HarnessError::during(&doing, &error)),
            Err(_) => Err(HarnessError::new(format!(
                "{doing}: no answer within {} s",
                ANSWER.as_secs()
            ))),
        }
    }

    /// The error of a ledger that cannot be written.
    pub fn unwritable(&self, error: &io::Error) -> HarnessError {
        HarnessError::during(format!("write the ledger {}", self.path.display()), error)
            .hint("nothing is made that is not written down first: free disk space, or set XDG_STATE_HOME to another directory")
    }
}

/// What is to be made.
fn entry(object: &Value) -> Result<Entry, HarnessError> {
    let kind =
        Kind::of(object).ok_or_else(|| HarnessError::new(format!("no kind of ours: {}", object["kind"])))?;
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .map(ToOwned::to_owned)
    };
    Ok(Entry {
        kind,
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name").unwrap_or_default(),
    })
}

/// What is there under the name of an object that this run wants to make, if it is this run's.
async fn made_before(
    objects: &Api<DynamicObject>,
    entry: &Entry,
    wanted: &DynamicObject,
) -> Result<Option<DynamicObject>, HarnessError> {
    let run = wanted
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(RUN_ID));
    let found = within(ANSWER, format!("get {entry}"), objects.get_opt(&entry.name)).await?;
    Ok(found.filter(|found| run.is_some_and(|run| belongs(&found.metadata, run))))
}

fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// The API through which an entry is reached.
pub fn api(client: &kube::Client, entry: &Entry) -> Api<DynamicObject> {
    let resource = entry.kind.resource();
    match &entry.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn write_line(file: &mut File, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_data()
}

/// Whether the run that keeps this ledger lives: a crash gives its lock up, wherever its process ran.
///
/// # Errors
/// The file cannot be opened.
pub fn is_held(path: &Path) -> io::Result<bool> {
    Ok(File::open(path)?.try_lock_shared().is_err())
}

/// Reads back what a crashed run had made and not struck off, newest first; a last line that was cut off is passed over.
///
/// # Errors
/// The file cannot be read, or does not begin with a heading.
pub fn read(path: &Path) -> io::Result<(Heading, Vec<Entry>)> {
    let text = std::fs::read_to_string(path)?;
    let mut lines = text.lines();
    let heading = serde_json::from_str(lines.next().unwrap_or_default())?;
    let mut entries: Vec<Entry> = Vec::new();
    for line in lines {
        match serde_json::from_str(line) {
            Ok(Line::Made(entry)) => entries.push(entry),
            Ok(Line::Gone(entry)) => entries.retain(|each| *each != entry),
            Err(_) => break,
        }
    }
    entries.reverse();
    Ok((heading, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            kind: Kind::Pod,
            namespace: Some("n".into()),
            name: name.into(),
        }
    }

    #[test]
    fn what_is_written_down_is_read_back_newest_first() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunId::random().unwrap();
        let ledger = Ledger::open(directory.path(), &run, "uid").unwrap();
        for name in ["one", "two", "three"] {
            ledger.made(entry(name)).unwrap();
        }
        ledger.gone(&entry("two"));
        let (heading, entries) = read(ledger.path()).unwrap();
        assert_eq!(heading.run, run.to_string());
        assert_eq!(entries, [entry("three"), entry("one")]);
        assert_eq!(entries, ledger.newest_first());
    }

    #[test]
    fn a_ledger_is_held_for_as_long_as_its_run_lives() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path(), &RunId::random().unwrap(), "uid").unwrap();
        let path = ledger.path().to_owned();
        assert!(is_held(&path).unwrap());
        drop(ledger);
        assert!(!is_held(&path).unwrap());
    }

    #[test]
    fn a_line_cut_off_by_a_crash_loses_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path(), &RunId::random().unwrap(), "uid").unwrap();
        ledger.made(entry("one")).unwrap();
        let mut text = std::fs::read(ledger.path()).unwrap();
        text.extend_from_slice(b"{\"made\":{\"ki");
        std::fs::write(ledger.path(), text).unwrap();
        assert_eq!(read(ledger.path()).unwrap().1, [entry("one")]);
    }

    #[test]
    fn the_file_goes_only_when_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path(), &RunId::random().unwrap(), "uid").unwrap();
        ledger.made(entry("one")).unwrap();
        ledger.close().unwrap();
        assert!(ledger.path().exists());
        ledger.gone(&entry("one"));
        ledger.close().unwrap();
        assert!(!ledger.path().exists());
    }

    #[rstest::rstest]
    #[case::ours("0a1b2c3d", true)]
    #[case::somebody_elses("ffffffff", false)]
    #[tokio::test]
    async fn what_is_there_already_is_ours_where_it_carries_our_mark(#[case] run: &str, #[case] ours: bool) {
        let run = run.to_owned();
        let server = crate::scripted::answer(move |request| match request.method().as_str() {
            "POST" => crate::scripted::refuse(409, "AlreadyExists", "configmaps \"m\" already exists"),
            _ => crate::scripted::ok(
                &serde_json::json!({ "metadata": { "name": "m", "annotations": { RUN_ID: run } } }),
            ),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path(), &RunId::random().unwrap(), "uid").unwrap();
        let object = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "m", "namespace": "n", "annotations": { RUN_ID: "0a1b2c3d" } },
        });
        let made = ledger.create(&server.client(), object).await;
        // Ours is to be removed, somebody else's is not.
        assert_eq!(
            (made.is_ok(), ledger.newest_first().len()),
            (ours, usize::from(ours))
        );
    }

    #[test]
    fn every_manifest_has_a_kind_the_ledger_knows() {
        let object = serde_json::json!({ "kind": "NetworkPolicy" });
        assert_eq!(Kind::of(&object), Some(Kind::NetworkPolicy));
        assert_eq!(Kind::of(&serde_json::json!({ "kind": "Tenant" })), None);
    }
}
