//! Counters of the store, and the Prometheus text and the summary made of them.
//!
//! The truth is in striped cells: [`Metrics::add`] is one addition to a line of this thread's, and nothing of the
//! `prometheus` crate is on that path. A scrape copies the totals into the counters and gauges of a registry that is
//! this store's own (a process may have several stores, so never the crate's global one), gathers and encodes them. The
//! crate checks names and labels when the store opens, keeps families and labels sorted, and writes the text.
//!
//! Three sources meet in a scrape: the counters here, the tracer's calls and durations, and [`Gauges`], a plain snapshot
//! of what the store holds, taken by the caller. So this module asks no other for anything, and a scrape touches no
//! lock of the data path. Each number is right for a moment of the scrape, not all for the same one.
//!
//! Order: the five documented families first, as the contract lists them, then the others by name. Several segments of
//! one medium and rank are one series, their sum: addresses don't belong into labels.
//!
//! To add a counter: a variant of [`Counter`] and its line in [`FAMILIES`], in the same order.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::error::{self, Error, Result, words};
use crate::stripe::{self, Striped};
use crate::trace::{Row, Timing, Tracepoint, Tracer, bucket_bound_seconds};

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Objects for which space was asked, failures included.
    AllocOperations,
    /// Objects asked to be removed by a caller.
    RemoveOperations,
    /// Objects asked for by get, misses included.
    GetOperations,
    /// Objects dropped or moved down by eviction.
    EvictOperations,
    GetHits,
    GetMisses,
    PutBytes,
    GetBytes,
    ExistHits,
    ExistMisses,
    EvictedBytes,
    /// Events that found the queue of the host's callback full.
    EventsDropped,
    LeasesExpired,
    ReservationsExpired,
    HttpRequests,
    /// Copies that left a medium for a slower one, or for one that the object had a copy on already.
    Demotions,
    /// Copies that were made on a faster medium.
    Promotions,
    /// Bytes of the objects of which a copy was made on another medium.
    MovedBytes,
    MoveFailures,
    /// Objects whose bytes were no longer those that were put.
    RottenObjects,
    /// Objects dropped from a medium that has a slower one below it.
    SpillDrops,
    /// Copies on SSD that will not be found after a restart.
    StateLosses,
    HbmHits,
    SsdHits,
}

/// How many there are.
pub(crate) const COUNTERS: usize = FAMILIES.len();

/// Every counter with its family and its line of the summary, in the order of [`Counter`], which is the summary's.
const FAMILIES: [(Counter, &str, &str, &str); 24] = [
    (
        Counter::AllocOperations,
        "memcache_alloc_operations_total",
        "Total number of allocation operations",
        "Allocation Operations",
    ),
    (
        Counter::RemoveOperations,
        "memcache_remove_operations_total",
        "Total number of remove operations",
        "Remove Operations",
    ),
    (
        Counter::GetOperations,
        "memcache_get_operations_total",
        "Total number of get operations",
        "Get Operations",
    ),
    (
        Counter::EvictOperations,
        "memcache_evict_operations_total",
        "Total number of eviction operations",
        "Evict Operations",
    ),
    (
        Counter::GetHits,
        "memcache_get_hits_total",
        "Total number of objects found by get",
        "Get Hits",
    ),
    (
        Counter::GetMisses,
        "memcache_get_misses_total",
        "Total number of objects not found by get",
        "Get Misses",
    ),
    (
        Counter::PutBytes,
        "memcache_put_bytes_total",
        "Total bytes of the objects that were put",
        "Put Bytes",
    ),
    (
        Counter::GetBytes,
        "memcache_get_bytes_total",
        "Total bytes that get has copied out",
        "Get Bytes",
    ),
    (
        Counter::ExistHits,
        "memcache_exist_hits_total",
        "Total number of keys found by exist",
        "Exist Hits",
    ),
    (
        Counter::ExistMisses,
        "memcache_exist_misses_total",
        "Total number of keys not found by exist",
        "Exist Misses",
    ),
    (
        Counter::EvictedBytes,
        "memcache_evicted_bytes_total",
        "Total bytes of the objects dropped or moved down by eviction",
        "Evicted Bytes",
    ),
    (
        Counter::EventsDropped,
        "memcache_events_dropped_total",
        "Total number of events dropped because the queue was full",
        "Events Dropped",
    ),
    (
        Counter::LeasesExpired,
        "memcache_leases_expired_total",
        "Total number of leases that ended by their term",
        "Leases Expired",
    ),
    (
        Counter::ReservationsExpired,
        "memcache_reservations_expired_total",
        "Total number of reservations that ended by their term",
        "Reservations Expired",
    ),
    (
        Counter::HttpRequests,
        "memcache_http_requests_total",
        "Total number of requests that the admin port has answered",
        "HTTP Requests",
    ),
    (
        Counter::Demotions,
        "memcache_demotions_total",
        "Total number of copies that left a medium for a slower one",
        "Demotions",
    ),
    (
        Counter::Promotions,
        "memcache_promotions_total",
        "Total number of copies made on a faster medium",
        "Promotions",
    ),
    (
        Counter::MovedBytes,
        "memcache_moved_bytes_total",
        "Total bytes of the objects that were copied from one medium to another",
        "Moved Bytes",
    ),
    (
        Counter::MoveFailures,
        "memcache_move_failures_total",
        "Total number of moves between media that failed and left the object where it was",
        "Move Failures",
    ),
    (
        Counter::RottenObjects,
        "memcache_rotten_objects_total",
        "Total number of copies dropped because their bytes were no longer those that were put",
        "Rotten Objects",
    ),
    (
        Counter::SpillDrops,
        "memcache_spill_drops_total",
        "Total number of objects dropped because the slower medium below them was too slow, full or failing",
        "Spill Drops",
    ),
    (
        Counter::StateLosses,
        "memcache_state_losses_total",
        "Total number of objects on SSD that a restart will not find because the disk of their segment's state was too slow or failed",
        "State Losses",
    ),
    (
        Counter::HbmHits,
        "memcache_get_hits_device_total",
        "Total number of objects that get has found in device memory",
        "Get Hits Device",
    ),
    (
        Counter::SsdHits,
        "memcache_get_hits_ssd_total",
        "Total number of objects that get has found on SSD",
        "Get Hits SSD",
    ),
];

