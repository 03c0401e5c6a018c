//! A port of this machine's loopback addresses that leads to a port on the dock.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dock_client::agent::target::Target;
use dock_client::agent::{forwarded_here, paths};
use dock_client::env::Env;
use dock_client::hexadecimal;
use dock_client::listening;
use dock_client::text::visible;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::link::{Link, OpenOptions, Over, ended};
use crate::log::Log;
use crate::service::Streams;
use crate::transport::{Connection, Connector, Duplex, TransportError, TransportErrorKind};

/// How many numbers above the wanted one are tried.
const TRIES: u16 = 200;
/// Ports below this need special rights on most systems.
const FIRST_FREE: u16 = 1024;
/// Added to a number that needs special rights: 80 becomes 8080, and 443 becomes 8443.
const HIGHER: u16 = 8000;
/// Where rows of free numbers are looked for; NodePorts of Kubernetes begin at the end of it.
const ROWS: std::ops::Range<u16> = 20_000..30_000;
/// Numbers in there at which well-known servers listen: somebody may start one here later.
const KNOWN: [u16; 12] = [
    20_880, 22_000, 24_224, 25_565, 25_672, 26_257, 26_379, 27_015, 27_017, 27_018, 27_019, 28_015,
];
/// How many random places are tried.
const ROW_TRIES: usize = 50;
/// How long a connection waits for a link that is being restored.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long connections may go on when their container has ended: its last output may still be under way.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long to leave a port alone when this process has no descriptors left.
const SURFEIT: Duration = Duration::from_millis(100);
/// A connection that was silent for this long is checked for a sign of life: a peer that has half-closed it and is gone
/// is not noticed otherwise.
const SILENCE: Duration = Duration::from_secs(60);
/// How many bytes are moved at once in each direction.
const BUFFER: usize = 64 * 1024;

/// The port that was found for a listener.
pub(super) struct BoundPort {
    /// Its number.
    pub(super) port: u16,
    /// Why it has another number than the wanted one.
    pub(super) reason: Option<String>,
    listeners: Vec<TcpListener>,
}

/// Finds a port with this number, or the next one that is free and not `spoken_for`. Below 1024 is where this machine's
/// own services are expected: such a port is only used if it was `asked` for by name, whatever rights there are. `own`
/// is this agent's engine socket.
///
/// # Errors
/// If no port is free.
pub(super) async fn find(
    wanted: u16,
    asked: bool,
    own: &Path,
    env: &Env,
    spoken_for: impl Fn(u16) -> bool,
) -> io::Result<BoundPort> {
    let is_low = wanted < FIRST_FREE;
    let listening = match is_low && !asked {
        true => Err(io::ErrorKind::Unsupported.into()),
        false => listen(wanted).await,
    };
    let cause = match listening {
        Ok(listeners) => {
            return Ok(BoundPort {
                port: wanted,
                reason: None,
                listeners,
            });
        }
        Err(cause) => cause,
    };
    let (reason, from) = match cause.kind() {
        io::ErrorKind::Unsupported if is_low && !asked => (
            format!("{wanted} is below 1024, which is opened here only where it is asked for by name"),
            wanted + HIGHER,
        ),
        io::ErrorKind::PermissionDenied => (
            format!("port {wanted} needs rights here"),
            // Without these rights, all ports below 1024 fail.
            if wanted < FIRST_FREE { wanted + HIGHER } else { wanted },
        ),
        io::ErrorKind::AddrInUse => {
            let by = match forwarded_here(wanted, &others(own), env).await {
                // The process that listens is an agent like this one, which would not help the user.
                Some((dock, container)) => format!(" by {} of dock {}", visible(&container), visible(&dock)),
                None => {
                    // This inspects every process.
                    let owner = tokio::task::spawn_blocking(move || listening::process_of(wanted)).await;
                    let owner = owner.ok().flatten();
                    owner.map(|(pid, name)| format!(" by {pid}/{name}")).unwrap_or_default()
                }
            };
            (format!("{wanted} is taken here{by}"), wanted)
        }
        _ => return Err(cause),
    };
    for port in (from..=from.saturating_add(TRIES)).filter(|port| *port != wanted && !spoken_for(*port)) {
        if let Ok(listeners) = listen(port).await {
            return Ok(BoundPort {
                port,
                reason: Some(reason),
                listeners,
            });
        }
    }
    Err(io::Error::other(reason))
}

