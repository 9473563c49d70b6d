//! Rounds in which contestants alternate, and the rows that come of them.
//!
//! A row compares one contestant with one other, and says in what part: `role` is `peer` for a contestant beside mmc, and for mmc itself
//! what it is held against: the best peer, a limit, its own single calls. `speed_ratio` is the median of the rounds' ratios, above 1 when
//! the row's contestant is the faster one.

use std::time::{Duration, Instant};

/// What a contestant is in the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The library itself.
    Mmc,
    /// What a user would take instead, as its crate makes it.
    Peer,
    /// A peer with a faster hash than its crate's default: shown, and not counted as the best.
    Tuned,
    /// What no cache can beat: the copy alone.
    Limit,
}

/// Who is measured and how.
#[derive(Clone, Debug)]
pub struct Who {
    pub name: &'static str,
    pub part: Part,
    /// Objects a call.
    pub batch: usize,
    pub threads: usize,
}

/// One contestant's times of one operation, in seconds a round.
pub struct Series {
    pub who: Who,
    pub seconds: Vec<f64>,
}

/// One operation as it was measured.
pub struct Operation<'a> {
    pub name: &'a str,
    /// Bytes of an object, or 0 where none are moved.
    pub bytes: usize,
    /// How often it was done in one round.
    pub count: usize,
}

/// Lets contestants take turns for some rounds and one before them that is not counted. Returns what `act` returned in its columns: for
/// each contestant and column the rounds' values.
pub fn alternate<T, const N: usize>(
    rounds: usize,
    contestants: &[T],
    mut act: impl FnMut(usize, &T) -> [f64; N],
) -> Vec<[Vec<f64>; N]> {
    let mut columns: Vec<[Vec<f64>; N]> = contestants
        .iter()
        .map(|_| std::array::from_fn(|_| Vec::new()))
        .collect();
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let number = (turn + round) % contestants.len();
            let values = act(round, &contestants[number]);
            if round > 0 {
                for (column, value) in columns[number].iter_mut().zip(values) {
                    column.push(value);
                }
            }
        }
    }
    columns
}

pub fn seconds(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

pub fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// Prints rows, and for who waits what is being measured.
pub struct Report {
    begin: Instant,
}

impl Report {
    pub fn new() -> Report {
        Report { begin: Instant::now() }
    }

    /// Says on standard error what is measured now.
    pub fn begin(&self, what: &str) {
        eprintln!("peers: {:5.1} s  {what}", self.begin.elapsed().as_secs_f64());
    }

    /// All rows of one operation: every contestant beside mmc, and mmc beside the best peer, the limits and its own single calls.
    pub fn compare(&self, operation: &Operation, all: &[Series]) {
        let is_single = |series: &&Series| series.who.batch == 1;
        for mmc in all.iter().filter(|series| series.who.part == Part::Mmc) {
            let others = || all.iter().filter(|other| other.who.threads == mmc.who.threads);
            if mmc.who.batch == 1 {
                for other in others().filter(|other| other.who.part != Part::Mmc) {
                    self.row(operation, other, "peer", mmc);
                }
            }
            let best = others()
                .filter(|other| other.who.part == Part::Peer)
                .min_by(|one, other| median(one.seconds.clone()).total_cmp(&median(other.seconds.clone())));
            if let Some(best) = best {
                self.row(operation, mmc, "best peer", best);
            }
            for limit in others().filter(|other| other.who.part == Part::Limit) {
                self.row(operation, mmc, "limit", limit);
            }
            if mmc.who.batch > 1
                && let Some(single) = others().filter(is_single).find(|other| other.who.part == Part::Mmc)
            {
                self.row(operation, mmc, "single calls", single);
            }
        }
    }

    /// One row: `ours` against `theirs`.
    pub fn row(&self, operation: &Operation, ours: &Series, role: &str, theirs: &Series) {
        let ratios = || {
            ours.seconds
                .iter()
                .zip(&theirs.seconds)
                .map(|(ours, theirs)| theirs / ours)
        };
        let nanoseconds = median(
            ours.seconds
                .iter()
                .map(|seconds| seconds * 1e9 / operation.count as f64),
        );
        let Who {
            name, batch, threads, ..
        } = ours.who;
        let (Operation { name: what, bytes, .. }, against) = (operation, theirs.who.name);
        let (ratio, low, high) = (median(ratios()), quantile(ratios(), 0.25), quantile(ratios(), 0.75));
        println!(
            "{{\"contestant\":\"{name}\",\"via\":\"C\",\"operation\":\"{what}\",\"bytes\":{bytes},\"batch\":{batch},\
             \"threads\":{threads},\"ns\":{nanoseconds:.1},\"role\":\"{role}\",\"against\":\"{against}\",\
             \"speed_ratio\":{ratio:.3},\"quartiles\":[{low:.3},{high:.3}]}}"
        );
    }

    /// A row that is not a speed: `value` of a unit, and how it stands to `against`.
    pub fn value(&self, who: &str, operation: &Operation, value: f64, unit: &str, against: &str, ratio: f64) {
        let Operation { name: what, bytes, .. } = operation;
        println!(
            "{{\"contestant\":\"{who}\",\"via\":\"C\",\"operation\":\"{what}\",\"bytes\":{bytes},\"batch\":1,\"threads\":1,\
             \"value\":{value:.4},\"unit\":\"{unit}\",\"role\":\"value\",\"against\":\"{against}\",\"ratio\":{ratio:.4}}}"
        );
    }

    /// What the tracepoints and counters of `count` exists or gets take of them, by themselves. `seconds`: what the calls took, a round each.
    pub fn counting(&self, call: &str, bytes: usize, count: usize, seconds: &[f64]) {
        let cost = |_: &f64| mmc::cost_of_counting(count, call == "get").expect("memory for the counters");
        let costs: Vec<f64> = seconds.iter().map(cost).collect();
        let share = median(costs.iter().zip(seconds).map(|(cost, call)| cost / call));
        let nanoseconds = median(costs) * 1e9 / count as f64;
        let operation = Operation {
            name: &format!("tracepoints and counters of {call}"),
            bytes,
            count,
        };
        self.value("mmc", &operation, nanoseconds, "ns", call, share);
    }
}
