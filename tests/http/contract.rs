//! Every documented path, and what is wrong with a request to one.

use mmc::ffi::inplace::{mmc_abort, mmc_commit, mmc_reserve};
use mmc::ffi::types::{MMC_MEDIUM_DRAM, MMC_MEDIUM_HBM, mmc_view};

use crate::client::{body, exchange, get};
use crate::store::{Settings, Store, UNIT, key, on_ranks, with_units};

const PLAIN: &str = "text/plain";
const JSON: &str = "application/json";

/// Every path with its content type when all is well.
const PATHS: [(&str, &str); 7] = [
    ("/health", PLAIN),
    ("/get_all_keys", PLAIN),
    ("/query_key?key=a", JSON),
    ("/get_all_segments", JSON),
    ("/metrics", "text/plain; version=0.0.4"),
    ("/metrics/summary", PLAIN),
    ("/metrics/ptracer", PLAIN),
];

/// The body of `/query_key`, copied from the contract, for an object with these copies.
fn object(key: &str, size: u64, blobs: &[(&str, u32)]) -> String {
    let blobs: Vec<String> = blobs
        .iter()
        .map(|(medium, rank)| {
            format!("        {{\n            \"medium\": \"{medium}\",\n            \"rank\": {rank}\n        }}")
        })
        .collect();
    let (count, blobs) = (blobs.len(), blobs.join(",\n"));
    format!(
        "{{\n    \"blobs\": [\n{blobs}\n    ],\n    \"key\": \"{key}\",\n    \"numBlobs\": {count},\n    \"prot\": 0,\n    \
         \"size\": {size},\n    \"valid\": true\n}}"
    )
}

