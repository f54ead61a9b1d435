//! The inner loop of [`super::Grouped`]: one row i against eight rows j at a time.

use super::super::bins::Count;
use super::Cpu;
use super::cells::Cells;
use std::ops::Range;

/// Set in an open pair that is counted already, and open only as it may be the least or most alike.
pub const COUNTED: u32 = 1 << 31;

/// Rows j in a vector.
const LANES: usize = 8;

/// Families of the rows j, for each eight of them.
pub struct Lanes {
    /// Family of the first one, from that of the first of all.
    pub first: Vec<u32>,
    /// Families of all from there: families go up by one at most.
    pub steps: Vec<[u32; LANES]>,
}

/// For the families of consecutive rows.
pub fn lanes(family: &[u32]) -> Lanes {
    let base = family[0];
    let first: Vec<u32> = family.iter().step_by(LANES).map(|f| f - base).collect();
    let steps =
        family.chunks(LANES).map(|eight| std::array::from_fn(|l| eight.get(l).map_or(0, |f| f - eight[0])));
    Lanes { steps: steps.collect(), first }
}

/// A row i on its way over rows j.
pub struct Line<'a> {
    /// c_A . y of each column, in whole vectors.
    pub products: &'a [f32],
    /// c_B . x - c_A . c_B of each family B, and seven more.
    pub terms: &'a [f32],
    /// Families of the columns.
    pub lanes: &'a Lanes,
    /// |dy| of each column, in whole vectors.
    pub spread: &'a [f32],
    /// |dx|
    pub own_spread: f32,
    /// Scale, offset and limit of the grid of cells.
    pub grid: [f32; 3],
    /// The cell that is counted for nothing.
    pub none: u32,
    /// A score is open from here on, or down from ...
    pub high: f32,
    /// ... here.
    pub low: f32,
    /// Weights of row i and, padded to whole vectors, of the columns.
    pub weights: Option<(&'a Count, &'a [Count])>,
}

/// Counts by cell and lane: what follows each other is not counted in the same place.
pub struct Tables {
    plain: Vec<u32>,
    weighted: Vec<Count>,
}

impl Tables {
    /// Nothing counted.
    pub fn new(cells: &Cells, weighted: bool) -> Self {
        // The last one is for pairs in doubt; rounding at the upper end can give one more.
        let length = (cells.bins.len() + 2) * LANES;
        let (plain, weighted) = if weighted { (0, length) } else { (length, 0) };
        Self { plain: vec![0; plain], weighted: vec![[0; 4]; weighted] }
    }

    /// Moves all counts to their bins. To be called before 2^32 pairs are counted.
    pub fn drain(&mut self, cells: &Cells, into: &mut [Count]) {
        for (cell, bin) in cells.bins.iter().enumerate() {
            let counts = &mut into[usize::from(*bin)];
            for place in cell * LANES..(cell + 1) * LANES {
                if let Some(pairs) = self.plain.get(place) {
                    counts.iter_mut().for_each(|c| *c += u64::from(*pairs));
                } else {
                    counts.iter_mut().zip(self.weighted[place]).for_each(|(c, more)| *c += more);
                }
            }
        }
        self.plain.fill(0);
        self.weighted.fill([0; 4]);
    }
}

/// Counts the pairs of row i with these columns that are in no doubt; the others, and those that may
/// be the least or most alike, go to `open`, by column.
pub fn scan(cpu: Cpu, line: &Line<'_>, columns: Range<usize>, tables: &mut Tables, open: &mut Vec<u32>) {
    let vectors = columns.start / LANES..columns.end.div_ceil(LANES);
    let whole = vectors.end * LANES;
    assert!(
        line.products.len() >= whole && line.spread.len() >= whole && line.lanes.steps.len() >= vectors.end
    );
    assert!(line.terms.len() >= line.lanes.first[vectors.end - 1] as usize + LANES);
    assert!(line.weights.is_none_or(|(_, w)| w.len() >= whole));
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 | Cpu::Avx2 => {
            // SAFETY: both are there only where the CPU has AVX2 and FMA (Cpu::all); all slices reach
            // as far as the vectors do, and families as far as the terms (asserted); cells are those of
            // the tables.
            unsafe {
                match line.weights {
                    None => scan_avx2::<false>(line, columns, tables, open),
                    Some(_) => scan_avx2::<true>(line, columns, tables, open),
                }
            }
        }
        _ => scan_portable(line, columns, tables, open),
    }
}

