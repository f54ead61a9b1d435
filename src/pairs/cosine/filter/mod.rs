//! Filters: fast ways to say which bin most pairs are in, and which pairs have to be looked at.
//!
//! A [`Filter`] is given a tile and settles what its error bound allows to settle: it adds to the
//! counts of the bins, and hands over the pairs that it leaves in doubt ([`Found::doubtful`]), that
//! may be the least or the most alike ([`Found::extreme`]), and that may be among the neighbours or
//! over the threshold ([`Found::near`]). [`Found::settle`] scores those in f64. So a filter decides
//! how long a run takes and nothing else. [`Dense`] scores every pair: in f32; or first in 16-bit
//! integers (`coarse`); or first along those axes that have most of the rows' length (`axes`, with the
//! rows as they lie there in `turned`, and a second look along the others in `again`). What a first look
//! leaves open is scored in f32, and what that leaves open in f64.
//!
//! [`bound`](Bound) has the proof, [`cells`] the way from scores to bins, one file each kernel has
//! its instructions: `portable` is the definition.

mod again;
mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod axes;
mod bound;
pub mod cells;
mod coarse;
mod dense;
mod first;
pub mod pack;
mod panels;
mod portable;
pub mod tally;
#[cfg(target_arch = "x86_64")]
pub mod transpose;
mod turned;

pub use ahead::{Ahead, prefetch};
pub use bound::Bound;
pub use dense::Dense;
pub use tally::{Classes, Weights};

use super::best::Best;
use super::bins::{Bins, Count};
use super::exact;
use super::extent::Extent;
use super::rows::Rows;
use crate::pairs::Tile;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cpu {
    /// AVX-512 F, DQ, BW, VL and VNNI, first with 16-bit integers, along axes where that pays.
    Avx512Int16,
    /// AVX-512 F, DQ, BW and VL, in f32 throughout.
    Avx512,
    /// AVX2 and FMA, first with 16-bit integers, along axes where that pays.
    Avx2Int16,
    /// AVX2 and FMA, in f32 throughout.
    Avx2,
    /// Whatever the compiler makes of plain Rust.
    Portable,
}

impl Cpu {
    /// The best kernel of this CPU; `STRATIGRAPH_KERNEL` (`avx512-int16`, `avx512`,
    /// `avx2-int16`, `avx2`, `portable`) can ask for a lesser one. No result depends on it.
    pub fn best() -> Self {
        static BEST: std::sync::LazyLock<Cpu> = std::sync::LazyLock::new(|| {
            let asked = std::env::var("STRATIGRAPH_KERNEL").unwrap_or_default();
            let all = Cpu::all();
            let wanted = all.iter().find(|cpu| cpu.name() == asked);
            *wanted.unwrap_or(&all[0])
        });
        *BEST
    }

    /// All kernels that this CPU can run, the fastest first.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512dq") && has!("avx512bw") && has!("avx512vl") {
                if has!("avx512vnni") {
                    all.push(Self::Avx512Int16);
                }
                all.push(Self::Avx512);
            }
            if has!("avx2") && has!("fma") {
                all.extend([Self::Avx2Int16, Self::Avx2]);
            }
        }
        all.push(Self::Portable);
        all
    }

    /// True if a CPU that this kernel is for has AVX2 and FMA.
    #[inline]
    pub fn has_avx2(self) -> bool {
        self != Self::Portable
    }

    /// True if it has a kernel for 16-bit integers.
    pub fn has_integers(self) -> bool {
        matches!(self, Self::Avx512Int16 | Self::Avx2Int16)
    }

    /// The micro-tile of its kernel.
    pub fn shape(self) -> pack::Shape {
        match self {
            Self::Avx512Int16 | Self::Avx512 => pack::Shape::WHOLE,
            Self::Avx2Int16 | Self::Avx2 => pack::Shape::TALL,
            Self::Portable => pack::Shape::WIDE,
        }
    }

    /// As it is called in the environment and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Int16 => "avx512-int16",
            Self::Avx512 => "avx512",
            Self::Avx2Int16 => "avx2-int16",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// What a run wants to know about each pair.
