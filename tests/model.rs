//! Random operations on several segments of three media against a plain map.
//!
//! The store under test does nothing by itself here (no eviction in the background, terms of hours), so after every step the model
//! knows it exactly: which keys there are and with what bytes, what each call must return, which extents are in use, and that these
//! are disjoint and add up to what the segments say. Only which objects a put evicted is the store's to choose: the model looks
//! afterwards, and allows it for objects that nobody holds, when the put found no run of its size. The same holds of what is moved between
//! media, and of gets of objects that have left the device that they were put on: they come back there first.
//!
//! The same steps then go through a store that is attached to a pool of this very process, whose segments are all memfds: it must do the same.

mod support;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use proptest::collection::vec;
use proptest::prelude::*;
use support::*;

const HOUR: u64 = 3_600_000;

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u8,
        size: usize,
        options: Options,
        pieces: u8,
    },
    BatchPut {
        keys: Vec<(u8, usize)>,
        options: Options,
        pieces: u8,
    },
    Get {
        key: u8,
        cut: u16,
        flags: u32,
    },
    GetUpTo {
        key: u8,
        size: usize,
    },
    BatchGet {
        keys: Vec<u8>,
    },
    Look {
        keys: Vec<u8>,
    },
    Remove {
        key: u8,
    },
    BatchRemove {
        keys: Vec<u8>,
    },
    RemoveAll,
    Reserve {
        keys: Vec<(u8, usize)>,
        options: Options,
    },
    ReserveForAMoment {
        key: u8,
        size: usize,
    },
    EndReservations {
        which: Vec<u8>,
        commit: bool,
        batch: bool,
    },
    Pin {
        keys: Vec<u8>,
        batch: bool,
    },
    Unpin {
        which: Vec<u8>,
        batch: bool,
    },
    Lease {
        keys: Vec<u8>,
        batch: bool,
    },
    Unlease {
        keys: Vec<u8>,
        batch: bool,
    },
    LeaseAndRemove {
        key: u8,
    },
    /// Down when `from` is the faster medium, up when it is the slower one.
    Move {
        keys: Vec<u8>,
        from: u32,
        to: u32,
    },
    CopyAt {
        key: u8,
        start: usize,
        size: usize,
    },
    Leave {
        segment: u8,
    },
    Come {
        segment: u8,
    },
}

#[derive(Debug, Clone, Copy)]
struct Options {
    replicas: u32,
    preferred: [Option<u8>; 2],
    medium: u32,
}

/// Keys are few, so that steps meet; some are long.
fn name(key: u8) -> String {
    match key % 3 {
        0 => format!("k{key}"),
        1 => format!("{key}-{}", "schlüssel".repeat(7)),
        _ => format!("{key:0256}"),
    }
}

/// From one byte to megabytes, mostly at and around multiples of 4096.
fn sizes() -> impl Strategy<Value = usize> {
    let around = |pages: std::ops::Range<usize>| {
        (pages, -2i64..=2).prop_map(|(pages, more)| (pages as i64 * 4096 + more).max(1) as usize)
    };
    prop_oneof![
        3 => 1usize..300,
        6 => around(1..5),
        4 => around(5..60),
        2 => around(60..400),
        1 => around(400..1100),
    ]
}

fn keys() -> impl Strategy<Value = u8> {
    0u8..24
}

