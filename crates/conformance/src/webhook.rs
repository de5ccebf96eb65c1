//! Webhooks, as a sender of the application's would send them, and what can be seen of them: answers, outcomes, logs. The contract is
//! configuration (`settings::application`), so that any application can be judged. What an observation means is left to the checks.

mod deliveries;
mod journal;
mod key;
mod message;
mod outcome;
mod send;
mod sign;
mod trial;

pub use deliveries::{Deliveries, Delivery};
pub use journal::{Image, Line, Logs};
pub use key::Key;
pub use message::{Message, SignatureValue};
pub use outcome::Effects;
pub use send::Answer;
pub use trial::{Forged, Seen, refused};

use crate::agent::Agent;
use crate::credentials::Credentials;
use crate::error::HarnessError;
use crate::resource::{Costume, Place, Resource};
use crate::settings::Application;
use crate::settings::application::Outcome;
use crate::stage::Site;
use crate::workloads::Workloads;
use jiff::Timestamp;
use journal::Journal;
use outcome::Reader;
use probe::protocol::RedisRequest;
use provisioner::TenantId;
use send::Sender;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long it is waited for a tenant that serves to be reached from outside: routes take a moment.
const REACHED_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);
/// How long one look for webhooks that were not seen enhanced may take, before what is stored is removed.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// Between two removals, where webhooks may still be enhanced, and how long they are repeated.
const REMOVE_AGAIN: Duration = Duration::from_secs(1);
const REMOVE_FOR: Duration = Duration::from_secs(6);
/// How long a tenant may take to say to Redis what it owes.
const PAY_WITHIN: Duration = Duration::from_secs(5);
/// So many removals in turn must find nothing.
const QUIET: usize = 2;
/// Requests under way at once, on local clusters and on others.
const AT_ONCE: (usize, usize) = (8, 2);
/// The namespace in which logs are looked for beside those that the platform uses.
const DEFAULT_NAMESPACE: &str = "default";

/// What every check of webhooks needs: all tenants, since what is said of one is looked for with all.
pub fn needs(tenants: &[TenantId]) -> Vec<Resource> {
    let mut needs = vec![Resource::Webhooks];
    for tenant in tenants {
        needs.extend([
            Resource::Workloads(tenant.clone()),
            Resource::Registration(tenant.clone()),
            Resource::Agent(reader_place(tenant)),
        ]);
    }
    needs
}

/// From where a tenant's own credentials are used.
pub fn reader_place(tenant: &TenantId) -> Place {
    Place::Tenant(tenant.clone(), Costume::Worker)
}

/// What the stage found of a tenant.
pub struct Found {
    /// The tenant.
    pub tenant: TenantId,
    /// Its workloads.
    pub workloads: Result<Arc<Workloads>, HarnessError>,
    /// Its credentials.
    pub credentials: Result<Arc<Credentials>, HarnessError>,
    /// The agent at [`reader_place`].
    pub agent: Result<Arc<Agent>, HarnessError>,
}

/// A tenant's side.
struct Mailbox {
    key: Result<Key, HarnessError>,
    serves: bool,
    awake: OnceCell<()>,
    reader: Reader,
}

/// What it takes to send webhooks and to see what became of them.
pub struct Webhooks {
    site: Arc<Site>,
    sender: Sender,
    journal: Journal,
    mailboxes: BTreeMap<TenantId, Mailbox>,
    /// The nonces that were sent and not refused, and that nobody has seen enhanced yet.
    unseen: Mutex<BTreeSet<String>>,
    owed: Mutex<BTreeMap<TenantId, Owed>>,
}

/// What a tenant has to say to Redis before the run ends.
#[derive(Clone)]
struct Owed {
    agent: Arc<Agent>,
    request: RedisRequest,
    what: String,
}

impl Webhooks {
    /// For these tenants. What one of them lacks is told when it is used.
    ///
    /// # Errors
    /// No client can be made.
    pub async fn open(site: Arc<Site>, found: Vec<Found>) -> Result<Self, HarnessError> {
        let (local, other) = AT_ONCE;
        let sender = Sender::new(if site.cluster.local.is_ok() { local } else { other })?;
        let journal = Journal::new(Arc::clone(&site), places(&site))?;
        // Which pods there are before anything is sent.
        let (mailboxes, _) = futures::join!(
            futures::future::join_all(found.into_iter().map(|found| mailbox(&site, found))),
            journal.read()
        );
        Ok(Webhooks {
            mailboxes: mailboxes.into_iter().collect(),
            site,
            sender,
            journal,
            unseen: Mutex::default(),
            owed: Mutex::default(),
        })
    }

    /// The contract.
    pub fn application(&self) -> &Application {
        &self.site.settings.application
    }

