//! Puts up what checks share: tenants, their workloads as they are found, agents, and the enforcement canary. Each resource is made once,
//! all at the same time, and every check that needs it waits for the same result; a failure is a value that each of them gets.

use crate::agent::Agent;
use crate::canary::{self, Enforcement};
use crate::cluster::{ANSWER, Cluster};
use crate::credentials::{self, Credentials};
use crate::error::{HarnessError, within};
use crate::event::Events;
use crate::fault::Services;
use crate::ledger::{Entry, Kind, Ledger, api};
use crate::manifest::{self, AgentPod, Mark};
use crate::names::{self, EXPIRES, RUN_ID};
use crate::pod;
use crate::registrations;
use crate::removal::belongs;
use crate::resource::{Costume, Place, Resource};
use crate::sealed;
use crate::settings::Settings;
use crate::shared_services::{self, SharedServices};
use crate::webhook::{self, Deliveries, Webhooks};
use crate::workloads::{self, Workloads};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use kube::api::{Api, PostParams};
use provisioner::tenant::Stamp;
use provisioner::{ApplyOptions, Manifest, Silent, Templates, Tenant, TenantId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};

/// What a run stands on.
pub struct Site {
    /// The cluster.
    pub cluster: Cluster,
    /// The settings.
    pub settings: Settings,
    /// The run's mark.
    pub mark: Mark,
    /// The run's ledger.
    pub ledger: Ledger,
    /// Where to say what happens.
    pub events: Events,
    /// The tenants that were absent.
    pub absent: Vec<TenantId>,
    /// The namespaces of others in which the run may put an agent.
    pub shared: Vec<(Place, String)>,
    /// The templates of tenants that are not provisioned from the embedded ones.
    pub templates: BTreeMap<TenantId, Templates>,
    /// A fault inside PostgreSQL and Redis, planted once the tenants are registered there.
    pub services: Services,
}

impl Site {
    /// The tenant of this id, as the settings have it.
    ///
    /// # Errors
    /// It is not a tenant of this run.
    pub fn tenant(&self, id: &TenantId) -> Result<&Tenant, HarnessError> {
        let found = self.settings.tenants.iter().find(|tenant| tenant.id == *id);
        found.ok_or_else(|| HarnessError::new(format!("{id} is no tenant of this run")))
    }

    /// The tenant of this id that is deliberately open: as the first one is, but for its id.
    ///
    /// # Errors
    /// The run has no tenant, or this is no id.
    pub fn open_tenant(&self, id: &str) -> Result<Tenant, HarnessError> {
        let like = self.settings.tenants.first();
        let like = like.ok_or_else(|| HarnessError::new("this run has no tenant"))?;
        let id = id
            .parse()
            .map_err(|error| HarnessError::during(format!("name tenant {id}"), &error))?;
        Ok(Tenant { id, ..like.clone() })
    }
}

type Slot<T> = Shared<BoxFuture<'static, Result<Arc<T>, HarnessError>>>;

