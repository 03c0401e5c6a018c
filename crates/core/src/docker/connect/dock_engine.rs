//! The engine of a dock: its address, the variables that lead other programs there, and connecting to it.
//!
//! An engine that ssh reaches is behind the dock's agent, and the agent's socket stays the same; an engine on TCP or of
//! a docker context is connected to directly.

use std::path::Path;

use super::endpoint::{Choice, Endpoint, Origin, Tls};
use super::engine::Engine;
use super::locality::{self, Locality};
use crate::agent::{Agent, CallOptions};
use crate::docks::{Access, Dock, Docks};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::shell;

/// The variables by which programs find an engine: docking sets some of them, and puts the others aside.
pub const ENGINE_VARIABLES: [&str; 6] = [
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "BUILDX_BUILDER",
];

/// Where a dock's engine is, seen from here. Nothing is started.
///
/// # Errors
/// A docker context that isn't there, and a directory for sockets that can't be made.
pub fn choice(dock: &Dock, env: &Env) -> Result<Choice> {
    let endpoint = match &dock.access {
        Access::Ssh(_) => Endpoint::Unix(Agent::of(dock, env)?.engine_socket()),
        Access::Tcp { address, tls_dir } => {
            // The variables of the environment are about another engine.
            match Endpoint::parse(&format!("tcp://{address}"), &Env::default())? {
                Endpoint::Tcp { host, port, .. } => Endpoint::Tcp {
                    host,
                    port,
                    tls: tls_dir.clone().map(|directory| Tls {
                        directory,
                        verify: true,
                    }),
                },
                other => other,
            }
        }
        Access::Context { name } => Endpoint::of_context(name, env)?,
    };
    Ok(Choice {
        endpoint,
        origin: Origin::Dock(dock.moniker.clone()),
    })
}

/// Where this machine's own engine is, also in a shell that is docked to another.
///
/// # Errors
/// An engine's address in the environment that makes no sense.
pub fn here(env: &Env) -> Result<Choice> {
    let is_here =
        |choice: &Choice, env: &Env| locality::by_address(&choice.endpoint, &choice.origin, env) == Locality::Local;
    if let Ok(choice) = Endpoint::choose(env)
        && is_here(&choice, env)
    {
        return Ok(choice);
    }
    let undocked = Env::from_pairs(
        env.iter()
            .filter(|(name, _)| !ENGINE_VARIABLES.contains(name) && *name != "DOCKER_IP"),
    );
    let choice = Endpoint::choose(&undocked)?;
    Ok(match is_here(&choice, &undocked) {
        true => choice,
        // A docker context that leads elsewhere is not this machine's either.
        false => Choice {
            endpoint: Endpoint::parse("unix://", &undocked)?,
            origin: Origin::Default,
        },
    })
}

/// The agent of a dock that has one.
///
/// # Errors
/// A directory for sockets that can't be made.
pub fn agent(dock: &Dock, env: &Env) -> Result<Option<Agent>> {
    match dock.access {
        Access::Ssh(_) => Agent::of(dock, env).map(Some),
        Access::Tcp { .. } | Access::Context { .. } => Ok(None),
    }
}

/// An engine, and the agent by which it is reached, where it is behind one. It is chosen once: what is printed, what is asked
/// and what is used are the same, whatever becomes of the list of docks meanwhile.
#[derive(Clone, Debug)]
pub struct ChosenEngine {
    /// Where it is; of the dock, where it is behind an agent.
    pub choice: Choice,
    /// The agent by which it is reached.
    pub agent: Option<Agent>,
}

impl ChosenEngine {
    /// The engine that the environment leads to.
    ///
    /// # Errors
    /// A DOCKER_HOST or docker context that names no engine, and as [`agent_of_socket`].
    pub fn of_environment(env: &Env) -> Result<Self> {
        Self::at(Endpoint::choose(env)?, env)
    }

    /// The engine there, which may be the socket of an agent.
    ///
    /// # Errors
    /// As [`agent_of_socket`].
    pub fn at(mut choice: Choice, env: &Env) -> Result<Self> {
        let agent = agent_of(&choice, env)?;
        if let Some(agent) = &agent {
            choice.origin = Origin::Dock(agent.dock().moniker.clone());
        }
        Ok(Self { choice, agent })
    }

    /// The engine of a dock.
    ///
    /// # Errors
    /// As [`choice`].
    pub fn of_dock(dock: &Dock, env: &Env) -> Result<Self> {
        Ok(Self {
            choice: choice(dock, env)?,
            agent: agent(dock, env)?,
        })
    }

    /// This machine's own engine.
    ///
    /// # Errors
    /// As [`here`].
    pub fn here(env: &Env) -> Result<Self> {
        Ok(Self {
            choice: here(env)?,
            agent: None,
        })
    }

    /// Connects to it; an agent that has ended is started again.
    ///
    /// # Errors
    /// A dock that can't be reached, or an engine that does not answer there.
    pub async fn connect(&self, options: &CallOptions) -> Result<Engine> {
        if let Some(agent) = &self.agent {
            agent.connect(options).await?;
        }
        Engine::connect_to(self.choice.clone()).await
    }
}

/// Connects to the engine of a dock.
///
/// # Errors
/// As [`ChosenEngine::of_dock`] and [`ChosenEngine::connect`].
pub async fn connect(dock: &Dock, env: &Env, options: &CallOptions) -> Result<Engine> {
    ChosenEngine::of_dock(dock, env)?.connect(options).await
}

