//! Raw frames, as a peer may send them that means harm or is defective, fed to a session without a socket.
//!
//! The peer here has one connection to a small pool, in which its owner keeps an object of its own, the canary, under a pin. It writes
//! to whatever it is lent for writing, as a peer can. Whatever it sends: no panic; what it is lent lies in the pool's memory, and what it may write
//! not in the canary's, nor where it may write already; and when it has gone there is no pin, reservation or lease of it, and no memory in use
//! but the canary's, whose bytes are what they were.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::session::{Answer, Memory, Session};
use super::wire::{Contribution, Keys, Placement, Range, Reply, Request, Room, Sized, Tokens};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::segment::Medium;
use crate::segment::allocator::UNIT;
use crate::segment::device::Direction;
use crate::segment::dram::{Kind, Wishes};
use crate::store::inplace::View;
use crate::store::place::PutOptions;
use crate::store::segments::Plan;
use crate::store::{Source, Store};

/// Bytes of the pool.
const CAPACITY: u64 = 64 * UNIT;
/// Bytes of the canary.
const CANARY: u64 = 2 * UNIT;
/// What the canary's bytes are.
const SONG: u8 = 0xca;

/// A pool with a canary, between two peers.
struct Cage {
    store: Arc<Store>,
    segment: u64,
    canary: View,
}

/// No memory is brought.
struct NoMemory;

impl Memory for NoMemory {
    fn contribute(&self, _: &Session, _: &Contribution) -> Result<(u64, u32)> {
        Err(Error::Unsupported("there is memory enough".into()))
    }

    fn withdraw(&self, _: &Session, _: u64) -> Result<()> {
        Err(Error::Unsupported("nothing was brought".into()))
    }

    fn http_address(&self) -> String {
        String::new()
    }
}

impl Cage {
    fn new() -> Cage {
        let options = Options {
            dram_size: Some(0),
            watermark_high: Some(100),
            watermark_low: Some(100),
            ..Options::default()
        };
        let (config, _) = options.resolve(&|_| None).expect("the options are good");
        let store = Store::open(&config, None).expect("there is memory for a store");
        let plan = Plan {
            medium: Medium::Dram,
            rank: 0,
            capacity: CAPACITY,
        };
        let wishes = Wishes {
            kind: Kind::Memfd,
            huge_pages: false,
            prefault: false,
            numa_node: None,
        };
        let segment = store
            .register_segment(&plan, Source::Map(wishes))
            .expect("there is memory for it");
        let canary = Cage::hang(&store, segment);
        Cage { store, segment, canary }
    }

    /// Puts a canary and pins it.
    fn hang(store: &Store, segment: u64) -> View {
        let key = Key::new(b"canary").expect("it is a key");
        let options = PutOptions {
            replicas: 1,
            preferred: &[],
            medium: None,
            stream: 0,
            guest: None,
        };
        let view = store.reserve(&key, CANARY, &options, 0).expect("the pool is empty");
        write(store, segment, view.address, &[SONG; CANARY as usize]);
        store.commit(view.token).expect("it was just reserved");
        store.pin(&key, 0).expect("it was just put")
    }

    /// Checks that the peer has left nothing, and makes the pool as it was.
    fn check(&mut self) {
        let file = self
            .store
            .segments
            .at(self.segment)
            .expect("it is registered")
            .segment
            .memfd();
        let mut bytes = [0; CANARY as usize];
        let read = file.map(|file| file.read_exact_at(&mut bytes, self.canary.address - self.segment));
        assert!(
            matches!(read, Some(Ok(()))) && bytes == [SONG; CANARY as usize],
            "the canary was hurt"
        );
        self.store.remove_all();
        let left = self.store.statistics();
        let held = (left.pins, left.reservations, left.leases);
        assert_eq!(held, (1, 0, 0), "pins with the owner's own, reservations and leases");
        assert_eq!(left.allocated, CANARY, "bytes in use");
        self.store.unpin(self.canary.token).expect("it is pinned");
        assert_eq!(self.store.statistics().allocated, 0, "bytes in use");
        self.canary = Cage::hang(&self.store, self.segment);
    }
}

/// Writes to the pool's memory, as another process does.
fn write(store: &Store, segment: u64, address: u64, bytes: &[u8]) {
    let file = store.segments.at(segment).expect("it is registered").segment.memfd();
    file.expect("it is a memfd")
        .write_all_at(bytes, address - segment)
        .expect("it is memory");
}

/// What the peer has been lent.
struct Peer<'c> {
    cage: &'c Cage,
    writable: HashMap<u64, (u64, u64)>,
}

