//! The link to a dock: made when something needs it, one at a time; restored when it breaks; dropped when it is idle.
//!
//! A link that is outdated ([`Transport::outdated`]) is kept for the streams that it carries, and ends with the last of
//! them.
//!
//! A caller that needs a link waits for the one that is being made, and shares its result. A link that was never up is
//! tried once. One that was up and broke is tried again, with growing pauses, for as long as the first caller that
//! waits is patient; a caller that comes later in the same outage waits for one attempt, so that a chain of commands
//! does not wait half a minute for each.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::agent::target::Target;
use dock_client::agent::wire;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::log::Log;
use crate::prompts::Prompts;
use crate::timing::Timing;
use crate::transport::{Connection, Connector, Listening, Transport, TransportError, TransportErrorKind};
use dock_client::mutex::lock;

/// How often the time limit of an attempt checks whether the user is still answering.
const THINKING: Duration = Duration::from_millis(500);

/// How long a caller that opens something waits for a link.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// When the caller began to wait.
    pub arrival: Instant,
    /// How long it waits for a broken link to be restored.
    pub patience: Duration,
    /// Whether it can answer questions, and so makes another attempt if the last one failed for want of answers.
    pub answers: bool,
}

/// The link to one dock. Cheap to clone.
pub struct Link<C: Connector> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connector> {
    connector: C,
    prompts: Arc<Prompts>,
    timing: Timing,
    log: Log,
    phase: watch::Sender<Phase<C::Transport>>,
    /// Whether a link was ever up: then the dock's data is right, and only the way to it is out of order.
    stood: AtomicBool,
}

/// A link that is up, or was.
pub struct Live<T> {
    transport: T,
    since: Instant,
    /// When the dock last showed that it is there.
    seen: Mutex<Instant>,
    /// Why the link is over.
    over: watch::Sender<Option<TransportError>>,
    /// Notified when another link replaces this one while it is still up.
    left: Notify,
}

/// Tells why and when the link under a stream is over.
pub type Over = watch::Receiver<Option<TransportError>>;

enum Phase<T> {
    /// Not needed yet, or no longer.
    Idle,
    /// Being made.
    Connecting,
    Up(Arc<Live<T>>),
    /// It was up, and broke; no attempt was made since.
    Broken(TransportError),
    /// It could not be made.
    Down(Outage),
}

#[derive(Clone)]
struct Outage {
    error: TransportError,
    /// When its first attempt began.
    since: Instant,
    /// When its last one began, and ended.
    began: Instant,
    ended: Instant,
    attempts: u32,
}

impl<T> Clone for Phase<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Idle => Self::Idle,
            Self::Connecting => Self::Connecting,
            Self::Up(live) => Self::Up(Arc::clone(live)),
            Self::Broken(error) => Self::Broken(error.clone()),
            Self::Down(outage) => Self::Down(outage.clone()),
        }
    }
}

impl<T> Live<T> {
    fn see(&self) {
        *lock(&self.seen) = Instant::now();
    }

    /// Keeps the link until it carries nothing any more.
    async fn run_out(self: &Arc<Self>, log: &Log)
    where
        T: Transport,
    {
        loop {
            tokio::select! {
                () = self.over.closed() => {}
                error = self.transport.lost() => {
                    log.line(format!("the outdated link is over: {error}"));
                    self.over.send_replace(Some(error));
                    return;
                }
            }
            // A caller that is about to open something on it also has a reference.
            if Arc::strong_count(self) == 1 {
                return log.line("the outdated link carries nothing any more");
            }
            sleep(THINKING).await;
        }
    }

    /// Whether the dock was not heard from for this long. Such a link is checked before it is entrusted with a command,
    /// which can't be run twice.
    fn is_quiet(&self, time: Duration) -> bool {
        lock(&self.seen).elapsed() > time
    }
}

