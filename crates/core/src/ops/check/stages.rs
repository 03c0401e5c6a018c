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
          build-image, and counts as used; so does one that `--target` in `build_args` names.",
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
    let needed_by_builder = subject.file.stages_for(Some("builder"));
    for (step, stage) in subject.steps("from").zip(&subject.file.stages) {
        let index = step.stage.unwrap_or_default();
        let is_built = subject.file.has_stage("builder") && needed_by_builder.contains(&index);
        if subject.needed.contains(&index) || is_built {
            continue;
        }
        let name = stage.name.as_deref().map_or_else(|| format!("{index}"), str::to_owned);
        let end = subject.source.of_stage(index).last().map_or(step.end, |last| last.end);
        let mut remark = Remark::of(
            step,
            format!("stage {name} is used by nobody"),
            "time with the classic builder, and that of readers",
        );
        remark = remark.replace(subject.source.start_of(step.line)..subject.source.start_of(end + 1), "");
        remarks.push(remark);
    }
    remarks
}
