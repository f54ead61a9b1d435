//! What kernels fill: scores of a micro-tile, cells waiting to be counted, counts.

use super::super::bins::Count;
use super::Cpu;
use super::cells::Cells;
use super::pack::{MOST_COLUMNS, MOST_ROWS, PAIRS};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

/// Scores in a vector of the widest kernel; masks have a bit for each.
pub const VECTOR: usize = 16;
/// Vectors in a micro-tile.
pub const VECTORS: usize = PAIRS / VECTOR;

/// The scores of a micro-tile, row by row.
#[repr(align(64))]
pub struct Scores(pub [f32; PAIRS]);

/// Cells of a micro-tile that are not counted yet. A kernel may count them between its
/// multiplications, where units for that are idle.
#[repr(align(64))]
pub struct Pending {
    /// Cell of each pair; [`Cells::none`] for those that do not count. To be counted, they are in the
    /// table of the pair's column ([`Tally::sort`]).
    pub cells: [u16; PAIRS],
    /// Which of the strip's micro-tiles this is.
    pub q: usize,
    /// First row i and first row j of the micro-tile.
    pub at: [u32; 2],
    /// Rows j of the micro-tile.
    pub columns: usize,
}

/// One bit for each score, 16 to a word.
#[derive(Default)]
pub struct Masks {
    /// Too near to a threshold: no cell.
    pub doubt: [u16; VECTORS],
    /// At or beyond a limit of [`Verdict`].
    pub wanted: [u16; VECTORS],
}

/// What decides about the scores of a micro-tile besides the cells.
pub struct Verdict<'a> {
    /// Bit mask of the scores that are pairs; `None` if all are.
    pub valid: Option<&'a [u16; VECTORS]>,
    /// Any score is wanted from here on ...
    pub from: f32,
    /// ... and down from here,
    pub below: f32,
    /// and, where pairs have limits of their own, from here on for its row i ...
    pub row_from: Option<&'a [f32; MOST_ROWS]>,
    /// ... or from here on for its row j; at most `from`.
    pub column_from: &'a [f32; MOST_COLUMNS],
    /// Where pairs have error bounds of their own: those are the products of this for the row i ...
    pub row_reach: &'a [f32; MOST_ROWS],
    /// ... and of this for the row j.
    pub column_reach: &'a [f32; MOST_COLUMNS],
}

impl Verdict<'_> {
    /// From where on a score is wanted for the micro-tile's row `r`.
    #[inline]
    pub fn from_of_row(&self, r: usize) -> f32 {
        self.row_from.map_or(f32::INFINITY, |from| from[r])
    }
}

/// Room for the places of scores in a micro-tile, and for one vector more.
pub struct Places([u16; PAIRS + VECTOR]);

impl Default for Places {
    fn default() -> Self {
        Self([0; PAIRS + VECTOR])
    }
}

impl Default for Scores {
    fn default() -> Self {
        Self([0.0; PAIRS])
    }
}

