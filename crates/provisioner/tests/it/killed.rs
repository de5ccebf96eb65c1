//! `kill -9` of the command itself, at every request that it makes: the next command brings everything to where it would be had nobody
//! been killed, on the cluster and among the generated files.

use crate::documented;
use crate::server::{Hold, Server};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::process::{Child, Command};

/// Each is a process or two; fewer than make each other slow.
const AT_ONCE: usize = 4;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    FirstApply,
    /// Of the tenant as somebody changed its file since, with another set of templates.
    LaterApply,
    Delete,
}

/// The command after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Apply,
    Delete,
}

impl Killed {
    const ALL: [Self; 3] = [Self::FirstApply, Self::LaterApply, Self::Delete];

    fn title(self) -> &'static str {
        match self {
            Self::FirstApply => "`apply` of a new tenant",
            Self::LaterApply => "`apply` of a tenant that is changed, with an object to prune",
            Self::Delete => "`delete`",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::FirstApply => Next::Apply.arguments(),
            Self::LaterApply => &["apply", "-f", "changed.yaml", "--templates", "templates"],
            Self::Delete => Next::Delete.arguments(),
        }
    }
}

impl Next {
    const ALL: [Self; 2] = [Self::Apply, Self::Delete];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Apply => &["apply", "-f", "acme.yaml"],
            Self::Delete => &["delete", "--tenant-id", "acme", "--yes"],
        }
    }
}

/// A directory to work in, and a cluster.
struct Place {
    directory: tempfile::TempDir,
    server: Server,
}

/// Everything that a command can leave behind: objects and files.
#[derive(Debug, PartialEq)]
struct Left {
    objects: BTreeMap<String, Value>,
    files: BTreeMap<String, String>,
}

impl Place {
    async fn new() -> Self {
        Self::with(Server::start().await)
    }

    fn with(server: Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        // The scripted server has no PostgreSQL.
        write("acme.yaml", "id: acme\nregistration: false\n");
        write(
            "changed.yaml",
            "id: acme\nname: Another name\nregistration: false\n",
        );
        std::fs::create_dir(directory.path().join("templates")).unwrap();
        write("templates/62-deployment-worker.delete", "");
        Self { directory, server }
    }

    /// One in which a tenant was made by nobody who was disturbed.
    async fn with_tenant() -> Self {
        let place = Self::new().await;
        let output = place.run(Next::Apply.arguments()).await;
        assert!(output.status.success(), "{output:?}");
        let pod = json!({"kind": "Pod", "metadata": {"name": "p1"}, "spec": {"containers": []}});
        place.server.put("/api/v1/namespaces/ai-agents-acme/pods/p1", pod);
        place
    }

    /// Another one, with the same in it.
    async fn like(&self) -> Self {
        let other = Self::with(Server::like(&self.server).await);
        let (from, to) = (self.directory.path(), other.directory.path());
        for (name, text) in files(&from.join("generated")) {
            let path = to.join("generated").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        other
    }

    fn start(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_provisioner"))
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("HOME", self.directory.path())
            .env("KUBECONFIG", self.server.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.start(arguments).wait_with_output().await.unwrap()
    }

    /// Whether it was killed, which it is not when it ends before that request.
    async fn kill_at(&self, arguments: &[&str], (hold, request): (Hold, usize)) -> bool {
        let mut held = self.server.hold(hold, request);
        let mut child = self.start(arguments);
        let killed = tokio::select! {
            arrived = &mut held.arrived => arrived.is_ok(),
            _ = child.wait() => false,
        };
        if killed {
            child.kill().await.unwrap();
        }
        killed
    }

    fn left(&self) -> Left {
        let mut objects = self.server.objects();
        objects.retain(|path, _| !path.contains("/pods/"));
        let files = files(&self.directory.path().join("generated"));
        Left { objects, files }
    }
}

/// All files below, hidden ones too, by their path.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let below = files(&path).into_iter();
            found.extend(below.map(|(inner, text)| (format!("{name}/{inner}"), text)));
        } else {
            found.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// What is wrong after the next command; none if nothing is, and nothing more to do at all if it was not killed any more.
async fn outcome(
    beginning: &Place,
    killed: Killed,
    at: (Hold, usize),
    next: Next,
    goal: &Left,
) -> Option<Result<(), String>> {
    let place = beginning.like().await;
    if !place.kill_at(killed.arguments(), at).await {
        return None;
    }
    let output = place.run(next.arguments()).await;
    if !output.status.success() {
        return Some(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let left = place.left();
    Some(if left == *goal {
        Ok(())
    } else {
        Err(format!("left {left:#?}"))
    })
}

/// Kills it at every request, before anything is done about it and after; returns how many times, and what was wrong.
async fn at_every_request(killed: Killed, next: Next) -> (usize, Vec<String>) {
    let beginning = match killed {
        Killed::FirstApply => Place::new().await,
        Killed::LaterApply | Killed::Delete => Place::with_tenant().await,
    };
    let goal = beginning.like().await;
    let output = goal.run(next.arguments()).await;
    assert!(output.status.success(), "{output:?}");
    let goal = goal.left();
    let whole = match next {
        Next::Apply => goal.objects.len() > 10 && goal.files.len() > 10,
        Next::Delete => goal.objects.is_empty() && goal.files.is_empty(),
    };
    assert!(whole, "{goal:#?}");
    let moments = (0..).flat_map(|request| [(Hold::Before, request), (Hold::After, request)]);
    let (beginning, goal) = (&beginning, &goal);
    let mut results = stream::iter(moments)
        .map(async |at| (at, outcome(beginning, killed, at, next, goal).await))
        .buffered(AT_ONCE);
    let (mut times, mut wrong) = (0, Vec::new());
    while let Some(((hold, request), Some(result))) = results.next().await {
        times += 1;
        if let Err(problem) = result {
            wrong.push(format!(
                "{killed:?} killed {hold:?} request {request}, then {next:?}: {problem}"
            ));
        }
    }
    (times, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_at_any_request_is_made_up_for_by_the_next_command() {
    let mut table = "| killed at every request | then `apply` | then `delete` |\n|---|---|---|\n".to_owned();
    let mut all_wrong = Vec::new();
    for killed in Killed::ALL {
        let mut cells = Vec::new();
        for next in Next::ALL {
            let (times, wrong) = at_every_request(killed, next).await;
            assert!(times >= 20, "{killed:?} was killed {times} times only");
            eprintln!(
                "{killed:?} killed {times} times, then {next:?}: {} wrong",
                wrong.len()
            );
            cells.push(match (wrong.len(), next) {
                (0, Next::Apply) => "all there, and all ours, as by one apply".to_owned(),
                (0, Next::Delete) => "nothing left".to_owned(),
                (count, _) => format!("{count} of {times} wrong"),
            });
            all_wrong.extend(wrong);
        }
        let _ = writeln!(table, "| {} | {} |", killed.title(), cells.join(" | "));
    }
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
    documented("killed", &table);
}
