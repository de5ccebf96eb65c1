//! A selftest as people follow it: a banner, a line per fault with what was expected and seen, the closing line; and the list of faults.
//! Pure functions of steps and matrix; colour is stripped by the stream where it is not wanted.

pub mod junit;
pub mod markdown;

use crate::document::junit::message;
use crate::fault::Fault;
use crate::report::Ending;
use crate::selftest::matrix::{Difference, Matrix, Row, Standing};
use crate::selftest::{Beginning, Outcome};
use anstyle::{AnsiColor, Style};
use std::fmt::Write;
use std::time::Duration;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// The banner: which cluster, as whom, and what will happen.
pub fn banner(beginning: &Beginning) -> String {
    let Beginning {
        cluster,
        server,
        version,
        user,
        jobs,
        faults,
        ..
    } = beginning;
    let here = faults
        .iter()
        .skip(1)
        .filter(|fault| fault.cluster.is_none())
        .count();
    let mut text = format!("{BOLD}conformance selftest{BOLD:#}\n");
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "  cluster  {cluster}, {server}, Kubernetes {version}");
    let _ = writeln!(text, "  user     {user}");
    let _ = writeln!(
        text,
        "  plan     a clean pass, then {here} faults and harmless changes, {jobs} at a time, each on two tenants of its own"
    );
    for fault in faults {
        if let Some(state) = &fault.cluster {
            let _ = writeln!(
                text,
                "           not plantable here: {} (a state of the cluster: {state})",
                fault.fault
            );
        }
    }
    text
}

/// A notice.
pub fn notice(what: &str, elapsed: Duration) -> String {
    format!("{}  {YELLOW}note{YELLOW:#}  {what}", at(elapsed))
}

/// That it was told to stop.
pub fn interrupted(by: &str, elapsed: Duration) -> String {
    format!(
        "{}  {YELLOW}{by}{YELLOW:#}: stopping, then cleaning up; once more to leave at once",
        at(elapsed)
    )
}

/// What is under way, in one line that fits a narrow terminal.
pub fn under_way(done: usize, all: usize, faults: &[String]) -> String {
    let text = format!("        {done} of {all} done; under way: {}", faults.join(", "));
    let text: String = text.chars().take(78).collect();
    format!("{DIM}{text}{DIM:#}")
}

fn at(elapsed: Duration) -> String {
    format!("{DIM}{:>6.1}s{DIM:#}", elapsed.as_secs_f64())
}

/// The line of a fault that is done; more lines where it is not exact.
pub fn line(row: &Row, cluster: &str, elapsed: Duration) -> String {
    let name = &row.planned.fault;
    let expected = &row.planned.expected;
    let took = row.trial.as_ref().map_or(0.0, |trial| trial.took.as_secs_f64());
    let (style, word, told) = match row.standing() {
        Standing::Exact => (
            GREEN,
            "exact",
            format!("as expected: {expected}{}", at_second(row)),
        ),
        Standing::Differs(_) => (RED, "not exact", format!("expected: {expected}")),
        Standing::Elsewhere(state) => (DIM, "elsewhere", state),
        Standing::NotPlantable(_) => (RED, "not planted", format!("expected: {expected}")),
        Standing::Trouble(_) => (YELLOW, "trouble", format!("expected: {expected}")),
        Standing::NotJudged => (YELLOW, "not judged", String::new()),
    };
    let mut text = format!(
        "{}  {style}{word:<11}{style:#}  {BOLD}{name:<34}{BOLD:#}  {told}  {DIM}{took:.1}s{DIM:#}",
        at(elapsed)
    );
    for (label, value) in details(row, cluster) {
        let value = if label == "hint" { value } else { message(&value) };
        let _ = write!(text, "\n         {label:<11}  {value}");
    }
    text
}

/// That it took two plantings, and why; empty where it did not.
pub(crate) fn at_second(row: &Row) -> String {
    let why = match row.first.as_ref().map(|trial| &trial.outcome) {
        None => return String::new(),
        Some(Outcome::Judged { seen, .. }) => format!("seen {seen}"),
        Some(Outcome::Trouble(cause) | Outcome::NotPlantable(cause)) => cause.what.clone(),
        Some(Outcome::Interrupted) => "interrupted".to_owned(),
    };
    format!(" (planted once more; at first {})", message(&why))
}

/// What is to be said of a fault that is not exact: labels and values.
pub(crate) fn details(row: &Row, cluster: &str) -> Vec<(&'static str, String)> {
    let cause = |cause: crate::verdict::Cause| {
        let hint = cause.hint.map(|hint| ("hint", hint));
        std::iter::once(("cause", cause.what)).chain(hint).collect()
    };
    match row.standing() {
        Standing::Differs(differences) => differ(row, &differences, cluster),
        Standing::NotPlantable(why) | Standing::Trouble(why) => cause(why),
        Standing::Exact | Standing::Elsewhere(_) | Standing::NotJudged => Vec::new(),
    }
}

