//! A Jupyter server in a container, as tests start it by themselves: what is tested is the image, or the browser.

use std::net::SocketAddr;

use dockerutils_test_support::http::{self, HttpResponse};
use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::{capture, capture_text};
use dockerutils_test_support::wait::{self, PATIENCE};
use serde_json::{Value, json};

/// The servers' token.
pub const TOKEN: &str = "a-token-of-the-tests";

/// A container with a server on port 8888; it is removed when this is dropped.
#[derive(Debug)]
pub struct Jupyter {
    engine: LabEngine,
    container: String,
    address: SocketAddr,
    token: String,
    /// The path under which the server answers, without a slash at its end.
    base: String,
}

impl Jupyter {
    /// Starts a container of this image on the machine's own engine, with these options of `docker run` and this command
    /// (or none), and waits until its server answers.
    ///
    /// # Panics
    /// When the container ends, or its server does not answer in time.
    pub fn start(engine: &LabEngine, image: &str, options: &[&str], command: &[&str]) -> Self {
        let mut run = engine.docker();
        run.args(["run", "--detach", "--publish=127.0.0.1::8888", "--label"]);
        run.arg(lab::label().expect("the lab"));
        run.args(["--env", "JUPYTER_TOKEN"]).env("JUPYTER_TOKEN", TOKEN);
        let container = capture_text(run.args(options).arg(image).args(command)).expect("a container");
        let mut jupyter = Self {
            engine: engine.clone(),
            container,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: TOKEN.to_owned(),
            base: String::new(),
        };
        jupyter.address = jupyter
            .docker(&["port", &jupyter.container, "8888"])
            .parse()
            .expect("docker names the address");
        wait::until("an answer of the server", || {
            let state = jupyter.docker(&["inspect", "--format={{.State.Running}}", &jupyter.container]);
            assert_eq!(state, "true", "the container has ended:\n{}", jupyter.log());
            jupyter.get("/api/status").status == 200
        });
        jupyter
    }

    /// The server that `run-notebook --json` tells of.
    ///
    /// # Panics
    /// When that is no server.
    pub fn told(engine: &LabEngine, server: &Value) -> Self {
        let text = |name: &str| server[name].as_str().expect("a server's field").to_owned();
        let url = text("url");
        let (address, path) = url
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .expect("a URL");
        let page = path.split('?').next().unwrap_or_default();
        let base = page
            .rsplit_once("lab")
            .map_or("", |(base, _)| base.trim_end_matches('/'));
        Self {
            engine: engine.clone(),
            container: text("container"),
            address: address.parse().expect("an address"),
            token: text("token"),
            base: if base.is_empty() {
                String::new()
            } else {
                format!("/{base}")
            },
        }
    }

    /// The container's number.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Where it is published.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a page, with the token.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{}{path}?token={}", self.address, self.base, self.token)
    }

    /// Asks the server; status 0 if it does not answer.
    pub fn get(&self, path: &str) -> HttpResponse {
        self.send("GET", path, &Value::Null)
    }

    /// Sends JSON to the server; status 0 if it does not answer.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> HttpResponse {
        let token = format!("Authorization: token {}", self.token);
        let path = &format!("{}{path}", self.base);
        let fields = [token.as_str(), "Content-Type: application/json"];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        http::send(self.address, method, path, &fields, body.as_bytes(), PATIENCE).unwrap_or(HttpResponse {
            status: 0,
            body: Vec::new(),
        })
    }

    /// Saves a notebook for Python with these code cells (and an empty one if there are none), as JupyterLab does.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn save_notebook(&self, path: &str, cells: &[&str]) {
        let cells = if cells.is_empty() { &[""] } else { cells };
        let cells: Vec<Value> = cells
            .iter()
            .enumerate()
            .map(|(index, code)| cell(index, code))
            .collect();
        let content = json!({
            "cells": cells,
            "metadata": {
                "kernelspec": { "display_name": "Python 3", "language": "python", "name": "python3" },
                "language_info": { "file_extension": ".py", "name": "python" },
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        });
        let model = json!({ "type": "notebook", "format": "json", "content": content });
        let answer = self.send("PUT", &format!("/api/contents/{path}"), &model);
        assert!(
            [200, 201].contains(&answer.status),
            "{}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
    }

    /// What a command prints in the container, without the space around it.
    ///
    /// # Panics
    /// When it fails.
    pub fn exec(&self, command: &[&str]) -> String {
        self.docker(&[&["exec", &self.container], command].concat())
    }

    /// What the container has printed so far, on both streams.
    pub fn log(&self) -> String {
        let output = self.engine.docker().args(["logs", &self.container]).output();
        let output = output.expect("docker runs");
        [output.stdout, output.stderr]
            .map(|stream| String::from_utf8_lossy(&stream).into_owned())
            .concat()
    }

    /// What docker prints on this engine.
    ///
    /// # Panics
    /// When it fails.
    pub fn docker(&self, arguments: &[&str]) -> String {
        capture_text(self.engine.docker().args(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn cell(index: usize, code: &str) -> Value {
    json!({
        "cell_type": "code",
        "execution_count": null,
        "id": format!("cell-{index}"),
        "metadata": {},
        "outputs": [],
        "source": code,
    })
}

impl Drop for Jupyter {
    fn drop(&mut self) {
        // What a test leaves behind on its way out fails no test.
        let _ = capture(
            self.engine
                .docker()
                .args(["rm", "--force", "--volumes", &self.container]),
        );
    }
}
