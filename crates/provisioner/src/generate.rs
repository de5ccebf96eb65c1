//! Writes a tenant's manifests to files, for reading and for the record: `DIRECTORY/{tenant-id}/`, whole each time. What is
//! applied are the manifests themselves, never these files.

use crate::manifest::{Manifest, YamlError};
use crate::names::TenantId;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Files that could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A file or directory could not be written, moved or removed.
    #[error("{verb} {}", path.display())]
    Files {
        /// What was attempted.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory holds something that did not come from here; it is left alone.
    #[error("rewrite {}: it holds {odd:?}, which is no manifest of this tenant; move it away", directory.display())]
    NotOurs {
        /// The directory.
        directory: PathBuf,
        /// The file in it.
        odd: String,
    },
    /// A manifest that cannot be written as YAML.
    #[error("write {file} as YAML")]
    Yaml {
        /// Its file's name.
        file: String,
        /// Why.
        source: YamlError,
    },
}

/// Writes the manifests to `root/{tenant-id}/` and returns the files, in the order in which they are applied. What was there before
/// is replaced by a rename, so that a reader finds the old files or the new ones.
///
/// # Errors
/// The files could not be written, or the directory holds something else.
pub fn generate(
    root: &Path,
    tenant: &TenantId,
    manifests: &[Manifest],
) -> Result<Vec<PathBuf>, GenerateError> {
    done("make", root, fs::create_dir_all(root))?;
    let _lock = lock(root)?;
    let directory = root.join(tenant.as_str());
    refuse_others(&directory, tenant)?;
    let [new, old] = unfinished(root, tenant);
    remove(&new)?;
    remove(&old)?;
    done("make", &new, fs::create_dir_all(&new))?;
    for manifest in manifests {
        let file = &manifest.file_name;
        let text = manifest.to_yaml().map_err(|source| GenerateError::Yaml {
            file: file.clone(),
            source,
        })?;
        let path = new.join(file);
        done("write", &path, fs::write(&path, text))?;
    }
    match fs::rename(&directory, &old) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        result => done("move", &directory, result)?,
    }
    done("move", &new, fs::rename(&new, &directory))?;
    remove(&old)?;
    Ok(manifests
        .iter()
        .map(|manifest| directory.join(&manifest.file_name))
        .collect())
}

/// Removes what [`generate`] wrote for the tenant. Returns whether there was anything.
///
/// # Errors
/// The files could not be removed, or the directory holds something else.
pub fn remove_generated(root: &Path, tenant: &TenantId) -> Result<bool, GenerateError> {
    if !root.exists() {
        return Ok(false);
    }
    let _lock = lock(root)?;
    let directory = root.join(tenant.as_str());
    refuse_others(&directory, tenant)?;
    let existed = directory.exists();
    remove(&directory)?;
    for directory in unfinished(root, tenant) {
        remove(&directory)?;
    }
    Ok(existed)
}

/// Where files are until all are written, and where the former ones are until then. Somebody who was interrupted leaves them behind.
fn unfinished(root: &Path, tenant: &TenantId) -> [PathBuf; 2] {
    ["new", "old"].map(|state| root.join(format!(".{tenant}.{state}")))
}

/// Keeps others from writing there until it is dropped, or whoever holds it ends, however that happens. It is the directory itself that
/// is locked, so that no file has to be left behind for it.
fn lock(root: &Path) -> Result<fs::File, GenerateError> {
    let directory = done("open", root, fs::File::open(root))?;
    match directory.lock() {
        // A file system without locks: two at once are then told that a file is in their way.
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        locked => done("lock", root, locked)?,
    }
    Ok(directory)
}

fn done<T>(verb: &'static str, path: &Path, result: io::Result<T>) -> Result<T, GenerateError> {
    result.map_err(|source| GenerateError::Files {
        verb,
        path: path.to_owned(),
        source,
    })
}

fn remove(directory: &Path) -> Result<(), GenerateError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => done("remove", directory, result),
    }
}

