//! The vectors file, `vectors.h5`: one unit vector for each distinct document and for each word.
//!
//! Root attributes, besides those of every file (see [`crate::h5`]): `vectors_id` (text; see
//! [`Vectors::id`]), `documents_id` (text; identity of the documents file that was embedded),
//! `method` (text, `word2vec` or `doc2vec`), `document_vectors` (text, `mean` or `learned`),
//! `settings` (text, JSON: every option that changes the values), `fingerprint` (text; of the run), `seed` (integer), `lock_free`
//! (integer, 1: the run may give other bits when it is repeated), `zero_documents` and `zero_words`
//! (integers, rows without a direction), and for generated corpora `synthetic` (text).
//!
//! | dataset | type | shape | what |
//! |---|---|---|---|
//! | `documents/vectors` | f32 | documents x dims | rows of length 1, or all zero (see below) |
//! | `documents/norms` | f64 | documents | length of the vector before it was divided by it |
//! | `documents/layers` | u64 | documents | how many layer documents this document stands for |
//! | `documents/images` | u64 | documents | how many image documents this document stands for |
//! | `documents/document` | u32 | documents | its id in the documents file, ascending |
//! | `words/vectors` | f32 | words x dims | rows of length 1, or all zero |
//! | `words/norms` | f64 | words | as above |
//! | `words/counts` | u64 | words | occurrences in the documents that were trained on |
//! | `words/names` | S | words | most frequent first; equal counts by their bytes |
//!
//! `S` strings are two datasets, `NAME/bytes` (u8) and `NAME/offsets` (u64, one more than strings).
//!
//! A document without any known word has no direction: its row is zero and so is its norm. Such
//! rows stay in the file, so that weights add up to the corpus; `zero_documents` counts them. A
//! cosine with one of them is 0.

use crate::h5::{self, MappedArray, Reader, Writer};
use crate::strings::StringTable;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Kind of a vectors file.
pub const KIND: &str = "vectors";
/// Layout version of a vectors file.
pub const FORMAT_VERSION: u64 = 1;

/// Where vectors come from; attributes of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Identity of the documents file.
    pub documents_id: String,
    /// `word2vec` or `doc2vec`.
    pub method: String,
    /// How document vectors were made: `mean` or `learned`.
    pub document_vectors: String,
    /// Every option that changes the values, as JSON.
    pub settings: String,
    /// Identifies the run: sha256 over the documents' identity and the settings.
    pub fingerprint: String,
    /// Seed of the random numbers.
    pub seed: u64,
    /// True if threads shared the model without locks: a second run may give other bits.
    pub lock_free: bool,
    /// Set for documents of a generated corpus.
    pub synthetic: Option<String>,
}

/// Unit vectors of documents as they are written.
#[derive(Debug, Clone, Copy)]
pub struct DocumentRows<'a> {
    /// Rows of length 1 (or 0), one after the other.
    pub vectors: &'a [f32],
    /// Lengths before normalisation.
    pub norms: &'a [f64],
    /// Layer documents that each stands for.
    pub layers: &'a [u64],
    /// Image documents that each stands for.
    pub images: &'a [u64],
    /// Ids in the documents file, ascending.
    pub document: &'a [u32],
}

/// Unit vectors of words as they are written.
#[derive(Debug, Clone, Copy)]
pub struct WordRows<'a> {
    /// Rows of length 1 (or 0), one after the other.
    pub vectors: &'a [f32],
    /// Lengths before normalisation.
    pub norms: &'a [f64],
    /// Occurrences.
    pub counts: &'a [u64],
    /// The words.
    pub names: &'a StringTable,
}

/// Writes a vectors file.
///
/// # Errors
/// [`h5::Error::Write`].
///
/// # Panics
/// If the slices of a group disagree in their number of rows.
pub fn write(
    path: &Path,
    dims: usize,
    documents: &DocumentRows<'_>,
    words: &WordRows<'_>,
    origin: &Origin,
) -> h5::Result<()> {
    let n = documents.document.len();
    let v = words.names.len();
    assert!(documents.norms.len() == n && documents.layers.len() == n && documents.images.len() == n);
    assert!(words.norms.len() == v && words.counts.len() == v);
    assert!(documents.vectors.len() == n * dims && words.vectors.len() == v * dims);
    let zeros = |norms: &[f64]| norms.iter().filter(|norm| **norm == 0.0).count() as u64;
    let w = Writer::create(path, KIND, FORMAT_VERSION)?;
    w.attribute("vectors_id", &identity(dims, documents, words))?;
    w.attribute("documents_id", &origin.documents_id)?;
    w.attribute("method", &origin.method)?;
    w.attribute("document_vectors", &origin.document_vectors)?;
    w.attribute("settings", &origin.settings)?;
    w.attribute("fingerprint", &origin.fingerprint)?;
    w.number("seed", origin.seed)?;
    w.number("lock_free", u64::from(origin.lock_free))?;
    w.number("zero_documents", zeros(documents.norms))?;
    w.number("zero_words", zeros(words.norms))?;
    if let Some(label) = &origin.synthetic {
        w.attribute("synthetic", label)?;
    }
    w.matrix("documents/vectors", dims, documents.vectors)?;
    w.array("documents/norms", documents.norms)?;
    w.array("documents/layers", documents.layers)?;
    w.array("documents/images", documents.images)?;
    w.array("documents/document", documents.document)?;
    w.matrix("words/vectors", dims, words.vectors)?;
    w.array("words/norms", words.norms)?;
    w.array("words/counts", words.counts)?;
    w.strings("words/names", words.names)?;
    w.finish()
}

