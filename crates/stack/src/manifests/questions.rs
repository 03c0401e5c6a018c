//! What an image is asked in a container of it: its packages, the commands of the spec, and the tags that it gives itself.

use std::collections::BTreeMap;
use std::time::Duration;

use dockerutils_core::docker::containers::exec::{ExecCommand, ExecOutput};
use dockerutils_core::docker::containers::standby::Standby;
use dockerutils_core::error::{Class, Error, Result};
use dockerutils_core::hint;
use dockerutils_core::naming::is_tag;
use dockerutils_core::output::{counted, one_line, size};
use dockerutils_core::shell;
use serde::{Deserialize, Serialize};

use super::packages::{MANAGERS, PackageLists, PackageManager};
use crate::spec::{InfoCommand, TagCommand};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The most bytes of what a command says that are kept.
const LONGEST_OUTPUT: usize = 200_000;
/// The most bytes of a list of packages.
const LONGEST_LIST: usize = 8 << 20;
/// The most bytes of a tag with what is around it.
const LONGEST_TAG: usize = 1_000;
/// The codes of a program that can't be run, or is not there.
const ABSENT: [i64; 2] = [126, 127];
/// Words that mean something to a shell only.
const OF_SHELL: [&str; 9] = ["|", "||", "&&", ";", ">", ">>", "<", "2>&1", "&"];

/// What a command in the image said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoOutput {
    /// Its name in the spec.
    pub name: String,
    pub description: String,
    pub command: String,
    /// Both outputs, stderr behind stdout. Not safe to show as it is.
    pub output: String,
    /// What is to be said about it: that it failed, or that the output is cut.
    pub note: Option<String>,
}

/// The words of a command. As in UCSD's scripts no shell is between (theirs have `bash -c '...'` where one is needed); only where a
/// word is an operator of a shell, it is run by one.
fn words(command: &str) -> Result<Vec<String>, shell::SplitError> {
    let words = shell::split(command)?;
    match words.iter().any(|word| OF_SHELL.contains(&word.as_str())) {
        true => Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()]),
        false => Ok(words),
    }
}

/// Runs a program. Inner errors are about the program, and no reason to give up: it took too long.
async fn run(container: &Standby, argv: &[&str], most: usize) -> Result<Result<ExecOutput>> {
    let command = ExecCommand {
        argv,
        user: None,
        most,
        limit: LIMIT,
    };
    match container.output(&command).await {
        Err(error) if matches!(error.class(), Class::Unreachable | Class::Interrupted) => Err(error),
        output => Ok(output),
    }
}

/// The packages of the image, by the tools that are in it.
///
/// # Errors
/// A lost connection.
pub(super) async fn packages(container: &Standby) -> Result<PackageLists> {
    let mut found = PackageLists::default();
    for manager in MANAGERS {
        let mut is_there = false;
        for argv in manager.commands() {
            let Ok(output) = run(container, argv, LONGEST_LIST).await? else {
                is_there = true;
                break;
            };
            match output.code {
                Some(0) => {
                    is_there = true;
                    if let Some(list) = manager.read(&String::from_utf8_lossy(&output.stdout)) {
                        found.lists.insert(manager, list);
                        break;
                    }
                }
                Some(code) if ABSENT.contains(&code) => {}
                // A Python without pip is no pip.
                Some(_) => is_there |= manager != PackageManager::Pip,
                None => is_there = true,
            }
        }
        if is_there && !found.lists.contains_key(&manager) {
            found.unknown.insert(manager);
        }
    }
    Ok(found.without_doubles())
}

