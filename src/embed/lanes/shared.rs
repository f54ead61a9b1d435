//! A chunk that threads read and write at the same time.

use super::{Chunk, WIDTH};
use std::sync::atomic::{AtomicU32, Ordering};

/// Sixteen elements of a row that threads share without locks (Recht et al. 2011, "Hogwild!"). A
/// reader may see some lanes before and some after another thread's change, never a torn lane.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct SharedChunk([AtomicU32; WIDTH]);

impl SharedChunk {
    /// Chunks that one thread owns, for several threads to change as long as the loan lasts.
    pub fn share(chunks: &mut [Chunk]) -> &[Self] {
        const { assert!(size_of::<Self>() == size_of::<Chunk>() && align_of::<Self>() == align_of::<Chunk>()) };
        // SAFETY: both are 16 values of 32 bits at the same places, every bit pattern is a value of
        // both, and the unique loan ensures that whoever reads these does it through atomics.
        unsafe { std::slice::from_raw_parts(chunks.as_mut_ptr().cast(), chunks.len()) }
    }

    /// A chunk with these values.
    pub fn new(values: [f32; WIDTH]) -> Self {
        Self(values.map(|value| AtomicU32::new(value.to_bits())))
    }

    /// The values, lane by lane.
    pub fn get(&self) -> [f32; WIDTH] {
        std::array::from_fn(|l| f32::from_bits(self.0[l].load(Ordering::Relaxed)))
    }

    /// Replaces the values, lane by lane.
    pub fn set(&self, values: [f32; WIDTH]) {
        self.0.iter().zip(values).for_each(|(lane, value)| lane.store(value.to_bits(), Ordering::Relaxed));
    }

    /// Where the lanes stand.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn as_ptr(&self) -> *mut f32 {
        self.0.as_ptr().cast_mut().cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_change_chunks_on_loan() {
        let mut chunks = vec![Chunk([1.0; WIDTH]); 64];
        let shared = SharedChunk::share(&mut chunks);
        std::thread::scope(|scope| {
            for part in 0..2 {
                scope.spawn(move || {
                    shared.iter().enumerate().skip(part).step_by(2).for_each(|(i, chunk)| {
                        chunk.set(chunk.get().map(|x| x + i as f32));
                    });
                });
            }
        });
        assert!(chunks.iter().enumerate().all(|(i, chunk)| *chunk == Chunk([1.0 + i as f32; WIDTH])));
    }
}
