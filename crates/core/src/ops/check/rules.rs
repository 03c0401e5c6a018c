//! All rules: one table, of which the documentation, the directives and the reports of code hosts are made.

use super::finding::{CheckFinding, Remark, Severity};
use super::subject::Subject;
use super::{
    base_images, cache_order, contexts, downloads, entrypoints, labels, package_caches, secrets, stages, syntax,
    system_packages, users,
};
use crate::docker::build::dockerfile::source::SourceFault;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// By which it is silenced; BuildKit's own name, if it is BuildKit's rule.
    pub name: &'static str,
    /// How much its findings matter.
    pub severity: Severity,
    /// Whether BuildKit has the rule, too, with this name and these words.
    pub is_of_buildkit: bool,
    /// In a few words.
    pub title: &'static str,
    /// Why it is a rule.
    pub why: &'static str,
    /// A Dockerfile that breaks it.
    pub bad: &'static str,
    /// The same, with the advice heeded.
    pub good: &'static str,
    pub(super) check: fn(&Subject<'_>) -> Vec<Remark>,
}

/// The rules of each family, in the order of the documentation.
const FAMILIES: [&[Rule]; 12] = [
    base_images::RULES,
    system_packages::RULES,
    package_caches::RULES,
    downloads::RULES,
    cache_order::RULES,
    secrets::RULES,
    users::RULES,
    entrypoints::RULES,
    stages::RULES,
    contexts::RULES,
    labels::RULES,
    syntax::RULES,
];

/// BuildKit's rules that only its engine can know, or that it does not apply unless asked to.
pub(super) const ONLY_OF_BUILDKIT: [&str; 2] = ["InvalidBaseImagePlatform", "InvalidDefinitionDescription"];

/// All rules.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    FAMILIES.into_iter().flatten()
}

/// The rule of this name.
pub(super) fn rule(name: &str) -> Option<&'static Rule> {
    rules().find(|rule| rule.name == name)
}

/// The families about programs, users and shells of Linux, and rules of other families that are, too.
const OF_LINUX: [&[Rule]; 4] = [
    system_packages::RULES,
    package_caches::RULES,
    users::RULES,
    entrypoints::RULES,
];
const ALSO_OF_LINUX: [&str; 3] = ["RunsCouldBeOne", "DownloadWithoutChecksum", "SourcesBeforeDependencies"];

/// A remark as it is said where its stage is one of Windows: what is true of Linux alone is left out there, and so are lines in
/// the words of its shells.
fn as_for_its_system(subject: &Subject<'_>, rule: &Rule, mut remark: Remark) -> Option<Remark> {
    let source = subject.source;
    let step = source.instructions.get(source.first_until(remark.lines.0));
    let stage = step
        .filter(|step| step.line == remark.lines.0)
        .and_then(|step| step.stage);
    if !stage.is_some_and(|stage| subject.is_windows(stage)) {
        return Some(remark);
    }
    let is_of_linux = ALSO_OF_LINUX.contains(&rule.name)
        || OF_LINUX
            .iter()
            .any(|family| family.iter().any(|other| other.name == rule.name));
    if is_of_linux && !rule.is_of_buildkit {
        return None;
    }
    let is_secret = secrets::RULES.iter().any(|other| other.name == rule.name);
    if (is_of_linux || is_secret) && !remark.edits.is_empty() {
        remark.edits.clear();
        remark.advice = Some(match is_secret {
            true => "do the step that needs it outside of the build, and COPY its result: builds for Windows may have no secret mounts".to_owned(),
            false => "write a JSON list: [\"program.exe\", \"argument\"]".to_owned(),
        });
    }
    Some(remark)
}

/// What all rules find, by line.
pub(super) fn findings(subject: &Subject<'_>) -> Vec<CheckFinding> {
    let mut found: Vec<CheckFinding> = rules()
        .flat_map(|rule| {
            let remarks = (rule.check)(subject).into_iter();
            let remarks = remarks.filter_map(move |remark| as_for_its_system(subject, rule, remark));
            remarks.map(|remark| CheckFinding {
                rule: rule.name.to_owned(),
                severity: remark.severity.unwrap_or(rule.severity),
                lines: remark.lines,
                message: remark.message,
                costs: remark.costs,
                advice: remark.advice,
                is_of_engine: false,
                edits: remark.edits,
            })
        })
        .collect();
    found.sort_by_key(|finding| finding.lines.0);
    found
}

/// What a builder refuses although each instruction has the right form: names of bases, and variables.
pub(super) fn refused(subject: &Subject<'_>) -> Option<SourceFault> {
    let found = [base_images::refused(subject), syntax::refused(subject)];
    let (line, message) = found.into_iter().flatten().min()?;
    Some(SourceFault { line, message })
}

/// The part of `docs/checks.md` about the rules, in Markdown.
pub fn page() -> String {
    let mut page = String::new();
    for rule in rules() {
        let whose = if rule.is_of_buildkit {
            "BuildKit's rule, in its words"
        } else {
            "a rule of dockerutils"
        };
        page.push_str(&format!(
            "\n### {}\n\n{} ({}; {whose}).\n\n{}\n\nNot:\n\n```dockerfile\n{}```\n\nBut:\n\n```dockerfile\n{}```\n",
            rule.name,
            rule.title,
            rule.severity.word(),
            rule.why,
            rule.bad,
            rule.good
        ));
    }
    page
}
