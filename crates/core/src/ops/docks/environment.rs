//! What a docked shell sets: the answer of `dock-env`, as lines for the sourced shim, or as code for a shell.

use std::io::IsTerminal as _;
use std::time::Duration;

use super::ssh_host;
use crate::agent::{CallOptions, ShellDemand};
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docker::connect::endpoint::Endpoint;
use crate::docks::{self, Access, Dock, Docks, Forward, LEAST_EXPOSED, MountPaths, moniker};
use crate::env::Env;
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::ops::run_records::say_left;
use crate::output::{Printer, counted, visible};
use crate::shell;

/// So many containers and ports can be named for one shell, each so long.
const MOST_NAMED: usize = 100;
const MOST_OF_A_NAME: usize = 255;
/// So many ports of this machine can be exposed for one shell.
const MOST_EXPOSED: usize = 20;
/// What takes longer is said to be under way.
const SLOW: Duration = Duration::from_millis(500);

/// The shells whose prompts and code are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// What dock-env is asked for.
#[derive(Clone, Debug)]
pub struct EnvironmentArgs {
    /// The dock.
    pub name: String,
    /// The shell has the variables of a docked one that started it, and not its functions: it is to be one of its own.
    pub adopt: bool,
    /// The shell that is to be docked.
    pub shell: Shell,
    /// Its process; none for the one that started us.
    pub pid: Option<i32>,
    /// Trust a host key that is not known yet.
    pub accept_new: bool,
    /// Leave the ports that containers publish on the dock.
    pub no_forward: bool,
    /// Containers and ports of the dock that are to be forwarded besides.
    pub forward: Vec<String>,
    /// Ports of this machine that containers on the dock are to reach.
    pub expose: Vec<u16>,
}

/// Makes the connection to a dock stand for a shell, and gives the lines `NAME=VALUE` that the shell makes its own.
/// The names are DOCKER_HOST and its like, `_DOCK_MONIKER`, `prompt` for what is appended to the prompt, and `notice` for
/// the file at which each prompt looks, where there is an agent that may have something to say.
///
/// # Errors
/// A shell that is docked already, no such dock, a dock or engine that can't be reached.
pub fn dock(context: &Context, args: &EnvironmentArgs) -> Result<Vec<String>> {
    let (env, printer) = (&context.env, &context.printer);
    match docks::current(env) {
        Some(current) if current == args.name && !args.adopt => {
            return Err(Error::failed(format!("this shell is docked to {current:?} already"))
                .hint("castoff goes back; in a shell that was started in a docked one: source dock"));
        }
        Some(current) if current != args.name => {
            return Err(Error::failed(format!(
                "this shell is docked to {:?} already, and not to {:?}",
                current, args.name
            ))
            .hint("castoff"));
        }
        _ => {}
    }
    check_named(&args.forward)?;
    check_exposed(&args.expose)?;
    let found = Docks::read(env)?;
    let dock = found.get(&args.name)?;
    let choice = dock_engine::choice(dock, env)?;
    // What led to another engine before is not to have a say in this.
    let own = without_engine(env);
    context.block_on(async {
        let address = address(dock, &choice.endpoint, env).await;
        let forward = if args.no_forward { Forward::None } else { dock.forward };
        let mut lines = lines(dock, &choice.endpoint, &address, forward, args.shell, env)?;
        let options = CallOptions::of_terminal().accepting_new(args.accept_new);
        let connecting = async {
            let engine = dock_engine::connect(dock, &own, &options).await?;
            let info = engine.info().await?;
            Ok::<_, Error>((engine, info))
        };
        let (engine, info) = said_when_slow(printer, &dock.moniker, connecting).await?;
        if let Some(agent) = dock_engine::agent(dock, &own)? {
            let shell = args.pid.unwrap_or_else(parent);
            let demand = ShellDemand {
                forward,
                named: args.forward.clone(),
                expose: args.expose.clone(),
            };
            agent.hold_with(shell, demand).await?;
            if let Some(file) = agent.notice_file(shell).to_str().filter(|_| shows_in_prompt(env)) {
                lines.push(line("notice", file)?);
            }
        }
        let text = |text: Option<String>| text.map(|text| visible(&text)).unwrap_or_default();
        printer.note(&format!(
            "docked to {}: docker {} on {}, {}",
            visible(&dock.moniker),
            text(info.server_version),
            text(info.name),
            counted(info.ncpu.unwrap_or_default(), "CPU")
        ));
        say_exposed(dock, &own, &args.expose, printer).await?;
        say_left(&engine, Some(&dock.moniker), context).await;
        // Said where a person reads it: a script has its paths already.
        if std::io::stderr().is_terminal() {
            printer.note(match dock.mounts {
                MountPaths::Translated => {
                    "a project that you mount (docker run -v \"$PWD\":...) is its copy there, once sync-up has sent it; castoff goes back"
                }
                MountPaths::Literal => {
                    "paths that you mount (docker run -v \"$PWD\":...) are the dock's now, not this machine's; castoff goes back"
                }
            });
        }
        Ok(lines)
    })
}

