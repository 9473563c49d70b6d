//! What an object may have beside its slot: notes of a slow medium, or an extension, which has those too.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::{Copy, INLINE_KEY_BYTES, MAX_COPIES, Object, Objects};
use crate::error::Result;
use crate::key::MAX_KEY_BYTES;
use crate::slab::{Linked, Slot};

/// In [`Object::extension`].
const IS_NOTES: u32 = 1 << 31;

/// What is known of an object that is, or was, on a slow medium.
#[repr(C, align(16))]
pub(super) struct Notes {
    /// [`checksum`](crate::segment::disk::checksum) of the object's bytes, 0 while nobody has made it.
    pub(super) checksum: AtomicU64,
    /// Uses of the object where it was slow: [`Objects::use_slow_copy`].
    pub(super) slow_uses: AtomicU8,
    link: AtomicU32,
}

const _: () = assert!(size_of::<Notes>() == 16);

// SAFETY: atomics only: zeroed is valid, nothing to drop, alignment 16.
unsafe impl Slot for Notes {}

impl Linked for Notes {
    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

/// What does not fit a slot: the rest of a long key, the second to eighth copy, and what moves between media need.
#[repr(C, align(64))]
pub(super) struct Extension {
    pub(super) key: [AtomicU64; (MAX_KEY_BYTES - INLINE_KEY_BYTES) / 8],
    pub(super) copies: [Copy; MAX_COPIES - 1],
    pub(super) handles: [AtomicU32; MAX_COPIES - 1],
    link: AtomicU32,
    notes: Notes,
    /// Whether somebody moves the slot's object, or one that it had before. It is the mover's to take back.
    is_moving: AtomicBool,
}

// SAFETY: atomics only: zeroed is valid, nothing to drop, alignment 64.
unsafe impl Slot for Extension {}

impl Linked for Extension {
    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

impl Objects {
    /// Gives a slot an extension if it has none yet. One caller at a time: its object's writer, or under the lock of the key's shard.
    pub(crate) fn extend(&self, slot: u32) -> Result<()> {
        let object = self.get(slot);
        if self.extension(object).is_some() {
            return Ok(());
        }
        let number = self.extensions.take()?;
        if let Some(before) = self.notes(object) {
            // They are left as they are, for who still reads them.
            let notes = &self.extensions.get(number).notes;
            notes
                .checksum
                .store(before.checksum.load(Ordering::Acquire), Ordering::Relaxed);
            notes
                .slow_uses
                .store(before.slow_uses.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        object.extension.store(number + 1, Ordering::Release);
        Ok(())
    }

    /// Gives a slot room for a checksum if it has none yet. As [`Objects::extend`], which does that too.
    pub(crate) fn annotate(&self, slot: u32) -> Result<()> {
        let object = self.get(slot);
        if object.extension.load(Ordering::Relaxed) == 0 {
            let number = self.notes.take()?;
            object.extension.store((number + 1) | IS_NOTES, Ordering::Release);
        }
        Ok(())
    }

    /// The checksum of the object's bytes, if somebody made it.
    pub(crate) fn checksum(&self, slot: u32) -> Option<u64> {
        let checksum = self.notes(self.get(slot))?.checksum.load(Ordering::Acquire);
        (checksum != 0).then_some(checksum)
    }

    /// Remembers the checksum of the bytes of an object that has room for one.
    pub(crate) fn set_checksum(&self, slot: u32, checksum: u64) {
        if let Some(notes) = self.notes(self.get(slot)) {
            notes.checksum.store(checksum, Ordering::Release);
        }
    }

    /// Becomes the one that moves an object with an extension; false when somebody does already.
    pub(crate) fn begin_move(&self, slot: u32) -> bool {
        let extension = self.extension(self.get(slot));
        extension.is_some_and(|extension| !extension.is_moving.swap(true, Ordering::AcqRel))
    }

    /// Ends what [`Objects::begin_move`] began.
    pub(crate) fn end_move(&self, slot: u32) {
        if let Some(extension) = self.extension(self.get(slot)) {
            extension.is_moving.store(false, Ordering::Release);
        }
    }

    /// Counts a use of an object that was slow; true for the one with which it should become faster: the second, and those after it when
    /// nothing came of that ([`Objects::forget_slow_use`]).
    pub(crate) fn use_slow_copy(&self, slot: u32) -> bool {
        let Some(notes) = self.notes(self.get(slot)) else {
            return false;
        };
        let next = |uses| (uses < 2).then_some(uses + 1);
        let before = notes.slow_uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before == Ok(1)
    }

    /// The next slow use should make it faster again.
    pub(crate) fn forget_slow_use(&self, slot: u32) {
        if let Some(notes) = self.notes(self.get(slot)) {
            notes.slow_uses.store(1, Ordering::Relaxed);
        }
    }

    pub(super) fn extension(&self, object: &Object) -> Option<&Extension> {
        let link = object.extension.load(Ordering::Acquire);
        (link & IS_NOTES == 0)
            .then(|| self.extensions.try_get(link.checked_sub(1)?))
            .flatten()
    }

    pub(super) fn notes(&self, object: &Object) -> Option<&Notes> {
        let link = object.extension.load(Ordering::Acquire);
        match link & IS_NOTES {
            0 => Some(&self.extensions.try_get(link.checked_sub(1)?)?.notes),
            _ => self.notes.try_get((link & !IS_NOTES) - 1),
        }
    }
}
