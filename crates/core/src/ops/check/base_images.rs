//! Rules about FROM: versions of bases, platforms, names and variables.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::subject::Subject;
use super::variables::{OF_PLATFORMS, uses};
use crate::docker::build::dockerfile::Dockerfile;
use crate::docker::build::dockerfile::source::SourceInstruction;
use crate::docker::options::build_options::BuildOptions;
use crate::naming::{canonical, is_reference, nearest};

/// A version of images that many start from, for the line to write: one that is maintained, and not the newest. What is in the
/// image is what is in it without a version: no `-slim`, which lacks a part.
const VERSIONS: [(&str, &str); 21] = [
    ("almalinux", "9"),
    ("alpine", "3.22"),
    ("amazonlinux", "2023"),
    ("busybox", "1.37"),
    ("debian", "13"),
    ("fedora", "42"),
    ("golang", "1.25"),
    ("httpd", "2.4"),
    ("maven", "3.9"),
    ("mysql", "8.4"),
    ("nginx", "1.28"),
    ("node", "22"),
    ("php", "8.4"),
    ("postgres", "17"),
    ("python", "3.13"),
    ("redis", "8.0"),
    ("rockylinux", "9"),
    ("ruby", "3.4"),
    ("rust", "1.90"),
    ("ubuntu", "24.04"),
    ("eclipse-temurin", "21"),
];

/// Words of tags that say how an image is made, or how far it is, and no version of it.
const MOVING: [&str; 30] = [
    "alpine",
    "beta",
    "bullseye",
    "bookworm",
    "canary",
    "current",
    "dev",
    "devel",
    "develop",
    "edge",
    "experimental",
    "jdk",
    "jre",
    "lts",
    "main",
    "mainline",
    "master",
    "nightly",
    "next",
    "oldoldstable",
    "oldstable",
    "rawhide",
    "rolling",
    "slim",
    "stable",
    "sid",
    "testing",
    "trixie",
    "unstable",
    "perl",
];
/// Images whose versions have names.
const NAMED_VERSIONS: [&str; 4] = ["debian", "ubuntu", "buildpack-deps", "kalilinux/kali-rolling"];
const CODENAMES: [&str; 3] = ["bullseye", "bookworm", "trixie"];
/// Images that have a tag `VERSION-WORD` for these words.
const WITH_VARIANTS: [(&str, &[&str]); 10] = [
    ("golang", &["alpine"]),
    ("httpd", &["alpine"]),
    ("nginx", &["alpine"]),
    ("node", &["alpine", "slim"]),
    ("php", &["alpine"]),
    ("postgres", &["alpine"]),
    ("python", &["alpine", "slim"]),
    ("redis", &["alpine"]),
    ("ruby", &["alpine", "slim"]),
    ("rust", &["alpine", "slim"]),
];

