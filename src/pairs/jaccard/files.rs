//! The files of a run: `jaccard.h5`, `matrix.h5`.

use super::index::Index;
use super::kernel::{Neighbour, score_row};
use super::results::Results;
use super::sets::Collapsed;
use crate::h5::{self, MappedMatrix, Writer};
use crate::pairs::Error;
use crate::strings::StringTable;
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Kind of the results file.
pub const KIND: &str = "jaccard";
/// Kind of the dense matrix file.
pub const MATRIX_KIND: &str = "jaccard-matrix";
/// The matrix is written in blocks of about this many bytes, with a look at the signals and a beat
/// between.
const MATRIX_BLOCK: usize = 64 << 20;
/// Layout version of both.
pub const FORMAT_VERSION: u64 = 1;

/// What the file says about its origin.
#[derive(Debug, Clone)]
pub struct Origin {
    /// [`crate::corpus::Corpus::id`], or the sha256 of the table the sets were read from.
    pub corpus_id: String,
    /// Fingerprint of corpus and options, hex.
    pub fingerprint: String,
    /// Options as JSON.
    pub options: String,
    /// Set where the corpus is synthetic: its label.
    pub synthetic: Option<String>,
}

/// Writes `jaccard.h5`.
///
/// | dataset | shape | type | what |
/// |---|---|---|---|
/// | `images/name/{bytes,offsets}` | N | text | `repository:tag` |
/// | `images/group` | N | u32 | distinct set of each image |
/// | `groups/representative` | n | u32 | first image with the set |
/// | `groups/multiplicity` | n | u64 | images with the set |
/// | `groups/layers`, `groups/full_layers` | n | u32 | items in the set; not empty ones |
/// | `tally/{shared,union}` | cells | u32 | pairs by items shared and items in the union ... |
/// | `tally/{distinct,images}` | cells | u64 | ... counted over distinct sets and over images |
/// | `tally_without_empty/...` | | | the same with empty layers taken out of the sets |
/// | `neighbours/index` | n x k | u32 | best first; 2^32 - 1 where there are fewer |
/// | `neighbours/score` | n x k | f64 | shared / union; 0 where there are fewer |
/// | `pairs/{first,second,shared}` | pairs | u32 | pairs over the threshold, 12 bytes each; the score is `shared / (layers[first] + layers[second] - shared)` |
///
/// # Errors
/// [`h5::Error::Write`].
pub fn write_results(
    path: &Path,
    names: &StringTable,
    collapsed: &Collapsed,
    index: &Index,
    results: &Results,
    top_k: usize,
    origin: &Origin,
) -> h5::Result<()> {
    let file = Writer::create(path, KIND, FORMAT_VERSION)?;
    describe(&file, origin)?;
    file.strings("images/name", names)?;
    file.array("images/group", &collapsed.group)?;
    file.array("groups/representative", &collapsed.representative)?;
    file.array("groups/multiplicity", &collapsed.multiplicity)?;
    file.array("groups/layers", &index.class_by_set.iter().map(|c| c.size).collect::<Vec<_>>())?;
    file.array("groups/full_layers", &index.class_by_set.iter().map(|c| c.full_size).collect::<Vec<_>>())?;
    for (group, tally) in [("tally", &results.tally.all), ("tally_without_empty", &results.tally.full)] {
        let cells = tally.cells();
        file.array(&format!("{group}/shared"), &cells.iter().map(|c| c.shared).collect::<Vec<_>>())?;
        file.array(&format!("{group}/union"), &cells.iter().map(|c| c.union).collect::<Vec<_>>())?;
        file.array(
            &format!("{group}/distinct"),
            &cells.iter().map(|c| c.count.distinct).collect::<Vec<_>>(),
        )?;
        file.array(&format!("{group}/images"), &cells.iter().map(|c| c.count.images).collect::<Vec<_>>())?;
    }
    if top_k > 0 {
        let indices: Vec<u32> = results.neighbours.iter().map(|n| n.index).collect();
        let scores: Vec<f64> = results.neighbours.iter().map(Neighbour::score).collect();
        file.matrix("neighbours/index", top_k, &indices)?;
        file.matrix("neighbours/score", top_k, &scores)?;
    }
    file.array("pairs/first", &results.edges.iter().map(|e| e.first).collect::<Vec<_>>())?;
    file.array("pairs/second", &results.edges.iter().map(|e| e.second).collect::<Vec<_>>())?;
    file.array("pairs/shared", &results.edges.iter().map(|e| e.shared).collect::<Vec<_>>())?;
    file.finish()
}

fn describe(file: &Writer, origin: &Origin) -> h5::Result<()> {
    file.attribute("corpus_id", &origin.corpus_id)?;
    file.attribute("fingerprint", &origin.fingerprint)?;
    file.attribute("options", &origin.options)?;
    origin.synthetic.as_ref().map_or(Ok(()), |label| file.attribute("synthetic", label))
}

/// Writes the dense N x N matrix of scores of all images (f64, dataset `score`, row-major) through
/// a memory map. The diagonal is 1.
///
/// The cost is the N^2 x 8 bytes that are written; the scores themselves come from the index. `beat`
/// is called after each block.
///
/// # Errors
/// [`h5::Error::Write`], at once if the disk has no room; [`Error::Stopped`] after a signal.
pub fn write_matrix(
    path: &Path,
    names: &StringTable,
    collapsed: &Collapsed,
    index: &Index,
    origin: &Origin,
    stop: &AtomicBool,
    beat: &dyn Fn(),
) -> Result<(), Error> {
    let n = collapsed.group.len();
    let file = Writer::create(path, MATRIX_KIND, FORMAT_VERSION)?;
    describe(&file, origin)?;
    file.strings("images/name", names)?;
    let mut matrix = MappedMatrix::<f64>::create(file, "score", n, n)?;
    let block = (MATRIX_BLOCK / 8 / n.max(1)).max(1);
    for first in (0..n).step_by(block) {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let rows = first..(first + block).min(n);
        let scores = &mut matrix.as_mut_slice()[rows.start * n..rows.end * n];
        scores.par_chunks_mut(n).zip(rows.clone()).for_each_init(
            || (vec![0u32; index.len()], vec![0.0; index.len()]),
            |(counts, scores), (row, i)| {
                score_row(index, collapsed.group[i], counts, scores);
                for (score, group) in row.iter_mut().zip(&collapsed.group) {
                    *score = scores[*group as usize];
                }
                row[i] = 1.0;
            },
        );
        matrix.flush(rows)?;
        beat();
    }
    Ok(matrix.finish()?)
}
