//! The agent that runs inside pods: it listens, connects, and reports what it saw as JSON lines.
//! What an observation means for isolation is left to the caller.

pub mod protocol;
