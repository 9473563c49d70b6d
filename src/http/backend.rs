//! The HTTP server behind the front: `tiny_http` on a socket that nobody else can reach, and the threads that answer.
//!
//! `tiny_http` gives each connection a thread, has no deadline, and its accept thread ends for good at the first
//! error of `accept` or when a descriptor can't be doubled. So it never meets a client. It listens on a Unix socket
//! bound in a directory of mode 0700 that is gone again before [`Backend::start`] returns; what is left is a
//! descriptor of the socket's inode, and connecting to `/proc/self/fd/N` is the only way in. Only `front` does, with
//! heads that it has rebuilt, one at a time, and only while there are as many descriptors left as that takes.
//!
//! Each worker takes a request, asks `routes`, and sends the answer. A list of keys is written page by page past
//! `tiny_http`'s own response, for two reasons: it would collect the whole list in memory for HTTP/1.0, and it would
//! end the list of a store that failed half-way like a complete one. Here a failure leaves the last chunk out, and
//! the client knows.
//!
//! **The end**: workers leave when their sockets are closed and `stopping` is set; they are joined. `tiny_http`
//! closes by connecting to its path, which is gone, so [`Backend`] knocks through its own descriptor until the
//! listener is closed. The four idle threads of `tiny_http`'s pool stay up to ten seconds; they hold no descriptor
//! and nothing of the store.
//!
//! Sockets are written with `write` only: std sends `MSG_NOSIGNAL` there, but not in a vectored write, and a host
//! written in C would die of `SIGPIPE`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tiny_http::{Header, Method, Response, StatusCode};

use super::head::Head;
use super::routes::{self, Admin, Answer, Body, KeyPages, Request};
use crate::error::{Error, Result};

/// Threads that answer. The front never forwards so many listings at once, so one is always free for short answers.
pub(crate) const WORKERS: usize = 3;

/// Descriptors that one exchange takes: ours, the accepted one, and the double that `tiny_http` makes of it.
const DESCRIPTORS: usize = 3;

/// Knocks before the listener is left to close by itself, a millisecond apart.
const KNOCKS: usize = 100;

/// What the workers share.
struct Service {
    admin: Arc<dyn Admin>,
    token: Option<Arc<str>>,
    stopping: AtomicBool,
}

/// A running `tiny_http` with its workers. Dropping it stops and joins them; sockets that the front holds must be
/// closed before, or a worker that writes to one is waited for.
pub(crate) struct Backend {
    server: Option<Arc<tiny_http::Server>>,
    workers: Vec<JoinHandle<()>>,
    service: Arc<Service>,
    door: Door,
}

impl Backend {
    pub(crate) fn start(admin: Arc<dyn Admin>, token: Option<Arc<str>>) -> Result<Backend> {
        let failed =
            |reason: &dyn std::fmt::Display| Error::Io(format!("the admin port's own socket: {reason}").into());
        let (listener, door) = Door::open().map_err(|reason| failed(&reason))?;
        // `tiny_http` unwraps what its first thread returns, so a process without threads left makes it panic.
        let server = catch_unwind(|| tiny_http::Server::from_listener(listener, None))
            .map_err(|_| Error::Io("the admin port can't start a thread".into()))?
            .map_err(|reason| failed(&reason))?;
        let service = Arc::new(Service {
            admin,
            token,
            stopping: AtomicBool::new(false),
        });
        let mut backend = Backend {
            server: Some(Arc::new(server)),
            workers: Vec::new(),
            service,
            door,
        };
        backend.start_workers().map_err(|reason| failed(&reason))?;
        Ok(backend)
    }

    fn start_workers(&mut self) -> io::Result<()> {
        for (number, server) in std::iter::repeat_n(&self.server, WORKERS).flatten().enumerate() {
            let (server, service) = (server.clone(), self.service.clone());
            let worker = thread::Builder::new().name(format!("mmc-http-{number}"));
            self.workers.push(worker.spawn(move || serve(&server, &service))?);
        }
        Ok(())
    }

    /// A second server for the same store, for when the first has lost its accept thread.
    pub(crate) fn restart(&self) -> Result<Backend> {
        Backend::start(self.service.admin.clone(), self.service.token.clone())
    }

    /// Counts a request whose whole answer the front has sent, whoever wrote it.
    pub(crate) fn count_answer(&self) {
        self.service.admin.count_answer();
    }

    /// Sends a request to the server; the response is read from what comes back, which does not block.
    ///
    /// Refused connections mean that the server is gone for good; any other error is a shortage that may pass.
    pub(crate) fn open(&self, head: &Head) -> io::Result<Upstream> {
        self.door.require_descriptors()?;
        let mut upstream = Upstream(self.door.knock()?);
        upstream.0.set_nonblocking(true)?;
        // A fresh Unix socket takes 200 KiB at once and the largest head has some 40, so this is one write.
        upstream.0.write_all(&head.rebuilt())?;
        Ok(upstream)
    }
}

/// Our end of one exchange with the server.
pub(crate) struct Upstream(UnixStream);

