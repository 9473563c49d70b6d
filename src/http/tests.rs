//! The admin port over real sockets: what a client sends, byte for byte, and what it gets.
//!
//! The store is a [`Sample`] with as many keys as a test wants. Tests that count what belongs to the whole process
//! (descriptors, threads, signals) are in `alone` and run in a process of their own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Admin, Limits, ObjectView, SegmentView, Server};
use crate::error::{Error, Result};
use crate::segment::Medium;

mod alone;

/// A store of `keys` slots, each with one key.
#[derive(Default)]
struct Sample {
    keys: u32,
    fails_at: Option<u32>, // the slot whose page is an error
    is_closing: AtomicBool,
    answers: AtomicU32,
    slots_read: AtomicU32,
    largest_page: AtomicU32,
}

impl Sample {
    fn with_keys(keys: u32) -> Arc<Sample> {
        Arc::new(Sample {
            keys,
            ..Sample::default()
        })
    }
}

/// As long as real block hashes are.
fn key(slot: u32) -> String {
    format!("model@pcp0@dcp0@head_or_tp_rank:0@pp_rank:0@{slot:064x}")
}

impl Admin for Sample {
    fn is_serving(&self) -> bool {
        !self.is_closing.load(Ordering::Relaxed)
    }
    fn keys_from(&self, cursor: u32, page: &mut Vec<u8>) -> Result<Option<u32>> {
        let end = self.keys.min(cursor + 1024);
        if self.fails_at.is_some_and(|slot| (cursor..end).contains(&slot)) {
            return Err(Error::NotStarted);
        }
        for slot in cursor..end {
            page.extend_from_slice(key(slot).as_bytes());
            page.push(b'\n');
        }
        self.slots_read.fetch_max(end, Ordering::Relaxed);
        self.largest_page.fetch_max(page.len() as u32, Ordering::Relaxed);
        Ok(Some(end).filter(|&end| end < self.keys))
    }
    fn describe(&self, key: &str) -> Result<Option<ObjectView>> {
        match key {
            "key_a" => Ok(Some(ObjectView {
                size: 100,
                blobs: vec![(Medium::Hbm, 0)],
            })),
            "panic" => panic!("a panic that a test asked for"),
            _ => Ok(None),
        }
    }
    fn segments(&self) -> Vec<SegmentView> {
        let segment = |rank| SegmentView {
            address: 4096 * u64::from(rank),
            allocated: 368640,
            capacity: 5368709120,
            medium: Medium::Hbm,
            rank,
        };
        (0..2).map(segment).collect()
    }
    fn metrics(&self) -> String {
        "# HELP memcache_stored_keys Current number of stored keys\n".repeat(1000)
    }
    fn summary(&self) -> String {
        "=== MemCache Metrics Summary ===\n".into()
    }
    fn ptracer(&self) -> String {
        String::new()
    }
    fn count_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// The deadlines of the tests: short ones.
const QUICK: Limits = Limits {
    connections: 64,
    forwarded: 8,
    listings: 2,
    head: Duration::from_millis(400),
    stall: Duration::from_millis(700),
    linger: Duration::from_millis(300),
};

/// Head deadlines longer than a test takes: what idle clients lose, they lose to the cap.
const PATIENT: Limits = Limits {
    head: Duration::from_secs(60),
    ..QUICK
};

fn serve(sample: Arc<Sample>, limits: Limits) -> Server {
    Server::start_with("127.0.0.1:0", None, sample, limits).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(20 * SECOND)).unwrap();
    stream
}

/// Sends bytes and reads to the end of the connection.
fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes.as_ref()).unwrap();
    finish(stream)
}

fn finish(mut stream: TcpStream) -> String {
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    String::from_utf8(response).unwrap()
}

fn get(address: SocketAddr, target: &str) -> Reply {
    Reply::of(exchange(
        address,
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ))
}

/// A response taken apart.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<String>,
    body: String,
}

