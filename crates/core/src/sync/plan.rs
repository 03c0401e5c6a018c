//! What a sync is about to do: the two sides compared with what they last agreed on, path by path.
//!
//! A path that changed on one side goes to the other. One that changed on both is a conflict, unless both have the same
//! contents now: it is left alone, and the rest goes on. Modes are told apart from contents, and never conflict: where both
//! sides changed one, the side that the sync takes from wins.
//!
//! What [`Guard`] holds is never changed here because the dock has something else: that is a conflict, and only a person
//! who names the path settles it for the dock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::guard::{self, Guard};
use super::manifest::{Record, RecordedSide, Records};
use super::{Content, Item, ItemKind, OTHERS_WRITE, Stamp, Tree, ancestors, below, is_at_or_below, split};
use crate::config::own::RemoveUnasked;

/// Which way files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the dock.
    Up,
    /// From the dock.
    Down,
    /// Both ways.
    Both,
}

impl Direction {
    const fn up(self) -> bool {
        matches!(self, Self::Up | Self::Both)
    }

    const fn down(self) -> bool {
        matches!(self, Self::Down | Self::Both)
    }
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// This machine.
    Here,
    /// The dock.
    There,
}

impl Side {
    /// Whose version wins, by the options `--ours` and `--theirs`.
    pub const fn settled(ours: bool, theirs: bool) -> Option<Self> {
        match (ours, theirs) {
            (true, _) => Some(Self::Here),
            (_, true) => Some(Self::There),
            _ => None,
        }
    }
}

/// Why a path is left alone on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Changed on both sides.
    BothChanged,
    /// On both sides, with other contents, and never synced.
    BothNew,
    /// Changed on this machine, removed on the dock.
    RemovedThere,
    /// Removed on this machine, changed on the dock.
    RemovedHere,
    /// A file is where the other side has a directory, or the other way round.
    InTheWay(Side),
    /// Another file system is mounted there on the dock, where a file can't be put in one step.
    OtherFileSystem,
    /// It is gone on this side together with what was mounted there, or because something is mounted there now.
    Mount(Side),
    /// It became empty on this side, as files do whose contents a power cut took.
    Emptied(Side),
    /// It became shorter on this side, though its time says that it was not written to.
    Shortened(Side),
    /// Its name is another's but for capitals, and this side's file system takes both for one.
    SameLetters(Side),
    /// Changed on the dock, and no dock changes it: see [`Guard`], which says why.
    Guarded(#[serde(deserialize_with = "guard::read_reason")] Reason),
}

/// Why a dock does not change something: a sentence of [`Guard`]'s.
type Reason = &'static str;

impl Why {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::BothChanged => "changed on both sides",
            Self::BothNew => "different on both sides, and never synced",
            Self::RemovedThere => "changed here, removed on the dock",
            Self::RemovedHere => "removed here, changed on the dock",
            Self::InTheWay(Side::Here) => "a file and a directory of this name are in each other's way here",
            Self::InTheWay(Side::There) => "a file and a directory of this name are in each other's way on the dock",
            Self::OtherFileSystem => "on another file system of the dock, which is mounted in the workspace",
            Self::Mount(Side::Here) => "gone here, where another disk is mounted, or none",
            Self::Mount(Side::There) => "gone on the dock, where another disk is mounted, or none",
            Self::Emptied(Side::Here) => "became empty here, as after a power cut",
            Self::Emptied(Side::There) => "became empty on the dock, as after a power cut",
            Self::Shortened(Side::Here) => "became shorter here, but kept its old time",
            Self::Shortened(Side::There) => "became shorter on the dock, but kept its old time",
            Self::SameLetters(Side::Here) => {
                "differs from another name only in upper and lower case, which the disk here does not distinguish"
            }
            Self::SameLetters(Side::There) => {
                "differs from another name only in upper and lower case, which the dock's disk does not distinguish"
            }
            Self::Guarded(_) => "different on the dock, and only taken from there if it is named",
        }
    }
}

/// What happens to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Put on the dock, with this mode.
    Send(u32),
    /// Removed on the dock.
    RemoveThere,
    /// Gets this mode on the dock.
    ModeThere(u32),
    /// Put here, with this mode.
    Bring(u32),
    /// Removed here.
    RemoveHere,
    /// Gets this mode here.
    ModeHere(u32),
    /// The same on both sides already; that is only written down.
    Agree,
    /// Gone on both sides; that is only written down.
    Forget,
    /// Left alone on both sides.
    Conflict(Why),
    /// Changed on the side that this sync does not take from.
    Later(Side),
    /// One of so many removals on this side that they need a person's word: see [`Brake`].
    Held(Side),
}

