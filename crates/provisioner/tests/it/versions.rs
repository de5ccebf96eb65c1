//! Which API versions templates and code ask for, against the releases that serve them: 1.28 to 1.36, all of them, or the code finds
//! out first.

use crate::documented;
use provisioner::kinds;
use regex::Regex;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The oldest release that we promise to work with.
const OLDEST: u8 = 28;

/// A version of an API group.
struct Served {
    group: &'static str,
    version: &'static str,
    /// The kinds of it that we use.
    kinds: &'static [&'static str],
    /// The minor version of the first release that serves these kinds in this version.
    since: u8,
    /// Who says so.
    source: &'static str,
    /// How the code finds out, where older servers that we promise to work with do not serve it.
    detected: Option<&'static str>,
}

const fn served(
    group: &'static str,
    version: &'static str,
    kinds: &'static [&'static str],
    since: u8,
    source: &'static str,
) -> Served {
    Served {
        group,
        version,
        kinds,
        since,
        source,
        detected: None,
    }
}

/// Kubernetes' page of what was moved where and when.
const GUIDE: &str = "https://kubernetes.io/docs/reference/using-api/deprecation-guide/";
/// Kubernetes' rules: rule 4a keeps what is generally available for as long as there is no Kubernetes 2.
const POLICY: &str = "https://kubernetes.io/docs/reference/using-api/deprecation-policy/";
/// What the oldest release serves, as it says so itself.
const OF_THE_OLDEST: &str = "https://github.com/kubernetes/kubernetes/tree/v1.28.0/api/openapi-spec/v3";

/// Everything that templates and code may ask for, with the release that brought it.
static ALL: &[Served] = &[
    served(
        "",
        "v1",
        &[
            "Namespace",
            "ResourceQuota",
            "LimitRange",
            "ServiceAccount",
            "ConfigMap",
            "Secret",
            "PersistentVolumeClaim",
            "PersistentVolume",
            "Service",
            "Pod",
            "Node",
            "Event",
            "Endpoints",
            "ReplicationController",
        ],
        0,
        OF_THE_OLDEST,
    ),
    served(
        "apps",
        "v1",
        &[
            "Deployment",
            "ReplicaSet",
            "StatefulSet",
            "DaemonSet",
            "ControllerRevision",
        ],
        9,
        "#deployment-v116",
    ),
    served("batch", "v1", &["Job"], 0, OF_THE_OLDEST),
    served("batch", "v1", &["CronJob"], 21, "#cronjob-v125"),
    served(
        "autoscaling",
        "v2",
        &["HorizontalPodAutoscaler"],
        23,
        "#horizontalpodautoscaler-v126",
    ),
    served(
        "policy",
        "v1",
        &["PodDisruptionBudget"],
        21,
        "#poddisruptionbudget-v125",
    ),
    served(
        "networking.k8s.io",
        "v1",
        &["NetworkPolicy"],
        8,
        "#networkpolicy-v116",
    ),
    served(
        "networking.k8s.io",
        "v1",
        &["Ingress", "IngressClass"],
        19,
        "#ingress-v122",
    ),
    served(
        "rbac.authorization.k8s.io",
        "v1",
        &["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"],
        8,
        "#rbac-resources-v122",
    ),
    served(
        "discovery.k8s.io",
        "v1",
        &["EndpointSlice"],
        21,
        "#endpointslice-v125",
    ),
    served("coordination.k8s.io", "v1", &["Lease"], 14, "#lease-v122"),
    served("events.k8s.io", "v1", &["Event"], 19, "#event-v125"),
    served(
        "storage.k8s.io",
        "v1",
        &["StorageClass"],
        6,
        "#storage-resources-v122",
    ),
    served(
        "scheduling.k8s.io",
        "v1",
        &["PriorityClass"],
        14,
        "#priorityclass-v122",
    ),
    served(
        "authentication.k8s.io",
        "v1",
        &["TokenReview"],
        6,
        "#tokenreview-v122",
    ),
    served(
        "authentication.k8s.io",
        "v1",
        &["TokenRequest"],
        22,
        "https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates-removed/",
    ),
    served(
        "authentication.k8s.io",
        "v1",
        &["SelfSubjectReview"],
        28,
        "https://kubernetes.io/docs/reference/access-authn-authz/authentication/#self-subject-review",
    ),
    served(
        "authorization.k8s.io",
        "v1",
        &[
            "SelfSubjectAccessReview",
            "SubjectAccessReview",
            "SelfSubjectRulesReview",
        ],
        6,
        "#subjectaccessreview-resources-v122",
    ),
    served(
        "certificates.k8s.io",
        "v1",
        &["CertificateSigningRequest"],
        19,
        "#certificatesigningrequest-v122",
    ),
    served(
        "apiextensions.k8s.io",
        "v1",
        &["CustomResourceDefinition"],
        16,
        "#customresourcedefinition-v122",
    ),
    served(
        "admissionregistration.k8s.io",
        "v1",
        &["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"],
        16,
        "#webhook-resources-v122",
    ),
    Served {
        group: "admissionregistration.k8s.io",
        version: "v1",
        kinds: &["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"],
        since: 30,
        source: "https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/",
        detected: Some("where a server does not serve it, it is left out, and that is said"),
    },
];

impl Served {
    fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn is(&self, group: &str, version: &str) -> bool {
        self.group == group && self.version == version
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files below with this end, and what is in them; of a source file not its tests.
fn files(directory: &Path, end: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if name.ends_with(end) && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            found.push((name, text));
        }
    }
    found
}

