//! RD-02: a tenant's keys and its queue in Redis are nobody else's.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::postgresql;
use crate::redis::{Canaries, Client, EXPIRES_AFTER, kept_out};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Finding, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use probe::protocol::{CommandResult, RedisCommand};
use provisioner::TenantId;
use serde_json::{Value, json};
use std::time::Duration;

/// The check.
pub(super) struct Rd02;

static INFO: CheckInfo = CheckInfo {
    id: "RD-02",
    title: "a tenant gets at its own keys and queue in Redis, and at none of another tenant's",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "All tenants' queues are in one Redis. A user that is not held to its keys reads B's webhooks before B's worker does, takes them away, or puts jobs of its own into B's queue, which are done in B's name.",
    how: "Each tenant writes a key and a stream of the run's own with nonces, with the credentials from its own namespace, from a pod there. Then A tries GET, SET, DEL, COPY and RENAME both ways, and EVAL (with the key named and not) on B's key, XADD, XRANGE, XREAD, XLEN and DEL on B's stream, and XADD, XRANGE, XREAD, XLEN on B's queue: each must be refused by the ACL (NOPERM), and B must find key and stream as they were. Nothing is ever added to a queue: the entry's id is one that Redis refuses, after the ACL. Controls: on the same connection, before and after, A sets and gets a key and adds to and reads a stream of its own.",
    remedy: "look at the user as an administrator: ACL GETUSER tenant-ID; keys must be ~tenant:ID:* and nothing else, commands few (no scripting, no allkeys), the user default off. provisioner apply brings back what is promised",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

impl Check for Rd02 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::ordered_pairs(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        subject
            .pair()
            .map_or_else(|_| Vec::new(), |(from, to)| postgresql::needs([from, to]))
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let (from, to) = subject.pair()?;
            judge(cx, from, to).await
        }
        .boxed()
    }
}

/// Keys of the run's own under one tenant, and what they say.
struct Keys {
    /// A string.
    plain: String,
    /// A stream.
    stream: String,
    /// What A would make of B's key.
    copy: String,
    nonce: String,
}

impl Keys {
    fn of(client: &Client) -> Result<Self, HarnessError> {
        let random = || getrandom::u64().map_err(|error| HarnessError::during("make a nonce", &error));
        // Several of this check may be there at once: one for each of its subjects.
        let named = |number: u64, what: &str| format!("{}rd02-{number:08x}-{what}", client.keys);
        let number = random()? >> 32;
        Ok(Keys {
            plain: named(number, "plain"),
            stream: named(number, "stream"),
            copy: named(number, "copy"),
            nonce: format!("{:016x}", random()?),
        })
    }

    fn all(&self) -> Vec<String> {
        [&self.plain, &self.stream, &self.copy].map(Clone::clone).into()
    }
}

async fn judge(cx: &Context, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    let (a, b) = (Client::of(cx, from).await?, Client::of(cx, to).await?);
    let (own, foreign) = (Keys::of(&a)?, Keys::of(&b)?);
    let canaries = Canaries::of(vec![(a.clone(), own.all()), (b.clone(), foreign.all())]);
    let verdict = touch(&a, &b, &own, &foreign).await;
    postgresql::conclude(verdict, canaries.remove().await)
}

async fn touch(a: &Client, b: &Client, own: &Keys, foreign: &Keys) -> Result<Verdict, HarnessError> {
    let mut before = b.say(&[&write(foreign)[..], &look(foreign)].concat()).await?;
    let seen = before.split_off(WRITES);
    able(&b.tenant, &before)?;
    let (before, _) = intact(&b.tenant, foreign, "before", Ok(seen));
    let probes = probes(own, foreign, &b.queue);
    let asked: Vec<RedisCommand> = probes.iter().map(|(_, command)| command.clone()).collect();
    let commands = [&write(own)[..], &look(own), &asked, &look(own)].concat();
    let said = a.say(&commands).await;
    // Whatever became of the connection, B looks what was done.
    let (after, findings) = intact(&b.tenant, foreign, "after", b.say(&look(foreign)).await);
    let results = match said {
        Ok(results) => results,
        Err(error) if findings.is_empty() => return Err(error),
        Err(error) => return Ok(Verdict::inconclusive(error.what).with_findings(findings)),
    };
    let how: Vec<&str> = probes.iter().map(|(how, _)| *how).collect();
    let verdict = conclude((&a.tenant, &b.tenant), own, &how, &results, [before, after]);
    Ok(verdict.with_findings(findings))
}

