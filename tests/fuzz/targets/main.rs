//! The parsers of what others wrote, given what nobody would write: one program for libFuzzer, which holds all targets.
//!
//! Linking one takes a while, and each would hold all of our code. `FUZZ_TARGET` names the one to run; `cargo xtask fuzz`
//! sets it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

macro_rules! targets {
    ($($name:ident,)*) => {
        $(mod $name;)*

        fn target(name: &str) -> Option<fn(&[u8])> {
            match name {
                $(stringify!($name) => Some(|bytes| give(bytes, |input| $name::fuzz(input))),)*
                _ => None,
            }
        }
    };
}

targets! {
    build_options,
    check,
    dock_list,
    docker_traffic,
    dockerfile,
    dockerignore,
    git_describe,
    image_archive,
    image_documents,
    image_save,
    ini,
    mounts,
    notebook_server,
    original_docks,
    references,
    registry_headers,
    run_options,
    shell_words,
    ssh_files,
    stack_spec,
    sync_listing,
    sync_manifest,
    sync_receive,
    variables,
    verdicts,
}

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    target(&name).unwrap_or_else(|| panic!("no target {name:?} is in the list of tests/fuzz/targets/main.rs"))
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));

/// Makes what a target takes of libFuzzer's bytes; some are too few.
fn give<'a, T: Arbitrary<'a>>(bytes: &'a [u8], fuzz: impl FnOnce(T)) {
    if let Ok(input) = T::arbitrary_take_rest(Unstructured::new(bytes)) {
        fuzz(input);
    }
}
