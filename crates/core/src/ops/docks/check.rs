//! What a person would look at when a dock does not work, in the order in which one thing needs the other, each with its
//! mend.

use std::time::Duration;

use serde::Serialize;

use super::{facts, remote_script, ssh_host};
use crate::agent::target::{Exit, Target};
use crate::agent::wire::FailureKind;
use crate::agent::{Agent, CallOptions};
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docker::connect::endpoint::Endpoint;
use crate::docks::{Access, Dock, Docks, SshAccess};
use crate::env::Env;
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::output::table::{Align, Table};
use crate::output::{size, visible};
use crate::shell;

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Seconds by which clocks may differ: more, and tokens and certificates begin to be refused.
const SKEW: f64 = 30.0;

/// Says who we are there and what stands between us and the engine. An ordinary user may ask for all of it.
pub(super) const LOOK: &str = r#"
echo "user=$(id -un)"
echo "groups=$(id -Gn)"
if [ -S "$1" ]; then echo socket=yes; else echo socket=no; fi
if [ -r "$1" ] && [ -w "$1" ]; then echo access=yes; else echo access=no; fi
echo "group=$(stat -L -c %G "$1" 2>/dev/null)"
if command -v dockerd >/dev/null 2>&1 || [ -x /usr/sbin/dockerd ] || [ -x /usr/bin/dockerd ]; then echo dockerd=yes; else echo dockerd=no; fi
if command -v systemctl >/dev/null 2>&1; then echo systemd=yes; else echo systemd=no; fi
"#;

/// Says the lines of sshd's configuration that are about forwarding, as far as the user may read them: `FILE:LINE:TEXT`.
const RULES: &str = r#"
for f in /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf; do
grep -inHE '^[[:space:]]*(DisableForwarding|AllowTcpForwarding|AllowStreamLocalForwarding|PermitOpen)[[:space:]=]' "$f" 2>/dev/null
done; true
"#;

/// What [`LOOK`] says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    user: String,
    groups: Vec<String>,
    socket: bool,
    access: bool,
    group: String,
    dockerd: bool,
    systemd: bool,
}

impl Look {
    pub(super) fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            visible(value.unwrap_or_default().trim())
        };
        Self {
            user: value("user"),
            groups: value("groups").split_whitespace().map(str::to_owned).collect(),
            socket: value("socket") == "yes",
            access: value("access") == "yes",
            group: value("group"),
            dockerd: value("dockerd") == "yes",
            systemd: value("systemd") == "yes",
        }
    }

    /// What is wrong, and the command on the dock that mends it.
    pub(super) fn trouble(&self, socket: &str) -> Option<(String, String)> {
        if self.access || self.user.is_empty() {
            return None;
        }
        if !self.socket {
            if !self.dockerd {
                return Some((
                    format!("there is no {socket}, and docker is not installed"),
                    "curl -fsSL https://get.docker.com | sudo sh".to_owned(),
                ));
            }
            let start = if self.systemd {
                "sudo systemctl enable --now docker"
            } else {
                "sudo service docker start"
            };
            return Some((
                format!("there is no {socket}: the engine does not run"),
                start.to_owned(),
            ));
        }
        // The group of root and of nobody's name would give more than the engine.
        let group = match self.group.as_str() {
            "" | "root" | "UNKNOWN" => "docker",
            group => group,
        };
        Some((
            format!("{} may not use {socket}: it is for the group {group}", self.user),
            format!("sudo usermod -aG {} {}", shell::quote(group), shell::quote(&self.user)),
        ))
    }
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// As it should be.
    Ok,
    /// Works, and will bite.
    Warning,
    /// Wrong.
    Wrong,
    /// Could not be looked at.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What: `name`, `route`, `host key`, `login`, `forwarding`, `ports`, `engine`, `group`, `gpu`, `clock`, `disk`.
    pub check: &'static str,
    /// How it is.
    pub verdict: CheckVerdict,
    /// What was found.
    pub detail: String,
    /// The command or edit that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// Looks at docks, one after the other: each may ask something.
