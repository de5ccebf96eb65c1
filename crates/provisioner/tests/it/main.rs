//! The library against a scripted API server, and the command as its users see it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests, whose helpers clippy does not know as such"
)]

mod apply;
mod cli;
mod delete;
mod platform;
mod preflight;
mod ready;
mod server;
