//! A port of this machine that leads to a server on a dock, by the dock's agent.
//!
//! It is open for as long as this process lives, whatever becomes of the link: a connection that comes while the link is away waits
//! for it, and the agent dials again for each.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::agent::target::Target;
use crate::agent::{Agent, CallOptions};
use crate::error::{Error, Result};
use crate::hint;
use dock_client::listening;

/// The number that is tried first; jupyter's own.
const FIRST: u16 = 8888;
/// How many numbers from there on are tried.
const TRIES: u16 = 200;
/// How long a port is left alone when this process has no descriptors left.
const SURFEIT: Duration = Duration::from_millis(100);
/// How many connections are open at the same time at most: a page of JupyterLab has some ten. More wait.
const CONNECTIONS: usize = 256;

/// A port of 127.0.0.1, open.
#[derive(Debug)]
pub(super) struct ServerPort {
    listener: TcpListener,
    pub(super) number: u16,
}

impl ServerPort {
    /// Opens the port that was asked for; else the last one, or the first one that is free.
    ///
    /// # Errors
    /// If that which was asked for is taken, or none is free.
    pub(super) async fn open(wanted: Option<u16>, last: Option<u16>) -> Result<Self> {
        if let Some(port) = wanted {
            return listen(port).await.map_err(|cause| taken(port, cause));
        }
        let mut cause = None;
        for port in last.into_iter().chain(FIRST..FIRST + TRIES) {
            match listen(port).await {
                Ok(open) => return Ok(open),
                Err(error) => cause = Some(error),
            }
        }
        let error = Error::failed(format!(
            "none of the ports {FIRST} to {} is free here",
            FIRST + TRIES - 1
        ));
        Err(match cause {
            Some(cause) => error.because(cause),
            None => error,
        }
        .hint("--port names another one; --port 0 takes any"))
    }

    /// Leads all connections to the target, for ever.
    pub(super) async fn serve(&self, agent: &Agent, target: &Target) -> Infallible {
        // Dropped with this, which cuts what is open.
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept(), if open.len() < CONNECTIONS => accepted,
                // Connections that have ended are forgotten at once, so that memory stays flat.
                Some(_) = open.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (agent, target) = (agent.clone(), target.clone());
                    open.spawn(async move { lead(stream, &agent, target).await });
                }
                Err(_) => tokio::time::sleep(SURFEIT).await,
            }
        }
    }
}

async fn listen(port: u16) -> io::Result<ServerPort> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let number = listener.local_addr()?.port();
    Ok(ServerPort { listener, number })
}

fn taken(port: u16, cause: io::Error) -> Error {
    if cause.kind() != io::ErrorKind::AddrInUse {
        return Error::failed(format!("port {port} can't be opened here")).because(cause);
    }
    let by = listening::process_of(port).map(|(pid, name)| format!(" by {pid}/{name}"));
    Error::failed(format!("port {port} is taken here{}", by.unwrap_or_default()))
        .hint(hint!("leave --port out, and the next one that is free is taken"))
}

/// Carries one connection to its end. That it could not be opened is seen by who asked as a connection that broke: a browser tries
/// again.
async fn lead(mut stream: TcpStream, agent: &Agent, target: Target) {
    let _ = stream.set_nodelay(true);
    // Questions are asked by who watches the server, once.
    match agent.try_open(target, &CallOptions::unattended()).await {
        Ok(Ok(mut far)) => {
            if tokio::io::copy_bidirectional(&mut stream, &mut far).await.is_err() {
                reset(&stream);
            }
        }
        Ok(Err(_)) | Err(_) => reset(&stream),
    }
}

/// Lets the other side see a broken connection, and not a regular end.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_only_where_it_was_asked_for() {
        let first = ServerPort::open(Some(0), None).await.unwrap();
        let error = ServerPort::open(Some(first.number), None).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("port {} is taken here", first.number)),
            "{error}"
        );
        let other = ServerPort::open(None, Some(first.number)).await.unwrap();
        assert_ne!(other.number, first.number);
        let free = first.number;
        drop(first);
        assert_eq!(ServerPort::open(None, Some(free)).await.unwrap().number, free);
    }
}
