//! The proxies that the environment names: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in capitals or not.
//!
//! The rules are those of docker, which are those of Go's `golang.org/x/net/http/httpproxy`: an address that is a proxy
//! for Go is one for us, and a host that Go reaches directly is reached directly. hyper-util's matcher follows curl
//! (`ALL_PROXY`, no ports in `NO_PROXY`, and what is no URL is left out without a word), so it is not used.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dock_client::env::Env;
use hyper::Uri;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::error::RegistryTrouble;
use crate::login::secret;

/// Which hosts are reached by which proxy.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<NamedProxy>,
    https: Option<NamedProxy>,
    direct: Vec<Direct>,
}

/// What a variable has.
#[derive(Clone, Debug)]
enum NamedProxy {
    Known(RegistryProxy),
    /// Not the URL of a proxy. It may have a password in it, so only the variable is named.
    Wrong(&'static str),
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyProtocol {
    Http,
    Socks5,
}

/// A proxy.
#[derive(Clone)]
pub(crate) struct RegistryProxy {
    /// Without its login.
    pub(crate) uri: Uri,
    pub(crate) protocol: ProxyProtocol,
    /// User and password.
    pub(crate) login: Option<(String, String)>,
}

// The login must not reach a log by way of a derived Debug.
impl fmt::Debug for RegistryProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryProxy({self}, ..)")
    }
}

impl fmt::Display for RegistryProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri.to_string().trim_end_matches('/'))
    }
}

/// An entry of `NO_PROXY`: whom no proxy is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Direct {
    hosts: DirectHosts,
    /// Only this port, if there is one.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum DirectHosts {
    All,
    Address(IpAddr),
    /// The addresses that begin with these bits.
    Network(IpAddr, u32),
    /// Names that end so, with the dot; and `itself`, the name without it.
    Domain {
        suffix: String,
        itself: bool,
    },
}

impl Proxies {
    /// Those of the environment.
    pub fn from_env(env: &Env) -> Self {
        let value = |upper: &str, lower: &str| env.non_empty(upper).or_else(|| env.non_empty(lower));
        let named = |variable, value: &str| match RegistryProxy::parse(value) {
            Some(proxy) => NamedProxy::Known(proxy),
            None => NamedProxy::Wrong(variable),
        };
        Self {
            http: value("HTTP_PROXY", "http_proxy").map(|value| named("HTTP_PROXY", value)),
            https: value("HTTPS_PROXY", "https_proxy").map(|value| named("HTTPS_PROXY", value)),
            direct: value("NO_PROXY", "no_proxy")
                .unwrap_or_default()
                .split(',')
                .filter_map(Direct::parse)
                .collect(),
        }
    }

    /// The proxy by which this is reached; `None` if it is reached directly. Loopback addresses always are.
    pub(crate) fn of(&self, url: &Uri) -> Result<Option<&RegistryProxy>, RegistryTrouble> {
        let is_secure = url.scheme_str() == Some("https");
        let named = if is_secure { &self.https } else { &self.http };
        let (Some(named), Some(host)) = (named, url.host()) else {
            return Ok(None);
        };
        let port = url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let is_loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        if is_loopback || self.direct.iter().any(|direct| direct.is_of(&host, address, port)) {
            return Ok(None);
        }
        match named {
            NamedProxy::Known(proxy) => Ok(Some(proxy)),
            NamedProxy::Wrong(variable) => Err(RegistryTrouble::invalid(format!(
                "it is reached by a proxy, and {variable} is not the URL of one, such as http://proxy.example:3128"
            ))),
        }
    }
}

