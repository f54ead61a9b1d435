//! Which tiles a run consists of. The plan depends on the number of items and the tile edges only,
//! never on ranks or threads.

use std::ops::Range;

/// Which part of the n x n square is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The pairs i < j, each once: all that a histogram needs.
    Triangle,
    /// All ordered pairs: every row is whole, as a row's neighbours need it.
    Square,
}

/// One rectangle of the square.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Position in the plan, from 0.
    pub id: u32,
    /// Items i.
    pub rows: Range<u32>,
    /// Items j.
    pub columns: Range<u32>,
}

/// The tiles over n items: blocks of `row_edge` x `column_edge`, row blocks first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    n: u32,
    row_edge: u32,
    column_edge: u32,
    shape: Shape,
    /// Id of the first tile of each row block, and the number of tiles.
    starts: Vec<u32>,
}

impl Plan {
    /// A plan for `n` items. Edges are clamped to `1..=n`.
    ///
    /// # Panics
    /// If there are 2^32 tiles or more.
    pub fn new(n: u32, row_edge: u32, column_edge: u32, shape: Shape) -> Self {
        let row_edge = row_edge.clamp(1, n.max(1));
        let column_edge = column_edge.clamp(1, n.max(1));
        let mut plan = Self { n, row_edge, column_edge, shape, starts: vec![0] };
        let mut tiles = 0u64;
        for block in 0..n.div_ceil(row_edge) {
            tiles += u64::from(plan.column_blocks(block).len() as u32);
            plan.starts.push(u32::try_from(tiles).expect("fewer than 2^32 tiles"));
        }
        plan
    }

    /// Number of items.
    pub fn items(&self) -> u32 {
        self.n
    }

    /// Which part of the square is covered.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of tiles.
    pub fn tiles(&self) -> u32 {
        *self.starts.last().unwrap_or(&0)
    }

    /// The tile with this id.
    ///
    /// # Panics
    /// If the plan has no such tile.
    pub fn tile(&self, id: u32) -> Tile {
        assert!(id < self.tiles(), "tile {id} of {}", self.tiles());
        let block = self.starts.partition_point(|s| *s <= id) as u32 - 1;
        let column_block = self.column_blocks(block).start + (id - self.starts[block as usize]);
        let cut = |block: u32, edge: u32| {
            let start = block * edge;
            start..start.saturating_add(edge).min(self.n)
        };
        Tile { id, rows: cut(block, self.row_edge), columns: cut(column_block, self.column_edge) }
    }

    fn column_blocks(&self, row_block: u32) -> Range<u32> {
        let end = self.n.div_ceil(self.column_edge);
        match self.shape {
            Shape::Square => 0..end,
            Shape::Triangle => match row_block * self.row_edge + 1 {
                first if first < self.n => first / self.column_edge..end,
                _ => end..end,
            },
        }
    }

    /// A line that tells this plan from every other; part of a journal's fingerprint.
    pub fn describe(&self) -> String {
        let Self { n, row_edge, column_edge, shape, .. } = self;
        format!("plan n={n} rows={row_edge} columns={column_edge} shape={shape:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_every_pair_once(n in 0u32..60, rows in 1u32..70, columns in 1u32..70, square: bool) {
            let shape = if square { Shape::Square } else { Shape::Triangle };
            let plan = Plan::new(n, rows, columns, shape);
            let mut seen = vec![0u8; (n * n) as usize];
            for id in 0..plan.tiles() {
                let tile = plan.tile(id);
                prop_assert_eq!(tile.id, id);
                let mut used = false;
                for i in tile.rows {
                    for j in tile.columns.clone() {
                        seen[(i * n + j) as usize] += 1;
                        used |= square || i < j;
                    }
                }
                prop_assert!(used, "a tile without a pair");
            }
            for i in 0..n {
                for j in 0..n {
                    if square || i < j {
                        prop_assert_eq!(seen[(i * n + j) as usize], 1);
                    }
                    prop_assert!(seen[(i * n + j) as usize] <= 1);
                }
            }
        }
    }
}
