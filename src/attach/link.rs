//! Connections to the owner of a pool, and how long to wait for it.
//!
//! A call has a connection to itself while it waits for its reply, so no thread waits for another's call. There are as many as there were calls
//! at once, up to [`MAX_LINKS`]; then calls wait for each other. When one breaks, all are shut: the session has ended.
//!
//! **The owner may end, stop, or be gone long since.** The end of its process closes the socket, unless a forked child has it open; so who
//! waits wakes now and then, and looks at a pidfd of the owner. For one that is stopped there is a time-out.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, SocketAddrUnix};

use crate::error::{Error, Result, words};
use crate::share::address::{Peer, has_ended, socket};
use crate::share::channel::{Channel, Look, Patience};
use crate::share::wire::{Hello, MAGIC, Preamble, VERSION, Welcome};

/// Connections that a process has at most.
const MAX_LINKS: usize = 16;
/// How often a thread that waits looks whether the owner is still there.
const GLANCE: Duration = Duration::from_millis(100);
/// How long a thread looks for its reply before it sleeps. Longer than most questions take.
const LOOK: Duration = Duration::from_micros(100);

/// The connections of one session.
pub(super) struct Links {
    path: PathBuf,
    owner: OwnedFd,
    session: u64,
    time_out: Duration,
    idle: Mutex<Idle>,
    freed: Condvar,
    broken: OnceLock<String>,
}

struct Idle {
    channels: Vec<Channel>,
    sockets: Vec<Arc<OwnedFd>>,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// It looks something up, or makes room.
    Short,
    /// It maps memory, or moves objects between media.
    Long,
}

/// Why there is no connection.
pub(super) enum Failure {
    /// Nobody serves the socket now: somebody may, later.
    NoOwner,
    Other(Error),
}

impl Links {
    /// Connects to the owner at a socket, as a new session.
    pub(super) fn connect(path: &Path, rank: Option<u32>, time_out: Duration) -> std::result::Result<Links, Failure> {
        let hello = Hello { session: None, rank };
        let deadline = Instant::now() + time_out;
        let (channel, socket, owner, session) = open(path, &hello, deadline)?;
        Ok(Links {
            path: path.into(),
            owner,
            session,
            time_out,
            idle: Mutex::new(Idle {
                channels: vec![channel],
                sockets: vec![socket],
            }),
            freed: Condvar::new(),
            broken: OnceLock::new(),
        })
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `Disconnected` once a connection has broken.
    pub(super) fn check(&self) -> Result<()> {
        match self.broken.get() {
            None => Ok(()),
            Some(why) => Err(Error::Disconnected(words!(
                "the pool at unix:{}: {why}",
                self.path.display()
            ))),
        }
    }

    /// Ends the session; why, unless it has ended already.
    pub(super) fn break_off(&self, why: String) -> Error {
        let _ = self.broken.set(why);
        for socket in &self.idle().sockets {
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
        self.freed.notify_all();
        self.check().expect_err("it is broken")
    }

    /// Ends the session, as an answer was none.
    pub(super) fn not_understood(&self) -> Error {
        self.break_off("the owner's answer can't be understood".into())
    }

    /// A connection for one call.
    pub(super) fn take(&self) -> Result<Link<'_>> {
        let mut idle = self.idle();
        loop {
            self.check()?;
            if let Some(channel) = idle.channels.pop() {
                return Ok(Link {
                    links: self,
                    channel: Some(channel),
                });
            }
            if idle.sockets.len() < MAX_LINKS {
                break;
            }
            idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
        drop(idle);
        let hello = Hello {
            session: Some(self.session),
            rank: None,
        };
        match open(&self.path, &hello, Instant::now() + self.time_out) {
            Ok((channel, socket, ..)) => {
                self.idle().sockets.push(socket);
                Ok(Link {
                    links: self,
                    channel: Some(channel),
                })
            }
            Err(Failure::NoOwner) => Err(self.break_off("the process that owns it has gone".into())),
            Err(Failure::Other(error)) => Err(self.break_off(error.to_string())),
        }
    }

    pub(super) fn waiting(&self, haste: Haste) -> Waiting<'_> {
        let patience = match haste {
            Haste::Short => self.time_out,
            Haste::Long => self.time_out.saturating_mul(10),
        };
        Waiting {
            owner: &self.owner,
            look: Look::new(LOOK),
            deadline: Instant::now().checked_add(patience),
        }
    }
}

/// A connection that is one call's.
pub(super) struct Link<'l> {
    links: &'l Links,
    channel: Option<Channel>,
}

