//! Compression of a stream to an engine that adapts to the link: harder where the link is slow, none where compressing
//! would be what takes the time.
//!
//! The stream is cut into pieces, each a frame of its own: engines read frames one after the other (RFC 8878, section 3.1;
//! RFC 1952, section 2.2), so that each piece may be packed in another way.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a piece. A longer one gains nothing at the levels that are used.
pub const PIECE: usize = 1 << 20;

/// A block of zstd has no more (RFC 8878, section 3.1.1.2.3).
const ZSTD_BLOCK: usize = 128 << 10;

/// What the other side can unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Engines since 23 (API 1.42), and docks that have the tool.
    Zstd,
    /// All engines, and nearly all docks.
    Gzip,
}

/// Levels from none upwards, each with the bytes a second of unpacked data above which it is not worth its time.
const ZSTD: [(i32, f64); 4] = [(0, f64::INFINITY), (1, 300e6), (3, 200e6), (6, 25e6)];
const GZIP: [(i32, f64); 3] = [(0, f64::INFINITY), (1, 60e6), (6, 15e6)];
/// Where so many bytes a second go unpacked, the link is not much slower than what packs, and both may wait for the same
/// processor: whether packing helps is tried out there. Below, it does.
const FAST: f64 = 100e6;
/// Pieces by which two ways are compared, after as many that only fill what lies between.
const TRIAL: u32 = 12;
/// After so many pieces that are measured, a trial that goes at less than half of the other way's rate is given up.
const HOPELESS: u32 = 6;
/// Packing must be faster than not packing by this factor, since not packing costs nothing.
const GAIN: f64 = 1.1;
/// What gets smaller by this factor is always packed: nothing carries as many times the bytes in less time than packing takes. An
/// empty queue says nothing against it: over a link with a delay, bytes go in bursts.
const PLAIN_CASE: f64 = 3.0;
/// So often in a row must the link be found waiting, or choked, before the level changes.
const PATIENCE: i32 = 3;
/// A way that was tried in vain is tried again after twice as many pieces, from this on, up to that.
const FIRST_PAUSE: u32 = 48;
const LONGEST_PAUSE: u32 = 768;

/// How full the queue to the link was when a piece was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Empty: the link waits for us.
    Empty,
    /// Neither.
    Moving,
    /// Full: we wait for the link.
    Full,
}

/// What is known of a link, from all streams that go over it: how hard to pack.
#[derive(Debug)]
pub struct Pace {
    format: Format,
    gear: usize,
    leaning: i32,
    /// Bytes a second, the latest pieces counting most.
    rate: Option<f64>,
    /// When the latest piece went.
    last: Option<Instant>,
    /// The pieces since the gear was changed, and their bytes and time: after [`TRIAL`] of them, without those.
    pieces: u32,
    measured: (usize, Duration),
    /// By which factor packing makes the data smaller, the latest packed pieces counting most.
    factor: f64,
    /// The gear that is tried, which other to go back to, and how fast that was.
    trial: Option<(usize, f64)>,
    /// Pieces until the next trial, and how many they are to be after one in vain.
    wait: u32,
    pause: u32,
}

impl Pace {
    /// Begins with little compression: a small layer is over before anything is known of the link.
    pub const fn new(format: Format) -> Self {
        Self {
            format,
            gear: 1,
            leaning: 0,
            rate: None,
            last: None,
            pieces: 0,
            measured: (0, Duration::ZERO),
            factor: 1.0,
            trial: None,
            wait: 0,
            pause: FIRST_PAUSE,
        }
    }

