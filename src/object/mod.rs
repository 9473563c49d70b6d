//! An object: a key, a size, and up to eight copies of its bytes in segments.
//!
//! Objects live in numbered slots ([`crate::slab`]). A slot's first line says what the object is and where its first copy lies, the
//! second holds a key of up to 64 bytes; longer keys and further copies go to an extension. So a look-up touches a bucket and two
//! lines, and an object costs 128 bytes here. One that only needs a checksum, as on SSD, has [`Notes`] instead of an extension. Both are
//! their slot's for good: whoever comes late with a slot's number, and finds out afterwards that the object has gone, has meanwhile
//! looked at, or counted himself into, that slot's own words and no other's.
//!
//! **Reading without a lock.** The slot's [`Life`] is written last when an object is made and first when its slot is given up, so a reader
//! that finds the same generation before and after comparing the key has compared that object's key. Whoever needs the bytes counts
//! itself into the copy ([`Count`]) and checks the generation once more.
//!
//! **Moving.** A readable object may get further copies, on other media, under the lock of its key's shard; a number whose copy is gone and whose
//! memory is back ([`Blob::vacate`]) is given again. So a copy's place is another's only after its count was down to nobody: who counts
//! himself in first and looks then where it lies is right, and who looked before looks again.
//!
//! **Writing.** `Reserved` (key taken, bytes being written) -> `Readable` is its writer's step, by way of `Lent` when the writer is who has
//! reserved it in place; `Readable` -> `Gone`, and the end of single copies, happen under the lock of the key's index shard. The slot is given up when the name is out of the index and the last
//! copy's memory is back.

mod count;
mod extension;
mod life;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) use count::{Attempt, Count};
use extension::{Extension, Notes};
use life::LifeWord;
pub(crate) use life::{Life, State};

use crate::copy::prefetch;
use crate::error::Result;
use crate::key::{Key, MAX_KEY_BYTES};
use crate::slab::{FreeNumbers, Linked, Slab, Slot};

/// The most copies of one object.
pub(crate) const MAX_COPIES: usize = 8;
/// Objects in one store: a slot and a copy's number fit 32 bits together.
const MAX_OBJECTS: u32 = 1 << 29;
/// Bytes of a key that lie in the slot itself.
const INLINE_KEY_BYTES: usize = 64;
/// Low bits of the word of an object's last use that are the policy's mark.
const MARK_BITS: u32 = 2;
const MARK: u64 = (1 << MARK_BITS) - 1;
/// What the word of a policy's handle says beside handles: there is no copy of this number, and its memory is back. So a zeroed one says.
const VACANT: u32 = 0;
/// There is a copy, and no entry for it in a policy.
const UNLISTED: u32 = 1;
/// Handles are written as so much more than they are.
const FIRST_HANDLE: u32 = 2;

/// One copy of an object, wherever its parts are kept: where it lies, who needs it, and its entry in the policy of its segment.
#[derive(Clone, Copy)]
pub(crate) struct Blob<'s> {
    pub(crate) count: &'s Count,
    place: &'s AtomicU64,
    handle: &'s AtomicU32,
}

