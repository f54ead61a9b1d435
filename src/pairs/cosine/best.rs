//! The best neighbours of every row, while tiles are computed.

use super::exact;
use super::filter::prefetch;
use super::rows::Rows;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Memory for the lists of one rank, in bytes; with more rows the lists get shorter, down to a
/// little more than k.
const MEMORY: usize = 80 << 20;

/// Lists that a thread goes through at a time.
const PART: usize = 64;

/// Pairs between asking for a list and adding to it.
const AHEAD: usize = 8;

/// Set in an entry that was added in the current tile.
const NEW: u32 = 1 << 31;

/// The neighbours of all rows that this rank has met so far, by the filter's scores.
///
/// A pair may be left out as soon as k better ones of its row are known: those are in tiles that
/// this rank has recorded or is about to record. So what is kept differs from run to run, but a
/// pair of the true best k is never left out, by anyone.
pub struct Best {
    k: usize,
    capacity: usize,
    error: f32,
    /// Of each row: a filter's score from here on may be among the best.
    from: Vec<AtomicU32>,
    lists: Mutex<Lists>,
}

struct Lists {
    length: Vec<u32>,
    /// What is before this entry of a list was there before the current tile.
    settled: Vec<u32>,
    entries: Vec<(f32, u32)>,
}

/// A neighbour with its score in f64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Row.
    pub index: u32,
    /// Score.
    pub score: f64,
}

/// A pair that may be among the best of its row.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Candidate {
    /// The other row.
    pub index: u32,
    /// The filter's score: within its error bound of the score in f64, and not the same on every CPU.
    pub score: f32,
}

/// Candidates of many rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Candidates {
    /// Each row and how many it has.
    pub rows: Vec<(u32, u32)>,
    /// Those of all rows, one after the other.
    pub all: Vec<Candidate>,
}

impl Candidates {
    /// Each row with its own.
    pub fn by_row(&self) -> impl Iterator<Item = (u32, &[Candidate])> {
        let mut rest = self.all.as_slice();
        self.rows.iter().map(move |(row, count)| {
            let (own, others) = rest.split_at(*count as usize);
            rest = others;
            (*row, own)
        })
    }

    /// Adds those of other rows.
    pub fn append(&mut self, mut other: Self) {
        self.rows.append(&mut other.rows);
        self.all.append(&mut other.all);
    }
}

impl Neighbour {
    /// Best first: by score, then by row.
    pub fn order(a: &Self, b: &Self) -> std::cmp::Ordering {
        b.score.total_cmp(&a.score).then(a.index.cmp(&b.index))
    }
}

/// Puts the best `k` of a list first, of which the last is the worst, and after them the others whose score is
/// no less than what follows `from` it; gives how many those are together.
pub fn keep_best<T>(
    list: &mut [T],
    k: usize,
    score: impl Fn(&T) -> f32,
    from: impl FnOnce(f32) -> f64,
) -> usize {
    if list.len() <= k {
        return list.len();
    }
    list.select_nth_unstable_by(k - 1, |a, b| score(b).total_cmp(&score(a)));
    let from = from(score(&list[k - 1]));
    let mut kept = k;
    for at in k..list.len() {
        if f64::from(score(&list[at])) >= from {
            list.swap(at, kept);
            kept += 1;
        }
    }
    kept
}

impl Best {
    /// Lists of the best `k` (at least 1) for `n` rows; `error` is the filter's bound for them, `floors` are
    /// those that ranks find before the first tile, or none.
    pub fn new(n: usize, k: usize, error: f64, floors: &[f32]) -> Self {
        let capacity = Self::capacity(n, k);
        let floor = |i| floors.get(i).copied().unwrap_or(f32::NEG_INFINITY);
        let from = (0..n).map(|i| floor(i).to_bits().into()).collect();
        let lists = Lists { length: vec![0; n], settled: vec![0; n], entries: vec![(0.0, 0); n * capacity] };
        Self { k, capacity, error: (error as f32).next_up(), from, lists: Mutex::new(lists) }
    }

    /// Entries of 8 bytes in each list.
    pub fn capacity(n: usize, k: usize) -> usize {
        (MEMORY / 8 / n.max(1)).clamp(k + 8, 2 * k + 32)
    }

    /// A filter's score of row `i` from here on may be among its best.
    #[inline]
    pub fn from(&self, i: u32) -> f32 {
        f32::from_bits(self.from[i as usize].load(Ordering::Relaxed))
    }