impl RegistryProxy {
    fn parse(value: &str) -> Option<Self> {
        // `proxy.example:3128` reads as a URL of the scheme `proxy.example`.
        let url = Url::parse(value).ok().filter(Url::has_host);
        let url = match url {
            None if !value.contains("://") => Url::parse(&format!("http://{value}")).ok(),
            url => url,
        }?;
        let (scheme, protocol, port) = match url.scheme() {
            "http" => ("http", ProxyProtocol::Http, 80),
            "https" => ("https", ProxyProtocol::Http, 443),
            "socks5" | "socks5h" => ("socks5", ProxyProtocol::Socks5, 1080),
            _ => return None,
        };
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let port = url.port().unwrap_or(port);
        let decoded = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .ok()
                .map(|text| text.into_owned())
        };
        let (user, password) = (decoded(url.username())?, decoded(url.password().unwrap_or_default())?);
        Some(Self {
            uri: format!("{scheme}://{host}:{port}/").parse().ok()?,
            protocol,
            login: (!url.username().is_empty() || url.password().is_some()).then_some((user, password)),
        })
    }

    /// The header that tells an HTTP proxy who asks.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, RegistryTrouble> {
        let login = self.login.as_ref().filter(|_| self.protocol == ProxyProtocol::Http);
        let header = login.map(|(user, password)| {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            secret(format!("Basic {pair}"))
        });
        header.transpose()
    }
}

impl Direct {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        let all = |hosts| Some(Self { hosts, port: None });
        if entry == "*" {
            return all(DirectHosts::All);
        }
        if let Some((address, length)) = entry.split_once('/') {
            let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse::<u32>().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            return all(DirectHosts::Network(address, length)).filter(|_| length <= most);
        }
        if let Ok(address) = entry.parse::<IpAddr>() {
            return all(DirectHosts::Address(address.to_canonical()));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().ok()?)),
            None => (entry.as_str(), None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            let hosts = DirectHosts::Address(address.to_canonical());
            return Some(Self { hosts, port });
        }
        let host = host
            .strip_prefix('*')
            .filter(|rest| rest.starts_with('.'))
            .unwrap_or(host);
        let (name, itself) = match host.strip_prefix('.') {
            Some(name) => (name, false),
            None => (host, true),
        };
        // As it is in a URL: other letters than ASCII's are written otherwise there.
        let Ok(Host::Domain(name)) = Host::parse(name) else {
            return None;
        };
        let suffix = format!(".{name}");
        Some(Self {
            hosts: DirectHosts::Domain { suffix, itself },
            port,
        })
    }

    fn is_of(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let is_host = match (&self.hosts, address) {
            (DirectHosts::All, _) => true,
            (DirectHosts::Address(own), Some(address)) => *own == address,
            (DirectHosts::Network(network, length), Some(address)) => is_in(address, *network, *length),
            (DirectHosts::Domain { suffix, itself }, None) => {
                host.ends_with(suffix) || (*itself && suffix.strip_prefix('.') == Some(host))
            }
            _ => false,
        };
        is_host && self.port.is_none_or(|own| own == port)
    }
}

