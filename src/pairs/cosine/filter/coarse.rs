//! A first look in 16-bit integers, at twice the rate of f32 and more.
//!
//! Rows are scaled by S and rounded to integers q; AVX2 multiplies 16 pairs of them at a time and adds
//! two neighbours, where it multiplies eight f32, and AVX-512 VNNI 32 where it multiplies 16. The sums of
//! a chunk of coordinates are exact in 32 bits: all of them are at most |q_i| |q_j| over that chunk (Cauchy
//! and Schwarz), and S is such that this stays below 2^31. With r = x - q / S the error against the true score is at most
//!
//! ```text
//! |x_i . x_j - q_i . q_j / S^2| = |r_i . x_j + (q_i / S) . r_j| <= R X + (X + R) R
//! ```
//!
//! with X the largest length of a row and R that of an r, plus (3 + chunks) u (X + R)^2 for converting
//! the sums, multiplying them by 1 / S^2, and adding the chunks, u = 2^-24. In one chunk rows of length 1
//! allow an S of 46,000; even rows of 300 in four chunks one of 92,000, and then the bound is 1.1e-4, 24
//! times that of f32: of ranges of 0.1 it leaves one pair of 500 open, of ranges of 0.01 one of 50. Those
//! are summed in f32 one by one ([`dot`]) before any goes on to f64.

use super::super::bins::Bins;
use super::super::rows::Rows;
use super::Bound;
#[cfg(target_arch = "x86_64")]
use super::Cpu;
use super::cells::{Cells, Judge};
use super::pack::{integers, quantize};
use rayon::prelude::*;

/// With a larger share of pairs left open between two thresholds, f32 alone is as fast: at one in 50
/// (ranges of 0.01, rows of 300) their rows, which come from far, cost what integers save.
const MOST_OPEN: f32 = 0.012;
/// Words in a chunk, about: long enough that its end costs little.
const CHUNK: usize = 36;
/// With fewer coordinates there is little to save.
const FEWEST_DIMS: usize = 32;

/// How rows become integers, and what their scores tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Coarse {
    /// S.
    pub scale: f32,
    /// Words of two coordinates in a chunk.
    pub chunk: usize,
    /// 1 / S^2: from sums of products of integers to scores.
    pub unit: f32,
    /// Cells for the coarse scores.
    pub cells: Cells,
    /// Largest difference of a coarse score from the one in f32.
    pub slack: f32,
}

impl Coarse {
    /// For these rows, if integers pay.
    pub fn of(rows: &Rows<'_>, bins: &Bins, bound: &Bound) -> Option<Self> {
        let dims = rows.dims();
        let each = || (0..rows.len()).into_par_iter().map(|i| rows.row(i));
        let largest_of = |row: &[f32]| row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let largest = each().map(largest_of).reduce(|| 0.0, f32::max);
        if dims < FEWEST_DIMS || largest == 0.0 {
            return None;
        }
        let words = dims.div_ceil(2);
        let chunk = words.div_ceil((words / CHUNK).clamp(1, 8));
        let chunks = words.div_ceil(chunk);
        let square = |part: &[f32]| part.iter().fold(0.0, |sum, v| sum + f64::from(*v) * f64::from(*v));
        let square_of = |row: &[f32]| row.chunks(2 * chunk).map(square).fold(0.0, f64::max);
        let part = each().map(square_of).reduce(|| 0.0, f64::max).sqrt() * (1.0 + 1e-6);
        let [scale, unit] = scale(largest, part, chunk);
        let rest = |row: &[f32]| {
            let mut rounded = vec![0; words];
            quantize(row, scale, &mut rounded);
            let pairs = row.iter().zip(integers(&rounded));
            let rests = pairs.map(|(v, q)| f64::from(*v) - f64::from(q) / f64::from(scale));
            rests.fold(0.0, |sum, r| sum + r * r)
        };
        let slack = 1.0 + 1e-6;
        let rest = each().map(rest).reduce(|| 0.0, f64::max).sqrt() * slack;
        let length = bound.square.sqrt();
        let (u, reach) = (2f64.powi(-24), length + rest);
        let in_f64 = dims as f64 * 2f64.powi(-53) * bound.square;
        let error = (rest * (length + reach) + (3 + chunks) as f64 * u * reach * reach + in_f64) * slack;
        let coarse = Bound { chunk: dims, error, largest: bound.square + error, ..*bound };
        let cells = Cells::new(bins, &coarse);
        let Judge::Grid { limit, .. } = cells.judge else { return None };
        let slack = ((error + bound.error) as f32).next_up();
        (1.0 - 2.0 * limit <= MOST_OPEN).then_some(Self { scale, chunk, unit, cells, slack })
    }

    /// The share of pairs that are left open between two thresholds.
    pub fn open(&self) -> f32 {
        let Judge::Grid { limit, .. } = self.cells.judge else { return 1.0 };
        1.0 - 2.0 * limit
    }
}

