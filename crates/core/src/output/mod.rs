//! What is printed, and where: the result on stdout; progress, notes, warnings and errors on stderr.
//!
//! [`Printer`] holds all policy of verbosity, colour and terminals. Nothing else writes to the two streams.
//!
//! Most output contains names from elsewhere: from an engine, a dock, a registry, a file that was synced. So the
//! printer makes visible, in all that passes through it, the characters that a terminal would obey or not show
//! ([`is_invisible`]): messages, causes, hints, notes, questions. Of the sequences of a terminal, only the colours of
//! [`Printer::styled`] pass. A result that goes to a file or a program has its exact bytes; with `--json`, such
//! characters are written as `\\u202e`, which is the same value.

pub mod progress;
pub mod table;

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::env::Env;
use crate::error::{Error, ErrorDocument};
use dock_client::text::{COLOURS, RESET};
pub use dock_client::text::{counted, is_invisible, one_line, shown, visible};
use progress::Screen;

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Results, warnings and errors.
    Quiet,
    /// Progress and notes, too.
    Normal,
    /// Decisions on the way, too (`-v`).
    Verbose,
}

/// Writes to stdout and stderr.
#[derive(Clone, Debug)]
pub struct Printer {
    command: &'static str,
    verbosity: Verbosity,
    json: bool,
    stderr_is_terminal: bool,
    /// Why a part of the result could not be written, if so; shared by all copies of a printer.
    unwritten: Arc<OnceLock<std::io::Error>>,
    stdout_is_terminal: bool,
    colour: bool,
    screen: Screen,
    /// Whether stdout has its JSON document already, or belongs to a container or another program.
    has_document: Arc<AtomicBool>,
}

/// Styles of text on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Errors.
    Red,
    /// Warnings.
    Yellow,
    /// Hints, and reports of what was done.
    Cyan,
    /// Less important text.
    Dim,
}