/// The agent by which an engine is reached; `None` where it is reached without one.
///
/// # Errors
/// As [`agent_of_socket`].
pub fn agent_of(choice: &Choice, env: &Env) -> Result<Option<Agent>> {
    match &choice.endpoint {
        Endpoint::Unix(socket) => agent_of_socket(socket, env),
        _ => Ok(None),
    }
}

/// The agent that serves this engine's socket.
///
/// # Errors
/// A damaged list of docks, or file of the agent.
pub fn agent_of_socket(socket: &Path, env: &Env) -> Result<Option<Agent>> {
    if !Agent::is_engine_socket(socket) {
        return Ok(None);
    }
    if let Some(agent) = Agent::of_engine_socket(socket, env)? {
        return Ok(Some(agent));
    }
    // After a restart of the machine the agents' directory is empty, and a docker context still names the socket.
    for dock in Docks::read(env)?.iter() {
        if let Some(agent) = agent(dock, env)?
            && agent.is_behind(socket)
        {
            return Ok(Some(agent));
        }
    }
    Ok(None)
}

/// The variables that lead the docker client, and other programs that read them, to this engine.
///
/// # Errors
/// A docker context whose engine those variables can't name.
pub fn variables(endpoint: &Endpoint) -> Result<Vec<(&'static str, String)>> {
    let mut variables = vec![("DOCKER_HOST", endpoint.to_string())];
    if let Endpoint::Tcp { tls: Some(tls), .. } = endpoint {
        let directory = tls.directory.to_str().ok_or_else(|| {
            Error::usage(format!("the path {} can't be in a variable", tls.directory.display()))
                .hint("move the certificates to a path in UTF-8")
        })?;
        variables.push((
            if tls.verify { "DOCKER_TLS_VERIFY" } else { "DOCKER_TLS" },
            "1".to_owned(),
        ));
        variables.push(("DOCKER_CERT_PATH", directory.to_owned()));
    }
    // A control character must break neither a shell's prompt nor a line of ours.
    match variables.iter().find(|(_, value)| value.chars().any(char::is_control)) {
        Some((name, value)) => {
            Err(Error::usage(format!("{name} can't be {value:?}")).hint("correct the dock: register-dock --force"))
        }
        None => Ok(variables),
    }
}

/// The prefix of a docker command that sends it to this engine, whatever variables the shell has.
///
/// # Errors
/// As [`variables`].
pub fn prefix(endpoint: &Endpoint, env: &Env) -> Result<String> {
    let set = variables(endpoint)?;
    // DOCKER_HOST wins over DOCKER_CONTEXT; these would still count.
    let cleared = ["DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "BUILDX_BUILDER"]
        .into_iter()
        .filter(|name| env.non_empty(name).is_some() && set.iter().all(|(other, _)| other != name))
        .map(|name| (name, String::new()));
    let words: Vec<String> = cleared
        .chain(set.iter().cloned())
        .map(|(name, value)| match value.as_str() {
            "" => format!("{name}= "),
            value => format!("{name}={} ", shell::quote(value)),
        })
        .collect();
    Ok(words.concat())
}

/// The address by which others reach what listens on the dock: DOCKER_IP.
pub fn address(dock: &Dock, endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp { host, .. } => host.clone(),
        Endpoint::Ssh { destination, .. } => destination
            .rsplit_once('@')
            .map_or(destination.as_str(), |(_, host)| host)
            .to_owned(),
        // As it was registered; `source dock` asks ssh what it stands for.
        Endpoint::Unix(_) => dock.access.host().unwrap_or("127.0.0.1").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(tls_dir: Option<&str>) -> Dock {
        Dock {
            moniker: "far".into(),
            access: Access::Tcp {
                address: "[fe80::1]:23760".into(),
                tls_dir: tls_dir.map(Into::into),
            },
            workspace: None,
            forward: crate::docks::Forward::default(),
            mounts: crate::docks::MountPaths::default(),
        }
    }

    #[test]
    fn the_printed_command_goes_to_the_dock_whatever_the_shell_has_set() {
        let env = Env::from_pairs([("HOME", "/h"), ("DOCKER_TLS_VERIFY", "1"), ("BUILDX_BUILDER", "other")]);
        let plain = choice(&tcp(None), &env).unwrap();
        assert_eq!(
            prefix(&plain.endpoint, &env).unwrap(),
            "DOCKER_TLS_VERIFY= BUILDX_BUILDER= DOCKER_HOST='tcp://[fe80::1]:23760' "
        );
        let secure = choice(&tcp(Some("/my certs")), &Env::default()).unwrap();
        assert_eq!(
            prefix(&secure.endpoint, &env).unwrap(),
            "BUILDX_BUILDER= DOCKER_HOST='tcp://[fe80::1]:23760' DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH='/my certs' "
        );
        assert_eq!(address(&tcp(None), &plain.endpoint), "fe80::1");
    }

    #[test]
    fn an_ssh_dock_is_behind_its_agent_s_socket() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        let dock = Dock {
            access: Access::Ssh(crate::docks::SshAccess {
                host: "box".into(),
                ..Default::default()
            }),
            ..tcp(None)
        };
        let choice = choice(&dock, &env).unwrap();
        assert_eq!(choice.origin, Origin::Dock("far".into()));
        assert!(matches!(&choice.endpoint, Endpoint::Unix(path) if path.starts_with(home.path())));
        assert_eq!(address(&dock, &choice.endpoint), "box");
        assert_eq!(variables(&choice.endpoint).unwrap().len(), 1);
    }

    #[test]
    fn what_would_break_a_line_is_no_value() {
        assert!(variables(&choice(&tcp(Some("/a\nDOCKER_IP=x")), &Env::default()).unwrap().endpoint).is_err());
    }
}
