//! Ages in bins: each tick by itself at first, then four bins to a doubling.
//!
//! How likely a use is changes with the ratio of ages more than with their difference, so bins that grow with the age lose little, and
//! some tens of them reach from a second to days.

/// Bins to a doubling of the age, as a power of two.
const STEPS_SHIFT: u32 = 2;
/// Ages from 2^20 ticks on, twelve days, are in the last bin.
const LAST_DOUBLING: u32 = 20;
/// How many bins there are.
pub(super) const BINS: usize = (LAST_DOUBLING as usize - 1) << STEPS_SHIFT;

/// The bin of an age.
pub(super) fn bin_of(age: u64) -> usize {
    let doubling = age.max(1).ilog2();
    if doubling < STEPS_SHIFT {
        return age as usize;
    }
    let step = (age >> (doubling - STEPS_SHIFT)) as usize & ((1 << STEPS_SHIFT) - 1);
    ((((doubling - 1) as usize) << STEPS_SHIFT) + step).min(BINS - 1)
}

/// The least age of a bin; of the one after the last, where that ends.
pub(super) fn start_of(bin: usize) -> u64 {
    if bin < 1 << STEPS_SHIFT {
        return bin as u64;
    }
    let step = bin & ((1 << STEPS_SHIFT) - 1);
    (((1 << STEPS_SHIFT) + step) as u64) << ((bin >> STEPS_SHIFT) - 1)
}

/// An age in the middle of a bin.
pub(super) fn middle_of(bin: usize) -> u64 {
    start_of(bin).midpoint(start_of(bin + 1))
}

/// Ticks that a bin holds.
pub(super) fn width_of(bin: usize) -> f64 {
    (start_of(bin + 1) - start_of(bin)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_follow_each_other_without_a_gap_and_every_age_is_in_its_own() {
        assert_eq!((start_of(0), start_of(BINS)), (0, 1 << LAST_DOUBLING));
        for bin in 0..BINS {
            let (start, end) = (start_of(bin), start_of(bin + 1));
            assert!(start < end);
            assert_eq!((bin_of(start), bin_of(end - 1)), (bin, bin), "{start} to {end}");
            assert!(
                bin < 4 || end - start <= start / 4,
                "bin {bin} is a quarter of its age at most"
            );
        }
        assert_eq!(bin_of(u64::MAX), BINS - 1);
    }
}
