//! The progress of a build as people know it from BuildKit.
//!
//! On a terminal, steps that ended scroll up for good, those that run are live below with the tail of their output.
//! Elsewhere each event is a plain line: `#5 [2/3] RUN make`, `#5 1.234 output`, `#5 DONE 1.5s`.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Printer, Style, size, visible};

/// Lines of output shown under a step that runs.
const TAIL: usize = 4;
/// Lines kept to be shown when a step fails.
const KEPT: usize = 40;
/// A line longer than this is cut: it is somebody's progress bar.
const LINE_LIMIT: usize = 4096;
/// An engine tells of steps and of what moves below them as long as it likes, and each is kept. No build has more.
const MOST_STEPS: usize = 10_000;
const MOST_TRANSFERS: usize = 50_000;
/// Nor a name that is longer, of those by which they are told apart.
const LONGEST_NAME: usize = 1024;
/// Lines are kept for the step that fails; all of them together are no more.
const MOST_KEPT: usize = 32 << 20;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    /// Taken from the cache.
    Cached,
    /// Done after so many seconds.
    Done(f64),
    /// Failed.
    Failed,
}

/// The view of one build, or of several that run side by side.
pub struct Steps {
    printer: Printer,
    /// What the line below all steps says of them.
    verb: &'static str,
    live: Option<Live>,
    steps: HashMap<String, Shown>,
    numbers: usize,
    /// How many transfers are known, of all steps.
    transfers: usize,
    /// Bytes of the lines that are kept, of all steps; and how many may be.
    kept: usize,
    most_kept: usize,
}

struct Live {
    bars: MultiProgress,
    summary: ProgressBar,
    began: Instant,
    ended: usize,
}

struct Shown {
    number: usize,
    name: String,
    began: Instant,
    ended: bool,
    bar: Option<ProgressBar>,
    tail: VecDeque<(String, Option<ProgressBar>)>,
    kept: VecDeque<String>,
    partial: Vec<u8>,
    transfers: HashMap<String, (u64, u64, bool)>,
}

impl Steps {
    /// A view of builds; `plain` asks for lines on a terminal, too.
    pub fn new(printer: &Printer, plain: bool) -> Self {
        let live = (printer.live() && !plain).then(|| {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
            let summary = bars.add(ProgressBar::new_spinner());
            summary.set_style(style("{wide_msg}"));
            summary.enable_steady_tick(Duration::from_millis(100));
            Live {
                bars,
                summary,
                began: Instant::now(),
                ended: 0,
            }
        });
        Self {
            printer: printer.clone(),
            verb: "Building",
            live,
            steps: HashMap::new(),
            numbers: 0,
            transfers: 0,
            kept: 0,
            most_kept: MOST_KEPT,
        }
    }

    /// The same for something else than a build: `Pushing`.
    #[must_use]
    pub fn of(mut self, verb: &'static str) -> Self {
        self.verb = verb;
        self
    }

