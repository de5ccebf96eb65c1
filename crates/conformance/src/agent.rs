//! A probe agent in a pod: asks it for attempts and for what its listeners saw. Attempts that are asked for at about the same time
//! share one exec call. What the outcomes mean is left to `probing`.

use crate::error::HarnessError;
use crate::exec::{Command, exec};
use crate::resource::Place;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use probe::protocol::{self, Attempt, Line, Outcome, Protocol, Request, Sighting, WitnessLine};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long to wait for other checks' attempts before a batch is sent.
const GATHER: Duration = Duration::from_millis(40);
/// What an exec call costs beside its attempts, at worst.
const EXEC_OVERHEAD: Duration = Duration::from_secs(15);
/// Attempts under way at once in one pod. With all agents of a run together this stays far from what overflows a policy engine's queue
/// (kindnet's holds 1024 packets, and fails open).
const CONCURRENCY: usize = protocol::MAX_CONCURRENCY;

/// One thing to try.
#[derive(Debug, Clone)]
pub struct Try {
    /// What is spoken.
    pub protocol: Protocol,
    /// Address or name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How long it may take.
    pub timeout: Duration,
    /// For DNS, the name to look up.
    pub query: Option<String>,
}

/// What came of a [`Try`], and the nonce it carried.
#[derive(Debug, Clone)]
pub struct Tried {
    /// The agent's account.
    pub outcome: Outcome,
    /// What the target's witness may have seen.
    pub nonce: String,
}

/// An agent's pod, as it was when it became ready.
pub struct Agent {
    /// Where it stands.
    pub place: Place,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its address.
    pub ip: String,
    /// Its node.
    pub node: String,
    client: kube::Client,
    ids: AtomicU32,
    gathering: Mutex<Option<Gathering>>,
}

type Batch = Shared<BoxFuture<'static, Result<Arc<HashMap<u32, Outcome>>, HarnessError>>>;

struct Gathering {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    batch: Batch,
}

impl Agent {
    /// An agent in a pod that runs and has an address.
    pub fn new(
        client: kube::Client,
        place: Place,
        namespace: String,
        pod: String,
        ip: String,
        node: String,
    ) -> Self {
        Agent {
            place,
            namespace,
            pod,
            ip,
            node,
            client,
            ids: AtomicU32::new(1),
            gathering: Mutex::new(None),
        }
    }

