//! The summary of a job in CI: a table of the images, a drawing of the plan, what failed.
//!
//! GitHub Actions shows what is appended to the file in `GITHUB_STEP_SUMMARY`
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#adding-a-job-summary>); it takes a megabyte of a
//! step. For GitLab CI and Jenkins, which have no such place, the summary is a file among the results.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dockerutils_core::env::Env;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::output::{counted, shown, visible};

use crate::artifacts::{self, Artifacts, ImageOutcome, ImageResult, TestsOfImage};
use crate::history::CiVariables;
use crate::manifests::markdown::{code, cut, fenced, folded, inline, table};
use crate::plan::{Action, PlannedImage, StackPlan};

/// The variable with GitHub's file.
const GITHUB: &str = "GITHUB_STEP_SUMMARY";
/// The most bytes of a summary: half of what GitHub takes, for a plan and a build in one step.
const LONGEST: usize = 500_000;
/// The most lines of an excerpt, and the most characters of one.
const LINES: usize = 60;
const LINE: usize = 500;
/// The most reasons of an image in the table.
const REASONS: usize = 8;

/// The summary of a plan.
pub fn of_plan(plan: &StackPlan) -> String {
    let rows = plan.images.iter().map(|image| {
        let reasons: Vec<String> = image.reasons.iter().flat_map(crate::plan::PlanReason::lines).collect();
        let more = reasons.len().saturating_sub(REASONS);
        let more = (more > 0).then(|| format!("and {more} more"));
        let reasons: Vec<String> = reasons
            .iter()
            .take(REASONS)
            .map(|line| inline(&cut(line.trim_start(), LINE)))
            .chain(more)
            .collect();
        vec![
            inline(&image.label),
            action(image),
            code(&image.reference),
            reasons.join("<br>"),
        ]
    });
    let text = "## Plan of the stack\n\n".to_owned() + &table(&["Image", "Action", "Reference", "Why"], rows);
    bounded(text, &[&drawing(plan), &notes(&plan.notes)])
}

/// The summary of a run: what became of the images of a plan. Results are in any order; an image without one was not reached.
pub fn of_run(plan: &StackPlan, results: &[ImageResult]) -> String {
    let none = ImageResult {
        outcome: ImageOutcome::LeftOut,
        message: "not reached".to_owned(),
        ..ImageResult::default()
    };
    let found = |image: &PlannedImage| results.iter().find(|result| result.label == image.label);
    let all: Vec<(&PlannedImage, &ImageResult)> = plan
        .images
        .iter()
        .map(|image| (image, found(image).unwrap_or(&none)))
        .collect();
    let rows = all.iter().map(|(image, result)| {
        let digest = result.digest.as_deref().map(|digest| format!("<br>{}", code(digest)));
        vec![
            inline(&image.label),
            outcome(result),
            tests(&result.tests),
            code(&image.reference) + &digest.unwrap_or_default(),
            if result.seconds > 0.0 {
                duration(result.seconds)
            } else {
                String::new()
            },
        ]
    });
    let is = |counts: fn(ImageOutcome) -> bool| all.iter().filter(|(_, result)| counts(result.outcome)).count();
    let mut text = format!(
        "## Build of the stack\n\n{}: {} built, {} copied, {} tested again, {} failed, {} left out.\n\n",
        counted(all.len(), "image"),
        is(|outcome| outcome == ImageOutcome::Built),
        is(|outcome| outcome == ImageOutcome::Copied),
        is(|outcome| outcome == ImageOutcome::Tested),
        is(|outcome| outcome == ImageOutcome::Failed),
        is(|outcome| outcome == ImageOutcome::LeftOut),
    );
    text += &table(&["Image", "Result", "Tests", "Reference", "Time"], rows);
    let failures = all.iter().filter(|(_, result)| result.outcome == ImageOutcome::Failed);
    let failures: Vec<String> = failures.map(|(image, result)| failure(image, result)).collect();
    let (drawing, notes) = (drawing(plan), notes(&plan.notes));
    let parts = failures.iter().map(String::as_str).chain([drawing.as_str(), &notes]);
    bounded(text, &parts.collect::<Vec<_>>())
}

/// The text with the parts that fit behind it.
fn bounded(mut text: String, parts: &[&str]) -> String {
    let mut left_out = 0;
    for part in parts {
        match text.len() + part.len() <= LONGEST {
            true => text += part,
            false => left_out += 1,
        }
    }
    if left_out > 0 {
        let _ = write!(
            text,
            "{} of this summary left out: too long.\n\n",
            counted(left_out, "part")
        );
    }
    text
}

