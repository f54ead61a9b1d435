//! How a run of the tokenizer is watched and stopped.

use super::Error;
use crate::world::World;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Who wants to hear of a run, and to end it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Set when the run should end soon (SIGTERM, SIGUSR1).
    pub stop: &'a AtomicBool,
    /// Called with the bytes of this rank that are done, and all of them, from any thread.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Waited before each piece of work, so that tests can meet a run in the middle.
    pub pause: Duration,
}

impl Watch<'_> {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn pause(&self) {
        let until = Instant::now() + self.pause;
        while Instant::now() < until && !self.is_stopped() {
            std::thread::sleep(self.pause.min(Duration::from_millis(20)));
        }
    }

    /// Ends the run on all ranks if one of them was stopped. Collective.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub(super) fn agree(&self, world: &World) -> Result<(), Error> {
        let mut stopped = [u64::from(self.is_stopped())];
        world.max_u64(&mut stopped);
        if stopped[0] > 0 { Err(Error::Stopped) } else { Ok(()) }
    }
}
