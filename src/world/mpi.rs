//! The ranks of an MPI job.

use super::Error;
use super::counter::{Requests, SharedCounter};
use super::watch::Watch;
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::ffi;
use mpi::request::{Request, Scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Root, Source};
use std::sync::Arc;
use std::time::Duration;

/// Messages are cut into pieces of this many bytes: MPI counts are 31-bit numbers.
const PIECE: usize = 1 << 30;

/// A rank that waits asks so often without a pause whether the others have come ...
const EAGER: u32 = 200;
/// ... and then sleeps in between, so long at most.
const LONGEST_PAUSE: Duration = Duration::from_micros(500);

/// An initialised MPI and its watch.
pub struct Ranks {
    // Dropped in this order: the watch may still call MPI.
    pub(super) watch: Arc<Watch>,
    pub(super) world: SimpleCommunicator,
    pub(super) requests: Requests,
    node_size: usize,
    /// Whether the watch thread may call MPI beside the main thread.
    pub(super) may_serve: bool,
    _universe: Universe,
}

/// Ends all ranks of the job. Callable from any thread.
pub fn abort(code: i32) -> ! {
    // SAFETY: MPI is initialised wherever this is called (`Ranks::start` installs the callers); the
    // call ends the process and takes no memory of ours.
    unsafe {
        ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, code);
    }
    std::process::exit(code)
}

