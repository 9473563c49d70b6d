//! The bytes of one call, on their way between the caller's buffers and segments.
//!
//! Memory within reach is copied at once, piece by piece, with streaming stores. What lies behind a device is gathered and handed to
//! its callback as one submission a segment, when the whole call is known; so is what lies on a file ([`disk`]). A call that meets neither
//! allocates nothing here.
//!
//! A submission that fails fails every element that was in it, with the callback's own code: nobody knows which bytes arrived.

use super::Segment;
use super::buffers::{Buffers, list_of};
use super::device::{self, CopyOperation, Direction};
use super::disk::{self, Fetch, Stored, Write};
use super::file::Bounce;
use crate::copy;
use crate::error::{Error, Result};

/// What one call copies.
pub(crate) struct Transfer<'s, 'a> {
    direction: Direction,
    /// The call's own context, for devices.
    stream: usize,
    submissions: Vec<Submission<'s>>,
    fetches: Vec<Fetch<'s, 'a>>,
    writes: Vec<Write<'s, 'a>>,
}

/// What goes to one device at once, and the elements of the call that it belongs to.
struct Submission<'s> {
    segment: &'s Segment,
    operations: Vec<CopyOperation>,
    elements: Vec<usize>,
}

impl<'s, 'a> Transfer<'s, 'a> {
    pub(crate) fn new(direction: Direction, stream: usize) -> Transfer<'s, 'a> {
        Transfer {
            direction,
            stream,
            submissions: Vec::new(),
            fetches: Vec::new(),
            writes: Vec::new(),
        }
    }

    /// Copies the first `bytes` bytes of `buffers` to or from the bytes that begin at `offset` in the segment, or queues that for the device.
    /// They must be a part of one extent that is the caller's: reserved for writing, or counted as read, by which the holder of a
    /// reservation writes, too. To a file goes all of an object; from there comes what [`Transfer::fetch`] asks for.
    pub(crate) fn add(
        &mut self,
        element: usize,
        segment: &'s Segment,
        offset: u64,
        buffers: &Buffers<'a>,
        bytes: u64,
    ) -> Result<()> {
        assert!(segment.has_room_at(offset, bytes), "an extent lies inside its segment");
        if segment.is_file() {
            assert!(
                self.direction == Direction::ToSegment,
                "an object on a file has a checksum"
            );
            self.writes.try_reserve(1).map_err(no_memory)?;
            self.writes.push(Write {
                element,
                segment,
                start: offset,
                buffers: buffers.first(bytes),
            });
            return Ok(());
        }
        if segment.device().is_some() {
            return self.queue(element, segment, offset, buffers, bytes);
        }
        let base = segment.location_at(offset);
        for (at, piece, length) in buffers.pieces(bytes) {
            let memory = std::ptr::with_exposed_provenance_mut::<u8>(base + at as usize);
            let (destination, source) = match self.direction {
                Direction::ToSegment => (memory, piece.cast::<u8>()),
                Direction::FromSegment => (piece.cast::<u8>(), memory),
            };
            // SAFETY: `Buffers::new` was promised that the piece may be used so; the extent lies in the segment's memory, which stays
            // mapped while an extent of it is out. It is the call's alone to write, or the holder's of a reservation, or nobody's.
            unsafe { copy::stream(destination, source, length) };
        }
        Ok(())
    }

    /// Queues what is wanted of an object on a file.
    pub(crate) fn fetch(&mut self, fetch: Fetch<'s, 'a>) -> Result<()> {
        self.fetches.try_reserve(1).map_err(no_memory)?;
        self.fetches.push(fetch);
        Ok(())
    }

    /// Completes every copy; `failed` hears of the elements whose bytes did not arrive.
    pub(crate) fn finish(self, mut failed: impl FnMut(usize, Error)) {
        copy::fence();
        disk::write(&self.writes, &mut failed);
        disk::fetch(&self.fetches, &mut failed);
        for submission in self.submissions {
            let device = submission.segment.device().expect("only devices are queued for");
            if let Err(error) = device::submit(device, &submission.operations, self.direction, self.stream) {
                submission
                    .elements
                    .into_iter()
                    .for_each(|element| failed(element, error.clone()));
            }
        }
    }

