//! Whether this machine has something else to do, and how quick it is.
//!
//! No counter of the system separates our own work (including the lab's engines) from other work. So each processor is
//! measured while our work pauses, before and after a stage: a thread spins for a moment; the share of the time that it
//! got, and the rounds that it made, are the answer.

use std::hint::black_box;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long a processor is measured.
const MOMENT: Duration = Duration::from_millis(400);
/// An idle machine gives a thread more than this share of its time.
const UNDISTURBED: f64 = 0.8;
/// The rounds of [`spin`] in a second of a processor for which the budgets were written, in an unoptimized build.
const ROUNDS: f64 = 150_000.0;

/// The state of the machine at some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Machine {
    /// Something else ran.
    pub(super) busy: bool,
    /// How many times longer it takes than the machine for which the budgets were written; at least 1.
    pub(super) slowness: f64,
}

impl Machine {
    /// The state between two measurements.
    pub(super) fn beside(self, other: Self) -> Self {
        Self {
            busy: self.busy || other.busy,
            slowness: self.slowness.max(other.slowness),
        }
    }
}

/// Measures all processors at once.
pub(super) fn probe() -> Machine {
    let threads: Vec<JoinHandle<(f64, f64)>> = (0..processors()).map(|_| thread::spawn(spin)).collect();
    let answers: Vec<(f64, f64)> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
    judge(&answers)
}

/// From the share of the time that each thread got, and its rounds in a second of processor time.
fn judge(answers: &[(f64, f64)]) -> Machine {
    let threads = answers.len().max(1) as f64;
    let share = answers.iter().map(|(share, _)| share).sum::<f64>() / threads;
    let rounds = answers.iter().map(|(_, rounds)| rounds).sum::<f64>() / threads;
    Machine {
        busy: share < UNDISTURBED,
        slowness: (ROUNDS / rounds.max(1.0)).max(1.0),
    }
}

fn spin() -> (f64, f64) {
    let (began, used) = (Instant::now(), own_time());
    let mut rounds = 0_u32;
    while began.elapsed() < MOMENT {
        black_box((0..1000_u64).fold(0_u64, |sum, number| black_box(sum ^ number)));
        rounds += 1;
    }
    let used = own_time().saturating_sub(used).as_secs_f64();
    (
        used / began.elapsed().as_secs_f64(),
        f64::from(rounds) / used.max(0.001),
    )
}

/// The processor time of this thread so far.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // A clock of this kind is never negative.
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Keeps every processor busy until it is dropped.
pub(super) struct Burners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    pub(super) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let burn = |stop: Arc<AtomicBool>| while !stop.load(Ordering::Relaxed) {};
        let threads = (0..processors()).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || burn(stop))
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It can't fail.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_processors_is_busy_and_half_of_the_rounds_is_slow() {
        assert!(!judge(&[(0.99, ROUNDS), (0.97, ROUNDS)]).busy);
        assert!(judge(&[(0.99, ROUNDS), (0.5, ROUNDS)]).busy);
        let slow = judge(&[(1.0, ROUNDS / 2.0)]).slowness;
        assert!((1.99..2.01).contains(&slow), "{slow}");
        let quick = judge(&[(1.0, ROUNDS * 3.0)]).slowness;
        assert!((0.99..1.01).contains(&quick), "{quick}");
    }

    #[test]
    fn burners_are_noticed() {
        let _busy = Burners::start();
        assert!(probe().busy);
    }
}
