//! What the kernel sums of every pair: the first look.

use super::axes::{Axes, dense_price};
use super::cells::Cells;
use super::coarse::Coarse;
use super::pack::{pack, pack_integers, pack_words};
use super::turned::{LINE, Store, Turned};
use super::{Bound, Cpu};
use crate::pairs::cosine::bins::Bins;
use crate::pairs::cosine::rows::Rows;
use std::ops::Range;

/// With fewer rows it takes longer to find axes than to do without ...
const FEWEST_ROWS: usize = 8192;
/// ... as with fewer for each coordinate: axes cost d^3, pairs n^2 d.
const ROWS_FOR_EACH: usize = 27;

/// What is summed first.
pub enum First {
    /// All coordinates in f32.
    All,
    /// All, in integers.
    Integers(Coarse),
    /// Some, along axes.
    Axes(Box<Axes>, Store),
}

impl First {
    /// What should cost least for these rows; `coarse` is how they become integers, if that pays.
    pub fn new(cpu: Cpu, rows: &Rows<'_>, bins: &Bins, bound: &Bound, coarse: Option<Coarse>) -> Self {
        if !cpu.has_integers() {
            return Self::All;
        }
        let price = dense_price(rows.dims(), coarse.as_ref().map(Coarse::open));
        let many = rows.len() >= FEWEST_ROWS.max(ROWS_FOR_EACH * rows.dims());
        let axes = many.then(|| Axes::of(rows, bins, bound)).flatten();
        match axes.filter(|axes| axes.price < price) {
            Some(axes) => Self::axes(axes, rows),
            None => coarse.map_or(Self::All, Self::Integers),
        }
    }

    /// Along these axes of these rows.
    pub fn axes(axes: Axes, rows: &Rows<'_>) -> Self {
        let store = Store::new(&axes, rows.len());
        Self::Axes(Box::new(axes), store)
    }

    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Self::All => "all in f32".into(),
            Self::Integers(_) => "all in integers first".into(),
            Self::Axes(axes, _) => {
                format!("{} of {} principal axes first, then {}", axes.split, axes.dims, axes.cut)
            }
        }
    }

    /// True if the kernel's scores are those of f32.
    pub fn is_f32(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Largest difference of the kernel's score from the one in f32, besides a pair's own bound.
    fn slack(&self) -> Option<f32> {
        match self {
            Self::All => None,
            Self::Integers(coarse) => Some(coarse.slack),
            Self::Axes(axes, _) => Some(axes.slack),
        }
    }

    /// A score of the kernel from here on may be one in f32 from `from` on.
    pub fn from(&self, from: f32) -> f32 {
        self.slack().map_or(from, |slack| (from - slack).next_down())
    }

    /// A score of the kernel from here on may be one that is listed from `from` on. Sums of all integers are
    /// listed as they are; the pairs of axes that are wanted are summed once more in f32.
    pub fn listed(&self, from: f32) -> f32 {
        match self {
            Self::All | Self::Integers(_) => from,
            Self::Axes(..) => self.from(from),
        }
    }

    /// A score of the kernel down from here may be one in f32 down from `below`.
    pub fn below(&self, below: f32) -> f32 {
        self.slack().map_or(below, |slack| (below + slack).next_up())
    }

    /// The cells that the kernel counts in, unless they are those of f32.
    pub fn cells(&self) -> Option<&Cells> {
        match self {
            Self::All => None,
            Self::Integers(coarse) => Some(&coarse.cells),
            Self::Axes(axes, _) => Some(&axes.cells),
        }
    }

    /// Words of a row of `dims` coordinates in a panel.
    pub fn lines(&self, dims: usize) -> usize {
        match self {
            Self::All => dims,
            Self::Integers(_) => dims.div_ceil(2),
            Self::Axes(axes, _) => axes.lines(),
        }
    }

    /// Words of it that are wanted near besides those in a panel, about.
    pub fn beside(&self, dims: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Integers(_) => dims / 2,
            Self::Axes(axes, _) => axes.tail_lines() * LINE,
        }
    }

    /// Memory that it takes besides packed rows, in bytes, for tiles of `edge` rows.
    pub fn memory(&self, edge: usize) -> usize {
        match self {
            Self::Axes(axes, store) => store.memory(axes, edge),
            Self::All | Self::Integers(_) => 0,
        }
    }

    /// Gives the memory back that grows with the rows; it is taken again when it is needed.
    pub fn rest(&mut self) {
        if let Self::Axes(_, store) = self {
            store.clear();
        }
    }

    /// Two ranges of rows along the axes, if there are axes.
    pub fn turned(&self, rows: &Rows<'_>, ranges: [&Range<u32>; 2]) -> Option<[Turned<'_>; 2]> {
        let Self::Axes(axes, store) = self else { return None };
        Some(ranges.map(|range| store.rows(axes, rows, range.clone())))
    }

    /// Packs rows into panels of `width`; along axes they are `turned`.
    pub fn pack(
        &self,
        rows: &Rows<'_>,
        turned: Option<&Turned<'_>>,
        range: Range<u32>,
        width: usize,
        into: &mut [u32],
    ) {
        match (self, turned) {
            (Self::Axes(axes, _), Some(turned)) => {
                pack_words(|i| turned.words(i), range, width, axes.lines(), into);
            }
            (Self::Integers(coarse), _) => pack_integers(rows, range, width, coarse.scale, into),
            _ => pack(rows, range, width, bytemuck::cast_slice_mut(into)),
        }
    }
}
