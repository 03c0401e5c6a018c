//! The ssh transport of dock-agent against OpenSSH's sshd: logins, host keys, channels, limits, and what breaks.

mod faults;
mod home;
mod host_keys;
mod limits;
mod listening;
mod logins;
mod openssh;
mod routes;
mod streams;
