//! The dock's version of a file in conflict, put beside this machine's as `NAME.dock`.

use std::collections::BTreeMap;

use super::download::Delivery;
use super::{Conflict, Round, Session, unhex};
use crate::hexadecimal::hex;
use crate::sync::plan::{Action, Direction, Why};
use crate::sync::remote::Shell;
use crate::sync::{Content, Item, ItemKind, OTHERS_WRITE};

/// The suffix of a copy.
const BESIDE: &[u8] = b".dock";

impl<S: Shell> Session<S> {
    /// The plan's conflicts, each with its copy if an earlier sync made one.
    pub(super) fn conflicts(&self, round: &Round<'_>) -> Vec<Conflict> {
        let conflicts = round.steps.iter().filter_map(|(path, action)| match action {
            Action::Conflict(why) => Some(Conflict {
                path: path.clone(),
                why: *why,
                beside: round.there.get(path).and_then(|item| self.lies_beside(path, item)),
            }),
            _ => None,
        });
        conflicts.collect()
    }

    /// The copy of exactly this version, if there is one.
    fn lies_beside(&self, path: &[u8], item: &Item) -> Option<Vec<u8>> {
        let version = version_of(path, item);
        let known = self
            .manifest
            .header
            .beside
            .iter()
            .find(|(_, known)| known.starts_with(&version))?;
        let name = unhex(known.0)?;
        matches!(self.local.look(&name), Ok(Some(_))).then_some(name)
    }

    /// Chooses names for the copies that this round makes, and removes the copies of conflicts that are resolved.
    pub(super) fn plan_beside(&mut self, round: &Round<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let Round {
            request, steps, there, ..
        } = round;
        let over: Vec<(String, String)> = self
            .manifest
            .header
            .beside
            .iter()
            .filter(|(_, version)| {
                let path = version.split(' ').next().and_then(unhex).unwrap_or_default();
                !matches!(steps.get(&path), Some(Action::Conflict(_)))
                    && (request.only.is_empty() || steps.contains_key(&path))
            })
            .map(|(name, version)| (name.clone(), version.clone()))
            .collect();
        for (name, version) in over {
            self.forget_beside(&name, &version);
        }
        let mut beside = BTreeMap::new();
        if request.direction == Direction::Up {
            return beside;
        }
        for (path, action) in steps {
            let Action::Conflict(Why::BothChanged | Why::BothNew | Why::RemovedHere) = action else {
                continue;
            };
            let Some(item) = there.get(path).filter(|item| item.kind != ItemKind::Directory) else {
                continue;
            };
            if self.lies_beside(path, item).is_some() {
                continue;
            }
            // It replaces the copy of an older version, unless the user edited that.
            let prefix = format!("{} ", hex(path));
            let older: Vec<(String, String)> = self
                .manifest
                .header
                .beside
                .iter()
                .filter(|(_, version)| version.starts_with(&prefix))
                .map(|(name, version)| (name.clone(), version.clone()))
                .collect();
            for (name, version) in older {
                self.forget_beside(&name, &version);
            }
            let name = [path.as_slice(), BESIDE].concat();
            let others = (2..100).map(|number| [name.as_slice(), format!("-{number}").as_bytes()].concat());
            let free = std::iter::once(name.clone())
                .chain(others)
                .find(|name| matches!(self.local.look(name), Ok(None)) && !there.contains_key(name));
            beside.extend(free.map(|name| (path.clone(), name)));
        }
        beside
    }

    /// Removes a copy if the user has not changed it.
    fn forget_beside(&mut self, name: &str, version: &str) {
        self.manifest.header.beside.remove(name);
        self.touched = true;
        let Some(path) = unhex(name) else { return };
        let content = version
            .rsplit(' ')
            .next()
            .and_then(|text| Content::from_hex(text.as_bytes()));
        let now = self.local.contents(std::slice::from_ref(&path)).get(&path).copied();
        if content.is_some()
            && now == content
            && let Ok(Some(item)) = self.local.look(&path)
        {
            // If it can't be removed, it is left to the user.
            let _ = self.local.remove(&path, &item);
        }
    }

    /// Puts the dock's version of a file beside ours, under this name.
    pub(super) fn put_beside(
        &mut self,
        path: &[u8],
        name: &[u8],
        round: &Round<'_>,
        delivery: &Delivery,
    ) -> Result<(), String> {
        let item = round.there.get(path).ok_or("it vanished")?;
        let arrived = delivery.get(path)?;
        if item.kind == ItemKind::File {
            delivery
                .stage
                .finish(&arrived.staged, item.mode & !OTHERS_WRITE, item.stamp.mtime)
                .map_err(|cause| cause.to_string())?;
        }
        self.local
            .put(name, &arrived.staged, &delivery.stage, None)
            .map_err(|error| error.to_string())?;
        let version = format!("{}{}", version_of(path, item), hex(&arrived.content.0));
        self.manifest.header.beside.insert(hex(name), version);
        self.touched = true;
        Ok(())
    }
}

/// Identifies a version on the dock: path and stamp, separated by blanks.
fn version_of(path: &[u8], item: &Item) -> String {
    let stamp = item.stamp;
    format!(
        "{} {},{},{},{} ",
        hex(path),
        stamp.size,
        stamp.mtime,
        stamp.ctime_ns,
        stamp.inode
    )
}
