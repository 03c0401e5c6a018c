//! Words as Python's shlex splits them, and as real shells read what we quote.

// The helpers of a test fail as the test does.
#![allow(clippy::expect_used, clippy::panic)]

use std::borrow::Cow;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use dock_client::shell;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// The shells that read what we quote, each a program that reads commands from stdin.
const SHELLS: [&[&str]; 2] = [&["sh"], &["bash", "--norc"]];

/// Makes bash treat `!` as at a prompt; `!:0` would be the command before.
const HISTORY: &str = "set -o history; set -o histexpand\n";

/// Variables in the shells' environment; each would come apart if it were split or expanded again.
const VARIABLES: [(&str, &str); 4] = [
    ("A", "two  words"),
    ("B_1", "*"),
    ("C", "/x/$A/`id`/\"'\\!!"),
    ("D", ""),
];

fn run(command: &[&str], input: &str) -> Vec<u8> {
    let (program, arguments) = command.split_first().expect("a program");
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(VARIABLES)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).expect("the program reads"));
        let output = child.wait_with_output().expect("the program ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} failed: {errors}");
        output.stdout
    })
}

/// What Python's function `f` returns for each of these texts.
fn python(f: &str, texts: &[String]) -> Vec<Value> {
    let script = format!(
        "import json, os, re, shlex, sys\n{f}\n\
         json.dump([f(text) for text in json.load(sys.stdin.buffer)], sys.stdout)"
    );
    let output = run(&["python3", "-c", &script], &json!(texts).to_string());
    serde_json::from_slice(&output).expect("python writes JSON")
}

/// The same random mixtures of pieces in each run: a failure can be repeated.
fn mixtures(pieces: &[&'static str], count: usize) -> Vec<String> {
    let strategy = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12);
    let mut runner = TestRunner::deterministic();
    let mut next = || strategy.new_tree(&mut runner).expect("a value").current().concat();
    (0..count).map(|_| next()).collect()
}

/// The arguments that each shell reads from words that have been quoted: one argument each, or the counts would differ.
fn assert_read_as(words: &[String], quote: fn(&str) -> Cow<'_, str>, expected: &[String]) {
    let print: String = words
        .iter()
        .map(|word| format!("printf '%s\\0' {} end\n", quote(word)))
        .collect();
    let scripts = SHELLS
        .iter()
        .map(|shell| (shell, print.clone()))
        .chain([(&SHELLS[1], format!("{HISTORY}{print}"))]);
    for (shell, script) in scripts {
        let output = String::from_utf8(run(shell, &script)).expect("UTF-8");
        let mut read = output.split('\0');
        for (word, expected) in words.iter().zip(expected) {
            let quoted = quote(word);
            assert_eq!(read.next(), Some(expected.as_str()), "{shell:?} read {quoted}");
            assert_eq!(read.next(), Some("end"), "{shell:?} read {quoted}");
        }
        assert_eq!(read.collect::<Vec<_>>(), [""], "{shell:?}");
    }
}

#[test]
fn texts_split_as_by_shlex() {
    let pieces = [
        "a", "b", "=", "é", "#", " ", " ", "\t", "\n", "\r", "'", "'", "\"", "\"", "\\", "\\", "$", "`", "!", "\0",
        "\u{b}", "\u{c}", "\u{85}", "\u{a0}", "\u{2028}", "''", "\"\"", "\\\\", "\\\n", ";", "&&",
    ];
    let texts = mixtures(&pieces, 10_000);
    let theirs = python(
        "def f(text):\n    try:\n        return shlex.split(text)\n    except ValueError as error:\n        return str(error).lower()",
        &texts,
    );
    let mut split = 0;
    for (text, theirs) in texts.iter().zip(&theirs) {
        let ours = match shell::split(text) {
            Ok(words) => json!(words),
            Err(error) => json!(error.to_string()),
        };
        assert_eq!(&ours, theirs, "left is ours, right shlex's, for {text:?}");
        split += usize::from(theirs.is_array());
    }
    // Both outcomes occurred.
    assert_eq!(texts.len(), theirs.len());
    assert!((1000..9000).contains(&split), "{split}");
}

/// All characters that mean something to a shell, without NUL, which can't be part of an argument.
const WORDS: [&str; 60] = [
    "a", "b", "KEY", "é", "日", "0", "1", " ", "\t", "\n", "\r", "'", "'", "\"", "\"", "\\", "\\", "$", "$", "`", "!",
    "!", "!!", "!a", "!:0", "\n^a^b", "#", "~", "=", "==", "ls", "%", "%1", "*", "?", "[", "]", "{", "}", ",", "{a,b}",
    "(", ")", "<", ">", "|", "&", ";", ":", "-", "--", "/", ".", "@", "+", "\u{7f}", "\u{1}", "\u{85}", "\u{a0}", "$'",
];

#[test]
fn quoted_words_are_read_back() {
    let mut words = mixtures(&WORDS, 5000);
    words.extend((1..128u8).map(|byte| char::from(byte).to_string()));
    words.extend((1..128u8).map(|byte| format!("{}a", char::from(byte))));
    assert_read_as(&words, shell::quote, &words);
    let line = [shell::join(&words)];
    let split = python("def f(text):\n    return shlex.split(text)", &line);
    assert_eq!(split, [json!(words)], "shlex");
}

#[test]
fn variables_are_expanded_and_nothing_else() {
    let variables = [
        "$A", "$A", "${A}", "$B_1", "${B_1}", "$C", "${C}", "$D", "$A_", "${nope}", "${", "${}", "${1}", "${A",
        "${A:-b}", "${#A}", "$(id)", "$((1))", "$$", "$1", "$?", "$@", ":h", ":", "[1]", "[", "A", "_x", "9", "h", "/",
    ];
    let words = mixtures(&[&WORDS[..], &variables[..], &variables[..]].concat(), 5000);
    let expected = python(
        r"def f(text):
    variable = r'\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})'
    return re.sub(variable, lambda found: os.environ.get(found[1] or found[2], ''), text)",
        &words,
    );
    let expected: Vec<String> = expected
        .iter()
        .map(|word| word.as_str().expect("a string").to_owned())
        .collect();
    assert_read_as(&words, shell::quote_keeping_variables, &expected);
}

/// Without history expansion, the tests above would say nothing about `!`.
#[test]
fn bash_expands_history_in_these_tests() {
    let output = run(SHELLS[1], &format!("{HISTORY}echo first\necho \"!:0\"\n"));
    assert_eq!(output, b"first\necho\n");
}
