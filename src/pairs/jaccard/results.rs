//! From the tiles' partial results to the numbers of a run.

use super::index::Index;
use super::kernel::{Edge, Neighbour, Partial, class_totals, merge_best, score};
use super::sets::{Collapsed, ImageSets};
use super::tally::{ByteTally, Count, PairTally, Tally};
use crate::pairs::{Error, Histogram, Tile};
use crate::stats::compensated;
use serde::{Deserialize, Serialize};

/// Everything a run found, exact.
#[derive(Debug, Clone)]
pub struct Results {
    /// Number of images N.
    pub images: u64,
    /// Number of distinct sets n.
    pub distinct: u64,
    /// All pairs: n(n-1)/2 of distinct sets, N(N-1)/2 of images.
    pub tally: Tally,
    /// The `top_k` best neighbours of each distinct set, one row after the other.
    pub neighbours: Vec<Neighbour>,
    /// Pairs of distinct sets at or above the threshold, ascending.
    pub edges: Vec<Edge>,
}

/// Collects partial results in any order of tiles.
pub struct Merge {
    top_k: usize,
    results: Results,
}

impl Merge {
    /// Begins with what needs no tile: the pairs inside groups of equal sets, and what the classes
    /// predict for all others.
    pub fn begin(images: &ImageSets, collapsed: &Collapsed, index: &Index, top_k: usize) -> Self {
        let mut tally = class_totals(index);
        for (g, first) in collapsed.representative.iter().enumerate() {
            let (w, set) = (collapsed.multiplicity[g], &images.sets[*first as usize]);
            if w == 1 {
                continue;
            }
            let pairs = Count { distinct: 0, images: w * (w - 1) / 2 };
            let class = index.class_by_set[g];
            let content = set.iter().filter(|i| !images.item_empty[*i as usize]);
            let bytes = content.fold(0u64, |sum, i| sum.saturating_add(images.item_bytes[i as usize]));
            tally.all.at(class.size, class.size).add(pairs);
            tally.full.at(class.full_size, class.full_size).add(pairs);
            tally.bytes.add(bytes, pairs);
        }
        let neighbours = vec![Neighbour::NONE; collapsed.len() * top_k];
        let results = Results {
            images: images.len() as u64,
            distinct: collapsed.len() as u64,
            tally,
            neighbours,
            edges: Vec::new(),
        };
        Self { top_k, results }
    }

    /// Adds the result of a tile. `None`, and nothing is added, if it is not one of this tile.
    pub fn add(&mut self, tile: &Tile, partial: &Partial) -> Option<()> {
        let rows = tile.rows.start as usize * self.top_k..tile.rows.end as usize * self.top_k;
        let mine = self.results.neighbours.get_mut(rows).filter(|m| m.len() == partial.neighbours.len())?;
        if self.top_k > 0 {
            let theirs = partial.neighbours.chunks_exact(self.top_k);
            mine.chunks_exact_mut(self.top_k).zip(theirs).for_each(|(row, best)| merge_best(row, best));
        }
        self.results.tally.add(&partial.tally);
        self.results.edges.extend_from_slice(&partial.edges);
        Some(())
    }

    /// The whole, after checking that the sums close.
    ///
    /// # Errors
    /// [`Error::Refused`] if they do not: a tile was lost or counted twice.
    pub fn finish(mut self) -> Result<Results, Error> {
        self.results.edges.sort_unstable();
        let Results { images, distinct, tally, .. } = &self.results;
        let expected = Count { distinct: pairs_of(*distinct), images: pairs_of(*images) };
        let sum = |counts: &mut dyn Iterator<Item = Count>| {
            counts.fold(Count::default(), |mut sum, count| {
                sum.add(count);
                sum
            })
        };
        let sums = [
            sum(&mut tally.all.cells().into_iter().map(|c| c.count)),
            sum(&mut tally.full.cells().into_iter().map(|c| c.count)),
            sum(&mut tally.bytes.bins.into_iter()),
        ];
        if sums.iter().any(|sum| *sum != expected) {
            return Err(Error::Refused(format!(
                "the counts do not close (found {sums:?}, expected {expected:?}); nothing is published, \
                 please report this"
            )));
        }
        Ok(self.results)
    }
}

/// n(n-1)/2.
pub fn pairs_of(n: u64) -> u64 {
    (u128::from(n) * u128::from(n.saturating_sub(1)) / 2) as u64
}

/// Mean, deviation, histogram and sharing of one way to count pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Items compared: images or distinct sets.
    pub items: u64,
    /// Unordered pairs of different items.
    pub pairs: u64,
    /// Pairs that share nothing.
    pub score_zero: u64,
    /// Pairs of equal sets.
    pub score_one: u64,
    /// Pairs that share at least one layer.
    pub overlapping: u64,
    /// Mean score over all pairs; `null` without pairs.
    pub mean: Option<f64>,
    /// Population standard deviation over all pairs.
    pub std: Option<f64>,
    /// Mean over the full square with the diagonal of ones, as the study counts.
    pub mean_with_diagonal: Option<f64>,
    /// Population standard deviation over the full square with the diagonal.
    pub std_with_diagonal: Option<f64>,
    /// Scores of all pairs.
    pub histogram: Histogram,
    /// `[shared layers, pairs]`, ascending.
    pub pairs_by_shared_layers: Vec<(u32, u64)>,
}

/// Pairs by bytes of shared layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharedBytes {
    /// `[least bytes, pairs]`: bin 0 shares no bytes, the next ones powers of two.
    pub pairs_by_least_bytes: Vec<(u64, u64)>,
    /// Bytes shared, summed over all pairs.
    pub total_bytes: u128,
}

