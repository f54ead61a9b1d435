//! The kernel for AVX2 and FMA.
//!
//! A micro-tile of 24 x 16 scores is computed six rows at a time: 6 x 16 scores in twelve registers,
//! which leaves four of the sixteen for the operands. A coordinate costs 12 fused multiply-adds,
//! 2 loads and 6 broadcasts. Panel `b` (16 x d x 4 bytes, 19 KB for d = 300) stays in the first-level
//! cache while all rows i of a strip go by; those (6 x 4 bytes a coordinate) come from the second. The
//! cells of the micro-tile before are counted between the multiplications, by units that wait there:
//! seldom enough, and in enough tables, that an increment need not wait for the one before it.
//!
//! Six rows are judged as soon as they are there, in ten instructions for eight scores that say no
//! more than whether any of them is in doubt or wanted. Only then is it asked which.

// Loops over the registers go by constant numbers: through an iterator the compiler keeps the array
// in memory.
#![allow(clippy::needless_range_loop)]

use super::cells::{Cells, Judge};
use super::pack::{PAIRS, Shape};
use super::tally::{Masks, Pending, Scores, TABLES, Tally, VECTOR, Verdict, WEIGHTED_TABLES};
use std::arch::asm;
use std::arch::x86_64::*;

const NR: usize = Shape::TALL.columns;
const ROWS: usize = Shape::TALL.together;
const LANES: usize = 8;
/// Pairs counted at a time ...
const BATCH: usize = 8;
/// ... after so many coordinates (as many as `multiply!` is given).
const STEPS: usize = 8;
/// Vectors of [`VECTOR`] scores in six rows.
const BLOCK: usize = ROWS * NR / VECTOR;

type Sums = [[__m256; 2]; ROWS];

/// Instructions for coordinate `$k` from `a` and `b` on.
macro_rules! coordinate {
    ($k:literal) => {
        concat!(
            row!(load 0, $k), row!(load 1, $k),
            row!(0, $k), row!(1, $k), row!(2, $k), row!(3, $k), row!(4, $k), row!(5, $k),
        )
    };
}

/// One row of that: a broadcast and two multiply-adds. `load`: half of `b`.
macro_rules! row {
    (load $half:literal, $k:literal) => {
        concat!("vmovups {b", $half, "}, ymmword ptr [{b} + 64 * ", $k, " + 32 * ", $half, "]\n")
    };
    ($r:literal, $k:literal) => {
        concat!(
            "vbroadcastss {t}, dword ptr [{a} + 24 * ",
            $k,
            " + 4 * ",
            $r,
            "]\n",
            "vfmadd231ps {s",
            $r,
            "0}, {t}, {b0}\n",
            "vfmadd231ps {s",
            $r,
            "1}, {t}, {b1}\n",
        )
    };
}

/// Coordinates of `$a` ([`ROWS`] values each) with those of `$b` ([`NR`]). In assembly, because the
/// compiler keeps some of the twelve sums in memory where they would just fit, depending on what
/// surrounds them, and a multiply-add through memory takes three times as long.
macro_rules! multiply {
    ($a:expr, $b:expr, $s:ident, $($k:literal)+) => {
        asm!(
            $(coordinate!($k),)+
            a = in(reg) $a,
            b = in(reg) $b,
            b0 = out(ymm_reg) _, b1 = out(ymm_reg) _, t = out(ymm_reg) _,
            s00 = inout(ymm_reg) $s[0][0], s01 = inout(ymm_reg) $s[0][1],
            s10 = inout(ymm_reg) $s[1][0], s11 = inout(ymm_reg) $s[1][1],
            s20 = inout(ymm_reg) $s[2][0], s21 = inout(ymm_reg) $s[2][1],
            s30 = inout(ymm_reg) $s[3][0], s31 = inout(ymm_reg) $s[3][1],
            s40 = inout(ymm_reg) $s[4][0], s41 = inout(ymm_reg) $s[4][1],
            s50 = inout(ymm_reg) $s[5][0], s51 = inout(ymm_reg) $s[5][1],
            options(readonly, nostack, preserves_flags),
        )
    };
}

/// A micro-tile that is to be computed.
pub struct Work<'a> {
    /// Panels of 4 x 6 rows i.
    pub a: &'a [f32],
    /// Panel of 16 rows j.
    pub b: &'a [f32],
    /// Coordinates that are summed at a time.
    pub chunk: usize,
    /// How scores become cells.
    pub cells: &'a Cells,
    /// What else decides about them.
    pub verdict: &'a Verdict<'a>,
}