/// How many commands [`write`] takes.
const WRITES: usize = 5;
/// Those of them that must be done.
const WRITTEN: [usize; 2] = [2, 3];
/// How many commands [`look`] takes.
const LOOKS: usize = 2;

/// Writes the run's own keys of a tenant; also where all of it is said twice.
fn write(keys: &Keys) -> [RedisCommand; WRITES] {
    let Keys {
        plain, stream, nonce, ..
    } = keys;
    [
        RedisCommand::once(["DEL", plain]),
        RedisCommand::once(["DEL", stream]),
        RedisCommand::once(["SET", plain, nonce, "EX", EXPIRES_AFTER]),
        RedisCommand::once(["XADD", stream, "*", "nonce", nonce]),
        RedisCommand::once(["EXPIRE", stream, EXPIRES_AFTER]),
    ]
}

/// Looks at them.
fn look(keys: &Keys) -> [RedisCommand; LOOKS] {
    [
        RedisCommand::once(["GET", &keys.plain]),
        RedisCommand::once(["XRANGE", &keys.stream, "-", "+"]),
    ]
}

/// Everything that must be refused, for people and for Redis; what would take something away comes last.
fn probes(own: &Keys, foreign: &Keys, queue: &str) -> Vec<(&'static str, RedisCommand)> {
    let (key, stream, copy) = (
        foreign.plain.as_str(),
        foreign.stream.as_str(),
        foreign.copy.as_str(),
    );
    let named = "return redis.call('GET', KEYS[1])";
    let unnamed = "return redis.call('GET', ARGV[1])";
    let say = |how, args: &[&str]| (how, RedisCommand::once(args.iter().copied()));
    vec![
        say("GET its key", &["GET", key]),
        say("EVAL GET of its key", &["EVAL", named, "1", key]),
        say("EVAL GET of its key, unnamed", &["EVAL", unnamed, "0", key]),
        say("XRANGE of its stream", &["XRANGE", stream, "-", "+"]),
        say(
            "XREAD of its stream",
            &["XREAD", "COUNT", "1", "STREAMS", stream, "0"],
        ),
        say("XLEN of its stream", &["XLEN", stream]),
        say("XRANGE of its queue", &["XRANGE", queue, "-", "+", "COUNT", "1"]),
        say(
            "XREAD of its queue",
            &["XREAD", "COUNT", "1", "STREAMS", queue, "0"],
        ),
        say("XLEN of its queue", &["XLEN", queue]),
        say("LRANGE of its queue", &["LRANGE", queue, "0", "0"]),
        // No stream takes this id: an answer that is not the ACL's refusal comes from behind it, and nothing is added.
        say(
            "XADD to its queue",
            &["XADD", queue, "NOMKSTREAM", "0-0", "nonce", &own.nonce],
        ),
        say("COPY its key", &["COPY", key, &own.copy]),
        say("COPY a key into its space", &["COPY", &own.plain, copy]),
        say("SET its key", &["SET", key, &own.nonce, "EX", EXPIRES_AFTER]),
        say(
            "SET a new key in its space",
            &["SET", copy, &own.nonce, "EX", EXPIRES_AFTER],
        ),
        say("XADD to its stream", &["XADD", stream, "*", "nonce", &own.nonce]),
        say("RENAME its key", &["RENAME", key, &own.copy]),
        say("RENAME a key into its space", &["RENAME", &own.plain, copy]),
        say("DEL its key", &["DEL", key]),
        say("DEL its stream", &["DEL", stream]),
    ]
}

/// That a tenant wrote its keys.
///
/// # Errors
/// It could not: nothing can be shown then.
fn able(tenant: &TenantId, written: &[CommandResult]) -> Result<(), HarnessError> {
    let failed = WRITTEN
        .iter()
        .filter_map(|place| written.get(*place))
        .find_map(|result| result.as_ref().err());
    match failed {
        None => Ok(()),
        Some(error) => Err(
            HarnessError::new(format!("{tenant} cannot write keys of its own to Redis: {}", error.message))
                .hint("its user needs SET, GET, DEL, EXPIRE and the commands of streams on keys that begin with redis.prefix of the settings: provisioner apply registers it"),
        ),
    }
}