/// Says what is waited for, where it takes longer than a person takes for nothing.
async fn said_when_slow<T>(printer: &Printer, moniker: &str, connecting: impl Future<Output = T>) -> T {
    let mut connecting = std::pin::pin!(connecting);
    match tokio::time::timeout(SLOW, &mut connecting).await {
        Ok(connected) => connected,
        Err(_) => {
            printer.note(&format!("connecting to {}", visible(moniker)));
            connecting.await
        }
    }
}

/// Whether each of these can be a container's name or ID, or a port.
fn check_named(named: &[String]) -> Result<()> {
    let is_one = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
            && text.len() <= MOST_OF_A_NAME
            && (!text.bytes().all(|byte| byte.is_ascii_digit())
                || text.len() > 5
                || text.parse::<u16>().is_ok_and(|port| port > 0))
    };
    match named.iter().find(|text| !is_one(text)) {
        Some(wrong) => Err(Error::usage(format!(
            "--forward takes a port of the dock or the name of a container, not {wrong:?}"
        ))
        .hint("ls-dock --ports lists them")),
        None if named.len() > MOST_NAMED => Err(Error::usage(format!(
            "--forward is given {} times, but {MOST_NAMED} is the most",
            named.len()
        ))
        .hint("register-dock --force --forward labelled forwards those of all containers with your name")),
        None => Ok(()),
    }
}

/// Whether these ports of this machine may be exposed.
fn check_exposed(ports: &[u16]) -> Result<()> {
    match ports.iter().find(|port| **port < LEAST_EXPOSED) {
        Some(low) => Err(Error::usage(format!(
            "port {low} of this machine is not exposed to containers: below {LEAST_EXPOSED} are the system's own services"
        ))
        .hint(hint!("have your server listen at another port, from {} on", LEAST_EXPOSED))),
        None if ports.len() > MOST_EXPOSED => Err(Error::usage(format!(
            "--expose is given {} times, but {MOST_EXPOSED} is the most",
            ports.len()
        ))
        .hint("expose what this shell's containers need")),
        None => Ok(()),
    }
}

/// Says what became of the ports of this machine that the shell exposes. It is docked all the same where the dock forbids it.
async fn say_exposed(dock: &Dock, env: &Env, ports: &[u16], printer: &Printer) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let moniker = visible(&dock.moniker);
    let Some(agent) = dock_engine::agent(dock, env)? else {
        let why = "only docks that ssh reaches lead back to this machine";
        printer.warning(&format!("nothing is exposed to containers on {moniker}: {why}"));
        return Ok(());
    };
    for exposed in agent.exposed(ports).await? {
        let port = exposed.port;
        match exposed.reason {
            None => printer.note(&format!(
                "port {port} of this machine is host.docker.internal:{port} in containers on {moniker}"
            )),
            Some(reason) => {
                let hint = exposed
                    .hint
                    .map(|hint| format!("\n  {}", visible(&hint)))
                    .unwrap_or_default();
                let reason = visible(&reason);
                printer.warning(&format!(
                    "port {port} of this machine is not exposed to containers on {moniker}: {reason}{hint}"
                ));
            }
        }
    }
    Ok(())
}

