//! One fault: planted, judged by a whole run, taken back, whatever happens in between. A turn lasts until the last verdict; what was made is
//! removed beside the next ones.

use super::altered::{self, Altered};
use super::{Outcome, Site, Step, Trial, trouble};
use crate::check::{self, Schedule};
use crate::clean::{self, Which};
use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::event::{Event, Events};
use crate::fault::{Fault, NotPassed, Services};
use crate::ledger::Ledger;
use crate::manifest::Mark;
use crate::names::{EXPIRES, RUN_ID, RunId};
use crate::plan::Selection;
use crate::removal;
use crate::report::{ItemResult, Report};
use crate::run;
use crate::settings::Settings;
use crate::stage::Surroundings;
use crate::verdict::Verdict;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use provisioner::TenantId;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Plants, judges and takes back; `judged` hears, once there are verdicts, whether all passed that could by then.
pub(super) async fn conduct(
    site: Arc<Site>,
    fault: Fault,
    around: Surroundings,
    turn: OwnedSemaphorePermit,
    judged: Option<oneshot::Sender<bool>>,
) -> Trial {
    let begin = Instant::now();
    site.steps.send(Step::Started(fault.name.clone()));
    let mut outcome = match altered::plant(&site, &fault).await {
        Ok(altered) => {
            let until_judged = UntilJudged {
                altered,
                services: fault.services.clone(),
                judged,
                _turn: turn,
            };
            beside_and_judge(&site, &fault, around, until_judged).await
        }
        Err(why) => Outcome::NotPlantable(why),
    };
    if site.cancel.is_cancelled() && !matches!(outcome, Outcome::Trouble(_)) {
        outcome = Outcome::Interrupted;
    }
    let trial = Trial {
        fault: fault.name,
        outcome,
        took: begin.elapsed(),
    };
    site.steps.send(Step::Finished(trial.clone()));
    trial
}

async fn beside_and_judge(
    site: &Site,
    fault: &Fault,
    around: Surroundings,
    until_judged: UntilJudged,
) -> Outcome {
    let beside = match Beside::plant(site, fault).await {
        Ok(beside) => beside,
        Err(error) => {
            return trouble(until_judged.end(site, false).await.err().unwrap_or(error));
        }
    };
    let outcome = judge(site, fault, around, until_judged).await;
    match beside {
        Some(beside) => despite(site, fault, outcome, beside.remove(site).await),
        None => outcome,
    }
}

/// What came of a fault, where cleaning up after it may have failed. That is trouble, after which it is planted once more; but not where what was
/// judged contradicts what was expected: no second try may hide that.
fn despite(site: &Site, fault: &Fault, outcome: Outcome, cleaned: Result<(), HarnessError>) -> Outcome {
    match cleaned {
        Ok(()) => outcome,
        Err(error) if outcome.is_wrong(&fault.expected) => {
            site.notice(&HarnessError {
                what: format!("{}: {error}", fault.name),
                ..error
            });
            outcome
        }
        Err(error) => trouble(error),
    }
}

/// What lasts until the last verdict: the turn, and a fault that others would see.
struct UntilJudged {
    altered: Option<Altered>,
    services: Services,
    judged: Option<oneshot::Sender<bool>>,
    _turn: OwnedSemaphorePermit,
}

impl UntilJudged {
    async fn end(self, site: &Site, all_passed: bool) -> Result<(), HarnessError> {
        if let Some(judged) = self.judged {
            let _ = judged.send(all_passed);
        }
        let services = restored_services(site, &self.services).await;
        let restored = match self.altered {
            Some(altered) => altered.restore(site).await.and(services),
            None => services,
        };
        if restored.is_err() {
            site.spoilt.store(true, Ordering::Relaxed);
        }
        restored
    }
}

/// Takes back what the fault changed in the services for others too.
pub(super) async fn restored_services(site: &Site, services: &Services) -> Result<(), HarnessError> {
    match site.settings.tenants.first() {
        Some(tenant) => {
            services
                .restore(&site.cluster.client, &tenant.shared_services)
                .await
        }
        None => Ok(()),
    }
}

/// Removes what the fault left in Redis.
pub(super) async fn swept_services(site: &Site, services: &Services) -> Result<(), HarnessError> {
    match site.settings.tenants.first() {
        Some(tenant) => {
            services
                .sweep(&site.cluster.client, &tenant.shared_services)
                .await
        }
        None => Ok(()),
    }
}

