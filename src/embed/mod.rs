//! Documents to vectors: skip-gram word2vec (Mikolov et al. 2013) and doc2vec PV-DBOW (Le and
//! Mikolov 2014), and the file they are kept in.

pub mod checkpoint;
pub mod export;
pub mod kernel;
pub mod lanes;
pub mod marks;
pub mod mean;
mod merge;
mod options;
pub mod plan;
pub mod random;
pub mod similar;
pub mod skipgram;
pub mod train;
pub mod vectors;
mod vocabulary;

pub use options::{Corpus, DocumentVectors, Method, Options, Order, Output};
pub use vectors::Vectors;
pub use vocabulary::{Huffman, Negatives, Vocabulary, count_tokens};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option has a value that makes no sense.
    #[error("{name} {value}: the allowed values are {allowed}")]
    Option {
        /// Its name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: String,
    },
    /// The documents cannot be embedded with these options, or a file belongs to another run.
    #[error("{0}")]
    Refused(String),
    /// No word is frequent enough to be trained on.
    #[error(
        "{}: no word occurs {min_count} times or more in the documents to train on; give a smaller min-count \
         or train on others",
        documents.display()
    )]
    NoWords {
        /// The documents file.
        documents: std::path::PathBuf,
        /// Occurrences that a word needs.
        min_count: u64,
    },
    /// The model does not fit into the memory that a rank may use.
    #[error("{0}")]
    DoesNotFit(String),
    /// The documents file cannot be used.
    #[error(transparent)]
    Documents(#[from] crate::tokens::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] crate::h5::Error),
}