///
/// # Errors
/// A damaged list, and a dock that is not there.
pub fn check(context: &Context, names: &[String]) -> Result<ExitStatus> {
    let (printer, env) = (&context.printer, &context.env);
    let found = Docks::read(env)?;
    let mut docks = Vec::new();
    for name in names {
        docks.push(found.get(name)?);
    }
    if docks.is_empty() {
        docks.push(match crate::docks::current(env) {
            Some(name) => found.get(name)?,
            None => {
                return Err(
                    Error::usage("which dock is to be checked? None is named, and this shell is not docked")
                        .hint(hint!("ls-dock --check {}", found.example())),
                );
            }
        });
    }
    if context.global.dry_run {
        let plan: Vec<String> = docks
            .iter()
            .map(|dock| format!("check {}", dock.access.place()))
            .collect();
        printer.plan(&plan)?;
        return Ok(ExitStatus::SUCCESS);
    }
    let mut status = ExitStatus::SUCCESS;
    let mut reports = Vec::new();
    for dock in docks {
        let findings = context.block_on(async { Ok(look(dock, env).await) })?;
        if findings.iter().any(|finding| finding.verdict == CheckVerdict::Wrong) {
            status = status.max(ExitStatus::FAILURE);
        }
        if !printer.json() {
            printer.result(&format!(
                "{} ({})",
                visible(&dock.moniker),
                visible(&dock.access.place())
            ));
            print(context, &findings);
        }
        reports.push(serde_json::json!({ "moniker": dock.moniker, "findings": findings }));
    }
    if printer.json() {
        printer.result_json(&reports)?;
    }
    Ok(status)
}

fn print(context: &Context, findings: &[Finding]) {
    let mut table = Table::new([("", Align::Left), ("", Align::Left), ("", Align::Left)]);
    for finding in findings {
        let word = match finding.verdict {
            CheckVerdict::Ok => "ok",
            CheckVerdict::Warning => "warning",
            CheckVerdict::Wrong => "WRONG",
            CheckVerdict::Unknown => "?",
        };
        table.row([format!("  {word}"), finding.check.to_owned(), visible(&finding.detail)]);
        if let Some(mend) = &finding.mend {
            table.row([String::new(), String::new(), format!("mend: {}", visible(mend))]);
        }
    }
    // The first line is the empty header.
    for line in table.lines().iter().skip(1) {
        context.printer.result(line);
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, verdict: CheckVerdict, detail: impl Into<String>, mend: Option<String>) {
        self.0.push(Finding {
            check,
            verdict,
            detail: detail.into(),
            mend,
        });
    }

    fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.add(check, CheckVerdict::Ok, detail, None);
    }

    fn wrong(&mut self, check: &'static str, error: &Error, mend: Option<&str>) {
        let mend = mend.or(error.hint_text()).map(str::to_owned);
        self.add(check, CheckVerdict::Wrong, told(error), mend);
    }
}

/// An error with its causes, on one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

async fn look(dock: &Dock, env: &Env) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    match &dock.access {
        Access::Ssh(ssh) => look_by_ssh(dock, ssh, env, &mut findings).await,
        Access::Tcp { .. } | Access::Context { .. } => {
            match dock_engine::choice(dock, env).map(|choice| choice.endpoint) {
                Ok(Endpoint::Tcp { host, port, .. }) => {
                    reach(&host, port, &mut findings).await;
                }
                Ok(_) => {}
                Err(error) => findings.wrong("name", &error, None),
            }
            look_at_engine(dock, env, &mut findings).await;
        }
    }
    findings.0
}

/// Whether the name means something, and somebody listens there.
async fn reach(host: &str, port: u16, findings: &mut Findings) -> bool {
    let addresses: Vec<std::net::SocketAddr> =
        match tokio::time::timeout(LIMIT, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(cause)) => {
                findings.add(
                    "name",
                    CheckVerdict::Wrong,
                    format!("{host} has no address: {cause}"),
                    Some("check its spelling in the list of docks and in ~/.ssh/config".to_owned()),
                );
                return false;
            }
            Err(_) => {
                findings.add(
                    "name",
                    CheckVerdict::Wrong,
                    format!("no name server has answered for {host}"),
                    Some("look at /etc/resolv.conf and your VPN".to_owned()),
                );
                return false;
            }
        };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    findings.ok("name", format!("{host} is {}", shown.join(", ")));
    let mut last = None;
    for address in &addresses {
        match tokio::time::timeout(LIMIT / 2, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                findings.ok("route", format!("{address} accepts connections"));
                return true;
            }
            Ok(Err(cause)) => last = Some(cause.to_string()),
            Err(_) => last = Some(format!("no answer within {} s", LIMIT.as_secs() / 2)),
        }
    }
    findings.add(
        "route",
        CheckVerdict::Wrong,
        format!("port {port} of {host}: {}", last.unwrap_or_default()),
        Some("check that the machine runs, and whether a firewall or a VPN is in between".to_owned()),
    );
    false
}

