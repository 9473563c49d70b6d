//! Tracepoints: how often each operation of the store ran, how it ended and how long it took.
//!
//! A [`Span`] is one call of one operation. It is counted when it begins and when it ends, exactly; a span that is
//! dropped before anybody said how it ended (an early return, a panic) ended badly. What began and has not ended is on
//! the fly, and a reader never sees less than none of it: ends are read before begins.
//!
//! Time is dearer than counting: two looks at the clock cost more than the rest of a short call's tracing together. So a
//! call whose work is long anyway is timed [`Always`](Timing::Always), and one that takes less than a microsecond is
//! [`Sampled`](Timing::Sampled), one in [`SAMPLING`]. Minimum, maximum, average and the histogram are over timed calls;
//! the total is their average times the finished calls. The first call of a tracepoint in a stripe is always timed, so
//! a tracepoint with a single finished call has times too.
//!
//! Which calls are sampled follows from the count that beginning a span yields anyway: call `n` is timed when the
//! fraction of `n` times the golden ratio is small. Plainly every 64th would fall in step with callers that work in
//! rounds of 64 (layers, blocks of a prompt): one phase of their round would stand for all of it. The golden ratio
//! keeps step with nothing, and its gaps are 34, 55 or 89 calls: 64 on average.
//!
//! All cells are striped by thread. An untimed span is two additions to one cache line that is this thread's; the times
//! live beside it and are touched by timed calls only.

mod cells;

use std::fmt::Write;
use std::mem::MaybeUninit;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cells::{Counts, Times};

use crate::error::Result;
use crate::stripe::{self, Striped};

/// An operation of the store. A batch call counts once under its batch name, not again for each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracepoint {
    Put,
    BatchPut,
    Get,
    BatchGet,
    /// A write published or a state changed.
    Update,
    BatchUpdate,
    Remove,
    BatchRemove,
    RemoveAll,
    Exist,
    BatchExist,
    Query,
    BatchQuery,
    /// A segment registered.
    BmRegister,
    BmUnregister,
    Alloc,
    Evict,
    /// The copy of a put, without its metadata.
    LocalPut,
    LocalBatchPut,
    LocalGet,
    LocalBatchGet,
}

/// Every tracepoint with its documented name, in the order of the table.
const NAMES: [(Tracepoint, &str); 21] = [
    (Tracepoint::Put, "TP_MMC_META_PUT"),
    (Tracepoint::BatchPut, "TP_MMC_META_BATCH_PUT"),
    (Tracepoint::Get, "TP_MMC_META_GET"),
    (Tracepoint::BatchGet, "TP_MMC_META_BATCH_GET"),
    (Tracepoint::Update, "TP_MMC_META_UPDATE"),
    (Tracepoint::BatchUpdate, "TP_MMC_META_BATCH_UPDATE"),
    (Tracepoint::Remove, "TP_MMC_META_REMOVE"),
    (Tracepoint::BatchRemove, "TP_MMC_META_BATCH_REMOVE"),
    (Tracepoint::RemoveAll, "TP_MMC_META_REMOVE_ALL"),
    (Tracepoint::Exist, "TP_MMC_META_EXIST"),
    (Tracepoint::BatchExist, "TP_MMC_META_BATCH_EXIST"),
    (Tracepoint::Query, "TP_MMC_META_QUERY"),
    (Tracepoint::BatchQuery, "TP_MMC_META_BATCH_QUERY"),
    (Tracepoint::BmRegister, "TP_MMC_META_BM_REGISTER"),
    (Tracepoint::BmUnregister, "TP_MMC_META_BM_UNREGISTER"),
    (Tracepoint::Alloc, "TP_MMC_META_ALLOC"),
    (Tracepoint::Evict, "TP_MMC_META_EVICT"),
    (Tracepoint::LocalPut, "TP_MMC_LOCAL_PUT"),
    (Tracepoint::LocalBatchPut, "TP_MMC_LOCAL_BATCH_PUT"),
    (Tracepoint::LocalGet, "TP_MMC_LOCAL_GET"),
    (Tracepoint::LocalBatchGet, "TP_MMC_LOCAL_BATCH_GET"),
];

const TRACEPOINTS: usize = NAMES.len();

