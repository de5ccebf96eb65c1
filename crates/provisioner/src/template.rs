//! The templates: the embedded sets, and directories that replace, add to or take from them. Pure but for
//! reading a directory; filling templates is left to [`crate::render`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// One template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name, without number and suffix: `networkpolicy-default-deny-ingress`.
    pub name: String,
    /// Where it comes from, for messages.
    pub file: String,
    /// Its text.
    pub source: String,
    /// Its place among the templates; those without a number come last.
    number: u32,
}

/// A set of templates by name, in the order in which their objects are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    by_name: BTreeMap<String, Template>,
}

/// A template, or a directory of them, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A file or directory that cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is neither a template nor a removal.
    #[error(
        "{} is no template; name it NAME.yaml.hbs (NAME of a-z, 0-9 and '-') to replace or add one, NAME.delete to remove one",
        path.display()
    )]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// A removal of a template that does not exist.
    #[error("{} removes a template that does not exist; there are: {}", path.display(), known.join(", "))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The templates that exist.
        known: Vec<String>,
    },
    /// Two files of one directory with the same name.
    #[error("{} and {} are about the same template; keep one", first.display(), second.display())]
    Twice {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

macro_rules! embedded {
    ($directory:literal: $($file:literal),* $(,)?) => {
        &[$((concat!($directory, "/", $file, ".yaml.hbs"), include_str!(concat!("../../../", $directory, "/", $file, ".yaml.hbs")))),*]
    };
}

const TENANT: &[(&str, &str)] = embedded!("templates/tenant":
    "10-namespace",
    "20-resourcequota",
    "21-limitrange",
    "30-serviceaccount",
    "31-role",
    "32-rolebinding",
    "40-networkpolicy-default-deny-ingress",
    "41-networkpolicy-default-deny-egress",
    "42-networkpolicy-allow-ingress-from-nginx",
    "43-networkpolicy-allow-egress-shared-services",
    "44-networkpolicy-allow-egress-destinations",
    "50-configmap",
    "51-secret-credentials",
    "60-service-api",
    "61-deployment-api",
    "62-deployment-worker",
    "63-ingress",
    "64-horizontalpodautoscaler-worker",
);

const PLATFORM: &[(&str, &str)] = embedded!("templates/platform":
    "10-clusterrole-platform-admin",
    "11-clusterrolebinding-platform-admin",
    "20-networkpolicy-database-default-deny-ingress",
    "21-networkpolicy-database-allow-same-namespace",
    "22-networkpolicy-database-allow-tenants-to-postgresql",
    "23-networkpolicy-database-allow-tenants-to-redis",
    "40-validatingadmissionpolicy-namespaces",
    "41-validatingadmissionpolicy-services",
    "42-validatingadmissionpolicy-token-secrets",
    "43-validatingadmissionpolicy-identity-settings",
    "44-validatingadmissionpolicy-identity-workloads",
    "45-validatingadmissionpolicy-priority-classes",
    "50-validatingadmissionpolicybinding-namespaces",
    "51-validatingadmissionpolicybinding-services",
    "52-validatingadmissionpolicybinding-token-secrets",
    "53-validatingadmissionpolicybinding-identity-settings",
    "54-validatingadmissionpolicybinding-identity-workloads",
    "55-validatingadmissionpolicybinding-priority-classes",
);

impl Templates {
    /// The templates of a tenant that come with the binary.
    #[must_use]
    pub fn embedded() -> Self {
        Self::of(TENANT)
    }

    /// The platform's templates that come with the binary.
    #[must_use]
    pub fn embedded_platform() -> Self {
        Self::of(PLATFORM)
    }

    /// [`Templates::embedded`], changed by a directory as [`Templates::changed_by`] says.
    ///
    /// # Errors
    /// Those of [`Templates::changed_by`].
    pub fn with_overrides(directory: &Path) -> Result<Self, TemplateError> {
        Self::embedded().changed_by(directory)
    }

    /// These templates, changed by a directory: `NAME.yaml.hbs` (or `NN-NAME.yaml.hbs`) replaces the template of that name or is
    /// added, `NAME.delete` removes one. Hidden files and `README*` are left aside.
    ///
    /// # Errors
    /// The directory cannot be read, holds a file that is neither, or removes a template that does not exist.
    pub fn changed_by(self, directory: &Path) -> Result<Self, TemplateError> {
        let mut read = Vec::new();
        for path in files(directory)? {
            if Change::of(&path).is_none() {
                return Err(TemplateError::Name { path });
            }
            let source = std::fs::read_to_string(&path).map_err(|source| TemplateError::Read {
                path: path.clone(),
                source,
            })?;
            read.push((path, source));
        }
        self.changed_with(read)
    }

    /// The same, changed by files that were read already: each with its path, for its name and for messages, and its text.
    ///
    /// # Errors
    /// A file is neither a template nor a removal, or removes a template that does not exist.
    pub fn changed_with(
        mut self,
        files: impl IntoIterator<Item = (PathBuf, String)>,
    ) -> Result<Self, TemplateError> {
        let mut changes: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (path, source) in files {
            let change = Change::of(&path).ok_or_else(|| TemplateError::Name { path: path.clone() })?;
            let name = change.name().to_owned();
            if let Some(first) = changes.insert(name.clone(), path.clone()) {
                return Err(TemplateError::Twice { first, second: path });
            }
            match change {
                Change::Remove { .. } => {
                    if self.by_name.remove(&name).is_none() {
                        return Err(TemplateError::Unknown {
                            path,
                            known: self.names(),
                        });
                    }
                }
                Change::Put { number, .. } => {
                    let number = number.or_else(|| self.by_name.get(&name).map(|old| old.number));
                    self.put(name, number, path.display().to_string(), source);
                }
            }
        }
        Ok(self)
    }

    /// The templates, in order.
    #[must_use]
    pub fn in_order(&self) -> Vec<&Template> {
        let mut all: Vec<&Template> = self.by_name.values().collect();
        all.sort_by_key(|template| (template.number, &template.name));
        all
    }

    /// The names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.in_order()
            .into_iter()
            .map(|template| template.name.clone())
            .collect()
    }

    fn of(embedded: &[(&str, &str)]) -> Self {
        let mut all = Self {
            by_name: BTreeMap::new(),
        };
        for (file, source) in embedded {
            if let Some(Change::Put { name, number }) = Change::of(Path::new(file)) {
                all.put(name, number, (*file).to_owned(), (*source).to_owned());
            }
        }
        all
    }

    fn put(&mut self, name: String, number: Option<u32>, file: String, source: String) {
        let number = number.unwrap_or(u32::MAX);
        self.by_name.insert(
            name.clone(),
            Template {
                name,
                file,
                source,
                number,
            },
        );
    }
}

