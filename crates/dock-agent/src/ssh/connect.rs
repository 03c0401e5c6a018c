//! From a dock's access to an ssh session that is up: configuration, socket, handshake, host key, login. All of it
//! blocks, so it runs on the thread that the session will have.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dock_client::docks::SshAccess;
use dock_client::env::Env;
use dock_client::hint;
use dock_client::mutex::lock;
use dock_link::transport::{Asker, TransportError, TransportErrorKind};
use ssh2::{ErrorCode, MethodType, Session};
use tokio::sync::oneshot;

use super::auth::{Authenticator, Denial, Memory};
use super::dial::{Socket, dial};
use super::greeting;
use super::handle::{Handle, sides};
use super::host_key::HostKeys;
use super::openssh;
use super::resolve::{Resolved, resolve};
use super::session::{self, Keepalive};

/// How long sshd may take for each answer of handshake and login, unless ConnectTimeout is set.
const ANSWER: Duration = Duration::from_secs(30);

/// For how long a session is tried again that sshd closes before its banner: sshd does so beyond its MaxStartups.
const STARTUPS: Duration = Duration::from_secs(20);

/// A sign of life is asked for after this long a silence, unless ServerAliveInterval says otherwise.
const ALIVE: Duration = Duration::from_secs(15);

/// Everything that connecting needs, each time anew.
pub(super) struct Plan {
    pub(super) access: SshAccess,
    pub(super) env: Env,
    pub(super) memory: Memory,
    /// The program that OpenSSH's client starts to ask the user; `None` for this very program.
    pub(super) asking: Option<PathBuf>,
    /// OpenSSH's client could log in where libssh2 could not: so it is tried first.
    pub(super) by_openssh: AtomicBool,
    /// What sshd forbids is tried again after this long.
    pub(super) ask_again: Duration,
}

/// A session, and what was found out on the way.
pub(super) struct Connected {
    pub(super) handle: Handle,
    pub(super) resolved: Resolved,
}

/// Ends a thread's waiting when its result is not needed any more.
#[derive(Default)]
pub(super) struct Cancel {
    state: Mutex<(bool, Option<OwnedFd>)>,
}

