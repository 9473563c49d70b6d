//! By pool address: bytes in and out for those who know where an object lies and have no pointer to it.
//!
//! An address leads to its segment, there to the extent around it, and the extent's owner to the object's slot. Each of these may be another
//! the next moment, so they only say where to look: a reading is counted on the copy that lies there, and if then the slot is as it
//! was when it was looked at, the copy is the one that was meant. From there on its memory stays where it is until the [`Reading`] is
//! dropped, whether the object is committed, given up or removed meanwhile, or its lease ends.
//!
//! **What may be read** is what nobody writes any more: readable objects, and those that were removed under leases, until the last of these is
//! over. **What may be written** is what was lent: the first copy of a reservation, which its commit copies to the others. An overdue
//! reservation is neither: its holder may still write to it, and nobody has published it. It has gone from the index as a removed object
//! has, but there are no leases on it, as there are none on what was never readable.

use crate::error::{Error, Result, words};
use crate::metrics::Counter;
use crate::object::{Attempt, Life, State};
use crate::segment::Segment;
use crate::segment::allocator::{Owner, UNIT};
use crate::segment::buffers::{Buffers, list_of};
use crate::segment::device::Direction;
use crate::segment::transfer::Transfer;
use crate::trace::{Timing, Tracepoint};

use super::Store;
use super::get::Reading;
use super::segments::Registered;

/// One range that is being copied. Its memory stays until this is dropped.
struct Part<'s, 'a> {
    reading: Reading<'s>,
    /// Where it begins in the object.
    from: u64,
    buffers: Buffers<'a>,
}

impl Store {
    /// Copies between as many ranges of pool addresses as `results` has and the caller's buffers; writes a code for each.
    pub(crate) fn batch_copy<'a>(
        &self,
        element: impl Fn(usize) -> Result<(u64, Buffers<'a>)>,
        direction: Direction,
        stream: usize,
        results: &mut [i32],
    ) -> Result<()> {
        let mut parts = list_of(results.len(), || None)?;
        results.fill(0);
        let span = self.tracer.begin(
            match direction {
                Direction::ToSegment => Tracepoint::LocalBatchPut,
                Direction::FromSegment => Tracepoint::LocalBatchGet,
            },
            Timing::Always,
        );
        // Ranges of one call mostly lie in one segment.
        let mut nearest = None;
        // All of them before the first copy: a locked step waits for the streaming stores before it.
        for (number, part) in parts.iter_mut().enumerate() {
            let begun = element(number)
                .and_then(|(address, buffers)| self.begin_part(address, buffers, direction, &mut nearest));
            *part = self.note(begun, &mut results[number]);
        }
        let mut transfer = Transfer::new(direction, stream);
        for (number, part) in parts.iter().enumerate() {
            let Some(part) = part else { continue };
            let bytes = part.buffers.total();
            let result = part
                .reading
                .copy_part(number, part.from, &part.buffers, bytes, &mut transfer);
            self.note(result, &mut results[number]);
        }
        let mut is_good = true;
        transfer.finish(|number, error| {
            is_good = false;
            if let (Error::Rotten, Some(part)) = (&error, &parts[number]) {
                self.drop_rotten(&part.reading.named());
            }
            self.note::<()>(Err(error), &mut results[number]);
        });
        span.end(is_good);
        if direction == Direction::FromSegment {
            let copied = parts.iter().zip(&*results).filter(|(_, code)| **code == 0);
            let bytes = copied.flat_map(|(part, _)| part).map(|part| part.buffers.total()).sum();
            self.count(Counter::GetBytes, bytes);
        }
        Ok(())
    }

    /// Counts the reading of one range. `nearest`: the segment of the one before.
    fn begin_part<'s, 'a>(
        &'s self,
        address: u64,
        buffers: Buffers<'a>,
        direction: Direction,
        nearest: &mut Option<&'s Registered>,
    ) -> Result<Part<'s, 'a>> {
        let (segment, offset) = self.segment_with(address, nearest)?;
        let (reading, from) = self.begin_reading_at(segment, offset, buffers.total(), direction)?;
        Ok(Part { reading, from, buffers })
    }