impl Masks {
    /// The places of all scores that have a bit in either mask, ascending; `into` is room for them.
    #[inline]
    pub fn places<'p>(&self, cpu: Cpu, into: &'p mut Places) -> &'p [u16] {
        let count = match cpu {
            // SAFETY: `Cpu::all` lists these kernels only where the CPU has AVX-512.
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512Int16 | Cpu::Avx512 => unsafe { self.places_avx512(&mut into.0) },
            _ => self.places_anywhere(&mut into.0),
        };
        &into.0[..count]
    }

    /// # Safety
    /// The CPU has AVX-512 F and VL (and POPCNT, as all that have those).
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,popcnt")]
    unsafe fn places_avx512(&self, into: &mut [u16; PAIRS + VECTOR]) -> usize {
        use std::arch::x86_64::*;
        let mut places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let mut count = 0;
        for (doubt, wanted) in self.doubt.iter().zip(self.wanted) {
            let either = doubt | wanted;
            let here = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(either, places));
            // SAFETY: at most PAIRS come before, and there is room for one vector more.
            unsafe { _mm256_storeu_si256(into.as_mut_ptr().add(count).cast(), here) };
            count += either.count_ones() as usize;
            places = _mm512_add_epi32(places, _mm512_set1_epi32(VECTOR as i32));
        }
        count
    }

    fn places_anywhere(&self, into: &mut [u16; PAIRS + VECTOR]) -> usize {
        let mut count = 0;
        // As many as a word has room for: most micro-tiles have few bits or none.
        for (w, (doubt, wanted)) in
            self.doubt.as_chunks::<4>().0.iter().zip(self.wanted.as_chunks::<4>().0).enumerate()
        {
            let word = |four: &[u16; 4]| u64::from_le(bytemuck::cast(four.map(u16::to_le)));
            let mut bits = word(doubt) | word(wanted);
            while bits != 0 {
                into[count] = (w * 4 * VECTOR) as u16 + bits.trailing_zeros() as u16;
                count += 1;
                bits &= bits - 1;
            }
        }
        count
    }
}

impl Pending {
    /// Nothing to count.
    pub fn new(cells: &Cells, columns: usize) -> Self {
        Self { cells: [cells.none(); PAIRS], q: 0, at: [0; 2], columns }
    }
}

/// Weights of the rows.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Of each row, below 2^32, padded with [`MOST_COLUMNS`] zero rows.
    pub each: &'a [Count],
    /// Rows with equal weights.
    pub classes: &'a Classes,
}

/// Rows by their weights, of which documents have few different ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Classes {
    /// The class of each row, padded as weights are ...
    of: Vec<u32>,
    /// ... and the weights of each class.
    weights: Vec<Count>,
}

impl Classes {
    /// Of all these rows.
    pub fn of(weights: &[Count]) -> Self {
        let mut numbers: HashMap<Count, u32> = HashMap::new();
        let mut classes = Self::default();
        for weight in weights {
            let number = *numbers.entry(*weight).or_insert_with(|| {
                classes.weights.push(*weight);
                classes.weights.len() as u32 - 1
            });
            classes.of.push(number);
        }
        classes
    }
}

/// Tables that a kernel counts in, in turns, so that equal cells that follow each other do not wait for
/// each other.
pub const TABLES: usize = 4;

/// Memory for tables, in bytes, but for those of more than 10,000 cells: they should stay in a second-level
/// cache, and the few that have most pairs in the first.
pub const MEMORY: usize = 384 << 10;

/// Most classes of rows i that get tables.
const MOST_CLASSES: usize = 64;

/// Counts of a strip of rows i and all rows j of a tile, by cell.
///
/// With weights there is a table for each class of rows i in the strip and each of the commonest classes of
/// rows j, and what is in it is weighed when the tables are emptied. The pairs of other rows are weighed one
/// by one.
pub struct Tally<'a> {
    weights: Option<Weights<'a>>,
    /// Classes of rows i, and of rows j, with tables of their own.
    classes: [Vec<u32>; 2],
    /// Length of one table.
    stride: usize,
    /// The tables: for each class of row i [`TABLES`] times those for each class of row j. Rows without
    /// tables share one that nobody reads.
    tables: Vec<u32>,
    /// Words from a table of a class of row i to its next.
    apart: usize,
    /// Pairs of rows without tables.
    others: Vec<Count>,
    /// Where the tables of the strip's rows begin, for each of its micro-tiles ...
    rows: Vec<[u32; MOST_ROWS]>,
    /// ... and which have none, a bit for each.
    rare_rows: Vec<u64>,
    /// Where the tables of each class of row j begin in those, as far as it has any.
    begins: Vec<Option<u16>>,
    /// The same for the rows of the panel ...
    columns: [u16; MOST_COLUMNS],
    /// ... and which have none.
    rare_columns: u64,
}

