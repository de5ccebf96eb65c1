//! `probe session`: many questions in one process, for as long as stdin stays open. A caller far away pays for one exec call instead of one
//! a question.

use crate::Failure;
use crate::attempt::batch::{attempt_all, lost};
use crate::attempt::output::{self, Lines};
use crate::attempt::request::{self, MAX_LINE};
use crate::protocol::{Ask, Part, Question, RedisRequest, Reply, Request, SqlRequest, Summary, WitnessLine};
use crate::{redis, sql, witness};
use futures::FutureExt;
use std::collections::HashMap;
use std::io::Write;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::oneshot;

/// Answers the questions on `input`, one a line, each as soon as it can be, on `sink`. Who serves under the name `control` is the witness.
/// Ends with the input, when what is under way is given up.
///
/// # Errors
/// If stdin cannot be read or the answers cannot be written.
pub async fn run(
    input: impl AsyncRead + Unpin,
    sink: impl Write + Send + 'static,
    control: &str,
) -> Result<(), Failure> {
    let (lines, mut end) = output::start(sink);
    let mut input = BufReader::new(input);
    // Dropped with this function, and with it what is under way.
    let mut under_way = tokio::task::JoinSet::new();
    let mut holds = Holds::default();
    loop {
        let mut line = Vec::new();
        let read = tokio::select! {
            read = async { (&mut input).take(MAX_LINE).read_until(b'\n', &mut line).await } => read,
            error = end.broken() => return Err(lost(&error)),
        };
        match read {
            Err(error) => {
                return Err(Failure::new(
                    format!("cannot read the questions: {error}"),
                    "keep stdin open for as long as there is something to ask",
                ));
            }
            Ok(0) => return Ok(()),
            Ok(_) => {}
        }
        while under_way.try_join_next().is_some() {}
        match serde_json::from_slice::<Ask>(&line) {
            Ok(Ask { ask, question }) => {
                let replies = Replies {
                    ask,
                    lines: lines.clone(),
                };
                match question {
                    Question::Release(held) => replies.end(0, holds.release(held).err()),
                    question => {
                        let released = holds.released(ask, &question);
                        under_way.spawn(answer(question, released, replies, control.to_owned()));
                    }
                }
            }
            Err(error) => Replies {
                ask: 0,
                lines: lines.clone(),
            }
            .end(0, Some(format!("not a question: {error}"))),
        }
    }
}

/// Where the parts of one answer go.
struct Replies {
    ask: u32,
    lines: Lines,
}

impl Replies {
    fn part(&self, part: Part) {
        self.lines.line(&Reply { ask: self.ask, part });
    }

    fn end(&self, done: usize, refused: Option<String>) {
        self.part(Part::End(Summary { done, refused }));
    }
}

/// What the session's questions hold, by their numbers: told to let go of it by dropping.
#[derive(Default)]
struct Holds(HashMap<u32, oneshot::Sender<()>>);

impl Holds {
    /// Ends once this question is to let go of what it holds.
    fn released(&mut self, ask: u32, question: &Question) -> oneshot::Receiver<()> {
        self.0.retain(|_, hold| !hold.is_closed());
        let (hold, released) = oneshot::channel();
        if matches!(question, Question::Sql(request) if request.hold.is_some()) {
            self.0.insert(ask, hold);
        }
        released
    }

    fn release(&mut self, ask: u32) -> Result<(), String> {
        match self.0.remove(&ask) {
            Some(hold) if !hold.is_closed() => Ok(()),
            _ => Err(format!(
                "expected the number of a question that holds connections, got {ask}: it ended, or never held any"
            )),
        }
    }
}

async fn answer(question: Question, released: oneshot::Receiver<()>, replies: Replies, control: String) {
    match question {
        Question::Attempt(request) => attempt(request, &replies).await,
        // Asking the witness blocks.
        Question::Witness(since_ms) => {
            let _ = tokio::task::spawn_blocking(move || ask_witness(&control, since_ms, &replies)).await;
        }
        Question::Sql(request) => say_sql(&request, released, &replies).await,
        Question::Redis(request) => say_redis(&request, &replies).await,
        // Answered where it is read.
        Question::Release(_) => {}
    }
}

async fn say_sql(request: &SqlRequest, released: oneshot::Receiver<()>, replies: &Replies) {
    if let Err(why) = sql::check(request) {
        return replies.end(0, Some(why));
    }
    let mut done = 0;
    sql::converse(request, released.map(drop), |part| {
        replies.part(part);
        done += 1;
    })
    .await;
    replies.end(done, None);
}

async fn say_redis(request: &RedisRequest, replies: &Replies) {
    if let Err(why) = redis::check(request) {
        return replies.end(0, Some(why));
    }
    let mut done = 0;
    redis::converse(request, |part| {
        replies.part(part);
        done += 1;
    })
    .await;
    replies.end(done, None);
}

async fn attempt(request: Request, replies: &Replies) {
    if let Err(why) = request::check(&request) {
        return replies.end(0, Some(why));
    }
    // Without its end the answer proves nothing, which is the truth where an attempt broke off.
    if let Ok(done) = attempt_all(request, |outcome| replies.part(Part::Outcome(outcome))).await {
        replies.end(done, None);
    }
}

fn ask_witness(control: &str, since_ms: u64, replies: &Replies) {
    let mut text = Vec::new();
    if let Err(failure) = witness::ask(control, since_ms, &mut text) {
        return replies.end(0, Some(failure.to_string()));
    }
    for line in text.split(|&byte| byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(WitnessLine::Sighting(sighting)) => replies.part(Part::Sighting(sighting)),
            Ok(WitnessLine::Summary(summary)) => replies.part(Part::End(summary)),
            Err(_) => {}
        }
    }
}
