use super::*;
use crate::Tenant;
use rstest::rstest;
use serde_json::{Value, json};

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn namespace(labels: &Value) -> Option<Namespace> {
    Some(read(
        json!({"metadata": {"name": "ingress-nginx", "labels": labels}}),
    ))
}

#[rstest]
#[case::by_its_own_name("metadataName", namespace(&json!({"kubernetes.io/metadata.name": "ingress-nginx"})), State::Ok, "")]
#[case::by_the_label("nameLabel", namespace(&json!({"name": "ingress-nginx"})), State::Ok, "")]
#[case::absent("metadataName", None, State::Missing, "put up the ingress controller")]
#[case::without_the_label("nameLabel", namespace(&json!({})), State::Missing, "kubectl label namespace ingress-nginx name=ingress-nginx --overwrite")]
#[case::another_value("nameLabel", namespace(&json!({"name": "nginx"})), State::Missing, "kubectl label")]
fn the_ingress_namespace_has_to_wear_the_label_that_is_selected(
    #[case] selector: &str,
    #[case] found: Option<Namespace>,
    #[case] expected: State,
    #[case] remedy: &str,
) {
    let ingress = Ingress {
        selector: read(json!(selector)),
        ..Ingress::default()
    };
    let finding = judge_ingress(&ingress, found.as_ref());
    assert_eq!(finding.state, expected, "{finding:?}");
    assert!(
        finding.remedy.unwrap_or_default().contains(remedy),
        "{}",
        finding.detail
    );
}

fn service(port: u16) -> Value {
    json!({"metadata": {"name": "postgresql"}, "spec": {"ports": [{"port": port}]}})
}

fn endpoints(pods: &[(&str, bool)]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(name, ready)| json!({"addresses": ["192.0.2.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": name}}))
        .collect();
    json!({"addressType": "IPv4", "endpoints": endpoints})
}

#[rstest]
#[case::serves(service(5432), endpoints(&[("p0", true)]), &["p0"], State::Ok, "leads to 1 ready pod with app=db")]
#[case::several(service(5432), endpoints(&[("p0", true), ("p1", true), ("p2", false)]), &["p0", "p1", "p2"], State::Ok, "leads to 2 ready pods")]
#[case::no_service(Value::Null, endpoints(&[]), &[], State::Missing, "there is none")]
#[case::another_port(service(5433), endpoints(&[("p0", true)]), &["p0"], State::Missing, "has no port 5432")]
#[case::no_pod_with_the_label(service(5432), endpoints(&[("p0", true)]), &[], State::Missing, "no pod in database has the label app=db")]
#[case::not_ready(service(5432), endpoints(&[("p0", false)]), &["p0"], State::Missing, "no ready endpoint; pods with app=db: p0")]
#[case::leads_elsewhere(service(5432), endpoints(&[("p0", true), ("other", true)]), &["p0"], State::Missing, "leads to other, without the label app=db")]
fn a_service_has_to_lead_to_ready_pods_that_policies_select(
    #[case] service: Value,
    #[case] endpoints: Value,
    #[case] pods: &[&str],
    #[case] expected: State,
    #[case] detail: &str,
) {
    let wanted = Wanted {
        check: Check::Postgresql,
        namespace: "database",
        service: (!service.is_null()).then(|| read(service)),
        absent: ("there is none".to_owned(), "put it up".to_owned()),
        port: 5432,
        pod_label: "app=db".to_owned(),
        label_remedy: "label".to_owned(),
        port_remedy: "port".to_owned(),
    };
    let pods: Vec<Pod> = pods
        .iter()
        .map(|name| read(json!({"metadata": {"name": name}})))
        .collect();
    let finding = if wanted.service.is_some() {
        judge_service("database/postgresql", &wanted, &[read(endpoints)], &pods)
    } else {
        let (detail, remedy) = wanted.absent;
        Finding::new(wanted.check, "", State::Missing, detail).mend(remedy)
    };
    assert_eq!(finding.state, expected, "{finding:?}");
    assert!(finding.detail.contains(detail), "{finding:?}");
    assert_eq!(finding.remedy.is_some(), expected == State::Missing);
}

fn refused(code: u16) -> CallError {
    let status = json!({"code": code, "message": "no", "reason": ""});
    CallError {
        what: "get".to_owned(),
        tried_for: None,
        cause: Cause::Refused(Box::new(read(status))),
    }
}

#[rstest]
#[case::served(Ok(Some(BTreeMap::from([("pods".to_owned(), "PodMetrics".to_owned())]))), State::Ok, "serves pods")]
#[case::not_installed(Ok(None), State::Missing, "is not served")]
#[case::down(Err(refused(503)), State::Missing, "does not answer: no (status 503)")]
#[case::not_known(Err(refused(401)), State::Unknown, "status 401")]
fn the_metrics_api_is_there_or_what_to_install_is_told(
    #[case] served: Result<Option<BTreeMap<String, String>>, CallError>,
    #[case] expected: State,
    #[case] detail: &str,
) {
    let finding = judge_metrics(served);
    assert_eq!(finding.state, expected, "{finding:?}");
    assert!(finding.detail.contains(detail), "{finding:?}");
}

#[test]
fn objects_of_the_platform_that_are_absent_outrank_those_that_cannot_be_read() {
    let manifests = render_platform(&Platform::default(), &Templates::embedded_platform()).unwrap();
    let with = |stands: fn(usize) -> Stands| {
        let looks: Vec<(&Manifest, Stands)> = manifests
            .iter()
            .enumerate()
            .map(|(place, manifest)| (manifest, stands(place)))
            .collect();
        judge_platform("database", &looks)
    };
    assert_eq!(with(|_| Stands::There).state, State::Ok);
    let absent = with(|place| match place {
        0 => Stands::Absent,
        1 => Stands::Unread(refused(403)),
        _ => Stands::There,
    });
    assert_eq!(absent.state, State::Missing);
    assert!(absent.detail.contains("does not exist"), "{absent:?}");
    assert!(absent.remedy.unwrap().starts_with("provisioner platform apply"));
    let foreign = with(|place| match place {
        0 => Stands::Foreign("label managed-by is missing".to_owned()),
        _ => Stands::There,
    });
    assert_eq!(foreign.state, State::Missing);
    let unread = with(|place| match place {
        0 => Stands::Unread(refused(403)),
        _ => Stands::There,
    });
    assert_eq!(unread.state, State::Unknown, "{unread:?}");
    let older = with(|place| match place {
        0 => Stands::Unserved,
        _ => Stands::There,
    });
    assert_eq!(older.state, State::Ok);
    assert!(
        older
            .detail
            .contains("1 of kinds that this version of Kubernetes does not serve")
    );
}

#[test]
fn what_several_tenants_share_is_looked_at_once() {
    let tenants = ["a", "b"].map(|id| Tenant::standard(id.parse().unwrap()));
    let mut other = Tenant::standard("c".parse().unwrap());
    other.shared_services.namespace = "elsewhere".parse().unwrap();
    let all = tenants
        .iter()
        .chain([&other])
        .map(|tenant| &tenant.shared_services);
    assert_eq!(distinct(all).len(), 2);
}