/// The definition.
fn scan_portable(line: &Line<'_>, columns: Range<usize>, tables: &mut Tables, open: &mut Vec<u32>) {
    let [scale, offset, limit] = line.grid;
    for j in columns {
        let (vector, lane) = (j / LANES, j % LANES);
        let family = line.lanes.first[vector] + line.lanes.steps[vector][lane];
        let score = line.products[j] + line.terms[family as usize];
        let reach = line.own_spread * line.spread[j];
        let x = score * scale + offset;
        let nearest = x.round_ties_even();
        let doubt = (x - nearest).abs() > limit - reach * scale;
        let wanted = score + reach >= line.high || score - reach <= line.low;
        if doubt || wanted {
            open.push(j as u32 | if doubt { 0 } else { COUNTED });
        }
        if doubt {
            continue;
        }
        let place = nearest as usize * LANES + lane;
        match line.weights {
            None => tables.plain[place] += 1,
            Some((own, all)) => {
                for ((sum, own), other) in tables.weighted[place].iter_mut().zip(own).zip(&all[j]) {
                    *sum = sum.wrapping_add(own * other);
                }
            }
        }
    }
}

/// # Safety
/// The CPU has AVX2 and FMA; `products`, `spread` and the weights of the columns reach to the end of
/// the last vector, `terms` to the eighth family from that vector's first; cells that the grid gives
/// without doubt, and `none`, are below the tables' length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn scan_avx2<const WEIGHTED: bool>(
    line: &Line<'_>,
    columns: Range<usize>,
    tables: &mut Tables,
    open: &mut Vec<u32>,
) {
    use std::arch::x86_64::*;
    let [scale, offset, limit] = line.grid.map(|v| _mm256_set1_ps(v));
    let (high, low) = (_mm256_set1_ps(line.high), _mm256_set1_ps(line.low));
    let own_spread = _mm256_set1_ps(line.own_spread);
    let sign = _mm256_set1_ps(-0.0);
    let none = _mm256_set1_epi32(line.none as i32);
    let own = match line.weights {
        // SAFETY: a count is four words.
        Some((own, _)) => unsafe { _mm256_loadu_si256(own.as_ptr().cast()) },
        None => _mm256_setzero_si256(),
    };
    for vector in columns.start / LANES..columns.end.div_ceil(LANES) {
        let at = vector * LANES;
        // SAFETY: see above.
        let (product, spread, terms, steps) = unsafe {
            let terms = line.terms.as_ptr().add(*line.lanes.first.get_unchecked(vector) as usize);
            (
                _mm256_loadu_ps(line.products.as_ptr().add(at)),
                _mm256_loadu_ps(line.spread.as_ptr().add(at)),
                _mm256_loadu_ps(terms),
                _mm256_loadu_si256(line.lanes.steps.as_ptr().add(vector).cast()),
            )
        };
        let score = _mm256_add_ps(product, _mm256_permutevar8x32_ps(terms, steps));
        let reach = _mm256_mul_ps(own_spread, spread);
        let x = _mm256_fmadd_ps(score, scale, offset);
        let nearest = _mm256_cvtps_epi32(x);
        let off = _mm256_andnot_ps(sign, _mm256_sub_ps(x, _mm256_cvtepi32_ps(nearest)));
        let doubt = _mm256_cmp_ps::<_CMP_NLE_UQ>(off, _mm256_fnmadd_ps(reach, scale, limit));
        let above = _mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_add_ps(score, reach), high);
        let below = _mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_sub_ps(score, reach), low);
        let mut doubtful = _mm256_movemask_ps(doubt) as u32;
        let mut wanted = _mm256_movemask_ps(_mm256_or_ps(above, below)) as u32;
        let cell = _mm256_blendv_epi8(nearest, none, _mm256_castps_si256(doubt));
        let mut cells = [0u32; LANES];
        // SAFETY: eight words.
        unsafe { _mm256_storeu_si256(cells.as_mut_ptr().cast(), cell) };
        if at < columns.start || at + LANES > columns.end {
            // Lanes that are no pairs.
            for (l, cell) in cells.iter_mut().enumerate().filter(|(l, _)| !columns.contains(&(at + l))) {
                *cell = line.none;
                doubtful &= !(1 << l);
                wanted &= !(1 << l);
            }
        }
        // SAFETY: see above.
        unsafe {
            if !WEIGHTED {
                let table = tables.plain.as_mut_ptr();
                for l in 0..LANES {
                    *table.add(cells[l] as usize * LANES + l) += 1;
                }
            } else if let Some((_, all)) = line.weights {
                let all = all.as_ptr().add(at);
                for l in 0..LANES {
                    let place = tables.weighted.as_mut_ptr().add(cells[l] as usize * LANES + l).cast();
                    // Weights are below 2^32, so the product of the low halves is the whole.
                    let product = _mm256_mul_epu32(own, _mm256_loadu_si256(all.add(l).cast()));
                    _mm256_storeu_si256(place, _mm256_add_epi64(_mm256_loadu_si256(place), product));
                }
            }
        }
        let mut bits = doubtful | wanted;
        while bits != 0 {
            let l = bits.trailing_zeros();
            bits &= bits - 1;
            open.push((at as u32 + l) | if doubtful >> l & 1 != 0 { 0 } else { COUNTED });
        }
    }
}

