//! Every pair scored, as [`super::first`] says.

use super::again::Tails;
use super::ahead::Ahead;
#[cfg(target_arch = "x86_64")]
use super::avx2::Words;
use super::axes::LEAD;
use super::cells::Cells;
use super::coarse::{Coarse, dot};
use super::first::First;
use super::pack::{MOST_COLUMNS, MOST_ROWS, Shape};
use super::panels::Pool;
use super::tally::{Masks, Pending, Places, Scores, Tally, VECTOR, VECTORS, Verdict};
use super::turned::Turned;
use super::{Ask, Bound, Cpu, Filter, Found, counts_in};
use crate::pairs::Tile;
use crate::pairs::cosine::bins::Bins;
use crate::pairs::cosine::rows::Rows;
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of rows i that are packed at a time: half of a small second-level cache, where they stay
/// while all panels of rows j go by.
const STRIP: usize = 256 << 10;
/// Micro-tiles in a strip, at most ...
const MOST: usize = 20;
/// ... and at least, where there are several threads to be kept busy ...
const FEW: usize = 4;
/// ... with so many strips each: some take longer, and so do some cores.
const EACH: usize = 8;

/// Panels of [`MOST_COLUMNS`] rows j that are packed at a time, at most.
const PANELS: usize = 16;

/// Cuts the rows i of a tile, of so many words, into strips of whole micro-tiles.
fn strips(rows: &Range<u32>, words: usize, threads: usize) -> Vec<Range<u32>> {
    let micro_tiles = rows.len().div_ceil(MOST_ROWS);
    let most = (STRIP / (4 * words) / MOST_ROWS).clamp(1, MOST);
    let even = if threads > 1 { (EACH * threads).min(micro_tiles.div_ceil(FEW)) } else { 1 };
    let count = micro_tiles.div_ceil(most).max(even);
    let start = |strip: usize| rows.start + (strip * micro_tiles / count * MOST_ROWS) as u32;
    (0..count).map(|strip| start(strip)..start(strip + 1).min(rows.end)).collect()
}

/// The dense filter: 2d operations a pair at nearly the multiply-add rate of the CPU.
///
/// A tile's rows j are packed into panels once, by all threads; then every thread takes strips of
/// rows i, packs them, and runs the micro-kernel over all panels.
pub struct Dense {
    cpu: Cpu,
    bound: Bound,
    cells: Cells,
    /// For scores of pairs one by one.
    cells_of_one: Cells,
    first: First,
    near_error: f64,
    /// Memory for the packed rows j of a tile ...
    packed: Pool,
    /// ... and for the rows i of each thread's strip.
    strips: Pool,
}

impl Dense {
    /// A filter for these rows and bins, and for `lists` of pairs if those are wanted, too.
    pub fn new(cpu: Cpu, rows: &Rows<'_>, bins: &Bins, bound: Bound, lists: bool) -> Self {
        // Ranks on other CPUs may list the sums of integers.
        let coarse = (lists || cpu.has_integers()).then(|| Coarse::of(rows, bins, &bound)).flatten();
        let near_error =
            coarse.as_ref().map_or(bound.error, |coarse| bound.error.max(f64::from(coarse.slack)));
        let first = First::new(cpu, rows, bins, &bound, coarse);
        let [cells, cells_of_one] = [bound, bound.of_one()].map(|bound| Cells::new(bins, &bound));
        Self {
            cpu,
            bound,
            cells,
            cells_of_one,
            first,
            near_error,
            packed: Pool::default(),
            strips: Pool::default(),
        }
    }

    /// As [`Dense::new`] with a kernel that has integers, along axes whether they pay or not; `None` if
    /// these rows have no axes.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub fn along_axes(cpu: Cpu, rows: &Rows<'_>, bins: &Bins, bound: Bound) -> Option<Self> {
        let first = First::axes(super::axes::Axes::of(rows, bins, &bound)?, rows);
        Some(Self { first, ..Self::new(cpu, rows, bins, bound, false) })
    }

    /// The cells that the kernel counts in.
    fn cells_of_kernel(&self) -> &Cells {
        self.first.cells().unwrap_or(&self.cells)
    }
}

