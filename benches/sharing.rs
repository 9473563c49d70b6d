//! What a call takes from an attached process, against the same call in the process that owns the pool.
//!
//! The owner is this process, on a memfd of its own; the attached one is this program once more, which measures what it is told to. The two take
//! turns, round by round, so that what else the machine does meets both. Memory is touched before: the question is what a call
//! costs, not a page's first use. One JSON line a row on standard output, a table on standard error.
//!
//!     cargo bench --bench sharing -- [--rounds N] [--only TEXT]

mod support;

use std::ffi::{CString, c_void};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr;
use std::time::Instant;

use mmc::ffi::sharing::{mmc_attach, mmc_share};
use mmc::ffi::types::*;
use mmc::ffi::{objects, segments};
use support::{KIB, Key, MIB, Memory, Setting, Store, check, key, key_of};

/// Bytes of the pool.
const POOL: usize = 768 * MIB;
/// Keys of a batch.
const BATCH: usize = 32;
/// Objects of 1 MiB that lie in the pool: more than a processor's cache has room for.
const LARGE: usize = 256;
/// Objects of 64 KiB.
const SMALL: usize = 1024;

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
enum Row {
    Exists,
    GetLarge,
    PutLarge,
    Get,
    Put,
}

const ROWS: [(Row, &str); 5] = [
    (Row::Exists, "exist, 32 keys"),
    (Row::GetLarge, "get 1 MiB, 32 keys"),
    (Row::PutLarge, "put 1 MiB, 32 keys"),
    (Row::Get, "get 64 KiB"),
    (Row::Put, "put 64 KiB"),
];

impl Row {
    /// Calls of one round.
    fn calls(self) -> usize {
        match self {
            Row::Exists => 2000,
            Row::GetLarge | Row::PutLarge => 24,
            Row::Get | Row::Put => 1000,
        }
    }
}

/// One process's keys and buffers.
struct Load {
    large: Vec<Key>,
    small: Vec<Key>,
    buffers: Memory,
}

impl Load {
    /// Each process has keys of its own for what it puts.
    fn new(process: u64) -> Load {
        let keys = |kind: u64, count: usize| (0..count as u64).map(|number| key((kind << 40) + number)).collect();
        Load {
            large: keys(1, LARGE),
            small: keys(2 + process, SMALL),
            buffers: Memory::new(BATCH * MIB),
        }
    }

