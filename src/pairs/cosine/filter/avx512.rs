//! The kernels for AVX-512: f32 (F, DQ, BW, VL), and pairs of 16-bit integers (VNNI besides).
//!
//! 24 x 16 scores are kept in 24 vector registers; a line of the panels costs 24 instructions that multiply,
//! add, and bring a number of panel `a` to all places, and one load of panel `b`. That is one coordinate in
//! f32, two in integers (`vpdpwssd`), at the same rate: one instruction a cycle on Zen 4. Panel `b` (16 x 64
//! bytes for each line) stays in the first-level cache, panel `a` comes from the second. The cells of the
//! micro-tile before are counted between the multiplications: that needs the integer units and the load-store
//! units, which wait there, and takes no time that could be measured in a loop of its own.

// Loops over the registers go by constant numbers: through an iterator the compiler keeps the array
// in memory.
#![allow(clippy::needless_range_loop)]

use super::ahead::Ahead;
use super::avx2::{Words, count};
use super::cells::{Cells, Judge};
use super::pack::{PAIRS, Shape};
use super::tally::{Masks, Pending, Scores, Tally, VECTOR, VECTORS, Verdict};
use std::arch::x86_64::*;

const MR: usize = Shape::WHOLE.rows;
const NR: usize = Shape::WHOLE.columns;
/// Pairs counted at a time: half a row.
const BATCH: usize = 8;
/// A vector is a row of the micro-tile.
const _: () = assert!(NR == VECTOR && MR == VECTORS);

type Sums = [__m512; MR];

/// Lines of two panels, with an instruction that multiplies and adds. In assembly, because the compiler
/// moves the sums about.
macro_rules! lines {
    (@row $op:literal, $k:literal, $r:literal) => {
        concat!($op, " zmm", $r, ", zmm24, dword ptr [{a} + 96*", $k, " + 4*", $r, "]{{1to16}}\n")
    };
    (@line $op:literal, $k:literal, $($r:literal),+) => {
        concat!("vmovdqu64 zmm24, zmmword ptr [{b} + 64*", $k, "]\n", $(lines!(@row $op, $k, $r)),+)
    };
    ($op:literal, $a:expr, $b:expr, $s:expr, $($k:literal),+) => {
        std::arch::asm!(
            concat!($(lines!(
                @line $op, $k, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23
            )),+),
            a = in(reg) $a, b = in(reg) $b,
            inout("zmm0") $s[0], inout("zmm1") $s[1], inout("zmm2") $s[2], inout("zmm3") $s[3],
            inout("zmm4") $s[4], inout("zmm5") $s[5], inout("zmm6") $s[6], inout("zmm7") $s[7],
            inout("zmm8") $s[8], inout("zmm9") $s[9], inout("zmm10") $s[10], inout("zmm11") $s[11],
            inout("zmm12") $s[12], inout("zmm13") $s[13], inout("zmm14") $s[14], inout("zmm15") $s[15],
            inout("zmm16") $s[16], inout("zmm17") $s[17], inout("zmm18") $s[18], inout("zmm19") $s[19],
            inout("zmm20") $s[20], inout("zmm21") $s[21], inout("zmm22") $s[22], inout("zmm23") $s[23],
            out("zmm24") _,
            options(pure, readonly, nostack, preserves_flags),
        )
    };
}

/// Adds sums to the scores in memory. In assembly, because the compiler would keep those in registers from one
/// chunk to the next, and there are not so many.
macro_rules! add_up {
    (@row floats $r:literal) => {
        concat!("vaddps zmm24, zmm", $r, ", zmmword ptr [{out} + 64*", $r, "]\n")
    };
    (@row integers $r:literal) => {
        concat!(
            "vcvtdq2ps zmm24, zmm", $r, "\n",
            "vfmadd213ps zmm24, zmm25, zmmword ptr [{out} + 64*", $r, "]\n",
        )
    };
    (@rows $kind:tt $($r:literal),+) => {
        concat!($(add_up!(@row $kind $r), "vmovaps zmmword ptr [{out} + 64*", $r, "], zmm24\n"),+)
    };
    ($kind:tt, $out:expr, $unit:expr, $s:expr) => {
        std::arch::asm!(
            add_up!(@rows $kind 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23),
            out = in(reg) $out,
            in("zmm0") $s[0], in("zmm1") $s[1], in("zmm2") $s[2], in("zmm3") $s[3],
            in("zmm4") $s[4], in("zmm5") $s[5], in("zmm6") $s[6], in("zmm7") $s[7],
            in("zmm8") $s[8], in("zmm9") $s[9], in("zmm10") $s[10], in("zmm11") $s[11],
            in("zmm12") $s[12], in("zmm13") $s[13], in("zmm14") $s[14], in("zmm15") $s[15],
            in("zmm16") $s[16], in("zmm17") $s[17], in("zmm18") $s[18], in("zmm19") $s[19],
            in("zmm20") $s[20], in("zmm21") $s[21], in("zmm22") $s[22], in("zmm23") $s[23],
            in("zmm25") $unit, out("zmm24") _,
            options(nostack, preserves_flags),
        )
    };
}

