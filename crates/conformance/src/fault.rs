//! Planted faults: directories that break a tenant, or the platform, in one known way, each with the exact set of items that must not
//! pass. Read strictly: a fault that plants nothing, or expects an item that no run has, would be a test that cannot fail. Pure but for
//! reading a directory; planting is left to `selftest`.

mod by_hand;
mod services;

pub use by_hand::ByHand;
pub use services::Services;

use crate::check;
use crate::ledger::Kind;
use crate::settings::{SettingsError, invalid};
use provisioner::tenant::{Platform, Stamp};
use provisioner::{Manifest, Templates, Tenant, TenantId};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Every file below `fixtures/faults`, by its path there.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/faults.rs"));

/// The name of the pass without a fault.
pub const CLEAN_PASS: &str = "clean-pass";

/// What describes a fault, and the directories that plant it.
const DOCUMENT: &str = "fault.yaml";
const PARTS: [&str; 6] = [
    "tenant-a", "tenant-b", "platform", "services", "by-hand", "beside",
];
const SHAPE: &str = "a fault is a directory with fault.yaml and at least one of tenant-a/, tenant-b/, platform/, services/, by-hand/ and beside/: docs/selftest.md";

/// The items that did not pass; `a` and `b` stand for the fault's tenants: `NET-02 a -> b`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotPassed {
    /// Those that failed.
    pub failed: BTreeSet<String>,
    /// Those that could not be judged.
    pub inconclusive: BTreeSet<String>,
}

impl NotPassed {
    /// `failed`, `inconclusive`, or `passed` for all others.
    pub fn of(&self, item: &str) -> &'static str {
        if self.failed.contains(item) {
            "failed"
        } else if self.inconclusive.contains(item) {
            "inconclusive"
        } else {
            "passed"
        }
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.inconclusive.is_empty()
    }

    /// All items that are named.
    pub fn items(&self) -> BTreeSet<&String> {
        self.failed.union(&self.inconclusive).collect()
    }
}

impl fmt::Display for NotPassed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |word: &str, items: &BTreeSet<String>| {
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            (!items.is_empty()).then(|| format!("{word} {}", items.join(", ")))
        };
        let parts = [
            part("failed", &self.failed),
            part("inconclusive", &self.inconclusive),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.as_slice() {
            [] => write!(out, "everything passed"),
            parts => write!(out, "{}", parts.join("; ")),
        }
    }
}

/// `fault.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    breaks: String,
    #[serde(default)]
    failed: BTreeSet<String>,
    #[serde(default)]
    inconclusive: BTreeSet<String>,
    cluster: Option<String>,
    #[serde(default)]
    alone: bool,
}

/// A planted fault, or a harmless change: then it expects that everything passes.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The directory's name. Its tenants are named after it.
    pub name: String,
    /// What it breaks, for people.
    pub breaks: String,
    /// The items that must not pass, all others must.
    pub expected: NotPassed,
    /// The state of the cluster that is the fault, as `lab up --cni` names it; nothing can be planted then.
    pub cluster: Option<String>,
    /// The tenants `a` and `b`.
    pub tenants: [TenantId; 2],
    /// The templates of the tenants.
    pub templates: BTreeMap<TenantId, Templates>,
    /// The platform's templates, where the fault is in them.
    pub platform: Option<Templates>,
    /// What it changes inside PostgreSQL and Redis.
    pub services: Services,
    /// What somebody else does in the tenants once they are provisioned.
    pub by_hand: ByHand,
    /// Objects beside the tenants: a namespace first, then what is in it.
    pub beside: Vec<Value>,
    /// Objects of the tenants that carry a finalizer, which nobody but us takes off again.
    pub held: Vec<Manifest>,
    alone: bool,
}

impl Fault {
    /// No fault: the clean pass.
    ///
    /// # Errors
    /// None: the name is a valid one.
    pub fn none() -> Result<Fault, SettingsError> {
        Ok(Fault {
            name: CLEAN_PASS.to_owned(),
            breaks: "nothing".to_owned(),
            expected: NotPassed::default(),
            cluster: None,
            tenants: tenants(CLEAN_PASS)?,
            templates: BTreeMap::new(),
            platform: None,
            services: Services::default(),
            by_hand: ByHand::default(),
            beside: Vec::new(),
            held: Vec::new(),
            alone: false,
        })
    }

