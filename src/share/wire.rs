//! The protocol between the process that owns a pool and those that are attached: what is asked, what is answered.
//!
//! **Frames.** Each message is a frame: four bytes, little-endian, of how many follow, and then the message as `postcard` writes it (little-endian
//! and varints; <https://postcard.jamesmunns.com/wire-format>). Postcard is made for small messages between programs: its format is
//! written down and final, it borrows strings from what was received, it never allocates more than the bytes that are there could fill, and it
//! knows no pointers, alignment or padding that a peer could forge (`rkyv` maps what it was sent), nor a format that changes with its
//! versions (`bincode`). A frame is at most [`MAX_FRAME`] bytes.
//!
//! **The first frame** of either side begins with a [`Preamble`], which is the same in every version, so that a peer of another one can be told
//! so in words. What follows it is a [`Hello`] and a [`Welcome`]. From then on each [`Request`] gets one [`Reply`], but for
//! [`Request::Release`], which gets none. Bytes of objects are never in a frame.
//!
//! **What a token is.** The owner's name for memory that a process reads or writes; only the connection's own process can use it. Memory is
//! named by pool addresses, which are the same for everyone.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::segment::Medium;
use crate::segment::device::Direction;
use crate::store::report::{SegmentView, Statistics};

/// The version of the protocol. It changes with every change of the messages.
pub(crate) const VERSION: u32 = 1;
/// What every first frame begins with.
pub(crate) const MAGIC: [u8; 4] = *b"mmc\0";
/// Bytes of the longest frame: a batch of as many keys as there may be, each as long as it may be, and as many copies of each.
pub(crate) const MAX_FRAME: usize = 16 << 20;
/// Most elements of a batch.
pub(crate) const MAX_ELEMENTS: usize = 16384;

/// Begins the first frame of either side.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Preamble {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
}

/// Who attaches.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The session that this is one more connection of.
    pub(crate) session: Option<u64>,
    /// The rank that the process wants to be near to.
    pub(crate) rank: Option<u32>,
}

/// What follows the owner's preamble.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Welcome<'a> {
    Attached {
        session: u64,
    },
    /// With the reason, in words. It is the same in every version.
    Refused(Cow<'a, str>),
}

/// Keys of a batch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Keys<'a> {
    pub(crate) flags: u32,
    #[serde(borrow, deserialize_with = "bounded")]
    pub(crate) keys: Vec<&'a str>,
}

/// Tokens of a batch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tokens {
    #[serde(deserialize_with = "bounded")]
    pub(crate) tokens: Vec<u64>,
}

/// A key and bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sized<'a> {
    pub(crate) key: &'a str,
    pub(crate) size: u64,
}

/// Where objects are put.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Placement {
    pub(crate) replicas: u8,
    #[serde(deserialize_with = "bounded")]
    pub(crate) preferred: Vec<u32>,
    pub(crate) medium: Option<Medium>,
}

/// Elements of a batch of puts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Room<'a> {
    pub(crate) placement: Placement,
    #[serde(borrow, deserialize_with = "bounded")]
    pub(crate) elements: Vec<Sized<'a>>,
    /// The number of the first of them in the batch.
    pub(crate) begin: u32,
    /// Elements of the whole batch.
    pub(crate) count: u32,
    /// What the reply to the batch's first request said.
    pub(crate) stamp: Option<u64>,
}

/// Bytes by their pool address.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) address: u64,
    pub(crate) size: u64,
}

/// DRAM that a process brings.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Contribution {
    pub(crate) capacity: u64,
    /// `None`: the smallest that nobody has.
    pub(crate) rank: Option<u32>,
    /// The rank is the process's own from then on.
    pub(crate) is_home: bool,
    pub(crate) huge_pages: bool,
    pub(crate) prefault: bool,
    pub(crate) numa_node: Option<u32>,
}