fn slot<T>(work: impl Future<Output = Result<T, HarnessError>> + Send + 'static) -> Slot<T>
where
    T: Send + Sync + 'static,
{
    work.map(|result| result.map(Arc::new)).boxed().shared()
}

/// What a run puts up outside of tenants. It may serve several runs.
#[derive(Clone, Default)]
pub struct Surroundings {
    agents: HashMap<Place, Slot<Agent>>,
    shared_services: Option<Slot<SharedServices>>,
    enforcement: Option<Slot<Enforcement>>,
}

impl Surroundings {
    /// What of it serves as this resource, put into a stage; whether there is such.
    fn lend(&self, resource: &Resource, stage: &mut Stage) -> bool {
        match resource {
            Resource::Agent(place) => {
                let agent = self.agents.get(place).cloned();
                agent
                    .map(|agent| stage.agents.insert(place.clone(), agent))
                    .is_some()
            }
            Resource::SharedServices => {
                stage.shared_services.clone_from(&self.shared_services);
                self.shared_services.is_some()
            }
            Resource::Enforcement => {
                stage.enforcement.clone_from(&self.enforcement);
                self.enforcement.is_some()
            }
            Resource::Tenant(_)
            | Resource::Workloads(_)
            | Resource::Registration(_)
            | Resource::Webhooks
            | Resource::Deliveries => false,
        }
    }
}

/// How many conversations with PostgreSQL the run has at once as one tenant: a role has few connections, and the application needs them too.
pub const CONVERSATIONS: usize = 2;

/// Everything a run puts up.
pub struct Stage {
    tenants: HashMap<TenantId, Slot<()>>,
    quotas: HashMap<TenantId, Mutex<()>>,
    conversations: HashMap<TenantId, Arc<Semaphore>>,
    workloads: HashMap<TenantId, Slot<Workloads>>,
    registrations: HashMap<TenantId, Slot<Credentials>>,
    agents: HashMap<Place, Slot<Agent>>,
    shared_services: Option<Slot<SharedServices>>,
    enforcement: Option<Slot<Enforcement>>,
    webhooks: Option<Slot<Webhooks>>,
    deliveries: Option<Slot<Deliveries>>,
}

impl Stage {
    /// Prepares these resources, but for what stands already `around`; nothing happens before [`Stage::drive`] or somebody asking.
    pub fn new(site: &Arc<Site>, resources: &BTreeSet<Resource>, around: &Surroundings) -> Stage {
        let mut stage = Stage {
            tenants: HashMap::new(),
            quotas: HashMap::new(),
            conversations: HashMap::new(),
            workloads: HashMap::new(),
            registrations: HashMap::new(),
            agents: HashMap::new(),
            shared_services: None,
            enforcement: None,
            webhooks: None,
            deliveries: None,
        };
        for resource in resources {
            if let Resource::Tenant(id) = resource {
                stage.quotas.insert(id.clone(), Mutex::new(()));
                let conversations = Arc::new(Semaphore::new(CONVERSATIONS));
                stage.conversations.insert(id.clone(), conversations);
                stage
                    .tenants
                    .insert(id.clone(), slot(provision(Arc::clone(site), id.clone())));
            }
        }
        stage.registrations = registrations(site, resources, &stage.tenants);
        let owners: HashMap<TenantId, Slot<String>> = stage
            .tenants
            .iter()
            .map(|(id, tenant)| {
                (
                    id.clone(),
                    slot(own(Arc::clone(site), id.clone(), tenant.clone())),
                )
            })
            .collect();
        for resource in resources {
            if !around.lend(resource, &mut stage) {
                stage.prepare(site, resource, &owners);
            }
        }
        stage
    }

    /// What of it may serve other runs.
    pub fn surroundings(&self) -> Surroundings {
        let outside =
            |(place, _): &(&Place, &Slot<Agent>)| !matches!(place, Place::Tenant(..) | Place::Sealed(..));
        let agents = self.agents.iter().filter(outside);
        Surroundings {
            agents: agents
                .map(|(place, agent)| (place.clone(), agent.clone()))
                .collect(),
            shared_services: self.shared_services.clone(),
            enforcement: self.enforcement.clone(),
        }
    }

    fn prepare(&mut self, site: &Arc<Site>, resource: &Resource, owners: &HashMap<TenantId, Slot<String>>) {
        let site = Arc::clone(site);
        match resource {
            Resource::Tenant(_) | Resource::Registration(_) => {}
            Resource::Workloads(id) => {
                if let Some(tenant) = self.tenants.get(id) {
                    let work = find_workloads(site, id.clone(), tenant.clone());
                    self.workloads.insert(id.clone(), slot(work));
                }
            }
            Resource::Agent(Place::Tenant(id, costume)) => {
                if let Some(owner) = owners.get(id) {
                    let work = tenant_agent(site, id.clone(), *costume, owner.clone());
                    self.agents
                        .insert(Place::Tenant(id.clone(), *costume), slot(work));
                }
            }
            Resource::Agent(Place::Sealed(id, number)) => {
                if let Some(tenant) = self.tenants.get(id) {
                    let work = sealed_agent(site, id.clone(), *number, tenant.clone());
                    self.agents.insert(Place::Sealed(id.clone(), *number), slot(work));
                }
            }
            Resource::Agent(Place::Open) => {
                self.agents.insert(Place::Open, slot(open_agent(site)));
            }
            Resource::Agent(place) if place.is_shared() => {
                self.agents
                    .insert(place.clone(), slot(shared_agent(site, place.clone())));
            }
            Resource::Agent(place) => {
                self.agents
                    .insert(place.clone(), slot(free_agent(site, place.clone())));
            }
            Resource::SharedServices => {
                self.shared_services = Some(slot(find_shared_services(site)));
            }
            Resource::Enforcement => self.enforcement = Some(slot(canary::observe(site))),
            // After those of the tenants, in the order of resources.
            Resource::Webhooks => {
                let work = open_webhooks(site, self.found_of_tenants(), self.conversations.clone());
                self.webhooks = Some(slot(work));
            }
            Resource::Deliveries => {
                self.deliveries = self
                    .webhooks
                    .clone()
                    .map(|webhooks| slot(deliver(site, webhooks)));
            }
        }
    }

    /// Puts everything up, whether somebody waits for it or not.
    pub async fn drive(&self) {
        let mut all: Vec<BoxFuture<'static, ()>> = Vec::new();
        all.extend(
            self.tenants
                .values()
                .cloned()
                .map(|slot| slot.map(|_| ()).boxed()),
        );
        all.extend(
            self.workloads
                .values()
                .cloned()
                .map(|slot| slot.map(|_| ()).boxed()),
        );
        all.extend(
            self.registrations
                .values()
                .cloned()
                .map(|slot| slot.map(|_| ()).boxed()),
        );
        all.extend(self.agents.values().cloned().map(|slot| slot.map(|_| ()).boxed()));
        all.extend(
            self.shared_services
                .iter()
                .cloned()
                .map(|slot| slot.map(|_| ()).boxed()),
        );
        all.extend(
            self.enforcement
                .iter()
                .cloned()
                .map(|slot| slot.map(|_| ()).boxed()),
        );
        all.extend(self.webhooks.iter().cloned().map(|slot| slot.map(|_| ()).boxed()));
        all.extend(
            self.deliveries
                .iter()
                .cloned()
                .map(|slot| slot.map(|_| ()).boxed()),
        );
        join_all(all).await;
    }

    /// Waits until no pod is on its way into a tenant any more.
    pub async fn settle_pods(&self, tenant: &TenantId) {
        let own = |place: &Place| matches!(place, Place::Tenant(id, _) if id == tenant);
        let agents = self
            .agents
            .iter()
            .filter(|(place, _)| own(place))
            .map(|(_, agent)| agent.clone().map(drop).boxed());
        let workloads = self
            .workloads
            .get(tenant)
            .cloned()
            .map(|slot| slot.map(drop).boxed());
        join_all(agents.chain(workloads)).await;
    }

    /// What the webhooks of each tenant need, each by itself.
    fn found_of_tenants(&self) -> Vec<BoxFuture<'static, webhook::Found>> {
        let each = self.tenants.keys().map(|id| {
            let place = webhook::reader_place(id);
            let workloads = awaited(self.workloads.get(id).cloned(), Resource::Workloads(id.clone()));
            let credentials = awaited(
                self.registrations.get(id).cloned(),
                Resource::Registration(id.clone()),
            );
            let agent = awaited(self.agents.get(&place).cloned(), Resource::Agent(place));
            let tenant = id.clone();
            async move {
                let (workloads, credentials, agent) = futures::join!(workloads, credentials, agent);
                webhook::Found {
                    tenant,
                    workloads,
                    credentials,
                    agent,
                }
            }
            .boxed()
        });
        each.collect()
    }

    /// Gives up what is under way. What is merely no longer polled would keep its place among the requests under way for ever.
    pub fn stop(&mut self) {
        self.tenants.clear();
        self.workloads.clear();
        self.registrations.clear();
        self.agents.clear();
        self.shared_services = None;
        self.enforcement = None;
        self.webhooks = None;
        self.deliveries = None;
    }

    /// Waits until these are up or known not to come up.
    pub async fn settle(&self, resources: &[Resource]) {
        for resource in resources {
            match resource {
                Resource::Tenant(id) => drop(self.tenant(id).await),
                Resource::Workloads(id) => drop(self.workloads(id).await),
                Resource::Registration(id) => drop(self.registration(id).await),
                Resource::Agent(place) => drop(self.agent(place).await),
                Resource::SharedServices => drop(self.shared_services().await),
                Resource::Enforcement => drop(self.enforcement().await),
                Resource::Webhooks => drop(self.webhooks().await),
                Resource::Deliveries => drop(self.deliveries().await),
            }
        }
    }

    /// Waits for the tenant to be provisioned.
    ///
    /// # Errors
    /// It could not be, or the check did not say that it needs it.
    pub async fn tenant(&self, id: &TenantId) -> Result<(), HarnessError> {
        let resource = || Resource::Tenant(id.clone());
        self.tenants
            .get(id)
            .cloned()
            .ok_or_else(|| undeclared(&resource()))?
            .await
            .map(|_| ())
    }

    /// Whose lock the check holds that measures a tenant's quota or uses some of it up: see `quota::hold`.
    ///
    /// # Errors
    /// The check did not say that it needs the tenant.
    pub fn quota(&self, id: &TenantId) -> Result<&Mutex<()>, HarnessError> {
        self.quotas
            .get(id)
            .ok_or_else(|| undeclared(&Resource::Tenant(id.clone())))
    }

    /// Of whose permits each conversation with PostgreSQL as this tenant holds one, and awaits nothing else meanwhile.
    ///
    /// # Errors
    /// As for [`Stage::quota`].
    pub fn conversations(&self, id: &TenantId) -> Result<Arc<Semaphore>, HarnessError> {
        self.conversations
            .get(id)
            .cloned()
            .ok_or_else(|| undeclared(&Resource::Tenant(id.clone())))
    }

    /// The tenant's workloads, once they serve or are known not to.
    ///
    /// # Errors
    /// As for [`Stage::tenant`].
    pub async fn workloads(&self, id: &TenantId) -> Result<Arc<Workloads>, HarnessError> {
        let resource = || Resource::Workloads(id.clone());
        self.workloads
            .get(id)
            .cloned()
            .ok_or_else(|| undeclared(&resource()))?
            .await
    }

    /// The tenant's own credentials, once it is registered with PostgreSQL and Redis.
    ///
    /// # Errors
    /// As for [`Stage::tenant`].
    pub async fn registration(&self, id: &TenantId) -> Result<Arc<Credentials>, HarnessError> {
        let resource = || Resource::Registration(id.clone());
        let registration = self.registrations.get(id).cloned();
        registration.ok_or_else(|| undeclared(&resource()))?.await
    }

    /// The agent at this place.
    ///
    /// # Errors
    /// As for [`Stage::tenant`].
    pub async fn agent(&self, place: &Place) -> Result<Arc<Agent>, HarnessError> {
        let resource = || Resource::Agent(place.clone());
        self.agents
            .get(place)
            .cloned()
            .ok_or_else(|| undeclared(&resource()))?
            .await
    }

    /// PostgreSQL and Redis as they were found.
    ///
    /// # Errors
    /// As for [`Stage::tenant`].
    pub async fn shared_services(&self) -> Result<Arc<SharedServices>, HarnessError> {
        self.shared_services
            .clone()
            .ok_or_else(|| undeclared(&Resource::SharedServices))?
            .await
    }

    /// What the canary showed.
    ///
    /// # Errors
    /// As for [`Stage::tenant`].
    pub async fn enforcement(&self) -> Result<Arc<Enforcement>, HarnessError> {
        self.enforcement
            .clone()
            .ok_or_else(|| undeclared(&Resource::Enforcement))?
            .await
    }
}

