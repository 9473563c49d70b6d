//! Asking a thread for a round of work: cheap when one is on its way, and no wish is lost.
//!
//! Who asks has changed something, and then looks whether the bell rings already; who answers silences it, and then looks at everything. If
//! the one finds it ringing still, the other must find what was changed: so both have a full fence between their two steps.

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether somebody has asked since the last answer.
pub(super) struct Bell {
    is_ringing: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> Bell {
        Bell {
            is_ringing: AtomicBool::new(false),
        }
    }

    /// Asks; true when the caller must wake who answers.
    pub(super) fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        !self.is_ringing.load(Ordering::Relaxed) && !self.is_ringing.swap(true, Ordering::Relaxed)
    }

    /// Silences it: from here on its wish is being fulfilled.
    pub(super) fn answer(&self) {
        self.is_ringing.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