/// Finds this many numbers in a row that are free here, and gives the first. They are where neither this system nor the
/// dock's takes numbers for connections that go out (those begin at 32768 on Linux, and at 49152 elsewhere), at a random
/// place, so that the agents of two docks do not find the same. `None` if there are none.
pub(super) async fn free_row(length: u16) -> Option<u16> {
    let places = ROWS.end.checked_sub(ROWS.start)?.checked_sub(length)?;
    for _ in 0..ROW_TRIES {
        let random = u16::from_str_radix(&hexadecimal::random::<2>().ok()?, 16).ok()?;
        let first = ROWS.start + random % (places + 1);
        let row = first..first + length;
        if !KNOWN.iter().any(|port| row.contains(port)) && all_are_free(row).await {
            return Some(first);
        }
    }
    None
}

async fn all_are_free(row: std::ops::Range<u16>) -> bool {
    for port in row {
        if listen(port).await.is_err() {
            return false;
        }
    }
    true
}

/// The engine sockets of the other agents beside this one.
fn others(own: &Path) -> Vec<PathBuf> {
    let mut sockets = own.parent().map(paths::engine_sockets).unwrap_or_default();
    sockets.retain(|socket| socket != own);
    sockets
}

/// Listens on both loopback addresses, as an engine would: browsers try IPv6 first if a name is `localhost`.
async fn listen(port: u16) -> io::Result<Vec<TcpListener>> {
    #[cfg(not(target_os = "linux"))]
    {
        // On these systems, a single address can be bound even if another process listens on all addresses.
        let looking = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        if matches!(timeout(SURFEIT, looking).await, Ok(Ok(_))) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
    }
    let mut listeners = vec![TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), port)).await?];
    match TcpListener::bind((IpAddr::V6(Ipv6Addr::LOCALHOST), port)).await {
        Ok(listener) => listeners.push(listener),
        // `localhost` would lead to another program.
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => return Err(cause),
        // A machine without IPv6.
        Err(_) => {}
    }
    Ok(listeners)
}

/// A listener that is open. Dropping it closes it soon after.
pub(super) struct Listener {
    close: oneshot::Sender<()>,
    closed: oneshot::Receiver<()>,
}

impl Listener {
    /// Opens one.
    pub(super) fn open<C: Connector>(
        found: BoundPort,
        target: (String, u16),
        link: Link<C>,
        streams: Arc<Streams>,
        log: Log,
    ) -> Self {
        let (close, closing) = oneshot::channel();
        let (has_closed, closed) = oneshot::channel();
        tokio::spawn(async move {
            let way = Arc::new(ListenerTarget {
                target,
                link,
                streams,
                log,
            });
            let mut passing = JoinSet::new();
            let listeners = found.listeners;
            tokio::select! {
                () = let_in(&listeners, &way, &mut passing) => {}
                // Told to close, or dropped.
                _ = closing => {}
            }
            drop(listeners);
            let _ = has_closed.send(());
            let leaving = async { while passing.join_next().await.is_some() {} };
            // The connections that are left are cut.
            let _ = timeout(LAST_WORDS, leaving).await;
        });
        Self { close, closed }
    }

    /// Closes it; its number is free after that. Connections that are open go on for some seconds.
    pub(super) async fn close(self) {
        drop(self.close);
        let _ = self.closed.await;
    }
}

/// Where a listener leads, and how.
struct ListenerTarget<C: Connector> {
    target: (String, u16),
    link: Link<C>,
    streams: Arc<Streams>,
    log: Log,
}

