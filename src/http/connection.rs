//! One client of the admin port, from its first byte to its last: a state machine that never blocks.
//!
//! ```text
//! Reading -> Waiting -> Relaying -> Draining -> gone
//!    \__________\_________^   a refusal skips what it can't have
//! ```
//!
//! - **Reading**: the head arrives; the deadline is for the whole of it, so a byte a second does not help.
//! - **Waiting**: the head is sane and waits for its turn to be forwarded.
//! - **Relaying**: the response flows from the server behind to the client. At most [`RELAY_LIMIT`] bytes are held;
//!   when the client does not take them the server behind is not read, its socket fills, and its thread sleeps.
//! - **Draining**: all was sent and our side is shut. What the client still sends is thrown away for a moment, since
//!   closing a socket with unread bytes resets the connection and may take the response with it.
//!
//! One request a connection: every response says `Connection: close`, and bytes behind the head are never read as
//! another request. [`Connection::advance`] does what can be done now and says whether the connection lives on; the
//! loop in `front` decides when.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::Limits;
use super::backend::Upstream;
use super::head::{self, Head, Refusal};
use super::poll::{Interest, Readiness};
use super::routes;

/// Bytes of a response held for a client that is slow to take them. A body up to this size (and what the socket
/// behind holds, some 200 KiB) leaves its worker at once, whatever the client does.
const RELAY_LIMIT: usize = 256 << 10;

/// Bytes that renew a client's time to take its response: less than this in [`Limits::stall`] is too slow.
const STALL_BYTES: usize = 64 << 10;

/// Bytes read and thrown away while draining; a client that sends more is cut off.
const DRAIN_LIMIT: usize = 4 << 20;

/// Reads and writes of one connection before the next one has its turn.
const TURNS: usize = 8;

const CLOSE: &[u8] = b"Connection: close\r\n";

/// Whether a connection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    /// Kept, and its whole answer is out since this call.
    Answered,
    Close,
}

/// A client and how far it has come.
pub(crate) struct Connection {
    stream: TcpStream,
    state: State,
    deadline: Instant,
    is_head_request: bool, // its refusal has no body
}

enum State {
    Reading(Vec<u8>),
    Waiting(Head),
    Relaying(Relay),
    Draining { left: usize },
}

