//! Policies to compare with: what a cache of blocks that knows nothing of chains would hit. Simulations, for this benchmark only.
//!
//! Each replays a trace as the store does: the leading run of blocks that are there is the prefix hit and is used, then the missing ones
//! come in, one after the other. None looks at the trace's time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::trace::Trace;

/// Prefix hits of a trace in a pool of some capacity, in blocks.
pub type Simulation = fn(&Trace, usize) -> usize;

pub const SIMULATIONS: [(&str, Simulation); 4] = [
    ("FIFO", |trace, capacity| hits(trace, &mut Fifo::new(capacity))),
    ("LRU", |trace, capacity| hits(trace, &mut Lru::new(capacity))),
    ("S3-FIFO", |trace, capacity| hits(trace, &mut S3Fifo::new(capacity))),
    ("SIEVE", |trace, capacity| hits(trace, &mut Sieve::new(capacity))),
];

/// A cache of a fixed number of blocks.
trait Cache {
    fn contains(&self, block: u32) -> bool;
    fn hit(&mut self, block: u32);
    fn insert(&mut self, block: u32);
}

fn hits(trace: &Trace, cache: &mut impl Cache) -> usize {
    let mut hits = 0;
    for request in &trace.requests {
        let prefix = request
            .blocks
            .iter()
            .take_while(|block| cache.contains(**block))
            .count();
        request.blocks[..prefix].iter().for_each(|block| cache.hit(*block));
        for block in &request.blocks[prefix..] {
            if !cache.contains(*block) {
                cache.insert(*block);
            }
        }
        hits += prefix;
    }
    hits
}

/// First in, first out.
struct Fifo {
    capacity: usize,
    queue: VecDeque<u32>,
    there: HashSet<u32>,
}

impl Fifo {
    fn new(capacity: usize) -> Fifo {
        Fifo {
            capacity,
            queue: VecDeque::new(),
            there: HashSet::new(),
        }
    }
}

impl Cache for Fifo {
    fn contains(&self, block: u32) -> bool {
        self.there.contains(&block)
    }

    fn hit(&mut self, _: u32) {}

    fn insert(&mut self, block: u32) {
        if self.queue.len() == self.capacity
            && let Some(victim) = self.queue.pop_front()
        {
            self.there.remove(&victim);
        }
        self.queue.push_back(block);
        self.there.insert(block);
    }
}

/// Least recently used, block by block: of a chain that is used, the tail is the newest.
struct Lru {
    capacity: usize,
    time: u64,
    used: HashMap<u32, u64>,
    order: BTreeSet<(u64, u32)>,
}

