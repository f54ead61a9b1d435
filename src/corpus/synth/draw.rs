//! Random draws and exact fits. Only `+ - * /` and `sqrt` touch a float here: these are rounded
//! the same way on every machine, library functions such as `exp` are not.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Which part of the corpus a sequence of draws belongs to, so that one part may change without
/// another.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(super) enum Stream {
    Shape = 1,
    Placement = 2,
    /// Plus the repository's number.
    Repository = 1 << 32,
    /// Plus the image's number.
    Image = 2 << 32,
    /// Plus the layer's number.
    Layer = 3 << 32,
    Odd = 4 << 32,
}

/// A sequence of random draws.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// The sequence of this seed, stream, and number in the stream.
    pub fn new(seed: u64, stream: Stream, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64 + number);
        Self(rng)
    }

    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A whole number in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `0..1`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// The middle of the `i`-th of `n` equal parts of `0..1`.
pub(super) fn stratum(i: usize, n: usize) -> f64 {
    (i as f64 + 0.5) / n as f64
}

/// Maps `0..1` onto itself; the smaller `bend`, the more of it comes out near 0, with a tail like
/// that of a power law.
pub(super) fn bent(u: f64, bend: f64) -> f64 {
    bend * u / (1.0 - u + bend * u)
}

/// `low * (high / low)^t` for `t` in `0..1`, to 32 binary digits of `t`.
pub(super) fn between(low: f64, high: f64, t: f64) -> f64 {
    let (mut value, mut factor, mut rest) = (low, high / low, t);
    for _ in 0..32 {
        factor = factor.sqrt();
        rest *= 2.0;
        if rest >= 1.0 {
            value *= factor;
            rest -= 1.0;
        }
    }
    value
}

/// One whole number for each of `bounds` (inclusive), near `curve(i, a)` for the `a` that fits,
/// which sum to exactly `total`. The curve rises with `a`.
///
/// Panics if the bounds do not allow the total.
pub(super) fn fit(
    total: u64,
    bounds: &[(u64, u64)],
    curve: impl Fn(usize, f64) -> f64,
    draw: &mut Draw,
) -> Vec<u64> {
    let curve = &curve;
    let values = |a: f64| {
        bounds.iter().enumerate().map(move |(i, (low, high))| (curve(i, a) as u64).clamp(*low, *high))
    };
    // The largest `a` that does not go beyond the total, up to a part in 2^40.
    let (mut low, mut high) = (1.0 / (1u64 << 40) as f64, (1u64 << 40) as f64);
    for _ in 0..48 {
        let middle = (low * high).sqrt();
        if values(middle).fold(0, u64::saturating_add) <= total { low = middle } else { high = middle }
    }
    let mut fitted: Vec<u64> = values(low).collect();
    let sum: u64 = fitted.iter().fold(0, |sum, v| u64::saturating_add(sum, *v));
    let mut missing = total.checked_sub(sum).expect("the lower bounds allow the total");
    let mut order: Vec<usize> = (0..fitted.len()).collect();
    draw.shuffle(&mut order);
    while missing > 0 {
        let before = missing;
        let each = (missing / order.len().max(1) as u64).max(1);
        for &i in &order {
            let more = each.min(missing).min(bounds[i].1 - fitted[i]);
            fitted[i] += more;
            missing -= more;
        }
        assert!(missing < before, "the upper bounds allow the total");
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_are_exact() {
        let mut draw = Draw::new(7, Stream::Shape, 0);
        for (total, n, low, high) in [(10, 10, 1, 1), (1000, 10, 1, 500), (5000, 10, 1, 500), (123, 40, 0, 9)]
        {
            let bounds = vec![(low, high); n];
            let values = fit(total, &bounds, |i, a| 500.0 * bent(stratum(i, n), a), &mut draw);
            assert_eq!(values.iter().sum::<u64>(), total);
            assert!(values.iter().all(|v| (low..=high).contains(v)));
        }
    }

    #[test]
    fn geometric_means_are_between() {
        assert_eq!(between(1.0, 16.0, 0.5), 4.0);
        assert_eq!(between(2.0, 32.0, 0.25), 4.0);
        assert_eq!(between(5.0, 5.0, 0.7), 5.0);
    }

    #[test]
    fn draws_are_even() {
        let mut draw = Draw::new(1, Stream::Odd, 0);
        let mut seen = [0; 7];
        (0..7000).for_each(|_| seen[draw.below(7) as usize] += 1);
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        assert_eq!(draw.below(0), 0);
    }
}
