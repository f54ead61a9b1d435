//! SIGTERM and SIGUSR1: the request to end soon, with all finished work kept.

use signal_hook::consts::{SIGTERM, SIGUSR1};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A flag that is set once SIGTERM or SIGUSR1 (Slurm's warning) came.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGUSR1] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
