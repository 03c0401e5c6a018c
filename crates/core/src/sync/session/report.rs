//! What a sync did to each path, or would do.

use std::collections::BTreeMap;

use crate::sync::plan::{Action, Side, Steps, Why};
use crate::sync::{ItemKind, Tree};

/// A path that both sides changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub path: Vec<u8>,
    pub why: Why,
    /// The copy of the dock's version, if one was made.
    pub beside: Option<Vec<u8>>,
}

/// What a sync did, or would do.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The workspace's path on the dock.
    pub workspace: String,
    /// What was done to each path.
    pub done: BTreeMap<Vec<u8>, Action>,
    /// Paths that are left as they are on both sides.
    pub conflicts: Vec<Conflict>,
    /// Paths that could not be synced, with the reason.
    pub troubles: Vec<(Vec<u8>, String)>,
    /// The number of paths that changed here and were not to be sent.
    pub later_here: usize,
    /// The number of paths that changed on the dock and were not to be fetched.
    pub later_there: usize,
    /// Files that were removed on the dock and are kept here until the user confirms so many removals.
    pub held_here: Vec<Vec<u8>>,
    /// Files that were removed here and are kept on the dock, likewise.
    pub held_there: Vec<Vec<u8>>,
    /// Files on the dock that belong to root.
    pub root_files: Vec<Vec<u8>>,
    /// The user's ID on the dock.
    pub user: u32,
    /// Pipes and devices here, which are not synced.
    pub others: Vec<Vec<u8>>,
    /// Bytes of the files that were sent, and of those that were fetched.
    pub bytes: (u64, u64),
}

impl Report {
    /// What was done, without conflicts and failures.
    #[must_use]
    pub fn done_alone(self) -> Self {
        Self {
            workspace: self.workspace,
            done: self.done,
            bytes: self.bytes,
            ..Self::default()
        }
    }

    /// Whether all that was to be synced is in step.
    pub fn is_clean(&self) -> bool {
        self.conflicts.is_empty() && self.troubles.is_empty() && self.held_here.is_empty() && self.held_there.is_empty()
    }
}

/// Whether an action changes a side.
pub(super) fn is_done(action: Action) -> bool {
    !matches!(
        action,
        Action::Agree | Action::Forget | Action::Conflict(_) | Action::Later(_) | Action::Held(_)
    )
}

/// Writes into the report what a plan leaves alone.
pub(super) fn count(steps: &Steps, here: &Tree, there: &Tree, report: &mut Report) {
    let later = |place| steps.values().filter(|action| **action == Action::Later(place)).count();
    (report.later_here, report.later_there) = (later(Side::Here), later(Side::There));
    // Directories go with what is in them.
    let held = |place, tree: &Tree| {
        let held = steps.iter().filter(|(_, action)| **action == Action::Held(place));
        let files = held.filter(|(path, _)| tree.get(*path).is_some_and(|item| item.kind != ItemKind::Directory));
        files.map(|(path, _)| path.clone()).collect()
    };
    (report.held_here, report.held_there) = (held(Side::Here, here), held(Side::There, there));
    let conflicts = steps.iter().filter_map(|(path, action)| match action {
        Action::Conflict(why) => Some(Conflict {
            path: path.clone(),
            why: *why,
            beside: None,
        }),
        _ => None,
    });
    report.conflicts = conflicts.collect();
}
