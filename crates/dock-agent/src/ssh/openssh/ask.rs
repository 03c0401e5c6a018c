//! What OpenSSH's client asks the person: PINs, passphrases, codes, a touch. It asks by a program that it starts
//! (SSH_ASKPASS): ours, which passes the question to the agent over a private socket, and the agent asks the person at the
//! terminal of the command that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use dock_link::transport::{Asker, Question, QuestionKind};
use zeroize::Zeroizing;

use super::super::auth::Memory;

/// Names the socket to our program when it is started to ask.
pub(super) const SOCKET: &str = "DOCKERUTILS_ASKPASS_SOCKET";
/// What OpenSSH wants of the person: an answer where it is not set, `confirm` for yes or no, `none` for no answer at all.
const MANNER: &str = "SSH_ASKPASS_PROMPT";
/// The longest question.
const LONGEST: u64 = 64 * 1024;
/// What is before an answer. An answer that does not come has nothing.
const ANSWERED: u8 = b'+';

/// Whether this process was started to ask, and if so, asks: the code it is to end with.
pub fn if_asked() -> Option<ExitCode> {
    let socket = std::env::var_os(SOCKET)?;
    let question = std::env::args_os().nth(1).unwrap_or_default();
    Some(match pass_on(Path::new(&socket), &question) {
        Ok(true) => ExitCode::SUCCESS,
        // OpenSSH takes any other code for "nobody answers".
        Ok(false) | Err(_) => ExitCode::FAILURE,
    })
}

fn pass_on(socket: &Path, question: &OsStr) -> io::Result<bool> {
    let manner = match std::env::var(MANNER).as_deref() {
        Ok("none") => Manner::Note,
        Ok("confirm") => Manner::Confirm,
        _ => Manner::Answer,
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&[manner as u8])?;
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
enum Manner {
    Answer = b'a' as isize,
    Confirm = b'c' as isize,
    Note = b'n' as isize,
}

/// Takes questions for one login.
pub(super) struct Desk {
    shared: Arc<Shared>,
    socket: std::path::PathBuf,
}

struct Shared {
    asker: Arc<dyn Asker>,
    /// What is known from earlier logins.
    known: BTreeMap<String, Zeroizing<String>>,
    /// Nobody is to be asked (BatchMode).
    batch: bool,
    state: Mutex<State>,
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    /// What was asked in this login. What is asked again was answered wrong.
    asked: BTreeSet<String>,
    /// What was answered last, to which question.
    answers: BTreeMap<String, Zeroizing<String>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut asked = Vec::new();
        (&mut stream).take(LONGEST).read_to_end(&mut asked)?;
        let Some((manner, question)) = asked.split_first() else {
            return Ok(());
        };
        let question = String::from_utf8_lossy(question).into_owned();
        if let Some(answer) = self.answer(*manner, question) {
            stream.write_all(&[ANSWERED])?;
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, manner: u8, question: String) -> Option<Zeroizing<String>> {
        let is_first = self.state().asked.insert(question.clone());
        if is_first && let Some(known) = self.known.get(&question) {
            self.state().answers.insert(question, known.clone());
            return Some(known.clone());
        }
        if self.batch {
            return None;
        }
        let prompt = match manner {
            // It is over when the key was touched; the line that may be typed meanwhile is for nobody.
            note if note == Manner::Note as u8 => format!("{question}: touch it "),
            confirm if confirm == Manner::Confirm as u8 => format!("{question} (yes/no) "),
            _ => question.clone(),
        };
        let answer = self.asker.ask(&Question {
            prompt,
            echo: manner != Manner::Answer as u8,
            kind: QuestionKind::Secret,
        });
        let answer = answer.map(Zeroizing::new)?;
        if manner == Manner::Confirm as u8 && !answer.trim().eq_ignore_ascii_case("yes") {
            return None;
        }
        if manner == Manner::Answer as u8 && is_lasting(&question) {
            self.state().answers.insert(question, answer.clone());
        }
        Some(answer)
    }
}

/// Whether the answer is the same next time: no code is.
fn is_lasting(question: &str) -> bool {
    let question = question.to_ascii_lowercase();
    ["pin for", "passphrase for", "'s password:"]
        .iter()
        .any(|part| question.contains(part))
}

impl Desk {
    /// Takes questions on this socket from now on.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub(super) fn open(socket: &Path, asker: Arc<dyn Asker>, memory: &Memory, batch: bool) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(Shared {
            asker,
            known: memory.of_openssh(),
            batch,
            state: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        // Not waited for: a question may be open for as long as a person likes.
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let asked = Arc::clone(&serving);
                // A touch is waited for while something else is asked. A program that was ended hears no answer.
                thread::spawn(move || asked.serve(stream));
            }
        });
        Ok(Self {
            shared,
            socket: socket.to_owned(),
        })
    }

    /// Keeps what was answered for the next login, where this one succeeded.
    pub(super) fn close(self, memory: &Memory, succeeded: bool) {
        let state = self.shared.state();
        for question in &state.asked {
            match state.answers.get(question).filter(|_| succeeded) {
                Some(answer) => memory.keep_for_openssh(question, answer),
                None => memory.forget_of_openssh(question),
            }
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // Wakes the thread that accepts, where it still can be found.
        let _ = UnixStream::connect(&self.socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_asked_for_again_and_what_stays_the_same_is_not() {
        for lasting in [
            "Enter PIN for 'token': ",
            "Enter PIN for ED25519-SK key /home/ann/.ssh/id_ed25519_sk: ",
            "Enter passphrase for key '/k': ",
            "ann@dock's password: ",
        ] {
            assert!(is_lasting(lasting), "{lasting}");
        }
        for changing in ["(ann@dock) Verification code: ", "Allow shared connection to dock? "] {
            assert!(!is_lasting(changing), "{changing}");
        }
    }

    /// Answers everything with a number: which question it was.
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

    fn ask(socket: &Path, manner: Manner, question: &str) -> Option<String> {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(&[manner as u8]).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.strip_prefix('+').map(str::to_owned)
    }

    #[test]
    fn an_answer_that_let_us_in_is_given_once_without_a_person() {
        let directory = tempfile::tempdir().unwrap();
        let (memory, asker) = (Memory::default(), Arc::new(Counting::default()));
        let mut number = 0;
        let mut open = || {
            number += 1;
            let socket = directory.path().join(number.to_string());
            let desk = Desk::open(&socket, Arc::clone(&asker) as _, &memory, false).unwrap();
            (desk, socket)
        };
        let pin = "Enter PIN for 'token': ";
        let (desk, socket) = open();
        assert_eq!(ask(&socket, Manner::Answer, pin).as_deref(), Some("1"));
        // The first was wrong.
        assert_eq!(ask(&socket, Manner::Answer, pin).as_deref(), Some("2"));
        assert_eq!(ask(&socket, Manner::Answer, "Code: ").as_deref(), Some("3"));
        assert_eq!(ask(&socket, Manner::Confirm, "Sure?"), None, "4 is no yes");
        desk.close(&memory, true);
        let (desk, socket) = open();
        assert_eq!(ask(&socket, Manner::Answer, pin).as_deref(), Some("2"));
        assert_eq!(asker.0.lock().unwrap().len(), 4);
        assert_eq!(
            ask(&socket, Manner::Answer, pin).as_deref(),
            Some("5"),
            "it is wrong now"
        );
        desk.close(&memory, false);
        let (_desk, socket) = open();
        assert_eq!(ask(&socket, Manner::Answer, pin).as_deref(), Some("6"));
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
