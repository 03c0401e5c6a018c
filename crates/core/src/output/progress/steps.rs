//! The progress of a build, in BuildKit's format.
//!
//! On a terminal, steps that ended scroll up for good; running steps are live below, with the tail of their output.
//! Elsewhere each event is a plain line: `#5 [2/3] RUN make`, `#5 1.234 output`, `#5 DONE 1.5s`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::super::{Printer, Style, size, visible};
use super::{Row, View, ViewGuard as OnScreen, clock, fit, shortened as cut_short};
use dock_client::mutex::lock;

/// Lines of output shown under a step that runs.
const TAIL: usize = 4;
/// How long a step that ended stays live before it scrolls up for good: BuildKit ends some, and begins them again at
/// once.
const REST: Duration = Duration::from_millis(400);
/// At least this many columns of a step's name are shown if its bytes are shown in full.
const SHORTEST_NAME: usize = 24;
/// Lines kept to be shown when a step fails.
const KEPT: usize = 40;
/// A line longer than this is cut: it is the progress bar of some program.
const LINE_LIMIT: usize = 4096;
/// The most steps, and the most transfers, that are kept: an engine could report them without end. No real build has
/// more.
const MOST_STEPS: usize = 10_000;
const MOST_TRANSFERS: usize = 50_000;
/// The longest ID of a step or transfer.
const LONGEST_NAME: usize = 1024;
/// The most that is kept of the lines of all steps, in case one fails.
const MOST_KEPT: usize = 32 << 20;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    /// Taken from the cache.
    Cached,
    /// Done after this many seconds.
    Done(f64),
    /// Failed.
    Failed,
}

/// The view of one build, or of several that run side by side.
pub struct Steps {
    printer: Printer,
    told: Arc<Told>,
    /// Whether this is on a terminal, and the guard that shows it there.
    live: Option<OnScreen>,
}

/// The state of the steps, shared by those who report it and the screen.
struct Told(Mutex<Known>);

struct Known {
    /// The verb in the line below all steps, such as `Building`.
    verb: &'static str,
    began: Instant,
    is_live: bool,
    steps: HashMap<String, ShownStep>,
    /// The running steps, and those that ended but have not scrolled up yet, in the order in which they are shown.
    running: Vec<String>,
    resting: VecDeque<String>,
    ended: usize,
    numbers: usize,
    /// The number of known transfers of all steps.
    transfers: usize,
    /// Bytes of the kept lines of all steps, and how many there may be.
    kept: usize,
    most_kept: usize,
}

struct ShownStep {
    number: usize,
    name: String,
    began: Instant,
    /// The time that it took before it began again.
    took: Duration,
    /// How and when it ended.
    ended: Option<(Ended, Instant)>,
    kept: VecDeque<String>,
    partial: Vec<u8>,
    transfers: HashMap<String, (u64, u64, bool)>,
}

impl Steps {
    /// A view of builds; `plain` asks for lines on a terminal, too.
    pub fn new(printer: &Printer, plain: bool) -> Self {
        let is_live = printer.live() && !plain;
        let told = Arc::new(Told(Mutex::new(Known {
            verb: "Building",
            began: Instant::now(),
            is_live,
            steps: HashMap::new(),
            running: Vec::new(),
            resting: VecDeque::new(),
            ended: 0,
            numbers: 0,
            transfers: 0,
            kept: 0,
            most_kept: MOST_KEPT,
        })));
        let live = is_live.then(|| printer.screen().show(Arc::clone(&told) as Arc<dyn View>));
        Self {
            printer: printer.clone(),
            told,
            live,
        }
    }

    /// The same for something other than a build: `Pushing`.
    #[must_use]
    pub fn of(self, verb: &'static str) -> Self {
        self.told.known().verb = verb;
        self
    }

    /// A step is announced, or has run.
    pub fn running(&mut self, id: &str, name: &str) {
        let note = self.told.known().begin(id, name);
        note.into_iter().for_each(|note| self.printer.note(&note));
    }

    /// A step runs, though it may have ended before.
    pub fn runs(&mut self, id: &str, name: &str) {
        self.running(id, name);
        let note = self.told.known().begin_again(id);
        note.into_iter().for_each(|note| self.printer.note(&note));
    }

    /// A step ended. One that was never seen running is shown all the same.
    pub fn ended(&mut self, id: &str, name: &str, how: Ended) {
        self.running(id, name);
        let note = self.told.known().end(id, how);
        note.into_iter().for_each(|note| self.printer.note(&note));
    }

    /// A step's command wrote this.
    pub fn output(&mut self, id: &str, text: &[u8]) {
        let notes = self.told.known().output(id, text);
        notes.iter().for_each(|note| self.printer.note(note));
    }

