//! Rows along the axes of [`super::axes`], and the second look at pairs.

use super::super::exact;
use super::super::rows::Rows;
use super::axes::{Axes, LEAD, Reach, turn};
use super::pack::{integers, quantize};
use rayon::prelude::*;
use std::ops::{Deref, Range};
use std::sync::OnceLock;

/// Rows that are turned together.
const BLOCK: usize = 256;
/// Memory for turned rows of one rank, in bytes; with more rows the others are turned for each tile.
const MEMORY: usize = 96 << 20;

/// Words of two coordinates in a line.
pub const LINE: usize = 16;

/// A part of a tail: the widest vector of integers, aligned.
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Line(pub [u32; LINE]);

/// Some neighbouring rows.
#[derive(Debug)]
struct Block {
    words: Vec<u32>,
    tails: Vec<Line>,
    reach: Vec<Reach>,
}

impl Block {
    fn new(axes: &Axes, rows: &Rows<'_>, range: Range<usize>) -> Self {
        let (dims, n) = (axes.dims, range.len());
        let turned = turn(&axes.basis, dims, range.map(|i| rows.row(i)));
        let (lines, tail_lines) = (axes.lines(), axes.tail_lines());
        let (mut words, mut tails) = (vec![0; n * lines], vec![Line::default(); n * tail_lines]);
        let parts = turned.chunks_exact(dims).zip(words.chunks_exact_mut(lines));
        let reach =
            parts.zip(tails.chunks_exact_mut(tail_lines)).map(|((y, words), tail)| lay(axes, y, words, tail));
        let reach = reach.collect();
        Self { words, tails, reach }
    }
}

/// Writes a turned row as lead, head and tail; gives the bounds.
fn lay(axes: &Axes, y: &[f32], words: &mut [u32], tail: &mut [Line]) -> Reach {
    let (lead, head) = words.split_at_mut(LEAD);
    lead.iter_mut().zip(y).for_each(|(word, v)| *word = v.to_bits());
    let parts = [
        (&y[LEAD..axes.split], head, &axes.head),
        (&y[axes.split..axes.cut], bytemuck::cast_slice_mut(tail), &axes.tail),
    ];
    let (mut squares, mut rest) = ([0.0f64; 2], 0.0f64);
    for (p, (values, words, how)) in parts.into_iter().enumerate() {
        if how.fit(values) {
            quantize(values, how.scale, &mut words[..values.len().div_ceil(2)]);
        }
        for (v, q) in values.iter().zip(integers(words)) {
            let (v, q) = (f64::from(*v), f64::from(q) / f64::from(how.scale));
            squares[p] += v * v;
            rest += (v - q) * (v - q);
        }
    }
    let [head, tail] = squares;
    let after = exact::score(&y[axes.cut..], &y[axes.cut..]);
    Reach::new([(tail + after).sqrt(), after.sqrt()], (head + tail).sqrt(), rest.sqrt())
}

/// All turned rows, as far as they are needed and fit.
#[derive(Debug)]
pub struct Store {
    blocks: Vec<OnceLock<Block>>,
    kept: usize,
}

enum Held<'a> {
    Kept(&'a Block),
    Own(Box<Block>),
}

impl Deref for Held<'_> {
    type Target = Block;
    fn deref(&self) -> &Block {
        match self {
            Held::Kept(block) => block,
            Held::Own(block) => block,
        }
    }
}

/// The turned rows of a range.
pub struct Turned<'a> {
    blocks: Vec<Held<'a>>,
    first: usize,
    lines: usize,
    tail_lines: usize,
}

impl Store {
    /// For `n` rows; none is turned yet.
    pub fn new(axes: &Axes, n: usize) -> Self {
        let blocks = std::iter::repeat_with(OnceLock::new).take(n.div_ceil(BLOCK)).collect();
        Self { blocks, kept: MEMORY / (BLOCK * Self::row(axes)) }
    }

    /// Bytes of a turned row.
    fn row(axes: &Axes) -> usize {
        4 * axes.lines() + size_of::<Line>() * axes.tail_lines() + size_of::<Reach>()
    }

    /// Memory that it comes to, in bytes, with those rows of a tile of `edge` that are not kept.
    pub fn memory(&self, axes: &Axes, edge: usize) -> usize {
        let (kept, all) = (self.kept.min(self.blocks.len()), self.blocks.len());
        let beside = (all - kept).min(2 * (edge / BLOCK + 2));
        (kept + beside) * BLOCK * Self::row(axes)
    }

    /// Gives the memory back; rows that are wanted again are turned again.
    pub fn clear(&mut self) {
        self.blocks.iter_mut().for_each(|block| drop(block.take()));
    }

    /// The rows in `range`, turned.
    pub fn rows<'a>(&'a self, axes: &Axes, rows: &Rows<'_>, range: Range<u32>) -> Turned<'a> {
        let first = range.start as usize / BLOCK;
        let wanted = first..(range.end as usize).div_ceil(BLOCK);
        let make = |b: usize| Block::new(axes, rows, b * BLOCK..((b + 1) * BLOCK).min(rows.len()));
        let held = |b: usize| match b < self.kept {
            true => Held::Kept(self.blocks[b].get_or_init(|| make(b))),
            false => Held::Own(Box::new(make(b))),
        };
        let blocks = wanted.into_par_iter().map(held).collect();
        Turned { blocks, first, lines: axes.lines(), tail_lines: axes.tail_lines() }
    }
}

