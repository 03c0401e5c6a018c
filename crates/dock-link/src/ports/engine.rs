//! What the dock's engine is asked, over streams of the link: its containers, and their events.
//!
//! Facts: the engine's API reference, `GET /containers/json` and `GET /events`. Paths have no version, so every engine
//! understands them in its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::forward_rules::Container;
use crate::transport::Duplex;

/// How long an engine may take to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest list of containers, in bytes.
const LIST: usize = 64 * 1024 * 1024;
/// The longest line of an event, in bytes: it has all labels of a container.
const LINE: usize = 4 * 1024 * 1024;
/// `{"type":["container","network","volume"],"event":["start","die","destroy","rename","connect","disconnect","prune"]}`:
/// events that change the ports of a container, what it is to be kept in step with, or what is known of volumes. A network
/// that a container joins or leaves may open or close its ports.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%2C%22volume%22%5D%2C%22event%22%3A%5B\
%22start%22%2C%22die%22%2C%22destroy%22%2C%22rename%22%2C%22connect%22%2C%22disconnect%22%2C%22prune%22%5D%7D";
const CONTAINERS: &str = "/containers/json";
const ALL_CONTAINERS: &str = "/containers/json?all=1";

/// A connection to an engine.
pub(crate) struct Engine {
    sender: SendRequest<Empty<Bytes>>,
    connection: JoinHandle<()>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Engine {
    pub(crate) async fn on(stream: Box<dyn Duplex>) -> io::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let connection = tokio::spawn(async move {
            // If the connection breaks, the caller that waits for a response gets an error.
            let _ = connection.await;
        });
        Ok(Self { sender, connection })
    }