impl<C: Connector> Clone for Link<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<C: Connector> Link<C> {
    /// A link that is not made yet.
    pub fn new(connector: C, prompts: Arc<Prompts>, timing: Timing, log: Log) -> Self {
        Self {
            shared: Arc::new(Shared {
                connector,
                prompts,
                timing,
                log,
                phase: watch::Sender::new(Phase::Idle),
                stood: AtomicBool::new(false),
            }),
        }
    }

    /// Opens a stream, and returns with it what tells that the link under it is over.
    ///
    /// # Errors
    /// The link's, and the dock's refusal of this target.
    pub async fn open(&self, options: OpenOptions, target: &Target) -> Result<(Connection, Over), TransportError> {
        loop {
            let live = self.up(options).await?;
            if matches!(target, Target::Exec(_))
                && live.is_quiet(self.shared.timing.open)
                && self.check(&live).await.is_err()
            {
                continue;
            }
            let mut over = live.over.subscribe();
            let opened = tokio::select! {
                biased;
                opened = self.open_on(&live, target) => opened,
                error = ended(&mut over) => Err(error),
            };
            match opened {
                Ok(connection) => {
                    live.see();
                    return Ok((connection, over));
                }
                // A command may have begun, and must not run twice; the other streams have sent nothing yet.
                Err(error) if matches!(target, Target::Exec(_)) || error.kind != TransportErrorKind::Unreachable => {
                    return Err(error);
                }
                Err(error) if over.borrow().is_none() && self.check(&live).await.is_ok() => return Err(error),
                Err(_) => {}
            }
        }
    }

    async fn open_on(&self, live: &Arc<Live<C::Transport>>, target: &Target) -> Result<Connection, TransportError> {
        let timing = &self.shared.timing;
        let began = Instant::now();
        let opening = live.transport.open(target.clone());
        tokio::pin!(opening);
        if let Ok(opened) = timeout(timing.open, &mut opening).await {
            return opened;
        }
        // Either the dock is busy, or the link is dead and that was not noticed yet.
        self.check_since(live, began).await?;
        let rest = timing.open_at_most.saturating_sub(timing.open);
        timeout(rest, &mut opening).await.unwrap_or_else(|_| {
            Err(TransportError {
                message: format!(
                    "the dock did not open the connection within {} s",
                    timing.open_at_most.as_secs()
                ),
                hint: Some("the link works; check the dock's load, and its engine's log (journalctl -u docker)".into()),
                kind: TransportErrorKind::Refused,
            })
        })
    }

    /// Has the dock listen at this address for this machine, and returns with it what tells that the link under it is
    /// over.
    ///
    /// # Errors
    /// The link's, and the dock's refusal.
    pub async fn listen(&self, options: OpenOptions, at: SocketAddr) -> Result<(Listening, Over), TransportError> {
        let live = self.up(options).await?;
        let mut over = live.over.subscribe();
        let listening = tokio::select! {
            biased;
            listening = timeout(self.shared.timing.open_at_most, live.transport.listen(at)) => listening,
            error = ended(&mut over) => return Err(error),
        };
        let listening = listening.unwrap_or_else(|_| {
            Err(TransportError {
                message: format!(
                    "the dock did not say within {} s whether it listens at {at}",
                    self.shared.timing.open_at_most.as_secs()
                ),
                hint: None,
                kind: TransportErrorKind::Refused,
            })
        });
        Ok((listening?, over))
    }

    /// Waits until the link is up.
    ///
    /// # Errors
    /// Why it can't be made.
    pub async fn up(&self, options: OpenOptions) -> Result<Arc<Live<C::Transport>>, TransportError> {
        let shared = &self.shared;
        let mut phases = shared.phase.subscribe();
        loop {
            let phase = phases.borrow_and_update().clone();
            match phase {
                Phase::Up(live) => match live.transport.outdated().await {
                    None => return Ok(live),
                    Some(why) => self.leave(&live, &why),
                },
                Phase::Idle | Phase::Broken(_) => self.attempt(None),
                Phase::Down(outage) => match shared.verdict(options, &outage) {
                    RetryDecision::Now => self.attempt(Some(outage)),
                    RetryDecision::At(pause) => {
                        // Another caller may begin an attempt meanwhile.
                        tokio::select! {
                            () = sleep_until(pause) => self.attempt(Some(outage)),
                            changed = phases.changed() => if changed.is_err() { return Err(outage.error) },
                        }
                    }
                    RetryDecision::Never => return Err(outage.error),
                },
                Phase::Connecting => {
                    // The sender can't be gone: it is in `shared`, which we hold.
                    let _ = phases.changed().await;
                }
            }
        }
    }

