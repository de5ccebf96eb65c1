//! What the standard templates hold beside what a platform was promised, and what a namespace that was adopted may do without: each is
//! opted in to by name, and what was opted in to is written on the namespace ([`labels::HARDENING`]), where every later apply finds it.
//! Pure. A namespace without that annotation has all of it.

use crate::labels;
use crate::manifest::Manifest;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Something that keeps a tenant in, and that workloads made before it may not be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hardening {
    /// Pod Security `restricted` is enforced; without it the namespace only warns and writes to the audit log
    /// (<https://kubernetes.io/docs/concepts/security/pod-security-admission/#pod-security-admission-labels-for-namespaces>).
    PodSecurity,
    /// The policy `default-deny-egress`.
    DefaultDenyEgress,
    /// The LimitRange, which gives containers requests and limits that name none.
    LimitRange,
    /// The ranges that do not count as the internet in `allow-egress-shared-services`: private networks, the cloud's metadata service.
    InternetExcept,
}

impl Hardening {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::PodSecurity,
        Self::DefaultDenyEgress,
        Self::LimitRange,
        Self::InternetExcept,
    ];

    /// Its name, as in `pod-security`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PodSecurity => "pod-security",
            Self::DefaultDenyEgress => "default-deny-egress",
            Self::LimitRange => "limitrange",
            Self::InternetExcept => "internet-except",
        }
    }

    /// What is open without it.
    #[must_use]
    pub fn without(self) -> &'static str {
        match self {
            Self::PodSecurity => "privileged pods are admitted, with a warning",
            Self::DefaultDenyEgress => "pods that no other policy for egress selects reach everything",
            Self::LimitRange => "the quota refuses containers that name no requests and limits",
            Self::InternetExcept => {
                "private address ranges and the cloud's metadata service count as the internet, on ports 80 and 443"
            }
        }
    }

    /// Takes it out of the manifest; whether anything of the manifest is left.
    fn take_out(self, manifest: &mut Manifest) -> bool {
        match (self, manifest.kind.kind) {
            (Self::PodSecurity, "Namespace") => {
                if let Some(labels) = &mut manifest.object.metadata.labels {
                    labels.retain(|label, _| !label.starts_with(ENFORCE));
                }
            }
            (Self::DefaultDenyEgress, "NetworkPolicy") => return manifest.name() != "default-deny-egress",
            (Self::LimitRange, "LimitRange") => return false,
            (Self::InternetExcept, "NetworkPolicy") => {
                for block in address_blocks(&mut manifest.object.data) {
                    block.remove("except");
                }
            }
            _ => {}
        }
        true
    }
}

/// `enforce` and `enforce-version`.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// The word for all of it, whatever a later version adds.
const ALL: &str = "all";
/// The word for nothing of it: an annotation without a value looks like a mistake.
const NONE: &str = "none";

fn address_blocks(policy: &mut Value) -> impl Iterator<Item = &mut serde_json::Map<String, Value>> {
    let rules = policy.pointer_mut("/spec/egress").and_then(Value::as_array_mut);
    let peers = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.get_mut("to").and_then(Value::as_array_mut));
    peers
        .flatten()
        .filter_map(|peer| peer.get_mut("ipBlock").and_then(Value::as_object_mut))
}

impl fmt::Display for Hardening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for Hardening {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What was opted in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hardened {
    /// Everything, also what a later version adds.
    All,
    /// These.
    Only(BTreeSet<Hardening>),
}

impl Default for Hardened {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Hardened {
    /// What the namespace's annotations say; none where they say nothing: then it was not adopted, and has everything. Words that this
    /// version does not know are a later version's.
    #[must_use]
    pub fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = annotations.get(labels::HARDENING)?;
        let words = || text.split([',', ' ']).filter(|word| !word.is_empty());
        if words().any(|word| word == ALL) {
            return Some(Self::All);
        }
        Some(Self::Only(words().filter_map(|word| named(word).ok()).collect()))
    }

    /// This and that.
    #[must_use]
    pub fn with(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(one), Self::Only(more)) => Self::Only(one.union(more).copied().collect()),
            _ => Self::All,
        }
    }

    /// What is left out.
    #[must_use]
    pub fn left_out(&self) -> Vec<Hardening> {
        match self {
            Self::All => Vec::new(),
            Self::Only(some) => {
                let all = Hardening::ALL.into_iter();
                all.filter(|hardening| !some.contains(hardening)).collect()
            }
        }
    }

    /// The manifests without what is left out, and with the annotation that says so on the namespace.
    #[must_use]
    pub fn applied_to(&self, manifests: &[Manifest]) -> Vec<Manifest> {
        let left_out = self.left_out();
        let mut kept = manifests.to_vec();
        kept.retain_mut(|manifest| {
            // Each takes out what is its own, also where nothing is left of the manifest.
            let emptied = left_out.iter().filter(|hardening| !hardening.take_out(manifest));
            emptied.count() == 0
        });
        for manifest in kept.iter_mut().filter(|it| it.kind.kind == "Namespace") {
            let annotations = manifest.object.metadata.annotations.get_or_insert_default();
            annotations.insert(labels::HARDENING.to_owned(), self.to_string());
        }
        kept
    }
}

