//! Rows rearranged for the kernels: panels of a fixed number of rows, coordinate by coordinate.

use super::super::rows::Rows;
use std::ops::Range;

/// Rows of i in a micro-tile.
pub const MR: usize = 8;
/// Rows of j in a micro-tile.
pub const NR: usize = 48;

/// Packs rows into panels of `width`: `panel[k * width + r]` is coordinate k of the panel's row r.
/// Missing rows of the last panel are zeros. `into` is `len.div_ceil(width) * width * dims` long.
pub fn pack(rows: &Rows<'_>, range: Range<u32>, width: usize, into: &mut [f32]) {
    let dims = rows.dims();
    for (p, panel) in into.chunks_exact_mut(width * dims).enumerate() {
        let first = range.start as usize + p * width;
        let here = (range.end as usize).saturating_sub(first).min(width);
        // Eight rows at a time: eight streams are read, and whole cache lines are written.
        for group in (0..width).step_by(8) {
            let present = here.saturating_sub(group).min(8);
            if present == 8 {
                let rows: [&[f32]; 8] = std::array::from_fn(|r| rows.row(first + group + r));
                for (k, line) in panel.chunks_exact_mut(width).enumerate() {
                    for (r, row) in rows.iter().enumerate() {
                        line[group + r] = row[k];
                    }
                }
                continue;
            }
            for line in panel.chunks_exact_mut(width) {
                line[group..group + 8].fill(0.0);
            }
            for r in 0..present {
                for (k, v) in rows.row(first + group + r).iter().enumerate() {
                    panel[k * width + group + r] = *v;
                }
            }
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
        for width in [MR, NR] {
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
