//! The head of a request: from untrusted bytes to the four things that are used, or to a refusal.
//!
//! [`parse`] is a pure function of what has arrived so far. It answers "not complete yet", a [`Head`], or a [`Refusal`]
//! with the status and the sentence that the client gets. It is strict where leniency would make two readers see two
//! requests (folded lines, a space before the colon, two lengths) and lenient where people type by hand (a bare
//! newline ends a line, blank lines may come first, `Host` may be absent, a raw UTF-8 target is percent-encoded).
//!
//! What it keeps is rebuilt from checked parts with [`Head::rebuilt`]: method, target, version, `Authorization`.
//! No other byte of the client travels further, so the server behind never sees a length, an encoding, an `Expect` or
//! an `Upgrade`, and a request can never carry a body.
//!
//! Both limits are checked while bytes are still missing, so what one client can make us hold is [`HEAD_LIMIT`] and one
//! read more.

/// Bytes of a request line; a key of 256 bytes needs 768 when every byte is escaped.
pub(crate) const REQUEST_LINE_LIMIT: usize = 8 << 10;

/// Bytes of a whole head; the usual limit of HTTP servers.
pub(crate) const HEAD_LIMIT: usize = 16 << 10;

/// Bytes of a method; the longest registered one has 17.
const METHOD_LIMIT: usize = 32;

/// What the routes need of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query: starts with `/`, visible ASCII only.
    pub(crate) target: String,
    /// The client speaks HTTP/1.0, which has no chunks.
    pub(crate) is_version_1_0: bool,
    pub(crate) authorization: Option<String>,
}

/// Why a request is not answered by a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) sentence: &'static str,
}

/// Reads a head out of the bytes that have arrived; `None` when more must come.
pub(crate) fn parse(received: &[u8]) -> Result<Option<Head>, Refusal> {
    let blank = received.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = &received[blank..];
    if bytes.first().is_some_and(|&first| !is_token(first)) {
        // TLS on a plain port, say: no need to wait for more.
        return Err(bad("The request does not start with a method"));
    }
    let first_line = bytes
        .iter()
        .take(REQUEST_LINE_LIMIT + 2)
        .position(|&byte| byte == b'\n');
    if first_line.unwrap_or(bytes.len()) > REQUEST_LINE_LIMIT {
        return Err(Refusal {
            status: 414,
            sentence: "The request line is longer than 8192 bytes",
        });
    }
    let end = end_of_head(bytes);
    if blank + end.unwrap_or(bytes.len()) > HEAD_LIMIT {
        return Err(Refusal {
            status: 431,
            sentence: "The request head is longer than 16384 bytes",
        });
    }
    let Some(end) = end else { return Ok(None) };
    let mut lines = bytes[..end]
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let (method, target, is_version_1_0) = request_line(lines.next().unwrap_or_default())?;
    let fields = Fields::read(lines)?;
    if fields.has_body && matches!(method.as_str(), "GET" | "HEAD") {
        return Err(bad("A GET or HEAD request must not have a body"));
    }
    Ok(Some(Head {
        method,
        target,
        is_version_1_0,
        authorization: fields.authorization,
    }))
}