/// What is asked. Each is what the function of `include/mmc.h` of that name asks, where there is one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    #[serde(borrow)]
    Exist(Keys<'a>),
    PrefixLen(Keys<'a>),
    Query(Keys<'a>),
    Remove(Keys<'a>),
    RemoveAll,
    /// A page of keys.
    ListKeys {
        from: u32,
    },
    /// Room for objects that are then committed: as many as the reply has codes.
    Put(Room<'a>),
    Reserve {
        placement: Placement,
        term: u64,
        #[serde(borrow, deserialize_with = "bounded")]
        elements: Vec<Sized<'a>>,
    },
    Commit(Tokens),
    Abort(Tokens),
    /// Objects to be read: each with the bytes that there is room for.
    Get {
        flags: u32,
        #[serde(borrow, deserialize_with = "bounded")]
        elements: Vec<Sized<'a>>,
    },
    Pin(Keys<'a>),
    Unpin(Tokens),
    /// Gives back what these tokens stand for, of any kind. It gets no reply.
    Release(Tokens),
    /// Bytes to be read, or written.
    Copy {
        direction: Direction,
        #[serde(deserialize_with = "bounded")]
        ranges: Vec<Range>,
    },
    AddLease {
        term: u64,
        keys: Keys<'a>,
    },
    RemoveLease(Keys<'a>),
    /// `mmc_evict` and `mmc_prefetch`.
    Move {
        from: Medium,
        to: Medium,
        keys: Keys<'a>,
    },
    ListSegments,
    /// The memfd of the segment that has this address.
    Map {
        address: u64,
    },
    Contribute(Contribution),
    Withdraw {
        address: u64,
    },
    Statistics,
    HttpAddress,
    /// The last one: the process is done.
    Detach,
}

/// Memory that a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lent {
    pub(crate) token: u64,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

/// A copy of an object.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) medium: Medium,
    pub(crate) rank: u32,
    pub(crate) address: u64,
}

/// An object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) size: u64,
    pub(crate) is_readable: bool,
    pub(crate) leases: u32,
    pub(crate) blobs: Vec<Blob>,
}

/// Reads a list of a batch, and no longer one: what a frame has room for takes a multiple of it as a list.
fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Bounded<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "a list of at most {MAX_ELEMENTS} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let count = elements.size_hint().unwrap_or(0);
            if count > MAX_ELEMENTS {
                return Err(A::Error::invalid_length(count, &self));
            }
            let mut list = Vec::with_capacity(count);
            while let Some(element) = elements.next_element()? {
                if list.len() == MAX_ELEMENTS {
                    return Err(A::Error::invalid_length(list.len() + 1, &self));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Bounded(PhantomData))
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply<'a> {
    Done,
    /// The whole call failed: a code of the C ABI and its sentence.
    Failed {
        code: i32,
        #[serde(borrow)]
        words: Cow<'a, str>,
    },
    /// A code for each element, and of a single one the sentence.
    Codes {
        codes: Vec<i32>,
        words: Cow<'a, str>,
    },
    /// A code for each element, memory for those whose code is 0, and the batch's stamp.
    Lent {
        codes: Vec<i32>,
        lent: Vec<Lent>,
        stamp: u64,
        words: Cow<'a, str>,
    },
    /// A code for each element, and the objects whose code is 0.
    Objects {
        codes: Vec<i32>,
        objects: Vec<Shown>,
        words: Cow<'a, str>,
    },
    Number(u64),
    Keys {
        keys: Vec<Cow<'a, str>>,
        next: Option<u32>,
    },
    Segments(Vec<SegmentView>),
    /// The memfd comes with the frame.
    Memfd {
        address: u64,
        capacity: u64,
    },
    Contributed {
        address: u64,
        rank: u32,
    },
    Statistics {
        levels: Statistics,
        totals: Vec<u64>,
    },
    Text(Cow<'a, str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(request: &Request<'_>) -> Vec<u8> {
        postcard::to_allocvec(request).unwrap()
    }

    #[test]
    fn a_list_is_as_long_as_a_batch_may_be_and_no_longer() {
        let placement = |preferred| Placement {
            replicas: 1,
            preferred,
            medium: None,
        };
        let element = Sized { key: "k", size: 1 };
        let range = Range { address: 1, size: 1 };
        for (count, is_read) in [(0, true), (MAX_ELEMENTS, true), (MAX_ELEMENTS + 1, false)] {
            let keys = || Keys {
                flags: 0,
                keys: vec!["k"; count],
            };
            let room = |preferred, count| Room {
                placement: placement(preferred),
                elements: vec![element; count],
                begin: 0,
                count: 1,
                stamp: None,
            };
            for request in [
                Request::Exist(keys()),
                Request::AddLease { term: 1, keys: keys() },
                Request::Commit(Tokens { tokens: vec![1; count] }),
                Request::Put(room(vec![], count)),
                Request::Put(room(vec![0; count], 1)),
                Request::Get {
                    flags: 0,
                    elements: vec![element; count],
                },
                Request::Copy {
                    direction: Direction::FromSegment,
                    ranges: vec![range; count],
                },
            ] {
                let bytes = encoded(&request);
                assert_eq!(
                    postcard::from_bytes::<Request<'_>>(&bytes).is_ok(),
                    is_read,
                    "{count} elements"
                );
            }
        }
    }

    #[test]
    fn a_length_that_was_made_up_takes_no_memory() {
        // A list of tokens that says that it has 2^60 of them.
        let mut bytes = encoded(&Request::Commit(Tokens { tokens: vec![] }));
        bytes.pop();
        bytes.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
        assert!(postcard::from_bytes::<Request<'_>>(&bytes).is_err());
    }

    #[test]
    fn the_largest_batch_fits_into_a_frame() {
        let key = "k".repeat(256);
        let elements = vec![
            Sized {
                key: &key,
                size: u64::MAX
            };
            MAX_ELEMENTS
        ];
        let get = encoded(&Request::Get {
            flags: u32::MAX,
            elements,
        });
        assert!(get.len() <= MAX_FRAME, "{} bytes", get.len());
        let blob = Blob {
            medium: Medium::Ssd,
            rank: u32::MAX,
            address: u64::MAX,
        };
        let object = Shown {
            size: u64::MAX,
            is_readable: true,
            leases: u32::MAX,
            blobs: vec![blob; 8],
        };
        let shown = postcard::to_allocvec(&Reply::Objects {
            codes: vec![i32::MIN; MAX_ELEMENTS],
            objects: vec![object; MAX_ELEMENTS],
            words: "".into(),
        });
        let bytes = shown.unwrap().len();
        assert!(bytes <= MAX_FRAME, "{bytes} bytes");
    }
}
