//! The memory of what was let go: hash, kind and last use of four times as many copies as there are, or a little more.
//!
//! Generations of hash tables: the newest takes in what goes until it is as full as it should be, then another is begun and the oldest is
//! given up. So nothing is moved or rehashed, and a generation is as large as the medium was when it began. A generation is buckets of
//! eight words, a cache line; what finds its bucket full lies in the next that is not. Of a hash a word keeps 32 bits, its bucket comes from
//! the others: that two are taken for one happens once in a hundred million.
//!
//! None is lost before its time. A chain is as good as its weakest block: if one ghost in twenty were lost, most chains that return would have
//! a block that is taken for a new one, goes early, and makes all behind it useless.
//!
//! Whoever is forgotten is told to the caller, as its life ends unseen: one by one from the generation that was given up, in step with what
//! is taken in.

use memmap2::MmapMut;

use super::Kind;

/// What is remembered of a copy that was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ghost {
    pub kind: Kind,
    /// The tick of its last use.
    pub used: u64,
}

/// Generations besides the newest.
const GENERATIONS: usize = 4;
/// The least that a generation takes in.
const LEAST: usize = 64;
/// Words of a bucket, and how many of them are in use on average when a generation is full.
const BUCKET_WORDS: usize = 8;
const BUCKET_LOAD: usize = 6;

/// A ghost's word: 32 bits of the hash, 28 of the tick, 3 of the kind, and one that is set.
const TICK_BITS: u32 = 28;
const KIND_BITS: u32 = 3;

/// A word that was never written, and one whose ghost was taken out: who looks for a ghost may have to look on behind it.
const FREE: u64 = 0;
const TAKEN: u64 = 2;

fn is_ghost(word: u64) -> bool {
    word & 1 == 1
}

/// A table of words.
struct Generation {
    map: MmapMut,
    buckets: usize,
    /// Copies that it has taken in, and that it takes.
    taken: usize,
    room: usize,
}

/// The generations, oldest first, and the one that was given up.
pub(super) struct Ghosts {
    generations: Vec<Generation>,
    leaving: Option<(Generation, usize)>,
}

fn word_of(hash: u64, ghost: Ghost) -> u64 {
    let low = (ghost.used << KIND_BITS | ghost.kind as u64) << 1 | 1;
    (hash >> 32) << 32 | (low & u64::from(u32::MAX))
}

fn ghost_of(word: u64) -> Ghost {
    Ghost {
        kind: Kind::ALL[(word >> 1) as usize & ((1 << KIND_BITS) - 1)],
        used: word >> (KIND_BITS + 1) & ((1 << TICK_BITS) - 1),
    }
}

impl Generation {
    fn new(room: usize) -> Option<Generation> {
        let buckets = room.div_ceil(BUCKET_LOAD);
        let map = MmapMut::map_anon(buckets * BUCKET_WORDS * size_of::<u64>()).ok()?;
        Some(Generation {
            map,
            buckets,
            taken: 0,
            room,
        })
    }

    fn bucket(&mut self, number: usize) -> &mut [[u8; 8]] {
        let words = self.map.as_chunks_mut().0;
        &mut words[number * BUCKET_WORDS..][..BUCKET_WORDS]
    }

    fn bucket_of(&self, hash: u64) -> usize {
        (((hash & u64::from(u32::MAX)) * self.buckets as u64) >> 32) as usize
    }

    fn take(&mut self, hash: u64) -> Option<Ghost> {
        let mut number = self.bucket_of(hash);
        loop {
            let mut has_free = false;
            for bytes in self.bucket(number) {
                let word = u64::from_ne_bytes(*bytes);
                if is_ghost(word) && word >> 32 == hash >> 32 {
                    *bytes = TAKEN.to_ne_bytes();
                    return Some(ghost_of(word));
                }
                has_free |= word == FREE;
            }
            if has_free {
                return None;
            }
            number = (number + 1) % self.buckets;
        }
    }

    /// Puts a ghost in, while there is room: then a word is free.
    fn put(&mut self, hash: u64, ghost: Ghost) {
        debug_assert!(self.taken < self.room);
        self.taken += 1;
        let mut number = self.bucket_of(hash);
        loop {
            let is_free = |bytes: &&mut [u8; 8]| u64::from_ne_bytes(**bytes) == FREE;
            if let Some(bytes) = self.bucket(number).iter_mut().find(is_free) {
                *bytes = word_of(hash, ghost).to_ne_bytes();
                return;
            }
            number = (number + 1) % self.buckets;
        }
    }
}

