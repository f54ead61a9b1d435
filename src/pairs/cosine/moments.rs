//! Sums over all pairs, without visiting a pair where the rows are many.
//!
//! With rows x, weights w, s = sum of w x and M = sum of w x x^T (d x d):
//!
//! ```text
//! sum over i<j of w_i w_j (x_i . x_j)   = (|s|^2   - sum of w^2 |x|^2) / 2
//! sum over i<j of w_i w_j (x_i . x_j)^2 = (|M|_F^2 - sum of w^2 |x|^4) / 2
//! ```
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

/// Memory for [`pair_sums`] on rank 0, which needs the most, in bytes.
pub fn memory(rows: usize, dims: usize, threads: usize) -> u64 {
    if few(rows, dims) {
        return rows as u64 * size_of::<PairSums>() as u64 * 2;
    }
    let blocks = rows.div_ceil(BLOCK);
    // Of a part each, of a block for each thread, and their sum.
    Sums::bytes(dims) as u64 * (PARTS.min(blocks) + threads.min(blocks) + 1) as u64
}

/// Sums over all pairs i < j of rows with these weights, on rank 0. Collective.
pub fn pair_sums(world: &World, rows: &Rows<'_>, weight: impl Fn(usize) -> u64 + Sync) -> Option<PairSums> {
    if few(rows.len(), rows.dims()) {
        return sums_of_few(world, rows, weight);
    }
    let (rank, ranks) = (world.rank(), world.size());
    let mut bytes = Vec::new();
    for part in rank * PARTS / ranks..(rank + 1) * PARTS / ranks {
        if let Some(sums) = part_sums(rows, part, &weight) {
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
    Some(total.of_pairs(rows.dims()))
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

/// The sums of a part's blocks, in order; `None` of a part without rows.
fn part_sums(rows: &Rows<'_>, part: usize, weight: &(impl Fn(usize) -> u64 + Sync)) -> Option<Sums> {
    let dims = rows.dims();
    let blocks = rows.len().div_ceil(BLOCK);
    let mut total: Option<Sums> = None;
    let blocks: Vec<usize> = (part * blocks / PARTS..(part + 1) * blocks / PARTS).collect();
    for wave in blocks.chunks(rayon::current_num_threads().max(1)) {
        let sums: Vec<Sums> = wave
            .par_iter()
            .map(|block| {
                let mut sums = Sums::new(dims);
                let end = ((block + 1) * BLOCK).min(rows.len());
                let mut x = vec![0.0; TOGETHER * dims];
                for start in (block * BLOCK..end).step_by(TOGETHER) {
                    let mut weights = [0.0; TOGETHER];
                    x.fill(0.0);
                    for (r, i) in (start..end.min(start + TOGETHER)).enumerate() {
                        weights[r] = weight(i) as f64;
                        let here = &mut x[r * dims..(r + 1) * dims];
                        here.iter_mut().zip(rows.row(i)).for_each(|(x, v)| *x = f64::from(*v));
                    }
                    add_rows(&mut sums, &x, &weights);
                }
                sums
            })
            .collect();
        let total = total.get_or_insert_with(|| Sums::new(dims));
        sums.iter().for_each(|sums| total.add(sums));
    }
    total
}

fn add_rows(sums: &mut Sums, x: &[f64], weights: &[f64; TOGETHER]) {
    #[cfg(target_arch = "x86_64")]
    match Cpu::best() {
        // SAFETY: the CPU has AVX-512 F.
        Cpu::Avx512 => return unsafe { add_rows_avx512(sums, x, weights) },
        // SAFETY: the CPU has AVX2.
        Cpu::Avx2Int16 | Cpu::Avx2 => return unsafe { add_rows_avx2(sums, x, weights) },
        Cpu::Portable => (),
    }
    add_rows_anywhere(sums, x, weights);
}

/// # Safety
/// The CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn add_rows_avx512(sums: &mut Sums, x: &[f64], weights: &[f64; TOGETHER]) {
    add_rows_anywhere(sums, x, weights);
}

/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn add_rows_avx2(sums: &mut Sums, x: &[f64], weights: &[f64; TOGETHER]) {
    add_rows_anywhere(sums, x, weights);
}

/// The compiler never fuses these products and sums, and vectorises over j only: the same bits
/// with any instructions.
#[inline(always)]
fn add_rows_anywhere(sums: &mut Sums, x: &[f64], weights: &[f64; TOGETHER]) {
    let dims = sums.vector.len();
    let x: [&[f64]; TOGETHER] = std::array::from_fn(|r| &x[r * dims..(r + 1) * dims]);
    for (x, w) in x.iter().zip(weights) {
        let own = x.iter().fold(0.0, |sum, v| sum + v * v);
        sums.own += w * w * own;
        sums.own_squares += w * w * own * own;
        sums.vector.iter_mut().zip(*x).for_each(|(s, v)| *s += w * v);
    }
    for i in 0..dims {
        let a: [f64; TOGETHER] = std::array::from_fn(|r| weights[r] * x[r][i]);
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
        ) {
            let rows = Rows::new(&values[..n * dims], dims);
            let found = pair_sums(&World::solo(), &rows, |i| weights[i]).expect("rank 0");
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

    #[test]
    fn few_long_rows_take_little_memory() {
        assert!(memory(20, 30_000, 64) < 1000);
        assert!(memory(600, 299, 64) < 5 * 300 * 300 * 8);
        // Two blocks, two threads of them, and the sum.
        assert!(memory(1_000_000, 100, 8) > 25 * 100 * 100 * 8);
    }

    #[test]
    fn the_same_bits_with_and_without_wide_vectors() {
        let values: Vec<f32> = (0..8 * 37).map(|i| ((i * 7919) % 1000) as f32 / 999.0 - 0.5).collect();
        let x: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let (mut a, mut b) = (Sums::new(37), Sums::new(37));
        let weights = [1.0, 3.0, 1e9, 7.0, 2.0, 1.0, 5.0, 1.0];
        for _ in 0..3 {
            add_rows(&mut a, &x, &weights);
            add_rows_anywhere(&mut b, &x, &weights);
        }
        let bits = |s: &Sums| s.matrix.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&a), bits(&b));
    }
}