    /// Makes each attempt once, all at the same time, and answers in the same order.
    ///
    /// # Errors
    /// The exec call failed, was cut off, or the agent did not answer every attempt: nothing can be concluded then.
    pub async fn attempt(self: &Arc<Self>, tries: &[Try]) -> Result<Vec<Tried>, HarnessError> {
        let mut attempts = Vec::with_capacity(tries.len());
        for attempt in tries {
            attempts.push(Attempt {
                id: self.ids.fetch_add(1, Ordering::Relaxed),
                protocol: attempt.protocol,
                host: attempt.host.clone(),
                port: attempt.port,
                nonce: nonce()?,
                timeout_ms: u64::try_from(attempt.timeout.as_millis()).unwrap_or(protocol::MAX_TIMEOUT_MS),
                query: attempt.query.clone(),
            });
        }
        let outcomes = self.join(&attempts).await?;
        let mut tried = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            let outcome = outcomes.get(&attempt.id).cloned();
            let outcome = outcome.ok_or_else(|| {
                HarnessError::new(format!(
                    "agent {}: no outcome for {}:{}",
                    self.place, attempt.host, attempt.port
                ))
            })?;
            tried.push(Tried {
                outcome,
                nonce: attempt.nonce,
            });
        }
        Ok(tried)
    }

    /// Adds attempts to the batch that is being gathered, or starts one.
    fn join(self: &Arc<Self>, attempts: &[Attempt]) -> Batch {
        let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        let current = gathering.get_or_insert_with(|| {
            let list = Arc::new(Mutex::new(Vec::new()));
            let batch = Arc::clone(self).send_gathered(Arc::clone(&list)).boxed().shared();
            Gathering {
                attempts: list,
                batch,
            }
        });
        current
            .attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(attempts);
        current.batch.clone()
    }

    async fn send_gathered(
        self: Arc<Self>,
        list: Arc<Mutex<Vec<Attempt>>>,
    ) -> Result<Arc<HashMap<u32, Outcome>>, HarnessError> {
        tokio::time::sleep(GATHER).await;
        let attempts = {
            let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
            *gathering = None;
            std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut outcomes = HashMap::new();
        for chunk in attempts.chunks(protocol::MAX_ATTEMPTS) {
            for outcome in self.send(chunk).await? {
                outcomes.insert(outcome.id, outcome);
            }
        }
        Ok(Arc::new(outcomes))
    }

    async fn send(&self, attempts: &[Attempt]) -> Result<Vec<Outcome>, HarnessError> {
        let request = Request {
            version: protocol::VERSION,
            concurrency: CONCURRENCY,
            attempts: attempts.to_vec(),
        };
        let mut line = serde_json::to_vec(&request)
            .map_err(|error| HarnessError::during("write the agent's request", &error))?;
        line.push(b'\n');
        let longest: u64 = attempts
            .iter()
            .map(|attempt| attempt.timeout_ms)
            .max()
            .unwrap_or(0);
        let waves = u32::try_from(attempts.len().div_ceil(CONCURRENCY)).unwrap_or(u32::MAX);
        let limit = EXEC_OVERHEAD + Duration::from_millis(longest) * waves;
        let stdout = self.run(&["/probe", "attempt"], Some(&line), limit).await?;
        self.read_outcomes(&stdout)
    }

    fn read_outcomes(&self, stdout: &str) -> Result<Vec<Outcome>, HarnessError> {
        let mut outcomes = Vec::new();
        for line in stdout.lines() {
            match serde_json::from_str(line).map_err(|error| self.unreadable(line, &error))? {
                Line::Outcome(outcome) => outcomes.push(outcome),
                Line::Summary(summary) if summary.done == outcomes.len() => return Ok(outcomes),
                Line::Summary(summary) => return Err(self.truncated(summary.done, outcomes.len())),
            }
        }
        Err(HarnessError::new(format!(
            "agent {}: its answer has no last line",
            self.place
        )))
    }

    /// The nonces that this agent's listeners have seen so far.
    ///
    /// # Errors
    /// As for [`Agent::attempt`].
    pub async fn sightings(&self) -> Result<Vec<Sighting>, HarnessError> {
        let stdout = self.run(&["/probe", "witness"], None, EXEC_OVERHEAD).await?;
        let mut sightings = Vec::new();
        for line in stdout.lines() {
            match serde_json::from_str(line).map_err(|error| self.unreadable(line, &error))? {
                WitnessLine::Sighting(sighting) => sightings.push(sighting),
                WitnessLine::Summary(summary) if summary.done == sightings.len() => return Ok(sightings),
                WitnessLine::Summary(summary) => return Err(self.truncated(summary.done, sightings.len())),
            }
        }
        Err(HarnessError::new(format!(
            "agent {}: its witness's answer has no last line",
            self.place
        )))
    }

    async fn run(
        &self,
        command: &[&str],
        stdin: Option<&[u8]>,
        limit: Duration,
    ) -> Result<String, HarnessError> {
        let command = Command {
            namespace: &self.namespace,
            pod: &self.pod,
            command,
            stdin,
            limit,
        };
        let begin = tokio::time::Instant::now();
        let output = exec(&self.client, &command).await?;
        tracing::debug!(agent = %self.place, namespace = %self.namespace, command = ?command.command, took = ?begin.elapsed(), "exec");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.code != 0 {
            let said = if output.stderr.trim().is_empty() {
                stdout
            } else {
                output.stderr
            };
            let what = format!("agent {}: exit code {}: {}", self.place, output.code, said.trim());
            return Err(HarnessError::new(what));
        }
        Ok(stdout)
    }

    fn unreadable(&self, line: &str, error: &serde_json::Error) -> HarnessError {
        let start: String = line.chars().take(80).collect();
        HarnessError::new(format!(
            "agent {}: unreadable line {start:?}: {error}",
            self.place
        ))
        .hint("the agent's image may be of another version: build and load it again")
    }

    fn truncated(&self, announced: usize, came: usize) -> HarnessError {
        HarnessError::new(format!(
            "agent {}: {announced} lines announced, {came} came",
            self.place
        ))
    }
}

/// Unique to an attempt, and not to be guessed.
fn nonce() -> Result<String, HarnessError> {
    let random = getrandom::u64().map_err(|error| HarnessError::during("make a nonce", &error))?;
    Ok(format!("{random:016x}"))
}
