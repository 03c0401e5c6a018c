//! A machine as users write it for ssh.
//!
//! ssh takes `[user@]host` and `ssh://[user@]host[:port]`, ProxyJump takes `[user@]host[:port]` as well, and scp and
//! docker have taught users to write a port behind a colon. So all of these forms are understood wherever a machine
//! is named.

use std::net::Ipv6Addr;

use super::ssh_config::{SshConfigError, check_host, check_user};

/// `[user@]host[:port]`; an IPv6 address in brackets, or bare if no port follows; `ssh://` may precede it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The user there, if one is given.
    pub user: Option<&'a str>,
    /// A name or an address, without brackets.
    pub host: &'a str,
    /// The port of sshd, if one is given.
    pub port: Option<u16>,
}

impl<'a> Destination<'a> {
    /// Reads what a user wrote.
    ///
    /// # Errors
    /// A text that can't be a host or user, and a port that is not a number from 1 to 65535.
    pub fn parse(text: &'a str) -> Result<Self, SshConfigError> {
        let text = text.trim();
        let text = text
            .strip_prefix("ssh://")
            .map_or(text, |address| address.trim_end_matches('/'));
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, behind)) => {
                let port = behind.strip_prefix(':');
                (
                    host,
                    Some(port.ok_or_else(|| SshConfigError::BadHost(text.to_owned()))?),
                )
            }
            None if rest.starts_with('[') => return Err(SshConfigError::BadHost(text.to_owned())),
            None => match rest.split_once(':') {
                // More than one colon: an IPv6 address without a port, or invalid.
                Some((_, port)) if port.contains(':') => match is_ipv6(rest) {
                    true => (rest, None),
                    false => return Err(SshConfigError::BadHost(text.to_owned())),
                },
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        check_host(host)?;
        user.map_or(Ok(()), check_user)?;
        let bad_port = |port: &str| SshConfigError::BadPort(port.to_owned());
        let number = |port: &str| port.parse().ok().filter(|&port| port > 0).ok_or_else(|| bad_port(port));
        Ok(Self {
            user,
            host,
            port: port.map(number).transpose()?,
        })
    }
}

/// Whether a host is an IPv6 address, perhaps with its zone: `fe80::1%eth0`.
pub fn is_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_read_as_people_write_them() {
        let machine = |user, host, port| Ok(Destination { user, host, port });
        for (text, expected) in [
            ("box", machine(None, "box", None)),
            ("ann@box:2200", machine(Some("ann"), "box", Some(2200))),
            ("box:2222", machine(None, "box", Some(2222))),
            ("a@b@box", machine(Some("a@b"), "box", None)),
            ("[::1]", machine(None, "::1", None)),
            ("ann@[::1]:2222", machine(Some("ann"), "::1", Some(2222))),
            ("[fe80::1%eth0]:22", machine(None, "fe80::1%eth0", Some(22))),
            ("fe80::1", machine(None, "fe80::1", None)),
            ("ann@fe80::1", machine(Some("ann"), "fe80::1", None)),
            ("ssh://ann@box:22/", machine(Some("ann"), "box", Some(22))),
            ("ssh://box", machine(None, "box", None)),
            ("ssh://[::1]:2222", machine(None, "::1", Some(2222))),
        ] {
            assert_eq!(Destination::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_names_no_machine_is_refused() {
        for text in [
            "",
            "-oProxyCommand=x",
            "a@-x",
            "box:x",
            "a:b:c",
            "box:",
            "box:0",
            "box:65536",
            "[::1]x",
            "[::1]:",
            "[]",
            "[::1",
            "box;x",
            "$(x)@box",
            "@box",
            "ssh://",
        ] {
            // A user of $( is only refused if it could be more than a name.
            assert!(Destination::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            Destination::parse("box:http"),
            Err(SshConfigError::BadPort("http".to_owned()))
        );
    }
}
