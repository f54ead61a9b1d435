//! What is studied: repositories, images, layers, configs and their histories.
//!
//! A [`Corpus`] is columnar: string tables, flat arrays, and CSR offsets (`offsets[i]..offsets[i+1]`
//! are the rows of item `i`). Ids are given in order of first occurrence in *corpus order*: files
//! by ascending path bytes, inside a file the order of the JSON objects. So the same source gives
//! the same corpus file, bit for bit, on any number of ranks and threads.
//!
//! The record types follow the crawl's `manifests-config-layers.json`
//! (`{"tags": [...], "manifests": {tag: manifest}, "configs": {tag: config}}`) and the names of
//! the OCI image specification.

mod builder;
mod date;
mod export;
mod import;
mod json;
mod lenient;
mod merge;
mod notice;
mod oddity;
mod parse;
mod published;
mod shard;
mod source;
mod store;
mod synth;
mod table;

pub use date::Date;
pub use export::Rows;
pub use import::{Imported, Progress, import};
pub use oddity::{Example, Oddities, Oddity};
pub use published::{PublishedTable, is_published_table};
pub(crate) use source::{ANOTHER_ARCHIVE, clean, is_followed_by_another};
pub use synth::{LABEL_FILE, Label, Population, Recipe};
pub use table::{Image, Table};

use crate::strings::{NONE, StringId, StringTable};
use std::ops::Range;

/// What can go wrong with a corpus as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be read at all.
    #[error("{}: {reason}", path.display())]
    Source {
        /// The source.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A corpus file that contradicts itself.
    #[error("{}: {reason}; import it again", path.display())]
    Unsound {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A synthetic corpus of these numbers is not possible.
    #[error("{0}")]
    Recipe(String),
    /// Reading or writing an HDF5 file failed.
    #[error(transparent)]
    File(#[from] crate::h5::Error),
}

/// Digests that are known to be layers without content.
///
/// The first is the gzip of an empty tar as BuildKit writes it, the second the older form; both
/// have the first of [`EMPTY_DIFF_IDS`].
pub const KNOWN_EMPTY_LAYERS: [&str; 2] = [
    "sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1",
    "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",
];

/// The diff_ids of layers without content: sha256 of 1,024 NUL bytes, an empty tar, and of 10,240, one as
/// GNU tar pads it.
pub const EMPTY_DIFF_IDS: [&str; 2] = [
    "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "sha256:84ff92691f909a05b224e1c56abb4864f01b4f8e3c854e4bb4c7baf1d3f6d652",
];

/// True if an identity by itself tells a layer without content: a known digest, or the diff_id of an empty tar.
pub fn is_known_empty(id: &str) -> bool {
    EMPTY_DIFF_IDS.contains(&id) || KNOWN_EMPTY_LAYERS.contains(&id)
}

/// What the study's `parse_manifests` does with a manifest; the tests run in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StudyFilter {
    /// Its layers become rows of the manifest table.
    Kept = 0,
    /// Skipped: there is no `mediaType` (even if there are layers).
    NoMediaType = 1,
    /// Skipped: a docker manifest list.
    ManifestList = 2,
    /// Skipped: there are no `layers` (OCI indexes fall here), or it is of schema version 1.
    NoLayers = 3,
    /// Skipped: there is no config of the same tag.
    NoConfig = 4,
}

impl StudyFilter {
    /// The value stored in a corpus file, read back.
    pub fn from_u8(value: u8) -> Option<Self> {
        [Self::Kept, Self::NoMediaType, Self::ManifestList, Self::NoLayers, Self::NoConfig]
            .into_iter()
            .find(|f| *f as u8 == value)
    }
}

/// One entry of a file's `manifests` object, whatever its kind: an image is one with layers.
///
/// All vectors have one element per manifest, in corpus order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifests {
    /// Index into [`Corpus::repositories`].
    pub repository: Vec<u32>,
    /// Id in [`Corpus::tags`].
    pub tag: Vec<StringId>,
    /// Id in [`Corpus::media_types`], or [`NONE`] where the manifest names none.
    pub media_type: Vec<StringId>,
    /// Schema version as given; 0 where it is missing or no small number.
    pub schema_version: Vec<u8>,
    /// [`StudyFilter`] as `u8`.
    pub study: Vec<u8>,
    /// 1 where a `layers` list was given (also an empty one).
    pub has_layers: Vec<u8>,
    /// Index into [`Configs`] of the config with the same tag, or [`NONE`].
    pub config: Vec<u32>,
    /// CSR offsets into [`Layers`], one more than manifests.
    pub layers: Vec<u64>,
    /// CSR offsets into [`IndexEntries`], one more than manifests.
    pub entries: Vec<u64>,
}