    /// Makes an attempt, unless one is under way.
    fn attempt(&self, outage: Option<Outage>) {
        let claimed = self.shared.phase.send_if_modified(|phase| {
            let free = match phase {
                Phase::Idle | Phase::Broken(_) => outage.is_none(),
                // Only for the failure that this caller saw: after a newer one, it decides anew.
                Phase::Down(now) => outage.as_ref().is_some_and(|then| then.ended == now.ended),
                Phase::Connecting | Phase::Up(_) => false,
            };
            if free {
                *phase = Phase::Connecting;
            }
            free
        });
        if !claimed {
            return;
        }
        let link = self.clone();
        // In a task of its own: the caller may leave while others still wait.
        tokio::spawn(async move {
            let mut giving_up = GivingUp(&link.shared, true);
            let began = Instant::now();
            let result = link.shared.connect().await;
            giving_up.1 = false;
            match result {
                Ok(transport) => link.stands(transport, began),
                Err(error) => {
                    link.shared.log.line(format!("no link: {error}"));
                    let ended = Instant::now();
                    let earlier = outage.filter(|earlier| earlier.ended + link.shared.timing.forgotten > began);
                    link.shared.phase.send_replace(Phase::Down(Outage {
                        error,
                        since: earlier.as_ref().map_or(began, |earlier| earlier.since),
                        began,
                        ended,
                        attempts: earlier.map_or(0, |earlier| earlier.attempts) + 1,
                    }));
                }
            }
        });
    }

    fn stands(&self, transport: C::Transport, began: Instant) {
        let now = Instant::now();
        self.shared
            .log
            .line(format!("the link stands, after {} ms", (now - began).as_millis()));
        let live = Arc::new(Live {
            transport,
            since: now,
            seen: Mutex::new(now),
            over: watch::Sender::new(None),
            left: Notify::new(),
        });
        self.shared.stood.store(true, Ordering::Release);
        self.shared.phase.send_replace(Phase::Up(Arc::clone(&live)));
        let link = self.clone();
        tokio::spawn(async move {
            let mut over = live.over.subscribe();
            let lost = tokio::select! {
                error = live.transport.lost() => Some(error),
                // We dropped the link ourselves.
                _ = ended(&mut over) => None,
                () = live.left.notified() => {
                    drop(over);
                    return live.run_out(&link.shared.log).await;
                }
            };
            if let Some(error) = lost {
                link.lose(&live, error);
            }
        });
    }

    /// Keeps a link only for what it carries: the next stream gets a new one.
    fn leave(&self, live: &Arc<Live<C::Transport>>, why: &str) {
        let is_current = self.shared.phase.send_if_modified(|phase| {
            let is_current = matches!(phase, Phase::Up(current) if Arc::ptr_eq(current, live));
            if is_current {
                *phase = Phase::Idle;
            }
            is_current
        });
        if is_current {
            self.shared.log.line(format!(
                "the link is outdated, and kept only for what it carries: {why}"
            ));
            live.left.notify_one();
        }
    }

    /// Waits until new streams are opened on another link than that of `over`, which may stay up as long as it carries
    /// something.
    pub async fn left(&self, over: &Over) {
        let mut phases = self.shared.phase.subscribe();
        let is_of = |live: &Live<C::Transport>| live.over.subscribe().same_channel(over);
        // The sender can't be gone: it is in `shared`, which we hold.
        let _ = phases
            .wait_for(|phase| !matches!(phase, Phase::Up(live) if is_of(live)))
            .await;
    }