    /// Whether it would be seen by other tenants' checks.
    pub fn is_alone(&self) -> bool {
        self.alone || self.platform.is_some() || self.services.outlast_tenants()
    }
}

/// The faults that come with the binary.
///
/// # Errors
/// One of them cannot be used.
pub fn embedded() -> Result<Vec<Fault>, SettingsError> {
    let root = Path::new("fixtures/faults");
    let files = EMBEDDED
        .iter()
        .map(|(path, text)| (root.join(path), (*text).to_owned()));
    all(root, files.collect())
}

/// The faults of a directory.
///
/// # Errors
/// It cannot be read, holds no fault, or one that cannot be used.
pub fn read(directory: &Path) -> Result<Vec<Fault>, SettingsError> {
    let mut files = BTreeMap::new();
    gather(directory, &mut files)?;
    all(directory, files)
}

type Files = BTreeMap<PathBuf, String>;

fn gather(directory: &Path, files: &mut Files) -> Result<(), SettingsError> {
    let place = || directory.display().to_string();
    let unreadable = |error: std::io::Error| {
        invalid(
            place(),
            format!("cannot be read: {error}"),
            "name a directory of faults: --faults DIR",
        )
    };
    let mut is_empty = true;
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        is_empty = false;
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            gather(&path, files)?;
        } else {
            let text = std::fs::read_to_string(&path).map_err(|error| {
                invalid(
                    path.display().to_string(),
                    format!("cannot be read: {error}"),
                    SHAPE,
                )
            })?;
            files.insert(path, text);
        }
    }
    if is_empty {
        return Err(invalid(
            place(),
            "an empty directory plants nothing",
            format!("remove it, or fill it: {SHAPE}"),
        ));
    }
    Ok(())
}

fn all(root: &Path, files: Files) -> Result<Vec<Fault>, SettingsError> {
    let mut by_fault: BTreeMap<String, Files> = BTreeMap::new();
    for (path, text) in files {
        let below = path.strip_prefix(root).unwrap_or(&path);
        let mut names = below
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned());
        let (first, more) = (names.next().unwrap_or_default(), names.next().is_some());
        if is_aside(below) {
            continue;
        }
        if !more {
            return Err(invalid(
                path.display().to_string(),
                "is no part of a fault",
                SHAPE,
            ));
        }
        by_fault.entry(first).or_default().insert(path, text);
    }
    if by_fault.is_empty() {
        return Err(invalid(root.display().to_string(), "holds no fault", SHAPE));
    }
    by_fault
        .into_iter()
        .map(|(name, files)| fault(root, name, files))
        .collect()
}

/// Hidden files and `README*`, as directories of templates have them.
fn is_aside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.starts_with("README")
}

fn fault(root: &Path, name: String, mut files: Files) -> Result<Fault, SettingsError> {
    let directory = root.join(&name);
    let place = directory.join(DOCUMENT);
    let shown = place.display().to_string();
    if name == CLEAN_PASS {
        return Err(invalid(
            &shown,
            "that is the name of the pass without a fault",
            "choose another",
        ));
    }
    let text = files
        .remove(&place)
        .ok_or_else(|| invalid(&shown, "does not exist", SHAPE))?;
    let document: Document = serde_yaml::from_str(&text).map_err(|error| {
        invalid(
            &shown,
            error.to_string(),
            "expected: breaks, failed, inconclusive, alone where others would feel it, and cluster where the fault is a state of the cluster",
        )
    })?;
    if document.breaks.trim().is_empty() {
        return Err(invalid(
            &shown,
            "breaks: says nothing",
            "say in a line what the fault breaks, and what hides it where something does",
        ));
    }
    let expected = NotPassed {
        failed: document.failed,
        inconclusive: document.inconclusive,
    };
    known_items(&shown, &expected)?;
    let tenants = tenants(&name).map_err(|error| SettingsError {
        place: directory.display().to_string(),
        ..error
    })?;
    let parts = parts(&directory, files, &tenants)?;
    let mut fault = Fault {
        name,
        breaks: document.breaks,
        expected,
        cluster: document.cluster,
        tenants,
        templates: BTreeMap::new(),
        platform: None,
        services: Services::default(),
        by_hand: ByHand::default(),
        beside: Vec::new(),
        held: Vec::new(),
        alone: document.alone,
    };
    let plants = fill(&mut fault, parts)?;
    match (&fault.cluster, plants) {
        (Some(_), true) => Err(invalid(
            shown,
            "cluster: names a state of the cluster, and there is something to plant beside it",
            "make two faults of it",
        )),
        (None, false) => Err(invalid(
            directory.display().to_string(),
            "plants nothing: what it renders to is what is rendered without it",
            SHAPE,
        )),
        _ => Ok(fault),
    }
}

