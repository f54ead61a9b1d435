//! A work counter that the ranks of an MPI job share.
//!
//! Where MPI offers one-sided operations (MPI 3.1, chapter 11), the counter lies in a window of rank
//! 0 and costs about a microsecond a take. OpenMPI 4 has none over TCP once threads may call it;
//! there rank 0's watch thread answers requests. Where threads may not call MPI either, the numbers
//! are dealt in turn: the results are the same, only the load is less even.

use super::mpi::Ranks;
use super::watch::Watch;
use mpi::collective::SystemOperation;
use mpi::ffi;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{AsRaw, Communicator, CommunicatorCollectives, Destination, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counter of one engine run. Collective: all ranks make and drop it at the same place.
pub struct SharedCounter {
    means: Means,
    watch: Arc<Watch>,
    serving: bool,
}

enum Means {
    Window(ffi::MPI_Win),
    Requests { requests: Requests, rank: i32 },
    Dealt { next: AtomicU64, rank: u64, size: u64 },
}

impl SharedCounter {
    /// A counter from which the first `takers` ranks take.
    pub fn new(ranks: &Ranks, takers: usize) -> Self {
        let asked = std::env::var("STRATIGRAPH_COUNTER").unwrap_or_default();
        let window = if asked.is_empty() || asked == "window" { allocate_window(ranks) } else { None };
        let means = match window {
            Some(window) => Means::Window(window),
            None if ranks.may_serve && asked != "dealt" => {
                ranks.requests.next.store(0, Ordering::Relaxed);
                Means::Requests { requests: ranks.requests.clone(), rank: ranks.world.rank() }
            }
            None => Means::Dealt { next: AtomicU64::new(0), rank: ranks.rank() as u64, size: takers as u64 },
        };
        ranks.world.barrier();
        // Rank 0 answers only while it is inside an MPI call, also where a network card adds to the
        // window in software; the watch thread makes such calls while rank 0 computes.
        let serving = ranks.may_serve && ranks.rank() == 0 && !matches!(means, Means::Dealt { .. });
        if serving {
            ranks.watch.serve(true);
        }
        Self { means, watch: Arc::clone(&ranks.watch), serving }
    }

    /// Adds to the counter and returns what it was.
    pub fn add(&self, value: u64) -> u64 {
        self.watch.waiting(|| match &self.means {
            Means::Window(window) => add_in_window(*window, value),
            Means::Requests { requests, rank: 0 } => requests.next.fetch_add(value, Ordering::Relaxed),
            Means::Requests { requests, .. } => requests.ask(value),
            // Turn k of rank r gives r + k * size.
            Means::Dealt { next, rank, size } => {
                next.fetch_add(value, Ordering::Relaxed).saturating_mul(*size).saturating_add(*rank)
            }
        })
    }
}

impl Drop for SharedCounter {
    fn drop(&mut self) {
        self.watch.waiting(|| match &mut self.means {
            Means::Window(window) => {
                // SAFETY: every rank drops its counter at the same place of the program; the window
                // is not used again. Freeing waits until all ranks have unlocked.
                unsafe {
                    ffi::MPI_Win_unlock_all(*window);
                    ffi::MPI_Win_free(window);
                }
            }
            // Rank 0 goes on answering until nobody can ask any more.
            Means::Requests { requests, .. } => requests.comm.barrier(),
            Means::Dealt { .. } => (),
        });
        if self.serving {
            self.watch.serve(false);
        }
    }
}

/// A window with one u64, set to 0, on rank 0; `None`, on all ranks, if MPI offers none here.
fn allocate_window(ranks: &Ranks) -> Option<ffi::MPI_Win> {
    let bytes = if ranks.rank() == 0 { 8 } else { 0 };
    let mut base: *mut u64 = std::ptr::null_mut();
    let mut window = std::mem::MaybeUninit::uninit();
    // SAFETY: all ranks call this in the same order (`World::counter` is collective). The error
    // handler is that of our duplicate of the world, restored before anything else uses it.
    let code = unsafe {
        let comm = ranks.requests.comm.as_raw();
        ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN);
        let code = ffi::MPI_Win_allocate(
            bytes,
            8,
            ffi::RSMPI_INFO_NULL,
            comm,
            (&raw mut base).cast(),
            window.as_mut_ptr(),
        );
        ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_ARE_FATAL);
        code
    };
    let mut failures = 0u32;
    ranks.world.all_reduce_into(&u32::from(code != 0), &mut failures, SystemOperation::max());
    if failures > 0 {
        return None;
    }
    // SAFETY: the call above initialised `window` on every rank. Rank 0's part is one aligned u64
    // that MPI allocated; it is set before the barrier in `SharedCounter::new` lets anyone add.
    unsafe {
        let window = window.assume_init();
        ffi::MPI_Win_lock_all(0, window);
        if ranks.rank() == 0 {
            base.write(0);
            ffi::MPI_Win_sync(window);
        }
        Some(window)
    }
}

