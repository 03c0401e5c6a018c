//! Giving transfers up: which of the layers that are kept at a place may go, and which stay because somebody is at it.

use std::collections::HashSet;

use serde::Serialize;

use super::endpoint::TransferEndpoint;
use super::manifests::USER_LABEL;
use super::running::{TransferIdentity, process_of};
use super::verify::{PartialImage, half_removed, partial_images, remove};
use crate::context::Context;
use crate::docker::connect::engine::Engine;
use crate::docker::images::manifest::Digest;
use crate::env::Env;
use crate::error::{ExitStatus, Result};
use crate::machine_id::known_machine_id;
use crate::output::{counted, visible};
use crate::shell;

/// What has kept layers for longer than this, in seconds, nobody is at any more.
const FORGOTTEN: i64 = 24 * 60 * 60;
/// The longest part of another machine's name that is shown.
const LONGEST_HOST: usize = 64;

/// What keeps layers and stays, of one transfer.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Left {
    /// The ID of the image that the layers are of.
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<String>,
    /// The name of the machine that it was begun on.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// The process in which it runs on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    /// How long ago the last of its layers arrived.
    age_seconds: i64,
    kept_by: Vec<Digest>,
}

/// Removes what interrupted transfers of this user keep at a place: those of this machine, or of `all` machines. What a
/// transfer keeps that runs on this machine stays in either case.
///
/// # Errors
/// A refusal or a broken connection.
pub async fn abort(context: &Context, place: &TransferEndpoint, engine: &Engine, all: bool) -> Result<ExitStatus> {
    let (env, printer) = (&context.env, &context.printer);
    // The locks are looked at after the layers: what a transfer that begins now keeps is not among these.
    let found = partial_images(engine, &format!("{USER_LABEL}={}", env.user())).await?;
    let own = known_machine_id(env);
    let mut done: Vec<Digest> = half_removed(engine).await?;
    let mut left: Vec<Left> = Vec::new();
    let now = jiff::Timestamp::now().as_second();
    for partial_image in found {
        let is_here = own.is_some() && partial_image.machine == own;
        let process = process_in(&partial_image, own.as_deref(), env);
        if process.is_none() && (is_here || all) {
            done.push(partial_image.id);
        } else {
            stay(&mut left, partial_image, process, now);
        }
    }
    let mut seen = HashSet::new();
    done.retain(|image| seen.insert(image.clone()));
    if context.global.dry_run {
        let line = |image: &Digest| format!("docker rmi {} (on {})", image.short(), visible(&place.name));
        printer.plan(&done.iter().map(line).collect::<Vec<_>>())?;
    } else {
        remove(engine, &done).await?;
    }
    for left in &left {
        printer.warning(&left.said(&place.name));
    }
    if context.global.dry_run {
        return Ok(ExitStatus::SUCCESS);
    }
    if printer.json() {
        printer.result_json(&serde_json::json!({ "removed": done, "left": left }))?;
    } else {
        let name = visible(&place.name);
        printer.result(&match (done.len(), left.is_empty()) {
            (0, true) => format!("nothing is left of transfers on {name}"),
            (0, false) => format!("nothing was removed on {name}"),
            (number, _) => format!("removed what transfers left on {name}: {}", images(number)),
        });
    }
    Ok(ExitStatus::SUCCESS)
}

/// Whether what keeps layers of an image may go, now that the image is whole: what this transfer has kept, and what an
/// interrupted one has. What another machine's keeps goes when nobody can be at it any more.
pub fn is_over(partial_image: &PartialImage, identity: &TransferIdentity, env: &Env) -> bool {
    if is_own(partial_image, identity, env) {
        return true;
    }
    let runs_here = process_in(partial_image, identity.machine.as_deref(), env).is_some();
    let age = jiff::Timestamp::now().as_second().saturating_sub(partial_image.created);
    !runs_here && age > FORGOTTEN
}

/// Whether it is this transfer's, or one's of the same user that was interrupted on this machine.
pub fn is_own(partial_image: &PartialImage, identity: &TransferIdentity, env: &Env) -> bool {
    if partial_image.transfer.as_ref() == Some(&identity.id) {
        return true;
    }
    let is_here = identity.machine.is_some() && partial_image.machine == identity.machine;
    let is_users = partial_image.user.as_ref() == Some(&identity.user);
    is_here && is_users && process_in(partial_image, identity.machine.as_deref(), env).is_none()
}

/// The process of this machine in which its transfer runs.
fn process_in(partial_image: &PartialImage, own: Option<&str>, env: &Env) -> Option<String> {
    let transfer = partial_image.transfer.as_deref()?;
    own.filter(|own| partial_image.machine.as_deref() == Some(own))?;
    process_of(transfer, env)
}

fn stay(left: &mut Vec<Left>, partial_image: PartialImage, process: Option<String>, now: i64) {
    let age_seconds = now.saturating_sub(partial_image.created).max(0);
    let same = |left: &&mut Left| {
        (&left.image, &left.transfer, &left.host)
            == (&partial_image.image, &partial_image.transfer, &partial_image.host)
    };
    match left.iter_mut().find(same) {
        Some(left) => {
            left.age_seconds = left.age_seconds.min(age_seconds);
            left.kept_by.push(partial_image.id);
        }
        None => left.push(Left {
            image: partial_image.image,
            transfer: partial_image.transfer,
            host: partial_image.host,
            process,
            age_seconds,
            kept_by: vec![partial_image.id],
        }),
    }
}

