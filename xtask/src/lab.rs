//! `cargo xtask lab`: the engines that the tests use.

use std::io::{self, Write};

use clap::{Parser, Subcommand};
use dockerutils_test_support::lab::Lab;

use crate::error::Error;

#[derive(Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Start the engines that are not running; make what they need
    Up,
    /// Stop this checkout's engines, and remove what they stored and what tests that were killed left; the images stay
    Down {
        /// Those of every checkout, and the images, the tarballs and everything else that the labs keep. What a running
        /// test of another checkout uses stays
        #[arg(long)]
        all: bool,
    },
    /// Show the engines, and the labs of other checkouts
    Status,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let lab = Lab::open()?;
    match args.what {
        What::Up => lab.engines().map(drop)?,
        What::Down { all: false } => return Ok(lab.down()?),
        What::Down { all: true } => return Ok(lab.down_all()?),
        What::Status => {}
    }
    let mut lines = Vec::new();
    for (name, engine) in lab.status() {
        lines.push(match engine {
            Some(engine) => format!("{name:<15} {:<16} {:<11} {}", engine.version, engine.store, engine.host),
            None => format!("{name:<15} down"),
        });
    }
    if matches!(args.what, What::Status) {
        lines.push(format!("\nlab {}: {}", lab.id(), lab.directory().display()));
        lines.extend(lab.holdings()?.into_iter().map(|holding| format!("    {holding}")));
        for other in lab.other_labs()? {
            let state = if other.in_use { "in use" } else { "idle" };
            let directory = other.directory.unwrap_or_default();
            lines.push(format!(
                "lab {}: another checkout's, {state}: {}",
                other.id,
                directory.display()
            ));
        }
    }
    let mut out = io::stdout().lock();
    lines
        .iter()
        .try_for_each(|line| writeln!(out, "{line}"))
        .map_err(Error::file("stdout"))
}