impl Reply {
    fn of(response: String) -> Reply {
        let (head, body) = response
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {response:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<String> = lines.map(str::to_owned).collect();
        let mut reply = Reply {
            status,
            headers,
            body: body.to_owned(),
        };
        assert_eq!(reply.header("Connection"), Some("close"), "{head}");
        if reply.header("Transfer-Encoding") == Some("chunked") && !body.is_empty() {
            reply.body = dechunked(body).unwrap_or_else(|| panic!("an unfinished body after {head}"));
        }
        reply
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?.1;
        assert!(!fields.any(|(field, _)| field.eq_ignore_ascii_case(name)), "two {name}");
        Some(found)
    }
}

/// The content of a chunked body, if it is whole.
fn dechunked(mut body: &str) -> Option<String> {
    let mut content = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return (rest == "\r\n").then_some(content);
        }
        content.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

fn all_keys(count: u32) -> String {
    (0..count).map(|slot| key(slot) + "\n").collect()
}

/// A client that asks for the list and does not read it.
fn start_listing(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(b"GET /get_all_keys HTTP/1.1\r\n\r\n").unwrap();
    stream
}

#[test]
fn every_path_answers_with_its_type_and_length_to_get_and_head() {
    let server = serve(Sample::with_keys(3), QUICK);
    let metrics = Sample::default().metrics();
    let object = r#"{
    "blobs": [
        {
            "medium": "HBM",
            "rank": 0
        }
    ],
    "key": "key_a",
    "numBlobs": 1,
    "prot": 0,
    "size": 100,
    "valid": true
}"#;
    let segments = r#"[
    {
        "allocatedSize": 368640,
        "bmAddr": 0,
        "capacity": 5368709120,
        "medium": "HBM",
        "rank": 0
    },
    {
        "allocatedSize": 368640,
        "bmAddr": 4096,
        "capacity": 5368709120,
        "medium": "HBM",
        "rank": 1
    }
]"#;
    let cases = [
        ("/health", 200, "text/plain", "OK"),
        ("/get_all_keys", 200, "text/plain", &all_keys(3)),
        ("/query_key?key=key_a", 200, "application/json", object),
        ("/query_key?key=other", 404, "text/plain", "Key not found"),
        ("/query_key", 400, "text/plain", "Missing 'key' parameter"),
        (
            "/query_key?key=%zz",
            400,
            "text/plain",
            "The key has a malformed percent-escape",
        ),
        ("/query_key?key=\u{e9}", 404, "text/plain", "Key not found"),
        ("/get_all_segments", 200, "application/json", segments),
        ("/metrics", 200, "text/plain; version=0.0.4", &metrics),
        (
            "/metrics/summary",
            200,
            "text/plain",
            "=== MemCache Metrics Summary ===\n",
        ),
        ("/metrics/ptracer", 200, "text/plain", ""),
        ("/nothing", 404, "text/plain", "Not found"),
    ];
    for (target, status, content_type, body) in cases {
        for version in ["1.1", "1.0"] {
            let request = |method| format!("{method} {target} HTTP/{version}\r\nHost: a\r\n\r\n");
            let reply = Reply::of(exchange(server.address(), request("GET")));
            assert_eq!(
                (reply.status, reply.header("Content-Type")),
                (status, Some(content_type)),
                "{target}"
            );
            assert_eq!(reply.body, body, "{target} {version}");
            let head = Reply::of(exchange(server.address(), request("HEAD")));
            assert_eq!((head.status, head.body.as_str()), (status, ""), "{target}");
            let unchanging = |reply: &Reply| reply.headers.iter().filter(|line| !line.starts_with("Date")).count();
            assert_eq!(unchanging(&head), unchanging(&reply), "{target}");
            if target != "/get_all_keys" {
                assert_eq!(
                    reply.header("Content-Length"),
                    Some(body.len().to_string().as_str()),
                    "{target}"
                );
                assert_eq!(
                    head.header("Content-Length"),
                    reply.header("Content-Length"),
                    "{target}"
                );
            } else if version == "1.0" {
                assert_eq!(reply.header("Transfer-Encoding"), None, "HTTP/1.0 knows no chunks");
            }
        }
    }
}

#[test]
fn another_method_is_told_which_are_allowed() {
    let server = serve(Sample::with_keys(0), QUICK);
    for request in [
        "POST /health HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "DELETE /get_all_keys HTTP/1.1\r\n\r\n",
        "BREW /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let reply = Reply::of(exchange(server.address(), request));
        assert_eq!(
            (reply.status, reply.header("Allow")),
            (405, Some("GET, HEAD")),
            "{request}"
        );
    }
}

