//! The manifest table: one row per (image, layer), the study's view of a corpus.

use super::{Corpus, Error, PublishedTable};
use crate::strings::{NONE, StringId, StringTable};
use rustc_hash::FxHashMap;
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

/// Images and their layers, as a view: names are borrowed, rows are copied.
#[derive(Debug, Clone)]
pub struct Table<'a> {
    /// Repository names; more than the images' if the table is a part of a corpus.
    pub repositories: &'a StringTable,
    /// Tags.
    pub tags: &'a StringTable,
    /// Layer digests.
    pub digests: &'a StringTable,
    /// One per digest: not 0 where the layer is empty.
    pub digest_empty: &'a [u8],
    /// Dates as given.
    pub dates: &'a StringTable,
    /// The images.
    pub images: Vec<Image>,
    /// CSR offsets into the rows, one more than images.
    pub offsets: Vec<u64>,
    /// One per row: id of the layer's digest.
    pub digest: Vec<u32>,
    /// One per row: compressed size in bytes.
    pub size: Vec<u64>,
}

/// One image of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Id in [`Table::repositories`].
    pub repository: u32,
    /// Id in [`Table::tags`].
    pub tag: StringId,
    /// Id in [`Table::dates`] of the config's `created`, or [`NONE`].
    pub created: StringId,
    /// Where the image is in its source: row of [`super::Manifests`], or its place in the file.
    pub origin: u32,
}

impl<'a> Table<'a> {
    /// The table of these manifests, in this order.
    pub fn of(corpus: &'a Corpus, manifests: &[u32]) -> Self {
        let Corpus { repositories, tags, digests, digest_empty, dates, .. } = corpus;
        let mut table = Self::new(repositories, tags, digests, digest_empty, dates);
        for &m in manifests {
            let rows = corpus.layers_of(m as usize);
            let image = Image {
                repository: corpus.manifests.repository[m as usize],
                tag: corpus.manifests.tag[m as usize],
                created: corpus.config_of(m as usize).map_or(NONE, |c| corpus.configs.created[c]),
                origin: m,
            };
            table.push(image, &corpus.layers.digest[rows.clone()], &corpus.layers.size[rows]);
        }
        table
    }

    pub(super) fn new(
        repositories: &'a StringTable,
        tags: &'a StringTable,
        digests: &'a StringTable,
        digest_empty: &'a [u8],
        dates: &'a StringTable,
    ) -> Self {
        Self {
            repositories,
            tags,
            digests,
            digest_empty,
            dates,
            images: Vec::new(),
            offsets: vec![0],
            digest: Vec::new(),
            size: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, image: Image, digest: &[u32], size: &[u64]) {
        self.images.push(image);
        self.digest.extend_from_slice(digest);
        self.size.extend_from_slice(size);
        self.offsets.push(self.digest.len() as u64);
    }

    /// Rows of image `i`.
    pub fn rows_of(&self, i: usize) -> Range<usize> {
        self.offsets[i] as usize..self.offsets[i + 1] as usize
    }

    /// `repository:tag` of image `i` (`full_uri` in the study).
    pub fn name(&self, i: usize) -> String {
        let Image { repository, tag, .. } = self.images[i];
        format!("{}:{}", self.repositories.get(repository), self.tags.get(tag))
    }

    /// `created` of image `i` as given.
    pub fn created(&self, i: usize) -> Option<&'a str> {
        let id = self.images[i].created;
        (id != NONE).then(|| self.dates.get(id))
    }

    /// Sum of the layer sizes of image `i` in bytes.
    pub fn image_size(&self, i: usize) -> u64 {
        self.size[self.rows_of(i)].iter().fold(0, |sum, size| sum.saturating_add(*size))
    }

    /// The table of these images only, in this order.
    pub fn select(&self, images: &[usize]) -> Self {
        let mut table = Self::new(self.repositories, self.tags, self.digests, self.digest_empty, self.dates);
        for &i in images {
            let rows = self.rows_of(i);
            table.push(self.images[i], &self.digest[rows.clone()], &self.size[rows]);
        }
        table
    }

    /// One image per repository, as in the study's `layer_digest_similarity.py`: tag `latest` if
    /// the repository has it here, else the tag of its first image. In the order of the
    /// repositories' first images.
    pub fn one_per_repository(&self) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::new();
        let mut place = vec![usize::MAX; self.repositories.len()];
        for (i, image) in self.images.iter().enumerate() {
            let place = &mut place[image.repository as usize];
            if *place == usize::MAX {
                *place = chosen.len();
                chosen.push(i);
            } else if self.tags.get(image.tag) == "latest" {
                chosen[*place] = i;
            }
        }
        chosen
    }

    /// The images that a file names, one `repository:tag` a line, in the file's order; blank lines
    /// and lines that begin with `#` are passed over, repeated names count once.
    ///
    /// # Errors
    /// [`Error::Source`] if the file cannot be read, names nothing, or names an image that is not
    /// in the table (with the line).
    pub fn select_from_file(&self, path: &Path) -> Result<Vec<usize>, Error> {
        let refuse = |reason: String| Error::Source { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| {
            refuse(format!(
                "{e}; --subset takes `all`, `one-per-repository` or a file of repository:tag lines"
            ))
        })?;
        let known: FxHashMap<String, usize> = (0..self.images.len()).map(|i| (self.name(i), i)).collect();
        let mut chosen = Vec::new();
        let mut seen = HashSet::new();
        for (number, line) in text.lines().enumerate() {
            let name = line.trim();
            if name.is_empty() || name.starts_with('#') {
                continue;
            }
            let i = known
                .get(name)
                .ok_or_else(|| refuse(format!("line {}: the corpus has no image `{name}`", number + 1)))?;
            if seen.insert(*i) {
                chosen.push(*i);
            }
        }
        if chosen.is_empty() {
            return Err(refuse("names no image".into()));
        }
        Ok(chosen)
    }
}

impl PublishedTable {
    /// The table as read.
    pub fn table(&self) -> Table<'_> {
        let mut table =
            Table::new(&self.repositories, &self.tags, &self.digests, &self.digest_empty, &self.dates);
        table.images.clone_from(&self.images);
        table.offsets.clone_from(&self.offsets);
        table.digest.clone_from(&self.digest);
        table.size.clone_from(&self.size);
        table
    }
}
