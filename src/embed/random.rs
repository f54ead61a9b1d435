//! Random numbers that depend on what they are for, not on who draws them or when.

/// A stream of random numbers (SplitMix64; Steele, Lea and Flood 2014). Streams are named by
/// numbers, such as seed, epoch and document, so any thread on any rank draws the same ones.
#[derive(Debug, Clone)]
pub struct Stream(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of this name.
    pub fn new(name: [u64; 4]) -> Self {
        Self(
            name.iter()
                .fold(STEP, |state, part| mix(state.wrapping_add(STEP) ^ mix(part.wrapping_add(STEP)))),
        )
    }

    /// Another stream, which goes on from here under a number.
    pub fn branch(&self, number: u64) -> Self {
        Self(mix(self.0 ^ mix(number.wrapping_add(STEP))))
    }

    /// 64 random bits.
    #[inline(always)]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `limit`, which is above 0; for limits far below 2^32 as good as even.
    #[inline(always)]
    pub fn below(&mut self, limit: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(limit)) >> 32) as u32
    }

    /// A number in [0, 1) with 24 random bits.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// A random order of `0..n` (Fisher and Yates).
    pub fn order(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u32 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_their_name() {
        let first = |name| Stream::new(name).bits();
        let mut seen = std::collections::BTreeSet::new();
        for part in 0..4 {
            for value in 1..100 {
                let mut name = [0; 4];
                name[part] = value;
                assert_eq!(first(name), first(name));
                assert!(seen.insert(first(name)), "{name:?}");
            }
        }
        let stream = Stream::new([0; 4]);
        for number in 0..100 {
            assert!(seen.insert(stream.branch(number).bits()), "branch {number}");
        }
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut stream = Stream::new([1, 2, 3, 4]);
        let mut counts = [0u32; 7];
        let mut sum = 0.0;
        for _ in 0..70_000 {
            counts[stream.below(7) as usize] += 1;
            let unit = stream.unit();
            assert!((0.0..1.0).contains(&unit));
            sum += f64::from(unit);
        }
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
        assert!((sum / 70_000.0 - 0.5).abs() < 0.01);
        let mut order = stream.order(1000);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }
}
