//! What a container mounts by way of something that the dock has already: volumes by their names, and the mounts of other
//! containers (`--volumes-from`).
//!
//! What the engine says of them is a stranger's word. A volume counts if its label says which path of here its device
//! stands for; a container, if it was made from here. What they name is looked for on this machine after that, as a source
//! is that a client says: only the folder of a project that a person has sent to this dock is ever synced. A volume in a
//! workspace that has no such label was made with the dock's own path in mind, and is left alone.

use std::collections::{BTreeSet, HashMap};
use std::io;

use dock_client::agent::target::Target;
use tokio::time::{Duration, Instant};

use super::label::{LABEL, MountLabel};
use super::requests::References;
use crate::link::{Link, OpenOptions};
use crate::ports::engine::{Engine, ShownVolume};
use crate::transport::Connector;

/// How many volumes are known at most.
const KNOWN: usize = 4096;

/// What the engine says of these.
#[derive(Default)]
pub(super) struct Asked {
    /// Those that there are, by name, with what their devices stand for: nothing, for most.
    pub(super) volumes: Vec<(String, MountLabel)>,
    /// The IDs of those that there are, with the values of their labels.
    pub(super) containers: Vec<(String, MountLabel)>,
}

/// Asks the engine what these are, one after the other on a connection of its own.
pub(super) async fn ask<C: Connector>(link: &Link<C>, references: &References) -> io::Result<Asked> {
    let options = OpenOptions {
        arrival: Instant::now(),
        patience: Duration::ZERO,
        answers: false,
    };
    let (connection, _over) = link.open(options, &Target::Engine).await.map_err(io::Error::other)?;
    let mut engine = Engine::on(connection.stream).await?;
    let mut asked = Asked::default();
    for name in &references.volumes {
        if let Some(volume) = engine.volume(name).await? {
            asked.volumes.push((name.clone(), of_volume(&volume)));
        }
    }
    for name in &references.containers {
        if let Some(container) = engine.container(name).await? {
            let label = of_labels(container.config.labels.as_ref());
            asked.containers.push((container.id, label));
        }
    }
    Ok(asked)
}

/// What the device of a volume stands for.
pub(super) fn of_volume(volume: &ShownVolume) -> MountLabel {
    let device = volume.options.as_ref().and_then(|options| options.get("device"));
    let mut label = of_labels(volume.labels.as_ref());
    label.retain(&|there, _| device.is_some_and(|device| device == there));
    label
}

fn of_labels(labels: Option<&HashMap<String, String>>) -> MountLabel {
    let value = labels.and_then(|labels| labels.get(LABEL));
    value.and_then(|value| MountLabel::parse(value)).unwrap_or_default()
}

/// What is known of the volumes that there are, so that the engine is not asked for each container. That is known only as long as
/// the engine's events are followed: another volume of the same name comes after the end of the first one.
#[derive(Default)]
pub(super) struct KnownVolumes {
    is_followed: bool,
    labels: HashMap<String, MountLabel>,
}

impl KnownVolumes {
    /// Begins: the events are followed from now on.
    pub(super) fn follow(&mut self) {
        *self = Self {
            is_followed: true,
            labels: HashMap::new(),
        };
    }

    /// Ends: what is known may be wrong from now on.
    pub(super) fn lose(&mut self) {
        *self = Self::default();
    }

    /// Notes a volume that there is.
    pub(super) fn note(&mut self, name: String, label: MountLabel) {
        if self.is_followed && self.labels.len() < KNOWN {
            self.labels.insert(name, label);
        }
    }

    /// Forgets a volume that is no more; all of them, if it is not said which.
    pub(super) fn forget(&mut self, name: &str) {
        match name {
            "" => self.labels.clear(),
            name => drop(self.labels.remove(name)),
        }
    }

    /// Takes those that are known out of these, and gives what their devices stand for.
    pub(super) fn take_known(&self, names: &mut BTreeSet<String>) -> Vec<MountLabel> {
        let known: Vec<(String, MountLabel)> = names
            .iter()
            .filter_map(|name| Some((name.clone(), self.labels.get(name)?.clone())))
            .collect();
        names.retain(|name| !self.labels.contains_key(name));
        known.into_iter().map(|(_, label)| label).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(document: &serde_json::Value) -> MountLabel {
        of_volume(&serde_json::from_value(document.clone()).unwrap())
    }

    #[test]
    fn a_volume_stands_for_what_its_label_says_of_its_device_and_for_nothing_else() {
        let label = r#"{"/etc":"/home/ann/etc","/w/data":"/home/ann/data"}"#;
        let ours = json!({"Name": "v", "Labels": {LABEL: label}, "Options": {"device": "/w/data", "o": "bind"}});
        assert_eq!(volume(&ours).value(), r#"{"/w/data":"/home/ann/data"}"#);
        for (labels, options) in [
            (json!({LABEL: label}), json!({"device": "/w/data/sub"})),
            (json!({LABEL: label}), json!({"device": "/w"})),
            (json!({LABEL: label}), json!({"type": "tmpfs"})),
            (json!({LABEL: label}), json!(null)),
            (json!({LABEL: format!("{label} ")}), json!({"device": "/w/data"})),
            (json!({}), json!({"device": "/w/data"})),
            (json!(null), json!({"device": "/w/data"})),
        ] {
            let other = json!({"Name": "v", "Labels": labels, "Options": options});
            assert!(volume(&other).is_empty(), "{other}");
        }
    }

    #[test]
    fn what_is_known_of_volumes_holds_as_long_as_they_are_followed() {
        let ours = MountLabel::parse(r#"{"/w":"/h"}"#).unwrap();
        let mut known = KnownVolumes::default();
        let asked_for = |known: &KnownVolumes| {
            let mut names = ["a", "b", "c"].map(str::to_owned).into();
            let labels = known.take_known(&mut names);
            (names.into_iter().collect::<Vec<_>>().join(" "), labels)
        };
        known.note("a".into(), ours.clone());
        assert_eq!(asked_for(&known), ("a b c".to_owned(), vec![]));
        known.follow();
        known.note("a".into(), ours.clone());
        known.note("c".into(), MountLabel::default());
        assert_eq!(
            asked_for(&known),
            ("b".to_owned(), vec![ours.clone(), MountLabel::default()])
        );
        known.forget("c");
        known.forget("x");
        assert_eq!(asked_for(&known), ("b c".to_owned(), vec![ours.clone()]));
        // Of a prune, the names are not said.
        known.forget("");
        assert_eq!(asked_for(&known).0, "a b c");
        known.note("a".into(), ours);
        known.lose();
        known.follow();
        assert_eq!(asked_for(&known).0, "a b c");
        for number in 0..KNOWN + 3 {
            known.note(number.to_string(), MountLabel::default());
        }
        assert_eq!(known.labels.len(), KNOWN);
    }
}
