//! How a state file and a data file are known to belong together.
//!
//! Both carry a number that was drawn when they were first used together: the state file in its [`Header`], the data file in a
//! [`Label`] behind its last unit. So a state is never taken for that of a data file that was made anew, exchanged, or
//! belongs to another store, wherever the two were moved or copied. Each is a struct of fixed layout, checksummed, and says its version.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::words;
use crate::segment::allocator::UNIT;

/// The version of everything that this module writes.
const VERSION: u32 = 1;
const HEADER_MAGIC: [u8; 8] = *b"mmcstate";
const LABEL_MAGIC: [u8; 8] = *b"mmc-data";

pub(super) const HEADER_BYTES: usize = size_of::<Header>();

/// What a state file begins with.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    magic: [u8; 8],
    version: U32,
    rank: U32,
    capacity: U64,
    unit: U64,
    file: U64,
    checksum: U64,
}

const _: () = assert!(HEADER_BYTES == 48);

/// What a data file ends with, at the offset of its segment's capacity.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Label {
    magic: [u8; 8],
    file: U64,
    checksum: U64,
}

/// The segment that a state is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) rank: u32,
    /// Bytes.
    pub(crate) capacity: u64,
}

impl Header {
    pub(super) fn new(identity: Identity, file: u64) -> Header {
        let mut header = Header {
            magic: HEADER_MAGIC,
            version: VERSION.into(),
            rank: identity.rank.into(),
            capacity: identity.capacity.into(),
            unit: UNIT.into(),
            file: file.into(),
            checksum: U64::ZERO,
        };
        header.checksum = header.expected_checksum().into();
        header
    }

    fn expected_checksum(&self) -> u64 {
        let bytes = self.as_bytes();
        xxh3_64(&bytes[..bytes.len() - size_of::<U64>()])
    }

    /// The number in the header that `bytes` begins with, if this is the state of that segment; else what it is instead.
    pub(super) fn check(bytes: &[u8], identity: Identity) -> Result<u64, std::borrow::Cow<'static, str>> {
        let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
            return Err(words!("{} bytes are too few for a state file", bytes.len()));
        };
        if header.magic != HEADER_MAGIC {
            return Err("not a state file".into());
        }
        // Before the checksum, which another version may have elsewhere.
        if header.version != VERSION {
            return Err(words!(
                "of version {}, and this library has version {VERSION}",
                header.version
            ));
        }
        if header.checksum != header.expected_checksum() {
            return Err("its header is damaged".into());
        }
        if header.unit != UNIT {
            return Err(words!(
                "of units of {} bytes, and this library's are {UNIT}",
                header.unit
            ));
        }
        if header.capacity != identity.capacity {
            return Err(words!(
                "of a segment of {} bytes, and this one has {}",
                header.capacity,
                identity.capacity
            ));
        }
        if header.rank != identity.rank {
            return Err(words!(
                "of rank {}, and this store is rank {}",
                header.rank,
                identity.rank
            ));
        }
        Ok(header.file.get())
    }
}

/// The number in the label of a data file; `None` when it has none.
pub(super) fn read_label(data: &Path, identity: Identity) -> io::Result<Option<u64>> {
    let file = match fs::File::open(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut label = Label {
        magic: [0; 8],
        file: U64::ZERO,
        checksum: U64::ZERO,
    };
    match file.read_exact_at(label.as_mut_bytes(), identity.capacity) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let is_label = label.magic == LABEL_MAGIC && label.checksum == xxh3_64(label.file.as_bytes());
    Ok(is_label.then(|| label.file.get()))
}

/// Labels a data file, which must be there, and has that on the disk.
pub(super) fn write_label(data: &Path, identity: Identity, file: u64) -> io::Result<()> {
    let number = U64::new(file);
    let label = Label {
        magic: LABEL_MAGIC,
        file: number,
        checksum: xxh3_64(number.as_bytes()).into(),
    };
    let opened = fs::OpenOptions::new().write(true).open(data)?;
    opened.write_all_at(label.as_bytes(), identity.capacity)?;
    opened.sync_all()
}
