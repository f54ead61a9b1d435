//! Rows rearranged for the kernels: panels of a fixed number of rows, coordinate by coordinate.

use super::super::rows::Rows;
#[cfg(target_arch = "x86_64")]
use super::Cpu;
use std::ops::Range;

/// Pairs in a micro-tile, whatever its shape.
pub const PAIRS: usize = 384;
/// Most rows i of a micro-tile.
pub const MOST_ROWS: usize = 24;
/// Most rows j of a micro-tile.
pub const MOST_COLUMNS: usize = 48;

/// A micro-tile of a kernel, and how its rows lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows i.
    pub rows: usize,
    /// Rows j: `rows * columns` is [`PAIRS`].
    pub columns: usize,
    /// Rows i that are packed into a panel together; panels of a micro-tile follow each other.
    pub together: usize,
}

impl Shape {
    /// Eight rows with all their columns, for plain Rust.
    pub const WIDE: Self = Self { rows: 8, columns: 48, together: 8 };
    /// All rows at once, for 32 registers of 16 numbers.
    pub const WHOLE: Self = Self { rows: 24, columns: 16, together: 24 };
    /// Six rows at a time, for 16 registers of 8 numbers.
    pub const TALL: Self = Self { rows: 24, columns: 16, together: 6 };
}

/// Packs rows into panels of `width`: `panel[k * width + r]` is coordinate k of the panel's row r.
/// Missing rows of the last panel are zeros. `into` is `len.div_ceil(width) * width * dims` long.
pub fn pack(rows: &Rows<'_>, range: Range<u32>, width: usize, into: &mut [f32]) {
    let words = |i| bytemuck::cast_slice(rows.row(i as usize));
    pack_words(words, range, width, rows.dims(), bytemuck::cast_slice_mut(into));
}

/// As [`pack`], with the words that `row` gives, `lines` for each.
pub fn pack_words<'a>(
    row: impl Fn(u32) -> &'a [u32],
    range: Range<u32>,
    width: usize,
    lines: usize,
    into: &mut [u32],
) {
    for_each_group(range, width, lines, into, |group| {
        let rows: [&[u32]; GROUP] = std::array::from_fn(|r| group.row(r).map_or(&[][..], |i| row(i as u32)));
        group.lay(&rows);
    });
}

/// As [`pack`], with the rows as integers ([`quantize`]): `panel[k * width + r]` has coordinates 2k
/// and 2k + 1. `into` is `len.div_ceil(width) * width * dims.div_ceil(2)` long.
pub fn pack_integers(rows: &Rows<'_>, range: Range<u32>, width: usize, scale: f32, into: &mut [u32]) {
    let lines = rows.dims().div_ceil(2);
    let mut words = vec![0; GROUP * lines];
    for_each_group(range, width, lines, into, |group| {
        for (r, words) in words.chunks_exact_mut(lines).enumerate() {
            if let Some(i) = group.row(r) {
                quantize(rows.row(i), scale, words);
            }
        }
        let rows: [&[u32]; GROUP] = std::array::from_fn(|r| &words[r * lines..][..lines]);
        group.lay(&rows);
    });
}

/// Rows that are laid at a time: eight streams are read, and whole cache lines are written.
const GROUP: usize = 8;

/// Neighbouring rows of a panel.
struct Group<'a> {
    panel: &'a mut [u32],
    width: usize,
    /// Place of the first of them in the panel ...
    at: usize,
    /// ... and how many there are.
    wide: usize,
    /// Those that exist.
    rows: Range<usize>,
}

fn for_each_group(
    range: Range<u32>,
    width: usize,
    lines: usize,
    into: &mut [u32],
    mut visit: impl FnMut(Group<'_>),
) {
    for (p, panel) in into.chunks_exact_mut(width * lines).enumerate() {
        for at in (0..width).step_by(GROUP) {
            let wide = (width - at).min(GROUP);
            let first = range.start as usize + p * width + at;
            let rows = first..(range.end as usize).min(first + wide).max(first);
            visit(Group { panel: &mut *panel, width, at, wide, rows });
        }
    }
}

impl Group<'_> {
    fn row(&self, r: usize) -> Option<usize> {
        (r < self.rows.len()).then(|| self.rows.start + r)
    }

    /// Writes the rows, and zeros for those that do not exist.
    fn lay(self, rows: &[&[u32]; GROUP]) {
        let Self { panel, width, at, wide, rows: present } = self;
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if Cpu::best().has_avx2() && present.len() == wide && matches!((wide, width), (6, 6) | (GROUP, _)) {
            let lines = panel.len() / width;
            assert!(at + wide <= width && rows[..wide].iter().all(|row| row.len() >= lines));
            // SAFETY: `has_avx2` says so; rows and panel are as long as asserted.
            done = unsafe { interleave_avx2(panel, width, at, &rows[..wide]) };
        }
        for (k, line) in panel.chunks_exact_mut(width).enumerate().skip(done) {
            let line = &mut line[at..at + wide];
            line[present.len()..].fill(0);
            line.iter_mut().zip(&rows[..present.len()]).for_each(|(word, row)| *word = row[k]);
        }
    }
}

