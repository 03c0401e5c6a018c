//! Advice about Dockerfiles before they are built: what breaks, costs or leaks, each with the lines to write instead.
//!
//! A Dockerfile is read once, with the place of each word; rules look at it, one table of them ([`rules`]), in families. Nothing
//! here needs an engine: BuildKit's own rules are among ours, with its names and words. Only if it is asked for does the engine's
//! BuildKit say what it finds, which then stands in place of what we found by the same rules.

mod apt_lists;
mod base_images;
mod cache_order;
mod composition;
mod contexts;
mod downloads;
mod entrypoints;
mod facts;
mod finding;
mod labels;
mod package_caches;
mod report;
pub mod rules;
mod sarif;
mod secrets;
mod shell_script;
mod silenced;
mod spoken;
mod stages;
mod subject;
mod syntax;
mod system_packages;
#[cfg(test)]
mod tests;
mod users;
mod variables;

use std::sync::Arc;

pub(in crate::ops) use contexts::HEAVY_CONTEXT;
pub use finding::{CheckFinding, Replacement, Severity};
pub use report::Report;
pub use rules::page;

use crate::config::project::Project;
use crate::context::Context;
use crate::docker::build::builder::{Builder, builder_of};
use crate::docker::build::buildkit::lint::{self, LintWarning};
use crate::docker::build::dockerfile::Dockerfile;
use crate::docker::build::dockerfile::source::{DockerfileSource, SourceFault};
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::options::build_options::BuildOptions;
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::ops::build::{BuildArgs, warn_of_unknown_keys, where_is};
use crate::ops::run_records::connect_and_remind;
use crate::output::{one_line, visible};
use facts::{CheckedImage, checked_image};
use silenced::Silenced;
use subject::{Facts, Subject};

/// How a check is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Exit code 1 where anything is found.
    pub is_error: bool,
    /// A SARIF document, for code hosts.
    pub is_sarif: bool,
    /// The engine's BuildKit is asked, too.
    pub asks_engine: bool,
}

/// What is found in one Dockerfile.
#[derive(Clone, Debug)]
pub struct Checked {
    /// By line.
    pub findings: Vec<CheckFinding>,
    /// What to write instead, for each finding.
    pub replacements: Vec<Option<Replacement>>,
    /// What a builder would refuse it for; nothing after it was looked at.
    pub fault: Option<SourceFault>,
    /// Whether the Dockerfile itself says that findings are errors.
    pub is_error: bool,
    /// Sentences about directives that have no effect.
    pub complaints: Vec<String>,
}

/// So many instructions and bytes are looked at, and so many findings told: a project of others decides how many there are, and what is
/// said of one depends on all of them.
const INSTRUCTIONS: usize = 2_000;
const BYTES: usize = 256 * 1024;
const FINDINGS: usize = 500;

/// Checks a Dockerfile that is of no project, built with these options; `skip` are rules that are silent, as in the key
/// `check_skip`.
pub fn check_text(text: &str, options: &BuildOptions, skip: &str) -> Checked {
    check_with(text, options, skip, &Facts::default(), None)
}

fn check_with(text: &str, options: &BuildOptions, skip: &str, facts: &Facts, lint: Option<&[LintWarning]>) -> Checked {
    let (source, left_out) = beginning(text);
    let WhatIsFound {
        mut findings,
        fault,
        unread,
    } = found(&source, facts, options);
    if let Some(lint) = lint {
        findings = merged(findings, lint);
    }
    let mut silenced = Silenced::of(source.check, options, skip);
    findings.retain(|finding| !silenced.silences(&finding.rule));
    let mut complaints = std::mem::take(&mut silenced.complaints);
    complaints.extend(left_out);
    if let Some(complaint) = left_unread(&unread) {
        complaints.push(complaint);
    }
    let is_cut = findings.len() > FINDINGS;
    if is_cut {
        complaints.push(format!(
            "there are {} findings: these are the first {FINDINGS}",
            findings.len()
        ));
        findings.truncate(FINDINGS);
    }
    let is_new = |finding: &CheckFinding| {
        // The engine was asked about the Dockerfile as it is, and the project's tags are known by its lines.
        let is_unasked = lint.is_some()
            && rules::rule(&finding.rule).is_some_and(|rule| rule.is_of_buildkit)
            && !findings.iter().any(|first| first.rule == finding.rule);
        !is_unasked && finding.rule != base_images::OTHER_TAG && !silenced.silences(&finding.rule)
    };
    let again = |text: &str| {
        // What would be found next is not among those that are told.
        if is_cut {
            return Some(Vec::new());
        }
        let mut new = found(&DockerfileSource::read(text), facts, options);
        new.findings.retain(is_new);
        new.findings.truncate(FINDINGS);
        (new.fault.is_none() || fault.is_some()).then_some(new.findings)
    };
    let replacements = composition::replacements(&source, &findings, again);
    Checked {
        findings,
        replacements,
        fault,
        is_error: silenced.is_error,
        complaints,
    }
}

