//! Rules about stages.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::subject::Subject;

pub(super) const RULES: &[Rule] = &[Rule {
    name: "UnusedStage",
    severity: Severity::Note,
    is_of_buildkit: false,
    title: "A stage that nobody uses",
    why: "BuildKit ignores it, the classic builder builds it each time, and a reader wonders. A stage called `builder` is built and tagged by \
          build-image, and counts as used; so does one that `--target` in `build_args` names, and so do stages that stand side by side on one base.",
    bad: "FROM debian:13-slim AS tools\nRUN mkdir /srv/tools\nFROM debian:13-slim\nRUN mkdir /srv/app\n",
    good: "FROM debian:13-slim\nRUN mkdir /srv/app\n",
    check: unused,
}];

fn unused(subject: &Subject<'_>) -> Vec<Remark> {
    // A variable may name any of them.
    let text = subject.source.instructions.iter();
    let by_variable = |step: &&crate::docker::build::dockerfile::source::SourceInstruction| {
        let in_flag = step
            .flags
            .iter()
            .any(|flag| flag.contains("from=") && flag.contains('$'));
        let in_base = step.keyword == "from" && step.words().first().is_some_and(|(_, base)| base.starts_with('$'));
        in_flag || in_base
    };
    if text.clone().any(|step| by_variable(&step)) {
        return Vec::new();
    }
    let mut remarks = Vec::new();
    let mut used = subject.needed.clone();
    if subject.file.has_stage("builder") {
        used.extend(subject.file.stages_for(Some("builder")));
    }
    for index in (0..subject.file.stages.len()).filter(|index| is_side_by_side(subject, *index)) {
        used.extend(subject.file.stages_for(Some(&index.to_string())));
    }
    let by_number = |step: &crate::docker::build::dockerfile::source::SourceInstruction| {
        let mut named = step.flags.iter().filter_map(|flag| flag.split_once("from="));
        named.any(|(_, from)| from.starts_with(|c: char| c.is_ascii_digit()))
    };
    let has_numbers = text.clone().any(by_number) || subject.options.target.is_some();
    for (step, stage) in subject.steps("from").zip(&subject.file.stages) {
        let index = step.stage.unwrap_or_default();
        if used.contains(&index) {
            continue;
        }
        let name = stage.name.as_deref().map_or_else(|| format!("{index}"), str::to_owned);
        let end = subject.source.of_stage(index).last().map_or(step.end, |last| last.end);
        let remark = Remark::of(
            step,
            format!("stage {name} is used by nobody"),
            "time with the classic builder, and that of readers",
        );
        // Whoever gave it a name may build it by that.
        let is_nobodys = stage.name.is_none() && !has_numbers && !subject.has_comment_above(step);
        remarks.push(match is_nobodys {
            true => remark.replace(subject.source.start_of(step.line)..subject.source.start_of(end + 1), ""),
            false => remark.advise(format!(
                "delete lines {} to {end}, if no build names it with --target",
                step.line
            )),
        });
    }
    remarks
}

/// Whether a stage is one of several that are built from one: each with its own `--target`.
fn is_side_by_side(subject: &Subject<'_>, index: usize) -> bool {
    let stages = &subject.file.stages;
    let Some(own) = stages.get(index).filter(|stage| stage.name.is_some()) else {
        return false;
    };
    let below = subject.stages_below(index);
    let mut others = stages.iter().enumerate().filter(|(other, _)| *other != index);
    others.any(|(other, stage)| {
        let is_apart = !below.contains(&other) && !subject.stages_below(other).contains(&index);
        let is_of_stage = subject.file.base_of(index).is_some();
        // On an image from elsewhere there are also stages that have nothing to do with each other.
        let has_name = is_of_stage || stage.name.is_some();
        is_apart && has_name && own.base.is_some() && stage.base == own.base
    })
}