impl Filter for Dense {
    fn tile(&self, tile: &Tile, ask: &Ask<'_>, found: &mut Found) {
        let Shape { columns: nr, together, .. } = self.cpu.shape();
        let lines = self.first.lines(ask.rows.dims());
        let threads = rayon::current_num_threads();
        let columns = tile.columns.start.max(tile.rows.start)..tile.columns.end;
        if columns.is_empty() {
            return;
        }
        let turned = self.first.turned(&ask.rows, [&tile.rows, &columns]);
        let turned = turned.as_ref();
        let mut taken = self.packed.take();
        let packed = taken.words(columns.len().div_ceil(nr) * nr * lines);
        let panels = columns.len().div_ceil(nr).div_ceil(EACH * threads).min(PANELS * MOST_COLUMNS / nr);
        packed.par_chunks_mut(panels * nr * lines).enumerate().for_each(|(c, chunk)| {
            let first = columns.start + (c * panels * nr) as u32;
            self.first.pack(&ask.rows, turned.map(|t| &t[1]), first..columns.end, nr, chunk);
        });
        let strips = strips(&tile.rows, lines + self.first.beside(ask.rows.dims()), threads);
        let longest = strips.iter().map(|rows| rows.len().next_multiple_of(MOST_ROWS)).max().unwrap_or(0);
        let parts: Vec<Found> = strips
            .into_par_iter()
            .map_init(
                || self.strips.take(),
                |taken, rows| {
                    let packed_rows = taken.words(longest * lines);
                    self.first.pack(&ask.rows, turned.map(|t| &t[0]), rows.clone(), together, packed_rows);
                    let mut strip = Strip::new(self, ask, turned, rows, columns.clone());
                    strip.run(packed_rows, packed);
                    strip.finish()
                },
            )
            .collect();
        parts.iter().for_each(|part| found.merge(part));
    }

    fn near_error(&self) -> f64 {
        self.near_error
    }

    fn own_near_error(&self) -> f64 {
        match self.first {
            First::Integers(_) => self.near_error,
            First::All | First::Axes(..) => self.bound.error,
        }
    }

    fn describe(&self) -> String {
        format!("{} kernel, {}", self.cpu.name(), self.first.describe())
    }

    fn memory(&self, edge: usize) -> usize {
        self.first.memory(edge)
    }

    fn rest(&mut self) {
        (self.packed, self.strips) = (Pool::default(), Pool::default());
        self.first.rest();
    }
}

/// A strip of rows i on its way over the panels.
struct Strip<'a> {
    filter: &'a Dense,
    ask: &'a Ask<'a>,
    tails: Option<Tails<'a>>,
    shape: Shape,
    rows: Range<u32>,
    columns: Range<u32>,
    scores: Scores,
    pending: [Pending; 2],
    /// Which of the two is the last micro-tile's.
    last: usize,
    waiting: bool,
    masks: Masks,
    places: Places,
    tally: Tally<'a>,
    open: Vec<Open>,
    ahead: Ahead,
    /// From where on scores of the rows i may be among their best, for whole micro-tiles; empty if those
    /// are not asked for.
    rows_from: Vec<[f32; MOST_ROWS]>,
    /// Rows j of the panel that have been asked for.
    asked: u64,
    /// From where on, and down, the kernel's scores may be the highest and the least.
    extreme: [f32; 2],
    found: Found,
}

/// What decides about a panel's scores besides its words.
struct Columns {
    /// As in [`Verdict`].
    all_from: f32,
    below: f32,
    from: [f32; MOST_COLUMNS],
    reach: [f32; MOST_COLUMNS],
}

/// Pairs that are worth to be looked at again together: their rows are on their way meanwhile.
const OPEN: usize = 64;

