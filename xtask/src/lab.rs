//! `cargo xtask lab`: the engines that the tests use.

use std::io::{self, Write};

use clap::{Parser, ValueEnum};
use dockerutils_test_support::lab;

use crate::error::Error;

#[derive(Parser)]
pub(crate) struct Args {
    #[arg(value_enum)]
    what: What,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Start what does not run; make what it needs
    Up,
    /// Stop all and forget what they stored; the images stay
    Down,
    /// Show the engines
    Status,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    match args.what {
        What::Up => lab::engines().map(drop)?,
        What::Down => return Ok(lab::down()?),
        What::Status => {}
    }
    let mut out = io::stdout().lock();
    for (name, engine) in lab::status()? {
        let line = match engine {
            Some(engine) => format!("{name:<15} {:<16} {:<11} {}", engine.version, engine.store, engine.host),
            None => format!("{name:<15} down"),
        };
        writeln!(out, "{line}").map_err(Error::file("stdout"))?;
    }
    Ok(())
}
