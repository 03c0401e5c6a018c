//! The promotion of a stack: all its images get another tag, in the registry, because they proved good. No layer is moved.
//!
//! [`plan`] is a function of values: it asks neither git nor a registry. [`facts`] asks them; [`moves`] does what is
//! planned, all of it or nothing, until an [`interruption`]; [`command`] is what tag-stack does.

pub mod command;
pub mod facts;
pub mod interruption;
pub mod moves;

use std::collections::BTreeMap;

use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use dockerutils_core::output::{counted, one_line, visible};
use registry_client::Digest;
use serde::Serialize;

use crate::history::CommitLine;
use crate::input_digest::Inputs;
use crate::manifests::packages::{ManagerDiff, PackageDiff, PackageLists, PackageVersions};
use crate::suites::TestKind;
use crate::verdicts::{FoundVerdict, FoundVerdicts};

/// How many packages are named.
const PACKAGES: usize = 5;

/// What a promotion is planned from.
#[derive(Clone, Debug, Default)]
pub struct PromotionFacts {
    /// The tag that the images have.
    pub from: String,
    /// The tag that they get.
    pub to: String,
    /// A parent before its children.
    pub images: Vec<ImageFacts>,
    /// The commits between two revisions, where git has both.
    pub commits: BTreeMap<(String, String), CommitRange>,
}

/// What a registry holds of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// The image's name.
    pub image: String,
    /// The repository with its registry.
    pub repository: String,
    /// What the tag names that is promoted.
    pub from: Option<TaggedImage>,
    /// What the other tag names now.
    pub to: Option<TaggedImage>,
    /// What is known of the tests of what is promoted.
    pub verdicts: FoundVerdicts,
    /// The image of the stack that it starts from.
    pub parent: Option<String>,
    /// The kinds of tests of which there must be a verdict.
    pub tests: Vec<TestKind>,
}

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedImage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// What it says that it was made from, the last build at the end: builds from other inputs may make the same image.
    pub inputs: Vec<Inputs>,
    /// The commit that it says it was made from.
    pub revision: Option<String>,
    /// The packages that are said to be in it.
    pub packages: Option<PackageLists>,
}

/// Commits, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CommitRange {
    pub commits: Vec<CommitLine>,
    /// There are more than these.
    pub are_more: bool,
}

/// What is done with the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PromotionPlan {
    pub from: String,
    pub to: String,
    pub images: Vec<PlannedMove>,
}

/// What is done with an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedMove {
    pub image: String,
    pub repository: String,
    pub action: MoveAction,
    /// The digest that is promoted; `null` if there is none.
    pub digest: Option<Digest>,
    /// The digest that the tag names now; `null` if there is no such tag.
    pub before: Option<Digest>,
    /// The newest of each kind that counts.
    pub verdicts: Vec<FoundVerdict>,
    /// What speaks against it.
    pub objections: Vec<Objection>,
    /// In what it differs from what the tag names now.
    pub changes: Vec<ImageChange>,
    /// What is odd, or not known.
    pub notes: Vec<String>,
}

/// What is done with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveAction {
    /// It gets another digest.
    Move,
    /// It names that digest already.
    Nothing,
}

/// What speaks against a promotion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objection {
    /// There is no image of the tag.
    Absent,
    /// Its tests failed.
    Failed {
        tests: TestKind,
        failures: u64,
        finished: String,
        /// The page of the CI's run.
        run: Option<String>,
    },
    /// Nothing is known of its tests.
    NoVerdict,
    /// It has tests of a kind of which nothing is known.
    NotTested { tests: TestKind },
    /// It says that it was made from another image than the one that is promoted with it.
    OtherParent { parent: String },
}

/// In what an image differs from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ImageChange {
    /// There was none.
    New,
    /// Parts of what it is made from: `dockerfile`, `context`, `arguments`, `platforms`, `parent`, `bases`.
    Inputs { parts: Vec<&'static str> },
    /// The same inputs, built again.
    Rebuilt,
    /// One of the two does not say what it was made from.
    Unknown,
    /// The commits between.
    Commits(CommitRange),
    /// What packages came, went and changed.
    Packages { packages: PackageDiff },
}

/// Makes the plan.
pub fn plan(facts: &PromotionFacts) -> PromotionPlan {
    let planned = |image: &ImageFacts| {
        let digest = image.from.as_ref().map(|from| from.digest.clone());
        let before = image.to.as_ref().map(|to| to.digest.clone());
        let action = match digest == before {
            true => MoveAction::Nothing,
            false => MoveAction::Move,
        };
        PlannedMove {
            image: image.image.clone(),
            repository: image.repository.clone(),
            action,
            objections: objections(image, &facts.images),
            changes: match action {
                MoveAction::Move => changes(image, &facts.commits),
                MoveAction::Nothing => Vec::new(),
            },
            verdicts: image.verdicts.newest.clone(),
            notes: image.verdicts.notes.clone(),
            digest,
            before,
        }
    };
    PromotionPlan {
        from: facts.from.clone(),
        to: facts.to.clone(),
        images: facts.images.iter().map(planned).collect(),
    }
}

