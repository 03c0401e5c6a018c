//! One end of a transfer: a dock by its moniker, a machine by its address, this machine, or the engine that the call is for.

use std::path::PathBuf;
use std::sync::Arc;

use bollard::models::SystemInfo;

use crate::agent::{Agent, CallOptions};
use crate::context::Context;
use crate::docker::connect::dock_engine::{self, ChosenEngine};
use crate::docker::connect::endpoint::{Choice, Endpoint, Origin};
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::{self, Locality};
use crate::docker::images::image_store::Store;
use crate::docks::{Access, Dock, Docks, LOCALHOST, SshAccess, moniker};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::hint;
use crate::naming::nearest;
use crate::ops::docks::facts;

/// Where a machine's own containerd listens, and where it keeps what it has.
const SYSTEM_CONTAINERD: &str = "/run/containerd/";
const SYSTEM_CONTAINERD_ROOT: &str = "/var/lib/containerd";

/// One end of a transfer.
#[derive(Clone, Debug)]
pub struct TransferEndpoint {
    /// As people call it.
    pub name: String,
    kind: EndpointKind,
    /// The dock that was meant, perhaps, where a name is none of a dock.
    near: Option<String>,
}

/// How it is reached.
#[derive(Clone, Debug)]
enum EndpointKind {
    /// As it was chosen: the engine of the call, this machine's, or one by its address.
    Chosen(Box<ChosenEngine>),
    /// By the dock's entry.
    Dock(Box<Dock>),
    /// As a dock that is not registered: a machine by its address.
    Address(Box<Dock>),
}

