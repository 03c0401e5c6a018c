//! Any text as the list of docks: it is refused, or means the same when it is written and read again.
use dockerutils_core::docks::list;

pub(crate) fn fuzz(text: &str) {
    if let Ok(docks) = list::parse(text) {
        let written = list::render(&docks).expect("what was read can be written");
        assert_eq!(list::parse(&written).expect("what was written can be read"), docks);
    }
}
