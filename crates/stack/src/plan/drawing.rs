//! A plan as a tree for a terminal, as a flowchart of Mermaid, and as a file for docker buildx bake.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Action, PlanFacts, PlannedImage, StackPlan};
use crate::input_digest::{ANNOTATION, Inputs};
use crate::tags::StackTarget;

impl Action {
    /// The action in a word, for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Copy { .. } => "copy",
            Self::Test { .. } => "test again",
            Self::Nothing { .. } => "nothing",
        }
    }
}

impl PlannedImage {
    fn heading(&self) -> String {
        let action = match &self.action {
            Action::Copy { from, .. } if self.tests => format!("copy {from}, and test it"),
            Action::Copy { from, .. } => format!("copy {from}"),
            action => action.word().to_owned(),
        };
        format!("{}: {action}  ({})", self.label, self.reference)
    }
}

impl StackPlan {
    /// The positions of the images below one, or of those without a parent.
    fn below(&self, parent: Option<&PlannedImage>) -> Vec<&PlannedImage> {
        let wanted = parent.map(|parent| parent.label.as_str());
        self.images
            .iter()
            .filter(|image| image.parent.as_deref() == wanted)
            .collect()
    }

    /// The lines of a tree: each image with what is done, and below it the reasons.
    pub fn tree(&self) -> Vec<String> {
        let mut lines = Vec::new();
        // Images with the indentation of their heading, and of what is below it; the next one last.
        let mut left: Vec<(&PlannedImage, String, String)> = Vec::new();
        left.extend(
            self.below(None)
                .into_iter()
                .rev()
                .map(|image| (image, String::new(), String::new())),
        );
        while let Some((image, first, rest)) = left.pop() {
            let children = self.below(Some(image));
            lines.push(format!("{first}{}", image.heading()));
            let bar = if children.is_empty() { "    " } else { "│   " };
            for line in image.reasons.iter().flat_map(super::PlanReason::lines) {
                lines.push(format!("{rest}{bar}{line}"));
            }
            let last = children.len().saturating_sub(1);
            let below = children
                .into_iter()
                .enumerate()
                .rev()
                .map(|(index, child)| match index == last {
                    true => (child, format!("{rest}└── "), format!("{rest}    ")),
                    false => (child, format!("{rest}├── "), format!("{rest}│   ")),
                });
            left.extend(below);
        }
        lines
    }

    /// A flowchart of [Mermaid](https://mermaid.js.org/syntax/flowchart.html).
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        let position = |label: &str| self.images.iter().position(|image| image.label == label);
        for (index, image) in self.images.iter().enumerate() {
            let class = image.action.word().split(' ').next().unwrap_or_default();
            let label = escaped(&image.label);
            text += &format!("    n{index}[\"{label}<br>{}\"]:::{class}\n", image.action.word());
            if let Some(parent) = image.parent.as_deref().and_then(position) {
                text += &format!("    n{parent} --> n{index}\n");
            }
        }
        for (class, style) in [
            ("build", "fill:#f8d7a8,stroke:#b35900,color:#000"),
            ("copy", "fill:#cfe2ff,stroke:#084298,color:#000"),
            ("test", "fill:#e2d9f3,stroke:#59359a,color:#000"),
            ("nothing", "fill:#eee,stroke:#888,color:#000"),
        ] {
            text += &format!("    classDef {class} {style}\n");
        }
        text
    }

    /// A file for [docker buildx bake](https://docs.docker.com/build/bake/reference/), in JSON, with the targets that are
    /// built. A child finds a parent that is built beside it, and one that is to be copied where that is now.
    pub fn bake(&self, facts: &PlanFacts<'_>) -> Value {
        let mut made = BTreeMap::new();
        for ((image, target), inputs) in self.images.iter().zip(facts.targets).zip(facts.inputs) {
            if image.action == Action::Build {
                made.insert(bake_name(image), self.bake_target(facts, target, inputs));
            }
        }
        let names: Vec<&String> = made.keys().collect();
        json!({ "group": { "default": { "targets": names } }, "target": made })
    }

    fn bake_target(&self, facts: &PlanFacts<'_>, target: &StackTarget, inputs: &Inputs) -> Value {
        let Some(image) = facts.graph.images.get(target.image) else {
            return Value::Null;
        };
        let dockerfile = image
            .dockerfile
            .strip_prefix(&image.directory)
            .unwrap_or(&image.dockerfile);
        let commit = target
            .commit_tag
            .as_ref()
            .map(|tag| format!("{}:{tag}", target.designation.name));
        let tags: Vec<String> = [target.designation.to_string()].into_iter().chain(commit).collect();
        // An argument's `${...}` would be bake's.
        let arguments: BTreeMap<&String, String> = target
            .arguments
            .iter()
            .map(|(name, value)| (name, value.replace("${", "$${")))
            .collect();
        let mut made = Map::from_iter([
            ("context".to_owned(), json!(image.directory)),
            ("dockerfile".to_owned(), json!(dockerfile)),
            ("args".to_owned(), json!(arguments)),
            ("tags".to_owned(), json!(tags)),
        ]);
        // By it the next plan knows what the image was made from.
        let annotation = format!("manifest:{ANNOTATION}={}", json!(inputs));
        made.insert("annotations".to_owned(), json!([annotation]));
        if !target.platforms.is_empty() {
            made.insert("platforms".to_owned(), json!(target.platforms));
        }
        let parent = target.parent.and_then(|parent| self.images.get(parent));
        let place = parent.and_then(|parent| match &parent.action {
            Action::Build => Some(format!("target:{}", bake_name(parent))),
            Action::Copy { from, manifest } => Some(format!("docker-image://{from}@{manifest}")),
            Action::Test { .. } | Action::Nothing { .. } => None,
        });
        if let (Some(parent), Some(place)) = (parent, place) {
            made.insert("contexts".to_owned(), json!({ &parent.reference: place }));
        }
        Value::Object(made)
    }
}

/// The name of a target of bake: letters, digits, `_` and `-`.
fn bake_name(image: &PlannedImage) -> String {
    let legal = |text: &str| -> String {
        text.chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
            .collect()
    };
    match image.label == image.image {
        true => legal(&image.image),
        false => format!("{}_{}", legal(&image.image), legal(&image.plan)),
    }
}

/// A label of Mermaid, in which some characters have a meaning.
fn escaped(label: &str) -> String {
    let escape = |c: char| match c {
        '"' => "#quot;".to_owned(),
        '#' | '<' | '>' | '&' | '`' => format!("#{};", u32::from(c)),
        c => c.to_string(),
    };
    dockerutils_core::output::visible(label).chars().map(escape).collect()
}