    /// Bytes move below a step. `total` is 0 where it isn't known.
    pub fn transfer(&mut self, id: &str, name: &str, current: u64, total: u64, done: bool) {
        let note = self.told.known().transfer(id, name, (current, total, done));
        note.into_iter().for_each(|note| self.printer.note(&note));
    }

    /// A transfer has ended; its bytes are those that were reported last.
    pub fn transfer_done(&mut self, id: &str, name: &str) {
        let last = self
            .told
            .known()
            .steps
            .get(id)
            .and_then(|shown| shown.transfers.get(name).copied());
        let (current, total, _) = last.unwrap_or_default();
        self.transfer(id, name, current, total, true);
    }

    /// Removes the steps whose IDs begin with this, also from the count: their connection was lost, and they begin
    /// again under other IDs. Those that ended and have scrolled up stay there.
    pub fn lost(&mut self, beginning: &str) {
        self.told.known().lose(beginning);
    }

    /// The last lines that a step wrote, oldest first.
    pub fn last_lines(&self, id: &str) -> Vec<String> {
        self.told
            .known()
            .steps
            .get(id)
            .map(|shown| shown.kept.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether it is shown as moving rows; not after [`Steps::finish`].
    pub const fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Prints a line above the live rows.
    pub fn line(&self, line: &str) {
        self.printer.note(line);
    }

    /// Removes the live rows; the lines of the ended steps stay.
    pub fn finish(&mut self) {
        self.live = None;
    }
}

impl Told {
    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.0)
    }
}

impl Known {
    /// The plain lines for it, if there are no live rows.
    fn note(&self, note: impl FnOnce() -> String) -> Option<String> {
        (!self.is_live).then(note)
    }

    fn begin(&mut self, id: &str, name: &str) -> Option<String> {
        if self.steps.contains_key(id) || self.steps.len() >= MOST_STEPS || id.len() > LONGEST_NAME {
            return None;
        }
        self.numbers += 1;
        let shown = ShownStep {
            number: self.numbers,
            name: visible(shortened(name)),
            began: Instant::now(),
            took: Duration::ZERO,
            ended: None,
            kept: VecDeque::new(),
            partial: Vec::new(),
            transfers: HashMap::new(),
        };
        let note = self.note(|| format!("#{} {}", shown.number, shown.name));
        self.running.push(id.to_owned());
        self.steps.insert(id.to_owned(), shown);
        note
    }

    fn begin_again(&mut self, id: &str) -> Option<String> {
        let shown = self.steps.get_mut(id)?;
        let (how, _) = shown.ended.take()?;
        if let Ended::Done(seconds) = how {
            shown.took += Duration::try_from_secs_f64(seconds).unwrap_or_default();
        }
        shown.began = Instant::now();
        let note = (!self.is_live).then(|| format!("#{} {}", shown.number, shown.name));
        self.resting.retain(|resting| resting != id);
        self.running.push(id.to_owned());
        self.ended -= 1;
        note
    }

    fn lose(&mut self, beginning: &str) {
        let is_lost = |id: &str| id.starts_with(beginning);
        self.running.retain(|id| !is_lost(id));
        self.resting.retain(|id| !is_lost(id));
        for (_, shown) in self.steps.extract_if(|id, _| is_lost(id)) {
            self.ended -= usize::from(shown.ended.is_some());
            self.transfers -= shown.transfers.len();
            self.kept -= shown.kept.iter().map(String::len).sum::<usize>();
        }
    }

    fn end(&mut self, id: &str, how: Ended) -> Option<String> {
        let shown = self.steps.get_mut(id)?;
        if shown.ended.is_some() {
            return None;
        }
        let how = match how {
            Ended::Done(seconds) if seconds.is_finite() => Ended::Done(seconds.max(0.0) + shown.took.as_secs_f64()),
            Ended::Done(_) => Ended::Done(shown.time().as_secs_f64()),
            how => how,
        };
        shown.took = match how {
            Ended::Failed => shown.time(),
            _ => Duration::ZERO,
        };
        shown.ended = Some((how, Instant::now()));
        self.ended += 1;
        self.running.retain(|running| running != id);
        if self.is_live {
            self.resting.push_back(id.to_owned());
            return None;
        }
        let number = self.steps.get(id)?.number;
        Some(match how {
            Ended::Cached => format!("#{number} CACHED"),
            Ended::Done(seconds) => format!("#{number} DONE {seconds:.1}s"),
            Ended::Failed => format!("#{number} ERROR"),
        })
    }

