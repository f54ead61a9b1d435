//! The kernel: scores of a tile's rows against its columns, from the inverted index.
//!
//! For each row i, the postings of its items are walked once and a counter per column j adds up
//! what i and j share; only pairs that overlap in more than the common items are ever touched.
//! Cost per row: one 8-byte add into an array of n counters per posting entry (the counters of
//! 250,000 columns are 2 MB, about one L2 cache), then a few integer operations per touched pair.
//! The floor is the number of posting entries; nothing is spent on pairs that do not overlap.
//!
//! A pure function of the index and a tile: no I/O, no ranks, no clock.

use super::index::{Class, Index};
use super::tally::{Cells, Count, Tally};
use crate::pairs::{Shape, Tile};
use crate::strings::NONE;
use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What is wanted besides the counts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Want {
    /// Neighbours kept per set; 0 for none. Needs tiles of [`Shape::Square`].
    pub top_k: usize,
    /// Pairs i < j with at least this score are listed; `None` for none. Above 0.
    pub min: Option<f64>,
}

impl Want {
    /// The tile shape that this needs.
    pub fn shape(&self) -> Shape {
        if self.top_k > 0 { Shape::Square } else { Shape::Triangle }
    }
}

/// Another set and what is shared with it; the score is `shared / union`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Neighbour {
    /// Index of the other set.
    pub index: u32,
    /// Items shared.
    pub shared: u32,
    /// Items in the union.
    pub union: u32,
}

impl Neighbour {
    /// The Jaccard score.
    pub fn score(&self) -> f64 {
        score(self.shared, self.union)
    }

    /// Fills the places of a row that has fewer neighbours than were asked for; ranks last.
    pub const NONE: Self = Self { index: NONE, shared: 0, union: 1 };

    /// Higher scores first; equal ones by ascending index.
    #[inline]
    pub fn rank(&self, other: &Self) -> Ordering {
        compare((other.shared, other.union), (self.shared, self.union)).then(self.index.cmp(&other.index))
    }
}

/// A pair at or above the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Edge {
    /// Index i.
    pub first: u32,
    /// Index j > i.
    pub second: u32,
    /// Items shared.
    pub shared: u32,
}

/// The result of one tile.
#[derive(Debug, Clone)]
pub struct Partial {
    /// Counts, as differences to what the classes predict ([`class_totals`]).
    pub tally: Cells,
    /// For each row of the tile its `top_k` best neighbours among the columns, best first; the row
    /// is filled up with [`Neighbour::NONE`].
    pub neighbours: Vec<Neighbour>,
    /// Pairs at or above the threshold, ascending.
    pub edges: Vec<Edge>,
}

/// |A ∩ B| / |A ∪ B| in double precision; two empty sets have score 0, as in the study.
pub fn score(shared: u32, union: u32) -> f64 {
    if union == 0 { 0.0 } else { f64::from(shared) / f64::from(union) }
}

/// Compares two scores, each a fraction shared / union with union > 0, exactly. It is the order of
/// [`score`] too: below 2^26 items different fractions never round to the same double.
#[inline]
fn compare(a: (u32, u32), b: (u32, u32)) -> Ordering {
    (u64::from(a.0) * u64::from(b.1)).cmp(&(u64::from(b.0) * u64::from(a.1)))
}

/// A counter that packs shared items, shared empty items and shared bytes into one word, so that
/// one memory access adds all three.
trait Packed: Copy + Default + PartialEq + Send + Sync + std::ops::AddAssign {
    fn pack(empty: bool, bytes: u64) -> Self;
    fn unpack(self) -> (u32, u32, u64);
}

const NARROW_ITEMS: u32 = 12;
const NARROW_EMPTY: u32 = 8;

impl Packed for u64 {
    #[inline]
    fn pack(empty: bool, bytes: u64) -> Self {
        bytes << (NARROW_ITEMS + NARROW_EMPTY) | u64::from(empty) << NARROW_ITEMS | 1
    }

    #[inline]
    fn unpack(self) -> (u32, u32, u64) {
        let items = self & ((1 << NARROW_ITEMS) - 1);
        let empty = self >> NARROW_ITEMS & ((1 << NARROW_EMPTY) - 1);
        (items as u32, empty as u32, self >> (NARROW_ITEMS + NARROW_EMPTY))
    }
}

impl Packed for u128 {
    #[inline]
    fn pack(empty: bool, bytes: u64) -> Self {
        u128::from(bytes) << 64 | u128::from(empty) << 32 | 1
    }

    #[inline]
    fn unpack(self) -> (u32, u32, u64) {
        (self as u32, (self >> 32) as u32, (self >> 64) as u64)
    }
}

