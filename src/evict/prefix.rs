//! `prefix`: least recently used over batches, each chain eaten from its tail.
//!
//! An order by place, exact, with bounded work a call at any number of entries: nothing here sorts everything, scans
//! everything or copies a large array.
//!
//! **Buckets.** The places are cut into ranges that ascend and never overlap, each with a bucket: a doubly linked list of
//! the entries whose place lies in the range, in order of arrival. New entries come at the new end, so a bucket is filled
//! to `FULL` and the next one is opened. A batch arrives head first, which is newest first, so a full bucket makes room
//! below itself as well as above. Should places crowd into a range that exists, its bucket is split at the median when it
//! holds twice `FULL`. Neighbours that removals left with half of `FULL` together are joined.
//!
//! **Sorted late.** A bucket is put in order only when it is the oldest and a victim is wanted: one sort of some thousand
//! entries pays for as many evictions, each of which then takes the head. What arrives in that range afterwards walks to
//! its position; what is newer goes to the next bucket, so that filling and draining a small pool doesn't walk.
//!
//! **One place, one bucket.** Equal places never lie in two buckets. Two things follow: the place of an entry says which
//! list it is in, so entries carry no list number; and a bucket that can't be split holds one place only, needs no order,
//! and may grow without limit (everything that was held at one time may come to lie there).
//!
//! **Costs.** Insert, remove and a move find their bucket by binary search (14 probes at ten million entries); the
//! victim's is the first one. A call that sorts or splits touches `2 * FULL` entries twice. Memory is 24 bytes an entry;
//! the 32 bytes of a bucket are shared by more than `FULL / 4` entries on average. Entries lie in chunks that double in
//! size, never move, and are used again but not given back. Insert reserves whatever can fail: evict and remove
//! allocate nothing.

use std::collections::VecDeque;

use super::entries::{Entries, Entry, NIL, out_of_memory};
use super::{Handle, Id, Policy, Standing, Victim, renewed};
use crate::error::Result;

/// The policy with buckets of the size that is used: large enough that a segment of millions has a few thousand, small
/// enough that sorting one takes some tens of microseconds.
pub(super) type Prefix = Order<1024>;

/// The order, with buckets of `FULL` entries (tests use small ones to meet every case).
pub(super) struct Order<const FULL: usize> {
    entries: Entries,
    /// Ranges ascending and apart; no bucket is empty.
    buckets: VecDeque<Bucket>,
    /// Place and slot of the entries being sorted, room for `2 * FULL`.
    scratch: Vec<(u64, u32)>,
    len: usize,
}

/// The entries of one range of places. The next range may start later than after `last`: gaps belong to nobody.
#[derive(Clone, Copy)]
struct Bucket {
    /// No entry is older.
    first: u64,
    /// No entry is newer.
    last: u64,
    head: u32,
    tail: u32,
    len: u32,
    /// The list is in order of place.
    sorted: bool,
}

impl<const FULL: usize> Order<FULL> {
    /// Entries at which a bucket of several places is split.
    const SPLIT: usize = 2 * FULL;
    /// Neighbours with no more than this are joined; far from `FULL`, or one entry that comes and goes would open and
    /// join a bucket each time.
    const JOIN: usize = FULL / 2;

    pub(super) fn new() -> Result<Self> {
        let mut scratch = Vec::new();
        scratch
            .try_reserve_exact(Self::SPLIT)
            .map_err(|_| out_of_memory(Self::SPLIT, "sorting slots"))?;
        Ok(Order {
            entries: Entries::new(),
            buckets: VecDeque::new(),
            scratch,
            len: 0,
        })
    }

    /// Most buckets that `len` entries can have. Besides the first, two neighbours hold more than `JOIN`; one more
    /// bucket is there while a split waits for its join.
    fn most_buckets(len: usize) -> usize {
        2 * len / (Self::JOIN + 1) + 3
    }

    /// The bucket that holds the entries with this place.
    fn bucket_of(&self, place: u64) -> usize {
        if self.buckets[0].last >= place {
            return 0; // what eviction takes
        }
        self.buckets.partition_point(|bucket| bucket.first <= place) - 1
    }

