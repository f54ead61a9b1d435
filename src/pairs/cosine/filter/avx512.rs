//! The kernel for AVX-512 (F, DQ, BW, VL).
//!
//! 8 x 48 scores are kept in 24 vector registers; a coordinate costs 24 fused multiply-adds, 3 loads
//! and 8 broadcasts. Panel `a` (8 x d x 4 bytes) stays in the first-level cache, panel `b` comes from
//! the second. The cells of the micro-tile before are counted between the multiplications: counting
//! needs the integer units and the load-store units, which wait there, and so is all but free.
//! Measured on Zen 4 at d = 300, all tiles of a run at 2d operations a pair: one core does 87 GFLOP/s
//! for 32 768 rows, 75 % of its multiply-add ceiling of 116, with 15 bins and with the default 200
//! alike; two cores do 159 GFLOP/s for 142 034 rows with weights.

// Loops over the registers go by constant numbers: through an iterator the compiler keeps the array
// in memory.
#![allow(clippy::needless_range_loop)]

use super::ahead::Ahead;
use super::avx2::{BATCH, count};
use super::cells::{Cells, Judge};
use super::pack::Shape;
use super::tally::{Masks, Pending, Scores, Tally, VECTOR, VECTORS, Verdict};
use std::arch::x86_64::*;

const MR: usize = Shape::WIDE.rows;
const NR: usize = Shape::WIDE.columns;
/// Vectors in a row of the micro-tile.
const WIDE: usize = NR / VECTOR;

type Sums = [[__m512; WIDE]; MR];

/// Scores of one micro-tile as [`super::portable::scores`], and counts `pending` and asks for what is
/// `ahead` on the way.
///
/// # Safety
/// The CPU has AVX-512 F. `a` holds `MR * dims` values, `b` holds `NR * dims`. `pending` is of the strip
/// that `tally` is at, its cells are those of [`Tally::sort`].
#[target_feature(enable = "avx512f,avx512vl")]
pub unsafe fn scores(
    a: &[f32],
    b: &[f32],
    chunk: usize,
    scores: &mut Scores,
    pending: Option<&Pending>,
    tally: &mut Tally<'_>,
    ahead: &mut Ahead,
) {
    let dims = a.len() / MR;
    debug_assert!(b.len() == dims * NR);
    let (mut a, mut b) = (a.as_ptr(), b.as_ptr());
    let mut counted = pending.map_or(MR * NR, |_| 0);
    let tables = tally.tables(pending);
    for first in (0..dims).step_by(chunk) {
        let here = chunk.min(dims - first);
        let mut sums: Sums = [[_mm512_setzero_ps(); WIDE]; MR];
        // SAFETY: `a` and `b` advance by one coordinate in each of `dims` steps in all, and hold that
        // many; counting stops after the last pair; the rest is this function's contract.
        unsafe {
            for _ in 0..here / 4 {
                for k in 0..4 {
                    step(a.add(k * MR), b.add(k * NR), &mut sums);
                }
                (a, b) = (a.add(4 * MR), b.add(4 * NR));
                if counted < MR * NR
                    && let Some(pending) = pending
                {
                    count::<NR>(pending, counted, tables);
                    counted += BATCH;
                }
            }
            for _ in 0..here % 4 {
                step(a, b, &mut sums);
                (a, b) = (a.add(MR), b.add(NR));
            }
            ahead.ask();
            let out = scores.0.as_mut_ptr();
            if first == 0 {
                for r in 0..MR {
                    for c in 0..WIDE {
                        _mm512_store_ps(out.add(r * NR + c * VECTOR), sums[r][c]);
                    }
                }
            } else {
                for r in 0..MR {
                    for c in 0..WIDE {
                        let out = out.add(r * NR + c * VECTOR);
                        _mm512_store_ps(out, _mm512_add_ps(_mm512_load_ps(out), sums[r][c]));
                    }
                }
            }
        }
    }
    if let Some(pending) = pending.filter(|_| counted < MR * NR) {
        tally.count(pending, counted);
    }
}

