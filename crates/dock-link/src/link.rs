//! The link to a dock: made when something needs it, one at a time; mended when it breaks; dropped when it is idle.
//!
//! A link that is outdated ([`Transport::outdated`]) is left to the streams that it carries, and ends with the last of them.
//!
//! Who needs a link waits for the one that is being made, and shares its fate. A link that never stood is tried once. One
//! that stood and broke is tried again, with growing pauses, for as long as the first who waits is patient; who comes
//! later in the same outage waits for one attempt, so that no chain of commands waits half a minute each.

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
use crate::transport::{Connection, Connector, Transport, TransportError, TransportErrorKind};
use dock_client::mutex::lock;

/// How often the time limit of an attempt looks whether a person still thinks.
const THINKING: Duration = Duration::from_millis(500);

/// How long who opens something waits for a link.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Since when it waits.
    pub arrival: Instant,
    /// How long it waits for a link that broke to be mended.
    pub patience: Duration,
    /// Whether it can answer questions, and so makes another attempt where they were in the way.
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
    /// Whether a link ever stood: then the dock is right, and only the way to it is out of order.
    stood: AtomicBool,
}

/// A link that stands, or stood.
pub struct Live<T> {
    transport: T,
    since: Instant,
    /// When the far side last showed that it is there.
    seen: Mutex<Instant>,
    /// Why it is over.
    over: watch::Sender<Option<TransportError>>,
    /// Told when another link takes its place while it stands.
    left: Notify,
}

/// Tells when the link under a stream is over.
pub type Over = watch::Receiver<Option<TransportError>>;

enum Phase<T> {
    /// Not needed yet, or no longer.
    Idle,
    /// Being made.
    Connecting,
    Up(Arc<Live<T>>),
    /// It stood, and broke; nobody has tried since.
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

    /// Goes on until nothing is carried any more.
    async fn run_out(self: &Arc<Self>, log: &Log)
    where
        T: Transport,
    {
        loop {
            tokio::select! {
                () = self.over.closed() => {}
                error = self.transport.lost() => {
                    log.line(format!("the link that was left is over: {error}"));
                    self.over.send_replace(Some(error));
                    return;
                }
            }
            // Who is about to open something on it has it, too.
            if Arc::strong_count(self) == 1 {
                return log.line("the link that was left carries nothing any more");
            }
            sleep(THINKING).await;
        }
    }

    /// Whether nothing was heard for so long. Then a command, which can't be run twice, is not entrusted to it unseen.
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

    /// Opens a stream. It is told when the link under it is over.
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
                // A command may have begun, and must not run twice; the others have sent nothing yet.
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
        // Either the dock is busy, or the link is dead and does not know it yet.
        self.check_since(live, began).await?;
        let rest = timing.open_at_most.saturating_sub(timing.open);
        timeout(rest, &mut opening).await.unwrap_or_else(|_| {
            Err(TransportError {
                message: format!(
                    "the dock did not open the connection within {} s",
                    timing.open_at_most.as_secs()
                ),
                hint: Some(
                    "it answers otherwise; look at its load, and at the engine's log (journalctl -u docker)".into(),
                ),
                kind: TransportErrorKind::Refused,
            })
        })
    }

    /// Waits until the link stands.
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
                        // Another may begin meanwhile.
                        tokio::select! {
                            () = sleep_until(pause) => self.attempt(Some(outage)),
                            changed = phases.changed() => if changed.is_err() { return Err(outage.error) },
                        }
                    }
                    RetryDecision::Never => return Err(outage.error),
                },
                Phase::Connecting => {
                    // The sender is in `shared`, which we hold.
                    let _ = phases.changed().await;
                }
            }
        }
    }

    /// Makes an attempt, unless there is one.
    fn attempt(&self, outage: Option<Outage>) {
        let claimed = self.shared.phase.send_if_modified(|phase| {
            let free = match phase {
                Phase::Idle | Phase::Broken(_) => outage.is_none(),
                // The very failure that led here: another that came since has a say of its own.
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
        // In a task of its own: who waits may leave, and others wait on.
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
                // Taken down by us.
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

    /// Leaves a link to what it carries: the next stream has another.
    fn leave(&self, live: &Arc<Live<C::Transport>>, why: &str) {
        let is_current = self.shared.phase.send_if_modified(|phase| {
            let is_current = matches!(phase, Phase::Up(current) if Arc::ptr_eq(current, live));
            if is_current {
                *phase = Phase::Idle;
            }
            is_current
        });
        if is_current {
            self.shared
                .log
                .line(format!("the link is left to what it carries: {why}"));
            live.left.notify_one();
        }
    }

    /// Waits until new streams are opened on another link than that of `over`, which may stand as long as it carries something.
    pub async fn left(&self, over: &Over) {
        let mut phases = self.shared.phase.subscribe();
        let is_of = |live: &Live<C::Transport>| live.over.subscribe().same_channel(over);
        // The sender is in `shared`, which we hold.
        let _ = phases
            .wait_for(|phase| !matches!(phase, Phase::Up(live) if is_of(live)))
            .await;
    }

    /// Whether the link gives a sign of life, and how soon; one that doesn't is lost.
    ///
    /// # Errors
    /// Why it is lost.
    async fn check(&self, live: &Arc<Live<C::Transport>>) -> Result<Duration, TransportError> {
        self.check_since(live, Instant::now()).await
    }

    /// [`Link::check`] for who has waited for the dock since then: so long is said.
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

    /// Waits until the dock shows that it is there, by the link that stands or by one that is made anew. Of a link that rests
    /// nothing is expected. A silent link is left alone: what it carries goes on when it is heard again.
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
                    // It is about to be over.
                    Err(_) => sleep(THINKING).await,
                },
                _ = ended(&mut over) => {}
            }
        }
    }

    /// Checks a link that stands, and drops it where it is dead: after this machine slept.
    pub async fn examine(&self) {
        if let Some(live) = self.live() {
            // What fails is lost, which is all that there is to do.
            let _ = self.check(&live).await;
        }
    }

    fn lose(&self, live: &Arc<Live<C::Transport>>, error: TransportError) {
        self.end(live, error.clone(), Phase::Broken(error));
    }

    /// Drops the link, if it stands: nothing needs it now.
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

    /// Waits until somebody has made the link stand.
    pub async fn standing(&self) {
        let mut phases = self.shared.phase.subscribe();
        // The sender is in `shared`, which we hold.
        let _ = phases.wait_for(|phase| matches!(phase, Phase::Up(_))).await;
    }

    /// Whether it was dropped because nothing needed it. One that was never made rests, too, unless it ever is needed.
    pub fn rests(&self) -> bool {
        self.shared.stood.load(Ordering::Acquire) && matches!(*self.shared.phase.borrow(), Phase::Idle)
    }

    fn live(&self) -> Option<Arc<Live<C::Transport>>> {
        match &*self.shared.phase.borrow() {
            Phase::Up(live) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// How the link is. With `measure`, a round trip is made where it stands.
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

    /// What the failure of others means for who came at `options.arrival`.
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
    /// Says that something changed on this side, such as a new ssh-agent: what only a person could mend may work now.
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

/// An attempt whose task panics must not leave everybody waiting for it.
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
