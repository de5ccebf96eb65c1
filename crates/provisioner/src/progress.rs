//! What happens on the cluster, as it happens: one event enum between the operations and whoever
//! shows them. How it is shown is left to the caller.

use crate::manifest::ObjectRef;
use crate::ready::Missing;
use crate::registration::{Change, State};

/// Something that happened, or that is awaited, on the way of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The object did not exist and was made.
    Created(ObjectRef),
    /// The object existed and was changed.
    Updated(ObjectRef),
    /// The object existed and was as wanted; nothing was written.
    Unchanged(ObjectRef),
    /// The object was ours, the templates no longer contain it, and it was deleted.
    Pruned(ObjectRef),
    /// The object was left out: this server has no such kind.
    Skipped {
        /// The object.
        object: ObjectRef,
        /// What the server lacks, and since when others have it.
        why: String,
    },
    /// The object was told to go, on the way of a deletion.
    Deleted(ObjectRef),
    /// What is still missing; sent whenever it changes, never for an empty list.
    Waiting(Vec<Missing>),
    /// These objects are still there; sent whenever the set changes.
    Leaving(Vec<ObjectRef>),
    /// A part of the tenant's registration with the shared services is as it must be.
    Registered {
        /// Which part, as in `role tenant-acme in PostgreSQL`.
        what: String,
        /// What was done to it.
        change: Change,
    },
    /// One of the shared services holds nothing of the tenant any more.
    Purged {
        /// The tenant's name there, as in `tenant-acme`.
        login: String,
        /// What there was.
        was: State,
    },
    /// Everything that was awaited is there.
    Ready,
    /// What else is worth a line.
    Note(String),
    /// A passing failure, and what will be done about it.
    Retrying {
        /// What was attempted, as in `apply Deployment ai-agents-api in ai-agents-acme`.
        what: String,
        /// Why it failed.
        why: String,
    },
}

/// Listens to the [`Step`]s of an operation. Called from the task that runs it: must not block.
pub trait Progress: Sync {
    /// Takes note of one step.
    fn step(&self, step: &Step);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &Step) {}
}

impl<F: Fn(&Step) + Sync> Progress for F {
    fn step(&self, step: &Step) {
        self(step);
    }
}
