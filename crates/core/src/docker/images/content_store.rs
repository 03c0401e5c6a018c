//! The content store of an engine that keeps its images in containerd: which blobs it has, and the blobs themselves.
//!
//! Protocol: `containerd.services.content.v1.Content` (containerd, `api/services/content/v1/content.proto`); the engine
//! serves its reading calls at `/grpc` (moby/buildkit, `control`). Engines with the classic store have no images there.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::manifest::Digest;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::grpc;
use crate::error::{Error, Result};

/// In bytes. A message of Read is a mebibyte at most, one of List some hundred blobs.
const MESSAGE_LIMIT: usize = 16 << 20;
/// More blobs than any store has.
const MOST_BLOBS: usize = 1 << 20;
/// The label by which containerd remembers the digest of a compressed layer's plain tar.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// A blob of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// In bytes.
    pub size: u64,
    /// The digest of its plain tar, if it is a compressed layer that the engine has extracted.
    pub uncompressed: Option<Digest>,
}

/// The content store of one engine, over a connection of its own. Cheap to clone.
#[derive(Clone)]
pub struct Content {
    client: Grpc<Channel>,
    engine: Engine,
}

impl Content {
    /// Connects to the content store.
    ///
    /// # Errors
    /// An engine without `/grpc`, or a broken connection.
    pub async fn open(engine: &Engine) -> Result<Self> {
        let channel = grpc::connect(engine, grpc::WINDOW).await?;
        Ok(Self {
            client: Grpc::new(channel).max_decoding_message_size(MESSAGE_LIMIT),
            engine: engine.clone(),
        })
    }

    /// All blobs.
    ///
    /// # Errors
    /// The engine's refusal or a broken connection.
    pub async fn list(&self) -> Result<HashMap<Digest, Blob>> {
        // A limit for the whole list: an engine could repeat blobs, or send empty messages, for ever.
        self.engine.answered(self.all()).await
    }

    async fn all(&self) -> Result<HashMap<Digest, Blob>> {
        let request = messages::ListContentRequest { filters: Vec::new() };
        let mut answers = self
            .call::<_, messages::ListContentResponse>("/containerd.services.content.v1.Content/List", request)
            .await
            .map_err(|status| self.error("its blobs", &status))?;
        let mut blobs = HashMap::new();
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|status| self.error("its blobs", &status))?;
            // We could not check images with blobs of other digests than SHA-256.
            blobs.extend(answer.info.into_iter().filter_map(read_info));
            if blobs.len() > MOST_BLOBS {
                let at = &self.engine.choice().endpoint;
                return Err(Error::failed(format!(
                    "the engine at {at} lists more blobs than any store has"
                )));
            }
        }
        Ok(blobs)
    }

    /// A blob from `offset` on, in pieces as they come; at most `limit` bytes where one is given.
    ///
    /// # Errors
    /// The engine's refusal, such as of a blob that is not there, and a broken connection, also in the stream.
    pub async fn read(
        &self,
        digest: &Digest,
        limit: Option<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + Unpin + use<>> {
        let request = messages::ReadContentRequest {
            digest: digest.as_str().to_owned(),
            offset: 0,
            // 0 means all the rest.
            size: limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or_default(),
        };
        let object = format!("the blob {}", digest.short());
        let answers = async {
            self.call::<_, messages::ReadContentResponse>("/containerd.services.content.v1.Content/Read", request)
                .await
                .map_err(|status| self.error(&object, &status))
        };
        let answers = self.engine.answered(answers).await?;
        let content = self.clone();
        let pieces = answers
            .map_ok(|answer| answer.data)
            .map_err(move |status| content.error(&object, &status));
        Ok(self.engine.steady(pieces))
    }

    /// A whole blob of no more than `limit` bytes, checked; `None` where it is not there.
    ///
    /// # Errors
    /// A blob that is larger or damaged, the engine's refusal, or a broken connection.
    pub async fn document(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        self.engine.answered(self.whole(digest, limit)).await
    }

    async fn whole(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        let request = messages::ReadContentRequest {
            digest: digest.as_str().to_owned(),
            offset: 0,
            size: 0,
        };
        let object = format!("the document {}", digest.short());
        let answers = self
            .call::<_, messages::ReadContentResponse>("/containerd.services.content.v1.Content/Read", request)
            .await;
        let mut answers = match answers {
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            answers => answers.map_err(|status| self.error(&object, &status))?,
        };
        let mut document = Vec::new();
        while let Some(answer) = answers.next().await {
            let answer = match answer {
                Err(status) if status.code() == Code::NotFound && document.is_empty() => return Ok(None),
                answer => answer.map_err(|status| self.error(&object, &status))?,
            };
            document.extend_from_slice(&answer.data);
            if document.len() as u64 > limit {
                return Err(Error::failed(format!(
                    "{object} on the engine at {} is larger than any image's",
                    self.engine.choice().endpoint
                )));
            }
        }
        if Digest::of(&document) != *digest {
            return Err(Error::failed(format!(
                "{object} on the engine at {} is damaged",
                self.engine.choice().endpoint
            ))
            .hint("pull or build the image there again"));
        }
        Ok(Some(document))
    }

    async fn call<M, A>(
        &self,
        path: &'static str,
        message: M,
    ) -> Result<impl Stream<Item = Result<A, Status>> + Send + Unpin + use<M, A>, Status>
    where
        M: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = self.client.clone();
        client
            .ready()
            .await
            .map_err(|cause| Status::unavailable(cause.to_string()))?;
        let codec = ProstCodec::<M, A>::default();
        let answer = client
            .server_streaming(Request::new(message), PathAndQuery::from_static(path), codec)
            .await?;
        Ok(answer.into_inner())
    }

    fn error(&self, object: &str, status: &Status) -> Error {
        let at = &self.engine.choice().endpoint;
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal => self
                .engine
                .lost(io::Error::other(format!("{object}: {}", status.message()))),
            Code::NotFound => Error::failed(format!("{object} is not on the engine at {at}")),
            _ => Error::failed(format!(
                "{object} can't be read from the engine at {at}: {}",
                crate::docker::connect::engine::one_line(status.message())
            )),
        }
    }
}

