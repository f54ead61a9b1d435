//! The summary of a run: `cosine.json`.

use super::Prepared;
use super::files::{self, Origin};
use super::moments::PairSums;
use super::results::{Measures, Results};
use crate::h5::Reader;
use crate::pairs::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `cosine.json`: the same bytes for any number of ranks, threads and restarts, on any CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`Summary::KIND`].
    pub kind: String,
    /// Version of the program.
    pub program_version: String,
    /// [`super::Source::id`].
    pub vectors_id: String,
    /// [`super::Source::documents_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents_id: Option<String>,
    /// Says that the corpus was generated, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<String>,
    /// Identity of vectors and options, hex.
    pub fingerprint: String,
    /// Options that change the results.
    pub options: serde_json::Value,
    /// Number of input rows N.
    pub vectors: u64,
    /// Number of distinct rows n.
    pub distinct_vectors: u64,
    /// Values in a row.
    pub dims: u64,
    /// Input rows that are zero: their score with every other is 0.
    pub zero_vectors: u64,
    /// Statistics, one for each way to count.
    pub measures: Vec<Measures>,
    /// Pairs of distinct rows over the threshold.
    pub pairs_listed: u64,
    /// Neighbours kept for each distinct row.
    pub neighbours_per_vector: u64,
}

impl Summary {
    /// What the file says it is.
    pub const KIND: &str = "stratigraph cosine summary";

    /// Puts the summary of finished results together; `ways` and `sums` as in
    /// [`Results::measures`].
    ///
    /// # Errors
    /// As [`Results::measures`].
    pub fn of(
        prepared: &Prepared<'_>,
        results: &Results,
        ways: &[usize],
        sums: &[PairSums],
        zeros: u64,
        options: serde_json::Value,
        origin: &Origin,
    ) -> Result<Self, Error> {
        Ok(Self {
            kind: Self::KIND.into(),
            program_version: env!("CARGO_PKG_VERSION").into(),
            vectors_id: origin.vectors_id.clone(),
            documents_id: origin.documents_id.clone(),
            synthetic: origin.synthetic.clone(),
            fingerprint: origin.fingerprint.clone(),
            options,
            vectors: prepared.groups.group.len() as u64,
            distinct_vectors: prepared.rows.len() as u64,
            dims: prepared.rows.dims() as u64,
            zero_vectors: zeros,
            measures: results.measures(prepared, ways, sums)?,
            pairs_listed: results.edges.len() as u64,
            neighbours_per_vector: prepared.options.top_k as u64,
        })
    }

    /// Checks the results file that belongs to this summary: the same run, and counts that close.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is of another run or its counts do not sum to all pairs,
    /// [`Error::File`] if it cannot be read.
    pub fn check(&self, results: &Path) -> Result<(), Error> {
        let file = Reader::open(results, files::KIND, files::FORMAT_VERSION)?;
        let refuse = |reason: String| Error::Refused(format!("{}: {reason}", results.display()));
        if file.attribute("fingerprint")? != self.fingerprint {
            return Err(refuse("belongs to another run than cosine.json beside it".into()));
        }
        let counts: Vec<u64> = file.array("bins/counts")?;
        for measures in &self.measures {
            let way = super::results::WAYS.iter().position(|w| *w == measures.of);
            let way = way.ok_or_else(|| refuse(format!("{}: no way to count", measures.of)))?;
            let sum = counts.chunks_exact(4).try_fold(measures.equal, |sum, c| sum.checked_add(c[way]));
            let totals = measures.histograms.iter().all(|h| h.total() == measures.pairs);
            let items = u128::from(measures.items);
            if sum != Some(measures.pairs)
                || !totals
                || items * items.saturating_sub(1) / 2 != u128::from(measures.pairs)
            {
                return Err(refuse(format!("the counts of {} do not sum to all pairs", measures.of)));
            }
        }
        Ok(())
    }
}
