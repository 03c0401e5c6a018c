//! The tags of a stack's repositories: which image each is, and of which branch.

use std::collections::{BTreeMap, BTreeSet};

use dockerutils_core::naming::legal_tag;
use serde::Serialize;

use crate::spec::{PlanSpec, Spec};
use crate::tags::{STABLE, StackTarget, branch_tag, is_list_of_referrers, stable_tag};

/// The fewest digits of a commit's ID in a tag.
const COMMIT_DIGITS: usize = 6;

/// A tag in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagRow {
    pub image: String,
    /// `repository:tag`.
    pub reference: String,
    /// The plan that it is of, where that can be told.
    pub plan: Option<String>,
    #[serde(flatten)]
    pub kind: TagKind,
}

/// What a tag stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TagKind {
    /// What proved good.
    Stable,
    /// It is of a branch that is there.
    Branch { branch: String },
    /// It is of a commit.
    Commit { commit: String },
    /// It has the prefix of a plan, and there is no such branch any more.
    Gone,
    /// It is none of the stack's: a tag made by hand, or that a command in the image printed.
    Other,
}

impl TagRow {
    /// What it stands for, for people.
    pub fn says(&self) -> String {
        match &self.kind {
            TagKind::Stable => "stable".to_owned(),
            TagKind::Branch { branch } => format!("branch {branch}"),
            TagKind::Commit { commit } => format!("commit {commit}"),
            TagKind::Gone => "no branch any more".to_owned(),
            TagKind::Other => "another".to_owned(),
        }
    }
}

/// The tags, image by image. `branches` are those of the repository of git, here and at its origin.
pub fn rows(
    spec: &Spec,
    targets: &[StackTarget],
    tags: &BTreeMap<String, Vec<String>>,
    branches: &BTreeSet<String>,
) -> Vec<TagRow> {
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for target in targets {
        if !seen.insert(&target.designation.name) {
            continue;
        }
        let tags = tags.get(&target.designation.name).into_iter().flatten();
        for tag in tags.filter(|tag| !is_list_of_referrers(tag)) {
            let found = spec
                .plans
                .iter()
                .find_map(|plan| Some((plan, kind(plan, tag, branches)?)));
            let (plan, kind) = match found {
                Some((plan, kind)) => (Some(plan.name.clone()), kind),
                None if tag == STABLE => (None, TagKind::Stable),
                None => (None, TagKind::Other),
            };
            rows.push(TagRow {
                image: target.name.clone(),
                reference: format!("{}:{tag}", target.designation.name),
                plan,
                kind,
            });
        }
    }
    rows
}

/// What a tag is in a plan; `None` if it is none of it.
fn kind(plan: &PlanSpec, tag: &str, branches: &BTreeSet<String>) -> Option<TagKind> {
    if tag == stable_tag(plan) {
        return Some(TagKind::Stable);
    }
    let of = |branch: &&String| branch_tag(plan, branch).is_ok_and(|made| made == tag);
    if let Some(branch) = branches.iter().find(of) {
        return Some(TagKind::Branch { branch: branch.clone() });
    }
    let rest = match &plan.prefix {
        Some(prefix) => tag.strip_prefix(prefix.as_str())?.strip_prefix('-')?,
        // Without a prefix any tag could have been a branch.
        None => return None,
    };
    let is_commit = rest.len() >= COMMIT_DIGITS && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    Some(match is_commit {
        true => TagKind::Commit {
            commit: rest.to_owned(),
        },
        false if legal_tag(rest) == rest => TagKind::Gone,
        false => TagKind::Other,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_tag_is_of_a_branch_or_of_none() {
        let spec = "plans: {P: {tag_prefix: 1.10}, Q: {tag_prefix: 1.1, tag_stable_postfix: -good}}\nimages: {a: {}}\n";
        let spec = Spec::parse(spec, Path::new("spec.yml")).unwrap();
        let branches = BTreeSet::from(["main".to_owned(), "fix/x".to_owned()]);
        let says = |tag: &str| {
            let kinds = spec
                .plans
                .iter()
                .find_map(|plan| Some((plan.name.clone(), kind(plan, tag, &branches)?)));
            kinds.map(|(plan, kind)| format!("{plan} {kind:?}"))
        };
        let expected = [
            ("1.10-main", "P Branch { branch: \"main\" }"),
            ("1.1-fix-x", "Q Branch { branch: \"fix/x\" }"),
            ("1.10-stable", "P Stable"),
            ("1.1-good", "Q Stable"),
            ("1.10-a1230af", "P Commit { commit: \"a1230af\" }"),
            ("1.1-gone", "Q Gone"),
        ];
        for (tag, kind) in expected {
            assert_eq!(says(tag).as_deref(), Some(kind), "{tag}");
        }
        assert_eq!(says("python-3.13"), None);
    }
}