fn lines_of(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn health_is_two_bytes() {
    let store = Store::open(&with_units(1));
    let reply = get(&store.address(), "/health");
    assert_eq!(reply.parts(), (200, PLAIN, "OK"));
    assert_eq!(reply.header("Content-Length"), Some("2"));
}

#[test]
fn keys_come_one_a_line_as_they_are() {
    let store = Store::open(&with_units(16));
    let address = store.address();
    assert_eq!(get(&address, "/get_all_keys").parts(), (200, PLAIN, ""));
    store.put("key_1", b"1").unwrap();
    assert_eq!(body(&address, "/get_all_keys"), "key_1\n");
    let longest = "k".repeat(256);
    let keys = [
        "key_1",
        "with spaces  ",
        "100%",
        "%41",
        "a+b",
        "ключ/é/鍵/\u{1f511}",
        "<\"&'>\\",
        &longest,
    ];
    for name in &keys[1..] {
        store.put(name, b"1").unwrap();
    }
    let listed = body(&address, "/get_all_keys");
    assert!(listed.ends_with('\n'), "every key has its line break");
    let mut expected = keys;
    expected.sort_unstable();
    assert_eq!(lines_of(&listed), expected);
    store.remove("100%").unwrap();
    assert!(!body(&address, "/get_all_keys").contains("100%"));
    assert_eq!(store.remove_all(), 7);
    assert_eq!(body(&address, "/get_all_keys"), "");
}

#[test]
fn a_key_is_shown_with_its_true_size_under_every_spelling_of_its_escapes() {
    let store = Store::open(&with_units(16));
    let address = store.address();
    store.put("key_a", &[1; 100]).unwrap();
    store.put("a/b c+d&é=%", &[1; 5000]).unwrap();
    store.put("say \"hi\" \\", &[1; 1]).unwrap();
    let odd = object("a/b c+d&é=%", 5000, &[("DRAM", 0)]);
    for (target, expected) in [
        ("/query_key?key=key_a", object("key_a", 100, &[("DRAM", 0)])),
        ("/query_key?key=%6B%65y%5fa", object("key_a", 100, &[("DRAM", 0)])),
        ("/query_key?x=%zz&key=key_a&key=b", object("key_a", 100, &[("DRAM", 0)])),
        ("/query_key?key=a%2Fb+c%2Bd%26%C3%A9%3D%25", odd.clone()),
        ("/query_key?key=a/b%20c%2bd%26%c3%a9=%25", odd.clone()),
        ("/query_key?key=a/b+c%2bd%26é=%25", odd),
        (
            "/query_key?key=say+%22hi%22+%5C",
            object("say \\\"hi\\\" \\\\", 1, &[("DRAM", 0)]),
        ),
    ] {
        assert_eq!(
            get(&address, target).parts(),
            (200, JSON, expected.as_str()),
            "{target}"
        );
    }
}

#[test]
fn a_key_that_is_missing_or_malformed_has_its_status_and_sentence() {
    let store = Store::open(&with_units(16));
    let address = store.address();
    store.put("a", b"1").unwrap();
    let malformed = "The key has a malformed percent-escape";
    let control = "The key contains a control character";
    let too_long = format!("/query_key?key={}", "a".repeat(257));
    for (target, status, sentence) in [
        ("/query_key", 400, "Missing 'key' parameter"),
        ("/query_key?", 400, "Missing 'key' parameter"),
        ("/query_key?key", 400, "Missing 'key' parameter"),
        ("/query_key?key=", 400, "Missing 'key' parameter"),
        ("/query_key?key=&key=a", 400, "Missing 'key' parameter"),
        ("/query_key?KEY=a", 400, "Missing 'key' parameter"),
        ("/query_key?key=b", 404, "Key not found"),
        ("/query_key?key=A", 404, "Key not found"),
        ("/query_key?key=a+", 404, "Key not found"),
        ("/query_key?key=%", 400, malformed),
        ("/query_key?key=a%4", 400, malformed),
        ("/query_key?key=%g1", 400, malformed),
        ("/query_key?key=%+1", 400, malformed),
        ("/query_key?key=%ff", 400, "The key is not UTF-8"),
        ("/query_key?key=%c3", 400, "The key is not UTF-8"),
        ("/query_key?key=%ed%a0%80", 400, "The key is not UTF-8"),
        ("/query_key?key=a%0Ab", 400, control),
        ("/query_key?key=a%00", 400, control),
        (&too_long, 400, "The key has 257 bytes; the limit is 256"),
    ] {
        assert_eq!(get(&address, target).parts(), (status, PLAIN, sentence), "{target}");
    }
}

#[test]
fn copies_are_shown_in_placement_order_with_their_medium() {
    let store = Store::open(&Settings::default());
    let address = store.address();
    for rank in [7, 0, 2] {
        store.add_dram(rank, 4 * UNIT);
        store.add_hbm(rank, 4 * UNIT);
    }
    for (name, medium, ranks) in [
        ("three", MMC_MEDIUM_DRAM, &[2, 7, 0][..]),
        ("two", MMC_MEDIUM_HBM, &[7, 2]),
        ("one", MMC_MEDIUM_HBM, &[0]),
    ] {
        store.put_on(name, &[1; 4097], Some(&on_ranks(medium, ranks))).unwrap();
        let medium = if medium == MMC_MEDIUM_HBM { "HBM" } else { "DRAM" };
        let blobs: Vec<(&str, u32)> = ranks.iter().map(|rank| (medium, *rank)).collect();
        assert_eq!(
            body(&address, &format!("/query_key?key={name}")),
            object(name, 4097, &blobs)
        );
    }
}

#[test]
fn a_copy_that_is_gone_is_not_shown() {
    let store = Store::open(&Settings::default());
    let address = store.address();
    let segments: Vec<u64> = (0..3).map(|rank| store.add_dram(rank, 4 * UNIT)).collect();
    store
        .put_on("a", b"1", Some(&on_ranks(MMC_MEDIUM_DRAM, &[1, 0, 2])))
        .unwrap();
    for (segment, left) in [(1, &[("DRAM", 0), ("DRAM", 2)][..]), (0, &[("DRAM", 2)])] {
        store.remove_segment(segments[segment]);
        assert_eq!(body(&address, "/query_key?key=a"), object("a", 1, left));
    }
}

#[test]
fn an_object_that_is_being_written_is_not_found() {
    let store = Store::open(&with_units(16));
    let address = store.address();
    let reserve = |name: &str| {
        // SAFETY: all zero is valid.
        let mut view: mmc_view = unsafe { std::mem::zeroed() };
        view.struct_size = size_of::<mmc_view>() as u32;
        // SAFETY: key and view outlive the call.
        let code = unsafe { mmc_reserve(store.0, key(name), 10, std::ptr::null(), &mut view) };
        assert_eq!(code, 0);
        assert_eq!(
            get(&address, &format!("/query_key?key={name}")).parts(),
            (404, PLAIN, "Key not found")
        );
        assert_eq!(body(&address, "/get_all_keys"), "");
        view.token
    };
    let token = reserve("given-up");
    // SAFETY: the handle is open.
    assert_eq!(unsafe { mmc_abort(store.0, token) }, 0);
    assert_eq!(get(&address, "/query_key?key=given-up").status, 404);
    let token = reserve("written");
    // SAFETY: as above.
    assert_eq!(unsafe { mmc_commit(store.0, token) }, 0);
    assert_eq!(
        body(&address, "/query_key?key=written"),
        object("written", 10, &[("DRAM", 0)])
    );
    assert_eq!(body(&address, "/get_all_keys"), "written\n");
}

#[test]
fn an_object_that_is_only_looked_at_goes_first() {
    let store = Store::open(&with_units(4));
    let address = store.address();
    for name in ["a", "b", "c", "d"] {
        store.put(name, &[1; 4096]).unwrap();
    }
    for path in ["/query_key?key=a", "/get_all_keys", "/query_key?key=a"] {
        body(&address, path);
    }
    store.put("e", &[1; 4096]).unwrap();
    assert_eq!(get(&address, "/query_key?key=a").status, 404, "a look is not a use");
    // A get is one: the next to go would have been `b`.
    store.get("b", 4096).unwrap();
    store.put("f", &[1; 4096]).unwrap();
    assert_eq!(lines_of(&body(&address, "/get_all_keys")), ["b", "d", "e", "f"]);
}

#[test]
fn segments_are_shown_as_the_contract_prints_them() {
    const CAPACITY: u64 = 5368709120;
    let store = Store::open(&Settings::default());
    let address = store.address();
    assert_eq!(get(&address, "/get_all_segments").parts(), (200, JSON, "[]"));
    // In another order than that of the answer.
    let dram_1 = store.add_dram(1, CAPACITY);
    let hbm_1 = store.add_hbm(1, CAPACITY);
    let dram_0 = store.add_dram(0, CAPACITY);
    let hbm_0 = store.add_hbm(0, CAPACITY);
    let expected = |allocated: [u64; 2]| {
        let segments = [
            (allocated[0], hbm_0, "HBM", 0),
            (allocated[1], hbm_1, "HBM", 1),
            (0, dram_0, "DRAM", 0),
            (0, dram_1, "DRAM", 1),
        ];
        let segments = segments.map(|(allocated, address, medium, rank)| {
            format!(
                r#"    {{
        "allocatedSize": {allocated},
        "bmAddr": {address},
        "capacity": 5368709120,
        "medium": "{medium}",
        "rank": {rank}
    }}"#
            )
        });
        format!("[\n{}\n]", segments.join(",\n"))
    };
    assert_eq!(body(&address, "/get_all_segments"), expected([0, 0]));
    // 90 and 88 units, as in the sample, by objects that fill theirs to the last byte, by one byte, and not at all.
    for (rank, sizes) in [(0, vec![4096; 45]), (1, vec![1; 44])] {
        for (number, size) in sizes.iter().enumerate() {
            let options = on_ranks(MMC_MEDIUM_HBM, std::slice::from_ref(&rank));
            store
                .put_on(&format!("{rank}-{number}"), &vec![1; *size], Some(&options))
                .unwrap();
        }
        let options = on_ranks(MMC_MEDIUM_HBM, std::slice::from_ref(&rank));
        let rest = sizes.len() as u64 * UNIT - 4095;
        store
            .put_on(&format!("{rank}-rest"), &vec![1; rest as usize], Some(&options))
            .unwrap();
    }
    assert_eq!(body(&address, "/get_all_segments"), expected([368640, 360448]));
    store.remove("1-rest").unwrap();
    assert_eq!(body(&address, "/get_all_segments"), expected([368640, 44 * 4096]));
    store.remove_all();
    assert_eq!(body(&address, "/get_all_segments"), expected([0, 0]));
    for segment in [dram_1, hbm_1, dram_0, hbm_0] {
        store.remove_segment(segment);
    }
    assert_eq!(body(&address, "/get_all_segments"), "[]");
}

