//! From the tiles' partial results to the numbers of a run.

use super::Prepared;
use super::bins::Count;
use super::exact;
use super::extent::Extent;
use super::filter::Edge;
use super::matrix::Place;
use super::moments::PairSums;
use super::neighbours::{Gathered, Nearest};
use super::wire::Partial;
use crate::pairs::{Error, Histogram};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The ways to count pairs, in the order of [`Count`].
pub const WAYS: [&str; 4] = ["distinct_vectors", "documents", "layers", "images"];

/// Everything a run found.
#[derive(Debug, Clone)]
pub struct Results {
    /// Pairs of distinct rows in each of the merged bins; without pairs inside groups.
    pub counts: Vec<Count>,
    /// Least and highest score over pairs of distinct rows, in each way to count.
    pub extents: [Extent; 4],
    /// Best neighbours of each distinct row; empty if none were wanted, and before
    /// [`Prepared::neighbours`].
    pub neighbours: Nearest,
    /// Pairs of distinct rows over the threshold, ascending.
    pub edges: Vec<Edge>,
    /// Pairs that were scored in f64.
    pub rechecked: u64,
    /// Where each tile's part of the matrix is, in tile order.
    pub places: Vec<Place>,
}

/// Collects the partial results of all tiles, in the plan's order.
pub struct Merge<'a> {
    prepared: &'a Prepared<'a>,
    candidates: Gathered,
    results: Results,
}

impl<'a> Merge<'a> {
    /// Begins with nothing.
    pub fn begin(prepared: &'a Prepared<'a>) -> Self {
        let error = prepared.filter.near_error();
        let candidates = Gathered::new(prepared.rows.len(), prepared.options.top_k, error);
        let results = Results {
            counts: vec![[0; 4]; prepared.bins.len()],
            extents: [Extent::default(); 4],
            neighbours: Nearest::default(),
            edges: Vec::new(),
            rechecked: 0,
            places: Vec::new(),
        };
        Self { prepared, candidates, results }
    }

    /// Adds the result of the next tile of the plan.
    pub fn add(&mut self, partial: Partial) {
        let results = &mut self.results;
        for (bin, count) in partial.counts {
            results.counts[bin as usize].iter_mut().zip(count).for_each(|(c, m)| *c += m);
        }
        results.extents.iter_mut().zip(partial.extents).for_each(|(extent, more)| extent.join(more));
        self.candidates.add(partial.neighbours);
        results.edges.extend(partial.edges);
        results.rechecked += partial.rechecked;
        results.places.extend(partial.place);
    }

    /// The whole, after checking that the sums close, and the candidates of each row, for
    /// [`Prepared::neighbours`].
    ///
    /// # Errors
    /// [`Error::Refused`] if they do not: a tile was lost or counted twice.
    pub fn finish(mut self) -> Result<(Results, Gathered), Error> {
        self.results.edges.par_sort_unstable_by_key(|e| (e.first, e.second));
        let weights = &self.prepared.weights[..self.prepared.rows.len()];
        for way in 0..4 {
            let found: u64 = self.results.counts.iter().map(|c| c[way]).sum();
            let (sum, own) = weights.iter().fold((0u128, 0u128), |(sum, own), w| {
                let w = u128::from(w[way]);
                (sum + w, own + w * w)
            });
            let expected = (sum * sum - own) / 2;
            if u128::from(found) != expected {
                return Err(Error::Refused(format!(
                    "the counts of {} do not close (found {found}, expected {expected}); nothing is \
                     published, please report this",
                    WAYS[way]
                )));
            }
        }
        Ok((self.results, self.candidates))
    }
}

/// The statistics of one way to count pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Which way: one of [`WAYS`].
    pub of: String,
    /// Items compared.
    pub items: u64,
    /// Unordered pairs of different items. Two items with equal vectors have similarity 1 (0 if the
    /// vectors are zeros).
    pub pairs: u64,
    /// Pairs with equal vectors.
    pub equal: u64,
    /// Mean score; `null` without pairs.
    pub mean: Option<f64>,
    /// Population standard deviation.
    pub std: Option<f64>,
    /// Least score.
    pub min: Option<f64>,
    /// Highest score.
    pub max: Option<f64>,
    /// The histograms, in the order of [`super::Options::histograms`].
    pub histograms: Vec<Histogram>,
    /// As the study counts; see [`Published`].
    pub as_published: Option<Published>,
}