// A counter's number is its place in every table here.
const _: () = {
    let mut place = 0;
    while place < COUNTERS {
        assert!(FAMILIES[place].0 as usize == place);
        place += 1;
    }
};

/// The documented families, in the documented order.
const DOCUMENTED: [&str; 5] = [
    "memcache_alloc_operations_total",
    "memcache_remove_operations_total",
    "memcache_get_operations_total",
    "memcache_evict_operations_total",
    "memcache_stored_keys",
];

/// Failures are counted by the place of their code in [`error::NAMES`]; codes that are not ours come after the last.
const CALLBACK: usize = error::NAMES.len();

#[derive(Default)]
struct Cells {
    counters: [AtomicU64; COUNTERS],
    failures: [AtomicU64; CALLBACK + 1],
}

/// What the store holds at the moment of a scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges {
    /// Keys readable now.
    pub(crate) stored_keys: u64,
    pub(crate) segments: Vec<SegmentGauge>,
    pub(crate) leases: u64,
    pub(crate) pins: u64,
    pub(crate) reservations: u64,
    /// Processes that are attached.
    pub(crate) guests: u64,
    /// Memory of the index.
    pub(crate) index_bytes: u64,
    /// Memory of objects, allocators and tables, the index not included.
    pub(crate) metadata_bytes: u64,
}

/// One registered segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentGauge {
    /// `HBM`, `DRAM` or `SSD`.
    pub(crate) medium: &'static str,
    pub(crate) rank: u32,
    /// Bytes.
    pub(crate) capacity: u64,
    /// Bytes that the allocator has handed out.
    pub(crate) allocated: u64,
}

/// The counters of one store.
pub(crate) struct Metrics {
    cells: Striped<Cells>,
    /// One scrape at a time: a second would see the first one's series while they are being set.
    families: Mutex<Families>,
}

impl Metrics {
    pub(crate) fn new() -> Result<Metrics> {
        let families =
            Families::new().map_err(|error| Error::Internal(words!("a metric family is refused: {error}")))?;
        Ok(Metrics {
            cells: Striped::new("metrics")?,
            families: Mutex::new(families),
        })
    }

    /// Adds `n` to a counter.
    #[inline]
    pub(crate) fn add(&self, counter: Counter, n: u64) {
        let mine = stripe::index();
        stripe::add(
            mine,
            &self.cells.at(mine).counters[counter as usize],
            n,
            Ordering::Relaxed,
        );
    }

    /// Counts a failure by the code that the caller gets. A code that is none of ours came from the host's callback.
    pub(crate) fn fail(&self, code: i32) {
        debug_assert_ne!(code, error::MMC_OK, "success counted as a failure");
        let place = error::NAMES
            .iter()
            .position(|&(known, _)| known == code)
            .unwrap_or(CALLBACK);
        let mine = stripe::index();
        stripe::add(mine, &self.cells.at(mine).failures[place], 1, Ordering::Relaxed);
    }

    /// A counter over all threads.
    pub(crate) fn total(&self, counter: Counter) -> u64 {
        self.cells
            .iter()
            .map(|cells| cells.counters[counter as usize].load(Ordering::Relaxed))
            .sum()
    }

