//! What the images of a stack are called: `<prefix>-<branch>`, and the arguments by which a child finds its parent.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use dockerutils_core::docker::build::dockerfile::Dockerfile;
use dockerutils_core::docker::build::dockerfile::source::DockerfileSource;
use dockerutils_core::docker::options::build_options::BuildOptions;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use dockerutils_core::naming::{Designation, TAG_LENGTH, canonical, is_tag, legal_tag, split_reference};

use registry_client::Digest;

use crate::graph::{Graph, StackImage};
use crate::spec::{PlanSpec, Spec};

/// The branch whose tag would be that of the images that proved good.
pub const STABLE: &str = "stable";
/// The build argument with the parent's tag.
pub(crate) const BASE_TAG: &str = "BASE_TAG";
/// The build argument with the parent's whole name, where the Dockerfile declares it.
pub(crate) const BASE_IMAGE: &str = "BASE_IMAGE";
/// How many digits of a commit a tag has.
const COMMIT_DIGITS: usize = 7;
/// How many digits of a digest tell two branches apart.
const MARK_DIGITS: usize = 6;

/// What the tags are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagSource {
    /// The branch that is built.
    pub branch: String,
    /// The branch that it is meant for, where that is known.
    pub base_branch: Option<String>,
    /// The commit, for `tag.sha`.
    pub commit: Option<String>,
}

/// An image in a plan: what is built, tested and pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackTarget {
    /// The image's position in [`Graph::images`].
    pub image: usize,
    /// The image's name.
    pub name: String,
    /// The plan's name.
    pub plan: String,
    /// The position of the parent's target.
    pub parent: Option<usize>,
    /// Where it is pushed.
    pub designation: Designation,
    /// Its tag with the commit, with `tag.sha`.
    pub commit_tag: Option<String>,
    /// Tags under which the same may be already, in the order in which they are looked at.
    pub fallbacks: Vec<String>,
    /// All arguments of its build.
    pub arguments: BTreeMap<String, String>,
    /// The images outside of the stack that it is made from.
    pub bases: BTreeSet<String>,
    pub platforms: Vec<String>,
}

impl StackTarget {
    /// Its name among those of all plans.
    pub fn label(&self, spec: &Spec) -> String {
        match spec.plans.len() {
            0 | 1 => self.name.clone(),
            _ => format!("{} ({})", self.name, self.plan),
        }
    }
}

/// The tag of a plan for a branch.
///
/// # Errors
/// A branch that is called like the tag of what proved good; a prefix that can't begin a tag.
pub fn branch_tag(plan: &PlanSpec, branch: &str) -> Result<String> {
    let end = ending(branch);
    let joined = tag_of(plan, &end);
    if end == STABLE || joined == stable_tag(plan) || joined == STABLE {
        return Err(Error::usage(format!(
            "the branch {branch:?} would get the tag {joined} of the images that proved good"
        ))
        .hint("give the branch another name: git branch -m NAME"));
    }
    checked(plan, joined)
}

/// What a branch's tag ends with. If its beginning can't be in a tag, or its end has no room, a digest tells it from the branch
/// that is called like what is left: whoever may push a branch `+main` would push the images of `main`.
fn ending(branch: &str) -> Cow<'_, str> {
    let made = legal_tag(branch);
    match made.chars().count() == branch.chars().count() {
        true => made,
        false => Cow::Owned(marked(&made, branch)),
    }
}

/// The beginning of this text, with digits of the digest of another behind it.
fn marked(beginning: &str, whole: &str) -> String {
    let digest = Digest::of(whole.as_bytes());
    let digits = digest.hex().get(..MARK_DIGITS).unwrap_or_default();
    let room = TAG_LENGTH - MARK_DIGITS - 1;
    let beginning: String = beginning.chars().take(room).collect();
    format!("{beginning}-{digits}")
}

fn tag_of(plan: &PlanSpec, end: &str) -> String {
    match &plan.prefix {
        Some(prefix) if is_tag(prefix) && prefix.len() + 1 + end.len() > TAG_LENGTH => {
            marked(&format!("{prefix}-{end}"), end)
        }
        Some(prefix) => format!("{prefix}-{end}"),
        None => end.to_owned(),
    }
}

