//! An API server in trouble: every kind of trouble, at every request of every command. What passes is ridden out, with the same result
//! as without; what stays is named when the time for it is over.

use crate::apply::tenant;
use crate::documented;
use crate::server::{Reply, Server, status};
use crate::together::{changed, manifests};
use futures::stream::{self, StreamExt};
use provisioner::{
    ApplyOptions, DeleteOptions, Manifest, Platform, Silent, Templates, apply, delete, ownership, platform,
    render_platform,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long a command rides out what passes, where it has to.
const LONG: Duration = Duration::from_secs(20);
/// The same, where nothing passes.
const SHORT: Duration = Duration::from_secs(2);
/// Beyond the time for it: the last request's own.
const MORE: Duration = Duration::from_secs(3);
/// They mostly wait.
const AT_ONCE: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Command {
    FirstApply,
    LaterApply,
    Delete,
    Ownership,
    PlatformApply,
    PlatformDiff,
}

impl Command {
    const ALL: [Self; 6] = [
        Self::FirstApply,
        Self::LaterApply,
        Self::Delete,
        Self::Ownership,
        Self::PlatformApply,
        Self::PlatformDiff,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::FirstApply => "first apply",
            Self::LaterApply => "later apply",
            Self::Delete => "delete",
            Self::Ownership => "whose it is",
            Self::PlatformApply => "platform apply",
            Self::PlatformDiff => "platform diff",
        }
    }

    /// Whether how long it rides out what passes can be said.
    fn has_a_deadline(self) -> bool {
        !matches!(self, Self::Ownership | Self::PlatformDiff)
    }

    /// What it finds; each run gets a copy.
    async fn beginning(self) -> Server {
        let server = Server::start().await;
        let database = json!({"kind": "Namespace", "metadata": {"name": "database"}});
        server.put("/api/v1/namespaces/database", database);
        if matches!(self, Self::LaterApply | Self::Delete) {
            let client = server.client().await;
            apply(
                &client,
                manifests(),
                &tenant().id,
                &ApplyOptions::default(),
                &Silent,
            )
            .await
            .unwrap();
            server.put(
                "/api/v1/namespaces/ai-agents-acme/pods/p1",
                json!({"kind": "Pod", "metadata": {"name": "p1"}, "spec": {"containers": []}}),
            );
        }
        server
    }

    /// What it says in the end.
    async fn run(self, server: &Server, patience: Duration) -> Result<String, String> {
        let client = server.client().await;
        let options = ApplyOptions {
            readiness: Some(patience),
            patience,
            ..ApplyOptions::default()
        };
        let id = tenant().id;
        match self {
            Self::FirstApply => text(apply(&client, manifests(), &id, &options, &Silent).await),
            Self::LaterApply => text(apply(&client, changed(), &id, &options, &Silent).await),
            Self::Delete => {
                let options = DeleteOptions { deadline: patience };
                let deleted = delete(&client, &id, &options, &Silent).await;
                text(deleted.map(|deleted| deleted.existed))
            }
            Self::Ownership => text(
                ownership(&client, &id)
                    .await
                    .map(|ownership| format!("{ownership:?}")),
            ),
            Self::PlatformApply => {
                text(platform::apply(&client, &Platform::default(), of_platform(), &options, &Silent).await)
            }
            Self::PlatformDiff => {
                text(platform::diff(&client, &Platform::default(), of_platform(), &Silent).await)
            }
        }
    }
}

fn of_platform() -> &'static [Manifest] {
    static ALL: LazyLock<Vec<Manifest>> =
        LazyLock::new(|| render_platform(&Platform::default(), &Templates::embedded_platform()).unwrap());
    &ALL
}

/// The result, or the error with its causes.
fn text<T: ToString, E: Error>(result: Result<T, E>) -> Result<String, String> {
    result.map(|value| value.to_string()).map_err(|error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text
    })
}

/// A kind of trouble, what is said of it where it stays, and where it can be.
struct Trouble {
    title: &'static str,
    reply: Reply,
    said: &'static str,
    is_at: fn(&str) -> bool,
}

fn anywhere(_: &str) -> bool {
    true
}