/// Scores and judges one micro-tile as [`super::portable`] does, and counts `before` on the way. True
/// if any score is in doubt or wanted; only then are the masks set.
///
/// # Safety
/// The CPU has AVX2 and FMA. `work.a` holds `24 * dims` values, `work.b` holds `16 * dims`. Every cell
/// in `before` is below `tally.stride`, and `tally.weights`, if any, has rows up to
/// `before.at[0] + 24` and `before.at[1] + 16`.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn run<const WEIGHTED: bool>(
    work: &Work<'_>,
    scores: &mut Scores,
    before: Option<&Pending>,
    now: &mut Pending,
    tally: &mut Tally<'_>,
    masks: &mut Masks,
) -> bool {
    let dims = work.b.len() / NR;
    debug_assert!(work.a.len() == dims * Shape::TALL.rows);
    let mut counted = before.map_or(PAIRS, |_| 0);
    let mut look = [true; Shape::TALL.rows / ROWS];
    for first in (0..dims).step_by(work.chunk) {
        let here = work.chunk.min(dims - first);
        for six in 0..look.len() {
            let mut sums: Sums = [[_mm256_setzero_ps(); 2]; ROWS];
            // SAFETY: coordinates first .. first + here <= dims of the panels; rows of the six lie
            // inside the micro-tile; counting stops after the last pair; the rest is this
            // function's contract.
            unsafe {
                let mut a = work.a.as_ptr().add((six * dims + first) * ROWS);
                let mut b = work.b.as_ptr().add(first * NR);
                for _ in 0..here / STEPS {
                    multiply!(a, b, sums, 0 1 2 3 4 5 6 7);
                    (a, b) = (a.add(STEPS * ROWS), b.add(STEPS * NR));
                    if counted < PAIRS
                        && let Some(before) = before
                    {
                        count::<WEIGHTED>(before, counted, tally);
                        counted += BATCH;
                    }
                }
                for _ in 0..here % STEPS {
                    multiply!(a, b, sums, 0);
                    (a, b) = (a.add(ROWS), b.add(NR));
                }
                let out = scores.0.as_mut_ptr().add(six * ROWS * NR);
                for r in 0..ROWS {
                    for c in 0..2 {
                        let out = out.add(r * NR + c * LANES);
                        let sum = sums[r][c];
                        let sum = if first == 0 { sum } else { _mm256_add_ps(_mm256_load_ps(out), sum) };
                        _mm256_store_ps(out, sum);
                    }
                }
                if first + here == dims {
                    look[six] = judge_six(scores, work.cells, work.verdict, six, now);
                }
            }
        }
    }
    if let Some(before) = before.filter(|_| counted < PAIRS) {
        tally.count(before, counted);
    }
    if look == [false; 4] {
        return false;
    }
    let Judge::Grid { .. } = work.cells.judge else {
        super::portable::judge(scores, work.cells, work.verdict, now, masks);
        return true;
    };
    *masks = Masks::default();
    let mut any = false;
    for six in (0..look.len()).filter(|six| look[*six]) {
        // SAFETY: the CPU has what this needs.
        any |= unsafe { judge(scores, work.cells, work.verdict, six, now, masks) };
    }
    any
}

/// Gives six rows their cells. True if any score may be in doubt, wanted, or no pair: then its cell
/// is not right yet.
///
/// # Safety
/// The CPU has AVX2 and FMA; `six` is one of four.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn judge_six(
    scores: &Scores,
    cells: &Cells,
    verdict: &Verdict<'_>,
    six: usize,
    now: &mut Pending,
) -> bool {
    let Judge::Grid { scale, offset, limit } = &cells.judge else { return true };
    let (scale, offset) = (_mm256_set1_ps(*scale), _mm256_set1_ps(*offset));
    let sign = _mm256_set1_ps(-0.0);
    let below = _mm256_set1_ps(verdict.below);
    let mut far = _mm256_setzero_ps();
    let mut wanted = _mm256_setzero_ps();
    for v in six * BLOCK..(six + 1) * BLOCK {
        let row = _mm256_set1_ps(verdict.row_from[v]);
        let mut cell = [_mm256_setzero_si256(); 2];
        for half in 0..2 {
            // SAFETY: `Scores` holds VECTORS aligned vectors of 16; there are more columns than these.
            let (s, column) = unsafe {
                (
                    _mm256_load_ps(scores.0.as_ptr().add(v * VECTOR + half * LANES)),
                    _mm256_loadu_ps(verdict.column_from.as_ptr().add(half * LANES)),
                )
            };
            let x = _mm256_fmadd_ps(s, scale, offset);
            cell[half] = _mm256_cvtps_epi32(x);
            let off = _mm256_andnot_ps(sign, _mm256_sub_ps(x, _mm256_cvtepi32_ps(cell[half])));
            far = _mm256_max_ps(far, off);
            wanted = _mm256_or_ps(wanted, _mm256_cmp_ps::<_CMP_GE_OQ>(s, _mm256_min_ps(row, column)));
            wanted = _mm256_or_ps(wanted, _mm256_cmp_ps::<_CMP_LE_OQ>(s, below));
        }
        // The halves of both come in turns; 0, 2, 1, 3 puts them in order.
        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(cell[0], cell[1]));
        // SAFETY: `cells` has room for VECTORS times 16 words.
        unsafe { _mm256_storeu_si256(now.cells.as_mut_ptr().add(v * VECTOR).cast(), packed) };
    }
    let doubt = _mm256_cmp_ps::<_CMP_GT_OQ>(far, _mm256_set1_ps(*limit));
    verdict.valid.is_some() || _mm256_movemask_ps(_mm256_or_ps(doubt, wanted)) != 0
}

