//! How files come from a dock and go to it, packed or plain: told by samples of them, and by how fast the link is.
//!
//! Where a dock has zstd, what gets smaller travels compressed. Most docks have a POSIX shell and gzip only, which compresses and
//! decompresses on one processor as fast as a good link carries what is not compressed, and decompresses what was only stored no
//! faster: there, all that goes over a fast link travels as it is. Pictures, archives and most weights of models always do.
//! Files are judged in groups: large ones each by itself, others by what their names end with. What comes is divided by that;
//! what goes is one archive, and goes as most of it is best sent. On the way here the last sample is the longest, and the
//! time that it takes to come says how fast the link is; on the way there a probe says it, which the dock throws away.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::compression::{Compression, Level};
use super::local::Local;
use super::remote::{Feed, Take, broken};
use super::{Item, ItemKind, split};
use crate::docker::connect::adaptive_compression;

/// Of less nothing is asked: it comes in the time that the answer would take.
const WORTH_ASKING: u64 = 8_000_000;
/// A file of so many bytes is judged by itself.
const LARGE: u64 = 4 << 20;
/// So many large files are, and so many endings; the rest is one group.
const GROUPS: usize = 8;
/// From so many places of a group a sample is taken.
const PLACES: u64 = 4;
/// Samples are made of blocks of so many bytes, as `dd` counts them; those of a group are no longer than this.
const BLOCK: u64 = 4096;
const SAMPLE: u64 = 4 * BLOCK;
/// The longest sample, by which the link is measured.
const PROBE: u64 = 1 << 20;
/// Samples are a small part of what is to come.
const SHARE: u64 = 32;
/// Where so many bytes a second come as they are, gzip on one processor of the dock would be what takes the time.
const FAST: f64 = 100e6;
/// So many bytes are under way in a channel at most, as ssh has it by default: over a link with a long delay, no more than
/// that comes in each delay, however fast the sample came.
const WINDOW: f64 = 2_097_152.0;
/// How long a nearby dock takes to begin with a script, which is no delay of the link.
const START: Duration = Duration::from_millis(10);

/// What is asked for, by path.
type WantedItems = HashMap<Vec<u8>, Item>;

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    path: Vec<u8>,
    /// Where it begins, and how long it is at most, in blocks.
    begins: u64,
    blocks: u64,
    /// Its bytes, by the size that was listed.
    bytes: u64,
}

impl Sample {
    /// So many bytes of a file, from about so far on.
    fn new(path: &[u8], size: u64, begins: u64, bytes: u64) -> Self {
        let begins = begins / BLOCK;
        let blocks = (bytes / BLOCK).max(1);
        Self {
            path: path.to_vec(),
            begins,
            blocks,
            bytes: (blocks * BLOCK).min(size.saturating_sub(begins * BLOCK)),
        }
    }
}

/// Files that are judged together.
#[derive(Clone, Debug)]
struct Group {
    paths: Vec<Vec<u8>>,
    samples: Vec<Sample>,
}

/// What the samples are taken of.
#[derive(Clone, Debug)]
pub struct Survey {
    groups: Vec<Group>,
    probe: Option<Sample>,
    /// What is not judged, and comes with the others: links, empty files.
    others: Vec<Vec<u8>>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SurveyResult {
    /// The samples of all groups, one behind the other.
    samples: Vec<u8>,
    /// The link's rate in bytes a second; `None` where there was nothing to measure it by.
    rate: Option<f64>,
}

impl Survey {
    /// Of what is to come; `None` where that is not worth it.
    pub fn of(wanted: &WantedItems) -> Option<Self> {
        let is_file = |item: &Item| item.kind == ItemKind::File && item.stamp.size > 0;
        let (files, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, item)| is_file(item));
        let mut files: Vec<(&Vec<u8>, u64)> = files.into_iter().map(|(path, item)| (path, item.stamp.size)).collect();
        let bytes = files.iter().fold(0_u64, |all, (_, size)| all.saturating_add(*size));
        if bytes < WORTH_ASKING {
            return None;
        }
        files.sort_by(|(a, large), (b, small)| small.cmp(large).then_with(|| a.cmp(b)));
        let probe = files.first().and_then(|(path, size)| {
            let length = PROBE.min(bytes / SHARE).min(size / 2);
            (length > SAMPLE).then(|| Sample::new(path, *size, (size - length) / 2, length))
        });
        let mut groups = Vec::new();
        let mut endings: BTreeMap<Vec<u8>, Vec<(&Vec<u8>, u64)>> = BTreeMap::new();
        for (path, size) in files {
            if size >= LARGE && groups.len() < GROUPS {
                groups.push(vec![(path, size)]);
            } else {
                endings.entry(ending(path)).or_default().push((path, size));
            }
        }
        let mut endings: Vec<_> = endings.into_values().collect();
        endings.sort_by_key(|files| std::cmp::Reverse(files.iter().map(|(_, size)| u128::from(*size)).sum::<u128>()));
        let rest: Vec<_> = endings
            .split_off(endings.len().min(GROUPS))
            .into_iter()
            .flatten()
            .collect();
        groups.extend(endings);
        groups.extend((!rest.is_empty()).then_some(rest));
        Some(Self {
            groups: groups.iter().map(|files| Group::of(files)).collect(),
            probe,
            others: others.into_iter().map(|(path, _)| path.clone()).collect(),
        })
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.groups.iter().flat_map(|group| &group.samples).chain(&self.probe)
    }

