//! The gate of the admin port: one thread that owns the public listener and every client.
//!
//! It keeps the promises that `tiny_http` does not make. All of it is one loop around `poll`: take what the sockets
//! have, accept, forward, close what is overdue, wait again. No call in it waits for a client.
//!
//! - **A cap on clients** ([`Limits::connections`]). At the cap, a newcomer takes the place of the oldest client that
//!   has sent nothing yet, or failing that of one half-way through its head, of one that waits with many others for a
//!   list, of one that does not take the rest of its answer. Idle connections by the hundred only displace each
//!   other.
//! - **A deadline for everything**: for a head, for a turn to be forwarded, for taking a response.
//! - **Turns**: at most [`Limits::forwarded`] responses are read from the server behind, at most [`Limits::listings`]
//!   of them lists of keys, and a new one is sent only when the one before has begun to answer. That way no number of
//!   slow readers of long lists holds up a probe of `/health`.
//! - **Shortage is waited out**: with no descriptors left, nothing is accepted or forwarded for [`PAUSE`]; a server
//!   behind that has died is replaced.
//!
//! The loop ends when the other end of `wake` is closed. All sockets are shut then, which frees any worker that
//! writes to one, and the server behind is joined.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Limits;
use super::backend::Backend;
use super::connection::{Connection, Fate};
use super::poll::{Interest, PollSet, Readiness, Slot};
use super::routes;

/// How long a shortage of descriptors or memory is given to pass.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections accepted before those that are there have their turn again.
const ACCEPTS: usize = 16;

/// Bytes of one read or write: a page of keys is some 64 KiB.
const SCRATCH: usize = 64 << 10;

const READABLE: Interest = Interest {
    readable: true,
    writable: false,
};

/// The state of the loop.
pub(crate) struct Front {
    listener: Listener,
    wake: UnixStream,             // readable at its end: time to stop
    connections: Vec<Connection>, // in order of arrival. Before `backend`, so that its workers' sockets close first
    backend: Backend,
    limits: Limits,
    paused_until: Option<Instant>,
    scratch: Box<[u8]>,
}

/// The places in one wait.
struct Watched {
    wake: Slot,
    listener: Option<Slot>,
    connections: Vec<(Slot, Option<Slot>)>,
}

impl Front {
    pub(crate) fn new(listener: TcpListener, wake: UnixStream, backend: Backend, limits: Limits) -> io::Result<Front> {
        listener.set_nonblocking(true)?;
        let scratch = vec![0; SCRATCH].into_boxed_slice();
        let listener = Listener(Some(listener));
        Ok(Front {
            listener,
            wake,
            connections: Vec::new(),
            backend,
            limits,
            paused_until: None,
            scratch,
        })
    }

    /// Runs until `wake` is closed at its other end.
    pub(crate) fn run(mut self) {
        let mut set = PollSet::default();
        loop {
            let watched = self.watch(&mut set);
            if set.wait(self.time_to_wait()).is_err() {
                std::thread::sleep(PAUSE); // the kernel has no memory for the wait itself
                continue;
            }
            if set.readiness(watched.wake).is_any() {
                return;
            }
            self.advance(&set, &watched);
            if watched.listener.is_some_and(|slot| set.readiness(slot).is_any()) {
                self.accept();
            }
            self.expire();
            self.forward();
        }
    }

    fn watch(&self, set: &mut PollSet) -> Watched {
        set.clear();
        let wake = set.watch(&self.wake, READABLE);
        let listener = self.listener.0.as_ref().filter(|_| self.may_accept());
        let listener = listener.map(|listener| set.watch(listener, READABLE));
        let mut connections = Vec::with_capacity(self.connections.len());
        for connection in &self.connections {
            let client = set.watch(connection.stream(), connection.interest());
            connections.push((
                client,
                connection.upstream().map(|upstream| set.watch(upstream, READABLE)),
            ));
        }
        Watched {
            wake,
            listener,
            connections,
        }
    }

