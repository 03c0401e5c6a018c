//! The path of bytes from a channel to its local reader: one end of a Unix socket pair.
//!
//! So the kernel provides half-close, back pressure and wake-ups, and the memory of a channel is bounded: what a reader
//! has not taken stays in the pair, then in [`Flow::pending`], then in the channel's window, then on the dock.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes from the dock to a local reader.
pub(super) struct Flow {
    /// The thread's end of the pair; for stdout it is the one that stdin is read from.
    pub(super) local: UnixStream,
    /// Bytes that were read from the channel and that the reader has not taken yet: at most one read.
    pending: Vec<u8>,
    sent: usize,
    /// How many bytes came from the channel.
    pub(super) count: u64,
    /// The channel brings no more.
    pub(super) ended: bool,
    /// Nothing more is delivered: the reader was given the end, or has gone.
    pub(super) done: bool,
    /// The reader has gone: what comes is thrown away, so that the dock is not held up.
    pub(super) discarded: bool,
    /// Tells the reader that its end of file came from the dock, and not from a broken link.
    pub(super) clean: Arc<AtomicBool>,
}

impl Flow {
    pub(super) fn new() -> io::Result<(Self, UnixStream)> {
        let (local, given) = UnixStream::pair()?;
        local.set_nonblocking(true)?;
        given.set_nonblocking(true)?;
        let flow = Self {
            local,
            pending: Vec::new(),
            sent: 0,
            count: 0,
            ended: false,
            done: false,
            discarded: false,
            clean: Arc::new(AtomicBool::new(false)),
        };
        Ok((flow, given))
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.sent < self.pending.len()
    }

    pub(super) fn discard(&mut self) {
        self.discarded = true;
        self.pending = Vec::new();
        self.sent = 0;
    }

    /// Writes as much as the reader takes; the rest is kept.
    pub(super) fn deliver(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.discarded {
            match (&self.local).write(rest) {
                Ok(0) => self.discard(),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pending = rest.to_vec();
                    self.sent = 0;
                    return;
                }
                // The reader is gone.
                Err(_) => self.discard(),
            }
        }
    }

    /// Delivers bytes that came without being requested, after what is kept already.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if !self.is_blocked() {
            return self.deliver(bytes);
        }
        // Bytes that were taken must not pile up in the buffer if the reader never takes everything.
        self.pending.drain(..self.sent);
        self.sent = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// How many bytes wait for the reader.
    pub(super) fn kept(&self) -> usize {
        self.pending.len() - self.sent
    }

    /// Delivers more of what was kept; true if some of it was taken.
    pub(super) fn flush(&mut self) -> bool {
        let mut progress = false;
        while let Some(rest) = self.pending.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match (&self.local).write(rest) {
                Ok(count) if count > 0 => {
                    self.sent += count;
                    progress = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return progress,
                _ => self.discard(),
            }
        }
        if !self.pending.is_empty() {
            self.pending = Vec::new();
            self.sent = 0;
        }
        progress
    }

    /// Gives the reader the end, once everything was delivered; true if that happened now.
    pub(super) fn finish(&mut self) -> bool {
        if self.done || !self.ended || self.is_blocked() {
            return false;
        }
        self.clean.store(true, Ordering::Release);
        let _ = self.local.shutdown(Shutdown::Write);
        self.done = true;
        true
    }
}