impl Peer<'_> {
    /// Looks at a reply to what a request asks for, and writes to what may be written.
    fn use_reply(&mut self, request: &Request<'_>, reply: &Reply<'_>) {
        match (request, reply) {
            (Request::Commit(ended) | Request::Abort(ended) | Request::Release(ended), _) => {
                self.writable.retain(|token, _| !ended.tokens.contains(token));
            }
            (Request::Put(_) | Request::Reserve { .. }, Reply::Lent { lent, .. }) => {
                for one in lent {
                    let range = self.within_pool(one.address, one.size);
                    let is_apart = |other: &(u64, u64)| range.1 <= other.0 || other.1 <= range.0;
                    assert!(self.writable.values().all(is_apart), "memory was lent twice");
                    self.scribble(range);
                    self.writable.insert(one.token, range);
                }
            }
            (Request::Copy { direction, .. }, Reply::Lent { lent, .. }) => {
                for one in lent {
                    let range = self.within_pool(one.address, one.size);
                    if *direction == Direction::ToSegment {
                        self.scribble(range);
                    }
                }
            }
            (_, Reply::Lent { lent, .. }) => lent.iter().for_each(|one| {
                self.within_pool(one.address, one.size);
            }),
            _ => {}
        }
    }

    fn within_pool(&self, address: u64, size: u64) -> (u64, u64) {
        let end = address.checked_add(size).expect("a range of memory");
        let pool = self.cage.segment..=self.cage.segment + CAPACITY;
        assert!(
            pool.contains(&address) && pool.contains(&end),
            "lent outside of the pool"
        );
        (address, end)
    }

    fn scribble(&self, (begin, end): (u64, u64)) {
        let canary = self.cage.canary.address;
        assert!(
            end <= canary || canary + CANARY <= begin,
            "the canary was lent to be written"
        );
        write(
            &self.cage.store,
            self.cage.segment,
            begin,
            &vec![0xbb; (end - begin) as usize],
        );
    }
}

/// Feeds a session what `data` holds: frames, each with its length before it as on a socket, the last one as far as it goes.
#[doc(hidden)]
pub fn fuzz_frames(data: &[u8]) {
    thread_local! {
        // Opening a store takes longer than a hundred frames. One that somebody got into is not used again.
        static CAGE: Cell<Option<Cage>> = const { Cell::new(None) };
    }
    let mut cage = CAGE.take().unwrap_or_else(Cage::new);
    let session = Session::new(1, 1, None);
    let mut peer = Peer {
        cage: &cage,
        writable: HashMap::new(),
    };
    let mut rest = data;
    while let Some((head, after)) = rest.split_first_chunk() {
        let length = (u32::from_le_bytes(*head) as usize).min(after.len());
        let (frame, next) = after.split_at(length);
        rest = next;
        let Ok((reply, answer)) = session.answer(&cage.store, &NoMemory, frame) else {
            // The connection ends, and then the process.
            session.make_void();
            break;
        };
        let request = postcard::from_bytes(frame).expect("it was answered");
        peer.use_reply(&request, &reply);
        let bytes = postcard::to_allocvec(&reply).expect("a reply can be sent");
        postcard::from_bytes::<Reply<'_>>(&bytes).expect("a reply can be read");
        if matches!(answer, Answer::Last) {
            break;
        }
    }
    session.end(&cage.store);
    cage.check();
    CAGE.set(Some(cage));
}

