//! What an engine says while it builds, pulls, pushes or loads: JSON documents, each on a line.
//!
//! Format: moby's `pkg/jsonmessage`; every field may be absent.

use serde::Deserialize;
use serde_json::Value;

/// A message is a few hundred bytes; a line that doesn't end is not a message.
const LONGEST: usize = 4 << 20;

/// Cuts a stream into messages, whatever its chunks are.
#[derive(Default)]
pub(in crate::docker) struct Messages {
    rest: Vec<u8>,
}

/// One message.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::docker) struct JsonMessage {
    /// What failed. The status of the response was a success all the same.
    pub(in crate::docker) error: Option<String>,
    /// Output of a build.
    pub(in crate::docker) stream: Option<String>,
    /// What is done to a layer.
    pub(in crate::docker) status: Option<String>,
    /// The short ID of the layer.
    pub(in crate::docker) id: Option<String>,
    /// How many bytes of the layer are done.
    pub(in crate::docker) progress_detail: Option<Progress>,
    aux: Option<Value>,
}

/// Bytes of a layer.
#[derive(Debug, Default, Deserialize)]
pub(in crate::docker) struct Progress {
    current: Option<i64>,
    total: Option<i64>,
}

impl Messages {
    /// The messages that are complete with this chunk. Anything else is skipped.
    pub(in crate::docker) fn push(&mut self, chunk: &[u8]) -> Vec<JsonMessage> {
        let mut messages = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") {
                messages.extend(serde_json::from_slice(&self.rest));
                self.rest.clear();
            }
        }
        if self.rest.len() > LONGEST {
            self.rest.clear();
        }
        messages
    }
}

impl JsonMessage {
    /// Bytes moved, and bytes in all; 0 if an engine does not know.
    pub(in crate::docker) fn progress(&self) -> (u64, u64) {
        let progress = self.progress_detail.as_ref();
        let bytes = |get: fn(&Progress) -> Option<i64>| {
            // -1 if an engine does not know it.
            u64::try_from(progress.and_then(get).unwrap_or_default()).unwrap_or_default()
        };
        (bytes(|progress| progress.current), bytes(|progress| progress.total))
    }

    /// A text in the `aux` object, such as the `ID` of what was built, or the `Digest` of what was pushed.
    pub(in crate::docker) fn aux(&self, name: &str) -> Option<&str> {
        self.aux.as_ref()?.get(name)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_wherever_the_chunks_end() {
        let mut messages = Messages::default();
        assert!(messages.push(b"{\"error\"").is_empty());
        let got = messages
            .push(b":\"no\"}\r\nno message\n{\"status\":\"x\",\"progressDetail\":{\"current\":3,\"total\":-1}}\n{");
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].error.as_deref(), Some("no"));
        assert_eq!((got[1].status.as_deref(), got[1].progress()), (Some("x"), (3, 0)));
        let got = messages.push(b"\"aux\":{\"ID\":\"sha256:1\",\"Size\":3}}\n{\"aux\":\"text\"}\n");
        assert_eq!(
            (got[0].aux("ID"), got[0].aux("Size"), got[1].aux("ID")),
            (Some("sha256:1"), None, None)
        );
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let mut messages = Messages::default();
        for _ in 0..7 {
            assert!(messages.push(&vec![b' '; 1 << 20]).is_empty());
            assert!(messages.rest.len() <= LONGEST + (1 << 20));
        }
        assert_eq!(messages.push(b"\n{\"id\":\"1\"}\n").len(), 1);
    }
}
