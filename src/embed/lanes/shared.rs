//! A chunk that threads read and write at the same time.

use super::WIDTH;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sixteen elements of a row that threads share without locks (Recht et al. 2011, "Hogwild!"). A
/// reader may see some lanes before and some after another thread's change, never a torn lane.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct SharedChunk([AtomicU32; WIDTH]);

impl SharedChunk {
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
