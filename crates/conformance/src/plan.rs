//! Which items a run judges, and what it has to put up for them. Pure: settings and facts in, a plan out; the plan is the list of
//! expected results.

use crate::check::{ALL, Check, Footprint, Requirement, Schedule};
use crate::lease;
use crate::ledger::{Entry, Kind};
use crate::names::{JOB, RunId};
use crate::resource::{Costume, Place, Resource};
use crate::sealed;
use crate::settings::{SettingsError, known_check};
use crate::subject::Subject;
use provisioner::{Tenant, TenantId};
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
    pub left_out: Option<LeftOut>,
}

/// Why an item is not judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// It was chosen so.
    Chosen(String),
    /// The cluster does not offer or allow what it requires; with the remedy.
    Lacking(String),
}

impl LeftOut {
    /// For people.
    pub fn reason(&self) -> &str {
        match self {
            LeftOut::Chosen(reason) | LeftOut::Lacking(reason) => reason,
        }
    }
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
    /// What checks may require and this cluster does not offer or allow, and the remedy.
    pub lacking: Vec<(Requirement, String)>,
    /// The namespaces of agents that the run shares with others, those alone in which it may put one.
    pub shared: Vec<(Place, String)>,
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
    let may_use =
        |place: &Place| !place.is_shared() || facts.shared.iter().any(|(shared, _)| shared == place);
    resources.retain(|resource| !matches!(resource, Resource::Agent(place) if !may_use(place)));
    Ok(Plan { items, resources })
}

fn left_out(check: &dyn Check, selection: &Selection, facts: &Facts) -> Option<LeftOut> {
    let required = |(requirement, why): &(Requirement, String)| {
        check
            .requires()
            .contains(requirement)
            .then(|| LeftOut::Lacking(why.clone()))
    };
    chosen(check, selection, facts)
        .map(LeftOut::Chosen)
        .or_else(|| facts.lacking.iter().find_map(required))
}

