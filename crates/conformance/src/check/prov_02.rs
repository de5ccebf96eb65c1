//! PROV-02: what is not a tenant's id is refused before anything is made of it, and the longest one that is makes names that the API server
//! takes. An id becomes a namespace, a label, a role in PostgreSQL and the beginning of keys in Redis.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::cluster::ANSWER;
use crate::context::Context;
use crate::denial::{Denial, classify};
use crate::error::{HarnessError, chain};
use crate::names::RunId;
use crate::resource::Resource;
use crate::stage;
use crate::subject::{self, Subject};
use crate::verdict::{Control, Evidence, Finding, Verdict, prove};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use kube::api::{Api, DynamicObject, PostParams};
use provisioner::kinds::{Kind, Scope};
use provisioner::{Manifest, Stamp, Templates, Tenant, TenantId};
use std::time::Duration;

/// The check.
pub(super) struct Prov02;

static INFO: CheckInfo = CheckInfo {
    id: "PROV-02",
    title: "what is no tenant's id is refused, and the longest id makes names that the API server takes",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::DryRun,
    why: "An id is written into names, selectors, SQL and keys: one with a quote, a colon, a `*` or a `/` would be read as something else there, and one that is too long makes a tenant of which half the objects are refused.",
    how: "The provisioner is given ids with upper case, `_`, `.`, `/`, wildcards, quotes, blanks, other alphabets, a `-` at either end, none at all and 54 characters, by themselves and in a tenant file: each must be refused. An id of 53 characters must be taken, and the tenant's own templates be rendered for it; the namespace and every object whose name holds the id are then created by a dry run, the latter under that name in the tenant's own namespace, and the API server must accept them. Control: the same dry run of a namespace that is one character longer is refused for its name.",
    remedy: "where an id is refused that should not be, or the other way round, provisioner and conformance are of different versions. Where the API server refuses a name, shorten it in your template: an id has up to 53 characters, a Service's name 63 in all",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(60),
};

/// Characters that an id may have (63 of a namespace's name without `ai-agents-`; Kubernetes, "Object Names and IDs", "RFC 1123 Label
/// Names").
const LONGEST: usize = 53;
/// What is no id. Names of the platform's own (`database`, `platform`) are: what is made of them begins with `ai-agents-` or `tenant-`.
const REFUSED: [&str; 24] = [
    "",
    "-",
    "-acme",
    "acme-",
    "Acme",
    "acme_corp",
    "acme.corp",
    "acme corp",
    " acme",
    "acme\n",
    "acmé",
    // A Cyrillic letter.
    "\u{430}cme",
    "acme\u{200b}",
    "a/../b",
    "../acme",
    "acme*",
    "acme?",
    "[a-z]",
    "acme:b",
    "acme'; drop table webhook; --",
    "acme\"",
    "acme$(id)",
    "{{TENANT_NAME}}",
    "acme,tenant=b",
];

impl Check for Prov02 {
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
    let mut findings = accepted();
    let templates = stage::templates(&cx.site, tenant);
    let made = match of_longest_id(&cx.site.mark.run, cx.site.tenant(tenant)?, &templates)? {
        Ok(made) => made,
        Err(finding) => {
            findings.push(finding);
            return Ok(failed(findings));
        }
    };
    let Some(namespace) = made.iter().find(|made| made.kind.scope == Scope::Cluster) else {
        return Err(HarnessError::new("the templates have no namespace"));
    };
    let too_long = namespace.one_longer();
    let tried = made.iter().map(|made| dry_run(cx, made));
    let (tried, control) = futures::join!(future::join_all(tried), dry_run(cx, &too_long));
    let mut undecided = Vec::new();
    for (made, answer) in made.iter().zip(tried) {
        match answer {
            Answer::Taken => {}
            Answer::Invalid(why) => findings.push(Finding {
                expected: format!(
                    "the API server takes {} of a tenant id of {LONGEST} characters",
                    made.what()
                ),
                seen: why,
            }),
            Answer::Other(why) => undecided.push(format!("{}: {why}", made.what())),
        }
    }
    if !findings.is_empty() {
        return Ok(failed(findings));
    }
    if let Some(first) = undecided.first() {
        return Ok(Verdict::inconclusive(format!(
            "whether the API server takes the names of the longest id could not be seen ({} of {}): {first}",
            undecided.len(),
            made.len()
        )));
    }
    let control = Control {
        claim: "a dry run of a namespace of 64 characters is refused for its name".to_owned(),
        holds: match control {
            Answer::Invalid(why) => Ok(why),
            Answer::Taken => Err("it was taken: dry runs do not look at names here".to_owned()),
            Answer::Other(why) => Err(why),
        },
    };
    Ok(match prove(&[control, files_are_read(&cx.site.mark.run)]) {
        Err(unproven) => Verdict::inconclusive(unproven.to_string()),
        Ok(proven) => Verdict::Passed(Evidence {
            summary: format!(
                "{} of {0} ids that are none refused; {} of {1} names of the longest id taken; control: {}",
                REFUSED.len() + 1,
                made.len(),
                proven.controls().join("; ")
            ),
            controls: proven.controls().to_vec(),
            observed: made.iter().map(Made::what).collect(),
            ..Evidence::default()
        }),
    })
}

