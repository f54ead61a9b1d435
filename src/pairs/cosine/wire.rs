//! A tile's result as bytes, for the journal: little-endian words.

use super::best::{Candidate, Candidates};
use super::bins::Count;
use super::extent::Extent;
use super::filter::Edge;
use super::matrix::Place;

/// What a tile found, settled.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Partial {
    /// `(bin, pairs)` of the bins that are not empty.
    pub counts: Vec<(u32, Count)>,
    /// Least and highest score among pairs that may be either, in each way to count.
    pub extents: [Extent; 4],
    /// Pairs that were scored in f64.
    pub rechecked: u64,
    /// Possible neighbours by row; rows may come more than once.
    pub neighbours: Candidates,
    /// Pairs over the threshold.
    pub edges: Vec<Edge>,
    /// Where the tile's part of the matrix is.
    pub place: Option<Place>,
}

/// Writes a partial result.
pub fn encode(partial: &Partial) -> Vec<u8> {
    let lists = partial.neighbours.rows.len() + partial.neighbours.all.len();
    let mut out = Vec::with_capacity(64 + partial.counts.len() * 36 + lists * 8 + partial.edges.len() * 12);
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    for Extent { low, high } in partial.extents {
        put(&low.to_le_bytes());
        put(&high.to_le_bytes());
    }
    put(&partial.rechecked.to_le_bytes());
    put(&(partial.counts.len() as u64).to_le_bytes());
    for (bin, count) in &partial.counts {
        put(&bin.to_le_bytes());
        count.iter().for_each(|c| put(&c.to_le_bytes()));
    }
    put(&(partial.neighbours.rows.len() as u64).to_le_bytes());
    for (row, neighbours) in partial.neighbours.by_row() {
        put(&row.to_le_bytes());
        put(&(neighbours.len() as u32).to_le_bytes());
        for n in neighbours {
            put(&n.index.to_le_bytes());
            put(&n.score.to_le_bytes());
        }
    }
    put(&(partial.edges.len() as u64).to_le_bytes());
    for edge in &partial.edges {
        put(&edge.first.to_le_bytes());
        put(&edge.second.to_le_bytes());
        put(&edge.score.to_le_bytes());
    }
    let place = partial.place.map(|p| [p.rank, p.attempt, p.first]);
    for word in place.iter().flatten() {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn words(&mut self, count: usize) -> Option<&[[u8; 4]]> {
        let (head, rest) = self.0.split_at_checked(count.checked_mul(4)?)?;
        self.0 = rest;
        Some(head.as_chunks().0)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn f32(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }
}

/// Reads a partial result of `n` rows and `bins` bins back. `None` if the bytes are not what
/// [`encode`] writes.
pub fn decode(bytes: &[u8], n: u32, bins: usize) -> Option<Partial> {
    let mut input = In(bytes);
    let mut partial = Partial::default();
    for extent in &mut partial.extents {
        *extent = Extent { low: input.f64()?, high: input.f64()? };
    }
    partial.rechecked = input.u64()?;
    for _ in 0..input.u64()? {
        let bin = input.u32().filter(|b| (*b as usize) < bins)?;
        partial.counts.push((bin, [input.u64()?, input.u64()?, input.u64()?, input.u64()?]));
    }
    let lists = input.u64()?;
    // At most; mostly nothing else is left.
    partial.neighbours.all.reserve(input.0.len() / 8);
    for _ in 0..lists {
        let row = input.u32().filter(|r| *r < n)?;
        let count = input.u32()?;
        let words = input.words(2 * count as usize)?;
        let all = words.as_chunks::<2>().0.iter();
        let all = all.map(|[index, score]| [index, score].map(|word| u32::from_le_bytes(*word)));
        let all = all.map(|[index, score]| Candidate { index, score: f32::from_bits(score) });
        let before = partial.neighbours.all.len();
        partial.neighbours.all.extend(all);
        partial.neighbours.rows.push((row, count));
        if partial.neighbours.all[before..].iter().any(|candidate| candidate.index >= n) {
            return None;
        }
    }
    for _ in 0..input.u64()? {
        let [first, second] = [input.u32().filter(|r| *r < n)?, input.u32().filter(|r| *r < n)?];
        partial.edges.push(Edge { first, second, score: input.f32()? });
    }
    if !input.0.is_empty() {
        partial.place = Some(Place { rank: input.u32()?, attempt: input.u32()?, first: input.u32()? });
    }
    input.0.is_empty().then_some(partial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_and_nothing_else() {
        let partial = Partial {
            counts: vec![(3, [1, 2, 3, u64::MAX])],
            extents: [(-0.5, f64::NEG_INFINITY), (0.0, 1.0), (f64::INFINITY, f64::NEG_INFINITY), (0.25, 0.5)]
                .map(|(low, high)| Extent { low, high }),
            rechecked: 9,
            neighbours: Candidates {
                rows: vec![(2, 1), (0, 0)],
                all: vec![Candidate { index: 1, score: 0.25 }],
            },
            edges: vec![Edge { first: 0, second: 4, score: 0.5 }],
            place: None,
        };
        let placed = Partial { place: Some(Place { rank: 1, attempt: 2, first: 3 }), ..partial.clone() };
        assert_eq!(decode(&encode(&placed), 5, 4), Some(placed));
        let bytes = encode(&partial);
        assert_eq!(decode(&bytes, 5, 4), Some(partial));
        assert_eq!(decode(&bytes, 4, 4), None);
        assert_eq!(decode(&bytes, 5, 3), None);
        let stranger =
            Partial { edges: vec![Edge { first: 5, second: 0, score: 0.5 }], ..Partial::default() };
        assert_eq!(decode(&encode(&stranger), 5, 4), None);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 5, 4), None);
        }
    }
}