    fn queue(
        &mut self,
        element: usize,
        segment: &'s Segment,
        offset: u64,
        buffers: &Buffers<'_>,
        bytes: u64,
    ) -> Result<()> {
        let submission = match self
            .submissions
            .iter()
            .position(|one| one.segment.number == segment.number)
        {
            Some(position) => &mut self.submissions[position],
            None => {
                self.submissions.try_reserve(1).map_err(no_memory)?;
                self.submissions.push(Submission {
                    segment,
                    operations: Vec::new(),
                    elements: Vec::new(),
                });
                self.submissions.last_mut().expect("one was just pushed")
            }
        };
        submission.elements.try_reserve(1).map_err(no_memory)?;
        submission
            .operations
            .try_reserve(buffers.pieces(bytes).count())
            .map_err(no_memory)?;
        submission.elements.push(element);
        let base = segment.location_at(offset) as u64;
        submission
            .operations
            .extend(buffers.pieces(bytes).map(|(at, piece, length)| {
                let (memory, piece) = (base + at, piece.addr() as u64);
                let (source, destination) = match self.direction {
                    Direction::ToSegment => (piece, memory),
                    Direction::FromSegment => (memory, piece),
                };
                CopyOperation {
                    source,
                    destination,
                    length: length as u64,
                }
            }));
        Ok(())
    }
}

/// Bytes that go through this process's memory at once between two devices.
const BOUNCE: u64 = 1 << 20;

/// Copies an extent to another, both the caller's, and returns when the bytes are there.
pub(crate) fn between(from: (&Segment, u32), to: (&Segment, u32), bytes: u64) -> Result<()> {
    let ((from, from_unit), (to, to_unit)) = (from, to);
    let (from_start, to_start) = (Segment::offset_of(from_unit), Segment::offset_of(to_unit));
    assert!(
        from.has_room_at(from_start, bytes) && to.has_room_at(to_start, bytes),
        "extents lie inside their segments"
    );
    match (from.pointer(from_unit), to.pointer(to_unit)) {
        (Some(memory), _) => move_memory(Direction::ToSegment, to, to_start, memory, bytes),
        (None, Some(memory)) => move_memory(Direction::FromSegment, from, from_start, memory, bytes),
        (None, None) => {
            let mut bounce = list_of(BOUNCE.min(bytes) as usize, || 0u8)?;
            (0..bytes).step_by(BOUNCE as usize).try_for_each(|at| {
                let (memory, length) = (bounce.as_mut_ptr(), BOUNCE.min(bytes - at));
                move_memory(Direction::FromSegment, from, from_start + at, memory, length)?;
                move_memory(Direction::ToSegment, to, to_start + at, memory, length)
            })
        }
    }
}

/// Copies between a part of an extent and memory of this process, of `between`'s own.
fn move_memory(direction: Direction, segment: &Segment, offset: u64, memory: *mut u8, bytes: u64) -> Result<()> {
    let (data, sizes) = ([memory.cast_const().cast()], [bytes as usize]);
    // SAFETY: `between` and `load` give an extent of their caller's, inside its segment, or a buffer of their own, either of at least
    // `bytes` bytes.
    let buffers = unsafe { Buffers::new(&data, &sizes)? };
    let mut transfer = Transfer::new(direction, 0);
    transfer.add(0, segment, offset, &buffers, bytes)?;
    let mut result = Ok(());
    transfer.finish(|_, error| result = Err(error));
    result
}

/// Loads a copy of an extent, in memory or on a device, which is counted as read and is to go to a file.
pub(crate) fn load(segment: &Segment, unit: u32, bytes: u64, to: &Segment) -> Result<Bounce> {
    let bounce = disk::file_of(to)?.bounce(bytes)?;
    move_memory(
        Direction::FromSegment,
        segment,
        Segment::offset_of(unit),
        bounce.memory(),
        bytes,
    )?;
    Ok(bounce)
}

