//! Which tenants an operation is about: one by its id, one by its file, or all of a directory; what they do not say themselves
//! comes from their tiers. Reads files and nothing else; what is done with the tenants is left to others.

use crate::names::TenantId;
use crate::tenant::{Tenant, Tiers};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Which tenants are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The tenant of this id: of the files', where there are any, else with the values of the tier `standard`.
    pub tenant_id: Option<TenantId>,
    /// A tenant file, or a directory of tenant files.
    pub file: Option<PathBuf>,
    /// A tiers file: tiers besides those that are built in, or in their place.
    pub tiers: Option<PathBuf>,
}

/// One tenant, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The tenant.
    pub tenant: Tenant,
    /// Its file; none where it was named by its id alone.
    pub file: Option<PathBuf>,
}

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The file.
    pub file: PathBuf,
    /// The field, the line and what is wrong there, as far as they are known.
    pub problem: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.problem)
    }
}

/// Why it is not known which tenants are meant. Nothing may be done then, not for the others either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// Neither an id nor a file.
    #[error("no tenant is named")]
    Unnamed,
    /// Files that cannot be used; all of them, never empty.
    #[error("{}", listing(.0))]
    Unusable(Vec<Unusable>),
    /// A tiers file that cannot be used.
    #[error("read tiers file {0}")]
    Tiers(Unusable),
    /// A directory without a tenant file.
    #[error("read tenant files in {}: there is none; expected names that end in .yaml or .yml", .0.display())]
    Empty(PathBuf),
    /// Two files of a directory are of the same tenant.
    #[error("tenant {id} is in two files: {} and {}", first.display(), second.display())]
    Doubled {
        /// The tenant.
        id: TenantId,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The file is another tenant's.
    #[error("read tenant file {}: its id is {found}, --tenant-id says {wanted}", file.display())]
    Other {
        /// The file.
        file: PathBuf,
        /// The id in it.
        found: TenantId,
        /// The id that was asked for.
        wanted: TenantId,
    },
    /// No file of the directory is the tenant's.
    #[error("find tenant {wanted} in {}: it is in none of its {count} tenant files", directory.display())]
    Missing {
        /// The directory.
        directory: PathBuf,
        /// The id that was asked for.
        wanted: TenantId,
        /// How many files were read.
        count: usize,
    },
}

impl SelectionError {
    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unnamed => "name it with --tenant-id ID or -f FILE",
            Self::Unusable(files) if files.len() > 1 => {
                "nothing was changed, not for the other files either; mend these, or move them away"
            }
            Self::Unusable(_) | Self::Tiers(_) => return None,
            Self::Empty(_) => "name a tenant file, or the directory that holds them",
            Self::Doubled { .. } => "nothing was changed; give one of them another id, or move it away",
            Self::Other { .. } | Self::Missing { .. } => {
                "name the tenant's own file, or leave --tenant-id out"
            }
        };
        Some(hint.to_owned())
    }
}

fn listing(files: &[Unusable]) -> String {
    match files {
        [file] => format!("read tenant file {file}"),
        files => {
            let lines: String = files.iter().map(|file| format!("\n  {file}")).collect();
            format!("read tenant files: {} cannot be used:{lines}", files.len())
        }
    }
}

impl Selection {
    /// The tenants, in the order of their ids.
    ///
    /// # Errors
    /// A file that cannot be read, or is no tenant file, or says what cannot be (all such files are named); two files of one tenant;
    /// no tenant at all.
    pub fn members(&self) -> Result<Vec<Member>, SelectionError> {
        let tiers = self.all_tiers()?;
        let Some(file) = &self.file else {
            let id = self.tenant_id.clone().ok_or(SelectionError::Unnamed)?;
            let tenant = tiers.standard(id);
            return Ok(vec![Member { tenant, file: None }]);
        };
        if file.is_dir() {
            return self.of_directory(file, &tiers);
        }
        let tenant = read(file, &tiers).map_err(|unusable| SelectionError::Unusable(vec![unusable]))?;
        match &self.tenant_id {
            Some(wanted) if *wanted != tenant.id => Err(SelectionError::Other {
                file: file.clone(),
                found: tenant.id,
                wanted: wanted.clone(),
            }),
            _ => Ok(vec![Member {
                tenant,
                file: Some(file.clone()),
            }]),
        }
    }

    /// The tiers that are built in, and those of the tiers file.
    ///
    /// # Errors
    /// The tiers file cannot be read or used.
    pub fn all_tiers(&self) -> Result<Tiers, SelectionError> {
        let Some(file) = &self.tiers else {
            return Ok(Tiers::embedded());
        };
        let unusable = |problem: String| {
            SelectionError::Tiers(Unusable {
                file: file.clone(),
                problem,
            })
        };
        let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
        Tiers::embedded()
            .with_yaml(&text)
            .map_err(|error| unusable(error.to_string()))
    }

    fn of_directory(&self, directory: &Path, tiers: &Tiers) -> Result<Vec<Member>, SelectionError> {
        let members = self.directory_members(directory, tiers)?;
        let Some(wanted) = &self.tenant_id else {
            return Ok(members);
        };
        let count = members.len();
        match members.into_iter().find(|member| member.tenant.id == *wanted) {
            Some(member) => Ok(vec![member]),
            None => Err(SelectionError::Missing {
                directory: directory.to_owned(),
                wanted: wanted.clone(),
                count,
            }),
        }
    }

    /// The tenants of all files of the directory, in the order of their ids.
    fn directory_members(&self, directory: &Path, tiers: &Tiers) -> Result<Vec<Member>, SelectionError> {
        let mut files = tenant_files(directory).map_err(|error| {
            SelectionError::Unusable(vec![Unusable {
                file: directory.to_owned(),
                problem: error.to_string(),
            }])
        })?;
        // The tiers may lie beside the tenants.
        let own = self.tiers.as_deref().and_then(|file| file.canonicalize().ok());
        files.retain(|file| own.is_none() || file.canonicalize().ok() != own);
        members_of(directory, files, tiers)
    }
}

fn members_of(directory: &Path, files: Vec<PathBuf>, tiers: &Tiers) -> Result<Vec<Member>, SelectionError> {
    if files.is_empty() {
        return Err(SelectionError::Empty(directory.to_owned()));
    }
    let mut members = BTreeMap::new();
    let mut unusable = Vec::new();
    let mut doubled = None;
    for file in files {
        match read(&file, tiers) {
            Err(problem) => unusable.push(problem),
            Ok(tenant) => {
                let id = tenant.id.clone();
                let earlier = members.insert(id.clone(), (tenant, file.clone()));
                doubled = doubled.or(earlier.map(|(_, first)| (id, first, file)));
            }
        }
    }
    if !unusable.is_empty() {
        return Err(SelectionError::Unusable(unusable));
    }
    if let Some((id, first, second)) = doubled {
        return Err(SelectionError::Doubled { id, first, second });
    }
    Ok(members
        .into_values()
        .map(|(tenant, file)| Member {
            tenant,
            file: Some(file),
        })
        .collect())
}

/// Every `*.yaml` and `*.yml` of the directory, sorted; other files, directories and hidden files are none of ours.
fn tenant_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let named = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        // A link is followed: mounted ConfigMaps are made of them.
        if named && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path, tiers: &Tiers) -> Result<Tenant, Unusable> {
    let unusable = |problem: String| Unusable {
        file: file.to_owned(),
        problem,
    };
    let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    tiers
        .fitting_tenant(&text)
        .map_err(|error| unusable(error.to_string()))
}

#[cfg(test)]
mod tests;
