//! Objects on their way to a file and back.
//!
//! A disk may give back other bytes than it was given, so every object on a file has a checksum, xxh3 of all of its bytes, and nothing
//! that comes back is anybody's before that was compared. So an object is always read as a whole, whatever of it is wanted.
//!
//! **Straight or around.** Where all of an object is wanted and every piece of the caller's memory is aligned, it is read straight into
//! that memory, and only what is left of its last unit goes around by a [`Bounce`]; the caller hears that an object is rotten when its
//! bytes are in that memory already. Else all of it goes around, and a failure leaves the caller's memory as it was.
//!
//! What one call reads or writes is under way at once, up to [`IN_FLIGHT`] bytes: that is also all the memory that goes into bounces.

use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::Segment;
use super::allocator::UNIT;
use super::buffers::{Buffers, list_of};
use super::device::Direction;
use super::file::{Bounce, File, Part, parts_of};
use crate::copy;
use crate::error::{Error, Result, words};

/// Bytes of one call that are under way at once: enough for every thread of a file to have parts, little beside a pool.
pub(crate) const IN_FLIGHT: u64 = 16 << 20;

/// The checksum of an object's bytes; never 0.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes).max(1)
}

/// The checksum of an object whose bytes lie in the caller's pieces, which this process can read.
pub(crate) fn checksum_of(buffers: &Buffers<'_>) -> u64 {
    let mut state = Xxh3Default::new();
    for (_, piece, length) in buffers.pieces(buffers.total()) {
        // SAFETY: `Buffers::new` was promised memory of this length; whoever asks for a checksum has no device's.
        state.update(unsafe { std::slice::from_raw_parts(piece.cast::<u8>().cast_const(), length) });
    }
    state.digest().max(1)
}

/// An object on a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    /// Where its first byte lies in the segment.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// What was written.
    pub(crate) checksum: u64,
}

/// A part of an object, or all of it, that is to be read.
#[derive(Clone, Copy)]
pub(crate) struct Fetch<'s, 'a> {
    /// The object's number in its call.
    pub(crate) element: usize,
    pub(crate) segment: &'s Segment,
    pub(crate) stored: Stored,
    /// The first byte that is wanted.
    pub(crate) from: u64,
    /// How many are.
    pub(crate) bytes: u64,
    /// Where they go.
    pub(crate) buffers: Buffers<'a>,
}

/// An object that is to be written as a whole.
#[derive(Clone, Copy)]
pub(crate) struct Write<'s, 'a> {
    /// The object's number in its call.
    pub(crate) element: usize,
    pub(crate) segment: &'s Segment,
    /// Where its first byte goes in the segment.
    pub(crate) start: u64,
    pub(crate) buffers: Buffers<'a>,
}

/// Reads objects and compares their checksums; `failed` hears of those whose bytes did not arrive, `Rotten` when they were others.
pub(crate) fn fetch(fetches: &[Fetch<'_, '_>], mut failed: impl FnMut(usize, Error)) {
    for group in groups(fetches, |fetch| (fetch.segment, fetch.stored.size)) {
        if let Err(error) = fetch_group(group, &mut failed) {
            group.iter().for_each(|fetch| failed(fetch.element, error.clone()));
        }
    }
    copy::fence();
}

/// Writes objects; `failed` hears of those that are not there afterwards.
pub(crate) fn write(writes: &[Write<'_, '_>], mut failed: impl FnMut(usize, Error)) {
    for group in groups(writes, |write| (write.segment, write.buffers.total())) {
        if let Err(error) = write_group(group, &mut failed) {
            group.iter().for_each(|write| failed(write.element, error.clone()));
        }
    }
}

/// An object that lies in a bounce, and where it goes.
pub(crate) struct Bounced<'s, 'b> {
    /// The object's number in its call.
    pub(crate) element: usize,
    pub(crate) segment: &'s Segment,
    /// Where its first byte goes in the segment.
    pub(crate) start: u64,
    pub(crate) bounce: &'b Bounce,
}

/// Writes objects that lie in bounces; `failed` hears of those that are not there afterwards.
pub(crate) fn write_bounced(all: &[Bounced<'_, '_>], mut failed: impl FnMut(usize, Error)) {
    for group in groups(all, |one| (one.segment, one.bounce.length() as u64)) {
        if let Err(error) = write_bounced_group(group, &mut failed) {
            group.iter().for_each(|one| failed(one.element, error.clone()));
        }
    }
}

