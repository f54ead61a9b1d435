//! A tile's result as bytes, for the journal: little-endian words.

use super::kernel::{Edge, Neighbour, Partial};
use super::tally::{Count, PairTally, Tally};

struct Out(Vec<u8>);

impl Out {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn count(&mut self, count: Count) {
        self.u64(count.distinct);
        self.u64(count.images);
    }

    fn cells(&mut self, tally: &PairTally) {
        let cells = tally.cells();
        self.u64(cells.len() as u64);
        for (shared, union, count) in cells {
            self.u32(shared);
            self.u32(union);
            self.count(count);
        }
    }
}

/// Writes a partial result.
pub fn encode(partial: &Partial) -> Vec<u8> {
    let mut out = Out(Vec::new());
    out.cells(&partial.tally.all);
    out.cells(&partial.tally.full);
    for bin in partial.tally.bytes.bins {
        out.count(bin);
    }
    out.u128(partial.tally.bytes.distinct_bytes);
    out.u128(partial.tally.bytes.image_bytes);
    out.u64(partial.neighbours.len() as u64);
    for row in &partial.neighbours {
        out.u32(row.len() as u32);
        for n in row {
            out.u32(n.index);
            out.u32(n.shared);
            out.u32(n.union);
        }
    }
    out.u64(partial.edges.len() as u64);
    for edge in &partial.edges {
        out.u32(edge.first);
        out.u32(edge.second);
        out.u32(edge.shared);
    }
    out.0
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Option<Count> {
        Some(Count { distinct: self.u64()?, images: self.u64()? })
    }

    fn cells(&mut self, tally: &mut PairTally, largest: u32) -> Option<()> {
        for _ in 0..self.u64()? {
            let (shared, union) = (self.u32()?, self.u32()?);
            if shared > largest || union > 2 * largest {
                return None;
            }
            tally.at(shared, union).add(self.count()?);
        }
        Some(())
    }
}

/// Reads a partial result back; `largest` is the size of the largest set. `None` if the bytes are
/// not what [`encode`] writes.
pub fn decode(bytes: &[u8], largest: u32) -> Option<Partial> {
    let mut input = In(bytes);
    let mut tally = Tally::new(largest);
    input.cells(&mut tally.all, largest)?;
    input.cells(&mut tally.full, largest)?;
    for bin in &mut tally.bytes.bins {
        *bin = input.count()?;
    }
    tally.bytes.distinct_bytes = input.take().map(u128::from_le_bytes)?;
    tally.bytes.image_bytes = input.take().map(u128::from_le_bytes)?;
    let mut neighbours = Vec::new();
    for _ in 0..input.u64()? {
        let mut row = Vec::new();
        for _ in 0..input.u32()? {
            row.push(Neighbour { index: input.u32()?, shared: input.u32()?, union: input.u32()? });
        }
        neighbours.push(row);
    }
    let mut edges = Vec::new();
    for _ in 0..input.u64()? {
        edges.push(Edge { first: input.u32()?, second: input.u32()?, shared: input.u32()? });
    }
    input.0.is_empty().then_some(Partial { tally, neighbours, edges })
}
