//! PROV-05: what isolates a tenant is still what its templates say, and nobody put anything beside it that widens the tenant. The comparison
//! is that of `provisioner diff`; what of it has nothing to do with isolation is left to others.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::{Cause, Control, Evidence, Finding, Verdict, prove};
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::diff::{self, Difference, Extra, Extras, FieldChange, ObjectDifference, Options, State};
use provisioner::{Manifest, Silent, TenantId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The check.
pub(super) struct Prov05;

static INFO: CheckInfo = CheckInfo {
    id: "PROV-05",
    title: "what isolates the tenant is as its templates say, and nothing of others widens it",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::DryRun,
    why: "Policies, bindings and quotas are edited by hand in the night and stay that way; and what allows adds up: a second policy or a second binding opens what the first ones close, and no apply takes it away. Probes find what they try; this finds what nobody tried.",
    how: "Everything that the templates make of the tenant is applied in a dry run and compared with what is there, as `provisioner diff` does: namespace, quotas, LimitRange, account, Role, RoleBinding, policies and Services must be there and the same in every field that the templates set. Then everything else of these kinds is looked at, whoever made it, and cluster-wide bindings of tenants' accounts and of everybody: nothing may allow, give or expose more than the templates do. What only tightens, and labels of somebody's own, are no drift. Control: the same comparison with templates that are stricter (quotas of nothing, no policy, no binding) names every quota as larger, and every policy and binding as one too many; and all objects of the templates are among those that were looked at.",
    remedy: "provisioner diff --tenant-id ID shows the same, with who made what; provisioner apply (with --force-conflicts where others set fields) brings the templates' objects back, and what others added is deleted by hand, or made a template where it is meant",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(60),
};

/// What isolates a tenant, or limits it.
const ISOLATING: [&str; 8] = [
    "Namespace",
    "ResourceQuota",
    "LimitRange",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "NetworkPolicy",
    "Service",
];
/// Kinds of which everything is looked at, whoever made it.
const LOOKED_AT: [&str; 4] = ["ResourceQuota", "RoleBinding", "NetworkPolicy", "Service"];
/// Notes for people and programs, which limit nobody.
const ANNOTATIONS: &str = ".metadata.annotations";

impl Check for Prov05 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        subject
            .tenant()
            .map(|tenant| Resource::Tenant(tenant.clone()))
            .into_iter()
            .collect()
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    cx.stage.tenant(tenant).await?;
    let manifests = cx.site.manifests(tenant)?;
    let stricter = stricter(&manifests);
    let (found, strict) = futures::join!(
        compare(cx, tenant, &manifests, Extras::InCluster),
        compare(cx, tenant, &stricter, Extras::Nowhere),
    );
    let found = found?;
    let findings = findings(&found);
    if !findings.is_empty() {
        return Ok(Verdict::Failed {
            findings,
            observed: observed(&found),
        });
    }
    let proven = match prove(&controls(&manifests, &found, &strict?)) {
        Ok(proven) => proven,
        Err(unproven) => return Ok(Verdict::inconclusive(unproven.to_string())),
    };
    if !found.unseen.is_empty() {
        return Ok(Verdict::Inconclusive(Cause {
            what: format!("could not be looked at: {}", found.unseen.join("; ")),
            hint: Some("run with an account that may list these".to_owned()),
        }));
    }
    Ok(Verdict::Passed(Evidence {
        summary: summary(&found),
        controls: proven.controls().to_vec(),
        observed: observed(&found),
        ..Evidence::default()
    }))
}

