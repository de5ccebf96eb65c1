//! One run from the first look at the cluster to the last verdict: look, refuse what may not be tested, take the tenants, plan, put up, run,
//! remove, judge what is left. Everything after the ledger is open ends in clean-up, on every path.

use crate::check::{Requirement, prov_14};
use crate::cluster::{self, Cluster, ClusterError};
use crate::context::{BeforeCleanUp, Context};
use crate::error::{HarnessError, within};
use crate::event::{Beginning, Event, Events, PlannedItem, TenantBefore};
use crate::fault::{ByHand, Services};
use crate::lease;
use crate::ledger::{self, Entry, Kind, Ledger};
use crate::manifest::Mark;
use crate::names::RunId;
use crate::plan::{Facts, LeftOut, Plan, Selection, plan};
use crate::registrations;
use crate::removal::{self, Leftover};
use crate::resource::Place;
use crate::runner;
use crate::settings::{Settings, SettingsError};
use crate::stage::{Site, Stage, Surroundings};
use crate::webhook::Webhooks;
use jiff::{SignedDuration, Timestamp};
use provisioner::{Ownership, Templates, Tenant, TenantId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long after its deadline what a run made counts as left over.
const EXPIRES_AFTER: Duration = Duration::from_secs(600);
/// The same with `--keep`.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long removing what the run left in PostgreSQL and Redis may take.
const STORED_WITHIN: Duration = Duration::from_secs(20);

/// Why checks of what such policies hold are left out.
const NO_ADMISSION_POLICIES: &str = "needs ValidatingAdmissionPolicies, which this API server does not have (Kubernetes has them since 1.30): without them nothing holds what RBAC cannot say, so let nobody but the platform make namespaces, or write what tenants' workloads read";

/// What a run is asked for.
pub struct Request {
    /// The settings.
    pub settings: Settings,
    /// Which checks.
    pub selection: Selection,
    /// Where ledgers are kept.
    pub ledgers: PathBuf,
    /// The templates of tenants that are not provisioned from the embedded ones.
    pub templates: BTreeMap<TenantId, Templates>,
    /// A fault inside PostgreSQL and Redis, planted once the tenants are registered there.
    pub services: Services,
    /// What somebody else does in the tenants that the run makes, once they are provisioned.
    pub by_hand: ByHand,
    /// What stands already outside of tenants, and is used instead of being put up.
    pub around: Surroundings,
}

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A tenant that may not be used.
    #[error("{0}")]
    Tenant(HarnessError),
    /// We are not permitted what a run needs.
    #[error("{user} may not do what a run needs: {missing}")]
    Forbidden {
        /// Who we are.
        user: String,
        /// The verbs and resources.
        missing: String,
    },
    /// The harness could not do its work.
    #[error(transparent)]
    Harness(#[from] HarnessError),
}

impl RunError {
    /// What to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            RunError::Cluster(ClusterError::Configuration(error) | ClusterError::Unreachable(error))
            | RunError::Tenant(error)
            | RunError::Harness(error) => error.hint.clone(),
            RunError::Cluster(ClusterError::NotAllowed { name, .. }) => Some(format!(
                "if this cluster may be tested, say so: --allow-cluster {name}, or allow: true under clusters.{name} in the settings; --dry-run shows what would be done"
            )),
            RunError::Settings(error) => Some(error.hint.clone()),
            RunError::Forbidden { .. } => {
                Some("use a context with these rights in all namespaces; `conformance run --dry-run` lists all that are needed".to_owned())
            }
        }
    }

    /// Whether usage or configuration is to blame, and not the cluster's state.
    pub fn is_usage(&self) -> bool {
        !matches!(
            self,
            RunError::Cluster(ClusterError::Unreachable(_)) | RunError::Harness(_)
        )
    }
}

/// A plan and what it was made of, for `--dry-run`.
pub struct Preview {
    /// The cluster.
    pub cluster: Cluster,
    /// The plan.
    pub plan: Plan,
    /// What it was made of.
    pub facts: Facts,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// Which permissions we lack.
    pub missing: Vec<String>,
    /// Why the run would be refused, where it would.
    pub refused: Option<RunError>,
}

