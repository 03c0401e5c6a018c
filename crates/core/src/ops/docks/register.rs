//! Adding a dock to the list: what it is, whether it works, what is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::facts::{self, Facts};
use super::{check, remote_script, ssh_host};
use crate::agent::wire::{Failure, FailureKind};
use crate::agent::{Agent, CallOptions};
use crate::context::Context;
use crate::docker::connect::endpoint::Endpoint;
use crate::docker::connect::systemd_units::{self, UserManager};
use crate::docker::connect::{context_store, dock_engine};
use crate::docks::destination::Destination;
use crate::docks::ssh_config::SshConfigError;
use crate::docks::{self, Access, Dock, Forward, MountPaths, SshAccess, moniker};
use crate::env::Env;
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::output::{counted, size, visible};
use crate::shell;

/// How long a dock may take to say who may use its engine.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// The longest name of a host, as DNS has it.
const LONGEST_HOST: usize = 253;

/// What register-dock is asked for.
#[derive(Clone, Debug, Default)]
pub struct RegisterArgs {
    /// HOST and MONIKER; with `--host` or `--context`, the moniker alone.
    pub positional: Vec<String>,
    /// The user there.
    pub user: Option<String>,
    /// The port of sshd.
    pub port: Option<u16>,
    /// The private key.
    pub identity: Option<PathBuf>,
    /// The directory of workspaces there; that of the dock whose place is taken, else the usual one.
    pub workspace: Option<String>,
    /// Whose published ports are forwarded to this machine; as of the dock whose place is taken, else one's own.
    pub forward: Option<Forward>,
    /// What a path of a bind mount means; as of the dock whose place is taken, else it is translated.
    pub mounts: Option<MountPaths>,
    /// The engine's socket there.
    pub docker_socket: Option<String>,
    /// Take the place of a dock of the same moniker.
    pub force: bool,
    /// Do not connect.
    pub no_check: bool,
    /// Trust a host key that is not known yet.
    pub accept_new: bool,
    /// The address of an engine: `tcp://HOST:PORT` or `ssh://USER@HOST`.
    pub engine: Option<String>,
    /// The folder of its certificates.
    pub tls_dir: Option<PathBuf>,
    /// A docker context.
    pub context: Option<String>,
    /// Make a docker context for it.
    pub make_context: bool,
}

/// What came out.
#[derive(Serialize)]
struct RegisterReport<'a> {
    #[serde(flatten)]
    dock: &'a Dock,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'a Facts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    docker_context: Option<&'a str>,
    /// Whether using the context starts the agent that it leads to, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_starts_agent: Option<bool>,
}

