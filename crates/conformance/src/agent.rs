//! A probe agent in a pod: asks it for attempts, for what its listeners saw, and to speak with PostgreSQL and Redis, all in one session, since an exec call costs more than
//! what is asked in it. What the outcomes mean is left to `probing`.

use crate::error::HarnessError;
use crate::exec::{self, Command, Input, Output};
use crate::resource::Place;
use crate::retry::Retries;
use probe::protocol::{
    self, Ask, Attempt, CommandResult, Ending, Held, Hold, Outcome, Part, Protocol, Question, RedisRequest,
    Reply, Request, SqlRequest, StatementResult, Summary, Unconnected,
};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

/// What a question costs beside its attempts, at worst.
const OVERHEAD: Duration = Duration::from_secs(15);
/// Attempts under way at once in one pod for one question. With all agents of a run together this stays far from what overflows a policy
/// engine's queue (kindnet's holds 1024 packets, and fails open).
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

/// Whether a question may be asked a second time where the connection was lost and nobody knows what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It may: everything in it may be done twice.
    Once,
    /// It may not.
    Never,
}

/// What came of a conversation with PostgreSQL or Redis: one result for each statement or command; or why there was no conversation.
pub type Said<T> = Result<Vec<T>, Unconnected>;

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
    retries: Arc<Retries>,
    ids: AtomicU32,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    seen: tokio::sync::Mutex<Seen>,
}

/// What its listeners have seen, as far as they were asked.
#[derive(Default)]
struct Seen {
    nonces: HashSet<String>,
    /// The latest of these, by the clock of the agent's node, in milliseconds since the Unix epoch.
    until_ms: u64,
    /// When the last question that was answered was asked.
    asked: Option<Instant>,
}

