use super::*;
use rstest::rstest;

const OWN: &str = "\
tiers:
  standard:
    labels: {example.com/tier: plain}
  gold:
    labels: {example.com/tier: gold, example.com/cost-center: \"1\"}
    quota: {pods: 40}
    worker: {replicas: 2, size: {memoryLimit: 2Gi}}
    egress: [{cidr: 192.0.2.0/24, ports: [443]}]
";

fn own() -> Tiers {
    Tiers::embedded().with_yaml(OWN).unwrap()
}

fn read(text: &str) -> Tenant {
    own().fitting_tenant(text).unwrap()
}

#[test]
fn the_built_in_tiers_fit() {
    let tiers = Tiers::embedded();
    assert_eq!(
        tiers.names().map(TierName::as_str).collect::<Vec<_>>(),
        ["premium", "standard"]
    );
    let standard = tiers.tenant("id: acme").unwrap();
    assert_eq!(standard, Tenant::standard(fixed("acme")));
    let premium = tiers.fitting_tenant("id: acme\ntier: premium").unwrap();
    assert_eq!((premium.worker.replicas, premium.quota.pods), (3, 30));
}

#[test]
fn a_tenant_file_goes_before_its_tier_and_that_before_the_standard() {
    let tenant = read(
        "id: acme\ntier: gold\nlabels: {example.com/cost-center: \"2\"}\nworker: {size: {cpuLimit: 250m}}",
    );
    assert_eq!(tenant.tier.as_str(), "gold");
    assert_eq!(tenant.quota.pods, 40);
    assert_eq!(
        tenant.quota.limits_cpu,
        Tenant::standard(fixed("any")).quota.limits_cpu
    );
    assert_eq!(tenant.worker.replicas, 2);
    let size = &tenant.worker.size;
    assert_eq!(
        (
            size.cpu_limit.as_str(),
            size.memory_limit.as_str(),
            size.memory_request.as_str()
        ),
        ("250m", "2Gi", "128Mi")
    );
    let labels: Vec<String> = tenant
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(labels, ["example.com/cost-center=2", "example.com/tier=gold"]);
}

#[test]
fn destinations_of_the_file_replace_those_of_the_tier() {
    assert_eq!(read("id: acme\ntier: gold").egress.len(), 1);
    assert_eq!(read("id: acme\ntier: gold\negress: []").egress, []);
}

#[test]
fn a_tier_of_the_file_replaces_the_built_in_one() {
    let labels = read("id: acme").labels;
    assert_eq!(labels.len(), 1);
    assert_eq!(own().standard(fixed("acme")).labels, labels);
    assert_eq!(own().names().count(), 3);
}

#[rstest]
#[case::no_such_tier(
    "id: acme\ntier: silver",
    Some(2),
    "tier: tier silver does not exist; there are: gold, premium, standard at line 2 column 7"
)]
#[case::contradiction(
    "id: acme\nquota:\n  pods: 3",
    Some(3),
    "quota.pods: 3 is less than the 4 that API and worker need"
)]
#[case::contradiction_of_its_tier(
    "id: acme\ntier: gold\nquota: {limitsCpu: 1, requestsCpu: 1}",
    Some(3),
    "quota.limitsCpu: 1 is less than the 2500m that"
)]
#[case::what_the_tier_brings(
    "id: acme\ntier: gold\nworker: {size: {memoryRequest: 4Gi}}",
    Some(3),
    "worker.size.memoryRequest: 4Gi is more than memoryLimit 2Gi; lower the request or raise the limit at line 3"
)]
#[case::in_a_list(
    "id: acme\negress:\n  - {cidr: 192.0.2.0/24, ports: [443]}\n  - cidr: 0.0.0.0/0\n    ports: [443]",
    Some(4),
    "egress[1].cidr: 0.0.0.0/0 has addresses of"
)]
#[case::no_port(
    "id: acme\negress:\n  - cidr: 192.0.2.0/24\n    ports: []",
    Some(4),
    "egress[0].ports: [] names no port"
)]
#[case::unknown_field("id: acme\nworker:\n  replica: 2", Some(3), "worker: unknown field `replica`")]
#[case::doubled_label("id: acme\nlabels:\n  a: b\n  a: c", Some(3), "labels: a is given twice")]
#[case::doubled_field("id: acme\nname: a\nname: b", None, "duplicate field `name`")]
#[case::owner_s_label(
    "id: acme\nlabels:\n  managed-by: me",
    Some(3),
    "labels: label key \"managed-by\" is the platform's to set"
)]
#[case::value_of_a_label(
    "id: acme\nlabels:\n  team: a b",
    Some(3),
    "labels.team: label value \"a b\" has ' '"
)]
#[case::no_id("name: Acme", None, "missing field `id`")]
fn a_mistake_names_field_and_line(#[case] text: &str, #[case] line: Option<usize>, #[case] expected: &str) {
    let error = own().fitting_tenant(text).unwrap_err();
    assert!(error.problem.contains(expected), "{error}");
    if let Some(line) = line {
        assert_eq!(error.line, Some(line), "{error}");
    }
}

#[rstest]
#[case::contradiction(
    "tiers:\n  small:\n    quota: {pods: 2}",
    "tiers.small.quota.pods: 2 is less than the 4 that API and worker need"
)]
#[case::with_an_id("tiers:\n  small: {id: acme}", "tiers.small: unknown field `id`")]
#[case::name("tiers:\n  Small: {}", "tier \"Small\" has 'S' at position 1")]
#[case::doubled("tiers:\n  small: {}\n  small: {}", "small is given twice")]
#[case::a_tenant_file("id: acme", "unknown field `id`, expected `tiers`")]
fn a_tiers_file_with_a_mistake_names_field_and_line(#[case] text: &str, #[case] expected: &str) {
    let error = Tiers::embedded().with_yaml(text).unwrap_err();
    assert!(error.problem.contains(expected), "{error}");
    assert!(error.line.is_some(), "{error}");
}
