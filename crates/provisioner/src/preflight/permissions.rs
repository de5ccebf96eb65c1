//! Whether whoever runs this may do what is necessary: the API server is asked by SelfSubjectAccessReview
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access>). What is necessary is said by the
//! operations themselves, for the kinds that the manifests hold.

use super::{Check, Finding, Look, State};
use crate::apply::objects;
use crate::calls::{self, CallError};
use crate::kinds::{self, Scope};
use crate::manifest::Manifest;
use crate::needs::Need;
use crate::tenant::{Platform, Tenant};
use crate::{Templates, delete, ready, registration, render_platform};
use futures::FutureExt;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use kube::core::DynamicObject;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// So many of what is missing are told one by one.
const TOLD: usize = 6;

/// One finding for each tenant.
pub(super) async fn look(look: &Look<'_>, version: Option<u32>) -> Vec<Finding> {
    let asker = Asker { look };
    let mut wanted: Vec<(String, Vec<Need>)> = Vec::new();
    for (tenant, manifests) in look.request.tenants {
        wanted.push((tenant.id.to_string(), of_tenant(tenant, manifests, version)));
    }
    if look.request.platform_apply {
        for shared in super::surroundings::distinct(look.tenants().map(|tenant| &tenant.shared_services)) {
            let platform = Platform {
                shared_services: shared.clone(),
                ..Platform::default()
            };
            let manifests = match render_platform(&platform, &Templates::embedded_platform()) {
                Ok(manifests) => manifests,
                Err(error) => {
                    return vec![Finding::new(
                        Check::Permissions,
                        "platform",
                        State::Unknown,
                        error.to_string(),
                    )];
                }
            };
            let namespace = shared.namespace.as_str();
            wanted.push(("platform".to_owned(), of_objects(&manifests, namespace)));
        }
    }
    let everything: BTreeSet<Need> = wanted.iter().flat_map(|(_, needs)| needs.clone()).collect();
    let answers = match asker.ask_all(everything).await {
        Ok(answers) => answers,
        Err(error) => {
            let undecided = |(of, _): &(String, _)| Finding::undecided(Check::Permissions, of, &error);
            return wanted.iter().map(undecided).collect();
        }
    };
    let mut findings = Vec::new();
    for ((of, needs), manifests) in wanted.iter().zip(
        look.request
            .tenants
            .iter()
            .map(|(_, manifests)| manifests.as_slice())
            .chain(std::iter::repeat(&[][..])),
    ) {
        let mut lacking: Vec<String> = needs
            .iter()
            .filter(|need| !answers.get(need).copied().unwrap_or(false))
            .map(ToString::to_string)
            .collect();
        match asker.grants(manifests).await {
            Ok(more) => lacking.extend(more),
            Err(error) => {
                findings.push(Finding::undecided(Check::Permissions, of, &error));
                continue;
            }
        }
        findings.push(if lacking.is_empty() {
            let all = format!("all {} are yours", needs.len());
            Finding::new(Check::Permissions, of, State::Ok, all)
        } else {
            let detail = format!("you may not: {}", listing(&lacking));
            Finding::new(Check::Permissions, of, State::Missing, detail).mend(asker.remedy().await)
        });
    }
    findings
}

fn listing(lacking: &[String]) -> String {
    let told = lacking.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    match lacking.len().saturating_sub(TOLD) {
        0 => told,
        more => format!("{told}; and {more} more"),
    }
}

/// What an apply of the tenant, its registration, the wait for its readiness and its deletion need, in this version of Kubernetes.
fn of_tenant(tenant: &Tenant, manifests: &[Manifest], version: Option<u32>) -> Vec<Need> {
    let namespace = tenant.namespace();
    let mut needs = of_objects(manifests, &namespace);
    needs.extend(ready::needs(manifests, &namespace));
    needs.extend(delete::needs(&namespace));
    if tenant.registration {
        needs.extend(registration::needs(tenant, version));
    }
    needs.sort();
    needs.dedup();
    needs
}