/// |x - y|^2 in f32, in 32 chains.
pub fn squared_distance(cpu: Cpu, x: &[f32], y: &[f32]) -> f32 {
    match cpu {
        // SAFETY: these are there only where the CPU has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 | Cpu::Avx2 => unsafe { squared_distance_avx2(x, y) },
        _ => {
            let mut sums = [0.0f32; 32];
            let (xs, ys) = (x.chunks_exact(32), y.chunks_exact(32));
            let rest = xs.remainder().iter().zip(ys.remainder()).enumerate();
            rest.for_each(|(l, (x, y))| sums[l] += (x - y) * (x - y));
            for (x, y) in xs.zip(ys) {
                for l in 0..32 {
                    sums[l] += (x[l] - y[l]) * (x[l] - y[l]);
                }
            }
            let mut half = 16;
            while half > 0 {
                for l in 0..half {
                    sums[l] += sums[l + half];
                }
                half /= 2;
            }
            sums[0]
        }
    }
}

/// # Safety
/// The CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn squared_distance_avx2(x: &[f32], y: &[f32]) -> f32 {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_setzero_ps(); 4];
    let (xs, ys) = (x.chunks_exact(32), y.chunks_exact(32));
    let (rest_x, rest_y) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for (c, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the chunks have 32 values.
            let apart = unsafe {
                _mm256_sub_ps(_mm256_loadu_ps(x.as_ptr().add(8 * c)), _mm256_loadu_ps(y.as_ptr().add(8 * c)))
            };
            *sum = _mm256_fmadd_ps(apart, apart, *sum);
        }
    }
    let (xs, ys) = (rest_x.chunks_exact(8), rest_y.chunks_exact(8));
    let mut rest = 0.0f32;
    for (x, y) in xs.remainder().iter().zip(ys.remainder()) {
        rest += (x - y) * (x - y);
    }
    for ((x, y), sum) in xs.zip(ys).zip(&mut sums) {
        // SAFETY: the chunks have 8 values.
        let apart = unsafe { _mm256_sub_ps(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(y.as_ptr())) };
        *sum = _mm256_fmadd_ps(apart, apart, *sum);
    }
    let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum))) + rest
}
