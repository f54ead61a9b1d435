//! Several histograms of the same scores, counted at once.

use crate::pairs::{Error, Histogram};

/// Pairs of a bin in each of the four ways to count: distinct rows, rows, and two weightings.
pub type Count = [u64; 4];

/// The thresholds of all histograms of a run, merged: bin b holds the scores with exactly b
/// thresholds at or below them.
///
/// [`Histogram`]'s last bin includes its upper edge, and the study counts a score on an edge twice;
/// so besides an edge e the next number above e can be a threshold, which sets "on the edge" apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Bins {
    thresholds: Vec<f64>,
}

impl Bins {
    /// The bins from which each of these histograms follows; those in `twice` keep scores on an
    /// edge apart.
    ///
    /// # Errors
    /// [`Error::Refused`] for edges that are not two or more ascending numbers.
    pub fn new(histograms: &[Vec<f64>], twice: &[Vec<f64>]) -> Result<Self, Error> {
        let mut thresholds = Vec::new();
        for edges in histograms {
            Histogram::new(edges.clone())?;
            thresholds.extend_from_slice(&edges[..edges.len() - 1]);
            thresholds.push(edges[edges.len() - 1].next_up());
        }
        for edge in twice.iter().flatten() {
            thresholds.extend([*edge, edge.next_up()]);
        }
        // -0 and 0 are one threshold.
        thresholds.iter_mut().for_each(|t| *t += 0.0);
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
        Ok(Self { thresholds })
    }

    /// Those of a results file.
    pub fn known(thresholds: Vec<f64>) -> Self {
        Self { thresholds }
    }

    /// Ascending: a score lies in bin b if b thresholds are at or below it.
    pub fn thresholds(&self) -> &[f64] {
        &self.thresholds
    }

    /// Number of bins, one more than thresholds.
    pub fn len(&self) -> usize {
        self.thresholds.len() + 1
    }

    /// False: there is always a bin.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bin of a score.
    pub fn bin(&self, score: f64) -> usize {
        self.thresholds.partition_point(|t| *t <= score)
    }

    /// Pairs with a score of at least `from` and less than `to`; both are thresholds or infinite.
    fn between(&self, counts: &[u64], from: f64, to: f64) -> u64 {
        let first = self.thresholds.partition_point(|t| *t < from) + usize::from(from.is_finite());
        let end = self.thresholds.partition_point(|t| *t < to) + 1;
        counts[first.min(end)..end].iter().sum()
    }

    /// One histogram of those this was made for, from the counts of all bins.
    ///
    /// # Errors
    /// As [`Bins::new`].
    pub fn histogram(&self, edges: &[f64], counts: &[u64]) -> Result<Histogram, Error> {
        let mut histogram = Histogram::new(edges.to_vec())?;
        let last = edges[edges.len() - 1].next_up();
        for (bin, count) in histogram.counts.iter_mut().enumerate() {
            let to = if bin + 2 == edges.len() { last } else { edges[bin + 1] };
            *count = self.between(counts, edges[bin], to);
        }
        histogram.underflow = self.between(counts, f64::NEG_INFINITY, edges[0]);
        histogram.overflow = self.between(counts, last, f64::INFINITY);
        Ok(histogram)
    }

    /// Pairs on both edges or between, for each two neighbouring edges: what the study's
    /// `Series.between` counts, scores on an inner edge twice.
    pub fn closed_ranges(&self, edges: &[f64], counts: &[u64]) -> Vec<u64> {
        edges.windows(2).map(|e| self.between(counts, e[0], e[1].next_up())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn histograms_come_back(
            cuts in prop::collection::btree_set(-8i32..8, 2..6),
            others in prop::collection::btree_set(-8i32..8, 2..6),
            scores in prop::collection::vec(-20i32..20, 0..60),
        ) {
            let edges = |cuts: &std::collections::BTreeSet<i32>| -> Vec<f64> {
                cuts.iter().map(|c| f64::from(*c) / 4.0).collect()
            };
            let (a, b) = (edges(&cuts), edges(&others));
            let bins = Bins::new(&[a.clone(), b.clone()], std::slice::from_ref(&b)).unwrap();
            let mut counts = vec![0; bins.len()];
            let mut expected = [Histogram::new(a.clone()).unwrap(), Histogram::new(b.clone()).unwrap()];
            let mut closed = vec![0; b.len() - 1];
            for score in scores {
                let score = f64::from(score) / 8.0;
                counts[bins.bin(score)] += 1;
                expected.iter_mut().for_each(|h| h.add(score, 1));
                for (count, range) in closed.iter_mut().zip(b.windows(2)) {
                    *count += u64::from(range[0] <= score && score <= range[1]);
                }
            }
            prop_assert_eq!(bins.histogram(&a, &counts).unwrap(), expected[0].clone());
            prop_assert_eq!(bins.histogram(&b, &counts).unwrap(), expected[1].clone());
            prop_assert_eq!(bins.closed_ranges(&b, &counts), closed);
        }
    }
}
