//! Commands on a connection with Redis, and its own replies and errors to each. A few lines of RESP2 rather than a client library: those
//! say things of their own (`CLIENT SETINFO`), authenticate a second time without the user, and tell errors in other words.

use crate::conversation::{LATE, MAX_TEXT, check_name, check_target, connect, deadline, words};
use crate::protocol::{
    CommandResult, Ending, MAX_REPEAT, MAX_STATEMENTS, Part, RedisCommand, RedisError, RedisRequest, Secret,
    Unconnected,
};
use crate::wire;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, Take};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout_at};

/// Most that is heard in one conversation, in bytes.
const MAX_HEARD: u64 = 2 * 1024 * 1024;
/// Most arguments of a command, its name included.
const MAX_ARGUMENTS: usize = 64;
/// How deep arrays may lie in each other.
const MAX_DEPTH: usize = 8;
/// What stands for the number of a repetition.
const NUMBER: &str = "{n}";

/// Whether a request may be taken.
///
/// # Errors
/// Why not, for [`crate::protocol::Summary::refused`].
pub(crate) fn check(request: &RedisRequest) -> Result<(), String> {
    check_target(&request.host, request.port, request.timeout_ms)?;
    check_name("user", &request.user)?;
    wire::within("number of commands", request.commands.len(), MAX_STATEMENTS)?;
    for (number, RedisCommand { args, repeat }) in request.commands.iter().enumerate() {
        let checked = wire::within("number of words", args.len(), MAX_ARGUMENTS)
            .and_then(|()| wire::within("repeat", *repeat, MAX_REPEAT));
        checked.map_err(|why| format!("command {number}: {why}"))?;
        if args.iter().any(|arg| arg.len() > MAX_TEXT) {
            return Err(format!(
                "command {number}: expected words of at most {MAX_TEXT} bytes"
            ));
        }
    }
    Ok(())
}

/// Says all of a request and hands over each answer as it comes.
pub(crate) async fn converse(request: &RedisRequest, mut answered: impl FnMut(Part)) {
    let deadline = deadline(request.timeout_ms);
    let mut connection = match Connection::open(request, deadline).await {
        Ok(connection) => connection,
        Err(why) => return answered(Part::Unconnected(why)),
    };
    let mut lost: Option<RedisError> = None;
    for command in &request.commands {
        let result = match &lost {
            Some(why) => Err(not_from_server(&format!("not said: {}", why.message))),
            None => connection.say(command, deadline, &request.password).await,
        };
        if let (None, Err(error)) = (&lost, &result)
            && error.code.is_none()
        {
            lost = Some(error.clone());
        }
        answered(Part::Answer(result));
    }
}

struct Connection {
    replies: BufReader<Take<OwnedReadHalf>>,
    commands: BufWriter<OwnedWriteHalf>,
}

impl Connection {
    async fn open(request: &RedisRequest, deadline: Instant) -> Result<Connection, Unconnected> {
        let stream = connect(&request.host, request.port, deadline).await?;
        let mut connection = Connection::over(stream);
        if !request.user.is_empty() {
            let command = RedisCommand::once(["AUTH", &request.user, request.password.expose()]);
            let answer = connection.say(&command, deadline, &request.password).await;
            answer.map_err(|RedisError { code, message }| Unconnected {
                ending: match code {
                    Some(_) => Ending::Reached,
                    None => Ending::ConnectedWithoutEcho,
                },
                code,
                message,
            })?;
        }
        Ok(connection)
    }

    fn over(stream: TcpStream) -> Self {
        let (from, to) = stream.into_split();
        Connection {
            replies: BufReader::new(from.take(MAX_HEARD)),
            commands: BufWriter::new(to),
        }
    }

