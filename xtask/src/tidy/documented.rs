//! What a crate shows to others is documented: items, the variants of an enum, what a trait asks for.
//!
//! rustc's `missing_docs` asks for it of fields, too, and can't be told otherwise; a field is documented where its name and
//! type do not say all (its unit, form, range or source).

use std::path::Path;

use super::{Finding, finding, is_source};

/// What may stand between `pub` and the keyword of an item.
const QUALIFIERS: [&str; 3] = ["async", "const", "unsafe"];
/// The keywords of items.
const KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];

/// Items without a comment that begins with three slashes. The source is as `rustfmt` writes it.
pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs");
    if !is_source(path) || is_test {
        return Vec::new();
    }
    // A module's tests are its end.
    let lines: Vec<&str> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
    let mut findings = Vec::new();
    // The `pub enum` or `pub trait` that the line is in, and its indentation.
    let mut around: Option<(&str, usize)> = None;
    for (index, line) in lines.iter().enumerate() {
        let depth = indentation(line);
        let text = line.trim_start();
        if around.is_some_and(|(_, begin)| depth == begin && text.starts_with('}')) {
            around = None;
        }
        let keyword = text.strip_prefix("pub ").and_then(keyword);
        let member = around.is_some_and(|(kind, begin)| depth == begin + 4 && is_member(kind, text));
        if (keyword.is_some() || member) && !is_documented(lines.get(..index).unwrap_or_default(), depth) {
            findings.push(finding(
                path,
                Some(index + 1),
                "say what it is with `///`: unit, form, errors, the source of a protocol",
            ));
        }
        if let Some(kind @ ("enum" | "trait")) = keyword
            && line.ends_with('{')
        {
            around = Some((kind, depth));
        }
    }
    findings
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The keyword of the item that begins so.
fn keyword(declaration: &str) -> Option<&str> {
    let mut words = declaration.split(' ').peekable();
    while let Some(word) = words.next() {
        let is_qualifier = QUALIFIERS.contains(&word) && words.peek().is_some_and(|next| KEYWORDS.contains(next));
        if !is_qualifier {
            return KEYWORDS.contains(&word).then_some(word);
        }
    }
    None
}

/// Whether a line of an enum begins a variant, or one of a trait an item.
fn is_member(kind: &str, text: &str) -> bool {
    match kind {
        "enum" => text.starts_with(|c: char| c.is_ascii_uppercase()),
        _ => keyword(text).is_some(),
    }
}

/// Whether the lines above an item of this indentation, attributes and comments, have documentation among them.
fn is_documented(above: &[&str], depth: usize) -> bool {
    let mut own = above.iter().rev().take_while(|line| {
        let text = line.trim_start();
        // What stands before: an item's or a variant's end, or the beginning of what it is in. An attribute ends with a bracket.
        let ends_variant = depth > 0 && text.ends_with(',') && indentation(line) == depth;
        let is_other = text.is_empty() || text.ends_with(['{', '}', ';']) || ends_variant;
        text.starts_with("//") || !is_other
    });
    own.any(|line| line.trim_start().starts_with("///"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let findings = check(Path::new("crates/x/src/lib.rs"), text);
        findings.into_iter().filter_map(|finding| finding.line).collect()
    }

    #[test]
    fn an_item_is_documented_above_its_attributes() {
        let documented = "\
/// An error.
#[derive(Debug)]
#[error(
    \"a message; {x} \\
goes on\",
    x = 1
)]
// Boxing it would be slow.
pub enum Error {
    /// This.
    #[error(\"this\")]
    This { path: u8 },
    /// That.
    That(u8),
}

impl Error {
    /// Makes one.
    pub const fn new() -> Self {
        Self::That(1)
    }

    fn own() {}
}

/// A trait.
pub trait Shown {
    /// How long.
    fn length(&self) -> usize;
}
";
        assert_eq!(lines(documented), [] as [usize; 0]);
    }

    #[test]
    fn what_is_not_documented_is_found_but_for_fields_and_tests() {
        let undocumented = "\
pub async fn one() {}
/// Documented.
pub struct Two {
    pub field: u8,
}
pub const THREE: u8 = 3;

/// Four.
pub enum Four {
    A,
    /// B.
    B {
        field: u8,
    },
    C,
    /// D.
    D,
    E(u8),
}

/// Five.
pub trait Five {
    fn shown(&self);
}

pub(crate) fn six() {}

#[cfg(test)]
mod tests {
    pub fn seven() {}
}
";
        assert_eq!(lines(undocumented), [1, 6, 10, 15, 18, 23]);
    }

    #[test]
    fn what_is_no_source_is_not_checked() {
        assert!(check(Path::new("crates/x/tests/cli.rs"), "pub fn one() {}\n").is_empty());
    }
}
