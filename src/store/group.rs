//! Looking ahead in a batch, so that its cache misses come together and not one after the other.
//!
//! To find a key takes two misses that depend on each other: its bucket, then its object's lines. In a batch the next keys are known, so a
//! group of them is hashed and its buckets asked for; then what the buckets say is asked for; and when the first of them is looked up, all of
//! it is on its way. These are hints: each element is then dealt with as if nothing had been, whatever has changed meanwhile.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::key::Key;

use super::Store;

/// Elements that are looked ahead at: more than a processor has misses under way at once, and few enough to stay in its first cache.
const GROUP: usize = 16;

/// An element of a batch with the hash of its key, and what else belongs to it.
pub(super) struct Hashed<'a, T> {
    pub(super) key: Key<'a>,
    pub(super) hash: u64,
    pub(super) rest: T,
}

impl Store {
    /// Gives each of `count` elements to `act`, in their order, until that breaks.
    pub(super) fn each_hashed<'a, T, B>(
        &self,
        count: usize,
        element: impl Fn(usize) -> Result<(Key<'a>, T)>,
        mut act: impl FnMut(usize, Result<Hashed<'a, T>>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut group: [Option<Result<Hashed<'a, T>>>; GROUP] = [const { None }; GROUP];
        for begin in (0..count).step_by(GROUP) {
            let numbers = begin..count.min(begin + GROUP);
            for (place, number) in group.iter_mut().zip(numbers.clone()) {
                let hashed = element(number).map(|(key, rest)| {
                    let hash = self.hash(&key);
                    self.index.prefetch(hash);
                    Hashed { key, hash, rest }
                });
                *place = Some(hashed);
            }
            // A single one is looked up at once.
            if numbers.len() > 1 {
                let hashes = group.iter().flatten().flatten().map(|hashed| hashed.hash);
                let likely = hashes.filter_map(|hash| self.index.likely(hash));
                likely.for_each(|slot| self.objects.prefetch(slot));
            }
            for (place, number) in group.iter_mut().zip(numbers) {
                if let Some(hashed) = place.take() {
                    act(number, hashed)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// As [`Store::each_hashed`] for all of them, writing a code for each; a failure is counted and touches no other element.
    pub(super) fn each_key<'a>(
        &self,
        results: &mut [i32],
        key: impl Fn(usize) -> Result<Key<'a>>,
        mut act: impl FnMut(usize, &Key<'a>, u64) -> Result<()>,
    ) {
        let element = |number| Ok((key(number)?, ()));
        let _: ControlFlow<()> = self.each_hashed(results.len(), element, |number, hashed| {
            results[number] = 0;
            self.note(
                hashed.and_then(|hashed| act(number, &hashed.key, hashed.hash)),
                &mut results[number],
            );
            ControlFlow::Continue(())
        });
    }
}