fn chosen(check: &dyn Check, selection: &Selection, facts: &Facts) -> Option<String> {
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
            Resource::Workloads(tenant)
            | Resource::Registration(tenant)
            | Resource::Agent(Place::Tenant(tenant, _) | Place::Sealed(tenant, _)) => {
                more.push(Resource::Tenant(tenant.clone()));
            }
            Resource::Tenant(_)
            | Resource::Agent(_)
            | Resource::SharedServices
            | Resource::Enforcement
            // Checks name what these need: whose webhooks they are is not known here.
            | Resource::Webhooks
            | Resource::Deliveries => {}
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
    pub fn objects(&self, tenants: &[Tenant], run: &RunId, facts: &Facts) -> Vec<Entry> {
        let mut objects: Vec<Entry> = tenants.iter().map(|tenant| lease::entry(&tenant.id)).collect();
        for resource in &self.resources {
            objects.extend(resource_objects(resource, run, facts));
        }
        for item in self.judged() {
            objects.extend(item.check.objects(&item.subject, tenants, run));
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
        Resource::Tenant(_)
        | Resource::Workloads(_)
        | Resource::Registration(_)
        | Resource::SharedServices
        | Resource::Webhooks
        | Resource::Deliveries => Vec::new(),
        Resource::Agent(Place::Tenant(tenant, Costume::Stranger)) => {
            vec![object(Kind::Job, &tenant.namespace(), JOB)]
        }
        Resource::Agent(Place::Tenant(tenant, costume)) => {
            owned_agent(&tenant.namespace(), costume.word(), run)
        }
        Resource::Agent(Place::Sealed(_, number)) => sealed::objects(run, *number),
        Resource::Agent(Place::Open) => {
            let tenant = Entry {
                kind: Kind::Tenant,
                namespace: None,
                name: run.open_tenant(),
            };
            vec![
                tenant,
                object(Kind::Pod, &format!("ai-agents-{}", run.open_tenant()), "agent"),
            ]
        }
        Resource::Agent(place) if place.is_shared() => {
            let namespace = facts.shared.iter().find(|(shared, _)| shared == place);
            namespace.map_or_else(Vec::new, |(_, namespace)| {
                owned_agent(namespace, &place.to_string(), run)
            })
        }
        Resource::Agent(place) => {
            let namespace = run.namespace(&place.to_string());
            vec![own_namespace(&namespace), object(Kind::Pod, &namespace, "agent")]
        }
        Resource::Enforcement => canary_objects(run, facts),
    }
}

fn owned_agent(namespace: &str, word: &str, run: &RunId) -> Vec<Entry> {
    vec![
        object(Kind::ConfigMap, namespace, run.owner()),
        object(Kind::Pod, namespace, run.object(word)),
    ]
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
    fn standard() -> Vec<Tenant> {
        tenants().into_iter().map(Tenant::standard).collect()
    }
    fn facts() -> Facts {
        Facts {
            local: true,
            nodes: vec!["n".into()],
            absent: tenants(),
            lacking: vec![],
            shared: vec![
                (Place::Ingress, "ingress-nginx".into()),
                (Place::SharedServices, "database".into()),
            ],
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
    fn every_check_is_judged_for_every_subject_and_pairs_in_both_directions() {
        let judged = judged(&Selection::default());
        let planned: usize = ALL.iter().map(|check| check.subjects(&tenants()).len()).sum();
        assert_eq!(judged.len(), planned);
        for item in [
            "NET-02 a -> b",
            "NET-02 b -> a",
            "QUO-01 a",
            "QUO-01 b",
            "PROV-14 cluster",
        ] {
            assert!(judged.iter().any(|name| name == item), "{item}");
        }
    }

    #[test]
    fn what_the_cluster_lacks_leaves_out_the_checks_that_require_it_and_no_other() {
        let facts = Facts {
            lacking: vec![(Requirement::Internet, "name one".into())],
            ..facts()
        };
        let plan = plan(&tenants(), &Selection::default(), &facts).unwrap();
        let left_out: Vec<_> = plan
            .items
            .iter()
            .filter_map(|item| Some((item.to_string(), item.left_out.clone()?)))
            .collect();
        let lacking = LeftOut::Lacking("name one".into());
        assert_eq!(
            left_out,
            [
                ("NET-12 a".to_owned(), lacking.clone()),
                ("NET-12 b".to_owned(), lacking)
            ]
        );
    }

    #[test]
    fn what_may_harm_others_is_left_out_where_others_may_be() {
        let chosen = |local: bool| {
            let facts = Facts { local, ..facts() };
            let plan = plan(&tenants(), &only(&["NET-02", "NET-10"]), &facts).unwrap();
            let mut left_out = plan
                .items
                .into_iter()
                .filter(|item| item.to_string() == "NET-10 cluster");
            left_out.next().unwrap().left_out
        };
        assert_eq!(chosen(true), None);
        let why = chosen(false).unwrap();
        assert_eq!(why.reason(), "may harm others: it runs on local clusters only");
    }

    #[test]
    fn all_that_is_made_is_named_before() {
        let plan = plan(&tenants(), &only(&["NET-02"]), &facts()).unwrap();
        let objects = plan.objects(&standard(), &RunId::parse("0a1b2c3d").unwrap(), &facts());
        let made: BTreeSet<String> = objects.iter().map(ToString::to_string).collect();
        for expected in [
            "tenant a",
            "tenant b",
            "namespace conformance-0a1b2c3d-outsider",
            "pod agent in namespace conformance-0a1b2c3d-outsider",
            "namespace conformance-0a1b2c3d-canary",
            "pod mute-0 in namespace conformance-0a1b2c3d-canary",
            "networkpolicy deny-egress in namespace conformance-0a1b2c3d-canary",
        ] {
            assert!(made.contains(expected), "{expected} is not among {made:#?}");
        }
    }

    #[test]
    fn no_agent_is_put_into_a_namespace_of_others_that_may_not_be_used() {
        let facts = Facts {
            shared: vec![(Place::Ingress, "ingress-nginx".into())],
            ..facts()
        };
        let plan = plan(&tenants(), &only(&["NET-05"]), &facts).unwrap();
        assert!(plan.resources.contains(&Resource::Agent(Place::Ingress)));
        assert!(!plan.resources.contains(&Resource::Agent(Place::SharedServices)));
        let objects = plan.objects(&standard(), &RunId::parse("0a1b2c3d").unwrap(), &facts);
        let places: BTreeSet<_> = objects
            .iter()
            .filter_map(|entry| entry.namespace.as_deref())
            .collect();
        assert!(
            places.contains("ingress-nginx") && !places.contains("database"),
            "{places:?}"
        );
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
        let all: usize = ALL.iter().map(|check| check.subjects(&tenants()).len()).sum();
        assert_eq!(plan(&tenants(), &selection, &facts()).unwrap().items.len(), all);
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
        let objects = plan.objects(&standard(), &RunId::parse("0a1b2c3d").unwrap(), &facts);
        let made: Vec<&str> = objects
            .iter()
            .filter(|entry| entry.kind == Kind::Tenant)
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(made, ["open-0a1b2c3d"]);
    }
}
