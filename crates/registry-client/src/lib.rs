//! An OCI registry, asked directly: manifests, tags, small blobs, and what refers to an image. No engine takes part, and
//! no layer is moved.
//!
//! Protocol: OCI's distribution specification 1.1, and docker's token authentication.
//!
//! It stands on hyper and rustls, and not on `oci-client` 0.18, which sends a password to whatever realm a registry
//! names, also without TLS, goes on without a login when the token's server fails (so that an error looks as if the image were absent),
//! reads answers without a bound, follows no pages of tags, takes no client certificate, and would bring 29 more crates.
//! Of the others, `docker-registry` and `dkregistry` know no referrers, and `oci-distribution` is oci-client's former
//! name.
//!
//! ```no_run
//! use registry_client::{Options, Registry, RegistryCredentials, many};
//!
//! # async fn look() -> Result<(), registry_client::Error> {
//! let registry = Registry::connect("reg.example:5000", RegistryCredentials::Anonymous, Options::default()).await?;
//! let found = many(["2026.3-main", "2026.3-stable"], |tag| registry.manifest("team/base", tag)).await;
//! for manifest in found {
//!     // `None` is a tag that is not there.
//!     let _ = manifest?.map(|manifest| manifest.digest);
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod blobs;
mod challenge;
mod connect;
mod dial;
mod error;
mod exchange;
mod links;
mod login;
mod manifest;
mod manifests;
mod names;
mod proxies;
mod referrers;
mod tags;
#[cfg(test)]
mod tests;
mod tls;
mod untag;

use std::future::Future;

pub use challenge::Challenge;
pub use connect::{Options, Registry};
pub use dock_client::digest::Digest;
pub use error::{Error, Failure};
pub use exchange::TimeLimits;
pub use links::next_page;
pub use login::RegistryCredentials;
pub use manifest::{
    DOCKER_INDEX, DOCKER_MANIFEST, EMPTY, INDEX, LARGEST_MANIFEST, MANIFEST, ManifestDocument, ManifestHead,
    RemoteDescriptor, RemoteManifest,
};
pub use proxies::Proxies;
pub use referrers::{Attached, Attachment};
pub use untag::Placeholder;

/// Asks for many things side by side; the answers are in the order of the items. [`Options::at_once`] says how many
/// requests are under way at a time.
pub async fn many<I, F, T>(items: I, ask: impl FnMut(I::Item) -> F) -> Vec<T>
where
    I: IntoIterator,
    F: Future<Output = T>,
{
    futures_util::future::join_all(items.into_iter().map(ask)).await
}
