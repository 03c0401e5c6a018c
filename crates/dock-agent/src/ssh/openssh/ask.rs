//! What OpenSSH's client asks the user: PINs, passphrases, codes, a touch. It asks through a program that it starts
//! (SSH_ASKPASS): ours, which passes the question to the agent over a private socket, and the agent asks the user at
//! the terminal of the command that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use dock_link::transport::{Asker, Question, QuestionKind};
use zeroize::Zeroizing;

use super::super::auth::Memory;
use dock_client::mutex::lock;

/// Names the socket for our program when it is started to ask.
pub(super) const SOCKET: &str = "DOCKERUTILS_ASKPASS_SOCKET";
/// What OpenSSH wants from the user: an answer if it is not set, `confirm` for yes or no, `none` for no answer at all.
const PROMPT_KIND: &str = "SSH_ASKPASS_PROMPT";
/// The longest question, in bytes.
const LONGEST: u64 = 64 * 1024;
/// From this version on, OpenSSH's client puts `(user@host) ` before the questions of a server.
const MARKED_SINCE: (u32, u32) = (8, 5);
/// Precedes an answer. If there is no answer, nothing is sent.
const ANSWERED: u8 = b'+';

/// Asks, if this process was started to ask; returns the exit code for it then.
pub fn if_asked() -> Option<ExitCode> {
    let socket = std::env::var_os(SOCKET)?;
    let question = std::env::args_os().nth(1).unwrap_or_default();
    Some(match pass_on(Path::new(&socket), &question) {
        Ok(true) => ExitCode::SUCCESS,
        // OpenSSH takes any other code for "no answer".
        Ok(false) | Err(_) => ExitCode::FAILURE,
    })
}

fn pass_on(socket: &Path, question: &OsStr) -> io::Result<bool> {
    let kind = match std::env::var(PROMPT_KIND).as_deref() {
        Ok("none") => PromptKind::Note,
        Ok("confirm") => PromptKind::Confirm,
        _ => PromptKind::Answer,
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&[kind as u8])?;
    stream.write_all(question.as_encoded_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Zeroizing::new(Vec::new());
    stream.read_to_end(&mut answer)?;
    let Some((&ANSWERED, text)) = answer.split_first() else {
        return Ok(false);
    };
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(true)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PromptKind {
    Answer = b'a' as isize,
    Confirm = b'c' as isize,
    Note = b'n' as isize,
}

/// Takes questions for one login.
pub(super) struct AskpassServer {
    shared: Arc<AskpassContext>,
    socket: std::path::PathBuf,
}

struct AskpassContext {
    asker: Arc<dyn Asker>,
    /// The answers from earlier logins.
    known: BTreeMap<String, Zeroizing<String>>,
    /// The user is not to be asked (BatchMode).
    batch: bool,
    /// Whether the client marks the questions of a server.
    marks: bool,
    state: Mutex<AskpassAnswers>,
    over: AtomicBool,
}

#[derive(Default)]
struct AskpassAnswers {
    /// The questions of this login. If one is asked again, its answer was wrong.
    asked: BTreeSet<String>,
    /// The last answer to each question.
    answers: BTreeMap<String, Zeroizing<String>>,
    /// The host whose key was asked about, and was not accepted.
    unaccepted: Option<String>,
}

impl AskpassContext {
    fn state(&self) -> MutexGuard<'_, AskpassAnswers> {
        lock(&self.state)
    }

    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut asked = Vec::new();
        (&mut stream).take(LONGEST).read_to_end(&mut asked)?;
        let Some((kind, question)) = asked.split_first() else {
            return Ok(());
        };
        let question = String::from_utf8_lossy(question).into_owned();
        if let Some(answer) = self.answer(*kind, question) {
            stream.write_all(&[ANSWERED])?;
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, kind: u8, question: String) -> Option<Zeroizing<String>> {
        let is_first = self.state().asked.insert(question.clone());
        if is_first
            && kind == PromptKind::Answer as u8
            && is_lasting(&question, self.marks)
            && let Some(known) = self.known.get(&question)
        {
            self.state().answers.insert(question, known.clone());
            return Some(known.clone());
        }
        let is_of_host = kind == PromptKind::Answer as u8 && is_of_host(&question);
        if let Some(host) = unknown_host(&question).filter(|_| is_of_host) {
            self.state().unaccepted = Some(host.to_owned());
        }
        if self.batch {
            return None;
        }
        let prompt = match kind {
            // The prompt is over when the key was touched; a line that is typed meanwhile is ignored.
            note if note == PromptKind::Note as u8 => format!("{question}: touch it "),
            confirm if confirm == PromptKind::Confirm as u8 => format!("{question} (yes/no) "),
            _ => question.clone(),
        };
        let answer = self.asker.ask(&Question {
            prompt,
            echo: is_of_host || kind != PromptKind::Answer as u8,
            kind: match is_of_host {
                true => QuestionKind::HostKey,
                false => QuestionKind::Secret,
            },
        });
        let answer = answer.map(Zeroizing::new)?;
        if is_of_host && !answer.trim().is_empty() && !answer.trim().eq_ignore_ascii_case("no") {
            self.state().unaccepted = None;
        }
        if kind == PromptKind::Confirm as u8 && !answer.trim().eq_ignore_ascii_case("yes") {
            return None;
        }
        if kind == PromptKind::Answer as u8 && is_lasting(&question, self.marks) {
            self.state().answers.insert(question, answer.clone());
        }
        Some(answer)
    }
}

/// Whether the question is about an unknown host key. That comes before any question that a server may word itself, and
/// the answer is no secret.
fn is_of_host(question: &str) -> bool {
    unknown_host(question).is_some() || question.starts_with("Please type 'yes'")
}

/// The host that such a question names.
fn unknown_host(question: &str) -> Option<&str> {
    let host = question.strip_prefix("The authenticity of host '")?;
    host.split([' ', '\'']).next()
}

/// Whether an answer is kept for the next login: only if OpenSSH's client itself asks the question. A server words its
/// own questions (keyboard-interactive) as it likes. Clients since 8.5 put `(user@host) ` before those; an older client
/// shows them bare, so nothing is kept for a client that is not known to be newer.
fn is_lasting(question: &str, marks_server_questions: bool) -> bool {
    let question = question.to_ascii_lowercase();
    let is_of_a_key = ["enter pin for ", "enter passphrase for "]
        .iter()
        .any(|beginning| question.starts_with(beginning));
    let is_password = !question.starts_with('(') && question.trim_end().ends_with("'s password:");
    marks_server_questions && (is_of_a_key || is_password)
}

/// Whether OpenSSH's client of this version (`OpenSSH_9.2p1 ...`, as `ssh -V` prints it) marks the questions of a
/// server.
fn marks(version: &str) -> bool {
    let number = version
        .split_once("OpenSSH_")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit() && c != '.').next());
    let Some((major, minor)) = number.and_then(|number| number.split_once('.')) else {
        return false;
    };
    match (major.parse::<u32>(), minor.parse::<u32>()) {
        (Ok(major), Ok(minor)) => (major, minor) >= MARKED_SINCE,
        _ => false,
    }
}

