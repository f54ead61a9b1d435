//! Under the cost of a dot product: pairs of families.
//!
//! Rows are in families ([`Families`]) with centres c. For x in family A and y in family B, with
//! x = c_A + dx and y = c_B + dy, over the real numbers
//!
//! ```text
//! x . y = c_A . y + c_B . x - c_A . c_B + dx . dy        and   |dx . dy| <= |dx| |dy|
//! ```
//!
//! whatever the centres are. The first three terms cost a dot product for each row and *family*; with
//! g families for n rows that is 2g/n of the work of all pairs. The rest is some twenty instructions
//! for eight pairs: add the terms up, and decide unless |dx| |dy| and the rounding leave a doubt.
//! What is in doubt gets its distance in f32, which settles near-equal pairs best:
//!
//! ```text
//! x . y = (|x|^2 + |y|^2 - |x - y|^2) / 2
//! ```
//!
//! has the error of |x - y|^2, which is relative: all its terms are positive. What is still in doubt
//! is scored in f64.
//!
//! **Bound.** The three products are within [`Bound::error`] (the larger of the rows' and the centres'
//! own bounds) of the true ones, adding them up rounds twice results of at most 3 times the largest
//! product: 3 error + 8 u largest. |dx| and |dy| are computed in f64 and rounded up. In the
//! distance each difference is rounded once (twice u when squared), each term goes through at most
//! d/32 + 8 roundings in its chain and 7 when the chains are joined: at most (d/32 + 24) u of the
//! whole; norms and score in f64 add 3 (d + 4) 2^-53.

use super::super::bins::{Bins, Count};
use super::super::exact;
use super::super::families::{self, Families};
use super::super::rows::Rows;
use super::cells::{Cells, Judge};
use super::pack::{Line as Aligned, Shape, pack};
use super::scan::{self, Line, Tables};
use super::tally::Scores;
use super::{Ask, Bound, Cpu, Filter, Found};
use crate::pairs::Tile;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows i that a thread takes at a time.
const STRIP: u32 = 48;
/// Rows j that go by before the next row i: they stay in a second-level cache for the distances.
const BLOCK: usize = 256;
/// Rows from which on families can pay.
const LEAST_ROWS: usize = 4096;
/// Bins up to which they can pay: with finer ones nearly all pairs are in doubt.
const MOST_BINS: usize = 64;
/// Costs in units of a score in f32: of deciding a pair, and of a pair in doubt.
const DECIDE: f64 = 0.15;
const DOUBT: f64 = 3.5;
/// Families are taken if the expected cost is below this.
const PAYS: f64 = 0.7;

/// The filter that compares families first. Tiles are ranges of its own order of the rows.
pub struct Grouped<'a> {
    cpu: Cpu,
    bound: Bound,
    cells: Cells,
    grid: [f32; 3],
    matrix: Rows<'a>,
    /// Rows of the matrix in the order of the families.
    order: Vec<u32>,
    weights: Option<Vec<Count>>,
    family: Vec<u32>,
    centres: Vec<f32>,
    /// Distance from the centre, rounded up.
    spread: Vec<f32>,
    /// Squared lengths.
    squares: Vec<f64>,
    /// Error of the sum of three products.
    error: f64,
    /// Relative error of a squared distance in f32, and absolute error of the scores in f64.
    distance_error: [f64; 2],
    high: AtomicU64,
    low: AtomicU64,
}

/// Rows in families, and what these are expected to cost.
pub struct Plan {
    order: Vec<u32>,
    family: Vec<u32>,
    centres: Vec<f32>,
    spread: Vec<f32>,
}

impl Plan {
    /// Families for these rows, if they will pay for these bins. What it says depends on rows and
    /// bins alone: all ranks agree, whatever their CPU.
    pub fn of(rows: &Rows<'_>, bins: &Bins) -> Option<Self> {
        if rows.len() < LEAST_ROWS || bins.len() > MOST_BINS {
            return None;
        }
        let width = bins.thresholds().windows(2).map(|t| t[1] - t[0]).filter(|w| *w > 1e-9);
        let width = width.reduce(f64::min)?;
        let plan = Self::divide(rows, (6.0 * width).clamp(0.05, 2.0) as f32);
        (plan.cost(rows, bins) < PAYS).then_some(plan)
    }

