//! A port that sshd listens on for this machine (`tcpip-forward` of RFC 4254, 7.1), and where it really does.
//!
//! sshd says that all is well also where its `GatewayPorts` has it listen elsewhere than it was asked to: at loopback
//! (`no`, as it is unless somebody has changed it), or at all addresses of the dock (`yes`), where a network of strangers
//! reaches it. So it is tried before anything goes on to this machine: what connects on the dock to the address must come
//! in here, and what connects to the dock's loopback must not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dock_client::hexadecimal;
use dock_client::hint;
use dock_link::transport::{Connection, Listening, TransportError, TransportErrorKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::SshTransport;
use super::handle::{Ends, Handle, Notifier, Open, OpenError, Opened};
use super::news::Forbidden;
use super::stream::{connection, connection_on};

/// How many connections wait to be taken.
const WAITING: usize = 16;
/// How long a connection on the dock may take to come in here.
const PROBE: Duration = Duration::from_secs(5);
/// How long one that came in may take to say what it is.
const WORD: Duration = Duration::from_secs(1);
/// What on the dock has to be changed.
const SSHD: &str = "on the dock, as root: put `AllowTcpForwarding yes` and `GatewayPorts clientspecified` into \
                    /etc/ssh/sshd_config, then `systemctl reload ssh`; a new login follows it";

/// A port that sshd listens on, until this is dropped.
struct RemotePort {
    id: u64,
    notifier: Notifier,
}

impl Drop for RemotePort {
    fn drop(&mut self) {
        self.notifier.stop_listening(self.id);
    }
}

/// Where sshd listens, as connections on the dock show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Where it was asked to, and not at loopback.
    There,
    /// At all addresses.
    Everywhere,
    /// Only at loopback.
    Loopback,
    /// At neither.
    Nowhere,
    /// That can't be tried: sshd opens no connections.
    Unknown,
}

/// Has sshd listen at this address of the dock, which is not a loopback one, and nowhere else.
///
/// # Errors
/// [`TransportErrorKind::Forbidden`] if sshd's configuration does not let it.
pub(super) async fn listen(transport: &SshTransport, at: SocketAddr) -> Result<Listening, TransportError> {
    let handle = transport.sessions.main();
    let name = &transport.name;
    let (port, mut incoming) = match request(handle, at).await {
        Ok(listening) => listening,
        Err(OpenError::Denied(_)) => return Err(why_denied(transport, at).await),
        Err(OpenError::Unsupported) => {
            return Err(TransportError {
                message: format!("OpenSSH's own client, which holds the link to {name}, can't take back a port there"),
                hint: Some("log in by a key of your own that needs no such client: ssh-copy-id".to_owned()),
                kind: TransportErrorKind::Refused,
            });
        }
        Err(error) => return Err(transport.open_error(&format!("listen at {at}"), error)),
    };
    let found = find(handle, at, &mut incoming)
        .await
        .map_err(|error| transport.open_error(&format!("connect to {at}"), error))?;
    match verdict(found, at) {
        None => Ok(listening(port, incoming, handle)),
        Some((message, is_forbidden)) => {
            if is_forbidden {
                transport.news.note(Forbidden::Listening(at));
            }
            Err(TransportError {
                message: format!("sshd of {name} {message}"),
                hint: is_forbidden.then(|| SSHD.to_owned()),
                kind: match is_forbidden {
                    true => TransportErrorKind::Forbidden,
                    false => TransportErrorKind::Refused,
                },
            })
        }
    }
}

/// Whether sshd listens where it is asked to, on a login of its own.
pub(super) async fn is_allowed(handle: &Handle, at: SocketAddr) -> bool {
    match request(handle, at).await {
        Ok((_port, mut incoming)) => matches!(find(handle, at, &mut incoming).await, Ok(Found::There)),
        Err(_) => false,
    }
}

/// Asks sshd to listen.
async fn request(handle: &Handle, at: SocketAddr) -> Result<(RemotePort, mpsc::Receiver<Ends>), OpenError> {
    let (accepted, incoming) = mpsc::channel(WAITING);
    let open = Open::Listen {
        address: at.ip().to_string(),
        port: at.port(),
        accepted,
    };
    match handle.open(open).await? {
        Opened::Listening(id) => {
            let notifier = handle.notifier().clone();
            Ok((RemotePort { id, notifier }, incoming))
        }
        Opened::Channel(_) | Opened::Pong(_) => Err(OpenError::Failed("something else was opened".to_owned())),
    }
}

/// Finds out where sshd listens.
async fn find(handle: &Handle, at: SocketAddr, incoming: &mut mpsc::Receiver<Ends>) -> Result<Found, OpenError> {
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at.port());
    let there = comes_in(handle, at, incoming).await?;
    let by_loopback = comes_in(handle, loopback, incoming).await?;
    Ok(match (there, by_loopback) {
        (Some(true), Some(false)) => Found::There,
        (Some(true), Some(true)) => Found::Everywhere,
        (Some(false), Some(true)) => Found::Loopback,
        (Some(false), Some(false)) => Found::Nowhere,
        (None, _) | (_, None) => Found::Unknown,
    })
}

