//! What the metrics count, and the table of tracepoints.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mmc::error::{MMC_ERR_EXISTS, MMC_ERR_NO_SPACE, MMC_ERR_NOT_FOUND, MMC_ERR_SIZE_MISMATCH};
use mmc::ffi::batches::{mmc_batch_exist, mmc_batch_query, mmc_batch_remove};
use mmc::ffi::inplace::{mmc_abort, mmc_batch_reserve, mmc_commit, mmc_reserve};
use mmc::ffi::objects::{mmc_exist, mmc_query};
use mmc::ffi::report::mmc_stats;
use mmc::ffi::types::{MMC_MEDIUM_HBM, mmc_key, mmc_object_info, mmc_statistics, mmc_view};

use crate::alone;
use crate::client::{body, exchange, get};
use crate::store::{Barrier, Settings, Store, UNIT, key, on_ranks, with_units};

/// The value of a series of `/metrics`.
fn metric(text: &str, series: &str) -> u64 {
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found
        .unwrap_or_else(|| panic!("no {series} in {text}"))
        .parse()
        .unwrap()
}

fn keys_of(names: &[&str]) -> Vec<mmc_key> {
    names.iter().map(|name| key(name)).collect()
}

fn empty_view() -> mmc_view {
    // SAFETY: all zero is valid.
    let view: mmc_view = unsafe { std::mem::zeroed() };
    mmc_view {
        struct_size: size_of::<mmc_view>() as u32,
        ..view
    }
}

fn empty_info() -> mmc_object_info {
    // SAFETY: all zero is valid.
    let info: mmc_object_info = unsafe { std::mem::zeroed() };
    mmc_object_info {
        struct_size: size_of::<mmc_object_info>() as u32,
        ..info
    }
}

fn reserve(store: &Store, name: &str, size: u64) -> u64 {
    let mut view = empty_view();
    // SAFETY: key and view outlive the call.
    let code = unsafe { mmc_reserve(store.0, key(name), size, std::ptr::null(), &mut view) };
    assert_eq!(code, 0);
    view.token
}

fn batch_remove(store: &Store, names: &[&str]) -> Vec<i32> {
    let (keys, mut codes) = (keys_of(names), vec![1; names.len()]);
    // SAFETY: the arrays have that many elements.
    let code = unsafe { mmc_batch_remove(store.0, keys.as_ptr(), keys.len(), 0, codes.as_mut_ptr()) };
    assert_eq!(code, 0);
    codes
}

/// What the first five families, in their order, should say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    alloc: u64,
    remove: u64,
    get: u64,
    evict: u64,
    stored: u64,
}

/// The head of `/metrics`, copied from the contract.
fn documented(counts: Counts) -> String {
    let Counts {
        alloc,
        remove,
        get,
        evict,
        stored,
    } = counts;
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
         memcache_stored_keys {stored}\n"
    )
}

/// Checks the counts in `/metrics`, in `/metrics/summary` and in `mmc_stats`.
fn check(store: &Store, counts: Counts) {
    let address = store.address();
    let reply = get(&address, "/metrics");
    let (status, content_type, text) = reply.parts();
    assert_eq!((status, content_type), (200, "text/plain; version=0.0.4"));
    let expected = documented(counts);
    assert_eq!(&text[..expected.len().min(text.len())], expected);
    let Counts { alloc, remove, get, .. } = counts;
    let summary = format!(
        "=== MemCache Metrics Summary ===\nAllocation Operations: {alloc}\nRemove Operations: {remove}\nGet Operations: {get}\n"
    );
    assert!(body(&address, "/metrics/summary").starts_with(&summary), "{summary}");
    // SAFETY: all zero is valid.
    let mut statistics: mmc_statistics = unsafe { std::mem::zeroed() };
    statistics.struct_size = size_of::<mmc_statistics>() as u32;
    // SAFETY: room for them is given.
    assert_eq!(unsafe { mmc_stats(store.0, &mut statistics) }, 0);
    let known = Counts {
        alloc: statistics.alloc_operations,
        remove: statistics.remove_operations,
        get: statistics.get_operations,
        evict: statistics.evict_operations,
        stored: statistics.stored_keys,
    };
    assert_eq!(known, counts);
}

