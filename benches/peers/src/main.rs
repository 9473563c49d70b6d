//! mmc beside what its users would take instead, in one process and on the same buffers.
//!
//! **Same work.** Every contestant gets keys of 64 bytes that lie in the order of asking, copies a value in from the caller's cold memory
//! when it is put, and out into the caller's cold memory when it is got. A peer holds its values the way its users would: `Box<[u8]>`
//! where it lends them, `Arc<[u8]>` where it hands out clones. Its capacity is that of mmc's pool.
//!
//! **Same moment.** Contestants take turns in every round, another one first each time, and the figure is the median of the rounds. A
//! ratio is taken within a round before the median is, so that a machine that slows down does so for both sides.
//!
//! **Same memory.** The heap is told to keep what it has had ([`keep_the_heap`]): a fresh page costs more than the copy of a small block,
//! and a process that has run for a while meets few of them.
//!
//! One JSON line a row on standard output, words for people on standard error. `run.py` beside this crate starts it, adds the servers and
//! draws the table.
//!
//!     peers [--rounds N] [--quick] [--full] [--only TEXT] [--pool BYTES]
//!     peers footprint NAME                    one contestant's bytes an object, in a process of its own
//!     peers calls [--redis PATH] [--memcached PATH]    single operations as standard input asks for them

mod allocators;
mod cache;
mod calls;
mod contestants;
mod data;
mod footprint;
mod look_ups;
mod many;
mod report;
mod scrape;
mod span;
#[path = "../../support/mod.rs"]
mod support;
mod tail;
mod wire;

// What the allocator under `src` needs of its crate.
#[allow(dead_code)]
#[path = "../../../src/error.rs"]
mod error;

use report::Report;
use support::{GIB, MIB};

/// How much is measured.
pub struct Setting {
    /// Rounds that count; one more comes before them.
    pub rounds: usize,
    /// A run of two minutes, for a look.
    pub is_quick: bool,
    /// With ten million objects.
    pub is_full: bool,
    /// Rows are measured whose operation contains this.
    pub only: String,
    /// Bytes of mmc's pool, and the capacity of its peers.
    pub pool: usize,
}

impl Setting {
    fn read(words: impl Iterator<Item = String>) -> Setting {
        let mut setting = Setting {
            rounds: 0,
            is_quick: false,
            is_full: false,
            only: String::new(),
            pool: 2 * GIB,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| usage(&format!("{word} needs a value")));
            match word.as_str() {
                "--rounds" => setting.rounds = value().parse().unwrap_or_else(|_| usage("--rounds takes a number")),
                "--pool" => setting.pool = value().parse().unwrap_or_else(|_| usage("--pool takes bytes")),
                "--only" => setting.only = value(),
                "--quick" => setting.is_quick = true,
                "--full" => setting.is_full = true,
                _ => usage(&format!("{word} is not an option")),
            }
        }
        if setting.rounds == 0 {
            setting.rounds = if setting.is_quick { 3 } else { 5 };
        }
        if setting.pool < GIB / 2 {
            usage("--pool takes 512 MiB or more");
        }
        setting
    }

    /// Whether a group with these operations is to be measured.
    pub fn wants(&self, operations: &[&str]) -> bool {
        operations.iter().any(|operation| operation.contains(&self.only))
    }
}

fn usage(reason: &str) -> ! {
    eprintln!(
        "{reason}\nusage: peers [--rounds N] [--quick] [--full] [--only TEXT] [--pool BYTES] | footprint NAME | calls"
    );
    std::process::exit(2)
}

/// Keeps freed memory in the heap, of values up to the largest that are measured.
fn keep_the_heap() {
    // SAFETY: settings of the allocator, before a second thread is there.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * MIB as i32);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

fn main() {
    let mut words = std::env::args().skip(1).peekable();
    match words.peek().map(String::as_str) {
        Some("footprint") => footprint::of(&words.nth(1).unwrap_or_else(|| usage("footprint of whom?"))),
        Some("calls") => calls::serve(words.skip(1)),
        _ => measure(&Setting::read(words)),
    }
}

fn measure(setting: &Setting) {
    keep_the_heap();
    let report = Report::new();
    eprintln!("kernel of the streaming copy: {}", mmc::copy::kernel_name());
    look_ups::measure(&report, setting);
    data::measure(&report, setting);
    tail::measure(&report, setting);
    allocators::measure(&report, setting);
    footprint::measure(&report, setting);
    scrape::measure(&report, setting);
    many::measure(&report, setting);
}
