//! SQL in a session with PostgreSQL: what each statement gave, or the server's own error, its SQLSTATE included.

use crate::conversation::{LATE, MAX_TEXT, check_name, check_target, connect, deadline, unconnected, words};
use crate::protocol::{
    Ending, Held, Hold, MAX_CONNECTIONS, MAX_CONVERSATION_MS, MAX_ROWS, MAX_STATEMENTS, Part, Rows, Secret,
    SqlError, SqlRequest, Unconnected,
};
use crate::wire;
use bytes::Bytes;
use futures::future::join_all;
use futures::{SinkExt, TryStreamExt};
use std::error::Error;
use std::pin::pin;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

/// How long a session may take to say goodbye; one that just breaks off leaves a warning in the server's log.
const GOODBYE: Duration = Duration::from_secs(1);
/// Most bytes of a statement's values that are handed over.
const MAX_VALUES: usize = 256 * 1024;
/// What the server's list of sessions calls us.
const NAME: &str = "probe";

/// Whether a request may be taken.
///
/// # Errors
/// Why not, for [`crate::protocol::Summary::refused`].
pub(crate) fn check(request: &SqlRequest) -> Result<(), String> {
    check_target(&request.host, request.port, request.timeout_ms)?;
    for (what, name) in [("user", &request.user), ("database", &request.database)] {
        check_name(what, name)?;
        if name.is_empty() {
            return Err(format!("expected a {what}"));
        }
    }
    if request.statements.len() > MAX_STATEMENTS {
        let count = request.statements.len();
        return Err(format!(
            "expected at most {MAX_STATEMENTS} statements, got {count}"
        ));
    }
    if let Some(number) = request
        .statements
        .iter()
        .position(|text| text.len() > MAX_TEXT || text.contains('\0'))
    {
        return Err(format!(
            "statement {number}: expected at most {MAX_TEXT} bytes, none of them zero"
        ));
    }
    match request.hold {
        None => Ok(()),
        Some(Hold { connections, for_ms }) => {
            wire::within("number of connections", connections, MAX_CONNECTIONS)?;
            wire::within("for_ms", for_ms, MAX_CONVERSATION_MS)
        }
    }
}

/// Says all of a request and hands over each answer as it comes. What is held is let go once `released`.
pub(crate) async fn converse(
    request: &SqlRequest,
    released: impl Future<Output = ()>,
    mut answered: impl FnMut(Part),
) {
    let deadline = deadline(request.timeout_ms);
    let session = match Session::open(request, deadline).await {
        Ok(session) => session,
        Err(why) => return answered(Part::Unconnected(why)),
    };
    let mut lost: Option<SqlError> = None;
    for statement in &request.statements {
        let result = match &lost {
            Some(why) => Err(not_said(why)),
            None => match timeout_at(deadline, session.say(statement)).await {
                Ok(result) => result.map_err(|error| failed(&error, &request.password)),
                Err(_) => Err(SqlError {
                    sqlstate: None,
                    message: LATE.to_owned(),
                }),
            },
        };
        if let (None, Err(error)) = (&lost, &result) {
            lost = match &error.sqlstate {
                None => Some(error.clone()),
                // The client library has told the server that there will be no lines, to which it has an answer that nobody expects.
                Some(_) if copied_in(statement).is_some() => Some(SqlError {
                    sqlstate: None,
                    message: "a COPY that fails ends the session".to_owned(),
                }),
                Some(_) => None,
            };
        }
        answered(Part::Rows(result));
    }
    if let Some(hold) = request.hold {
        let held = hold_open(request, hold.connections, deadline, answered).await;
        let longest = Duration::from_millis(hold.for_ms);
        // Whichever of the two it is.
        let _ = timeout(longest, released).await;
        join_all(held.into_iter().map(Session::close)).await;
    }
    session.close().await;
}

async fn hold_open(
    request: &SqlRequest,
    connections: usize,
    deadline: Instant,
    mut answered: impl FnMut(Part),
) -> Vec<Session> {
    let begin = Instant::now();
    let (mut open, mut refused) = (Vec::new(), None);
    while open.len() < connections && refused.is_none() {
        match Session::open(request, deadline).await {
            Ok(session) => open.push(session),
            Err(why) => refused = Some(why),
        }
    }
    answered(Part::Held(Held {
        accepted: open.len(),
        after_ms: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        refused,
    }));
    open
}

