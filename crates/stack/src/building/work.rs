//! What build-stack is about to do with each image, as a value: made of the plan, of what was asked for, and of what the engine
//! can.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dockerutils_core::docker::build::request::BuildRequest;
use dockerutils_core::docker::options::build_options::BuildOptions;
use dockerutils_core::env::Env;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use dockerutils_core::naming::{Designation, nearest};
use dockerutils_core::ops::build::{ImagePlan, PlanStep};
use serde_json::json;

use crate::input_digest::{ANNOTATION, pinned};
use crate::plan::{Action, PlannedImage, StackPlan};
use crate::planning::{PlannedStack, Stack};
use crate::tags::StackTarget;

/// The names of default branches, where git does not know the origin's.
const DEFAULT_BRANCHES: [&str; 2] = ["main", "master"];

/// Which images are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WantedImages {
    /// All of the stack.
    #[default]
    All,
    /// These, and those that they start from.
    WithParents(Vec<String>),
    /// This one alone.
    Only(String),
}

/// What is done, and what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkOptions {
    /// Images are pushed, and copied in the registry.
    pub pushes: bool,
    /// The engine keeps annotations, and pushes them: it has containerd's store.
    pub annotates: bool,
    /// It builds with BuildKit, which takes a cache from a registry and leaves one in the image.
    pub caches: bool,
}

/// What is done with each image that is asked for; a parent before its children.
#[derive(Clone, Debug)]
pub struct StackWork {
    pub images: Vec<ImageWork>,
    pub options: WorkOptions,
}

/// What is done with an image.
#[derive(Clone, Debug)]
pub struct ImageWork {
    /// Its position among the targets of the stack.
    pub target: usize,
    /// The position in [`StackWork::images`] of the one that must be done before.
    pub needs: Option<usize>,
    pub kind: WorkKind,
    /// Tags that it gets beside the branch's.
    pub further_tags: Vec<String>,
    /// Whether it gets the tags that commands in it print: on the default branch, else each branch would move them.
    pub prints_tags: bool,
    /// Whether its tests are run.
    pub tests: bool,
    /// Whether it is removed from the engine when nothing needs it any more.
    pub prunes: bool,
}

/// One of the four things that are done with an image.
#[derive(Clone, Debug)]
pub enum WorkKind {
    /// Nothing but its further tags.
    Nothing {
        /// The digest of its manifest.
        manifest: String,
    },
    /// Its manifest gets the branch's tag in the registry; or, where nothing is pushed, the image is pulled for the tests and for the
    /// builds that start from it.
    Copy {
        /// `repository:tag`.
        from: String,
        /// The digest of its manifest.
        manifest: String,
        /// Whether the engine needs it.
        is_pulled: bool,
    },
    /// What is there is pulled and tested.
    Test {
        /// The digest of its manifest.
        manifest: String,
    },
    /// It is built, tested and pushed.
    Build {
        image: Box<ImagePlan>,
        /// The images that it starts or copies from and that are not built before it, each with its digest: where the engine has
        /// another by that name, it is pulled first.
        bases: Vec<(String, String)>,
    },
}

impl WorkKind {
    /// Whether the engine takes part.
    pub const fn needs_engine(&self) -> bool {
        match self {
            Self::Nothing { .. } => false,
            Self::Copy { is_pulled, .. } => *is_pulled,
            Self::Test { .. } | Self::Build { .. } => true,
        }
    }
}

impl WantedImages {
    /// The positions of the targets that are asked for, in their order.
    ///
    /// # Errors
    /// A name that no image has.
    pub fn positions(&self, targets: &[StackTarget]) -> Result<BTreeSet<usize>> {
        let (names, with_parents) = match self {
            Self::All => return Ok((0..targets.len()).collect()),
            Self::WithParents(names) => (names.as_slice(), true),
            Self::Only(name) => (std::slice::from_ref(name), false),
        };
        let mut found = BTreeSet::new();
        for name in names {
            let known = || targets.iter().map(|target| target.name.as_str());
            if known().all(|known| known != name) {
                let error = Error::usage(format!("the stack has no image {name:?}"));
                return Err(match nearest(name, known()) {
                    Some(near) => error.hint(hint!("did you mean {}?", near)),
                    None => {
                        let all: BTreeSet<&str> = known().collect();
                        let all = all.into_iter().collect::<Vec<_>>().join(", ");
                        error.hint(hint!("there is {names}"; names = all))
                    }
                });
            }
            for (position, target) in targets.iter().enumerate().filter(|(_, target)| target.name == *name) {
                found.insert(position);
                let mut above = target.parent.filter(|_| with_parents);
                while let Some(parent) = above {
                    found.insert(parent);
                    above = targets.get(parent).and_then(|target| target.parent);
                }
            }
        }
        Ok(found)
    }

