//! How much of a container's output was written here, so that a user who attaches again after a cut link gets the rest,
//! and nothing twice.
//!
//! The count is in lines, and in bytes of the last line. Engines keep output line by line, and the driver `json-file`
//! replaces bytes that are not UTF-8: the number of bytes may differ from what the container wrote, the number of lines
//! does not.

use std::sync::Mutex;

use dock_client::mutex::lock;
use serde::{Deserialize, Serialize};

/// One of a container's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputStream {
    /// stdout, and all of a terminal.
    #[default]
    Out,
    /// stderr.
    Err,
}

/// A place in an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Whole lines.
    pub lines: u64,
    /// Bytes of the line after them.
    pub bytes: u64,
}

impl Position {
    fn advance(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.lines += 1;
            self.bytes = 0;
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        self.bytes += rest.len() as u64;
    }

    /// Removes from `bytes` what lies before this place, and moves the place nearer by so much.
    fn skip<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        while self.lines > 0 {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return &[];
            };
            self.lines -= 1;
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        let skipped = rest.len().min(usize::try_from(self.bytes).unwrap_or(usize::MAX));
        // If a line was replaced by a shorter one, nothing after it is skipped.
        let skipped = rest
            .iter()
            .take(skipped)
            .position(|byte| *byte == b'\n')
            .unwrap_or(skipped);
        if skipped < rest.len() {
            self.bytes = 0;
        } else {
            self.bytes -= skipped as u64;
        }
        rest.get(skipped..).unwrap_or_default()
    }
}

/// How far both outputs were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// stdout, or a terminal.
    pub stdout: Position,
    pub stderr: Position,
}

impl Positions {
    fn of(&mut self, stream: OutputStream) -> &mut Position {
        match stream {
            OutputStream::Out => &mut self.stdout,
            OutputStream::Err => &mut self.stderr,
        }
    }
}

/// Counts what is written, on one thread, for another.
#[derive(Debug, Default)]
pub struct OutputCounter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    heard: Positions,
    /// What must still be skipped of the output that comes.
    ahead: Positions,
}

impl OutputCounter {
    /// For an output that comes from its beginning again, and was written up to here.
    pub fn from(heard: Positions) -> Self {
        Self(Mutex::new(Counts { heard, ahead: heard }))
    }

    /// How far it was written.
    pub fn positions(&self) -> Positions {
        self.lock().heard
    }

    /// From now on, all output is new.
    pub fn is_caught_up(&self) {
        self.lock().ahead = Positions::default();
    }

    /// The part of these bytes that was not written before.
    pub(in crate::docker) fn news<'a>(&self, stream: OutputStream, bytes: &'a [u8]) -> &'a [u8] {
        self.lock().ahead.of(stream).skip(bytes)
    }

    /// Counts bytes that were written.
    pub(in crate::docker) fn add(&self, stream: OutputStream, bytes: &[u8]) {
        self.lock().heard.of(stream).advance(bytes);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_hears_the_rest_wherever_it_was_cut_and_comes_in_pieces() {
        let whole = b"one\n\ntwo three\nfour";
        for cut in 0..=whole.len() {
            let before = OutputCounter::default();
            before.add(OutputStream::Out, &whole[..cut]);
            for size in 1..=whole.len() {
                let after = OutputCounter::from(before.positions());
                let mut rest = Vec::new();
                for piece in whole.chunks(size) {
                    let news = after.news(OutputStream::Out, piece);
                    after.add(OutputStream::Out, news);
                    rest.extend_from_slice(news);
                }
                assert_eq!(rest, &whole[cut..], "cut at {cut}, pieces of {size}");
                let all = OutputCounter::default();
                all.add(OutputStream::Out, whole);
                assert_eq!(after.positions(), all.positions(), "cut at {cut}, pieces of {size}");
            }
        }
    }

    #[test]
    fn outputs_are_counted_apart() {
        let heard = OutputCounter::default();
        heard.add(OutputStream::Out, b"a\nb");
        heard.add(OutputStream::Err, b"x");
        let again = OutputCounter::from(heard.positions());
        assert_eq!(again.news(OutputStream::Err, b"xy"), b"y");
        assert_eq!(again.news(OutputStream::Out, b"a\nbc"), b"c");
        let again = OutputCounter::from(heard.positions());
        again.is_caught_up();
        assert_eq!(again.news(OutputStream::Out, b"a"), b"a");
    }

    #[test]
    fn a_line_that_is_shorter_than_it_was_takes_nothing_of_the_next() {
        let again = OutputCounter::from(Positions {
            stdout: Position { lines: 1, bytes: 5 },
            ..Positions::default()
        });
        assert_eq!(again.news(OutputStream::Out, b"first\nsec\nthird\n"), b"\nthird\n");
        assert_eq!(again.news(OutputStream::Out, b"fourth\n"), b"fourth\n");
    }
}
