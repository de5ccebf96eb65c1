//! PG-01: a tenant that reads the shared table gets its own rows and nobody else's, however it asks.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::postgresql::{self, Canaries, Client, Row, Script, Table, literal, nothing_seen, own_row};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use probe::protocol::StatementResult;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Pg01;

static INFO: CheckInfo = CheckInfo {
    id: "PG-01",
    title: "a tenant reads its own rows in PostgreSQL, and none of another tenant's",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "All tenants' rows are in one table. Where row-level security is off, a policy says true or the role bypasses policies, every query that forgets a condition hands over everybody's data.",
    how: "Each tenant writes a row with a nonce, with the credentials from its own namespace, from a pod there, in its own context. Then A, in its context, asks for B's row by its id and by its key, counts it, counts B's rows and all that are not its own, aggregates, joins, looks in a subquery and in a set operation: nothing may come back. Controls: in the same session, before and after, A gets its own row, nonce included, and B gets its own.",
    remedy: "look at the table's policies and at the tenant's role: select relrowsecurity, relforcerowsecurity from pg_class; select * from pg_policies; select rolsuper, rolbypassrls from pg_roles. enhancer migrate and provisioner apply bring back what is promised",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

impl Check for Pg01 {
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

async fn judge(cx: &Context, from: &TenantId, to: &TenantId) -> Result<Verdict, HarnessError> {
    let (a, b) = (Client::of(cx, from).await?, Client::of(cx, to).await?);
    let (own, foreign) = (a.row("pg01")?, b.row("pg01")?);
    let canaries = Canaries::of(&[&a, &b], [own.id.clone(), foreign.id.clone()]);
    let verdict = read(&a, &b, &own, &foreign).await;
    canaries.remove(verdict).await
}

async fn read(a: &Client, b: &Client, own: &Row, foreign: &Row) -> Result<Verdict, HarnessError> {
    // Both to the end: what is given up in the middle may be written after it was removed.
    let (mine, theirs) = futures::join!(a.write(own), b.write(foreign));
    mine.and(theirs)?;
    let neighbour_before = b.sees(foreign, "before").await;
    let (mut script, text) = (Script::default(), a.table.text_of(&own.id));
    let own_before = a.within(&mut script, &text);
    let mut asked = Vec::new();
    for (how, statement) in probes(&a.table, own, foreign) {
        asked.push((how, a.within(&mut script, &statement)));
    }
    let own_after = a.within(&mut script, &text);
    let results = a.say(&script).await?;
    let neighbour = [neighbour_before, b.sees(foreign, "after").await];
    let seen = asked.into_iter().map(|(how, place)| (how, &results[place]));
    Ok(conclude(
        own,
        foreign,
        [&results[own_before], &results[own_after]],
        &neighbour,
        seen,
    ))
}

/// Ways to get at the other one's row: for people, and in SQL.
fn probes(table: &Table, own: &Row, foreign: &Row) -> Vec<(&'static str, String)> {
    let (name, [id, tenant, text]) = (table.name(), table.columns());
    let (mine, theirs) = (literal(&own.id), literal(&foreign.id));
    let (us, them) = (literal(own.tenant.as_str()), literal(foreign.tenant.as_str()));
    vec![
        (
            "by its id",
            format!("select {text} from {name} where {id} = {theirs}"),
        ),
        (
            "by its key",
            format!("select {tenant}, {id}, {text} from {name} where {tenant} = {them} and {id} = {theirs}"),
        ),
        (
            "by what it says",
            format!(
                "select {id} from {name} where {text} = {}",
                literal(&foreign.text)
            ),
        ),
        (
            "counted",
            format!("select count(*) from {name} where {id} = {theirs}"),
        ),
        (
            "among all rows of its tenant",
            format!("select count(*) from {name} where {tenant} = {them}"),
        ),
        (
            "among all rows that are not one's own",
            format!("select count(*) from {name} where {tenant} is distinct from {us}"),
        ),
        (
            "in an aggregate",
            format!(
                "select max({text}), min({text}), string_agg({text}, ',') from {name} where {id} = {theirs}"
            ),
        ),
        (
            "in a join",
            format!(
                "select theirs.{text} from {name} mine join {name} theirs on theirs.{id} = {theirs} where mine.{id} = {mine}"
            ),
        ),
        (
            "in a subquery",
            format!("select exists (select 1 from {name} where {id} = {theirs})"),
        ),
        (
            "in a set operation",
            format!(
                "select {text} from {name} where {id} in ({mine}, {theirs}) except select {text} from {name} where {id} = {mine}"
            ),
        ),
    ]
}

/// What the probes saw, each by how it asked, between two looks at one's own row.
fn conclude<'a>(
    own: &Row,
    foreign: &Row,
    [before, after]: [&StatementResult; 2],
    neighbour: &[Control],
    seen: impl Iterator<Item = (&'static str, &'a StatementResult)>,
) -> Verdict {
    let (a, b) = (&own.tenant, &foreign.tenant);
    let sees = |when: &str| format!("{a} sees its own row in the same session, {when}");
    let mut controls = vec![
        own_row(sees("before"), before, own),
        own_row(sees("after"), after, own),
    ];
    controls.extend_from_slice(neighbour);
    let observed: Vec<Observed> = seen
        .map(|(how, result)| Observed {
            what: format!("{a} -> {b}'s row, {how}"),
            observation: nothing_seen(result),
        })
        .collect();
    judge_denied(&prove(&controls), &observed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgresql::tests::{count, denied, lost, none, one, row, table};
    use crate::scripted::word_and_text;
    use rstest::rstest;

    fn held(claim: &str) -> Control {
        Control {
            claim: claim.into(),
            holds: Ok("its nonce came back".into()),
        }
    }
    fn not_held(claim: &str) -> Control {
        Control {
            claim: claim.into(),
            holds: Err("the row is not there".into()),
        }
    }

    #[rstest]
    #[case::nothing_comes_back(one("nonce-a"), vec![none(), count(0)], held("b"), "passed", "2 of 2 denied (0 rows)")]
    #[case::no_right_to_ask(one("nonce-a"), vec![denied("42501", "permission denied for table t")], held("b"), "passed", "42501 no privilege")]
    #[case::a_row_comes_back(one("nonce-a"), vec![none(), one("nonce-b")], held("b"), "failed", "a -> b's row, y is denied")]
    #[case::a_row_is_counted(one("nonce-a"), vec![count(3)], held("b"), "failed", "3 counted")]
    #[case::leaks_outrank_a_failed_control(none(), vec![one("nonce-b")], not_held("b"), "failed", "1 row came back")]
    #[case::leaks_outrank_a_lost_session(lost(), vec![one("nonce-b"), lost()], held("b"), "failed", "1 row came back")]
    #[case::own_row_unseen(none(), vec![none()], held("b"), "inconclusive", "a sees its own row in the same session, before")]
    #[case::somebody_elses_nonce(one("nonce-c"), vec![none()], held("b"), "inconclusive", "the row says something else")]
    #[case::neighbour_has_none(one("nonce-a"), vec![none()], not_held("b sees its own row"), "inconclusive", "b sees its own row")]
    #[case::wrong_error(one("nonce-a"), vec![denied("42P01", "relation does not exist")], held("b"), "inconclusive", "42P01")]
    #[case::time_out(one("nonce-a"), vec![none(), lost()], held("b"), "inconclusive", "no answer in time")]
    fn what_comes_back_decides(
        #[case] own: StatementResult,
        #[case] seen: Vec<StatementResult>,
        #[case] neighbour: Control,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let seen = ["x", "y"].into_iter().zip(&seen);
        let verdict = conclude(&row("a"), &row("b"), [&own, &own], &[neighbour], seen);
        let (found, all) = word_and_text(&verdict);
        assert_eq!(found, word, "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[test]
    fn every_way_asks_for_the_other_ones_row_or_for_all() {
        for (how, statement) in probes(&table(), &row("a"), &row("b")) {
            let aims = [
                "'id-b'",
                "'nonce-b'",
                "\"tenant_id\" = 'b'",
                "is distinct from 'a'",
            ];
            assert!(
                aims.iter().any(|aim| statement.contains(aim)),
                "{how}: {statement}"
            );
            assert!(
                statement.contains("\"ai_agents\".\"webhook\""),
                "{how}: {statement}"
            );
        }
    }
}
