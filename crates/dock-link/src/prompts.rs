//! Where a link that is being made asks the users who wait for it. An agent has no terminal of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::agent::wire::{Question, QuestionKind};
use tokio::sync::mpsc;

use crate::transport::Asker;
use dock_client::mutex::lock;

/// How many ssh-agents are remembered: those of this many shells.
const KEY_AGENTS: usize = 8;

/// The commands that wait, and the ssh-agents of their shells.
#[derive(Debug)]
pub struct Prompts {
    waiting: Mutex<Vec<Waiting>>,
    key_agents: Mutex<Vec<PathBuf>>,
    next: AtomicU64,
    /// How many questions await an answer.
    open: AtomicUsize,
    answer_limit: Duration,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    person: bool,
    accept_new: bool,
    asks: mpsc::UnboundedSender<PendingQuestion>,
}

/// A question, and the channel for its answer. Dropping it means that there is no answer.
#[derive(Debug)]
pub struct PendingQuestion {
    pub question: Question,
    /// Takes the answer.
    pub answer: SyncSender<Option<String>>,
}

/// A command that waits; no questions come any more when this is dropped.
#[derive(Debug)]
pub struct Subscription {
    prompts: Arc<Prompts>,
    number: u64,
    pub questions: mpsc::UnboundedReceiver<PendingQuestion>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.prompts.waiting).retain(|waiting| waiting.number != self.number);
    }
}

impl Prompts {
    /// No command waits yet. `key_agents` are the ssh-agents of earlier shells, the newest last.
    pub fn new(answer_limit: Duration, key_agents: Vec<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            key_agents: Mutex::new(key_agents),
            next: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            answer_limit,
        })
    }

    /// Registers a command: questions come to the subscription for as long as it is held.
    pub fn subscribe(self: &Arc<Self>, person: bool, accept_new: bool) -> Subscription {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (asks, questions) = mpsc::unbounded_channel();
        lock(&self.waiting).push(Waiting {
            number,
            person,
            accept_new,
            asks,
        });
        Subscription {
            prompts: Arc::clone(self),
            number,
            questions,
        }
    }

    /// Notes the ssh-agent of the newest shell. Returns whether it differs from the previous one.
    pub fn note_key_agent(&self, socket: &Path) -> bool {
        let mut known = lock(&self.key_agents);
        if known.last().is_some_and(|newest| newest == socket) {
            return false;
        }
        known.retain(|other| other != socket);
        known.push(socket.to_owned());
        let surplus = known.len().saturating_sub(KEY_AGENTS);
        known.drain(..surplus);
        true
    }

    /// The known ssh-agents, the newest last.
    pub fn key_agents(&self) -> Vec<PathBuf> {
        lock(&self.key_agents).clone()
    }

    /// Whether a question to the user is open just now.
    pub fn is_asking(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }
}

impl Asker for Prompts {
    fn ask(&self, question: &Question) -> Option<String> {
        let (answer, answered) = sync_channel(1);
        let asked = PendingQuestion {
            question: question.clone(),
            answer,
        };
        {
            let waiting = lock(&self.waiting);
            // The newest: its user is looking at the terminal.
            let able = waiting.iter().rev().find(|waiting| match question.kind {
                QuestionKind::Secret => waiting.person,
                QuestionKind::HostKey => waiting.person || waiting.accept_new,
            })?;
            able.asks.send(asked).ok()?;
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        let answer = answered.recv_timeout(self.answer_limit);
        self.open.fetch_sub(1, Ordering::AcqRel);
        answer.ok()?
    }

    fn ssh_auth_sock(&self) -> Option<PathBuf> {
        // The socket of an agent that was forwarded into a shell is gone when that shell's session ends.
        lock(&self.key_agents)
            .iter()
            .rev()
            .find(|socket| socket.exists())
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: QuestionKind) -> Question {
        Question {
            prompt: "?".into(),
            echo: false,
            kind,
        }
    }

    fn answer_with(mut subscription: Subscription, text: &'static str) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let asked = subscription.questions.blocking_recv().unwrap();
            asked.answer.send(Some(text.to_owned())).unwrap();
        })
    }

    #[test]
    fn the_newest_person_is_asked_and_nobody_else() {
        let prompts = Prompts::new(Duration::from_secs(10), Vec::new());
        assert_eq!(prompts.ask(&question(QuestionKind::Secret)), None);
        let _older = prompts.subscribe(true, false);
        let newest = answer_with(prompts.subscribe(true, false), "open");
        let _unable = prompts.subscribe(false, true);
        assert_eq!(prompts.ask(&question(QuestionKind::Secret)).as_deref(), Some("open"));
        newest.join().unwrap();
        let gone = prompts.subscribe(true, false);
        let leaving = std::thread::spawn(move || drop(gone));
        leaving.join().unwrap();
        assert_eq!(lock(&prompts.waiting).len(), 2, "those who have not left");
    }

    #[test]
    fn a_host_key_is_also_for_who_accepts_new_ones() {
        let prompts = Prompts::new(Duration::from_secs(10), Vec::new());
        let accepting = answer_with(prompts.subscribe(false, true), "yes");
        assert_eq!(prompts.ask(&question(QuestionKind::HostKey)).as_deref(), Some("yes"));
        accepting.join().unwrap();
        assert_eq!(prompts.ask(&question(QuestionKind::Secret)), None);
    }

    #[test]
    fn a_person_who_leaves_or_sleeps_gives_no_answer() {
        let prompts = Prompts::new(Duration::from_millis(20), Vec::new());
        let _asleep = prompts.subscribe(true, false);
        assert_eq!(prompts.ask(&question(QuestionKind::Secret)), None);
        assert!(!prompts.is_asking());
        let mut leaving = prompts.subscribe(true, false);
        let thread = std::thread::spawn(move || drop(leaving.questions.blocking_recv()));
        assert_eq!(prompts.ask(&question(QuestionKind::Secret)), None);
        thread.join().unwrap();
    }

    #[test]
    fn the_agent_of_keys_is_the_newest_that_is_still_there() {
        let directory = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| directory.path().join(name));
        for file in [&old, &new] {
            std::fs::write(file, "").unwrap();
        }
        let prompts = Prompts::new(Duration::ZERO, vec![old.clone()]);
        assert!(!prompts.note_key_agent(&old));
        assert!(prompts.note_key_agent(&new));
        assert_eq!(prompts.ssh_auth_sock(), Some(new.clone()));
        std::fs::remove_file(&new).unwrap();
        assert_eq!(prompts.ssh_auth_sock(), Some(old.clone()));
        for number in 0..20 {
            prompts.note_key_agent(&directory.path().join(number.to_string()));
        }
        assert_eq!(prompts.key_agents().len(), KEY_AGENTS);
    }
}