fn write_bounced_group(group: &[Bounced<'_, '_>], failed: &mut dyn FnMut(usize, Error)) -> Result<()> {
    let mut parts = Vec::new();
    for one in group {
        let length = one.bounce.length() as u64;
        assert!(
            one.segment.has_room_at(one.start, length),
            "an extent lies inside its segment"
        );
        add_parts(
            &mut parts,
            Direction::ToSegment,
            one.element,
            one.start,
            one.bounce.memory(),
            length,
        )?;
    }
    // SAFETY: the bounces stay for as long as they are borrowed.
    unsafe { run(&*file_of(group[0].segment)?, &parts, failed) };
    Ok(())
}

/// Cuts a call into pieces that are under way at once: neighbours on one segment, of `IN_FLIGHT` bytes or a single one.
fn groups<'g, T, F>(all: &'g [T], mut place: F) -> impl Iterator<Item = &'g [T]>
where
    F: FnMut(&'g T) -> (&'g Segment, u64),
{
    let mut rest = all;
    std::iter::from_fn(move || {
        let (segment, mut bytes) = place(rest.first()?);
        let more = rest[1..].iter().take_while(|one| {
            let (other, size) = place(one);
            bytes += size;
            other.number == segment.number && bytes <= IN_FLIGHT
        });
        let (group, behind) = rest.split_at(1 + more.count());
        rest = behind;
        Some(group)
    })
}

/// Where an object's bytes arrive.
enum Landing {
    /// In the caller's memory; what is left of the last unit here.
    Straight(Option<Bounce>),
    /// All of them here.
    Around(Bounce),
}

fn fetch_group(group: &[Fetch<'_, '_>], failed: &mut dyn FnMut(usize, Error)) -> Result<()> {
    let file = file_of(group[0].segment)?;
    let mut landings = list_of(0, || None)?;
    landings.try_reserve_exact(group.len()).map_err(no_memory)?;
    let mut parts = Vec::new();
    for (number, fetch) in group.iter().enumerate() {
        landings.push(Some(fetch.land(&file, number, &mut parts)?));
    }
    // SAFETY: the bounces are this call's; the caller's memory may be written, as `Buffers::new` was promised.
    unsafe {
        run(&file, &parts, |number, error| {
            landings[number] = None;
            failed(group[number].element, error);
        });
    }
    for (fetch, landing) in group.iter().zip(landings) {
        if let Some(landing) = landing
            && let Err(error) = fetch.hand_over(landing)
        {
            failed(fetch.element, error);
        }
    }
    Ok(())
}

impl Fetch<'_, '_> {
    /// Begins its reads: the parts of them, and where they go.
    fn land(&self, file: &File, number: usize, parts: &mut Vec<Part>) -> Result<Landing> {
        let Stored { start, size, .. } = self.stored;
        let from_file = Direction::FromSegment;
        assert!(
            self.segment.has_room_at(start, size.next_multiple_of(UNIT)) && self.from + self.bytes <= size,
            "an extent lies inside its segment"
        );
        if !self.is_straight() {
            let bounce = file.bounce(size)?;
            add_parts(parts, from_file, number, start, bounce.memory(), bounce.length() as u64)?;
            return Ok(Landing::Around(bounce));
        }
        for (at, piece, length) in self.buffers.pieces(size) {
            let whole = length as u64 / UNIT * UNIT;
            add_parts(parts, from_file, number, start + at, piece.cast(), whole)?;
        }
        if size.is_multiple_of(UNIT) {
            return Ok(Landing::Straight(None));
        }
        let last = file.bounce(UNIT)?;
        add_parts(
            parts,
            from_file,
            number,
            start + size / UNIT * UNIT,
            last.memory(),
            UNIT,
        )?;
        Ok(Landing::Straight(Some(last)))
    }

    /// Whether all of it is wanted, in memory that a file can be read into.
    fn is_straight(&self) -> bool {
        let size = self.stored.size;
        let is_aligned = |(at, piece, length): (u64, *mut std::ffi::c_void, usize)| {
            let is_end = at + length as u64 == size;
            (piece.addr() as u64).is_multiple_of(UNIT) && (is_end || (length as u64).is_multiple_of(UNIT))
        };
        self.bytes == size && self.buffers.pieces(size).all(is_aligned)
    }

