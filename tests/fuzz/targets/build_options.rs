//! Any words are options of `docker build` or refused with the option named, in the same way each time.

use std::path::Path;

use dockerutils_core::docker::options::build_options::{BuildOptionError, BuildOptions};
use dockerutils_core::env::Env;

// A word on each line; the last one is the value of the variable FOO.
pub(crate) fn fuzz(text: &str) {
    let mut words: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let value = words.pop().unwrap_or_default();
    let env = Env::from_pairs([("FOO", value.clone()), ("SSH_AUTH_SOCK", "/agent".to_owned())]);
    let root = Path::new("/project");
    let parsed = BuildOptions::parse(&words, root, &env);
    assert_eq!(parsed, BuildOptions::parse(&words, root, &env));
    match parsed {
        Ok(options) => {
            for limit in &options.ulimits {
                assert!(limit.hard == Some(-1) || limit.soft <= limit.hard, "{limit:?}");
            }
            assert!(options.shm_size.is_none_or(|bytes| bytes >= 0));
            assert!(options.build_args.keys().all(|name| !name.contains('=')));
            // Secrets stay out of what may be logged.
            assert!(
                value.len() < 8
                    || text.matches(&value).count() > 1
                    || !format!("{:?}", options.secrets).contains(&value)
            );
            // What was understood is understood with more before it.
            words.insert(0, "--label=first=1".to_owned());
            let more = BuildOptions::parse(&words, root, &env).expect("options with one more");
            assert!(more.labels.contains_key("first"));
        }
        Err(
            BuildOptionError::Value { option, .. }
            | BuildOptionError::Nameless { option }
            | BuildOptionError::OutOfPlace { option, .. },
        ) => {
            assert!(option.starts_with('-'), "{option}");
        }
        Err(BuildOptionError::Grammar(error)) => assert!(!error.to_string().is_empty()),
    }
}
