//! `cargo xtask fuzz`: the parsers of what others wrote, given what nobody would write.
//!
//! libFuzzer's instrumentation is a pass of LLVM, which stable rustc runs, too: neither cargo-fuzz nor a nightly
//! toolchain is needed, only a C++ compiler for libFuzzer itself.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
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
const RUSTFLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // One unit of code to a crate, or the linker drops tables that the counters need.
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let workspace = Workspace::load()?;
    let limit = Duration::from_secs(args.seconds);
    let failed = match &args.target {
        None => all(&workspace, limit)?.1,
        Some(target) => {
            let built = build(&workspace)?;
            usize::from(fuzz(&workspace, &built, target, limit).is_err())
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
    let directory = directory(workspace).join("fuzz_targets");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&directory).map_err(Error::file(&directory))? {
        let path = entry.map_err(Error::file(&directory))?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

/// Builds all targets, and returns the directory that they are in.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf, Error> {
    machine::require("c++", &["g++"], "fuzzing")?;
    let version = process::capture_text(
        Command::new("rustc")
            .current_dir(&workspace.root)
            .args(["--version", "--verbose"]),
    )?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or_else(|| Error::Failed("rustc does not say its host".to_owned()))?;
    let target = workspace.target.join("fuzz");
    let mut build = workspace.cargo();
    // With a target named, build scripts and macros are left without instrumentation.
    build
        .args(["build", "--quiet", "--bins", "--target", host])
        .arg("--manifest-path")
        .arg(directory(workspace).join("Cargo.toml"));
    build
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"));
    process::run(&mut build)?;
    Ok(target.join(host).join("debug"))
}

/// Fuzzes one target, beginning with the inputs that are kept in `seeds/` and those that earlier runs found.
fn fuzz(workspace: &Workspace, built: &Path, target: &str, limit: Duration) -> Result<(), Error> {
    let directory = directory(workspace);
    let corpus = directory.join("corpus").join(target);
    let artifacts = directory.join("artifacts").join(target);
    for made in [&corpus, &artifacts] {
        fs::create_dir_all(made).map_err(Error::file(made))?;
    }
    announce(format_args!("fuzz {target}: {} s", limit.as_secs()));
    let mut command = Command::new(built.join(target));
    // The panic's own line is what one wants to see at the end.
    command.env("RUST_BACKTRACE", "0");
    command.args([
        format!("-max_total_time={}", limit.as_secs()),
        "-timeout=10".to_owned(),
        "-rss_limit_mb=1024".to_owned(),
    ]);
    // What broke the parser is kept there; move it to seeds/ with the fix.
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-verbosity=0", "-print_final_stats=0"]).arg(&corpus);
    let seeds = directory.join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    process::capture(&mut command)?;
    Ok(())
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.root.join("tests/fuzz")
}
