//! The kernels for AVX2 and FMA: f32, and pairs of 16-bit integers.
//!
//! A micro-tile of 24 x 16 scores is computed six rows at a time: 6 x 16 scores in twelve registers,
//! which leaves four of the sixteen for the operands. A coordinate costs 12 fused multiply-adds,
//! 2 loads and 6 broadcasts. Panel `b` (16 x d x 4 bytes, 19 KB for d = 300) goes by in chunks that stay in
//! the first-level cache while all rows of the micro-tile use them; those (6 x 4 bytes a coordinate) come
//! from the second. The cells of the micro-tile before are counted between the multiplications, by units that wait there.
//!
//! Integers go two coordinates to a word of 32 bits: 12 multiplications of pairs and 12 additions take
//! two coordinates on, with the same loads and broadcasts, and with panels half as large.

// Loops over the registers go by constant numbers: through an iterator the compiler keeps the array
// in memory.
#![allow(clippy::needless_range_loop)]

use super::Cpu;
use super::ahead::Ahead;
use super::cells::{Cells, Judge};
use super::pack::{PAIRS, Shape};
use super::tally::{Masks, Pending, Places, Scores, TABLES, Tables, Tally, VECTOR, VECTORS, Verdict};
use std::arch::x86_64::*;

const NR: usize = Shape::TALL.columns;
const ROWS: usize = Shape::TALL.together;
const LANES: usize = 8;
/// Pairs counted at a time.
const BATCH: usize = 4;

/// Words of a panel `b` that stays in a first-level cache of 32 KB, with another program in it, too.
const NEAR: usize = (12 << 10) / 4;

type Sums = [[__m256; 2]; ROWS];

/// Lines of integers, two coordinates each. In assembly, because the compiler adds up the products
/// of several lines first, for which there are no registers.
macro_rules! lines {
    (@row $k:literal, $r:literal, $sum0:literal, $sum1:literal) => {
        concat!(
            "vpbroadcastd ymm14, dword ptr [{a} + 24*", $k, " + 4*", $r, "]\n",
            "vpmaddwd ymm15, ymm14, ymm12\n",
            "vpaddd ymm", $sum0, ", ymm", $sum0, ", ymm15\n",
            "vpmaddwd ymm14, ymm14, ymm13\n",
            "vpaddd ymm", $sum1, ", ymm", $sum1, ", ymm14\n",
        )
    };
    (@line $k:literal) => {
        concat!(
            "vmovdqu ymm12, ymmword ptr [{b} + 64*", $k, "]\n",
            "vmovdqu ymm13, ymmword ptr [{b} + 64*", $k, " + 32]\n",
            lines!(@row $k, 0, 0, 1), lines!(@row $k, 1, 2, 3), lines!(@row $k, 2, 4, 5),
            lines!(@row $k, 3, 6, 7), lines!(@row $k, 4, 8, 9), lines!(@row $k, 5, 10, 11),
        )
    };
    ($a:expr, $b:expr, $sums:expr, $($k:literal),+) => {
        std::arch::asm!(
            concat!($(lines!(@line $k)),+),
            a = in(reg) $a, b = in(reg) $b,
            inout("ymm0") $sums[0][0], inout("ymm1") $sums[0][1],
            inout("ymm2") $sums[1][0], inout("ymm3") $sums[1][1],
            inout("ymm4") $sums[2][0], inout("ymm5") $sums[2][1],
            inout("ymm6") $sums[3][0], inout("ymm7") $sums[3][1],
            inout("ymm8") $sums[4][0], inout("ymm9") $sums[4][1],
            inout("ymm10") $sums[5][0], inout("ymm11") $sums[5][1],
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(pure, readonly, nostack, preserves_flags),
        )
    };
}

/// What the words of a panel are.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// So many words are one f32 each, summed at once ...
    pub lead: usize,
    /// ... the rest are summed so many at a time ...
    pub chunk: usize,
    /// ... and, as integers, their sums multiplied by this.
    pub unit: f32,
}

