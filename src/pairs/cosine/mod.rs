//! Exact all-pairs cosine similarity of vectors of length 1.
//!
//! The study compares 300-dimensional document vectors with sklearn's `cosine_similarity` and counts
//! the scores in ranges of 0.1. Here a pair's score is the float64 dot product of the two stored f32
//! rows, summed in index order ([`exact`]), and all counts, neighbours and lists are those of that
//! number, on any CPU, any number of ranks, and any tile size. Steps:
//!
//! 1. [`rows`]: rows are checked; equal ones are compared once and weighed.
//! 2. [`bins`]: all histograms of a run are counted at once.
//! 3. [`filter`]: a fast kernel settles nearly all pairs, and says which it cannot.
//! 4. [`exact`]: those are scored in f64.
//! 5. [`best`]: the neighbours of each row, from `floors` on, ranked in `neighbours`; [`moments`]: mean and
//!    deviation, without any pair.
//! 6. [`results`]: tiles are merged and checked to close.
//! 7. [`matrix`]: on request all scores themselves.

pub mod best;
pub mod bins;
pub mod block;
pub mod exact;
pub mod extent;
pub mod files;
pub mod filter;
mod floors;
pub mod matrix;
pub mod moments;
mod needs;
pub mod neighbours;
pub mod results;
pub mod rows;
pub mod source;
pub mod summary;
#[cfg(test)]
mod tests;
mod wire;

pub use needs::{Cluster, Needs};
pub use source::Source;
pub use summary::Summary;

use super::journal::Fingerprint;
use super::{Error, Job, Outcome, Plan, Shape, Tile};
use crate::world::World;
use best::{Best, Candidates};
use bins::{Bins, Count};
use filter::{Ask, Bound, Classes, Cpu, Dense, Extremes, Filter, Found, Weights};
use matrix::{Cell, Matrix, Shards};
use moments::PairSums;
use neighbours::{Gathered, Nearest};
use results::{Merge, Results};
use rows::{Groups, Rows};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::OnceLock;
use wire::Partial;

/// What a run computes and keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Edges of each histogram.
    pub histograms: Vec<Vec<f64>>,
    /// Edges of a histogram that is also counted as the study did.
    pub as_published: Option<Vec<f64>>,
    /// Neighbours kept for each distinct row; 0 for none.
    pub top_k: usize,
    /// List the pairs with at least this score.
    pub min: Option<f64>,
    /// Rows in a tile each way; what a kill can cost, but no result, depends on it.
    pub tile_edge: Option<u32>,
    /// Keep the scores themselves, as such numbers.
    pub matrix: Option<Cell>,
    /// With a matrix: only these input rows of it.
    pub matrix_rows: Option<Vec<u32>>,
    /// Which kernel scores.
    pub cpu: Cpu,
}

impl Options {
    /// Ranges of 0.1 from -0.5 to 1: the study's.
    pub fn study_edges() -> Vec<f64> {
        (-5..=10).map(|i| f64::from(i) / 10.0).collect()
    }

    /// Ranges of 0.01 from -1 to 1.
    pub fn fine_edges() -> Vec<f64> {
        (-100..=100).map(|i| f64::from(i) / 100.0).collect()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            histograms: vec![Self::study_edges(), Self::fine_edges()],
            as_published: None,
            top_k: 0,
            min: None,
            tile_edge: None,
            matrix: None,
            matrix_rows: None,
            cpu: Cpu::best(),
        }
    }
}

/// How often each input row occurs in the corpora behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Multiplicity {
    /// In layers.
    pub layers: Option<Vec<u64>>,
    /// In images.
    pub images: Option<Vec<u64>>,
}

/// Vectors ready to be compared. Every rank prepares the same.
pub struct Prepared<'a> {
    /// The distinct rows.
    pub rows: Rows<'a>,
    /// Which input row is which of them.
    pub groups: &'a Groups,
    /// Weights of each distinct row: 1, input rows, layers, images.
    pub weights: Vec<Count>,
    /// Rows of equal weights, if any weight is not 1.
    pub classes: Option<Classes>,
    /// The merged bins.
    pub bins: Bins,
    /// The tiles.
    pub plan: Plan,
    /// What is wanted; `top_k` is at most n - 1.
    pub options: Options,
    /// The matrix, if it is wanted.
    pub matrix: Option<Matrix>,
    filter: Box<dyn Filter + 'a>,
    bound: Bound,
    /// [`floors::Floors::order`], once it is known.
    order: OnceLock<Vec<u32>>,
}

/// Directory of a run's journals, in that of its results.
pub const JOURNAL: &str = "journal-cosine";

/// Coordinates of a micro-tile that are summed at a time, at most: so few that they stay in a first-level
/// cache beside all else, even where another program takes half of it. Short chunks leave few pairs in doubt,
/// too, but each costs a little.
const MOST_CHUNK: usize = 100;

