//! Joining what shards changed, in shard order, whoever trained them.
//!
//! Only rows that some shard touched since the last merge are read, joined and given back to the
//! copies; all others are equal in the model and in every copy, and stay. A row of the model has no
//! zero with a sign (sums begin at +0, so a merge never makes one), so adding no change at all would
//! leave the same bits: the result is that of joining every row.

use super::lanes::{Chunk, WIDTH};
use super::marks::{BLOCK, Marks, rows_of};
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

/// The model as one shard trains it.
#[derive(Debug)]
pub struct Replica {
    /// All rows.
    pub rows: Vec<Chunk>,
    /// Those that may differ from the model.
    pub touched: Marks,
}

impl Replica {
    /// A copy of a model with rows of so many chunks.
    pub fn new(base: &[Chunk], width: usize) -> Self {
        Self { rows: base.to_vec(), touched: Marks::new(base.len() / width) }
    }
}

/// Joins the changes of all shards in `base`, which is the same on all ranks before and after, and
/// makes the copies (`mine`, those of this rank's shards) equal to it. Rows are `width` chunks.
/// Collective.
///
/// Each rank joins a part of the rows, which it gets from the others, and tells them.
pub fn merge(world: &World, base: &mut [Chunk], mine: &mut [Replica], width: usize, plan: &Plan, rule: Rule) {
    let touched: Vec<Vec<u64>> = mine.iter_mut().map(|copy| copy.touched.take()).collect();
    let mut copies: Vec<&mut [Chunk]> = mine.iter_mut().map(|copy| &mut copy.rows[..]).collect();
    let ranks = world.size();
    if ranks == 1 {
        join_here(base, &mut copies, &touched, width, rule);
        return;
    }
    let blocks = base.len().div_ceil(width * BLOCK);
    let part = |rank: usize| rank * blocks / ranks..(rank + 1) * blocks / ranks;
    let outgoing: Vec<Vec<u8>> = (0..ranks)
        .map(|rank| {
            let mut bytes = Vec::new();
            copies
                .iter()
                .zip(&touched)
                .for_each(|(rows, bits)| pack(rows, &bits[part(rank)], part(rank), width, &mut bytes));
            bytes
        })
        .collect();
    let incoming = world.exchange(&outgoing.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let here = part(world.rank());
    let mut packed = Vec::with_capacity(plan.shards());
    for (rank, bytes) in incoming.iter().enumerate() {
        let mut rest = &bytes[..];
        packed.extend(plan.shards_of(rank, ranks).map(|_| Packed::read(&mut rest, here.len(), width)));
    }
    let bits = join_packed(base, here.clone(), &packed, width, rule);
    let mut joined = Vec::new();
    pack(base, &bits, here, width, &mut joined);
    let parts = world.exchange(&vec![joined.as_slice(); ranks]);
    let parts: Vec<Packed> = (parts.iter().enumerate())
        .map(|(rank, bytes)| Packed::read(&mut &bytes[..], part(rank).len(), width))
        .collect();
    std::iter::once(base).chain(copies).par_bridge().for_each(|rows| {
        parts.iter().enumerate().for_each(|(rank, packed)| packed.write(rows, part(rank).start, width));
    });
}

/// The merge of one rank: each row is joined and given to all copies while it is in the cache.
fn join_here(
    base: &mut [Chunk],
    copies: &mut [&mut [Chunk]],
    touched: &[Vec<u64>],
    width: usize,
    rule: Rule,
) {
    let size = width * BLOCK;
    let mut rests: Vec<_> = copies.iter_mut().map(|copy| copy.chunks_mut(size)).collect();
    let mut blocks = Vec::new();
    for (at, base) in base.chunks_mut(size).enumerate() {
        let copies: Vec<&mut [Chunk]> = rests.iter_mut().filter_map(Iterator::next).collect();
        let bits = touched.iter().fold(0, |all, bits| all | bits[at]);
        if bits != 0 {
            blocks.push((at, bits, base, copies));
        }
    }
    blocks.into_par_iter().for_each_init(Vec::new, |sums, (at, bits, base, mut copies)| {
        for row in rows_of(bits) {
            let range = row * width..(row + 1) * width;
            let base = &mut base[range.clone()];
            let changed = copies.iter().zip(touched).filter(|(_, bits)| bits[at] >> row & 1 != 0);
            join(base, changed.map(|(copy, _)| &copy[range.clone()]), touched.len(), sums, rule);
            if touched.len() > 1 {
                copies.iter_mut().for_each(|copy| copy[range.clone()].copy_from_slice(base));
            }
        }
    });
}

/// Joins in `base` what all shards sent of the blocks `here`; returns which rows somebody touched.
fn join_packed(
    base: &mut [Chunk],
    here: Range<usize>,
    shards: &[Packed],
    width: usize,
    rule: Rule,
) -> Vec<u64> {
    let size = width * BLOCK;
    let end = base.len().min(here.end * size);
    let blocks = base[here.start * size..end].par_chunks_mut(size).enumerate();
    let joined = blocks.map_init(Vec::new, |sums, (at, base)| {
        let bits = shards.iter().fold(0, |all, shard| all | shard.bits[at]);
        for row in rows_of(bits) {
            let changed = shards.iter().filter_map(|shard| shard.row(at, row, width));
            join(&mut base[row * width..][..width], changed, shards.len(), sums, rule);
        }
        bits
    });
    joined.collect()
}

/// Rows that were touched, block by block.
struct Packed {
    bits: Vec<u64>,
    /// Rows before each block.
    starts: Vec<usize>,
    rows: Vec<Chunk>,
}

/// Appends the bits of the blocks `here`, then the rows that they name.
fn pack(rows: &[Chunk], bits: &[u64], here: Range<usize>, width: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(bytemuck::cast_slice(bits));
    for (at, bits) in here.zip(bits) {
        for row in rows_of(*bits) {
            bytes.extend_from_slice(bytemuck::cast_slice(&rows[(at * BLOCK + row) * width..][..width]));
        }
    }
}

impl Packed {
    /// Takes the next ones, of so many blocks, from a message.
    fn read(bytes: &mut &[u8], blocks: usize, width: usize) -> Self {
        let mut take = |length: usize| {
            let (here, rest) = bytes.split_at(length);
            *bytes = rest;
            here
        };
        let mut bits = vec![0u64; blocks];
        bytemuck::cast_slice_mut(&mut bits).copy_from_slice(take(blocks * size_of::<u64>()));
        let mut count = 0;
        let starts = bits.iter().map(|bits| {
            let before = count;
            count += bits.count_ones() as usize;
            before
        });
        let starts = starts.collect();
        let mut rows = vec![Chunk::default(); count * width];
        bytemuck::cast_slice_mut(&mut rows).copy_from_slice(take(count * width * size_of::<Chunk>()));
        Self { bits, starts, rows }
    }

    fn row(&self, at: usize, row: usize, width: usize) -> Option<&[Chunk]> {
        let bits = self.bits[at];
        let before = (bits & ((1 << row) - 1)).count_ones() as usize;
        (bits >> row & 1 != 0).then(|| &self.rows[(self.starts[at] + before) * width..][..width])
    }

    /// Puts the rows where they belong; `first` is the block of the first bits.
    fn write(&self, rows: &mut [Chunk], first: usize, width: usize) {
        let mut from = self.rows.chunks(width);
        for (at, bits) in (first..).zip(&self.bits) {
            for (row, from) in rows_of(*bits).zip(&mut from) {
                rows[(at * BLOCK + row) * width..][..width].copy_from_slice(from);
            }
        }
    }
}

/// Joins one row, copies in shard order. `sums` is memory that rows use again and again.
#[inline]
fn join<'a>(
    base: &mut [Chunk],
    copies: impl Iterator<Item = &'a [Chunk]>,
    shards: usize,
    sums: &mut Vec<(Chunk, u32)>,
    rule: Rule,
) {
    if shards == 1 {
        copies.for_each(|copy| base.copy_from_slice(copy));
        return;
    }
    sums.clear();
    sums.resize(base.len(), (Chunk::default(), 0));
    for copy in copies {
        for ((sum, changed), (copy, chunk)) in sums.iter_mut().zip(copy.iter().zip(&*base)) {
            if rule == Rule::Sum || copy != chunk {
                (0..WIDTH).for_each(|l| sum.0[l] += copy.0[l] - chunk.0[l]);
                *changed += 1;
            }
        }
    }
    for (chunk, (sum, changed)) in base.iter_mut().zip(sums.iter()) {
        match rule {
            Rule::Sum => (0..WIDTH).for_each(|l| chunk.0[l] += sum.0[l]),
            Rule::Mean => {
                let divisor = (*changed).max(1) as f32;
                (0..WIDTH).for_each(|l| chunk.0[l] += sum.0[l] / divisor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::random::Stream;
    use proptest::prelude::*;

    /// The definition: every chunk of every row, touched or not.
    fn plainly(base: &[Chunk], copies: &[Vec<Chunk>], rule: Rule) -> Vec<Chunk> {
        if let [copy] = copies {
            return copy.clone();
        }
        let joined = base.iter().enumerate().map(|(i, chunk)| {
            let changed: Vec<&Chunk> = copies
                .iter()
                .map(|copy| &copy[i])
                .filter(|copy| rule == Rule::Sum || *copy != chunk)
                .collect();
            let sum = |l: usize| changed.iter().fold(0f32, |sum, copy| sum + (copy.0[l] - chunk.0[l]));
            let divisor = if rule == Rule::Sum { 1.0 } else { changed.len().max(1) as f32 };
            Chunk(std::array::from_fn(|l| chunk.0[l] + sum(l) / divisor))
        });
        joined.collect()
    }

    fn bits(chunks: &[Chunk]) -> Vec<u32> {
        bytemuck::cast_slice::<_, f32>(chunks).iter().map(|x| x.to_bits()).collect()
    }

    proptest! {
        /// On one rank and as several ranks do it: the bits of the definition, in the model and in
        /// every copy, after several rounds.
        #[test]
        fn only_touched_rows_are_joined_and_the_bits_are_those_of_all(
            (rows, width) in (1usize..200, 1usize..4),
            shards in 1usize..5,
            ranks in 1usize..4,
            rule in prop::sample::select(vec![Rule::Sum, Rule::Mean]),
            share in prop::sample::select(vec![0u32, 1, 10, 99, 100]),
            seed in any::<u64>(),
        ) {
            let mut stream = Stream::new([seed, 0, 0, 0]);
            let mut base: Vec<Chunk> =
                (0..rows * width).map(|_| Chunk(std::array::from_fn(|_| stream.unit() - 0.5))).collect();
            // Zeros, as outputs have at the beginning.
            base[..rows / 2 * width].fill(Chunk::default());
            let mut replicas: Vec<Replica> = (0..shards).map(|_| Replica::new(&base, width)).collect();
            for _ in 0..3 {
                for replica in &mut replicas {
                    for row in 0..rows {
                        if stream.below(100) < share {
                            replica.touched.mark(row);
                            // Some are touched and not changed, and some zeros get a sign.
                            match stream.below(4) {
                                0 => (),
                                1 => replica.rows[row * width].0[3] *= -1.0,
                                _ => replica.rows[row * width..][..width].iter_mut().for_each(|chunk| {
                                    chunk.0.iter_mut().for_each(|x| *x += (stream.unit() - 0.5) / 64.0);
                                }),
                            }
                        }
                    }
                }
                let trained: Vec<Vec<Chunk>> = replicas.iter().map(|replica| replica.rows.clone()).collect();
                let expected = plainly(&base, &trained, rule);
                let touched: Vec<Vec<u64>> = replicas.iter_mut().map(|replica| replica.touched.take()).collect();

                // What ranks would send each other.
                let blocks = rows.div_ceil(BLOCK);
                let mut sent = base.clone();
                for rank in 0..ranks {
                    let part = rank * blocks / ranks..(rank + 1) * blocks / ranks;
                    let mut message = Vec::new();
                    trained.iter().zip(&touched).for_each(|(rows, bits)| {
                        pack(rows, &bits[part.clone()], part.clone(), width, &mut message);
                    });
                    let mut rest = &message[..];
                    let packed: Vec<_> = trained.iter().map(|_| Packed::read(&mut rest, part.len(), width)).collect();
                    prop_assert!(rest.is_empty());
                    let mut there = base.clone();
                    let bits = join_packed(&mut there, part.clone(), &packed, width, rule);
                    let mut answer = Vec::new();
                    pack(&there, &bits, part.clone(), width, &mut answer);
                    Packed::read(&mut &answer[..], part.len(), width).write(&mut sent, part.start, width);
                }
                prop_assert_eq!(bits(&sent), bits(&expected), "packed");

                let mut copies: Vec<&mut [Chunk]> = replicas.iter_mut().map(|replica| &mut replica.rows[..]).collect();
                join_here(&mut base, &mut copies, &touched, width, rule);
                prop_assert_eq!(bits(&base), bits(&expected), "here");
                for replica in &replicas {
                    prop_assert_eq!(bits(&replica.rows), bits(&expected), "a copy is not what was joined");
                }
            }
        }
    }

    #[test]
    fn changes_are_joined_over_those_who_made_them() {
        let chunk = |x: f32| Chunk([x; WIDTH]);
        for (rule, expected) in [(Rule::Mean, 1.125), (Rule::Sum, 1.25)] {
            let mut base = vec![chunk(1.0); 2];
            let (mut a, mut b) = (vec![chunk(1.5); 2], vec![chunk(0.75), chunk(1.0)]);
            join_here(&mut base, &mut [&mut a, &mut b], &[vec![0b11], vec![0b01]], 1, rule);
            assert_eq!(base, [chunk(expected), chunk(1.5)], "what one shard alone changed counts whole");
            assert_eq!((&a, &b), (&base, &base));
        }
    }
}