/// Scores of one micro-tile: panels `a` of 4 x 6 rows against panel `b` of 16 rows, and counts
/// `pending` and asks for what is `ahead` on the way. A word is an f32; with `INTEGERS` it is a pair of
/// integers after the lead.
///
/// # Safety
/// The CPU has AVX2 and FMA. `a` holds 24 words a line, `b` as many lines of 16. `pending` is of the strip
/// that `tally` is at, its cells are those of [`Tally::sort`].
#[target_feature(enable = "avx2,fma")]
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
    debug_assert!(a.len() == lines * Shape::TALL.rows);
    let mut counted = pending.map_or(PAIRS, |_| 0);
    let Words { lead, chunk, unit } = words;
    let sixes = Shape::TALL.rows / ROWS;
    // Pairs to be counted after every four lines, so that all are when the lines are through.
    let batches = (PAIRS / BATCH).div_ceil((sixes * (lines / 4)).max(1)).min(4);
    // Panel `a` is read from one end to the other, unless `b` is so large that its chunks have to be
    // used by all rows while they are near.
    let straight = b.len() <= NEAR;
    let tables = tally.tables(pending);
    let (mut six, mut first) = (0, 0);
    while six < sixes && first < lines {
        let in_f32 = !INTEGERS || first < lead;
        let here = if first < lead { lead - first } else { chunk.min(lines - first) };
        let mut sums: Sums = [[_mm256_setzero_ps(); 2]; ROWS];
        // SAFETY: lines first .. first + here <= lines of the panels; rows of the six lie
        // inside the micro-tile; counting stops after the last pair; the rest is this
        // function's contract.
        unsafe {
            let mut a = a.as_ptr().add((six * lines + first) * ROWS);
            let mut b = b.as_ptr().add(first * NR);
            for _ in 0..here / 4 {
                if in_f32 {
                    for k in 0..4 {
                        step(a.add(k * ROWS), b.add(k * NR), &mut sums);
                    }
                } else {
                    lines!(a, b, sums, 0, 1, 2, 3);
                }
                (a, b) = (a.add(4 * ROWS), b.add(4 * NR));
                if let Some(pending) = pending {
                    for _ in 0..batches {
                        if counted < PAIRS {
                            count::<NR, BATCH>(pending, counted, tables);
                            counted += BATCH;
                        }
                    }
                }
            }
            for _ in 0..here % 4 {
                if in_f32 {
                    step(a, b, &mut sums);
                } else {
                    lines!(a, b, sums, 0);
                }
                (a, b) = (a.add(ROWS), b.add(NR));
            }
            ahead.ask();
            let out = scores.0.as_mut_ptr().add(six * ROWS * NR);
            for r in 0..ROWS {
                for c in 0..2 {
                    let out = out.add(r * NR + c * LANES);
                    let before = if first == 0 { _mm256_setzero_ps() } else { _mm256_load_ps(out) };
                    let sum = if in_f32 {
                        _mm256_add_ps(before, sums[r][c])
                    } else {
                        let sum = _mm256_cvtepi32_ps(_mm256_castps_si256(sums[r][c]));
                        _mm256_fmadd_ps(sum, _mm256_set1_ps(unit), before)
                    };
                    _mm256_store_ps(out, sum);
                }
            }
        }
        if straight {
            first += here;
            if first == lines {
                (six, first) = (six + 1, 0);
            }
        } else {
            six += 1;
            if six == sixes {
                (six, first) = (0, first + here);
            }
        }
    }
    if let Some(pending) = pending.filter(|_| counted < PAIRS) {
        tally.count(pending, counted);
    }
}

/// One coordinate.
///
/// # Safety
/// The CPU has AVX2 and FMA; `a` points to [`ROWS`] words and `b` to [`NR`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn step(a: *const u32, b: *const u32, sums: &mut Sums) {
    // SAFETY: see above.
    unsafe {
        let b0 = _mm256_loadu_ps(b.cast());
        let b1 = _mm256_loadu_ps(b.add(LANES).cast());
        for r in 0..ROWS {
            let a = _mm256_broadcast_ss(&*a.add(r).cast());
            sums[r][0] = _mm256_fmadd_ps(a, b0, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(a, b1, sums[r][1]);
        }
    }
}

