//! The way to a dock's engine: forwarding to its socket, or docker's own client there if sshd forbids forwarding.
//!
//! sshd gives no reason when it does not open a socket. So if that fails, a short command on the dock finds out why.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dock_client::agent::target::{Exec, RemoteCommand};
use dock_client::shell;
use dock_link::transport::{Connection, TransportError, TransportErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::SshTransport;
use super::news::Forbidden;

/// How long that command may take: it calls docker's client, which may wait for an engine that hangs.
const LOOK: Duration = Duration::from_secs(20);

/// How long it may take to find out the user's groups.
const GROUPS: Duration = Duration::from_secs(5);

/// The line after which docker's client begins its output.
const BEGIN: &str = "dockerutils-begins-here";

/// How many bytes a login shell may print before that line.
const NOISE: usize = 64 * 1024;

/// The most that the command prints, in bytes.
const PRINTED: u64 = 16 * 1024;

/// Prints what can be found out about the socket `$1`: lines of `key=value`.
const SCRIPT: &str = r#"s=$1; echo "user=$(id -un)"; echo "groups=$(id -Gn)"; echo "listed=$(id -Gn "$(id -un)")"; test -e "$s" && echo exists=yes; test -S "$s" && echo socket=yes; test -r "$s" && test -w "$s" && echo access=yes; ls -ldL "$s" 2>/dev/null | while read -r m n o g r; do echo "owner=$o"; echo "group=$g"; done; if command -v docker >/dev/null 2>&1; then echo client=yes; docker -H "unix://$s" version >/dev/null 2>&1 </dev/null && echo answers=yes; fi; echo end=yes"#;

/// How the engine is reached on one link.
pub(super) struct EnginePath {
    socket: String,
    /// sshd forbids forwarding to sockets, and docker's client there works.
    by_client: AtomicBool,
    /// Held by the caller that finds out why forwarding failed: one run is enough for all.
    looking: Mutex<()>,
    /// The user may not use the socket, with the groups that this login has: a login keeps the groups that it began
    /// with.
    is_denied: AtomicBool,
}

impl EnginePath {
    pub(super) fn new(socket: String) -> Self {
        Self {
            socket,
            by_client: AtomicBool::new(false),
            looking: Mutex::new(()),
            is_denied: AtomicBool::new(false),
        }
    }

    /// Opens a connection to the engine.
    pub(super) async fn open(&self, transport: &SshTransport) -> Result<Connection, TransportError> {
        if self.by_client.load(Ordering::Acquire) {
            return self.dial_stdio(transport).await;
        }
        if let Some(connection) = transport.socket(&self.socket).await? {
            return Ok(connection);
        }
        {
            let _one_looks = self.looking.lock().await;
            if !self.by_client.load(Ordering::Acquire) {
                self.look(transport).await?;
                transport.news.note(Forbidden::Socket(self.socket.clone()));
                self.by_client.store(true, Ordering::Release);
            }
        }
        self.dial_stdio(transport).await
    }

    /// Connects through docker's own client there, which carries the stream between its stdin and stdout and the
    /// engine.
    async fn dial_stdio(&self, transport: &SshTransport) -> Result<Connection, TransportError> {
        let socket = format!("unix://{}", self.socket);
        let begin = r#"echo "$0"; exec "$@""#;
        let argv = [
            "sh",
            "-c",
            begin,
            BEGIN,
            "docker",
            "-H",
            &socket,
            "system",
            "dial-stdio",
        ];
        let Connection { mut stream, exec } = transport.execute(command(&argv)).await?;
        // The login shell may have printed something of its own first.
        let skipped = timeout(LOOK, skip_noise(&mut stream)).await;
        if !matches!(skipped, Ok(Ok(()))) {
            return Err(transport.refused(
                "its login shell does not start docker's client, which would reach the engine",
                Some(&format!("see what it prints: ssh {}", transport.name)),
            ));
        }
        if let Some(mut side) = exec {
            // The client's own messages are of no use to the program that speaks to the engine; unread, they would
            // block it.
            tokio::spawn(async move {
                let mut unheard = [0; 1024];
                while matches!(side.stderr.read(&mut unheard).await, Ok(count) if count > 0) {}
                let _ = side.exit.await;
            });
        }
        Ok(Connection { stream, exec: None })
    }

    /// Finds out why the socket could not be opened. `Ok` if it is because sshd forbids it, and docker's client works.
    async fn look(&self, transport: &SshTransport) -> Result<(), TransportError> {
        let facts = match timeout(LOOK, self.facts(transport)).await {
            Ok(facts) => facts?,
            Err(_) => {
                return Err(transport.refused(
                    &format!("its engine at {} does not answer", self.socket),
                    Some("on the dock: systemctl status docker"),
                ));
            }
        };
        let denied = facts.contains_key("socket") && !facts.contains_key("access");
        self.is_denied.store(denied, Ordering::Release);
        explain(&facts, &self.socket, &transport.name)
    }

    /// Why another login may have access where this one has not: the user is by now in groups that this login is not
    /// in.
    pub(super) async fn outdated(&self, transport: &SshTransport) -> Option<String> {
        if !self.is_denied.load(Ordering::Acquire) {
            return None;
        }
        let facts = timeout(GROUPS, self.facts(transport)).await.ok()?.ok()?;
        let new = new_groups(&facts);
        (!new.is_empty()).then(|| format!("the user is in {} by now, and this login is not", new.join(", ")))
    }

    async fn facts(&self, transport: &SshTransport) -> Result<BTreeMap<String, String>, TransportError> {
        let argv = ["sh", "-c", SCRIPT, "sh", &self.socket];
        let connection = transport.execute(command(&argv)).await?;
        let mut stream = connection.stream;
        let mut printed = Vec::new();
        let read = (&mut stream as &mut (dyn AsyncRead + Send + Unpin))
            .take(PRINTED)
            .read_to_end(&mut printed)
            .await;
        read.map_err(|error| transport.refused(&error.to_string(), None))?;
        Ok(parse(&String::from_utf8_lossy(&printed)))
    }
}

/// Reads up to the line [`BEGIN`], and nothing of what follows it.
async fn skip_noise(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let end = [BEGIN.as_bytes(), b"\n"].concat();
    let mut printed = Vec::new();
    while !printed.ends_with(&end) {
        if printed.len() > NOISE {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        printed.push(stream.read_u8().await?);
    }
    Ok(())
}

fn command(argv: &[&str]) -> Exec {
    Exec {
        command: RemoteCommand::Argv(argv.iter().map(|&word| word.to_owned()).collect()),
        pty: None,
    }
}

fn parse(printed: &str) -> BTreeMap<String, String> {
    let pairs = printed.lines().filter_map(|line| line.split_once('='));
    // The text comes from the dock: it must not move the cursor.
    let clean = |text: &str| text.trim().chars().filter(|c| !c.is_control()).collect::<String>();
    pairs.map(|(key, value)| (clean(key), clean(value))).collect()
}

/// The groups that the user is in and this login is not: a login keeps those that it began with.
fn new_groups(facts: &BTreeMap<String, String>) -> Vec<&str> {
    let of = |key: &str| {
        facts
            .get(key)
            .map(String::as_str)
            .unwrap_or_default()
            .split_whitespace()
    };
    of("listed")
        .filter(|group| !of("groups").any(|has| has == *group))
        .collect()
}

/// Why the socket was not opened, and what helps; `Ok` if docker's client can be used instead.
fn explain(facts: &BTreeMap<String, String>, socket: &str, name: &str) -> Result<(), TransportError> {
    let has = |key: &str| facts.contains_key(key);
    let fact = |key: &str| facts.get(key).map(String::as_str).unwrap_or_default();
    let of_kind = |kind, message: String, hint: String| {
        Err(TransportError {
            message,
            hint: Some(hint),
            kind,
        })
    };
    let error = |message, hint| of_kind(TransportErrorKind::Refused, message, hint);
    let denied = |message, hint| of_kind(TransportErrorKind::Denied, message, hint);
    if has("answers") {
        return Ok(());
    }
    if !has("end") {
        return error(
            format!("{name} cannot open {socket}, and runs no commands that would say why"),
            format!("on the dock: ls -l {}", shell::quote(socket)),
        );
    }
    let user = match fact("user") {
        "" => "the user",
        user => user,
    };
    if !has("exists") {
        return error(
            format!("{name} has no engine socket {socket}"),
            "on the dock: sudo systemctl start docker; where the socket is another, say so: register-dock \
             --docker-socket PATH"
                .to_owned(),
        );
    }
    if !has("socket") {
        return error(
            format!("{socket} on {name} is no socket"),
            "name the engine's socket: register-dock --docker-socket PATH".to_owned(),
        );
    }
    if !has("access") {
        let message = format!(
            "user {user} may not use the engine of {name}: {socket} is for {} and group {}",
            fact("owner"),
            fact("group")
        );
        let group = match fact("group") {
            "root" | "wheel" | "" => {
                return denied(
                    message,
                    format!(
                        "on the dock: sudo groupadd -f docker && sudo usermod -aG docker {} && sudo systemctl restart docker",
                        shell::quote(user)
                    ),
                );
            }
            group => group,
        };
        if new_groups(facts).contains(&group) {
            return denied(message, "the user is in that group by now: run it again".to_owned());
        }
        return denied(
            message,
            format!(
                "on the dock: sudo usermod -aG {} {}; then run it again",
                shell::quote(group),
                shell::quote(user)
            ),
        );
    }
    if has("client") {
        return error(
            format!("the engine of {name} does not answer at {socket}"),
            "on the dock: sudo systemctl restart docker; journalctl -u docker says why it ended".to_owned(),
        );
    }
    error(
        format!(
            "sshd of {name} does not forward to {socket}: it forbids it, or no engine answers there; and there is no docker \
             client that could"
        ),
        "on the dock, as root: put `AllowStreamLocalForwarding yes` into /etc/ssh/sshd_config, then `systemctl reload ssh`"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(printed: &str) -> Option<String> {
        let result = explain(&parse(printed), "/var/run/docker.sock", "bob@dock");
        result
            .err()
            .map(|error| format!("{error}\n{}", error.hint.as_deref().unwrap_or_default()))
    }

    #[test]
    fn each_cause_has_its_mend() {
        let of = |printed: &str| hint(printed).unwrap_or_default();
        assert_eq!(
            hint("user=bob\nexists=yes\nsocket=yes\naccess=yes\nclient=yes\nanswers=yes\nend=yes"),
            None
        );
        let bob = "user=bob\ngroups=bob\nexists=yes\nsocket=yes\nowner=root\ngroup=docker\nclient=yes\nend=yes\n";
        assert!(of(bob).contains("sudo usermod -aG docker bob;"), "{}", of(bob));
        let kind = |printed: &str| {
            explain(&parse(printed), "/var/run/docker.sock", "bob@dock")
                .unwrap_err()
                .kind
        };
        assert_eq!(kind(bob), TransportErrorKind::Denied);
        assert_eq!(kind("user=bob\nend=yes"), TransportErrorKind::Refused);
        let since = bob.replace("groups=bob", "groups=bob\nlisted=bob docker");
        assert!(of(&since).contains("by now: run it again"), "{}", of(&since));
        assert!(new_groups(&parse(bob)).is_empty());
        let root = bob.replace("group=docker", "group=root");
        assert!(of(&root).contains("groupadd -f docker"), "{}", of(&root));
        assert!(of("user=bob\nend=yes").contains("systemctl start docker"));
        assert!(of("user=bob\nexists=yes\nend=yes").contains("is no socket"));
        let dead = "user=bob\nexists=yes\nsocket=yes\naccess=yes\nclient=yes\nend=yes";
        assert!(of(dead).contains("systemctl restart docker"));
        assert!(of(&dead.replace("client=yes\n", "")).contains("AllowStreamLocalForwarding yes"));
        assert!(of("").contains("runs no commands"));
    }

    #[test]
    fn a_dock_cannot_write_into_the_hint() {
        let bad = "user=$(reboot)\u{1b}[2J\nexists=yes\nsocket=yes\nowner=o\ngroup=docker\nend=yes\n";
        let text = hint(bad).unwrap();
        assert!(
            text.contains("docker '$(reboot)[2J'") && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[tokio::test]
    async fn what_a_login_shell_prints_is_none_of_the_engine_s() {
        let printed = format!("Welcome!\nnot {BEGIN} yet\n\x1b[1m{BEGIN}\nHTTP/1.1");
        let mut stream = printed.as_bytes();
        skip_noise(&mut stream).await.unwrap();
        assert_eq!(stream, b"HTTP/1.1");
        for printed in ["Welcome!\n".to_owned(), "x".repeat(2 * NOISE)] {
            assert!(skip_noise(&mut printed.as_bytes()).await.is_err());
        }
    }

    #[test]
    fn the_script_is_quoted_for_any_shell() {
        assert!(!SCRIPT.contains(['\'', '\\', '!', '\n']));
    }
}
