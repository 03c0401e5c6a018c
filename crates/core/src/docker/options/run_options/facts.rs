//! What the client knows beside its command line.

use std::io;
use std::path::Path;

use crate::docker::connect::engine::Engine;
use crate::project_file;

/// The operating system of the engine's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineSystem {
    /// Linux.
    #[default]
    Linux,
    /// Windows.
    Windows,
}

/// What the docker client reads beside its command line. Nothing else is read, so a plan made twice from the same facts
/// is the same plan.
#[derive(Clone, Copy)]
pub struct ClientFacts<'a> {
    /// The client's environment variables: `-e NAME`, DOCKER_DEFAULT_PLATFORM, DOCKER_CONTENT_TRUST.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a whole file: `--env-file`, `--label-file`, seccomp profiles. The path is absolute when
    /// `working_dir` is.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// What relative paths are relative to.
    pub working_dir: &'a Path,
    /// The API version agreed with the engine; docker 28 speaks 1.50 at most.
    pub api_version: (u32, u32),
    /// The engine's operating system.
    pub engine_system: EngineSystem,
    /// The engine's Unix socket as a path on the engine's own machine; `--use-api-socket` mounts it.
    pub engine_socket: Option<&'a str>,
    /// Height and width of the terminal on stdout; zeros without a terminal.
    pub console_size: (usize, usize),
    /// The proxies that the client's `config.json` sets for this engine, each in both spellings: `HTTP_PROXY` and `http_proxy` with
    /// their value.
    pub proxies: &'a [(String, String)],
    /// The text of a `config.json` with the client's registry credentials, resolved, where it has any;
    /// `--use-api-socket` gives it to the container.
    pub credentials: Option<&'a str>,
}

impl<'a> ClientFacts<'a> {
    /// The facts that all commands share that run a container on this engine: its environment, and the folder that
    /// paths are relative to. Without a terminal, proxies, credentials or a shared socket.
    /// It has no terminal, no proxies and no credentials, and shares no socket.
    pub fn of(engine: &Engine, env: &'a dyn Fn(&str) -> Option<String>, working_dir: &'a Path) -> Self {
        Self {
            env,
            read_file: &project_file::read_named,
            working_dir,
            api_version: engine.client_api(),
            engine_system: match engine.greeting().os.as_str() {
                "windows" => EngineSystem::Windows,
                _ => EngineSystem::Linux,
            },
            engine_socket: None,
            console_size: (0, 0),
            proxies: &[],
            credentials: None,
        }
    }
}
