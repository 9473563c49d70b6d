//! Entries in the order in which they came, linked by their slots: the newcomers.

use super::super::entries::{Entries, NIL};

/// The queue. An entry in it is in no other list.
pub(super) struct Queue {
    head: u32,
    tail: u32,
    len: usize,
}

impl Queue {
    pub fn new() -> Self {
        Queue {
            head: NIL,
            tail: NIL,
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The entry that came first.
    pub fn first(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    pub fn push<T: Copy>(&mut self, entries: &mut Entries<T>, slot: u32) {
        (entries[slot].prev, entries[slot].next) = (self.tail, NIL);
        match self.tail {
            NIL => self.head = slot,
            tail => entries[tail].next = slot,
        }
        self.tail = slot;
        self.len += 1;
    }

    pub fn unlink<T: Copy>(&mut self, entries: &mut Entries<T>, slot: u32) {
        let (prev, next) = (entries[slot].prev, entries[slot].next);
        match prev {
            NIL => self.head = next,
            prev => entries[prev].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => entries[next].prev = prev,
        }
        self.len -= 1;
    }

    /// Goes through the queue both ways.
    #[cfg(test)]
    pub fn validate<T: Copy>(&self, entries: &Entries<T>, is_mine: impl Fn(T) -> bool) {
        let (mut slot, mut before, mut len) = (self.head, NIL, 0);
        while slot != NIL {
            assert_eq!(entries[slot].prev, before);
            assert!(is_mine(entries[slot].mark));
            (before, slot, len) = (slot, entries[slot].next, len + 1);
        }
        assert_eq!((before, len), (self.tail, self.len));
    }
}
