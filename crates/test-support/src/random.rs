//! Random numbers that are the same on all machines, so that a failure can be repeated from its seed.

/// A small generator (SplitMix64).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit, which must not be 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// An index into this many things, at least one.
    pub const fn index(&mut self, count: usize) -> usize {
        // Below a number that was a usize.
        self.below(count as u64) as usize
    }

    /// One of these values.
    ///
    /// # Panics
    /// When there are none.
    // `index` is below their number.
    #[allow(clippy::indexing_slicing)]
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// True once in this many times, on average.
    pub const fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}