/// Scores of one micro-tile: panel `a` of 24 rows against panel `b` of 16 rows, and counts `pending` and
/// asks for what is `ahead` on the way. A word is an f32; with `INTEGERS` it is a pair of integers after the
/// lead.
///
/// # Safety
/// The CPU has AVX-512 F and VL, and VNNI for integers. `a` holds 24 words a line, `b` as many lines of 16.
/// `pending` is of the strip that `tally` is at, its cells are those of [`Tally::sort`].
#[target_feature(enable = "avx512f,avx512vl")]
pub unsafe fn scores<const INTEGERS: bool>(
    a: &[u32],
    b: &[u32],
    words: Words,
    scores: &mut Scores,
    pending: Option<&Pending>,
    tally: &mut Tally<'_>,
    ahead: &mut Ahead,
) {
    let lines = b.len() / NR;
    debug_assert!(a.len() == lines * MR);
    let mut counted = pending.map_or(PAIRS, |_| 0);
    let Words { lead, chunk, unit } = words;
    // Pairs to be counted after every two lines, so that all are when the lines are through.
    let batches = (PAIRS / BATCH).div_ceil((lines / 2).max(1)).min(8);
    let tables = tally.tables(pending);
    let (mut a, mut b) = (a.as_ptr(), b.as_ptr());
    let mut first = 0;
    scores.0.fill(0.0);
    while first < lines {
        let in_f32 = !INTEGERS || first < lead;
        let here = if first < lead { lead - first } else { chunk.min(lines - first) };
        let mut sums: Sums = [_mm512_setzero_ps(); MR];
        // SAFETY: `a` and `b` advance by one line in each of `lines` steps in all, and hold that many;
        // counting stops after the last pair; the rest is this function's contract.
        unsafe {
            for _ in 0..here / 2 {
                if in_f32 {
                    lines!("vfmadd231ps", a, b, sums, 0, 1);
                } else {
                    lines!("vpdpwssd", a, b, sums, 0, 1);
                }
                (a, b) = (a.add(2 * MR), b.add(2 * NR));
                ahead.ask();
                if let Some(pending) = pending {
                    for _ in 0..batches {
                        if counted < PAIRS {
                            count::<NR, BATCH>(pending, counted, tables);
                            counted += BATCH;
                        }
                    }
                }
            }
            for _ in 0..here % 2 {
                if in_f32 {
                    lines!("vfmadd231ps", a, b, sums, 0);
                } else {
                    lines!("vpdpwssd", a, b, sums, 0);
                }
                (a, b) = (a.add(MR), b.add(NR));
            }
            ahead.ask();
            let (out, unit) = (scores.0.as_mut_ptr(), _mm512_set1_ps(unit));
            if in_f32 {
                add_up!(floats, out, unit, sums);
            } else {
                add_up!(integers, out, unit, sums);
            }
        }
        first += here;
    }
    if let Some(pending) = pending.filter(|_| counted < PAIRS) {
        tally.count(pending, counted);
    }
}

/// As [`super::portable::judge`]. True if any score is in doubt or wanted. With `OWN` pairs have bounds of
/// their own.
///
/// # Safety
/// The CPU has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub unsafe fn judge<const OWN: bool>(
    scores: &Scores,
    cells: &Cells,
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) -> bool {
    match &cells.judge {
        Judge::Grid { scale, offset, limit } => {
            let grid = [*scale, *offset, *limit];
            // Of nearly all micro-tiles no score is wanted; whether one may be is seen from the extremes.
            if verdict.valid.is_none() && verdict.row_from.is_none() {
                let found = by_grid::<OWN, false>(scores, grid, cells.none(), verdict, pending, masks);
                if let Some(any) = found {
                    masks.wanted = [0; VECTORS];
                    return any;
                }
            }
            by_grid::<OWN, true>(scores, grid, cells.none(), verdict, pending, masks) == Some(true)
        }
        Judge::List { boundaries, margin } => {
            by_list(scores, (boundaries, *margin), cells.none(), verdict, pending, masks)
        }
    }
}

/// One row of the scores.
#[inline]
#[target_feature(enable = "avx512f")]
fn row_of(scores: &Scores, r: usize) -> __m512 {
    // SAFETY: there are VECTORS aligned vectors.
    unsafe { _mm512_load_ps(scores.0[r * VECTOR..][..VECTOR].as_ptr()) }
}

/// A number for each column.
#[inline]
#[target_feature(enable = "avx512f")]
fn of_columns(each: &[f32]) -> __m512 {
    // SAFETY: there are as many.
    unsafe { _mm512_loadu_ps(each[..VECTOR].as_ptr()) }
}

/// The largest of so many numbers as there are rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn largest_of(each: &[f32; MR]) -> f32 {
    // Two vectors that overlap.
    _mm512_reduce_max_ps(_mm512_max_ps(of_columns(each), of_columns(&each[MR - VECTOR..])))
}

