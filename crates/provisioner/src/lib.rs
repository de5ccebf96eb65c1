//! Makes a tenant's namespace out of templates, keeps it as they say, and takes it away again.
//!
//! Two halves. The pure one knows no client and no runtime: a [`Tenant`] and [`Templates`] are
//! [`render`]ed into [`Manifest`]s. The thin one carries them to a cluster: [`connect`], [`apply`],
//! [`wait_ready`], [`delete`]; [`registration`] makes it known to PostgreSQL and Redis. What all tenants share has the same halves: [`Platform`], [`render_platform`], [`platform`]. Whether tenants are isolated from each other is left to `conformance`.

pub mod admission;
pub mod adopt;
pub mod apply;
pub mod calls;
pub mod cluster;
mod credentials;
pub mod delete;
pub mod diff;
pub mod exec;
pub mod fit;
pub mod fleet;
pub mod generate;
pub mod hardening;
pub mod kinds;
pub mod labels;
pub mod list;
pub mod manifest;
pub mod names;
mod needs;
pub mod ownership;
pub mod platform;
pub mod preflight;
pub mod progress;
pub mod quantity;
pub mod ready;
pub mod registration;
pub mod render;
pub mod schema;
pub mod status;
pub mod template;
pub mod tenant;
pub mod variables;
mod yaml;

pub use adopt::{AdoptError, adopt};
pub use apply::{Applied, ApplyError, ApplyOptions, Conflict, apply};
pub use calls::CallError;
pub use cluster::{ConnectError, ConnectOptions, Connection, client_with_token, connect};
pub use delete::{DeleteError, DeleteOptions, Deleted, DnsEntry, Inventory, delete, inventory};
pub use generate::{GenerateError, generate, remove_generated};
pub use hardening::{Hardened, Hardening};
pub use list::{Standing, list};
pub use manifest::{Manifest, ObjectRef};
pub use names::{InvalidValue, TenantId};
pub use ownership::{Ownership, OwnershipError, ownership};
pub use preflight::preflight;
pub use progress::{Progress, Silent, Step};
pub use quantity::Quantity;
pub use ready::{Missing, NotReady, Reason, wait_ready, wait_ready_for};
pub use registration::{Registered, RegistrationError};
pub use render::{RenderError, render, render_platform};
pub use status::{Status, status};
pub use template::{TemplateError, Templates};
pub use tenant::{Platform, Quota, Stamp, Tenant};
