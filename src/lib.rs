//! *Stratigraph* analyses corpora of container images: what layers they are made of, which are
//! shared, how images resemble each other. It runs as MPI ranks under Slurm or as one process on
//! a laptop, with the same commands and the same bits in the results.
//!
//! # The map
//!
//! | module | what is there |
//! |---|---|
//! | [`cli`] | the command line: one file per sub-command; only here is text printed or argv read |
//! | [`corpus`] | what is studied: repositories, images, layers, histories; import and `corpus.h5` |
//! | [`harvest`] | what container registries serve; the only module that speaks HTTP |
//! | [`stats`] | sizes, years, percentiles, digest sharing |
//! | [`tokens`] | histories and Dockerfiles -> documents |
//! | [`embed`] | documents to vectors: word2vec, doc2vec; `vectors.h5` |
//! | [`pairs`] | the all-pairs engine: tiles, schedule, journal, merge; [`pairs::jaccard`] on it |
//! | [`rootfs`] | base images, path sets over them, classification |
//! | [`report`] | the rank-0 reducer: summary and tables |
//! | [`world`] | ranks; the only module that knows MPI |
//! | [`h5`] | files and memory-mapped datasets; the only module that knows HDF5 |
//! | [`strings`] | string tables and interning, used by all of them |
//!
//! `cli` uses the middle row (from `corpus` to `report`), which uses `world`, `h5`
//! and `strings`. Kernels are pure functions on slices.

pub mod cli;
pub mod corpus;
pub mod embed;
pub mod h5;
pub mod harvest;
pub mod pairs;
pub mod report;
pub mod rootfs;
pub mod stats;
pub mod strings;
pub mod tokens;
pub mod world;