/// The manifests as this namespace wants them: all of them, but where it was adopted without some hardening.
#[must_use]
pub fn honour<'m>(manifests: &'m [Manifest], annotations: &BTreeMap<String, String>) -> Cow<'m, [Manifest]> {
    match Hardened::of(annotations) {
        Some(hardened) => Cow::Owned(hardened.applied_to(manifests)),
        None => Cow::Borrowed(manifests),
    }
}

impl fmt::Display for Hardened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str(ALL),
            Self::Only(some) if some.is_empty() => f.write_str(NONE),
            Self::Only(some) => {
                let names: Vec<&str> = some.iter().map(|hardening| hardening.name()).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// A name that no hardening has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no hardening; there are: {known}, {ALL}", known = Hardening::ALL.map(Hardening::name).join(", "))]
pub struct UnknownHardening(String);

fn named(word: &str) -> Result<Hardening, UnknownHardening> {
    let mut all = Hardening::ALL.into_iter();
    all.find(|hardening| hardening.name() == word)
        .ok_or_else(|| UnknownHardening(word.to_owned()))
}

/// Reads names divided by commas, `all` or `none`.
impl FromStr for Hardened {
    type Err = UnknownHardening;

    fn from_str(text: &str) -> Result<Self, UnknownHardening> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let mut hardened = Self::default();
        for word in words {
            hardened = match word {
                ALL => Self::All,
                NONE => hardened,
                word => hardened.with(&Self::Only(BTreeSet::from([named(word)?]))),
            };
        }
        Ok(hardened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Stamp, Templates, Tenant, render};
    use rstest::rstest;

    fn manifests() -> Vec<Manifest> {
        let tenant = Tenant::standard("acme".parse().unwrap());
        render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap()
    }

    fn annotated(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(labels::HARDENING.to_owned(), text.to_owned())])
    }

    /// What of each hardening is in the manifests.
    fn found(manifests: &[Manifest]) -> Vec<Hardening> {
        let text = |manifest: &Manifest| serde_json::to_string(&manifest.object).unwrap();
        let is_there = |hardening: &Hardening| match hardening {
            Hardening::PodSecurity => text(&manifests[0]).contains("pod-security.kubernetes.io/enforce"),
            Hardening::DefaultDenyEgress => manifests.iter().any(|it| it.name() == "default-deny-egress"),
            Hardening::LimitRange => manifests.iter().any(|it| it.kind.kind == "LimitRange"),
            Hardening::InternetExcept => manifests.iter().any(|it| text(it).contains("\"except\"")),
        };
        Hardening::ALL.into_iter().filter(is_there).collect()
    }

    #[rstest]
    #[case::none("none", &[])]
    #[case::one("limitrange", &[Hardening::LimitRange])]
    #[case::two("pod-security,internet-except", &[Hardening::PodSecurity, Hardening::InternetExcept])]
    #[case::word_of_a_later_version("default-deny-egress,quantum", &[Hardening::DefaultDenyEgress])]
    #[case::all("all", &Hardening::ALL)]
    fn what_was_not_opted_in_to_is_left_out_and_the_rest_stays(
        #[case] annotation: &str,
        #[case] expected: &[Hardening],
    ) {
        let all = manifests();
        let honoured = honour(&all, &annotated(annotation));
        assert_eq!(found(&honoured), expected);
        let warns = honoured[0].object.metadata.labels.as_ref().unwrap();
        assert_eq!(warns["pod-security.kubernetes.io/warn"], "restricted");
        assert_eq!(warns["pod-security.kubernetes.io/audit"], "restricted");
        // Every other object is as it was.
        let left_out = 4 - expected.len();
        let gone = all.len() - honoured.len();
        assert!(gone <= left_out && gone <= 2, "{gone}");
    }

    #[test]
    fn a_namespace_that_was_not_adopted_has_everything() {
        let all = manifests();
        assert!(matches!(honour(&all, &BTreeMap::new()), Cow::Borrowed(_)));
        assert_eq!(found(&all), Hardening::ALL);
    }

    #[rstest]
    #[case::none("", "none")]
    #[case::said("none", "none")]
    #[case::in_their_order("limitrange,pod-security", "pod-security,limitrange")]
    #[case::spaces(" limitrange , internet-except", "limitrange,internet-except")]
    #[case::all("pod-security,all", "all")]
    fn the_annotation_says_what_the_command_line_said(#[case] text: &str, #[case] annotation: &str) {
        let hardened: Hardened = text.parse().unwrap();
        assert_eq!(hardened.to_string(), annotation);
        assert_eq!(Hardened::of(&annotated(annotation)), Some(hardened.clone()));
        let namespace = &hardened.applied_to(&manifests())[0];
        assert_eq!(
            namespace.object.metadata.annotations.as_ref().unwrap()[labels::HARDENING],
            annotation
        );
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_exist() {
        let error = "podsecurity".parse::<Hardened>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"podsecurity\" is no hardening; there are: pod-security, default-deny-egress, limitrange, internet-except, all"
        );
    }
}
