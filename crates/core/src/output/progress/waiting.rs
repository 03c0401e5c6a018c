//! The row that says what a command waits for, and for how long.

use std::sync::Arc;
use std::time::Instant;

use super::super::{Printer, visible};
use super::{Row, View, ViewGuard, clock, fit};

/// A row that says what the command waits for; it disappears when this is dropped.
#[derive(Debug)]
pub struct WaitingRow(#[expect(dead_code, reason = "the row is shown as long as it lives")] Option<ViewGuard>);

#[derive(Debug)]
struct Waited {
    text: String,
    since: Instant,
}

impl WaitingRow {
    /// Shows it on the printer's terminal, if that shows moving progress.
    pub fn new(printer: &Printer, text: &str, since: Instant) -> Self {
        let waited = || Waited {
            text: visible(text),
            since,
        };
        Self(
            printer
                .live()
                .then(|| printer.screen().show(Arc::new(waited()) as Arc<dyn View>)),
        )
    }
}

impl View for Waited {
    fn is_waiting(&self) -> bool {
        true
    }

    fn rows(&self, columns: usize, rows: usize) -> Vec<Row> {
        match rows {
            0 => Vec::new(),
            _ => vec![Row::plain(fit(&self.text, &clock(self.since.elapsed()), columns))],
        }
    }
}
