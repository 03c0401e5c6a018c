//! Decompresses layers that are compressed with zstd, for engines that can't read zstd.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes handed on at once.
const CHUNK: usize = 256 << 10;
/// How far back a frame may refer, as a power of two, in bytes: 32 MiB, as with zstd's level 20. Decompressing takes
/// that much memory.
const LARGEST_WINDOW: u32 = 25;

/// Reads zstd's frames, one after the other.
///
/// # Errors
/// A lack of memory; while it is read, data that is not zstd, or was compressed with a window larger than 32 MiB.
pub fn zstd_reader<R: Read>(from: R) -> io::Result<zstd::stream::read::Decoder<'static, io::BufReader<R>>> {
    let mut decoder = zstd::stream::read::Decoder::new(from)?;
    decoder.window_log_max(LARGEST_WINDOW)?;
    Ok(decoder)
}

/// Decompresses what is read, and hands it on; for a thread outside of the runtime. Also ends when the receiver is
/// gone.
///
/// # Errors
/// Data that is not zstd, or was compressed with a larger window; and the reader's own.
pub fn unpack(packed: impl Read, plain: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut decoder = zstd_reader(packed)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(());
        }
        if plain.blocking_send(Bytes::from(chunk)).is_err() {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let (plain, mut coming) = mpsc::channel(1000);
        let result = unpack(packed, &plain);
        drop(plain);
        let mut all = Vec::new();
        while let Some(chunk) = coming.blocking_recv() {
            all.extend_from_slice(&chunk);
        }
        result.map(|()| all)
    }

    #[test]
    fn frames_are_unpacked_one_after_the_other() {
        let long = b"a layer ".repeat(100_000);
        let frames = [
            zstd::encode_all(&long[..], 3).unwrap(),
            zstd::encode_all(&b"end"[..], 1).unwrap(),
        ]
        .concat();
        assert_eq!(unpacked(&frames).unwrap(), [&long[..], b"end"].concat());
    }

    #[test]
    fn what_breaks_off_or_is_none_is_an_error() {
        let whole = zstd::encode_all(&b"a layer".repeat(1000)[..], 3).unwrap();
        assert!(unpacked(&whole[..whole.len() - 4]).is_err());
        assert!(unpacked(b"a plain tar").is_err());
    }

    #[test]
    fn a_frame_that_wants_much_memory_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        // If the size were known, the window would be no larger than that.
        encoder.include_contentsize(false).unwrap();
        io::Write::write_all(&mut encoder, &[7; 1000]).unwrap();
        assert!(unpacked(&encoder.finish().unwrap()).is_err());
    }
}
