//! What a check is, and the list of all of them. A check lives in a file of its own below `check/`, named after its id; lists, help,
//! plan and reports derive from [`CheckInfo`].

use crate::context::Context;
use crate::error::HarnessError;
use crate::ledger::Entry;
use crate::names::RunId;
use crate::resource::Resource;
use crate::subject::Subject;
use crate::verdict::Verdict;
use futures::future::BoxFuture;
use provisioner::{Tenant, TenantId};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

mod adm_02;
mod adm_03;
mod adm_04;
mod adm_05;
mod adm_06;
mod app_01;
mod app_02;
mod app_03;
mod app_05;
mod app_07;
mod app_08;
mod app_09;
mod app_17;
mod net_01;
mod net_02;
mod net_03;
mod net_05;
mod net_06;
mod net_07;
mod net_08;
mod net_09;
mod net_10;
mod net_11;
mod net_12;
mod net_15;
mod net_17;
mod net_18;
mod pg_01;
mod pg_02;
mod pg_04;
mod prov_01;
mod prov_02;
mod prov_04;
mod prov_05;
mod prov_13;
pub(crate) mod prov_14;
mod quo_01;
mod quo_02;
mod quo_03;
mod quo_04;
mod quo_08;
mod rbac_01;
mod rbac_02;
mod rbac_05;
mod rbac_06;
mod rbac_13;
mod rbac_15;
mod rbac_16;
mod rd_02;
pub mod sen_01;

/// Every check, in the order of reports.
pub const ALL: &[&dyn Check] = &[
    &net_01::Net01,
    &sen_01::Sen01,
    &net_02::Net02,
    &net_03::Net03,
    &net_05::Net05,
    &net_06::Net06,
    &net_07::Net07,
    &net_08::Net08,
    &net_09::Net09,
    &net_10::Net10,
    &net_11::Net11,
    &net_12::Net12,
    &net_15::Net15,
    &net_17::Net17,
    &net_18::Net18,
    &quo_01::Quo01,
    &quo_02::Quo02,
    &quo_03::Quo03,
    &quo_04::Quo04,
    &quo_08::Quo08,
    &rbac_01::Rbac01,
    &rbac_02::Rbac02,
    &rbac_05::Rbac05,
    &rbac_06::Rbac06,
    &rbac_13::Rbac13,
    &rbac_15::Rbac15,
    &rbac_16::Rbac16,
    &adm_02::CHECK,
    &adm_03::CHECK,
    &adm_04::CHECK,
    &adm_05::CHECK,
    &adm_06::CHECK,
    &pg_01::Pg01,
    &pg_02::Pg02,
    &pg_04::Pg04,
    &rd_02::Rd02,
    &app_01::App01,
    &app_02::App02,
    &app_03::App03,
    &app_05::App05,
    &app_07::App07,
    &app_08::App08,
    &app_09::App09,
    &app_17::App17,
    &prov_01::Prov01,
    &prov_02::Prov02,
    &prov_04::Prov04,
    &prov_05::Prov05,
    &prov_13::Prov13,
    &prov_14::Prov14,
];

/// One question about a cluster.
pub trait Check: Sync {
    /// What it is: constant.
    fn info(&self) -> &'static CheckInfo;

    /// What it is asked about, for these tenants.
    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject>;

    /// What it needs the run to put up for a subject. Only what is named here can be had from the [`Context`].
    fn needs(&self, subject: &Subject, tenants: &[TenantId]) -> Vec<Resource>;

    /// What the cluster must offer for it to be judged.
    fn requires(&self) -> &'static [Requirement] {
        &[]
    }

    /// What it makes itself at most, beside what it needs.
    fn objects(&self, _subject: &Subject, _tenants: &[Tenant], _run: &RunId) -> Vec<Entry> {
        Vec::new()
    }

    /// Whether it is answered once more, from the beginning, where it was undecided: for those that take seconds and change nothing.
    fn second_try(&self) -> bool {
        false
    }

    /// Answers it for one subject.
    ///
    /// # Errors
    /// What kept it from an answer; the item is then inconclusive.
    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>>;
}