fn at_writes(request: &str) -> bool {
    !request.starts_with("GET")
}

/// Lists are asked for at even places of `GET /api/v1/namespaces/x/pods`, odd ones of `/apis/…`.
fn at_lists(request: &str) -> bool {
    let path = request.trim_start_matches("GET ");
    let places = path.matches('/').count();
    request.starts_with("GET") && (places % 2 == 1) == path.starts_with("/api/")
}

fn troubles() -> Vec<Trouble> {
    let trouble = |title, reply, said, is_at| Trouble {
        title,
        reply,
        said,
        is_at,
    };
    let json = |code, reason, message| Reply::Json(code, status(code, reason, message));
    let mut busy = status(429, "TooManyRequests", "storage is busy");
    busy["details"] = json!({"retryAfterSeconds": 1});
    vec![
        trouble(
            "429 with Retry-After in its header",
            Reply::Text(429, "Too many requests, please try again later.", Some(1)),
            "Too many requests, please try again later. (status 429)",
            anywhere,
        ),
        trouble(
            "429 with retryAfterSeconds in its Status",
            Reply::Json(429, busy),
            "storage is busy (status 429)",
            anywhere,
        ),
        trouble(
            "500",
            json(500, "InternalError", "etcd is away"),
            "etcd is away (status 500)",
            anywhere,
        ),
        trouble(
            "503 by a proxy in between",
            Reply::Text(503, "<html>unavailable</html>", None),
            "status 503",
            anywhere,
        ),
        trouble(
            "409: somebody wrote in between",
            json(409, "Conflict", "the object has been modified"),
            "the object has been modified (status 409)",
            at_writes,
        ),
        trouble(
            "410: the list is too old",
            json(410, "Expired", "the provided continue parameter is too old"),
            "the provided continue parameter is too old (status 410)",
            at_lists,
        ),
        trouble(
            "connection reset, nothing was done",
            Reply::Reset,
            "no connection",
            anywhere,
        ),
        trouble(
            "connection reset after it was done",
            Reply::Lost,
            "no connection",
            at_writes,
        ),
        trouble(
            "connection cut in the answer",
            Reply::Half,
            "no connection",
            anywhere,
        ),
    ]
}

/// A command without trouble.
struct Undisturbed {
    command: Command,
    /// What it finds.
    beginning: Server,
    /// What it leaves.
    end: Server,
    said: String,
    /// Of each verb on each resource the first request.
    requests: Vec<String>,
}

impl Undisturbed {
    async fn of(command: Command) -> Self {
        let beginning = command.beginning().await;
        let end = Server::like(&beginning).await;
        let said = command.run(&end, LONG).await.unwrap();
        let mut kinds = BTreeMap::new();
        for request in end.state().requests.clone() {
            let request = request.trim_end_matches(" (dry run)").to_owned();
            let (verb, path) = request.split_once(' ').unwrap();
            let mut parts = path.rsplit('/');
            let (last, parent) = (parts.next().unwrap(), parts.next().unwrap());
            let of_many = at_lists(&request) || verb == "POST";
            let resource = if of_many { last } else { parent };
            let kind = (verb.to_owned(), resource.to_owned(), of_many);
            kinds.entry(kind).or_insert_with(|| request.clone());
        }
        let requests = kinds.into_values().collect();
        Self {
            command,
            beginning,
            end,
            said,
            requests,
        }
    }
}

struct Case<'a> {
    of: &'a Undisturbed,
    trouble: &'a Trouble,
    request: &'a str,
}

