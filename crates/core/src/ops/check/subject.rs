//! What rules look at: a Dockerfile with its places, its stages, the commands of its RUNs, and what the project knows.

use std::collections::BTreeSet;
use std::ops::Range;

use build_context::Patterns;
use build_context::weight::Heavy;

use super::shell_script::{self, Joint, ShellCommand};
use super::users;
use crate::docker::build::dockerfile::Dockerfile;
use crate::docker::build::dockerfile::source::{DockerfileSource, SourceInstruction};
use crate::docker::options::build_options::BuildOptions;
use crate::naming::canonical;
use crate::ops::build::OtherTag;

/// What the project knows about an image, beside its Dockerfile.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Images of the project that the Dockerfile names by another tag: the line, and the sentence about it, with the tag
    /// that is right.
    pub(super) other_tags: Vec<OtherTag>,
    /// Whether the image is published: it has a repository in a registry.
    pub(super) is_published: bool,
    /// The patterns of `.dockerignore`, if there is such a file.
    pub(super) ignored: Option<Patterns>,
    /// The build context, if it was looked at.
    pub(super) context: ContextFacts,
    /// Project images that run as another user than root.
    pub(super) with_user: BTreeSet<String>,
    /// The image types of the project as they are named, in their canonical form.
    pub(super) made: BTreeSet<String>,
}

/// What is in a build context.
#[derive(Debug, Default)]
pub(super) struct ContextFacts {
    /// Bytes of the files that are not ignored.
    pub(super) size: u64,
    /// The heaviest of them.
    pub(super) heaviest: Vec<Heavy>,
    /// Files that look like secrets and are not ignored, relative to the context.
    pub(super) secrets: Vec<String>,
    /// Whether the history of a repository is there, and not ignored.
    pub(super) has_git: bool,
}

/// A RUN, with its commands.
#[derive(Debug)]
pub(super) struct RunStep<'a> {
    pub(super) step: &'a SourceInstruction,
    /// Their words stand in the file at the bytes that they say.
    pub(super) commands: Vec<ShellCommand>,
    /// Whether the commands are in here-documents.
    pub(super) is_heredoc: bool,
    /// The character that continues lines.
    escape: char,
}

/// Shells whose grammar is that of `sh`.
const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "ksh", "zsh"];

/// Whether a program is such a shell.
pub(super) fn is_shell(program: &str) -> bool {
    SHELLS.contains(&program.rsplit('/').next().unwrap_or(program))
}