    /// Families of about this spread.
    pub fn divide(rows: &Rows<'_>, spread: f32) -> Self {
        let dims = rows.dims();
        let Families { order, ends } = Families::of(rows, spread);
        let mut family = Vec::with_capacity(order.len());
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let ranges: Vec<Range<usize>> = starts.zip(&ends).map(|(s, e)| s as usize..*e as usize).collect();
        for (f, range) in (0u32..).zip(&ranges) {
            family.extend(range.clone().map(|_| f));
        }
        let centres: Vec<f32> = ranges
            .par_iter()
            .map(|range| families::mean(order[range.clone()].iter().map(|i| rows.row(*i as usize)), dims))
            .collect::<Vec<_>>()
            .concat();
        let spread = (0..order.len()).into_par_iter().map(|at| {
            let centre = &centres[family[at] as usize * dims..][..dims];
            let terms = rows.row(order[at] as usize).iter().zip(centre);
            let square: f64 = terms.map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2)).sum();
            (square.sqrt() * (1.0 + 1e-6)) as f32 * (1.0 + 1e-6) + 1e-30
        });
        Self { spread: spread.collect(), order, family, centres }
    }

    /// Expected cost for each pair in units of a score in f32, from a sample.
    fn cost(&self, rows: &Rows<'_>, bins: &Bins) -> f64 {
        let n = self.order.len() as u64;
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((u128::from(state) * u128::from(n)) >> 64) as usize
        };
        let at: Vec<[usize; 2]> = (0..1 << 14).map(|_| [draw(), draw()]).collect();
        let pairs: Vec<[u32; 2]> = at.iter().map(|[a, b]| [self.order[*a], self.order[*b]]).collect();
        let mut doubtful = 0;
        exact::score_all(rows, &pairs, |pair, score| {
            let error = f64::from(self.spread[at[pair][0]]) * f64::from(self.spread[at[pair][1]]);
            doubtful += usize::from(bins.bin(score - error) != bins.bin(score + error));
        });
        let families = self.centres.len() as f64 / rows.dims() as f64;
        2.0 * families / n as f64 + DECIDE + DOUBT * doubtful as f64 / pairs.len() as f64
    }
}

impl<'a> Grouped<'a> {
    /// A filter over these rows, if the bins lie on a grid. `weights` are those of `rows`.
    pub fn new(
        cpu: Cpu,
        matrix: Rows<'a>,
        plan: Plan,
        bins: &Bins,
        weights: Option<&[Count]>,
        chunk: usize,
    ) -> Option<Self> {
        let order = matrix.places(&plan.order);
        let rows = matrix.choose(&order);
        let dims = rows.dims();
        let of_rows = Bound::of(&rows, chunk);
        let of_centres = Bound::of(&Rows::new(&plan.centres, dims), chunk);
        let largest = of_rows.largest.max(of_centres.largest);
        let error = 3.0 * of_rows.error.max(of_centres.error) + 8.0 * 2f64.powi(-24) * largest;
        let cells = Cells::new(bins, &Bound { error, largest, ..of_rows });
        let Judge::Grid { scale, offset, limit } = cells.judge else { return None };
        let zero = [[0; 4]; 8];
        let weights =
            weights.map(|w| plan.order.iter().map(|i| w[*i as usize]).chain(zero).collect::<Vec<_>>());
        let squares: Vec<f64> =
            (0..rows.len()).into_par_iter().map(|i| exact::score(rows.row(i), rows.row(i))).collect();
        let (d, longest) = (dims as f64, squares.iter().fold(1.0f64, |m, s| m.max(*s)));
        let known = exact::score(rows.row(0), rows.row(rows.len() - 1));
        Some(Self {
            cpu,
            bound: of_rows,
            // Room for the roundings of |dx| |dy| and its difference from the limit.
            grid: [scale, offset, limit - 1e-6],
            cells,
            weights,
            family: plan.family,
            centres: plan.centres,
            spread: plan.spread,
            squares,
            error,
            distance_error: [
                (d / 32.0 + 24.0) * 2f64.powi(-24) * 1.01,
                3.0 * (d + 4.0) * 2f64.powi(-53) * longest,
            ],
            high: known.to_bits().into(),
            low: known.to_bits().into(),
            matrix,
            order,
        })
    }

