//! The plan of a stack: for each image, whether it is built, copied from another tag, tested again or left alone, and why.
//!
//! [`plan`] is a function of values: it asks neither git nor a registry.

mod drawing;
mod retesting;

use std::collections::{BTreeMap, BTreeSet};

use dockerutils_core::naming::Designation;
use dockerutils_core::output::{one_line, visible};
use serde::Serialize;

use crate::graph::Graph;
use crate::history::{Changes, History};
use crate::input_digest::Inputs;
use crate::spec::{ChangeIgnore, Spec};
use crate::suites::TestKind;
use crate::tags::StackTarget;
use crate::verdicts::SaidOfTests;

/// Words in a commit's message that rebuild all, in any case.
const FULL_REBUILD: &str = "full rebuild";
/// How many changed files a reason names.
const NAMED: usize = 5;

/// An image that a registry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteImage {
    /// The digest of its manifest.
    pub manifest: String,
    /// The inputs that it says it was made from, those of the last build last: builds from other inputs can make the same
    /// image. Empty where it says nothing.
    pub inputs: Vec<Inputs>,
    /// What is said about its tests; `None` where nobody was asked.
    pub tests: Option<SaidOfTests>,
}

impl RemoteImage {
    /// Whether it was made from inputs with this digest.
    pub fn is_of(&self, digest: &str) -> bool {
        self.inputs.iter().any(|found| found.digest() == digest)
    }
}

/// What a registry holds of the tags that were asked about. A tag that is not in it was not asked about; `None` is one that is
/// certainly absent.
pub type RegistryState = BTreeMap<Designation, Option<RemoteImage>>;

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct PlanFacts<'f> {
    pub spec: &'f Spec,
    pub graph: &'f Graph,
    pub targets: &'f [StackTarget],
    /// Of each target.
    pub inputs: &'f [Inputs],
    pub history: &'f History,
    pub change_ignore: &'f ChangeIgnore,
    pub registry: &'f RegistryState,
    /// The keys of images whose tests did not end well here, or did not end: see [`crate::pending_tests`].
    pub untested: &'f BTreeSet<String>,
    /// Everything is to be built: `--all`.
    pub all: bool,
    /// Which images that are there are tested again.
    pub retests: Retests,
}

/// Which images that are there are tested again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retests {
    /// Those whose tests changed, failed, did not end, or never ran, as far as this machine and the registry know.
    #[default]
    Unfinished,
    /// Those whose tests changed, or did not end on this machine. With `--no-push` the registry learns nothing of it: what it does not
    /// know would be tested each time.
    Changed,
    /// None, and nothing that is built: `--no-test`.
    None,
}

/// What is to be done, target by target; a parent before its children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StackPlan {
    pub images: Vec<PlannedImage>,
    /// What is not known, or odd.
    pub notes: Vec<String>,
}

/// What is to be done with a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedImage {
    /// The image's name; with its plan, where there are several.
    pub label: String,
    pub image: String,
    pub plan: String,
    /// The label of the parent.
    pub parent: Option<String>,
    /// Where it is pushed: `repository:tag`.
    pub reference: String,
    #[serde(flatten)]
    pub action: Action,
    /// Whether its tests are run.
    pub tests: bool,
    /// The input digest.
    pub input: String,
    pub reasons: Vec<PlanReason>,
}

/// What is done with a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Action {
    /// It is built and pushed.
    Build,
    /// The same is there under another tag, and gets this one, too.
    Copy {
        /// `repository:tag`.
        from: String,
        /// The digest of its manifest.
        manifest: String,
    },
    /// What is there is tested again.
    Test {
        /// The digest of its manifest.
        manifest: String,
    },
    /// What is there is right.
    Nothing {
        /// The digest of its manifest.
        manifest: String,
    },
}

