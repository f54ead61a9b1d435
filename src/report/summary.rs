//! The reducer: from the files of a run to one summary.

use super::{
    Columns, columns, columns_text, cosine_text, dockerfile_shares_text, history_shares_text, jaccard_text,
    stats_text, write_file, write_json,
};
use crate::h5::Reader;
use crate::pairs::Error;
use crate::pairs::cosine;
use crate::pairs::jaccard::{self, Summary};
use crate::stats::Stats;
use crate::tokens::{self, Scheme, Told};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// `summary.json`: the main figures of a run, and what they were made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// `stratigraph run summary`.
    pub kind: String,
    /// Version of the program.
    pub program_version: String,
    /// The corpus that all results are of.
    pub corpus_id: String,
    /// Says that the corpus was generated, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<String>,
    /// Sha256 of each file the summary was made from.
    pub inputs: BTreeMap<String, String>,
    /// Main figures of `stats.json`.
    pub stats: Option<StatsFigures>,
    /// Main figures of `jaccard.json`.
    pub jaccard: Option<JaccardFigures>,
    /// Main figures of `tokens.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<DocumentFigures>,
    /// Main figures of `cosine.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<CosineFigures>,
}

/// Main figures of the documents; the practices are in `tokens.json` and `summary.txt`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // as in `tokens::Summary`
pub struct DocumentFigures {
    pub documents_id: String,
    pub scheme: Scheme,
    pub vocabulary: u64,
    pub distinct_documents: u64,
    pub layer_documents: u64,
    pub distinct_layer_documents: u64,
    pub image_documents: u64,
    pub distinct_image_documents: u64,
}

/// Main figures of the comparison of all vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CosineFigures {
    /// The vectors' id.
    pub vectors_id: String,
    /// Distinct vectors.
    pub distinct_vectors: u64,
    /// The study's histograms beside ours.
    pub histograms: Vec<Columns>,
}

/// Main figures of the statistics, in the corrected reading where not said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // as in `Stats`
pub struct StatsFigures {
    pub repositories: u64,
    pub images: u64,
    pub images_as_published: u64,
    pub layers: u64,
    pub distinct_layers: u64,
    pub total_bytes: u128,
    pub distinct_bytes: u128,
    pub mean_image_bytes: Option<f64>,
    pub median_image_bytes: Option<f64>,
    /// The study's "mean by image": all tags of a repository in a year.
    pub mean_by_image_as_published: Option<f64>,
    pub mean_layers_per_image: Option<f64>,
    pub saved_within_repositories: u128,
    pub saved_across_repositories: u128,
}

/// Main figures of the comparison of all pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // as in `Summary`
pub struct JaccardFigures {
    pub images: u64,
    pub distinct_sets: u64,
    pub pairs: u64,
    pub overlapping: u64,
    pub overlapping_without_empty_layers: u64,
    pub mean: Option<f64>,
    pub std: Option<f64>,
    pub mean_without_empty_layers: Option<f64>,
    pub mean_as_published: Option<f64>,
    pub std_as_published: Option<f64>,
    pub pairs_listed: u64,
}

/// What the reducer found: for the files and for the terminal.
pub struct Reduced {
    /// `summary.json`.
    pub summary: RunSummary,
    /// `summary.txt`.
    pub text: String,
}