/// What a command of the spec says.
///
/// # Errors
/// A lost connection.
pub(super) async fn info(container: &Standby, name: &str, command: &InfoCommand) -> Result<InfoOutput> {
    let mut said = InfoOutput {
        name: name.to_owned(),
        description: match command.description.trim() {
            "" => name.to_owned(),
            description => description.to_owned(),
        },
        command: command.command.clone(),
        ..InfoOutput::default()
    };
    let argv = match words(&command.command) {
        Ok(argv) if !argv.is_empty() => argv,
        Ok(_) => {
            said.note = Some("the command is empty".to_owned());
            return Ok(said);
        }
        Err(cause) => {
            said.note = Some(format!("not run: {cause}"));
            return Ok(said);
        }
    };
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    match run(container, &argv, LONGEST_OUTPUT).await? {
        Err(error) => said.note = Some(one_line(&error.to_string())),
        Ok(output) => {
            said.output = output.text().trim_end().to_owned();
            said.note = match output.code {
                Some(0) => None,
                Some(code) if ABSENT.contains(&code) => Some(format!(
                    "{} is not in the image",
                    argv.first().copied().unwrap_or_default()
                )),
                Some(code) => Some(format!("it ended with code {code}")),
                None => Some(format!("cut after {}", size(LONGEST_OUTPUT as u64))),
            };
        }
    }
    Ok(said)
}

/// The tags that commands in the image print, in the order of the spec.
///
/// # Errors
/// A command that fails, prints no tag, or the same as another; a lost connection.
pub(super) async fn tags(container: &Standby, image: &str, commands: &[TagCommand]) -> Result<Vec<String>> {
    let mut printed: BTreeMap<String, &str> = BTreeMap::new();
    let mut tags = Vec::new();
    for wanted in commands {
        let about =
            |what: String| Error::failed(format!("{image}: the command of tag {} {what}", one_line(&wanted.name)));
        let again = || hint!("try it: docker run --rm --entrypoint sh IMAGE -c {}", wanted.command);
        let argv = words(&wanted.command).map_err(|cause| about(format!("can't be read: {cause}")))?;
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        if argv.is_empty() {
            return Err(about("is empty".to_owned()).hint("command: CMD, below tags of the image in spec.yml"));
        }
        let output = run(container, &argv, LONGEST_TAG).await?;
        let output = output.map_err(|cause| about("gave no answer".to_owned()).because(cause))?;
        if output.code != Some(0) {
            let said = one_line(&output.text());
            let how = match output.code {
                Some(code) => format!("ended with code {code}: {said}"),
                None => format!("printed more than a tag: {}", super::markdown::cut(&said, 200)),
            };
            return Err(about(how).hint(again()));
        }
        let tag = legal(&String::from_utf8_lossy(&output.stdout)).map_err(|said| about(said).hint(again()))?;
        if let Some(other) = printed.insert(tag.clone(), &wanted.name) {
            return Err(about(format!("prints {tag}, as that of tag {} does", one_line(other)))
                .hint("take one of them out of spec.yml"));
        }
        tags.push(tag);
    }
    Ok(tags)
}

/// The tag in what a command printed; else what is wrong with it.
fn legal(printed: &str) -> Result<String, String> {
    let tag = printed.trim();
    if is_tag(tag) {
        return Ok(tag.to_owned());
    }
    Err(match tag.lines().count() {
        0 => "prints nothing".to_owned(),
        1 => format!("prints {:?}, which can't be a tag", one_line(tag)),
        lines => format!("prints {}, and not one tag", counted(lines, "line")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_and_a_shells_only_where_it_must_be() {
        let expected = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(words("pip list").unwrap(), expected(&["pip", "list"]));
        let theirs = r#"bash -c 'conda list | grep "cuda\|nccl"'"#;
        assert_eq!(
            words(theirs).unwrap(),
            expected(&["bash", "-c", r#"conda list | grep "cuda\|nccl""#])
        );
        assert_eq!(
            words("conda list | grep cuda").unwrap(),
            expected(&["/bin/sh", "-c", "conda list | grep cuda"])
        );
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn only_one_legal_tag_is_taken() {
        assert_eq!(legal(" python-3.13\n").unwrap(), "python-3.13");
        for (printed, said) in [
            ("\n", "prints nothing"),
            ("a b\n", "prints \"a b\", which can't be a tag"),
            ("-x", "prints \"-x\", which can't be a tag"),
            ("a\nb\n", "prints 2 lines, and not one tag"),
        ] {
            assert_eq!(legal(printed).unwrap_err(), said);
        }
        assert!(legal(&"x".repeat(129)).is_err());
    }
}