/// A shell is docked no longer. That its dock or agent is gone is no failure.
///
/// # Errors
/// A damaged list.
pub fn release(context: &Context, pid: Option<i32>) -> Result<ExitStatus> {
    let env = &context.env;
    let socket = env
        .non_empty("DOCKER_HOST")
        .and_then(|host| host.strip_prefix("unix://"))
        .map(std::path::PathBuf::from);
    if let Some(socket) = socket
        && let Some(agent) = dock_engine::agent_of_socket(&socket, env)?
    {
        context.block_on(async {
            // It notices by itself when the shell ends.
            let _ = agent.release(pid.unwrap_or_else(parent)).await;
            Ok(())
        })?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// The dock that the shell is docked to, or the one in which it was started.
pub fn current(env: &Env) -> Option<String> {
    docks::current(env).map(str::to_owned)
}

/// The monikers of all docks, for completion.
///
/// # Errors
/// A damaged list.
pub fn monikers(env: &Env) -> Result<Vec<String>> {
    let docks = Docks::read(env)?;
    // A line each: what has line ends or worse in it can't be typed.
    Ok(docks
        .iter()
        .map(|dock| dock.moniker.clone())
        .filter(|moniker| moniker::check(moniker).is_ok())
        .collect())
}

/// DOCKER_IP: where others reach what listens on the dock.
async fn address(dock: &Dock, endpoint: &Endpoint, env: &Env) -> String {
    if let Access::Ssh(ssh) = &dock.access
        && let Ok(config) = ssh_host::resolve(ssh, env).await
    {
        return config.hostname;
    }
    dock_engine::address(dock, endpoint)
}

fn lines(
    dock: &Dock,
    endpoint: &Endpoint,
    address: &str,
    forward: Forward,
    shell: Shell,
    env: &Env,
) -> Result<Vec<String>> {
    let mut values = dock_engine::variables(endpoint)?;
    values.push(("DOCKER_IP", address.to_owned()));
    values.extend(for_test_suites(dock, forward));
    values.push(("_DOCK_MONIKER", format!("[dock:{}] ", dock.moniker)));
    if shows_in_prompt(env) {
        values.push(("prompt", moniker::in_prompt(&dock.moniker, shell == Shell::Zsh)));
    }
    values.iter().map(|(name, value)| line(name, value)).collect()
}

/// What suites that start containers have to know: where their ports answer, and which socket to mount. Without ports
/// here they decide for themselves, as on any engine elsewhere.
///
/// Testcontainers in all languages read TESTCONTAINERS_HOST_OVERRIDE
/// (<https://java.testcontainers.org/features/configuration/>); before that, those for Go and Python read TC_HOST, and
/// the one for Python reads it first still. Where that one is in a container itself, it takes a host on the loopback for unsaid,
/// and looks for a container's own address, which is the dock's; TESTCONTAINERS_CONNECTION_MODE (from 4.9 on) keeps it to
/// the host and the published port. They mount TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE into the container that
/// removes what a suite left: a path of the engine's machine.
fn for_test_suites(dock: &Dock, forward: Forward) -> Vec<(&'static str, String)> {
    let Access::Ssh(ssh) = &dock.access else {
        return Vec::new();
    };
    let mut values = vec![("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE", ssh.engine_socket().to_owned())];
    if forward != Forward::None {
        values.push(("TESTCONTAINERS_HOST_OVERRIDE", "localhost".to_owned()));
        values.push(("TC_HOST", "localhost".to_owned()));
        values.push(("TESTCONTAINERS_CONNECTION_MODE", "docker_host".to_owned()));
    }
    values
}

fn line(name: &str, value: &str) -> Result<String> {
    if value.chars().any(char::is_control) {
        return Err(Error::failed(format!("{name} can't be {value:?}"))
            .hint("register the dock again, under another moniker: register-dock HOST MONIKER"));
    }
    Ok(format!("{name}={value}"))
}

/// Whether the user wants to see anything of ours at the prompt.
fn shows_in_prompt(env: &Env) -> bool {
    env.non_empty("DOCKERUTILS_DISABLE_PROMPT").is_none()
}

fn without_engine(env: &Env) -> Env {
    let other = env
        .iter()
        .filter(|(name, _)| !dock_engine::ENGINE_VARIABLES.contains(name));
    Env::from_pairs(other)
}

fn parent() -> i32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get())
}

