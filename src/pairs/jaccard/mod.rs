//! Exact all-pairs Jaccard similarity of layer-digest sets.
//!
//! score(A, B) = |A ∩ B| / |A ∪ B| (Jaccard 1912), as in the study's `layer_digest_similarity.py`,
//! but over every image and not only one per repository. Steps:
//!
//! 1. [`Collapsed`]: equal sets are compared once and weighed.
//! 2. [`index`]: an inverted index; very common items become a bit mask and [`index::Class`]es.
//! 3. [`kernel`]: per row, only pairs that overlap in something else than common items are visited.
//! 4. [`tally`]: counts by (shared, union), integers, so that any order gives the same bits.
//! 5. [`results`]: partial results are merged and checked to close; means and histograms follow.
//! 6. [`files`]: `jaccard.h5` and, for up to a few thousand images, the dense `matrix.h5`;
//!    [`summary`]: `jaccard.json`.

pub mod files;
pub mod index;
pub mod kernel;
mod needs;
pub mod results;
mod sets;
pub mod summary;
pub mod tally;
#[cfg(test)]
mod tests;
mod wire;

pub use needs::{Held, Limits, Needs};
pub use sets::{Collapsed, ImageSets};
pub use summary::Summary;

use super::journal::Fingerprint;
use super::{Error, Job, Outcome, Plan};
use crate::world::World;
use index::{CommonRule, Index};
use kernel::{Kernel, Want};
use results::{Merge, Results};
use sha2::{Digest, Sha256};

/// Directory of a run's journals, in that of its results.
pub const JOURNAL: &str = "journal";

/// What a run computes and keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Neighbours and pairs that are kept.
    pub want: Want,
    /// Rows per tile; by default about 128 tiles, whatever the number of ranks.
    pub tile_rows: Option<u32>,
}

impl Options {
    /// Checks what a user asked for.
    ///
    /// # Errors
    /// [`Error::Refused`] for a threshold outside (0, 1].
    pub fn new(top_k: usize, min: Option<f64>, tile_rows: Option<u32>) -> Result<Self, Error> {
        if let Some(min) = min.filter(|min| !(*min > 0.0 && *min <= 1.0)) {
            return Err(Error::Refused(format!(
                "--min {min}: a threshold is above 0 and at most 1 (every pair has a score of at least 0)"
            )));
        }
        Ok(Self { want: Want { top_k, min }, tile_rows })
    }
}

/// Sets ready to be compared. Every rank prepares the same.
pub struct Prepared {
    /// The sets of all images.
    pub images: ImageSets,
    /// The distinct ones.
    pub collapsed: Collapsed,
    /// Their index.
    pub index: Index,
    /// The tiles.
    pub plan: Plan,
    /// What is kept. `top_k` is at most n - 1.
    pub want: Want,
}

impl Prepared {
    /// Collapses, indexes and plans.
    pub fn new(images: ImageSets, options: &Options) -> Self {
        Self::with_rule(images, options, CommonRule::default())
    }

    /// The same with another rule for common items, which changes the cost but no result.
    pub fn with_rule(images: ImageSets, options: &Options, rule: CommonRule) -> Self {
        let collapsed = Collapsed::of(&images);
        let index = Index::build(&images, &collapsed, rule);
        let n = collapsed.len() as u32;
        let top_k = options.want.top_k.min(collapsed.len().saturating_sub(1));
        let want = Want { top_k, ..options.want };
        let rows = options.tile_rows.unwrap_or_else(|| n.div_ceil(128).clamp(32, 4096));
        let plan = Plan::new(n, rows, n, want.shape());
        Self { images, collapsed, index, plan, want }
    }

    /// Sha256 over a run's identity and the tile plan: journals of another run do not match.
    pub fn fingerprint(&self, identity: &str) -> Fingerprint {
        let text = format!(
            "stratigraph {} jaccard\n{identity}\ntop_k={} min={:?}\n{}\n",
            env!("CARGO_PKG_VERSION"),
            self.want.top_k,
            self.want.min,
            self.plan.describe()
        );
        Sha256::digest(text.as_bytes()).into()
    }

    /// Computes the tiles that are still missing. Collective.
    ///
    /// # Errors
    /// [`Error::Journal`], [`Error::Refused`].
    pub fn compute(&self, world: &World, job: &Job<'_>) -> Result<Outcome, Error> {
        let kernel = Kernel::new(&self.index, self.want);
        super::compute(world, job, |_, tile| Ok(wire::encode(&kernel.tile(tile))))
    }

    /// Merges all tiles from the journals, on rank 0.
    ///
    /// # Errors
    /// Those of [`super::merge`]; [`Error::Refused`] if the sums do not close.
    pub fn merge(&self, world: &World, job: &Job<'_>) -> Result<Results, Error> {
        let mut merge = self.begin_merge();
        let largest = self.index.largest.items as u32;
        super::merge(world, job, |tile, payload| merge.add(tile, &wire::decode(payload, largest)?))?;
        merge.finish()
    }

    fn begin_merge(&self) -> Merge {
        Merge::begin(&self.images, &self.collapsed, &self.index, self.want.top_k)
    }
}
