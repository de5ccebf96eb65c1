//! The operator guide, followed word for word on a real cluster: every command in it, in its order, and what it prints.
//!
//! `CONFORMANCE_TEST_CLUSTER=CONTEXT LAB_BINARY=build/lab cargo test -p provisioner --test guide -- --include-ignored`, with the kubeconfig
//! in `KUBECONFIG` and its current context the cluster. It needs what `provisioner preflight` asks for, and the binaries of the workspace.
//!
//! Of the guide's blocks `sh` are run, and `console` are run and compared: after each command, which begins with `$ `, comes what it
//! prints on stdout and stderr. There `…` stands for anything in a line, and on a line of its own for any lines. A command that ends with
//! another exit code than 0 is an error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests"
)]

use regex::Regex;
use rstest::rstest;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const GUIDE: &str = "docs/operations/tenant-namespace-provisioning.md";

/// Something to do, and the guide's line that says so.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    script: String,
    /// What is printed; not compared where there is none.
    prints: Option<String>,
}

fn steps(guide: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block = "";
    for (index, text) in guide.lines().enumerate() {
        let line = index + 1;
        if let Some(language) = text.strip_prefix("```") {
            block = if block.is_empty() { language } else { "" };
            if block == "sh" {
                steps.push(Step {
                    line: line + 1,
                    script: String::new(),
                    prints: None,
                });
            }
            continue;
        }
        match (block, text.strip_prefix("$ ")) {
            ("sh", _) => {
                let script = &mut steps.last_mut().unwrap().script;
                script.push_str(text);
                script.push('\n');
            }
            ("console", Some(command)) => steps.push(Step {
                line,
                script: format!("{command}\n"),
                prints: Some(String::new()),
            }),
            ("console", None) => {
                let step = steps.last_mut().expect("a console block begins with a command");
                let prints = step
                    .prints
                    .as_mut()
                    .expect("a console block begins with a command");
                prints.push_str(text);
                prints.push('\n');
            }
            _ => {}
        }
    }
    steps
}

/// Whether this was printed, but for what `…` stands for.
fn is_printed(expected: &str, seen: &str) -> bool {
    let mut pattern = String::from(r"\A");
    for line in expected.lines() {
        if line.trim() == "…" {
            pattern.push_str(r"(?:[^\n]*\n)*?");
            continue;
        }
        let parts: Vec<String> = line
            .split('…')
            .map(|part| regex::escape(part.trim_end()))
            .collect();
        pattern.push_str(&parts.join(r"[^\n]*"));
        pattern.push_str(r"[^\n\S]*\n");
    }
    pattern.push_str(r"\z");
    Regex::new(&pattern).unwrap().is_match(seen)
}

/// Where the guide is followed: a directory of its own, and what its commands mean there.
struct Place {
    directory: tempfile::TempDir,
    path: String,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_provisioner")).parent().unwrap();
        assert!(
            built.join("conformance").is_file(),
            "expected {}/conformance; build it: cargo build --workspace",
            built.display()
        );
        let lab =
            std::env::var("LAB_BINARY").expect("LAB_BINARY names the lab's binary, whose kubectl is used");
        let bin = directory.path().join(".bin");
        fs::create_dir(&bin).unwrap();
        let kubectl = bin.join("kubectl");
        fs::write(&kubectl, format!("#!/bin/sh\nexec '{lab}' kubectl \"$@\"\n")).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        let path = [
            &bin.display().to_string(),
            &built.display().to_string(),
            &std::env::var("PATH").unwrap(),
        ]
        .map(String::as_str)
        .join(":");
        Self { directory, path }
    }

    /// Whether it ended well, and all that it printed.
    fn run(&self, script: &str) -> (bool, String) {
        let output = Command::new("sh")
            .args(["-euc", &format!("exec 2>&1\n{script}")])
            .current_dir(self.directory.path())
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}

fn guide() -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(GUIDE);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
#[ignore = "needs a cluster"]
fn the_guide_works_word_for_word() {
    std::env::var("CONFORMANCE_TEST_CLUSTER").expect("CONFORMANCE_TEST_CLUSTER names a kubeconfig context");
    let place = Place::new();
    let mut wrong = Vec::new();
    for Step { line, script, prints } in steps(&guide()) {
        let begin = Instant::now();
        let (well, seen) = place.run(&script);
        eprintln!(
            "{:6.1}s  {GUIDE}:{line}: {}",
            begin.elapsed().as_secs_f64(),
            script.lines().next().unwrap_or_default()
        );
        if !well {
            wrong.push(format!("{GUIDE}:{line}: failed:\n{script}it printed:\n{seen}"));
            // What comes after it builds on it.
            if prints.is_none() {
                break;
            }
        } else if let Some(expected) = prints.filter(|expected| !is_printed(expected, &seen)) {
            wrong.push(format!(
                "{GUIDE}:{line}: {script}expected:\n{expected}seen:\n{seen}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_command_is_in_the_guide() {
    let help = Command::new(env!("CARGO_BIN_EXE_provisioner"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // What a description goes on with is further in.
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() > 3, "{help}");
    let scripts: String = steps(&guide()).into_iter().map(|step| step.script).collect();
    let missing: Vec<&&str> = commands
        .iter()
        .filter(|command| {
            let begins = |end| scripts.contains(&format!("provisioner {command}{end}"));
            !begins(' ') && !begins('\n')
        })
        .collect();
    assert!(missing.is_empty(), "the guide runs no provisioner {missing:?}");
}

#[test]
fn steps_are_scripts_and_commands_with_what_they_print() {
    let guide = "text\n```sh\na\nb\n```\n```yaml\n$ no\n```\n```console\n$ c\nprinted\n$ d\n```\n";
    let step = |line, script: &str, prints: Option<&str>| Step {
        line,
        script: script.to_owned(),
        prints: prints.map(str::to_owned),
    };
    let expected = [
        step(3, "a\nb\n", None),
        step(10, "c\n", Some("printed\n")),
        step(12, "d\n", Some("")),
    ];
    assert_eq!(steps(guide), expected);
}

#[rstest]
#[case::the_same("a\nb\n", "a\nb\n", true)]
#[case::another("a\nb\n", "a\nc\n", false)]
#[case::more("a\n", "a\nb\n", false)]
#[case::less("a\nb\n", "a\n", false)]
#[case::anything_in_a_line("a … c\n", "a b c\n", true)]
#[case::not_in_the_next("a … c\n", "a\nc\n", false)]
#[case::any_lines("a\n…\nd\n", "a\nb\nc\nd\n", true)]
#[case::any_lines_at_the_end("a\n…\n", "a\nb\n", true)]
#[case::none_at_all("a\n…\nb\n", "a\nb\n", true)]
#[case::signs_are_no_pattern("a.b(c)\n", "aXb(c)\n", false)]
#[case::spaces_at_the_end("a  \n", "a\n", true)]
fn what_is_printed_is_compared(#[case] expected: &str, #[case] seen: &str, #[case] same: bool) {
    assert_eq!(is_printed(expected, seen), same);
}