fn add_in_window(window: ffi::MPI_Win, value: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: `value` and `before` are one u64 each and outlive the flush, which completes the
    // operation; rank 0's window holds one u64 at displacement 0.
    unsafe {
        ffi::MPI_Fetch_and_op(
            (&raw const value).cast(),
            (&raw mut before).cast(),
            ffi::RSMPI_UINT64_T,
            0,
            0,
            ffi::RSMPI_SUM,
            window,
        );
        ffi::MPI_Win_flush(0, window);
    }
    before
}

/// What ranks ask each other outside collective operations, on a communicator of their own.
#[derive(Clone)]
pub struct Requests {
    comm: Arc<Comm>,
    next: Arc<AtomicU64>,
}

struct Comm(SimpleCommunicator);

// SAFETY: the communicator is a handle that is never changed after it was made; threads beside the
// main one call MPI on it only under MPI_THREAD_MULTIPLE (`Ranks::may_serve`).
unsafe impl Send for Comm {}
// SAFETY: as above.
unsafe impl Sync for Comm {}

impl std::ops::Deref for Comm {
    type Target = SimpleCommunicator;
    fn deref(&self) -> &SimpleCommunicator {
        &self.0
    }
}

const ASK: i32 = 1;
const ANSWER: i32 = 2;
const DO_YOU_WORK: i32 = 3;
const I_DO: i32 = 4;

impl Requests {
    /// Collective.
    pub fn new(world: &SimpleCommunicator) -> Self {
        Self { comm: Arc::new(Comm(world.duplicate())), next: Arc::default() }
    }

    fn ask(&self, value: u64) -> u64 {
        let root = self.comm.process_at_rank(0);
        root.send_with_tag(&value, ASK);
        root.receive_with_tag::<u64>(ANSWER).0
    }

    /// Asks rank 0 whether it works, or knows of one that does; rank 0 asks all others.
    pub fn ask_for_work(&self) {
        let ranks = if self.comm.rank() == 0 { 1..self.comm.size() } else { 0..1 };
        for rank in ranks {
            self.comm.process_at_rank(rank).send_with_tag(&0u64, DO_YOU_WORK);
        }
    }

    /// True if a rank that was asked has said that it works.
    pub fn hears_of_work(&self) -> bool {
        let mut heard = false;
        while let Some((message, _)) = self.comm.any_process().immediate_matched_probe_with_tag(I_DO) {
            let _ = message.matched_receive::<u64>();
            heard = true;
        }
        heard
    }

    /// Answers what has arrived. Called by the watch thread, with whether this rank works; also lets
    /// MPI make progress.
    pub fn answer(&self, works: bool) {
        while let Some((message, status)) = self.comm.any_process().immediate_matched_probe_with_tag(ASK) {
            let (value, _) = message.matched_receive::<u64>();
            let before = self.next.fetch_add(value, Ordering::Relaxed);
            self.comm.process_at_rank(status.source_rank()).send_with_tag(&before, ANSWER);
        }
        let asked = || self.comm.any_process().immediate_matched_probe_with_tag(DO_YOU_WORK);
        while let Some((message, status)) = asked() {
            let _ = message.matched_receive::<u64>();
            if works {
                self.comm.process_at_rank(status.source_rank()).send_with_tag(&0u64, I_DO);
            }
        }
    }
}
