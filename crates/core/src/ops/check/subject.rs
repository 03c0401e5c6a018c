//! What rules look at: a Dockerfile with its places, its stages, the commands of its RUNs, and what the project knows.

use std::collections::{BTreeMap, BTreeSet};
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

/// So many variables are compared with a name that is not set.
const VARIABLES: usize = 200;

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
    /// Lines of RUNs whose scripts are too long to be looked at.
    pub(super) unread: Vec<usize>,
    /// Whether something is fetched by SSH.
    pub(super) has_ssh: bool,
    stages: Lineage,
    /// The instructions USER of each stage.
    users: Vec<Vec<&'a SourceInstruction>>,
    /// The variables that ENV and ARG set: the stages, and the first line in each.
    variables: BTreeMap<String, BTreeMap<usize, usize>>,
    /// The lines on which they are set, with their stages, in the order of the file.
    settings: Vec<(usize, usize, String)>,
    /// Those of them that ARG declares.
    arguments: BTreeMap<String, BTreeMap<usize, usize>>,
}

/// The bytes of a RUN beyond which its script is not looked at. The longest ones of images that many people use have some ten
/// thousand.
pub(super) const LONGEST_SCRIPT: usize = 32 * 1024;

/// Which stage starts from which, and what they have from there.
#[derive(Debug)]
struct Lineage {
    bases: Vec<Option<usize>>,
    are_windows: Vec<bool>,
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
        let stages = Lineage::of(source, file);
        let shells = by_stage(source, file, "shell");
        let mut unread = Vec::new();
        let mut variables: BTreeMap<String, BTreeMap<usize, usize>> = BTreeMap::new();
        let mut arguments = variables.clone();
        let mut settings = Vec::new();
        for step in &source.instructions {
            let Some(stage) = step.stage.filter(|_| matches!(step.keyword.as_str(), "env" | "arg")) else {
                continue;
            };
            for (name, _) in step.pairs(source.escape) {
                if step.keyword == "arg" {
                    let of_name = arguments.entry(name.clone()).or_default();
                    of_name.entry(stage).or_insert(step.line);
                }
                settings.push((step.line, stage, name.clone()));
                variables.entry(name).or_default().entry(stage).or_insert(step.line);
            }
        }
        let runs = steps
            .map(|step| {
                let is_read = script_size(step) <= LONGEST_SCRIPT;
                if !is_read {
                    unread.push(step.line);
                }
                RunStep::of(source, step, is_read, has_shell(&stages, &shells, step))
            })
            .collect();
        let text = source.text;
        Self {
            source,
            file,
            facts,
            options,
            runs,
            chain: file.chain_for(target),
            needed: file.stages_for(target),
            unread,
            has_ssh: text.contains("git@") || text.contains("ssh://") || text.contains("type=ssh"),
            stages,
            users: by_stage(source, file, "user"),
            variables,
            settings,
            arguments,
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
        self.stages.below(stage).collect()
    }

