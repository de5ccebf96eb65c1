//! Proves by behaviour that tenants of one cluster are isolated.
//!
//! Settings become a [`plan`]; the plan's checks run concurrently against the tenants and emit [`event`]s; a [`report`] is a fold over the
//! events, and every [`document`] is a pure function of the report. A check may claim isolation only with proof that its probe works:
//! see [`verdict`].

pub mod access;
pub mod account;
pub mod admission;
pub mod agent;
pub mod canary;
pub mod check;
pub mod clean;
pub mod cli;
pub mod cluster;
pub mod context;
pub mod credentials;
pub mod denial;
pub mod describe;
pub mod document;
pub mod error;
pub mod event;
pub mod exec;
pub mod fault;
pub mod lease;
pub mod ledger;
pub mod manifest;
pub mod names;
pub mod pace;
pub mod plan;
pub mod pod;
pub mod postgresql;
pub mod probing;
pub mod quota;
pub mod redis;
pub mod registrations;
pub mod removal;
pub mod report;
pub mod resource;
pub mod retry;
pub mod rules;
pub mod run;
pub mod runner;
#[cfg(test)]
mod scripted;
pub mod sealed;
pub mod selftest;
pub mod settings;
pub mod shared_services;
pub mod signal;
pub mod stage;
pub mod subject;
pub mod targets;
pub mod verdict;
pub mod webhook;
pub mod workloads;
