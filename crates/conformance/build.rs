//! Embeds the planted faults: every file below `fixtures/faults`, as a list of paths and texts. What they mean is left to `fault.rs`.

#![allow(clippy::print_stdout, reason = "how a build script talks to cargo")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = Path::new("../../fixtures/faults");
    println!("cargo:rerun-if-changed={}", root.display());
    let root = root.canonicalize()?;
    let mut list = String::from("&[\n");
    for path in files(&root)? {
        let name = path.strip_prefix(&root).map_err(io::Error::other)?;
        // Writing to a String cannot fail.
        let _ = writeln!(list, "({name:?}, include_str!({path:?})),");
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?);
    fs::write(out.join("faults.rs"), list)
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