    /// The rows in the order of the families, which is that of tiles.
    fn rows(&self) -> Rows<'_> {
        self.matrix.choose(&self.order)
    }

    fn families(&self, range: &Range<u32>) -> Range<u32> {
        self.family[range.start as usize]..self.family[range.end as usize - 1] + 1
    }

    /// Scores of rows `a` with rows `b`: `b.len()` columns, padded to `width`.
    fn products(&self, a: (&Rows<'_>, Range<u32>), b: (&Rows<'_>, Range<u32>), width: usize) -> Vec<f32> {
        let dims = self.matrix.dims();
        let Shape { rows: mr, columns: nr, together } = self.cpu.shape();
        let mut lines = Vec::new();
        let packed = Aligned::room(&mut lines, b.1.len().div_ceil(nr) * nr * dims);
        packed.par_chunks_mut(16 * nr * dims).enumerate().for_each(|(c, chunk)| {
            pack(b.0, b.1.start + (c * 16 * nr) as u32..b.1.end, nr, chunk);
        });
        let packed = &*packed;
        let mut out = vec![0.0f32; a.1.len() * width];
        out.par_chunks_mut(mr * width).enumerate().for_each_init(
            || (vec![0.0f32; mr * dims], Scores::default()),
            |(panel_rows, scores), (block, out)| {
                let first = a.1.start + (block * mr) as u32;
                pack(a.0, first..a.1.end, together, panel_rows);
                for (p, panel) in packed.chunks_exact(nr * dims).enumerate() {
                    super::multiply(self.cpu, panel_rows, panel, self.bound.chunk, scores);
                    let here = (width - p * nr).min(nr);
                    for (out, scores) in out.chunks_exact_mut(width).zip(scores.0.chunks_exact(nr)) {
                        out[p * nr..p * nr + here].copy_from_slice(&scores[..here]);
                    }
                }
            },
        );
        out
    }
}

impl Filter for Grouped<'_> {
    fn tile(&self, tile: &Tile, ask: &Ask<'_>, found: &mut Found) {
        let columns = tile.columns.start.max(tile.rows.start)..tile.columns.end;
        if columns.is_empty() || tile.rows.is_empty() {
            return;
        }
        let centres = Rows::new(&self.centres, self.matrix.dims());
        let rows = self.rows();
        let (a, b) = (self.families(&tile.rows), self.families(&columns));
        let width = columns.len().next_multiple_of(8);
        // A vector of eight families may begin with the last one.
        let wide = b.len() + 8;
        let work = Work {
            filter: self,
            ask,
            with_rows: self.products((&centres, a.clone()), (&rows, columns.clone()), width),
            with_centres: self.products((&rows, tile.rows.clone()), (&centres, b.clone()), wide),
            of_centres: self.products((&centres, a.clone()), (&centres, b.clone()), wide),
            lanes: scan::lanes(&self.family[columns.start as usize..columns.end as usize]),
            spread: padded(&self.spread[columns.start as usize..columns.end as usize], width),
            first_row: tile.rows.start,
            first_family: a.start,
            columns,
            width,
            wide,
        };
        let strips: Vec<u32> = tile.rows.clone().step_by(STRIP as usize).collect();
        let parts: Vec<Found> = strips
            .into_par_iter()
            .map(|first| work.strip(first..(first + STRIP).min(tile.rows.end)))
            .collect();
        parts.iter().for_each(|part| found.merge(part));
    }
}

fn padded(values: &[f32], length: usize) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(length, 0.0);
    padded
}

/// A tile on its way.
struct Work<'a> {
    filter: &'a Grouped<'a>,
    ask: &'a Ask<'a>,
    /// Centres of the rows' families with the columns, `width` each.
    with_rows: Vec<f32>,
    /// Rows with the centres of the columns' families, `wide` each.
    with_centres: Vec<f32>,
    /// Centres with centres, `wide` each.
    of_centres: Vec<f32>,
    lanes: scan::Lanes,
    spread: Vec<f32>,
    first_row: u32,
    first_family: u32,
    columns: Range<u32>,
    width: usize,
    wide: usize,
}