    /// Adds pairs with the filter's scores to the lists of both rows.
    pub fn add(&self, rows: &Rows<'_>, pairs: &[(u32, u32, f32)]) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, (i, j, score)) in pairs.iter().enumerate() {
            // Lists come from far; some ahead are on their way meanwhile.
            if let Some((i, j, _)) = pairs.get(at + AHEAD) {
                for row in [*i as usize, *j as usize] {
                    let end = row * self.capacity + lists.length[row] as usize;
                    prefetch(lists.entries.get(end..end + 1).unwrap_or_default());
                }
            }
            for (row, other) in [(*i, *j), (*j, *i)] {
                if *score >= self.from(row) {
                    self.insert(&mut lists, rows, row, other, *score);
                }
            }
        }
    }

    fn insert(&self, lists: &mut Lists, rows: &Rows<'_>, row: u32, other: u32, score: f32) {
        let start = row as usize * self.capacity;
        let length = &mut lists.length[row as usize];
        lists.entries[start + *length as usize] = (score, other | NEW);
        *length += 1;
        if *length as usize == self.capacity {
            let list = &mut lists.entries[start..start + self.capacity];
            *length = self.shorten(rows, row, list) as u32;
            lists.settled[row as usize] = 0;
        }
    }

    /// Drops what cannot be among the best k; leaves room for more. Gives the new length.
    fn shorten(&self, rows: &Rows<'_>, row: u32, list: &mut [(f32, u32)]) -> usize {
        if list.len() <= self.k {
            return list.len();
        }
        let mut from = f32::NEG_INFINITY;
        let mut kept = keep_best(
            list,
            self.k,
            |entry| entry.0,
            |worst| {
                // The k-th best in f64 is at least this.
                from = self.from(row).max(worst - 2.0 * self.error).next_down();
                f64::from(from)
            },
        );
        if kept > self.k + (self.capacity - self.k) / 2 {
            // Too many that f32 cannot tell apart: f64 can, and equal scores go by row.
            let mut exact = self.scored(rows, row, list[..kept].iter().map(|(_, other)| *other));
            exact.sort_unstable_by(|a, b| {
                b.score.total_cmp(&a.score).then((a.index & !NEW).cmp(&(b.index & !NEW)))
            });
            kept = self.k;
            for (entry, n) in list.iter_mut().zip(&exact[..kept]) {
                *entry = (n.score as f32, n.index);
            }
            from = from.max(((exact[kept - 1].score as f32).next_down() - self.error).next_down());
        }
        self.from[row as usize].store(from.to_bits(), Ordering::Relaxed);
        kept
    }

    fn scored(&self, rows: &Rows<'_>, row: u32, others: impl Iterator<Item = u32>) -> Vec<Neighbour> {
        let others: Vec<u32> = others.collect();
        let rows_of: Vec<u32> = others.iter().map(|other| other & !NEW).collect();
        let mut scored = Vec::with_capacity(others.len());
        exact::score_row(rows, row, &rows_of, |at, score| {
            scored.push(Neighbour { index: others[at], score })
        });
        scored
    }

    /// What was added to the lists of these rows since the last call and is still there, with the filter's
    /// scores.
    pub fn take_new(&self, rows: &Rows<'_>, range: Range<u32>) -> Candidates {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let Lists { length, settled, entries } = &mut *lists;
        let (first, last) = (range.start as usize, range.end as usize);
        let parts: Vec<Candidates> = entries[first * self.capacity..last * self.capacity]
            .par_chunks_mut(PART * self.capacity)
            .zip(length[first..last].par_chunks_mut(PART).zip(settled[first..last].par_chunks_mut(PART)))
            .enumerate()
            .map(|(part, (lists, (lengths, settled)))| {
                let mut found = Candidates::default();
                let these = (range.start + (part * PART) as u32..).zip(lists.chunks_exact_mut(self.capacity));
                for (((row, list), length), settled) in these.zip(lengths).zip(settled) {
                    if settled != length {
                        self.take_new_of(rows, row, list, (length, *settled as usize), &mut found);
                        *settled = *length;
                    }
                }
                found
            })
            .collect();
        let mut all = Candidates::default();
        parts.into_iter().for_each(|part| all.append(part));
        all
    }

    fn take_new_of(
        &self,
        rows: &Rows<'_>,
        row: u32,
        list: &mut [(f32, u32)],
        (length, mut settled): (&mut u32, usize),
        into: &mut Candidates,
    ) {
        if list[settled..*length as usize].iter().all(|entry| entry.1 & NEW == 0) {
            return;
        }
        // A few too many cost less in a journal than to be found out here.
        if *length as usize > self.k + (self.capacity - self.k) / 4 {
            *length = self.shorten(rows, row, &mut list[..*length as usize]) as u32;
            settled = 0;
        }
        let before = into.all.len();
        for (score, other) in list[settled..*length as usize].iter_mut().filter(|entry| entry.1 & NEW != 0) {
            *other &= !NEW;
            into.all.push(Candidate { index: *other, score: *score });
        }
        let new = (into.all.len() - before) as u32;
        if new > 0 {
            into.rows.push((row, new));
        }
    }
}
