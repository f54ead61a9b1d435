//! The second look at pairs that lead and head leave open: their tails, eight pairs at a time.

use super::axes::{Axes, Reach};
use super::cells::Judge;
use super::pack::{MOST_COLUMNS, PAIRS, Shape, integers};
use super::tally::{Masks, Pending, Scores, VECTOR, Verdict};
use super::turned::Turned;
use std::ops::Range;

/// Eight words of a tail.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
struct Line([u32; 8]);

/// Pairs that are looked at together.
const EIGHT: usize = 8;
/// Rows j of a micro-tile.
const NR: usize = Shape::TALL.columns;

/// The tails of a strip of rows i, and of the rows j of a panel.
pub struct Tails<'a> {
    axes: &'a Axes,
    turned: &'a [Turned<'a>; 2],
    rows: Side,
    columns: Side,
}

/// Copied, so that they lie on cache lines and near.
#[derive(Default)]
struct Side {
    lines: Vec<Line>,
    reach: Vec<Reach>,
}

impl Side {
    fn fill(&mut self, turned: &Turned<'_>, range: Range<u32>) {
        self.lines.clear();
        self.reach.clear();
        for i in range {
            self.lines
                .extend(turned.tail(i).chunks_exact(8).map(|eight| Line(eight.try_into().expect("eight"))));
            self.reach.push(turned.reach(i));
        }
    }
}

impl<'a> Tails<'a> {
    /// Of rows i and of rows j; no strip and no panel yet.
    pub fn new(axes: &'a Axes, turned: &'a [Turned<'a>; 2]) -> Self {
        Self { axes, turned, rows: Side::default(), columns: Side::default() }
    }

    /// Goes to a strip.
    pub fn strip(&mut self, rows: Range<u32>) {
        self.rows.fill(&self.turned[0], rows);
    }

    /// Goes to a panel; gives the bounds of its rows, without tails.
    pub fn panel(&mut self, columns: Range<u32>) -> [f32; MOST_COLUMNS] {
        self.columns.fill(&self.turned[1], columns);
        let mut reach = [0.0; MOST_COLUMNS];
        reach.iter_mut().zip(&self.columns.reach).for_each(|(to, reach)| *to = reach.head);
        reach
    }

    /// The bounds of the strip's rows from its `first` on, without tails.
    pub fn reach(&self, first: usize) -> impl Iterator<Item = f32> {
        self.rows.reach.iter().skip(first).map(|reach| reach.head)
    }

    /// Adds the tails to the scores that the masks point at, gives those pairs their cells as far as that
    /// settles them, and leaves in the masks what is still open. True if anything is. The micro-tile's
    /// first row is the strip's `first`.
    pub fn look(
        &self,
        first: usize,
        verdict: &Verdict<'_>,
        scores: &mut Scores,
        pending: &mut Pending,
        masks: &mut Masks,
    ) -> bool {
        let mut open = [0u16; PAIRS];
        let count = masks.places(&mut open);
        *masks = Masks::default();
        let mut any = false;
        for these in open[..count].chunks(EIGHT) {
            // The last pair fills up a group that is not full.
            let at: [usize; EIGHT] = std::array::from_fn(|l| usize::from(these[l.min(these.len() - 1)]));
            let mut group = Group::default();
            for (l, p) in at.into_iter().enumerate() {
                let (r, c) = (p / NR, p % NR);
                group.x[l] = first + r;
                group.y[l] = c;
                group.score[l] = scores.0[p];
                group.own[l] = self.rows.reach[first + r].whole * self.columns.reach[c].whole;
                group.from[l] = verdict.row_from[r].min(verdict.column_from[c]);
            }
            let [doubt, wanted] = group.settle(self, verdict.below);
            for (l, p) in at.into_iter().enumerate() {
                pending.cells[p] = group.cell[l] as u16;
                scores.0[p] = group.score[l];
            }
            let mut still = (doubt | wanted) & ((1 << these.len()) - 1);
            any |= still != 0;
            while still != 0 {
                let l = still.trailing_zeros() as usize;
                still &= still - 1;
                let (v, bit) = (at[l] / VECTOR, at[l] % VECTOR);
                masks.doubt[v] |= ((doubt >> l & 1) << bit) as u16;
                masks.wanted[v] |= ((wanted >> l & 1) << bit) as u16;
            }
        }
        any
    }
}

/// Eight pairs.
#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    /// Row i in the strip ...
    x: [usize; EIGHT],
    /// ... and row j in the panel.
    y: [usize; EIGHT],
    /// Without the tail, and then with it.
    score: [f32; EIGHT],
    /// The pair's own bound.
    own: [f32; EIGHT],
    /// Wanted from here on.
    from: [f32; EIGHT],
    /// The cell, or none.
    cell: [i32; EIGHT],
}

