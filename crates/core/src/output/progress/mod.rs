//! Progress of everything that takes long, on a terminal: moving rows below the lines that stay.
//!
//! [`Screen`] paints; it paints [`steps`], [`bars`] and [`counter`], each a [`View`], which returns its current rows
//! for any width. A thread asks ten times a second, so that clocks go on while nothing arrives. indicatif computes the
//! rates, but does not paint: it erases rows before it writes them, which flickers, and finds them again by counting,
//! which goes wrong after a resize. So the painting is done here:
//!
//! - a frame is one write: each row over the former one, and to the end of the line (`\x1b[K`), never erased before;
//! - between two frames the cursor rests at the beginning of the first row. Terminals keep a cursor with its line when they
//!   are resized, whether they re-wrap lines or not: the next frame begins where this one did. A frame is removed by
//!   `\r\x1b[J`;
//! - no row reaches the last column, where terminals behave differently;
//! - whatever the printer writes meanwhile goes above the frame, in one write with it.

pub mod bars;
pub mod counter;
pub mod steps;
pub mod waiting;

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{COLOURS, RESET, Style};
use dock_client::mutex::lock;

/// How often the rows are painted again.
const TICK: Duration = Duration::from_millis(100);
/// The size to assume if a terminal does not report one: columns and rows.
const COLUMNS: usize = 80;
const ROWS: usize = 24;
/// What ends before that gets no row, except for parts and steps, of which that is not known.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// In a terminal narrower than this, lines wrap: better than showing nothing.
const NARROWEST: usize = 20;

/// A row, and its style if colours are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its text, of visible characters only.
    pub text: String,
    /// Its style, if any.
    pub style: Option<Style>,
}

impl Row {
    const fn plain(text: String) -> Self {
        Self { text, style: None }
    }
}

/// Something that moves on a terminal.
pub trait View: Send + Sync {
    /// Rows that do not change any more: they are printed above the moving ones, and stay. Called before
    /// [`View::rows`]. With `all`, something is about to be printed below them.
    fn settled(&self, columns: usize, all: bool) -> Vec<Row> {
        let _ = (columns, all);
        Vec::new()
    }

    /// Whether it says what is waited for.
    fn is_waiting(&self) -> bool {
        false
    }

    /// Whether it has nothing to say while something is waited for: what it counts stands still.
    fn is_still_while_waiting(&self) -> bool {
        false
    }

    /// The current rows, each less than `columns` wide, at most `rows` of them.
    fn rows(&self, columns: usize, rows: usize) -> Vec<Row>;
}

/// Where the frames go, and how large it is: columns and rows.
struct Terminal {
    out: Box<dyn Write + Send>,
    size: Box<dyn Fn() -> (usize, usize) + Send>,
}

/// The lower part of the terminal. Cheap to clone; clones share one state.
#[derive(Clone)]
pub struct Screen(Arc<Shared>);

struct Shared {
    state: Mutex<ScreenState>,
    ended: Condvar,
}

struct ScreenState {
    terminal: Terminal,
    colour: bool,
    views: Vec<(u64, Arc<dyn View>)>,
    next: u64,
    /// Whether the cursor is at the beginning of a frame.
    is_painted: bool,
    /// While a question to the user is open.
    is_paused: bool,
    /// After an interruption: nothing is shown any more.
    is_closed: bool,
    is_ticking: bool,
}

/// Shows a view until it is dropped.
#[derive(Debug)]
pub struct ViewGuard {
    screen: Screen,
    id: u64,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl Screen {
    /// The terminal at stderr.
    pub fn of_stderr(colour: bool) -> Self {
        let size = || {
            let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
            let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
            size.map_or((COLUMNS, ROWS), |size| (size.ws_col.into(), size.ws_row.into()))
        };
        Self::new(
            Terminal {
                out: Box::new(std::io::stderr()),
                size: Box::new(size),
            },
            colour,
        )
    }

    fn new(terminal: Terminal, colour: bool) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(ScreenState {
                terminal,
                colour,
                views: Vec::new(),
                next: 0,
                is_painted: false,
                is_paused: false,
                is_closed: false,
                is_ticking: false,
            }),
            ended: Condvar::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, ScreenState> {
        // At worst, a view that panicked has left its rows.
        lock(&self.0.state)
    }

    /// Shows a view below those that are shown.
    pub fn show(&self, view: Arc<dyn View>) -> ViewGuard {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        if !state.is_closed {
            state.views.push((id, view));
            state.is_paused = false;
            state.paint(None);
            if !state.is_ticking {
                let shared = Arc::downgrade(&self.0);
                // Without a thread, it is painted again only when something is printed.
                state.is_ticking = thread::Builder::new().spawn(move || tick(&shared)).is_ok();
            }
        }
        drop(state);
        ViewGuard {
            screen: self.clone(),
            id,
        }
    }

    /// Prints a text of whole lines above the moving rows.
    pub fn print(&self, text: &str) {
        let mut state = self.state();
        state.is_paused = false;
        state.paint(Some(text));
    }

    /// Hides the moving rows while something else writes.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        let mut state = self.state();
        let settled = state.settled(true);
        state.clear();
        state.write(&settled);
        drop(state);
        let was_paused = std::mem::replace(&mut self.state().is_paused, true);
        let written = write();
        self.state().is_paused = was_paused;
        written
    }

    /// Hides the moving rows until something is printed or shown: for a question to the user.
    pub fn pause(&self) {
        let mut state = self.state();
        state.clear();
        state.is_paused = true;
    }

