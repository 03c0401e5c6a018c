//! `cargo xtask fuzz`: the parsers of what others wrote, given what nobody would write.
//!
//! libFuzzer's instrumentation is a pass of LLVM, which stable rustc runs, too: neither cargo-fuzz nor a nightly
//! toolchain is needed, only a C++ compiler for libFuzzer itself.

use std::env;
use std::fs;
use std::num::NonZero;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Parser;
use dockerutils_test_support::machine;
use dockerutils_test_support::process::{self, announce};

use crate::error::Error;
use crate::workspace::Workspace;

#[derive(Parser)]
pub(crate) struct Args {
    /// The target; all of them, unless it is given
    target: Option<String>,
    /// How long each target is fuzzed
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
}

/// What cargo-fuzz gives rustc, less the sanitizer (that needs nightly, and our code has next to no `unsafe`).
const FLAGS: [&str; 9] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // One unit of code to a crate, or the linker drops tables that the counters need.
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    // What is fuzzed is to be quick to run; what it depends on hardly runs, and is shared with everyday work.
    "-Copt-level=1",
];

/// Set where cargo runs this program in place of rustc, for the packages of the workspace.
const AS_RUSTC: &str = "XTASK_FUZZ_RUSTC";

/// Whether cargo runs this program as [`rustc`].
pub(crate) fn is_rustc() -> bool {
    env::var_os(AS_RUSTC).is_some()
}

/// rustc with [`FLAGS`]: cargo's RUSTC_WORKSPACE_WRAPPER, which is given rustc and its arguments. So dependencies are
/// compiled without them, once for this and for everyday work.
pub(crate) fn rustc() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(rustc) = words.next() else {
        return ExitCode::FAILURE;
    };
    let mut rustc = Command::new(rustc);
    rustc.args(words).env_remove(AS_RUSTC);
    // Questions about rustc (`-vV`) are no compilation.
    if rustc.get_args().any(|word| word == "--crate-name") {
        rustc.args(FLAGS);
    }
    let error = rustc.exec();
    announce(format_args!("{}: {error}", process::shown(&rustc)));
    ExitCode::FAILURE
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let workspace = Workspace::load()?;
    let limit = Duration::from_secs(args.seconds);
    let failed = match &args.target {
        None => all(&workspace, limit)?.1,
        Some(target) => {
            let built = build(&workspace)?;
            let known = targets(&workspace)?;
            if !known.contains(target) {
                let known = known.join(", ");
                return Err(Error::Failed(format!("no target {target:?}; there are: {known}")));
            }
            fuzz(&workspace, &built, target, limit)
                .inspect_err(|error| announce(error))
                .is_err()
                .into()
        }
    };
    match failed {
        0 => Ok(()),
        _ => Err(Error::Silent),
    }
}

/// Fuzzes every target for `limit`, as many at a time as there are processors; how many survived, and how many did not.
pub(crate) fn all(workspace: &Workspace, limit: Duration) -> Result<(usize, usize), Error> {
    let built = build(workspace)?;
    let targets = Mutex::new(targets(workspace)?.into_iter());
    let (passed, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let next = || targets.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some(target) = next() {
                    match fuzz(workspace, &built, &target, limit) {
                        Ok(()) => passed.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            announce(error);
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
    });
    Ok((passed.into_inner(), failed.into_inner()))
}

/// Every file of `fuzz_targets` is one: a target that was written and not listed is an error of `build`'s.
fn targets(workspace: &Workspace) -> Result<Vec<String>, Error> {
    let directory = directory(workspace).join("targets");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&directory).map_err(Error::file(&directory))? {
        let path = entry.map_err(Error::file(&directory))?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.retain(|target| target != "main");
    targets.sort();
    Ok(targets)
}

/// Builds the program that holds all targets, and returns its path. Lints are checked first, without instrumentation.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf, Error> {
    machine::require("c++", &["g++"], "fuzzing")?;
    let chosen: Vec<&str> = workspace.everyday_with("fuzz").chain(["--bin", "fuzz"]).collect();
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--quiet"]).args(&chosen);
    process::run(clippy.args(["--", "--deny", "warnings"]))?;
    let mut build = workspace.cargo();
    build.args(["build", "--quiet"]).args(&chosen);
    let own = env::current_exe().map_err(Error::file("xtask"))?;
    build.env("RUSTC_WORKSPACE_WRAPPER", own).env(AS_RUSTC, "1");
    // Of one unit of code, nothing can be kept.
    process::run(build.env("CARGO_INCREMENTAL", "0"))?;
    Ok(workspace.target.join("debug/fuzz"))
}

/// Fuzzes one target, beginning with the inputs that are kept in `seeds/` and those that earlier runs found.
fn fuzz(workspace: &Workspace, built: &Path, target: &str, limit: Duration) -> Result<(), Error> {
    let corpus = workspace.target.join("fuzz-corpus").join(target);
    let artifacts = workspace.target.join("fuzz-artifacts").join(target);
    for made in [&corpus, &artifacts] {
        fs::create_dir_all(made).map_err(Error::file(made))?;
    }
    announce(format_args!("fuzz {target}: {} s", limit.as_secs()));
    let mut command = Command::new(built);
    // The panic's own line is what one wants to see at the end.
    command.env("FUZZ_TARGET", target).env("RUST_BACKTRACE", "0");
    command.args([
        format!("-max_total_time={}", limit.as_secs()),
        "-timeout=10".to_owned(),
        "-rss_limit_mb=1024".to_owned(),
    ]);
    // What broke the parser is kept there; move it to seeds/ with the fix.
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-verbosity=0", "-print_final_stats=0"]).arg(&corpus);
    let seeds = directory(workspace).join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    process::capture(&mut command)?;
    Ok(())
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.root.join("tests/fuzz")
}