impl Ghosts {
    pub fn new() -> Ghosts {
        Ghosts {
            generations: Vec::new(),
            leaving: None,
        }
    }

    /// Takes a ghost out, if this hash has one.
    pub fn take(&mut self, hash: u64) -> Option<Ghost> {
        self.generations
            .iter_mut()
            .rev()
            .find_map(|generation| generation.take(hash))
    }

    /// Takes one in, beside `copies` that are there; `forget` gets those that are forgotten for it. Without memory it is forgotten itself.
    pub fn put(&mut self, hash: u64, ghost: Ghost, copies: usize, mut forget: impl FnMut(Ghost)) {
        self.drain(1, &mut forget);
        let is_full = |generation: &Generation| generation.taken >= generation.room;
        if self.generations.last().is_none_or(is_full) {
            self.drain(usize::MAX, &mut forget);
            let fresh = Generation::new(copies.max(LEAST));
            let Some(fresh) = fresh.filter(|_| self.generations.try_reserve(1).is_ok()) else {
                return forget(ghost);
            };
            self.generations.push(fresh);
            if self.generations.len() > GENERATIONS + 1 {
                self.leaving = Some((self.generations.remove(0), 0));
            }
        }
        if let Some(newest) = self.generations.last_mut() {
            newest.put(hash, ghost);
        }
    }

    /// Forgets what is in the next buckets of the generation that was given up.
    fn drain(&mut self, buckets: usize, forget: &mut impl FnMut(Ghost)) {
        let Some((generation, next)) = &mut self.leaving else {
            return;
        };
        let end = generation.buckets.min(next.saturating_add(buckets));
        for number in *next..end {
            let words = generation.bucket(number).iter().map(|bytes| u64::from_ne_bytes(*bytes));
            words
                .filter(|word| is_ghost(*word))
                .map(ghost_of)
                .for_each(&mut *forget);
        }
        *next = end;
        if end == generation.buckets {
            self.leaving = None;
        }
    }

    /// Ghosts that are remembered, or not yet told to be forgotten.
    #[cfg(test)]
    pub fn len(&mut self) -> usize {
        let mut count = 0;
        let leaving = self.leaving.iter_mut().map(|(generation, next)| (generation, *next));
        for (generation, from) in self
            .generations
            .iter_mut()
            .map(|generation| (generation, 0))
            .chain(leaving)
        {
            for number in from..generation.buckets {
                count += generation
                    .bucket(number)
                    .iter()
                    .filter(|bytes| is_ghost(u64::from_ne_bytes(**bytes)))
                    .count();
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn ghost(number: u64) -> Ghost {
        Ghost {
            kind: Kind::ALL[number as usize % Kind::ALL.len()],
            used: number,
        }
    }

    #[test]
    fn four_to_five_times_the_copies_are_remembered_and_each_is_forgotten_once() {
        const COPIES: u64 = 1000;
        const COUNT: u64 = 20 * COPIES;
        let mut ghosts = Ghosts::new();
        let mut forgotten = vec![0; COUNT as usize];
        for number in 0..COUNT {
            ghosts.put(hash(number), ghost(number), COPIES as usize, |ghost| {
                forgotten[ghost.used as usize] += 1;
            });
            assert!(ghosts.generations.len() <= GENERATIONS + 1);
        }
        let known = (0..COUNT).filter(|number| forgotten[*number as usize] == 0).count();
        assert_eq!(ghosts.len(), known);
        let remembered: Vec<u64> = (0..COUNT)
            .filter(|number| ghosts.take(hash(*number)) == Some(ghost(*number)))
            .collect();
        let recent: Vec<u64> = (COUNT - 4 * COPIES..COUNT).collect();
        assert!(remembered.ends_with(&recent), "some of the last were lost");
        assert!(remembered.iter().all(|number| *number >= COUNT - 5 * COPIES));
        assert!(remembered.iter().all(|number| forgotten[*number as usize] == 0));
        assert!(forgotten.iter().all(|times| *times <= 1));
        assert!(
            (0..COUNT).all(|number| ghosts.take(hash(number)).is_none()),
            "taken twice"
        );
    }

    #[test]
    fn a_word_keeps_kind_and_tick_and_is_never_free() {
        for kind in Kind::ALL {
            for used in [0, 1, (1 << TICK_BITS) - 1] {
                let word = word_of(0, Ghost { kind, used });
                assert_ne!(word, 0);
                assert_eq!(ghost_of(word), Ghost { kind, used });
            }
        }
    }
}
