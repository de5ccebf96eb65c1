//! RBAC-06: a tenant's account cannot be taken for anybody else, and cannot give itself more rights. Impersonation is tried for real, by
//! requests that everybody may make as himself and that change nothing; what a request cannot show by itself is asked about.

use crate::account::{self, act_as, own_control};
use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::{ANSWER, permitted};
use crate::context::Context;
use crate::denial::{Denial, classify};
use crate::error::{HarnessError, chain};
use crate::resource::Resource;
use crate::rules::{self, Rule};
use crate::subject::{self, Subject};
use crate::verdict::{Control, Finding, Observation, Observed, Verdict, judge_denied, prove};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use http::Request;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use provisioner::TenantId;
use serde_json::json;
use std::time::Duration;

/// The check.
pub(super) struct Rbac06;

static INFO: CheckInfo = CheckInfo {
    id: "RBAC-06",
    title: "a tenant's account can impersonate nobody, and neither escalate nor bind",
    profile: Profile::Baseline,
    severity: Severity::Critical,
    footprint: Footprint::Read,
    why: "Whoever may impersonate has the rights of whom he names: a neighbour's account, an administrators' group. The verbs escalate and bind lead to any right in two steps.",
    how: "A token is minted for the tenant's account and asked who it is. With it the API server is asked to take us for a made-up user, for one in platform-admins and in system:masters, with another uid and with extra fields, and for service accounts: the neighbours', the namespace's default, one of kube-system. Each must be refused by RBAC itself, in the account's own name. Access reviews for impersonate on users, groups, uids, userextras and serviceaccounts, and for escalate and bind, must say no, and the API server's own list of the account's rights, in its own and the neighbours' namespaces, must hold none of these verbs. Controls: the same token lists pods at home, and we ourselves are taken for the made-up user by the same headers.",
    remedy: "take impersonate, escalate and bind out of the roles that are bound to the account: kubectl get rolebindings,clusterrolebindings -A -o wide. Where the control does not hold, run with the context of an administrator who may impersonate users, or waive RBAC-06",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

/// The group of the platform's administrators, and the one that no authorizer is asked about (Kubernetes, "Role-based access control good
/// practices").
const GROUPS: [&str; 2] = ["platform-admins", "system:masters"];
/// Verbs that lead to rights that one does not have (Kubernetes, "Using RBAC Authorization", "Privilege escalation prevention and
/// bootstrapping"). Newer API servers know several that begin with the first.
const WAYS_UP: [&str; 3] = ["impersonate", "escalate", "bind"];
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
/// Where uids and extra fields belong (Kubernetes, "User Impersonation").
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

impl Check for Rbac06 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::each(tenants)
    }

    fn needs(&self, _subject: &Subject, tenants: &[TenantId]) -> Vec<Resource> {
        tenants.iter().cloned().map(Resource::Tenant).collect()
    }

    fn run<'a>(&self, cx: &'a Context, subject: &'a Subject) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx, subject.tenant()?).await }.boxed()
    }
}

/// Somebody that the API server is asked to take us for.
#[derive(Clone)]
struct Guise {
    /// For people: `user x in group y`.
    what: String,
    user: String,
    /// Headers beside that of the user.
    more: Vec<(&'static str, &'static str)>,
}

impl Guise {
    fn user(user: &str) -> Self {
        Guise {
            what: user.to_owned(),
            user: user.to_owned(),
            more: Vec::new(),
        }
    }

    fn with(self, header: &'static str, value: &'static str, words: &str) -> Self {
        Guise {
            what: format!("{} {words} {value}", self.what),
            more: vec![(header, value)],
            ..self
        }
    }
}

