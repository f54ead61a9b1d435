//! Base images and what rests on them: paths, path sets, classification.

pub mod paths;

pub use paths::{PathId, Universe};
