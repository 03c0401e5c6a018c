//! `--bind ADDR`: a listener on an address of this machine, for others on its network; and what a user needs who came here by
//! ssh.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;

/// So many ports after the first are tried if that is taken.
const PORTS: u16 = 50;
/// The most connections that are passed at the same time: a page opens about ten.
const CONNECTIONS: usize = 256;
/// The pause after a connection that could not be taken.
const SHORTAGE: Duration = Duration::from_millis(100);
/// The port of sshd where nothing else is said.
const SSH: &str = "22";

/// A listener on an address of this machine that passes connections on to a port of its 127.0.0.1.
#[derive(Debug)]
pub struct BoundListener {
    listener: TcpListener,
    address: SocketAddr,
    /// The port of 127.0.0.1.
    to: u16,
}

impl BoundListener {
    /// Listens on this address and the same port as `to`, or one of the next if that is taken there: on every address at once,
    /// it is, by the port of 127.0.0.1 itself.
    ///
    /// # Errors
    /// An address that is not this machine's, and ports that are all taken.
    pub async fn bind(address: IpAddr, to: u16) -> Result<Self> {
        let failed = |cause: io::Error| {
            Error::failed(format!("nothing can listen on {address} for --bind"))
                .because(cause)
                .hint("name an address of this machine: ip -brief address")
        };
        for port in (to..=to.saturating_add(PORTS)).chain([0]) {
            match TcpListener::bind((address, port)).await {
                Ok(listener) => {
                    let address = listener.local_addr().map_err(failed)?;
                    return Ok(Self { listener, address, to });
                }
                Err(cause) if port > 0 && is_about_port(&cause) => {}
                Err(cause) => return Err(failed(cause)),
            }
        }
        Err(failed(io::ErrorKind::AddrInUse.into()))
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the user should know.
    pub fn warning(&self) -> String {
        let Self { address, .. } = self;
        match address.ip() {
            ip if ip.is_loopback() => format!("{address} leads to the notebook, too: for users of this machine"),
            ip => {
                let which = match ip.is_unspecified() {
                    true => "on any network that this machine is on",
                    false => "that reaches this address",
                };
                format!(
                    "{address} leads to the notebook for every machine {which}, and the token crosses the network unencrypted: who \
                     reads it runs code as you; ssh -L is safer"
                )
            }
        }
    }

    /// Passes connections on, until this is dropped.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut passing = JoinSet::new();
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                // The machine is short of descriptors, or the other side has gone.
                Err(_) => {
                    drop(place);
                    tokio::time::sleep(SHORTAGE).await;
                    continue;
                }
            };
            let to = self.to;
            passing.spawn(async move {
                let _place = place;
                pass(stream, to).await;
            });
            while passing.try_join_next().is_some() {}
        }
    }
}

/// Passes one connection on, to its end.
async fn pass(mut stream: TcpStream, to: u16) {
    let Ok(mut notebook) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else {
        return;
    };
    // Kernels' messages are small, and a person waits for them.
    let _ = stream.set_nodelay(true).and_then(|()| notebook.set_nodelay(true));
    // Either side may go at any time.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut notebook).await;
}

/// Whether another port may be free, or allowed.
fn is_about_port(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// What a user who came to this shell by ssh types on the machine in front of them, so that the port here is one there; `None`
/// for a shell that did not come so.
pub fn ssh_line(env: &Env, port: u16) -> Option<String> {
    // sshd: the client's address and port, and the address and port by which it came.
    let connection = env.non_empty("SSH_CONNECTION")?;
    let mut fields = connection.split_whitespace().skip(2);
    let (host, sshd) = (fields.next()?, fields.next()?);
    host.parse::<IpAddr>().ok()?;
    sshd.parse::<u16>().ok()?;
    let destination = format!("{}@{host}", env.user());
    let forward = format!("{port}:127.0.0.1:{port}");
    let sshd = if sshd == SSH {
        String::new()
    } else {
        format!("-p {sshd} ")
    };
    Some(hint!("ssh -N -L {} {sshd}{}", forward, destination; sshd = sshd))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Something that answers with what it gets, once the other side has said all.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut said = Vec::new();
                    stream.read_to_end(&mut said).await.unwrap();
                    stream.write_all(&said).await.unwrap();
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn connections_are_passed_on_until_the_listener_goes() {
        let to = echo().await;
        // 127.0.0.1 has it already.
        let listener = BoundListener::bind(Ipv4Addr::LOCALHOST.into(), to).await.unwrap();
        let address = listener.address();
        assert_ne!(address.port(), to);
        let serving = tokio::spawn(listener.serve());
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "hello");
        }
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn who_can_come_is_said_and_an_address_of_another_machine_is_refused() {
        let to = echo().await;
        let everywhere = BoundListener::bind(Ipv4Addr::UNSPECIFIED.into(), to).await.unwrap();
        assert!(
            everywhere.warning().contains("every machine on any network"),
            "{}",
            everywhere.warning()
        );
        let other = BoundListener::bind("192.0.2.1".parse().unwrap(), to).await.unwrap_err();
        assert!(other.to_string().contains("nothing can listen on 192.0.2.1"), "{other}");
    }

    #[test]
    fn a_shell_that_came_by_ssh_gets_the_line_for_the_way_back() {
        let line = |connection: &str, user: &str| {
            ssh_line(
                &Env::from_pairs([("SSH_CONNECTION", connection), ("LOGNAME", user)]),
                8888,
            )
        };
        assert_eq!(
            line("10.0.0.2 51000 10.0.0.9 22", "ann").as_deref(),
            Some("ssh -N -L 8888:127.0.0.1:8888 ann@10.0.0.9")
        );
        assert_eq!(
            line("::1 1 fe80::1 2222", "a b").as_deref(),
            Some("ssh -N -L 8888:127.0.0.1:8888 -p 2222 'a b@fe80::1'")
        );
        for bad in ["", "10.0.0.2 51000", "a b $(touch) 22", "a b 10.0.0.1 x"] {
            assert_eq!(line(bad, "ann"), None, "{bad:?}");
        }
        assert_eq!(ssh_line(&Env::default(), 8888), None);
    }
}