#[test]
fn a_long_list_comes_whole_and_in_pages() {
    let sample = Sample::with_keys(50_000);
    let server = serve(sample.clone(), QUICK);
    assert_eq!(get(server.address(), "/get_all_keys").body, all_keys(50_000));
    assert!(sample.largest_page.load(Ordering::Relaxed) < 1024 * 257);
    let old = Reply::of(exchange(server.address(), "GET /get_all_keys HTTP/1.0\r\n\r\n"));
    assert_eq!(old.body, all_keys(50_000));
    let empty = serve(Sample::with_keys(0), QUICK);
    assert_eq!(get(empty.address(), "/get_all_keys").body, "");
}

#[test]
fn a_list_that_fails_half_way_does_not_look_complete() {
    let server = serve(
        Arc::new(Sample {
            keys: 5000,
            fails_at: Some(3000),
            ..Sample::default()
        }),
        QUICK,
    );
    let response = exchange(server.address(), "GET /get_all_keys HTTP/1.1\r\n\r\n");
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(body.contains(&key(0)) && !body.contains(&key(3000)));
    assert_eq!(dechunked(body), None);
    let server = serve(
        Arc::new(Sample {
            keys: 5000,
            fails_at: Some(1),
            ..Sample::default()
        }),
        QUICK,
    );
    assert_eq!(get(server.address(), "/get_all_keys").status, 500);
}

#[test]
fn bad_requests_get_their_status_a_sentence_and_the_end_of_the_connection() {
    let server = serve(Sample::with_keys(0), QUICK);
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let long_head = format!("GET / HTTP/1.1\r\n{}\r\n", "X-Filler: 0123456789\r\n".repeat(1 << 16));
    let cases: [(&[u8], u16); 12] = [
        (long_line.as_bytes(), 414),
        (long_head.as_bytes(), 431),
        (b"GET /health HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (
            b"HEAD /health HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET /health HTTP/3.0\r\n\r\n", 505),
        (b"GET /health\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /query_key?key=%ff%fe HTTP/1.1\r\n\r\n", 400),
        (b"GET /query_key?key=\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET /query_key?key=a%0a HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost\r\n\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\n\r\n", 400),
    ];
    for (bytes, status) in cases {
        let shown = bytes[..bytes.len().min(80)].escape_ascii();
        let reply = Reply::of(exchange(server.address(), bytes));
        assert_eq!(
            (reply.status, reply.header("Content-Type")),
            (status, Some("text/plain")),
            "{shown}"
        );
        assert_eq!(reply.body.is_empty(), bytes.starts_with(b"HEAD"), "{shown}");
    }
}

#[test]
fn half_a_request_is_timed_out_however_slowly_it_grows() {
    let server = serve(Sample::with_keys(0), QUICK);
    let reply = Reply::of(exchange(server.address(), "GET /hea"));
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (408, "The request did not arrive in time")
    );
    let mut slow = connect(server.address());
    let started = Instant::now();
    while slow.write_all(b"G").is_ok() && started.elapsed() < 5 * SECOND {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(
        started.elapsed() < 3 * SECOND,
        "bytes that trickle in must not move the deadline"
    );
    let started = Instant::now();
    assert_eq!(
        exchange(server.address(), ""),
        "",
        "one that says nothing is closed without a word"
    );
    assert!(started.elapsed() < 3 * SECOND);
}

#[test]
fn a_client_that_ends_its_side_early_is_answered_if_its_request_is_whole() {
    let server = serve(Sample::with_keys(0), PATIENT);
    for (request, status) in [("GET /health HTTP/1.1\r\n\r\n", 200), ("GET /health HT", 400)] {
        let mut stream = connect(server.address());
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(Reply::of(finish(stream)).status, status);
    }
}

#[test]
fn what_follows_a_request_is_not_read_as_another_and_does_not_spoil_its_answer() {
    let server = serve(Sample::with_keys(2000), QUICK);
    let garbage = "GET /health HTTP/1.1\r\n\r\n\0\u{1}garbage".repeat(10_000);
    let reply = Reply::of(exchange(
        server.address(),
        format!("GET /get_all_keys HTTP/1.1\r\n\r\n{garbage}"),
    ));
    assert_eq!(reply.body, all_keys(2000));
}