fn options() -> impl Strategy<Value = Options> {
    let ranks = prop::option::weighted(0.2, 0u8..3);
    let media =
        prop_oneof![5 => Just(0), 2 => Just(MMC_MEDIUM_DRAM), 3 => Just(MMC_MEDIUM_HBM), 2 => Just(MMC_MEDIUM_SSD)];
    (prop_oneof![5 => Just(0u32), 2 => 1u32..4], ranks.clone(), ranks, media).prop_map(
        |(replicas, first, second, medium)| Options {
            replicas,
            preferred: [
                first,
                second.filter(|second| first.is_some() && Some(*second) != first && replicas > 1),
            ],
            medium,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    let some = || vec(keys(), 1..6);
    let medium = MMC_MEDIUM_HBM..=MMC_MEDIUM_SSD;
    let sized = || vec((keys(), sizes()), 1..8);
    prop_oneof![
        24 => (keys(), sizes(), options(), 1u8..4).prop_map(|(key, size, options, pieces)| Step::Put { key, size, options, pieces }),
        8 => (sized(), options(), 1u8..3).prop_map(|(keys, options, pieces)| Step::BatchPut { keys, options, pieces }),
        8 => (keys(), any::<u16>(), 0..=MMC_PEEK).prop_map(|(key, cut, flags)| Step::Get { key, cut, flags }),
        3 => (keys(), sizes()).prop_map(|(key, size)| Step::GetUpTo { key, size }),
        4 => some().prop_map(|keys| Step::BatchGet { keys }),
        3 => some().prop_map(|keys| Step::Look { keys }),
        6 => keys().prop_map(|key| Step::Remove { key }),
        2 => some().prop_map(|keys| Step::BatchRemove { keys }),
        1 => Just(Step::RemoveAll),
        5 => (sized(), options()).prop_map(|(keys, options)| Step::Reserve { keys, options }),
        1 => (keys(), sizes()).prop_map(|(key, size)| Step::ReserveForAMoment { key, size }),
        6 => (vec(any::<u8>(), 1..5), any::<bool>(), any::<bool>())
            .prop_map(|(which, commit, batch)| Step::EndReservations { which, commit, batch }),
        5 => (some(), any::<bool>()).prop_map(|(keys, batch)| Step::Pin { keys, batch }),
        5 => (vec(any::<u8>(), 1..5), any::<bool>()).prop_map(|(which, batch)| Step::Unpin { which, batch }),
        3 => (some(), any::<bool>()).prop_map(|(keys, batch)| Step::Lease { keys, batch }),
        4 => (some(), any::<bool>()).prop_map(|(keys, batch)| Step::Unlease { keys, batch }),
        1 => keys().prop_map(|key| Step::LeaseAndRemove { key }),
        12 => (some(), medium.clone(), medium).prop_map(|(keys, from, to)| Step::Move { keys, from, to }),
        5 => (keys(), sizes(), sizes()).prop_map(|(key, start, size)| Step::CopyAt { key, start: start - 1, size }),
        2 => (0u8..8).prop_map(|segment| Step::Leave { segment }),
        3 => (0u8..8).prop_map(|segment| Step::Come { segment }),
    ]
}

/// An object that can be read.
#[derive(Debug, Clone)]
struct Object {
    seed: u64,
    size: usize,
    /// Pool addresses of its copies, in their order.
    copies: Vec<u64>,
    /// The copies that each lease holds, in the order in which they end.
    leases: Vec<Vec<u64>>,
    /// It was put into memory that only a callback reaches.
    is_of_device: bool,
}

impl Object {
    fn is_leased(&self, copy: u64) -> bool {
        self.leases.iter().any(|copies| copies.contains(&copy))
    }
}

/// Memory that a token stands for.
#[derive(Debug, Clone)]
struct Token {
    key: u8,
    seed: u64,
    view: mmc_view,
    /// Addresses of all the copies that it keeps.
    copies: Vec<u64>,
    /// The term is over: the key is free, the memory is not.
    is_overdue: bool,
}

/// Segments that come and go, by number.
struct Place {
    options: mmc_segment_options,
    /// Its pool address while it is registered.
    address: Option<u64>,
}

struct Model {
    store: Store,
    /// Whose pool it is, if that is not the store under test.
    owner: Option<Store>,
    /// MMC_EVICTION_*.
    eviction: u32,
    places: Vec<Place>,
    objects: BTreeMap<u8, Object>,
    reservations: Vec<Token>,
    pins: Vec<Token>,
    /// Copies of removed objects under leases that end soon: address and bytes. They may be gone by now.
    stranded: Vec<(u64, usize)>,
    versions: u64,
    // Last, so that the store goes first.
    #[expect(clippy::vec_box, reason = "the store has been given their addresses")]
    devices: Vec<Box<Device>>,
    _memory: Vec<HostMemory>,
    _files: Vec<TestFile>,
}

fn rounded(size: usize) -> u64 {
    (size as u64).next_multiple_of(UNIT)
}

/// One run of a segment: address, bytes, and whether it may not be evicted.
type Extent = (u64, u64, bool);

impl Model {
    /// A pool that the model is attached to, and brings all of its segments.
    fn attached(capacities: &[u64], eviction: u32) -> Model {
        let owner = Model::open(eviction);
        let path = TestFile::new();
        let address = CString::new([b"unix:", path.path().as_bytes()].concat()).unwrap();
        owner.share(&address).unwrap();
        let ranks = [0, 1, 0, 2, 1, 1, 0, 2];
        let options = capacities
            .iter()
            .zip(ranks)
            .map(|(capacity, rank)| dram(rank, *capacity))
            .collect();
        let store = Store::attach(&address, &attach_options()).unwrap();
        let mut model = Model::of(store, options, eviction);
        model.owner = Some(owner);
        model._files.push(path);
        model.begin()
    }

    fn open(eviction: u32) -> Store {
        Store::open(&mmc_config {
            dram_size: MMC_NO_DRAM,
            watermark_high: 100,
            eviction,
            ..config()
        })
        .unwrap()
    }

    fn of(store: Store, options: Vec<mmc_segment_options>, eviction: u32) -> Model {
        Model {
            store,
            owner: None,
            eviction,
            places: options
                .into_iter()
                .map(|options| Place { options, address: None })
                .collect(),
            objects: BTreeMap::new(),
            reservations: Vec::new(),
            pins: Vec::new(),
            stranded: Vec::new(),
            versions: 0,
            devices: Vec::new(),
            _memory: Vec::new(),
            _files: Vec::new(),
        }
    }

    fn begin(mut self) -> Model {
        for number in [0, 1, 2, 3, 6] {
            self.come(number);
        }
        self
    }

    fn new(capacities: &[u64], eviction: u32) -> Model {
        let memory = vec![HostMemory::new(capacities[1]), HostMemory::new(capacities[3])];
        let devices = vec![
            Device::new(0x70_0000_0000, capacities[2]),
            Device::new(0x70_0000_0000, capacities[4]),
            Device::new(0x90_0000_0000, capacities[5]),
        ];
        let files = vec![TestFile::new(), TestFile::new()];
        let host = |number: usize, rank: u32| mmc_segment_options {
            base: memory[number].base(),
            ..dram(rank, memory[number].bytes())
        };
        let options = vec![
            mmc_segment_options {
                memory: MMC_MEMORY_MEMFD,
                ..dram(0, capacities[0])
            },
            host(0, 1),
            devices[0].options(MMC_MEDIUM_HBM, 0),
            host(1, 2),
            devices[1].options(MMC_MEDIUM_HBM, 1),
            devices[2].options(MMC_MEDIUM_DRAM, 1),
            ssd(0, capacities[6], &files[0]),
            ssd(2, capacities[7], &files[1]),
        ];
        let mut model = Model::of(Model::open(eviction), options, eviction);
        (model.devices, model._memory, model._files) = (devices, memory, files);
        model.begin()
    }

    fn come(&mut self, number: usize) {
        if self.places[number].address.is_none() {
            self.places[number].address = Some(self.store.register(&self.places[number].options).unwrap());
        } else if !self.places[number].options.base.is_null() {
            // Its memory is in use already.
            assert_eq!(
                self.store.register(&self.places[number].options),
                Err(MMC_ERR_INVALID_PARAM)
            );
        }
    }

    fn leave(&mut self, number: usize) {
        let Some(address) = self.places[number].address else {
            return;
        };
        let is_inside = |extent: &&Extent| self.place_of(extent.0).address == Some(address);
        let is_held = self.extents().iter().filter(is_inside).any(|extent| extent.2);
        match self.store.unregister(address) {
            Ok(()) => assert!(!is_held, "unregistered with something held in it"),
            Err(code) => {
                assert_eq!(code, MMC_ERR_BUSY);
                let is_stranded = |stranded: &(u64, usize)| self.place_of(stranded.0).address == Some(address);
                assert!(
                    is_held || self.stranded.iter().any(is_stranded),
                    "busy with nothing held in it"
                );
                return;
            }
        }
        let end = address + self.places[number].options.capacity;
        self.places[number].address = None;
        self.stranded.retain(|(stranded, _)| !(address..end).contains(stranded));
        self.objects.retain(|_, object| {
            object.copies.retain(|copy| !(address..end).contains(copy));
            !object.copies.is_empty()
        });
    }

    fn place_of(&self, address: u64) -> &Place {
        let holds = |place: &&Place| {
            place
                .address
                .is_some_and(|start| (start..start + place.options.capacity).contains(&address))
        };
        self.places
            .iter()
            .find(holds)
            .unwrap_or_else(|| panic!("{address:#x} lies in no segment"))
    }

    /// The pool address of the segment that has this one.
    fn segment_at(&self, address: u64) -> u64 {
        self.place_of(address).address.expect("it is registered")
    }

    /// Every extent in use but the stranded ones, by address.
    fn extents(&self) -> Vec<Extent> {
        let mut extents = BTreeMap::new();
        let mut add = |address: u64, size: usize, is_held: bool| {
            let entry = extents.entry(address).or_insert((rounded(size), false));
            assert_eq!(entry.0, rounded(size), "two objects at {address:#x}");
            entry.1 |= is_held;
        };
        for object in self.objects.values() {
            object
                .copies
                .iter()
                .for_each(|copy| add(*copy, object.size, object.is_leased(*copy)));
        }
        for token in self.reservations.iter().chain(&self.pins) {
            token
                .copies
                .iter()
                .for_each(|copy| add(*copy, token.view.size as usize, true));
        }
        extents
            .into_iter()
            .map(|(address, (bytes, held))| (address, bytes, held))
            .collect()
    }

    fn version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    fn is_reserved(&self, key: u8) -> bool {
        self.reservations
            .iter()
            .any(|token| token.key == key && !token.is_overdue)
    }

    /// Media and ranks of the segments that are registered, as the store sees them.
    fn medium_of(&self, options: &Options) -> u32 {
        let has = |medium: &u32| {
            let is_there = |place: &Place| place.address.is_some() && place.options.medium == *medium;
            self.places.iter().any(is_there)
        };
        let by_default = || [MMC_MEDIUM_DRAM, MMC_MEDIUM_HBM, MMC_MEDIUM_SSD].into_iter().find(has);
        match options.medium {
            0 => by_default().unwrap_or(MMC_MEDIUM_HBM),
            medium => medium,
        }
    }

    /// The ranks of a medium, each with the longest run that is free, and the longest without anything held.
    fn runs(&self, medium: u32, extents: &[Extent]) -> BTreeMap<u32, (u64, u64)> {
        let mut ranks = BTreeMap::new();
        for place in self.places.iter().filter(|place| place.options.medium == medium) {
            let Some(start) = place.address else { continue };
            let end = start + place.options.capacity;
            let longest = |only_held: bool| {
                let mut longest = 0;
                let mut from = start;
                for (address, bytes, is_held) in extents.iter().filter(|extent| (start..end).contains(&extent.0)) {
                    if *is_held || !only_held {
                        longest = longest.max(address.saturating_sub(from));
                        from = from.max(address + bytes);
                    }
                }
                longest.max(end.saturating_sub(from))
            };
            let entry = ranks.entry(place.options.rank).or_insert((0, 0));
            *entry = (entry.0.max(longest(false)), entry.1.max(longest(true)));
        }
        ranks
    }

    /// Puts, or reserves, by `call`, and checks the code and what was evicted. `call` gets the options and gives the code of each element.
    fn placing(
        &mut self,
        keys: &[(u8, usize)],
        options: &Options,
        call: impl FnOnce(&Model, &mmc_put_options) -> Vec<i32>,
    ) -> Vec<bool> {
        let preferred: Vec<u32> = options
            .preferred
            .iter()
            .flatten()
            .map(|rank| u32::from(*rank))
            .collect();
        let given = mmc_put_options {
            replicas: options.replicas,
            preferred_ranks: preferred.as_ptr(),
            preferred_count: preferred.len(),
            medium: options.medium,
            ..put_options()
        };
        let before = self.extents();
        let codes = call(self, &given);
        let copies = options.replicas.max(1) as usize;
        let medium = self.medium_of(options);
        let runs = self.runs(medium, &before);
        let is_known = |rank: &u32| runs.contains_key(rank);
        let is_impossible = copies > runs.len() || !preferred.iter().all(is_known);
        let with =
            |bytes: u64, of: fn(&(u64, u64)) -> u64| runs.values().filter(|run| of(run) >= bytes).count() >= copies;

        let (mut seen, mut total, mut done) = (Vec::new(), 0, Vec::new());
        for ((key, size), code) in keys.iter().zip(&codes) {
            let is_taken = self.objects.contains_key(key) || self.is_reserved(*key) || seen.contains(key);
            let allowed = if is_taken {
                // What was there may have been evicted for an element before; what the batch itself has put, by `adaptive` only.
                let is_its_own = seen.contains(key) && self.eviction == MMC_EVICTION_PREFIX;
                let may_go = total > 0 && !is_its_own && !self.is_reserved(*key);
                if may_go {
                    vec![MMC_ERR_EXISTS, MMC_OK, MMC_ERR_NO_SPACE]
                } else {
                    vec![MMC_ERR_EXISTS]
                }
            } else if runs.is_empty() {
                vec![MMC_ERR_NO_SPACE]
            } else if is_impossible {
                vec![MMC_ERR_INVALID_PARAM]
            } else if with(rounded(*size), |run| run.1) && total == 0 && self.stranded.is_empty() {
                vec![MMC_OK]
            } else if !with(rounded(*size), |run| run.1) {
                vec![MMC_ERR_NO_SPACE]
            } else {
                vec![MMC_OK, MMC_ERR_NO_SPACE]
            };
            assert!(
                allowed.contains(code),
                "{code} for key {key} of {size} bytes, not {allowed:?}: {}",
                last_error()
            );
            done.push(*code == MMC_OK);
            if *code == MMC_OK {
                seen.push(*key);
            }
            total += rounded(*size);
        }
        // A run may be passed over that is up to an eighth longer than what is wanted; twice the length is found.
        let mut known = before.clone();
        known.extend(
            self.stranded
                .iter()
                .map(|(address, size)| (*address, rounded(*size), true)),
        );
        known.sort_unstable();
        let known = self.runs(medium, &known);
        let found_room = known.values().filter(|run| run.0 >= 2 * total).count() >= copies;
        self.forget_the_evicted(&seen, found_room);
        done
    }

    /// Finds out what became of everything after a call that makes copies of these keys' objects on other segments.
    fn look_after_moves(&mut self, moved: &[u8]) {
        let (store, pins) = (&self.store, &self.pins);
        self.objects.retain(|key, object| {
            let now = match store.query(&name(*key), MMC_PEEK) {
                Ok(info) => copies_of(&info),
                Err(code) => {
                    assert_eq!(code, MMC_ERR_NOT_FOUND);
                    Vec::new()
                }
            };
            assert!(
                moved.contains(key) || now.iter().all(|copy| object.copies.contains(copy)),
                "a copy of {key} has moved"
            );
            for gone in object.copies.iter().filter(|copy| !now.contains(copy)) {
                assert!(!object.is_leased(*gone), "{key} is gone from under a lease");
                let is_pinned = pins.iter().any(|pin| pin.copies.contains(gone));
                assert!(!is_pinned, "{key} is gone from under a pin");
            }
            object.copies = now;
            !object.copies.is_empty()
        });
    }

    fn move_objects(&mut self, keys: &[u8], from: u32, to: u32) {
        let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
        let result = if from < to {
            self.store.evict(&strings(&names), from, to)
        } else {
            self.store.prefetch(&strings(&names), from, to)
        };
        if from == to {
            assert_eq!(result, Err(MMC_ERR_INVALID_PARAM));
            return;
        }
        let codes = result.unwrap();
        let before = self.objects.clone();
        let extents = self.extents();
        let wanted: u64 = keys
            .iter()
            .flat_map(|key| before.get(key))
            .map(|object| rounded(object.size))
            .sum();
        let has_room = self.runs(to, &extents).values().any(|run| run.0 >= 2 * wanted) && self.stranded.is_empty();
        self.look_after_moves(keys);
        let medium_of = |copy: &u64| self.place_of(*copy).options.medium;
        for (key, code) in keys.iter().zip(codes) {
            let was = before.get(key);
            let was_on =
                |medium: u32| was.is_some_and(|object| object.copies.iter().any(|copy| medium_of(copy) == medium));
            if !was_on(from) && !was_on(to) {
                assert_eq!(code, MMC_ERR_NOT_FOUND, "{key}");
                continue;
            }
            // Without room, one may have gone for another.
            let now = self.objects.get(key);
            let is_on =
                |medium: u32| now.is_some_and(|object| object.copies.iter().any(|copy| medium_of(copy) == medium));
            match code {
                MMC_OK => assert!(!has_room || is_on(to) && (to < from || !is_on(from)), "{key}"),
                MMC_ERR_BUSY => {
                    let object = now.expect("what is held stays");
                    let is_held =
                        |copy: &u64| object.is_leased(*copy) || self.pins.iter().any(|pin| pin.copies.contains(copy));
                    assert!(
                        object
                            .copies
                            .iter()
                            .any(|copy| medium_of(copy) == from && is_held(copy)),
                        "{key}"
                    );
                }
                MMC_ERR_NO_SPACE | MMC_ERR_NOT_FOUND => assert!(!has_room, "{code} for {key}"),
                code => panic!("{code} for {key}: {}", last_error()),
            }
        }
    }

    /// Whether a get of this key brings its object back to a device first.
    fn has_left_its_device(&self, key: u8) -> bool {
        self.objects.get(&key).is_some_and(|object| {
            let is_on_device = |copy: &u64| self.place_of(*copy).options.copy.is_some();
            object.is_of_device && !object.copies.iter().any(is_on_device)
        })
    }

    /// Gets objects some of which come back to their device: each is there as a whole, or can't be got for want of room.
    fn get_from_far(&mut self, keys: &[u8]) {
        for key in keys {
            let Some(object) = self.objects.get(key).cloned() else {
                continue;
            };
            let mut data = vec![0; object.size];
            match self.store.get(&name(*key), &mut data, MMC_PEEK) {
                Ok(size) => assert!(
                    size == object.size as u64 && data == content(object.seed, object.size),
                    "{key}"
                ),
                Err(code) => assert_eq!(code, MMC_ERR_NO_SPACE, "{key}: {}", last_error()),
            }
            self.look_after_moves(&[*key]);
        }
    }

    /// Finds out what a put evicted. `new`: keys that it put, which are checked elsewhere.
    fn forget_the_evicted(&mut self, new: &[u8], found_room: bool) {
        let (store, pins) = (&self.store, &self.pins);
        let is_held = |address: &u64| pins.iter().any(|pin| pin.copies.contains(address));
        self.objects.retain(|key, object| {
            let before = object.copies.clone();
            let is_there = !new.contains(key);
            object.copies = match store.query(&name(*key), MMC_PEEK) {
                Ok(info) if is_there => copies_of(&info),
                Err(MMC_ERR_NOT_FOUND) => Vec::new(),
                Ok(_) => Vec::new(),
                Err(code) => panic!("query of {key}: {code}"),
            };
            let gone: Vec<u64> = before
                .iter()
                .copied()
                .filter(|copy| !object.copies.contains(copy))
                .collect();
            assert!(
                object.copies.iter().all(|copy| before.contains(copy)),
                "a copy of {key} has moved"
            );
            assert!(
                gone.is_empty() || !found_room,
                "{key} was evicted though there was room"
            );
            assert!(
                !gone.iter().any(|copy| object.is_leased(*copy)),
                "{key} was evicted under a lease"
            );
            assert!(!gone.iter().any(is_held), "{key} was evicted under a pin");
            !object.copies.is_empty()
        });
    }

    /// How many of these copies of an object that a batch has put are there: `adaptive` may have let some go for what the batch put later.
    fn replicas_left(&self, key: u8, replicas: u32) -> Option<u32> {
        if self.eviction == MMC_EVICTION_PREFIX {
            return Some(replicas);
        }
        match self.store.query(&name(key), MMC_PEEK) {
            Ok(info) => Some(copies_of(&info).len() as u32),
            Err(MMC_ERR_NOT_FOUND) => None,
            Err(code) => panic!("query of {key}: {code}"),
        }
    }

    /// Takes up an object that was just put.
    fn note_put(&mut self, key: u8, seed: u64, size: usize, replicas: u32) {
        let info = self.store.query(&name(key), MMC_PEEK).unwrap();
        assert_eq!((info.size, info.readable, info.lease_count), (size as u64, 1, 0));
        let copies = copies_of(&info);
        assert_eq!(copies.len(), replicas.max(1) as usize);
        let mut ranks: Vec<u32> = info.blobs[..copies.len()].iter().map(|blob| blob.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        assert_eq!(ranks.len(), copies.len(), "copies lie on distinct ranks");
        let old = self.objects.insert(
            key,
            Object {
                seed,
                size,
                is_of_device: self.place_of(copies[0]).options.copy.is_some(),
                copies,
                leases: Vec::new(),
            },
        );
        assert!(old.is_none());
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Put {
                key,
                size,
                options,
                pieces,
            } => {
                let (seed, name) = (self.version(), name(*key));
                let data = split(content(seed, *size), *pieces);
                let done = self.placing(&[(*key, *size)], options, |model, options| {
                    vec![code_of(match data[..] {
                        [data] => model.store.put(&name, data, Some(options)),
                        _ => model.store.putv(&name, &data, Some(options)),
                    })]
                });
                if done[0] {
                    self.note_put(*key, seed, *size, options.replicas);
                }
            }
            Step::BatchPut { keys, options, pieces } => {
                let seeds: Vec<u64> = keys.iter().map(|_| self.version()).collect();
                let names: Vec<String> = keys.iter().map(|(key, _)| name(*key)).collect();
                let data: Vec<Vec<&[u8]>> = keys
                    .iter()
                    .zip(&seeds)
                    .map(|((_, size), seed)| split(content(*seed, *size), *pieces))
                    .collect();
                let done = self.placing(keys, options, |model, options| {
                    if *pieces == 1 {
                        model
                            .store
                            .batch_put(&strings(&names), &data.concat(), Some(options))
                            .unwrap()
                    } else {
                        model.store.batch_putv(&strings(&names), &data, Some(options)).unwrap()
                    }
                });
                // Of a key that was put, evicted and put again, the last.
                let put: BTreeMap<u8, (usize, u64)> = keys
                    .iter()
                    .zip(seeds)
                    .zip(done)
                    .filter_map(|(((key, size), seed), is_done)| is_done.then_some((*key, (*size, seed))))
                    .collect();
                for (key, (size, seed)) in put {
                    if let Some(replicas) = self.replicas_left(key, options.replicas) {
                        self.note_put(key, seed, size, replicas);
                    }
                }
            }
            Step::Get { key, .. } | Step::GetUpTo { key, .. } if self.has_left_its_device(*key) => {
                self.get_from_far(&[*key]);
            }
            Step::BatchGet { keys } if keys.iter().any(|key| self.has_left_its_device(*key)) => self.get_from_far(keys),
            Step::Move { keys, from, to } => self.move_objects(keys, *from, *to),
            Step::Get { key, cut, flags } => {
                let Some(object) = self.objects.get(key) else {
                    assert_eq!(self.store.get(&name(*key), &mut [0; 9], *flags), Err(MMC_ERR_NOT_FOUND));
                    return;
                };
                let mut data = vec![0; object.size];
                let size = match *cut as usize % object.size {
                    0 => self.store.get(&name(*key), &mut data, *flags),
                    cut => {
                        let (front, back) = data.split_at_mut(cut);
                        self.store.getv(&name(*key), &mut [front, back], *flags)
                    }
                };
                assert_eq!(size, Ok(object.size as u64));
                assert!(data == content(object.seed, object.size), "bytes of {key}");
                let mut other = vec![7; object.size + 1];
                assert_eq!(
                    self.store.get(&name(*key), &mut other, *flags),
                    Err(MMC_ERR_SIZE_MISMATCH)
                );
                assert!(
                    other.iter().take(100).all(|byte| *byte == 7),
                    "a get that fails writes nothing"
                );
            }
            Step::GetUpTo { key, size } => {
                let mut data = vec![7; *size];
                let result = self.store.get(&name(*key), &mut data, MMC_GET_UP_TO);
                let Some(object) = self.objects.get(key) else {
                    assert_eq!(result, Err(MMC_ERR_NOT_FOUND));
                    return;
                };
                assert_eq!(result, Ok(object.size as u64));
                let copied = object.size.min(*size);
                assert!(
                    data[..copied] == content(object.seed, object.size)[..copied],
                    "bytes of {key}"
                );
                assert!(
                    data[copied..].iter().take(100).all(|byte| *byte == 7),
                    "bytes behind the object"
                );
            }
            Step::BatchGet { keys } => {
                let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
                let size_of = |key: &u8| self.objects.get(key).map_or(1, |object| object.size);
                let mut data: Vec<Vec<u8>> = keys.iter().map(|key| vec![7; size_of(key)]).collect();
                let mut pieces: Vec<&mut [u8]> = data.iter_mut().map(Vec::as_mut_slice).collect();
                let results = self.store.batch_get(&strings(&names), &mut pieces, 0).unwrap();
                for ((key, result), data) in keys.iter().zip(results).zip(&data) {
                    match self.objects.get(key) {
                        Some(object) => {
                            assert_eq!(result, (MMC_OK, object.size as u64));
                            assert!(*data == content(object.seed, object.size), "bytes of {key}");
                        }
                        None => assert_eq!((result, data[0]), ((MMC_ERR_NOT_FOUND, 0), 7)),
                    }
                }
            }
            Step::Look { keys } => self.look(keys),
            Step::Remove { key } => {
                self.end_leases(*key);
                let is_there = self.objects.remove(key).is_some();
                let result = self.store.remove(&name(*key));
                assert_eq!(result, if is_there { Ok(()) } else { Err(MMC_ERR_NOT_FOUND) });
            }
            Step::BatchRemove { keys } => {
                keys.iter().for_each(|key| self.end_leases(*key));
                let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
                let codes = self.store.batch_remove(&strings(&names)).unwrap();
                for (key, code) in keys.iter().zip(codes) {
                    let is_there = self.objects.remove(key).is_some();
                    assert_eq!(code, if is_there { MMC_OK } else { MMC_ERR_NOT_FOUND });
                }
            }
            Step::RemoveAll => {
                let keys: Vec<u8> = self.objects.keys().copied().collect();
                keys.iter().for_each(|key| self.end_leases(*key));
                assert_eq!(self.store.remove_all(), keys.len() as u64);
                self.objects.clear();
            }
            Step::Reserve { keys, options } => self.reserve(keys, options, HOUR),
            Step::ReserveForAMoment { key, size } => {
                let options = Options {
                    replicas: 1,
                    preferred: [None; 2],
                    medium: 0,
                };
                let before = self.reservations.len();
                self.reserve(&[(*key, *size)], &options, 1);
                if self.reservations.len() > before {
                    let (store, inside) = (&self.store, self.segment_at(self.reservations[before].view.address));
                    wait_until("the reservation is overdue", || {
                        // It is in the way still, but asking ends what is overdue.
                        assert_eq!(store.unregister(inside), Err(MMC_ERR_BUSY));
                        store.query(&name(*key), MMC_PEEK | MMC_QUERY_RESERVED).is_err()
                    });
                    self.reservations.last_mut().unwrap().is_overdue = true;
                }
            }
            Step::EndReservations { which, commit, batch } => {
                let tokens = take(&mut self.reservations, which);
                for token in &tokens {
                    self.fill(token);
                }
                let numbers: Vec<u64> = tokens.iter().map(|token| token.view.token).collect();
                let codes = match (commit, batch) {
                    (true, true) => self.store.batch_commit(&numbers).unwrap(),
                    (false, true) => self.store.batch_abort(&numbers).unwrap(),
                    (true, false) => numbers.iter().map(|token| code_of(self.store.commit(*token))).collect(),
                    (false, false) => numbers.iter().map(|token| code_of(self.store.abort(*token))).collect(),
                };
                for (token, code) in tokens.into_iter().zip(codes) {
                    assert_eq!(
                        code,
                        if *commit && token.is_overdue {
                            MMC_ERR_TIMEOUT
                        } else {
                            MMC_OK
                        }
                    );
                    assert_eq!(self.store.abort(token.view.token), Err(MMC_ERR_NOT_FOUND));
                    if *commit && !token.is_overdue {
                        self.note_put(
                            token.key,
                            token.seed,
                            token.view.size as usize,
                            token.copies.len() as u32,
                        );
                        assert_eq!(
                            self.objects[&token.key].copies, token.copies,
                            "they lie where they were reserved"
                        );
                    }
                }
            }
            Step::Pin { keys, batch } => {
                let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
                let views = if *batch {
                    self.store.batch_pin(&strings(&names), 0).unwrap()
                } else {
                    names.iter().map(|name| self.store.pin(name, MMC_PEEK)).collect()
                };
                for (key, view) in keys.iter().zip(views) {
                    let Some(object) = self.objects.get(key) else {
                        assert_eq!(view.map(|view| view.token), Err(MMC_ERR_NOT_FOUND));
                        continue;
                    };
                    let view = view.unwrap();
                    assert!(object.copies.contains(&view.address));
                    assert_eq!(view.size, object.size as u64);
                    self.pins.push(Token {
                        key: *key,
                        seed: object.seed,
                        view,
                        copies: vec![view.address],
                        is_overdue: false,
                    });
                }
            }
            Step::Unpin { which, batch } => {
                let tokens = take(&mut self.pins, which);
                tokens.iter().for_each(check_pin);
                let numbers: Vec<u64> = tokens.iter().map(|token| token.view.token).collect();
                if *batch {
                    assert!(
                        self.store
                            .batch_unpin(&numbers)
                            .unwrap()
                            .iter()
                            .all(|code| *code == MMC_OK)
                    );
                } else {
                    numbers.iter().for_each(|token| self.store.unpin(*token).unwrap());
                }
                numbers
                    .iter()
                    .for_each(|token| assert_eq!(self.store.unpin(*token), Err(MMC_ERR_NOT_FOUND)));
            }
            Step::Lease { keys, batch } => {
                let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
                // A later lease ends later, so that it is known which one is given up.
                let term = HOUR + 1000 * self.version();
                let codes = if *batch {
                    self.store.batch_lease(&strings(&names), term).unwrap()
                } else {
                    names.iter().map(|name| code_of(self.store.lease(name, term))).collect()
                };
                for (key, code) in keys.iter().zip(codes) {
                    let is_reserved = self.is_reserved(*key);
                    match self.objects.get_mut(key) {
                        Some(object) => {
                            assert_eq!(code, MMC_OK);
                            object.leases.push(object.copies.clone());
                        }
                        None if is_reserved => assert_eq!(code, MMC_ERR_STATE),
                        None => assert_eq!(code, MMC_ERR_NOT_FOUND),
                    }
                }
            }
            Step::Unlease { keys, batch } => {
                let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
                let codes = if *batch {
                    self.store.batch_unlease(&strings(&names)).unwrap()
                } else {
                    names.iter().map(|name| code_of(self.store.unlease(name))).collect()
                };
                for (key, code) in keys.iter().zip(codes) {
                    match self.objects.get_mut(key) {
                        Some(object) if !object.leases.is_empty() => {
                            assert_eq!(code, MMC_OK);
                            object.leases.remove(0);
                        }
                        Some(_) => assert_eq!(code, MMC_ERR_NO_LEASE),
                        None => assert_eq!(code, MMC_ERR_NOT_FOUND),
                    }
                }
            }
            Step::LeaseAndRemove { key } => {
                self.end_leases(*key);
                if let Some(object) = self.objects.remove(key) {
                    self.store.lease(&name(*key), 2).unwrap();
                    self.store.remove(&name(*key)).unwrap();
                    let copies = object.copies.iter();
                    self.stranded.extend(copies.map(|copy| (*copy, object.size)));
                }
            }
            Step::CopyAt { key, start, size } => self.copy_at(*key, *start, *size),
            Step::Leave { segment } => self.leave(*segment as usize),
            Step::Come { segment } => self.come(*segment as usize),
        }
    }

    /// Ends the leases of a key that is about to be removed: nobody can afterwards, and they last for hours.
    fn end_leases(&mut self, key: u8) {
        if let Some(object) = self.objects.get_mut(&key) {
            for _ in std::mem::take(&mut object.leases) {
                self.store.unlease(&name(key)).unwrap();
            }
        }
    }

    fn reserve(&mut self, keys: &[(u8, usize)], options: &Options, term_ms: u64) {
        if self.medium_of(options) == MMC_MEDIUM_SSD {
            let given = mmc_put_options {
                medium: MMC_MEDIUM_SSD,
                ..put_options()
            };
            let refused = self.store.reserve("a file is no memory", 1, Some(&given)).map(drop);
            assert!(
                [Err(MMC_ERR_UNSUPPORTED), Err(MMC_ERR_NO_SPACE)].contains(&refused),
                "{refused:?}"
            );
            self.look_after_moves(&[]);
            return;
        }
        let names: Vec<String> = keys.iter().map(|(key, _)| name(*key)).collect();
        let sizes: Vec<u64> = keys.iter().map(|(_, size)| *size as u64).collect();
        let mut views = Vec::new();
        let done = self.placing(keys, options, |model, options| {
            let options = mmc_put_options { term_ms, ..*options };
            views = match (&names[..], &sizes[..]) {
                ([name], [size]) => vec![model.store.reserve(name, *size, Some(&options))],
                _ => model
                    .store
                    .batch_reserve(&strings(&names), &sizes, Some(&options))
                    .unwrap(),
            };
            views
                .iter()
                .map(|view| view.as_ref().map_or_else(|code| *code, |_| MMC_OK))
                .collect()
        });
        for (((key, size), view), is_done) in keys.iter().zip(views).zip(done) {
            if !is_done {
                continue;
            }
            let view = view.unwrap();
            let mut copies = vec![view.address];
            if term_ms == HOUR {
                let info = self.store.query(&name(*key), MMC_PEEK | MMC_QUERY_RESERVED).unwrap();
                assert_eq!((info.readable, info.size, view.size), (0, *size as u64, *size as u64));
                copies = copies_of(&info);
                assert_eq!(copies[0], view.address);
                assert_eq!(self.store.exist(&name(*key), MMC_PEEK), Err(MMC_ERR_NOT_FOUND));
            }
            let seed = self.version();
            self.reservations.push(Token {
                key: *key,
                seed,
                view,
                copies,
                is_overdue: false,
            });
        }
    }

    /// Reads, and tries to write, all that a key has by its addresses: `size` bytes from `start` on, be there as many or not.
    fn copy_at(&self, key: u8, start: usize, size: usize) {
        let mut data = vec![7; size];
        if let Some(object) = self.objects.get(&key) {
            let is_inside = start + size <= object.size;
            for copy in &object.copies {
                let place = [copy + start as u64];
                data.fill(7);
                let is_read = self.store.read_at(&place, &mut [&mut data]).unwrap();
                if is_inside {
                    assert_eq!(is_read, [MMC_OK]);
                    assert!(
                        data == content(object.seed, object.size)[start..][..size],
                        "bytes of {key}"
                    );
                    assert_eq!(self.store.write_at(&place, &[&data]).unwrap(), [MMC_ERR_STATE]);
                } else if start < object.size {
                    assert_eq!(is_read, [MMC_ERR_NOT_FOUND]);
                    assert!(data.iter().all(|byte| *byte == 7), "a copy that fails writes nothing");
                }
            }
        }
        for token in self.reservations.iter().filter(|token| token.key == key) {
            for (number, copy) in token.copies.iter().enumerate() {
                let place = [copy + start as u64];
                if start >= token.view.size as usize {
                    continue;
                }
                let is_there = !token.is_overdue;
                let is_read = if is_there { MMC_ERR_STATE } else { MMC_ERR_NOT_FOUND };
                assert_eq!(self.store.read_at(&place, &mut [&mut data]).unwrap(), [is_read]);
                let may_write = is_there && number == 0 && start + size <= token.view.size as usize;
                let is_written = if may_write { MMC_OK } else { MMC_ERR_NOT_FOUND };
                assert_eq!(self.store.write_at(&place, &[&data]).unwrap(), [is_written]);
            }
        }
        // Behind the last segment, and between two, there is nothing.
        for place in &self.places {
            if let Some(address) = place.address {
                let behind = [address + place.options.capacity];
                assert_eq!(
                    self.store.read_at(&behind, &mut [&mut data]).unwrap(),
                    [MMC_ERR_NOT_FOUND]
                );
            }
        }
    }

    /// Does what the holder of a reservation does: writes the bytes.
    fn fill(&self, token: &Token) {
        let data = content(token.seed, token.view.size as usize);
        if token.seed.is_multiple_of(2) && !token.is_overdue {
            let pieces = split(data, 3);
            let mut end = token.view.address;
            let begin_of = |piece: &&[u8]| {
                end += piece.len() as u64;
                end - piece.len() as u64
            };
            let places: Vec<u64> = pieces.iter().map(begin_of).collect();
            let codes = self.store.write_at(&places, &pieces).unwrap();
            assert!(codes.iter().all(|code| *code == MMC_OK), "{codes:?}");
            return;
        }
        if !token.view.data.is_null() {
            // SAFETY: the reservation is open, and its memory the holder's.
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), token.view.data.cast(), data.len()) };
            return;
        }
        let place = self.place_of(token.view.address);
        let device = self
            .devices
            .iter()
            .find(|device| std::ptr::from_ref::<Device>(device) == place.options.context.cast())
            .expect("only devices' memory is out of reach");
        device.write(token.view.address - place.address.unwrap(), data);
    }

    fn look(&self, keys: &[u8]) {
        let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
        let codes = self.store.batch_exist(&strings(&names), 0).unwrap();
        let length = codes.iter().take_while(|code| **code == MMC_OK).count();
        assert_eq!(self.store.prefix_len(&strings(&names), 0), Ok(length));
        let infos = self.store.batch_query(&strings(&names), MMC_PEEK).unwrap();
        for ((key, code), info) in keys.iter().zip(codes).zip(infos) {
            let is_there = self.objects.contains_key(key);
            assert_eq!(code, if is_there { MMC_OK } else { MMC_ERR_NOT_FOUND });
            assert_eq!(code_of(self.store.exist(&name(*key), MMC_PEEK)), code);
            assert_eq!(
                info.map(|info| info.size).ok(),
                self.objects.get(key).map(|object| object.size as u64)
            );
        }
    }

    /// Compares all that can be seen with what should be.
    fn check(&mut self) {
        for (key, object) in &self.objects {
            let info = self.store.query(&name(*key), MMC_PEEK).unwrap();
            assert_eq!((info.size, info.readable), (object.size as u64, 1), "{key}");
            assert_eq!(
                (copies_of(&info), info.lease_count),
                (object.copies.clone(), object.leases.len() as u32),
                "{key}"
            );
            for blob in &info.blobs[..info.blob_count as usize] {
                let place = self.place_of(blob.address);
                assert_eq!(
                    (blob.medium, blob.rank),
                    (place.options.medium, place.options.rank),
                    "{key}"
                );
                let is_out_of_reach = place.options.copy.is_some() || blob.medium == MMC_MEDIUM_SSD;
                assert_eq!(blob.data.is_null(), is_out_of_reach, "{key}");
            }
        }
        let mut keys = self.store.list_keys();
        keys.sort_unstable();
        let mut known: Vec<String> = self.objects.keys().map(|key| name(*key)).collect();
        known.sort_unstable();
        assert_eq!(keys, known);

        let extents = self.extents();
        for pair in extents.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?} overlap");
        }
        let segments = self.store.segments();
        assert_eq!(
            segments.len(),
            self.places.iter().filter(|place| place.address.is_some()).count()
        );
        for segment in &segments {
            let range = segment.address..segment.address + segment.capacity;
            let inside = extents.iter().filter(|extent| range.contains(&extent.0));
            let used: u64 = inside
                .inspect(|extent| {
                    assert!(
                        extent.0 + extent.1 <= range.end,
                        "{extent:x?} reaches out of {range:x?}"
                    )
                })
                .map(|extent| extent.1)
                .sum();
            // One that is pinned as well is counted already.
            let is_known = |address: u64| extents.binary_search_by_key(&address, |extent| extent.0).is_ok();
            let inside = self.stranded.iter().filter(|stranded| range.contains(&stranded.0));
            let stranded = inside.filter(|stranded| !is_known(stranded.0));
            let most = used + stranded.map(|stranded| rounded(stranded.1)).sum::<u64>();
            assert!(
                (used..=most).contains(&segment.allocated),
                "segment {:#x} has {} bytes in use, not {used} to {most}",
                segment.address,
                segment.allocated
            );
        }
        let statistics = self.store.stats();
        assert_eq!(statistics.stored_keys, self.objects.len() as u64);
        // What is stranded may have gone since.
        let allocated = segments.iter().map(|segment| segment.allocated).sum::<u64>();
        assert!(statistics.allocated == allocated || !self.stranded.is_empty() && statistics.allocated < allocated);
        assert_eq!(statistics.pins, self.pins.len() as u64);
        assert_eq!(statistics.reservations, self.reservations.len() as u64);
        let leases: u32 = self.objects.values().map(|object| object.leases.len() as u32).sum();
        assert!(statistics.leases >= u64::from(leases));
        if statistics.leases == u64::from(leases) {
            self.stranded.clear();
        }
    }

    /// Reads everything.
    fn check_contents(&self) {
        for (key, object) in &self.objects {
            let mut data = vec![0; object.size];
            if self.has_left_its_device(*key) {
                // A get would move it.
                let place = [object.copies[0]];
                assert_eq!(self.store.read_at(&place, &mut [&mut data]).unwrap(), [MMC_OK]);
            } else {
                self.store.get(&name(*key), &mut data, MMC_PEEK).unwrap();
            }
            assert!(data == content(object.seed, object.size), "bytes of {key}");
        }
        self.pins.iter().for_each(check_pin);
    }

    /// Drops all there is: every byte comes back, and every segment goes.
    fn finish(mut self) {
        self.check_contents();
        let all = vec![0; 1000];
        self.apply(&Step::EndReservations {
            which: all.clone(),
            commit: false,
            batch: true,
        });
        self.apply(&Step::Unpin {
            which: all,
            batch: true,
        });
        self.apply(&Step::RemoveAll);
        let store = &self.store;
        wait_until("everything is free", || {
            // Asking for a segment that is in use ends what is overdue.
            if let Ok(view) = store.reserve("in use", 1, None) {
                assert_eq!(store.unregister(self.segment_at(view.address)), Err(MMC_ERR_BUSY));
                store.abort(view.token).unwrap();
            }
            store.stats().allocated == 0
        });
        (0..self.places.len()).for_each(|number| self.leave(number));
        assert_eq!(self.store.segments().len(), 0);
        assert_eq!(self.store.stats().allocated, 0);
        if let Some(owner) = self.owner {
            drop(self.store);
            let levels = owner.stats();
            assert_eq!((levels.attached, levels.metadata > 0), (0, true));
        }
    }
}