impl Stage {
    /// What it takes to send webhooks.
    ///
    /// # Errors
    /// As for [`Stage::tenant`].
    pub async fn webhooks(&self) -> Result<Arc<Webhooks>, HarnessError> {
        self.webhooks
            .clone()
            .ok_or_else(|| undeclared(&Resource::Webhooks))?
            .await
    }

    /// The same where it is there already: then webhooks may have been sent.
    pub fn opened_webhooks(&self) -> Option<Arc<Webhooks>> {
        self.webhooks.as_ref()?.peek()?.as_ref().ok().cloned()
    }

    /// The batch of webhooks.
    ///
    /// # Errors
    /// As for [`Stage::tenant`].
    pub async fn deliveries(&self) -> Result<Arc<Deliveries>, HarnessError> {
        self.deliveries
            .clone()
            .ok_or_else(|| undeclared(&Resource::Deliveries))?
            .await
    }
}

/// What a slot comes to.
async fn awaited<T>(slot: Option<Slot<T>>, resource: Resource) -> Result<Arc<T>, HarnessError> {
    match slot {
        Some(slot) => slot.await,
        None => Err(undeclared(&resource)),
    }
}

fn undeclared(resource: &Resource) -> HarnessError {
    HarnessError::new(format!(
        "{resource} was not put up: the check does not name it among its needs"
    ))
}

