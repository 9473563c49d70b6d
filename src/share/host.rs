//! The owner's threads: one that lets processes in and sees them end, and one a connection.
//!
//! **Sessions.** A process has one session and a connection for each of its calls that are under way at once. All of them end together: when one
//! breaks, the others are shut, and the session is void. What it had goes back when its process has ended, which a pidfd tells: a
//! forked child may keep a socket open for years.

mod brought;
mod connection;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use brought::Orphan;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::net::{Shutdown, SocketFlags};

use super::address::{Access, Served};
use super::session::Session;
use crate::error::{Error, Result, words};
use crate::log::{Level, say};
use crate::store::Store;

/// Time after which a withdrawal is tried again, and accepting when there was no descriptor to be had.
const AGAIN: Duration = Duration::from_millis(250);
/// Connections at once, each with a thread.
const MAX_CONNECTIONS: usize = 8192;
/// Stack of a connection's thread: the store's calls need a tenth of it.
const STACK_BYTES: usize = 512 << 10;

/// How a pool is shared.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) access: Access,
    /// How long a segment waits for a process that comes in the place of the one that had brought it.
    pub(crate) wait: Duration,
}

/// A pool that is shared, until [`Host::stop`].
pub(crate) struct Host {
    inner: Arc<Inner>,
    watcher: Option<JoinHandle<()>>,
}

struct Inner {
    store: Arc<Store>,
    terms: Terms,
    served: Served,
    http_address: String,
    wake: OwnedFd,
    is_stopping: AtomicBool,
    /// Threads that look for their next request at this moment; more than there are processors to spare don't.
    looking: AtomicUsize,
    most_looking: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<u64, Attached>,
    next_session: u64,
    connections: Vec<Connection>,
    orphans: Vec<Orphan>,
    /// Ranks that are being given to segments that are not there yet.
    promised: Vec<u32>,
}

/// A connection's thread, and its socket for as long as that has it.
struct Connection {
    thread: JoinHandle<()>,
    socket: Weak<OwnedFd>,
}

/// A session with what the host needs for it.
struct Attached {
    session: Arc<Session>,
    /// Tells when the process ends.
    process: Arc<OwnedFd>,
    sockets: Vec<Arc<OwnedFd>>,
}

impl Host {
    /// Serves `store` at a socket.
    pub(crate) fn start(store: Arc<Store>, path: PathBuf, terms: Terms, http_address: String) -> Result<Host> {
        let shown = path.display().to_string();
        let served = Served::bind(path, &terms.access)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::Io(words!("no descriptor for sharing: {error}")))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let inner = Arc::new(Inner {
            store,
            terms,
            served,
            http_address,
            wake,
            is_stopping: AtomicBool::new(false),
            looking: AtomicUsize::new(0),
            most_looking: processors / 2,
            state: Mutex::new(State::default()),
        });
        let watching = Arc::clone(&inner);
        let watcher = std::thread::Builder::new()
            .name("mmc-share".into())
            .spawn(move || watching.watch())
            .map_err(|error| Error::OutOfMemory(words!("no thread for sharing: {error}")))?;
        say!(Level::Info, "pool shared at unix:{}", shown);
        Ok(Host {
            inner,
            watcher: Some(watcher),
        })
    }

    /// Lets nobody in any more, disconnects everybody, and takes back what they had.
    pub(crate) fn stop(mut self) {
        let inner = &self.inner;
        inner.is_stopping.store(true, Ordering::Release);
        inner.wake();
        if let Some(watcher) = self.watcher.take() {
            // A panic in it was a defect that its own thread has reported; sharing ends anyway.
            let _ = watcher.join();
        }
        let connections = std::mem::take(&mut inner.state().connections);
        for Connection { thread, socket } in connections {
            socket.upgrade().iter().for_each(shut);
            let _ = thread.join();
        }
        let sessions = std::mem::take(&mut inner.state().sessions);
        for attached in sessions.into_values() {
            attached.session.end(&inner.store);
        }
        inner.note_sessions(0);
    }
}

