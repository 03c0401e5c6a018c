//! The same files, read by Python's configparser and by [`Ini`]: the same sections, keys, values and errors.

// The helpers of a test fail as the test does.
#![allow(clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use dockerutils_core::config::ini::{Ini, IniError};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

/// Reads a JSON list of texts, as `open(path, encoding="utf-8")` would give them, and says what is in each.
const PYTHON: &str = r#"
import configparser, io, json, sys

def value(parser, section, key):
    try:
        return parser.get(section, key)
    except configparser.InterpolationError as error:
        told = {"error": type(error).__name__}
        if isinstance(error, configparser.InterpolationMissingOptionError):
            told["missing"] = error.reference
        return told

def read(text):
    parser = configparser.ConfigParser()
    parser.optionxform = str
    try:
        parser.read_file(io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"), "file")
    except configparser.ParsingError as error:
        many = type(error) is configparser.ParsingError
        lines = [line for line, _ in error.errors] if many else [error.lineno]
        return {"error": type(error).__name__, "lines": lines}
    except configparser.Error as error:
        return {"error": type(error).__name__, "lines": [error.lineno]}
    keys = {section: parser.options(section) for section in parser.sections()}
    keys["DEFAULT"] = list(parser.defaults())
    return {
        "sections": parser.sections(),
        "keys": keys,
        "values": {s: {k: value(parser, s, k) for k in ks} for s, ks in keys.items()},
        "raw": {s: {k: parser.get(s, k, raw=True) for k in ks} for s, ks in keys.items()},
    }

json.dump([read(text) for text in json.load(sys.stdin.buffer)], sys.stdout)
"#;

fn configparser(texts: &[String]) -> Vec<Value> {
    let mut python = Command::new("python3")
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs python3");
    let mut stdin = python.stdin.take().expect("a pipe");
    // Python reads everything before it writes anything.
    stdin
        .write_all(json!(texts).to_string().as_bytes())
        .expect("python reads");
    drop(stdin);
    let output = python.wait_with_output().expect("python ends");
    assert!(output.status.success(), "python failed");
    serde_json::from_slice(&output.stdout).expect("python writes JSON")
}

/// What [`PYTHON`] says, from our parser.
fn ours(text: &str) -> Value {
    let ini = match Ini::parse(Path::new("file"), text) {
        Ok(ini) => ini,
        Err(error) => {
            let mut lines = vec![error.place().line];
            if let IniError::Parsing { others, .. } = &error {
                lines.extend(others);
            }
            return json!({"error": class(&error), "lines": lines});
        }
    };
    let value = |section: &str, key: &str| match ini.get(section, key) {
        Ok(value) => json!(value),
        Err(error) => match &error {
            IniError::InterpolationMissingOption { missing, .. } => {
                json!({"error": class(&error), "missing": missing})
            }
            _ => json!({"error": class(&error)}),
        },
    };
    let sections: Vec<&str> = ini.sections().collect();
    let (mut keys, mut values, mut raw) = (Map::new(), Map::new(), Map::new());
    for &section in sections.iter().chain(&["DEFAULT"]) {
        let names = ini.keys(section);
        let of_each = |value: &dyn Fn(&str) -> Value| -> Value {
            names.iter().map(|&key| (key.to_owned(), value(key))).collect()
        };
        values.insert(section.to_owned(), of_each(&|key| value(section, key)));
        raw.insert(section.to_owned(), of_each(&|key| json!(ini.raw(section, key))));
        keys.insert(section.to_owned(), json!(names));
    }
    json!({"sections": sections, "keys": keys, "values": values, "raw": raw})
}

/// The name of configparser's exception.
fn class(error: &IniError) -> &'static str {
    match error {
        IniError::DuplicateSection { .. } => "DuplicateSectionError",
        IniError::DuplicateOption { .. } => "DuplicateOptionError",
        IniError::MissingSectionHeader { .. } => "MissingSectionHeaderError",
        IniError::Parsing { .. } => "ParsingError",
        IniError::InterpolationSyntax { .. } => "InterpolationSyntaxError",
        IniError::InterpolationMissingOption { .. } => "InterpolationMissingOptionError",
        IniError::InterpolationDepth { .. } => "InterpolationDepthError",
        IniError::InterpolationSize { .. } => "none of configparser's",
    }
}

/// Compares all texts and counts the files that were read, under "", and the errors of each class.
fn compare(texts: &[String]) -> BTreeMap<String, usize> {
    let theirs = configparser(texts);
    assert_eq!(theirs.len(), texts.len());
    let mut counts = BTreeMap::new();
    for (text, theirs) in texts.iter().zip(theirs) {
        assert_eq!(ours(text), theirs, "left is ours, right configparser's, for {text:?}");
        let values = theirs
            .get("values")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::values);
        let errors = values.filter_map(Value::as_object).flat_map(Map::values);
        for outcome in errors.chain([&theirs]) {
            if let Some(outcome) = outcome.as_object() {
                let class = outcome.get("error").and_then(Value::as_str).unwrap_or_default();
                *counts.entry(class.to_owned()).or_insert(0) += 1;
            }
        }
    }
    counts
}