/// What a run would do. Reads only.
///
/// # Errors
/// The cluster or a tenant cannot be looked at.
pub async fn preview(request: &Request) -> Result<Preview, RunError> {
    let cluster = cluster::survey(&request.settings).await?;
    let settings = cluster.complete(request.settings.clone());
    let refused = cluster::gate(&cluster, &settings).err().map(RunError::from);
    let missing = cluster::missing_permissions(&cluster.client).await?;
    let facts = facts(&cluster, &settings, None).await?;
    let plan = plan(&settings.tenant_ids(), &request.selection, &facts)?;
    Ok(Preview {
        cluster,
        plan,
        facts,
        tenants: settings.tenants,
        missing,
        refused,
    })
}

/// Runs. Verdicts go to `events`; when this returns, what was made is removed, or named as left behind.
///
/// # Errors
/// [`RunError`], where it came to no verdicts at all.
pub async fn run(request: Request, events: Events, cancel: CancellationToken) -> Result<(), RunError> {
    let begin = Instant::now();
    let cluster = cluster::survey(&request.settings).await?;
    let retries = Arc::clone(&cluster.retries);
    let result = run_on(cluster, request, events.clone(), (begin, cancel)).await;
    events.send(Event::Retried(retries.told()));
    result
}

async fn run_on(
    cluster: Cluster,
    request: Request,
    events: Events,
    (begin, cancel): (Instant, CancellationToken),
) -> Result<(), RunError> {
    let Request {
        settings,
        selection,
        ledgers,
        templates,
        services,
        by_hand,
        around,
    } = request;
    let settings = cluster.complete(settings);
    cluster::gate(&cluster, &settings)?;
    let missing = cluster::missing_permissions(&cluster.client).await?;
    if !missing.is_empty() {
        return Err(RunError::Forbidden {
            user: cluster.user,
            missing: missing.join(", "),
        });
    }
    let run = RunId::random().map_err(|error| HarnessError::during("make a run id", &error))?;
    let keep = selection.keep;
    let life = if keep {
        KEPT_FOR
    } else {
        settings.timeout + 3 * settings.clean_up_within + EXPIRES_AFTER
    };
    let expires = Timestamp::now() + SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
    let mark = Mark { run, expires };
    let ledger = open_ledger(&ledgers, &mark.run, &cluster.uid)?;
    let deadline = begin + settings.timeout;
    let mut site = Site {
        cluster,
        settings,
        mark,
        ledger,
        events,
        absent: Vec::new(),
        shared: Vec::new(),
        templates,
        services,
        by_hand,
    };
    let prepared = tokio::select! {
        prepared = tokio::time::timeout_at(deadline, prepare(&mut site, &selection)) => prepared,
        () = cancel.cancelled() => Ok(Err(HarnessError::new("interrupted before anything was judged").into())),
    };
    let prepared = prepared.unwrap_or_else(|_| Err(late(&site).into()));
    match prepared {
        Ok(plan) => conduct(site, plan, &around, (begin, cancel), keep).await,
        Err(error) => {
            finish(&site, false).await;
            return Err(error);
        }
    }
    Ok(())
}

fn late(site: &Site) -> HarnessError {
    let seconds = site.settings.timeout.as_secs();
    HarnessError::new(format!(
        "the tenants were not free, or the cluster not ready, within {seconds} s"
    ))
    .hint("wait for the run that uses them, or choose others with --tenants")
}

/// A ledger for a run.
///
/// # Errors
/// It cannot be written.
pub(crate) fn open_ledger(directory: &Path, run: &RunId, cluster: &str) -> Result<Ledger, HarnessError> {
    Ledger::open(directory, run, cluster).map_err(|error| {
        HarnessError::during(format!("open a ledger below {}", directory.display()), &error)
            .hint("set XDG_STATE_HOME to a directory that can be written")
    })
}

/// Takes the tenants, removes what expired runs left, and plans.
async fn prepare(site: &mut Site, selection: &Selection) -> Result<Plan, RunError> {
    let tenants = site.settings.tenant_ids();
    lease::acquire(
        &site.cluster.client,
        &tenants,
        &site.mark,
        &site.ledger,
        &site.events,
    )
    .await?;
    let rest = async {
        sweep(site).await?;
        facts(&site.cluster, &site.settings, Some(site.mark.run.as_str())).await
    };
    let facts = tokio::select! {
        facts = rest => facts?,
        lost = lease::keep(&site.cluster.client, &tenants, &site.mark) => return Err(lost.into()),
    };
    site.absent.clone_from(&facts.absent);
    site.shared.clone_from(&facts.shared);
    let plan = plan(&tenants, selection, &facts)?;
    site.events
        .send(Event::Began(Box::new(beginning(site, &plan, selection.keep))));
    Ok(plan)
}