/// The rule about what the project knows of a line.
pub(super) const OTHER_TAG: &str = "OtherTagOfProject";

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "BaseWithoutVersion",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "A base has no version, or is `:latest`",
        why: "Such a name means another image tomorrow: a build that worked breaks without a change of yours, and two machines \
              have different images of the same Dockerfile. A version that you choose changes when you say so. A tag such as `lts`, `alpine` \
              or `stable` names no version, either, and moves more slowly: a note.",
        bad: "FROM debian\n",
        good: "FROM debian:13\n",
        check: without_version,
    },
    Rule {
        name: OTHER_TAG,
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "An image of the project is named by another tag than it is built with",
        why: "What an older build, or nobody, has left there under that tag is used then, and not what `build-image all` has \
              just built.",
        bad: "# docker/dockerutils.cfg says: [base] tag = 1.0\nFROM my-app-base:0.9\n",
        good: "FROM my-app-base:1.0\n",
        check: other_tags,
    },
    Rule {
        name: "FromPlatformFlagConstDisallowed",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "The platform is pinned in FROM",
        why: "The image is of that platform then on every machine, and runs emulated, or not at all, on others. `--platform` \
              of the build says for which platform it is; a stage that must run on the building machine says \
              `--platform=$BUILDPLATFORM`.",
        bad: "FROM --platform=linux/amd64 debian:13-slim\n",
        good: "FROM debian:13-slim\n",
        check: constant_platform,
    },
    Rule {
        name: "RedundantTargetPlatform",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "`--platform=$TARGETPLATFORM` in FROM says what is so without it",
        why: "A stage is built for the target's platform by default.",
        bad: "FROM --platform=$TARGETPLATFORM debian:13-slim\n",
        good: "FROM debian:13-slim\n",
        check: redundant_platform,
    },
    Rule {
        name: "UndefinedArgInFrom",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "FROM uses a variable that no ARG before the first FROM declares",
        why: "It is empty, whatever `--build-arg` says.",
        bad: "FROM debian:${VERSION}-slim\n",
        good: "ARG VERSION=13\nFROM debian:${VERSION}-slim\n",
        check: undefined_arguments,
    },
    Rule {
        name: "InvalidDefaultArgInFrom",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "Without build arguments, a base has no legal name",
        why: "A plain `docker build` fails with a message about the name of an image. With a default, it works, and the default \
              says what the argument looks like.",
        bad: "ARG VERSION\nFROM debian:${VERSION}\n",
        good: "ARG VERSION=13-slim\nFROM debian:${VERSION}\n",
        check: invalid_defaults,
    },
    Rule {
        name: "StageNameCasing",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "The name of a stage has capital letters",
        why: "Names of stages are compared in small letters; elsewhere the same name may be that of another image.",
        bad: "FROM debian:13-slim AS Tools\nFROM debian:13-slim\nCOPY --from=tools /usr/bin/env /env\n",
        good: "FROM debian:13-slim AS tools\nFROM debian:13-slim\nCOPY --from=tools /usr/bin/env /env\n",
        check: stage_casing,
    },
    Rule {
        name: "FromAsCasing",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "`FROM` and `as` are written in different cases",
        why: "It is read more easily in one.",
        bad: "FROM debian:13-slim as tools\n",
        good: "FROM debian:13-slim AS tools\n",
        check: as_casing,
    },
    Rule {
        name: "DuplicateStageName",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "Two stages have one name",
        why: "Only the last of them before a use is meant by it.",
        bad: "FROM debian:13-slim AS tools\nFROM alpine:3.22 AS tools\n",
        good: "FROM debian:13-slim AS builder\nFROM alpine:3.22 AS tools\nCOPY --from=builder /usr/bin/env /env\n",
        check: duplicate_stages,
    },
    Rule {
        name: "ReservedStageName",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "A stage has a name that means something else",
        why: "`scratch` is the empty base, and `context` is the build context.",
        bad: "FROM debian:13-slim AS context\n",
        good: "FROM debian:13-slim AS tools\n",
        check: reserved_stages,
    },
];

fn without_version(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for (step, stage) in subject.steps("from").zip(&subject.file.stages) {
        let Some(base) = stage.base.as_deref() else { continue };
        let index = step.stage.unwrap_or_default();
        if subject.file.base_of(index).is_some() || base == "scratch" {
            continue;
        }
        let word = step.words().into_iter().next();
        remarks.extend(
            unversioned(subject, step, base).map(|(remark, version)| match (word, version) {
                (Some((bytes, word)), Some(version)) if !word.contains('$') => remark.replace(bytes, version),
                _ => remark,
            }),
        );
    }
    for step in subject.steps("copy") {
        if let Some(name) = step.flag("from")
            && !name.contains('$')
            && !subject.file.has_stage(name)
            && name.parse::<usize>().is_err()
        {
            remarks.extend(unversioned(subject, step, name).map(|(remark, _)| remark));
        }
    }
    remarks
}

/// What is said of an image without a version, and the name with one to write, if it is known.
fn unversioned(subject: &Subject<'_>, step: &SourceInstruction, name: &str) -> Option<(Remark, Option<String>)> {
    if !is_reference(name) || name.contains('@') {
        return None;
    }
    let full = canonical(name);
    let (repository, tag) = full.rsplit_once(':')?;
    let is_ours = subject
        .facts
        .made
        .iter()
        .any(|made| made.rsplit_once(':').is_some_and(|(other, _)| other == repository));
    if is_ours {
        return None;
    }
    let bare = name.strip_suffix(&format!(":{tag}")).unwrap_or(name);
    let known = bare.strip_prefix("docker.io/").unwrap_or(bare);
    let known = known.strip_prefix("library/").unwrap_or(known);
    let version = VERSIONS
        .iter()
        .find(|(image, _)| *image == known)
        .map(|(_, version)| *version);
    let in_words = format!("write the version that you use: {bare}:VERSION; its registry lists the tags");
    if tag == "latest" {
        let message = match name.ends_with(":latest") {
            true => format!("{name} is another image tomorrow"),
            false => format!("{name} has no version, so it is {name}:latest: another image tomorrow"),
        };
        let remark = Remark::of(
            step,
            message,
            "a build that breaks without a change of yours, and images that differ between machines",
        );
        let remark = remark.advise(match version {
            Some(_) => "or write another version that you choose: its registry lists the tags".to_owned(),
            None => in_words,
        });
        return Some((remark, version.map(|version| format!("{bare}:{version}"))));
    }
    let parts: Vec<&str> = tag.split('-').collect();
    let has_named_versions = NAMED_VERSIONS.contains(&known) || version.is_none();
    let is_moving = |part: &&str| MOVING.contains(part) && !(has_named_versions && CODENAMES.contains(part));
    // Of an image that nobody knows, only all of its words tell.
    if !parts.iter().all(is_moving) {
        return None;
    }
    let message = format!("{name} names no version: the tag {tag} moves to each new one");
    let remark = Remark::of(
        step,
        message,
        "a build that may break when it does, and images that differ between machines until then",
    )
    .of_severity(Severity::Note);
    let variants = WITH_VARIANTS.iter().find(|(image, _)| *image == known);
    let written = version
        .zip(variants)
        .filter(|(_, (_, variants))| variants.contains(&tag))
        .map(|(version, _)| format!("{bare}:{version}-{tag}"));
    let remark = remark.advise(match written {
        Some(_) => "or write another version that you choose: its registry lists the tags".to_owned(),
        None => in_words,
    });
    Some((remark, written))
}

