//! Runs a plan on the ranks: hands out tiles, journals each result, stops when asked to; hands the
//! results back in tile order.

use super::journal::{Fingerprint, Finished, Journal};
use super::{Error, Plan, Tile};
use crate::world::World;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a run of the engine needs besides the kernel.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The tiles.
    pub plan: &'a Plan,
    /// Identity of the run; journals of another run are refused.
    pub fingerprint: &'a Fingerprint,
    /// Directory of the journals; made if it is missing.
    pub directory: &'a Path,
    /// Set when the run should end soon (SIGTERM, SIGUSR1).
    pub stop: &'a AtomicBool,
    /// Called with the tiles that are dealt with so far: on every rank while they are computed, and
    /// on rank 0 while they are merged.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Waited before a tile is recorded, so that tests can meet a run in the middle.
    pub pause: Duration,
}

/// How a run of the engine ended. The same on every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Number of all tiles.
    pub tiles: u32,
    /// Tiles that earlier attempts had finished.
    pub found: u32,
    /// Tiles that this attempt computed, over all ranks.
    pub computed: u32,
}

impl Outcome {
    /// True if every tile is finished; false if the run was stopped before.
    pub fn is_complete(&self) -> bool {
        self.found + self.computed >= self.tiles
    }
}

/// A machine that fails while the journals are merged costs at most this much work.
const SYNCED_FROM: Duration = Duration::from_secs(1);

/// Computes all tiles that no earlier attempt finished. Collective.
///
/// A rank takes one tile at a time from a shared counter, so that a kill costs at most one tile
/// per rank; which rank computes a tile does not show in the results, which are merged in tile
/// order. `kernel` is told the number of this attempt, which no journal has yet.
///
/// # Errors
/// [`Error::Journal`], [`Error::Refused`] and those of the kernel; the caller ends the job then.
pub fn compute(
    world: &World,
    job: &Job<'_>,
    mut kernel: impl FnMut(u32, &Tile) -> Result<Vec<u8>, Error>,
) -> Result<Outcome, Error> {
    let tiles = job.plan.tiles();
    let (attempt, missing) = agree_on_missing(world, job)?;
    let counter = world.counter();
    let mut journal = Journal::create(job.directory, world.rank(), attempt, job.fingerprint)?;
    let found = tiles as usize - missing.len();
    let (mut computed, mut stopped) = (0u64, false);
    let begun = Instant::now();
    loop {
        if job.is_stopped() {
            counter.close();
            stopped = true;
            break;
        }
        let next = counter.take();
        let Some(&id) = usize::try_from(next).ok().and_then(|i| missing.get(i)) else { break };
        tracing::debug!(rank = world.rank(), tile = id, "begins");
        let payload = kernel(attempt, &job.plan.tile(id))?;
        job.pause();
        journal.record(id, &payload)?;
        computed += 1;
        world.progress();
        (job.progress)(found as u64 + next + 1);
    }
    // What took no longer than that is computed again sooner than a disk has synced. Closed it is in
    // any case before the others hear of it: other nodes see on NFS what was closed (nfs(5)).
    if stopped || begun.elapsed() > SYNCED_FROM {
        journal.close()?;
    } else {
        drop(journal);
    }
    let mut total = [computed];
    world.sum_u64(&mut total);
    Ok(Outcome { tiles, found: found as u32, computed: total[0] as u32 })
}

/// Hands the payload of every tile to `visit`, in tile order. For rank 0, after a [`compute`] that
/// is complete. `visit` returns `None` for bytes that are no result of its kernel.
///
/// # Errors
/// [`Error::Journal`] if a tile is missing, unreadable or no result; [`Error::Stopped`] after a
/// signal: the journals are as they were.
pub fn merge(
    world: &World,
    job: &Job<'_>,
    mut visit: impl FnMut(&Tile, &[u8]) -> Option<()>,
) -> Result<(), Error> {
    let finished = scan_whole(world, job)?;
    finished.replay(|id, payload| {
        if job.is_stopped() {
            return Err(Error::Stopped);
        }
        world.progress();
        (job.progress)(u64::from(id) + 1);
        visit(&job.plan.tile(id), payload).ok_or_else(|| Error::Journal {
            path: job.directory.to_owned(),
            reason: format!("tile {id} holds something else than a result; remove the journal"),
        })
    })
}

/// How often rank 0 looks for a tile that another rank has recorded, a second apart: NFS keeps what it
/// knows of a directory for up to a minute (`acdirmax`, nfs(5)).
const LOOKS: u32 = 120;

/// The journals, with all tiles unless that is in vain.
fn scan_whole(world: &World, job: &Job<'_>) -> Result<Finished, Error> {
    let mut look = 0;
    loop {
        let finished = Finished::scan(job.directory, job.plan.tiles(), job.fingerprint)?;
        // The files of a single rank are its own.
        if finished.missing().is_empty() || look == LOOKS || world.size() == 1 || job.is_stopped() {
            return Ok(finished);
        }
        if look == 0 {
            let place = job.directory.display();
            tracing::warn!("{place}: journals of other ranks are not to be seen yet; looks again");
        }
        look += 1;
        std::thread::sleep(Duration::from_secs(1));
        world.progress();
    }
}

impl Job<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn pause(&self) {
        let until = Instant::now() + self.pause;
        while Instant::now() < until && !self.is_stopped() {
            std::thread::sleep(self.pause.min(Duration::from_millis(20)));
        }
    }
}

/// Rank 0 reads the journals and tells the others, so that all agree even if a network file
/// system shows them different states.
fn agree_on_missing(world: &World, job: &Job<'_>) -> Result<(u32, Vec<u32>), Error> {
    let mut message = Vec::new();
    if world.is_root() {
        std::fs::create_dir_all(job.directory)
            .map_err(|e| Error::Journal { path: job.directory.to_owned(), reason: e.to_string() })?;
        let finished = Finished::scan(job.directory, job.plan.tiles(), job.fingerprint)?;
        message.extend_from_slice(&finished.next_attempt().to_le_bytes());
        message.extend_from_slice(bytemuck::cast_slice(&finished.missing()));
    }
    world.broadcast(&mut message);
    let mut words = message.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    let attempt = words.next().unwrap_or(0);
    Ok((attempt, words.collect()))
}