/// The kernel with its reusable buffers, one per thread that works on a tile.
pub struct Kernel<'a> {
    index: &'a Index,
    want: Want,
    columns: Vec<Column>,
    ranked: Vec<OnceLock<Vec<Ranked>>>,
    narrow: Mutex<Vec<Scratch<u64>>>,
    wide: Mutex<Vec<Scratch<u128>>>,
}

/// A class as seen from another one that shares common items with it.
#[derive(Debug, Clone, Copy)]
struct Ranked {
    class: u32,
    shared: u32,
    union: u32,
}

/// What the inner loop reads of a column, in one place.
#[derive(Debug, Clone, Copy)]
struct Column {
    weight: u64,
    class: Class,
}

/// Members of a posting that are unpacked at a time: most postings have fewer.
const UNPACKED: usize = 256;
type Unpacked = [u32; UNPACKED];

struct Scratch<P> {
    counts: Vec<P>,
    unpacked: Box<Unpacked>,
    touched: Vec<u32>,
    tally: Tally,
}

impl<'a> Kernel<'a> {
    /// A kernel over an index.
    pub fn new(index: &'a Index, want: Want) -> Self {
        let ranked = index.classes.iter().map(|_| OnceLock::new()).collect();
        let columns = index.weight.iter().zip(&index.class_by_set);
        let columns = columns.map(|(weight, class)| Column { weight: *weight, class: *class }).collect();
        Self { index, want, columns, ranked, narrow: Mutex::default(), wide: Mutex::default() }
    }

    /// Memory that the counters of one thread take, in bytes.
    pub fn memory_per_thread(index: &Index) -> u64 {
        let counter = if is_narrow(index) { 8 } else { 16 };
        let largest = index.largest.items.min(256);
        index.len() as u64 * (counter + 4) + (largest + 1) * (2 * largest + 1) * 32
    }

    /// Computes a tile.
    pub fn tile(&self, tile: &Tile) -> Partial {
        if is_narrow(self.index) {
            self.tile_with(tile, &self.narrow)
        } else {
            self.tile_with(tile, &self.wide)
        }
    }

    /// How many pairs i < j the rows have at or above the threshold, without computing a tile.
    pub(super) fn count_edges(&self, rows: impl Iterator<Item = u32>) -> u64 {
        if is_narrow(self.index) {
            self.count_edges_with(rows, &mut self.scratch::<u64>())
        } else {
            self.count_edges_with(rows, &mut self.scratch::<u128>())
        }
    }

    fn count_edges_with<P: Packed>(&self, rows: impl Iterator<Item = u32>, scratch: &mut Scratch<P>) -> u64 {
        let n = self.index.len() as u32;
        let (mut neighbours, mut edges) = (Vec::new(), Vec::new());
        let count = |i| {
            neighbours.clear();
            edges.clear();
            let tile = Tile { id: 0, rows: i..i + 1, columns: 0..n };
            self.row(i, &tile, scratch, &mut neighbours, &mut edges);
            edges.len() as u64
        };
        rows.map(count).sum()
    }

    fn tile_with<P: Packed>(&self, tile: &Tile, pool: &Mutex<Vec<Scratch<P>>>) -> Partial {
        let rows: Vec<u32> = tile.rows.clone().collect();
        let chunk = rows.len().div_ceil(4 * rayon::current_num_threads()).max(1);
        let parts: Vec<_> = rows
            .par_chunks(chunk)
            .map(|rows| {
                let lock = || pool.lock().unwrap_or_else(PoisonError::into_inner);
                let mut scratch = lock().pop().unwrap_or_else(|| self.scratch());
                let (mut neighbours, mut edges) = (Vec::new(), Vec::new());
                for &i in rows {
                    self.row(i, tile, &mut scratch, &mut neighbours, &mut edges);
                }
                lock().push(scratch);
                (neighbours, edges)
            })
            .collect();
        let mut partial = Partial { tally: self.drain(pool), neighbours: Vec::new(), edges: Vec::new() };
        for (neighbours, edges) in parts {
            partial.neighbours.extend(neighbours);
            partial.edges.extend(edges);
        }
        partial
    }

    /// What all threads counted.
    fn drain<P: Packed>(&self, pool: &Mutex<Vec<Scratch<P>>>) -> Cells {
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((first, others)) = pool.split_first_mut() else { return self.empty_tally().drain() };
        for other in others {
            first.tally.add(&other.tally.drain());
        }
        first.tally.drain()
    }

    fn empty_tally(&self) -> Tally {
        Tally::new(self.index.largest.items as u32)
    }

    fn scratch<P: Packed>(&self) -> Scratch<P> {
        Scratch {
            counts: vec![P::default(); self.index.len()],
            unpacked: Box::new([0; UNPACKED]),
            touched: Vec::new(),
            tally: self.empty_tally(),
        }
    }