async fn judge(cx: &Context, tenant: &TenantId) -> Result<Verdict, HarnessError> {
    let site = &cx.site;
    let mut namespaces = vec![tenant.namespace()];
    let mut controls = Vec::new();
    for each in &site.settings.tenants {
        cx.stage.tenant(&each.id).await?;
        if each.id != *tenant {
            namespaces.push(each.namespace());
            // Its own rights are in force: so would a right be that was given there to somebody else.
            let neighbour = act_as(cx, &each.id).await?;
            controls.push(own_control(&neighbour, &each.id, site).await);
        }
    }
    let client = act_as(cx, tenant).await?;
    controls.push(own_control(&client, tenant, site).await);
    let me = account::name(tenant);
    let guises = guises(cx, tenant);
    let (tried, asked, listed, able, permitted) = futures::join!(
        future::join_all(guises.iter().map(|guise| attempt(cx, &client, guise, &me))),
        future::join_all(
            ways_up(cx, tenant)
                .into_iter()
                .map(|way| ask(&client, tenant, way))
        ),
        rules::sift(&client, &me, &namespaces, |namespace, rules| {
            held_but_forbidden(tenant, namespace, rules)
        }),
        able(cx, &guises[0]),
        ask(&client, tenant, at_home(tenant)),
    );
    controls.extend([able, Control::reached(&permitted)]);
    let (findings, unknown) = listed;
    let probes = [tried, asked, unknown].concat();
    Ok(judge_denied(&prove(&controls), &probes).with_findings(findings))
}

/// Whom a tenant would like to be. The first is nobody, and has no rights of his own.
fn guises(cx: &Context, tenant: &TenantId) -> Vec<Guise> {
    let nobody = Guise::user(&cx.site.mark.run.owner());
    let mut all = vec![nobody.clone()];
    all.extend(GROUPS.map(|group| nobody.clone().with("Impersonate-Group", group, "in group")));
    all.push(nobody.clone().with("Impersonate-Uid", "0", "with uid"));
    all.push(nobody.with("Impersonate-Extra-Scopes", "all", "with extra field scopes"));
    all.push(Guise::user(&account::username(
        &tenant.namespace(),
        account::DEFAULT,
    )));
    all.push(Guise::user(&account::username("kube-system", account::DEFAULT)));
    let others = cx
        .site
        .settings
        .tenants
        .iter()
        .filter(|other| other.id != *tenant);
    all.extend(others.map(|other| Guise::user(&account::name(&other.id))));
    all
}

/// Whether the account is taken for somebody else.
async fn attempt(cx: &Context, client: &kube::Client, guise: &Guise, me: &str) -> Observed {
    let observation = match who_am_i(cx, client, guise).await {
        Answer::Review(review) => taken_for(*review, guise, me),
        Answer::Refused(denial, message) => refused(&denial, &message, me),
        Answer::None(why) => Observation::Broken(why),
    };
    Observed {
        what: format!("{me} may impersonate {}", guise.what),
        observation,
    }
}

/// That the same header makes the server take us ourselves for somebody else: it is read there, and may be granted.
async fn able(cx: &Context, guise: &Guise) -> Control {
    let me = &cx.site.cluster.user;
    let observation = match who_am_i(cx, &cx.site.cluster.client, guise).await {
        Answer::Review(review) => taken_for(*review, guise, me),
        Answer::Refused(_, message) => Observation::Denied(message),
        Answer::None(why) => Observation::Broken(why),
    };
    Control::reached(&Observed {
        what: format!("{me} is taken for {} by the same header", guise.what),
        observation,
    })
}

/// What the API server says of who we are.
enum Answer {
    /// Whom it takes us for.
    Review(Box<SelfSubjectReview>),
    /// It refused the question, with these words.
    Refused(Denial, String),
    /// Nothing that says anything.
    None(String),
}

