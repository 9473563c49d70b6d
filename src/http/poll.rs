//! Waiting for many sockets at once: `poll(2)` behind a safe face.
//!
//! A [`PollSet`] is filled anew before every wait. It keeps descriptor numbers, not descriptors: whoever fills it owns
//! the sockets and must keep them open until the answers have been read, which the loop in `front` does by changing its
//! connections only afterwards. Were it broken, a wait would report on the wrong socket or on none; memory is never at
//! stake, which is why this is not `unsafe` to use.
//!
//! With at most some 140 descriptors, `poll` costs microseconds and needs no registration that could go stale; it
//! also has no limit on the descriptor's number, as `select` has.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// What a socket is watched for. Errors are always reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// What a wait has found on a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Both directions are closed, or the connection was reset.
    pub(crate) broken: bool,
}

impl Readiness {
    /// Whether there is anything to do.
    pub(crate) fn is_any(self) -> bool {
        self.readable || self.writable || self.broken
    }
}

/// The place of a socket in a [`PollSet`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot(usize);

/// The sockets of one wait.
#[derive(Default)]
pub(crate) struct PollSet {
    entries: Vec<libc::pollfd>,
}

impl PollSet {
    /// Forgets all sockets.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Adds a socket to the next wait.
    pub(crate) fn watch(&mut self, socket: &impl AsFd, interest: Interest) -> Slot {
        let readable = if interest.readable { libc::POLLIN } else { 0 };
        let writable = if interest.writable { libc::POLLOUT } else { 0 };
        let fd = socket.as_fd().as_raw_fd();
        self.entries.push(libc::pollfd {
            fd,
            events: readable | writable,
            revents: 0,
        });
        Slot(self.entries.len() - 1)
    }

    /// Waits until a socket is ready or the time is over. A signal ends the wait early, with no socket ready.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // Rounded up: a deadline that is half a millisecond away must not be waited for in a busy loop.
        let milliseconds = timeout.map_or(-1, |time| {
            i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let (entries, count) = (self.entries.as_mut_ptr(), self.entries.len() as libc::nfds_t);
        // SAFETY: the pointer and the length are those of a live vector of `pollfd`, exclusively borrowed for the call.
        // The kernel looks the descriptor numbers up itself; one that is closed is reported as POLLNVAL.
        let found = unsafe { libc::poll(entries, count, milliseconds) };
        if found >= 0 {
            return Ok(());
        }
        for entry in &mut self.entries {
            entry.revents = 0;
        }
        match io::Error::last_os_error() {
            interrupted if interrupted.kind() == io::ErrorKind::Interrupted => Ok(()),
            failure => Err(failure),
        }
    }

    /// What the wait has found.
    pub(crate) fn readiness(&self, slot: Slot) -> Readiness {
        let found = self.entries.get(slot.0).map_or(0, |entry| entry.revents);
        Readiness {
            readable: found & libc::POLLIN != 0,
            writable: found & libc::POLLOUT != 0,
            broken: found & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    const READ: Interest = Interest {
        readable: true,
        writable: false,
    };

    #[test]
    fn readiness_belongs_to_the_socket_that_was_watched() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut set = PollSet::default();
        let (first, second) = (set.watch(&near, READ), set.watch(&far, READ));
        set.wait(Some(Duration::ZERO)).unwrap();
        assert!(!set.readiness(first).is_any() && !set.readiness(second).is_any());
        near.write_all(b"x").unwrap();
        set.wait(None).unwrap();
        assert!(!set.readiness(first).is_any());
        assert_eq!(
            set.readiness(second),
            Readiness {
                readable: true,
                ..Readiness::default()
            }
        );
        drop(far);
        set.clear();
        let slot = set.watch(&near, Interest::default());
        set.wait(None).unwrap();
        assert!(set.readiness(slot).broken);
    }

    #[test]
    fn a_wait_ends_with_its_time_and_never_before() {
        let started = Instant::now();
        PollSet::default().wait(Some(Duration::from_micros(1500))).unwrap();
        assert!(started.elapsed() >= Duration::from_micros(1500));
    }
}
