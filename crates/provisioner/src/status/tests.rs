use super::*;
use crate::ready::Reason;
use rstest::rstest;
use serde_json::{Value, json};

fn standing(deleting: bool) -> Standing {
    let mut namespace: Value = json!({"metadata": {
        "name": "ai-agents-acme",
        "labels": {"tenant": "acme"},
        "annotations": {"ai-agents-platform/tier": "premium"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }});
    if deleting {
        namespace["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let quota = json!({
        "spec": {"hard": {"pods": "10", "limits.cpu": "4"}},
        "status": {"hard": {"pods": "10", "limits.cpu": "4"}, "used": {"pods": "2", "limits.cpu": "1"}},
    });
    let deployment = json!({
        "metadata": {"name": "ai-agents-api"},
        "spec": {"replicas": 2, "selector": {}, "template": {}},
        "status": {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1},
    });
    list::standing(
        &serde_json::from_value(namespace).unwrap(),
        &[serde_json::from_value(quota).unwrap()],
        &[serde_json::from_value(deployment).unwrap()],
    )
    .unwrap()
}

fn missing() -> Missing {
    Missing {
        object: ObjectRef {
            kind: "Deployment".to_owned(),
            name: "ai-agents-api".to_owned(),
            namespace: Some("ai-agents-acme".to_owned()),
        },
        reason: Reason::Image,
        detail: "1 of 2 pods ready; image not found".to_owned(),
    }
}

fn judged(
    standing: Option<Standing>,
    seen: Result<Vec<Missing>, Missing>,
    registration: Registration,
) -> Status {
    let mut status = Status {
        id: "acme".parse().unwrap(),
        namespace: "ai-agents-acme".to_owned(),
        state: State::Absent,
        standing,
        missing: Vec::new(),
        registration,
    };
    status.judge(seen);
    status
}

fn unknown() -> Registration {
    Registration::Unknown {
        why: "no answer".to_owned(),
    }
}

const KNOWN: Registration = Registration::Registered { rows: 3, keys: 0 };
const NO_USER: Registration = Registration::Incomplete {
    role: true,
    user: false,
};

#[rstest]
#[case::all_there(Some(standing(false)), Ok(vec![]), KNOWN, State::Ready)]
#[case::registered_by_somebody_else(Some(standing(false)), Ok(vec![]), Registration::Elsewhere, State::Ready)]
#[case::not_asked(Some(standing(false)), Ok(vec![]), Registration::NotAsked, State::Ready)]
#[case::something_is_missing(Some(standing(false)), Ok(vec![missing()]), KNOWN, State::NotReady)]
#[case::not_registered(Some(standing(false)), Ok(vec![]), NO_USER, State::NotReady)]
#[case::not_registered_and_not_seen(Some(standing(false)), Err(missing()), NO_USER, State::NotReady)]
#[case::registration_is_not_known(Some(standing(false)), Ok(vec![]), unknown(), State::Unknown)]
#[case::not_seen(Some(standing(false)), Err(missing()), KNOWN, State::Unknown)]
#[case::missing_outranks_unknown(Some(standing(false)), Ok(vec![missing()]), unknown(), State::NotReady)]
#[case::deleting(Some(standing(true)), Ok(vec![missing()]), KNOWN, State::Deleting)]
#[case::gone_in_the_meantime(None, Ok(vec![missing()]), KNOWN, State::Absent)]
fn what_could_not_be_seen_is_never_ready(
    #[case] standing: Option<Standing>,
    #[case] seen: Result<Vec<Missing>, Missing>,
    #[case] registration: Registration,
    #[case] expected: State,
) {
    assert_eq!(judged(standing, seen, registration).state, expected);
}

#[test]
fn the_text_names_usage_workloads_and_what_is_missing() {
    let now = "2026-01-02T03:00:00Z".parse().unwrap();
    let status = judged(Some(standing(false)), Ok(vec![missing()]), NO_USER);
    insta::assert_snapshot!(status.text(now));
}