impl Printer {
    /// A printer of the command of this name.
    pub fn new(command: &'static str, verbosity: Verbosity, json: bool, env: &Env) -> Self {
        let stderr_is_terminal = std::io::stderr().is_terminal() && env.get("TERM") != Some("dumb");
        // https://no-color.org: any value that is not empty.
        let colour = stderr_is_terminal && env.non_empty("NO_COLOR").is_none();
        Self {
            command,
            verbosity,
            json,
            stderr_is_terminal,
            unwritten: Arc::default(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            colour,
            screen: Screen::of_stderr(colour),
            has_document: Arc::default(),
        }
    }

    /// The same without progress and notes.
    #[must_use]
    pub fn quieted(&self) -> Self {
        Self {
            verbosity: Verbosity::Quiet,
            ..self.clone()
        }
    }

    /// Whether the result is one JSON document.
    pub const fn json(&self) -> bool {
        self.json
    }

    /// Whether progress may move: stderr is a terminal, and neither `-q` nor `--json` was given.
    pub fn live(&self) -> bool {
        self.stderr_is_terminal && self.shows_progress()
    }

    /// The screen on which progress is shown.
    pub const fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Whether progress is shown at all.
    pub fn shows_progress(&self) -> bool {
        self.verbosity >= Verbosity::Normal && !self.json
    }

    /// The lines of a table, to stdout: on a terminal, as many of its columns as fit.
    pub fn table(&self, table: &table::Table) {
        let columns = self
            .stdout_is_terminal
            .then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        let lines = match columns {
            Some(columns) => table.lines_within(columns),
            None => table.lines(),
        };
        lines.iter().for_each(|line| self.result(line));
    }

    /// A line of the result, to stdout. Silently lost if stdout is a pipe whose reader has gone; any other error is
    /// reported by [`Printer::unwritten`] afterwards.
    pub fn result(&self, line: &str) {
        let written = if self.stdout_is_terminal {
            self.screen
                .suspend(|| writeln!(std::io::stdout().lock(), "{}", shown(line, false)))
        } else {
            writeln!(std::io::stdout().lock(), "{line}")
        };
        if let Err(cause) = written
            && cause.kind() != std::io::ErrorKind::BrokenPipe
        {
            // The first error is kept.
            let _ = self.unwritten.set(cause);
        }
    }

    /// The error that a part of the result could not be written.
    pub fn unwritten(&self) -> Option<Error> {
        let cause = self.unwritten.get()?;
        Some(
            Error::failed("the result could not be written to stdout")
                .because(std::io::Error::new(cause.kind(), cause.to_string()))
                .hint("what was to be done is done; look at where the output goes: df -h"),
        )
    }

    /// The result as a JSON document, to stdout.
    ///
    /// # Errors
    /// A value that has no JSON form.
    pub fn result_json(&self, value: &impl serde::Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|cause| Error::failed("the result has no JSON form").because(cause))?;
        self.result(&escaped(&text));
        self.has_document.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// From here on stdout belongs to a container or another program, and gets no JSON document.
    pub fn give_stdout_away(&self) {
        self.has_document.store(true, Ordering::Relaxed);
    }

    /// The error that ends the command: to stderr, and with `--json` as the document, if stdout has none yet.
    pub fn last_error(&self, error: &Error) {
        self.error(error);
        self.error_document(&error.document());
    }

    fn error_document(&self, document: &ErrorDocument) {
        if self.json && !self.has_document.load(Ordering::Relaxed) {
            // Strings always have a JSON form.
            let _ = self.result_json(document);
        }
    }

    /// The plan of a dry run, to stdout: a line for each command, or a JSON document with all of them.
    ///
    /// # Errors
    /// Never for a list of lines.
    pub fn plan(&self, commands: &[String]) -> Result<(), Error> {
        if self.json {
            return self.result_json(&serde_json::json!({ "commands": commands }));
        }
        commands.iter().for_each(|command| self.result(command));
        Ok(())
    }

    /// A note, to stderr; not with `-q` or `--json`.
    pub fn note(&self, line: &str) {
        if self.shows_progress() {
            self.line(line);
        }
    }

    /// What only `-v` shows, to stderr.
    pub fn detail(&self, line: &str) {
        if self.verbosity == Verbosity::Verbose {
            self.line(&self.styled(Style::Dim, line));
        }
    }

    /// A warning, to stderr, whatever the verbosity.
    pub fn warning(&self, text: &str) {
        self.line(&format!(
            "{}: {} {text}",
            self.command,
            self.styled(Style::Yellow, "warning:")
        ));
    }

    /// clap's error about the command line, with the command's own name before it.
    pub fn usage(&self, complaint: &str) {
        let complaint = complaint.strip_prefix("error: ").unwrap_or(complaint);
        self.line(&format!(
            "{}: {}",
            self.styled(Style::Red, self.command),
            complaint.trim_end()
        ));
        let message = complaint.split("\n\n").next().unwrap_or_default();
        self.error_document(&Error::usage(message.trim().replace('\n', " ")).document());
    }

    /// What explains an error that follows: a part of a file, the last lines of a step, as [`step_excerpt`] makes them of it. To
    /// stderr.
    pub fn excerpt(&self, text: &str) {
        self.line(text);
    }

    /// An event for programs, as one line of JSON on stderr: for when stdout belongs to a container or another program.
    pub fn error_json(&self, value: &serde_json::Value) {
        self.line(&escaped(&value.to_string()));
    }

    /// An error with its causes and its hint, to stderr.
    pub fn error(&self, error: &Error) {
        self.line(&self.rendered(error));
    }

    fn rendered(&self, error: &Error) -> String {
        let mut text = format!("{}: {}", self.styled(Style::Red, self.command), error.with_causes());
        if let Some(hint) = error.hint_text() {
            text.push_str(&format!("\n\n{} {hint}", self.styled(Style::Cyan, "hint:")));
        }
        text
    }

    /// The text in a style, where stderr shows colours.
    pub fn styled(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let [red, yellow, cyan, dim] = COLOURS;
        let begin = match style {
            Style::Red => red,
            Style::Yellow => yellow,
            Style::Cyan => cyan,
            Style::Dim => dim,
        };
        format!("{begin}{text}{RESET}")
    }

    /// A question to the user at the terminal, to stderr, without a line break.
    pub fn question(&self, text: &str) {
        self.screen.pause();
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "{} ", self.shown(text)).and_then(|()| stderr.flush());
    }