    /// The tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.mailboxes.keys()
    }

    /// What logs say now.
    pub async fn logs(&self) -> Arc<Logs> {
        self.journal.read().await
    }

    /// A new nonce of the run.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn nonce(&self) -> Result<String, HarnessError> {
        let random = getrandom::u64().map_err(|error| HarnessError::during("make a nonce", &error))?;
        Ok(format!("{}{random:016x}", self.prefix()))
    }

    /// What all nonces of the run begin with.
    fn prefix(&self) -> String {
        format!("conformance-{}-", self.site.mark.run)
    }

    /// A webhook to a tenant, of this moment, not signed.
    ///
    /// # Errors
    /// As for [`Webhooks::nonce`].
    pub fn message(&self, to: &TenantId) -> Result<Message, HarnessError> {
        Ok(Message::new(
            self.application(),
            to,
            &self.nonce()?,
            Timestamp::now(),
        ))
    }

    /// The same, signed with this tenant's key.
    ///
    /// # Errors
    /// The key cannot be had.
    pub fn signed(&self, message: Message, by: &TenantId) -> Result<Message, HarnessError> {
        let key = self.mailbox(by)?.key.as_ref().map_err(Clone::clone)?;
        message.signed(self.application(), key)
    }

    /// A webhook that the tenant must accept.
    ///
    /// # Errors
    /// As for [`Webhooks::message`] and [`Webhooks::signed`].
    pub fn valid(&self, to: &TenantId) -> Result<Message, HarnessError> {
        self.signed(self.message(to)?, to)
    }

    /// Sends a webhook, once.
    pub async fn send(&self, message: &Message) -> Answer {
        // Before: it may be taken even if its answer is never read.
        let first = self.unseen().insert(message.nonce.clone());
        let answer = self.sender.send(self.application(), message).await;
        if first && matches!(answer, Answer::Refused(_)) {
            self.unseen().remove(&message.nonce);
        }
        answer
    }

    fn unseen(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a tenant say this to Redis when the run ends, however it does, which takes back `what`; until [`Webhooks::paid`].
    pub fn owe(&self, tenant: &TenantId, agent: &Arc<Agent>, request: RedisRequest, what: String) {
        let agent = Arc::clone(agent);
        self.owed().insert(tenant.clone(), Owed { agent, request, what });
    }

    /// It has been said.
    pub fn paid(&self, tenant: &TenantId) {
        self.owed().remove(tenant);
    }

    fn owed(&self) -> MutexGuard<'_, BTreeMap<TenantId, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a tenant that serves is reached from outside, or that takes too long.
    pub async fn awake(&self, tenant: &TenantId) {
        let Ok(mailbox) = self.mailbox(tenant) else { return };
        let wait = async {
            let deadline = Instant::now() + REACHED_WITHIN;
            while let Ok(message) = self.valid(tenant) {
                let answer = self.send(&message).await;
                let over = !mailbox.serves || Instant::now() > deadline;
                if over || !matches!(answer, Answer::Unavailable(_)) {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        mailbox.awake.get_or_init(|| wait).await;
    }

    fn mailbox(&self, tenant: &TenantId) -> Result<&Mailbox, HarnessError> {
        let found = self.mailboxes.get(tenant);
        found.ok_or_else(|| HarnessError::new(format!("{tenant} is no tenant of this run")))
    }

    /// Removes what the run left in PostgreSQL and Redis with tenants that are not its own; answers what could not be removed, and why.
    pub async fn remove_stored(&self) -> Vec<String> {
        // Who owes something was interrupted, or could not pay: what its agent was told to do may go on, and takes up the tenant's connections.
        let agents: Vec<Arc<Agent>> = self.owed().values().map(|owed| Arc::clone(&owed.agent)).collect();
        futures::future::join_all(agents.iter().map(|agent| agent.hang_up())).await;
        let (mut failed, rows) = futures::join!(self.pay(), self.remove_rows());
        failed.extend(rows);
        failed
    }

    async fn pay(&self) -> Vec<String> {
        let mut owed = self.owed().clone();
        owed.retain(|tenant, _| !self.is_purged(tenant));
        if owed.is_empty() {
            return Vec::new();
        }
        // What was cut off may yet come after it was taken back.
        removed(true, || async { (0, pay_once(&owed).await) }).await
    }

    /// Removes what webhooks stored. Where some may still be enhanced it is removed again, until nothing comes any more.
    async fn remove_rows(&self) -> Vec<String> {
        if !self.has_rows() {
            return Vec::new();
        }
        let late = self.any_unseen().await;
        removed(late, || self.remove_once()).await
    }

    /// Whether webhooks store rows that do not go with their tenant.
    fn has_rows(&self) -> bool {
        let removes = matches!(self.application().outcome, Outcome::Sql { remove: Some(_), .. });
        removes && self.mailboxes.keys().any(|tenant| !self.is_purged(tenant))
    }

    /// What may be stored after [`Webhooks::remove_stored`], if anything: an application that was slow, or stood still, goes on.
    pub fn may_come(&self) -> Option<String> {
        let count = self.unseen().len();
        (count > 0 && self.has_rows()).then(|| {
            format!(
                "{count} webhook(s) of this run were not seen enhanced: what the application still stores of them stays with the tenants, as rows {}%; find out why it was slow, and delete those",
                self.prefix()
            )
        })
    }

    /// Whether all of a tenant's rows go with its registration, since the run registered it.
    fn is_purged(&self, tenant: &TenantId) -> bool {
        let registered = self.site.tenant(tenant).is_ok_and(|tenant| tenant.registration);
        registered && self.site.absent.contains(tenant)
    }

    /// Whether webhooks were sent that may be enhanced yet.
    async fn any_unseen(&self) -> bool {
        let nonces: Vec<String> = self.unseen().iter().cloned().collect();
        if nonces.is_empty() {
            return false;
        }
        let look = self.await_anywhere(&nonces, Instant::now());
        // What is seen is no longer among them, whoever else cannot look.
        let _ = tokio::time::timeout(LOOK_WITHIN, look).await;
        !self.unseen().is_empty()
    }

    /// How many rows were removed, and what could not be.
    async fn remove_once(&self) -> (u64, Vec<String>) {
        let pattern = format!("{}%", self.prefix());
        let pattern = &pattern;
        let stored = self
            .mailboxes
            .iter()
            .filter(|(tenant, _)| !self.is_purged(tenant));
        let removed = stored.map(|(tenant, mailbox)| async move {
            let removed = mailbox.reader.remove(pattern).await;
            removed.map_err(|error| format!("rows {pattern} of tenant {tenant}: {error}"))
        });
        let (mut rows, mut failed) = (0, Vec::new());
        for removed in futures::future::join_all(removed).await {
            match removed {
                Ok(count) => rows += count,
                Err(what) => failed.push(what),
            }
        }
        (rows, failed)
    }
}

/// Has tenants say what they owe; answers what could not be said, and why.
async fn pay_once(owed: &BTreeMap<TenantId, Owed>) -> Vec<String> {
    let said = owed.iter().map(|(tenant, owed)| async move {
        let said = tokio::time::timeout(PAY_WITHIN, owed.agent.redis(&owed.request)).await;
        let error = match said {
            Ok(Ok(answers)) => answers
                .into_iter()
                .find_map(Result::err)
                .map(|error| error.message),
            Ok(Err(error)) => Some(error.what),
            Err(_) => Some(format!("not removed within {} s", PAY_WITHIN.as_secs())),
        };
        error.map(|error| format!("{} of tenant {tenant}: {error}", owed.what))
    });
    let said = futures::future::join_all(said).await;
    said.into_iter().flatten().collect()
}

/// Removes until all could be, and where something may come yet until nothing has for a while; answers what could not be removed at last.
async fn removed<F>(late: bool, mut remove: impl FnMut() -> F) -> Vec<String>
where
    F: Future<Output = (u64, Vec<String>)>,
{
    let begin = Instant::now();
    let mut quiet = 0;
    loop {
        let (rows, failed) = remove().await;
        quiet = if rows == 0 && failed.is_empty() {
            quiet + 1
        } else {
            0
        };
        // A connection that was held until now is one that the tenant does not have yet.
        let done = if late { quiet >= QUIET } else { failed.is_empty() };
        if done || begin.elapsed() >= REMOVE_FOR {
            return failed;
        }
        tokio::time::sleep(REMOVE_AGAIN).await;
    }
}

async fn mailbox(site: &Arc<Site>, found: Found) -> (TenantId, Mailbox) {
    let Found {
        tenant,
        workloads,
        credentials,
        agent,
    } = found;
    let source = &site.settings.application.secret;
    let mailbox = Mailbox {
        key: key::of(&site.cluster.client, source, &tenant).await,
        serves: workloads.is_ok_and(|workloads| workloads.not_ready.is_none()),
        awake: OnceCell::new(),
        reader: Reader::new(site, &tenant, agent, credentials),
    };
    (tenant, mailbox)
}

/// Where logs are read: the tenants' namespaces, the shared services', the ingress', and `default`.
fn places(site: &Site) -> Vec<String> {
    let tenants = &site.settings.tenants;
    let mut places: Vec<String> = tenants.iter().map(provisioner::Tenant::namespace).collect();
    if let Some(tenant) = tenants.first() {
        places.push(tenant.shared_services.namespace.to_string());
        places.push(tenant.ingress.namespace.to_string());
    }
    places.push(DEFAULT_NAMESPACE.to_owned());
    let mut seen = BTreeSet::new();
    places.retain(|place| seen.insert(place.clone()));
    places
}

#[cfg(test)]
mod tests;
