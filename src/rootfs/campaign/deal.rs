//! Work dealt from a shared counter to ranks and their threads.

use super::Error;
use crate::world::World;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

/// Does tasks `0..count`, each once over all ranks, on `threads` of each rank, and hands the results
/// to `each` on the calling thread, in the order in which they are ready. Stops dealing when `stop`
/// is set, on all ranks. Collective.
///
/// The calling thread alone asks the counter: MPI need not allow it to others.
pub fn deal<T: Send>(
    world: &World,
    stop: &AtomicBool,
    count: usize,
    threads: usize,
    task: &(dyn Fn(usize) -> T + Sync),
    each: &mut dyn FnMut(usize, T) -> Result<(), Error>,
) -> Result<(), Error> {
    let counter = world.counter();
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
