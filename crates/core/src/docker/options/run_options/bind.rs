//! The directories of the engine's machine that options mount: finds them, and replaces them.

use std::path::Path;

use super::error::{GivenOption, OptionError};
use super::path::{clean, from_dot};
use super::table::FLAGS;
use crate::docker::options::csv;
use crate::docker::options::flags::{self, Positionals};

/// The same options, with other sources for what they mount from the engine's machine. `other` gets each source as an
/// absolute path; if it returns `None`, the words stay as they are.
///
/// # Errors
///
/// Words that are no options, and mounts that can't be read.
pub fn with_other_sources(
    words: &[String],
    working_dir: &Path,
    mut other: impl FnMut(&str) -> Option<String>,
) -> Result<Vec<String>, OptionError> {
    let parsed = flags::parse(FLAGS, words, Positionals::Refuse)?;
    let mut words = words.to_vec();
    for given in &parsed.given {
        let entry = GivenOption {
            option: given.written.clone(),
            value: given.value.clone(),
            on: false,
        };
        let mut replace = |source: &str| -> Result<Option<String>, OptionError> {
            if !source.starts_with(['/', '.']) {
                return Ok(None);
            }
            let source = from_dot(source, working_dir).map_err(|reason| entry.refuse(reason))?;
            Ok(other(&clean(&source)))
        };
        let value = match given.flag.long {
            "volume" => match given.value.split_once(':') {
                Some((source, rest)) => replace(source)?.map(|source| format!("{source}:{rest}")),
                None => None,
            },
            "mount" => mount(&entry, &mut replace)?,
            _ => None,
        };
        // The value is the end of the option's last word: all of it, or after `-v` or `--volume=`.
        if let Some(value) = value
            && let Some(word) = words.get_mut(given.words.end.saturating_sub(1))
            && let Some(before) = word.strip_suffix(&given.value)
        {
            *word = format!("{before}{value}");
        }
    }
    Ok(words)
}

/// `type=bind,source=...,target=...` with another source.
fn mount(
    entry: &GivenOption,
    replace: &mut impl FnMut(&str) -> Result<Option<String>, OptionError>,
) -> Result<Option<String>, OptionError> {
    let mut fields = entry.read(csv::record)?;
    let is_bind = fields.iter().any(|field| {
        field
            .split_once('=')
            .is_some_and(|(key, value)| key.eq_ignore_ascii_case("type") && value.eq_ignore_ascii_case("bind"))
    });
    if !is_bind {
        return Ok(None);
    }
    let mut changed = false;
    for field in &mut fields {
        let Some((key, source)) = field.split_once('=') else {
            continue;
        };
        if matches!(key.to_lowercase().as_str(), "source" | "src")
            && let Some(source) = replace(source)?
        {
            *field = format!("{key}={source}");
            changed = true;
        }
    }
    let quoted = fields.iter().map(|field| match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.clone(),
    });
    Ok(changed.then(|| quoted.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_replaced_wherever_they_stand() {
        let words = [
            "-it",
            "-v",
            "/p:/app",
            "-v/p/sub:/x:ro",
            "--volume=./sub/../data:/d",
            "-v",
            "named:/n",
            "-v",
            "/anonymous",
            "-itv",
            "/p:/y",
            "--mount",
            "type=bind,src=/p/a b,dst=/z,readonly",
            "--mount",
            "source=vol,target=/v",
            "--mount=type=bind,\"source=/p/c,d\",target=/q",
            "-v",
            "/etc:/e",
            "-e",
            "/p:/no",
        ]
        .map(String::from);
        let mut seen = Vec::new();
        let changed = with_other_sources(&words, Path::new("/p"), |source| {
            seen.push(source.to_owned());
            let rest = source.strip_prefix("/p")?;
            Some(format!("/w{rest}"))
        })
        .unwrap();
        let expected = [
            "-it",
            "-v",
            "/w:/app",
            "-v/w/sub:/x:ro",
            "--volume=/w/data:/d",
            "-v",
            "named:/n",
            "-v",
            "/anonymous",
            "-itv",
            "/w:/y",
            "--mount",
            "type=bind,src=/w/a b,dst=/z,readonly",
            "--mount",
            "source=vol,target=/v",
            "--mount=type=bind,\"source=/w/c,d\",target=/q",
            "-v",
            "/etc:/e",
            "-e",
            "/p:/no",
        ];
        assert_eq!(changed, expected);
        assert_eq!(seen, ["/p", "/p/sub", "/p/data", "/p", "/p/a b", "/p/c,d", "/etc"]);
    }
}
