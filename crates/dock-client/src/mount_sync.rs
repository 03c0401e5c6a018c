//! The protocol between a dock's agent and the process that syncs a project for it, so that containers of any client can
//! mount the project: `sync-up` with the hidden argument [`ARGUMENT`], started by the agent in the project's root.
//!
//! One JSON document a line: a [`SyncCall`] to its stdin, and an [`SyncReply`] with the same number from its stdout. Several
//! requests may wait at once; those for a sync that has not begun share the next one. What a person should know is on its
//! stderr, as `sync-up -q` says it. When its stdin ends, it brings once more what changed on the dock, and ends.

use serde::{Deserialize, Serialize};

use crate::error::WireError;

/// The program, which is installed beside the agent's.
pub const PROGRAM: &str = "sync-up";
/// The argument that makes it serve an agent.
pub const ARGUMENT: &str = "--for-agent";
/// The longest line in bytes, either way: paths of 1,000 mounts.
pub const LONGEST_LINE: usize = 8 << 20;

/// What the agent asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncCall {
    /// Comes back with the answer.
    pub id: u64,
    pub task: Task,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Sends what changed in the project, and then says of each of these whether it is in the workspace. Paths are seen from
    /// the root, without `.` and `..`; the root itself is empty.
    Send {
        /// What is about to be mounted.
        sources: Vec<String>,
    },
    /// Keeps both sides in step from now on. It is answered at once.
    Watch,
    /// Brings what changed on the dock.
    Bring,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReply {
    /// The request's.
    pub id: u64,
    /// How it ended.
    pub outcome: SyncOutcome,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncOutcome {
    /// It was done.
    Done(Done),
    /// It could not be done: an agent shows the message and the hint.
    Failed(WireError),
}

/// What is known after a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The absolute path of the workspace on the dock; empty where nothing was synced.
    pub workspace: String,
    /// Those of the sources that are not in the workspace.
    pub missing: Vec<MissingSource>,
    /// What else whoever mounts the sources should know, a line each: what in them is not on the dock as it is here.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A source that can't be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingSource {
    /// Its path, seen from the root.
    pub path: String,
    /// Why it is not on the dock.
    pub why: Missing,
}

/// Why a source is not on the dock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// It does not exist here.
    Absent,
    /// `.dockerignore` leaves it out.
    Ignored,
    /// It is git's own, which does not travel.
    Git,
    /// It is a socket, a pipe or a device.
    Special,
    /// It could not be sent, which stderr says.
    Unsent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_an_answer_are_one_line_each() {
        let request = SyncCall {
            id: 7,
            task: Task::Send {
                sources: vec!["a\nb".into(), String::new()],
            },
        };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(line, r#"{"id":7,"task":{"send":{"sources":["a\nb",""]}}}"#);
        assert_eq!(serde_json::from_str::<SyncCall>(&line).unwrap(), request);
        let answer = SyncReply {
            id: 7,
            outcome: SyncOutcome::Done(Done {
                workspace: "/data/w".into(),
                missing: vec![MissingSource {
                    path: "a\nb".into(),
                    why: Missing::Absent,
                }],
                warnings: vec!["c\nd".into()],
            }),
        };
        let line = serde_json::to_string(&answer).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<SyncReply>(&line).unwrap(), answer);
    }
}
