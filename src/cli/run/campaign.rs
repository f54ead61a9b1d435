//! Campaign files: what `stratigraph run` reads. configs/README.md lists the keys for users.

use crate::cli::choice::TableKind;
use crate::cli::jaccard::Matrix;
use crate::corpus::Error;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A campaign.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Campaign {
    /// What the run is called.
    pub name: String,
    /// A crawl, a corpus file or a published table.
    pub source: PathBuf,
    /// The results directory.
    pub output: PathBuf,
    /// Statistics, if wanted.
    pub stats: Option<StatsTable>,
    /// Similarity of all pairs, if wanted.
    pub jaccard: Option<JaccardTable>,
}

/// `[stats]`: no keys yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsTable {}

/// `[jaccard]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JaccardTable {
    /// As `jaccard --subset`.
    pub subset: String,
    /// As `jaccard --table`.
    pub table: TableKind,
    /// As `jaccard --top-k`.
    pub top_k: usize,
    /// As `jaccard --min`; 0 lists no pairs.
    pub min: f64,
    /// As `jaccard --edges`.
    pub edges: Vec<f64>,
    /// As `jaccard --matrix`, or true (`always`) or false (`never`).
    #[serde(deserialize_with = "matrix")]
    pub matrix: Matrix,
    /// As `jaccard --ignore-empty-layers`.
    pub ignore_empty_layers: bool,
    /// As `jaccard --tile-rows`.
    pub tile_rows: Option<NonZeroU32>,
}

impl Default for JaccardTable {
    fn default() -> Self {
        Self {
            subset: "all".into(),
            table: TableKind::Published,
            top_k: 10,
            min: 0.5,
            edges: Vec::new(),
            matrix: Matrix::Never,
            ignore_empty_layers: false,
            tile_rows: None,
        }
    }
}

fn matrix<'de, D: serde::Deserializer<'de>>(key: D) -> Result<Matrix, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "matrix is true, false or \"small\"")]
    enum Key {
        Whether(bool),
        When(Matrix),
    }
    Ok(match Key::deserialize(key)? {
        Key::Whether(true) => Matrix::Always,
        Key::Whether(false) => Matrix::Never,
        Key::When(when) => when,
    })
}

impl Campaign {
    /// Reads a campaign file.
    ///
    /// # Errors
    /// [`Error::Source`] with line and column if it is no campaign.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Source { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
        Self::parse(&text).map_err(refuse)
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e: toml::de::Error| {
            let at = e.span().map_or(0, |span| span.start);
            let line = text[..at.min(text.len())].matches('\n').count() + 1;
            format!("line {line}: {}", e.message().replace('\n', " "))
        })
    }
}

/// Sha256 over names, sizes and times of change of the source's files: whether it changed, without
/// reading it.
pub fn source_state(source: &Path) -> Result<String, Error> {
    let mut files = Vec::new();
    walk(source, &mut files).map_err(|e| Error::Source { path: source.to_owned(), reason: e.to_string() })?;
    files.sort();
    let sum = Sha256::digest(files.join("\n"));
    Ok(sum.iter().map(|b| format!("{b:02x}")).collect())
}

fn walk(path: &Path, files: &mut Vec<String>) -> std::io::Result<()> {
    let about = std::fs::metadata(path)?;
    if !about.is_dir() {
        files.push(format!("{path:?} {} {}.{}", about.len(), about.mtime(), about.mtime_nsec()));
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // A dangling link is no reason to refuse a crawl; the import tells about it.
        match walk(&entry.path(), files) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => (),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_omissions() {
        let campaign =
            Campaign::parse("name = 'a'\nsource = 'b'\noutput = 'c'\n[jaccard]\ntop_k = 3\n").unwrap();
        assert_eq!(campaign.stats, None);
        assert_eq!(campaign.jaccard, Some(JaccardTable { top_k: 3, ..JaccardTable::default() }));
    }

    #[test]
    fn the_matrix_may_be_asked_for_if_it_is_small() {
        for (value, wanted) in
            [("true", Matrix::Always), ("false", Matrix::Never), ("'small'", Matrix::Small)]
        {
            let text = format!("name = 'a'\nsource = 'b'\noutput = 'c'\n[jaccard]\nmatrix = {value}\n");
            assert_eq!(Campaign::parse(&text).unwrap().jaccard.unwrap().matrix, wanted);
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, reason) in [
            ("name = 'a'\nsource = 'b'\noutput = 'c'\n[jaccard]\ntopk = 3\n", "line 5: unknown field `topk`"),
            ("name = 'a'\nsource = 'b'\n", "missing field `output`"),
            (
                "name = 'a'\nsource = 'b'\noutput = 'c'\n[jaccard]\nmatrix = 'huge'\n",
                "line 5: matrix is true, false or \"small\"",
            ),
            ("name = 3\nsource = 'b'\noutput = 'c'\n", "line 1: invalid type"),
            ("name =\n", "line 1: "),
        ] {
            let error = Campaign::parse(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
