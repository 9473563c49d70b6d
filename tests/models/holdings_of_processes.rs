//! What an attached process has goes back once, whoever comes first: its end, its request, or the request that was under way.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;

use crate::holdings::Holdings;
use crate::sync::Ordering;
use crate::{model, spawn};

/// A process, and how many loans are out.
struct Process {
    holdings: Holdings<u32>,
    out: AtomicUsize,
}

impl Process {
    fn new() -> Arc<Process> {
        Arc::new(Process {
            holdings: Holdings::new(),
            out: AtomicUsize::new(0),
        })
    }

    /// As `Session::keep`: what can't be noted goes back at once.
    fn lend(&self, loan: u32) -> Option<u64> {
        self.out.fetch_add(1, Ordering::Relaxed);
        self.holdings.keep(loan).inspect_err(|_| self.give_back(1)).ok()
    }

    fn give_back(&self, loans: usize) {
        assert!(
            self.out.fetch_sub(loans, Ordering::Relaxed) >= loans,
            "a loan went back twice"
        );
    }

    /// As `Session::end`.
    fn end(&self) {
        self.give_back(self.holdings.end().loans.len());
    }
}

#[test]
fn a_loan_that_is_made_while_its_process_ends_goes_back() {
    model(3, || {
        let process = Process::new();
        let other = spawn(&process, |process| process.end());
        let first = process.lend(1);
        let second = process.lend(2);
        other.join().unwrap();
        assert!(first.is_some() || second.is_none(), "once it has ended it gets no loan");
        assert_eq!(process.out.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_loan_that_is_given_back_while_its_process_ends_goes_back_once() {
    model(3, || {
        let process = Process::new();
        let token = process.lend(1).unwrap();
        let void = spawn(&process, |process| {
            process.holdings.make_void();
            process.end();
        });
        if process.holdings.take(token, |loan| *loan == 1).is_some() {
            process.give_back(1);
        }
        assert!(process.holdings.take(token, |_| true).is_none());
        void.join().unwrap();
        assert_eq!(process.out.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_process_that_has_nothing_is_forgotten_when_its_connection_breaks_and_gets_nothing_after() {
    model(3, || {
        let process = Process::new();
        let void = spawn(&process, |process| {
            process.holdings.make_void();
            process.holdings.end_if_empty()
        });
        let token = process.lend(1);
        let is_forgotten = void.join().unwrap();
        assert!(is_forgotten == token.is_none(), "what it has is waited for");
        process.end();
        assert_eq!(process.out.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_segment_that_is_brought_while_the_connection_breaks_is_somebodys() {
    model(3, || {
        let process = Process::new();
        let void = spawn(&process, |process| process.holdings.make_void());
        let is_noted = process.holdings.add_segment(7);
        let orphans = void.join().unwrap();
        let is_left = process.holdings.take_segment(7);
        // It waits for another process, or the one that had brought it has to see to that.
        assert!(is_noted != (orphans.is_empty() && !is_left));
        assert!(orphans.is_empty() || !is_left);
    });
}
