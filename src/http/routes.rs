//! What the admin port answers: a table of paths, and a pure function from a request to an [`Answer`].
//!
//! Nothing here knows sockets. [`answer`] takes the checked parts of a request and the store as it is seen from the
//! admin port ([`Admin`]) and gives status, content type and body, so that every row of the contract is a line of a
//! test. A `HEAD` is answered as its `GET`; whoever sends the answer leaves the body out.
//!
//! Checks run in the order that gives least away: the token, then the path, then the method, then the query. `/health`
//! alone needs no token, for the sake of probes that have none.
//!
//! The list of keys is the one body that grows with the store. It is not rendered but handed over as [`KeyPages`]: a
//! cursor that asks the store for at most 1024 slots at a time, as fast as the client reads. The first page is taken
//! while the status can still say that it failed.

use std::hint::black_box;

use super::bodies::{self, ObjectView, SegmentView};
use crate::error::{Error, Result};

const PLAIN: &str = "text/plain";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4";

const LISTING_PATH: &str = "/get_all_keys";

/// Bytes of a key, as everywhere in the library.
const KEY_LIMIT: usize = 256;

/// The store as the admin port sees it. No call counts as a use of an object, none holds a lock when it returns.
///
/// An implementation must not own the server: its last reference may be dropped on a thread that the server joins.
pub(crate) trait Admin: Send + Sync + 'static {
    /// False once the store is shutting down.
    fn is_serving(&self) -> bool;
    /// Appends `key\n` for the readable keys of at most 1024 slots from `cursor` on (the first is 0); the next cursor,
    /// or `None` at the end.
    fn keys_from(&self, cursor: u32, page: &mut Vec<u8>) -> Result<Option<u32>>;
    /// The object of `key`, if it can be read now.
    fn describe(&self, key: &str) -> Result<Option<ObjectView>>;
    /// The registered segments, in any order.
    fn segments(&self) -> Vec<SegmentView>;
    /// The Prometheus exposition text.
    fn metrics(&self) -> String;
    /// The summary of the metrics.
    fn summary(&self) -> String;
    /// The table of the tracepoints.
    fn ptracer(&self) -> String;
    /// Counts a request whose whole answer, a refusal too, has been sent.
    fn count_answer(&self);
}

/// The parts of a request that decide its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    /// The value of the `Authorization` header.
    pub(crate) authorization: Option<&'a str>,
}

/// Status, headers and body of a response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// A header that the status asks for.
    pub(crate) header: Option<(&'static str, &'static str)>,
    pub(crate) body: Body,
}

/// A body that is there, or one that is pulled page by page.
#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Vec<u8>),
    Keys(KeyPages),
}

type Handler = fn(query: &str, admin: &dyn Admin) -> Result<Answer>;

/// Every path there is.
const ROUTES: &[(&str, Handler)] = &[
    ("/health", health),
    (LISTING_PATH, all_keys),
    ("/query_key", query_key),
    ("/get_all_segments", |_, admin| {
        Ok(Answer::new(JSON, bodies::segments(admin.segments())?))
    }),
    ("/metrics", |_, admin| {
        Ok(Answer::new(PROMETHEUS, admin.metrics().into_bytes()))
    }),
    ("/metrics/summary", |_, admin| {
        Ok(Answer::new(PLAIN, admin.summary().into_bytes()))
    }),
    ("/metrics/ptracer", |_, admin| {
        Ok(Answer::new(PLAIN, admin.ptracer().into_bytes()))
    }),
];

/// Answers a request; `token` is what `Authorization: Bearer` must carry, if anything.
pub(crate) fn answer(request: &Request<'_>, token: Option<&str>, admin: &dyn Admin) -> Answer {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    if let Some(token) = token
        && path != "/health"
        && !is_authorized(request.authorization, token)
    {
        let refusal = Answer::sentence(401, "This path needs the access token");
        return Answer {
            header: Some(("WWW-Authenticate", "Bearer")),
            ..refusal
        };
    }
    let Some((_, handler)) = ROUTES.iter().find(|(known, _)| *known == path) else {
        return Answer::sentence(404, "Not found");
    };
    if !matches!(request.method, "GET" | "HEAD") {
        let refusal = Answer::sentence(405, "Only GET and HEAD are allowed");
        return Answer {
            header: Some(("Allow", "GET, HEAD")),
            ..refusal
        };
    }
    handler(query, admin).unwrap_or_else(|error| Answer::failure(&error))
}

/// Whether the answer to this target is streamed for as long as its client reads.
pub(crate) fn is_listing(target: &str) -> bool {
    target.split('?').next() == Some(LISTING_PATH)
}