    /// A step is known or runs.
    pub fn running(&mut self, id: &str, name: &str) {
        if self.steps.contains_key(id) || self.steps.len() >= MOST_STEPS || id.len() > LONGEST_NAME {
            return;
        }
        self.numbers += 1;
        let name = visible(shortened(name));
        let bar = self.live.as_ref().map(|live| {
            let bar = live.bars.insert_before(&live.summary, ProgressBar::new_spinner());
            bar.set_style(style(" => {wide_msg} {elapsed}"));
            bar.set_message(name.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if self.live.is_none() {
            self.printer.note(&format!("#{} {name}", self.numbers));
        }
        self.steps.insert(
            id.to_owned(),
            Shown {
                number: self.numbers,
                name,
                began: Instant::now(),
                ended: false,
                bar,
                tail: VecDeque::new(),
                kept: VecDeque::new(),
                partial: Vec::new(),
                transfers: HashMap::new(),
            },
        );
        self.summarize();
    }

    /// A step ended. One that was never seen running is shown all the same.
    pub fn ended(&mut self, id: &str, name: &str, how: Ended) {
        self.running(id, name);
        let Some(shown) = self.steps.get_mut(id) else { return };
        if std::mem::replace(&mut shown.ended, true) {
            return;
        }
        for (_, bar) in shown.tail.drain(..) {
            remove(bar);
        }
        remove(shown.bar.take());
        match &mut self.live {
            Some(live) => {
                live.ended += 1;
                let (mark, seconds) = match how {
                    Ended::Cached => ("CACHED ", 0.0),
                    Ended::Done(seconds) => ("", seconds),
                    Ended::Failed => ("ERROR ", shown.began.elapsed().as_secs_f64()),
                };
                let line = fit(&format!(" => {mark}{}", shown.name), &format!("{seconds:.1}s"), width());
                let line = match how {
                    Ended::Failed => self.printer.styled(Style::Red, &line),
                    _ => self.printer.styled(Style::Cyan, &line),
                };
                // A terminal that went away takes nothing more.
                let _ = live.bars.println(line);
            }
            None => {
                let number = shown.number;
                self.printer.note(&match how {
                    Ended::Cached => format!("#{number} CACHED"),
                    Ended::Done(seconds) => format!("#{number} DONE {seconds:.1}s"),
                    Ended::Failed => format!("#{number} ERROR"),
                });
            }
        }
        self.summarize();
    }

    /// A step's command wrote this.
    pub fn output(&mut self, id: &str, text: &[u8]) {
        let Some(shown) = self.steps.get_mut(id) else { return };
        let mut text = [std::mem::take(&mut shown.partial).as_slice(), text].concat();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = text.split_off(whole);
        if rest.len() <= LINE_LIMIT {
            shown.partial = rest;
        }
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let line = last_redraw(line);
            self.kept += line.len();
            shown.kept.push_back(line.clone());
            while shown.kept.len() > KEPT || self.kept > self.most_kept {
                let Some(old) = shown.kept.pop_front() else { break };
                self.kept -= old.len();
            }
            match (&self.live, shown.bar.clone()) {
                (Some(live), Some(bar)) => shown.show_tail(live, &bar, line),
                _ => self.printer.note(&format!(
                    "#{} {:.3} {line}",
                    shown.number,
                    shown.began.elapsed().as_secs_f64()
                )),
            }
        }
    }

    /// Bytes move below a step. `total` is 0 where it isn't known.
    pub fn transfer(&mut self, id: &str, name: &str, current: u64, total: u64, done: bool) {
        let Some(shown) = self.steps.get_mut(id) else { return };
        if !shown.transfers.contains_key(name) {
            if self.transfers >= MOST_TRANSFERS || name.len() > LONGEST_NAME {
                return;
            }
            self.transfers += 1;
        }
        let before = shown.transfers.insert(name.to_owned(), (current, total, done));
        if let Some(bar) = &shown.bar {
            let (current, total) = shown.transfers.values().fold((0_u64, 0_u64), |(current, total), part| {
                (current.saturating_add(part.0), total.saturating_add(part.1.max(part.0)))
            });
            if current > 0 {
                let part = if total > current {
                    format!("{} / {}", size(current), size(total))
                } else {
                    size(current)
                };
                bar.set_message(format!("{} ({part})", shown.name));
            }
            // Where nothing begins or ends for long, the time goes on all the same.
            self.summarize();
        } else if self.live.is_none() && done && before.is_none_or(|before| !before.2) {
            let amount = if current > 0 {
                format!(" {}", size(current))
            } else {
                String::new()
            };
            self.printer
                .note(&format!("#{} {}{amount} done", shown.number, visible(name)));
        }
    }

    /// A transfer has come to its end; its bytes are those that were told last.
    pub fn transfer_done(&mut self, id: &str, name: &str) {
        let last = self.steps.get(id).and_then(|shown| shown.transfers.get(name));
        let (current, total) = last.map_or((0, 0), |(current, total, _)| (*current, *total));
        self.transfer(id, name, current, total, true);
    }

    /// The last lines that a step wrote, oldest first.
    pub fn last_lines(&self, id: &str) -> Vec<String> {
        self.steps
            .get(id)
            .map(|shown| shown.kept.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Takes what is live off the screen while something else is printed.
    pub fn suspend(&self, print: impl FnOnce()) {
        match &self.live {
            Some(live) => live.bars.suspend(print),
            None => print(),
        }
    }

    /// Whether it moves; not after [`Steps::finish`].
    pub const fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// A line above what is live.
    pub fn line(&self, line: &str) {
        match &self.live {
            Some(live) => drop(live.bars.println(line)),
            None => self.printer.note(line),
        }
    }

    /// Takes away what is live; the lines of the ended steps stay.
    pub fn finish(&mut self) {
        for shown in self.steps.values_mut() {
            for (_, bar) in shown.tail.drain(..) {
                remove(bar);
            }
            remove(shown.bar.take());
        }
        if let Some(live) = self.live.take() {
            live.summary.finish_and_clear();
        }
    }

    fn summarize(&self) {
        if let Some(live) = &self.live {
            live.summary.set_message(format!(
                "[+] {} {:.1}s ({}/{})",
                self.verb,
                live.began.elapsed().as_secs_f64(),
                live.ended,
                self.steps.len()
            ));
        }
    }
}

// A build that is cancelled must not leave its bars on the screen.
impl Drop for Steps {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shown {
    fn show_tail(&mut self, live: &Live, bar: &ProgressBar, line: String) {
        if self.tail.len() == TAIL
            && let Some((_, old)) = self.tail.pop_front()
        {
            remove(old);
        }
        let after = self.tail.back().and_then(|(_, bar)| bar.as_ref()).unwrap_or(bar);
        let row = live.bars.insert_after(after, ProgressBar::new_spinner());
        row.set_style(style(" => => # {wide_msg}"));
        row.set_message(line.clone());
        row.tick();
        self.tail.push_back((line, Some(row)));
    }
}

fn remove(bar: Option<ProgressBar>) {
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are those above; one that didn't parse would show indicatif's default.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key(
            "elapsed",
            |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.1}s", state.elapsed().as_secs_f64());
            },
        )
}

/// A line that was redrawn with carriage returns, as it looked last.
fn last_redraw(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    visible(shortened(text.rsplit('\r').next().unwrap_or_default()))
}

/// No more than a line may have.
fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LINE_LIMIT)).unwrap_or(text)
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 20)
        .unwrap_or(80)
}

