//! What is printed, and where: the result on stdout; progress, notes, warnings and errors on stderr.
//!
//! [`Printer`] holds all policy of verbosity, colour and terminals. Nothing else writes to the two streams.

pub mod bars;
pub mod steps;
pub mod table;

use std::io::{IsTerminal as _, Write as _};

use crate::env::Env;
use crate::error::Error;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Results, warnings and errors.
    Quiet,
    /// Progress and notes, too.
    Normal,
    /// What is decided on the way, too.
    Verbose,
}

/// Writes to stdout and stderr.
#[derive(Clone, Debug)]
pub struct Printer {
    command: &'static str,
    verbosity: Verbosity,
    json: bool,
    stderr_is_terminal: bool,
    colour: bool,
}

/// Styles of text on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Errors.
    Red,
    /// Warnings.
    Yellow,
    /// Hints and what is done.
    Cyan,
    /// What matters less.
    Dim,
}

impl Printer {
    /// A printer of the command of this name.
    pub fn new(command: &'static str, verbosity: Verbosity, json: bool, env: &Env) -> Self {
        let stderr_is_terminal = std::io::stderr().is_terminal() && env.get("TERM") != Some("dumb");
        Self {
            command,
            verbosity,
            json,
            stderr_is_terminal,
            // https://no-color.org: any value that is not empty.
            colour: stderr_is_terminal && env.non_empty("NO_COLOR").is_none(),
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

    /// Whether progress may move: stderr is a terminal, and nobody asked for silence or JSON.
    pub fn live(&self) -> bool {
        self.stderr_is_terminal && self.shows_progress()
    }

    /// Whether progress is shown at all.
    pub fn shows_progress(&self) -> bool {
        self.verbosity >= Verbosity::Normal && !self.json
    }

    /// A line of the result, to stdout. Lost where stdout is closed: the reader has gone.
    pub fn result(&self, line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// The result as a JSON document, to stdout.
    ///
    /// # Errors
    /// A value that has no JSON form.
    pub fn result_json(&self, value: &impl serde::Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|cause| Error::failed("the result has no JSON form").because(cause))?;
        self.result(&text);
        Ok(())
    }

    /// The plan of a dry run, to stdout: a line for each command, or a JSON document with all of them.
    ///
    /// # Errors
    /// None that a list of lines could have.
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
        let text = visible_lines(text);
        self.line(&format!(
            "{}: {} {text}",
            self.command,
            self.styled(Style::Yellow, "warning:")
        ));
    }

    /// clap's complaint about the command line, under our name.
    pub fn usage(&self, complaint: &str) {
        let complaint = complaint.strip_prefix("error: ").unwrap_or(complaint);
        self.line(&format!(
            "{}: {}",
            self.styled(Style::Red, self.command),
            complaint.trim_end()
        ));
    }

    /// What explains an error that follows: a part of a file, the last lines of a step. To stderr.
    pub fn excerpt(&self, text: &str) {
        self.line(text);
    }

    /// An error with its causes and its hint, to stderr.
    pub fn error(&self, error: &Error) {
        self.line(&self.rendered(error));
    }

    fn rendered(&self, error: &Error) -> String {
        let mut text = format!(
            "{}: {}",
            self.styled(Style::Red, self.command),
            visible_lines(&error.to_string())
        );
        let mut cause = std::error::Error::source(error);
        let mut last = error.to_string();
        while let Some(inner) = cause {
            let message = inner.to_string();
            // Libraries repeat their cause in their own text.
            if !last.contains(&message) {
                text.push_str(": ");
                text.push_str(&visible_lines(&message));
            }
            last = message;
            cause = inner.source();
        }
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
        let code = match style {
            Style::Red => "1;31",
            Style::Yellow => "1;33",
            Style::Cyan => "36",
            Style::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A question to the person at the terminal, to stderr, without the end of a line.
    pub fn question(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "{text} ").and_then(|()| stderr.flush());
    }

    fn line(&self, line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// Text of others with its control characters made visible, so that it can't move the cursor or hide a line.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\t' => shown.push(' '),
            // A sequence such as the colour of a compiler's message (ECMA-48, CSI): left out whole.
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                while chars.next_if(|c| matches!(c, '\x20'..='\x3f')).is_some() {}
                chars.next_if(|c| matches!(c, '\x40'..='\x7e'));
            }
            c if c.is_control() => shown.push('\u{fffd}'),
            c => shown.push(c),
        }
    }
    shown
}

/// As [`visible`], with line ends kept.
fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
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

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(
            visible("a\x1b[2Jb\tc\x1b[1;31mred\x1b[0m\x1b]0;t\x07"),
            "ab cred\u{fffd}]0;t\u{fffd}"
        );
    }
}