/// How long until a started agent listens on all its ports.
const LISTENING: Duration = Duration::from_secs(15);

async fn provision(site: Arc<Site>, id: TenantId) -> Result<(), HarnessError> {
    if !site.absent.contains(&id) {
        return Ok(());
    }
    let doing = format!("provision tenant {id}");
    let failed = |error: &dyn std::error::Error| HarnessError::during(&doing, error);
    let manifests = provisioner::render(site.tenant(&id)?, &templates(&site, &id), &stamp(&site))
        .map_err(|error| failed(&error))?;
    claim(&site, &id, &manifests).await?;
    let options = ApplyOptions {
        readiness: None,
        ..ApplyOptions::default()
    };
    provisioner::apply(&site.cluster.client, &manifests, &id, &options, &Silent)
        .await
        .map_err(|error| failed(&error))?;
    site.events.progress(format!("tenant {id} provisioned"));
    Ok(())
}

/// The templates of a tenant.
pub fn templates(site: &Site, id: &TenantId) -> Templates {
    let templates = site.templates.get(id).cloned();
    templates.unwrap_or_else(Templates::embedded)
}

/// The run's mark on a tenant's namespace.
pub fn stamp(site: &Site) -> Stamp {
    let mark = BTreeMap::from([(RUN_ID.to_owned(), site.mark.run.to_string())]);
    let mut annotations = mark.clone();
    annotations.insert(EXPIRES.to_owned(), site.mark.expires.to_string());
    Stamp {
        labels: mark,
        annotations,
    }
}

