//! Documents: the texts of histories and Dockerfiles as token sequences.
//!
//! Every history entry of an image names the command that made a layer. The study reads these
//! commands as text: the *layer document* of an entry is what the history says up to it, the
//! *image document* what it says as a whole. Layer documents are prefixes of image documents and
//! most occur many times, so [`Documents`] keeps each distinct one once, as what it adds to the
//! one before it, and counts.

mod dockerfiles;
mod facts;
mod histories;
mod rules;
mod shard;
mod shares;
mod store;
mod summary;
mod text;
mod trie;
mod watch;

pub use dockerfiles::Dockerfiles;
pub use facts::{Facts, Scanner};
pub use histories::{Commands, load as load_histories};
pub use rules::Rules;
pub use shares::{
    Apt, Bases, Coverage, DockerfileShares, FromGroup, HistoryShares, Odd, Practices, PublishedApt, Spread,
    StudyApt,
};
pub use summary::{Summary, Told};
pub use text::{Corpora, Texts};
pub use trie::Builder;
pub use watch::Watch;

use crate::strings::{NONE, StringTable};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What can go wrong with documents as a whole.
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
    /// A documents file that contradicts itself.
    #[error("{}: {reason}; tokenize again", path.display())]
    Unsound {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The corpus cannot be read.
    #[error(transparent)]
    Corpus(#[from] crate::corpus::Error),
    /// A text file cannot be written.
    #[error("{}: cannot be written ({error}); is the disk full or the directory read-only?", path.display())]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// A signal asked the run to end; nothing is written.
    #[error("stopped by a signal; start the same command again")]
    Stopped,
    /// Reading or writing an HDF5 file failed.
    #[error(transparent)]
    File(#[from] crate::h5::Error),
}

/// What makes a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Histories as the study reads them: the token list is never reset inside a config, so a
    /// layer document is the image's history up to that layer, and the last one is the image
    /// document.
    #[default]
    Cumulative,
    /// Histories with the token list reset at each entry: a layer document is what made that
    /// layer (the corrected reading). There are no image documents.
    PerLayer,
    /// One image document for each Dockerfile; no layer documents.
    Dockerfiles,
}

impl Scheme {
    const NAMES: [(Self, &'static str); 3] =
        [(Self::Cumulative, "cumulative"), (Self::PerLayer, "per-layer"), (Self::Dockerfiles, "dockerfiles")];

    /// `cumulative`, `per-layer` or `dockerfiles`.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(scheme, _)| *scheme == self).map_or("", |(_, name)| name)
    }

    /// The scheme of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(scheme, _)| *scheme)
    }
}

/// Which occurrences of a document count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// As a layer document.
    Layers,
    /// As an image document (a history, a Dockerfile).
    Images,
}

/// Where documents came from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origin {
    /// Name of the corpus or source (its last path component).
    pub source: String,
    /// [`crate::corpus::Corpus::id`], or for Dockerfiles the sha256 of the archive's bytes or of
    /// the sorted `path NUL size NUL sha256 LF` lines of a directory.
    pub source_id: String,
    /// Says that the corpus was generated, if it was.
    pub synthetic: Option<String>,
}

/// All distinct documents of a corpus, how often each occurs, and where.
///
/// Documents are numbered by first occurrence: first the layer documents in corpus order, then
/// the image documents that are no layer document (with histories that is at most the empty one;
/// with Dockerfiles, all). So document 0 is line 1 of the study's file of distinct layer documents.
///
/// They form a forest of prefixes. The *parent* of a document is the one that stood before it
/// where it first occurred, so parents have smaller numbers than children; a document is its
/// parent's tokens followed by its own. Every node is a document: there are no inner nodes that
/// merely branch, and two documents that share a prefix which is itself no document have no common
/// ancestor. The same token sequence is one document, however its prefixes were cut. The empty
/// document has no parent and is nobody's parent.
///
/// A *source* is one config with a `history`, or one Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Documents {
    scheme: Scheme,
    origin: Origin,
    vocabulary: StringTable,
    parent: Vec<u32>,
    offsets: Vec<u64>,
    tokens: Vec<u32>,
    /// Number of tokens of each whole document; follows from the above.
    lengths: Vec<u64>,
    layers: Vec<u64>,
    images: Vec<u64>,
    first_source: Vec<u32>,
    first_entry: Vec<u32>,
    sources: StringTable,
    source_layers: Vec<u64>,
    layer_documents: Vec<u32>,
    source_image: Vec<u32>,
}

