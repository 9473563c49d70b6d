//! The leases of one object, as a pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986) whose root ends first.
//!
//! Taking a lease costs a few steps, and ending the first one the logarithm of how many there are, amortised: the block that every prompt
//! begins with may have a lease for each request of a minute. Any other lease can be taken out at the same price, as what a process held goes
//! with it: each record but the root has a link back, to its left sibling or its parent, in the place where the root counts. Links are numbers of
//! records + 1, 0 for none. All of it happens under the lock of [`super::Holds`].

use std::sync::atomic::{AtomicU32, Ordering};

use super::record::Record;
use crate::slab::Slab;

pub(super) struct Leases<'a> {
    pub(super) records: &'a Slab<Record>,
    /// A link to the lease that ends first.
    pub(super) root: &'a AtomicU32,
}

impl Leases<'_> {
    /// Takes in a record that is in no heap.
    pub(super) fn push(&self, number: u32) {
        let record = self.records.get(number);
        record.child.store(0, Ordering::Relaxed);
        record.next.store(0, Ordering::Relaxed);
        let (before, count) = (self.root.load(Ordering::Relaxed), self.count());
        self.set_root(self.meld(before, number + 1), count + 1);
    }

    /// Takes out the lease that ends first.
    pub(super) fn pop(&self) -> Option<u32> {
        let number = self.root.load(Ordering::Relaxed).checked_sub(1)?;
        let count = self.count() - 1;
        self.set_root(self.heap_of_children(number), count);
        Some(number)
    }

    /// Takes out this lease, which is in the heap.
    pub(super) fn remove(&self, number: u32) {
        let (root, link) = (self.root.load(Ordering::Relaxed), number + 1);
        if root == link {
            self.pop();
            return;
        }
        let count = self.count() - 1;
        let record = self.records.get(number);
        let (back, next) = (record.count.load(Ordering::Relaxed), self.take_next(link));
        let before = self.record(back);
        let is_first = before.child.load(Ordering::Relaxed) == link;
        let place = if is_first { &before.child } else { &before.next };
        place.store(next, Ordering::Relaxed);
        if next != 0 {
            self.record(next).count.store(back, Ordering::Relaxed);
        }
        let children = self.heap_of_children(number);
        self.set_root(self.meld(root, children), count);
    }

    /// Makes one heap of the children of a record that leaves; a link to its root.
    fn heap_of_children(&self, number: u32) -> u32 {
        // They are melded two by two, and the pairs from the last to the first.
        let mut children = self.records.get(number).child.load(Ordering::Relaxed);
        let mut pairs = 0;
        while children != 0 {
            let (one, other) = (children, self.take_next(children));
            children = if other == 0 { 0 } else { self.take_next(other) };
            let pair = self.meld(one, other);
            self.record(pair).next.store(pairs, Ordering::Relaxed);
            pairs = pair;
        }
        let mut root = 0;
        while pairs != 0 {
            let pair = pairs;
            pairs = self.take_next(pair);
            root = self.meld(root, pair);
        }
        root
    }

    fn count(&self) -> u32 {
        match self.root.load(Ordering::Relaxed) {
            0 => 0,
            root => self.record(root).count.load(Ordering::Relaxed),
        }
    }

    fn set_root(&self, root: u32, count: u32) {
        if root != 0 {
            self.record(root).count.store(count, Ordering::Relaxed);
        }
        self.root.store(root, Ordering::Relaxed);
    }

    /// Makes one heap of two, either of which may be none; neither has a next.
    fn meld(&self, one: u32, other: u32) -> u32 {
        if one == 0 || other == 0 {
            return one | other;
        }
        let (first, later) = match self.end(one) <= self.end(other) {
            true => (one, other),
            false => (other, one),
        };
        let child = &self.record(first).child;
        let sibling = child.load(Ordering::Relaxed);
        self.record(later).next.store(sibling, Ordering::Relaxed);
        self.record(later).count.store(first, Ordering::Relaxed);
        if sibling != 0 {
            self.record(sibling).count.store(later, Ordering::Relaxed);
        }
        child.store(later, Ordering::Relaxed);
        first
    }

    fn take_next(&self, link: u32) -> u32 {
        let next = &self.record(link).next;
        let after = next.load(Ordering::Relaxed);
        next.store(0, Ordering::Relaxed);
        after
    }

    fn end(&self, link: u32) -> u64 {
        self.record(link).end.load(Ordering::Relaxed)
    }

    fn record(&self, link: u32) -> &Record {
        self.records.get(link - 1)
    }
}
