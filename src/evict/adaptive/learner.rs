//! What a medium's policies have learned together: which objects come back, by kind and age, and what that makes each worth.
//!
//! It hears of every copy that comes, goes or is let go, and collects what was used ([`Heard`]); it keeps the lives of the copies that are
//! there and of the ghosts of those that were let go, and makes new ranks of them once a tick at most. A use is a tick at least after the
//! one before: what happens within one is one use, and no news.

use std::sync::Arc;

use super::ages::{BINS, middle_of};
use super::ghosts::{Ghost, Ghosts};
use super::heard::{Heard, Sums};
use super::lives::Lives;
use super::rank::Ranks;
use super::{KINDS, Kind};
use crate::clock::tick_of;

/// What was seen counts for half after so many ticks, as loads change within hours, ...
const HALF_LIFE_TICKS: f64 = 2000.0;
/// ... if more uses of chains than these were seen.
const LEAST_CHAINS: f64 = 100.0;

/// Shared by the segments of a medium, under a lock of its own that is taken last.
pub(super) struct Learner {
    lives: [Lives; KINDS],
    ranks: Ranks,
    ghosts: Ghosts,
    /// Copies that are there.
    copies: usize,
    /// Uses of objects, and the moments in which there were any: a chain is used as a whole.
    uses: f64,
    chains: f64,
    /// The stamp of the last object that came back.
    last_return: u64,
    heard: Arc<Heard>,
    /// What was heard and has been taken in.
    known: Box<Sums>,
    tick: u64,
}

impl Learner {
    pub fn new(heard: Arc<Heard>) -> Learner {
        let lives = std::array::from_fn(|_| Lives::new());
        Learner {
            ranks: Ranks::of(&lives, 1.0),
            lives,
            ghosts: Ghosts::new(),
            copies: 0,
            uses: 0.0,
            chains: 0.0,
            last_return: 0,
            heard,
            known: Box::new(Sums::none()),
            tick: 0,
        }
    }

    /// Lets time pass up to `tick`.
    pub fn pass(&mut self, tick: u64) {
        if tick <= self.tick {
            return;
        }
        self.collect(self.tick.midpoint(tick + 1));
        let share = match self.chains > LEAST_CHAINS {
            true => (-((tick - self.tick) as f64) / HALF_LIFE_TICKS).exp2(),
            false => 1.0,
        };
        (self.uses, self.chains) = (self.uses * share, self.chains * share);
        for lives in &mut self.lives {
            lives.pass(tick, share);
        }
        self.ranks = Ranks::of(&self.lives, (self.uses + 1.0) / (self.chains + 1.0));
        self.tick = tick;
    }

    /// Takes in what was used since it did that last, as if all of it had been at this tick.
    fn collect(&mut self, tick: u64) {
        let sums = self.heard.sums();
        for (kind, bin) in Kind::ALL
            .into_iter()
            .flat_map(|kind| (0..BINS).map(move |bin| (kind, bin)))
        {
            let uses = sums.uses[kind as usize][bin] - self.known.uses[kind as usize][bin];
            if uses > 0 {
                self.uses += uses as f64;
                self.lives[kind as usize].end(tick.saturating_sub(middle_of(bin)), tick, uses, true);
                self.lives[Kind::Used as usize].begin(tick, uses);
            }
        }
        self.chains += (sums.chains - self.known.chains) as f64;
        *self.known = sums;
    }

    /// What a copy of this kind is worth that was used last at tick `used`.
    pub fn rank(&self, kind: Kind, used: u64) -> f32 {
        self.ranks.rank(kind, self.tick.saturating_sub(used))
    }

    /// A copy has come, put or used with this stamp; the kind that it is of. `known` is what its object was taken for before, if that is there.
    pub fn arrive(&mut self, key: u64, stamp: u64, is_end: bool, known: Option<Kind>) -> Kind {
        self.copies += 1;
        let tick = tick_of(stamp);
        match self.ghosts.take(key) {
            None => {
                let kind = known.unwrap_or(Kind::of_new(is_end));
                self.lives[kind as usize].begin(tick, 1);
                kind
            }
            // It was put back: its life goes on.
            Some(ghost) if tick < ghost.used || (known.is_some() && tick == ghost.used) => ghost.kind,
            Some(ghost) => {
                self.uses += 1.0;
                if std::mem::replace(&mut self.last_return, stamp) != stamp {
                    self.chains += 1.0;
                }
                self.lives[ghost.kind as usize].end(ghost.used, tick, 1, true);
                self.lives[Kind::Used as usize].begin(tick, 1);
                Kind::Used
            }
        }
    }

    /// A copy was held at tick `now`: that is no use that says anything, but its age begins again.
    pub fn renew(&mut self, kind: Kind, before: u64, now: u64) {
        if now > before {
            self.lives[kind as usize].end(before, now, 1, false);
            self.lives[kind as usize].begin(now, 1);
        }
    }

    /// A copy was taken away by its owner: nobody will see its next use.
    pub fn leave(&mut self, kind: Kind, used: u64) {
        self.copies -= 1;
        self.lives[kind as usize].end(used, self.tick, 1, false);
    }

    /// A copy was let go.
    pub fn let_go(&mut self, key: u64, ghost: Ghost) {
        self.copies -= 1;
        let (lives, tick) = (&mut self.lives, self.tick);
        self.ghosts.put(key, ghost, self.copies, |forgotten| {
            lives[forgotten.kind as usize].end(forgotten.used, tick, 1, false);
        });
    }

    /// Checks what must agree.
    #[cfg(test)]
    pub fn validate(&self, copies: usize) {
        assert_eq!(self.copies, copies);
        self.lives.iter().for_each(Lives::validate);
    }

    /// Lives under way, and ghosts.
    #[cfg(test)]
    pub fn sizes(&mut self) -> (u64, usize) {
        (self.lives.iter().map(Lives::under_way).sum(), self.ghosts.len())
    }
}
