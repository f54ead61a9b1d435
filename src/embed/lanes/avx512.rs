//! One register of 512 bits.

use super::avx2::sum_of_eight;
use super::{Chunk, Lanes, SharedChunk};
use std::arch::asm;
use std::arch::x86_64::{
    __m512, _mm256_add_ps, _mm256_castpd_ps, _mm512_add_ps, _mm512_castps_pd, _mm512_castps512_ps256,
    _mm512_extractf64x4_pd, _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_store_ps,
};

/// All 16 lanes.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(__m512);

impl Lanes for Avx512 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: only entered where `Isa::Avx512` was found.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(from: &Chunk) -> Self {
        // SAFETY: as above; a chunk is 16 floats, aligned to 64 bytes.
        Self(unsafe { _mm512_load_ps(from.0.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut Chunk) {
        // SAFETY: as for `load`, and the reference is unique.
        unsafe { _mm512_store_ps(to.0.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn load_shared(from: &SharedChunk) -> Self {
        // SAFETY: only entered where `Isa::Avx512` was found.
        unsafe { load_shared(from) }
    }

    #[inline(always)]
    fn store_shared(self, to: &SharedChunk) {
        // SAFETY: as above.
        unsafe { store_shared(self, to) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: only entered where `Isa::Avx512` was found.
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as above.
        sum_of_eight(unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            _mm256_add_ps(_mm512_castps512_ps256(self.0), high)
        })
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_shared(from: &SharedChunk) -> Avx512 {
    let lanes: __m512;
    // SAFETY: the chunk is 64 aligned bytes of atomics that live as long as the reference. The
    // instruction reads aligned lanes, each of them whole, like relaxed atomic loads; it is
    // written as assembly because Rust has no atomic of this width.
    unsafe {
        asm!("vmovaps {0}, [{1}]", out(zmm_reg) lanes, in(reg) from.as_ptr(),
            options(nostack, preserves_flags, readonly));
    }
    Avx512(lanes)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store_shared(lanes: Avx512, to: &SharedChunk) {
    // SAFETY: as for `load_shared`; atomics may be written through a shared reference.
    unsafe {
        asm!("vmovaps [{1}], {0}", in(zmm_reg) lanes.0, in(reg) to.as_ptr(),
            options(nostack, preserves_flags));
    }
}
