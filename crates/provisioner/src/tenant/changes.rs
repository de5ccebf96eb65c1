//! Parts of a tenant file that may name some fields and leave the others as they are in the standard tenant, where API and worker
//! (PostgreSQL and Redis) differ in what that is.

use super::{Postgresql, SharedService, SharedServices, Workload, WorkloadSize};
use crate::names::{Argument, DatabaseName, DnsName, ImageReference, LabelValue};
use crate::quantity::Quantity;
use serde::{Deserialize, Deserializer};
use std::num::NonZeroU16;

/// Declares a struct of options for another struct, and what it changes there.
macro_rules! changes {
    ($name:ident of $whole:ident { $($field:ident: $type:ty),* $(,)? } $({ $($nested:ident: $changes:ident),* })?) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct $name {
            $(#[serde(default)] $field: Option<$type>,)*
            $($(#[serde(default)] $nested: Option<$changes>,)*)?
        }

        impl $name {
            fn onto(self, mut whole: $whole) -> $whole {
                $(if let Some(value) = self.$field { whole.$field = value; })*
                $($(if let Some(changes) = self.$nested { whole.$nested = changes.onto(whole.$nested); })*)?
                whole
            }
        }
    };
}

changes!(SizeChanges of WorkloadSize {
    cpu_request: Quantity,
    cpu_limit: Quantity,
    memory_request: Quantity,
    memory_limit: Quantity,
});

changes!(WorkloadChanges of Workload {
    replicas: u16,
    image: ImageReference,
    command: Vec<Argument>,
    args: Vec<Argument>,
    readiness_command: Vec<Argument>,
} { size: SizeChanges });

changes!(ServiceChanges of SharedService {
    service: DnsName,
    port: NonZeroU16,
    pod_app: LabelValue,
    admin_secret: DnsName,
});

changes!(PostgresqlChanges of Postgresql {
    service: DnsName,
    port: NonZeroU16,
    pod_app: LabelValue,
    admin_secret: DnsName,
    database: DatabaseName,
    connection_limit: NonZeroU16,
});

pub(super) fn api<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Workload, D::Error> {
    Ok(WorkloadChanges::deserialize(deserializer)?.onto(Workload::api()))
}

pub(super) fn worker<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Workload, D::Error> {
    Ok(WorkloadChanges::deserialize(deserializer)?.onto(Workload::worker()))
}

pub(super) fn container_defaults<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<WorkloadSize, D::Error> {
    Ok(SizeChanges::deserialize(deserializer)?.onto(WorkloadSize::container_defaults()))
}

pub(super) fn postgresql<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Postgresql, D::Error> {
    Ok(PostgresqlChanges::deserialize(deserializer)?.onto(SharedServices::default().postgresql))
}

pub(super) fn redis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SharedService, D::Error> {
    Ok(ServiceChanges::deserialize(deserializer)?.onto(SharedServices::default().redis))
}
