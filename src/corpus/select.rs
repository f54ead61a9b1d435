//! Which images of a corpus a run takes.

use super::{Corpus, Error};
use crate::strings::NONE;
use rustc_hash::FxHashMap;
use std::path::Path;

impl Corpus {
    /// One image per repository, as in the study's `layer_digest_similarity.py`: tag `latest` if
    /// the repository has it among `images`, else the tag of its first image. In the order of the
    /// repositories' first images.
    pub fn one_per_repository(&self, images: &[u32]) -> Vec<u32> {
        let mut chosen: Vec<u32> = Vec::new();
        let mut place = vec![NONE; self.repositories.len()];
        for &m in images {
            let repository = self.manifests.repository[m as usize] as usize;
            if place[repository] == NONE {
                place[repository] = chosen.len() as u32;
                chosen.push(m);
            } else if self.tags.get(self.manifests.tag[m as usize]) == "latest" {
                chosen[place[repository] as usize] = m;
            }
        }
        chosen
    }

    /// The images that a file names, one `repository:tag` a line, in the file's order; blank lines
    /// and lines that begin with `#` are passed over, repeated names count once.
    ///
    /// # Errors
    /// [`Error::Source`] if the file cannot be read, names nothing, or names an image that is not
    /// among `images` (with the line).
    pub fn select_from_file(&self, images: &[u32], path: &Path) -> Result<Vec<u32>, Error> {
        let refuse = |reason: String| Error::Source { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| {
            refuse(format!(
                "{e}; --subset takes `all`, `one-per-repository` or a file of repository:tag lines"
            ))
        })?;
        let known: FxHashMap<String, u32> =
            images.iter().map(|m| (self.image_name(*m as usize), *m)).collect();
        let mut chosen = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (number, line) in text.lines().enumerate() {
            let name = line.trim();
            if name.is_empty() || name.starts_with('#') {
                continue;
            }
            let m = known
                .get(name)
                .ok_or_else(|| refuse(format!("line {}: the corpus has no image `{name}`", number + 1)))?;
            if seen.insert(*m) {
                chosen.push(*m);
            }
        }
        if chosen.is_empty() {
            return Err(refuse("names no image".into()));
        }
        Ok(chosen)
    }
}