/// Registers a dock.
///
/// # Errors
/// A moniker that is taken or can't be one, a dock that can't be reached or whose engine can't be used.
pub fn register(context: &Context, args: &RegisterArgs) -> Result<ExitStatus> {
    let (printer, env) = (&context.printer, &context.env);
    let mut dock = dock(args, context)?;
    let list = docks::list(env);
    let known = list.read()?;
    if let Some(old) = known.iter().find(|other| other.moniker == dock.moniker) {
        // How it is reached is said anew; what was chosen for it stays until something else is.
        dock.workspace = dock.workspace.or_else(|| old.workspace.clone());
        dock.forward = args.forward.unwrap_or(old.forward);
        dock.mounts = args.mounts.unwrap_or(old.mounts);
    }
    if args.make_context {
        refuse_context(&dock)?;
    }
    let is_free = |docks: &[Dock]| {
        let taken = docks.iter().find(|other| other.moniker == dock.moniker);
        match taken.filter(|other| **other != dock && !args.force) {
            Some(other) => Err(Error::failed(format!(
                "there is a dock {:?} already: {}",
                dock.moniker,
                other.access.place()
            ))
            .hint("choose another moniker, or --force to replace it")),
            None => Ok(()),
        }
    };
    is_free(&known)?;
    if context.global.dry_run {
        let mut plan = plan(&dock, args, &list.file());
        if args.make_context
            && let Some(agent) = dock_engine::agent(&dock, env)?
        {
            let session = context.block_on(async { Ok(UserManager::find(env).await) })?;
            plan.extend(session.iter().flat_map(|session| session.plan(&agent)));
        }
        printer.plan(&plan)?;
        return Ok(ExitStatus::SUCCESS);
    }
    let facts = if args.no_check {
        None
    } else {
        Some(context.block_on(checked(context, &dock, args))?)
    };
    let replaced = list.change(|docks| {
        // Others may have registered one meanwhile.
        is_free(docks)?;
        let replaced = docks.iter().position(|other| other.moniker == dock.moniker);
        Ok(match replaced.and_then(|at| docks.get_mut(at)) {
            Some(old) => Some(std::mem::replace(old, dock.clone())),
            None => {
                docks.push(dock.clone());
                None
            }
        })
    })?;
    if let Some(old) = replaced.filter(|old| *old != dock) {
        context.block_on(async {
            let Some(agent) = dock_engine::agent(&old, env)? else {
                return Ok(());
            };
            if old.access == dock.access {
                renew(agent, &dock, context).await?;
            } else {
                // Its context led to where the dock was.
                systemd_units::remove(&agent, env).await?;
                agent.remove().await?;
            }
            Ok(())
        })?;
    }
    if args.make_context {
        context_store::write(
            &dock.moniker,
            &dock_engine::choice(&dock, env)?.endpoint,
            env,
            args.force,
        )?;
    }
    let starter = match dock_engine::agent(&dock, env)? {
        Some(agent) if args.make_context => context.block_on(starter(context, &dock, &agent))?,
        _ => Starter::Nobody,
    };
    if printer.json() {
        printer.result_json(&RegisterReport {
            dock: &dock,
            engine: facts.as_ref(),
            docker_context: args.make_context.then_some(dock.moniker.as_str()),
            context_starts_agent: match starter {
                Starter::Systemd => Some(true),
                Starter::Commands => Some(false),
                Starter::Nobody => None,
            },
        })?;
    } else {
        say(context, &dock, facts.as_ref(), args, starter);
    }
    Ok(ExitStatus::SUCCESS)
}

/// Who starts the agent when something uses the docker context.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Starter {
    /// systemd does.
    Systemd,
    /// Our commands do, and nothing else.
    Commands,
    /// There is no agent, or no context.
    Nobody,
}

/// Has systemd start the agent for the docker context; else the agent stays.
async fn starter(context: &Context, dock: &Dock, agent: &Agent) -> Result<Starter> {
    let (printer, env) = (&context.printer, &context.env);
    if let Some(session) = UserManager::find(env).await {
        match session.install(agent, &dock.moniker).await {
            Ok(socket) => {
                // It is ours by now.
                context_store::write(&dock.moniker, &Endpoint::Unix(socket), env, true)?;
                return Ok(Starter::Systemd);
            }
            Err(error) => {
                let hint = error.hint_text().map(|hint| format!(" ({hint})"));
                printer.warning(&format!(
                    "systemd can't start the agent of {} for its docker context: {}{}",
                    visible(&dock.moniker),
                    error.with_causes(),
                    hint.unwrap_or_default()
                ));
            }
        }
    }
    agent.stay().await?;
    Ok(Starter::Commands)
}