fn sources() -> Vec<(String, String)> {
    let crates =
        ["provisioner", "conformance"].map(|name| repository().join("crates").join(name).join("src"));
    let found: Vec<_> = crates
        .iter()
        .flat_map(|directory| files(directory, ".rs"))
        .collect();
    assert!(found.len() > 100, "{} source files only", found.len());
    found
}

/// Of each place that names group and version: the place, and both.
fn named_in_code() -> BTreeSet<(String, String, String)> {
    let quoted = Regex::new(r#""([a-z0-9.-]+)/(v\d[a-z0-9]*)""#).unwrap();
    let paired = Regex::new(r#""([a-z0-9.-]*)",\s*"(v\d[a-z0-9]*)""#).unwrap();
    let path = Regex::new(r"/apis/([a-z0-9.-]+)/(v\d[a-z0-9]*)/").unwrap();
    let typed = Regex::new(r"k8s_openapi::api::([a-z]+)::(v\d[a-z0-9]*)").unwrap();
    let mut named = BTreeSet::new();
    for (name, text) in sources() {
        for pattern in [&quoted, &paired, &path, &typed] {
            for found in pattern.captures_iter(&text) {
                let group = &found[1];
                // What we print ourselves.
                if group == "ai-agents-platform" {
                    continue;
                }
                let of_module = ALL.iter().find(|served| module(served.group) == group);
                let group = if std::ptr::eq(pattern, &typed) {
                    of_module.map_or(group, |served| served.group)
                } else {
                    group
                };
                named.insert((name.clone(), group.to_owned(), found[2].to_owned()));
            }
        }
    }
    named
}

/// A group's name among the types of the client library.
fn module(group: &str) -> &str {
    match group {
        "" => "core",
        group => group.split('.').next().unwrap_or_default(),
    }
}

#[test]
fn every_version_in_the_table_is_served_by_all_releases_or_looked_for() {
    for served in ALL {
        let name = served.api_version();
        let stable = served
            .version
            .trim_start_matches('v')
            .chars()
            .all(|digit| digit.is_ascii_digit());
        assert!(stable, "{name} may go with any release: {POLICY}");
        let everywhere = served.since <= OLDEST;
        assert_eq!(
            everywhere,
            served.detected.is_none(),
            "{name} {:?} is there since 1.{}",
            served.kinds,
            served.since
        );
        assert!(
            served.source.starts_with('#') || served.source.starts_with("https://"),
            "{name}"
        );
    }
}

#[test]
fn every_kind_that_templates_may_make_is_in_the_table() {
    for kind in kinds::TENANT.iter().chain(kinds::PLATFORM) {
        let found = ALL
            .iter()
            .any(|served| served.is(kind.group, kind.version) && served.kinds.contains(&kind.kind));
        assert!(
            found,
            "{} {}: say in this table since when it is served, and who says so",
            kind.api_version(),
            kind.kind
        );
    }
}

#[test]
fn templates_name_the_versions_of_the_table() {
    let kinds: Vec<String> = kinds::TENANT
        .iter()
        .chain(kinds::PLATFORM)
        .map(|kind| kind.api_version())
        .collect();
    let templates = files(&repository().join("templates"), ".yaml.hbs");
    assert!(templates.len() > 20, "{} templates only", templates.len());
    for (name, text) in templates {
        let mut versions = text
            .lines()
            .filter_map(|line| line.strip_prefix("apiVersion: "))
            .peekable();
        assert!(versions.peek().is_some(), "{name} names no version");
        for version in versions {
            assert!(
                kinds.iter().any(|known| known == version.trim()),
                "{name}: {version}"
            );
        }
    }
}

#[test]
fn every_version_that_code_names_is_in_the_table() {
    let named = named_in_code();
    assert!(named.len() > 50, "{} places only", named.len());
    let unknown: Vec<_> = named
        .iter()
        .filter(|(_, group, version)| !ALL.iter().any(|served| served.is(group, version)))
        .collect();
    assert!(
        unknown.is_empty(),
        "say in this table since when these are served, and who says so: {unknown:#?}"
    );
}

#[test]
fn every_kind_that_code_asks_for_by_its_type_is_in_the_table() {
    let typed = Regex::new(r"\bApi(?:::)?<([A-Z][a-z]\w+)>").unwrap();
    let mut asked = BTreeSet::new();
    for (name, text) in sources() {
        asked.extend(
            typed
                .captures_iter(&text)
                .map(|found| (found[1].to_owned(), name.clone())),
        );
    }
    assert!(asked.len() > 10, "{asked:?} only");
    let known = |kind: &str| ALL.iter().any(|served| served.kinds.contains(&kind));
    // Of these the kind is said by group, version and name.
    let generic = ["DynamicObject", "Object"];
    let unknown: Vec<_> = asked
        .iter()
        .filter(|(kind, _)| !known(kind) && !generic.contains(&kind.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "say in this table since when these are served, and who says so: {unknown:#?}"
    );
}

#[test]
fn the_documented_versions_are_those_of_the_table() {
    let mut table = "| API version | kinds | served since | who says so |\n|---|---|---|---|\n".to_owned();
    for served in ALL {
        let since = match (served.since, served.detected) {
            (0, _) => "the first releases".to_owned(),
            (since, None) => format!("1.{since}"),
            (since, Some(how)) => format!("1.{since}: {how}"),
        };
        let source = match served.source {
            anchor if anchor.starts_with('#') => format!("[deprecation guide]({GUIDE}{anchor})"),
            OF_THE_OLDEST => format!("[API of 1.28]({OF_THE_OLDEST})"),
            page => format!("[its page]({page})"),
        };
        let (version, kinds) = (served.api_version(), served.kinds.join(", "));
        let _ = writeln!(table, "| `{version}` | {kinds} | {since} | {source} |");
    }
    documented("versions", &table);
}