/// Where a kernel counts a micro-tile.
#[derive(Clone, Copy)]
pub struct Tables<'t> {
    /// The first word of all.
    pub first: *mut u32,
    /// See [`Tally`].
    pub apart: usize,
    /// Where those of each row i begin.
    pub rows: &'t [u32; MOST_ROWS],
}

impl<'a> Tally<'a> {
    /// Nothing counted, for a strip of rows i in micro-tiles of `together`, and rows j. Without weights pairs
    /// count once.
    pub fn new(
        cells: &Cells,
        weights: Option<Weights<'a>>,
        strip: Range<u32>,
        together: usize,
        columns: Range<u32>,
    ) -> Self {
        // Rounding at the upper end can give one cell more than there are.
        let stride = (cells.bins.len() + 2).next_multiple_of(8);
        let class = |row: u32| weights.map_or(0, |w| w.classes.of[row as usize]);
        let all = weights.map_or(1, |w| w.classes.weights.len());
        let room = (MEMORY / (TABLES * stride * size_of::<u32>())).max(2);
        let of_rows = commonest(strip.clone().map(class), all, MOST_CLASSES.min(room / 2));
        // Cells are 16 bits wide, also those of the last table; without weights nobody asks for another.
        let most = (room / (of_rows.len() + 1)).min((1 << 16) / stride).saturating_sub(1);
        let of_columns = commonest(columns.map(class), all, if weights.is_some() { most } else { 1 });
        let apart = (of_columns.len() + 1) * stride;
        let mut begins = vec![None; all];
        for (at, class) in of_columns.iter().enumerate() {
            begins[*class as usize] = Some((at * stride) as u16);
        }
        let (mut rows, mut rare_rows) = (Vec::new(), Vec::new());
        for first in strip.clone().step_by(together) {
            let (mut begin, mut rare) = ([0; MOST_ROWS], 0);
            for (r, i) in (first..strip.end).take(together).enumerate() {
                let at = of_rows.iter().position(|c| *c == class(i));
                begin[r] = (at.unwrap_or(of_rows.len()) * TABLES * apart) as u32;
                rare |= u64::from(at.is_none()) << r;
            }
            rows.push(begin);
            rare_rows.push(rare);
        }
        Self {
            weights,
            stride,
            tables: vec![0; (of_rows.len() + 1) * TABLES * apart],
            apart,
            others: vec![[0; 4]; stride],
            rows,
            rare_rows,
            begins,
            columns: [0; MOST_COLUMNS],
            rare_columns: 0,
            classes: [of_rows, of_columns],
        }
    }

    /// Goes to a panel of rows j.
    pub fn panel(&mut self, columns: Range<u32>) {
        let Some(weights) = self.weights else { return };
        self.rare_columns = 0;
        for (c, j) in columns.enumerate() {
            let begin = self.begins[weights.classes.of[j as usize] as usize];
            self.columns[c] = begin.unwrap_or((self.apart - self.stride) as u16);
            self.rare_columns |= u64::from(begin.is_none()) << c;
        }
    }

    /// Moves the cells of a micro-tile of this panel to the tables of its rows j, and counts the pairs of
    /// rows without tables.
    #[inline]
    pub fn sort(&mut self, pending: &mut Pending) {
        let Some(weights) = self.weights else { return };
        #[cfg(target_arch = "x86_64")]
        if super::Cpu::best().has_avx2() {
            // SAFETY: `has_avx2` says so.
            return unsafe { self.sort_avx2(weights, pending) };
        }
        self.sort_anywhere(weights, pending);
    }

    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn sort_avx2(&mut self, weights: Weights<'_>, pending: &mut Pending) {
        self.sort_anywhere(weights, pending);
    }

