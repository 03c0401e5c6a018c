//! `cargo xtask bench`: our commands and their peers, measured in the same run on the same machine.
//!
//! Times vary between machines and from hour to hour; the ratio of two medians measured in turn varies little. A bench
//! reports and never fails: its verdict is for the reader.

mod any_tool;
mod context;
mod dock;
mod far;
mod measure;
mod notebook;
mod peers;
mod run;
mod stack;
mod startup;
mod sync;
mod transfer;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::{self, announce};

use crate::error::Error;
use crate::workspace::{Profile, Workspace};
use measure::Samples;

#[derive(Parser)]
pub(crate) struct Args {
    /// What to measure; without it, the benches are listed
    name: Option<String>,
    /// How often each side runs
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// The engine of the lab to measure on (see `cargo xtask lab status`) [default: 20; 26 as a dock]
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// On a distant dock: 50 ms and 100 Mbit/s (with `context`)
    #[arg(long)]
    dock: bool,
    /// Over this link only, such as "0 ms" (with `transfer`)
    #[arg(long, value_name = "NAME")]
    link: Option<String>,
}

struct Benchmark {
    name: &'static str,
    about: &'static str,
    run: fn(&Setting) -> Result<Vec<Comparison>, Error>,
}

const BENCHES: [Benchmark; 9] = [
    Benchmark {
        name: "startup",
        about: "--help of each command, and a build in which nothing changed",
        run: startup::run,
    },
    Benchmark {
        name: "context",
        about: "a build of 20,000 files: cold, one changed, none changed",
        run: context::run,
    },
    Benchmark {
        name: "run",
        about: "a container that exits at once, and 1 GiB through cat",
        run: run::run,
    },
    Benchmark {
        name: "dock",
        about: "the docker client on a dock, at 0 and 50 ms, against its own ssh://",
        run: dock::run,
    },
    Benchmark {
        name: "transfer",
        about: "an image of 494 MB to a dock: all of it, and one layer; without delay, and over slow links",
        run: transfer::run,
    },
    Benchmark {
        name: "sync",
        about: "20,000 files that are on the dock already, over 50 ms; new data, at 0 and 50 ms; waiting for the disk",
        run: sync::run,
    },
    Benchmark {
        name: "any-tool",
        about: "compose and docker run with bind mounts on a dock, 50 ms away",
        run: any_tool::run,
    },
    Benchmark {
        name: "notebook",
        about: "run-notebook, near and 50 ms away, against docker run -p and a loop of curl; its forward after a cut",
        run: notebook::run,
    },
    Benchmark {
        name: "stack",
        about: "eight images in a registry, 50 ms away: promoted, against docker pull, tag and push; planned, nothing changed",
        run: stack::run,
    },
];

/// What a bench is run with.
struct Setting {
    /// The directory of our programs, built for release.
    bin: PathBuf,
    workspace: Workspace,
    runs: usize,
    engine: LabEngine,
    /// Where that engine is one of the lab's docks.
    dock: LabEngine,
    /// On a distant dock.
    far: bool,
    /// Over this link only.
    link: Option<String>,
}

impl Setting {
    /// One of our programs, without the settings of the user who runs the bench.
    fn ours(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        for variable in ["DOCKER_CONFIG", "XDG_CONFIG_HOME"] {
            command.env(variable, "/nonexistent");
        }
        for variable in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(variable);
        }
        command
    }
}

/// One comparison.
struct Comparison {
    what: String,
    ours: Samples,
    peer: Samples,
    /// The limit of the ratio of the medians; `None` if it is only reported.
    limit: Option<f64>,
    /// Our peak memory, in bytes.
    memory: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let Some(name) = &args.name else {
        for Benchmark { name, about, .. } in &BENCHES {
            say(&format!("{name:<10} {about}"))?;
        }
        return Ok(());
    };
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    let bench = bench.ok_or_else(|| Error::Failed(format!("no bench {name:?}; `cargo xtask bench` lists them")))?;
    let workspace = Workspace::load()?;
    announce("building for release");
    let bin = workspace.build(Profile::Release)?;
    let engine = lab::engine(args.engine.as_deref().unwrap_or("20"))?;
    let dock = lab::engine(args.engine.as_deref().unwrap_or("26"))?;
    announce(format_args!(
        "engine {} ({}, {} store), {} runs each",
        engine.name, engine.version, engine.store, args.runs
    ));
    let rows = (bench.run)(&Setting {
        bin,
        workspace,
        runs: args.runs.max(1),
        engine,
        dock,
        far: args.dock,
        link: args.link.clone(),
    })?;
    say(&format!(
        "{:<30} {:>17} {:>17} {:>6} {:>6}  {:<7} {:>9}",
        "", "ours min/median", "peer min/median", "ratio", "limit", "verdict", "our peak"
    ))?;
    rows.iter().try_for_each(|row| say(&row.to_string()))
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ratio = self.ours.median().as_secs_f64() / self.peer.median().as_secs_f64();
        let (limit, verdict) = match self.limit {
            Some(limit) if ratio <= limit => (format!("{limit:.2}"), "met"),
            Some(limit) => (format!("{limit:.2}"), "MISSED"),
            None => ("-".to_owned(), ""),
        };
        let memory = self.memory.map_or_else(
            || "-".to_owned(),
            |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        );
        let (ours, peer) = (self.ours.to_string(), self.peer.to_string());
        write!(
            f,
            "{:<30} {ours:>17} {peer:>17} {ratio:>6.3} {limit:>6}  {verdict:<7} {memory:>9}",
            self.what
        )
    }
}

/// Removes what both sides built on an engine: ours by our own command, the peer's by docker's.
fn forget(setting: &Setting, engine: &LabEngine, project: &Path, theirs: &str) -> Result<(), Error> {
    let mut clean = setting.ours("build-image");
    clean.arg("clean").current_dir(project).env("DOCKER_HOST", &engine.host);
    process::capture(&mut clean)?;
    process::capture(engine.docker().args(["rmi", "--force", theirs]))?;
    Ok(())
}

fn say(line: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{line}").map_err(Error::file("stdout"))
}