/// Ids of tenants named after a fault.
fn tenants(name: &str) -> Result<[TenantId; 2], SettingsError> {
    let id = |side: &str| {
        TenantId::try_from(format!("{name}-{side}").as_str()).map_err(|error| {
            invalid(
                name,
                format!("cannot name the fault's tenants {name}-a and {name}-b: {error}"),
                "name it of a-z, 0-9 and '-', at most 51 characters",
            )
        })
    };
    Ok([id("a")?, id("b")?])
}

/// Every item is one that a run of two tenants has.
fn known_items(place: &str, expected: &NotPassed) -> Result<(), SettingsError> {
    if let Some(twice) = expected.failed.intersection(&expected.inconclusive).next() {
        return Err(invalid(
            place,
            format!("{twice} is expected to fail and to be inconclusive"),
            "keep one",
        ));
    }
    for item in expected.items() {
        let (id, _) = item.split_once(' ').unwrap_or((item, ""));
        let known: Vec<&str> = check::ALL.iter().map(|check| check.info().id).collect();
        // Ids are written as they are shown: `find` takes them in any case.
        let check = check::find(id).filter(|check| check.info().id == id);
        let check = check.ok_or_else(|| {
            invalid(
                place,
                format!("{item:?}: there is no check {id:?}"),
                format!("known are {}; `conformance list` shows them", known.join(", ")),
            )
        })?;
        let subjects = check.subjects(&placeholders()?);
        let items: Vec<String> = subjects.iter().map(|subject| format!("{id} {subject}")).collect();
        if !items.contains(item) {
            return Err(invalid(
                place,
                format!("{item:?} is no item of {id}"),
                format!("its items are {}", items.join(", ")),
            ));
        }
    }
    Ok(())
}

/// The tenants `a` and `b`, as fault.yaml calls them.
fn placeholders() -> Result<[TenantId; 2], SettingsError> {
    let id = |text: &str| TenantId::try_from(text).map_err(|error| invalid(text, error.to_string(), ""));
    Ok([id("a")?, id("b")?])
}

/// The files of each directory that plants something.
type Parts = BTreeMap<&'static str, Vec<(PathBuf, String)>>;

/// Sorts files into parts, and puts in which tenants these are: `@A@` and `@B@` stand for their ids, `@NEIGHBOUR@` for the other one's
/// namespace.
fn parts(directory: &Path, files: Files, tenants: &[TenantId; 2]) -> Result<Parts, SettingsError> {
    let [a, b] = tenants;
    let mut parts = Parts::new();
    for (path, text) in files {
        let part = path.parent().filter(|parent| parent.parent() == Some(directory));
        let part = part.and_then(|parent| PARTS.into_iter().find(|part| parent.ends_with(part)));
        let part = part.ok_or_else(|| invalid(path.display().to_string(), "is no part of a fault", SHAPE))?;
        let neighbour = if part == "tenant-a" { b } else { a };
        let text = text
            .replace("@NEIGHBOUR@", &neighbour.namespace())
            .replace("@A@", a.as_str())
            .replace("@B@", b.as_str());
        parts.entry(part).or_default().push((path, text));
    }
    Ok(parts)
}

