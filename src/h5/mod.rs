//! HDF5 files: the only module that knows HDF5.
//!
//! Every file the program writes is *versioned* and *labelled*: the root group carries
//! `stratigraph_format` (what the file is: `corpus`, `jaccard`, ...), `format_version` and
//! `program_version`. Datasets are contiguous and uncompressed, so that any of them can be
//! mapped into memory ([`MappedArray`]) and so that h5py, `h5dump` and every other HDF5 tool
//! reads them without plug-ins.
//!
//! Object time stamps are off and nothing depends on the clock: equal content gives equal bytes.
//! A file is written under a temporary name, synced and renamed ([`Writer::finish`]); a crash
//! leaves the old file or none.

mod access;
mod inspect;
mod mapped;
mod read;
mod shard;
mod write;

pub use inspect::{Entry, Listing, list};
pub use mapped::{MappedArray, MappedMatrix};
pub use read::{FloatMatrix, FloatValues, Reader};
pub use shard::{Patch, Piece, Shard};
pub use write::Writer;

use std::path::{Path, PathBuf};

/// Name of the root attribute that says what a file is.
pub const FORMAT_ATTRIBUTE: &str = "stratigraph_format";

/// What can go wrong with an HDF5 file. Each message names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or is no HDF5 file at all.
    #[error("{}: cannot be read as HDF5 ({reason}); is it complete, and written by stratigraph?", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system or the HDF5 library said.
        reason: String,
    },
    /// It is an HDF5 file, but not of the kind that was asked for.
    #[error("{}: is {found}, but a `{wanted}` file is needed here", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// The kind that was asked for.
        wanted: String,
        /// What it is instead.
        found: String,
    },
    /// The layout version is not one that this program reads.
    #[error("{}: format version {found}, this program reads version {wanted}; write it again with this program", path.display())]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u64,
        /// Version the program reads.
        wanted: u64,
    },
    /// A dataset or attribute is missing or has another type or shape.
    #[error("{}: {item}: {reason}", path.display())]
    Item {
        /// The file.
        path: PathBuf,
        /// The dataset or attribute.
        item: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Writing failed; a full disk is the usual cause.
    #[error("{}: cannot be written ({reason}); is the disk full or the directory read-only?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system or the HDF5 library said.
        reason: String,
    },
}

impl Error {
    fn item(path: &Path, item: &str, reason: impl ToString) -> Self {
        Self::Item { path: path.to_owned(), item: item.to_owned(), reason: one_line(reason) }
    }

    fn write(path: &Path, reason: impl ToString) -> Self {
        Self::Write { path: path.to_owned(), reason: one_line(reason) }
    }
}

/// The HDF5 library breaks its messages into lines.
fn one_line(reason: impl ToString) -> String {
    reason.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The result of an HDF5 operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Element types that datasets may have.
///
/// # Safety
/// Implementors are plain little-endian numbers without padding or invalid bit patterns.
pub unsafe trait Element: hdf5::H5Type + bytemuck::Pod + Send + Sync {}

macro_rules! elements {
    ($($t:ty),*) => {$(
        // SAFETY: a primitive number; `bytemuck::Pod` already vouches for it.
        unsafe impl Element for $t {}
    )*};
}
elements!(u8, u16, u32, u64, i32, i64, half::f16, f32, f64);