fn read_info(info: messages::Info) -> Option<(Digest, Blob)> {
    let digest = Digest::parse(&info.digest).ok()?;
    let uncompressed = info.labels.get(UNCOMPRESSED);
    Some((
        digest,
        Blob {
            size: u64::try_from(info.size).ok()?,
            uncompressed: uncompressed.and_then(|label| Digest::parse(label).ok()),
        },
    ))
}

/// The messages of `content.proto` that we exchange, without the fields that we do not read.
mod messages {
    use std::collections::HashMap;

    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::docker) struct Info {
        #[prost(string, tag = "1")]
        pub(in crate::docker) digest: String,
        #[prost(int64, tag = "2")]
        pub(in crate::docker) size: i64,
        #[prost(map = "string, string", tag = "5")]
        pub(in crate::docker) labels: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::docker) struct ListContentRequest {
        #[prost(string, repeated, tag = "1")]
        pub(in crate::docker) filters: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::docker) struct ListContentResponse {
        #[prost(message, repeated, tag = "1")]
        pub(in crate::docker) info: Vec<Info>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::docker) struct ReadContentRequest {
        #[prost(string, tag = "1")]
        pub(in crate::docker) digest: String,
        #[prost(int64, tag = "2")]
        pub(in crate::docker) offset: i64,
        #[prost(int64, tag = "3")]
        pub(in crate::docker) size: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::docker) struct ReadContentResponse {
        #[prost(bytes = "bytes", tag = "2")]
        pub(in crate::docker) data: Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn a_blob_of_the_wire_is_read() {
        // 1: "sha256:00..", 2: 5, 5: {1: label, 2: digest}; field 3, a time, is ignored.
        let digest = format!("sha256:{}", "0".repeat(64));
        let mut bytes = vec![0x0a, 71];
        bytes.extend(digest.as_bytes());
        bytes.extend([0x10, 5, 0x1a, 2, 0x08, 1]);
        let mut label = vec![0x0a, u8::try_from(UNCOMPRESSED.len()).unwrap()];
        label.extend(UNCOMPRESSED.as_bytes());
        label.extend([0x12, 71]);
        label.extend(digest.as_bytes());
        bytes.extend([0x2a, u8::try_from(label.len()).unwrap()]);
        bytes.extend(label);
        let (found, blob) = read_info(messages::Info::decode(&bytes[..]).unwrap()).unwrap();
        assert_eq!((found.as_str(), blob.size), (digest.as_str(), 5));
        assert_eq!(blob.uncompressed, Some(found));
        let other = messages::Info {
            digest: "sha512:00".into(),
            ..Default::default()
        };
        assert!(read_info(other).is_none());
    }
}
