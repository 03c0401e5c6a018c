//! Waiting until the server in a container that has started is ready: it answers at its port here, and takes our token.
//!
//! What was expected is asked first, which costs nothing but a connection. Where something else answers, or the server says
//! that it listens, its runtime file says where it really is: another base path, https, another port. It is read by an exec,
//! which costs an engine far more.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::label::{NotebookLabel, ServerKind};
use super::port_here::port_here;
use super::runtime_files::RuntimeFiles;
use crate::context::Context;
use crate::docker::connect::engine::Engine;
use crate::docker::containers::foreground;
use crate::docker::containers::heard::OutputCounter;
use crate::docker::containers::log::ContainerLog;
use crate::error::{Class, Error, ExitStatus, Result};
use crate::hint;
use crate::jupyter::base_path::{BasePath, encoded};
use crate::jupyter::client::{ServerAddress, ServerClient, ServerError};
use crate::jupyter::runtime_file::RuntimeFile;
use crate::jupyter::token::Token;
use crate::output::progress::waiting::WaitingRow;
use crate::output::visible;

/// How long a server may take where nothing else is said: an entrypoint may install the project first.
pub const READY_LIMIT: Duration = Duration::from_secs(600);
/// How long what was expected may take to answer, before its runtime file is looked for: something else may have the port, and
/// be silent.
const ANSWER: Duration = Duration::from_secs(2);
/// How often what was expected is asked.
const POLL: Duration = Duration::from_millis(100);
/// How long the runtime file of a server that is ready may take to be read: it only adds to what is known.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// The least time between two looks for runtime files.
const LOOK: Duration = Duration::from_millis(250);
/// The time between two looks that nothing led to, at first and at most: it grows with the time that is waited.
const UNASKED_LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// How long something must be wrong before it is an error: another server of the image may come before the one that is meant.
const SETTLED: Duration = Duration::from_secs(2);
/// How long the end of a container may take to show, where something else failed first.
const END: Duration = Duration::from_millis(500);
/// How long the last output of a container may take to come.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// So many last lines of a container that ended are shown.
const LAST_LINES: usize = 20;

/// The server that is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Awaited<'a> {
    /// The ID of its container, which was started.
    pub container: &'a str,
    /// The container's name, for messages.
    pub name: &'a str,
    /// What serves, and where that is expected.
    pub label: &'a NotebookLabel,
    /// The token that it was given.
    pub token: &'a Token,
    /// How long to wait: [`READY_LIMIT`].
    pub limit: Duration,
    /// Whether the user sees the container's output anyway.
    pub shows_log: bool,
    /// Whether its root folder is wanted, which its runtime file has: else that is not read where the server is as expected.
    pub wants_root_dir: bool,
}

/// A server that answers here.
#[derive(Clone, Debug)]
pub struct Ready {
    pub kind: ServerKind,
    /// The port of 127.0.0.1 here.
    pub port: u16,
    /// Where the server is below that; for [`ServerKind::Page`], see [`Ready::path`].
    pub base_path: BasePath,
    /// The path of the first page of something that is not Jupyter.
    pub path: String,
    /// Whether it speaks https.
    pub secure: bool,
    /// Whether its first page is JupyterLab.
    pub shows_lab: bool,
    /// Whether it lets in whoever asks, as far as that is known.
    pub is_open: bool,
    /// What its runtime file says, where that could be read.
    pub runtime: Option<RuntimeFile>,
}

