use super::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

/// The splitmix64 step: hashes that look random and are the same in every run.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// As `mixed`, in the first shard.
fn in_one_shard(number: u64) -> u64 {
    mixed(number) >> SHARD_BITS
}

fn has(index: &Index, hash: u64, slot: u32) -> bool {
    index.find(hash, |found| (found == slot).then_some(())).is_some()
}

/// Adds a slot whose hash, as that of all others, is what `hash_of` says.
fn insert(index: &Index, slot: u32, hash_of: impl Fn(u32) -> u64) -> Result<()> {
    index.lock(hash_of(slot)).insert(slot, hash_of)
}

/// As `in_one_shard`, for a slot.
fn hash_in_one_shard(slot: u32) -> u64 {
    in_one_shard(slot.into())
}

fn assert_all(index: &Index, expected: &HashMap<u32, u64>) {
    index.validate(|slot| expected[&slot]);
    for (slot, hash) in expected {
        assert!(has(index, *hash, *slot), "slot {slot} of hash {hash:#x} is missed");
    }
    let len: u32 = index.shards.iter().map(|shard| *shard.lock.lock().unwrap()).sum();
    assert_eq!(len as usize, expected.len());
}

#[test]
fn random_insertions_and_erasures_agree_with_a_map_whatever_the_hashes() {
    type Hash = fn(u64) -> u64;
    let hashes: [(&str, Hash); 5] = [
        ("spread", mixed),
        ("in one shard", in_one_shard),
        ("in few buckets", |number| in_one_shard(number % 40)),
        ("all the same", |_| 0xdead_beef),
        ("the same below", |number| mixed(number) & 0xffff_ffff_0000_0000),
    ];
    for (name, hash_of) in hashes {
        let (index, mut expected, mut random) = (Index::new().unwrap(), HashMap::new(), 0);
        // The same lower halves make one long chain, which every operation walks.
        let slots = if name.contains("same") { 300 } else { 6000 };
        for step in 0..20_000u64 {
            random = mixed(random + step);
            // It grows first, and shrinks in the end.
            let (slot, wants_more) = ((random >> 8) as u32 % slots, (random & 0xff) < 200 - step / 150);
            let hash = hash_of(slot.into());
            match (expected.contains_key(&slot), wants_more) {
                (false, true) => {
                    insert(&index, slot, |slot| hash_of(slot.into())).unwrap();
                    expected.insert(slot, hash);
                }
                (true, false) => {
                    assert!(index.lock(hash).erase(slot), "{name}: slot {slot}");
                    expected.remove(&slot);
                }
                (is_in, _) => {
                    assert_eq!(has(&index, hash, slot), is_in, "{name}: slot {slot}");
                    assert_eq!(
                        index.lock(hash).find(|found| (found == slot).then_some(())).is_some(),
                        is_in
                    );
                    assert!(is_in || !index.lock(hash).erase(slot));
                }
            }
            if step % 1000 == 0 {
                assert_all(&index, &expected);
            }
        }
        assert_all(&index, &expected);
        for (slot, hash) in expected.drain() {
            assert!(index.lock(hash).erase(slot));
        }
        assert_all(&index, &expected);
    }
}

#[test]
fn no_insertion_moves_the_entries_of_more_than_one_bucket() {
    let index = Index::new().unwrap();
    let mut places = HashMap::new();
    for slot in 0..3000u32 {
        let before = index.buckets_at(0);
        insert(&index, slot, hash_in_one_shard).unwrap();
        let (after, now) = (index.buckets_at(0), index.places_at(0));
        assert!(after - before <= 1);
        for (slot, bucket) in &places {
            let is_split = after > before && *bucket == before - (1 << before.ilog2());
            assert!(
                now[slot] == *bucket || (is_split && now[slot] == before),
                "{slot} moved"
            );
        }
        places = now;
    }
    assert!(index.buckets_at(0) >= 3000 / LOAD, "it has grown");
    index.validate(hash_in_one_shard);
}

#[test]
fn readers_never_miss_a_key_that_stays_while_others_come_and_go_and_the_table_grows() {
    const STAYING: u32 = 500;
    let index = Index::new().unwrap();
    for slot in 0..STAYING {
        insert(&index, slot, hash_in_one_shard).unwrap();
    }
    let is_over = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let reader = || {
            let mut looks = 0u64;
            while !is_over.load(Ordering::Relaxed) {
                for slot in 0..STAYING {
                    assert!(has(&index, in_one_shard(slot.into()), slot), "slot {slot} is missed");
                }
                looks += 1;
            }
            looks
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for slot in STAYING..60_000 {
            insert(&index, slot, hash_in_one_shard).unwrap();
            let other = slot - STAYING;
            if other >= STAYING && !other.is_multiple_of(3) {
                assert!(index.lock(in_one_shard(other.into())).erase(other));
            }
        }
        is_over.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap())
    });
    assert!(looks.iter().all(|looks| *looks > 0));
    index.validate(hash_in_one_shard);
}

