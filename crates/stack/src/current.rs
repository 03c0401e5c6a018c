//! The stack around a directory, and what its images are called on the branch that is checked out.

use std::path::{Path, PathBuf};

use dockerutils_core::cli::Context;
use dockerutils_core::config::stack::repository_root;
use dockerutils_core::error::Result;

use crate::graph::Graph;
use crate::history::{Checkout, CiVariables, History};
use crate::ownership;
use crate::planning;
use crate::spec::Spec;
use crate::tags::{StackTarget, TagSource, targets};

/// A stack as it is checked out.
#[derive(Clone, Debug)]
pub struct CurrentStack {
    /// The root of the repository; without git, the directory around that of the images.
    pub root: PathBuf,
    pub spec: Spec,
    pub graph: Graph,
    /// All images in all plans, a parent before its children.
    pub targets: Vec<StackTarget>,
    /// What is worth a remark.
    pub notes: Vec<String>,
}

impl CurrentStack {
    /// Reads the stack in the directory that is named, else in the usual ones. Where the tag of the branch does not matter
    /// (`any_branch`), HEAD need not be on a branch.
    ///
    /// # Errors
    /// No such stack, one of another user, what its files have against it, a branch that is not known.
    pub fn read(context: &Context, named: Option<&Path>, plan: Option<&str>, any_branch: bool) -> Result<Self> {
        Self::in_directory(
            context,
            &planning::directory(&context.working_dir, named)?,
            plan,
            any_branch,
        )
    }

    /// [`CurrentStack::read`], of the stack in this directory.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn in_directory(
        context: &Context,
        directory: &Path,
        plan: Option<&str>,
        any_branch: bool,
    ) -> Result<Self> {
        ownership::check_spec(&context.env, directory)?;
        let mut spec = Spec::read(directory)?;
        if let Some(plan) = plan {
            spec.keep_plan(plan)?;
        }
        let checkout = Checkout::around(directory)?;
        let root = repository_root(directory);
        let graph = Graph::read(&spec, directory)?;
        ownership::check_images(&context.env, directory, &graph)?;
        let ci = CiVariables::read(&context.env);
        let history = History {
            branch: checkout.branch,
            commit: checkout.commit.clone(),
            ..History::default()
        };
        let branch = match history.branch(ci.as_ref()) {
            Err(_) if any_branch => "HEAD",
            branch => branch?,
        };
        let source = TagSource {
            branch: branch.to_owned(),
            base_branch: None,
            commit: checkout.commit,
        };
        let (targets, mut notes) = targets(&spec, &graph, &source)?;
        notes.extend(graph.notes.iter().cloned());
        Ok(Self {
            root,
            spec,
            graph,
            targets,
            notes,
        })
    }
}
