//! What has become of the objects of one kind: at which ages they were used again, and how long they have lived at each age without.
//!
//! A life begins with a put or a use and ends with the next use, or when nobody would notice one any more. Those that have not ended
//! count too, or everything would look as if it were used again soon: so the lives that are under way are kept by when they began, in
//! some two hundred groups, the older the coarser, and the time that passes is noted in their bins as it does.
//!
//! Nothing here is exact and nothing needs to be: groups are within a sixteenth of the age, and a use is often noticed late, which takes
//! back the time that was noted meanwhile.

use super::ages::{BINS, bin_of, start_of};

/// Groups of lives under way at most.
const GROUPS: usize = 512;
/// From here on groups are joined whose beginnings differ by less than a sixteenth of their age.
const JOIN_GROUPS: usize = 192;
const JOIN_SHARE: u64 = 16;
/// A use is in the middle of its tick.
const HALF_A_TICK: f64 = 0.5;

/// Lives that began at about the same time.
#[derive(Clone, Copy)]
struct Group {
    begun: u64,
    count: u64,
}

/// The lives of one kind.
pub(super) struct Lives {
    /// Uses by the age at which they came.
    pub uses: [f64; BINS],
    /// Ticks lived, by age.
    pub lived: [f64; BINS],
    /// Ascending by beginning.
    under_way: Vec<Group>,
    /// Time has been noted up to this tick.
    noted: u64,
}

impl Lives {
    pub fn new() -> Self {
        Lives {
            uses: [0.0; BINS],
            lived: [0.0; BINS],
            under_way: Vec::new(),
            noted: 0,
        }
    }

    /// So many lives begin, perhaps some time ago.
    pub fn begin(&mut self, tick: u64, count: u64) {
        let place = self.under_way.partition_point(|group| group.begun <= tick);
        if tick < self.noted {
            note(&mut self.lived, 0.0, (self.noted - tick) as f64, count as f64);
        }
        let before = place.saturating_sub(1);
        let is_known = self.under_way.get(before).is_some_and(|group| group.begun == tick);
        let mut has_room = || self.under_way.len() < GROUPS && self.under_way.try_reserve(1).is_ok();
        if !is_known && has_room() {
            self.under_way.insert(place, Group { begun: tick, count });
        } else if let Some(nearest) = self.under_way.get_mut(before) {
            nearest.count += count;
        }
    }

    /// So many lives that began at about tick `begun` end at tick `end`, with a use or unseen.
    pub fn end(&mut self, begun: u64, end: u64, count: u64, is_use: bool) {
        let place = self.under_way.partition_point(|group| group.begun <= begun);
        // A group that was joined may lie a little to the side, and ages are known by their bins.
        let (before, after) = self.under_way.split_at_mut(place);
        let mut left = count;
        for group in before.iter_mut().rev().chain(after) {
            let taken = group.count.min(left);
            group.count -= taken;
            left -= taken;
            if left == 0 {
                break;
            }
        }
        let age = end.saturating_sub(begun) as f64;
        let (noted, lived) = (self.noted.saturating_sub(begun) as f64, age + HALF_A_TICK);
        note(&mut self.lived, noted, lived, (count - left) as f64);
        if is_use {
            // Of what nobody saw begin, the time is noted now.
            note(&mut self.lived, 0.0, lived, left as f64);
            self.uses[bin_of(age as u64)] += count as f64;
        }
    }

    /// Notes the time up to `tick`, and lets what was noted before count for `share` of what it did.
    pub fn pass(&mut self, tick: u64, share: f64) {
        for bin in self.uses.iter_mut().chain(&mut self.lived) {
            *bin *= share;
        }
        for group in &self.under_way {
            let from = self.noted.saturating_sub(group.begun) as f64;
            let to = tick.saturating_sub(group.begun) as f64;
            note(&mut self.lived, from, to, group.count as f64);
        }
        self.noted = tick;
        self.under_way.retain(|group| group.count > 0);
        if self.under_way.len() > JOIN_GROUPS {
            self.join();
        }
    }

    fn join(&mut self) {
        let noted = self.noted;
        self.under_way.dedup_by(|group, before| {
            let is_near = (group.begun - before.begun) * JOIN_SHARE <= noted.saturating_sub(group.begun);
            if is_near {
                before.count += group.count;
            }
            is_near
        });
    }