impl Head {
    /// The same request for the server behind: one request, nothing in it that was not checked.
    pub(crate) fn rebuilt(&self) -> Vec<u8> {
        let version = if self.is_version_1_0 { "1.0" } else { "1.1" };
        let mut text = format!(
            "{} {} HTTP/{version}\r\nConnection: close\r\n",
            self.method, self.target
        );
        if let Some(authorization) = &self.authorization {
            text.push_str("Authorization: ");
            text.push_str(authorization);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

fn bad(sentence: &'static str) -> Refusal {
    Refusal { status: 400, sentence }
}

/// The index behind the empty line that ends a head.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let newlines = bytes
        .iter()
        .enumerate()
        .filter(|&(_, &byte)| byte == b'\n')
        .map(|(at, _)| at);
    for at in newlines {
        match &bytes[at + 1..] {
            [b'\n', ..] => return Some(at + 2),
            [b'\r', b'\n', ..] => return Some(at + 3),
            _ => {}
        }
    }
    None
}

fn request_line(line: &[u8]) -> Result<(String, String, bool), Refusal> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("The request line is not 'METHOD target HTTP/1.1'"));
    };
    let is_version_1_0 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Refusal {
                status: 505,
                sentence: "Only HTTP/1.0 and HTTP/1.1 are spoken here",
            });
        }
        _ => return Err(bad("The request line does not end with an HTTP version")),
    };
    if method.is_empty() || method.len() > METHOD_LIMIT || !method.iter().all(|&byte| is_token(byte)) {
        return Err(bad("The method is not a token of at most 32 characters"));
    }
    Ok((
        String::from_utf8_lossy(method).into_owned(),
        checked_target(target)?,
        is_version_1_0,
    ))
}

/// Path and query of a target, which may be `/path?query` or the absolute form that proxies use.
fn checked_target(target: &[u8]) -> Result<String, Refusal> {
    let mut text = String::with_capacity(target.len());
    for &byte in target {
        match byte {
            0x21..=0x7e => text.push(char::from(byte)),
            0x80.. => text.push_str(&format!("%{byte:02X}")), // typed as it is meant; the route checks that it is UTF-8
            _ => return Err(bad("The target contains a control character")),
        }
    }
    if text.starts_with('/') {
        return Ok(text);
    }
    let scheme = text.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let Some(rest) = scheme.and_then(|scheme| text.get(scheme.len()..)) else {
        return Err(bad("The target does not start with '/'"));
    };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => Ok(rest[at..].to_owned()),
        Some(at) => Ok(format!("/{}", &rest[at..])),
        None => Ok("/".to_owned()),
    }
}

/// The header fields that mean something here.
#[derive(Default)]
struct Fields {
    has_body: bool,
    has_host: bool,
    length: Option<u64>,
    authorization: Option<String>,
}

