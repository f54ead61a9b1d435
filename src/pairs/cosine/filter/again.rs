//! The second look at pairs that lead and head leave open: their tails, 16 pairs at a time.

use super::Cpu;
use super::ahead::Ahead;
use super::axes::{Axes, Reach};
use super::cells::Judge;
use super::pack::{MOST_COLUMNS, MOST_ROWS, PAIRS, Shape, integers};
use super::tally::{Masks, Pending, Places, Scores, VECTOR, Verdict};
use super::turned::{Line, Turned};
use std::ops::Range;

/// Pairs that are looked at together ...
const SOME: usize = 16;
/// ... at once with AVX2.
#[cfg(target_arch = "x86_64")]
const EIGHT: usize = 8;
/// Rows j of a micro-tile.
const NR: usize = Shape::TALL.columns;
const _: () = assert!(Shape::WHOLE.columns == NR && Shape::WHOLE.rows == Shape::TALL.rows);

/// A micro-tile, and what is known of it.
struct Known<'m> {
    verdict: &'m Verdict<'m>,
    scores: &'m Scores,
}

/// The tails of a strip of rows i, and of the rows j of a panel.
pub struct Tails<'a> {
    cpu: Cpu,
    axes: &'a Axes,
    turned: &'a [Turned<'a>; 2],
    /// Tails of the strip's rows one after the other, copied so that they lie near.
    lines: Vec<Line>,
    /// Their bounds without tails, for whole micro-tiles ...
    head: Vec<[f32; MOST_ROWS]>,
    /// ... and with tails.
    whole: Vec<[f32; MOST_ROWS]>,
    columns: [&'a [Line]; NR],
    columns_whole: [f32; NR],
}