/// Asks the API server who we are, in a guise. That question is everybody's to ask (Kubernetes, "Using RBAC Authorization", ClusterRole
/// `system:basic-user`), so a refusal is the impersonation's, which is authorized first and in the name of who really asks
/// (Kubernetes, "User Impersonation").
async fn who_am_i(cx: &Context, client: &kube::Client, guise: &Guise) -> Answer {
    let _turn = cx.site.cluster.pace.one_of_many().await;
    let request = match request(guise) {
        Ok(request) => request,
        Err(error) => return Answer::None(chain(&error)),
    };
    match tokio::time::timeout(ANSWER, client.request::<SelfSubjectReview>(request)).await {
        Ok(Ok(review)) => Answer::Review(Box::new(review)),
        Ok(Err(kube::Error::Api(status))) => Answer::Refused(classify(&status), status.message),
        Ok(Err(error)) => Answer::None(chain(&error)),
        Err(_) => Answer::None(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

fn request(guise: &Guise) -> Result<Request<Vec<u8>>, http::Error> {
    let review = json!({ "apiVersion": format!("{AUTHENTICATION_GROUP}/v1"), "kind": "SelfSubjectReview" });
    let mut request = Request::post(format!("/apis/{AUTHENTICATION_GROUP}/v1/selfsubjectreviews"))
        .header("Content-Type", "application/json")
        .header("Impersonate-User", &guise.user);
    for (name, value) in &guise.more {
        request = request.header(*name, *value);
    }
    request.body(review.to_string().into_bytes())
}

fn taken_for(review: SelfSubjectReview, guise: &Guise, me: &str) -> Observation {
    let info = review.status.and_then(|status| status.user_info);
    let name = info.and_then(|info| info.username).unwrap_or_default();
    if name == guise.user {
        Observation::Reached(format!("the API server takes it for {name}"))
    } else if name == me {
        Observation::Broken("the headers did not arrive: it is taken for itself".to_owned())
    } else {
        Observation::Broken(format!("the API server takes it for {name}"))
    }
}

/// A refusal in another name comes from behind the impersonation.
fn refused(denial: &Denial, message: &str, me: &str) -> Observation {
    if *denial == Denial::Rbac && !message.contains(&format!("User \"{me}\"")) {
        return Observation::Reached(format!("impersonated: it was then refused as another: {message}"));
    }
    denial.as_authorization(message)
}

/// What must not be granted, by the API server's own word: some of these are of no use alone, and show in no request.
fn ways_up(cx: &Context, tenant: &TenantId) -> Vec<ResourceAttributes> {
    let of = |verb: &str, group: &str, resource: &str| ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        ..ResourceAttributes::default()
    };
    let mut all = vec![
        of("impersonate", "", "users"),
        of("impersonate", AUTHENTICATION_GROUP, "uids"),
        ResourceAttributes {
            subresource: Some("scopes".to_owned()),
            ..of("impersonate", AUTHENTICATION_GROUP, "userextras")
        },
    ];
    all.extend(GROUPS.map(|group| ResourceAttributes {
        name: Some(group.to_owned()),
        ..of("impersonate", "", "groups")
    }));
    for each in &cx.site.settings.tenants {
        all.push(ResourceAttributes {
            name: (each.id != *tenant).then(|| format!("sa-{}", each.id)),
            namespace: Some(each.namespace()),
            ..of("impersonate", "", "serviceaccounts")
        });
    }
    for verb in ["escalate", "bind"] {
        all.push(of(verb, RBAC_GROUP, "clusterroles"));
        all.push(ResourceAttributes {
            namespace: Some(tenant.namespace()),
            ..of(verb, RBAC_GROUP, "roles")
        });
    }
    all
}

/// What a tenant may do: its access reviews can say yes.
fn at_home(tenant: &TenantId) -> ResourceAttributes {
    ResourceAttributes {
        verb: Some("list".to_owned()),
        resource: Some("pods".to_owned()),
        namespace: Some(tenant.namespace()),
        ..ResourceAttributes::default()
    }
}

async fn ask(client: &kube::Client, tenant: &TenantId, way: ResourceAttributes) -> Observed {
    let word = |field: &Option<String>| field.clone().unwrap_or_default();
    let mut what = format!("sa-{tenant} may {} {}", word(&way.verb), word(&way.resource));
    if let Some(part) = way.subresource.as_ref().or(way.name.as_ref()) {
        what = format!("{what} {part}");
    }
    if let Some(namespace) = &way.namespace {
        what = format!("{what} in {namespace}");
    }
    let observation = match permitted(client, way).await {
        Ok(true) => Observation::Reached("its access review says yes".to_owned()),
        Ok(false) => Observation::Denied("its access review says no".to_owned()),
        Err(error) => return Observed::unknown(what, &error),
    };
    Observed { what, observation }
}

fn held_but_forbidden(tenant: &TenantId, namespace: &str, rules: &[Rule]) -> Vec<Finding> {
    let leads_up = |rule: &&Rule| rule.verb == "*" || WAYS_UP.iter().any(|verb| rule.verb.starts_with(verb));
    let held: Vec<String> = rules.iter().filter(leads_up).map(ToString::to_string).collect();
    if held.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        expected: format!(
            "the rights of sa-{tenant} in {namespace} hold no {}",
            WAYS_UP.join(", ")
        ),
        seen: held.join(", "),
    }]
}

#[cfg(test)]
mod tests;
