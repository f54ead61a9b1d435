//! The stall watch: a rank that makes no progress ends the job instead of hanging it.
//!
//! MPI does not notice a cut network link, and a rank stuck in a file system call makes all others
//! wait for ever. Each rank has a thread that looks at its own heartbeat. A rank that computes must
//! beat within the limit; one that waits for others in a collective operation is given twice the
//! limit, so that the rank that is really stuck is the one that reports.
//!
//! Time is counted by that thread, which a suspended process does not have: `scontrol suspend` and
//! SIGSTOP may last for hours and are no stall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the thread looks, and how often it serves while [`Watch::serve`] is on.
const LOOK: Duration = Duration::from_millis(50);
const SERVE: Duration = Duration::from_millis(1);

/// More than that passes between two looks only if the process was suspended, or starved.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// Heartbeat of this rank.
pub struct Watch {
    shared: Arc<Shared>,
    limit: Duration,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Milliseconds that the thread has counted.
    clock: AtomicU64,
    last_beat: AtomicU64,
    waiting: AtomicBool,
    ended: AtomicBool,
    serving: AtomicU64,
}

impl Watch {
    /// Starts the watch. `stalled` is called with the silent seconds and never returns. `serve` is
    /// called at every look, about every millisecond while [`Watch::serve`] is on, and told whether
    /// this rank waits for others, and whether it has beaten within the limit.
    pub fn start(
        limit: Duration,
        stalled: impl Fn(u64, bool) + Send + 'static,
        serve: impl Fn(bool, bool) + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut clock = Clock::new(Instant::now());
            while !seen.ended.load(Ordering::Acquire) {
                let now = clock.look(Instant::now());
                seen.clock.store(now.as_millis() as u64, Ordering::Release);
                let waiting = seen.waiting.load(Ordering::Acquire);
                let allowed = if waiting { 2 * limit } else { limit };
                let silent = seen.silent();
                if !limit.is_zero() && silent > allowed {
                    stalled(silent.as_secs(), waiting);
                }
                serve(waiting, silent <= limit);
                let serving = seen.serving.load(Ordering::Acquire) > 0;
                std::thread::park_timeout(if serving { SERVE } else { LOOK });
            }
        });
        Self { shared, limit, thread: Some(thread) }
    }

    /// This rank made progress.
    pub fn beat(&self) {
        self.shared.last_beat.store(self.shared.clock.load(Ordering::Acquire), Ordering::Release);
    }

    /// How long this rank has not beaten, to a look; `None` if nobody minds.
    pub fn silent(&self) -> Option<Duration> {
        (!self.limit.is_zero()).then(|| self.shared.silent())
    }

    /// How long a rank that works may be silent.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Runs a collective operation, in which this rank may have to wait for others.
    pub fn waiting<T>(&self, operation: impl FnOnce() -> T) -> T {
        self.beat();
        self.shared.waiting.store(true, Ordering::Release);
        let result = operation();
        self.shared.waiting.store(false, Ordering::Release);
        self.beat();
        result
    }

    /// Turns serving on or off; calls nest.
    pub fn serve(&self, on: bool) {
        if on {
            self.shared.serving.fetch_add(1, Ordering::AcqRel);
        } else {
            self.shared.serving.fetch_sub(1, Ordering::AcqRel);
        }
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Shared {
    fn silent(&self) -> Duration {
        let (clock, last) = (self.clock.load(Ordering::Acquire), self.last_beat.load(Ordering::Acquire));
        Duration::from_millis(clock.saturating_sub(last))
    }
}

/// Time in which the process was running.
struct Clock {
    last: Instant,
    counted: Duration,
}

impl Clock {
    fn new(now: Instant) -> Self {
        Self { last: now, counted: Duration::ZERO }
    }

    fn look(&mut self, now: Instant) -> Duration {
        self.counted += now.duration_since(self.last).min(LONGEST_LOOK);
        self.last = now;
        self.counted
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only ends or aborts the process; there is nothing to learn from a panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_while_the_process_is_suspended() {
        let begun = Instant::now();
        let mut clock = Clock::new(begun);
        let look = |clock: &mut Clock, seconds: f64| clock.look(begun + Duration::from_secs_f64(seconds));
        assert_eq!(look(&mut clock, 0.25), Duration::from_millis(250));
        assert_eq!(look(&mut clock, 0.75), Duration::from_millis(750));
        assert_eq!(look(&mut clock, 7200.75), Duration::from_millis(1250));
        assert_eq!(look(&mut clock, 7201.0), Duration::from_millis(1500));
    }
}