/// Removes what expired runs left behind.
async fn sweep(site: &Site) -> Result<(), HarnessError> {
    let now = Timestamp::now();
    let expired: Vec<Leftover> = removal::leftovers(&site.cluster.client)
        .await?
        .into_iter()
        .filter(|leftover| leftover.expired(now) && !lives_here(site, &leftover.run))
        .collect();
    for (run, entries) in removal::by_run(expired) {
        let count = entries.len();
        let failed = removal::remove_run(&site.cluster.client, &site.settings, &run, &entries, &|_| {}).await;
        forget(site, &run, failed.is_empty());
        site.events.notice(format!(
            "run {run} had expired: removed {} of the {count} object(s) it left behind",
            count - failed.len()
        ));
    }
    Ok(())
}

/// Whether a run of this machine is under way.
fn lives_here(site: &Site, run: &str) -> bool {
    ledger::is_held(&ledger_of(site, run)).unwrap_or(false)
}

/// Where the ledger of another run is, if it ran here.
fn ledger_of(site: &Site, run: &str) -> PathBuf {
    site.ledger.path().with_file_name(format!("{run}.jsonl"))
}

/// Removes the ledger of a run of which nothing is left, unless that run lives: who reads it later would take what has the same names then
/// for the run's.
fn forget(site: &Site, run: &str, is_gone: bool) {
    let path = ledger_of(site, run);
    if is_gone && ledger::is_held(&path).is_ok_and(|held| !held) {
        // One that cannot be removed names nothing that is still there.
        let _ = std::fs::remove_file(path);
    }
}

/// What the plan needs to know.
async fn facts(cluster: &Cluster, settings: &Settings, own_run: Option<&str>) -> Result<Facts, RunError> {
    let mut absent = Vec::new();
    for tenant in &settings.tenants {
        if is_absent(cluster, &tenant.id, own_run).await? {
            absent.push(tenant.id.clone());
        }
    }
    let shared = shared_places(cluster, settings);
    let mut lacking = lacking(cluster, settings, &shared);
    if !cluster::has_admission_policies(&cluster.client).await? {
        lacking.push((Requirement::AdmissionPolicies, NO_ADMISSION_POLICIES.to_owned()));
    }
    Ok(Facts {
        local: cluster.local.is_ok(),
        nodes: cluster.nodes.clone(),
        absent,
        lacking,
        shared,
    })
}

/// The namespaces of others in which this run may put a pod, by the agent that would stand there.
fn shared_places(cluster: &Cluster, settings: &Settings) -> Vec<(Place, String)> {
    let Some(tenant) = settings.tenants.first() else {
        return Vec::new();
    };
    let places = [
        (Place::Ingress, tenant.ingress.namespace.to_string()),
        (
            Place::SharedServices,
            tenant.shared_services.namespace.to_string(),
        ),
    ];
    let allowed = &settings.cluster.allow_shared_namespaces;
    places
        .into_iter()
        .filter(|(_, namespace)| cluster.local.is_ok() || allowed.contains(namespace))
        .collect()
}

fn lacking(cluster: &Cluster, settings: &Settings, shared: &[(Place, String)]) -> Vec<(Requirement, String)> {
    let mut lacking = Vec::new();
    if !shared.iter().any(|(place, _)| *place == Place::Ingress) {
        let namespace = settings
            .tenants
            .first()
            .map(|tenant| tenant.ingress.namespace.to_string());
        let namespace = namespace.unwrap_or_default();
        lacking.push((
            Requirement::IngressNamespace,
            format!("needs a pod of its own in namespace {namespace}, which others share: --allow-shared-namespaces {namespace}"),
        ));
    }
    if settings.internet.is_none() {
        lacking.push((
            Requirement::Internet,
            "needs a host on the internet to speak to: name one as `internet:` in the settings".to_owned(),
        ));
    }
    if let Some(why) = webhooks_lack(cluster.local.is_ok(), settings) {
        lacking.push((Requirement::Webhooks, why));
    }
    lacking
}

