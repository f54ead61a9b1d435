//! The best neighbours of all rows, from the candidates that the journals hold. Rank 0 reads those; all
//! ranks score them in f64, each a part of the rows.

use super::best::{Candidate, Neighbour};
use super::exact;
use super::rows::Rows;
use crate::world::World;
use rayon::prelude::*;

/// Drops candidates that `k` others are certainly better than, given the error of their scores.
pub fn drop_worse(list: &mut Vec<Candidate>, k: usize, error: f64) {
    if list.len() > k {
        list.select_nth_unstable_by(k - 1, |a, b| b.score.total_cmp(&a.score));
        let from = f64::from(list[k - 1].score) - 2.0 * error;
        list.retain(|c| f64::from(c.score) >= from);
    }
}

/// The best `k` of every row, best first: by score, then by row. Rank 0 gives the candidates of each row
/// (`None` elsewhere) and gets the lists; others get none. `error` is the filter's bound. Ranks take rows in
/// this `order`, or as they are numbered if it is empty: where rows that are alike follow each other, their
/// neighbours are still near when they are wanted again. Collective.
pub fn of_all(
    world: &World,
    rows: &Rows<'_>,
    order: &[u32],
    candidates: Option<Vec<Vec<Candidate>>>,
    k: usize,
    error: f64,
) -> Vec<Vec<Neighbour>> {
    let numbered: Vec<u32>;
    let order = if order.is_empty() {
        numbered = (0..rows.len() as u32).collect();
        &numbered
    } else {
        order
    };
    let share = |rank| &order[world.share(rank, rows.len())];
    let outgoing: Vec<Vec<u8>> = match candidates {
        Some(mut lists) => {
            lists.par_iter_mut().for_each(|list| drop_worse(list, k, error));
            (0..world.size()).map(|rank| indices(&lists, share(rank))).collect()
        }
        None => vec![Vec::new(); world.size()],
    };
    let incoming = words(&from_root(world, &outgoing));
    drop(outgoing);
    let own = best(rows, share(world.rank()), &incoming, k);
    drop(incoming);
    let mut outgoing = vec![&[][..]; world.size()];
    outgoing[0] = &own;
    let parts = world.exchange(&outgoing);
    drop(own);
    if !world.is_root() {
        return Vec::new();
    }
    let mut lists = vec![Vec::new(); rows.len()];
    for (row, list) in order.iter().zip(parts.iter().flat_map(|part| read(part))) {
        lists[*row as usize] = list;
    }
    lists
}

/// What rank 0 sent here.
fn from_root(world: &World, outgoing: &[Vec<u8>]) -> Vec<u8> {
    let outgoing: Vec<&[u8]> = outgoing.iter().map(Vec::as_slice).collect();
    world.exchange(&outgoing).into_iter().next().unwrap_or_default()
}

/// Each list of these rows as its length and its rows.
fn indices(lists: &[Vec<Candidate>], these: &[u32]) -> Vec<u8> {
    let these = || these.iter().map(|row| &lists[*row as usize]);
    let mut out = Vec::with_capacity(these().map(|list| 4 + 4 * list.len()).sum());
    for list in these() {
        out.extend((list.len() as u32).to_ne_bytes());
        list.iter().for_each(|candidate| out.extend(candidate.index.to_ne_bytes()));
    }
    out
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

/// Scores the lists that [`indices`] wrote of these rows. Each list as its length, its rows and its scores.
fn best(rows: &Rows<'_>, these: &[u32], words: &[u32], k: usize) -> Vec<u8> {
    let mut lists = Vec::with_capacity(these.len());
    let mut rest = words;
    while let Some((length, after)) = rest.split_first() {
        let (list, after) = after.split_at(*length as usize);
        lists.push(list);
        rest = after;
    }
    let scored: Vec<Vec<u8>> = these
        .par_iter()
        .zip(lists)
        .map(|(row, list)| {
            let mut best = Vec::with_capacity(list.len());
            exact::score_row(rows, *row, list, |at, score| best.push(Neighbour { index: list[at], score }));
            best.sort_unstable_by(Neighbour::order);
            best.truncate(k);
            let mut out = Vec::with_capacity(4 + 12 * best.len());
            out.extend((best.len() as u32).to_ne_bytes());
            best.iter().for_each(|n| out.extend(n.index.to_ne_bytes()));
            best.iter().for_each(|n| out.extend(n.score.to_ne_bytes()));
            out
        })
        .collect();
    scored.concat()
}

/// Reads what [`best`] wrote.
fn read(mut bytes: &[u8]) -> Vec<Vec<Neighbour>> {
    let mut lists = Vec::new();
    while let Some((length, after)) = bytes.split_first_chunk() {
        let length = u32::from_ne_bytes(*length) as usize;
        let (indices, after) = after.split_at(4 * length);
        let (scores, after) = after.split_at(8 * length);
        let scores = scores.chunks_exact(8).map(bytemuck::pod_read_unaligned);
        lists.push(
            words(indices).into_iter().zip(scores).map(|(index, score)| Neighbour { index, score }).collect(),
        );
        bytes = after;
    }
    lists
}
