//! The matrix as JUnit XML: a test case per fault. failure = it was not seen as expected, error = it could not be judged, skipped = it is a
//! state of the cluster, judged elsewhere.

use crate::document::junit::{Extras, JunitError, complete, message, safe};
use crate::selftest::matrix::{Matrix, Row, Standing};
use junit_report::{ReportBuilder, TestCase, TestSuite};
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const SUITE: &str = "selftest";

/// The document.
///
/// # Errors
/// [`JunitError`], which is a fault of the harness.
pub fn document(matrix: &Matrix, took: Duration) -> Result<Vec<u8>, JunitError> {
    let cases: Vec<TestCase> = about_the_whole(matrix)
        .into_iter()
        .chain(matrix.rows.iter().map(|row| case(matrix, row)))
        .collect();
    let count = |is: fn(&TestCase) -> bool| cases.iter().filter(|each| is(each)).count();
    let extras = Extras {
        name: "conformance selftest",
        totals: [
            cases.len(),
            count(TestCase::is_failure),
            count(TestCase::is_error),
            count(TestCase::is_skipped),
        ],
        seconds: took.as_secs_f64(),
        skipped: BTreeMap::from([(SUITE.to_owned(), count(TestCase::is_skipped))]),
        properties: properties(matrix, took),
    };
    let mut suite = TestSuite::new(SUITE);
    let beginning = matrix.beginning.as_ref();
    suite.hostname = safe(beginning.map_or("", |beginning| &beginning.cluster));
    let at = beginning.and_then(|beginning| OffsetDateTime::parse(&beginning.at, &Rfc3339).ok());
    suite.timestamp = at
        .and_then(|at| at.replace_nanosecond(0).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    suite.package = String::new();
    suite.add_testcases(cases);
    let mut xml = Vec::new();
    ReportBuilder::new()
        .add_testsuite(suite)
        .build()
        .write_xml(&mut xml)?;
    complete(&xml, &extras)
}

/// What kept it from judging anything more, as an error of its own: a report without it would look green.
fn about_the_whole(matrix: &Matrix) -> Option<TestCase> {
    let interrupted = matrix
        .interrupted
        .as_ref()
        .map(|by| format!("interrupted by {by}"));
    let what = matrix.failure.clone().or(interrupted)?;
    Some(named(TestCase::error(
        "the selftest",
        time::Duration::ZERO,
        "run",
        &message(&what),
    )))
}

fn named(mut case: TestCase) -> TestCase {
    case.set_classname("conformance.selftest");
    case
}

fn case(matrix: &Matrix, row: &Row) -> TestCase {
    let name = safe(&row.planned.fault);
    let took = row
        .trial
        .as_ref()
        .and_then(|trial| time::Duration::try_from(trial.took).ok())
        .unwrap_or_default();
    let cluster = matrix
        .beginning
        .as_ref()
        .map_or("", |beginning| &beginning.cluster);
    let details = super::details(row, cluster);
    let told: Vec<String> = details
        .iter()
        .map(|(label, value)| format!("{label}: {value}"))
        .collect();
    let line = message(&told.join("; "));
    let mut case = match row.standing() {
        Standing::Exact => TestCase::success(&name, took),
        Standing::Differs(_) => TestCase::failure(&name, took, "not exact", &line),
        Standing::NotPlantable(_) => TestCase::failure(&name, took, "not planted", &line),
        Standing::Elsewhere(state) => TestCase::skipped_with_cause(
            &name,
            "elsewhere",
            &message(&format!("not plantable here: a state of the cluster ({state})")),
        ),
        Standing::Trouble(_) => TestCase::error(&name, took, "trouble", &line),
        Standing::NotJudged => TestCase::error(&name, took, "not judged", "not judged: it was not come to"),
    };
    let head = [
        format!("breaks: {}", row.planned.breaks),
        format!("expected: {}{}", row.planned.expected, super::at_second(row)),
    ];
    case.set_system_out(&safe(
        &head.into_iter().chain(told).collect::<Vec<_>>().join("\n"),
    ));
    named(case)
}

fn properties(matrix: &Matrix, took: Duration) -> Vec<(&'static str, String)> {
    let Some(beginning) = &matrix.beginning else {
        return Vec::new();
    };
    vec![
        ("verdict", super::headline(matrix, took)),
        ("cluster", beginning.cluster.clone()),
        ("server", beginning.server.clone()),
        ("version", beginning.version.clone()),
        ("user", beginning.user.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::matrix::tests::{judged, matrix};

    #[test]
    fn a_test_case_per_fault() {
        let outcomes = [Some(judged(&[], &[])), Some(judged(&["QUO-01 a"], &[])), None];
        let xml = document(&matrix(outcomes), Duration::from_secs(192)).unwrap();
        insta::assert_snapshot!("selftest_junit", String::from_utf8(xml).unwrap());
    }
}
