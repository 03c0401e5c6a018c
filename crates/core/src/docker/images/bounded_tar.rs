//! An engine's tar with bounded headers: the tar reader keeps long names and attributes in memory, and those of a
//! hostile archive can have any length.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// The most bytes of a file's headers: tar puts long names and other attributes before it.
const LONGEST_HEADERS: u64 = 1 << 20;

/// Reads as many bytes as its [`Allowance`] permits, and no more.
pub(in crate::docker) struct BoundedTar<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

/// How much may be read of a [`BoundedTar`]: the rest of this file, and the headers of the next.
pub(in crate::docker) struct Allowance(Rc<Cell<u64>>);

impl<R: Read> BoundedTar<R> {
    /// At the beginning, only headers may be read.
    pub(in crate::docker) fn new(inner: R) -> (Self, Allowance) {
        let left = Rc::new(Cell::new(LONGEST_HEADERS));
        let allowance = Allowance(Rc::clone(&left));
        (Self { inner, left }, allowance)
    }
}

impl Allowance {
    /// Allows this file's data to be read.
    pub(in crate::docker) fn begins<R: Read>(&self, file: &tar::Entry<'_, R>) -> io::Result<()> {
        // In a file with holes, the size in the header is not the size of the data.
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