impl Left {
    /// Why it stays, and what removes it.
    fn said(&self, place: &str) -> String {
        // All of it is another machine's word.
        let image = match Digest::parse(&self.image) {
            Ok(image) => image.short().to_owned(),
            Err(_) => "an image".to_owned(),
        };
        let what = format!(
            "{} with layers of {image} stay on {}",
            images(self.kept_by.len()),
            visible(place)
        );
        if let Some(process) = &self.process {
            return format!("{what}: their transfer runs just now, in process {process}");
        }
        let host: String = self
            .host
            .iter()
            .flat_map(|host| host.chars())
            .take(LONGEST_HOST)
            .collect();
        let whose = match host.as_str() {
            "" => "another machine".to_owned(),
            host => format!("another machine, {}", visible(host)),
        };
        let place = shell::quote(place);
        format!(
            "{what}: they came from {whose}, the last {} ago, and their transfer may still run; to remove them, there: \
             transfer-image --abort {place}, or here: transfer-image --abort --all {place}",
            span(self.age_seconds)
        )
    }
}

fn images(number: usize) -> String {
    counted(number, "unnamed image")
}

/// A time as people say it, in the largest unit that it has one of.
fn span(seconds: i64) -> String {
    let (number, unit) = match seconds {
        ..60 => return "less than a minute".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    counted(number, unit)
}

#[cfg(test)]
mod tests {
    use super::super::running::RunningTransfer;
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn partial_image(identity: &TransferIdentity) -> PartialImage {
        PartialImage {
            id: digest("partial_image"),
            image: digest("image").to_string(),
            user: Some(identity.user.clone()),
            machine: identity.machine.clone(),
            host: Some(identity.host.clone()),
            transfer: Some(identity.id.clone()),
            created: jiff::Timestamp::now().as_second(),
        }
    }

    #[test]
    fn what_somebody_is_at_is_not_over() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap()), ("USER", "ann")]);
        let (own, _) = RunningTransfer::begin(&env).unwrap();
        let (other, _) = RunningTransfer::begin(&env).unwrap();
        let (own_partial, mut beside) = (partial_image(&own.identity), partial_image(&other.identity));
        assert!(is_own(&own_partial, &own.identity, &env) && is_over(&own_partial, &own.identity, &env));
        // However long it takes.
        beside.created = 0;
        assert!(!is_own(&beside, &own.identity, &env) && !is_over(&beside, &own.identity, &env));
        drop(other);
        assert!(is_own(&beside, &own.identity, &env) && is_over(&beside, &own.identity, &env));
        let mut elsewhere = PartialImage {
            machine: Some("f".repeat(32)),
            ..beside.clone()
        };
        elsewhere.created = own_partial.created;
        let unknown = PartialImage {
            machine: None,
            ..elsewhere.clone()
        };
        for mut partial_image in [elsewhere, unknown] {
            assert!(!is_own(&partial_image, &own.identity, &env) && !is_over(&partial_image, &own.identity, &env));
            partial_image.created -= FORGOTTEN + 1;
            assert!(!is_own(&partial_image, &own.identity, &env) && is_over(&partial_image, &own.identity, &env));
        }
        // Another user's of the same machine.
        let others = PartialImage {
            user: Some("bob".to_owned()),
            created: own_partial.created,
            ..beside
        };
        assert!(!is_own(&others, &own.identity, &env) && !is_over(&others, &own.identity, &env));
    }

    #[test]
    fn what_stays_is_named_once_for_each_transfer() {
        let identity = TransferIdentity {
            id: "0123456789abcdef".to_owned(),
            user: "ann".to_owned(),
            machine: Some("f".repeat(32)),
            host: "lap\u{1b}top".to_owned(),
        };
        let mut left = Vec::new();
        for created in [1000, 5000, 3000] {
            let partial_image = PartialImage {
                created,
                ..partial_image(&identity)
            };
            stay(&mut left, partial_image, None, 5000 + 7200);
        }
        let other = PartialImage {
            transfer: Some("fedcba9876543210".to_owned()),
            ..partial_image(&identity)
        };
        stay(&mut left, other, Some("4711".to_owned()), 0);
        assert_eq!(left.len(), 2);
        let said = left[0].said("far");
        assert!(said.starts_with("3 unnamed images with layers of "), "{said}");
        assert!(said.contains(", the last 2 hours ago,"), "{said}");
        assert!(said.ends_with("transfer-image --abort --all far"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
        let said = left[1].said("far");
        assert!(said.starts_with("1 unnamed image with layers of "), "{said}");
        assert!(said.ends_with("runs just now, in process 4711"), "{said}");
    }

    #[test]
    fn times_are_said_in_their_largest_unit() {
        for (seconds, text) in [
            (0, "less than a minute"),
            (60, "1 minute"),
            (7199, "1 hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
