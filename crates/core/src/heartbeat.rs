//! Whether a dock gives signs of life while a command waits for it, and the messages when it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::agent::Agent;
use crate::agent::wire::LinkStatus;
use crate::output::Printer;
use crate::output::progress::waiting::WaitingRow;

/// How long after a sign of life the next one is asked for.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a dock may take to answer before the user is told.
const SILENCE: Duration = Duration::from_secs(3);

/// Asks a dock for signs of life until this is dropped, and tells the user when the dock gives no answer.
#[derive(Debug)]
pub struct Heartbeat {
    task: tokio::task::JoinHandle<()>,
    silences: Arc<AtomicUsize>,
}

/// What is heard of a dock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heard {
    /// Nothing since then.
    Nothing(Instant),
    /// A sign of life, after so long without one.
    Life(Duration),
}

impl Heartbeat {
    /// Of the dock of this agent. While `hush` is set, another has the terminal, and nothing is said.
    pub fn of(agent: &Agent, printer: &Printer, hush: Arc<AtomicBool>) -> Self {
        let printer = printer.clone();
        let moniker = agent.dock().moniker.clone();
        let mut rows = Vec::new();
        let mut is_said = false;
        Self::telling(agent, move |heard| {
            rows.clear();
            match heard {
                Heard::Nothing(since) => {
                    is_said = !hush.load(Ordering::Acquire);
                    if is_said {
                        printer.warning(&format!(
                            "dock {moniker:?} has given no sign of life for {} s; waiting for it, Ctrl-C ends it",
                            since.elapsed().as_secs()
                        ));
                        let text = format!("waiting for a sign of life of dock {moniker:?}");
                        rows.push(WaitingRow::new(&printer, &text, since));
                    }
                }
                Heard::Life(after) if is_said && !hush.load(Ordering::Acquire) => {
                    printer.note(&format!("dock {moniker:?} answers again, after {} s", after.as_secs()));
                }
                Heard::Life(_) => {}
            }
        })
    }

    /// [`Heartbeat::of`] for who says it in a way of its own: `say` hears of each silence, and of its end.
    pub fn telling(agent: &Agent, mut say: impl FnMut(Heard) + Send + 'static) -> Self {
        let silences = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&silences);
        let agent = agent.clone();
        let say = move |heard| {
            if let Heard::Nothing(_) = heard {
                counted.fetch_add(1, Ordering::Release);
            }
            say(heard);
        };
        let asked = agent.clone();
        let ask = move || {
            let agent = asked.clone();
            // What is wrong with the agent itself is said by who needs it.
            async move { agent.alive().await.is_ok_and(|alive| alive.is_err()) }
        };
        Self {
            task: tokio::spawn(async move {
                // While it is made for the first time, a person may be asked for a passphrase, who takes their time.
                while !stands(&agent).await {
                    sleep(PAUSE).await;
                }
                beat(ask, say, PAUSE, SILENCE).await;
            }),
            silences,
        }
    }

    /// How often the dock fell silent.
    pub fn silences(&self) -> usize {
        self.silences.load(Ordering::Acquire)
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether an agent has a link.
async fn stands(agent: &Agent) -> bool {
    let status = agent.status(false).await;
    status.is_ok_and(|status| status.is_some_and(|status| matches!(status.link, LinkStatus::Up { .. })))
}

/// Reports when a dock falls silent, and when it answers again. `ask` waits for a sign of life; it returns false for one, true
/// where no link can be made at this moment, and is then asked again.
async fn beat<F: Future<Output = bool>>(
    mut ask: impl FnMut() -> F,
    mut say: impl FnMut(Heard),
    pause: Duration,
    silence: Duration,
) {
    loop {
        sleep(pause).await;
        let since = Instant::now();
        let life = async {
            while ask().await {
                sleep(pause).await;
            }
        };
        tokio::pin!(life);
        if timeout(silence, &mut life).await.is_ok() {
            continue;
        }
        say(Heard::Nothing(since));
        life.await;
        say(Heard::Life(since.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dock_that_falls_silent_is_said_to_be_silent_once_and_then_to_be_back() {
        const TICK: Duration = Duration::from_millis(10);
        let asked = AtomicUsize::new(0);
        let (tell, mut said) = tokio::sync::mpsc::unbounded_channel();
        let ask = || {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    // Silent, then without a link, then there again.
                    1 => sleep(20 * TICK).await,
                    3 => return false,
                    _ => {}
                }
                number == 1 || number == 2
            }
        };
        let beating = beat(ask, |heard| tell.send(heard).unwrap(), TICK, 5 * TICK);
        let both = async { (said.recv().await, said.recv().await) };
        let heard = tokio::select! {
            () = beating => unreachable!("it beats for ever"),
            heard = timeout(Duration::from_secs(60), both) => heard.unwrap(),
        };
        let (Some(Heard::Nothing(_)), Some(Heard::Life(after))) = heard else {
            panic!("{heard:?}")
        };
        assert!(after >= 20 * TICK, "{after:?}");
    }
}
