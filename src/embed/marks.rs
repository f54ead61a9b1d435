//! Which rows of a model were touched.

use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of a block: those that one word of bits stands for.
pub const BLOCK: usize = u64::BITS as usize;

/// One bit for each row. Several threads may mark at the same time.
///
/// A list of rows would be shorter where few are touched, but wants sorting before it can be dealt
/// out to threads; a model of 100,000 words is 25 kB of bits.
#[derive(Debug, Default)]
pub struct Marks(Vec<AtomicU64>);

impl Marks {
    /// So many rows, none of them touched.
    pub fn new(rows: usize) -> Self {
        Self((0..rows.div_ceil(BLOCK)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Marks a row.
    #[inline(always)]
    pub fn mark(&self, row: usize) {
        let (word, bit) = (&self.0[row / BLOCK], 1 << (row % BLOCK));
        // Nearly all rows are marked already: no locked instruction for these.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Takes the bits out and leaves none.
    pub fn take(&mut self) -> Vec<u64> {
        self.0.iter_mut().map(|word| std::mem::take(word.get_mut())).collect()
    }
}

/// The rows of a block whose bits are set, in rising order, from 0.
pub fn rows_of(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let row = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        row
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_marked_comes_out_once() {
        let mut marks = Marks::new(130);
        [129, 0, 64, 63, 64, 129].into_iter().for_each(|row| marks.mark(row));
        let bits = marks.take();
        let rows: Vec<usize> = bits
            .iter()
            .enumerate()
            .flat_map(|(i, bits)| rows_of(*bits).map(move |row| i * BLOCK + row))
            .collect();
        assert_eq!(rows, [0, 63, 64, 129]);
        assert_eq!(marks.take(), [0; 3]);
    }
}
