//! An object: a key, a size, and up to eight copies of its bytes in segments.
//!
//! Objects live in numbered slots ([`crate::slab`]). A slot's first line says what the object is and where its first copy lies, the
//! second holds a key of up to 64 bytes; longer keys and further copies go to an extension. So a look-up touches a bucket and two
//! lines, and an object costs 128 bytes here. An extension is its slot's for good: whoever comes late with a slot's number, and finds out
//! afterwards that the object has gone, has meanwhile looked at, or counted himself into, that slot's own words and no other's.
//!
//! **Reading without a lock.** The `life` word holds the slot's generation, the object's state and the key's length. It is written last
//! when an object is made and first when its slot is given up, so a reader that finds the same `life` before and after comparing
//! the key has compared that object's key (a seqlock; fences as in Boehm, "Can seqlocks get along with programming language
//! memory models?", 2012). Whoever needs the bytes counts itself into the copy ([`Count`]) and checks the generation once more.
//!
//! **Writing.** State and copies change only under the lock of the key's index shard. `Reserved` (key taken, bytes being written) ->
//! `Readable` -> `Gone`. The slot is given up when the name is out of the index and the last copy's memory is back.

mod count;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub(crate) use count::{Attempt, Count};

use crate::error::Result;
use crate::key::{Key, MAX_KEY_BYTES};
use crate::slab::{Slab, Slot, Stack};

/// The most copies of one object.
pub(crate) const MAX_COPIES: usize = 8;
/// Objects in one store: a slot and a copy's number fit 32 bits together.
const MAX_OBJECTS: u32 = 1 << 29;
/// Bytes of a key that lie in the slot itself.
const INLINE_KEY_BYTES: usize = 64;
/// No entry in a policy.
const NO_HANDLE: u32 = u32::MAX;

/// Where an object stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The slot has no object.
    Free = 0,
    /// The key is taken, the bytes are being written.
    Reserved = 1,
    /// Everybody can read it.
    Readable = 2,
    /// Out of the index; somebody may still read or hold a copy.
    Gone = 3,
}

/// The word that says which object a slot has: generation, copies, state, length of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life(u64);

impl Life {
    fn new(generation: u32, copies: usize, state: State, key_bytes: usize) -> Life {
        Life((u64::from(generation) << 32) | ((copies as u64) << 24) | ((state as u64) << 16) | key_bytes as u64)
    }

    /// How often the slot had been given up before this object came.
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn state(self) -> State {
        match (self.0 >> 16) & 0xff {
            0 => State::Free,
            1 => State::Reserved,
            2 => State::Readable,
            _ => State::Gone,
        }
    }

    /// Copies that were ever made of it; some may be gone.
    pub(crate) fn copies(self) -> usize {
        ((self.0 >> 24) & 0xff) as usize
    }

    fn key_bytes(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    fn with_state(self, state: State) -> Life {
        Life::new(self.generation(), self.copies(), state, self.key_bytes())
    }
}

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
        self.handle.store(NO_HANDLE, Ordering::Relaxed);
        if is_arriving {
            self.count.expect(generation);
        } else {
            self.count.reserve(generation);
        }
    }

    /// Remembers the policy's entry.
    pub(crate) fn set_handle(&self, handle: u32) {
        self.handle.store(handle, Ordering::Release);
    }

    /// Whether the copy has an entry in the policy.
    pub(crate) fn is_listed(&self) -> bool {
        self.handle.load(Ordering::Acquire) != NO_HANDLE
    }

    /// Takes the policy's entry away: whoever gets it is the one to remove it there.
    pub(crate) fn take_handle(&self) -> Option<u32> {
        Some(self.handle.swap(NO_HANDLE, Ordering::AcqRel)).filter(|handle| *handle != NO_HANDLE)
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
    life: AtomicU64,
    hash: AtomicU64,
    size: AtomicU64,
    /// The last use, as a place in the order of eviction: `crate::evict` says how it is made.
    used: AtomicU64,
    first: Copy,
    first_handle: AtomicU32,
    /// Number + 1 of the extension, 0 for none yet.
    extension: AtomicU32,
    /// Number + 1 of the first lease. 0 in a free slot, too: a look-up that comes late walks the chain.
    pub(crate) list: AtomicU32,
    /// Slot with an object: its name, and every copy whose memory is not back yet. Free slot: the next one.
    outstanding: AtomicU32,
    key: [AtomicU64; INLINE_KEY_BYTES / 8],
}

