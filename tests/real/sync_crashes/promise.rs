//! The model of what sync promises: every version of a file that was ever at rest on one side is still somewhere, unless a
//! person replaced or removed it.

use std::collections::BTreeSet;

/// A version of a file: a number that no other version has. It is what the file begins with.
pub(super) type Version = u32;

/// Digits of a version at the beginning of a file.
const DIGITS: usize = 8;

/// Where somebody works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Here,
    There,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Here, Self::There];

    const fn index(self) -> usize {
        match self {
            Self::Here => 0,
            Self::There => 1,
        }
    }
}

/// With how many bytes a version is filled up. Many have the same size: by that alone they can't be told apart.
pub(super) const fn padding(version: Version) -> usize {
    if version.is_multiple_of(3) { 3000 } else { 20 }
}

/// The version that a file holds; `None` where it is not whole.
pub(super) fn version_of(content: &[u8]) -> Option<Version> {
    let (digits, rest) = content.split_at_checked(DIGITS)?;
    let version = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let padding = rest.strip_prefix(b"\n")?;
    let is_whole = padding.len() == self::padding(version) && padding.iter().all(|byte| *byte == b'x');
    is_whole.then_some(version)
}

/// What must not be lost.
#[derive(Debug, Default)]
pub(super) struct Promise {
    /// The versions that were at rest: on the disk of their side, whole and by name.
    rested: BTreeSet<Version>,
    /// Those of each side that a power cut there may still take.
    fresh: [BTreeSet<Version>; 2],
    made: Version,
}

impl Promise {
    /// A version that nobody had yet.
    pub(super) const fn next(&mut self) -> Version {
        self.made += 1;
        self.made
    }

    /// Somebody wrote it on this side.
    pub(super) fn written(&mut self, side: Side, version: Version) {
        self.fresh[side.index()].insert(version);
    }

    /// Somebody replaced or removed what was this version: it may go.
    pub(super) fn given_up(&mut self, version: Version) {
        self.rested.remove(&version);
        for fresh in &mut self.fresh {
            fresh.remove(&version);
        }
    }

    /// All that was written on this side is on its disk.
    pub(super) fn rests(&mut self, side: Side) {
        self.rested.append(&mut self.fresh[side.index()]);
    }

    /// The power of this side was cut: what its own disk had not yet, it need not have.
    pub(super) fn cut(&mut self, side: Side) {
        self.fresh[side.index()].clear();
    }

    /// The versions that are nowhere among what was found, but have to be somewhere.
    pub(super) fn lost(&self, found: &BTreeSet<Version>) -> Vec<Version> {
        self.rested.difference(found).copied().collect()
    }

    /// Gives up what is in the trash alone, which somebody empties.
    pub(super) fn keep_only(&mut self, versions: &BTreeSet<Version>) {
        self.rested.retain(|version| versions.contains(version));
    }
}

#[test]
fn the_model_of_sync_finds_what_is_lost() {
    let mut promise = Promise::default();
    let (first, second, third) = (promise.next(), promise.next(), promise.next());
    let found = |versions: &[Version]| versions.iter().copied().collect::<BTreeSet<_>>();
    promise.written(Side::Here, first);
    promise.written(Side::There, second);
    assert_eq!(promise.lost(&found(&[])), [] as [Version; 0], "neither is on a disk");
    promise.rests(Side::Here);
    promise.cut(Side::There);
    promise.rests(Side::There);
    assert_eq!(promise.lost(&found(&[])), [first]);
    assert_eq!(promise.lost(&found(&[first])), [] as [Version; 0]);
    promise.written(Side::Here, third);
    promise.given_up(first);
    promise.rests(Side::Here);
    assert_eq!(promise.lost(&found(&[first])), [third]);
    promise.keep_only(&found(&[second]));
    assert_eq!(promise.lost(&found(&[])), [] as [Version; 0]);
}

#[test]
fn a_file_that_is_not_whole_is_no_version() {
    let whole = [b"00000002\n".as_slice(), &[b'x'; 20]].concat();
    assert_eq!(version_of(&whole), Some(2));
    for broken in [&whole[..28], &whole[..4], b"", &[0; 29]] {
        assert_eq!(version_of(broken), None, "{broken:?}");
    }
}