/// Everything that a rule sees.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) source: &'a DockerfileSource<'a>,
    pub(super) file: &'a Dockerfile,
    pub(super) facts: &'a Facts,
    pub(super) options: &'a BuildOptions,
    pub(super) runs: Vec<RunStep<'a>>,
    /// The stages whose layers the image has.
    pub(super) chain: BTreeSet<usize>,
    /// The stages that are built for it.
    pub(super) needed: BTreeSet<usize>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        source: &'a DockerfileSource<'a>,
        file: &'a Dockerfile,
        facts: &'a Facts,
        options: &'a BuildOptions,
    ) -> Self {
        let steps = source.instructions.iter().filter(|step| step.keyword == "run");
        let target = options.target.as_deref();
        Self {
            source,
            file,
            facts,
            options,
            runs: steps
                .map(|step| RunStep::of(source, step, has_shell(source, file, step)))
                .collect(),
            chain: file.chain_for(target),
            needed: file.stages_for(target),
        }
    }

    /// The instructions with this keyword, in lower case.
    pub(super) fn steps(&self, keyword: &'static str) -> impl Iterator<Item = &'a SourceInstruction> + use<'a> {
        self.source
            .instructions
            .iter()
            .filter(move |step| step.keyword == keyword)
    }

    /// Whether the layers of the stage of this instruction are in the image.
    pub(super) fn is_in_image(&self, step: &SourceInstruction) -> bool {
        step.stage.is_some_and(|stage| self.chain.contains(&stage))
    }

    /// The instructions of the stages that the image is made of, in their order.
    pub(super) fn image_steps(&self) -> impl DoubleEndedIterator<Item = &'a SourceInstruction> {
        let all = self.source.instructions.iter();
        all.filter(|step| step.keyword != "from" && self.is_in_image(step))
    }

    /// The stages that a stage starts from, and itself.
    pub(super) fn stages_below(&self, stage: usize) -> Vec<usize> {
        below(self.file, stage)
    }

    /// Whether a variable is set where an instruction stands, by `ENV` or `ARG` of its stage or of those below.
    pub(super) fn sets_variable(&self, before: &SourceInstruction, name: &str) -> bool {
        let stages = before.stage.map(|stage| self.stages_below(stage)).unwrap_or_default();
        let earlier = self.source.instructions.iter().filter(|step| step.line < before.line);
        let mut setting = earlier.filter(|step| {
            matches!(step.keyword.as_str(), "env" | "arg") && step.stage.is_some_and(|stage| stages.contains(&stage))
        });
        setting.any(|step| step.pairs(self.source.escape).iter().any(|(key, _)| key == name))
    }

    /// Whether a stage is one of Windows, or of another shell than Linux's: its base, its SHELL or the escape says so.
    pub(super) fn is_windows(&self, stage: usize) -> bool {
        is_windows(self.source, self.file, stage)
    }

    /// Who runs a step, if USER of its stage or of one below says: a name or number, without the group.
    pub(super) fn user(&self, at: &SourceInstruction) -> Option<&'a str> {
        let below = at.stage.map(|stage| self.stages_below(stage)).unwrap_or_default();
        let mut earlier = self.source.instructions.iter().rev().filter(|step| {
            step.line < at.line && step.keyword == "user" && step.stage.is_some_and(|stage| below.contains(&stage))
        });
        let user = earlier.next()?.arguments().trim_matches(['"', '\'']);
        user.split(':').next()
    }

    /// Whether root runs a step whose home is `/root`, as far as can be told.
    pub(super) fn is_of_root(&self, at: &SourceInstruction) -> bool {
        let is_root = match self.user(at) {
            Some(user) => matches!(user, "root" | "0"),
            None => {
                let below = at.stage.map(|stage| self.stages_below(stage)).unwrap_or_default();
                let lowest = below.last().and_then(|stage| self.file.stages.get(*stage));
                let base = lowest.and_then(|stage| stage.base.as_deref()).unwrap_or_default();
                !users::WITH_USER.iter().any(|part| base.contains(part))
                    && !self.facts.with_user.contains(&canonical(base))
            }
        };
        is_root && !self.sets_variable(at, "HOME")
    }

    /// The directory that an instruction works in, if WORKDIRs of its stage say.
    pub(super) fn directory(&self, at: &SourceInstruction) -> Option<String> {
        let stage = at.stage?;
        let mut directory: Option<String> = None;
        for step in self.source.of_stage(stage) {
            if step.line >= at.line {
                break;
            }
            if step.keyword == "workdir" {
                let path = step.arguments().trim_matches(['"', '\'']);
                directory = match directory {
                    _ if path.contains('$') => None,
                    _ if path.starts_with('/') => Some(path.to_owned()),
                    Some(before) => Some(format!("{}/{path}", before.trim_end_matches('/'))),
                    None => None,
                };
            }
        }
        directory
    }

    /// The bytes of an instruction's lines, with the last line break.
    pub(super) fn whole(&self, step: &SourceInstruction) -> Range<usize> {
        self.source.start_of(step.line)..self.source.start_of(step.end + 1)
    }

    /// The first of the comment lines directly above an instruction, or its own first line if there are none.
    pub(super) fn line_with_comment(&self, step: &SourceInstruction) -> usize {
        let before = self.source.instructions.iter().filter(|other| other.line < step.line);
        let taken = before.map(|other| other.end).max().unwrap_or(0);
        let mut first = step.line;
        while first > taken + 1 {
            let text = self.source.lines(first - 1, first - 1).trim_start();
            let is_directive = ["syntax=", "escape=", "check="]
                .iter()
                .any(|name| text.trim_start_matches(['#', ' ']).starts_with(name));
            if !text.starts_with('#') || is_directive {
                break;
            }
            first -= 1;
        }
        first
    }

    /// Whether a comment stands directly above an instruction.
    pub(super) fn has_comment_above(&self, step: &SourceInstruction) -> bool {
        self.line_with_comment(step) < step.line
    }

    /// The bytes that go where an instruction goes: its lines, and the comment above them. `None` if that comment may also be about
    /// what comes after it.
    pub(super) fn movable(&self, step: &SourceInstruction) -> Option<Range<usize>> {
        let first = self.line_with_comment(step);
        let end = self.source.start_of(step.end + 1);
        let next = match end < self.source.text.len() {
            true => self.source.lines(step.end + 1, step.end + 1).trim(),
            false => "",
        };
        let is_alone = first == step.line || next.is_empty() || next.starts_with('#');
        is_alone.then(|| self.source.start_of(first)..end)
    }

    /// The text of an instruction's lines, without the last line break.
    pub(super) fn written(&self, step: &SourceInstruction) -> &'a str {
        self.source.lines(step.line, step.end).trim_end_matches(['\n', '\r'])
    }
}