/// Reads and checks the results of a run and writes `summary.json` and `summary.txt`.
///
/// # Errors
/// [`Error::Refused`] if there is nothing to reduce, if files are of different corpora, or if
/// counts do not close; nothing is written then.
pub fn reduce(directory: &Path) -> anyhow::Result<Reduced> {
    let mut inputs = BTreeMap::new();
    let stats: Option<Stats> = read(directory, "stats.json", &mut inputs)?;
    let jaccard: Option<Summary> = read(directory, "jaccard.json", &mut inputs)?;
    let tokens: Option<tokens::Summary> = read(directory, "tokens.json", &mut inputs)?;
    let cosine: Option<cosine::Summary> = read(directory, "cosine.json", &mut inputs)?;
    let refuse = |reason: &str| Error::Refused(format!("{}: {reason}", directory.display()));
    if let Some(summary) = &jaccard {
        summary.check(&directory.join("jaccard.h5"))?;
    }
    if let Some(summary) = &cosine {
        summary.check(&directory.join("cosine.h5"))?;
    }
    let ids: Vec<_> = [
        stats.as_ref().map(|s| &s.corpus_id),
        jaccard.as_ref().map(|j| &j.corpus_id),
        tokens.as_ref().map(|t| &t.source_id),
    ]
    .into_iter()
    .flatten()
    .collect();
    // A user's own vectors have no corpus.
    let ids = if ids.is_empty() { cosine.iter().map(|c| &c.vectors_id).collect() } else { ids };
    let Some(corpus_id) = ids.first() else {
        let running =
            [jaccard::JOURNAL, cosine::JOURNAL].iter().any(|journal| directory.join(journal).exists());
        return Err(refuse(if running {
            "the run is not finished; start it again to go on, then reduce"
        } else {
            "holds no results (stats.json, jaccard.json, tokens.json, cosine.json)"
        })
        .into());
    };
    if ids.iter().any(|id| id != corpus_id) {
        return Err(refuse("stats.json, jaccard.json and tokens.json are of different corpora").into());
    }
    if let (Some(tokens), Some(cosine)) = (&tokens, &cosine) {
        let mut sound = cosine.documents_id.as_ref().is_none_or(|id| *id == tokens.documents_id);
        let vectors = directory.join("vectors.h5");
        if vectors.exists() {
            let file = Reader::open_any(&vectors)?;
            let ids = [file.attribute("documents_id")?, file.attribute("vectors_id")?];
            sound &= ids == [tokens.documents_id.as_str(), cosine.vectors_id.as_str()];
        }
        if !sound {
            return Err(refuse("tokens.json, vectors.h5 and cosine.json do not come of each other").into());
        }
    }
    let synthetic = stats
        .as_ref()
        .and_then(|s| s.synthetic.clone())
        .or_else(|| jaccard.as_ref().and_then(|j| j.synthetic.clone()))
        .or_else(|| tokens.as_ref().and_then(|t| t.synthetic.clone()))
        .or_else(|| cosine.as_ref().and_then(|c| c.synthetic.clone()));
    let scheme = tokens.as_ref().map_or(Scheme::Cumulative, |t| t.scheme);
    let cosine_figures = cosine.as_ref().map(|c| CosineFigures {
        vectors_id: c.vectors_id.clone(),
        distinct_vectors: c.distinct_vectors,
        histograms: columns(c, scheme),
    });
    let summary = RunSummary {
        kind: "stratigraph run summary".into(),
        program_version: env!("CARGO_PKG_VERSION").into(),
        corpus_id: (*corpus_id).clone(),
        synthetic,
        inputs,
        stats: stats.as_ref().map(figures_of_stats),
        jaccard: jaccard.as_ref().map(figures_of_jaccard),
        documents: tokens.as_ref().map(figures_of_documents),
        cosine: cosine_figures,
    };
    let told = tokens.as_ref().map(|t| match &t.practices {
        Told::Histories(shares) => history_shares_text(shares),
        Told::Dockerfiles(shares) => dockerfile_shares_text(shares),
    });
    let beside = summary.cosine.iter().flat_map(|c| &c.histograms).map(columns_text);
    let texts = [
        stats.as_ref().map(stats_text),
        jaccard.as_ref().map(jaccard_text),
        told,
        cosine.as_ref().map(cosine_text),
    ];
    let text = texts.into_iter().flatten().chain(beside).collect::<Vec<_>>().join("\n\n");
    write_file(&directory.join("summary.txt"), format!("{text}\n").as_bytes())?;
    write_json(&directory.join("summary.json"), &summary)?;
    Ok(Reduced { summary, text })
}

fn read<T: serde::de::DeserializeOwned>(
    directory: &Path,
    name: &str,
    inputs: &mut BTreeMap<String, String>,
) -> anyhow::Result<Option<T>> {
    let path = directory.join(name);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && directory.is_dir() => return Ok(None),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let value = serde_json::from_slice(&bytes).map_err(|e| {
        Error::Refused(format!("{}: is no result of this version ({e}); make it again", path.display()))
    })?;
    let sum = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    inputs.insert(name.to_owned(), sum);
    Ok(Some(value))
}

fn figures_of_stats(stats: &Stats) -> StatsFigures {
    let (published, corrected) = (&stats.as_published, &stats.corrected);
    StatsFigures {
        repositories: corrected.table.repositories,
        images: corrected.table.images,
        images_as_published: published.dated_table.images,
        layers: corrected.table.rows,
        distinct_layers: corrected.table.distinct_digests,
        total_bytes: corrected.table.total_bytes,
        distinct_bytes: corrected.table.distinct_bytes,
        mean_image_bytes: corrected.image_size.mean,
        median_image_bytes: corrected.image_size.median,
        mean_by_image_as_published: published.by_year.repository_year_sum.mean,
        mean_layers_per_image: corrected.layers_per_image.mean,
        saved_within_repositories: corrected.sharing.saved_within_repositories,
        saved_across_repositories: corrected.sharing.saved_across_repositories,
    }
}

fn figures_of_documents(tokens: &tokens::Summary) -> DocumentFigures {
    DocumentFigures {
        documents_id: tokens.documents_id.clone(),
        scheme: tokens.scheme,
        vocabulary: tokens.vocabulary,
        distinct_documents: tokens.distinct_documents,
        layer_documents: tokens.layer_documents,
        distinct_layer_documents: tokens.distinct_layer_documents,
        image_documents: tokens.image_documents,
        distinct_image_documents: tokens.distinct_image_documents,
    }
}

fn figures_of_jaccard(summary: &Summary) -> JaccardFigures {
    let (all, full) = (&summary.counts.images, &summary.counts.images_without_empty_layers);
    JaccardFigures {
        images: summary.images,
        distinct_sets: summary.distinct_sets,
        pairs: all.pairs,
        overlapping: all.overlapping,
        overlapping_without_empty_layers: full.overlapping,
        mean: all.mean,
        std: all.std,
        mean_without_empty_layers: full.mean,
        mean_as_published: summary.as_published.map(|p| p.mean),
        std_as_published: summary.as_published.map(|p| p.std),
        pairs_listed: summary.pairs_listed,
    }
}
