//! The documents file, `documents.h5`.
//!
//! Root attributes, besides those of every file (see [`crate::h5`]): `documents_id` (text; see
//! [`Documents::id`]), `scheme` (text: `cumulative`, `per-layer`, `dockerfiles`), `source` and
//! `source_id` (text, see [`Origin`]), and for a generated corpus `synthetic` (text).
//!
//! All datasets have one dimension. `S` strings are two datasets, `NAME/bytes` (u8, UTF-8 one after
//! the other) and `NAME/offsets` (u64, one more than strings). Offsets (CSR) have one element more
//! than rows; row `i` is `offsets[i]..offsets[i+1]`. 4294967295 in a u32 means "none".
//!
//! | dataset | type | length | what |
//! |---|---|---|---|
//! | `vocabulary` | S | tokens | distinct tokens |
//! | `documents/parent` | u32 | documents | the document whose tokens come first; smaller than the row |
//! | `documents/tokens` | u64 | documents + 1 | offsets into `tokens`: what it appends |
//! | `documents/layers`, `documents/images` | u64 | documents | occurrences as layer, as image document |
//! | `documents/first_source` | u32 | documents | row in `sources` of the first occurrence |
//! | `documents/first_entry` | u32 | documents | number of the history entry there, from 0 |
//! | `tokens` | u32 | appended tokens | ids in `vocabulary` |
//! | `sources/name` | S | sources | `repository:tag`, or path of the Dockerfile |
//! | `sources/layers` | u64 | sources + 1 | offsets into `layer_documents` |
//! | `sources/image` | u32 | sources | its image document |
//! | `layer_documents` | u32 | layers | document of each layer, in corpus order |

use super::{Documents, Error, Origin, Scheme, range};
use crate::h5::{Reader, Writer};
use crate::strings::NONE;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Kind of a documents file.
pub(super) const KIND: &str = "documents";
/// Layout version of a documents file.
const FORMAT_VERSION: u64 = 1;

/// Calls `$with!(name, place)` for every number array of the documents, in the order of the file.
macro_rules! each_array {
    ($d:expr, $with:ident) => {
        $with!("documents/parent", $d.parent);
        $with!("documents/tokens", $d.offsets);
        $with!("documents/layers", $d.layers);
        $with!("documents/images", $d.images);
        $with!("documents/first_source", $d.first_source);
        $with!("documents/first_entry", $d.first_entry);
        $with!("tokens", $d.tokens);
        $with!("sources/layers", $d.source_layers);
        $with!("sources/image", $d.source_image);
        $with!("layer_documents", $d.layer_documents);
    };
}

impl Documents {
    /// Identifies the content: sha256 (64 hex digits) over the scheme's name, then `NAME NUL` and
    /// the sha256 of each array's little-endian bytes, string tables (bytes, offsets) first.
    pub fn id(&self) -> String {
        let mut arrays: Vec<(&str, &[u8])> = vec![
            ("vocabulary/bytes", self.vocabulary.bytes()),
            ("vocabulary/offsets", bytemuck::cast_slice(self.vocabulary.offsets())),
            ("sources/name/bytes", self.sources.bytes()),
            ("sources/name/offsets", bytemuck::cast_slice(self.sources.offsets())),
        ];
        macro_rules! add {
            ($name:expr, $array:expr) => {
                arrays.push(($name, bytemuck::cast_slice(&$array)))
            };
        }
        each_array!(self, add);
        let sums: Vec<_> =
            arrays.par_iter().with_max_len(1).map(|(_, bytes)| Sha256::digest(bytes)).collect();
        let mut all = Sha256::new();
        all.update(self.scheme.name());
        for ((name, _), sum) in arrays.iter().zip(&sums) {
            all.update(name);
            all.update([0]);
            all.update(sum);
        }
        all.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Bytes of all arrays: about the size of the file.
    pub fn bytes(&self) -> u64 {
        let tables = [&self.vocabulary, &self.sources];
        let mut bytes: usize = tables.iter().map(|t| t.bytes().len() + size_of_val(t.offsets())).sum();
        macro_rules! add {
            ($name:expr, $array:expr) => {
                bytes += size_of_val($array.as_slice())
            };
        }
        each_array!(self, add);
        bytes as u64
    }

    /// Writes the documents file. Equal documents give equal bytes.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let w = Writer::create(path, KIND, FORMAT_VERSION)?;
        w.attribute("documents_id", &self.id())?;
        w.attribute("scheme", self.scheme.name())?;
        w.attribute("source", &self.origin.source)?;
        w.attribute("source_id", &self.origin.source_id)?;
        if let Some(label) = &self.origin.synthetic {
            w.attribute("synthetic", label)?;
        }
        w.strings("vocabulary", &self.vocabulary)?;
        w.strings("sources/name", &self.sources)?;
        macro_rules! write {
            ($name:expr, $array:expr) => {
                w.array($name, &$array)?
            };
        }
        each_array!(self, write);
        Ok(w.finish()?)
    }

