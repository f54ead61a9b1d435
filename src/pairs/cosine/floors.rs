//! Where the best neighbours of a row begin, known before any tile is computed.
//!
//! While the lists of a rank are empty, every pair may enter them: some k ln(n / k) pairs of each row do, and
//! every rank starts with empty lists. A *floor* spares most of that: if k rows are known whose score with a
//! row is at least s, its best k are not below s. To find rows that are alike, every row goes to the one of
//! n / 256 pivots (rows of the matrix, evenly spread) that it is most alike; the rows of pivots that are alike
//! are put together, the most alike first, to pieces of at most 768; and of each piece all pairs are scored.
//! That is work for some n (n / 256 + 600) pairs, some per cent of all for 32,768 rows, less for more; ranks
//! share it.
//!
//! Floors are bounds and no results: any rows would do for pivots, and no floor is too high. A product
//! of matrices in f32 is off by at most (d + 16) u |x| |y|, u = 2^-24, in whatever order it is summed (Higham,
//! *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 3.1, with a few roundings to spare for
//! sums of blocks), and by the least numbers there are, which the filter's bound allows for, too.

use super::exact;
use super::filter::{Bound, Cpu};
use super::rows::Rows;
use crate::world::World;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// Rows for each pivot, and most pivots.
const ROWS_OF_PIVOT: usize = 256;
const MOST_PIVOTS: usize = 1024;
/// Most rows in a piece; with few rows a 40th of them.
const MOST_IN_PIECE: usize = 768;
pub const PIECES: usize = 40;
/// Rows that are compared with the pivots together.
const TOGETHER: usize = 512;
/// Rows of a piece that are compared together with those after them.
const BLOCK: usize = 96;
/// How often the range that a floor can be in is halved.
const HALVINGS: usize = 12;

/// What is known of the best neighbours before any tile is computed.
#[derive(Debug, Clone, Default)]
pub struct Floors {
    /// For each row, what the filter's score with one of its best k is at least; minus infinity where nothing
    /// is known. Empty where it would not pay.
    pub of_rows: Vec<f32>,
    /// All rows, piece by piece: rows that are alike are not far from each other. Empty as above.
    pub order: Vec<u32>,
}

/// The floors of the best `k`, for a filter whose scores are off by at most `error`. Collective.
pub fn floors(world: &World, rows: &Rows<'_>, k: usize, bound: &Bound, error: f64) -> Floors {
    let most = (rows.len() / PIECES).min(MOST_IN_PIECE);
    // A piece that is mostly neighbours tells little.
    if most < 2 * k {
        return Floors::default();
    }
    let pieces = pieces(world, rows, most);
    let off = (rows.dims() + 16) as f64 * 2f64.powi(-24) * bound.square + 2.0 * error;
    let longest = (bound.square as f32).next_up();
    let found: Vec<f32> = pieces[world.share(world.rank(), pieces.len())]
        .par_iter()
        .map_init(Memory::default, |memory, piece| of_piece(memory, rows, piece, k, longest))
        .flatten_iter()
        .map(|score| ((f64::from(score) - off) as f32).next_down())
        .collect();
    let order = pieces.concat();
    let mut of_rows = vec![f32::NEG_INFINITY; rows.len()];
    for (row, floor) in order.iter().zip(everywhere(world, &found)) {
        of_rows[*row as usize] = floor;
    }
    Floors { of_rows, order }
}

/// What all ranks have, in rank order.
fn everywhere<T: bytemuck::Pod>(world: &World, own: &[T]) -> Vec<T> {
    let bytes: &[u8] = bytemuck::cast_slice(own);
    let parts = world.exchange(&vec![bytes; world.size()]);
    parts
        .iter()
        .flat_map(|part| part.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned))
        .collect()
}

/// All rows, in pieces of at most `most` that are alike. The same on all ranks. Collective.
fn pieces(world: &World, rows: &Rows<'_>, most: usize) -> Vec<Vec<u32>> {
    let count = (rows.len() / ROWS_OF_PIVOT).clamp(1, MOST_PIVOTS);
    let pivots: Vec<u32> = (0..count).map(|p| (p * rows.len() / count) as u32).collect();
    let mut groups = vec![Vec::new(); count];
    for (row, [pivot, score]) in (0u32..).zip(nearest(world, rows, &pivots)) {
        groups[pivot as usize].push((f32::from_bits(score), row));
    }
    // In the order of the scores, so that what has to be cut in pieces is cut where it is least alike.
    groups
        .par_iter_mut()
        .for_each(|group| group.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))));
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    let mut pieces = Vec::new();
    for set in alike(rows, &pivots, &sizes, most) {
        let rows: Vec<u32> = set.iter().flat_map(|p| &groups[*p]).map(|(_, row)| *row).collect();
        let cuts = rows.len().div_ceil(most);
        pieces.extend((0..cuts).map(|c| rows[rows.len() * c / cuts..rows.len() * (c + 1) / cuts].to_vec()));
    }
    pieces
}