/// What A's connection gave: writing, looking, the probes, looking again.
fn conclude(
    (a, b): (&TenantId, &TenantId),
    own: &Keys,
    probes: &[&str],
    results: &[CommandResult],
    neighbour: [Control; 2],
) -> Verdict {
    let looks = |from: usize, when: &str| {
        let seen = results.get(from..from + LOOKS).unwrap_or_default();
        let claim = format!("{a} gets its own key and stream on the same connection, {when}");
        let holds = match results.iter().take(WRITES).enumerate().find_map(failed_write) {
            Some(why) if when == "before" => Err(why),
            _ => unchanged(own, seen),
        };
        Control { claim, holds }
    };
    let first = WRITES + LOOKS;
    let mut controls = vec![looks(WRITES, "before"), looks(first + probes.len(), "after")];
    controls.extend(neighbour);
    let observed: Vec<Observed> = probes
        .iter()
        .zip(results.iter().skip(first))
        .map(|(how, result)| Observed {
            what: format!("{a} -> {b}: {how}"),
            observation: kept_out(result),
        })
        .collect();
    judge_denied(&prove(&controls), &observed)
}

fn failed_write((place, result): (usize, &CommandResult)) -> Option<String> {
    let error = result.as_ref().err()?;
    WRITTEN.contains(&place).then(|| error.message.clone())
}

/// Whether these are the run's own key and stream as they were written: `look`'s results.
fn unchanged(keys: &Keys, seen: &[CommandResult]) -> Result<String, String> {
    let [plain, stream] = seen else {
        return Err("was not asked".to_owned());
    };
    let (plain, stream) = match (plain, stream) {
        (Ok(plain), Ok(stream)) => (plain, stream),
        (Err(error), _) | (_, Err(error)) => return Err(error.message.clone()),
    };
    if *plain != json!(keys.nonce) {
        return Err(GONE.replace("{}", "key"));
    }
    let entries = stream.as_array().map(Vec::as_slice).unwrap_or_default();
    let said = |entry: &Value| entry.get(1) == Some(&json!(["nonce", keys.nonce]));
    match entries {
        [entry] if said(entry) => Ok("its nonces came back".to_owned()),
        _ => Err(GONE.replace("{}", "stream")),
    }
}

const GONE: &str = "the {} is gone or says something else";

