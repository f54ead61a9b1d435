//! Exact counts: pairs by (shared items, items in the union), and by bytes shared.
//!
//! A Jaccard score is the fraction shared / union of two small integers. Counting pairs by these
//! two numbers keeps everything that histogram, mean, deviation and sharing need, as integers that
//! add up in any order to the same bits; scores become floating point only once, at the end.

use bytemuck::{Pod, Zeroable};
use rustc_hash::FxHashMap;

/// Pairs of distinct sets, and the same weighed by multiplicity (pairs of images).
///
/// Tallies of tiles hold differences to what the classes predict, so a count may be negative
/// there; wrapping arithmetic makes the final sums exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Count {
    /// Pairs of distinct sets.
    pub distinct: u64,
    /// Pairs of images.
    pub images: u64,
}

impl Count {
    /// One pair of distinct sets that stands for `images` pairs of images.
    pub fn pair(images: u64) -> Self {
        Self { distinct: 1, images }
    }

    /// Adds, modulo 2^64.
    pub fn add(&mut self, other: Self) {
        self.distinct = self.distinct.wrapping_add(other.distinct);
        self.images = self.images.wrapping_add(other.images);
    }

    /// Takes away, modulo 2^64.
    pub fn subtract(&mut self, other: Self) {
        self.distinct = self.distinct.wrapping_sub(other.distinct);
        self.images = self.images.wrapping_sub(other.images);
    }

    /// True if nothing is counted.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// Pairs that share `shared` of `union` items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Cell {
    /// Items in both sets.
    pub shared: u32,
    /// Items in either set.
    pub union: u32,
    /// How many pairs.
    pub count: Count,
}

/// Pairs by (shared, union). Small sets use a flat array, large ones a map.
#[derive(Debug, Clone)]
pub struct PairTally {
    width: u32,
    flat: Vec<Count>,
    /// One bit for each element of `flat` that was counted in: a tile fills few of them, and
    /// emptying the tally must not cost more than filling it.
    used: Vec<u64>,
    map: FxHashMap<(u32, u32), Count>,
}

/// Sets up to this size are counted in a flat array (at most 2.1 MB).
const FLAT_LARGEST: u32 = 256;

impl PairTally {
    /// An empty tally for sets of at most `largest` items.
    pub fn new(largest: u32) -> Self {
        let width = largest.saturating_mul(2).saturating_add(1);
        let flat = if largest <= FLAT_LARGEST { ((largest + 1) * width) as usize } else { 0 };
        Self {
            width,
            flat: vec![Count::default(); flat],
            used: vec![0; flat.div_ceil(64)],
            map: FxHashMap::default(),
        }
    }

    /// The count of pairs that share `shared` of `union` items.
    #[inline]
    pub fn at(&mut self, shared: u32, union: u32) -> &mut Count {
        if self.flat.is_empty() {
            self.map.entry((shared, union)).or_default()
        } else {
            let i = (shared * self.width + union) as usize;
            self.used[i / 64] |= 1 << (i % 64);
            &mut self.flat[i]
        }
    }

    /// All counts that are not zero, ascending.
    pub fn cells(&self) -> Vec<Cell> {
        let flat = bits(&self.used).map(|i| {
            let (shared, union) = (i as u32 / self.width, i as u32 % self.width);
            Cell { shared, union, count: self.flat[i] }
        });
        let map = self.map.iter().map(|((shared, union), count)| (*shared, *union, *count));
        let map = map.map(|(shared, union, count)| Cell { shared, union, count });
        let mut cells: Vec<_> = flat.chain(map).filter(|cell| !cell.count.is_zero()).collect();
        cells.sort_unstable_by_key(|cell| (cell.shared, cell.union));
        cells
    }

    /// [`PairTally::cells`], leaving the tally empty.
    pub fn drain(&mut self) -> Vec<Cell> {
        let cells = self.cells();
        bits(&self.used).for_each(|i| self.flat[i] = Count::default());
        self.used.fill(0);
        self.map.clear();
        cells
    }

