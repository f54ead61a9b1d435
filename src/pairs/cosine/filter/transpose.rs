//! Eight by eight numbers, rows to columns.

use std::arch::x86_64::*;

/// Number c of vector r goes to place r of vector c.
///
/// # Safety
/// The CPU has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
pub fn transposed(r: [__m256; 8]) -> [__m256; 8] {
    // Two rows, then four, then all.
    let two = [
        _mm256_unpacklo_ps(r[0], r[1]),
        _mm256_unpackhi_ps(r[0], r[1]),
        _mm256_unpacklo_ps(r[2], r[3]),
        _mm256_unpackhi_ps(r[2], r[3]),
        _mm256_unpacklo_ps(r[4], r[5]),
        _mm256_unpackhi_ps(r[4], r[5]),
        _mm256_unpacklo_ps(r[6], r[7]),
        _mm256_unpackhi_ps(r[6], r[7]),
    ];
    let four = [
        _mm256_shuffle_ps::<0b01_00_01_00>(two[0], two[2]),
        _mm256_shuffle_ps::<0b11_10_11_10>(two[0], two[2]),
        _mm256_shuffle_ps::<0b01_00_01_00>(two[1], two[3]),
        _mm256_shuffle_ps::<0b11_10_11_10>(two[1], two[3]),
        _mm256_shuffle_ps::<0b01_00_01_00>(two[4], two[6]),
        _mm256_shuffle_ps::<0b11_10_11_10>(two[4], two[6]),
        _mm256_shuffle_ps::<0b01_00_01_00>(two[5], two[7]),
        _mm256_shuffle_ps::<0b11_10_11_10>(two[5], two[7]),
    ];
    [
        _mm256_permute2f128_ps::<0x20>(four[0], four[4]),
        _mm256_permute2f128_ps::<0x20>(four[1], four[5]),
        _mm256_permute2f128_ps::<0x20>(four[2], four[6]),
        _mm256_permute2f128_ps::<0x20>(four[3], four[7]),
        _mm256_permute2f128_ps::<0x31>(four[0], four[4]),
        _mm256_permute2f128_ps::<0x31>(four[1], four[5]),
        _mm256_permute2f128_ps::<0x31>(four[2], four[6]),
        _mm256_permute2f128_ps::<0x31>(four[3], four[7]),
    ]
}
