//! The option grammar of docker's command line.
//!
//! docker parses its words with Go's `pflag`: `--name value`, `--name=value`, `-p80:80`, `-p 80:80`,
//! `-p=80:80`, clusters of switches (`-it`), switches with a value (`--init=false`, `-d=false`), and `--`
//! ends the options. This module is that grammar and nothing else: a command brings its own table of
//! [`Flag`]s, and gets back which were given, in order.
//!
//! ```
//! use dockerutils_core::docker::options::flags::{self, Flag, Positionals};
//!
//! static FLAGS: [Flag<()>; 2] = [Flag::switch("tty", ()).short('t'), Flag::valued("publish", ()).short('p')];
//!
//! let words = ["-tp80:80", "busybox", "-p"].map(String::from);
//! let parsed = flags::parse(&FLAGS, &words, Positionals::StopAtFirst)?;
//! assert_eq!(parsed.given[1].value, "80:80");
//! assert_eq!(parsed.positionals[1].word, "-p");
//! # Ok::<(), flags::FlagError>(())
//! ```

use std::ops::Range;

use thiserror::Error;

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// On when named; `=true` and `=false` may follow, but never a separate word.
    Switch,
    /// Needs a value: the rest of its word, or else the next word, whatever that looks like.
    Required,
}

/// One option of a command. `T` is what the command does with it: `()`, an identifier, a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag<T> {
    /// The long name, without its dashes.
    pub long: &'static str,
    /// The one-letter name.
    pub short: Option<char>,
    /// Whether it takes a value.
    pub value: Value,
    /// What the command does with it.
    pub action: T,
}

impl<T: Copy> Flag<T> {
    /// An option that is on or off.
    pub const fn switch(long: &'static str, action: T) -> Flag<T> {
        Flag {
            long,
            short: None,
            value: Value::Switch,
            action,
        }
    }

    /// An option that takes a value.
    pub const fn valued(long: &'static str, action: T) -> Flag<T> {
        Flag {
            long,
            short: None,
            value: Value::Required,
            action,
        }
    }

    /// The same option, with a one-letter name.
    pub const fn short(self, short: char) -> Flag<T> {
        Flag {
            short: Some(short),
            ..self
        }
    }
}

/// What to do with words that are not options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positionals {
    /// The first one ends the options, as in `docker run OPTIONS IMAGE COMMAND`.
    StopAtFirst,
    /// They may stand between the options, as in `docker build`.
    Interspersed,
    /// None is allowed.
    Refuse,
}

/// An option as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given<'f, T> {
    /// The entry of the command's table.
    pub flag: &'f Flag<T>,
    /// The name as the user wrote it: `-p` or `--publish`.
    pub written: String,
    /// The value; `true` for a switch that was only named.
    pub value: String,
    /// The words that name and value take; the switches of a cluster share one.
    pub words: Range<usize>,
}

impl<T> Given<'_, T> {
    /// Whether a switch was turned on.
    pub fn is_on(&self) -> bool {
        parse_bool(&self.value) == Some(true)
    }
}

/// A word that is not an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positional {
    /// Its place among the words.
    pub index: usize,
    pub word: String,
}

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'f, T> {
    /// The options in the order in which they were given.
    pub given: Vec<Given<'f, T>>,
    /// The other words. A `--` that ends the options is not among them.
    pub positionals: Vec<Positional>,
}

/// A command line that docker would refuse, too.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FlagError {
    /// No option has this name.
    #[error("unknown option {option}{}", did_you_mean(.nearest.as_deref()))]
    Unknown {
        /// The option as written.
        option: String,
        /// The most similar known option, if one is similar enough.
        nearest: Option<String>,
    },
    /// A word that begins like an option but can't be one, such as `---x` and `--=x`.
    #[error("`{word}` is not a well-formed option")]
    Malformed { word: String },
    /// The last word is an option that needs a value.
    #[error("option {option} needs a value")]
    MissingValue {
        /// The option as written.
        option: String,
    },
    /// A switch was given a value that is neither true nor false.
    #[error("option {option} is `{value}`, but must be true or false")]
    NotBoolean {
        /// The option as written.
        option: String,
        value: String,
    },
    /// A word that is not an option, where only options are allowed.
    #[error("`{word}` is not an option")]
    Positional { word: String },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!(" (did you mean {name}?)"))
        .unwrap_or_default()
}