/// How many removals on a side need the user's consent: more than a number of files, or more than a part
/// of them, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brake {
    /// Files, at most.
    pub files: usize,
    /// Hundredths of the side's files, at most; counted from [`Brake::FEW`] on.
    pub percent: usize,
}

impl Default for Brake {
    fn default() -> Self {
        Self { files: 50, percent: 20 }
    }
}

impl From<RemoveUnasked> for Brake {
    fn from(own: RemoveUnasked) -> Self {
        let default = Self::default();
        Self {
            files: own.files.unwrap_or(default.files),
            percent: own.percent.unwrap_or(default.percent),
        }
    }
}

impl Brake {
    /// So few removals are no large part of anything.
    pub const FEW: usize = 5;

    const fn holds(self, removed: usize, of: usize) -> bool {
        let is_part = removed > Self::FEW && removed.saturating_mul(100) > of.saturating_mul(self.percent);
        // A project's one file is removed like any other.
        removed > self.files || is_part || (removed > 1 && removed >= of)
    }
}

/// Contents that had to be looked at.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// On this machine.
    pub here: HashMap<Vec<u8>, Content>,
    /// On the dock.
    pub there: HashMap<Vec<u8>, Content>,
}

/// The two sides and what they agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// When they were last in step.
    pub base: &'a Records,
    /// This machine's.
    pub here: &'a Tree,
    /// The dock's.
    pub there: &'a Tree,
    /// Whether the file system takes names for one that differ in capitals alone: here, and there.
    pub folds: (bool, bool),
    /// Directories on the dock that can't be looked into.
    pub unseen: &'a BTreeSet<Vec<u8>>,
    /// The file whose place on the dock a generated one takes: it goes there, and never comes back.
    pub generated: Option<&'a [u8]>,
    /// That file where none could be generated: it is left as it is on both sides.
    pub unmade: Option<&'a [u8]>,
    /// What the dock never changes here.
    pub guard: &'a Guard,
}

/// What the user wants.
#[derive(Clone, Copy, Debug)]
pub struct SyncRequest<'a> {
    pub direction: Direction,
    /// Whose version wins where both changed.
    pub settle: Option<Side>,
    /// Only these paths and what is below them; empty for all.
    pub only: &'a [Vec<u8>],
    /// How many removals are done unasked; `None` where a person has said that all are to be done.
    pub brake: Option<Brake>,
}

impl SyncRequest<'_> {
    /// Everything that changed, in this direction, and no more removals than the brake lets pass.
    pub const fn everything(direction: Direction, brake: Brake) -> Self {
        Self {
            direction,
            settle: None,
            only: &[],
            brake: Some(brake),
        }
    }

    fn wants(&self, path: &[u8]) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| is_at_or_below(path, wanted))
    }

    /// Whether a person has said that the dock's version of this very path counts: by its name, or by that of a directory
    /// which the guard holds as a whole.
    fn takes(&self, path: &[u8], sides: &Sides<'_>) -> bool {
        let names = |wanted: &Vec<u8>| {
            path == wanted || (is_at_or_below(path, wanted) && sides.guard.is_listed(wanted, sides.here))
        };
        self.settle == Some(Side::There) && self.only.iter().any(names)
    }
}

/// What is to be done, by path.
pub type Steps = BTreeMap<Vec<u8>, Action>;