/// Counts [`BATCH`] pairs, all of one row.
///
/// # Safety
/// As for [`run`], and `from` is a multiple of [`BATCH`] below [`PAIRS`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn count<const WEIGHTED: bool>(pending: &Pending, from: usize, tally: &mut Tally<'_>) {
    // SAFETY: cells are below the stride, weights reach as far as the micro-tile.
    unsafe {
        let cells = pending.cells.as_ptr().add(from);
        if !WEIGHTED {
            let table = tally.plain.as_mut_ptr();
            for pair in 0..BATCH {
                *table.add(pair % TABLES * tally.stride + usize::from(*cells.add(pair))) += 1;
            }
        } else if let Some(weights) = tally.weights {
            let row = weights.as_ptr().add(pending.at[0] as usize + from / NR);
            let columns = weights.as_ptr().add(pending.at[1] as usize + from % NR);
            let row = _mm256_loadu_si256(row.cast());
            for pair in 0..BATCH {
                let place = pair % WEIGHTED_TABLES * tally.stride + usize::from(*cells.add(pair));
                let place = tally.weighted.as_mut_ptr().add(place).cast();
                // Weights are below 2^32, so the product of the low halves is the whole.
                let product = _mm256_mul_epu32(row, _mm256_loadu_si256(columns.add(pair).cast()));
                _mm256_storeu_si256(place, _mm256_add_epi64(_mm256_loadu_si256(place), product));
            }
        }
    }
}

/// As [`super::portable::judge`], for six rows on a grid. True if any score is in doubt or wanted.
///
/// # Safety
/// The CPU has AVX2 and FMA; `six` is one of four.
#[target_feature(enable = "avx2,fma")]
unsafe fn judge(
    scores: &Scores,
    cells: &Cells,
    verdict: &Verdict<'_>,
    six: usize,
    pending: &mut Pending,
    masks: &mut Masks,
) -> bool {
    let Judge::Grid { scale, offset, limit } = &cells.judge else { return false };
    let (scale, offset, limit) = (_mm256_set1_ps(*scale), _mm256_set1_ps(*offset), _mm256_set1_ps(*limit));
    let none = _mm256_set1_epi32(i32::from(cells.none()));
    let below = _mm256_set1_ps(verdict.below);
    let sign = _mm256_set1_ps(-0.0);
    let mut columns = [_mm256_setzero_ps(); 2];
    for (c, column) in columns.iter_mut().enumerate() {
        // SAFETY: there are more columns than these 16.
        *column = unsafe { _mm256_loadu_ps(verdict.column_from.as_ptr().add(c * LANES)) };
    }
    let mut any = 0;
    for v in six * BLOCK..(six + 1) * BLOCK {
        let from = _mm256_set1_ps(verdict.row_from[v]);
        let mut cell = [none; 2];
        let (mut doubt, mut wanted) = (0u16, 0u16);
        for half in 0..2 {
            // SAFETY: `Scores` holds VECTORS aligned vectors of 16.
            let s = unsafe { _mm256_load_ps(scores.0.as_ptr().add(v * VECTOR + half * LANES)) };
            let x = _mm256_fmadd_ps(s, scale, offset);
            let nearest = _mm256_cvtps_epi32(x);
            let off = _mm256_andnot_ps(sign, _mm256_sub_ps(x, _mm256_cvtepi32_ps(nearest)));
            let unsure = _mm256_cmp_ps::<_CMP_GT_OQ>(off, limit);
            cell[half] = _mm256_blendv_epi8(nearest, none, _mm256_castps_si256(unsure));
            let from = _mm256_min_ps(from, columns[half]);
            let high = _mm256_cmp_ps::<_CMP_GE_OQ>(s, from);
            let want = _mm256_or_ps(high, _mm256_cmp_ps::<_CMP_LE_OQ>(s, below));
            doubt |= (_mm256_movemask_ps(unsure) as u16) << (half * LANES);
            wanted |= (_mm256_movemask_ps(want) as u16) << (half * LANES);
        }
        // The halves of both come in turns; 0, 2, 1, 3 puts them in order.
        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(cell[0], cell[1]));
        // SAFETY: `cells` has room for VECTORS times 16 words.
        unsafe { _mm256_storeu_si256(pending.cells.as_mut_ptr().add(v * VECTOR).cast(), packed) };
        if let Some(valid) = verdict.valid {
            for lane in 0..VECTOR {
                if valid[v] >> lane & 1 == 0 {
                    pending.cells[v * VECTOR + lane] = cells.none();
                }
            }
            doubt &= valid[v];
            wanted &= valid[v];
        }
        masks.doubt[v] = doubt;
        masks.wanted[v] = wanted;
        any |= doubt | wanted;
    }
    any != 0
}
