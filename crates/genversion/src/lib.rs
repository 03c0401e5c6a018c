//! Writes the version of a project, as versioneer computes it from git, to a file that its images can hold.
//!
//! ```text
//! $ genversion
//! 1.2+3.g4711abc
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::genversion;

/// Write the version of a project to a file for its images
///
/// For projects that take their version from git with versioneer: there is no git in an image. The version is written to
/// _version.py.bld in the project's root, from where a Dockerfile copies it over the project's _version.py; and printed.
/// The configuration is versioneer's own, in setup.cfg or pyproject.toml. No Python is needed. Without such a
/// configuration nothing is written or printed.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 written, or there is no versioneer; 1 the file can't be written, or git takes too \
long; 2 wrong usage or configuration."
)]
pub struct Args {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "genversion",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(_: Args, context: &Context) -> Result<ExitStatus> {
    genversion::generate(context)
}