impl Ranks {
    /// Initialises MPI, and makes a panic on any rank end the whole job.
    pub fn start(stall: Duration) -> Result<Self, Error> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| Error::Mpi("it was initialised before".into()))?;
        let world = universe.world();
        let rank = world.rank();
        // Unwinding would finalise MPI while the other ranks wait in a collective: a deadlock.
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("stratigraph: rank {rank} panicked: {info}");
            abort(70)
        }));
        let node_size = world.split_shared(rank).size() as usize;
        let host = mpi::environment::processor_name().unwrap_or_default();
        let stalled = move |seconds: u64, waiting: bool| {
            let what = if waiting { "waited for the other ranks" } else { "made no progress" };
            eprintln!(
                "stratigraph: rank {rank} on {host} {what} for {seconds} s; the job is ended \
                 (--stall-seconds sets the limit)"
            );
            abort(6)
        };
        let may_serve = threading == Threading::Multiple;
        let requests = Requests::new(&world);
        let answering = requests.clone();
        let answer = move |waits: bool, fresh: bool| {
            // Rank 0 is asked for all: where it waits itself, its last beat may be another's.
            if may_serve {
                answering.answer(fresh && (rank == 0 || !waits));
            }
        };
        let watch = Arc::new(Watch::start(stall, stalled, answer));
        Ok(Self { watch, world, requests, node_size, may_serve, _universe: universe })
    }

    pub fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    pub fn size(&self) -> usize {
        self.world.size() as usize
    }

    pub fn node_size(&self) -> usize {
        self.node_size
    }

    pub fn barrier(&self) {
        self.watch.waiting(|| self.meet());
    }

    /// Waits until all ranks are here.
    fn meet(&self) {
        self.complete(self.world.immediate_barrier());
    }

    /// Waits for others, and meanwhile listens whether they work.
    fn complete<'a, D: ?Sized, S: Scope<'a>>(&self, mut request: Request<'a, D, S>) {
        let (mut pause, mut tests) = (Duration::from_micros(20), 0);
        let mut asked = Duration::ZERO;
        while let Err(pending) = request.test() {
            request = pending;
            tests += 1;
            // Most of what ranks wait for comes at once.
            if tests < EAGER {
                std::thread::yield_now();
                continue;
            }
            self.listen(&mut asked);
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A rank that waits asks rank 0, and rank 0 all others, whether they work; while one does, waiting
    /// for it is no stall, however long its work takes. `asked` is the silence at which this rank
    /// asked last.
    fn listen(&self, asked: &mut Duration) {
        let Some(silent) = self.watch.silent().filter(|_| self.may_serve) else { return };
        if silent < self.watch.limit() / 2 {
            return;
        }
        if self.requests.hears_of_work() {
            self.watch.beat();
            *asked = Duration::ZERO;
        } else if silent >= *asked + self.watch.limit() / 4 {
            self.requests.ask_for_work();
            *asked = silent;
        }
    }

    pub fn broadcast(&self, bytes: &mut Vec<u8>) {
        self.watch.waiting(|| {
            self.meet();
            let root = self.world.process_at_rank(0);
            let mut length = bytes.len() as u64;
            root.broadcast_into(&mut length);
            bytes.resize(length as usize, 0);
            for piece in bytes.chunks_mut(PIECE) {
                root.broadcast_into(piece);
                self.watch.beat();
            }
        });
    }

    pub fn sum_u64(&self, values: &mut [u64]) {
        self.reduce(values, SystemOperation::sum());
    }

    pub fn max_u64(&self, values: &mut [u64]) {
        self.reduce(values, SystemOperation::max());
    }

    fn reduce(&self, values: &mut [u64], operation: SystemOperation) {
        self.watch.waiting(|| {
            for piece in values.chunks_mut(PIECE / 8) {
                let mine = piece.to_vec();
                mpi::request::scope(|scope| {
                    self.complete(self.world.immediate_all_reduce_into(scope, &mine[..], piece, operation));
                });
            }
        });
    }

    pub fn gather(&self, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        self.watch.waiting(|| {
            self.meet();
            let length = bytes.len() as u64;
            let root = self.world.process_at_rank(0);
            if self.rank() != 0 {
                root.gather_into(&length);
                for piece in bytes.chunks(PIECE) {
                    root.send(piece);
                    self.watch.beat();
                }
                return None;
            }
            let mut lengths = vec![0u64; self.size()];
            root.gather_into_root(&length, &mut lengths[..]);
            let mut all = vec![bytes.to_vec()];
            for (rank, length) in lengths.iter().enumerate().skip(1) {
                let mut theirs = vec![0u8; *length as usize];
                for piece in theirs.chunks_mut(PIECE) {
                    self.world.process_at_rank(rank as i32).receive_into(piece);
                    self.watch.beat();
                }
                all.push(theirs);
            }
            Some(all)
        })
    }

    pub fn exchange(&self, outgoing: &[&[u8]]) -> Vec<Vec<u8>> {
        self.watch.waiting(|| {
            let (rank, size) = (self.rank(), self.size());
            let lengths: Vec<u64> = outgoing.iter().map(|bytes| bytes.len() as u64).collect();
            let mut incoming = vec![0u64; size];
            self.world.all_to_all_into(&lengths[..], &mut incoming[..]);
            let mut all: Vec<Vec<u8>> = incoming.iter().map(|n| vec![0; *n as usize]).collect();
            all[rank].copy_from_slice(outgoing[rank]);
            // In step k everyone sends k ranks up and receives from k ranks down.
            for step in 1..size {
                let (to, from) = ((rank + step) % size, (rank + size - step) % size);
                let mut sent = outgoing[to].chunks(PIECE);
                let mut received = all[from].chunks_mut(PIECE);
                loop {
                    let (piece, room) = (sent.next(), received.next());
                    if piece.is_none() && room.is_none() {
                        break;
                    }
                    mpi::request::scope(|scope| {
                        let destination = self.world.process_at_rank(to as i32);
                        let sending = piece.map(|piece| destination.immediate_send(scope, piece));
                        if let Some(room) = room {
                            self.world.process_at_rank(from as i32).receive_into(room);
                        }
                        if let Some(sending) = sending {
                            sending.wait();
                        }
                    });
                    self.watch.beat();
                }
            }
            all
        })
    }

    pub fn counter(&self, takers: usize) -> SharedCounter {
        self.watch.waiting(|| SharedCounter::new(self, takers))
    }
}