fn say(context: &Context, dock: &Dock, facts: Option<&Facts>, args: &RegisterArgs, starter: Starter) {
    let printer = &context.printer;
    let moniker = visible(&dock.moniker);
    if !printer.shows_progress() {
        // As docker's -q: what was made, for other programs.
        printer.result(&moniker);
        if facts.and_then(|facts| facts.disk).is_some_and(|disk| disk.low) {
            printer.warning(&little_left(dock));
        }
        return;
    }
    printer.result(&format!("{moniker} is a dock: {}", visible(&dock.access.place())));
    if let Some(facts) = facts {
        printer.result(&format!(
            "  engine   docker {}, API {}, {} image store, {:.1} ms away",
            facts.version, facts.api, facts.image_store, facts.round_trip_ms
        ));
        let gpus = match (facts.gpus, facts.gpu_support) {
            (Some(0) | None, false) => "no GPU".to_owned(),
            (Some(number), false) => format!("{} that containers can't use", counted(number, "GPU")),
            (Some(number), true) if number > 0 => counted(number, "GPU"),
            (_, true) => "GPUs".to_owned(),
        };
        printer.result(&format!(
            "  machine  {} {}, {}, {} memory, {gpus}",
            facts.system,
            facts.architecture,
            counted(facts.cpus, "CPU"),
            size(facts.memory)
        ));
        if let Some(disk) = facts.disk {
            printer.result(&format!("  disk     {} of {} free", size(disk.free), size(disk.total)));
            if disk.low {
                printer.warning(&little_left(dock));
            }
        }
    }
    if args.make_context {
        printer.result(&format!("  context  docker --context {moniker} ps"));
        let quoted = shell::quote(&dock.moniker);
        match starter {
            Starter::Systemd => printer.note(&format!(
                "  systemd starts the agent of {moniker} when something uses the context"
            )),
            Starter::Commands => printer.note(&format!(
                "  the context answers only while the agent of {moniker} runs, and no systemd starts it here: after a restart of \
                 this machine, source dock {quoted} starts it, or any command with --dock {quoted}"
            )),
            Starter::Nobody => {}
        }
    }
    printer.note(&format!("\nhint: source dock {}", shell::quote(&dock.moniker)));
}

fn little_left(dock: &Dock) -> String {
    format!(
        "little is left on the disk of {}: ssh-dock {} docker system prune",
        visible(&dock.moniker),
        shell::quote(&dock.moniker)
    )
}

/// Has an agent that runs with the entry of before run with this one, for the shells that are docked by it.
async fn renew(agent: Agent, dock: &Dock, context: &Context) -> Result<()> {
    if !agent.forget_entry().await? {
        return Ok(());
    }
    let moniker = &dock.moniker;
    if let Some(agent) = dock_engine::agent(dock, &context.env)?
        && let Err(error) = agent.connect(&CallOptions::of_terminal()).await
    {
        context.printer.warning(&format!(
            "the agent of {moniker} ended, to take what changed, and did not start again: {}\nhint: {}",
            error.with_causes(),
            hint!("source dock {} starts it", moniker)
        ));
    }
    Ok(())
}

/// The dock that is asked for.
fn dock(args: &RegisterArgs, context: &Context) -> Result<Dock> {
    let (first, second) = match args.positional.as_slice() {
        [] => (None, None),
        [one] => (Some(one.as_str()), None),
        [one, two] => (Some(one.as_str()), Some(two.as_str())),
        _ => return Err(Error::usage("these are more words than host and moniker").hint("register-dock HOST MONIKER")),
    };
    let env = &context.env;
    let (access, moniker) = match (&args.engine, &args.context) {
        (None, None) => {
            let host = first.ok_or_else(|| {
                Error::usage("no host is named").hint("register-dock HOST MONIKER; HOST may be a Host of ~/.ssh/config")
            })?;
            let access = match host.split_once("://") {
                None => Access::Ssh(ssh_access(host, args, context)?),
                Some(("ssh", _)) => of_address(host, args, context)?,
                Some(_) => {
                    return Err(Error::usage(format!("{host:?} is not a machine that ssh reaches"))
                        .hint(hint!("register-dock --host {} MONIKER", host)));
                }
            };
            let moniker = second.or(access.host()).unwrap_or_default().to_owned();
            (access, moniker)
        }
        (Some(address), _) => {
            one_positional(second, "--host")?;
            let access = of_address(address, args, context)?;
            let moniker = first.or(access.host()).unwrap_or_default().to_owned();
            (access, moniker)
        }
        (None, Some(name)) => {
            one_positional(second, "--context")?;
            let access = match Endpoint::of_context(name, env)? {
                // An agent carries it better than a client for each connection.
                endpoint @ Endpoint::Ssh { .. } => of_address(&endpoint.to_string(), args, context)?,
                _ => Access::Context { name: name.clone() },
            };
            (access, first.unwrap_or(name).to_owned())
        }
    };
    moniker::check_new(&moniker).map_err(|why| {
        Error::usage(format!("{moniker:?} can't be a moniker"))
            .because(why)
            .hint("choose a short name that is easy to type: register-dock HOST MONIKER")
    })?;
    if let Some(workspace) = &args.workspace {
        check_remote_path("--workspace", workspace)?;
    }
    Ok(Dock {
        moniker,
        access,
        workspace: args.workspace.clone(),
        forward: args.forward.unwrap_or_default(),
        mounts: args.mounts.unwrap_or_default(),
    })
}

