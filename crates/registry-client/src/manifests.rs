//! Reading, writing, copying and deleting manifests.

use bytes::Bytes;
use dock_client::digest::Digest;
use hyper::{Method, StatusCode};

use crate::connect::{Registry, Right, Subject, WORDS, is_absent, unexpected};
use crate::error::{Error, Failure, RegistryTrouble};
use crate::exchange::{RegistryCall, RegistryReply};
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, INDEX, LARGEST_MANIFEST, MANIFEST, ManifestHead, RemoteManifest};
use crate::names;

/// Names the digest of what an answer is about.
const DIGEST_HEADER: &str = "docker-content-digest";
/// Says that the registry lists what was written among the referrers of this subject.
const SUBJECT_HEADER: &str = "oci-subject";

/// What a registry made of a manifest that was written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) digest: Digest,
    /// Whether it lists it among its subject's referrers.
    pub(crate) is_listed: bool,
}

impl Registry {
    /// The manifest or index of a tag or digest; `None` if there is none.
    ///
    /// # Errors
    /// [`Failure::Invalid`] if it is not a manifest, or not that of the digest; and the others.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<RemoteManifest>, Error> {
        let subject = Subject { repository, reference };
        let read = self.read_manifest(subject).await;
        read.map_err(|trouble| self.error(subject, trouble))
    }

    /// What the registry says of the manifest of a tag or digest, without its contents; `None` if there is none.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub async fn head(&self, repository: &str, reference: &str) -> Result<Option<ManifestHead>, Error> {
        let subject = Subject { repository, reference };
        let read = self.read_head(subject).await;
        read.map_err(|trouble| self.error(subject, trouble))
    }

    /// Writes a manifest or index by this tag, or by its digest. Its blobs must be there.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] beyond [`LARGEST_MANIFEST`]; [`Failure::Server`] with 400 or 404 if a blob is absent.
    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let subject = Subject { repository, reference };
        let written = self.write_manifest(subject, media_type, bytes).await;
        let written = written.map_err(|trouble| self.error(subject, trouble))?;
        Ok(written.digest)
    }

    /// Gives the manifest of this digest a tag: the same bytes are written again, and nothing else is read or moved.
    /// `None` if there is no such manifest.
    ///
    /// # Errors
    /// As [`put_manifest`](Self::put_manifest).
    pub async fn copy_tag(&self, repository: &str, from: &Digest, to: &str) -> Result<Option<Digest>, Error> {
        let Some(manifest) = self.manifest(repository, from.as_str()).await? else {
            return Ok(None);
        };
        self.put_manifest(repository, to, &manifest.media_type, manifest.bytes)
            .await
            .map(Some)
    }

    /// Deletes a manifest, and with it all its tags; or, where the registry can, a tag alone. False if it is not there.
    ///
    /// # Errors
    /// [`Failure::Server`] with 405 or 400 where the registry does not allow it: Debian's does not by default.
    pub async fn delete(&self, repository: &str, reference: &str) -> Result<bool, Error> {
        let subject = Subject { repository, reference };
        let deleted = async {
            let url = self.manifest_url(subject)?;
            let reply = self
                .send(subject, Right::Delete, &RegistryCall::new(Method::DELETE, url, WORDS))
                .await?;
            match reply.status {
                status if status.is_success() => Ok(true),
                _ if is_absent(&reply) => Ok(false),
                _ => Err(unexpected(&reply)),
            }
        };
        deleted.await.map_err(|trouble| self.error(subject, trouble))
    }

    pub(crate) async fn read_manifest(&self, subject: Subject<'_>) -> Result<Option<RemoteManifest>, RegistryTrouble> {
        self.read_manifest_within(subject, LARGEST_MANIFEST).await
    }

    /// The same, of at most so many bytes.
    pub(crate) async fn read_manifest_within(
        &self,
        subject: Subject<'_>,
        most: usize,
    ) -> Result<Option<RemoteManifest>, RegistryTrouble> {
        let mut call = RegistryCall::new(Method::GET, self.manifest_url(subject)?, most);
        call.accept = Some(accepted());
        let reply = self.send(subject, Right::Read, &call).await?;
        match reply.status {
            StatusCode::OK => {}
            _ if is_absent(&reply) => return Ok(None),
            _ => return Err(unexpected(&reply)),
        }
        let media_type = reply.media_type().to_owned();
        let manifest = RemoteManifest::read(&media_type, reply.body.clone());
        let manifest = manifest.map_err(|error| RegistryTrouble::invalid(error.to_string()))?;
        check_digest(subject.reference, &reply, &manifest.digest)?;
        Ok(Some(manifest))
    }

    pub(crate) async fn read_head(&self, subject: Subject<'_>) -> Result<Option<ManifestHead>, RegistryTrouble> {
        let mut call = RegistryCall::new(Method::HEAD, self.manifest_url(subject)?, WORDS);
        call.accept = Some(accepted());
        let reply = self.send(subject, Right::Read, &call).await?;
        let length = reply.header("content-length").and_then(|text| text.parse().ok());
        let digest = reply.header(DIGEST_HEADER).and_then(|text| Digest::parse(text).ok());
        if let (StatusCode::OK, Some(size), Some(digest)) = (reply.status, length, digest) {
            if Digest::parse(subject.reference).is_ok_and(|asked| asked != digest) {
                return Err(RegistryTrouble::invalid(format!(
                    "the registry has {digest} in its place"
                )));
            }
            return Ok(Some(ManifestHead {
                digest,
                media_type: reply.media_type().to_owned(),
                size,
            }));
        }
        // HEAD has no body that tells an absent manifest from another server's 404, and not all registries name the
        // digest.
        let read = self.read_manifest(subject).await?;
        Ok(read.map(|manifest| ManifestHead {
            digest: manifest.digest,
            media_type: manifest.media_type,
            size: manifest.bytes.len() as u64,
        }))
    }

    pub(crate) async fn write_manifest(
        &self,
        subject: Subject<'_>,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Written, RegistryTrouble> {
        if bytes.len() > LARGEST_MANIFEST {
            return Err(RegistryTrouble::new(
                Failure::TooLarge,
                format!(
                    "registries take {LARGEST_MANIFEST} bytes of a manifest, and it has {}",
                    bytes.len()
                ),
            ));
        }
        let digest = Digest::of(&bytes);
        let mut call = RegistryCall::new(Method::PUT, self.manifest_url(subject)?, WORDS);
        call.content_type = Some(media_type.to_owned());
        call.body = bytes;
        let reply = self.send(subject, Right::Write, &call).await?;
        if !reply.status.is_success() {
            return Err(unexpected(&reply));
        }
        check_digest(subject.reference, &reply, &digest)?;
        Ok(Written {
            digest,
            is_listed: reply.header(SUBJECT_HEADER).is_some(),
        })
    }

    fn manifest_url(&self, subject: Subject<'_>) -> Result<url::Url, RegistryTrouble> {
        self.url(subject, &format!("manifests/{}", names::reference(subject.reference)?))
    }
}

fn accepted() -> String {
    [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ")
}

/// That the bytes are those which were asked for, and which the registry says that they are.
fn check_digest(reference: &str, reply: &RegistryReply, digest: &Digest) -> Result<(), RegistryTrouble> {
    let said = reply.header(DIGEST_HEADER);
    let asked = Some(reference).filter(|reference| reference.contains(':'));
    match asked.into_iter().chain(said).find(|other| *other != digest.as_str()) {
        None => Ok(()),
        Some(other) => Err(RegistryTrouble::invalid(format!(
            "its contents are {digest}, and not {other}"
        ))),
    }
}