/// Counts `BATCH` pairs of a micro-tile of `COLUMNS` columns, all of one row.
///
/// # Safety
/// `tables` are those of `pending`, whose cells are those of [`Tally::sort`]; `from` is a multiple of
/// `BATCH`, which divides `COLUMNS`, below [`PAIRS`].
#[inline(always)]
pub(super) unsafe fn count<const COLUMNS: usize, const BATCH: usize>(
    pending: &Pending,
    from: usize,
    tables: Tables<'_>,
) {
    // SAFETY: there are so many rows and cells, and a row's tables have each of its cells.
    unsafe {
        let cells = pending.cells.as_ptr().add(from);
        let first = tables.first.add(*tables.rows.get_unchecked(from / COLUMNS) as usize);
        let tables: [_; TABLES] = std::array::from_fn(|table| first.add(table * tables.apart));
        for pair in 0..BATCH {
            *tables[pair % TABLES].add(usize::from(*cells.add(pair))) += 1;
        }
    }
}

/// As [`super::portable::judge`]. True if any score is in doubt or wanted. With `OWN` pairs have
/// bounds of their own, and one in doubt has any cell.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn judge<const OWN: bool>(
    scores: &Scores,
    cells: &Cells,
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) -> bool {
    let Judge::Grid { scale, offset, limit } = cells.judge else {
        super::portable::judge(scores, cells, verdict, pending, masks);
        return true;
    };
    // SAFETY: the caller's.
    unsafe {
        if verdict.valid.is_none() && verdict.row_from.is_none() {
            let found = skim::<OWN>(scores, [scale, offset, limit], verdict, pending, masks);
            if let Some(any) = found {
                if any && !OWN {
                    let mut places = Places::default();
                    let open = masks.places(Cpu::Avx2, &mut places);
                    open.iter().for_each(|p| pending.cells[usize::from(*p)] = cells.none());
                }
                return any;
            }
        }
        judge_all::<OWN>(scores, [scale, offset, limit], cells.none(), verdict, pending, masks)
    }
}

/// [`judge`] for micro-tiles of which no score is wanted, as are nearly all: `None` if one may be. True
/// if any score is in doubt; all have cells.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn skim<const OWN: bool>(
    scores: &Scores,
    [scale, offset, limit]: [f32; 3],
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) -> Option<bool> {
    let unit = scale;
    let (scale, offset, limit) = (_mm256_set1_ps(scale), _mm256_set1_ps(offset), _mm256_set1_ps(limit));
    let sign = _mm256_set1_ps(-0.0);
    let mut column_reach = [_mm256_setzero_ps(); 2];
    if OWN {
        for c in 0..2 {
            // SAFETY: there are more columns than these 16.
            let reach = unsafe { _mm256_loadu_ps(verdict.column_reach.as_ptr().add(c * LANES)) };
            column_reach[c] = _mm256_mul_ps(reach, scale);
        }
    }
    let (mut highest, mut least) = (_mm256_set1_ps(f32::NEG_INFINITY), _mm256_set1_ps(f32::INFINITY));
    let mut farthest = _mm256_setzero_ps();
    let in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let mut any = 0;
    for two in 0..VECTORS / 2 {
        let mut unsure = [_mm256_setzero_si256(); 4];
        let mut cell = unsure;
        for k in 0..4 {
            // SAFETY: `Scores` holds VECTORS aligned vectors of 16.
            let s = unsafe { _mm256_load_ps(scores.0.as_ptr().add((4 * two + k) * LANES)) };
            highest = _mm256_max_ps(highest, s);
            least = _mm256_min_ps(least, s);
            let x = _mm256_fmadd_ps(s, scale, offset);
            cell[k] = _mm256_cvtps_epi32(x);
            let mut off = _mm256_andnot_ps(sign, _mm256_sub_ps(x, _mm256_cvtepi32_ps(cell[k])));
            if OWN {
                let reach = _mm256_set1_ps(verdict.row_reach[2 * two + k / 2]);
                off = _mm256_fmadd_ps(reach, column_reach[k % 2], off);
                farthest = _mm256_max_ps(farthest, reach);
            }
            unsure[k] = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(off, limit));
        }
        for half in 0..2 {
            // The halves of both come in turns; 0, 2, 1, 3 puts them in order.
            let packed = _mm256_packus_epi32(cell[2 * half], cell[2 * half + 1]);
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            // SAFETY: `cells` has room for VECTORS times 16 words.
            unsafe {
                _mm256_storeu_si256(pending.cells.as_mut_ptr().add((2 * two + half) * VECTOR).cast(), packed);
            }
        }
        let bytes = _mm256_packs_epi16(
            _mm256_packs_epi32(unsure[0], unsure[1]),
            _mm256_packs_epi32(unsure[2], unsure[3]),
        );
        let doubt = _mm256_movemask_epi8(_mm256_permutevar8x32_epi32(bytes, in_order)) as u32;
        masks.doubt[2 * two] = doubt as u16;
        masks.doubt[2 * two + 1] = (doubt >> VECTOR) as u16;
        any |= doubt;
    }
    // In this order, so that the bound is no less than any pair's own.
    let reach = _mm256_mul_ps(farthest, _mm256_max_ps(column_reach[0], column_reach[1]));
    let reach = _mm256_mul_ps(reach, _mm256_set1_ps((1.0 + 1e-6) / unit));
    let high =
        _mm256_cmp_ps::<_CMP_NLT_UQ>(_mm256_add_ps(highest, largest_of(reach)), _mm256_set1_ps(verdict.from));
    let low =
        _mm256_cmp_ps::<_CMP_NGT_UQ>(_mm256_sub_ps(least, largest_of(reach)), _mm256_set1_ps(verdict.below));
    if _mm256_movemask_ps(_mm256_or_ps(high, low)) != 0 {
        return None;
    }
    masks.wanted = [0; VECTORS];
    Some(any != 0)
}

