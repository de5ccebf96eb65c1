//! Webhooks that must be refused, between others that must be accepted: what they differ in is what refuses them. A refused webhook must
//! leave nothing either; that means something once one that came after it has been enhanced.

use super::{Answer, Logs, Message, Webhooks};
use crate::error::HarnessError;
use crate::verdict::{Control, Observation, Observed};
use futures::future::join_all;
use provisioner::TenantId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What overtakes a webhook that was enhanced gets so long.
const SETTLE: Duration = Duration::from_millis(500);

/// A webhook that must be refused.
#[derive(Debug, Clone)]
pub struct Forged {
    /// What is wrong with it, as a reader would say it.
    pub what: String,
    /// The webhook.
    pub message: Message,
    /// The nonces under which it might be stored or logged.
    pub traces: Vec<String>,
}

impl Forged {
    /// One that would be found under its own nonce.
    pub fn new(what: impl Into<String>, message: Message) -> Self {
        Forged {
            what: what.into(),
            traces: vec![message.nonce.clone()],
            message,
        }
    }

    /// The same, also to be looked for under this nonce.
    #[must_use]
    pub fn or_under(mut self, nonce: String) -> Self {
        self.traces.push(nonce);
        self
    }
}

/// What was seen.
pub struct Seen {
    /// What gives it a meaning.
    pub controls: Vec<Control>,
    /// Of each forged webhook.
    pub probes: Vec<Observed>,
}

/// Sends forged webhooks between valid ones to these tenants.
///
/// # Errors
/// A valid webhook cannot be made.
pub async fn refused(
    webhooks: &Webhooks,
    valid: &[&TenantId],
    forged: Vec<Forged>,
) -> Result<Seen, HarnessError> {
    join_all(valid.iter().map(|tenant| webhooks.awake(tenant))).await;
    let mut accepted = accept(webhooks, valid, "before").await?;
    let sent = forged.iter().map(|forged| webhooks.send(&forged.message));
    let answers = join_all(sent).await;
    accepted.extend(accept(webhooks, valid, "after").await?);
    let mut controls = enhanced(webhooks, &accepted).await;
    tokio::time::sleep(SETTLE).await;
    let traces: Vec<String> = forged
        .iter()
        .flat_map(|forged| forged.traces.iter().cloned())
        .collect();
    let (stored, more) = stored(webhooks, &traces).await;
    let logs = webhooks.logs().await;
    controls.extend(more);
    controls.push(readable(webhooks, &logs));
    let probes = forged.iter().zip(answers).map(|(forged, answer)| Observed {
        what: forged.what.clone(),
        observation: observe(&answer, effect(&forged.traces, &stored, &logs)),
    });
    Ok(Seen {
        probes: probes.collect(),
        controls,
    })
}

/// A valid webhook, and what became of it.
struct Valid {
    tenant: TenantId,
    nonce: String,
    when: &'static str,
    answer: Answer,
}

/// Sends a valid webhook to each of these tenants.
async fn accept(
    webhooks: &Webhooks,
    tenants: &[&TenantId],
    when: &'static str,
) -> Result<Vec<Valid>, HarnessError> {
    let messages = tenants.iter().map(|tenant| webhooks.valid(tenant));
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    let answers = join_all(messages.iter().map(|message| webhooks.send(message))).await;
    let valid = messages.into_iter().zip(answers).map(|(message, answer)| Valid {
        tenant: message.to,
        nonce: message.nonce,
        when,
        answer,
    });
    Ok(valid.collect())
}

/// That valid webhooks were accepted, and are enhanced for somebody: what leaves a trace with nobody could be hidden from us. Whose they
/// become is for other checks to say.
async fn enhanced(webhooks: &Webhooks, valid: &[Valid]) -> Vec<Control> {
    let within = webhooks.application().within;
    let accepted = valid.iter().filter(|valid| valid.answer.is_accepted());
    let nonces: Vec<String> = accepted.map(|valid| valid.nonce.clone()).collect();
    let seen = webhooks.await_anywhere(&nonces, Instant::now() + within).await;
    let control = |valid: &Valid| {
        let seen = seen.as_ref().map(|seen| seen.contains_key(&valid.nonce));
        control(
            &valid.tenant,
            valid.when,
            &valid.answer,
            seen.map_err(Clone::clone),
            within,
        )
    };
    valid.iter().map(control).collect()
}

