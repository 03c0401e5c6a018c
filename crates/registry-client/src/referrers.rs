//! What refers to an image: documents of any type that were attached to its digest (distribution specification, "Listing
//! Referrers").
//!
//! Where the registry has no list of them, they are in an index by the tag `sha256-HEX` of the digest ("Referrers Tag
//! Schema"), which whoever attaches something reads, changes and writes. No registry writes on a condition: of two
//! writers who read the same index, the second undoes what the first did, and neither is told. So we look again, after
//! more time than reading and writing took, and write again if our entry is gone. A writer that took more than
//! [`PATIENCE`] times as long as we did can still undo it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dock_client::digest::Digest;
use hyper::{Method, StatusCode};

use crate::connect::{Registry, Right, Subject, has_code, unexpected};
use crate::error::{Error, Failure, RegistryTrouble};
use crate::exchange::RegistryCall;
use crate::links::{LIST, PAGE};
use crate::manifest::{EMPTY, EMPTY_BLOB, INDEX, MANIFEST, ManifestDocument, RemoteDescriptor, RemoteManifest};
use crate::many;

/// How many times as long as our own reading and writing we wait for another writer, at least this long.
const PATIENCE: u32 = 3;
const SHORTEST: Duration = Duration::from_millis(50);
/// How often the index is written.
const TRIES: u32 = 20;
/// The most pages of a list, and the most referrers that are read.
const PAGES: usize = 100;
const REFERRERS: usize = 10_000;
/// The most documents of one type that are read.
const ATTACHED: usize = 500;
/// The most bytes of the manifest of what is attached; ours have less than two thousand.
const LARGEST_ATTACHED: usize = 64 << 10;

/// Something to attach to an image.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What it is, as a media type: `application/vnd.example.verdict.v1`.
    pub artifact_type: String,
    /// They are in its manifest, and in the list of referrers.
    pub annotations: BTreeMap<String, String>,
    /// The media type of the blob.
    pub media_type: String,
    pub blob: Bytes,
}

/// Something that is attached to an image.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its manifest, whose subject is that image.
    pub manifest: RemoteManifest,
    /// Its first layer.
    pub blob: Bytes,
}

