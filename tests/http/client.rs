//! A client of the admin port that writes its request byte by byte as it is told, and takes the answer apart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any answer takes, shorter than anybody waits for a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Connects and sends these bytes; the answer is not read.
pub fn send(address: &str, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(bytes.as_ref()).unwrap();
    stream
}

/// Asks for the list of keys and reads nothing of it.
pub fn start_listing(address: &str) -> TcpStream {
    send(address, "GET /get_all_keys HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Sends bytes and takes the whole answer.
pub fn exchange(address: &str, bytes: impl AsRef<[u8]>) -> Reply {
    finish(send(address, bytes))
}

/// Reads the answer to its end.
pub fn finish(mut stream: TcpStream) -> Reply {
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    Reply::of(String::from_utf8(response).unwrap())
}

pub fn get(address: &str, target: &str) -> Reply {
    exchange(address, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

/// The body of a path that answers.
pub fn body(address: &str, target: &str) -> String {
    let reply = get(address, target);
    assert_eq!(reply.status, 200, "{target}: {reply:?}");
    reply.body
}

/// An answer taken apart.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: String,
}

impl Reply {
    pub fn of(response: String) -> Reply {
        let (head, body) = response
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {response:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply {
            status,
            headers: lines.map(str::to_owned).collect(),
            body: body.to_owned(),
        };
        assert_eq!(reply.header("Connection"), Some("close"), "{head}");
        if reply.header("Transfer-Encoding") == Some("chunked") && !body.is_empty() {
            reply.body = dechunked(body).unwrap_or_else(|| panic!("an unfinished body after {head}"));
        }
        reply
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?.1;
        assert!(!fields.any(|(field, _)| field.eq_ignore_ascii_case(name)), "two {name}");
        Some(found)
    }

    /// Status, content type and body: what the contract says of an answer.
    pub fn parts(&self) -> (u16, &str, &str) {
        (self.status, self.header("Content-Type").unwrap(), &self.body)
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
