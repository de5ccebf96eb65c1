//! RBAC-15: members of `platform-admins` may do what the platform asks of them, in every tenant; nobody else may, and they cannot take more.
//! A made-up user is impersonated in that group, in groups that look like it, and in none. Whatever could change something is a dry run.

use crate::access::{self, Access, Resource as ApiResource, VERBS};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::{ANSWER, allowed, identity};
use crate::context::Context;
use crate::denial::{Denial, classify};
use crate::error::{HarnessError, chain};
use crate::resource::Resource;
use crate::rules::{self, Rule};
use crate::stage::Site;
use crate::subject::{self, Subject};
use crate::verdict::{Cause, Control, Finding, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use provisioner::kinds::Scope;
use provisioner::{Manifest, Stamp, Templates, Tenant, TenantId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// The check.
pub(super) struct Rbac15;

static INFO: CheckInfo = CheckInfo {
    id: "RBAC-15",
    title: "platform-admins have the platform's rights in every tenant, and nobody else has",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::DryRun,
    why: "Whoever provisions tenants needs these rights, or works as cluster-admin instead; a group that is misspelt gives them to whoever is in that group; and with one wildcard they are the whole cluster's.",
    how: "A made-up user is impersonated as a member of platform-admins, and the API server is asked whom it takes us for. It must be able to list and delete each kind that the platform names, in each tenant, and to apply everything that a tenant consists of, and the API server's list of its rights must hold all verbs that are promised. The same user in `platform-admin`, in `Platform-Admins` and in no group must be refused by RBAC itself. As a member it must be refused nodes and what is below them, cluster-wide RBAC and webhooks, a Role of all rights and a binding to cluster-admin; its rights hold no wildcard, escalate, bind or impersonate. Changes are dry runs, and deletions of names that only the run uses.",
    remedy: "bring the ClusterRole ai-agents-platform-admin and its binding back to what the templates say (provisioner platform apply); kubectl get clusterrolebindings -o wide shows who is bound",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(300),
};

/// The group that the platform promises these rights to.
const GROUP: &str = "platform-admins";
/// Groups that a mistyped binding would name, and no group at all.
const OTHERS: [&[&str]; 3] = [&["platform-admin"], &["Platform-Admins"], &[]];
/// Every user that is not anonymous is in it.
const AUTHENTICATED: &str = "system:authenticated";

/// What the platform promises its administrators, in all verbs of [`VERBS`].
const HELD: [ApiResource; 17] = [
    ApiResource::core("resourcequotas"),
    ApiResource::core("limitranges"),
    ApiResource::core("serviceaccounts"),
    ApiResource::core("pods"),
    ApiResource::core("services"),
    ApiResource::core("configmaps"),
    ApiResource::core("secrets"),
    ApiResource::core("persistentvolumeclaims"),
    ApiResource::of("apps/v1", "deployments"),
    ApiResource::of("apps/v1", "replicasets"),
    ApiResource::of("batch/v1", "jobs"),
    ApiResource::of("autoscaling/v2", "horizontalpodautoscalers"),
    ApiResource::of("networking.k8s.io/v1", "networkpolicies"),
    ApiResource::of("networking.k8s.io/v1", "ingresses"),
    ApiResource::of("policy/v1", "poddisruptionbudgets"),
    ApiResource::of("rbac.authorization.k8s.io/v1", "roles"),
    ApiResource::of("rbac.authorization.k8s.io/v1", "rolebindings"),
];
const NAMESPACES: ApiResource = ApiResource::core("namespaces");
const ROLES: ApiResource = ApiResource::of("rbac.authorization.k8s.io/v1", "roles");
const BINDINGS: ApiResource = ApiResource::of("rbac.authorization.k8s.io/v1", "rolebindings");
/// And these single verbs.
const HELD_IN_PART: [(&[&str], ApiResource); 4] = [
    (&["get"], ApiResource::core("pods/log")),
    (&["get", "create"], ApiResource::core("pods/exec")),
    (&["get", "list", "watch"], ApiResource::core("events")),
    (&["create"], ApiResource::core("serviceaccounts/token")),
];
/// What is the cluster's, and no platform administrator's.
const NOT_HELD: [(&str, ApiResource); 8] = [
    ("list", ApiResource::core("nodes")),
    ("list", ApiResource::core("persistentvolumes")),
    (
        "create",
        ApiResource::of("rbac.authorization.k8s.io/v1", "clusterroles"),
    ),
    (
        "create",
        ApiResource::of("rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    ),
    (
        "create",
        ApiResource::of(
            "admissionregistration.k8s.io/v1",
            "validatingwebhookconfigurations",
        ),
    ),
    (
        "create",
        ApiResource::of("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
    ),
    (
        "create",
        ApiResource::of("certificates.k8s.io/v1", "certificatesigningrequests"),
    ),
    (
        "create",
        ApiResource::of("apiextensions.k8s.io/v1", "customresourcedefinitions"),
    ),
];
/// Verbs and resources that lead to more rights: asked about, since a request that used them would.
const WAYS_UP: [(&str, &str, &str); 8] = [
    ("escalate", "rbac.authorization.k8s.io", "roles"),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles"),
    ("bind", "rbac.authorization.k8s.io", "roles"),
    ("bind", "rbac.authorization.k8s.io", "clusterroles"),
    ("impersonate", "", "users"),
    ("impersonate", "", "groups"),
    ("impersonate", "", "serviceaccounts"),
    ("*", "*", "*"),
];

impl Check for Rbac15 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::cluster(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        tenants.iter().cloned().map(Resource::Tenant).collect()
    }

    fn run<'a>(
        &self,
        cx: &'a Context,
        _subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx).await }.boxed()
    }
}

async fn judge(cx: &Context) -> Result<Verdict, HarnessError> {
    let tenants = &cx.site.settings.tenants;
    for tenant in tenants {
        cx.stage.tenant(&tenant.id).await?;
    }
    let member = match impersonate(cx, &[GROUP]).await? {
        Ok(client) => client,
        Err(cause) => return Ok(Verdict::Inconclusive(cause)),
    };
    let mut others = Vec::new();
    for groups in OTHERS {
        match impersonate(cx, groups).await? {
            Ok(client) => others.push((groups, client)),
            Err(cause) => return Ok(Verdict::Inconclusive(cause)),
        }
    }
    let member = &member;
    let strangers = others.iter().map(|(groups, client)| stranger(cx, client, groups));
    let namespaces: Vec<String> = tenants.iter().map(Tenant::namespace).collect();
    let (held, (listed, unknown), refused, strangers) = futures::join!(
        future::join_all(tenants.iter().map(|tenant| use_rights(cx, member, tenant))),
        rules::sift(member, GROUP, &namespaces, |namespace, rules| {
            let missing = promised_but_missing(rules, namespace);
            missing.into_iter().chain(held_but_forbidden(rules)).collect()
        }),
        not_held(cx, member, tenants),
        future::join_all(strangers),
    );
    let (mut controls, mut findings) = (Vec::new(), Vec::new());
    let mut probes = [unknown, refused].concat();
    probes.extend(strangers.into_iter().flatten());
    for (tenant, held) in tenants.iter().zip(held) {
        match held {
            Ok(held) => {
                let (control, missing) = sorted(&tenant.id, held);
                controls.push(control);
                findings.extend(missing);
            }
            Err(error) => probes.push(Observed::unknown(
                format!("what a member of {GROUP} may do in {}", tenant.namespace()),
                &error,
            )),
        }
    }
    for finding in listed {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    Ok(judge_denied(&prove(&controls), &probes).with_findings(findings))
}

/// A client that the API server takes for a made-up user in these groups, or why there is none.
async fn impersonate(cx: &Context, groups: &[&str]) -> Result<Result<kube::Client, Cause>, HarnessError> {
    let user = cx.site.mark.run.owner();
    let client = cx.site.cluster.client_as(&user, groups)?;
    let doing = format!("impersonate {user} in {}", words(groups));
    let info = match tokio::time::timeout(ANSWER, identity(&client)).await {
        Ok(Ok(info)) => info,
        Ok(Err(kube::Error::Api(status))) if classify(&status) == Denial::Rbac => {
            return Ok(Err(Cause {
                what: format!("{doing}: {}", status.message),
                hint: Some(format!(
                    "let {} impersonate users and groups, run with the context of an administrator who may, or waive RBAC-15",
                    cx.site.cluster.user
                )),
            }));
        }
        Ok(Err(error)) => return Err(HarnessError::during(doing, &error)),
        Err(_) => {
            return Err(HarnessError::new(format!(
                "{doing}: no answer within {} s",
                ANSWER.as_secs()
            )));
        }
    };
    let expected: BTreeSet<&str> = groups.iter().copied().chain([AUTHENTICATED]).collect();
    let seen: BTreeSet<&str> = info.groups.iter().flatten().map(String::as_str).collect();
    let name = info.username.unwrap_or_default();
    // An administrator's own groups would pass for the rights of the group in question.
    if name != user || seen != expected {
        return Err(HarnessError::new(format!(
            "{doing}: the API server takes us for {name} in {seen:?}, expected {user} in {expected:?}"
        )));
    }
    Ok(Ok(client))
}

fn words(groups: &[&str]) -> String {
    if groups.is_empty() {
        "no group".to_owned()
    } else {
        format!("group {}", groups.join(", "))
    }
}

/// All that a member must be let through to in one tenant: what was tried, and what came of it.
async fn use_rights(
    cx: &Context,
    member: &kube::Client,
    tenant: &Tenant,
) -> Result<Vec<Observed>, HarnessError> {
    let (site, namespace) = (&cx.site, tenant.namespace());
    let nothing = site.mark.run.object("nothing");
    let mut asked = vec![
        claim("list", NAMESPACES, None, ""),
        claim("delete", NAMESPACES, None, &nothing),
    ];
    for resource in HELD {
        asked.push(claim("list", resource, Some(&namespace), ""));
        asked.push(claim("delete", resource, Some(&namespace), &nothing));
    }
    for (verbs, resource) in HELD_IN_PART {
        asked.extend(
            verbs
                .iter()
                .map(|verb| claim(verb, resource, Some(&namespace), &nothing)),
        );
    }
    let manifests = provisioner::render(tenant, &Templates::embedded(), &Stamp::default())
        .map_err(|error| HarnessError::during(format!("render tenant {}", tenant.id), &error))?;
    let applied = manifests
        .iter()
        .map(|manifest| apply(site, member, manifest, &namespace));
    let applied = future::join_all(applied);
    let (mut observed, applied) = futures::join!(access::ask_all(member, asked, site), applied);
    observed.extend(applied);
    Ok(observed)
}

fn claim<'a>(
    verb: &'static str,
    resource: ApiResource,
    namespace: Option<&'a str>,
    name: &'a str,
) -> (String, Access<'a>) {
    let place = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
    (
        format!("a member of {GROUP} may {verb} {resource}{place}"),
        Access::new(verb, resource, namespace, name),
    )
}

/// Applies an object as the provisioner does, in a dry run.
async fn apply(site: &Site, member: &kube::Client, manifest: &Manifest, namespace: &str) -> Observed {
    let resource = manifest.kind.resource();
    let objects: Api<DynamicObject> = match manifest.kind.scope {
        Scope::Namespaced => Api::namespaced_with(member.clone(), namespace, &resource),
        Scope::Cluster => Api::all_with(member.clone(), &resource),
    };
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::apply(provisioner::labels::FIELD_MANAGER)
    };
    let patch = Patch::Apply(&manifest.object);
    let _turn = site.cluster.pace.one_of_many().await;
    let observation =
        match tokio::time::timeout(ANSWER, objects.patch(manifest.name(), &params, &patch)).await {
            Ok(Ok(_)) => Observation::Reached("allowed".to_owned()),
            Ok(Err(kube::Error::Api(status))) => match classify(&status) {
                Denial::Escalation => Observation::Denied("RBAC's guard against escalation".to_owned()),
                denial => denial.as_authorization(&status.message),
            },
            Ok(Err(error)) => Observation::Broken(chain(&error)),
            Err(_) => Observation::Broken(format!("no answer within {} s", ANSWER.as_secs())),
        };
    Observed {
        what: format!("a member of {GROUP} may apply {}", manifest.reference()),
        observation,
    }
}