/// What is missing before a webhook may be sent: leave to, or where to.
fn webhooks_lack(local: bool, settings: &Settings) -> Option<String> {
    if !local && !settings.cluster.allow_webhooks {
        let name = &settings.cluster_name;
        return Some(format!(
            "sends webhooks to the tenants' applications, which act on them: --allow-webhooks, or allowWebhooks: true under clusters.{name} in the settings"
        ));
    }
    (!settings.application.has_address()).then(|| {
        "needs the address that webhooks are sent to: write application.url in the settings, as in https://hooks.example.com/webhook/{tenant}; a local cluster's nodes name theirs by the annotation ai-agents-platform/ingress".to_owned()
    })
}

async fn is_absent(cluster: &Cluster, id: &TenantId, own_run: Option<&str>) -> Result<bool, RunError> {
    let asked = provisioner::ownership(&cluster.client, id);
    let refuse = |what: String, hint: String| Err(RunError::Tenant(HarnessError::new(what).hint(hint)));
    match within(cluster::ANSWER, format!("look at tenant {id}"), asked).await? {
        Ownership::Absent => Ok(true),
        Ownership::Foreign { why } => refuse(
            format!("namespace {} is not a tenant's: {why}", id.namespace()),
            "choose other tenants with --tenants; nothing was changed".to_owned(),
        ),
        // It is waited for when the tenant is to be made.
        Ownership::Ours {
            terminating: true, ..
        } => Ok(true),
        Ownership::Ours { labels, .. } => match labels.get(crate::names::RUN_ID) {
            // Without a Lease to read from, a dry run cannot tell a run under way from one that crashed.
            Some(run) if own_run.is_some() => refuse(
                format!("tenant {id} was left by run {run}, which was kept or did not end well"),
                format!("conformance clean --cluster {} --run {run}", cluster.context),
            ),
            Some(_) => Ok(true),
            None => Ok(false),
        },
    }
}

fn beginning(site: &Site, plan: &Plan, keep: bool) -> Beginning {
    let item = |item: &crate::plan::Item| PlannedItem {
        name: item.to_string(),
        check: item.check.info().id,
        left_out: item.left_out.as_ref().map(|why| why.reason().to_owned()),
        lacking: matches!(item.left_out, Some(LeftOut::Lacking(_))),
    };
    let tenant = |id: TenantId| TenantBefore {
        existed: !site.absent.contains(&id),
        id: id.to_string(),
    };
    Beginning {
        run: site.mark.run.to_string(),
        cluster: site.settings.cluster_name.clone(),
        server: site.cluster.server.clone(),
        version: site.cluster.version.clone(),
        user: site.cluster.user.clone(),
        local: site.cluster.local.clone().ok(),
        nodes: site.cluster.nodes.clone(),
        tenants: site.settings.tenant_ids().into_iter().map(tenant).collect(),
        items: plan.items.iter().map(item).collect(),
        kept: keep,
        at: Timestamp::now().to_string(),
    }
}

/// Puts up, runs, removes, judges what is left.
async fn conduct(
    site: Site,
    plan: Plan,
    around: &Surroundings,
    (begin, cancel): (Instant, CancellationToken),
    keep: bool,
) {
    let deadline = begin + site.settings.timeout;
    let site = Arc::new(site);
    let stage = Stage::new(&site, &plan.resources, around);
    let mut cx = Context {
        site: Arc::clone(&site),
        stage,
        before_clean_up: OnceLock::new(),
    };
    let tenants = site.settings.tenant_ids();
    tokio::select! {
        // The stage is driven beside the checks, in this task: dropping both stops all that is under way.
        ((), ()) = async { futures::join!(cx.stage.drive(), runner::run(&cx, &plan)) } => {}
        error = lease::keep(&site.cluster.client, &tenants, &site.mark) => {
            site.events.notice(format!("the tenants can no longer be held, the run ends here: {error}"));
        }
        () = tokio::time::sleep_until(deadline) => {
            let seconds = site.settings.timeout.as_secs();
            site.events.notice(format!("the time for this run is over ({seconds} s): what has no result is inconclusive"));
        }
        () = cancel.cancelled() => {}
    }
    let webhooks = cx.stage.opened_webhooks();
    cx.stage.stop();
    site.events.send(Event::Took("verdicts", begin.elapsed()));
    let judged = Instant::now();
    if !keep {
        // Set once, here.
        let _ = cx.before_clean_up.set(look_before_clean_up(&site).await);
    }
    let removed = async {
        if let Some(webhooks) = webhooks.filter(|_| !keep) {
            remove_stored(&site, &webhooks).await;
        }
        finish(&site, keep).await;
    };
    tokio::select! {
        () = removed => {}
        // A Lease that is lost now changes nothing about what has to be removed.
        () = async { let _ = lease::keep(&site.cluster.client, &tenants, &site.mark).await; std::future::pending().await } => {}
    }
    if !cancel.is_cancelled() {
        runner::run_after_clean_up(&cx, &plan).await;
    }
    site.events.send(Event::Took("removal", judged.elapsed()));
}