    /// What [`super::script::SAMPLES`] is fed: each path with where its sample begins and how long it is, a NUL after each.
    pub fn feed(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for sample in self.samples() {
            text.extend_from_slice(b"./");
            text.extend_from_slice(&sample.path);
            text.extend_from_slice(format!("\0{}\0{}\0", sample.begins, sample.blocks).as_bytes());
        }
        text
    }

    /// The bytes of the samples of groups, and of the last one.
    pub fn lengths(&self) -> (u64, u64) {
        let all = self.groups.iter().flat_map(|group| &group.samples);
        (
            all.map(|sample| sample.bytes).sum(),
            self.probe.as_ref().map_or(0, |probe| probe.bytes),
        )
    }

    /// The samples of all groups, of files of this machine; `None` where one can't be read as it was listed.
    pub fn read(&self, local: &Local) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        for sample in self.groups.iter().flat_map(|group| &group.samples) {
            let (file, _) = local.open_file(&sample.path).ok()?;
            let before = text.len();
            text.resize(before + usize::try_from(sample.bytes).ok()?, 0);
            file.read_exact_at(text.get_mut(before..)?, sample.begins * BLOCK)
                .ok()?;
        }
        Some(text)
    }

    /// Whether most of these bytes get smaller, by the samples of all groups.
    pub fn gets_smaller(self, files: &WantedItems, samples: Vec<u8>) -> bool {
        let (packed, plain) = self.divide(Some(&SurveyResult { samples, rate: None }), Compression::Gzip);
        let bytes = |paths: Vec<Vec<u8>>| -> u64 {
            let sizes = paths.iter().filter_map(|path| files.get(path));
            sizes.map(|item| item.stamp.size).fold(0, u64::saturating_add)
        };
        bytes(packed) >= bytes(plain)
    }

    /// Which of all paths are to travel compressed in this way, and which plain. Where nothing was heard that makes sense, all
    /// travel compressed.
    pub fn divide(self, heard: Option<&SurveyResult>, compression: Compression) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut packed, mut plain) = (Vec::new(), Vec::new());
        let is_fast = match compression {
            Compression::Plain => true,
            Compression::Gzip => rate_of(heard).is_some_and(|rate| rate >= FAST),
            // ssh is no faster than zstd.
            Compression::Zstd => false,
        };
        let mut left = heard.map_or(&[] as &[u8], |heard| heard.samples.as_slice());
        for group in self.groups {
            let length: u64 = group.samples.iter().map(|sample| sample.bytes).sum();
            let (sample, after) = left.split_at(left.len().min(usize::try_from(length).unwrap_or(usize::MAX)));
            left = after;
            let stays = is_fast || (!sample.is_empty() && !adaptive_compression::gets_smaller(sample));
            let list = if stays { &mut plain } else { &mut packed };
            list.extend(group.paths);
        }
        let list = if packed.is_empty() { &mut plain } else { &mut packed };
        list.extend(self.others);
        (packed, plain)
    }
}