    /// Lives under way.
    #[cfg(test)]
    pub fn under_way(&self) -> u64 {
        self.under_way.iter().map(|group| group.count).sum()
    }

    #[cfg(test)]
    pub fn validate(&self) {
        assert!(self.under_way.is_sorted_by(|one, other| one.begun < other.begun));
        assert!(self.under_way.len() <= GROUPS);
        assert!(self.uses.iter().all(|uses| *uses >= 0.0));
    }
}

/// Adds `count` times the ages from `from` to `to` to their bins; takes them away when `to` is the lesser.
fn note(lived: &mut [f64; BINS], from: f64, to: f64, count: f64) {
    let (mut age, end, count) = if from <= to {
        (from, to, count)
    } else {
        (to, from, -count)
    };
    let mut bin = bin_of(age as u64);
    while age < end {
        let until = match bin {
            _ if bin + 1 == BINS => end,
            _ => end.min(start_of(bin + 1) as f64),
        };
        lived[bin] += count * (until - age);
        (age, bin) = (until, bin + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(lives: &Lives) -> f64 {
        lives.lived.iter().sum()
    }

    #[test]
    fn time_is_noted_at_the_ages_at_which_it_was_lived() {
        let mut lives = Lives::new();
        lives.begin(0, 1);
        lives.begin(2, 1);
        lives.pass(3, 1.0);
        assert_eq!(lives.lived[..4], [2.0, 1.0, 1.0, 0.0]);
        lives.end(0, 3, 1, true);
        assert_eq!(lives.uses[3], 1.0);
        assert_eq!((total(&lives), lives.under_way()), (4.5, 1));
        lives.pass(1002, 1.0);
        assert_eq!(total(&lives), 1003.5);
        lives.validate();
    }

    #[test]
    fn a_use_that_is_noticed_late_takes_back_the_time_since() {
        let mut lives = Lives::new();
        lives.begin(10, 1);
        lives.pass(500, 1.0);
        lives.end(10, 14, 1, true);
        assert!((total(&lives) - 4.5).abs() < 1e-9 && lives.lived[5..].iter().all(|ticks| ticks.abs() < 1e-9));
        lives.begin(14, 1);
        assert!((total(&lives) - 4.5 - 486.0).abs() < 1e-9);
        assert_eq!(lives.uses[4], 1.0);
    }

    #[test]
    fn what_was_noted_long_ago_counts_for_less() {
        let mut lives = Lives::new();
        lives.begin(0, 1);
        lives.end(0, 9, 1, true);
        lives.pass(9, 0.5);
        assert_eq!((lives.uses[bin_of(9)], total(&lives)), (0.5, 4.75));
    }

    #[test]
    fn lives_of_days_are_under_way_in_some_hundred_groups() {
        let mut lives = Lives::new();
        for tick in 0..100_000 {
            lives.begin(tick, 1);
            lives.pass(tick, 1.0);
        }
        lives.validate();
        assert_eq!(lives.under_way(), 100_000);
        assert!(lives.under_way.len() <= JOIN_GROUPS + 1, "{}", lives.under_way.len());
        let exact: f64 = (0..100_000).map(f64::from).sum();
        assert!((total(&lives) / exact - 1.0).abs() < 0.05, "{}", total(&lives) / exact);
        for tick in 0..100_000 {
            lives.end(tick, 100_000, 1, false);
        }
        assert_eq!(lives.under_way(), 0);
    }

    #[test]
    fn of_many_that_end_at_once_those_nearest_in_age_are_taken_and_a_use_counts_that_nobody_saw_begin() {
        let mut lives = Lives::new();
        for tick in [10, 20, 30] {
            lives.begin(tick, 5);
        }
        lives.pass(100, 1.0);
        lives.end(21, 100, 7, true);
        let counts: Vec<u64> = lives.under_way.iter().map(|group| group.count).collect();
        assert_eq!(counts, [3, 0, 5]);
        lives.end(21, 100, 10, true);
        assert_eq!((lives.under_way(), lives.uses[bin_of(79)]), (0, 17.0));
        lives.end(21, 100, 1, false);
        assert_eq!(lives.uses[bin_of(79)], 17.0);
        lives.validate();
    }
}
