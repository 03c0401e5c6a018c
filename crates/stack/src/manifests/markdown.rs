//! Texts of others in Markdown: none of them can become anything but text, or end the section that it is in.
//!
//! Rules: CommonMark 0.31 and GitHub's tables. A character reference (`&#124;`) is text wherever it stands, in a table, too, where
//! neither a code span nor a backslash is safe.

use dockerutils_core::output::visible;

/// What stands at the end of a text that was cut.
const CUT: char = '…';

/// A text within a line: a cell, a heading, a summary of HTML. Line ends are made visible; what Markdown or HTML would take for
/// its own becomes a character reference.
pub fn inline(text: &str) -> String {
    let text = visible(text);
    let chars: Vec<char> = text.chars().collect();
    let mut made = String::with_capacity(text.len());
    for (index, c) in chars.iter().enumerate() {
        let near = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(char::is_ascii_alphanumeric);
        // A single underscore between letters is no emphasis.
        let is_plain = match c {
            '_' => near(index.checked_sub(1)) && near(index.checked_add(1)),
            ' ' | '.' | ',' | ':' | ';' | '/' | '-' | '+' | '=' | '%' | '(' | ')' | '?' | '\'' => true,
            c => c.is_alphanumeric() || !c.is_ascii(),
        };
        match is_plain {
            true => made.push(*c),
            false => made += &format!("&#{};", u32::from(*c)),
        }
    }
    made
}

/// A text within a line, in the letters of code.
pub fn code(text: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => format!("<code>{}</code>", inline(text)),
    }
}

/// A text of several lines, as it is, in a fence that is longer than any in it.
pub fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{fence}{language}\n{text}{end}{fence}\n")
}

/// A section that is folded until it is clicked. The title is a text of others; the body is Markdown.
pub fn folded(title: &str, body: &str) -> String {
    format!(
        "<details>\n<summary>{}</summary>\n\n{}\n\n</details>\n\n",
        inline(title),
        body.trim_end()
    )
}

/// A table; the cells are Markdown.
pub fn table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    let rule: Vec<String> = titles.iter().map(|_| "---".to_owned()).collect();
    let mut made = line(&titles) + &line(&rule);
    rows.into_iter().for_each(|row| made += &line(&row));
    made + "\n"
}

/// The beginning of a text, of so many characters at most.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}{CUT}", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_stay_readable() {
        for text in [
            "ghcr.io/team/base:2026.10-main",
            "typing_extensions 4.12",
            "1:1.2.13.dfsg-1",
            "Größe (MB)",
        ] {
            assert_eq!(inline(text), text);
        }
        assert_eq!(inline("a__b"), "a&#95;&#95;b");
        assert_eq!(inline("a_b_ _c_"), "a_b&#95; &#95;c&#95;");
        assert_eq!(
            inline("a|b\\|c<b>\n# `x`"),
            "a&#124;b&#92;&#124;c&#60;b&#62;\u{fffd}&#35; &#96;x&#96;"
        );
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(cut("äöü", 3), "äöü");
    }

    #[test]
    fn a_fence_is_longer_than_those_in_it() {
        assert_eq!(fenced("text", "a"), "```text\na\n```\n");
        assert_eq!(fenced("", "````\n"), "`````\n````\n`````\n");
        assert_eq!(fenced("", ""), "```\n```\n");
    }
}
