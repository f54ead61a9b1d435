//! Exact counts: pairs by (shared items, items in the union), and by bytes shared.
//!
//! A Jaccard score is the fraction shared / union of two small integers. Counting pairs by these
//! two numbers keeps everything that histogram, mean, deviation and sharing need, as integers that
//! add up in any order to the same bits; scores become floating point only once, at the end.

use rustc_hash::FxHashMap;

/// Pairs of distinct sets, and the same weighed by multiplicity (pairs of images).
///
/// Tallies of tiles hold differences to what the classes predict, so a count may be negative
/// there; wrapping arithmetic makes the final sums exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// Pairs by (shared, union). Small sets use a flat array, large ones a map.
#[derive(Debug, Clone)]
pub struct PairTally {
    largest: u32,
    flat: Vec<Count>,
    map: FxHashMap<(u32, u32), Count>,
}

/// Sets up to this size are counted in a flat array (at most 2.6 MB).
const FLAT_LARGEST: u32 = 256;

impl PairTally {
    /// An empty tally for sets of at most `largest` items.
    pub fn new(largest: u32) -> Self {
        let flat = if largest <= FLAT_LARGEST { (largest + 1) * (2 * largest + 1) } else { 0 };
        Self { largest, flat: vec![Count::default(); flat as usize], map: FxHashMap::default() }
    }

    /// The count of pairs that share `shared` of `union` items.
    #[inline]
    pub fn at(&mut self, shared: u32, union: u32) -> &mut Count {
        if self.flat.is_empty() {
            self.map.entry((shared, union)).or_default()
        } else {
            &mut self.flat[(shared * (2 * self.largest + 1) + union) as usize]
        }
    }

    /// All counts that are not zero as `(shared, union, count)`, ascending.
    pub fn cells(&self) -> Vec<(u32, u32, Count)> {
        let width = 2 * self.largest + 1;
        let flat = (0u32..).zip(&self.flat).map(|(i, count)| (i / width, i % width, *count));
        let map = self.map.iter().map(|((shared, union), count)| (*shared, *union, *count));
        let mut cells: Vec<_> = flat.chain(map).filter(|(_, _, c)| !c.is_zero()).collect();
        cells.sort_unstable_by_key(|(shared, union, _)| (*shared, *union));
        cells
    }
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

    /// Takes away pairs that share `bytes` each.
    #[inline]
    pub fn subtract(&mut self, bytes: u64, pairs: Count) {
        self.bins[Self::bin(bytes)].subtract(pairs);
        let product = |pairs: u64| u128::from(bytes).wrapping_mul(u128::from(pairs));
        self.distinct_bytes = self.distinct_bytes.wrapping_sub(product(pairs.distinct));
        self.image_bytes = self.image_bytes.wrapping_sub(product(pairs.images));
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

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.all, &other.all), (&mut self.full, &other.full)] {
            for (shared, union, count) in theirs.cells() {
                mine.at(shared, union).add(count);
            }
        }
        self.bytes.merge(&other.bytes);
    }
}