    /// Puts an entry that is in no list at `place`. Allocates nothing: insert has reserved the buckets.
    fn link(&mut self, slot: u32, place: u64) {
        self.entries[slot].place = place;
        let i = self.bucket_for(place);
        let bucket = &mut self.buckets[i];
        bucket.first = bucket.first.min(place);
        bucket.last = bucket.last.max(place);
        bucket.len += 1;
        let before = if i == 0 && bucket.sorted {
            let bucket = *bucket;
            self.position_in(bucket, place)
        } else {
            bucket.sorted = false;
            NIL
        };
        self.splice(i, slot, before);

        let bucket = &self.buckets[i];
        if bucket.len as usize >= Self::SPLIT && bucket.first < bucket.last {
            self.split(i);
        }
    }

    /// The bucket that a new entry goes to: the one whose range holds the place, or else a neighbour of the gap that is
    /// not full, or else a new one in the gap.
    fn bucket_for(&mut self, place: u64) -> usize {
        let above = self.buckets.partition_point(|bucket| bucket.first <= place);
        if let Some(below) = above.checked_sub(1) {
            let bucket = &self.buckets[below];
            // The bucket being drained takes nothing newer: it would have to walk for each.
            let draining = below == 0 && bucket.sorted;
            if place <= bucket.last || (!draining && (bucket.len as usize) < FULL) {
                return below;
            }
        }
        if self.buckets.get(above).is_none_or(|bucket| bucket.len as usize >= FULL) {
            debug_assert!(self.buckets.len() < self.buckets.capacity());
            let empty = Bucket {
                first: place,
                last: place,
                head: NIL,
                tail: NIL,
                len: 0,
                sorted: false,
            };
            self.buckets.insert(above, empty);
        }
        above
    }

    /// The entry of a sorted list before which `place` belongs, `NIL` for the end. Walks from both ends at once.
    fn position_in(&self, bucket: Bucket, place: u64) -> u32 {
        let (mut after, mut before) = (bucket.head, bucket.tail);
        loop {
            // The list has an entry, so one of the ends stops the walk at the latest where the two meet.
            if self.entries[before].place <= place {
                return self.entries[before].next;
            }
            if self.entries[after].place > place {
                return after;
            }
            before = self.entries[before].prev;
            after = self.entries[after].next;
        }
    }

    /// Links `slot` into the list of bucket `i` before the entry `next`, at the end when that is `NIL`.
    fn splice(&mut self, i: usize, slot: u32, next: u32) {
        let bucket = &mut self.buckets[i];
        let prev = if next == NIL {
            std::mem::replace(&mut bucket.tail, slot)
        } else {
            std::mem::replace(&mut self.entries[next].prev, slot)
        };
        if prev == NIL {
            bucket.head = slot;
        } else {
            self.entries[prev].next = slot;
        }
        let entry = &mut self.entries[slot];
        (entry.prev, entry.next) = (prev, next);
    }

    /// Takes an entry out of its list.
    fn unlink(&mut self, slot: u32) {
        let Entry { place, prev, next, .. } = self.entries[slot];
        let i = self.bucket_of(place);
        let bucket = &mut self.buckets[i];
        if prev == NIL {
            bucket.head = next;
        } else {
            self.entries[prev].next = next;
        }
        if next == NIL {
            bucket.tail = prev;
        } else {
            self.entries[next].prev = prev;
        }
        bucket.len -= 1;
        if bucket.len == 0 {
            self.buckets.remove(i);
        }
        self.join_small(i);
        self.join_small(i.saturating_sub(1));
    }

    /// Joins bucket `i` and the next when they have become small. The first is left alone: it is being drained.
    fn join_small(&mut self, i: usize) {
        if i == 0 || i + 1 >= self.buckets.len() {
            return;
        }
        let (lower, upper) = (self.buckets[i], self.buckets[i + 1]);
        if (lower.len + upper.len) as usize > Self::JOIN {
            return;
        }
        self.entries[lower.tail].next = upper.head;
        self.entries[upper.head].prev = lower.tail;
        self.buckets[i] = Bucket {
            last: upper.last,
            tail: upper.tail,
            len: lower.len + upper.len,
            sorted: lower.sorted && upper.sorted,
            ..lower
        };
        self.buckets.remove(i + 1);
    }

