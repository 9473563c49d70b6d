//! A bucket: fifteen entries, whose tags lie apart from their slot numbers.
//!
//! The tag is eight bits of the hash. A look-up compares all tags of a bucket at once, and only then follows an entry: so a key that is
//! not there is told by 16 bytes, and the tags of a million keys are few enough to stay in a processor's cache, on few enough pages.
//! The tags of four buckets are a cache line, a bucket's slots are another.
//!
//! A bucket may have a further one: the sixteenth tag says that there is, the sixteenth slot which.
//!
//! Writers take turns, by the lock of the shard. Readers look at any time: an entry's slot is written before its tag, so who sees the
//! tag sees that slot or a later one, and has to look whether the slot is what he wants anyway.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::slab::{Linked, Slot};

/// Entries of a bucket.
pub(super) const ENTRIES: usize = 15;
/// Buckets whose tags fill a cache line.
pub(super) const TAGGED: u32 = 4;
/// The place of what says whether there is a further bucket, and which.
const LINK: usize = ENTRIES;
/// An entry that is not in use has the tag 0, and no hash has.
const NO_TAG: u8 = 0;
const ALL_BYTES: u64 = 0x0101_0101_0101_0101;

/// The tag of a hash: bits that choose neither its shard nor its bucket.
pub(super) fn tag_of(hash: u64) -> u8 {
    ((hash >> 40) as u8).max(1)
}

/// The tags of a bucket, 8 to a word, the first in the lowest byte.
#[repr(C, align(16))]
struct Tags([AtomicU64; 2]);

/// The tags of four buckets.
#[repr(C, align(64))]
pub(super) struct TagLine([Tags; TAGGED as usize]);

/// The slots of a bucket, and the number of its further one.
#[repr(C, align(64))]
pub(super) struct Slots([AtomicU32; ENTRIES + 1]);

/// A bucket by itself, for a chain.
#[repr(C)]
pub(super) struct Further {
    slots: Slots,
    tags: Tags,
    free: AtomicU32,
}

const _: () = assert!(size_of::<TagLine>() == 64 && size_of::<Slots>() == 64 && size_of::<Further>() == 2 * 64);

// SAFETY: atomics only: zeroed is valid, nothing to drop, alignment 64.
unsafe impl Slot for TagLine {}

// SAFETY: as above.
unsafe impl Slot for Slots {}

// SAFETY: as above.
unsafe impl Slot for Further {}

impl Linked for Further {
    fn link(&self) -> &AtomicU32 {
        &self.free
    }
}

impl Further {
    pub(super) fn bucket(&self) -> Bucket<'_> {
        Bucket {
            tags: &self.tags,
            slots: &self.slots,
        }
    }
}

/// A bucket, wherever it lies.
#[derive(Clone, Copy)]
pub(super) struct Bucket<'s> {
    tags: &'s Tags,
    slots: &'s Slots,
}