/// Why something is done, or is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PlanReason {
    /// `--all`.
    Asked,
    /// The commit's message says "full rebuild".
    FullRebuild { commit: String },
    /// A file changed that `change_ignore.json` names in `BuildAll`.
    BuildAll { files: Vec<ChangedFile> },
    /// The parent is built.
    ParentBuilt { parent: String },
    /// The parent was made from other inputs.
    ParentDiffers { parent: String },
    /// There is no image of this tag.
    TagAbsent { tag: String },
    /// The image that is there says nothing about its inputs.
    InputsUnknown,
    /// The Dockerfile, or files of the context, are others.
    FilesDiffer {
        dockerfile: bool,
        context: bool,
        files: Vec<ChangedFile>,
    },
    /// Its section of spec.yml: build arguments or platforms are others. The names are known where git has the old file.
    SpecChanged { arguments: Vec<String>, platforms: bool },
    /// An image outside of the stack is another.
    BaseMoved { bases: Vec<String> },
    /// `change_ignore.json` names its directory in `ChangeIgnore`.
    Ignored,
    /// The same inputs are found at this tag.
    FoundAt { tag: String },
    /// Its tests changed.
    TestsChanged { files: Vec<ChangedFile> },
    /// Its tests did not end well, or did not end, or never ran: of some kinds no verdict is attached to it, of others the newest is
    /// that they failed. Of neither, where only this machine knows it.
    TestsUnfinished {
        unknown: Vec<TestKind>,
        failed: Vec<TestKind>,
    },
    /// Nothing changed.
    SameInputs,
}

/// A changed file, relative to the directory of the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedFile {
    pub path: String,
    #[serde(flatten)]
    pub changes: Changes,
}

/// Makes the plan.
pub fn plan(facts: &PlanFacts<'_>) -> StackPlan {
    let forced = forced(facts);
    let before = facts.history.spec_before.as_deref();
    let before = before.and_then(|text| Spec::parse(text, std::path::Path::new(crate::spec::FILE)).ok());
    let mut images: Vec<PlannedImage> = Vec::new();
    let mut notes: Vec<String> = facts.graph.notes.iter().chain(&facts.history.notes).cloned().collect();
    for (target, inputs) in facts.targets.iter().zip(facts.inputs) {
        let parent = target.parent.and_then(|parent| images.get(parent));
        let mut reasons = forced.clone();
        if let Some(parent) = parent.filter(|parent| parent.action == Action::Build) {
            reasons.push(PlanReason::ParentBuilt {
                parent: parent.label.clone(),
            });
        }
        let parent_label = parent.map(|parent| parent.label.clone());
        let judged = Judged {
            facts,
            target,
            inputs,
            before: before.as_ref(),
            parent: parent_label.as_deref(),
        };
        let (action, tests) = judged.action(&mut reasons, &mut notes);
        images.push(PlannedImage {
            label: target.label(facts.spec),
            image: target.name.clone(),
            plan: target.plan.clone(),
            parent: parent_label,
            reference: target.designation.to_string(),
            action,
            tests,
            input: inputs.digest(),
            reasons,
        });
    }
    StackPlan { images, notes }
}

/// The reasons to build all images.
fn forced(facts: &PlanFacts<'_>) -> Vec<PlanReason> {
    let mut reasons = Vec::new();
    if facts.all {
        reasons.push(PlanReason::Asked);
    }
    if facts.history.message.to_lowercase().contains(FULL_REBUILD) {
        reasons.push(PlanReason::FullRebuild {
            commit: facts
                .history
                .commit
                .as_deref()
                .and_then(|id| id.get(..7))
                .unwrap_or_default()
                .to_owned(),
        });
    }
    let named = |path: &str| {
        let first = path.split('/').next().unwrap_or_default();
        facts.change_ignore.build_all.iter().any(|name| name == first)
    };
    let files = changed(facts.history, named);
    if !files.is_empty() {
        reasons.push(PlanReason::BuildAll { files });
    }
    reasons
}

fn changed(history: &History, counts: impl Fn(&str) -> bool) -> Vec<ChangedFile> {
    let changed = history.changed.iter().filter(|(path, _)| counts(path));
    changed
        .map(|(path, changes)| ChangedFile {
            path: path.clone(),
            changes: changes.clone(),
        })
        .collect()
}

/// A target, about which is to be decided.
struct Judged<'j> {
    facts: &'j PlanFacts<'j>,
    target: &'j StackTarget,
    inputs: &'j Inputs,
    /// The spec at the beginning of the range.
    before: Option<&'j Spec>,
    /// The parent's label.
    parent: Option<&'j str>,
}

