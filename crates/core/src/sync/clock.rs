//! Whether a later change of a file would show in its times.
//!
//! A file system marks each change with the time of its clock, which ticks: every 10 ms at worst on what Linux is used with,
//! every second on ext4 with small inodes, every two on FAT. Two changes within a tick leave the same time behind, and where
//! they leave the same size, too, nothing tells them apart but the contents. How coarse a clock is shows in the files: where
//! no time has a part of a second, it counts none.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Item, Stamp};

/// One second, in nanoseconds.
const SECOND: i64 = 1_000_000_000;
/// The longest tick of a clock that counts parts of a second, in nanoseconds, and some room.
const FINE: i64 = 20_000_000;
/// The longest tick of one that does not.
const COARSE: i64 = 2 * SECOND;

/// The file systems of one side whose times have parts of a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// By [`Item::device`].
    fine: BTreeSet<u64>,
}

impl Clocks {
    /// Learns from a file's times.
    pub fn learn(&mut self, device: u64, stamp: &Stamp) {
        if stamp.ctime_ns % SECOND != 0 {
            self.fine.insert(device);
        }
    }

    /// Whether a later change would show, of a file that was looked at when its side's clock had not passed this time, in
    /// nanoseconds since 1970. What is newer than the clock has its time from another one: it may be anything.
    pub fn is_settled(&self, item: &Item, looked_at_ns: i64) -> bool {
        let tick = match self.fine.contains(&item.device) {
            true => FINE,
            false => COARSE,
        };
        looked_at_ns.saturating_sub(item.stamp.ctime_ns) > tick
    }
}

/// This machine's time, in nanoseconds since 1970. It is read before a file is looked at, never after it.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::ItemKind;

    fn item(device: u64, ctime_ns: i64) -> Item {
        Item {
            kind: ItemKind::File,
            mode: 0o644,
            stamp: Stamp {
                ctime_ns,
                ..Stamp::default()
            },
            owner: 0,
            device,
            target: None,
        }
    }

    #[test]
    fn a_change_shows_when_the_clock_of_its_file_system_has_ticked() {
        let mut clocks = Clocks::default();
        clocks.learn(0, &item(0, 5 * SECOND + 1).stamp);
        clocks.learn(7, &item(7, 5 * SECOND).stamp);
        let at = 100 * SECOND;
        for (device, age, settled) in [
            (0, FINE + 1, true),
            (0, FINE, false),
            (7, SECOND, false),
            (7, COARSE, false),
            (7, COARSE + SECOND, true),
            // Nothing is known of it.
            (8, SECOND, false),
            // Newer than the clock, by little and by years.
            (0, -1, false),
            (0, -1_000_000_000 * SECOND, false),
        ] {
            assert_eq!(
                clocks.is_settled(&item(device, at - age), at),
                settled,
                "{device}, {age}"
            );
        }
    }
}
