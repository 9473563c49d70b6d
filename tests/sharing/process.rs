//! The test's side: a place for a pool, and the processes that take part.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::orders::obey;

/// Set for a process that a test has started: the socket of its pool.
const SOCKET: &str = "MMC_TEST_SOCKET";
/// No answer takes longer, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a pool is shared; its files go with this value.
pub struct Scene {
    test: &'static str,
    directory: PathBuf,
}

impl Scene {
    /// The scene of a test, which gives its own path. In a process that the test has started it is `None`, once that has done what it was told.
    pub fn of(test: &'static str) -> Option<Scene> {
        if let Ok(socket) = std::env::var(SOCKET) {
            obey(&socket);
            return None;
        }
        let (_, name) = test.rsplit_once("::").unwrap();
        let short = &name[..name.len().min(40)];
        let directory = std::env::temp_dir().join(format!("mmc-{}-{short}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        Some(Scene { test, directory })
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    pub fn address(&self) -> CString {
        CString::new(format!("unix:{}", self.socket().display())).unwrap()
    }

    /// Starts a process.
    pub fn start(&self) -> Process {
        let (_, name) = self.test.split_once("::").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--test-threads=1", "--nocapture", name])
            .env(SOCKET, self.socket())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Process {
            child,
            line: BufReader::new(ours),
            kept: Vec::new(),
        }
    }

    /// Starts a process that owns the pool: `dram` bytes, in which a segment waits `wait_ms` for one in its process's place.
    pub fn owner(&self, dram: u64, wait_ms: u64) -> Process {
        let mut owner = self.start();
        assert_eq!(owner.ask(&format!("open {dram} {wait_ms}")), "ok");
        owner
    }

    /// Starts a process that is attached, with `dram` bytes of its own; its rank, -1 for none.
    pub fn attached(&self, dram: u64) -> (Process, i64) {
        let mut process = self.start();
        let rank = process.attach(dram);
        (process, rank)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A process that does what it is told; killed when it is dropped.
pub struct Process {
    child: Child,
    line: BufReader<UnixStream>,
    /// What it has put, and said that it is there to stay.
    pub kept: Vec<String>,
}

impl Process {
    /// Tells it something, without waiting for the answer.
    pub fn tell(&mut self, order: &str) {
        let sent = self.line.get_mut().write_all(format!("{order}\n").as_bytes());
        // One that has just been killed can't be told anything, and its answer is none.
        assert!(sent.is_ok() || !self.is_alive(), "{order}: {sent:?}");
    }

    /// The next answer; `None` when it has ended.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            let mut text = String::new();
            match self.line.read_line(&mut text) {
                Ok(_) if !text.ends_with('\n') => return None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("process {} does not answer: {error}", self.child.id()),
            }
            match text.trim_end().strip_prefix("kept ") {
                Some(key) => self.kept.push(key.into()),
                None => return Some(text.trim_end().into()),
            }
        }
    }

    pub fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.hear()
            .unwrap_or_else(|| panic!("process {} ended at {order}: {:?}", self.child.id(), self.child.wait()))
    }

    /// A number that it tells.
    pub fn number(&mut self, order: &str) -> u64 {
        let answer = self.ask(order);
        answer.parse().unwrap_or_else(|_| panic!("{order}: {answer}"))
    }

    /// Attaches, with `dram` bytes of its own; the rank, -1 for none.
    pub fn attach(&mut self, dram: u64) -> i64 {
        let answer = self.ask(&format!("attach {dram} 0"));
        let rank = answer
            .strip_prefix("rank ")
            .unwrap_or_else(|| panic!("attach: {answer}"));
        rank.parse().unwrap()
    }

    /// Asks until it answers so.
    pub fn ask_until(&mut self, order: &str, wanted: &str) {
        let begin = Instant::now();
        loop {
            let answer = self.ask(order);
            if answer == wanted {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{order}: {answer}, and not {wanted}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it has made some more calls.
    pub fn goes_on(&mut self, more: u64) {
        let (begin, before) = (Instant::now(), self.number("operations"));
        while self.number("operations") < before + more {
            assert!(begin.elapsed() < PATIENCE, "process {} makes no calls", self.child.id());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a child of this process that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as libc::pid_t, signal) }, 0);
    }

    /// Stops it between any two instructions, and waits until it has stopped.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let mut status = 0;
        // SAFETY: a child of this process that has not been waited for; it is only asked whether it has stopped.
        let seen = unsafe { libc::waitpid(self.child.id() as libc::pid_t, &mut status, libc::WUNTRACED) };
        assert!(
            seen > 0 && libc::WIFSTOPPED(status),
            "it ended by itself, with status {status:#x}"
        );
    }

    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Kills it. What it had said before is heard: the last answers of all, and what it has kept.
    pub fn kill(&mut self) {
        use std::os::unix::process::ExitStatusExt;

        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended by itself: {status}");
        // A forked child may have the other end open.
        self.line.get_ref().set_nonblocking(true).unwrap();
        let mut text = String::new();
        while self.line.read_line(&mut text).is_ok_and(|read| read > 0) {
            if let Some(key) = text.strip_prefix("kept ").filter(|key| key.ends_with('\n')) {
                self.kept.push(key.trim_end().into());
            }
            text.clear();
        }
    }

    /// Lets it end by itself.
    pub fn end(mut self) {
        self.line.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A setting of the environment, or what it is without one.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}
