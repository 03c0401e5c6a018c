//! A build session: the connection that we open to `/session` and on which the *engine* is the client. It asks for
//! files, secrets, registry credentials and the ssh agent while it builds.
//!
//! Protocol: HTTP/2 after an upgrade of POST `/session`, with the services that we offer named in headers
//! (moby/buildkit, `session`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::{Ssh, SshServer};
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use futures_util::{Stream, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::filesync::{FileSync, Sent, SyncedFolder, shared_key};
use super::ssh_agent::Agents;
use crate::docker::build::logins::Logins;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::grpc::SMALL_MESSAGES;
use crate::docker::connect::locality::Locality;
use crate::docker::options::build_options::{Secret, SecretSource};
use crate::error::Result;
use crate::hexadecimal;

/// In bytes. BuildKit refuses larger ones, too.
const SECRET_LIMIT: u64 = 500 * 1024;

/// An engine that answers no ping within these two times is gone: a build may be silent for hours, its session never
/// is.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a session offers.
pub struct Offer {
    /// Folders that may be read.
    pub folders: Vec<SyncedFolder>,
    /// Whether the engine that gets them is on this machine.
    pub locality: Locality,
    /// Secrets of `RUN --mount=type=secret`.
    pub secrets: Vec<Secret>,
    /// ssh agents of `RUN --mount=type=ssh`.
    pub agents: Agents,
    /// The registry logins that the engine may have.
    pub logins: Logins,
}

/// A session from which the engine serves itself; it ends when this is dropped.
pub struct BuildSession {
    id: String,
    sent: Arc<Sent>,
    // Resolves when the stream is dropped.
    ended: oneshot::Receiver<()>,
    // Dropped, it makes the server close the connection.
    _close: oneshot::Sender<()>,
}

impl BuildSession {
    /// Opens a session on this engine.
    ///
    /// # Errors
    /// The engine has no BuildKit, or went away.
    pub async fn open(engine: &Engine, offer: Offer) -> Result<Self> {
        let id = random_id()?;
        let key = offer
            .folders
            .first()
            .map_or_else(String::new, |folder| shared_key(&folder.path));
        let headers = [
            ("X-Docker-Expose-Session-Uuid", id.as_str()),
            ("X-Docker-Expose-Session-Name", "dockerutils"),
            ("X-Docker-Expose-Session-Sharedkey", key.as_str()),
            ("X-Docker-Expose-Session-Grpc-Method", "/grpc.health.v1.Health/Check"),
            ("X-Docker-Expose-Session-Grpc-Method", FileSync::METHOD),
            (
                "X-Docker-Expose-Session-Grpc-Method",
                "/moby.filesync.v1.Auth/Credentials",
            ),
            (
                "X-Docker-Expose-Session-Grpc-Method",
                "/moby.buildkit.secrets.v1.Secrets/GetSecret",
            ),
            (
                "X-Docker-Expose-Session-Grpc-Method",
                "/moby.sshforward.v1.SSH/CheckAgent",
            ),
            (
                "X-Docker-Expose-Session-Grpc-Method",
                "/moby.sshforward.v1.SSH/ForwardAgent",
            ),
        ];
        let stream = engine.hijack("/session", "h2c", &headers).await?;
        let sent = Arc::new(Sent::default());
        let router = server()
            .add_service(HealthServer::new(Healthy))
            .add_service(FileSync::new(offer.folders, offer.locality, Arc::clone(&sent)))
            .add_service(AuthServer::new(Credentials(offer.logins)))
            .add_service(SecretsServer::new(SecretStore(offer.secrets)))
            .add_service(SshServer::new(AgentForwarder(offer.agents)));
        let (alive, ended) = oneshot::channel();
        let (close, closed) = oneshot::channel::<()>();
        // One connection, then an open end: the server would close the connection at the end of the list.
        let connection = tokio_stream::once(Ok::<_, io::Error>(SessionStream { stream, _alive: alive }))
            .chain(futures_util::stream::pending());
        tokio::spawn(router.serve_with_incoming_shutdown(connection, async {
            // The session was dropped: this waits for that.
            let _ = closed.await;
        }));
        Ok(Self {
            id,
            sent,
            ended,
            _close: close,
        })
    }

    /// The name by which Solve refers to this session.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns when the engine has closed the session, or is gone.
    pub async fn ended(&mut self) {
        // The other end is dropped and never sends.
        let _ = (&mut self.ended).await;
    }

    /// What was sent so far.
    pub fn sent(&self) -> Arc<Sent> {
        Arc::clone(&self.sent)
    }
}

fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_connection_window_size(SMALL_MESSAGES)
}

