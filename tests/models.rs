//! Model checks of the lock-free parts: loom runs every order of steps, and every value that a load may see.
//!
//! The very source files are compiled here, with loom's atomics in the place of the standard ones: they take theirs from
//! `crate::sync`, which is this file's. What isn't modelled, as loom knows neither mappings nor so many steps: whole slabs, whole
//! index shards, the store. Their own tests run them with threads.

#[allow(dead_code)]
#[path = "../src/object/count.rs"]
mod count;
#[allow(dead_code)]
#[path = "../src/slab/free.rs"]
mod free;
#[allow(dead_code)]
#[path = "../src/gate.rs"]
mod gate;
#[allow(dead_code)]
#[path = "../src/object/life.rs"]
mod life;
#[path = "../src/index/version.rs"]
mod version;

/// What `crate::sync` is here.
///
/// Loom takes a sequentially consistent access for one that acquires and releases, and knows the whole strength only of fences. So here
/// such an access stands between two fences: for words that are only accessed so, as a gate's are, the two mean the same.
#[allow(dead_code)]
mod sync {
    use loom::sync::atomic;
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};

    /// Loom has no `membarrier`: both sides pass the full fence that the call of the kernel stands for.
    pub(crate) fn light_fence() {
        fence(Ordering::SeqCst);
    }

    /// See [`light_fence`].
    pub(crate) fn heavy_fence() {
        fence(Ordering::SeqCst);
    }

    /// As the library adds on a line that threads share.
    pub(crate) fn add_to_own(_stripe: usize, cell: &AtomicU64, number: u64, order: Ordering) -> u64 {
        cell.fetch_add(number, order)
    }

    pub(crate) struct AtomicU64(atomic::AtomicU64);

    fn fenced<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
        let is_total = matches!(order, Ordering::SeqCst);
        if is_total {
            fence(Ordering::SeqCst);
        }
        let result = access();
        if is_total {
            fence(Ordering::SeqCst);
        }
        result
    }

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> AtomicU64 {
            AtomicU64(atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            fenced(order, || self.0.load(order))
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            fenced(order, || self.0.store(value, order));
        }

        pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            fenced(order, || self.0.fetch_add(value, order))
        }

        pub(crate) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            fenced(order, || self.0.fetch_sub(value, order))
        }

        pub(crate) fn compare_exchange(&self, from: u64, to: u64, good: Ordering, bad: Ordering) -> Result<u64, u64> {
            fenced(good, || self.0.compare_exchange(from, to, good, bad))
        }

        pub(crate) fn compare_exchange_weak(
            &self,
            from: u64,
            to: u64,
            good: Ordering,
            bad: Ordering,
        ) -> Result<u64, u64> {
            fenced(good, || self.0.compare_exchange_weak(from, to, good, bad))
        }
    }
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;

use count::{Attempt, Count};
use free::FreeNumbers;
use gate::{Gate, Line};
use life::{Life, LifeWord, State};
use sync::{AtomicU32, AtomicU64, Ordering};
use version::Version;

/// Runs a model whose threads are switched between at most so many times where they need not be.
fn model(preemptions: usize, act: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(act);
}

/// Memory that the protocol under test protects: loom fails a model in which a write meets a read or another write.
struct Memory(UnsafeCell<u32>);

// SAFETY: that is what the models are about, and loom checks every access.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(value: u32) -> Memory {
        Memory(UnsafeCell::new(value))
    }

    fn read(&self) -> u32 {
        // SAFETY: loom has checked that nobody writes.
        self.0.with(|memory| unsafe { *memory })
    }

    fn write(&self, value: u32) {
        // SAFETY: loom has checked that nobody reads or writes.
        self.0.with_mut(|memory| unsafe { *memory = value });
    }
}

/// One copy of an object: its count, and its memory.
struct Copy {
    count: Count,
    memory: Memory,
    given_back: AtomicUsize,
}

