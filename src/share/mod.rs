//! Sharing a store with other processes of the host: the owner's side.
//!
//! The owner keeps everything as it is: metadata and allocators are in its process, and its own calls know nothing of others. [`host`] opens a
//! socket ([`address`]) and gives each connection a thread, which reads frames ([`channel`], [`wire`]), has a [`session`] answer them, and writes the
//! replies. A process that attaches ([`crate::attach`]) maps the segments that are memfds, and copies by itself: bytes of objects never
//! cross the socket. `frames`, in tests, is a peer that means harm.
//!
//! **Who waits for whom.** A thread of a connection waits for its peer under no lock, so a peer that is slow or stopped stops that thread alone.
//! What a peer has is counted as held, not as read (`crate::store::guest`): nobody waits for it to be given back.
//!
//! **Locks**, in the order in which they may be taken: the host's list of sessions; what a session has. Neither is held in a call of the store, but
//! for looking at the list of segments.

pub(crate) mod address;
pub(crate) mod channel;
#[cfg(any(test, fuzzing))]
pub(crate) mod frames;
mod holdings;
pub(crate) mod host;
mod session;
pub(crate) mod wire;