impl Sides<'_> {
    /// All paths of either side, or of the last time, but for those that can't be seen.
    fn paths(&self) -> BTreeSet<&Vec<u8>> {
        let all = self.here.keys().chain(self.there.keys()).chain(self.base.keys());
        all.filter(|path| !self.is_unseen(path)).collect()
    }

    /// What one side alone changed, as [`flow`] has it, unless it looks as if nobody had: that is a conflict.
    fn doubt(&self, path: &[u8], flow: Flow, direction: Direction) -> Flow {
        let (Flow::From(place), Some(record)) = (&flow, self.base.get(path)) else {
            return flow;
        };
        let travels = match place {
            Side::Here => direction.up(),
            Side::There => direction.down(),
        };
        if !travels {
            return flow;
        }
        let (tree, side) = match place {
            Side::Here => (self.here, &record.here),
            Side::There => (self.there, &record.there),
        };
        let Some(item) = tree.get(path) else {
            return match self.lost_mount(tree, *place, path, side) {
                true => Flow::Conflict(Why::Mount(*place)),
                false => flow,
            };
        };
        let (before, now) = (&side.stamp, &item.stamp);
        if (record.kind, item.kind) != (ItemKind::File, ItemKind::File) || now.size >= before.size {
            flow
        } else if now.size == 0 {
            Flow::Conflict(Why::Emptied(*place))
        } else if now.mtime < before.mtime || now.ctime_ns <= before.ctime_ns {
            // Whoever writes to a file marks it with a later time.
            Flow::Conflict(Why::Shortened(*place))
        } else {
            flow
        }
    }

    /// Whether the nearest directory that is still above a path that is gone is on another file system than it was.
    fn lost_mount(&self, tree: &Tree, place: Side, path: &[u8], gone: &RecordedSide) -> bool {
        let above: Vec<&[u8]> = ancestors(path).collect();
        for above in above.into_iter().rev() {
            if let Some(item) = tree.get(above) {
                let before = self.base.get(above).map(|record| match place {
                    Side::Here => record.here.device,
                    Side::There => record.there.device,
                });
                return before.unwrap_or(gone.device) != item.device;
            }
        }
        false
    }

    fn is_unseen(&self, path: &[u8]) -> bool {
        !self.unseen.is_empty() && ancestors(path).any(|above| self.unseen.contains(above))
    }

    /// The contents that have to be looked at before [`plan`] can tell what changed: paths here, and there.
    pub fn questions(&self, request: &SyncRequest<'_>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut ask_here, mut ask_there) = (Vec::new(), Vec::new());
        for path in self.paths() {
            if !request.wants(path) {
                continue;
            }
            let base = self.base.get(path);
            let item_here = self.here.get(path);
            let item_there = self.there.get(path);
            let in_doubt = |side: fn(&Record) -> &RecordedSide, item: Option<&Item>| match (base, item) {
                (Some(record), Some(item)) => {
                    record.kind == item.kind
                        && item.kind != ItemKind::Directory
                        && !is_untouched(side(record), item)
                        && side(record).stamp.size == item.stamp.size
                }
                _ => false,
            };
            let sure = |side: fn(&Record) -> &RecordedSide, item: Option<&Item>| match (base, item) {
                (Some(record), Some(item)) => record.kind == item.kind && is_untouched(side(record), item),
                _ => false,
            };
            // Where both may have changed, they may have changed to the same.
            let may_agree = match (item_here, item_there) {
                (Some(here), Some(there)) => {
                    here.kind == there.kind
                        && here.kind != ItemKind::Directory
                        && here.stamp.size == there.stamp.size
                        && !sure(|record| &record.here, item_here)
                        && !sure(|record| &record.there, item_there)
                }
                _ => false,
            };
            if may_agree || in_doubt(|record| &record.here, item_here) {
                ask_here.push(path.clone());
            }
            if may_agree || in_doubt(|record| &record.there, item_there) {
                ask_there.push(path.clone());
            }
        }
        (ask_here, ask_there)
    }
}

/// The links on the dock that may come: their texts are to be known before [`plan`].
pub fn links(base: &Records, here: &Tree, there: &Tree) -> Vec<Vec<u8>> {
    let is_in_step = |path: &Vec<u8>, item: &Item| match (base.get(path), here.get(path)) {
        (Some(record), Some(here)) => {
            record.kind == ItemKind::Symlink
                && here.kind == ItemKind::Symlink
                && is_untouched(&record.here, here)
                && is_untouched(&record.there, item)
        }
        _ => false,
    };
    let links = there.iter().filter(|(_, item)| item.kind == ItemKind::Symlink);
    let links = links.filter(|(path, item)| !is_in_step(path, item));
    links.map(|(path, _)| path.clone()).collect()
}

fn is_untouched(side: &RecordedSide, item: &Item) -> bool {
    item.kind == ItemKind::Directory || (side.settled && side.stamp == item.stamp)
}

/// How one side differs from what was agreed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SideChange {
    None,
    Other,
    Gone,
}