impl Group {
    /// Of files, largest first, with their sizes.
    fn of(files: &[(&Vec<u8>, u64)]) -> Self {
        let samples = match files {
            [(path, size)] => {
                let room = size.saturating_sub(SAMPLE);
                let places = (0..PLACES).map(|place| room / (PLACES - 1) * place);
                let mut samples: Vec<Sample> = places.map(|at| Sample::new(path, *size, at, SAMPLE)).collect();
                samples.dedup();
                samples
            }
            // Of a small file its middle: what it begins with says what it is, and is not like the rest.
            files => {
                let step = files.len().div_ceil(usize::try_from(PLACES).unwrap_or(1));
                let of =
                    |(path, size): &(&Vec<u8>, u64)| Sample::new(path, *size, size.saturating_sub(SAMPLE) / 2, SAMPLE);
                files.iter().step_by(step.max(1)).map(of).collect()
            }
        };
        Self {
            paths: files.iter().map(|(path, _)| (*path).clone()).collect(),
            samples,
        }
    }
}

/// The link's rate in bytes a second, if it was measured.
fn rate_of(heard: Option<&SurveyResult>) -> Option<f64> {
    heard.and_then(|heard| heard.rate)
}

/// How hard what comes over the link is to be compressed.
pub fn level(heard: Option<&SurveyResult>) -> Level {
    rate_of(heard).map_or_else(Level::default, Level::of_link)
}

/// What a file's name ends with, behind its last dot.
fn ending(path: &[u8]) -> Vec<u8> {
    let name = split(path).1;
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
    let ending = dot.and_then(|at| name.get(at + 1..)).unwrap_or_default();
    ending.to_ascii_lowercase()
}

/// Reads samples of so many bytes in all, and a last one of so many; `None` where it is not just that which comes. `began` is when
/// they were asked for.
///
/// # Errors
/// The link's.
pub fn hear(from: &mut dyn Read, (samples, probe): (u64, u64), began: Instant) -> io::Result<Option<SurveyResult>> {
    // There and back, and what the dock needs to begin.
    let delay = began.elapsed();
    let mut text = Vec::new();
    from.take(samples).read_to_end(&mut text)?;
    let mut buffer = vec![0; 64 << 10];
    let (mut first, mut come) = (None, 0);
    loop {
        let read = from.read(&mut buffer)? as u64;
        if read == 0 || come + read > probe {
            come += read;
            break;
        }
        come += read;
        // What came first was there already, and says nothing.
        first.get_or_insert((Instant::now(), read));
    }
    if text.len() as u64 != samples || come != probe {
        return Ok(None);
    }
    let rate = first.map(|(since, read)| rate(come - read, since.elapsed(), delay));
    Ok(Some(SurveyResult { samples: text, rate }))
}

/// A probe of the link to the dock, for so many bytes that are about to go there: what [`super::script::PROBE`] is fed, and what is
/// made of its end, which is whether the link is faster than gzip. `began` is when it was called.
pub fn probe(bytes: u64, began: Instant) -> (Feed<()>, Take<bool>) {
    let length = PROBE.min(bytes / SHARE);
    let (tell, is_there) = std::sync::mpsc::channel();
    let feed = Box::new(move |to: &mut dyn Write| {
        // Where nobody is there, that is said by whoever takes the answer.
        let _ = is_there.recv();
        let sent = io::copy(&mut io::repeat(0).take(length), to).and_then(|_| to.flush());
        sent.map_err(|cause| broken(&cause))
    });
    let take = Box::new(move |from: &mut dyn Read| {
        let (delay, since) = (began.elapsed(), Instant::now());
        let _ = tell.send(());
        io::copy(from, &mut io::sink()).map_err(|cause| broken(&cause))?;
        // The end is told after one more delay.
        let took = since.elapsed().saturating_sub(delay.saturating_sub(START));
        Ok(rate(length, took, delay) >= FAST)
    });
    (feed, take)
}

/// Bytes a second of a link on which so many came in this time, and the first after this delay.
fn rate(bytes: u64, took: Duration, delay: Duration) -> f64 {
    let seen = bytes as f64 / took.as_secs_f64().max(1e-6);
    seen.min(WINDOW / delay.saturating_sub(START).as_secs_f64().max(1e-6))
}

#[cfg(test)]
mod tests {
    use super::super::Stamp;
    use super::*;

    fn wanted(files: &[(&str, u64)]) -> WantedItems {
        let item = |size| Item {
            kind: ItemKind::File,
            mode: 0o644,
            stamp: Stamp {
                size,
                ..Stamp::default()
            },
            owner: 0,
            device: 0,
            target: None,
        };
        files
            .iter()
            .map(|(path, size)| (path.as_bytes().to_vec(), item(*size)))
            .collect()
    }

