//! Sums over all pairs, without visiting a pair where the rows are many.
//!
//! With rows x, weights w, s = sum of w x and M = sum of w x x^T (d x d):
//!
//! ```text
//! sum over i<j of w_i w_j (x_i . x_j)   = (|s|^2   - sum of w^2 |x|^2) / 2
//! sum over i<j of w_i w_j (x_i . x_j)^2 = (|M|_F^2 - sum of w^2 |x|^4) / 2
//! ```
//!
//! s, M and the sums of |x|^2 are linear in w or w^2: those of a way to count start from another way's, and add
//! what rows weigh more. Most rows of documents weigh the same in several ways.
//!
//! Everything is added in f64 in a fixed order (rows in a block, blocks in a part, then parts, whichever
//! rank summed them), so the result does not depend on ranks, threads or CPU; no term is fused. Its
//! relative error is about n 2^-53. The price is n d (d + 1) operations, next to nothing beside the pairs.
//! Up to 2 d rows, visiting the pairs costs less, and nothing of d x d is needed.

use super::exact;
#[cfg(target_arch = "x86_64")]
use super::filter::Cpu;
use super::rows::Rows;
use crate::world::World;
use rayon::prelude::*;

/// Rows that are summed by themselves.
const BLOCK: usize = 512;
/// Parts, each of some blocks, that ranks share out.
const PARTS: usize = 16;
/// Rows that go through M together.
const TOGETHER: usize = 8;

/// Sums over all pairs of different rows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PairSums {
    /// Of the weighted scores.
    pub scores: f64,
    /// Of their weighted squares.
    pub squares: f64,
}

#[derive(Clone)]
struct Sums {
    vector: Vec<f64>,
    /// Upper triangle, rows of d.
    matrix: Vec<f64>,
    own: f64,
    own_squares: f64,
}

impl Sums {
    fn new(dims: usize) -> Self {
        Self { vector: vec![0.0; dims], matrix: vec![0.0; dims * dims], own: 0.0, own_squares: 0.0 }
    }

    fn add(&mut self, other: &Self) {
        self.vector.iter_mut().zip(&other.vector).for_each(|(a, b)| *a += b);
        self.matrix.iter_mut().zip(&other.matrix).for_each(|(a, b)| *a += b);
        self.own += other.own;
        self.own_squares += other.own_squares;
    }

    fn of_pairs(&self, dims: usize) -> PairSums {
        let squares = |values: &[f64]| values.iter().fold(0.0, |sum, v| sum + v * v);
        let frobenius = (0..dims).fold(0.0, |sum, i| {
            let row = &self.matrix[i * dims + i..(i + 1) * dims];
            sum + row[0] * row[0] + 2.0 * squares(&row[1..])
        });
        PairSums {
            scores: (squares(&self.vector) - self.own) / 2.0,
            squares: (frobenius - self.own_squares) / 2.0,
        }
    }

    /// Length of what [`Sums::write`] writes.
    fn bytes(dims: usize) -> usize {
        (dims + dims * dims + 2) * size_of::<f64>()
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        for values in [&self.vector[..], &self.matrix, &[self.own, self.own_squares]] {
            bytes.extend_from_slice(bytemuck::cast_slice(values));
        }
    }

    fn read(bytes: &[u8], dims: usize) -> Self {
        let mut values = bytes.chunks_exact(size_of::<f64>()).map(bytemuck::pod_read_unaligned::<f64>);
        let mut take = |n| values.by_ref().take(n).collect::<Vec<f64>>();
        let (vector, matrix, own) = (take(dims), take(dims * dims), take(2));
        Self { vector, matrix, own: own[0], own_squares: own[1] }
    }
}

/// True if so many rows are better visited pair by pair.
fn few(rows: usize, dims: usize) -> bool {
    rows <= 2 * dims
}

