use super::*;
use crate::webhook::{Effects, Line, Logs};
use rstest::rstest;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A batch of two webhooks to each of two tenants, `a-0` to `b-1`, whose workers are `worker-a` and `worker-b`.
pub(in crate::check) struct Batch {
    sent: Vec<Delivery>,
    seen: BTreeMap<TenantId, Result<Effects, HarnessError>>,
    logs: Logs,
}

pub(in crate::check) fn id(text: &str) -> TenantId {
    TenantId::try_from(text).unwrap()
}

fn line(namespace: &str, pod: &str, nonce: &str, enhanced: bool) -> Line {
    Line {
        namespace: namespace.into(),
        pod: pod.into(),
        by_worker: pod.starts_with("worker"),
        nonces: BTreeSet::from([nonce.to_owned()]),
        enhanced: enhanced.then(|| nonce.to_owned()),
    }
}

fn pod(name: &str, app: &str) -> Image {
    Image {
        pod: name.into(),
        labels: BTreeMap::from([("app".into(), app.into())]),
        ids: vec![format!("registry/{app}@sha256:0")],
        ready: true,
    }
}

impl Batch {
    /// One in which all went as it must.
    pub(in crate::check) fn whole() -> Self {
        let mut batch = Batch {
            sent: Vec::new(),
            seen: BTreeMap::new(),
            logs: Logs::default(),
        };
        for nth in 0..2 {
            for tenant in ["a", "b"] {
                batch.sent.push(Delivery {
                    tenant: id(tenant),
                    nonce: format!("{tenant}-{nth}"),
                    answer: Answer::Accepted(202),
                });
            }
        }
        for tenant in ["a", "b"] {
            batch.seen.insert(id(tenant), Ok(Effects::new()));
            let namespace = format!("ai-agents-{tenant}");
            let pods = vec![
                pod(&format!("api-{tenant}"), "ai-agents-api"),
                pod(&format!("worker-{tenant}"), "w"),
            ];
            batch.logs.pods.insert(namespace.clone(), pods);
            batch.logs.read.insert(namespace, 2);
            for nth in 0..2 {
                let nonce = format!("{tenant}-{nth}");
                batch = batch.enhanced_by(tenant, tenant, &nonce);
                batch = batch.logged(&format!("ai-agents-{tenant}"), &format!("api-{tenant}"), &nonce);
            }
        }
        for place in ["database", "ingress-nginx", "default"] {
            batch.logs.read.insert(place.into(), 1);
        }
        batch
    }

    /// `worker`'s worker enhances and logs it, and it is stored for `owner`.
    pub(in crate::check) fn enhanced_by(mut self, worker: &str, owner: &str, nonce: &str) -> Self {
        let pod = format!("worker-{worker}");
        if let Some(Ok(seen)) = self.seen.get_mut(&id(owner)) {
            seen.entry(nonce.to_owned()).or_default().push(Some(pod.clone()));
        }
        let namespace = format!("ai-agents-{worker}");
        self.logs.lines.push(line(&namespace, &pod, nonce, true));
        self
    }

    /// A log names it.
    pub(in crate::check) fn logged(mut self, namespace: &str, pod: &str, nonce: &str) -> Self {
        self.logs.lines.push(line(namespace, pod, nonce, false));
        self
    }

    /// Nobody enhances it.
    pub(in crate::check) fn lost(mut self, nonce: &str) -> Self {
        for seen in self.seen.values_mut().flatten() {
            seen.remove(nonce);
        }
        self.logs
            .lines
            .retain(|line| line.enhanced.as_deref() != Some(nonce));
        self
    }

    /// It is stored, and no log names it.
    pub(in crate::check) fn unlogged(mut self, nonce: &str) -> Self {
        self.logs.lines.retain(|line| !line.nonces.contains(nonce));
        self
    }

    /// What was answered to it.
    pub(in crate::check) fn answered(mut self, nonce: &str, answer: &Answer) -> Self {
        for each in self.sent.iter_mut().filter(|each| each.nonce == nonce) {
            each.answer = answer.clone();
        }
        self.lost(nonce).unlogged(nonce)
    }

    /// A tenant sees it too, as it is stored.
    pub(in crate::check) fn also_seen_by(mut self, tenant: &str, nonce: &str) -> Self {
        if let Some(Ok(seen)) = self.seen.get_mut(&id(tenant)) {
            seen.insert(nonce.to_owned(), vec![None]);
        }
        self
    }

    /// A tenant cannot look.
    pub(in crate::check) fn blind(mut self, tenant: &str) -> Self {
        self.seen
            .insert(id(tenant), Err(HarnessError::new("no session with PostgreSQL")));
        self
    }

    /// A log could not be read.
    pub(in crate::check) fn unread(mut self, namespace: &str) -> Self {
        let gaps = vec![format!("read the log of a pod in {namespace}: 403")];
        self.logs.gaps.insert(namespace.into(), gaps);
        self
    }

