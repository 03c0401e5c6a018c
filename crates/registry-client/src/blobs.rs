//! Blobs that fit into memory.

use bytes::Bytes;
use dock_client::digest::Digest;
use hyper::{Method, StatusCode};

use crate::connect::{Registry, Right, Subject, WORDS, is_absent, unexpected};
use crate::error::{Error, RegistryTrouble};
use crate::exchange::RegistryCall;

impl Registry {
    /// A blob of at most this many bytes, verified; `None` if it is not there.
    ///
    /// # Errors
    /// [`Failure::TooLarge`](crate::Failure::TooLarge) if it is larger, [`Failure::Invalid`](crate::Failure::Invalid) if
    /// it is not that of the digest, and the others.
    pub async fn blob(&self, repository: &str, digest: &Digest, most: usize) -> Result<Option<Bytes>, Error> {
        let subject = Subject {
            repository,
            reference: digest.as_str(),
        };
        let read = async {
            let url = self.url(subject, &format!("blobs/{digest}"))?;
            // What the registry says of an error is not the blob.
            let limit = most.max(WORDS);
            let reply = self
                .send(subject, Right::Read, &RegistryCall::new(Method::GET, url, limit))
                .await?;
            match reply.status {
                StatusCode::OK if reply.body.len() > most => Err(RegistryTrouble::too_large(most)),
                StatusCode::OK if Digest::of(&reply.body) != *digest => Err(RegistryTrouble::invalid(format!(
                    "its contents are {}",
                    Digest::of(&reply.body)
                ))),
                StatusCode::OK => Ok(Some(reply.body)),
                _ if is_absent(&reply) => Ok(None),
                _ => Err(unexpected(&reply)),
            }
        };
        read.await.map_err(|trouble| self.error(subject, trouble))
    }

    /// Uploads a blob, if it is not there yet.
    ///
    /// # Errors
    /// If the registry takes none, or can't be reached.
    pub async fn put_blob(&self, repository: &str, bytes: Bytes) -> Result<Digest, Error> {
        let digest = Digest::of(&bytes);
        let subject = Subject {
            repository,
            reference: digest.as_str(),
        };
        let put = self.upload(subject, &digest, bytes).await;
        put.map_err(|trouble| self.error(subject, trouble))?;
        Ok(digest)
    }

    /// The upload in two steps, which all registries know (distribution specification, "POST then PUT").
    async fn upload(&self, subject: Subject<'_>, digest: &Digest, bytes: Bytes) -> Result<(), RegistryTrouble> {
        if self.has_blob(subject, digest).await? {
            return Ok(());
        }
        let begin = RegistryCall::new(Method::POST, self.url(subject, "blobs/uploads/")?, WORDS);
        let reply = self.send(subject, Right::Write, &begin).await?;
        let mut place = match reply.status {
            StatusCode::ACCEPTED => self.led_to(&reply)?,
            StatusCode::CREATED => return Ok(()),
            _ => return Err(unexpected(&reply)),
        };
        place.query_pairs_mut().append_pair("digest", digest.as_str());
        let mut put = RegistryCall::new(Method::PUT, place, WORDS);
        put.content_type = Some("application/octet-stream".to_owned());
        put.body = bytes;
        let reply = self.send(subject, Right::Write, &put).await?;
        match reply.status {
            status if status.is_success() => Ok(()),
            // An upload whose end was answered to nobody is not known any more when it is ended again.
            StatusCode::NOT_FOUND if self.has_blob(subject, digest).await? => Ok(()),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Who may not read may write all the same: only a blob that is there counts.
    async fn has_blob(&self, subject: Subject<'_>, digest: &Digest) -> Result<bool, RegistryTrouble> {
        let there = RegistryCall::new(Method::HEAD, self.url(subject, &format!("blobs/{digest}"))?, WORDS);
        let reply = self.send(subject, Right::Write, &there).await;
        Ok(reply.is_ok_and(|reply| reply.status == StatusCode::OK))
    }
}
