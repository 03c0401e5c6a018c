//! What a supervisor gives its worker: the sockets and the lock as descriptors, the dock as text, over the socket that
//! is the worker's stdin. The socket stays open: its end tells the worker that the supervisor has gone.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dock_client::agent::start::Start;
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// How many descriptors are passed: the control socket, the engine's, the lock.
const DESCRIPTORS: usize = 3;
/// The longest description of a dock, in bytes.
const LONGEST: usize = 1024 * 1024;

/// The descriptors of an agent.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// Listens for commands.
    pub(crate) control: OwnedFd,
    /// Listens for docker clients.
    pub(crate) engine: OwnedFd,
    /// Locked for as long as a process has it open.
    pub(crate) lock: OwnedFd,
}

/// Gives all of them to the worker behind `to`.
pub(crate) fn give(mut to: &UnixStream, descriptors: &Descriptors, start: &Start) -> io::Result<()> {
    let text = serde_json::to_vec(start)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes();
    let given: [BorrowedFd<'_>; DESCRIPTORS] = [
        descriptors.control.as_fd(),
        descriptors.engine.as_fd(),
        descriptors.lock.as_fd(),
    ];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&given)) {
        return Err(io::Error::other("the descriptors don't fit into a message"));
    }
    let sent = sendmsg(to, &[IoSlice::new(&length)], &mut ancillary, SendFlags::empty())?;
    to.write_all(length.get(sent..).unwrap_or_default())?;
    to.write_all(&text)
}

/// Takes all of them from the supervisor behind `from`.
pub(crate) fn take(mut from: &UnixStream) -> io::Result<(Descriptors, Start)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // Our children (ssh and what it starts) must not inherit them.
    #[cfg(target_os = "linux")]
    let flags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = RecvFlags::empty();
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut length)], &mut ancillary, flags)?.bytes;
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut taken = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            taken.extend(descriptors);
        }
    }
    #[cfg(not(target_os = "linux"))]
    for descriptor in &taken {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
    }
    from.read_exact(length.get_mut(received..).unwrap_or_default())?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    let [control, engine, lock]: [OwnedFd; DESCRIPTORS] = taken
        .try_into()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the descriptors are not those of an agent"))?;
    Ok((Descriptors { control, engine, lock }, serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use dock_client::agent::paths::AgentPaths;
    use dock_client::docks::{Access, Dock, Forward, MountPaths, SshAccess};
    use dock_client::env::Env;

    use super::*;

    #[test]
    fn sockets_arrive_as_they_were_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let dock = Dock {
            moniker: "far".into(),
            access: Access::Ssh(SshAccess::default()),
            workspace: Some("x".repeat(100_000)),
            forward: Forward::All,
            mounts: MountPaths::default(),
        };
        let env = Env::from_pairs([("HOME", directory.path().to_str().unwrap())]);
        let start = Start {
            paths: AgentPaths::of(&dock, &env).unwrap(),
            dock,
        };
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let given = Descriptors {
            control: file(),
            engine: UnixListener::bind(&path).unwrap().into(),
            lock: file(),
        };
        let (here, there) = UnixStream::pair().unwrap();
        let told = start.clone();
        let giving = std::thread::spawn(move || give(&here, &given, &told).unwrap());
        let (taken, heard) = take(&there).unwrap();
        giving.join().unwrap();
        assert_eq!(heard, start);
        let listener = UnixListener::from(taken.engine);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        // The supervisor has gone.
        assert!(take(&there).is_err());
    }
}
