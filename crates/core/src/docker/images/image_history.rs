//! What an engine says about an image, for people to read: where it is from, its layers with the instructions that made them, its
//! labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::docker::connect::engine::{Engine, found};
use crate::error::Result;

/// The most layers and labels that are told: far more than any image has, and an engine could go on for ever.
const MOST: usize = 1_000;
/// The most characters of an instruction, of a label's name and of its value.
const LONGEST: usize = 4_000;

/// An image in an engine's words. Nothing of it is safe to show as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageHistory {
    /// `sha256:` and hexadecimal digits: of the configuration, or of the manifest in a containerd store.
    pub id: String,
    /// Such as `linux/arm64/v8`.
    pub platform: String,
    /// When it was made, as RFC 3339 has it; `None` if the image does not say.
    pub created: Option<String>,
    /// In bytes, unpacked in a classic store, packed and unpacked in containerd's.
    pub size: u64,
    /// The digests of manifests by which registries know it: `repository@sha256:...`.
    pub repo_digests: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Lowest first.
    pub layers: Vec<HistoryStep>,
}

/// An instruction that made an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStep {
    /// As the builder wrote it down.
    pub instruction: String,
    /// In bytes; 0 for an instruction that made no layer.
    pub size: u64,
}

/// What the engine says about an image; `None` where it does not have it.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn of_image(engine: &Engine, reference: &str) -> Result<Option<ImageHistory>> {
    let image = found(engine.docker().inspect_image(reference).await);
    let Some(image) = image.map_err(|cause| engine.error(reference, cause))? else {
        return Ok(None);
    };
    let history = engine.docker().image_history(reference).await;
    let history = history.map_err(|cause| engine.error(reference, cause))?;
    let bytes = |size: i64| u64::try_from(size).unwrap_or_default();
    let platform = [image.os, image.architecture, image.variant];
    let platform: Vec<String> = platform.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
    Ok(Some(ImageHistory {
        id: short(&image.id.unwrap_or_default()),
        platform: short(&platform.join("/")),
        created: image.created.map(|created| short(&created)),
        size: bytes(image.size.unwrap_or_default()),
        repo_digests: image
            .repo_digests
            .unwrap_or_default()
            .iter()
            .take(MOST)
            .map(|digest| short(digest))
            .collect(),
        labels: labels
            .iter()
            .take(MOST)
            .map(|(name, value)| (short(name), short(value)))
            .collect(),
        // The newest is first.
        layers: history
            .iter()
            .take(MOST)
            .rev()
            .map(|step| HistoryStep {
                instruction: instruction(&step.created_by),
                size: bytes(step.size),
            })
            .collect(),
    }))
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// The instruction as a Dockerfile has it. The classic builder writes `/bin/sh -c #(nop)  CMD ["sh"]` for one that runs nothing,
/// and `/bin/sh -c make` for RUN; BuildKit writes `RUN /bin/sh -c make # buildkit`.
fn instruction(created_by: &str) -> String {
    let text = created_by.strip_suffix("# buildkit").unwrap_or(created_by).trim();
    let without_shell = |text: &str| text.strip_prefix("/bin/sh -c ").map(str::trim).map(str::to_owned);
    let made = match (text.strip_prefix("RUN "), without_shell(text)) {
        (Some(run), _) => match without_shell(run) {
            Some(command) => format!("RUN {command}"),
            None => text.to_owned(),
        },
        (None, Some(command)) => match command.strip_prefix("#(nop)") {
            Some(nothing_run) => nothing_run.trim().to_owned(),
            None => format!("RUN {command}"),
        },
        (None, None) => text.to_owned(),
    };
    short(&made)
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine};
    use serde_json::json;

    use super::*;
    use crate::docker::connect::endpoint::{Choice, Endpoint, Origin};

    #[test]
    fn instructions_are_those_of_the_dockerfile() {
        for (written, instruction) in [
            (
                "/bin/sh -c #(nop)  CMD [\"/bin/sh\" \"-c\" \"x\"]",
                "CMD [\"/bin/sh\" \"-c\" \"x\"]",
            ),
            ("/bin/sh -c make", "RUN make"),
            ("RUN /bin/sh -c make && x # buildkit", "RUN make && x"),
            (
                "RUN |1 A=1 /bin/bash -o pipefail -c make # buildkit",
                "RUN |1 A=1 /bin/bash -o pipefail -c make",
            ),
            ("COPY a /a # buildkit", "COPY a /a"),
            ("", ""),
        ] {
            assert_eq!(super::instruction(written), instruction);
        }
    }

    #[tokio::test]
    async fn an_image_is_described_lowest_layer_first() {
        let engine = ScriptedEngine::start()
            .on(
                "GET",
                "/images/a:1/json",
                Reply::json(
                    200,
                    &json!({ "Id": "sha256:ab", "Os": "linux", "Architecture": "arm64", "Variant": "v8", "Size": 12,
                        "Created": "2026-10-01T10:00:00Z", "RepoDigests": ["a@sha256:cd"],
                        "Config": { "Labels": { "who": "ann" } } }),
                ),
            )
            .on(
                "GET",
                "/images/a:1/history",
                Reply::json(
                    200,
                    &json!([
                        { "Id": "<missing>", "Created": 2, "CreatedBy": "COPY a /a # buildkit", "Tags": null, "Size": 5, "Comment": "" },
                        { "Id": "<missing>", "Created": 1, "CreatedBy": "/bin/sh -c make", "Tags": null, "Size": 7, "Comment": "" },
                    ]),
                ),
            )
            .on("GET", "/images/b:1/json", Reply::error(404, "no such image"));
        let choice = Choice {
            endpoint: Endpoint::Unix(engine.socket()),
            origin: Origin::Host,
        };
        let engine = Engine::connect_to(choice).await.unwrap();
        let found = of_image(&engine, "a:1").await.unwrap().unwrap();
        assert_eq!((found.platform.as_str(), found.size), ("linux/arm64/v8", 12));
        assert_eq!(found.labels["who"], "ann");
        let layers: Vec<(&str, u64)> = found
            .layers
            .iter()
            .map(|step| (step.instruction.as_str(), step.size))
            .collect();
        assert_eq!(layers, [("RUN make", 7), ("COPY a /a", 5)]);
        assert_eq!(of_image(&engine, "b:1").await.unwrap(), None);
    }
}
