//! What a check has at hand: the site, what the stage put up, and the run's own record of what it made.

use crate::agent::{Agent, Try};
use crate::error::HarnessError;
use crate::ledger::Entry;
use crate::probing::{self, CONTROL_TIMEOUT, Cell};
use crate::resource::{Costume, Place};
use crate::stage::{Site, Stage};
use crate::targets;
use crate::verdict::{Control, Observation, Observed};
use crate::workloads::{self, Workloads};
use probe::protocol::Protocol;
use provisioner::TenantId;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The surroundings of a check.
pub struct Context {
    /// Cluster, settings, mark, ledger.
    pub site: Arc<Site>,
    /// What is put up.
    pub stage: Stage,
    /// What was there before clean-up, for the check that judges clean-up.
    pub before_clean_up: OnceLock<BeforeCleanUp>,
}

/// What there was of a run before clean-up.
#[derive(Debug, Clone)]
pub struct BeforeCleanUp {
    /// How much of it the search for leftovers found.
    pub found: Result<usize, HarnessError>,
    /// The registrations of its tenants, which are looked for by name.
    pub registrations: Vec<Entry>,
}

impl Context {
    /// The agents of a tenant in these costumes; for each that could not be put up, an undecided probe that says so.
    pub async fn agents(&self, tenant: &TenantId, costumes: &[Costume]) -> (Vec<Arc<Agent>>, Vec<Observed>) {
        let (mut agents, mut missing) = (Vec::new(), Vec::new());
        for costume in costumes {
            let place = Place::Tenant(tenant.clone(), *costume);
            match self.stage.agent(&place).await {
                Ok(agent) => agents.push(agent),
                Err(error) => {
                    let observation = Observation::Broken(error.to_string());
                    missing.push(Observed {
                        what: format!("agent {place}"),
                        observation,
                    });
                }
            }
        }
        (agents, missing)
    }

    /// The workloads of a tenant.
    ///
    /// # Errors
    /// They could not be looked at.
    pub async fn workloads(&self, tenant: &TenantId) -> Result<Arc<Workloads>, HarnessError> {
        self.stage.workloads(tenant).await
    }

    /// The enforcement canary as a control for what these agents saw: policies are enforced, and on the nodes that they stand on. It does
    /// not hold where the canary could not be put up.
    pub async fn enforcement(&self, agents: &[&Arc<Agent>]) -> Control {
        match self.stage.enforcement().await {
            Ok(enforcement) => enforcement.control(agents),
            Err(error) => enforcement_unknown(&error),
        }
    }

    /// The agent in a namespace that others share: nothing where the run may not put one there.
    pub async fn shared_agent(&self, place: &Place) -> Option<Result<Arc<Agent>, HarnessError>> {
        if self.site.shared.iter().any(|(shared, _)| shared == place) {
            Some(self.stage.agent(place).await)
        } else {
            None
        }
    }

    /// The same, with an undecided probe where it should have come up and did not.
    pub async fn shared_agent_or_gap(&self, place: &Place) -> (Option<Arc<Agent>>, Option<Observed>) {
        match self.shared_agent(place).await {
            None => (None, None),
            Some(Ok(agent)) => (Some(agent), None),
            Some(Err(error)) => {
                let gap = Observed {
                    what: format!("agent {place}"),
                    observation: Observation::Broken(error.to_string()),
                };
                (None, Some(gap))
            }
        }
    }

    /// That a tenant's API was alive all the time since it was seen `before`.
    pub async fn api_alive(&self, to: &TenantId, before: &Workloads) -> Control {
        let after = match self.site.tenant(to) {
            Ok(tenant) => workloads::look(&self.site.cluster.client, tenant).await,
            Err(error) => Err(error),
        };
        targets::api_alive(to, before, after)
    }

    /// That a tenant's API answers who may ask it: the ingress controller's namespace. Where the run may not put an agent there, or
    /// cannot, that is not shown here.
    pub async fn answers_ingress(&self, to: &TenantId, workloads: &Workloads) -> Vec<Control> {
        match self.shared_agent(&Place::Ingress).await {
            None => Vec::new(),
            Some(Ok(ingress)) => {
                let cells = targets::api(self, "ingress", to, workloads, CONTROL_TIMEOUT);
                // Its Service may still be on its way to the nodes.
                probing::promised(&ingress, &cells).await;
                probing::probe(&ingress, &cells, &[]).await.controls
            }
            Some(Err(error)) => vec![Control {
                claim: format!("{to} API answers the ingress controller's namespace"),
                holds: Err(error.to_string()),
            }],
        }
    }

    /// The control of a tenant's own agents: they reach the cluster's DNS, which their egress policy allows.
    pub fn dns_control(&self, agent: &Agent) -> Cell {
        self.dns(&agent.place.to_string(), Protocol::Dns, CONTROL_TIMEOUT)
    }

    /// The cluster's DNS, by the resolver of the pod that asks.
    pub fn dns(&self, source: &str, protocol: Protocol, timeout: Duration) -> Cell {
        let domain = self
            .site
            .settings
            .tenants
            .first()
            .map(|tenant| tenant.dns.cluster_domain.to_string());
        let query = Some(format!("kubernetes.default.svc.{}.", domain.unwrap_or_default()));
        let word = if protocol == Protocol::DnsTcp {
            "tcp"
        } else {
            "udp"
        };
        Cell {
            what: format!("{source} -> cluster DNS ({word})"),
            attempt: Try {
                protocol,
                host: String::new(),
                port: 53,
                timeout,
                query,
            },
            witness: None,
            answers_others: false,
        }
    }
}

fn enforcement_unknown(error: &HarnessError) -> Control {
    Control {
        claim: "policies are enforced".to_owned(),
        holds: Err(format!("the canary could not be put up: {error}")),
    }
}

/// A cell towards an agent by its pod address.
pub fn to_agent(source: &str, target: &Arc<Agent>, protocol: Protocol, port: u16, timeout: Duration) -> Cell {
    let word = if protocol == Protocol::Udp { "udp" } else { "tcp" };
    Cell {
        what: format!(
            "{source} -> {} {}:{port}/{word} (pod IP)",
            target.place, target.ip
        ),
        attempt: Try {
            protocol,
            host: target.ip.clone(),
            port,
            timeout,
            query: None,
        },
        witness: Some(Arc::clone(target)),
        answers_others: false,
    }
}

/// That an agent's listeners are alive at its own address, asked by itself: nothing on the way can keep that out.
pub fn own_listener(agent: &Arc<Agent>, protocol: Protocol, port: u16) -> Cell {
    let mut cell = to_agent(&agent.place.to_string(), agent, protocol, port, CONTROL_TIMEOUT);
    let word = if protocol == Protocol::Udp { "udp" } else { "tcp" };
    cell.what = format!("{} listens on {port}/{word}", agent.place);
    cell
}
