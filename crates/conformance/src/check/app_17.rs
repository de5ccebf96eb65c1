//! APP-17: what fails in one tenant stays there: webhooks to another are taken and enhanced while the first is at its quota, restarts in a
//! loop, has its queue flooded and holds every database connection that it can get.

use crate::agent::{Again, Agent};
use crate::check::{Check, CheckInfo, Footprint, Profile, Requirement, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::credentials::Credentials;
use crate::error::{HarnessError, within};
use crate::ledger::{Entry, Kind};
use crate::manifest;
use crate::names::RunId;
use crate::quota::{self, Dimension};
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Figure, Observation, Observed, Promised, Verdict, judge, prove};
use crate::webhook::{self, Answer, Webhooks};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use probe::protocol::{Held, MAX_CONNECTIONS, RedisCommand, RedisRequest, SqlRequest};
use provisioner::{Tenant, TenantId};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The check.
pub(super) struct App17;

static INFO: CheckInfo = CheckInfo {
    id: "APP-17",
    title: "one tenant's failures do not become another's",
    profile: Profile::Baseline,
    severity: Severity::High,
    footprint: Footprint::LabOnly,
    why: "Tenants share a node, PostgreSQL and Redis. Without limits on what one may take of each, a tenant that breaks down, or is made to, takes the others down with it.",
    how: "Webhooks to B are sent and followed until they are enhanced, before, while and after A is at its quota, a pod of it has begun to restart in a loop, its queue is flooded and it holds every connection to PostgreSQL that it is given. All of B's must be enhanced meanwhile, within a bound that follows from how long B took before, and B must get a connection of its own. Controls: A's trouble was real (the quota refused a pod, the pod was restarted, the entries were queued, a further connection was refused); B's webhooks were enhanced before and after. What B suffers is a failure where it does so a second time, with A's trouble brought about once more.",
    remedy: "Give each tenant's role a connection limit (sharedServices.postgresql.connectionLimit), its namespace a quota, its containers CPU and memory limits, and see that B's worker does not wait for anything of A's.",
    schedule: Schedule::Exclusive,
    timeout: Duration::from_secs(180),
};

/// Webhooks to B, before, meanwhile and after.
const COUNT: usize = 8;
/// B may take so many times as long as the slowest of its webhooks before, and so much more: the machine has more to do.
const FACTOR: u32 = 4;
const MORE: Duration = Duration::from_secs(2);
/// Entries with which A's queue is flooded.
const ENTRIES: usize = 2_000;
/// How often it is looked what became of B's webhooks.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a pod that ends at once may take to be started a second time.
const RESTARTED_WITHIN: Duration = Duration::from_secs(60);
/// What of its quota A uses up, by how many pods at most, and how long that may take.
const FILLED: Dimension = Dimension::LimitsCpu;
const FILLS: usize = 4;
const AT_QUOTA_WITHIN: Duration = Duration::from_secs(5);
/// How long PostgreSQL may take to end sessions that were closed.
const RELEASED_WITHIN: Duration = Duration::from_secs(3);
const CONVERSATION_MS: u64 = 10_000;