/// Memory for [`pair_sums`] of so many ways on rank 0, which needs the most, in bytes.
pub fn memory(rows: usize, dims: usize, threads: usize, ways: usize) -> u64 {
    if few(rows, dims) {
        return rows as u64 * size_of::<PairSums>() as u64 * 2;
    }
    let blocks = rows.div_ceil(BLOCK);
    // Of a part each, of a block for each thread, and those of all ways.
    let sums = PARTS.min(blocks) + threads.min(blocks) + ways;
    Sums::bytes(dims) as u64 * sums as u64 + (rows * size_of::<u32>()) as u64
}

/// Sums over all pairs i < j of rows with the weights of each way, on rank 0; nothing elsewhere. Collective.
pub fn pair_sums(
    world: &World,
    rows: &Rows<'_>,
    ways: usize,
    weight: impl Fn(usize, usize) -> u64 + Sync,
) -> Vec<PairSums> {
    let mut found: Vec<Sums> = Vec::new();
    let mut pairs: Vec<PairSums> = Vec::new();
    for way in 0..ways {
        let known = Known::nearest(rows.len(), way, &weight);
        match known.way.filter(|_| known.differ == 0) {
            // Nothing but on rank 0.
            Some(same) => {
                found.extend(found.get(same).cloned());
                pairs.extend(pairs.get(same).copied());
            }
            None if few(rows.len(), rows.dims()) => {
                pairs.extend(sums_of_few(world, rows, |i| weight(way, i)));
            }
            None => {
                let before = known.way.and_then(|known| found.get(known));
                let more = sums_of_many(world, rows, |i| {
                    [weight(way, i), known.way.map_or(0, |known| weight(known, i))]
                });
                let total = more.map(|mut more| {
                    before.into_iter().for_each(|before| more.add(before));
                    more
                });
                pairs.extend(total.as_ref().map(|sums| sums.of_pairs(rows.dims())));
                found.extend(total);
            }
        }
    }
    pairs
}

/// What the sums of a way start from: nothing, or those of a way before it whose weights are no larger.
struct Known {
    way: Option<usize>,
    /// Rows that are still to be added.
    differ: usize,
}

impl Known {
    fn nearest(rows: usize, way: usize, weight: &impl Fn(usize, usize) -> u64) -> Self {
        let all = (0..rows).filter(|i| weight(way, *i) > 0).count();
        let from = |known: usize| {
            let differ = |differ: usize, i: usize| {
                let (known, own) = (weight(known, i), weight(way, i));
                (known <= own).then_some(differ + usize::from(known < own))
            };
            (0..rows).try_fold(0, differ).map(|differ| Self { way: Some(known), differ })
        };
        let known = (0..way).filter_map(from).min_by_key(|known| known.differ);
        known.filter(|known| known.differ <= all).unwrap_or(Self { way: None, differ: all })
    }
}

/// The sums of all rows by what their weights, the first of two, are more than the second. On rank 0.
/// Collective.
fn sums_of_many(world: &World, rows: &Rows<'_>, weights: impl Fn(usize) -> [u64; 2] + Sync) -> Option<Sums> {
    let there = |i: &u32| {
        let [own, known] = weights(*i as usize);
        own != known
    };
    let these: Vec<u32> = (0..rows.len() as u32).filter(there).collect();
    let (rank, ranks) = (world.rank(), world.size());
    let mut bytes = Vec::new();
    for part in rank * PARTS / ranks..(rank + 1) * PARTS / ranks {
        if let Some(sums) = part_sums(rows, &these, part, &weights) {
            sums.write(&mut bytes);
        }
        world.progress();
    }
    let gathered = world.gather(&bytes)?;
    let mut total = Sums::new(rows.dims());
    for bytes in gathered {
        for bytes in bytes.chunks_exact(Sums::bytes(rows.dims())) {
            total.add(&Sums::read(bytes, rows.dims()));
        }
    }
    Some(total)
}