fn identity(dims: usize, documents: &DocumentRows<'_>, words: &WordRows<'_>) -> String {
    let mut hash = Sha256::new();
    for length in [dims, documents.document.len(), words.names.len()] {
        hash.update((length as u64).to_le_bytes());
    }
    hash.update(bytemuck::cast_slice(documents.vectors));
    hash.update(bytemuck::cast_slice(documents.layers));
    hash.update(bytemuck::cast_slice(documents.images));
    hash.update(bytemuck::cast_slice(documents.document));
    hash.update(bytemuck::cast_slice(words.vectors));
    hash.update(bytemuck::cast_slice(words.names.offsets()));
    hash.update(words.names.bytes());
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Vectors of documents, mapped.
pub struct DocumentVectors {
    /// Rows of length 1 (or 0), one after the other.
    pub vectors: MappedArray<f32>,
    /// Lengths before normalisation.
    pub norms: MappedArray<f64>,
    /// Layer documents that each stands for.
    pub layers: MappedArray<u64>,
    /// Image documents that each stands for.
    pub images: MappedArray<u64>,
    /// Ids in the documents file, ascending.
    pub document: MappedArray<u32>,
}

/// Vectors of words, mapped.
pub struct WordVectors {
    /// Rows of length 1 (or 0), one after the other.
    pub vectors: MappedArray<f32>,
    /// Lengths before normalisation.
    pub norms: MappedArray<f64>,
    /// Occurrences in the documents that were trained on.
    pub counts: MappedArray<u64>,
    /// The words, most frequent first.
    pub names: StringTable,
}

/// A vectors file, open: its arrays are read-only maps that ranks of a node share.
pub struct Vectors {
    /// Length of a vector.
    pub dims: usize,
    /// One row for each distinct document.
    pub documents: DocumentVectors,
    /// One row for each word.
    pub words: WordVectors,
    /// Where they come from.
    pub origin: Origin,
    id: String,
}

impl Vectors {
    /// Opens a vectors file and checks that its shapes agree.
    ///
    /// # Errors
    /// Those of [`Reader::open`], and [`h5::Error::Item`] naming the dataset that does not fit.
    pub fn open(path: &Path) -> h5::Result<Self> {
        let r = Reader::open(path, KIND, FORMAT_VERSION)?;
        let shape = |name: &str| match r.shape(name)?[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(refuse(path, name, "has not two dimensions")),
        };
        let (n, dims) = shape("documents/vectors")?;
        let (v, word_dims) = shape("words/vectors")?;
        let documents = DocumentVectors {
            vectors: r.map("documents/vectors")?,
            norms: rows(&r, "documents/norms", n)?,
            layers: rows(&r, "documents/layers", n)?,
            images: rows(&r, "documents/images", n)?,
            document: rows(&r, "documents/document", n)?,
        };
        let words = WordVectors {
            vectors: r.map("words/vectors")?,
            norms: rows(&r, "words/norms", v)?,
            counts: rows(&r, "words/counts", v)?,
            names: r.strings("words/names")?,
        };
        if words.names.len() != v {
            return Err(refuse(path, "words/names", "has another number of rows than words/vectors"));
        }
        if word_dims != dims {
            return Err(refuse(path, "words/vectors", "has other dimensions than documents/vectors"));
        }
        let origin = Origin {
            documents_id: r.attribute("documents_id")?,
            method: r.attribute("method")?,
            document_vectors: r.attribute("document_vectors")?,
            settings: r.attribute("settings")?,
            fingerprint: r.attribute("fingerprint")?,
            seed: r.number("seed")?,
            lock_free: r.number("lock_free")? != 0,
            synthetic: r.attribute("synthetic").ok(),
        };
        Ok(Self { dims, documents, words, origin, id: r.attribute("vectors_id")? })
    }

    /// Identifies the content: sha256 (64 hex digits) over shapes, vectors, multiplicities, document
    /// ids and words.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.documents.document.len()
    }

    /// True if there are no documents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vector of a document. Panics if there is no such row.
    pub fn document(&self, row: usize) -> &[f32] {
        &self.documents.vectors[row * self.dims..][..self.dims]
    }

    /// The vector of a word. Panics if there is no such row.
    pub fn word(&self, row: usize) -> &[f32] {
        &self.words.vectors[row * self.dims..][..self.dims]
    }

    /// The row of a word, if it is known. Looks at all names.
    pub fn find_word(&self, name: &str) -> Option<usize> {
        self.words.names.iter().position(|known| known == name)
    }
}

