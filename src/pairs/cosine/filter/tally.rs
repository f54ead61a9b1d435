//! What kernels fill: scores of a micro-tile, cells waiting to be counted, counts.

use super::super::bins::Count;
use super::cells::Cells;
use super::pack::{MOST_COLUMNS, MOST_ROWS, PAIRS};

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
    /// Cell of each pair; [`Cells::none`] for those that do not count.
    pub cells: [u16; PAIRS],
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
    /// A score is wanted from here on: for its row i ...
    pub row_from: [f32; MOST_ROWS],
    /// ... or for its row j.
    pub column_from: &'a [f32; MOST_COLUMNS],
    /// Or down from here.
    pub below: f32,
    /// Where pairs have error bounds of their own: those are the products of this for the row i ...
    pub row_reach: [f32; MOST_ROWS],
    /// ... and of this for the row j.
    pub column_reach: &'a [f32; MOST_COLUMNS],
}

impl Default for Scores {
    fn default() -> Self {
        Self([0.0; PAIRS])
    }
}

impl Masks {
    /// Writes the places of all scores that have a bit in either mask, ascending; gives their number.
    pub fn places(&self, into: &mut [u16; PAIRS]) -> usize {
        let mut count = 0;
        // As many as a word has room for: most micro-tiles have few bits or none.
        for first in (0..VECTORS).step_by(4) {
            let mut bits = 0;
            for v in (first..first + 4).rev() {
                bits = bits << VECTOR | u64::from(self.doubt[v] | self.wanted[v]);
            }
            while bits != 0 {
                into[count] = (first * VECTOR) as u16 + bits.trailing_zeros() as u16;
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
        Self { cells: [cells.none(); PAIRS], at: [0; 2], columns }
    }
}

/// Tables that a kernel counts in, in turns.
pub const TABLES: usize = 4;

/// Weighted tables of more cells are not held apart: together they would fill a first-level cache.
const MOST_APART: usize = 256;

/// Counts by cell.
pub struct Tally<'a> {
    /// Weights of each row, padded by [`MOST_COLUMNS`] rows; without them pairs count once.
    pub weights: Option<&'a [Count]>,
    /// Without weights: [`TABLES`], one after the other, so that equal cells that follow each other do
    /// not wait for each other.
    pub plain: Vec<u32>,
    /// Length of one of the tables.
    pub stride: usize,
    /// With weights, in the same way ...
    pub weighted: Vec<Count>,
    /// ... and so far apart; 0 if the tables are one, because four would be too large.
    pub apart: usize,
}

impl<'a> Tally<'a> {
    /// Nothing counted.
    pub fn new(cells: &Cells, weights: Option<&'a [Count]>) -> Self {
        // Rounding at the upper end can give one cell more than there are.
        let stride = (cells.bins.len() + 2).next_multiple_of(16);
        let apart = if stride <= MOST_APART { stride } else { 0 };
        let (plain, weighted) = match weights {
            None => (TABLES * stride, 0),
            Some(_) => (0, stride + (TABLES - 1) * apart),
        };
        Self { weights, plain: vec![0; plain], stride, weighted: vec![[0; 4]; weighted], apart }
    }

    /// Counts a micro-tile from its `from`-th pair on.
    pub fn count(&mut self, pending: &Pending, from: usize) {
        match self.weights {
            None => {
                for cell in &pending.cells[from..] {
                    self.plain[usize::from(*cell)] += 1;
                }
            }
            Some(weights) => {
                for (p, cell) in pending.cells.iter().enumerate().skip(from) {
                    let i = &weights[pending.at[0] as usize + p / pending.columns];
                    let j = &weights[pending.at[1] as usize + p % pending.columns];
                    let sums = &mut self.weighted[usize::from(*cell)];
                    add_product(sums, i, j);
                }
            }
        }
    }

    /// Moves all counts to their bins. To be called before 2^32 pairs are counted.
    pub fn drain(&mut self, cells: &Cells, into: &mut [Count]) {
        for (cell, bin) in cells.bins.iter().enumerate() {
            let counts = &mut into[usize::from(*bin)];
            if self.weights.is_some() {
                for table in 0..if self.apart > 0 { TABLES } else { 1 } {
                    let more = self.weighted[table * self.apart + cell];
                    counts.iter_mut().zip(more).for_each(|(c, more)| *c = c.wrapping_add(more));
                }
            } else {
                let tables = self.plain.chunks_exact(self.stride);
                let pairs: u64 = tables.map(|table| u64::from(table[cell])).sum();
                counts.iter_mut().for_each(|c| *c += pairs);
            }
        }
        self.plain.fill(0);
        self.weighted.fill([0; 4]);
    }
}

fn add_product(sums: &mut Count, i: &Count, j: &Count) {
    for ((sum, i), j) in sums.iter_mut().zip(i).zip(j) {
        *sum = sum.wrapping_add(i * j);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_are_those_of_the_bits(doubt: [u16; VECTORS], wanted: [u16; VECTORS]) {
            let masks = Masks { doubt, wanted };
            let mut places = [0; PAIRS];
            let count = masks.places(&mut places);
            let expected: Vec<u16> = (0..PAIRS as u16)
                .filter(|p| (doubt[usize::from(*p) / 16] | wanted[usize::from(*p) / 16]) >> (p % 16) & 1 != 0)
                .collect();
            prop_assert_eq!(&places[..count], &expected[..]);
        }
    }
}