impl Link<'_> {
    pub(super) fn channel(&mut self) -> &mut Channel {
        self.channel.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take() {
            self.links.idle().channels.push(channel);
            self.links.freed.notify_one();
        }
    }
}

/// Waiting for the owner: until it answers, ends, or does not answer for too long.
pub(super) struct Waiting<'o> {
    owner: &'o OwnedFd,
    look: Look,
    deadline: Option<Instant>,
}

impl Patience for Waiting<'_> {
    fn looks_on(&mut self) -> bool {
        self.look.goes_on()
    }

    fn gives_up(&mut self) -> Option<io::Error> {
        if has_ended(self.owner) {
            return Some(io::ErrorKind::UnexpectedEof.into());
        }
        let is_late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        is_late.then(|| io::ErrorKind::TimedOut.into())
    }
}

type Opened = (Channel, Arc<OwnedFd>, OwnedFd, u64);

/// Opens a connection: with it comes what tells of the owner's end, and the session.
fn open(path: &Path, hello: &Hello, deadline: Instant) -> std::result::Result<Opened, Failure> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::UnexpectedEof => Failure::NoOwner,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::NoOwner,
        io::ErrorKind::TimedOut => {
            Failure::Other(Error::Disconnected("the process that owns it does not answer".into()))
        }
        _ => Failure::Other(Error::Io(words!("socket {}: {error}", path.display()))),
    };
    let socket = Arc::new(socket().map_err(failed)?);
    for way in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&socket, way, Some(GLANCE)).map_err(|error| failed(error.into()))?;
    }
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            // As many wait to be let in as can: the owner is busy, or stopped.
            Err(rustix::io::Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(GLANCE / 10),
            Err(rustix::io::Errno::AGAIN) => return Err(failed(io::ErrorKind::TimedOut.into())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    // Who listens; when that process has ended, a forked child has the socket open, and nobody answers there.
    let owner = Peer::of(&socket)
        .map_err(failed)?
        .watch(&socket)
        .map_err(|_| Failure::NoOwner)?;
    let mut channel = Channel::new(Arc::clone(&socket));
    let mut waiting = Waiting {
        owner: &owner,
        look: Look::new(LOOK),
        deadline: Some(deadline),
    };
    let own = Preamble {
        magic: MAGIC,
        version: VERSION,
    };
    match channel.sender.send(&[&own, hello], None, &mut waiting) {
        // An owner that refuses this process by its user may have closed the connection before it was told anything: why is there to be read.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        sent => sent.map_err(failed)?,
    }
    let frame = channel.receiver.receive(&mut waiting).map_err(failed)?;
    let strange = || {
        Failure::Other(Error::Io(words!(
            "socket {}: who listens there does not share a pool",
            path.display()
        )))
    };
    let (said, rest) = postcard::take_from_bytes::<Preamble>(frame).map_err(|_| strange())?;
    if said.magic != MAGIC {
        return Err(strange());
    }
    match postcard::from_bytes::<Welcome<'_>>(rest) {
        Ok(Welcome::Attached { session }) => Ok((channel, socket, owner, session)),
        Ok(Welcome::Refused(reason)) => Err(Failure::Other(Error::Unsupported(words!(
            "the owner of the pool at unix:{} refuses this process: {reason}",
            path.display()
        )))),
        Err(_) => Err(strange()),
    }
}
