//! A user's home with an ssh configuration, who answers questions, and what is run over a link.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_agent::ssh::{SshConnector, SshTransport};
use dock_link::transport::{Asker, Connection, Connector, Question, Transport, TransportError};
use dockerutils_core::agent::target::{Exec, Exit, RemoteCommand, Target};
use dockerutils_core::docks::SshAccess;
use dockerutils_core::env::Env;
use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::{SshHome, binary};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(60);

/// A user's home with an ssh configuration of its own.
pub struct Home {
    folder: tempfile::TempDir,
    ssh: SshHome,
}

impl Home {
    pub fn new(known_hosts: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ssh = SshHome::make(folder.path()).unwrap();
        ssh.trust(known_hosts).unwrap();
        let home = Self { folder, ssh };
        home.config("");
        home
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Lines of `~/.ssh/config`, before those that keep the machine's own files out.
    pub fn config(&self, lines: &str) {
        let none = self.path(".ssh/id_none");
        let lines = format!("{lines}\nHost *\n  IdentityFile {}\n", none.display());
        self.ssh.configure(&lines).unwrap();
    }

    pub fn env(&self) -> Env {
        let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.ssh.bin().display());
        Env::from_pairs([
            ("HOME", self.folder.path().to_str().unwrap()),
            ("PATH", &path),
            ("LOGNAME", "tester"),
        ])
    }

    pub fn connector(&self, access: SshAccess) -> SshConnector {
        self.connector_with(access, &[])
    }

    /// With more variables in the environment.
    pub fn connector_with(&self, access: SshAccess, more: &[(&str, &str)]) -> SshConnector {
        let env = self.env();
        let env = Env::from_pairs(env.iter().chain(more.iter().copied()));
        SshConnector::with_asking_program(access, env, Some(binary("dock-agent")))
    }
}

/// Answers questions from a list, and remembers them.
#[derive(Default)]
pub struct Answers {
    answers: Mutex<Vec<String>>,
    asked: Mutex<Vec<Question>>,
    agent: Option<PathBuf>,
}

impl Answers {
    pub fn nobody() -> Arc<Self> {
        Arc::default()
    }

    pub fn of(answers: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.iter().rev().map(|&answer| answer.to_owned()).collect()),
            ..Self::default()
        })
    }

    /// Nobody to ask, and an ssh-agent.
    pub fn with_agent(socket: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            agent: Some(socket),
            ..Self::default()
        })
    }

    pub fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }
}

impl Asker for Answers {
    fn ask(&self, question: &Question) -> Option<String> {
        self.asked.lock().unwrap().push(question.clone());
        self.answers.lock().unwrap().pop()
    }

    fn ssh_auth_sock(&self) -> Option<PathBuf> {
        self.agent.clone()
    }
}

pub fn dock() -> LabEngine {
    lab::engine("26").unwrap()
}

pub fn access(ssh: &lab::Ssh, user: &str) -> SshAccess {
    SshAccess {
        host: ssh.address.ip().to_string(),
        user: Some(user.to_owned()),
        port: (ssh.address.port() != 22).then(|| ssh.address.port()),
        identity: Some(ssh.key.clone()),
        docker_socket: None,
    }
}

/// A link, and the home that its further sessions are made from.
pub struct Link {
    link: SshTransport,
    _home: Home,
}

impl Deref for Link {
    type Target = SshTransport;

    fn deref(&self) -> &SshTransport {
        &self.link
    }
}

/// A link of a user to a dock, whose host key is known.
pub async fn link(ssh: &lab::Ssh, user: &str) -> Link {
    let home = Home::new(&ssh.known_hosts());
    let connector = home.connector(access(ssh, user));
    let connecting = connector.connect(Answers::nobody());
    let link = timeout(LONG, connecting).await.unwrap().unwrap();
    Link { link, _home: home }
}

pub fn line(line: &str) -> Target {
    Target::Exec(Exec {
        command: RemoteCommand::Line(line.to_owned()),
        pty: None,
    })
}

pub fn argv(words: &[&str]) -> Target {
    Target::Exec(Exec {
        command: RemoteCommand::Argv(words.iter().map(|&word| word.to_owned()).collect()),
        pty: None,
    })
}

pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: Exit,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

pub async fn finish(connection: Connection) -> Output {
    let Connection { mut stream, exec } = connection;
    let mut exec = exec.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let both = async {
        tokio::try_join!(stream.read_to_end(&mut stdout), exec.stderr.read_to_end(&mut stderr)).unwrap();
    };
    timeout(LONG, both).await.unwrap();
    let exit = timeout(LONG, exec.exit).await.unwrap().unwrap();
    Output { stdout, stderr, exit }
}

pub async fn run(link: &SshTransport, target: Target) -> Output {
    let mut connection = timeout(LONG, link.open(target)).await.unwrap().unwrap();
    connection.stream.shutdown().await.unwrap();
    finish(connection).await
}

/// What the engine answers to a ping.
pub async fn ping(link: &SshTransport) -> Result<String, TransportError> {
    let mut connection = timeout(LONG, link.open(Target::Engine)).await.unwrap()?;
    let request = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    connection.stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, connection.stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    Ok(answer)
}
