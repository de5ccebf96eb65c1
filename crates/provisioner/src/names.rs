//! Values that are safe to put into a template, because their type says which characters they hold:
//! tenant ids, object names, image references, ports, address ranges. Numbers of resources are in
//! [`crate::quantity`].

use crate::labels;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
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
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
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
    TenantId, |value| dns_label("tenant id", value, 53,
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
    DnsName, |value| dns_label("name", value, 63,
        "use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit")
}

text! {
    /// A dotted DNS name: a cluster's domain.
    DomainName, domain
}

text! {
    /// The value of a label: empty, or up to 63 of letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit.
    LabelValue, label_value
}

text! {
    /// A database of PostgreSQL: 1 to 63 of `a-z`, `0-9` and `_`, not starting with a digit.
    DatabaseName, database
}

text! {
    /// A reference to a container image, with registry, tag and digest as wanted.
    ImageReference, image
}

text! {
    /// A tenant's name for people: up to 63 letters, digits, spaces and `-_.,&()'/+`.
    DisplayName, display_name
}

text! {
    /// One argument of a command: any text without control characters. Templates put it in as `{{json …}}` only.
    Argument, argument
}

text! {
    /// A range of IPv4 addresses, as in `10.0.0.0/8`, without bits beyond its length.
    Ipv4Range, ipv4_range
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

fn argument(value: &str) -> Result<(), InvalidValue> {
    const RULE: &str = "use up to 4096 bytes of text without control characters";
    let wrong = |problem: String| Err(InvalidValue::new("argument", value, problem, RULE));
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