/// A session; when dropped it breaks off.
struct Session {
    client: Client,
    driver: JoinSet<()>,
}

impl Session {
    async fn open(request: &SqlRequest, deadline: Instant) -> Result<Session, Unconnected> {
        let stream = connect(&request.host, request.port, deadline).await?;
        let mut config = Config::new();
        config
            .user(&request.user)
            .password(request.password.expose())
            .dbname(&request.database)
            .application_name(NAME);
        let begun = timeout_at(deadline, config.connect_raw(stream, NoTls)).await;
        let silent = || unconnected(Ending::ConnectedWithoutEcho, &format!("connected, but {LATE}"));
        let (client, connection) = begun
            .map_err(|_| silent())?
            .map_err(|error| refused(&error, &request.password))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What went wrong is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Session { client, driver })
    }

    async fn say(&self, statement: &str) -> Result<Rows, tokio_postgres::Error> {
        match copied_in(statement) {
            Some((command, lines)) => self.copy_in(command, lines).await,
            None => self.query(statement).await,
        }
    }

    async fn query(&self, statement: &str) -> Result<Rows, tokio_postgres::Error> {
        let mut answers = pin!(self.client.simple_query_raw(statement).await?);
        let (mut heard, mut size) = (Rows::default(), 0);
        while let Some(message) = answers.try_next().await? {
            match message {
                SimpleQueryMessage::Row(row) if heard.rows.len() < MAX_ROWS && size < MAX_VALUES => {
                    let values = values(&row)?;
                    size += values.iter().flatten().map(String::len).sum::<usize>();
                    heard.rows.push(values);
                }
                SimpleQueryMessage::CommandComplete(affected) => heard.affected = affected,
                _ => {}
            }
        }
        Ok(heard)
    }

    async fn copy_in(&self, command: &str, lines: &str) -> Result<Rows, tokio_postgres::Error> {
        let mut sink = pin!(self.client.copy_in::<_, Bytes>(command).await?);
        sink.send(Bytes::copy_from_slice(lines.as_bytes())).await?;
        let affected = sink.finish().await?;
        Ok(Rows {
            rows: Vec::new(),
            affected,
        })
    }

    async fn close(self) {
        let Session { client, mut driver } = self;
        drop(client);
        let _ = timeout(GOODBYE, driver.join_next()).await;
    }
}

fn values(row: &SimpleQueryRow) -> Result<Vec<Option<String>>, tokio_postgres::Error> {
    (0..row.len())
        .map(|index| row.try_get(index).map(|value| value.map(str::to_owned)))
        .collect()
}

/// A `COPY … FROM STDIN` and the lines after it, as a dump has them. The server would wait for them for ever.
fn copied_in(statement: &str) -> Option<(&str, &str)> {
    let (command, lines) = statement.split_once('\n').unwrap_or((statement, ""));
    let command = command.trim().trim_end_matches(';');
    let words = command.to_ascii_lowercase();
    (words.starts_with("copy ") && words.ends_with(" from stdin")).then_some((command, lines))
}

fn failed(error: &tokio_postgres::Error, secret: &Secret) -> SqlError {
    match error.as_db_error() {
        Some(said) => SqlError {
            sqlstate: Some(said.code().code().to_owned()),
            message: words(said.message(), secret),
        },
        None => SqlError {
            sqlstate: None,
            message: words(&chain(error), secret),
        },
    }
}

fn refused(error: &tokio_postgres::Error, secret: &Secret) -> Unconnected {
    let SqlError { sqlstate, message } = failed(error, secret);
    Unconnected {
        ending: match sqlstate {
            Some(_) => Ending::Reached,
            None => Ending::ConnectedWithoutEcho,
        },
        code: sqlstate,
        message,
    }
}

fn not_said(why: &SqlError) -> SqlError {
    SqlError {
        sqlstate: None,
        message: wire::printable(format!("not said: {}", why.message).as_bytes()),
    }
}

/// An error and its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