// A tracepoint's number is its place in every table here.
const _: () = {
    let mut place = 0;
    while place < TRACEPOINTS {
        assert!(NAMES[place].0 as usize == place);
        place += 1;
    }
};

/// Which calls look at the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timing {
    /// Every call: for work that takes microseconds.
    Always,
    /// One call in [`SAMPLING`]: for work that the clock would visibly slow down.
    Sampled,
}

/// Calls for each one that is timed, under [`Timing::Sampled`].
const SAMPLING: u64 = 64;

/// 2^64 divided by the golden ratio, rounded to odd: multiplying by it spreads successive numbers evenly over all of
/// `u64`.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Whether the call with this number (from 0) is among those that are timed.
fn is_sampled(number: u64) -> bool {
    number.wrapping_mul(GOLDEN) < u64::MAX / SAMPLING
}

/// The upper bound of the first histogram bucket is 2 to this power, in nanoseconds: 256 ns.
const FIRST_BUCKET_LOG2: u32 = 8;
/// The upper bound of the last bucket but one: 17.2 s. The last has no bound.
const LAST_BUCKET_LOG2: u32 = 34;
/// Buckets of a duration histogram, each twice as wide as the one before.
pub(crate) const BUCKETS: usize = (LAST_BUCKET_LOG2 - FIRST_BUCKET_LOG2 + 2) as usize;

/// The largest duration in seconds that bucket `bucket` holds; none for the last.
pub(crate) fn bucket_bound_seconds(bucket: usize) -> Option<f64> {
    (bucket < BUCKETS - 1).then(|| (1u64 << (FIRST_BUCKET_LOG2 as usize + bucket)) as f64 / 1e9)
}

/// The bucket of a duration: the first whose bound is not below it.
fn bucket_of(nanoseconds: u64) -> usize {
    let log2_rounded_up = u64::BITS - nanoseconds.saturating_sub(1).leading_zeros();
    (log2_rounded_up.saturating_sub(FIRST_BUCKET_LOG2) as usize).min(BUCKETS - 1)
}

#[derive(Default)]
struct Stripe {
    counts: [Counts; TRACEPOINTS],
    times: [Times<BUCKETS>; TRACEPOINTS],
}

/// The tracepoints of one store, about 380 KiB.
pub(crate) struct Tracer {
    stripes: Striped<Stripe>,
}

impl Tracer {
    pub(crate) fn new() -> Result<Tracer> {
        Ok(Tracer {
            stripes: Striped::new("tracepoints")?,
        })
    }

    /// Counts a call that begins now and lasts as long as the span.
    #[inline]
    pub(crate) fn begin(&self, tracepoint: Tracepoint, timing: Timing) -> Span<'_> {
        let stripe = stripe::index();
        let mine = self.stripes.at(stripe);
        let counts = &mine.counts[tracepoint as usize];
        let number = counts.begin(stripe);
        let timed = timing == Timing::Always || is_sampled(number);
        Span {
            counts,
            stripe,
            clock: timed.then(|| (&mine.times[tracepoint as usize], Instant::now())),
            good: false,
        }
    }

    /// One row for each tracepoint that was entered at least once, in the order of the table.
    pub(crate) fn rows(&self) -> Vec<Row> {
        NAMES
            .iter()
            .map(|&(tracepoint, name)| self.row(tracepoint, name))
            .filter(|row| row.begin > 0)
            .collect()
    }

    fn row(&self, tracepoint: Tracepoint, name: &'static str) -> Row {
        let mut row = Row { name, ..Row::default() };
        let (mut sum, mut min, mut max) = (0u64, u64::MAX, 0u64);
        for stripe in self.stripes.iter() {
            let counted = stripe.counts[tracepoint as usize].look();
            row.begin += counted.begin;
            row.good += counted.good;
            row.bad += counted.bad;
            let timed = stripe.times[tracepoint as usize].look(&mut row.buckets);
            sum += timed.sum;
            min = min.min(timed.min);
            max = max.max(timed.max);
        }
        row.on_fly = row.begin - row.good - row.bad;
        let timed: u64 = row.buckets.iter().sum();
        if timed > 0 {
            row.timed_seconds = sum as f64 / 1e9;
            row.min_us = min as f64 / 1e3;
            row.max_us = max as f64 / 1e3;
            // A call that is being recorded may be in the sum and not yet in a bucket: keep the average credible.
            row.avg_us = (sum as f64 / 1e3 / timed as f64).clamp(row.min_us, row.max_us);
            row.total_us = row.avg_us * (row.good + row.bad) as f64;
        }
        row
    }
}

