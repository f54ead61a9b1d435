//! A first look along principal axes: most of a score is decided by a part of the coordinates.
//!
//! Vectors of documents crowd: a handful of directions have nearly all of their length. An orthonormal
//! basis V whose first axes are those directions turns a row x into y = V^T x with most of its length
//! in front, and a dot product stops being in doubt long before its last coordinate. Of y the first
//! [`LEAD`] coordinates are kept in f32, the *head* and the *tail* after them as 16-bit integers; the last
//! ones are next to nothing and left out. The kernel sums lead and head of every pair; what that leaves
//! open is summed over the tail pair by pair ([`super::again`]), and what even that leaves open goes on to
//! f32 and f64 as ever.
//!
//! The bounds. V is computed once, rounded to f32 and taken as it is: with e = |V^T V - I|_F, measured,
//! |x_i . x_j - y_i . y_j| <= e |x_i| |x_j| (the singular values of V V^T and V^T V are the same). Write
//! t for the length of what follows a row's head, s for that of what follows its tail, X for that of head
//! and tail, r for that of what rounding head and tail to integers took away. By Cauchy and Schwarz the sum
//! over lead and head is off by at most
//!
//! ```text
//! t_i t_j + X_i r_j + r_i (X_j + r_j) <= T_i T_j    with T^2 = t^2 + k (X + r)^2 + r^2 / k
//! ```
//!
//! for any k > 0 (Cauchy and Schwarz once more), and with the tail added by U_i U_j, where U is T with s for t.
//! A constant is added for e, for the rounding of y to f32, 2 u |x|^2, and for the sums in f32:
//! [`LEAD`] fused steps, and for every chunk of integers a conversion, the rounding of its unit, a
//! product and an addition, u = 2^-24 each, of at most |y_i| |y_j|.

use super::super::bins::Bins;
use super::super::block;
use super::super::exact;
use super::super::rows::Rows;
use super::Bound;
use super::cells::{Cells, Judge};
use super::coarse;
use super::turned::LINE;
use ndarray::{Array1, Array2};

/// Coordinates that stay f32: they have most of the length, where integers would be coarse.
pub const LEAD: usize = 16;
/// With fewer coordinates there is little to save.
const FEWEST_DIMS: usize = 64;
/// Rows that the axes are learned from.
const SAMPLE: usize = 4096;
/// Head and tail grow in steps of so many coordinates: a register of integers.
const STEP: usize = 16;
/// Words of two coordinates in a chunk of the head, at most.
const CHUNK: usize = 24;
/// k of the bound, about r / X.
const BALANCE: f64 = 1.0 / 4096.0;

/// What a pair costs, in nanoseconds on a core of 2.8 GHz with AVX2; to choose by, only ratios matter. With
/// AVX-512 all of it is about half, and the same ends were the fastest.
mod price {
    /// A coordinate in integers ...
    pub const INTEGER: f64 = 0.022;
    /// ... and in f32, by the kernel.
    pub const F32: f64 = 0.032;
    /// Judging and counting a score.
    pub const JUDGE: f64 = 1.0;
    /// Looking at one pair's tail, and each of its coordinates.
    pub const TAIL: [f64; 2] = [10.0, 0.03];
    /// Summing one pair in f32, with rows from the last-level cache.
    pub const FAR: f64 = 400.0;
}

/// Integers that were made of coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Integers {
    /// Coordinates are multiplied by this and rounded.
    pub scale: f32,
    /// 1 / scale^2.
    pub unit: f32,
    /// Largest coordinate ...
    pub largest: f32,
    /// ... and largest length of a chunk that fit; rows with more are left out (and so in doubt).
    pub longest: f64,
    /// Words of two coordinates in a chunk.
    pub chunk: usize,
}

impl Integers {
    /// For coordinates like those of the sample, `chunk` words at a time: sums fit in 32 bits.
    fn new<'a>(sample: impl Iterator<Item = &'a [f32]>, chunk: usize) -> Self {
        let (mut largest, mut longest) = (0.0f32, 0.0f64);
        for row in sample {
            largest = row.iter().fold(largest, |m, v| m.max(v.abs()));
            longest =
                row.chunks(2 * chunk).map(|part| exact::score(part, part).sqrt()).fold(longest, f64::max);
        }
        // Other rows may have a little more.
        let (largest, longest) = (largest * 1.1 + 1e-6, longest * 1.1 + 1e-6);
        let [scale, unit] = coarse::scale(largest, longest, chunk);
        Self { scale, unit, largest, longest, chunk }
    }

    /// True if a row's coordinates fit.
    pub fn fit(&self, row: &[f32]) -> bool {
        row.iter().all(|v| v.abs() <= self.largest)
            && row.chunks(2 * self.chunk).all(|part| exact::score(part, part).sqrt() <= self.longest)
    }
}

/// How far a row's part of a score can be off: a pair's bound is the product of two, see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reach {
    /// T: without the tail.
    pub head: f32,
    /// U: with the tail.
    pub whole: f32,
}