impl AskpassServer {
    /// Takes questions on this socket from now on; `version` is what `ssh -V` prints.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub(super) fn open(
        socket: &Path,
        asker: Arc<dyn Asker>,
        memory: &Memory,
        batch: bool,
        version: &str,
    ) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(AskpassContext {
            asker,
            known: memory.of_openssh(),
            batch,
            marks: marks(version),
            state: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        // Not joined: a question may stay open for as long as the user likes.
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let asked = Arc::clone(&serving);
                // While the client waits for a touch, it may ask something else. The answer to a program that was ended
                // is lost.
                thread::spawn(move || asked.serve(stream));
            }
        });
        Ok(Self {
            shared,
            socket: socket.to_owned(),
        })
    }

    /// Keeps the answers for the next login, if this one succeeded. Returns the host whose key was asked about and not
    /// accepted, if there is one.
    pub(super) fn close(self, memory: &Memory, succeeded: bool) -> Option<String> {
        let state = self.shared.state();
        for question in &state.asked {
            match state.answers.get(question).filter(|_| succeeded) {
                Some(answer) => memory.keep_for_openssh(question, answer),
                None => memory.forget_of_openssh(question),
            }
        }
        state.unaccepted.clone()
    }
}

impl Drop for AskpassServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // Wakes the thread that accepts connections, if the socket still exists.
        let _ = UnixStream::connect(&self.socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_may_have_asked_is_never_answered_from_memory() {
        for lasting in [
            "Enter PIN for 'token': ",
            "Enter PIN for ED25519-SK key /home/ann/.ssh/id_ed25519_sk: ",
            "Enter passphrase for key '/k': ",
            "ann@dock's password: ",
        ] {
            assert!(is_lasting(lasting, true), "{lasting}");
            // An old client hands on a server's own question as it is.
            assert!(!is_lasting(lasting, false), "{lasting}");
        }
        for other in [
            "(ann@dock) Verification code: ",
            "(ann@dock) Enter PIN for 'token': ",
            "(ann@dock) ann@dock's password: ",
            "Allow shared connection to dock? ",
        ] {
            assert!(!is_lasting(other, true), "{other}");
        }
        for (version, expected) in [
            ("OpenSSH_8.0p1, OpenSSL 1.1.1k", false),
            ("OpenSSH_8.4p1 Debian-5", false),
            ("OpenSSH_8.5p1", true),
            ("OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.15", true),
            ("OpenSSH_10.0p2", true),
            ("dropbear", false),
            ("", false),
        ] {
            assert_eq!(marks(version), expected, "{version}");
        }
    }

    /// Answers each question with a number: how many there were so far.
    #[derive(Default)]
    struct Counting(Mutex<Vec<Question>>);

    impl Asker for Counting {
        fn ask(&self, question: &Question) -> Option<String> {
            let mut asked = self.0.lock().unwrap();
            asked.push(question.clone());
            Some(asked.len().to_string())
        }

        fn ssh_auth_sock(&self) -> Option<std::path::PathBuf> {
            None
        }
    }

    fn ask(socket: &Path, kind: PromptKind, question: &str) -> Option<String> {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(&[kind as u8]).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.strip_prefix('+').map(str::to_owned)
    }

    #[test]
    fn a_host_that_is_not_known_is_asked_about_as_such() {
        let directory = tempfile::tempdir().unwrap();
        let (memory, asker) = (Memory::default(), Arc::new(Counting::default()));
        let question = "The authenticity of host '[box]:2222 ([10.0.0.7]:2222)' can't be established.\nED25519 key fingerprint is SHA256:x.\n\
                        Are you sure you want to continue connecting (yes/no/[fingerprint])? ";
        for (name, batch, expected) in [("a", true, Some("[box]:2222")), ("b", false, None)] {
            let socket = directory.path().join(name);
            let server =
                AskpassServer::open(&socket, Arc::clone(&asker) as _, &memory, batch, "OpenSSH_9.2p1").unwrap();
            assert_eq!(ask(&socket, PromptKind::Answer, question).is_some(), !batch);
            assert_eq!(server.close(&memory, true).as_deref(), expected, "{name}");
        }
        let asked = asker.0.lock().unwrap();
        assert_eq!(
            (asked.len(), asked[0].kind, asked[0].echo),
            (1, QuestionKind::HostKey, true)
        );
        // A server's own questions are marked, and so are not taken for these.
        assert!(!is_of_host("(ann@box) The authenticity of host 'x'"));
        assert!(is_of_host("Please type 'yes', 'no' or the fingerprint: "));
    }

    #[test]
    fn an_answer_that_let_us_in_is_given_once_without_a_person() {
        let directory = tempfile::tempdir().unwrap();
        let (memory, asker) = (Memory::default(), Arc::new(Counting::default()));
        let mut number = 0;
        let mut open = |version: &str| {
            number += 1;
            let socket = directory.path().join(number.to_string());
            let server = AskpassServer::open(&socket, Arc::clone(&asker) as _, &memory, false, version).unwrap();
            (server, socket)
        };
        let pin = "Enter PIN for 'token': ";
        let (server, socket) = open("OpenSSH_9.2p1");
        assert_eq!(ask(&socket, PromptKind::Answer, pin).as_deref(), Some("1"));
        // The first answer was wrong.
        assert_eq!(ask(&socket, PromptKind::Answer, pin).as_deref(), Some("2"));
        assert_eq!(ask(&socket, PromptKind::Answer, "Code: ").as_deref(), Some("3"));
        assert_eq!(ask(&socket, PromptKind::Confirm, "Sure?"), None, "4 is no yes");
        server.close(&memory, true);
        let (server, socket) = open("OpenSSH_9.2p1");
        assert_eq!(ask(&socket, PromptKind::Answer, pin).as_deref(), Some("2"));
        assert_eq!(asker.0.lock().unwrap().len(), 4);
        assert_eq!(
            ask(&socket, PromptKind::Answer, pin).as_deref(),
            Some("5"),
            "it is wrong now"
        );
        server.close(&memory, false);
        let (server, socket) = open("OpenSSH_9.2p1");
        assert_eq!(ask(&socket, PromptKind::Answer, pin).as_deref(), Some("6"));
        server.close(&memory, true);
        // The question may come from the server, through an old client.
        let (_server, socket) = open("OpenSSH_8.0p1");
        assert_eq!(ask(&socket, PromptKind::Answer, pin).as_deref(), Some("7"));
        assert!(
            asker
                .0
                .lock()
                .unwrap()
                .iter()
                .all(|question| question.echo == question.prompt.contains("(yes/no)"))
        );
    }
}