    /// Every counter over all threads, at its place in [`Counter`].
    pub(crate) fn totals(&self) -> [u64; COUNTERS] {
        FAMILIES.map(|(counter, ..)| self.total(counter))
    }

    fn failures(&self, place: usize) -> u64 {
        self.cells
            .iter()
            .map(|cells| cells.failures[place].load(Ordering::Relaxed))
            .sum()
    }

    /// The body of `/metrics`.
    pub(crate) fn exposition(&self, tracer: &Tracer, gauges: &Gauges) -> String {
        // A scrape sets everything anew, so what a panic left behind does not matter.
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.set_counters(self);
        families.set_gauges(gauges);
        families.set_calls(&tracer.rows());
        families.text()
    }

    /// The body of `/metrics/summary`: the three documented lines, then more.
    pub(crate) fn summary(&self) -> String {
        let mut summary = String::from("=== MemCache Metrics Summary ===\n");
        let mut line = |title: &str, total: u64| {
            let _ = writeln!(summary, "{title}: {total}"); // writing to a string can't fail
        };
        for (counter, _, _, title) in FAMILIES {
            line(title, self.total(counter));
        }
        line("Failures", reasons().map(|(place, _)| self.failures(place)).sum());
        summary
    }
}

/// The places of the failures with their labels: `MMC_ERR_NO_SPACE` is `no_space`.
fn reasons() -> impl Iterator<Item = (usize, String)> {
    let label = |name: &std::ffi::CStr| {
        name.to_string_lossy()
            .trim_start_matches("MMC_ERR_")
            .to_ascii_lowercase()
    };
    let own = error::NAMES
        .iter()
        .enumerate()
        .filter(|(_, (code, _))| *code != error::MMC_OK);
    own.map(move |(place, (_, name))| (place, label(name)))
        .chain([(CALLBACK, "callback".to_string())])
}

/// The registry of one store and a hold on everything in it.
struct Families {
    registry: Registry,
    /// In the order of [`FAMILIES`].
    counters: Vec<IntCounter>,
    failures: IntCounterVec,
    calls: IntCounterVec,
    calls_in_progress: IntGaugeVec,
    durations: Durations,
    stored_keys: IntGauge,
    leases: IntGauge,
    pins: IntGauge,
    reservations: IntGauge,
    guests: IntGauge,
    index_bytes: IntGauge,
    metadata_bytes: IntGauge,
    segments: IntGaugeVec,
    capacity_bytes: IntGaugeVec,
    allocated_bytes: IntGaugeVec,
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        let registry = Registry::new();
        let counter = |name, help| add_to(&registry, IntCounter::new(name, help)?);
        let counters = |name, help, labels| add_to(&registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let gauge = |name, help| add_to(&registry, IntGauge::new(name, help)?);
        let gauges = |name, help, labels| add_to(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?);
        let place = &["medium", "rank"];
        Ok(Families {
            counters: FAMILIES
                .iter()
                .map(|&(_, name, help, _)| counter(name, help))
                .collect::<prometheus::Result<_>>()?,
            failures: counters(
                "memcache_failures_total",
                "Total number of failures by reason",
                &["reason"],
            )?,
            calls: counters(
                "memcache_calls_total",
                "Total number of finished calls, a batch counting once",
                &["operation", "result"],
            )?,
            calls_in_progress: gauges(
                "memcache_calls_in_progress",
                "Current number of calls that have begun and not ended",
                &["operation"],
            )?,
            durations: add_to(&registry, Durations::new()?)?,
            stored_keys: gauge("memcache_stored_keys", "Current number of stored keys")?,
            leases: gauge("memcache_leases", "Current number of leases")?,
            pins: gauge("memcache_pins", "Current number of pins")?,
            reservations: gauge("memcache_reservations", "Current number of open reservations")?,
            guests: gauge("memcache_attached_processes", "Current number of attached processes")?,
            index_bytes: gauge("memcache_index_bytes", "Memory of the index in bytes")?,
            metadata_bytes: gauge(
                "memcache_metadata_bytes",
                "Memory of objects, allocators and tables in bytes, without the index",
            )?,
            segments: gauges("memcache_segments", "Current number of registered segments", place)?,
            capacity_bytes: gauges(
                "memcache_capacity_bytes",
                "Capacity of the registered segments in bytes",
                place,
            )?,
            allocated_bytes: gauges(
                "memcache_allocated_bytes",
                "Bytes of the registered segments that are handed out",
                place,
            )?,
            registry,
        })
    }

    fn set_counters(&self, metrics: &Metrics) {
        for (&(counter, ..), copy) in FAMILIES.iter().zip(&self.counters) {
            copy.reset();
            copy.inc_by(metrics.total(counter));
        }
        self.failures.reset();
        for (place, reason) in reasons() {
            self.failures
                .with_label_values(&[reason])
                .inc_by(metrics.failures(place));
        }
    }