/// The study's way to count: all ordered pairs and the diagonal, counted in ranges with both edges
/// included (so a score on an inner edge counts twice), halved; scores outside the ranges are lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Edges of the ranges.
    pub edges: Vec<f64>,
    /// Half the ordered pairs, diagonal included, in each range.
    pub counts: Vec<f64>,
    /// Their sum.
    pub sum: f64,
    /// What it would be if every ordered pair counted once: half the square.
    pub half_square: f64,
}

/// Pairs inside groups of equal rows, of one way to count.
struct Inside {
    pairs: u64,
    /// Those of zero rows.
    zeros: u64,
}

impl Results {
    /// Statistics of each way to count. `ways` says which (positions in [`WAYS`]), `sums` are those of
    /// [`Prepared::pair_sums`].
    ///
    /// # Errors
    /// As [`super::bins::Bins::histogram`].
    pub fn measures(
        &self,
        prepared: &Prepared<'_>,
        ways: &[usize],
        sums: &[PairSums],
    ) -> Result<Vec<Measures>, Error> {
        let n = prepared.rows.len();
        let own: Vec<f64> = (0..n)
            .into_par_iter()
            .map(|i| exact::score(prepared.rows.row(i), prepared.rows.row(i)))
            .collect();
        let mut all = Vec::new();
        for (&way, pair_sums) in ways.iter().zip(sums) {
            let weight = |i: usize| prepared.weights[i][way];
            let mut inside = Inside { pairs: 0, zeros: 0 };
            for (i, own) in own.iter().enumerate() {
                let pairs = weight(i) * weight(i).saturating_sub(1) / 2;
                inside.pairs += pairs;
                inside.zeros += if *own == 0.0 { pairs } else { 0 };
            }
            let counts: Vec<u64> = self.counts.iter().map(|c| c[way]).collect();
            let mut whole = counts.clone();
            whole[prepared.bins.bin(1.0)] += inside.pairs - inside.zeros;
            whole[prepared.bins.bin(0.0)] += inside.zeros;
            let pairs: u64 = whole.iter().sum();
            let ones = (inside.pairs - inside.zeros) as f64;
            let mean = (pairs > 0).then(|| (pair_sums.scores + ones) / pairs as f64);
            let square = (pairs > 0).then(|| (pair_sums.squares + ones) / pairs as f64);
            let mut extent = self.extents[way];
            for (score, pairs) in [(1.0, inside.pairs - inside.zeros), (0.0, inside.zeros)] {
                if pairs > 0 {
                    extent.add(score);
                }
            }
            let extent = extent.known();
            // The difference loses what is below 1e-8; no deviation is more than half the range (Popoviciu
            // 1935), which is known exactly.
            let half = extent.map_or(0.0, |e| (e.high - e.low) / 2.0);
            let std = mean.zip(square).map(|(mean, square)| (square - mean * mean).max(0.0).sqrt().min(half));
            let histograms = prepared.options.histograms.iter();
            let histograms = histograms.map(|edges| prepared.bins.histogram(edges, &whole));
            let published = prepared.options.as_published.as_ref();
            all.push(Measures {
                of: WAYS[way].to_owned(),
                items: (0..n).map(weight).sum(),
                pairs,
                equal: inside.pairs,
                mean,
                std,
                min: extent.map(|e| e.low),
                max: extent.map(|e| e.high),
                histograms: histograms.collect::<Result<_, _>>()?,
                as_published: published.map(|edges| as_published(prepared, edges, &counts, &own, way)),
            });
        }
        Ok(all)
    }
}

/// Ordered pairs of equal rows, the diagonal among them, have the score of a row with itself.
fn as_published(
    prepared: &Prepared<'_>,
    edges: &[f64],
    counts: &[u64],
    own: &[f64],
    way: usize,
) -> Published {
    let mut ordered: Vec<u64> = counts.iter().map(|c| 2 * c).collect();
    let mut items = 0.0;
    for (weight, own) in prepared.weights.iter().zip(own) {
        ordered[prepared.bins.bin(*own)] += weight[way] * weight[way];
        items += weight[way] as f64;
    }
    let closed = prepared.bins.closed_ranges(edges, &ordered);
    let counts: Vec<f64> = closed.iter().map(|c| *c as f64 / 2.0).collect();
    let sum = counts.iter().sum();
    Published { edges: edges.to_vec(), counts, sum, half_square: items * items / 2.0 }
}
