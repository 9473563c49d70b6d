//! A pool that another process owns: [`Attached`] has the calls of [`crate::store::Store`] with the same meaning.
//!
//! What the metadata says is asked of the owner over a socket ([`link`](mod@link), [`crate::share::wire`]). Memory is mapped here, and copied from and to by
//! this process itself: a put asks for room, copies, and commits; a get asks for the objects, which are pinned for it, copies, and gives them back
//! without waiting for an answer. A batch is one question and one answer each way.
//!
//! Segments are mapped when the pool is attached, and later ones when an address in them first comes up. What is mapped stays so, whatever becomes of
//! the owner: then calls return `Disconnected`, and memory that was pinned can still be read.
//!
//! **Locks**: that of idle connections, that of tokens, that of mapping. Each is a leaf but the last, under which the owner is asked.

mod inplace;
mod link;
mod objects;

use std::borrow::Cow;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use link::{Failure, Haste, Links};

use crate::error::{Error, Result, words};
use crate::log::{Level, say};
use crate::metrics::COUNTERS;
use crate::segment::Medium;
use crate::segment::dram::{Kind, Wishes};
use crate::segment::shared::Shared;
use crate::share::address;
use crate::share::wire::{Contribution, Lent, Reply, Request};
use crate::store::Source;
use crate::store::report::{SegmentView, Statistics};
use crate::store::segments::{Plan, check_capacity};

/// How to attach.
pub(crate) struct Attaching {
    /// The rank of the memory that is brought, or that is near; `None`: the smallest that nobody has.
    pub(crate) rank: Option<u32>,
    /// Bytes of DRAM to bring; 0 for none.
    pub(crate) dram_size: u64,
    /// How that is to be mapped.
    pub(crate) wishes: Wishes,
    /// How long to wait for an owner.
    pub(crate) wait: Duration,
    /// How long to wait for its answer to a call.
    pub(crate) time_out: Duration,
}

impl Default for Attaching {
    fn default() -> Attaching {
        Attaching {
            rank: None,
            dram_size: 0,
            wishes: Wishes {
                kind: Kind::Memfd,
                huge_pages: true,
                prefault: false,
                numa_node: None,
            },
            wait: Duration::ZERO,
            time_out: TIME_OUT,
        }
    }
}

/// A pool that another process owns.
pub(crate) struct Attached {
    links: Links,
    rank: Option<u32>,
    known: ArcSwap<Vec<Known>>,
    mapping: Mutex<()>,
    /// Pins and reservations of the host.
    tokens: Mutex<HashSet<u64>>,
    is_closing: AtomicBool,
}

/// A segment that was heard of.
#[derive(Clone)]
struct Known {
    address: u64,
    capacity: u64,
    /// `None` when it can't be mapped.
    map: Option<Arc<Shared>>,
}

/// What a reply about several elements says.
struct Codes {
    codes: Vec<i32>,
    /// Of a single one that failed.
    words: String,
}

/// The same, of memory.
struct Loans {
    codes: Vec<i32>,
    lent: Vec<Lent>,
    stamp: u64,
    words: String,
}