    /// Puts the list of bucket `i`, of at most `SPLIT` entries, in order of place and leaves that order in `scratch`.
    fn sort(&mut self, i: usize) {
        let bucket = &mut self.buckets[i];
        debug_assert!(bucket.len as usize <= Self::SPLIT);
        self.scratch.clear();
        let mut slot = bucket.head;
        while slot != NIL {
            let entry = &self.entries[slot];
            self.scratch.push((entry.place, slot));
            slot = entry.next;
        }
        self.scratch.sort_unstable();
        let mut prev = NIL;
        for (k, &(_, slot)) in self.scratch.iter().enumerate() {
            let entry = &mut self.entries[slot];
            entry.prev = prev;
            entry.next = self.scratch.get(k + 1).map_or(NIL, |&(_, next)| next);
            prev = slot;
        }
        if let (Some(&(first, head)), Some(&(last, tail))) = (self.scratch.first(), self.scratch.last()) {
            *bucket = Bucket {
                first,
                last,
                head,
                tail,
                len: bucket.len,
                sorted: true,
            };
        }
    }

    /// Cuts bucket `i` in two near its median, between two places. One that turns out to hold a single place stays, with
    /// its range drawn in so that nothing else comes in.
    fn split(&mut self, i: usize) {
        let sorted = self.buckets[i].sorted;
        self.sort(i);
        let median = self.scratch[self.scratch.len() / 2].0;
        let below = self.scratch.partition_point(|&(place, _)| place < median);
        let cut = if below > 0 {
            below
        } else {
            self.scratch.partition_point(|&(place, _)| place <= median)
        };
        let Some(&(first, head)) = self.scratch.get(cut) else {
            return;
        };
        let (last, tail) = self.scratch[cut - 1]; // the median is in there, so `cut` is not 0

        self.entries[tail].next = NIL;
        self.entries[head].prev = NIL;
        // Both are sorted now. But a first bucket that is called so counts as being drained, and arrivals walk in it.
        let whole = Bucket {
            sorted,
            ..self.buckets[i]
        };
        let len = cut as u32;
        self.buckets[i] = Bucket {
            last,
            tail,
            len,
            ..whole
        };
        let upper = Bucket {
            first,
            head,
            len: whole.len - len,
            ..whole
        };
        self.buckets.insert(i + 1, upper);
        // Equal places can make a part small.
        self.join_small(i + 1);
        self.join_small(i.saturating_sub(1));
    }

    /// The entry with the lowest place.
    fn oldest(&mut self) -> Option<u32> {
        let bucket = self.buckets.front_mut()?;
        if bucket.first == bucket.last {
            bucket.sorted = true; // one place: any order is right
        }
        if !bucket.sorted {
            self.sort(0);
        }
        Some(self.buckets[0].head)
    }
}

impl<const FULL: usize> Policy for Order<FULL> {
    fn insert(&mut self, id: Id, _key: u64, units: u32, place: u64) -> Result<Handle> {
        let buckets = Self::most_buckets(self.len + 1);
        if self.buckets.capacity() < buckets {
            let more = buckets - self.buckets.len();
            self.buckets
                .try_reserve(more)
                .map_err(|_| out_of_memory(more, "more buckets"))?;
        }
        let slot = self.entries.take(Entry {
            place,
            id,
            units,
            prev: NIL,
            next: NIL,
        })?;
        self.len += 1;
        self.link(slot, place);
        Ok(Handle(slot))
    }

    fn remove(&mut self, handle: Handle) {
        debug_assert!(self.entries.in_use(handle.0), "handle {} is void", handle.0);
        self.unlink(handle.0);
        self.entries.release(handle.0);
        self.len -= 1;
    }