/// Why a builder refuses a base whose name is no reference; in its words, after the check of all instructions' form.
pub(super) fn refused(subject: &Subject<'_>) -> Option<(usize, String)> {
    let plain = |step: &&SourceInstruction| {
        step.words()
            .first()
            .is_some_and(|(_, word)| !word.contains(['$', '"', '\'', '\\']))
    };
    for (step, stage) in subject.steps("from").zip(&subject.file.stages) {
        let index = step.stage.unwrap_or_default();
        let Some(base) = stage.base.as_deref().filter(|_| plain(&step)) else {
            continue;
        };
        if subject.file.base_of(index).is_some() || base == "scratch" || is_reference(base) {
            continue;
        }
        let lower = base.to_lowercase();
        let why = if is_reference(&lower) {
            let name = base.split('@').next().unwrap_or(base);
            let end = name.rfind('/').map_or(0, |at| at + 1);
            let colon = name
                .get(end..)
                .and_then(|last| last.find(':'))
                .map_or(name.len(), |at| end + at);
            let name = name.get(..colon).unwrap_or(name);
            let path = match name.split_once('/') {
                Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path.to_owned(),
                Some(_) => name.to_owned(),
                None => format!("library/{name}"),
            };
            format!("invalid reference format: repository name ({path}) must be lowercase")
        } else {
            "invalid reference format".to_owned()
        };
        return Some((step.line, format!("failed to parse stage name {base:?}: {why}")));
    }
    None
}

fn other_tags(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for other in &subject.facts.other_tags {
        let is_it = |step: &&SourceInstruction| match other.line {
            Some(line) => step.line == line,
            None => step.flags.iter().any(|flag| flag.contains(&other.name)),
        };
        let mut all = subject.source.instructions.iter();
        let Some(step) = all.find(is_it) else { continue };
        let message = format!(
            "{} is not built here: image type {} is built with the tag {}",
            other.name, other.image, other.tag
        );
        let mut remark = Remark::of(
            step,
            message,
            "an old image, or one of somebody else, is what this is made of",
        );
        let word = step.words().into_iter().next();
        if let (Some((bytes, word)), Some(_)) = (word, other.line)
            && word == other.name
        {
            let repository = word.rsplit_once(':').map_or(word, |(repository, _)| repository);
            remark = remark.replace(bytes, format!("{repository}:{}", other.tag));
        }
        remarks.push(remark);
    }
    remarks
}

/// The bytes between FROM and its base: blanks and flags.
fn flags_of(step: &SourceInstruction) -> std::ops::Range<usize> {
    step.place(step.written.len())..step.place(step.rest)
}

