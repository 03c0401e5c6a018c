//! What to write instead, of all findings together: one text in which all advice is heeded, told as lines that take the place of
//! others.
//!
//! Rules look at a Dockerfile as it is, and one change may make another one wrong, or needless, or needed: steps that become
//! one, an instruction that moves, the last RUN that goes. So changes are made in rounds. A round makes those that have nothing to
//! do with each other, and the rules look again at what came out, until they have nothing to change. Then whoever writes all the
//! lines has a Dockerfile in which no finding with lines is left.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::finding::{CheckFinding, Edit, Replacement};
use crate::docker::build::dockerfile::source::DockerfileSource;

/// Rounds: each instruction has a handful of rules that change it.
const ROUNDS: usize = 20;
/// Instructions that are looked at, in all rounds together: a file of others decides how many it has. So many bytes count as
/// one more.
const LOOKS: usize = 6_000;
const BYTES: usize = 128;
/// In bytes; each finding has its own text, and there may be hundreds.
const LONGEST: usize = 64 * 1024;

/// Lines of the Dockerfile that are changed together.
#[derive(Clone, Debug)]
struct ChangedLines {
    /// The first and the last line that it takes the place of, from 1.
    lines: (usize, usize),
    /// What is there now, with its line breaks.
    text: String,
    /// Whether it was changed.
    is_changed: bool,
    /// The rules that changed it after the first round.
    later: BTreeSet<String>,
}

/// All of the Dockerfile, as it becomes.
#[derive(Clone, Debug)]
struct Composition {
    pieces: Vec<ChangedLines>,
}

/// The lines to write for each of these findings, the first ones; `again` is what is found in a text that came out, if a
/// builder takes it.
///
/// Lines of two findings are the same, or have none in common.
pub(super) fn replacements(
    source: &DockerfileSource<'_>,
    findings: &[CheckFinding],
    again: impl Fn(&str) -> Option<Vec<CheckFinding>>,
) -> Vec<Option<Replacement>> {
    let mut composition = Composition::of(source.text);
    let mut seen = BTreeSet::from([source.text.to_owned()]);
    let mut looks = 0;
    let mut found = findings.to_vec();
    for round in 0..ROUNDS {
        let text = composition.text();
        let now = DockerfileSource::read(&text);
        looks += now.instructions.len() + text.len() / BYTES;
        let mut next = composition.clone();
        if !next.heed(&now, &found, round > 0) {
            break;
        }
        let text = next.text();
        if !seen.insert(text.clone()) {
            break;
        }
        let Some(new) = again(&text) else { break };
        composition = next;
        found = new;
        if looks > LOOKS {
            break;
        }
    }
    composition.told(source, findings)
}

impl Composition {
    fn of(text: &str) -> Self {
        let lines = text.split_inclusive('\n').enumerate();
        let piece = |(index, line): (usize, &str)| ChangedLines {
            lines: (index + 1, index + 1),
            text: line.to_owned(),
            is_changed: false,
            later: BTreeSet::new(),
        };
        Self {
            pieces: lines.map(piece).collect(),
        }
    }

