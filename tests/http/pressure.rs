//! Clients that misbehave, and a store that is busy.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mmc::ffi::types::{MMC_MEDIUM_DRAM, MMC_MEDIUM_HBM};

use crate::alone::{self, descriptors, threads, wait_until};
use crate::client::{Reply, body, connect, exchange, finish, get, send, start_listing};
use crate::store::{Settings, Store, UNIT, on_ranks, with_units};

const SECOND: Duration = Duration::from_secs(1);

/// Every path; the key is there.
const PATHS: [&str; 7] = [
    "/health",
    "/get_all_keys",
    "/query_key?key=a",
    "/get_all_segments",
    "/metrics",
    "/metrics/summary",
    "/metrics/ptracer",
];

/// Keys of the longest kind, enough for a list that no buffer between here and the store can hold: 17 MB.
const LONG_LIST: u32 = 4 * 16384;

fn long_key(number: u32) -> String {
    format!("{number:0>256}")
}

/// Puts the keys of a long list on a device of rank 9, where nothing is evicted.
pub fn put_long_list(store: &Store) {
    store.add_hbm(9, u64::from(LONG_LIST + 16) * UNIT);
    let keys: Vec<String> = (0..LONG_LIST).map(long_key).collect();
    let options = on_ranks(MMC_MEDIUM_HBM, &[9]);
    for batch in keys.chunks(16384) {
        assert!(
            store
                .batch_put(batch, b"1", Some(&options))
                .iter()
                .all(|code| *code == 0)
        );
    }
}

#[test]
fn bad_requests_get_their_status_and_others_their_answer() {
    let store = Store::open(&with_units(1));
    let address = store.address();
    let long_target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let long_key = format!("GET /query_key?key={} HTTP/1.1\r\n\r\n", "%61".repeat(1 << 18));
    let long_head = format!(
        "GET /health HTTP/1.1\r\n{}\r\n",
        "X-Filler: 0123456789\r\n".repeat(1 << 16)
    );
    for (request, status) in [
        (long_target.as_bytes(), 414),
        (long_key.as_bytes(), 414),
        (long_head.as_bytes(), 431),
        (b"GET /query_key?key=%zz HTTP/1.1\r\n\r\n", 400),
        (b"GET /query_key?key=%ff HTTP/1.1\r\n\r\n", 400),
        (b"GET /query_key?key=\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (
            b"GET /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            400,
        ),
        (b"GET /query_key?key=a b HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/2.0\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /\0 HTTP/1.1\r\n\r\n", 400),
    ] {
        let shown = request[..request.len().min(60)].escape_ascii();
        let reply = exchange(&address, request);
        assert_eq!(
            (reply.status, reply.header("Content-Type")),
            (status, Some("text/plain")),
            "{shown}"
        );
        assert!(
            !reply.body.is_empty() && !reply.body.contains('\n'),
            "one sentence: {reply:?}"
        );
        assert_eq!(body(&address, "/health"), "OK", "after {shown}");
    }
}

#[test]
fn what_bad_clients_took_comes_back() {
    alone::run(
        concat!(module_path!(), "::what_bad_clients_took_comes_back"),
        &[],
        || {
            let (at_first, threads_at_first) = (descriptors(), threads());
            let store = Store::open(&with_units(1));
            store.put("a", b"1").unwrap();
            let address = store.address();
            let while_idle = descriptors();
            for path in PATHS {
                body(&address, path);
            }
            let half = send(&address, "GET /heal");
            // The client's ends are of this process too.
            let mut idle: Vec<TcpStream> = (0..500).map(|_| connect(&address)).collect();
            for path in PATHS {
                body(&address, path);
            }
            wait_until("the cap holds", 5 * SECOND, || descriptors() <= while_idle + 501 + 64);
            idle.extend((0..100).map(|_| send(&address, "GET /health HTTP/1.1\r\nX: ")));
            for path in PATHS {
                body(&address, path);
            }
            let mut refused = send(&address, format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)));
            let mut status = [0; 12];
            refused.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 414");
            // Half a request is the last to give way to a newcomer that has sent nothing, but its time is up at some point.
            let mut answer = String::new();
            let ended = { half }.read_to_string(&mut answer);
            assert!(
                ended.is_err() || answer.is_empty() || Reply::of(answer.clone()).status == 408,
                "{answer}"
            );
            drop((idle, refused));
            wait_until("descriptors come back", 10 * SECOND, || descriptors() == while_idle);
            assert_eq!(body(&address, "/health"), "OK");
            store.close().unwrap();
            wait_until("all come back", SECOND, || descriptors() == at_first);
            // Threads of `tiny_http`'s pool, which know nothing of the store, take their time.
            wait_until("threads end", 12 * SECOND, || threads() == threads_at_first);
        },
    );
}

