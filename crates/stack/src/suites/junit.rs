//! JUnit files: what pytest's says, and writing one for executable files.
//!
//! The form is pytest's `xunit2` (<https://docs.pytest.org/en/stable/how-to/output.html>), of which only elements and their
//! attributes are read: pytest escapes every `<` of what tests print.

use std::path::Path;
use std::time::Duration;

use dockerutils_core::error::Result;
use dockerutils_core::output::one_line;
use dockerutils_core::project_file;

use super::{FailedTest, LONGEST_MESSAGE};
use crate::artifacts;

/// How many failed tests are named; the file has all.
const MOST_NAMED: usize = 200;

/// How many of a program's last lines are in its JUnit file.
const LAST_LINES: usize = 40;

/// The sum of a JUnit file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JunitSum {
    /// Tests that ran.
    pub(super) tests: usize,
    pub(super) failures: usize,
    pub(super) failed: Vec<FailedTest>,
}

impl JunitSum {
    /// What a file says; `None` without one, or where it can't be read: pytest's exit code still counts.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let bytes = project_file::read(path).ok()?;
        Some(Self::of(&String::from_utf8_lossy(&bytes)))
    }

    fn of(text: &str) -> Self {
        let mut sum = Self::default();
        let mut case: Option<JunitCase> = None;
        for tag in tags(text) {
            match tag.name {
                "testcase" => {
                    sum.add(case.take());
                    case = Some(JunitCase::of(&tag));
                }
                "/testcase" => sum.add(case.take()),
                "skipped" => case.iter_mut().for_each(|case| case.is_skipped = true),
                "failure" | "error" => {
                    if let Some(case) = case.as_mut().filter(|case| case.message.is_none()) {
                        case.message = Some(tag.attribute("message").unwrap_or_default());
                    }
                }
                _ => {}
            }
            if tag.is_empty && tag.name == "testcase" {
                sum.add(case.take());
            }
        }
        sum.add(case);
        sum
    }

    fn add(&mut self, case: Option<JunitCase>) {
        let Some(case) = case.filter(|case| !case.is_skipped) else {
            return;
        };
        self.tests += 1;
        let Some(message) = case.message else { return };
        self.failures += 1;
        if self.failed.len() < MOST_NAMED {
            self.failed.push(FailedTest {
                name: shortened(&case.name),
                message: shortened(&message),
            });
        }
    }
}

/// A text on one line, of a length that can be shown.
fn shortened(text: &str) -> String {
    one_line(text).chars().take(LONGEST_MESSAGE).collect()
}

struct JunitCase {
    name: String,
    is_skipped: bool,
    message: Option<String>,
}

impl JunitCase {
    fn of(tag: &Tag<'_>) -> Self {
        let name = tag.attribute("name").unwrap_or_default();
        let name = match tag.attribute("classname").filter(|class| !class.is_empty()) {
            Some(class) => format!("{class}::{name}"),
            None => name,
        };
        Self {
            name,
            is_skipped: false,
            message: None,
        }
    }
}

/// A tag, without its angle brackets.
struct Tag<'t> {
    /// The element's name; of one that ends, with a slash before it.
    name: &'t str,
    attributes: &'t str,
    is_empty: bool,
}

impl Tag<'_> {
    fn attribute(&self, name: &str) -> Option<String> {
        let mut rest = self.attributes;
        loop {
            let (key, after) = rest.split_once('=')?;
            let after = after.trim_start();
            let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            let (value, next) = after.get(1..)?.split_once(quote)?;
            if key.trim() == name {
                return Some(unescaped(value));
            }
            rest = next;
        }
    }
}

fn tags(text: &str) -> impl Iterator<Item = Tag<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.split_once('<')?.1;
        let mut quote = None;
        let end = rest.find(|letter| match (quote, letter) {
            (None, '>') => true,
            (None, '"' | '\'') => {
                quote = Some(letter);
                false
            }
            (Some(open), letter) if letter == open => {
                quote = None;
                false
            }
            _ => false,
        })?;
        let (inside, after) = rest.split_at_checked(end)?;
        rest = after;
        let (inside, is_empty) = match inside.strip_suffix('/') {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        let (name, attributes) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
        Some(Tag {
            name,
            attributes,
            is_empty,
        })
    })
}

/// The named entities of XML, and numbered ones.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let Some((entity, next)) = after.split_once(';') else {
            plain.push('&');
            rest = after;
            continue;
        };
        let number = |digits: &str| match digits.strip_prefix('x') {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => digits.parse().ok(),
        };
        let letter = match entity {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            entity => entity.strip_prefix('#').and_then(number).and_then(char::from_u32),
        };
        plain.extend(letter);
        rest = next;
    }
    plain.push_str(rest);
    plain
}

/// An executable file that was run as a test.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProgramCase {
    /// Its path, seen from the root of the repository.
    pub(super) name: String,
    pub(super) took: Duration,
    /// Why it failed, and its last lines.
    pub(super) failure: Option<(String, String)>,
}

