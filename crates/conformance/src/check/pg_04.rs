//! PG-04: a tenant that writes to the shared table writes rows of its own and nobody else's.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::postgresql::{
    self, Canaries, Client, Row, Script, Table, literal, nothing_seen, nothing_written, one_row, words,
};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Finding, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use probe::protocol::{Rows, SqlError, StatementResult};
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Pg04;

static INFO: CheckInfo = CheckInfo {
    id: "PG-04",
    title: "a tenant writes its own rows in PostgreSQL, and none of another tenant's",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "A policy for reading says nothing of writing: one that lets rows in with WITH CHECK (true), or a second, permissive one, lets A put words into B's mouth, hand rows over to B, or change and delete B's.",
    how: "Each tenant writes a row with a nonce, with the credentials from its own namespace, from a pod there, in its own context. Then A, in its context, inserts a row in B's name (INSERT, COPY), changes and deletes B's row, claims it for itself, overwrites it by ON CONFLICT DO UPDATE, and makes its own row B's: each must be refused by row-level security (42501; COPY: 0A000) or concern no row, and B must find its row as it was and no other. On local clusters it also changes and deletes all rows that there are, in transactions that are rolled back: a statement that looks for no row is held by fewer policies. What constraints say comes from behind the policies and fails. Controls: in the same session A inserts, changes and deletes rows of its own.",
    remedy: "every policy of the table needs WITH CHECK as strict as USING, and permissive ones are added up: select policyname, permissive, cmd, qual, with_check from pg_policies. enhancer migrate brings back what is promised",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

impl Check for Pg04 {
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

/// The rows that there are, and those that there must never be.
struct Cast {
    /// A's own.
    own: Row,
    /// B's.
    foreign: Row,
    /// In B's name, inserted by A.
    inserted: Row,
    /// The same, by COPY.
    copied: Row,
}

impl Cast {
    fn ids(&self) -> [&str; 4] {
        [&self.own, &self.foreign, &self.inserted, &self.copied].map(|row| row.id.as_str())
    }
}

async fn judge(cx: &Context, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    let (a, b) = (Client::of(cx, from).await?, Client::of(cx, to).await?);
    let cast = Cast {
        own: a.row("pg04")?,
        foreign: b.row("pg04")?,
        inserted: b.row("pg04")?,
        copied: b.row("pg04")?,
    };
    let canaries = Canaries::of(&[&a, &b], cast.ids().map(str::to_owned));
    let verdict = write(&a, &b, &cast).await;
    canaries.remove(verdict).await
}

async fn write(a: &Client, b: &Client, cast: &Cast) -> Result<Verdict, HarnessError> {
    b.write(&cast.foreign).await?;
    let before = b.sees(&cast.foreign, "before").await;
    let mut script = Script::default();
    // Where all of it is said twice: A's row is there already.
    a.within(&mut script, &a.table.delete(&[&cast.own.id]));
    let mut allowed = vec![("inserts", a.within(&mut script, &a.table.insert(&cast.own)))];
    let change = changed(&a.table, &cast.own.id);
    allowed.push(("changes", a.within(&mut script, &change)));
    let mut asked = Vec::new();
    for (how, ways) in probes(&a.table, cast) {
        let places: Vec<usize> = ways.iter().map(|way| a.within(&mut script, way)).collect();
        asked.push((how, places));
    }
    allowed.push(("changes, afterwards,", a.within(&mut script, &change)));
    allowed.push(("deletes", a.within(&mut script, &a.table.delete(&[&cast.own.id]))));
    let said = a.say(&script).await;
    let copied = copy_in(a, &cast.copied).await;
    let blind = match a.local {
        true => write_blindly(a, cast).await,
        false => Vec::new(),
    };
    // Whatever became of the session, B looks what was done.
    let mut look = Script::default();
    let place = b.within(&mut look, &b.table.texts_of(&cast.ids()));
    let found = b.say(&look).await.map(|results| results[place].clone());
    let (untouched, findings) = untouched(&cast.foreign, found);
    let results = match said {
        Ok(results) => results,
        Err(error) if findings.is_empty() => return Err(error),
        Err(error) => return Ok(Verdict::inconclusive(error.what).with_findings(findings)),
    };
    let allowed = allowed.into_iter().map(|(what, place)| (what, &results[place]));
    let seen = asked.into_iter().map(|(how, places)| {
        let results: Vec<&StatementResult> = places.into_iter().map(|place| &results[place]).collect();
        (how, results)
    });
    let seen = seen.chain([(COPY, vec![&copied])]);
    Ok(conclude(cast, allowed, seen, blind, [before, untouched]).with_findings(findings))
}

/// Inserts this row by COPY, in a session of its own, which it ends where it fails.
async fn copy_in(client: &Client, row: &Row) -> StatementResult {
    let (name, [id, tenant, text]) = (client.table.name(), client.table.columns());
    let lines = format!("{}\t{}\t{}\n", row.tenant, row.id, row.text);
    let mut script = Script::default();
    let place = client.within(
        &mut script,
        &format!("copy {name} ({tenant}, {id}, {text}) from stdin\n{lines}"),
    );
    match client.say(&script).await {
        Ok(results) => results[place].clone(),
        Err(error) => Err(SqlError {
            sqlstate: None,
            message: error.to_string(),
        }),
    }
}

/// How often all rows are changed and deleted: a try in which the tenant's worker changes one of them comes to nothing.
const TIMES: usize = 3;

/// Changes and deletes all rows that there are, in transactions that are rolled back. A statement that reads no column is held by the
/// policies for its own command alone; one that looks for a row, by those for reading too, which hide what these let through.
async fn write_blindly(client: &Client, cast: &Cast) -> Vec<(&'static str, Observation)> {
    let (name, [_, tenant, _]) = (client.table.name(), client.table.columns());
    let enter = client.table.enter(&client.tenant);
    // All statements see the same rows, whatever the tenant's worker writes meanwhile. Nobody is kept waiting for long where rows of
    // others are locked after all.
    let begin = "begin isolation level repeatable read; set local statement_timeout = 2000; set local lock_timeout = 1000";
    let mut script = Script::default();
    let mut say = |statements: &[&str]| {
        let first = script.say(begin);
        script.say(&enter);
        for statement in statements {
            script.say(statement);
        }
        script.say("rollback");
        first + 2
    };
    let us = literal(client.tenant.as_str());
    let claim = format!("update {name} set {tenant} = {us}");
    let seen = client.table.text_of(&cast.foreign.id);
    let claimed = [(); TIMES].map(|()| say(&[&claim, &seen]));
    let (count, delete) = (
        format!("select count(*) from {name}"),
        format!("delete from {name}"),
    );
    let deleted = [(); TIMES].map(|()| say(&[&count, &delete]));
    let results = match client.say(&script).await {
        Ok(results) => results,
        Err(error) => {
            let broken = || Observation::Broken(error.to_string());
            return vec![(CLAIMS_ALL, broken()), (DELETES_ALL, broken())];
        }
    };
    let tries = |places: [usize; TIMES]| places.map(|place| [&results[place], &results[place + 1]]);
    vec![
        (CLAIMS_ALL, claimed_blindly(&tries(claimed))),
        (DELETES_ALL, deleted_blindly(&tries(deleted))),
    ]
}

const CLAIMS_ALL: &str = "claims all rows that there are";
const DELETES_ALL: &str = "deletes all rows that there are";

/// Serialization failure: somebody changed a row after the transaction's first look.
const MEANWHILE: &str = "40001";

/// What tries of two statements each show, but for those that somebody else's change ended. A try that reached something counts, and then
/// one that shows nothing.
fn of_tries(
    tries: &[[&StatementResult; 2]],
    judge: impl Fn(&StatementResult, &StatementResult) -> Observation,
) -> Observation {
    let mut ended = None;
    let mut shown = Vec::new();
    for &[first, second] in tries {
        let of_others = |error: &&SqlError| error.sqlstate.as_deref() == Some(MEANWHILE);
        let error = [first, second]
            .into_iter()
            .find_map(|result| result.as_ref().err().filter(of_others));
        match error {
            Some(error) => ended = Some(words(error)),
            None => shown.push(judge(first, second)),
        }
    }
    let place = |what: fn(&Observation) -> bool| shown.iter().position(what);
    let told = place(|one| matches!(one, Observation::Reached(_)))
        .or_else(|| place(|one| matches!(one, Observation::Broken(_))));
    if shown.is_empty() {
        return Observation::Broken(ended.unwrap_or_else(|| "was not tried".to_owned()));
    }
    shown.swap_remove(told.unwrap_or_default())
}

/// Changes of every row, each with what is seen of the other one's then.
fn claimed_blindly(claims: &[[&StatementResult; 2]]) -> Observation {
    of_tries(claims, |change, seen| match (change, nothing_seen(seen)) {
        (Ok(_), Observation::Denied(_)) => Observation::Denied("0 rows".to_owned()),
        (Ok(_), observation) => observation,
        // Of its own it may write all.
        (Err(_), _) => nothing_written(change),
    })
}

/// Counts of the tenant's rows, each with what a deletion of every row concerned.
fn deleted_blindly(deletions: &[[&StatementResult; 2]]) -> Observation {
    of_tries(deletions, |counted, deleted| {
        let own = match counted {
            Ok(Rows { rows, .. }) => rows
                .first()
                .and_then(|row| row.first()?.as_ref()?.parse::<u64>().ok()),
            Err(error) => return Observation::Broken(words(error)),
        };
        match (own, deleted) {
            (None, _) => Observation::Broken("count(*) is no number".to_owned()),
            (_, Err(_)) => nothing_written(deleted),
            (Some(own), Ok(Rows { affected, .. })) => match affected.saturating_sub(own) {
                0 => Observation::Denied("0 rows".to_owned()),
                count => Observation::Reached(format!("{count} row(s) of others deleted")),
            },
        }
    })
}

/// A change to a row that changes nothing.
fn changed(table: &Table, row: &str) -> String {
    let [id, _, text] = table.columns();
    format!(
        "update {} set {text} = {text} where {id} = {}",
        table.name(),
        literal(row)
    )
}

/// How A may try to write where it must not: for people, and in SQL, in all ways of which the table may know but one.
fn probes(table: &Table, cast: &Cast) -> Vec<(&'static str, Vec<String>)> {
    let (name, [id, tenant, text]) = (table.name(), table.columns());
    let (own, theirs) = (literal(&cast.own.id), literal(&cast.foreign.id));
    let (us, them) = (
        literal(cast.own.tenant.as_str()),
        literal(cast.foreign.tenant.as_str()),
    );
    // A table's key is one of these.
    let keys = [format!("{tenant}, {id}"), id.clone()];
    let upsert = |row: &Row, change: &str| {
        let insert = table.insert(row);
        keys.iter()
            .map(|key| format!("{insert} on conflict ({key}) do update set {change}"))
            .collect()
    };
    vec![
        ("inserts a row in its name", vec![table.insert(&cast.inserted)]),
        (
            "makes a row of its own the other's",
            vec![format!("update {name} set {tenant} = {them} where {id} = {own}")],
        ),
        (
            "makes a row of its own the other's by ON CONFLICT DO UPDATE",
            upsert(&cast.own, &format!("{tenant} = {them}")),
        ),
        (
            "changes its row",
            vec![format!(
                "update {name} set {text} = 'changed' where {id} = {theirs}"
            )],
        ),
        (
            "claims its row",
            vec![format!("update {name} set {tenant} = {us} where {id} = {theirs}")],
        ),
        (
            "overwrites its row by ON CONFLICT DO UPDATE",
            upsert(&cast.foreign, &format!("{text} = 'changed'")),
        ),
        ("deletes its row", vec![table.delete(&[&cast.foreign.id])]),
    ]
}

const COPY: &str = "inserts a row in its name by COPY";
/// Feature not supported: what COPY says of a table with row-level security.
const UNSUPPORTED: &str = "0A000";
/// Invalid column reference: `ON CONFLICT` names what is no key.
const NO_KEY: &str = "42P10";

/// What A's session gave, between two looks of B.
fn conclude<'a>(
    cast: &Cast,
    allowed: impl Iterator<Item = (&'static str, &'a StatementResult)>,
    seen: impl Iterator<Item = (&'static str, Vec<&'a StatementResult>)>,
    blind: Vec<(&'static str, Observation)>,
    neighbour: [Control; 2],
) -> Verdict {
    let (a, b) = (&cast.own.tenant, &cast.foreign.tenant);
    let mut controls: Vec<Control> = allowed
        .map(|(what, result)| one_row(format!("{a} {what} a row of its own in the same session"), result))
        .collect();
    controls.extend(neighbour);
    let observed: Vec<Observed> = seen
        .map(|(how, results)| (how, refused(how, &results)))
        .chain(blind)
        .map(|(how, observation)| Observed {
            what: format!("{a} -> {b}: {how}"),
            observation,
        })
        .collect();
    judge_denied(&prove(&controls), &observed)
}

fn refused(how: &str, results: &[&StatementResult]) -> Observation {
    let state = |result: &StatementResult| result.as_ref().err().and_then(|error| error.sqlstate.clone());
    let fitting = results
        .iter()
        .find(|result| state(result).as_deref() != Some(NO_KEY));
    match fitting.or(results.first()) {
        Some(result) if how == COPY && state(result).as_deref() == Some(UNSUPPORTED) => {
            Observation::Denied(format!("{UNSUPPORTED} row-level security"))
        }
        Some(result) => nothing_written(result),
        None => Observation::Broken("was not tried".to_owned()),
    }
}

/// What B finds of the rows that there are and of those that must never be: its own as it wrote it, and no other.
fn untouched(foreign: &Row, found: Result<StatementResult, HarnessError>) -> (Control, Vec<Finding>) {
    let tenant = &foreign.tenant;
    let claim = format!("{tenant} finds its row as it wrote it and no other, after");
    let rows = match found {
        Ok(Ok(Rows { rows, .. })) => rows,
        Ok(Err(error)) => {
            let holds = Err(words(&error));
            return (Control { claim, holds }, Vec::new());
        }
        Err(error) => {
            let holds = Err(error.to_string());
            return (Control { claim, holds }, Vec::new());
        }
    };
    let is_own = |row: &&Vec<Option<String>>| row.first() == Some(&Some(foreign.id.clone()));
    let (own, others): (Vec<_>, Vec<_>) = rows.iter().partition(is_own);
    let mut findings = Vec::new();
    let mut find = |expected: String, seen: String| findings.push(Finding { expected, seen });
    match own.first() {
        Some(row) if row.get(1) == Some(&Some(foreign.text.clone())) => {}
        Some(_) => find(
            format!("{tenant}'s row stays as {tenant} wrote it"),
            "it was changed".to_owned(),
        ),
        None => find(
            format!("{tenant}'s row stays where it is"),
            "it is gone".to_owned(),
        ),
    }
    if !others.is_empty() {
        find(
            format!("{tenant} has no row that another tenant wrote"),
            format!("it has {}", others.len()),
        );
    }
    let holds = match findings.is_empty() {
        true => Ok("its nonce came back".to_owned()),
        false => Err("its rows were changed".to_owned()),
    };
    (Control { claim, holds }, findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgresql::tests::{count, denied, lost, none, one, row, table, written};
    use crate::scripted::word_and_text;
    use rstest::rstest;

    fn cast() -> Cast {
        let named = |tenant: &str, id: &str| Row {
            id: id.to_owned(),
            ..row(tenant)
        };
        Cast {
            own: row("a"),
            foreign: row("b"),
            inserted: named("b", "inserted"),
            copied: named("b", "copied"),
        }
    }
    fn held() -> Control {
        Control {
            claim: "b sees its own row".into(),
            holds: Ok("its nonce came back".into()),
        }
    }
    fn not_held() -> Control {
        Control {
            holds: Err("connection refused".into()),
            ..held()
        }
    }
    fn changed_meanwhile() -> StatementResult {
        denied(MEANWHILE, "could not serialize access")
    }
    fn policy() -> StatementResult {
        denied(
            "42501",
            "new row violates row-level security policy for table \"webhook\"",
        )
    }

    #[rstest]
    #[case::refused(written(1), vec![policy(), written(0)], held(), "passed", "42501 row-level security / 0 rows")]
    #[case::a_row_got_in(written(1), vec![policy(), written(1)], held(), "failed", "a -> b: y is denied")]
    #[case::behind_the_policy(written(1), vec![denied("23505", "duplicate key value")], held(), "failed", "past the policies: 23505")]
    #[case::written_whatever_the_control(written(0), vec![written(1)], not_held(), "failed", "1 row(s) written")]
    #[case::cannot_write_at_all(policy(), vec![policy()], held(), "inconclusive", "a inserts a row of its own in the same session")]
    #[case::neighbour_unseen(written(1), vec![policy()], not_held(), "inconclusive", "connection refused")]
    #[case::no_such_column(written(1), vec![denied("42703", "column does not exist")], held(), "inconclusive", "42703")]
    #[case::read_only(written(1), vec![denied("25006", "read-only transaction")], held(), "inconclusive", "25006")]
    #[case::time_out(written(1), vec![policy(), lost()], held(), "inconclusive", "no answer in time")]
    fn what_is_written_decides(
        #[case] own: StatementResult,
        #[case] seen: Vec<StatementResult>,
        #[case] neighbour: Control,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let allowed = [("inserts", &own)].into_iter();
        let seen = ["x", "y"].into_iter().zip(seen.iter().map(|result| vec![result]));
        let verdict = conclude(&cast(), allowed, seen, Vec::new(), [held(), neighbour]);
        let (found, all) = word_and_text(&verdict);
        assert_eq!(found, word, "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[rstest]
    #[case::by_copy(COPY, vec![denied("0A000", "COPY FROM not supported with row-level security")], "denied")]
    #[case::not_by_copy("x", vec![denied("0A000", "cannot")], "undecided")]
    #[case::the_first_key("x", vec![policy(), denied("42P10", "no constraint")], "denied")]
    #[case::the_second_key("x", vec![denied("42P10", "no constraint"), written(1)], "reached")]
    #[case::no_key("x", vec![denied("42P10", "no constraint"), denied("42P10", "no constraint")], "undecided")]
    fn a_refusal_must_be_of_the_kind(
        #[case] how: &str,
        #[case] results: Vec<StatementResult>,
        #[case] expected: &str,
    ) {
        let observed = Observed {
            what: String::new(),
            observation: refused(how, &results.iter().collect::<Vec<_>>()),
        };
        assert!(observed.to_string().contains(expected), "{observed}");
    }

    #[rstest]
    #[case::own_rows_only(vec![(2, written(2)), (2, written(2)), (2, written(2))], "denied (0 rows)")]
    #[case::one_changed_meanwhile(vec![(2, changed_meanwhile()), (3, written(3)), (3, written(3))], "denied (0 rows)")]
    #[case::always_changed_meanwhile(vec![(2, changed_meanwhile()), (2, changed_meanwhile())], "undecided (40001 could not serialize access)")]
    #[case::others_once(vec![(2, changed_meanwhile()), (2, written(3)), (3, written(3))], "reached (1 row(s) of others deleted)")]
    #[case::others_and_locked(vec![(2, denied("55P03", "lock timeout")), (2, written(3))], "reached (1 row(s) of others deleted)")]
    #[case::own_and_locked(vec![(2, written(2)), (2, denied("55P03", "lock timeout"))], "undecided (55P03 lock timeout)")]
    #[case::others_too(vec![(2, written(5)), (2, written(5)), (2, written(5))], "reached (3 row(s) of others deleted)")]
    #[case::no_right(vec![(2, denied("42501", "permission denied")), (2, written(2)), (2, written(2))], "denied (42501 no privilege)")]
    #[case::locked(vec![(2, denied("55P03", "lock timeout"))], "undecided (55P03 lock timeout)")]
    #[case::not_tried(vec![], "undecided (was not tried)")]
    fn who_deletes_everything_deletes_its_own(
        #[case] deletions: Vec<(u64, StatementResult)>,
        #[case] expected: &str,
    ) {
        let counted: Vec<_> = deletions
            .into_iter()
            .map(|(own, deleted)| [count(own), deleted])
            .collect();
        let deletions: Vec<_> = counted
            .iter()
            .map(|[counted, deleted]| [counted, deleted])
            .collect();
        let observed = Observed {
            what: "x".into(),
            observation: deleted_blindly(&deletions),
        };
        assert_eq!(observed.to_string(), format!("x: {expected}"));
    }

    #[test]
    fn claims_that_others_end_show_nothing() {
        let (change, seen) = (changed_meanwhile(), denied("25P02", "aborted"));
        let observation = claimed_blindly(&[[&change, &seen]; TIMES]);
        let expected = "40001 could not serialize access";
        assert_eq!(observation, Observation::Broken(expected.to_owned()));
    }

    #[rstest]
    #[case::unseen(written(2), none(), "denied (0 rows)")]
    #[case::seen(written(5), one("nonce-b"), "reached (1 row came back)")]
    #[case::by_a_key_of_anothers(
        denied("23505", "duplicate key"),
        denied("25P02", "aborted"),
        "reached (past the policies: 23505 duplicate key)"
    )]
    #[case::no_right(
        denied("42501", "permission denied"),
        denied("25P02", "aborted"),
        "denied (42501 no privilege)"
    )]
    #[case::locked(
        denied("55P03", "lock timeout"),
        denied("25P02", "aborted"),
        "undecided (55P03 lock timeout)"
    )]
    fn who_claims_everything_sees_its_own(
        #[case] change: StatementResult,
        #[case] seen: StatementResult,
        #[case] expected: &str,
    ) {
        let observed = Observed {
            what: "x".into(),
            observation: claimed_blindly(&[
                [&changed_meanwhile(), &denied("25P02", "aborted")],
                [&change, &seen],
            ]),
        };
        assert_eq!(observed.to_string(), format!("x: {expected}"));
    }

    fn rows(rows: &[(&str, &str)]) -> Result<StatementResult, HarnessError> {
        let rows = rows
            .iter()
            .map(|(id, text)| vec![Some((*id).to_owned()), Some((*text).to_owned())]);
        Ok(Ok(Rows {
            rows: rows.collect(),
            affected: 0,
        }))
    }

    #[rstest]
    #[case::as_it_was(rows(&[("id-b", "nonce-b")]), true, &[])]
    #[case::gone(rows(&[]), false, &["it is gone"])]
    #[case::changed(rows(&[("id-b", "changed")]), false, &["it was changed"])]
    #[case::one_too_many(rows(&[("id-a", "x"), ("id-b", "nonce-b")]), false, &["it has 1"])]
    #[case::unknown(Ok(lost()), false, &[])]
    #[case::unreachable(Err(HarnessError::new("connection refused")), false, &[])]
    fn what_the_other_one_finds_counts(
        #[case] found: Result<StatementResult, HarnessError>,
        #[case] holds: bool,
        #[case] expected: &[&str],
    ) {
        let (control, findings) = untouched(&row("b"), found);
        assert_eq!(control.holds.is_ok(), holds);
        let seen: Vec<&str> = findings.iter().map(|finding| finding.seen.as_str()).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn every_probe_aims_at_the_other_tenant() {
        for (how, ways) in probes(&table(), &cast()) {
            for way in ways {
                let aims = ["'id-b'", "'b'"];
                assert!(aims.iter().any(|aim| way.contains(aim)), "{how}: {way}");
            }
        }
    }

    #[test]
    fn nothing_is_written_is_no_row_or_a_refusal() {
        assert_eq!(nothing_written(&none()), Observation::Denied("0 rows".into()));
    }
}
