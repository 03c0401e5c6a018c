//! The docker client in a docked shell, over the agent's open connection, against its own `ssh://`, which starts an ssh
//! client for each connection.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::BASE_IMAGE;
use dockerutils_test_support::process;

use super::far::{Distance, FarDock};
use super::measure::{Samples, time};
use super::{Comparison, Setting};
use crate::error::Error;

/// The limit for `docker ps` at 50 ms. The others have no limit, but should be quicker.
const PS_LIMIT: f64 = 0.3;
/// How many run at once.
const PARALLEL: usize = 10;

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    let engine = &setting.dock;
    let mut rows = Vec::new();
    for (delay, ps_limit) in [(0, 1.0), (50, PS_LIMIT)] {
        let distance = Distance {
            round_trip: Duration::from_millis(delay),
            capacity: None,
        };
        let dock = FarDock::register(setting, engine, distance)?;
        let run = ["run", "--rm", "--network=none", BASE_IMAGE, "true"];
        let measures: [(&str, &[&str], usize, f64); 3] = [
            ("docker ps", &["ps"], 1, ps_limit),
            ("docker run --rm", &run, 1, 1.0),
            ("ten times docker ps at once", &["ps"], PARALLEL, 1.0),
        ];
        for (what, arguments, at_once, limit) in measures {
            let mut row = Comparison {
                what: format!("{what}, {delay} ms"),
                ours: Samples::default(),
                peer: Samples::default(),
                limit: Some(limit),
                memory: None,
            };
            for _ in 0..setting.runs {
                row.ours.push(time_all(|| with(dock.docked(), arguments), at_once)?);
                row.peer.push(time_all(|| with(dock.by_ssh(), arguments), at_once)?);
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// The time until the last of them has ended.
fn time_all(command: impl Fn() -> Command, at_once: usize) -> Result<Duration, Error> {
    if at_once == 1 {
        return time(&mut command());
    }
    let began = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = (0..at_once)
            .map(|_| {
                let mut command = command();
                scope.spawn(move || process::capture(&mut command))
            })
            .collect();
        for thread in running {
            thread
                .join()
                .map_err(|_| Error::Failed("a thread of the bench ended badly".to_owned()))??;
        }
        Ok::<_, Error>(())
    })?;
    Ok(began.elapsed())
}