    /// The RUN that an instruction is.
    pub(super) fn run(&self, step: &SourceInstruction) -> Option<&RunStep<'a>> {
        let at = self.runs.binary_search_by_key(&step.line, |run| run.step.line).ok()?;
        self.runs.get(at)
    }

    /// Whether a variable is set where an instruction stands, by `ENV` or `ARG` of its stage or of those below.
    pub(super) fn sets_variable(&self, before: &SourceInstruction, name: &str) -> bool {
        self.is_among(&self.variables, before, name)
    }

    /// The same, by `ARG` alone.
    pub(super) fn declares(&self, before: &SourceInstruction, name: &str) -> bool {
        self.is_among(&self.arguments, before, name)
    }

    fn is_among(
        &self,
        variables: &BTreeMap<String, BTreeMap<usize, usize>>,
        before: &SourceInstruction,
        name: &str,
    ) -> bool {
        let (Some(stage), Some(set)) = (before.stage, variables.get(name)) else {
            return false;
        };
        let mut stages = self.stages.below(stage);
        stages.any(|stage| set.get(&stage).is_some_and(|line| *line < before.line))
    }

    /// The variables that are set where an instruction stands, as for [`Subject::sets_variable`]; the first ones, if there are
    /// very many.
    pub(super) fn variables(&self, before: &SourceInstruction) -> Vec<&str> {
        let below: BTreeSet<usize> = before
            .stage
            .into_iter()
            .flat_map(|stage| self.stages.below(stage))
            .collect();
        let earlier = self.settings.iter().take_while(|(line, _, _)| *line < before.line);
        let set = earlier.filter(|(_, stage, _)| below.contains(stage));
        set.map(|(_, _, name)| name.as_str()).take(VARIABLES).collect()
    }

    /// Whether a stage is one of Windows, or of another shell than Linux's: its base, its SHELL or the escape says so.
    pub(super) fn is_windows(&self, stage: usize) -> bool {
        self.stages.is_windows(stage)
    }

    /// Who runs a step, if USER of its stage or of one below says: a name or number, without the group.
    pub(super) fn user(&self, at: &SourceInstruction) -> Option<&'a str> {
        let user = self.stages.last(&self.users, at)?;
        let user = user.arguments().trim_matches(['"', '\'']);
        user.split(':').next()
    }

    /// Whether root runs a step whose home is `/root`, as far as can be told.
    pub(super) fn is_of_root(&self, at: &SourceInstruction) -> bool {
        let is_root = match self.user(at) {
            Some(user) => matches!(user, "root" | "0"),
            None => {
                let lowest = at.stage.and_then(|stage| self.stages.below(stage).last());
                let lowest = lowest.and_then(|stage| self.file.stages.get(stage));
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

/// The instructions with this keyword of each stage.
fn by_stage<'a>(source: &'a DockerfileSource<'_>, file: &Dockerfile, keyword: &str) -> Vec<Vec<&'a SourceInstruction>> {
    let mut found = vec![Vec::new(); file.stages.len()];
    for step in source.instructions.iter().filter(|step| step.keyword == keyword) {
        if let Some(steps) = step.stage.and_then(|stage| found.get_mut(stage)) {
            steps.push(step);
        }
    }
    found
}

impl Lineage {
    fn of(source: &DockerfileSource<'_>, file: &Dockerfile) -> Self {
        const BASES: [&str; 5] = [
            "windows",
            "nanoserver",
            "servercore",
            "dotnet/framework",
            "microsoft/iis",
        ];
        const SHELLS: [&str; 3] = ["powershell", "pwsh", "cmd"];
        let is_shell = |step: &&SourceInstruction| {
            let first = step.json.as_ref().and_then(|words| words.first());
            let program = first.map(|word| word.to_lowercase()).unwrap_or_default();
            let program = program.rsplit(['/', '\\']).next().unwrap_or_default();
            SHELLS.contains(&program.trim_end_matches(".exe"))
        };
        let shells = by_stage(source, file, "shell");
        let mut lineage = Self {
            bases: Vec::new(),
            are_windows: Vec::new(),
        };
        for (index, stage) in file.stages.iter().enumerate() {
            let below = file.base_of(index).filter(|base| *base < index);
            let has_base = match below {
                Some(below) => lineage.is_windows(below),
                None => {
                    let base = stage.base.as_deref().unwrap_or_default().to_lowercase();
                    BASES.iter().any(|part| base.contains(part))
                }
            };
            let has_shell = shells.get(index).is_some_and(|steps| steps.iter().any(is_shell));
            lineage.bases.push(below);
            lineage.are_windows.push(source.escape == '`' || has_base || has_shell);
        }
        lineage
    }

    fn is_windows(&self, stage: usize) -> bool {
        self.are_windows.get(stage).copied().unwrap_or(false)
    }

    /// A stage, and those that it starts from.
    fn below(&self, stage: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(stage), |at| self.bases.get(*at).copied().flatten())
    }

    /// The last of these instructions, by stage, before another one: of its stage or of those below.
    fn last<'a>(&self, of: &[Vec<&'a SourceInstruction>], at: &SourceInstruction) -> Option<&'a SourceInstruction> {
        self.below(at.stage?).find_map(|stage| {
            let steps = of.get(stage)?;
            let after = steps.partition_point(|step| step.line < at.line);
            steps.get(after.checked_sub(1)?).copied()
        })
    }
}

/// Whether the shell of a RUN is one whose grammar is known.
fn has_shell(stages: &Lineage, shells: &[Vec<&SourceInstruction>], run: &SourceInstruction) -> bool {
    let Some(stage) = run.stage else { return true };
    match stages.last(shells, run).and_then(|step| step.json.as_ref()) {
        Some(words) => words.iter().any(|word| is_shell(word)),
        None => !stages.is_windows(stage),
    }
}

/// The bytes of a RUN that are read as a script, or several.
fn script_size(step: &SourceInstruction) -> usize {
    step.text.len() + step.bodies.iter().map(Range::len).sum::<usize>()
}

impl<'a> RunStep<'a> {
    fn of(source: &DockerfileSource<'_>, step: &'a SourceInstruction, is_read: bool, has_shell: bool) -> Self {
        let escape = source.escape;
        if !is_read || (!has_shell && step.json.is_none()) {
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