const GENERATION: u32 = 7;
const BYTES: u32 = 0x600d;

impl Copy {
    /// A copy that is reserved.
    fn reserved() -> Arc<Copy> {
        let copy = Copy {
            count: Count::new(),
            memory: Memory::new(0),
            given_back: AtomicUsize::new(0),
        };
        copy.count.reserve(GENERATION);
        Arc::new(copy)
    }

    /// A copy that can be read.
    fn published() -> Arc<Copy> {
        let copy = Copy::reserved();
        copy.write();
        copy.count.publish();
        copy
    }

    fn write(&self) {
        self.memory.write(BYTES);
    }

    /// Reads the memory, as whoever is counted may.
    fn check(&self) {
        assert_eq!(self.memory.read(), BYTES);
    }

    /// What the last one does: the memory is another's now.
    fn give_back_if(&self, is_last: bool) {
        if is_last {
            assert_eq!(self.given_back.fetch_add(1, Ordering::Relaxed), 0, "given back twice");
            self.memory.write(0xbad);
        }
    }

    /// A reader, if it gets in.
    fn read(&self) -> bool {
        let is_counted = self.count.read(GENERATION) == Attempt::Counted;
        if is_counted {
            self.check();
            self.give_back_if(self.count.end_reading());
        }
        is_counted
    }

    /// A holder, if it gets in.
    fn hold(&self) -> bool {
        let is_counted = self.count.hold(GENERATION) == Attempt::Counted;
        if is_counted {
            self.check();
            self.give_back_if(self.count.end_hold());
        }
        is_counted
    }

    /// Somebody who copies by the copy's address, if it gets in: `act` is the copying.
    fn copy_by_address(&self, act: impl FnOnce(&Memory)) -> bool {
        let is_counted = self.count.read_held(GENERATION) == Attempt::Counted;
        if is_counted {
            act(&self.memory);
            self.give_back_if(self.count.end_reading());
        }
        is_counted
    }

    /// Nobody gets in any more, and the memory has gone back.
    fn assert_over(&self) {
        assert_eq!(self.count.read(GENERATION), Attempt::Gone);
        assert_eq!(self.count.read_held(GENERATION), Attempt::Gone);
        assert_eq!(self.count.hold(GENERATION), Attempt::Gone);
        assert_eq!(self.given_back.load(Ordering::Relaxed), 1, "memory was lost");
    }
}

fn spawn<T: Sync + Send + 'static, R: 'static>(
    shared: &Arc<T>,
    act: impl FnOnce(&T) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || act(&shared))
}

#[test]
fn memory_of_a_removed_copy_goes_back_once_and_never_under_a_reader_or_a_holder() {
    model(3, || {
        let copy = Copy::published();
        let reader = spawn(&copy, Copy::read);
        let holder = spawn(&copy, Copy::hold);
        copy.give_back_if(copy.count.retire());
        assert!(!copy.read(), "a reader got in after the removal");
        reader.join().unwrap();
        holder.join().unwrap();
        copy.assert_over();
    });
}

#[test]
fn eviction_takes_no_copy_that_is_held_and_no_copy_twice() {
    model(3, || {
        let copy = Copy::published();
        let evict = |copy: &Copy| {
            let retired = copy.count.retire_unheld(GENERATION);
            copy.give_back_if(retired == Some(true));
            retired.is_some()
        };
        let holder = spawn(&copy, |copy| {
            if copy.count.hold(GENERATION) == Attempt::Counted {
                copy.check();
                // Held, so no eviction comes between: it is there still.
                assert!(copy.count.is_live(GENERATION));
                copy.give_back_if(copy.count.end_hold());
            }
        });
        let other = spawn(&copy, evict);
        evict(&copy);
        holder.join().unwrap();
        other.join().unwrap();
        if copy.count.is_live(GENERATION) {
            assert!(evict(&copy), "nobody holds it");
        }
        copy.assert_over();
    });
}