    fn output(&mut self, id: &str, text: &[u8]) -> Vec<String> {
        let Some(shown) = self.steps.get_mut(id) else {
            return Vec::new();
        };
        let mut text = [std::mem::take(&mut shown.partial).as_slice(), text].concat();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = text.split_off(whole);
        if rest.len() <= LINE_LIMIT {
            shown.partial = rest;
        }
        let mut notes = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let line = last_redraw(line);
            self.kept += line.len();
            shown.kept.push_back(line.clone());
            while shown.kept.len() > KEPT || self.kept > self.most_kept {
                let Some(old) = shown.kept.pop_front() else { break };
                self.kept -= old.len();
            }
            if !self.is_live {
                notes.push(format!(
                    "#{} {:.3} {line}",
                    shown.number,
                    shown.began.elapsed().as_secs_f64()
                ));
            }
        }
        notes
    }

    fn transfer(&mut self, id: &str, name: &str, part: (u64, u64, bool)) -> Option<String> {
        let shown = self.steps.get_mut(id)?;
        if !shown.transfers.contains_key(name) {
            if self.transfers >= MOST_TRANSFERS || name.len() > LONGEST_NAME {
                return None;
            }
            self.transfers += 1;
        }
        let before = shown.transfers.insert(name.to_owned(), part);
        let (current, _, done) = part;
        if self.is_live || !done || before.is_some_and(|before| before.2) {
            return None;
        }
        let amount = if current > 0 {
            format!(" {}", size(current))
        } else {
            String::new()
        };
        Some(format!("#{} {}{amount} done", shown.number, visible(name)))
    }
}

impl ShownStep {
    /// How long it has run in total.
    fn time(&self) -> Duration {
        self.took + self.began.elapsed()
    }

    /// The bytes of its transfers, and their total as far as it is known.
    fn bytes(&self) -> (u64, u64) {
        self.transfers.values().fold((0_u64, 0_u64), |(current, total), part| {
            (current.saturating_add(part.0), total.saturating_add(part.1.max(part.0)))
        })
    }

    fn running_row(&self, columns: usize) -> Row {
        let time = clock(self.time());
        let name = format!(" => {}", self.name);
        let right = match self.bytes() {
            (0, _) => time,
            (current, total) => {
                let whole = format!("{} / {}  {time}", size(current), size(total));
                if total > current && columns >= whole.len() + SHORTEST_NAME {
                    whole
                } else {
                    format!("{}  {time}", size(current))
                }
            }
        };
        Row::plain(fit(&name, &right, columns))
    }

    fn ended_row(&self, how: Ended, columns: usize) -> Row {
        let (mark, seconds, style) = match how {
            Ended::Cached => ("CACHED ", 0.0, Style::Cyan),
            Ended::Done(seconds) => ("", seconds, Style::Cyan),
            Ended::Failed => ("ERROR ", self.took.as_secs_f64(), Style::Red),
        };
        Row {
            text: fit(&format!(" => {mark}{}", self.name), &format!("{seconds:.1}s"), columns),
            style: Some(style),
        }
    }
}

impl View for Told {
    fn settled(&self, columns: usize, all: bool) -> Vec<Row> {
        let mut known = self.known();
        let mut rows = Vec::new();
        while let Some(id) = known.resting.front() {
            if let Some((shown, how, when)) = known
                .steps
                .get(id)
                .and_then(|shown| shown.ended.map(|(how, when)| (shown, how, when)))
            {
                if !all && when.elapsed() < REST {
                    break;
                }
                rows.push(shown.ended_row(how, columns));
            }
            known.resting.pop_front();
        }
        rows
    }

    fn rows(&self, columns: usize, rows: usize) -> Vec<Row> {
        let known = self.known();
        let mut shown = Vec::new();
        for id in &known.resting {
            let step = known.steps.get(id);
            if let Some((step, (how, _))) = step.and_then(|step| step.ended.map(|ended| (step, ended))) {
                shown.push(step.ended_row(how, columns));
            }
        }
        let running: Vec<&ShownStep> = known.running.iter().filter_map(|id| known.steps.get(id)).collect();
        // The row of each step comes before what it wrote.
        let room = rows.saturating_sub(1 + shown.len());
        let spare = room.saturating_sub(running.len());
        let tail = spare.checked_div(running.len()).unwrap_or_default().min(TAIL);
        let hidden = running.len().saturating_sub(room);
        let count = running.len() - if hidden > 0 { hidden + 1 } else { 0 }.min(running.len());
        for step in running.iter().take(count) {
            shown.push(step.running_row(columns));
            let lines = step.kept.iter().skip(step.kept.len().saturating_sub(tail));
            shown.extend(lines.map(|line| Row {
                text: cut_short(&format!(" => => # {line}"), columns.saturating_sub(1)),
                style: Some(Style::Dim),
            }));
        }
        if count < running.len() {
            shown.push(Row::plain(format!(" => and {} more", running.len() - count)));
        }
        let summary = format!("[+] {} {}", known.verb, clock(known.began.elapsed()));
        shown.push(Row::plain(format!("{summary} ({}/{})", known.ended, known.steps.len())));
        shown
    }
}