fn one_positional(second: Option<&str>, option: &str) -> Result<()> {
    match second {
        Some(_) => Err(Error::usage(format!(
            "{option} says where the engine is: only a moniker goes with it"
        ))
        .hint(hint!("register-dock {} ... MONIKER", option))),
        None => Ok(()),
    }
}

fn of_address(address: &str, args: &RegisterArgs, context: &Context) -> Result<Access> {
    // With certificates, the port that is usual for TLS.
    let tls = args.tls_dir.as_ref().map(|_| ("DOCKER_TLS_VERIFY", "1"));
    match Endpoint::parse(address, &Env::from_pairs(tls))
        .map_err(|error| Error::usage(error.to_string().replace("DOCKER_HOST", "--host")).hint("tcp://HOST:PORT"))?
    {
        Endpoint::Tcp { host, port, .. } => Ok(Access::Tcp {
            address: if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            },
            tls_dir: args
                .tls_dir
                .as_deref()
                .map(|folder| tls_folder(folder, context))
                .transpose()?,
        }),
        Endpoint::Ssh {
            destination,
            port,
            socket,
        } => {
            let ssh = ssh_access(&destination, args, context)?;
            Ok(Access::Ssh(SshAccess {
                port: one_port(args.port, port)?,
                docker_socket: ssh.docker_socket.or(socket),
                ..ssh
            }))
        }
        Endpoint::Unix(path) => Err(
            Error::usage(format!("{} is on this machine", path.display())).hint(hint!(
                "docker context create NAME --docker {}, then: register-dock --context NAME",
                format!("host=unix://{}", path.display())
            )),
        ),
    }
}

fn tls_folder(folder: &Path, context: &Context) -> Result<PathBuf> {
    let folder = context.working_dir.join(folder);
    if folder.join("ca.pem").is_file() {
        return Ok(folder);
    }
    Err(Error::usage(format!("{} has no ca.pem", folder.display()))
        .hint("--tls-dir names a folder with ca.pem, and cert.pem and key.pem where the engine asks for them"))
}

/// The port of sshd, which may be said by an option and by the address.
fn one_port(option: Option<u16>, address: Option<u16>) -> Result<Option<u16>> {
    match (option, address) {
        (Some(option), Some(address)) if option != address => Err(Error::usage(format!(
            "two ports are named: {address} in the address, and --port {option}"
        ))
        .hint("leave one of them out")),
        (option, address) => Ok(option.or(address)),
    }
}

fn ssh_access(written: &str, args: &RegisterArgs, context: &Context) -> Result<SshAccess> {
    let no_host = |why: String| {
        Error::usage(format!("{written:?} is not a host{why}")).hint(
            "a name, an address, or a Host of ~/.ssh/config, as [USER@]HOST[:PORT]; engines on TCP: --host tcp://HOST:PORT",
        )
    };
    let Destination { user, host, port } = Destination::parse(written).map_err(|cause| match cause {
        SshConfigError::BadHost(_) => no_host(String::new()),
        cause => no_host(format!(": {cause}")),
    })?;
    let user = args
        .user
        .as_deref()
        .or(user)
        .or_else(|| context.env.non_empty("DOCK_USER"));
    // A name that begins with a dash would be an option of ssh, which resolves it.
    let odd = |text: &str| {
        text.is_empty() || text.starts_with('-') || text.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    if odd(written) || host.len() > LONGEST_HOST {
        return Err(no_host(String::new()));
    }
    if let Some(user) = user.filter(|user| odd(user)) {
        return Err(Error::usage(format!("{user:?} is not a user")).hint("-u USER, or DOCK_USER"));
    }
    if let Some(socket) = &args.docker_socket {
        check_remote_path("--docker-socket", socket)?;
    }
    let identity = match &args.identity {
        Some(path) => {
            let path = context.working_dir.join(path);
            if !path.is_file() {
                return Err(Error::usage(format!("there is no key {}", path.display()))
                    .hint("--identity names the private key's file"));
            }
            Some(path)
        }
        None => None,
    };
    Ok(SshAccess {
        host: host.to_owned(),
        user: user.map(str::to_owned),
        port: one_port(args.port, port)?,
        identity,
        docker_socket: args.docker_socket.clone(),
    })
}

fn check_remote_path(option: &str, path: &str) -> Result<()> {
    if path.starts_with('/') && !path.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::usage(format!("{option} {path:?} is not an absolute path on the dock")).hint(hint!("{} /...", option)))
}

