//! The best neighbours of all rows, from the candidates that the journals hold. Rank 0 reads those; all
//! ranks score them in f64, each a part of the rows.

use super::best::{Candidate, Candidates, Neighbour, keep_best};
use super::exact;
use super::rows::Rows;
use crate::strings::NONE;
use crate::world::World;
use bytemuck::{cast_slice, cast_slice_mut, pod_collect_to_vec};
use rayon::prelude::*;

/// The best neighbours of every row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Nearest {
    /// Neighbours of each row, at most.
    pub k: usize,
    /// n x k: rows, best first, by score, then by row; [`NONE`] where there are fewer.
    pub index: Vec<u32>,
    /// n x k: their scores; 0 where there are fewer.
    pub score: Vec<f64>,
}

impl Nearest {
    fn none(n: usize, k: usize) -> Self {
        Self { k, index: vec![NONE; n * k], score: vec![0.0; n * k] }
    }

    /// Those of row `i`, best first.
    pub fn of_row(&self, i: usize) -> impl Iterator<Item = Neighbour> {
        let own = i * self.k..(i + 1) * self.k;
        let all = self.index[own.clone()].iter().zip(&self.score[own]);
        all.filter(|(index, _)| **index != NONE)
            .map(|(index, score)| Neighbour { index: *index, score: *score })
    }
}

/// The candidates of all rows, as tiles found them, on rank 0.
#[derive(Debug)]
pub struct Gathered {
    parts: Vec<Candidates>,
    found: usize,
    /// With more candidates than that, those that cannot be are dropped.
    most: usize,
    n: usize,
    k: usize,
    error: f64,
}

impl Gathered {
    /// None yet, of the best `k` for `n` rows; `error` is the filter's bound.
    pub fn new(n: usize, k: usize, error: f64) -> Self {
        Self { parts: Vec::new(), found: 0, most: 2 * k * n, n, k, error }
    }

    /// Adds what a tile found.
    pub fn add(&mut self, part: Candidates) {
        self.found += part.all.len();
        self.parts.push(part);
        if self.found > self.most {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let rows: Vec<u32> = (0..self.n as u32).collect();
        let Lists { mut lengths, mut all } = Lists::of(std::mem::take(&mut self.parts), &rows);
        let kept: Vec<u32> = lists_of(&mut all, &lengths)
            .into_par_iter()
            .map(|list| drop_worse(list, self.k, self.error) as u32)
            .collect();
        let (mut from, mut to) = (0, 0);
        for (length, kept) in lengths.iter_mut().zip(kept) {
            all.copy_within(from..from + kept as usize, to);
            from += *length as usize;
            to += kept as usize;
            *length = kept;
        }
        all.truncate(to);
        self.found = to;
        // Where nothing can be dropped, it is not tried at each tile.
        self.most = self.most.max(2 * to);
        self.parts.push(Candidates { rows: rows.into_iter().zip(lengths).collect(), all });
    }
}

/// The candidates of some rows, row by row.
struct Lists {
    /// Of each row.
    lengths: Vec<u32>,
    all: Vec<Candidate>,
}

impl Lists {
    /// Those of all rows, in this order of the rows.
    fn of(parts: Vec<Candidates>, order: &[u32]) -> Self {
        let mut place = vec![0; order.len()];
        for (row, count) in parts.iter().flat_map(|part| &part.rows) {
            place[*row as usize] += *count as usize;
        }
        let lengths = order.iter().map(|row| place[*row as usize] as u32).collect();
        let mut end = 0;
        for row in order {
            end += std::mem::replace(&mut place[*row as usize], end);
        }
        let mut all: Vec<Candidate> = bytemuck::zeroed_vec(end);
        for (row, own) in parts.iter().flat_map(Candidates::by_row) {
            let place = &mut place[row as usize];
            all[*place..*place + own.len()].copy_from_slice(own);
            *place += own.len();
        }
        Self { lengths, all }
    }
}

/// The list of each row.
fn lists_of<'a>(mut all: &'a mut [Candidate], lengths: &[u32]) -> Vec<&'a mut [Candidate]> {
    let next = |length: &u32| {
        let (list, rest) = std::mem::take(&mut all).split_at_mut(*length as usize);
        all = rest;
        list
    };
    lengths.iter().map(next).collect()
}

/// Moves candidates that `k` others are certainly better than to the end, given the error of their scores;
/// gives how many are left.
fn drop_worse(list: &mut [Candidate], k: usize, error: f64) -> usize {
    keep_best(list, k, |candidate| candidate.score, |worst| f64::from(worst) - 2.0 * error)
}

/// The best `k` of every row. Rank 0 gives the candidates (`None` elsewhere) and gets the lists; others get
/// none. `error` is the filter's bound. Ranks take rows in this `order`, or as they are numbered if it is empty:
/// where rows that are alike follow each other, their neighbours are still near when they are wanted again.
/// Collective.
pub fn of_all(
    world: &World,
    rows: &Rows<'_>,
    order: &[u32],
    candidates: Option<Gathered>,
    k: usize,
    error: f64,
) -> Nearest {
    let numbered: Vec<u32>;
    let order = if order.is_empty() {
        numbered = (0..rows.len() as u32).collect();
        &numbered
    } else {
        order
    };
    let (lengths, mut all) = own_lists(world, order, candidates.map(|gathered| gathered.parts));
    let own =
        best(rows, &order[world.share(world.rank(), rows.len())], lists_of(&mut all, &lengths), k, error);
    drop((lengths, all));
    let gathered = [cast_slice(&own.index), cast_slice(&own.score)].map(|own| world.gather(own));
    drop(own);
    let [Some(indices), Some(scores)] = gathered else { return Nearest::default() };
    let mut nearest = Nearest::none(rows.len(), k);
    put(order, &indices, &mut nearest.index, k);
    put(order, &scores, &mut nearest.score, k);
    nearest
}