/// S for coordinates up to `largest` and chunks of `chunk` words that are no longer than `longest`, so that
/// the sums of their products fit in 32 bits; and 1 / S^2.
pub fn scale(largest: f32, longest: f64, chunk: usize) -> [f32; 2] {
    // Over a chunk |q| <= S |x| + sqrt(d) / 2, and 46,340^2 < 2^31.
    let most = 46_338.0 - (2.0 * chunk as f64).sqrt() / 2.0;
    let scale = ((most / longest).min(32_766.0 / f64::from(largest)) as f32).next_down();
    [scale, (1.0 / (f64::from(scale) * f64::from(scale))) as f32]
}

/// Chains of [`dot`].
const CHAINS: usize = 32;

/// The f32 score of one pair, within the error of [`Bound`]: coordinate k goes to chain k mod 32, and
/// the chains are added two by two.
#[inline]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if Cpu::best().has_avx2() {
        // SAFETY: `has_avx2` says so.
        return unsafe { dot_fma(x, y) };
    }
    dot_portable(x, y)
}

fn dot_portable(x: &[f32], y: &[f32]) -> f32 {
    let mut chains = [0.0; CHAINS];
    for (x, y) in x.chunks(CHAINS).zip(y.chunks(CHAINS)) {
        chains.iter_mut().zip(x.iter().zip(y)).for_each(|(chain, (x, y))| *chain += x * y);
    }
    let mut half = CHAINS / 2;
    while half > 0 {
        let (low, high) = chains.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        half /= 2;
    }
    chains[0]
}

/// # Safety
/// The CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn dot_fma(x: &[f32], y: &[f32]) -> f32 {
    use std::arch::x86_64::*;
    const LANES: usize = CHAINS / 4;
    let dims = x.len().min(y.len());
    let (x, y) = (x.as_ptr(), y.as_ptr());
    let mut sums = [_mm256_setzero_ps(); 4];
    let mut k = 0;
    while k + CHAINS <= dims {
        for (c, sum) in sums.iter_mut().enumerate() {
            // SAFETY: k + 32 <= dims.
            let (x, y) =
                unsafe { (_mm256_loadu_ps(x.add(k + LANES * c)), _mm256_loadu_ps(y.add(k + LANES * c))) };
            *sum = _mm256_fmadd_ps(x, y, *sum);
        }
        k += CHAINS;
    }
    for sum in &mut sums {
        if k + LANES <= dims {
            // SAFETY: k + 8 <= dims.
            let (x, y) = unsafe { (_mm256_loadu_ps(x.add(k)), _mm256_loadu_ps(y.add(k))) };
            *sum = _mm256_fmadd_ps(x, y, *sum);
            k += LANES;
        } else if k < dims {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let there = _mm256_cmpgt_epi32(_mm256_set1_epi32((dims - k) as i32), lanes);
            // SAFETY: only the first dims - k values are touched.
            let (x, y) =
                unsafe { (_mm256_maskload_ps(x.add(k), there), _mm256_maskload_ps(y.add(k), there)) };
            *sum = _mm256_fmadd_ps(x, y, *sum);
            k = dims;
        }
    }
    let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::cosine::exact::score;
    use crate::pairs::cosine::rows::normalize;
    use proptest::prelude::*;

    proptest! {
        /// Integers and single pairs both keep to what is claimed of them.
        #[test]
        fn scores_are_within_their_bounds(
            dims in 32usize..400,
            values in prop::collection::vec(-1.0f64..1.0, 400 * 6),
            power in 0i32..12,
        ) {
            let mut unit = Vec::new();
            for row in values[..dims * 6].chunks(dims) {
                // Higher powers: few coordinates have nearly all of the length.
                normalize(&row.iter().map(|v| v.powi(2 * power + 1)).collect::<Vec<_>>(), &mut unit).unwrap();
            }
            let rows = Rows::new(&unit, dims);
            let bins = Bins::new(&[vec![-1.0, 0.0, 1.0]], &[]).unwrap();
            let bound = Bound::of(&rows, dims);
            let coarse = Coarse::of(&rows, &bins, &bound).expect("wide bins");
            let lines = dims.div_ceil(2);
            let integers: Vec<Vec<i32>> = (0..6).map(|i| {
                let mut words = vec![0; lines];
                quantize(rows.row(i), coarse.scale, &mut words);
                super::integers(&words).map(i32::from).collect()
            }).collect();
            for i in 0..6 {
                for j in 0..6 {
                    let mut rough = 0.0;
                    for (a, b) in integers[i].chunks(2 * coarse.chunk).zip(integers[j].chunks(2 * coarse.chunk)) {
                        let products = a.iter().zip(b).map(|(a, b)| a * b);
                        let sum = products.fold(0i32, |sum, p| sum.checked_add(p).expect("sums fit"));
                        rough += sum as f32 * coarse.unit;
                    }
                    let exact = score(rows.row(i), rows.row(j));
                    prop_assert!((f64::from(rough) - exact).abs() <= f64::from(coarse.slack) - bound.error);
                    let (x, y) = (rows.row(i), rows.row(j));
                    prop_assert!((f64::from(dot(x, y)) - exact).abs() <= bound.error);
                    prop_assert!((f64::from(dot_portable(x, y)) - exact).abs() <= bound.error);
                }
            }
        }
    }
}