#[test]
fn files_written_by_hand_read_the_same() {
    let texts = [
        "",
        "\n\n# nothing\n",
        "[run_image]\nsynthetic_images = a,b\n\n[test]\ntag=latest\n",
        "[dev]\nvolumes = --mount type=bind,source={project_root},target=/app\n   -v $HOME/.aws:/root/.aws\nports: -p 80:80\n",
        "[DEFAULT]\nbase = /data\n[a]\nx = %(base)s/x\n[b]\nbase = /b\nx = %(base)s/%%(x)s\n",
        "[a]\nx = 1\n[DEFAULT]\nx = 2\ny = %(x)s\n[DEFAULT]\nz = 3\n",
        "[DEFAULT]\nx = 1\n[DEFAULT]\nx = 2\n",
        "[a]\nx = one\n\n  two\n# comment\n  ; comment\n\n\n  three\n\n\ny = 1\n",
        "[a]\nx =\n  one\n    two\n three\ny\n",
        "[a]\n  x = 1\n  y = 2\n    more\n z = 3\n  w = 4\n",
        "  [a]\n x = 1\n  [b]\n",
        "[a]\n x = 1\n  [b]\n[b]\n",
        "[a]\nx = 1 ; inline\ny = 2 # inline\n#[b]\n",
        "[a]\nx : 1\ny= 2\nz =3\nw:4\nv==5\nu:=6\nt=:7\n",
        "[a]\nkey with spaces  =  value with spaces  \n",
        "[a]\nX = 1\nx = 2\n",
        "[a]\nx = 1\nx : 2\n",
        "[a]\nx = 1\n[a]\n",
        "[a] # comment]\nx=1\n[b]c\n[]\n[]]\n[ d ]\n",
        "[a\nx=1\n",
        "[a\nx=1\n[b\n",
        "[a]]\n[[a]\n[[b]]\n",
        "x = 1\n",
        "   \n\t\n x\n[a]\n",
        "[a]\n= 1\n",
        "[a]\n= 1\n  more\n: 2\n",
        "[a]\n: 1\n\n  more = x\n",
        "[a]\ngarbage\nx = 1\nmore garbage\n  indented\n",
        "[a]\nx = 1\ngarbage\n  [a]\n[a]\n",
        "[a]\ngarbage\n[a]\n",
        "\u{feff}[a]\nx = 1\n",
        "\u{feff}# comment\n[a]\nx = 1\n",
        "[a]\n\u{feff}x = 1\n",
        "[a]\r\nx = 1\r\n  2\r\n\r\n  3\r\n",
        "[a]\rx = 1\r  2\r\r\n  3\n\r  4",
        "[a]\nx = 1\u{85}y = 2\u{2028}z = 3\u{c}w = 4\u{b}v = 5\n",
        "[a]\n\u{c}x = 1\n\u{3000}y = 2\n",
        "[a]\nx = 1\n\u{a0}\u{a0}2\n\u{200b}y = 3\n",
        "[a]\nx = 1\u{1f}\n\u{1c}\u{1d}= 2\n",
        "[a]\nx = \0\n\0 = 1\n",
        "[a]\nx = %\ny = %%\nz = %%%\nw = %s\nv = % (a)s\nu = %%(a)s\n",
        "[a]\nx = %(\ny = %()s\nz = %(y)\nw = %(y)d\nv = %(a b)s\nu = %(a)b)s\nt = %(x\n  y)s\n",
        "[a]\nx = %(x)s\ny = %(z)s\nz = %(y)s\nw = %(y)s!\n",
        "[a]\nx = %(nope)s\ny = a%(x)sb\n[b]\nz = %(y)s\n",
        "[DEFAULT]\ny = %(x)s\n[a]\nx = 1\n[b]\n",
        "[DEFAULT]\nx = %%\n[a]\ny = %(x)s%(x)s\nz = %(y)s(y)s\n",
        "[a]\nk0=%(k1)s\nk1=%(k2)s\nk2=%(k3)s\nk3=%(k4)s\nk4=%(k5)s\nk5=%(k6)s\nk6=%(k7)s\nk7=%(k8)s\nk8=%(k9)s\nk9=%(k10)s\nk10=%(k11)s\nk11=end\n",
        "[a]\nk0=%(k1)s\nk1=%(k2)s\nk2=%(k3)s\nk3=%(k4)s\nk4=%(k5)s\nk5=%(k6)s\nk6=%(k7)s\nk7=%(k8)s\nk8=%(k9)s\nk9=%(k10)s\nk10=%(none)s\n",
        "[a]\nx = no newline at the end",
        "[a]\nx =",
        "[a]",
        "[default]\nx = 1\n[Default]\nx = 2\n[a]\n",
        "[é]\nü = ñ\n[日本]\n鍵：x = 値\n",
    ];
    compare(&texts.map(str::to_owned));
}

