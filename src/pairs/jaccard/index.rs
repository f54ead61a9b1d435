//! The inverted index over distinct sets, with very common items taken out of it.
//!
//! An item that n sets have makes n^2 / 2 pairs overlap. For the few most common ones (the empty
//! layers above all) those pairs are not visited: every set carries a bit mask of the common items
//! it has, sets with the same mask and sizes form a [`Class`], and the score of a pair that shares
//! nothing else follows from the two classes. The choice of common items changes the cost, never
//! a result.

use super::sets::ascending;
use super::{Collapsed, ImageSets};
use rayon::prelude::*;
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;

/// At most this many items are common; a mask is 32 bits wide.
const MAX_COMMON: usize = 16;
/// In place of a posting's number.
const NO_POSTING: u32 = u32::MAX;
/// The work over pairs of classes stays below that of visiting some million pairs.
const MAX_CLASSES: usize = 2048;

/// Sets that are alike in all that the common items can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// Bit c is set where the sets have common item c.
    pub mask: u32,
    /// Number of items.
    pub size: u32,
    /// Number of items that are not empty.
    pub full_size: u32,
}

/// What the kernel reads. Indices j are those of the distinct sets of [`Collapsed`].
pub struct Index {
    /// Multiplicity of each set.
    pub weight: Vec<u64>,
    /// Class number of each set.
    pub class_of: Vec<u32>,
    /// Each set's [`Class`] itself.
    pub class_by_set: Vec<Class>,
    /// The classes.
    pub classes: Vec<Class>,
    /// Members of each class.
    pub members: Vec<RoaringBitmap>,
    /// CSR offsets of `visits`, n + 1.
    pub visit_offsets: Vec<u64>,
    /// For each set the postings that lead to others: its items that are not common and that
    /// another set has, too.
    pub visits: Vec<u32>,
    /// For each item that `visits` names the sets that have it.
    pub postings: Vec<RoaringBitmap>,
    /// Bytes that sharing the item saves (0 for empty ones), one per posting.
    pub posting_bytes: Vec<u64>,
    /// Whether the item is empty, one per posting.
    pub posting_empty: Vec<bool>,
    /// Bytes of each common item (0 for empty ones).
    pub common_bytes: Vec<u64>,
    /// Bits of the common items that are empty.
    pub common_empty: u32,
    /// The most items, empty items and bytes that any set has.
    pub largest: Largest,
}

/// Bounds over all sets, from which the width of the kernel's counters follows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Largest {
    /// Most items in a set.
    pub items: u64,
    /// Most empty items in a set.
    pub empty: u64,
    /// Most bytes in a set.
    pub bytes: u64,
}

/// How often an item must occur to be worth a bit of the mask.
#[derive(Debug, Clone, Copy)]
pub struct CommonRule {
    /// An item that fewer sets have is visited.
    pub at_least: u64,
}

impl Default for CommonRule {
    fn default() -> Self {
        // 2048 sets make two million pairs, about what a few hundred classes cost.
        Self { at_least: 2048 }
    }
}

impl Index {
    /// Builds the index. Cost: one pass over all items of all sets.
    pub fn build(images: &ImageSets, collapsed: &Collapsed, rule: CommonRule) -> Self {
        let (item_bytes, item_empty) = (&images.item_bytes, &images.item_empty);
        // The passes below read every item several times: the distinct sets are unpacked once for them.
        let unpacked = Unpacked::of(images, collapsed);
        let sets: Vec<&[u32]> = unpacked.sets().collect();
        let mut uses = vec![0u64; item_bytes.len()];
        for item in sets.iter().copied().flatten() {
            uses[*item as usize] += 1;
        }
        let mut common = most_common(&uses, rule);
        let mut classes = classify(&sets, item_empty, &common);
        while classes.0.len() > MAX_CLASSES && common.pop().is_some() {
            classes = classify(&sets, item_empty, &common);
        }
        let (classes, class_of) = classes;
        let mut members = vec![Vec::new(); classes.len()];
        for (j, class) in (0u32..).zip(&class_of) {
            members[*class as usize].push(j);
        }
        let members = members.par_iter().map(|members| ascending(members)).collect();
        let content = |item: u32| if item_empty[item as usize] { 0 } else { item_bytes[item as usize] };
        let mut index = Self {
            weight: collapsed.multiplicity.clone(),
            class_by_set: class_of.iter().map(|c| classes[*c as usize]).collect(),
            class_of,
            classes,
            members,
            visit_offsets: vec![0],
            visits: Vec::new(),
            postings: Vec::new(),
            posting_bytes: Vec::new(),
            posting_empty: Vec::new(),
            common_bytes: common.iter().map(|item| content(*item)).collect(),
            common_empty: (0..common.len())
                .filter(|c| item_empty[common[*c] as usize])
                .fold(0, |bits, c| bits | 1 << c),
            largest: Largest::default(),
        };
        // Items lead nowhere until they get a posting, common ones and those of one set never.
        let mut posting_of: Vec<u32> = vec![NO_POSTING; uses.len()];
        let mut posting_offsets = vec![0u64];
        for item in common {
            uses[item as usize] = 0;
        }
        for set in &sets {
            let (mut empty, mut bytes) = (0u64, 0u64);
            for &item in *set {
                empty += u64::from(item_empty[item as usize]);
                bytes = bytes.saturating_add(content(item));
                if uses[item as usize] < 2 {
                    continue;
                }
                let posting = &mut posting_of[item as usize];
                if *posting == NO_POSTING {
                    *posting = index.posting_bytes.len() as u32;
                    index.posting_bytes.push(content(item));
                    index.posting_empty.push(item_empty[item as usize]);
                    let end = posting_offsets.last().map_or(0, |end| end + uses[item as usize]);
                    posting_offsets.push(end);
                }
                index.visits.push(*posting);
            }
            index.visit_offsets.push(index.visits.len() as u64);
            let largest = &mut index.largest;
            largest.items = largest.items.max(set.len() as u64);
            largest.empty = largest.empty.max(empty);
            largest.bytes = largest.bytes.max(bytes);
        }
        index.postings = index.invert(&posting_offsets);
        index
    }