impl Blob<'_> {
    /// Segment number and first unit.
    pub(crate) fn place(&self) -> (u32, u32) {
        let place = self.place.load(Ordering::Relaxed);
        ((place >> 32) as u32, place as u32)
    }

    /// Puts the copy there: not readable yet, held by its writer, or just being written.
    pub(crate) fn install(&self, generation: u32, segment: u32, unit: u32, is_arriving: bool) {
        self.place
            .store((u64::from(segment) << 32) | u64::from(unit), Ordering::Relaxed);
        self.handle.store(UNLISTED, Ordering::Relaxed);
        if is_arriving {
            self.count.expect(generation);
        } else {
            self.count.reserve(generation);
        }
    }

    /// Remembers the policy's entry.
    pub(crate) fn set_handle(&self, handle: u32) {
        self.handle.store(handle + FIRST_HANDLE, Ordering::Release);
    }

    /// Whether the copy has an entry in the policy.
    pub(crate) fn is_listed(&self) -> bool {
        self.handle.load(Ordering::Acquire) >= FIRST_HANDLE
    }

    /// Takes the policy's entry away: whoever gets it is the one to remove it there.
    pub(crate) fn take_handle(&self) -> Option<u32> {
        let take = |handle| (handle >= FIRST_HANDLE).then_some(UNLISTED);
        let taken = self.handle.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.ok().map(|handle| handle - FIRST_HANDLE)
    }

    /// The policy's entry. Under the policy's lock it stays what it is.
    pub(crate) fn handle(&self) -> Option<u32> {
        self.handle.load(Ordering::Acquire).checked_sub(FIRST_HANDLE)
    }

    /// Says that the copy has this entry no longer, unless its memory is back already: its number may be given again then.
    pub(crate) fn forget_handle(&self, handle: u32) {
        let listed = handle + FIRST_HANDLE;
        let _ = self
            .handle
            .compare_exchange(listed, UNLISTED, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Says that the copy's memory is back, so that another may have its number.
    pub(crate) fn vacate(&self) {
        self.handle.store(VACANT, Ordering::Release);
    }

    fn is_vacant(&self) -> bool {
        self.handle.load(Ordering::Acquire) == VACANT
    }
}

/// The lasting half of a [`Blob`].
#[repr(C)]
struct Copy {
    count: Count,
    /// Segment number in the upper half, first unit in the lower.
    place: AtomicU64,
}

/// A slot for one object: two cache lines.
#[repr(C, align(64))]
pub(crate) struct Object {
    life: LifeWord,
    hash: AtomicU64,
    size: AtomicU64,
    /// The last use, as a place in the order of eviction, above two bits with which the policy marks it: `crate::evict` says how they are made.
    used: AtomicU64,
    first: Copy,
    first_handle: AtomicU32,
    /// Number + 1 of the extension; or of the notes ([`extension`]); 0 for neither yet.
    extension: AtomicU32,
    /// Number + 1 of the first lease. 0 in a free slot, too: a look-up that comes late walks the chain.
    pub(crate) list: AtomicU32,
    /// Slot with an object: its name, and every copy whose memory is not back yet. Free slot: the next one.
    outstanding: AtomicU32,
    key: [AtomicU64; INLINE_KEY_BYTES / 8],
}

const _: () = assert!(size_of::<Object>() == 128);

// SAFETY: atomics only: zeroed is valid, nothing to drop, alignment 64.
unsafe impl Slot for Object {}

impl Linked for Object {
    fn link(&self) -> &AtomicU32 {
        &self.outstanding
    }
}

impl Object {
    pub(crate) fn life(&self) -> Life {
        self.life.load()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.load(Ordering::Relaxed)
    }

    /// The size in bytes, as it was put.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Its cache lines: what it is, and its key.
    fn lines(&self) -> [*const u8; 2] {
        [std::ptr::from_ref(self).cast(), self.key.as_ptr().cast()]
    }

    /// The place of its last use in the order of eviction.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed) >> MARK_BITS
    }

    /// What the policy has marked it with.
    pub(crate) fn mark(&self) -> u8 {
        (self.used.load(Ordering::Relaxed) & MARK) as u8
    }

    /// Sets place and mark. By its writer, or under the lock of the key's shard.
    pub(crate) fn set_used(&self, place: u64, mark: u8) {
        let word = (place << MARK_BITS) | u64::from(mark);
        self.used.store(word, Ordering::Relaxed);
    }

    /// Notes a use, with a mark that follows from the place and mark before, which it returns. Places only grow, and one that is there
    /// already is not written again: a line that everybody reads stays shared. Of two uses at once one may be lost.
    #[inline]
    pub(crate) fn touch(&self, place: u64, mark: impl FnOnce(u64, u8) -> u8) -> Option<(u64, u8)> {
        let word = self.used.load(Ordering::Relaxed);
        let (before, marked) = (word >> MARK_BITS, (word & MARK) as u8);
        if before >= place {
            return None;
        }
        self.set_used(place, mark(before, marked));
        Some((before, marked))
    }

    /// Notes that it is put into a device's memory. By its writer.
    pub(crate) fn set_of_device(&self) {
        self.life.set(self.life().of_device());
    }

    /// Changes the state: to `Lent` and `Readable` by its writer, to `Gone` under the lock of the key's shard; from `Lent` by whoever has ended the
    /// reservation, which one does.
    pub(crate) fn set_state(&self, state: State) {
        self.life.set(self.life().with_state(state));
    }
}

/// A key read out of a slot.
pub(crate) struct KeyCopy {
    bytes: [u8; MAX_KEY_BYTES],
    length: usize,
}

