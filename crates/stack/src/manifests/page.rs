//! A description as a page in Markdown, and the page that lists all.

use std::fmt::Write as _;

use dockerutils_core::output::{counted, size};

use super::Description;
use super::markdown::{code, cut, fenced, folded, inline, table};
use super::packages::{MANAGERS, ManagerDiff, PackageDiff};
use super::questions::InfoOutput;

/// The most characters of an instruction in the table of layers.
const INSTRUCTION: usize = 300;
/// The most rows of a table of differences.
const ROWS: usize = 2_000;

/// The page of an image.
pub fn page(description: &Description) -> String {
    let image = &description.image;
    let mut facts = vec![("Reference", code(&description.reference))];
    if let Some(digest) = &description.digest {
        facts.push(("Digest", code(digest)));
    }
    facts.push(("Image ID", code(&image.id)));
    if !description.base.is_empty() {
        let bases: Vec<String> = description.base.iter().map(|base| code(base)).collect();
        facts.push(("Made from", bases.join("<br>")));
    }
    facts.push(("Platform", inline(&image.platform)));
    if let Some(created) = &image.created {
        facts.push(("Created", inline(created)));
    }
    facts.push(("Size", size(image.size)));
    if !description.tags.is_empty() {
        let tags: Vec<String> = description.tags.iter().map(|tag| code(tag)).collect();
        facts.push(("Tags", tags.join(" ")));
    }
    let lists = &description.packages.lists;
    let counts = lists
        .iter()
        .map(|(manager, list)| format!("{}: {}", manager.name(), list.len()));
    let unknown = &description.packages.unknown;
    let unknown = unknown.iter().map(|manager| format!("{}: not known", manager.name()));
    let packages: Vec<String> = counts.chain(unknown).collect();
    if !packages.is_empty() {
        facts.push(("Packages", packages.join(", ")));
    }
    let mut text = format!("# {}\n\n", inline(&description.label));
    text += &table(
        &["", ""],
        facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]),
    );
    for note in &description.notes {
        let _ = write!(text, "> {}\n\n", inline(note));
    }
    for difference in &description.differences {
        text += &changes(&difference.from, &difference.packages);
    }
    text += &folded(
        &format!("{} of the history", counted(image.layers.len(), "step")),
        &layers(description),
    );
    if !image.labels.is_empty() {
        let rows = image.labels.iter().map(|(name, value)| vec![code(name), code(value)]);
        text += &folded(&counted(image.labels.len(), "label"), &table(&["Label", "Value"], rows));
    }
    description.outputs.iter().for_each(|output| text += &section(output));
    for manager in MANAGERS {
        if let Some(list) = lists.get(&manager).filter(|list| !list.is_empty()) {
            let rows = list.iter().map(|(name, version)| vec![code(name), code(version)]);
            let title = format!("{} of {}", counted(list.len(), "package"), manager.name());
            text += &folded(&title, &table(&["Package", "Version"], rows));
        }
    }
    text.trim_end().to_owned() + "\n"
}

fn layers(description: &Description) -> String {
    let mut sum: u64 = 0;
    let rows = description.image.layers.iter().map(|layer| {
        sum = sum.saturating_add(layer.size);
        vec![code(&cut(&layer.instruction, INSTRUCTION)), size(layer.size), size(sum)]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    table(&["Instruction", "Size", "Sum"], rows)
}

/// What a command said, folded.
fn section(output: &InfoOutput) -> String {
    let mut body = format!("{}\n\n", code(&output.command));
    if let Some(note) = &output.note {
        let _ = write!(body, "> {}\n\n", inline(note));
    }
    if !output.output.is_empty() {
        body += &fenced("text", &dockerutils_core::output::shown(&output.output, false));
    }
    folded(&output.description, &body)
}

/// A line that says how much differs, and tables below it.
fn changes(from: &str, diff: &PackageDiff) -> String {
    let mut text = format!("## Packages since {}\n\n", inline(from));
    if diff.is_empty() {
        return text + "No package differs.\n\n";
    }
    let [came, went, changed] = diff.counts();
    let _ = write!(text, "{came} came, {went} went, {changed} changed.\n\n");
    for (manager, difference) in &diff.0 {
        let rows = rows(difference);
        let title = format!("{}: {}", manager.name(), counted(rows.len(), "difference"));
        let more = rows.len().saturating_sub(ROWS);
        let mut body = table(&["Package", "Before", "Now"], rows.into_iter().take(ROWS));
        if more > 0 {
            let _ = write!(body, "And {more} more.\n\n");
        }
        text += &folded(&title, &body);
    }
    text
}

fn rows(difference: &ManagerDiff) -> Vec<Vec<String>> {
    let changed = difference.changed.iter();
    let changed = changed.map(|(name, [before, now])| vec![code(name), code(before), code(now)]);
    let came = difference.came.iter();
    let came = came.map(|(name, version)| vec![code(name), String::new(), code(version)]);
    let went = difference.went.iter();
    let went = went.map(|(name, version)| vec![code(name), code(version), String::new()]);
    changed.chain(came).chain(went).collect()
}

/// The page that lists all pages of a folder: each with the name of its file.
pub fn index(pages: &[(String, Description)]) -> String {
    let rows = pages.iter().map(|(file, description)| {
        let differences: Vec<String> = description
            .differences
            .iter()
            .map(|difference| {
                let [came, went, changed] = difference.packages.counts();
                match difference.packages.is_empty() {
                    true => format!("none since {}", inline(&difference.from)),
                    false => format!(
                        "{came} came, {went} went, {changed} changed since {}",
                        inline(&difference.from)
                    ),
                }
            })
            .collect();
        // A name of a file has letters, digits, `.`, `_` and `-` only.
        vec![
            format!("[{}]({file})", inline(&description.label)),
            code(&description.reference),
            description.digest.as_deref().map(code).unwrap_or_default(),
            size(description.image.size),
            differences.join("<br>"),
        ]
    });
    let titles = ["Image", "Reference", "Digest", "Size", "Packages"];
    "# Images\n\n".to_owned() + table(&titles, rows).trim_end() + "\n"
}
