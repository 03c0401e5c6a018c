//! Whether a link that is up is still the one to use: where the user's configuration leads by now, and what sshd
//! forbids by now.
//!
//! sshd decides at the login what it forbids. So another login is needed to find out whether it still does; that login
//! is made beside the link, asks no questions, and is made ever more seldom if nothing changes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::connect::{Plan, connect};
use super::handle::{Open, OpenError, Opened};
use super::listen;
use super::resolve::{Resolved, Stamp, have_changed, resolve};
use super::sessions::Unattended;
use dock_client::mutex::lock;

/// What sshd forbids is tried again after this long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause before the next try; each one is twice as long as the one before.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What sshd has forbidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Forbidden {
    /// Forwarding to this socket.
    Socket(String),
    /// Forwarding to this host and port.
    Tcp(String, u16),
    /// Listening at this address.
    Listening(SocketAddr),
}

/// What is known about whether a link is out of date.
pub(super) struct News {
    plan: Arc<Plan>,
    /// The ssh-agent, for another login.
    agent: Option<PathBuf>,
    leads_to: String,
    files: Mutex<Vec<(PathBuf, Stamp)>>,
    learned: Mutex<Learned>,
    /// sshd allows by now what it forbade.
    is_allowed: AtomicBool,
}

struct Learned {
    forbidden: Vec<Forbidden>,
    asked: Instant,
    pause: Duration,
    is_asking: bool,
}

impl News {
    pub(super) fn new(resolved: &Resolved, plan: Arc<Plan>, agent: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            agent,
            leads_to: resolved.leads_to(),
            files: Mutex::new(resolved.files.clone()),
            learned: Mutex::new(Learned {
                forbidden: Vec::new(),
                asked: Instant::now(),
                pause: plan.ask_again,
                is_asking: false,
            }),
            is_allowed: AtomicBool::new(false),
            plan,
        })
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        lock(&self.learned)
    }

    /// Notes what sshd forbids.
    pub(super) fn note(&self, what: Forbidden) {
        let mut learned = self.learned();
        // One of each kind is enough to find out.
        let same_kind = |known: &Forbidden| std::mem::discriminant(known) == std::mem::discriminant(&what);
        if !learned.forbidden.iter().any(same_kind) {
            learned.forbidden.push(what);
            learned.asked = Instant::now();
        }
    }

    /// Why another link is to replace this one; `None` if a new one would be the same.
    pub(super) async fn outdated(self: &Arc<Self>) -> Option<String> {
        if self.is_allowed.load(Ordering::Acquire) {
            return Some("sshd allows by now what it forbade".to_owned());
        }
        self.ask_again();
        let have_changed = have_changed(&lock(&self.files));
        if !have_changed {
            return None;
        }
        let plan = Arc::clone(&self.plan);
        // A configuration that can't be read, perhaps in the middle of an edit, changes nothing yet.
        let now = tokio::task::spawn_blocking(move || resolve(&plan.access, &plan.env)).await;
        let now = now.ok()?.ok()?;
        let leads_to = now.leads_to();
        *lock(&self.files) = now.files;
        (leads_to != self.leads_to).then(|| format!("the ssh configuration leads to {leads_to} now"))
    }

    /// Tries what was forbidden, in the background, if it is time to.
    fn ask_again(self: &Arc<Self>) {
        // A login of OpenSSH's client may want a touch, or a PIN.
        if self.plan.by_openssh.load(Ordering::Acquire) {
            return;
        }
        let mut learned = self.learned();
        if learned.forbidden.is_empty() || learned.is_asking || learned.asked.elapsed() < learned.pause {
            return;
        }
        learned.is_asking = true;
        let forbidden = learned.forbidden.clone();
        drop(learned);
        let news = Arc::clone(self);
        tokio::spawn(async move {
            let is_allowed = news.allows(&forbidden).await;
            let mut learned = news.learned();
            learned.is_asking = false;
            learned.asked = Instant::now();
            learned.pause = (2 * learned.pause).min(LONGEST_PAUSE);
            if is_allowed {
                news.is_allowed.store(true, Ordering::Release);
            }
        });
    }

    /// Whether sshd opens any of these in a new login.
    async fn allows(&self, forbidden: &[Forbidden]) -> bool {
        let nobody = Arc::new(Unattended {
            agent: self.agent.clone(),
        });
        let Ok(connected) = connect(Arc::clone(&self.plan), nobody).await else {
            return false;
        };
        for what in forbidden {
            let open = match what {
                Forbidden::Socket(path) => Open::Socket(path.clone()),
                Forbidden::Tcp(host, port) => Open::Tcp(host.clone(), *port),
                Forbidden::Listening(at) => {
                    if listen::is_allowed(&connected.handle, *at).await {
                        return true;
                    }
                    continue;
                }
            };
            match connected.handle.open(open).await {
                Ok(Opened::Channel(_)) => return true,
                // Nothing listens there, but the forwarding is allowed. For sockets, sshd gives no reason.
                Err(OpenError::Failed(_)) if matches!(what, Forbidden::Tcp(..)) => return true,
                _ => {}
            }
        }
        false
    }
}