    fn text(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// Makes the changes of findings that have nothing to do with each other; whether there were any.
    fn heed(&mut self, source: &DockerfileSource<'_>, findings: &[CheckFinding], is_later: bool) -> bool {
        let mut taken: Vec<Changes<'_>> = Vec::new();
        // What is about several instructions comes first: steps that are one need less.
        let mut regions: Vec<(Region, &CheckFinding)> = findings
            .iter()
            .filter_map(|finding| Some((region(source, &finding.edits)?, finding)))
            .collect();
        regions.sort_by_key(|(region, _)| region.is_one);
        for (region, finding) in regions {
            let mut around = taken
                .iter_mut()
                .map(|changes| (changes.region.bytes.clone(), changes))
                .filter(|(other, _)| other.start < region.bytes.end && region.bytes.start < other.end);
            match (around.next(), around.next()) {
                (None, _) => {
                    let mut changes = Changes::of(region);
                    changes.add(finding);
                    taken.push(changes);
                }
                // Different words of one instruction can be changed at once; all else waits for the next round.
                (Some((_, changes)), None)
                    if changes.region == region && region.is_one && changes.covered.are_apart(&finding.edits) =>
                {
                    changes.add(finding);
                }
                _ => {}
            }
        }
        // From the end on, so that the places of those before stay.
        taken.sort_by_key(|changes| std::cmp::Reverse(changes.region.bytes.start));
        let any = !taken.is_empty();
        let mut starts = vec![0];
        for piece in &self.pieces {
            starts.push(starts.last().copied().unwrap_or_default() + piece.text.len());
        }
        for Changes {
            region,
            mut edits,
            rules,
            ..
        } in taken
        {
            edits.sort_by_key(|edit| (edit.bytes.start, edit.bytes.end));
            let text = edited(source.text, &region.bytes, &edits);
            if let Some(piece) = self.joined(&region.bytes, &starts) {
                piece.0.text.replace_range(piece.1, &text);
                piece.0.is_changed = true;
                if is_later {
                    piece.0.later.extend(rules.into_iter().map(str::to_owned));
                }
            }
        }
        any
    }

    /// Makes the pieces that these bytes of the text are in one, and where in it they are.
    ///
    /// `starts` are the bytes at which the pieces began, and the end, before there were changes from here on.
    fn joined(&mut self, bytes: &Range<usize>, starts: &[usize]) -> Option<(&mut ChangedLines, Range<usize>)> {
        let first = starts.partition_point(|start| *start <= bytes.start).checked_sub(1)?;
        let last = starts
            .partition_point(|start| *start < bytes.end)
            .checked_sub(1)?
            .min(self.pieces.len().checked_sub(1)?);
        let begin = starts.get(first).copied()?;
        if last < first {
            return None;
        }
        let piece = self.join(first, last)?;
        let own = bytes.start.saturating_sub(begin)..bytes.end.saturating_sub(begin);
        piece.text.get(own.clone())?;
        Some((piece, own))
    }

    /// Makes the pieces from the first to the last one.
    fn join(&mut self, first: usize, last: usize) -> Option<&mut ChangedLines> {
        let mut rest = self.pieces.drain(first..=last);
        let mut whole = rest.next()?;
        for piece in rest {
            whole.lines.1 = piece.lines.1;
            whole.text.push_str(&piece.text);
            whole.is_changed |= piece.is_changed;
            whole.later.extend(piece.later);
        }
        self.pieces.insert(first, whole);
        self.pieces.get_mut(first)
    }

    /// The positions of the first and the last piece of these lines.
    fn at_lines(&self, lines: (usize, usize)) -> Option<(usize, usize)> {
        let first = self.pieces.partition_point(|piece| piece.lines.1 < lines.0);
        let after = self.pieces.partition_point(|piece| piece.lines.0 <= lines.1);
        (first < after).then(|| (first, after - 1))
    }

    /// The lines to write, for each finding.
    fn told(mut self, source: &DockerfileSource<'_>, findings: &[CheckFinding]) -> Vec<Option<Replacement>> {
        let regions: Vec<Option<(usize, usize)>> = findings
            .iter()
            .map(|finding| region(source, &finding.edits).map(|region| region.lines))
            .collect();
        for lines in regions.iter().flatten() {
            if let Some((first, last)) = self.at_lines(*lines) {
                self.join(first, last);
            }
        }
        let mut firsts: Vec<usize> = regions.iter().flatten().map(|lines| lines.0).collect();
        firsts.sort_unstable();
        // A change that only follows from others, and what needs no change of its own any more, go with the nearest one.
        let is_told = |piece: &ChangedLines, has_region: bool| {
            piece.is_changed && {
                // Each is in one piece.
                let first = firsts.partition_point(|first| *first < piece.lines.0);
                firsts.get(first).is_some_and(|first| *first <= piece.lines.1) == has_region
            }
        };
        while let Some(lone) = self.pieces.iter().position(|piece| is_told(piece, false)) {
            let others = self.pieces.iter().enumerate().filter(|(_, piece)| is_told(piece, true));
            let Some((near, _)) = others.min_by_key(|(index, _)| index.abs_diff(lone)) else {
                break;
            };
            self.join(near.min(lone), near.max(lone));
        }
        for lines in regions.iter().flatten() {
            let Some((at, _)) = self.at_lines(*lines) else { continue };
            if self.pieces.get(at).is_some_and(|piece| piece.is_changed) {
                continue;
            }
            let changed = self.pieces.iter().enumerate().filter(|(_, piece)| piece.is_changed);
            if let Some((near, _)) = changed.min_by_key(|(index, _)| index.abs_diff(at)) {
                self.join(near.min(at), near.max(at));
            }
        }
        let line_end = match source.lines(1, 1).ends_with("\r\n") {
            true => "\r\n",
            false => "\n",
        };
        let told: Vec<Option<Replacement>> = regions
            .iter()
            .map(|lines| {
                let (at, _) = self.at_lines((*lines)?)?;
                let piece = self.pieces.get(at)?;
                let own = |(finding, lines): (&CheckFinding, &Option<(usize, usize)>)| {
                    lines
                        .is_some_and(|lines| piece.lines.0 <= lines.0 && lines.1 <= piece.lines.1)
                        .then(|| finding.rule.clone())
                };
                let own: BTreeSet<String> = findings.iter().zip(&regions).filter_map(own).collect();
                let text = piece.text.strip_suffix('\n').unwrap_or(&piece.text);
                let text = text.strip_suffix('\r').unwrap_or(text).trim_start_matches(['\r', '\n']);
                let text = match line_end {
                    "\n" => text.to_owned(),
                    // What rules put in has plain line ends.
                    _ => text.replace("\r\n", "\n").replace('\n', line_end),
                };
                (piece.is_changed && piece.text.len() <= LONGEST).then(|| Replacement {
                    first: piece.lines.0,
                    last: piece.lines.1,
                    text,
                    line_end,
                    also: piece.later.difference(&own).cloned().collect(),
                })
            })
            .collect();
        told
    }
}

/// Whole lines, and whole instructions, that edits are in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Region {
    lines: (usize, usize),
    bytes: Range<usize>,
    /// Whether they are a single instruction.
    is_one: bool,
}