impl Read for Upstream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl AsFd for Upstream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Upstream {
    /// Closing would do, if no forked child had a copy: a worker that writes must learn that nobody reads.
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both); // fails when the server has closed, which is as good
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.service.stopping.store(true, Ordering::Release);
        if let Some(server) = self.server.take() {
            self.workers.iter().for_each(|_| server.unblock());
            for worker in self.workers.drain(..) {
                let _ = worker.join(); // a panic was caught and answered in the worker
            }
            drop(server); // the last owner: sets the flag that the accept thread looks at after each connection
        }
        for _ in 0..KNOCKS {
            if self.door.knock().is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The way to the private listener.
struct Door {
    socket: File,     // the inode of the listening socket, whose name is gone
    _directory: File, // its number is part of the name that `tiny_http` will try to remove: nobody else may get it
}

impl Door {
    fn open() -> io::Result<(UnixListener, Door)> {
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for parent in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
            match Door::open_in(&parent) {
                Ok(opened) => return Ok(opened),
                Err(reason) => failure = io::Error::new(reason.kind(), format!("in {}: {reason}", parent.display())),
            }
        }
        Err(failure)
    }

    fn open_in(parent: &Path) -> io::Result<(UnixListener, Door)> {
        let path = fresh_directory(parent)?;
        let opened = Door::bind_in(&path);
        fs::remove_dir(&path)?;
        opened
    }

    fn bind_in(path: &Path) -> io::Result<(UnixListener, Door)> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(flags | libc::O_DIRECTORY)
            .open(path)?;
        // Named through the descriptor: short enough for a socket address however long the path is, and never the name
        // of anybody else's file, since the directory can't be entered again once it is removed.
        let name = format!("/proc/self/fd/{}/admin", directory.as_raw_fd());
        let listener = UnixListener::bind(&name)?;
        let socket = OpenOptions::new().read(true).custom_flags(flags).open(&name);
        fs::remove_file(&name)?;
        Ok((
            listener,
            Door {
                socket: socket?,
                _directory: directory,
            },
        ))
    }

    /// Fails when the process has not the descriptors for one exchange: `tiny_http` does not survive their lack.
    fn require_descriptors(&self) -> io::Result<()> {
        let spares: Vec<File> = (0..DESCRIPTORS)
            .map(|_| self.socket.try_clone())
            .collect::<io::Result<_>>()?;
        drop(spares); // another thread may be quicker to take them; then the front starts a new server
        Ok(())
    }

    fn knock(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.socket.as_raw_fd()))
    }
}

/// Makes a directory that only this user can enter, with a name that nobody has.
fn fresh_directory(parent: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let path = parent.join(format!(
            "mmc-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(reason) if reason.kind() == io::ErrorKind::AlreadyExists => {} // left by a process that had this id
            Err(reason) => return Err(reason),
        }
    }
}

/// The life of a worker.
fn serve(server: &tiny_http::Server, service: &Service) {
    while !service.stopping.load(Ordering::Acquire) {
        // An error is the end of the accept thread, told once, or the call to stop.
        if let Ok(request) = server.recv() {
            let _ = respond(request, service); // a client that is gone
        }
    }
}

fn respond(request: tiny_http::Request, service: &Service) -> io::Result<()> {
    let method = request.method().to_string();
    let authorization = request
        .headers()
        .iter()
        .find(|header| header.field.equiv("Authorization"));
    let parts = Request {
        method: &method,
        target: request.url(),
        authorization: authorization.map(|header| header.value.as_str()),
    };
    let admin = service.admin.as_ref();
    let answer = guarded(|| Ok(routes::answer(&parts, service.token.as_deref(), admin)));
    let answer = answer.unwrap_or_else(|defect| Answer::failure(&defect));
    let bytes = match answer.body {
        Body::Bytes(bytes) => bytes,
        Body::Keys(pages) => return send_keys(request, answer.content_type, pages, service),
    };
    let headers = [Some(("Content-Type", answer.content_type)), answer.header];
    // A header is refused only for characters that no constant of `routes` has.
    let headers = headers
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Header::from_bytes(name, value).ok());
    let length = bytes.len();
    let response = Response::new(
        StatusCode(answer.status),
        headers.collect(),
        &bytes[..],
        Some(length),
        None,
    );
    request.respond(response.with_chunked_threshold(usize::MAX)) // its length is known, so it is said
}

/// Sends the list of keys at the pace of its reader: in chunks, or to the end of the connection for HTTP/1.0.
fn send_keys(
    request: tiny_http::Request,
    content_type: &str,
    mut pages: KeyPages,
    service: &Service,
) -> io::Result<()> {
    let has_chunks = *request.http_version() >= (1, 1);
    let is_head = *request.method() == Method::Head;
    let mut client = request.into_writer();
    let (version, encoding) = if has_chunks {
        ("1.1", "Transfer-Encoding: chunked\r\n")
    } else {
        ("1.0", "")
    };
    write!(
        client,
        "HTTP/{version} 200 OK\r\nContent-Type: {content_type}\r\n{encoding}\r\n"
    )?;
    if is_head {
        return client.flush();
    }
    while let Some(page) = guarded(|| pages.next_page(service.admin.as_ref())).map_err(io::Error::other)? {
        if service.stopping.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match (page, has_chunks) {
            ([], _) => {} // an empty chunk would be the end
            (page, true) => {
                write!(client, "{:x}\r\n", page.len())?;
                client.write_all(page)?;
                client.write_all(b"\r\n")?;
            }
            (page, false) => client.write_all(page)?,
        }
    }
    if has_chunks {
        client.write_all(b"0\r\n\r\n")?;
    }
    client.flush()
}

/// Runs a call into the store; a panic in it costs this request, not the worker.
fn guarded<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    let panicked = |_| Error::Internal("an admin request panicked".into());
    catch_unwind(AssertUnwindSafe(call)).map_err(panicked).flatten()
}