impl Judged<'_> {
    /// What is done, and whether it is tested; adds the reasons, and what is odd.
    fn action(&self, reasons: &mut Vec<PlanReason>, notes: &mut Vec<String>) -> (Action, bool) {
        let is_forced = !reasons.is_empty();
        let there = self.at(&self.target.designation.tag);
        let wanted = self.inputs.digest();
        let same = |image: &&RemoteImage| image.is_of(&wanted);
        let mut is_ignored = false;
        match there {
            Some(image) if image.is_of(&wanted) => {}
            Some(image) => match image.inputs.last() {
                Some(found) => {
                    let differences = self.differences(found);
                    let of_files = |reason: &PlanReason| matches!(reason, PlanReason::FilesDiffer { .. });
                    is_ignored = self.is_ignored() && !differences.is_empty() && differences.iter().all(of_files);
                    reasons.extend(differences);
                }
                None => reasons.push(PlanReason::InputsUnknown),
            },
            None => {
                reasons.push(PlanReason::TagAbsent {
                    tag: self.target.designation.tag.clone(),
                });
                let others = self.target.fallbacks.iter().map(|tag| (tag, self.at(tag)));
                let mut others = others.filter_map(|(tag, image)| Some((tag, image?)));
                let mut nearest = None;
                let found = others.find(|(_, image)| {
                    nearest = nearest.or(image.inputs.last());
                    same(image)
                });
                if let (Some((tag, image)), false) = (found, is_forced) {
                    reasons.push(PlanReason::FoundAt { tag: tag.clone() });
                    let from = Designation {
                        name: self.target.designation.name.clone(),
                        tag: tag.clone(),
                    };
                    let action = Action::Copy {
                        from: from.to_string(),
                        manifest: image.manifest.clone(),
                    };
                    return (action, self.is_retested(image, &wanted, reasons, notes));
                }
                reasons.extend(nearest.map(|found| self.differences(found)).into_iter().flatten());
            }
        }
        let is_same = there.as_ref().is_some_and(same);
        match there {
            Some(image) if !is_forced && (is_same || is_ignored) => {
                if is_ignored {
                    reasons.push(PlanReason::Ignored);
                }
                let manifest = image.manifest.clone();
                if self.is_retested(image, &wanted, reasons, notes) {
                    return (Action::Test { manifest }, true);
                }
                if is_same {
                    reasons.push(PlanReason::SameInputs);
                }
                (Action::Nothing { manifest }, false)
            }
            _ => (Action::Build, self.facts.retests != Retests::None),
        }
    }

    /// What the registry has of this tag of the image.
    fn at(&self, tag: &str) -> Option<&RemoteImage> {
        let wanted = Designation {
            name: self.target.designation.name.clone(),
            tag: tag.to_owned(),
        };
        self.facts.registry.get(&wanted)?.as_ref()
    }

    fn is_ignored(&self) -> bool {
        self.facts.change_ignore.change_ignore.contains(&self.target.name)
    }

    /// In what the inputs are others than those of an image.
    fn differences(&self, found: &Inputs) -> Vec<PlanReason> {
        let mut reasons = Vec::new();
        let (dockerfile, context) = (
            found.dockerfile != self.inputs.dockerfile,
            found.context != self.inputs.context,
        );
        if dockerfile || context {
            let files = changed(self.facts.history, |path| {
                self.inside(path).is_some_and(|path| !self.is_test(path))
            });
            reasons.push(PlanReason::FilesDiffer {
                dockerfile,
                context,
                files,
            });
        }
        let platforms = found.platforms != self.inputs.platforms;
        if platforms || found.arguments != self.inputs.arguments {
            reasons.push(PlanReason::SpecChanged {
                arguments: self.changed_arguments(),
                platforms,
            });
        }
        if found.bases != self.inputs.bases {
            reasons.push(PlanReason::BaseMoved {
                bases: self.target.bases.iter().cloned().collect(),
            });
        }
        if let (Some(parent), true) = (self.parent, found.parent != self.inputs.parent) {
            reasons.push(PlanReason::ParentDiffers {
                parent: parent.to_owned(),
            });
        }
        reasons
    }

    /// The names of build arguments that the spec had otherwise at the beginning of the range.
    fn changed_arguments(&self) -> Vec<String> {
        let of = |spec: &Spec| {
            spec.image(&self.target.name)
                .map(|image| image.arguments(&self.target.plan))
        };
        let Some(before) = self.before.and_then(of) else {
            return Vec::new();
        };
        let now = of(self.facts.spec).unwrap_or_default();
        let names = before
            .keys()
            .chain(now.keys().filter(|name| !before.contains_key(*name)));
        names
            .filter(|name| before.get(*name) != now.get(*name))
            .cloned()
            .collect()
    }

    /// A path in the image's directory, relative to that.
    fn inside<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.target.name.as_str())?.strip_prefix('/')
    }
}

