//! `--bind ADDR`: a listener here, and the `ssh -L` line.

/// A listener on an address of this machine that passes connections to a port of 127.0.0.1.
pub struct BoundListener { /* ... */ }
impl BoundListener {
    pub async fn bind(address: IpAddr, to: u16) -> Result<Self> { unimplemented!() }
    /// Where it listens: the same port as `to` where that is free there.
    pub fn address(&self) -> SocketAddr { unimplemented!() }
    /// The warning sentence.
    pub fn warning(&self) -> String { unimplemented!() }
    /// Passes connections until this is dropped.
    pub async fn serve(self) { unimplemented!() }
}
/// `ssh -N -L PORT:127.0.0.1:PORT user@host` where this shell came by ssh.
pub fn ssh_line(env: &Env, port: u16) -> Option<String> { unimplemented!() }
