//! `cargo xtask fuzz`: fuzzes the parsers of untrusted input.
//!
//! libFuzzer's instrumentation is a pass of LLVM, which stable rustc runs, too: neither cargo-fuzz nor a nightly
//! toolchain is needed, only a C++ compiler for libFuzzer itself.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;
use dockerutils_test_support::machine;
use dockerutils_test_support::mutex::lock;
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

/// How much a target is fuzzed.
#[derive(Clone, Copy)]
pub(crate) enum Effort {
    /// For this long, starting from what earlier runs found, with new inputs each time: the search for faults.
    Search(Duration),
    /// The same inputs each time, so that a stage that passed passes again: this many, made only from the kept ones, by
    /// the same random numbers.
    Repeat(u32),
}

/// The time limit of a target for [`Effort::Repeat`] on a machine that is too slow to try all inputs.
const REPEAT_LIMIT: Duration = Duration::from_secs(10);

/// The prefix of the name under which cargo runs this program in place of rustc, for the packages of the workspace.
const AS_RUSTC: &str = "rustc-for-fuzzing-";

/// Whether cargo runs this program as [`rustc`].
pub(crate) fn is_rustc() -> bool {
    let name = env::args_os().next();
    let name = name.as_deref().map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(AS_RUSTC.as_bytes()))
}

/// rustc with [`FLAGS`]: cargo's RUSTC_WORKSPACE_WRAPPER, which is given rustc and its arguments. So dependencies are
/// compiled without them, once for this and for everyday work.
pub(crate) fn rustc() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(rustc) = words.next() else {
        return ExitCode::FAILURE;
    };
    let mut rustc = Command::new(rustc);
    rustc.args(words);
    // Queries (`-vV`) compile nothing.
    if rustc.get_args().any(|word| word == "--crate-name") {
        rustc.args(FLAGS);
    }
    let error = rustc.exec();
    announce(format_args!("{}: {error}", process::shown(&rustc)));
    ExitCode::FAILURE
}

/// Gives this program the name that makes it [`rustc`].
///
/// The name depends on the flags: cargo compiles again only when the wrapper's path changes, whatever the wrapper does.
fn wrapper(workspace: &Workspace) -> Result<PathBuf, Error> {
    let mut hasher = DefaultHasher::new();
    FLAGS.hash(&mut hasher);
    let link = workspace.target.join(format!("{AS_RUSTC}{:016x}", hasher.finish()));
    // Not the path of this process's program: a build of the whole workspace may have replaced that file.
    let own = workspace.target.join("debug/xtask");
    if fs::read_link(&link).is_ok_and(|to| to == own) {
        return Ok(link);
    }
    // Renamed over the old one: another run may be using that.
    let made = workspace.target.join(format!("{AS_RUSTC}{}", std::process::id()));
    symlink(own, &made).map_err(Error::file(&made))?;
    fs::rename(&made, &link).map_err(Error::file(&link))?;
    Ok(link)
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let workspace = Workspace::load()?;
    let effort = Effort::Search(Duration::from_secs(args.seconds));
    let failed = match &args.target {
        None => all(&workspace, effort)?.1,
        Some(target) => {
            let known = targets(&directory(&workspace))?;
            if !known.contains(target) {
                let known = known.join(", ");
                return Err(Error::Failed(format!("no target {target:?}; there are: {known}")));
            }
            fuzz(&workspace, &build(&workspace)?, target, effort)
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

/// Fuzzes every target, as many at a time as there are processors; returns how many passed, and how many failed.
pub(crate) fn all(workspace: &Workspace, effort: Effort) -> Result<(usize, usize), Error> {
    let built = build(workspace)?;
    let targets = Mutex::new(targets(&directory(workspace))?.into_iter());
    let (passed, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let next = || lock(&targets).next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some(target) = next() {
                    match fuzz(workspace, &built, &target, effort) {
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

/// Every file of `targets/` but its list. One that is not in the list fails the tests below, and the program when it is
/// asked for that target.
fn targets(directory: &Path) -> Result<Vec<String>, Error> {
    let mut targets = names(&directory.join("targets"))?;
    targets.retain(|target| target != "main");
    Ok(targets)
}

/// The names of the files in a directory, without their extensions, sorted.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let files = files(directory)?;
    let stems = files.iter().filter_map(|path| path.file_stem());
    Ok(stems.map(|stem| stem.to_string_lossy().into_owned()).collect())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).map_err(Error::file(directory))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(Error::file(directory))?.path());
    }
    files.sort();
    Ok(files)
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
    build.env("RUSTC_WORKSPACE_WRAPPER", wrapper(workspace)?);
    // With a single codegen unit, nothing can be reused.
    process::run(build.env("CARGO_INCREMENTAL", "0"))?;
    Ok(workspace.target.join("debug/fuzz"))
}

/// Fuzzes one target: first each input that is kept in `seeds/`, however long that takes; then what is made from those.
fn fuzz(workspace: &Workspace, built: &Path, target: &str, effort: Effort) -> Result<(), Error> {
    let corpus = workspace.target.join("fuzz-corpus").join(target);
    let artifacts = workspace.target.join("fuzz-artifacts").join(target);
    for made in [&corpus, &artifacts] {
        fs::create_dir_all(made).map_err(Error::file(made))?;
    }
    let program = || {
        let mut program = Command::new(built);
        // The panic's own line should be the last one.
        program.env("FUZZ_TARGET", target).env("RUST_BACKTRACE", "0");
        program.args(["-timeout=10", "-rss_limit_mb=1024", "-verbosity=0"]);
        program
    };
    let seeds = directory(workspace).join("seeds").join(target);
    let kept = if seeds.is_dir() { files(&seeds)? } else { Vec::new() };
    let mut command = program();
    let limit = match effort {
        Effort::Search(limit) => {
            command.arg(&corpus);
            limit
        }
        Effort::Repeat(runs) => {
            // It writes what it finds into the first directory that it is given.
            let found = workspace.target.join("fuzz-repeat").join(target);
            match fs::remove_dir_all(&found) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(Error::file(&found)(cause)),
                _ => fs::create_dir_all(&found).map_err(Error::file(&found))?,
            }
            command.arg(found);
            command.args(["-seed=1".to_owned(), format!("-runs={runs}")]);
            REPEAT_LIMIT
        }
    };
    announce(format_args!("fuzz {target}: at most {} s", limit.as_secs()));
    if !kept.is_empty() {
        // Given files instead of directories, libFuzzer gives them to the target one by one, and ends.
        process::capture(program().args(kept))?;
        command.arg(seeds);
    }
    command.arg(format!("-max_total_time={}", limit.as_secs()));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    process::capture(&mut command).inspect_err(|_| {
        announce(format_args!(
            "fuzz {target}: the input is in {}; move it to tests/fuzz/seeds/{target}/, with the fix",
            artifacts.display()
        ));
    })?;
    Ok(())
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.root.join("tests/fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_listed_and_every_seed_is_of_a_target() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
        let written = targets(&directory).unwrap();
        let main = fs::read_to_string(directory.join("targets/main.rs")).unwrap();
        let (_, list) = main.split_once("\ntargets! {").unwrap();
        let (list, _) = list.split_once('}').unwrap();
        let listed: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        assert_eq!(
            written, listed,
            "tests/fuzz/targets has one file for each line of its main.rs, sorted"
        );
        for seeds in names(&directory.join("seeds")).unwrap() {
            assert!(written.contains(&seeds), "tests/fuzz/seeds/{seeds} is of no target");
        }
    }
}
