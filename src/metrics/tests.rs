use super::*;
use crate::trace::{Timing, Tracepoint};
use std::collections::HashSet;
use std::thread;

fn documented(alloc: u64, remove: u64, get: u64, evict: u64, keys: u64) -> String {
    format!(
        "# HELP memcache_alloc_operations_total Total number of allocation operations\n\
         # TYPE memcache_alloc_operations_total counter\n\
         memcache_alloc_operations_total {alloc}\n\
         # HELP memcache_remove_operations_total Total number of remove operations\n\
         # TYPE memcache_remove_operations_total counter\n\
         memcache_remove_operations_total {remove}\n\
         # HELP memcache_get_operations_total Total number of get operations\n\
         # TYPE memcache_get_operations_total counter\n\
         memcache_get_operations_total {get}\n\
         # HELP memcache_evict_operations_total Total number of eviction operations\n\
         # TYPE memcache_evict_operations_total counter\n\
         memcache_evict_operations_total {evict}\n\
         # HELP memcache_stored_keys Current number of stored keys\n\
         # TYPE memcache_stored_keys gauge\n\
         memcache_stored_keys {keys}\n"
    )
}

fn gauges_of(segments: &[(&'static str, u32, u64, u64)]) -> Gauges {
    let segment = |&(medium, rank, capacity, allocated)| SegmentGauge {
        medium,
        rank,
        capacity,
        allocated,
    };
    Gauges {
        segments: segments.iter().map(segment).collect(),
        ..Gauges::default()
    }
}

/// A scrape of a store that has seen a bit of everything.
fn used() -> (Metrics, Tracer, Gauges) {
    let (metrics, tracer) = (Metrics::new().unwrap(), Tracer::new().unwrap());
    metrics.add(Counter::AllocOperations, 68);
    metrics.add(Counter::GetOperations, 60);
    metrics.add(Counter::GetOperations, 8);
    metrics.add(Counter::PutBytes, 1 << 50);
    metrics.fail(error::MMC_ERR_NO_SPACE);
    metrics.fail(-77);
    tracer.begin(Tracepoint::Put, Timing::Always).good();
    tracer.begin(Tracepoint::LocalBatchGet, Timing::Always).end(false);
    let mut gauges = gauges_of(&[("DRAM", 1, 8192, 4096), ("HBM", 0, 4096, 0), ("DRAM", 1, 4096, 4096)]);
    gauges.stored_keys = 7;
    (metrics, tracer, gauges)
}

#[test]
fn the_documented_families_come_first_byte_for_byte() {
    let (metrics, tracer) = (Metrics::new().unwrap(), Tracer::new().unwrap());
    let fresh = metrics.exposition(&tracer, &Gauges::default());
    assert!(fresh.starts_with(&documented(0, 0, 0, 0, 0)), "{fresh}");
    metrics.add(Counter::RemoveOperations, 3);
    metrics.add(Counter::EvictOperations, 2);
    metrics.add(Counter::AllocOperations, 68);
    metrics.add(Counter::GetOperations, 68);
    let gauges = Gauges {
        stored_keys: 10_000_000,
        ..Gauges::default()
    };
    for _ in 0..2 {
        let text = metrics.exposition(&tracer, &gauges);
        assert!(text.starts_with(&documented(68, 3, 68, 2, 10_000_000)), "{text}");
    }
}

#[test]
fn the_other_families_are_sorted_described_and_well_named() {
    let (metrics, tracer, gauges) = used();
    let text = metrics.exposition(&tracer, &gauges);
    assert!(text.ends_with('\n'));
    let lines: Vec<&str> = text.lines().collect();
    let names = |keyword: &str| -> Vec<&str> {
        lines
            .iter()
            .filter_map(|line| line.strip_prefix(keyword)?.split(' ').next())
            .collect()
    };
    let families = names("# TYPE ");
    assert_eq!(families, names("# HELP "), "each family has its help, and in place");
    assert_eq!(families[..5], DOCUMENTED);
    assert!(families[5..].is_sorted());
    assert_eq!(
        families.iter().collect::<HashSet<_>>().len(),
        families.len(),
        "no family comes twice"
    );
    for line in lines.iter().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(name.starts_with("memcache_"), "{line}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
    }
    let series: Vec<&str> = lines
        .iter()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect();
    assert_eq!(
        series.iter().collect::<HashSet<_>>().len(),
        series.len(),
        "no series comes twice"
    );
}

#[test]
fn a_large_count_is_written_in_full() {
    let (metrics, tracer, gauges) = used();
    assert!(
        metrics
            .exposition(&tracer, &gauges)
            .contains("\nmemcache_put_bytes_total 1125899906842624\n")
    );
}

#[test]
fn failures_are_counted_by_reason_and_unknown_codes_are_the_callbacks() {
    let (metrics, tracer, gauges) = used();
    let text = metrics.exposition(&tracer, &gauges);
    assert!(
        text.contains("\nmemcache_failures_total{reason=\"no_space\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("\nmemcache_failures_total{reason=\"callback\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("\nmemcache_failures_total{reason=\"not_found\"} 0\n"),
        "{text}"
    );
    assert!(!text.contains("mmc_ok"), "{text}");
    assert_eq!(text.matches("memcache_failures_total{").count(), error::NAMES.len());
}

#[test]
fn segments_of_one_place_are_summed_and_a_gone_segment_leaves_no_series() {
    let (metrics, tracer, gauges) = used();
    let text = metrics.exposition(&tracer, &gauges);
    for line in [
        "memcache_segments{medium=\"DRAM\",rank=\"1\"} 2",
        "memcache_capacity_bytes{medium=\"DRAM\",rank=\"1\"} 12288",
        "memcache_allocated_bytes{medium=\"DRAM\",rank=\"1\"} 8192",
        "memcache_capacity_bytes{medium=\"HBM\",rank=\"0\"} 4096",
        "memcache_allocated_bytes{medium=\"HBM\",rank=\"0\"} 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} is missing in {text}");
    }
    let later = metrics.exposition(&tracer, &gauges_of(&[("DRAM", 1, 8192, 0)]));
    assert!(!later.contains("HBM"), "{later}");
    assert!(
        later.contains("\nmemcache_capacity_bytes{medium=\"DRAM\",rank=\"1\"} 8192\n"),
        "{later}"
    );
}

#[test]
fn calls_are_shown_by_operation_and_result() {
    let (metrics, tracer, gauges) = used();
    let _open = tracer.begin(Tracepoint::Put, Timing::Always);
    let text = metrics.exposition(&tracer, &gauges);
    for line in [
        "memcache_calls_total{operation=\"put\",result=\"good\"} 1",
        "memcache_calls_total{operation=\"put\",result=\"bad\"} 0",
        "memcache_calls_total{operation=\"local_batch_get\",result=\"bad\"} 1",
        "memcache_calls_in_progress{operation=\"put\"} 1",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} is missing in {text}");
    }
}

#[test]
fn a_histogram_is_cumulative_and_ends_in_all_calls() {
    let mut row = Row {
        name: "TP_MMC_META_PUT",
        timed_seconds: 20.5,
        ..Row::default()
    };
    row.buckets[0] = 3;
    row.buckets[2] = 4;
    *row.buckets.last_mut().unwrap() = 1; // 17 s were not enough for it
    let families = Families::new().unwrap();
    families.durations.set(&[
        row,
        Row {
            name: "TP_MMC_META_GET",
            begin: 1,
            ..Row::default()
        },
    ]);
    let text = families.text();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("memcache_operation_duration_seconds"))
        .collect();
    let prefix = "memcache_operation_duration_seconds";
    assert_eq!(lines[1], format!("# TYPE {prefix} histogram"));
    assert_eq!(
        lines[2],
        format!("{prefix}_bucket{{operation=\"put\",le=\"0.000000256\"}} 3")
    );
    assert_eq!(
        lines[3],
        format!("{prefix}_bucket{{operation=\"put\",le=\"0.000000512\"}} 3")
    );
    assert_eq!(
        lines[4],
        format!("{prefix}_bucket{{operation=\"put\",le=\"0.000001024\"}} 7")
    );
    let tail = &lines[lines.len() - 4..];
    assert_eq!(
        tail[0],
        format!("{prefix}_bucket{{operation=\"put\",le=\"17.179869184\"}} 7")
    );
    assert_eq!(tail[1], format!("{prefix}_bucket{{operation=\"put\",le=\"+Inf\"}} 8"));
    assert_eq!(tail[2], format!("{prefix}_sum{{operation=\"put\"}} 20.5"));
    assert_eq!(tail[3], format!("{prefix}_count{{operation=\"put\"}} 8"));
    assert!(
        !lines.iter().any(|line| line.contains("\"get\"")),
        "a call without an end has no duration"
    );
}

#[test]
fn the_summary_opens_with_the_documented_lines() {
    let (metrics, ..) = used();
    let summary = metrics.summary();
    assert!(
        summary.starts_with(
            "=== MemCache Metrics Summary ===\nAllocation Operations: 68\nRemove Operations: 0\n\
             Get Operations: 68\nEvict Operations: 0\n"
        ),
        "{summary}"
    );
    assert!(summary.ends_with("\nFailures: 2\n"), "{summary}");
}

#[test]
fn totals_are_exact_under_four_threads() {
    const ADDITIONS: u64 = 50_000;
    let metrics = Metrics::new().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..ADDITIONS).for_each(|_| metrics.add(Counter::GetBytes, 3)));
        }
    });
    assert_eq!(metrics.total(Counter::GetBytes), 4 * 3 * ADDITIONS);
    assert_eq!(metrics.total(Counter::PutBytes), 0);
}

#[test]
fn two_stores_count_apart_and_scrapes_at_once_are_whole() {
    let (metrics, tracer, gauges) = used();
    let other = Metrics::new().unwrap();
    let expected = metrics.exposition(&tracer, &gauges);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(metrics.exposition(&tracer, &gauges), expected)));
        }
    });
    assert_eq!(other.total(Counter::AllocOperations), 0);
}