#[test]
fn a_split_that_has_no_memory_leaves_every_entry_where_it_is_found() {
    // One further bucket for all chains.
    let index = Index::limited(MAX_BUCKETS, 1).unwrap();
    let mut expected = HashMap::new();
    let mut add = |index: &Index, slot: u32, hash: u64| {
        let result = insert(index, slot, |other| *expected.get(&other).unwrap_or(&hash));
        if result.is_ok() {
            expected.insert(slot, hash);
        }
        assert_all(index, &expected);
        result
    };
    // One more than fit bucket 0, all of which belong to the first new bucket as soon as there is one.
    let (first, many) = (u64::from(FIRST_BUCKETS), ENTRIES as u32 + 1);
    for slot in 0..many {
        add(&index, slot, first).unwrap();
    }
    let elsewhere = |_| 1 << 63;
    insert(&index, 1000, elsewhere).expect("other shards have their own buckets");
    assert!(index.lock(elsewhere(0)).erase(1000));
    let full = FIRST_BUCKETS * LOAD;
    for slot in many..full {
        add(&index, slot, 1 + u64::from(slot) % (first - 1)).unwrap();
    }
    assert_eq!(index.buckets_at(0), FIRST_BUCKETS);
    // The first one that is too many would split bucket 0; its chain's second bucket can't be there twice.
    for slot in full..full + 10 {
        add(&index, slot, 1 + u64::from(slot) % (first - 1)).unwrap();
        assert_eq!(index.buckets_at(0), FIRST_BUCKETS);
    }
    // With one entry less there is room for them, and it grows again.
    assert!(index.lock(first).erase(3));
    expected.remove(&3);
    let last = full + 10;
    insert(&index, last, |slot| *expected.get(&slot).unwrap_or(&1)).unwrap();
    expected.insert(last, 1);
    assert_eq!(index.buckets_at(0), FIRST_BUCKETS + 1);
    assert_all(&index, &expected);
}

#[test]
fn an_insertion_that_has_no_memory_changes_nothing() {
    let index = Index::limited(FIRST_BUCKETS, 2).unwrap();
    let mut expected = HashMap::new();
    for slot in 0..3 * ENTRIES as u32 {
        insert(&index, slot, |_| 5).unwrap();
        expected.insert(slot, 5);
    }
    assert!(matches!(
        insert(&index, 99, |_| 5),
        Err(crate::error::Error::OutOfMemory(_))
    ));
    assert_all(&index, &expected);
    assert!(index.lock(5).erase(7));
    expected.remove(&7);
    insert(&index, 99, |_| 5).unwrap();
    expected.insert(99, 5);
    assert_all(&index, &expected);
}

#[test]
fn a_table_that_can_not_grow_gets_longer_chains() {
    let index = Index::limited(FIRST_BUCKETS, u32::MAX).unwrap();
    let mut expected = HashMap::new();
    for slot in 0..2000 {
        insert(&index, slot, hash_in_one_shard).unwrap();
        expected.insert(slot, in_one_shard(slot.into()));
    }
    assert_eq!(index.buckets_at(0), FIRST_BUCKETS);
    assert_all(&index, &expected);
}

#[test]
fn further_buckets_of_a_chain_come_back_when_its_bucket_is_split() {
    let index = Index::new().unwrap();
    for slot in 0..50_000 {
        insert(&index, slot, hash_in_one_shard).unwrap();
    }
    index.validate(hash_in_one_shard);
    let shard = index.shard(0);
    let chained = |number| index.chain(index.bucket(shard, number)).count() - 1;
    let chained: usize = (0..index.buckets_at(0)).map(chained).sum();
    let most = (50_000 / LOAD) as usize / 4;
    assert!(chained < most, "{chained} further buckets for {} entries", 50_000);
    assert!(
        (index.overflow.bound() as usize) < chained + most,
        "they are used again"
    );
}

#[test]
fn every_hash_has_one_bucket_and_a_split_moves_entries_to_the_new_one_only() {
    for buckets in FIRST_BUCKETS..300 {
        for hash in (0..1000).chain([u32::MAX, u32::MAX - 1, 0x8000_0000]) {
            let (before, after) = (bucket_of(hash, buckets), bucket_of(hash, buckets + 1));
            assert!(before < buckets);
            let old = buckets - (1 << buckets.ilog2());
            assert!(
                before == after || (before == old && after == buckets),
                "{hash} in {buckets}"
            );
        }
    }
}
