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
use provisioner::TenantId;
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
    how: "Webhooks to B are sent and followed until they are enhanced, before, while and after A is at its quota, a pod of it has begun to restart in a loop, its queue is flooded and it holds every connection to PostgreSQL that it is given. All of B's must be enhanced meanwhile, within a bound that follows from how long B took before, and B must get a connection of its own. Controls: A's trouble was real (the quota refused a pod, the pod was restarted, the entries were queued, a further connection was refused); B's webhooks were enhanced before and after. What B suffers is a failure where it does so a second time.",
    remedy: "Give each tenant's role a connection limit (sharedServices.postgresql.connectionLimit), its namespace a quota, its containers CPU and memory limits, and see that B's worker does not wait for anything of A's.",
    schedule: Schedule::Exclusive,
    timeout: Duration::from_secs(90),
};

/// Webhooks to B before, meanwhile and after.
const BEFORE: usize = 4;
const MEANWHILE: usize = 8;
const AFTER: usize = 2;
/// B may take so many times as long as the slowest of its webhooks before, and so much more: the machine has more to do.
const FACTOR: u32 = 4;
const MORE: Duration = Duration::from_secs(2);
/// Entries with which A's queue is flooded.
const ENTRIES: usize = 2_000;
/// How often it is looked what became of B's webhooks.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a pod that ends at once may take to be started a second time.
const RESTARTED_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take until the quota counts all as used.
const AT_QUOTA_WITHIN: Duration = Duration::from_secs(5);
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

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move {
            let (a, b) = subject.pair()?;
            let webhooks = cx.stage.webhooks().await?;
            let [a, b] = [Side::of(cx, a).await?, Side::of(cx, b).await?];
            webhooks.awake(b.tenant).await;
            let before = series(&webhooks, &b, BEFORE).await;
            let _alone = quota::hold(cx, a.tenant).await?;
            let lasting = lasting_trouble(cx, a.tenant).await;
            let first = Round::of(&webhooks, &a, &b, &lasting).await;
            let verdict = first.verdict(b.tenant, &before);
            if !(matches!(verdict, Verdict::Failed { .. }) && prove(&first.trouble).is_ok()) {
                return Ok(verdict);
            }
            // A machine that was busy for a moment does that too, and would not do it again.
            let second = Round::of(&webhooks, &a, &b, &lasting).await;
            Ok(confirmed(verdict, second.verdict(b.tenant, &before)))
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

async fn series(webhooks: &Webhooks, side: &Side<'_>, count: usize) -> Series {
    // First: it is looked for the webhooks by connections too, for as long as it takes.
    let connection = match side.agent.sql_session(&side.sql, Again::Once).await {
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
    };
    Series {
        webhooks: enhanced(webhooks, side.tenant, count).await,
        connection,
    }
}

/// How long it took until each of so many webhooks was enhanced.
async fn enhanced(webhooks: &Webhooks, to: &TenantId, count: usize) -> Vec<Result<Duration, Fate>> {
    let begin = Instant::now();
    let sent = join_all((0..count).map(|_| send(webhooks, to))).await;
    let accepted: Vec<String> = sent.iter().flatten().cloned().collect();
    let mut took = BTreeMap::new();
    let mut missing = accepted.clone();
    let mut blind = None;
    while !missing.is_empty() && begin.elapsed() < webhooks.application().within {
        match webhooks.effects(to, &missing).await {
            Ok(effects) => took.extend(effects.into_keys().map(|nonce| (nonce, begin.elapsed()))),
            Err(error) => blind = Some(error.to_string()),
        }
        missing.retain(|nonce| !took.contains_key(nonce));
        sleep(PAUSE).await;
    }
    let fate = |nonce: String| {
        let late = || match &blind {
            Some(why) => Fate::Unseen(why.clone()),
            None => Fate::Refused(format!(
                "not enhanced within {:.1?}",
                webhooks.application().within
            )),
        };
        took.get(&nonce).copied().ok_or_else(late)
    };
    sent.into_iter().map(|sent| sent.and_then(fate)).collect()
}

/// Sends one; answers with its nonce.
async fn send(webhooks: &Webhooks, to: &TenantId) -> Result<String, Fate> {
    let message = webhooks
        .valid(to)
        .map_err(|error| Fate::Unseen(error.to_string()))?;
    match webhooks.send(&message).await {
        Answer::Accepted(_) => Ok(message.nonce),
        Answer::Refused(code) => Err(Fate::Refused(format!("answered {code}"))),
        // The application says that it cannot; whoever else says something is in the way.
        Answer::Unavailable(why) if why.contains("503") => Err(Fate::Refused(why)),
        Answer::Unavailable(why) => Err(Fate::Unseen(why)),
    }
}

/// Trouble that stays until the run removes what it made: the check runs last. Answers whether it is real.
async fn lasting_trouble(cx: &Context, a: &TenantId) -> Vec<Control> {
    let looping = Entry {
        kind: Kind::Pod,
        namespace: Some(a.namespace()),
        name: cx.site.mark.run.object("crash-loop"),
    };
    // The slowest to begin: B is not looked at before the pod has been restarted.
    let restarting = match crash_loop(cx, a, &looping).await {
        Ok(()) => restarted(cx, a, &looping).await,
        Err(error) => Err(error),
    };
    vec![
        control(a, "a pod restarts in a loop", restarting),
        control(a, "is at its quota", at_quota(cx, a).await),
    ]
}

fn control(a: &TenantId, what: &str, holds: Result<String, HarnessError>) -> Control {
    Control {
        claim: format!("{a}: {what}"),
        holds: holds.map_err(|error| error.to_string()),
    }
}

/// What B saw while all of A's trouble was there, and after some of it was gone.
struct Round {
    /// Whether the trouble was real.
    trouble: Vec<Control>,
    meanwhile: Series,
    after: Series,
}

impl Round {
    async fn of(webhooks: &Webhooks, a: &Side<'_>, b: &Side<'_>, lasting: &[Control]) -> Self {
        let at = Timestamp::now();
        let what = format!("{ENTRIES} entries in the queue {}", a.queue);
        webhooks.owe(a.tenant, &a.agent, draining(a, at), what);
        let flooded = flood(a, at).await;
        // B's webhooks go out once all is held, and it is held until they are done, however long either takes.
        let holding = a.agent.hold(&a.sql, MAX_CONNECTIONS).await;
        let meanwhile = series(webhooks, b, MEANWHILE).await;
        let held = match holding {
            Ok(holding) => {
                let all = held_all(&holding.held);
                holding.release().await.and(all)
            }
            Err(error) => Err(error),
        };
        let drained = say(a, &draining(a, at)).await;
        if drained.is_ok() {
            webhooks.paid(a.tenant);
        }
        let drained = drained.map(|()| "deleted".to_owned());
        let mut trouble = lasting.to_vec();
        trouble.extend([
            control(a.tenant, "its queue is flooded", flooded),
            control(a.tenant, "what is left of that is taken out again", drained),
            control(a.tenant, "holds every connection that it is given", held),
        ]);
        Round {
            trouble,
            meanwhile,
            after: series(webhooks, b, AFTER).await,
        }
    }

    fn verdict(&self, b: &TenantId, before: &Series) -> Verdict {
        let Round {
            trouble,
            meanwhile,
            after,
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
        let promised = |what: String, fate: Result<String, Fate>| Promised {
            probe: Observed {
                what,
                observation: match fate {
                    Ok(how) => Observation::Reached(how),
                    Err(Fate::Refused(why)) => Observation::Denied(why),
                    Err(Fate::Unseen(why)) => Observation::Broken(why),
                },
            },
            answers: well.clone(),
        };
        let proof = prove(trouble);
        let mut open: Vec<Promised> = Vec::new();
        for (index, fate) in meanwhile.webhooks.iter().enumerate() {
            let what = format!("webhook {} of {MEANWHILE} to {b} meanwhile", index + 1);
            let fate = match fate {
                Ok(took) if *took > bound => {
                    let late = format!("enhanced after {took:.1?}, expected {bound:.1?} at most");
                    // Something else may have kept it.
                    Err(if proof.is_ok() && recovered {
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

/// A pod whose program ends at once.
async fn crash_loop(cx: &Context, tenant: &TenantId, entry: &Entry) -> Result<(), HarnessError> {
    let site = &cx.site;
    let resources = manifest::resources("1m", "50m", "4Mi", "16Mi");
    let mut pod = manifest::inert_pod(
        &site.mark,
        &entry.name,
        &tenant.namespace(),
        &site.settings.agent_image,
        &resources,
    );
    pod["spec"]["schedulingGates"] = json!([]);
    // No such command: exit code 2.
    pod["spec"]["containers"][0]["args"] = json!(["ends-at-once"]);
    site.ledger.create(&site.cluster.client, pod).await.map(drop)
}

async fn restarted(cx: &Context, tenant: &TenantId, entry: &Entry) -> Result<String, HarnessError> {
    let pods = Api::<Pod>::namespaced(cx.site.cluster.client.clone(), &tenant.namespace());
    let deadline = Instant::now() + RESTARTED_WITHIN;
    loop {
        let pod = within(ANSWER, format!("get {entry}"), pods.get(&entry.name)).await?;
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
                "{entry} was not restarted within {} s",
                RESTARTED_WITHIN.as_secs()
            )));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Pods that are never scheduled take all that is left of `limits.cpu`, until the quota refuses another: what it counts as used may yet
/// follow what ended before.
async fn at_quota(cx: &Context, tenant: &TenantId) -> Result<String, HarnessError> {
    let deadline = Instant::now() + AT_QUOTA_WITHIN;
    let mut pods = 0;
    loop {
        pods += 1;
        match fill_quota(cx, tenant, pods).await {
            Err(_) if Instant::now() < deadline => sleep(quota::POLL).await,
            ended => return ended,
        }
    }
}

async fn fill_quota(cx: &Context, id: &TenantId, number: usize) -> Result<String, HarnessError> {
    let (site, tenant) = (&cx.site, cx.site.tenant(id)?);
    let cpu = Dimension::LimitsCpu;
    let usage = quota::usage(&site.cluster.client, &tenant.namespace()).await?;
    let used = usage
        .of(cpu)
        .ok_or_else(|| HarnessError::new(format!("no quota counts {}: see QUO-01", cpu.key())))?;
    let left = cpu.promised(tenant) - used.ceiling;
    if left > 0 {
        let pod = manifest::inert_pod(
            &site.mark,
            &site.mark.run.object(&format!("fills-quota-{number}")),
            &tenant.namespace(),
            &site.settings.agent_image,
            &cpu.resources(left),
        );
        site.ledger.create(&site.cluster.client, pod).await?;
    }
    let one_more = cpu.object(1, tenant, &site.mark, &site.settings.agent_image);
    match quota::dry_run(cx, tenant, one_more).await? {
        Err(denial) => match quota::refusal(&denial, cpu.key()) {
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

/// A failure that was seen twice. One that was not may have had another cause.
fn confirmed(first: Verdict, second: Verdict) -> Verdict {
    match (first, second) {
        (Verdict::Failed { findings, .. }, second) if !matches!(second, Verdict::Failed { .. }) => {
            let seen: Vec<&str> = findings.iter().map(|finding| finding.seen.as_str()).collect();
            Verdict::inconclusive(format!(
                "seen once, and {} when the same was done again, so that something else may have kept them; run again: {}",
                second.word(),
                seen.join("; ")
            ))
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
    #[case::no_connection_whatever_the_trouble(false, fine(), series(&[Ok(100)], Err(refused())), fine(), "failed")]
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
        let control = Control {
            claim: "a is at its quota".to_owned(),
            holds: if real {
                Ok("refused".to_owned())
            } else {
                Err("admitted".to_owned())
            },
        };
        let b = TenantId::try_from("b").unwrap();
        let round = Round {
            trouble: vec![control],
            meanwhile,
            after,
        };
        assert_eq!(round.verdict(&b, &before).word(), expected);
    }

    #[rstest]
    #[case::seen_twice(series(&[Ok(2_801)], Ok(())), "failed")]
    #[case::well_the_second_time(fine(), "inconclusive")]
    #[case::not_seen_the_second_time(series(&[Err(unseen())], Ok(())), "inconclusive")]
    fn what_b_suffers_is_seen_twice(#[case] second: Series, #[case] expected: &str) {
        let b = TenantId::try_from("b").unwrap();
        let verdict = |meanwhile| {
            let trouble = vec![Control {
                claim: "a is at its quota".to_owned(),
                holds: Ok("refused".to_owned()),
            }];
            let round = Round {
                trouble,
                meanwhile,
                after: fine(),
            };
            round.verdict(&b, &fine())
        };
        let first = verdict(series(&[Ok(2_801)], Ok(())));
        assert_eq!(first.word(), "failed");
        assert_eq!(confirmed(first, verdict(second)).word(), expected);
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