/// So much of a Dockerfile as is looked at, and what is to be said of the rest.
fn beginning(text: &str) -> (DockerfileSource<'_>, Option<String>) {
    let is_long = text.len() > BYTES;
    let first = match is_long {
        true => text.get(..text.floor_char_boundary(BYTES)).unwrap_or_default(),
        false => text,
    };
    let whole = DockerfileSource::read(first);
    // Only a part of the last instruction may be there, and that one may be what has a fault.
    let last = is_long.then(|| {
        let fault = whole.fault.as_ref().map(|fault| fault.line);
        fault.or_else(|| whole.instructions.last().map(|step| step.line))
    });
    let next = whole.instructions.get(INSTRUCTIONS).map(|step| step.line);
    let (line, complaint) = match (next, last.flatten()) {
        (Some(next), _) => (
            next,
            format!("only its first {INSTRUCTIONS} instructions are looked at"),
        ),
        (None, Some(last)) => (
            last,
            format!(
                "it is longer than {} KiB: only what is before line {last} is looked at",
                BYTES / 1024
            ),
        ),
        (None, None) => return (whole, None),
    };
    match text.get(..whole.start_of(line)) {
        Some(beginning) => {
            let mut source = DockerfileSource::read(beginning);
            // What is missing may be in the rest.
            source.fault = None;
            (source, Some(complaint))
        }
        None => (whole, None),
    }
}

/// What is to be said of RUNs on these lines, whose scripts were not looked at.
fn left_unread(lines: &[usize]) -> Option<String> {
    const NAMED: usize = 5;
    let named: Vec<String> = lines.iter().take(NAMED).map(usize::to_string).collect();
    let more = match lines.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let which = match lines {
        [] => return None,
        [line] => format!("the script of the RUN on line {line} is"),
        _ => format!("the scripts of the RUNs on lines {}{more} are", named.join(", ")),
    };
    Some(format!(
        "{which} not looked at: longer than {} KiB",
        subject::LONGEST_SCRIPT / 1024
    ))
}

/// What our rules find in a Dockerfile.
struct WhatIsFound {
    findings: Vec<CheckFinding>,
    /// What a builder would refuse it for.
    fault: Option<SourceFault>,
    /// Lines of RUNs whose scripts were too long.
    unread: Vec<usize>,
}

fn found(source: &DockerfileSource<'_>, facts: &Facts, options: &BuildOptions) -> WhatIsFound {
    let end = source
        .instructions
        .last()
        .map_or(0, |last| source.start_of(last.end + 1));
    // The rest can't be built, and is not looked at.
    let readable = match source.fault {
        Some(_) => source.text.get(..end).unwrap_or_default(),
        None => source.text,
    };
    let file = Dockerfile::parse(readable, options);
    let subject = Subject::new(source, &file, facts, options);
    let mut findings = rules::findings(&subject);
    let fault = source.fault.clone().or_else(|| rules::refused(&subject));
    if let Some(fault) = fault.as_ref().filter(|_| source.fault.is_none()) {
        findings.retain(|finding| finding.lines.1 < fault.line);
    }
    WhatIsFound {
        findings,
        fault,
        unread: subject.unread,
    }
}

/// BuildKit's rules that an engine may not have yet: what we found by them stays.
const NEWER: [&str; 3] = ["CopyIgnoredFile", "ExposeInvalidFormat", "ExposeProtoCasing"];

/// What we and the engine found: by BuildKit's own rules, the engine's word counts, with our lines to write where we have some.
fn merged(ours: Vec<CheckFinding>, theirs: &[LintWarning]) -> Vec<CheckFinding> {
    let mut all: Vec<CheckFinding> = theirs
        .iter()
        .map(|warning| {
            let same = ours
                .iter()
                .find(|own| own.rule == warning.rule && own.lines.0 == warning.lines.0);
            CheckFinding {
                rule: warning.rule.clone(),
                severity: same.map_or_else(
                    || rules::rule(&warning.rule).map_or(Severity::Warning, |rule| rule.severity),
                    |own| own.severity,
                ),
                lines: warning.lines,
                message: warning.message.clone(),
                costs: same.map_or_else(|| warning.description.clone(), |own| own.costs.clone()),
                advice: same.map_or_else(
                    || warning.url.clone().map(|url| format!("see {url}")),
                    |own| own.advice.clone(),
                ),
                is_of_engine: true,
                edits: same.map(|own| own.edits.clone()).unwrap_or_default(),
            }
        })
        .collect();
    let is_theirs = |finding: &CheckFinding| {
        let is_known = theirs.iter().any(|warning| warning.rule == finding.rule);
        let is_newer = NEWER.contains(&finding.rule.as_str());
        rules::rule(&finding.rule).is_some_and(|rule| rule.is_of_buildkit) && (is_known || !is_newer)
    };
    all.extend(ours.into_iter().filter(|finding| !is_theirs(finding)));
    all.sort_by_key(|finding| finding.lines.0);
    all
}

