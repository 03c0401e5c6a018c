//! What the user sees: the output is fed to a terminal emulator, and its screen is read.

use std::io;
use std::num::NonZero;
use std::time::Instant;

use super::super::{Printer, Verbosity};
use super::bars::Bars;
use super::counter::Counter;
use super::steps::{Ended, Steps};
use super::waiting::WaitingRow;
use super::*;
use crate::env::Env;

const WIDTHS: [u16; 4] = [40, 60, 80, 120];
const HEIGHT: u16 = 24;
const LONG_NAME: &str =
    "[stage-1 2/3] RUN apt-get update && apt-get install --yes --no-install-recommends build-essential python3-venv";

/// A terminal, as its line discipline and its screen are.
#[derive(Clone)]
pub(crate) struct Emulator(Arc<Mutex<Emulated>>);

struct Emulated {
    parser: vt100::Parser,
    size: (u16, u16),
    /// Rows that were blank for a moment between their old text and the new one.
    blanked: usize,
}

fn count(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

fn parser(columns: u16) -> vt100::Parser {
    vt100::Parser::new(count(HEIGHT), count(columns), 100)
}

impl Write for Emulator {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut emulated = self.0.lock().unwrap();
        let before = emulated.rows();
        let mut blank = vec![false; before.len()];
        for byte in bytes {
            if *byte == b'\n' {
                emulated.parser.process(b"\r");
            }
            emulated.parser.process(&[*byte]);
            for (blank, row) in blank.iter_mut().zip(emulated.rows()) {
                *blank |= row.is_empty();
            }
        }
        let after = emulated.rows();
        let flickers = before.iter().zip(&after).zip(blank);
        emulated.blanked += flickers
            .filter(|((before, after), blank)| *blank && !before.is_empty() && !after.is_empty())
            .count();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Emulated {
    fn rows(&self) -> Vec<String> {
        let columns = self.size.0;
        self.parser
            .screen()
            .rows(0, columns)
            .map(|row| row.trim_end().to_owned())
            .collect()
    }
}

impl Emulator {
    pub(crate) fn new(columns: u16) -> Self {
        Self(Arc::new(Mutex::new(Emulated {
            parser: parser(columns),
            size: (columns, HEIGHT),
            blanked: 0,
        })))
    }

    pub(crate) fn printer(&self) -> Printer {
        let sized = self.clone();
        let size = move || {
            let (columns, rows) = sized.0.lock().unwrap().size;
            (columns.into(), rows.into())
        };
        let terminal = Terminal {
            out: Box::new(self.clone()),
            size: Box::new(size),
        };
        Printer {
            stderr_is_terminal: true,
            colour: false,
            screen: Screen::new(terminal, false),
            ..Printer::new("build-image", Verbosity::Normal, false, &Env::default())
        }
    }

    /// The text on the screen, without empty rows at its end.
    pub(crate) fn rows(&self) -> Vec<String> {
        let mut rows = self.0.lock().unwrap().rows();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    fn blanked(&self) -> usize {
        self.0.lock().unwrap().blanked
    }

    /// The window is resized, in a terminal that leaves its lines as they are.
    fn resize(&self, columns: u16) {
        let mut emulated = self.0.lock().unwrap();
        emulated.size.0 = columns;
        emulated.parser.screen_mut().set_size(count(HEIGHT), count(columns));
    }

    /// The same, in one that re-wraps its lines; the cursor stays where it is in its line.
    fn resize_with_reflow(&self, columns: u16) {
        let mut emulated = self.0.lock().unwrap();
        let rows = emulated.rows();
        let (line, column) = emulated.parser.screen().cursor_position();
        assert_eq!(column, 0, "the cursor is at the beginning of the frame");
        let mut anew = parser(columns);
        let (above, below) = rows.split_at(line.into());
        above
            .iter()
            .for_each(|row| anew.process(format!("{row}\r\n").as_bytes()));
        let below = below.join("\r\n");
        anew.process(format!("\x1b7{}\x1b8", below.trim_end()).as_bytes());
        emulated.parser = anew;
        emulated.size.0 = columns;
    }

    /// Waits until the screen is as it should be.
    pub(crate) fn until(&self, what: impl Fn(&[String]) -> bool) -> Vec<String> {
        let began = Instant::now();
        loop {
            let rows = self.rows();
            if what(&rows) {
                return rows;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{rows:#?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The frame as it is now.
fn paint(printer: &Printer) {
    printer.screen().state().paint(None);
}

/// The column after the last character.
fn end(row: &str) -> usize {
    row.width()
}

fn a_build(printer: &Printer) -> Steps {
    let mut steps = Steps::new(printer, false);
    steps.ended(
        "0",
        "[internal] load build definition from Dockerfile",
        Ended::Done(0.1),
    );
    steps.runs("1", LONG_NAME);
    steps.output(
        "1",
        b"Get:1 http://deb.debian.org/debian bookworm InRelease [151 kB], and more than a line has\n",
    );
    steps.runs("2", "[internal] load build context");
    steps.transfer("2", "transferring context:", 123_400_000, 734_000_000, false);
    steps
}

#[test]
fn a_build_fits_any_width() {
    for columns in WIDTHS {
        let emulator = Emulator::new(columns);
        let printer = emulator.printer();
        printer.note("docker build .");
        let mut steps = a_build(&printer);
        paint(&printer);
        let rows = emulator.rows();
        let widest = usize::from(columns) - 1;
        assert!(rows.iter().all(|row| end(row) <= widest), "{columns}: {rows:#?}");
        assert_eq!(rows.len(), 6, "{columns}: {rows:#?}");
        assert_eq!(rows[0], "docker build .");
        for row in [1, 2, 4] {
            assert!(
                rows[row].ends_with('s') && end(&rows[row]) == widest,
                "{columns}: {rows:#?}"
            );
        }
        assert!(rows[3].starts_with(" => => # Get:1 http"), "{rows:#?}");
        assert!(
            rows[4].starts_with(" => [internal]") && rows[4].contains("123 MB"),
            "{rows:#?}"
        );
        assert_eq!(rows[4].contains("123 MB / 734 MB"), columns >= 60, "{rows:#?}");
        assert!(
            rows[5].starts_with("[+] Building 0.") && rows[5].ends_with("(1/3)"),
            "{rows:#?}"
        );
        // A step that ends is already where it stays, as it stays.
        steps.ended("1", LONG_NAME, Ended::Done(1.5));
        steps.ended("2", "[internal] load build context", Ended::Cached);
        steps.finish();
        let rows = emulator.rows();
        assert_eq!(rows.len(), 4, "{columns}: {rows:#?}");
        assert!(rows[1..].iter().all(|row| end(row) == widest), "{columns}: {rows:#?}");
        assert!(
            rows[2].ends_with(" 1.5s") && rows[3].starts_with(" => CACHED [internal]"),
            "{rows:#?}"
        );
        assert_eq!(emulator.blanked(), 0);
    }
}

#[test]
fn clocks_go_on_while_nothing_is_heard() {
    let emulator = Emulator::new(80);
    let printer = emulator.printer();
    let _steps = a_build(&printer);
    let clocks = |rows: &[String]| -> Vec<String> {
        let moving = rows
            .iter()
            .filter(|row| row.starts_with("[+]") || row.contains("build context"));
        moving
            .map(|row| row.replace("(1/3)", "").split_whitespace().last().unwrap().to_owned())
            .collect()
    };
    let before = clocks(&emulator.until(|rows| clocks(rows).len() == 2));
    emulator.until(|rows| clocks(rows).iter().zip(&before).all(|(now, before)| now != before));
    assert_eq!(emulator.blanked(), 0, "it flickers");
}

#[test]
fn what_begins_again_was_not_finished() {
    let emulator = Emulator::new(80);
    let printer = emulator.printer();
    let mut steps = Steps::new(&printer, false);
    let name = "[internal] load build context";
    steps.ended("1", name, Ended::Done(0.0));
    steps.runs("1", name);
    steps.transfer("1", "transferring context:", 5_000_000, 0, false);
    let rows = emulator.until(|rows| rows.last().is_some_and(|row| row.ends_with("(0/1)")));
    assert_eq!(rows.len(), 2, "{rows:#?}");
    assert!(rows[0].contains("5.0 MB"), "{rows:#?}");
    // Nothing was printed for good before.
    steps.ended("1", name, Ended::Done(11.0));
    let rows = emulator.until(|rows| rows.last().is_some_and(|row| row.ends_with("(1/1)")));
    assert!(
        rows[0].starts_with(" => [internal] load build context  ") && rows[0].ends_with(" 11.0s"),
        "{rows:#?}"
    );
    steps.finish();
    assert_eq!(emulator.rows().len(), 1, "{:#?}", emulator.rows());
}

#[test]
fn a_frame_is_no_higher_than_the_terminal() {
    let emulator = Emulator::new(60);
    let printer = emulator.printer();
    printer.note("first");
    let mut steps = Steps::new(&printer, false);
    for number in 0..50 {
        steps.runs(&number.to_string(), &format!("step {number}"));
        steps.output(&number.to_string(), b"a\nb\nc\n");
    }
    for _ in 0..3 {
        paint(&printer);
    }
    let rows = emulator.rows();
    assert!(rows.len() <= usize::from(HEIGHT), "{rows:#?}");
    assert!(
        rows.iter()
            .any(|row| row.starts_with(" => and ") && row.ends_with(" more")),
        "{rows:#?}"
    );
    assert_eq!(
        rows.iter().filter(|row| row.starts_with(" => step 0 ")).count(),
        1,
        "{rows:#?}"
    );
    drop(steps);
    assert_eq!(emulator.rows(), ["first"]);
}

#[test]
fn a_resize_leaves_nothing_and_loses_nothing() {
    for reflows in [false, true] {
        let emulator = Emulator::new(120);
        let printer = emulator.printer();
        printer.note("docker build .");
        let steps = a_build(&printer);
        let bars = Bars::new(&printer, "my-app-web:latest", 734_000_000);
        let mut bar = bars.part("sha256:0123456789ab", 734_000_000, 734_000_000);
        bar.advance(100_000_000);
        for columns in [80, 40, 60, 120] {
            // Between two frames, as it is.
            let mut held = printer.screen().state();
            held.paint(None);
            if reflows {
                emulator.resize_with_reflow(columns);
            } else {
                emulator.resize(columns);
            }
            held.paint(None);
            drop(held);
            let rows = emulator.rows();
            let count = |text: &str| rows.iter().filter(|row| row.contains(text)).count();
            for text in [
                "docker build .",
                "[+] Building",
                "[stage-1 2/3]",
                "my-app-web",
                "sha256:0",
            ] {
                assert_eq!(count(text), 1, "{reflows} {columns} {text}: {rows:#?}");
            }
            assert_eq!(
                rows.last().map(|row| row.starts_with("my-app-web")),
                Some(true),
                "{rows:#?}"
            );
        }
        drop((steps, bar, bars));
        let rows = emulator.rows();
        // On a slow machine it was there already when the window was narrow, and was wrapped by that.
        let settled = rows[1..].concat();
        assert!(
            rows[0] == "docker build ." && settled.starts_with(" => [internal] load build def"),
            "{rows:#?}"
        );
        assert_eq!(settled.matches("=>").count(), 1, "{rows:#?}");
    }
}

#[test]
fn an_interruption_leaves_nothing() {
    for columns in WIDTHS {
        let emulator = Emulator::new(columns);
        let printer = emulator.printer();
        printer.note("the plan");
        let mut steps = Steps::new(&printer, false);
        steps.runs("1", LONG_NAME);
        let bars = Bars::files(Some(&printer), "sending", 12, 315_000_000);
        bars.moving_for(Duration::from_secs(1));
        let mut bar = bars.part("a layer", 1000, 1000);
        bar.advance(10);
        paint(&printer);
        assert_eq!(emulator.rows().len(), 5, "{:#?}", emulator.rows());
        // What the terminal echoes of the key.
        emulator.clone().write_all(b"^C").unwrap();
        printer.screen().close();
        assert_eq!(emulator.rows(), ["the plan"]);
        // Threads that still hold a view show nothing any more; what is printed then begins a line.
        bar.advance(10);
        let late = Steps::new(&printer, false);
        paint(&printer);
        printer.note("interrupted");
        drop((late, bar, bars, steps));
        assert_eq!(emulator.rows(), ["the plan", "interrupted"]);
    }
}

#[test]
fn lines_go_above_what_moves() {
    for columns in WIDTHS {
        let emulator = Emulator::new(columns);
        let printer = emulator.printer();
        let bars = Bars::new(&printer, "busybox:1", 1000);
        printer.warning("short");
        // As wide as the terminal, and wider.
        printer.note(&"x".repeat(columns.into()));
        printer.note(&"y".repeat(usize::from(columns) + 3));
        printer.note("");
        paint(&printer);
        let rows = emulator.rows();
        assert_eq!(rows.len(), 6, "{rows:#?}");
        assert_eq!(rows[0], "build-image: warning: short");
        assert_eq!(rows[1], "x".repeat(columns.into()));
        assert_eq!((rows[3].as_str(), rows[4].as_str()), ("yyy", ""));
        assert!(rows[5].starts_with("busybox:1 "), "{rows:#?}");
        // A question has the screen for itself.
        printer.screen().pause();
        paint(&printer);
        assert_eq!(emulator.rows().len(), 4);
        printer.note("answered");
        assert_eq!(emulator.rows().len(), 7);
        bars.finish();
        assert_eq!(emulator.rows().len(), 6);
    }
}

#[test]
fn bytes_have_a_rate_when_it_is_known_and_one_unit() {
    for columns in WIDTHS {
        let emulator = Emulator::new(columns);
        let printer = emulator.printer();
        let bars = Bars::files(Some(&printer), "sending", 5000, 315_000_000);
        let widest = usize::from(columns) - 1;
        paint(&printer);
        assert!(emulator.rows().is_empty(), "what is over at once is not shown");
        bars.moving_for(Duration::from_secs(10));
        paint(&printer);
        let rows = emulator.rows();
        assert!(
            rows[0].starts_with("sending") && rows[0].contains("0 B / 315 MB"),
            "{rows:#?}"
        );
        assert!(!rows[0].contains("/s") && !rows[0].contains("left"), "{rows:#?}");
        bars.advance(45_000_000);
        bars.file_done();
        let rows = emulator.until(|rows| rows.first().is_some_and(|row| row.contains("45.0 MB")));
        assert!(end(&rows[0]) <= widest && rows.len() == 1, "{rows:#?}");
        assert!(rows[0].contains("45.0 MB / 315 MB"), "{rows:#?}");
        assert!(!rows[0].contains("iB"), "{rows:#?}");
        assert_eq!(rows[0].contains(" 1/5000 files"), columns >= 60, "{rows:#?}");
        assert!(rows[0].contains(" MB/s"), "{rows:#?}");
        // Nearly all is not all.
        bars.advance(269_999_000);
        paint(&printer);
        let row = emulator.rows().remove(0);
        assert!(!row.contains("=]"), "{row}");
    }
}

#[test]
fn what_is_counted_is_shown_by_half_a_second_and_fits_any_width() {
    for columns in WIDTHS {
        let emulator = Emulator::new(columns);
        let printer = emulator.printer();
        let counter = Counter::new(Some(&printer), "looking at", "on gpu-box", 0);
        assert!(emulator.rows().is_empty(), "what is over at once is not shown");
        let rows = emulator.until(|rows| !rows.is_empty());
        assert!(rows[0].starts_with("looking at files on gpu-box "), "{rows:#?}");
        let shown: f64 = rows[0]
            .rsplit(' ')
            .next()
            .and_then(|clock| clock.strip_suffix('s')?.parse().ok())
            .unwrap();
        assert!(shown >= 0.5, "{rows:#?}");
        let other = counter.clone();
        other.add(99_999);
        counter.add(1);
        let rows = emulator.until(|rows| rows[0].contains("100000 files"));
        assert_eq!(end(&rows[0]), usize::from(columns) - 1, "{rows:#?}");
        assert!(rows[0].ends_with('s') && rows.len() == 1, "{rows:#?}");
        // What stands still is not shown beside what is waited for.
        let waiting = WaitingRow::new(&printer, "waiting for a sign of life of dock \"far\"", Instant::now());
        let rows = emulator.rows();
        assert!(rows.len() == 1 && rows[0].starts_with("waiting for a "), "{rows:#?}");
        drop(waiting);
        emulator.until(|rows| rows.len() == 1 && rows[0].contains("100000 files"));
        drop(counter);
        assert_eq!(emulator.rows().len(), 1);
        drop(other);
        assert!(emulator.rows().is_empty());
        // As many as the last time.
        let _counter = Counter::new(Some(&printer), "looking at", "here", 1);
        emulator.until(|rows| {
            rows.first()
                .is_some_and(|row| row.starts_with("looking at 1 file here "))
        });
    }
}
