//! The engine of a run of build-stack: what it can, its builds, and the logins for its pushes.

use std::collections::BTreeMap;

use dockerutils_core::cli::Context;
use dockerutils_core::docker::build::builder::{Builder, builder_of};
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::docker::connect::locality::Locality;
use dockerutils_core::docker::images::image_store::Store;
use dockerutils_core::docker::images::push::RegistryAuth;
use dockerutils_core::error::Result;
use dockerutils_core::naming::registry;
use dockerutils_core::ops::build::{self, Builds};
use dockerutils_core::ops::publish;

use super::work::{StackWork, WorkKind};
use crate::planning::PlannedStack;

/// The engine of a run, and what it can.
pub struct BuildSite {
    pub(super) engine: Engine,
    locality: Locality,
    /// It keeps annotations, and pushes them.
    pub annotates: bool,
    /// It builds with BuildKit.
    pub caches: bool,
    pub(super) builds: Option<Builds>,
    /// The logins for pushes, by registry.
    pub(super) auths: BTreeMap<String, RegistryAuth>,
}

impl BuildSite {
    /// Connects to the engine of the call, and asks what it can.
    ///
    /// # Errors
    /// It can't be reached.
    pub async fn reach(context: &Context) -> Result<Self> {
        let engine = context.connect().await?;
        let locality = build::where_is(&engine, &context.env, &context.printer).await;
        let builder = builder_of(&engine, context.env.get("DOCKER_BUILDKIT"));
        let caches = builder == Builder::BuildKit;
        Ok(Self {
            annotates: caches && Store::is_containerd(&engine.info().await?),
            caches,
            engine,
            locality,
            builds: None,
            auths: BTreeMap::new(),
        })
    }

    /// Prepares the builds of this work, and takes the logins for its pushes: who has none is told before anything is built.
    ///
    /// # Errors
    /// docker's configuration can't be read; a registry that takes nothing without a login.
    pub async fn with_builds(
        mut self,
        context: &Context,
        planned: &PlannedStack,
        work: &StackWork,
        logins: &ClientConfig,
    ) -> Result<Self> {
        let mut plans = Vec::new();
        for image in &work.images {
            let (WorkKind::Build { image: build, .. }, Some(target)) =
                (&image.kind, planned.stack.targets.get(image.target))
            else {
                continue;
            };
            plans.push((**build).clone());
            let key = registry(&target.designation.name);
            if work.options.pushes && !self.auths.contains_key(&key) {
                let auth = publish::registry_auth(context, &self.engine, logins, &target.designation.name);
                self.auths.insert(key, auth.await?);
            }
        }
        let root = &planned.stack.directory;
        self.builds = Some(Builds::new(context, &self.engine, self.locality, root, plans)?);
        Ok(self)
    }

    /// Removes what moves on the terminal.
    pub fn finish(&self) {
        if let Some(builds) = &self.builds {
            builds.finish();
        }
    }
}
