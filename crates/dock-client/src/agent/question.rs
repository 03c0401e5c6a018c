//! Asking the user at the terminal, for an agent, which has no terminal of its own.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use rustix::termios::tcgetpgrp;
use tokio::sync::oneshot;

use super::wire::Question;
use crate::terminal::{self, Silence};
use crate::text::visible;

/// The terminal of this process, whatever its streams are connected to.
const TERMINAL: &str = "/dev/tty";

/// Whether there is a user to ask: a terminal, and this process in its foreground (a question from the background would
/// stop the process).
pub fn has_person() -> bool {
    let Ok(terminal) = File::open(TERMINAL) else {
        return false;
    };
    tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Asks, and waits for a line. `None` if the terminal is gone or its input has ended.
///
/// Dropped while it waits, it leaves the terminal as it was.
pub async fn ask(question: &Question) -> Option<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open(TERMINAL).ok()?;
    // The text may be that of a hostile dock.
    let prompt: Vec<_> = question.prompt.split('\n').map(visible).collect();
    // What was typed before the question does not answer it.
    let _silence = if question.echo {
        None
    } else {
        Some(Silence::of(&terminal).ok()?)
    };
    terminal.write_all(prompt.join("\n").as_bytes()).ok()?;
    let (answered, answer) = oneshot::channel();
    // A read of a terminal can't be cancelled: in a thread of its own it does not keep the process from ending.
    std::thread::spawn(move || {
        // If the question was dropped, nothing receives this.
        let _ = answered.send(terminal::read_line(terminal));
    });
    answer.await.ok()?
}