fn drawing(plan: &StackPlan) -> String {
    fenced("mermaid", &plan.mermaid()) + "\n"
}

fn notes(notes: &[String]) -> String {
    let lines: Vec<String> = notes.iter().map(|note| format!("> {}\n>\n", inline(note))).collect();
    match lines.is_empty() {
        true => String::new(),
        false => lines.concat() + "\n",
    }
}

fn action(image: &PlannedImage) -> String {
    match &image.action {
        Action::Copy { from, .. } => format!("copy {}", code(from)),
        action => action.word().to_owned(),
    }
}

fn outcome(result: &ImageResult) -> String {
    let sign = match result.outcome {
        ImageOutcome::Failed => "❌ ",
        ImageOutcome::LeftOut => "⏭️ ",
        ImageOutcome::Built | ImageOutcome::Copied | ImageOutcome::Tested => "✅ ",
        ImageOutcome::Unchanged => "",
    };
    let why = match result.message.is_empty() {
        true => String::new(),
        false => format!("<br>{}", inline(&cut(&result.message, LINE))),
    };
    format!("{sign}{}{why}", result.outcome.word())
}

fn tests(tests: &[TestsOfImage]) -> String {
    if !tests.is_empty() && tests.iter().all(|tests| tests.passed.is_none()) {
        return "no tests".to_owned();
    }
    let said = tests.iter().filter_map(|tests| {
        let kind = inline(&tests.kind);
        match (tests.passed?, tests.failures) {
            (true, _) => Some(format!("{kind}: {} passed", tests.tests)),
            (false, 0) => Some(format!("{kind}: failed")),
            (false, failures) => Some(format!("{kind}: {failures} of {} failed", tests.tests)),
        }
    });
    said.collect::<Vec<_>>().join("<br>")
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round().clamp(0.0, 1e9) as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// What failed, folded, with the last lines of its log.
fn failure(image: &PlannedImage, result: &ImageResult) -> String {
    let mut body = format!("{}\n\n", inline(&result.message));
    if let Some(log) = &result.log {
        let _ = write!(body, "The whole log: {}\n\n", code(&log.display().to_string()));
    }
    let skipped = result.excerpt.len().saturating_sub(LINES);
    let lines: Vec<String> = result
        .excerpt
        .iter()
        .skip(skipped)
        .map(|line| cut(&shown(line, false), LINE) + "\n")
        .collect();
    if !lines.is_empty() {
        body += &fenced("text", &lines.concat());
    }
    folded(&format!("{} failed", image.label), &body)
}

/// Writes a summary where CI shows or keeps it, and returns the file; outside of CI nothing is written.
///
/// # Errors
/// A file that can't be written.
pub fn write(env: &Env, artifacts: &Artifacts, text: &str) -> Result<Option<PathBuf>> {
    if let Some(path) = env.non_empty(GITHUB) {
        let path = Path::new(path);
        let written = OpenOptions::new().append(true).create(true).open(path);
        let written = written.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()));
        return match written {
            Ok(()) => Ok(Some(path.to_owned())),
            Err(cause) => Err(Error::failed(format!(
                "the summary can't be written to {GITHUB}={}",
                visible(&path.display().to_string())
            ))
            .because(cause)
            .hint("is it the file that GitHub Actions made for this step?")),
        };
    }
    if CiVariables::read(env).is_none() {
        return Ok(None);
    }
    let file = artifacts.summary();
    artifacts::write(&file, text)?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlanReason;

    fn planned(label: &str, parent: Option<&str>, action: Action) -> PlannedImage {
        PlannedImage {
            label: label.to_owned(),
            image: label.to_owned(),
            plan: "p".to_owned(),
            parent: parent.map(str::to_owned),
            reference: format!("r.example/{label}:1-main"),
            action,
            tests: true,
            input: "sha256:0".to_owned(),
            reasons: vec![PlanReason::TagAbsent {
                tag: "1-main|`x`".to_owned(),
            }],
        }
    }

    fn plan() -> StackPlan {
        let manifest = "sha256:1".to_owned();
        StackPlan {
            images: vec![
                planned(
                    "base",
                    None,
                    Action::Copy {
                        from: "r.example/base:1-stable".to_owned(),
                        manifest,
                    },
                ),
                planned("leaf", Some("base"), Action::Build),
                planned("last", Some("leaf"), Action::Build),
            ],
            notes: vec!["the clone is <shallow>".to_owned()],
        }
    }

    #[test]
    fn a_plan_is_a_table_and_a_drawing() {
        let text = of_plan(&plan());
        let row = "| base | copy <code>r.example/base:1-stable</code> | <code>r.example/base:1-main</code> | there is no tag \
                   1-main&#124;&#96;x&#96; |\n| leaf | build |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("\n```mermaid\nflowchart TD\n"), "{text}");
        assert!(text.contains("\n> the clone is &#60;shallow&#62;\n"), "{text}");
    }

    #[test]
    fn a_run_tells_results_and_folds_failures() {
        let results = [
            ImageResult {
                label: "leaf".to_owned(),
                outcome: ImageOutcome::Failed,
                tests: vec![TestsOfImage {
                    kind: "basic".to_owned(),
                    passed: Some(false),
                    tests: 9,
                    failures: 2,
                }],
                seconds: 75.2,
                message: "its tests failed".to_owned(),
                log: Some("logs/leaf.log".into()),
                excerpt: (0..100).map(|number| format!("line {number} ```")).collect(),
                ..ImageResult::default()
            },
            ImageResult {
                label: "base".to_owned(),
                outcome: ImageOutcome::Copied,
                digest: Some("sha256:1".to_owned()),
                tests: ["basic", "integration"]
                    .map(|kind| TestsOfImage {
                        kind: kind.to_owned(),
                        passed: None,
                        tests: 0,
                        failures: 0,
                    })
                    .into(),
                ..ImageResult::default()
            },
        ];
        let text = of_run(&plan(), &results);
        for expected in [
            "3 images: 0 built, 1 copied, 0 tested again, 1 failed, 1 left out.",
            "| base | ✅ copied | no tests | <code>r.example/base:1-main</code><br><code>sha256:1</code> |  |\n",
            "| leaf | ❌ failed<br>its tests failed | basic: 2 of 9 failed | <code>r.example/leaf:1-main</code> | 1 min 15 s |\n",
            "| last | ⏭️ left out<br>not reached |",
            "<summary>leaf failed</summary>\n\nits tests failed\n\nThe whole log: <code>logs/leaf.log</code>\n\n````text\nline 40 ```\n",
            "line 99 ```\n````\n\n</details>",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("line 39 "));
    }

    #[test]
    fn a_summary_is_no_longer_than_ci_takes() {
        let mut plan = plan();
        let long = ImageResult {
            label: "leaf".to_owned(),
            outcome: ImageOutcome::Failed,
            excerpt: vec!["x".repeat(LINE * 2); LINES],
            ..ImageResult::default()
        };
        plan.images = (0..40)
            .map(|number| planned(&format!("i{number}"), None, Action::Build))
            .collect();
        let results: Vec<ImageResult> = plan
            .images
            .iter()
            .map(|image| ImageResult {
                label: image.label.clone(),
                ..long.clone()
            })
            .collect();
        let text = of_run(&plan, &results);
        assert!(text.len() < LONGEST + 100, "{}", text.len());
        assert!(text.contains("parts of this summary left out"), "{text}");
    }

    #[test]
    fn it_goes_where_ci_shows_or_keeps_it() {
        let home = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::at(home.path());
        let step = home.path().join("step");
        std::fs::write(&step, "before\n").unwrap();
        let path = step.to_str().unwrap();
        let github = Env::from_pairs([("GITHUB_ACTIONS", "true"), (GITHUB, path)]);
        for _ in 0..2 {
            assert_eq!(
                write(&github, &artifacts, "text").unwrap().as_deref(),
                Some(step.as_path())
            );
        }
        assert_eq!(std::fs::read_to_string(&step).unwrap(), "before\ntext\ntext\n");
        let gitlab = Env::from_pairs([("GITLAB_CI", "true")]);
        for text in ["one", "two"] {
            let file = write(&gitlab, &artifacts, text).unwrap().unwrap();
            assert_eq!(file, home.path().join("artifacts/summary.md"));
            assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        }
        assert_eq!(write(&Env::from_pairs([("HOME", "/")]), &artifacts, "x").unwrap(), None);
        let nowhere = Env::from_pairs([(GITHUB, "/nowhere/x")]);
        assert!(write(&nowhere, &artifacts, "x").is_err());
    }
}
