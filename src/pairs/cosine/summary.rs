//! The summary of a run: `cosine.json`.

use super::Prepared;
use super::bins::Bins;
use super::files::{self, Origin};
use super::moments::PairSums;
use super::results::{Measures, Results};
use crate::h5::Reader;
use crate::pairs::{Error, Histogram};
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

    /// Checks the results file that belongs to this summary: the same run, counts that close, and histograms
    /// that follow from them.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is of another run, its counts do not sum to all pairs, or tell something else,
    /// [`Error::File`] if it cannot be read.
    pub fn check(&self, results: &Path) -> Result<(), Error> {
        let file = Reader::open(results, files::KIND, files::FORMAT_VERSION)?;
        let refuse = |reason: String| Error::Refused(format!("{}: {reason}", results.display()));
        if file.attribute("fingerprint")? != self.fingerprint {
            return Err(refuse("belongs to another run than cosine.json beside it".into()));
        }
        let counts: Vec<u64> = file.array("bins/counts")?;
        let bins = Bins::known(file.array("bins/thresholds")?);
        if counts.len() != 4 * bins.len() {
            return Err(refuse(format!("bins/counts is not of {} bins", bins.len())));
        }
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
            let counts: Vec<u64> = counts.chunks_exact(4).map(|c| c[way]).collect();
            for told in &measures.histograms {
                if !self.follows(told, &bins, &counts, measures.equal)? {
                    let what = format!("has another histogram of {} than cosine.json beside it", measures.of);
                    return Err(refuse(format!("{what}; which of the two was changed? Run cosine again")));
                }
            }
        }
        Ok(())
    }

    /// True if a histogram is that of these counts and of `equal` pairs of equal vectors, which have
    /// similarity 1, or 0 if they are zeros.
    fn follows(&self, told: &Histogram, bins: &Bins, counts: &[u64], equal: u64) -> Result<bool, Error> {
        let with = |zeros: u64| {
            let mut whole = counts.to_vec();
            whole[bins.bin(1.0)] += equal - zeros;
            whole[bins.bin(0.0)] += zeros;
            bins.histogram(&told.edges, &whole)
        };
        // How many of them are zeros is not known, but for what the histogram itself tells of its bin.
        let zeros = match self.zero_vectors {
            0 => 0,
            _ => {
                let mut at = Histogram::new(told.edges.clone())?;
                at.add(0.0, 1);
                let in_bin = |h: &Histogram| match at.counts.iter().position(|n| *n > 0) {
                    Some(bin) => h.counts[bin],
                    None => at.underflow * h.underflow + at.overflow * h.overflow,
                };
                in_bin(told).saturating_sub(in_bin(&with(0)?)).min(equal)
            }
        };
        Ok(with(zeros)? == *told)
    }
}