/// After so many panels the limits of the rows i are read anew. They only rise: old ones ask for more.
const REFRESH: usize = 4;

/// A pair that the kernel has not settled.
struct Open {
    pair: [u32; 2],
    score: f32,
    doubt: bool,
    wanted: bool,
    /// The kernel's score does not do for what is asked: it is summed in f32.
    summed: bool,
}

impl<'a> Strip<'a> {
    fn new(
        filter: &'a Dense,
        ask: &'a Ask<'a>,
        turned: Option<&'a [Turned<'a>; 2]>,
        rows: Range<u32>,
        columns: Range<u32>,
    ) -> Self {
        let shape = filter.cpu.shape();
        let cells = filter.cells_of_kernel();
        let pending = || Pending::new(cells, shape.columns);
        let tails = match (&filter.first, turned) {
            (First::Axes(axes, _), Some(turned)) => Some(Tails::new(filter.cpu, axes, turned, rows.clone())),
            _ => None,
        };
        Self {
            filter,
            ask,
            tails,
            shape,
            rows: rows.clone(),
            columns: columns.clone(),
            scores: Scores::default(),
            pending: [pending(), pending()],
            last: 0,
            waiting: false,
            masks: Masks::default(),
            places: Places::default(),
            tally: Tally::new(cells, ask.weights, rows, shape.rows, columns),
            open: Vec::new(),
            ahead: Ahead::default(),
            rows_from: Vec::new(),
            asked: 0,
            extreme: [f32::NEG_INFINITY, f32::INFINITY],
            found: Found::new(ask.bins),
        }
    }

    fn run(&mut self, packed_rows: &[u32], packed: &[u32]) {
        let (lines, Shape { rows: mr, columns: nr, .. }) =
            (self.filter.first.lines(self.ask.rows.dims()), self.shape);
        let rows = self.rows.clone();
        let share = (nr * lines).div_ceil((packed_rows.len() / (mr * lines)).max(1));
        for (p, panel) in packed.chunks_exact(nr * lines).enumerate() {
            let next = packed.get((p + 1) * nr * lines..(p + 2) * nr * lines).unwrap_or_default();
            let mut shares = next.chunks(share);
            let j = self.columns.start + (p * nr) as u32;
            self.asked = 0;
            let (ask, first) = (self.ask, &self.filter.first);
            if let Some(best) = ask.best.filter(|_| p % REFRESH == 0) {
                self.rows_from.clear();
                self.rows_from.extend(rows.clone().step_by(mr).map(|i| {
                    std::array::from_fn(|r| match i + r as u32 {
                        i if r < mr && i < rows.end => first.listed(best.from(i)),
                        _ => f32::INFINITY,
                    })
                }));
            }
            let last = (j + nr as u32).min(self.columns.end) - 1;
            // Old limits ask for more than new ones.
            self.extreme = [first.from(ask.extremes.high_from()), first.below(ask.extremes.low_from())];
            let [high, below] = self.extreme;
            let all_from = high.min(first.listed(self.listed_from()));
            let (from, reach) = ([all_from; MOST_COLUMNS], [0.0; MOST_COLUMNS]);
            let mut column = Columns { all_from, below, from, reach };
            if let Some(best) = ask.best {
                (j..=last)
                    .zip(&mut column.from)
                    .for_each(|(j, from)| *from = from.min(first.listed(best.from(j))));
            }
            if let Some(tails) = &mut self.tails {
                column.reach = tails.panel(j..last + 1, self.columns.end, &mut self.ahead);
            }
            self.tally.panel(j..last + 1);
            for (q, panel_rows) in packed_rows.chunks_exact(mr * lines).enumerate() {
                let i = rows.start + (q * mr) as u32;
                if i >= rows.end || i >= last {
                    break; // no pair i < j from here on
                }
                // The next panel comes from far; it is on its way meanwhile.
                self.ahead.list(shares.next().unwrap_or_default());
                let whole = i + mr as u32 <= rows.end && i + mr as u32 <= j && last + 1 == j + nr as u32;
                let valid = (!whole).then(|| valid(self.shape, i..rows.end, j..last + 1));
                self.micro_tile(q, [i, j], panel_rows, panel, valid.as_ref(), &column);
            }
        }
    }

    /// The strip's `q`-th, with a panel.
    fn micro_tile(
        &mut self,
        q: usize,
        at: [u32; 2],
        a: &[u32],
        b: &[u32],
        valid: Option<&[u16; VECTORS]>,
        column: &Columns,
    ) {
        let Dense { cpu, bound, cells, first, .. } = self.filter;
        let verdict = Verdict {
            valid,
            from: column.all_from,
            below: column.below,
            row_from: self.rows_from.get(q),
            column_from: &column.from,
            row_reach: self.tails.as_ref().map_or(&[0.0; MOST_ROWS], |tails| tails.reach(q)),
            column_reach: &column.reach,
        };
        let [even, odd] = &mut self.pending;
        let (before, now) = if self.last == 0 { (even, odd) } else { (odd, even) };
        (now.q, now.at) = (q, at);
        let before = self.waiting.then_some(&*before);
        let (scores, masks, tally) = (&mut self.scores, &mut self.masks, &mut self.tally);
        // What the kernels for x86 have in common.
        #[cfg(target_arch = "x86_64")]
        macro_rules! look {
            ($isa:ident) => {{
                use super::$isa::{judge, scores as scores_of};
                let (words, cells) = match first {
                    First::All => (Words { lead: 0, chunk: bound.chunk, unit: 1.0 }, cells),
                    First::Integers(c) => (Words { lead: 0, chunk: c.chunk, unit: c.unit }, &c.cells),
                    First::Axes(axes, _) => {
                        (Words { lead: LEAD, chunk: axes.head.chunk, unit: axes.head.unit }, &axes.cells)
                    }
                };
                let scores_of = if first.is_f32() { scores_of::<false> } else { scores_of::<true> };
                scores_of(a, b, words, scores, before, tally, &mut self.ahead);
                match first {
                    First::Axes(..) => judge::<true>(scores, cells, &verdict, now, masks),
                    _ => judge::<false>(scores, cells, &verdict, now, masks),
                }
            }};
        }
        let look = match cpu {
            // SAFETY: `Cpu::all` lists this kernel only where the CPU has what it needs; panels are
            // whole; what is pending is sorted, and the tally's strip is this one; integers are such that
            // their sums fit.
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512Int16 | Cpu::Avx512 => unsafe { look!(avx512) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2Int16 | Cpu::Avx2 => unsafe { look!(avx2) },
            _ => {
                before.into_iter().for_each(|before| tally.count(before, 0));
                super::portable::scores(
                    bytemuck::cast_slice(a),
                    bytemuck::cast_slice(b),
                    bound.chunk,
                    scores,
                );
                super::portable::judge(scores, cells, &verdict, now, masks);
                true
            }
        };
        self.waiting = true;
        self.last = 1 - self.last;
        let look = look
            && self.tails.as_ref().is_none_or(|tails| {
                let pending = &mut self.pending[self.last];
                tails.look(&verdict, &self.scores, pending, &mut self.masks, &mut self.places)
            });
        self.tally.sort(&mut self.pending[self.last]);
        if look {
            self.attend(at);
        }
    }

    /// A score from here on may be one in f64 that is listed.
    fn listed_from(&self) -> f32 {
        let from = |min| ((min - self.filter.near_error) as f32).next_down();
        self.ask.min.map_or(f32::INFINITY, from)
    }

    /// Collects the pairs that the masks point at.
    fn attend(&mut self, at: [u32; 2]) {
        let nr = self.shape.columns;
        if self.open.len() >= OPEN {
            self.settle_open();
        } else {
            self.found.settle_some(self.ask);
        }
        let listed_at_once = !self.filter.first.is_f32();
        let places = self.masks.places(self.filter.cpu, &mut self.places);
        for p in places.iter().map(|p| usize::from(*p)) {
            let (v, lane) = (p / VECTOR, p % VECTOR);
            let [i, j] = [at[0] + (p / nr) as u32, at[1] + (p % nr) as u32];
            let score = self.scores.0[p];
            let doubt = self.masks.doubt[v] >> lane & 1 != 0;
            let wanted = self.masks.wanted[v] >> lane & 1 != 0;
            let summed = doubt
                || match self.filter.first {
                    First::All => false,
                    // In the lists the kernel's score does, but not among the extremes.
                    First::Integers(_) => score >= self.extreme[0] || score <= self.extreme[1],
                    First::Axes(..) => true,
                };
            if !summed && listed_at_once {
                self.found.near.push((i, j, score));
                continue;
            }
            if summed {
                self.ahead.list(self.ask.rows.row(i as usize));
                let column = 1 << (p % nr);
                if self.asked & column == 0 {
                    self.asked |= column;
                    self.ahead.list(self.ask.rows.row(j as usize));
                }
            }
            self.open.push(Open { pair: [i, j], score, doubt, wanted, summed });
        }
    }

    /// Takes open pairs a step further: to f32 one by one where that is needed, and hands over those that f32
    /// cannot settle. Their rows come from far, so this happens some micro-tiles after they were found.
    fn settle_open(&mut self) {
        let (ask, filter) = (self.ask, self.filter);
        let listed_from = self.listed_from();
        // They may be old; then they ask for more.
        let [high, low] = [ask.extremes.high_from(), ask.extremes.low_from()];
        for Open { pair: [i, j], mut score, mut doubt, wanted, summed } in self.open.drain(..) {
            if summed {
                score = dot(ask.rows.row(i as usize), ask.rows.row(j as usize));
            }
            if doubt && let Some(cell) = filter.cells_of_one.cell(score) {
                doubt = false;
                let bin = usize::from(filter.cells_of_one.bins[usize::from(cell)]);
                self.found.count(ask, bin, [i, j]);
            }
            if doubt {
                self.found.doubtful.push([i, j]);
            }
            if !wanted {
                continue;
            }
            let in_f32 = summed || filter.first.is_f32();
            if in_f32
                && (score >= high || score <= low)
                && ask.extremes.meets(score, counts_in(ask.weights, [i, j]))
                && !doubt
            {
                self.found.extreme.push([i, j]);
            }
            if score >= listed_from || ask.best.is_some_and(|b| score >= b.from(i) || score >= b.from(j)) {
                self.found.near.push((i, j, score));
            }
        }
        self.found.settle_some(ask);
    }

    fn finish(mut self) -> Found {
        if self.waiting {
            self.tally.count(&self.pending[self.last], 0);
        }
        self.settle_open();
        self.tally.drain(self.filter.cells_of_kernel(), &mut self.found.counts);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Strips are all rows, in order; each but the last is whole micro-tiles, and fits in the cache.
        #[test]
        fn strips_are_a_partition(
            first in 0u32..1000,
            n in 1u32..9000,
            words in 1usize..3000,
            threads in 1usize..300,
        ) {
            let rows = first..first + n;
            let strips = strips(&rows, words, threads);
            prop_assert_eq!(strips[0].start, rows.start);
            prop_assert_eq!(strips.last().unwrap().end, rows.end);
            prop_assert!(strips.windows(2).all(|two| two[0].end == two[1].start));
            let (_, whole) = strips.split_last().unwrap();
            prop_assert!(whole.iter().all(|strip| strip.len() % MOST_ROWS == 0));
            let most = (STRIP / (4 * words)).clamp(MOST_ROWS, MOST * MOST_ROWS);
            prop_assert!(strips.iter().all(|strip| !strip.is_empty() && strip.len() <= most));
            let enough = (EACH * threads).min(n as usize / (2 * FEW * MOST_ROWS));
            prop_assert!(threads == 1 || strips.len() >= enough, "{} strips", strips.len());
        }
    }
}
