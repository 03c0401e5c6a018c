//! Progress of a count whose total is not known: files that are listed, compared, put in place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::super::{Printer, counted, visible};
use super::{FIRST_LOOK, Row, View, ViewGuard, clock, fit};

/// A row that counts files. Cheap to clone; it disappears with the last clone.
#[derive(Clone, Debug)]
pub struct Counter {
    counting: Arc<Counting>,
    _shown: Option<Arc<ViewGuard>>,
}

#[derive(Debug)]
struct Counting {
    doing: String,
    place: String,
    /// The text until something is counted.
    expected: usize,
    count: AtomicUsize,
    began: Instant,
}

impl Counter {
    /// What is done with files, and where: `looking at`, `on gpu-box`. Shown on the printer's terminal if it takes
    /// longer; `expected` is the number of files the last time, or 0.
    pub fn new(printer: Option<&Printer>, doing: &str, place: &str, expected: usize) -> Self {
        let counting = Arc::new(Counting {
            doing: visible(doing),
            place: visible(place),
            expected,
            count: AtomicUsize::new(0),
            began: Instant::now(),
        });
        let terminal = printer.filter(|printer| printer.live());
        let shown = terminal.map(|printer| printer.screen().show(Arc::clone(&counting) as Arc<dyn View>));
        Self {
            counting,
            _shown: shown.map(Arc::new),
        }
    }

    /// Adds to the count.
    pub fn add(&self, files: usize) {
        self.counting.count.fetch_add(files, Ordering::Relaxed);
    }
}

impl View for Counting {
    fn is_still_while_waiting(&self) -> bool {
        true
    }

    fn rows(&self, columns: usize, rows: usize) -> Vec<Row> {
        let elapsed = self.began.elapsed();
        if rows == 0 || elapsed < FIRST_LOOK {
            return Vec::new();
        }
        let files = match (self.count.load(Ordering::Relaxed), self.expected) {
            (0, 0) => "files".to_owned(),
            (0, expected) => counted(expected, "file"),
            (count, _) => counted(count, "file"),
        };
        let text = format!("{} {files} {}", self.doing, self.place);
        vec![Row::plain(fit(&text, &clock(elapsed), columns))]
    }
}