/// Ends a connection, whatever waits for it.
fn shut(socket: &Arc<OwnedFd>) {
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    fn note_sessions(&self, number: usize) {
        self.store.guests.store(number as u64, Ordering::Relaxed);
    }

    // The watching thread

    fn watch(self: Arc<Inner>) {
        let mut is_accepting = true;
        while !self.is_stopping() {
            let watched: Vec<(u64, Arc<OwnedFd>)> = {
                let state = self.state();
                state
                    .sessions
                    .iter()
                    .map(|(number, attached)| (*number, Arc::clone(&attached.process)))
                    .collect()
            };
            let listener = if is_accepting {
                PollFlags::IN
            } else {
                PollFlags::empty()
            };
            let mut polled = vec![
                PollFd::new(&self.wake, PollFlags::IN),
                PollFd::new(self.served.listener(), listener),
            ];
            polled.extend(watched.iter().map(|(_, process)| PollFd::new(process, PollFlags::IN)));
            let again = (!is_accepting).then_some(AGAIN);
            let patience = [again, self.time_to_next_orphan()].into_iter().flatten().min();
            let patience = patience.map(|span| Timespec {
                tv_sec: span.as_secs() as i64,
                tv_nsec: i64::from(span.subsec_nanos()) + 1,
            });
            match rustix::event::poll(&mut polled, patience.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    say!(Level::Error, "sharing: can't wait for processes: {error}");
                    std::thread::sleep(AGAIN);
                    continue;
                }
            }
            let is_called = |polled: &PollFd<'_>| !polled.revents().is_empty();
            let ended: Vec<u64> = polled[2..]
                .iter()
                .zip(&watched)
                .filter_map(|(polled, (number, _))| is_called(polled).then_some(*number))
                .collect();
            let is_woken = is_called(&polled[0]);
            drop(polled);
            if is_woken {
                let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
            }
            ended.into_iter().for_each(|number| self.end(number));
            is_accepting = self.accept();
            self.withdraw_due();
        }
    }

    /// Lets in all who wait; false when there is no descriptor or thread for one more.
    fn accept(self: &Arc<Inner>) -> bool {
        loop {
            let mut polled = [PollFd::new(self.served.listener(), PollFlags::IN)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            if !matches!(rustix::event::poll(&mut polled, Some(&at_once)), Ok(1)) {
                return true;
            }
            let socket = match rustix::net::accept_with(self.served.listener(), SocketFlags::CLOEXEC) {
                Ok(socket) => Arc::new(socket),
                Err(error) if is_of_connection(error) => continue,
                Err(error) => {
                    say!(Level::Warn, "sharing: a process can't be let in: {error}");
                    return false;
                }
            };
            let mut state = self.state();
            state.connections.retain(|connection| !connection.thread.is_finished());
            if state.connections.len() >= MAX_CONNECTIONS {
                say!(
                    Level::Warn,
                    "sharing: {MAX_CONNECTIONS} connections are open, which is the limit"
                );
                continue;
            }
            let inner = Arc::clone(self);
            let kept = Arc::downgrade(&socket);
            let thread = std::thread::Builder::new()
                .name("mmc-share-peer".into())
                .stack_size(STACK_BYTES)
                .spawn(move || inner.serve(socket));
            match thread {
                Ok(thread) => state.connections.push(Connection { thread, socket: kept }),
                Err(error) => {
                    say!(Level::Warn, "sharing: no thread for one more connection: {error}");
                    return false;
                }
            }
        }
    }

    /// Ends the session of a process that has ended.
    fn end(&self, number: u64) {
        let attached = {
            let mut state = self.state();
            let attached = state.sessions.remove(&number);
            self.note_sessions(state.sessions.len());
            attached
        };
        let Some(attached) = attached else { return };
        attached.sockets.iter().for_each(shut);
        let segments = attached.session.end(&self.store);
        self.orphan(segments, self.terms.wait, true);
        say!(
            Level::Info,
            "process {} has ended, and what it held is back",
            attached.session.pid
        );
    }

    /// Voids the session of a connection that has broken.
    fn make_void(&self, session: &Session) {
        if let Some(attached) = self.state().sessions.get_mut(&session.number) {
            attached.sockets.drain(..).for_each(|socket| shut(&socket));
        }
        let segments = session.make_void();
        self.orphan(segments, self.terms.wait, true);
        // What is lent is kept until the process ends; a process that has nothing need not be waited for.
        if session.end_if_empty() {
            let mut state = self.state();
            state.sessions.remove(&session.number);
            self.note_sessions(state.sessions.len());
            drop(state);
            self.wake();
        }
    }
}

/// Whether an error of accepting is of that one connection.
fn is_of_connection(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(
        error,
        Errno::CONNABORTED | Errno::INTR | Errno::AGAIN | Errno::PROTO | Errno::PERM
    )
}
