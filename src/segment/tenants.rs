//! Who holds memory of a segment beyond a call, counted so that it leaves only when nobody does.
//!
//! One word has the count and whether the segment is leaving, and shutting out is one step from "none" to that: either somebody holds on
//! and nothing has changed, or nobody can begin to.

use crate::sync::{AtomicU64, Ordering};

/// Set when nobody is let in any more.
const SHUT_OUT: u64 = 1 << 63;

/// The pins, leases and reservations in a segment.
pub(super) struct Tenants(AtomicU64);

impl Tenants {
    pub(super) fn new() -> Tenants {
        Tenants(AtomicU64::new(0))
    }

    /// Counts one in; false when nobody is let in any more.
    pub(super) fn hold(&self) -> bool {
        let mut tenants = self.0.load(Ordering::Relaxed);
        while tenants & SHUT_OUT == 0 {
            match self
                .0
                .compare_exchange_weak(tenants, tenants + 1, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => tenants = now,
            }
        }
        false
    }

    pub(super) fn end_hold(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn are_shut_out(&self) -> bool {
        self.0.load(Ordering::Acquire) & SHUT_OUT != 0
    }

    /// Lets nobody in any more. Else nothing has changed, and it says how many there are, or `None` when they are shut out already.
    pub(super) fn shut_out(&self) -> Result<(), Option<u64>> {
        match self
            .0
            .compare_exchange(0, SHUT_OUT, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(()),
            Err(tenants) => Err((tenants & SHUT_OUT == 0).then_some(tenants)),
        }
    }

    /// Takes [`Tenants::shut_out`] back.
    pub(super) fn let_in(&self) {
        self.0.fetch_and(!SHUT_OUT, Ordering::AcqRel);
    }
}
