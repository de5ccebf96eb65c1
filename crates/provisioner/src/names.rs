//! Values that are safe to put into a template, because their type says which characters they hold:
//! tenant ids, object names, image references, ports, address ranges. Numbers of resources are in
//! [`crate::quantity`].

use crate::labels;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// A value that breaks the rule of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} {problem}; {rule}")]
pub struct InvalidValue {
    /// What was being read, as in `tenant id`.
    pub what: &'static str,
    /// The value as given.
    pub value: String,
    /// The place and what is wrong there, as in `has 'U' at position 1`.
    pub problem: String,
    /// What is allowed, and so the remedy.
    pub rule: &'static str,
}

impl InvalidValue {
    pub(crate) fn new(
        what: &'static str,
        value: &str,
        problem: impl Into<String>,
        rule: &'static str,
    ) -> Self {
        Self {
            what,
            value: value.to_owned(),
            problem: problem.into(),
            rule,
        }
    }
}

/// A string newtype that is only made by its `FromStr`, and goes through it in serde as well.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $schema:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(into = "String")]
        pub struct $name(String);

        impl $name {
            /// The value as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(value: &str) -> Result<Self, InvalidValue> {
                let check: fn(&str) -> Result<(), InvalidValue> = $check;
                check(value).map(|()| Self(value.to_owned()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidValue;
            fn try_from(value: &str) -> Result<Self, InvalidValue> {
                value.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidValue;
            fn try_from(value: String) -> Result<Self, InvalidValue> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Refuses a text while it is being read, so that the reader still knows the field and the line.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = InvalidValue>> Visitor<'_> for Text<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

text! {
    /// A tenant's id: 1 to 53 of `a-z`, `0-9` and `-`, starting and ending with a letter or digit. It becomes
    /// a namespace (63 characters at most, with its prefix), a label's value and part of object names.
    ///
    /// ```
    /// use provisioner::TenantId;
    /// let id: TenantId = "acme-corp".parse()?;
    /// assert_eq!(id.namespace(), "ai-agents-acme-corp");
    /// assert!("Acme".parse::<TenantId>().is_err());
    /// # Ok::<(), provisioner::InvalidValue>(())
    /// ```
    TenantId, pattern("^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$", 53), |value| dns_label("tenant id", value, 53,
        "use 1 to 53 of a-z, 0-9 and '-', starting and ending with a letter or digit, as in acme-corp")
}

impl TenantId {
    /// The tenant's namespace: `ai-agents-{id}`.
    #[must_use]
    pub fn namespace(&self) -> String {
        format!("{}{}", labels::NAMESPACE_PREFIX, self.0)
    }
}

text! {
    /// A name of one DNS label: a namespace, a Service.
    DnsName, pattern("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", 63), |value| dns_label("name", value, 63,
        "use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit")
}

text! {
    /// A dotted DNS name: a cluster's domain.
    DomainName, pattern(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$", 253), domain
}

text! {
    /// The value of a label: empty, or up to 63 of letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit.
    LabelValue, pattern("^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$", 63), label_value
}

text! {
    /// A database of PostgreSQL: 1 to 63 of `a-z`, `0-9` and `_`, not starting with a digit.
    DatabaseName, pattern("^[a-z_][a-z0-9_]{0,62}$", 63), database
}

text! {
    /// A reference to a container image, with registry, tag and digest as wanted.
    ImageReference, pattern("^[A-Za-z0-9]([A-Za-z0-9._/:@+-]{0,510}[A-Za-z0-9])?$", 512), image
}

text! {
    /// A tenant's name for people: up to 63 letters, digits, spaces and `-_.,&()'/+`.
    DisplayName, pattern(r"^[\p{Alphabetic}\p{N}]([\p{Alphabetic}\p{N} ._,&()'/+-]{0,61}[\p{Alphabetic}\p{N}._,&()'/+-])?$", 63), display_name
}

text! {
    /// One argument of a command: any text without control characters. Templates put it in as `{{json …}}` only.
    Argument, pattern(r"^\P{Cc}*$", 4096), |value| plain_text("argument", value)
}

text! {
    /// The value of an annotation: any text without control characters. It is put on by code, never by a template.
    AnnotationValue, pattern(r"^\P{Cc}*$", 4096), |value| plain_text("annotation", value)
}

text! {
    /// A range of IPv4 addresses, as in `10.0.0.0/8`, without bits beyond its length.
    Ipv4Range, pattern(r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])/(3[0-2]|[0-2]?[0-9])$", 18), ipv4_range
}

impl Ipv4Range {
    /// The first address, and how many bits all addresses have in common.
    fn parts(&self) -> (u32, u32) {
        let (address, length) = self.0.split_once('/').unwrap_or_default();
        let address = address.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
        (address.to_bits(), length.parse().unwrap_or_default())
    }

    /// Whether every address of the other is one of these.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let ((mine, length), (theirs, longer)) = (self.parts(), other.parts());
        longer >= length && (mine ^ theirs).checked_shr(32 - length).unwrap_or(0) == 0
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }
}

text! {
    /// The name of a tier of tenants: one DNS label.
    TierName, pattern("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", 63), |value| dns_label("tier", value, 63,
        "use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit, as in premium")
}

text! {
    /// The key of a label or an annotation that a tenant may have of its own: a name of up to 63 characters, with a DNS name and `/`
    /// before it or without, as in `example.com/cost-center`. Those that somebody decides by are refused: the platform's,
    /// Kubernetes' (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set> reserves
    /// `kubernetes.io/` and `k8s.io/`; a Pod Security level is one), and `name`, by which network policies may recognise a namespace.
    MetadataKey, metadata_key_schema(), metadata_key
}

/// What a schema says of a text.
fn pattern(pattern: &str, longest: usize) -> Schema {
    json_schema!({"type": "string", "pattern": pattern, "maxLength": longest})
}

/// Labels of the namespace that decide whose it is, or who it is taken for.
const RESERVED: [&str; 4] = [labels::APP, labels::TENANT, labels::MANAGED_BY, "name"];

fn metadata_key_schema() -> Schema {
    let mut schema = pattern(
        r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
        317,
    );
    schema.insert(
        "not".to_owned(),
        serde_json::json!({"anyOf": [
            {"enum": RESERVED},
            {"pattern": r"^([^/]*\.)?(kubernetes\.io|k8s\.io)/"},
            {"pattern": "^ai-agents-platform/"},
        ]}),
    );
    schema
}

fn metadata_key(value: &str) -> Result<(), InvalidValue> {
    const RULE: &str = "use a name of up to 63 letters, digits, '-', '_' and '.', with a domain of yours and '/' before it or without, as in example.com/cost-center";
    let wrong = |problem: String| Err(InvalidValue::new("label key", value, problem, RULE));
    let (prefix, name) = match value.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, value),
    };
    if name.is_empty() {
        return wrong("has no name".into());
    }
    label_value(name).or_else(|error| wrong(error.problem))?;
    let Some(prefix) = prefix else {
        return if RESERVED.contains(&name) {
            wrong("is the platform's to set".into())
        } else {
            Ok(())
        };
    };
    domain(prefix).or_else(|error| wrong(error.problem))?;
    let of = |domain: &str| {
        prefix
            .strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if of("kubernetes.io") || of("k8s.io") {
        return wrong("is Kubernetes' own".into());
    }
    if value.starts_with(labels::PREFIX) {
        return wrong("is the platform's to set".into());
    }
    Ok(())
}

fn dns_label(
    what: &'static str,
    value: &str,
    longest: usize,
    rule: &'static str,
) -> Result<(), InvalidValue> {
    let wrong = |problem: String| Err(InvalidValue::new(what, value, problem, rule));
    if value.is_empty() {
        return wrong("is empty".into());
    }
    if let Some((at, odd)) = value
        .chars()
        .enumerate()
        .find(|(_, c)| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
    {
        return wrong(format!("has {odd:?} at position {}", at + 1));
    }
    if value.len() > longest {
        return wrong(format!("has {} characters", value.len()));
    }
    if value.starts_with('-') {
        return wrong("starts with '-'".into());
    }
    if value.ends_with('-') {
        return wrong("ends with '-'".into());
    }
    Ok(())
}

fn domain(value: &str) -> Result<(), InvalidValue> {
    const RULE: &str =
        "use labels of a-z, 0-9 and '-' joined by dots, up to 253 characters, as in cluster.local";
    if value.len() > 253 {
        return Err(InvalidValue::new(
            "domain",
            value,
            format!("has {} characters", value.len()),
            RULE,
        ));
    }
    value
        .split('.')
        .try_for_each(|label| dns_label("domain", label, 63, RULE))
        .map_err(|inner| InvalidValue {
            value: value.to_owned(),
            problem: format!("has a label {:?} that {}", inner.value, inner.problem),
            ..inner
        })
}

fn database(value: &str) -> Result<(), InvalidValue> {
    const RULE: &str = "use 1 to 63 of a-z, 0-9 and '_', not starting with a digit, as in ai_agents";
    let wrong = |problem: String| Err(InvalidValue::new("database", value, problem, RULE));
    if value.is_empty() {
        return wrong("is empty".into());
    }
    if let Some((at, odd)) = value
        .chars()
        .enumerate()
        .find(|(_, c)| !matches!(c, 'a'..='z' | '0'..='9' | '_'))
    {
        return wrong(format!("has {odd:?} at position {}", at + 1));
    }
    if value.len() > 63 {
        return wrong(format!("has {} characters", value.len()));
    }
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        return wrong("starts with a digit".into());
    }
    Ok(())
}

fn label_value(value: &str) -> Result<(), InvalidValue> {
    const RULE: &str =
        "use up to 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit";
    let wrong = |problem: String| Err(InvalidValue::new("label value", value, problem, RULE));
    if value.len() > 63 {
        return wrong(format!("has {} bytes", value.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some((at, odd)) = value.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        return wrong(format!("has {odd:?} at position {}", at + 1));
    }
    let framed = |end: Option<char>| end.is_none_or(|c| c.is_ascii_alphanumeric());
    if !framed(value.chars().next()) || !framed(value.chars().last()) {
        return wrong("starts or ends with a sign".into());
    }
    Ok(())
}

fn image(value: &str) -> Result<(), InvalidValue> {
    const RULE: &str = "use registry/path:tag or registry/path@sha256:digest, without spaces, as in registry.example/ai-agents/api:1.4";
    let wrong = |problem: String| Err(InvalidValue::new("image", value, problem, RULE));
    if value.is_empty() {
        return wrong("is empty".into());
    }
    if value.len() > 512 {
        return wrong(format!("has {} bytes", value.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '+');
    if let Some((at, odd)) = value.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        return wrong(format!("has {odd:?} at position {}", at + 1));
    }
    let framed = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !framed(value.chars().next()) || !framed(value.chars().last()) {
        return wrong("starts or ends with a sign".into());
    }
    Ok(())
}

fn display_name(value: &str) -> Result<(), InvalidValue> {
    const RULE: &str = "use 1 to 63 letters, digits, spaces and -_.,&()'/+, starting with a letter or digit and not ending with a space";
    let wrong = |problem: String| Err(InvalidValue::new("tenant name", value, problem, RULE));
    let length = value.chars().count();
    if length == 0 || length > 63 {
        return wrong(format!("has {length} characters"));
    }
    let allowed = |c: char| c.is_alphanumeric() || " -_.,&()'/+".contains(c);
    if let Some((at, odd)) = value.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        return wrong(format!("has {odd:?} at position {}", at + 1));
    }
    if !value.starts_with(char::is_alphanumeric) {
        return wrong("starts with a sign".into());
    }
    if value.ends_with(' ') {
        return wrong("ends with a space".into());
    }
    Ok(())
}

fn plain_text(what: &'static str, value: &str) -> Result<(), InvalidValue> {
    const RULE: &str = "use up to 4096 bytes of text without control characters";
    let wrong = |problem: String| Err(InvalidValue::new(what, value, problem, RULE));
    if value.len() > 4096 {
        return wrong(format!("has {} bytes", value.len()));
    }
    match value.chars().enumerate().find(|(_, c)| c.is_control()) {
        Some((at, odd)) => wrong(format!("has {odd:?} at position {}", at + 1)),
        None => Ok(()),
    }
}

fn ipv4_range(value: &str) -> Result<(), InvalidValue> {
    const RULE: &str = "use an IPv4 network address and its length, as in 10.0.0.0/8";
    let wrong = |problem: &str| Err(InvalidValue::new("address range", value, problem, RULE));
    let Some((address, length)) = value.split_once('/') else {
        return wrong("has no '/length'");
    };
    let Ok(IpAddr::V4(address)) = address.parse::<IpAddr>() else {
        return wrong("has no IPv4 address");
    };
    let plain = !length.is_empty() && length.len() <= 2 && length.bytes().all(|b| b.is_ascii_digit());
    let Some(length) = length.parse::<u32>().ok().filter(|length| plain && *length <= 32) else {
        return wrong("has a length that is not 0 to 32");
    };
    let host_bits = u32::MAX.checked_shr(length).unwrap_or(0);
    if address.to_bits() & host_bits != 0 {
        return wrong("has address bits beyond its length");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::word("acme")]
    #[case::dashes("acme-corp-2")]
    #[case::one_letter("a")]
    #[case::digits("007")]
    #[case::looks_like_a_bool("no")]
    #[case::default("default")]
    #[case::longest("a23456789-123456789-123456789-123456789-123456789-123")]
    fn tenant_ids_that_become_namespaces(#[case] id: &str) {
        let id: TenantId = id.parse().unwrap();
        assert!(id.namespace().len() <= 63);
    }

    #[rstest]
    #[case::empty("", "is empty")]
    #[case::upper("UPPER", "has 'U' at position 1")]
    #[case::underscore("a_b", "has '_' at position 2")]
    #[case::dot("a.b", "has '.' at position 2")]
    #[case::space("a b", "has ' ' at position 2")]
    #[case::slash("../x", "has '.' at position 1")]
    #[case::newline("a\nb", "has '\\n' at position 2")]
    #[case::umlaut("m\u{fc}ller", "has '\u{fc}' at position 2")]
    #[case::leading_dash("-a", "starts with '-'")]
    #[case::trailing_dash("a-", "ends with '-'")]
    #[case::too_long("a23456789-123456789-123456789-123456789-123456789-1234", "has 54 characters")]
    fn tenant_ids_that_do_not(#[case] id: &str, #[case] problem: &str) {
        let error = id.parse::<TenantId>().unwrap_err();
        assert_eq!(error.problem, problem);
        assert!(
            error.to_string().contains("use 1 to 53 of a-z, 0-9 and '-'"),
            "{error}"
        );
    }

    #[rstest]
    #[case::network("10.0.0.0/8", true)]
    #[case::one_address("203.0.113.10/32", true)]
    #[case::everything("0.0.0.0/0", true)]
    #[case::no_length("10.0.0.0", false)]
    #[case::host_bits("10.1.0.0/8", false)]
    #[case::too_long("10.0.0.0/33", false)]
    #[case::signed("10.0.0.0/+8", false)]
    #[case::ipv6("fd00::/8", false)]
    #[case::injected("10.0.0.0/8\n", false)]
    fn address_ranges(#[case] range: &str, #[case] valid: bool) {
        assert_eq!(range.parse::<Ipv4Range>().is_ok(), valid);
    }

    #[rstest]
    #[case::same("10.0.0.0/8", "10.0.0.0/8", true)]
    #[case::part("10.0.0.0/8", "10.1.2.0/24", true)]
    #[case::whole("10.1.2.0/24", "10.0.0.0/8", true)]
    #[case::everything("0.0.0.0/0", "192.0.2.1/32", true)]
    #[case::beside("10.0.0.0/9", "10.128.0.0/9", false)]
    #[case::one_address_and_the_next("192.0.2.0/32", "192.0.2.1/32", false)]
    fn ranges_that_have_addresses_in_common(#[case] one: &str, #[case] other: &str, #[case] overlap: bool) {
        let (one, other): (Ipv4Range, Ipv4Range) = (one.parse().unwrap(), other.parse().unwrap());
        assert_eq!(one.overlaps(&other), overlap);
        assert_eq!(other.overlaps(&one), overlap);
    }

    #[rstest]
    #[case::name("cost-center", None)]
    #[case::domain("example.com/cost-center", None)]
    #[case::upper_case("Team", None)]
    #[case::not_kubernetes("notkubernetes.io/x", None)]
    #[case::empty("", Some("has no name"))]
    #[case::no_name("example.com/", Some("has no name"))]
    #[case::two_slashes("a/b/c", Some("has '/' at position 2"))]
    #[case::space("cost center", Some("has ' ' at position 5"))]
    #[case::upper_case_domain("Example.com/x", Some("has a label \"Example\" that has 'E' at position 1"))]
    #[case::owner("managed-by", Some("is the platform's to set"))]
    #[case::tenant("tenant", Some("is the platform's to set"))]
    #[case::app("app", Some("is the platform's to set"))]
    #[case::selected_by("name", Some("is the platform's to set"))]
    #[case::platform("ai-agents-platform/run-id", Some("is the platform's to set"))]
    #[case::pod_security("pod-security.kubernetes.io/enforce", Some("is Kubernetes' own"))]
    #[case::namespace_name("kubernetes.io/metadata.name", Some("is Kubernetes' own"))]
    #[case::short("node.k8s.io/x", Some("is Kubernetes' own"))]
    fn keys_of_a_tenant_s_own_labels(#[case] key: &str, #[case] problem: Option<&str>) {
        let read = key.parse::<MetadataKey>();
        assert_eq!(read.err().map(|error| error.problem).as_deref(), problem);
    }

    #[rstest]
    #[case::plain("ai-agents.local/probe:1", true)]
    #[case::digest("r.example:5000/a/b@sha256:0123", true)]
    #[case::empty("", false)]
    #[case::quote("a\"b", false)]
    #[case::newline("a\nb", false)]
    #[case::braces("{{TENANT_ID}}", false)]
    fn images(#[case] image: &str, #[case] valid: bool) {
        assert_eq!(image.parse::<ImageReference>().is_ok(), valid);
    }

    #[rstest]
    #[case::plain("Acme Corp. (EU)", true)]
    #[case::letters("\u{dc}bung & S\u{f6}hne", true)]
    #[case::empty("", false)]
    #[case::colon("a: b", false)]
    #[case::hash("a #b", false)]
    #[case::quote("a\"", false)]
    #[case::newline("a\nkind: ClusterRole", false)]
    fn display_names(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(name.parse::<DisplayName>().is_ok(), valid);
    }
}