async fn compare(
    cx: &Context,
    tenant: &TenantId,
    manifests: &[Manifest],
    extras: Extras,
) -> Result<Difference, HarnessError> {
    let options = Options {
        extras,
        ..Options::default()
    };
    let client = &cx.site.cluster.client;
    // Boxed, since it is large.
    Box::pin(diff::tenant(client, manifests, tenant, &options, &Silent))
        .await
        .map_err(|error| {
            let failed = HarnessError::during(format!("compare tenant {tenant} with its templates"), &error);
            match error.hint() {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        })
}

/// Templates of the namespace and of quotas that grant nothing: beside them everything else is too much.
fn stricter(manifests: &[Manifest]) -> Vec<Manifest> {
    let kept = manifests
        .iter()
        .filter(|manifest| matches!(manifest.kind.kind, "Namespace" | "ResourceQuota"));
    let mut kept: Vec<Manifest> = kept.cloned().collect();
    for manifest in &mut kept {
        let hard = manifest.object.data.pointer_mut("/spec/hard");
        for (_, value) in hard.and_then(Value::as_object_mut).into_iter().flatten() {
            *value = json!("0");
        }
    }
    kept
}

fn isolating(difference: &Difference) -> impl Iterator<Item = &ObjectDifference> {
    let objects = difference.objects.iter();
    objects.filter(|one| ISOLATING.contains(&one.object.kind.as_str()))
}

/// Each way in which the tenant is not what its templates say.
fn findings(found: &Difference) -> Vec<Finding> {
    let objects = isolating(found).flat_map(of_object);
    objects.chain(found.extras.iter().map(of_extra)).collect()
}

fn of_object(one: &ObjectDifference) -> Vec<Finding> {
    let object = &one.object;
    let finding = |expected: String, seen: String| Finding { expected, seen };
    match &one.state {
        State::Same => Vec::new(),
        State::Create => vec![finding(
            format!("{object} is there, as the templates say"),
            "it does not exist".to_owned(),
        )],
        State::Skip { why } => vec![finding(
            format!("{object} is there, as the templates say"),
            why.clone(),
        )],
        State::Prune => vec![finding(
            format!("there is no {object}: the templates have none"),
            "it is there, and was applied by the provisioner".to_owned(),
        )],
        State::Refused { why } => vec![finding(
            format!("{object} is what the templates say"),
            format!("it cannot become that: {why}"),
        )],
        State::Change(changes) | State::Foreign { changes, .. } => changes
            .iter()
            .filter(|change| !change.path.starts_with(ANNOTATIONS))
            .map(|change| of_field(one, change))
            .collect(),
    }
}

fn of_field(one: &ObjectDifference, change: &FieldChange) -> Finding {
    let show = |value: &Option<Value>| {
        value
            .as_ref()
            .map_or_else(|| "not set".to_owned(), Value::to_string)
    };
    let by = change.manager.as_deref();
    let by = by.map(|manager| format!(", set by {manager}"));
    Finding {
        expected: format!("{}: {} is {}", one.object, change.path, show(&change.in_template)),
        seen: format!("{}{}", show(&change.on_cluster), by.unwrap_or_default()),
    }
}

fn of_extra(extra: &Extra) -> Finding {
    let by = extra.made_by.as_deref().unwrap_or("nobody known");
    Finding {
        expected: format!(
            "nothing beside the templates opens the tenant, as {} would",
            extra.object
        ),
        seen: format!("made by {by}, it opens {}", extra.opens.join("; ")),
    }
}

/// That the same comparison sees what is wider than its templates, and that it was shown everything.
fn controls(manifests: &[Manifest], found: &Difference, strict: &Difference) -> Vec<Control> {
    let seen_as = |one: &ObjectDifference| {
        let strict = strict.objects.iter().find(|other| other.object == one.object);
        match (one.object.kind.as_str(), strict.map(|strict| &strict.state)) {
            ("ResourceQuota", Some(State::Change(changes))) if !changes.is_empty() => {
                Ok(format!("larger in {} fields", changes.len()))
            }
            ("NetworkPolicy" | "RoleBinding", Some(State::Prune)) => Ok("one too many".to_owned()),
            (_, state) => Err(format!("the comparison says {}", word(state))),
        }
    };
    let widening = isolating(found).filter(|one| {
        matches!(
            one.object.kind.as_str(),
            "ResourceQuota" | "NetworkPolicy" | "RoleBinding"
        )
    });
    let mut controls: Vec<Control> = widening
        .map(|one| Control {
            claim: format!("{} beside stricter templates", one.object),
            holds: seen_as(one),
        })
        .collect();
    controls.extend(LOOKED_AT.map(|kind| {
        let ours = manifests.iter().filter(|manifest| manifest.kind.kind == kind);
        let (ours, all) = (
            ours.count(),
            found.looked_at.get(kind).copied().unwrap_or_default(),
        );
        Control {
            claim: format!("all {kind} objects were looked at"),
            holds: if all >= ours {
                Ok(format!("{all}, of which {ours} are of the templates"))
            } else {
                Err(format!("{all} were seen, and the templates have {ours}"))
            },
        }
    }));
    controls
}

fn word(state: Option<&State>) -> &'static str {
    match state {
        None => "nothing",
        Some(State::Same) => "it is the same",
        Some(State::Create) => "it does not exist",
        Some(State::Change(_)) => "nothing of it differs but who set it",
        Some(State::Skip { .. }) => "the server has no such kind",
        Some(State::Prune) => "it is one too many",
        Some(State::Foreign { .. }) => "it is somebody else's",
        Some(State::Refused { .. }) => "the API server refuses it",
    }
}

fn summary(found: &Difference) -> String {
    let left_out: Vec<&str> = found.left_out.iter().map(|it| it.name()).collect();
    let adopted = if left_out.is_empty() {
        String::new()
    } else {
        format!("; adopted without {}", left_out.join(", "))
    };
    format!(
        "{} objects are as the templates say, and none of {} looked at widens the tenant{adopted}",
        isolating(found).count(),
        found.looked_at.values().sum::<usize>()
    )
}

fn observed(found: &Difference) -> Vec<String> {
    let counts: BTreeMap<&str, usize> = found.looked_at.clone();
    let looked_at = counts
        .into_iter()
        .map(|(kind, count)| format!("looked at {count} {kind}"));
    isolating(found)
        .map(|one| format!("{}: {}", one.object, word_of(&one.state)))
        .chain(looked_at)
        .collect()
}

fn word_of(state: &State) -> &'static str {
    match state {
        State::Same => "as the templates say",
        State::Create => "does not exist",
        State::Change(_) | State::Foreign { .. } => "differs",
        State::Skip { .. } => "of a kind that the server does not have",
        State::Prune => "in no template",
        State::Refused { .. } => "refused",
    }
}

#[cfg(test)]
mod tests;
