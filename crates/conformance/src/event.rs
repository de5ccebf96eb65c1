//! What happens in a run, as one stream. One consumer follows it: the report absorbs every event, the terminal shows it.

use crate::retry::Retried;
use crate::verdict::Verdict;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::mpsc;

/// What a run says of itself before it begins: the banner, and the head of every document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Beginning {
    /// The run's id.
    pub run: String,
    /// The cluster's name, as asked for.
    pub cluster: String,
    /// The address of its API server.
    pub server: String,
    /// The API server's version.
    pub version: String,
    /// Who the API server takes us for.
    pub user: String,
    /// The kind of local cluster it says it is; absent where it is not local.
    pub local: Option<String>,
    /// The nodes.
    pub nodes: Vec<String>,
    /// Each tenant, and whether it was there before.
    pub tenants: Vec<TenantBefore>,
    /// Every planned item, in the order of reports.
    pub items: Vec<PlannedItem>,
    /// Whether everything is left in place at the end.
    pub kept: bool,
    /// When it began, RFC 3339.
    pub at: String,
}

/// A tenant as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantBefore {
    /// Its id.
    pub id: String,
    /// Whether it was there: then it is used as it is and kept.
    pub existed: bool,
}

/// An item as the plan has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedItem {
    /// `NET-02 test-tenant-a -> test-tenant-b`.
    pub name: String,
    /// The check's id.
    pub check: &'static str,
    /// Why it is left out, where it is.
    pub left_out: Option<String>,
    /// Whether that is because the cluster lacks something, and not by choice.
    pub lacking: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The run begins.
    Began(Box<Beginning>),
    /// A resource is being put up, or is ready: a line of progress.
    Progress(String),
    /// Worth knowing, and no verdict: a retry, a leftover that was removed.
    Notice(String),
    /// An item is under way.
    Started(String),
    /// An item has its verdict.
    Finished {
        /// The item's name.
        item: String,
        /// What was concluded.
        verdict: Verdict,
        /// How long it took, waiting for what it needs included.
        took: Duration,
    },
    /// A part of the run is over: `verdicts` (from the start to the last verdict but clean-up's), `removal` (with the verdict on it).
    Took(&'static str, Duration),
    /// What failed in passing and was asked again, in the whole run.
    Retried(Vec<Retried>),
    /// Removing begins, of so many things.
    CleaningUp(usize),
    /// Something could not be removed.
    LeftBehind(String),
    /// The run was told to stop, by this.
    Interrupted(String),
    /// Nothing more will come.
    Ended,
}

/// The sending end.
#[derive(Debug, Clone)]
pub struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    /// A stream of events.
    pub fn channel() -> (Events, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Events(sender), receiver)
    }

    /// Sends one. Nobody listening is no reason to stop a run: clean-up must go on.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }

    /// A line of progress.
    pub fn progress(&self, line: impl Into<String>) {
        self.send(Event::Progress(line.into()));
    }

    /// A notice.
    pub fn notice(&self, line: impl Into<String>) {
        self.send(Event::Notice(line.into()));
    }
}