fn region(source: &DockerfileSource<'_>, edits: &[Edit]) -> Option<Region> {
    let first = edits.iter().map(|edit| edit.bytes.start).min()?;
    let last = edits
        .iter()
        .map(|edit| edit.bytes.end.max(edit.bytes.start + 1) - 1)
        .max()?;
    // What is put in at the end is put behind the last line.
    let end = source.text.len().checked_sub(1)?;
    let mut lines = (source.line_at(first.min(end)), source.line_at(last.min(end)));
    let all = source.instructions.iter().skip(source.first_until(lines.0));
    let (mut steps, mut is_one) = (0, false);
    for step in all {
        if step.line > lines.1 {
            break;
        }
        lines = (lines.0.min(step.line), lines.1.max(step.end));
        steps += 1;
        is_one = steps == 1 && (step.line, step.end) == lines;
    }
    Some(Region {
        lines,
        bytes: source.start_of(lines.0)..source.start_of(lines.1 + 1),
        is_one,
    })
}

/// The changes of one region, in one round.
struct Changes<'f> {
    region: Region,
    edits: Vec<&'f Edit>,
    rules: Vec<&'f str>,
    covered: Covered,
}

impl<'f> Changes<'f> {
    const fn of(region: Region) -> Self {
        Self {
            region,
            edits: Vec::new(),
            rules: Vec::new(),
            covered: Covered(BTreeMap::new()),
        }
    }

    fn add(&mut self, finding: &'f CheckFinding) {
        self.edits.extend(&finding.edits);
        self.rules.push(&finding.rule);
        for edit in &finding.edits {
            self.covered.add(&edit.bytes);
        }
    }
}

/// The bytes that changes take: the ends of ranges by their beginnings. No two of them touch.
struct Covered(BTreeMap<usize, usize>);

impl Covered {
    /// Whether none of them touches these bytes.
    fn is_apart(&self, bytes: &Range<usize>) -> bool {
        let before = self.0.range(..=bytes.end).next_back();
        before.is_none_or(|(_, end)| *end < bytes.start)
    }

    fn are_apart(&self, edits: &[Edit]) -> bool {
        edits.iter().all(|edit| self.is_apart(&edit.bytes))
    }