#[test]
fn hundreds_of_idle_clients_leave_room_for_others() {
    let server = serve(Sample::with_keys(10), PATIENT);
    let idle: Vec<TcpStream> = (0..250).map(|_| connect(server.address())).collect();
    let halves: Vec<TcpStream> = (0..250)
        .map(|_| {
            let mut stream = connect(server.address());
            stream.write_all(b"GET /hea").unwrap();
            stream
        })
        .collect();
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(get(server.address(), "/health").body, "OK");
        assert_eq!(get(server.address(), "/get_all_keys").body, all_keys(10));
    }
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
    drop((idle, halves));
}

#[test]
fn clients_that_do_not_read_long_lists_hold_up_nobody_and_are_dropped() {
    let sample = Sample::with_keys(10_000_000);
    let server = serve(sample.clone(), QUICK);
    let idle: Vec<TcpStream> = (0..20).map(|_| start_listing(server.address())).collect();
    thread::sleep(SECOND / 10);
    let started = Instant::now();
    for target in ["/health", "/metrics", "/get_all_segments", "/query_key?key=key_a"].repeat(10) {
        assert_eq!(get(server.address(), target).status, 200);
    }
    assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
    assert!(
        sample.slots_read.load(Ordering::Relaxed) < 200_000,
        "nothing is read ahead of a client"
    );
    // Two have had their lists begun and cut off for not taking them; the others were told that there was no turn.
    let mut ends: Vec<(bool, bool)> = Vec::new();
    for mut stream in idle {
        thread::sleep(QUICK.stall / 5);
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response); // may be a reset
        ends.push((
            response.starts_with(b"HTTP/1.1 200"),
            response.starts_with(b"HTTP/1.1 503"),
        ));
    }
    assert!(ends.iter().filter(|end| end.0).count() >= 2, "{ends:?}");
    assert!(ends.iter().filter(|end| end.1).count() >= 2, "{ends:?}");
    assert_eq!(get(server.address(), "/health").body, "OK");
}

#[test]
fn more_unread_lists_than_there_are_places_hold_up_nobody() {
    let server = serve(
        Sample::with_keys(10_000_000),
        Limits {
            stall: 60 * SECOND,
            ..PATIENT
        },
    );
    let unread: Vec<TcpStream> = (0..150).map(|_| start_listing(server.address())).collect();
    let started = Instant::now();
    for target in ["/health", "/metrics"].repeat(20) {
        assert_eq!(get(server.address(), target).status, 200);
    }
    assert!(started.elapsed() < 2 * SECOND, "{:?}", started.elapsed());
    drop(unread);
}