impl PlanReason {
    /// The reason for people, line by line.
    pub fn lines(&self) -> Vec<String> {
        let one = |text: String| vec![text];
        match self {
            Self::Asked => one("--all".to_owned()),
            Self::FullRebuild { commit } => one(format!("{commit} says \"{FULL_REBUILD}\"")),
            Self::BuildAll { files } => listed("a file of BuildAll changed", files),
            Self::ParentBuilt { parent } => one(format!("its parent {parent} is built")),
            Self::ParentDiffers { parent } => one(format!("its parent {parent} is made from other inputs")),
            Self::TagAbsent { tag } => one(format!("there is no tag {tag}")),
            Self::InputsUnknown => one("the image that is there does not say what it was made from".to_owned()),
            Self::FilesDiffer {
                dockerfile,
                context,
                files,
            } => {
                let what = match (dockerfile, context) {
                    (true, true) => "its Dockerfile and files of its context differ",
                    (true, false) => "its Dockerfile differs",
                    (false, _) => "files of its context differ",
                };
                listed(what, files)
            }
            Self::SpecChanged { arguments, platforms } => {
                let platforms = platforms.then(|| "platforms".to_owned());
                let names: Vec<String> = arguments.iter().map(|name| visible(name)).chain(platforms).collect();
                match names.is_empty() {
                    true => one("its build arguments in spec.yml changed".to_owned()),
                    false => one(format!("its section of spec.yml changed: {}", names.join(", "))),
                }
            }
            Self::BaseMoved { bases } => match bases.as_slice() {
                [] => one("it has no base outside of the stack any more".to_owned()),
                bases => one(format!("a base is another image: {}", bases.join(", "))),
            },
            Self::Ignored => one("change_ignore.json ignores its directory".to_owned()),
            Self::FoundAt { tag } => one(format!("the same is there as {tag}")),
            Self::TestsChanged { files } => listed("its tests changed", files),
            Self::TestsUnfinished { unknown, failed } => unfinished(unknown, failed),
            Self::SameInputs => one("nothing changed".to_owned()),
        }
    }
}

/// What is said of tests that did not end well, or did not end.
fn unfinished(unknown: &[TestKind], failed: &[TestKind]) -> Vec<String> {
    let named = |kinds: &[TestKind]| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" and ");
    let mut lines = Vec::new();
    if !failed.is_empty() {
        lines.push(format!("its {} tests failed", named(failed)));
    }
    if !unknown.is_empty() {
        lines.push(format!(
            "its {} tests have no verdict: they did not end, or nobody ran them",
            named(unknown)
        ));
    }
    if lines.is_empty() {
        lines.push("its tests did not end here, or did not end well".to_owned());
    }
    lines
}

/// A heading, and the changed files with their commits.
fn listed(heading: &str, files: &[ChangedFile]) -> Vec<String> {
    let line = |file: &ChangedFile| {
        let commits = file.changes.commits.iter();
        let commits = commits.map(|commit| format!("{} {}", commit.id, one_line(&commit.subject)));
        let uncommitted = file.changes.is_uncommitted.then(|| "not committed".to_owned());
        let by: Vec<String> = commits.chain(uncommitted).take(NAMED).collect();
        match by.is_empty() {
            true => format!("  {}", visible(&file.path)),
            false => format!("  {}: {}", visible(&file.path), by.join("; ")),
        }
    };
    let more = files.len().saturating_sub(NAMED);
    let more = (more > 0).then(|| format!("  and {more} more"));
    let files = files.iter().take(NAMED).map(line);
    [heading.to_owned()].into_iter().chain(files).chain(more).collect()
}

#[cfg(test)]
mod tests;
