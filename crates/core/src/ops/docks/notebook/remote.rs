//! The servers of one user on a dock, by way of its agent.

use std::time::Duration;

use super::plan::is_key;
use super::script;
use crate::agent::target::{Exit, Target};
use crate::agent::{Agent, CallOptions};
use crate::error::{Error, Result};
use crate::hexadecimal;
use crate::hint;
use crate::jupyter::runtime_file::RuntimeFile;
use crate::jupyter::token::Token;
use crate::ops::docks::remote_script::{self, ScriptOutput};
use crate::output::visible;
use crate::shell;
use crate::sync::remote::login_shell;

/// How long a script may take that waits for nothing but other scripts and a login shell.
const LIMIT: Duration = Duration::from_secs(100);
/// For how many seconds a single look waits for a server to say where it listens. It is looked again: the link may break.
const LOOK_SECONDS: u32 = 5;
/// How long a server has to end by itself, once it was asked to, and when it was told to by a signal: it ends its kernels first.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// How many servers of a dock are looked at: it may tell of any number.
const SERVERS: usize = 64;
/// How many environments an error names.
const NAMED: usize = 8;

/// The servers of one user on a dock.
pub(super) struct DockServers<'a> {
    pub(super) agent: &'a Agent,
    /// The user here: several may share the user there.
    pub(super) owner: String,
    pub(super) options: CallOptions,
}

/// What is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StartRequest {
    /// Which server it is: see [`super::plan::DockNotebookPlan::key`].
    pub(super) key: String,
    /// The directory there; the home if there is none, or it is not there.
    pub(super) directory: Option<String>,
    /// The environment, by its name or path.
    pub(super) environment: Option<String>,
    /// What starts it, by a batch system: words.
    pub(super) launch: Vec<String>,
    /// Further arguments of JupyterLab.
    pub(super) arguments: Vec<String>,
}

impl StartRequest {
    /// The same with a server that listens on this address, and not on a socket.
    pub(super) fn at_address(&self, address: &str) -> Self {
        let mut request = self.clone();
        request.arguments.push(format!("--ServerApp.ip={address}"));
        request
    }

    /// Whether the arguments say where it listens, as [`script::RUN`] understands them.
    pub(super) fn says_address(&self) -> bool {
        const OPTIONS: [&str; 6] = [
            "--ip",
            "--ServerApp.ip",
            "--port",
            "--ServerApp.port",
            "--sock",
            "--ServerApp.sock",
        ];
        let mut options = self.arguments.iter().filter_map(|word| word.split('=').next());
        options.any(|option| OPTIONS.contains(&option))
    }
}

/// A server as the dock tells of it.
#[derive(Debug, Default)]
pub(super) struct ServerOnDock {
    pub(super) key: String,
    pub(super) directory: String,
    /// The environment that it was found in, if not in a login shell's PATH.
    pub(super) prefix: String,
    /// The path of `jupyter-lab`.
    pub(super) program: String,
    /// Which call has started it: what tells it from an earlier one of the same key.
    pub(super) call: String,
    /// The dock's own name for itself, and for the host on which the server runs.
    pub(super) host: String,
    pub(super) node: String,
    /// The host that has answered: of several that share a home, it may be another one at each login.
    pub(super) here: String,
    /// Whether its process runs, as far as that can be told.
    pub(super) lives: bool,
    /// Its runtime file, once it has written it.
    pub(super) runtime: Option<String>,
    /// The last lines of its log.
    pub(super) log: String,
}

/// What became of a request to start a server.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) server: ServerOnDock,
    /// Whether it ran already.
    pub(super) is_found: bool,
    /// The directory that was asked for and is not there.
    pub(super) absent: Option<String>,
}

