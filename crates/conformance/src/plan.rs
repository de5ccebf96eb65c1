//! Which items a run judges, and what it has to put up for them. Pure: settings and facts in, a plan out; the plan is the list of
//! expected results.

use crate::check::{ALL, Check, Footprint, Schedule};
use crate::lease;
use crate::ledger::{Entry, Kind};
use crate::names::RunId;
use crate::resource::{Place, Resource};
use crate::settings::{SettingsError, known_check};
use crate::subject::Subject;
use provisioner::TenantId;
use std::collections::BTreeSet;
use std::fmt;

/// A check with its subject.
#[derive(Clone)]
pub struct Item {
    /// The check.
    pub check: &'static dyn Check,
    /// What it is about.
    pub subject: Subject,
    /// Why it is not judged this time, where it is not.
    pub left_out: Option<String>,
}

impl fmt::Display for Item {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.check.info().id, self.subject)
    }
}

/// Which checks are asked for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these ids, where there are any.
    pub only: Vec<String>,
    /// Not these.
    pub skip: Vec<String>,
    /// Leave everything in place: nothing can be said about what a run leaves behind.
    pub keep: bool,
}

/// What is known of the cluster when the plan is made.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether the cluster says of itself that it is local.
    pub local: bool,
    /// The names of the nodes that the enforcement canary covers.
    pub nodes: Vec<String>,
    /// The tenants that are absent: the run makes and removes them.
    pub absent: Vec<TenantId>,
}

/// What a run will do.
#[derive(Clone)]
pub struct Plan {
    /// Every item, in the order of reports.
    pub items: Vec<Item>,
    /// What the items need, closed under what that needs in turn.
    pub resources: BTreeSet<Resource>,
}

/// Makes the plan.
///
/// # Errors
/// An id that no check has.
pub fn plan(tenants: &[TenantId], selection: &Selection, facts: &Facts) -> Result<Plan, SettingsError> {
    for id in selection.only.iter().chain(&selection.skip) {
        known_check(id)?;
    }
    let mut items = Vec::new();
    let mut resources = BTreeSet::new();
    for check in ALL {
        let left_out = left_out(*check, selection, facts);
        for subject in check.subjects(tenants) {
            if left_out.is_none() {
                resources.extend(check.needs(&subject, tenants));
            }
            items.push(Item {
                check: *check,
                subject,
                left_out: left_out.clone(),
            });
        }
    }
    close(&mut resources);
    Ok(Plan { items, resources })
}

fn left_out(check: &dyn Check, selection: &Selection, facts: &Facts) -> Option<String> {
    let info = check.info();
    let named = |ids: &[String]| ids.iter().any(|id| id.eq_ignore_ascii_case(info.id));
    if !selection.only.is_empty() && !named(&selection.only) {
        return Some("not asked for (--only)".to_owned());
    }
    if named(&selection.skip) {
        return Some("left out by --skip".to_owned());
    }
    if info.footprint == Footprint::LabOnly && !facts.local {
        return Some("may harm others: it runs on local clusters only".to_owned());
    }
    if selection.keep && info.schedule == Schedule::AfterCleanUp {
        return Some(
            "everything is left in place by --keep: run `conformance clean`, then run again without it"
                .to_owned(),
        );
    }
    None
}

/// Adds what the resources need in turn.
fn close(resources: &mut BTreeSet<Resource>) {
    let mut more = Vec::new();
    for resource in resources.iter() {
        match resource {
            Resource::Workloads(tenant) | Resource::Agent(Place::Tenant(tenant, _)) => {
                more.push(Resource::Tenant(tenant.clone()));
            }
            Resource::Tenant(_) | Resource::Agent(_) | Resource::Enforcement => {}
        }
    }
    resources.extend(more);
}

impl Plan {
    /// The items that are judged.
    pub fn judged(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.left_out.is_none())
    }

    /// Every object that the run would create beside the tenants' own, and the tenants.
    pub fn objects(&self, tenants: &[TenantId], run: &RunId, facts: &Facts) -> Vec<Entry> {
        let mut objects: Vec<Entry> = tenants.iter().map(lease::entry).collect();
        for resource in &self.resources {
            objects.extend(resource_objects(resource, run, facts));
        }
        for item in self.judged() {
            objects.extend(item.check.objects(&item.subject, run));
        }
        let mut seen = BTreeSet::new();
        objects.retain(|entry| seen.insert((entry.kind, entry.namespace.clone(), entry.name.clone())));
        objects
    }
}

fn object(kind: Kind, namespace: &str, name: impl Into<String>) -> Entry {
    Entry {
        kind,
        namespace: Some(namespace.to_owned()),
        name: name.into(),
    }
}

