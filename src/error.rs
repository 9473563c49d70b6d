//! One error type for the whole library, and its two views: a sentence for people, a code for programs.
//!
//! An [`Error`] is made where the thing went wrong and says what it was, the value and the limit. The C ABI turns it
//! into a code with [`Error::code`]; the sentence is kept for `mmc_last_error` and written out only when somebody asks, so
//! a miss on the hot path costs no formatting and no allocation.
//!
//! The numbers of -1 and -3000 to -3106 are those of the `memcache_hybrid` Python API, which users already match on.
//! Ours start at -4001. A number is never reused.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Result of everything that can fail in this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// An argument is wrong; the sentence names it, its value and the limit.
    InvalidParam(Cow<'static, str>),
    /// No room: every run of the rounded size holds pinned, leased or reserved memory, or no segment is that large.
    NoSpace(Cow<'static, str>),
    /// The store was never opened, or has been closed.
    NotStarted,
    /// The term of a reservation has passed; the key is free again.
    Timeout(Cow<'static, str>),
    /// The key is taken.
    Exists,
    /// No readable object has this key.
    NotFound,
    /// No such token, segment or address.
    Unknown(Cow<'static, str>),
    /// The object's bytes are not those that were written: as good as not there.
    Rotten,
    /// The caller's size is not the object's.
    SizeMismatch {
        /// Bytes that the caller gave.
        given: u64,
        /// Bytes of the object.
        object: u64,
    },
    /// The process or the limit set on it has no more memory for the library's own tables.
    OutOfMemory(Cow<'static, str>),
    /// The object is not in the state that the call needs.
    State(Cow<'static, str>),
    /// No lease is held on the object.
    NoLease,
    /// The store belongs to the parent of this process.
    Forked,
    /// Something is still in use; nothing has changed.
    Busy(Cow<'static, str>),
    /// Not available here, or not yet.
    Unsupported(Cow<'static, str>),
    /// An operating system call failed.
    Io(Cow<'static, str>),
    /// The host's copy callback failed: the code that the caller gets, and what the callback returned.
    Callback(i32, i32),
    /// The process that owns the pool has gone, or the connection to it broke.
    Disconnected(Cow<'static, str>),
    /// What the process that owns the pool has answered: its code and its sentence.
    Remote(i32, Cow<'static, str>),
    /// A defect of the library, caught at the boundary.
    Internal(Cow<'static, str>),
}

/// Success.
pub const MMC_OK: i32 = 0;
/// A failure that no other code describes.
pub const MMC_ERR_FAILED: i32 = -1;
/// An argument is wrong.
pub const MMC_ERR_INVALID_PARAM: i32 = -3000;
/// No room for the object: no run of its rounded size is free of pinned, leased and reserved memory.
pub const MMC_ERR_NO_SPACE: i32 = -3001;
/// The store was never opened, or has been closed.
pub const MMC_ERR_NOT_STARTED: i32 = -3003;
/// The term of the reservation has passed.
pub const MMC_ERR_TIMEOUT: i32 = -3004;
/// The key is taken.
pub const MMC_ERR_EXISTS: i32 = -3006;
/// No readable object has this key, or no such token, segment or address.
pub const MMC_ERR_NOT_FOUND: i32 = -3007;
/// The caller's size is not the object's.
pub const MMC_ERR_SIZE_MISMATCH: i32 = -3012;
/// No memory for the library's own tables.
pub const MMC_ERR_OUT_OF_MEMORY: i32 = -3016;
/// The object is not in the state that the call needs.
pub const MMC_ERR_STATE: i32 = -3101;
/// No lease is held on the object.
pub const MMC_ERR_NO_LEASE: i32 = -3106;
/// Of the `memcache_hybrid` numbers, object creation failed; the library itself does not return it.
pub const MMC_ERR_OBJECT: i32 = -3002;
/// Of the `memcache_hybrid` numbers, repeated call; the library itself does not return it.
pub const MMC_ERR_REPEATED: i32 = -3005;
/// Of the `memcache_hybrid` numbers, not initialised; the library itself does not return it.
pub const MMC_ERR_NOT_INITIALIZED: i32 = -3008;
/// Of the `memcache_hybrid` numbers, over capacity; the library itself does not return it.
pub const MMC_ERR_OVER_CAPACITY: i32 = -3013;
/// Of the `memcache_hybrid` numbers, no metadata service; the library itself does not return it.
pub const MMC_ERR_NO_META_SERVICE: i32 = -3017;
/// Of the `memcache_hybrid` numbers, no local service; the library itself does not return it.
pub const MMC_ERR_NO_LOCAL_SERVICE: i32 = -3018;
/// Of the `memcache_hybrid` numbers, client not initialised; the library itself does not return it.
pub const MMC_ERR_CLIENT_NOT_INITIALIZED: i32 = -3019;
/// Of the `memcache_hybrid` numbers, unmatched key; the library itself does not return it.
pub const MMC_ERR_UNMATCHED_KEY: i32 = -3102;
/// Of the `memcache_hybrid` numbers, unmatched return; the library itself does not return it.
pub const MMC_ERR_UNMATCHED_RETURN: i32 = -3103;
/// Of the `memcache_hybrid` numbers, lease not expired; the library itself does not return it.
pub const MMC_ERR_LEASE_NOT_EXPIRED: i32 = -3104;
/// Of the `memcache_hybrid` numbers, metadata backup; the library itself does not return it.
pub const MMC_ERR_META_BACKUP: i32 = -3105;
/// The store belongs to the parent of this process.
pub const MMC_ERR_FORKED: i32 = -4001;
/// Something is still in use; nothing has changed.
pub const MMC_ERR_BUSY: i32 = -4002;
/// Not available here, or not yet.
pub const MMC_ERR_UNSUPPORTED: i32 = -4003;
/// The process that owns the pool has gone, or its connection broke. Only stores of another process return it.
pub const MMC_ERR_DISCONNECTED: i32 = -4004;
/// An operating system call failed.
pub const MMC_ERR_IO: i32 = -4005;
/// A defect of the library, caught before it reached the host.
pub const MMC_ERR_INTERNAL: i32 = -4006;

/// Every code with its name, for `mmc_error_name`.
pub const NAMES: &[(i32, &std::ffi::CStr)] = &[
    (MMC_OK, c"MMC_OK"),
    (MMC_ERR_FAILED, c"MMC_ERR_FAILED"),
    (MMC_ERR_INVALID_PARAM, c"MMC_ERR_INVALID_PARAM"),
    (MMC_ERR_NO_SPACE, c"MMC_ERR_NO_SPACE"),
    (MMC_ERR_NOT_STARTED, c"MMC_ERR_NOT_STARTED"),
    (MMC_ERR_TIMEOUT, c"MMC_ERR_TIMEOUT"),
    (MMC_ERR_EXISTS, c"MMC_ERR_EXISTS"),
    (MMC_ERR_NOT_FOUND, c"MMC_ERR_NOT_FOUND"),
    (MMC_ERR_SIZE_MISMATCH, c"MMC_ERR_SIZE_MISMATCH"),
    (MMC_ERR_OUT_OF_MEMORY, c"MMC_ERR_OUT_OF_MEMORY"),
    (MMC_ERR_STATE, c"MMC_ERR_STATE"),
    (MMC_ERR_NO_LEASE, c"MMC_ERR_NO_LEASE"),
    (MMC_ERR_OBJECT, c"MMC_ERR_OBJECT"),
    (MMC_ERR_REPEATED, c"MMC_ERR_REPEATED"),
    (MMC_ERR_NOT_INITIALIZED, c"MMC_ERR_NOT_INITIALIZED"),
    (MMC_ERR_OVER_CAPACITY, c"MMC_ERR_OVER_CAPACITY"),
    (MMC_ERR_NO_META_SERVICE, c"MMC_ERR_NO_META_SERVICE"),
    (MMC_ERR_NO_LOCAL_SERVICE, c"MMC_ERR_NO_LOCAL_SERVICE"),
    (MMC_ERR_CLIENT_NOT_INITIALIZED, c"MMC_ERR_CLIENT_NOT_INITIALIZED"),
    (MMC_ERR_UNMATCHED_KEY, c"MMC_ERR_UNMATCHED_KEY"),
    (MMC_ERR_UNMATCHED_RETURN, c"MMC_ERR_UNMATCHED_RETURN"),
    (MMC_ERR_LEASE_NOT_EXPIRED, c"MMC_ERR_LEASE_NOT_EXPIRED"),
    (MMC_ERR_META_BACKUP, c"MMC_ERR_META_BACKUP"),
    (MMC_ERR_FORKED, c"MMC_ERR_FORKED"),
    (MMC_ERR_BUSY, c"MMC_ERR_BUSY"),
    (MMC_ERR_UNSUPPORTED, c"MMC_ERR_UNSUPPORTED"),
    (MMC_ERR_DISCONNECTED, c"MMC_ERR_DISCONNECTED"),
    (MMC_ERR_IO, c"MMC_ERR_IO"),
    (MMC_ERR_INTERNAL, c"MMC_ERR_INTERNAL"),
];

impl Error {
    /// The number that the C ABI returns for this error: always negative.
    pub fn code(&self) -> i32 {
        match self {
            Error::InvalidParam(_) => MMC_ERR_INVALID_PARAM,
            Error::NoSpace(_) => MMC_ERR_NO_SPACE,
            Error::NotStarted => MMC_ERR_NOT_STARTED,
            Error::Timeout(_) => MMC_ERR_TIMEOUT,
            Error::Exists => MMC_ERR_EXISTS,
            Error::NotFound | Error::Rotten | Error::Unknown(_) => MMC_ERR_NOT_FOUND,
            Error::SizeMismatch { .. } => MMC_ERR_SIZE_MISMATCH,
            Error::OutOfMemory(_) => MMC_ERR_OUT_OF_MEMORY,
            Error::State(_) => MMC_ERR_STATE,
            Error::NoLease => MMC_ERR_NO_LEASE,
            Error::Forked => MMC_ERR_FORKED,
            Error::Busy(_) => MMC_ERR_BUSY,
            Error::Unsupported(_) => MMC_ERR_UNSUPPORTED,
            Error::Io(_) => MMC_ERR_IO,
            Error::Callback(code, _) | Error::Remote(code, _) => *code,
            Error::Disconnected(_) => MMC_ERR_DISCONNECTED,
            Error::Internal(_) => MMC_ERR_INTERNAL,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InvalidParam(what)
            | Error::NoSpace(what)
            | Error::Timeout(what)
            | Error::Unknown(what)
            | Error::OutOfMemory(what)
            | Error::State(what)
            | Error::Busy(what)
            | Error::Unsupported(what)
            | Error::Io(what)
            | Error::Disconnected(what)
            | Error::Remote(_, what) => f.write_str(what),
            Error::NotStarted => f.write_str("the store is not open: it was never opened or has been closed"),
            Error::Exists => f.write_str("the key is taken: an object has it, or a reservation holds it"),
            Error::NotFound => f.write_str("no readable object has this key"),
            Error::Rotten => f.write_str("the object's bytes are no longer those that were put: it has been dropped"),
            Error::SizeMismatch { given, object } => {
                write!(f, "a buffer of {given} bytes for an object of {object} bytes")
            }
            Error::NoLease => f.write_str("no lease is held on the object"),
            Error::Forked => {
                f.write_str("the store belongs to the parent of this process; open one of its own after fork")
            }
            Error::Callback(_, returned) => write!(f, "the host's copy callback returned {returned}"),
            Error::Internal(what) => write!(f, "defect of the library: {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// An [`Error::InvalidParam`] with a formatted sentence.
macro_rules! invalid {
    ($($arg:tt)*) => { $crate::error::Error::InvalidParam($crate::error::words!($($arg)*)) };
}
pub(crate) use invalid;

/// A formatted sentence for an [`Error`].
macro_rules! words {
    ($($arg:tt)*) => { $crate::error::sentence(format_args!($($arg)*)) };
}
pub(crate) use words;

/// The words of `arguments`; where there is no memory for them, others: an error must not be what ends the process.
pub(crate) fn sentence(arguments: fmt::Arguments<'_>) -> Cow<'static, str> {
    match arguments.as_str() {
        Some(text) => text.into(),
        None => text_of(arguments).map_or("there is no memory for the words".into(), Cow::from),
    }
}

/// `arguments` as a text, unless there is no memory for it.
pub(crate) fn text_of(arguments: fmt::Arguments<'_>) -> Option<String> {
    struct Growing(String);

    impl Write for Growing {
        fn write_str(&mut self, piece: &str) -> fmt::Result {
            self.0.try_reserve(piece.len()).map_err(|_| fmt::Error)?;
            self.0.push_str(piece);
            Ok(())
        }
    }

    let mut text = Growing(String::new());
    text.write_fmt(arguments).ok()?;
    Some(text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_owner_of_the_pool_answers_is_passed_on_as_it_is() {
        let answer = Error::Remote(MMC_ERR_NO_SPACE, "mmc_put: no room".into());
        assert_eq!(
            (answer.code(), answer.to_string().as_str()),
            (MMC_ERR_NO_SPACE, "mmc_put: no room")
        );
        let gone = Error::Disconnected("unix:/run/mmc.sock: the owner has gone".into());
        assert_eq!(gone.code(), MMC_ERR_DISCONNECTED);
        assert_eq!(gone.to_string(), "unix:/run/mmc.sock: the owner has gone");
    }
}
