//! All rules: one table, of which the documentation, the directives and the reports of code hosts are made.

use super::finding::{CheckFinding, Remark, Severity};
use super::subject::Subject;
use super::{
    base_images, cache_order, contexts, downloads, entrypoints, labels, package_caches, secrets, stages, syntax,
    system_packages, users,
};

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

/// What all rules find, by line.
pub(super) fn findings(subject: &Subject<'_>) -> Vec<CheckFinding> {
    let mut found: Vec<CheckFinding> = rules()
        .flat_map(|rule| {
            let remarks = (rule.check)(subject).into_iter();
            remarks.map(|remark| CheckFinding {
                rule: rule.name.to_owned(),
                severity: rule.severity,
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
