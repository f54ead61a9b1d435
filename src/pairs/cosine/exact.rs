//! The definition of a score, and the same many times at once.
//!
//! score(x, y) = the float64 dot product of two f32 rows, summed in index order. A product of two
//! f32 has 48 significant bits and is exact in f64, so each term is rounded once, when it is added;
//! with or without fused multiply-add the result is the same.

#[cfg(target_arch = "x86_64")]
use super::filter::Ahead;
use super::filter::{Cpu, prefetch};
use super::rows::Rows;

/// The score of two rows of equal length: the definition.
pub fn score(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).fold(0.0, |sum, (x, y)| sum + f64::from(*x) * f64::from(*y))
}

/// Pairs that are scored side by side.
const LANES: usize = 8;

/// Scores every pair and hands `(position in pairs, score)` to `visit`, in order.
///
/// 2d additions and multiplications a pair; eight pairs run side by side, because one sum alone
/// waits four cycles for each of its additions.
pub fn score_all(rows: &Rows<'_>, pairs: &[[u32; 2]], mut visit: impl FnMut(usize, f64)) {
    let cpu = Cpu::best();
    for (block, eight) in pairs.chunks(LANES).enumerate() {
        // Rows come from far; those of the next block are on their way meanwhile.
        for [i, j] in pairs.iter().skip((block + 1) * LANES).take(LANES) {
            prefetch(rows.row(*i as usize));
            prefetch(rows.row(*j as usize));
        }
        // The last pair fills up a block that is not full.
        let pair = |l: usize| eight[l.min(eight.len() - 1)];
        let x: [&[f32]; LANES] = std::array::from_fn(|l| rows.row(pair(l)[0] as usize));
        let y: [&[f32]; LANES] = std::array::from_fn(|l| rows.row(pair(l)[1] as usize));
        let scores = match cpu {
            // SAFETY: this CPU has AVX-512 F; all rows have `rows.dims()` values.
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512Int16 | Cpu::Avx512 => unsafe { eight_avx512(&x, &y, rows.dims()) },
            // SAFETY: this CPU has AVX2; all rows have `rows.dims()` values.
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2Int16 | Cpu::Avx2 => unsafe { eight_avx2(&x, &y, rows.dims()) },
            _ => eight_portable(&x, &y),
        };
        for (l, score) in scores.into_iter().enumerate().take(eight.len()) {
            visit(block * LANES + l, score);
        }
    }
}

/// Rows that are scored with one, side by side: four vectors of sums.
#[cfg(target_arch = "x86_64")]
const MANY: usize = 16;

/// Scores a row with others and hands `(position in others, score)` to `visit`, in order. As [`score_all`], for
/// less: the row is widened once, and the others are turned while they are f32.
pub fn score_row(rows: &Rows<'_>, row: u32, others: &[u32], mut visit: impl FnMut(usize, f64)) {
    #[cfg(target_arch = "x86_64")]
    if Cpu::best().has_avx2() {
        let x: Vec<f64> = rows.row(row as usize).iter().map(|v| f64::from(*v)).collect();
        let mut ahead = Ahead::default();
        for (block, these) in others.chunks(MANY).enumerate() {
            let next = others.iter().skip((block + 1) * MANY).take(MANY);
            next.for_each(|other| ahead.list(rows.row(*other as usize)));
            // The last row fills up a block that is not full.
            let y = std::array::from_fn(|l| rows.row(these[l.min(these.len() - 1)] as usize));
            // SAFETY: `has_avx2` says so; all rows have the same length.
            let scores = unsafe { many_avx2(&x, &y, &mut ahead) };
            let scores = scores.into_iter().take(these.len()).enumerate();
            scores.for_each(|(l, score)| visit(block * MANY + l, score));
        }
        return;
    }
    let pairs: Vec<_> = others.iter().map(|other| [row, *other]).collect();
    score_all(rows, &pairs, visit);
}