/// So much before the latest is asked for again: a clock may be set back.
const OVERLAP_MS: u64 = 5_000;

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
            retries: Arc::default(),
            ids: AtomicU32::new(1),
            session: tokio::sync::Mutex::new(None),
            seen: tokio::sync::Mutex::default(),
        }
    }

    /// Counts the sessions that are lost among these.
    #[must_use]
    pub fn counting(self, retries: Arc<Retries>) -> Self {
        Agent { retries, ..self }
    }

    /// Makes each attempt once, all at the same time, and answers in the same order.
    ///
    /// # Errors
    /// The exec call failed, was cut off, or the agent did not answer every attempt: nothing can be concluded then.
    pub async fn attempt(&self, tries: &[Try]) -> Result<Vec<Tried>, HarnessError> {
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
        let mut outcomes = HashMap::new();
        for chunk in attempts.chunks(protocol::MAX_ATTEMPTS) {
            for outcome in self.send(chunk).await? {
                outcomes.insert(outcome.id, outcome);
            }
        }
        let mut tried = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            let outcome = outcomes.remove(&attempt.id);
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

    async fn send(&self, attempts: &[Attempt]) -> Result<Vec<Outcome>, HarnessError> {
        let longest: u64 = attempts
            .iter()
            .map(|attempt| attempt.timeout_ms)
            .max()
            .unwrap_or(0);
        let waves = u32::try_from(attempts.len().div_ceil(CONCURRENCY)).unwrap_or(u32::MAX);
        let question = Question::Attempt(Request {
            version: protocol::VERSION,
            concurrency: CONCURRENCY,
            attempts: attempts.to_vec(),
        });
        let parts = self
            .ask(
                &question,
                OVERHEAD + Duration::from_millis(longest) * waves,
                Again::Once,
            )
            .await?;
        Ok(parts
            .into_iter()
            .filter_map(|part| match part {
                Part::Outcome(outcome) => Some(outcome),
                _ => None,
            })
            .collect())
    }

    /// Says these statements to PostgreSQL, in a session of their own, and answers with one result for each, in their order. They are said
    /// once only: where the connection to the agent is lost on the way, nobody knows which of them were executed.
    ///
    /// # Errors
    /// As for [`Agent::attempt`]; and where there was no session with PostgreSQL, with the cause and what to do about it.
    pub async fn sql(&self, request: &SqlRequest) -> Result<Vec<StatementResult>, HarnessError> {
        let said = self.sql_session(request, Again::Never).await?;
        said.map_err(|why| no_postgresql(&self.place, request, &why))
    }

    /// The same for those whose statements may be executed twice, or who want to know how the server refused the session.
    ///
    /// # Errors
    /// As for [`Agent::attempt`].
    pub async fn sql_session(
        &self,
        request: &SqlRequest,
        again: Again,
    ) -> Result<Said<StatementResult>, HarnessError> {
        let limit = OVERHEAD + Duration::from_millis(request.timeout_ms);
        let question = Question::Sql(request.clone());
        let mut results = Ok(Vec::new());
        for part in self.ask(&question, limit, again).await? {
            match (part, &mut results) {
                (Part::Rows(result), Ok(results)) => results.push(result),
                (Part::Unconnected(why), _) => results = Err(why),
                _ => {}
            }
        }
        self.complete(&results, request.statements.len())?;
        Ok(results)
    }

    /// Opens a session as this request says, and so many further ones, one after the other until one is refused, and holds them all until
    /// they are released, [`protocol::MAX_CONVERSATION_MS`] at most.
    ///
    /// # Errors
    /// As for [`Agent::attempt`]; and where there was no session at all, with the cause and what to do about it.
    pub async fn hold(&self, request: &SqlRequest, connections: usize) -> Result<Holding<'_>, HarnessError> {
        let request = SqlRequest {
            statements: Vec::new(),
            hold: Some(Hold {
                connections,
                for_ms: protocol::MAX_CONVERSATION_MS,
            }),
            ..request.clone()
        };
        let ask = Ask {
            ask: self.ids.fetch_add(1, Ordering::Relaxed),
            question: Question::Sql(request.clone()),
        };
        let opened = async {
            let session = self.session().await?;
            let mut replies = session.ask(&ask).await?;
            let held = match part(&mut replies).await? {
                Part::Held(held) => held,
                Part::Unconnected(why) => return Err(no_postgresql(&self.place, &request, &why)),
                other => return Err(HarnessError::new(format!("expected what is held, got {other:?}"))),
            };
            Ok(Holding {
                agent: self,
                session,
                ask: ask.ask,
                replies,
                held,
            })
        };
        let limit = OVERHEAD + Duration::from_millis(request.timeout_ms);
        self.answered_within(limit, opened).await
    }

    /// Says these commands to Redis, on a connection of their own, and answers with one result for each, in their order. They are said once
    /// only, as with [`Agent::sql`].
    ///
    /// # Errors
    /// As for [`Agent::attempt`]; and where there was no connection with Redis, with the cause and what to do about it.
    pub async fn redis(&self, request: &RedisRequest) -> Result<Vec<CommandResult>, HarnessError> {
        let said = self.redis_session(request, Again::Never).await?;
        said.map_err(|why| no_redis(&self.place, request, &why))
    }

    /// The same for those whose commands may be executed twice, or who want to know how the server refused the user.
    ///
    /// # Errors
    /// As for [`Agent::attempt`].
    pub async fn redis_session(
        &self,
        request: &RedisRequest,
        again: Again,
    ) -> Result<Said<CommandResult>, HarnessError> {
        let limit = OVERHEAD + Duration::from_millis(request.timeout_ms);
        let question = Question::Redis(request.clone());
        let mut results = Ok(Vec::new());
        for part in self.ask(&question, limit, again).await? {
            match (part, &mut results) {
                (Part::Answer(result), Ok(results)) => results.push(result),
                (Part::Unconnected(why), _) => results = Err(why),
                _ => {}
            }
        }
        self.complete(&results, request.commands.len())?;
        Ok(results)
    }

    /// The nonces that this agent's listeners have seen so far. Of many that ask at the same time one asks for all.
    ///
    /// # Errors
    /// As for [`Agent::attempt`].
    pub async fn sightings(&self) -> Result<HashSet<String>, HarnessError> {
        let wanted = Instant::now();
        let mut seen = self.seen.lock().await;
        if seen.asked.is_none_or(|asked| asked < wanted) {
            let begin = Instant::now();
            let since = seen.until_ms.saturating_sub(OVERLAP_MS);
            for part in self.ask(&Question::Witness(since), OVERHEAD, Again::Once).await? {
                if let Part::Sighting(sighting) = part {
                    seen.until_ms = seen.until_ms.max(sighting.at_ms);
                    seen.nonces.insert(sighting.nonce);
                }
            }
            seen.asked = Some(begin);
        }
        Ok(seen.nonces.clone())
    }

    /// As many results as there was something to say, where there was a conversation at all.
    fn complete<T>(
        &self,
        results: &Result<Vec<T>, Unconnected>,
        expected: usize,
    ) -> Result<(), HarnessError> {
        match results {
            Ok(results) if results.len() != expected => Err(HarnessError::new(format!(
                "agent {}: {expected} results expected, {} came",
                self.place,
                results.len()
            ))),
            _ => Ok(()),
        }
    }

    /// Asks, and asks again in a new session where the connection was lost: if the question may be asked twice, or was not asked yet.
    async fn ask(
        &self,
        question: &Question,
        limit: Duration,
        again: Again,
    ) -> Result<Vec<Part>, HarnessError> {
        let begin = tokio::time::Instant::now();
        let asked = async {
            let session = self.session().await?;
            let (mut heard, mut sent) = (Vec::new(), false);
            let answer = self.answer(&session, question, &mut heard, &mut sent).await;
            if let Err(error) = &answer
                && session.is_over()
                && (again == Again::Once || !sent)
            {
                if error.what.contains(exec::CUT_OFF) {
                    self.retries.count("the exec of an agent was cut off");
                }
                let session = self.session().await?;
                let again = self.answer(&session, question, &mut Vec::new(), &mut false).await;
                again.map(|parts| with_reached(parts, heard))
            } else {
                answer
            }
        };
        let answer = self.answered_within(limit, asked).await;
        tracing::debug!(agent = %self.place, namespace = %self.namespace, took = ?begin.elapsed(), "asked");
        answer.map_err(|error| HarnessError {
            what: format!("agent {}: {}", self.place, error.what),
            ..error
        })
    }

    async fn answered_within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, HarnessError>>,
    ) -> Result<T, HarnessError> {
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                // It may be stuck, whatever else is under way in it: the next question gets a new one.
                self.session.lock().await.take();
                Err(HarnessError::new(format!(
                    "no answer within {} s",
                    limit.as_secs_f64()
                )))
            }
        }
    }

    /// Ends the session that is open, and with it what is under way in it.
    pub async fn hang_up(&self) {
        self.session.lock().await.take();
    }

    /// The session that is open, or a new one.
    async fn session(&self) -> Result<Arc<Session>, HarnessError> {
        let mut current = self.session.lock().await;
        if let Some(session) = current.as_ref().filter(|session| !session.is_over()) {
            return Ok(Arc::clone(session));
        }
        let command = Command {
            namespace: &self.namespace,
            pod: &self.pod,
            command: &["/probe", "session"],
        };
        let (input, output) = exec::start(&self.client, command).await?;
        let session = Arc::new(Session::over(input, output));
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Asks; `heard` is what came, also where that is not all, and `sent` whether the agent may have got the question.
    async fn answer(
        &self,
        session: &Session,
        question: &Question,
        heard: &mut Vec<Part>,
        sent: &mut bool,
    ) -> Result<Vec<Part>, HarnessError> {
        let ask = Ask {
            ask: self.ids.fetch_add(1, Ordering::Relaxed),
            question: question.clone(),
        };
        let mut replies = session.ask(&ask).await?;
        *sent = true;
        loop {
            match part(&mut replies).await? {
                Part::End(Summary {
                    refused: Some(why), ..
                }) => return Err(HarnessError::new(why)),
                Part::End(Summary { done, .. }) if done != heard.len() => {
                    let came = heard.len();
                    return Err(HarnessError::new(format!("{done} lines announced, {came} came")));
                }
                Part::End(_) => return Ok(std::mem::take(heard)),
                part => heard.push(part),
            }
        }
    }
}

