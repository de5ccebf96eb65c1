//! What a run is asked to do: embedded defaults, then a file, then environment and flags, resolved once. Knows no cluster.

pub mod application;
mod credentials;
pub mod template;

use crate::check;
use crate::names::INTERNET_PORTS;
use jiff::SignedDuration;
use jiff::civil::Date;
use provisioner::fleet::Selection;
use provisioner::names::ImageReference;
use provisioner::tenant::Tiers;
use provisioner::{Tenant, TenantId};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use application::Application;
pub use credentials::{Columns, Pattern, Postgresql, Redis, SecretRef};

const DEFAULTS: &str = include_str!("settings.yaml");

/// Settings that cannot be used. Always names the place and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SettingsError {
    /// The file, flag or field.
    pub place: String,
    /// What was expected and seen.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

/// The error of a value that cannot be used.
pub(crate) fn invalid(
    place: impl Into<String>,
    problem: impl Into<String>,
    hint: impl Into<String>,
) -> SettingsError {
    SettingsError {
        place: place.into(),
        problem: problem.into(),
        hint: hint.into(),
    }
}

/// A promise that is known to be broken, and answered for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The check's id.
    pub check: String,
    /// Why it is tolerated.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day on which it holds.
    #[schemars(with = "String", extend("format" = "date"))]
    pub expires: Date,
}

/// One entry of `clusters`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSettings {
    /// The kubeconfig context.
    pub context: Option<String>,
    /// The kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// Whether a cluster that is not local may be tested.
    #[serde(default)]
    pub allow: bool,
    /// The namespaces of a cluster that is not local in which a run may put a pod beside those of others.
    #[serde(default)]
    pub allow_shared_namespaces: Vec<String>,
    /// Whether webhooks may be sent to the tenants' applications on a cluster that is not local.
    #[serde(default)]
    pub allow_webhooks: bool,
}

/// A host on the internet, for the promise of what tenants reach there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Internet {
    /// Its address. Behind it runs our agent (`probe serve`), since only an agent gives a nonce back.
    pub host: std::net::IpAddr,
    /// The ports, TCP and UDP each, that the agent listens on there: 80 and 443 among them, and some that tenants may not reach.
    #[serde(default = "internet_ports")]
    pub ports: Vec<u16>,
}

impl Internet {
    /// One whose agent listens on the usual ports.
    pub fn on(host: std::net::IpAddr) -> Self {
        Internet {
            host,
            ports: internet_ports(),
        }
    }
}

fn internet_ports() -> Vec<u16> {
    INTERNET_PORTS.to_vec()
}

/// A settings file, or a part of one: it needs only what differs from the defaults.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    /// The test tenants, two at least. Those that are absent are provisioned and removed again; those that exist are used as they are.
    tenants: Option<Vec<String>>,
    /// A tenant file: what the test tenants are provisioned from, and what their quota is measured against.
    tenant_file: Option<PathBuf>,
    /// A tiers file: tiers besides `standard` and `premium`, or in their place, as for `provisioner apply --tiers`.
    tiers_file: Option<PathBuf>,
    /// The image of the probe agents.
    agent_image: Option<String>,
    /// How long a whole run may take, clean-up not included, as in 10m.
    timeout: Option<String>,
    /// How long removing what a run made may take, as in 2m.
    clean_up_within: Option<String>,
    /// How long a probe agent, or a tenant's API and worker, may take to start, and a tenant's namespace that is being deleted to go.
    start_within: Option<String>,
    /// Clusters by name, for `--cluster NAME`. A name that is not here is taken for a kubeconfig context.
    clusters: Option<BTreeMap<String, ClusterSettings>>,
    /// Promises that are known to be broken, by whom that is answered for, and until when.
    waivers: Option<Vec<Waiver>>,
    /// A host on the internet on which our agent listens; local clusters bring one of their own.
    internet: Option<Internet>,
    /// PostgreSQL, as tenants use it.
    #[schemars(with = "Option<Postgresql>")]
    postgresql: Option<serde_yaml::Value>,
    /// Redis, as tenants use it.
    #[schemars(with = "Option<Redis>")]
    redis: Option<serde_yaml::Value>,
    /// The application's contract: how webhooks are sent, and how it is seen what became of them.
    application: Option<application::ApplicationFile>,
}

