//! One attached process: what it has, and the answers to what it asks.
//!
//! A session is fed frames and gives frames; it knows no socket. Every number in a frame is checked here: keys, flags and counts as at the C ABI,
//! and tokens against the list of what this very process has, so that nothing that it sends can end what another holds, or reach memory
//! that is not the pool's.

use std::borrow::Cow;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use super::holdings::{Everything, Holdings};
use super::wire::{
    Blob, Contribution, Keys, Lent, MAX_ELEMENTS, Placement, Range, Reply, Request, Room, Shown, Sized, Tokens,
};
use crate::error::{Error, Result, invalid, words};
use crate::evict::Turn;
use crate::key::Key;
use crate::segment::Medium;
use crate::store::guest::{Batch, Loan, Wanted};
use crate::store::inplace::View;
use crate::store::migrate::Way;
use crate::store::place::{Guest, PutOptions};
use crate::store::report::ObjectView;
use crate::store::{GET_UP_TO, PEEK, QUERY_RESERVED, Store, check_flags};

/// What is done about the memory of processes; the host does it.
pub(super) trait Memory {
    /// Maps a segment for a session's process, or hands over one that waits for it: its address and rank.
    fn contribute(&self, session: &Session, contribution: &Contribution) -> Result<(u64, u32)>;
    /// Withdraws a segment that the session's process has brought.
    fn withdraw(&self, session: &Session, address: u64) -> Result<()>;
    /// Where the admin port listens, "" when it is off.
    fn http_address(&self) -> String;
}

/// What to do with the answer to a frame.
pub(super) enum Answer {
    /// It is in the reply.
    Reply,
    /// With this file.
    ReplyWith(Arc<File>),
    /// Nothing is sent.
    None,
    /// It is in the reply, and nothing comes after it.
    Last,
}

/// See the module's text.
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) pid: i32,
    rank: Mutex<Option<u32>>,
    holdings: Holdings<Loan>,
}

/// What a token of memory that is written is called.
const RESERVATION: &str = "reservation";

impl Session {
    pub(super) fn new(number: u64, pid: i32, rank: Option<u32>) -> Session {
        Session {
            number,
            pid,
            rank: Mutex::new(rank),
            holdings: Holdings::new(),
        }
    }

    pub(super) fn rank(&self) -> Option<u32> {
        *self.rank.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_rank(&self, rank: u32) {
        *self.rank.lock().unwrap_or_else(PoisonError::into_inner) = Some(rank);
    }

    /// Its connection has broken. The segments that its process had brought, for others to take over.
    pub(super) fn make_void(&self) -> Vec<u64> {
        self.holdings.make_void()
    }

    /// Ends it when it is void and has nothing; whether it has ended.
    pub(super) fn end_if_empty(&self) -> bool {
        self.holdings.end_if_empty()
    }

    /// Its process has gone, or is done: everything goes back. The segments that it had brought.
    pub(super) fn end(&self, store: &Store) -> Vec<u64> {
        let Everything {
            loans,
            leases,
            segments,
        } = self.holdings.end();
        loans.into_values().for_each(|loan| store.end_loan(loan));
        leases.into_iter().for_each(|lease| store.end_lease_of(lease));
        segments
    }

    pub(super) fn is_attached(&self) -> bool {
        self.holdings.is_attached()
    }

    /// Notes a segment that its process has brought; false when that is no longer attached.
    pub(super) fn add_segment(&self, address: u64) -> bool {
        self.holdings.add_segment(address)
    }

    /// Takes a segment off the list; whether it was there.
    pub(super) fn take_segment(&self, address: u64) -> bool {
        self.holdings.take_segment(address)
    }

    /// Notes a loan and gives its token.
    fn keep(&self, store: &Store, loan: Loan) -> Result<u64> {
        self.holdings.keep(loan).map_err(|loan| {
            store.end_loan(loan);
            Error::OutOfMemory("no memory for one more token".into())
        })
    }

    /// Takes the loan of a token of this kind. `what` the token is said to be.
    fn take(&self, what: &str, token: u64, is_kind: impl Fn(&Loan) -> bool) -> Result<Loan> {
        let loan = self.holdings.take(token, is_kind);
        loan.ok_or_else(|| Error::Unknown(words!("{what} {token:#x}: never given, or ended already")))
    }

    fn keep_lease(&self, store: &Store, lease: u64) {
        if !self.holdings.keep_lease(lease, |lease| store.is_leased(lease)) {
            // Not held is what a lease is after its end.
            store.end_lease_of(lease);
        }
    }

    fn guest(&self) -> Guest {
        Guest { rank: self.rank() }
    }

    /// Answers a frame. An error is of the frame itself: the peer does not speak the protocol.
    pub(super) fn answer<'a>(
        &self,
        store: &Store,
        memory: &dyn Memory,
        frame: &'a [u8],
    ) -> std::result::Result<(Reply<'a>, Answer), postcard::Error> {
        let request: Request<'a> = postcard::from_bytes(frame)?;
        Ok(self.carry_out(store, memory, request).unwrap_or_else(|error| {
            let failed = Reply::Failed {
                code: error.code(),
                words: Cow::Owned(error.to_string()),
            };
            (failed, Answer::Reply)
        }))
    }

