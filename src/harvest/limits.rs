//! Limits that hold for the whole job: every rank keeps to its share.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What one registry may be asked for by all ranks together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: NonZeroUsize,
    /// Requests a second; infinite for no limit.
    pub requests_per_second: f64,
}

impl Default for Limits {
    /// 8 connections, 50 requests a second.
    fn default() -> Self {
        Self { connections: NonZeroUsize::new(8).expect("8 is not 0"), requests_per_second: 50.0 }
    }
}

/// A rank's part of [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Connections at a time.
    pub connections: NonZeroUsize,
    /// Requests a second.
    pub requests_per_second: f64,
}

impl Limits {
    /// The share of `rank` among `ranks`; the shares of all ranks add up to the limits. `None` where
    /// there are more ranks than connections and this one must leave the registry alone.
    ///
    /// Dividing beforehand, rather than asking a common counter before each request, holds the
    /// limit without a message between ranks. What it gives away is little: ranks pull at the same
    /// time nearly always.
    pub fn share(&self, rank: usize, ranks: usize) -> Option<Share> {
        let all = self.connections.get();
        let mine = all / ranks.max(1) + usize::from(rank < all % ranks.max(1));
        let connections = NonZeroUsize::new(mine)?;
        let requests_per_second = self.requests_per_second * mine as f64 / all as f64;
        Some(Share { connections, requests_per_second })
    }
}

/// Spaces requests evenly.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(requests_per_second: f64) -> Self {
        let gap = Duration::try_from_secs_f64(1.0 / requests_per_second).unwrap_or(Duration::ZERO);
        Self { gap, next: Mutex::new(Instant::now()) }
    }

    /// Books the next free moment and says how long it is until then.
    pub(super) fn book(&self) -> Duration {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = (*next).max(now);
        *next = at + self.gap;
        at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_add_up_to_the_limits(connections in 1usize..40, ranks in 1usize..50, rate in 0.5f64..100.0) {
            let limits = Limits { connections: NonZeroUsize::new(connections).unwrap(), requests_per_second: rate };
            let shares: Vec<_> = (0..ranks).filter_map(|r| limits.share(r, ranks)).collect();
            prop_assert_eq!(shares.iter().map(|s| s.connections.get()).sum::<usize>(), connections);
            let sum: f64 = shares.iter().map(|s| s.requests_per_second).sum();
            prop_assert!((sum - rate).abs() < 1e-9 * rate, "{sum} of {rate}");
            prop_assert_eq!(shares.len(), ranks.min(connections));
        }
    }

    #[test]
    fn requests_are_spaced() {
        let pace = Pace::new(10.0);
        let waits: Vec<_> = (0..11).map(|_| pace.book()).collect();
        // Eleven bookings at ten a second span a second, whenever each was made.
        assert!(waits[10] > Duration::from_millis(500), "{waits:?}");
        assert_eq!(Pace::new(f64::INFINITY).book(), Duration::ZERO);
    }
}