impl Registry {
    /// What the registry lists as referring to this digest, of this artifact type if one is given. Who lists it is the
    /// registry, or whoever wrote to it: [`attached`](Self::attached) reads what is listed.
    ///
    /// # Errors
    /// If the list can't be read, is too long, or did not come within [`TimeLimits::list`](crate::TimeLimits::list).
    pub async fn referrers(
        &self,
        repository: &str,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<RemoteDescriptor>, Error> {
        let subject = Subject {
            repository,
            reference: digest.as_str(),
        };
        let read = async {
            let mut found = match self.in_time(self.listed(subject)).await? {
                Some(listed) => listed,
                None => {
                    let tag = fallback_tag(digest);
                    let index = self.read_index(fallback(subject, &tag)).await?;
                    index.and_then(|index| index.document.manifests).unwrap_or_default()
                }
            };
            if let Some(artifact_type) = artifact_type {
                found.retain(|listed| listed.artifact_type.as_deref() == Some(artifact_type));
            }
            Ok(found)
        };
        read.await.map_err(|trouble| self.error(subject, trouble))
    }

    /// What is attached to this digest as this type, each with a blob of at most `most` bytes. What is listed, but is
    /// gone or refers to another image, is left out.
    ///
    /// # Errors
    /// If one can't be read, or there are more than 500: whoever may write could hide one among them.
    pub async fn attached(
        &self,
        repository: &str,
        digest: &Digest,
        artifact_type: &str,
        most: usize,
    ) -> Result<Vec<Attached>, Error> {
        let listed = self.referrers(repository, digest, Some(artifact_type)).await?;
        self.read_attached(repository, digest, &listed, artifact_type, most)
            .await
    }

    /// The same, of a list that [`referrers`](Self::referrers) gave.
    ///
    /// # Errors
    /// As [`attached`](Self::attached).
    pub async fn read_attached(
        &self,
        repository: &str,
        digest: &Digest,
        listed: &[RemoteDescriptor],
        artifact_type: &str,
        most: usize,
    ) -> Result<Vec<Attached>, Error> {
        let is_of_type = |listed: &&RemoteDescriptor| listed.artifact_type.as_deref() == Some(artifact_type);
        let listed: Vec<&RemoteDescriptor> = listed.iter().filter(is_of_type).collect();
        if listed.len() > ATTACHED {
            let subject = Subject {
                repository,
                reference: digest.as_str(),
            };
            let what = format!(
                "{} documents of the type {artifact_type} are attached to it, and {ATTACHED} are read",
                listed.len()
            );
            return Err(self.error(subject, RegistryTrouble::new(Failure::TooLarge, what)));
        }
        let read = many(listed, |listed| async move {
            let reference = listed.digest.as_str();
            let subject = Subject { repository, reference };
            let manifest = self.read_manifest_within(subject, LARGEST_ATTACHED).await;
            let Some(manifest) = manifest.map_err(|trouble| self.error(subject, trouble))? else {
                return Ok(None);
            };
            let document = &manifest.document;
            let is_ours = document
                .subject
                .as_ref()
                .is_some_and(|subject| subject.digest == *digest)
                && document.artifact_type.as_deref() == Some(artifact_type);
            let layer = document.layers.as_ref().and_then(|layers| layers.first());
            let Some(layer) = layer.filter(|_| is_ours) else {
                return Ok(None);
            };
            let blob = self.blob(repository, &layer.digest, most).await?;
            Ok(blob.map(|blob| Attached { manifest, blob }))
        });
        let read: Result<Vec<Option<Attached>>, Error> = read.await.into_iter().collect();
        Ok(read?.into_iter().flatten().collect())
    }

    /// Attaches something to the manifest of this digest, and returns how it is listed.
    ///
    /// # Errors
    /// [`Failure::Invalid`] if there is no such manifest, [`Failure::Server`] with 409 if others were quicker every
    /// time, and the others.
    pub async fn attach(
        &self,
        repository: &str,
        digest: &Digest,
        attachment: &Attachment,
    ) -> Result<RemoteDescriptor, Error> {
        let to = Subject {
            repository,
            reference: digest.as_str(),
        };
        let (subject, blob, config) = tokio::join!(
            self.head(repository, digest.as_str()),
            self.put_blob(repository, attachment.blob.clone()),
            self.put_blob(repository, Bytes::from_static(EMPTY_BLOB)),
        );
        blob?;
        config?;
        let Some(subject) = subject? else {
            return Err(self.error(
                to,
                RegistryTrouble::invalid("there is no such image to attach something to"),
            ));
        };
        let document = ManifestDocument {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(attachment.artifact_type.clone()),
            config: Some(RemoteDescriptor::of(EMPTY, EMPTY_BLOB)),
            layers: Some(vec![RemoteDescriptor::of(&attachment.media_type, &attachment.blob)]),
            subject: Some(RemoteDescriptor {
                media_type: subject.media_type,
                digest: subject.digest,
                size: subject.size,
                artifact_type: None,
                annotations: BTreeMap::new(),
                other: BTreeMap::new(),
            }),
            annotations: attachment.annotations.clone(),
            ..ManifestDocument::default()
        };
        let written = async {
            let bytes = serialized(&document)?;
            let listed = RemoteDescriptor {
                artifact_type: Some(attachment.artifact_type.clone()),
                annotations: attachment.annotations.clone(),
                ..RemoteDescriptor::of(MANIFEST, &bytes)
            };
            let itself = Subject {
                repository,
                reference: listed.digest.as_str(),
            };
            let written = self.write_manifest(itself, MANIFEST, bytes).await?;
            if !written.is_listed {
                self.list(to, digest, &listed).await?;
            }
            Ok(listed)
        };
        written.await.map_err(|trouble| self.error(to, trouble))
    }

    /// The registry's own list; `None` if it keeps none.
    async fn listed(&self, subject: Subject<'_>) -> Result<Option<Vec<RemoteDescriptor>>, RegistryTrouble> {
        let mut url = self.url(subject, &format!("referrers/{}", subject.reference))?;
        let mut found = Vec::new();
        let mut left = LIST;
        for _ in 0..PAGES {
            let mut call = RegistryCall::new(Method::GET, url, PAGE.min(left));
            call.accept = Some(INDEX.to_owned());
            let reply = self.send(subject, Right::Read, &call).await?;
            left = left.saturating_sub(reply.body.len());
            match reply.status {
                // GitHub's registry leads to a page for people.
                StatusCode::OK if reply.media_type() != INDEX => return Ok(None),
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                // Old registries take it for the name of a repository.
                _ if has_code(&reply, &["UNSUPPORTED", "NAME_INVALID"]) => return Ok(None),
                _ => return Err(unexpected(&reply)),
            }
            let page: ManifestDocument = serde_json::from_slice(&reply.body)
                .map_err(|error| RegistryTrouble::invalid(format!("its list of referrers can't be read: {error}")))?;
            let listed = page.manifests.unwrap_or_default().into_iter();
            // What we do not know takes the most room.
            found.extend(listed.map(|listed| RemoteDescriptor {
                other: BTreeMap::new(),
                ..listed
            }));
            if found.len() > REFERRERS {
                break;
            }
            match self.next_page(&reply)? {
                Some(next) => url = next,
                None => return Ok(Some(found)),
            }
        }
        Err(RegistryTrouble::new(
            Failure::TooLarge,
            "it has more referrers than are read",
        ))
    }

    /// The index by the fallback tag.
    async fn read_index(&self, subject: Subject<'_>) -> Result<Option<RemoteManifest>, RegistryTrouble> {
        let read = self.read_manifest(subject).await?;
        match &read {
            Some(manifest) if manifest.document.manifests.is_none() => Err(RegistryTrouble::invalid(format!(
                "its tag {}, which is for the list of its referrers, is an image",
                subject.reference
            ))),
            _ => Ok(read),
        }
    }

    /// Enters a referrer into the index by the fallback tag, until it is there and stays.
    async fn list(
        &self,
        subject: Subject<'_>,
        digest: &Digest,
        entry: &RemoteDescriptor,
    ) -> Result<(), RegistryTrouble> {
        let tag = fallback_tag(digest);
        let place = fallback(subject, &tag);
        let mut index = self.read_index(place).await?;
        for _ in 0..TRIES {
            let began = Instant::now();
            let mut document = match &index {
                Some(index) => index.document.clone(),
                None => ManifestDocument {
                    schema_version: 2,
                    media_type: Some(INDEX.to_owned()),
                    ..ManifestDocument::default()
                },
            };
            let entries = document.manifests.get_or_insert_default();
            if entries.iter().any(|other| other.digest == entry.digest) {
                return Ok(());
            }
            entries.push(entry.clone());
            let media_type = document.media_type.clone().unwrap_or_else(|| INDEX.to_owned());
            let written = match self.write_manifest(place, &media_type, serialized(&document)?).await {
                // Registries refuse an index of something that is gone: it was deleted, or collected.
                Err(trouble) if matches!(trouble.failure, Failure::Server(400 | 404)) => {
                    if !self.forget_gone(subject, &mut document).await? {
                        return Err(trouble);
                    }
                    self.write_manifest(place, &media_type, serialized(&document)?).await?
                }
                written => written?,
            };
            // The reading was before `began`, and took about as long as the writing.
            let wait = (began.elapsed() * 2 * PATIENCE).max(SHORTEST);
            tokio::time::sleep(wait + jitter(&entry.digest, wait)).await;
            index = self.read_index(place).await?;
            if index.as_ref().is_some_and(|index| index.digest == written.digest) {
                return Ok(());
            }
        }
        Err(RegistryTrouble::new(
            Failure::Server(409),
            format!("others write its list of referrers, {tag}, all the time"),
        ))
    }

    /// Leaves out what is not there any more; false if all is there.
    async fn forget_gone(
        &self,
        subject: Subject<'_>,
        document: &mut ManifestDocument,
    ) -> Result<bool, RegistryTrouble> {
        let entries = document.manifests.take().unwrap_or_default();
        let before = entries.len();
        let there = many(entries, |entry| async move {
            let asked = Subject {
                repository: subject.repository,
                reference: entry.digest.as_str(),
            };
            Ok(self.read_head(asked).await?.map(|_| entry.clone()))
        });
        let there: Result<Vec<Option<RemoteDescriptor>>, RegistryTrouble> = there.await.into_iter().collect();
        let there: Vec<RemoteDescriptor> = there?.into_iter().flatten().collect();
        let is_shorter = there.len() < before;
        document.manifests = Some(there);
        Ok(is_shorter)
    }
}

/// The tag of the index of what refers to a digest.
fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

const fn fallback<'a>(subject: Subject<'a>, tag: &'a str) -> Subject<'a> {
    Subject {
        repository: subject.repository,
        reference: tag,
    }
}

fn serialized(document: &ManifestDocument) -> Result<Bytes, RegistryTrouble> {
    let bytes = serde_json::to_vec(document).map_err(|error| RegistryTrouble::invalid(error.to_string()))?;
    Ok(bytes.into())
}

/// Up to as much again, another for each writer, so that two do not write in step.
fn jitter(digest: &Digest, most: Duration) -> Duration {
    let byte = u8::from_str_radix(digest.hex().get(..2).unwrap_or_default(), 16).unwrap_or_default();
    most * u32::from(byte) / 256
}
