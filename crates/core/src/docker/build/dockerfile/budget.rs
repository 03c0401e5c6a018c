//! How much work one Dockerfile may make.

use std::cell::Cell;

/// Characters that are read, made and compared for one Dockerfile: variables that double each other, or patterns that match in very
/// many ways, would fill the memory or never end.
pub(super) const BUDGET: u64 = 20_000_000;

/// A word that the builder refuses, or that is too long to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// What may still be spent on a Dockerfile.
#[derive(Debug)]
pub(super) struct Budget(Cell<u64>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(BUDGET))
    }
}

impl Budget {
    pub(super) fn spend(&self, characters: usize) -> Result<(), Unreadable> {
        let left = self.0.get().checked_sub(characters as u64).ok_or(Unreadable)?;
        self.0.set(left);
        Ok(())
    }
}
