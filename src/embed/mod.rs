//! Documents to vectors: skip-gram word2vec (Mikolov et al. 2013) and doc2vec PV-DBOW (Le and
//! Mikolov 2014), and the file they are kept in.

pub mod vectors;

pub use vectors::Vectors;
