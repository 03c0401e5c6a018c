//! Bytes of the ssh protocols: numbers in network order, and strings after their length (RFC 4251, section 5).

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct MessageWriter(Vec<u8>);

impl MessageWriter {
    /// A packet of a session (RFC 4254) as it goes through OpenSSH's control socket: no padding, its number, its fields.
    pub(super) fn packet(number: u8) -> Self {
        Self(vec![0, number])
    }

    pub(super) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn number(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn string(mut self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        // No string here is nearly that long; a longer one would be cut, and the message refused.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    /// The message with its length before it, as it is sent.
    pub(super) fn framed(self) -> Vec<u8> {
        Self::default().string(self.0).0
    }
}

/// A message that is being read. A missing field is `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageReader<'a>(pub(super) &'a [u8]);

impl<'a> MessageReader<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        // A string that is not complete is left as it is: the rest of it may come.
        let mut ahead = *self;
        let length = ahead.number()? as usize;
        let (value, rest) = ahead.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    /// A string for users to read.
    pub(super) fn text(&mut self) -> Option<String> {
        self.string().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let message = MessageWriter::packet(90).string("session").number(7).byte(1).framed();
        let mut whole = MessageReader(&message);
        let mut fields = MessageReader(whole.string().unwrap());
        assert!(whole.0.is_empty());
        assert_eq!((fields.byte(), fields.byte()), (Some(0), Some(90)));
        assert_eq!(fields.text().as_deref(), Some("session"));
        assert_eq!(
            (fields.number(), fields.byte(), fields.byte()),
            (Some(7), Some(1), None)
        );
    }

    #[test]
    fn what_is_cut_off_is_not_there() {
        assert_eq!(MessageReader(&[0, 0, 0]).number(), None);
        let mut cut = MessageReader(&[0, 0, 0, 2, 1]);
        assert_eq!((cut.string(), cut.0.len()), (None, 5));
        assert_eq!(MessageReader(&[255, 255, 255, 255]).string(), None);
    }
}
