//! Records: what happened to the copies of a segment, as bytes.
//!
//! A record is a [`Head`], for a put a [`Body`] and the key behind it, all little-endian and without gaps: `zerocopy` checks that the
//! structs have neither padding nor a byte order of the machine's, so they *are* the format. The length follows from kind and
//! key, and the checksum of the head covers all that follows it, so a record is whole or it is none.
//!
//! The checksum is seeded with the number of the data file: a record that some other state file left in a block of the disk is none.

use std::collections::TryReserveError;

use xxhash_rust::xxh3::xxh3_64_with_seed;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::key::MAX_KEY_BYTES;

/// The longest record.
#[cfg(test)]
pub(super) const MAX_RECORD_BYTES: usize = HEAD_BYTES + BODY_BYTES + MAX_KEY_BYTES;

const HEAD_BYTES: usize = size_of::<Head>();
const BODY_BYTES: usize = size_of::<Body>();
const CHECKSUM_BYTES: usize = size_of::<U64>();

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const USE: u8 = 3;

/// What every record begins with.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    /// XXH3 of everything behind it.
    checksum: U64,
    /// The last use: a place in the order of eviction of the opening in which it happened.
    used: U64,
    opening: U32,
    /// First unit of the copy.
    unit: U32,
    key_bytes: U16,
    kind: u8,
    /// Zero, so that the body begins at a multiple of 8.
    rest: [u8; 5],
}

/// What a put has besides.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Body {
    size: U64,
    data_checksum: U64,
}

const _: () = assert!(HEAD_BYTES == 32 && BODY_BYTES == 16);

/// When a copy was last used: places are comparable within one opening of the state, and a later opening is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Used {
    pub(super) opening: u32,
    pub(super) place: u64,
}

/// A copy that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written<'a> {
    pub(crate) key: &'a [u8],
    /// First unit.
    pub(crate) unit: u32,
    /// Bytes of the object.
    pub(crate) size: u64,
    /// Checksum of those bytes.
    pub(crate) checksum: u64,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Put(Written<'a>, Used),
    Remove { unit: u32 },
    Use { unit: u32, used: Used },
}

/// What the bytes at some place of a file are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded<'a> {
    /// A record, and its length in bytes.
    Whole(Record<'a>, usize),
    /// The beginning of one, or less.
    Short,
    /// None.
    Bad,
}

impl Record<'_> {
    /// Appends the record's bytes; without memory for them nothing has changed.
    pub(super) fn encode(&self, file: u64, into: &mut Vec<u8>) -> Result<(), TryReserveError> {
        let none = Used { opening: 0, place: 0 };
        let (kind, unit, used, written) = match *self {
            Record::Put(written, used) => (PUT, written.unit, used, Some(written)),
            Record::Remove { unit } => (REMOVE, unit, none, None),
            Record::Use { unit, used } => (USE, unit, used, None),
        };
        let key = written.map_or(&[][..], |written| written.key);
        into.try_reserve(HEAD_BYTES + BODY_BYTES + key.len())?;
        let start = into.len();
        let head = Head {
            checksum: U64::ZERO,
            used: used.place.into(),
            opening: used.opening.into(),
            unit: unit.into(),
            // A valid key is far below 64 KiB.
            key_bytes: (key.len() as u16).into(),
            kind,
            rest: [0; 5],
        };
        into.extend_from_slice(head.as_bytes());
        if let Some(Written { size, checksum, .. }) = written {
            let body = Body {
                size: size.into(),
                data_checksum: checksum.into(),
            };
            into.extend_from_slice(body.as_bytes());
            into.extend_from_slice(key);
        }
        let behind = start + CHECKSUM_BYTES;
        let checksum = xxh3_64_with_seed(&into[behind..], file);
        into[start..behind].copy_from_slice(U64::new(checksum).as_bytes());
        Ok(())
    }
}

/// Reads the record that `bytes` begins with.
pub(super) fn decode(bytes: &[u8], file: u64) -> Decoded<'_> {
    let Ok((head, behind_head)) = Head::ref_from_prefix(bytes) else {
        return Decoded::Short;
    };
    let key_bytes = usize::from(head.key_bytes.get());
    let length = match head.kind {
        PUT if (1..=MAX_KEY_BYTES).contains(&key_bytes) => HEAD_BYTES + BODY_BYTES + key_bytes,
        REMOVE | USE if key_bytes == 0 => HEAD_BYTES,
        _ => return Decoded::Bad,
    };
    let Some(covered) = bytes.get(CHECKSUM_BYTES..length) else {
        return Decoded::Short;
    };
    if xxh3_64_with_seed(covered, file) != head.checksum.get() {
        return Decoded::Bad;
    }
    let unit = head.unit.get();
    let used = Used {
        opening: head.opening.get(),
        place: head.used.get(),
    };
    let record = match Body::ref_from_prefix(behind_head) {
        _ if head.kind == REMOVE => Record::Remove { unit },
        _ if head.kind == USE => Record::Use { unit, used },
        Ok((body, behind_body)) => {
            let written = Written {
                key: &behind_body[..key_bytes],
                unit,
                size: body.size.get(),
                checksum: body.data_checksum.get(),
            };
            Record::Put(written, used)
        }
        Err(_) => return Decoded::Short,
    };
    Decoded::Whole(record, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 7;

    fn records() -> [Record<'static>; 4] {
        let used = Used {
            opening: 3,
            place: 1 << 40,
        };
        let written = |key| Written {
            key,
            unit: 5,
            size: 70_000,
            checksum: u64::MAX - 1,
        };
        [
            Record::Put(written(b"model-7b/9f8e7d"), used),
            Record::Put(written(&[b'x'; MAX_KEY_BYTES]), used),
            Record::Remove { unit: u32::MAX - 20 },
            Record::Use { unit: 0, used },
        ]
    }

    #[test]
    fn a_record_is_read_back_and_every_part_of_it_is_short() {
        for record in records() {
            let mut bytes = Vec::new();
            record.encode(FILE, &mut bytes).unwrap();
            assert!(bytes.len() <= MAX_RECORD_BYTES);
            let length = bytes.len();
            for short in 0..length {
                assert_eq!(decode(&bytes[..short], FILE), Decoded::Short, "{short} of {length}");
            }
            bytes.extend_from_slice(b"what follows");
            assert_eq!(decode(&bytes, FILE), Decoded::Whole(record, length));
        }
    }

    #[test]
    fn a_record_with_any_bit_turned_or_of_another_file_is_none() {
        for record in records() {
            let mut bytes = Vec::new();
            record.encode(FILE, &mut bytes).unwrap();
            assert_eq!(decode(&bytes, FILE + 1), Decoded::Bad);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                // A key that has become longer reaches past the end.
                assert!(!matches!(decode(&bytes, FILE), Decoded::Whole(..)), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn the_format_is_what_it_was() {
        let mut bytes = Vec::new();
        Record::Remove { unit: 0x0102_0304 }.encode(FILE, &mut bytes).unwrap();
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, REMOVE, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bytes[CHECKSUM_BYTES..], expected);
        assert_eq!(
            bytes[..CHECKSUM_BYTES],
            xxh3_64_with_seed(&expected, FILE).to_le_bytes()
        );
    }
}