/// The control of one tenant, and which rights are missing there. Where all are, that is told once.
fn sorted(tenant: &TenantId, observed: Vec<Observed>) -> (Control, Vec<Finding>) {
    let all = observed.len();
    let (mut missing, mut broken) = (Vec::new(), None);
    for each in observed {
        match each.observation {
            Observation::Reached(_) => {}
            Observation::Denied(how) => missing.push(Finding {
                expected: each.what,
                seen: format!("denied ({how})"),
            }),
            Observation::Broken(why) => broken = Some(format!("{}: {why}", each.what)),
        }
    }
    let reached = all - missing.len();
    let control = Control {
        claim: format!("a member of {GROUP} is let through in {}", tenant.namespace()),
        holds: match broken {
            Some(why) => Err(why),
            None if reached == 0 => Err("not once".to_owned()),
            None => Ok(format!("{reached} of {all} requests")),
        },
    };
    if missing.len() == all {
        missing = vec![Finding {
            expected: format!(
                "members of {GROUP} have the platform's rights in {}",
                tenant.namespace()
            ),
            seen: format!(
                "none: {all} of {all} requests denied; the ClusterRole is not there, or not bound to this group"
            ),
        }];
    }
    (control, missing)
}

/// What a member's rights in one tenant lack, by the API server's own list.
fn promised_but_missing(rules: &[Rule], namespace: &str) -> Option<Finding> {
    let whole = HELD
        .iter()
        .chain([&NAMESPACES])
        .map(|resource| (&VERBS[..], *resource));
    let promised: Vec<(&str, ApiResource)> = whole
        .chain(HELD_IN_PART)
        .flat_map(|(verbs, resource)| verbs.iter().map(move |verb| (*verb, resource)))
        .collect();
    let missing: Vec<String> = promised
        .iter()
        .filter(|(verb, resource)| {
            !rules
                .iter()
                .any(|rule| rule.allows(verb, resource.group(), resource.name))
        })
        .map(|(verb, resource)| format!("{verb} {resource}"))
        .collect();
    // Where all are missing, the requests have told it.
    (!missing.is_empty() && missing.len() < promised.len()).then(|| Finding {
        expected: format!("the rights of {GROUP} in {namespace} hold all that the platform promises"),
        seen: format!("missing: {}", missing.join(", ")),
    })
}

