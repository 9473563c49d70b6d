use super::*;
use std::thread;
use std::time::Duration;

fn row(tracer: &Tracer, name: &str) -> Row {
    tracer
        .rows()
        .into_iter()
        .find(|row| row.name == name)
        .unwrap_or_else(|| panic!("no row {name}"))
}

#[test]
fn a_fresh_table_is_its_header() {
    let header = "TIME                   NAME                                    BEGIN          GOOD_END       \
                  BAD_END        ON_FLY         MIN(us)        MAX(us)        AVG(us)        TOTAL(us)      \n";
    assert_eq!(render(&Tracer::new().unwrap().rows(), "2026-01-05 14:57:03"), header);
}

#[test]
fn rows_are_rendered_as_documented() {
    let sample = |name, calls, min_us, max_us, avg_us, total_us| Row {
        name,
        begin: calls,
        good: calls,
        min_us,
        max_us,
        avg_us,
        total_us,
        ..Row::default()
    };
    let rows = [
        sample("TP_MMC_META_PUT", 8, 31.880, 131.870, 59.37875, 475.030),
        sample("TP_MMC_META_BATCH_PUT", 6, 66.610, 363.770, 290.748, 1744.490),
    ];
    let table = render(&rows, "2026-01-05 14:57:03");
    let lines: Vec<&str> = table.split_terminator('\n').collect();
    assert_eq!(
        lines[1],
        "2026-01-05 14:57:03    TP_MMC_META_PUT                         8              8              \
         0              0              31.880         131.870        59.379         475.030        "
    );
    assert_eq!(
        lines[2],
        "2026-01-05 14:57:03    TP_MMC_META_BATCH_PUT                   6              6              \
         0              0              66.610         363.770        290.748        1744.490       "
    );
    assert!(table.ends_with('\n') && lines.len() == 3);
    assert!(lines.iter().all(|line| line.len() == 23 + 40 + 8 * 15));
}

#[test]
fn ends_are_told_apart_and_a_dropped_span_is_bad() {
    let tracer = Tracer::new().unwrap();
    tracer.begin(Tracepoint::Put, Timing::Always).good();
    tracer.begin(Tracepoint::Put, Timing::Always).end(false);
    tracer.begin(Tracepoint::Put, Timing::Always).end(true);
    drop(tracer.begin(Tracepoint::Put, Timing::Always));
    let panicked = thread::scope(|scope| {
        scope
            .spawn(|| {
                let _span = tracer.begin(Tracepoint::Put, Timing::Always);
                std::panic::resume_unwind(Box::new("a panic without its message"));
            })
            .join()
    });
    assert!(panicked.is_err());
    let row = row(&tracer, "TP_MMC_META_PUT");
    assert_eq!((row.begin, row.good, row.bad, row.on_fly), (5, 2, 3, 0));
}

#[test]
fn only_entered_tracepoints_have_rows_in_the_documented_order() {
    let tracer = Tracer::new().unwrap();
    for tracepoint in [Tracepoint::LocalBatchGet, Tracepoint::Exist, Tracepoint::Put] {
        tracer.begin(tracepoint, Timing::Sampled).good();
    }
    let names: Vec<&str> = tracer.rows().iter().map(|row| row.name).collect();
    assert_eq!(
        names,
        ["TP_MMC_META_PUT", "TP_MMC_META_EXIST", "TP_MMC_LOCAL_BATCH_GET"]
    );
}

#[test]
fn an_open_span_is_on_the_fly_and_has_no_times_yet() {
    let tracer = Tracer::new().unwrap();
    let span = tracer.begin(Tracepoint::Get, Timing::Always);
    let open = row(&tracer, "TP_MMC_META_GET");
    assert_eq!(
        (open.begin, open.on_fly, open.min_us, open.max_us, open.total_us),
        (1, 1, 0.0, 0.0, 0.0)
    );
    span.good();
    assert_eq!(row(&tracer, "TP_MMC_META_GET").on_fly, 0);
}