fn copies_of(info: &mmc_object_info) -> Vec<u64> {
    info.blobs[..info.blob_count as usize]
        .iter()
        .map(|blob| blob.address)
        .collect()
}

fn code_of(result: Outcome) -> i32 {
    result.map_or_else(|code| code, |()| MMC_OK)
}

fn strings(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Cuts into as many pieces as there are bytes for.
fn split(data: &[u8], pieces: u8) -> Vec<&[u8]> {
    data.chunks(data.len().div_ceil(pieces as usize)).collect()
}

/// Takes the tokens with these numbers, modulo how many there are.
fn take(tokens: &mut Vec<Token>, which: &[u8]) -> Vec<Token> {
    let mut taken = Vec::new();
    for number in which {
        if !tokens.is_empty() {
            taken.push(tokens.swap_remove(*number as usize % tokens.len()));
        }
    }
    taken
}

fn check_pin(pin: &Token) {
    if !pin.view.data.is_null() {
        // SAFETY: the pin is open.
        let bytes = unsafe { bytes_of(&pin.view) };
        assert!(bytes == content(pin.seed, bytes.len()), "pinned bytes of {}", pin.key);
    }
}

fn run(new: fn(&[u64], u32) -> Model, capacities: &[u64], is_adaptive: bool, steps: &[Step]) {
    let capacities: Vec<u64> = capacities.iter().map(|pages| pages * UNIT).collect();
    let eviction = if is_adaptive {
        MMC_EVICTION_ADAPTIVE
    } else {
        MMC_EVICTION_PREFIX
    };
    let mut model = new(&capacities, eviction);
    for (number, step) in steps.iter().enumerate() {
        model.apply(step);
        model.check();
        if number % 16 == 0 {
            model.check_contents();
        }
    }
    model.finish();
}

/// The steps without those that need other media.
fn in_dram(steps: Vec<Step>) -> Vec<Step> {
    let keep = |mut step: Step| {
        match &mut step {
            Step::Put { options, .. } | Step::BatchPut { options, .. } | Step::Reserve { options, .. } => {
                options.medium = 0;
            }
            Step::Move { .. } => return None,
            _ => {}
        }
        Some(step)
    };
    steps.into_iter().filter_map(keep).collect()
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("MMC_MODEL_CASES").map_or(cases, |text| text.parse().expect("a number of cases")),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn the_store_does_what_a_map_does(
        capacities in vec(16u64..800, 8),
        is_adaptive: bool,
        steps in vec(steps(), 1..100),
    ) {
        run(Model::new, &capacities, is_adaptive, &steps);
    }

    #[test]
    fn so_does_one_whose_segments_are_hardly_larger_than_its_objects(
        capacities in vec(1u64..12, 8),
        is_adaptive: bool,
        steps in vec(steps(), 1..100),
    ) {
        run(Model::new, &capacities, is_adaptive, &steps);
    }
}

proptest! {
    // Each of its steps is a question to another thread.
    #![proptest_config(cases(80))]

    #[test]
    fn so_does_an_attached_one(
        capacities in vec(8u64..200, 8),
        is_adaptive: bool,
        steps in vec(steps(), 1..100),
    ) {
        run(Model::attached, &capacities, is_adaptive, &in_dram(steps));
    }
}