const _: () = assert!(size_of::<Object>() == 128);

// SAFETY: atomics only: zeroed is valid, nothing to drop, alignment 64.
unsafe impl Slot for Object {
    fn link(&self) -> &AtomicU32 {
        &self.outstanding
    }
}

/// What does not fit a slot: the rest of a long key, and the second to eighth copy.
#[repr(C, align(64))]
struct Extension {
    key: [AtomicU64; (MAX_KEY_BYTES - INLINE_KEY_BYTES) / 8],
    copies: [Copy; MAX_COPIES - 1],
    handles: [AtomicU32; MAX_COPIES - 1],
    link: AtomicU32,
}

// SAFETY: atomics only: zeroed is valid, nothing to drop, alignment 64.
unsafe impl Slot for Extension {
    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

impl Object {
    pub(crate) fn life(&self) -> Life {
        Life(self.life.load(Ordering::Acquire))
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.load(Ordering::Relaxed)
    }

    /// The size in bytes, as it was put.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// The place of its last use in the order of eviction.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes a use. Places only grow, and one that is there already is not written again: a line that everybody reads stays shared.
    pub(crate) fn touch(&self, place: u64) {
        if self.used.load(Ordering::Relaxed) < place {
            self.used.store(place, Ordering::Relaxed);
        }
    }

    /// Changes the state. Only under the lock of the key's shard.
    pub(crate) fn set_state(&self, state: State) {
        self.life.store(self.life().with_state(state).0, Ordering::Release);
    }

    /// Checks that everything read since `life` was loaded belongs to the object of `life`.
    fn is_still(&self, life: Life) -> bool {
        fence(Ordering::Acquire);
        self.life.load(Ordering::Relaxed) == life.0
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
    /// Free slots that have an extension.
    extended: Stack,
}

impl Objects {
    pub(crate) fn new() -> Objects {
        Objects {
            slots: Slab::new("objects", MAX_OBJECTS),
            extensions: Slab::new("object extensions", MAX_OBJECTS),
            extended: Stack::new(),
        }
    }

    pub(crate) fn get(&self, slot: u32) -> &Object {
        self.slots.get(slot)
    }

    /// Slots below this have had an object.
    pub(crate) fn bound(&self) -> u32 {
        self.slots.bound()
    }

    /// Bytes of the slots in use or once used.
    pub(crate) fn bytes(&self) -> u64 {
        self.slots.bytes() + self.extensions.bytes()
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
        // The slot reads as free since it was given up; nothing written below may be seen before that.
        fence(Ordering::Release);
        object.hash.store(hash, Ordering::Relaxed);
        object.size.store(size, Ordering::Relaxed);
        object.used.store(0, Ordering::Relaxed);
        object.list.store(0, Ordering::Relaxed);
        object.outstanding.store(1, Ordering::Relaxed);
        for (word, bytes) in self.key_words(object).zip(key.bytes().chunks(8)) {
            word.store(word_of(bytes), Ordering::Relaxed);
        }
        let life = Life::new(object.life().generation(), copies, State::Reserved, key.bytes().len());
        object.life.store(life.0, Ordering::Release);
        Ok(slot)
    }

    /// Takes a slot that has an extension.
    fn take_extended(&self) -> Result<u32> {
        if let Some(slot) = self.slots.take_from(&self.extended) {
            return Ok(slot);
        }
        let slot = self.slots.take()?;
        let extension = self.extensions.take().inspect_err(|_| self.slots.give_back(slot))?;
        self.get(slot).extension.store(extension + 1, Ordering::Relaxed);
        Ok(slot)
    }