#[test]
fn times_are_those_of_the_calls() {
    let tracer = Tracer::new().unwrap();
    for milliseconds in [2, 10] {
        let span = tracer.begin(Tracepoint::Evict, Timing::Always);
        thread::sleep(Duration::from_millis(milliseconds));
        span.good();
    }
    let row = row(&tracer, "TP_MMC_META_EVICT");
    assert!(
        row.min_us >= 2_000.0 && row.max_us >= 10_000.0 && row.min_us < row.max_us,
        "{row:?}"
    );
    assert!((row.avg_us - (row.min_us + row.max_us) / 2.0).abs() < 0.001, "{row:?}");
    assert!((row.total_us - 2.0 * row.avg_us).abs() < 0.001, "{row:?}");
    assert!((row.timed_seconds * 1e6 - row.total_us).abs() < 0.001, "{row:?}");
}

#[test]
fn a_single_sampled_call_is_timed() {
    let tracer = Tracer::new().unwrap();
    tracer.begin(Tracepoint::Query, Timing::Sampled).good();
    let row = row(&tracer, "TP_MMC_META_QUERY");
    assert_eq!(row.buckets.iter().sum::<u64>(), 1);
    assert!(row.avg_us > 0.0 && row.total_us == row.avg_us, "{row:?}");
}

#[test]
fn one_call_in_sixty_four_is_sampled_in_every_phase_of_a_round() {
    let sampled: Vec<u64> = (0..640_000).filter(|&number| is_sampled(number)).collect();
    assert!((9_995..=10_005).contains(&sampled.len()), "{} of 640000", sampled.len());
    assert_eq!(sampled[0], 0);
    assert!(
        sampled
            .windows(2)
            .all(|pair| [34, 55, 89].contains(&(pair[1] - pair[0])))
    );
    let phases: std::collections::HashSet<u64> = sampled.iter().map(|number| number % 64).collect();
    assert_eq!(phases.len(), 64);

    let tracer = Tracer::new().unwrap();
    (0..6400).for_each(|_| tracer.begin(Tracepoint::Exist, Timing::Sampled).good());
    let row = row(&tracer, "TP_MMC_META_EXIST");
    let timed: u64 = row.buckets.iter().sum();
    assert_eq!((row.begin, row.good), (6400, 6400));
    assert!((98..=102).contains(&timed), "{timed} of 6400 calls were timed");
    assert!((row.total_us - row.avg_us * 6400.0).abs() < 0.001);
}

#[test]
fn counts_are_exact_and_never_negative_under_four_threads() {
    const CALLS: u64 = 50_000;
    let tracer = Tracer::new().unwrap();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for call in 0..CALLS {
                        tracer.begin(Tracepoint::Get, Timing::Sampled).end(call % 5 != 0);
                    }
                })
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            for row in tracer.rows() {
                assert_eq!(row.on_fly, row.begin - row.good - row.bad, "{row:?}"); // or the subtraction panics
                assert!(row.min_us <= row.avg_us && row.avg_us <= row.max_us, "{row:?}");
            }
        }
    });
    let row = row(&tracer, "TP_MMC_META_GET");
    assert_eq!(
        (row.begin, row.good, row.bad, row.on_fly),
        (4 * CALLS, 4 * CALLS / 5 * 4, 4 * CALLS / 5, 0)
    );
}

#[test]
fn a_duration_lies_within_the_bounds_of_its_bucket() {
    for (nanoseconds, bucket) in [(0, 0), (1, 0), (256, 0), (257, 1), (512, 1), (513, 2), (1 << 34, 26)] {
        assert_eq!(bucket_of(nanoseconds), bucket, "{nanoseconds} ns");
    }
    assert_eq!(bucket_of((1 << 34) + 1), BUCKETS - 1);
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    assert_eq!(bucket_bound_seconds(0), Some(256e-9));
    assert_eq!(bucket_bound_seconds(26), Some(17.179869184));
    assert_eq!(bucket_bound_seconds(BUCKETS - 1), None);
}

#[test]
fn an_operation_is_its_name_without_the_prefix() {
    let operation = |name| Row { name, ..Row::default() }.operation();
    assert_eq!(operation("TP_MMC_META_BATCH_PUT"), "batch_put");
    assert_eq!(operation("TP_MMC_LOCAL_PUT"), "local_put");
}

#[test]
fn local_time_has_the_documented_shape() {
    let time = local_time_text();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99 99:99:99", "{time}");
}
