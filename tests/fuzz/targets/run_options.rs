//! Any words are options of `docker run` or refused, and any options make a plan or are refused, whatever
//! the files that they name hold.

use std::path::Path;

use dockerutils_core::docker::options::run_options::{ClientFacts, EngineSystem, RunOptions, publish_on_loopback};

// A word on each line; the last one is what every file holds.
pub(crate) fn fuzz(text: &str) {
    let mut words: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let content = words.pop().unwrap_or_default().replace('\r', "\n");
    let Ok(options) = RunOptions::parse(&words) else {
        return;
    };
    for api_version in [(1, 41), (1, 50)] {
        for engine_system in [EngineSystem::Linux, EngineSystem::Windows] {
            let facts = ClientFacts {
                env: &|name| (name.len() % 2 == 0).then(|| content.clone()),
                read_file: &|_| Ok(content.clone().into_bytes()),
                working_dir: Path::new("/project"),
                api_version,
                engine_system,
                engine_socket: Some("/run/docker.sock"),
                console_size: (24, 80),
                proxies: &[("HTTP_PROXY".to_owned(), content.clone())],
                credentials: Some(&content),
            };
            let first = options.plan("image", &words, &facts);
            let second = options.plan("image", &words, &facts);
            match (first, second) {
                (Ok(first), Ok(second)) => assert_eq!(first, second),
                (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
                _ => panic!("the same facts made different plans of {words:?}"),
            }
        }
    }
    // What listens on the loopback address is said, so saying it again changes nothing.
    let rewritten = publish_on_loopback(&words).expect("options that were read before");
    assert_eq!(publish_on_loopback(&rewritten).expect("options"), rewritten);
    RunOptions::parse(&rewritten).expect("options that listen elsewhere");
}
