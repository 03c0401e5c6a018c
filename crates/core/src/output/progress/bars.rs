//! Progress of bytes: a row for each part and one for all on a terminal; elsewhere, a line for each part that is done.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use unicode_width::UnicodeWidthStr as _;

use super::super::{Printer, size, visible};
use super::{FIRST_LOOK, Row, View, ViewGuard, clock, cut, left, shortened};
use dock_client::mutex::lock;

/// Before that, a rate means nothing, and the time left even less.
const FIRST_RATE: Duration = Duration::from_secs(1);
/// At least this many columns of a name are shown.
const SHORTEST_NAME: usize = 12;
/// The width of a bar between its ends, in columns.
const BAR: (usize, usize) = (8, 30);
/// The width of the column of names.
const NAME: usize = 28;

/// The rows of one operation. Cheap to clone; the rows disappear with the last clone, or by [`Bars::finish`].
#[derive(Clone, Debug)]
pub struct Bars {
    printer: Option<Printer>,
    moving: Arc<Moving>,
    shown: Arc<Mutex<Option<ViewGuard>>>,
    is_live: bool,
}

/// The row of one part.
#[derive(Debug)]
pub struct Bar {
    bars: Bars,
    name: String,
    id: u64,
    length: u64,
    moved: u64,
    is_done: bool,
}

/// The bytes so far, shared by those who move them and the screen.
#[derive(Debug)]
struct Moving(Mutex<Amounts>);

#[derive(Debug)]
struct Amounts {
    title: String,
    began: Instant,
    /// indicatif computes the rate and the time left.
    all: ProgressBar,
    /// Files so far, and in all.
    files: Option<(usize, usize)>,
    parts: Vec<PartProgress>,
    next: u64,
}

#[derive(Debug)]
struct PartProgress {
    id: u64,
    name: String,
    moved: u64,
    length: u64,
}

impl Bars {
    /// Rows for `total` bytes, or about as many.
    pub fn new(printer: &Printer, title: &str, total: u64) -> Self {
        Self::begin(Some(printer), title, total, None)
    }

    /// One row for this many files and their bytes; not shown without a printer.
    pub fn files(printer: Option<&Printer>, title: &str, files: usize, total: u64) -> Self {
        Self::begin(printer, title, total, Some((0, files)))
    }

    fn begin(printer: Option<&Printer>, title: &str, total: u64, files: Option<(usize, usize)>) -> Self {
        let moving = Arc::new(Moving(Mutex::new(Amounts {
            title: visible(title),
            began: Instant::now(),
            all: ProgressBar::with_draw_target(Some(total), indicatif::ProgressDrawTarget::hidden()),
            files,
            parts: Vec::new(),
            next: 0,
        })));
        let terminal = printer.filter(|printer| printer.live());
        let shown = terminal.map(|printer| printer.screen().show(Arc::clone(&moving) as Arc<dyn View>));
        Self {
            printer: printer.cloned(),
            moving,
            is_live: shown.is_some(),
            shown: Arc::new(Mutex::new(shown)),
        }
    }

    /// A part begins that was expected to have `expected` bytes, and has `length`.
    pub fn part(&self, name: &str, expected: u64, length: u64) -> Bar {
        let mut amounts = self.moving.amounts();
        let known = amounts.all.length().unwrap_or_default();
        amounts
            .all
            .set_length(known.saturating_sub(expected).saturating_add(length));
        let id = amounts.next;
        amounts.next += 1;
        amounts.parts.push(PartProgress {
            id,
            name: visible(name),
            moved: 0,
            length,
        });
        Bar {
            bars: self.clone(),
            name: visible(name),
            id,
            length,
            moved: 0,
            is_done: false,
        }
    }

    /// Adds bytes that belong to no part.
    pub fn advance(&self, bytes: u64) {
        self.moving.amounts().all.inc(bytes);
    }

    /// Counts one more file as moved.
    pub fn file_done(&self) {
        if let Some((done, _)) = &mut self.moving.amounts().files {
            *done += 1;
        }
    }

    /// Changes the label of the row; the bytes so far stay.
    pub fn retitle(&self, title: &str) {
        self.moving.amounts().title = visible(title);
    }

    /// Pretends that it began this long ago.
    #[cfg(test)]
    pub(super) fn moving_for(&self, time: Duration) {
        let mut amounts = self.moving.amounts();
        amounts.began -= time;
    }

