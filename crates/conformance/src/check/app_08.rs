//! APP-08: every webhook to a tenant is enhanced for it, and for nobody else, and only its own namespace's logs speak of it.

use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::names::workload;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Observation, Observed, Promised, Verdict, judge as conclude, prove};
use crate::webhook::{self, Answer, Deliveries, Delivery, Image};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::collections::BTreeMap;
use std::time::Duration;

/// The check.
pub(super) struct App08;

static INFO: CheckInfo = CheckInfo {
    id: "APP-08",
    title: "a webhook is enhanced for its tenant alone, and logged in its namespace alone",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "This is what the platform is for. A webhook that another tenant's worker takes, or whose text ends up in a log that others read, is another tenant's data with others.",
    how: "Twenty signed webhooks to each tenant, interleaved and each with a nonce of its own, through the ingress. Each must be accepted, enhanced and seen with the tenant's own credentials, and logged by its worker; another tenant's own credentials must not see it, and no log of another tenant's, of the shared services', of the ingress' or of the namespace default may name it, those from before a restart included. Controls: the others' webhooks of the same batch were enhanced and logged with them, and every one of these logs was read.",
    remedy: "where a webhook is seen elsewhere: which queue the API writes to and the worker reads from (REDIS_*, TENANT_ID in ai-agents-config), which tenant the worker stores under, and where it logs to. Where it is not enhanced: the worker's log",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(60),
};

impl Check for App08 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        let mut needs = webhook::needs(tenants);
        needs.push(Resource::Deliveries);
        needs
    }

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::Webhooks]
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let tenant = subject.tenant()?;
            Ok(judge(tenant, cx.stage.deliveries().await?.as_ref()))
        }
        .boxed()
    }
}

fn judge(tenant: &TenantId, batch: &Deliveries) -> Verdict {
    let mut closed = elsewhere_seen(tenant, batch);
    closed.extend(elsewhere_logged(tenant, batch));
    let open = [
        accepted(tenant, batch),
        enhanced(tenant, batch),
        logged(tenant, batch),
    ];
    let verdict = conclude(&prove(&controls(tenant, batch)), &closed, &open);
    with_images(verdict, tenant, batch)
}

/// `3 of them, first conformance-…`.
pub(super) fn counted<'a>(nonces: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut nonces = nonces.into_iter();
    let first = nonces.next()?;
    Some(format!("{} of them, first {first}", nonces.count() + 1))
}

/// What others see of the tenant's webhooks.
fn elsewhere_seen(tenant: &TenantId, batch: &Deliveries) -> Vec<Observed> {
    let Some(eyes) = batch.eyes else {
        return Vec::new();
    };
    let others = batch.seen.iter().filter(|(other, _)| *other != tenant);
    let look = |(other, seen): (&TenantId, &Result<webhook::Effects, HarnessError>)| Observed {
        what: format!("sight of webhooks to {tenant} by {other} ({eyes})"),
        observation: match seen {
            Err(error) => Observation::Broken(error.what.clone()),
            Ok(seen) => {
                let found = batch.of(tenant).filter(|each| seen.contains_key(&each.nonce));
                match counted(found.map(|each| each.nonce.as_str())) {
                    Some(found) => Observation::Reached(found),
                    None => Observation::Denied(format!("none of {}", batch.of(tenant).count())),
                }
            }
        },
    };
    others.map(look).collect()
}

/// What logs elsewhere say of the tenant's webhooks.
fn elsewhere_logged(tenant: &TenantId, batch: &Deliveries) -> Vec<Observed> {
    let own = tenant.namespace();
    let places = batch.logs.read.keys().filter(|place| **place != own);
    let look = |place: &String| {
        let lines = batch.of(tenant).filter_map(|each| {
            let mut lines = batch.logs.of(&each.nonce);
            Some((lines.find(|line| line.namespace == *place)?, each))
        });
        let found: Vec<_> = lines.collect();
        let gap = batch.logs.gap([place.as_str()]);
        let observation = match (found.first(), gap) {
            (Some((line, each)), _) => {
                Observation::Reached(format!("{} of them, first {} by {line}", found.len(), each.nonce))
            }
            (None, Some(gap)) => Observation::Broken(gap),
            (None, None) => Observation::Denied(format!(
                "no line in {} log(s)",
                batch.logs.read.get(place).copied().unwrap_or_default()
            )),
        };
        Observed {
            what: format!("mention of webhooks to {tenant} in logs of {place}"),
            observation,
        }
    };
    places.map(look).collect()
}

/// That all were accepted. One that was refused is the application's doing only where others like it were not.
fn accepted(tenant: &TenantId, batch: &Deliveries) -> Promised {
    let all: Vec<&Delivery> = batch.of(tenant).collect();
    let accepted = all.iter().filter(|each| each.answer.is_accepted()).count();
    let refused = all.iter().find(|each| matches!(each.answer, Answer::Refused(_)));
    let unavailable = all
        .iter()
        .find(|each| matches!(each.answer, Answer::Unavailable(_)));
    let observation = match (refused, unavailable) {
        (Some(refused), _) => Observation::Denied(format!(
            "{} of {}; {}: {}",
            all.len() - accepted,
            all.len(),
            refused.nonce,
            refused.answer
        )),
        (None, Some(unavailable)) => Observation::Broken(format!(
            "{} of {} accepted; {}",
            accepted,
            all.len(),
            unavailable.answer
        )),
        (None, None) => Observation::Reached(format!("{accepted} of {}", all.len())),
    };
    let holds = match accepted {
        0 => Err("none is".to_owned()),
        count => Ok(format!("{count} of {}", all.len())),
    };
    Promised {
        probe: Observed {
            what: format!("acceptance of webhooks signed for {tenant}"),
            observation,
        },
        answers: Control {
            claim: format!("others like it are accepted by {tenant}"),
            holds,
        },
    }
}

