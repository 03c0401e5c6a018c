//! The tags of a repository, all pages of them.

use std::collections::BTreeSet;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::connect::{Registry, Right, Subject, is_absent, unexpected};
use crate::error::{Error, Failure, RegistryTrouble};
use crate::exchange::{RegistryCall, RegistryReply};
use crate::links::{self, LIST, PAGE};

/// The most pages and tags.
const PAGES: usize = 1000;
const TAGS: usize = 100_000;
/// How many tags we ask for in one page. Registries have limits of their own.
const ASKED: usize = 1000;

/// A page of tags.
#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

impl Registry {
    /// The tags of a repository in the order of their names; `None` if there is no such repository.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] if there are more than a hundred thousand, [`Failure::Unreachable`] if they did not come
    /// within [`TimeLimits::list`](crate::TimeLimits::list), and the others.
    pub async fn tags(&self, repository: &str) -> Result<Option<Vec<String>>, Error> {
        let subject = Subject {
            repository,
            reference: "",
        };
        let read = self.in_time(self.read_tags(subject)).await;
        read.map_err(|trouble| self.error(subject, trouble))
    }

    async fn read_tags(&self, subject: Subject<'_>) -> Result<Option<Vec<String>>, RegistryTrouble> {
        let mut tags = BTreeSet::new();
        let mut url = self.url(subject, &format!("tags/list?n={ASKED}"))?;
        let mut left = LIST;
        for _ in 0..PAGES {
            let call = RegistryCall::new(Method::GET, url, PAGE.min(left));
            let reply = self.send(subject, Right::Read, &call).await?;
            left = left.saturating_sub(reply.body.len());
            match reply.status {
                StatusCode::OK => {}
                _ if is_absent(&reply) => return Ok(None),
                _ => return Err(unexpected(&reply)),
            }
            let page: Tags = serde_json::from_slice(&reply.body)
                .map_err(|error| RegistryTrouble::invalid(format!("its list of tags can't be read: {error}")))?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > TAGS {
                break;
            }
            match self.next_page(&reply)? {
                Some(next) => url = next,
                None => return Ok(Some(tags.into_iter().collect())),
            }
        }
        Err(RegistryTrouble::new(
            Failure::TooLarge,
            "it has more tags than are read",
        ))
    }

    /// The next page of a list, which is at the registry itself.
    pub(crate) fn next_page(&self, reply: &RegistryReply) -> Result<Option<Url>, RegistryTrouble> {
        let Some(target) = reply.header("link").and_then(links::next_page) else {
            return Ok(None);
        };
        match reply.url.join(target) {
            Ok(url) if self.is_home(&url) => Ok(Some(url)),
            _ => Err(RegistryTrouble::invalid(
                "the next page of its list is at another place",
            )),
        }
    }
}