impl KeyCopy {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Every object of a store.
pub(crate) struct Objects {
    slots: Slab<Object>,
    extensions: Slab<Extension>,
    notes: Slab<Notes>,
    /// Free slots that have an extension.
    extended: FreeNumbers,
}

impl Objects {
    pub(crate) fn new() -> Objects {
        Objects {
            slots: Slab::new("objects", MAX_OBJECTS),
            extensions: Slab::new("object extensions", MAX_OBJECTS),
            notes: Slab::new("object notes", MAX_OBJECTS),
            extended: FreeNumbers::new(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &Object {
        self.slots.get(slot)
    }

    /// Begins to load a slot, for a caller who will look at it soon. The number may be anything.
    pub(crate) fn prefetch(&self, slot: u32) {
        if let Some(object) = self.slots.try_get(slot) {
            object.lines().into_iter().for_each(prefetch);
        }
    }

    /// Begins to load the slot that the next object is likely to get.
    pub(crate) fn prefetch_next(&self) {
        if let Some(object) = self.slots.likely_next() {
            object.lines().into_iter().for_each(prefetch);
        }
    }

    /// Slots below this have had an object.
    pub(crate) fn bound(&self) -> u32 {
        self.slots.bound()
    }

    /// Bytes of the slots in use or once used.
    pub(crate) fn bytes(&self) -> u64 {
        self.slots.bytes() + self.extensions.bytes() + self.notes.bytes()
    }

    /// Takes a slot for a new object of `copies` copies, in the state `Reserved`. It is nobody's until it is in the index.
    pub(crate) fn create(&self, key: &Key, hash: u64, size: u64, copies: usize) -> Result<u32> {
        let slot = if key.bytes().len() > INLINE_KEY_BYTES || copies > 1 {
            self.take_extended()?
        } else {
            // An extension that nobody needs is better than no slot.
            let other = || self.slots.take_from(&self.extended);
            self.slots.take().or_else(|error| other().ok_or(error))?
        };
        let object = self.get(slot);
        object.life.begin();
        object.hash.store(hash, Ordering::Relaxed);
        object.size.store(size, Ordering::Relaxed);
        object.used.store(0, Ordering::Relaxed);
        object.list.store(0, Ordering::Relaxed);
        object.outstanding.store(1, Ordering::Relaxed);
        if let Some(notes) = self.notes(object) {
            notes.checksum.store(0, Ordering::Relaxed);
            notes.slow_uses.store(0, Ordering::Relaxed);
        }
        for (word, value) in self.key_words(object).zip(words_of(key.bytes())) {
            word.store(value, Ordering::Relaxed);
        }
        let generation = object.life().generation();
        object
            .life
            .set(Life::new(generation, copies, State::Reserved, key.bytes().len()));
        Ok(slot)
    }

    /// Takes a slot that has an extension.
    fn take_extended(&self) -> Result<u32> {
        if let Some(slot) = self.slots.take_from(&self.extended) {
            return Ok(slot);
        }
        let slot = self.slots.take()?;
        self.extend(slot).inspect_err(|_| self.slots.give_back(slot))?;
        Ok(slot)
    }

    /// The copy of this number, below the `copies` that the slot's object has, or had when it was looked up.
    #[inline]
    pub(crate) fn blob(&self, slot: u32, copy: usize) -> Blob<'_> {
        let object = self.get(slot);
        let (Copy { count, place }, handle) = match copy {
            0 => (&object.first, &object.first_handle),
            _ => self.further_copy(object, copy),
        };
        Blob { count, place, handle }
    }

    #[cold]
    fn further_copy<'s>(&'s self, object: &'s Object, copy: usize) -> (&'s Copy, &'s AtomicU32) {
        let extension = self
            .extension(object)
            .expect("an object with several copies has an extension");
        (&extension.copies[copy - 1], &extension.handles[copy - 1])
    }

    /// A number for one more copy of an object that has an extension. Under the lock of the key's shard.
    pub(crate) fn vacant_copy(&self, slot: u32) -> Option<usize> {
        (0..MAX_COPIES).find(|copy| self.blob(slot, *copy).is_vacant())
    }

    /// Makes an installed copy of a readable object one that everybody finds. Under the lock of the key's shard.
    pub(crate) fn publish_further(&self, slot: u32, copy: usize) {
        let object = self.get(slot);
        // In this order: who finds every other copy gone afterwards finds that the life has changed.
        self.blob(slot, copy).count.publish();
        object.life.set(object.life().with_copy(copy));
    }

    /// Installs a copy, reserved or arriving: the slot stays until its memory is back.
    pub(crate) fn install(&self, slot: u32, copy: usize, segment: u32, unit: u32, is_arriving: bool) {
        let object = self.get(slot);
        object.outstanding.fetch_add(1, Ordering::Relaxed);
        self.blob(slot, copy)
            .install(object.life().generation(), segment, unit, is_arriving);
    }

    /// The object's life, when it is reserved or readable and has this key. Takes no lock; see the module's text.
    pub(crate) fn life_of(&self, slot: u32, key: &Key, hash: u64) -> Option<Life> {
        let object = self.slots.try_get(slot)?;
        prefetch(object.lines()[1]);
        let life = object.life();
        let is_it = life.is_named()
            && object.hash() == hash
            && life.key_bytes() == key.bytes().len()
            && self.has_key(object, key.bytes());
        if !is_it {
            return None;
        }
        object.life.again(life).filter(|life| life.is_named())
    }

    /// Whether the words of the object's key are those of `key`, which is as long. No early exit from the part that every key has: it is
    /// eight words at most, and they are equal but once in 2^64 times.
    #[inline]
    fn has_key(&self, object: &Object, key: &[u8]) -> bool {
        if let Ok(key) = <&[u8; INLINE_KEY_BYTES]>::try_from(key) {
            // The usual length, without a loop.
            let (words, _) = key.as_chunks::<8>();
            let differs =
                |number: usize| object.key[number].load(Ordering::Relaxed) ^ u64::from_le_bytes(words[number]);
            let halves = [0, 4].map(|at| differs(at) | differs(at + 1) | differs(at + 2) | differs(at + 3));
            return halves[0] | halves[1] == 0;
        }
        let (inline, rest) = key.split_at(key.len().min(INLINE_KEY_BYTES));
        let (whole, last) = inline.as_chunks::<8>();
        let mut differences = 0;
        for (word, bytes) in object.key.iter().zip(whole) {
            differences |= word.load(Ordering::Relaxed) ^ u64::from_le_bytes(*bytes);
        }
        if !last.is_empty() {
            differences |= object.key[whole.len()].load(Ordering::Relaxed) ^ last_word(last);
        }
        differences == 0 && (rest.is_empty() || self.has_rest(object, rest))
    }

    fn has_rest(&self, object: &Object, rest: &[u8]) -> bool {
        self.extension(object).is_some_and(|extension| {
            let mut words = extension.key.iter().zip(words_of(rest));
            words.all(|(word, expected)| word.load(Ordering::Relaxed) == expected)
        })
    }

    /// The object's life and key, when it is reserved or readable. Takes no lock.
    pub(crate) fn read_key(&self, slot: u32) -> Option<(Life, KeyCopy)> {
        let object = self.get(slot);
        let life = object.life();
        if !life.is_named() {
            return None;
        }
        let mut key = KeyCopy {
            bytes: [0; MAX_KEY_BYTES],
            length: life.key_bytes(),
        };
        for (word, bytes) in self.key_words(object).zip(key.bytes[..key.length].chunks_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes()[..bytes.len()]);
        }
        let life = object.life.again(life).filter(|life| life.is_named())?;
        Some((life, key))
    }

