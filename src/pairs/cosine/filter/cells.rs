//! From a score in f32 to a bin, or to "in doubt".
//!
//! Kernels sort scores into *cells*. A cell lies in one bin; a score too near to a threshold of the
//! bins for the error bound gets no cell and is scored again in f64.

use super::super::bins::Bins;
use super::Bound;

/// Most cells that a [`Judge::Grid`] has; cells are counted in tables that should stay in the first
/// level cache.
const MOST_CELLS: f64 = 4000.0;

/// Thresholds nearer than this are one boundary to the filter.
const SAME: f64 = 1e-12;

/// How scores become cells.
#[derive(Debug, Clone, PartialEq)]
pub enum Judge {
    /// All boundaries lie on a grid: with `x = score * scale + offset` the cell is x rounded to the
    /// nearest integer (ties to even), and in doubt if x is more than `limit` away from it.
    Grid {
        /// Cells in a unit of score.
        scale: f32,
        /// Moves the first cell to 0.
        offset: f32,
        /// Below 0.5 by the error bound and the rounding of x.
        limit: f32,
    },
    /// Any boundaries, ascending: the cell is the number of boundaries at or below the score, and
    /// in doubt if a boundary is within the margin.
    List {
        /// Rounded to f32; the margins allow for that.
        boundaries: Vec<f32>,
        /// Distance in which a score is in doubt.
        margin: f32,
    },
}

/// Cells and the bins they lie in.
#[derive(Debug, Clone, PartialEq)]
pub struct Cells {
    /// How scores become cells.
    pub judge: Judge,
    /// Bin of each cell.
    pub bins: Vec<u16>,
}

impl Cells {
    /// A grid if the thresholds lie on one that is coarse enough for the error bound, else a list.
    ///
    /// # Panics
    /// With 2^16 bins or more.
    pub fn new(bins: &Bins, bound: &Bound) -> Self {
        assert!(bins.len() < 1 << 16, "too many bins");
        Self::grid(bins, bound).unwrap_or_else(|| Self::list(bins, bound))
    }

    /// The cell of scores that are in doubt or no pair at all; it is counted and ignored.
    pub fn none(&self) -> u16 {
        self.bins.len() as u16
    }

    fn boundaries(bins: &Bins) -> Vec<f64> {
        let mut boundaries: Vec<f64> = Vec::new();
        for t in bins.thresholds() {
            if boundaries.last().is_none_or(|last| t - last > SAME) {
                boundaries.push(*t);
            }
        }
        boundaries
    }

    fn grid(bins: &Bins, bound: &Bound) -> Option<Self> {
        let boundaries = Self::boundaries(bins);
        let width = boundaries.windows(2).map(|b| b[1] - b[0]).reduce(f64::min)?;
        let first = *boundaries.first()?;
        let misses = boundaries.iter().map(|b| (b - first) / width).map(|x| (x - x.round()).abs());
        if misses.reduce(f64::max)? > 1e-7 {
            return None;
        }
        let low = first - ((first + bound.largest) / width).ceil().max(0.0) * width;
        let cells = ((bound.largest.max(boundaries[boundaries.len() - 1]) - low) / width).ceil() + 1.0;
        // Edges so large that their distance overflows have no grid, either.
        if !(cells <= MOST_CELLS && width.is_finite() && low.is_finite()) {
            return None;
        }
        // In units of cells: the bound, the boundaries' own deviation from the grid, and the
        // rounding of scale, offset and x, each at most u of a number up to `cells`.
        let doubt = bound.error / width + 2e-7 + 2f64.powi(-24) * (4.0 * cells + 4.0);
        if doubt > 0.25 {
            return None;
        }
        let bins =
            (0..cells as usize).map(|cell| bins.bin(low + (cell as f64 + 0.5) * width) as u16).collect();
        let judge = Judge::Grid {
            scale: (1.0 / width) as f32,
            offset: (-low / width - 0.5) as f32,
            limit: ((0.5 - doubt) as f32).next_down(),
        };
        Some(Self { judge, bins })
    }

    fn list(bins: &Bins, bound: &Bound) -> Self {
        let exact = Self::boundaries(bins);
        let largest = exact.iter().fold(bound.largest, |m, b| m.max(b.abs()));
        let margin = ((bound.error + 2.0 * SAME + 2f64.powi(-23) * largest) as f32).next_up();
        let boundaries: Vec<f32> = exact.iter().map(|b| *b as f32).collect();
        let within = std::iter::once(exact.first().map_or(0.0, |b| b - 1.0))
            .chain(exact.windows(2).map(|b| f64::midpoint(b[0], b[1])))
            .chain(exact.last().map(|b| b + 1.0));
        let bins = within.map(|score| bins.bin(score) as u16).collect();
        Self { judge: Judge::List { boundaries, margin }, bins }
    }

