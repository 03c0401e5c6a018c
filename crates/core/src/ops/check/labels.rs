//! Rules about who made an image, and of what.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::subject::Subject;
use crate::docker::build::dockerfile::source::literal;

/// Labels that say whom to ask, or where the sources are.
const SOURCES: [&str; 8] = [
    "org.opencontainers.image.source",
    "org.opencontainers.image.url",
    "org.opencontainers.image.authors",
    "org.opencontainers.image.vendor",
    "org.label-schema.vcs-url",
    "org.label-schema.url",
    "maintainer",
    "authors",
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "NoSourceLabel",
        severity: Severity::Note,
        is_of_buildkit: false,
        title: "A published image does not say where it comes from",
        why: "Somebody who finds it in a registry can't find its Dockerfile, nor whom to ask. It counts for an image type whose section has \
              `image_repo`; a label `org.opencontainers.image.source`, `.url` or `.authors` is enough, or the older ones.",
        bad: "# docker/dockerutils.cfg says: image_repo = registry.example.org/\nFROM debian:13-slim\n",
        good: "FROM debian:13-slim\nLABEL org.opencontainers.image.source=\"https://example.org/my-app\"\n",
        check: without_source,
    },
    Rule {
        name: "MaintainerDeprecated",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "MAINTAINER is deprecated",
        why: "A label says the same, and can be read with `docker inspect`.",
        bad: "FROM debian:13-slim\nMAINTAINER ann@example.org\n",
        good: "FROM debian:13-slim\nLABEL org.opencontainers.image.authors=\"ann@example.org\"\n",
        check: maintainer,
    },
];

fn without_source(subject: &Subject<'_>) -> Vec<Remark> {
    let labels = subject.image_steps().filter(|step| step.keyword == "label");
    let mut names = labels
        .flat_map(|step| step.pairs(subject.source.escape))
        .map(|(name, _)| name);
    let is_said = names.any(|name| SOURCES.contains(&name.trim_matches(['"', '\'']).to_lowercase().as_str()))
        || subject
            .options
            .labels
            .iter()
            .any(|(name, _)| SOURCES.contains(&name.as_str()))
        || subject.image_steps().any(|step| step.keyword == "maintainer");
    let last = subject.source.instructions.last();
    let Some(step) = last.filter(|_| subject.facts.is_published && !is_said) else {
        return Vec::new();
    };
    let text = subject.source.text;
    let label = "LABEL org.opencontainers.image.source=\"https://example.org/PROJECT\"\n";
    let at = subject.source.start_of(step.end + 1);
    let break_before = if at == text.len() && !text.ends_with('\n') {
        "\n"
    } else {
        ""
    };
    let mut remark = Remark::of(
        step,
        "no label says where the image comes from",
        "whoever finds it in the registry can't find its sources",
    );
    remark = remark.insert(at, format!("{break_before}{label}"));
    vec![remark.advise("with the address of your project")]
}

fn maintainer(subject: &Subject<'_>) -> Vec<Remark> {
    let steps = subject.steps("maintainer");
    steps
        .map(|step| {
            // Quotes around all of it are meant for the builder, which keeps them, and not for a reader.
            let written = step.arguments();
            let in_quotes = |quote: char| {
                let inner = written.strip_prefix(quote)?.strip_suffix(quote)?;
                (!inner.contains(quote)).then_some(inner)
            };
            let name = in_quotes('"').or_else(|| in_quotes('\'')).unwrap_or(written);
            let message = "Maintainer instruction is deprecated in favor of using label";
            let remark = Remark::of(step, message, "it may be refused one day");
            match literal(name, subject.source.escape).filter(|_| step.line == step.end) {
                Some(word) => {
                    let label = format!("LABEL org.opencontainers.image.authors={word}\n");
                    remark.replace(subject.whole(step), label)
                }
                None => remark.advise("write LABEL org.opencontainers.image.authors=\"NAME\""),
            }
        })
        .collect()
}