fn failed(findings: Vec<Finding>) -> Verdict {
    Verdict::Failed {
        findings,
        observed: Vec::new(),
    }
}

/// A file that holds an id and nothing else.
fn in_a_file(id: &str) -> Result<Tenant, impl std::error::Error> {
    // A JSON text is a YAML text, with every character escaped that needs it.
    Tenant::from_yaml(&serde_json::json!({ "id": id }).to_string())
}

/// That a file is refused for the id in it.
fn files_are_read(run: &RunId) -> Control {
    let id = longest(run);
    Control {
        claim: format!("a tenant file with the id {id} is taken"),
        holds: match in_a_file(&id) {
            Ok(tenant) => Ok(format!("it is tenant {}", tenant.id)),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// What is no id, and the provisioner takes for one.
fn accepted() -> Vec<Finding> {
    let too_long = "x".repeat(LONGEST + 1);
    let ids = REFUSED.into_iter().chain([too_long.as_str()]);
    ids.filter_map(|id| {
        let by_itself = TenantId::try_from(id).is_ok();
        (by_itself || in_a_file(id).is_ok()).then(|| Finding {
            expected: format!("{id:?} is refused as a tenant's id"),
            seen: if by_itself {
                "taken"
            } else {
                "taken from a tenant file"
            }
            .to_owned(),
        })
    })
    .collect()
}

/// An object to be tried.
struct Made {
    kind: &'static Kind,
    object: DynamicObject,
}

impl Made {
    fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    fn what(&self) -> String {
        format!("{} {}", self.kind.kind, self.name())
    }

    /// The same under a name of one character more.
    fn one_longer(&self) -> Made {
        let mut object = self.object.clone();
        object.metadata.name = Some(format!("{}x", self.name()));
        Made {
            kind: self.kind,
            object,
        }
    }
}

/// The longest id there is, as nobody's but this run's.
fn longest(run: &RunId) -> String {
    let begin = format!("conformance-{run}-");
    let rest = LONGEST.saturating_sub(begin.len());
    format!("{begin}{}", "x".repeat(rest))
}

/// The objects whose names the longest id changes: the namespace as it is, and all others as the tenant's own, but for the name. So it is
/// the name alone that can be refused.
fn of_longest_id(
    run: &RunId,
    tenant: &Tenant,
    templates: &Templates,
) -> Result<Result<Vec<Made>, Finding>, HarnessError> {
    let id = longest(run);
    let finding = |seen: String| Finding {
        expected: format!("a tenant whose id has {LONGEST} characters can be made ({id})"),
        seen,
    };
    let long = match TenantId::try_from(id.as_str()) {
        Ok(long) => long,
        Err(error) => return Ok(Err(finding(error.to_string()))),
    };
    let render = |tenant: &Tenant| provisioner::render(tenant, templates, &Stamp::default());
    let own = render(tenant)
        .map_err(|error| HarnessError::during(format!("render tenant {}", tenant.id), &error))?;
    let longer = Tenant {
        id: long,
        ..tenant.clone()
    };
    let long = match render(&longer) {
        Ok(long) => long,
        Err(error) => return Ok(Err(finding(chain(&error)))),
    };
    if own.len() != long.len() {
        return Err(HarnessError::new(format!(
            "the templates make {} objects for {}, and {} for an id of {LONGEST} characters: they cannot be compared",
            own.len(),
            tenant.id,
            long.len()
        )));
    }
    Ok(Ok(own.iter().zip(&long).filter_map(renamed).collect()))
}

fn renamed((own, long): (&Manifest, &Manifest)) -> Option<Made> {
    let object = match own.kind.scope {
        Scope::Cluster => long.object.clone(),
        Scope::Namespaced if own.name() == long.name() => return None,
        Scope::Namespaced => {
            let mut object = own.object.clone();
            object.metadata.name = Some(long.name().to_owned());
            object
        }
    };
    Some(Made {
        kind: own.kind,
        object,
    })
}

/// What the API server says of an object.
enum Answer {
    /// It would be made.
    Taken,
    /// It is not valid, for this reason.
    Invalid(String),
    /// Anything else: nothing of its name.
    Other(String),
}

async fn dry_run(cx: &Context, made: &Made) -> Answer {
    let client = cx.site.cluster.client.clone();
    let objects: Api<DynamicObject> = match (made.kind.scope, &made.object.metadata.namespace) {
        (Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client, namespace, &made.kind.resource())
        }
        _ => Api::all_with(client, &made.kind.resource()),
    };
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let _turn = cx.site.cluster.pace.one_of_many().await;
    match tokio::time::timeout(ANSWER, objects.create(&params, &made.object)).await {
        Ok(Ok(_)) => Answer::Taken,
        Ok(Err(kube::Error::Api(status))) => refused(&classify(&status), status.message),
        Ok(Err(error)) => Answer::Other(chain(&error)),
        Err(_) => Answer::Other(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// An object's own rules answer 422, before admission policies are asked, which may answer the same; these say who they are.
fn refused(denial: &Denial, message: String) -> Answer {
    match denial {
        Denial::Content(422) if message.contains("metadata.name") && !message.contains("AdmissionPolicy") => {
            Answer::Invalid(message)
        }
        _ => Answer::Other(format!("refused for another reason: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Asked, judged, ok, rbac_403, refuse, respond, silence};
    use axum::response::Response;
    use rstest::rstest;
    use std::collections::BTreeSet;

    fn name(asked: &Asked) -> String {
        asked.body["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn invalid(asked: &Asked) -> Response {
        let message = format!(
            "{} {:?} is invalid: metadata.name: Invalid value: must be no more than 63 characters",
            asked.last(),
            name(asked)
        );
        refuse(422, "Invalid", &message)
    }

    /// A server that looks at the length of names.
    fn server(asked: &Asked) -> Response {
        assert!(
            asked.is_dry() && asked.method == "POST",
            "{} {}",
            asked.method,
            asked.path
        );
        if name(asked).len() > 63 && asked.last() == "namespaces" {
            invalid(asked)
        } else {
            ok(&asked.body)
        }
    }

    #[tokio::test]
    async fn names_of_the_longest_id_that_are_taken_pass() {
        let (word, text) = judged(&Prov02, server).await;
        assert_eq!(word, "passed", "{text}");
        assert!(
            text.contains("25 of 25 ids that are none refused; 6 of 6 names"),
            "{text}"
        );
    }

    fn on_role(answer: fn(&Asked) -> Response) -> impl Fn(&Asked) -> Response + Clone + Send + Sync {
        move |asked: &Asked| {
            if asked.last() == "roles" {
                answer(asked)
            } else {
                server(asked)
            }
        }
    }

    #[rstest]
    #[case::too_long_for_its_kind(invalid, "failed", "takes Role tenant-conformance-0a1b2c3d-")]
    #[case::not_allowed(|_: &Asked| rbac_403(), "inconclusive", "1 of 6")]
    #[case::invalid_for_something_else(|_: &Asked| refuse(422, "Invalid", "rules[0].verbs: Required value"), "inconclusive", "for another reason")]
    #[case::an_admission_policy(|_: &Asked| refuse(422, "Invalid", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: metadata.name"), "inconclusive", "for another reason")]
    #[case::not_authenticated(|_: &Asked| refuse(401, "Unauthorized", "who"), "inconclusive", "who")]
    #[case::there_already(|_: &Asked| refuse(409, "AlreadyExists", "exists"), "inconclusive", "exists")]
    #[case::server_error(|_: &Asked| refuse(500, "InternalError", "etcd"), "inconclusive", "etcd")]
    #[case::no_answer(|_: &Asked| silence(), "inconclusive", "no answer within 15 s")]
    #[tokio::test(start_paused = true)]
    async fn only_a_refusal_of_the_name_is_a_failure(
        #[case] answer: fn(&Asked) -> Response,
        #[case] word: &str,
        #[case] text: &str,
    ) {
        let (seen, all) = judged(&Prov02, on_role(answer)).await;
        assert_eq!(seen, word, "{all}");
        assert!(all.contains(text), "{all}");
    }

    #[rstest]
    #[case::takes_everything(|asked: &Asked| ok(&asked.body), "dry runs do not look at names")]
    #[case::cannot_say(|_: &Asked| refuse(403, "Forbidden", "quota"), "for another reason")]
    #[tokio::test]
    async fn a_server_that_takes_any_name_proves_nothing(
        #[case] answer: fn(&Asked) -> Response,
        #[case] text: &str,
    ) {
        let script = move |asked: &Asked| {
            if name(asked).len() > 63 && asked.last() == "namespaces" {
                answer(asked)
            } else {
                server(asked)
            }
        };
        let (word, all) = judged(&Prov02, script).await;
        assert_eq!(word, "inconclusive", "{all}");
        assert!(all.contains(text), "{all}");
    }

    /// What a template of one's own makes of the longest id, and what becomes of it.
    #[tokio::test]
    async fn a_template_whose_names_grow_too_long_is_seen() {
        let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: \"api-of-tenant-{{TENANT_ID}}\"\n  namespace: \"{{NAMESPACE}}\"\nspec: {ports: [{port: 80}]}\n";
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("65-service-more.yaml.hbs"), service).unwrap();
        let templates = Templates::with_overrides(directory.path()).unwrap();
        let (run, tenant) = (
            RunId::parse("0a1b2c3d").unwrap(),
            TenantId::try_from("a").unwrap(),
        );
        let made = of_longest_id(&run, &Tenant::standard(tenant.clone()), &templates);
        let made = made.unwrap().unwrap();
        let service = made.iter().find(|made| made.kind.kind == "Service").unwrap();
        assert_eq!(service.name(), format!("api-of-tenant-{}", longest(&run)));
        assert_eq!(service.object.metadata.namespace.as_deref(), Some("ai-agents-a"));
        let label = |made: &Made| made.object.metadata.labels.as_ref().unwrap()["tenant"].clone();
        assert_eq!(label(service), "a", "all but the name is the tenant's own");

        let server = respond(invalid).await;
        let cx = server.context(&BTreeSet::from([Resource::Tenant(tenant)]));
        assert!(matches!(dry_run(&cx, service).await, Answer::Invalid(_)));
    }

    /// A template that no tenant of the longest id can be made of.
    #[test]
    fn templates_that_cannot_be_rendered_are_a_failure() {
        let service = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: \"ai-agents-a\"\n";
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("65-configmap-more.yaml.hbs"), service).unwrap();
        let templates = Templates::with_overrides(directory.path()).unwrap();
        let run = RunId::parse("0a1b2c3d").unwrap();
        let tenant = Tenant::standard(TenantId::try_from("a").unwrap());
        let finding = of_longest_id(&run, &tenant, &templates).unwrap().err().unwrap();
        assert!(
            finding.seen.contains("ai-agents-conformance-0a1b2c3d-"),
            "{finding:?}"
        );
    }

    #[test]
    fn nothing_that_is_no_id_is_taken_for_one() {
        assert_eq!(accepted(), []);
    }

    #[test]
    fn the_longest_id_is_one_and_the_runs_own() {
        let run = RunId::parse("0a1b2c3d").unwrap();
        let id = longest(&run);
        assert_eq!(id.len(), LONGEST);
        assert!(id.starts_with("conformance-0a1b2c3d-"));
        assert_eq!(TenantId::try_from(id.as_str()).unwrap().namespace().len(), 63);
    }
}
