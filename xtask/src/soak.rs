//! `cargo xtask soak`: randomized tests, for as long as you like. The test run has a few rounds of each.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use dockerutils_test_support::process::{self, announce};

use crate::error::Error;
use crate::workspace::{Profile, Workspace};

#[derive(Parser)]
pub(crate) struct Args {
    /// What is tried
    what: What,
    /// For how long, start and end not included
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// The seed of an earlier run, for the same course, as far as the engines' timing allows [default: a new one]
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// transfer-image, while it is killed, the link is cut and engines die at any moment
    Transfer,
    /// sync-up and sync-down, while they are killed, the link and both machines' power are cut at any moment, and both
    /// sides change
    Sync,
    /// edits on both sides of a project that is watched
    Watch,
}

impl What {
    /// The test, which takes its time from DOCKERUTILS_SOAK_SECONDS and its seed from DOCKERUTILS_SOAK_SEED.
    const fn test(self) -> &'static str {
        match self {
            Self::Transfer => "transfer_crashes::a_name_never_leads_to_less_than_before",
            Self::Sync => "sync_crashes::nobodys_work_is_lost_in_a_crash",
            Self::Watch => {
                "sync::tests::shared::many_edits_of_both_sides_while_it_is_watched_meet_but_for_named_conflicts"
            }
        }
    }

    /// Where it is.
    const fn target(self) -> &'static [&'static str] {
        match self {
            Self::Transfer | Self::Sync => &["--package", "dockerutils-tests", "--test", "real"],
            Self::Watch => &["--package", "dockerutils-core", "--lib"],
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let workspace = Workspace::load()?;
    workspace.build(Profile::Debug)?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    announce(format_args!(
        "{} for {} minutes, seed {seed}",
        args.what.test(),
        args.minutes
    ));
    let mut test = workspace.cargo();
    // Not with nextest, which ends tests that take long.
    test.args(["test", "--quiet"]);
    test.args(args.what.target());
    test.args(["--", "--exact", args.what.test(), "--nocapture"]);
    test.env("DOCKERUTILS_SOAK_SECONDS", (args.minutes * 60).to_string());
    test.env("DOCKERUTILS_SOAK_SEED", seed.to_string());
    Ok(process::run(&mut test)?)
}

/// A different seed each time.
fn fresh_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}
