//! What the admin port costs a thread that works: `/metrics` ten times a second, and once a second all keys of a million.
//!
//! The thread gets objects of 64 KiB, or asks for keys, in windows with the scraping and windows without. It stays on the first core and
//! the client that scrapes on the last one, so that the client's own work is not what is measured; where the library's threads run is the
//! kernel's choice, as it is in a host.

use std::ffi::CString;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mmc::ffi::lifetime::{mmc_config_init, mmc_init};
use mmc::ffi::report::mmc_http_address;
use mmc::ffi::types::{MMC_ON, mmc_config};

use crate::Setting;
use crate::cache::{Copies, LookUps, Work};
use crate::look_ups::{OBJECTS, fill};
use crate::report::{Operation, Part, Report, Series, Who, alternate};
use crate::span::Span;
use crate::support::{KIB, Key, MIB, Memory, Store, check, key, shuffled};

const SIZE: usize = 64 * KIB;
/// Objects of that size: together more than the processor caches.
const LARGE: usize = 256 * MIB / SIZE;
/// Operations between two looks at the clock.
const STEP: usize = 64;
const GET: &str = "get while scraped";
const EXIST: &str = "exist while scraped";

pub fn measure(report: &Report, setting: &Setting) {
    if !setting.wants(&[GET, EXIST]) {
        return;
    }
    report.begin("the admin port");
    let store = open();
    let memory = Memory::new(LARGE * SIZE);
    let large: Vec<Key> = (0..LARGE as u64).map(|number| key(number | 1 << 60)).collect();
    let order = shuffled(LARGE);
    let work = Work {
        keys: &large,
        memory: &memory,
        size: SIZE,
        order: &order,
        shift: 0,
    };
    // They fill the store's own memory; what comes after lies in the span.
    store.put_all(&work, 0..LARGE);
    let span = Span::new(OBJECTS);
    span.register(&store);
    fill(&store);
    let small: Vec<Key> = shuffled(OBJECTS)[..OBJECTS / 4]
        .iter()
        .map(|number| key(*number as u64))
        .collect();

    let address = address(&store);
    let length = Duration::from_millis(if setting.is_quick { 1000 } else { 1500 });
    let columns = alternate(setting.rounds, &[false, true], |_, is_scraped| {
        [
            window(&address, *is_scraped, length, |turn| {
                let start = turn * STEP % LARGE;
                store.get_all(&work, start..start + STEP);
            }),
            window(&address, *is_scraped, length, |turn| {
                let start = turn * STEP % (small.len() - STEP);
                assert_eq!(LookUps::count(&store, &small[start..start + STEP]), STEP);
            }),
        ]
    });
    for (number, (name, bytes)) in [(GET, SIZE), (EXIST, 0)].into_iter().enumerate() {
        let series = |which: usize, name| Series {
            who: Who {
                name,
                part: Part::Mmc,
                batch: 1,
                threads: 1,
            },
            seconds: columns[which][number].clone(),
        };
        let operation = Operation { name, bytes, count: 1 };
        report.row(
            &operation,
            &series(1, "mmc"),
            "not scraped",
            &series(0, "mmc, not scraped"),
        );
    }
}

/// Works for a while on this core, perhaps with a scraper on another, and returns the seconds that one operation took.
fn window(address: &str, is_scraped: bool, length: Duration, act: impl Fn(usize) + Sync) -> f64 {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if is_scraped {
            scope.spawn(|| scrape(address, &is_over));
        }
        let worker = scope.spawn(|| {
            stay_on(0);
            let (begin, mut turns) = (Instant::now(), 0);
            while begin.elapsed() < length {
                act(turns);
                turns += 1;
            }
            begin.elapsed().as_secs_f64() / (turns * STEP) as f64
        });
        let seconds = worker.join().expect("the worker");
        is_over.store(true, Relaxed);
        seconds
    })
}

/// Asks ten times a second for the metrics and at every tenth time for all keys.
fn scrape(address: &str, is_over: &AtomicBool) {
    stay_on(std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1));
    let begin = Instant::now();
    for turn in 0.. {
        while begin.elapsed() < Duration::from_millis(100) * turn {
            if is_over.load(Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(lines(address, "/metrics") > 10, "no metrics");
        if turn % 10 == 0 {
            assert!(lines(address, "/get_all_keys") >= OBJECTS, "not all keys");
        }
    }
}

/// How many lines a path answers with.
fn lines(address: &str, path: &str) -> usize {
    let mut stream = TcpStream::connect(address).expect("the admin port");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("a request");
    let (mut answer, mut count, mut line) = (BufReader::with_capacity(MIB, stream), 0, Vec::new());
    while answer.read_until(b'\n', &mut line).expect("an answer") > 0 {
        count += 1;
        line.clear();
    }
    count
}

/// Keeps this thread on one core.
fn stay_on(core: usize) {
    // SAFETY: a set of this function's, of the size that is given.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// A store with an admin port, and with memory for the large objects and no more.
fn open() -> Store {
    let address = CString::new("127.0.0.1:0").expect("no zero in it");
    // SAFETY: plain arguments, a struct of this header's size, and a text that is there for the call.
    unsafe {
        let mut config: mmc_config = std::mem::zeroed();
        check(mmc_config_init(&mut config));
        config.dram_size = (LARGE * SIZE) as u64;
        config.prefault = MMC_ON;
        config.watermark_high = 100;
        config.watermark_low = 100;
        config.http_address = address.as_ptr();
        let mut store = ptr::null_mut();
        check(mmc_init(&config, &mut store));
        Store(store)
    }
}

fn address(store: &Store) -> String {
    let mut text = [0u8; 64];
    // SAFETY: room of that size.
    check(unsafe { mmc_http_address(store.0, text.as_mut_ptr().cast(), text.len(), ptr::null_mut()) });
    let end = text.iter().position(|byte| *byte == 0).expect("a zero at the end");
    String::from_utf8_lossy(&text[..end]).into_owned()
}
