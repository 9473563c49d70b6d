//! Ending holds by their tokens, and holding memory of a segment that is to leave.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;

use crate::free::FreeNumbers;
use crate::freed::Freed;
use crate::record::{Held, Record, State, number_of, token_of};
use crate::sync::{Mutex, Ordering};
use crate::tenants::Tenants;
use crate::{Memory, model, spawn};

/// One record, in which hold follows hold.
struct Records {
    record: Record,
    free: FreeNumbers,
    ended: AtomicUsize,
}

fn on(slot: u32) -> Held {
    Held {
        slot,
        copies: slot + 100,
    }
}

impl Records {
    fn new() -> Arc<Records> {
        let records = Records {
            record: Record::default(),
            free: FreeNumbers::new(),
            ended: AtomicUsize::new(0),
        };
        records.free.push(0, &records.record.next);
        Arc::new(records)
    }

    /// As `Holds::pin`.
    fn begin(&self, slot: u32) -> Option<u64> {
        let number = self.free.pop(|_| &self.record.next)?;
        Some(token_of(self.record.begin(on(slot), State::Pinned, u64::MAX), number))
    }

    /// As `Holds::unpin`.
    fn end(&self, token: u64) -> Option<Held> {
        assert_eq!(number_of(token), 0);
        let held = self.record.end(token, State::Pinned)?;
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.free.push(0, &self.record.next);
        Some(held)
    }
}

#[test]
fn of_two_that_end_a_hold_one_does_and_gets_what_it_held() {
    model(3, || {
        let records = Records::new();
        let token = records.begin(1).unwrap();
        let other = spawn(&records, move |records| records.end(token));
        let mine = records.end(token);
        let others = other.join().unwrap();
        assert!(mine.is_some() != others.is_some());
        assert_eq!(mine.or(others), Some(on(1)));
        assert_eq!(records.ended.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_token_that_was_ended_ends_no_hold_that_came_later() {
    model(3, || {
        let records = Records::new();
        let token = records.begin(1).unwrap();
        let other = spawn(&records, move |records| records.end(token));
        let mine = records.end(token);
        if let Some(next) = records.begin(2) {
            assert_eq!(records.end(token), None, "an old token ended a new hold");
            assert_eq!(records.end(next), Some(on(2)));
        }
        let others = other.join().unwrap();
        assert!(mine.is_some() != others.is_some());
        assert_eq!(mine.or(others), Some(on(1)), "what was held is another's");
    });
}

/// A segment whose memory the host takes away once it is shut.
struct Segment {
    tenants: Tenants,
    memory: Memory,
}

impl Segment {
    fn new() -> Arc<Segment> {
        Arc::new(Segment {
            tenants: Tenants::new(),
            memory: Memory::new(0),
        })
    }

    fn use_memory(&self) -> bool {
        let is_in = self.tenants.hold();
        if is_in {
            assert_eq!(self.memory.read(), 0);
            assert!(
                self.tenants.shut_out().is_err(),
                "it was shut under somebody who holds memory in it"
            );
            self.tenants.end_hold();
        }
        is_in
    }
}

#[test]
fn memory_of_a_segment_that_leaves_is_held_by_nobody() {
    model(3, || {
        let segment = Segment::new();
        let tenants = [(); 2].map(|()| spawn(&segment, Segment::use_memory));
        match segment.tenants.shut_out() {
            Ok(()) => {
                segment.memory.write(1);
                assert!(!segment.use_memory(), "somebody got in after it was shut");
            }
            Err(holds) => assert!(holds.is_some_and(|holds| (1..=2).contains(&holds)), "{holds:?}"),
        }
        for tenant in tenants {
            tenant.join().unwrap();
        }
        assert!(
            segment.tenants.are_shut_out() || segment.tenants.shut_out().is_ok(),
            "a hold was lost"
        );
    });
}

#[test]
fn of_two_that_shut_a_segment_one_does_and_taking_it_back_loses_no_hold() {
    model(3, || {
        let segment = Segment::new();
        let tenant = spawn(&segment, |segment| {
            let is_in = segment.tenants.hold();
            if is_in {
                segment.tenants.end_hold();
            }
        });
        let closer = spawn(&segment, |segment| {
            if segment.tenants.shut_out().is_ok() {
                assert_eq!(segment.tenants.shut_out(), Err(None));
                segment.tenants.let_in();
            }
        });
        tenant.join().unwrap();
        closer.join().unwrap();
        assert_eq!(segment.tenants.shut_out(), Ok(()));
    });
}

/// Loom's waits have no end of their own: a wake-up that is missed is a model that hangs, which it reports.
#[test]
fn who_waits_for_memory_is_woken_by_who_gives_it_back() {
    struct Space {
        is_free: Mutex<bool>,
        freed: Freed,
    }
    model(3, || {
        let space = Arc::new(Space {
            is_free: Mutex::new(false),
            freed: Freed::new(),
        });
        let waiters = [(); 2].map(|()| {
            spawn(&space, |space| {
                space.freed.wait(&space.is_free, |is_free| *is_free);
                assert!(*space.is_free.lock().unwrap(), "it was woken for nothing");
            })
        });
        *space.is_free.lock().unwrap() = true;
        space.freed.wake();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert!(!space.freed.is_waited_for());
    });
}