impl Answer {
    fn new(content_type: &'static str, body: Vec<u8>) -> Answer {
        Answer {
            status: 200,
            content_type,
            header: None,
            body: Body::Bytes(body),
        }
    }

    /// An error, told in one sentence.
    pub(crate) fn sentence(status: u16, sentence: impl Into<String>) -> Answer {
        Answer {
            status,
            ..Answer::new(PLAIN, sentence.into().into_bytes())
        }
    }

    /// An error of the store: the client's when it is about the key that was given, ours otherwise.
    pub(crate) fn failure(error: &Error) -> Answer {
        let status = if matches!(error, Error::InvalidParam(_)) {
            400
        } else {
            500
        };
        Answer::sentence(status, error.to_string())
    }
}

fn health(_: &str, admin: &dyn Admin) -> Result<Answer> {
    match admin.is_serving() {
        true => Ok(Answer::new(PLAIN, b"OK".to_vec())),
        false => Ok(Answer::sentence(500, "The store is shutting down")),
    }
}

fn all_keys(_: &str, admin: &dyn Admin) -> Result<Answer> {
    let pages = KeyPages::open(admin)?;
    Ok(Answer {
        status: 200,
        content_type: PLAIN,
        header: None,
        body: Body::Keys(pages),
    })
}

fn query_key(query: &str, admin: &dyn Admin) -> Result<Answer> {
    let key = match parameter(query, "key") {
        Some(encoded) if !encoded.is_empty() => match decoded_key(encoded) {
            Ok(key) => key,
            Err(sentence) => return Ok(Answer::sentence(400, sentence)),
        },
        _ => return Ok(Answer::sentence(400, "Missing 'key' parameter")),
    };
    match admin.describe(&key)? {
        Some(view) => Ok(Answer::new(JSON, bodies::object(&key, &view)?)),
        None => Ok(Answer::sentence(404, "Key not found")),
    }
}

/// The readable keys, one a line, in pages. Between two of them it is a cursor and holds nothing of the store.
#[derive(Debug)]
pub(crate) struct KeyPages {
    page: Vec<u8>, // taken from the store, not yet by the client; its allocation is used again for the next page
    next: Option<u32>, // the cursor of the page behind it
    is_fresh: bool, // the page has not been given out
}

impl KeyPages {
    fn open(admin: &dyn Admin) -> Result<KeyPages> {
        let mut page = Vec::new();
        let next = admin.keys_from(0, &mut page)?;
        Ok(KeyPages {
            page,
            next,
            is_fresh: true,
        })
    }

    /// The next page, `None` behind the last. A page may be empty: its slots held no readable key.
    pub(crate) fn next_page(&mut self, admin: &dyn Admin) -> Result<Option<&[u8]>> {
        if !std::mem::replace(&mut self.is_fresh, false) {
            let Some(cursor) = self.next else { return Ok(None) };
            self.page.clear();
            self.next = admin.keys_from(cursor, &mut self.page)?;
        }
        Ok(Some(&self.page))
    }
}

/// The value of the first parameter called `name`, still encoded.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .into_iter()
        .find(|(encoded, _)| decoded(encoded).is_some_and(|bytes| bytes == name.as_bytes()))
        .map(|(_, value)| value)
}

/// A key out of a query, or the sentence that says why it can't be one.
fn decoded_key(encoded: &str) -> std::result::Result<String, String> {
    let bytes = decoded(encoded).ok_or("The key has a malformed percent-escape")?;
    if bytes.len() > KEY_LIMIT {
        return Err(format!("The key has {} bytes; the limit is {KEY_LIMIT}", bytes.len()));
    }
    let key = String::from_utf8(bytes).map_err(|_| "The key is not UTF-8")?;
    match key.chars().any(char::is_control) {
        true => Err("The key contains a control character".to_owned()),
        false => Ok(key),
    }
}

/// Undoes the encoding of a query: `%2F` is a byte, `+` a space. `None` for a malformed escape.
fn decoded(encoded: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'%', high, low, tail @ ..] => {
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                tail
            }
            [b'%', ..] => return None,
            [byte, tail @ ..] => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                tail
            }
        };
    }
}

