//! An exact order of entries by place, with bounded work a call at any number of entries: nothing here sorts everything,
//! scans everything or copies a large array. A policy has one such order, or several over the same [`Entries`].
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
//! **Costs.** To link and to unlink find the bucket by binary search (14 probes at ten million entries); the oldest is in the
//! first one. A call that sorts or splits touches `2 * FULL` entries twice. The 32 bytes of a bucket are shared by more
//! than `FULL / 4` entries on average. [`Order::reserve`] takes what can fail: nothing else allocates.

use std::collections::VecDeque;

use super::Id;
use super::entries::{Entries, Entry, NIL, out_of_memory};
use crate::error::Result;

/// Entries of a full bucket as it is used: large enough that a segment of millions has a few thousand buckets, small
/// enough that sorting one takes some tens of microseconds. Tests use small ones to meet every case.
pub(super) const FULL: usize = 1024;

/// The order, with buckets of `FULL` entries.
pub(super) struct Order<const FULL: usize> {
    /// Ranges ascending and apart; no bucket is empty.
    buckets: VecDeque<Bucket>,
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
    pub(super) const SPLIT: usize = 2 * FULL;
    /// Neighbours with no more than this are joined; far from `FULL`, or one entry that comes and goes would open and
    /// join a bucket each time.
    const JOIN: usize = FULL / 2;

    pub fn new() -> Self {
        Order {
            buckets: VecDeque::new(),
            len: 0,
        }
    }

    /// Entries in the order.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes sure that `len` entries can be in the order.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        let buckets = Self::most_buckets(len);
        if self.buckets.capacity() < buckets {
            let more = buckets - self.buckets.len();
            self.buckets
                .try_reserve(more)
                .map_err(|_| out_of_memory(more, "more buckets"))?;
        }
        Ok(())
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

