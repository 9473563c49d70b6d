//! Free numbers as a stack through the slots themselves: Treiber's, with a tag against reuse between look and swap.
//!
//! The head is one word: the number of the first free slot, and a tag that every change makes another. A thread that looks at the
//! head's link and is overtaken may have read what the slot's next owner wrote there; the tag is another then, and its swap fails.
//! Whoever pops a number sees everything that was written before it was pushed.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The stack. The links are wherever the caller keeps them: number + 1 of the next free slot, 0 for none.
pub(crate) struct FreeNumbers {
    /// Tag in the upper half, number + 1 of the first in the lower, 0 for none.
    head: AtomicU64,
}

impl FreeNumbers {
    pub(crate) fn new() -> FreeNumbers {
        FreeNumbers {
            head: AtomicU64::new(0),
        }
    }

    /// Adds a number, whose link is `link`. The caller must be its only holder.
    pub(crate) fn push(&self, number: u32, link: &AtomicU32) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.store(head as u32, Ordering::Relaxed);
            let next = tagged(head, number + 1);
            match self
                .head
                .compare_exchange_weak(head, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// The number that was added last. A hint: it may be taken by then.
    pub(crate) fn peek(&self) -> Option<u32> {
        (self.head.load(Ordering::Relaxed) as u32).checked_sub(1)
    }

    /// Takes the number that was added last; `link_of` gives the link of a number.
    pub(crate) fn pop<'l>(&self, link_of: impl Fn(u32) -> &'l AtomicU32) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let number = (head as u32).checked_sub(1)?;
            let next = tagged(head, link_of(number).load(Ordering::Relaxed));
            match self
                .head
                .compare_exchange_weak(head, next, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Some(number),
                Err(now) => head = now,
            }
        }
    }
}

fn tagged(head: u64, low: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(low)
}