/// What an apply of these manifests needs, the removal of what they no longer contain included.
pub(super) fn of_objects(manifests: &[Manifest], namespace: &str) -> Vec<Need> {
    let kinds: BTreeMap<&str, _> = manifests
        .iter()
        .map(|manifest| (manifest.kind.kind, manifest.kind))
        .collect();
    let mut needs: Vec<Need> = kinds
        .values()
        .flat_map(|kind| {
            let verbs: &[&str] = if **kind == kinds::NAMESPACE {
                &objects::NAMESPACE_VERBS
            } else {
                &objects::VERBS
            };
            Need::on_kind(verbs, kind, namespace).collect::<Vec<_>>()
        })
        .collect();
    needs.sort();
    needs
}

struct Asker<'l, 'a> {
    look: &'l Look<'a>,
}

impl Asker<'_, '_> {
    /// Asks for each. What is wanted in many namespaces is asked for in all of them at once first: an empty namespace stands for all
    /// (`ResourceAttributes.namespace` in
    /// <https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-access-review-v1/>).
    async fn ask_all(&self, needs: BTreeSet<Need>) -> Result<BTreeMap<Need, bool>, CallError> {
        let mut by_right: BTreeMap<Need, Vec<Need>> = BTreeMap::new();
        for need in needs {
            let right = Need {
                namespace: None,
                ..need.clone()
            };
            by_right.entry(right).or_default().push(need);
        }
        let asked = by_right
            .into_iter()
            .map(|(right, needs)| self.ask_right(right, needs).boxed());
        let answers = calls::all(asked).await;
        let answers: Vec<_> = answers.into_iter().collect::<Result<_, _>>()?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn ask_right(&self, right: Need, needs: Vec<Need>) -> Result<Vec<(Need, bool)>, CallError> {
        if needs.len() > 1 && self.allowed(&right).await? {
            return Ok(needs.into_iter().map(|need| (need, true)).collect());
        }
        let mut answers = Vec::new();
        for need in needs {
            let allowed = self.allowed(&need).await?;
            answers.push((need, allowed));
        }
        Ok(answers)
    }

    async fn allowed(&self, need: &Need) -> Result<bool, CallError> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(need.verb.clone()),
                    group: Some(need.group.clone()),
                    resource: Some(need.resource.clone()),
                    subresource: need.subresource.clone(),
                    name: need.name.clone(),
                    namespace: need.namespace.clone(),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.look.client.clone());
        let what = format!("ask whether you may {need}");
        let parameters = PostParams::default();
        let answer = self
            .look
            .calls
            .make(what, || api.create(&parameters, &review))
            .await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// What is lacking for the manifests' roles and bindings: a role may be written by who holds all its rights, or may `escalate` roles; a
    /// binding by who holds all the rights of its role, or may `bind` it
    /// (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>).
    async fn grants(&self, manifests: &[Manifest]) -> Result<Vec<String>, CallError> {
        let mut lacking = Vec::new();
        for manifest in manifests {
            let (verb, role) = match manifest.kind.kind {
                "Role" => ("escalate", Some(manifest)),
                "RoleBinding" => ("bind", bound(manifest, manifests)),
                _ => continue,
            };
            if self.allowed(&may(verb, manifest)).await? {
                continue;
            }
            let object = manifest.reference();
            let Some(role) = role else {
                lacking.push(format!("{verb} the role of {object}"));
                continue;
            };
            let rights = rights(&role.object);
            let answers = self.ask_all(rights.iter().cloned().collect()).await?;
            let missing: Vec<String> = answers
                .iter()
                .filter(|(_, allowed)| !**allowed)
                .map(|(need, _)| need.to_string())
                .collect();
            if !missing.is_empty() {
                lacking.push(format!(
                    "write {object}, since you may neither {verb} nor {}",
                    listing(&missing)
                ));
            }
        }
        Ok(lacking)
    }

    /// Who is asking, and how the rights come to them.
    async fn remedy(&self) -> String {
        let api: Api<SelfSubjectReview> = Api::all(self.look.client.clone());
        let (parameters, review) = (PostParams::default(), SelfSubjectReview::default());
        let asked = self
            .look
            .calls
            .make("ask who you are", || api.create(&parameters, &review))
            .await;
        let user = asked
            .ok()
            .and_then(|review| review.status?.user_info?.username)
            .unwrap_or_else(|| "YOU".to_owned());
        format!(
            "use a member of the group platform-admins, or a cluster administrator; one of those can give you the rights: kubectl create clusterrolebinding ai-agents-platform-admin-more --clusterrole=ai-agents-platform-admin --user='{user}'"
        )
    }
}

