//! Listing keys, by slot number.
//!
//! A slot keeps its object for the object's life, so walking the slots in order meets every object that is there from start to end
//! exactly once, whatever happens meanwhile. Nothing is locked: a page is at most [`PAGE`] slots, each read as any look-up reads it.

use crate::object::{KeyCopy, State};

use super::Store;

/// Slots that are looked at for one page.
pub(crate) const PAGE: u32 = 1024;

impl Store {
    /// Gives `visit` the keys of the readable objects of one page from slot `from`; where the next page begins, `None` at the end.
    pub(crate) fn page_of_keys(&self, from: u32, mut visit: impl FnMut(&KeyCopy)) -> Option<u32> {
        let end = self.objects.bound();
        let next = end.min(from.saturating_add(PAGE));
        for slot in from..next {
            if let Some((life, key)) = self.objects.read_key(slot)
                && life.state() == State::Readable
            {
                visit(&key);
            }
        }
        (next < end).then_some(next)
    }
}
