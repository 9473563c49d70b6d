//! Single operations as standard input asks for them, for comparisons whose other half runs in another process.
//!
//! A line in is `CONTESTANT OPERATION BYTES BATCH COUNT`, such as `mmc put 4096 128 1024`; a line out is the seconds that it took. The
//! asker lets it take its turn between others, so that ratios are still of one moment. Contestants are `mmc` over the C ABI, and `redis`
//! and `memcached` over the sockets that were given. A put leaves COUNT objects there; what follows works on those, until a remove takes
//! them away, or a clear all that there is.

use std::cell::Cell;
use std::io::BufRead;

use crate::cache::{Batches, Cache, Copies, LookUps, Work};
use crate::report::seconds;
use crate::support::{GIB, Key, Memory, Store, key, shuffled};
use crate::usage;
use crate::wire::{Asked, Protocol, Server};

/// Most objects of one line.
const MOST: usize = 64 * 1024;

struct Desk {
    memory: Memory,
    keys: Vec<Key>,
    absent: Vec<Key>,
    /// Where in the memory the next pass begins, so that it meets none that is in a cache.
    next: Cell<usize>,
}

impl Desk {
    fn time(&self, it: &(impl Copies + LookUps), operation: &str, size: usize, count: usize) -> f64 {
        let keys = &self.keys[..count];
        let order = shuffled(self.memory.len / size);
        let shift = self.next.get() / size;
        self.next.set((self.next.get() + count * size) % self.memory.len);
        let work = Work {
            keys,
            memory: &self.memory,
            size,
            order: &order,
            shift,
        };
        match operation {
            "put" => seconds(|| it.put_all(&work, 0..count)),
            "get" => seconds(|| it.get_all(&work, 0..count)),
            "exist" => seconds(|| assert_eq!(it.count(keys), count)),
            "miss" => seconds(|| assert_eq!(it.count(&self.absent[..count]), 0)),
            "clear" => seconds(|| it.empty()),
            "remove" => seconds(|| assert_eq!(it.remove_all(keys), count)),
            _ => usage(&format!("{operation} is no operation")),
        }
    }
}

pub fn serve(words: impl Iterator<Item = String>) {
    let (mut words, mut redis, mut memcached) = (words, None, None);
    while let Some(word) = words.next() {
        let path = words.next().unwrap_or_else(|| usage(&format!("{word} needs a path")));
        match word.as_str() {
            "--redis" => redis = Some(Server::connect(Protocol::Redis, &path)),
            "--memcached" => memcached = Some(Server::connect(Protocol::Memcached, &path)),
            _ => usage(&format!("{word} is not an option")),
        }
    }
    let store = Store::of(GIB);
    let desk = Desk {
        memory: Memory::new(GIB / 2),
        keys: (0..MOST as u64).map(key).collect(),
        absent: (0..MOST as u64).map(|number| key(number | 1 << 60)).collect(),
        next: Cell::new(0),
    };
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [contestant, operation, numbers @ ..] = &parts[..] else {
            usage("a line is CONTESTANT OPERATION BYTES BATCH COUNT");
        };
        let numbers: Vec<usize> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
        let [size, batch, count] = numbers[..] else {
            usage("three numbers are needed");
        };
        let server = match *contestant {
            "redis" => redis.as_ref(),
            "memcached" => memcached.as_ref(),
            _ => None,
        };
        let seconds = match (*contestant, server) {
            ("mmc", _) if batch == 1 => desk.time(&store, operation, size, count),
            ("mmc", _) => desk.time(&Batches { store: &store, batch }, operation, size, count),
            (_, Some(server)) => desk.time(&Asked { server, batch }, operation, size, count),
            _ => usage(&format!("{contestant} is not there")),
        };
        println!("{seconds:e}");
    }
    Cache::clear(&store);
}