/// The right to write this role or binding whatever it holds.
fn may(verb: &str, manifest: &Manifest) -> Need {
    let namespace = manifest.object.metadata.namespace.as_deref();
    let role = match verb {
        "escalate" => manifest.name(),
        _ => manifest.object.data["roleRef"]["name"]
            .as_str()
            .unwrap_or_default(),
    };
    let (resource, namespace) = match manifest.object.data["roleRef"]["kind"].as_str() {
        Some("ClusterRole") => ("clusterroles", None),
        _ => ("roles", namespace),
    };
    Need::new(verb, ("rbac.authorization.k8s.io", resource), namespace).named(role)
}

/// The role that a binding is about, where it is among the manifests.
fn bound<'m>(binding: &Manifest, manifests: &'m [Manifest]) -> Option<&'m Manifest> {
    let reference = &binding.object.data["roleRef"];
    manifests.iter().find(|manifest| {
        reference["kind"] == manifest.kind.kind
            && reference["name"] == manifest.name()
            && manifest.kind.scope == Scope::Namespaced
    })
}

/// The rights that a role gives, one by one.
fn rights(role: &DynamicObject) -> Vec<Need> {
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let values = rule[field].as_array().into_iter().flatten();
        values
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let namespace = role.metadata.namespace.as_deref();
    let mut rights = Vec::new();
    for rule in role.data["rules"].as_array().into_iter().flatten() {
        let names = list(rule, "resourceNames");
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                for verb in list(rule, "verbs") {
                    let (resource, subresource) = match resource.split_once('/') {
                        Some((resource, subresource)) => (resource, Some(subresource)),
                        None => (resource.as_str(), None),
                    };
                    let mut right = Need::new(&verb, (&group, resource), namespace);
                    if let Some(subresource) = subresource {
                        right = right.of(subresource);
                    }
                    match names.as_slice() {
                        [] => rights.push(right),
                        names => rights.extend(names.iter().map(|name| right.clone().named(name))),
                    }
                }
            }
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Stamp, render};
    use serde_json::json;

    fn manifests() -> Vec<Manifest> {
        let tenant = Tenant::standard("acme".parse().unwrap());
        render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap()
    }

    #[test]
    fn what_apply_needs_follows_from_the_kinds_of_the_manifests() {
        let needs = of_objects(&manifests(), "ai-agents-acme");
        let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
        assert!(needs.contains(&"patch deployments.apps in ai-agents-acme".to_owned()));
        assert!(needs.contains(&"create namespaces".to_owned()));
        assert!(!needs.iter().any(|need| need.contains("ingresses")));
        assert!(!needs.contains(&"delete namespaces".to_owned()));
    }

    #[test]
    fn the_rights_of_a_role_are_asked_for_one_by_one() {
        let role = json!({
            "metadata": {"name": "r", "namespace": "n"},
            "rules": [
                {"apiGroups": ["", "apps"], "resources": ["pods/log"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"], "verbs": ["get", "*"]},
            ],
        });
        let rights = rights(&serde_json::from_value(role).unwrap());
        let rights: Vec<String> = rights.iter().map(ToString::to_string).collect();
        assert_eq!(
            rights,
            [
                "get pods/log in n",
                "get pods.apps/log in n",
                "get secrets s in n",
                "* secrets s in n"
            ]
        );
    }

    #[test]
    fn a_binding_is_judged_by_the_role_that_it_binds() {
        let manifests = manifests();
        let binding = manifests
            .iter()
            .find(|manifest| manifest.kind.kind == "RoleBinding")
            .unwrap();
        assert_eq!(bound(binding, &manifests).unwrap().kind.kind, "Role");
        assert_eq!(
            may("bind", binding).to_string(),
            "bind roles.rbac.authorization.k8s.io tenant-acme-role in ai-agents-acme"
        );
    }

    #[test]
    fn of_many_rights_the_first_are_told_and_the_rest_counted() {
        let many: Vec<String> = (0..8).map(|number| number.to_string()).collect();
        assert_eq!(listing(&many), "0; 1; 2; 3; 4; 5; and 2 more");
    }
}