fn change(record: &Record, side: &RecordedSide, item: Option<&Item>, known: Option<&Content>) -> SideChange {
    let Some(item) = item else {
        return SideChange::Gone;
    };
    if item.kind != record.kind {
        return SideChange::Other;
    }
    match known {
        // Of directories, only their being there counts.
        _ if item.kind == ItemKind::Directory => SideChange::None,
        Some(content) if *content == record.content => SideChange::None,
        Some(_) => SideChange::Other,
        None if is_untouched(side, item) => SideChange::None,
        None => SideChange::Other,
    }
}

/// What became of a path's contents.
enum Flow {
    InStep,
    Agree,
    From(Side),
    Forget,
    Conflict(Why),
}

/// Plans a sync.
pub fn plan(sides: &Sides<'_>, contents: &Contents, request: &SyncRequest<'_>) -> Steps {
    let mut steps = Steps::new();
    // Where a person has said whose version counts.
    let mut settled = BTreeSet::new();
    for path in sides.paths() {
        if !request.wants(path) {
            continue;
        }
        let (base, here, there) = (sides.base.get(path), sides.here.get(path), sides.there.get(path));
        let flow = if sides.unmade == Some(path.as_slice()) {
            Flow::InStep
        } else if sides.generated == Some(path.as_slice()) {
            generated(base, here, there, contents, path)
        } else {
            sides.doubt(path, flow(base, here, there, contents, path), request.direction)
        };
        let guarded = match flow {
            Flow::Conflict(_) | Flow::From(Side::There) => sides.guard.holds(path, sides.here, sides.there),
            _ => None,
        };
        let flow = match (flow, guarded) {
            (Flow::From(Side::There), Some(_)) if !request.direction.down() && request.settle.is_none() => {
                Flow::From(Side::There)
            }
            (_, Some(why)) => Flow::Conflict(Why::Guarded(why)),
            (flow, None) => flow,
        };
        let flow = match (flow, request.settle) {
            (Flow::Conflict(why @ Why::Guarded(_)), Some(Side::There)) if !request.takes(path, sides) => {
                Flow::Conflict(why)
            }
            (Flow::Conflict(_), Some(place)) => {
                settled.insert(path.clone());
                let action = put(place, base, here, there, request.direction);
                steps.extend(action.map(|action| (path.clone(), action)));
                continue;
            }
            (flow, _) => flow,
        };
        let action = match flow {
            Flow::InStep | Flow::Agree => match mode(base, here, there, request.direction) {
                None if matches!(flow, Flow::Agree) => Some(Action::Agree),
                None => stale(base, here, there).then_some(Action::Agree),
                Some(action @ (Action::ModeHere(_) | Action::Later(Side::There))) => {
                    Some(guarded_mode(sides, request, path, action))
                }
                action => action,
            },
            Flow::Forget => Some(Action::Forget),
            Flow::From(Side::Here) if !request.direction.up() => Some(Action::Later(Side::Here)),
            Flow::From(Side::There) if !request.direction.down() => Some(Action::Later(Side::There)),
            Flow::From(place) => put(place, base, here, there, request.direction),
            Flow::Conflict(why) => Some(Action::Conflict(why)),
        };
        steps.extend(action.map(|action| (path.clone(), action)));
    }
    for side in [Side::Here, Side::There] {
        brake(sides, &mut steps, request, side);
        tell_apart(sides, &mut steps, side);
    }
    fit(sides, &mut steps, &settled, request.settle, Side::There);
    fit(sides, &mut steps, &settled, request.settle, Side::Here);
    hold(sides, &mut steps, request);
    steps
}

/// The step for a mode that changed on the dock, where the guard has a say.
fn guarded_mode(sides: &Sides<'_>, request: &SyncRequest<'_>, path: &[u8], action: Action) -> Action {
    let Some(why) = sides.guard.holds_mode(path, sides.here) else {
        return action;
    };
    match (action, request.settle, sides.here.get(path)) {
        (_, Some(Side::Here), Some(here)) => Action::ModeThere(here.mode),
        (_, Some(Side::There), Some(here)) if request.takes(path, sides) => Action::ModeHere(taken(
            sides.there.get(path).map_or(here.mode, |there| there.mode),
            Some(here),
        )),
        // Never in step before, and the same otherwise: each keeps its own.
        (Action::ModeHere(_), ..) if !sides.base.contains_key(path) => Action::Agree,
        (Action::ModeHere(_), ..) => Action::Conflict(Why::Guarded(why)),
        (action, ..) => action,
    }
}