impl TransferEndpoint {
    /// Where images go, or come from: a dock's moniker, `localhost`, an engine's address with its scheme, or
    /// `[user@]host[:port]` of an sshd. `key` gives the private key for the last one.
    ///
    /// # Errors
    /// A word that names neither a dock, this machine, nor an address.
    pub fn of(word: &str, key: &dyn Fn() -> Result<Option<PathBuf>>, env: &Env) -> Result<Self> {
        let named = |kind| Self {
            name: word.to_owned(),
            kind,
            near: None,
        };
        let docks = Docks::read(env)?;
        if docks.is_here(word) {
            return Ok(Self {
                name: LOCALHOST.to_owned(),
                ..named(EndpointKind::Chosen(Box::new(ChosenEngine::here(env)?)))
            });
        }
        if let Some(dock) = docks.find(word) {
            return Ok(named(EndpointKind::Dock(Box::new(dock.clone()))));
        }
        let wrong = |why: &str| {
            Error::usage(format!("{word:?} is not a place for images: {why}"))
                .hint("a dock (ls-dock lists them), [user@]host[:port], or localhost")
        };
        let address = if word.contains("://") {
            word.to_owned()
        } else {
            format!("ssh://{word}")
        };
        let odd = word.chars().any(|c| c.is_control() || c.is_whitespace());
        if odd || (!word.contains("://") && word.contains('/')) {
            return Err(wrong("that is not the name of a host"));
        }
        let endpoint = Endpoint::parse(&address, env).map_err(|error| wrong(&error.to_string()))?;
        let Endpoint::Ssh {
            destination,
            port,
            socket,
        } = endpoint
        else {
            let origin = Origin::Host;
            let engine = ChosenEngine::at(Choice { endpoint, origin }, env)?;
            return Ok(named(EndpointKind::Chosen(Box::new(engine))));
        };
        let (user, host) = match destination.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host.to_owned()),
            None => (None, destination),
        };
        let near = nearest(&host, docks.iter().map(|dock| dock.moniker.as_str())).map(str::to_owned);
        let kind = EndpointKind::Address(Box::new(Dock {
            moniker: moniker_of(&host),
            access: Access::Ssh(SshAccess {
                host,
                user,
                port,
                identity: key()?,
                docker_socket: socket,
            }),
            workspace: None,
            forward: crate::docks::Forward::None,
            mounts: crate::docks::MountPaths::default(),
        }));
        Ok(Self { near, ..named(kind) })
    }

    /// The engine that the call is for.
    ///
    /// # Errors
    /// As [`Context::engine`].
    pub fn of_call(context: &Context) -> Result<Self> {
        let engine = context.engine()?;
        let name = match engine.choice.dock() {
            Some(moniker) => moniker.to_owned(),
            None => engine.choice.endpoint.to_string(),
        };
        Ok(Self {
            name,
            kind: EndpointKind::Chosen(Box::new(engine.clone())),
            near: None,
        })
    }

    /// Connects; also anew, after a link was cut.
    ///
    /// # Errors
    /// A place that can't be reached, or no engine there.
    pub async fn connect(&self, env: &Env) -> Result<Engine> {
        match &self.kind {
            EndpointKind::Chosen(engine) => engine.connect(&CallOptions::of_terminal()).await,
            EndpointKind::Dock(dock) => dock_engine::connect(dock, env, &CallOptions::of_terminal()).await,
            EndpointKind::Address(dock) => {
                // An agent that was started for nothing but a look does not stay.
                let connected = dock_engine::connect(dock, env, &CallOptions::of_terminal().briefly()).await;
                if connected.is_err()
                    && let Some(agent) = dock_engine::agent(dock, env)?
                    && !agent.is_in_use().await
                {
                    // Perhaps there is no such machine; a name that was mistyped leaves nothing behind.
                    let _ = agent.remove().await;
                }
                match &self.near {
                    Some(near) => connected.map_err(|error| error.hint(hint!("is it the dock {}?", near))),
                    None => connected,
                }
            }
        }
    }

    /// Connects for the first time in a call; if the link existed before, and has fallen silent, waits for it.
    ///
    /// # Errors
    /// As [`TransferEndpoint::connect`], and a link that is dead.
    pub async fn connect_patiently(&self, context: &Context) -> Result<Engine> {
        match self.agent(&context.env)? {
            Some(agent) => {
                context
                    .connect_by(&agent, async || self.connect(&context.env).await)
                    .await
            }
            None => self.connect(&context.env).await,
        }
    }

    /// Says when it gives no sign of life, until that is dropped; `None` where it is reached without an agent.
    ///
    /// # Errors
    /// As [`TransferEndpoint::agent`].
    pub fn heartbeat(&self, context: &Context) -> Result<Option<Heartbeat>> {
        let agent = self.agent(&context.env)?;
        Ok(agent.map(|agent| Heartbeat::of(&agent, &context.printer, Arc::default())))
    }

    /// The agent by which it is reached; `None` where it is reached without one.
    ///
    /// # Errors
    /// A directory for sockets that can't be made.
    fn agent(&self, env: &Env) -> Result<Option<Agent>> {
        match &self.kind {
            EndpointKind::Chosen(engine) => Ok(engine.agent.clone()),
            EndpointKind::Dock(dock) | EndpointKind::Address(dock) => dock_engine::agent(dock, env),
        }
    }

    /// Bytes that are free where its engine keeps images; `None` where nobody can look.
    pub async fn free(&self, engine: &Engine, info: &SystemInfo, env: &Env) -> Option<u64> {
        let root = image_root(info)?;
        let disk = match &self.kind {
            EndpointKind::Dock(dock) | EndpointKind::Address(dock) => {
                let agent = dock_engine::agent(dock, env).ok()??;
                facts::disk(root, &agent, &CallOptions::unattended()).await
            }
            // In another file system than ours, the path says nothing here.
            _ if locality::of(engine, env).await.locality == Locality::Local => facts::own_disk(root),
            _ => None,
        };
        disk.map(|disk| disk.free)
    }
}

/// Where an engine keeps its images.
fn image_root(info: &SystemInfo) -> Option<&str> {
    let containerd = info
        .containerd
        .as_ref()
        .and_then(|containerd| containerd.address.as_deref());
    // One that the machine runs, and not dockerd, has a place of its own.
    if Store::is_containerd(info) && containerd.is_some_and(|address| address.starts_with(SYSTEM_CONTAINERD)) {
        return Some(SYSTEM_CONTAINERD_ROOT);
    }
    info.docker_root_dir.as_deref()
}

