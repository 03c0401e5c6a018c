//! Whether an engine is on this machine. Secrets of the environment are sent to no other.
//!
//! An engine's description of itself can't be trusted: whoever sits behind a tunnel (`ssh -L`) can claim "Docker
//! Desktop", and this machine's memory size. So what counts first is what no remote engine can choose: which program of
//! this machine listens on the socket, and which user's it is. The engine's description must agree, too. In doubt it
//! counts as remote.

use std::path::{Path, PathBuf};

use bollard::models::SystemInfo;

use super::endpoint::{Choice, Endpoint, Origin};
use super::engine::Engine;
use super::stream::Dialer;
use crate::agent::Agent;
use crate::env::{Env, LOCAL_ENGINE};
use crate::output::visible;

/// The engines' own programs, as the kernel names them. Forwarders (`ssh`, `socat`, an agent) are not among them.
const ENGINES: [&str; 2] = ["dockerd", "podman"];
/// systemd listens for an engine that it starts (`dockerd -H fd://`), and for anything else that is configured.
const STARTER: &str = "systemd";
/// Docker Desktop's program, and the one that serves a WSL distribution; Linux cuts names after 15 bytes.
const DESKTOP: [&str; 3] = ["com.docker.backend", "com.docker.back", "docker-desktop-"];
/// What serves OrbStack's socket.
const ORBSTACK: [&str; 2] = ["OrbStack Helper", "OrbStack"];

/// Where an engine is, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    /// On this machine.
    Local,
    /// On another: the shell is docked.
    Docked,
}

/// Where an engine is, and why it is considered remote although its address looks local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityVerdict {
    /// Whether it counts as local.
    pub locality: Locality,
    /// Why it may be elsewhere; `None` if the address alone decides.
    pub doubt: Option<String>,
}

impl LocalityVerdict {
    const fn plain(locality: Locality) -> Self {
        Self { locality, doubt: None }
    }

    fn doubted(why: String) -> Self {
        Self {
            locality: Locality::Docked,
            doubt: Some(why),
        }
    }
}

/// Decides by the environment and the address alone, which is enough for names. Before sending anything that only an
/// engine of this machine may have, ask [`of`].
pub fn by_address(endpoint: &Endpoint, origin: &Origin, env: &Env) -> Locality {
    // `source dock` sets DOCKER_IP, whatever the address is.
    if env.non_empty("DOCKER_IP").is_some() && *origin == Origin::Host {
        return Locality::Docked;
    }
    if matches!(origin, Origin::Dock(_)) {
        return Locality::Docked;
    }
    match endpoint {
        // An agent's socket is here, but its engine is not: a docker context, or a pasted DOCKER_HOST, led here.
        Endpoint::Unix(socket) if Agent::is_engine_socket(socket) => Locality::Docked,
        Endpoint::Unix(_) => Locality::Local,
        Endpoint::Tcp { host, .. } if is_loopback(host) => Locality::Local,
        Endpoint::Tcp { .. } | Endpoint::Ssh { .. } => Locality::Docked,
    }
}

/// Where the engine is, without asking it: the answer of [`of`], unless only the engine's own words speak against this
/// machine. If nothing listens, the address alone decides. For `--dry-run`, which prints what a run would do.
pub async fn foreseen(choice: &Choice, env: &Env) -> LocalityVerdict {
    match seen(choice, env).await {
        Seen::Sure(standing) => standing,
        Seen::Nobody | Seen::Listens(_) => LocalityVerdict::plain(Locality::Local),
    }
}

/// Where the engine is. It counts as remote unless all that can be known speaks for this machine, and also if it does
/// not answer.
pub async fn of(engine: &Engine, env: &Env) -> LocalityVerdict {
    let kind = match seen(engine.choice(), env).await {
        Seen::Sure(standing) => return standing,
        Seen::Nobody => return LocalityVerdict::doubted("it is unknown who listens on its socket".to_owned()),
        Seen::Listens(kind) => kind,
    };
    let Ok(info) = engine.info().await else {
        return LocalityVerdict::doubted("it does not say what machine it is on".to_owned());
    };
    match agrees(kind, &info, &Machine::own().await) {
        Ok(()) => LocalityVerdict::plain(Locality::Local),
        Err(why) => LocalityVerdict::doubted(why),
    }
}