impl ProgramCase {
    /// A file that was run, with what it printed last; `why` is how it failed.
    pub(super) fn new(name: &str, took: Duration, why: Option<&str>, lines: &[String]) -> Self {
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
        Self {
            name: name.to_owned(),
            took,
            failure: why.map(|why| (why.to_owned(), last.join("\n"))),
        }
    }

    /// It, if it failed.
    pub(super) fn failed(&self) -> Option<FailedTest> {
        let (why, _) = self.failure.as_ref()?;
        Some(FailedTest {
            name: shortened(&self.name),
            message: shortened(why),
        })
    }
}

/// Writes the JUnit file of executable files.
///
/// # Errors
/// A file that can't be written.
pub(super) fn write(path: &Path, suite: &str, cases: &[ProgramCase]) -> Result<()> {
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let total: Duration = cases.iter().map(|case| case.took).sum();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<testsuites><testsuite name=\"{}\" errors=\"0\" failures=\"{failures}\" \
         skipped=\"0\" tests=\"{}\" time=\"{:.3}\">\n",
        escaped(suite),
        cases.len(),
        total.as_secs_f64()
    );
    for case in cases {
        let begin = format!(
            "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
            escaped(suite),
            escaped(&case.name),
            case.took.as_secs_f64()
        );
        text.push_str(&begin);
        text.push_str(&match &case.failure {
            None => "/>\n".to_owned(),
            Some((message, output)) => format!(
                "><failure message=\"{}\">{}</failure></testcase>\n",
                escaped(message),
                escaped(output)
            ),
        });
    }
    text.push_str("</testsuite></testsuites>\n");
    artifacts::write(path, &text)
}

/// Text as XML 1.0 can have it: other control characters have no form in it at all.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            '\t' => safe.push('\t'),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Of pytest 8.4: two that pass, one skipped, one that fails, one whose fixture fails.
    const PYTEST: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><testsuites name=\"pytest tests\"><testsuite name=\"pytest\" \
        errors=\"1\" failures=\"1\" skipped=\"1\" tests=\"5\" time=\"0.04\" hostname=\"h\"><testcase classname=\"t.test_a\" \
        name=\"test_one\" time=\"0.001\" /><testcase classname=\"t.test_a\" name=\"test_two[a&lt;b &quot;c&quot;]\" \
        time=\"0.001\"><system-out>a &gt; b > c &lt;testcase name=\"x\" /></system-out></testcase><testcase classname=\"t.test_a\" \
        name=\"test_skip\" time=\"0.0\"><skipped type=\"pytest.skip\" message=\"no > GPU\">x</skipped></testcase><testcase \
        classname=\"t.test_a\" name=\"test_bad\" time=\"0.002\"><failure message=\"assert 1 == 2&#10;  +1\">def \
        test_bad():</failure></testcase><testcase classname=\"\" name=\"test_fixture\" time=\"0.002\"><error message='failed on \
        setup'>x</error></testcase></testsuite></testsuites>";

    #[test]
    fn the_sum_of_pytest_s_file_leaves_out_what_was_skipped() {
        let sum = JunitSum::of(PYTEST);
        assert_eq!((sum.tests, sum.failures), (4, 2));
        let said: Vec<String> = sum
            .failed
            .iter()
            .map(|test| format!("{}: {}", test.name, test.message))
            .collect();
        assert_eq!(
            said,
            ["t.test_a::test_bad: assert 1 == 2 +1", "test_fixture: failed on setup"]
        );
    }

    #[test]
    fn what_is_cut_or_no_xml_has_no_more_tests_than_it_shows() {
        assert_eq!(JunitSum::of(""), JunitSum::default());
        assert_eq!(JunitSum::of("no xml & <"), JunitSum::default());
        for end in 0..PYTEST.len() {
            assert!(JunitSum::of(&PYTEST[..end]).tests <= 5);
        }
    }

    #[test]
    fn our_own_file_reads_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("artifacts/x.xml");
        let case = |name: &str, failure: Option<&str>| ProgramCase {
            name: name.to_owned(),
            took: Duration::from_millis(1500),
            failure: failure.map(|why| (why.to_owned(), "a <b> & \u{1b}[31m]]>\nc".to_owned())),
        };
        let cases = [
            case("images/a/test/check.sh", None),
            case("\"odd\" <name>", Some("exit code 3")),
        ];
        write(&path, "basic tests of a", &cases).unwrap();
        let sum = JunitSum::read(&path).unwrap();
        assert_eq!((sum.tests, sum.failures), (2, 1));
        assert_eq!(sum.failed[0].name, "basic tests of a::\"odd\" <name>");
        assert_eq!(sum.failed[0].message, "exit code 3");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("a &lt;b&gt; &amp; \u{fffd}[31m]]&gt;&#10;c"), "{text}");
        assert!(text.contains("tests=\"2\" time=\"3.000\""), "{text}");
    }
}
