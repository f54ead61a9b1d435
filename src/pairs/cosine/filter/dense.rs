//! Every pair scored in f32.

use super::cells::Cells;
use super::pack::{MOST_COLUMNS, MOST_ROWS, Shape, pack};
use super::tally::{Masks, Pending, Scores, Tally, VECTOR, VECTORS, Verdict};
use super::{Ask, Bound, Cpu, Filter, Found};
use crate::pairs::Tile;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes of rows i that are packed at a time: half of a small second-level cache, where they stay
/// while all panels of rows j go by.
const STRIP: usize = 256 << 10;

/// Rows i that are packed at a time: whole micro-tiles of any shape.
fn strip(dims: usize) -> u32 {
    (STRIP / (4 * dims) / MOST_ROWS * MOST_ROWS).clamp(MOST_ROWS, 10 * MOST_ROWS) as u32
}

/// The dense filter: 2d operations a pair at nearly the multiply-add rate of the CPU.
///
/// A tile's rows j are packed into panels once, by all threads; then every thread takes strips of
/// rows i, packs them, and runs the micro-kernel over all panels.
pub struct Dense {
    cpu: Cpu,
    bound: Bound,
    cells: Cells,
    /// Memory for the packed rows j, kept from tile to tile.
    packed: Mutex<Vec<f32>>,
}

impl Dense {
    /// A filter with this bound (of the rows it will be asked about) and these cells.
    pub fn new(cpu: Cpu, bound: Bound, cells: Cells) -> Self {
        Self { cpu, bound, cells, packed: Mutex::default() }
    }
}

impl Filter for Dense {
    fn tile(&self, tile: &Tile, ask: &Ask<'_>, found: &mut Found) {
        let (dims, Shape { columns: nr, together, .. }) = (ask.rows.dims(), self.cpu.shape());
        let strip = strip(dims);
        let columns = tile.columns.start.max(tile.rows.start)..tile.columns.end;
        if columns.is_empty() {
            return;
        }
        let mut packed = std::mem::take(&mut *self.packed.lock().unwrap_or_else(PoisonError::into_inner));
        packed.resize(columns.len().div_ceil(nr) * nr * dims, 0.0);
        let panels = 16 * MOST_COLUMNS / nr;
        packed.par_chunks_mut(panels * nr * dims).enumerate().for_each(|(c, chunk)| {
            let first = columns.start + (c * panels * nr) as u32;
            pack(&ask.rows, first..columns.end, nr, chunk);
        });
        let strips: Vec<_> = tile.rows.clone().step_by(strip as usize).collect();
        let parts: Vec<Found> = strips
            .into_par_iter()
            .map_init(
                || vec![0.0f32; strip as usize * dims],
                |packed_rows, first| {
                    let rows = first..(first + strip).min(tile.rows.end);
                    pack(&ask.rows, rows.clone(), together, packed_rows);
                    let mut strip = Strip::new(self, ask, columns.clone());
                    strip.run(rows, packed_rows, &packed);
                    strip.finish()
                },
            )
            .collect();
        parts.iter().for_each(|part| found.merge(part));
        *self.packed.lock().unwrap_or_else(PoisonError::into_inner) = packed;
    }
}

/// A strip of rows i on its way over the panels.
struct Strip<'a> {
    filter: &'a Dense,
    ask: &'a Ask<'a>,
    shape: Shape,
    columns: Range<u32>,
    scores: Scores,
    pending: [Pending; 2],
    waiting: bool,
    masks: Masks,
    tally: Tally<'a>,
    found: Found,
}

impl<'a> Strip<'a> {
    fn new(filter: &'a Dense, ask: &'a Ask<'a>, columns: Range<u32>) -> Self {
        let shape = filter.cpu.shape();
        let pending = || Pending::new(&filter.cells, shape.columns);
        Self {
            filter,
            ask,
            shape,
            columns,
            scores: Scores::default(),
            pending: [pending(), pending()],
            waiting: false,
            masks: Masks::default(),
            tally: Tally::new(&filter.cells, ask.weights),
            found: Found::new(ask.bins),
        }
    }

    fn run(&mut self, rows: Range<u32>, packed_rows: &[f32], packed: &[f32]) {
        let (dims, Shape { rows: mr, columns: nr, .. }) = (self.ask.rows.dims(), self.shape);
        for (p, panel) in packed.chunks_exact(nr * dims).enumerate() {
            let j = self.columns.start + (p * nr) as u32;
            let last = (j + nr as u32).min(self.columns.end) - 1;
            let mut column_from = [f32::INFINITY; MOST_COLUMNS];
            if let Some(best) = self.ask.best {
                (j..=last).zip(&mut column_from).for_each(|(j, from)| *from = best.from(j));
            }
            for (q, panel_rows) in packed_rows.chunks_exact(mr * dims).enumerate() {
                let i = rows.start + (q * mr) as u32;
                if i >= rows.end || i >= last {
                    break; // no pair i < j from here on
                }
                let whole = i + mr as u32 <= rows.end && i + mr as u32 <= j && last + 1 == j + nr as u32;
                let valid = (!whole).then(|| valid(self.shape, i..rows.end, j..last + 1));
                self.micro_tile([i, j], panel_rows, panel, valid.as_ref(), &column_from);
            }
        }
    }

