//! The commands in the script of a RUN: their words, where these stand, and what joins one command to the next.
//!
//! Only so much of a shell's grammar as tells commands apart. What is in `$(...)`, backquotes and quotes is part of a
//! word, and keywords are words before a command.

use std::ops::Range;

/// What stands between a command and the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// `&&`
    And,
    /// `||`
    Or,
    /// `;`, a line break, or a parenthesis.
    Sequence,
    /// `|`
    Pipe,
    /// `&`
    Background,
    /// The script ends.
    End,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShellCommand {
    /// All of its words: keywords, variables and options, too.
    pub(super) words: Vec<ShellWord>,
    /// What it writes to: the words after `>`.
    pub(super) outputs: Vec<String>,
    /// What follows it.
    pub(super) joint: Joint,
    /// The bytes from its first word to its last, redirections included.
    pub(super) bytes: Range<usize>,
    /// Whether it is part of a loop, a condition, a group or a subshell.
    pub(super) is_nested: bool,
    /// Where the pipeline begins that it is in, or the loop, condition or group around it: another command can be put there. `None`
    /// if the script is too particular to tell.
    pub(super) outermost: Option<usize>,
    /// What comes before that: nothing at the beginning of the script.
    pub(super) entry: Option<Joint>,
    /// Where in the words its program is.
    program: Option<usize>,
}

/// One word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShellWord {
    /// Without its quotes.
    pub(super) text: String,
    /// The bytes of the script that it is.
    pub(super) bytes: Range<usize>,
}

/// Words before a command that do not name it.
const BEFORE: [&str; 19] = [
    "!", "{", "}", "if", "then", "else", "elif", "while", "until", "do", "time", "sudo", "exec", "command", "nice",
    "nohup", "env", "eval", "builtin",
];

impl ShellCommand {
    /// The name of its program, without the directory; empty if it has none.
    pub(super) fn program(&self) -> &str {
        let word = self.program.and_then(|at| self.words.get(at));
        let text = word.map_or("", |word| word.text.as_str());
        text.rsplit('/').next().unwrap_or(text)
    }

    /// The words after the program.
    pub(super) fn arguments(&self) -> &[ShellWord] {
        let after = self.program.map_or(self.words.len(), |at| at + 1);
        self.words.get(after..).unwrap_or_default()
    }

    /// The first word after the program that is not an option, and where it is in the arguments.
    pub(super) fn verb(&self) -> Option<(usize, &ShellWord)> {
        let mut arguments = self.arguments().iter().enumerate();
        arguments.find(|(_, word)| !word.text.starts_with('-'))
    }

    /// Whether one of its arguments is this.
    pub(super) fn has(&self, argument: &str) -> bool {
        self.arguments().iter().any(|word| word.text == argument)
    }

    /// The variables that it is given, `NAME=value`, and those that it sets.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        let before = self.words.get(..self.program.unwrap_or(self.words.len()));
        let words = before.unwrap_or_default().iter().map(|word| word.text.as_str());
        words.filter(|text| is_assignment(text))
    }

    fn find_program(&mut self) {
        let is_before = |word: &ShellWord| {
            is_assignment(&word.text) || BEFORE.contains(&word.text.as_str()) || word.text.starts_with('@')
        };
        self.program = self.words.iter().position(|word| !is_before(word));
    }
}

/// Whether a word sets a variable.
fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else {
        return false;
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(is_part) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// What encloses commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enclosure {
    Parenthesis,
    /// `case` has closing parentheses of its own.
    Case,
    /// `if`, `for`, `while`, `until`, `select`, `{`.
    Keyword,
}

/// What a redirection is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirection {
    Output,
    Input,
    /// The word that ends a here-document.
    HereDocument,
}

/// A script while it is read.
struct ScriptReader<'s> {
    script: &'s str,
    commands: Vec<ShellCommand>,
    words: Vec<ShellWord>,
    outputs: Vec<String>,
    /// The bytes of the command so far.
    bytes: Option<Range<usize>>,
    /// The word that is read: its beginning, and its text so far.
    word: Option<(usize, String)>,
    /// The next word names a file that is written, or read.
    redirection: Option<Redirection>,
    /// The words that end here-documents, whose bodies begin on the next line.
    here_documents: Vec<String>,
    enclosures: Vec<Enclosure>,
    /// Where the pipeline or compound began that is enclosed by nothing.
    outermost: Option<usize>,
    entry: Option<Joint>,
    /// Whether there is a function, an array or something else that this grammar does not know.
    is_particular: bool,
}

