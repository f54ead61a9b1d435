//! Sixteen f32 at a time, the same bits on every CPU.
//!
//! A row of a model is a whole number of [`Chunk`]s of 16 lanes, whatever the CPU: products are
//! added with fused multiply-add in each lane, and [`Lanes::sum`] adds the lanes in one fixed tree.
//! So a dot product does not depend on how wide the registers are. [`portable`] is the definition;
//! the others do the same with instructions that the CPU was asked for ([`Isa::best`]).

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod portable;
mod shared;

pub use shared::SharedChunk;

use bytemuck::{Pod, Zeroable};
use std::cell::Cell;

/// Lanes of a chunk.
pub const WIDTH: usize = 16;

/// Sixteen consecutive elements of a row, aligned as the widest registers like it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Chunk(pub [f32; WIDTH]);

/// Number of chunks of a row of `dims` elements; the last one is filled up with zeros.
pub fn chunks(dims: usize) -> usize {
    dims.div_ceil(WIDTH)
}

/// A register, or several, that hold 16 lanes.
///
/// Implementors may need instructions that not every CPU has: only the entry points that
/// [`super::kernel`] chooses by [`Isa`] use them.
pub trait Lanes: Copy {
    /// The same value in all lanes.
    fn splat(value: f32) -> Self;
    /// From memory.
    fn load(from: &Chunk) -> Self;
    /// To memory.
    fn store(self, to: &mut Chunk);
    /// From memory that several threads write.
    fn load_shared(from: &SharedChunk) -> Self;
    /// To memory that several threads read and write.
    fn store_shared(self, to: &SharedChunk);
    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Lane by lane.
    fn add(self, b: Self) -> Self;
    /// All lanes: l and l + 8 first, then l and l + 4, l and l + 2, l and l + 1.
    fn sum(self) -> f32;
}

/// A chunk that is changed through a shared reference: by one thread, or by several.
pub trait Place {
    /// The lanes that stand here.
    fn get<L: Lanes>(&self) -> L;
    /// Replaces them.
    fn set<L: Lanes>(&self, lanes: L);
}

impl Place for Cell<Chunk> {
    #[inline(always)]
    fn get<L: Lanes>(&self) -> L {
        // SAFETY: a `Cell` is not shared between threads, and nothing writes to this one while the
        // reference lives, which is no longer than the call.
        L::load(unsafe { &*self.as_ptr() })
    }

    #[inline(always)]
    fn set<L: Lanes>(&self, lanes: L) {
        // SAFETY: as above; the one mutable reference lives no longer than the call.
        lanes.store(unsafe { &mut *self.as_ptr() });
    }
}

impl Place for SharedChunk {
    #[inline(always)]
    fn get<L: Lanes>(&self) -> L {
        L::load_shared(self)
    }

    #[inline(always)]
    fn set<L: Lanes>(&self, lanes: L) {
        lanes.store_shared(self);
    }
}

/// Tells the CPU that a row will be needed soon. Changes nothing else.
#[inline(always)]
pub fn fetch<P: Place>(row: &[P]) {
    #[cfg(target_arch = "x86_64")]
    for place in row {
        // SAFETY: SSE, which every CPU of this architecture has; a hint, which reads nothing.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Instruction sets with kernels of their own. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// One register of 512 bits.
    Avx512,
    /// Two registers of 256 bits.
    Avx2,
    /// Whatever the compiler makes of arrays of 16.
    Portable,
}

impl Isa {
    /// The best that this CPU has.
    pub fn best() -> Self {
        *Self::all().first().unwrap_or(&Self::Portable)
    }

    /// All that this CPU has, the best first.
    pub fn all() -> Vec<Self> {
        [Self::Avx512, Self::Avx2, Self::Portable].into_iter().filter(|isa| isa.is_there()).collect()
    }

    fn is_there(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && Self::Avx2.is_there(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }
}