#[test]
fn the_five_families_count_objects_failures_included() {
    let store = Store::open(&with_units(16));
    let mut counts = Counts {
        alloc: 0,
        remove: 0,
        get: 0,
        evict: 0,
        stored: 0,
    };
    check(&store, counts);

    for name in ["a", "b", "c", "d"] {
        store.put(name, &[1; 4096]).unwrap();
    }
    assert_eq!(store.put("a", b"1").unwrap_err().0, MMC_ERR_EXISTS);
    assert_eq!(
        store.put("large", &vec![1; 16 * 4096 + 1]).unwrap_err().0,
        MMC_ERR_NO_SPACE
    );
    let names = ["a", "e", "f"].map(str::to_owned);
    assert_eq!(store.batch_put(&names, &[1; 4096], None), [MMC_ERR_EXISTS, 0, 0]);
    (counts.alloc, counts.stored) = (4 + 2 + 3, 6);
    check(&store, counts);

    let token = reserve(&store, "given-up", 10);
    check(
        &store,
        Counts {
            alloc: counts.alloc + 1,
            ..counts
        },
    );
    // SAFETY: the handle is open, here and below; arrays have as many elements as is said.
    assert_eq!(unsafe { mmc_abort(store.0, token) }, 0);
    let (keys, sizes) = (keys_of(&["g", "a"]), [10u64, 10]);
    let (mut views, mut codes) = ([empty_view(), empty_view()], [1; 2]);
    // SAFETY: as above.
    let code = unsafe {
        mmc_batch_reserve(
            store.0,
            keys.as_ptr(),
            2,
            sizes.as_ptr(),
            std::ptr::null(),
            0,
            views.as_mut_ptr(),
            codes.as_mut_ptr(),
        )
    };
    assert_eq!((code, codes), (0, [0, MMC_ERR_EXISTS]));
    counts.alloc += 1 + 2;
    check(&store, counts);
    // SAFETY: as above.
    assert_eq!(unsafe { mmc_commit(store.0, views[0].token) }, 0);
    counts.stored += 1;
    check(&store, counts);

    store.get("a", 4096).unwrap();
    assert_eq!(store.get("nothing", 10).unwrap_err().0, MMC_ERR_NOT_FOUND);
    assert_eq!(store.get("b", 10).unwrap_err().0, MMC_ERR_SIZE_MISMATCH);
    let codes = store.batch_get(&["b", "nothing", "g"], 4096);
    assert_eq!(codes, [0, MMC_ERR_NOT_FOUND, MMC_ERR_SIZE_MISMATCH]);
    counts.get = 3 + 3;
    // Asking is not getting.
    // SAFETY: as above.
    assert_eq!(unsafe { mmc_exist(store.0, key("a"), 0) }, 0);
    body(&store.address(), "/query_key?key=a");
    check(&store, counts);

    store.remove("e").unwrap();
    assert_eq!(store.remove("e").unwrap_err().0, MMC_ERR_NOT_FOUND);
    assert_eq!(batch_remove(&store, &["f", "f", "g"]), [0, MMC_ERR_NOT_FOUND, 0]);
    (counts.remove, counts.stored) = (2 + 3, 4);
    check(&store, counts);

    // Twelve units are free: fourteen more objects drop two, and a batch the rest of what it needs.
    for number in 0..14 {
        store.put(&format!("one-{number}"), &[1; 4096]).unwrap();
    }
    (counts.alloc, counts.evict, counts.stored) = (counts.alloc + 14, 2, 16);
    check(&store, counts);
    let names: Vec<String> = (0..10).map(|number| format!("many-{number}")).collect();
    assert_eq!(store.batch_put(&names, &[1; 4096], None), [0; 10]);
    (counts.alloc, counts.evict) = (counts.alloc + 10, 12);
    check(&store, counts);

    assert_eq!(store.remove_all(), 16);
    (counts.remove, counts.stored) = (counts.remove + 16, 0);
    check(&store, counts);
    let text = body(&store.address(), "/metrics");
    assert_eq!(metric(&text, "memcache_get_hits_total"), 4);
    // By calls and by elements of batches alike.
    for (reason, times) in [
        ("exists", 3),
        ("no_space", 1),
        ("not_found", 4),
        ("size_mismatch", 2),
        ("invalid_param", 0),
    ] {
        let series = format!("memcache_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(&text, &series), times, "{series}");
    }
    assert_eq!(metric(&text, "memcache_get_misses_total"), 2);
    assert_eq!(metric(&text, "memcache_allocated_bytes{medium=\"DRAM\",rank=\"0\"}"), 0);
    assert_eq!(
        metric(&text, "memcache_capacity_bytes{medium=\"DRAM\",rank=\"0\"}"),
        16 * UNIT
    );
}

#[test]
fn an_evicted_copy_of_several_is_no_object_dropped() {
    let store = Store::open(&Settings::default());
    store.add_hbm(0, 2 * UNIT);
    store.add_hbm(1, 4 * UNIT);
    let both = on_ranks(MMC_MEDIUM_HBM, &[0, 1]);
    let first = on_ranks(MMC_MEDIUM_HBM, &[0]);
    for name in ["a", "b"] {
        store.put_on(name, &[1; 4096], Some(&both)).unwrap();
    }
    // Rank 1 has room for two more; the third takes the place of a copy that is not its object's last.
    for name in ["c", "d", "e"] {
        store.put_on(name, &[1; 4096], Some(&first)).unwrap();
    }
    let text = body(&store.address(), "/metrics");
    assert_eq!(metric(&text, "memcache_evict_operations_total"), 0, "{text}");
    assert_eq!(metric(&text, "memcache_stored_keys"), 5);
}

#[test]
fn answers_are_counted_refusals_too() {
    let store = Store::open(&with_units(1));
    let address = store.address();
    for before in [0, 6, 12] {
        // A scrape is not among the requests that have been answered when it is made.
        let text = body(&address, "/metrics");
        assert_eq!(metric(&text, "memcache_http_requests_total"), before);
        get(&address, "/nothing");
        get(&address, "/query_key?key=%zz");
        exchange(&address, "POST /health HTTP/1.1\r\n\r\n");
        exchange(&address, "no request at all\r\n\r\n");
        exchange(&address, "HEAD /get_all_keys HTTP/1.0\r\n\r\n");
    }
}

#[test]
fn the_metrics_pass_promtool() {
    let store = Store::open(&with_units(16));
    let promtool = promtool();
    let check = |text: &str| {
        let mut child = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", promtool.display()));
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let refused = check("# TYPE memcache_wrong counter\nmemcache_wrong{a=} 1\n");
    assert!(!refused.status.success(), "promtool takes anything");
    store.add_hbm(3, 16 * UNIT);
    for state in ["fresh", "used"] {
        if state == "used" {
            use_everything(&store);
        }
        let text = body(&store.address(), "/metrics");
        let output = check(&text);
        assert!(
            output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
            "{state}: {output:?}\n{text}"
        );
    }
}

/// The tool that checks Prometheus text: the one on the path, else out of Debian's package, which is kept with the build.
fn promtool() -> PathBuf {
    let is_there = |path: &Path| {
        let output = Command::new(path).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
    let unpacked = kept.join("usr/bin/promtool");
    for place in [Path::new("promtool"), &unpacked] {
        if is_there(place) {
            return place.to_owned();
        }
    }
    // Unpacked under another name, so that what has this name is whole, whoever else runs this test.
    let fresh = kept.with_extension(std::process::id().to_string());
    std::fs::create_dir_all(&fresh).unwrap();
    let script = "{ apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } && \
                  dpkg -x prometheus_*.deb . && rm prometheus_*.deb";
    let output = Command::new("sh").args(["-c", script]).current_dir(&fresh).output();
    let output = output.unwrap();
    let _ = std::fs::rename(&fresh, &kept); // fails when another was first
    let _ = std::fs::remove_dir_all(&fresh);
    assert!(
        is_there(&unpacked),
        "promtool is neither on the path nor to be had from Debian's package `prometheus`; install it.\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    unpacked
}

/// Every operation of the store, each as often as `EXPECTED` says.
fn use_everything(store: &Store) {
    store.put("a", &[1; 4096]).unwrap();
    store.put("b", &[1; 4096]).unwrap();
    store.put("a", &[1; 4096]).unwrap_err();
    // SAFETY: the handle is open, here and below; arrays have as many elements as is said.
    assert_eq!(unsafe { mmc_commit(store.0, reserve(store, "r", 10)) }, 0);
    let names = ["c", "d", "a"].map(str::to_owned);
    store.batch_put(&names, &[1; 4096], None);
    store.get("a", 4096).unwrap();
    store.get("a", 1).unwrap_err();
    store.get("nothing", 1).unwrap_err();
    store.batch_get(&["a", "nothing", "c"], 4096);
    let (keys, mut codes) = (keys_of(&["a", "nothing"]), [1; 2]);
    // SAFETY: as above.
    unsafe {
        mmc_exist(store.0, keys[0], 0);
        mmc_exist(store.0, keys[1], 0);
        mmc_batch_exist(store.0, keys.as_ptr(), 2, 0, codes.as_mut_ptr());
        let mut infos = [empty_info(), empty_info()];
        assert_eq!(mmc_query(store.0, keys[0], 0, &mut infos[0]), 0);
        assert_eq!(
            mmc_batch_query(store.0, keys.as_ptr(), 2, 0, infos.as_mut_ptr(), codes.as_mut_ptr()),
            0
        );
    }
    // Too large to fit without eviction.
    store.put("large", &vec![1; 14 * 4096]).unwrap();
    store.remove("large").unwrap();
    store.remove("large").unwrap_err();
    batch_remove(store, &["a", "nothing"]);
    store.remove_all();
    let segment = store.add_hbm(9, UNIT);
    store.remove_segment(segment);
}

/// Name, good ends and bad ends after `use_everything` with one DRAM segment.
const EXPECTED: [(&str, u64, u64); 21] = [
    ("TP_MMC_META_PUT", 4, 1),
    ("TP_MMC_META_BATCH_PUT", 1, 0),
    ("TP_MMC_META_GET", 2, 1),
    ("TP_MMC_META_BATCH_GET", 1, 0),
    ("TP_MMC_META_UPDATE", 4, 0),
    ("TP_MMC_META_BATCH_UPDATE", 1, 0),
    ("TP_MMC_META_REMOVE", 1, 1),
    ("TP_MMC_META_BATCH_REMOVE", 1, 0),
    ("TP_MMC_META_REMOVE_ALL", 1, 0),
    ("TP_MMC_META_EXIST", 2, 0),
    ("TP_MMC_META_BATCH_EXIST", 1, 0),
    ("TP_MMC_META_QUERY", 1, 0),
    ("TP_MMC_META_BATCH_QUERY", 1, 0),
    ("TP_MMC_META_BM_REGISTER", 2, 0),
    ("TP_MMC_META_BM_UNREGISTER", 1, 0),
    ("TP_MMC_META_ALLOC", 6, 0),
    ("TP_MMC_META_EVICT", 1, 0),
    ("TP_MMC_LOCAL_PUT", 3, 0),
    ("TP_MMC_LOCAL_BATCH_PUT", 1, 0),
    ("TP_MMC_LOCAL_GET", 1, 1),
    ("TP_MMC_LOCAL_BATCH_GET", 1, 0),
];

const HEADER: &str = "TIME                   NAME                                    BEGIN          GOOD_END       BAD_END        \
                      ON_FLY         MIN(us)        MAX(us)        AVG(us)        TOTAL(us)      ";

/// One line of the table, cut at its columns.
#[derive(Debug)]
struct Line {
    time: String,
    name: String,
    counts: [u64; 4],
    times: [f64; 4],
}

fn lines_of(table: &str) -> Vec<Line> {
    assert!(table.ends_with('\n'));
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some(HEADER));
    let line = |text: &str| {
        assert!(text.is_ascii() && text.len() == 23 + 40 + 8 * 15, "{text:?}");
        let column = |from: usize, width: usize| {
            let cell = &text[from..from + width];
            let value = cell.trim_end_matches(' ');
            assert!(
                !value.is_empty() && !value.starts_with(' ') && value.len() < width,
                "{text:?}"
            );
            value
        };
        let number = |place: usize| column(63 + 15 * place, 15);
        let time = |place: usize| {
            let text = number(place);
            assert_eq!(
                text.split_once('.').map(|(_, decimals)| decimals.len()),
                Some(3),
                "{text}"
            );
            text.parse().unwrap()
        };
        Line {
            time: column(0, 23).to_owned(),
            name: column(23, 40).to_owned(),
            counts: [0, 1, 2, 3].map(|place| number(place).parse().unwrap()),
            times: [4, 5, 6, 7].map(time),
        }
    };
    lines.map(line).collect()
}

#[test]
fn the_table_has_a_line_for_every_operation_with_exact_counts() {
    let store = Store::open(&with_units(16));
    use_everything(&store);
    let reply = get(&store.address(), "/metrics/ptracer");
    let (status, content_type, table) = reply.parts();
    assert_eq!((status, content_type), (200, "text/plain"));
    let lines = lines_of(table);
    let counts: Vec<(&str, u64, u64)> = lines
        .iter()
        .map(|line| (line.name.as_str(), line.counts[1], line.counts[2]))
        .collect();
    assert_eq!(counts, EXPECTED);
    for line in &lines {
        let [begin, good, bad, on_fly] = line.counts;
        assert_eq!((begin, on_fly), (good + bad, 0), "{line:?}");
        let [min, max, average, total] = line.times;
        assert!(0.0 < total && min <= average && average <= max, "{line:?}");
        // Three decimals of the average are what is seen of it.
        assert!(
            (total - average * begin as f64).abs() <= 0.0006 * begin as f64,
            "{line:?}"
        );
    }
}

#[test]
fn only_what_was_entered_has_a_line() {
    let store = Store::open(&Settings::default());
    assert_eq!(body(&store.address(), "/metrics/ptracer"), format!("{HEADER}\n"));
    store.add_hbm(0, UNIT);
    let lines = lines_of(&body(&store.address(), "/metrics/ptracer"));
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (lines[0].name.as_str(), lines[0].counts),
        ("TP_MMC_META_BM_REGISTER", [1, 1, 0, 0])
    );
}

#[test]
fn a_call_that_has_not_ended_is_on_the_fly() {
    let barrier = Barrier::default();
    let store = Store::open(&Settings::default());
    barrier.add_to(&store, 4 * UNIT);
    let counts = || -> HashMap<String, [u64; 4]> {
        let lines = lines_of(&body(&store.address(), "/metrics/ptracer"));
        lines.into_iter().map(|line| (line.name, line.counts)).collect()
    };
    std::thread::scope(|scope| {
        let _end = barrier.opens_at_end();
        let put = scope.spawn(|| store.put("a", b"1"));
        barrier.wait_for(1);
        assert_eq!(counts()["TP_MMC_LOCAL_PUT"], [1, 0, 0, 1]);
        barrier.open();
        put.join().unwrap().unwrap();
    });
    assert_eq!(counts()["TP_MMC_LOCAL_PUT"], [1, 1, 0, 0]);
}

#[test]
fn the_time_is_local() {
    // A zone that no machine is set to by chance, and one on the other side of the date.
    for (number, zone) in ["AAA-5:30", "BBB+11:15"].into_iter().enumerate() {
        let path = concat!(module_path!(), "::the_time_is_local");
        alone::run(path, &[("TZ", zone)], || {
            let now = || {
                let output = Command::new("date").arg("+%Y-%m-%d %H:%M:%S").output().unwrap();
                String::from_utf8(output.stdout).unwrap().trim().to_owned()
            };
            let store = Store::open(&with_units(1));
            let before = now();
            let table = body(&store.address(), "/metrics/ptracer");
            let after = now();
            let shown = &lines_of(&table)[0].time;
            assert!(
                *before <= **shown && **shown <= *after,
                "{before} {shown} {after}, zone {number}"
            );
        });
    }
}