    fn evict(&mut self, newest: u64, standing: &mut dyn FnMut(Id) -> Standing) -> Option<Victim> {
        // Each entry moves once, unless hits come in while this searches. They must not outrun it for ever: when there
        // were as many moves as entries, the next one that may go goes.
        let mut moves = self.len;
        let mut search = Search {
            order: self,
            newest,
            passed_over: NIL,
        };
        loop {
            let slot = search.order.oldest()?;
            let Entry { place, id, units, .. } = search.order.entries[slot];
            match standing(id) {
                Standing::Evictable { place: now } if now > place && moves > 0 => {
                    moves -= 1;
                    search.order.unlink(slot);
                    search.order.link(slot, now);
                }
                Standing::Evictable { .. } => {
                    search.order.remove(Handle(slot));
                    return Some(Victim { id, units });
                }
                Standing::Held => search.pass_over(slot),
            }
        }
    }

    fn upcoming(&self) -> [Option<Id>; 2] {
        let head = self
            .buckets
            .front()
            .filter(|bucket| bucket.sorted)
            .map(|bucket| bucket.head);
        let Some(head) = head else { return [None; 2] };
        let Entry { id, next, .. } = self.entries[head];
        [Some(id), (next != NIL).then(|| self.entries[next].id)]
    }

    fn worth(&self, place: u64) -> u64 {
        let oldest = match self.buckets.front() {
            None => return 0,
            Some(bucket) if bucket.sorted => self.entries[bucket.head].place,
            Some(bucket) => bucket.first,
        };
        place.saturating_sub(oldest)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    fn validate(&self) {
        let mut newest_below = None;
        let mut linked = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            assert!(bucket.first <= bucket.last, "bucket {i}: range is empty");
            assert!(
                newest_below.is_none_or(|last| last < bucket.first),
                "bucket {i}: its range overlaps the one below"
            );
            assert!(bucket.len > 0, "bucket {i}: is empty");
            assert!(
                bucket.first == bucket.last || (bucket.len as usize) < Self::SPLIT,
                "bucket {i}: is too large"
            );
            let (mut slot, mut prev, mut count, mut place) = (bucket.head, NIL, 0, 0);
            while slot != NIL {
                let entry = &self.entries[slot];
                assert_eq!(entry.prev, prev, "bucket {i}: entry {slot} has a wrong link");
                assert!(
                    (bucket.first..=bucket.last).contains(&entry.place),
                    "bucket {i}: entry {slot} is misplaced"
                );
                assert!(
                    !bucket.sorted || place <= entry.place,
                    "bucket {i}: entry {slot} is out of order"
                );
                (prev, slot, place) = (slot, entry.next, entry.place);
                count += 1;
                assert!(count <= bucket.len, "bucket {i}: more entries than it counts");
            }
            assert_eq!(
                (prev, count),
                (bucket.tail, bucket.len),
                "bucket {i}: wrong tail or count"
            );
            newest_below = Some(bucket.last);
            linked += count as usize;
        }
        for i in 2..self.buckets.len() {
            let both = self.buckets[i - 1].len + self.buckets[i].len;
            assert!(
                both as usize > Self::JOIN,
                "buckets {} and {i} should have been joined",
                i - 1
            );
        }
        assert!(self.buckets.len() < Self::most_buckets(self.len), "too many buckets");
        assert_eq!(linked, self.len);
        assert_eq!(self.entries.count_in_use(), self.len, "slots were lost");
    }
}

/// One search for a victim. Entries that may not go leave the order for as long as it runs, so that none is met twice,
/// and come back when it ends, also when `standing` panics.
struct Search<'a, const FULL: usize> {
    order: &'a mut Order<FULL>,
    newest: u64,
    /// Head of a list that is linked by `next`.
    passed_over: u32,
}

impl<const FULL: usize> Search<'_, FULL> {
    fn pass_over(&mut self, slot: u32) {
        self.order.unlink(slot);
        self.order.entries[slot].next = std::mem::replace(&mut self.passed_over, slot);
    }
}

impl<const FULL: usize> Drop for Search<'_, FULL> {
    fn drop(&mut self) {
        while self.passed_over != NIL {
            let slot = self.passed_over;
            let Entry { place, next, .. } = self.order.entries[slot];
            self.passed_over = next;
            self.order.link(slot, renewed(place, self.newest));
        }
    }
}

#[cfg(test)]
mod tests;