/// For each row the pivot that it is most alike, and the bits of its score. Collective.
fn nearest(world: &World, rows: &Rows<'_>, pivots: &[u32]) -> Vec<[u32; 2]> {
    let pivots = gathered(rows, pivots.iter().map(|p| *p as usize));
    let own = world.share(world.rank(), rows.len());
    let starts: Vec<usize> = own.clone().step_by(TOGETHER).collect();
    let nearest: Vec<[u32; 2]> = starts
        .into_par_iter()
        .flat_map_iter(|start| {
            let here = gathered(rows, start..(start + TOGETHER).min(own.end));
            let scores = here.dot(&pivots.t());
            let nearest = scores.rows().into_iter().map(|scores| {
                let (pivot, score) = (0u32..).zip(scores).max_by(|a, b| a.1.total_cmp(b.1)).expect("a pivot");
                [pivot, score.to_bits()]
            });
            nearest.collect::<Vec<_>>()
        })
        .collect();
    everywhere(world, &nearest)
}

/// Sets of pivots with at most `most` rows together, where one pivot has no more: of all pairs of pivots the
/// most alike come together first. Scores are those in f64, so that all ranks find the same.
fn alike(rows: &Rows<'_>, pivots: &[u32], sizes: &[usize], most: usize) -> Vec<Vec<usize>> {
    let of_pivot = |p: usize| {
        let mut scores = Vec::with_capacity(p);
        exact::score_row(rows, pivots[p], &pivots[..p], |q, score| scores.push((score, p, q)));
        scores
    };
    let mut pairs: Vec<_> = (0..pivots.len()).into_par_iter().flat_map_iter(of_pivot).collect();
    pairs.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut sets: Vec<Vec<usize>> = (0..pivots.len()).map(|p| vec![p]).collect();
    let mut sizes = sizes.to_vec();
    let mut set_of: Vec<usize> = (0..pivots.len()).collect();
    for (_, p, q) in pairs {
        let (into, from) = (set_of[p], set_of[q]);
        if into != from && sizes[into] + sizes[from] <= most {
            let moved = std::mem::take(&mut sets[from]);
            moved.iter().for_each(|p| set_of[*p] = into);
            sets[into].extend(moved);
            sizes[into] += std::mem::take(&mut sizes[from]);
        }
    }
    sets
}

/// Memory for a piece, used again for the next.
#[derive(Default)]
struct Memory {
    values: Vec<f32>,
    scores: Vec<f32>,
    counts: Vec<u32>,
}

/// For each of these rows a number that at least `k` scores with the others of them, in f32, are not below, and
/// hardly more: the k-th highest is at most 2 / 2^[`HALVINGS`] of the `most` that a score can be above it. Minus
/// infinity if they are too few.
///
/// Halving finds all rows' numbers at once, and each score, computed once, is counted for both of its rows:
/// that takes less than to put the other half of the scores in its place and to select in every row.
fn of_piece(memory: &mut Memory, rows: &Rows<'_>, piece: &[u32], k: usize, most: f32) -> Vec<f32> {
    let n = piece.len();
    if n <= k {
        return vec![f32::NEG_INFINITY; n];
    }
    let Memory { values, scores, counts } = memory;
    gather(rows, piece.iter().map(|i| *i as usize), values);
    let values = ArrayView2::from_shape((n, rows.dims()), values).expect("rows of the same length");
    with_those_after(&values, scores);
    let least = -2.0 * most;
    let mut floors = vec![least; n];
    let mut middle = vec![0.0; n];
    let mut step = most;
    for _ in 0..HALVINGS {
        count(scores, &middle, counts);
        for ((floor, middle), count) in floors.iter_mut().zip(&mut middle).zip(&*counts) {
            let reached = *count as usize >= k;
            *floor = if reached { *middle } else { *floor };
            *middle += if reached { step / 2.0 } else { -step / 2.0 };
        }
        step /= 2.0;
    }
    floors
}

/// The scores of rows with all rows from the first of their block on, block by block; minus infinity where a row
/// meets itself.
fn with_those_after(values: &ArrayView2<'_, f32>, scores: &mut Vec<f32>) {
    let n = values.nrows();
    let starts = || (0..n).step_by(BLOCK);
    scores.resize(starts().map(|first| BLOCK.min(n - first) * (n - first)).sum(), 0.0);
    let mut rest = scores.as_mut_slice();
    for first in starts() {
        let (height, width) = (BLOCK.min(n - first), n - first);
        let (block, after) = rest.split_at_mut(height * width);
        rest = after;
        let mut block = ArrayViewMut2::from_shape((height, width), block).expect("a block");
        let here = values.slice(s![first..first + height, ..]);
        general_mat_mul(1.0, &here, &values.slice(s![first.., ..]).t(), 0.0, &mut block);
        block.diag_mut().fill(f32::NEG_INFINITY);
    }
}

/// How many of each row's scores, as [`with_those_after`] lays them out, are not below that row's number.
fn count(scores: &[f32], from: &[f32], counts: &mut Vec<u32>) {
    #[cfg(target_arch = "x86_64")]
    if Cpu::best().has_avx2() {
        // SAFETY: `has_avx2` says so.
        return unsafe { count_avx2(scores, from, counts) };
    }
    count_any(scores, from, counts);
}