/// How long to wait for an answer, unless the host says otherwise.
const TIME_OUT: Duration = Duration::from_secs(60);
/// Between two looks whether there is an owner by now.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Attached {
    /// Attaches to the pool at an address.
    pub(crate) fn open(address: &str, attaching: &Attaching) -> Result<Attached> {
        let path = address::path_of(address)?;
        if attaching.dram_size > 0 {
            check_capacity(attaching.dram_size)?;
        }
        let begin = Instant::now();
        let near = attaching.rank.filter(|_| attaching.dram_size == 0);
        let links = loop {
            match Links::connect(&path, near, attaching.time_out) {
                Ok(links) => break links,
                Err(Failure::NoOwner) if begin.elapsed() < attaching.wait => std::thread::sleep(LOOK_AGAIN),
                Err(Failure::NoOwner) => {
                    return Err(Error::Disconnected(words!("no process shares a pool at {address}")));
                }
                Err(Failure::Other(error)) => return Err(error),
            }
        };
        let mut attached = Attached {
            links,
            rank: near,
            known: ArcSwap::from_pointee(Vec::new()),
            mapping: Mutex::new(()),
            tokens: Mutex::new(HashSet::new()),
            is_closing: AtomicBool::new(false),
        };
        if attaching.dram_size > 0 {
            let (_, rank) = attached.contribute(attaching.dram_size, attaching.rank, true, attaching.wishes)?;
            attached.rank = Some(rank);
        }
        attached.learn()?;
        say!(Level::Info, "attached to the pool at {address}");
        Ok(attached)
    }

    /// The rank of the memory that this process has brought, or is near to; `None` when there is none.
    pub(crate) fn rank(&self) -> Option<u32> {
        self.rank
    }

    /// False once it is being closed.
    pub(crate) fn is_serving(&self) -> bool {
        !self.is_closing.load(Ordering::Acquire)
    }

    pub(crate) fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    /// Pins and reservations that are open.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Asks the owner, and gives what `read` makes of the answer; `None` from it is an answer to another question.
    fn ask<T>(&self, haste: Haste, request: &Request<'_>, read: impl FnOnce(Reply<'_>) -> Option<T>) -> Result<T> {
        self.ask_for_file(haste, request, read).map(|(answer, _)| answer)
    }

    /// As [`Attached::ask`]; with the answer comes the descriptor that came with it.
    fn ask_for_file<T>(
        &self,
        haste: Haste,
        request: &Request<'_>,
        read: impl FnOnce(Reply<'_>) -> Option<T>,
    ) -> Result<(T, Option<OwnedFd>)> {
        let mut link = self.links.take()?;
        let mut waiting = self.links.waiting(haste);
        let channel = link.channel();
        let sent = channel.sender.send(&[request], None, &mut waiting);
        let frame = match sent.and_then(|()| channel.receiver.receive(&mut waiting)) {
            Ok(frame) => frame,
            Err(error) => return Err(self.links.break_off(words_of(&error))),
        };
        let answer = match postcard::from_bytes::<Reply<'_>>(frame) {
            Ok(Reply::Failed { code, words }) => return Err(Error::Remote(code, Cow::Owned(words.into_owned()))),
            Ok(reply) => read(reply),
            Err(_) => None,
        };
        match answer {
            Some(answer) => Ok((answer, channel.receiver.take_descriptor())),
            None => Err(self.links.not_understood()),
        }
    }

    /// Tells the owner something that it does not answer.
    fn tell(&self, request: &Request<'_>) {
        let Ok(mut link) = self.links.take() else { return };
        let mut waiting = self.links.waiting(Haste::Short);
        if let Err(error) = link.channel().sender.send(&[request], None, &mut waiting) {
            let _ = self.links.break_off(words_of(&error));
        }
    }

    fn ask_for_codes(&self, haste: Haste, request: &Request<'_>) -> Result<Codes> {
        self.ask(haste, request, |reply| match reply {
            Reply::Codes { codes, words } => Some(Codes {
                codes,
                words: words.into_owned(),
            }),
            _ => None,
        })
    }

    fn ask_for_loans(&self, request: &Request<'_>) -> Result<Loans> {
        self.ask(Haste::Short, request, |reply| match reply {
            Reply::Lent {
                codes,
                lent,
                stamp,
                words,
            } if codes.iter().filter(|code| **code == 0).count() == lent.len() => Some(Loans {
                codes,
                lent,
                stamp,
                words: words.into_owned(),
            }),
            _ => None,
        })
    }

    // Memory

    /// The mapping that has these bytes.
    fn memory(&self, lent: &Lent) -> Result<Arc<Shared>> {
        let known = self.segment_with(lent.address)?.and_then(|known| known.map);
        known
            .filter(|map| map.pointer(lent.address, lent.size).is_some())
            .ok_or_else(|| Error::Internal(words!("address {:#x}: it can't be mapped here", lent.address)))
    }

    /// Where this process has what begins at a pool address, if it can have it.
    fn pointer(&self, address: u64, bytes: u64) -> Result<Option<*mut u8>> {
        let known = self.segment_with(address)?;
        Ok(known.and_then(|known| known.map?.pointer(address, bytes)))
    }

    fn segment_with(&self, address: u64) -> Result<Option<Known>> {
        let find = || {
            let known = self.known.load();
            let found = known.iter().find(|known| known.has(address));
            found.cloned()
        };
        if let Some(found) = find() {
            return Ok(Some(found));
        }
        self.learn()?;
        Ok(find())
    }

    /// Learns which segments there are, maps those that are new, and lets those go that are no more.
    fn learn(&self) -> Result<Vec<SegmentView>> {
        let _mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = self.ask(Haste::Short, &Request::ListSegments, |reply| match reply {
            Reply::Segments(segments) => Some(segments),
            _ => None,
        })?;
        let before = self.known.load_full();
        let mut now = Vec::with_capacity(listed.len());
        for segment in &listed {
            let (address, capacity) = (segment.address, segment.capacity);
            let is_same = |known: &&Known| known.address == address && known.capacity == capacity;
            let known = match before.iter().find(is_same) {
                Some(known) => known.clone(),
                None => Known {
                    address,
                    capacity,
                    map: match segment.is_shareable {
                        true => self.map(address)?,
                        false => None,
                    },
                },
            };
            now.push(known);
        }
        self.known.store(Arc::new(now));
        Ok(listed)
    }

    /// Maps a segment; `None` when it has gone meanwhile.
    fn map(&self, address: u64) -> Result<Option<Arc<Shared>>> {
        let asked = self.ask_for_file(Haste::Short, &Request::Map { address }, |reply| match reply {
            Reply::Memfd { address, capacity } => Some((address, capacity)),
            _ => None,
        });
        match asked {
            Ok(((address, capacity), Some(file))) => Ok(Some(Arc::new(Shared::new(file, address, capacity)?))),
            Ok((_, None)) => Err(self.links.break_off("a segment came without its memory".into())),
            Err(Error::Remote(..)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn contribute(&self, capacity: u64, rank: Option<u32>, is_home: bool, wishes: Wishes) -> Result<(u64, u32)> {
        let contribution = Contribution {
            capacity,
            rank,
            is_home,
            huge_pages: wishes.huge_pages,
            prefault: wishes.prefault,
            numa_node: wishes.numa_node,
        };
        self.ask(Haste::Long, &Request::Contribute(contribution), |reply| match reply {
            Reply::Contributed { address, rank } => Some((address, rank)),
            _ => None,
        })
    }

    /// Brings a DRAM segment to the pool, which the owner maps as a memfd.
    pub(crate) fn register_segment(&self, plan: &Plan, source: Source) -> Result<u64> {
        let (Medium::Dram, Source::Map(wishes)) = (plan.medium, source) else {
            return Err(Error::Unsupported(words!(
                "{} segment: an attached process brings DRAM that the library maps, and nothing else",
                plan.medium.name()
            )));
        };
        check_capacity(plan.capacity)?;
        Ok(self.contribute(plan.capacity, Some(plan.rank), false, wishes)?.0)
    }

    /// Takes a segment away that this process has brought.
    pub(crate) fn unregister_segment(&self, address: u64) -> Result<()> {
        self.ask(Haste::Long, &Request::Withdraw { address }, done)?;
        self.learn().map(drop)
    }

    // What there is to show

    pub(crate) fn list_segments(&self) -> Result<Vec<SegmentView>> {
        self.learn()
    }

    pub(crate) fn statistics(&self) -> Result<(Statistics, [u64; COUNTERS])> {
        self.ask(Haste::Short, &Request::Statistics, |reply| match reply {
            Reply::Statistics { levels, totals } => Some((levels, totals.try_into().ok()?)),
            _ => None,
        })
    }

    /// Where the owner's admin port listens, "" when it is off.
    pub(crate) fn http_address(&self) -> Result<String> {
        self.ask(Haste::Short, &Request::HttpAddress, |reply| match reply {
            Reply::Text(text) => Some(text.into_owned()),
            _ => None,
        })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Should the owner not hear of it, it hears of the end of the process.
        let _ = self.ask(Haste::Short, &Request::Detach, done);
        let _ = self.links.break_off("it was closed".into());
    }
}

impl Known {
    fn has(&self, address: u64) -> bool {
        address
            .checked_sub(self.address)
            .is_some_and(|offset| offset < self.capacity)
    }
}

impl Codes {
    /// Of a single element.
    fn single(self) -> Result<()> {
        match self.codes[..] {
            [0] => Ok(()),
            [code] => Err(Error::Remote(code, self.words.into())),
            _ => Err(Error::Internal("an answer of another size".into())),
        }
    }
}

fn done(reply: Reply<'_>) -> Option<()> {
    matches!(reply, Reply::Done).then_some(())
}

fn words_of(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => {
            "the process that owns it has closed it, or has gone".into()
        }
        std::io::ErrorKind::TimedOut => "the process that owns it does not answer".into(),
        _ => format!("the connection broke: {error}"),
    }
}
