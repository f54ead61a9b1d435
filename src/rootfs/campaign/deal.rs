//! Work dealt from a shared counter to ranks and their threads.

use super::Error;
use crate::world::{Counter, World};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

/// Who does the tasks.
#[derive(Debug, Clone, Copy)]
pub struct Workers {
    /// The first so many ranks; the others wait, asleep.
    pub ranks: usize,
    /// Tasks that a rank does at a time.
    pub threads: usize,
}

impl Workers {
    /// True if there are so few tasks that each may take a second thread.
    pub fn spare_threads(&self, tasks: usize) -> bool {
        tasks.div_ceil(self.ranks.max(1)) * 2 <= self.threads
    }
}

/// Does tasks `0..count`, each once over all ranks, on the threads of `workers`, and hands the results
/// to `each` on the calling thread, in the order in which they are ready. Stops dealing when `stop`
/// is set, on all ranks. Collective.
///
/// The calling thread alone asks the counter: MPI need not allow it to others.
pub fn deal<T: Send>(
    world: &World,
    stop: &AtomicBool,
    count: usize,
    workers: Workers,
    task: &(dyn Fn(usize) -> T + Sync),
    each: &mut dyn FnMut(usize, T) -> Result<(), Error>,
) -> Result<(), Error> {
    let counter = world.counter_for(workers.ranks);
    let outcome = if world.rank() < workers.ranks {
        work(world, &counter, stop, count, workers, task, each)
    } else {
        Ok(())
    };
    // Who has nothing to do waits here rather than in the counter's end, which takes a core.
    if outcome.is_ok() {
        world.barrier();
    }
    outcome
}

fn work<T: Send>(
    world: &World,
    counter: &Counter,
    stop: &AtomicBool,
    count: usize,
    workers: Workers,
    task: &(dyn Fn(usize) -> T + Sync),
    each: &mut dyn FnMut(usize, T) -> Result<(), Error>,
) -> Result<(), Error> {
    let threads = workers.threads;
    let next = || {
        if stop.load(Ordering::Relaxed) {
            counter.close();
            return None;
        }
        usize::try_from(counter.take()).ok().filter(|i| *i < count)
    };
    if threads <= 1 {
        while let Some(i) = next() {
            each(i, task(i))?;
            world.progress();
        }
        return Ok(());
    }
    let (give, work) = mpsc::channel::<usize>();
    let (done, results) = mpsc::channel();
    let work = Mutex::new(work);
    std::thread::scope(|scope| {
        let mut busy = 0;
        for _ in 0..threads.min(count) {
            let (work, done) = (&work, done.clone());
            scope.spawn(move || {
                loop {
                    let taken = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(i) = taken else { return };
                    if done.send((i, task(i))).is_err() {
                        return;
                    }
                }
            });
            if let Some(i) = next() {
                busy += usize::from(give.send(i).is_ok());
            }
        }
        let mut outcome = Ok(());
        while busy > 0 {
            let Ok((i, result)) = results.recv() else { break };
            busy -= 1;
            if outcome.is_ok() {
                outcome = each(i, result);
                world.progress();
                if let Some(i) = next().filter(|_| outcome.is_ok()) {
                    busy += usize::from(give.send(i).is_ok());
                }
            }
        }
        drop(give);
        outcome
    })
}