fn objections(image: &ImageFacts, all: &[ImageFacts]) -> Vec<Objection> {
    let Some(from) = &image.from else {
        return vec![Objection::Absent];
    };
    let other = image.parent.iter().filter(|parent| is_from_another(from, parent, all));
    let other = other.map(|parent| Objection::OtherParent { parent: parent.clone() });
    let mut objections: Vec<Objection> = other.collect();
    objections.extend(objections_of_tests(image));
    objections
}

/// Whether an image says that it was made from something else than the parent that would be promoted with it: the parent was built
/// again, and this one was not. Where one of them says nothing, it is not known.
fn is_from_another(image: &TaggedImage, parent: &str, all: &[ImageFacts]) -> bool {
    let parent = all.iter().find(|other| other.image == parent);
    let Some(parent) = parent.and_then(|parent| parent.from.as_ref()) else {
        return false;
    };
    let parents: Vec<String> = parent.inputs.iter().map(Inputs::digest).collect();
    let is_known = !parents.is_empty() && !image.inputs.is_empty();
    is_known && !image.inputs.iter().any(|inputs| parents.contains(&inputs.parent))
}

fn objections_of_tests(image: &ImageFacts) -> Vec<Objection> {
    let verdicts = &image.verdicts.newest;
    if verdicts.is_empty() {
        return vec![Objection::NoVerdict];
    }
    let failed = verdicts.iter().filter(|found| !found.verdict.passed);
    let failed = failed.map(|found| Objection::Failed {
        tests: found.verdict.kind,
        failures: found.verdict.failures,
        finished: found.verdict.finished.clone(),
        run: found.verdict.run.clone(),
    });
    let mut objections: Vec<Objection> = failed.collect();
    let is_known = |kind| verdicts.iter().any(|found| found.verdict.kind == kind);
    let unknown = image.tests.iter().copied().filter(|kind| !is_known(*kind));
    objections.extend(unknown.map(|tests| Objection::NotTested { tests }));
    objections
}

fn changes(image: &ImageFacts, commits: &BTreeMap<(String, String), CommitRange>) -> Vec<ImageChange> {
    let (Some(from), Some(to)) = (&image.from, &image.to) else {
        return vec![ImageChange::New];
    };
    let mut changes = vec![match (to.inputs.last(), from.inputs.last()) {
        (Some(old), Some(new)) => match differing(old, new) {
            parts if parts.is_empty() => ImageChange::Rebuilt,
            parts => ImageChange::Inputs { parts },
        },
        _ => ImageChange::Unknown,
    }];
    if let (Some(old), Some(new)) = (&to.revision, &from.revision)
        && let Some(range) = commits.get(&(old.clone(), new.clone()))
        && !range.commits.is_empty()
    {
        changes.push(ImageChange::Commits(range.clone()));
    }
    if let (Some(old), Some(new)) = (&to.packages, &from.packages) {
        let packages = new.since(old);
        if !packages.0.is_empty() {
            changes.push(ImageChange::Packages { packages });
        }
    }
    changes
}

/// The names of the parts of inputs that differ.
fn differing(old: &Inputs, new: &Inputs) -> Vec<&'static str> {
    let parts = [
        ("dockerfile", &old.dockerfile, &new.dockerfile),
        ("context", &old.context, &new.context),
        ("arguments", &old.arguments, &new.arguments),
        ("platforms", &old.platforms, &new.platforms),
        ("parent", &old.parent, &new.parent),
        ("bases", &old.bases, &new.bases),
    ];
    let differ = parts.into_iter().filter(|(_, old, new)| old != new);
    differ.map(|(name, ..)| name).collect()
}

impl PromotionPlan {
    /// The error that refuses the promotion, if something speaks against it. What is absent can't be forced.
    ///
    /// # Errors
    /// What speaks against it.
    pub fn check(&self, is_forced: bool) -> Result<()> {
        let absent = self
            .images
            .iter()
            .filter(|image| image.objections.contains(&Objection::Absent));
        let absent: Vec<String> = absent
            .map(|image| format!("{}:{}", image.repository, self.from))
            .collect();
        if !absent.is_empty() {
            return Err(Error::failed(format!("there is no {}", absent.join(", no ")))
                .hint("see which images there are: plan-stack --tags"));
        }
        if is_forced {
            return Ok(());
        }
        let refused: Vec<&PlannedMove> = self
            .images
            .iter()
            .filter(|image| !image.objections.is_empty())
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        let lines = refused.iter().map(|image| {
            let objections: Vec<String> = image.objections.iter().map(Objection::says).collect();
            format!("{}: {}", image.image, objections.join("; "))
        });
        let lines: Vec<String> = lines.collect();
        Err(Error::failed(format!(
            "{} of {} did not prove good: {}",
            refused.len(),
            counted(self.images.len(), "image"),
            lines.join(", ")
        ))
        .hint(hint!("{command}; to promote them all the same: --force"; command = self.remedy(&refused))))
    }

