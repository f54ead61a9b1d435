//! Reading a file back, with its kind and version checked first.

use super::{Element, Error, FORMAT_ATTRIBUTE, MappedArray, Result, access};
use crate::strings::StringTable;
use hdf5::types::VarLenUnicode;
use std::path::{Path, PathBuf};

/// A matrix of floats of whatever precision.
pub struct FloatMatrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Row-major.
    pub values: FloatValues,
}

/// Values of a [`FloatMatrix`].
pub enum FloatValues {
    /// 32 bit, mapped: ranks of a node share them.
    Mapped(MappedArray<f32>),
    /// 32 bit, read, because they are chunked, compressed or of another byte order.
    Single(Vec<f32>),
    /// 64 bit.
    Double(Vec<f64>),
}

/// An open file of a known kind.
pub struct Reader {
    file: hdf5::File,
    path: PathBuf,
}

impl Reader {
    /// Opens `path` and checks that it is of this kind and version.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::WrongKind`], [`Error::WrongVersion`].
    pub fn open(path: &Path, kind: &str, format_version: u64) -> Result<Self> {
        let reader = Self::open_any(path)?;
        let found = reader.kind();
        if found.as_deref() != Some(kind) {
            let found = match found {
                Some(found) => format!("a `{found}` file"),
                None => "an HDF5 file of another program".to_owned(),
            };
            return Err(Error::WrongKind { path: path.to_owned(), wanted: kind.to_owned(), found });
        }
        let version = reader.number("format_version")?;
        if version != format_version {
            return Err(Error::WrongVersion {
                path: path.to_owned(),
                found: version,
                wanted: format_version,
            });
        }
        Ok(reader)
    }

    /// Opens any HDF5 file.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open_any(path: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::Open { path: path.to_owned(), reason };
        let length = std::fs::metadata(path).map_err(|e| refuse(e.to_string()))?.len();
        if length == 0 {
            return Err(refuse("the file is empty".into()));
        }
        // The library's own message is a stack of C frames; the first line is enough.
        let file = access::options()
            .open(path)
            .map_err(|e| refuse(e.to_string().lines().next().unwrap_or_default().to_owned()))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// What the file says it is, if this program wrote it.
    pub fn kind(&self) -> Option<String> {
        self.attribute(FORMAT_ATTRIBUTE).ok()
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &hdf5::File {
        &self.file
    }

    /// A text attribute of the root group.
    ///
    /// # Errors
    /// [`Error::Item`] if it is missing or not text.
    pub fn attribute(&self, name: &str) -> Result<String> {
        self.file
            .attr(name)
            .and_then(|a| a.read_scalar::<VarLenUnicode>())
            .map(|v| v.as_str().to_owned())
            .map_err(|e| Error::item(&self.path, name, e))
    }

    /// An integer attribute of the root group.
    ///
    /// # Errors
    /// [`Error::Item`] if it is missing or no integer.
    pub fn number(&self, name: &str) -> Result<u64> {
        self.file
            .attr(name)
            .and_then(|a| a.read_scalar::<u64>())
            .map_err(|e| Error::item(&self.path, name, e))
    }

    fn dataset<T: Element>(&self, name: &str) -> Result<hdf5::Dataset> {
        let dataset = self.file.dataset(name).map_err(|e| Error::item(&self.path, name, e))?;
        let right = dataset.dtype().map(|t| t.is::<T>()).unwrap_or(false);
        if right { Ok(dataset) } else { Err(Error::item(&self.path, name, "has another element type")) }
    }

    /// True if the file holds a dataset or group of this name.
    pub fn has(&self, name: &str) -> bool {
        self.file.link_exists(name)
    }

    /// A whole dataset, flattened row-major.
    ///
    /// # Errors
    /// [`Error::Item`] if it is missing or has another element type.
    pub fn array<T: Element>(&self, name: &str) -> Result<Vec<T>> {
        let dataset = self.dataset::<T>(name)?;
        if dataset.size() == 0 {
            return Ok(Vec::new());
        }
        dataset.read_raw::<T>().map_err(|e| Error::item(&self.path, name, e))
    }

    /// Shape of a dataset.
    ///
    /// # Errors
    /// [`Error::Item`] if it is missing.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        self.file.dataset(name).map(|d| d.shape()).map_err(|e| Error::item(&self.path, name, e))
    }

    /// A whole dataset as a read-only memory map, shared by all ranks of a node.
    /// A small one that lies askew in the file is read instead.
    ///
    /// # Errors
    /// [`Error::Item`] if it is missing, has another element type or is not contiguous.
    pub fn map<T: Element>(&self, name: &str) -> Result<MappedArray<T>> {
        let dataset = self.dataset::<T>(name)?;
        let length = dataset.size();
        if length == 0 {
            return Ok(MappedArray::owned(Vec::new()));
        }
        let offset = dataset
            .offset()
            .ok_or_else(|| Error::item(&self.path, name, "is not contiguous, so it cannot be mapped"))?;
        if !offset.is_multiple_of(align_of::<T>() as u64) {
            return self.array(name).map(MappedArray::owned);
        }
        MappedArray::open(&self.path, name, offset, length)
    }

    /// A matrix of 32 or 64 bit floats of any file: mapped if it can be, else read.
    ///
    /// # Errors
    /// [`Error::Item`] if no dataset is named, if there is no such dataset or it is no such matrix; then the file's matrices
    /// are listed.
    pub fn float_matrix(&self, name: Option<&str>) -> Result<FloatMatrix> {
        let refuse = |reason: &str| {
            let known = super::list(self).map(|l| l.datasets).unwrap_or_default();
            let known = known.into_iter().filter(|d| d.shape.len() == 2 && d.element.starts_with("float"));
            let names: Vec<_> = known.map(|d| format!("/{}", d.name)).collect();
            let names = if names.is_empty() { "none".into() } else { names.join(", ") };
            let item = name.unwrap_or("no dataset is named");
            Error::item(&self.path, item, format!("{reason}; matrices in this file: {names}"))
        };
        let name = name.ok_or_else(|| refuse("give one as FILE:/DATASET"))?;
        let dataset = self.file.dataset(name).map_err(|_| refuse("there is no such dataset"))?;
        let [rows, columns] = dataset.shape()[..] else { return Err(refuse("has not two dimensions")) };
        let is = |found: hdf5::Result<bool>| found.unwrap_or(false);
        let fail = |e: hdf5::Error| Error::item(&self.path, name, e);
        let values = if is(dataset.dtype().map(|t| t.is::<f32>())) {
            match self.map(name) {
                Ok(map) => FloatValues::Mapped(map),
                Err(_) => FloatValues::Single(dataset.read_raw().map_err(fail)?),
            }
        } else if is(dataset.dtype().map(|t| t.is::<f64>())) {
            FloatValues::Double(dataset.read_raw().map_err(fail)?)
        } else {
            return Err(refuse("does not consist of 32 or 64 bit floats"));
        };
        Ok(FloatMatrix { rows, columns, values })
    }

    /// A string table written by [`super::Writer::strings`].
    ///
    /// # Errors
    /// [`Error::Item`] if it is missing or its offsets are not sound.
    pub fn strings(&self, name: &str) -> Result<StringTable> {
        let bytes = self.array(&format!("{name}/bytes"))?;
        let offsets = self.array(&format!("{name}/offsets"))?;
        StringTable::from_parts(bytes, offsets).map_err(|reason| Error::item(&self.path, name, reason))
    }
}
