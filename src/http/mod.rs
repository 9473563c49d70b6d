//! The admin port: seven read-only paths over HTTP, off the data path.
//!
//! [`Server`] opens it and closes it. A request passes through these rooms:
//!
//! ```text
//! client -> front (poll loop: cap, deadlines)  -> backend (tiny_http, workers) -> routes -> the store
//!             connection (one client's states)                                     bodies (JSON)
//!             head (bytes -> checked request)
//!             poll (poll(2), the only unsafe line)
//! ```
//!
//! `routes` and `head` are pure and hold what the port means; `front` and `connection` hold what clients may do to it;
//! `backend` is the only one that runs `tiny_http`. The store is seen through the trait [`Admin`] and is
//! asked for snapshots only.
//!
//! Threads: `mmc-http` runs the front, `mmc-http-0` to `-2` answer, and `tiny_http` has one that accepts and four
//! that parse. However many clients there are, there are no more (one more parser for a moment, at most). Memory: at
//! the cap of 64 clients at most 1 MiB of heads, and 256 KiB for each client that is slow to take a response; these
//! few buffers are what is allocated infallibly here. It needs `/proc` and a directory to bind a socket in for a
//! moment.

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::{Error, Result, invalid};
use backend::{Backend, WORKERS};
#[cfg(test)]
use bodies::{ObjectView, SegmentView};
use front::Front;
pub(crate) use routes::Admin;

mod admin;
mod backend;
mod bodies;
mod connection;
mod front;
mod head;
mod poll;
mod routes;
#[cfg(test)]
mod tests;

/// Bytes of an access token; it must fit a request's head.
const TOKEN_LIMIT: usize = 4096;

/// What clients may take of the admin port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Clients at once; further ones displace idle ones or wait in the kernel's queue.
    pub(crate) connections: usize,
    /// Responses that are read from the server behind at once.
    pub(crate) forwarded: usize,
    /// How many of these may be lists of keys; below the number of workers, so that short answers always find one.
    pub(crate) listings: usize,
    /// For a whole request head, from the connection's first moment.
    pub(crate) head: Duration,
    /// For a turn to be forwarded, for an answer to begin, and for each 64 KiB of it to be taken.
    pub(crate) stall: Duration,
    /// For a client to close after its response.
    pub(crate) linger: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 64,
            forwarded: 8,
            listings: WORKERS - 1,
            head: Duration::from_secs(5),
            stall: Duration::from_secs(10),
            linger: Duration::from_secs(1),
        }
    }
}

/// A running admin port. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    running: Option<Running>,
    process: u32, // a forked child has the socket but not the thread, and must leave both alone
}

#[derive(Debug)]
struct Running {
    wake: UnixStream, // the front stops when this is shut
    front: JoinHandle<()>,
}

impl Server {
    /// Opens the admin port at `host:port`; without a host at the loopback, with port 0 at any free one.
    ///
    /// With a token, every path but `/health` asks for it. An address that is taken is [`Error::Io`] and names it.
    pub(crate) fn start(address: &str, token: Option<&str>, admin: Arc<dyn Admin>) -> Result<Server> {
        Server::start_with(address, token, admin, Limits::default())
    }

    /// [`Server::start`] with other limits.
    pub(crate) fn start_with(
        address: &str,
        token: Option<&str>,
        admin: Arc<dyn Admin>,
        limits: Limits,
    ) -> Result<Server> {
        let token = token.map(checked_token).transpose()?;
        let listener = bind(address)?;
        let failed = |reason| Error::Io(format!("the admin port at {address}: {reason}").into());
        let address = listener.local_addr().map_err(failed)?;
        let (wake, woken) = UnixStream::pair().map_err(failed)?;
        let front = Front::new(listener, woken, Backend::start(admin, token)?, limits).map_err(failed)?;
        let front = thread::Builder::new()
            .name("mmc-http".to_owned())
            .spawn(|| front.run())
            .map_err(failed)?;
        Ok(Server {
            address,
            running: Some(Running { wake, front }),
            process: std::process::id(),
        })
    }

    /// Where it listens; the port is the true one when 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and every connection, and waits for the threads that use the store. Takes milliseconds unless a
    /// call into the store takes longer. A second call does nothing; in a forked child the first does nothing.
    pub(crate) fn stop(&mut self) {
        let Some(Running { wake, front }) = self.running.take() else {
            return;
        };
        if self.process != std::process::id() {
            std::mem::forget(front); // a thread of the parent, which even detaching would touch
            return;
        }
        let _ = wake.shutdown(Shutdown::Both); // fails only when the front is gone already
        let _ = front.join(); // a panic there has been reported; its sockets are closed either way
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn bind(address: &str) -> Result<TcpListener> {
    let full = match address.rsplit_once(':') {
        Some(("", port)) => format!("127.0.0.1:{port}"),
        Some(_) => address.to_owned(),
        None => format!("127.0.0.1:{address}"),
    };
    let resolved = full.to_socket_addrs().map_err(|reason| match reason.kind() {
        ErrorKind::InvalidInput => invalid!("the admin port's address '{address}' is not host:port: {reason}"),
        _ => Error::Io(format!("the admin port's address {address}: {reason}").into()),
    })?;
    TcpListener::bind(&resolved.collect::<Vec<_>>()[..])
        .map_err(|reason| Error::Io(format!("the admin port can't listen at {address}: {reason}").into()))
}

/// A token that a header can carry. What it is stays out of the sentence.
fn checked_token(token: &str) -> Result<Arc<str>> {
    if token.is_empty() || token.len() > TOKEN_LIMIT {
        return Err(invalid!(
            "a http_token of {} bytes: it must have 1 to {TOKEN_LIMIT}",
            token.len()
        ));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid!("the http_token contains a character other than visible ASCII"));
    }
    Ok(token.into())
}
