//! What an attached process has: memory that is lent to it, leases, and segments that it has brought.
//!
//! It is *attached*, or *void* when its connection has broken: then its tokens mean nothing any more, but its process may still be in the middle
//! of a copy, so what it has stays. When the process is *gone*, or has said that it is done, everything is taken out, once. What a request that was
//! under way at that moment gets comes to be noted after that, and is handed back to whoever notes it: so each loan is ended once,
//! whichever comes first.
//!
//! One lock, a leaf that is held for a few steps.

use std::collections::HashMap;

use crate::sync::{Mutex, PoisonError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Attached,
    Void,
    Gone,
}

/// See the module's text. `L` is a loan.
pub(super) struct Holdings<L>(Mutex<Inner<L>>);

struct Inner<L> {
    state: State,
    loans: HashMap<u64, L>,
    next_token: u64,
    leases: Vec<u64>,
    /// How long the list of leases may grow before those are dropped from it that have ended.
    most_leases: usize,
    segments: Vec<u64>,
}

/// Everything that a process had.
pub(super) struct Everything<L> {
    pub(super) loans: HashMap<u64, L>,
    pub(super) leases: Vec<u64>,
    pub(super) segments: Vec<u64>,
}

/// Leases that a process may have before those are looked for that have ended.
const FEW_LEASES: usize = 1024;

impl<L> Holdings<L> {
    pub(super) fn new() -> Holdings<L> {
        Holdings(Mutex::new(Inner {
            state: State::Attached,
            loans: HashMap::new(),
            next_token: 1,
            leases: Vec::new(),
            most_leases: FEW_LEASES,
            segments: Vec::new(),
        }))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner<L>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_attached(&self) -> bool {
        self.with(|inner| inner.state == State::Attached)
    }

    /// Notes a loan and gives its token, or the loan back when the process has gone, or memory for the note is missing.
    pub(super) fn keep(&self, loan: L) -> Result<u64, L> {
        self.with(|inner| {
            if inner.state == State::Gone || inner.loans.try_reserve(1).is_err() {
                return Err(loan);
            }
            let token = inner.next_token;
            inner.next_token += 1;
            inner.loans.insert(token, loan);
            Ok(token)
        })
    }

    /// Takes the loan of a token, if it is of this kind and the process may still use it.
    pub(super) fn take(&self, token: u64, is_kind: impl Fn(&L) -> bool) -> Option<L> {
        self.with(|inner| {
            let is_good = inner.state == State::Attached && inner.loans.get(&token).is_some_and(is_kind);
            is_good.then(|| inner.loans.remove(&token)).flatten()
        })
    }

    /// Notes a lease; false when the process has gone, or memory for the note is missing. `is_open` tells of one whether it has not ended.
    pub(super) fn keep_lease(&self, lease: u64, is_open: impl Fn(u64) -> bool) -> bool {
        self.with(|inner| {
            if inner.leases.len() >= inner.most_leases {
                inner.leases.retain(|lease| is_open(*lease));
                inner.most_leases = FEW_LEASES.max(2 * inner.leases.len());
            }
            let is_kept = inner.state != State::Gone && inner.leases.try_reserve(1).is_ok();
            if is_kept {
                inner.leases.push(lease);
            }
            is_kept
        })
    }

    /// Notes a segment that the process has brought; false when it is not attached any more.
    pub(super) fn add_segment(&self, address: u64) -> bool {
        self.with(|inner| {
            let is_attached = inner.state == State::Attached;
            if is_attached {
                inner.segments.push(address);
            }
            is_attached
        })
    }

    /// Takes a segment off the list; whether it was there.
    pub(super) fn take_segment(&self, address: u64) -> bool {
        self.with(|inner| {
            let place = inner.segments.iter().position(|other| *other == address);
            place.map(|place| inner.segments.swap_remove(place)).is_some()
        })
    }

    /// The connection has broken. The segments that the process had brought, for others to take over.
    pub(super) fn make_void(&self) -> Vec<u64> {
        self.with(|inner| {
            if inner.state == State::Attached {
                inner.state = State::Void;
            }
            std::mem::take(&mut inner.segments)
        })
    }

    /// Ends it when the connection has broken and nothing is left to wait for the process with; whether it has.
    pub(super) fn end_if_empty(&self) -> bool {
        self.with(|inner| {
            let is_empty = inner.loans.is_empty() && inner.leases.is_empty() && inner.segments.is_empty();
            if inner.state == State::Void && is_empty {
                inner.state = State::Gone;
            }
            inner.state == State::Gone
        })
    }

    /// The process has gone, or is done.
    pub(super) fn end(&self) -> Everything<L> {
        self.with(|inner| {
            inner.state = State::Gone;
            Everything {
                loans: std::mem::take(&mut inner.loans),
                leases: std::mem::take(&mut inner.leases),
                segments: std::mem::take(&mut inner.segments),
            }
        })
    }
}