/// Makes the tenant's namespace, with the run's mark, once one that is being deleted is gone. Refuses one that somebody made since the
/// tenant was found absent: applying to that would put our mark on it, and clean-up would take it away.
async fn claim(site: &Site, id: &TenantId, manifests: &[Manifest]) -> Result<(), HarnessError> {
    let entry = Entry {
        kind: Kind::Tenant,
        namespace: None,
        name: id.to_string(),
    };
    let doing = format!("create namespace {}", id.namespace());
    let namespace = manifests
        .iter()
        .find(|manifest| manifest.kind.kind == "Namespace");
    let namespace =
        namespace.ok_or_else(|| HarnessError::new(format!("{doing}: the templates have none")))?;
    site.ledger
        .made(entry.clone())
        .map_err(|error| site.ledger.unwritable(&error))?;
    let objects = api(
        &site.cluster.client,
        &Entry {
            kind: Kind::Namespace,
            ..entry.clone()
        },
    );
    let deadline = tokio::time::Instant::now() + site.settings.start_within;
    let mut told = false;
    loop {
        match tokio::time::timeout(ANSWER, objects.create(&PostParams::default(), &namespace.object)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => {}
            Ok(Err(error)) => return Err(HarnessError::during(doing, &error)),
            Err(_) => {
                let seconds = ANSWER.as_secs();
                return Err(HarnessError::new(format!(
                    "{doing}: no answer within {seconds} s"
                )));
            }
        }
        let name = id.namespace();
        let found = within(ANSWER, &doing, objects.get_metadata_opt(&name)).await?;
        let Some(found) = found else { continue };
        if found.metadata.deletion_timestamp.is_none() {
            // Made by a request whose answer was lost.
            if belongs(&found.metadata, site.mark.run.as_str()) {
                return Ok(());
            }
            site.ledger.gone(&entry);
            let hint = "run again: the tenant is then used as it is";
            return Err(
                HarnessError::new(format!("{doing}: somebody made it since this run began")).hint(hint),
            );
        }
        if tokio::time::Instant::now() > deadline {
            site.ledger.gone(&entry);
            return Err(still_going(&name, site.settings.start_within));
        }
        if !std::mem::replace(&mut told, true) {
            site.events
                .notice(format!("tenant {id} is being deleted: waiting until it is gone"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn still_going(namespace: &str, waited: Duration) -> HarnessError {
    let seconds = waited.as_secs();
    HarnessError::new(format!(
        "namespace {namespace} was being deleted when the run began, and is still there after {seconds} s"
    ))
    .hint(format!(
        "`kubectl get namespace {namespace} -o jsonpath='{{.status.conditions}}'` says what holds it; or choose other tenants with --tenants"
    ))
}

async fn find_workloads(site: Arc<Site>, id: TenantId, tenant: Slot<()>) -> Result<Workloads, HarnessError> {
    tenant.await?;
    let found = {
        let (client, limit) = (&site.cluster.client, site.settings.start_within);
        workloads::await_serving(client, site.tenant(&id)?, limit).await?
    };
    let state = if found.not_ready.is_none() {
        "serve"
    } else {
        "do not serve"
    };
    site.events.progress(format!("workloads of {id} {state}"));
    Ok(found)
}

/// The registrations of these tenants. A fault inside PostgreSQL and Redis is planted once roles and users are there, and before anybody
/// uses them.
fn registrations(
    site: &Arc<Site>,
    resources: &BTreeSet<Resource>,
    tenants: &HashMap<TenantId, Slot<()>>,
) -> HashMap<TenantId, Slot<Credentials>> {
    let mut registrations = HashMap::new();
    for resource in resources {
        if let Resource::Registration(id) = resource
            && let Some(tenant) = tenants.get(id)
        {
            let work = register(Arc::clone(site), id.clone(), tenant.clone());
            registrations.insert(id.clone(), slot(work));
        }
    }
    if !site.services.is_empty() {
        let planted = slot(plant(Arc::clone(site), registrations.values().cloned().collect()));
        for registration in registrations.values_mut() {
            let (registered, planted) = (registration.clone(), planted.clone());
            let both = async move {
                let credentials = registered.await?;
                planted.await?;
                Ok(credentials)
            };
            *registration = both.boxed().shared();
        }
    }
    registrations
}

/// Plants the fault that is inside PostgreSQL and Redis, once roles and users are there.
async fn plant(site: Arc<Site>, registrations: Vec<Slot<Credentials>>) -> Result<(), HarnessError> {
    for registered in join_all(registrations).await {
        registered?;
    }
    match site.settings.tenants.first() {
        Some(tenant) => {
            site.services
                .plant(&site.cluster.client, &tenant.shared_services)
                .await
        }
        None => Ok(()),
    }
}

/// A tenant that was there before is registered; one that the run made is registered here.
async fn register(site: Arc<Site>, id: TenantId, tenant: Slot<()>) -> Result<Credentials, HarnessError> {
    tenant.await?;
    let client = &site.cluster.client;
    if site.absent.contains(&id) && site.tenant(&id)?.registration {
        registrations::register(&site, &id).await?;
    }
    Ok(credentials::of(client, &id, &site.settings).await)
}

async fn open_webhooks(
    site: Arc<Site>,
    found: Vec<BoxFuture<'static, webhook::Found>>,
    conversations: HashMap<TenantId, Arc<Semaphore>>,
) -> Result<Webhooks, HarnessError> {
    let found = join_all(found).await;
    let webhooks = Webhooks::open(site, found).await?;
    Ok(webhooks.taking_turns(&conversations))
}

async fn deliver(site: Arc<Site>, webhooks: Slot<Webhooks>) -> Result<Deliveries, HarnessError> {
    let deliveries = Deliveries::send(webhooks.await?.as_ref()).await;
    site.events
        .progress(format!("{} webhooks sent and followed", deliveries.sent.len()));
    Ok(deliveries)
}

/// The uid of the object that owns the run's pods in a tenant.
async fn own(site: Arc<Site>, id: TenantId, tenant: Slot<()>) -> Result<String, HarnessError> {
    tenant.await?;
    let owner = site
        .ledger
        .create(&site.cluster.client, manifest::owner(&site.mark, &id.namespace()))
        .await?;
    owner
        .metadata
        .uid
        .ok_or_else(|| HarnessError::new("the API server gave a ConfigMap no uid"))
}

async fn tenant_agent(
    site: Arc<Site>,
    id: TenantId,
    costume: Costume,
    owner: Slot<String>,
) -> Result<Agent, HarnessError> {
    let uid = owner.await?;
    if costume == Costume::Stranger {
        return start_job(&site, id).await;
    }
    let agent = AgentPod {
        mark: &site.mark,
        name: site.mark.run.object(costume.word()),
        namespace: id.namespace(),
        image: &site.settings.agent_image,
        labels: manifest::costume(&id, costume),
        owner: Some((site.mark.run.owner(), uid.as_ref().clone())),
        node: None,
        may_become_ready: false,
    };
    start(&site, Place::Tenant(id.clone(), costume), agent).await
}

/// The agent of a Job: what a tenant runs beside its workloads.
async fn start_job(site: &Site, id: TenantId) -> Result<Agent, HarnessError> {
    let client = &site.cluster.client;
    let namespace = id.namespace();
    let agent = AgentPod {
        mark: &site.mark,
        name: names::JOB.to_owned(),
        namespace: namespace.clone(),
        image: &site.settings.agent_image,
        labels: manifest::costume(&id, Costume::Stranger),
        owner: None,
        node: None,
        may_become_ready: false,
    };
    site.ledger.create(client, agent.job()).await?;
    let pods = Api::namespaced(client.clone(), &namespace);
    let pod = within(
        site.settings.start_within,
        format!("await the pod of job {} in namespace {namespace}", names::JOB),
        pod::of_job(&pods, names::JOB),
    )
    .await?;
    await_agent(site, Place::Tenant(id, Costume::Stranger), namespace, pod).await
}

/// An agent in a namespace that others share, which no Service of theirs sends traffic and no controller of theirs adopts.
async fn shared_agent(site: Arc<Site>, place: Place) -> Result<Agent, HarnessError> {
    let namespace = site.shared.iter().find(|(shared, _)| *shared == place);
    let Some((_, namespace)) = namespace else {
        return Err(HarnessError::new(format!(
            "agent {place}: its namespace may not be used"
        )));
    };
    let owner = manifest::owner(&site.mark, namespace);
    let owner = site.ledger.create(&site.cluster.client, owner).await.map_err(|error| {
        error.hint(format!("namespace {namespace} must exist: fixtures/shared-services puts it up where a cluster has none"))
    })?;
    let labels = match (&place, site.settings.tenants.first()) {
        (Place::SharedServices, Some(tenant)) => BTreeMap::from([(
            "app".to_owned(),
            tenant.shared_services.postgresql.pod_app.to_string(),
        )]),
        _ => BTreeMap::new(),
    };
    let agent = AgentPod {
        mark: &site.mark,
        name: site.mark.run.object(&place.to_string()),
        namespace: namespace.clone(),
        image: &site.settings.agent_image,
        labels,
        owner: Some((site.mark.run.owner(), owner.metadata.uid.unwrap_or_default())),
        node: None,
        may_become_ready: false,
    };
    start(&site, place, agent).await
}

/// The agent under what is left of a tenant's policies without its allow rules.
async fn sealed_agent(
    site: Arc<Site>,
    id: TenantId,
    number: usize,
    tenant: Slot<()>,
) -> Result<Agent, HarnessError> {
    tenant.await?;
    sealed::put_up(&site, &id, number).await
}

/// The agent of the tenant that is deliberately open: its namespace as the templates have it, and nothing else of them.
async fn open_agent(site: Arc<Site>) -> Result<Agent, HarnessError> {
    let tenant = site.open_tenant(&site.mark.run.open_tenant())?;
    let namespace = tenant.namespace();
    let manifests = provisioner::render(&tenant, &Templates::embedded(), &stamp(&site))
        .map_err(|error| HarnessError::during(format!("render tenant {}", tenant.id), &error))?;
    claim(&site, &tenant.id, &manifests).await?;
    pod::await_default_account(&site.cluster.client, &namespace).await?;
    let agent = AgentPod {
        mark: &site.mark,
        name: "agent".to_owned(),
        namespace,
        image: &site.settings.agent_image,
        labels: manifest::costume(&tenant.id, Costume::Api),
        owner: None,
        node: None,
        may_become_ready: true,
    };
    start(&site, Place::Open, agent).await
}

async fn find_shared_services(site: Arc<Site>) -> Result<SharedServices, HarnessError> {
    let tenant = site.settings.tenants.first();
    let tenant = tenant.ok_or_else(|| HarnessError::new("this run has no tenant"))?;
    shared_services::look(&site.cluster.client, &tenant.shared_services, &tenant.dns).await
}

async fn free_agent(site: Arc<Site>, place: Place) -> Result<Agent, HarnessError> {
    let namespace = site.mark.run.namespace(&place.to_string());
    let (of_namespace, of_pod) = match &place {
        Place::Impostor => manifest::impostor(),
        _ => Default::default(),
    };
    make_namespace(&site, &namespace, &of_namespace).await?;
    let agent = AgentPod {
        mark: &site.mark,
        name: "agent".to_owned(),
        namespace,
        image: &site.settings.agent_image,
        labels: of_pod,
        owner: None,
        node: None,
        may_become_ready: true,
    };
    start(&site, place, agent).await
}

/// Makes a namespace of the run's own with these labels beside the run's, and waits until pods can be made in it.
///
/// # Errors
/// The API server refused, or its controller made no ServiceAccount in time.
pub async fn make_namespace(
    site: &Site,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), HarnessError> {
    let client = &site.cluster.client;
    site.ledger
        .create(client, manifest::namespace(&site.mark, name, labels))
        .await?;
    pod::await_default_account(client, name).await
}

/// Starts an agent and waits until it listens.
///
/// # Errors
/// It did not start, with the reason that the kubelet or the scheduler gives.
pub async fn start(site: &Site, place: Place, agent: AgentPod<'_>) -> Result<Agent, HarnessError> {
    let client = &site.cluster.client;
    let (namespace, name) = (agent.namespace.clone(), agent.name.clone());
    site.ledger.create(client, agent.manifest()).await?;
    await_agent(site, place, namespace, name).await
}

async fn await_agent(
    site: &Site,
    place: Place,
    namespace: String,
    name: String,
) -> Result<Agent, HarnessError> {
    let client = &site.cluster.client;
    let pods = Api::namespaced(client.clone(), &namespace);
    let started = pod::await_started(&pods, &name, site.settings.start_within);
    let pod::Started { ip, node } = started
        .await
        .map_err(|error| pod::advise(error, &site.settings.agent_image))?;
    let agent = Agent::new(client.clone(), place, namespace, name, ip, node)
        .counting(Arc::clone(&site.cluster.retries));
    await_listening(&agent).await?;
    Ok(agent)
}

/// A container that runs is ready for the kubelet before its program listens. The witness answers once all ports are bound.
async fn await_listening(agent: &Agent) -> Result<(), HarnessError> {
    let deadline = tokio::time::Instant::now() + LISTENING;
    loop {
        match agent.sightings().await {
            Ok(_) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