fn constant_platform(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("from") {
        let Some(platform) = step.flag("platform").filter(|platform| !platform.contains('$')) else {
            continue;
        };
        let mut parts = platform.split('/');
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let (system, architecture) = match second {
            Some(architecture) => (first, architecture),
            None if first == "linux" || first == "windows" => (first, ""),
            None => ("linux", first),
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let words = step.words();
        let name = words.get(2).map(|(_, name)| name.to_lowercase()).unwrap_or_default();
        let is_said = name.contains(system) || (!architecture.is_empty() && name.contains(architecture));
        if platform.is_empty() || is_said {
            continue;
        }
        let message = format!("FROM --platform flag should not use constant value {platform:?}");
        let remark = Remark::of(
            step,
            message,
            "the image runs emulated, or not at all, on machines of another architecture",
        );
        remarks.push(remark.replace(flags_of(step), " "));
    }
    remarks
}

fn redundant_platform(subject: &Subject<'_>) -> Vec<Remark> {
    let steps = subject.steps("from");
    let redundant = steps.filter_map(|step| {
        let platform = step.flag("platform")?;
        matches!(platform, "$TARGETPLATFORM" | "${TARGETPLATFORM}").then_some((step, platform))
    });
    redundant
        .map(|(step, platform)| {
            let message = format!(
                "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
            );
            Remark::of(step, message, "words without effect").replace(flags_of(step), " ")
        })
        .collect()
}

/// The names of the ARGs before the first FROM.
fn global_arguments(subject: &Subject<'_>) -> Vec<String> {
    let global = subject.steps("arg").filter(|step| step.stage.is_none());
    let pairs = global.flat_map(|step| step.pairs(subject.source.escape));
    pairs.map(|(name, _)| name).collect()
}

fn undefined_arguments(subject: &Subject<'_>) -> Vec<Remark> {
    let declared = global_arguments(subject);
    let mut remarks = Vec::new();
    for step in subject.steps("from") {
        let base = step.words().first().map(|(_, word)| (*word).to_owned());
        let words = base.into_iter().chain(step.flag("platform").map(str::to_owned));
        let mut seen: Vec<String> = Vec::new();
        for used in words.flat_map(|word| uses(&word, subject.source.escape)) {
            let is_known = declared.contains(&used.name) || OF_PLATFORMS.contains(&used.name.as_str());
            if is_known || used.has_default || seen.contains(&used.name) {
                continue;
            }
            let name = used.name;
            let known = declared.iter().map(String::as_str).chain(OF_PLATFORMS);
            let suggestion = nearest(&name, known)
                .map(|near| format!(" (did you mean {near}?)"))
                .unwrap_or_default();
            let message = format!("FROM argument '{name}' is not declared{suggestion}");
            let begin = subject
                .source
                .start_of(subject.source.instructions.first().map_or(1, |first| first.line));
            let remark = Remark::of(step, message, "it is empty, whatever --build-arg says");
            remarks.push(remark.insert(begin, format!("ARG {name}\n")));
            seen.push(name);
        }
    }
    remarks
}

fn invalid_defaults(subject: &Subject<'_>) -> Vec<Remark> {
    let plain = Dockerfile::parse(subject.source.text, &BuildOptions::default());
    let mut remarks = Vec::new();
    for (step, stage) in subject.steps("from").zip(&plain.stages) {
        let Some((_, word)) = step.words().into_iter().next() else {
            continue;
        };
        let is_legal = stage.base.as_deref().is_some_and(is_reference);
        if word.contains('$') && !is_legal {
            let message = format!("Default value for ARG {word} results in empty or invalid base image name");
            let remark = Remark::of(step, message, "a build without build arguments fails");
            let names: Vec<String> = uses(word, '\\').into_iter().map(|used| used.name).collect();
            remarks.push(remark.advise(format!(
                "give it a default: ARG {}=value",
                names.join("=value, and ARG ")
            )));
        }
    }
    remarks
}

fn stage_casing(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("from") {
        if let Some((bytes, name)) = step.words().into_iter().nth(2)
            && name.to_lowercase() != name
        {
            let message = format!("Stage name '{name}' should be lowercase");
            let remark = Remark::of(step, message, "a name that is not what is compared");
            remarks.push(remark.replace(bytes, name.to_lowercase()));
        }
    }
    remarks
}

fn as_casing(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("from") {
        let from = step.written.as_str();
        let Some((bytes, word)) = step.words().into_iter().nth(1) else {
            continue;
        };
        let fits = (word.to_lowercase() == word) == (from.to_lowercase() == from);
        if !fits {
            let message = format!("'{word}' and '{from}' keywords' casing do not match");
            let same = if from.to_lowercase() == from { "as" } else { "AS" };
            let mut remark = Remark::of(step, message, "it is harder to read").replace(bytes, same);
            if same == "AS" && from.to_uppercase() != from {
                let keyword = step.place(0)..step.place(0) + from.len();
                remark = remark.replace(keyword, "FROM");
            }
            remarks.push(remark);
        }
    }
    remarks
}

fn duplicate_stages(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (step, stage) in subject.steps("from").zip(&subject.file.stages) {
        let Some(name) = stage.name.as_deref() else { continue };
        if seen.contains(&name) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            let free = (2..)
                .map(|number| format!("{name}{number}"))
                .find(|free| !subject.file.has_stage(free));
            let remark = Remark::of(step, message, "the stage before it can't be named any more");
            let word = step.words().into_iter().nth(2);
            remarks.push(match (word, free) {
                (Some((bytes, _)), Some(free)) => remark.replace(bytes, free),
                _ => remark,
            });
        }
        seen.push(name);
    }
    remarks
}

fn reserved_stages(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for (step, stage) in subject.steps("from").zip(&subject.file.stages) {
        if let Some(name @ ("context" | "scratch")) = stage.name.as_deref() {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            let remark = Remark::of(
                step,
                message,
                "what is meant by that name is another thing from here on",
            );
            let word = step.words().into_iter().nth(2);
            remarks.push(match word {
                Some((bytes, _)) => remark.replace(bytes, format!("{name}-stage")),
                None => remark,
            });
        }
    }
    remarks
}