/// The layers of all manifests, CSR by [`Manifests::layers`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// Id in [`Corpus::digests`].
    pub digest: Vec<u32>,
    /// Compressed size in bytes; 0 where [`Layers::SIZE_INVALID`] is set.
    pub size: Vec<u64>,
    /// Id in [`Corpus::media_types`], or [`NONE`].
    pub media_type: Vec<StringId>,
    /// Bit set of [`Layers::FOREIGN`], [`Layers::SIZE_INVALID`].
    pub flags: Vec<u8>,
}

impl Layers {
    /// The layer has `urls`, or a media type that says it is distributed elsewhere.
    pub const FOREIGN: u8 = 1;
    /// The size was missing, negative, fractional or beyond 2^63 - 1.
    pub const SIZE_INVALID: u8 = 2;
}

/// The platforms that indexes and manifest lists point at, CSR by [`Manifests::entries`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IndexEntries {
    /// Id in [`Corpus::manifest_digests`].
    pub digest: Vec<StringId>,
    /// Id in [`Corpus::media_types`], or [`NONE`].
    pub media_type: Vec<StringId>,
    /// Size of the manifest in bytes.
    pub size: Vec<u64>,
    /// Id in [`Corpus::platforms`] of `os/architecture[/variant][:os.version]`, or [`NONE`].
    pub platform: Vec<StringId>,
}

/// One entry of a file's `configs` object, in corpus order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configs {
    /// Index into [`Corpus::repositories`].
    pub repository: Vec<u32>,
    /// Id in [`Corpus::tags`].
    pub tag: Vec<StringId>,
    /// Id in [`Corpus::dates`] of `created` as given, or [`NONE`].
    pub created: Vec<StringId>,
    /// Id in [`Corpus::platforms`] of `os/architecture[/variant][:os.version]`, or [`NONE`].
    pub platform: Vec<StringId>,
    /// Bit set of [`Configs::HAS_HISTORY`], [`Configs::HAS_ROOTFS`], [`Configs::NO_MANIFEST`].
    pub flags: Vec<u8>,
    /// CSR offsets into [`History`], one more than configs.
    pub history: Vec<u64>,
    /// CSR offsets into [`Corpus::config_diff_ids`], one more than configs.
    pub diff_ids: Vec<u64>,
}

impl Configs {
    /// The config has a `history` list (also an empty one).
    pub const HAS_HISTORY: u8 = 1;
    /// The config has `rootfs` (or `rootfS`) with `diff_ids`.
    pub const HAS_ROOTFS: u8 = 2;
    /// There is no manifest of the same tag.
    pub const NO_MANIFEST: u8 = 4;
}

/// The history entries of all configs, CSR by [`Configs::history`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Id in [`Corpus::commands`] of `created_by`, or [`NONE`] where there is none.
    pub created_by: Vec<StringId>,
    /// Id in [`Corpus::comments`] of `comment`, or [`NONE`].
    pub comment: Vec<StringId>,
    /// `created` in seconds since 1970 UTC, [`History::NO_TIME`] if missing or unreadable.
    pub created: Vec<i64>,
    /// 1 where `empty_layer` is true: the step made no layer.
    pub empty_layer: Vec<u8>,
}

impl History {
    /// Stands for a missing or unreadable time.
    pub const NO_TIME: i64 = i64::MIN;
}

/// Where a corpus came from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provenance {
    /// File or directory name of the source (its last component), or how it was generated.
    pub source: String,
    /// Sha256 of the source: of the archive's bytes, or for a directory of the lines
    /// `BLAKE3  PATH LF` of its corpus files, by path bytes.
    pub source_sha256: String,
    /// Number of corpus files (`manifests-config-layers.json`) read.
    pub files: u64,
    /// Their size in bytes, unpacked.
    pub bytes: u64,
    /// False if something could not be read: a broken file, a cut archive.
    pub complete: bool,
    /// Seed of the generator for a synthetic corpus; `None` for a real one.
    pub synthetic_seed: Option<u64>,
}

/// A whole corpus in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Corpus {
    /// Repository names (`uri` in the study): the directory of each corpus file, in corpus order.
    pub repositories: StringTable,
    /// Distinct tags.
    pub tags: StringTable,
    /// Distinct layer digests, `algorithm:hex`.
    pub digests: StringTable,
    /// One per layer digest: 1 where the layer is empty (see [`EMPTY_DIFF_IDS`]).
    pub digest_empty: Vec<u8>,
    /// Distinct digests of the manifests that indexes point at.
    pub manifest_digests: StringTable,
    /// Distinct media types of manifests and layers.
    pub media_types: StringTable,
    /// Distinct `os/architecture[/variant][:os.version]`.
    pub platforms: StringTable,
    /// Distinct config dates as given.
    pub dates: StringTable,
    /// Distinct `created_by` of history entries.
    pub commands: StringTable,
    /// Distinct `comment` of history entries.
    pub comments: StringTable,
    /// Distinct diff_ids.
    pub diff_ids: StringTable,
    /// All manifests.
    pub manifests: Manifests,
    /// All layers.
    pub layers: Layers,
    /// All index entries.
    pub entries: IndexEntries,
    /// All configs.
    pub configs: Configs,
    /// All history entries.
    pub history: History,
    /// Ids in [`Corpus::diff_ids`], CSR by [`Configs::diff_ids`].
    pub config_diff_ids: Vec<StringId>,
    /// What was odd in the source.
    pub oddities: Oddities,
    /// Where it came from.
    pub provenance: Provenance,
}

