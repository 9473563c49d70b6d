//! The address at which a pool is shared: a Unix-domain socket, who may use it, and whose it is.
//!
//! **One owner an address.** Beside the socket lies a lock file. An owner holds a POSIX lock on it, which the kernel drops with the process, and which
//! no forked child inherits; so who gets the lock knows that no other process serves the socket that may lie there, and takes the stale one away. The
//! process's own sockets are in a list: a POSIX lock keeps nobody out of its own process.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};

use crate::config::share::socket_path;
use crate::error::{Error, Result, invalid, words};

/// Connections that wait to be accepted: a host of many processes that all start at once.
const BACKLOG: i32 = 1024;

/// The sockets that this process serves, by their directories' real names.
static OWN: Mutex<BTreeSet<(u32, PathBuf)>> = Mutex::new(BTreeSet::new());

/// The path of an address.
pub(crate) fn path_of(address: &str) -> Result<PathBuf> {
    let path = socket_path(address).map_err(|reason| invalid!("address {address:?}: {reason}"))?;
    Ok(path.into())
}

/// A new socket.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    Ok(socket)
}

/// Who may attach, beside the owner's own user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// Permission bits of the socket file.
    pub(crate) mode: u32,
    pub(crate) users: Vec<u32>,
    pub(crate) groups: Vec<u32>,
}

impl Access {
    /// Why this process may not attach, if it may not.
    pub(super) fn refuses(&self, peer: &Peer) -> Option<String> {
        let Peer { user, group, .. } = *peer;
        let own = rustix::process::geteuid().as_raw();
        if user == own || self.users.contains(&user) || self.groups.contains(&group) {
            return None;
        }
        Some(format!(
            "user {user} and group {group} may not attach: the owner's user is {own}, and neither share_users nor share_groups names them"
        ))
    }
}

/// The process at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) pid: Pid,
    user: u32,
    group: u32,
}

impl Peer {
    /// Who has connected, or, for a process that has connected, who listens.
    pub(crate) fn of(connection: impl AsFd) -> io::Result<Peer> {
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        option_of(connection, libc::SO_PEERCRED, &mut peer)?;
        let pid = Pid::from_raw(peer.pid)
            .ok_or_else(|| io::Error::other("the process is in a pid namespace that can't be seen from here"))?;
        Ok(Peer {
            pid,
            user: peer.uid,
            group: peer.gid,
        })
    }

    /// A descriptor that tells when the process at the other end of its connection ends. From Linux 6.5 on the connection itself has it; before, it is
    /// this very process if it says something afterwards: till then it has lived.
    pub(crate) fn watch(&self, connection: impl AsFd) -> io::Result<OwnedFd> {
        let mut process: libc::c_int = -1;
        match option_of(connection, libc::SO_PEERPIDFD, &mut process) {
            // SAFETY: the kernel has just made it for this call.
            Ok(()) => Ok(unsafe { OwnedFd::from_raw_fd(process) }),
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                Ok(rustix::process::pidfd_open(self.pid, PidfdFlags::empty())?)
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads what the kernel says of a socket: one of the options whose value is a `T` of which any bytes are valid.
fn option_of<T: Copy>(socket: impl AsFd, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes of the value, any of which are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_mut(value).cast(),
            &mut length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the process of a descriptor of [`Peer::watch`] has ended.
pub(crate) fn has_ended(process: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&process, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut polled, Some(&at_once)), Ok(1))
}

/// A socket that this process serves, until this is dropped.
pub(super) struct Served {
    listener: OwnedFd,
    path: PathBuf,
    lock_path: PathBuf,
    /// In the list of the process's own.
    place: (u32, PathBuf),
    /// Closed last: its lock goes with it.
    _lock: File,
}

impl Served {
    /// Binds the socket. `Busy` when somebody serves it.
    pub(super) fn bind(path: PathBuf, access: &Access) -> Result<Served> {
        let at = |error: &io::Error| Error::Io(words!("socket {}: {error}", path.display()));
        let busy = || Error::Busy(words!("socket {}: a process shares its pool there", path.display()));
        // A directory may have several names, and a lock keeps nobody out of its own process. The socket has the name that was given: a longer one
        // may be too long.
        let real = real(&path).map_err(|error| at(&error))?;
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (std::process::id(), real.clone());
        if own.contains(&place) {
            return Err(busy());
        }
        let mut lock_path = real.into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => busy(),
            _ => at(&error),
        })?;
        let listener = listen(&path, access).map_err(|error| {
            let _ = std::fs::remove_file(&lock_path);
            at(&error)
        })?;
        own.insert(place.clone());
        Ok(Served {
            listener,
            path,
            lock_path,
            place,
            _lock: lock,
        })
    }

    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A forked child has its parent's, and must leave it alone.
        if self.place.0 == std::process::id() {
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_file(&self.lock_path);
        }
        OWN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}

/// The path by the real name of its directory.
fn real(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => Ok(directory.canonicalize()?.join(name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The lock of a socket; `WouldBlock` when another process has it.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)?;
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::ACCESS) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => return Err(error.into()),
        }
        // Its last holder takes the file away before it lets go: then this one is nobody's.
        let (ours, named) = (file.metadata()?, std::fs::metadata(path));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

/// Listens at a path that is this process's alone.
fn listen(path: &Path, access: &Access) -> io::Result<OwnedFd> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something else lies there, which is no socket",
            ));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = socket()?;
    // The bits that a new socket file gets are those of the socket, less the umask: there is no moment at which others could connect.
    let mode = Mode::from_raw_mode(access.mode);
    rustix::fs::fchmod(&socket, mode)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::fs::chmod(path, mode)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_named_may_not_attach() {
        let own = rustix::process::geteuid().as_raw();
        let peer = |user, group| Peer {
            pid: Pid::INIT,
            user,
            group,
        };
        let (user, group) = (own + 1, 77);
        let access = |users: &[u32], groups: &[u32]| Access {
            mode: 0o600,
            users: users.into(),
            groups: groups.into(),
        };
        for (access, peer, may) in [
            (access(&[], &[]), peer(own, group), true),
            (access(&[user], &[]), peer(own, group), true),
            (access(&[], &[]), peer(user, group), false),
            (access(&[user], &[]), peer(user, group), true),
            (access(&[user + 1], &[]), peer(user, group), false),
            (access(&[], &[group]), peer(user, group), true),
            (access(&[], &[user]), peer(user, group), false),
            (access(&[group], &[group + 1]), peer(user, group), false),
        ] {
            let refused = access.refuses(&peer);
            assert_eq!(refused.is_none(), may, "{access:?}, {peer:?}");
            if let Some(reason) = refused {
                let named = format!("user {user} and group {group} may not attach");
                assert!(reason.contains(&named), "{reason}");
            }
        }
    }

    #[test]
    fn a_process_serves_a_socket_once_by_whatever_name() {
        let directory = std::env::temp_dir().join(format!("mmc-address-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let access = Access {
            mode: 0o600,
            ..Access::default()
        };
        let path = directory.join("pool");
        let served = Served::bind(path.clone(), &access).unwrap();
        for name in [
            path.clone(),
            directory.join("../").join(directory.file_name().unwrap()).join("pool"),
        ] {
            assert!(matches!(Served::bind(name, &access), Err(Error::Busy(_))));
            assert!(path.exists(), "it is served");
        }
        drop(served);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        drop(Served::bind(path, &access).unwrap());
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn a_connection_tells_who_is_there_and_when_that_has_ended() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.pid, rustix::process::getpid());
        assert!(!has_ended(peer.watch(&theirs).unwrap()));
    }
}