    /// A tenant's worker is not ready.
    pub(in crate::check) fn asleep(mut self, tenant: &str) -> Self {
        for pod in self.logs.pods.get_mut(&format!("ai-agents-{tenant}")).unwrap() {
            pod.ready = false;
        }
        self
    }

    pub(in crate::check) fn done(self) -> Deliveries {
        Deliveries {
            sent: self.sent,
            eyes: Some("own credentials"),
            seen: self.seen,
            logs: Arc::new(self.logs),
            worker: BTreeMap::from([("app".into(), "w".into())]),
            within: Duration::from_secs(10),
        }
    }
}

fn all(batch: Batch, change: impl Fn(Batch, &str) -> Batch, tenant: &str) -> Batch {
    (0..2).fold(batch, |batch, nth| change(batch, &format!("{tenant}-{nth}")))
}

fn refused(code: u16) -> Answer {
    Answer::of(http::StatusCode::from_u16(code).unwrap())
}

#[rstest]
#[case::whole(|batch| batch, "passed", "2 of 2")]
#[case::seen_by_another(|batch: Batch| batch.also_seen_by("b", "a-1"), "failed", "sight of webhooks to a by b (own credentials)")]
#[case::taken_by_anothers_worker(|batch: Batch| batch.lost("a-0").enhanced_by("b", "b", "a-0"), "failed", "mention of webhooks to a in logs of ai-agents-b")]
#[case::in_anothers_log(|batch: Batch| batch.logged("ai-agents-b", "api-b", "a-0"), "failed", "pod api-b in namespace ai-agents-b")]
#[case::in_the_shared_log(|batch: Batch| batch.logged("database", "postgresql-0", "a-0"), "failed", "in logs of database")]
#[case::in_the_default_log(|batch: Batch| batch.logged("default", "collector", "a-0"), "failed", "in logs of default")]
#[case::never_enhanced(|batch: Batch| batch.lost("a-0"), "failed", "not within 10 s: 1 of them, first a-0")]
#[case::one_is_refused(|batch: Batch| batch.answered("a-0", &refused(401)), "failed", "1 of 2; a-0: answered 401")]
#[case::leaked_though_a_log_is_missing(|batch: Batch| batch.unread("default").logged("database", "p", "a-0"), "failed", "in logs of database")]
#[case::its_worker_is_not_ready(|batch: Batch| batch.lost("a-0").asleep("a"), "inconclusive", "no pod with the labels")]
#[case::all_are_refused(|batch| all(batch, |batch, nonce| batch.answered(nonce, &refused(401)), "a"), "inconclusive", "answered 401")]
#[case::server_errors(|batch| all(batch, |batch, nonce| batch.answered(nonce, &refused(503)), "a"), "inconclusive", "answered 503")]
#[case::one_timed_out(|batch: Batch| batch.answered("a-0", &Answer::Unavailable("no answer: timed out".into())), "inconclusive", "timed out")]
#[case::logged_nowhere(|batch| all(batch, Batch::unlogged, "a"), "inconclusive", "no line of its workers says so")]
#[case::a_log_is_missing(|batch: Batch| batch.unread("default"), "inconclusive", "read the log of a pod in default")]
#[case::it_cannot_look(|batch: Batch| batch.blind("a"), "inconclusive", "no session with PostgreSQL")]
#[case::the_other_cannot_look(|batch: Batch| batch.blind("b"), "inconclusive", "no session with PostgreSQL")]
#[case::the_others_show_nothing(|batch| all(batch, Batch::lost, "b"), "inconclusive", "0 of 2 are enhanced")]
fn a_webhook_is_its_tenants_alone(
    #[case] change: fn(Batch) -> Batch,
    #[case] word: &str,
    #[case] text: &str,
) {
    let verdict = judge(&id("a"), &change(Batch::whole()).done());
    assert_eq!(verdict.word(), word, "{verdict:?}");
    assert!(format!("{verdict:?}").contains(text), "{verdict:?}");
}

#[test]
fn the_images_under_test_are_named() {
    let passed = judge(&id("a"), &Batch::whole().done());
    let Verdict::Passed(evidence) = passed else {
        panic!("{passed:?}")
    };
    for line in [
        "under test: pod api-a, image registry/ai-agents-api@sha256:0",
        "under test: pod worker-a, image registry/w@sha256:0",
    ] {
        assert!(evidence.observed.iter().any(|seen| seen == line), "{evidence:?}");
    }
    let failed = judge(&id("a"), &Batch::whole().also_seen_by("b", "a-0").done());
    assert!(format!("{failed:?}").contains("under test: pod api-a"));
}

#[test]
fn where_logs_alone_show_it_nobody_is_asked() {
    let mut batch = Batch::whole().done();
    batch.eyes = None;
    let Verdict::Passed(evidence) = judge(&id("a"), &batch) else {
        panic!("expected a pass")
    };
    assert!(!evidence.observed.iter().any(|line| line.contains("sight of")));
}
