//! A tar of an engine, whose headers have a bound: what the tar reader takes for a long name or an attribute, it keeps in memory,
//! and a hostile archive has one of any length.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// The headers of a file are no longer: tar puts long names and other attributes before it.
const LONGEST_HEADERS: u64 = 1 << 20;

/// Reads as many bytes as its [`Allowance`] says, and no more.
pub(in crate::docker) struct BoundedTar<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

/// How much may be read of a [`BoundedTar`]: the headers of the next file, after what there is of this one.
pub(in crate::docker) struct Allowance(Rc<Cell<u64>>);

impl<R: Read> BoundedTar<R> {
    /// At the beginning: headers alone.
    pub(in crate::docker) fn new(inner: R) -> (Self, Allowance) {
        let left = Rc::new(Cell::new(LONGEST_HEADERS));
        let allowance = Allowance(Rc::clone(&left));
        (Self { inner, left }, allowance)
    }
}

impl Allowance {
    /// This file begins.
    pub(in crate::docker) fn begins<R: Read>(&self, file: &tar::Entry<'_, R>) -> io::Result<()> {
        // One with holes says a size that it does not have.
        let size = match file.header().entry_type().is_gnu_sparse() {
            true => file.header().entry_size()?,
            false => file.size(),
        };
        self.0.set(size.saturating_add(LONGEST_HEADERS));
        Ok(())
    }
}

impl<R: Read> Read for BoundedTar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other("it has headers that are longer than any image's"));
        }
        let read = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left.set(left.saturating_sub(read as u64));
        Ok(read)
    }
}