    /// Checks the link and returns the round trip; a link that gives no sign of life is lost.
    ///
    /// # Errors
    /// Why it is lost.
    async fn check(&self, live: &Arc<Live<C::Transport>>) -> Result<Duration, TransportError> {
        self.check_since(live, Instant::now()).await
    }

    /// [`Link::check`] for a caller that has waited for the dock since `began`: the error names the time since then.
    async fn check_since(&self, live: &Arc<Live<C::Transport>>, began: Instant) -> Result<Duration, TransportError> {
        let limit = self.shared.timing.check;
        let error = match timeout(limit, live.transport.check()).await {
            Ok(Ok(round_trip)) => {
                live.see();
                return Ok(round_trip);
            }
            Ok(Err(error)) => error,
            Err(_) => unreachable_dock(format!(
                "the dock gave no sign of life for {} s",
                began.elapsed().as_secs()
            )),
        };
        self.lose(live, error.clone());
        Err(error)
    }

    /// Waits until the dock shows that it is there, over the link that is up or one that is made anew. If no link is
    /// needed now, this returns at once. A silent link is kept: what it carries goes on when the dock is heard from
    /// again.
    ///
    /// # Errors
    /// Why no link can be made.
    pub async fn alive(&self, options: OpenOptions) -> Result<(), TransportError> {
        loop {
            if matches!(*self.shared.phase.borrow(), Phase::Idle) {
                return Ok(());
            }
            let live = self.up(options).await?;
            let mut over = live.over.subscribe();
            tokio::select! {
                life = live.transport.life() => match life {
                    Ok(()) => {
                        live.see();
                        return Ok(());
                    }
                    // The link is about to be over.
                    Err(_) => sleep(THINKING).await,
                },
                _ = ended(&mut over) => {}
            }
        }
    }

    /// Checks the link if it is up, and drops it if it is dead: for use after this machine slept.
    pub async fn examine(&self) {
        if let Some(live) = self.live() {
            // A link that fails the check is dropped there; there is no more to do.
            let _ = self.check(&live).await;
        }
    }

    fn lose(&self, live: &Arc<Live<C::Transport>>, error: TransportError) {
        self.end(live, error.clone(), Phase::Broken(error));
    }

    /// Drops the link, if it is up: nothing needs it now.
    pub fn rest(&self) {
        if let Some(live) = self.live() {
            self.end(&live, unreachable_dock("the link was idle".to_owned()), Phase::Idle);
        }
    }

    fn end(&self, live: &Arc<Live<C::Transport>>, error: TransportError, next: Phase<C::Transport>) {
        let is_current = self.shared.phase.send_if_modified(|phase| {
            let is_current = matches!(phase, Phase::Up(current) if Arc::ptr_eq(current, live));
            if is_current {
                *phase = next;
            }
            is_current
        });
        if is_current {
            self.shared.log.line(format!("the link is over: {error}"));
            live.over.send_replace(Some(error));
        }
    }

    /// Waits until the link is up, without making it.
    pub async fn standing(&self) {
        let mut phases = self.shared.phase.subscribe();
        // The sender can't be gone: it is in `shared`, which we hold.
        let _ = phases.wait_for(|phase| matches!(phase, Phase::Up(_))).await;
    }

    /// Whether the link was dropped because nothing needed it. False for a link that was never up.
    pub fn rests(&self) -> bool {
        self.shared.stood.load(Ordering::Acquire) && matches!(*self.shared.phase.borrow(), Phase::Idle)
    }