    fn noise(seed: u64, length: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// What a dock would say where these files are noise, and all others zeros.
    fn said(survey: &Survey, is_noise: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let say = |sample: &Sample| match is_noise(&sample.path) {
            true => noise(sample.begins + sample.bytes, sample.bytes),
            false => vec![0; usize::try_from(sample.bytes).unwrap()],
        };
        survey.samples().flat_map(say).collect()
    }

    fn sorted(paths: &[Vec<u8>]) -> Vec<String> {
        let mut names: Vec<String> = paths
            .iter()
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_gets_smaller_is_told_by_samples_of_each_large_file_and_of_each_ending() {
        let files = [
            ("weights.bin", 300_000_000),
            ("log.bin", 200_000_000),
            ("d/a.jpg", 90_000),
            ("d/b.JPG", 80_000),
            ("c.py", 5_000),
            (".hidden", 300),
            ("empty", 0),
        ];
        let survey = Survey::of(&wanted(&files)).unwrap();
        let (samples, probe) = survey.lengths();
        assert!((samples + probe) * SHARE / 2 < 500_000_000, "{samples} {probe}");
        let is_noise = |path: &[u8]| path == b"weights.bin" || ending(path) == b"jpg";
        let said = said(&survey, is_noise);
        let begun = Instant::now();
        let mut heard = hear(&mut said.as_slice(), survey.lengths(), begun).unwrap().unwrap();
        heard.rate = Some(12e6);
        let (packed, plain) = survey.clone().divide(Some(&heard), Compression::Gzip);
        assert_eq!(sorted(&plain), ["d/a.jpg", "d/b.JPG", "weights.bin"]);
        assert_eq!(sorted(&packed), [".hidden", "c.py", "empty", "log.bin"]);
        // Over a fast link, nothing is packed: that would take longer.
        heard.rate = Some(FAST);
        let (packed, plain) = survey.clone().divide(Some(&heard), Compression::Gzip);
        assert_eq!((packed.len(), plain.len()), (0, 7));
        assert_eq!(level(Some(&heard)), Level::Fast);
        // zstd is faster than that.
        let (packed, plain) = survey.clone().divide(Some(&heard), Compression::Zstd);
        assert_eq!((packed.len(), plain.len()), (4, 3));
        // A dock that says more, or less, or nothing, is not judged.
        for said in [
            [said.as_slice(), b"x".as_slice()].concat(),
            said[1..].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(hear(&mut said.as_slice(), survey.lengths(), begun).unwrap(), None);
        }
        let (packed, plain) = survey.divide(None, Compression::Gzip);
        assert_eq!((packed.len(), plain.len()), (7, 0));
    }

    #[test]
    fn however_many_files_there_are_few_samples_are_asked_for() {
        let names: Vec<String> = (0..3_000).map(|number| format!("data.{number}")).collect();
        let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 5_000_000)).collect();
        let survey = Survey::of(&wanted(&files)).unwrap();
        assert!(survey.samples().count() <= 70, "{}", survey.samples().count());
        let paths: usize = survey.groups.iter().map(|group| group.paths.len()).sum();
        assert_eq!(paths, 3_000);
        assert!(Survey::of(&wanted(&[("a", WORTH_ASKING - 1)])).is_none());
        assert!(Survey::of(&wanted(&[("a", u64::MAX), ("b", u64::MAX)])).is_some());
    }

    #[test]
    fn a_sample_ends_with_its_file() {
        let survey = Survey::of(&wanted(&[("a", WORTH_ASKING + 1), ("b.x", 5_001)])).unwrap();
        for sample in survey.samples() {
            let size = if sample.path == b"a" { WORTH_ASKING + 1 } else { 5_001 };
            assert!(sample.begins * BLOCK + sample.bytes <= size, "{sample:?}");
            assert!(sample.bytes > 0 && sample.bytes <= sample.blocks * BLOCK, "{sample:?}");
        }
        let text = survey.feed();
        let words: Vec<&[u8]> = text.split(|byte| *byte == 0).collect();
        assert_eq!(words.len(), survey.samples().count() * 3 + 1);
        assert!(words.chunks_exact(3).all(|words| words[0].starts_with(b"./")));
    }

    #[test]
    fn a_long_delay_makes_a_link_slow_that_carries_a_sample_quickly() {
        let (second, milliseconds) = (Duration::from_secs(1), Duration::from_millis);
        assert!((rate(12_000_000, second, milliseconds(1)) - 12e6).abs() < 1.0);
        assert!(rate(1 << 20, milliseconds(1), milliseconds(2)) > FAST);
        assert!(rate(1 << 20, milliseconds(1), milliseconds(100)) < FAST);
    }
}
