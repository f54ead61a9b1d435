//! Sizes, years, percentiles, digest sharing.

/// What can go wrong with statistics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input table cannot be used.
    #[error("{place}: {reason}")]
    Table {
        /// File and line.
        place: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}
