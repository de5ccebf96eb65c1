//! What somebody must be allowed to do, as the authorizer names it. Each operation says beside its requests what they need; asking the
//! API server is left to [`crate::preflight`].

use crate::kinds::{Kind, Scope};
use std::fmt;

/// One request that must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: Option<String>,
    pub(crate) name: Option<String>,
    /// None in the cluster.
    pub(crate) namespace: Option<String>,
}

impl Need {
    /// In a namespace; in the cluster without one.
    pub(crate) fn new(verb: &str, (group, resource): (&str, &str), namespace: Option<&str>) -> Self {
        Self {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: None,
            name: None,
            namespace: namespace.map(str::to_owned),
        }
    }

    /// These verbs on objects of that kind, which in a namespace are in this one.
    pub(crate) fn on_kind<'a>(
        verbs: &'a [&'a str],
        kind: &'a Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = Self> + 'a {
        let place = (kind.scope == Scope::Namespaced).then_some(namespace);
        verbs
            .iter()
            .map(move |verb| Self::new(verb, (kind.group, kind.plural), place))
    }

    #[must_use]
    pub(crate) fn of(self, subresource: &str) -> Self {
        Self {
            subresource: Some(subresource.to_owned()),
            ..self
        }
    }

    #[must_use]
    pub(crate) fn named(self, name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..self
        }
    }

    /// `deployments.apps`, `pods/portforward`.
    pub(crate) fn what(&self) -> String {
        let group = if self.group.is_empty() {
            String::new()
        } else {
            format!(".{}", self.group)
        };
        let subresource = self.subresource.as_ref().map(|part| format!("/{part}"));
        let name = self.name.as_ref().map(|name| format!(" {name}"));
        format!(
            "{}{group}{}{}",
            self.resource,
            subresource.unwrap_or_default(),
            name.unwrap_or_default()
        )
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.what())?;
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}
