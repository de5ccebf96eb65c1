//! Answers of PostgreSQL and what they mean. The answers serve the checks' own tests too.

use super::*;
use crate::settings::{Overrides, resolve};
use rstest::rstest;

/// The platform's table.
pub(crate) fn table() -> Table {
    Table(resolve("x", &Overrides::default()).unwrap().postgresql)
}
/// A row of this tenant: `id-a` that says `nonce-a`.
pub(crate) fn row(tenant: &str) -> Row {
    Row {
        id: format!("id-{tenant}"),
        tenant: TenantId::try_from(tenant).unwrap(),
        text: format!("nonce-{tenant}"),
    }
}
fn rows(values: &[&[&str]]) -> StatementResult {
    let row = |row: &&[&str]| row.iter().map(|value| Some((*value).to_owned())).collect();
    Ok(Rows {
        rows: values.iter().map(row).collect(),
        affected: u64::try_from(values.len()).unwrap(),
    })
}
/// No row.
pub(crate) fn none() -> StatementResult {
    rows(&[])
}
/// One row of one column.
pub(crate) fn one(value: &str) -> StatementResult {
    rows(&[&[value]])
}
/// What `count(*)` says.
pub(crate) fn count(number: u64) -> StatementResult {
    one(&number.to_string())
}
/// What a change says.
pub(crate) fn written(affected: u64) -> StatementResult {
    Ok(Rows {
        rows: Vec::new(),
        affected,
    })
}
/// The server's error.
pub(crate) fn denied(state: &str, message: &str) -> StatementResult {
    Err(SqlError {
        sqlstate: Some(state.to_owned()),
        message: message.to_owned(),
    })
}
/// Nobody's error.
pub(crate) fn lost() -> StatementResult {
    Err(SqlError {
        sqlstate: None,
        message: "no answer in time".to_owned(),
    })
}

#[rstest]
#[case::no_row(none(), "denied (0 rows)")]
#[case::counted_nothing(count(0), "denied (0 rows)")]
#[case::exists_not(one("f"), "denied (0 rows)")]
#[case::aggregates(Ok(Rows { rows: vec![vec![None, None]], affected: 1 }), "denied (0 rows)")]
#[case::no_privilege(
    denied("42501", "permission denied for table t"),
    "denied (42501 no privilege)"
)]
#[case::one(one("nonce-b"), "reached (1 row came back)")]
#[case::counted(count(7), "reached (7 counted)")]
#[case::many(rows(&[&["x"], &["y"]]), "reached (2 row(s) came back)")]
#[case::noughts_in_many_rows(rows(&[&["0"], &["0"]]), "reached (2 row(s) came back)")]
#[case::aborted(
    denied("25P02", "current transaction is aborted"),
    "undecided (25P02 current transaction is aborted)"
)]
#[case::lost(lost(), "undecided (no answer in time)")]
fn reading_says_what_was_seen(#[case] result: StatementResult, #[case] expected: &str) {
    let observed = crate::verdict::Observed {
        what: "x".into(),
        observation: nothing_seen(&result),
    };
    assert_eq!(observed.to_string(), format!("x: {expected}"));
}

#[test]
fn names_are_quoted_and_strings_escaped() {
    let table = table();
    assert_eq!(table.name(), "\"ai_agents\".\"webhook\"");
    assert_eq!(table.context(), "\"app\".\"tenant\"");
    assert_eq!(literal("it's"), "'it''s'");
    assert_eq!(
        table.insert(&row("a")),
        "insert into \"ai_agents\".\"webhook\" (\"tenant_id\", \"id\", \"subject\") values ('a', 'id-a', 'nonce-a')"
    );
    assert_eq!(
        table.enter(&TenantId::try_from("a").unwrap()),
        "select set_config('app.tenant', 'a', true)"
    );
}

#[test]
fn only_what_other_runs_wrote_is_swept() {
    let sweep = table().sweep(&RunId::parse("0a1b2c3d").unwrap());
    assert!(sweep.contains("not like 'conformance-0a1b2c3d-%'"), "{sweep}");
    assert!(
        sweep.contains("~ '^conformance-[0-9a-f]{8}-(pg0[0-9]-[0-9a-f]{8}|[0-9a-f]{16})$'"),
        "{sweep}"
    );
}

#[rstest]
#[case::passed(Ok(Verdict::Passed(crate::verdict::Evidence::default())), "inconclusive")]
#[case::failed(Ok(Verdict::failed("x", "y")), "failed")]
#[case::undecided(Ok(Verdict::inconclusive("x")), "inconclusive")]
fn what_stays_behind_is_no_pass_and_hides_no_failure(
    #[case] verdict: Result<Verdict, HarnessError>,
    #[case] expected: &str,
) {
    let error = HarnessError::new("cannot remove");
    assert_eq!(conclude(verdict, Err(error)).unwrap().word(), expected);
}