fn held_but_forbidden(rules: &[Rule]) -> Option<Finding> {
    let leads_up = |rule: &&Rule| {
        [&rule.verb, &rule.group, &rule.resource]
            .into_iter()
            .any(|part| part == "*")
            || ["escalate", "bind", "impersonate"].contains(&rule.verb.as_str())
            || rule.resource == "nodes/proxy"
    };
    let forbidden: Vec<String> = rules.iter().filter(leads_up).map(ToString::to_string).collect();
    (!forbidden.is_empty()).then(|| Finding {
        expected: format!(
            "the rights of {GROUP} hold no wildcard, escalate, bind, impersonate or nodes/proxy"
        ),
        seen: forbidden.join(", "),
    })
}

/// What must be refused to a member.
async fn not_held(cx: &Context, member: &kube::Client, tenants: &[Tenant]) -> Vec<Observed> {
    let nothing = cx.site.mark.run.object("nothing");
    let node = cx.site.cluster.nodes.first().map_or("node", String::as_str);
    let mut asked: Vec<(String, Access<'_>)> = NOT_HELD
        .iter()
        .map(|(verb, resource)| claim(verb, *resource, None, &nothing))
        .collect();
    for verb in ["get", "create"] {
        asked.push(claim(verb, ApiResource::core("nodes/proxy"), None, node));
    }
    let namespaces: Vec<String> = tenants.iter().map(Tenant::namespace).collect();
    let (mut observed, asked_about) = futures::join!(
        access::ask_all(member, asked, &cx.site),
        future::join_all(WAYS_UP.map(|way| asked_about(member, way)))
    );
    observed.extend(asked_about);
    for namespace in &namespaces {
        observed.extend(escalations(cx, member, namespace, &nothing).await);
    }
    observed
}

async fn asked_about(member: &kube::Client, (verb, group, resource): (&'static str, &str, &str)) -> Observed {
    let what = format!("a member of {GROUP} may {verb} {resource}");
    let observation = match allowed(member, verb, group, resource).await {
        Ok(true) => Observation::Reached("its access review says yes".to_owned()),
        Ok(false) => Observation::Denied("its access review says no".to_owned()),
        Err(error) => return Observed::unknown(what, &error),
    };
    Observed { what, observation }
}

/// A Role with all rights, and a binding to the ClusterRole that has them: a member may write Roles and bindings, but none that give more
/// than it has.
async fn escalations(cx: &Context, member: &kube::Client, namespace: &str, name: &str) -> Vec<Observed> {
    let metadata = cx.site.mark.metadata(name, Some(namespace));
    let api = "rbac.authorization.k8s.io";
    let role = json!({
        "apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata,
        "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }],
    });
    let binding = json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": api, "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": api, "kind": "Group", "name": GROUP }],
    });
    let tried = [
        ("a Role of all rights", ROLES, role),
        ("a binding to cluster-admin", BINDINGS, binding),
    ];
    future::join_all(
        tried.map(|(word, resource, body): (&str, ApiResource, Value)| async move {
            let access = Access::new("create", resource, Some(namespace), name).with(body);
            let observation = match access::send(member, &access, &cx.site).await {
                Ok(_) => Observation::Reached("allowed".to_owned()),
                Err(access::Refusal::Refused(Denial::Escalation, _)) => {
                    Observation::Denied("RBAC's guard against escalation".to_owned())
                }
                Err(refusal) => refusal.as_authorization(),
            };
            Observed {
                what: format!("a member of {GROUP} may create {word} in {namespace}"),
                observation,
            }
        }),
    )
    .await
}

/// What somebody in none of the right groups tries.
async fn stranger(cx: &Context, client: &kube::Client, groups: &[&str]) -> Vec<Observed> {
    let nothing = cx.site.mark.run.object("nothing");
    let namespaces: Vec<String> = cx.site.settings.tenants.iter().map(Tenant::namespace).collect();
    let who = format!("a user in {}", words(groups));
    let mut asked = vec![(
        format!("{who} may list namespaces"),
        Access::new("list", NAMESPACES, None, ""),
    )];
    for namespace in &namespaces {
        for (verb, resource) in [
            ("list", ApiResource::core("pods")),
            ("list", ApiResource::core("secrets")),
            ("create", BINDINGS),
            ("delete", ApiResource::of("apps/v1", "deployments")),
            ("patch", ApiResource::core("resourcequotas")),
            ("create", ApiResource::core("serviceaccounts/token")),
            ("create", ApiResource::core("pods/exec")),
        ] {
            asked.push((
                format!("{who} may {verb} {resource} in {namespace}"),
                Access::new(verb, resource, Some(namespace), &nothing),
            ));
        }
    }
    access::ask_all(client, asked, &cx.site).await
}

#[cfg(test)]
mod tests;