    /// Ends one of the things that the slot stays for: its name, or a copy whose memory is back. The last one gives the slot up.
    pub(crate) fn finish(&self, slot: u32) {
        let object = self.get(slot);
        if object.outstanding.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let next = object.life().generation().wrapping_add(1);
        object.life.set(Life::new(next, 0, State::Free, 0));
        if self.extension(object).is_none() {
            self.slots.give_back(slot);
        } else {
            self.slots.give_back_to(&self.extended, slot);
        }
    }

    /// The words of the key, in order. A racing reader may meet those of a later object: it finds out by `is_still`.
    fn key_words<'s>(&'s self, object: &'s Object) -> impl Iterator<Item = &'s AtomicU64> {
        object.key.iter().chain(KeyRest {
            objects: self,
            object,
            next: 0,
        })
    }
}

/// The words of a key behind the first 64 bytes; the extension is only looked up when a key is that long.
struct KeyRest<'s> {
    objects: &'s Objects,
    object: &'s Object,
    next: usize,
}

impl<'s> Iterator for KeyRest<'s> {
    type Item = &'s AtomicU64;

    fn next(&mut self) -> Option<&'s AtomicU64> {
        let word = self.objects.extension(self.object)?.key.get(self.next);
        self.next += 1;
        word
    }
}

/// A key as words of eight bytes, the missing ones of the last zero.
fn words_of(key: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, rest) = key.as_chunks::<8>();
    let last = (!rest.is_empty()).then(|| last_word(rest));
    whole.iter().map(|bytes| u64::from_le_bytes(*bytes)).chain(last)
}

/// The last word of a key: fewer than eight bytes.
fn last_word(rest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