    /// Reads a documents file and checks that it is sound.
    ///
    /// # Errors
    /// [`Error::File`] if it is no documents file or cannot be read, [`Error::Unsound`] if it
    /// contradicts itself.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Unsound { path: path.to_owned(), reason };
        let r = Reader::open(path, KIND, FORMAT_VERSION)?;
        let name = r.attribute("scheme")?;
        let scheme =
            Scheme::from_name(&name).ok_or_else(|| refuse(format!("scheme is the unknown {name:?}")))?;
        let origin = Origin {
            source: r.attribute("source")?,
            source_id: r.attribute("source_id")?,
            synthetic: r.attribute("synthetic").ok(),
        };
        let mut documents = Self {
            scheme,
            origin,
            vocabulary: r.strings("vocabulary")?,
            sources: r.strings("sources/name")?,
            parent: Vec::new(),
            offsets: Vec::new(),
            tokens: Vec::new(),
            lengths: Vec::new(),
            layers: Vec::new(),
            images: Vec::new(),
            first_source: Vec::new(),
            first_entry: Vec::new(),
            source_layers: Vec::new(),
            layer_documents: Vec::new(),
            source_image: Vec::new(),
        };
        macro_rules! read {
            ($name:expr, $array:expr) => {
                $array = r.array($name)?
            };
        }
        each_array!(documents, read);
        documents.check_columns().map_err(refuse)?;
        documents.lengths = documents.whole_lengths();
        documents.check_occurrences().map_err(refuse)?;
        Ok(documents)
    }

    /// Checks that ids are in range, parents precede children, offsets describe their lists, and
    /// that numbers, counts and first occurrences are those of the occurrences. That the documents
    /// are distinct is not checked.
    ///
    /// # Errors
    /// Says which array is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.check_columns()?;
        if self.lengths != self.whole_lengths() {
            return Err("the lengths are not those of the tokens".into());
        }
        self.check_occurrences()
    }

    fn whole_lengths(&self) -> Vec<u64> {
        let mut lengths: Vec<u64> = Vec::with_capacity(self.parent.len());
        for (i, &parent) in self.parent.iter().enumerate() {
            let before = if parent == NONE { 0 } else { lengths[parent as usize] };
            lengths.push(before + range(&self.offsets, i).len() as u64);
        }
        lengths
    }

    fn check_columns(&self) -> Result<(), String> {
        let (n, sources) = (self.parent.len(), self.sources.len());
        if let Some(i) = self.parent.iter().enumerate().position(|(i, p)| *p != NONE && *p as usize >= i) {
            return Err(format!("documents/parent row {i} is {}, not an earlier document", self.parent[i]));
        }
        offsets("documents/tokens", &self.offsets, n, self.tokens.len())?;
        length("documents/layers", self.layers.len(), n)?;
        length("documents/images", self.images.len(), n)?;
        ids("documents/first_source", &self.first_source, n, sources, false)?;
        length("documents/first_entry", self.first_entry.len(), n)?;
        ids("tokens", &self.tokens, self.tokens.len(), self.vocabulary.len(), false)?;
        offsets("sources/layers", &self.source_layers, sources, self.layer_documents.len())?;
        ids("sources/image", &self.source_image, sources, n, true)?;
        ids("layer_documents", &self.layer_documents, self.layer_documents.len(), n, false)
    }

    /// Walks all occurrences: numbers by first occurrence, first sources, and counts.
    fn check_occurrences(&self) -> Result<(), String> {
        let n = self.parent.len();
        let (mut layers, mut images) = (vec![0u64; n], vec![0u64; n]);
        let mut seen = 0;
        let mut count = |counts: &mut [u64], document: u32, source: usize| {
            let i = document as usize;
            if i >= seen {
                if i > seen || self.first_source[i] as usize != source {
                    return Err(format!("document {i} does not first occur in the source that it names"));
                }
                seen += 1;
            }
            counts[i] += 1;
            Ok(())
        };
        for source in 0..self.sources.len() {
            for document in self.layers_of(source) {
                count(&mut layers, *document, source)?;
            }
        }
        for (source, document) in self.source_image.iter().enumerate().filter(|(_, d)| **d != NONE) {
            count(&mut images, *document, source)?;
        }
        if seen != n {
            return Err(format!("document {seen} does not occur"));
        }
        match layers == self.layers && images == self.images {
            true => Ok(()),
            false => Err("documents/layers or documents/images are not the occurrences".into()),
        }
    }
}