/// Fills in what the directories plant; answers whether that is anything at all.
fn fill(fault: &mut Fault, mut parts: Parts) -> Result<bool, SettingsError> {
    let place = fault.name.clone();
    let unusable = |error: &dyn std::error::Error| {
        invalid(
            &place,
            crate::error::chain(error),
            "docs/templates.md says what templates may make, and with which variables",
        )
    };
    let mut plants = false;
    for (id, part) in fault.tenants.clone().into_iter().zip(PARTS) {
        let Some(files) = parts.remove(part) else { continue };
        let templates = Templates::embedded()
            .changed_with(files)
            .map_err(|error| unusable(&error))?;
        let tenant = Tenant::standard(id.clone());
        let render = |templates: &Templates| {
            provisioner::render(&tenant, templates, &Stamp::default()).map_err(|error| unusable(&error))
        };
        let manifests = render(&templates)?;
        plants |= differ(&manifests, &render(&Templates::embedded())?);
        fault.held.extend(
            manifests
                .into_iter()
                .filter(|manifest| manifest.object.metadata.finalizers.is_some()),
        );
        fault.templates.insert(id, templates);
    }
    if let Some(files) = parts.remove("platform") {
        let templates = Templates::embedded_platform()
            .changed_with(files)
            .map_err(|error| unusable(&error))?;
        let render = |templates: &Templates| {
            provisioner::render_platform(&Platform::default(), templates).map_err(|error| unusable(&error))
        };
        plants |= differ(&render(&templates)?, &render(&Templates::embedded_platform())?);
        fault.platform = Some(templates);
    }
    if let Some(files) = parts.remove("services") {
        fault.services = Services::read(files)?;
        plants = true;
    }
    if let Some(files) = parts.remove("by-hand") {
        fault.by_hand = ByHand::read(&files, &fault.tenants)?;
        plants = true;
    }
    if let Some(files) = parts.remove("beside") {
        fault.beside = beside(&fault.name, files)?;
        plants = true;
    }
    Ok(plants)
}

fn differ(one: &[Manifest], other: &[Manifest]) -> bool {
    one.iter()
        .map(|manifest| &manifest.object)
        .ne(other.iter().map(|manifest| &manifest.object))
}

/// The objects of `beside/`, in the order of files: one namespace, and what is in it. `@BESIDE@` stands for its name.
fn beside(fault: &str, files: Vec<(PathBuf, String)>) -> Result<Vec<Value>, SettingsError> {
    let hint = "the first file is a Namespace named @BESIDE@, the others are ConfigMaps, NetworkPolicies or Deployments with metadata.namespace: \"@BESIDE@\"";
    let namespace = format!("beside-{fault}");
    let mut objects = Vec::new();
    for (path, text) in files {
        let wrong = |problem: String| invalid(path.display().to_string(), problem, hint);
        let object: Value = serde_yaml::from_str(&text.replace("@BESIDE@", &namespace))
            .map_err(|error| wrong(error.to_string()))?;
        let kind = Kind::of(&object).ok_or_else(|| wrong(format!("makes kind {}", object["kind"])))?;
        let metadata = &object["metadata"];
        let (name, place) = (metadata["name"].as_str(), metadata["namespace"].as_str());
        let fits = match kind {
            Kind::Namespace => objects.is_empty() && name == Some(&namespace) && place.is_none(),
            Kind::ConfigMap | Kind::NetworkPolicy | Kind::Deployment => {
                !objects.is_empty() && name.is_some() && place == Some(&namespace)
            }
            _ => false,
        };
        if !fits {
            return Err(wrong(format!(
                "makes {kind:?} {} in namespace {}",
                name.unwrap_or("without a name"),
                place.unwrap_or("none")
            )));
        }
        objects.push(object);
    }
    Ok(objects)
}

/// Chooses faults by name; all where none is named.
///
/// # Errors
/// A name that no fault has.
pub fn choose(faults: Vec<Fault>, only: &[String]) -> Result<Vec<Fault>, SettingsError> {
    let known: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(invalid(
            format!("--only {unknown}"),
            "no such fault",
            format!("known are {}", known.join(", ")),
        ));
    }
    Ok(faults
        .into_iter()
        .filter(|fault| only.is_empty() || only.contains(&fault.name))
        .collect())
}

#[cfg(test)]
mod tests;
