//! Root file systems: layer streams -> path sets -> bases.
//!
//! An image is never unpacked. Each of its layers is read once as a stream, whichever images share
//! it, and becomes a [`LayerRecord`]: which paths it adds and which it takes away. The paths of an
//! image are then the fold of its layers ([`fold()`]).
//!
//! Only paths that some base image has can influence how like a base an image is. These are the
//! [`Universe`]; a set of paths is a bitmap of their ids, and as a directory is a contiguous range
//! of ids, so is what a whiteout removes.
//!
//! # Which paths count
//!
//! Regular files, hard links, devices, fifos, and symbolic links that do not lead to a directory
//! inside the image. Directories and links to directories do not. Whether a link leads to a
//! directory depends on all layers, so it is decided by the fold, not by the layer.

pub mod bases;
pub mod campaign;
pub mod classify;
pub mod delta;
pub mod digest;
pub mod fold;
pub mod layer;
pub mod list;
pub mod listing;
pub mod names;
pub mod paths;
pub mod place;
pub mod record;
pub mod results;
pub mod source;
pub mod store;
pub mod tar;
pub mod toc;

pub use bases::Bases;
pub use delta::LayerDelta;
pub use digest::Digest;
pub use fold::{Folded, fold};
pub use paths::{PathId, Universe};
pub use record::{Counts, LayerRecord};