    fn line(&self, line: &str) {
        self.screen.print(&self.shown(line));
    }

    /// A text as it is written to stderr.
    fn shown(&self, text: &str) -> String {
        shown(text, self.colour)
    }
}

/// The last lines of a step that failed, below its name. None of them begins a line of ours: a CI takes commands from there, such as
/// `::add-mask::` (GitHub Actions, which looks behind blanks, too).
pub fn step_excerpt(name: &str, lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("| {line}\n")).collect();
    format!("------\n > {}:\n{lines}------", visible(name))
}

/// A JSON document in which characters that are [`is_invisible`] are escaped by number. serde_json escapes only the
/// first 32.
fn escaped(document: &str) -> String {
    let mut text = String::with_capacity(document.len());
    for c in document.chars() {
        if c != '\n' && is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// A size as people read it: `1.2 MB`, powers of 1000 as docker prints them.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else if value < 100.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456_789, "123 MB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn an_error_is_one_line_its_causes_and_a_hint() {
        let printer = Printer::new("build-image", Verbosity::Normal, false, &Env::default());
        let error = Error::failed("no engine answers")
            .because(std::io::Error::other("refused"))
            .hint("start it");
        assert_eq!(
            printer.rendered(&error),
            "build-image: no engine answers: refused\n\nhint: start it"
        );
    }

    /// A possible name of an engine, a dock or a file: it would change the title, reverse the direction, hide and forge
    /// a line.
    const HOSTILE: &str = "web\x1b]0;t\x07\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}\u{9b}2J\r\x1b[2Jend";

    #[test]
    fn whatever_a_hostile_name_is_part_of_it_is_made_visible() {
        let printer = |colour| Printer {
            colour,
            ..Printer::new("run-image", Verbosity::Normal, false, &Env::default())
        };
        let error = Error::failed(format!("port 80 is taken by {HOSTILE}"))
            .because(std::io::Error::other(format!("cause {HOSTILE}")))
            .hint(crate::hint!("docker stop -- {}", HOSTILE));
        for colour in [false, true] {
            let printer = printer(colour);
            let lines = [
                printer.rendered(&error),
                printer.styled(Style::Dim, HOSTILE),
                format!("{} {HOSTILE}", printer.styled(Style::Yellow, "warning:")),
            ];
            for line in lines {
                let shown = printer.shown(&line);
                let plain = [&COLOURS[..], &[RESET]]
                    .concat()
                    .iter()
                    .fold(
                        shown.clone(),
                        |text, style| {
                            if colour { text.replace(style, "") } else { text }
                        },
                    );
                assert!(!plain.chars().any(|c| c != '\n' && is_invisible(c)), "{shown:?}");
                assert!(plain.contains("web\u{fffd}]0;t"), "{shown:?}");
            }
        }
        // A colour from elsewhere ends with the line at the latest.
        assert_eq!(shown("a\x1b[1;31mb", true), "a\x1b[1;31mb\x1b[0m");
        assert_eq!(shown("a\x1b[1;31mb\r\n\tc", false), "ab\n\tc");
    }

    #[test]
    fn a_json_document_has_the_same_value_and_nothing_that_is_not_seen() {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "name": HOSTILE })).unwrap();
        let escaped = escaped(&text);
        assert!(!escaped.chars().any(|c| c != '\n' && is_invisible(c)), "{escaped:?}");
        assert!(
            escaped.contains("\\u202e") && escaped.contains("\\udb40\\udc41"),
            "{escaped}"
        );
        let value: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(value.get("name").and_then(|name| name.as_str()), Some(HOSTILE));
    }

    #[test]
    fn an_error_is_the_document_unless_there_is_one() {
        let printer = || Printer::new("build-image", Verbosity::Normal, true, &Env::default());
        let error = Error::failed("no").hint("do").document();
        let (first, second) = (printer(), printer());
        second.clone().give_stdout_away();
        assert!(!first.has_document.load(Ordering::Relaxed));
        [&first, &second]
            .iter()
            .for_each(|printer| printer.error_document(&error));
        assert!(first.has_document.load(Ordering::Relaxed) && second.has_document.load(Ordering::Relaxed));
    }
}