/// Rows in a tile each way for `n` rows: large, so that packing costs little, but enough tiles that
/// ranks are even and a kill costs little.
fn tile_edge(n: u32) -> u32 {
    (n / 12).next_multiple_of(filter::pack::MOST_COLUMNS as u32 * 4).clamp(192, 8064)
}

impl<'a> Prepared<'a> {
    /// Weighs, bounds and plans. `all` are the checked input rows, `groups` those of them.
    ///
    /// # Errors
    /// [`Error::Refused`] for unsound edges, weights of another length than rows, or weights whose
    /// sum reaches 2^32.
    pub fn new(
        all: Rows<'a>,
        groups: &'a Groups,
        multiplicity: &Multiplicity,
        options: Options,
    ) -> Result<Self, Error> {
        let rows = if groups.len() == all.len() { all } else { all.choose(&groups.representative) };
        let n = u32::try_from(rows.len()).ok().filter(|n| *n < 1 << 31);
        let n = n.ok_or_else(|| Error::Refused("2^31 vectors or more cannot be compared".into()))?;
        let weights = weights_of(groups, all.len(), multiplicity)?;
        let weighted = weights[..rows.len()].iter().any(|w| *w != [1; 4]);
        let classes = weighted.then(|| Classes::of(&weights));
        let published: Vec<_> = options.as_published.iter().cloned().collect();
        let bins = Bins::new(&options.histograms, &published)?;
        let chunk = rows.dims().div_ceil(rows.dims().div_ceil(MOST_CHUNK)).next_multiple_of(4);
        let bound = Bound::of(&rows, chunk);
        let edge = options.tile_edge.unwrap_or_else(|| tile_edge(n));
        let matrix = matrix_of(&options, groups)?;
        let edge = if matrix.is_some() { Matrix::tile_edge(n, edge) } else { edge };
        let blocks = u64::from(n.div_ceil(edge.max(1)));
        if blocks * (blocks + 1) / 2 > u64::from(u32::MAX) {
            return Err(Error::Refused(format!(
                "tiles of {edge} rows would be 2^32 or more for {n} vectors; raise --tile-rows"
            )));
        }
        let plan = Plan::new(n, edge, edge, Shape::Triangle);
        let top_k = options.top_k.min(rows.len().saturating_sub(1));
        let options = Options { top_k, ..options };
        let filter =
            Box::new(Dense::new(options.cpu, &rows, &bins, bound, top_k > 0 || options.min.is_some()));
        Ok(Self {
            rows,
            groups,
            weights,
            classes,
            bins,
            plan,
            options,
            matrix,
            filter,
            bound,
            order: OnceLock::new(),
        })
    }

    /// Sha256 over a run's identity and the tile plan: journals of another run do not match.
    pub fn fingerprint(&self, identity: &str) -> Fingerprint {
        let Options { histograms, as_published, top_k, min, .. } = &self.options;
        let text = format!(
            "stratigraph {} cosine, candidates by the first look\n{identity}\n{histograms:?} {as_published:?} top_k={top_k} min={min:?}\n{}\n",
            env!("CARGO_PKG_VERSION"),
            self.plan.describe()
        );
        Sha256::digest(text.as_bytes()).into()
    }

    /// The kernel and what it does first, for people.
    pub fn describe_kernel(&self) -> String {
        self.filter.describe()
    }