impl Ready {
    /// The URL for a browser. `file` is a path below the server's root folder. With the token, which is given to a Jupyter
    /// server only, it is a secret.
    pub fn url(&self, token: &Token, file: Option<&str>) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let server = format!("{scheme}://127.0.0.1:{}", self.port);
        let page = match (self.kind, file, self.shows_lab) {
            (ServerKind::Page, _, _) => return format!("{server}{}", self.path),
            (ServerKind::Jupyter, Some(file), true) => format!("lab/tree/{}", encoded(file.trim_start_matches('/'))),
            (ServerKind::Jupyter, Some(file), false) => format!("notebooks/{}", encoded(file.trim_start_matches('/'))),
            (ServerKind::Jupyter, None, true) => "lab".to_owned(),
            (ServerKind::Jupyter, None, false) => String::new(),
        };
        format!("{server}{}?{}", self.base_path.join(&page), token.in_query())
    }

    /// A client of the server; `None` for something that is not Jupyter.
    pub fn client(&self, token: &Token) -> Option<ServerClient> {
        (self.kind == ServerKind::Jupyter).then(|| {
            ServerClient::new(
                ServerAddress::here(self.port),
                self.base_path.clone(),
                self.secure,
                token,
            )
        })
    }

    /// What the user should know: that the server lets everybody in who reaches its port.
    pub fn warning(&self) -> Option<String> {
        (self.kind == ServerKind::Jupyter && self.is_open).then(|| {
            "the server asks for no token: every user and every page of this machine can run code in it; its command line or its \
             configuration sets an empty one (ServerApp.token, IdentityProvider.token): take that out"
                .to_owned()
        })
    }
}

/// Waits until the server is ready. `local` says whether the engine is on this machine. May be called again after a link
/// was lost.
///
/// # Errors
/// A container that ends meanwhile, with its code and its last lines; a server that does not take the token, or listens where
/// nothing leads to; the time; the engine.
pub async fn wait(context: &Context, engine: &Engine, local: bool, awaited: &Awaited<'_>) -> Result<Ready> {
    let Awaited {
        container: id, name, ..
    } = *awaited;
    let text = format!("waiting for the server in container {name}");
    let _row = WaitingRow::new(&context.printer, &text, std::time::Instant::now());
    let Some(found) = foreground::find(engine, id).await? else {
        return Err(Error::failed(format!(
            "container {name} has ended, and the engine has removed it"
        )));
    };
    let ending = foreground::wait(engine, id, "not-running").await?;
    let heard = Arc::new(OutputCounter::default());
    let mut log = ContainerLog::of_running(engine, id, found.options.tty, &heard).await?;
    let mut last = LastLines::default();
    let listens = Notify::new();
    let looking = look(context, engine, local, awaited, &listens);
    let limit = tokio::time::sleep(awaited.limit);
    tokio::pin!(ending, looking, limit);
    let ended = loop {
        tokio::select! {
            ready = &mut looking => match ready {
                Ok(ready) => return Ok(ready),
                // It may be the end of the container that shows.
                Err(error) => match tokio::time::timeout(END, &mut ending).await {
                    Ok(ended) => break ended?,
                    Err(_) => return Err(error),
                },
            },
            ended = &mut ending => break ended?,
            line = next_line(&mut log) => match line {
                Some(line) => {
                    // `Jupyter Server 2.14.0 is running at: http://...`
                    if line.contains("://") {
                        listens.notify_one();
                    }
                    last.add(line);
                }
                None => log = None,
            },
            () = &mut limit => return Err(late(context, awaited, &last)),
        }
    };
    let draining = async {
        while let Some(line) = next_line(&mut log).await {
            last.add(line);
        }
    };
    // What came until then says more than nothing.
    let _ = tokio::time::timeout(LAST_OUTPUT, draining).await;
    Err(dead(context, awaited, ended, &last))
}

/// The next line of an output; `None` at its end. Without an output, there is never one.
async fn next_line(log: &mut Option<ContainerLog>) -> Option<String> {
    match log {
        Some(log) => log.next().await?.ok(),
        None => std::future::pending().await,
    }
}

/// The last lines of an output.
#[derive(Debug, Default)]
struct LastLines(VecDeque<String>);