/// Connections that an agent holds. Dropped without being released, they are held for as long as the agent was told at most.
pub struct Holding<'a> {
    agent: &'a Agent,
    session: Arc<Session>,
    ask: u32,
    replies: Replies,
    /// What came of them.
    pub held: Held,
}

impl Holding<'_> {
    /// Lets them go; ends once they are closed.
    ///
    /// # Errors
    /// They were not held until now: their time was over, or the session with the agent was lost. Or the agent does not answer.
    pub async fn release(mut self) -> Result<(), HarnessError> {
        if let Ok(early) = self.replies.try_recv() {
            let why = early.map_or_else(|error| error.to_string(), |part| format!("{part:?}"));
            return Err(HarnessError::new(format!(
                "agent {}: the connections were let go before they were released: {why}",
                self.agent.place
            )));
        }
        let ask = Ask {
            ask: self.agent.ids.fetch_add(1, Ordering::Relaxed),
            question: Question::Release(self.ask),
        };
        let ended = async {
            let mut told = self.session.ask(&ask).await?;
            ended(part(&mut told).await?)?;
            ended(part(&mut self.replies).await?)
        };
        self.agent.answered_within(OVERHEAD, ended).await
    }
}

/// The next part of an answer.
async fn part(replies: &mut Replies) -> Result<Part, HarnessError> {
    let part = replies.recv().await;
    part.unwrap_or_else(|| Err(HarnessError::new("its answer has no last line")))
}