/// The same, pair by pair; the sums of each row are added in the order of the rows.
fn sums_of_few(world: &World, rows: &Rows<'_>, weight: impl Fn(usize) -> u64 + Sync) -> Option<PairSums> {
    let (rank, ranks, n) = (world.rank(), world.size(), rows.len());
    // Of every so many rows one: the first have the most pairs.
    let mine: Vec<usize> = (rank..n).step_by(ranks).collect();
    let sums_of = |i: &usize| {
        let (x, w) = (rows.row(*i), weight(*i) as f64);
        (i + 1..n).fold([0.0, 0.0], |[scores, squares], j| {
            let (w, score) = (w * weight(j) as f64, exact::score(x, rows.row(j)));
            [scores + w * score, squares + w * (score * score)]
        })
    };
    let sums: Vec<[f64; 2]> = mine.par_iter().map(sums_of).collect();
    let gathered = world.gather(bytemuck::cast_slice(&sums))?;
    let mut total = PairSums::default();
    for i in 0..n {
        let width = size_of::<[f64; 2]>();
        let place = i / ranks * width;
        let [scores, squares]: [f64; 2] =
            bytemuck::pod_read_unaligned(&gathered[i % ranks][place..place + width]);
        total.scores += scores;
        total.squares += squares;
    }
    Some(total)
}

/// The sums of a part's blocks of `these` rows, in order; `None` of a part without rows.
fn part_sums(
    rows: &Rows<'_>,
    these: &[u32],
    part: usize,
    weights: &(impl Fn(usize) -> [u64; 2] + Sync),
) -> Option<Sums> {
    let dims = rows.dims();
    let mut total: Option<Sums> = None;
    let blocks: Vec<&[u32]> = these.chunks(BLOCK).collect();
    let blocks = &blocks[part * blocks.len() / PARTS..(part + 1) * blocks.len() / PARTS];
    for wave in blocks.chunks(rayon::current_num_threads().max(1)) {
        let sums: Vec<Sums> = wave
            .par_iter()
            .map(|block| {
                let mut sums = Sums::new(dims);
                let mut x = vec![0.0; TOGETHER * dims];
                for these in block.chunks(TOGETHER) {
                    let mut more = [More::default(); TOGETHER];
                    x.fill(0.0);
                    for ((more, i), x) in more.iter_mut().zip(these).zip(x.chunks_exact_mut(dims)) {
                        *more = More::new(weights(*i as usize));
                        x.iter_mut().zip(rows.row(*i as usize)).for_each(|(x, v)| *x = f64::from(*v));
                    }
                    add_rows(&mut sums, &x, &more);
                }
                sums
            })
            .collect();
        let total = total.get_or_insert_with(|| Sums::new(dims));
        sums.iter().for_each(|sums| total.add(sums));
    }
    total
}

/// By what a row's weight w is more than the known one.
#[derive(Debug, Clone, Copy, Default)]
struct More {
    /// w - known.
    weight: f64,
    /// w^2 - known^2.
    square: f64,
}

impl More {
    fn new([own, known]: [u64; 2]) -> Self {
        // Weights are below 2^32.
        Self { weight: (own - known) as f64, square: (own - known) as f64 * (own + known) as f64 }
    }
}

fn add_rows(sums: &mut Sums, x: &[f64], more: &[More; TOGETHER]) {
    #[cfg(target_arch = "x86_64")]
    match Cpu::best() {
        // SAFETY: the CPU has AVX-512 F.
        Cpu::Avx512Int16 | Cpu::Avx512 => return unsafe { add_rows_avx512(sums, x, more) },
        // SAFETY: the CPU has AVX2.
        Cpu::Avx2Int16 | Cpu::Avx2 => return unsafe { add_rows_avx2(sums, x, more) },
        Cpu::Portable => (),
    }
    add_rows_anywhere(sums, x, more);
}

/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn add_rows_avx512(sums: &mut Sums, x: &[f64], more: &[More; TOGETHER]) {
    add_rows_anywhere(sums, x, more);
}

/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn add_rows_avx2(sums: &mut Sums, x: &[f64], more: &[More; TOGETHER]) {
    add_rows_anywhere(sums, x, more);
}