/// Gives a row of a micro-tile its cells, and `none` to those of a mask.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn give(pending: &mut Pending, r: usize, cell: __m512i, without: u16, none: u16) {
    let none = _mm256_set1_epi16(none as i16);
    let cell = _mm256_mask_mov_epi16(_mm512_cvtepi32_epi16(cell), without, none);
    // SAFETY: so many words.
    unsafe { _mm256_storeu_si256(pending.cells[r * VECTOR..][..VECTOR].as_mut_ptr().cast(), cell) };
}

/// [`judge`] on a grid. Without `WANTED` all scores are pairs and none is looked for; `None` if one may be
/// wanted.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn by_grid<const OWN: bool, const WANTED: bool>(
    scores: &Scores,
    [scale, offset, limit]: [f32; 3],
    none: u16,
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) -> Option<bool> {
    let (scale, offset, limit) = (_mm512_set1_ps(scale), _mm512_set1_ps(offset), _mm512_set1_ps(limit));
    let below = _mm512_set1_ps(verdict.below);
    let column_from = of_columns(verdict.column_from);
    let column_reach = of_columns(verdict.column_reach);
    let scaled_reach = _mm512_mul_ps(column_reach, scale);
    let (mut highest, mut least) = (_mm512_set1_ps(f32::NEG_INFINITY), _mm512_set1_ps(f32::INFINITY));
    let mut any = 0;
    for r in 0..MR {
        let s = row_of(scores, r);
        let x = _mm512_fmadd_ps(s, scale, offset);
        let mut off = _mm512_abs_ps(_mm512_reduce_ps::<0>(x));
        if OWN {
            off = _mm512_fmadd_ps(_mm512_set1_ps(verdict.row_reach[r]), scaled_reach, off);
        }
        let mut doubt = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(off, limit);
        let mut without = doubt;
        if WANTED {
            let (mut most, mut fewest) = (s, s);
            if OWN {
                let reach = _mm512_mul_ps(_mm512_set1_ps(verdict.row_reach[r]), column_reach);
                (most, fewest) = (_mm512_add_ps(s, reach), _mm512_sub_ps(s, reach));
            }
            let from = _mm512_min_ps(_mm512_set1_ps(verdict.from_of_row(r)), column_from);
            let high = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(most, from);
            let mut wanted = high | _mm512_cmp_ps_mask::<_CMP_LE_OQ>(fewest, below);
            if let Some(valid) = verdict.valid {
                without |= !valid[r];
                doubt &= valid[r];
                wanted &= valid[r];
            }
            masks.wanted[r] = wanted;
            any |= wanted;
        } else {
            highest = _mm512_max_ps(highest, s);
            least = _mm512_min_ps(least, s);
        }
        give(pending, r, _mm512_cvtps_epi32(x), without, none);
        masks.doubt[r] = doubt;
        any |= doubt;
    }
    if !WANTED {
        if OWN {
            // Rounded as with `WANTED`, and so no less than any pair's own.
            let reach = _mm512_mul_ps(_mm512_set1_ps(largest_of(verdict.row_reach)), column_reach);
            (highest, least) = (_mm512_add_ps(highest, reach), _mm512_sub_ps(least, reach));
        }
        let high = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(highest, _mm512_set1_ps(verdict.from));
        let low = _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(least, below);
        return (high | low == 0).then_some(any != 0);
    }
    Some(any != 0)
}

/// [`judge`] by a list of boundaries, of which only those that the micro-tile's scores span can matter.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn by_list(
    scores: &Scores,
    (boundaries, margin): (&[f32], f32),
    none: u16,
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) -> bool {
    let (mut low, mut high) = (row_of(scores, 0), row_of(scores, 0));
    for r in 1..MR {
        low = _mm512_min_ps(low, row_of(scores, r));
        high = _mm512_max_ps(high, row_of(scores, r));
    }
    let (low, high) = (_mm512_reduce_min_ps(low) - margin, _mm512_reduce_max_ps(high) + margin);
    let first = boundaries.partition_point(|b| *b < low);
    let spanned = &boundaries[first..boundaries.partition_point(|b| *b <= high).max(first)];
    let (one, margin) = (_mm512_set1_epi32(1), _mm512_set1_ps(margin));
    let (below, column_from) = (_mm512_set1_ps(verdict.below), of_columns(verdict.column_from));
    let mut any = 0;
    for r in 0..MR {
        let s = row_of(scores, r);
        let mut cell = _mm512_set1_epi32(first as i32);
        let mut doubt = 0;
        for boundary in spanned {
            let away = _mm512_sub_ps(s, _mm512_set1_ps(*boundary));
            let above = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(away, _mm512_setzero_ps());
            cell = _mm512_mask_add_epi32(cell, above, cell, one);
            doubt |= _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_abs_ps(away), margin);
        }
        let from = _mm512_min_ps(_mm512_set1_ps(verdict.from_of_row(r)), column_from);
        let wanted = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(s, from) | _mm512_cmp_ps_mask::<_CMP_LE_OQ>(s, below);
        let valid = verdict.valid.map_or(u16::MAX, |valid| valid[r]);
        give(pending, r, cell, doubt | !valid, none);
        masks.doubt[r] = doubt & valid;
        masks.wanted[r] = wanted & valid;
        any |= masks.doubt[r] | masks.wanted[r];
    }
    any != 0
}