/// Whether what connects to this address on the dock comes in here; `None` if sshd opens no connections.
async fn comes_in(
    handle: &Handle,
    at: SocketAddr,
    incoming: &mut mpsc::Receiver<Ends>,
) -> Result<Option<bool>, OpenError> {
    let failed = |cause: &dyn std::fmt::Display| OpenError::Failed(cause.to_string());
    // Nobody on the dock can know it, so what says it is ours.
    let word = hexadecimal::random::<16>().map_err(|cause| failed(&cause))?;
    let trying = async {
        let ends = match handle.open(Open::Tcp(at.ip().to_string(), at.port())).await {
            Ok(Opened::Channel(ends)) => ends,
            Ok(_) | Err(OpenError::Failed(_)) => return Ok(Some(false)),
            Err(OpenError::Prohibited) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut out = connection(ends, handle, None).map_err(|cause| failed(&cause))?.stream;
        if out.write_all(word.as_bytes()).await.is_err() {
            return Ok(Some(false));
        }
        while let Some(ends) = incoming.recv().await {
            let mut came = connection(ends, handle, None).map_err(|cause| failed(&cause))?.stream;
            let mut said = vec![0; word.len()];
            let read = timeout(WORD, came.read_exact(&mut said)).await;
            if matches!(read, Ok(Ok(_))) && said == word.as_bytes() {
                return Ok(Some(true));
            }
            // Somebody on the dock was quicker, and is hung up on: nothing is open yet.
        }
        Ok(Some(false))
    };
    timeout(PROBE, trying).await.unwrap_or(Ok(Some(false)))
}

/// What is wrong with where sshd listens, and whether its configuration is what makes it so; `None` if nothing is.
fn verdict(found: Found, at: SocketAddr) -> Option<(String, bool)> {
    let port = at.port();
    match found {
        Found::There => None,
        Found::Loopback => Some((
            format!("listens only at the dock's own 127.0.0.1, and not at {at} (GatewayPorts no)"),
            true,
        )),
        Found::Everywhere => Some((
            format!("would open port {port} at all addresses of the dock, to its whole network (GatewayPorts yes)"),
            true,
        )),
        Found::Unknown => Some((
            format!("does not let it be seen where it listens: it opens no connection to {at}"),
            true,
        )),
        Found::Nowhere => Some((
            format!("says that it listens at {at}, but a connection to it does not come in here: is there a firewall?"),
            false,
        )),
    }
}

/// Why sshd does not listen, for which it gives no reason.
async fn why_denied(transport: &SshTransport, at: SocketAddr) -> TransportError {
    let handle = transport.sessions.main();
    let trying = handle.open(Open::Tcp(at.ip().to_string(), at.port()));
    let name = &transport.name;
    if let Ok(Ok(Opened::Channel(_))) = timeout(PROBE, trying).await {
        return TransportError {
            message: format!("{at} is taken on {name}"),
            hint: Some(hint!(
                "see who has it: on the dock, as root: ss -ltnp sport = :{}; an earlier link of yours, which was cut, keeps it \
                 until sshd notices (`ClientAliveInterval 15` in /etc/ssh/sshd_config)",
                at.port()
            )),
            kind: TransportErrorKind::Refused,
        };
    }
    transport.news.note(Forbidden::Listening(at));
    TransportError {
        message: format!("sshd of {name} does not listen at {at}: its configuration forbids it"),
        hint: Some(SSHD.to_owned()),
        kind: TransportErrorKind::Forbidden,
    }
}

/// Passes on what comes in, as long as it is wanted.
fn listening(port: RemotePort, mut incoming: mpsc::Receiver<Ends>, handle: &Handle) -> Listening {
    let (accepted, connections) = mpsc::channel::<Connection>(1);
    let (fate, notifier) = (handle.fate().clone(), handle.notifier().clone());
    tokio::spawn(async move {
        loop {
            let place = accepted.reserve().await;
            let next = tokio::select! {
                next = incoming.recv() => next,
                () = accepted.closed() => return,
            };
            let (Ok(place), Some(ends)) = (place, next) else {
                return;
            };
            if let Ok(connection) = connection_on(ends, &fate, &notifier, None) {
                place.send(connection);
            }
        }
    });
    Listening {
        connections,
        kept: Box::new(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_that_was_asked_for_will_do() {
        let at: SocketAddr = "172.17.0.1:5432".parse().unwrap();
        assert_eq!(verdict(Found::There, at), None);
        for (found, forbidden, part) in [
            (Found::Loopback, true, "GatewayPorts no"),
            (Found::Everywhere, true, "GatewayPorts yes"),
            (Found::Unknown, true, "opens no connection to 172.17.0.1:5432"),
            (Found::Nowhere, false, "firewall"),
        ] {
            let (message, is_forbidden) = verdict(found, at).unwrap();
            assert!(message.contains(part), "{message}");
            assert_eq!(is_forbidden, forbidden, "{message}");
        }
    }
}
