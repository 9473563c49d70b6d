//! A slice of a real trace through the real store, against a plain model of the same policy.

#[path = "../benches/support/replay.rs"]
mod replay;
#[path = "../benches/support/trace.rs"]
mod trace;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use mmc::ffi::types::{MMC_EVICTION_ADAPTIVE, MMC_EVICTION_PREFIX};
use trace::Trace;

/// How far a figure may be from the model's.
const TOLERANCE: f64 = 0.003;

/// Prefix hits of a pool that lets go of what was not used for longest: by whole requests, and within one the tail before the head.
fn prefix_hits(trace: &Trace, capacity: usize) -> usize {
    // When a block was used last: the number of the request, twice, and one more when that put it; then from the end of its chain.
    let mut used: HashMap<u32, (usize, usize)> = HashMap::new();
    let mut order = BTreeSet::new();
    let mut hits = 0;
    for (number, request) in trace.requests.iter().enumerate() {
        let place = |step: usize, position: usize| (2 * number + step, usize::MAX - position);
        let prefix = request
            .blocks
            .iter()
            .take_while(|block| used.contains_key(block))
            .count();
        hits += prefix;
        for (position, block) in request.blocks[..prefix].iter().enumerate() {
            let before = used.insert(*block, place(0, position)).expect("it is there");
            order.remove(&(before, *block));
            order.insert((place(0, position), *block));
        }
        let missing: Vec<u32> = request
            .blocks
            .iter()
            .copied()
            .filter(|block| !used.contains_key(block))
            .collect();
        // Room for all of them comes first: a batch does not evict what it has just put.
        let missing = &missing[..missing.len().min(capacity)];
        while order.len() + missing.len() > capacity {
            let (_, victim) = order.pop_first().expect("something is there");
            used.remove(&victim);
        }
        for (position, block) in missing.iter().enumerate() {
            used.insert(*block, place(1, position));
            order.insert((place(1, position), *block));
        }
    }
    hits
}

#[test]
fn prefix_hits_on_a_real_trace_what_its_model_hits() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/conversation-3000.kvt.gz");
    let trace = Trace::read(&path, 600);
    // `python/tests/test_replay.py` has the second capacity and its hits, too.
    for (percent, capacity, hits) in [(2, 274, 599), (20, 2742, 935)] {
        assert_eq!(trace.share(percent), capacity);
        assert_eq!(prefix_hits(&trace, capacity), hits, "of the model, at {percent} %");
        let ratio = |hits: usize| hits as f64 / trace.references as f64;
        let (store, model) = (
            ratio(replay::replay(&trace, capacity, MMC_EVICTION_PREFIX)),
            ratio(hits),
        );
        assert!(
            (store - model).abs() <= TOLERANCE,
            "{percent} %: {store:.4}, and the model {model:.4}"
        );
    }
}

#[test]
fn adaptive_hits_nearly_twice_what_prefix_hits_where_the_pool_is_small_and_more_where_it_is_not() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/conversation-3000.kvt.gz");
    let trace = Trace::read(&path, 3000);
    // `prefix` hits .042 and .216 there.
    for (percent, least) in [(2, 0.077), (20, 0.237)] {
        let hits = replay::replay(&trace, trace.share(percent), MMC_EVICTION_ADAPTIVE);
        let ratio = hits as f64 / trace.references as f64;
        assert!(
            ratio >= least - TOLERANCE,
            "{percent} %: {ratio:.4}, and {least} before"
        );
    }
}