/// Conversations with a session, from which to begin.
#[doc(hidden)]
pub fn seeds_of_frames() -> Vec<Vec<u8>> {
    let sized = |key, size| Sized { key, size };
    let keys = |flags| Keys {
        flags,
        keys: vec!["a", "b", "canary"],
    };
    let placement = || Placement {
        replicas: 1,
        preferred: vec![0],
        medium: None,
    };
    let put = |elements: Vec<Sized<'static>>| {
        let count = elements.len() as u32;
        Request::Put(Room {
            placement: placement(),
            elements,
            begin: 0,
            count,
            stamp: None,
        })
    };
    let reserve = || Request::Reserve {
        placement: placement(),
        term: 0,
        elements: vec![sized("r", 100), sized("s", 5 * UNIT)],
    };
    let tokens = |tokens: &[u64]| Tokens { tokens: tokens.into() };
    let get = |flags| Request::Get {
        flags,
        elements: vec![sized("a", 100), sized("canary", CANARY)],
    };
    // The first segment of a store begins there, and the first object in it.
    let first = 1 << 40;
    let copy = |direction| Request::Copy {
        direction,
        ranges: vec![
            Range {
                address: first,
                size: 100,
            },
            Range {
                address: first + CANARY,
                size: 64,
            },
        ],
    };
    let conversations = [
        vec![
            put(vec![sized("a", 100), sized("b", UNIT)]),
            Request::Commit(tokens(&[1, 2])),
            get(0),
            Request::Release(tokens(&[3, 4])),
        ],
        vec![
            put(vec![sized("a", 20 * UNIT)]),
            get(2),
            Request::Abort(tokens(&[1])),
            put(vec![sized("a", 62 * UNIT)]),
            Request::Commit(tokens(&[2])),
            get(2),
        ],
        vec![
            reserve(),
            copy(Direction::ToSegment),
            Request::Commit(tokens(&[1, 2])),
            copy(Direction::FromSegment),
            Request::Unpin(tokens(&[3, 4, 5])),
        ],
        vec![
            Request::Pin(keys(1)),
            Request::RemoveAll,
            Request::Unpin(tokens(&[1])),
            Request::Statistics,
        ],
        vec![
            Request::AddLease { term: 0, keys: keys(0) },
            Request::Remove(keys(0)),
            copy(Direction::FromSegment),
            Request::RemoveLease(keys(0)),
        ],
        vec![
            Request::Exist(keys(1)),
            Request::PrefixLen(keys(0)),
            Request::Query(keys(4)),
            Request::ListKeys { from: 0 },
        ],
        vec![
            Request::ListSegments,
            Request::Map { address: first },
            Request::HttpAddress,
            Request::Withdraw { address: first },
        ],
        vec![
            Request::Move {
                from: Medium::Dram,
                to: Medium::Ssd,
                keys: keys(0),
            },
            Request::Contribute(Contribution {
                capacity: UNIT,
                rank: Some(1),
                is_home: true,
                huge_pages: false,
                prefault: false,
                numa_node: None,
            }),
            Request::Detach,
        ],
    ];
    let framed = |request: &Request<'_>| {
        let frame = postcard::to_allocvec(request).expect("a request can be sent");
        [&(frame.len() as u32).to_le_bytes()[..], &frame].concat()
    };
    conversations
        .iter()
        .map(|requests| requests.iter().flat_map(framed).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::wire::{MAGIC, Preamble, VERSION};
    use proptest::prelude::*;

    #[test]
    fn seeds_are_answered_in_full() {
        seeds_of_frames().iter().for_each(|seed| fuzz_frames(seed));
        let preamble = postcard::to_allocvec(&Preamble {
            magic: MAGIC,
            version: VERSION,
        })
        .unwrap();
        fuzz_frames(&preamble);
        fuzz_frames(&[]);
    }

    /// A change of some bytes.
    #[derive(Debug, Clone)]
    enum Change {
        Set(u8),
        Flip(u8),
        Remove(u8),
        Insert(u8),
        Repeat(u8),
    }

    fn change() -> impl Strategy<Value = (u16, Change)> {
        let kind = prop_oneof![
            any::<u8>().prop_map(Change::Set),
            (0..8u8).prop_map(|bit| Change::Flip(1 << bit)),
            (1..9u8).prop_map(Change::Remove),
            any::<u8>().prop_map(Change::Insert),
            (1..40u8).prop_map(Change::Repeat),
        ];
        (any::<u16>(), kind)
    }

    fn apply(bytes: &mut Vec<u8>, place: u16, change: &Change) {
        let place = place as usize % bytes.len().max(1);
        if bytes.is_empty() {
            return;
        }
        match change {
            Change::Set(value) => bytes[place] = *value,
            Change::Flip(bit) => bytes[place] ^= bit,
            Change::Remove(count) => drop(bytes.drain(place..bytes.len().min(place + *count as usize))),
            Change::Insert(value) => bytes.insert(place, *value),
            Change::Repeat(count) => {
                let piece = bytes[place..bytes.len().min(place + *count as usize)].to_vec();
                bytes.splice(place..place, piece);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn frames_that_were_changed_leave_nothing_behind(
            seeds in prop::collection::vec(0..seeds_of_frames().len(), 1..4),
            changes in prop::collection::vec(change(), 0..8),
        ) {
            let all = seeds_of_frames();
            let mut bytes: Vec<u8> = seeds.iter().flat_map(|seed| all[*seed].clone()).collect();
            changes.iter().for_each(|(place, change)| apply(&mut bytes, *place, change));
            fuzz_frames(&bytes);
        }
    }
}
