//! Least and highest scores.

/// Least and highest of some scores; infinite, and the wrong way round, of none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// The least.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Default for Extent {
    fn default() -> Self {
        Self { low: f64::INFINITY, high: f64::NEG_INFINITY }
    }
}

impl Extent {
    /// Takes in a score.
    pub fn add(&mut self, score: f64) {
        self.join(Self { low: score, high: score });
    }

    /// Takes in other scores.
    pub fn join(&mut self, other: Self) {
        *self = Self { low: self.low.min(other.low), high: self.high.max(other.high) };
    }

    /// Itself, unless it is of no score.
    pub fn known(self) -> Option<Self> {
        (self.low <= self.high).then_some(self)
    }
}