    fn gears(&self) -> &'static [(i32, f64)] {
        match self.format {
            Format::Zstd => &ZSTD,
            Format::Gzip => &GZIP,
        }
    }

    /// The level for the next piece.
    pub fn level(&self) -> i32 {
        self.gears().get(self.gear).map_or(1, |(level, _)| *level)
    }

    /// Learns that a piece of `bytes` went now, packed to so many, and how full the queue was.
    pub fn went(&mut self, bytes: usize, packed: usize, queue: Queue) {
        let now = Instant::now();
        if self.gear > 0 {
            let factor = bytes as f64 / packed.max(1) as f64;
            self.factor = self.factor * 0.75 + factor * 0.25;
        }
        // What is sent early, because nothing follows for now, says nothing of the link.
        if let (Some(last), true) = (self.last.replace(now), bytes >= PIECE) {
            self.learn(bytes, now.duration_since(last), queue);
        }
    }

    fn learn(&mut self, bytes: usize, took: Duration, queue: Queue) {
        // Where the link waits for us, its rate can't be seen.
        if queue != Queue::Empty {
            let now = bytes as f64 / took.as_secs_f64().max(1e-6);
            self.rate = Some(self.rate.map_or(now, |rate| rate * 0.75 + now * 0.25));
        }
        self.pieces += 1;
        self.wait = self.wait.saturating_sub(1);
        self.measured.0 += bytes;
        self.measured.1 += took;
        let measured = self.measured.0 as f64 / self.measured.1.as_secs_f64().max(1e-6);
        if self.pieces == TRIAL {
            self.measured = (0, Duration::ZERO);
        }
        self.leaning = match queue {
            Queue::Empty => self.leaning.min(0) - 1,
            Queue::Moving => 0,
            Queue::Full => self.leaning.max(0) + 1,
        };
        let is_measured = self.pieces >= 2 * TRIAL;
        if let Some((other, its)) = self.trial {
            let counted = if self.pieces > TRIAL {
                self.pieces - TRIAL
            } else {
                self.pieces
            };
            let is_hopeless = counted >= HOPELESS && measured < its / 2.0;
            if is_measured || is_hopeless {
                let (less, more) = if self.gear < other {
                    (measured, its)
                } else {
                    (its, measured)
                };
                let packs = more > less * GAIN;
                let better = if packs {
                    self.gear.max(other)
                } else {
                    self.gear.min(other)
                };
                if better == other {
                    self.wait = self.pause;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                } else {
                    self.wait = FIRST_PAUSE;
                }
                self.shift(better, None);
            }
            return;
        }
        let rate = self.rate.unwrap_or(f64::INFINITY);
        let up = self.gear + 1;
        let may_climb = self.gears().get(up).is_some_and(|(_, limit)| rate < *limit);
        let least = usize::from(self.factor >= PLAIN_CASE);
        if self.leaning <= -PATIENCE && self.gear > least {
            self.shift(self.gear - 1, None);
        } else if rate >= FAST {
            if is_measured && self.wait == 0 && queue != Queue::Empty {
                match self.gear {
                    gear if may_climb && (gear == 0 || queue == Queue::Full && least == 1) => {
                        self.shift(up, Some((gear, measured)));
                    }
                    gear if gear <= least => {}
                    gear => self.shift(gear - 1, Some((gear, measured))),
                }
            }
        } else if self.leaning >= PATIENCE {
            if may_climb {
                self.shift(up, None);
            }
            self.leaning = 0;
        }
    }

    const fn shift(&mut self, gear: usize, trial: Option<(usize, f64)>) {
        self.gear = gear;
        self.trial = trial;
        self.leaning = 0;
        self.pieces = 0;
        self.measured = (0, Duration::ZERO);
    }
}

/// Pieces of which this part of a hundred or less would be saved are not packed.
const SAVING: usize = 4;
/// The number of samples that decide this, and their size in bytes.
const SAMPLES: usize = 8;
const SAMPLE: usize = 4 << 10;
/// Packed pieces that wait for the link, at most, of a [`packed`] stream.
const WAITING: usize = 2;

