//! A descriptor on its way from one process to another, over a connection between both.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Sends a descriptor, with one byte.
///
/// # Errors
/// A connection that breaks.
pub async fn send(to: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let sending = to.async_io(Interest::WRITABLE, || {
        let given = [descriptor];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&given)) {
            return Err(io::Error::other("the descriptor does not fit into a message"));
        }
        Ok(sendmsg(to, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?)
    });
    sending.await.map(drop)
}

/// Receives what [`send`] sends; children do not inherit it.
///
/// # Errors
/// A connection that breaks, and one that brings something else.
pub async fn receive(from: &UnixStream) -> io::Result<OwnedFd> {
    from.async_io(Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        #[cfg(target_os = "linux")]
        let flags = RecvFlags::CMSG_CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let flags = RecvFlags::empty();
        let mut byte = [0];
        let received = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?.bytes;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let descriptor = descriptor.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no descriptor came"))?;
        #[cfg(not(target_os = "linux"))]
        rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
        Ok(descriptor)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn what_arrives_is_the_same_socket_and_nothing_else_is_one() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let (sent, received) = tokio::join!(send(&here, near.as_fd()), receive(&there));
        sent.unwrap();
        let received = received.unwrap();
        let flags = rustix::io::fcntl_getfd(&received).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        drop(near);
        std::os::unix::net::UnixStream::from(received).write_all(b"x").unwrap();
        let mut heard = String::new();
        (&far).read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "x");

        here.write_all(b"y").await.unwrap();
        assert_eq!(receive(&there).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(here);
        assert_eq!(receive(&there).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