    /// Whether another request can be sent on it.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// The containers that run.
    pub(super) async fn containers(&mut self) -> io::Result<Vec<Container>> {
        let asking = async {
            let response = self.get(CONTAINERS).await?;
            let body = Limited::new(response.into_body(), LIST).collect().await;
            io::Result::Ok(body.map_err(io::Error::other)?.to_bytes())
        };
        let text = timeout(LIMIT, asking).await??;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The address by which containers on its network `bridge` reach the dock itself; `None` if it has no such network, or
    /// says something else than a private address of IPv4.
    pub(crate) async fn bridge_gateway(mut self) -> io::Result<Option<Ipv4Addr>> {
        // Podman's has another name, and an engine may have none.
        let network: Option<Network> = timeout(LIMIT, self.json("/networks/bridge")).await?.ok();
        Ok(network.and_then(|network| network.gateway()))
    }

    /// The containers that run and bear this label, which must not need quoting.
    pub(crate) async fn containers_with(mut self, label: &str) -> io::Result<Vec<LabelledContainer>> {
        let path = format!("{CONTAINERS}?filters=%7B%22label%22%3A%5B%22{label}%22%5D%7D");
        let asking = async {
            let response = self.get(&path).await?;
            let body = Limited::new(response.into_body(), LIST).collect().await;
            io::Result::Ok(body.map_err(io::Error::other)?.to_bytes())
        };
        let text = timeout(LIMIT, asking).await??;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Whether it is Docker's own, which takes a range where the number of a published port is expected. Podman's does
    /// not.
    pub(super) async fn takes_ranges(&mut self) -> io::Result<bool> {
        #[derive(Deserialize)]
        struct Version {
            #[serde(rename = "Components", default)]
            components: Vec<Component>,
        }
        #[derive(Deserialize)]
        struct Component {
            #[serde(rename = "Name", default)]
            name: String,
        }
        let version: Version = self.json("/version").await?;
        let mut names = version.components.iter().map(|component| component.name.as_str());
        Ok(names.any(|name| name == "Engine"))
    }

    /// The ports that an image exposes: `80/tcp`. The name must need no escapes.
    pub(super) async fn exposed_by(&mut self, image: &str) -> io::Result<BTreeSet<String>> {
        #[derive(Deserialize)]
        struct Image {
            #[serde(rename = "Config")]
            config: Option<ImageConfig>,
        }
        #[derive(Deserialize)]
        struct ImageConfig {
            #[serde(rename = "ExposedPorts")]
            exposed: Option<BTreeMap<String, serde::de::IgnoredAny>>,
        }
        let image: Image = self.json(&format!("/images/{image}/json")).await?;
        let exposed = image.config.and_then(|config| config.exposed).unwrap_or_default();
        Ok(exposed.into_keys().collect())
    }

    /// What this volume is; `None` if there is none. The name must need no escapes.
    pub(crate) async fn volume(&mut self, name: &str) -> io::Result<Option<ShownVolume>> {
        self.found(&format!("/volumes/{name}")).await
    }

    /// What the container is that has this name or ID; `None` if there is none. The name must need no escapes.
    pub(crate) async fn container(&mut self, name: &str) -> io::Result<Option<ShownContainer>> {
        self.found(&format!("/containers/{name}/json")).await
    }

    async fn json<T: DeserializeOwned>(&mut self, path: &str) -> io::Result<T> {
        let found = self.found(path).await?;
        found.ok_or_else(|| io::Error::other(format!("the engine knows no {path}")))
    }

    async fn found<T: DeserializeOwned>(&mut self, path: &str) -> io::Result<Option<T>> {
        let response = self.ask(path).await?;
        let status = response.status();
        // Read to its end in any case: then the connection serves for the next request.
        let body = Limited::new(response.into_body(), LIST).collect().await;
        let text = body.map_err(io::Error::other)?.to_bytes();
        match status {
            StatusCode::OK => Ok(Some(serde_json::from_slice(&text)?)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(unexpected(status, path)),
        }
    }

    /// The IDs of all containers, including those that do not run.
    pub(super) async fn ids(mut self) -> io::Result<HashSet<String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Named {
            id: String,
        }
        let asking = async {
            let response = self.get(ALL_CONTAINERS).await?;
            let body = Limited::new(response.into_body(), LIST).collect().await;
            io::Result::Ok(body.map_err(io::Error::other)?.to_bytes())
        };
        let text = timeout(LIMIT, asking).await??;
        let all: Vec<Named> = serde_json::from_slice(&text)?;
        Ok(all.into_iter().map(|named| named.id).collect())
    }

    /// The events from now on.
    pub(crate) async fn events(mut self) -> io::Result<Events> {
        // An engine sends the head of its response at once.
        let response = timeout(LIMIT, self.get(EVENTS)).await??;
        Ok(Events {
            body: response.into_body(),
            text: Vec::new(),
            searched: 0,
            _engine: self,
        })
    }

    async fn get(&mut self, path: &str) -> io::Result<Response<Incoming>> {
        let response = self.ask(path).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(unexpected(status, path)),
        }
    }

    async fn ask(&mut self, path: &str) -> io::Result<Response<Incoming>> {
        let request = Request::get(path)
            .header(HOST, "docker")
            .body(Empty::new())
            .map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        self.sender.send_request(request).await.map_err(io::Error::other)
    }
}

fn unexpected(status: StatusCode, path: &str) -> io::Error {
    io::Error::other(format!("the engine answers {status} to {path}"))
}

/// A volume, as far as it tells which path it mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShownVolume {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) labels: Option<HashMap<String, String>>,
    /// Of the volume's driver.
    #[serde(default)]
    pub(crate) options: Option<HashMap<String, String>>,
}

/// A container in detail, as far as its labels tell.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShownContainer {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) config: ShownConfig,
}

/// The configuration of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShownConfig {
    #[serde(default)]
    pub(crate) labels: Option<HashMap<String, String>>,
}

/// A network, as far as its addresses go (`GET /networks/{id}` of the engine's API).
#[derive(Debug, Default, Deserialize)]
struct Network {
    #[serde(rename = "IPAM", default)]
    ipam: Option<Ipam>,
}