/// That all that were accepted were enhanced, and the tenant sees them.
fn enhanced(tenant: &TenantId, batch: &Deliveries) -> Promised {
    let taken: Vec<&Delivery> = batch
        .of(tenant)
        .filter(|each| each.answer.is_accepted())
        .collect();
    let done = batch.enhanced(tenant);
    let observation = match batch.seen.get(tenant) {
        None => Observation::Broken("nobody looked".to_owned()),
        Some(Err(error)) => Observation::Broken(error.what.clone()),
        Some(Ok(_)) if taken.is_empty() => Observation::Broken("none was accepted".to_owned()),
        Some(Ok(_)) => {
            let missing = taken
                .iter()
                .filter(|each| !done.iter().any(|done| done.nonce == each.nonce));
            match counted(missing.map(|each| each.nonce.as_str())) {
                None => Observation::Reached(format!("{} of {}", done.len(), taken.len())),
                Some(missing) => {
                    Observation::Denied(format!("not within {} s: {missing}", batch.within.as_secs()))
                }
            }
        }
    };
    Promised {
        probe: Observed {
            what: format!("enhancement of accepted webhooks to {tenant}, as it sees it"),
            observation,
        },
        answers: worker_ready(tenant, batch),
    }
}

/// That a worker of the tenant's is ready.
pub(super) fn worker_ready(tenant: &TenantId, batch: &Deliveries) -> Control {
    let namespace = tenant.namespace();
    let ready = batch
        .logs
        .pods_of(&namespace, &batch.worker)
        .find(|pod| pod.ready);
    let holds = ready.map(|pod| format!("pod {} is", pod.pod));
    Control {
        claim: format!("a worker of {tenant} is ready"),
        holds: holds.ok_or_else(|| "no pod with the labels of application.log.worker is".to_owned()),
    }
}

/// That the tenant's own workers say of each enhanced webhook that it was. Where they do not, nothing is known of where it is logged.
fn logged(tenant: &TenantId, batch: &Deliveries) -> Promised {
    let (done, namespace) = (batch.enhanced(tenant), tenant.namespace());
    let silent = done.iter().filter(|each| {
        let mut lines = batch.logs.enhanced(&each.nonce);
        !lines.any(|line| line.namespace == namespace)
    });
    let observation = match (counted(silent.map(|each| each.nonce.as_str())), done.len()) {
        (_, 0) => Observation::Broken("none was enhanced".to_owned()),
        (None, count) => Observation::Reached(format!("{count} of {count}")),
        (Some(silent), _) => Observation::Broken(format!(
            "no line of its workers says so (application.log.enhanced): {silent}"
        )),
    };
    Promised {
        probe: Observed {
            what: format!("word of its workers on enhanced webhooks to {tenant} in {namespace}"),
            observation,
        },
        answers: worker_ready(tenant, batch),
    }
}

/// That the others' webhooks of the batch show where an enhanced one is seen and logged.
fn controls(tenant: &TenantId, batch: &Deliveries) -> Vec<Control> {
    let others = batch.tenants().filter(|other| *other != tenant);
    let mut controls: Vec<Control> = others
        .map(|other| {
            let (done, all) = (batch.enhanced(other), batch.of(other).count());
            let namespace = other.namespace();
            let in_own = |each: &&&Delivery| {
                let mut lines = batch.logs.of(&each.nonce);
                lines.any(|line| line.namespace == namespace)
            };
            let logged = done.iter().filter(in_own).count();
            let told = format!("{} of {all} are enhanced, {logged} are logged there", done.len());
            let holds = match batch.seen.get(other) {
                Some(Err(error)) => Err(error.what.clone()),
                _ if done.is_empty() || logged == 0 => Err(told),
                _ => Ok(told),
            };
            Control {
                claim: format!("webhooks to {other} are seen by it, and in {namespace}"),
                holds,
            }
        })
        .collect();
    controls.push(batch.logs.readable(batch.logs.read.keys().map(String::as_str)));
    controls
}

/// What was judged: the images of the tenant's API and workers.
fn with_images(verdict: Verdict, tenant: &TenantId, batch: &Deliveries) -> Verdict {
    let namespace = tenant.namespace();
    let api = BTreeMap::from([("app".to_owned(), workload::API.to_owned())]);
    let api = batch.logs.pods_of(&namespace, &api);
    let pods = api.chain(batch.logs.pods_of(&namespace, &batch.worker));
    let line = |pod: &Image| format!("under test: pod {}, image {}", pod.pod, pod.ids.join(", "));
    let images: Vec<String> = pods.map(line).collect();
    match verdict {
        Verdict::Passed(mut evidence) => {
            evidence.observed.extend(images);
            Verdict::Passed(evidence)
        }
        Verdict::Failed {
            findings,
            mut observed,
        } => {
            observed.extend(images);
            Verdict::Failed { findings, observed }
        }
        other => other,
    }
}

#[cfg(test)]
pub(super) mod tests;