fn ended(part: Part) -> Result<(), HarnessError> {
    match part {
        Part::End(Summary { refused: None, .. }) => Ok(()),
        other => Err(HarnessError::new(format!("expected the end, got {other:?}"))),
    }
}

/// There was no session with PostgreSQL: an error of the surroundings, never a denial.
pub fn no_postgresql(place: &Place, request: &SqlRequest, why: &Unconnected) -> HarnessError {
    let hint = match (why.ending, why.code.as_deref()) {
        (_, Some("28P01" | "28000")) => {
            "the role is missing, or its password is not the one in the tenant's Secret: provisioner apply registers the tenant"
        }
        (_, Some("3D000" | "42501")) => {
            "the database is missing, or the role may not connect to it: enhancer migrate makes it, and postgresql.database in the settings names it"
        }
        (_, Some("53300")) => {
            "all connections are taken: see who holds them in pg_stat_activity, and run again"
        }
        (_, Some("57P03" | "57P01" | "57P02")) => {
            "PostgreSQL starts or stops: run again once its pod is ready"
        }
        (ending, _) => no_connection(ending),
    };
    no_conversation(
        place,
        "PostgreSQL",
        (&request.host, request.port, &request.user),
        why,
    )
    .hint(hint)
}

/// The same for Redis.
pub fn no_redis(place: &Place, request: &RedisRequest, why: &Unconnected) -> HarnessError {
    let hint = match (why.ending, why.code.as_deref()) {
        (_, Some("WRONGPASS" | "NOAUTH" | "NOPERM")) => {
            "the user is missing or off, or its password is not the one in the tenant's Secret: provisioner apply registers the tenant"
        }
        (_, Some("LOADING" | "BUSY" | "MASTERDOWN")) => "run again once Redis answers PING",
        (ending, _) => no_connection(ending),
    };
    no_conversation(place, "Redis", (&request.host, request.port, &request.user), why).hint(hint)
}

fn no_connection(ending: Ending) -> &'static str {
    match ending {
        Ending::Reached | Ending::ConnectedWithoutEcho => {
            "see its log, and whether it is this service that listens there"
        }
        Ending::LocalError => "see the agent's log",
        Ending::Refused | Ending::Unreachable | Ending::TimedOut | Ending::DnsFailed => {
            "see that its pods are ready; NET-08 shows whether the tenant reaches it"
        }
    }
}

fn no_conversation(
    place: &Place,
    service: &str,
    (host, port, user): (&str, u16, &str),
    why: &Unconnected,
) -> HarnessError {
    let how = match why.ending {
        Ending::Reached => "it refuses",
        Ending::ConnectedWithoutEcho => "connected, but",
        Ending::Refused => "connection refused",
        Ending::Unreachable => "unreachable",
        Ending::TimedOut => "timed out",
        Ending::DnsFailed => "the name did not resolve",
        Ending::LocalError => "the agent could not try",
    };
    // Redis' words begin with it.
    let code = why
        .code
        .as_ref()
        .filter(|code| !why.message.starts_with(code.as_str()));
    let code = code.map(|code| format!("{code} ")).unwrap_or_default();
    HarnessError::new(format!(
        "agent {place} as {user} at {service} {host}:{port}: {how}: {code}{}",
        why.message
    ))
}