/// Whether packing makes a piece smaller: pictures, archives and most weights of models are as small as they get. Samples tell,
/// in a fiftieth of the time that packing all of it would take.
fn is_worth_packing(piece: &[u8]) -> bool {
    if piece.len() <= SAMPLES * SAMPLE {
        return true;
    }
    let step = piece.len() / SAMPLES;
    let samples: Vec<u8> = piece
        .chunks(step)
        .take(SAMPLES)
        .flat_map(|part| part.get(..SAMPLE).unwrap_or(part))
        .copied()
        .collect();
    gets_smaller(&samples)
}

/// Whether packing makes data smaller of which these are samples.
pub fn gets_smaller(samples: &[u8]) -> bool {
    let mut encoder =
        flate2::write::DeflateEncoder::new(Vec::with_capacity(samples.len()), flate2::Compression::fast());
    let packed = encoder.write_all(samples).and_then(|()| encoder.finish());
    packed.map_or(true, |packed| packed.len() * 100 < samples.len() * (100 - SAVING))
}

/// Writes what `feed` writes, packed as fits the link and the data: frames of this format, one after the other. Packing goes on
/// while the link is waited for.
///
/// # Errors
/// A failure of the link. A failure of `feed` is in its own result; the stream then ends where it had come.
pub fn packed<T: Send>(
    to: &mut dyn Write,
    format: Format,
    feed: impl FnOnce(&mut dyn Write) -> T + Send,
) -> io::Result<T> {
    let (frames, coming) = sync_channel::<Vec<u8>>(WAITING);
    let waiting = AtomicUsize::new(0);
    thread::scope(|scope| {
        let waiting = &waiting;
        let packing = scope.spawn(move || {
            let mut pieces = PieceWriter {
                packer: Packer::new(format),
                pace: Pace::new(format),
                piece: Vec::with_capacity(PIECE),
                frames,
                waiting,
            };
            let fed = feed(&mut pieces);
            pieces.send().map(|()| fed)
        });
        let mut written = Ok(());
        for frame in coming {
            waiting.fetch_sub(1, Ordering::Relaxed);
            written = to.write_all(&frame);
            if written.is_err() {
                // Who packs is told by the channel's end.
                break;
            }
        }
        let packed = packing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread ended early")));
        written.and(packed)
    })
}

/// Cuts what is written into pieces, and packs them.
struct PieceWriter<'a> {
    packer: Packer,
    pace: Pace,
    piece: Vec<u8>,
    frames: SyncSender<Vec<u8>>,
    waiting: &'a AtomicUsize,
}

impl PieceWriter<'_> {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let frame = self.packer.pack(&self.piece, self.pace.level())?;
        let queue = match self.waiting.load(Ordering::Relaxed) {
            0 => Queue::Empty,
            WAITING.. => Queue::Full,
            _ => Queue::Moving,
        };
        let packed = frame.len();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.frames
            .send(frame)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.pace.went(self.piece.len(), packed, queue);
        self.piece.clear();
        Ok(())
    }
}

impl Write for PieceWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = data.get(..room).unwrap_or(data);
        self.piece.extend_from_slice(taken);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(taken.len())
    }

    // Pieces go out when they are full, and at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs pieces.
pub struct Packer {
    format: Format,
    /// zstd's tables, which are not made anew for each piece.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    /// A packer of this format.
    pub const fn new(format: Format) -> Self {
        Self { format, zstd: None }
    }

    /// Packs a piece, if it gets smaller by that; the result is a whole frame.
    ///
    /// # Errors
    /// A failure of the compressor: only lack of memory makes it fail.
    pub fn pack(&mut self, piece: &[u8], level: i32) -> io::Result<Vec<u8>> {
        let level = if level > 0 && !is_worth_packing(piece) {
            0
        } else {
            level
        };
        match (self.format, level) {
            (Format::Zstd, 0) => Ok(stored_frame(piece)),
            (Format::Zstd, level) => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Compressor::new(level)?),
                };
                zstd.set_compression_level(level)?;
                zstd.compress(piece)
            }
            (Format::Gzip, level) => {
                let level = flate2::Compression::new(u32::try_from(level).unwrap_or(1));
                let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(piece.len() / 2), level);
                encoder.write_all(piece)?;
                encoder.finish()
            }
        }
    }
}