    /// The command after which these images may be promoted.
    fn remedy(&self, refused: &[&PlannedMove]) -> String {
        let objections = || refused.iter().flat_map(|image| &image.objections);
        if objections().any(|objection| matches!(objection, Objection::OtherParent { .. })) {
            return "build-stack".to_owned();
        }
        let workflow = TestKind::Workflow;
        let is_workflow =
            |objection: &Objection| matches!(objection, Objection::Failed { tests, .. } if *tests == workflow);
        match objections().any(is_workflow) {
            true => hint!("test-stack --kind workflow {}", self.from),
            false => hint!("test-stack {}", self.from),
        }
    }

    /// The plan for people, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.images.iter().flat_map(|image| self.lines_of(image)).collect()
    }

    fn lines_of(&self, image: &PlannedMove) -> Vec<String> {
        let what = match (image.action, &image.digest, &image.before) {
            (_, None, _) => format!("no {}", self.from),
            (MoveAction::Nothing, Some(digest), _) => format!("{} is {} already", self.to, digest.short()),
            (MoveAction::Move, Some(digest), None) => format!("new {}: {}", self.to, digest.short()),
            (MoveAction::Move, Some(digest), Some(before)) => {
                format!("{}: {} in place of {}", self.to, digest.short(), before.short())
            }
        };
        let mut lines = vec![format!("{}: {what}  ({})", image.image, visible(&image.repository))];
        let mut add = |line: String| lines.push(format!("    {line}"));
        for found in &image.verdicts {
            let verdict = &found.verdict;
            let kind = verdict.kind.name();
            let result = match (verdict.passed, verdict.tests) {
                (true, 0) => format!("no {kind} tests ran"),
                (true, tests) => format!("{kind} tests passed ({tests})"),
                (false, tests) => format!("{kind} tests failed ({} of {tests})", verdict.failures),
            };
            add(format!("{result} at {}, {}", verdict.finished, found.signature.says()));
        }
        let unsaid = image.objections.iter();
        for objection in unsaid.filter(|objection| !matches!(objection, Objection::Failed { .. })) {
            add(objection.says());
        }
        image.notes.iter().for_each(|note| add(note.clone()));
        for change in &image.changes {
            change.lines(&self.to).into_iter().for_each(&mut add);
        }
        lines
    }
}

impl Objection {
    /// For people.
    fn says(&self) -> String {
        match self {
            Self::Absent => "it is not there".to_owned(),
            Self::Failed {
                tests,
                failures,
                finished,
                run,
            } => {
                let run = run.as_ref().map(|run| format!(", {}", visible(run)));
                format!(
                    "{} of its {} tests failed at {finished}{}",
                    failures,
                    tests.name(),
                    run.unwrap_or_default()
                )
            }
            Self::OtherParent { parent } => format!("it is not made from this {}", visible(parent)),
            Self::NoVerdict => "it has no verdict".to_owned(),
            Self::NotTested { tests } => format!("it has no verdict of its {} tests", tests.name()),
        }
    }
}

impl ImageChange {
    /// For people, line by line.
    fn lines(&self, to: &str) -> Vec<String> {
        match self {
            Self::New => vec![format!("there is no {to} yet")],
            Self::Inputs { parts } => {
                let says = |part: &&str| match *part {
                    "dockerfile" => "its Dockerfile",
                    "context" => "files of its context",
                    "arguments" => "its build arguments",
                    "platforms" => "its platforms",
                    "parent" => "its parent",
                    _ => "its bases",
                };
                let parts: Vec<&str> = parts.iter().map(says).collect();
                vec![format!("changed since {to}: {}", parts.join(", "))]
            }
            Self::Rebuilt => vec![format!("made from the same as {to}, and built again")],
            Self::Unknown => vec![format!("what changed since {to} is not known")],
            Self::Commits(range) => {
                let commits = range.commits.iter();
                let commits = commits.map(|commit| format!("  {} {}", commit.id, one_line(&commit.subject)));
                commits.chain(range.are_more.then(|| "  and more".to_owned())).collect()
            }
            Self::Packages { packages } => {
                let managers = packages.0.iter();
                managers
                    .map(|(manager, diff)| format!("{}: {}", manager.name(), says(diff)))
                    .collect()
            }
        }
    }
}

/// What came, went and changed, with the first names of each.
fn says(diff: &ManagerDiff) -> String {
    let with = |packages: &PackageVersions| -> Vec<String> {
        packages
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect()
    };
    let changed = diff.changed.iter();
    let changed = changed.map(|(name, [old, new])| format!("{name} {old} to {new}"));
    let parts = [
        ("came", with(&diff.came)),
        ("went", with(&diff.went)),
        ("changed", changed.collect()),
    ];
    let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
    let parts = parts.map(|(what, names)| {
        let more = names.len().saturating_sub(PACKAGES);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named: Vec<String> = names.iter().take(PACKAGES).map(|name| visible(name)).collect();
        format!("{} {what} ({}{more})", names.len(), named.join(", "))
    });
    parts.collect::<Vec<String>>().join(", ")
}

#[cfg(test)]
mod tests;
