//! Locks that a panic elsewhere does not spoil: a test that has panicked says by itself what is wrong. (dock-client has the
//! same for the programs; what tests them uses none of their code.)

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