    /// Removes the moving rows for good.
    pub fn close(&self) {
        let mut state = self.state();
        state.clear();
        state.views.clear();
        state.is_closed = true;
        drop(state);
        self.0.ended.notify_all();
    }
}

impl Drop for ViewGuard {
    fn drop(&mut self) {
        let mut state = self.screen.state();
        let Some(place) = state.views.iter().position(|(id, _)| *id == self.id) else {
            return;
        };
        let columns = state.columns();
        let (_, view) = state.views.remove(place);
        let settled = view.settled(columns, true);
        let text = state.as_text(&settled);
        state.paint((!settled.is_empty()).then_some(text.trim_end_matches('\n')));
        let is_last = state.views.is_empty();
        drop(state);
        if is_last {
            self.screen.0.ended.notify_all();
        }
    }
}

/// Paints until no view is left.
fn tick(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let state = lock(&shared.state);
        let waiting = shared.ended.wait_timeout(state, TICK);
        let (mut state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        if state.views.is_empty() {
            state.is_ticking = false;
            return;
        }
        if !state.is_paused {
            state.paint(None);
        }
    }
}

impl ScreenState {
    fn columns(&self) -> usize {
        (self.terminal.size)().0.max(NARROWEST)
    }

    fn write(&mut self, text: &str) {
        // A write to a terminal that has gone fails; nothing can be done about it.
        let _ = self.terminal.out.write_all(text.as_bytes());
        let _ = self.terminal.out.flush();
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_painted) {
            self.write("\r\x1b[J");
        }
    }

    /// The settled rows of all views, as they are printed.
    fn settled(&self, all: bool) -> String {
        let columns = self.columns();
        let rows: Vec<Row> = self
            .views
            .iter()
            .flat_map(|(_, view)| view.settled(columns, all))
            .collect();
        self.as_text(&rows)
    }

    fn as_text(&self, rows: &[Row]) -> String {
        let columns = self.columns();
        let mut text = String::new();
        for row in rows {
            text.push_str(&self.styled(row, columns));
            text.push('\n');
        }
        text
    }

    fn styled(&self, row: &Row, columns: usize) -> String {
        let text = cut(&row.text, columns.saturating_sub(1));
        let [red, yellow, cyan, dim] = COLOURS;
        let begin = match row.style.filter(|_| self.colour) {
            None => return text.to_owned(),
            Some(Style::Red) => red,
            Some(Style::Yellow) => yellow,
            Some(Style::Cyan) => cyan,
            Some(Style::Dim) => dim,
        };
        format!("{begin}{text}{RESET}")
    }

    /// The next frame, below `above`.
    fn paint(&mut self, above: Option<&str>) {
        let columns = self.columns();
        let mut text = self.settled(above.is_some());
        if let Some(above) = above {
            text.push_str(above);
            text.push('\n');
        }
        let rows = (self.terminal.size)().1;
        let mut frame: Vec<Row> = Vec::new();
        if !self.is_paused {
            let waits = self.views.iter().any(|(_, view)| view.is_waiting());
            for (_, view) in self
                .views
                .iter()
                .filter(|(_, view)| !(waits && view.is_still_while_waiting()))
            {
                // A frame with as many rows as the terminal would lose its first row.
                let room = rows.saturating_sub(1 + frame.len());
                frame.extend(view.rows(columns, room).into_iter().take(room));
            }
        }
        let was_painted = std::mem::replace(&mut self.is_painted, !frame.is_empty());
        let mut out = String::new();
        if was_painted {
            out.push('\r');
        }
        for line in text.lines() {
            out.push_str(line);
            // After a character in the last column the cursor is still in that column, and the character would be
            // erased.
            if was_painted && (line.is_empty() || !width(line).is_multiple_of(columns)) {
                out.push_str("\x1b[K");
            }
            out.push('\n');
        }
        let count = frame.len();
        for (number, row) in frame.iter().enumerate() {
            out.push_str(&self.styled(row, columns));
            out.push_str(if number + 1 == count { "\x1b[J\r" } else { "\x1b[K\n" });
        }
        if count > 1 {
            out.push_str(&format!("\x1b[{}A", count - 1));
        }
        if count == 0 && was_painted {
            out.push_str("\x1b[J");
        }
        if !out.is_empty() {
            self.write(&out);
        }
    }
}

/// The width of a line in columns, colour sequences not counted.
fn width(line: &str) -> usize {
    let mut line = line.to_owned();
    for sequence in COLOURS.iter().chain([&RESET]) {
        line = line.replace(sequence, "");
    }
    line.width()
}

/// As much of a text as fits.
fn cut(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (place, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return text.get(..place).unwrap_or_default();
        }
    }
    text
}

/// A text that ends with `…` where it is cut.
fn shortened(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    match columns {
        0 => String::new(),
        _ => format!("{}…", cut(text, columns - 1)),
    }
}

/// `left` and, before the last column, `right`; `left` is cut if both don't fit.
fn fit(left: &str, right: &str, columns: usize) -> String {
    let room = columns.saturating_sub(right.width() + 2);
    let left = shortened(left, room);
    format!("{left}{} {right}", " ".repeat(room.saturating_sub(left.width())))
}

/// A running or elapsed time, as docker shows it.
fn clock(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

/// The time left, for people; empty if it is not known.
fn left(time: Duration) -> Option<String> {
    let seconds = time.as_secs();
    match seconds {
        0 => Some("1s left".to_owned()),
        1..=99 => Some(format!("{seconds}s left")),
        100..=5_999 => Some(format!("{}m{:02}s left", seconds / 60, seconds % 60)),
        6_000..=359_999 => Some(format!("{}h{:02}m left", seconds / 3600, seconds / 60 % 60)),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
