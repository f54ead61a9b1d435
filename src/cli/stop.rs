//! SIGTERM and SIGUSR1: the request to end soon, with all finished work kept.

use crate::world::World;
use signal_hook::consts::{SIGTERM, SIGUSR1};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is set once SIGTERM or SIGUSR1 (Slurm's warning) came.
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Catches the signals, for a command that looks at the flag.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn catch() -> std::io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGUSR1] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Leaves the signals alone: they end the process, as they do by default.
    pub fn ignored() -> Self {
        Self(Arc::default())
    }

    /// The flag of this rank.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }

    /// True on all ranks if the signal reached any of them. Collective.
    pub fn anywhere(&self, world: &World) -> bool {
        let mut told = [u64::from(self.0.load(Ordering::Relaxed))];
        world.max_u64(&mut told);
        told[0] > 0
    }
}
