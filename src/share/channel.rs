//! One end of a connection: frames out and in, and memfds beside them.
//!
//! Waking a thread that waits for a socket takes the kernel 10 to 100 microseconds, several times what a question costs otherwise. So who
//! waits for a frame looks for it for a moment before it sleeps ([`Receiver::receive`]); how long is the caller's to say.
//!
//! Nothing that a peer sends can make this side allocate more than a frame may have, and only once its bytes arrive. Descriptors are taken
//! only where one was asked for; the kernel closes those that come otherwise.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;

use super::wire::MAX_FRAME;

/// Bytes of a frame's length.
const HEAD: usize = 4;
/// What is read at once, at least.
const PIECE: usize = 16 << 10;
/// Buffers that a large batch has made are given back when they are larger than this.
const KEPT: usize = 1 << 20;

/// See the module's text.
pub(crate) struct Channel {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

/// The way out.
pub(crate) struct Sender {
    socket: Arc<OwnedFd>,
    output: Vec<u8>,
}

/// The way in.
pub(crate) struct Receiver {
    socket: Arc<OwnedFd>,
    /// What has arrived and was not consumed lies at `begin..end`.
    input: Vec<u8>,
    begin: usize,
    end: usize,
    descriptor: Option<OwnedFd>,
}

impl Channel {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Channel {
        Channel {
            sender: Sender {
                socket: Arc::clone(&socket),
                output: Vec::new(),
            },
            receiver: Receiver {
                socket,
                input: Vec::new(),
                begin: 0,
                end: 0,
                descriptor: None,
            },
        }
    }
}

impl Sender {
    /// Sends a frame of these messages, one after the other. Blocks while the peer does not read; `patience` is asked as in [`Receiver::receive`].
    pub(crate) fn send(
        &mut self,
        messages: &[&dyn Message],
        descriptor: Option<BorrowedFd<'_>>,
        patience: &mut dyn Patience,
    ) -> io::Result<()> {
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        output.extend_from_slice(&[0; HEAD]);
        for message in messages {
            output = message.write(output)?;
        }
        let length = output.len() - HEAD;
        if length > MAX_FRAME {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a message of {length} bytes: the limit is {MAX_FRAME}"),
            ));
        }
        output[..HEAD].copy_from_slice(&(length as u32).to_le_bytes());
        let sent = self.send_all(&output, descriptor, patience);
        if output.capacity() <= KEPT {
            self.output = output;
        }
        sent
    }

    fn send_all(
        &self,
        bytes: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
        patience: &mut dyn Patience,
    ) -> io::Result<()> {
        let descriptors: &[BorrowedFd<'_>] = descriptor.as_slice();
        let mut sent = 0;
        while sent < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            // It goes with the first byte.
            if sent == 0 && !descriptors.is_empty() {
                beside.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let rest = [IoSlice::new(&bytes[sent..])];
            match rustix::net::sendmsg(&self.socket, &rest, &mut beside, SendFlags::NOSIGNAL) {
                Ok(more) => sent += more,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if let Some(error) = patience.gives_up() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Receiver {
    /// The next frame. `patience` says how long to look for it before this thread sleeps.
    pub(crate) fn receive(&mut self, patience: &mut dyn Patience) -> io::Result<&[u8]> {
        let mut is_looking = true;
        loop {
            let there = self.end - self.begin;
            let mut missing = HEAD;
            if there >= HEAD {
                let head = self.input[self.begin..self.begin + HEAD]
                    .try_into()
                    .expect("it has four bytes");
                let length = u32::from_le_bytes(head) as usize;
                if length > MAX_FRAME {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("a frame of {length} bytes: the limit is {MAX_FRAME}"),
                    ));
                }
                missing = HEAD + length;
                if there >= missing {
                    let frame = self.begin + HEAD..self.begin + missing;
                    self.begin += missing;
                    return Ok(&self.input[frame]);
                }
            }
            self.make_room(missing - there)?;
            let flags = if is_looking {
                RecvFlags::DONTWAIT
            } else {
                RecvFlags::empty()
            };
            match self.read(flags) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.end += read,
                Err(Errno::AGAIN) if is_looking => is_looking = patience.looks_on(),
                Err(Errno::AGAIN) => {
                    if let Some(error) = patience.gives_up() {
                        return Err(error);
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The descriptor that came with the last frame.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    fn read(&mut self, flags: RecvFlags) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let read = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut self.input[self.end..])],
            &mut beside,
            flags | RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptor = descriptors.last();
            }
        }
        Ok(read.bytes)
    }

    /// Has room for `missing` more bytes, and a piece at least; no more than half as much again as has arrived is taken in advance.
    fn make_room(&mut self, missing: usize) -> io::Result<()> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            if self.input.len() > KEPT {
                self.input = Vec::new();
            }
        }
        let wanted = missing.min(PIECE.max(self.end - self.begin));
        if self.input.len() - self.end >= wanted {
            return Ok(());
        }
        self.input.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        let length = self.input.len().max(self.end + wanted.max(PIECE));
        self.input
            .try_reserve_exact(length - self.input.len())
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.input.resize(length, 0);
        Ok(())
    }
}