/// What rank 0 has for this rank's share of the rows: the length of each list, and all of them. Collective.
fn own_lists(world: &World, order: &[u32], parts: Option<Vec<Candidates>>) -> (Vec<u32>, Vec<Candidate>) {
    let mut messages = [vec![&[][..]; world.size()], vec![&[][..]; world.size()]];
    let lists = parts.map(|parts| Lists::of(parts, order));
    if let Some(Lists { lengths, all }) = &lists {
        let mut rest = all.as_slice();
        for rank in 0..world.size() {
            let lengths = &lengths[world.share(rank, order.len())];
            let (own, others) = rest.split_at(lengths.iter().map(|n| *n as usize).sum());
            rest = others;
            messages[0][rank] = cast_slice(lengths);
            messages[1][rank] = cast_slice(own);
        }
    }
    let [lengths, all] = messages.map(|outgoing| world.exchange(&outgoing).swap_remove(0));
    (pod_collect_to_vec(&lengths), pod_collect_to_vec(&all))
}

/// The best of the lists of these rows.
fn best(rows: &Rows<'_>, these: &[u32], lists: Vec<&mut [Candidate]>, k: usize, error: f64) -> Nearest {
    let mut nearest = Nearest::none(these.len(), k);
    let places = nearest.index.par_chunks_mut(k).zip(nearest.score.par_chunks_mut(k));
    these.par_iter().zip(lists).zip(places).for_each_init(
        Vec::new,
        |others, ((row, list), (index, score))| {
            let kept = drop_worse(list, k, error);
            others.clear();
            others.extend(list[..kept].iter().map(|candidate| candidate.index));
            let mut best = Vec::with_capacity(kept);
            exact::score_row(rows, *row, others, |at, score| {
                best.push(Neighbour { index: others[at], score })
            });
            best.sort_unstable_by(Neighbour::order);
            for ((index, score), neighbour) in index.iter_mut().zip(score).zip(best) {
                (*index, *score) = (neighbour.index, neighbour.score);
            }
        },
    );
    nearest
}

/// Puts what ranks sent of their rows, `k` numbers of each, where those rows are.
fn put<T: bytemuck::Pod>(order: &[u32], parts: &[Vec<u8>], into: &mut [T], k: usize) {
    let width = k * size_of::<T>();
    let into: &mut [u8] = cast_slice_mut(into);
    for (row, own) in order.iter().zip(parts.iter().flat_map(|part| part.chunks_exact(width))) {
        into[*row as usize * width..][..width].copy_from_slice(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::cosine::exact::score;
    use crate::pairs::cosine::rows::normalize;
    use proptest::prelude::*;

    proptest! {
        /// However candidates come, and however often those that cannot be are dropped between.
        #[test]
        fn the_best_of_all_candidates(
            seed in prop::collection::vec(-1.0f64..1.0, 120),
            n in 2usize..40,
            k in 1usize..12,
            parts in 1u32..9,
            salt: u32,
        ) {
            let mut unit = Vec::new();
            (0..n).for_each(|i| normalize(&seed[3 * i..3 * i + 3], &mut unit).unwrap());
            let rows = Rows::new(&unit, 3);
            let (k, error) = (k.min(n - 1), 1e-6);
            let mut gathered = Gathered::new(n, k, error);
            let of_pair = |i: usize, j: usize| score(rows.row(i), rows.row(j));
            let others = |i: usize| (0..n).filter(move |j| *j != i);
            for part in 0..parts {
                let mut found = Candidates::default();
                for i in 0..n {
                    let part_of = |j| ((i * n + j) as u32 ^ salt).wrapping_mul(0x9E37_79B1) % parts;
                    let here = others(i).filter(|j| part_of(*j) == part);
                    let before = found.all.len();
                    found.all.extend(here.map(|j| Candidate { index: j as u32, score: of_pair(i, j) as f32 }));
                    found.rows.push((i as u32, (found.all.len() - before) as u32));
                }
                gathered.add(found);
            }
            prop_assert!(n < 3 * k + 2 || gathered.found < n * (n - 1), "nothing was dropped");
            let order: Vec<u32> = (0..n as u32).rev().collect();
            let nearest = of_all(&World::solo(), &rows, &order, Some(gathered), k, error);
            for i in 0..n {
                let neighbour = |j| Neighbour { index: j as u32, score: of_pair(i, j) };
                let mut expected: Vec<_> = others(i).map(neighbour).collect();
                expected.sort_unstable_by(Neighbour::order);
                expected.truncate(k);
                prop_assert_eq!(nearest.of_row(i).collect::<Vec<_>>(), expected);
            }
        }
    }
}