/// What can be seen of an engine from here.
enum Seen {
    /// Nothing more need be asked.
    Sure(LocalityVerdict),
    /// Nothing listens on its socket.
    Nobody,
    /// A program listens that may be an engine of this machine.
    Listens(EngineKind),
}

async fn seen(choice: &Choice, env: &Env) -> Seen {
    let Choice { endpoint, origin } = choice;
    if by_address(endpoint, origin, env) == Locality::Docked {
        return Seen::Sure(LocalityVerdict::plain(Locality::Docked));
    }
    // The user says so, for this one address.
    if env.non_empty(LOCAL_ENGINE) == Some(&endpoint.to_string()) {
        return Seen::Sure(LocalityVerdict::plain(Locality::Local));
    }
    let Endpoint::Unix(socket) = endpoint else {
        let doubt = "it is unknown who listens on a TCP port: it may be a tunnel";
        return Seen::Sure(LocalityVerdict::doubted(doubt.to_owned()));
    };
    let peer = match Dialer::new(endpoint.clone()).peer().await {
        Some((uid, Some(pid))) if pid > 0 => Peer {
            uid,
            program: program(pid).await,
        },
        Some((uid, _)) => Peer { uid, program: None },
        None => return Seen::Nobody,
    };
    match kind(&SocketOrigin::of(socket, env), &peer, own_user(), engine_runs) {
        Ok(kind) => Seen::Listens(kind),
        Err(why) => Seen::Sure(LocalityVerdict::doubted(why)),
    }
}

/// What listens on a socket: which user's, and which program, where it can be seen from here.
#[derive(Clone, Debug)]
struct Peer {
    uid: u32,
    program: Option<String>,
}

/// What is known of the path of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketOrigin {
    /// Where the system's service manager listens for an engine.
    Service,
    /// Docker Desktop's.
    Desktop,
    /// OrbStack's.
    OrbStack,
    /// Any other.
    Elsewhere,
}

impl SocketOrigin {
    fn of(socket: &Path, env: &Env) -> Self {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let found = real(socket);
        let is = |path: PathBuf| real(&path) == found;
        let home = env.home();
        if [".docker/desktop/docker.sock", ".docker/run/docker.sock"]
            .iter()
            .any(|path| is(home.join(path)))
        {
            return Self::Desktop;
        }
        if is(home.join(".orbstack/run/docker.sock")) {
            return Self::OrbStack;
        }
        let user = PathBuf::from(format!("/run/user/{}", own_user()));
        let services = [
            PathBuf::from("/var/run/docker.sock"),
            PathBuf::from("/run/docker.sock"),
            PathBuf::from("/run/podman/podman.sock"),
            user.join("docker.sock"),
            user.join("podman/podman.sock"),
        ];
        match services.into_iter().any(is) {
            true => Self::Service,
            false => Self::Elsewhere,
        }
    }
}

/// What an engine on this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EngineKind {
    /// It runs on this machine's kernel.
    Native,
    /// It runs in a virtual machine of this machine, which calls itself so.
    Virtual(&'static str),
}

