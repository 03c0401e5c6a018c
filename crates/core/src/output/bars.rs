//! Progress of bytes: a bar for each part and one for all on a terminal; elsewhere, a line for each part that is done.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Printer, size, visible};

/// Bars of one undertaking. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bars {
    printer: Printer,
    live: Option<(MultiProgress, ProgressBar)>,
}

/// The bar of one part.
#[derive(Debug)]
pub struct Bar {
    bars: Bars,
    name: String,
    expected: u64,
    moved: u64,
    bar: Option<ProgressBar>,
}

impl Bars {
    /// Bars of what is `total` bytes, or about so.
    pub fn new(printer: &Printer, title: &str, total: u64) -> Self {
        let live = printer.live().then(|| {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let all = bars.add(ProgressBar::new(total));
            all.set_style(style(
                "{msg:30!} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            ));
            all.set_message(visible(title));
            all.enable_steady_tick(Duration::from_millis(200));
            (bars, all)
        });
        Self {
            printer: printer.clone(),
            live,
        }
    }

    /// A part begins that was expected to have `expected` bytes, and has `length`.
    pub fn part(&self, name: &str, expected: u64, length: u64) -> Bar {
        let bar = self.live.as_ref().map(|(bars, all)| {
            let known = all.length().unwrap_or_default();
            all.set_length(known.saturating_sub(expected).saturating_add(length));
            let bar = bars.insert_before(all, ProgressBar::new(length));
            bar.set_style(style("  {msg:28!} [{bar:30}] {bytes} of {total_bytes}"));
            bar.set_message(visible(name));
            bar
        });
        Bar {
            bars: self.clone(),
            name: visible(name),
            expected: length,
            moved: 0,
            bar,
        }
    }

    /// A line above the bars.
    pub fn line(&self, line: &str) {
        match &self.live {
            Some((bars, _)) => drop(bars.println(self.printer.shown(line))),
            None => self.printer.note(line),
        }
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        if let Some((bars, all)) = &self.live {
            all.finish_and_clear();
            // A terminal that went away has no bars.
            let _ = bars.clear();
        }
    }
}

impl Bar {
    /// So many bytes more.
    pub fn advance(&mut self, bytes: u64) {
        self.moved += bytes;
        if let (Some(bar), Some((_, all))) = (&self.bar, &self.bars.live) {
            bar.inc(bytes);
            all.inc(bytes);
        }
    }

    /// All of it has gone.
    pub fn done(mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        } else {
            self.bars
                .printer
                .note(&format!("{} {} sent", self.name, size(self.expected)));
        }
    }
}

// What was cut off does not stay on the screen.
impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            if let Some((_, all)) = &self.bars.live {
                all.set_position(all.position().saturating_sub(self.moved));
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are those above; one that didn't parse would show indicatif's default.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
