//! Redis and memcached over a Unix socket, with as little client as can be.
//!
//! What a client in C does: a command is written into one buffer and sent, an answer is read and the value copied where the caller wants
//! it. A batch is sent before its answers are read. This is the shortest way there is to a server, shorter than through any client library.

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};

use crate::cache::{Copies, LookUps, Work};
use crate::support::{Key, MIB};

/// Whose words are spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Redis,
    Memcached,
}

/// A connection.
pub struct Server {
    protocol: Protocol,
    stream: Mutex<BufReader<UnixStream>>,
}

impl Server {
    pub fn connect(protocol: Protocol, path: &str) -> Server {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Server {
            protocol,
            stream: Mutex::new(BufReader::with_capacity(MIB / 4, stream)),
        }
    }
}

/// A server that is asked for so many objects a time.
pub struct Asked<'a> {
    pub server: &'a Server,
    pub batch: usize,
}

/// What goes out, in pieces that a socket takes at once.
struct Outgoing<'a> {
    stream: &'a mut BufReader<UnixStream>,
    bytes: Vec<u8>,
}

impl Outgoing<'_> {
    fn send(&mut self) {
        self.stream
            .get_mut()
            .write_all(&self.bytes)
            .expect("a server that reads");
        self.bytes.clear();
    }

    fn say(&mut self, words: std::fmt::Arguments) {
        self.bytes.write_fmt(words).expect("memory");
        if self.bytes.len() > MIB {
            self.send();
        }
    }
}

impl Asked<'_> {
    fn stream(&self) -> MutexGuard<'_, BufReader<UnixStream>> {
        self.server.stream.lock().expect("no panic")
    }

    /// Sends a batch of commands, each with a value perhaps, and lets `hear` read the answers.
    fn exchange<'v>(
        &self,
        keys: &[Key],
        verb: &str,
        value: impl Fn(usize) -> Option<&'v [u8]>,
        mut hear: impl FnMut(usize, &mut BufReader<UnixStream>),
    ) {
        let mut stream = self.stream();
        for start in (0..keys.len()).step_by(self.batch) {
            let end = keys.len().min(start + self.batch);
            let mut out = Outgoing {
                stream: &mut stream,
                bytes: Vec::new(),
            };
            for (number, key) in keys[start..end].iter().enumerate() {
                let key = std::str::from_utf8(key).expect("text");
                match (self.server.protocol, value(start + number)) {
                    (Protocol::Redis, None) => {
                        let length = verb.len();
                        out.say(format_args!("*2\r\n${length}\r\n{verb}\r\n$64\r\n{key}\r\n"));
                    }
                    (Protocol::Redis, Some(value)) => {
                        let size = value.len();
                        out.say(format_args!("*3\r\n$3\r\n{verb}\r\n$64\r\n{key}\r\n${size}\r\n"));
                        out.bytes.extend_from_slice(value);
                        out.say(format_args!("\r\n"));
                    }
                    (Protocol::Memcached, None) => out.say(format_args!("{verb} {key}\r\n")),
                    (Protocol::Memcached, Some(value)) => {
                        out.say(format_args!("{verb} {key} 0 0 {}\r\n", value.len()));
                        out.bytes.extend_from_slice(value);
                        out.say(format_args!("\r\n"));
                    }
                }
            }
            out.send();
            (start..end).for_each(|number| hear(number, &mut stream));
        }
    }

    fn verb(&self, redis: &'static str, memcached: &'static str) -> &'static str {
        match self.server.protocol {
            Protocol::Redis => redis,
            Protocol::Memcached => memcached,
        }
    }

    /// How many answers start with these words.
    fn count_of(&self, keys: &[Key], verb: &str, yes: &str) -> usize {
        let mut count = 0;
        self.exchange(
            keys,
            verb,
            |_| None,
            |_, stream| count += usize::from(line(stream).starts_with(yes.as_bytes())),
        );
        count
    }
}

fn line(stream: &mut BufReader<UnixStream>) -> Vec<u8> {
    let mut line = Vec::with_capacity(128);
    stream.read_until(b'\n', &mut line).expect("an answer");
    line
}

impl Copies for Asked<'_> {
    fn put_all(&self, work: &Work, numbers: Range<usize>) {
        let (first, keys) = (numbers.start, &work.keys[numbers]);
        let verb = self.verb("SET", "set");
        self.exchange(
            keys,
            verb,
            |number| Some(work.bytes(first + number)),
            |_, stream| {
                let answer = line(stream);
                let words = String::from_utf8_lossy(&answer);
                assert!(
                    answer.starts_with(b"+OK") || answer.starts_with(b"STORED"),
                    "put: {words}"
                );
            },
        );
    }

    fn get_all(&self, work: &Work, numbers: Range<usize>) {
        let (first, keys) = (numbers.start, &work.keys[numbers]);
        let is_redis = self.server.protocol == Protocol::Redis;
        self.exchange(
            keys,
            self.verb("GET", "get"),
            |_| None,
            |number, stream| {
                let head = line(stream);
                assert!(head.starts_with(self.verb("$", "VALUE").as_bytes()), "a value is gone");
                stream.read_exact(work.room(first + number)).expect("a value");
                line(stream);
                if !is_redis {
                    line(stream);
                }
            },
        );
    }

    fn empty(&self) {
        let mut stream = self.stream();
        stream
            .get_mut()
            .write_all(self.verb("FLUSHALL\r\n", "flush_all\r\n").as_bytes())
            .expect("a server that reads");
        line(&mut stream);
    }
}

impl LookUps for Asked<'_> {
    fn count(&self, keys: &[Key]) -> usize {
        self.count_of(keys, self.verb("EXISTS", "mg"), self.verb(":1", "HD"))
    }

    fn remove_all(&self, keys: &[Key]) -> usize {
        self.count_of(keys, self.verb("DEL", "delete"), self.verb(":1", "DELETED"))
    }

    fn fill(&self, keys: &[Key], value: &[u8]) {
        self.exchange(
            keys,
            self.verb("SET", "set"),
            |_| Some(value),
            |_, stream| {
                line(stream);
            },
        );
    }
}
