//! The run as people follow it: a banner, a line per finished item, the failures with what to do, the verdict. Lines are pure functions
//! of events and report; colour is stripped by the stream where it is not wanted.

use crate::check;
use crate::event::{Beginning, Event};
use crate::report::{Ending, Report};
use crate::verdict::Verdict;
use anstyle::{AnsiColor, Style};
use std::fmt::Write;
use std::time::Duration;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();

fn style(verdict: &Verdict) -> Style {
    match verdict {
        Verdict::Passed(_) => GREEN,
        Verdict::Failed { .. } => RED,
        Verdict::Skipped { .. } => DIM,
        Verdict::Inconclusive(_) => YELLOW,
    }
}

/// The banner: which cluster, as whom, and what will happen.
pub fn banner(beginning: &Beginning) -> String {
    let mut text = String::new();
    let Beginning {
        cluster,
        server,
        version,
        user,
        run,
        ..
    } = beginning;
    let kind = match &beginning.local {
        Some(kind) => format!("a local cluster ({kind})"),
        None => "NOT a local cluster: gentle limits apply".to_owned(),
    };
    let nodes = beginning.nodes.len();
    let judged = beginning
        .items
        .iter()
        .filter(|item| item.left_out.is_none())
        .count();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{BOLD}conformance run {run}{BOLD:#}");
    let _ = writeln!(
        text,
        "  cluster  {cluster}, {server}, Kubernetes {version}, {nodes} node(s), {kind}"
    );
    let _ = writeln!(text, "  user     {user}");
    for tenant in &beginning.tenants {
        let fate = match (tenant.existed, beginning.kept) {
            (true, _) => "is there already: used as it is, and kept",
            (false, false) => "is provisioned now, and removed at the end",
            (false, true) => "is provisioned now, and kept for a day",
        };
        let _ = writeln!(text, "  tenant   {} {fate}", tenant.id);
    }
    let end = if beginning.kept {
        "kept for a day"
    } else {
        "removed at the end"
    };
    let planned = beginning.items.len();
    let _ = writeln!(
        text,
        "  plan     {judged} of {planned} items; all that is made carries the run's id and is {end}"
    );
    text
}

/// The line or lines for an event; none for what is only of interest to the report.
pub fn line(event: &Event, elapsed: Duration) -> Option<String> {
    let at = format!("{DIM}{:>6.1}s{DIM:#}", elapsed.as_secs_f64());
    match event {
        Event::Began(beginning) => Some(banner(beginning)),
        Event::Progress(text) => Some(format!("{at}  {DIM}{text}{DIM:#}")),
        Event::Notice(text) => Some(format!("{at}  {YELLOW}note{YELLOW:#}  {text}")),
        Event::Finished { item, verdict, took } => Some(finished(&at, item, verdict, *took)),
        Event::CleaningUp(count) => Some(format!(
            "{at}  {DIM}removing what the run made: {count} object(s){DIM:#}"
        )),
        Event::LeftBehind(what) => Some(format!("{at}  {RED}left behind{RED:#}  {what}")),
        Event::Interrupted(by) => Some(format!(
            "{at}  {YELLOW}{by}{YELLOW:#}: stopping, then cleaning up; once more to leave at once"
        )),
        Event::Started(_) | Event::Took(..) | Event::Retried(_) | Event::Ended => None,
    }
}

fn finished(at: &str, item: &str, verdict: &Verdict, took: Duration) -> String {
    let style = style(verdict);
    let word = verdict.word();
    let mut text = format!(
        "{at}  {style}{word:<12}{style:#}  {BOLD}{item}{BOLD:#}  {DIM}{:.1}s{DIM:#}",
        took.as_secs_f64()
    );
    let mut detail = |label: &str, value: &str| {
        let _ = write!(text, "\n         {label:<12}  {value}");
    };
    match verdict {
        Verdict::Passed(evidence) => {
            detail("", &evidence.summary);
            for figure in &evidence.figures {
                detail("", &format!("{}: {} {}", figure.name, figure.value, figure.unit));
            }
        }
        Verdict::Failed { findings, .. } => {
            for finding in findings.iter().take(5) {
                detail("expected", &finding.expected);
                detail("seen", &finding.seen);
            }
            if findings.len() > 5 {
                detail("", &format!("and {} more: see the report", findings.len() - 5));
            }
            let id = item.split(' ').next().unwrap_or_default();
            if let Some(check) = check::find(id) {
                detail("hint", check.info().remedy);
            }
        }
        Verdict::Skipped { reason } => detail("reason", reason),
        Verdict::Inconclusive(cause) => {
            detail("cause", &cause.what);
            if let Some(hint) = &cause.hint {
                detail("hint", hint);
            }
        }
    }
    text
}

/// The end: what did not pass once more, what was asked again, and the verdict.
pub fn closing(report: &Report, took: Duration) -> String {
    let mut text = String::new();
    for result in &report.results {
        let waived = result
            .waived
            .as_ref()
            .filter(|_| !matches!(result.verdict, Verdict::Passed(_)));
        if let Some(waiver) = waived {
            let _ = writeln!(
                text,
                "  {YELLOW}waived{YELLOW:#}  {} {}: {waiver}",
                result.name,
                result.verdict.word()
            );
        } else if matches!(result.verdict, Verdict::Failed { .. } | Verdict::Inconclusive(_)) {
            let style = style(&result.verdict);
            let _ = writeln!(
                text,
                "  {style}{:<12}{style:#}  {}",
                result.verdict.word(),
                result.name
            );
        }
    }
    for retried in &report.retried {
        let _ = writeln!(text, "  {YELLOW}note{YELLOW:#}  {retried}");
    }
    let style = match report.ending() {
        Ending::Conformant => GREEN.bold(),
        Ending::Broken => RED,
        _ => YELLOW.bold(),
    };
    let parts: String = report
        .times
        .iter()
        .map(|(part, took)| format!("{part} {:.1}s, ", took.as_secs_f64()))
        .collect();
    let (headline, all) = (report.headline(), took.as_secs_f64());
    let _ = write!(
        text,
        "{style}{headline}{style:#}  {DIM}({parts}all {all:.1}s){DIM:#}"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{failed, inconclusive, passed, report, skipped};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_run_in_lines() {
        let report = report(&[passed(), failed(), inconclusive()], Vec::new());
        let mut text = plain(&banner(report.beginning.as_ref().unwrap()));
        for result in &report.results {
            let event = Event::Finished {
                item: result.name.clone(),
                verdict: result.verdict.clone(),
                took: result.took,
            };
            text.push_str(&plain(&line(&event, Duration::from_secs(2)).unwrap()));
            text.push('\n');
        }
        text.push_str(&plain(&closing(&report, Duration::from_secs(3))));
        insta::assert_snapshot!("terminal", text);
    }

    #[test]
    fn what_is_left_out_says_why() {
        let event = Event::Finished {
            item: "NET-01 cluster".into(),
            verdict: skipped().unwrap(),
            took: Duration::ZERO,
        };
        assert!(plain(&line(&event, Duration::ZERO).unwrap()).contains("reason        left out by --skip"));
    }
}