    /// The cell of a score, or `None` in doubt: the definition that kernels follow.
    #[inline]
    pub fn cell(&self, score: f32) -> Option<u16> {
        self.cell_within(score, 0.0)
    }

    /// As [`Cells::cell`] for a score that may be off by `own` more; a list of boundaries knows no
    /// such scores and leaves them in doubt.
    #[inline]
    pub fn cell_within(&self, score: f32, own: f32) -> Option<u16> {
        match &self.judge {
            Judge::Grid { scale, offset, limit } => {
                let x = score * scale + offset;
                // Ties are in doubt, however they are rounded; x is above -1/2.
                let nearest = (x + 0.5) as i32;
                ((x - nearest as f32).abs() + own * scale <= *limit).then_some(nearest as u16)
            }
            Judge::List { .. } if own > 0.0 => None,
            Judge::List { boundaries, margin } => {
                let cell = boundaries.partition_point(|b| *b <= score);
                let near = |b: Option<&f32>| b.is_some_and(|b| (b - score).abs() <= *margin);
                let doubt = near(boundaries.get(cell)) || cell > 0 && near(boundaries.get(cell - 1));
                (!doubt).then_some(cell as u16)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bound(error: f64) -> Bound {
        Bound { chunk: 1, error, one: error, largest: 1.0 + error, square: 1.0 }
    }

    fn tenths() -> Vec<f64> {
        (-5..=10).map(|i| f64::from(i) / 10.0).collect()
    }

    #[test]
    fn the_usual_edges_are_grids() {
        let hundredths: Vec<f64> = (-100..=100).map(|i| f64::from(i) / 100.0).collect();
        for (histograms, twice) in [
            (vec![tenths()], vec![]),
            (vec![tenths()], vec![tenths()]),
            (vec![tenths(), hundredths], vec![tenths()]),
        ] {
            let cells = Cells::new(&Bins::new(&histograms, &twice).unwrap(), &bound(5e-6));
            assert!(matches!(cells.judge, Judge::Grid { .. }));
            assert!(cells.bins.len() < 210, "{}", cells.bins.len());
        }
        let odd = Bins::new(&[vec![0.0, 0.5, 0.9, 0.99]], &[]).unwrap();
        assert!(matches!(Cells::new(&odd, &bound(5e-6)).judge, Judge::List { .. }));
    }

    proptest! {
        /// Whatever the edges: a score that gets a cell has every f64 score within the bound in the
        /// cell's bin.
        #[test]
        fn a_cell_is_never_wrong(
            edges in prop_oneof![
                Just(tenths()),
                (1u32..40, -8i32..0).prop_map(|(n, first)| (0..=n).map(|i| f64::from(first) / 8.0 + f64::from(i) / 32.0).collect()),
                prop::collection::btree_set(-1000i32..1000, 2..9)
                    .prop_map(|cuts| cuts.into_iter().map(|c| f64::from(c) / 999.0).collect::<Vec<_>>()),
            ],
            error in prop_oneof![Just(1e-7), Just(5e-6), Just(1e-3)],
            scores in prop::collection::vec(-1.0f32..1.0, 50),
            steps in prop::collection::vec(-3i32..4, 50),
            apart: bool,
        ) {
            let twice = if apart { vec![edges.clone()] } else { vec![] };
            let bins = Bins::new(std::slice::from_ref(&edges), &twice).unwrap();
            let bound = bound(error);
            let cells = Cells::new(&bins, &bound);
            let near: Vec<f32> = edges.iter().zip(steps).map(|(e, s)| (*e + f64::from(s) * error * 0.7) as f32).collect();
            let mut settled = 0;
            for score in scores.iter().chain(&near).filter(|s| f64::from(s.abs()) <= bound.largest) {
                let Some(cell) = cells.cell(*score) else { continue };
                settled += 1;
                let bin = usize::from(cells.bins[usize::from(cell)]);
                for exact in [-error, 0.0, error].map(|e| f64::from(*score) + e) {
                    prop_assert_eq!(bins.bin(exact), bin, "score {} exact {}", score, exact);
                }
            }
            prop_assert!(error > 1e-4 || settled > 25, "only {} settled", settled);
        }
    }
}
