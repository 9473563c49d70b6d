//! The bytes of one call, on their way between the caller's buffers and segments.
//!
//! Memory within reach is copied at once, piece by piece, with streaming stores. What lies behind a device is gathered and handed to
//! its callback as one submission a segment, when the whole call is known. A call that meets no device allocates nothing here.
//!
//! A submission that fails fails every element that was in it, with the callback's own code: nobody knows which bytes arrived.

use super::Segment;
use super::buffers::{Buffers, list_of};
use super::device::{self, CopyOperation, Direction};
use crate::copy;
use crate::error::{Error, Result};

/// What one call copies.
pub(crate) struct Transfer<'s> {
    direction: Direction,
    /// The call's own context, for devices.
    stream: usize,
    submissions: Vec<Submission<'s>>,
}

/// What goes to one device at once, and the elements of the call that it belongs to.
struct Submission<'s> {
    segment: &'s Segment,
    operations: Vec<CopyOperation>,
    elements: Vec<usize>,
}

impl<'s> Transfer<'s> {
    pub(crate) fn new(direction: Direction, stream: usize) -> Transfer<'s> {
        Transfer {
            direction,
            stream,
            submissions: Vec::new(),
        }
    }

    /// Copies the first `bytes` bytes of `buffers` to or from the bytes that begin at `offset` in the segment, or queues that for the device.
    /// They must be a part of one extent that is the caller's: reserved for writing, or counted as read, by which the holder of a
    /// reservation writes, too.
    pub(crate) fn add(
        &mut self,
        element: usize,
        segment: &'s Segment,
        offset: u64,
        buffers: &Buffers<'_>,
        bytes: u64,
    ) -> Result<()> {
        assert!(segment.has_room_at(offset, bytes), "an extent lies inside its segment");
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

    /// Completes every copy; `failed` hears of the elements whose bytes did not arrive.
    pub(crate) fn finish(self, mut failed: impl FnMut(usize, Error)) {
        copy::fence();
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
    // SAFETY: `between` gives an extent of its caller's, inside its segment, or its own buffer, either of at least `bytes` bytes.
    let buffers = unsafe { Buffers::new(&data, &sizes)? };
    let mut transfer = Transfer::new(direction, 0);
    transfer.add(0, segment, offset, &buffers, bytes)?;
    let mut result = Ok(());
    transfer.finish(|_, error| result = Err(error));
    result
}

fn no_memory(_: std::collections::TryReserveError) -> Error {
    Error::OutOfMemory("no memory for a device's submission".into())
}