/// What a file's name asks for.
enum Change {
    Put { name: String, number: Option<u32> },
    Remove { name: String },
}

impl Change {
    fn of(path: &Path) -> Option<Self> {
        let file = path.file_name()?.to_str()?;
        if let Some(stem) = file.strip_suffix(".yaml.hbs") {
            let (number, name) = split_number(stem);
            return is_name(name).then(|| Self::Put {
                name: name.to_owned(),
                number,
            });
        }
        let (_, name) = split_number(file.strip_suffix(".delete")?);
        is_name(name).then(|| Self::Remove {
            name: name.to_owned(),
        })
    }

    fn name(&self) -> &str {
        match self {
            Self::Put { name, .. } | Self::Remove { name } => name,
        }
    }
}

fn split_number(stem: &str) -> (Option<u32>, &str) {
    match stem.split_once('-') {
        Some((number, name)) if number.len() <= 4 && !number.is_empty() => match number.parse() {
            Ok(number) => (Some(number), name),
            Err(_) => (None, stem),
        },
        _ => (None, stem),
    }
}

/// It becomes part of a file's name when manifests are written.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, TemplateError> {
    let unreadable = |source| TemplateError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path
            .file_name()
            .unwrap_or(OsStr::new(""))
            .to_string_lossy()
            .into_owned();
        if !name.starts_with('.') && !name.starts_with("README") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(directory.path().join(file), format!("# {file}")).unwrap();
        }
        directory
    }

    fn changed(files: &[&str]) -> Result<Templates, TemplateError> {
        Templates::with_overrides(directory(files).path())
    }

    #[rstest]
    #[case::tenant("tenant", Templates::embedded())]
    #[case::platform("platform", Templates::embedded_platform())]
    fn every_file_is_embedded(#[case] directory: &str, #[case] templates: Templates) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../templates")
            .join(directory);
        let on_disk: Vec<_> = files(&root)
            .unwrap()
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let embedded: Vec<_> = templates
            .in_order()
            .into_iter()
            .map(|template| template.source.clone())
            .collect();
        assert_eq!(embedded, on_disk);
    }

    #[rstest]
    #[case::without_number("configmap.yaml.hbs")]
    #[case::with_number("50-configmap.yaml.hbs")]
    fn a_template_is_replaced_in_its_place(#[case] file: &str) {
        let templates = changed(&[file]).unwrap();
        assert_eq!(templates.names(), Templates::embedded().names());
        let configmap = templates.by_name.get("configmap").unwrap();
        assert_eq!(configmap.source, format!("# {file}"));
    }

    #[rstest]
    #[case::last("extra.yaml.hbs", 18)]
    #[case::numbered("15-extra.yaml.hbs", 1)]
    fn a_template_is_added(#[case] file: &str, #[case] place: usize) {
        assert_eq!(changed(&[file]).unwrap().names()[place], "extra");
    }

    #[test]
    fn a_template_is_removed_and_the_rest_stays() {
        let names = changed(&[
            "networkpolicy-default-deny-ingress.delete",
            "README.md",
            ".hidden",
        ])
        .unwrap()
        .names();
        let mut expected = Templates::embedded().names();
        expected.retain(|name| name != "networkpolicy-default-deny-ingress");
        assert_eq!(names, expected);
    }

    #[rstest]
    #[case::misspelt_removal(&["configmaps.delete"], "removes a template that does not exist; there are: namespace, ")]
    #[case::other_suffix(&["configmap.yaml"], "is no template; name it NAME.yaml.hbs")]
    #[case::upper_case(&["ConfigMap.yaml.hbs"], "is no template")]
    #[case::twice(&["50-configmap.yaml.hbs", "configmap.delete"], "are about the same template; keep one")]
    fn a_directory_with_a_mistake_is_refused(#[case] files: &[&str], #[case] message: &str) {
        let error = changed(files).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Templates::with_overrides(Path::new("/does/not/exist")).unwrap_err();
        assert_eq!(error.to_string(), "read /does/not/exist");
    }
}
