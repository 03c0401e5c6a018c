//! The chores of this workspace: `cargo xtask --help` lists them.
//!
//! This program is built before anything else is, so it has few dependencies, and no command is among them: it gets
//! what it has to know of a command from the command's binary.

mod bench;
mod demo;
mod error;
mod fuzz;
mod generate;
mod install;
mod lab;
mod soak;
mod test;
mod tidy;
mod workspace;

use std::error::Error as _;
use std::process::ExitCode;

use clap::Parser;
use dockerutils_test_support::process::announce;

use error::Error;

/// The chores of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Command {
    /// Build a sample project's image, run it, fetch an answer from it, clean up.
    Demo,
    /// Run all checks and tests, each stage within its budget of time.
    Test(test::Args),
    /// Install the commands, their completions and manual pages.
    Install(install::Args),
    /// Write the reference pages of docs/ and the README's table of commands.
    Gen(generate::Args),
    /// Measure ourselves beside our peers.
    Bench(bench::Args),
    /// Check the conventions of the code.
    Tidy,
    /// Fuzz the parsers of untrusted input.
    Fuzz(fuzz::Args),
    /// Run the tests with crashes at random moments for a long time.
    Soak(soak::Args),
    /// Start, stop or show the engines that the tests use.
    ///
    /// They are containers on the machine's own engine: a lab for each checkout, so that several can test at the same
    /// time. Everything that a lab has there bears the label io.dockerutils.lab; its files are in
    /// ~/.cache/dockerutils-lab. Tests start the engines that are not running, and leave them running for the next
    /// time.
    Lab(lab::Args),
}

fn main() -> ExitCode {
    if fuzz::is_rustc() {
        return fuzz::rustc();
    }
    let done = match Command::parse() {
        Command::Demo => demo::run(),
        Command::Test(args) => test::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Gen(args) => generate::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tidy => tidy::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Lab(args) => lab::run(&args),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    if !matches!(error, Error::Silent) {
        announce(format_args!("xtask: {error}"));
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        announce(format_args!("  because: {error}"));
        cause = error.source();
    }
    ExitCode::from(error.code())
}