/// The scores of `x` with [`MANY`] rows; asks for what is `ahead` on the way.
///
/// # Safety
/// The CPU has AVX2 and FMA, and every row has at least as many values as `x`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn many_avx2(x: &[f64], y: &[&[f32]; MANY], ahead: &mut Ahead) -> [f64; MANY] {
    use super::filter::transpose::transposed;
    use std::arch::x86_64::*;
    let mut sums = [[_mm256_setzero_pd(); 2]; MANY / 8];
    let add = |sums: &mut [__m256d; 2], x: f64, column: __m256| {
        let x = _mm256_set1_pd(x);
        let halves = [_mm256_castps256_ps128(column), _mm256_extractf128_ps::<1>(column)];
        for (sum, half) in sums.iter_mut().zip(halves) {
            // The product is exact, so fused or not makes no difference.
            *sum = _mm256_fmadd_pd(x, _mm256_cvtps_pd(half), *sum);
        }
    };
    let whole = x.len() / 8 * 8;
    for k in (0..whole).step_by(8) {
        for (sums, y) in sums.iter_mut().zip(y.as_chunks::<8>().0) {
            ahead.ask();
            let mut columns = [_mm256_setzero_ps(); 8];
            for (column, y) in columns.iter_mut().zip(y) {
                // SAFETY: k + 8 <= the number of values.
                *column = unsafe { _mm256_loadu_ps(y.as_ptr().add(k)) };
            }
            for (x, column) in x[k..k + 8].iter().zip(transposed(columns)) {
                add(sums, *x, column);
            }
        }
    }
    if whole < x.len() {
        for (sums, y) in sums.iter_mut().zip(y.as_chunks::<8>().0) {
            let mut columns = [_mm256_setzero_ps(); 8];
            for (column, y) in columns.iter_mut().zip(y) {
                let mut last = [0.0; 8];
                last[..x.len() - whole].copy_from_slice(&y[whole..x.len()]);
                // SAFETY: eight values.
                *column = unsafe { _mm256_loadu_ps(last.as_ptr()) };
            }
            for (x, column) in x[whole..].iter().zip(transposed(columns)) {
                add(sums, *x, column);
            }
        }
    }
    let mut scores = [0.0; MANY];
    for (scores, sum) in scores.as_chunks_mut::<4>().0.iter_mut().zip(sums.as_flattened()) {
        // SAFETY: four values.
        unsafe { _mm256_storeu_pd(scores.as_mut_ptr(), *sum) };
    }
    scores
}

fn eight_portable(x: &[&[f32]; LANES], y: &[&[f32]; LANES]) -> [f64; LANES] {
    let mut sums = [0.0; LANES];
    add_rest(&mut sums, x, y, 0);
    sums
}

/// Adds the products of the coordinates from `first` on, in index order.
fn add_rest(sums: &mut [f64; LANES], x: &[&[f32]; LANES], y: &[&[f32]; LANES], first: usize) {
    for k in first..x[0].len() {
        for (l, sum) in sums.iter_mut().enumerate() {
            *sum += f64::from(x[l][k]) * f64::from(y[l][k]);
        }
    }
}

/// As [`eight_avx512`], four coordinates of four pairs at a time.
///
/// # Safety
/// The CPU has AVX2, and every row has at least `dims` values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn eight_avx2(x: &[&[f32]; LANES], y: &[&[f32]; LANES], dims: usize) -> [f64; LANES] {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_setzero_pd(); 2];
    let whole = dims / 4 * 4;
    for k in (0..whole).step_by(4) {
        for (half, sum) in sums.iter_mut().enumerate() {
            let mut p = [_mm256_setzero_pd(); 4];
            for (l, p) in p.iter_mut().enumerate() {
                let l = half * 4 + l;
                // SAFETY: k + 4 <= dims, and the rows have that many values.
                let (x, y) =
                    unsafe { (_mm_loadu_ps(x[l].as_ptr().add(k)), _mm_loadu_ps(y[l].as_ptr().add(k))) };
                *p = _mm256_mul_pd(_mm256_cvtps_pd(x), _mm256_cvtps_pd(y));
            }
            let low = [_mm256_unpacklo_pd(p[0], p[1]), _mm256_unpacklo_pd(p[2], p[3])];
            let high = [_mm256_unpackhi_pd(p[0], p[1]), _mm256_unpackhi_pd(p[2], p[3])];
            for column in [
                _mm256_permute2f128_pd::<0x20>(low[0], low[1]),
                _mm256_permute2f128_pd::<0x20>(high[0], high[1]),
                _mm256_permute2f128_pd::<0x31>(low[0], low[1]),
                _mm256_permute2f128_pd::<0x31>(high[0], high[1]),
            ] {
                *sum = _mm256_add_pd(*sum, column);
            }
        }
    }
    let mut scores = [0.0; LANES];
    // SAFETY: `scores` holds eight values.
    unsafe {
        _mm256_storeu_pd(scores.as_mut_ptr(), sums[0]);
        _mm256_storeu_pd(scores.as_mut_ptr().add(4), sums[1]);
    }
    add_rest(&mut scores, x, y, whole);
    scores
}

