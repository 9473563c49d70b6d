//! A connection's thread: it lets the process in, reads its requests, and writes the replies.
//!
//! Whatever happens here, a panic too, ends in the end of the session.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::Shutdown;

use super::super::address::{Peer, has_ended};
use super::super::channel::{Asleep, Channel, Look, Patience};
use super::super::session::{Answer, Session};
use super::super::wire::{Hello, MAGIC, Preamble, Reply, VERSION, Welcome};
use super::{Attached, Inner};
use crate::log::{Level, say};
use crate::segment::MAX_RANKS;

/// How long a connection's thread looks for the next request before it sleeps.
const LOOK: Duration = Duration::from_micros(50);

impl Inner {
    pub(super) fn serve(self: Arc<Inner>, socket: Arc<OwnedFd>) {
        let mut channel = Channel::new(Arc::clone(&socket));
        let session = match self.greet(&mut channel, &socket) {
            Ok(session) => session,
            Err(error) => {
                say!(Level::Debug, "sharing: a connection ended before it was one: {error}");
                return;
            }
        };
        let served = catch_unwind(AssertUnwindSafe(|| self.answer_all(&session, &mut channel)));
        match served {
            Ok(Ok(())) => return,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Ok(Err(error)) => say!(Level::Info, "the connection of process {} broke: {error}", session.pid),
            Err(_) => say!(
                Level::Error,
                "defect of the library: a call of process {} panicked",
                session.pid
            ),
        }
        if !self.is_stopping() {
            self.make_void(&session);
        }
    }

    /// Lets a connection in, or says why not.
    fn greet(&self, channel: &mut Channel, socket: &Arc<OwnedFd>) -> io::Result<Arc<Session>> {
        let peer = Peer::of(socket)?;
        let own = Preamble {
            magic: MAGIC,
            version: VERSION,
        };
        let refuse = |channel: &mut Channel, reason: String| {
            say!(
                Level::Warn,
                "process {} was not let in: {reason}",
                peer.pid.as_raw_nonzero()
            );
            let refused = Welcome::Refused(reason.clone().into());
            channel.sender.send(&[&own, &refused], None, &mut Asleep)?;
            Err(io::Error::other(reason))
        };
        if let Some(reason) = self.terms.access.refuses(&peer) {
            return refuse(channel, reason);
        }
        let frame = channel.receiver.receive(&mut Asleep)?;
        let (said, rest) = postcard::take_from_bytes::<Preamble>(frame).map_err(io::Error::other)?;
        if said.magic != MAGIC {
            return Err(io::Error::other("it does not speak the protocol"));
        }
        if said.version != VERSION {
            let reason = format!(
                "this process speaks version {} of the protocol, and the owner of the pool version {VERSION}: both must have the same release of mmc",
                said.version
            );
            return refuse(channel, reason);
        }
        let hello: Hello = postcard::from_bytes(rest).map_err(io::Error::other)?;
        if hello.rank.is_some_and(|rank| rank >= MAX_RANKS) {
            return refuse(
                channel,
                format!("rank {}: must be below {MAX_RANKS}", hello.rank.unwrap_or(0)),
            );
        }
        let session = match self.enter(&hello, &peer, socket) {
            Ok(session) => session,
            Err(reason) => return refuse(channel, reason),
        };
        let welcome = Welcome::Attached {
            session: session.number,
        };
        if let Err(error) = channel.sender.send(&[&own, &welcome], None, &mut Asleep) {
            self.make_void(&session);
            return Err(error);
        }
        Ok(session)
    }

    /// Makes a session for a process, or finds the one that this is a further connection of.
    fn enter(&self, hello: &Hello, peer: &Peer, socket: &Arc<OwnedFd>) -> std::result::Result<Arc<Session>, String> {
        let pid = peer.pid.as_raw_nonzero().get();
        let mut state = self.state();
        if self.is_stopping() {
            return Err("the owner of the pool is closing it".into());
        }
        if let Some(number) = hello.session {
            let attached = state.sessions.get_mut(&number);
            let attached = attached
                .filter(|attached| attached.session.pid == pid && !has_ended(&attached.process))
                .filter(|attached| attached.session.is_attached())
                .ok_or("the process has no such session")?;
            attached.sockets.push(Arc::clone(socket));
            return Ok(Arc::clone(&attached.session));
        }
        let process = peer
            .watch(socket)
            .map_err(|error| format!("its process can't be watched: {error}"))?;
        state.next_session += 1;
        let number = state.next_session;
        let session = Arc::new(Session::new(number, pid, hello.rank));
        let attached = Attached {
            session: Arc::clone(&session),
            process: Arc::new(process),
            sockets: vec![Arc::clone(socket)],
        };
        state.sessions.insert(number, attached);
        self.note_sessions(state.sessions.len());
        drop(state);
        // The watcher is to watch it, too.
        self.wake();
        say!(Level::Info, "process {pid} is attached");
        Ok(session)
    }

    /// Answers requests until the process detaches.
    fn answer_all(&self, session: &Session, channel: &mut Channel) -> io::Result<()> {
        let Channel { sender, receiver } = channel;
        let mut looking = Looking::none(self);
        loop {
            let frame = receiver.receive(&mut looking)?;
            let (reply, answer) = session.answer(&self.store, self, frame).map_err(io::Error::other)?;
            match answer {
                Answer::Reply => sender.send(&[&reply], None, &mut Asleep)?,
                Answer::ReplyWith(file) => sender.send(&[&reply], Some(file.as_fd()), &mut Asleep)?,
                Answer::None => {}
                Answer::Last => {
                    self.detach(session);
                    return sender.send(&[&Reply::Done], None, &mut Asleep);
                }
            }
            looking = Looking::begin(self);
        }
    }

    /// Ends the session of a process that is done.
    fn detach(&self, session: &Session) {
        let attached = {
            let mut state = self.state();
            let attached = state.sessions.remove(&session.number);
            self.note_sessions(state.sessions.len());
            attached
        };
        let segments = session.end(&self.store);
        segments.into_iter().for_each(|address| self.try_withdraw(address));
        // The other connections' threads end with that; this one has still to answer.
        if let Some(attached) = attached {
            for socket in attached.sockets {
                let _ = rustix::net::shutdown(socket, Shutdown::Read);
            }
        }
        // It has the process's descriptor while it waits.
        self.wake();
        say!(Level::Info, "process {} has detached", session.pid);
    }
}

/// Looking for the next request before sleeping, of as many threads at once as there are processors to spare.
struct Looking<'h> {
    inner: &'h Inner,
    /// `None` when it does not look, or no longer.
    look: Option<Look>,
}

impl<'h> Looking<'h> {
    fn none(inner: &'h Inner) -> Looking<'h> {
        Looking { inner, look: None }
    }

    fn begin(inner: &'h Inner) -> Looking<'h> {
        if inner.looking.fetch_add(1, Ordering::Relaxed) < inner.most_looking {
            let look = Some(Look::new(LOOK));
            return Looking { inner, look };
        }
        inner.looking.fetch_sub(1, Ordering::Relaxed);
        Looking::none(inner)
    }

    fn end(&mut self) {
        if self.look.take().is_some() {
            self.inner.looking.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Patience for Looking<'_> {
    fn looks_on(&mut self) -> bool {
        let goes_on = self.look.as_mut().is_some_and(Look::goes_on);
        if !goes_on {
            self.end();
        }
        goes_on
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
