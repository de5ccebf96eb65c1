//! The witness: what a listening agent saw, kept in memory, and asked for by another process in the same pod.

mod control;
mod ring;

pub(crate) use control::Control;
pub use control::{DEFAULT_CONTROL, ask};
pub use ring::Ring;