/// The largest of eight numbers, in all places.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn largest_of(x: __m256) -> __m256 {
    let x = _mm256_max_ps(x, _mm256_permute2f128_ps::<1>(x, x));
    let x = _mm256_max_ps(x, _mm256_permute_ps::<0b01_00_11_10>(x));
    _mm256_max_ps(x, _mm256_permute_ps::<0b10_11_00_01>(x))
}

/// [`judge`] in general.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn judge_all<const OWN: bool>(
    scores: &Scores,
    [scale, offset, limit]: [f32; 3],
    none: u16,
    verdict: &Verdict<'_>,
    pending: &mut Pending,
    masks: &mut Masks,
) -> bool {
    let (scale, offset, limit) = (_mm256_set1_ps(scale), _mm256_set1_ps(offset), _mm256_set1_ps(limit));
    let nones = _mm256_set1_epi32(i32::from(none));
    let below = _mm256_set1_ps(verdict.below);
    let sign = _mm256_set1_ps(-0.0);
    let mut columns = [_mm256_setzero_ps(); 2];
    let mut column_reach = columns;
    for c in 0..2 {
        // SAFETY: there are more columns than these 16.
        unsafe {
            columns[c] = _mm256_loadu_ps(verdict.column_from.as_ptr().add(c * LANES));
            column_reach[c] = _mm256_loadu_ps(verdict.column_reach.as_ptr().add(c * LANES));
        }
    }
    let mut any = 0;
    for v in 0..VECTORS {
        let from = _mm256_set1_ps(verdict.from_of_row(v));
        let reach = _mm256_set1_ps(verdict.row_reach[v]);
        let mut cell = [nones; 2];
        let (mut doubt, mut wanted) = (0u16, 0u16);
        for half in 0..2 {
            // SAFETY: `Scores` holds VECTORS aligned vectors of 16.
            let s = unsafe { _mm256_load_ps(scores.0.as_ptr().add(v * VECTOR + half * LANES)) };
            let x = _mm256_fmadd_ps(s, scale, offset);
            let nearest = _mm256_cvtps_epi32(x);
            let mut off = _mm256_andnot_ps(sign, _mm256_sub_ps(x, _mm256_cvtepi32_ps(nearest)));
            let (mut most, mut least) = (s, s);
            if OWN {
                let reach = _mm256_mul_ps(reach, column_reach[half]);
                off = _mm256_fmadd_ps(reach, scale, off);
                (most, least) = (_mm256_add_ps(s, reach), _mm256_sub_ps(s, reach));
            }
            let unsure = _mm256_cmp_ps::<_CMP_GT_OQ>(off, limit);
            cell[half] = _mm256_blendv_epi8(nearest, nones, _mm256_castps_si256(unsure));
            let from = _mm256_min_ps(from, columns[half]);
            let high = _mm256_cmp_ps::<_CMP_GE_OQ>(most, from);
            let want = _mm256_or_ps(high, _mm256_cmp_ps::<_CMP_LE_OQ>(least, below));
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
                    pending.cells[v * VECTOR + lane] = none;
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