/// Removes what the run left in PostgreSQL and Redis, while the agents still stand from which a tenant's own credentials are used.
async fn remove_stored(site: &Site, webhooks: &Webhooks) {
    let limit = site.settings.clean_up_within.min(STORED_WITHIN);
    match tokio::time::timeout(limit, webhooks.remove_stored()).await {
        Ok(failed) => {
            for what in failed {
                site.events.send(Event::LeftBehind(what));
            }
            if let Some(what) = webhooks.may_come() {
                site.events.notice(what);
            }
        }
        Err(_) => site.events.send(Event::LeftBehind(format!(
            "what the run left in PostgreSQL or Redis: not removed within {} s",
            limit.as_secs()
        ))),
    }
}

/// What several runs use outside of their tenants, with a run id and a ledger of its own.
pub struct Surrounded {
    site: Arc<Site>,
    stage: Stage,
}

/// Puts up all that the checks need outside of tenants. What does not come up is an error to each check that needs it.
///
/// # Errors
/// The cluster cannot be looked at, or the ledger not be written.
pub async fn surround(settings: &Settings, ledgers: &Path, life: Duration) -> Result<Surrounded, RunError> {
    let cluster = cluster::survey(settings).await?;
    let settings = cluster.complete(settings.clone());
    cluster::gate(&cluster, &settings)?;
    let run = RunId::random().map_err(|error| HarnessError::during("make a run id", &error))?;
    let expires = Timestamp::now() + SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
    let ledger = open_ledger(ledgers, &run, &cluster.uid)?;
    let shared = shared_places(&cluster, &settings);
    let facts = Facts {
        local: cluster.local.is_ok(),
        nodes: cluster.nodes.clone(),
        absent: Vec::new(),
        lacking: lacking(&cluster, &settings, &shared),
        shared,
    };
    let mut resources = plan(&settings.tenant_ids(), &Selection::default(), &facts)?.resources;
    resources.retain(|resource| !resource.is_tenants());
    let site = Arc::new(Site {
        shared: facts.shared,
        cluster,
        settings,
        mark: Mark { run, expires },
        ledger,
        events: Events::channel().0,
        absent: Vec::new(),
        templates: BTreeMap::new(),
        services: Services::default(),
        by_hand: ByHand::default(),
    });
    let stage = Stage::new(&site, &resources, &Surroundings::default());
    stage.drive().await;
    Ok(Surrounded { site, stage })
}

impl Surrounded {
    /// What runs may use.
    pub fn surroundings(&self) -> Surroundings {
        self.stage.surroundings()
    }

    /// Removes it.
    ///
    /// # Errors
    /// The first of what could not be removed, and why.
    pub async fn remove(mut self) -> Result<(), HarnessError> {
        self.stage.stop();
        let (site, run) = (&self.site, self.site.mark.run.as_str());
        let (entries, limit) = (site.ledger.newest_first(), site.settings.clean_up_within);
        let gone = |entry: &Entry| site.ledger.gone(entry);
        let client = &site.cluster.client;
        let mut failed = removal::remove(client, run, &entries, limit, &gone).await;
        failed.extend(removal::latecomers(client, run, &failed, limit).await?);
        if let Some((entry, why)) = failed.first() {
            let clean = format!(
                "conformance clean --cluster {} --run {run}",
                site.settings.cluster_name
            );
            return Err(HarnessError::new(format!("{entry} could not be removed: {why}")).hint(clean));
        }
        let path = site.ledger.path().display().to_string();
        let closed = site.ledger.close();
        closed.map_err(|error| HarnessError::during(format!("remove the ledger {path}"), &error))
    }
}

