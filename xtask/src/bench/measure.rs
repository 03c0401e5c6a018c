//! Times and peak memory of a program.

use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dockerutils_test_support::process;

use crate::error::Error;

/// How long each run took.
#[derive(Debug, Default, Clone)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    pub(super) fn push(&mut self, sample: Duration) {
        let at = self.0.partition_point(|other| *other <= sample);
        self.0.insert(at, sample);
    }

    pub(super) fn min(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| match time.as_secs_f64() {
            short if short < 0.1 => format!("{:.1} ms", short * 1000.0),
            long => format!("{long:.2} s"),
        };
        write!(f, "{} / {}", seconds(self.min()), seconds(self.median()))
    }
}

/// Runs a program to its end, silently, and says how long that took.
pub(super) fn time(command: &mut Command) -> Result<Duration, Error> {
    let started = Instant::now();
    process::capture(command)?;
    Ok(started.elapsed())
}

/// Runs a program to its end, and returns its peak memory in bytes.
///
/// The kernel keeps that number while the process lives, so it is read until the end; a run of its own, so that reading
/// does not disturb the times.
pub(super) fn peak_memory(command: &mut Command) -> Result<u64, Error> {
    let name = process::shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::file(&name))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().map_err(Error::file(&name))?.is_none() {
        peak = peak.max(
            fs::read_to_string(&status)
                .ok()
                .and_then(|text| high_water(&text))
                .unwrap_or(0),
        );
        thread::sleep(Duration::from_micros(500));
    }
    Ok(peak)
}

/// `VmHWM:     12345 kB` of /proc/PID/status, in bytes.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_sorted_samples() {
        let mut samples = Samples::default();
        for milliseconds in [9, 1, 5] {
            samples.push(Duration::from_millis(milliseconds));
        }
        assert_eq!((samples.min().as_millis(), samples.median().as_millis()), (1, 5));
        assert_eq!(samples.to_string(), "1.0 ms / 5.0 ms");
    }

    #[test]
    fn the_peak_is_read_from_proc() {
        assert_eq!(
            high_water("Name:\tx\nVmHWM:\t     128 kB\nVmRSS:\t 4 kB\n"),
            Some(128 * 1024)
        );
    }
}