/// Checks the Dockerfile of one image type, or of `all`.
///
/// # Errors
/// A wrong configuration; an engine that can't be reached, if it is to be asked. Findings are the result.
pub fn check(context: &Context, args: &BuildArgs, how: CheckOptions) -> Result<ExitStatus> {
    let printer = &context.printer;
    let project = Project::find(&context.working_dir, &context.env)?;
    warn_of_unknown_keys(&project, printer);
    let images: Vec<String> = if args.image == "all" {
        let types = project.image_types();
        if types.is_empty() {
            return Err(
                Error::usage(format!("{} has no image to check", project.root().display())).hint(hint!(
                    "write {}",
                    project.images_dir().join("dev/Dockerfile").display().to_string()
                )),
            );
        }
        types.to_vec()
    } else {
        project.buildable(&args.image)?;
        vec![args.image.clone()]
    };
    let mut images = images
        .iter()
        .map(|image| checked_image(&project, image, args, &context.env))
        .collect::<Result<Vec<_>>>()?;
    for image in &mut images {
        image.facts.context = facts::of_context(image);
        image.complaints.drain(..).for_each(|text| printer.warning(&text));
    }
    let lints = match how.asks_engine {
        true => context.block_on(lints(context, &images))?,
        false => images.iter().map(|_| None).collect(),
    };
    let mut reports = Vec::new();
    for (image, lint) in images.iter().zip(&lints) {
        let checked = check_with(
            &image.text,
            &image.request.options,
            &image.skip,
            &image.facts,
            lint.as_deref(),
        );
        for complaint in &checked.complaints {
            printer.warning(&format!("{}: {complaint}", image.file.display()));
        }
        reports.push(Report::new(image, checked));
    }
    report::print(printer, &reports, how)?;
    let is_found = |report: &Report| report.has_findings() && (how.is_error || report.is_error());
    let fails = reports.iter().any(|report| report.has_fault() || is_found(report));
    Ok(if fails {
        ExitStatus::FAILURE
    } else {
        ExitStatus::SUCCESS
    })
}

/// What the engine's BuildKit says of each; `None` where it has no such answer, which is said.
async fn lints(context: &Context, images: &[CheckedImage]) -> Result<Vec<Option<Vec<LintWarning>>>> {
    let engine = connect_and_remind(context).await?;
    let mut lints = Vec::new();
    if builder_of(&engine, context.env.get("DOCKER_BUILDKIT")) == Builder::Classic {
        context
            .printer
            .warning("this engine builds with the classic builder, which has no checks: these are ours alone");
        return Ok(images.iter().map(|_| None).collect());
    }
    let locality = where_is(&engine, &context.env, &context.printer).await;
    let config = Arc::new(ClientConfig::of(&context.env)?);
    for image in images {
        match lint::lint(&engine, locality, &image.request, &config).await {
            Ok(warnings) => lints.push(Some(warnings)),
            Err(error) => {
                context.printer.warning(&format!(
                    "BuildKit's own checks of {} can't be had, so these are ours alone: {}",
                    image.file.display(),
                    error.with_causes()
                ));
                lints.push(None);
            }
        }
    }
    Ok(lints)
}

/// Says before a build, in one line for each image, what is serious in its Dockerfile; once for each change of it. What can't be
/// read here is the build's own matter.
pub(in crate::ops) fn say_serious<'i>(context: &Context, project: &Project, images: impl Iterator<Item = &'i str>) {
    let mut spoken = spoken::Spoken::of(&context.env, project.root());
    for image in images {
        let args = BuildArgs::default();
        let Ok(mut checked) = checked_image(project, image, &args, &context.env) else {
            continue;
        };
        if !spoken.is_new(image, &checked.text) {
            continue;
        }
        checked.facts.context = facts::at_a_glance(&checked);
        let found = check_with(
            &checked.text,
            &checked.request.options,
            &checked.skip,
            &checked.facts,
            None,
        );
        let serious: Vec<String> = found
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Serious)
            .map(|finding| format!("{} (line {})", one_line(&finding.message), finding.lines.0))
            .collect();
        let Some((first, others)) = serious.split_first() else {
            continue;
        };
        let more = match others.len() {
            0 => String::new(),
            more => format!(", and {more} more like it"),
        };
        context.printer.warning(&format!(
            "{}: {first}{more}: {} says what to write instead",
            visible(&checked.file.display().to_string()),
            hint!("build-image {} --check", image)
        ));
    }
    spoken.keep();
}
