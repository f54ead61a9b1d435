//! Which images of a corpus a command takes.

use crate::corpus::{Corpus, Error, Table};
use serde::{Deserialize, Serialize};
use std::path::Path;

const ONE_PER_REPOSITORY: &str = "one-per-repository";

/// Options of the commands that take images from a corpus.
#[derive(Debug, Clone, clap::Args)]
pub struct Choice {
    /// Which images: `all`, `one-per-repository` (`latest`, else the first tag), or a file with
    /// one `repository:tag` per line
    #[arg(long, value_name = "all|one-per-repository|FILE", default_value = "all")]
    pub subset: String,

    /// Take the images of the study's table, or all with layers (also those without mediaType or
    /// config, but no signatures)
    #[arg(long = "table", value_enum, default_value = "published")]
    pub kind: TableKind,
}

/// Which manifests count as images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Those in the study's manifest table.
    Published,
    /// All manifests with layers, signatures aside.
    Corrected,
}

impl Choice {
    /// The file that lists the images, if one does.
    pub fn list(subset: &str) -> Option<&Path> {
        (!["all", ONE_PER_REPOSITORY].contains(&subset)).then(|| Path::new(subset))
    }

    /// The chosen images of a corpus.
    pub fn of_corpus<'a>(&self, corpus: &'a Corpus) -> Result<Table<'a>, Error> {
        let images = match self.kind {
            TableKind::Published => corpus.study_images(),
            TableKind::Corrected => corpus.corrected_images(),
        };
        self.of_table(Table::of(corpus, &images))
    }

    /// The chosen images of a table.
    pub fn of_table<'a>(&self, table: Table<'a>) -> Result<Table<'a>, Error> {
        match Self::list(&self.subset) {
            Some(list) => Ok(table.select(&table.select_from_file(list)?)),
            None if self.subset == ONE_PER_REPOSITORY => Ok(table.select(&table.one_per_repository())),
            None => Ok(table),
        }
    }
}
