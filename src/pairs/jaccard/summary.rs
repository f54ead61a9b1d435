//! The summary of a run: `jaccard.json`.

use super::files::{self, Origin};
use super::results::{Counts, Results, measures, pairs_of};
use super::{ImageSets, Prepared};
use crate::h5::Reader;
use crate::pairs::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `jaccard.json`: the same bytes for any number of ranks, threads and restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`Summary::KIND`].
    pub kind: String,
    /// Version of the program.
    pub program_version: String,
    /// [`crate::corpus::Corpus::id`], or the sha256 of a published table.
    pub corpus_id: String,
    /// Says that the corpus was generated, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<String>,
    /// Identity of corpus and options, hex.
    pub fingerprint: String,
    /// Options that change the results.
    pub options: serde_json::Value,
    /// Number of images N.
    pub images: u64,
    /// Number of distinct sets n.
    pub distinct_sets: u64,
    /// Layer digests in the sets.
    pub layer_digests: u64,
    /// Over the full square, summed as the study does; `null` beyond a few thousand images.
    pub as_published: Option<Published>,
    /// All counts.
    pub counts: Counts,
    /// Pairs of distinct sets over the threshold.
    pub pairs_listed: u64,
    /// Neighbours kept for each distinct set.
    pub neighbours_per_set: u64,
}

/// Mean and population deviation as the study prints them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// With the diagonal.
    pub mean: f64,
    /// With the diagonal.
    pub std: f64,
}

impl Summary {
    /// True if empty layers were taken out of the sets before all else.
    pub fn ignores_empty_layers(&self) -> bool {
        self.options["ignore_empty_layers"] == true
    }

    /// What the file says it is.
    pub const KIND: &str = "stratigraph jaccard summary";

    /// Puts the summary of finished results together.
    pub fn of(
        prepared: &Prepared,
        results: &Results,
        counts: Counts,
        published: Option<Published>,
        options: serde_json::Value,
        origin: &Origin,
    ) -> Self {
        Self {
            kind: Self::KIND.into(),
            program_version: env!("CARGO_PKG_VERSION").into(),
            corpus_id: origin.corpus_id.clone(),
            synthetic: origin.synthetic.clone(),
            fingerprint: origin.fingerprint.clone(),
            options,
            images: results.images,
            distinct_sets: results.distinct,
            layer_digests: used_items(&prepared.images),
            as_published: published,
            counts,
            pairs_listed: results.edges.len() as u64,
            neighbours_per_set: prepared.want.top_k as u64,
        }
    }

    /// Checks the results file that belongs to this summary: the same run, counts that close, and statistics
    /// that follow from them.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is of another run, its counts do not sum to all pairs, or tell something else,
    /// [`Error::File`] if it cannot be read.
    pub fn check(&self, results: &Path) -> Result<(), Error> {
        let file = Reader::open(results, files::KIND, files::FORMAT_VERSION)?;
        let refuse = |reason: String| Error::Refused(format!("{}: {reason}", results.display()));
        if file.attribute("fingerprint")? != self.fingerprint {
            return Err(refuse("belongs to another run than jaccard.json beside it".into()));
        }
        let Counts { images, images_without_empty_layers, distinct_sets, .. } = &self.counts;
        for (group, item, told, items) in [
            ("tally", "images", images, self.images),
            ("tally", "distinct", distinct_sets, self.distinct_sets),
            ("tally_without_empty", "images", images_without_empty_layers, self.images),
            (
                "tally_without_empty",
                "distinct",
                &self.counts.distinct_sets_without_empty_layers,
                self.distinct_sets,
            ),
        ] {
            let counts: Vec<u64> = file.array(&format!("{group}/{item}"))?;
            let (sum, pairs) = (counts.iter().try_fold(0u64, |sum, n| sum.checked_add(*n)), pairs_of(items));
            if sum != Some(pairs) {
                return Err(refuse(format!("{group}/{item} sums to {sum:?}, not to {pairs} pairs")));
            }
            let parts = ["shared", "union"].map(|part| file.array::<u32>(&format!("{group}/{part}")));
            let [shared, union] = parts;
            let cells = shared?.into_iter().zip(union?).zip(counts).map(|((s, u), pairs)| (s, u, pairs));
            if measures(&cells.collect::<Vec<_>>(), items, &told.histogram.edges)? != *told {
                let what =
                    format!("{group}/{item} has another histogram or mean than jaccard.json beside it");
                return Err(refuse(format!("{what}; which of the two was changed? Run jaccard again")));
            }
        }
        let listed = file.shape("pairs/first")?;
        if listed != [self.pairs_listed as usize] {
            return Err(refuse(format!("lists {listed:?} pairs, not {}", self.pairs_listed)));
        }
        Ok(())
    }
}

fn used_items(images: &ImageSets) -> u64 {
    let mut used = vec![false; images.item_bytes.len()];
    for item in images.sets.iter().flatten() {
        used[item as usize] = true;
    }
    used.iter().filter(|u| **u).count() as u64
}
