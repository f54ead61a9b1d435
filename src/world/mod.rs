//! Ranks: the only module that knows MPI.
//!
//! A [`World`] is either one process ([`World::solo`], which never initialises MPI) or the ranks
//! of an MPI job. Both offer the same few collective operations, so that the rest of the program
//! is written once. All operations are called by every rank in the same order.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why the ranks could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MPI sees another number of ranks than Slurm started.
    #[error(
        "MPI sees {size} rank(s), but Slurm started {tasks} (SLURM_NTASKS): the ranks do not find each other; launch with `srun --mpi=pmix` (see `srun --mpi=list`)"
    )]
    SizeDisagrees {
        /// Ranks that MPI sees.
        size: usize,
        /// Tasks that Slurm started.
        tasks: usize,
    },
    /// MPI refused to start.
    #[error("MPI cannot be initialised: {0}")]
    Mpi(String),
}

/// The ranks of this run.
pub struct World {
    inner: Inner,
}

enum Inner {
    Solo,
}

impl World {
    /// One process, without MPI.
    pub fn solo() -> Self {
        Self { inner: Inner::Solo }
    }

    /// The ranks that the environment describes: those of an MPI job if a launcher started
    /// several, else one process. A rank without [`World::progress`] for `stall` (if not zero) is
    /// reported and ends the job.
    ///
    /// # Errors
    /// [`Error::SizeDisagrees`] if Slurm started another number of tasks than MPI sees.
    pub fn start(_stall: std::time::Duration) -> Result<Self, Error> {
        Ok(Self::solo())
    }

    /// Cores that this rank may use for threads: those it is bound to, or its share of the node's.
    pub fn cores_per_rank(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        match self.inner {
            Inner::Solo => 0,
        }
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        match self.inner {
            Inner::Solo => 1,
        }
    }

    /// True on rank 0, which alone writes results.
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Number of ranks on this rank's node.
    pub fn node_size(&self) -> usize {
        match self.inner {
            Inner::Solo => 1,
        }
    }

    /// Waits for all ranks.
    pub fn barrier(&self) {
        match self.inner {
            Inner::Solo => (),
        }
    }

    /// Gives every rank the bytes of rank 0; lengths may differ before and be of any size.
    pub fn broadcast(&self, _bytes: &mut Vec<u8>) {
        match self.inner {
            Inner::Solo => (),
        }
    }

    /// Element-wise sum over all ranks, on every rank. Lengths must agree.
    pub fn sum_u64(&self, _values: &mut [u64]) {
        match self.inner {
            Inner::Solo => (),
        }
    }

    /// Element-wise maximum over all ranks, on every rank. Lengths must agree.
    pub fn max_u64(&self, _values: &mut [u64]) {
        match self.inner {
            Inner::Solo => (),
        }
    }

    /// Element-wise sum over all ranks in rank order, on every rank: the same bits each time.
    pub fn sum_f64(&self, _values: &mut [f64]) {
        match self.inner {
            Inner::Solo => (),
        }
    }

    /// Collects every rank's bytes on rank 0 in rank order; `None` elsewhere. Any lengths.
    pub fn gather(&self, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        match self.inner {
            Inner::Solo => Some(vec![bytes.to_vec()]),
        }
    }

    /// A counter that all ranks share, starting at 0. Collective.
    pub fn counter(&self) -> Counter {
        match self.inner {
            Inner::Solo => Counter { inner: CounterInner::Solo(AtomicU64::new(0)) },
        }
    }

    /// Says that this rank makes progress; see the stall watch.
    pub fn progress(&self) {}

    /// Ends the whole job at once with this exit code, after printing the rank and the message.
    pub fn abort(&self, code: u8, message: &str) -> ! {
        eprintln!("stratigraph: rank {}: {message}", self.rank());
        std::process::exit(i32::from(code))
    }
}

/// A work counter that all ranks share.
pub struct Counter {
    inner: CounterInner,
}

enum CounterInner {
    Solo(AtomicU64),
}

impl Counter {
    /// Takes the next number: 0, 1, 2, ... over all ranks; each number is given once.
    pub fn take(&self) -> u64 {
        match &self.inner {
            CounterInner::Solo(next) => next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Makes every later [`Counter::take`], on any rank, give a number beyond all work
    /// (at least 2^62).
    pub fn close(&self) {
        match &self.inner {
            CounterInner::Solo(next) => next.fetch_add(1 << 62, Ordering::Relaxed),
        };
    }
}