    fn time_to_wait(&self) -> Option<Duration> {
        let deadlines = self.connections.iter().map(Connection::deadline);
        let earliest = deadlines.chain(self.paused_until).min();
        earliest.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn advance(&mut self, set: &PollSet, watched: &Watched) {
        let mut slots = watched.connections.iter();
        let (scratch, limits, backend) = (&mut self.scratch, &self.limits, &self.backend);
        self.connections.retain_mut(|connection| {
            let Some(&(client, upstream)) = slots.next() else {
                return true;
            };
            let upstream = upstream.map_or(Readiness::default(), |slot| set.readiness(slot));
            is_kept(
                connection.advance(set.readiness(client), upstream, scratch, limits),
                backend,
            )
        });
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listener.0.as_ref().filter(|_| self.may_accept()) else {
                return;
            };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(reason) if reason.kind() == ErrorKind::WouldBlock => return,
                // This client is gone already; the next one may be there.
                Err(reason) if matches!(reason.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
                    continue;
                }
                Err(_) => return self.pause(),
            };
            let Ok(mut connection) = Connection::new(stream, &self.limits) else {
                continue;
            };
            // Most clients have sent their request by now; reading it first keeps them from being taken for idle ones.
            let readable = Readiness {
                readable: true,
                ..Readiness::default()
            };
            let fate = connection.advance(readable, Readiness::default(), &mut self.scratch, &self.limits);
            if !is_kept(fate, &self.backend) {
                continue;
            }
            if !self.has_place()
                && let Some(at) = self.least_needed()
            {
                self.connections.remove(at);
            }
            self.connections.push(connection);
        }
    }

    fn may_accept(&self) -> bool {
        self.paused_until.is_none() && (self.has_place() || self.least_needed().is_some())
    }

    fn has_place(&self) -> bool {
        self.connections.len() < self.limits.connections
    }

    /// The connection to give up for a newer one: the oldest of the lowest rank.
    fn least_needed(&self) -> Option<usize> {
        let ranked = self.connections.iter().enumerate();
        ranked
            .filter_map(|(at, connection)| Some((connection.eviction_rank()?, at)))
            .min()
            .map(|(_, at)| at)
    }

    /// Sends the first waiting request on whose turn has come.
    fn forward(&mut self) {
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.paused_until = None;
        let forwarded: Vec<_> = self.connections.iter().filter_map(Connection::forwarded).collect();
        let listings = forwarded.iter().filter(|one| one.is_listing).count();
        if forwarded.len() >= self.limits.forwarded || forwarded.iter().any(|one| !one.is_answered) {
            return;
        }
        let may_list = listings < self.limits.listings;
        let next = self.connections.iter().position(|connection| {
            connection
                .waiting()
                .is_some_and(|head| may_list || !routes::is_listing(&head.target))
        });
        let Some((at, head)) = next.and_then(|at| Some((at, self.connections[at].waiting()?))) else {
            return;
        };
        match self.backend.open(head) {
            // The next has its turn when this one begins to be answered.
            Ok(upstream) => self.connections[at].forward(upstream, &self.limits),
            Err(reason) if reason.kind() == ErrorKind::ConnectionRefused => self.replace_backend(),
            Err(_) => self.pause(),
        }
    }

    /// The accept thread of the server behind is gone: starts another. Responses under way are cut off.
    fn replace_backend(&mut self) {
        if let Ok(backend) = self.backend.restart() {
            self.connections.retain(|connection| connection.forwarded().is_none());
            self.backend = backend;
        }
        self.pause(); // what ended the last one may still be there
    }

    fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let (scratch, limits, backend) = (&mut self.scratch, &self.limits, &self.backend);
        self.connections.retain_mut(|connection| {
            now < connection.deadline() || is_kept(connection.expire(scratch, limits), backend)
        });
    }
}

/// Whether a connection stays; one that has just got its answer is counted.
fn is_kept(fate: Fate, backend: &Backend) -> bool {
    if fate == Fate::Answered {
        backend.count_answer();
    }
    fate != Fate::Close
}

/// The public listener, which stops listening when it is dropped even if a forked child holds a copy.
struct Listener(Option<TcpListener>);

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(listener) = self.0.take() {
            // std has `shutdown` for streams only, and the kernel does not mind.
            let _ = TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
        }
    }
}
