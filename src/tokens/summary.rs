//! The summary of documents: `tokens.json`.

use super::shares::{DockerfileShares, HistoryShares};
use super::{Documents, Reading, Scheme};
use serde::{Deserialize, Serialize};

/// `tokens.json`: how many documents there are, and what they tell about good practice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`Summary::KIND`].
    pub kind: String,
    /// Version of the program.
    pub program_version: String,
    /// [`super::Origin::source_id`].
    pub source_id: String,
    /// Says that the corpus was generated, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<String>,
    /// [`Documents::id`].
    pub documents_id: String,
    /// What makes a document.
    pub scheme: Scheme,
    /// Distinct tokens.
    pub vocabulary: u64,
    /// Configs with a history, or Dockerfiles.
    pub sources: u64,
    /// Distinct documents.
    pub distinct_documents: u64,
    /// Distinct layer documents.
    pub distinct_layer_documents: u64,
    /// Layer documents.
    pub layer_documents: u64,
    /// Distinct image documents.
    pub distinct_image_documents: u64,
    /// Image documents.
    pub image_documents: u64,
    /// What they tell.
    pub practices: Told,
}

/// What documents tell about good practice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Told {
    /// By histories.
    Histories(Box<HistoryShares>),
    /// By Dockerfiles.
    Dockerfiles(Box<DockerfileShares>),
}

impl Told {
    /// True if a part of the source could not be read.
    pub fn any_loss(&self) -> bool {
        match self {
            Self::Histories(_) => false,
            Self::Dockerfiles(shares) => shares.odd.any_loss(),
        }
    }
}

impl Summary {
    /// What the file says it is.
    pub const KIND: &str = "stratigraph documents summary";

    /// The summary of these documents.
    pub fn of(documents: &Documents, practices: Told) -> Self {
        let distinct = |reading| documents.of(reading).count() as u64;
        let origin = documents.origin();
        Self {
            kind: Self::KIND.into(),
            program_version: env!("CARGO_PKG_VERSION").into(),
            source_id: origin.source_id.clone(),
            synthetic: origin.synthetic.clone(),
            documents_id: documents.id(),
            scheme: documents.scheme(),
            vocabulary: documents.vocabulary().len() as u64,
            sources: documents.source_count() as u64,
            distinct_documents: documents.len() as u64,
            distinct_layer_documents: distinct(Reading::Layers),
            layer_documents: documents.occurrences(Reading::Layers),
            distinct_image_documents: distinct(Reading::Images),
            image_documents: documents.occurrences(Reading::Images),
            practices,
        }
    }
}
