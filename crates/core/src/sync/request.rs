//! What a command asks of the one that syncs the same project and dock just now ([`super::holder`]), and what it answers.
//!
//! The command says [`Hello`], and the holder answers with a [`Greeting`]; both are JSON in frames, as on an agent's control
//! socket ([`crate::agent::frame`]), and stay readable for every version to come. The command then says its [`RoundRequest`], and
//! hears [`HolderReply`]s until one of them is the end: all of these are long messages.

use serde::{Deserialize, Serialize};

use super::plan::{Action, Brake, Direction, Side, SyncRequest, Why};
use super::send::Generated;
use super::session::{Conflict, Report};
use crate::error::WireError;

/// The version of what follows `Hello` and `Greeting`; raised when either side would misunderstand the other.
pub const PROTOCOL: u32 = 1;
/// The longest request: as many paths as a command line may have.
pub const LONGEST_REQUEST: usize = 16 << 20;
/// The longest reply: a report of as many paths as a sync takes.
pub const LONGEST_REPLY: usize = 1 << 30;

/// The first words of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The command's [`PROTOCOL`].
    pub dockerutils_sync: u32,
    /// The version of its program, such as `3.0.0`.
    pub version: String,
    /// Asks the holder to step aside after its round: the command does itself what can't be asked for. Nothing follows this,
    /// and the holder closes when it has.
    #[serde(default)]
    pub leave: bool,
}

/// The first words of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The holder's [`PROTOCOL`].
    pub dockerutils_sync: u32,
    pub version: String,
    /// Its process.
    pub pid: u32,
}

/// A round that is wanted. It begins after the request, so that what was on disk then is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundRequest {
    pub direction: Direction,
    /// Whose version wins where both changed.
    pub settle: Option<Side>,
    /// Only these paths and what is below them; empty for all.
    pub only: Vec<Vec<u8>>,
    /// Whether a person has said that all removals are to be done.
    pub delete: bool,
    /// Whether git's own files travel, too; they do also where the holder was told so.
    #[serde(default)]
    pub with_git: bool,
    /// The version file, as the one who asks has it.
    pub generated: Option<Generated>,
    /// Its path, where the one who asks could not make it: both sides keep theirs.
    #[serde(default)]
    pub unmade: Option<Vec<u8>>,
    /// Whether a holder that watches may go by its last look at the dock, which is seconds old: what changed there since then
    /// comes by itself, and is not overwritten.
    #[serde(default)]
    pub from_last_look: bool,
}

impl RoundRequest {
    /// Everything that changed, in this direction.
    pub const fn everything(direction: Direction) -> Self {
        Self {
            direction,
            settle: None,
            only: Vec::new(),
            delete: false,
            with_git: false,
            generated: None,
            unmade: None,
            from_last_look: false,
        }
    }

    /// What a session that has this brake is asked for.
    pub fn sync_request(&self, brake: Brake) -> SyncRequest<'_> {
        SyncRequest {
            direction: self.direction,
            settle: self.settle,
            only: &self.only,
            brake: (!self.delete).then_some(brake),
        }
    }
}

/// What a holder answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderReply {
    /// It is still there; nothing else has happened.
    Waiting,
    /// A line about what is going on.
    Notice(String),
    /// The round is done.
    Report(RemoteReport),
    /// The round could not be done.
    Failed(WireError),
}

/// A [`Report`], as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoteReport {
    workspace: String,
    done: Vec<(Name, Action)>,
    conflicts: Vec<(Name, Why, Option<Name>)>,
    troubles: Vec<(Name, String)>,
    later: (usize, usize),
    held_here: Vec<Name>,
    held_there: Vec<Name>,
    root_files: Vec<Name>,
    user: u32,
    others: Vec<Name>,
    bytes: (u64, u64),
}

/// A path: a text, or its bytes if it is not valid UTF-8.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&Vec<u8>> for Name {
    fn from(path: &Vec<u8>) -> Self {
        match std::str::from_utf8(path) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(path.clone()),
        }
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Self {
        match name {
            Name::Text(text) => text.into_bytes(),
            Name::Bytes(bytes) => bytes,
        }
    }
}

impl From<&Report> for RemoteReport {
    fn from(report: &Report) -> Self {
        let names = |paths: &[Vec<u8>]| paths.iter().map(Name::from).collect();
        let conflict = |one: &Conflict| (Name::from(&one.path), one.why, one.beside.as_ref().map(Name::from));
        Self {
            workspace: report.workspace.clone(),
            done: report
                .done
                .iter()
                .map(|(path, action)| (path.into(), *action))
                .collect(),
            conflicts: report.conflicts.iter().map(conflict).collect(),
            troubles: report
                .troubles
                .iter()
                .map(|(path, why)| (path.into(), why.clone()))
                .collect(),
            later: (report.later_here, report.later_there),
            held_here: names(&report.held_here),
            held_there: names(&report.held_there),
            root_files: names(&report.root_files),
            user: report.user,
            others: names(&report.others),
            bytes: report.bytes,
        }
    }
}

impl From<RemoteReport> for Report {
    fn from(outcome: RemoteReport) -> Self {
        let paths = |names: Vec<Name>| names.into_iter().map(Vec::from).collect();
        let conflict = |(path, why, beside): (Name, Why, Option<Name>)| Conflict {
            path: path.into(),
            why,
            beside: beside.map(Vec::from),
        };
        Self {
            workspace: outcome.workspace,
            done: outcome
                .done
                .into_iter()
                .map(|(path, action)| (path.into(), action))
                .collect(),
            conflicts: outcome.conflicts.into_iter().map(conflict).collect(),
            troubles: outcome
                .troubles
                .into_iter()
                .map(|(path, why)| (path.into(), why))
                .collect(),
            later_here: outcome.later.0,
            later_there: outcome.later.1,
            held_here: paths(outcome.held_here),
            held_there: paths(outcome.held_there),
            root_files: paths(outcome.root_files),
            user: outcome.user,
            others: paths(outcome.others),
            bytes: outcome.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::guard::RULES;
    use super::*;

    #[test]
    fn a_report_arrives_with_all_that_is_printed_of_it() {
        let conflict = |path: &[u8], why, beside: Option<&[u8]>| Conflict {
            path: path.to_vec(),
            why,
            beside: beside.map(<[u8]>::to_vec),
        };
        let report = Report {
            workspace: "/data/workspaces/ann/code/p".into(),
            done: [
                (b"a".to_vec(), Action::Send(0o644)),
                (b"\xff\xfe".to_vec(), Action::RemoveHere),
                (b"m".to_vec(), Action::ModeThere(0o755)),
            ]
            .into(),
            conflicts: vec![
                conflict(b"c", Why::BothChanged, Some(b"c.dock")),
                conflict(b"g", Why::Guarded(RULES[0].why), None),
                conflict(b"m", Why::Mount(Side::There), None),
            ],
            troubles: vec![(b"t".to_vec(), "denied".into())],
            later_here: 1,
            later_there: 2,
            held_here: vec![b"h".to_vec()],
            held_there: vec![b"i".to_vec(), b"\x80".to_vec()],
            root_files: vec![b"r".to_vec()],
            user: 1000,
            others: vec![b"pipe".to_vec()],
            bytes: (u64::MAX, 3),
        };
        let text = serde_json::to_vec(&HolderReply::Report(RemoteReport::from(&report))).unwrap();
        let HolderReply::Report(outcome) = serde_json::from_slice(&text).unwrap() else {
            panic!("another reply");
        };
        assert_eq!(format!("{:?}", Report::from(outcome)), format!("{report:?}"));
    }
}