impl DockServers<'_> {
    /// Starts a server, or finds it. `call` tells one that this call starts from others.
    ///
    /// # Errors
    /// No JupyterLab there, and a dock that can't be reached.
    pub(super) async fn start(&self, request: &StartRequest, call: &str, token: &Token) -> Result<Start> {
        let mut arguments = vec![
            request.key.as_str(),
            request.directory.as_deref().unwrap_or_default(),
            request.environment.as_deref().unwrap_or_default(),
            script::RUN,
            call,
        ];
        arguments.extend(request.launch.iter().map(String::as_str));
        let mut input = format!("{}\n", token.reveal());
        for argument in &request.arguments {
            input.push_str(argument);
            input.push('\n');
        }
        let sections = self
            .call(script::START, &arguments, input.as_bytes(), LIMIT, "start JupyterLab")
            .await?;
        let absent = sections.iter().find(|section| section.name == "absent");
        let absent = absent.map(|section| section.value.clone());
        if let Some(error) = self.no_program(&sections, request.environment.as_deref().unwrap_or_default()) {
            return Err(error);
        }
        let is_found = sections.iter().any(|section| section.name == "found");
        let mut servers = ServerOnDock::all(sections).into_iter();
        match servers.find(|server| server.key == request.key) {
            Some(server) => Ok(Start {
                server,
                is_found,
                absent,
            }),
            None => Err(self.odd()),
        }
    }

    /// How a server is, once it has said where it listens, has ended, or some seconds have passed; `None` if there is none of this
    /// key.
    ///
    /// # Errors
    /// A dock that can't be reached.
    pub(super) async fn look(&self, key: &str) -> Result<Option<ServerOnDock>> {
        self.look_for(key, LOOK_SECONDS).await
    }

    /// How a server is now.
    ///
    /// # Errors
    /// As [`DockServers::look`].
    pub(super) async fn look_now(&self, key: &str) -> Result<Option<ServerOnDock>> {
        self.look_for(key, 0).await
    }

    async fn look_for(&self, key: &str, seconds: u32) -> Result<Option<ServerOnDock>> {
        let limit = LIMIT + Duration::from_secs(u64::from(seconds));
        let sections = self
            .call(
                script::LOOK,
                &[key, &seconds.to_string()],
                b"",
                limit,
                "look at JupyterLab",
            )
            .await?;
        Ok(ServerOnDock::all(sections).into_iter().find(|server| server.key == key))
    }

    /// All servers of the user that run.
    ///
    /// # Errors
    /// A dock that can't be reached.
    pub(super) async fn list(&self) -> Result<Vec<ServerOnDock>> {
        let sections = self.call(script::LIST, &[], b"", LIMIT, "list servers").await?;
        Ok(ServerOnDock::all(sections))
    }

    /// Ends the server that this call has started: after `grace` for its own end it is told to, and killed after `patience`. A later
    /// one of the same key goes on.
    ///
    /// # Errors
    /// A server that can't be ended from here, and a dock that can't be reached.
    pub(super) async fn stop(&self, key: &str, call: &str, grace: Duration, patience: Duration) -> Result<()> {
        let [grace, patience] = [grace, patience].map(|wait| wait.as_secs().to_string());
        let sections = self
            .call(
                script::STOP,
                &[key, &grace, &patience, call],
                b"",
                LIMIT,
                "end JupyterLab",
            )
            .await?;
        let dock = &self.agent.dock().moniker;
        for section in &sections {
            match section.name.as_str() {
                "elsewhere" => {
                    return Err(Error::failed(format!(
                        "JupyterLab was started on {}, and {} leads to another host with the same home now",
                        visible(&section.value),
                        visible(dock)
                    ))
                    .hint("stop it with a dock that leads to that host, or by File > Shut Down on its page"));
                }
                "stuck" => {
                    return Err(
                        Error::failed(format!("JupyterLab on dock {dock:?} does not end")).hint(hint!(
                            "ssh-dock {} kill -9 {}",
                            dock,
                            visible(&section.value)
                        )),
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn call(
        &self,
        script: &str,
        arguments: &[&str],
        input: &[u8],
        limit: Duration,
        doing: &str,
    ) -> Result<Vec<AnswerSection>> {
        let mark = hexadecimal::random::<12>()?;
        let mut all = vec![mark.as_str(), self.owner.as_str()];
        all.extend(arguments);
        let output = remote_script::run_with_input(self.agent, script, &all, input, &self.options, limit).await?;
        sections(&output.stdout, &mark).ok_or_else(|| self.failed(&output, doing))
    }

    /// The error of a script that did not come to its end.
    fn failed(&self, output: &ScriptOutput, doing: &str) -> Error {
        let dock = &self.agent.dock().moniker;
        let error = Error::failed(format!("{} could not {doing}", visible(dock)));
        let last = output.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let error = match (last, &output.exit) {
            (Some(last), _) => error.because(visible(last)),
            (None, Exit::Code(code)) => error.because(format!("the script there ended with code {code}")),
            (None, Exit::Signal(name)) => error.because(format!("the script there was ended by SIG{}", visible(name))),
        };
        error.hint(login_shell(dock))
    }

    fn odd(&self) -> Error {
        let dock = &self.agent.dock().moniker;
        Error::failed(format!("{} did not say what became of JupyterLab", visible(dock))).hint(login_shell(dock))
    }

    /// The error if there is no JupyterLab to start.
    fn no_program(&self, sections: &[AnswerSection], environment: &str) -> Option<Error> {
        let dock = &self.agent.dock().moniker;
        sections.iter().find_map(|section| {
            let paths: Vec<&str> = section.body.lines().filter(|line| !line.is_empty()).collect();
            let named = named(&paths);
            Some(match section.name.as_str() {
                "missing" => {
                    let where_else = match paths.is_empty() {
                        true => String::new(),
                        false => format!(", nor in its environments ({named})"),
                    };
                    Error::failed(format!(
                        "there is no JupyterLab on dock {dock:?}: neither in the PATH of a login shell there{where_else}"
                    ))
                    .hint(hint!(
                        "ssh-dock {} 'python3 -m venv ~/jupyter && ~/jupyter/bin/pip install jupyterlab', then nb-dock again",
                        dock
                    ))
                }
                "several" => Error::usage(format!("several environments on dock {dock:?} have JupyterLab: {named}"))
                    .hint(hint!("nb-dock {} --env {}", dock, visible(paths.first()?))),
                "unknown" => {
                    let error = Error::usage(format!("there is no environment {environment:?} on dock {dock:?}"));
                    match paths.is_empty() {
                        true => error.hint("--env takes the name of an environment of conda, mamba or venv, or its path there"),
                        false => error.hint(hint!("it has {named}"; named = named)),
                    }
                }
                "lacking" => {
                    let python = format!("{}/bin/python", visible(&section.value));
                    Error::failed(format!(
                        "the environment {} of dock {dock:?} has no JupyterLab",
                        visible(&section.value)
                    ))
                    .hint(hint!(
                        "ssh-dock {} {}",
                        dock,
                        shell::join([python.as_str(), "-m", "pip", "install", "jupyterlab"])
                    ))
                }
                _ => return None,
            })
        })
    }
}

/// Some of these paths, in a sentence.
fn named(paths: &[&str]) -> String {
    let mut text: Vec<String> = paths.iter().take(NAMED).map(|path| visible(path)).collect();
    if paths.len() > NAMED {
        text.push("...".to_owned());
    }
    text.join(", ")
}

impl ServerOnDock {
    /// The servers that these sections tell of, as far as they can be ours.
    fn all(sections: Vec<AnswerSection>) -> Vec<Self> {
        let mut servers: Vec<Self> = Vec::new();
        for AnswerSection { name, value, body } in sections {
            if name == "server" {
                servers.push(Self {
                    key: value,
                    ..Self::default()
                });
                continue;
            }
            let Some(server) = servers.last_mut() else {
                continue;
            };
            match name.as_str() {
                "directory" => server.directory = value,
                "prefix" => server.prefix = value,
                "program" => server.program = value,
                "host" => server.host = value,
                "node" => server.node = value,
                "here" => server.here = value,
                "call" => server.call = value,
                "lives" => server.lives = value == "yes",
                "runtime" => server.runtime = Some(body),
                "log" => server.log = body,
                _ => {}
            }
        }
        servers.retain(|server| is_key(&server.key));
        servers.truncate(SERVERS);
        servers
    }

    /// What its runtime file says; `None` as long as there is none, and while it is being written.
    pub(super) fn runtime(&self) -> Option<RuntimeFile> {
        RuntimeFile::parse(self.runtime.as_deref()?.as_bytes()).ok()
    }

    /// Why its runtime file can't be read, if so.
    pub(super) fn runtime_error(&self) -> Option<String> {
        let parsed = RuntimeFile::parse(self.runtime.as_deref()?.as_bytes());
        parsed.err().map(|error| error.to_string())
    }

    /// Where the dock reaches it.
    ///
    /// # Errors
    /// A server that listens to its own host alone, which is not the dock.
    pub(super) fn target(&self, runtime: &RuntimeFile) -> Result<Target> {
        let runs_on = if self.node.is_empty() { &self.host } else { &self.node };
        // A home may be on several hosts. At the same path or port of another one, somebody else may listen.
        let of_its_host = |target| match self.here.is_empty() || self.here == *runs_on {
            true => Ok(target),
            false => Err(Error::failed(format!(
                "JupyterLab runs on {}, and listens to that host alone; {} has answered",
                visible(runs_on),
                visible(&self.here)
            ))
            .hint(match *runs_on == self.host {
                true => "register that host as a dock of its own: register-dock HOST",
                false => "leave --ip out, or give it an address that the dock reaches",
            })),
        };
        if let Some(path) = &runtime.socket {
            return of_its_host(Target::Socket {
                path: path.to_string_lossy().into_owned(),
            });
        }
        let port = runtime.port.unwrap_or_default();
        let host = match runtime.machine() {
            Some(host) => host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            None => {
                return of_its_host(Target::Tcp {
                    host: "127.0.0.1".to_owned(),
                    port,
                });
            }
        };
        Ok(Target::Tcp { host, port })
    }

    /// What it was found in, for people.
    pub(super) fn environment(&self) -> String {
        match self.prefix.is_empty() {
            true => visible(&self.program),
            false => visible(&self.prefix),
        }
    }
}

/// A part of what a script says.
#[derive(Debug, PartialEq, Eq)]
struct AnswerSection {
    name: String,
    /// The rest of its first line.
    value: String,
    /// The lines that follow.
    body: String,
}

/// The sections of what a script says, behind whatever a login shell has printed; `None` if its end is missing.
fn sections(text: &str, mark: &str) -> Option<Vec<AnswerSection>> {
    let mut sections: Vec<AnswerSection> = Vec::new();
    for line in text.lines() {
        let head = line.strip_prefix(mark).and_then(|rest| rest.strip_prefix(' '));
        match (head, sections.last_mut()) {
            (Some(head), _) => {
                let (name, value) = head.split_once(' ').unwrap_or((head, ""));
                sections.push(AnswerSection {
                    name: name.to_owned(),
                    value: value.to_owned(),
                    body: String::new(),
                });
            }
            (None, Some(section)) => {
                section.body.push_str(line);
                section.body.push('\n');
            }
            (None, None) => {}
        }
    }
    let is_whole = sections.last().is_some_and(|last| last.name == "end");
    is_whole.then_some(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Welcome!\nM1 forged\n\nM begin\n\nM found\n\nM server ../../0f3a\n\nM server 0123456789abcdef\n\nM directory /data/my ws\n\nM prefix \n\nM program \
                        /usr/bin/jupyter-lab\n\nM host login1\n\nM node node7\n\nM call c1\n\nM lives yes\n\nM runtime\n{\"pid\": 7, \"port\": 8889,\n \
                        \"hostname\": \"node7\", \"token\": \"abc\", \"base_url\": \"/\"}\n\nM log\nfirst\nlast\n\nM end\n";

    #[test]
    fn a_server_is_what_its_sections_say_and_half_of_them_say_nothing() {
        let said = sections(SAID, "M").unwrap();
        assert_eq!(said.first().map(|section| section.name.as_str()), Some("begin"));
        let servers = ServerOnDock::all(said);
        let [server] = servers.as_slice() else {
            panic!("{servers:?}")
        };
        assert_eq!(
            (server.key.as_str(), server.directory.as_str()),
            ("0123456789abcdef", "/data/my ws")
        );
        assert_eq!(server.call, "c1");
        assert!(server.lives && server.log == "first\nlast\n\n", "{server:?}");
        let runtime = server.runtime().unwrap();
        let target = server.target(&runtime).unwrap();
        assert_eq!(
            target,
            Target::Tcp {
                host: "node7".into(),
                port: 8889
            }
        );
        let cut = SAID.split_at(SAID.len() - 6).0;
        assert_eq!(sections(cut, "M"), None);
        assert_eq!(sections("", "M"), None);
    }

    #[test]
    fn a_request_for_an_address_keeps_the_rest() {
        let request = StartRequest {
            key: "0f3a".into(),
            directory: None,
            environment: None,
            launch: Vec::new(),
            arguments: vec!["--LabApp.collaborative=True".into()],
        };
        assert!(!request.says_address());
        let there = request.at_address("127.0.0.1");
        assert!(there.says_address());
        assert_eq!(
            there.arguments,
            ["--LabApp.collaborative=True", "--ServerApp.ip=127.0.0.1"]
        );
        assert_eq!(
            StartRequest {
                arguments: request.arguments.clone(),
                ..there
            },
            request
        );
    }

    #[test]
    fn a_forward_leads_to_a_socket_to_the_dock_or_to_the_host_that_the_file_names() {
        let server = |node: &str, runtime: &str| ServerOnDock {
            host: "login1".into(),
            node: node.into(),
            here: "login1".into(),
            runtime: Some(runtime.into()),
            ..ServerOnDock::default()
        };
        let target = |node: &str, runtime: &str| {
            let server = server(node, runtime);
            server.target(&server.runtime().unwrap())
        };
        assert_eq!(
            target("login1", r#"{"pid": 1, "port": 0, "sock": "/tmp/x/s"}"#).unwrap(),
            Target::Socket {
                path: "/tmp/x/s".into()
            }
        );
        assert_eq!(
            target("login1", r#"{"pid": 1, "port": 8888, "hostname": "127.0.0.1"}"#).unwrap(),
            Target::Tcp {
                host: "127.0.0.1".into(),
                port: 8888
            }
        );
        assert_eq!(
            target(
                "node7",
                r#"{"pid": 1, "port": 8888, "hostname": "0.0.0.0", "url": "http://node7:8888/"}"#
            )
            .unwrap(),
            Target::Tcp {
                host: "node7".into(),
                port: 8888
            }
        );
        assert_eq!(
            target("node7", r#"{"pid": 1, "port": 8888, "hostname": "[fd00::7]"}"#).unwrap(),
            Target::Tcp {
                host: "fd00::7".into(),
                port: 8888
            }
        );
        let alone = target("node7", r#"{"pid": 1, "port": 8888, "hostname": "localhost"}"#).unwrap_err();
        assert!(alone.to_string().contains("runs on node7"), "{alone}");
        // Another login host has the same home, and may have a stranger at that path or port.
        for runtime in [
            r#"{"pid": 1, "port": 0, "sock": "/tmp/x/s"}"#,
            r#"{"pid": 1, "port": 8888, "hostname": "127.0.0.1"}"#,
        ] {
            let mut elsewhere = server("login1", runtime);
            elsewhere.here = "login2".to_owned();
            let error = elsewhere.target(&elsewhere.runtime().unwrap()).unwrap_err();
            assert!(error.to_string().contains("runs on login1"), "{error}");
        }
        // Half of a file is waited for.
        assert!(server("login1", "{\"pid\": 1,").runtime().is_none());
    }
}