    fn carry_out<'a>(&self, store: &Store, memory: &dyn Memory, request: Request<'a>) -> Result<(Reply<'a>, Answer)> {
        let reply = match request {
            Request::Exist(keys) => exist(store, &keys)?,
            Request::PrefixLen(keys) => {
                check_flags(keys.flags, PEEK)?;
                let key = |number: usize| Key::new(keys.keys[number].as_bytes());
                Reply::Number(store.prefix_len(keys.keys.len(), key, keys.flags)? as u64)
            }
            Request::Query(keys) => query(store, &keys)?,
            Request::Remove(keys) => {
                check_flags(keys.flags, 0)?;
                codes(
                    &keys.keys,
                    |key| store.remove(&key),
                    |key, codes| store.batch_remove(key, codes),
                )
            }
            Request::RemoveAll => Reply::Number(store.remove_all()),
            Request::ListKeys { from } => {
                let mut keys = Vec::new();
                let next = store.page_of_keys(from, |key| {
                    keys.push(String::from_utf8_lossy(key.bytes()).into_owned().into())
                });
                Reply::Keys { keys, next }
            }
            Request::Put(room) => self.put(store, &room)?,
            Request::Reserve {
                placement,
                term,
                elements,
            } => self.reserve(store, &placement, term, &elements)?,
            Request::Commit(Tokens { tokens }) => self.commit(store, &tokens)?,
            Request::Abort(Tokens { tokens }) => self.end_each(store, RESERVATION, &tokens, |loan| {
                matches!(loan, Loan::Room { .. } | Loan::Passage { .. })
            })?,
            Request::Get { flags, elements } => {
                check_flags(flags, PEEK | GET_UP_TO)?;
                let wanted = |number: usize| (elements[number].key, Some(elements[number].size));
                self.lend_objects(store, elements.len(), flags, wanted)
            }
            Request::Pin(keys) => {
                check_flags(keys.flags, PEEK)?;
                self.lend_objects(store, keys.keys.len(), keys.flags, |number| (keys.keys[number], None))
            }
            Request::Unpin(Tokens { tokens }) => self.end_each(store, "pin", &tokens, |loan| {
                matches!(loan, Loan::Pin { .. } | Loan::Copy { .. })
            })?,
            Request::Release(Tokens { tokens }) => {
                for token in tokens {
                    // One that is void is of no use to the peer either.
                    let _ = self.take("token", token, |_| true).map(|loan| store.end_loan(loan));
                }
                return Ok((Reply::Done, Answer::None));
            }
            Request::Copy { direction, ranges } => self.lend(ranges.len(), 0, |number| {
                let Range { address, size } = ranges[number];
                if address == 0 || size == 0 {
                    return Err(invalid!("range {number}: neither its address nor its size may be 0"));
                }
                let (view, loan) = store.lend_range(address, size, direction, self.guest())?;
                self.noted(store, view, loan)
            }),
            Request::AddLease {
                term,
                keys: Keys { flags, keys },
            } => {
                check_flags(flags, 0)?;
                self.each(keys.len(), |number| {
                    let lease = store.lease_for(&Key::new(keys[number].as_bytes())?, term)?;
                    self.keep_lease(store, lease);
                    Ok(())
                })
            }
            Request::RemoveLease(Keys { flags, keys }) => {
                check_flags(flags, 0)?;
                codes(
                    &keys,
                    |key| store.remove_lease(&key),
                    |key, codes| store.batch_remove_lease(key, codes),
                )
            }
            Request::Move {
                from,
                to,
                keys: Keys { flags, keys },
            } => {
                check_flags(flags, 0)?;
                let mut codes = vec![0; keys.len()];
                let key = |number: usize| Key::new(keys[number].as_bytes());
                match from < to {
                    true => store.batch_evict(key, Way::down(from, to)?, &mut codes)?,
                    false => store.batch_prefetch(key, Way::up(from, to)?, &mut codes)?,
                }
                Reply::Codes {
                    codes,
                    words: "".into(),
                }
            }
            Request::ListSegments => Reply::Segments(store.list_segments().collect()),
            Request::Map { address } => {
                let segment = &store.segments.containing(address)?.segment;
                let file = segment
                    .memfd()
                    .ok_or_else(|| Error::Unsupported(words!("segment {:#x} is not a memfd", segment.address)))?;
                let (address, capacity) = (segment.address, segment.capacity);
                return Ok((Reply::Memfd { address, capacity }, Answer::ReplyWith(file)));
            }
            Request::Contribute(contribution) => {
                let (address, rank) = memory.contribute(self, &contribution)?;
                Reply::Contributed { address, rank }
            }
            Request::Withdraw { address } => {
                memory.withdraw(self, address)?;
                Reply::Done
            }
            Request::Statistics => {
                store.sweep();
                Reply::Statistics {
                    levels: store.statistics(),
                    totals: store.totals().into(),
                }
            }
            Request::HttpAddress => Reply::Text(memory.http_address().into()),
            Request::Detach => return Ok((Reply::Done, Answer::Last)),
        };
        Ok((reply, Answer::Reply))
    }

    fn put<'a>(&self, store: &Store, room: &Room<'_>) -> Result<Reply<'a>> {
        let count = room.elements.len();
        if room.count as usize > MAX_ELEMENTS || room.begin as usize + count > room.count as usize {
            return Err(invalid!(
                "elements {} to {} of {}",
                room.begin,
                room.begin as usize + count,
                room.count
            ));
        }
        let options = self.options(&room.placement)?;
        let batch = Batch {
            stamp: store.stamp_of_batch(room.stamp),
            begin: room.begin as usize,
            count: room.count as usize,
        };
        let (mut codes, mut lent, mut failure) = (vec![0; count], Vec::with_capacity(count), None);
        let mut unkept = Vec::new();
        let taken = store.lend_room(
            &batch,
            |number| element(&room.elements[number]),
            &options,
            &mut codes,
            |number, view, loan| match self.noted(store, view, loan) {
                Ok(one) => lent.push(one),
                Err(error) => unkept.push((number, error.code())),
            },
            |_, error| failure = (count == 1).then(|| error.to_string()),
        );
        unkept.into_iter().for_each(|(number, code)| codes[number] = code);
        codes.truncate(taken);
        Ok(Reply::Lent {
            codes,
            lent,
            stamp: batch.stamp,
            words: failure.unwrap_or_default().into(),
        })
    }

    fn reserve<'a>(
        &self,
        store: &Store,
        placement: &Placement,
        term: u64,
        elements: &[Sized<'_>],
    ) -> Result<Reply<'a>> {
        let options = self.options(placement)?;
        if let Some(medium @ (Medium::Hbm | Medium::Ssd)) = options.medium {
            return Err(Error::Unsupported(words!(
                "a reservation in {} by an attached process, which can't write there",
                medium.name()
            )));
        }
        Ok(self.lend(elements.len(), 0, |number| {
            let (key, size) = element(&elements[number])?;
            let view = store.reserve(&key, size, &options, term)?;
            let (token, turn) = (view.token, None);
            self.noted(store, view, Loan::Room { token, turn })
        }))
    }

    fn commit<'a>(&self, store: &Store, tokens: &[u64]) -> Result<Reply<'a>> {
        let stamp = store.stamp_of_batch(None);
        Ok(self.each(tokens.len(), |number| {
            let is_written = |loan: &Loan| matches!(loan, Loan::Room { .. } | Loan::Passage { .. });
            let token = tokens[number];
            let loan = self.take(RESERVATION, token, is_written)?;
            let published = store.publish_loan(loan, Turn::in_batch(stamp, number, tokens.len()));
            published.map_err(|error| match error {
                // By the token that the process knows.
                Error::Timeout(_) => Error::Timeout(words!(
                    "reservation {token:#x}: its term had passed, the key is free again"
                )),
                error => error,
            })
        }))
    }

    fn end_each<'a>(
        &self,
        store: &Store,
        what: &str,
        tokens: &[u64],
        is_kind: impl Fn(&Loan) -> bool,
    ) -> Result<Reply<'a>> {
        Ok(self.each(tokens.len(), |number| {
            store.end_loan(self.take(what, tokens[number], &is_kind)?);
            Ok(())
        }))
    }

    fn lend_objects<'a, 'k>(
        &self,
        store: &Store,
        count: usize,
        flags: u32,
        wanted: impl Fn(usize) -> (&'k str, Option<u64>),
    ) -> Reply<'a> {
        let stamp = store.stamp_of_batch(None);
        let wanted = (0..count).map(|position| {
            let (key, room) = wanted(position);
            Ok(Wanted {
                key: Key::new(key.as_bytes())?,
                flags,
                position,
                room,
            })
        });
        let wanted: Vec<Result<Wanted<'_>>> = wanted.collect();
        let mut lent = store.lend_objects(&wanted, self.guest()).into_iter();
        self.lend(count, stamp, |_| {
            let (view, loan) = lent.next().expect("as many as were wanted")?;
            self.noted(store, view, loan)
        })
    }

    /// Notes a loan, for the reply.
    fn noted(&self, store: &Store, view: View, loan: Loan) -> Result<Lent> {
        Ok(Lent {
            token: self.keep(store, loan)?,
            address: view.address,
            size: view.size,
        })
    }

    /// Lends something for each of `count` elements.
    fn lend<'a>(&self, count: usize, stamp: u64, mut act: impl FnMut(usize) -> Result<Lent>) -> Reply<'a> {
        let mut lent = Vec::with_capacity(count);
        let reply = self.each(count, |number| {
            lent.push(act(number)?);
            Ok(())
        });
        let Reply::Codes { codes, words } = reply else {
            return reply;
        };
        Reply::Lent {
            codes,
            lent,
            stamp,
            words,
        }
    }

    /// Does `act` for each of `count` elements: a code for each, and of a single one the sentence.
    fn each<'a>(&self, count: usize, mut act: impl FnMut(usize) -> Result<()>) -> Reply<'a> {
        let mut words = Cow::Borrowed("");
        let mut code_of = |number| match act(number) {
            Ok(()) => 0,
            Err(error) => {
                if count == 1 {
                    words = error.to_string().into();
                }
                error.code()
            }
        };
        let codes = (0..count).map(&mut code_of).collect();
        Reply::Codes { codes, words }
    }

    fn options<'p>(&self, placement: &'p Placement) -> Result<PutOptions<'p>> {
        let options = PutOptions {
            replicas: placement.replicas.into(),
            preferred: &placement.preferred,
            medium: placement.medium,
            stream: 0,
            guest: Some(self.guest()),
        };
        options.check()?;
        Ok(options)
    }
}

