//! A project and its workspace, as several commands sync them at once: one of them does, and the others ask it.
//!
//! The command that has the lock is the holder ([`super::holder`]). A command that finds another holder asks it for a
//! round ([`super::asker`]); when that ends meanwhile, by itself or not, the command takes the lock and does the round,
//! or asks the one that took it first. So each requested round is done by one of them, after it was requested.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::asker::{AskOutcome, address, ask};
use super::holder::{Holder, fulfil};
use super::manifest::Memory;
use super::news::{News, WatchEvent};
use super::remote::Shell;
use super::request::RoundRequest;
use super::session::{Notice, Report, Session};
use super::watch;
use crate::env::Env;
use crate::error::{Error, Result};

/// How long to wait for one that holds the lock and can't be asked: one that restores, is about to serve, or ends.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long that is not said.
const UNSAID: Duration = Duration::from_millis(500);
/// How long to wait before the lock is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a watch that waits for another one's end tries the lock.
const STANDBY: Duration = Duration::from_millis(250);

/// How a session is opened by whoever has the lock.
pub type Open<S> = Box<dyn Fn(Memory) -> Result<Session<S>> + Send + Sync>;

/// A project and its workspace, whichever of several commands does the syncing.
pub struct SharedSession<S> {
    root: PathBuf,
    moniker: String,
    env: Env,
    open: Open<S>,
    /// Hears what another command says of a round that was asked for.
    notice: Notice,
    held: Option<Held<S>>,
}

/// What the holder has; the socket goes before the lock does.
struct Held<S> {
    /// `None` if it could not be served: then the others wait.
    holder: Option<Holder>,
    session: Session<S>,
}

impl<S: Shell> SharedSession<S> {
    /// Of a project's root and a dock. Nothing is locked yet.
    pub fn new(root: PathBuf, moniker: &str, env: &Env, notice: Notice, open: Open<S>) -> Self {
        Self {
            root,
            moniker: moniker.to_owned(),
            env: env.clone(),
            open,
            notice,
            held: None,
        }
    }

    /// A round: done here, or by whoever syncs the same already.
    ///
    /// # Errors
    /// Those of [`Session::sync`], wherever it was done; another command that neither ends nor answers.
    pub async fn sync(&mut self, request: &RoundRequest) -> Result<Report> {
        if self.held.is_none() {
            let lock = self.lock();
            match lock.wait(Some(request), &*self.notice).await? {
                Contended::Locked(memory) => self.hold(memory)?,
                Contended::Done(report) => return Ok(*report),
            }
        }
        match &mut self.held {
            Some(Held {
                holder: Some(holder),
                session,
            }) => holder.round(session, request).await,
            Some(Held { session, .. }) => fulfil(session, request).await,
            None => Err(Error::failed("the lock of the sync is lost")),
        }
    }

    /// Keeps both sides in step; while another command holds the lock, waits until that ends. `take_over` hears of the process
    /// that does, and of this one's turn (none).
    ///
    /// # Errors
    /// A lock that can't be taken, and whatever hinders the session to be opened.
    pub async fn watch(
        &mut self,
        mut tell: impl FnMut(WatchEvent),
        mut take_over: impl FnMut(Option<u32>),
    ) -> Result<Infallible> {
        let mut news = News::default();
        let mut waits = false;
        loop {
            if self.held.is_none() {
                match Memory::try_open(&self.root, &self.moniker, &self.env)? {
                    Some(memory) => self.hold(memory)?,
                    None => {
                        if !std::mem::replace(&mut waits, true) {
                            let memory = Memory::peek(&self.root, &self.moniker, &self.env);
                            take_over(Some(address(&memory).map_or(0, |address| address.pid)));
                        }
                        tokio::time::sleep(STANDBY).await;
                        continue;
                    }
                }
            }
            if std::mem::take(&mut waits) {
                take_over(None);
            }
            if let Some(Held { holder, session }) = &mut self.held {
                watch::watch(session, holder.as_mut(), &mut news, &mut tell).await;
            }
            // Somebody wants the lock for a moment.
            self.finish().await;
            tokio::time::sleep(STANDBY).await;
        }
    }

    /// Does what others have asked for by now, and lets go of the lock.
    pub async fn finish(&mut self) {
        if let Some(Held {
            holder: Some(holder),
            session,
        }) = &mut self.held
        {
            holder.answer(session).await;
        }
        if let Some(held) = &mut self.held
            && let Some(holder) = held.holder.take()
        {
            holder.close().await;
        }
        self.held = None;
    }

    /// Lets go of the lock in the middle of whatever it was: others do what they have asked for themselves.
    pub fn let_go(&mut self) {
        self.held = None;
    }

    /// A session with the lock, for what can't be asked for: others wait meanwhile, and a watch goes on afterwards.
    ///
    /// # Errors
    /// Another command that neither ends nor steps aside.
    pub async fn alone(&mut self) -> Result<Session<S>> {
        self.let_go();
        let memory = self.lock().take(&*self.notice).await?;
        (self.open)(memory)
    }

    fn lock(&self) -> Lock {
        Lock::new(&self.root, &self.moniker, &self.env)
    }

    fn hold(&mut self, memory: Memory) -> Result<()> {
        let session = (self.open)(memory)?;
        let memory = Memory::peek(&self.root, &self.moniker, &self.env);
        let holder = Holder::listen(&memory, &self.env).ok();
        self.held = Some(Held { holder, session });
        Ok(())
    }
}

/// What came of waiting for the lock.
enum Contended {
    Locked(Memory),
    Done(Box<Report>),
}

/// The lock of a project and a dock, for whoever waits for it.
#[derive(Debug)]
pub struct Lock {
    root: PathBuf,
    moniker: String,
    env: Env,
    /// [`PATIENCE`].
    pub patience: Duration,
}

impl Lock {
    /// Of a project's root and a dock.
    pub fn new(root: &Path, moniker: &str, env: &Env) -> Self {
        Self {
            root: root.to_owned(),
            moniker: moniker.to_owned(),
            env: env.clone(),
            patience: PATIENCE,
        }
    }

    /// Takes the lock: whoever has it ends, or steps aside for a moment.
    ///
    /// # Errors
    /// Another command that does neither.
    pub async fn take(&self, notice: &(dyn Fn(&str) + Send + Sync)) -> Result<Memory> {
        match self.wait(None, notice).await? {
            Contended::Locked(memory) => Ok(memory),
            Contended::Done(_) => Err(Error::failed("another command answered what was not asked")),
        }
    }

    async fn wait(&self, request: Option<&RoundRequest>, notice: &(dyn Fn(&str) + Send + Sync)) -> Result<Contended> {
        let memory = Memory::peek(&self.root, &self.moniker, &self.env);
        let begun = Instant::now();
        let mut limit = begun + self.patience;
        let mut is_told = false;
        loop {
            if let Some(memory) = Memory::try_open(&self.root, &self.moniker, &self.env)? {
                return Ok(Contended::Locked(memory));
            }
            match ask(&memory, request, notice).await {
                AskOutcome::Report(report) => return Ok(Contended::Done(report)),
                AskOutcome::Failed(failure) => return Err(failure.into()),
                AskOutcome::Ended => limit = Instant::now() + self.patience,
                AskOutcome::Nobody if Instant::now() > limit => {
                    return Err(memory.is_taken(&self.root, &self.moniker));
                }
                AskOutcome::Nobody if begun.elapsed() > UNSAID && !std::mem::replace(&mut is_told, true) => {
                    notice(&format!(
                        "waiting for another command, which syncs {} just now",
                        self.root.display()
                    ));
                }
                AskOutcome::Nobody => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