/// The guard's last word, when the steps of both sides fit together: what they would take along, it holds, too.
fn hold(sides: &Sides<'_>, steps: &mut Steps, request: &SyncRequest<'_>) {
    let is_directory = |tree: &Tree, path: &[u8]| tree.get(path).is_some_and(|item| item.kind == ItemKind::Directory);
    let changing: Vec<(Vec<u8>, Action)> = steps
        .iter()
        .filter(|(_, action)| matches!(action, Action::Bring(_) | Action::RemoveHere))
        .map(|(path, action)| (path.clone(), *action))
        .collect();
    for (path, action) in &changing {
        let why = match sides.guard.holds(path, sides.here, sides.there) {
            Some(why) if !request.takes(path, sides) => Some(why),
            _ if is_directory(sides.here, path) && !is_directory(sides.there, path) => {
                sides
                    .guard
                    .holds_below(path, sides.here, |lower| request.takes(lower, sides))
            }
            _ => None,
        };
        match (why, action) {
            (None, _) => {}
            // What is held in it is named itself.
            (Some(_), Action::RemoveHere) if is_directory(sides.here, path) => drop(steps.remove(path)),
            (Some(why), _) => drop(steps.insert(path.clone(), Action::Conflict(Why::Guarded(why)))),
        }
    }
    // What a link would take the place of is named by the link.
    let is_named_above = |steps: &Steps, path: &Vec<u8>| {
        let above = sides.guard.stray_at(path).map(|(above, _)| above);
        above.is_some_and(|above| above != path && matches!(steps.get(above), Some(Action::Conflict(_))))
    };
    let below: Vec<Vec<u8>> = steps
        .iter()
        .filter(|(path, action)| matches!(action, Action::Conflict(Why::Guarded(_))) && is_named_above(steps, path))
        .map(|(path, _)| path.clone())
        .collect();
    for path in below {
        steps.remove(&path);
    }
    // Nothing comes into a directory that does not come.
    for (path, action) in &changing {
        let blocked = matches!(action, Action::Bring(_))
            && ancestors(path)
                .any(|above| matches!(steps.get(above), Some(Action::Conflict(_))) && !is_directory(sides.here, above));
        if blocked {
            steps.insert(path.clone(), Action::Conflict(Why::InTheWay(Side::Here)));
        }
    }
}

/// A mode of the dock as it is taken here: who else may write to a file stays as it is here, and who may not even read it,
/// or look into a directory, gets no right to it.
pub fn taken(mode: u32, here: Option<&Item>) -> u32 {
    let Some(here) = here.filter(|here| here.kind != ItemKind::Symlink) else {
        return mode & !OTHERS_WRITE;
    };
    // Read, write and execute, of the group and of others.
    let rights = |shift: u32| {
        let (had, new) = ((here.mode >> shift) & 7, (mode >> shift) & 7);
        let execute = if had == 0 { 0 } else { new & 1 };
        ((had & 2) | (had & new & 4) | execute) << shift
    };
    (mode & 0o700) | rights(3) | rights(0)
}

fn flow(base: Option<&Record>, here: Option<&Item>, there: Option<&Item>, contents: &Contents, path: &[u8]) -> Flow {
    let same = match (here, there) {
        (Some(here), Some(there)) => {
            here.kind == there.kind
                && (here.kind == ItemKind::Directory
                    || match (contents.here.get(path), contents.there.get(path)) {
                        (Some(here), Some(there)) => here == there,
                        _ => false,
                    })
        }
        _ => false,
    };
    let Some(record) = base else {
        return match (here, there) {
            (Some(_), Some(_)) if same => Flow::Agree,
            (Some(_), Some(_)) => Flow::Conflict(Why::BothNew),
            (Some(_), None) => Flow::From(Side::Here),
            (None, _) => Flow::From(Side::There),
        };
    };
    let changes = (
        change(record, &record.here, here, contents.here.get(path)),
        change(record, &record.there, there, contents.there.get(path)),
    );
    match changes {
        (SideChange::None, SideChange::None) => Flow::InStep,
        (SideChange::None, _) => Flow::From(Side::There),
        (_, SideChange::None) => Flow::From(Side::Here),
        (SideChange::Gone, SideChange::Gone) => Flow::Forget,
        (SideChange::Other, SideChange::Other) if same => Flow::Agree,
        (SideChange::Other, SideChange::Other) => Flow::Conflict(Why::BothChanged),
        (SideChange::Other, SideChange::Gone) => Flow::Conflict(Why::RemovedThere),
        (SideChange::Gone, SideChange::Other) => Flow::Conflict(Why::RemovedHere),
    }
}