/// Whether a tag of one plan is, or could be, one of another: of two prefixes of which one begins with the other, what begins with
/// the longer one is of that plan.
fn is_in_plan(tag: &str, other: &PlanSpec, plan: &PlanSpec) -> bool {
    let is_longer = |prefix: &String| plan.prefix.as_ref().is_none_or(|own| prefix.len() > own.len());
    let begins = |prefix: &String| {
        tag.strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.starts_with('-'))
    };
    let prefix = other.prefix.as_ref();
    tag == stable_tag(other) || prefix.is_some_and(|prefix| is_longer(prefix) && begins(prefix))
}

/// The tag of what proved good in a plan.
pub fn stable_tag(plan: &PlanSpec) -> String {
    match &plan.prefix {
        Some(prefix) => format!("{prefix}{}", plan.stable),
        None => plan.stable.trim_start_matches(['-', '.']).to_owned(),
    }
}

fn checked(plan: &PlanSpec, tag: String) -> Result<String> {
    if is_list_of_referrers(&tag) {
        return Err(Error::usage(format!(
            "{tag} of plan {} is the tag of what is attached to an image",
            plan.name
        )));
    }
    match is_tag(&tag) {
        true => Ok(tag),
        false => Err(Error::usage(format!("{tag:?} of plan {} can't be a tag", plan.name))
            .hint("a tag has letters, digits, _, . and -, and begins with a letter, digit or _: see the prefix in spec.yml")),
    }
}