    fn live(&self) -> Option<Arc<Live<C::Transport>>> {
        match &*self.shared.phase.borrow() {
            Phase::Up(live) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// The status of the link. With `measure`, the round trip is measured if the link is up.
    pub async fn status(&self, measure: bool) -> wire::LinkStatus {
        let phase = self.shared.phase.borrow().clone();
        match phase {
            Phase::Idle => wire::LinkStatus::Idle,
            Phase::Connecting => wire::LinkStatus::Connecting,
            Phase::Broken(error) | Phase::Down(Outage { error, .. }) => wire::LinkStatus::Down(error.into()),
            Phase::Up(live) => {
                let round_trip = match measure {
                    true => match self.check(&live).await {
                        Ok(round_trip) => Some(round_trip),
                        Err(error) => return wire::LinkStatus::Down(error.into()),
                    },
                    false => None,
                };
                wire::LinkStatus::Up {
                    seconds: live.since.elapsed().as_secs(),
                    round_trip_us: round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
                }
            }
        }
    }
}

impl<C: Connector> Shared<C> {
    async fn connect(&self) -> Result<C::Transport, TransportError> {
        let connecting = self.connector.connect(Arc::clone(&self.prompts) as _);
        tokio::pin!(connecting);
        let mut left = self.timing.connect;
        loop {
            let step = left.min(THINKING);
            tokio::select! {
                result = &mut connecting => return result,
                () = sleep(step) => if !self.prompts.is_asking() {
                    left -= step;
                }
            }
            if left.is_zero() {
                return Err(unreachable_dock(format!(
                    "the dock did not let us in within {} s",
                    self.timing.connect.as_secs()
                )));
            }
        }
    }

    /// What a failed attempt, perhaps another caller's, means for a caller that came at `options.arrival`.
    fn verdict(&self, options: OpenOptions, outage: &Outage) -> RetryDecision {
        let timing = &self.timing;
        let stood = self.stood.load(Ordering::Acquire);
        let is_own = outage.began >= options.arrival;
        let is_fresh = |time: Duration| outage.ended + time > Instant::now();
        match outage.error.kind {
            _ if is_own && !stood => RetryDecision::Never,
            TransportErrorKind::NeedsPerson if is_own => RetryDecision::Never,
            TransportErrorKind::NeedsPerson if options.answers => RetryDecision::Now,
            TransportErrorKind::NeedsPerson if is_fresh(timing.fresh_for_person) => RetryDecision::Never,
            TransportErrorKind::Refused if is_own => RetryDecision::Never,
            TransportErrorKind::Unreachable if is_own || is_fresh(timing.fresh) => {
                let doublings = outage.attempts.saturating_sub(1).min(16);
                let pause = timing
                    .first_pause
                    .saturating_mul(1 << doublings)
                    .min(timing.longest_pause);
                let next = outage.ended + pause;
                match stood && next < outage.since + options.patience {
                    true => RetryDecision::At(next),
                    false => RetryDecision::Never,
                }
            }
            _ => RetryDecision::Now,
        }
    }
}

impl<C: Connector> Link<C> {
    /// Permits a new attempt because something changed on this side, such as a new ssh-agent: what failed for want of
    /// the user may work now.
    pub fn forgive(&self) {
        self.shared.phase.send_if_modified(|phase| {
            let closed = matches!(phase, Phase::Down(outage) if outage.error.kind == TransportErrorKind::NeedsPerson);
            if closed {
                *phase = Phase::Idle;
            }
            closed
        });
    }
}

enum RetryDecision {
    Now,
    At(Instant),
    Never,
}

/// If an attempt's task panics, this ends the wait of its callers.
struct GivingUp<'a, C: Connector>(&'a Shared<C>, bool);

impl<C: Connector> Drop for GivingUp<'_, C> {
    fn drop(&mut self) {
        if self.1 {
            let now = Instant::now();
            self.0.phase.send_replace(Phase::Down(Outage {
                error: unreachable_dock("the agent failed while it connected; its log says why".to_owned()),
                since: now,
                began: now,
                ended: now,
                attempts: 1,
            }));
        }
    }
}

/// Waits until the link is over, and says why.
pub async fn ended(over: &mut Over) -> TransportError {
    match over.wait_for(Option::is_some).await {
        Ok(error) => error.clone(),
        Err(_) => None,
    }
    .unwrap_or_else(|| unreachable_dock("the link was dropped".to_owned()))
}

fn unreachable_dock(message: String) -> TransportError {
    TransportError {
        message,
        hint: None,
        kind: TransportErrorKind::Unreachable,
    }
}