#[test]
fn eviction_passes_a_copy_over_while_it_is_pinned() {
    model(3, || {
        let copy = Copy::published();
        assert_eq!(copy.count.hold(GENERATION), Attempt::Counted);
        let evictor = spawn(&copy, |copy| {
            if let Some(is_last) = copy.count.retire_unheld(GENERATION) {
                copy.give_back_if(is_last);
            }
        });
        copy.check();
        copy.give_back_if(copy.count.end_hold());
        evictor.join().unwrap();
        match copy.count.retire_unheld(GENERATION) {
            Some(is_last) => copy.give_back_if(is_last),
            None => assert!(!copy.count.is_live(GENERATION)),
        }
        copy.assert_over();
    });
}

#[test]
fn a_reader_sees_the_bytes_of_a_copy_that_it_finds_published() {
    model(3, || {
        let copy = Copy::reserved();
        let reader = spawn(&copy, Copy::read);
        let evictor = spawn(&copy, |copy| {
            copy.give_back_if(copy.count.retire_unheld(GENERATION) == Some(true));
        });
        copy.write();
        copy.count.publish();
        reader.join().unwrap();
        evictor.join().unwrap();
        if copy.count.is_live(GENERATION) {
            copy.give_back_if(copy.count.retire());
        }
        copy.assert_over();
    });
}

#[test]
fn a_copy_that_is_made_in_the_place_of_another_is_not_read_for_it() {
    model(3, || {
        let copy = Copy::published();
        let reader = spawn(&copy, Copy::read);
        if copy.count.retire() {
            copy.give_back_if(true);
            // The slot has another object now, whose memory is being written.
            copy.count.reserve(GENERATION + 1);
            copy.memory.write(1);
            copy.count.publish();
        }
        reader.join().unwrap();
        assert_eq!(copy.given_back.load(Ordering::Relaxed), 1, "memory was lost");
    });
}

#[test]
fn memory_of_a_reservation_goes_back_once_and_never_under_those_who_copy_by_its_address() {
    model(3, || {
        let copy = Copy::reserved();
        let copiers = [(); 2].map(|()| {
            spawn(&copy, |copy| {
                copy.copy_by_address(|memory| assert_eq!(memory.read(), 0));
            })
        });
        copy.give_back_if(copy.count.end_writing());
        assert!(!copy.copy_by_address(|_| ()), "it was held by nobody any more");
        for copier in copiers {
            copier.join().unwrap();
        }
        copy.assert_over();
    });
}

#[test]
fn a_commit_in_the_middle_of_a_copy_by_address_loses_no_count() {
    model(3, || {
        let copy = Copy::reserved();
        copy.write();
        let copiers = [(); 2].map(|()| {
            spawn(&copy, |copy| {
                copy.copy_by_address(|memory| assert_eq!(memory.read(), BYTES));
            })
        });
        copy.count.publish();
        assert!(copy.read(), "it is there until it is retired");
        copy.give_back_if(copy.count.retire());
        for copier in copiers {
            copier.join().unwrap();
        }
        copy.assert_over();
    });
}

#[test]
fn a_put_that_settles_in_the_middle_of_a_copy_by_address_ends_as_it_would() {
    model(3, || {
        let copy = Copy::reserved();
        let copier = spawn(&copy, |copy| {
            copy.copy_by_address(|memory| assert_eq!(memory.read(), 0));
        });
        copy.count.arrive();
        assert!(!copy.copy_by_address(|_| ()), "its writer holds it no longer");
        copy.give_back_if(copy.count.end_writing());
        copier.join().unwrap();
        copy.assert_over();
    });
}