/// Something that not every cluster offers or allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A pod of ours in the ingress controller's namespace.
    IngressNamespace,
    /// A host on the internet that answers.
    Internet,
    /// Leave to send webhooks to the tenants' applications, and an address for them.
    Webhooks,
    /// An API server that has ValidatingAdmissionPolicies.
    AdmissionPolicies,
}

/// What is known of a check before it runs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckInfo {
    /// The catalogue's id, `NET-02`; never changes.
    pub id: &'static str,
    /// The promise, as a claim that passes or fails.
    pub title: &'static str,
    /// The set of promises it belongs to.
    pub profile: Profile,
    /// How bad it is where the promise is broken, for a hostile tenant next door.
    pub severity: Severity,
    /// What it does to the cluster.
    pub footprint: Footprint,
    /// Why it matters.
    pub why: &'static str,
    /// How it is shown, and against which control.
    pub how: &'static str,
    /// What to do where it fails.
    pub remedy: &'static str,
    /// When it may run.
    pub schedule: Schedule,
    /// How long one subject may take once what it needs is there.
    #[serde(skip)]
    pub timeout: Duration,
}

/// Sets of promises, each including the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What the platform promises.
    Core,
    /// What any sane cluster provisioned by us holds.
    Baseline,
    /// The rest of the catalogue.
    Hardened,
}

/// How bad a broken promise is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Another tenant's data or identity is open.
    Critical,
    /// One layer of defence is gone, or another tenant can be starved.
    High,
    /// Harm needs a second fault.
    Medium,
    /// A nuisance.
    Low,
}

/// What a check does to the cluster it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Footprint {
    /// Reads and access reviews.
    Read,
    /// Server-side dry runs.
    DryRun,
    /// Objects in namespaces that the run made, and its own pods in a tenant.
    OwnObjects,
    /// Its own pods in a namespace that others share.
    SharedNamespace,
    /// May harm others; refused but on local clusters.
    LabOnly,
}

/// When a check may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Beside the others.
    Concurrent,
    /// Alone.
    Exclusive,
    /// Once everything that the run made has been removed.
    AfterCleanUp,
}

macro_rules! display_as_serialized {
    ($($name:ty),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(out)
            }
        }
    )+};
}
display_as_serialized!(Profile, Severity, Footprint, Schedule);

/// Whether it is one of the gate against escape to the node: a tenant that becomes root there voids every other promise, so that nothing is
/// called isolated before these have passed.
pub fn is_of_the_gate(id: &str) -> bool {
    id.starts_with("ADM-")
}

/// The check with this id, whatever its case.
pub fn find(id: &str) -> Option<&'static dyn Check> {
    ALL.iter()
        .copied()
        .find(|check| check.info().id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_name_a_file() {
        let mut seen = Vec::new();
        for check in ALL {
            let id = check.info().id;
            assert!(!seen.contains(&id), "{id} twice");
            seen.push(id);
            let file = format!(
                "{}/src/check/{}.rs",
                env!("CARGO_MANIFEST_DIR"),
                id.to_lowercase().replace('-', "_")
            );
            assert!(std::path::Path::new(&file).exists(), "{file}");
        }
    }

    #[test]
    fn every_check_explains_itself() {
        for check in ALL {
            let info = check.info();
            for text in [info.title, info.why, info.how, info.remedy] {
                assert!(text.len() > 20, "{}: {text:?}", info.id);
            }
            assert!(info.timeout >= Duration::from_secs(5), "{}", info.id);
        }
    }

    #[test]
    fn a_check_is_found_in_any_case() {
        assert_eq!(find("net-01").unwrap().info().id, "NET-01");
        assert!(find("NET-99").is_none());
    }
}
