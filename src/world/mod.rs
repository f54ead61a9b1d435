//! Ranks: the only module that knows MPI.
//!
//! A [`World`] is either one process ([`World::solo`], which never initialises MPI) or the ranks
//! of an MPI job. Both offer the same few collective operations, so that the rest of the program
//! is written once. All operations are called by every rank in the same order.

mod counter;
mod launch;
mod mpi;
mod watch;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Why the ranks could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MPI sees another number of ranks than Slurm started.
    #[error(
        "MPI sees {size} rank(s), but Slurm started {tasks} (SLURM_NTASKS): the ranks do not find each other; launch with `srun --mpi=pmix` (`srun --mpi=list` shows what there is), or set STRATIGRAPH_ANY_SIZE=1 if this is meant"
    )]
    SizeDisagrees {
        /// Ranks that MPI sees.
        size: usize,
        /// Tasks that Slurm started.
        tasks: usize,
        /// The rank that says so; all do.
        rank: usize,
    },
    /// MPI refused to start.
    #[error("MPI cannot be initialised: {0}")]
    Mpi(String),
}

/// The ranks of this run.
pub struct World {
    inner: Inner,
    local_ranks: Option<usize>,
}

enum Inner {
    Solo,
    Mpi(mpi::Ranks),
}

impl World {
    /// One process, without MPI.
    pub fn solo() -> Self {
        Self { inner: Inner::Solo, local_ranks: None }
    }

    /// The ranks that the environment describes: those of an MPI job if a launcher started
    /// several, else one process. A rank without [`World::progress`] for `stall` (if not zero) is
    /// reported and ends the job. From here on a panic ends the job with exit code 70. `serial` says
    /// that one rank would do: then a batch script may start the program without `srun`.
    ///
    /// # Errors
    /// [`Error::SizeDisagrees`] if Slurm started another number of tasks than MPI sees,
    /// [`Error::Mpi`] if MPI does not start.
    pub fn start(stall: Duration, serial: bool) -> Result<Self, Error> {
        let launch = launch::launch(|name| std::env::var(name).ok());
        let inner = if launch.several {
            Inner::Mpi(mpi::Ranks::start(stall)?)
        } else {
            std::panic::set_hook(Box::new(|info| {
                eprintln!("stratigraph: panicked: {info}");
                std::process::exit(70)
            }));
            Inner::Solo
        };
        let world = Self { inner, local_ranks: launch.local_ranks };
        // On other nodes `mpirun` starts ranks through a step of its own, with another count.
        let tasks = if serial && !launch.several { launch.step_tasks } else { launch.slurm_tasks };
        let mut wrong = tasks.filter(|tasks| world.is_root() && *tasks != world.size()).unwrap_or(0) as u64;
        if launch.several {
            let mut shared = [wrong];
            world.max_u64(&mut shared);
            wrong = shared[0];
        }
        match wrong {
            0 => Ok(world),
            tasks => {
                let (size, rank) = (world.size(), world.rank());
                Err(Error::SizeDisagrees { size, tasks: tasks as usize, rank })
            }
        }
    }

    /// Cores that this rank may use for threads: those it is bound to, or its share of the node's.
    pub fn cores_per_rank(&self) -> usize {
        let mine = std::thread::available_parallelism().map_or(1, usize::from);
        let online = std::fs::read_to_string("/proc/cpuinfo")
            .map_or(mine, |text| text.lines().filter(|l| l.starts_with("processor")).count());
        let sharing = self.local_ranks.unwrap_or_else(|| self.node_size());
        if mine < online { mine } else { (mine / sharing.max(1)).max(1) }
    }

    /// Threads that a rank may use while the others on its node wait in [`World::barrier`], if each
    /// of them has so many: theirs, too, but no more than the cores it is bound to.
    pub fn threads_of_node(&self, each: usize) -> usize {
        let bound = std::thread::available_parallelism().map_or(each, usize::from);
        (each * self.node_size()).min(bound.max(each))
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        match &self.inner {
            Inner::Solo => 0,
            Inner::Mpi(ranks) => ranks.rank(),
        }
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        match &self.inner {
            Inner::Solo => 1,
            Inner::Mpi(ranks) => ranks.size(),
        }
    }

    /// Which of `all` pieces of work are `rank`'s if each rank takes as many, in rank order.
    pub fn share(&self, rank: usize, all: usize) -> Range<usize> {
        all * rank / self.size()..all * (rank + 1) / self.size()
    }

    /// The terminal of the `mpirun` that started this rank on its own node, if it has one. It passes
    /// our standard error on, which is a pipe therefore; a bar needs the terminal itself.
    pub fn launcher_terminal(&self) -> Option<std::fs::File> {
        match &self.inner {
            Inner::Solo => None,
            Inner::Mpi(_) => launch::launcher_terminal(),
        }
    }

    /// True on rank 0, which alone writes results.
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Number of ranks on this rank's node.
    pub fn node_size(&self) -> usize {
        match &self.inner {
            Inner::Solo => 1,
            Inner::Mpi(ranks) => ranks.node_size(),
        }
    }