fn refuse(path: &Path, item: &str, reason: &str) -> h5::Error {
    h5::Error::Item { path: path.to_owned(), item: item.to_owned(), reason: reason.to_owned() }
}

fn rows<T: h5::Element>(r: &Reader, name: &str, rows: usize) -> h5::Result<MappedArray<T>> {
    match r.shape(name)?[..] {
        [found] if found == rows => r.map(name),
        _ => Err(refuse(r.path(), name, "has another number of rows than the vectors of its group")),
    }
}

/// Divides a vector by its length (float64, summed in index order) into `unit`; returns the length.
/// A vector without length gives zeros and 0.
pub fn normalise(vector: impl Iterator<Item = f64> + Clone, unit: &mut [f32]) -> f64 {
    let norm = vector.clone().map(|x| x * x).sum::<f64>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        unit.iter_mut().zip(vector).for_each(|(u, x)| *u = (x / norm) as f32);
        norm
    } else {
        unit.fill(0.0);
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(path: &Path) -> h5::Result<()> {
        let names: StringTable = ["apt", "install"].into_iter().collect();
        let documents = DocumentRows {
            vectors: &[1.0, 0.0, 0.0, 0.0, 0.6, 0.8],
            norms: &[2.5, 0.0, 1.0],
            layers: &[3, 1, 0],
            images: &[1, 0, 7],
            document: &[0, 1, 5],
        };
        let words =
            WordRows { vectors: &[0.0, 1.0, 1.0, 0.0], norms: &[1.0, 2.0], counts: &[9, 4], names: &names };
        let origin = Origin { method: "word2vec".into(), seed: 7, ..Origin::default() };
        write(path, 2, &documents, &words, &origin)
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vectors.h5");
        sample(&path).unwrap();
        let vectors = Vectors::open(&path).unwrap();
        assert_eq!((vectors.len(), vectors.dims), (3, 2));
        assert_eq!(vectors.document(2), [0.6, 0.8]);
        assert_eq!(vectors.documents.layers[..], [3, 1, 0]);
        assert_eq!(vectors.documents.document[..], [0, 1, 5]);
        assert_eq!(vectors.find_word("install"), Some(1));
        assert_eq!(vectors.find_word("yum"), None);
        assert_eq!(vectors.word(1), [1.0, 0.0]);
        assert_eq!(vectors.origin.seed, 7);
        assert_eq!(vectors.id().len(), 64);
        // Equal content, equal bytes.
        let again = directory.path().join("again.h5");
        sample(&again).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(again).unwrap());
    }

    #[test]
    fn damaged_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vectors.h5");
        type Fill = fn(&Writer) -> h5::Result<()>;
        let cases: [(&str, Fill); 3] = [
            ("documents/vectors", |_| Ok(())),
            ("documents/norms", |w| {
                w.matrix("documents/vectors", 2, &[0f32; 4])?;
                w.matrix("words/vectors", 2, &[0f32; 4])?;
                w.array("documents/norms", &[1f64; 3])
            }),
            ("documents/vectors", |w| w.array("documents/vectors", &[0f32; 4])),
        ];
        for (item, fill) in cases {
            let w = Writer::create(&path, KIND, FORMAT_VERSION).unwrap();
            fill(&w).unwrap();
            w.finish().unwrap();
            let message = Vectors::open(&path).err().unwrap().to_string();
            assert!(message.contains(item), "{message}");
        }
    }

    #[test]
    fn lengths() {
        let mut unit = [9.0; 2];
        assert_eq!(normalise([3.0, 4.0].into_iter(), &mut unit), 5.0);
        assert_eq!(unit, [0.6, 0.8]);
        for odd in [[0.0, 0.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0]] {
            assert_eq!(normalise(odd.into_iter(), &mut unit), 0.0);
            assert_eq!(unit, [0.0, 0.0]);
        }
    }
}