impl LastLines {
    fn add(&mut self, line: String) {
        if self.0.len() == LAST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// Shows them, where the user has not seen them, and adds the last that says something to an error.
    fn explain(&self, context: &Context, awaited: &Awaited<'_>, error: Error) -> Error {
        let lines: Vec<&str> = self
            .0
            .iter()
            .map(String::as_str)
            .filter(|line| !line.trim().is_empty())
            .collect();
        let Some(last) = lines.last() else {
            return error;
        };
        if !awaited.shows_log {
            context.printer.excerpt(&lines.join("\n"));
        }
        error.because(visible(last))
    }
}

/// The error of a container that ended before its server was ready.
fn dead(context: &Context, awaited: &Awaited<'_>, ended: ExitStatus, last: &LastLines) -> Error {
    let class = match ended.is_success() {
        true => Class::Failed,
        false => Class::Code(ended.code()),
    };
    let error = Error::new(
        class,
        format!(
            "container {} has ended with code {} before its server answered",
            awaited.name,
            ended.code()
        ),
    );
    last.explain(context, awaited, error)
}

/// The error of a server that is not there in time.
fn late(context: &Context, awaited: &Awaited<'_>, last: &LastLines) -> Error {
    let port = awaited.label.port;
    let error = Error::failed(format!(
        "the server in container {} did not answer on port {port} within {} s; the container runs on",
        awaited.name,
        awaited.limit.as_secs()
    ))
    .hint(hint!("see what it does: docker logs -f -- {}", awaited.name));
    last.explain(context, awaited, error)
}

/// Looks until the server is ready. `listens` is told when the container says that something listens.
///
/// # Errors
/// As [`wait`], but for the end of the container.
pub(super) async fn look(
    context: &Context,
    engine: &Engine,
    local: bool,
    awaited: &Awaited<'_>,
    listens: &Notify,
) -> Result<Ready> {
    let id = awaited.container;
    let label = awaited.label;
    let Some(port) = port_here(context, engine, local, id, label.port).await? else {
        return Err(Error::failed(format!(
            "port {} of container {} is not published",
            label.port, awaited.name
        ))
        .hint(hint!(
            "start it again: docker stop -- {}, then run-notebook",
            awaited.name
        )));
    };
    let expected = ServerClient::new(ServerAddress::here(port), label.base_path(), false, awaited.token);
    if label.kind == ServerKind::Page {
        return page(&expected, port, label).await;
    }
    let search = ServerSearch {
        context,
        engine,
        local,
        awaited,
        port,
    };
    search.until_ready(&expected.within(ANSWER), listens).await
}

/// Waits until something answers.
async fn page(client: &ServerClient, port: u16, label: &NotebookLabel) -> Result<Ready> {
    loop {
        match client.page(&label.path).await {
            // What a proxy in the container says while what is behind it starts.
            Ok(status) if matches!(status.as_u16(), 502..=504) => {}
            Ok(_) => {
                return Ok(Ready {
                    kind: ServerKind::Page,
                    port,
                    base_path: BasePath::default(),
                    path: label.path.clone(),
                    secure: false,
                    shows_lab: false,
                    is_open: false,
                    runtime: None,
                });
            }
            Err(_) => {}
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What is looked for, and where.
struct ServerSearch<'a> {
    context: &'a Context,
    engine: &'a Engine,
    local: bool,
    awaited: &'a Awaited<'a>,
    /// The port here that leads to the port on which the server is expected.
    port: u16,
}

/// What a look for runtime files led to.
enum Found {
    Ready(Box<Ready>),
    /// A server that will not be ready, whatever is waited for.
    Wrong(Error),
    /// No server yet.
    Nothing,
}

impl ServerSearch<'_> {
    async fn until_ready(&self, expected: &ServerClient, listens: &Notify) -> Result<Ready> {
        let began = Instant::now();
        let mut files = RuntimeFiles::of(self.engine, self.awaited.container);
        let mut looked: Option<Instant> = None;
        let mut wrong_since: Option<Instant> = None;
        let mut is_told = false;
        loop {
            let answer = expected.status().await;
            let answers = !matches!(answer, Err(ServerError::Silent(_)));
            let pause = match answers || is_told {
                true => LOOK,
                false => (began.elapsed() / 20).clamp(UNASKED_LOOK.0, UNASKED_LOOK.1),
            };
            if answer.is_ok() {
                // Side by side: each is several round trips on a far dock.
                let look = async {
                    match self.awaited.wants_root_dir {
                        true => tokio::time::timeout(LAST_LOOK, files.read()).await,
                        false => Ok(Ok(Vec::new())),
                    }
                };
                let (found, ready) = tokio::join!(look, self.ready(expected, self.port, None, false));
                let found = found.unwrap_or_else(|_| Ok(Vec::new()))?;
                let is_it = |file: &RuntimeFile| file.port == Some(self.awaited.label.port);
                let runtime = found.into_iter().find(is_it);
                return Ok(Ready { runtime, ..ready });
            }
            if looked.is_none_or(|looked| looked.elapsed() >= pause) {
                is_told = false;
                let found = files.read().await?;
                looked = Some(Instant::now());
                let refused = match (&answer, found.is_empty()) {
                    (Err(error @ ServerError::TokenRefused(_)), true) => Some(self.refused(None, error)),
                    _ => None,
                };
                match (self.by_files(found).await?, refused) {
                    (Found::Ready(ready), _) => return Ok(*ready),
                    (Found::Wrong(error), _) | (Found::Nothing, Some(error)) => {
                        if wrong_since.get_or_insert_with(Instant::now).elapsed() >= SETTLED {
                            return Err(error);
                        }
                    }
                    (Found::Nothing, None) => wrong_since = None,
                }
            }
            tokio::select! {
                () = listens.notified() => is_told = true,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn ready(&self, client: &ServerClient, port: u16, runtime: Option<RuntimeFile>, secure: bool) -> Ready {
        // It answers: should it be slow now, its own first page is the right one, and it is as safe as it should be.
        let (shows_lab, is_open) = tokio::join!(client.shows_lab(), client.is_open());
        Ready {
            kind: ServerKind::Jupyter,
            port,
            base_path: client.base_path().clone(),
            path: client.base_path().to_string(),
            secure,
            shows_lab: shows_lab.unwrap_or_default(),
            is_open: is_open.unwrap_or_default(),
            runtime,
        }
    }

    /// Asks the servers that have left these files.
    async fn by_files(&self, files: Vec<RuntimeFile>) -> Result<Found> {
        let mut wrong = None;
        // The server that has our token is the one that is meant.
        let (ours, others): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|file| file.token.as_ref() == Some(self.awaited.token));
        for file in ours.into_iter().chain(others) {
            let Some(inside) = file.port else {
                wrong.get_or_insert_with(|| self.on_socket(&file));
                continue;
            };
            let port = match inside == self.awaited.label.port {
                true => Some(self.port),
                false => port_here(self.context, self.engine, self.local, self.awaited.container, inside).await?,
            };
            let Some(port) = port else {
                wrong.get_or_insert_with(|| self.elsewhere(inside));
                continue;
            };
            let address = ServerAddress::here(port);
            let client = ServerClient::new(address, file.base_path.clone(), file.secure, self.awaited.token);
            match client.status().await {
                Ok(_) => {
                    let secure = file.secure;
                    return Ok(Found::Ready(Box::new(
                        self.ready(&client, port, Some(file), secure).await,
                    )));
                }
                Err(error @ ServerError::TokenRefused(_)) => {
                    wrong.get_or_insert_with(|| self.refused(Some(&file), &error));
                }
                // One that is only slow lets us wait.
                Err(ServerError::Silent(cause))
                    if file.is_loopback_only() && cause.kind() != io::ErrorKind::TimedOut =>
                {
                    wrong.get_or_insert_with(|| self.inside_only());
                }
                // It is starting, or its file is an old one.
                Err(_) => {}
            }
        }
        Ok(wrong.map_or(Found::Nothing, Found::Wrong))
    }

    fn refused(&self, file: Option<&RuntimeFile>, cause: &ServerError) -> Error {
        let name = self.awaited.name;
        let own = |what: &str| {
            Error::failed(format!(
                "the server in container {name} has {what} of its own, and does not take the one that it was given"
            ))
        };
        match file {
            Some(file) if file.token.as_ref().is_some_and(|token| token != self.awaited.token) => own("a token").hint(
                "let neither its command line nor its configuration in the image set IdentityProvider.token, ServerApp.token \
                 or NotebookApp.token: the variable JUPYTER_TOKEN sets it",
            ),
            Some(file) if file.has_password => own("a password").hint(
                "let its configuration set no password (PasswordIdentityProvider.hashed_password, or ServerApp.password)",
            ),
            _ => Error::failed(format!("the server in container {name} refuses us: {cause}")).hint(hint!(
                "see what it says: docker logs -- {}",
                name
            )),
        }
    }

    fn on_socket(&self, file: &RuntimeFile) -> Error {
        let socket = file.socket.as_ref().map(|path| visible(&path.display().to_string()));
        Error::failed(format!(
            "the server in container {} listens on the socket {}, which nothing here reaches",
            self.awaited.name,
            socket.unwrap_or_default()
        ))
        .hint(hint!(
            "let it listen on a port: --ServerApp.sock= --port={}",
            self.awaited.label.port
        ))
    }

    fn inside_only(&self) -> Error {
        Error::failed(format!(
            "the server in container {} listens on 127.0.0.1 of the container only, where nothing from outside reaches it",
            self.awaited.name
        ))
        .hint("let it listen on all addresses of the container: --ip=0.0.0.0 (its port is published on 127.0.0.1 only)")
    }

    fn elsewhere(&self, inside: u16) -> Error {
        let expected = self.awaited.label.port;
        Error::failed(format!(
            "the server in container {} listens on port {inside}, but port {expected} is published",
            self.awaited.name
        ))
        .hint(hint!(
            "run-notebook --port {}; or see what has {} in the container: a server takes the next port if its own is taken",
            inside,
            expected
        ))
    }
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine, free_port};
    use serde_json::json;

    use super::super::samples::{
        awaited, connected, context, engine, frame, inspected, jupyter, port_of, printed, status, token,
    };
    use super::*;

    /// The engine's container says this, and runs on.
    fn running(engine: ScriptedEngine, said: &str) -> ScriptedEngine {
        engine
            .on("GET", "/containers/c1/logs", Reply::bytes(frame(2, said)).endless())
            .on("POST", "/containers/c1/wait", Reply::stream(&[]).endless())
    }

    async fn waited(scripted: &ScriptedEngine, label: &NotebookLabel) -> Result<Ready> {
        let engine = connected(scripted).await;
        wait(&context(scripted), &engine, true, &awaited(label, &token())).await
    }

    fn file(port: u16, base: &str, token: &str) -> String {
        let file = json!({
            "pid": 7, "port": port, "base_url": base, "token": token, "secure": false, "password": false, "sock": "",
            "root_dir": "/work", "hostname": "0.0.0.0", "version": "2.14.0", "url": "http://x:1/",
        });
        format!("file {file}\0")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_where_it_is_expected_is_ready_once_it_takes_the_token() {
        let server = jupyter();
        let port = port_of(&server);
        let engine = running(engine(port), "").on("POST", "/exec/e1/start", printed(&file(8888, "/", "s3cret")));
        let ready = waited(&engine, &NotebookLabel::jupyter(8888)).await.unwrap();
        assert_eq!((ready.port, ready.shows_lab, ready.warning()), (port, true, None));
        assert_eq!(
            ready.url(&token(), None),
            format!("http://127.0.0.1:{port}/lab?token=s3cret")
        );
        assert_eq!(
            ready.url(&token(), Some("/a b.ipynb")),
            format!("http://127.0.0.1:{port}/lab/tree/a%20b.ipynb?token=s3cret")
        );
        assert_eq!(ready.runtime.unwrap().root_dir.unwrap().to_str(), Some("/work"));
        let exec = engine.request("POST", "/containers/c1/exec").json();
        assert_eq!(exec["Cmd"][0], "sh");
        assert_eq!(exec["User"].as_str().unwrap_or_default(), "");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_command_runs_in_the_container_where_nothing_is_asked_of_the_runtime_file() {
        let server = jupyter();
        let port = port_of(&server);
        let scripted = running(engine(port), "");
        let (label, token) = (NotebookLabel::jupyter(8888), token());
        let awaited = Awaited {
            wants_root_dir: false,
            ..awaited(&label, &token)
        };
        let engine = connected(&scripted).await;
        let ready = wait(&context(&scripted), &engine, true, &awaited).await;
        assert_eq!(ready.unwrap().port, port);
        let asked = scripted.requests();
        assert!(asked.iter().all(|request| !request.path.contains("/exec")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_without_a_shell_does_without_its_file_and_another_page_than_labs_is_shown() {
        let server = jupyter();
        let port = port_of(&server);
        let engine = running(engine(port), "");
        let ready = waited(&engine, &NotebookLabel::jupyter(8888)).await.unwrap();
        assert_eq!((ready.runtime.as_ref(), ready.warning()), (None, None));
        let tree = ScriptedEngine::start().on("GET", "/api/status", status(0, 0));
        let port = port_of(&tree);
        let ready = waited(&running(self::engine(port), ""), &NotebookLabel::jupyter(8888))
            .await
            .unwrap();
        assert_eq!(
            ready.url(&token(), None),
            format!("http://127.0.0.1:{port}/?token=s3cret")
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_base_path_the_user_and_the_port_are_those_of_the_runtime_file() {
        let server = ScriptedEngine::start()
            .on("GET", "/user/ann/api/status", status(0, 0))
            .on(
                "GET",
                "/user/ann/",
                Reply::empty(302).header("Location", "/user/ann/lab?"),
            );
        let port = port_of(&server);
        // Nothing answers at the expected port, and what says so is the log; the server is another user's.
        let ports = json!({"NetworkSettings": {"Ports": {
            "8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": free_port().unwrap().to_string()}],
            "8889/tcp": [{"HostIp": "127.0.0.1", "HostPort": port.to_string()}],
        }}});
        let engine = running(
            ScriptedEngine::start()
                .on("GET", "/containers/c1/json", Reply::json(200, &inspected(1, &ports)))
                .on("POST", "/containers/c1/exec", Reply::json(201, &json!({"Id": "e1"})))
                .on("GET", "/exec/e1/json", Reply::json(200, &json!({"ExitCode": 0}))),
            "Jupyter Server 2.14.0 is running at:\nhttp://0.0.0.0:8889/user/ann/lab\n",
        )
        .on("POST", "/exec/e1/start", printed(""))
        .on("POST", "/exec/e1/start", printed("user 1000\0"))
        .on("POST", "/exec/e1/start", printed(&file(8889, "/user/ann/", "s3cret")));
        let ready = waited(&engine, &NotebookLabel::jupyter(8888)).await.unwrap();
        assert_eq!(
            ready.url(&token(), None),
            format!("http://127.0.0.1:{port}/user/ann/lab?token=s3cret")
        );
        let users: Vec<_> = engine
            .requests()
            .into_iter()
            .filter(|request| request.path == "/containers/c1/exec")
            .map(|request| request.json()["User"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(users, ["", "", "1000"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_never_will_be_ready_is_an_error_that_says_why() {
        let server = ScriptedEngine::start().on("GET", "/api/status", Reply::error(403, "Forbidden"));
        let port = port_of(&server);
        let cases = [
            (file(8888, "/", "own"), "has a token of its own"),
            (
                file(9999, "/", "s3cret"),
                "listens on port 9999, but port 8888 is published",
            ),
            (
                file(8888, "/", "").replace("\"password\":false", "\"password\":true"),
                "has a password of its own",
            ),
            (
                file(8888, "/", "s3cret").replace("\"sock\":\"\"", "\"sock\":\"/run/a.sock\""),
                "listens on the socket /run/a.sock",
            ),
            (String::new(), "refuses us"),
        ];
        let silent = free_port().unwrap();
        let local = file(8888, "/", "s3cret").replace("0.0.0.0", "localhost");
        let engine_of_silent = running(engine(silent), "").on("POST", "/exec/e1/start", printed(&local));
        let error = waited(&engine_of_silent, &NotebookLabel::jupyter(8888))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("127.0.0.1 of the container only"), "{error}");
        let checks = cases.into_iter().map(|(said, part)| async move {
            let engine = running(engine(port), "").on("POST", "/exec/e1/start", printed(&said));
            let error = waited(&engine, &NotebookLabel::jupyter(8888)).await.unwrap_err();
            assert!(error.to_string().contains(part), "{error}: {part}");
            assert!(error.hint_text().is_some());
            assert!(!format!("{error:?}").contains("s3cret"));
        });
        futures_util::future::join_all(checks).await;
        let unpublished = waited(&running(engine(port), ""), &NotebookLabel::jupyter(9000))
            .await
            .unwrap_err();
        assert!(
            unpublished
                .to_string()
                .contains("port 9000 of container nb is not published"),
            "{unpublished}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_container_that_ends_says_with_which_code_and_its_last_lines() {
        let port = free_port().unwrap();
        let engine = engine(port)
            .on(
                "GET",
                "/containers/c1/logs",
                Reply::bytes(frame(2, "starting\nModuleNotFoundError: jupyterlab\n\n")),
            )
            .on(
                "POST",
                "/containers/c1/wait",
                Reply::json(200, &json!({"StatusCode": 3})).slow(Duration::from_millis(300)),
            )
            .on("POST", "/exec/e1/start", printed(""));
        let error = waited(&engine, &NotebookLabel::jupyter(8888)).await.unwrap_err();
        assert_eq!(
            error.with_causes(),
            "container nb has ended with code 3 before its server answered: ModuleNotFoundError: jupyterlab"
        );
        assert_eq!(error.class(), Class::Code(3));
        let gone = ScriptedEngine::start();
        let error = waited(&gone, &NotebookLabel::jupyter(8888)).await.unwrap_err();
        assert!(error.to_string().contains("container nb has ended"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_is_ready_when_something_answers_and_there_is_a_limit() {
        let server = ScriptedEngine::start()
            .on("GET", "/vnc.html", Reply::error(502, "starting"))
            .on("GET", "/vnc.html", Reply::empty(302).header("Location", "/login"));
        let port = port_of(&server);
        let engine = running(engine(port), "");
        let label = NotebookLabel::page(8888, "vnc.html?a=1");
        let ready = waited(&engine, &label).await.unwrap();
        assert_eq!(
            ready.url(&token(), None),
            format!("http://127.0.0.1:{port}/vnc.html?a=1")
        );
        assert!(ready.client(&token()).is_none());
        let asked = server.requests();
        assert!(asked.iter().all(|request| request.header("authorization").is_none()));
        let silent = running(self::engine(free_port().unwrap()), "still starting\n");
        let connected = connected(&silent).await;
        let (label, token) = (NotebookLabel::page(8888, ""), token());
        let awaited = Awaited {
            limit: Duration::from_millis(500),
            ..awaited(&label, &token)
        };
        let error = wait(&context(&silent), &connected, true, &awaited).await.unwrap_err();
        assert!(error.to_string().contains("did not answer on port 8888"), "{error}");
        assert!(
            error.with_causes().ends_with("still starting"),
            "{}",
            error.with_causes()
        );
    }
}
