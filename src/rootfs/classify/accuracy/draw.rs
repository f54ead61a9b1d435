//! Random draws for made images: the same for every machine, thread count and order.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A sequence of draws.
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The sequence number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Below `n`, which must not be 0. The bias of the remainder is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    /// In [0, 1), a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of the items; panics if there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A count up to `most` that is as likely to lie in 1..2 as in 2..4 or 4..8.
    pub fn count(&mut self, most: usize) -> usize {
        let doublings = (most.max(1) as f64).log2() * self.unit();
        (doublings.exp2().floor() as usize).clamp(1, most.max(1))
    }
}