/// Writes six rows, which are all that a panel is wide, or eight into panels that are no less wide: lines in
/// blocks of eight as far as those lie in the panel. Gives the number of lines that are written.
///
/// # Safety
/// The CPU has AVX2. Rows have as many words as the panel has lines; `at + rows.len() <= width`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn interleave_avx2(panel: &mut [u32], width: usize, at: usize, rows: &[&[u32]]) -> usize {
    use super::transpose::transposed;
    use std::arch::x86_64::*;
    let mut done = 0;
    // Of six rows the last two of a store are the next line's first, which come after it.
    while (done + GROUP - 1) * width + at + GROUP <= panel.len() && done + GROUP <= panel.len() / width {
        let mut r = [_mm256_setzero_ps(); GROUP];
        for (r, row) in r.iter_mut().zip(rows) {
            // SAFETY: done + 8 <= lines.
            *r = unsafe { _mm256_loadu_ps(row.as_ptr().add(done).cast()) };
        }
        for (l, line) in transposed(r).into_iter().enumerate() {
            // SAFETY: the eight words of the block's last line end within the panel.
            unsafe { _mm256_storeu_ps(panel.as_mut_ptr().add((done + l) * width + at).cast(), line) };
        }
        done += GROUP;
    }
    done
}

/// 1.5 * 2^23: from 2^23 to 2^24 an f32 steps by one.
const WHOLE: f32 = 12_582_912.0;

/// A row's coordinates times `scale`, rounded to integers (ties to even), two to a word: the first
/// in the low half. `scale` is such that they fit; `words` is `dims.div_ceil(2)` long.
pub fn quantize(row: &[f32], scale: f32, words: &mut [u32]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if Cpu::best().has_avx2() {
        // SAFETY: `has_avx2` says so.
        done = unsafe { quantize_avx2(row, scale, words) };
    }
    for (two, word) in row[2 * done..].chunks(2).zip(&mut words[done..]) {
        // Nearest with ties to even, as `round_ties_even` (a call without SSE 4.1): the sum has no room for
        // fractions.
        let integer = |v: &f32| (v * scale + WHOLE - WHOLE) as i16 as u16;
        *word = u32::from(integer(&two[0])) | u32::from(two.get(1).map_or(0, integer)) << 16;
    }
}

/// The integers in words that [`quantize`] made, in order of the coordinates.
pub fn integers(words: &[u32]) -> impl Iterator<Item = i16> {
    words.iter().flat_map(|word| [*word as u16 as i16, (word >> 16) as u16 as i16])
}

/// As [`quantize`], for the first words that are a multiple of eight; gives their number.
///
/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn quantize_avx2(row: &[f32], scale: f32, words: &mut [u32]) -> usize {
    use std::arch::x86_64::*;
    let scale = _mm256_set1_ps(scale);
    let (row, words) = (row.chunks_exact(16), words.chunks_exact_mut(8));
    let done = 8 * row.len().min(words.len());
    for (values, words) in row.zip(words) {
        // SAFETY: 16 values and eight words.
        unsafe {
            let low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(values.as_ptr()), scale));
            let high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(values.as_ptr().add(8)), scale));
            // The halves of both come in turns; 0, 2, 1, 3 puts them in order.
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            _mm256_storeu_si256(words.as_mut_ptr().cast(), packed);
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_value_has_its_place() {
        let n = 53;
        for (d, width) in [5, 8, 21, 40].into_iter().flat_map(|d| [6, 8, 16, 24, 48].map(|width| (d, width)))
        {
            let values: Vec<f32> = (0..n * d).map(|v| v as f32 + 1.0).collect();
            let rows = Rows::new(&values, d);
            let range = 3u32..52;
            let panels = range.len().div_ceil(width);
            let mut packed = vec![f32::NAN; panels * width * d];
            pack(&rows, range.clone(), width, &mut packed);
            for (at, v) in packed.iter().enumerate() {
                let (panel, k, r) = (at / (width * d), at % (width * d) / width, at % width);
                let i = range.start as usize + panel * width + r;
                let expected = if i < range.end as usize { rows.row(i)[k] } else { 0.0 };
                assert_eq!(*v, expected, "width {width}, panel {panel}, coordinate {k} of {d}, row {r}");
            }
        }
    }

    proptest! {
        #[test]
        fn integers_come_two_to_a_word(
            n in 1u32..30,
            values in prop::collection::vec(-1.0f32..1.0, 40 * 30),
            dims in 1usize..40,
            scale in prop_oneof![Just(32766.0f32), Just(46000.0), 1.0f32..30000.0],
            width in prop_oneof![Just(6usize), Just(16), Just(24)],
        ) {
            let values: Vec<f32> = values.iter().map(|v| v.clamp(-0.7, 0.7)).collect();
            let rows = Rows::new(&values[..n as usize * dims], dims);
            let lines = dims.div_ceil(2);
            let mut packed = vec![u32::MAX; n.div_ceil(width as u32) as usize * width * lines];
            pack_integers(&rows, 0..n, width, scale, &mut packed);
            for (at, word) in packed.iter().enumerate() {
                let (i, k) = (at / (width * lines) * width + at % width, at % (width * lines) / width);
                for (half, k) in [(word & 0xffff, 2 * k), (word >> 16, 2 * k + 1)] {
                    let there = i < n as usize && k < dims;
                    let expected = if there { (rows.row(i)[k] * scale).round_ties_even() } else { 0.0 };
                    prop_assert_eq!(f32::from(half as u16 as i16), expected);
                }
            }
        }
    }
}