/// A word in single quotes, for bash and zsh.
pub fn quote_posix(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A word in single quotes, for fish, where a backslash keeps its meaning before a quote and itself.
pub fn quote_fish(word: &str) -> String {
    format!("'{}'", word.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Whether a dock is one that ssh reaches, with its plan in words: for `--dry-run`.
pub fn plan(context: &Context, args: &EnvironmentArgs) -> Result<Vec<String>> {
    let docks = Docks::read(&context.env)?;
    let dock = docks.get(&args.name)?;
    let endpoint = dock_engine::choice(dock, &context.env)?.endpoint;
    let mut plan = Vec::new();
    if let Access::Ssh(_) = dock.access {
        plan.push(format!("connect to {}", visible(&dock.access.place())));
    }
    plan.extend(
        dock_engine::variables(&endpoint)?
            .iter()
            .map(|(name, value)| format!("export {name}={}", shell::quote(value))),
    );
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_told_what_it_needs_and_nothing_that_breaks_a_line() {
        let dock = |moniker: &str| Dock {
            moniker: moniker.into(),
            access: Access::Tcp {
                address: "10.0.0.7:2375".into(),
                tls_dir: None,
            },
            workspace: None,
            forward: Forward::default(),
            mounts: MountPaths::default(),
        };
        let env = Env::default();
        let endpoint = Endpoint::parse("tcp://10.0.0.7:2375", &env).unwrap();
        let told = lines(
            &dock("x[$(touch pwned)] 5%"),
            &endpoint,
            "10.0.0.7",
            Forward::Mine,
            Shell::Zsh,
            &env,
        )
        .unwrap();
        assert_eq!(
            told,
            [
                "DOCKER_HOST=tcp://10.0.0.7:2375",
                "DOCKER_IP=10.0.0.7",
                "_DOCK_MONIKER=[dock:x[$(touch pwned)] 5%] ",
                "prompt=[dock:x[?(touch pwned)] 5%%] ",
            ]
        );
        assert!(lines(&dock("a\nPATH=/tmp"), &endpoint, "x", Forward::Mine, Shell::Bash, &env).is_err());
        let plain = Env::from_pairs([("DOCKERUTILS_DISABLE_PROMPT", "1")]);
        assert_eq!(
            lines(&dock("far"), &endpoint, "x", Forward::Mine, Shell::Bash, &plain)
                .unwrap()
                .len(),
            3
        );
    }

    #[test]
    fn suites_look_on_localhost_only_for_ports_that_are_forwarded() {
        let mut dock = Dock {
            moniker: "far".into(),
            access: Access::Ssh(docks::SshAccess::default()),
            workspace: None,
            forward: Forward::default(),
            mounts: MountPaths::default(),
        };
        let told = |dock: &Dock, forward| -> Vec<String> {
            let values = for_test_suites(dock, forward);
            values
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        assert_eq!(
            told(&dock, Forward::Mine),
            [
                "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=/var/run/docker.sock",
                "TESTCONTAINERS_HOST_OVERRIDE=localhost",
                "TC_HOST=localhost",
                "TESTCONTAINERS_CONNECTION_MODE=docker_host",
            ]
        );
        if let Access::Ssh(ssh) = &mut dock.access {
            ssh.docker_socket = Some("/run/user/1000/docker.sock".into());
        }
        assert_eq!(
            told(&dock, Forward::None),
            ["TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=/run/user/1000/docker.sock"]
        );
        dock.access = Access::Tcp {
            address: "10.0.0.7:2375".into(),
            tls_dir: None,
        };
        assert_eq!(told(&dock, Forward::All), [""; 0]);
    }

    #[test]
    fn ports_of_the_system_are_not_exposed() {
        assert!(check_exposed(&[5432, 1024, 65535]).is_ok());
        for low in [0, 22, 1023] {
            let error = check_exposed(&[5432, low]).unwrap_err();
            assert!(
                error.to_string().contains(&format!("port {low} of this machine")),
                "{error}"
            );
        }
        assert!(check_exposed(&[5432; MOST_EXPOSED + 1]).is_err());
    }

    #[test]
    fn quotes_are_closed() {
        assert_eq!(quote_posix("it's $(x)"), r"'it'\''s $(x)'");
        assert_eq!(quote_fish(r"it's \ $(x)"), r"'it\'s \\ $(x)'");
    }
}
