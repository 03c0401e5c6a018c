//! What a watch has said already: each thing is said once, and then only what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Why;
use super::rhythm::POLL;
use super::session::Report;
use crate::error::Error;

/// What failed, travelled and fails again within this time is no news: a file that is written all the time does so.
const SAME_TROUBLE: Duration = Duration::from_secs(60);
/// Removals that need the user's consent are checked again after this time: a program that writes a tree anew
/// removes it for a moment.
const SECOND_LOOK: Duration = POLL;

/// What comes before the name of a round's trash, in what tools say.
const TRASH: &str = ".dockerutils-sync/trash/";

/// What happened while watching.
#[derive(Debug)]
pub enum WatchEvent {
    /// Something travelled, or is in the way that was not said yet; with how much of its kind was.
    Synced(Report, Before),
    /// Something failed; it is tried again.
    Failed(Error),
    /// It works again.
    Back,
    /// The system does not tell of changes here: they are looked for as often as the dock's.
    Blind(Error),
}

/// What was said in a watch.
#[derive(Debug, Default)]
pub struct News {
    conflicts: Vec<(Vec<u8>, Why)>,
    /// Since when a removal is held, and whether that was said.
    held_here: BTreeMap<Vec<u8>, (Instant, bool)>,
    held_there: BTreeMap<Vec<u8>, (Instant, bool)>,
    troubles: BTreeMap<(Vec<u8>, String), Instant>,
    root_files: BTreeSet<Vec<u8>>,
    others: BTreeSet<Vec<u8>>,
}

/// How much was said before, of what there may be more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    pub conflicts: usize,
    /// Removals on the dock that are not done here.
    pub held_here: usize,
    /// Removals here that are not done on the dock.
    pub held_there: usize,
    pub root_files: usize,
}

/// The news of a report.
#[derive(Debug)]
pub struct Fresh {
    /// What travelled, and what else was not said yet.
    pub report: Report,
    /// What was.
    pub before: Before,
    /// Whether something is to be looked at again before it is said.
    pub is_in_doubt: bool,
}

impl Fresh {
    /// Tells it, where there is any.
    pub fn tell(self, tell: &mut impl FnMut(WatchEvent)) {
        let Self { report, before, .. } = self;
        if !report.done.is_empty() || !report.is_clean() || !report.root_files.is_empty() || !report.others.is_empty() {
            tell(WatchEvent::Synced(report, before));
        }
    }
}

impl News {
    /// Leaves out of a report what was said before. A report that is `whole` has all that is in the way now: what is not in
    /// it is over, and is news when it comes again.
    pub fn filter(&mut self, mut report: Report, whole: bool, now: Instant) -> Fresh {
        let mut before = Before {
            root_files: self.root_files.len(),
            ..Before::default()
        };
        if whole {
            let is_in =
                |path: &Vec<u8>, why: &Why| report.conflicts.iter().any(|one| (&one.path, &one.why) == (path, why));
            self.conflicts.retain(|(path, why)| is_in(path, why));
        }
        before.conflicts = self.conflicts.len();
        report
            .conflicts
            .retain(|one| !self.conflicts.contains(&(one.path.clone(), one.why)));
        let conflicts = report.conflicts.iter().map(|one| (one.path.clone(), one.why));
        self.conflicts.extend(conflicts);

        self.troubles.retain(|(path, _), since| {
            let is_over = report.done.contains_key(path);
            !is_over || now.duration_since(*since) < SAME_TROUBLE
        });
        report.troubles.retain(|(path, why)| {
            let trouble = (path.clone(), without_trash_name(why));
            let is_new = !self.troubles.contains_key(&trouble);
            if is_new {
                self.troubles.insert(trouble, now);
            }
            is_new
        });
        let (here, is_here_in_doubt) = held(&mut self.held_here, &mut report.held_here, whole, now);
        let (there, is_there_in_doubt) = held(&mut self.held_there, &mut report.held_there, whole, now);
        (before.held_here, before.held_there) = (here, there);
        report.root_files.retain(|path| self.root_files.insert(path.clone()));
        report.others.retain(|path| self.others.insert(path.clone()));
        Fresh {
            report,
            before,
            is_in_doubt: is_here_in_doubt || is_there_in_doubt,
        }
    }
}

/// What a tool says of a file that was to go to the trash, without the name that each round's trash has of its own.
fn without_trash_name(why: &str) -> String {
    let mut parts = why.split(TRASH);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once('/').map_or("", |(_, rest)| rest);
        text.extend([TRASH, "*/", rest]);
    }
    text
}

/// Leaves those removals that are held since a while and were not said. Gives how many were, and whether some are too new.
fn held(
    known: &mut BTreeMap<Vec<u8>, (Instant, bool)>,
    paths: &mut Vec<Vec<u8>>,
    whole: bool,
    now: Instant,
) -> (usize, bool) {
    if whole {
        let now: BTreeSet<&Vec<u8>> = paths.iter().collect();
        known.retain(|path, _| now.contains(path));
    }
    let before = known.values().filter(|(_, told)| *told).count();
    let mut is_in_doubt = false;
    paths.retain(|path| {
        let (since, told) = known.entry(path.clone()).or_insert((now, false));
        if *told {
            return false;
        }
        *told = now.duration_since(*since) >= SECOND_LOOK;
        is_in_doubt |= !*told;
        *told
    });
    (before, is_in_doubt)
}