    #[inline(always)]
    fn sort_anywhere(&mut self, weights: Weights<'_>, pending: &mut Pending) {
        let (wide, rare) = (pending.columns, self.rare_rows[pending.q]);
        let [first_i, first_j] = pending.at.map(|at| at as usize);
        let rows = &weights.each[first_i..first_i + PAIRS / wide];
        let columns = &weights.each[first_j..first_j + wide];
        for c in bits(self.rare_columns) {
            for (r, (row, cells)) in rows.iter().zip(pending.cells.chunks_exact(wide)).enumerate() {
                if rare >> r & 1 == 0 {
                    add_product(&mut self.others[usize::from(cells[c])], row, &columns[c]);
                }
            }
        }
        for r in bits(rare) {
            for (column, cell) in columns.iter().zip(&pending.cells[r * wide..]) {
                add_product(&mut self.others[usize::from(*cell)], &rows[r], column);
            }
        }
        // By a number that the compiler knows, so that a row takes one instruction or three.
        let begins = self.columns.as_chunks::<VECTOR>().0;
        for (v, cells) in pending.cells.as_chunks_mut::<VECTOR>().0.iter_mut().enumerate() {
            let begins = &begins[v % (wide / VECTOR)];
            cells.iter_mut().zip(begins).for_each(|(cell, begin)| *cell += begin);
        }
    }

    /// Where a micro-tile is counted.
    #[inline]
    pub fn tables(&mut self, pending: Option<&Pending>) -> Tables<'_> {
        const NO_ROWS: &[u32; MOST_ROWS] = &[0; MOST_ROWS];
        let rows = pending.map_or(NO_ROWS, |pending| &self.rows[pending.q]);
        Tables { first: self.tables.as_mut_ptr(), apart: self.apart, rows }
    }

    /// Counts a micro-tile from its `from`-th pair on.
    pub fn count(&mut self, pending: &Pending, from: usize) {
        let rows = &self.rows[pending.q];
        for (p, cell) in pending.cells.iter().enumerate().skip(from) {
            let table = rows[p / pending.columns] as usize + p % TABLES * self.apart;
            self.tables[table + usize::from(*cell)] += 1;
        }
    }

    /// Adds all counts to their bins; there may be up to 2^32 pairs.
    pub fn drain(self, cells: &Cells, into: &mut [Count]) {
        let [of_rows, of_columns] = &self.classes;
        for (i, tables) in of_rows.iter().zip(self.tables.chunks_exact(TABLES * self.apart)) {
            for (j, first) in of_columns.iter().zip((0..).step_by(self.stride)) {
                let weight = self.weights.map_or([1; 4], |w| {
                    let [i, j] = [i, j].map(|class| w.classes.weights[*class as usize]);
                    std::array::from_fn(|way| i[way] * j[way])
                });
                for (cell, bin) in cells.bins.iter().enumerate() {
                    let pairs = tables.chunks_exact(self.apart).map(|table| u64::from(table[first + cell]));
                    let pairs: u64 = pairs.sum();
                    if pairs > 0 {
                        let counts = into[usize::from(*bin)].iter_mut().zip(weight);
                        counts.for_each(|(c, weight)| *c = c.wrapping_add(pairs.wrapping_mul(weight)));
                    }
                }
            }
        }
        for (other, bin) in self.others.iter().zip(&cells.bins) {
            let counts = into[usize::from(*bin)].iter_mut().zip(other);
            counts.for_each(|(c, more)| *c = c.wrapping_add(*more));
        }
    }
}

/// The `most` numbers below `all` that come most often, the commonest first.
fn commonest(numbers: impl Iterator<Item = u32>, all: usize, most: usize) -> Vec<u32> {
    let mut counts = vec![0u32; all];
    numbers.for_each(|n| counts[n as usize] += 1);
    let mut there: Vec<u32> = (0..all as u32).filter(|n| counts[*n as usize] > 0).collect();
    there.sort_unstable_by_key(|n| (Reverse(counts[*n as usize]), *n));
    there.truncate(most);
    there
}

