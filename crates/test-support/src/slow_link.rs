//! A slow link to a TCP address: a proxy on 127.0.0.1 that delays and paces bytes, counts them, and can be cut.
//!
//! `tc netem` is not in every kernel; this works everywhere, without special rights. Each byte arrives half a round
//! trip after it was sent, and all connections share the link's capacity, which each direction has for itself.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutex::lock;

/// How many bytes are read at once.
const CHUNK: usize = 64 * 1024;
/// How many bytes may be under way in one direction of one connection: more than any bandwidth-delay product of ours.
const UNDER_WAY: usize = 16 * 1024 * 1024;

/// A link that lasts until this is dropped; then its connections are closed.
#[derive(Debug)]
pub struct SlowLink {
    address: SocketAddr,
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    to: SocketAddr,
    delay: Duration,
    /// Bytes a second; `None` for no limit.
    rate: Option<u64>,
    state: Mutex<LinkState>,
    changed: Condvar,
    there: Direction,
    back: Direction,
}

#[derive(Debug, Default)]
struct LinkState {
    cut: bool,
    over: bool,
    connections: Vec<TcpStream>,
}

#[derive(Debug, Default)]
struct Direction {
    bytes: AtomicU64,
    /// When the used capacity is free again.
    free_at: Mutex<Option<Instant>>,
}

impl SlowLink {
    /// A link to this address with this round trip, and with this capacity in bits a second if there is a limit.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(to: SocketAddr, round_trip: Duration, bits_per_second: Option<u64>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let link = Arc::new(Link {
            to,
            delay: round_trip / 2,
            rate: bits_per_second.map(|bits| bits / 8),
            state: Mutex::default(),
            changed: Condvar::new(),
            there: Direction::default(),
            back: Direction::default(),
        });
        let accepting = Arc::clone(&link);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if accepting.state().over {
                    return;
                }
                let link = Arc::clone(&accepting);
                thread::spawn(move || link.carry(near));
            }
        });
        Ok(Self { address, link })
    }

    /// The address at which the link begins.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes were sent to the link's other end, and how many came back.
    pub fn bytes(&self) -> (u64, u64) {
        let count = |direction: &Direction| direction.bytes.load(Ordering::Relaxed);
        (count(&self.link.there), count(&self.link.back))
    }

    /// Pulls the cable: nothing arrives any more, and no error is reported.
    pub fn cut(&self) {
        self.link.state().cut = true;
    }

    /// Plugs the cable in again: what was under way goes on.
    pub fn mend(&self) {
        self.link.state().cut = false;
        self.link.changed.notify_all();
    }

    /// Breaks every connection, as a router does that forgets them. New ones go through.
    pub fn drop_connections(&self) {
        for connection in self.link.state().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.link.state().over = true;
        self.link.changed.notify_all();
        self.drop_connections();
        // Wakes the thread that accepts connections.
        let _ = TcpStream::connect(self.address);
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, LinkState> {
        lock(&self.state)
    }

    /// Waits until the cable is plugged in; false if the link is over.
    fn whole(&self) -> bool {
        let waiting = self.changed.wait_while(self.state(), |state| state.cut && !state.over);
        !waiting.unwrap_or_else(PoisonError::into_inner).over
    }

    fn carry(self: Arc<Self>, near: TcpStream) {
        // Connecting takes a round trip, and the first bytes take another.
        if !self.whole() {
            return;
        }
        thread::sleep(self.delay * 2);
        // Dropping the client's connection tells it that nothing listens.
        let Ok(far) = TcpStream::connect(self.to) else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let Ok([near_copy, far_copy, near_kept, far_kept]) = copies(&near, &far) else {
            return;
        };
        self.state().connections.extend([near_kept, far_kept]);
        let link = Arc::clone(&self);
        let back = thread::spawn(move || link.copy(far_copy, near_copy, &link.back));
        self.copy(near, far, &self.there);
        let _ = back.join();
    }

    /// Copies one direction up to its end, and passes the end on.
    fn copy(&self, mut from: TcpStream, mut to: TcpStream, direction: &Direction) {
        let queue = Queue::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = vec![0; CHUNK];
                loop {
                    let read = from.read(&mut buffer).unwrap_or(0);
                    let chunk = buffer.get(..read).unwrap_or_default().to_vec();
                    if !queue.push(Instant::now(), chunk) || read == 0 {
                        return;
                    }
                }
            });
            loop {
                let (sent_at, chunk) = queue.pop();
                sleep_until(self.arrival(sent_at, chunk.len(), direction));
                if !self.whole() || chunk.is_empty() {
                    break;
                }
                // Before the bytes are written: a client that has its answer must find all of them counted.
                direction.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                if to.write_all(&chunk).is_err() {
                    break;
                }
            }
            queue.close();
            let _ = to.shutdown(Shutdown::Write);
        });
    }

    /// When the last byte of a chunk that was sent at `sent_at` arrives.
    fn arrival(&self, sent_at: Instant, length: usize, direction: &Direction) -> Instant {
        let Some(rate) = self.rate else {
            return sent_at + self.delay;
        };
        let takes = Duration::from_secs_f64(length as f64 / rate as f64);
        let mut free_at = lock(&direction.free_at);
        let done = free_at.map_or(sent_at, |at| at.max(sent_at)) + takes;
        *free_at = Some(done);
        done + self.delay
    }
}

