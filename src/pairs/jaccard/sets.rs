//! The sets: one of layer digests per image, and the distinct ones among them.

use crate::corpus::Table;
use rustc_hash::FxHashMap;

/// The sets of N images over numbered items (layer digests).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageSets {
    /// CSR offsets into `items`, N + 1.
    pub offsets: Vec<u64>,
    /// Item ids, ascending and without repeats within a set.
    pub items: Vec<u32>,
    /// What sharing the item saves, in bytes; of no account where the item is empty.
    pub item_bytes: Vec<u64>,
    /// Items without content (empty layers).
    pub item_empty: Vec<bool>,
}

impl ImageSets {
    /// An empty list over these items.
    pub fn new(item_bytes: Vec<u64>, item_empty: Vec<bool>) -> Self {
        assert_eq!(item_bytes.len(), item_empty.len(), "one size and one mark per item");
        Self { offsets: vec![0], items: Vec::new(), item_bytes, item_empty }
    }

    /// Appends a set; items may come in any order and repeat.
    ///
    /// # Panics
    /// If an item id is not below the number of items.
    pub fn push(&mut self, items: impl IntoIterator<Item = u32>) {
        let start = self.items.len();
        self.items.extend(items);
        let set = &mut self.items[start..];
        set.sort_unstable();
        assert!(set.last().is_none_or(|i| (*i as usize) < self.item_bytes.len()), "an unknown item");
        let mut kept = start;
        for i in start..self.items.len() {
            if i == start || self.items[i] != self.items[kept - 1] {
                self.items[kept] = self.items[i];
                kept += 1;
            }
        }
        self.items.truncate(kept);
        self.offsets.push(kept as u64);
    }

    /// The layer-digest sets of a table's images; items are its digest ids. A digest that is given
    /// with several sizes counts with the largest.
    pub fn of_table(table: &Table<'_>) -> Self {
        let mut bytes = vec![0u64; table.digests.len()];
        for (digest, size) in table.digest.iter().zip(&table.size) {
            let largest = &mut bytes[*digest as usize];
            *largest = (*largest).max(*size);
        }
        let empty = table.digest_empty.iter().map(|e| *e != 0).collect();
        let mut sets = Self::new(bytes, empty);
        sets.items.reserve(table.digest.len());
        for i in 0..table.images.len() {
            sets.push(table.digest[table.rows_of(i)].iter().copied());
        }
        sets
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True if there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The set of image `i`, ascending.
    pub fn set(&self, i: usize) -> &[u32] {
        &self.items[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// The same sets without the empty items.
    pub fn without_empty(&self) -> Self {
        let mut cleaned = Self::new(self.item_bytes.clone(), self.item_empty.clone());
        for i in 0..self.len() {
            cleaned.push(self.set(i).iter().copied().filter(|item| !self.item_empty[*item as usize]));
        }
        cleaned
    }
}

/// The distinct sets of [`ImageSets`], in order of first occurrence, and who has them.
///
/// Equal sets have equal scores with everything else, so only distinct ones are compared and
/// results are weighed by multiplicity.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collapsed {
    /// Number of images that have each of the n distinct sets.
    pub multiplicity: Vec<u64>,
    /// First image that has each: its set is where the distinct one lies.
    pub representative: Vec<u32>,
    /// The distinct set of each of the N images.
    pub group: Vec<u32>,
}

impl Collapsed {
    /// Collapses equal sets.
    pub fn of(images: &ImageSets) -> Self {
        let mut collapsed = Self::default();
        let mut seen: FxHashMap<&[u32], u32> = FxHashMap::default();
        for i in 0..images.len() {
            let set = images.set(i);
            let group = *seen.entry(set).or_insert_with(|| {
                collapsed.multiplicity.push(0);
                collapsed.representative.push(i as u32);
                collapsed.multiplicity.len() as u32 - 1
            });
            collapsed.multiplicity[group as usize] += 1;
            collapsed.group.push(group);
        }
        collapsed
    }

    /// Number of distinct sets.
    pub fn len(&self) -> usize {
        self.multiplicity.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.multiplicity.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn collapsing_loses_nothing(sets in prop::collection::vec(prop::collection::vec(0u32..6, 0..5), 0..40)) {
            let mut images = ImageSets::new(vec![1; 6], vec![false; 6]);
            for set in &sets {
                images.push(set.iter().copied());
            }
            let collapsed = Collapsed::of(&images);
            prop_assert_eq!(collapsed.multiplicity.iter().sum::<u64>(), sets.len() as u64);
            let distinct = |g: usize| images.set(collapsed.representative[g] as usize);
            for (i, set) in sets.iter().enumerate() {
                let expected: BTreeSet<u32> = set.iter().copied().collect();
                let g = collapsed.group[i] as usize;
                prop_assert!(distinct(g).iter().eq(&expected));
                prop_assert!(collapsed.representative[g] as usize <= i);
            }
            for a in 0..collapsed.len() {
                for b in 0..a {
                    prop_assert_ne!(distinct(a), distinct(b));
                }
            }
        }
    }
}
