//! Rows rearranged for the kernels: panels of a fixed number of rows, coordinate by coordinate.

use super::super::rows::Rows;
use std::ops::Range;

/// Pairs in a micro-tile, whatever its shape.
pub const PAIRS: usize = 384;
/// Most rows i of a micro-tile.
pub const MOST_ROWS: usize = 24;
/// Most rows j of a micro-tile.
pub const MOST_COLUMNS: usize = 48;

/// A micro-tile of a kernel, and how its rows lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows i.
    pub rows: usize,
    /// Rows j: `rows * columns` is [`PAIRS`].
    pub columns: usize,
    /// Rows i that are packed into a panel together; panels of a micro-tile follow each other.
    pub together: usize,
}

impl Shape {
    /// Eight rows with all their columns at once: for 32 registers of 16 numbers, and in general.
    pub const WIDE: Self = Self { rows: 8, columns: 48, together: 8 };
    /// Six rows at a time, for 16 registers of 8 numbers.
    pub const TALL: Self = Self { rows: 24, columns: 16, together: 6 };
}

/// Packs rows into panels of `width`: `panel[k * width + r]` is coordinate k of the panel's row r.
/// Missing rows of the last panel are zeros. `into` is `len.div_ceil(width) * width * dims` long.
pub fn pack(rows: &Rows<'_>, range: Range<u32>, width: usize, into: &mut [f32]) {
    let dims = rows.dims();
    for (p, panel) in into.chunks_exact_mut(width * dims).enumerate() {
        let first = range.start as usize + p * width;
        let here = (range.end as usize).saturating_sub(first).min(width);
        // Eight rows at a time: eight streams are read, and whole cache lines are written.
        for group in (0..width).step_by(8) {
            let wide = (width - group).min(8);
            let present = here.saturating_sub(group).min(wide);
            match present {
                8 => {
                    interleave::<8>(rows, first + group, group, width, panel);
                    continue;
                }
                6 if wide == 6 => {
                    interleave::<6>(rows, first + group, group, width, panel);
                    continue;
                }
                _ => (),
            }
            for line in panel.chunks_exact_mut(width) {
                line[group..group + wide].fill(0.0);
            }
            for r in 0..present {
                for (k, v) in rows.row(first + group + r).iter().enumerate() {
                    panel[k * width + group + r] = *v;
                }
            }
        }
    }
}

fn interleave<const N: usize>(rows: &Rows<'_>, first: usize, at: usize, width: usize, panel: &mut [f32]) {
    let rows: [&[f32]; N] = std::array::from_fn(|r| rows.row(first + r));
    for (k, line) in panel.chunks_exact_mut(width).enumerate() {
        for (r, row) in rows.iter().enumerate() {
            line[at + r] = row[k];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_place() {
        let (n, d) = (53, 5);
        let values: Vec<f32> = (0..n * d).map(|v| v as f32 + 1.0).collect();
        let rows = Rows::new(&values, d);
        for width in [6, 8, 16, 48] {
            let range = 3u32..52;
            let panels = range.len().div_ceil(width);
            let mut packed = vec![f32::NAN; panels * width * d];
            pack(&rows, range.clone(), width, &mut packed);
            for (at, v) in packed.iter().enumerate() {
                let (panel, k, r) = (at / (width * d), at % (width * d) / width, at % width);
                let i = range.start as usize + panel * width + r;
                let expected = if i < range.end as usize { rows.row(i)[k] } else { 0.0 };
                assert_eq!(*v, expected, "width {width}, panel {panel}, coordinate {k}, row {r}");
            }
        }
    }
}