    /// The part of a plan that is asked for.
    ///
    /// # Errors
    /// As [`positions`](Self::positions).
    pub fn part(&self, plan: &StackPlan, targets: &[StackTarget]) -> Result<StackPlan> {
        let wanted = self.positions(targets)?;
        let images = plan.images.iter().enumerate();
        let mut images: Vec<PlannedImage> = images
            .filter(|(position, _)| wanted.contains(position))
            .map(|(_, image)| image.clone())
            .collect();
        let labels: BTreeSet<String> = images.iter().map(|image| image.label.clone()).collect();
        for image in &mut images {
            image.parent = image.parent.take().filter(|parent| labels.contains(parent));
        }
        Ok(StackPlan {
            images,
            notes: plan.notes.clone(),
        })
    }
}

impl StackWork {
    /// What is done. `seen_from` is the directory from which the printed lines name files.
    ///
    /// # Errors
    /// A name that no image has; an image that is to be built on a parent which is not built, though it is stale.
    pub fn of(
        planned: &PlannedStack,
        wanted: &WantedImages,
        options: WorkOptions,
        env: &Env,
        seen_from: &Path,
    ) -> Result<Self> {
        let stack = &planned.stack;
        let positions: Vec<usize> = wanted.positions(&stack.targets)?.into_iter().collect();
        let mut images: Vec<ImageWork> = Vec::new();
        for &position in &positions {
            let (Some(target), Some(image)) = (stack.targets.get(position), planned.plan.images.get(position)) else {
                continue;
            };
            let needs = target
                .parent
                .and_then(|parent| positions.iter().position(|known| *known == parent));
            let starts = |child: &usize| {
                let is_built = planned.plan.images.get(*child);
                let is_built = is_built.is_some_and(|image| image.action == Action::Build);
                is_built
                    && stack
                        .targets
                        .get(*child)
                        .is_some_and(|child| child.parent == Some(position))
            };
            let section = stack.spec.image(&target.name);
            let prints_tags = options.pushes && has_printed_tags(stack, &target.name);
            let kind = match &image.action {
                Action::Nothing { manifest } => WorkKind::Nothing {
                    manifest: manifest.clone(),
                },
                Action::Test { manifest } => WorkKind::Test {
                    manifest: manifest.clone(),
                },
                Action::Copy { from, manifest } => WorkKind::Copy {
                    from: from.clone(),
                    manifest: manifest.clone(),
                    is_pulled: image.tests || prints_tags || (!options.pushes && positions.iter().any(starts)),
                },
                Action::Build => WorkKind::Build {
                    image: Box::new(image_plan(planned, position, options, env, seen_from)?),
                    bases: bases(planned, target, needs.is_some(), options)?,
                },
            };
            images.push(ImageWork {
                target: position,
                needs,
                kind,
                further_tags: target.commit_tag.iter().cloned().collect(),
                prints_tags,
                tests: image.tests,
                prunes: options.pushes && section.is_some_and(|section| section.prune),
            });
        }
        Ok(Self { images, options })
    }

    /// The positions of those that need this one.
    pub fn children(&self, position: usize) -> impl Iterator<Item = usize> {
        let images = self.images.iter().enumerate();
        images
            .filter(move |(_, image)| image.needs == Some(position))
            .map(|(child, _)| child)
    }
}

/// Whether an image has commands that print tags for it, and the branch is the one whose images get them.
fn has_printed_tags(stack: &Stack, name: &str) -> bool {
    let branch = stack.source.branch.as_str();
    let is_default = match &stack.history.default_branch {
        Some(default) => default == branch,
        None => DEFAULT_BRANCHES.contains(&branch),
    };
    is_default && stack.spec.image(name).is_some_and(|section| !section.tags.is_empty())
}