fn exist<'a>(store: &Store, keys: &Keys<'_>) -> Result<Reply<'a>> {
    check_flags(keys.flags, PEEK)?;
    Ok(codes(
        &keys.keys,
        |key| store.exist(&key, keys.flags),
        |key, codes| store.batch_exist(key, keys.flags, codes),
    ))
}

fn query<'a>(store: &Store, keys: &Keys<'_>) -> Result<Reply<'a>> {
    check_flags(keys.flags, PEEK | QUERY_RESERVED)?;
    let mut objects = Vec::new();
    let reply = codes(
        &keys.keys,
        |key| {
            objects.push(shown(&store.query_one(&key, keys.flags)?));
            Ok(())
        },
        |_, _| {},
    );
    let Reply::Codes { mut codes, words } = reply else {
        return Ok(reply);
    };
    if keys.keys.len() > 1 {
        let key = |number: usize| Key::new(keys.keys[number].as_bytes());
        store.batch_query(key, keys.flags, &mut codes, |_, view| objects.push(shown(view)));
    }
    Ok(Reply::Objects { codes, objects, words })
}

fn shown(view: &ObjectView) -> Shown {
    let blobs = view.blobs.iter().flatten();
    Shown {
        size: view.size,
        is_readable: view.is_readable,
        leases: view.leases,
        blobs: blobs
            .map(|blob| Blob {
                medium: blob.medium,
                rank: blob.rank,
                address: blob.address,
            })
            .collect(),
    }
}

/// The codes of a call for these keys: of `one` for a single one, with its sentence, and of `many` else.
fn codes<'a, 'k>(
    keys: &[&'k str],
    one: impl FnOnce(Key<'k>) -> Result<()>,
    many: impl FnOnce(&dyn Fn(usize) -> Result<Key<'k>>, &mut [i32]),
) -> Reply<'a> {
    let mut words = Cow::Borrowed("");
    let mut codes = vec![0; keys.len()];
    let key = |number: usize| Key::new(keys[number].as_bytes());
    match codes.as_mut_slice() {
        [code] => {
            if let Err(error) = key(0).and_then(one) {
                (*code, words) = (error.code(), error.to_string().into());
            }
        }
        codes => many(&key, codes),
    }
    Reply::Codes { codes, words }
}

fn element<'a>(element: &Sized<'a>) -> Result<(Key<'a>, u64)> {
    Ok((Key::new(element.key.as_bytes())?, element.size))
}
