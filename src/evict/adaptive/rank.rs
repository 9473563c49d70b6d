//! From what has become of earlier objects to what one is worth keeping: the Gittins index of its next use.
//!
//! An object of some kind and age may be kept for a while: then there is a chance that it is used meanwhile, and it takes its room for some
//! time, till that use or to the end of the while. Its rank is that chance by that time, for the while that makes it greatest: the most
//! uses that its room can be made to give, from here on. So of two objects the one of lower rank should go, whether the chances fall with
//! the age, as is usual, or rise at first, as where people take a minute to think.
//!
//! The chance of a use in the next tick, by kind and age, is uses over ticks lived, drawn toward what is better known as far as little has
//! been seen: a kind to its family, a family to all objects together, those to the guess that the chance is in inverse proportion to
//! the age, which ranks as least recently used does. Bins are first smoothed over two doublings of the age either way, and then drawn back to
//! what each bin says by itself when that is said by many: a chain is used as a whole, so many are chains, not objects.

use super::ages::{BINS, start_of, width_of};
use super::lives::Lives;
use super::{KINDS, Kind};

/// Chance of a use a tick at an age of one tick, before anything was seen; and the weight of that guess, in uses.
const GUESS: f64 = 0.3;
const GUESS_USES: f64 = 1.0;
/// Weight of what is known of the family, in uses of objects.
const FAMILY_USES: f64 = 32.0;
/// Weight of the smoothed chances, in uses of chains.
const SMOOTH_CHAINS: f64 = 20.0;
/// Bins to either side that smoothing takes in.
const SMOOTH_BINS: usize = 8;

/// Chances by age.
type Chances = [f64; BINS];

/// Ranks by kind and age.
pub(super) struct Ranks([[f32; BINS + 1]; KINDS]);

impl Ranks {
    /// The ranks that follow from these lives, in which a chain has this many objects on average.
    pub fn of(lives: &[Lives; KINDS], chain: f64) -> Ranks {
        let guess = std::array::from_fn(|bin| GUESS / (start_of(bin) as f64 + width_of(bin) / 2.0 + 1.0));
        let all = smoothed(lives.iter(), &guess, GUESS_USES);
        let mut ranks = Ranks([[0.0; BINS + 1]; KINDS]);
        for family in [&[Kind::New, Kind::End][..], &[Kind::Used]] {
            let of_family = smoothed(family.iter().map(|kind| &lives[*kind as usize]), &all, FAMILY_USES);
            for kind in family.iter().copied() {
                let lives = &lives[kind as usize];
                let smooth = smoothed(std::iter::once(lives), &of_family, FAMILY_USES);
                let weight = SMOOTH_CHAINS * chain;
                let chances = std::array::from_fn(|bin| {
                    (lives.uses[bin] + weight) / (lives.lived[bin].max(0.0) + weight / smooth[bin])
                });
                ranks.0[kind as usize] = indices(&chances);
            }
        }
        ranks
    }

    /// The rank of an object of this kind and age. Between the starts of two bins it changes evenly.
    pub fn rank(&self, kind: Kind, age: u64) -> f32 {
        let (bin, ranks) = (super::ages::bin_of(age), &self.0[kind as usize]);
        let share = ((age - start_of(bin)) as f32 / width_of(bin) as f32).min(1.0);
        ranks[bin] + (ranks[bin + 1] - ranks[bin]) * share
    }
}

/// Chances by smoothed bins, drawn to `known` with this weight. The first bin, uses in the very tick, is only itself.
fn smoothed<'a>(lives: impl Iterator<Item = &'a Lives>, known: &Chances, weight: f64) -> Chances {
    let (mut uses, mut lived) = ([0.0; BINS], [0.0; BINS]);
    for lives in lives {
        for bin in 0..BINS {
            uses[bin] += lives.uses[bin];
            lived[bin] += lives.lived[bin];
        }
    }
    std::array::from_fn(|bin| {
        let window = bin.saturating_sub(SMOOTH_BINS).max(1).min(bin)..(bin + SMOOTH_BINS + 1).min(BINS);
        let blur = |values: &Chances| {
            let share = |other: usize| 1.0 - other.abs_diff(bin) as f64 / (SMOOTH_BINS + 1) as f64;
            window.clone().map(|other| values[other] * share(other)).sum::<f64>()
        };
        (blur(&uses) + weight) / (blur(&lived).max(0.0) + weight / known[bin])
    })
}

/// The Gittins index at the start of each bin.
///
/// Let x be the time that an object takes up on average till some age, and y the chance that it has been used by then: keeping one from age
/// a on till age b gains y(b) - y(a) for x(b) - x(a). The best b makes that slope greatest, so it is the next corner of the upper hull of
/// the curve from a on; the hull is built from the right.
fn indices(chances: &Chances) -> [f32; BINS + 1] {
    let (mut x, mut y, mut left) = ([0.0; BINS + 1], [0.0; BINS + 1], 1.0);
    for bin in 0..BINS {
        let (chance, width) = (chances[bin], width_of(bin));
        let used = left * -(-chance * width).exp_m1();
        x[bin + 1] = x[bin] + used / chance;
        y[bin + 1] = y[bin] + used;
        left -= used;
    }
    let mut indices = [0.0; BINS + 1];
    let mut hull = [BINS; BINS + 1];
    let mut corners = 1;
    let slope = |from: usize, to: usize| (y[to] - y[from]) / (x[to] - x[from]).max(f64::MIN_POSITIVE);
    for bin in (0..BINS).rev() {
        while corners > 1 && slope(bin, hull[corners - 2]) >= slope(bin, hull[corners - 1]) {
            corners -= 1;
        }
        indices[bin] = slope(bin, hull[corners - 1]) as f32;
        hull[corners] = bin;
        corners += 1;
    }
    indices[BINS] = indices[BINS - 1];
    indices
}