impl Work<'_> {
    fn strip(&self, rows: Range<u32>) -> Found {
        let filter = self.filter;
        let mut found = Found::new(self.ask.bins);
        let mut tables = Tables::new(&filter.cells, filter.weights.is_some());
        let mut terms = vec![0.0f32; self.wide];
        let mut open = Vec::new();
        for block in (0..self.columns.len()).step_by(BLOCK) {
            let end = (block + BLOCK).min(self.columns.len());
            for i in rows.clone() {
                // Pairs i < j only.
                let from = (i + 1).saturating_sub(self.columns.start) as usize;
                if from >= end {
                    continue;
                }
                self.scan(i, from.max(block)..end, &mut terms, &mut tables, &mut open);
                self.settle(i, &mut open, &mut found);
            }
        }
        tables.drain(&filter.cells, &mut found.counts);
        found
    }

    fn scan(
        &self,
        i: u32,
        columns: Range<usize>,
        terms: &mut [f32],
        tables: &mut Tables,
        open: &mut Vec<u32>,
    ) {
        let filter = self.filter;
        let family = (filter.family[i as usize] - self.first_family) as usize;
        let row = (i - self.first_row) as usize;
        let (first, last) = (columns.start / 8, (columns.end - 1) / 8);
        let families = self.lanes.first[first] as usize..self.lanes.first[last] as usize + 8;
        let with = &self.with_centres[row * self.wide..][families.clone()];
        let of = &self.of_centres[family * self.wide..][families.clone()];
        terms[families].iter_mut().zip(with.iter().zip(of)).for_each(|(t, (a, b))| *t = a - b);
        let (high, low) = (filter.high.load(Ordering::Relaxed), filter.low.load(Ordering::Relaxed));
        let line = Line {
            products: &self.with_rows[family * self.width..][..self.width],
            terms,
            lanes: &self.lanes,
            spread: &self.spread,
            own_spread: filter.spread[i as usize],
            grid: filter.grid,
            none: u32::from(filter.cells.none()),
            high: ((f64::from_bits(high) - filter.error) as f32).next_down(),
            low: ((f64::from_bits(low) + filter.error) as f32).next_up(),
            weights: filter.weights.as_ref().map(|w| (&w[i as usize], &w[self.columns.start as usize..])),
        };
        scan::scan(filter.cpu, &line, columns, tables, open);
    }

    /// Pairs of row i that are open: by their distance, or in f64.
    fn settle(&self, i: u32, open: &mut Vec<u32>, found: &mut Found) {
        let filter = self.filter;
        let rows = filter.rows();
        let x = rows.row(i as usize);
        let [relative, absolute] = filter.distance_error;
        for entry in open.drain(..) {
            let j = self.columns.start + (entry & !scan::COUNTED);
            let y = rows.row(j as usize);
            let square = f64::from(scan::squared_distance(filter.cpu, x, y));
            let score = 0.5 * (filter.squares[i as usize] + filter.squares[j as usize] - square);
            let error = 0.5 * relative * square + absolute + 1e-30;
            let (least, most) = (score - error, score + error);
            let (high, low) = (filter.high.load(Ordering::Relaxed), filter.low.load(Ordering::Relaxed));
            let extreme = most >= f64::from_bits(high) || least <= f64::from_bits(low);
            let counted = entry & scan::COUNTED != 0;
            let mut bin = self.ask.bins.bin(least);
            if extreme || !counted && bin != self.ask.bins.bin(most) {
                let score = exact::score(x, y);
                found.rechecked += 1;
                found.range = (found.range.0.min(score), found.range.1.max(score));
                // Racing updates can only lose some sharpness.
                if score > f64::from_bits(high) {
                    filter.high.store(score.to_bits(), Ordering::Relaxed);
                }
                if score < f64::from_bits(low) {
                    filter.low.store(score.to_bits(), Ordering::Relaxed);
                }
                bin = self.ask.bins.bin(score);
            }
            if !counted {
                let weight = |w: usize| {
                    filter.weights.as_ref().map_or(1, |all| all[i as usize][w] * all[j as usize][w])
                };
                found.counts[bin].iter_mut().enumerate().for_each(|(w, count)| *count += weight(w));
            }
        }
    }
}