impl Check for App17 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        // One direction shows it, and keeps a run short: it has to be alone, and takes seconds.
        subject::ordered_pairs(tenants).into_iter().take(1).collect()
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        let mut needs = webhook::needs(tenants);
        needs.extend(tenants.iter().cloned().map(Resource::Tenant));
        needs
    }

    fn requires(&self) -> &'static [Requirement] {
        &[Requirement::Webhooks]
    }

    fn objects(&self, subject: &Subject, _tenants: &[Tenant], run: &RunId) -> Vec<Entry> {
        let Ok((a, _)) = subject.pair() else {
            return Vec::new();
        };
        let fillers = (1..=FILLS).map(|number| filler_name(run, number));
        let pods = std::iter::once(crash_loop_name(run)).chain(fillers);
        let pods = pods.map(|name| Entry {
            kind: Kind::Pod,
            namespace: Some(a.namespace()),
            name,
        });
        pods.collect()
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let (a, b) = subject.pair()?;
            let webhooks = cx.stage.webhooks().await?;
            let [a, b] = [Side::of(cx, a).await?, Side::of(cx, b).await?];
            webhooks.awake(b.tenant).await;
            let before = series(&webhooks, &b).await;
            let _alone = quota::hold(cx, a.tenant).await?;
            let restarting = crash_loop(cx, a.tenant).await;
            let restarting = control(a.tenant, "a pod restarts in a loop", restarting);
            let mut fills = 0;
            let first = Round::of(cx, &webhooks, &a, &b, &mut fills).await;
            let verdict = first.verdict(b.tenant, &before, &restarting);
            // What is owed for the first would be forgotten with the second.
            let may_repeat = well(&before).is_ok() && restarting.holds.is_ok() && first.is_drained;
            if matches!(verdict, Verdict::Passed(_)) || !may_repeat {
                return Ok(verdict);
            }
            let second = Round::of(cx, &webhooks, &a, &b, &mut fills).await;
            let verdict = both(verdict, second.verdict(b.tenant, &before, &restarting));
            if matches!(verdict, Verdict::Passed(_)) {
                let retries = &cx.site.cluster.retries;
                retries.count(format!("{} {subject} was undecided", INFO.id));
            }
            Ok(verdict)
        }
        .boxed()
    }
}

/// A tenant, and how its own credentials are used from inside of it.
struct Side<'a> {
    tenant: &'a TenantId,
    agent: Arc<Agent>,
    sql: SqlRequest,
    redis: RedisRequest,
    queue: String,
}

impl<'a> Side<'a> {
    async fn of(cx: &'a Context, tenant: &'a TenantId) -> Result<Self, HarnessError> {
        let credentials: Arc<Credentials> = cx.stage.registration(tenant).await?;
        let settings = &cx.site.settings;
        let services = &cx.site.tenant(tenant)?.shared_services;
        let domain = &cx.site.tenant(tenant)?.dns.cluster_domain;
        let host =
            |service: &dyn std::fmt::Display| format!("{service}.{}.svc.{domain}.", services.namespace);
        Ok(Side {
            tenant,
            agent: cx.stage.agent(&webhook::reader_place(tenant)).await?,
            sql: SqlRequest {
                host: host(&services.postgresql.service),
                port: services.postgresql.port.get(),
                user: settings.postgresql.user.of(tenant),
                password: credentials.postgresql.clone()?,
                database: settings.postgresql.database.clone(),
                timeout_ms: CONVERSATION_MS,
                statements: vec!["select 1".to_owned()],
                hold: None,
            },
            redis: RedisRequest {
                host: host(&services.redis.service),
                port: services.redis.port.get(),
                user: settings.redis.user.of(tenant),
                password: credentials.redis.clone()?,
                timeout_ms: CONVERSATION_MS,
                commands: Vec::new(),
            },
            queue: settings.redis.queue.of(tenant),
        })
    }
}

/// What became of webhooks that were sent at the same time, and of a connection of the tenant's own.
#[derive(Debug, Clone)]
struct Series {
    /// Of each, how long it took to be enhanced; or what became of it instead.
    webhooks: Vec<Result<Duration, Fate>>,
    /// Whether PostgreSQL gave the tenant a connection.
    connection: Result<(), Fate>,
}

/// What became of something that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// The application, or PostgreSQL, said no, or let it lie.
    Refused(String),
    /// It could not be seen.
    Unseen(String),
}

async fn series(webhooks: &Webhooks, side: &Side<'_>) -> Series {
    // First: it is looked for the webhooks by connections too, for as long as it takes.
    let connection = connect(side).await;
    Series {
        webhooks: enhanced(webhooks, side.tenant).await,
        connection,
    }
}