impl Reach {
    /// From t and s, X and r.
    pub fn new([after_head, after_tail]: [f64; 2], length: f64, rest: f64) -> Self {
        let up = |square: f64| ((square.sqrt() * (1.0 + 1e-6)) as f32).next_up();
        let rounding = BALANCE * (length + rest) * (length + rest) + rest * rest / BALANCE;
        Self { head: up(after_head * after_head + rounding), whole: up(after_tail * after_tail + rounding) }
    }
}

/// Axes, and how rows lie along them.
#[derive(Debug, Clone, PartialEq)]
pub struct Axes {
    /// One axis after the other.
    pub basis: Vec<f32>,
    /// Coordinates.
    pub dims: usize,
    /// The end of the head, and where the tail begins ...
    pub split: usize,
    /// ... and ends.
    pub cut: usize,
    /// Of the head.
    pub head: Integers,
    /// Of the tail.
    pub tail: Integers,
    /// Cells for scores that are off by the constant; the rest of the bound is the pair's own.
    pub cells: Cells,
    /// Largest difference from the score in f32, besides the pair's own bound.
    pub slack: f32,
    /// What a pair will cost, in the unit of [`dense_price`].
    pub price: f64,
}

impl Axes {
    /// For these rows; `None` for few coordinates or bins without a grid.
    pub fn of(rows: &Rows<'_>, bins: &Bins, bound: &Bound) -> Option<Self> {
        let (n, dims) = (rows.len(), rows.dims());
        if n == 0 || dims < FEWEST_DIMS {
            return None;
        }
        let step = n.div_ceil(SAMPLE);
        let sample: Vec<usize> = (0..n).step_by(step).collect();
        let basis = principal(rows, &sample)?;
        let off = from_orthonormal(&basis, dims);
        if off > 1e-5 {
            return None;
        }
        let turned = turn(&basis, dims, sample.iter().map(|i| rows.row(*i)));
        let [split, cut] = cheapest(&turned, dims, bins, bound)?;
        let head = Integers::new(turned.chunks_exact(dims).map(|y| &y[LEAD..split]), chunk_of(split));
        let tail =
            Integers::new(turned.chunks_exact(dims).map(|y| &y[split..cut]), (cut - split).div_ceil(2));
        let chunks = ((split - LEAD) / 2).div_ceil(head.chunk) + 1;
        let shortest = f64::from(head.scale.min(tail.scale));
        let reach = (bound.square.sqrt() + (dims as f64).sqrt() / shortest).powi(2);
        let u = 2f64.powi(-24);
        let in_f32 = (LEAD + 4 * chunks + 2) as f64 * u * reach;
        // The score itself, and each coordinate of both y.
        let in_f64 = 4.0 * (dims as f64).powf(1.5) * 2f64.powi(-53) * bound.square;
        let error = (off * bound.square + in_f32 + in_f64) * (1.0 + 1e-4);
        let constant = Bound { chunk: dims, error, largest: reach + error, ..*bound };
        let cells = Cells::new(bins, &constant);
        let Judge::Grid { .. } = cells.judge else { return None };
        let slack = ((error + bound.error) as f32).next_up();
        let axes = Self { basis, dims, split, cut, head, tail, cells, slack, price: f64::INFINITY };
        Some(Self { price: axes.price(&turned), ..axes })
    }

    /// Words of lead and head.
    pub fn lines(&self) -> usize {
        LEAD + (self.split - LEAD) / 2
    }

    /// Whole lines of the tail.
    pub fn tail_lines(&self) -> usize {
        (self.cut - self.split).div_ceil(2 * LINE)
    }

    /// What a pair costs, judged by turned rows.
    fn price(&self, turned: &[f32]) -> f64 {
        let Judge::Grid { scale, limit, .. } = self.cells.judge else { return f64::INFINITY };
        // Rounding takes a twelfth of a step's square from each coordinate.
        let squares = |dims: usize, how: &Integers| dims as f64 / 12.0 / f64::from(how.scale).powi(2);
        let rest = squares(self.split - LEAD, &self.head) + squares(self.cut - self.split, &self.tail);
        let rows = || turned.chunks_exact(self.dims);
        let length =
            rows().map(|y| exact::score(&y[LEAD..], &y[LEAD..]).sqrt()).sum::<f64>() / rows().count() as f64;
        let far = 1.0 - 2.0 * f64::from(limit) + 2.0 * f64::from(scale) * 2.0 * length * rest.sqrt();
        let after = |k| open_after(k, turned, self.dims, scale);
        price_of([self.split, self.cut], after(self.split), far + after(self.cut))
    }
}

/// The share of pairs that coordinates up to `k` leave open.
fn open_after(k: usize, turned: &[f32], dims: usize, scale: f32) -> f64 {
    let rests: Vec<f64> = turned.chunks_exact(dims).map(|y| exact::score(&y[k..], &y[k..]).sqrt()).collect();
    // Pairs of rows that have nothing to do with each other.
    let bounds = (0..rests.len()).map(|i| rests[i] * rests[i * 7919 % rests.len()]);
    bounds.map(|bound| (2.0 * bound * f64::from(scale)).min(1.0)).sum::<f64>() / rests.len() as f64
}