/// What got through before the connection was lost counts, whatever the second time shows.
fn with_reached(mut parts: Vec<Part>, heard: Vec<Part>) -> Vec<Part> {
    for part in heard {
        if let Part::Outcome(first) = part
            && first.ending == Ending::Reached
            && let Some(Part::Outcome(again)) = parts
                .iter_mut()
                .find(|part| matches!(part, Part::Outcome(again) if again.id == first.id))
        {
            *again = first;
        }
    }
    parts
}

/// What an agent answers to one question, part by part.
type Replies = UnboundedReceiver<Result<Part, HarnessError>>;

/// A conversation with an agent: many questions at once.
struct Session {
    input: tokio::sync::Mutex<Input>,
    waiting: Arc<Mutex<Waiting>>,
    // Reads for as long as somebody may ask.
    _reader: AbortOnDropHandle<()>,
}

/// Who waits for an answer, by the question's number; or why there are no more.
enum Waiting {
    For(HashMap<u32, UnboundedSender<Result<Part, HarnessError>>>),
    Over(HarnessError),
}

impl Session {
    fn over(input: Input, output: Output) -> Self {
        let waiting = Arc::new(Mutex::new(Waiting::For(HashMap::new())));
        let reader = tokio::spawn(read(output, Arc::clone(&waiting)));
        Session {
            input: tokio::sync::Mutex::new(input),
            waiting,
            _reader: AbortOnDropHandle::new(reader),
        }
    }

    fn is_over(&self) -> bool {
        matches!(*lock(&self.waiting), Waiting::Over(_))
    }

