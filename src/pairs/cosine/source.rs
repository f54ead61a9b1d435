//! Where vectors come from: `vectors.h5`, any matrix in an HDF5 file, or a NumPy file.

use super::rows::{self, Rows};
use super::{Error, Multiplicity};
use crate::embed::{self, Vectors};
use crate::h5::{FloatMatrix, FloatValues, MappedArray, Reader};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Vectors of length 1 (or 0), with what is known about them.
pub struct Source {
    values: Values,
    /// Values in a row.
    pub dims: usize,
    /// Rows of zeros.
    pub zeros: u64,
    /// How often each row occurs.
    pub multiplicity: Multiplicity,
    /// Set where the corpus behind the vectors was generated: its label.
    pub synthetic: Option<String>,
    /// Identity of the documents whose vectors these are, if a `vectors.h5` tells.
    pub documents_id: Option<String>,
    known_id: Option<String>,
}

enum Values {
    Mapped(MappedArray<f32>),
    Numpy(memmap2::Mmap, usize),
    Owned(Vec<f32>),
}

impl Source {
    /// Opens `FILE`, or `FILE:/DATASET` for a matrix in an HDF5 file; without a dataset the file is
    /// a `vectors.h5`, whose document vectors are taken, or a `.npy` file. Rows must have length 1
    /// or are scaled to it (`normalize`).
    ///
    /// Unit rows of 32 bit that lie in one piece are mapped, and all ranks of a node share them;
    /// others are copied.
    ///
    /// # Errors
    /// [`Error::Refused`] with the row at fault, [`Error::File`].
    pub fn open(spec: &str, normalize: bool) -> Result<Self, Error> {
        let (path, dataset) = split(spec);
        if dataset.is_none() && path.extension().is_some_and(|e| e == "npy") {
            return numpy(&path).and_then(|m| Self::of_matrix(m, spec, normalize));
        }
        let reader = Reader::open_any(&path)?;
        if dataset.is_none() && reader.kind().as_deref() == Some(embed::vectors::KIND) {
            drop(reader);
            return Self::of_vectors(Vectors::open(&path)?, spec);
        }
        let FloatMatrix { columns, values, .. } = reader.float_matrix(dataset.as_deref())?;
        let values = match values {
            FloatValues::Mapped(map) => Raw::Ready(Values::Mapped(map)),
            FloatValues::Single(values) => Raw::Ready(Values::Owned(values)),
            FloatValues::Double(values) => Raw::Double(values),
        };
        Self::of_matrix((values, columns), spec, normalize)
    }

    fn of_vectors(vectors: Vectors, name: &str) -> Result<Self, Error> {
        let id = vectors.id().to_owned();
        let Vectors { dims, documents, origin, .. } = vectors;
        let multiplicity =
            Multiplicity { layers: Some(documents.layers.to_vec()), images: Some(documents.images.to_vec()) };
        let source = Self {
            values: Values::Mapped(documents.vectors),
            dims,
            zeros: 0,
            multiplicity,
            synthetic: origin.synthetic,
            documents_id: Some(origin.documents_id),
            known_id: Some(id),
        };
        source.checked(name, "it was not written so; run embed again")
    }

    fn of_matrix((values, dims): (Raw, usize), name: &str, normalize: bool) -> Result<Self, Error> {
        if dims == 0 {
            return Err(Error::Refused(format!("{name}: the rows have no columns")));
        }
        let values = match values {
            Raw::Ready(values) if !normalize => values,
            Raw::Ready(values) => Values::Owned(scaled(values.as_slice(), dims, name, |v| f64::from(*v))?),
            Raw::Double(values) if normalize => Values::Owned(scaled(&values, dims, name, |v| *v)?),
            Raw::Double(values) => {
                let large = |v: &f64| v.is_finite() && !(*v as f32).is_finite();
                if let Some(at) = values.iter().position(large) {
                    let (row, column, value) = (at / dims, at % dims, values[at]);
                    return Err(Error::Refused(format!(
                        "{name}: row {row}: column {column} is {value}, of a vector of length 1; {NORMALIZE}"
                    )));
                }
                Values::Owned(values.iter().map(|v| *v as f32).collect())
            }
        };
        let multiplicity = Multiplicity::default();
        Self { values, dims, zeros: 0, multiplicity, synthetic: None, documents_id: None, known_id: None }
            .checked(name, NORMALIZE)
    }