/// What it costs to judge a pair by lead and head, and to add the tails and score in f32 such shares of
/// pairs as are open then.
fn price_of([split, cut]: [usize; 2], open: f64, far: f64) -> f64 {
    let [tail, each] = price::TAIL;
    price::JUDGE
        + LEAD as f64 * price::F32
        + (split - LEAD) as f64 * price::INTEGER
        + open * (tail + each * (cut - split) as f64)
        + far.min(1.0) * price::FAR
}

/// What the dense kernels cost a pair: `open` is the share that integers leave open, if they run.
pub fn dense_price(dims: usize, open: Option<f32>) -> f64 {
    let each = |open: f32| dims as f64 * price::INTEGER + f64::from(open) * price::FAR;
    price::JUDGE + open.map_or(dims as f64 * price::F32, each)
}

fn chunk_of(split: usize) -> usize {
    let words = (split - LEAD) / 2;
    words.div_ceil(words.div_ceil(CHUNK))
}

/// The ends of head and tail that should cost least, for these turned rows.
fn cheapest(turned: &[f32], dims: usize, bins: &Bins, bound: &Bound) -> Option<[usize; 2]> {
    let Judge::Grid { scale, .. } = Cells::new(bins, bound).judge else { return None };
    let ends = (LEAD + STEP..dims).step_by(STEP).chain([dims]);
    let open: Vec<(usize, f64)> = ends.map(|k| (k, open_after(k, turned, dims, scale))).collect();
    let pairs =
        open.iter().enumerate().flat_map(|(at, head)| open[at + 1..].iter().map(move |tail| (head, tail)));
    let prices = pairs.map(|(head, tail)| ([head.0, tail.0], price_of([head.0, tail.0], head.1, tail.1)));
    prices.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(ends, _)| ends)
}

/// Some rows along the axes of a basis, one after the other, summed in f64 and rounded.
pub fn turn<'a>(basis: &[f32], dims: usize, rows: impl ExactSizeIterator<Item = &'a [f32]>) -> Vec<f32> {
    let n = rows.len();
    let mut values = Vec::with_capacity((n + dims) * dims);
    rows.for_each(|row| values.extend_from_slice(row));
    values.extend_from_slice(basis);
    let mut turned = vec![0.0; n * dims];
    let these: Vec<u32> = (0..n as u32).collect();
    let axes = n as u32..(n + dims) as u32;
    block::fill(&Rows::new(&values, dims), &these, axes, dims, &mut turned, |sum| sum as f32);
    turned
}

/// |V^T V - I| by its Frobenius norm, and a little more.
fn from_orthonormal(basis: &[f32], dims: usize) -> f64 {
    let mut products = vec![0.0f64; dims * dims];
    let these: Vec<u32> = (0..dims as u32).collect();
    block::fill(&Rows::new(basis, dims), &these, 0..dims as u32, dims, &mut products, |sum| sum);
    products.iter_mut().step_by(dims + 1).for_each(|own| *own -= 1.0);
    products.iter().fold(0.0, |sum, off| sum + off * off).sqrt() * (1.0 + 1e-6) + 1e-12
}

/// Steps of [`principal`].
const ROUNDS: usize = 3;

/// An orthonormal basis, axes of most length first, row by row, near the eigenvectors of the sample's
/// second moments: orthogonal iteration (Golub and Van Loan, *Matrix Computations*, 4th ed., 8.2.4).
/// It need not have converged; any orthonormal basis is right, a better one is faster.
fn principal(rows: &Rows<'_>, sample: &[usize]) -> Option<Vec<f32>> {
    let dims = rows.dims();
    let mut x = Array2::<f64>::zeros((sample.len(), dims));
    for (mut to, i) in x.rows_mut().into_iter().zip(sample) {
        to.iter_mut().zip(rows.row(*i)).for_each(|(to, v)| *to = f64::from(*v));
    }
    let moments = x.t().dot(&x);
    let mean = moments.diag().sum() / dims as f64;
    let mut twice = moments.dot(&moments);
    // Directions that the sample does not have come last, but they come.
    twice.diag_mut().iter_mut().for_each(|v| *v += 1e-11 * mean * mean);
    let mut axes = Array2::<f64>::eye(dims);
    for _ in 0..ROUNDS {
        // The rows are the axes; the moments are symmetric.
        axes = axes.dot(&twice);
        orthonormalize(&mut axes)?;
    }
    Some(axes.iter().map(|v| *v as f32).collect())
}

/// Gram and Schmidt, each row twice; `None` if the rows are not independent.
fn orthonormalize(rows: &mut Array2<f64>) -> Option<()> {
    for k in 0..rows.nrows() {
        let (before, mut rest) = rows.view_mut().split_at(ndarray::Axis(0), k);
        let mut row = rest.row_mut(0);
        for _ in 0..2 {
            let length = row.dot(&row).sqrt();
            if !(length.is_finite() && length > 0.0) {
                return None;
            }
            row.mapv_inplace(|v| v / length);
            let shares: Array1<f64> = before.dot(&row);
            row -= &shares.dot(&before);
        }
        let length = row.dot(&row).sqrt();
        row.mapv_inplace(|v| v / length);
    }
    Some(())
}