    async fn ask(&self, ask: &Ask) -> Result<Replies, HarnessError> {
        let line = serde_json::to_vec(ask)
            .map_err(|error| HarnessError::during("write the agent's question", &error))?;
        let (reply, replies) = unbounded_channel();
        match &mut *lock(&self.waiting) {
            Waiting::For(who) => drop(who.insert(ask.ask, reply)),
            Waiting::Over(why) => return Err(why.clone()),
        }
        if let Err(error) = self.input.lock().await.line(&line).await {
            let error = error.into();
            end(&self.waiting, &error);
            return Err(error);
        }
        Ok(replies)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands each reply to who waits for it, until the session ends.
async fn read(mut output: Output, waiting: Arc<Mutex<Waiting>>) {
    let why = loop {
        let line = match output.line().await {
            Ok(line) => line,
            Err(error) => break error.into(),
        };
        let reply: Reply = match serde_json::from_slice(&line) {
            Ok(reply) => reply,
            Err(error) => break unreadable(&line, &error),
        };
        // A question that it could not read: nobody knows whose.
        if let Reply {
            ask: 0,
            part: Part::End(summary),
        } = reply
        {
            break HarnessError::new(summary.refused.unwrap_or_default());
        }
        if let Waiting::For(who) = &mut *lock(&waiting) {
            let last = matches!(reply.part, Part::End(_));
            if let Some(reply_to) = who.get(&reply.ask) {
                // Who no longer waits was too slow for somebody.
                let _ = reply_to.send(Ok(reply.part));
            }
            if last {
                who.remove(&reply.ask);
            }
        }
    };
    end(&waiting, &why);
}

/// Tells all who wait why no answer comes.
fn end(waiting: &Mutex<Waiting>, why: &HarnessError) {
    if let Waiting::For(who) = std::mem::replace(&mut *lock(waiting), Waiting::Over(why.clone())) {
        for reply_to in who.into_values() {
            let _ = reply_to.send(Err(why.clone()));
        }
    }
}

fn unreadable(line: &[u8], error: &serde_json::Error) -> HarnessError {
    let start: String = String::from_utf8_lossy(line).chars().take(80).collect();
    HarnessError::new(format!("unreadable line {start:?}: {error}"))
        .hint("the agent's image may be of another version: build and load it again")
}

/// Unique to an attempt, and not to be guessed.
fn nonce() -> Result<String, HarnessError> {
    let random = getrandom::u64().map_err(|error| HarnessError::during("make a nonce", &error))?;
    Ok(format!("{random:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Server, serve};
    use axum::Router;
    use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
    use axum::routing::any;
    use rstest::rstest;
    use std::sync::atomic::AtomicUsize;

    /// What a scripted agent does with a question.
    #[derive(Clone, Copy)]
    enum Answer {
        /// One sighting and an end.
        Whole,
        /// An end that announces more than came.
        Short,
        /// Loses the connection.
        Cut,
        /// Refuses.
        Refuse,
        /// Cannot read the question.
        Unread,
        /// Writes no JSON.
        Garbled,
        /// These parts and an end.
        Parts(&'static [&'static str]),
        /// Connections, and an end once they are released.
        Held,
        /// Connections, and the connection is lost.
        HeldAndLost,
    }

    const SIGHTING: &str =
        r#""sighting":{"nonce":"n","from":"127.0.0.1:1","to":"127.0.0.1:2","protocol":"tcp","at_ms":1}"#;

    fn stdout(text: &str) -> Message {
        Message::Binary([&[1], text.as_bytes(), b"\n"].concat().into())
    }

    async fn converse(mut socket: WebSocket, answer: Answer) {
        while let Some(Ok(Message::Binary(frame))) = socket.recv().await {
            let ask: Ask = serde_json::from_slice(&frame[1..]).unwrap();
            let (ask, question) = (ask.ask, ask.question);
            let lines = match answer {
                Answer::Cut => return,
                Answer::Held => match question {
                    Question::Release(held) => vec![
                        format!(r#"{{"ask":{ask},"end":{{"done":0}}}}"#),
                        format!(r#"{{"ask":{held},"end":{{"done":1}}}}"#),
                    ],
                    _ => vec![format!(r#"{{"ask":{ask},{HELD}}}"#)],
                },
                Answer::HeldAndLost => {
                    let held = format!(r#"{{"ask":{ask},{HELD}}}"#);
                    socket.send(stdout(&held)).await.unwrap();
                    return;
                }
                Answer::Whole => vec![
                    format!(r#"{{"ask":{ask},{SIGHTING}}}"#),
                    format!(r#"{{"ask":{ask},"end":{{"done":1}}}}"#),
                ],
                Answer::Short => vec![format!(r#"{{"ask":{ask},"end":{{"done":1}}}}"#)],
                Answer::Refuse => vec![format!(
                    r#"{{"ask":{ask},"end":{{"done":0,"refused":"forgot"}}}}"#
                )],
                Answer::Unread => vec![r#"{"ask":0,"end":{"done":0,"refused":"not a question"}}"#.to_owned()],
                Answer::Garbled => vec!["panic!".to_owned()],
                Answer::Parts(parts) => {
                    let end = format!(r#""end":{{"done":{}}}"#, parts.len());
                    let parts = parts.iter().map(|part| (*part).to_owned()).chain([end]);
                    parts.map(|part| format!(r#"{{"ask":{ask},{part}}}"#)).collect()
                }
            };
            for line in lines {
                socket.send(stdout(&line)).await.unwrap();
            }
        }
    }

    /// An agent whose sessions answer like this, one after the other; the last goes on for ever.
    async fn agent(sessions: &'static [Answer]) -> (Server, Agent, Arc<AtomicUsize>) {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let route = any(move |upgrade: WebSocketUpgrade| async move {
            let nth = count.fetch_add(1, Ordering::Relaxed).min(sessions.len() - 1);
            upgrade
                .protocols(["v5.channel.k8s.io"])
                .on_upgrade(move |socket| converse(socket, sessions[nth]))
        });
        let server = serve(Router::new().fallback(route)).await;
        let agent = Agent::new(
            server.client(),
            Place::Sink,
            "n".into(),
            "p".into(),
            "10.0.0.1".into(),
            "node".into(),
        );
        (server, agent, opened)
    }

    #[tokio::test]
    async fn many_questions_are_one_session() {
        let (_server, agent, opened) = agent(&[Answer::Whole]).await;
        let (one, two) = tokio::join!(agent.sightings(), agent.sightings());
        assert_eq!((one.unwrap().len(), two.unwrap().len()), (1, 1));
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_a_lost_connection_took_along_is_asked_once_more() {
        let (_server, agent, opened) = agent(&[Answer::Cut, Answer::Whole]).await;
        assert!(agent.sightings().await.unwrap().contains("n"));
        assert_eq!(opened.load(Ordering::Relaxed), 2);
        let told = agent.retries.told();
        assert_eq!(
            told[0].to_string(),
            "the exec of an agent was cut off once; asked again"
        );
    }

    #[test]
    fn what_got_through_before_a_cut_is_not_forgotten() {
        let outcome = |id, ending| {
            Part::Outcome(
                serde_json::from_value(
                    serde_json::json!({ "id": id, "ending": ending, "echoed": false, "total_ms": 1 }),
                )
                .unwrap(),
            )
        };
        let again = vec![
            outcome(1, "timed-out"),
            outcome(2, "timed-out"),
            outcome(3, "reached"),
        ];
        let heard = vec![outcome(2, "reached"), outcome(3, "timed-out")];
        let expected = vec![
            outcome(1, "timed-out"),
            outcome(2, "reached"),
            outcome(3, "reached"),
        ];
        assert_eq!(with_reached(again, heard), expected);
    }

    const ROW: &str = r#""rows":{"Ok":{"rows":[["1"]],"affected":1}}"#;
    const REFUSED: &str = r#""rows":{"Err":{"sqlstate":"42501","message":"no"}}"#;
    const PONG: &str = r#""answer":{"Ok":"PONG"}"#;

    fn two_statements() -> SqlRequest {
        serde_json::from_value(serde_json::json!({
            "host": "db", "port": 5432, "user": "tenant-a", "password": "hunter2", "database": "d", "timeout_ms": 1000,
            "statements": ["one", "two"],
        }))
        .unwrap()
    }
    fn ping() -> RedisRequest {
        serde_json::from_value(serde_json::json!({
            "host": "r", "port": 6379, "user": "tenant-a", "password": "hunter2", "timeout_ms": 1000,
            "commands": [{ "args": ["PING"] }],
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn what_is_said_is_answered_in_order() {
        let (_server, agent, _) = agent(&[Answer::Parts(&[ROW, REFUSED])]).await;
        let results = agent.sql(&two_statements()).await.unwrap();
        assert_eq!(results[0].as_ref().unwrap().rows, [[Some("1".to_owned())]]);
        let state = results[1].as_ref().unwrap_err().sqlstate.as_deref();
        assert_eq!(state, Some("42501"));
    }

    #[tokio::test]
    async fn redis_answers_likewise() {
        let (_server, agent, _) = agent(&[Answer::Parts(&[PONG])]).await;
        let results = agent.redis(&ping()).await.unwrap();
        assert_eq!(results, [Ok(serde_json::json!("PONG"))]);
    }

    const HELD: &str = r#""held":{"accepted":9,"after_ms":40,"refused":{"ending":"reached","code":"53300","message":"full"}}"#;

    #[tokio::test]
    async fn connections_are_held_until_they_are_released() {
        let (_server, agent, opened) = agent(&[Answer::Held]).await;
        let holding = agent.hold(&two_statements(), 9).await.unwrap();
        assert_eq!(holding.held.accepted, 9);
        holding.release().await.unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }

    #[rstest]
    #[case::their_time_was_over(&[Answer::Parts(&[HELD])], "End")]
    #[case::the_agent_was_lost(&[Answer::HeldAndLost], exec::CUT_OFF)]
    #[tokio::test]
    async fn connections_that_were_let_go_before_are_an_error(
        #[case] sessions: &'static [Answer],
        #[case] expected: &str,
    ) {
        let (_server, agent, _) = agent(sessions).await;
        let holding = agent.hold(&two_statements(), 9).await.unwrap();
        // What was sent after it has to arrive.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let error = holding.release().await.unwrap_err();
        assert!(
            error.what.contains("let go before they were released") && error.what.contains(expected),
            "{error}"
        );
    }

    #[tokio::test]
    async fn where_none_is_given_nothing_is_held() {
        let refused = r#""unconnected":{"ending":"reached","code":"53300","message":"too many"}"#;
        let parts: &'static [&'static str] = Box::leak(Box::new([refused]));
        let (_server, agent, _) = agent(Box::leak(Box::new([Answer::Parts(parts)]))).await;
        let error = agent.hold(&two_statements(), 9).await.err().unwrap();
        assert!(error.what.contains("it refuses: 53300 too many"), "{error}");
    }

    #[rstest]
    #[case::wrong_password(
        r#""unconnected":{"ending":"reached","code":"28P01","message":"password authentication failed"}"#,
        "it refuses: 28P01 password authentication failed",
        "provisioner apply"
    )]
    #[case::too_many(
        r#""unconnected":{"ending":"reached","code":"53300","message":"too many"}"#,
        "it refuses: 53300 too many",
        "pg_stat_activity"
    )]
    #[case::starting(
        r#""unconnected":{"ending":"reached","code":"57P03","message":"starting up"}"#,
        "it refuses: 57P03",
        "once its pod is ready"
    )]
    #[case::no_database(
        r#""unconnected":{"ending":"reached","code":"3D000","message":"no such"}"#,
        "it refuses: 3D000",
        "enhancer migrate"
    )]
    #[case::refused(
        r#""unconnected":{"ending":"refused","message":"Connection refused"}"#,
        "connection refused: Connection refused",
        "its pods are ready"
    )]
    #[case::time_out(
        r#""unconnected":{"ending":"timed-out","message":"no answer in time"}"#,
        "timed out",
        "NET-08"
    )]
    #[tokio::test]
    async fn without_a_session_there_is_an_error_with_a_remedy(
        #[case] part: &'static str,
        #[case] what: &str,
        #[case] hint: &str,
    ) {
        let parts: &'static [&'static str] = Box::leak(Box::new([part]));
        let (_server, agent, _) = agent(Box::leak(Box::new([Answer::Parts(parts)]))).await;
        let error = agent.sql(&two_statements()).await.unwrap_err();
        let begin = format!("agent sink as tenant-a at PostgreSQL db:5432: {what}");
        assert!(error.what.starts_with(&begin), "{error}");
        assert!(error.hint.as_ref().unwrap().contains(hint), "{:?}", error.hint);
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_user_that_redis_refuses_is_named_with_its_words() {
        let part = r#""unconnected":{"ending":"reached","code":"WRONGPASS","message":"WRONGPASS invalid"}"#;
        let parts: &'static [&'static str] = Box::leak(Box::new([part]));
        let (_server, agent, _) = agent(Box::leak(Box::new([Answer::Parts(parts)]))).await;
        let error = agent.redis(&ping()).await.unwrap_err();
        assert_eq!(
            error.what,
            "agent sink as tenant-a at Redis r:6379: it refuses: WRONGPASS invalid"
        );
        assert!(error.hint.unwrap().contains("provisioner apply"));
    }

    /// Nobody knows what was executed before the connection was lost.
    #[tokio::test]
    async fn what_may_not_be_said_twice_is_not() {
        let (_server, agent, opened) = agent(&[Answer::Cut, Answer::Parts(&[ROW, ROW])]).await;
        let error = agent.sql(&two_statements()).await.unwrap_err();
        assert!(error.what.contains(exec::CUT_OFF), "{error}");
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        let said = agent.sql_session(&two_statements(), Again::Once).await.unwrap();
        assert_eq!(said.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_may_be_said_twice_is() {
        let (_server, agent, opened) = agent(&[Answer::Cut, Answer::Parts(&[ROW, ROW])]).await;
        let said = agent.sql_session(&two_statements(), Again::Once).await.unwrap();
        assert_eq!((said.unwrap().len(), opened.load(Ordering::Relaxed)), (2, 2));
    }

    #[tokio::test]
    async fn a_result_too_few_is_an_error() {
        let (_server, agent, _) = agent(&[Answer::Parts(&[ROW])]).await;
        let error = agent.sql(&two_statements()).await.unwrap_err();
        assert_eq!(error.what, "agent sink: 2 results expected, 1 came");
    }

    #[rstest]
    #[case::cut_twice(&[Answer::Cut], "agent sink: exec in pod p in namespace n: cut off")]
    #[case::lines_are_missing(&[Answer::Short], "agent sink: 1 lines announced, 0 came")]
    #[case::refused(&[Answer::Refuse], "agent sink: forgot")]
    #[case::not_understood(&[Answer::Unread], "agent sink: not a question")]
    #[case::another_program(&[Answer::Garbled], "agent sink: unreadable line \"panic!\"")]
    #[tokio::test]
    async fn an_answer_that_is_not_whole_is_an_error(
        #[case] sessions: &'static [Answer],
        #[case] expected: &str,
    ) {
        let (_server, agent, _) = agent(sessions).await;
        let error = agent.sightings().await.unwrap_err();
        assert!(error.what.starts_with(expected), "{error}");
    }
}