    /// The open segment of an address, and how far in it that is.
    fn segment_with<'s>(&'s self, address: u64, nearest: &mut Option<&'s Registered>) -> Result<(&'s Segment, u64)> {
        let offset_in = |registered: &'s Registered| {
            let segment = &registered.segment;
            segment.offset_at(address).map(|offset| (segment, offset))
        };
        if let Some(found) = nearest.and_then(offset_in) {
            return Ok(found);
        }
        let registered = self.segments.containing(address)?;
        *nearest = Some(registered);
        Ok(offset_in(registered).expect("it was found by this address"))
    }

    /// Counts a reading of the copy that has these bytes, if they may be copied in this direction; and where in the object they begin.
    pub(super) fn begin_reading_at(
        &self,
        segment: &Segment,
        offset: u64,
        bytes: u64,
        direction: Direction,
    ) -> Result<(Reading<'_>, u64)> {
        let address = segment.address + offset;
        let nothing = || Error::Unknown(words!("address {address:#x}: no object lies there"));
        loop {
            let found = segment.with_space(|space| space.containing((offset / UNIT) as u32));
            let Some((extent, Owner::Object(slot))) = found.flatten() else {
                return Err(nothing());
            };
            let object = self.objects.get(slot);
            let life = object.life();
            let copy = self.copy_at(slot, segment.number, extent.start).ok_or_else(nothing)?;
            match self.try_read_at(slot, life, copy, direction, address)? {
                Attempt::Counted => {
                    let reading = Reading::counted(self, slot, copy);
                    // A copy's number may be another copy's by now, of the same object.
                    if object.life() == life && self.objects.blob(slot, copy).place() == (segment.number, extent.start)
                    {
                        let begin = offset - Segment::offset_of(extent.start);
                        return check_range(address, begin, bytes, object.size()).map(|()| (reading, begin));
                    }
                }
                Attempt::Full => return Err(Error::Busy("too many readers of one object at once".into())),
                Attempt::Gone if object.life() == life => return Err(nothing()),
                Attempt::Gone => {}
            }
        }
    }

    /// Counts a reading of a copy, of an object in this life, if that lets it be copied in this direction.
    fn try_read_at(&self, slot: u32, life: Life, copy: usize, direction: Direction, address: u64) -> Result<Attempt> {
        let (object, count) = (self.objects.get(slot), self.objects.blob(slot, copy).count);
        let is_leased = || {
            self.sweep();
            self.holds.leases_of(slot, object) > 0
        };
        let refused = |why: &str| Error::State(words!("address {address:#x}: the object there {why}"));
        match (direction, life.state()) {
            (Direction::FromSegment, State::Readable) => Ok(count.read(life.generation())),
            (Direction::FromSegment, State::Gone) if is_leased() => Ok(count.read_held(life.generation())),
            (Direction::ToSegment, State::Lent) if copy == 0 => Ok(count.read_held(life.generation())),
            (Direction::ToSegment, State::Readable) => Err(refused("is published: its bytes do not change")),
            (Direction::ToSegment, State::Reserved) => Err(refused("is being put, and nobody else's to write")),
            (Direction::FromSegment, State::Reserved | State::Lent) => Err(refused("is still being written")),
            (_, State::Free | State::Gone) | (Direction::ToSegment, State::Lent) => Ok(Attempt::Gone),
        }
    }
}

/// Whether an object of `size` bytes has these, of which the first is its byte `begin`.
fn check_range(address: u64, begin: u64, bytes: u64, size: u64) -> Result<()> {
    let left = size.saturating_sub(begin);
    if bytes > left {
        return Err(Error::Unknown(words!(
            "{bytes} bytes at address {address:#x}: the object there has {left} from there on"
        )));
    }
    Ok(())
}
