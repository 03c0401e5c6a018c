//! A container's output line by line, for a command that shows it among its own messages instead of giving it the terminal.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::foreground::{attach, logs};
use super::heard::{OutputCounter, OutputStream};
use super::terminal::{CopyError, Frames, read};
use crate::docker::connect::engine::Engine;
use crate::docker::options::run_options::Attach;
use crate::error::{Error, Result};

/// Bytes read at once.
const BUFFER: usize = 64 * 1024;
/// The most bytes of a line; a longer one comes in pieces.
const LONGEST_LINE: usize = 8 * 1024;
/// So many lines wait to be taken; then the container's output waits.
const WAITING: usize = 256;

/// The lines of a container's output: stdout and stderr, in the order in which they come.
pub struct ContainerLog {
    engine: Engine,
    lines: mpsc::Receiver<io::Result<String>>,
}

impl ContainerLog {
    /// The output from now on; of a container that is not started yet, all of it. `heard` counts what is read.
    ///
    /// # Errors
    /// The engine's refusal or a broken connection.
    pub async fn of_new(engine: &Engine, id: &str, tty: bool, heard: &Arc<OutputCounter>) -> Result<Self> {
        let streams = Attach {
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let halves = attach(engine, id, streams, None).await?;
        Ok(Self::spawn(engine, halves.reader, tty, heard))
    }

    /// The output that the engine keeps, and what follows, without what was read before; `None` if the engine keeps none.
    ///
    /// # Errors
    /// The engine's refusal or a broken connection.
    pub async fn of_running(engine: &Engine, id: &str, tty: bool, heard: &Arc<OutputCounter>) -> Result<Option<Self>> {
        let kept = logs(engine, id, true).await?;
        Ok(kept.map(|reader| Self::spawn(engine, reader, tty, heard)))
    }

    fn spawn(engine: &Engine, from: Box<dyn Read + Send>, tty: bool, heard: &Arc<OutputCounter>) -> Self {
        let (sender, lines) = mpsc::channel(WAITING);
        let heard = Arc::clone(heard);
        // Reads of an upgraded connection block.
        std::thread::spawn(move || {
            if let Err(cause) = split(from, tty, &heard, &sender) {
                // Nobody may be left to hear it.
                let _ = sender.blocking_send(Err(cause));
            }
        });
        Self {
            engine: engine.clone(),
            lines,
        }
    }

    /// The next line, without its end; `None` after the last.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn next(&mut self) -> Option<Result<String>> {
        let line = self.lines.recv().await?;
        Some(line.map_err(|cause| {
            match cause.kind() {
                io::ErrorKind::InvalidData => Error::failed(format!(
                    "{} gives output of a container that makes no sense",
                    self.engine.choice().engine()
                ))
                .because(cause),
                _ => self.engine.lost(cause),
            }
        }))
    }
}

/// Sends lines until the output ends, or nobody takes them any more.
fn split(
    mut from: impl Read,
    tty: bool,
    heard: &OutputCounter,
    sender: &mpsc::Sender<io::Result<String>>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut frames = Frames::default();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        let count = read(&mut from, &mut buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        let mut take = |stream: OutputStream, bytes: &[u8]| {
            let news = heard.news(stream, bytes);
            heard.add(stream, news);
            let partial = match stream {
                OutputStream::Out => &mut out,
                OutputStream::Err => &mut err,
            };
            whole_lines(partial, news)
                .into_iter()
                .try_for_each(|line| sender.blocking_send(Ok(line)))
        };
        let taken = match (tty, count) {
            (_, 0) => break,
            (true, _) => take(OutputStream::Out, bytes),
            (false, _) => match frames.take(bytes, |stream, bytes| {
                take(stream, bytes).map_err(|_| CopyError::Own(io::ErrorKind::BrokenPipe.into()))
            }) {
                Ok(()) => Ok(()),
                Err(CopyError::Own(_)) => return Ok(()),
                Err(CopyError::Container(cause)) => return Err(cause),
            },
        };
        if taken.is_err() {
            return Ok(());
        }
    }
    for rest in [out, err].into_iter().filter(|rest| !rest.is_empty()) {
        if sender.blocking_send(Ok(text(&rest))).is_err() {
            return Ok(());
        }
    }
    frames.end()
}

/// The lines that are whole with these bytes; what follows them stays in `partial`.
fn whole_lines(partial: &mut Vec<u8>, bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for byte in bytes {
        if *byte == b'\n' || partial.len() >= LONGEST_LINE {
            lines.push(text(partial));
            partial.clear();
        }
        if *byte != b'\n' {
            partial.push(*byte);
        }
    }
    lines
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(from: &'static [u8], tty: bool, heard: &OutputCounter) -> (Vec<String>, bool) {
        let (sender, mut lines) = mpsc::channel(WAITING);
        let ended = split(from, tty, heard, &sender);
        drop(sender);
        let mut found = Vec::new();
        while let Ok(line) = lines.try_recv() {
            found.push(line.unwrap());
        }
        (found, ended.is_ok())
    }

    #[test]
    fn both_outputs_come_as_lines() {
        let framed = b"\x01\0\0\0\0\0\0\x05a\r\nb \x02\0\0\0\0\0\0\x02e\n\x01\0\0\0\0\0\0\x01c";
        let heard = OutputCounter::default();
        assert_eq!(
            lines(framed, false, &heard),
            (vec!["a".to_owned(), "e".to_owned(), "b c".to_owned()], true)
        );
        // What was read before is not read again.
        let again = OutputCounter::from(heard.positions());
        assert_eq!(lines(framed, false, &again).0, Vec::<String>::new());
        assert_eq!(
            lines(b"x\ny", true, &OutputCounter::default()).0,
            ["x".to_owned(), "y".to_owned()]
        );
    }

    #[test]
    fn what_is_no_stream_of_frames_is_an_error_and_a_long_line_comes_in_pieces() {
        assert!(!lines(b"HTTP/1.1 200", false, &OutputCounter::default()).1);
        assert!(!lines(b"\x01\0\0\0\0\0\0\x05a", false, &OutputCounter::default()).1);
        let mut partial = Vec::new();
        let found = whole_lines(&mut partial, &[b'x'; LONGEST_LINE + 1]);
        assert_eq!((found.len(), partial.len()), (1, 1));
    }
}