impl Turned<'_> {
    #[inline]
    fn place(&self, i: u32) -> (&Block, usize) {
        (&self.blocks[i as usize / BLOCK - self.first], i as usize % BLOCK)
    }

    /// Lead and head of a row.
    #[inline]
    pub fn words(&self, i: u32) -> &[u32] {
        let (block, r) = self.place(i);
        &block.words[r * self.lines..][..self.lines]
    }

    /// Its tail.
    #[inline]
    pub fn tail(&self, i: u32) -> &[Line] {
        let (block, r) = self.place(i);
        &block.tails[r * self.tail_lines..][..self.tail_lines]
    }

    /// Its bounds.
    #[inline]
    pub fn reach(&self, i: u32) -> Reach {
        let (block, r) = self.place(i);
        block.reach[r]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bound;
    use super::*;
    use crate::pairs::cosine::bins::Bins;
    use crate::pairs::cosine::exact::score;
    use crate::pairs::cosine::rows::normalize;
    use proptest::prelude::*;

    fn sum(x: &[u32], y: &[u32]) -> i32 {
        let products = integers(x).zip(integers(y)).map(|(x, y)| i32::from(x) * i32::from(y));
        products.fold(0i32, |sum, p| sum.checked_add(p).expect("sums fit"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Scores without and with the tail keep to what is claimed of them, also those of rows like
        /// none that the axes were learned from.
        #[test]
        fn scores_are_within_their_bounds(
            dims in 64usize..150,
            directions in 1usize..70,
            n in 5000usize..5100,
            noise in prop_oneof![Just(0.0), Just(1e-6), Just(0.01), Just(0.3)],
            fine: bool,
            short: bool,
            seed: u64,
        ) {
            use rand_chacha::rand_core::{Rng, SeedableRng};
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut real = move || f64::from(random.next_u32()) / f64::from(u32::MAX) - 0.5;
            let axes: Vec<Vec<f64>> = (0..directions).map(|_| (0..dims).map(|_| real()).collect()).collect();
            let mut values = Vec::new();
            for i in 0..n {
                let mut row: Vec<f64> = (0..dims).map(|_| noise * real()).collect();
                for (k, axis) in axes.iter().enumerate() {
                    let share = real() / (k + 1) as f64 + f64::from(u8::from(k == 0));
                    row.iter_mut().zip(axis).for_each(|(v, a)| *v += share * a);
                }
                // Every second row is in the sample; one that is not is like no other, one is zero.
                match i {
                    101 => row = (0..dims).map(|k| f64::from(u8::from(k == seed as usize % dims))).collect(),
                    103 => row.fill(0.0),
                    _ => (),
                }
                normalize(&row, &mut values).unwrap();
            }
            let rows = Rows::new(&values, dims);
            let edges = if fine { (-100..=100).map(|i| f64::from(i) / 100.0).collect() } else { vec![-1.0, 0.0, 1.0] };
            let bins = Bins::new(&[edges], &[]).unwrap();
            let bound = Bound::of(&rows, dims);
            let axes = Axes::of(&rows, &bins, &bound).expect("a grid");
            // Tails usually end where next to nothing follows; the bound holds wherever they end.
            let cut = if short { axes.cut.min(axes.split + 8) } else { axes.cut };
            let axes = Axes { cut, ..axes };
            let store = Store::new(&axes, n);
            let turned = store.rows(&axes, &rows, 80..400);
            let constant = f64::from(axes.slack) - bound.error;
            for i in [80u32, 101, 103, 200, 333] {
                for j in 81..400u32 {
                    let (a, b) = (turned.words(i), turned.words(j));
                    let mut head = 0.0f32;
                    for (a, b) in a[..LEAD].iter().zip(&b[..LEAD]) {
                        head = f32::from_bits(*a).mul_add(f32::from_bits(*b), head);
                    }
                    for (a, b) in a[LEAD..].chunks(axes.head.chunk).zip(b[LEAD..].chunks(axes.head.chunk)) {
                        head += sum(a, b) as f32 * axes.head.unit;
                    }
                    let exact = score(rows.row(i as usize), rows.row(j as usize));
                    let (x, y) = (turned.reach(i), turned.reach(j));
                    let off = (f64::from(head) - exact).abs();
                    prop_assert!(off <= f64::from(x.head) * f64::from(y.head) + constant, "{} {}: {}", i, j, off);
                    let tails = sum(bytemuck::cast_slice(turned.tail(i)), bytemuck::cast_slice(turned.tail(j)));
                    let whole = head + tails as f32 * axes.tail.unit;
                    let off = (f64::from(whole) - exact).abs();
                    prop_assert!(off <= f64::from(x.whole) * f64::from(y.whole) + constant, "{} {}: {} with the tail", i, j, off);
                }
            }
        }
    }
}