/// Lets `act` use extents in memory within reach (segment, unit, bytes), which are the caller's own to write, as the buffers of other copies.
pub(crate) fn with_extents<T>(
    extents: &[(&Segment, u32, u64)],
    act: impl FnOnce(&[Buffers<'_>]) -> Result<T>,
) -> Result<T> {
    let mut data = list_of(extents.len(), std::ptr::null)?;
    let mut sizes = list_of(extents.len(), || 0)?;
    for (number, (segment, unit, bytes)) in extents.iter().enumerate() {
        assert!(
            segment.has_room_at(Segment::offset_of(*unit), *bytes),
            "an extent lies inside its segment"
        );
        let memory = segment.pointer(*unit).expect("it is within reach");
        (data[number], sizes[number]) = (memory.cast_const().cast(), *bytes as usize);
    }
    let mut buffers = Vec::new();
    buffers.try_reserve_exact(extents.len()).map_err(no_memory)?;
    for number in 0..extents.len() {
        // SAFETY: the extent lies in the segment's memory, which stays mapped while it is out, and it is the caller's own.
        buffers.push(unsafe { Buffers::new(&data[number..=number], &sizes[number..=number])? });
    }
    act(&buffers)
}

/// The checksum of an object in memory within reach, which is counted as read, or the caller's to write.
pub(crate) fn checksum_at(segment: &Segment, unit: u32, size: u64) -> u64 {
    assert!(
        segment.has_room_at(Segment::offset_of(unit), size),
        "an extent lies inside its segment"
    );
    let memory = segment.pointer(unit).expect("it is within reach");
    // SAFETY: the extent lies in the segment's memory, which stays mapped while it is out, and nobody writes to it.
    disk::checksum(unsafe { std::slice::from_raw_parts(memory, size as usize) })
}

/// An object that is to be brought from a file to an extent of another segment, which is the caller's to write.
pub(crate) struct Return<'s> {
    /// Its number in its call.
    pub(crate) element: usize,
    pub(crate) segment: &'s Segment,
    pub(crate) stored: Stored,
    pub(crate) to: &'s Segment,
    pub(crate) unit: u32,
}

/// Reads objects from files into extents; `failed` hears of those that did not arrive, `Rotten` when they are no longer what was written.
pub(crate) fn bring_back(returns: &[Return<'_>], mut failed: impl FnMut(usize, Error)) -> Result<()> {
    let mut bounces = list_of(returns.len(), || None)?;
    let mut data = list_of(returns.len(), std::ptr::null)?;
    let sizes_of = returns.iter().map(|one| one.stored.size as usize);
    let mut sizes = list_of(returns.len(), || 0)?;
    sizes.iter_mut().zip(sizes_of).for_each(|(size, object)| *size = object);
    for (number, one) in returns.iter().enumerate() {
        let offset = Segment::offset_of(one.unit);
        assert!(
            one.to.has_room_at(offset, one.stored.size),
            "an extent lies inside its segment"
        );
        let memory = match one.to.pointer(one.unit) {
            Some(memory) => memory,
            None => bounces[number].insert(Bounce::new(one.stored.size)?).memory(),
        };
        data[number] = memory.cast_const().cast();
    }
    let mut fetches = Vec::new();
    fetches.try_reserve_exact(returns.len()).map_err(no_memory)?;
    for (element, one) in returns.iter().enumerate() {
        // SAFETY: the extent is the caller's, inside its segment; a bounce is this call's. Either has the object's size at least.
        let buffers = unsafe { Buffers::new(&data[element..=element], &sizes[element..=element])? };
        fetches.push(Fetch {
            element,
            segment: one.segment,
            stored: one.stored,
            from: 0,
            bytes: one.stored.size,
            buffers,
        });
    }
    disk::fetch(&fetches, |number, error| {
        bounces[number] = None;
        failed(returns[number].element, error);
    });
    for (number, one) in returns.iter().enumerate() {
        if let Some(bounce) = &bounces[number] {
            let offset = Segment::offset_of(one.unit);
            if let Err(error) = move_memory(Direction::ToSegment, one.to, offset, bounce.memory(), one.stored.size) {
                failed(one.element, error);
            }
        }
    }
    Ok(())
}

fn no_memory(_: std::collections::TryReserveError) -> Error {
    Error::OutOfMemory("no memory for a list of copies".into())
}