/// The generated file counts, whatever is there.
fn generated(
    base: Option<&Record>,
    here: Option<&Item>,
    there: Option<&Item>,
    contents: &Contents,
    path: &[u8],
) -> Flow {
    match (here, there) {
        (Some(_), Some(_)) => match flow(base, here, there, contents, path) {
            flow @ (Flow::InStep | Flow::Agree) => flow,
            _ => Flow::From(Side::Here),
        },
        (Some(_), None) => Flow::From(Side::Here),
        (None, None) => Flow::Forget,
        // Removed here, it goes there, too; what only the dock has of it is not ours.
        (None, Some(_)) if base.is_some() => Flow::From(Side::Here),
        (None, Some(_)) => Flow::InStep,
    }
}

/// The step that makes the other side as this one is.
fn put(
    from: Side,
    base: Option<&Record>,
    here: Option<&Item>,
    there: Option<&Item>,
    direction: Direction,
) -> Option<Action> {
    match (from, here, there) {
        (Side::Here, Some(here), there) => Some(Action::Send(merged(base, here, there, Side::Here, direction))),
        (Side::Here, None, Some(_)) => Some(Action::RemoveThere),
        (Side::There, here, Some(there)) => {
            let mode = merged(base, there, here, Side::There, direction);
            let is_link = there.kind == ItemKind::Symlink;
            Some(Action::Bring(if is_link { mode } else { taken(mode, here) }))
        }
        (Side::There, Some(_), None) => Some(Action::RemoveHere),
        (_, None, None) => Some(Action::Forget),
    }
}

/// The mode of what is put: the other side's, where only that one changed it.
fn merged(base: Option<&Record>, item: &Item, other: Option<&Item>, from: Side, direction: Direction) -> u32 {
    let (Some(record), Some(other)) = (base, other) else {
        return item.mode;
    };
    let (own, others) = match from {
        Side::Here => (record.here.mode, record.there.mode),
        Side::There => (record.there.mode, record.here.mode),
    };
    let keeps = record.kind == item.kind && item.kind == other.kind && direction != Direction::Both;
    if keeps && item.mode == own && other.mode != others {
        other.mode
    } else {
        item.mode
    }
}

/// What is to be done about a mode, where the contents are in step.
fn mode(base: Option<&Record>, here: Option<&Item>, there: Option<&Item>, direction: Direction) -> Option<Action> {
    let (Some(here), Some(there)) = (here, there) else {
        return None;
    };
    if here.kind == ItemKind::Symlink {
        return None;
    }
    let (changed_here, changed_there) = match base {
        Some(record) => (here.mode != record.here.mode, there.mode != record.there.mode),
        None => (here.mode != there.mode, here.mode != there.mode),
    };
    let from = match (changed_here, changed_there) {
        (false, false) => return None,
        _ if here.mode == there.mode => return Some(Action::Agree),
        (true, false) => Side::Here,
        (false, true) => Side::There,
        (true, true) if direction == Direction::Down => Side::There,
        (true, true) => Side::Here,
    };
    Some(match from {
        Side::Here if direction.up() => Action::ModeThere(here.mode),
        // All that changed is what is not taken.
        Side::There if taken(there.mode, Some(here)) == here.mode => Action::Agree,
        Side::There if direction.down() => Action::ModeHere(taken(there.mode, Some(here))),
        place => Action::Later(place),
    })
}

/// Whether what is written down of a path that is in step could be told quicker the next time.
fn stale(base: Option<&Record>, here: Option<&Item>, there: Option<&Item>) -> bool {
    match (base, here, there) {
        (Some(record), Some(here), Some(there)) => {
            !is_untouched(&record.here, here) || !is_untouched(&record.there, there)
        }
        _ => false,
    }
}