    /// A kernel for tiles: what [`Prepared::compute`] gives the engine, without the matrix. Collective,
    /// because ranks share what is done before the first tile; the kernel is not.
    pub fn kernel<'k>(&'k self, world: &World) -> impl FnMut(&Tile) -> Partial + use<'k, 'a> {
        let Options { top_k, min, .. } = self.options;
        let (n, near_error) = (self.rows.len(), self.filter.near_error());
        let extremes = Extremes::new(std::array::from_fn(|way| self.some_score(way)), self.bound.error);
        let best = (top_k > 0 && n > 1).then(|| {
            let floors = floors::floors(world, &self.rows, top_k, &self.bound, near_error);
            let best = Best::new(n, top_k, self.filter.own_near_error(), &floors.of_rows);
            // The same at every call.
            let _ = self.order.set(floors.order);
            best
        });
        move |tile| {
            let classes = self.classes.as_ref();
            let weights = classes.map(|classes| Weights { each: &self.weights, classes });
            let best = best.as_ref();
            let ask = Ask {
                rows: self.rows,
                bins: &self.bins,
                weights,
                min,
                best,
                near_error,
                extremes: &extremes,
            };
            let mut found = Found::new(&self.bins);
            self.filter.tile(tile, &ask, &mut found);
            found.settle(&ask);
            let mut neighbours = Candidates::default();
            if let Some(best) = best {
                neighbours = best.take_new(&self.rows, tile.rows.clone());
                let columns = tile.columns.start.max(tile.rows.end)..tile.columns.end;
                neighbours.append(best.take_new(&self.rows, columns));
            }
            let counts = (0u32..).zip(&found.counts).filter(|(_, c)| **c != [0; 4]).map(|(b, c)| (b, *c));
            found.edges.sort_unstable_by_key(|e| (e.first, e.second));
            Partial {
                counts: counts.collect(),
                extents: found.extents,
                rechecked: found.rechecked,
                neighbours,
                edges: found.edges,
                place: None,
            }
        }
    }

    /// The score of some pair that counts in this way, if there is one.
    fn some_score(&self, way: usize) -> Option<f64> {
        let mut there = (0..self.rows.len()).filter(|i| self.weights[*i][way] > 0);
        let (first, last) = (there.next()?, there.next_back()?);
        Some(exact::score(self.rows.row(first), self.rows.row(last)))
    }

    /// Computes the tiles that are still missing. Collective.
    ///
    /// # Errors
    /// [`Error::Journal`], [`Error::Refused`]; [`Error::File`] for the matrix, whose shards go to
    /// `directory`.
    pub fn compute(&self, world: &World, job: &Job<'_>, directory: &Path) -> Result<Outcome, Error> {
        let mut kernel = self.kernel(world);
        let shards = |matrix| Shards::new(matrix, self.rows, &self.plan, directory, world.rank());
        let mut shards = self.matrix.as_ref().map(shards);
        super::compute(world, job, |attempt, tile| {
            let place = shards.as_mut().map(|shards| shards.write(attempt, tile)).transpose()?;
            Ok(wire::encode(&Partial { place, ..kernel(tile) }))
        })
    }

    /// Gives back the memory that only tiles need.
    pub fn rest(&mut self) {
        self.filter.rest();
    }

    /// Sums over all pairs of distinct rows, for each of the `ways` to count (positions in
    /// [`results::WAYS`]); nothing but on rank 0. Collective.
    pub fn pair_sums(&self, world: &World, ways: &[usize]) -> Vec<PairSums> {
        moments::pair_sums(world, &self.rows, ways.len(), |at, i| self.weights[i][ways[at]])
    }

    /// Merges all tiles from the journals, on rank 0. The neighbours are still to be made of their candidates.
    ///
    /// # Errors
    /// Those of [`super::merge`]; [`Error::Refused`] if the sums do not close.
    pub fn merge(&self, world: &World, job: &Job<'_>) -> Result<(Results, Gathered), Error> {
        let mut merge = Merge::begin(self);
        super::merge(world, job, |_, payload| {
            let partial = wire::decode(payload, self.plan.items(), self.bins.len())?;
            if partial.place.is_none() && self.matrix.is_some() {
                return None;
            }
            merge.add(partial);
            Some(())
        })?;
        merge.finish()
    }

    /// The best neighbours of each distinct row, from the candidates that [`Prepared::merge`] gave rank 0
    /// (`None` elsewhere); nothing but on rank 0. Collective.
    pub fn neighbours(&self, world: &World, candidates: Option<Gathered>) -> Nearest {
        if self.options.top_k == 0 {
            return Nearest::default();
        }
        let order = self.order.get().map_or(&[][..], Vec::as_slice);
        neighbours::of_all(world, &self.rows, order, candidates, self.options.top_k, self.filter.near_error())
    }
}

/// The part of the matrix that is wanted.
fn matrix_of(options: &Options, groups: &Groups) -> Result<Option<Matrix>, Error> {
    let Some(cell) = options.matrix else { return Ok(None) };
    let Some(given) = &options.matrix_rows else {
        return Ok(Some(Matrix { cell, rows: (0..groups.len() as u32).collect() }));
    };
    let mut rows = Vec::with_capacity(given.len());
    for row in given {
        let group = groups.group.get(*row as usize);
        rows.push(*group.ok_or_else(|| {
            Error::Refused(format!(
                "row {row} of the matrix is wanted, but there are {} vectors (from 0)",
                groups.group.len()
            ))
        })?);
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(Some(Matrix { cell, rows }))
}

/// Weights of the groups, padded with zero rows as [`Ask::weights`] needs them.
fn weights_of(groups: &Groups, rows: usize, multiplicity: &Multiplicity) -> Result<Vec<Count>, Error> {
    let mut weights = vec![[0u64; 4]; groups.len() + filter::pack::MOST_COLUMNS];
    let documents = groups.sums(|_| 1);
    let sums = |given: &Option<Vec<u64>>, name: &str| match given {
        None => Ok(documents.clone()),
        Some(given) if given.len() != rows => Err(Error::Refused(format!(
            "there are {} multiplicities of {name} for {rows} vectors",
            given.len()
        ))),
        Some(given) => {
            let total = given.iter().try_fold(0u64, |sum, w| sum.checked_add(*w));
            match total.filter(|total| *total < 1 << 32) {
                Some(_) => Ok(groups.sums(|i| given[i])),
                None => Err(Error::Refused(format!("the multiplicities of {name} sum to 2^32 or more"))),
            }
        }
    };
    let layers = sums(&multiplicity.layers, "layers")?;
    let images = sums(&multiplicity.images, "images")?;
    for (g, weight) in weights.iter_mut().enumerate().take(groups.len()) {
        *weight = [1, documents[g], layers[g], images[g]];
    }
    Ok(weights)
}