    /// Microseconds of each of a round's calls.
    fn measure(&self, store: &Store, row: Row, round: usize) -> Vec<f64> {
        let mut results = [0; BATCH];
        let sizes = [MIB; BATCH];
        let pieces: Vec<*mut c_void> = (0..BATCH)
            .map(|number| self.buffers.piece(number, MIB).cast())
            .collect();
        let sources: Vec<*const c_void> = pieces.iter().map(|piece| piece.cast_const()).collect();
        (0..row.calls())
            .map(|call| {
                let number = round * row.calls() + call;
                let begin = (number * BATCH) % LARGE;
                let batch: Vec<mmc_key> = self.large[begin..begin + BATCH].iter().map(|key| key_of(key)).collect();
                let small = &self.small[number % SMALL];
                let piece = self.buffers.piece(number % 256, 64 * KIB);
                match row {
                    Row::PutLarge => batch.iter().for_each(|key| {
                        // SAFETY: a key of the benchmark's.
                        check(unsafe { objects::mmc_remove(store.0, *key) });
                    }),
                    Row::Put => store.remove(small),
                    _ => {}
                }
                let start = Instant::now();
                match row {
                    Row::Exists => store.batch_exist(&batch, &mut results),
                    Row::GetLarge => store.batch_get(&batch, &pieces, &sizes, &mut results),
                    Row::PutLarge => store.batch_put(&batch, &sources, &sizes, &mut results),
                    Row::Get => store.get(small, piece, 64 * KIB),
                    Row::Put => store.put(small, piece, 64 * KIB),
                }
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect()
    }

    fn put_small(&self, store: &Store) {
        for (number, key) in self.small.iter().enumerate() {
            store.put(key, self.buffers.piece(number % 256, 64 * KIB), 64 * KIB);
        }
    }
}

/// The attached process: measures what the lines of its input say.
fn attached(address: &str) {
    let address = CString::new(address).expect("an address has no zero byte");
    let mut handle = ptr::null_mut();
    // SAFETY: a C string, and room for the handle.
    check(unsafe { mmc_attach(address.as_ptr(), ptr::null(), &mut handle) });
    let (store, load) = (Store(handle), Load::new(1));
    load.put_small(&store);
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the owner writes text");
        let (row, round) = line.split_once(' ').expect("a row and a round");
        let row = ROWS[row.parse::<usize>().expect("a row's number")].0;
        let took = load.measure(&store, row, round.parse().expect("a round's number"));
        let took: Vec<String> = took.iter().map(f64::to_string).collect();
        println!("{}", took.join(" "));
    }
}

struct Other {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Other {
    fn start(address: &str) -> Other {
        let program = std::env::current_exe().expect("a program has a path");
        let mut child = Command::new(program)
            .args(["--attach", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let input = child.stdin.take();
        let mut other = Other { child, input, output };
        assert_eq!(other.line(), "ready");
        other
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the attached process writes text");
        line.trim().into()
    }

    fn measure(&mut self, row: usize, round: usize) -> Vec<f64> {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{row} {round}").expect("the attached process reads");
        let line = self.line();
        line.split(' ').map(|took| took.parse().expect("a number")).collect()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.input = None;
        assert!(self.child.wait().expect("it was started").success());
    }
}

fn usage(reason: &str) -> ! {
    eprintln!("{reason}\nusage: sharing [--rounds N] [--only TEXT]");
    std::process::exit(2)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the pool's memory is made of.
fn pages(store: &Store) -> &'static str {
    // SAFETY: a struct of integers, and room for a number.
    let info = unsafe {
        let mut info: mmc_segment_info = std::mem::zeroed();
        info.struct_size = size_of::<mmc_segment_info>() as u32;
        let mut count = 0;
        check(segments::mmc_list_segments(store.0, &mut info, 1, &mut count));
        info
    };
    match info.pages {
        MMC_PAGES_ADVISED => "huge pages by the host's shmem setting",
        MMC_PAGES_HUGETLB => "huge pages by MFD_HUGETLB",
        MMC_PAGES_COLLAPSED => "huge pages by MADV_COLLAPSE",
        _ => "small pages",
    }
}

fn main() {
    let (mut rounds, mut only) = (15, String::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| usage(&format!("{word} needs a value")));
        match word.as_str() {
            "--attach" => return attached(&value()),
            "--rounds" => rounds = value().parse().unwrap_or_else(|_| usage("--rounds takes a number")),
            "--only" => only = value(),
            // What cargo itself passes on.
            "--bench" => {}
            _ => usage(&format!("{word} is not an option")),
        }
    }
    let store = Store::open(&Setting {
        dram: POOL,
        memory: MMC_MEMORY_MEMFD,
        watermark_high: 100,
        watermark_low: 100,
    });
    let path = std::env::temp_dir().join(format!("mmc-bench-{}.sock", std::process::id()));
    let address = format!("unix:{}", path.display());
    let shared = CString::new(address.as_str()).expect("a path has no zero byte");
    // SAFETY: an open store and a C string.
    check(unsafe { mmc_share(store.0, shared.as_ptr()) });
    let load = Load::new(0);
    load.put_small(&store);
    for (number, key) in load.large.iter().enumerate() {
        store.put(key, load.buffers.piece(number % BATCH, MIB), MIB);
    }
    let mut other = Other::start(&address);
    eprintln!("a memfd of {}", pages(&store));
    for (place, (row, name)) in ROWS.into_iter().enumerate() {
        if !name.contains(&only) {
            continue;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // The first round is not counted: it meets pages and threads for the first time.
        for round in 0..=rounds {
            let took = (load.measure(&store, row, round), other.measure(place, round));
            if round > 0 {
                ours.extend(took.0);
                theirs.extend(took.1);
            }
        }
        let (own, attached) = (median(&ours), median(&theirs));
        let (ratio, over) = (own / attached, attached - own);
        println!(
            "{{\"row\":\"{name}\",\"speed_ratio\":{ratio:.3},\"own_us\":{own:.1},\"attached_us\":{attached:.1},\"over_us\":{over:.1}}}"
        );
        eprintln!(
            "{name:<22} own {own:9.1} us   attached {attached:9.1} us   {ratio:6.3} of the speed, {over:+8.1} us"
        );
    }
    drop(other);
}
