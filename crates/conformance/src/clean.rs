//! `conformance clean`: removes what runs left behind: what has expired, what a crashed run of this machine wrote down, or a run that is named.

use crate::cluster::{self, Cluster};
use crate::error::HarnessError;
use crate::ledger::{self, Entry, Heading};
use crate::removal;
use crate::run::RunError;
use crate::settings::Settings;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which leftovers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those that have expired, and those of runs of this machine whose process is gone.
    Abandoned,
    /// Those of this run.
    Run(String),
    /// Those of every run, also of runs that are under way.
    All,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// Removed, by run.
    pub removed: Vec<(String, Entry)>,
    /// Not removed, and why.
    pub failed: Vec<(String, Entry, String)>,
    /// There still, and not among those asked for.
    pub spared: Vec<(String, Entry)>,
}

/// Removes leftovers of the settings' cluster.
///
/// # Errors
/// The cluster cannot be looked at, or may not be tested.
pub async fn clean(settings: &Settings, ledgers: &Path, which: &Which) -> Result<Cleaned, RunError> {
    let cluster = cluster::survey(settings).await?;
    cluster::gate(&cluster, settings)?;
    let written = written_down(ledgers, &cluster);
    let (chosen, spared) = choose(&cluster, which, &written).await?;
    let mut cleaned = Cleaned {
        spared,
        ..Cleaned::default()
    };
    for (run, entries) in chosen {
        let (run, entries) = (&run, &entries);
        let failed = removal::remove_run(&cluster.client, settings, run, entries, &|_| {}).await;
        if failed.is_empty()
            && let Some(ledger) = written.iter().find(|ledger| ledger.heading.run == *run)
        {
            // What it named is gone; a file that cannot be removed does no harm.
            let _ = std::fs::remove_file(&ledger.path);
        }
        let is_left = |entry: &Entry| failed.iter().any(|(left, _)| left == entry);
        cleaned.removed.extend(
            entries
                .iter()
                .filter(|entry| !is_left(entry))
                .map(|entry| (run.clone(), entry.clone())),
        );
        cleaned
            .failed
            .extend(failed.into_iter().map(|(entry, why)| (run.clone(), entry, why)));
    }
    Ok(cleaned)
}

struct Written {
    path: PathBuf,
    heading: Heading,
    entries: Vec<Entry>,
}

/// The ledgers of runs on this cluster whose process is gone.
fn written_down(directory: &Path, cluster: &Cluster) -> Vec<Written> {
    let Ok(files) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut written = Vec::new();
    for path in files.filter_map(Result::ok).map(|file| file.path()) {
        let is_ledger = path.extension().is_some_and(|extension| extension == "jsonl");
        if let (true, Ok((heading, entries))) = (is_ledger, ledger::read(&path))
            && heading.cluster == cluster.uid
            && ledger::is_held(&path).is_ok_and(|held| !held)
        {
            written.push(Written {
                path,
                heading,
                entries,
            });
        }
    }
    written
}

type Chosen = (BTreeMap<String, Vec<Entry>>, Vec<(String, Entry)>);

async fn choose(cluster: &Cluster, which: &Which, written: &[Written]) -> Result<Chosen, HarnessError> {
    let now = Timestamp::now();
    let mut chosen: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    let mut spared = Vec::new();
    let crashed = |run: &str| written.iter().any(|ledger| ledger.heading.run == run);
    for ledger in written.iter().filter(|ledger| {
        matches!(which, Which::Run(run) if *run == ledger.heading.run) || !matches!(which, Which::Run(_))
    }) {
        chosen.insert(ledger.heading.run.clone(), ledger.entries.clone());
    }
    for leftover in removal::leftovers(&cluster.client).await? {
        let take = match which {
            Which::Abandoned => leftover.expired(now) || crashed(&leftover.run),
            Which::Run(run) => *run == leftover.run,
            Which::All => true,
        };
        if take {
            let entries = chosen.entry(leftover.run.clone()).or_default();
            for entry in leftover.entries() {
                if !entries.contains(&entry) {
                    entries.push(entry);
                }
            }
        } else {
            spared.push((leftover.run, leftover.entry));
        }
    }
    Ok((chosen, spared))
}