    /// One row; appends its best neighbours, if they are wanted, and its edges.
    fn row<P: Packed>(
        &self,
        i: u32,
        tile: &Tile,
        scratch: &mut Scratch<P>,
        neighbours: &mut Vec<Neighbour>,
        edges: &mut Vec<Edge>,
    ) {
        let index = self.index;
        let Scratch { counts, unpacked, touched, tally } = scratch;
        let own = index.class_by_set[i as usize];
        let first_column =
            if self.want.top_k > 0 { tile.columns.start } else { tile.columns.start.max(i + 1) };
        let columns = first_column..tile.columns.end;
        add_up(index, i, &columns, counts, unpacked, touched);
        neighbours.resize(neighbours.len() + self.want.top_k, Neighbour::NONE);
        let start = neighbours.len() - self.want.top_k;
        let mut best = Best(&mut neighbours[start..]);
        let first_edge = edges.len();
        let weight = index.weight[i as usize];
        for &j in touched.iter() {
            let (items, empty, bytes) = counts[j as usize].unpack();
            let Column { weight: other_weight, class: other } = self.columns[j as usize];
            let both = index.common_overlap(own.mask, other.mask);
            let shared = items + both.items;
            let union = own.size + other.size - shared;
            if j > i {
                let pairs = Count::pair(weight * other_weight);
                let full_shared = shared - empty - both.empty;
                let class_union = own.size + other.size - both.items;
                let class_full = both.items - both.empty;
                let full_sizes = own.full_size + other.full_size;
                tally.all.at(shared, union).add(pairs);
                tally.all.at(both.items, class_union).subtract(pairs);
                if full_shared != class_full {
                    tally.full.at(full_shared, full_sizes - full_shared).add(pairs);
                    tally.full.at(class_full, full_sizes - class_full).subtract(pairs);
                    tally.bytes.raise(index.common_bytes_of(own.mask & other.mask), bytes, pairs);
                }
                if self.want.min.is_some_and(|min| score(shared, union) >= min) {
                    edges.push(Edge { first: i, second: j, shared });
                }
            }
            best.offer(Neighbour { index: j, shared, union });
        }
        self.unvisited(i, &columns, counts, &mut best, edges);
        edges[first_edge..].sort_unstable();
        for j in touched.drain(..) {
            counts[j as usize] = P::default();
        }
    }

    /// Offers the sets that share nothing but common items with row `i`, class by class.
    fn unvisited<P: Packed>(
        &self,
        i: u32,
        columns: &std::ops::Range<u32>,
        counts: &[P],
        best: &mut Best<'_>,
        edges: &mut Vec<Edge>,
    ) {
        let class = self.index.class_of[i as usize];
        if self.index.classes[class as usize].mask == 0 || (best.0.is_empty() && self.want.min.is_none()) {
            return;
        }
        let members = |class: u32, from: u32| {
            let inside = self.index.members[class as usize].range(from.min(columns.end)..columns.end);
            inside.filter(|j| *j != i && counts[*j as usize] == P::default())
        };
        let ranked = self.ranked_from(class);
        if let Some(min) = self.want.min {
            for r in ranked.iter().take_while(|r| score(r.shared, r.union) >= min) {
                let later = members(r.class, columns.start.max(i + 1));
                edges.extend(later.map(|j| Edge { first: i, second: j, shared: r.shared }));
            }
        }
        for tie in ranked.chunk_by(|a, b| compare((a.shared, a.union), (b.shared, b.union)).is_eq()) {
            if best.is_full_above((tie[0].shared, tie[0].union)) {
                break;
            }
            for r in tie {
                for j in members(r.class, columns.start).take(best.0.len()) {
                    best.offer(Neighbour { index: j, shared: r.shared, union: r.union });
                }
            }
        }
    }

    /// The classes that share common items with `class`, best score first.
    fn ranked_from(&self, class: u32) -> &[Ranked] {
        self.ranked[class as usize].get_or_init(|| {
            let own = self.index.classes[class as usize];
            let others = (0u32..).zip(&self.index.classes);
            let mut ranked: Vec<_> = others
                .filter(|(_, other)| other.mask & own.mask != 0)
                .map(|(class, other)| {
                    let shared = (own.mask & other.mask).count_ones();
                    Ranked { class, shared, union: own.size + other.size - shared }
                })
                .collect();
            ranked.sort_by(|a, b| compare((b.shared, b.union), (a.shared, a.union)));
            ranked
        })
    }
}

fn is_narrow(index: &Index) -> bool {
    index.largest.items < 1 << NARROW_ITEMS
        && index.largest.empty < 1 << NARROW_EMPTY
        && index.largest.bytes < 1 << (64 - NARROW_ITEMS - NARROW_EMPTY)
}