    /// Puts an entry that is in no list at `place`. There must be room: see [`Order::reserve`].
    pub fn link<T: Copy>(&mut self, entries: &mut Entries<T>, slot: u32, place: u64) {
        entries[slot].place = place;
        self.len += 1;
        let i = self.bucket_for(place);
        let bucket = &mut self.buckets[i];
        bucket.first = bucket.first.min(place);
        bucket.last = bucket.last.max(place);
        bucket.len += 1;
        let before = if i == 0 && bucket.sorted {
            let bucket = *bucket;
            self.position_in(entries, bucket, place)
        } else {
            bucket.sorted = false;
            NIL
        };
        self.splice(entries, i, slot, before);

        let bucket = &self.buckets[i];
        if bucket.len as usize >= Self::SPLIT && bucket.first < bucket.last {
            self.split(entries, i);
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
    fn position_in<T: Copy>(&self, entries: &Entries<T>, bucket: Bucket, place: u64) -> u32 {
        let (mut after, mut before) = (bucket.head, bucket.tail);
        loop {
            // The list has an entry, so one of the ends stops the walk at the latest where the two meet.
            if entries[before].place <= place {
                return entries[before].next;
            }
            if entries[after].place > place {
                return after;
            }
            before = entries[before].prev;
            after = entries[after].next;
        }
    }

    /// Links `slot` into the list of bucket `i` before the entry `next`, at the end when that is `NIL`.
    fn splice<T: Copy>(&mut self, entries: &mut Entries<T>, i: usize, slot: u32, next: u32) {
        let bucket = &mut self.buckets[i];
        let prev = if next == NIL {
            std::mem::replace(&mut bucket.tail, slot)
        } else {
            std::mem::replace(&mut entries[next].prev, slot)
        };
        if prev == NIL {
            bucket.head = slot;
        } else {
            entries[prev].next = slot;
        }
        let entry = &mut entries[slot];
        (entry.prev, entry.next) = (prev, next);
    }

    /// Takes an entry out of its list.
    pub fn unlink<T: Copy>(&mut self, entries: &mut Entries<T>, slot: u32) {
        let Entry { place, prev, next, .. } = entries[slot];
        self.len -= 1;
        let i = self.bucket_of(place);
        let bucket = &mut self.buckets[i];
        if prev == NIL {
            bucket.head = next;
        } else {
            entries[prev].next = next;
        }
        if next == NIL {
            bucket.tail = prev;
        } else {
            entries[next].prev = prev;
        }
        bucket.len -= 1;
        if bucket.len == 0 {
            self.buckets.remove(i);
        }
        self.join_small(entries, i);
        self.join_small(entries, i.saturating_sub(1));
    }

    /// Joins bucket `i` and the next when they have become small. The first is left alone: it is being drained.
    fn join_small<T: Copy>(&mut self, entries: &mut Entries<T>, i: usize) {
        if i == 0 || i + 1 >= self.buckets.len() {
            return;
        }
        let (lower, upper) = (self.buckets[i], self.buckets[i + 1]);
        if (lower.len + upper.len) as usize > Self::JOIN {
            return;
        }
        entries[lower.tail].next = upper.head;
        entries[upper.head].prev = lower.tail;
        self.buckets[i] = Bucket {
            last: upper.last,
            tail: upper.tail,
            len: lower.len + upper.len,
            sorted: lower.sorted && upper.sorted,
            ..lower
        };
        self.buckets.remove(i + 1);
    }

    /// Puts the list of bucket `i`, of at most `SPLIT` entries, in order of place and leaves that order in `entries.sorting`.
    fn sort<T: Copy>(&mut self, entries: &mut Entries<T>, i: usize) {
        let bucket = &mut self.buckets[i];
        debug_assert!(bucket.len as usize <= Self::SPLIT);
        let mut sorting = std::mem::take(&mut entries.sorting);
        sorting.clear();
        let mut slot = bucket.head;
        while slot != NIL {
            let entry = &entries[slot];
            sorting.push((entry.place, slot));
            slot = entry.next;
        }
        sorting.sort_unstable();
        let mut prev = NIL;
        for (k, &(_, slot)) in sorting.iter().enumerate() {
            let entry = &mut entries[slot];
            entry.prev = prev;
            entry.next = sorting.get(k + 1).map_or(NIL, |&(_, next)| next);
            prev = slot;
        }
        if let (Some(&(first, head)), Some(&(last, tail))) = (sorting.first(), sorting.last()) {
            *bucket = Bucket {
                first,
                last,
                head,
                tail,
                len: bucket.len,
                sorted: true,
            };
        }
        entries.sorting = sorting;
    }

    /// Cuts bucket `i` in two near its median, between two places. One that turns out to hold a single place stays, with
    /// its range drawn in so that nothing else comes in.
    fn split<T: Copy>(&mut self, entries: &mut Entries<T>, i: usize) {
        let sorted = self.buckets[i].sorted;
        self.sort(entries, i);
        let sorting = &entries.sorting;
        let median = sorting[sorting.len() / 2].0;
        let below = sorting.partition_point(|&(place, _)| place < median);
        let cut = if below > 0 {
            below
        } else {
            sorting.partition_point(|&(place, _)| place <= median)
        };
        let Some(&(first, head)) = sorting.get(cut) else {
            return;
        };
        let (last, tail) = sorting[cut - 1]; // the median is in there, so `cut` is not 0

        entries[tail].next = NIL;
        entries[head].prev = NIL;
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
        self.join_small(entries, i + 1);
        self.join_small(entries, i.saturating_sub(1));
    }

    /// The entry with the lowest place.
    pub fn oldest<T: Copy>(&mut self, entries: &mut Entries<T>) -> Option<u32> {
        let bucket = self.buckets.front_mut()?;
        if bucket.first == bucket.last {
            bucket.sorted = true; // one place: any order is right
        }
        if !bucket.sorted {
            self.sort(entries, 0);
        }
        Some(self.buckets[0].head)
    }

    /// The two that are the oldest, when the first bucket is in order: a hint.
    pub fn upcoming<T: Copy>(&self, entries: &Entries<T>) -> [Option<Id>; 2] {
        let head = self
            .buckets
            .front()
            .filter(|bucket| bucket.sorted)
            .map(|bucket| bucket.head);
        let Some(head) = head else { return [None; 2] };
        let Entry { id, next, .. } = entries[head];
        [Some(id), (next != NIL).then(|| entries[next].id)]
    }

    /// A place that no entry's is below; that of the oldest one when the first bucket is in order.
    pub fn lowest<T: Copy>(&self, entries: &Entries<T>) -> Option<u64> {
        let bucket = self.buckets.front()?;
        Some(if bucket.sorted {
            entries[bucket.head].place
        } else {
            bucket.first
        })
    }

    /// Checks every invariant, `belongs` of each entry's mark too, and panics at the first that does not hold.
    #[cfg(test)]
    pub fn validate<T: Copy>(&self, entries: &Entries<T>, belongs: impl Fn(&T) -> bool) {
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
                let entry = &entries[slot];
                assert_eq!(entry.prev, prev, "bucket {i}: entry {slot} has a wrong link");
                assert!(belongs(&entry.mark), "bucket {i}: entry {slot} belongs elsewhere");
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
    }
}