impl Corpus {
    /// Rows of manifest `m` in [`Corpus::layers`].
    pub fn layers_of(&self, m: usize) -> Range<usize> {
        range(&self.manifests.layers, m)
    }

    /// Rows of manifest `m` in [`Corpus::entries`].
    pub fn entries_of(&self, m: usize) -> Range<usize> {
        range(&self.manifests.entries, m)
    }

    /// Rows of config `c` in [`Corpus::history`].
    pub fn history_of(&self, c: usize) -> Range<usize> {
        range(&self.configs.history, c)
    }

    /// Rows of config `c` in [`Corpus::config_diff_ids`].
    pub fn diff_ids_of(&self, c: usize) -> Range<usize> {
        range(&self.configs.diff_ids, c)
    }

    /// Number of manifests.
    pub fn manifest_count(&self) -> usize {
        self.manifests.tag.len()
    }

    /// Number of configs.
    pub fn config_count(&self) -> usize {
        self.configs.tag.len()
    }

    /// `repository:tag` of manifest `m` (`full_uri` in the study).
    pub fn image_name(&self, m: usize) -> String {
        let repository = self.repositories.get(self.manifests.repository[m]);
        format!("{repository}:{}", self.tags.get(self.manifests.tag[m]))
    }

    /// The config of manifest `m`, if there is one with its tag.
    pub fn config_of(&self, m: usize) -> Option<usize> {
        Some(self.manifests.config[m]).filter(|c| *c != NONE).map(|c| c as usize)
    }

    /// Says that the corpus was generated, if it was.
    pub fn synthetic_label(&self) -> Option<String> {
        self.provenance.synthetic_seed.map(|seed| format!("generated with seed {seed}"))
    }

    /// The config's `created` as given for manifest `m`.
    pub fn created_of(&self, m: usize) -> Option<&str> {
        let id = self.configs.created[self.config_of(m)?];
        (id != NONE).then(|| self.dates.get(id))
    }

    /// What the study does with manifest `m`.
    pub fn study_filter(&self, m: usize) -> StudyFilter {
        StudyFilter::from_u8(self.manifests.study[m]).expect("checked when the corpus was read")
    }

    /// Manifests that the study's table holds, in corpus order ([`StudyFilter::Kept`], with at
    /// least one layer).
    pub fn study_images(&self) -> Vec<u32> {
        (0..self.manifest_count())
            .filter(|&m| self.study_filter(m) == StudyFilter::Kept && !self.layers_of(m).is_empty())
            .map(|m| m as u32)
            .collect()
    }

    /// All manifests with layers but those of schema version 1, also those that the study skips for a
    /// missing `mediaType`, `schemaVersion` or config, but without signature objects (cosign), whose "layers" are
    /// no file system: the corrected reading of "image".
    pub fn corrected_images(&self) -> Vec<u32> {
        (0..self.manifest_count())
            .filter(|&m| {
                let layers = self.layers_of(m);
                !layers.is_empty() && self.manifests.schema_version[m] != 1 && !self.is_signature(m)
            })
            .map(|m| m as u32)
            .collect()
    }

    /// True if all layers of manifest `m` are signature or attestation blobs.
    pub fn is_signature(&self, m: usize) -> bool {
        let mut layers = self.layers_of(m).peekable();
        layers.peek().is_some()
            && layers
                .all(|l| notice::is_signature_type(self.media_types.get_or(self.layers.media_type[l], "")))
    }

    /// The history entry that made layer number `k` (from 0) of manifest `m`: the k-th entry that
    /// is not marked `empty_layer`, provided that their number equals that of the layers.
    pub fn history_of_layer(&self, m: usize, k: usize) -> Option<usize> {
        let config = self.config_of(m)?;
        let mut steps = self.history_of(config).filter(|h| self.history.empty_layer[*h] == 0);
        let count = steps.clone().count();
        if count == self.layers_of(m).len() { steps.nth(k) } else { None }
    }
}

fn range(offsets: &[u64], i: usize) -> Range<usize> {
    offsets[i] as usize..offsets[i + 1] as usize
}

/// Name of the files that make up a corpus.
pub const CORPUS_FILE: &str = "manifests-config-layers.json";

/// The repository part of a corpus file's path.
fn repository_of(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(CORPUS_FILE.as_bytes()).unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}