/// The commands of a script.
pub(super) fn commands(script: &str) -> Vec<ShellCommand> {
    let mut reader = ScriptReader {
        script,
        commands: Vec::new(),
        words: Vec::new(),
        outputs: Vec::new(),
        bytes: None,
        word: None,
        redirection: None,
        here_documents: Vec::new(),
        enclosures: Vec::new(),
        outermost: None,
        entry: None,
        is_particular: false,
    };
    reader.read();
    if reader.is_particular || !reader.enclosures.is_empty() {
        for command in &mut reader.commands {
            command.outermost = None;
        }
    }
    reader.commands
}

/// Whether a script is commands joined by `&&` and `|` alone: it means the same after `x &&`, and before `&& x`.
pub(super) fn is_plain_list(script: &str) -> bool {
    let commands = commands(script);
    let is_plain = |command: &ShellCommand| {
        let is_keyword = |word: &ShellWord| BEFORE.contains(&word.text.as_str()) && word.text != "sudo";
        let before = command.words.get(..command.program.unwrap_or(command.words.len()));
        !command.is_nested
            && command.outermost.is_some()
            && matches!(command.joint, Joint::And | Joint::Pipe | Joint::End)
            && !before.unwrap_or_default().iter().any(is_keyword)
    };
    !commands.is_empty()
        && commands.iter().all(is_plain)
        && commands.last().is_some_and(|last| last.joint == Joint::End)
        && !script.contains(['#', '\n'])
}