/// Whether it is the tag under which a registry without an API for referrers has the list of what is attached to an image:
/// `sha256-<hex>` (OCI's distribution specification 1.1).
pub fn is_list_of_referrers(tag: &str) -> bool {
    let hex = tag.strip_prefix("sha256-").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// All targets, plan by plan, a parent before its children; and remarks.
///
/// # Errors
/// Names that are no names, two targets of one name, a FROM that does not match `depend_on`, a plan that skips a parent and not its
/// child.
pub fn targets(spec: &Spec, graph: &Graph, source: &TagSource) -> Result<(Vec<StackTarget>, Vec<String>)> {
    let mut targets: Vec<StackTarget> = Vec::new();
    let mut notes = Vec::new();
    for plan in &spec.plans {
        let tag = branch_tag(plan, &source.branch)?;
        let mut others = spec.all_plans();
        if let Some(other) = others.find(|other| other.name != plan.name && is_in_plan(&tag, other, plan)) {
            return Err(Error::usage(format!(
                "the branch {:?} would get the tag {tag} in plan {}, which is one of plan {}",
                source.branch, plan.name, other.name
            ))
            .hint("give the branch another name: git branch -m NAME"));
        }
        let commit = source.commit.as_ref().filter(|_| spec.tag_sha);
        let commit_tag = commit.map(|commit| tag_of(plan, commit.get(..COMMIT_DIGITS).unwrap_or(commit)));
        let stable = checked(plan, stable_tag(plan))?;
        let base_tag = source
            .base_branch
            .as_deref()
            .map(|branch| tag_of(plan, &ending(branch)));
        let mut fallbacks: Vec<String> = base_tag.into_iter().chain([stable, STABLE.to_owned()]).collect();
        fallbacks.retain(|fallback| *fallback != tag);
        let begin = targets.len();
        for (position, image) in graph.images.iter().enumerate() {
            let Some(section) = spec.image(&image.name) else {
                continue;
            };
            if section.skip_plans.contains(&plan.name) {
                continue;
            }
            let parent = match image.parent {
                None => None,
                Some(wanted) => {
                    let mine = targets.iter().enumerate().skip(begin);
                    let found = mine.into_iter().find(|(_, target)| target.image == wanted);
                    let parent = graph.images.get(wanted).map(|parent| parent.name.as_str());
                    Some(found.map(|(index, _)| index).ok_or_else(|| {
                        spec.fault(
                            &["images", &image.name],
                            true,
                            format!(
                                "{} is built in plan {}, which skips {}, on which it depends",
                                image.name,
                                plan.name,
                                parent.unwrap_or_default()
                            ),
                        )
                    })?)
                }
            };
            let designation = Designation {
                name: spec.repository(&image.name)?,
                tag: tag.clone(),
            };
            if let Some(other) = targets.iter().find(|other| other.designation == designation) {
                let clash = match other.name == image.name {
                    true => format!("the plans {} and {} both push {designation}", other.plan, plan.name),
                    false => format!("{} and {} are both pushed as {designation}", other.name, image.name),
                };
                return Err(spec.fault(&["images", &image.name, "image_name"], false, clash));
            }
            let above = parent
                .and_then(|parent| targets.get(parent))
                .map(|parent| &parent.designation);
            let mut target = StackTarget {
                image: position,
                name: image.name.clone(),
                plan: plan.name.clone(),
                parent,
                designation,
                commit_tag: commit_tag.clone(),
                fallbacks: fallbacks.clone(),
                arguments: section.arguments(&plan.name),
                bases: BTreeSet::new(),
                platforms: section.platforms.clone(),
            };
            check_from(spec, image, above, &mut target, &mut notes)?;
            targets.push(target);
        }
    }
    Ok((targets, notes))
}

/// Compares the FROM of an image with its parent; completes its arguments and bases.
fn check_from(
    spec: &Spec,
    image: &StackImage,
    parent: Option<&Designation>,
    target: &mut StackTarget,
    notes: &mut Vec<String>,
) -> Result<()> {
    let declares = |name: &str| {
        let source = DockerfileSource::read(&image.text);
        let mut declared = source.instructions.iter().filter(|step| step.keyword == "arg");
        declared.any(|step| step.pairs(source.escape).iter().any(|(declared, _)| declared == name))
    };
    let read = |arguments: &BTreeMap<String, String>| {
        let options = BuildOptions {
            build_args: arguments.clone().into_iter().collect(),
            ..BuildOptions::default()
        };
        Dockerfile::parse(&image.text, &options)
    };
    if let Some(parent) = parent {
        target.arguments.insert(BASE_TAG.to_owned(), parent.tag.clone());
        if declares(BASE_IMAGE) {
            // FROM $BASE_IMAGE, or FROM $BASE_IMAGE:$BASE_TAG.
            for value in [parent.to_string(), parent.name.clone()] {
                target.arguments.insert(BASE_IMAGE.to_owned(), value);
                if read(&target.arguments).base_for(None).is_some() {
                    break;
                }
            }
        }
    }
    let dockerfile = read(&target.arguments);
    let Some(last) = dockerfile.stages.last() else {
        return Err(Error::usage(format!("{} has no FROM", image.dockerfile.display())));
    };
    let place = |base: Option<&str>| {
        let line = base.and_then(|base| dockerfile.line_from(base)).unwrap_or(last.line);
        format!("{}:{line}", image.dockerfile.display())
    };
    let base = dockerfile.base_for(None);
    target.bases = dockerfile.images_for(None).into_iter().map(str::to_owned).collect();
    match (parent, base) {
        (Some(parent), Some(base)) if is_of(base, &parent.name) => {
            target.bases.remove(base);
            if canonical(base) != canonical(&parent.to_string()) {
                notes.push(format!(
                    "{}: {} starts from {base}, whatever {parent} is: FROM has no $BASE_TAG",
                    place(Some(base)),
                    image.name
                ));
                target.bases.insert(base.to_owned());
            }
            Ok(())
        }
        (Some(parent), base) => Err(Error::usage(format!(
            "{}: {} depends on {}, and starts from {}",
            place(base),
            image.name,
            parent.name,
            base.unwrap_or("nothing that can be told")
        ))
        .hint(hint!("ARG BASE_TAG; FROM {}:$BASE_TAG", parent.name))),
        (None, Some(base)) => {
            let named = spec
                .images
                .iter()
                .find(|(name, other)| *name != image.name && is_of(base, other.image_name.as_deref().unwrap_or(name)));
            match named {
                Some((other, _)) => Err(Error::usage(format!(
                    "{}: {} starts from {base}, which is the image {other} of the stack, and does not depend on it",
                    place(Some(base)),
                    image.name
                ))
                .hint(hint!("depend_on: {}", other))),
                None => Ok(()),
            }
        }
        (None, None) => Ok(()),
    }
}

/// Whether a reference is of this repository.
fn is_of(reference: &str, repository: &str) -> bool {
    let (name, _, _) = split_reference(reference);
    canonical(name) == canonical(repository)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn made(spec: &str, dockerfiles: &[(&str, &str)], branch: &str) -> Result<(Vec<StackTarget>, Vec<String>)> {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in dockerfiles {
            std::fs::create_dir_all(home.path().join(name)).unwrap();
            std::fs::write(home.path().join(name).join("Dockerfile"), text).unwrap();
        }
        let spec = Spec::parse(spec, Path::new("spec.yml")).unwrap();
        let graph = Graph::read(&spec, home.path()).unwrap();
        let source = TagSource {
            branch: branch.to_owned(),
            base_branch: Some("main".to_owned()),
            commit: Some("a1230af00dcafe".to_owned()),
        };
        targets(&spec, &graph, &source)
    }

    const TWO: &str = "tag: {prefix: 2026.30, sha: true}\nimages:\n  base: {image_name: r.example/t/base}\n  \
                       leaf: {image_name: r.example/t/leaf, depend_on: base, build_args: {A: 1.0}}\n";
    const BASE: (&str, &str) = ("base", "FROM debian:13\nCOPY --from=busybox:1 /x /x\n");

    #[test]
    fn a_child_gets_the_tag_of_its_parent() {
        let leaf = "ARG BASE_TAG=latest\nFROM r.example/t/base:$BASE_TAG\n";
        let (targets, notes) = made(TWO, &[BASE, ("leaf", leaf)], "feature/x").unwrap();
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(targets[1].designation.to_string(), "r.example/t/leaf:2026.30-feature-x");
        assert_eq!(targets[1].commit_tag.as_deref(), Some("2026.30-a1230af"));
        assert_eq!(targets[1].fallbacks, ["2026.30-main", "2026.30-stable", "stable"]);
        assert_eq!(targets[1].arguments["BASE_TAG"], "2026.30-feature-x");
        assert_eq!(targets[1].arguments["A"], "1.0");
        assert!(!targets[1].arguments.contains_key("BASE_IMAGE"));
        assert_eq!(targets[1].bases, BTreeSet::new());
        assert_eq!(targets[0].bases.iter().collect::<Vec<_>>(), ["busybox:1", "debian:13"]);
    }

    #[test]
    fn no_branch_has_the_tag_of_another_plan_or_of_a_branch_that_it_is_only_like() {
        let spec = "tag: {prefix: ['1', 1-gpu]}\nimages:\n  base: {image_name: r.example/t/base}\n";
        let made = |branch: &str| {
            made(spec, &[("base", "FROM debian:13\n")], branch).map(|(targets, _)| {
                let tags = targets.into_iter().map(|target| target.designation.tag);
                tags.collect::<Vec<_>>()
            })
        };
        assert_eq!(made("main").unwrap(), ["1-main", "1-gpu-main"]);
        for branch in ["gpu-stable", "gpu-main"] {
            let error = made(branch).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("the tag 1-{branch} in plan 1, which is one of plan 1-gpu")),
                "{error}"
            );
        }
        assert_eq!(made("gpu").unwrap(), ["1-gpu", "1-gpu-gpu"]);
        for like in ["+main", "#main"] {
            let tags = made(like).unwrap();
            assert!(tags[0].starts_with("1-main-") && tags[0].len() == 13, "{tags:?}");
        }
        assert_ne!(made("+main").unwrap(), made("#main").unwrap());
        let long = |end: &str| made(&format!("{}{end}", "a".repeat(130))).unwrap();
        assert_ne!(long("1"), long("2"));
        assert!(long("1").iter().all(|tag| is_tag(tag)));
        let near = |end: &str| made(&format!("{}{end}", "a".repeat(124))).unwrap();
        assert_ne!(near("1"), near("2"));
        assert!(near("1").iter().all(|tag| is_tag(tag)));
    }

    #[test]
    fn base_image_is_given_where_it_is_declared() {
        for (leaf, value) in [
            ("ARG BASE_IMAGE=x\nFROM $BASE_IMAGE\n", "r.example/t/base:2026.30-main2"),
            (
                "ARG BASE_IMAGE\nARG BASE_TAG\nFROM ${BASE_IMAGE}:${BASE_TAG}\n",
                "r.example/t/base",
            ),
        ] {
            let (targets, notes) = made(TWO, &[BASE, ("leaf", leaf)], "main2").unwrap();
            assert_eq!(
                (targets[1].arguments["BASE_IMAGE"].as_str(), notes.len()),
                (value, 0),
                "{leaf}"
            );
        }
    }

    #[test]
    fn a_from_that_does_not_match_is_refused_or_said() {
        let error = made(TWO, &[BASE, ("leaf", "ARG X\nFROM debian:13\n")], "b").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("leaf/Dockerfile:2: leaf depends on r.example/t/base, and starts from debian:13"),
            "{error}"
        );
        assert_eq!(error.hint_text(), Some("ARG BASE_TAG; FROM r.example/t/base:$BASE_TAG"));
        let independent = TWO.replace("depend_on: base, ", "");
        let error = made(&independent, &[BASE, ("leaf", "FROM r.example/t/base:1\n")], "b").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("which is the image base of the stack, and does not depend on it")
        );
        let (targets, notes) = made(TWO, &[BASE, ("leaf", "FROM r.example/t/base:2023.4-x\n")], "b").unwrap();
        assert!(notes[0].ends_with("FROM has no $BASE_TAG"), "{notes:?}");
        assert_eq!(targets[1].bases.len(), 1);
    }

    #[test]
    fn plans_are_tracks_of_the_same_images() {
        let spec = "images:\n  base: {dbuild_env: {P: {V: 1}, Q: {V: 2}}}\n  leaf: {depend_on: base, skip_plans: [Q]}\n\
                    plans: {P: {tag_prefix: 2021.3}, Q: {tag_prefix: 2021.20, tag_stable_postfix: -good}}\n";
        let leaf = ("leaf", "ARG BASE_TAG\nFROM base:$BASE_TAG\n");
        let (targets, _) = made(spec, &[BASE, leaf], "b").unwrap();
        let names: Vec<String> = targets.iter().map(|target| target.designation.to_string()).collect();
        assert_eq!(names, ["base:2021.3-b", "leaf:2021.3-b", "base:2021.20-b"]);
        assert_eq!(targets[2].fallbacks, ["2021.20-main", "2021.20-good", "stable"]);
        assert_eq!(
            (targets[0].arguments["V"].as_str(), targets[2].arguments["V"].as_str()),
            ("1", "2")
        );
        let skipped = spec.replace("dbuild_env: {P: {V: 1}, Q: {V: 2}}", "skip_plans: [P]");
        let error = made(&skipped, &[BASE, leaf], "b").unwrap_err().to_string();
        assert!(
            error.ends_with("leaf is built in plan P, which skips base, on which it depends"),
            "{error}"
        );
    }

    #[test]
    fn names_that_can_not_be_are_refused() {
        let error = made(TWO, &[BASE, ("leaf", "FROM base")], "stable").unwrap_err();
        let said = error.to_string();
        assert!(
            said.ends_with("would get the tag 2026.30-stable of the images that proved good"),
            "{said}"
        );
        let refused = |spec: &str| {
            made(spec, &[("a", "FROM scratch"), ("b", "FROM scratch")], "x")
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused("tag: {prefix: 'a b'}\nimages: {a: {}}\n"),
            "\"a b-x\" of plan a b can't be a tag"
        );
        assert_eq!(
            refused("images:\n  a: {image_name: Team/x}\n"),
            "spec.yml:2:19: \"Team/x\" can't be the name of a repository"
        );
        assert_eq!(
            refused("images:\n  a: {image_name: t/x}\n  b: {image_name: t/x}\n"),
            "spec.yml:3:19: a and b are both pushed as t/x:x"
        );
    }
}
