//! `sync-up`: which dock and which files are meant. What travels is in the real tests, and in those of the core.

use dockerutils_test_support::Sandbox;

mod cases;

const COMMAND: &str = "sync-up";

#[test]
fn the_help_is_the_manual() {
    for (flag, text) in [
        ("-h", include_str!("help.txt")),
        ("--help", include_str!("help-long.txt")),
    ] {
        Sandbox::new().command(COMMAND).arg(flag).stdout(text).run();
    }
}