#[derive(Debug, Default, Deserialize)]
struct Ipam {
    #[serde(rename = "Config", default)]
    config: Option<Vec<Subnet>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subnet {
    #[serde(default)]
    subnet: Option<String>,
    #[serde(default)]
    gateway: Option<String>,
}

impl Network {
    fn gateway(&self) -> Option<Ipv4Addr> {
        let config = self.ipam.as_ref()?.config.as_ref()?;
        config.iter().find_map(Subnet::gateway)
    }
}

impl Subnet {
    /// Its gateway: as it is said, else the first address after the subnet's own, which is what the engine takes.
    fn gateway(&self) -> Option<Ipv4Addr> {
        let address = match self.gateway.as_deref().filter(|said| !said.is_empty()) {
            Some(said) => said.parse().ok()?,
            None => {
                let (first, _) = self.subnet.as_deref()?.split_once('/')?;
                Ipv4Addr::from_bits(first.parse::<Ipv4Addr>().ok()?.to_bits().checked_add(1)?)
            }
        };
        // A dock may say anything: no loopback, nobody's public address, no wildcard.
        address.is_private().then_some(address)
    }
}

/// A running container, as far as its labels tell.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct LabelledContainer {
    pub(crate) id: String,
    /// Its names, each with a slash before it.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    #[serde(default)]
    pub(crate) labels: HashMap<String, String>,
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EngineEvent {
    #[serde(rename = "Type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) action: String,
    #[serde(default)]
    pub(crate) actor: Actor,
}

/// The object of the event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Actor {
    #[serde(rename = "ID", default)]
    pub(crate) id: String,
    /// A container's labels, and more.
    #[serde(rename = "Attributes", default)]
    pub(crate) attributes: HashMap<String, String>,
}

impl EngineEvent {
    /// The container that the event is about.
    pub(crate) fn container(&self) -> &str {
        match self.kind.as_str() {
            "network" => self.actor.attributes.get("container").map_or("", String::as_str),
            _ => &self.actor.id,
        }
    }
}

/// The events of an engine, as they happen.
pub(crate) struct Events {
    body: Incoming,
    /// Bytes that do not form a whole line yet.
    text: Vec<u8>,
    /// How many of them have no line end among them.
    searched: usize,
    _engine: Engine,
}

impl Events {
    /// The next event. Dropping this future loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<EngineEvent> {
        loop {
            let unsearched = self.text.get(self.searched..).unwrap_or_default();
            if let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=self.searched + end).collect();
                self.searched = 0;
                match line.trim_ascii() {
                    [] => continue,
                    line => return Ok(serde_json::from_slice(line)?),
                }
            }
            // Whatever comes byte by byte is not searched again and again.
            self.searched = self.text.len();
            if self.text.len() > LINE {
                return Err(io::Error::other("an event that the engine sends is too long"));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                        self.text.extend_from_slice(&data);
                    }
                }
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_a_private_address_whatever_the_engine_says() {
        let of = |config: &str| {
            let network: Network = serde_json::from_str(&format!(r#"{{"IPAM":{{"Config":{config}}}}}"#)).unwrap();
            network.gateway().map(|gateway| gateway.to_string())
        };
        let gateway = |said: &str| of(&format!(r#"[{{"Subnet":"172.17.0.0/16","Gateway":"{said}"}}]"#));
        assert_eq!(gateway("172.17.0.1").as_deref(), Some("172.17.0.1"));
        assert_eq!(
            of(r#"[{"Subnet":"fd00::/80","Gateway":"fd00::1"},{"Subnet":"10.9.0.0/24"}]"#).as_deref(),
            Some("10.9.0.1")
        );
        for said in [
            "127.0.0.1",
            "0.0.0.0",
            "8.8.8.8",
            "169.254.1.1",
            "255.255.255.255",
            "* ",
            "localhost",
        ] {
            assert_eq!(gateway(said), None, "{said}");
        }
        for config in [
            "null",
            "[]",
            "[{}]",
            r#"[{"Subnet":"255.255.255.255/32"}]"#,
            r#"[{"Subnet":"x"}]"#,
        ] {
            assert_eq!(of(config), None, "{config}");
        }
        assert_eq!(serde_json::from_str::<Network>("{}").unwrap().gateway(), None);
    }
}