impl Fields {
    fn read<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Fields, Refusal> {
        let mut fields = Fields::default();
        for line in lines.take_while(|line| !line.is_empty()) {
            let colon = line
                .iter()
                .position(|&byte| byte == b':')
                .ok_or(bad("A header line has no colon"))?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
                return Err(bad("A header line does not start with a name"));
            }
            if value.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
                return Err(bad("A header value contains a control character"));
            }
            fields.take(&name.to_ascii_lowercase(), value)?;
        }
        Ok(fields)
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match name {
            b"content-length" => {
                let length = decimal(value).ok_or(bad("Content-Length is not a number"))?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return Err(bad("Two Content-Length headers differ"));
                }
                self.has_body |= length > 0;
            }
            b"transfer-encoding" => self.has_body = true,
            b"host" if std::mem::replace(&mut self.has_host, true) => return Err(bad("There are two Host headers")),
            b"authorization" => {
                let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
                let text = text.ok_or(bad("The Authorization header is not ASCII"))?;
                if self.authorization.replace(text.to_owned()).is_some() {
                    return Err(bad("There are two Authorization headers"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn decimal(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// A `tchar` of RFC 9110, of which methods and header names are made.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8]) -> Head {
        parse(bytes).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_complete_at_its_empty_line_and_not_before() {
        let text = b"GET /query_key?key=a%2Fb HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer t\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(parse(&text[..length]), Ok(None), "at {length}");
        }
        let expected = Head {
            method: "GET".into(),
            target: "/query_key?key=a%2Fb".into(),
            is_version_1_0: false,
            authorization: Some("Bearer t".into()),
        };
        assert_eq!(head(text), expected);
        let rebuilt = "GET /query_key?key=a%2Fb HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer t\r\n\r\n";
        assert_eq!(head(text).rebuilt(), rebuilt.as_bytes());
        assert_eq!(head(rebuilt.as_bytes()), expected);
    }

    #[test]
    fn what_people_type_by_hand_is_understood() {
        let cases: [(&[u8], &str); 7] = [
            (b"GET /health HTTP/1.0\n\n", "/health"),
            (b"\r\n\r\nGET /health HTTP/1.1\r\n\r\n", "/health"),
            (b"GET http://localhost:80/health?a HTTP/1.1\r\n\r\n", "/health?a"),
            (b"GET HTTP://localhost HTTP/1.1\r\n\r\n", "/"),
            (b"GET http://localhost?a=/b HTTP/1.1\r\n\r\n", "/?a=/b"),
            (
                b"GET /k?key=\xc3\xa9 HTTP/1.1\r\nX-Name: \xc3\xa9\r\n\r\n",
                "/k?key=%C3%A9",
            ),
            (
                b"GET /a HTTP/1.1\r\nContent-Length: 0\r\nContent-Length:0\r\n\r\ngarbage \0",
                "/a",
            ),
        ];
        for (bytes, target) in cases {
            assert_eq!(head(bytes).target, target, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn malformed_heads_are_refused_with_their_status() {
        let cases: [(&[u8], u16); 29] = [
            (b"\x16\x03\x01\x02\x00\x01", 400),
            (b" GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET\r\n\r\n", 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1 \r\n\r\n", 400),
            (b"GET / a HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1\r\n\r\n", 400),
            (b"GET / http/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.2\r\n\r\n", 505),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            (b"G(T / HTTP/1.1\r\n\r\n", 400),
            (b"GETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\n\r\n", 400),
            (b"GET health HTTP/1.1\r\n\r\n", 400),
            (b"GET ftp://a/ HTTP/1.1\r\n\r\n", 400),
            (b"OPTIONS * HTTP/1.1\r\n\r\n", 400),
            (b"GET /a\0b HTTP/1.1\r\n\r\n", 400),
            (b"GET /a\x7f HTTP/1.1\r\n\r\n", 400),
            (b"GET /a\rb HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
            (b"HEAD / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                400,
            ),
            (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ];
        for (bytes, status) in cases {
            let refusal = parse(bytes).expect_err(&bytes.escape_ascii().to_string());
            assert_eq!(refusal.status, status, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_body_of_another_method_is_left_to_the_route() {
        assert_eq!(
            head(b"POST /health HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello").method,
            "POST"
        );
    }

    #[test]
    fn a_request_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let line = |length: usize| {
            let line = format!("GET /{} HTTP/1.1", "a".repeat(length - "GET / HTTP/1.1\r".len()));
            format!("{line}\r\n\r\n").into_bytes()
        };
        assert!(parse(&line(REQUEST_LINE_LIMIT)).unwrap().is_some());
        assert_eq!(parse(&line(REQUEST_LINE_LIMIT + 1)).unwrap_err().status, 414);
        assert_eq!(parse(&line(1 << 20)).unwrap_err().status, 414);
        assert_eq!(
            parse(&line(1 << 20)[..REQUEST_LINE_LIMIT + 1]).unwrap_err().status,
            414,
            "without its end"
        );
    }

    #[test]
    fn a_head_over_the_limit_is_refused_before_it_ends() {
        let mut bytes = b"GET / HTTP/1.1\r\n".to_vec();
        while bytes.len() <= HEAD_LIMIT {
            assert_eq!(parse(&bytes), Ok(None));
            bytes.extend_from_slice(b"X-Filler: 0123456789\r\n");
        }
        assert_eq!(parse(&bytes).unwrap_err().status, 431);
        bytes.extend_from_slice(b"\r\n");
        assert_eq!(parse(&bytes).unwrap_err().status, 431);
        assert_eq!(
            parse(&vec![b'\n'; HEAD_LIMIT + 1]).unwrap_err().status,
            431,
            "blank lines count"
        );
    }
}