impl Cancel {
    fn cancel(&self) {
        let mut state = lock(&self.state);
        state.0 = true;
        if let Some(socket) = &state.1 {
            // The thread's next read or write ends at once.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
    }

    fn watch(&self, socket: OwnedFd) {
        lock(&self.state).1 = Some(socket);
    }

    /// From now on, the session itself closes the socket.
    fn release(&self) {
        lock(&self.state).1 = None;
    }

    pub(super) fn is_cancelled(&self) -> bool {
        lock(&self.state).0
    }
}

struct CancelOnDrop(Arc<Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Connects on a thread of its own, which becomes the session's. Dropping this future ends the attempt.
pub(super) async fn connect(plan: Arc<Plan>, asker: Arc<dyn Asker>) -> Result<Connected, TransportError> {
    let cancel = Arc::new(Cancel::default());
    let guard = CancelOnDrop(Arc::clone(&cancel));
    let (done, connected) = oneshot::channel();
    let spawned = thread::Builder::new()
        .name(format!("ssh {}", plan.access.host))
        .spawn(move || {
            let established = establish(&plan, &asker, &cancel);
            cancel.release();
            let stood = established.and_then(|(established, resolved)| {
                let (handle, looped) = established
                    .stand()
                    .map_err(|error| failed(&resolved, &error.to_string()))?;
                Ok((Connected { handle, resolved }, looped))
            });
            match stood {
                Ok((connected, looped)) => {
                    // If the caller has gone, the handle is dropped here, and that ends the loop.
                    let _ = done.send(Ok(connected));
                    match looped {
                        Looped::Libssh2(looped) => looped.run(),
                        Looped::Openssh(looped) => looped.run(),
                    }
                }
                Err(error) => {
                    let _ = done.send(Err(error));
                }
            }
        });
    let lost = |why: &str| TransportError {
        message: format!("cannot connect: {why}"),
        hint: None,
        kind: TransportErrorKind::Unreachable,
    };
    spawned.map_err(|error| lost(&error.to_string()))?;
    let result = connected
        .await
        .unwrap_or_else(|_| Err(lost("the thread of the session ended")));
    drop(guard);
    result
}

fn failed(resolved: &Resolved, what: &str) -> TransportError {
    TransportError {
        message: format!("cannot connect to {}: {what}", resolved.name()),
        hint: None,
        kind: TransportErrorKind::Unreachable,
    }
}

/// A session that is logged in, with either implementation.
enum EstablishedSession {
    Libssh2(session::Established),
    Openssh(openssh::Established),
}

enum Looped {
    Libssh2(Box<session::Loop>),
    Openssh(Box<openssh::Loop>),
}

impl EstablishedSession {
    fn stand(self) -> io::Result<(Handle, Looped)> {
        let (handle, inbox) = sides()?;
        let looped = match self {
            Self::Libssh2(established) => Looped::Libssh2(Box::new(established.stand(inbox))),
            Self::Openssh(established) => Looped::Openssh(Box::new(established.stand(inbox))),
        };
        Ok((handle, looped))
    }
}

fn establish(
    plan: &Plan,
    asker: &Arc<dyn Asker>,
    cancel: &Cancel,
) -> Result<(EstablishedSession, Resolved), TransportError> {
    let resolved = resolve(&plan.access, &plan.env)?;
    let config = &resolved.config;
    plan.memory
        .belong_to(&format!("{}@{} {}", config.user, config.hostname, config.port));
    let by_openssh = || openssh::establish(plan, &resolved, asker, cancel);
    // KnownHostsCommand: a program says which host keys are valid, and only OpenSSH's client runs it.
    if resolved.config.has_known_hosts_command {
        return by_openssh().map(|established| (EstablishedSession::Openssh(established), resolved));
    }
    let host_keys = HostKeys::read(&resolved)?;
    if resolved.has_ssh && host_keys.foreign(&resolved)?.is_some() {
        return by_openssh().map(|established| (EstablishedSession::Openssh(established), resolved));
    }
    if plan.by_openssh.load(Ordering::Acquire) {
        let result = by_openssh();
        if matches!(&result, Err(error) if error.kind == TransportErrorKind::NeedsPerson) {
            // Next time, there may be a key that libssh2 can use.
            plan.by_openssh.store(false, Ordering::Release);
        }
        return result.map(|established| (EstablishedSession::Openssh(established), resolved));
    }
    let denial = match establish_by_libssh2(plan, &resolved, &host_keys, asker.as_ref(), cancel) {
        Ok(established) => return Ok((EstablishedSession::Libssh2(established), resolved)),
        Err(denial) => denial,
    };
    if denial.foreign.is_empty() || !resolved.has_ssh {
        return Err(denial.error);
    }
    match by_openssh() {
        Ok(established) => {
            plan.by_openssh.store(true, Ordering::Release);
            Ok((EstablishedSession::Openssh(established), resolved))
        }
        Err(error) => Err(TransportError {
            message: format!("{}; tried because of {}", error.message, denial.foreign.join(", ")),
            hint: error.hint.or(denial.error.hint),
            kind: error.kind,
        }),
    }
}

fn establish_by_libssh2(
    plan: &Plan,
    resolved: &Resolved,
    host_keys: &HostKeys,
    asker: &dyn Asker,
    cancel: &Cancel,
) -> Result<session::Established, Denial> {
    let agent = asker.ssh_auth_sock();
    let begun = Instant::now();
    let mut pause = Duration::from_millis(50);
    let mut disagreed = false;
    let (session, socket) = loop {
        if cancel.is_cancelled() {
            return Err(failed(resolved, "nobody waits for it any more").into());
        }
        let socket = dial(resolved, &plan.access, agent.as_ref())?;
        let descriptor = socket
            .descriptor()
            .map_err(|error| failed(resolved, &error.to_string()))?;
        cancel.watch(descriptor);
        match handshake(resolved, host_keys, socket)? {
            Handshake::Done(session, socket) => break (*session, socket),
            // A link that ends at this moment looks the same; only a second try can distinguish them.
            Handshake::Disagreed(error) if std::mem::replace(&mut disagreed, true) => return Err(error.into()),
            Handshake::Disagreed(_) => {}
            Handshake::Closed(what) if begun.elapsed() > STARTUPS || what.is_some() => {
                let what = what.unwrap_or_else(|| "sshd closes the connection before it says anything".to_owned());
                return Err(failed(resolved, &what).into());
            }
            Handshake::Closed(_) => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    };
    let key = session.host_key().map(|(key, _)| key.to_vec());
    let key = key.ok_or_else(|| failed(resolved, "sshd shows no host key"))?;
    host_keys.check(&key, resolved, asker)?;
    Authenticator {
        session: &session,
        resolved,
        access: &plan.access,
        asker,
        memory: &plan.memory,
        tried: Vec::new(),
        mends: Vec::new(),
        foreign: Vec::new(),
        notes: String::new(),
    }
    .run()?;
    let descriptor = socket
        .descriptor
        .map_err(|error| failed(resolved, &error.to_string()))?;
    let config = &resolved.config;
    Ok(session::Established {
        session,
        socket: descriptor,
        carrier: socket.carrier,
        keepalive: Keepalive {
            interval: config.alive_interval.unwrap_or(ALIVE),
            count: config.alive_count.max(1),
        },
        name: resolved.name(),
    })
}

/// What remains of a socket that libssh2 has taken.
struct Carried {
    descriptor: io::Result<OwnedFd>,
    carrier: Option<Box<dyn Send>>,
}

enum Handshake {
    Done(Box<Session>, Carried),
    /// sshd closed the connection before its banner. With a proxy, its last output.
    Closed(Option<String>),
    /// The key exchange failed: sshd and this side have no common algorithm, or the link ended meanwhile.
    Disagreed(TransportError),
}

fn handshake(resolved: &Resolved, host_keys: &HostKeys, socket: Socket) -> Result<Handshake, TransportError> {
    let config = &resolved.config;
    let error = |error: &ssh2::Error| failed(resolved, error.message());
    let mut session = Session::new().map_err(|it| error(&it))?;
    let limit = config.connect_timeout.unwrap_or(ANSWER);
    session.set_timeout(u32::try_from(limit.as_millis()).unwrap_or(u32::MAX));
    session.set_compress(config.compression);
    prefer(&session, resolved, host_keys)?;
    let descriptor = socket.descriptor();
    if let Ok(descriptor) = &descriptor {
        greeting::skip(descriptor, limit).map_err(|no_sshd| failed(resolved, &no_sshd.to_string()))?;
    }
    let proxy = match socket {
        Socket::Tcp(stream) => {
            session.set_tcp_stream(stream);
            None
        }
        Socket::Proxy(stream, proxy) => {
            session.set_tcp_stream(stream);
            Some(proxy)
        }
    };
    match session.handshake() {
        Ok(()) => Ok(Handshake::Done(
            Box::new(session),
            Carried {
                descriptor,
                carrier: proxy.map(|proxy| Box::new(proxy) as Box<dyn Send>),
            },
        )),
        Err(failure) => {
            let said = proxy.map(|proxy| proxy.said()).filter(|said| !said.is_empty());
            let silent = session.banner().is_none();
            match failure.code() {
                // No banner, or the socket closed while waiting for it.
                ErrorCode::Session(-2 | -7 | -13 | -43) if silent => {
                    Ok(Handshake::Closed(said.map(|said| format!("the proxy says: {said}"))))
                }
                ErrorCode::Session(-9 | -30) => Err(failed(
                    resolved,
                    &format!("sshd does not answer within {} s", limit.as_secs()),
                )),
                ErrorCode::Session(-5 | -8) => Ok(Handshake::Disagreed(TransportError {
                    message: format!(
                        "cannot agree with sshd of {} on how to encrypt: {}",
                        resolved.name(),
                        failure.message()
                    ),
                    hint: Some(hint!(
                        "see what either side allows: ssh -vv {} 2>&1 | grep -A9 KEXINIT",
                        resolved.given
                    )),
                    kind: TransportErrorKind::NeedsPerson,
                })),
                _ => Err(error(&failure)),
            }
        }
    }
}

/// Tells libssh2 which methods the configuration allows, fast ones first.
fn prefer(session: &Session, resolved: &Resolved, host_keys: &HostKeys) -> Result<(), TransportError> {
    let config = &resolved.config;
    // libssh2 hands AES to its library 16 bytes at a time, and ChaCha20 a packet at a time, which takes two thirds of
    // the processor's time. Both ciphers authenticate what they encrypt.
    let fast = [
        "chacha20-poly1305@openssh.com",
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
    ];
    let ciphers = match config.ciphers.as_slice() {
        [] => [fast.as_slice(), &["aes128-ctr", "aes192-ctr", "aes256-ctr"]].concat(),
        allowed => {
            let mut ciphers: Vec<&str> = allowed.iter().map(String::as_str).collect();
            ciphers.sort_by_key(|cipher| fast.iter().position(|name| name == cipher).unwrap_or(fast.len()));
            ciphers
        }
    }
    .join(",");
    let set = |methods: &[MethodType], option: &str, names: &str| {
        for method in methods {
            if !names.is_empty() && session.method_pref(*method, names).is_err() {
                return Err(TransportError {
                    message: format!("{option} of the ssh configuration has nothing this program supports: {names}"),
                    hint: Some(hint!(
                        "add one of OpenSSH's defaults to {} for {}",
                        option,
                        resolved.given
                    )),
                    kind: TransportErrorKind::NeedsPerson,
                });
            }
        }
        Ok(())
    };
    set(&[MethodType::CryptCs, MethodType::CryptSc], "Ciphers", &ciphers)?;
    set(&[MethodType::MacCs, MethodType::MacSc], "MACs", &config.macs.join(","))?;
    set(&[MethodType::Kex], "KexAlgorithms", &config.kex.join(","))?;
    set(
        &[MethodType::HostKey],
        "HostKeyAlgorithms",
        &host_keys.algorithms(resolved),
    )?;
    let compression = match config.compression {
        true => "zlib@openssh.com,zlib,none",
        false => "none",
    };
    set(&[MethodType::CompCs, MethodType::CompSc], "Compression", compression)
}
