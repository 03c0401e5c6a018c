//! Asks for a login at the terminal: the user's name, and the password without its being seen.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;

use tokio::sync::oneshot;

use crate::docker::connect::login::Login;
use crate::error::{Error, Result};
use crate::output::Printer;
use crate::terminal::{self, Silence};

/// Whether there is a person to ask: stdin and stderr are a terminal.
pub(in crate::ops) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks whether something is to be done; it is not where nothing else is typed.
pub(in crate::ops) async fn agrees(printer: &Printer, question: &str) -> bool {
    printer.question(&format!("{question} [y/N]"));
    let answer = line().await.unwrap_or_default();
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Asks for a user and a password.
///
/// # Errors
/// Nothing was typed, or the terminal can't be kept from showing it.
pub async fn ask(printer: &Printer, registry: &str) -> Result<Login> {
    let unanswered = || Error::failed(format!("no login for {registry} was given")).hint("docker login keeps one");
    printer.question(&format!("User at {registry}:"));
    let user = line().await.ok_or_else(unanswered)?;
    printer.question(&format!("Password or access token of {user}:"));
    let secret = {
        // Dropped with this future when the user interrupts: the terminal then shows again what is typed.
        let _silence = Silence::of(std::io::stdin()).map_err(|cause| {
            Error::failed("the terminal would show the password")
                .because(cause)
                .hint("docker login")
        })?;
        line().await
    };
    let secret = secret.ok_or_else(unanswered)?;
    Ok(Login::new(user, secret))
}

/// A line of stdin; `None` where it is empty or stdin has ended.
async fn line() -> Option<String> {
    let terminal = File::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
    let (sender, receiver) = oneshot::channel();
    // A thread of its own: the runtime would wait for its own thread when the user interrupts.
    std::thread::spawn(move || {
        // Nobody listens any more where the user interrupted.
        let _ = sender.send(terminal::read_line(terminal));
    });
    let line = receiver.await.ok()??;
    let line = line.trim_end_matches('\r');
    (!line.is_empty()).then(|| line.to_owned())
}