fn length(name: &str, found: usize, wanted: usize) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{name} has {found} elements instead of {wanted}")) }
}

fn ids(name: &str, ids: &[u32], wanted: usize, limit: usize, may_lack: bool) -> Result<(), String> {
    length(name, ids.len(), wanted)?;
    match ids.iter().position(|id| *id as usize >= limit && !(may_lack && *id == NONE)) {
        Some(row) => Err(format!("{name} row {row} points at {}, but there are {limit}", ids[row])),
        None => Ok(()),
    }
}

fn offsets(name: &str, offsets: &[u64], rows: usize, limit: usize) -> Result<(), String> {
    length(name, offsets.len(), rows + 1)?;
    let sound = offsets[0] == 0 && offsets[rows] == limit as u64 && offsets.is_sorted();
    if sound { Ok(()) } else { Err(format!("{name} does not describe {limit} elements")) }
}

#[cfg(test)]
mod tests {
    use super::super::Builder;
    use super::*;

    fn some() -> Documents {
        let mut builder = Builder::new(Scheme::Cumulative);
        builder.begin("a:1");
        builder.layer(0, 0, &[0]);
        builder.layer(2, 1, &[1, 2]);
        builder.end();
        builder.begin("a:2");
        builder.end();
        let origin = Origin { source: "a".into(), source_id: "0".into(), synthetic: Some("seed 1".into()) };
        builder.finish(["apt", "get", "install"].into_iter().collect(), origin)
    }

    #[test]
    fn files_come_back_and_are_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().join("1.h5"), dir.path().join("2.h5")];
        let documents = some();
        documents.save(&paths[0]).unwrap();
        let again = Documents::load(&paths[0]).unwrap();
        assert_eq!(again, documents);
        again.save(&paths[1]).unwrap();
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
        for scheme in [Scheme::Cumulative, Scheme::PerLayer, Scheme::Dockerfiles] {
            let empty = Builder::new(scheme).finish(Default::default(), Origin::default());
            empty.save(&paths[0]).unwrap();
            assert_eq!(Documents::load(&paths[0]).unwrap(), empty);
        }
    }

    #[test]
    fn unsound_files_are_refused() {
        let spoil: [fn(&mut Documents); 14] = [
            |d| d.parent[1] = 1,
            |d| d.parent[0] = 7,
            |d| d.offsets[1] = 9,
            |d| d.offsets.clear(),
            |d| d.tokens[0] = 3,
            |d| d.layers[0] = 2,
            |d| d.images.clear(),
            |d| d.first_source[2] = 0,
            |d| d.first_source[0] = NONE,
            |d| d.first_entry.truncate(1),
            |d| d.source_layers[1] = 3,
            |d| d.source_image[0] = 9,
            |d| d.layer_documents.swap(0, 1),
            |d| {
                d.sources.push("b");
            },
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("documents.h5");
        for (k, spoil) in spoil.iter().enumerate() {
            let mut documents = some();
            spoil(&mut documents);
            documents.save(&path).unwrap();
            let error = Documents::load(&path).unwrap_err();
            assert!(matches!(error, Error::Unsound { .. }), "{k}: {error}");
        }
    }
}