impl<'s> Bucket<'s> {
    /// The bucket of these slots, whose tags are at `place` of a line.
    #[inline]
    pub(super) fn new(tags: &'s TagLine, place: u32, slots: &'s Slots) -> Bucket<'s> {
        Bucket {
            tags: &tags.0[(place % TAGGED) as usize],
            slots,
        }
    }

    /// The slots whose entries have this tag.
    #[inline]
    pub(super) fn candidates(self, tag: u8) -> impl Iterator<Item = u32> + use<'s> {
        // Acquire meets the release of `put`: the slot was written before.
        Places::of(self.tags.0.each_ref().map(|word| word.load(Ordering::Acquire)), tag)
            .map(move |place| self.slots.0[place].load(Ordering::Relaxed))
    }

    /// The first entry that is not in use.
    pub(super) fn vacancy(self) -> Option<Entry<'s>> {
        let place = Places::of(self.words(), NO_TAG).next()?;
        Some(Entry { bucket: self, place })
    }

    /// All entries, in use or not. For the writer.
    pub(super) fn entries(self) -> impl Iterator<Item = Entry<'s>> {
        (0..ENTRIES).map(move |place| Entry { bucket: self, place })
    }

    /// The number of the further bucket.
    #[inline]
    pub(super) fn next(self) -> Option<u32> {
        let has_next = self.tags.0[1].load(Ordering::Acquire) >> 56 != 0;
        has_next.then(|| self.slots.0[LINK].load(Ordering::Relaxed))
    }

    /// Links a further bucket, or unlinks it. For the writer.
    pub(super) fn set_next(self, next: Option<u32>) {
        let mark = next.map_or(NO_TAG, |number| {
            self.slots.0[LINK].store(number, Ordering::Relaxed);
            1
        });
        self.set_tag(LINK, mark);
    }

    /// The lines that a look-up reads: of the tags, and of the slots.
    #[inline]
    pub(super) fn lines(self) -> [*const u8; 2] {
        [
            std::ptr::from_ref(self.tags).cast(),
            std::ptr::from_ref(self.slots).cast(),
        ]
    }

    fn words(self) -> [u64; 2] {
        self.tags.0.each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    fn set_tag(self, place: usize, tag: u8) {
        let (word, shift) = (&self.tags.0[place / 8], place % 8 * 8);
        let others = word.load(Ordering::Relaxed) & !(0xff << shift);
        word.store(others | (u64::from(tag) << shift), Ordering::Release);
    }
}

/// An entry, for the writer.
#[derive(Clone, Copy)]
pub(super) struct Entry<'s> {
    bucket: Bucket<'s>,
    place: usize,
}

impl Entry<'_> {
    /// Tag and slot, if it is in use.
    pub(super) fn get(self) -> Option<(u8, u32)> {
        let tag = (self.bucket.words()[self.place / 8] >> (self.place % 8 * 8)) as u8;
        (tag != NO_TAG).then(|| (tag, self.bucket.slots.0[self.place].load(Ordering::Relaxed)))
    }

    pub(super) fn put(self, (tag, slot): (u8, u32)) {
        self.bucket.slots.0[self.place].store(slot, Ordering::Relaxed);
        self.bucket.set_tag(self.place, tag);
    }

    pub(super) fn clear(self) {
        self.bucket.set_tag(self.place, NO_TAG);
    }
}

/// The places of the entries that have some tag: the top bit of each one's byte.
struct Places([u64; 2]);

impl Places {
    #[inline]
    fn of(words: [u64; 2], tag: u8) -> Places {
        let [low, high] = words.map(|word| zero_bytes(word ^ (u64::from(tag) * ALL_BYTES)));
        Places([low, high & (u64::MAX >> 8)])
    }
}

impl Iterator for Places {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let half = usize::from(self.0[0] == 0);
        let place = half * 8 + self.0[half].trailing_zeros() as usize / 8;
        (self.0[half] != 0).then(|| {
            self.0[half] &= self.0[half] - 1;
            place
        })
    }
}

/// The top bit of every byte that is zero, and no other. (Mycroft's test, in the form that no carry disturbs.)
#[inline]
fn zero_bytes(word: u64) -> u64 {
    const LOW_SEVEN: u64 = 0x7f * ALL_BYTES;
    !(((word & LOW_SEVEN) + LOW_SEVEN) | word | LOW_SEVEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_bytes_are_told_from_all_others() {
        for value in 0..=0xff {
            for place in 0..8 {
                for others in [0u64, 0x01, 0x7f, 0x80, 0xff] {
                    let word = (others * ALL_BYTES) & !(0xff << (place * 8)) | (value << (place * 8));
                    let expected = (0..8).filter(|byte| (word >> (byte * 8)) as u8 == 0);
                    let expected = expected.fold(0, |bits, byte| bits | (0x80 << (byte * 8)));
                    assert_eq!(zero_bytes(word), expected, "{word:#x}");
                }
            }
        }
    }

    #[test]
    fn no_hash_has_the_tag_of_an_unused_entry() {
        assert!((0..=0xff).all(|byte| tag_of(byte << 40) != NO_TAG));
    }
}