/// Makes the steps of one side fit together: nothing is put below what is no directory, in the place of a directory that
/// is not empty, or through a link; no directory is removed that still holds something.
fn fit(sides: &Sides<'_>, steps: &mut Steps, settled: &BTreeSet<Vec<u8>>, settle: Option<Side>, side: Side) {
    let (tree, source) = match side {
        Side::There => (sides.there, sides.here),
        Side::Here => (sides.here, sides.there),
    };
    let removes = |action: &Action| match side {
        Side::There => *action == Action::RemoveThere,
        Side::Here => *action == Action::RemoveHere,
    };
    let removal = match side {
        Side::There => Action::RemoveThere,
        Side::Here => Action::RemoveHere,
    };
    let puts = |action: &Action| {
        matches!(
            (side, action),
            (Side::There, Action::Send(_)) | (Side::Here, Action::Bring(_))
        )
    };
    let placing = |mode: u32| match side {
        Side::There => Action::Send(mode),
        Side::Here => Action::Bring(taken(mode, None)),
    };
    let paths: Vec<Vec<u8>> = steps.keys().cloned().collect();
    for path in &paths {
        if !steps.get(path).is_some_and(puts) {
            continue;
        }
        // A directory in the place of which something else is put.
        let replaces = tree.get(path).is_some_and(|item| item.kind == ItemKind::Directory)
            && source.get(path).is_some_and(|item| item.kind != ItemKind::Directory);
        if replaces {
            if settled.contains(path) {
                for (lower, _) in below(tree, path) {
                    steps.insert(lower.clone(), removal);
                }
            } else if below(tree, path).any(|(lower, _)| !steps.get(lower).is_some_and(removes)) {
                match settle {
                    Some(place) => take_whole(sides, steps, place, path),
                    None => drop(steps.insert(path.clone(), Action::Conflict(Why::InTheWay(side)))),
                }
                continue;
            }
        }
        let mut missing = Vec::new();
        let mut blocked = None;
        for above in ancestors(path) {
            let becomes = match steps.get(above) {
                Some(action) if puts(action) => source.get(above).map(|item| item.kind),
                Some(action) if removes(action) => None,
                _ => tree.get(above).map(|item| item.kind),
            };
            match becomes {
                Some(ItemKind::Directory) => {}
                None => missing.push(above.to_vec()),
                Some(_) => blocked = blocked.or(Some(above.to_vec())),
            }
        }
        let foreign = side == Side::There && parent_item(tree, path).is_some_and(|item| item.device != 0);
        if let Some(above) = blocked {
            match settle {
                Some(place) => take_whole(sides, steps, place, &above),
                None => drop(steps.insert(path.clone(), Action::Conflict(Why::InTheWay(side)))),
            }
        } else if foreign {
            steps.insert(path.clone(), Action::Conflict(Why::OtherFileSystem));
        } else {
            for above in missing {
                let mode = source.get(&above).map_or(0o755, |item| item.mode);
                steps.insert(above, placing(mode));
            }
        }
    }
    for path in paths.iter().rev() {
        let is_directory = tree.get(path).is_some_and(|item| item.kind == ItemKind::Directory);
        if steps.get(path).is_some_and(removes)
            && is_directory
            && below(tree, path).any(|(lower, _)| !steps.get(lower).is_some_and(removes))
        {
            steps.remove(path);
        }
    }
}

/// Makes all that lies at and below a path as one side has it: a file here and a directory there have no middle way.
fn take_whole(sides: &Sides<'_>, steps: &mut Steps, from: Side, path: &[u8]) {
    let (own, other) = match from {
        Side::Here => (sides.here, sides.there),
        Side::There => (sides.there, sides.here),
    };
    let top = own.get(path).map(|item| (path.to_vec(), item));
    for (path, item) in top
        .into_iter()
        .chain(below(own, path).map(|(path, item)| (path.clone(), item)))
    {
        let action = match from {
            Side::Here => Action::Send(item.mode),
            Side::There if item.kind == ItemKind::Symlink => Action::Bring(item.mode),
            Side::There => Action::Bring(taken(item.mode, other.get(&path))),
        };
        steps.insert(path, action);
    }
    let top = other.contains_key(path).then(|| path.to_vec());
    for path in top.into_iter().chain(below(other, path).map(|(path, _)| path.clone())) {
        if !own.contains_key(&path) {
            let action = match from {
                Side::Here => Action::RemoveThere,
                Side::There => Action::RemoveHere,
            };
            steps.insert(path, action);
        }
    }
}