impl Group {
    /// Adds the tails and gives cells; gives a bit for each pair in doubt, and for each that is wanted.
    fn settle(&mut self, tails: &Tails<'_>, below: f32) -> [u32; 2] {
        #[cfg(target_arch = "x86_64")]
        if super::Cpu::best().has_avx2() {
            // SAFETY: `has_avx2` says so.
            return unsafe { self.settle_avx2(tails, below) };
        }
        self.settle_portable(tails, below)
    }

    fn settle_portable(&mut self, tails: &Tails<'_>, below: f32) -> [u32; 2] {
        let axes = tails.axes;
        let lines = axes.tail_words() / 8;
        let (mut doubt, mut wanted) = (0, 0);
        for l in 0..EIGHT {
            let x = &tails.rows.lines[self.x[l] * lines..][..lines];
            let y = &tails.columns.lines[self.y[l] * lines..][..lines];
            let products = x.iter().zip(y).flat_map(|(x, y)| {
                integers(&x.0).zip(integers(&y.0)).map(|(x, y)| i32::from(x) * i32::from(y))
            });
            self.score[l] += products.fold(0, i32::wrapping_add) as f32 * axes.tail.unit;
            let (score, own) = (self.score[l], self.own[l]);
            let cell = axes.cells.cell_within(score, own);
            self.cell[l] = i32::from(cell.unwrap_or(axes.cells.none()));
            doubt |= u32::from(cell.is_none()) << l;
            wanted |= u32::from(score + own >= self.from[l] || score - own <= below) << l;
        }
        [doubt, wanted]
    }

    /// # Safety
    /// The CPU has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn settle_avx2(&mut self, tails: &Tails<'_>, below: f32) -> [u32; 2] {
        use std::arch::x86_64::*;
        let axes = tails.axes;
        let Judge::Grid { scale, offset, limit } = axes.cells.judge else {
            return self.settle_portable(tails, below);
        };
        let lines = axes.tail_words() / 8;
        let x = self.x.map(|x| tails.rows.lines[x * lines..][..lines].as_ptr().cast::<__m256i>());
        let y = self.y.map(|y| tails.columns.lines[y * lines..][..lines].as_ptr().cast::<__m256i>());
        let mut sums = [_mm256_setzero_si256(); EIGHT];
        for k in 0..lines {
            for p in 0..EIGHT {
                // SAFETY: all sixteen have so many lines, and lines are aligned.
                let (x, y) = unsafe { (_mm256_load_si256(x[p].add(k)), _mm256_load_si256(y[p].add(k))) };
                sums[p] = _mm256_add_epi32(sums[p], _mm256_madd_epi16(x, y));
            }
        }
        let two = |a: usize| _mm256_hadd_epi32(sums[a], sums[a + 1]);
        let four = [_mm256_hadd_epi32(two(0), two(2)), _mm256_hadd_epi32(two(4), two(6))];
        let low = _mm256_permute2x128_si256::<0x20>(four[0], four[1]);
        let sum = _mm256_add_epi32(low, _mm256_permute2x128_si256::<0x31>(four[0], four[1]));
        // SAFETY: all arrays have eight numbers.
        unsafe {
            let unit = _mm256_set1_ps(axes.tail.unit);
            let score = _mm256_loadu_ps(self.score.as_ptr());
            let score = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), unit, score);
            _mm256_storeu_ps(self.score.as_mut_ptr(), score);
            let own = _mm256_loadu_ps(self.own.as_ptr());
            let (scale, offset) = (_mm256_set1_ps(scale), _mm256_set1_ps(offset));
            let place = _mm256_fmadd_ps(score, scale, offset);
            let nearest = _mm256_cvtps_epi32(place);
            let off = _mm256_sub_ps(place, _mm256_cvtepi32_ps(nearest));
            let off = _mm256_fmadd_ps(own, scale, _mm256_andnot_ps(_mm256_set1_ps(-0.0), off));
            // Not a number cannot be; it would be in doubt.
            let doubt = _mm256_cmp_ps::<_CMP_NLE_UQ>(off, _mm256_set1_ps(limit));
            let none = _mm256_set1_epi32(i32::from(axes.cells.none()));
            let cell = _mm256_blendv_epi8(nearest, none, _mm256_castps_si256(doubt));
            _mm256_storeu_si256(self.cell.as_mut_ptr().cast(), cell);
            let from = _mm256_loadu_ps(self.from.as_ptr());
            let high = _mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_add_ps(score, own), from);
            let low = _mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_sub_ps(score, own), _mm256_set1_ps(below));
            [_mm256_movemask_ps(doubt) as u32, _mm256_movemask_ps(_mm256_or_ps(high, low)) as u32]
        }
    }
}
