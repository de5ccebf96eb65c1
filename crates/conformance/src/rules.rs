//! The API server's own list of somebody's rights in a namespace (SelfSubjectRulesReview). It knows resources that no list of ours has; what it
//! holds is granted, what it does not hold may still be, by an authorizer that keeps no list.

use crate::cluster::ANSWER;
use crate::error::{HarnessError, within};
use crate::verdict::{Finding, Observed};
use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use kube::api::{Api, PostParams};
use std::fmt;

/// One verb on one resource; `*` stands for all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The verb.
    pub verb: String,
    /// The API group; empty for core.
    pub group: String,
    /// The resource, with its subresource behind a slash.
    pub resource: String,
    /// The only objects that it is about, where it names them.
    pub names: Vec<String>,
}

impl Rule {
    /// What every account may ask the API server about itself (ClusterRole `system:basic-user`).
    pub fn is_about_oneself(&self) -> bool {
        let reviews: &[&str] = match self.group.as_str() {
            "authentication.k8s.io" => &["selfsubjectreviews"],
            "authorization.k8s.io" => &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            _ => &[],
        };
        self.verb == "create" && reviews.contains(&self.resource.as_str())
    }

    /// Whether it lets this through, for all objects.
    pub fn allows(&self, verb: &str, group: &str, resource: &str) -> bool {
        let matches = |has: &str, wanted: &str| has == "*" || has == wanted;
        self.names.is_empty()
            && matches(&self.verb, verb)
            && matches(&self.group, group)
            && matches(&self.resource, resource)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(out, ".{}", self.group)?;
        }
        if self.names.is_empty() {
            Ok(())
        } else {
            write!(out, " ({})", self.names.join(", "))
        }
    }
}

/// The rights that this client has in a namespace, each once, in order.
///
/// # Errors
/// The API server does not say.
pub async fn of(client: &kube::Client, namespace: &str) -> Result<Vec<Rule>, HarnessError> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.to_owned()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let reviews = Api::<SelfSubjectRulesReview>::all(client.clone());
    let params = PostParams::default();
    let asked = reviews.create(&params, &review);
    let doing = format!("ask for the rights in namespace {namespace} (SelfSubjectRulesReview)");
    let status = within(ANSWER, doing, asked).await?.status.unwrap_or_default();
    let mut rules: Vec<Rule> = status.resource_rules.iter().flat_map(each).collect();
    rules.sort();
    rules.dedup();
    Ok(rules)
}

/// What is wrong with the rights that this client has in each of the namespaces, as `judge` finds. A list that cannot be had is a probe without an
/// outcome, so that it hides nothing that other probes found.
pub async fn sift(
    client: &kube::Client,
    who: &str,
    namespaces: &[String],
    judge: impl Fn(&str, &[Rule]) -> Vec<Finding>,
) -> (Vec<Finding>, Vec<Observed>) {
    let lists = join_all(namespaces.iter().map(|namespace| of(client, namespace))).await;
    let (mut findings, mut unknown) = (Vec::new(), Vec::new());
    for (namespace, list) in namespaces.iter().zip(lists) {
        match list {
            Ok(rules) => findings.extend(judge(namespace, &rules)),
            Err(error) => unknown.push(Observed::unknown(
                format!("the rights of {who} in {namespace}"),
                &error,
            )),
        }
    }
    (findings, unknown)
}

fn each(rule: &ResourceRule) -> Vec<Rule> {
    let mut rules = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                rules.push(Rule {
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    names: rule.resource_names.clone().unwrap_or_default(),
                });
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn rule(verb: &str, group: &str, resource: &str) -> Rule {
        let rule = json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] });
        each(&serde_json::from_value(rule).unwrap()).remove(0)
    }

    #[rstest]
    #[case::the_same(rule("get", "", "pods"), true)]
    #[case::everything(rule("*", "*", "*"), true)]
    #[case::another_verb(rule("list", "", "pods"), false)]
    #[case::another_group(rule("get", "apps", "pods"), false)]
    #[case::another_resource(rule("get", "", "secrets"), false)]
    #[case::one_object_only(Rule { names: vec!["x".into()], ..rule("get", "", "pods") }, false)]
    fn a_rule_allows_what_it_says(#[case] rule: Rule, #[case] expected: bool) {
        assert_eq!(rule.allows("get", "", "pods"), expected);
    }

    #[rstest]
    #[case::self_review(rule("create", "authorization.k8s.io", "selfsubjectrulesreviews"), true)]
    #[case::of_others(rule("create", "authorization.k8s.io", "subjectaccessreviews"), false)]
    #[case::all_reviews(rule("create", "authorization.k8s.io", "*"), false)]
    fn only_asking_about_oneself_is_everybodys(#[case] rule: Rule, #[case] expected: bool) {
        assert_eq!(rule.is_about_oneself(), expected);
    }

    #[test]
    fn a_rule_reads_like_what_it_grants() {
        let named = Rule {
            names: vec!["x".into()],
            ..rule("patch", "", "resourcequotas")
        };
        assert_eq!(
            [named.to_string(), rule("*", "apps", "*").to_string()],
            ["patch resourcequotas (x)", "* *.apps"]
        );
    }
}
