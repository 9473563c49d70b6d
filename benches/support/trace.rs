//! Traces of requests to LLM serving systems, as `examples/data/README.md` describes them.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// A request: when it came, and its blocks in prefix order.
pub struct Request {
    pub milliseconds: u64,
    pub blocks: Vec<u32>,
}

pub struct Trace {
    pub requests: Vec<Request>,
    /// Blocks of all requests together.
    pub references: usize,
    /// Blocks that differ.
    pub unique: usize,
}

impl Trace {
    /// Reads a `.kvt.gz`, the first `limit` requests of it. Panics with what is wrong: a benchmark has nobody else to tell.
    pub fn read(path: &Path, limit: usize) -> Trace {
        let text = decompressed(path);
        let mut lines = text.lines();
        assert!(
            lines.next().is_some_and(|line| line.starts_with("# kvt1 ")),
            "{}: not a kvt1 trace",
            path.display()
        );
        let requests: Vec<Request> = lines.take(limit).map(request).collect();
        let blocks = || requests.iter().flat_map(|request| &request.blocks);
        Trace {
            references: blocks().count(),
            unique: blocks().collect::<HashSet<_>>().len(),
            requests,
        }
    }

    /// The capacity of a pool, in blocks, that holds this share of the unique ones.
    pub fn share(&self, percent: usize) -> usize {
        self.unique * percent / 100
    }
}

/// One line: `TIMESTAMP_MS INPUT_TOKENS OUTPUT_TOKENS RUNS`, where a run is `START` or `START+COUNT`.
fn request(line: &str) -> Request {
    let fields: Vec<&str> = line.split(' ').collect();
    let wrong = |_| panic!("not a request: {line}");
    let number = |text: &str| text.parse::<u32>().unwrap_or_else(wrong);
    let runs = fields.get(3).into_iter().flat_map(|runs| runs.split(','));
    Request {
        milliseconds: fields[0].parse().unwrap_or_else(|_| panic!("not a request: {line}")),
        blocks: runs
            .filter(|run| !run.is_empty())
            .flat_map(|run| match run.split_once('+') {
                Some((start, count)) => number(start)..number(start) + number(count),
                None => number(run)..number(run) + 1,
            })
            .collect(),
    }
}

/// Through a child, as the examples do it: no other part of this project needs to know the format.
fn decompressed(path: &Path) -> String {
    let mut child = Command::new("gzip")
        .arg("-dc")
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is there");
    let mut text = String::new();
    let read = child.stdout.take().expect("it is piped").read_to_string(&mut text);
    let status = child.wait().expect("a child ends");
    assert!(
        read.is_ok() && status.success(),
        "{}: gzip could not read it",
        path.display()
    );
    text
}