/// The nearest directory above a path that is there.
fn parent_item<'a>(tree: &'a Tree, path: &[u8]) -> Option<&'a Item> {
    let mut above = split(path).0;
    while !above.is_empty() {
        if let Some(item) = tree.get(above) {
            return Some(item);
        }
        above = split(above).0;
    }
    None
}

/// Holds the removals on a side, where they are more than are done unasked. A file that was moved is no removal.
fn brake(sides: &Sides<'_>, steps: &mut Steps, request: &SyncRequest<'_>, side: Side) {
    let Some(brake) = request.brake else { return };
    let (removal, tree, source) = match side {
        Side::Here => (Action::RemoveHere, sides.here, sides.there),
        Side::There => (Action::RemoveThere, sides.there, sides.here),
    };
    let removed: Vec<Vec<u8>> = steps
        .iter()
        .filter(|(_, action)| **action == removal)
        .map(|(path, _)| path.clone())
        .collect();
    // Most rounds remove nothing, and count nothing.
    if removed.is_empty() {
        return;
    }
    let is_file = |path: &Vec<u8>| tree.get(path).is_some_and(|item| item.kind != ItemKind::Directory);
    // What is new where it was removed, by what a move keeps.
    let mark = |stamp: &Stamp| (stamp.inode, stamp.size, stamp.mtime);
    let moved: HashSet<(u64, u64, i64)> = match removed.len() > Brake::FEW {
        true => source
            .iter()
            .filter(|(path, item)| item.kind != ItemKind::Directory && !sides.base.contains_key(*path))
            .map(|(_, item)| mark(&item.stamp))
            .collect(),
        false => HashSet::new(),
    };
    let is_moved = |path: &Vec<u8>| {
        sides.base.get(path).is_some_and(|record| {
            let side = match side {
                Side::Here => &record.there,
                Side::There => &record.here,
            };
            moved.contains(&mark(&side.stamp))
        })
    };
    let count = removed.iter().filter(|path| is_file(path) && !is_moved(path)).count();
    let all = tree.values().filter(|item| item.kind != ItemKind::Directory).count();
    if !brake.holds(count, all) {
        return;
    }
    for path in removed {
        // Whose version counts, where a person has said so, is put back on the other side.
        let action = match request.settle {
            Some(place) if place == side => {
                let (base, here, there) = (sides.base.get(&path), sides.here.get(&path), sides.there.get(&path));
                put(place, base, here, there, request.direction)
            }
            _ => Some(Action::Held(side)),
        };
        steps.extend(action.map(|action| (path, action)));
    }
}

/// Leaves alone what a side's file system can't tell from another path of the same letters.
fn tell_apart(sides: &Sides<'_>, steps: &mut Steps, side: Side) {
    let (folds, own, other) = match side {
        Side::Here => (sides.folds.0, sides.here, sides.there),
        Side::There => (sides.folds.1, sides.there, sides.here),
    };
    if !folds {
        return;
    }
    // The other side has both; this one at most one of them.
    let mut same: HashMap<String, Vec<&Vec<u8>>> = HashMap::new();
    for path in other.keys() {
        let letters = String::from_utf8_lossy(path).to_lowercase();
        same.entry(letters).or_default().push(path);
    }
    for path in same.into_values().filter(|paths| paths.len() > 1).flatten() {
        let puts = |path: &[u8]| match steps.get(path) {
            Some(Action::Send(_)) => side == Side::There,
            Some(Action::Bring(_)) => side == Side::Here,
            _ => false,
        };
        if puts(path) || !own.contains_key(path) {
            steps.insert(path.clone(), Action::Conflict(Why::SameLetters(side)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_numbers_are_the_brakes_and_all_is_never_removed_unasked() {
        let brake = |files, percent| Brake::from(RemoveUnasked { files, percent });
        let standard = brake(None, None);
        assert_eq!(standard, Brake::default());
        assert!(!standard.holds(50, 300) && standard.holds(51, 300) && standard.holds(6, 20) && !standard.holds(5, 20));
        let wide = brake(Some(1000), Some(100));
        assert!(!wide.holds(999, 1000) && wide.holds(1000, 1000) && wide.holds(1001, 5000));
        assert!(brake(Some(0), None).holds(1, 1000), "nothing is removed unasked");
        assert!(!standard.holds(1, 1), "a project's one file goes like any other");
    }
}
