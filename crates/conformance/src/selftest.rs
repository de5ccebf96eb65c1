//! Plants every fault on tenants of its own and looks whether a whole run sees it, and nothing else: the proof that the checks can fail. A
//! clean pass comes first. What came of it is a stream of steps, one consumer folds them into the matrix.

mod altered;
pub mod matrix;
mod trial;

use crate::cluster::{self, Cluster};
use crate::error::HarnessError;
use crate::fault::{CLEAN_PASS, Fault, NotPassed};
use crate::run::{self, RunError};
use crate::settings::{Settings, SettingsError, invalid};
use crate::stage::Surroundings;
use crate::verdict::Cause;
use provisioner::Quantity;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a selftest is asked for.
pub struct Request {
    /// The settings; its tenants are a pattern for those of the faults.
    pub settings: Settings,
    /// The faults.
    pub faults: Vec<Fault>,
    /// How many are judged at once.
    pub jobs: NonZeroU32,
    /// Where ledgers are kept.
    pub ledgers: PathBuf,
}

/// What a selftest says of itself before it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The cluster's name, as asked for.
    pub cluster: String,
    /// The address of its API server.
    pub server: String,
    /// The API server's version.
    pub version: String,
    /// Who the API server takes us for.
    pub user: String,
    /// How many faults are judged at once.
    pub jobs: u32,
    /// Every fault, in the order of reports, the clean pass first.
    pub faults: Vec<Planned>,
    /// When it began, RFC 3339.
    pub at: String,
}

/// A fault as it is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub fault: String,
    /// What it breaks.
    pub breaks: String,
    /// What must not pass.
    pub expected: NotPassed,
    /// The state of the cluster that it is, where it is one.
    pub cluster: Option<String>,
}

impl Planned {
    /// Whether nothing is planted, to see that everything passes.
    pub fn is_clean_pass(&self) -> bool {
        self.fault == CLEAN_PASS
    }
}

/// What came of one fault, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Its name.
    pub fault: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, removal included.
    pub took: Duration,
}

/// What came of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every item was judged.
    Judged {
        /// What did not pass.
        seen: NotPassed,
        /// What was found at each of those, in a line.
        why: Vec<(String, String)>,
    },
    /// It could not be planted on this cluster.
    NotPlantable(Cause),
    /// The harness could not do its work.
    Trouble(Cause),
    /// Interrupted, after clean-up.
    Interrupted,
}

impl Outcome {
    /// Whether nothing contradicts what was expected, but something that should have been judged was not: busy machines do that, and the
    /// fault is planted once more. An item that passed or failed where it should not is never asked again.
    pub fn is_undecided(&self, expected: &NotPassed) -> bool {
        match self {
            Outcome::Judged { seen, .. } => seen != expected && !self.is_wrong(expected),
            Outcome::Trouble(_) => true,
            Outcome::NotPlantable(_) | Outcome::Interrupted => false,
        }
    }

    /// Whether an item passed or failed where it should not.
    pub fn is_wrong(&self, expected: &NotPassed) -> bool {
        matches!(self, Outcome::Judged { seen, .. } if !matrix::differing(expected, seen).all(|item| seen.inconclusive.contains(item)))
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The selftest begins.
    Began(Box<Beginning>),
    /// A fault is being planted.
    Started(String),
    /// A fault has been judged, and what was made for it is gone.
    Finished(Trial),
    /// Worth knowing.
    Notice(String),
    /// It was told to stop, by this.
    Interrupted(String),
    /// Nothing more will come.
    Ended,
}

/// The sending end of the stream of steps.
#[derive(Debug, Clone)]
pub struct Steps(mpsc::UnboundedSender<Step>);

impl Steps {
    /// A stream of steps.
    pub fn channel() -> (Steps, mpsc::UnboundedReceiver<Step>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Steps(sender), receiver)
    }

    /// Sends one. Nobody listening is no reason to stop: clean-up must go on.
    pub fn send(&self, step: Step) {
        let _ = self.0.send(step);
    }
}

/// What the trials stand on.
struct Site {
    cluster: Cluster,
    settings: Settings,
    ledgers: PathBuf,
    steps: Steps,
    cancel: CancellationToken,
    /// A fault that others see could not be taken back: whatever is judged from then on says nothing.
    spoilt: AtomicBool,
}