/// What an image is made from and what is not built before it.
fn bases(
    planned: &PlannedStack,
    target: &StackTarget,
    has_parent: bool,
    options: WorkOptions,
) -> Result<Vec<(String, String)>> {
    let outside = target.bases.iter().filter(|base| pinned(base).is_none());
    let outside = outside.filter_map(|base| Some((base.clone(), planned.bases.get(base)?.clone())));
    let mut bases: Vec<(String, String)> = outside.collect();
    let parent = target.parent.and_then(|parent| planned.plan.images.get(parent));
    match parent.map(|parent| (&parent.action, parent)) {
        Some((Action::Nothing { manifest } | Action::Test { manifest }, parent)) => {
            bases.push((parent.reference.clone(), manifest.clone()));
        }
        Some((Action::Copy { manifest, .. }, parent)) if options.pushes && has_parent => {
            bases.push((parent.reference.clone(), manifest.clone()));
        }
        // Without it, an image would say that it was made from what it was not made from.
        Some((Action::Build | Action::Copy { .. }, parent)) if options.pushes && !has_parent => {
            return Err(Error::failed(format!(
                "{} starts from {}, which is to be made first: {}",
                target.name,
                parent.label,
                parent.action.word()
            ))
            .hint(hint!("build-stack {}", target.name)));
        }
        _ => {}
    }
    Ok(bases)
}

/// The build of an image, and the equivalent docker command.
fn image_plan(
    planned: &PlannedStack,
    position: usize,
    options: WorkOptions,
    env: &Env,
    seen_from: &Path,
) -> Result<ImagePlan> {
    let stack = &planned.stack;
    let absent = || Error::failed(format!("there is no image {position}"));
    let target = stack.targets.get(position).ok_or_else(absent)?;
    let image = stack.graph.images.get(target.image).ok_or_else(absent)?;
    let inputs = planned.inputs.get(position).ok_or_else(absent)?;
    let mut given: Vec<String> = Vec::new();
    let mut give = |name: &str, value: String| given.extend([name.to_owned(), value]);
    for (name, value) in &target.arguments {
        give("--build-arg", format!("{name}={value}"));
    }
    if !target.platforms.is_empty() {
        give("--platform", target.platforms.join(","));
    }
    if options.caches {
        let section = stack.spec.image(&target.name);
        let takes_cache = section.and_then(|section| section.prepull) != Some(false);
        if let Some(cache) = cache(planned, target).filter(|_| takes_cache) {
            give("--cache-from", cache.to_string());
        }
        give("--cache-to", "type=inline".to_owned());
    }
    if options.annotates {
        give("--annotation", format!("{ANNOTATION}={}", json!(inputs)));
    }
    let parsed = BuildOptions::parse(&given, &image.directory, env).map_err(|cause| {
        Error::usage(format!("{} can't be built with what spec.yml says", image.name)).because(cause)
    })?;
    let seen = |path: &Path| -> PathBuf { path.strip_prefix(seen_from).unwrap_or(path).to_owned() };
    let mut words: Vec<String> = ["docker", "build", "--tag"].map(str::to_owned).into();
    words.extend([
        target.designation.to_string(),
        "--file".to_owned(),
        seen(&image.dockerfile).display().to_string(),
    ]);
    words.extend(given);
    words.push(seen(&image.directory).display().to_string());
    Ok(ImagePlan {
        image: target.label(&stack.spec),
        designation: target.designation.clone(),
        needs: Vec::new(),
        steps: vec![PlanStep::Build {
            words,
            request: Box::new(BuildRequest {
                context: image.directory.clone(),
                dockerfile: image.dockerfile.clone(),
                tags: vec![target.designation.to_string()],
                options: parsed,
            }),
        }],
        others: Vec::new(),
    })
}

/// The image whose layers may serve again: that of the same tag, else the first of the others that is there.
fn cache(planned: &PlannedStack, target: &StackTarget) -> Option<Designation> {
    let tags = [&target.designation.tag].into_iter().chain(&target.fallbacks);
    let mut places = tags.map(|tag| Designation {
        name: target.designation.name.clone(),
        tag: tag.clone(),
    });
    places.find(|place| planned.state.get(place).is_some_and(Option::is_some))
}

#[cfg(test)]
mod tests;
