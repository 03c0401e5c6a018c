//! Draws a picture of boxes and arrows as SVG, from a text that says where each is.
//!
//! A line of the text is one of these; columns and rows count from 1, widths and heights are in columns and rows:
//!
//! ```text
//! # a comment
//! frame NAME COLUMN ROW WIDTH HEIGHT | title
//! box NAME COLUMN ROW WIDTH | title | what it is
//! arrow FROM TO | what goes that way
//! ```

use std::fmt::Write as _;

/// The sizes of a column, a row and a box in them, and the margin around everything, in pixels.
const COLUMN: f64 = 290.0;
const ROW: f64 = 120.0;
const BOX: (f64, f64) = (200.0, 64.0);
const MARGIN: f64 = 16.0;

/// Where a box is.
struct BoxPosition<'a> {
    name: &'a str,
    x: f64,
    y: f64,
    width: f64,
}

impl BoxPosition<'_> {
    fn middle(&self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + BOX.1 / 2.0)
    }

    /// The point where a line from the box's centre to `to` leaves the box.
    fn edge(&self, to: (f64, f64)) -> (f64, f64) {
        let (x, y) = self.middle();
        let (dx, dy) = (to.0 - x, to.1 - y);
        let reach = |half: f64, distance: f64| {
            if distance == 0.0 {
                f64::INFINITY
            } else {
                half / distance.abs()
            }
        };
        let scale = reach(self.width / 2.0, dx).min(reach(BOX.1 / 2.0, dy)).min(1.0);
        (x + dx * scale, y + dy * scale)
    }
}

/// The picture of a text, or an error that names the wrong line.
pub(super) fn draw(text: &str) -> Result<String, String> {
    let mut boxes: Vec<BoxPosition<'_>> = Vec::new();
    let (mut frames, mut shapes, mut arrows, mut labels) = (String::new(), String::new(), String::new(), String::new());
    let (mut right, mut bottom) = (0.0_f64, 0.0_f64);
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}: {line}", number + 1);
        let mut parts = line.split(" | ");
        let head: Vec<&str> = parts.next().unwrap_or_default().split(' ').collect();
        let (title, more) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let numbers: Vec<f64> = head.iter().filter_map(|word| word.parse().ok()).collect();
        match (head.as_slice(), numbers.as_slice()) {
            (["frame", ..], [column, row, width, height]) => {
                let (x, y) = (MARGIN + (column - 1.0) * COLUMN, MARGIN + (row - 1.0) * ROW);
                let (width, height) = (width * COLUMN - MARGIN, height * ROW - MARGIN + 20.0);
                let _ = writeln!(
                    frames,
                    "<rect class=\"frame\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"10\"/>\n\
                     <text class=\"frame\" x=\"{}\" y=\"{}\">{}</text>",
                    x + 12.0,
                    y + 20.0,
                    escaped(title)
                );
                right = right.max(x + width + MARGIN);
                bottom = bottom.max(y + height + MARGIN);
            }
            (["box", name, ..], [column, row, width]) => {
                let place = BoxPosition {
                    name,
                    x: MARGIN + (column - 1.0) * COLUMN + (COLUMN - MARGIN - BOX.0) / 2.0,
                    y: MARGIN + (row - 1.0) * ROW + 40.0,
                    width: BOX.0 + (width - 1.0) * COLUMN,
                };
                let (x, y) = place.middle();
                let _ = writeln!(
                    shapes,
                    "<rect class=\"box\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n\
                     <text class=\"title\" x=\"{x}\" y=\"{}\">{}</text>\n<text x=\"{x}\" y=\"{}\">{}</text>",
                    place.x,
                    place.y,
                    place.width,
                    BOX.1,
                    y - 6.0,
                    escaped(title),
                    y + 16.0,
                    escaped(more)
                );
                boxes.push(place);
            }
            (["arrow", from, to], []) => {
                let find = |name: &str| {
                    boxes
                        .iter()
                        .find(|place| place.name == name)
                        .ok_or_else(|| wrong(&format!("no box {name:?} above it")))
                };
                let (from, to) = (find(from)?, find(to)?);
                let (start, end) = (from.edge(to.middle()), to.edge(from.middle()));
                let _ = writeln!(
                    arrows,
                    "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
                    start.0, start.1, end.0, end.1
                );
                let _ = writeln!(
                    labels,
                    "<text class=\"arrow\" x=\"{}\" y=\"{}\">{}</text>",
                    f64::midpoint(start.0, end.0),
                    f64::midpoint(start.1, end.1) - 5.0,
                    escaped(title)
                );
            }
            _ => return Err(wrong("neither frame, box nor arrow")),
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{right}\" height=\"{bottom}\" viewBox=\"0 0 {right} {bottom}\">\n\
         {STYLE}{frames}{arrows}{shapes}{labels}</svg>\n"
    ))
}

/// Plain colours that can be read on a light and on a dark page.
const STYLE: &str = "\
<defs><marker id=\"head\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
<path d=\"M0 0L10 5L0 10z\" fill=\"#57606a\"/></marker></defs>
<style>
text { font: 11px sans-serif; text-anchor: middle; fill: #1f2328 }
text.title { font-size: 13px; font-weight: bold }
text.frame { font-size: 13px; text-anchor: start; fill: #57606a }
text.arrow { fill: #57606a; paint-order: stroke; stroke: #f6f8fa; stroke-width: 4px }
rect.box { fill: #ffffff; stroke: #0969da; stroke-width: 1.5 }
rect.frame { fill: #f6f8fa; stroke: #d0d7de }
line { stroke: #57606a; stroke-width: 1.5; marker-end: url(#head) }
</style>
";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_what_its_text_has() {
        let picture =
            draw("frame f 1 1 2 1 | here\nbox a 1 1 1 | A & B | first\nbox b 2 1 1 | C | second\narrow a b | x<y\n")
                .unwrap();
        for part in [
            ">here</text>",
            ">A &amp; B</text>",
            ">second</text>",
            ">x&lt;y</text>",
            "<line x1=\"253\"",
        ] {
            assert!(picture.contains(part), "{part}\n{picture}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert!(draw("# a\nblob\n").unwrap_err().starts_with("line 2: neither"));
        assert!(draw("arrow a b | x\n").unwrap_err().starts_with("line 1: no box \"a\""));
    }
}
