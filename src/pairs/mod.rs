//! The all-pairs engine.

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
    /// Reading or writing an HDF5 file failed.
    #[error(transparent)]
    File(#[from] crate::h5::Error),
}