fn differ(row: &Row, differences: &[Difference], cluster: &str) -> Vec<(&'static str, String)> {
    let name = &row.planned.fault;
    let mut told = Vec::new();
    for Difference {
        item,
        expected,
        seen,
        why,
    } in differences
    {
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        told.push(("expected", format!("{item} {expected}")));
        told.push(("seen", format!("{seen}{why}")));
    }
    let hint = if row.planned.is_clean_pass() {
        format!("nothing was planted yet: look at the cluster with `conformance run --cluster {cluster}`")
    } else {
        format!(
            "where the check is right, correct failed and inconclusive in {name}/fault.yaml; where not, mend the check; again by `conformance selftest --cluster {cluster} --only {name}`"
        )
    };
    told.push(("hint", hint));
    told
}

/// The end in one line.
pub fn closing(matrix: &Matrix, took: Duration) -> String {
    let style = match matrix.ending() {
        Ending::Conformant => GREEN.bold(),
        Ending::Broken => RED,
        _ => YELLOW.bold(),
    };
    format!("{style}{}{style:#}", headline(matrix, took))
}

/// The same without colour.
pub fn headline(matrix: &Matrix, took: Duration) -> String {
    let counts = matrix.counts();
    let (minutes, seconds) = (took.as_secs() / 60, took.as_secs() % 60);
    let parts = [
        (counts.faults, "faults"),
        (counts.harmless, "harmless changes"),
        (counts.elsewhere, "not plantable here"),
        (counts.at_second, "exact when planted once more"),
    ];
    let parts: String = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!(", {count} {what}"))
        .collect();
    let matrix_line = format!(
        "kill matrix: {} of {} exact in {minutes}m{seconds:02}s",
        counts.exact, counts.here
    );
    if let Some(by) = &matrix.interrupted {
        format!("interrupted by {by}; {matrix_line}")
    } else if !matrix.is_clean() {
        format!(
            "nothing is claimed: the clean pass did not pass ({seconds}s)",
            seconds = took.as_secs()
        )
    } else {
        format!("{matrix_line} (clean pass{parts})")
    }
}

/// The faults, one a line: what each breaks, and what must not pass.
pub fn list(faults: &[Fault]) -> String {
    let mut text = String::new();
    for fault in faults {
        let state = fault
            .cluster
            .as_ref()
            .map_or(String::new(), |state| format!("  (cluster: {state})"));
        let _ = writeln!(
            text,
            "{}{state}\n    breaks    {}\n    expected  {}",
            fault.name, fault.breaks, fault.expected
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::matrix::tests::{judged, matrix};
    use crate::selftest::{Step, Trial};
    use crate::verdict::Cause;

    #[test]
    fn a_selftest_in_lines() {
        let trouble = Outcome::Trouble(Cause {
            what: "tenant extra-labels-a was there already".into(),
            hint: Some("delete it".into()),
        });
        let matrix = matrix([
            Some(judged(&[], &[])),
            Some(judged(&["QUO-01 a"], &[])),
            Some(trouble),
        ]);
        let mut text = banner(matrix.beginning.as_ref().unwrap());
        for row in &matrix.rows[..3] {
            text.push_str(&line(row, "lab", Duration::from_secs(20)));
            text.push('\n');
        }
        text.push_str(&closing(&matrix, Duration::from_secs(192)));
        insta::assert_snapshot!(
            "selftest_terminal",
            anstream::adapter::strip_str(&text).to_string()
        );
    }

    #[test]
    fn a_fault_that_was_planted_twice_says_what_came_of_the_first() {
        let mut matrix = matrix([
            Some(judged(&[], &[])),
            Some(judged(&["NET-03 a -> b"], &["APP-17 a -> b"])),
            Some(judged(&[], &[])),
        ]);
        matrix.absorb(&Step::Finished(Trial {
            fault: "no-default-deny".into(),
            outcome: judged(&["NET-03 a -> b"], &[]),
            took: Duration::from_secs(30),
        }));
        let told = line(&matrix.rows[1], "lab", Duration::from_secs(20));
        assert!(
            told.contains("as expected: failed NET-03 a -> b (planted once more; at first seen failed NET-03 a -> b; inconclusive APP-17 a -> b)"),
            "{told}"
        );
        let told = headline(&matrix, Duration::from_secs(192));
        assert!(told.ends_with("1 exact when planted once more)"), "{told}");
    }

    #[test]
    fn the_headline_says_what_was_judged() {
        let exact = matrix([
            Some(judged(&[], &[])),
            Some(judged(&["NET-03 a -> b"], &[])),
            Some(judged(&[], &[])),
        ]);
        let took = Duration::from_secs(192);
        assert_eq!(
            headline(&exact, took),
            "kill matrix: 2 of 2 exact in 3m12s (clean pass, 1 faults, 1 harmless changes, 1 not plantable here)"
        );
        let red = matrix([Some(judged(&["QUO-01 a"], &[])), None, None]);
        assert_eq!(
            headline(&red, Duration::from_secs(18)),
            "nothing is claimed: the clean pass did not pass (18s)"
        );
    }
}