/// A random ID of a build or a session.
pub(in crate::docker) fn random_id() -> Result<String> {
    hexadecimal::random::<16>()
}

use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};

/// The engine asks now and then whether we are still there.
struct Healthy;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: bollard_buildkit_proto::health::health_check_response::ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl Health for Healthy {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(serving()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("only Check is served"))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(serving())))))
    }
}

/// Credentials of registries, as docker keeps them. The engine may request any host's; [`Logins`] decides which it
/// gets.
struct Credentials(Logins);

#[tonic::async_trait]
impl Auth for Credentials {
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let login = self.0.credentials(&request.get_ref().host).await;
        Ok(Response::new(match login {
            // The protocol has no other field for a token.
            Some(login) if !login.identity_token.is_empty() => CredentialsResponse {
                username: String::new(),
                secret: login.identity_token,
            },
            Some(login) => CredentialsResponse {
                username: login.user,
                secret: login.secret,
            },
            None => CredentialsResponse::default(),
        }))
    }

    // Not exposed in the session's headers: the engine then fetches tokens by itself with the credentials.
    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("only Credentials is served"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("only Credentials is served"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("only Credentials is served"))
    }
}

/// The secrets that the build options name; read only when the engine requests them.
struct SecretStore(Vec<Secret>);

#[tonic::async_trait]
impl Secrets for SecretStore {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = &request.get_ref().id;
        let secret = self
            .0
            .iter()
            .find(|secret| secret.id == *id)
            .ok_or_else(|| Status::not_found(format!("secret {id} not found")))?;
        let data = match &secret.source {
            SecretSource::Environment { value, .. } => value.clone().into_bytes(),
            SecretSource::File(path) => {
                let cannot =
                    |cause: io::Error| Status::invalid_argument(format!("secret {id}: {}: {cause}", path.display()));
                let file = tokio::fs::File::open(path).await.map_err(cannot)?;
                let mut data = Vec::new();
                file.take(SECRET_LIMIT + 1)
                    .read_to_end(&mut data)
                    .await
                    .map_err(cannot)?;
                data
            }
        };
        if data.len() as u64 > SECRET_LIMIT {
            return Err(Status::invalid_argument(format!("secret {id} is larger than 500 KiB")));
        }
        Ok(Response::new(GetSecretResponse { data }))
    }
}

/// Bridges the build's ssh agent sockets to those on this machine.
struct AgentForwarder(Agents);

impl AgentForwarder {
    fn socket(&self, id: &str) -> Result<&std::path::Path, Status> {
        let id = if id.is_empty() { "default" } else { id };
        self.0
            .socket(id)
            .ok_or_else(|| Status::not_found(format!("no ssh agent {id} was given: add `--ssh {id}` to build_args")))
    }
}

#[tonic::async_trait]
impl Ssh for AgentForwarder {
    async fn check_agent(&self, request: Request<CheckAgentRequest>) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.get_ref().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    type ForwardAgentStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn forward_agent(
        &self,
        request: Request<tonic::Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request
            .metadata()
            .get("buildkit.ssh.id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let path = self.socket(&id)?;
        let agent = tokio::net::UnixStream::connect(path)
            .await
            .map_err(|cause| Status::unavailable(format!("the ssh agent at {}: {cause}", path.display())))?;
        let (from_agent, mut to_agent) = agent.into_split();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                if to_agent.write_all(&message.data).await.is_err() {
                    return;
                }
            }
            let _ = to_agent.shutdown().await;
        });
        let outgoing = tokio_util::io::ReaderStream::new(from_agent).map(|chunk| {
            chunk
                .map(|data| BytesMessage { data: data.to_vec() })
                .map_err(|cause| Status::unavailable(cause.to_string()))
        });
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// The hijacked connection, in the form that tonic's server needs.
struct SessionStream {
    stream: TokioIo<Upgraded>,
    _alive: oneshot::Sender<()>,
}

