//! Campaign files: what `stratigraph run` reads. configs/README.md lists the keys for users.

use crate::cli::choice::{Choice, TableKind};
use crate::cli::jaccard::{self, Matrix};
use crate::cli::{cosine, defaults, embed, hex};
use crate::corpus::{Error, is_published_table};
use crate::tokens::Scheme;
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
    /// A crawl, a corpus file or a published table; or Dockerfiles.
    pub source: PathBuf,
    /// The results directory.
    pub output: PathBuf,
    /// Statistics, if wanted.
    pub stats: Option<StatsTable>,
    /// Documents, if wanted.
    pub tokenize: Option<TokenizeTable>,
    /// Their vectors, if wanted.
    pub embed: Option<embed::Given>,
    /// Similarity of all vectors, if wanted.
    pub cosine: Option<CosineTable>,
    /// Similarity of all images by their layers, if wanted.
    pub jaccard: Option<JaccardTable>,
}

/// `[stats]`: no keys yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsTable {}

/// `[tokenize]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizeTable {
    /// What a document is: `cumulative`, `per-layer` (histories of the corpus) or `dockerfiles`.
    pub scheme: Scheme,
}

/// `[cosine]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CosineTable {
    /// As `cosine --top-k`.
    pub top_k: usize,
    /// As `cosine --min`; lists no pairs if it is missing.
    pub min: Option<f64>,
    /// As `cosine --edges`.
    pub edges: Vec<f64>,
    /// As `cosine --as-published`.
    pub as_published: bool,
    /// As `cosine --tile-rows`.
    pub tile_rows: Option<NonZeroU32>,
}

impl CosineTable {
    /// As on the command line, for these vectors and this directory.
    ///
    /// # Errors
    /// If a variable of the environment has no right value.
    pub fn arguments(&self, vectors: &Path, out: &Path) -> anyhow::Result<cosine::Args> {
        let mut args: cosine::Args = defaults([vectors.as_os_str(), "-o".as_ref(), out.as_os_str()])?;
        args.top_k = self.top_k;
        args.min = self.min;
        args.edges.clone_from(&self.edges);
        args.as_published = self.as_published;
        args.tile_rows = self.tile_rows;
        Ok(args)
    }
}

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

impl JaccardTable {
    /// As on the command line, for this corpus and this directory.
    ///
    /// # Errors
    /// If a variable of the environment has no right value.
    pub fn arguments(&self, corpus: &Path, out: &Path) -> anyhow::Result<jaccard::Args> {
        let mut args: jaccard::Args = defaults([corpus.as_os_str(), "-o".as_ref(), out.as_os_str()])?;
        args.choice = Choice { subset: self.subset.clone(), kind: self.table };
        args.top_k = self.top_k;
        args.min = (self.min != 0.0).then_some(self.min);
        args.edges.clone_from(&self.edges);
        args.matrix = self.matrix;
        args.ignore_empty_layers = self.ignore_empty_layers;
        args.tile_rows = self.tile_rows;
        Ok(args)
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

    /// True if the source holds Dockerfiles instead of images.
    pub fn is_of_dockerfiles(&self) -> bool {
        self.tokenize.is_some_and(|t| t.scheme == Scheme::Dockerfiles)
    }

    /// Checks that the tables fit each other and the source. `path` is that of the campaign.
    ///
    /// # Errors
    /// [`Error::Source`] says what does not fit.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        let mistake = if self.embed.is_some() && self.tokenize.is_none() {
            "[embed] needs the documents of [tokenize]"
        } else if self.cosine.is_some() && self.embed.is_none() {
            "[cosine] needs the vectors of [embed]"
        } else if self.is_of_dockerfiles() && (self.stats.is_some() || self.jaccard.is_some()) {
            "Dockerfiles have no layers to count: leave [stats] and [jaccard] out"
        } else if self.is_of_dockerfiles() && is_corpus(&self.source) {
            "[tokenize] is of Dockerfiles, the source is a corpus file: give a directory or an archive"
        } else if self.tokenize.is_some() && is_published_table(&self.source) {
            "[tokenize] needs histories, and a published table has none"
        } else {
            return self.values().map_err(|(table, error)| Error::Source {
                path: path.to_owned(),
                reason: format!("[{table}] {error:#}"),
            });
        };
        Err(Error::Source { path: path.to_owned(), reason: mistake.to_owned() })
    }

    /// Checks what a stage would refuse only after those before it have taken hours.
    fn values(&self) -> Result<(), (&'static str, anyhow::Error)> {
        let (input, out) = (Path::new("input"), Path::new("output"));
        if let Some(given) = &self.embed {
            given.options(1).map_err(|e| ("embed", e.into()))?;
        }
        if let Some(table) = &self.cosine {
            let options = table.arguments(input, out).and_then(|args| cosine::options(&args, usize::MAX));
            options.map_err(|e| ("cosine", e))?;
        }
        if let Some(table) = &self.jaccard {
            let options = table.arguments(input, out).and_then(|args| jaccard::check(&args));
            options.map_err(|e| ("jaccard", e))?;
        }
        Ok(())
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e: toml::de::Error| {
            let at = e.span().map_or(0, |span| span.start);
            let line = text[..at.min(text.len())].matches('\n').count() + 1;
            format!("line {line}: {}", e.message().replace('\n', " "))
        })
    }
}