    fn checked(self, name: &str, remedy: &str) -> Result<Self, Error> {
        let zeros = rows::check_unit(&self.rows(), name, remedy)?;
        Ok(Self { zeros, ..self })
    }

    /// The rows.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(self.values.as_slice(), self.dims)
    }

    /// Identifies the content: that of a `vectors.h5`, else the sha256 of shape and values.
    pub fn id(&self) -> String {
        self.known_id.clone().unwrap_or_else(|| {
            let mut hash = Sha256::new();
            hash.update((self.dims as u64).to_le_bytes());
            hash.update(bytemuck::cast_slice(self.values.as_slice()));
            hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
        })
    }

    /// Bytes of the values that are this process's own, not shared.
    pub fn own_bytes(&self) -> u64 {
        match &self.values {
            Values::Owned(values) => values.len() as u64 * 4,
            _ => 0,
        }
    }
}

impl Values {
    fn as_slice(&self) -> &[f32] {
        match self {
            Self::Mapped(map) => map,
            Self::Numpy(map, offset) => bytemuck::cast_slice(&map[*offset..]),
            Self::Owned(values) => values,
        }
    }
}

/// `FILE:/DATASET` in two; a file whose name has a colon is taken as it is.
pub fn split(spec: &str) -> (PathBuf, Option<String>) {
    match spec.rsplit_once(":/") {
        Some((file, dataset)) if !Path::new(spec).exists() => (file.into(), Some(format!("/{dataset}"))),
        _ => (spec.into(), None),
    }
}

const NORMALIZE: &str = "give --normalize to scale all rows";

fn scaled<T>(values: &[T], dims: usize, name: &str, real: impl Fn(&T) -> f64) -> Result<Vec<f32>, Error> {
    let mut unit = Vec::with_capacity(values.len());
    let mut row = Vec::with_capacity(dims);
    for (i, values) in values.chunks_exact(dims).enumerate() {
        row.clear();
        row.extend(values.iter().map(&real));
        rows::normalize(&row, &mut unit).map_err(|(k, v)| {
            Error::Refused(format!("{name}: row {i}: column {k} is {v}; a vector consists of finite numbers"))
        })?;
    }
    Ok(unit)
}

enum Raw {
    Ready(Values),
    Double(Vec<f64>),
}