/// A valid webhook as a control.
pub(super) fn control(
    tenant: &TenantId,
    when: &str,
    answer: &Answer,
    enhanced: Result<bool, HarnessError>,
    within: Duration,
) -> Control {
    let holds = match (answer, enhanced) {
        (Answer::Accepted(_), Ok(true)) => Ok(format!("{answer}, and enhanced")),
        (Answer::Accepted(_), Ok(false)) => Err(format!(
            "{answer}, and not enhanced within {} s",
            within.as_secs()
        )),
        (Answer::Accepted(_), Err(error)) => Err(format!(
            "{answer}, and whether it was enhanced cannot be seen: {error}"
        )),
        _ => Err(answer.to_string()),
    };
    Control {
        claim: format!("a webhook signed for {tenant} is accepted {when}"),
        holds,
    }
}

/// Who sees one of these webhooks enhanced: by nonce, with that each tenant could look at all.
pub(super) async fn stored(
    webhooks: &Webhooks,
    nonces: &[String],
) -> (BTreeMap<String, Vec<TenantId>>, Vec<Control>) {
    let looked = webhooks
        .tenants()
        .map(|tenant| async move { (tenant, webhooks.effects(tenant, nonces).await) });
    let (mut stored, mut controls) = (BTreeMap::<String, Vec<TenantId>>::new(), Vec::new());
    for (tenant, effects) in join_all(looked).await {
        match effects {
            Ok(effects) => {
                for nonce in effects.into_keys() {
                    stored.entry(nonce).or_default().push(tenant.clone());
                }
            }
            Err(error) => controls.push(Control {
                claim: format!("{tenant} sees what is enhanced for it"),
                holds: Err(error.what),
            }),
        }
    }
    (stored, controls)
}

/// That the logs of all tenants are there to be read.
pub(super) fn readable(webhooks: &Webhooks, logs: &Logs) -> Control {
    let namespaces: Vec<String> = webhooks.tenants().map(TenantId::namespace).collect();
    logs.readable(namespaces.iter().map(String::as_str))
}

/// What shows that one of these was enhanced all the same.
fn effect(traces: &[String], stored: &BTreeMap<String, Vec<TenantId>>, logs: &Logs) -> Option<String> {
    traces.iter().find_map(|nonce| {
        let of = stored.get(nonce).and_then(|tenants| tenants.first());
        let line = || logs.said_enhanced(nonce).next();
        match of {
            Some(tenant) => Some(format!("enhanced for {tenant}")),
            None => line().map(|line| format!("logged as enhanced by {line}")),
        }
    })
}

