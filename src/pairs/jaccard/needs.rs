//! What a run will need, told and checked before it starts.

use super::Prepared;
use super::kernel::Kernel;
use crate::pairs::{Error, Tile};
use std::time::{Duration, Instant};

/// Rows that are computed beforehand to learn how many pairs the threshold keeps.
const SAMPLE_ROWS: u32 = 64;

/// An estimate of what a run needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Posting entries that are visited: the work.
    pub steps: u64,
    /// Pairs over the threshold, estimated from a sample of rows.
    pub pairs: u64,
    /// Memory of one rank, in bytes; that of rank 0, which also merges.
    pub memory: u64,
    /// Disk in the results directory, in bytes, journals included.
    pub disk: u64,
}

/// What a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of one rank in bytes.
    pub memory: u64,
    /// Free disk space in the results directory in bytes.
    pub disk: u64,
}

/// Memory of this rank once the sets are indexed, in bytes: the index is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Now.
    pub now: u64,
    /// The most so far: while the corpus was read.
    pub peak: u64,
}

impl Needs {
    /// Estimates from the index and, for the threshold, from evenly spaced sample rows (their cost
    /// is a few tiles' at most). `matrix` says whether the dense matrix is written, `held` what
    /// reading and indexing took.
    pub fn of(prepared: &Prepared, matrix: bool, threads: usize, held: Held) -> Self {
        let n = prepared.collapsed.len() as u64;
        let images = prepared.images.len() as u64;
        let visits: u64 = (0..prepared.collapsed.len()).map(|i| prepared.index.steps_of(i)).sum();
        let steps = if prepared.want.top_k > 0 { visits } else { visits / 2 };
        let pairs = estimate_pairs(prepared);
        let neighbours = n * prepared.want.top_k as u64 * 12;
        let cells = prepared.index.largest.items.min(256).pow(2) * 24;
        // The merge holds neighbours and pairs, and once more while the columns are written.
        let merged = 2 * (neighbours + pairs * 12);
        let kernels = Kernel::memory_per_thread(&prepared.index) * threads as u64;
        let memory = held.peak.max(held.now + kernels + merged);
        let tiles = u64::from(prepared.plan.tiles());
        let dense = if matrix { images * images * 8 } else { 0 };
        let journal = neighbours + pairs * 12 + tiles * cells;
        let disk = journal + neighbours * 4 / 3 + pairs * 12 + images * 64 + dense;
        Self { steps, pairs, memory, disk }
    }

    /// Refuses what cannot fit.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`].
    pub fn check(&self, limits: Limits) -> Result<(), Error> {
        let refuse = |what: &str, needed: u64, available: u64, hint: &str| {
            if needed <= available {
                return Ok(());
            }
            Err(Error::DoesNotFit { what: what.into(), needed, available, hint: hint.into() })
        };
        refuse(
            "the run",
            self.memory,
            limits.memory,
            "raise --min, lower --top-k, use fewer ranks per node, or allow more with --memory",
        )?;
        refuse(
            "the results directory",
            self.disk,
            limits.disk,
            "raise --min, leave out --matrix, or choose another -o",
        )
    }
}

impl Prepared {
    /// Expected time of all tiles with so many threads in all, from a calibration of at most about a
    /// second on those of this process. The work of a tile is the posting entries that it visits.
    pub fn expected(&self, threads: usize) -> Duration {
        let kernel = Kernel::new(&self.index, self.want);
        let steps_of =
            |tile: &Tile| -> u64 { tile.rows.clone().map(|i| self.index.steps_of(i as usize)).sum() };
        let tiles = self.plan.tiles();
        let (mut seconds, mut steps, mut runs) = (0.0, 0u64, 0u32);
        while runs < tiles && seconds < 1.0 {
            // A step that meets all parts of the plan, whatever their number.
            let id = (f64::from(runs) * 0.618_034).fract() * f64::from(tiles);
            let tile = self.plan.tile(id as u32);
            let begun = Instant::now();
            std::hint::black_box(kernel.tile(&tile));
            seconds += begun.elapsed().as_secs_f64();
            steps += steps_of(&tile);
            runs += 1;
        }
        let all: u64 = (0..tiles).map(|id| steps_of(&self.plan.tile(id))).sum();
        let scale = all as f64 / steps.max(1) as f64;
        let here = rayon::current_num_threads() as f64;
        Duration::from_secs_f64(seconds * scale.max(1.0) * here / threads.max(1) as f64)
    }
}

fn estimate_pairs(prepared: &Prepared) -> u64 {
    let n = prepared.collapsed.len() as u32;
    if prepared.want.min.is_none() || n == 0 {
        return 0;
    }
    let kernel = Kernel::new(&prepared.index, super::Want { top_k: 0, ..prepared.want });
    let sample = SAMPLE_ROWS.min(n);
    let rows = (0..sample).map(|s| (u64::from(s) * u64::from(n) / u64::from(sample)) as u32);
    let found = kernel.count_edges(rows);
    found * u64::from(n) / u64::from(sample)
}
