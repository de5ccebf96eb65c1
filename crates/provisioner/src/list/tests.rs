use super::*;
use rstest::rstest;
use serde_json::{Value, json};

fn namespace(name: &str, tenant: &str) -> Value {
    json!({"metadata": {
        "name": name,
        "labels": {"managed-by": "ai-agents-platform", "tenant": tenant},
        "annotations": {"ai-agents-platform/tenant-name": "Acme Corp.", "ai-agents-platform/tier": "premium"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }})
}

fn quota(live: &str) -> Value {
    json!({
        "metadata": {"name": "tenant-acme-quota"},
        "spec": {"hard": {"limits.cpu": "4", "limits.memory": "8Gi", "pods": "10", "requests.cpu": "2"}},
        "status": {
            "hard": {"limits.cpu": "4", "limits.memory": "8Gi", "pods": live, "requests.cpu": "2"},
            "used": {"limits.cpu": "1", "limits.memory": "2Gi", "pods": "2", "requests.cpu": "150m"},
        },
    })
}

fn deployment(available: i32) -> Value {
    json!({
        "metadata": {"name": "ai-agents-api", "generation": 1},
        "spec": {"replicas": 2, "selector": {}, "template": {}},
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": available},
    })
}

fn of(namespace: Value, quotas: &[Value], deployments: &[Value]) -> Option<Standing> {
    let quotas: Vec<ResourceQuota> = quotas
        .iter()
        .map(|it| serde_json::from_value(it.clone()).unwrap())
        .collect();
    let deployments: Vec<Deployment> = deployments
        .iter()
        .map(|it| serde_json::from_value(it.clone()).unwrap())
        .collect();
    standing(&serde_json::from_value(namespace).unwrap(), &quotas, &deployments)
}

fn deleting() -> Value {
    let mut namespace = namespace("ai-agents-acme", "acme");
    namespace["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    namespace
}

#[rstest]
#[case::all_there(namespace("ai-agents-acme", "acme"), &[quota("10")], &[deployment(2)], "ready")]
#[case::without_workloads(namespace("ai-agents-acme", "acme"), &[quota("10")], &[], "ready")]
#[case::a_pod_is_missing(namespace("ai-agents-acme", "acme"), &[quota("10")], &[deployment(1)], "not ready")]
#[case::no_quota(namespace("ai-agents-acme", "acme"), &[], &[deployment(2)], "not ready")]
#[case::quota_not_in_force(namespace("ai-agents-acme", "acme"), &[quota("5")], &[deployment(2)], "not ready")]
#[case::deleting(deleting(), &[quota("10")], &[deployment(2)], "deleting")]
fn a_tenant_is_ready_when_its_quota_is_in_force_and_its_workloads_are_rolled_out(
    #[case] namespace: Value,
    #[case] quotas: &[Value],
    #[case] deployments: &[Value],
    #[case] word: &str,
) {
    assert_eq!(of(namespace, quotas, deployments).unwrap().word(), word);
}

#[test]
fn a_namespace_of_another_name_is_no_tenant() {
    assert_eq!(of(namespace("somewhere", "acme"), &[], &[]), None);
    assert_eq!(of(namespace("ai-agents-acme", "Acme"), &[], &[]), None);
}

#[test]
fn the_table_shows_what_is_used_of_what_there_may_be() {
    let now = "2026-01-04T05:00:00Z".parse().unwrap();
    let ready = of(
        namespace("ai-agents-acme", "acme"),
        &[quota("10")],
        &[deployment(2)],
    )
    .unwrap();
    let mut bare = namespace("ai-agents-a-longer-one", "a-longer-one");
    bare["metadata"]["annotations"] = json!({});
    let bare = of(bare, &[], &[deployment(0)]).unwrap();
    insta::assert_snapshot!(table(&[bare, ready], now));
}

#[test]
fn usage_comes_in_the_order_in_which_people_name_it() {
    let standing = of(namespace("ai-agents-acme", "acme"), &[quota("10")], &[]).unwrap();
    let dimensions: Vec<&str> = standing
        .quota
        .iter()
        .map(|usage| usage.dimension.as_str())
        .collect();
    assert_eq!(
        dimensions,
        ["requests.cpu", "limits.cpu", "limits.memory", "pods"]
    );
    let percents: Vec<Option<u8>> = standing.quota.iter().map(Usage::percent).collect();
    assert_eq!(percents, [Some(7), Some(25), Some(25), Some(20)]);
}

#[rstest]
#[case::now(0, "0s")]
#[case::seconds(59, "59s")]
#[case::minutes(312, "5m 12s")]
#[case::hours(3_700, "1h 1m")]
#[case::days(100_000, "1d 3h")]
#[case::many_days(864_000, "10d")]
#[case::a_clock_that_is_behind(-5, "0s")]
fn ages(#[case] seconds: i64, #[case] expected: &str) {
    let created = Timestamp::from_second(1_000_000).unwrap();
    let now = Timestamp::from_second(1_000_000 + seconds).unwrap();
    assert_eq!(age(created, now), expected);
}