/// The places of the bits of a mask.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(bit)
    })
}

#[inline(always)]
fn add_product(sums: &mut Count, i: &Count, j: &Count) {
    // Weights are below 2^32, so the product of the low halves is the whole.
    const LOW: u64 = u32::MAX as u64;
    for ((sum, i), j) in sums.iter_mut().zip(i).zip(j) {
        *sum = sum.wrapping_add((i & LOW) * (j & LOW));
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::Judge;
    use super::super::pack::Shape;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_are_those_of_the_bits(doubt: [u16; VECTORS], wanted: [u16; VECTORS]) {
            let masks = Masks { doubt, wanted };
            let expected: Vec<u16> = (0..PAIRS as u16)
                .filter(|p| (doubt[usize::from(*p) / 16] | wanted[usize::from(*p) / 16]) >> (p % 16) & 1 != 0)
                .collect();
            for cpu in Cpu::all() {
                let mut places = Places::default();
                prop_assert_eq!(masks.places(cpu, &mut places), &expected[..]);
            }
        }

        /// Every pair of a strip and a panel is counted once, by its weights, whichever rows have tables.
        #[test]
        fn pairs_count_by_their_weights(
            wide: bool,
            cells in prop_oneof![1usize..40, Just(200), Just(4000), Just(40_000), Just(65_530)],
            different in prop_oneof![Just(0u64), 1u64..300],
            first in 0u32..50,
            height in 1u32..200,
            width in 1u32..49,
            salt: u64,
        ) {
            let shape = if wide { Shape::WIDE } else { Shape::TALL };
            let (strip, width) = (first..first + height, width.min(shape.columns as u32));
            let columns = strip.end..strip.end + 60;
            let random = |a: u32, b: u32| {
                (u64::from(a) << 32 | u64::from(b)).wrapping_mul(salt | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
            };
            let weight = |i| std::array::from_fn(|way| random(way as u32, i) % different.max(1) * (1 << 20));
            let mut each: Vec<Count> = (0..columns.end).map(weight).collect();
            each.resize(each.len() + MOST_COLUMNS, [0; 4]);
            let classes = Classes::of(&each);
            let weights = (different > 0).then_some(Weights { each: &each, classes: &classes });
            let judge = Judge::List { boundaries: Vec::new(), margin: 0.0 };
            let cells = Cells { judge, bins: (0..cells as u16).map(|cell| cell / 2).collect() };
            let mut tally = Tally::new(&cells, weights, strip.clone(), shape.rows, columns.clone());
            let mut expected = vec![[0u64; 4]; cells.bins.len()];
            for j in columns.clone().step_by(width as usize) {
                let panel = j..(j + width).min(columns.end);
                tally.panel(panel.clone());
                for (q, i) in strip.clone().step_by(shape.rows).enumerate() {
                    let mut pending = Pending::new(&cells, shape.columns);
                    (pending.q, pending.at) = (q, [i, j]);
                    for (p, cell) in pending.cells.iter_mut().enumerate() {
                        let [i, j] = [i + (p / shape.columns) as u32, j + (p % shape.columns) as u32];
                        if i < strip.end && j < panel.end && random(i, j) % 9 != 0 {
                            *cell = (random(j, i) % cells.bins.len() as u64) as u16;
                            let [i, j] = [i, j].map(|i| weights.map_or([1; 4], |w| w.each[i as usize]));
                            let counts = expected[usize::from(cells.bins[usize::from(*cell)])].iter_mut();
                            counts.zip(i.iter().zip(j)).for_each(|(c, (i, j))| *c = c.wrapping_add(i * j));
                        }
                    }
                    tally.sort(&mut pending);
                    tally.count(&pending, 0);
                }
            }
            let mut found = vec![[0; 4]; cells.bins.len()];
            tally.drain(&cells, &mut found);
            prop_assert_eq!(found, expected);
        }
    }
}