/// `left` and, at the right edge, `right`; `left` is cut where both don't fit.
fn fit(left: &str, right: &str, width: usize) -> String {
    use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};
    let room = width.saturating_sub(right.width() + 2);
    let mut shown = String::new();
    let mut used = 0;
    for c in left.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > room {
            break;
        }
        used += wide;
        shown.push(c);
    }
    format!("{shown}{} {right}", " ".repeat(room - used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_the_terminal() {
        assert_eq!(fit(" => a", "1.0s", 20), " => a          1.0s");
        assert_eq!(fit(" => a long name that is cut", "1.0s", 20).chars().count(), 19);
    }

    #[test]
    fn what_an_engine_tells_for_ever_is_not_kept_for_ever() {
        let printer = Printer::new(
            "build-image",
            super::super::Verbosity::Quiet,
            false,
            &crate::env::Env::default(),
        );
        let mut steps = Steps::new(&printer, true);
        for number in 0..MOST_STEPS + 10 {
            steps.running(&number.to_string(), "RUN x");
        }
        assert_eq!(steps.steps.len(), MOST_STEPS);
        steps.running(&"x".repeat(LONGEST_NAME + 1), "RUN x");
        assert_eq!(steps.steps.len(), MOST_STEPS);
        for number in 0..MOST_TRANSFERS + 10 {
            steps.transfer("0", &number.to_string(), u64::MAX, u64::MAX, false);
        }
        assert_eq!(steps.steps["0"].transfers.len(), MOST_TRANSFERS);
        // One that is known goes on.
        steps.transfer("0", "7", 1, 2, true);
        assert_eq!(steps.steps["0"].transfers["7"], (1, 2, true));
        let line = [&vec![b'x'; LINE_LIMIT + 10][..], b"\n"].concat();
        let lines = line.repeat(KEPT + 1);
        steps.most_kept = 5 * KEPT * LINE_LIMIT;
        for step in 0..10 {
            steps.output(&step.to_string(), &lines);
        }
        let kept = |steps: &Steps| -> usize {
            steps
                .steps
                .values()
                .flat_map(|shown| &shown.kept)
                .map(String::len)
                .sum()
        };
        assert!(
            kept(&steps) <= steps.most_kept && kept(&steps) == steps.kept,
            "{}",
            steps.kept
        );
        steps.output("1", &line);
        assert!(steps.last_lines("1").iter().all(|line| line.len() <= LINE_LIMIT));
    }

    #[test]
    fn sizes_that_no_layer_has_are_added_up_without_harm() {
        let printer = Printer::new(
            "run-image",
            super::super::Verbosity::Normal,
            false,
            &crate::env::Env::default(),
        );
        let mut steps = Steps::new(&printer, false);
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        steps.live = Some(Live {
            summary: bars.add(ProgressBar::new_spinner()),
            bars,
            began: Instant::now(),
            ended: 0,
        });
        steps.running("x", "pulling x");
        for layer in ["1", "2", "3"] {
            steps.transfer("x", layer, u64::MAX, u64::MAX, false);
        }
    }

    #[test]
    fn a_progress_bar_of_others_is_shown_as_it_looked_last() {
        assert_eq!(last_redraw(b"10%\r50%\r100%\r\n"), "100%");
        assert_eq!(last_redraw(b"plain \x1b[31mred\n"), "plain red");
    }
}