impl Documents {
    /// Number of distinct documents.
    pub fn len(&self) -> usize {
        self.parent.len()
    }

    /// True if there are no documents.
    pub fn is_empty(&self) -> bool {
        self.parent.is_empty()
    }

    /// What makes a document.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Where they came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The distinct tokens; ids by first occurrence in corpus order.
    pub fn vocabulary(&self) -> &StringTable {
        &self.vocabulary
    }

    /// The document that is this one's prefix, if there is one. Smaller than `i`.
    pub fn parent(&self, i: usize) -> Option<usize> {
        Some(self.parent[i]).filter(|p| *p != NONE).map(|p| p as usize)
    }

    /// The token ids that document `i` appends to those of its parent.
    pub fn own_tokens(&self, i: usize) -> &[u32] {
        &self.tokens[range(&self.offsets, i)]
    }

    /// Number of tokens of the whole document `i`.
    pub fn length(&self, i: usize) -> usize {
        // At most the number of stored tokens, as the documents of a chain are distinct.
        self.lengths[i] as usize
    }

    /// Replaces `out` with all token ids of document `i`.
    pub fn tokens_of(&self, i: usize, out: &mut Vec<u32>) {
        out.clear();
        out.resize(self.length(i), 0);
        let mut end = out.len();
        let mut node = Some(i);
        while let Some(i) = node {
            let own = self.own_tokens(i);
            out[end - own.len()..end].copy_from_slice(own);
            end -= own.len();
            node = self.parent(i);
        }
    }

    /// How often each document occurs; 0 where it occurs in the other reading only.
    pub fn multiplicities(&self, reading: Reading) -> &[u64] {
        match reading {
            Reading::Layers => &self.layers,
            Reading::Images => &self.images,
        }
    }

    /// The documents of a reading with their multiplicity, in order of first occurrence as layer
    /// documents.
    pub fn of(&self, reading: Reading) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.multiplicities(reading).iter().copied().enumerate().filter(|(_, n)| *n > 0)
    }

    /// Number of occurrences in a reading.
    pub fn occurrences(&self, reading: Reading) -> u64 {
        match reading {
            Reading::Layers => self.layer_documents.len() as u64,
            Reading::Images => self.source_image.iter().filter(|d| **d != NONE).count() as u64,
        }
    }

    /// For each document, the sum of `weights` over it and all documents below it: what its own
    /// tokens weigh. With multiplicities as weights that is how often these tokens stand in the
    /// corpus. `weights` has one element for each document.
    pub fn through(&self, weights: &[u64]) -> Vec<u64> {
        let mut through = weights.to_vec();
        for i in (0..self.len()).rev() {
            if let Some(parent) = self.parent(i) {
                through[parent] += through[i];
            }
        }
        through
    }

    /// How often each token of the vocabulary stands in the documents of a reading, repetitions
    /// counted.
    pub fn token_counts(&self, reading: Reading) -> Vec<u64> {
        let mut counts = vec![0; self.vocabulary.len()];
        for (i, n) in self.through(self.multiplicities(reading)).into_iter().enumerate() {
            for token in self.own_tokens(i) {
                counts[*token as usize] += n;
            }
        }
        counts
    }

    /// Number of sources.
    pub fn source_count(&self) -> usize {
        self.source_image.len()
    }

    /// Names of the sources, in corpus order: `repository:tag`, or the path of a Dockerfile.
    pub fn sources(&self) -> &StringTable {
        &self.sources
    }

    /// The layer documents of a source, in order.
    pub fn layers_of(&self, source: usize) -> &[u32] {
        &self.layer_documents[range(&self.source_layers, source)]
    }

    /// The image document of a source; none in [`Scheme::PerLayer`].
    pub fn image_of(&self, source: usize) -> Option<usize> {
        Some(self.source_image[source]).filter(|d| *d != NONE).map(|d| d as usize)
    }

    /// Where document `i` first occurred: the source, and with layer documents the number (from 0)
    /// of the history entry in its config.
    pub fn first_occurrence(&self, i: usize) -> (usize, Option<u32>) {
        (self.first_source[i] as usize, Some(self.first_entry[i]).filter(|e| *e != NONE))
    }
}

fn range(offsets: &[u64], i: usize) -> Range<usize> {
    offsets[i] as usize..offsets[i + 1] as usize
}
