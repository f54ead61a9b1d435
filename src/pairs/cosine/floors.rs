//! Where the best neighbours of a row begin, known before any tile is computed.
//!
//! While the lists of a rank are empty, every pair may enter them: some k ln(n / k) pairs of each row do, and
//! every rank starts with empty lists. A *floor* spares most of that: if k rows are known whose score with a
//! row is at least s, its best k are not below s. To find rows that are alike, every row goes to the one of
//! n / 256 pivots (rows of the matrix, evenly spread) that it is most alike; in the order of the pivots, and of
//! the scores with them, rows are cut into pieces of at most 512, and of each piece all pairs are scored. That
//! is work for n (n / 256 + 512) pairs, some per cent of all for 32,768 rows, less for more; ranks share it.
//!
//! Floors are bounds and no results: any rows would do for pivots, and no floor is too high. A product
//! of matrices in f32 is off by at most (d + 16) u |x| |y|, u = 2^-24, in whatever order it is summed (Higham,
//! *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 3.1, with a few roundings to spare for
//! sums of blocks), and by the least numbers there are, which the filter's bound allows for, too.

use super::filter::Bound;
use super::rows::Rows;
use crate::world::World;
use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;

/// Rows for each pivot, and most pivots.
const ROWS_OF_PIVOT: usize = 256;
const MOST_PIVOTS: usize = 1024;
/// Most rows in a piece; with few rows a 64th of them.
const MOST_IN_PIECE: usize = 512;
const PIECES: usize = 64;

/// For each row, what its score in f32 with one of its best `k` is at least; minus infinity where nothing is
/// known. Empty where it would not pay. Collective.
pub fn floors(world: &World, rows: &Rows<'_>, k: usize, bound: &Bound) -> Vec<f32> {
    let piece = (rows.len() / PIECES).min(MOST_IN_PIECE);
    // A piece that is mostly neighbours tells little.
    if piece < 2 * k {
        return Vec::new();
    }
    let order = by_pivot(world, rows);
    let pieces = order.len().div_ceil(piece);
    let cut = |p: usize| order.len() * p / pieces;
    let own = world.share(world.rank(), pieces);
    let off = (rows.dims() + 16) as f64 * 2f64.powi(-24) * bound.square + 2.0 * bound.error;
    let found: Vec<f32> = own
        .into_par_iter()
        .flat_map_iter(|p| of_piece(rows, &order[cut(p)..cut(p + 1)], k).into_iter())
        .map(|score| ((f64::from(score) - off) as f32).next_down())
        .collect();
    let mut floors = vec![f32::NEG_INFINITY; rows.len()];
    for (row, floor) in order.iter().zip(everywhere(world, &found)) {
        floors[*row as usize] = floor;
    }
    floors
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

/// All rows, those that are most like the same pivot after each other.
fn by_pivot(world: &World, rows: &Rows<'_>) -> Vec<u32> {
    let pivots = (rows.len() / ROWS_OF_PIVOT).clamp(1, MOST_PIVOTS);
    let pivots = gathered(rows, (0..pivots).map(|p| p * rows.len() / pivots));
    let own = world.share(world.rank(), rows.len());
    let starts: Vec<usize> = own.clone().step_by(MOST_IN_PIECE).collect();
    let nearest: Vec<[u32; 2]> = starts
        .into_par_iter()
        .flat_map_iter(|start| {
            let here = gathered(rows, start..(start + MOST_IN_PIECE).min(own.end));
            let scores = here.dot(&pivots.t());
            let nearest = scores.rows().into_iter().map(|scores| {
                let (pivot, score) = (0u32..).zip(scores).max_by(|a, b| a.1.total_cmp(b.1)).expect("a pivot");
                [pivot, score.to_bits()]
            });
            nearest.collect::<Vec<_>>()
        })
        .collect();
    let nearest = everywhere(world, &nearest);
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.par_sort_by(|a, b| {
        let [(pivot, score), (other, its)] =
            [a, b].map(|i| nearest[*i as usize]).map(|[pivot, bits]| (pivot, f32::from_bits(bits)));
        pivot.cmp(&other).then(its.total_cmp(&score))
    });
    order
}

/// The k-th highest score of each of these rows with the others of them, in f32; minus infinity if
/// they are too few.
fn of_piece(rows: &Rows<'_>, piece: &[u32], k: usize) -> Vec<f32> {
    let values = gathered(rows, piece.iter().map(|i| *i as usize));
    let scores = values.dot(&values.t());
    let mut others = Vec::with_capacity(piece.len());
    let of_row = |(r, scores): (usize, ArrayView1<'_, f32>)| {
        others.clear();
        others.extend(scores.iter().enumerate().filter(|(c, _)| *c != r).map(|(_, score)| *score));
        if others.len() < k {
            return f32::NEG_INFINITY;
        }
        *others.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    };
    scores.rows().into_iter().enumerate().map(of_row).collect()
}

fn gathered(rows: &Rows<'_>, these: impl ExactSizeIterator<Item = usize>) -> Array2<f32> {
    let shape = (these.len(), rows.dims());
    let mut values = Vec::with_capacity(shape.0 * shape.1);
    these.for_each(|i| values.extend_from_slice(rows.row(i)));
    Array2::from_shape_vec(shape, values).expect("rows of the same length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::cosine::exact::score;
    use crate::pairs::cosine::rows::normalize;
    use proptest::prelude::*;

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
            let floors = floors(&World::solo(), &rows, k, &bound);
            prop_assert_eq!(floors.is_empty(), n / PIECES < 2 * k);
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