fn is_authorized(authorization: Option<&str>, token: &str) -> bool {
    let Some((scheme, given)) = authorization.and_then(|value| value.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("Bearer") && is_same_secret(given.trim_start().as_bytes(), token.as_bytes())
}

/// Compares in a time that depends on the length of what was given, never on where it differs from the secret.
fn is_same_secret(given: &[u8], secret: &[u8]) -> bool {
    let mut difference = given.len() ^ secret.len();
    for (at, &byte) in given.iter().enumerate() {
        let expected = secret.get(at % secret.len().max(1)).copied().unwrap_or(0);
        difference = black_box(difference | usize::from(byte ^ expected));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Medium;

    /// A store of three keys whose list takes pages of one slot, the second of them empty.
    struct Sample {
        is_serving: bool,
    }

    impl Admin for Sample {
        fn is_serving(&self) -> bool {
            self.is_serving
        }
        fn keys_from(&self, cursor: u32, page: &mut Vec<u8>) -> Result<Option<u32>> {
            let slots: [&[u8]; 3] = [b"key_2\n", b"", b"key_1\n"];
            page.extend_from_slice(slots[cursor as usize]);
            Ok(Some(cursor + 1).filter(|&next| next < 3))
        }
        fn describe(&self, key: &str) -> Result<Option<ObjectView>> {
            match key {
                "broken" => Err(Error::NotStarted),
                "odd" => Err(Error::InvalidParam("an odd key".into())),
                "a/b c+d&é" => Ok(Some(ObjectView {
                    size: 100,
                    blobs: vec![(Medium::Hbm, 0)],
                })),
                _ => Ok(None),
            }
        }
        fn segments(&self) -> Vec<SegmentView> {
            vec![]
        }
        fn metrics(&self) -> String {
            "# metrics\n".into()
        }
        fn summary(&self) -> String {
            "summary\n".into()
        }
        fn ptracer(&self) -> String {
            "TIME\n".into()
        }
        fn count_answer(&self) {}
    }

    fn get(target: &str) -> Answer {
        answer(
            &Request {
                method: "GET",
                target,
                authorization: None,
            },
            None,
            &Sample { is_serving: true },
        )
    }

    fn text(answer: Answer) -> String {
        match answer.body {
            Body::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
            Body::Keys(mut pages) => {
                let mut all = Vec::new();
                while let Some(page) = pages.next_page(&Sample { is_serving: true }).unwrap() {
                    all.extend_from_slice(page);
                }
                String::from_utf8(all).unwrap()
            }
        }
    }

    #[test]
    fn every_row_of_the_contract_has_its_status_type_and_body() {
        let long = format!("/query_key?key={}", "%61".repeat(257));
        let longest = format!("/query_key?key={}", "%61".repeat(256));
        let cases = [
            ("/health", 200, PLAIN, "OK"),
            ("/health?verbose=%zz", 200, PLAIN, "OK"),
            ("/get_all_keys", 200, PLAIN, "key_2\nkey_1\n"),
            ("/get_all_keys?limit=1", 200, PLAIN, "key_2\nkey_1\n"),
            ("/get_all_segments", 200, JSON, "[]"),
            ("/metrics", 200, PROMETHEUS, "# metrics\n"),
            ("/metrics/summary", 200, PLAIN, "summary\n"),
            ("/metrics/ptracer", 200, PLAIN, "TIME\n"),
            ("/query_key", 400, PLAIN, "Missing 'key' parameter"),
            ("/query_key?", 400, PLAIN, "Missing 'key' parameter"),
            ("/query_key?key", 400, PLAIN, "Missing 'key' parameter"),
            ("/query_key?key=", 400, PLAIN, "Missing 'key' parameter"),
            ("/query_key?Key=a", 400, PLAIN, "Missing 'key' parameter"),
            ("/query_key?key=a", 404, PLAIN, "Key not found"),
            ("/query_key?other=%zz&key=a", 404, PLAIN, "Key not found"),
            (longest.as_str(), 404, PLAIN, "Key not found"),
            (long.as_str(), 400, PLAIN, "The key has 257 bytes; the limit is 256"),
            (
                "/query_key?key=%zz",
                400,
                PLAIN,
                "The key has a malformed percent-escape",
            ),
            (
                "/query_key?key=%+1",
                400,
                PLAIN,
                "The key has a malformed percent-escape",
            ),
            (
                "/query_key?key=a%2",
                400,
                PLAIN,
                "The key has a malformed percent-escape",
            ),
            (
                "/query_key?key=a%",
                400,
                PLAIN,
                "The key has a malformed percent-escape",
            ),
            ("/query_key?key=%ff", 400, PLAIN, "The key is not UTF-8"),
            (
                "/query_key?key=a%0Ab",
                400,
                PLAIN,
                "The key contains a control character",
            ),
            ("/query_key?key=%00", 400, PLAIN, "The key contains a control character"),
            (
                "/query_key?key=%C2%85",
                400,
                PLAIN,
                "The key contains a control character",
            ),
            ("/query_key?key=odd", 400, PLAIN, "an odd key"),
            (
                "/query_key?key=broken",
                500,
                PLAIN,
                "the store is not open: it was never opened or has been closed",
            ),
            ("/", 404, PLAIN, "Not found"),
            ("", 404, PLAIN, "Not found"),
            ("/health/", 404, PLAIN, "Not found"),
            ("//health", 404, PLAIN, "Not found"),
            ("/metrics/summary/x", 404, PLAIN, "Not found"),
            ("/%zz", 404, PLAIN, "Not found"),
        ];
        for (target, status, content_type, body) in cases {
            let answer = get(target);
            assert_eq!((answer.status, answer.content_type), (status, content_type), "{target}");
            assert_eq!(text(answer), body, "{target}");
        }
    }

    #[test]
    fn a_key_may_contain_anything_that_is_escaped() {
        for target in [
            "/query_key?key=a%2Fb+c%2bd%26%C3%A9",
            "/query_key?x=1&k%65y=a/b%20c%2Bd%26%c3%a9&key=other#",
        ] {
            let answer = get(target);
            assert_eq!((answer.status, answer.content_type), (200, JSON), "{target}");
            assert!(text(answer).contains("\"key\": \"a/b c+d&é\""), "{target}");
        }
    }

    #[test]
    fn other_methods_are_told_which_are_allowed_on_paths_that_exist() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"] {
            let request = |target| Request {
                method,
                target,
                authorization: None,
            };
            let refused = answer(&request("/health"), None, &Sample { is_serving: true });
            assert_eq!(
                (refused.status, refused.header),
                (405, Some(("Allow", "GET, HEAD"))),
                "{method}"
            );
            assert_eq!(
                answer(&request("/nothing"), None, &Sample { is_serving: true }).status,
                404,
                "{method}"
            );
        }
        let head = Request {
            method: "HEAD",
            target: "/health",
            authorization: None,
        };
        assert_eq!(answer(&head, None, &Sample { is_serving: true }).status, 200);
    }

    #[test]
    fn health_fails_once_the_store_is_shutting_down() {
        let request = Request {
            method: "GET",
            target: "/health",
            authorization: None,
        };
        let answer = answer(&request, None, &Sample { is_serving: false });
        assert_eq!((answer.status, answer.content_type), (500, PLAIN));
        assert_eq!(text(answer), "The store is shutting down");
    }

    #[test]
    fn a_token_is_asked_for_everywhere_but_on_health() {
        let cases = [
            ("/metrics", None, 401),
            ("/nothing", None, 401),
            ("/metrics", Some("Bearer"), 401),
            ("/metrics", Some("Bearer "), 401),
            ("/metrics", Some("Bearer secre"), 401),
            ("/metrics", Some("Bearer secrets"), 401),
            ("/metrics", Some("Bearer secretsecret"), 401),
            ("/metrics", Some("Bearer Secret"), 401),
            ("/metrics", Some("Basic secret"), 401),
            ("/metrics", Some("secret"), 401),
            ("/metrics", Some("Bearer secret"), 200),
            ("/metrics", Some("bearer  secret"), 200),
            ("/nothing", Some("Bearer secret"), 404),
            ("/health", None, 200),
            ("/health", Some("Bearer wrong"), 200),
            ("/health?x", None, 200),
        ];
        for (target, authorization, status) in cases {
            let request = Request {
                method: "GET",
                target,
                authorization,
            };
            let answer = answer(&request, Some("secret"), &Sample { is_serving: true });
            assert_eq!(answer.status, status, "{target} {authorization:?}");
            if status == 401 {
                assert_eq!(answer.header, Some(("WWW-Authenticate", "Bearer")));
                assert_eq!(text(answer), "This path needs the access token");
            }
        }
    }

    #[test]
    fn a_list_that_fails_on_its_first_page_is_a_500() {
        struct Broken;
        impl Admin for Broken {
            fn is_serving(&self) -> bool {
                true
            }
            fn keys_from(&self, _: u32, _: &mut Vec<u8>) -> Result<Option<u32>> {
                Err(Error::NotStarted)
            }
            fn describe(&self, _: &str) -> Result<Option<ObjectView>> {
                Ok(None)
            }
            fn segments(&self) -> Vec<SegmentView> {
                vec![]
            }
            fn metrics(&self) -> String {
                String::new()
            }
            fn summary(&self) -> String {
                String::new()
            }
            fn ptracer(&self) -> String {
                String::new()
            }
            fn count_answer(&self) {}
        }
        let request = Request {
            method: "GET",
            target: "/get_all_keys",
            authorization: None,
        };
        assert_eq!(answer(&request, None, &Broken).status, 500);
    }

    #[test]
    fn only_the_key_list_is_a_listing() {
        assert!(is_listing("/get_all_keys") && is_listing("/get_all_keys?a"));
        assert!(!is_listing("/get_all_keys/") && !is_listing("/health?/get_all_keys"));
    }
}