/// Whether PostgreSQL gives the tenant a connection.
async fn connect(side: &Side<'_>) -> Result<(), Fate> {
    match side.agent.sql_session(&side.sql, Again::Once).await {
        Err(error) => Err(Fate::Unseen(error.to_string())),
        Ok(said) => match said {
            Ok(results) => match results.into_iter().next() {
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(Fate::Unseen(error.message)),
                None => Err(Fate::Unseen("no answer".to_owned())),
            },
            // 53300, too_many_connections: Appendix A of PostgreSQL's documentation.
            Err(why) if why.code.as_deref() == Some("53300") => Err(Fate::Refused(why.message)),
            Err(why) => Err(Fate::Unseen(why.message)),
        },
    }
}

/// How long it took until each of [`COUNT`] webhooks was answered and enhanced.
async fn enhanced(webhooks: &Webhooks, to: &TenantId) -> Vec<Result<Duration, Fate>> {
    let sent = join_all((0..COUNT).map(|_| send(webhooks, to))).await;
    // From here on: until now nobody looked, whoever was answered first.
    let begin = Instant::now();
    let within = webhooks.application().within;
    let mut missing: Vec<String> = sent.iter().flatten().map(|(nonce, _)| nonce.clone()).collect();
    let mut seen = BTreeMap::new();
    let mut blind = None;
    while !missing.is_empty() {
        let over = begin.elapsed() > within;
        match webhooks.effects(to, &missing).await {
            Ok(effects) => {
                blind = None;
                seen.extend(effects.into_keys().map(|nonce| (nonce, begin.elapsed())));
            }
            Err(error) => blind = Some(error.to_string()),
        }
        missing.retain(|nonce| !seen.contains_key(nonce));
        if over {
            break;
        }
        sleep(PAUSE).await;
    }
    let fate = |(nonce, answered): (String, Duration)| {
        let late = || match &blind {
            Some(why) => Fate::Unseen(why.clone()),
            None => Fate::Refused(format!("not enhanced within {within:.1?}")),
        };
        seen.get(&nonce).map(|seen| answered + *seen).ok_or_else(late)
    };
    sent.into_iter().map(|sent| sent.and_then(fate)).collect()
}

/// Sends one; answers with its nonce, and how long the answer took.
async fn send(webhooks: &Webhooks, to: &TenantId) -> Result<(String, Duration), Fate> {
    let message = webhooks
        .valid(to)
        .map_err(|error| Fate::Unseen(error.to_string()))?;
    let begin = Instant::now();
    match webhooks.send(&message).await {
        Answer::Accepted(_) => Ok((message.nonce, begin.elapsed())),
        Answer::Refused(code) => Err(Fate::Refused(format!("answered {code}"))),
        // The application says that it cannot, or the ingress that none of its pods can.
        Answer::Unavailable(why) if why.starts_with("answered 503") => Err(Fate::Refused(why)),
        Answer::Unavailable(why) => Err(Fate::Unseen(why)),
    }
}

fn control(a: &TenantId, what: &str, holds: Result<String, HarnessError>) -> Control {
    Control {
        claim: format!("{a}: {what}"),
        holds: holds.map_err(|error| error.to_string()),
    }
}

/// What B saw while all of A's trouble was there, and after most of it was gone.
struct Round {
    /// Whether the trouble was real.
    trouble: Vec<Control>,
    /// Whether A's queue is as it was.
    is_drained: bool,
    meanwhile: Series,
    after: Series,
}