struct Relay {
    upstream: Option<Upstream>, // none once the whole response has been read from it
    is_listing: bool,
    is_announced: bool,   // `Connection: close` has been put behind the status line
    pending: Vec<u8>,     // read from the server behind
    taken: usize,         // of these, how many the client has
    since_renewal: usize, // bytes taken since the deadline was last moved
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, limits: &Limits) -> std::io::Result<Connection> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?; // a response is written in few large pieces; none should wait for an acknowledgement
        let state = State::Reading(Vec::new());
        Ok(Connection {
            stream,
            state,
            deadline: Instant::now() + limits.head,
            is_head_request: false,
        })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket to the server behind and what it is watched for, while there is room for what it sends.
    pub(crate) fn upstream(&self) -> Option<&Upstream> {
        match &self.state {
            State::Relaying(relay) if relay.has_room() => relay.upstream.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn interest(&self) -> Interest {
        match &self.state {
            State::Reading(_) | State::Draining { .. } => Interest {
                readable: true,
                writable: false,
            },
            State::Waiting(_) => Interest::default(),
            State::Relaying(relay) => Interest {
                readable: false,
                writable: relay.has_to_send(),
            },
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The request that waits to be forwarded.
    pub(crate) fn waiting(&self) -> Option<&Head> {
        match &self.state {
            State::Waiting(head) => Some(head),
            _ => None,
        }
    }

    /// Whether a response is still read from the server behind, and whether it is a listing.
    pub(crate) fn forwarded(&self) -> Option<Forwarded> {
        match &self.state {
            State::Relaying(Relay {
                upstream: Some(_),
                is_listing,
                is_announced,
                ..
            }) => Some(Forwarded {
                is_listing: *is_listing,
                is_answered: *is_announced,
            }),
            _ => None,
        }
    }

    /// How readily this connection is given up for a newer one, the lowest first; `None` for one that is being served
    /// or is about to be. Never all are: short requests wait for milliseconds and few are forwarded at once.
    pub(crate) fn eviction_rank(&self) -> Option<u8> {
        match &self.state {
            State::Draining { .. } => Some(0),
            State::Reading(received) if received.is_empty() => Some(1),
            State::Reading(_) => Some(2),
            State::Waiting(head) if routes::is_listing(&head.target) => Some(3), // its turn may be long in coming
            State::Relaying(Relay { upstream: None, .. }) => Some(4), // the rest of an answer that nobody takes
            State::Waiting(_) | State::Relaying(_) => None,
        }
    }

    /// Does what can be done without waiting.
    pub(crate) fn advance(
        &mut self,
        client: Readiness,
        upstream: Readiness,
        scratch: &mut [u8],
        limits: &Limits,
    ) -> Fate {
        if client.broken {
            return Fate::Close;
        }
        match self.state {
            State::Reading(_) if client.readable => self.read_head(scratch, limits),
            State::Relaying(_) if client.writable || upstream.is_any() => self.relay(scratch, limits),
            State::Draining { .. } if client.readable => self.drain(scratch),
            _ => Fate::Keep,
        }
    }

    /// Starts the relay of a response; the request has been written to `upstream`.
    pub(crate) fn forward(&mut self, upstream: Upstream, limits: &Limits) {
        let is_listing = self.waiting().is_some_and(|head| routes::is_listing(&head.target));
        self.state = State::Relaying(Relay {
            upstream: Some(upstream),
            is_listing,
            ..Relay::of(Vec::new())
        });
        self.deadline = Instant::now() + limits.stall;
    }

    /// What happens when the deadline has passed: a sentence where the client can still read one.
    pub(crate) fn expire(&mut self, scratch: &mut [u8], limits: &Limits) -> Fate {
        let (status, sentence) = match &self.state {
            State::Reading(received) if !received.is_empty() => (408, "The request did not arrive in time"),
            State::Waiting(_) => (503, "The admin port is busy"),
            State::Relaying(relay) if relay.upstream.is_some() && !relay.is_announced => {
                (503, "No answer came in time")
            }
            _ => return Fate::Close,
        };
        self.refuse(Refusal { status, sentence }, scratch, limits)
    }

    fn refuse(&mut self, refusal: Refusal, scratch: &mut [u8], limits: &Limits) -> Fate {
        let response = rendered(refusal, self.is_head_request);
        self.state = State::Relaying(Relay {
            is_announced: true,
            ..Relay::of(response)
        });
        self.deadline = Instant::now() + limits.stall;
        self.relay(scratch, limits)
    }

    fn read_head(&mut self, scratch: &mut [u8], limits: &Limits) -> Fate {
        loop {
            let State::Reading(received) = &mut self.state else {
                return Fate::Keep;
            };
            let count = match self.stream.read(scratch) {
                Ok(0) if received.is_empty() => return Fate::Close,
                Ok(0) => {
                    let refusal = Refusal {
                        status: 400,
                        sentence: "The request ended before its head was complete",
                    };
                    return self.refuse(refusal, scratch, limits);
                }
                Ok(count) => count,
                Err(reason) if reason.kind() == ErrorKind::WouldBlock => return Fate::Keep,
                Err(reason) if reason.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Fate::Close,
            };
            // One byte over the limit is enough to refuse; the rest of a large read need not be kept.
            let kept = count.min(head::HEAD_LIMIT + 1 - received.len().min(head::HEAD_LIMIT));
            received.extend_from_slice(&scratch[..kept]);
            let parsed = head::parse(received);
            self.is_head_request = received.starts_with(b"HEAD ");
            match parsed {
                Ok(None) => {}
                Ok(Some(head)) => {
                    self.state = State::Waiting(head);
                    self.deadline = Instant::now() + limits.stall;
                    return Fate::Keep;
                }
                Err(refusal) => return self.refuse(refusal, scratch, limits),
            }
        }
    }

    fn relay(&mut self, scratch: &mut [u8], limits: &Limits) -> Fate {
        let State::Relaying(relay) = &mut self.state else {
            return Fate::Keep;
        };
        for _ in 0..TURNS {
            let has_read = relay.fill(scratch);
            if relay.upstream.is_none() && !relay.is_announced {
                let refusal = Refusal {
                    status: 503,
                    sentence: "The admin port could not answer",
                };
                return self.refuse(refusal, scratch, limits);
            }
            let Ok(taken) = relay.flush(&mut self.stream) else {
                return Fate::Close;
            };
            if taken > 0 && (relay.is_empty() || relay.since_renewal >= STALL_BYTES) {
                relay.since_renewal = 0;
                self.deadline = Instant::now() + limits.stall;
            }
            if relay.upstream.is_none() && relay.is_empty() {
                return self.finish(limits);
            }
            if !has_read && taken == 0 {
                break;
            }
        }
        Fate::Keep
    }

    /// The response is out: shuts our side and gives the client a moment to read it.
    fn finish(&mut self, limits: &Limits) -> Fate {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return Fate::Close;
        }
        self.state = State::Draining { left: DRAIN_LIMIT };
        self.deadline = Instant::now() + limits.linger;
        Fate::Answered
    }

    fn drain(&mut self, scratch: &mut [u8]) -> Fate {
        let State::Draining { left } = &mut self.state else {
            return Fate::Keep;
        };
        for _ in 0..TURNS {
            match self.stream.read(scratch) {
                Ok(0) => return Fate::Close,
                Ok(count) if count > *left => return Fate::Close,
                Ok(count) => *left -= count,
                Err(reason) if reason.kind() == ErrorKind::WouldBlock => return Fate::Keep,
                Err(reason) if reason.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Fate::Close,
            }
        }
        Fate::Keep
    }
}

impl Drop for Connection {
    /// A forked child may hold a copy of the descriptor; shutting the connection ends it all the same.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // fails when the client was first, and then nothing is left to do
    }
}

/// What a connection takes from the server behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forwarded {
    pub(crate) is_listing: bool,
    /// Its first byte has come.
    pub(crate) is_answered: bool,
}

