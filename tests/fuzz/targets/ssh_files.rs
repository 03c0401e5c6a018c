//! Any known_hosts, any host and key, and any output of `ssh -G`: nothing panics, what is recorded is known, and what is
//! expanded from checked names stays in its place.

use std::path::{Path, PathBuf};

use dockerutils_core::docks::known_hosts::{self, HostKeyVerdict, KnownHosts};
use dockerutils_core::docks::ssh_config::{Local, SshConfig, Tokens, check_host, check_user};

pub(crate) fn fuzz(input: (&[u8], &str, &[u8], &str)) {
    let (file, name, key, output) = input;
    let mut known = KnownHosts::default();
    known.add(Path::new("known_hosts"), file);
    let verdict = known.verdict(name, key);
    let lines = file.split(|byte| *byte == b'\n').count();
    if let HostKeyVerdict::Known(place) | HostKeyVerdict::Changed(place) | HostKeyVerdict::Revoked(place) = &verdict {
        assert!((1..=lines).contains(&place.line));
        assert!(known_hosts::key_type(key).is_some());
    }
    for kind in known.key_types(name) {
        assert!(!kind.contains('\n'));
    }
    assert!(known_hosts::fingerprint(key).starts_with("SHA256:"));
    for salt in [None, Some(&[5; 20])] {
        if let Some(line) = known_hosts::line(name, key, salt) {
            assert!(!line.contains('\n'));
            let mut recorded = KnownHosts::default();
            recorded.add(Path::new("known_hosts"), line.as_bytes());
            assert!(
                matches!(recorded.verdict(name, key), HostKeyVerdict::Known(_)),
                "{line}"
            );
        }
    }

    let config = SshConfig::parse(output, name, "user");
    let local = Local {
        home: PathBuf::from("/home/user"),
        user: "user".to_owned(),
        uid: 1000,
        hostname: "here".to_owned(),
    };
    let tokens = Tokens::new(&config, name, &local);
    let value = |variable: &str| variable.len().is_multiple_of(2).then(|| "${X}%h~/".to_owned());
    for file in config.identity_files.iter().chain(&config.user_known_hosts) {
        let _ = tokens.file(file, &value);
    }
    if check_host(name).is_ok() && check_host(&config.hostname).is_ok() && check_user(&config.user).is_ok() {
        // As in `ProxyCommand nc %h %p`: a name adds no word and no command.
        let command = tokens.expand("nc %h %p %r %n").expect("these tokens are known");
        assert!(
            !command.contains([';', '|', '&', '`', '\n', '<', '>', '\'', '"']),
            "{command}"
        );
    }
}