/// What a forged webhook's fate says. Only an answer that speaks of who sent it is a denial: the message was well formed.
pub(super) fn observe(answer: &Answer, effect: Option<String>) -> Observation {
    match (answer, effect) {
        (answer, Some(effect)) => Observation::Reached(format!("{answer}, and {effect}")),
        (Answer::Accepted(_), None) => Observation::Reached(answer.to_string()),
        (answer, None) if answer.is_unauthorized() => Observation::Denied(answer.to_string()),
        (Answer::Refused(_), None) => Observation::Broken(format!(
            "{answer}: refused for another reason than its signature (401 or 403)"
        )),
        (Answer::Unavailable(why), None) => Observation::Broken(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{judge_denied, prove};
    use rstest::rstest;

    fn tenant() -> TenantId {
        TenantId::try_from("a").unwrap()
    }
    fn held() -> Control {
        control(
            &tenant(),
            "before",
            &Answer::Accepted(202),
            Ok(true),
            Duration::from_secs(10),
        )
    }

    #[rstest]
    #[case::refused(Answer::Refused(401), None, "passed")]
    #[case::forbidden(Answer::Refused(403), None, "passed")]
    #[case::accepted(Answer::Accepted(202), None, "failed")]
    #[case::refused_and_enhanced_all_the_same(Answer::Refused(401), Some("enhanced for a"), "failed")]
    #[case::no_answer_and_enhanced(Answer::Unavailable("no answer".into()), Some("enhanced for a"), "failed")]
    #[case::refused_for_its_form(Answer::Refused(400), None, "inconclusive")]
    #[case::refused_for_its_media_type(Answer::Refused(415), None, "inconclusive")]
    #[case::refused_for_its_content(Answer::Refused(422), None, "inconclusive")]
    #[case::no_route(Answer::of(http::StatusCode::NOT_FOUND), None, "inconclusive")]
    #[case::too_many(Answer::of(http::StatusCode::TOO_MANY_REQUESTS), None, "inconclusive")]
    #[case::server_error(Answer::of(http::StatusCode::INTERNAL_SERVER_ERROR), None, "inconclusive")]
    #[case::timed_out(Answer::Unavailable("no answer: operation timed out".into()), None, "inconclusive")]
    fn only_a_refusal_for_its_signature_that_leaves_nothing_passes(
        #[case] answer: Answer,
        #[case] effect: Option<&str>,
        #[case] word: &str,
    ) {
        let observation = observe(&answer, effect.map(str::to_owned));
        let probe = Observed {
            what: "unsigned".into(),
            observation,
        };
        assert_eq!(judge_denied(&prove(&[held()]), &[probe]).word(), word);
    }

    #[rstest]
    #[case::accepted_and_enhanced(Answer::Accepted(202), Ok(true), None)]
    #[case::never_enhanced(Answer::Accepted(202), Ok(false), Some("not enhanced within 10 s"))]
    #[case::nobody_can_look(
        Answer::Accepted(202),
        Err(HarnessError::new("no agent")),
        Some("cannot be seen: no agent")
    )]
    #[case::not_authenticated(Answer::Refused(401), Ok(false), Some("answered 401"))]
    #[case::server_error(Answer::of(http::StatusCode::BAD_GATEWAY), Ok(false), Some("answered 502"))]
    fn a_refusal_counts_only_beside_what_is_accepted_and_enhanced(
        #[case] answer: Answer,
        #[case] enhanced: Result<bool, HarnessError>,
        #[case] broken: Option<&str>,
    ) {
        let control = control(&tenant(), "after", &answer, enhanced, Duration::from_secs(10));
        match (&control.holds, broken) {
            (Ok(_), None) => {}
            (Err(why), Some(expected)) => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
        let probe = Observed {
            what: "unsigned".into(),
            observation: observe(&Answer::Refused(401), None),
        };
        let word = if broken.is_some() {
            "inconclusive"
        } else {
            "passed"
        };
        assert_eq!(judge_denied(&prove(&[held(), control]), &[probe]).word(), word);
    }

    #[test]
    fn an_effect_is_what_is_stored_for_anybody_or_logged_as_enhanced_anywhere() {
        let line = |nonce: &str, enhanced: bool| super::super::Line {
            namespace: "database".into(),
            pod: "p".into(),
            by_worker: false,
            nonces: [nonce.to_owned()].into(),
            enhanced: enhanced.then(|| nonce.to_owned()),
        };
        let logs = Logs {
            lines: vec![line("logged", true), line("mentioned", false)],
            ..Logs::default()
        };
        let stored = BTreeMap::from([("stored".to_owned(), vec![tenant()])]);
        let seen = |nonce: &str| effect(&[nonce.to_owned()], &stored, &logs);
        assert_eq!(seen("stored").unwrap(), "enhanced for a");
        assert_eq!(
            seen("logged").unwrap(),
            "logged as enhanced by pod p in namespace database"
        );
        assert_eq!((seen("mentioned"), seen("nothing")), (None, None));
    }
}