impl Case<'_> {
    async fn server(&self, times: usize) -> Server {
        let server = Server::like(&self.of.beginning).await;
        let (verb, path) = self.request.split_once(' ').unwrap();
        let mut verbs = ["GET", "POST", "PATCH", "DELETE"].into_iter();
        let verb = verbs.find(|it| *it == verb).unwrap();
        server.reply(verb, path, times, self.trouble.reply.clone());
        server
    }

    /// What is wrong with how it is ridden out; none if nothing is.
    async fn passing(&self) -> Option<String> {
        let server = self.server(1).await;
        let said = match self.of.command.run(&server, LONG).await {
            Ok(said) => said,
            Err(error) => return Some(format!("not ridden out: {error}")),
        };
        // Who does not know that its first attempt worked finds things as they are.
        let told = matches!(self.trouble.reply, Reply::Lost) || said == self.of.said;
        if !told {
            return Some(format!("said {said:?}, and without trouble {:?}", self.of.said));
        }
        let same = server.objects() == self.of.end.objects();
        (!same).then(|| "left other objects than without trouble".to_owned())
    }

    /// What is wrong with how it is named where it stays.
    async fn staying(&self) -> Option<String> {
        let server = self.server(usize::MAX).await;
        let started = Instant::now();
        let said = match self.of.command.run(&server, SHORT).await {
            // It was done the first time, and can be seen to be.
            Ok(_) if matches!(self.trouble.reply, Reply::Lost) => return None,
            Ok(said) => return Some(format!("said {said:?}")),
            Err(error) => error,
        };
        let took = started.elapsed();
        if took > SHORT + MORE {
            return Some(format!("took {took:.1?}"));
        }
        let ended = said.contains("given up after") || said.contains("not ready after");
        (!(ended && said.contains(self.trouble.said))).then_some(said)
    }
}

/// What came of it, where nothing was wrong, as docs/reliability.md shows it.
fn table(outcomes: &BTreeSet<(usize, Command)>, troubles: &[Trouble]) -> String {
    let titles = Command::ALL.map(Command::title);
    let mut table = format!(
        "| trouble | {} |\n|---|{}\n",
        titles.join(" | "),
        "---|".repeat(titles.len())
    );
    for (at, trouble) in troubles.iter().enumerate() {
        let cells = Command::ALL.map(|command| match outcomes.contains(&(at, command)) {
            false => "—",
            true if command.has_a_deadline() => "ridden out; named if it stays",
            true => "ridden out",
        });
        let _ = writeln!(table, "| {} | {} |", trouble.title, cells.join(" | "));
    }
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_at_any_request_is_ridden_out_or_named_when_the_time_is_over() {
    let troubles = troubles();
    let mut undisturbed = Vec::new();
    for command in Command::ALL {
        undisturbed.push(Undisturbed::of(command).await);
    }
    let mut cases = Vec::new();
    for (at, trouble) in troubles.iter().enumerate() {
        for of in &undisturbed {
            let places = of.requests.iter().filter(|request| (trouble.is_at)(request));
            cases.extend(places.map(|request| (at, Case { of, trouble, request })));
        }
    }
    let count = cases.len();
    assert!(count > 200, "{count} cases only");
    let results = stream::iter(cases).map(async |(at, case)| {
        let command = case.of.command;
        let passing = case.passing().await;
        let staying = match command.has_a_deadline() {
            true => case.staying().await,
            false => None,
        };
        let place = format!(
            "{} at {} of {}",
            case.trouble.title,
            case.request,
            command.title()
        );
        let found = [passing, staying].map(|wrong| wrong.map(|wrong| format!("{place}: {wrong}")));
        ((at, command), found)
    });
    let results: Vec<_> = results.buffer_unordered(AT_ONCE).collect().await;
    let outcomes: BTreeSet<(usize, Command)> = results.iter().map(|(place, _)| *place).collect();
    let wrong: Vec<String> = results
        .into_iter()
        .flat_map(|(_, found)| found)
        .flatten()
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    documented("trouble", &table(&outcomes, &troubles));
}

#[tokio::test]
async fn no_command_leans_on_what_the_server_remembers() {
    for command in Command::ALL {
        let server = command.beginning().await;
        server.state().queries.clear();
        command.run(&server, LONG).await.unwrap();
        let leans = |query: &&String| {
            ["watch=", "resourceVersion=", "continue="]
                .iter()
                .any(|word| query.contains(word))
        };
        let leaning: Vec<String> = server.state().queries.iter().filter(leans).cloned().collect();
        assert_eq!(
            leaning,
            Vec::<String>::new(),
            "{command:?}: a watch may be cut, and a version expire (410)"
        );
    }
}