    fn set_gauges(&self, gauges: &Gauges) {
        self.stored_keys.set(shown(gauges.stored_keys));
        self.leases.set(shown(gauges.leases));
        self.pins.set(shown(gauges.pins));
        self.reservations.set(shown(gauges.reservations));
        self.guests.set(shown(gauges.guests));
        self.index_bytes.set(shown(gauges.index_bytes));
        self.metadata_bytes.set(shown(gauges.metadata_bytes));
        // A segment that is gone takes its series along.
        for by_place in [&self.segments, &self.capacity_bytes, &self.allocated_bytes] {
            by_place.reset();
        }
        for segment in &gauges.segments {
            let place = [segment.medium, &segment.rank.to_string()];
            self.segments.with_label_values(&place).inc();
            self.capacity_bytes
                .with_label_values(&place)
                .add(shown(segment.capacity));
            self.allocated_bytes
                .with_label_values(&place)
                .add(shown(segment.allocated));
        }
    }

    fn set_calls(&self, rows: &[Row]) {
        self.calls.reset();
        self.calls_in_progress.reset();
        for row in rows {
            let operation = row.operation();
            self.calls
                .with_label_values(&[operation.as_str(), "good"])
                .inc_by(row.good);
            self.calls
                .with_label_values(&[operation.as_str(), "bad"])
                .inc_by(row.bad);
            self.calls_in_progress
                .with_label_values(&[operation.as_str()])
                .set(shown(row.on_fly));
        }
        self.durations.set(rows);
    }

    /// The registry sorts by name; the documented families are moved to the front.
    fn text(&self) -> String {
        let mut families = self.registry.gather();
        families.sort_by_key(|family| {
            DOCUMENTED
                .iter()
                .position(|&name| name == family.name())
                .unwrap_or(DOCUMENTED.len())
        });
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            // Only a family without a name or without series is refused, and the registry gathers none. A comment line
            // is still valid exposition text.
            let _ = writeln!(text, "# incomplete: {error}");
        }
        text
    }
}

/// Registers a metric and hands back a hold on it: clones share their values.
fn add_to<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// The crate's gauges are signed; a number beyond them is shown as the largest.
fn shown(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The tracer's histograms as a collector: the crate's own histogram can only observe, one duration at a time.
#[derive(Clone)]
struct Durations {
    desc: Desc,
    series: Arc<Mutex<Vec<Metric>>>,
}

impl Durations {
    fn new() -> prometheus::Result<Durations> {
        let desc = Desc::new(
            "memcache_operation_duration_seconds".to_string(),
            "Duration of the timed calls: all of the long operations, one in 64 of the short ones".to_string(),
            vec!["operation".to_string()],
            HashMap::new(),
        )?;
        Ok(Durations {
            desc,
            series: Arc::default(),
        })
    }

    fn set(&self, rows: &[Row]) {
        let series = rows
            .iter()
            .map(histogram)
            .filter(|metric| metric.get_histogram().get_sample_count() > 0)
            .collect();
        *self.series.lock().unwrap_or_else(PoisonError::into_inner) = series;
    }
}

impl Collector for Durations {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(self.series.lock().unwrap_or_else(PoisonError::into_inner).clone());
        vec![family]
    }
}

/// One tracepoint's durations in the crate's form: buckets count all that is not above their bound, and the encoder adds
/// `+Inf`, which is all calls.
fn histogram(row: &Row) -> Metric {
    let mut below = 0;
    let mut buckets = Vec::with_capacity(row.buckets.len());
    for (place, &count) in row.buckets.iter().enumerate() {
        below += count;
        if let Some(bound) = bucket_bound_seconds(place) {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(below);
    histogram.set_sample_sum(row.timed_seconds);
    let mut label = LabelPair::default();
    label.set_name("operation".to_string());
    label.set_value(row.operation());
    let mut metric = Metric::from_label(vec![label]);
    metric.set_histogram(histogram);
    metric
}

/// Seconds that so many look-ups, or gets of less than 1 MiB, spend on tracepoints and counters, for benchmarks to set against the calls.
#[doc(hidden)]
pub fn cost_of_counting(calls: usize, are_gets: bool) -> Result<f64> {
    let (tracer, metrics) = (Tracer::new()?, Metrics::new()?);
    let span = |tracepoint| tracer.begin(tracepoint, Timing::Sampled);
    let start = std::time::Instant::now();
    for _ in 0..calls {
        if are_gets {
            metrics.add(Counter::GetOperations, 1);
            let begun = span(Tracepoint::Get);
            metrics.add(Counter::GetHits, 1);
            begun.good();
            span(Tracepoint::LocalGet).good();
            metrics.add(Counter::GetBytes, 1);
        } else {
            let begun = span(Tracepoint::Exist);
            metrics.add(Counter::ExistHits, 1);
            begun.good();
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests;