pub struct Ask<'a> {
    /// The rows that are compared.
    pub rows: Rows<'a>,
    /// The bins of all histograms.
    pub bins: &'a Bins,
    /// Without weights a pair counts once in every way.
    pub weights: Option<Weights<'a>>,
    /// List pairs with at least this score.
    pub min: Option<f64>,
    /// Keep the best neighbours of each row.
    pub best: Option<&'a Best>,
    /// [`Filter::near_error`].
    pub near_error: f64,
    /// The least and the highest score so far.
    pub extremes: &'a Extremes,
}

/// A filter: settles the pairs i < j of a tile as far as it can.
pub trait Filter: Sync {
    /// Adds what it finds in this tile to `found`, in any order; may settle pairs on the way.
    fn tile(&self, tile: &Tile, ask: &Ask<'_>, found: &mut Found);

    /// Largest difference of a score in [`Found::near`] from the one in f64, whichever filter for these rows
    /// it is that another rank has.
    fn near_error(&self) -> f64;

    /// The same for this filter alone; at most that.
    fn own_near_error(&self) -> f64;

    /// What it does first, for people.
    fn describe(&self) -> String;

    /// Memory that it comes to besides packed rows, in bytes, for tiles of `edge` rows.
    fn memory(&self, edge: usize) -> usize;

    /// Gives back what is kept from tile to tile; the next tile takes it again.
    fn rest(&mut self);
}

/// A pair over the threshold: 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Edge {
    /// The smaller row number.
    pub first: u32,
    /// The larger one.
    pub second: u32,
    /// The score, rounded to f32.
    pub score: f32,
}

/// In which ways a pair counts.
pub fn counts_in(weights: Option<Weights<'_>>, [i, j]: [u32; 2]) -> [bool; 4] {
    let Some(Weights { each, .. }) = weights else { return [true; 4] };
    let (i, j) = (&each[i as usize], &each[j as usize]);
    std::array::from_fn(|way| i[way] > 0 && j[way] > 0)
}

/// What is known of a tile, or of a part of it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Pairs in each bin.
    pub counts: Vec<Count>,
    /// Least and highest score among the pairs that were scored in f64, in each way to count.
    pub extents: [Extent; 4],
    /// Pairs over the threshold.
    pub edges: Vec<Edge>,
    /// Pairs i < j that are in no bin yet.
    pub doubtful: Vec<[u32; 2]>,
    /// Pairs that may be the least or the most alike, besides those in doubt.
    pub extreme: Vec<[u32; 2]>,
    /// Pairs that may be neighbours or over the threshold, with the filter's score.
    pub near: Vec<(u32, u32, f32)>,
    /// Pairs scored in f64.
    pub rechecked: u64,
}

/// Pairs that a [`Found`] collects before it is worth to settle them.
const BATCH: usize = 1 << 12;

impl Found {
    /// Nothing yet.
    pub fn new(bins: &Bins) -> Self {
        Self {
            counts: vec![[0; 4]; bins.len()],
            extents: [Extent::default(); 4],
            edges: Vec::new(),
            doubtful: Vec::new(),
            extreme: Vec::new(),
            near: Vec::new(),
            rechecked: 0,
        }
    }

    /// Settles if enough has come together.
    pub fn settle_some(&mut self, ask: &Ask<'_>) {
        if self.doubtful.len().max(self.extreme.len()).max(self.near.len()) >= BATCH {
            self.settle(ask);
        }
    }

    /// Scores all pairs that are still open in f64, and puts them where they belong.
    pub fn settle(&mut self, ask: &Ask<'_>) {
        let Self { counts, extents, edges, doubtful, extreme, near, rechecked } = self;
        let mut widen = |score: f64, pair: [u32; 2]| {
            let ways = extents.iter_mut().zip(counts_in(ask.weights, pair));
            ways.filter(|(_, counts)| *counts).for_each(|(extent, _)| extent.add(score));
        };
        exact::score_all(&ask.rows, doubtful, |at, score| {
            count(&mut counts[ask.bins.bin(score)], ask, doubtful[at]);
            widen(score, doubtful[at]);
        });
        exact::score_all(&ask.rows, extreme, |at, score| widen(score, extreme[at]));
        *rechecked += (doubtful.len() + extreme.len()) as u64;
        doubtful.clear();
        extreme.clear();
        if let Some(best) = ask.best {
            best.add(&ask.rows, near);
        }
        if let Some(min) = ask.min {
            let reach = min - ask.near_error;
            let over: Vec<_> = near.iter().filter(|n| f64::from(n.2) >= reach).map(|n| [n.0, n.1]).collect();
            *rechecked += over.len() as u64;
            exact::score_all(&ask.rows, &over, |at, score| {
                if score >= min {
                    edges.push(Edge { first: over[at][0], second: over[at][1], score: score as f32 });
                }
            });
        }
        near.clear();
    }