    fn add(&mut self, bytes: &Range<usize>) {
        let (mut start, mut end) = (bytes.start, bytes.end);
        while let Some((first, last)) = self.0.range(..=end).next_back().filter(|(_, last)| **last >= start) {
            let (first, last) = (*first, *last);
            self.0.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.0.insert(start, end);
    }
}

/// These bytes of a text, edited.
fn edited(text: &str, bytes: &Range<usize>, edits: &[&Edit]) -> String {
    let mut new = String::new();
    let mut at = bytes.start;
    for edit in edits {
        new.push_str(text.get(at..edit.bytes.start).unwrap_or_default());
        new.push_str(&edit.text);
        at = edit.bytes.end.max(at);
    }
    new.push_str(text.get(at..bytes.end).unwrap_or_default());
    // The next line stays one of its own.
    let was_ended = text.get(bytes.clone()).is_some_and(|old| old.ends_with('\n'));
    if was_ended && !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn finding(rule: &str, edits: &[(Range<usize>, &str)]) -> CheckFinding {
        CheckFinding {
            rule: rule.to_owned(),
            severity: Severity::Note,
            lines: (1, 1),
            message: String::new(),
            costs: String::new(),
            advice: None,
            is_of_engine: false,
            edits: edits
                .iter()
                .map(|(bytes, text)| Edit {
                    bytes: bytes.clone(),
                    text: (*text).to_owned(),
                })
                .collect(),
        }
    }

    fn replacement(first: usize, last: usize, text: &str, also: &[&str]) -> Option<Replacement> {
        Some(Replacement {
            first,
            last,
            text: text.to_owned(),
            line_end: "\n",
            also: also.iter().map(|rule| (*rule).to_owned()).collect(),
        })
    }

    #[test]
    fn changes_of_the_same_lines_are_written_together() {
        let source = DockerfileSource::read("FROM a\nRUN b \\\n  c\nRUN d\n");
        let findings = [
            finding("A", &[(0..4, "from")]),
            finding("B", &[(11..12, "B")]),
            finding("C", &[(17..18, "C")]),
            finding("D", &[]),
        ];
        assert_eq!(
            replacements(&source, &findings, |_| Some(Vec::new())),
            [
                replacement(1, 1, "from a", &[]),
                replacement(2, 3, "RUN B \\\n  C", &[]),
                replacement(2, 3, "RUN B \\\n  C", &[]),
                None,
            ]
        );
    }

    #[test]
    fn what_excludes_another_change_waits_until_that_is_made() {
        // B and C both change the second line; after B, C is found elsewhere, and D only then.
        let source = DockerfileSource::read("FROM a\nRUN b\nRUN c\n");
        let findings = [finding("B", &[(7..13, "RUN x\n")]), finding("C", &[(7..13, "RUN y\n")])];
        let again = |text: &str| match text {
            "FROM a\nRUN x\nRUN c\n" => Some(vec![finding("C", &[(11..12, "y")]), finding("D", &[(13..19, "")])]),
            _ => Some(Vec::new()),
        };
        assert_eq!(
            replacements(&source, &findings, again),
            [replacement(2, 3, "RUN y", &["D"]), replacement(2, 3, "RUN y", &["D"])]
        );
    }

    #[test]
    fn the_rounds_of_a_long_file_are_bounded_by_what_they_read() {
        // Each round changes something, for ever.
        for (steps, length) in [(1, 1), (1, 60_000), (1_000, 1), (2_000, 100)] {
            let step = format!("RUN {}\n", "b".repeat(length));
            let text = format!("FROM a\n{}", step.repeat(steps));
            let read = std::cell::Cell::new((0, 0));
            let again = |text: &str| {
                let (rounds, bytes) = read.get();
                read.set((rounds + 1, bytes + text.len()));
                Some(vec![finding("B", &[(text.len() - 2..text.len() - 1, "bb")])])
            };
            let findings = again(&text).unwrap();
            replacements(&DockerfileSource::read(&text), &findings, again);
            let (rounds, bytes) = read.get();
            assert!(rounds <= ROUNDS + 1, "{steps} {length}: {rounds}");
            assert!(bytes <= LOOKS * BYTES + 3 * text.len(), "{steps} {length}: {bytes}");
        }
    }

    #[test]
    fn changed_bytes_are_kept_as_few_ranges() {
        let mut covered = Covered(BTreeMap::new());
        for at in (0..1_000).rev() {
            covered.add(&(at * 10..at * 10 + 5));
        }
        assert_eq!(covered.0.len(), 1_000);
        for (bytes, is_apart) in [
            (6..9, true),
            (5..9, false),
            (6..10, false),
            (7..7, true),
            (3..3, false),
            (9_996..9_999, true),
        ] {
            assert_eq!(covered.is_apart(&bytes), is_apart, "{bytes:?}");
        }
        covered.add(&(2..9_993));
        assert_eq!(covered.0, BTreeMap::from([(0, 9_995)]));
    }

    #[test]
    fn what_would_be_no_dockerfile_or_has_no_end_is_not_written() {
        let source = DockerfileSource::read("FROM a\nRUN b\n");
        let broken = [finding("B", &[(7..10, "RNU")])];
        assert_eq!(replacements(&source, &broken, |_| None), [None]);
        let there_and_back = |text: &str| match text.contains("RUN c") {
            true => Some(vec![finding("C", &[(11..12, "b")])]),
            false => Some(vec![finding("B", &[(11..12, "c")])]),
        };
        let findings = there_and_back(source.text).unwrap();
        assert_eq!(
            replacements(&source, &findings, there_and_back),
            [replacement(2, 2, "RUN c", &[])]
        );
    }
}