impl ScriptReader<'_> {
    fn read(&mut self) {
        let script = self.script;
        let mut at = 0;
        while let Some(c) = script.get(at..).and_then(|rest| rest.chars().next()) {
            let rest = script.get(at..).unwrap_or_default();
            let mut step = c.len_utf8();
            match c {
                '\\' => {
                    let escaped = rest.chars().nth(1);
                    step += escaped.map_or(0, char::len_utf8);
                    match escaped {
                        Some('\n') => self.end_word(at),
                        Some(escaped) => self.push(at, escaped),
                        None => {}
                    }
                }
                '\'' | '"' => {
                    step = quoted(rest, c);
                    let quotation = rest.get(1..step).unwrap_or_default();
                    self.extend(at, quotation.strip_suffix(c).unwrap_or(quotation));
                }
                '$' if rest.starts_with("$(") => {
                    step = 1 + enclosed(rest.get(1..).unwrap_or_default(), '(', ')');
                    self.extend(at, rest.get(..step).unwrap_or_default());
                }
                '$' if rest.starts_with("${") => {
                    step = 1 + enclosed(rest.get(1..).unwrap_or_default(), '{', '}');
                    self.extend(at, rest.get(..step).unwrap_or_default());
                }
                '`' => {
                    step = quoted(rest, c);
                    self.extend(at, rest.get(..step).unwrap_or_default());
                }
                '#' if self.word.is_none() => {
                    step = rest.find('\n').unwrap_or(rest.len());
                }
                '\n' => {
                    self.end_command(at, Joint::Sequence);
                    step += self.bodies(rest.get(1..).unwrap_or_default());
                }
                ';' => self.end_command(at, Joint::Sequence),
                '(' => {
                    // A function's name, or an array's.
                    self.is_particular |= self.word.is_some() || !self.words.is_empty();
                    self.outermost.get_or_insert(at);
                    self.enclosures.push(Enclosure::Parenthesis);
                    self.end_command(at, Joint::Sequence);
                }
                ')' => {
                    self.end_command(at, Joint::Sequence);
                    match self.enclosures.last() {
                        Some(Enclosure::Parenthesis) => {
                            self.enclosures.pop();
                        }
                        Some(Enclosure::Case) => {}
                        _ => self.is_particular = true,
                    }
                }
                '&' | '|' => {
                    let doubled = rest.chars().nth(1) == Some(c);
                    let joint = match (c, doubled) {
                        ('&', true) => Joint::And,
                        ('&', false) => Joint::Background,
                        (_, true) => Joint::Or,
                        (_, false) => Joint::Pipe,
                    };
                    if joint == Joint::Background && rest.starts_with("&>") {
                        self.end_word(at);
                        self.redirection = Some(Redirection::Output);
                        step = 2;
                    } else {
                        // `|&` is a pipe, too.
                        step = if doubled || rest.starts_with("|&") { 2 } else { 1 };
                        self.end_command(at, joint);
                    }
                }
                '<' | '>' => {
                    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit());
                    if self.word.as_ref().is_some_and(|(_, text)| is_number(text)) {
                        self.word = None;
                    } else {
                        self.end_word(at);
                    }
                    step = rest.find(|other| other != c).unwrap_or(rest.len());
                    let after = rest.get(step..).unwrap_or_default();
                    // `<<-EOF`, `>|file` and `2>&1` have a character between.
                    step += usize::from(after.starts_with(['&', '|', '-']));
                    let is_body = rest.starts_with("<<") && !rest.starts_with("<<<");
                    self.redirection = Some(match c {
                        '>' => Redirection::Output,
                        _ if is_body => Redirection::HereDocument,
                        _ => Redirection::Input,
                    });
                }
                _ if c.is_whitespace() => self.end_word(at),
                _ => self.push(at, c),
            }
            at += step.max(1);
        }
        self.end_command(script.len(), Joint::End);
    }

    /// The bytes of the here-documents that begin here.
    fn bodies(&mut self, text: &str) -> usize {
        let mut read = 0;
        for end in std::mem::take(&mut self.here_documents) {
            for line in text.get(read..).unwrap_or_default().split_inclusive('\n') {
                read += line.len();
                if line.trim() == end {
                    break;
                }
            }
        }
        read
    }

    fn push(&mut self, at: usize, c: char) {
        self.outermost.get_or_insert(at);
        self.word.get_or_insert_with(|| (at, String::new())).1.push(c);
    }

    fn extend(&mut self, at: usize, text: &str) {
        self.outermost.get_or_insert(at);
        self.word.get_or_insert_with(|| (at, String::new())).1.push_str(text);
    }

    fn end_word(&mut self, at: usize) {
        let Some((begin, text)) = self.word.take() else { return };
        self.bytes.get_or_insert(begin..at).end = at;
        match self.redirection.take() {
            Some(Redirection::Output) => self.outputs.push(text),
            Some(Redirection::Input) => {}
            Some(Redirection::HereDocument) => self.here_documents.push(text),
            None => self.words.push(ShellWord { text, bytes: begin..at }),
        }
    }

    fn end_command(&mut self, at: usize, joint: Joint) {
        self.end_word(at);
        self.redirection = None;
        let bytes = self.bytes.take();
        if !self.words.is_empty() || !self.outputs.is_empty() {
            self.enclose();
            let mut command = ShellCommand {
                words: std::mem::take(&mut self.words),
                outputs: std::mem::take(&mut self.outputs),
                joint,
                bytes: bytes.unwrap_or(at..at),
                is_nested: !self.enclosures.is_empty(),
                outermost: self.outermost,
                entry: self.entry,
                program: None,
            };
            command.find_program();
            self.commands.push(command);
        }
        if self.enclosures.is_empty() && joint != Joint::Pipe && self.outermost.take().is_some() {
            self.entry = Some(joint);
        }
    }

    /// What the keywords of a command open and close.
    fn enclose(&mut self) {
        for word in &self.words {
            match word.text.as_str() {
                "if" | "while" | "until" | "{" => self.enclosures.push(Enclosure::Keyword),
                "for" | "select" => {
                    self.enclosures.push(Enclosure::Keyword);
                    return;
                }
                "case" => {
                    self.enclosures.push(Enclosure::Case);
                    return;
                }
                "fi" | "done" | "esac" | "}" => {
                    self.is_particular |= self.enclosures.pop().is_none();
                }
                "then" | "else" | "elif" | "do" | "!" | "time" => {}
                _ => return,
            }
        }
    }
}

/// The bytes from a quote to its end.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' && quote != '\'' {
            is_escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The bytes from a bracket to the one that closes it.
