//! Histograms that close: under- and overflow are counted, so the sum is the number of pairs.

use super::Error;
use serde::{Deserialize, Serialize};

/// Counts of scores between ascending edges. Bin b holds `edges[b] <= score < edges[b + 1]`, the
/// last bin its upper edge, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Edges, one more than bins.
    pub edges: Vec<f64>,
    /// Pairs in each bin.
    pub counts: Vec<u64>,
    /// Pairs below the first edge.
    pub underflow: u64,
    /// Pairs above the last edge.
    pub overflow: u64,
}

impl Histogram {
    /// An empty histogram.
    ///
    /// # Errors
    /// [`Error::Refused`] unless there are two or more finite, strictly ascending edges.
    pub fn new(edges: Vec<f64>) -> Result<Self, Error> {
        let sound =
            edges.len() >= 2 && edges.iter().all(|e| e.is_finite()) && edges.windows(2).all(|w| w[0] < w[1]);
        if !sound {
            return Err(Error::Refused("histogram edges must be two or more ascending numbers".into()));
        }
        let counts = vec![0; edges.len() - 1];
        Ok(Self { edges, counts, underflow: 0, overflow: 0 })
    }

    /// Counts `pairs` pairs of the same score.
    pub fn add(&mut self, score: f64, pairs: u64) {
        let above = self.edges.partition_point(|e| *e <= score);
        let last = self.edges.len() - 1;
        if above == 0 {
            self.underflow += pairs;
        } else if above <= last {
            self.counts[above - 1] += pairs;
        } else if score == self.edges[last] {
            self.counts[last - 1] += pairs;
        } else {
            self.overflow += pairs;
        }
    }

    /// Everything that was counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.underflow + self.overflow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_belong_to_the_upper_bin_but_the_last_closes() {
        let mut h = Histogram::new(vec![0.0, 0.5, 1.0]).unwrap();
        for score in [-0.1, 0.0, 0.49, 0.5, 1.0, 1.1] {
            h.add(score, 2);
        }
        assert_eq!((h.underflow, h.counts.clone(), h.overflow, h.total()), (2, vec![4, 4], 2, 12));
    }

    #[test]
    fn unsound_edges_are_refused() {
        for edges in [vec![], vec![0.0], vec![0.0, 0.0], vec![1.0, 0.0], vec![0.0, f64::NAN]] {
            assert!(Histogram::new(edges).is_err());
        }
    }
}