/// Runs. What came of each fault goes to `steps`; when this returns, what was made is removed, or named as left behind.
///
/// # Errors
/// [`RunError`], where nothing was planted at all.
pub async fn run(request: Request, steps: Steps, cancel: CancellationToken) -> Result<(), RunError> {
    let Request {
        mut settings,
        faults,
        jobs,
        ledgers,
    } = request;
    ask_for_little(&mut settings)?;
    let cluster = cluster::survey(&settings).await?;
    refuse_shared(&cluster.local, &cluster.server, &settings)?;
    let clean = Fault::none()?;
    let jobs = jobs.get();
    steps.send(Step::Began(Box::new(beginning(
        &cluster, &settings, jobs, &clean, &faults,
    ))));
    let site = Arc::new(Site {
        cluster,
        settings,
        ledgers,
        steps,
        cancel,
        spoilt: AtomicBool::new(false),
    });
    // What a selftest left that was killed while such a fault stood; where nothing stands, this changes nothing.
    restore_services(&site, &faults).await?;
    let turns = Arc::new(Semaphore::new(jobs as usize));
    let mut trials = Trials::new();
    let (judged, all_passed) = oneshot::channel();
    // It puts up all that it needs, as every run does.
    if let Some(turn) = turn(&turns, 1, &site.cancel).await {
        let around = Surroundings::default();
        trials.spawn(trial::conduct(
            Arc::clone(&site),
            clean,
            around,
            turn,
            Some(judged),
        ));
    }
    // Its verdicts are enough to go on: that nothing of it is left is judged beside the first faults.
    let mut surrounded = None;
    if all_passed.await == Ok(true) {
        // What stands outside of tenants is the same for every fault.
        let life = faults.iter().fold(SURROUNDED_FOR, |life, _| life + FAULT_TAKES);
        surrounded = Some(run::surround(&site.settings, &site.ledgers, life).await);
    }
    if let Some(Ok(common)) = &surrounded {
        let around = common.surroundings();
        plant(&site, &faults, &around, (jobs, &turns), &mut trials).await;
        let undecided = undecided(&site, &faults, &ended(&site, &mut trials).await);
        plant(
            &site,
            &undecided,
            &around,
            (1, &Arc::new(Semaphore::new(1))),
            &mut trials,
        )
        .await;
    }
    ended(&site, &mut trials).await;
    if site.spoilt.load(Ordering::Relaxed)
        && let Err(error) = restore_services(&site, &faults).await
    {
        site.notice(&error);
    }
    if let Some(common) = surrounded {
        common?.remove().await?;
    }
    Ok(())
}

/// Takes back whatever these faults change in PostgreSQL and Redis for others too.
async fn restore_services(site: &Site, faults: &[Fault]) -> Result<(), HarnessError> {
    for fault in faults {
        trial::restored_services(site, &fault.services).await?;
        trial::swept_services(site, &fault.services).await?;
    }
    Ok(())
}

type Trials = JoinSet<Trial>;

/// Starts a trial whenever there is a turn; those that others would see come last, and alone.
async fn plant(
    site: &Arc<Site>,
    faults: &[Fault],
    around: &Surroundings,
    (jobs, turns): (u32, &Arc<Semaphore>),
    trials: &mut Trials,
) {
    let mut faults: Vec<&Fault> = faults.iter().filter(|fault| fault.cluster.is_none()).collect();
    faults.sort_by_key(|fault| fault.is_alone());
    for fault in faults {
        let wanted = if fault.is_alone() { jobs } else { 1 };
        let Some(turn) = turn(turns, wanted, &site.cancel).await else {
            return;
        };
        if site.spoilt.load(Ordering::Relaxed) {
            site.steps.send(Step::Notice(
                "a fault that others see could not be taken back: no more is planted".to_owned(),
            ));
            return;
        }
        trials.spawn(trial::conduct(
            Arc::clone(site),
            fault.clone(),
            around.clone(),
            turn,
            None,
        ));
    }
}

/// What came of the trials that were started, once all have ended.
async fn ended(site: &Site, trials: &mut Trials) -> Vec<Trial> {
    let mut all = Vec::new();
    while let Some(ended) = trials.join_next().await {
        match ended {
            Ok(trial) => all.push(trial),
            Err(panic) => site.steps.send(Step::Notice(format!(
                "a trial ended in a panic, a fault of ours: {panic}"
            ))),
        }
    }
    all
}

/// The faults to plant once more, alone, and says so.
fn undecided(site: &Site, faults: &[Fault], trials: &[Trial]) -> Vec<Fault> {
    let is_undecided = |fault: &&Fault| {
        trials
            .iter()
            .any(|trial| trial.fault == fault.name && trial.outcome.is_undecided(&fault.expected))
    };
    let undecided: Vec<Fault> = faults.iter().filter(is_undecided).cloned().collect();
    for fault in &undecided {
        site.steps.send(Step::Notice(format!(
            "{}: what was expected is not contradicted, but not everything could be judged: planted once more, alone",
            fault.name
        )));
    }
    undecided
}