    /// Counts a pair whose bin is known.
    pub fn count(&mut self, ask: &Ask<'_>, bin: usize, pair: [u32; 2]) {
        count(&mut self.counts[bin], ask, pair);
    }

    /// Adds what another part found. Both are settled.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            count.iter_mut().zip(more).for_each(|(c, m)| *c += m);
        }
        self.extents.iter_mut().zip(other.extents).for_each(|(extent, other)| extent.join(other));
        self.edges.extend_from_slice(&other.edges);
        self.rechecked += other.rechecked;
    }
}

#[inline]
fn count(counts: &mut Count, ask: &Ask<'_>, pair: [u32; 2]) {
    let [i, j] = pair.map(|i| i as usize);
    match ask.weights {
        None => counts.iter_mut().for_each(|count| *count += 1),
        Some(Weights { each, .. }) => {
            let products = each[i].iter().zip(&each[j]).map(|(i, j)| i * j);
            counts.iter_mut().zip(products).for_each(|(count, product)| *count += product);
        }
    }
}

/// The least and the highest score so far in each way to count, as bounds that are known to hold: a score of
/// at least `high` exists, and one of at most `low`. Racing updates can only lose some sharpness.
#[derive(Debug)]
pub struct Extremes {
    high: [AtomicU32; 4],
    low: [AtomicU32; 4],
    /// The error bound of the filter.
    pub error: f64,
}

impl Extremes {
    /// From some score that is known in each way; without one there are no pairs.
    pub fn new(scores: [Option<f64>; 4], error: f64) -> Self {
        let high = |score: Option<f64>| score.map_or(f32::INFINITY, |s| (s as f32).next_down());
        let low = |score: Option<f64>| score.map_or(f32::NEG_INFINITY, |s| (s as f32).next_up());
        Self {
            high: scores.map(|s| high(s).to_bits().into()),
            low: scores.map(|s| low(s).to_bits().into()),
            error,
        }
    }

    /// A score in f32 from here on may be the highest in some way.
    pub fn high_from(&self) -> f32 {
        (0..4).map(|way| self.high_of(way)).fold(f32::INFINITY, f32::min)
    }

    /// A score in f32 up to here may be the least in some way.
    pub fn low_from(&self) -> f32 {
        (0..4).map(|way| self.low_of(way)).fold(f32::NEG_INFINITY, f32::max)
    }

    fn high_of(&self, way: usize) -> f32 {
        (f32::from_bits(self.high[way].load(Ordering::Relaxed)) - self.margin()).next_down()
    }

    fn low_of(&self, way: usize) -> f32 {
        (f32::from_bits(self.low[way].load(Ordering::Relaxed)) + self.margin()).next_up()
    }

    /// True if this score in f32 may be the highest or the least in one of these ways; remembers it.
    pub fn meets(&self, score: f32, ways: [bool; 4]) -> bool {
        let mut met = false;
        for way in (0..4).filter(|way| ways[*way]) {
            if score >= self.high_of(way) {
                met = true;
                let sure = (score - self.margin()).next_down();
                if sure > f32::from_bits(self.high[way].load(Ordering::Relaxed)) {
                    self.high[way].store(sure.to_bits(), Ordering::Relaxed);
                }
            }
            if score <= self.low_of(way) {
                met = true;
                let sure = (score + self.margin()).next_up();
                if sure < f32::from_bits(self.low[way].load(Ordering::Relaxed)) {
                    self.low[way].store(sure.to_bits(), Ordering::Relaxed);
                }
            }
        }
        met
    }

    fn margin(&self) -> f32 {
        (self.error as f32).next_up()
    }
}
