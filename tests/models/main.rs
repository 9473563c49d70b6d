//! Model checks of the lock-free parts: loom runs every order of steps, and every value that a load may see.
//!
//! The very source files are compiled here, with loom's atomics in the place of the standard ones: they take theirs from
//! `crate::sync`, which is this program's. So a part that is to be modelled is a file without tests of its own. What isn't modelled, as loom
//! knows neither mappings nor so many steps: whole slabs, whole index shards, the store. Their own tests run them with threads, and
//! `tests/tsan.sh` those under ThreadSanitizer.

mod buckets;
mod copies;
mod gates;
mod growth_of_slabs;
mod handles;
mod holdings_of_processes;
mod holds;
mod keeper;
mod numbers;
mod objects;
mod slots;
mod stripes;
mod sync;

#[path = "../../src/store/keeper/bell.rs"]
mod bell;
#[path = "../../src/trace/cells.rs"]
mod cells;
#[allow(dead_code)]
#[path = "../../src/object/count.rs"]
mod count;
#[allow(dead_code)]
#[path = "../../src/slab/free.rs"]
mod free;
#[path = "../../src/segment/freed.rs"]
mod freed;
#[allow(dead_code)]
#[path = "../../src/gate.rs"]
mod gate;
#[allow(dead_code)]
#[path = "../../src/slab/growth.rs"]
mod growth;
#[allow(dead_code)]
#[path = "../../src/share/holdings.rs"]
mod holdings;
#[allow(dead_code)]
#[path = "../../src/object/life.rs"]
mod life;
#[path = "../../src/stripe/owned.rs"]
mod owned;
#[allow(dead_code)]
#[path = "../../src/hold/record.rs"]
mod record;
#[allow(dead_code)]
#[path = "../../src/ffi/slot.rs"]
mod slot;
#[path = "../../src/segment/tenants.rs"]
mod tenants;
#[path = "../../src/index/version.rs"]
mod version;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// Runs a model whose threads are switched between at most so many times where they need not be.
fn model(preemptions: usize, act: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(act);
}

/// As [`model`], for threads that add to words of their own: as if they shared them too, which loom explores further (`stripes` says why).
fn model_on_stripes(preemptions: usize, act: impl Fn() + Sync + Send + Clone + 'static) {
    for are_shared in [false, true] {
        sync::share_stripes(are_shared);
        model(preemptions, act.clone());
    }
}

/// Memory that the protocol under test protects: loom fails a model in which a write meets a read or another write.
struct Memory(UnsafeCell<u32>);

// SAFETY: that is what the models are about, and loom checks every access.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(value: u32) -> Memory {
        Memory(UnsafeCell::new(value))
    }

    fn read(&self) -> u32 {
        // SAFETY: loom has checked that nobody writes.
        self.0.with(|memory| unsafe { *memory })
    }

    fn write(&self, value: u32) {
        // SAFETY: loom has checked that nobody reads or writes.
        self.0.with_mut(|memory| unsafe { *memory = value });
    }
}

fn spawn<T: Sync + Send + 'static, R: 'static>(
    shared: &Arc<T>,
    act: impl FnOnce(&T) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || act(&shared))
}