impl Round {
    async fn of(cx: &Context, webhooks: &Webhooks, a: &Side<'_>, b: &Side<'_>, fills: &mut usize) -> Self {
        let filled = at_quota(cx, a.tenant, fills).await;
        let at = Timestamp::now();
        let what = format!("{ENTRIES} entries in the queue {}", a.queue);
        webhooks.owe(a.tenant, &a.agent, draining(a, at), what);
        let flooded = flood(a, at).await;
        // B's webhooks go out once all is held, and it is held until they are done: were it let go before, it says so when it is released.
        let holding = a.agent.hold(&a.sql, MAX_CONNECTIONS).await;
        let meanwhile = series(webhooks, b).await;
        let held = match holding {
            Ok(holding) => {
                let all = held_all(&holding.held);
                holding.release().await.and(all)
            }
            Err(error) => Err(error),
        };
        let drained = say(a, &draining(a, at)).await;
        let is_drained = drained.is_ok();
        if is_drained {
            webhooks.paid(a.tenant);
        }
        // Until the end: what others had used may have been given back.
        let full = match filled {
            Ok(()) => refused_more(cx, a.tenant).await,
            Err(error) => Err(error),
        };
        let trouble = vec![
            control(a.tenant, "is at its quota", full),
            control(a.tenant, "its queue is flooded", flooded),
            control(
                a.tenant,
                "what is left of that is taken out again",
                drained.map(|()| "deleted".to_owned()),
            ),
            control(a.tenant, "holds every connection that it is given", held),
        ];
        let released = Instant::now();
        while matches!(connect(b).await, Err(Fate::Refused(_))) && released.elapsed() < RELEASED_WITHIN {
            sleep(PAUSE).await;
        }
        Round {
            trouble,
            is_drained,
            meanwhile,
            after: series(webhooks, b).await,
        }
    }

    fn verdict(&self, b: &TenantId, before: &Series, restarting: &Control) -> Verdict {
        let Round {
            trouble,
            meanwhile,
            after,
            ..
        } = self;
        let slowest = slowest_of(before);
        let bound = slowest * FACTOR + MORE;
        // It may be slow for another reason, or not yet be over it.
        let recovered = slowest_of(after) <= bound;
        let well = Control {
            claim: format!("{b}'s webhooks are enhanced and it gets a connection, before and after"),
            holds: well(before)
                .and_then(|()| well(after))
                .map(|()| format!("within {slowest:.1?}")),
        };
        let proof = prove(&[std::slice::from_ref(restarting), trouble].concat());
        let promised = |what: String, fate: Result<String, Fate>| Promised {
            probe: Observed {
                what,
                observation: match fate {
                    Ok(how) => Observation::Reached(how),
                    // Of trouble that was not there it does not come.
                    Err(Fate::Refused(why)) if proof.is_ok() => Observation::Denied(why),
                    Err(Fate::Refused(why) | Fate::Unseen(why)) => Observation::Broken(why),
                },
            },
            answers: well.clone(),
        };
        let mut open: Vec<Promised> = Vec::new();
        for (index, fate) in meanwhile.webhooks.iter().enumerate() {
            let what = format!("webhook {} of {COUNT} to {b} meanwhile", index + 1);
            let fate = match fate {
                Ok(took) if *took > bound => {
                    let late = format!("enhanced after {took:.1?}, expected {bound:.1?} at most");
                    // Something else may have kept it.
                    Err(if recovered {
                        Fate::Refused(late)
                    } else {
                        Fate::Unseen(late)
                    })
                }
                Ok(took) => Ok(format!("enhanced after {took:.1?}, of {bound:.1?}")),
                Err(fate) => Err(fate.clone()),
            };
            open.push(promised(what, fate));
        }
        let connection = meanwhile.connection.clone().map(|()| "given".to_owned());
        open.push(promised(
            format!("{b}'s own connection to PostgreSQL meanwhile"),
            connection,
        ));
        let mut verdict = judge(&proof, &[], &open);
        if let Verdict::Passed(evidence) = &mut verdict {
            evidence.figures = [
                ("slowest webhook before", before),
                ("slowest webhook meanwhile", meanwhile),
            ]
            .map(|(name, series)| Figure {
                name: name.to_owned(),
                value: slowest_of(series).as_secs_f64() * 1000.0,
                unit: "ms",
            })
            .to_vec();
        }
        verdict
    }
}

fn crash_loop_name(run: &RunId) -> String {
    run.object("crash-loop")
}

fn filler_name(run: &RunId, number: usize) -> String {
    run.object(&format!("fills-quota-{number}"))
}

