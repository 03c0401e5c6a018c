//! The ssh sessions of one link: the main one, and further ones for commands beyond sshd's `MaxSessions`.
//!
//! sshd does not say its limit; a session channel beyond it fails to open. So a session's limit is learned from the
//! failure, and further sessions are opened one at a time, as `MaxStartups` may allow no more.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dock_link::transport::{Asker, Connection, Question};
use tokio::sync::Mutex as AsyncMutex;

use super::connect::{Connected, Plan, connect};
use super::handle::{Handle, Open, OpenError, Opened};
use super::stream;
use dock_client::mutex::lock;

/// How long a further session stays without a command.
const IDLE: Duration = Duration::from_secs(20);
/// How many tries a session that carries nothing gets: sshd still counts a channel that was just closed.
const TRIES: u32 = 6;

/// A session and how many commands it carries.
struct Slot {
    handle: Handle,
    places: Arc<Places>,
}

struct Places {
    active: AtomicUsize,
    /// The most commands that the session carries, as far as is known.
    limit: AtomicUsize,
}

impl Slot {
    fn new(handle: Handle) -> Arc<Self> {
        Arc::new(Self {
            handle,
            places: Arc::new(Places {
                active: AtomicUsize::new(0),
                limit: AtomicUsize::new(usize::MAX),
            }),
        })
    }

    /// Takes a place, if one is free.
    fn reserve(&self) -> Option<SessionPermit> {
        let limit = self.places.limit.load(Ordering::Acquire);
        let take = |active: usize| (active < limit).then_some(active + 1);
        let taken = self
            .places
            .active
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.ok()?;
        Some(SessionPermit(Arc::clone(&self.places)))
    }

    fn is_idle(&self) -> bool {
        self.places.active.load(Ordering::Acquire) == 0
    }

    fn is_lost(&self) -> bool {
        self.handle.fate().borrow().is_some()
    }
}

/// A command's place on a session; free again when this is dropped. It does not keep the session: when the link is
/// dropped, the session is taken down.
struct SessionPermit(Arc<Places>);

impl Drop for SessionPermit {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The session is empty: the limit may have been learned while a channel was about to close.
            self.0.limit.store(usize::MAX, Ordering::Release);
        }
    }
}

pub(super) struct Sessions {
    main: Arc<Slot>,
    further: Mutex<Vec<Arc<Slot>>>,
    /// Held by the caller that opens a further session.
    opening: AsyncMutex<()>,
    plan: Arc<Plan>,
    asker: Arc<dyn Asker>,
}

/// Asks no questions: further sessions are made with what is known already.
pub(super) struct Unattended {
    pub(super) agent: Option<PathBuf>,
}

impl Asker for Unattended {
    fn ask(&self, _: &Question) -> Option<String> {
        None
    }

    fn ssh_auth_sock(&self) -> Option<PathBuf> {
        self.agent.clone()
    }
}

impl Sessions {
    pub(super) fn new(connected: Connected, plan: Arc<Plan>, agent: Option<PathBuf>) -> Self {
        Self {
            main: Slot::new(connected.handle),
            further: Mutex::default(),
            opening: AsyncMutex::new(()),
            plan,
            asker: Arc::new(Unattended { agent }),
        }
    }

    /// The session that carries everything except commands beyond the limit.
    pub(super) fn main(&self) -> &Handle {
        &self.main.handle
    }

    /// Opens a session channel, on a further session if the others are full.
    pub(super) async fn execute(self: &Arc<Self>, open: &(dyn Fn() -> Open + Sync)) -> Result<Connection, OpenError> {
        if let Some(connection) = self.try_all(open).await? {
            return Ok(connection);
        }
        let _one_at_a_time = self.opening.lock().await;
        // The previous holder of the lock may have made room.
        if let Some(connection) = self.try_all(open).await? {
            return Ok(connection);
        }
        let connected = connect(Arc::clone(&self.plan), Arc::clone(&self.asker))
            .await
            .map_err(OpenError::Lost)?;
        let slot = Slot::new(connected.handle);
        self.further().push(Arc::clone(&slot));
        tokio::spawn(retire(Arc::downgrade(self), Arc::downgrade(&slot)));
        let mut last = String::new();
        for attempt in 0..TRIES {
            match attempt_on(&slot, open).await? {
                Ok(connection) => return Ok(connection),
                Err(why) => last = why,
            }
            tokio::time::sleep(Duration::from_millis(50) * attempt).await;
        }
        Err(OpenError::Failed(last))
    }

    fn further(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Slot>>> {
        lock(&self.further)
    }

    /// Tries each session that may have room.
    async fn try_all(&self, open: &(dyn Fn() -> Open + Sync)) -> Result<Option<Connection>, OpenError> {
        let mut slots = vec![Arc::clone(&self.main)];
        {
            let mut further = self.further();
            further.retain(|slot| !slot.is_lost());
            slots.extend(further.iter().cloned());
        }
        for slot in slots {
            match attempt_on(&slot, open).await {
                Ok(Ok(connection)) => return Ok(Some(connection)),
                // Full.
                Ok(Err(_)) => {}
                // A further session that broke is not the link's end.
                Err(OpenError::Lost(_)) if !Arc::ptr_eq(&slot, &self.main) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Tries a session; the inner error means that it has no room.
async fn attempt_on(
    slot: &Arc<Slot>,
    open: &(dyn Fn() -> Open + Sync),
) -> Result<Result<Connection, String>, OpenError> {
    let Some(place) = slot.reserve() else {
        return Ok(Err("the session is full".to_owned()));
    };
    match slot.handle.open(open()).await {
        Ok(Opened::Channel(ends)) => match stream::connection(ends, &slot.handle, Some(Arc::new(place))) {
            Ok(connection) => Ok(Ok(connection)),
            Err(error) => Err(OpenError::Failed(error.to_string())),
        },
        Ok(_) => Err(OpenError::Failed("something else than a command came back".to_owned())),
        Err(OpenError::Failed(why)) => {
            let others = slot.places.active.load(Ordering::Acquire).saturating_sub(1);
            slot.places.limit.store(others.max(1), Ordering::Release);
            Ok(Err(why))
        }
        Err(error) => Err(error),
    }
}

/// Takes a further session down when it has carried nothing for a while.
async fn retire(sessions: Weak<Sessions>, slot: Weak<Slot>) {
    let mut was_idle = false;
    loop {
        tokio::time::sleep(IDLE).await;
        let (Some(sessions), Some(slot)) = (sessions.upgrade(), slot.upgrade()) else {
            return;
        };
        let idle = slot.is_idle();
        if (idle && was_idle) || slot.is_lost() {
            sessions.further().retain(|other| !Arc::ptr_eq(other, &slot));
            return;
        }
        was_idle = idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_sessions_ask_nobody() {
        let asker = Unattended {
            agent: Some(PathBuf::from("/agent")),
        };
        let question = Question {
            prompt: "?".to_owned(),
            echo: true,
            kind: dock_link::transport::QuestionKind::Secret,
        };
        assert_eq!(asker.ask(&question), None);
        assert_eq!(asker.ssh_auth_sock(), Some(PathBuf::from("/agent")));
    }
}