fn below(file: &Dockerfile, stage: usize) -> Vec<usize> {
    let mut below = vec![stage];
    let mut at = stage;
    while let Some(base) = file.base_of(at).filter(|base| *base < at) {
        below.push(base);
        at = base;
    }
    below
}

fn is_windows(source: &DockerfileSource<'_>, file: &Dockerfile, stage: usize) -> bool {
    const BASES: [&str; 5] = [
        "windows",
        "nanoserver",
        "servercore",
        "dotnet/framework",
        "microsoft/iis",
    ];
    const SHELLS: [&str; 3] = ["powershell", "pwsh", "cmd"];
    let below = below(file, stage);
    let lowest = below.last().and_then(|stage| file.stages.get(*stage));
    let base = lowest.and_then(|stage| stage.base.as_deref()).unwrap_or_default();
    let base = base.to_lowercase();
    let is_shell = |step: &SourceInstruction| {
        let first = step.json.as_ref().and_then(|words| words.first());
        let program = first.map(|word| word.to_lowercase()).unwrap_or_default();
        let program = program.rsplit(['/', '\\']).next().unwrap_or_default();
        step.keyword == "shell" && SHELLS.contains(&program.trim_end_matches(".exe"))
    };
    source.escape == '`'
        || BASES.iter().any(|part| base.contains(part))
        || below.iter().any(|stage| source.of_stage(*stage).any(is_shell))
}

/// Whether the shell of a RUN is one whose grammar is known.
fn has_shell(source: &DockerfileSource<'_>, file: &Dockerfile, run: &SourceInstruction) -> bool {
    let Some(stage) = run.stage else { return true };
    let stages = below(file, stage);
    let mut shells = source.instructions.iter().rev().filter(|step| step.keyword == "shell");
    let chosen = shells.find(|step| step.line < run.line && step.stage.is_some_and(|stage| stages.contains(&stage)));
    match chosen.and_then(|step| step.json.as_ref()) {
        Some(words) => words.iter().any(|word| is_shell(word)),
        None => !is_windows(source, file, stage),
    }
}