    /// Compares what has arrived, and gives the caller what is not with him yet.
    fn hand_over(&self, landing: Landing) -> Result<()> {
        let Stored {
            size,
            checksum: written,
            ..
        } = self.stored;
        match landing {
            Landing::Straight(last) => {
                if let Some(last) = last {
                    let tail = size % UNIT;
                    self.scatter(last.bytes(tail), size - tail);
                    copy::fence();
                }
                let all = checksum_of(&self.buffers.first(size));
                (all == written).then_some(()).ok_or(Error::Rotten)
            }
            Landing::Around(bounce) => {
                let bytes = bounce.bytes(size);
                if checksum(bytes) != written {
                    return Err(Error::Rotten);
                }
                self.scatter(&bytes[self.from as usize..(self.from + self.bytes) as usize], 0);
                Ok(())
            }
        }
    }

    /// Copies bytes into the caller's memory, from byte `begin` of it on.
    fn scatter(&self, bytes: &[u8], begin: u64) {
        for (at, piece, length) in self.buffers.pieces(begin + bytes.len() as u64) {
            let skipped = begin.saturating_sub(at).min(length as u64);
            let source = &bytes[(at + skipped).saturating_sub(begin) as usize..][..length - skipped as usize];
            // SAFETY: `Buffers::new` was promised that the piece may be written; what is written lies in it.
            unsafe { copy::stream(piece.cast::<u8>().add(skipped as usize), source.as_ptr(), source.len()) };
        }
    }
}

fn write_group(group: &[Write<'_, '_>], failed: &mut dyn FnMut(usize, Error)) -> Result<()> {
    let file = file_of(group[0].segment)?;
    let mut bounces = Vec::new();
    bounces.try_reserve_exact(group.len()).map_err(no_memory)?;
    for write in group {
        let bounce = file.bounce(write.buffers.total())?;
        for (at, piece, length) in write.buffers.pieces(write.buffers.total()) {
            // SAFETY: `Buffers::new` was promised that the piece may be read; the bounce has room for all of them.
            unsafe {
                copy::stream(
                    bounce.memory().add(at as usize),
                    piece.cast::<u8>().cast_const(),
                    length,
                )
            };
        }
        bounces.push(bounce);
    }
    copy::fence();
    let mut bounced = Vec::new();
    bounced.try_reserve_exact(group.len()).map_err(no_memory)?;
    bounced.extend(group.iter().zip(&bounces).map(|(write, bounce)| Bounced {
        element: write.element,
        segment: write.segment,
        start: write.start,
        bounce,
    }));
    write_bounced_group(&bounced, failed)
}

fn add_parts(
    parts: &mut Vec<Part>,
    direction: Direction,
    number: usize,
    offset: u64,
    memory: *mut u8,
    length: u64,
) -> Result<()> {
    let more = parts_of(direction, number, offset, memory, length);
    parts.try_reserve(more.size_hint().0).map_err(no_memory)?;
    parts.extend(more);
    Ok(())
}

/// Runs parts; `failed` hears once of each element that has one that was not done.
///
/// # Safety
/// As for [`File::run`].
unsafe fn run(file: &File, parts: &[Part], mut failed: impl FnMut(usize, Error)) {
    // SAFETY: promised by the caller.
    unsafe { file.run(parts) };
    let mut last = None;
    for part in parts {
        if let Some(error) = part.failure.get()
            && last != Some(part.element)
        {
            last = Some(part.element);
            let verb = match part.direction {
                Direction::ToSegment => "writing to",
                Direction::FromSegment => "reading from",
            };
            failed(
                part.element,
                Error::Io(words!("{verb} an SSD segment's file failed: {error}")),
            );
        }
    }
}

pub(super) fn file_of(segment: &Segment) -> Result<Arc<File>> {
    segment
        .file()
        .ok_or_else(|| Error::Io("the SSD segment's file has been closed".into()))
}

fn no_memory(_: std::collections::TryReserveError) -> Error {
    Error::OutOfMemory("no memory for a list of reads or writes".into())
}