    /// Waits for all ranks, asleep: in other operations a waiting rank takes a whole core from those
    /// that work. This is the one in which to wait for rank 0's serial work.
    pub fn barrier(&self) {
        if let Inner::Mpi(ranks) = &self.inner {
            ranks.barrier();
        }
    }

    /// Gives every rank the bytes of rank 0; lengths may differ before and be of any size.
    pub fn broadcast(&self, bytes: &mut Vec<u8>) {
        if let Inner::Mpi(ranks) = &self.inner {
            ranks.broadcast(bytes);
        }
    }

    /// Element-wise sum over all ranks, on every rank. Lengths must agree.
    pub fn sum_u64(&self, values: &mut [u64]) {
        if let Inner::Mpi(ranks) = &self.inner {
            ranks.sum_u64(values);
        }
    }

    /// Element-wise maximum over all ranks, on every rank. Lengths must agree.
    pub fn max_u64(&self, values: &mut [u64]) {
        if let Inner::Mpi(ranks) = &self.inner {
            ranks.max_u64(values);
        }
    }

    /// Element-wise sum over all ranks in rank order, on every rank: the same bits each time,
    /// which MPI's own float reduction does not promise.
    pub fn sum_f64(&self, values: &mut [f64]) {
        let Inner::Mpi(_) = &self.inner else { return };
        let mut sums = Vec::new();
        if let Some(all) = self.gather(bytemuck::cast_slice(values)) {
            let mut total = vec![0.0f64; values.len()];
            for bytes in &all {
                let theirs = bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned::<f64>);
                total.iter_mut().zip(theirs).for_each(|(sum, value)| *sum += value);
            }
            sums = bytemuck::cast_slice(&total).to_vec();
        }
        self.broadcast(&mut sums);
        let sums = sums.chunks_exact(8).map(bytemuck::pod_read_unaligned::<f64>);
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum);
    }

    /// Collects every rank's bytes on rank 0 in rank order; `None` elsewhere. Any lengths.
    pub fn gather(&self, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        match &self.inner {
            Inner::Solo => Some(vec![bytes.to_vec()]),
            Inner::Mpi(ranks) => ranks.gather(bytes),
        }
    }

    /// Sends `outgoing[r]` to every rank r and returns what each rank sent here, in rank order. Any
    /// lengths.
    pub fn exchange(&self, outgoing: &[&[u8]]) -> Vec<Vec<u8>> {
        assert_eq!(outgoing.len(), self.size(), "one message for each rank");
        match &self.inner {
            Inner::Solo => vec![outgoing[0].to_vec()],
            Inner::Mpi(ranks) => ranks.exchange(outgoing),
        }
    }

    /// A counter that all ranks share, starting at 0. Collective, also when it is dropped.
    pub fn counter(&self) -> Counter {
        self.counter_for(self.size())
    }

    /// A counter from which only the first `takers` ranks take. Collective, as [`World::counter`].
    pub fn counter_for(&self, takers: usize) -> Counter {
        let inner = match &self.inner {
            Inner::Solo => CounterInner::Solo(AtomicU64::new(0)),
            Inner::Mpi(ranks) => CounterInner::Mpi(ranks.counter(takers)),
        };
        Counter { inner }
    }

    /// Says that this rank makes progress; see the stall watch.
    pub fn progress(&self) {
        if let Inner::Mpi(ranks) = &self.inner {
            ranks.watch.beat();
        }
    }

    /// The same as [`World::progress`] for threads other than the one that owns the world.
    pub fn heartbeat(&self) -> impl Fn() + Send + Sync + 'static {
        let watch = match &self.inner {
            Inner::Solo => None,
            Inner::Mpi(ranks) => Some(std::sync::Arc::clone(&ranks.watch)),
        };
        move || {
            if let Some(watch) = &watch {
                watch.beat();
            }
        }
    }

    /// Ends the whole job at once with this exit code, after printing the rank and the message.
    pub fn abort(&self, code: u8, message: &str) -> ! {
        let _ = std::io::Write::flush(&mut std::io::stdout());
        match &self.inner {
            Inner::Solo => {
                eprintln!("stratigraph: {message}");
                std::process::exit(i32::from(code))
            }
            Inner::Mpi(ranks) => {
                eprintln!("stratigraph: rank {}: {message}", ranks.rank());
                mpi::abort(i32::from(code))
            }
        }
    }
}

/// A work counter that all ranks share.
pub struct Counter {
    inner: CounterInner,
}

enum CounterInner {
    Solo(AtomicU64),
    Mpi(counter::SharedCounter),
}

impl Counter {
    /// Takes the next number: 0, 1, 2, ... over all ranks; each number is given once.
    pub fn take(&self) -> u64 {
        self.add(1)
    }

    /// Makes every later [`Counter::take`], on any rank, give a number beyond all work
    /// (at least 2^40).
    pub fn close(&self) {
        // Every rank may close; the sum of all stays far from 2^64.
        self.add(1 << 40);
    }

    fn add(&self, value: u64) -> u64 {
        match &self.inner {
            CounterInner::Solo(next) => next.fetch_add(value, Ordering::Relaxed),
            CounterInner::Mpi(counter) => counter.add(value),
        }
    }
}