async fn look_by_ssh(dock: &Dock, ssh: &SshAccess, env: &Env, findings: &mut Findings) {
    let resolved = ssh_host::resolve(ssh, env).await;
    match &resolved {
        Ok(config) if config.proxy_jump.is_some() || config.proxy_command.is_some() => {
            findings.ok(
                "name",
                format!("{} is {}, behind a proxy of ~/.ssh/config", ssh.host, config.hostname),
            );
        }
        Ok(config) => {
            if !reach(&config.hostname, config.port, findings).await {
                return;
            }
        }
        Err(error) => findings.wrong("name", error, None),
    }
    let agent = match dock_engine::agent(dock, env) {
        Ok(Some(agent)) => agent,
        Ok(None) => return,
        Err(error) => return findings.wrong("login", &error, None),
    };
    let options = CallOptions::of_terminal().briefly();
    let login = agent.connect(&options).await;
    // Afterwards: it may have been asked about and written down just now.
    let keys = match &resolved {
        Ok(config) => ssh_host::known_keys(config, ssh, env),
        Err(_) => Vec::new(),
    };
    if keys.is_empty() {
        findings.add("host key", CheckVerdict::Unknown, "there is none in known_hosts", None);
    }
    for key in keys {
        findings.ok("host key", key);
    }
    if let Err(error) = login {
        return findings.wrong("login", &error, None);
    }
    let socket = ssh.engine_socket();
    let look = match remote_script::run(&agent, LOOK, &[socket], &options, LIMIT).await {
        Ok(output) if output.exit == Exit::Code(0) => Some(Look::parse(&output.stdout)),
        _ => None,
    };
    match &look {
        Some(look) => findings.ok("login", format!("as {}", look.user)),
        None => findings.add(
            "login",
            CheckVerdict::Warning,
            "logged in, but commands can't be run there",
            None,
        ),
    }
    look_at_forwarding(&agent, look.as_ref(), socket, &options, findings).await;
    let mut is_usable = true;
    if let Some(look) = &look {
        match look.trouble(socket) {
            Some((what, mend)) => {
                is_usable = false;
                findings.add(
                    if look.socket { "group" } else { "engine" },
                    CheckVerdict::Wrong,
                    what,
                    Some(on_dock(ssh, &mend)),
                );
            }
            None => findings.ok("group", format!("{} may use {socket}", look.user)),
        }
    }
    if is_usable {
        look_at_engine(dock, env, findings).await;
    }
    if look.is_some_and(|look| look.socket && !look.access) && !agent.is_in_use().await {
        // With rights that are given now, it must log in again.
        let _ = agent.stop().await;
    }
}

/// Whether sshd forwards to sockets, as the way to the engine needs, and to ports, as those of containers do.
async fn look_at_forwarding(
    agent: &Agent,
    look: Option<&Look>,
    socket: &str,
    options: &CallOptions,
    findings: &mut Findings,
) {
    let path = socket.to_owned();
    let to_socket = opens(agent, Target::Socket { path }, options).await;
    // sshd says nothing of why it does not open a socket. Where there is another way to the engine, it is that it must not.
    let sockets = match to_socket {
        None => Some(true),
        // That is said below, with its mend.
        Some(_) if look.is_some_and(|look| !look.access) => None,
        Some(_) => opens(agent, Target::Engine, options).await.is_none().then_some(false),
    };
    // Nobody needs to listen there: what counts is who refuses, sshd's configuration or the machine.
    let (host, port) = ("127.0.0.1".to_owned(), 22);
    let ports = match opens(agent, Target::Tcp { host, port }, options).await {
        None | Some(Some(FailureKind::Refused)) => Some(true),
        Some(Some(FailureKind::Forbidden)) => Some(false),
        Some(_) => None,
    };
    let rules = match (sockets, ports) {
        (Some(false), _) | (_, Some(false)) => match remote_script::run(agent, RULES, &[], options, LIMIT).await {
            Ok(output) => output.stdout,
            Err(_) => String::new(),
        },
        _ => String::new(),
    };
    let mend = || Some(forwarding_mend(sockets == Some(false), ports == Some(false), &rules));
    match sockets {
        Some(true) => findings.ok("forwarding", format!("sshd forwards to {socket}")),
        Some(false) => findings.add(
            "forwarding",
            CheckVerdict::Warning,
            "sshd forbids it: connections take the slower way through docker system dial-stdio",
            mend(),
        ),
        None => findings.add(
            "forwarding",
            CheckVerdict::Unknown,
            format!("sshd does not forward to {socket}, or nothing answers there"),
            None,
        ),
    }
    match ports {
        Some(true) => findings.ok("ports", "sshd forwards to ports"),
        Some(false) => findings.add(
            "ports",
            CheckVerdict::Warning,
            "sshd forbids it: ports of containers don't answer on this machine",
            mend(),
        ),
        None => findings.add("ports", CheckVerdict::Unknown, "no answer", None),
    }
}