fn copies(near: &TcpStream, far: &TcpStream) -> io::Result<[TcpStream; 4]> {
    Ok([near.try_clone()?, far.try_clone()?, near.try_clone()?, far.try_clone()?])
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// Bytes under way, with the time when they were sent; an empty chunk is the end.
#[derive(Default)]
struct Queue {
    inner: Mutex<Chunks>,
    changed: Condvar,
}

#[derive(Default)]
struct Chunks {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// Waits for room; false if the reader has gone.
    fn push(&self, sent_at: Instant, chunk: Vec<u8>) -> bool {
        let inner = lock(&self.inner);
        let room = self
            .changed
            .wait_while(inner, |inner| inner.bytes > UNDER_WAY && !inner.closed);
        let mut inner = room.unwrap_or_else(PoisonError::into_inner);
        inner.bytes += chunk.len();
        inner.chunks.push_back((sent_at, chunk));
        self.changed.notify_all();
        !inner.closed
    }

    fn pop(&self) -> (Instant, Vec<u8>) {
        let mut inner = lock(&self.inner);
        loop {
            if let Some((sent_at, chunk)) = inner.chunks.pop_front() {
                inner.bytes -= chunk.len();
                self.changed.notify_all();
                return (sent_at, chunk);
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        lock(&self.inner).closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Sends each connection what it receives, and ends when the client does.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream).map(|_| stream.shutdown(Shutdown::Write)));
            }
        });
        address
    }

    fn answer(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
        stream.write_all(bytes).unwrap();
        let mut answer = vec![0; bytes.len()];
        stream.read_exact(&mut answer).unwrap();
        answer
    }

    #[test]
    fn bytes_take_a_round_trip_and_are_counted() {
        let link = SlowLink::start(echo(), Duration::from_millis(100), None).unwrap();
        let mut stream = TcpStream::connect(link.address()).unwrap();
        answer(&mut stream, b"warm");
        let began = Instant::now();
        assert_eq!(answer(&mut stream, b"hello"), b"hello");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(100), "{took:?}");
        assert_eq!(link.bytes(), (9, 9));
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "the end goes through");
    }

    #[test]
    fn a_limit_is_kept() {
        let link = SlowLink::start(echo(), Duration::ZERO, Some(8_000_000)).unwrap();
        let mut stream = TcpStream::connect(link.address()).unwrap();
        let began = Instant::now();
        answer(&mut stream, &vec![7; 300_000]);
        assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    }

    #[test]
    fn a_cut_link_is_silent_and_goes_on_when_mended() {
        let link = SlowLink::start(echo(), Duration::ZERO, None).unwrap();
        let mut stream = TcpStream::connect(link.address()).unwrap();
        answer(&mut stream, b"1");
        link.cut();
        let (heard, hearing) = mpsc::channel();
        let mut other = stream.try_clone().unwrap();
        thread::spawn(move || heard.send(answer(&mut other, b"2")));
        assert!(hearing.recv_timeout(Duration::from_millis(200)).is_err());
        link.mend();
        assert_eq!(hearing.recv_timeout(Duration::from_secs(5)).unwrap(), b"2");
        link.drop_connections();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
        answer(&mut TcpStream::connect(link.address()).unwrap(), b"3");
    }
}
