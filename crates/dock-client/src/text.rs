//! Text for users: texts of others, made safe to show, and numbers of things.
//!
//! Of all terminal sequences, only our own colours pass ([`COLOURS`]).

/// How our styles begin: red, yellow, cyan, dim.
pub const COLOURS: [&str; 4] = ["\x1b[1;31m", "\x1b[1;33m", "\x1b[36m", "\x1b[2m"];
/// How every style ends.
pub const RESET: &str = "\x1b[0m";

/// Characters that a terminal obeys instead of showing them, or does not show: control characters, those that change
/// the direction of what follows (Unicode's bidirectional controls), those without width, separators of lines and
/// paragraphs, tags.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text that is safe to print on a terminal: of the characters that [`is_invisible`] finds, only line ends and tabs
/// stay, and our own colours if `colour` is set.
pub fn shown(text: &str, colour: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_coloured = false;
    while let Some(c) = rest.chars().next() {
        if colour && let Some(style) = COLOURS.iter().chain([&RESET]).find(|style| rest.starts_with(**style)) {
            shown.push_str(style);
            is_coloured = *style != RESET;
            rest = rest.get(style.len()..).unwrap_or_default();
            continue;
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '\n' | '\t' => shown.push(c),
            '\r' if rest.starts_with('\n') => {}
            '\x1b' if rest.starts_with('[') => rest = without_sequence(rest),
            c if is_invisible(c) => shown.push(char::REPLACEMENT_CHARACTER),
            c => shown.push(c),
        }
    }
    if is_coloured {
        shown.push_str(RESET);
    }
    shown
}

/// The rest of a control sequence (ECMA-48, CSI) whose escape character was removed: compilers' messages have colours.
fn without_sequence(text: &str) -> &str {
    let rest = text.strip_prefix('[').unwrap_or(text);
    let rest = rest.trim_start_matches(|c| matches!(c, '\x20'..='\x3f'));
    rest.strip_prefix(|c| matches!(c, '\x40'..='\x7e')).unwrap_or(rest)
}

/// A text of others on one line, as a cell of a table or a part of a line: all characters that [`is_invisible`] finds
/// are made visible, line ends and tabs, too. The printer does the rest; this is for text that must not take more than
/// one line.
pub fn visible(text: &str) -> String {
    let shown = shown(text, false);
    if !shown.contains(['\n', '\t']) {
        return shown;
    }
    shown.replace('\t', " ").replace('\n', "\u{fffd}")
}

/// A message of others on one line, for a cell: its lines are joined by blanks, and the rest is as [`visible`] shows
/// it.
pub fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    visible(&lines.join(" "))
}

/// A number of things, `1 file` or `2 files`; for words whose plural has an `s`.
pub fn counted(number: impl std::fmt::Display, noun: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!(
            [counted(0, "file"), counted(1_u64, "file"), counted(2, "file")],
            ["0 files", "1 file", "2 files"]
        );
    }

    #[test]
    fn a_message_of_several_lines_is_one_in_a_cell() {
        assert_eq!(one_line("refused:\r\n  go away\n\n\x1b[2Jnow"), "refused: go away now");
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(
            visible("a\x1b[2Jb\tc\x1b[1;31mred\x1b[0m\x1b]0;t\x07"),
            "ab cred\u{fffd}]0;t\u{fffd}"
        );
    }
}
