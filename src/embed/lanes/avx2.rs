//! Two registers of 256 bits.

use super::{Chunk, Lanes, SharedChunk};
use std::arch::asm;
use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_ps,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_load_ps, _mm256_set1_ps,
    _mm256_store_ps,
};

/// Lanes 0 to 7 and 8 to 15.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(__m256, __m256);

/// Lanes l and l + 4, then l and l + 2, then l and l + 1.
#[inline(always)]
pub(super) fn sum_of_eight(lanes: __m256) -> f32 {
    // SAFETY: instructions of AVX, which the callers need anyway.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: only entered where `Isa::Avx2` was found.
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(from: &Chunk) -> Self {
        let at = from.0.as_ptr();
        // SAFETY: as above; a chunk is 16 floats, aligned to 64 bytes.
        unsafe { Self(_mm256_load_ps(at), _mm256_load_ps(at.add(8))) }
    }

    #[inline(always)]
    fn store(self, to: &mut Chunk) {
        let at = to.0.as_mut_ptr();
        // SAFETY: as for `load`, and the reference is unique.
        unsafe {
            _mm256_store_ps(at, self.0);
            _mm256_store_ps(at.add(8), self.1);
        }
    }

    #[inline(always)]
    fn load_shared(from: &SharedChunk) -> Self {
        // SAFETY: only entered where `Isa::Avx2` was found.
        unsafe { load_shared(from) }
    }

    #[inline(always)]
    fn store_shared(self, to: &SharedChunk) {
        // SAFETY: as above.
        unsafe { store_shared(self, to) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: only entered where `Isa::Avx2` was found, which includes FMA.
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as above.
        sum_of_eight(unsafe { _mm256_add_ps(self.0, self.1) })
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_shared(from: &SharedChunk) -> Avx2 {
    let at = from.as_ptr();
    let (low, high): (__m256, __m256);
    // SAFETY: the chunk is 64 aligned bytes of atomics that live as long as the reference. The
    // instruction reads aligned lanes, each of them whole, like relaxed atomic loads; it is
    // written as assembly because Rust has no atomic of this width.
    unsafe {
        asm!("vmovaps {0}, [{2}]", "vmovaps {1}, [{2} + 32]", out(ymm_reg) low, lateout(ymm_reg) high,
            in(reg) at, options(nostack, preserves_flags, readonly));
    }
    Avx2(low, high)
}

#[target_feature(enable = "avx2")]
#[inline]
fn store_shared(lanes: Avx2, to: &SharedChunk) {
    // SAFETY: as for `load_shared`; atomics may be written through a shared reference.
    unsafe {
        asm!("vmovaps [{2}], {0}", "vmovaps [{2} + 32], {1}", in(ymm_reg) lanes.0, in(ymm_reg) lanes.1,
            in(reg) to.as_ptr(), options(nostack, preserves_flags));
    }
}
