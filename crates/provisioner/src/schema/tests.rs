use super::*;
use crate::tenant::Tiers;
use boon::{Compiler, SchemaIndex, Schemas};
use rstest::rstest;
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// `schemas/` is generated: `UPDATE_DOCS=1 cargo test -p provisioner` writes it.
#[rstest]
#[case::tenant("tenant", tenant())]
#[case::tiers("tiers", tiers())]
#[case::platform("platform", platform())]
fn the_schemas_that_are_checked_in_are_those_of_the_types(#[case] name: &str, #[case] schema: Value) {
    let path = repository(&format!("schemas/{name}.schema.json"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(repository("schemas")).unwrap();
        std::fs::write(&path, text(&schema)).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == text(&schema),
        "schemas/{name}.schema.json is out of date; run UPDATE_DOCS=1 cargo test -p provisioner"
    );
}

/// Holds documents against a schema.
struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    fn of(schema: Value) -> Self {
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        compiler.add_resource("memory:schema", schema).unwrap();
        let index = compiler.compile("memory:schema", &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn check(&self, yaml: &str) -> Result<(), String> {
        let document = crate::yaml::document(yaml).unwrap().unwrap();
        let checked = self.schemas.validate(&document, self.index);
        checked.map_err(|error| format!("{error:#}"))
    }
}

#[rstest]
#[case::least("id: acme")]
#[case::standard(&std::fs::read_to_string(repository("fixtures/tenants/standard.yaml")).unwrap())]
#[case::premium(&std::fs::read_to_string(repository("fixtures/tenants/premium.yaml")).unwrap())]
#[case::quantities(
    "id: acme\nquota: {limitsCpu: 8, requestsCpu: 0.5, limitsMemory: 8.5Gi, requestsMemory: 512M}"
)]
#[case::destinations("id: acme\negress: [{cidr: 192.0.2.0/24, ports: [53], protocol: UDP}]")]
#[case::labels("id: acme\nlabels: {example.com/team: blue, cost-center: \"\"}\nannotations: {a: \"b c\"}")]
#[case::images(
    "id: acme\napi: {image: \"r.example:5000/a/b@sha256:0123\", args: [--x, \"{{y}}\"]}\nimagePullPolicy: Always"
)]
#[case::ingress("id: acme\ningress: {className: nginx, host: a.example.com, selector: nameLabel}")]
fn what_is_read_fits_the_schema(#[case] yaml: &str) {
    Tiers::embedded().fitting_tenant(yaml).unwrap();
    Validator::of(tenant()).check(yaml).unwrap();
}

#[rstest]
#[case::no_id("name: Acme")]
#[case::id("id: UPPER")]
#[case::long_id("id: a23456789-123456789-123456789-123456789-123456789-1234")]
#[case::dashed_id("id: acme-")]
#[case::unknown_field("id: acme\nquotas: {}")]
#[case::unknown_inner_field("id: acme\nquota: {limitsCPU: 4}")]
#[case::quantity("id: acme\nquota: {limitsCpu: 4 cores}")]
#[case::negative("id: acme\nquota: {limitsCpu: -1}")]
#[case::owner_s_label("id: acme\nlabels: {tenant: other}")]
#[case::platform_s_label("id: acme\nlabels: {ai-agents-platform/run-id: a}")]
#[case::kubernetes_label("id: acme\nlabels: {pod-security.kubernetes.io/enforce: privileged}")]
#[case::value_of_a_label("id: acme\nlabels: {team: a b}")]
#[case::port("id: acme\negress: [{cidr: 192.0.2.0/24, ports: [0]}]")]
#[case::large_port("id: acme\negress: [{cidr: 192.0.2.0/24, ports: [65536]}]")]
#[case::protocol("id: acme\negress: [{cidr: 192.0.2.0/24, ports: [1], protocol: SCTP}]")]
#[case::no_port("id: acme\negress: [{cidr: 192.0.2.0/24, ports: []}]")]
#[case::range("id: acme\negress: [{cidr: 192.0.2.0, ports: [1]}]")]
#[case::root("id: acme\nrunAsUser: 0")]
#[case::policy("id: acme\nimagePullPolicy: Sometimes")]
#[case::image("id: acme\napi: {image: \"a b\"}")]
#[case::tier("id: acme\ntier: Gold")]
#[case::replicas("id: acme\napi: {replicas: 0}")]
fn what_is_refused_does_not_fit_the_schema(#[case] yaml: &str) {
    assert!(Tiers::embedded().fitting_tenant(yaml).is_err());
    assert!(Validator::of(tenant()).check(yaml).is_err());
}

#[test]
fn the_built_in_tiers_fit_their_schema_and_a_tenant_file_does_not() {
    let validator = Validator::of(tiers());
    validator.check(include_str!("../tenant/tiers.yaml")).unwrap();
    assert!(validator.check("id: acme").is_err());
    assert!(validator.check("tiers: {Small: {}}").is_err());
    assert!(validator.check("tiers: {small: {id: acme}}").is_err());
}

#[test]
fn the_platform_s_settings_fit_their_schema() {
    let validator = Validator::of(platform());
    validator
        .check("sharedServices: {namespace: db, redis: {port: 6380}}\ndatabaseClientNamespaces: [monitoring]")
        .unwrap();
    assert!(validator.check("databaseClientNamespaces: [Monitoring]").is_err());
}

#[test]
fn every_field_of_a_tenant_file_says_what_it_is() {
    fn look(root: &Value, node: &Value, path: &str, silent: &mut Vec<String>) {
        for (name, field) in fields(root, node)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let path = format!("{path}.{name}");
            if field["description"].as_str().is_none_or(str::is_empty) {
                silent.push(path.clone());
            }
            look(root, field, &path, silent);
        }
    }
    let (schema, mut silent) = (tenant(), Vec::new());
    look(&schema, &schema, "", &mut silent);
    assert_eq!(silent, Vec::<String>::new());
    assert_eq!(
        about(&schema, &["worker", "size", "cpuLimit"]),
        Some("CPU at most.")
    );
    assert_eq!(about(&schema, &["worker", "sizes"]), None);
}