/// Adds up what row `i` shares with each column, items in the common mask aside.
fn add_up<P: Packed>(
    index: &Index,
    i: u32,
    columns: &std::ops::Range<u32>,
    counts: &mut [P],
    unpacked: &mut Unpacked,
    touched: &mut Vec<u32>,
) {
    let start = columns.start.min(columns.end);
    // An open end is not searched for.
    let to_the_last = columns.end as usize == counts.len();
    for &p in index.visits_of(i as usize) {
        let p = p as usize;
        let step = P::pack(index.posting_empty[p], index.posting_bytes[p]);
        let posting = &index.postings[p];
        let mut inside = if to_the_last { posting.range(start..) } else { posting.range(start..columns.end) };
        loop {
            let some = inside.next_many(unpacked);
            for &mut j in some.iter_mut() {
                let count = &mut counts[j as usize];
                if *count == P::default() {
                    touched.push(j);
                }
                *count += step;
            }
            if some.len() < UNPACKED {
                break;
            }
        }
    }
    // A row is no neighbour of itself.
    if columns.contains(&i) && counts[i as usize] != P::default() {
        counts[i as usize] = P::default();
        touched.retain(|j| *j != i);
    }
}

/// The k best neighbours so far, best first, among [`Neighbour::NONE`].
struct Best<'a>(&'a mut [Neighbour]);

impl Best<'_> {
    #[inline]
    fn offer(&mut self, neighbour: Neighbour) {
        if self.0.last().is_some_and(|last| neighbour.rank(last).is_lt()) {
            self.insert(neighbour);
        }
    }

    fn insert(&mut self, neighbour: Neighbour) {
        let at = self.0.partition_point(|n| n.rank(&neighbour).is_lt());
        self.0[at..].rotate_right(1);
        self.0[at] = neighbour;
    }

    /// True if nothing with this score could enter. A list of length 0 is always full.
    fn is_full_above(&self, score: (u32, u32)) -> bool {
        self.0.last().is_none_or(|last| compare((last.shared, last.union), score).is_gt())
    }
}

/// Merges the best neighbours that two column ranges gave for one row.
pub fn merge_best(mine: &mut [Neighbour], others: &[Neighbour]) {
    if mine.first() == Some(&Neighbour::NONE) {
        return mine.copy_from_slice(others);
    }
    let mut best = Best(mine);
    others.iter().filter(|n| **n != Neighbour::NONE).for_each(|n| best.offer(*n));
}

/// What all pairs would count if they shared nothing but common items; the tiles' tallies are
/// differences to this. Cost: one step per pair of classes.
pub fn class_totals(index: &Index) -> Tally {
    let mut tally = Tally::new(index.largest.items as u32);
    let counts: Vec<(u64, u64, u64)> = index
        .members
        .iter()
        .map(|members| {
            let weights = members.iter().map(|j| index.weight[j as usize]);
            let squares = weights.clone().fold(0u64, |sum, w| sum.wrapping_add(w.wrapping_mul(w)));
            (members.len(), weights.sum(), squares)
        })
        .collect();
    for (a, class) in index.classes.iter().enumerate() {
        let (n, weight, squares) = counts[a];
        let inside = Count {
            distinct: n * (n - 1) / 2,
            images: ((u128::from(weight) * u128::from(weight) - u128::from(squares)) / 2) as u64,
        };
        count_classes(index, &mut tally, class, class, inside);
        for (b, other) in index.classes.iter().enumerate().skip(a + 1) {
            let pairs = Count { distinct: n * counts[b].0, images: weight.wrapping_mul(counts[b].1) };
            count_classes(index, &mut tally, class, other, pairs);
        }
    }
    tally
}

fn count_classes(index: &Index, tally: &mut Tally, a: &Class, b: &Class, pairs: Count) {
    let both = index.common_overlap(a.mask, b.mask);
    let full = both.items - both.empty;
    tally.all.at(both.items, a.size + b.size - both.items).add(pairs);
    tally.full.at(full, a.full_size + b.full_size - full).add(pairs);
    tally.bytes.add(index.common_bytes_of(a.mask & b.mask), pairs);
}

/// One row of scores against all sets, the set itself included (1, or 0 for an empty set),
/// without the class short-cut.
pub fn score_row(index: &Index, i: u32, counts: &mut [u32], scores: &mut [f64]) {
    counts.fill(0);
    for &p in index.visits_of(i as usize) {
        for j in &index.postings[p as usize] {
            counts[j as usize] += 1;
        }
    }
    let own = index.class_by_set[i as usize];
    for (j, other) in index.class_by_set.iter().enumerate() {
        let shared = counts[j] + (own.mask & other.mask).count_ones();
        scores[j] = score(shared, own.size + other.size - shared);
    }
    if own.size > 0 {
        scores[i as usize] = 1.0;
    }
}
