//! Joining what shards changed, in shard order, whoever trained them.

use super::lanes::{Chunk, WIDTH};
use super::plan::Plan;
use crate::world::World;
use rayon::prelude::*;
use std::ops::Range;

/// How the changes of a chunk are joined, in shard order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Added up, as if one had trained after the other. Right as long as no shard moves a row far
    /// between two merges.
    Sum,
    /// The mean over the shards that changed it: a rare word keeps what its one shard learned, and
    /// what every shard moves to the same place (the root of the Huffman tree above all) does not
    /// overshoot it.
    Mean,
}

/// Joins the changes of all shards in `base`, which is the same on all ranks before and after.
/// `mine` are the copies of this rank's shards. Collective.
///
/// Each rank does a part of the chunks, for which it gets that part of all copies, and tells the
/// others.
pub fn merge(world: &World, base: &mut [Chunk], mine: &[Vec<Chunk>], plan: &Plan, rule: Rule) {
    let ranks = world.size();
    if ranks == 1 {
        let copies: Vec<&[Chunk]> = mine.iter().map(Vec::as_slice).collect();
        add_changes(base, &copies, rule);
        return;
    }
    let length = base.len();
    let part = |rank: usize| -> Range<usize> { rank * length / ranks..(rank + 1) * length / ranks };
    let outgoing: Vec<Vec<Chunk>> =
        (0..ranks).map(|rank| mine.iter().flat_map(|copy| &copy[part(rank)]).copied().collect()).collect();
    let outgoing: Vec<&[u8]> = outgoing.iter().map(|chunks| bytemuck::cast_slice(chunks)).collect();
    let incoming = world.exchange(&outgoing);
    let here = part(world.rank());
    let mut copies: Vec<Vec<Chunk>> = Vec::with_capacity(plan.shards());
    for (rank, bytes) in incoming.iter().enumerate() {
        let shards = plan.shards_of(rank, ranks).len();
        let mut chunks = vec![Chunk::default(); shards * here.len()];
        bytemuck::cast_slice_mut(&mut chunks).copy_from_slice(bytes);
        copies.extend((0..shards).map(|s| chunks[s * here.len()..][..here.len()].to_vec()));
    }
    let copies: Vec<&[Chunk]> = copies.iter().map(Vec::as_slice).collect();
    add_changes(&mut base[here.clone()], &copies, rule);
    let sum = bytemuck::cast_slice(&base[here]).to_vec();
    let parts = world.exchange(&vec![sum.as_slice(); ranks]);
    for (rank, bytes) in parts.iter().enumerate() {
        bytemuck::cast_slice_mut(&mut base[part(rank)]).copy_from_slice(bytes);
    }
}

/// Adds the changes, copies in order.
fn add_changes(base: &mut [Chunk], copies: &[&[Chunk]], rule: Rule) {
    if let [copy] = copies {
        base.copy_from_slice(copy);
        return;
    }
    const BLOCK: usize = 4096;
    base.par_chunks_mut(BLOCK).enumerate().for_each(|(block, base)| {
        let begin = block * BLOCK;
        for (i, chunk) in base.iter_mut().enumerate() {
            let here = copies.iter().map(|copy| &copy[begin + i]);
            match rule {
                Rule::Sum => add_sum(chunk, here),
                Rule::Mean => add_mean(chunk, here),
            }
        }
    });
}

#[inline]
fn add_sum<'a>(chunk: &mut Chunk, copies: impl Iterator<Item = &'a Chunk>) {
    let mut sum = [0f32; WIDTH];
    for copy in copies {
        (0..WIDTH).for_each(|l| sum[l] += copy.0[l] - chunk.0[l]);
    }
    (0..WIDTH).for_each(|l| chunk.0[l] += sum[l]);
}

#[inline]
fn add_mean<'a>(chunk: &mut Chunk, copies: impl Iterator<Item = &'a Chunk>) {
    let mut sum = [0f32; WIDTH];
    let mut changed = 0u32;
    for copy in copies.filter(|copy| *copy != chunk) {
        (0..WIDTH).for_each(|l| sum[l] += copy.0[l] - chunk.0[l]);
        changed += 1;
    }
    let divisor = changed.max(1) as f32;
    (0..WIDTH).for_each(|l| chunk.0[l] += sum[l] / divisor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_joined_over_those_who_made_them() {
        let chunk = |x: f32| Chunk([x; WIDTH]);
        for (rule, expected) in [(Rule::Mean, 1.125), (Rule::Sum, 1.25)] {
            let mut base = vec![chunk(1.0); 5000];
            let (a, mut b) = (vec![chunk(1.5); 5000], vec![chunk(0.75); 5000]);
            b[4999] = chunk(1.0);
            add_changes(&mut base, &[&a, &b], rule);
            assert!(base[..4999].iter().all(|c| *c == chunk(expected)), "{rule:?}");
            assert_eq!(base[4999], chunk(1.5), "what one shard alone changed counts whole");
            add_changes(&mut base, &[&a], rule);
            assert_eq!(base, a);
        }
    }
}