/// The directory is about to be removed: it must hold nothing but manifests of this tenant.
fn refuse_others(directory: &Path, tenant: &TenantId) -> Result<(), GenerateError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(GenerateError::Files {
                verb: "read",
                path: directory.to_owned(),
                source,
            });
        }
    };
    let suffix = format!("-{tenant}.yaml");
    for entry in entries {
        let name = entry
            .map_err(|source| GenerateError::Files {
                verb: "read",
                path: directory.to_owned(),
                source,
            })?
            .file_name();
        if !name.to_str().is_some_and(|name| name.ends_with(&suffix)) {
            return Err(GenerateError::NotOurs {
                directory: directory.to_owned(),
                odd: lossy(&name),
            });
        }
    }
    Ok(())
}

fn lossy(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Stamp, Templates, Tenant, render};

    fn manifests() -> (TenantId, Vec<Manifest>) {
        let tenant = Tenant::standard("acme".parse().unwrap());
        let manifests = render(&tenant, &Templates::embedded(), &Stamp::default()).unwrap();
        (tenant.id, manifests)
    }

    fn listing(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| lossy(&entry.unwrap().file_name()))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_have_the_fixed_names_and_the_same_content_each_time() {
        let root = tempfile::tempdir().unwrap();
        let (tenant, manifests) = manifests();
        let files = generate(root.path(), &tenant, &manifests).unwrap();
        let first: Vec<String> = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let files = generate(root.path(), &tenant, &manifests).unwrap();
        let second: Vec<String> = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        assert_eq!(first, second);
        insta::assert_snapshot!(listing(&root.path().join("acme")).join("\n"));
        assert_eq!(listing(root.path()), ["acme"]);
    }

    #[test]
    fn files_that_are_no_longer_wanted_go() {
        let root = tempfile::tempdir().unwrap();
        let (tenant, manifests) = manifests();
        generate(root.path(), &tenant, &manifests).unwrap();
        generate(root.path(), &tenant, &manifests[..1]).unwrap();
        assert_eq!(listing(&root.path().join("acme")), ["namespace-acme.yaml"]);
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (tenant, manifests) = manifests();
        fs::create_dir(root.path().join("acme")).unwrap();
        fs::write(root.path().join("acme/notes.txt"), "mine").unwrap();
        let written = generate(root.path(), &tenant, &manifests)
            .unwrap_err()
            .to_string();
        let removed = remove_generated(root.path(), &tenant).unwrap_err().to_string();
        assert!(
            written.contains("\"notes.txt\"") && removed.contains("\"notes.txt\""),
            "{written} {removed}"
        );
        assert_eq!(listing(&root.path().join("acme")), ["notes.txt"]);
    }

    #[test]
    fn what_was_generated_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let (tenant, manifests) = manifests();
        generate(root.path(), &tenant, &manifests).unwrap();
        assert!(remove_generated(root.path(), &tenant).unwrap());
        assert!(!remove_generated(root.path(), &tenant).unwrap());
        assert!(!remove_generated(&root.path().join("none"), &tenant).unwrap());
        assert_eq!(listing(root.path()), Vec::<String>::new());
    }

    #[test]
    fn what_somebody_left_who_was_interrupted_goes_with_the_next() {
        let root = tempfile::tempdir().unwrap();
        let (tenant, manifests) = manifests();
        let interrupted = || {
            for directory in unfinished(root.path(), &tenant) {
                fs::create_dir_all(&directory).unwrap();
                fs::write(directory.join("role-acme.yaml"), "half").unwrap();
            }
        };
        interrupted();
        generate(root.path(), &tenant, &manifests).unwrap();
        assert_eq!(listing(root.path()), ["acme"]);
        interrupted();
        assert!(remove_generated(root.path(), &tenant).unwrap());
        assert_eq!(listing(root.path()), Vec::<String>::new());
    }

    #[test]
    fn many_at_once_find_each_others_files_whole() {
        let root = tempfile::tempdir().unwrap();
        let (tenant, manifests) = manifests();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        generate(root.path(), &tenant, &manifests).unwrap();
                        remove_generated(root.path(), &tenant).unwrap();
                    }
                });
            }
        });
        assert_eq!(listing(root.path()), Vec::<String>::new());
    }
}