/// PROV-14's control: how many of the run's objects the search finds now; an error where it misses one that is there.
async fn look_before_clean_up(site: &Site) -> BeforeCleanUp {
    let (found, standing) = futures::join!(
        removal::of_run(&site.cluster.client, site.mark.run.as_str()),
        registrations::standing(site)
    );
    let found = match found {
        Ok(found) => seen(site, [found, standing].concat()).await,
        Err(error) => Err(error),
    };
    BeforeCleanUp {
        found,
        registrations: registrations::written(site),
    }
}

async fn seen(site: &Site, found: Vec<Entry>) -> Result<usize, HarnessError> {
    let mut there = Vec::new();
    for entry in site.ledger.newest_first() {
        // Somebody may have deleted it meanwhile: the search did not miss that.
        let is_there = found.contains(&entry)
            || entry.kind != Kind::Registration && removal::exists(&site.cluster.client, &entry).await?;
        if is_there {
            there.push(entry);
        }
    }
    prov_14::seen_before(&found, &there)
}

/// Removes what is in the ledger, with `keep` only the Leases; and what requests that were under way made after their object was looked for.
async fn finish(site: &Site, keep: bool) {
    let (client, run, context) = (
        &site.cluster.client,
        site.mark.run.as_str(),
        &site.cluster.context,
    );
    let mut entries = site.ledger.newest_first();
    if keep {
        entries.retain(|entry| entry.kind == Kind::Lease);
        site.events.notice(format!(
            "kept, for a day: remove it by `conformance clean --cluster {context} --run {run}`"
        ));
    } else if !entries.is_empty() {
        site.events.send(Event::CleaningUp(entries.len()));
    }
    let limit = site.settings.clean_up_within;
    let gone = |entry: &Entry| site.ledger.gone(entry);
    let mut failed = removal::remove_run(client, &site.settings, run, &entries, &gone).await;
    if !keep {
        match removal::latecomers(client, run, &failed, limit).await {
            Ok(late) => failed.extend(late),
            Err(error) => site
                .events
                .notice(format!("what came late could not be looked for: {error}")),
        }
    }
    for (entry, why) in &failed {
        site.events.send(Event::LeftBehind(format!("{entry}: {why}")));
    }
    if !failed.is_empty() {
        site.events.notice(format!(
            "remove what is left by `conformance clean --cluster {context} --run {run}`"
        ));
    }
    let closed = match (keep, failed.is_empty()) {
        (true, _) => site.ledger.forget(),
        (false, true) => site.ledger.close(),
        (false, false) => Ok(()),
    };
    if let Err(error) = closed {
        site.events.notice(format!(
            "the ledger {} could not be removed: {error}",
            site.ledger.path().display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Overrides};
    use rstest::rstest;

    #[rstest]
    #[case::local(true, false, true, None)]
    #[case::allowed(false, true, true, None)]
    #[case::not_allowed(false, false, true, Some("--allow-webhooks"))]
    #[case::not_allowed_and_nowhere_to_send(false, false, false, Some("clusters.staging"))]
    #[case::local_without_an_ingress(true, false, false, Some("application.url"))]
    #[case::allowed_and_nowhere_to_send(false, true, false, Some("application.url"))]
    fn webhooks_are_sent_where_they_may_be_and_can_be(
        #[case] local: bool,
        #[case] allow_webhooks: bool,
        #[case] ingress: bool,
        #[case] remedy: Option<&str>,
    ) {
        let overrides = Overrides {
            allow_webhooks,
            ..Overrides::default()
        };
        let mut settings = settings::resolve("staging", &overrides).unwrap();
        settings.application.ingress = ingress.then(|| "http://127.0.0.1:8080".to_owned());
        let why = webhooks_lack(local, &settings);
        match (&why, remedy) {
            (None, None) => {}
            (Some(why), Some(remedy)) => assert!(why.contains(remedy), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