async fn judge(site: &Site, fault: &Fault, around: Surroundings, until_judged: UntilJudged) -> Outcome {
    let settings = site.settings_for(fault);
    let request = run::Request {
        settings: settings.clone(),
        selection: Selection::default(),
        ledgers: site.ledgers.clone(),
        templates: fault.templates.clone(),
        services: fault.services.clone(),
        by_hand: fault.by_hand.clone(),
        around,
    };
    let (events, received) = Events::channel();
    let ran = async {
        let ran = run::run(request, events.clone(), site.cancel.clone()).await;
        events.send(Event::Ended);
        ran
    };
    let (ran, (report, restored)) = futures::join!(ran, follow(site, fault, received, until_judged));
    let left = take_back(site, fault, &settings, &report).await;
    let swept = swept_services(site, &fault.services).await;
    let outcome = match ran {
        Ok(()) => outcome(fault, &report),
        Err(_) if site.cancel.is_cancelled() => Outcome::Interrupted,
        Err(error) => trouble(HarnessError {
            hint: error.hint(),
            what: error.to_string(),
        }),
    };
    despite(site, fault, outcome, restored.and(left).and(swept))
}

/// Folds the events into the report; answers also whether a fault that others would see was taken back.
async fn follow(
    site: &Site,
    fault: &Fault,
    mut events: UnboundedReceiver<Event>,
    until_judged: UntilJudged,
) -> (Report, Result<(), HarnessError>) {
    let mut report = Report::new(Vec::new(), jiff::Zoned::now().date());
    let (mut held, mut restored) = (Some(until_judged), Ok(()));
    while let Some(event) = events.recv().await {
        report.absorb(&event);
        match event {
            Event::Notice(what) if held.is_some() => {
                site.steps.send(Step::Notice(format!("{}: {what}", fault.name)));
            }
            // The first that is told is the verdicts' time. A run that came to none only ends.
            Event::Took(..) | Event::Ended => {
                if let Some(held) = held.take() {
                    restored = held.end(site, all_passed(&report)).await;
                }
                if event == Event::Ended {
                    break;
                }
            }
            _ => {}
        }
    }
    (report, restored)
}

/// Whether every item passed that is judged while the tenants stand.
fn all_passed(report: &Report) -> bool {
    let is_later = |result: &&ItemResult| {
        check::find(result.check).is_some_and(|check| check.info().schedule == Schedule::AfterCleanUp)
    };
    !report.results.is_empty()
        && report
            .results
            .iter()
            .filter(|result| !is_later(result))
            .all(|result| matches!(result.verdict, Verdict::Passed(_)))
}

/// Removes what the run could not: what the fault itself holds back, and what a busy cluster did not remove in time.
async fn take_back(
    site: &Site,
    fault: &Fault,
    settings: &Settings,
    report: &Report,
) -> Result<(), HarnessError> {
    if report.left_behind.is_empty() {
        return Ok(());
    }
    for manifest in &fault.held {
        let namespace = manifest.object.metadata.namespace.as_deref().unwrap_or_default();
        let objects = Api::<DynamicObject>::namespaced_with(
            site.cluster.client.clone(),
            namespace,
            &manifest.kind.resource(),
        );
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        let params = PatchParams::default();
        let doing = format!("take the finalizer off {}", manifest.reference());
        within(ANSWER, doing, objects.patch(manifest.name(), &params, &patch)).await?;
    }
    let run = report
        .beginning
        .as_ref()
        .map(|beginning| beginning.run.clone())
        .unwrap_or_default();
    let settings = Settings {
        clean_up_within: site.settings.clean_up_within,
        ..settings.clone()
    };
    let cleaned = clean::clean(&settings, &site.ledgers, &Which::Run(run.clone())).await;
    let cleaned = cleaned.map_err(|error| HarnessError {
        hint: error.hint(),
        what: error.to_string(),
    })?;
    match cleaned.failed.first() {
        None => Ok(()),
        Some((_, entry, why)) => {
            Err(HarnessError::new(format!("{entry} could not be removed: {why}")).hint(by_hand(site, &run)))
        }
    }
}