/// One call of an operation. Dropped before its end is said, it counts as bad: that is an early return by `?` or a panic.
#[must_use = "a span that is dropped at once counts as a bad end"]
pub(crate) struct Span<'a> {
    counts: &'a Counts,
    stripe: usize,
    /// Where a timed call puts its duration, and when it began.
    clock: Option<(&'a Times<BUCKETS>, Instant)>,
    good: bool,
}

impl Span<'_> {
    /// The call did what it was asked to.
    #[inline]
    pub(crate) fn good(self) {
        self.end(true);
    }

    /// The call ended, well or not.
    #[inline]
    pub(crate) fn end(mut self, ok: bool) {
        self.good = ok;
    }
}

impl Drop for Span<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((times, started)) = self.clock {
            let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            times.record(nanoseconds, bucket_of(nanoseconds));
        }
        self.counts.end(self.stripe, self.good);
    }
}

/// What one tracepoint has seen, over all threads.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Row {
    /// The documented name, `TP_MMC_META_PUT`.
    pub(crate) name: &'static str,
    pub(crate) begin: u64,
    pub(crate) good: u64,
    pub(crate) bad: u64,
    /// Begun and not ended.
    pub(crate) on_fly: u64,
    /// The shortest timed call, microseconds; 0 as long as no timed call has finished, like the next three.
    pub(crate) min_us: f64,
    pub(crate) max_us: f64,
    pub(crate) avg_us: f64,
    /// The average times the finished calls.
    pub(crate) total_us: f64,
    /// Seconds spent in timed calls: the sum of the histogram.
    pub(crate) timed_seconds: f64,
    /// Timed calls by duration, see [`bucket_bound_seconds`]; not cumulative.
    pub(crate) buckets: [u64; BUCKETS],
}

impl Row {
    /// The name as a metric label has it: `put`, `batch_get`, `local_put`.
    pub(crate) fn operation(&self) -> String {
        let name = self.name.strip_prefix("TP_MMC_").unwrap_or(self.name);
        name.strip_prefix("META_").unwrap_or(name).to_ascii_lowercase()
    }
}

/// The table of `/metrics/ptracer`, every row under the same local time. A value wider than its column is not cut.
pub(crate) fn render(rows: &[Row], time: &str) -> String {
    let mut table = format!("{:<23}{:<40}", "TIME", "NAME");
    for title in [
        "BEGIN",
        "GOOD_END",
        "BAD_END",
        "ON_FLY",
        "MIN(us)",
        "MAX(us)",
        "AVG(us)",
        "TOTAL(us)",
    ] {
        let _ = write!(table, "{title:<15}"); // writing to a string can't fail, here and below
    }
    table.push('\n');
    for row in rows {
        let _ = write!(table, "{time:<23}{:<40}", row.name);
        for count in [row.begin, row.good, row.bad, row.on_fly] {
            let _ = write!(table, "{count:<15}");
        }
        for microseconds in [row.min_us, row.max_us, row.avg_us, row.total_us] {
            let _ = write!(table, "{microseconds:<15.3}");
        }
        table.push('\n');
    }
    table
}

/// Now, as the clock on the wall has it: `2026-01-05 14:57:03`.
///
/// The C library reads `TZ` the first time that anybody in the process asks, without regard to a host that changes its
/// environment from another thread, and takes a lock of its own for it. So this is for the admin port, not the data path.
pub(crate) fn local_time_text() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(since_epoch.as_secs()).unwrap_or_default();
    let mut calendar = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are to live locals of the types that `localtime_r` asks for. It returns null, or the second
    // one with every field of it written, which then lives to the end of this function.
    let Some(local) = (unsafe { libc::localtime_r(&seconds, calendar.as_mut_ptr()).as_ref() }) else {
        return format!("@{seconds}"); // no calendar reaches that far: say the seconds
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        i64::from(local.tm_year) + 1900,
        local.tm_mon + 1,
        local.tm_mday,
        local.tm_hour,
        local.tm_min,
        local.tm_sec
    )
}

#[cfg(test)]
mod tests;