#[test]
fn every_path_answers_to_get_and_head_and_ignores_what_it_does_not_use() {
    let store = Store::open(&with_units(16));
    let address = store.address();
    store.put("a", b"1").unwrap();
    for (path, content_type) in PATHS {
        let with_query = match path.split_once('?') {
            Some((path, query)) => format!("{path}?x=%zz&{query}&limit=1"),
            None => format!("{path}?x=%zz&limit=1&key"),
        };
        for target in [path, with_query.as_str()] {
            let reply = get(&address, target);
            assert_eq!(
                (reply.status, reply.header("Content-Type")),
                (200, Some(content_type)),
                "{target}"
            );
            let head = exchange(&address, format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(
                (head.status, head.header("Content-Type"), head.body.as_str()),
                (200, Some(content_type), ""),
                "{target}"
            );
            // The length of what `GET` gives; the metrics have grown by a digit here and there meanwhile.
            match path {
                "/get_all_keys" => assert_eq!(head.header("Content-Length"), None, "{target}"),
                path if path.starts_with("/metrics") => assert!(head.header("Content-Length").is_some(), "{target}"),
                _ => assert_eq!(
                    head.header("Content-Length"),
                    reply.header("Content-Length"),
                    "{target}"
                ),
            }
        }
    }
    assert_eq!(
        exchange(&address, "HEAD /query_key?key=b HTTP/1.1\r\n\r\n").parts(),
        (404, PLAIN, "")
    );
}

#[test]
fn another_method_is_told_which_are_allowed_and_another_path_is_not_found() {
    let store = Store::open(&with_units(1));
    let address = store.address();
    for (path, _) in PATHS {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get"] {
            let reply = exchange(
                &address,
                format!("{method} {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
            );
            assert_eq!(
                (reply.status, reply.header("Allow"), reply.header("Content-Type")),
                (405, Some("GET, HEAD"), Some(PLAIN)),
                "{method} {path}"
            );
        }
    }
    let with_body = exchange(&address, "POST /health HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((with_body.status, with_body.header("Allow")), (405, Some("GET, HEAD")));
    for target in [
        "/",
        "/health/",
        "//health",
        "/Health",
        "/metrics/",
        "/metrics/summary/x",
        "/get_all_keys.json",
        "/%68ealth",
        "/?key=a",
    ] {
        assert_eq!(get(&address, target).parts(), (404, PLAIN, "Not found"), "{target}");
    }
    assert_eq!(
        exchange(&address, "POST /nothing HTTP/1.1\r\n\r\n").parts(),
        (404, PLAIN, "Not found")
    );
}

#[test]
fn a_token_is_asked_for_on_every_path_but_health() {
    let store = Store::open(&Settings {
        token: Some("s3cret-token"),
        ..with_units(16)
    });
    let address = store.address();
    store.put("a", b"1").unwrap();
    let ask = |target: &str, header: &str| exchange(&address, format!("GET {target} HTTP/1.1\r\n{header}\r\n"));
    for (path, _) in PATHS.into_iter().chain([("/nothing", PLAIN)]) {
        for header in [
            "",
            "Authorization: Bearer s3cret-tokem\r\n",
            "Authorization: Bearer s3cret-toke\r\n",
            "Authorization: Bearer s3cret-tokens\r\n",
            "Authorization: Bearer\r\n",
            "Authorization: s3cret-token\r\n",
            "Authorization: Basic s3cret-token\r\n",
        ] {
            let reply = ask(path, header);
            if path == "/health" {
                assert_eq!(reply.parts(), (200, PLAIN, "OK"), "{header}");
                continue;
            }
            assert_eq!(
                reply.parts(),
                (401, PLAIN, "This path needs the access token"),
                "{path} {header}"
            );
            assert_eq!(reply.header("WWW-Authenticate"), Some("Bearer"));
        }
        let status = if path == "/nothing" { 404 } else { 200 };
        assert_eq!(
            ask(path, "authorization: bearer s3cret-token\r\n").status,
            status,
            "{path}"
        );
    }
}