#[test]
fn memory_under_the_last_lease_goes_back_once_and_never_under_those_who_copy_by_its_address() {
    model(3, || {
        let copy = Copy::published();
        assert_eq!(copy.count.hold(GENERATION), Attempt::Counted);
        let copiers = [(); 2].map(|()| {
            spawn(&copy, |copy| {
                copy.copy_by_address(|memory| assert_eq!(memory.read(), BYTES));
            })
        });
        copy.give_back_if(copy.count.retire());
        copy.give_back_if(copy.count.end_hold());
        assert!(!copy.copy_by_address(|_| ()), "the lease was over");
        for copier in copiers {
            copier.join().unwrap();
        }
        copy.assert_over();
    });
}

#[test]
fn bytes_that_were_written_by_address_are_seen_by_who_finds_the_copy_published() {
    model(3, || {
        let copy = Copy::reserved();
        let reader = spawn(&copy, Copy::read);
        let writer = spawn(&copy, |copy| copy.copy_by_address(|memory| memory.write(BYTES)));
        assert!(writer.join().unwrap(), "it is held until it is published");
        copy.count.publish();
        reader.join().unwrap();
        copy.give_back_if(copy.count.retire());
        copy.assert_over();
    });
}

#[test]
fn a_copy_that_is_made_in_the_place_of_another_is_not_written_for_it() {
    model(3, || {
        let copy = Copy::reserved();
        let copier = spawn(&copy, |copy| {
            copy.copy_by_address(|memory| assert_eq!(memory.read(), 0));
        });
        if copy.count.end_writing() {
            copy.give_back_if(true);
            // The slot has another object now, whose memory is being written.
            copy.count.reserve(GENERATION + 1);
            copy.memory.write(1);
            copy.count.publish();
        }
        copier.join().unwrap();
        assert_eq!(copy.given_back.load(Ordering::Relaxed), 1, "memory was lost");
    });
}

/// What stands behind a gate: it may be freed once the gate is shut and nobody is inside.
struct House {
    gate: Gate<[Line; 2]>,
    inside: Memory,
}

const OPEN: u64 = 1;
const SHUT: u64 = 2;

impl House {
    fn new() -> Arc<House> {
        Arc::new(House {
            gate: Gate::new([Line::new(), Line::new()], OPEN),
            inside: Memory::new(0),
        })
    }

    fn visit(&self, line: usize) -> bool {
        if self.gate.enter(line, |state| state == OPEN).is_err() {
            return false;
        }
        assert_eq!(self.inside.read(), 0);
        self.gate.leave(line);
        true
    }

    fn tear_down(&self) {
        self.inside.write(1);
    }
}

#[test]
fn nobody_is_inside_once_the_gate_is_shut_and_empty() {
    model(3, || {
        let house = House::new();
        let visitors = [0, 1].map(|line| spawn(&house, move |house| house.visit(line)));
        assert!(house.gate.change(OPEN, SHUT));
        while !house.gate.is_empty() {
            thread::yield_now();
        }
        house.tear_down();
        assert!(!house.visit(0), "somebody got in after it was shut");
        for visitor in visitors {
            visitor.join().unwrap();
        }
        assert!(house.gate.is_empty(), "an entry or a leave was lost");
    });
}

#[test]
fn two_on_one_line_are_both_counted() {
    model(3, || {
        let house = House::new();
        let visitor = spawn(&house, |house| house.visit(0));
        let closer = spawn(&house, |house| {
            assert!(house.gate.change(OPEN, SHUT));
            while !house.gate.is_empty() {
                thread::yield_now();
            }
            house.tear_down();
        });
        house.visit(0);
        visitor.join().unwrap();
        closer.join().unwrap();
    });
}