impl<'a> RunStep<'a> {
    fn of(source: &DockerfileSource<'_>, step: &'a SourceInstruction, has_shell: bool) -> Self {
        let escape = source.escape;
        if !has_shell && step.json.is_none() {
            return Self {
                step,
                commands: Vec::new(),
                is_heredoc: false,
                escape,
            };
        }
        if let Some(words) = &step.json {
            // Only what it does can be seen; where its words stand does not matter.
            let line = words.iter().map(|word| crate::shell::quote(word)).collect::<Vec<_>>();
            let mut commands = shell_script::commands(&line.join(" "));
            let all = step.span(step.rest..step.text.len());
            for command in &mut commands {
                command.bytes = all.clone();
                command.outermost = None;
                for word in &mut command.words {
                    word.bytes = all.clone();
                }
            }
            return Self {
                step,
                commands,
                is_heredoc: false,
                escape,
            };
        }
        let mut commands = shell_script::commands(step.arguments());
        for command in &mut commands {
            let place = |bytes: &Range<usize>| step.span(step.rest + bytes.start..step.rest + bytes.end);
            command.bytes = place(&command.bytes);
            command.outermost = command.outermost.map(|at| step.place(step.rest + at));
            for word in &mut command.words {
                word.bytes = place(&word.bytes);
            }
        }
        // A here-document is a script of its own, where no other program reads it.
        let is_script = match commands.as_slice() {
            [] => true,
            [one] => is_shell(one.program()) && one.outputs.is_empty(),
            _ => false,
        };
        let is_heredoc = is_script && !step.bodies.is_empty();
        if is_heredoc {
            commands.clear();
            for body in &step.bodies {
                let script = source.text.get(body.clone()).unwrap_or_default();
                // The first line may name another interpreter.
                let names = script.strip_prefix("#!").and_then(|rest| rest.lines().next());
                if names.is_some_and(|line| !line.split_whitespace().any(is_shell)) {
                    continue;
                }
                let mut inner = shell_script::commands(script);
                for command in &mut inner {
                    let place = |bytes: &Range<usize>| body.start + bytes.start..body.start + bytes.end;
                    command.bytes = place(&command.bytes);
                    command.outermost = command.outermost.map(|at| body.start + at);
                    for word in &mut command.words {
                        word.bytes = place(&word.bytes);
                    }
                }
                commands.extend(inner);
            }
        }
        Self {
            step,
            commands,
            is_heredoc,
            escape,
        }
    }

    /// Whether its text can be changed word by word: it is not a JSON list.
    pub(super) const fn is_shell(&self) -> bool {
        self.step.json.is_none()
    }

    /// The commands of this program, by their position.
    pub(super) fn calls(&self, programs: &'static [&'static str]) -> impl Iterator<Item = (usize, &ShellCommand)> {
        let all = self.commands.iter().enumerate();
        all.filter(move |(_, command)| programs.contains(&command.program()))
    }

    /// The targets of its mounts of a type.
    pub(super) fn mounts(&self, kind: &str) -> Vec<String> {
        let mounts = self
            .step
            .flags_named("mount")
            .filter(|mount| mount.split(',').any(|part| part == format!("type={kind}")));
        let targets = mounts.flat_map(|mount| {
            let parts = mount.split(',').filter_map(|part| part.split_once('='));
            parts.filter(|(key, _)| matches!(*key, "target" | "dst" | "destination"))
        });
        targets
            .map(|(_, target)| target.trim_end_matches('/').to_owned())
            .collect()
    }

    /// The end of its script, where `&& command` can be added; `None` if it would be part of something else there.
    pub(super) fn end(&self) -> Option<usize> {
        if self.is_heredoc {
            let last = self.commands.last().filter(|last| !last.is_nested);
            return last
                .filter(|last| last.joint == Joint::End || last.joint == Joint::Sequence)
                .map(|last| last.bytes.end);
        }
        let script = self.step.arguments();
        let is_open = script.contains('#') || script.ends_with([';', '&', '|']);
        let end = self.step.rest + script.len();
        (!is_open && !script.is_empty()).then(|| self.step.span(end - 1..end).end)
    }

    /// What adds a command at [`RunStep::end`]. With `&&`, it does not hide that what comes before failed.
    pub(super) fn addition(&self, command: &str) -> String {
        let has_lines = self.step.line != self.step.end && self.step.bodies.is_empty();
        match has_lines {
            true => format!(" {}\n    && {command}", self.escape),
            false => format!(" && {command}"),
        }
    }
}
