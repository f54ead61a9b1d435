//! Means, deviations and percentiles of lists of sizes.

use serde::{Deserialize, Serialize};

/// Count, sum, mean, sample standard deviation (n - 1) and extremes of a list of whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub n: u64,
    /// Their sum, exact.
    pub sum: u128,
    /// `null` if there are none.
    pub mean: Option<f64>,
    /// With n - 1; `null` for fewer than two.
    pub std_ddof1: Option<f64>,
    /// Smallest.
    pub min: Option<u64>,
    /// Middle, halfway between the two middle ones where n is even.
    pub median: Option<f64>,
    /// Largest.
    pub max: Option<u64>,
}

impl Summary {
    /// Summarises the values; their order is of no account.
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let n = values.len();
        let sum: u128 = values.iter().map(|v| u128::from(*v)).sum();
        let mean = (n > 0).then(|| sum as f64 / n as f64);
        let std_ddof1 = mean.filter(|_| n > 1).map(|mean| {
            let squares = compensated(values.iter().map(|v| (*v as f64 - mean).powi(2)));
            (squares / (n - 1) as f64).sqrt()
        });
        let median = (n > 0).then(|| percentile(&values, 50));
        Self {
            n: n as u64,
            sum,
            mean,
            std_ddof1,
            min: values.first().copied(),
            median,
            max: values.last().copied(),
        }
    }
}

/// The study's percentile table of one list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many values.
    pub n: u64,
    /// Mean.
    pub mean: f64,
    /// Population standard deviation.
    pub std_ddof0: f64,
    /// `[p, value]` for p = 25, 30, ..., 95, 100.
    pub percentiles: Vec<(u8, f64)>,
    /// The 50th percentile.
    pub median: f64,
    /// Median plus the 25th percentile; the study prints it.
    pub median_plus_p25: f64,
    /// Median less the 25th percentile.
    pub median_minus_p25: f64,
}

impl Percentiles {
    /// `None` for an empty list. The order of the values decides the last digit of the deviation
    /// (see [`pairwise_sum`]).
    ///
    /// Source: the study's `layer_digest_similarity.py`, which calls `numpy.mean`, `numpy.std` and
    /// `numpy.percentile`.
    pub fn of(values: &[u64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let sum: u128 = values.iter().map(|v| u128::from(*v)).sum();
        let mean = sum as f64 / n as f64;
        let squares: Vec<f64> = values.iter().map(|v| (*v as f64 - mean).powi(2)).collect();
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let percentiles: Vec<_> = (25..=100).step_by(5).map(|p| (p, percentile(&sorted, p))).collect();
        let (p25, median) = (percentiles[0].1, percentile(&sorted, 50));
        Some(Self {
            n: n as u64,
            mean,
            std_ddof0: (pairwise_sum(&squares) / n as f64).sqrt(),
            percentiles,
            median,
            median_plus_p25: median + p25,
            median_minus_p25: median - p25,
        })
    }
}

/// Percentile `p` of an ascending list with linear interpolation between the two neighbours, with
/// numpy's rounding (`numpy.percentile`, method `linear`): from the upper neighbour down in the
/// upper half of the gap.
///
/// # Panics
/// If the list is empty.
pub fn percentile(sorted: &[u64], p: u8) -> f64 {
    let place = (sorted.len() - 1) as f64 * (f64::from(p) / 100.0);
    let below = place.floor();
    let t = place - below;
    let lower = sorted[below as usize];
    let upper = sorted[(below as usize + 1).min(sorted.len() - 1)];
    let gap = (upper - lower) as f64;
    if t >= 0.5 { upper as f64 - gap * (1.0 - t) } else { lower as f64 + gap * t }
}

/// Sum in numpy's order: blocks of up to 128 in eight lanes, larger lists halved.
///
/// The study's deviations were printed from this order; another one differs in the last digits.
pub fn pairwise_sum(values: &[f64]) -> f64 {
    let n = values.len();
    if n < 8 {
        return values.iter().fold(0.0, |sum, v| sum + v);
    }
    if n > 128 {
        let half = n / 2 - n / 2 % 8;
        return pairwise_sum(&values[..half]) + pairwise_sum(&values[half..]);
    }
    let mut lanes = [0.0; 8];
    lanes.copy_from_slice(&values[..8]);
    let blocks = values[8..].chunks_exact(8);
    let rest = blocks.remainder();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, v)| *lane += v);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, v| sum + v)
}

/// Neumaier's compensated sum: the error does not grow with the number of terms.
pub fn compensated(terms: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    for term in terms {
        let next = sum + term;
        lost += if sum.abs() >= term.abs() { (sum - next) + term } else { (term - next) + sum };
        sum = next;
    }
    sum + lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_interpolate() {
        let sorted = [1, 2, 10];
        assert_eq!([0, 25, 50, 75, 100].map(|p| percentile(&sorted, p)), [1.0, 1.5, 2.0, 6.0, 10.0]);
        assert_eq!(percentile(&[7], 95), 7.0);
    }

    #[test]
    fn few_values_have_defined_answers() {
        let none = Summary::of(vec![]);
        assert_eq!((none.n, none.mean, none.median, none.max), (0, None, None, None));
        let one = Summary::of(vec![3]);
        assert_eq!((one.mean, one.std_ddof1, one.median), (Some(3.0), None, Some(3.0)));
        assert_eq!(Percentiles::of(&[]), None);
        assert_eq!(Percentiles::of(&[5]).map(|p| (p.std_ddof0, p.median)), Some((0.0, 5.0)));
    }

    proptest! {
        #[test]
        fn pairwise_sums_are_sums(values in prop::collection::vec(0u32..1000, 0..2000)) {
            let exact: u64 = values.iter().map(|v| u64::from(*v)).sum();
            let floats: Vec<_> = values.iter().map(|v| f64::from(*v)).collect();
            prop_assert_eq!(pairwise_sum(&floats), exact as f64);
            prop_assert_eq!(compensated(floats.into_iter()), exact as f64);
        }
    }
}