/// The last state of a line that was redrawn with carriage returns.
fn last_redraw(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    visible(shortened(text.rsplit('\r').next().unwrap_or_default()))
}

/// A line, cut to the greatest length.
fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LINE_LIMIT)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Steps {
        let env = crate::env::Env::default();
        let printer = Printer::new("build-image", crate::output::Verbosity::Quiet, false, &env);
        Steps::new(&printer, true)
    }

    #[test]
    fn what_an_engine_tells_for_ever_is_not_kept_for_ever() {
        let mut steps = steps();
        for number in 0..MOST_STEPS + 10 {
            steps.running(&number.to_string(), "RUN x");
        }
        assert_eq!(steps.told.known().steps.len(), MOST_STEPS);
        steps.running(&"x".repeat(LONGEST_NAME + 1), "RUN x");
        assert_eq!(steps.told.known().steps.len(), MOST_STEPS);
        for number in 0..MOST_TRANSFERS + 10 {
            steps.transfer("0", &number.to_string(), u64::MAX, u64::MAX, false);
        }
        assert_eq!(steps.told.known().steps["0"].transfers.len(), MOST_TRANSFERS);
        // One that is known goes on.
        steps.transfer("0", "7", 1, 2, true);
        assert_eq!(steps.told.known().steps["0"].transfers["7"], (1, 2, true));
        let line = [&vec![b'x'; LINE_LIMIT + 10][..], b"\n"].concat();
        let lines = line.repeat(KEPT + 1);
        steps.told.known().most_kept = 5 * KEPT * LINE_LIMIT;
        for step in 0..10 {
            steps.output(&step.to_string(), &lines);
        }
        let known = steps.told.known();
        let kept = known
            .steps
            .values()
            .flat_map(|shown| &shown.kept)
            .map(String::len)
            .sum::<usize>();
        assert!(kept <= known.most_kept && kept == known.kept, "{}", known.kept);
        drop(known);
        steps.output("1", &line);
        assert!(steps.last_lines("1").iter().all(|line| line.len() <= LINE_LIMIT));
    }

    #[test]
    fn steps_that_were_lost_are_neither_shown_nor_counted() {
        let mut steps = steps();
        steps.told.known().is_live = true;
        steps.ended("0/1/a", "FROM base", Ended::Cached);
        steps.running("0/1/b", "RUN sleep");
        steps.output("0/1/b", b"one\n");
        steps.transfer("0/1/b", "part", 1, 2, false);
        // Another image's, whose attempt goes on.
        steps.running("1/1/b", "RUN make");
        steps.output("1/1/b", b"two\n");
        steps.lost("0/1/");
        steps.ended("0/2/a", "FROM base", Ended::Cached);
        steps.running("0/2/b", "RUN sleep");
        let rows: Vec<String> = steps.told.rows(80, 24).into_iter().map(|row| row.text).collect();
        let of = |what: &str| rows.iter().filter(|row| row.contains(what)).count();
        assert_eq!(
            (of("FROM base"), of("RUN sleep"), of("RUN make")),
            (1, 1, 1),
            "{rows:?}"
        );
        assert!(rows.last().unwrap().ends_with("(1/3)"), "{rows:?}");
        let known = steps.told.known();
        assert_eq!((known.transfers, known.kept), (0, "two".len()));
    }

    #[test]
    fn sizes_that_no_layer_has_are_added_up_without_harm() {
        let printer = Printer::new(
            "run-image",
            crate::output::Verbosity::Normal,
            false,
            &crate::env::Env::default(),
        );
        let mut steps = Steps::new(&printer, false);
        steps.running("x", "pulling x");
        for layer in ["1", "2", "3"] {
            steps.transfer("x", layer, u64::MAX, u64::MAX, false);
        }
        let rows = steps.told.rows(80, 24);
        assert!(rows.iter().any(|row| row.text.contains("18447 PB")), "{rows:?}");
    }

    #[test]
    fn a_progress_bar_of_others_is_shown_as_it_looked_last() {
        assert_eq!(last_redraw(b"10%\r50%\r100%\r\n"), "100%");
        assert_eq!(last_redraw(b"plain \x1b[31mred\n"), "plain red");
    }
}