/// What kind of engine this program serves on a socket of this place; the reason if it may lead anywhere.
fn kind(place: &SocketOrigin, peer: &Peer, user: u32, runs: impl Fn(&str, u32) -> bool) -> Result<EngineKind, String> {
    let Some(program) = peer.program.as_deref() else {
        return Err("what listens on its socket can't be seen from here".to_owned());
    };
    if peer.uid != 0 && peer.uid != user {
        return Err(format!(
            "another user of this machine listens on its socket (ID {})",
            peer.uid
        ));
    }
    let listed = |names: &[&str]| names.contains(&program);
    match place {
        _ if listed(&ENGINES) => Ok(EngineKind::Native),
        SocketOrigin::Service if program == STARTER && ENGINES.iter().any(|name| runs(name, peer.uid)) => {
            Ok(EngineKind::Native)
        }
        // In WSL it serves the system's own socket.
        SocketOrigin::Desktop | SocketOrigin::Service if listed(&DESKTOP) => Ok(EngineKind::Virtual("Docker Desktop")),
        SocketOrigin::OrbStack if listed(&ORBSTACK) => Ok(EngineKind::Virtual("OrbStack")),
        _ => Err(format!(
            "{} listens on its socket, and may lead anywhere",
            visible(program)
        )),
    }
}

/// This machine, as an engine on it would describe it.
#[derive(Clone, Debug, Default)]
struct Machine {
    kernel: String,
    name: String,
    memory: Option<i64>,
}

impl Machine {
    async fn own() -> Self {
        let uname = rustix::system::uname();
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            name: uname.nodename().to_string_lossy().into_owned(),
            memory: memory_total().await,
        }
    }
}

