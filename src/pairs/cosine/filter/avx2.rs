//! The kernel for AVX2 and FMA: the micro-tile in four quarters of 4 x 24 scores, twelve registers
//! each.

use super::cells::Cells;
use super::pack::{MR, NR};
use super::tally::{Masks, Pending, Scores, Verdict};
use std::arch::x86_64::*;

const ROWS: usize = 4;
const WIDE: usize = 3;
const LANES: usize = 8;

/// Scores of one micro-tile as [`super::portable::scores`].
///
/// # Safety
/// The CPU has AVX2 and FMA. `a` holds `MR * dims` values, `b` holds `NR * dims`.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn scores(a: &[f32], b: &[f32], chunk: usize, scores: &mut Scores) {
    let dims = a.len() / MR;
    debug_assert!(b.len() == dims * NR);
    for first in (0..dims).step_by(chunk) {
        let here = chunk.min(dims - first);
        for (row, column) in [(0, 0), (ROWS, 0), (0, NR / 2), (ROWS, NR / 2)] {
            let mut sums = [[_mm256_setzero_ps(); WIDE]; ROWS];
            // SAFETY: coordinates first .. first + here <= dims of both panels; rows and columns of
            // the quarter lie inside the micro-tile.
            unsafe {
                let mut a = a.as_ptr().add(first * MR + row);
                let mut b = b.as_ptr().add(first * NR + column);
                for _ in 0..here {
                    let b0 = _mm256_loadu_ps(b);
                    let b1 = _mm256_loadu_ps(b.add(LANES));
                    let b2 = _mm256_loadu_ps(b.add(2 * LANES));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = _mm256_broadcast_ss(&*a.add(r));
                        sums[0] = _mm256_fmadd_ps(a, b0, sums[0]);
                        sums[1] = _mm256_fmadd_ps(a, b1, sums[1]);
                        sums[2] = _mm256_fmadd_ps(a, b2, sums[2]);
                    }
                    (a, b) = (a.add(MR), b.add(NR));
                }
                for (r, sums) in sums.iter().enumerate() {
                    for (c, sum) in sums.iter().enumerate() {
                        let out = scores.0.as_mut_ptr().add((row + r) * NR + column + c * LANES);
                        let sum = if first == 0 { *sum } else { _mm256_add_ps(_mm256_load_ps(out), *sum) };
                        _mm256_store_ps(out, sum);
                    }
                }
            }
        }
    }
}

/// [`super::portable::judge`], compiled for AVX2.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn judge(
    scores: &Scores,
    cells: &Cells,
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) {
    super::portable::judge(scores, cells, verdict, pending, masks);
}