/// Accepts connections, for ever.
async fn let_in<C: Connector>(listeners: &[TcpListener], way: &Arc<ListenerTarget<C>>, passing: &mut JoinSet<()>) {
    loop {
        let accepted = tokio::select! {
            accepted = accept(listeners) => accepted,
            // Connections that have ended are forgotten at once, so that memory stays flat.
            Some(_) = passing.join_next() => continue,
        };
        match accepted {
            Ok(stream) => {
                let way = Arc::clone(way);
                passing.spawn(async move { way.pass(stream).await });
            }
            Err(cause) => {
                way.log.line(format!("a connection to a port can't be taken: {cause}"));
                tokio::time::sleep(SURFEIT).await;
            }
        }
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<TcpStream> {
    match listeners {
        [one, other, ..] => tokio::select! {
            accepted = one.accept() => accepted,
            accepted = other.accept() => accepted,
        },
        [one] => one.accept().await,
        [] => std::future::pending().await,
    }
    .map(|(stream, _)| stream)
}

impl<C: Connector> ListenerTarget<C> {
    async fn pass(&self, stream: TcpStream) {
        let _open = self.streams.begin(false);
        prepare(&stream);
        let (host, port) = self.target.clone();
        let options = OpenOptions {
            arrival: Instant::now(),
            patience: PATIENCE,
            answers: false,
        };
        let target = Target::Tcp { host, port };
        let opening = self.link.open(options, &target);
        let opened = tokio::select! {
            opened = opening => opened,
            // The client may leave while it waits.
            () = left(&stream) => return,
        };
        match opened {
            Ok((Connection { stream: far, .. }, over)) => join(stream, far, over).await,
            Err(error) => {
                self.tell(&error);
                reset(&stream);
            }
        }
    }

    fn tell(&self, error: &TransportError) {
        // That nothing listens inside is between the container and its user; a browser tries again and again.
        if error.kind != TransportErrorKind::Refused {
            self.log.line(format!("a connection to a port was refused: {error}"));
        }
    }
}

/// Has a connection that is to be joined with one on the dock send without delay, and notice a peer that is gone.
pub(crate) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, SILENCE);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
}

/// Joins a connection here with one on the dock until both directions have ended, or the link is over; what did not end
/// well is a broken connection here, too.
pub(crate) async fn join(mut stream: TcpStream, far: Box<dyn Duplex>, mut over: Over) {
    let whole = {
        let (from_here, to_here) = stream.split();
        let (from_far, to_far) = tokio::io::split(far);
        tokio::select! {
            whole = both(from_here, to_here, from_far, to_far) => whole,
            _ = ended(&mut over) => false,
        }
    };
    if !whole {
        reset(&stream);
    }
}

/// Waits until the other side has broken its connection. A side that has only closed its sending half is not gone.
async fn left(stream: &TcpStream) {
    loop {
        match stream.ready(tokio::io::Interest::ERROR).await {
            Ok(ready) if !ready.is_error() => {}
            _ => return,
        }
        tokio::time::sleep(SURFEIT).await;
    }
}

/// Lets the other side see a broken connection, not a regular end: what it received is incomplete.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Moves bytes both ways; each direction ends by itself. Returns whether both ended well.
async fn both(
    mut from_here: impl AsyncRead + Unpin,
    mut to_here: impl AsyncWrite + Unpin,
    mut from_far: impl AsyncRead + Unpin,
    mut to_far: impl AsyncWrite + Unpin,
) -> bool {
    let out = async {
        let end = copy(&mut from_here, &mut to_far).await;
        let _ = to_far.shutdown().await;
        // A dock that takes no more may still send.
        !matches!(end, CopyEnd::Source)
    };
    let back = async {
        let end = copy(&mut from_far, &mut to_here).await;
        matches!(end, CopyEnd::Well) && to_here.shutdown().await.is_ok()
    };
    tokio::pin!(out, back);
    tokio::select! {
        // A client that has broken off receives nothing any more.
        spoken = &mut out => spoken && back.await,
        heard = &mut back => heard && out.await,
    }
}

enum CopyEnd {
    /// The end was reached.
    Well,
    /// The side that was read from broke.
    Source,
    /// The side that was written to takes no more.
    Sink,
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> CopyEnd {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => return CopyEnd::Well,
            Ok(read) => read,
            Err(_) => return CopyEnd::Source,
        };
        let written = async {
            to.write_all(buffer.get(..read).unwrap_or_default()).await?;
            to.flush().await
        };
        if written.await.is_err() {
            return CopyEnd::Sink;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_row_of_free_numbers_has_none_that_is_taken() {
        let (mut taken, mut listeners) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let first = free_row(16).await.unwrap();
            assert!(ROWS.contains(&first) && ROWS.contains(&(first + 15)), "{first}");
            for port in first..first + 16 {
                assert!(!taken.contains(&port), "{port}");
            }
            // Every 32nd of the numbers is taken from now on.
            if taken.is_empty() {
                for port in ROWS.step_by(32) {
                    taken.push(port);
                    listeners.extend(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
                }
            }
        }
        assert_eq!(free_row(20_000).await, None);
    }
}