/// A NumPy file (format 1 to 3, "The NPY format" of the NumPy manual): little-endian floats of 32 or
/// 64 bit in C order, two dimensions.
fn numpy(path: &Path) -> Result<(Raw, usize), Error> {
    let refuse = |reason: &str| Error::Refused(format!("{}: {reason}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| refuse(&e.to_string()))?;
    // SAFETY: read-only; as with every input, a file that somebody changes while it is read gives
    // wrong numbers or a bus error.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| refuse(&e.to_string()))?;
    let Header { shape: [rows, columns], double, offset } = header(&map)
        .map_err(|reason| refuse(&format!("{reason}; save a 2-D float array with numpy.save")))?;
    let bytes = rows.checked_mul(columns).and_then(|n| n.checked_mul(if double { 8 } else { 4 }));
    if bytes != Some(map.len() - offset) {
        return Err(refuse("has another length than its header says; was it cut short?"));
    }
    if double {
        let values = map[offset..].chunks_exact(8).map(bytemuck::pod_read_unaligned::<f64>);
        return Ok((Raw::Double(values.collect()), columns));
    }
    let values = match bytemuck::try_cast_slice::<u8, f32>(&map[offset..]) {
        Ok(_) => Values::Numpy(map, offset),
        Err(_) => {
            let values = map[offset..].chunks_exact(4).map(bytemuck::pod_read_unaligned::<f32>);
            Values::Owned(values.collect())
        }
    };
    Ok((Raw::Ready(values), columns))
}

struct Header {
    shape: [usize; 2],
    double: bool,
    offset: usize,
}

fn header(bytes: &[u8]) -> Result<Header, String> {
    let short = || "is no whole NumPy file".to_owned();
    let version = bytes.strip_prefix(b"\x93NUMPY").and_then(|b| b.first()).ok_or_else(short)?;
    let (length, start) = match version {
        1 => (bytes.get(8..10).map(|b| usize::from(b[0]) | usize::from(b[1]) << 8), 10),
        _ => (bytes.get(8..12).map(|b| b.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))), 12),
    };
    let offset = start + length.ok_or_else(short)?;
    let text = bytes.get(start..offset).ok_or_else(short)?;
    let text: String = String::from_utf8_lossy(text).split_whitespace().collect();
    let field = |name: &str| text.split_once(&format!("'{name}':")).map_or("", |(_, rest)| rest);
    let double = match field("descr").get(..5) {
        Some("'<f4'") => false,
        Some("'<f8'") => true,
        _ => return Err("does not consist of little-endian 32 or 64 bit floats".into()),
    };
    if !field("fortran_order").starts_with("False") {
        return Err("is in Fortran order".into());
    }
    let shape = field("shape").strip_prefix('(').and_then(|s| s.split_once(')')).map_or("", |(s, _)| s);
    let shape: Vec<usize> = shape.split(',').filter_map(|s| s.parse().ok()).collect();
    let shape = <[usize; 2]>::try_from(shape).map_err(|_| "has not two dimensions".to_owned())?;
    Ok(Header { shape, double, offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::Writer;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut header = header.to_owned();
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        [b"\x93NUMPY\x01\0", (header.len() as u16).to_le_bytes().as_slice(), header.as_bytes(), data].concat()
    }

    #[test]
    fn numpy_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.npy");
        let spec = path.to_str().unwrap();
        let open = |bytes: &[u8], normalize| {
            std::fs::write(&path, bytes).unwrap();
            Source::open(spec, normalize)
        };
        let single: Vec<u8> = [0.6f32, 0.8, 0.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let double: Vec<u8> = [3.0f64, 4.0, 0.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let huge: Vec<u8> = [0.6f64, 0.8, 1e39, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let of = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")
        };
        // The file is mapped: what is to be known must be read before the next one is written.
        let read = |source: Source| (source.rows().row(0).to_vec(), source.zeros, source.id());
        let a = read(open(&npy(&of("<f4", "False", "(2, 2)"), &single), false).unwrap());
        let b = read(open(&npy(&of("<f8", "False", "(2, 2)"), &double), true).unwrap());
        assert_eq!((a.0.as_slice(), a.1), ([0.6, 0.8].as_slice(), 1));
        assert_eq!(a, b);
        for (header, data, reason) in [
            (of("<f4", "True", "(2, 2)"), &single, "is in Fortran order"),
            (of(">f4", "False", "(2, 2)"), &single, "little-endian"),
            (of("<f4", "False", "(4,)"), &single, "two dimensions"),
            (of("<f4", "False", "(3, 2)"), &single, "cut short"),
            (of("<f8", "False", "(2, 2)"), &double, "row 0: has length 5"),
            (of("<f8", "False", "(2, 2)"), &huge, "row 1: column 0 is 1000000000"),
            (String::new(), &Vec::new(), "little-endian"),
        ] {
            let error = open(&npy(&header, data), false).err().unwrap().to_string();
            assert!(error.starts_with(spec) && error.contains(reason), "{error}");
        }
        for cut in [0, 5, 9, 60] {
            let whole = npy(&of("<f4", "False", "(2, 2)"), &single);
            let error = open(&whole[..cut], false).err().unwrap().to_string();
            assert!(error.contains("no whole NumPy file") || error.contains("cut short"), "{error}");
        }
    }

    #[test]
    fn matrices_in_foreign_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.h5");
        let file = Writer::create(&path, "foreign", 1).unwrap();
        let double = [0.6, 0.8, 1.0, 0.0, 3.0, 4.0];
        file.matrix("g/double", 2, &double).unwrap();
        file.matrix("single", 2, &double.map(|v| v as f32)[..4]).unwrap();
        file.array("line", &double).unwrap();
        file.finish().unwrap();
        let spec = |dataset: &str| format!("{}:/{dataset}", path.display());
        assert_eq!(Source::open(&spec("single"), false).unwrap().rows().row(1), [1.0, 0.0]);
        let double = Source::open(&spec("g/double"), true).unwrap();
        assert_eq!(double.rows().row(2), double.rows().row(0));
        for (spec, reason) in [
            (spec("g/double"), "row 2: has length 5"),
            (spec("none"), "matrices in this file: /g/double, /single"),
            (spec("line"), "two dimensions"),
            (
                path.display().to_string(),
                "no dataset is named: give one as FILE:/DATASET; matrices in this file: /g/double, /single",
            ),
        ] {
            let error = Source::open(&spec, false).err().unwrap().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