/// Whether the first bits of two addresses of one kind are the same.
fn is_in(address: IpAddr, network: IpAddr, length: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (address.to_bits() ^ network.to_bits()).leading_zeros() >= length,
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits() ^ network.to_bits()).leading_zeros() >= length,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of(&url.parse().unwrap()).unwrap().map(RegistryProxy::to_string)
    }

    #[test]
    fn both_spellings_count_and_the_scheme_decides() {
        for (http, https) in [("HTTP_PROXY", "HTTPS_PROXY"), ("http_proxy", "https_proxy")] {
            let proxies = Proxies::from_env(&Env::from_pairs([(http, "http://a:1"), (https, "b.example")]));
            assert_eq!(named(&proxies, "http://reg.example/v2/").unwrap(), "http://a:1");
            assert_eq!(
                named(&proxies, "https://reg.example/v2/").unwrap(),
                "http://b.example:80"
            );
        }
        let both = [("https_proxy", "http://low"), ("HTTPS_PROXY", "http://up")];
        let proxies = Proxies::from_env(&Env::from_pairs(both));
        assert_eq!(named(&proxies, "https://r/").unwrap(), "http://up:80");
        let empty = [("https_proxy", "http://low"), ("HTTPS_PROXY", "")];
        let proxies = Proxies::from_env(&Env::from_pairs(empty));
        assert_eq!(named(&proxies, "https://r/").unwrap(), "http://low:80");
        // Neither docker nor Go reads it.
        let proxies = Proxies::from_env(&Env::from_pairs([("ALL_PROXY", "http://a:1")]));
        assert_eq!(named(&proxies, "https://r/"), None);
    }

    // The cases are those of Go's httpproxy_test.go, "UseProxyTests" and "testInvalidProxy".
    #[test]
    fn whom_no_proxy_is_asked_for_is_what_go_says() {
        let pairs = [
            ("HTTPS_PROXY", "http://proxy:3128"),
            (
                "NO_PROXY",
                "foobar.com, .barbaz.net, *.quux.dev, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, \
                 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64, ported.com:443, \
                 bad.com:x, , :80, München.de",
            ),
        ];
        let proxies = Proxies::from_env(&Env::from_pairs(pairs));
        for (host, by_proxy) in [
            ("localhost", false),
            ("127.0.0.1", false),
            ("127.0.0.2", false),
            ("[::1]", false),
            ("[::ffff:127.0.0.1]", false),
            ("[::2]", true),
            ("192.168.1.1", false),
            ("192.168.1.2", true),
            ("192.168.1.2:81", false),
            ("192.168.1.3", true),
            ("192.168.1.4", true),
            ("10.0.0.2", false),
            ("10.0.0.4", true),
            ("[2001:db8::52:0:1]", false),
            ("[2001:db8::52:0:2]", false),
            ("[2001:db8::52:0:3]", true),
            ("[2002:db8:a::123]", false),
            ("[fe80::424b:c8be:1643:a1b6]", true),
            ("barbaz.net", true),
            ("www.barbaz.net", false),
            ("quux.dev", true),
            ("a.quux.dev", false),
            ("foobar.com", false),
            ("FOOBAR.COM", false),
            ("www.foobar.com", false),
            ("foofoobar.com", true),
            ("baz.com", true),
            ("localhost.net", true),
            ("ported.com", false),
            ("ported.com:8443", true),
            ("bad.com", true),
            ("xn--mnchen-3ya.de", false),
        ] {
            let found = named(&proxies, &format!("https://{host}/v2/"));
            assert_eq!(found.is_some(), by_proxy, "{host}");
        }
        let none = Proxies::from_env(&Env::from_pairs([
            ("HTTPS_PROXY", "http://proxy"),
            ("no_proxy", "a, *"),
        ]));
        assert_eq!(named(&none, "https://reg.example/"), None);
    }

    #[test]
    fn a_proxy_is_named_without_its_login() {
        for (value, name, login) in [
            (
                "http://ann:s3c%40ret@p.example:3128/x",
                "http://p.example:3128",
                Some(("ann", "s3c@ret")),
            ),
            (
                "ann:s3cret@p.example:3128",
                "http://p.example:3128",
                Some(("ann", "s3cret")),
            ),
            ("https://p.example", "https://p.example:443", None),
            ("127.0.0.1:8887", "http://127.0.0.1:8887", None),
            ("localhost:8887", "http://localhost:8887", None),
            ("[::1]:8887", "http://[::1]:8887", None),
            (
                "socks5h://ann:s3cret@p.example",
                "socks5://p.example:1080",
                Some(("ann", "s3cret")),
            ),
        ] {
            let proxy = RegistryProxy::parse(value).unwrap();
            assert_eq!(proxy.to_string(), name, "{value}");
            let found = proxy.login.as_ref();
            assert_eq!(
                found.map(|(user, word)| (user.as_str(), word.as_str())),
                login,
                "{value}"
            );
            assert!(
                !format!("{proxy:?}{:?}", proxy.authorization()).contains("s3c"),
                "{proxy:?}"
            );
        }
    }

    #[test]
    fn what_is_no_proxy_is_said_and_never_reached_directly() {
        for value in ["ftp://ann:s3cret@p.example", "http://", "a b", "socks4://p:1"] {
            let proxies = Proxies::from_env(&Env::from_pairs([("https_proxy", value), ("no_proxy", "near.example")]));
            let trouble = proxies.of(&Uri::from_static("https://reg.example/")).unwrap_err();
            assert!(trouble.what.contains("HTTPS_PROXY is not the URL"), "{trouble:?}");
            assert!(!format!("{trouble:?}{proxies:?}").contains("s3cret"));
            assert!(
                proxies
                    .of(&Uri::from_static("https://near.example/"))
                    .unwrap()
                    .is_none()
            );
            assert!(proxies.of(&Uri::from_static("http://reg.example/")).unwrap().is_none());
        }
    }
}