/// A moniker for a machine that is no registered dock: its host where that can be one.
fn moniker_of(host: &str) -> String {
    match moniker::check(host) {
        Ok(()) => host.to_owned(),
        Err(_) => "transfer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerdInfo;

    use super::*;
    use crate::context::GlobalArgs;
    use crate::output::{Printer, Verbosity};

    fn env(pairs: &[(&str, &str)]) -> (tempfile::TempDir, Env) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap().to_owned();
        let pairs = pairs.iter().copied().chain([("HOME", path.as_str())]);
        let env = Env::from_pairs(pairs);
        (home, env)
    }

    #[test]
    fn a_place_is_a_dock_an_address_or_this_machine() {
        let (_home, env) = env(&[]);
        crate::docks::list(&env)
            .change(|docks| {
                docks.push(Dock {
                    moniker: "far".into(),
                    access: Access::Tcp {
                        address: "10.0.0.1:2375".into(),
                        tls_dir: None,
                    },
                    workspace: None,
                    forward: crate::docks::Forward::None,
                    mounts: crate::docks::MountPaths::default(),
                });
                Ok(())
            })
            .unwrap();
        let kind = |word: &str| {
            TransferEndpoint::of(word, &|| Ok(Some("/key".into())), &env)
                .unwrap()
                .kind
        };
        assert!(matches!(kind("far"), EndpointKind::Dock(dock) if dock.moniker == "far"));
        for word in ["local", "localhost"] {
            let place = TransferEndpoint::of(word, &|| Ok(None), &env).unwrap();
            assert_eq!(place.name, "localhost");
            assert!(matches!(place.kind, EndpointKind::Chosen(engine) if engine.choice.origin == Origin::Default));
        }
        assert!(
            matches!(kind("unix:///x.sock"), EndpointKind::Chosen(engine) if engine.choice.endpoint == Endpoint::Unix("/x.sock".into()))
        );
        for (word, user, host, port) in [
            ("box", None, "box", None),
            ("ann@box:2222", Some("ann"), "box", Some(2222)),
            ("ann@[fe80::1]:22", Some("ann"), "fe80::1", Some(22)),
        ] {
            let EndpointKind::Address(dock) = kind(word) else {
                panic!("{word}")
            };
            let Access::Ssh(ssh) = dock.access else {
                panic!("{word}")
            };
            assert_eq!((ssh.user.as_deref(), ssh.host.as_str(), ssh.port), (user, host, port));
            assert_eq!(ssh.identity, Some("/key".into()));
        }
        for wrong in ["-oProxyCommand=x", "a b", "a:b:c", "box/x", "", "npipe://x"] {
            let error = TransferEndpoint::of(wrong, &|| Ok(None), &env).unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Usage, "{wrong}");
        }
    }

    #[test]
    fn local_is_this_machine_also_in_a_docked_shell() {
        let (_home, env) = env(&[("DOCKER_HOST", "tcp://10.0.0.1:2375"), ("DOCKER_IP", "10.0.0.1")]);
        let EndpointKind::Chosen(engine) = TransferEndpoint::of("localhost", &|| Ok(None), &env).unwrap().kind else {
            panic!("not local");
        };
        assert_eq!(engine.choice.endpoint, Endpoint::Unix("/var/run/docker.sock".into()));
    }

    #[test]
    fn the_source_stays_the_engine_that_the_call_has_chosen() {
        let (home, env) = env(&[]);
        let register = |address: &str| {
            let text = format!("DOCK_MONIKER=far\nDOCK_IP={address}\n");
            std::fs::write(home.path().join(".docker/far/connection_config.txt"), text).unwrap();
        };
        std::fs::create_dir_all(home.path().join(".docker/far")).unwrap();
        register("10.0.0.1");
        let printer = Printer::new("transfer-image", Verbosity::Quiet, false, &env);
        let folder = home.path().to_owned();
        let context = Context::new(env, folder, printer, GlobalArgs::default(), Some("far".into()));
        let place = TransferEndpoint::of_call(&context).unwrap();
        assert_eq!(place.name, "far");
        register("10.0.0.2");
        let EndpointKind::Chosen(engine) = TransferEndpoint::of_call(&context).unwrap().kind else {
            panic!("not chosen")
        };
        assert_eq!(engine.choice, *context.engine_choice().unwrap());
        let agent = engine.agent.unwrap();
        assert_eq!(agent.dock().access.host(), Some("10.0.0.1"));
    }

    #[test]
    fn images_lie_where_docker_is_told_to_keep_them_or_where_containerd_does() {
        let info = |store: &str, containerd: Option<&str>| SystemInfo {
            docker_root_dir: Some("/data/docker".into()),
            driver_status: Some(vec![vec!["driver-type".into(), store.into()]]),
            containerd: containerd.map(|address| ContainerdInfo {
                address: Some(address.into()),
                namespaces: None,
            }),
            ..SystemInfo::default()
        };
        let containerd = "io.containerd.snapshotter.v1";
        let machines = Some("/run/containerd/containerd.sock");
        let dockers = Some("/var/run/docker/containerd/containerd.sock");
        assert_eq!(image_root(&info("overlay2", machines)), Some("/data/docker"));
        assert_eq!(image_root(&info(containerd, dockers)), Some("/data/docker"));
        assert_eq!(image_root(&info(containerd, machines)), Some("/var/lib/containerd"));
        assert_eq!(image_root(&info(containerd, None)), Some("/data/docker"));
    }
}
