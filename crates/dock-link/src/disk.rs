//! Work that may wait for this machine's disks, away from the connections: a file system that hangs holds up nobody but who
//! asks.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many such tasks go on at once. One that hangs keeps its thread for as long as it does, whoever has given it up.
const TASKS: usize = 32;

static FREE: Semaphore = Semaphore::const_new(TASKS);

/// Does this in a thread of its own. `None` if it takes longer than that, or if so many hang already that its turn does not
/// come.
pub(crate) async fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    within_of(&FREE, limit, work).await
}

async fn within_of<T: Send + 'static>(
    free: &'static Semaphore,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let working = async {
        let turn = free.acquire().await.ok()?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.ok()
    };
    timeout(limit, working).await.ok()?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_given_up_and_keeps_no_more_threads_than_there_are_for_it() {
        static TWO: Semaphore = Semaphore::const_new(2);
        let (brief, long) = (Duration::from_millis(1), Duration::from_secs(60));
        assert_eq!(within_of(&TWO, long, || 7).await, Some(7));
        let mut hanging = Vec::new();
        for _ in 0..5 {
            let (end, ends) = channel::<()>();
            assert!(within_of(&TWO, brief, move || ends.recv()).await.is_none());
            hanging.push(end);
        }
        assert_eq!(TWO.available_permits(), 0);
        assert_eq!(within_of(&TWO, brief, || 7).await, None);
        drop(hanging);
        assert_eq!(within_of(&TWO, long, || 7).await, Some(7));
    }
}
