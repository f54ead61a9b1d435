//! Exact scores of a block of pairs: the definition ([`super::exact::score`]), many at once.
//!
//! A product of two f32 is exact in f64, so a fused multiply-add rounds like a product and an
//! addition; one chain of them for each pair, in index order, gives the bits of the definition on
//! any CPU. 2d operations a pair, at half the f32 rate of the CPU where it has AVX2 and FMA.

#[cfg(target_arch = "x86_64")]
use super::filter::Cpu;
use super::filter::pack::pack;
use super::rows::Rows;
use rayon::prelude::*;
use std::ops::Range;

/// Rows that are scored together ...
const TOGETHER: usize = 6;
/// ... with so many columns.
const WIDE: usize = 8;

/// Scores rows `these` against all rows in `columns`; `out` has `width` elements for each of
/// `these`, the first of which are set to `convert(score)`.
pub fn fill<T: Send>(
    rows: &Rows<'_>,
    these: &[u32],
    columns: Range<u32>,
    width: usize,
    out: &mut [T],
    convert: impl Fn(f64) -> T + Sync,
) {
    let dims = rows.dims();
    let mut packed = vec![0.0f32; columns.len().div_ceil(WIDE) * WIDE * dims];
    packed.par_chunks_mut(16 * WIDE * dims).enumerate().for_each(|(c, chunk)| {
        pack(rows, columns.start + (c * 16 * WIDE) as u32..columns.end, WIDE, chunk);
    });
    let parts = out.par_chunks_mut(TOGETHER * width).zip(these.par_chunks(TOGETHER));
    parts.for_each_init(
        || vec![0.0f64; TOGETHER * dims],
        |a, (out, these)| {
            for (r, i) in these.iter().enumerate() {
                rows.row(*i as usize).iter().enumerate().for_each(|(k, v)| a[k * TOGETHER + r] = (*v).into());
            }
            for (p, panel) in packed.chunks_exact(WIDE * dims).enumerate() {
                let mut sums = [[0.0; WIDE]; TOGETHER];
                add_up(a, panel, &mut sums);
                let (first, here) = (p * WIDE, (columns.len() - p * WIDE).min(WIDE));
                for (r, sums) in sums.iter().enumerate().take(these.len()) {
                    for (out, sum) in out[r * width + first..][..here].iter_mut().zip(sums) {
                        *out = convert(*sum);
                    }
                }
            }
        },
    );
}

fn add_up(a: &[f64], panel: &[f32], sums: &mut [[f64; WIDE]; TOGETHER]) {
    #[cfg(target_arch = "x86_64")]
    if Cpu::best().has_avx2() {
        // SAFETY: `has_avx2` says so.
        return unsafe { sums_fma(a, panel, sums) };
    }
    sums_portable(a, panel, sums);
}

fn sums_portable(a: &[f64], panel: &[f32], sums: &mut [[f64; WIDE]; TOGETHER]) {
    for (a, b) in a.chunks_exact(TOGETHER).zip(panel.chunks_exact(WIDE)) {
        for (a, sums) in a.iter().zip(&mut *sums) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * f64::from(*b);
            }
        }
    }
}

/// # Safety
/// The CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums_fma(a: &[f64], panel: &[f32], out: &mut [[f64; WIDE]; TOGETHER]) {
    use std::arch::x86_64::*;
    let mut sums = [[_mm256_setzero_pd(); 2]; TOGETHER];
    for (a, b) in a.chunks_exact(TOGETHER).zip(panel.chunks_exact(WIDE)) {
        // SAFETY: the chunk has eight values.
        let b = unsafe { [_mm_loadu_ps(b.as_ptr()), _mm_loadu_ps(b.as_ptr().add(4))] };
        let b = [_mm256_cvtps_pd(b[0]), _mm256_cvtps_pd(b[1])];
        for (a, sums) in a.iter().zip(&mut sums) {
            let a = _mm256_set1_pd(*a);
            sums[0] = _mm256_fmadd_pd(a, b[0], sums[0]);
            sums[1] = _mm256_fmadd_pd(a, b[1], sums[1]);
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: eight values each.
        unsafe {
            _mm256_storeu_pd(out.as_mut_ptr(), sums[0]);
            _mm256_storeu_pd(out.as_mut_ptr().add(4), sums[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::cosine::exact::score;
    use proptest::prelude::*;

    proptest! {
        /// The bits of the definition, with fused operations and without.
        #[test]
        fn the_same_bits(
            dims in 1usize..30,
            n in 1usize..40,
            bits in prop::collection::vec(any::<u32>(), 40 * 30),
            picks in prop::collection::vec(0u32..40, 1..20),
            from in 0u32..40,
        ) {
            let finite = |b: &u32| Some(f32::from_bits(*b)).filter(|v| v.is_finite()).unwrap_or(1.0);
            let values: Vec<f32> = bits[..n * dims].iter().map(finite).collect();
            let rows = Rows::new(&values, dims);
            let these: Vec<u32> = picks.iter().map(|p| p % n as u32).collect();
            let columns = from % n as u32..n as u32;
            let width = columns.len() + 3;
            let mut out = vec![None; these.len() * width];
            fill(&rows, &these, columns.clone(), width, &mut out, |s| Some(s.to_bits()));
            for (r, i) in these.iter().enumerate() {
                for c in 0..width {
                    let j = columns.start as usize + c;
                    let expected = (j < n).then(|| score(rows.row(*i as usize), rows.row(j)).to_bits());
                    prop_assert_eq!(out[r * width + c], expected);
                }
            }
            let a: Vec<f64> = (0..dims * TOGETHER).map(|k| f64::from(values[k % values.len()])).collect();
            let panel: Vec<f32> = (0..dims * WIDE).map(|k| values[(k * 7 + 1) % values.len()]).collect();
            let mut sums = [[0.0; WIDE]; TOGETHER];
            sums_portable(&a, &panel, &mut sums);
            for (r, sums) in sums.iter().enumerate() {
                for (c, sum) in sums.iter().enumerate() {
                    let x: Vec<f32> = (0..dims).map(|k| a[k * TOGETHER + r] as f32).collect();
                    let y: Vec<f32> = (0..dims).map(|k| panel[k * WIDE + c]).collect();
                    prop_assert_eq!(sum.to_bits(), score(&x, &y).to_bits());
                }
            }
        }
    }
}