    fn micro_tile(
        &mut self,
        at: [u32; 2],
        a: &[f32],
        b: &[f32],
        valid: Option<&[u16; VECTORS]>,
        column_from: &[f32; MOST_COLUMNS],
    ) {
        let extremes = self.ask.extremes;
        let all_from = extremes.high_from().min(self.ask.min.map_or(f32::INFINITY, |min| self.reach(min)));
        let row_from = match self.ask.best {
            None => [all_from; MOST_ROWS],
            Some(best) => std::array::from_fn(|r| {
                let i = at[0] + r as u32;
                if (i as usize) < self.ask.rows.len() { all_from.min(best.from(i)) } else { f32::INFINITY }
            }),
        };
        let verdict = Verdict { valid, row_from, column_from, below: extremes.low_from() };
        let [before, now] = &mut self.pending;
        now.at = at;
        let before = self.waiting.then_some(&*before);
        let Dense { cpu, bound, cells, .. } = self.filter;
        let (scores, masks, tally) = (&mut self.scores, &mut self.masks, &mut self.tally);
        let look = match cpu {
            // SAFETY: `Cpu::all` lists this kernel only where the CPU has what it needs; panels are
            // whole; cells are those of this tally's table, and the weights are padded.
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512 => unsafe {
                match self.ask.weights {
                    None => super::avx512::scores::<false>(a, b, bound.chunk, scores, before, tally),
                    Some(_) => super::avx512::scores::<true>(a, b, bound.chunk, scores, before, tally),
                }
                super::avx512::judge(scores, cells, &verdict, now, masks)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 => unsafe {
                match self.ask.weights {
                    None => super::avx2::scores::<false>(a, b, bound.chunk, scores, before, tally),
                    Some(_) => super::avx2::scores::<true>(a, b, bound.chunk, scores, before, tally),
                }
                super::avx2::judge(scores, cells, &verdict, now, masks)
            },
            _ => {
                before.into_iter().for_each(|before| tally.count(before, 0));
                super::portable::scores(a, b, bound.chunk, scores);
                super::portable::judge(scores, cells, &verdict, now, masks);
                true
            }
        };
        self.waiting = true;
        self.pending.swap(0, 1);
        if look {
            self.attend(at);
        }
    }

    /// A score in f32 from here on may be one in f64 from `min` on.
    fn reach(&self, min: f64) -> f32 {
        ((min - self.filter.bound.error) as f32).next_down()
    }

    /// Hands over the pairs that the masks point at.
    fn attend(&mut self, at: [u32; 2]) {
        let nr = self.shape.columns;
        let reach = self.ask.min.map_or(f32::INFINITY, |min| self.reach(min));
        for v in 0..VECTORS {
            let mut bits = self.masks.doubt[v] | self.masks.wanted[v];
            while bits != 0 {
                let lane = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let p = v * VECTOR + lane;
                let (i, j) = (at[0] + (p / nr) as u32, at[1] + (p % nr) as u32);
                let score = self.scores.0[p];
                let doubt = self.masks.doubt[v] >> lane & 1 != 0;
                if doubt {
                    self.found.doubtful.push([i, j]);
                }
                if self.masks.wanted[v] >> lane & 1 == 0 {
                    continue;
                }
                if self.ask.extremes.meets(score) && !doubt {
                    self.found.extreme.push([i, j]);
                }
                if score >= reach || self.ask.best.is_some_and(|b| score >= b.from(i) || score >= b.from(j)) {
                    self.found.near.push((i, j, score));
                }
            }
        }
        self.found.settle_some(self.ask);
    }

    fn finish(mut self) -> Found {
        if self.waiting {
            self.tally.count(&self.pending[0], 0);
        }
        self.tally.drain(&self.filter.cells, &mut self.found.counts);
        self.found.settle(self.ask);
        self.found
    }
}

/// Which scores of a micro-tile are pairs: i < j, and both there.
fn valid(shape: Shape, rows: Range<u32>, columns: Range<u32>) -> [u16; VECTORS] {
    let mut valid = [0u16; VECTORS];
    for (r, i) in rows.take(shape.rows).enumerate() {
        for (c, j) in columns.clone().enumerate().filter(|(_, j)| i < *j) {
            debug_assert!(j >= columns.start);
            let p = r * shape.columns + c;
            valid[p / VECTOR] |= 1 << (p % VECTOR);
        }
    }
    valid
}