#[test]
fn a_client_that_reads_steadily_may_take_longer_than_the_deadline() {
    let server = serve(Sample::with_keys(100_000), QUICK);
    let mut stream = start_listing(server.address());
    let (mut response, mut piece) = (Vec::new(), vec![0; 256 << 10]);
    let started = Instant::now();
    loop {
        let count = stream.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        response.extend_from_slice(&piece[..count]);
        if started.elapsed() < 3 * QUICK.stall {
            thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(Reply::of(String::from_utf8(response).unwrap()).body, all_keys(100_000));
}

#[test]
fn a_panic_in_the_store_costs_one_request() {
    let server = serve(Sample::with_keys(0), QUICK);
    for _ in 0..10 {
        let reply = get(server.address(), "/query_key?key=panic");
        assert_eq!((reply.status, reply.header("Content-Type")), (500, Some("text/plain")));
        assert_eq!(get(server.address(), "/health").body, "OK");
    }
}

#[test]
fn every_answer_is_counted_once_whoever_gives_it() {
    let sample = Sample::with_keys(10_000);
    let server = serve(sample.clone(), QUICK);
    let answered = [
        "GET /health HTTP/1.1\r\n\r\n",
        "HEAD /metrics HTTP/1.0\r\n\r\n",
        "GET /get_all_keys HTTP/1.1\r\n\r\n",
        "GET /nothing HTTP/1.1\r\n\r\n",
        "DELETE /health HTTP/1.1\r\n\r\n",
        "GET /query_key?key=panic HTTP/1.1\r\n\r\n",
        "GET /health\r\n\r\n",
        "GET /hea", // timed out
    ];
    for (before, request) in (0..).zip(answered) {
        exchange(server.address(), request);
        // The client may see the end of its answer a moment before it is counted.
        let started = Instant::now();
        while sample.answers.load(Ordering::Relaxed) == before && started.elapsed() < SECOND {
            thread::yield_now();
        }
        assert_eq!(sample.answers.load(Ordering::Relaxed), before + 1, "{request:?}");
    }
    assert_eq!(exchange(server.address(), ""), "", "nothing was asked");
    assert_eq!(sample.answers.load(Ordering::Relaxed), answered.len() as u32);
}

#[test]
fn health_fails_while_the_store_shuts_down() {
    let sample = Sample::with_keys(0);
    let server = serve(sample.clone(), QUICK);
    assert_eq!(get(server.address(), "/health").status, 200);
    sample.is_closing.store(true, Ordering::Relaxed);
    assert_eq!(get(server.address(), "/health").status, 500);
}

#[test]
fn a_token_is_asked_for_over_the_wire_too() {
    let server = Server::start("127.0.0.1:0", Some("s3cret-token"), Sample::with_keys(0)).unwrap();
    let reply = get(server.address(), "/metrics");
    assert_eq!((reply.status, reply.header("WWW-Authenticate")), (401, Some("Bearer")));
    assert_eq!(get(server.address(), "/health").status, 200);
    let with = "GET /metrics HTTP/1.1\r\nauthorization:bearer s3cret-token \r\n\r\n";
    assert_eq!(Reply::of(exchange(server.address(), with)).status, 200);
    for token in ["", "a b", "a\nb", "\u{e9}", &"x".repeat(4097)] {
        let error = Server::start("127.0.0.1:0", Some(token), Sample::with_keys(0)).unwrap_err();
        assert!(matches!(error, Error::InvalidParam(_)), "{error}");
    }
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let error = Server::start(&address, None, Sample::with_keys(0)).unwrap_err();
    assert!(
        matches!(&error, Error::Io(text) if text.contains(&address) && text.contains("in use")),
        "{error}"
    );
}

#[test]
fn an_address_needs_a_port_and_may_leave_out_the_loopback() {
    for address in ["127.0.0.1:0", ":0", "0", "localhost:0"] {
        let server = Server::start(address, None, Sample::with_keys(0)).unwrap();
        assert!(
            server.address().ip().is_loopback() && server.address().port() != 0,
            "{address}"
        );
    }
    for address in ["", "localhost", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:http"] {
        let error = Server::start(address, None, Sample::with_keys(0)).unwrap_err();
        assert!(matches!(error, Error::InvalidParam(_)), "{address}: {error}");
    }
}

/// Clients of every bad kind at once; what they hold is dropped with what is returned.
fn besiege(address: SocketAddr) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> = (0..10).map(|_| start_listing(address)).collect();
    for bytes in [
        "",
        "GET /heal",
        "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        "\0\0\0",
    ] {
        clients.extend((0..20).map(|_| {
            let mut stream = connect(address);
            let _ = stream.write_all(bytes.as_bytes());
            stream
        }));
    }
    clients
}

#[test]
fn stop_returns_at_once_whatever_clients_do_and_frees_the_port() {
    for limits in [PATIENT, Limits::default()] {
        let mut server = serve(Sample::with_keys(10_000_000), limits);
        let clients = besiege(server.address());
        let mut reader = start_listing(server.address()); // waits for its turn
        thread::sleep(SECOND / 10);
        let started = Instant::now();
        server.stop();
        assert!(started.elapsed() < SECOND / 2, "{:?}", started.elapsed());
        assert!(TcpStream::connect(server.address()).is_err());
        let _ = reader.read_to_end(&mut Vec::new()); // ends
        server.stop();
        drop(clients);
    }
}

#[test]
fn a_server_can_be_opened_again_on_its_port() {
    let server = serve(Sample::with_keys(1), QUICK);
    let address = server.address();
    assert_eq!(get(address, "/health").status, 200);
    drop(server);
    let again = Server::start(&address.to_string(), None, Sample::with_keys(1)).unwrap();
    assert_eq!(get(again.address(), "/health").status, 200);
}