/// Whether what the engine says agrees with this machine. Any engine can claim that; one that does not is elsewhere.
fn agrees(kind: EngineKind, info: &SystemInfo, own: &Machine) -> Result<(), String> {
    let differs = |what: &str| Err(format!("it says that it has another {what} than this machine"));
    let memory = info.mem_total.zip(own.memory);
    match kind {
        EngineKind::Native => {
            if info.kernel_version.as_deref() != Some(&own.kernel) {
                return differs("kernel");
            }
            if memory.is_none_or(|(its, ours)| its != ours) {
                return differs("memory size");
            }
            if info.name.as_deref() != Some(&own.name) {
                return differs("host name");
            }
        }
        EngineKind::Virtual(system) => {
            if info.operating_system.as_deref() != Some(system) {
                return Err(format!("it does not say that it is {system}"));
            }
            // It has a part of this machine's memory.
            if memory.is_none_or(|(its, ours)| its > ours || its <= 0) {
                return Err("it says that it has more memory than this machine".to_owned());
            }
        }
    }
    Ok(())
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether a host is this machine, by its name or address alone.
pub(in crate::docker) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The name of the program that a process runs; `None` where it can't be seen from here.
async fn program(pid: i32) -> Option<String> {
    if cfg!(target_os = "macos") {
        let name = output("/bin/ps", &["-o", "comm=", "-p", &pid.to_string()]).await?;
        // Its whole path.
        return Path::new(&name).file_name()?.to_str().map(str::to_owned);
    }
    program_of(Path::new("/proc").join(pid.to_string()).as_path())
}

fn program_of(process: &Path) -> Option<String> {
    let name = std::fs::read_to_string(process.join("comm")).ok()?;
    Some(name.trim_end_matches('\n').to_owned())
}

/// Whether a program of this name runs as this user.
fn engine_runs(name: &str, uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            let file = entry.file_name();
            file.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .any(|entry| {
            entry.metadata().is_ok_and(|found| found.uid() == uid)
                && program_of(&entry.path()).is_some_and(|program| program == name)
        })
}

/// Bytes of memory as the kernel counts them; a native engine reads the same line.
async fn memory_total() -> Option<i64> {
    if cfg!(target_os = "macos") {
        return output("/usr/sbin/sysctl", &["-n", "hw.memsize"]).await?.parse().ok();
    }
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The output of a system's program.
async fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(5), output)
        .await
        .ok()?
        .ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dry_run_tells_by_what_listens_as_the_run_does() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let env = Env::from_pairs([("HOME", folder.path().to_str().unwrap())]);
        let choice = |endpoint| Choice {
            endpoint,
            origin: Origin::Host,
        };
        let here = choice(Endpoint::Unix(socket.clone()));
        // Nobody listens: the run would fail.
        assert_eq!(foreseen(&here, &env).await, LocalityVerdict::plain(Locality::Local));
        let _tunnel = tokio::net::UnixListener::bind(&socket).unwrap();
        let standing = foreseen(&here, &env).await;
        assert!(
            standing.locality == Locality::Docked && standing.doubt.is_some(),
            "{standing:?}"
        );
        let address = here.endpoint.to_string();
        let own = Env::from_pairs([("HOME", "/nowhere"), (LOCAL_ENGINE, address.as_str())]);
        assert_eq!(foreseen(&here, &own).await, LocalityVerdict::plain(Locality::Local));
        let port = choice(Endpoint::parse("tcp://127.0.0.1:1", &env).unwrap());
        assert_eq!(foreseen(&port, &env).await.locality, Locality::Docked);
    }

    #[test]
    fn the_address_tells_what_is_plain() {
        let env = Env::default();
        for (address, locality) in [
            ("unix:///var/run/docker.sock", Locality::Local),
            ("tcp://127.0.0.1:2375", Locality::Local),
            ("tcp://10.0.0.1:2375", Locality::Docked),
            ("ssh://box", Locality::Docked),
        ] {
            let endpoint = Endpoint::parse(address, &env).unwrap();
            assert_eq!(by_address(&endpoint, &Origin::Host, &env), locality, "{address}");
        }
        let docked = Env::from_pairs([("DOCKER_IP", "10.0.0.1")]);
        let endpoint = Endpoint::parse("unix:///x", &docked).unwrap();
        assert_eq!(by_address(&endpoint, &Origin::Host, &docked), Locality::Docked);
        let dock = Origin::Dock("far".into());
        assert_eq!(by_address(&endpoint, &dock, &env), Locality::Docked);
    }

    #[test]
    fn an_agent_s_socket_is_of_another_machine_however_it_was_chosen_and_whatever_the_environment_says() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".cache/dockerutils/run");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("0123456789abcdef.sock"), "").unwrap();
        std::os::unix::fs::symlink(
            directory.join("0123456789abcdef.sock"),
            home.path().join("innocent.sock"),
        )
        .unwrap();
        let own = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        let other = Env::from_pairs([("HOME", "/nowhere"), ("XDG_RUNTIME_DIR", "/nowhere/else")]);
        for env in [own, other] {
            for origin in [Origin::Default, Origin::Host, Origin::Context("far".into())] {
                for (socket, locality) in [
                    (directory.join("0123456789abcdef.sock"), Locality::Docked),
                    (home.path().join("innocent.sock"), Locality::Docked),
                    (
                        PathBuf::from("/run/user/7/dockerutils/0123456789abcdef.sock"),
                        Locality::Docked,
                    ),
                    (directory.join("docker.sock"), Locality::Local),
                    (PathBuf::from("/run/user/7/0123456789abcdef.sock"), Locality::Local),
                ] {
                    let endpoint = Endpoint::Unix(socket);
                    assert_eq!(by_address(&endpoint, &origin, &env), locality, "{endpoint} {env:?}");
                }
            }
        }
    }

    #[test]
    fn what_listens_decides_and_not_what_is_said() {
        let peer = |uid, program: &str| Peer {
            uid,
            program: Some(program).filter(|name| !name.is_empty()).map(str::to_owned),
        };
        let desktop = Some(EngineKind::Virtual("Docker Desktop"));
        let native = Some(EngineKind::Native);
        let cases = [
            (SocketOrigin::Service, peer(0, "dockerd"), native),
            (SocketOrigin::Elsewhere, peer(0, "dockerd"), native),
            (SocketOrigin::Elsewhere, peer(1000, "dockerd"), native),
            (SocketOrigin::Elsewhere, peer(1000, "podman"), native),
            // Whoever serves it, another user's may lead anywhere.
            (SocketOrigin::Elsewhere, peer(1001, "dockerd"), None),
            (SocketOrigin::Service, peer(1001, "dockerd"), None),
            // Of a process that is not among ours: a socket that was mounted into this container.
            (SocketOrigin::Service, peer(0, ""), None),
            // Started by the service manager, at its known path.
            (SocketOrigin::Service, peer(0, "systemd"), native),
            (SocketOrigin::Elsewhere, peer(0, "systemd"), None),
            // No engine of that user runs.
            (SocketOrigin::Service, peer(1000, "systemd"), None),
            (SocketOrigin::Desktop, peer(1000, "com.docker.backend"), desktop),
            (SocketOrigin::Desktop, peer(1000, "com.docker.back"), desktop),
            (SocketOrigin::Service, peer(0, "docker-desktop-"), desktop),
            (SocketOrigin::Elsewhere, peer(1000, "com.docker.backend"), None),
            (
                SocketOrigin::OrbStack,
                peer(1000, "OrbStack Helper"),
                Some(EngineKind::Virtual("OrbStack")),
            ),
            (SocketOrigin::Elsewhere, peer(1000, "OrbStack Helper"), None),
            // Tunnels, at whatever place: colima and lima use ssh, too.
            (SocketOrigin::Elsewhere, peer(1000, "ssh"), None),
            (SocketOrigin::Elsewhere, peer(0, "ssh"), None),
            (SocketOrigin::Service, peer(0, "ssh"), None),
            (SocketOrigin::Desktop, peer(1000, "ssh"), None),
            (SocketOrigin::Desktop, peer(1000, "dock-agent"), None),
            (SocketOrigin::Service, peer(0, "socat"), None),
            (SocketOrigin::Service, peer(0, "systemd-socket-"), None),
            (SocketOrigin::Elsewhere, peer(1000, "python3"), None),
        ];
        for (place, peer, expected) in cases {
            let found = kind(&place, &peer, 1000, |name, uid| (name, uid) == ("dockerd", 0));
            assert_eq!(found.ok(), expected, "{place:?} {peer:?}");
        }
    }

    #[test]
    fn what_an_engine_says_must_agree_with_this_machine() {
        let own = Machine {
            kernel: "6.1".into(),
            name: "here".into(),
            memory: Some(1000),
        };
        let info = |system: &str, kernel: &str, name: &str, memory: Option<i64>| SystemInfo {
            operating_system: Some(system.to_owned()),
            kernel_version: Some(kernel.to_owned()),
            name: Some(name.to_owned()),
            mem_total: memory,
            ..SystemInfo::default()
        };
        let desktop = EngineKind::Virtual("Docker Desktop");
        for (kind, info, expected) in [
            (EngineKind::Native, info("Debian", "6.1", "here", Some(1000)), true),
            (EngineKind::Native, info("Debian", "6.2", "here", Some(1000)), false),
            (EngineKind::Native, info("Debian", "6.1", "there", Some(1000)), false),
            (EngineKind::Native, info("Debian", "6.1", "here", Some(999)), false),
            (EngineKind::Native, info("Debian", "6.1", "here", None), false),
            (
                EngineKind::Native,
                info("Docker Desktop", "6.6-linuxkit", "docker-desktop", Some(900)),
                false,
            ),
            (
                desktop,
                info("Docker Desktop", "6.6-linuxkit", "docker-desktop", Some(900)),
                true,
            ),
            (
                desktop,
                info("Docker Desktop", "6.6-linuxkit", "docker-desktop", Some(1001)),
                false,
            ),
            (
                desktop,
                info("Docker Desktop", "6.6-linuxkit", "docker-desktop", None),
                false,
            ),
            (desktop, info("Debian", "6.1", "here", Some(1000)), false),
        ] {
            assert_eq!(agrees(kind, &info, &own).is_ok(), expected, "{kind:?} {info:?}");
        }
        let unknown = Machine { memory: None, ..own };
        assert!(agrees(EngineKind::Native, &info("Debian", "6.1", "here", Some(1000)), &unknown).is_err());
    }
}