/// A frame of zstd that stores its content as it is (RFC 8878, section 3.1.1): a single segment, its size in four bytes, raw
/// blocks, no checksum.
fn stored_frame(content: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0xfd2f_b528;
    const SINGLE_SEGMENT_AND_FOUR_BYTES_OF_SIZE: u8 = 0b1010_0000;
    let mut frame = Vec::with_capacity(content.len() + 64);
    frame.extend(MAGIC.to_le_bytes());
    frame.push(SINGLE_SEGMENT_AND_FOUR_BYTES_OF_SIZE);
    // A piece is far smaller than 4 GiB.
    frame.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut rest = content;
    loop {
        let (block, after) = rest.split_at(rest.len().min(ZSTD_BLOCK));
        let last = u32::from(after.is_empty());
        let header = last | (u32::try_from(block.len()).unwrap_or_default() << 3);
        frame.extend(header.to_le_bytes().iter().take(3));
        frame.extend_from_slice(block);
        rest = after;
        if rest.is_empty() {
            return frame;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn unpacked(format: Format, packed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match format {
            Format::Zstd => zstd::stream::read::Decoder::new(packed).unwrap().read_to_end(&mut out),
            Format::Gzip => flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut out),
        }
        .unwrap();
        out
    }

    #[test]
    fn pieces_of_every_gear_are_one_stream() {
        let pieces: [Vec<u8>; 5] = [
            b"hello ".repeat(1000),
            (0..PIECE).map(|at| (at * at % 251) as u8).collect(),
            vec![0; ZSTD_BLOCK],
            Vec::new(),
            b"end".to_vec(),
        ];
        for format in [Format::Zstd, Format::Gzip] {
            let mut packer = Packer::new(format);
            for (level, _) in Pace::new(format).gears() {
                let stream: Vec<u8> = pieces
                    .iter()
                    .flat_map(|piece| packer.pack(piece, *level).unwrap())
                    .collect();
                assert_eq!(unpacked(format, &stream), pieces.concat(), "{format:?} {level}");
            }
        }
    }

    /// Lets pieces go, each of which takes so many milliseconds by its gear, and gives those that were packed.
    fn go(pace: &mut Pace, pieces: usize, queue: Queue, took: impl Fn(usize) -> u64) -> usize {
        let packed = (0..pieces).filter(|_| {
            let gear = pace.gear;
            pace.learn(PIECE, Duration::from_millis(took(gear)), queue);
            gear > 0
        });
        packed.count()
    }

    /// Data that nothing makes smaller.
    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn what_does_not_get_smaller_is_stored() {
        let noise = noise(PIECE);
        assert!(!is_worth_packing(&noise));
        let text = b"the quick brown fox jumps over the lazy dog\n".repeat(PIECE / 44);
        assert!(is_worth_packing(&text));
        // Half of it does.
        let half = [&noise[..PIECE / 2], &text[..PIECE / 2]].concat();
        assert!(is_worth_packing(&half));
        for format in [Format::Zstd, Format::Gzip] {
            for (piece, is_stored) in [(&noise, true), (&text, false), (&half, false)] {
                let packed = Packer::new(format).pack(piece, 6).unwrap();
                assert_eq!(packed.len() >= piece.len(), is_stored, "{format:?}");
                assert_eq!(&unpacked(format, &packed), piece);
            }
        }
    }

    #[test]
    fn a_stream_is_packed_while_it_is_written_and_an_end_of_the_link_ends_it() {
        let text = b"the quick brown fox jumps over the lazy dog\n".repeat(100_000);
        let all = [text.as_slice(), &noise(3 * PIECE + 7)].concat();
        for format in [Format::Gzip, Format::Zstd] {
            let mut out = Vec::new();
            let fed = packed(&mut out, format, |to| to.write_all(&all).map(|()| 7)).unwrap();
            assert_eq!(fed.unwrap(), 7);
            assert!(out.len() < all.len() - 3_000_000, "{}", out.len());
            assert!(unpacked(format, &out) == all);
        }

        struct Cut(usize);
        impl Write for Cut {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::ConnectionReset)?;
                Ok(data.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let endless = |to: &mut dyn Write| while to.write_all(&all).is_ok() {};
        let error = packed(&mut Cut(2), Format::Gzip, endless).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_slow_link_gets_small_pieces_and_one_that_waits_plain_ones() {
        let mut pace = Pace::new(Format::Zstd);
        assert_eq!(pace.gear, 1);
        go(&mut pace, 100, Queue::Full, |_| 80);
        assert_eq!(pace.gear, 3);
        go(&mut pace, 100, Queue::Moving, |_| 80);
        assert_eq!(pace.gear, 3);
        go(&mut pace, 100, Queue::Empty, |_| 80);
        assert_eq!(pace.gear, 0);
        // A link of 20 MB/s is not packed for as one of 12 is.
        let mut pace = Pace::new(Format::Zstd);
        go(&mut pace, 100, Queue::Full, |_| 20);
        assert_eq!(pace.gear, 2);
    }

    #[test]
    fn on_a_fast_link_it_is_tried_out_whether_packing_helps() {
        // A gigabit without delay: packed, more goes.
        let mut pace = Pace::new(Format::Zstd);
        let packed = go(&mut pace, 1000, Queue::Full, |gear| if gear == 0 { 9 } else { 5 });
        assert!(packed > 800, "{packed}");
        // One processor for all: packing takes the time of the rest.
        for queue in [Queue::Full, Queue::Moving] {
            let mut pace = Pace::new(Format::Zstd);
            let packed = go(&mut pace, 1000, queue, |gear| if gear == 0 { 7 } else { 9 });
            assert!((24..200).contains(&packed), "{packed}");
        }
    }

    #[test]
    fn a_trial_that_is_far_slower_ends_early() {
        // Text over 38 MB/s: compressed, five times as much of it goes. What lies between takes the first pieces at once.
        let mut pace = Pace::new(Format::Zstd);
        let mut plain = 0;
        for _ in 0..300 {
            let took = match pace.gear {
                0 if pace.pieces < 4 => 1,
                0 => 26,
                _ => 5,
            };
            plain += usize::from(pace.gear == 0);
            pace.learn(PIECE, Duration::from_millis(took), Queue::Full);
        }
        assert!((1..=24).contains(&plain), "{plain}");
    }

    #[test]
    fn what_gets_far_smaller_is_never_sent_plain() {
        let mut pace = Pace::new(Format::Zstd);
        pace.factor = 5.0;
        let packed = go(&mut pace, 1000, Queue::Full, |gear| if gear == 2 { 6 } else { 7 });
        assert_eq!((packed, pace.gear), (1000, 2));
        // Bursts: the queue is empty again and again, and full in between.
        let mut pace = Pace::new(Format::Zstd);
        pace.factor = 5.0;
        for _ in 0..100 {
            assert_eq!(go(&mut pace, 8, Queue::Empty, |_| 1), 8);
            assert_eq!(go(&mut pace, 4, Queue::Full, |_| 12), 4);
        }
        // What was seen of the data decides.
        let mut pace = Pace::new(Format::Zstd);
        for _ in 0..20 {
            pace.went(PIECE, PIECE / 6, Queue::Moving);
        }
        assert!(pace.factor > PLAIN_CASE);
    }

    #[test]
    fn a_pause_of_the_source_is_no_slow_link() {
        let mut pace = Pace::new(Format::Zstd);
        pace.learn(PIECE, Duration::from_secs(30), Queue::Empty);
        go(&mut pace, 6, Queue::Full, |_| 4);
        assert!(pace.gear <= 1);
    }
}
