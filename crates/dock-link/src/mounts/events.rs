//! The engine's stream of events without our label: an event shows all labels of its container as the attributes of its
//! actor.
//!
//! Whatever has the form of our label is taken out, without a look at whose it is: nothing else of an event shows the
//! paths that it stands for, and a look would have the stream wait for this machine's disks.

use super::json_object::{JsonObject, string};
use super::label::{LABEL, MountLabel};

/// The longest part of the stream that is looked at, in bytes. An engine writes an event in one chunk of the body; one that is
/// longer passes as it comes.
pub(crate) const LONGEST_EVENTS: usize = 256 * 1024;

/// Whole lines of the stream without the label. `None` if there is nothing to change. What is no event stays.
///
/// The lines are JSON; in API 1.52 and later also records of a JSON text sequence (RFC 7464), which begin with a character
/// of their own.
pub fn unlabelled(lines: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(lines).ok()?;
    if !text.contains(LABEL) {
        return None;
    }
    let mut changed = String::with_capacity(text.len());
    let mut is_changed = false;
    for line in text.split_inclusive('\n') {
        let begin = line.len() - line.trim_start_matches(is_around).len();
        let end = begin + line.get(begin..)?.trim_end_matches(is_around).len();
        match event(line.get(begin..end)?) {
            Some(event) => {
                is_changed = true;
                changed.push_str(line.get(..begin)?);
                changed.push_str(&event);
                changed.push_str(line.get(end..)?);
            }
            None => changed.push_str(line),
        }
    }
    is_changed.then(|| changed.into_bytes())
}

/// What may stand around an event in its line.
const fn is_around(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n' | '\u{1e}')
}

fn event(json: &str) -> Option<String> {
    let mut event = JsonObject::structure(json)?;
    let mut actor = JsonObject::structure(event.get("Actor").ok()??)?;
    let mut attributes = JsonObject::map(actor.get("Attributes").ok()??)?;
    MountLabel::parse(&string(attributes.get(LABEL).ok()??)?)?;
    attributes.remove(LABEL).ok()?;
    actor.set("Attributes", attributes.render()).ok()?;
    event.set("Actor", actor.render()).ok()?;
    Some(event.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"status":"start","id":"a","Type":"container","Actor":{"ID":"a","Attributes":{"image":"i",LABEL"name":"web"}},"scope":"local","time":1,"timeNano":1700000000000000001}"#;

    fn with(label: &str) -> String {
        EVENT.replace("LABEL", label)
    }

    fn ours() -> String {
        with(r#""io.dockerutils.mounts":"{\"/w/a\":\"/h/a\"}","#)
    }

    fn changed(lines: &str) -> Option<String> {
        unlabelled(lines.as_bytes()).map(|lines| String::from_utf8(lines).unwrap())
    }

    #[test]
    fn an_event_is_the_same_without_the_label() {
        let (ours, plain) = (ours(), with(""));
        for (lines, expected) in [
            (ours.clone(), plain.clone()),
            (format!("{ours}\n"), format!("{plain}\n")),
            (format!("\u{1e}{ours}\n"), format!("\u{1e}{plain}\n")),
            (
                format!("{plain}\n{ours}\r\n\n{ours}\n"),
                format!("{plain}\n{plain}\r\n\n{plain}\n"),
            ),
            (
                format!("no event\n{ours}\n{{\"Actor\":"),
                format!("no event\n{plain}\n{{\"Actor\":"),
            ),
        ] {
            assert_eq!(changed(&lines), Some(expected), "{lines}");
        }
    }

    #[test]
    fn what_is_no_event_with_our_label_stays() {
        for lines in [
            "",
            "\n",
            "nonsense",
            LABEL,
            &with(""),
            // Of an image that was committed.
            &with(r#""io.dockerutils.mounts":"","#),
            &with(r#""io.dockerutils.mounts":"{}","#),
            &with(r#""x":"io.dockerutils.mounts","#),
            &ours().replace("Attributes", "Other"),
            &ours().replace("\"Actor\"", "\"Actor\":{},\"actor\""),
            &ours().replace('}', ""),
            &format!("{} {}", ours(), ours()),
        ] {
            assert_eq!(changed(lines), None, "{lines}");
        }
        let not_text = [ours().as_bytes(), b"\xff"].concat();
        assert_eq!(unlabelled(&not_text), None);
    }
}