/// Why a target can't be opened; `None` where it can. The inner one is none where nobody said why.
async fn opens(agent: &Agent, target: Target, options: &CallOptions) -> Option<Option<FailureKind>> {
    match tokio::time::timeout(LIMIT, agent.try_open(target, options)).await {
        Ok(Ok(Ok(_))) => None,
        Ok(Ok(Err(failure))) => Some(Some(failure.kind)),
        Ok(Err(_)) | Err(_) => Some(None),
    }
}

/// What makes sshd forward again. `rules` are the lines of its configuration that [`RULES`] found.
fn forwarding_mend(sockets: bool, ports: bool, rules: &str) -> String {
    let (wanted, found): (_, &[&str]) = match (sockets, ports) {
        // What is said of TCP holds for sockets, too.
        (true, true) => (
            "AllowTcpForwarding yes and AllowStreamLocalForwarding yes, and neither DisableForwarding nor PermitOpen; and in \
             ~/.ssh/authorized_keys there neither `restrict` nor `no-port-forwarding` nor `permitopen` before your key",
            &[
                "allowtcpforwarding",
                "allowstreamlocalforwarding",
                "disableforwarding",
                "permitopen",
            ],
        ),
        (true, false) => ("AllowStreamLocalForwarding yes", &["allowstreamlocalforwarding"]),
        _ => (
            "AllowTcpForwarding yes, and no PermitOpen that leaves 127.0.0.1 out",
            &["allowtcpforwarding", "permitopen"],
        ),
    };
    let rules: Vec<String> = rules
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (file, number, text) = (parts.next()?, parts.next()?, parts.next()?);
            let keyword = text.split_whitespace().next()?.to_ascii_lowercase();
            found
                .contains(&keyword.as_str())
                .then(|| format!("{file}:{number} says {}", text.trim()))
        })
        .collect();
    let now = match rules.as_slice() {
        [] => String::new(),
        rules => format!(" ({})", rules.join(", ")),
    };
    format!("in the dock's /etc/ssh/sshd_config: {wanted}{now}; then there: sudo systemctl reload ssh")
}

async fn look_at_engine(dock: &Dock, env: &Env, findings: &mut Findings) {
    let options = CallOptions::of_terminal();
    let asked = async {
        let engine = dock_engine::connect(dock, env, &options).await?;
        let mut facts = facts::of_engine(&engine).await?;
        if let Some(agent) = dock_engine::agent(dock, env)? {
            facts::add_machine(&mut facts, &agent, &options).await;
        }
        Ok::<_, Error>(facts)
    };
    let facts = match asked.await {
        Ok(facts) => facts,
        Err(error) => return findings.wrong("engine", &error, None),
    };
    findings.ok(
        "engine",
        format!(
            "docker {}, API {}, {} image store",
            facts.version, facts.api, facts.image_store
        ),
    );
    let here = |command: &str| match &dock.access {
        Access::Ssh(_) => format!("ssh-dock -t {} {command}", shell::quote(&dock.moniker)),
        _ => format!("there: {command}"),
    };
    match (facts.gpus, facts.gpu_support) {
        (Some(number), true) => findings.ok("gpu", format!("{number}, and containers may use them")),
        (None, true) => findings.ok("gpu", "containers may use them"),
        (Some(0) | None, false) => findings.ok("gpu", "none"),
        (Some(number), false) => findings.add(
            "gpu",
            CheckVerdict::Warning,
            format!("{number}, but the engine has no runtime that gives them to containers"),
            Some(format!(
                "install nvidia-container-toolkit there, then: {}",
                here("'sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker'")
            )),
        ),
    }
    match facts.clock_skew {
        Some(skew) if skew.abs() > SKEW => findings.add(
            "clock",
            CheckVerdict::Warning,
            format!(
                "{:.0} s {} ours",
                skew.abs(),
                if skew > 0.0 { "ahead of" } else { "behind" }
            ),
            Some(here("sudo timedatectl set-ntp true")),
        ),
        Some(skew) => findings.ok("clock", format!("{:.1} s from ours", skew.abs())),
        None => findings.add(
            "clock",
            CheckVerdict::Unknown,
            "the engine does not report its time",
            None,
        ),
    }
    match facts.disk {
        Some(disk) if disk.low => findings.add(
            "disk",
            CheckVerdict::Warning,
            format!("{} of {} free", size(disk.free), size(disk.total)),
            Some(here("docker system prune")),
        ),
        Some(disk) => findings.ok("disk", format!("{} of {} free", size(disk.free), size(disk.total))),
        None => findings.add("disk", CheckVerdict::Unknown, "only known on the dock itself", None),
    }
}

