//! How what travels between this machine and a dock is compressed: by the best tool that the dock has.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;

use crate::docker::connect::adaptive_compression::Format;
use crate::docker::images::unpacking;

/// How a stream from or to a dock is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: the dock has neither tool.
    #[default]
    Plain,
    /// By gzip, which every usual system has, and busybox.
    Gzip,
    /// By zstd, which compresses and decompresses several times as fast.
    Zstd,
}

impl Compression {
    /// The best of the tools that [`super::script::LOOK`] found: words with spaces between them.
    pub fn of_tools(tools: &str) -> Self {
        let has = |word| tools.split(' ').any(|tool| tool == word);
        let best_first = [Self::Zstd, Self::Gzip];
        best_first.into_iter().find(|best| has(best.word())).unwrap_or_default()
    }

    /// How the scripts call it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The format of what is compressed here; `None` for what is not.
    pub const fn format(self) -> Option<Format> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some(Format::Gzip),
            Self::Zstd => Some(Format::Zstd),
        }
    }

    /// Decompresses what comes from a dock, several streams one after the other.
    ///
    /// # Errors
    /// A lack of memory.
    pub fn reader<'a>(self, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(from),
            Self::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(from))),
            Self::Zstd => Box::new(unpacking::zstd_reader(from)?),
        })
    }
}

/// How hard a dock's zstd compresses. gzip is always asked for its fastest level: it is slow enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// About as fast as ssh encrypts.
    Fast,
    /// zstd's own choice.
    #[default]
    Usual,
    /// For a slow link, which one processor outruns all the same.
    Hard,
}

/// From so many bytes a second on, a link is too fast for the usual level; below so many, it waits for nothing at the hard one.
const FAST_LINK: f64 = 80e6;
const SLOW_LINK: f64 = 10e6;

impl Level {
    /// The level for a link that carries so many bytes a second.
    pub fn of_link(rate: f64) -> Self {
        match rate {
            FAST_LINK.. => Self::Fast,
            SLOW_LINK.. => Self::Usual,
            _ => Self::Hard,
        }
    }

    /// zstd's number for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fast => "1",
            Self::Usual => "3",
            Self::Hard => "6",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_best_tool_of_a_dock_is_used() {
        for (tools, best) in [
            ("zstd rsync", Compression::Zstd),
            ("rsync gzip", Compression::Gzip),
            ("gzip zstd", Compression::Zstd),
            ("plain rsync folds", Compression::Plain),
            ("", Compression::Plain),
            ("pigzip", Compression::Plain),
        ] {
            assert_eq!(Compression::of_tools(tools), best, "{tools}");
        }
    }

    #[test]
    fn what_comes_in_several_streams_is_read_to_the_end_and_what_is_cut_is_an_error() {
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        let both = |one: &dyn Fn(&[u8]) -> Vec<u8>| [one(b"first "), one(b"second")].concat();
        for (compression, bytes) in [
            (Compression::Plain, b"first second".to_vec()),
            (Compression::Gzip, both(&gzip)),
            (Compression::Zstd, both(&zstd)),
        ] {
            let read = |bytes: &[u8]| {
                let mut text = String::new();
                compression.reader(bytes)?.read_to_string(&mut text)?;
                io::Result::Ok(text)
            };
            assert_eq!(read(&bytes).unwrap(), "first second", "{compression:?}");
            let is_cut = read(&bytes[..bytes.len() - 1]).is_err();
            assert_eq!(is_cut, compression != Compression::Plain, "{compression:?}");
        }
    }
}
