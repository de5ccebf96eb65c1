//! Many tenants from a directory, by `provisioner apply -f DIR` and by `kubectl apply -f DIR` of the same manifests, one after the other on
//! the same cluster: first apply, and again with nothing changed. Workloads have no replicas. What it is for, and what was seen, is in
//! docs/benchmark.md.
//!
//! `cargo bench -p provisioner --bench fleet -- --context CONTEXT [--tenants 10,100] [--kubectl "build/lab kubectl"]`

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its figures"
)]

use clap::Parser;
use provisioner::{Stamp, Templates, Tenant, render};
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Debug, Parser)]
struct Args {
    /// The kubeconfig context of a cluster on which so many namespaces may be made, and removed.
    #[arg(long)]
    context: String,
    /// How many tenants, one run for each number.
    #[arg(long, value_delimiter = ',', default_value = "10,100")]
    tenants: Vec<usize>,
    /// How kubectl is called; may be several words.
    #[arg(long, default_value = "kubectl")]
    kubectl: String,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long a command took, and how much memory it had at most.
struct Figures {
    time: Duration,
    memory: u64,
}

/// One contender's two runs.
struct Runs {
    first: Figures,
    again: Figures,
}

/// Tenants of one number, as files for both.
struct Fleet {
    directory: tempfile::TempDir,
    count: usize,
}

fn main() -> Outcome<()> {
    let args = Args::parse();
    println!(
        "| tenants | | provisioner | kubectl | times as fast | goal | memory: provisioner | kubectl |\n|---|---|---|---|---|---|---|---|"
    );
    for &count in &args.tenants {
        let fleet = Fleet::new(count)?;
        let measured = fleet.measure(&args);
        // Whatever happened.
        let removed = fleet.remove(&args);
        let [ours, theirs] = measured?;
        removed?;
        print(count, &ours, &theirs);
    }
    Ok(())
}

fn print(count: usize, ours: &Runs, theirs: &Runs) {
    let rows = [
        ("first apply", &ours.first, &theirs.first, 3.0),
        ("unchanged", &ours.again, &theirs.again, 5.0),
    ];
    for (what, ours, theirs, goal) in rows {
        let ratio = theirs.time.as_secs_f64() / ours.time.as_secs_f64();
        let judged = if ratio >= goal { "reached" } else { "missed" };
        println!(
            "| {count} | {what} | {:.1} s | {:.1} s | {ratio:.1} | {goal}: {judged} | {} MiB | {} MiB |",
            ours.time.as_secs_f64(),
            theirs.time.as_secs_f64(),
            ours.memory / 1024,
            theirs.memory / 1024,
        );
    }
}

impl Fleet {
    fn new(count: usize) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let fleet = Self { directory, count };
        for directory in ["templates", "tenants", "manifests"] {
            fs::create_dir(fleet.path(directory))?;
        }
        for workload in ["61-deployment-api", "62-deployment-worker"] {
            let file = format!("{workload}.yaml.hbs");
            let embedded = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../templates/tenant")
                .join(&file);
            let text = without_replicas(&fs::read_to_string(embedded)?);
            fs::write(fleet.path("templates").join(&file), text)?;
        }
        for number in 0..count {
            let id = fleet.ids("p", number);
            let text = format!("id: {id}\nregistration: false\n");
            fs::write(fleet.path("tenants").join(format!("{id}.yaml")), text)?;
            let id = fleet.ids("k", number);
            fs::write(
                fleet.path("manifests").join(format!("{id}.yaml")),
                fleet.manifests(&id)?,
            )?;
        }
        Ok(fleet)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ids(&self, whose: &str, number: usize) -> String {
        format!("bench-{whose}-{number:03}")
    }

    /// All of a tenant in one file, in the order in which it can be made: kubectl does not sort.
    fn manifests(&self, id: &str) -> Outcome<String> {
        let templates = Templates::with_overrides(&self.path("templates"))?;
        let mut manifests = render(&Tenant::standard(id.parse()?), &templates, &Stamp::default())?;
        manifests.sort_by_key(|manifest| manifest.kind.phase);
        let documents: Result<Vec<String>, _> = manifests.iter().map(|manifest| manifest.to_yaml()).collect();
        Ok(documents?.join("---\n"))
    }

    fn measure(&self, args: &Args) -> Outcome<[Runs; 2]> {
        let first = self.timed("provisioner, first", self.provisioner(args))?;
        let first_of_kubectl = self.timed("kubectl, first", self.kubectl(args))?;
        let again = self.timed("provisioner, unchanged", self.provisioner(args))?;
        let again_of_kubectl = self.timed("kubectl, unchanged", self.kubectl(args))?;
        let theirs = Runs {
            first: first_of_kubectl,
            again: again_of_kubectl,
        };
        Ok([Runs { first, again }, theirs])
    }

    fn provisioner(&self, args: &Args) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provisioner"));
        command
            .args([
                "apply",
                "-f",
                "tenants",
                "--templates",
                "templates",
                "--timeout",
                "0s",
            ])
            .args(["--context", &args.context])
            .current_dir(self.directory.path());
        command
    }

    fn kubectl(&self, args: &Args) -> Command {
        let mut command = kubectl(args);
        command.args(["apply", "-f"]).arg(self.path("manifests"));
        command
    }

    /// Runs it, and reads how much memory it had as long as it does.
    fn timed(&self, what: &str, mut command: Command) -> Outcome<Figures> {
        let log = self.path("log");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let begin = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| format!("start {command:?}: {error}"))?;
        let mut memory = 0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            memory = most_memory(child.id()).unwrap_or(0).max(memory);
            sleep(Duration::from_millis(5));
        };
        let time = begin.elapsed();
        if !status.success() {
            let said = fs::read_to_string(&log)?;
            let end: Vec<&str> = said.lines().rev().take(20).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            return Err(format!("{what} ended with {status}:\n{}", end.join("\n")).into());
        }
        eprintln!(
            "{} tenants, {what}: {:.1} s, {} MiB",
            self.count,
            time.as_secs_f64(),
            memory / 1024
        );
        Ok(Figures { time, memory })
    }

    /// Removes the namespaces of both, and waits until they are gone.
    fn remove(&self, args: &Args) -> Outcome<()> {
        let begin = Instant::now();
        let ids = (0..self.count).flat_map(|number| [self.ids("p", number), self.ids("k", number)]);
        let names = ids.map(|id| format!("ai-agents-{id}"));
        let status = kubectl(args)
            .args([
                "delete",
                "namespaces",
                "--ignore-not-found",
                "--wait=true",
                "--timeout=15m",
            ])
            .args(names)
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(
                "remove the namespaces ai-agents-bench-…: see above; they have to be removed by hand".into(),
            );
        }
        eprintln!(
            "{} namespaces removed in {:.0} s",
            2 * self.count,
            begin.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

fn kubectl(args: &Args) -> Command {
    let mut words = args.kubectl.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("kubectl"));
    command.args(words).args(["--context", &args.context]);
    command
}

fn without_replicas(template: &str) -> String {
    let lines = template.lines().map(|line| match line.split_once("replicas: ") {
        Some((indent, _)) => format!("{indent}replicas: 0\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// In KiB, as Linux counts it (`VmHWM`); none where it does not, or not any more.
fn most_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