#[test]
fn of_two_that_shut_a_gate_one_does() {
    model(3, || {
        let house = House::new();
        let shut = Arc::new(AtomicUsize::new(0));
        let closers = [(); 2].map(|()| {
            let (house, shut) = (Arc::clone(&house), Arc::clone(&shut));
            thread::spawn(move || {
                if house.gate.change(OPEN, SHUT) {
                    shut.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        for closer in closers {
            closer.join().unwrap();
        }
        assert_eq!(shut.load(Ordering::Relaxed), 1);
    });
}

/// A slot: its life, and the two words of its key.
struct Slot {
    life: LifeWord,
    key: [AtomicU64; 2],
}

impl Slot {
    fn new() -> Arc<Slot> {
        Arc::new(Slot {
            life: LifeWord::new(),
            key: [AtomicU64::new(0), AtomicU64::new(0)],
        })
    }

    /// As `Objects::create` makes an object; both words of its key are its generation.
    fn create(&self) {
        let generation = self.life.load().generation();
        self.life.begin();
        self.key
            .iter()
            .for_each(|word| word.store(u64::from(generation), Ordering::Relaxed));
        self.life.set(Life::new(generation, 1, State::Reserved, 16));
    }

    fn set_state(&self, state: State) {
        self.life.set(self.life.load().with_state(state));
    }

    /// As `Objects::finish` gives the slot up.
    fn finish(&self) {
        let next = self.life.load().generation() + 1;
        self.life.set(Life::new(next, 0, State::Free, 0));
    }

    /// As `Objects::read_key` reads it.
    fn read_key(&self) -> Option<(Life, [u64; 2])> {
        let life = self.life.load();
        if !life.is_named() {
            return None;
        }
        let key = [0, 1].map(|word: usize| self.key[word].load(Ordering::Relaxed));
        let life = self.life.again(life).filter(|life| life.is_named())?;
        Some((life, key))
    }
}

#[test]
fn a_key_that_is_read_is_whole_and_its_slots() {
    model(3, || {
        let slot = Slot::new();
        slot.create();
        let reader = spawn(&slot, |slot| {
            for _ in 0..2 {
                if let Some((life, key)) = slot.read_key() {
                    assert_eq!(key, [u64::from(life.generation()); 2], "a torn key");
                }
            }
        });
        for _ in 0..2 {
            slot.finish();
            slot.create();
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_key_is_not_missed_because_its_object_is_published_meanwhile() {
    model(3, || {
        let slot = Slot::new();
        slot.create();
        let reader = spawn(&slot, |slot| {
            let (life, key) = slot.read_key().expect("it is there all the time");
            assert_eq!((life.generation(), key), (0, [0, 0]));
        });
        slot.set_state(State::Readable);
        reader.join().unwrap();
    });
}

#[test]
fn a_publisher_and_a_finder_agree_on_what_was_written() {
    model(3, || {
        let slot = Slot::new();
        let is_there = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_there);
        let reader = spawn(&slot, move |slot| {
            let was_there = seen.load(Ordering::Acquire);
            match slot.read_key() {
                Some((_, key)) => assert_eq!(key, [0, 0]),
                None => assert!(!was_there, "a key that is there was missed"),
            }
        });
        slot.create();
        is_there.store(true, Ordering::Release);
        slot.set_state(State::Readable);
        reader.join().unwrap();
    });
}

/// A slab of three slots, each with what its owner writes.
struct Numbers {
    free: FreeNumbers,
    links: [AtomicU32; 3],
    memory: [Memory; 3],
}

impl Numbers {
    /// All of them free: 0 comes first.
    fn new() -> Arc<Numbers> {
        let numbers = Numbers {
            free: FreeNumbers::new(),
            links: [(); 3].map(|()| AtomicU32::new(0)),
            memory: [(); 3].map(|()| Memory::new(0)),
        };
        for number in (0..3).rev() {
            numbers.give_back(number);
        }
        Arc::new(numbers)
    }

    /// Takes a number, writes to its slot as its only owner, and to its link too, as an object does.
    fn take(&self, owner: u32) -> Option<u32> {
        let number = self.free.pop(|number| &self.links[number as usize])?;
        assert_eq!(self.memory[number as usize].read(), 0, "{number} has an owner");
        self.memory[number as usize].write(owner);
        self.links[number as usize].store(77, Ordering::Relaxed);
        Some(number)
    }

    fn give_back(&self, number: u32) {
        self.memory[number as usize].write(0);
        self.free.push(number, &self.links[number as usize]);
    }

    fn assert_all_there(&self) {
        let mut numbers: Vec<u32> = std::iter::from_fn(|| self.take(9)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2], "a number was lost or is there twice");
    }
}

#[test]
fn a_free_number_has_one_taker_and_none_is_lost() {
    model(3, || {
        let numbers = Numbers::new();
        let other = spawn(&numbers, |numbers| {
            // Takes two and gives the first back first: the stack's head is the same again, what is below it is not.
            let (first, second) = (numbers.take(1).unwrap(), numbers.take(1).unwrap());
            numbers.give_back(first);
            numbers.give_back(second);
        });
        if let Some(number) = numbers.take(2) {
            numbers.give_back(number);
        }
        other.join().unwrap();
        numbers.assert_all_there();
    });
}

#[test]
fn three_that_take_and_give_back_keep_the_numbers_apart() {
    model(2, || {
        let numbers = Numbers::new();
        let use_one = |owner| {
            move |numbers: &Numbers| {
                let number = numbers.take(owner).unwrap();
                numbers.give_back(number);
            }
        };
        let others = [spawn(&numbers, use_one(1)), spawn(&numbers, use_one(2))];
        use_one(3)(&numbers);
        for other in others {
            other.join().unwrap();
        }
        numbers.assert_all_there();
    });
}

/// A shard of one entry: in its first bucket, or after a split in its second.
struct Shard {
    version: Version,
    buckets: AtomicU32,
    entries: [AtomicU32; 2],
    lock: loom::sync::Mutex<()>,
}

const ENTRY: u32 = 5;

impl Shard {
    fn new() -> Arc<Shard> {
        Arc::new(Shard {
            version: Version::new(),
            buckets: AtomicU32::new(1),
            entries: [AtomicU32::new(ENTRY), AtomicU32::new(0)],
            lock: loom::sync::Mutex::new(()),
        })
    }

    fn search(&self) -> bool {
        let bucket = self.buckets.load(Ordering::Acquire) - 1;
        self.entries[bucket as usize].load(Ordering::Acquire) == ENTRY
    }

    /// As `Index::find`; without its look under the lock, if there was no need for one.
    fn find(&self) -> bool {
        let version = self.version.begin_look();
        if self.search() {
            return true;
        }
        if self.version.is_miss_true(version) {
            return false;
        }
        let _locked = self.lock.lock().unwrap();
        self.search()
    }

    /// As `Locked::split`, and when there is no memory for it, `Locked::unsplit`.
    fn split(&self, is_undone: bool) {
        let _locked = self.lock.lock().unwrap();
        self.version.begin_move();
        self.buckets.store(2, Ordering::Release);
        self.entries[1].store(ENTRY, Ordering::Release);
        self.entries[0].store(0, Ordering::Release);
        if is_undone {
            self.entries[1].store(0, Ordering::Release);
            self.entries[0].store(ENTRY, Ordering::Release);
            self.buckets.store(1, Ordering::Release);
        }
        self.version.end_move();
    }
}

#[test]
fn an_entry_that_stays_is_not_missed_while_its_bucket_is_split() {
    model(3, || {
        let shard = Shard::new();
        let reader = spawn(&shard, Shard::find);
        shard.split(false);
        assert!(shard.find());
        assert!(reader.join().unwrap(), "an entry that stays was missed");
    });
}

#[test]
fn an_entry_that_stays_is_not_missed_while_splits_are_undone_and_done_again() {
    model(2, || {
        let shard = Shard::new();
        let reader = spawn(&shard, Shard::find);
        shard.split(true);
        shard.split(false);
        assert!(reader.join().unwrap(), "an entry that stays was missed");
    });
}
