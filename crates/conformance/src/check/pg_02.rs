//! PG-02: whoever has not said which tenant is at work sees nothing: in a new session, and in one that has been used.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::postgresql::{self, Canaries, Client, Row, Script, nothing_seen, own_row};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use probe::protocol::StatementResult;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Pg02;

static INFO: CheckInfo = CheckInfo {
    id: "PG-02",
    title: "without a tenant's context PostgreSQL shows no row at all",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "A forgotten context must not be an open door: a job without a tenant, a pooled connection after another's transaction. After SET LOCAL and RESET the setting is an empty string and not null, which policies that ask for null only take for a tenant, or for everybody.",
    how: "The tenant writes a row with a nonce, then asks for it and for the number of all rows where no context was ever set, after a transaction with the context that was committed, after one that was rolled back, after RESET, and with an empty context: no row, or an error that the context is missing (42704, 22P02). Controls: in the same session, each time the context is set, the row is seen, nonce included.",
    remedy: "let the policy compare the tenant's column with current_setting('app.tenant', true) and nothing else: no coalesce, no `or … is null`, no `or … = ''` (select policyname, qual from pg_policies). enhancer migrate brings it back",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

impl Check for Pg02 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        subject
            .tenant()
            .map_or_else(|_| Vec::new(), |tenant| postgresql::needs([tenant]))
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    let client = Client::of(cx, tenant).await?;
    let row = client.row("pg02")?;
    let canaries = Canaries::of(&[&client], [row.id.clone()]);
    let verdict = look(&client, &row).await;
    canaries.remove(verdict).await
}

async fn look(client: &Client, row: &Row) -> Result<Verdict, HarnessError> {
    client.write(row).await?;
    let session = Session::plan(client, row);
    let results = client.say(&session.script).await?;
    let at = |(when, place): &(&'static str, usize)| (*when, results[*place].clone());
    Ok(conclude(
        row,
        &session.open.iter().map(at).collect::<Vec<_>>(),
        &session.closed.iter().map(at).collect::<Vec<_>>(),
    ))
}

/// What is said in one session, and where the results are.
struct Session {
    script: Script,
    /// Looks at the row with the context set.
    open: Vec<(&'static str, usize)>,
    /// Looks without.
    closed: Vec<(&'static str, usize)>,
}

impl Session {
    fn plan(client: &Client, row: &Row) -> Self {
        let mut session = Session {
            script: Script::default(),
            open: Vec::new(),
            closed: Vec::new(),
        };
        let (table, tenant) = (&client.table, client.tenant.as_str());
        let text = table.text_of(&row.id);
        let all = format!("select count(*) from {}", table.name());
        let look = |session: &mut Session, when| {
            for statement in [&text, &all] {
                session.closed.push((when, session.script.say(statement)));
            }
        };
        look(&mut session, "where it was never set");
        let committed = client.within(&mut session.script, &text);
        session.open.push(("in a transaction", committed));
        look(&mut session, "after SET LOCAL and COMMIT");
        session.script.say("begin");
        session.script.say(&table.enter(&client.tenant));
        session.open.push(("in a second one", session.script.say(&text)));
        session.script.say("rollback");
        look(&mut session, "after SET LOCAL and ROLLBACK");
        // In one transaction, so that no pooler hands the session to somebody else meanwhile.
        session.script.say("begin");
        session.script.say(&table.set(tenant, false));
        session
            .open
            .push(("set for the session", session.script.say(&text)));
        session.script.say(&format!("reset {}", table.context()));
        session.script.say("commit");
        look(&mut session, "after SET and RESET");
        session.script.say("begin");
        session.script.say(&table.set("", true));
        session
            .closed
            .push(("where it is empty", session.script.say(&text)));
        session.script.say("commit");
        let again = client.within(&mut session.script, &text);
        session.open.push(("at the end", again));
        session
    }
}

/// Undefined object (`current_setting` of what was never set), and a text that is no value of the type (an empty string as a uuid).
const NO_CONTEXT: [&str; 2] = ["42704", "22P02"];

fn conclude(row: &Row, open: &[(&str, StatementResult)], closed: &[(&str, StatementResult)]) -> Verdict {
    let tenant = &row.tenant;
    let controls: Vec<_> = open
        .iter()
        .map(|(when, result)| {
            own_row(
                format!("{tenant} sees its row with the context {when}"),
                result,
                row,
            )
        })
        .collect();
    let observed: Vec<_> = closed
        .iter()
        .map(|(when, result)| Observed {
            what: format!("{tenant} -> a row without the context, {when}"),
            observation: without_context(result),
        })
        .collect();
    judge_denied(&prove(&controls), &observed)
}

fn without_context(result: &StatementResult) -> Observation {
    match result {
        Err(error) => match error.sqlstate.as_deref() {
            Some(state) if NO_CONTEXT.contains(&state) => {
                Observation::Denied(format!("{state} the context is missing"))
            }
            _ => nothing_seen(result),
        },
        Ok(_) => nothing_seen(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgresql::tests::{count, denied, lost, none, one, row};
    use crate::scripted::word_and_text;
    use rstest::rstest;

    #[rstest]
    #[case::closed(one("nonce-a"), vec![none(), count(0)], "passed", "2 of 2 denied (0 rows)")]
    #[case::never_set(one("nonce-a"), vec![denied("42704", "unrecognized configuration parameter")], "passed", "42704")]
    #[case::empty_is_no_uuid(one("nonce-a"), vec![denied("22P02", "invalid input syntax for type uuid")], "passed", "22P02")]
    #[case::the_row_is_seen(one("nonce-a"), vec![none(), one("nonce-a")], "failed", "without the context, y is denied")]
    #[case::rows_are_counted(one("nonce-a"), vec![none(), count(2)], "failed", "2 counted")]
    #[case::open_whatever_the_control(none(), vec![count(1)], "failed", "1 counted")]
    #[case::there_is_no_row(none(), vec![none(), count(0)], "inconclusive", "the row is not there")]
    #[case::another_error(one("nonce-a"), vec![denied("42P01", "no such table")], "inconclusive", "42P01")]
    #[case::time_out(one("nonce-a"), vec![none(), lost()], "inconclusive", "no answer in time")]
    fn what_is_seen_without_a_context_decides(
        #[case] open: StatementResult,
        #[case] closed: Vec<StatementResult>,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let closed: Vec<_> = ["x", "y"].into_iter().zip(closed).collect();
        let (found, all) = word_and_text(&conclude(&row("a"), &[("set", open)], &closed));
        assert_eq!(found, word, "{all}");
        assert!(all.contains(text), "{all}");
    }
}