fn by_hand(site: &Site, run: &str) -> String {
    format!(
        "conformance clean --cluster {} --run {run}",
        site.settings.cluster_name
    )
}

/// What the report says, in the fault's terms.
fn outcome(fault: &Fault, report: &Report) -> Outcome {
    let tenants = report.beginning.iter().flat_map(|beginning| &beginning.tenants);
    if let Some(tenant) = tenants.into_iter().find(|tenant| tenant.existed) {
        let error = HarnessError::new(format!(
            "tenant {} was there already, so the fault was not planted on it",
            tenant.id
        ));
        return trouble(error.hint(format!(
            "if nobody needs it: provisioner delete --tenant-id {}",
            tenant.id
        )));
    }
    let (mut seen, mut why) = (NotPassed::default(), Vec::new());
    for result in &report.results {
        let item = in_terms_of(&fault.tenants, &result.name);
        let reason = match &result.verdict {
            Verdict::Passed(_) => continue,
            Verdict::Failed { findings, .. } => {
                seen.failed.insert(item.clone());
                findings.first().map_or(String::new(), |finding| {
                    format!("expected {}; seen {}", finding.expected, finding.seen)
                })
            }
            Verdict::Inconclusive(cause) => {
                seen.inconclusive.insert(item.clone());
                cause.what.clone()
            }
            // Nothing was left out on purpose, so nothing may be left out.
            Verdict::Skipped { reason } => {
                seen.inconclusive.insert(item.clone());
                format!("left out: {reason}")
            }
        };
        why.push((item, reason.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    Outcome::Judged { seen, why }
}

/// `NET-02 quota-missing-a -> quota-missing-b` as `NET-02 a -> b`.
fn in_terms_of(tenants: &[TenantId; 2], item: &str) -> String {
    let [a, b] = tenants.each_ref().map(TenantId::as_str);
    let word = |word| match word {
        word if word == a => "a",
        word if word == b => "b",
        word => word,
    };
    item.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// What stands beside the tenants, with a run id and a ledger of its own.
struct Beside {
    mark: Mark,
    ledger: Ledger,
}

impl Beside {
    async fn plant(site: &Site, fault: &Fault) -> Result<Option<Beside>, HarnessError> {
        if fault.beside.is_empty() {
            return Ok(None);
        }
        let run = RunId::random().map_err(|error| HarnessError::during("make a run id", &error))?;
        let life = site.settings.timeout + 3 * site.settings.clean_up_within;
        let expires = Timestamp::now() + SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
        let ledger = run::open_ledger(&site.ledgers, &run, &site.cluster.uid)?;
        let beside = Beside {
            mark: Mark { run, expires },
            ledger,
        };
        for object in &fault.beside {
            let mut object = object.clone();
            let metadata = &mut object["metadata"];
            metadata["labels"][RUN_ID] = json!(beside.mark.run.as_str());
            metadata["annotations"][RUN_ID] = json!(beside.mark.run.as_str());
            metadata["annotations"][EXPIRES] = json!(beside.mark.expires.to_string());
            if let Err(error) = beside.ledger.create(&site.cluster.client, object).await {
                beside.remove(site).await?;
                return Err(error);
            }
        }
        Ok(Some(beside))
    }

    async fn remove(&self, site: &Site) -> Result<(), HarnessError> {
        let run = self.mark.run.as_str();
        let entries = self.ledger.newest_first();
        let failed = removal::remove(
            &site.cluster.client,
            run,
            &entries,
            site.settings.clean_up_within,
            &|entry| self.ledger.gone(entry),
        )
        .await;
        if let Some((entry, why)) = failed.first() {
            return Err(
                HarnessError::new(format!("{entry} could not be removed: {why}")).hint(by_hand(site, run))
            );
        }
        self.ledger.close().map_err(|error| {
            HarnessError::during(
                format!("remove the ledger {}", self.ledger.path().display()),
                &error,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_in_the_faults_terms() {
        let tenants = ["x-a", "x-b"].map(|id| TenantId::try_from(id).unwrap());
        for (item, expected) in [
            ("NET-02 x-b -> x-a", "NET-02 b -> a"),
            ("QUO-01 x-a", "QUO-01 a"),
            ("PROV-14 cluster", "PROV-14 cluster"),
        ] {
            assert_eq!(in_terms_of(&tenants, item), expected);
        }
    }
}