fn refuse_context(dock: &Dock) -> Result<()> {
    if let Access::Context { name } = &dock.access {
        return Err(
            Error::usage(format!("the docker context {name:?} exists already")).hint("leave --make-context out")
        );
    }
    if context_store::is_legal_name(&dock.moniker) {
        return Ok(());
    }
    Err(
        Error::usage(format!("docker accepts no context of the name {:?}", dock.moniker))
            .hint("give the dock a moniker of letters, digits and `_.+-`, or leave --make-context out"),
    )
}

fn plan(dock: &Dock, args: &RegisterArgs, file: &Path) -> Vec<String> {
    let place = visible(&dock.access.place());
    let mut plan = Vec::new();
    if !args.no_check {
        plan.push(format!("connect to {place}, and ask its engine"));
    }
    plan.push(format!(
        "write {} ({place}) to {}",
        visible(&dock.moniker),
        file.display()
    ));
    if args.make_context {
        plan.push(format!("docker context create {}", shell::quote(&dock.moniker)));
    }
    plan
}

/// Whether the dock works, and what is there.
async fn checked(context: &Context, dock: &Dock, args: &RegisterArgs) -> Result<Facts> {
    let env = &context.env;
    let options = CallOptions::of_terminal().accepting_new(args.accept_new).briefly();
    let Some(agent) = dock_engine::agent(dock, env)? else {
        let engine = dock_engine::connect(dock, env, &options).await?;
        return facts::of_engine(&engine).await;
    };
    let asked = async {
        if let Err(failure) = agent.try_connect(&options).await? {
            return Err(unconnected(failure, &options));
        }
        if let Access::Ssh(ssh) = &dock.access
            && let Ok(config) = ssh_host::resolve(ssh, env).await
        {
            for key in ssh_host::known_keys(&config, ssh, env) {
                context.printer.note(&format!("host key {key}"));
            }
        }
        let engine = match dock_engine::connect(dock, env, &options).await {
            Ok(engine) => engine,
            Err(error) => return Err(explained(error, &agent, dock, &options).await),
        };
        let mut facts = facts::of_engine(&engine).await?;
        facts::add_machine(&mut facts, &agent, &options).await;
        Ok(facts)
    };
    let result = asked.await;
    if result.is_err() && !agent.is_in_use().await {
        // It is no dock, so nobody needs its agent; unless it is one already, and shells are docked to it. Above all, one that
        // has logged in goes on without the rights that a hint is about to give.
        let _ = agent.remove().await;
    }
    result
}

/// A dock that can't be connected to. An unknown host key has a mend of our own.
fn unconnected(failure: Failure, options: &CallOptions) -> Error {
    let asks_for_key = failure.kind == FailureKind::NeedsPerson && failure.message.contains("is not known");
    let error = failure.into_error();
    if asks_for_key && !options.person {
        return error.hint("compare this key with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), then: register-dock --accept-new ...");
    }
    error
}

/// An engine that does not answer, explained by what its machine says: the exact command that mends it.
async fn explained(error: Error, agent: &Agent, dock: &Dock, options: &CallOptions) -> Error {
    let Access::Ssh(ssh) = &dock.access else {
        return error;
    };
    let socket = ssh.engine_socket();
    let Ok(output) = remote_script::run(agent, check::LOOK, &[socket], options, LOOK_LIMIT).await else {
        return error;
    };
    match check::Look::parse(&output.stdout).trouble(socket) {
        Some((what, mend)) => Error::failed(format!("the engine of {} can't be used: {what}", dock.access.place()))
            .hint(hint!("{mend}, then register-dock again"; mend = check::on_dock(ssh, &mend))),
        None => error,
    }
}