/// The compiler never fuses these products and sums, and vectorises over j only: the same bits
/// with any instructions.
#[inline(always)]
fn add_rows_anywhere(sums: &mut Sums, x: &[f64], more: &[More; TOGETHER]) {
    let dims = sums.vector.len();
    let x: [&[f64]; TOGETHER] = std::array::from_fn(|r| &x[r * dims..(r + 1) * dims]);
    for (x, more) in x.iter().zip(more) {
        let own = x.iter().fold(0.0, |sum, v| sum + v * v);
        sums.own += more.square * own;
        sums.own_squares += more.square * own * own;
        sums.vector.iter_mut().zip(*x).for_each(|(s, v)| *s += more.weight * v);
    }
    for i in 0..dims {
        let a: [f64; TOGETHER] = std::array::from_fn(|r| more[r].weight * x[r][i]);
        let tails: [&[f64]; TOGETHER] = std::array::from_fn(|r| &x[r][i..]);
        let row = &mut sums.matrix[i * dims + i..(i + 1) * dims];
        for (j, m) in row.iter_mut().enumerate() {
            let mut sum = *m;
            for r in 0..TOGETHER {
                sum += a[r] * tails[r][j];
            }
            *m = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::cosine::exact::score;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_those_of_all_pairs(
            dims in 1usize..20,
            n in 0usize..40,
            values in prop::collection::vec(-1.0f32..1.0, 20 * 40),
            weights in prop::collection::vec(0u64..50, 40),
            more in prop::collection::vec(0u64..3, 40),
        ) {
            let rows = Rows::new(&values[..n * dims], dims);
            // More than the first way, fewer, the same, and something else.
            let weight = |way: usize, i: usize| match way {
                1 => weights[i] + more[i],
                2 => weights[i] * (more[i] & 1),
                4 => weights[i] ^ more[i],
                _ => weights[i],
            };
            let found = pair_sums(&World::solo(), &rows, 5, weight);
            prop_assert_eq!(found[3], found[0]);
            for (way, found) in found.iter().enumerate() {
                let weights: Vec<u64> = (0..n).map(|i| weight(way, i)).collect();
                let (mut scores, mut squares, mut size) = (0.0, 0.0, 1.0);
                for i in 0..n {
                    size += (weights[i] * weights[i]) as f64 * score(rows.row(i), rows.row(i)).powi(2).max(1.0);
                    for j in i + 1..n {
                        let (w, s) = ((weights[i] * weights[j]) as f64, score(rows.row(i), rows.row(j)));
                        scores += w * s;
                        squares += w * s * s;
                        size += w * (s * s + s.abs());
                    }
                }
                prop_assert!((found.scores - scores).abs() < 1e-12 * size, "{} {}", found.scores, scores);
                prop_assert!((found.squares - squares).abs() < 1e-12 * size, "{} {}", found.squares, squares);
            }
        }
    }

    #[test]
    fn few_long_rows_take_little_memory() {
        assert!(memory(20, 30_000, 64, 4) < 1000);
        assert!(memory(600, 299, 64, 1) < 5 * 300 * 300 * 8);
        // Two blocks, two threads of them, and the sum.
        assert!(memory(1_000_000, 100, 8, 1) > 25 * 100 * 100 * 8);
    }

    #[test]
    fn the_same_bits_with_and_without_wide_vectors() {
        let values: Vec<f32> = (0..8 * 37).map(|i| ((i * 7919) % 1000) as f32 / 999.0 - 0.5).collect();
        let x: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let (mut a, mut b) = (Sums::new(37), Sums::new(37));
        let more = [1, 3, 1_000_000_000, 7, 2, 1, 5, 1].map(|w| More::new([w, 1]));
        for _ in 0..3 {
            add_rows(&mut a, &x, &more);
            add_rows_anywhere(&mut b, &x, &more);
        }
        let bits = |s: &Sums| s.matrix.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&a), bits(&b));
    }
}
