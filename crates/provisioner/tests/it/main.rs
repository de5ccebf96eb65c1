//! The library against a scripted API server, and the command as its users see it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests, whose helpers clippy does not know as such"
)]

use std::path::Path;
use std::sync::{Mutex, PoisonError};

mod apply;
mod cli;
mod delete;
mod fleet;
mod killed;
mod platform;
mod preflight;
mod ready;
mod server;
mod together;
mod trouble;
mod versions;

/// The part of docs/reliability.md between these marks is generated: `UPDATE_DOCS=1 cargo test -p provisioner` writes it.
fn documented(mark: &str, inner: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reliability.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->\n"));
    let (head, rest) = text.split_once(&begin).unwrap();
    let (_, tail) = rest.split_once(&end).unwrap();
    let updated = format!("{head}{begin}{inner}{end}{tail}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &updated).unwrap();
    }
    assert!(
        text == updated,
        "docs/reliability.md is out of date, {mark:?} is now:\n{inner}run UPDATE_DOCS=1 cargo test -p provisioner"
    );
}