    /// The copy of this number, below the `copies` that the slot's object has, or had when it was looked up.
    pub(crate) fn blob(&self, slot: u32, copy: usize) -> Blob<'_> {
        let object = self.get(slot);
        let (Copy { count, place }, handle) = match copy {
            0 => (&object.first, &object.first_handle),
            _ => {
                let extension = self
                    .extension(object)
                    .expect("an object with several copies has an extension");
                (&extension.copies[copy - 1], &extension.handles[copy - 1])
            }
        };
        Blob { count, place, handle }
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
        let life = object.life();
        let is_named = matches!(life.state(), State::Reserved | State::Readable)
            && object.hash() == hash
            && life.key_bytes() == key.bytes().len()
            && self
                .key_words(object)
                .zip(key.bytes().chunks(8))
                .all(|(word, bytes)| word.load(Ordering::Relaxed) == word_of(bytes));
        (is_named && object.is_still(life)).then_some(life)
    }

    /// The object's life and key, when it is reserved or readable. Takes no lock.
    pub(crate) fn read_key(&self, slot: u32) -> Option<(Life, KeyCopy)> {
        let object = self.get(slot);
        let life = object.life();
        if !matches!(life.state(), State::Reserved | State::Readable) {
            return None;
        }
        let mut key = KeyCopy {
            bytes: [0; MAX_KEY_BYTES],
            length: life.key_bytes(),
        };
        for (word, bytes) in self.key_words(object).zip(key.bytes[..key.length].chunks_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes()[..bytes.len()]);
        }
        object.is_still(life).then_some((life, key))
    }

    /// Ends one of the things that the slot stays for: its name, or a copy whose memory is back. The last one gives the slot up.
    pub(crate) fn finish(&self, slot: u32) {
        let object = self.get(slot);
        if object.outstanding.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let next = object.life().generation().wrapping_add(1);
        object
            .life
            .store(Life::new(next, 0, State::Free, 0).0, Ordering::Release);
        if object.extension.load(Ordering::Relaxed) == 0 {
            self.slots.give_back(slot);
        } else {
            self.slots.give_back_to(&self.extended, slot);
        }
    }

    fn extension(&self, object: &Object) -> Option<&Extension> {
        self.extensions
            .try_get(object.extension.load(Ordering::Relaxed).checked_sub(1)?)
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

/// Up to eight bytes of a key as a word, the missing ones zero.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(objects: &Objects, key: &str, copies: usize) -> u32 {
        objects
            .create(&Key::new(key.as_bytes()).unwrap(), 7, 1, copies)
            .unwrap()
    }

    #[test]
    fn a_copy_that_is_looked_up_late_is_a_copy_of_that_slot_and_of_no_other() {
        let objects = Objects::new();
        let slot = create(&objects, "two copies", 2);
        let life = objects.get(slot).life();
        objects.install(slot, 1, 0, 0, false);
        let late = objects.blob(slot, 1).count as *const Count;
        objects.finish(slot);
        objects.finish(slot);
        let others = [create(&objects, "plain", 1), create(&objects, "two copies again", 2)];
        objects.install(others[1], 1, 0, 0, false);
        objects.blob(others[1], 1).count.publish();
        assert_eq!(objects.blob(slot, 1).count as *const Count, late);
        assert_eq!(objects.blob(slot, 1).count.read(life.generation()), Attempt::Gone);
    }

    #[test]
    fn a_free_slot_has_no_leases() {
        let objects = Objects::new();
        let slots = [create(&objects, "one", 1), create(&objects, "other", 1)];
        slots.iter().for_each(|slot| objects.finish(*slot));
        for slot in slots {
            assert_eq!(objects.get(slot).list.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn extensions_are_used_again_by_those_who_need_one() {
        let objects = Objects::new();
        let long = "x".repeat(INLINE_KEY_BYTES + 1);
        for key in ["short", &long].repeat(10) {
            let slot = create(&objects, key, 1);
            objects.finish(slot);
        }
        assert_eq!((objects.slots.bound(), objects.extensions.bound()), (2, 1));
    }
}