/// True if the source needs no import.
pub fn is_corpus(source: &Path) -> bool {
    source.extension().is_some_and(|e| e == "h5") || is_published_table(source)
}

/// Sha256 over names, sizes and times of change of the source's files: whether it changed, without
/// reading it.
///
/// # Errors
/// [`Error::Source`] if there is nothing to read.
pub fn source_state(source: &Path) -> Result<String, Error> {
    let mut files = Vec::new();
    walk(source, &mut Vec::new(), &mut files)
        .map_err(|e| Error::Source { path: source.to_owned(), reason: e.to_string() })?;
    files.sort();
    Ok(hex(&Sha256::digest(files.join("\n"))))
}

/// Adds what lies below a path. `above` are the directories on the way there, device and inode: a link
/// back to one of them leads nowhere new.
fn walk(path: &Path, above: &mut Vec<(u64, u64)>, files: &mut Vec<String>) -> std::io::Result<()> {
    let about = std::fs::metadata(path)?;
    if !about.is_dir() {
        files.push(format!("{path:?} {} {}.{}", about.len(), about.mtime(), about.mtime_nsec()));
        return Ok(());
    }
    let this = (about.dev(), about.ino());
    if above.contains(&this) {
        return Ok(());
    }
    let entries = std::fs::read_dir(path)?;
    above.push(this);
    for entry in entries {
        let below = entry?.path();
        // What cannot be read is no reason to refuse a crawl; the import tells about it.
        if let Err(e) = walk(&below, above, files) {
            files.push(format!("{below:?} {}", e.kind()));
        }
    }
    above.pop();
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
    fn the_state_of_a_source_is_what_its_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("registry")).unwrap();
        std::fs::write(at("registry/tags.json"), "[]").unwrap();
        let state = || source_state(dir.path()).unwrap();
        let plain = state();
        assert_eq!(state(), plain);
        // Links to themselves, to nothing, and back to where they are found.
        for (link, to) in [("self", "self"), ("none", "nothing"), ("registry/up", "..")] {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        let linked = state();
        assert_ne!(linked, plain);
        assert_eq!(state(), linked);
        std::fs::write(at("registry/tags.json"), "[1]").unwrap();
        assert_ne!(state(), linked);
        assert!(source_state(&at("nothing")).is_err());
    }

    #[test]
    fn a_threshold_that_is_none_is_refused() {
        for (min, wanted) in [("0", Some(None)), ("0.25", Some(Some(0.25))), ("nan", None), ("-0.5", None)] {
            let text = format!("name = 'a'\nsource = 'b'\noutput = 'c'\n[jaccard]\nmin = {min}\n");
            let table = Campaign::parse(&text).unwrap().jaccard.unwrap();
            let args = table.arguments("b".as_ref(), "c".as_ref()).unwrap();
            let options = crate::pairs::jaccard::Options::new(args.top_k, args.min, None);
            assert_eq!(options.ok().map(|_| args.min), wanted, "{min}");
        }
    }

    #[test]
    fn tables_that_do_not_fit() {
        let check = |tables: &str, source: &str| {
            let text = format!("name = 'a'\nsource = '{source}'\noutput = 'c'\n{tables}");
            let campaign = Campaign::parse(&text).unwrap();
            campaign.check(Path::new("x.toml")).map_err(|e| e.to_string())
        };
        let all = "[stats]\n[tokenize]\n[embed]\ndims = 8\n[cosine]\nmin = 0.9\n[jaccard]\n";
        assert_eq!(check(all, "crawl"), Ok(()));
        assert_eq!(check("[tokenize]\nscheme = 'dockerfiles'\n[embed]\n", "files.tar"), Ok(()));
        for (tables, source, reason) in [
            ("[embed]\n", "b", "[embed] needs"),
            ("[tokenize]\n[cosine]\n", "b", "[cosine] needs"),
            ("[stats]\n[tokenize]\nscheme = 'dockerfiles'\n", "b", "leave [stats] and [jaccard] out"),
            ("[tokenize]\nscheme = 'dockerfiles'\n", "b.h5", "the source is a corpus file"),
            ("[tokenize]\n", "full_uri_subset.csv", "needs histories"),
        ] {
            let error = check(tables, source).unwrap_err();
            assert!(error.contains("x.toml") && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, reason) in [
            ("name = 'a'\nsource = 'b'\noutput = 'c'\n[jaccard]\ntopk = 3\n", "line 5: unknown field `topk`"),
            ("name = 'a'\nsource = 'b'\noutput = 'c'\n[embed]\ndim = 3\n", "line 5: unknown field `dim`"),
            (
                "name = 'a'\nsource = 'b'\noutput = 'c'\n[tokenize]\nscheme = 'x'\n",
                "line 5: unknown variant `x`",
            ),
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
