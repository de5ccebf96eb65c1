//! The agent that runs inside pods: it listens, connects, and reports what it saw as JSON lines.
//! What an observation means for isolation is left to the caller.

pub mod attempt;
mod conversation;
mod failure;
pub mod protocol;
mod redis;
pub mod serve;
pub mod session;
mod sql;
mod wire;
pub mod witness;

pub use failure::Failure;
