//! A user who interrupts a promotion: once, to have everything as it was, and again, to be gone.

use std::sync::Arc;
use std::time::Duration;

use dockerutils_core::error::{Error, Result};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long tags are put back for after an interruption.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the user wants. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Interruption {
    state: Arc<watch::Sender<InterruptionState>>,
    patience: Duration,
}

/// What interruptions say.
#[derive(Clone, Copy, Debug)]
enum InterruptionState {
    GoOn,
    /// All is to be as it was, within some time from here on.
    PutBack(Instant),
    End,
}

impl Default for Interruption {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
}

impl Interruption {
    /// One that nobody makes, with another time in which tags are put back.
    pub fn with_patience(patience: Duration) -> Self {
        Self {
            state: Arc::new(watch::Sender::new(InterruptionState::GoOn)),
            patience,
        }
    }

    /// One that SIGINT and SIGTERM make, from now on.
    ///
    /// # Errors
    /// Signals can't be handled.
    pub fn by_signals() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interruption = Self::default();
        let unhandled = |cause| Error::failed("signals can't be handled").because(cause);
        let mut interrupted = signal(SignalKind::interrupt()).map_err(unhandled)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(unhandled)?;
        let made = interruption.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupted.recv() => {}
                    _ = terminated.recv() => {}
                }
                made.make();
            }
        });
        Ok(interruption)
    }

    /// Interrupts, once more.
    pub fn make(&self) {
        self.state.send_modify(|state| {
            *state = match state {
                InterruptionState::GoOn => InterruptionState::PutBack(Instant::now()),
                InterruptionState::PutBack(_) | InterruptionState::End => InterruptionState::End,
            }
        });
    }

    /// Whether the user wants it to end.
    pub fn is_made(&self) -> bool {
        !matches!(*self.state.borrow(), InterruptionState::GoOn)
    }

    /// Waits until the user wants it to end.
    pub async fn made(&self) {
        self.becomes(|state| !matches!(state, InterruptionState::GoOn)).await;
    }

    /// Waits until nothing is put back any more: for a while after the first interruption, and not at all after the second.
    pub async fn is_final(&self) {
        let patience = async {
            self.made().await;
            let state = *self.state.borrow();
            if let InterruptionState::PutBack(since) = state {
                tokio::time::sleep_until(since + self.patience).await;
            }
        };
        tokio::select! {
            () = self.becomes(|state| matches!(state, InterruptionState::End)) => {}
            () = patience => {}
        }
    }

    async fn becomes(&self, right: impl FnMut(&InterruptionState) -> bool) {
        let mut states = self.state.subscribe();
        // It fails only when the sender is gone, which is ours.
        let _ = states.wait_for(right).await;
    }
}