/// One coordinate.
///
/// # Safety
/// The CPU has AVX-512 F; `a` points to [`MR`] values and `b` to [`NR`].
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn step(a: *const f32, b: *const f32, sums: &mut Sums) {
    // SAFETY: see above.
    unsafe {
        // Written out: a closure handed to a function without these CPU features is not inlined.
        let b0 = _mm512_loadu_ps(b);
        let b1 = _mm512_loadu_ps(b.add(VECTOR));
        let b2 = _mm512_loadu_ps(b.add(2 * VECTOR));
        for r in 0..MR {
            let a = _mm512_set1_ps(*a.add(r));
            sums[r][0] = _mm512_fmadd_ps(a, b0, sums[r][0]);
            sums[r][1] = _mm512_fmadd_ps(a, b1, sums[r][1]);
            sums[r][2] = _mm512_fmadd_ps(a, b2, sums[r][2]);
        }
    }
}

/// As [`super::portable::judge`]. True if any score is in doubt or wanted.
///
/// # Safety
/// The CPU has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub unsafe fn judge(
    scores: &Scores,
    cells: &Cells,
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) -> bool {
    // SAFETY: `Scores` holds VECTORS aligned vectors, `column_from` WIDE.
    let score = |v: usize| unsafe { _mm512_load_ps(scores.0.as_ptr().add(v * VECTOR)) };
    let mut columns = [_mm512_setzero_ps(); WIDE];
    for (c, column) in columns.iter_mut().enumerate() {
        // SAFETY: as above.
        *column = unsafe { _mm512_loadu_ps(verdict.column_from.as_ptr().add(c * VECTOR)) };
    }
    let none = _mm512_set1_epi32(i32::from(cells.none()));
    let below = _mm512_set1_ps(verdict.below);
    let mut any = 0u16;
    let mut settle = |v: usize, cell: __m512i, doubt: u16| {
        let s = score(v);
        let from = _mm512_min_ps(_mm512_set1_ps(verdict.from_of_row(v / WIDE)), columns[v % WIDE]);
        let wanted = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(s, from) | _mm512_cmp_ps_mask::<_CMP_LE_OQ>(s, below);
        let valid = verdict.valid.map_or(u16::MAX, |valid| valid[v]);
        let cell = _mm512_mask_mov_epi32(none, valid & !doubt, cell);
        // SAFETY: `cells` has room for VECTORS times 16 words.
        unsafe {
            let out = pending.cells.as_mut_ptr().add(v * VECTOR);
            _mm256_store_si256(out.cast(), _mm512_cvtepi32_epi16(cell));
        }
        masks.doubt[v] = doubt & valid;
        masks.wanted[v] = wanted & valid;
        any |= masks.doubt[v] | masks.wanted[v];
    };
    match &cells.judge {
        Judge::Grid { scale, offset, limit } => {
            let (scale, offset) = (_mm512_set1_ps(*scale), _mm512_set1_ps(*offset));
            let limit = _mm512_set1_ps(*limit);
            for v in 0..VECTORS {
                let x = _mm512_fmadd_ps(score(v), scale, offset);
                let off = _mm512_abs_ps(_mm512_reduce_ps::<0>(x));
                settle(v, _mm512_cvtps_epi32(x), _mm512_cmp_ps_mask::<_CMP_GT_OQ>(off, limit));
            }
        }
        Judge::List { boundaries, margin } => {
            // Only boundaries that the micro-tile's scores span can matter.
            let (mut low, mut high) = (score(0), score(0));
            for v in 1..VECTORS {
                low = _mm512_min_ps(low, score(v));
                high = _mm512_max_ps(high, score(v));
            }
            let (low, high) = (_mm512_reduce_min_ps(low) - margin, _mm512_reduce_max_ps(high) + margin);
            let first = boundaries.partition_point(|b| *b < low);
            let spanned = &boundaries[first..boundaries.partition_point(|b| *b <= high).max(first)];
            let (one, margin) = (_mm512_set1_epi32(1), _mm512_set1_ps(*margin));
            for v in 0..VECTORS {
                let mut cell = _mm512_set1_epi32(first as i32);
                let mut doubt = 0;
                for boundary in spanned {
                    let away = _mm512_sub_ps(score(v), _mm512_set1_ps(*boundary));
                    let above = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(away, _mm512_setzero_ps());
                    cell = _mm512_mask_add_epi32(cell, above, cell, one);
                    doubt |= _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_abs_ps(away), margin);
                }
                settle(v, cell, doubt);
            }
        }
    }
    any != 0
}