/// A command as it is run on a dock that is not registered: by ssh itself.
pub(super) fn on_dock(ssh: &SshAccess, command: &str) -> String {
    let mut words = vec!["ssh".to_owned(), "-t".to_owned()];
    if let Some(port) = ssh.port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(identity) = &ssh.identity {
        words.extend(["-i".to_owned(), identity.display().to_string()]);
    }
    words.push(match &ssh.user {
        Some(user) => format!("{user}@{}", ssh.host),
        None => ssh.host.clone(),
    });
    words.push(command.to_owned());
    shell::join(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docks::ENGINE_SOCKET;

    #[test]
    fn what_stands_between_a_user_and_the_engine_is_named_with_its_mend() {
        let say = |text: &str| Look::parse(text).trouble(ENGINE_SOCKET);
        assert_eq!(
            say("user=ann\ngroups=ann docker\nsocket=yes\naccess=yes\ngroup=docker\n"),
            None
        );
        let (what, mend) = say("user=bob\ngroups=bob\nsocket=yes\naccess=no\ngroup=docker\ndockerd=yes\n").unwrap();
        assert_eq!(what, "bob may not use /var/run/docker.sock: it is for the group docker");
        assert_eq!(mend, "sudo usermod -aG docker bob");
        let (_, mend) = say("user=bob\nsocket=yes\naccess=no\ngroup=root\n").unwrap();
        assert_eq!(mend, "sudo usermod -aG docker bob");
        let (_, mend) = say("user=bob\nsocket=no\naccess=no\ndockerd=yes\nsystemd=yes\n").unwrap();
        assert!(mend.contains("systemctl enable --now docker"));
        assert!(
            say("user=bob\nsocket=no\naccess=no\ndockerd=no\n")
                .unwrap()
                .0
                .contains("not installed")
        );
        let (_, mend) = say("user=x; rm -rf ~\nsocket=yes\naccess=no\ngroup=$(id)\n").unwrap();
        assert_eq!(mend, "sudo usermod -aG '$(id)' 'x; rm -rf ~'");
        assert_eq!(say("garbage"), None);
    }

    #[test]
    fn what_sshd_forbids_is_shown_where_it_is_written() {
        let rules =
            "/etc/ssh/sshd_config:57:AllowTcpForwarding no\n/etc/ssh/sshd_config.d/x.conf:3:  permitopen 10.0.0.1:80\n";
        assert_eq!(
            forwarding_mend(false, true, rules),
            "in the dock's /etc/ssh/sshd_config: AllowTcpForwarding yes, and no PermitOpen that leaves 127.0.0.1 out \
             (/etc/ssh/sshd_config:57 says AllowTcpForwarding no, /etc/ssh/sshd_config.d/x.conf:3 says permitopen \
             10.0.0.1:80); then there: sudo systemctl reload ssh"
        );
        assert_eq!(
            forwarding_mend(true, false, rules),
            "in the dock's /etc/ssh/sshd_config: AllowStreamLocalForwarding yes; then there: sudo systemctl reload ssh"
        );
        assert!(forwarding_mend(true, true, "nonsense").contains("neither DisableForwarding nor PermitOpen;"));
    }

    #[test]
    fn a_command_on_a_dock_can_be_pasted() {
        let ssh = SshAccess {
            host: "10.0.0.7".into(),
            user: Some("bob".into()),
            port: Some(2222),
            ..SshAccess::default()
        };
        assert_eq!(
            on_dock(&ssh, "sudo usermod -aG docker bob"),
            "ssh -t -p 2222 bob@10.0.0.7 'sudo usermod -aG docker bob'"
        );
    }
}
