//! What the tests of kind "real" share: the sites where an image is built, homes with docks, the trees in images, packages
//! of Python, AWS as moto plays it, and Jupyter servers.
//!
//! A test runs on all ten sites (five engines, two builders each) side by side:
//!
//! ```no_run
//! use dockerutils_test_support::Sandbox;
//! use dockerutils_tests::site::{self, Site};
//!
//! site::everywhere(|site: &Site| {
//!     let sandbox = Sandbox::named("a-name-of-this-test-alone");
//!     let _images = site.images("a-name-of-this-test-alone");
//!     site.build_image(&sandbox).args(["web", "--json"]).any_stdout().run();
//! });
//! ```
// Like the sandbox's: a harness fails its test by panicking, an error to be handled would only be unwrapped.
#![expect(clippy::panic, clippy::expect_used, reason = "a harness fails its test by panicking")]

pub mod debian_clients;
pub mod dock_home;
pub mod far;
pub mod jupyter;
pub mod moto;
pub mod moving;
pub mod notebook_project;
pub mod packed;
pub mod python;
pub mod site;
pub mod tree;
pub mod user_manager;