/// A turn; none once everything is cancelled.
async fn turn(
    turns: &Arc<Semaphore>,
    wanted: u32,
    cancel: &CancellationToken,
) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        turn = Arc::clone(turns).acquire_many_owned(wanted) => turn.ok(),
    }
}

/// Isolation is broken on purpose here: only on a cluster that says of itself that it is for tests, whatever the settings allow.
fn refuse_shared(
    local: &Result<String, String>,
    server: &str,
    settings: &Settings,
) -> Result<(), SettingsError> {
    match local {
        Ok(_) => Ok(()),
        Err(why) => Err(invalid(
            format!("cluster {} ({server})", settings.cluster_name),
            format!(
                "selftest breaks isolation on purpose and runs on local clusters only, allowed or not: {why}"
            ),
            "use the lab (make lab-up, docs/lab.md) or kind; on this cluster: conformance run",
        )),
    }
}

/// The scheduler sets aside what pods ask for, and many tenants stand at once: with the standard requests four faults fill two cores.
fn ask_for_little(settings: &mut Settings) -> Result<(), SettingsError> {
    let little: Quantity = CPU_REQUEST
        .parse()
        .map_err(|error| invalid("the CPU that tenants of faults ask for", format!("{error}"), ""))?;
    for tenant in &mut settings.tenants {
        tenant.api.size.cpu_request = little.clone();
        tenant.worker.size.cpu_request = little.clone();
    }
    Ok(())
}

fn beginning(
    cluster: &Cluster,
    settings: &Settings,
    jobs: u32,
    clean: &Fault,
    faults: &[Fault],
) -> Beginning {
    let planned = |fault: &Fault| Planned {
        fault: fault.name.clone(),
        breaks: fault.breaks.clone(),
        expected: fault.expected.clone(),
        cluster: fault.cluster.clone(),
    };
    Beginning {
        cluster: settings.cluster_name.clone(),
        server: cluster.server.clone(),
        version: cluster.version.clone(),
        user: cluster.user.clone(),
        jobs,
        faults: std::iter::once(clean).chain(faults).map(planned).collect(),
        at: jiff::Timestamp::now().to_string(),
    }
}

impl Site {
    /// Tells of an error that ends nothing, and what to do about it.
    fn notice(&self, error: &HarnessError) {
        let hint = error.hint.iter().map(|hint| format!(" ({hint})"));
        let text = format!("{error}{}", hint.collect::<String>());
        self.steps.send(Step::Notice(text));
    }

    /// The settings of a run for this fault.
    fn settings_for(&self, fault: &Fault) -> Settings {
        let mut settings = self.settings.clone();
        let pattern = settings.tenants.first().cloned();
        settings.tenants = fault
            .tenants
            .iter()
            .filter_map(|id| {
                pattern.clone().map(|tenant| provisioner::Tenant {
                    id: id.clone(),
                    ..tenant
                })
            })
            .collect();
        // What is tolerated on this cluster has to be seen here all the same.
        settings.waivers.clear();
        if !fault.held.is_empty() {
            settings.clean_up_within = HELD_FOR;
        }
        settings
    }
}

/// What each container of a fault's tenants asks for.
const CPU_REQUEST: &str = "20m";
/// When what all faults share counts as left over, and how much later for each fault: none takes as long, planted twice.
const SURROUNDED_FOR: Duration = Duration::from_secs(3600);
const FAULT_TAKES: Duration = Duration::from_secs(600);
/// How long is waited for what will not go, since the fault is that it does not.
const HELD_FOR: Duration = Duration::from_secs(45);

/// An error of the harness as what came of a fault.
fn trouble(error: HarnessError) -> Outcome {
    Outcome::Trouble(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Overrides, resolve};

    #[test]
    fn a_cluster_that_is_not_local_is_refused_even_where_it_is_allowed() {
        let overrides = Overrides {
            allow_clusters: vec!["prod".into()],
            ..Overrides::default()
        };
        let settings = resolve("prod", &overrides).unwrap();
        assert!(settings.cluster.allow);
        let far = Err("its API server 10.0.0.1 is not on loopback".to_owned());
        let error = refuse_shared(&far, "https://10.0.0.1:6443", &settings).unwrap_err();
        assert!(
            error
                .problem
                .contains("runs on local clusters only, allowed or not: its API server"),
            "{error}"
        );
        assert!(refuse_shared(&Ok("lab".to_owned()), "https://127.0.0.1:16443", &settings).is_ok());
    }
}