#[test]
fn half_a_request_has_five_seconds() {
    let store = Store::open(&with_units(1));
    let address = store.address();
    let half = send(&address, "GET /health HTTP/1.1\r\nHost");
    let mut slow = send(&address, "GET /hea");
    let silent = connect(&address);
    let started = Instant::now();
    let reply = finish(half);
    assert_eq!(
        reply.parts(),
        (408, "text/plain", "The request did not arrive in time"),
        "a client that is silent in the middle is told"
    );
    assert!(
        (4 * SECOND..8 * SECOND).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    let mut end = Vec::new();
    let _ = { silent }.read_to_end(&mut end); // one that never said anything is not
    assert!(end.is_empty());
    let _ = slow.write_all(b"l"); // one byte more does not help
    assert_eq!(finish(slow).status, 408);
    assert_eq!(body(&address, "/health"), "OK");
}

/// Two threads that put, get, remove and evict for as long as this lives.
struct Load<'a> {
    store: &'a Store,
    is_over: AtomicBool,
    done: AtomicU64,
}

impl Load<'_> {
    fn on(store: &Store) -> Load<'_> {
        store.add_dram(0, 64 * 16 * UNIT);
        Load {
            store,
            is_over: AtomicBool::new(false),
            done: AtomicU64::new(0),
        }
    }

    fn run(&self, thread: u32) {
        let block = vec![thread as u8; 64 << 10];
        let options = on_ranks(MMC_MEDIUM_DRAM, &[0]);
        for number in 0u64.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let name = format!("load-{thread}-{number}");
            self.store.put_on(&name, &block, Some(&options)).unwrap();
            // The other thread may have had it evicted by now.
            if let Ok(bytes) = self.store.get(&name, block.len()) {
                assert_eq!(bytes, block);
            }
            if number % 5 == 0 {
                let _ = self.store.remove(&name);
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs `act` while two threads are at work.
    fn during(&self, act: impl FnOnce()) {
        /// Ends the work even when the test fails.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            let _end = End(&self.is_over);
            for thread in 0..2 {
                scope.spawn(move || self.run(thread));
            }
            self.wait_for_more(200);
            act();
        });
    }

    /// Waits until the two have done so many rounds more.
    fn wait_for_more(&self, rounds: u64) {
        let wanted = self.done.load(Ordering::Relaxed) + rounds;
        wait_until("the data path goes on", 10 * SECOND, || {
            self.done.load(Ordering::Relaxed) >= wanted
        });
    }
}

#[test]
fn every_path_answers_while_the_data_path_is_busy() {
    let store = Store::open(&Settings {
        watermark_high: 90,
        ..Settings::default()
    });
    store.add_hbm(3, 4 * UNIT);
    store.put_on("a", b"1", Some(&on_ranks(MMC_MEDIUM_HBM, &[3]))).unwrap();
    let address = store.address();
    let load = Load::on(&store);
    load.during(|| {
        for _ in 0..10 {
            for path in PATHS {
                let started = Instant::now();
                body(&address, path);
                assert!(started.elapsed() < 2 * SECOND, "{path} took {:?}", started.elapsed());
            }
            load.wait_for_more(1);
        }
    });
    let text = body(&address, "/metrics");
    assert!(!text.contains("\nmemcache_evict_operations_total 0\n"), "{text}");
}

#[test]
fn a_long_list_streams_and_holds_up_nobody() {
    let store = Store::open(&Settings::default());
    put_long_list(&store);
    let address = store.address();
    let load = Load::on(&store);
    load.during(|| {
        // Nobody reads these two, and a third waits for its turn.
        let unread: Vec<TcpStream> = (0..3).map(|_| start_listing(&address)).collect();
        for path in PATHS.into_iter().filter(|path| *path != "/get_all_keys") {
            let status = get(&address, path).status;
            assert!(status == 200 || path.starts_with("/query"), "{path}: {status}");
        }
        load.wait_for_more(100);
        drop(unread);

        let mut stream = start_listing(&address);
        let mut response = vec![0; 64 << 10];
        stream.read_exact(&mut response).unwrap();
        // The list has begun. Had it been made by now, what comes after the last of its keys would not be in it.
        let options = on_ranks(MMC_MEDIUM_HBM, &[9]);
        for number in 0..8 {
            let _ = store.put_on(&format!("late-{number}"), b"1", Some(&options));
            load.wait_for_more(50);
        }
        let mut piece = vec![0; 1 << 20];
        loop {
            let count = stream.read(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            response.extend_from_slice(&piece[..count]);
            load.wait_for_more(1);
        }
        let reply = Reply::of(String::from_utf8(response).unwrap());
        assert_eq!(reply.status, 200);
        let mut times: HashMap<&str, u32> = HashMap::new();
        for key in reply.body.lines() {
            *times.entry(key).or_default() += 1;
        }
        for number in 0..LONG_LIST {
            assert_eq!(times.get(long_key(number).as_str()), Some(&1), "key {number}");
        }
        assert!(
            (0..8).any(|number| times.contains_key(format!("late-{number}").as_str())),
            "the list was made before it was read"
        );
    });
}