#[cfg(test)]
mod tests {
    use super::super::session::Conflict;
    use super::*;

    fn paths(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    fn conflict(path: &str, beside: Option<&str>) -> Conflict {
        Conflict {
            path: path.into(),
            why: Why::BothChanged,
            beside: beside.map(|name| name.as_bytes().to_vec()),
        }
    }

    #[test]
    fn each_thing_is_said_once_and_then_what_is_new_with_what_was() {
        let mut news = News::default();
        let now = Instant::now();
        let report = Report {
            conflicts: vec![conflict("a", None)],
            troubles: vec![(b"t".to_vec(), "denied".into())],
            root_files: paths(&["r1", "r2"]),
            others: paths(&["pipe"]),
            ..Report::default()
        };
        let first = news.filter(report.clone(), true, now);
        assert_eq!(format!("{:?}", first.report), format!("{report:?}"));
        assert_eq!(first.before, Before::default());
        // The same once more, also with the dock's version beside it now.
        let mut again = report;
        again.conflicts = vec![conflict("a", Some("a.dock"))];
        let mut told = 0;
        news.filter(again.clone(), true, now).tell(&mut |_| told += 1);
        assert_eq!(told, 0);
        again.conflicts.push(conflict("b", None));
        again.root_files = paths(&["r1", "r2", "r3"]);
        let more = news.filter(again.clone(), true, now);
        assert_eq!(more.report.conflicts, [conflict("b", None)]);
        assert_eq!(more.report.root_files, paths(&["r3"]));
        assert!(more.report.troubles.is_empty() && more.report.others.is_empty());
        assert_eq!((more.before.conflicts, more.before.root_files), (1, 2));
        // A round that only sent says nothing of conflicts that are over; a whole one does.
        news.filter(Report::default(), false, now);
        assert!(news.filter(again.clone(), false, now).report.conflicts.is_empty());
        news.filter(Report::default(), true, now);
        assert_eq!(news.filter(again, true, now).report.conflicts.len(), 2);
    }

    #[test]
    fn what_fails_now_and_then_is_said_once_in_a_minute() {
        let mut news = News::default();
        let begun = Instant::now();
        let fails = Report {
            troubles: vec![(b"log".to_vec(), "it changed".into())],
            ..Report::default()
        };
        let travels = Report {
            done: [(b"log".to_vec(), super::super::plan::Action::Bring(0o644))].into(),
            ..Report::default()
        };
        let mut said = |report: &Report, seconds| {
            let now = begun + Duration::from_secs(seconds);
            news.filter(report.clone(), true, now).report.troubles.len()
        };
        assert_eq!(said(&fails, 0), 1);
        assert_eq!((said(&travels, 2), said(&fails, 4)), (0, 0));
        // It never travelled meanwhile.
        assert_eq!(said(&fails, 300), 0);
        assert_eq!((said(&travels, 302), said(&fails, 304)), (0, 1));
    }

    #[test]
    fn the_same_failure_in_another_round_s_trash_is_no_news() {
        let mut news = News::default();
        let mut said = |name: &str| {
            let why =
                format!("mv: cannot move 'f' to '/w/.dockerutils-sync/trash/{name}/removed/d/f': Permission denied");
            let report = Report {
                troubles: vec![(b"d/f".to_vec(), why)],
                ..Report::default()
            };
            news.filter(report, true, Instant::now()).report.troubles.len()
        };
        assert_eq!((said("1795902166.7e7e"), said("1795902171.01ab")), (1, 0));
    }

    #[test]
    fn so_much_that_is_gone_is_looked_at_again_before_it_is_said() {
        let mut news = News::default();
        let now = Instant::now();
        let held = |names: &[&str]| Report {
            held_there: paths(names),
            ..Report::default()
        };
        let first = news.filter(held(&["a", "b"]), true, now);
        assert!(first.is_in_doubt && first.report.held_there.is_empty());
        // It came back: nothing was said.
        assert!(!news.filter(held(&[]), true, now + SECOND_LOOK).is_in_doubt);
        let again = now + SECOND_LOOK * 2;
        assert!(news.filter(held(&["a", "b"]), true, again).is_in_doubt);
        let second = news.filter(held(&["a", "b", "c"]), true, again + SECOND_LOOK);
        assert_eq!(second.report.held_there, paths(&["a", "b"]));
        assert!(second.is_in_doubt);
        let third = news.filter(held(&["a", "b", "c"]), true, again + SECOND_LOOK * 2);
        assert_eq!((third.report.held_there, third.before.held_there), (paths(&["c"]), 2));
        assert!(!third.is_in_doubt);
    }
}
