//! The all-pairs engine: upper-triangle tiles, a schedule over ranks, a journal, a merge.
//!
//! A measure (so far [`jaccard`]) brings a kernel that turns a [`Tile`] into bytes; the engine
//! ([`compute`]) decides which rank does which tile, keeps every finished tile in a [`journal`],
//! and [`merge`] hands the payloads back in tile order. The plan depends on the items and the tile size
//! alone and the merge on integers and a fixed order: the same bits for any number of ranks, any
//! tile size and any number of restarts.

pub mod cosine;
mod engine;
mod histogram;
pub mod jaccard;
pub mod journal;
mod plan;

pub use engine::{Job, Outcome, compute, merge};
pub use histogram::Histogram;
pub use plan::{Plan, Shape, Tile};

/// What can go wrong in an all-pairs run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The work needs more memory or disk than it may use.
    #[error("{what} needs {needed} bytes, but only {available} may be used; {hint}")]
    DoesNotFit {
        /// What needs it.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes that may be used.
        available: u64,
        /// What to do.
        hint: String,
    },
    /// A journal cannot be read or written.
    #[error("{}: {reason}", path.display())]
    Journal {
        /// The journal file or its directory.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An input or option does not fit the run.
    #[error("{0}")]
    Refused(String),
    /// A signal asked the run to end; finished tiles are kept.
    #[error("stopped by a signal; start the same command again to go on")]
    Stopped,
    /// Reading or writing an HDF5 file failed.
    #[error(transparent)]
    File(#[from] crate::h5::Error),
}
