//! What the store shows of itself: objects, segments, counters.
//!
//! All of it is read without stopping anybody, so numbers that belong together are each right for some moment, not all for one.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::Key;
#[cfg(test)]
use crate::metrics::Counter;
use crate::metrics::{COUNTERS, Gauges, SegmentGauge};
use crate::object::{MAX_COPIES, State};
use crate::segment::Medium;
use crate::segment::dram::Report;
use crate::trace::{self, Timing, Tracepoint};

use super::{QUERY_RESERVED, Store};

/// One copy of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobView {
    pub(crate) medium: Medium,
    pub(crate) rank: u32,
    pub(crate) address: u64,
    /// Where this process has it; `None` for a device's memory and for a file.
    pub(crate) pointer: Option<*mut u8>,
}

/// An object as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ObjectView {
    pub(crate) size: u64,
    pub(crate) is_readable: bool,
    /// Leases that are not over.
    pub(crate) leases: u32,
    /// Its copies, in placement order, the first of them first.
    pub(crate) blobs: [Option<BlobView>; MAX_COPIES],
}

/// A segment as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentView {
    pub(crate) address: u64,
    pub(crate) allocated: u64,
    pub(crate) capacity: u64,
    pub(crate) medium: Medium,
    pub(crate) rank: u32,
    pub(crate) report: Option<Report>,
    /// Other processes can map it.
    pub(crate) is_shareable: bool,
}

/// The store's counters and levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Statistics {
    pub(crate) segments: usize,
    pub(crate) stored_keys: u64,
    pub(crate) capacity: u64,
    pub(crate) allocated: u64,
    pub(crate) metadata: u64,
    pub(crate) pins: u64,
    pub(crate) reservations: u64,
    pub(crate) leases: u64,
    /// Processes that are attached.
    pub(crate) guests: u64,
}

impl Store {
    /// Shows the readable object of a key, or with `QUERY_RESERVED` also one that is being written. For any thread, so leases are
    /// over by what was heard of the clock.
    pub(crate) fn query(&self, key: &Key, flags: u32, position: usize) -> Result<ObjectView> {
        self.sweep_at(self.clock.heard());
        self.query_hashed(key, self.hash(key), flags, position)
    }

    fn query_hashed(&self, key: &Key, hash: u64, flags: u32, position: usize) -> Result<ObjectView> {
        loop {
            let (slot, life) = self
                .find(key, hash)
                .filter(|(_, life)| life.state() == State::Readable || flags & QUERY_RESERVED != 0)
                .ok_or(Error::NotFound)?;
            let object = self.objects.get(slot);
            let is_readable = life.state() == State::Readable;
            let mut blobs = [None; MAX_COPIES];
            let shown = (0..life.copies()).filter_map(|copy| {
                let blob = self.objects.blob(slot, copy);
                // The place first: a copy that is there afterwards has it, unless the object's life is another by then.
                let (number, unit) = blob.place();
                let is_there = if is_readable {
                    blob.count.is_live(life.generation())
                } else {
                    blob.count.is_needed()
                };
                is_there.then(|| {
                    let segment = &self.segments.get(number).segment;
                    let (address, pointer) = (segment.address_of(unit), segment.pointer(unit));
                    BlobView {
                        medium: segment.medium,
                        rank: segment.rank,
                        address,
                        pointer,
                    }
                })
            });
            blobs
                .iter_mut()
                .zip(shown)
                .for_each(|(blob, shown)| *blob = Some(shown));
            let leases = self.holds.leases_of(slot, object);
            let view = ObjectView {
                size: object.size(),
                is_readable,
                leases,
                blobs,
            };
            // What was read belongs to the object of `life` only if that is still there.
            if object.life() == life {
                if is_readable && view.blobs[0].is_none() {
                    return Err(Error::NotFound);
                }
                self.use_object(slot, flags, position);
                return Ok(view);
            }
        }
    }

    /// As [`Store::query`], counted as one.
    pub(crate) fn query_one(&self, key: &Key, flags: u32) -> Result<ObjectView> {
        let span = self.tracer.begin(Tracepoint::Query, Timing::Sampled);
        self.sweep();
        let view = self.query_hashed(key, self.hash(key), flags, 0);
        span.good();
        self.counted(view)
    }

    /// Shows as many objects as `results` has: each that was found goes to `show`, and a code for each to `results`.
    pub(crate) fn batch_query<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        flags: u32,
        results: &mut [i32],
        mut show: impl FnMut(usize, &ObjectView),
    ) {
        let span = self.tracer.begin(Tracepoint::BatchQuery, Timing::Always);
        self.sweep();
        self.each_key(results, key, |number, key, hash| {
            show(number, &self.query_hashed(key, hash, flags, number)?);
            Ok(())
        });
        span.good();
    }

    /// The open segments, by medium, rank and address.
    pub(crate) fn list_segments(&self) -> impl Iterator<Item = SegmentView> {
        self.segments.open().map(|registered| {
            let segment = &registered.segment;
            SegmentView {
                address: segment.address,
                allocated: segment.allocated(),
                capacity: segment.capacity,
                medium: segment.medium,
                rank: segment.rank,
                report: segment.mapping_report(),
                is_shareable: segment.is_shareable,
            }
        })
    }

    /// Levels of the store now.
    pub(crate) fn statistics(&self) -> Statistics {
        let (segments, capacity, allocated) =
            self.list_segments()
                .fold((0, 0, 0), |(segments, capacity, allocated), segment| {
                    (segments + 1, capacity + segment.capacity, allocated + segment.allocated)
                });
        Statistics {
            segments,
            stored_keys: self.stored_keys(),
            capacity,
            allocated,
            metadata: self.objects.bytes() + self.index.bytes() + self.holds.bytes(),
            pins: self.holds.pins(),
            reservations: self.holds.reservations(),
            leases: self.holds.leases(),
            guests: self.guests.load(Ordering::Relaxed),
        }
    }

    /// A counter's total.
    #[cfg(test)]
    pub(crate) fn total(&self, counter: Counter) -> u64 {
        self.metrics.total(counter)
    }

    /// Every counter's total, at its place in [`crate::metrics::Counter`].
    pub(crate) fn totals(&self) -> [u64; COUNTERS] {
        self.metrics.totals()
    }

    /// The Prometheus text.
    pub(crate) fn metrics_text(&self) -> String {
        let segments = self.list_segments().map(|segment| SegmentGauge {
            medium: segment.medium.name(),
            rank: segment.rank,
            capacity: segment.capacity,
            allocated: segment.allocated,
        });
        let statistics = self.statistics();
        let gauges = Gauges {
            stored_keys: statistics.stored_keys,
            segments: segments.collect(),
            leases: statistics.leases,
            pins: statistics.pins,
            reservations: statistics.reservations,
            guests: statistics.guests,
            index_bytes: self.index.bytes(),
            metadata_bytes: statistics.metadata,
        };
        self.metrics.exposition(&self.tracer, &gauges)
    }

    /// The table of tracepoints.
    pub(crate) fn trace_text(&self) -> String {
        trace::render(&self.tracer.rows(), &trace::local_time_text())
    }
}
