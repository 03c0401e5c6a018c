//! AWS as moto plays it: a server on this machine, to which AWS_ENDPOINT_URL leads.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::python;

/// Python takes seconds to begin, and more on a machine that is busy compiling.
const START: Duration = Duration::from_secs(60);
/// Runs the server until stdin ends, so that it goes with the test however the test goes.
const KEEPER: &str = "\"$0\" -H 127.0.0.1 -p 0 2>&1 & server=$!; cat >/dev/null; kill $server; wait";

/// A server, running until it is dropped. It knows account 123456789012, and lets everybody in.
#[derive(Debug)]
pub struct Moto {
    address: String,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Moto {
    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    /// Without python3 and PyPI, or when it does not listen.
    pub fn start() -> Self {
        let commands = python::MOTO.commands().expect("moto, from PyPI");
        let mut child = Command::new("sh")
            .args(["-c", KEEPER])
            .arg(commands.join("moto_server"))
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, listening) = mpsc::channel();
        thread::spawn(move || {
            // Read to the end: a server whose output nobody reads would stop.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("Running on http://") {
                    // The test that waited has gone where this fails.
                    let _ = sender.send(address.trim().to_owned());
                }
            }
        });
        let stdin = child.stdin.take();
        Self {
            address: listening.recv_timeout(START).expect("moto listens"),
            child,
            stdin,
        }
    }

    /// Its address, for AWS_ENDPOINT_URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls an action of a service that speaks JSON, such as ECR's `DescribeRepositories`; by HTTP and nothing else, so
    /// that no fault of the SDK under test can hide itself.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn ecr(&self, region: &str, action: &str, arguments: &Value) -> Value {
        let body = arguments.to_string();
        let mut stream = TcpStream::connect(&self.address).expect("moto listens");
        stream.set_read_timeout(Some(START)).expect("a limit above zero");
        write!(
            stream,
            "POST / HTTP/1.0\r\nHost: api.ecr.{region}.amazonaws.com\r\n\
             X-Amz-Target: AmazonEC2ContainerRegistry_V20150921.{action}\r\n\
             Content-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/{region}/ecr/aws4_request\r\n\r\n{body}",
            body.len()
        )
        .expect("moto reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("moto answers");
        let answer = String::from_utf8_lossy(&answer);
        let (_, body) = answer.split_once("\r\n\r\n").expect("moto speaks HTTP");
        serde_json::from_str(body).unwrap_or_default()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Its keeper ends it. What fails now fails no test.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