/// What can be a part of a frame.
pub(crate) trait Message {
    fn write(&self, output: Vec<u8>) -> io::Result<Vec<u8>>;
}

impl<T: Serialize> Message for T {
    fn write(&self, output: Vec<u8>) -> io::Result<Vec<u8>> {
        postcard::to_extend(self, output).map_err(io::Error::other)
    }
}

/// How somebody waits for a frame.
pub(crate) trait Patience {
    /// Whether to look again at once, rather than to sleep. Once it says no it is not asked again.
    fn looks_on(&mut self) -> bool;

    /// Why to give up, if so. It is asked when the socket has a time-out, after each.
    fn gives_up(&mut self) -> Option<io::Error> {
        None
    }
}

/// Sleeps at once, for as long as it takes.
pub(crate) struct Asleep;

impl Patience for Asleep {
    fn looks_on(&mut self) -> bool {
        false
    }
}

/// Until when somebody looks. Between two looks others may have the processor: whoever is looked for may need this one.
pub(crate) struct Look {
    span: Duration,
    begin: Option<Instant>,
}

impl Look {
    pub(crate) fn new(span: Duration) -> Look {
        Look { span, begin: None }
    }

    pub(crate) fn goes_on(&mut self) -> bool {
        std::thread::yield_now();
        self.begin.get_or_insert_with(Instant::now).elapsed() < self.span
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn channel(socket: UnixStream) -> Channel {
        Channel::new(Arc::new(socket.into()))
    }

    /// Frames of these bytes, as they are on the socket.
    fn framed(frames: &[&[u8]]) -> Vec<u8> {
        let framed = |frame: &&[u8]| [&(frame.len() as u32).to_le_bytes()[..], frame].concat();
        frames.iter().flat_map(framed).collect()
    }

    #[test]
    fn frames_come_whole_wherever_their_bytes_are_parted() {
        let long = vec![7; 300];
        let frames: [&[u8]; 4] = [b"first", b"", &long, b"x"];
        let bytes = framed(&frames);
        for place in 0..=bytes.len() {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut receiver = channel(ours).receiver;
            theirs.write_all(&bytes[..place]).unwrap();
            // The second part comes when the first was read up to its end.
            let mut rest = Some(&bytes[place..]);
            let mut later = Later(|| {
                if let Some(rest) = rest.take() {
                    theirs.write_all(rest).unwrap();
                }
            });
            for frame in frames {
                assert_eq!(receiver.receive(&mut later).unwrap(), frame, "parted at {place}");
            }
            (later.0)();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let end = receiver.receive(&mut Asleep).unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    /// Does something when there is nothing to be read, and looks again.
    struct Later<F>(F);

    impl<F: FnMut()> Patience for Later<F> {
        fn looks_on(&mut self) -> bool {
            (self.0)();
            true
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_takes_no_memory() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut receiver = channel(ours).receiver;
        theirs.write_all(&(MAX_FRAME as u32 + 1).to_le_bytes()).unwrap();
        let error = receiver.receive(&mut Asleep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // One that is announced and does not come is not waited for in memory of its size.
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut receiver = channel(ours).receiver;
        theirs.write_all(&(MAX_FRAME as u32).to_le_bytes()).unwrap();
        theirs.write_all(b"a few").unwrap();
        drop(theirs);
        let error = receiver.receive(&mut Asleep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(receiver.input.len() <= 4 * PIECE, "{} bytes", receiver.input.len());
    }

    #[test]
    fn a_large_frame_goes_through_a_small_socket_and_its_memory_goes_back() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut sender, mut receiver) = (channel(ours).sender, channel(theirs).receiver);
        let text = "words ".repeat(700_000);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(&[&text], None, &mut Asleep).unwrap();
                sender.send(&[&"short"], None, &mut Asleep).unwrap();
                assert!(sender.output.capacity() <= KEPT);
            });
            let frame = receiver.receive(&mut Asleep).unwrap();
            assert!(postcard::from_bytes::<&str>(frame).unwrap() == text);
            let frame = receiver.receive(&mut Asleep).unwrap();
            assert_eq!(postcard::from_bytes::<&str>(frame).unwrap(), "short");
        });
        let too_long = "x".repeat(MAX_FRAME);
        let refused = sender.send(&[&too_long], None, &mut Asleep).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_descriptor_comes_with_its_frame() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut sender, mut receiver) = (channel(ours).sender, channel(theirs).receiver);
        let (one, other) = UnixStream::pair().unwrap();
        sender.send(&[&1u8], Some(one.as_fd()), &mut Asleep).unwrap();
        sender.send(&[&2u8], None, &mut Asleep).unwrap();
        assert_eq!(receiver.receive(&mut Asleep).unwrap(), [1]);
        let mut taken = UnixStream::from(receiver.take_descriptor().unwrap());
        drop(one);
        taken.write_all(b"x").unwrap();
        drop(taken);
        assert_eq!(io::Read::bytes(&other).map(Result::unwrap).collect::<Vec<_>>(), b"x");
        assert_eq!(receiver.receive(&mut Asleep).unwrap(), [2]);
        assert!(receiver.take_descriptor().is_none());
    }
}