/// Products of eight coordinates of each pair, transposed, so that lane l of every vector belongs
/// to pair l; then the eight vectors are added one after the other.
///
/// # Safety
/// The CPU has AVX-512 F, and every row has at least `dims` values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn eight_avx512(x: &[&[f32]; LANES], y: &[&[f32]; LANES], dims: usize) -> [f64; LANES] {
    use std::arch::x86_64::*;
    let mut sums = _mm512_setzero_pd();
    let whole = dims / LANES * LANES;
    for k in (0..whole).step_by(LANES) {
        let mut p = [_mm512_setzero_pd(); LANES];
        for l in 0..LANES {
            // SAFETY: k + 8 <= dims, and the rows have that many values.
            let (x, y) =
                unsafe { (_mm256_loadu_ps(x[l].as_ptr().add(k)), _mm256_loadu_ps(y[l].as_ptr().add(k))) };
            p[l] = _mm512_mul_pd(_mm512_cvtps_pd(x), _mm512_cvtps_pd(y));
        }
        for column in transposed(p) {
            sums = _mm512_add_pd(sums, column);
        }
    }
    let mut scores = [0.0; LANES];
    // SAFETY: `scores` holds the eight values.
    unsafe { _mm512_storeu_pd(scores.as_mut_ptr(), sums) };
    add_rest(&mut scores, x, y, whole);
    scores
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transposed(p: [std::arch::x86_64::__m512d; 8]) -> [std::arch::x86_64::__m512d; 8] {
    use std::arch::x86_64::*;
    let low = |a, b| _mm512_unpacklo_pd(a, b);
    let high = |a, b| _mm512_unpackhi_pd(a, b);
    // 2 x 2 blocks: [even columns, odd columns] of each two rows.
    let even = [low(p[0], p[1]), low(p[2], p[3]), low(p[4], p[5]), low(p[6], p[7])];
    let odd = [high(p[0], p[1]), high(p[2], p[3]), high(p[4], p[5]), high(p[6], p[7])];
    let mut out = [_mm512_setzero_pd(); 8];
    for (parity, r) in [even, odd].into_iter().enumerate() {
        // 128-bit blocks of two rows each: block b holds column 2b + parity.
        let a = _mm512_shuffle_f64x2::<0b10_00_10_00>(r[0], r[1]);
        let b = _mm512_shuffle_f64x2::<0b11_01_11_01>(r[0], r[1]);
        let c = _mm512_shuffle_f64x2::<0b10_00_10_00>(r[2], r[3]);
        let d = _mm512_shuffle_f64x2::<0b11_01_11_01>(r[2], r[3]);
        out[parity] = _mm512_shuffle_f64x2::<0b10_00_10_00>(a, c);
        out[parity + 4] = _mm512_shuffle_f64x2::<0b11_01_11_01>(a, c);
        out[parity + 2] = _mm512_shuffle_f64x2::<0b10_00_10_00>(b, d);
        out[parity + 6] = _mm512_shuffle_f64x2::<0b11_01_11_01>(b, d);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any numbers, also huge, tiny and negative ones: the same bits as the definition.
        #[test]
        fn side_by_side_is_the_same(
            dims in 1usize..40,
            bits in prop::collection::vec(any::<u32>(), 40 * 5),
            pairs in prop::collection::vec([0u32..5, 0u32..5], 0..20),
        ) {
            let values: Vec<f32> = bits[..dims * 5]
                .iter()
                .map(|b| f32::from_bits(*b))
                .map(|v| if v.is_finite() { v } else { 1.0 })
                .collect();
            let rows = Rows::new(&values, dims);
            let mut found = Vec::new();
            score_all(&rows, &pairs, |at, score| found.push((at, score.to_bits())));
            let expected: Vec<_> = pairs
                .iter()
                .map(|[i, j]| score(rows.row(*i as usize), rows.row(*j as usize)).to_bits())
                .enumerate()
                .collect();
            prop_assert_eq!(&found, &expected);
            // More of them than are scored side by side.
            let others: Vec<u32> = pairs.iter().chain(&pairs).map(|pair| pair[1]).collect();
            let mut found = Vec::new();
            score_row(&rows, 2, &others, |at, score| found.push((at, score.to_bits())));
            let expected: Vec<_> =
                others.iter().map(|o| score(rows.row(2), rows.row(*o as usize)).to_bits()).enumerate().collect();
            prop_assert_eq!(&found, &expected);
            let x: [&[f32]; 8] = std::array::from_fn(|l| rows.row(l % 5));
            let y: [&[f32]; 8] = std::array::from_fn(|l| rows.row((l * 3 + 1) % 5));
            for (l, sum) in eight_portable(&x, &y).into_iter().enumerate() {
                prop_assert_eq!(sum.to_bits(), score(x[l], y[l]).to_bits());
            }
        }
    }
}
