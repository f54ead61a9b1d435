//! The stall watch: a rank that makes no progress ends the job instead of hanging it.
//!
//! MPI does not notice a cut network link, and a rank stuck in a file system call makes all others
//! wait for ever. Each rank has a thread that looks at its own heartbeat. A rank that computes must
//! beat within the limit; one that waits for others in a collective operation is given twice the
//! limit, so that the rank that is really stuck is the one that reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Heartbeat of this rank.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    begun: Instant,
    last_beat_ms: AtomicU64,
    waiting: AtomicBool,
    ended: AtomicBool,
    serving: AtomicU64,
}

impl Watch {
    /// Starts the watch. `stalled` is called with the silent seconds and never returns; `serve` is
    /// called about every millisecond while [`Watch::serve`] is on.
    pub fn start(
        limit: Duration,
        stalled: impl Fn(u64, bool) + Send + 'static,
        serve: impl Fn() + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            last_beat_ms: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            serving: AtomicU64::new(0),
        });
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !seen.ended.load(Ordering::Acquire) {
                let serving = seen.serving.load(Ordering::Acquire) > 0;
                if serving {
                    serve();
                }
                let waiting = seen.waiting.load(Ordering::Acquire);
                let allowed = if waiting { 2 * limit } else { limit };
                let silent = seen.silent();
                if !limit.is_zero() && silent > allowed {
                    stalled(silent.as_secs(), waiting);
                }
                std::thread::park_timeout(Duration::from_millis(if serving { 1 } else { 50 }));
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// This rank made progress.
    pub fn beat(&self) {
        let now = self.shared.begun.elapsed().as_millis() as u64;
        self.shared.last_beat_ms.store(now, Ordering::Release);
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
        let last = Duration::from_millis(self.last_beat_ms.load(Ordering::Acquire));
        self.begun.elapsed().saturating_sub(last)
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
