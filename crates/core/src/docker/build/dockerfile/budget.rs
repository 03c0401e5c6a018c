//! How much work one Dockerfile may cause.

use std::cell::Cell;

/// Characters that are read, made and compared for one Dockerfile: variables that double each other, or patterns that
/// match in very many ways, would fill the memory or never end.
pub(super) const BUDGET: u64 = 20_000_000;

/// A word that the builder refuses, or that takes too much work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// What is left of a Dockerfile's budget.
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