    /// Adds counts.
    pub fn add(&mut self, cells: &[Cell]) {
        for cell in cells {
            self.at(cell.shared, cell.union).add(cell.count);
        }
    }
}

/// Positions of the bits that are set, ascending.
fn bits(words: &[u64]) -> impl Iterator<Item = usize> {
    words.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(|(at, word)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(at * 64 + bit)
        })
    })
}

/// Pairs by bytes shared: bin 0 holds pairs that share no bytes, bin b >= 1 those that share
/// `2^(b-1) <= bytes < 2^b`; with the sum of all shared bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteTally {
    /// The counts of the 65 bins.
    pub bins: [Count; 65],
    /// Bytes shared, summed over pairs of distinct sets, modulo 2^128.
    pub distinct_bytes: u128,
    /// Bytes shared, summed over pairs of images, modulo 2^128.
    pub image_bytes: u128,
}

impl Default for ByteTally {
    fn default() -> Self {
        Self { bins: [Count::default(); 65], distinct_bytes: 0, image_bytes: 0 }
    }
}

impl ByteTally {
    fn bin(bytes: u64) -> usize {
        64 - bytes.leading_zeros() as usize
    }

    /// Counts pairs that share `bytes` each.
    #[inline]
    pub fn add(&mut self, bytes: u64, pairs: Count) {
        self.bins[Self::bin(bytes)].add(pairs);
        let product = |pairs: u64| u128::from(bytes).wrapping_mul(u128::from(pairs));
        self.distinct_bytes = self.distinct_bytes.wrapping_add(product(pairs.distinct));
        self.image_bytes = self.image_bytes.wrapping_add(product(pairs.images));
    }

    /// Pairs that were counted with `before` bytes share `more` than that.
    #[inline]
    pub fn raise(&mut self, before: u64, more: u64, pairs: Count) {
        self.bins[Self::bin(before + more)].add(pairs);
        self.bins[Self::bin(before)].subtract(pairs);
        let product = |pairs: u64| u128::from(more).wrapping_mul(u128::from(pairs));
        self.distinct_bytes = self.distinct_bytes.wrapping_add(product(pairs.distinct));
        self.image_bytes = self.image_bytes.wrapping_add(product(pairs.images));
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            mine.add(*theirs);
        }
        self.distinct_bytes = self.distinct_bytes.wrapping_add(other.distinct_bytes);
        self.image_bytes = self.image_bytes.wrapping_add(other.image_bytes);
    }
}

/// Everything that is counted over pairs.
#[derive(Debug, Clone)]
pub struct Tally {
    /// By shared items and union.
    pub all: PairTally,
    /// The same with the empty items taken out of the sets.
    pub full: PairTally,
    /// By bytes shared (empty items count nothing).
    pub bytes: ByteTally,
}

impl Tally {
    /// An empty tally for sets of at most `largest` items.
    pub fn new(largest: u32) -> Self {
        Self { all: PairTally::new(largest), full: PairTally::new(largest), bytes: ByteTally::default() }
    }

    /// Adds counts.
    pub fn add(&mut self, cells: &Cells) {
        self.all.add(&cells.all);
        self.full.add(&cells.full);
        self.bytes.merge(&cells.bytes);
    }

    /// What was counted, leaving the tally empty.
    pub fn drain(&mut self) -> Cells {
        let bytes = std::mem::take(&mut self.bytes);
        Cells { all: self.all.drain(), full: self.full.drain(), bytes }
    }
}

/// The counts of a [`Tally`] that are not zero, as a tile hands them on.
#[derive(Debug, Clone)]
pub struct Cells {
    /// By shared items and union.
    pub all: Vec<Cell>,
    /// The same with the empty items taken out of the sets.
    pub full: Vec<Cell>,
    /// By bytes shared.
    pub bytes: ByteTally,
}