impl<'a> Tails<'a> {
    /// Of a strip of rows i, and of rows j; no panel yet.
    pub fn new(cpu: Cpu, axes: &'a Axes, turned: &'a [Turned<'a>; 2], strip: Range<u32>) -> Self {
        let mut lines = Vec::with_capacity(strip.len() * axes.tail_lines());
        strip.clone().for_each(|i| lines.extend_from_slice(turned[0].tail(i)));
        let reach = |of: fn(Reach) -> f32| {
            let here = |first: u32| {
                std::array::from_fn(|r| match first + r as u32 {
                    i if i < strip.end => of(turned[0].reach(i)),
                    _ => 0.0,
                })
            };
            strip.clone().step_by(MOST_ROWS).map(here).collect()
        };
        let (head, whole) = (reach(|reach| reach.head), reach(|reach| reach.whole));
        Self { cpu, axes, turned, lines, head, whole, columns: [&[]; NR], columns_whole: [0.0; NR] }
    }

    /// Goes to a panel, of which there are others up to `end`; gives the bounds of its rows, without tails.
    pub fn panel(&mut self, columns: Range<u32>, end: u32, ahead: &mut Ahead) -> [f32; MOST_COLUMNS] {
        let turned = &self.turned[1];
        let mut reach = [0.0; MOST_COLUMNS];
        for (c, j) in columns.clone().enumerate() {
            self.columns[c] = turned.tail(j);
            (reach[c], self.columns_whole[c]) = (turned.reach(j).head, turned.reach(j).whole);
        }
        (columns.end..end.min(columns.end + NR as u32)).for_each(|j| ahead.list(turned.tail(j)));
        reach
    }

    /// The bounds of the rows of the strip's micro-tile `q`, without tails.
    pub fn reach(&self, q: usize) -> &[f32; MOST_ROWS] {
        &self.head[q]
    }

    /// Adds the tails to the scores that the masks point at, gives those pairs their cells as far as that
    /// settles them, and leaves in the masks what is still open. True if anything is.
    pub fn look(
        &self,
        verdict: &Verdict<'_>,
        scores: &Scores,
        pending: &mut Pending,
        masks: &mut Masks,
        places: &mut Places,
    ) -> bool {
        let places = masks.places(self.cpu, places);
        *masks = Masks::default();
        let mut any = false;
        for these in places.chunks(SOME) {
            let [doubt, wanted] = self.settle(these, &Known { verdict, scores }, pending);
            let mut still = doubt | wanted;
            any |= still != 0;
            while still != 0 {
                let l = still.trailing_zeros() as usize;
                still &= still - 1;
                let (v, bit) = (usize::from(these[l]) / VECTOR, usize::from(these[l]) % VECTOR);
                masks.doubt[v] |= ((doubt >> l & 1) << bit) as u16;
                masks.wanted[v] |= ((wanted >> l & 1) << bit) as u16;
            }
        }
        any
    }

    /// Adds the tails of at most 16 pairs, at these places of a micro-tile, and gives them cells; gives a bit
    /// for each pair in doubt, and for each that is wanted.
    #[inline]
    fn settle(&self, these: &[u16], known: &Known<'_>, pending: &mut Pending) -> [u32; 2] {
        // The last pair fills up a vector that is not full.
        let at = |l: usize| these[l.min(these.len() - 1)];
        let bits = match self.cpu {
            // SAFETY: `Cpu::all` lists this kernel only where the CPU has what it needs; masks have bits for
            // pairs that there are.
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512Int16 => unsafe { self.settle_avx512(these, known, pending) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            cpu if cpu.has_avx2() => unsafe {
                let low = self.settle_avx2(std::array::from_fn(at), known, pending);
                if these.len() <= EIGHT {
                    low
                } else {
                    let high = self.settle_avx2(std::array::from_fn(|l| at(l + EIGHT)), known, pending);
                    std::array::from_fn(|of| low[of] | high[of] << EIGHT)
                }
            },
            _ => self.settle_portable(these, known, pending),
        };
        bits.map(|bits| bits & ((1 << these.len()) - 1))
    }

    fn settle_portable(
        &self,
        these: &[u16],
        &Known { verdict, scores }: &Known<'_>,
        pending: &mut Pending,
    ) -> [u32; 2] {
        let (axes, q) = (self.axes, pending.q);
        let lines = axes.tail_lines();
        let (mut doubt, mut wanted) = (0, 0);
        for (l, p) in these.iter().map(|p| usize::from(*p)).enumerate() {
            let (r, c) = (p / NR, p % NR);
            let x = &self.lines[(q * MOST_ROWS + r) * lines..][..lines];
            let y = self.columns[c];
            let products = x.iter().zip(y).flat_map(|(x, y)| {
                integers(&x.0).zip(integers(&y.0)).map(|(x, y)| i32::from(x) * i32::from(y))
            });
            let score = scores.0[p] + products.fold(0, i32::wrapping_add) as f32 * axes.tail.unit;
            let own = self.whole[q][r] * self.columns_whole[c];
            let cell = axes.cells.cell_within(score, own);
            pending.cells[p] = cell.unwrap_or(axes.cells.none());
            doubt |= u32::from(cell.is_none()) << l;
            let from = verdict.from_of_row(r).min(verdict.column_from[c]);
            wanted |= u32::from(score + own >= from || score - own <= verdict.below) << l;
        }
        [doubt, wanted]
    }

    /// # Safety
    /// The CPU has AVX2 and FMA; all pairs are below [`PAIRS`], of rows that there are.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn settle_avx2(&self, at: [u16; EIGHT], known: &Known<'_>, pending: &mut Pending) -> [u32; 2] {
        use std::arch::x86_64::*;
        let (axes, q, &Known { verdict, scores }) = (self.axes, pending.q, known);
        let Judge::Grid { scale, offset, limit } = axes.cells.judge else {
            return self.settle_portable(&at, known, pending);
        };
        let lines = axes.tail_lines();
        let (whole, rows) = (&self.whole[q], &self.lines[q * MOST_ROWS * lines..]);
        let (mut own, mut score, mut from) = ([0.0; EIGHT], [0.0; EIGHT], [verdict.from; EIGHT]);
        let mut sums = [_mm256_setzero_si256(); EIGHT];
        for (l, p) in at.into_iter().map(usize::from).enumerate() {
            let (r, c) = (p / NR, p % NR);
            debug_assert!(p < PAIRS && (r + 1) * lines <= rows.len() && self.columns[c].len() == lines);
            // SAFETY: the caller's pairs are of this micro-tile, and rows i and j have so many lines.
            unsafe {
                score[l] = *scores.0.get_unchecked(p);
                own[l] = *whole.get_unchecked(r) * self.columns_whole[c];
                if let Some(row_from) = verdict.row_from {
                    from[l] = row_from.get_unchecked(r).min(verdict.column_from[c]);
                }
                sums[l] = sum_avx2(rows.as_ptr().add(r * lines), self.columns[c].as_ptr(), lines);
            }
        }
        let two = |a: usize| _mm256_hadd_epi32(sums[a], sums[a + 1]);
        let four = [_mm256_hadd_epi32(two(0), two(2)), _mm256_hadd_epi32(two(4), two(6))];
        let low = _mm256_permute2x128_si256::<0x20>(four[0], four[1]);
        let sum = _mm256_add_epi32(low, _mm256_permute2x128_si256::<0x31>(four[0], four[1]));
        // SAFETY: all arrays have eight numbers.
        let [score, own, from] = unsafe { [score, own, from].map(|eight| _mm256_loadu_ps(eight.as_ptr())) };
        let score = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(axes.tail.unit), score);
        let (scale, offset) = (_mm256_set1_ps(scale), _mm256_set1_ps(offset));
        let place = _mm256_fmadd_ps(score, scale, offset);
        let nearest = _mm256_cvtps_epi32(place);
        let off = _mm256_sub_ps(place, _mm256_cvtepi32_ps(nearest));
        let off = _mm256_fmadd_ps(own, scale, _mm256_andnot_ps(_mm256_set1_ps(-0.0), off));
        // Not a number cannot be; it would be in doubt.
        let doubt = _mm256_cmp_ps::<_CMP_NLE_UQ>(off, _mm256_set1_ps(limit));
        let none = _mm256_set1_epi32(i32::from(axes.cells.none()));
        let mut cells = [0i32; EIGHT];
        // SAFETY: there is room for eight.
        unsafe {
            let cell = _mm256_blendv_epi8(nearest, none, _mm256_castps_si256(doubt));
            _mm256_storeu_si256(cells.as_mut_ptr().cast(), cell);
        }
        for (p, cell) in at.into_iter().zip(cells) {
            // SAFETY: as above.
            unsafe { *pending.cells.get_unchecked_mut(usize::from(p)) = cell as u16 };
        }
        let high = _mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_add_ps(score, own), from);
        let low = _mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_sub_ps(score, own), _mm256_set1_ps(verdict.below));
        [_mm256_movemask_ps(doubt) as u32, _mm256_movemask_ps(_mm256_or_ps(high, low)) as u32]
    }

    /// As [`Tails::settle_avx2`].
    ///
    /// # Safety
    /// The CPU has AVX-512 F, DQ, BW, VL and VNNI; there are at most 16 pairs, below [`PAIRS`] and of rows that
    /// there are.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni")]
    unsafe fn settle_avx512(&self, these: &[u16], known: &Known<'_>, pending: &mut Pending) -> [u32; 2] {
        use std::arch::x86_64::*;
        let (axes, q, &Known { verdict, scores }) = (self.axes, pending.q, known);
        let Judge::Grid { scale, offset, limit } = axes.cells.judge else {
            return self.settle_portable(these, known, pending);
        };
        let lines = axes.tail_lines();
        let (whole, rows) = (&self.whole[q], &self.lines[q * MOST_ROWS * lines..]);
        let (mut own, mut score, mut from) = ([0.0; SOME], [0.0; SOME], [verdict.from; SOME]);
        let mut sums = [_mm512_setzero_si512(); SOME];
        for (l, p) in these.iter().take(SOME).map(|p| usize::from(*p)).enumerate() {
            let (r, c) = (p / NR, p % NR);
            debug_assert!(p < PAIRS && (r + 1) * lines <= rows.len() && self.columns[c].len() == lines);
            // SAFETY: the caller's pairs are of this micro-tile, and rows i and j have so many lines, which
            // are aligned.
            unsafe {
                score[l] = *scores.0.get_unchecked(p);
                own[l] = *whole.get_unchecked(r) * self.columns_whole[c];
                if let Some(row_from) = verdict.row_from {
                    from[l] = row_from.get_unchecked(r).min(verdict.column_from[c]);
                }
                let (x, y) = (rows.as_ptr().add(r * lines), self.columns[c].as_ptr());
                for k in 0..lines {
                    let [x, y] = [x, y].map(|row| _mm512_load_si512(row.add(k).cast()));
                    sums[l] = _mm512_dpwssd_epi32(sums[l], x, y);
                }
            }
        }
        // Places of four pairs come together in each quarter of a vector, then the quarters.
        let two = |a: usize| {
            let [x, y] = [sums[a], sums[a + 1]];
            _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y))
        };
        let four = |a: usize| {
            let [x, y] = [two(a), two(a + 2)];
            _mm512_add_epi32(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y))
        };
        let halved = |x: __m512i, y: __m512i| {
            let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(x, y);
            _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0b11_01_11_01>(x, y))
        };
        let sum = halved(halved(four(0), four(4)), halved(four(8), four(12)));
        // SAFETY: all arrays have 16 numbers.
        let [score, own, from] = unsafe { [score, own, from].map(|some| _mm512_loadu_ps(some.as_ptr())) };
        let score = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(axes.tail.unit), score);
        let place = _mm512_fmadd_ps(score, _mm512_set1_ps(scale), _mm512_set1_ps(offset));
        let off = _mm512_abs_ps(_mm512_reduce_ps::<0>(place));
        let off = _mm512_fmadd_ps(own, _mm512_set1_ps(scale), off);
        // Not a number cannot be; it would be in doubt.
        let doubt = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(off, _mm512_set1_ps(limit));
        let none = _mm512_set1_epi32(i32::from(axes.cells.none()));
        let mut cells = [0u16; SOME];
        // SAFETY: there is room for 16.
        unsafe {
            let cell = _mm512_mask_mov_epi32(_mm512_cvtps_epi32(place), doubt, none);
            _mm256_storeu_si256(cells.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(cell));
        }
        for (p, cell) in these.iter().zip(cells) {
            // SAFETY: as above.
            unsafe { *pending.cells.get_unchecked_mut(usize::from(*p)) = cell };
        }
        let high = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_add_ps(score, own), from);
        let low = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_sub_ps(score, own), _mm512_set1_ps(verdict.below));
        [doubt.into(), (high | low).into()]
    }
}

/// Products of two tails of so many lines, in eight sums.
///
/// # Safety
/// The CPU has AVX2; both have so many.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sum_avx2(x: *const Line, y: *const Line, lines: usize) -> std::arch::x86_64::__m256i {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_setzero_si256(); 2];
    // SAFETY: lines are aligned, and there are as many, of two vectors each.
    let product = |k: usize| unsafe {
        let [x, y] = [x, y].map(|row| _mm256_load_si256(row.cast::<__m256i>().add(k)));
        _mm256_madd_epi16(x, y)
    };
    for k in 0..lines {
        sums[0] = _mm256_add_epi32(sums[0], product(2 * k));
        sums[1] = _mm256_add_epi32(sums[1], product(2 * k + 1));
    }
    _mm256_add_epi32(sums[0], sums[1])
}