    /// The postings, from the visits; `offsets` says where each begins when they are listed one after
    /// the other. Sets come in ascending order, so that each list ascends.
    fn invert(&self, offsets: &[u64]) -> Vec<RoaringBitmap> {
        let mut next = offsets.to_vec();
        let mut listed = vec![0u32; self.visits.len()];
        for j in 0..self.len() {
            for p in self.visits_of(j) {
                let at = &mut next[*p as usize];
                listed[*at as usize] = j as u32;
                *at += 1;
            }
        }
        let posting = |ends: &[u64]| ascending(&listed[ends[0] as usize..ends[1] as usize]);
        offsets.par_windows(2).map(posting).collect()
    }

    /// Number of distinct sets.
    pub fn len(&self) -> usize {
        self.weight.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.weight.is_empty()
    }

    /// The postings that lead from set `i` to others.
    pub fn visits_of(&self, i: usize) -> &[u32] {
        &self.visits[self.visit_offsets[i] as usize..self.visit_offsets[i + 1] as usize]
    }

    /// Overlap through common items alone.
    #[inline]
    pub fn common_overlap(&self, a: u32, b: u32) -> CommonOverlap {
        let both = a & b;
        // Most pairs share none, and without an instruction for it counting bits takes a dozen.
        if both == 0 {
            return CommonOverlap { items: 0, empty: 0 };
        }
        CommonOverlap { items: both.count_ones(), empty: (both & self.common_empty).count_ones() }
    }

    /// Bytes that the common items in `both` save.
    pub fn common_bytes_of(&self, mut both: u32) -> u64 {
        let mut bytes = 0u64;
        both &= !self.common_empty;
        while both != 0 {
            bytes = bytes.saturating_add(self.common_bytes[both.trailing_zeros() as usize]);
            both &= both - 1;
        }
        bytes
    }

    /// Steps that visiting row `i` takes over all columns: the cost model of the plan.
    pub fn steps_of(&self, i: usize) -> u64 {
        self.visits_of(i).iter().map(|p| self.postings[*p as usize].len()).sum()
    }
}

/// The distinct sets as lists, one after the other.
struct Unpacked {
    ends: Vec<usize>,
    items: Vec<u32>,
}

impl Unpacked {
    fn of(images: &ImageSets, collapsed: &Collapsed) -> Self {
        let mut unpacked = Self { ends: vec![0], items: Vec::new() };
        for first in &collapsed.representative {
            let set = &images.sets[*first as usize];
            let start = unpacked.items.len();
            unpacked.items.resize(start + set.len() as usize, 0);
            let _all = set.iter().next_many(&mut unpacked.items[start..]);
            unpacked.ends.push(unpacked.items.len());
        }
        unpacked
    }

    fn sets(&self) -> impl Iterator<Item = &[u32]> {
        self.ends.windows(2).map(|ends| &self.items[ends[0]..ends[1]])
    }
}

/// Common items that two sets share.
#[derive(Debug, Clone, Copy)]
pub struct CommonOverlap {
    /// How many.
    pub items: u32,
    /// How many of them are empty.
    pub empty: u32,
}

fn most_common(uses: &[u64], rule: CommonRule) -> Vec<u32> {
    let mut common: Vec<u32> =
        (0..uses.len() as u32).filter(|item| uses[*item as usize] >= rule.at_least.max(2)).collect();
    common.sort_unstable_by_key(|item| (std::cmp::Reverse(uses[*item as usize]), *item));
    common.truncate(MAX_COMMON);
    common
}

fn classify(sets: &[&[u32]], item_empty: &[bool], common: &[u32]) -> (Vec<Class>, Vec<u32>) {
    // What each item adds to a set: its bit of the mask, and itself if it is empty.
    let mut adds: Vec<(u32, u32)> = item_empty.iter().map(|empty| (0, u32::from(*empty))).collect();
    for (c, item) in common.iter().enumerate() {
        adds[*item as usize].0 = 1 << c;
    }
    let mut numbers: FxHashMap<Class, u32> = FxHashMap::default();
    let mut classes = Vec::new();
    let class_of = sets.iter().map(|set| {
        let (mask, empty) = set.iter().fold((0, 0), |(mask, empty), item| {
            let (bit, one) = adds[*item as usize];
            (mask | bit, empty + one)
        });
        let size = set.len() as u32;
        let class = Class { mask, size, full_size: size - empty };
        *numbers.entry(class).or_insert_with(|| {
            classes.push(class);
            classes.len() as u32 - 1
        })
    });
    let class_of = class_of.collect();
    (classes, class_of)
}