/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn count_avx2(scores: &[f32], from: &[f32], counts: &mut Vec<u32>) {
    count_any(scores, from, counts);
}

#[inline(always)]
fn count_any(mut scores: &[f32], from: &[f32], counts: &mut Vec<u32>) {
    let n = from.len();
    counts.clear();
    counts.resize(n, 0);
    for first in (0..n).step_by(BLOCK) {
        let end = n.min(first + BLOCK);
        for row in first..end {
            let (own, after) = scores.split_at(n - first);
            scores = after;
            let (inside, beyond) = own.split_at(end - first);
            let from_row = from[row];
            // Both directions of a pair inside the block are there.
            let mut reached: u32 = inside.iter().map(|score| u32::from(*score >= from_row)).sum();
            for ((score, from), count) in beyond.iter().zip(&from[end..]).zip(&mut counts[end..]) {
                reached += u32::from(*score >= from_row);
                *count += u32::from(score >= from);
            }
            counts[row] += reached;
        }
    }
}

fn gathered(rows: &Rows<'_>, these: impl ExactSizeIterator<Item = usize>) -> Array2<f32> {
    let shape = (these.len(), rows.dims());
    let mut values = Vec::new();
    gather(rows, these, &mut values);
    Array2::from_shape_vec(shape, values).expect("rows of the same length")
}

fn gather(rows: &Rows<'_>, these: impl ExactSizeIterator<Item = usize>, into: &mut Vec<f32>) {
    into.clear();
    into.reserve(these.len() * rows.dims());
    these.for_each(|i| into.extend_from_slice(rows.row(i)));
}

#[cfg(test)]
mod tests {
    use super::exact::score;
    use super::*;
    use crate::pairs::cosine::rows::normalize;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Of one block and of several, full or not.
        #[test]
        fn the_number_of_a_piece_is_just_below_the_kth_score(
            seed in prop::collection::vec(-1.0f64..1.0, 900),
            dims in 1usize..20,
            n in 1usize..300,
            k in 1usize..40,
        ) {
            let mut unit = Vec::new();
            for i in 0..n {
                let row: Vec<f64> = (0..dims).map(|k| seed[(i * 31 + k * 7) % 900]).collect();
                normalize(&row, &mut unit).unwrap();
            }
            let rows = Rows::new(&unit, dims);
            let piece: Vec<u32> = (0..n as u32).rev().collect();
            let floors = of_piece(&mut Memory::default(), &rows, &piece, k, 1.0);
            prop_assert_eq!(floors.len(), n);
            for (floor, i) in floors.iter().zip((0..n).rev()) {
                let others = (0..n).filter(|j| *j != i);
                let mut scores: Vec<f64> = others.map(|j| score(rows.row(i), rows.row(j))).collect();
                scores.sort_unstable_by(|a, b| b.total_cmp(a));
                let Some(kth) = scores.get(k - 1) else {
                    prop_assert_eq!(*floor, f32::NEG_INFINITY);
                    continue;
                };
                let below = kth - f64::from(*floor);
                // Two rows that are opposite have a score that no halving goes below.
                prop_assert!(below > -1e-5 && (below < 5e-4 + 1e-5 || *floor == -2.0), "{} {}", kth, floor);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// At least k rows reach the floor, in f64; of rows that crowd most floors are near the k-th best.
        #[test]
        fn a_floor_is_reached_by_k(
            seed in prop::collection::vec(-1.0f64..1.0, 900),
            dims in 1usize..12,
            n in 64usize..700,
            k in 1usize..6,
            twins: bool,
        ) {
            let mut unit = Vec::new();
            for i in 0..n {
                // Sixteen crowds, or the same rows again and again.
                let at = |k: usize| seed[(i * 31 + k * 7) % 900] * if twins { 0.0 } else { 0.1 };
                let row: Vec<f64> = (0..dims).map(|k| seed[(i % 16) * 20 + k] + at(k)).collect();
                normalize(&row, &mut unit).unwrap();
            }
            let rows = Rows::new(&unit, dims);
            let bound = Bound::of(&rows, dims);
            let Floors { of_rows: floors, order } = floors(&World::solo(), &rows, k, &bound, bound.error);
            prop_assert_eq!(floors.is_empty(), n / PIECES < 2 * k);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert!(order.is_empty() || sorted == (0..n as u32).collect::<Vec<_>>());
            let mut useful = 0;
            for (i, floor) in floors.iter().enumerate() {
                let others = (0..n).filter(|j| *j != i);
                let scores: Vec<f64> = others.map(|j| score(rows.row(i), rows.row(j))).collect();
                let reached = scores.iter().filter(|s| **s - bound.error >= f64::from(*floor)).count();
                prop_assert!(reached >= k, "row {}: {} of {} reach {}", i, reached, k, floor);
                useful += usize::from(reached < n / 4);
            }
            prop_assert!(floors.is_empty() || dims < 4 || twins || useful > n / 4, "{} of {}", useful, n);
        }
    }
}