impl Relay {
    fn of(pending: Vec<u8>) -> Relay {
        Relay {
            upstream: None,
            is_listing: false,
            is_announced: false,
            pending,
            taken: 0,
            since_renewal: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.pending.len() == self.taken
    }

    /// Nothing is sent before the status line is whole.
    fn has_to_send(&self) -> bool {
        self.is_announced && !self.is_empty()
    }

    fn has_room(&self) -> bool {
        self.pending.len() - self.taken < RELAY_LIMIT
    }

    /// Reads once from the server behind; whether anything came.
    fn fill(&mut self, scratch: &mut [u8]) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(upstream) = &mut self.upstream else {
            return false;
        };
        match upstream.read(scratch) {
            Ok(count) if count > 0 => {
                self.pending.drain(..self.taken);
                self.taken = 0;
                self.pending.extend_from_slice(&scratch[..count]);
                self.announce();
                true
            }
            Err(reason) if matches!(reason.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => false,
            // Its end, or a reset when it went away: what has come is all there is.
            Ok(_) | Err(_) => {
                self.upstream = None;
                false
            }
        }
    }

    /// Says that the connection closes, which `tiny_http` leaves to the transport: behind the status line.
    fn announce(&mut self) {
        if self.is_announced {
            return;
        }
        if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\r\n") {
            self.pending.splice(end + 2..end + 2, CLOSE.iter().copied());
            self.is_announced = true;
        }
    }

    /// Writes what the client takes; how much that was.
    fn flush(&mut self, client: &mut TcpStream) -> std::io::Result<usize> {
        if !self.has_to_send() {
            return Ok(0);
        }
        match client.write(&self.pending[self.taken..]) {
            Ok(count) => {
                self.taken += count;
                self.since_renewal += count;
                if self.is_empty() {
                    self.pending.clear();
                    self.taken = 0;
                }
                Ok(count)
            }
            Err(reason) if matches!(reason.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(reason) => Err(reason),
        }
    }
}

/// A refusal as a response; the answer to `HEAD` has no body.
fn rendered(refusal: Refusal, is_head_request: bool) -> Vec<u8> {
    let Refusal { status, sentence } = refusal;
    let reason = tiny_http::StatusCode(status).default_reason_phrase();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        sentence.len()
    );
    let body = if is_head_request { "" } else { sentence };
    (head + body).into_bytes()
}