/// All counts of a run in the form of the summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Over all images, empty layers included.
    pub images: Measures,
    /// Over all images, empty layers taken out of the sets.
    pub images_without_empty_layers: Measures,
    /// Over distinct sets.
    pub distinct_sets: Measures,
    /// Over the same distinct sets, empty layers taken out.
    pub distinct_sets_without_empty_layers: Measures,
    /// Shared bytes over pairs of images (empty layers count nothing).
    pub image_bytes: SharedBytes,
    /// Shared bytes over pairs of distinct sets.
    pub distinct_set_bytes: SharedBytes,
}

impl Counts {
    /// Derives the summary from exact counts.
    ///
    /// # Errors
    /// [`Error::Refused`] for unsound histogram edges.
    pub fn of(results: &Results, edges: &[f64]) -> Result<Self, Error> {
        let Tally { all, full, bytes } = &results.tally;
        let measure = |tally: &PairTally, items: u64, pick: fn(&Count) -> u64| {
            let cells: Vec<_> = tally.cells().iter().map(|c| (c.shared, c.union, pick(&c.count))).collect();
            measures(&cells, items, edges)
        };
        let by_images: fn(&Count) -> u64 = |c| c.images;
        let by_distinct: fn(&Count) -> u64 = |c| c.distinct;
        Ok(Self {
            images: measure(all, results.images, by_images)?,
            images_without_empty_layers: measure(full, results.images, by_images)?,
            distinct_sets: measure(all, results.distinct, by_distinct)?,
            distinct_sets_without_empty_layers: measure(full, results.distinct, by_distinct)?,
            image_bytes: shared_bytes(bytes, bytes.image_bytes, by_images),
            distinct_set_bytes: shared_bytes(bytes, bytes.distinct_bytes, by_distinct),
        })
    }
}

/// Statistics of `(shared, union, pairs)`, ascending, with this histogram.
pub(super) fn measures(cells: &[(u32, u32, u64)], items: u64, edges: &[f64]) -> Result<Measures, Error> {
    let mut histogram = Histogram::new(edges.to_vec())?;
    let mut by_shared: Vec<(u32, u64)> = Vec::new();
    let (mut zero, mut one) = (0, 0);
    for &(shared, union, pairs) in cells.iter().filter(|c| c.2 > 0) {
        histogram.add(score(shared, union), pairs);
        match by_shared.last_mut() {
            Some((s, sum)) if *s == shared => *sum += pairs,
            _ => by_shared.push((shared, pairs)),
        }
        if shared == 0 {
            zero += pairs;
        } else if shared == union {
            one += pairs;
        }
    }
    let pairs = pairs_of(items);
    let over = |diagonal: bool| {
        let ordered = (2 * u128::from(pairs) + if diagonal { u128::from(items) } else { 0 }) as f64;
        let ones = if diagonal { items as f64 } else { 0.0 };
        if ordered == 0.0 {
            return None;
        }
        let sum = |term: &dyn Fn(f64) -> f64| {
            let terms = cells.iter().map(|(s, u, c)| 2.0 * *c as f64 * term(score(*s, *u)));
            compensated(terms.chain(std::iter::once(ones * term(1.0))))
        };
        let mean = sum(&|s| s) / ordered;
        let variance = sum(&|s| (s - mean) * (s - mean)) / ordered;
        Some((mean, variance.sqrt()))
    };
    let (plain, square) = (over(false), over(true));
    Ok(Measures {
        items,
        pairs,
        score_zero: zero,
        score_one: one,
        overlapping: pairs - zero,
        mean: plain.map(|m| m.0),
        std: plain.map(|m| m.1),
        mean_with_diagonal: square.map(|m| m.0),
        std_with_diagonal: square.map(|m| m.1),
        histogram,
        pairs_by_shared_layers: by_shared,
    })
}

fn shared_bytes(bytes: &ByteTally, total_bytes: u128, pick: fn(&Count) -> u64) -> SharedBytes {
    let least = |bin: usize| if bin == 0 { 0 } else { 1u64 << (bin - 1) };
    let bins = bytes.bins.iter().enumerate().map(|(bin, count)| (least(bin), pick(count)));
    SharedBytes { pairs_by_least_bytes: bins.filter(|(_, pairs)| *pairs > 0).collect(), total_bytes }
}

/// Mean and population deviation of the full square with its diagonal, summed one after the other
/// in row-major order in double precision: what the study's script computes, to the last digit
/// (`layer_digest_similarity.py`: `numpy.mean` and `numpy.std` of an object array).
///
/// The diagonal counts as 1 also for empty sets. `None` without images.
pub fn as_published(index: &Index, collapsed: &Collapsed) -> Option<(f64, f64)> {
    let n = collapsed.group.len();
    if n == 0 {
        return None;
    }
    let matrix = square_of_sets(index);
    let total = n as f64 * n as f64;
    let sum_in_order = |term: &dyn Fn(f64) -> f64| {
        let mut sum = 0.0;
        for (i, &a) in collapsed.group.iter().enumerate() {
            let row = &matrix[a as usize * index.len()..][..index.len()];
            for (j, &b) in collapsed.group.iter().enumerate() {
                sum += term(if i == j { 1.0 } else { row[b as usize] });
            }
        }
        sum
    };
    let mean = sum_in_order(&|v| v) / total;
    let variance = sum_in_order(&|v| (v - mean) * (v - mean)) / total;
    Some((mean, variance.sqrt()))
}

fn square_of_sets(index: &Index) -> Vec<f64> {
    use rayon::prelude::*;
    let mut matrix = vec![0.0; index.len() * index.len()];
    matrix.par_chunks_mut(index.len().max(1)).enumerate().for_each_init(
        || vec![0u32; index.len()],
        |counts, (i, row)| super::kernel::score_row(index, i as u32, counts, row),
    );
    matrix
}