/// Parses `words` by the table `flags`.
///
/// # Errors
///
/// The first word that docker would refuse.
pub fn parse<'f, T>(
    flags: &'f [Flag<T>],
    words: &[String],
    positionals: Positionals,
) -> Result<Parsed<'f, T>, FlagError> {
    let mut parser = Parser {
        flags,
        words,
        next: 0,
        parsed: Parsed {
            given: Vec::new(),
            positionals: Vec::new(),
        },
    };
    while let Some(word) = parser.take() {
        if word == "--" {
            parser.take_rest();
        } else if let Some(long) = word.strip_prefix("--") {
            parser.long(word, long)?;
        } else if let Some(cluster) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            parser.cluster(cluster)?;
        } else {
            parser.positional(word);
            if positionals == Positionals::StopAtFirst {
                parser.take_rest();
            }
        }
    }
    match parser.parsed.positionals.first() {
        Some(Positional { word, .. }) if positionals == Positionals::Refuse => {
            Err(FlagError::Positional { word: word.clone() })
        }
        _ => Ok(parser.parsed),
    }
}

struct Parser<'f, 'w, T> {
    flags: &'f [Flag<T>],
    words: &'w [String],
    next: usize,
    parsed: Parsed<'f, T>,
}

impl<'f, 'w, T> Parser<'f, 'w, T> {
    fn take(&mut self) -> Option<&'w str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn positional(&mut self, word: &str) {
        let index = self.next.saturating_sub(1);
        self.parsed.positionals.push(Positional {
            index,
            word: word.to_owned(),
        });
    }

    fn take_rest(&mut self) {
        while let Some(word) = self.take() {
            self.positional(word);
        }
    }

    fn long(&mut self, word: &str, rest: &str) -> Result<(), FlagError> {
        if rest.starts_with(['-', '=']) {
            return Err(FlagError::Malformed { word: word.to_owned() });
        }
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (rest, None),
        };
        let Some(flag) = self.flags.iter().find(|flag| flag.long == name) else {
            return Err(FlagError::Unknown {
                option: format!("--{name}"),
                nearest: nearest(self.flags, name),
            });
        };
        self.give(flag, format!("--{name}"), value)
    }

    fn cluster(&mut self, cluster: &str) -> Result<(), FlagError> {
        let mut rest = cluster.chars();
        while let Some(name) = rest.next() {
            let written = format!("-{name}");
            let Some(flag) = self.flags.iter().find(|flag| flag.short == Some(name)) else {
                return Err(FlagError::Unknown {
                    option: written,
                    nearest: None,
                });
            };
            let attached = match rest.as_str() {
                "" => None,
                // pflag reads `-e=` as the value `=`, not as an empty one.
                "=" if flag.value == Value::Required => Some("="),
                text => match text.strip_prefix('=').filter(|value| !value.is_empty()) {
                    Some(value) => Some(value),
                    None if flag.value == Value::Required => Some(text),
                    None => None,
                },
            };
            self.give(flag, written, attached)?;
            if attached.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn give(&mut self, flag: &'f Flag<T>, written: String, attached: Option<&str>) -> Result<(), FlagError> {
        let first = self.next.saturating_sub(1);
        let value = match (attached, flag.value) {
            (Some(value), _) => value.to_owned(),
            (None, Value::Switch) => "true".to_owned(),
            (None, Value::Required) => match self.take() {
                Some(value) => value.to_owned(),
                None => return Err(FlagError::MissingValue { option: written }),
            },
        };
        if flag.value == Value::Switch && parse_bool(&value).is_none() {
            return Err(FlagError::NotBoolean { option: written, value });
        }
        self.parsed.given.push(Given {
            flag,
            written,
            value,
            words: first..self.next,
        });
        Ok(())
    }
}

/// The known name that is most similar to a misspelt one, with its dashes.
fn nearest<T>(flags: &[Flag<T>], name: &str) -> Option<String> {
    flags
        .iter()
        .map(|flag| (strsim::damerau_levenshtein(flag.long, name), flag.long))
        // If more than a third of its letters differ, it is another word, not a typing error.
        .filter(|(distance, long)| *distance <= (long.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, long)| format!("--{long}"))
}

/// The words that Go's `strconv.ParseBool` knows.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FLAGS: [Flag<()>; 5] = [
        Flag::switch("detach", ()).short('d'),
        Flag::switch("interactive", ()).short('i'),
        Flag::switch("tty", ()).short('t'),
        Flag::valued("publish", ()).short('p'),
        Flag::valued("name", ()),
    ];

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    /// The options and the remaining words, as one line.
    fn read(line: &str, positionals: Positionals) -> Result<String, FlagError> {
        let parsed = parse(&FLAGS, &words(line), positionals)?;
        let given = parsed.given.iter().map(|g| format!("{}={}", g.flag.long, g.value));
        let rest = parsed.positionals.iter().map(|p| format!("{}:{}", p.index, p.word));
        Ok(given.chain(rest).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn values_stand_where_pflag_finds_them() {
        for line in ["-p80:80", "-p 80:80", "-p=80:80", "--publish 80:80", "--publish=80:80"] {
            assert_eq!(read(line, Positionals::Refuse).unwrap(), "publish=80:80", "{line}");
        }
        assert_eq!(read("-p -d", Positionals::Refuse).unwrap(), "publish=-d");
        assert_eq!(read("-p --", Positionals::Refuse).unwrap(), "publish=--");
        assert_eq!(read("-p=", Positionals::Refuse).unwrap(), "publish==");
        assert_eq!(read("--publish=", Positionals::Refuse).unwrap(), "publish=");
        assert_eq!(read("--name=a=b", Positionals::Refuse).unwrap(), "name=a=b");
    }

    #[test]
    fn switches_cluster_and_take_a_value_only_after_an_equals_sign() {
        assert_eq!(read("-it", Positionals::Refuse).unwrap(), "interactive=true tty=true");
        assert_eq!(
            read("-dit=false", Positionals::Refuse).unwrap(),
            "detach=true interactive=true tty=false"
        );
        assert_eq!(
            read("-itp80", Positionals::Refuse).unwrap(),
            "interactive=true tty=true publish=80"
        );
        assert_eq!(read("--tty=0", Positionals::Refuse).unwrap(), "tty=0");
        assert_eq!(
            read("--tty false", Positionals::Interspersed).unwrap(),
            "tty=true 1:false"
        );
        assert!(!parse(&FLAGS, &words("-t=F"), Positionals::Refuse).unwrap().given[0].is_on());
    }

    #[test]
    fn each_option_knows_its_words() {
        let parsed = parse(&FLAGS, &words("-it --name x -p=1"), Positionals::Refuse).unwrap();
        let spans: Vec<_> = parsed.given.iter().map(|g| g.words.clone()).collect();
        assert_eq!(spans, [0..1, 0..1, 1..3, 3..4]);
    }

    #[test]
    fn positionals_end_options_or_stand_between_them_or_are_refused() {
        assert_eq!(
            read("-d image -t", Positionals::StopAtFirst).unwrap(),
            "detach=true 1:image 2:-t"
        );
        assert_eq!(
            read("-d path -t", Positionals::Interspersed).unwrap(),
            "detach=true tty=true 1:path"
        );
        assert_eq!(read("-d -- -t", Positionals::Interspersed).unwrap(), "detach=true 2:-t");
        assert_eq!(
            read("-d - -t", Positionals::StopAtFirst).unwrap(),
            "detach=true 1:- 2:-t"
        );
        assert_eq!(read("-d --", Positionals::Refuse).unwrap(), "detach=true");
        assert_eq!(
            read("-d image", Positionals::Refuse),
            Err(FlagError::Positional {
                word: "image".to_owned()
            }),
        );
    }

    #[test]
    fn errors_name_the_option_as_written() {
        let message = |line| read(line, Positionals::Refuse).unwrap_err().to_string();
        assert_eq!(
            message("--pubish 80"),
            "unknown option --pubish (did you mean --publish?)"
        );
        assert_eq!(message("--zebra"), "unknown option --zebra");
        assert_eq!(message("-dx"), "unknown option -x");
        assert_eq!(message("-d="), "unknown option -=");
        assert_eq!(message("-p"), "option -p needs a value");
        assert_eq!(message("--name"), "option --name needs a value");
        assert_eq!(message("-d=maybe"), "option -d is `maybe`, but must be true or false");
        assert_eq!(message("--detach="), "option --detach is ``, but must be true or false");
        assert_eq!(message("---d"), "`---d` is not a well-formed option");
        assert_eq!(message("--=d"), "`--=d` is not a well-formed option");
    }
}
