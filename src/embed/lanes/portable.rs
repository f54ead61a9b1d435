//! The definition: arrays of 16. On CPUs with vectors of any width the compiler makes use of them.

use super::{Chunk, Lanes, SharedChunk, WIDTH};

/// Sixteen lanes in an array.
#[derive(Debug, Clone, Copy)]
pub struct Portable([f32; WIDTH]);

impl Lanes for Portable {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; WIDTH])
    }

    #[inline(always)]
    fn load(from: &Chunk) -> Self {
        Self(from.0)
    }

    #[inline(always)]
    fn store(self, to: &mut Chunk) {
        to.0 = self.0;
    }

    #[inline(always)]
    fn load_shared(from: &SharedChunk) -> Self {
        Self(from.get())
    }

    #[inline(always)]
    fn store_shared(self, to: &SharedChunk) {
        to.set(self.0);
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|l| self.0[l].mul_add(b.0[l], c.0[l])))
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self(std::array::from_fn(|l| self.0[l] + b.0[l]))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = self.0;
        let mut half = WIDTH / 2;
        while half > 0 {
            for l in 0..half {
                lanes[l] += lanes[l + half];
            }
            half /= 2;
        }
        lanes[0]
    }
}