/// A pod whose program ends at once, so that it is restarted again and again, until the run removes it. It is the slowest to begin.
async fn crash_loop(cx: &Context, tenant: &TenantId) -> Result<String, HarnessError> {
    let site = &cx.site;
    let resources = manifest::resources("1m", "50m", "4Mi", "16Mi");
    let name = crash_loop_name(&site.mark.run);
    let mut pod = manifest::inert_pod(
        &site.mark,
        &name,
        &tenant.namespace(),
        &site.settings.agent_image,
        &resources,
    );
    pod["spec"]["schedulingGates"] = json!([]);
    // No such command: exit code 2.
    pod["spec"]["containers"][0]["args"] = json!(["ends-at-once"]);
    site.ledger.create(&site.cluster.client, pod).await?;
    let pods = Api::<Pod>::namespaced(site.cluster.client.clone(), &tenant.namespace());
    let deadline = Instant::now() + RESTARTED_WITHIN;
    loop {
        let pod = within(ANSWER, format!("get pod {name}"), pods.get(&name)).await?;
        let statuses = pod
            .status
            .and_then(|status| status.container_statuses)
            .unwrap_or_default();
        let restarts = statuses.first().map_or(0, |status| status.restart_count);
        if restarts > 0 {
            return Ok(format!("restarted {restarts} time(s)"));
        }
        if Instant::now() > deadline {
            return Err(HarnessError::new(format!(
                "pod {name} was not restarted within {} s",
                RESTARTED_WITHIN.as_secs()
            )));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Pods that are never scheduled take all that is left of `limits.cpu`, until the quota refuses another: what it counts as used may yet
/// follow what ended before. They stay until the run removes them.
async fn at_quota(cx: &Context, tenant: &TenantId, fills: &mut usize) -> Result<(), HarnessError> {
    let deadline = Instant::now() + AT_QUOTA_WITHIN;
    loop {
        let full = match fill_quota(cx, tenant, fills).await {
            Ok(()) => refused_more(cx, tenant).await,
            Err(error) => Err(error),
        };
        match full {
            Err(_) if Instant::now() < deadline => sleep(quota::POLL).await,
            full => return full.map(drop),
        }
    }
}

async fn fill_quota(cx: &Context, id: &TenantId, fills: &mut usize) -> Result<(), HarnessError> {
    let (site, tenant) = (&cx.site, cx.site.tenant(id)?);
    let usage = quota::usage(&site.cluster.client, &tenant.namespace()).await?;
    let used = usage
        .of(FILLED)
        .ok_or_else(|| HarnessError::new(format!("no quota counts {}: see QUO-01", FILLED.key())))?;
    let left = FILLED.promised(tenant) - used.ceiling;
    if left <= 0 || *fills == FILLS {
        return Ok(());
    }
    let pod = manifest::inert_pod(
        &site.mark,
        &filler_name(&site.mark.run, *fills + 1),
        &tenant.namespace(),
        &site.settings.agent_image,
        &FILLED.resources(left),
    );
    site.ledger.create(&site.cluster.client, pod).await?;
    *fills += 1;
    Ok(())
}

/// That the quota refuses one more.
async fn refused_more(cx: &Context, id: &TenantId) -> Result<String, HarnessError> {
    let (site, tenant) = (&cx.site, cx.site.tenant(id)?);
    let one_more = FILLED.object(1, tenant, &site.mark, &site.settings.agent_image);
    match quota::dry_run(cx, tenant, one_more).await? {
        Err(denial) => match quota::refusal(&denial, FILLED.key()) {
            Observation::Denied(how) => Ok(how),
            Observation::Reached(why) | Observation::Broken(why) => Err(HarnessError::new(why)),
        },
        Ok(_) => Err(HarnessError::new("one more pod is admitted: see QUO-01")),
    }
}

/// Entries that are no webhooks, in the tenant's own queue, all of this moment.
async fn flood(a: &Side<'_>, at: Timestamp) -> Result<String, HarnessError> {
    let id = format!("{}-{{n}}", at.as_millisecond());
    say(a, &each_entry(a, &["XADD", &a.queue, &id, "flood", "{n}"])).await?;
    Ok(format!("{ENTRIES} entries were queued"))
}

/// Takes out of the queue what is left of them. An application that reads another one would never do so.
fn draining(a: &Side<'_>, at: Timestamp) -> RedisRequest {
    let id = format!("{}-{{n}}", at.as_millisecond());
    each_entry(a, &["XDEL", &a.queue, &id])
}

/// A command of the tenant's, once for each entry.
fn each_entry(a: &Side<'_>, args: &[&str]) -> RedisRequest {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    RedisRequest {
        commands: vec![RedisCommand {
            args,
            repeat: ENTRIES,
        }],
        ..a.redis.clone()
    }
}

async fn say(a: &Side<'_>, request: &RedisRequest) -> Result<(), HarnessError> {
    match a.agent.redis(request).await?.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(HarnessError::new(error.message)),
        None => Err(HarnessError::new("no answer")),
    }
}

/// That connections were opened until PostgreSQL gave no more.
fn held_all(held: &Held) -> Result<String, HarnessError> {
    let accepted = held.accepted;
    match &held.refused {
        // 53300, too_many_connections: Appendix A of PostgreSQL's documentation.
        Some(why) if why.code.as_deref() == Some("53300") => {
            Ok(format!("{accepted} connections, then: {}", why.message))
        }
        Some(why) => Err(HarnessError::new(format!(
            "{accepted} connections, then: {}",
            why.message
        ))),
        None => Err(HarnessError::new(format!(
            "{accepted} connections, and there are more to be had"
        ))),
    }
}

/// What two rounds say: a failure is one that was seen twice, since what is seen once may have had another cause; one round that is well
/// and undisturbed is enough beside one that was undecided.
fn both(first: Verdict, second: Verdict) -> Verdict {
    match (first, second) {
        (first @ Verdict::Failed { .. }, Verdict::Failed { .. }) => first,
        (Verdict::Failed { findings, .. }, other) | (other, Verdict::Failed { findings, .. }) => {
            let seen = findings.first().map_or("", |finding| &finding.seen);
            let more = match findings.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            let other = match other {
                Verdict::Inconclusive(cause) => format!("undecided ({})", cause.what),
                other => other.word().to_owned(),
            };
            Verdict::inconclusive(format!(
                "seen in one of two rounds, so that something else may have caused it; run again: {seen}{more}; the other round: {other}"
            ))
        }
        (Verdict::Inconclusive(cause), Verdict::Passed(mut evidence)) => {
            evidence
                .observed
                .insert(0, format!("a first round was undecided: {}", cause.what));
            Verdict::Passed(evidence)
        }
        (first, _) => first,
    }
}

fn slowest_of(series: &Series) -> Duration {
    series
        .webhooks
        .iter()
        .flatten()
        .max()
        .copied()
        .unwrap_or_default()
}

/// That nothing went wrong.
fn well(series: &Series) -> Result<(), String> {
    let fates = series.webhooks.iter().map(|fate| fate.as_ref().map(drop));
    for fate in fates.chain([series.connection.as_ref().map(drop)]) {
        if let Err(Fate::Refused(why) | Fate::Unseen(why)) = fate {
            return Err(why.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn series(fates: &[Result<u64, Fate>], connection: Result<(), Fate>) -> Series {
        Series {
            webhooks: fates
                .iter()
                .cloned()
                .map(|fate| fate.map(Duration::from_millis))
                .collect(),
            connection,
        }
    }

    fn fine() -> Series {
        series(&[Ok(100), Ok(200)], Ok(()))
    }

    fn refused() -> Fate {
        Fate::Refused("too many clients already".to_owned())
    }

    fn unseen() -> Fate {
        Fate::Unseen("the exec was cut off".to_owned())
    }

    #[rstest]
    #[case::all_well(true, fine(), fine(), fine(), "passed")]
    // 4 × 200 ms + 2 s.
    #[case::just_in_time(true, fine(), series(&[Ok(2_800)], Ok(())), fine(), "passed")]
    #[case::too_late(true, fine(), series(&[Ok(2_801)], Ok(())), fine(), "failed")]
    #[case::too_late_without_trouble(false, fine(), series(&[Ok(2_801)], Ok(())), fine(), "inconclusive")]
    #[case::slower_afterwards_than_before(true, fine(), series(&[Ok(2_801)], Ok(())), series(&[Ok(2_800)], Ok(())), "failed")]
    #[case::too_late_afterwards_too(true, fine(), series(&[Ok(2_801)], Ok(())), series(&[Ok(2_801)], Ok(())), "inconclusive")]
    #[case::not_enhanced(true, fine(), series(&[Err(refused())], Ok(())), fine(), "failed")]
    #[case::no_connection(true, fine(), series(&[Ok(100)], Err(refused())), fine(), "failed")]
    #[case::no_connection_without_trouble(false, fine(), series(&[Ok(100)], Err(refused())), fine(), "inconclusive")]
    #[case::not_enhanced_without_trouble(false, fine(), series(&[Err(refused())], Ok(())), fine(), "inconclusive")]
    #[case::no_trouble(false, fine(), fine(), fine(), "inconclusive")]
    #[case::not_seen(true, fine(), series(&[Err(unseen())], Ok(())), fine(), "inconclusive")]
    #[case::connection_not_seen(true, fine(), series(&[Ok(100)], Err(unseen())), fine(), "inconclusive")]
    #[case::unwell_before(true, series(&[Err(refused())], Ok(())), series(&[Err(refused())], Ok(())), fine(), "inconclusive")]
    #[case::unwell_after(true, fine(), series(&[Err(refused())], Ok(())), series(&[Ok(1)], Err(refused())), "inconclusive")]
    fn what_b_suffers_counts_where_it_was_well_before_and_after(
        #[case] real: bool,
        #[case] before: Series,
        #[case] meanwhile: Series,
        #[case] after: Series,
        #[case] expected: &str,
    ) {
        assert_eq!(round(real, meanwhile, after, &before).word(), expected);
    }

    fn round(real: bool, meanwhile: Series, after: Series, before: &Series) -> Verdict {
        let control = |claim: &str, holds: bool| Control {
            claim: claim.to_owned(),
            holds: match holds {
                true => Ok("so it is".to_owned()),
                false => Err("it is not".to_owned()),
            },
        };
        let round = Round {
            trouble: vec![control("a is at its quota", real)],
            is_drained: true,
            meanwhile,
            after,
        };
        let b = TenantId::try_from("b").unwrap();
        round.verdict(&b, before, &control("a pod restarts in a loop", true))
    }

    #[rstest]
    #[case::suffered_twice("late", "late", "failed")]
    #[case::once_at_first("late", "fine", "inconclusive")]
    #[case::once_at_last("unseen", "late", "inconclusive")]
    #[case::once_and_then_unseen("late", "unseen", "inconclusive")]
    #[case::well_at_last("unseen", "fine", "passed")]
    #[case::seen_neither_time("unseen", "unseen", "inconclusive")]
    fn a_failure_is_seen_twice(#[case] first: &str, #[case] second: &str, #[case] expected: &str) {
        let verdict = |what| {
            let meanwhile = match what {
                "late" => series(&[Ok(2_801)], Ok(())),
                "unseen" => series(&[Err(unseen())], Ok(())),
                _ => fine(),
            };
            round(true, meanwhile, fine(), &fine())
        };
        assert_eq!(both(verdict(first), verdict(second)).word(), expected);
    }

    #[rstest]
    #[case::all(Some(("53300", 10)), true)]
    #[case::more_to_be_had(None, false)]
    #[case::another_error(Some(("57P03", 3)), false)]
    fn connections_are_all_held_where_the_next_was_refused(
        #[case] refused: Option<(&str, usize)>,
        #[case] expected: bool,
    ) {
        let held = Held {
            accepted: refused.map_or(MAX_CONNECTIONS, |(_, count)| count),
            after_ms: 300,
            refused: refused.map(|(code, _)| probe::protocol::Unconnected {
                ending: probe::protocol::Ending::Reached,
                code: Some(code.to_owned()),
                message: "no".to_owned(),
            }),
        };
        assert_eq!(held_all(&held).is_ok(), expected);
    }
}