fn own_namespace(name: &str) -> Entry {
    Entry {
        kind: Kind::Namespace,
        namespace: None,
        name: name.to_owned(),
    }
}

fn resource_objects(resource: &Resource, run: &RunId, facts: &Facts) -> Vec<Entry> {
    match resource {
        Resource::Tenant(id) if facts.absent.contains(id) => {
            vec![Entry {
                kind: Kind::Tenant,
                namespace: None,
                name: id.to_string(),
            }]
        }
        Resource::Tenant(_) | Resource::Workloads(_) => Vec::new(),
        Resource::Agent(Place::Tenant(tenant, costume)) => {
            let namespace = tenant.namespace();
            vec![
                object(Kind::ConfigMap, &namespace, run.owner()),
                object(Kind::Pod, &namespace, run.object(costume.word())),
            ]
        }
        Resource::Agent(place) => {
            let namespace = run.namespace(&place.to_string());
            vec![own_namespace(&namespace), object(Kind::Pod, &namespace, "agent")]
        }
        Resource::Enforcement => canary_objects(run, facts),
    }
}

fn canary_objects(run: &RunId, facts: &Facts) -> Vec<Entry> {
    let namespace = run.namespace("canary");
    let mut objects = vec![own_namespace(&namespace)];
    for index in 0..facts.nodes.len() {
        for role in ["open", "closed", "mute"] {
            objects.push(object(Kind::Pod, &namespace, format!("{role}-{index}")));
        }
    }
    for policy in ["deny-ingress", "deny-egress"] {
        objects.push(object(Kind::NetworkPolicy, &namespace, policy));
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn tenants() -> Vec<TenantId> {
        ["a", "b"]
            .iter()
            .map(|id| TenantId::try_from(*id).unwrap())
            .collect()
    }
    fn facts() -> Facts {
        Facts {
            local: true,
            nodes: vec!["n".into()],
            absent: tenants(),
        }
    }
    fn judged(selection: &Selection) -> Vec<String> {
        plan(&tenants(), selection, &facts())
            .unwrap()
            .judged()
            .map(ToString::to_string)
            .collect()
    }
    fn only(ids: &[&str]) -> Selection {
        Selection {
            only: ids.iter().map(|id| (*id).to_owned()).collect(),
            ..Selection::default()
        }
    }

    #[test]
    fn everything_is_judged_in_both_directions() {
        let expected = [
            "NET-01 cluster",
            "NET-02 a -> b",
            "NET-02 b -> a",
            "NET-03 a -> b",
            "NET-03 b -> a",
            "QUO-01 a",
            "QUO-01 b",
            "RBAC-01 a -> b",
            "RBAC-01 b -> a",
            "PROV-13 a",
            "PROV-13 b",
            "PROV-14 cluster",
        ];
        assert_eq!(judged(&Selection::default()), expected);
    }

    #[rstest]
    #[case::only(only(&["quo-01"]), &["QUO-01 a", "QUO-01 b"])]
    #[case::only_and_skip(Selection { skip: vec!["RBAC-01".into()], ..only(&["RBAC-01", "PROV-14"]) }, &["PROV-14 cluster"])]
    #[case::keep(Selection { keep: true, ..only(&["PROV-14"]) }, &[])]
    fn what_is_left_out_stays_in_the_plan_with_its_reason(
        #[case] selection: Selection,
        #[case] expected: &[&str],
    ) {
        assert_eq!(judged(&selection), expected);
        assert_eq!(plan(&tenants(), &selection, &facts()).unwrap().items.len(), 12);
    }

    #[test]
    fn an_unknown_id_is_an_error() {
        assert!(plan(&tenants(), &only(&["NET-99"]), &facts()).is_err());
    }

    #[test]
    fn only_what_is_needed_is_put_up() {
        let plan = plan(&tenants(), &only(&["RBAC-01"]), &facts()).unwrap();
        assert!(
            plan.resources
                .iter()
                .all(|resource| matches!(resource, Resource::Tenant(_))),
            "{:?}",
            plan.resources
        );
    }

    #[test]
    fn agents_and_workloads_bring_their_tenant() {
        let plan = plan(&tenants(), &only(&["NET-03"]), &facts()).unwrap();
        for tenant in tenants() {
            assert!(plan.resources.contains(&Resource::Tenant(tenant)));
        }
    }

    #[test]
    fn a_tenant_that_exists_is_not_among_the_objects() {
        let facts = Facts {
            absent: vec![],
            ..facts()
        };
        let plan = plan(&tenants(), &Selection::default(), &facts).unwrap();
        let objects = plan.objects(&tenants(), &RunId::parse("0a1b2c3d").unwrap(), &facts);
        assert!(objects.iter().all(|entry| entry.kind != Kind::Tenant));
    }
}
