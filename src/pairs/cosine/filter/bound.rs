//! How far a score in f32 can lie from the score in f64, proven.
//!
//! Let u = 2^-24. A kernel sums x·y in chains: one for each chunk of coordinates, each step one
//! fused multiply-add, then the sums of the chunks are added in order. Write p_i(k) for the length
//! of the part of row i from the chunk's first coordinate to k, and r_i(c) for that of the row up to
//! the end of chunk c. By Cauchy and Schwarz the absolute values of the terms up to k sum to at most
//! p_i(k) p_j(k), and so every partial sum of the chain, exact or computed, is at most
//! (1 + g) p_i(k) p_j(k), with g = 2du / (1 - 2du) (Higham, *Accuracy and Stability of Numerical
//! Algorithms*, 2nd ed., lemma 3.1). Each step rounds its result once, by at most u of it; so does
//! each addition of a chunk. The error is at most
//!
//! ```text
//! u (1 + g) (sum over k of p_i(k) p_j(k) + sum over c > 0 of r_i(c) r_j(c)) <= u (1 + g) E_i E_j
//! E_i^2 = sum over k of p_i(k)^2 + sum over c > 0 of r_i(c)^2 + |x_i|^2
//! ```
//!
//! (Cauchy and Schwarz again). The last term is for kernels that round the product by itself: that
//! adds at most u for each product, u |x_i| |x_j| together. Results below the normal range are off
//! by at most 2^-149 more a step. The f64 score itself is off the true value by at most
//! d 2^-53 (1 + g) |x_i| |x_j|, which is added: the bound holds between the two computed values.
//!
//! For d = 300, even rows and three chunks this is 52 u = 3.1e-6; the bound that knows only d is 300 u.
//!
//! Pairs one by one are summed in 32 chains ([`super::coarse::dot`]). There a term is rounded at most
//! m = d / 32 + 8 times, so the error is at most m u (1 + g) |x_i| |x_j| (Higham, section 3.1): 18 u for
//! d = 300. The larger of the two holds for both, and for what ranks on other CPUs have recorded.

use super::super::rows::Rows;
use rayon::prelude::*;

/// The bound for a set of rows, and how their scores are to be summed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Coordinates in a chunk (the last one may be shorter).
    pub chunk: usize,
    /// Largest difference of a score in f32 from the one in f64.
    pub error: f64,
    /// The same for pairs that are summed one by one; at most `error`.
    pub one: f64,
    /// Largest absolute score.
    pub largest: f64,
    /// Largest square of a row's length.
    pub square: f64,
}

impl Bound {
    /// For these rows, summed in chunks of `chunk` coordinates.
    pub fn of(rows: &Rows<'_>, chunk: usize) -> Self {
        let chunk = chunk.clamp(1, rows.dims());
        let factor = |i: usize| {
            let (mut squares, mut whole) = (0.0f64, 0.0f64);
            for (c, part) in rows.row(i).chunks(chunk).enumerate() {
                let mut prefix = 0.0f64;
                for v in part {
                    prefix += f64::from(*v) * f64::from(*v);
                    squares += prefix;
                }
                whole += prefix;
                if c > 0 {
                    squares += whole;
                }
            }
            (squares + whole, whole)
        };
        let larger = |a: (f64, f64), b: (f64, f64)| (a.0.max(b.0), a.1.max(b.1));
        let (squares, norm) = (0..rows.len()).into_par_iter().map(factor).reduce(|| (0.0, 0.0), larger);
        // The sums above are rounded themselves, by far less than the factor allows for.
        let (d, u, slack) = (rows.dims() as f64, 2f64.powi(-24), 1.0 + 1e-6);
        let g = 2.0 * d * u / (1.0 - (2.0 * d * u).min(0.5));
        let chains = ((d / 32.0).ceil() + 8.0) * norm;
        let in_f64 = d * 2f64.powi(-53) * norm;
        let error_of = |units: f64| (u * units + in_f64) * (1.0 + g) * slack + d * 2f64.powi(-147);
        let [error, one] = [squares.max(chains), chains].map(error_of);
        Self { chunk, error, one, largest: norm * slack + error, square: norm * slack }
    }

    /// The bound for pairs that are summed one by one.
    pub fn of_one(self) -> Self {
        Self { error: self.one, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_tighten_the_bound() {
        let row = vec![1.0 / 300f32.sqrt(); 300];
        let rows = Rows::new(&row, 300);
        let u = 2f64.powi(-24);
        let units = |chunk| Bound::of(&rows, chunk).error / u;
        assert!((150.0..153.0).contains(&units(300)), "{}", units(300));
        assert!((76.0..79.0).contains(&units(150)), "{}", units(150));
        assert!((40.0..44.0).contains(&units(75)), "{}", units(75));
    }
}