impl Lru {
    fn new(capacity: usize) -> Lru {
        Lru {
            capacity,
            time: 0,
            used: HashMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl Cache for Lru {
    fn contains(&self, block: u32) -> bool {
        self.used.contains_key(&block)
    }

    fn hit(&mut self, block: u32) {
        self.time += 1;
        if let Some(before) = self.used.insert(block, self.time) {
            self.order.remove(&(before, block));
        }
        self.order.insert((self.time, block));
    }

    fn insert(&mut self, block: u32) {
        if self.order.len() == self.capacity
            && let Some((_, victim)) = self.order.pop_first()
        {
            self.used.remove(&victim);
        }
        self.hit(block);
    }
}

/// S3-FIFO (Yang and others, SOSP '23): a small queue for the new, a main one for what was used in it, and a ghost of what was not.
struct S3Fifo {
    small_capacity: usize,
    main_capacity: usize,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    /// Uses since a block came to its queue, 3 at most.
    uses: HashMap<u32, u8>,
    ghost: Ghost,
}

impl S3Fifo {
    /// A tenth of the capacity is the small queue's; the ghost has as many entries as the main one.
    fn new(capacity: usize) -> S3Fifo {
        let small_capacity = (capacity / 10).max(1);
        let main_capacity = capacity - small_capacity;
        S3Fifo {
            small_capacity,
            main_capacity,
            small: VecDeque::new(),
            main: VecDeque::new(),
            uses: HashMap::new(),
            ghost: Ghost::new(main_capacity),
        }
    }

    fn evict(&mut self) {
        if self.small.len() >= self.small_capacity || self.main.is_empty() {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        while let Some(block) = self.small.pop_front() {
            if self.uses[&block] > 1 {
                self.uses.insert(block, 0);
                self.main.push_back(block);
                if self.main.len() > self.main_capacity {
                    return self.evict_main();
                }
            } else {
                self.uses.remove(&block);
                return self.ghost.insert(block);
            }
        }
        self.evict_main();
    }

    fn evict_main(&mut self) {
        while let Some(block) = self.main.pop_front() {
            match self.uses[&block] {
                0 => {
                    self.uses.remove(&block);
                    return;
                }
                uses => {
                    self.uses.insert(block, uses - 1);
                    self.main.push_back(block);
                }
            }
        }
    }
}

impl Cache for S3Fifo {
    fn contains(&self, block: u32) -> bool {
        self.uses.contains_key(&block)
    }

    fn hit(&mut self, block: u32) {
        self.uses.entry(block).and_modify(|uses| *uses = (*uses + 1).min(3));
    }

    fn insert(&mut self, block: u32) {
        while self.uses.len() >= self.small_capacity + self.main_capacity {
            self.evict();
        }
        self.uses.insert(block, 0);
        if self.ghost.take(block) {
            self.main.push_back(block);
        } else {
            self.small.push_back(block);
        }
    }
}

/// The last blocks that were let go. One that was taken leaves its place in the queue, which is void by its time.
struct Ghost {
    capacity: usize,
    time: u64,
    queue: VecDeque<(u64, u32)>,
    times: HashMap<u32, u64>,
}

impl Ghost {
    fn new(capacity: usize) -> Ghost {
        Ghost {
            capacity,
            time: 0,
            queue: VecDeque::new(),
            times: HashMap::new(),
        }
    }

    fn insert(&mut self, block: u32) {
        self.time += 1;
        self.times.insert(block, self.time);
        self.queue.push_back((self.time, block));
        while self.times.len() > self.capacity
            && let Some((time, oldest)) = self.queue.pop_front()
        {
            if self.times.get(&oldest) == Some(&time) {
                self.times.remove(&oldest);
            }
        }
    }

    fn take(&mut self, block: u32) -> bool {
        self.times.remove(&block).is_some()
    }
}

/// SIEVE (Zhang and others, NSDI '24): one queue, and a hand that goes from the oldest to the newest and takes what was not used since it
/// came by.
struct Sieve {
    capacity: usize,
    time: u64,
    /// When a block came, and whether it was used since.
    blocks: HashMap<u32, (u64, bool)>,
    order: BTreeSet<(u64, u32)>,
    /// The hand stands before the first block that came at this time or later.
    hand: u64,
}

impl Sieve {
    fn new(capacity: usize) -> Sieve {
        Sieve {
            capacity,
            time: 0,
            blocks: HashMap::new(),
            order: BTreeSet::new(),
            hand: 0,
        }
    }

    fn evict(&mut self) {
        loop {
            let next = self.order.range((self.hand, 0)..).next().or_else(|| self.order.first());
            let Some(&(time, block)) = next else { return };
            self.hand = time + 1;
            match self.blocks.get_mut(&block) {
                Some((_, is_used)) if *is_used => *is_used = false,
                _ => {
                    self.blocks.remove(&block);
                    self.order.remove(&(time, block));
                    return;
                }
            }
        }
    }
}

impl Cache for Sieve {
    fn contains(&self, block: u32) -> bool {
        self.blocks.contains_key(&block)
    }

    fn hit(&mut self, block: u32) {
        self.blocks.entry(block).and_modify(|(_, is_used)| *is_used = true);
    }

    fn insert(&mut self, block: u32) {
        if self.blocks.len() == self.capacity {
            self.evict();
        }
        self.time += 1;
        self.blocks.insert(block, (self.time, false));
        self.order.insert((self.time, block));
    }
}

/// The clairvoyant bound: what is used farthest in the future goes, or does not come in at all. A block's next use is never before that of its
/// predecessor, so chains are kept whole.
pub fn opt(trace: &Trace, capacity: usize) -> usize {
    // For each reference the number of the request that has the block next.
    let mut next_uses: Vec<Vec<usize>> = Vec::new();
    let mut seen: HashMap<u32, usize> = HashMap::new();
    for (number, request) in trace.requests.iter().enumerate().rev() {
        let next = |block| seen.get(block).copied().unwrap_or(usize::MAX);
        next_uses.push(request.blocks.iter().map(next).collect());
        seen.extend(request.blocks.iter().map(|block| (*block, number)));
    }
    next_uses.reverse();

    let mut there: HashMap<u32, (usize, usize, u32)> = HashMap::new();
    let mut order = BTreeSet::new();
    let mut hits = 0;
    for (request, next_uses) in trace.requests.iter().zip(next_uses) {
        hits += request
            .blocks
            .iter()
            .take_while(|block| there.contains_key(block))
            .count();
        for (position, (&block, next_use)) in request.blocks.iter().zip(next_uses).enumerate() {
            let place = (next_use, position, block);
            if let Some(before) = there.insert(block, place) {
                order.remove(&before);
            }
            order.insert(place);
            if order.len() > capacity
                && let Some((_, _, victim)) = order.pop_last()
            {
                there.remove(&victim);
            }
        }
    }
    hits
}