    /// Removes the rows.
    pub fn finish(&self) {
        let shown = lock(&self.shown).take();
        drop(shown);
    }
}

impl Bar {
    /// Adds bytes.
    pub fn advance(&mut self, bytes: u64) {
        self.moved += bytes;
        let mut amounts = self.bars.moving.amounts();
        amounts.all.inc(bytes);
        if let Some(part) = amounts.parts.iter_mut().find(|part| part.id == self.id) {
            part.moved += bytes;
        }
    }

    /// The whole part has moved.
    pub fn done(mut self) {
        self.is_done = true;
        if let (false, Some(printer)) = (self.bars.is_live, &self.bars.printer) {
            printer.note(&format!("{} {} sent", self.name, size(self.length)));
        }
    }
}

// The row and the bytes of a part that was cut off do not stay.
impl Drop for Bar {
    fn drop(&mut self) {
        let mut amounts = self.bars.moving.amounts();
        amounts.parts.retain(|part| part.id != self.id);
        if !self.is_done {
            let all = &amounts.all;
            all.set_position(all.position().saturating_sub(self.moved));
        }
    }
}

impl Moving {
    fn amounts(&self) -> MutexGuard<'_, Amounts> {
        lock(&self.0)
    }
}

impl View for Moving {
    fn rows(&self, columns: usize, rows: usize) -> Vec<Row> {
        let amounts = self.amounts();
        if amounts.files.is_some() && amounts.began.elapsed() < FIRST_LOOK {
            return Vec::new();
        }
        let parts = amounts.parts.iter().take(rows.saturating_sub(1));
        let mut shown: Vec<Row> = parts.map(|part| part.row(columns)).collect();
        shown.push(amounts.row(columns));
        shown
    }
}

impl PartProgress {
    fn row(&self, columns: usize) -> Row {
        let of = format!("{} / {}", size(self.moved), size(self.length));
        row(
            &format!("  {}", self.name),
            (self.moved, self.length),
            &of,
            &[],
            columns,
        )
    }
}

impl Amounts {
    fn row(&self, columns: usize) -> Row {
        let (moved, length) = (self.all.position(), self.all.length().unwrap_or_default());
        let mut extra = Vec::new();
        if let Some((done, files)) = self.files {
            extra.push(format!("{done}/{}", crate::output::counted(files, "file")));
        }
        let elapsed = self.began.elapsed();
        let is_known = elapsed >= FIRST_RATE && moved > 0;
        if is_known {
            extra.push(format!("{}/s", size(self.all.per_sec() as u64)));
        }
        match left(self.all.eta()).filter(|_| is_known && moved < length && self.all.per_sec() >= 1.0) {
            Some(left) => extra.push(left),
            None => extra.push(clock(elapsed)),
        }
        let of = format!("{} / {}", size(moved), size(length.max(moved)));
        row(&self.title, (moved, length), &of, &extra, columns)
    }
}

/// A name, a bar if there is room, the bytes so far of how many, and whatever else fits.
fn row(name: &str, (moved, length): (u64, u64), of: &str, extra: &[String], columns: usize) -> Row {
    let room = columns.saturating_sub(1);
    let mut right = format!(" {of}");
    for more in extra {
        // The last variant is a clock, which shows that it goes on, and is the shortest.
        if right.width() + 2 + more.width() + SHORTEST_NAME <= room {
            right.push_str("  ");
            right.push_str(more);
        }
    }
    let spare = room.saturating_sub(right.width());
    let names = spare.saturating_sub(BAR.0 + 3).min(NAME);
    if names < name.width().min(NAME) || names < SHORTEST_NAME {
        let name = shortened(name, spare);
        let blanks = " ".repeat(spare.saturating_sub(name.width()));
        return Row::plain(format!("{name}{blanks}{right}"));
    }
    let name = shortened(name, names);
    let blanks = " ".repeat(names - name.width());
    let bar = spare.saturating_sub(names + 3).min(BAR.1);
    let filled = match length {
        0 => 0,
        length => usize::try_from(u128::from(moved.min(length)) * bar as u128 / u128::from(length)).unwrap_or(bar),
    };
    // A bar does not look finished before it is.
    let head = if filled < bar { ">" } else { "" };
    let drawn = format!("{}{head}{}", "=".repeat(filled), " ".repeat(bar - filled));
    Row::plain(format!("{name}{blanks} [{}]{right}", cut(&drawn, bar)))
}
