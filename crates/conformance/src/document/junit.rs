//! The report as JUnit XML: failure = a promise is broken, error = it could not be judged, skipped = left out. One suite per group of
//! checks. The `junit-report` crate writes it; what it leaves out (`skipped` counts, `<properties>`, and text that is safe in XML) is
//! added here. Read by Jenkins, GitLab, GitHub's report actions and Azure.

use crate::check;
use crate::report::{ItemResult, Report};
use crate::verdict::{Finding, Verdict};
use junit_report::{ReportBuilder, TestCase, TestSuite};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};
use std::collections::BTreeMap;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// The longest text that a test case carries.
const MAX_TEXT: usize = 64 << 10;
/// The longest message: shown in one line by most readers.
const MAX_MESSAGE: usize = 200;

/// A document that could not be written: a fault of the harness.
#[derive(Debug, thiserror::Error)]
pub enum JunitError {
    /// The writer refused it.
    #[error("write JUnit")]
    Write(#[from] junit_report::Error),
    /// What it wrote cannot be read back.
    #[error("read JUnit back")]
    Read(#[from] quick_xml::Error),
    /// As before, an attribute.
    #[error("read a JUnit attribute back")]
    Attribute(#[from] quick_xml::events::attributes::AttrError),
    /// The completed document could not be written.
    #[error("complete JUnit")]
    Complete(#[from] std::io::Error),
}

/// The document.
///
/// # Errors
/// [`JunitError`], which is a fault of the harness.
pub fn document(report: &Report) -> Result<Vec<u8>, JunitError> {
    let mut groups: Vec<&str> = Vec::new();
    for result in &report.results {
        if !groups.contains(&group(result)) {
            groups.push(group(result));
        }
    }
    let mut builder = ReportBuilder::new();
    for group in groups {
        builder.add_testsuite(suite(report, group));
    }
    if let Some(suite) = about_the_run(report) {
        builder.add_testsuite(suite);
    }
    let mut xml = Vec::new();
    builder.build().write_xml(&mut xml)?;
    complete(&xml, &extras(report))
}

/// What `junit-report` leaves out.
pub(super) struct Extras {
    /// The name of the whole.
    pub(super) name: &'static str,
    /// Attributes of the whole: tests, failures, errors, skipped.
    pub(super) totals: [usize; 4],
    /// The sum of all times.
    pub(super) seconds: f64,
    /// How many test cases were skipped, by suite.
    pub(super) skipped: BTreeMap<String, usize>,
    /// What every suite says of the run.
    pub(super) properties: Vec<(&'static str, String)>,
}

fn extras(report: &Report) -> Extras {
    let counts = report.counts();
    let own = about_the_run(report).map_or(0, |suite| suite.tests());
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for result in report.results.iter().filter(|result| is_skipped(result)) {
        *skipped.entry(group(result).to_owned()).or_default() += 1;
    }
    Extras {
        name: "conformance",
        totals: [
            counts.all() + own,
            counts.failed,
            counts.inconclusive + own,
            skipped.values().sum(),
        ],
        seconds: report
            .results
            .iter()
            .map(|result| result.took.as_secs_f64())
            .sum(),
        skipped,
        properties: properties(report),
    }
}

/// What befell the run itself, as errors of their own: a report without them would look green.
fn about_the_run(report: &Report) -> Option<TestSuite> {
    let mut cases = Vec::new();
    let mut error = |name: String, what: &str| {
        let mut case = TestCase::error(&safe(&name), Duration::ZERO, "run", &message(what));
        case.set_classname("conformance.RUN");
        cases.push(case);
    };
    if let Some(failure) = &report.failure {
        error("the run".to_owned(), failure);
    }
    if let Some(by) = &report.interrupted {
        error("the run".to_owned(), &format!("interrupted by {by}"));
    }
    for left in &report.left_behind {
        error(
            format!("clean-up of {}", left.split(':').next().unwrap_or(left)),
            left,
        );
    }
    if cases.is_empty() {
        return None;
    }
    let mut suite = empty_suite(report, "RUN");
    suite.add_testcases(cases);
    Some(suite)
}

/// `NET` of `NET-02`.
fn group(result: &ItemResult) -> &'static str {
    result.check.split('-').next().unwrap_or(result.check)
}

fn suite(report: &Report, group: &str) -> TestSuite {
    let mut suite = empty_suite(report, group);
    for result in report
        .results
        .iter()
        .filter(|result| self::group(result) == group)
    {
        suite.add_testcase(case(result));
    }
    suite
}

fn empty_suite(report: &Report, group: &str) -> TestSuite {
    let mut suite = TestSuite::new(group);
    // Jenkins shows `package.name`; the group alone is enough.
    suite.package = String::new();
    let beginning = report.beginning.as_ref();
    suite.hostname = safe(beginning.map_or("", |beginning| &beginning.cluster));
    let at = beginning.and_then(|beginning| OffsetDateTime::parse(&beginning.at, &Rfc3339).ok());
    suite.timestamp = at
        .and_then(|at| at.replace_nanosecond(0).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    suite
}

fn case(result: &ItemResult) -> TestCase {
    let name = safe(&result.name);
    let took = Duration::try_from(result.took).unwrap_or(Duration::MAX);
    let mut case = match (&result.verdict, &result.waived) {
        (Verdict::Passed(_), _) => TestCase::success(&name, took),
        (Verdict::Skipped { reason }, _) => TestCase::skipped_with_cause(&name, "skipped", &message(reason)),
        (_, Some(waiver)) => {
            TestCase::skipped_with_cause(&name, "waived", &message(&format!("waived: {waiver}")))
        }
        (Verdict::Failed { findings, .. }, None) => {
            TestCase::failure(&name, took, "isolation broken", &message(&first(findings)))
        }
        (Verdict::Inconclusive(cause), None) => {
            TestCase::error(&name, took, "inconclusive", &message(&cause.what))
        }
    };
    case.set_classname(&format!("conformance.{}", group(result)));
    let text = text(result);
    if !text.is_empty() {
        case.set_system_out(&safe(&text));
    }
    case
}

fn first(findings: &[Finding]) -> String {
    let text = findings.first().map_or(String::new(), |finding| {
        format!("expected: {}; seen: {}", finding.expected, finding.seen)
    });
    match findings.len() {
        0 | 1 => text,
        count => format!("{text} (and {} more)", count - 1),
    }
}

/// One line, not too long.
pub(super) fn message(text: &str) -> String {
    let line = safe(text).replace('\n', " ");
    match line.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Everything known of a result, for people.
fn text(result: &ItemResult) -> String {
    let mut lines = Vec::new();
    match &result.verdict {
        Verdict::Passed(evidence) => {
            lines.push(evidence.summary.clone());
            lines.extend(
                evidence
                    .figures
                    .iter()
                    .map(|figure| format!("{}: {} {}", figure.name, figure.value, figure.unit)),
            );
            lines.extend(evidence.controls.iter().map(|line| format!("control: {line}")));
            lines.extend(evidence.observed.iter().map(|line| format!("observed: {line}")));
        }
        Verdict::Failed { findings, observed } => {
            for finding in findings {
                lines.push(format!("expected: {}", finding.expected));
                lines.push(format!("seen: {}", finding.seen));
            }
            if let Some(check) = check::find(result.check) {
                lines.push(format!("hint: {}", check.info().remedy));
            }
            lines.extend(observed.iter().map(|line| format!("observed: {line}")));
        }
        Verdict::Inconclusive(cause) => {
            lines.push(cause.what.clone());
            lines.extend(cause.hint.iter().map(|hint| format!("hint: {hint}")));
        }
        Verdict::Skipped { .. } => {}
    }
    lines.extend(result.waived.iter().map(|waiver| format!("waived: {waiver}")));
    lines.join("\n")
}

/// Text that XML can hold in an attribute or in CDATA: no terminal escapes, no characters that XML forbids, no end of CDATA; not too long.
pub fn safe(text: &str) -> String {
    let end = text
        .char_indices()
        .map(|(at, _)| at)
        .take_while(|at| *at <= MAX_TEXT)
        .last()
        .unwrap_or(0);
    let text = if text.len() > MAX_TEXT { &text[..end] } else { text };
    let plain = anstream::adapter::strip_str(text).to_string();
    let allowed =
        |c: char| matches!(c, '\t' | '\n' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..);
    let legal: String = plain
        .chars()
        .map(|c| {
            if allowed(c) && c != '\u{7F}' {
                c
            } else {
                '\u{FFFD}'
            }
        })
        .collect();
    legal.replace("]]>", "]] >")
}

/// Adds what `junit-report` leaves out, by reading its document event by event.
pub(super) fn complete(xml: &[u8], extras: &Extras) -> Result<Vec<u8>, JunitError> {
    let mut reader = Reader::from_reader(xml);
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 1);
    let mut buffer = Vec::new();
    loop {
        match reader.read_event_into(&mut buffer)? {
            Event::Eof => break,
            Event::Start(start) if start.name().as_ref() == b"testsuites" => {
                writer.write_event(Event::Start(totals(start.into_owned(), extras)))?;
            }
            Event::Start(start) if start.name().as_ref() == b"testsuite" => {
                let name = attribute(&start, "name")?;
                let mut start = start.into_owned();
                let skipped = extras.skipped.get(&name).copied().unwrap_or_default();
                start.push_attribute(("skipped", skipped.to_string().as_str()));
                writer.write_event(Event::Start(start))?;
                write_properties(&mut writer, &extras.properties)?;
            }
            event => writer.write_event(event)?,
        }
        buffer.clear();
    }
    let mut document = writer.into_inner();
    document.push(b'\n');
    Ok(document)
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<String, JunitError> {
    let value = start
        .try_get_attribute(name)?
        .map(|attribute| attribute.value.into_owned());
    Ok(String::from_utf8_lossy(&value.unwrap_or_default()).into_owned())
}

fn is_skipped(result: &ItemResult) -> bool {
    !matches!(result.verdict, Verdict::Passed(_))
        && (matches!(result.verdict, Verdict::Skipped { .. }) || result.waived.is_some())
}

fn totals(mut start: BytesStart<'static>, extras: &Extras) -> BytesStart<'static> {
    start.push_attribute(("name", extras.name));
    for (name, count) in ["tests", "failures", "errors", "skipped"]
        .into_iter()
        .zip(extras.totals)
    {
        start.push_attribute((name, count.to_string().as_str()));
    }
    start.push_attribute(("time", format!("{:.3}", extras.seconds).as_str()));
    start
}

fn properties(report: &Report) -> Vec<(&'static str, String)> {
    let Some(beginning) = &report.beginning else {
        return Vec::new();
    };
    let properties = [
        ("verdict", report.headline()),
        ("run", beginning.run.clone()),
        ("cluster", beginning.cluster.clone()),
        ("server", beginning.server.clone()),
        ("version", beginning.version.clone()),
        ("user", beginning.user.clone()),
    ];
    let times = report
        .times
        .iter()
        .map(|(part, took)| (*part, format!("{:.3} s", took.as_secs_f64())));
    let retried = report
        .retried
        .iter()
        .map(|retried| ("retried", retried.to_string()));
    properties.into_iter().chain(times).chain(retried).collect()
}

fn write_properties(
    writer: &mut Writer<Vec<u8>>,
    properties: &[(&'static str, String)],
) -> Result<(), JunitError> {
    if properties.is_empty() {
        return Ok(());
    }
    writer
        .create_element("properties")
        .write_inner_content(|writer| {
            for (name, value) in properties {
                let value = safe(value);
                writer
                    .create_element("property")
                    .with_attribute(("name", *name))
                    .with_attribute(("value", value.as_str()))
                    .write_empty()?;
            }
            Ok(())
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{failed, inconclusive, passed, report, skipped};

    #[test]
    fn one_sample_of_every_result() {
        for (name, third) in [
            ("junit_inconclusive", inconclusive()),
            ("junit_skipped", skipped()),
        ] {
            let report = report(&[passed(), failed(), third], Vec::new());
            insta::assert_snapshot!(name, String::from_utf8(document(&report).unwrap()).unwrap());
        }
    }

    #[test]
    fn it_reads_back_with_every_item_and_its_result() {
        let report = report(&[passed(), failed(), inconclusive()], Vec::new());
        let xml = document(&report).unwrap();
        let mut reader = Reader::from_reader(xml.as_slice());
        let (mut cases, mut results, mut buffer) = (0, Vec::new(), Vec::new());
        loop {
            match reader.read_event_into(&mut buffer).unwrap() {
                Event::Eof => break,
                Event::Start(start) | Event::Empty(start) => match start.name().as_ref() {
                    b"testcase" => cases += 1,
                    b"failure" => results.push("failure"),
                    b"error" => results.push("error"),
                    _ => {}
                },
                _ => {}
            }
            buffer.clear();
        }
        assert_eq!((cases, results), (3, vec!["failure", "error"]));
    }

    #[test]
    fn a_run_that_left_something_or_came_to_nothing_is_not_green() {
        let mut left = report(&[passed()], Vec::new());
        left.left_behind
            .push("pod x in namespace n: still there".to_owned());
        let mut failed = report(&[], Vec::new());
        failed.failure = Some("get the cluster's version: refused".to_owned());
        for (report, name) in [(left, "clean-up of pod x in namespace n"), (failed, "the run")] {
            let xml = String::from_utf8(document(&report).unwrap()).unwrap();
            assert!(
                xml.contains(&format!("<testcase name=\"{name}\"")) && xml.contains("errors=\"1\""),
                "{xml}"
            );
        }
    }

    #[test]
    fn what_was_asked_again_is_a_property() {
        let mut report = report(&[passed()], Vec::new());
        let (what, times) = ("the API server answered 429".to_owned(), 7);
        report.retried.push(crate::retry::Retried { what, times });
        let xml = String::from_utf8(document(&report).unwrap()).unwrap();
        let property = "name=\"retried\" value=\"the API server answered 429 7 times; asked again\"";
        assert!(xml.contains(property), "{xml}");
        let closing = crate::document::terminal::closing(&report, std::time::Duration::ZERO);
        assert!(
            closing.contains("the API server answered 429 7 times; asked again"),
            "{closing}"
        );
    }

    #[test]
    fn text_is_made_safe_for_xml() {
        assert_eq!(
            safe("\u{1b}[31mred\u{1b}[0m ]]> \u{0}\u{7}\u{fffe}"),
            "red ]] > \u{fffd}"
        );
        assert!(safe(&"ä".repeat(MAX_TEXT)).len() <= MAX_TEXT + 4);
    }

    #[test]
    fn a_long_message_is_cut_to_one_line() {
        let cut = message(&"line\n".repeat(100));
        assert_eq!(cut.chars().count(), MAX_MESSAGE + 1);
        assert!(!cut.contains('\n'));
    }
}