impl tonic::transport::server::Connected for SessionStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for SessionStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hyper::http;

    const REQUESTS: usize = 20_000;

    /// Requests the first file: a message in its envelope (not compressed, two bytes); its type, field 1, is REQ.
    const REQUEST: &[u8] = b"\0\0\0\0\x02\x08\x01";

    /// A hostile engine may name any host in its request.
    #[tokio::test]
    async fn an_engine_that_asks_for_the_login_of_another_registry_hears_that_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let login = serde_json::json!({ "auth": "dTpw" });
        let auths = serde_json::json!({ "named.example": login, "other.example": login });
        std::fs::write(
            folder.path().join("config.json"),
            serde_json::json!({ "auths": auths }).to_string(),
        )
        .unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM named.example/x\n").unwrap();
        let config = Arc::new(crate::docker::connect::client_config::ClientConfig::read(folder.path()).unwrap());
        let request = crate::docker::build::BuildRequest {
            context: folder.path().to_owned(),
            dockerfile: folder.path().join("Dockerfile"),
            tags: Vec::new(),
            options: crate::docker::options::build_options::BuildOptions::default(),
        };
        let endpoint =
            crate::docker::connect::endpoint::Endpoint::parse("ssh://box", &crate::env::Env::default()).unwrap();
        let asked = |locality, host: &'static str| {
            let service = Credentials(Logins::of_build(&config, &endpoint, locality, &request));
            async move {
                let request = Request::new(CredentialsRequest { host: host.to_owned() });
                service.credentials(request).await.unwrap().into_inner().secret
            }
        };
        assert_eq!(asked(Locality::Docked, "named.example").await, "p");
        assert_eq!(asked(Locality::Docked, "other.example").await, "");
        assert_eq!(asked(Locality::Local, "other.example").await, "p");
    }

    /// Opens a transfer of a folder with one file, and requests it so many times; returns what came.
    async fn asked_for_one_file(times: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let context = SyncedFolder {
            name: "context".to_owned(),
            path: folder.path().to_owned(),
            bound: crate::docker::build::buildkit::filesync::Bound::None,
            linked: None,
        };
        let (ours, engines) = tokio::io::duplex(1 << 20);
        let service = FileSync::new(vec![context], Locality::Local, Arc::default());
        let connection = tokio_stream::once(Ok::<_, io::Error>(ours)).chain(futures_util::stream::pending());
        tokio::spawn(server().add_service(service).serve_with_incoming(connection));
        // The same limits in the other direction, where messages are as small.
        let engine = h2::client::Builder::new()
            .initial_connection_window_size(SMALL_MESSAGES)
            .handshake(engines);
        let (mut client, connection) = engine.await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post("http://engine/moby.filesync.v1.FileSync/DiffCopy")
            .header("content-type", "application/grpc")
            .header("dir-name", "context")
            .body(())
            .unwrap();
        let (response, mut requests) = client.send_request(request, false).unwrap();
        let mut packets = response.await.unwrap().into_body();
        let mut said = Vec::new();
        // An empty STAT marks the end of the list of files.
        while !said.ends_with(&[0; 5]) {
            said.extend_from_slice(&packets.data().await.unwrap().unwrap());
        }
        for _ in 0..times {
            // It may have ended the transfer.
            if requests.send_data(Bytes::from_static(REQUEST), false).is_err() {
                break;
            }
        }
        let mut came = Vec::new();
        // The end of a file is a message of the same size.
        while came.len() < times * REQUEST.len()
            && let Some(Ok(packet)) = packets.data().await
        {
            packets.flow_control().release_capacity(packet.len()).unwrap();
            came.extend_from_slice(&packet);
        }
        came
    }

    /// BuildKit requests all files as soon as it knows them, each with a frame of its own.
    #[tokio::test]
    async fn an_engine_may_ask_for_many_files_before_the_first_is_sent() {
        assert_eq!(asked_for_one_file(REQUESTS).await.len(), REQUESTS * REQUEST.len());
    }

    #[tokio::test]
    async fn an_engine_that_asks_for_the_same_file_for_ever_is_told_to_stop() {
        let came = asked_for_one_file(70_000).await;
        assert!(came.len() < 70_000 * REQUEST.len(), "{}", came.len());
        assert!(String::from_utf8_lossy(&came).contains("again and again"));
    }
}