fn enclosed(text: &str, open: char, close: char) -> usize {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at + c.len_utf8();
            }
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command as its program and arguments.
    fn read(script: &str) -> Vec<String> {
        let said = |command: &ShellCommand| {
            let arguments = command.arguments().iter().map(|word| word.text.as_str());
            [command.program()]
                .into_iter()
                .chain(arguments)
                .collect::<Vec<_>>()
                .join(" ")
        };
        commands(script).iter().map(said).collect()
    }

    #[test]
    fn commands_are_told_apart() {
        for (script, expected) in [
            ("a && b -c || d; e | f", &["a", "b -c", "d", "e", "f"][..]),
            ("A=1 B='x y' /usr/bin/apt-get install -y  x", &["apt-get install -y x"]),
            (
                "if [ -f x ]; then sudo rm x; else echo \"a && b\"; fi",
                &["[ -f x ]", "rm x", "echo a && b", "fi"],
            ),
            ("(cd /x && make) > /log 2>&1", &["cd /x", "make", ""]),
            ("curl \"$(echo 'a; b')\" | tar -xz", &["curl $(echo 'a; b')", "tar -xz"]),
            ("echo a # b && c", &["echo a"]),
            ("echo a\\ b \\\n c", &["echo a b c"]),
            ("x <<EOF > /y", &["x"]),
            ("a &\nwait", &["a", "wait"]),
            ("echo ${A:-x;y} `b;c`", &["echo ${A:-x;y} `b;c`"]),
            ("echo 'unended", &["echo unended"]),
            ("", &[]),
        ] {
            assert_eq!(read(script), expected, "{script}");
        }
    }

    #[test]
    fn it_is_known_where_another_command_can_be_put_before_one() {
        // Before the command `x`: what is there, and what comes before that.
        for (script, nested, before) in [
            ("x", false, Some(("x", None))),
            ("a && x", false, Some(("x", Some(Joint::And)))),
            ("a; A=1 x; b", false, Some(("A=1 x; b", Some(Joint::Sequence)))),
            ("a || x", false, Some(("x", Some(Joint::Or)))),
            ("yes | x && b", false, Some(("yes | x && b", None))),
            (
                "a && for p in b; do x; done",
                true,
                Some(("for p in b; do x; done", Some(Joint::And))),
            ),
            (
                "if a; then b; else x; fi && c",
                true,
                Some(("if a; then b; else x; fi && c", None)),
            ),
            ("a; (b; x) && c", true, Some(("(b; x) && c", Some(Joint::Sequence)))),
            ("(a) && x", false, Some(("x", Some(Joint::And)))),
            ("if a; then b; fi; x", false, Some(("x", Some(Joint::Sequence)))),
            (
                "{ a; }; case b in c) x;; esac",
                true,
                Some(("case b in c) x;; esac", Some(Joint::Sequence))),
            ),
            ("f() { x; }; f", true, None),
            ("a=(b); x", false, None),
            ("cat <<E > /f\nx y\nE\nx", false, Some(("x", Some(Joint::Sequence)))),
        ] {
            let found = commands(script);
            let command = found.iter().find(|command| command.program() == "x").unwrap();
            let place = command.outermost.map(|at| (&script[at..], command.entry));
            assert_eq!((command.is_nested, place), (nested, before), "{script}");
        }
    }

    #[test]
    fn a_plain_list_can_be_joined_to_others() {
        for script in ["a", "a && b | c", "A=1 sudo a -x 'b; c' > /y"] {
            assert!(is_plain_list(script), "{script}");
        }
        for script in [
            "a || b",
            "a; b",
            "a &",
            "(a)",
            "{ a; }",
            "if a; then b; fi",
            "! a",
            "exec a",
            "a # b",
            "a\nb",
            "f() { a; }",
            "a;",
            "",
            "eval a",
            "a && b ||",
        ] {
            assert!(!is_plain_list(script), "{script}");
        }
    }

    #[test]
    fn words_are_where_they_stand() {
        let script = "A=1 apt-get  install 'x y' && z";
        let found = commands(script);
        let words: Vec<&str> = found[0].words.iter().map(|word| &script[word.bytes.clone()]).collect();
        assert_eq!(words, ["A=1", "apt-get", "install", "'x y'"]);
        assert_eq!(&script[found[0].bytes.clone()], "A=1 apt-get  install 'x y'");
        assert_eq!(found[0].variables().collect::<Vec<_>>(), ["A=1"]);
        assert_eq!((found[0].joint, found[1].joint), (Joint::And, Joint::End));
        let script = "a > /x 2>> y && b";
        let found = commands(script);
        assert_eq!(found[0].outputs, ["/x", "y"]);
        assert_eq!(&script[found[0].bytes.clone()], "a > /x 2>> y");
    }
}