/// B's keys as B finds them: a control, and, where they are not what B wrote, a broken promise.
fn intact(
    tenant: &TenantId,
    keys: &Keys,
    when: &str,
    seen: Result<Vec<CommandResult>, HarnessError>,
) -> (Control, Vec<Finding>) {
    let claim = format!("{tenant} finds its key and stream as it wrote them, {when}");
    let (holds, read) = match seen {
        Err(error) => (Err(error.to_string()), false),
        Ok(seen) => (unchanged(keys, &seen), seen.iter().all(Result::is_ok)),
    };
    let findings = match &holds {
        Err(seen) if read => vec![Finding {
            expected: format!("{tenant}'s key and stream stay as {tenant} wrote them"),
            seen: seen.clone(),
        }],
        _ => Vec::new(),
    };
    (Control { claim, holds }, findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::tests::{lost, refused, said};
    use crate::scripted::word_and_text;
    use rstest::rstest;

    fn keys() -> Keys {
        Keys {
            plain: "tenant:a:plain".into(),
            stream: "tenant:a:stream".into(),
            copy: "tenant:a:copy".into(),
            nonce: "nonce-a".into(),
        }
    }
    fn id(text: &str) -> TenantId {
        TenantId::try_from(text).unwrap()
    }
    fn found(plain: Value, entries: &[&str]) -> Vec<CommandResult> {
        let entries: Vec<Value> = entries
            .iter()
            .map(|nonce| json!(["1-1", ["nonce", nonce]]))
            .collect();
        vec![Ok(plain), Ok(json!(entries))]
    }
    fn own() -> Vec<CommandResult> {
        found(json!("nonce-a"), &["nonce-a"])
    }
    fn gone() -> Vec<CommandResult> {
        found(Value::Null, &[])
    }
    fn no() -> CommandResult {
        refused("NOPERM No permissions to access a key")
    }
    fn held() -> Control {
        Control {
            claim: "b finds its key".into(),
            holds: Ok("its nonces came back".into()),
        }
    }
    fn not_held() -> Control {
        Control {
            holds: Err("connection refused".into()),
            ..held()
        }
    }

    #[rstest]
    #[case::refused(own(), vec![no(), no()], own(), held(), "passed", "2 of 2 denied (NOPERM key)")]
    #[case::a_value_came(own(), vec![no(), said(&json!("x"))], own(), held(), "failed", "a -> b: GET its stream is denied")]
    #[case::past_the_acl(own(), vec![refused("ERR The ID specified in XADD must be greater than 0-0")], own(), held(), "failed", "past the ACL")]
    #[case::open_whatever_the_controls(gone(), vec![said(&json!(1))], gone(), not_held(), "failed", "reached (answered)")]
    #[case::own_key_unseen(vec![no(), no()], vec![no()], own(), held(), "inconclusive", "a gets its own key and stream on the same connection, before")]
    #[case::own_key_lost(own(), vec![no()], gone(), held(), "inconclusive", "connection, after: the key is gone")]
    #[case::neighbour_unseen(own(), vec![no()], own(), not_held(), "inconclusive", "connection refused")]
    #[case::not_authenticated(own(), vec![refused("NOAUTH Authentication required.")], own(), held(), "inconclusive", "NOAUTH")]
    #[case::time_out(own(), vec![no(), lost()], vec![lost(), lost()], held(), "inconclusive", "no answer in time")]
    fn what_redis_answers_decides(
        #[case] before: Vec<CommandResult>,
        #[case] seen: Vec<CommandResult>,
        #[case] after: Vec<CommandResult>,
        #[case] neighbour: Control,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let how = &["GET its key", "GET its stream"][..seen.len()];
        let written = vec![said(&json!("OK")); WRITES];
        let results = [written, before, seen, after].concat();
        let verdict = conclude((&id("a"), &id("b")), &keys(), how, &results, [held(), neighbour]);
        let (found, all) = word_and_text(&verdict);
        assert_eq!(found, word, "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[rstest]
    #[case::as_it_was(Ok(own()), true, 0)]
    #[case::gone(Ok(gone()), false, 1)]
    #[case::changed(Ok(found(json!("x"), &["nonce-a"])), false, 1)]
    #[case::an_entry_more(Ok(found(json!("nonce-a"), &["nonce-a", "x"])), false, 1)]
    #[case::not_answered(Ok(vec![lost(), lost()]), false, 0)]
    #[case::unreachable(Err(HarnessError::new("connection refused")), false, 0)]
    fn what_the_other_one_finds_counts(
        #[case] seen: Result<Vec<CommandResult>, HarnessError>,
        #[case] holds: bool,
        #[case] findings: usize,
    ) {
        let (control, found) = intact(&id("b"), &keys(), "after", seen);
        assert_eq!((control.holds.is_ok(), found.len()), (holds, findings));
    }

    #[test]
    fn a_tenant_that_cannot_write_says_why() {
        let mut written = vec![said(&json!("OK")); WRITES];
        assert!(able(&id("b"), &written).is_ok());
        // Without an expiry they are removed all the same.
        written[4] = no();
        assert!(able(&id("b"), &written).is_ok());
        written[3] = no();
        let error = able(&id("b"), &written).unwrap_err();
        assert!(error.what.contains("b cannot write keys of its own"), "{error}");
        assert!(error.hint.is_some());
    }

    /// Whatever an open Redis does with the probes, the queue stays as it is.
    #[test]
    fn nothing_is_ever_added_to_a_queue_or_taken_from_it() {
        let mut foreign = keys();
        foreign.plain = "tenant:b:plain".into();
        foreign.stream = "tenant:b:stream".into();
        foreign.copy = "tenant:b:copy".into();
        let queue = "tenant:b:webhooks";
        for (how, command) in probes(&keys(), &foreign, queue) {
            let words: Vec<&str> = command.args.iter().map(String::as_str).collect();
            assert!(words.iter().any(|word| word.starts_with("tenant:b:")), "{how}");
            if words.contains(&queue) {
                let reads = ["XRANGE", "XREAD", "XLEN", "LRANGE"].contains(&words[0]);
                let harmless = words.starts_with(&["XADD", queue, "NOMKSTREAM", "0-0"]);
                assert!(reads || harmless, "{how}");
            }
        }
    }
}
