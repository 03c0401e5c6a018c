//! The way of bytes from a channel to its reader here: one end of a Unix socket pair.
//!
//! So half-close, back pressure and waking up are the kernel's, and the memory of a channel is bounded: what a reader has
//! not taken stays in the pair, then in [`Flow::pending`], then in the channel's window, then on the dock.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes from the dock to a reader here.
pub(super) struct Flow {
    /// The thread's end of the pair; for stdout it is the one that stdin is read from.
    pub(super) local: UnixStream,
    /// What was read from the channel and not yet taken: at most one read.
    pending: Vec<u8>,
    sent: usize,
    /// How many bytes came.
    pub(super) count: u64,
    /// The channel has no more for it.
    pub(super) ended: bool,
    /// Nothing more is delivered: the end was told, or nobody listens.
    pub(super) done: bool,
    /// Nobody listens: what comes is thrown away, so that the far side can go on.
    pub(super) discarded: bool,
    /// Tells the reader that its end of file is the far side's, and no broken link.
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

    /// Writes what the reader takes; the rest is kept.
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

    /// Delivers what came unasked for, behind what is kept already.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if !self.is_blocked() {
            return self.deliver(bytes);
        }
        // What was taken already must not pile up in front of a reader who never takes all.
        self.pending.drain(..self.sent);
        self.sent = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// How many bytes wait for the reader.
    pub(super) fn kept(&self) -> usize {
        self.pending.len() - self.sent
    }

    /// Goes on with what was kept; true when some of it was taken.
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

    /// Tells the reader the end, once all was delivered; true when it was told now.
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
