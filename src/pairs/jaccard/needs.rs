//! What a run will need, told and checked before it starts.

use super::Prepared;
use super::kernel::Kernel;
use crate::pairs::{Error, Tile};

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

fn estimate_pairs(prepared: &Prepared) -> u64 {
    let n = prepared.collapsed.len() as u32;
    if prepared.want.min.is_none() || n == 0 {
        return 0;
    }
    let kernel = Kernel::new(&prepared.index, super::Want { top_k: 0, ..prepared.want });
    let sample = SAMPLE_ROWS.min(n);
    let mut found = 0u64;
    for s in 0..sample {
        let row = (u64::from(s) * u64::from(n) / u64::from(sample)) as u32;
        found += kernel.tile(&Tile { id: s, rows: row..row + 1, columns: 0..n }).edges.len() as u64;
    }
    found * u64::from(n) / u64::from(sample)
}
