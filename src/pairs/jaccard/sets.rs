//! The sets: one of layer digests per image, and the distinct ones among them.

use crate::corpus::Table;
use rayon::prelude::*;
use roaring::RoaringBitmap;
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};

/// The sets of N images over numbered items (layer digests).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageSets {
    /// Item ids of each image.
    pub sets: Vec<RoaringBitmap>,
    /// A digest of each set: equal sets have equal ones.
    digests: Vec<u64>,
    /// What sharing the item saves, in bytes; of no account where the item is empty.
    pub item_bytes: Vec<u64>,
    /// Items without content (empty layers).
    pub item_empty: Vec<bool>,
}

impl ImageSets {
    /// An empty list over these items.
    pub fn new(item_bytes: Vec<u64>, item_empty: Vec<bool>) -> Self {
        assert_eq!(item_bytes.len(), item_empty.len(), "one size and one mark per item");
        Self { sets: Vec::new(), digests: Vec::new(), item_bytes, item_empty }
    }

    /// Appends a set; items may come in any order and repeat.
    ///
    /// # Panics
    /// If an item id is not below the number of items.
    pub fn push(&mut self, items: impl IntoIterator<Item = u32>) {
        let (set, digest) = set_of(&mut items.into_iter().collect());
        assert!(set.max().is_none_or(|i| (i as usize) < self.item_bytes.len()), "an unknown item");
        self.sets.push(set);
        self.digests.push(digest);
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
        let build = |items: &mut Vec<u32>, i| {
            items.clear();
            items.extend_from_slice(&table.digest[table.rows_of(i)]);
            set_of(items)
        };
        let (sets, digests) = (0..table.images.len()).into_par_iter().map_init(Vec::new, build).collect();
        Self { sets, digests, ..Self::new(bytes, empty) }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// True if there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same sets without the empty items.
    pub fn without_empty(&self) -> Self {
        let kept = |set: &RoaringBitmap| {
            set_of(&mut set.iter().filter(|item| !self.item_empty[*item as usize]).collect())
        };
        let (sets, digests) = self.sets.par_iter().map(kept).collect();
        Self { sets, digests, ..Self::new(self.item_bytes.clone(), self.item_empty.clone()) }
    }
}

/// The set of some items, which are left sorted and without repeats, and its digest.
fn set_of(items: &mut Vec<u32>) -> (RoaringBitmap, u64) {
    items.sort_unstable();
    items.dedup();
    let mut hasher = FxHasher::default();
    items.iter().for_each(|item| hasher.write_u32(*item));
    (ascending(items), hasher.finish())
}

/// A set from its ascending items, in no more memory than it takes: what it was built in has room to
/// grow, several times the size of most sets.
///
/// # Panics
/// If they do not ascend.
pub(super) fn ascending(items: &[u32]) -> RoaringBitmap {
    RoaringBitmap::from_sorted_iter(items.iter().copied()).expect("they ascend").clone()
}

/// A set that is hashed by its digest and compared whole.
struct Hashed<'a>(u64, &'a RoaringBitmap);

impl Hash for Hashed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl PartialEq for Hashed<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 && self.1 == other.1
    }
}

impl Eq for Hashed<'_> {}

/// The distinct sets of [`ImageSets`], in order of first occurrence, and who has them.
///
/// Equal sets have equal scores with everything else, so only distinct ones are compared and
/// results are weighed by multiplicity.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collapsed {
    /// Number of images that have each of the n distinct sets.
    pub multiplicity: Vec<u64>,
    /// First image that has each; the distinct set is that of this image.
    pub representative: Vec<u32>,
    /// The distinct set of each of the N images.
    pub group: Vec<u32>,
}

impl Collapsed {
    /// Collapses equal sets.
    pub fn of(images: &ImageSets) -> Self {
        let mut collapsed = Self::default();
        let mut seen: FxHashMap<Hashed<'_>, u32> = FxHashMap::default();
        for (i, (set, digest)) in (0u32..).zip(images.sets.iter().zip(&images.digests)) {
            let group = *seen.entry(Hashed(*digest, set)).or_insert_with(|| {
                collapsed.multiplicity.push(0);
                collapsed.representative.push(i);
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
            let distinct = |g: usize| &images.sets[collapsed.representative[g] as usize];
            for (i, set) in sets.iter().enumerate() {
                let expected: BTreeSet<u32> = set.iter().copied().collect();
                let g = collapsed.group[i] as usize;
                prop_assert!(distinct(g).iter().eq(expected));
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
