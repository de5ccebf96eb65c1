//! What a preflight found, and how it is shown. Pure.

use super::Check;
use serde::Serialize;
use std::fmt;

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Ok,
    /// It is not there, or not as it must be.
    Missing,
    /// It was not looked at: it is not needed, or that was asked for.
    Skipped,
    /// It could not be found out.
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Skipped => "skipped",
            Self::Unknown => "unknown",
        }
    }
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Which.
    pub check: Check,
    /// Whose: a tenant, a namespace, a Service; empty for the cluster.
    pub of: String,
    /// How it stands.
    pub state: State,
    /// Whether it is worth a second look although it is there.
    pub warning: bool,
    /// What was expected and seen.
    pub detail: String,
    /// What mends it, as a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn new(check: Check, of: &str, state: State, detail: impl Into<String>) -> Self {
        Self {
            check,
            of: of.to_owned(),
            state,
            warning: false,
            detail: detail.into(),
            remedy: None,
        }
    }

    pub(super) fn skipped(check: Check, why: &str) -> Self {
        Self::new(check, "", State::Skipped, why)
    }

    #[must_use]
    pub(super) fn mend(self, remedy: impl Into<String>) -> Self {
        self.mend_with(Some(remedy.into()))
    }

    #[must_use]
    pub(super) fn mend_with(self, remedy: Option<String>) -> Self {
        Self { remedy, ..self }
    }

    #[must_use]
    pub(super) fn warn(self, remedy: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..self.mend(remedy)
        }
    }
}

/// What a preflight found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One finding for each thing.
    pub findings: Vec<Finding>,
    /// What the canary made and could not remove, and how to.
    pub left: Vec<String>,
    /// It was ended before its end.
    pub interrupted: bool,
}

impl Report {
    /// Whether everything that was looked at is there, and nothing was left behind.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let there = |finding: &Finding| matches!(finding.state, State::Ok | State::Skipped);
        self.findings.iter().all(there) && self.left.is_empty() && !self.interrupted
    }

    /// In the order of [`Check::ALL`], then by whose it is.
    pub(super) fn in_order(mut self) -> Self {
        self.findings
            .sort_by(|a, b| (a.check, &a.of).cmp(&(b.check, &b.of)));
        self
    }
}

/// A table, each remedy on the line below what it mends.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |heading: &str, of: fn(&Finding) -> usize| {
            self.findings.iter().map(of).fold(heading.len(), usize::max)
        };
        let (check, of) = (
            width("CHECK", |finding| finding.check.name().len()),
            width("OF", |finding| finding.of.chars().count()),
        );
        writeln!(f, "{:check$}  {:of$}  {:7}  DETAIL", "CHECK", "OF", "STATE")?;
        for finding in &self.findings {
            let warning = if finding.warning { "warning: " } else { "" };
            writeln!(
                f,
                "{:check$}  {:of$}  {:7}  {warning}{}",
                finding.check,
                finding.of,
                finding.state.word(),
                finding.detail
            )?;
            if let Some(remedy) = &finding.remedy {
                writeln!(f, "{:check$}  {:of$}  {:7}  mend: {remedy}", "", "", "")?;
            }
        }
        for left in &self.left {
            writeln!(f, "left behind: {left}")?;
        }
        Ok(())
    }
}