/// The JSON Schema of a settings file.
pub fn schema() -> serde_json::Value {
    provisioner::schema::of::<File>("Settings of conformance")
}

/// Of a section that is put onto the defaults field by field, a file names any part.
fn any_part(schema: &mut Schema) {
    schema.remove("required");
}

/// What flags and environment say.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--tenants`.
    pub tenants: Option<Vec<String>>,
    /// `--timeout`.
    pub timeout: Option<String>,
    /// `--agent-image`.
    pub agent_image: Option<String>,
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--allow-cluster`: the names of clusters that are not local and may be tested.
    pub allow_clusters: Vec<String>,
    /// `--allow-shared-namespaces`.
    pub allow_shared_namespaces: Vec<String>,
    /// `--allow-webhooks`.
    pub allow_webhooks: bool,
}

/// Everything decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name given by `--cluster`.
    pub cluster_name: String,
    /// How it is reached, and whether it is allowed.
    pub cluster: ClusterSettings,
    /// The tenants, two or more, all different.
    pub tenants: Vec<Tenant>,
    /// The agents' image.
    pub agent_image: String,
    /// How long a run may take.
    pub timeout: Duration,
    /// How long removing what it made may take.
    pub clean_up_within: Duration,
    /// How long an agent or a tenant's workloads may take to start, and a tenant's namespace that is being deleted to go.
    pub start_within: Duration,
    /// What is tolerated.
    pub waivers: Vec<Waiver>,
    /// The host on the internet; local clusters bring one.
    pub internet: Option<Internet>,
    /// How tenants get at PostgreSQL, and where their rows are.
    pub postgresql: Postgresql,
    /// How tenants get at Redis, and what is theirs there.
    pub redis: Redis,
    /// How the application takes webhooks.
    pub application: Application,
}

impl Settings {
    /// The tenants' ids, in order.
    pub fn tenant_ids(&self) -> Vec<TenantId> {
        self.tenants.iter().map(|tenant| tenant.id.clone()).collect()
    }
}

/// Settings for the cluster of this name.
///
/// # Errors
/// [`SettingsError`] for a file that cannot be read or parsed, and for values that cannot be used.
pub fn resolve(cluster: &str, overrides: &Overrides) -> Result<Settings, SettingsError> {
    let defaults = parse(DEFAULTS, "embedded defaults")?;
    let file = match find_file(overrides.config.as_deref()) {
        Some(path) => read(&path)?,
        None => File::default(),
    };
    combine(cluster, overrides, file, defaults)
}

fn combine(
    cluster: &str,
    overrides: &Overrides,
    file: File,
    defaults: File,
) -> Result<Settings, SettingsError> {
    let ids = overrides
        .tenants
        .clone()
        .or(file.tenants)
        .or(defaults.tenants)
        .unwrap_or_default();
    let timeout = overrides
        .timeout
        .clone()
        .or(file.timeout)
        .or(defaults.timeout)
        .unwrap_or_default();
    let agent_image = overrides
        .agent_image
        .clone()
        .or(file.agent_image)
        .or(defaults.agent_image)
        .unwrap_or_default();
    let clean_up_within = file
        .clean_up_within
        .or(defaults.clean_up_within)
        .unwrap_or_default();
    let start_within = file.start_within.or(defaults.start_within).unwrap_or_default();
    let mut entry = file
        .clusters
        .unwrap_or_default()
        .remove(cluster)
        .unwrap_or_default();
    entry.context.get_or_insert_with(|| cluster.to_owned());
    if let Some(kubeconfig) = &overrides.kubeconfig {
        entry.kubeconfig = Some(kubeconfig.clone());
    }
    entry.allow |= overrides.allow_clusters.iter().any(|name| name == cluster);
    entry
        .allow_shared_namespaces
        .extend(overrides.allow_shared_namespaces.iter().cloned());
    entry.allow_webhooks |= overrides.allow_webhooks;
    let waivers = file.waivers.unwrap_or_default();
    for waiver in &waivers {
        known_check(&waiver.check)?;
    }
    Ok(Settings {
        cluster_name: cluster.to_owned(),
        cluster: entry,
        tenants: tenants(&ids, file.tenant_file.as_deref(), &tiers(file.tiers_file)?)?,
        agent_image: image(agent_image)?,
        timeout: duration("timeout", &timeout)?,
        clean_up_within: duration("cleanUpWithin", &clean_up_within)?,
        start_within: duration("startWithin", &start_within)?,
        waivers,
        internet: file.internet.map(usable).transpose()?,
        postgresql: Postgresql::resolve(defaults.postgresql, file.postgresql)?,
        redis: Redis::resolve(defaults.redis, file.redis)?,
        application: application::resolve(file.application, defaults.application)?,
    })
}

/// The ports must tell what is open from what is closed.
fn usable(internet: Internet) -> Result<Internet, SettingsError> {
    let open = |port: &u16| matches!(port, 80 | 443);
    let (allowed, other): (Vec<u16>, Vec<u16>) = internet.ports.iter().copied().partition(open);
    if allowed.len() < 2 || other.is_empty() {
        return Err(invalid(
            "internet.ports",
            format!(
                "expected 80, 443 and another port at least, got {:?}",
                internet.ports
            ),
            "run `probe serve --tcp 22,80,443 --udp 22,80,443` on that host, and name these ports",
        ));
    }
    Ok(internet)
}

fn find_file(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_owned());
    }
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let global = home.map(|home| home.join("ai-agents-conformance/settings.yaml"));
    [Some(PathBuf::from("conformance.yaml")), global]
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
}

fn read(path: &Path) -> Result<File, SettingsError> {
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        invalid(
            &place,
            format!("cannot be read: {error}"),
            "check the path given by --config",
        )
    })?;
    parse(&text, &place)
}

fn parse(text: &str, place: &str) -> Result<File, SettingsError> {
    serde_yaml::from_str(text).map_err(|error| {
        let hint = "`conformance run --help` names the file that documents every field: crates/conformance/src/settings.yaml";
        invalid(place, error.to_string(), hint)
    })
}

fn image(name: String) -> Result<String, SettingsError> {
    let hint = "name an image as in registry.example.com/probe:1";
    let known: Result<ImageReference, _> = name.parse();
    known
        .map(|_| name)
        .map_err(|error| invalid("agentImage", error.to_string(), hint))
}

fn tiers(file: Option<PathBuf>) -> Result<Tiers, SettingsError> {
    let selection = Selection {
        tiers: file,
        ..Selection::default()
    };
    let hint = "docs/tenants.md describes tiers files; tiersFile in the settings names it";
    selection
        .all_tiers()
        .map_err(|error| invalid("tiersFile", error.to_string(), hint))
}

fn tenants(ids: &[String], file: Option<&Path>, tiers: &Tiers) -> Result<Vec<Tenant>, SettingsError> {
    let hint = "name two or more tenants, all different: --tenants test-tenant-a,test-tenant-b";
    let mut tenants: Vec<Tenant> = Vec::new();
    for id in ids {
        let id =
            TenantId::try_from(id.as_str()).map_err(|error| invalid("tenants", error.to_string(), hint))?;
        if tenants.iter().any(|tenant| tenant.id == id) {
            return Err(invalid("tenants", format!("{id} twice"), hint));
        }
        tenants.push(match file {
            Some(path) => from_file(path, tiers, id)?,
            None => tiers.standard(id),
        });
    }
    if tenants.len() < 2 {
        return Err(invalid(
            "tenants",
            format!("expected two at least, found {}", tenants.len()),
            hint,
        ));
    }
    Ok(tenants)
}

fn from_file(path: &Path, tiers: &Tiers, id: TenantId) -> Result<Tenant, SettingsError> {
    let hint = "docs/tenants.md describes tenant files";
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        invalid(
            &place,
            format!("cannot be read: {error}"),
            "check tenantFile in the settings",
        )
    })?;
    let mut tenant = tiers
        .fitting_tenant(&text)
        .map_err(|error| invalid(&place, error.to_string(), hint))?;
    tenant.id = id;
    Ok(tenant)
}

fn duration(place: &str, text: &str) -> Result<Duration, SettingsError> {
    let parsed: Option<SignedDuration> = text.parse().ok();
    match parsed.and_then(|duration| Duration::try_from(duration).ok()) {
        Some(duration) if duration >= Duration::from_secs(10) => Ok(duration),
        _ => Err(invalid(
            place,
            format!("{text:?} is no duration of 10 s or more"),
            "write it as 90s, 10m or 1h30m",
        )),
    }
}

/// The check of this id.
///
/// # Errors
/// There is none.
pub fn known_check(id: &str) -> Result<&'static dyn check::Check, SettingsError> {
    check::find(id).ok_or_else(|| {
        let known: Vec<&str> = check::ALL.iter().map(|check| check.info().id).collect();
        invalid(
            id,
            "no such check",
            format!("known are {}; `conformance list` shows them", known.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The schema is generated: `UPDATE_DOCS=1 cargo test -p conformance` writes it.
    #[test]
    fn the_schema_that_is_checked_in_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/conformance.schema.json");
        let text = provisioner::schema::text(&schema());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == text,
            "schemas/conformance.schema.json is out of date; run UPDATE_DOCS=1 cargo test -p conformance"
        );
    }

    fn fits_the_schema(text: &str) -> bool {
        let (mut compiler, mut schemas) = (boon::Compiler::new(), boon::Schemas::new());
        compiler.add_resource("memory:schema", schema()).unwrap();
        let index = compiler.compile("memory:schema", &mut schemas).unwrap();
        let document: serde_json::Value = serde_yaml::from_str(text).unwrap();
        schemas.validate(&document, index).is_ok()
    }

    #[rstest]
    #[case::defaults(DEFAULTS)]
    #[case::nothing("{}")]
    #[case::a_cluster("{clusters: {prod: {context: p, allow: true, allowSharedNamespaces: [database]}}}")]
    #[case::a_waiver("{waivers: [{check: NET-03, reason: r, owner: o, expires: 2026-12-31}]}")]
    #[case::a_part("{postgresql: {columns: {text: title}, secret: {name: db}}, redis: {user: app}}")]
    #[case::an_outcome(
        "{application: {outcome: {log: true}, secret: {environment: 'KEY_{TENANT}', encoding: hex}}}"
    )]
    #[case::internet("{internet: {host: 198.51.100.7}}")]
    fn settings_that_are_read_fit_the_schema(#[case] text: &str) {
        assert!(resolved(text, &Overrides::default()).is_ok());
        assert!(fits_the_schema(text));
    }

    #[rstest]
    #[case::unknown_field("{tenant: [a]}")]
    #[case::unknown_inner_field("{postgresql: {tables: a}}")]
    #[case::half_a_waiver("{waivers: [{check: NET-03}]}")]
    #[case::algorithm(
        "{application: {signature: {header: h, algorithm: md5, encoding: hex, value: a, signed: b}}}"
    )]
    fn settings_that_are_refused_do_not_fit_the_schema(#[case] text: &str) {
        assert!(resolved(text, &Overrides::default()).is_err());
        assert!(!fits_the_schema(text));
    }

    fn resolved(text: &str, overrides: &Overrides) -> Result<Settings, SettingsError> {
        combine(
            "lab",
            overrides,
            parse(text, "test")?,
            parse(DEFAULTS, "embedded defaults")?,
        )
    }

    #[test]
    fn defaults_are_two_test_tenants_and_a_context_of_the_clusters_name() {
        let settings = resolved("{}", &Overrides::default()).unwrap();
        let ids: Vec<String> = settings.tenant_ids().iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["test-tenant-a", "test-tenant-b"]);
        assert_eq!(settings.cluster.context.as_deref(), Some("lab"));
        assert_eq!(settings.timeout, Duration::from_secs(600));
        assert!(!settings.cluster.allow);
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let file = "{tenants: [c, d], timeout: 2m, agentImage: from/file}";
        let overrides = Overrides {
            tenants: Some(vec!["e".into(), "f".into()]),
            ..Overrides::default()
        };
        let settings = resolved(file, &overrides).unwrap();
        assert_eq!(settings.tenant_ids()[0].as_str(), "e");
        assert_eq!(
            (settings.timeout, settings.agent_image.as_str()),
            (Duration::from_secs(120), "from/file")
        );
    }

    #[rstest]
    #[case::no_image("{agentImage: 'a b'}", "agentImage")]
    #[case::no_closed_port("{internet: {host: 198.51.100.7, ports: [80, 443]}}", "internet.ports")]
    #[case::no_address("{internet: {host: example.com}}", "internet.host")]
    #[case::one_tenant("{tenants: [a]}", "expected two at least, found 1")]
    #[case::the_same_twice("{tenants: [a, a]}", "a twice")]
    #[case::no_duration("{timeout: soon}", "is no duration")]
    #[case::too_short("{timeout: 1s}", "is no duration of 10 s or more")]
    #[case::unknown_field("{tenant: [a]}", "unknown field `tenant`")]
    #[case::unknown_check(
        "{waivers: [{check: NET-99, reason: r, owner: o, expires: 2026-01-01}]}",
        "no such check"
    )]
    #[case::no_date(
        "{waivers: [{check: NET-01, reason: r, owner: o, expires: never}]}",
        "expires"
    )]
    fn bad_settings_name_place_and_problem(#[case] file: &str, #[case] problem: &str) {
        let error = resolved(file, &Overrides::default()).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!error.hint.is_empty());
    }

    #[test]
    fn tenants_have_the_values_of_their_file_and_of_its_tier() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let tiers = write(
            "tiers.yaml",
            "tiers: {gold: {quota: {pods: 44}}, standard: {quota: {pods: 12}}}",
        );
        let tenant = write("tenant.yaml", "id: any\ntier: gold");
        let pods =
            |text: &str| resolved(text, &Overrides::default()).map(|settings| settings.tenants[1].quota.pods);
        let both = format!("{{tenantFile: {tenant}, tiersFile: {tiers}}}");
        assert_eq!(pods(&both).unwrap(), 44);
        assert_eq!(pods(&format!("{{tiersFile: {tiers}}}")).unwrap(), 12);
        let error = pods(&format!("{{tenantFile: {tenant}}}")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("tier gold does not exist; there are: premium, standard"),
            "{error}"
        );
        let error = pods("{tiersFile: /does/not/exist}").unwrap_err().to_string();
        assert!(
            error.starts_with("tiersFile: read tiers file /does/not/exist: No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_cluster_is_allowed_by_its_own_name_only() {
        let other = Overrides {
            allow_clusters: vec!["prod".into()],
            ..Overrides::default()
        };
        assert!(!resolved("{}", &other).unwrap().cluster.allow);
        let named = Overrides {
            allow_clusters: vec!["lab".into()],
            ..Overrides::default()
        };
        assert!(resolved("{}", &named).unwrap().cluster.allow);
        assert!(
            resolved("{clusters: {lab: {allow: true}}}", &Overrides::default())
                .unwrap()
                .cluster
                .allow
        );
    }
}