    async fn say(&mut self, command: &RedisCommand, deadline: Instant, secret: &Secret) -> CommandResult {
        let Connection { replies, commands } = self;
        // Neither waits for the other: with many of them both directions fill up.
        let both = async {
            tokio::try_join!(write(commands, command), hear(replies, command.repeat)).map(|((), heard)| heard)
        };
        match timeout_at(deadline, both).await {
            Ok(Ok(heard)) => heard.map_err(|error| RedisError {
                message: words(&error.message, secret),
                code: error.code.map(|code| words(&code, secret)),
            }),
            Ok(Err(error)) => Err(not_from_server(&secret.redact(&error.to_string()))),
            Err(_) => Err(not_from_server(LATE)),
        }
    }
}

fn not_from_server(why: &str) -> RedisError {
    RedisError {
        code: None,
        message: wire::printable(why.as_bytes()),
    }
}

async fn write(to: &mut BufWriter<OwnedWriteHalf>, command: &RedisCommand) -> io::Result<()> {
    for number in 0..command.repeat {
        to.write_all(format!("*{}\r\n", command.args.len()).as_bytes())
            .await?;
        for arg in &command.args {
            let arg = match command.repeat {
                1 => arg.clone(),
                _ => arg.replace(NUMBER, &number.to_string()),
            };
            to.write_all(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes())
                .await?;
        }
    }
    to.flush().await
}

/// The first error of so many replies, else the last reply.
async fn hear(from: &mut BufReader<Take<OwnedReadHalf>>, count: usize) -> io::Result<CommandResult> {
    let mut result = Ok(Value::Null);
    for _ in 0..count {
        let heard = reply(from, 0).await?;
        if result.is_ok() {
            result = heard;
        }
    }
    Ok(result)
}

/// One reply: Redis documentation, "Redis serialization protocol specification", RESP2.
fn reply(
    from: &mut BufReader<Take<OwnedReadHalf>>,
    depth: usize,
) -> BoxFuture<'_, io::Result<CommandResult>> {
    async move {
        let line = line(from).await?;
        let rest = || String::from_utf8_lossy(&line[1..]).into_owned();
        let number = || rest().parse::<i64>().map_err(|_| strange(&line));
        Ok(Ok(match line.first() {
            Some(b'+') => Value::from(rest()),
            Some(b'-') => {
                let message = rest();
                let code = message.split(' ').next().unwrap_or_default().to_owned();
                return Ok(Err(RedisError {
                    code: Some(code),
                    message,
                }));
            }
            Some(b':') => Value::from(number()?),
            Some(b'$') => match u64::try_from(number()?) {
                Ok(length) => Value::from(text(from, length).await?),
                Err(_) => Value::Null,
            },
            Some(b'*') if depth < MAX_DEPTH => match u64::try_from(number()?) {
                Ok(count) => {
                    let mut items = Vec::new();
                    for _ in 0..count {
                        let item = reply(from, depth + 1).await?;
                        items.push(item.unwrap_or_else(|error| Value::from(error.message)));
                    }
                    Value::from(items)
                }
                Err(_) => Value::Null,
            },
            _ => return Err(strange(&line)),
        }))
    }
    .boxed()
}

async fn line(from: &mut BufReader<Take<OwnedReadHalf>>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(whole) => Ok(whole.to_vec()),
        None if from.get_ref().limit() == 0 => Err(too_much()),
        None if line.ends_with(b"\n") => Err(strange(&line)),
        None => Err(io::Error::other("the peer closed the connection")),
    }
}

async fn text(from: &mut BufReader<Take<OwnedReadHalf>>, length: u64) -> io::Result<String> {
    if length > MAX_HEARD {
        return Err(too_much());
    }
    let mut bytes = Vec::new();
    let whole = length.saturating_add(2);
    let heard = (&mut *from).take(whole).read_to_end(&mut bytes).await?;
    if u64::try_from(heard).ok() != Some(whole) {
        return Err(match from.get_ref().limit() {
            0 => too_much(),
            _ => io::Error::other("the peer closed the connection"),
        });
    }
    bytes.truncate(bytes.len() - 2);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn too_much() -> io::Error {
    io::Error::other(format!("the replies are longer than {MAX_HEARD} bytes"))
}

fn strange(line: &[u8]) -> io::Error {
    io::Error::other(format!("no reply of Redis: {:?}", wire::printable(line)))
}

#[cfg(test)]
mod tests;
