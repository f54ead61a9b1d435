//! The results file of a run: `cosine.h5`.

use super::Prepared;
use super::results::Results;
use crate::h5::{self, Writer};
use std::path::Path;

/// Kind of the results file.
pub const KIND: &str = "cosine";
/// Layout version.
pub const FORMAT_VERSION: u64 = 1;

/// What the file says about its origin.
#[derive(Debug, Clone)]
pub struct Origin {
    /// [`super::Source::id`].
    pub vectors_id: String,
    /// [`super::Source::documents_id`].
    pub documents_id: Option<String>,
    /// Fingerprint of vectors and options, hex.
    pub fingerprint: String,
    /// Options as JSON.
    pub options: String,
    /// Set where the corpus is synthetic: its label.
    pub synthetic: Option<String>,
}

/// Writes `cosine.h5`.
///
/// | dataset | shape | type | what |
/// |---|---|---|---|
/// | `vectors/group` | N | u32 | distinct vector of each input row |
/// | `groups/representative` | n | u32 | first input row with the vector |
/// | `groups/weights` | n x 4 | u64 | 1, input rows, layers, images |
/// | `bins/thresholds` | b | f64 | a score is in the bin of the number of thresholds at or below it |
/// | `bins/counts` | b + 1 x 4 | u64 | pairs of distinct vectors, weighted as above |
/// | `neighbours/index` | n x k | u32 | distinct vectors, best first; k is at most n - 1, and of one vector there are none |
/// | `neighbours/score` | n x k | f64 | their score |
/// | `pairs/{first,second}` | pairs | u32 | distinct vectors over the threshold, ascending ... |
/// | `pairs/score` | pairs | f32 | ... and their score, rounded: 12 bytes a pair |
///
/// # Errors
/// [`h5::Error::Write`].
pub fn write_results(
    path: &Path,
    prepared: &Prepared<'_>,
    results: &Results,
    origin: &Origin,
) -> h5::Result<()> {
    let file = Writer::create(path, KIND, FORMAT_VERSION)?;
    file.attribute("vectors_id", &origin.vectors_id)?;
    file.attribute("fingerprint", &origin.fingerprint)?;
    file.attribute("options", &origin.options)?;
    if let Some(label) = &origin.synthetic {
        file.attribute("synthetic", label)?;
    }
    file.array("vectors/group", &prepared.groups.group)?;
    file.array("groups/representative", &prepared.groups.representative)?;
    file.matrix("groups/weights", 4, prepared.weights[..prepared.rows.len()].as_flattened())?;
    file.array("bins/thresholds", prepared.bins.thresholds())?;
    file.matrix("bins/counts", 4, results.counts.as_flattened())?;
    let k = prepared.options.top_k;
    if k > 0 {
        file.matrix("neighbours/index", k, &results.neighbours.index)?;
        file.matrix("neighbours/score", k, &results.neighbours.score)?;
    }
    if prepared.options.min.is_some() {
        file.array("pairs/first", &results.edges.iter().map(|e| e.first).collect::<Vec<_>>())?;
        file.array("pairs/second", &results.edges.iter().map(|e| e.second).collect::<Vec<_>>())?;
        file.array("pairs/score", &results.edges.iter().map(|e| e.score).collect::<Vec<_>>())?;
    }
    file.finish()
}