/// Each character that one of the two might take for a space or for the end of a line, in each place.
#[test]
fn spaces_are_the_same() {
    let odd = ('\0'..='\u{ff}').chain([
        '\u{180e}', '\u{feff}', '\u{1680}', '\u{202f}', '\u{205f}', '\u{3000}', '\u{303f}',
    ]);
    let texts: Vec<String> = odd
        .chain('\u{2000}'..='\u{2069}')
        .flat_map(|c| {
            [
                format!("{c}[a]{c}\n{c}{c}x{c}={c}1{c}\n{c}\n{c}{c}{c}2{c}{c}\n"),
                format!("[a]\nx = 1\n{c}y = 2\n"),
                format!("[a]\n= 1{c}[a]\n"),
                format!("[a]\n{c}\n"),
                format!("[a]\nx = 1{c}; 2{c}# 3\n"),
            ]
        })
        .collect();
    compare(&texts);
}

/// Files whose lines are mostly legal.
fn lines() -> impl Strategy<Value = String> {
    let indent = prop::sample::select(vec![
        "",
        "",
        "",
        "",
        "",
        "",
        " ",
        "  ",
        "    ",
        "\t",
        "\u{c}",
        "\u{a0}",
        "\u{3000} ",
        "\u{1f}",
    ]);
    let key = prop::sample::select(vec![
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k l", "A", "[m", "n]", "#o", "%p", "ü",
    ]);
    let delimiter = prop::sample::select(vec!["=", " = ", ":", ": ", "\t:\t", "==", " =: ", "\u{2003}=\u{2003}"]);
    let value = prop::sample::select(vec![
        "",
        "1",
        "one two",
        "x = y",
        "x # y",
        "; z",
        "[a]",
        "%%",
        "%(a)s",
        "%(b)s/%(c)s",
        "%(d)s%%",
        "%(ü)s",
        "%(k l)s",
        "%(nope)s",
        "%",
        "100%",
        "%(a",
        "%(a)",
        "%()s",
        "%%(a)s",
        "x\u{85}",
        "\u{2028}y = 1",
        "é\u{b}",
    ]);
    let setting = (key, delimiter, value).prop_map(|(key, delimiter, value)| format!("{key}{delimiter}{value}"));
    let other = prop::sample::select(vec![
        "",
        "",
        "# comment",
        "; a = b",
        "-v more",
        "%(a)s",
        "[DEFAULT]",
        "[s]",
        "[t]",
        "[u] x",
        "[v]]",
        "[w w]",
    ]);
    let wrong = prop::sample::select(vec!["[]", "= 1", ": 2", "garbage", "[open", "\u{feff}"]);
    let body = prop_oneof![
        60 => setting,
        39 => other.prop_map(str::to_owned),
        1 => wrong.prop_map(str::to_owned),
    ];
    let end = prop::sample::select(vec!["\n", "\n", "\n", "\n", "\r\n", "\r", "\n\n", " \n", "\u{c}\n"]);
    let line = (indent, body, end).prop_map(|(indent, body, end)| format!("{indent}{body}{end}"));
    let start = prop_oneof![8 => Just("[r]\n"), 1 => Just("[DEFAULT]\n"), 1 => Just("")];
    (start, prop::collection::vec(line, 0..16)).prop_map(|(start, lines)| format!("{start}{}", lines.concat()))
}

/// Files that are any mixture of what means something.
fn mixtures() -> impl Strategy<Value = String> {
    let pieces = [
        "[", "]", "[a]", "=", ":", "#", ";", "%", "%%", "%(", ")s", "a", "b", "é", " ", "\t", "\n", "\n", "\n", "\r",
        "\r\n", "\u{b}", "\u{c}", "\u{1c}", "\u{85}", "\u{a0}", "\u{2029}", "\u{feff}", "\0", "'", "\"", "\\",
        "DEFAULT",
    ];
    let pieces = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..30);
    let start = prop::sample::select(vec!["", "[r]\n", "[DEFAULT]\n", "[r]\na = b\n"]);
    (start, pieces).prop_map(|(start, pieces)| format!("{start}{}", pieces.concat()))
}

/// The same values in each run: what fails once fails again.
fn generate(strategy: &impl Strategy<Value = String>, count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let mut next = || strategy.new_tree(&mut runner).expect("a value").current();
    (0..count).map(|_| next()).collect()
}

#[test]
fn generated_lines_read_the_same() {
    let counts = compare(&generate(&lines(), 3000));
    // A generator that makes only good or only bad files would compare nothing.
    for class in [
        "",
        "DuplicateOptionError",
        "DuplicateSectionError",
        "InterpolationDepthError",
        "InterpolationMissingOptionError",
        "InterpolationSyntaxError",
        "MissingSectionHeaderError",
        "ParsingError",
    ] {
        let count = counts.get(class).copied().unwrap_or_default();
        assert!(count >= 50, "{class:?} came up {count} times only: {counts:?}");
    }
}

#[test]
fn generated_mixtures_read_the_same() {
    let counts = compare(&generate(&mixtures(), 3000));
    assert!(counts.get("").copied().unwrap_or_default() >= 300, "{counts:?}");
}
