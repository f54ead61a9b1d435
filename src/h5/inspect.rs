//! What a file holds, for `stratigraph inspect`.

use super::{Error, Reader, Result};
use hdf5::types::VarLenUnicode;

/// One dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Path inside the file.
    pub name: String,
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// Element type, as HDF5 calls it.
    pub element: String,
    /// Size of the values in bytes.
    pub bytes: u64,
}

/// Attributes of the root group and all datasets, sorted by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listing {
    /// `(name, value)` of each root attribute.
    pub attributes: Vec<(String, String)>,
    /// All datasets.
    pub datasets: Vec<Entry>,
}

/// Lists a file's root attributes and datasets.
///
/// # Errors
/// [`Error::Item`] if a group or dataset cannot be read.
pub fn list(reader: &Reader) -> Result<Listing> {
    let fail = |item: &str, e: hdf5::Error| Error::item(reader.path(), item, e);
    let mut listing = Listing::default();
    for name in reader.file().attr_names().map_err(|e| fail("attributes", e))? {
        let attribute = reader.file().attr(&name).map_err(|e| fail(&name, e))?;
        let value = attribute
            .read_scalar::<VarLenUnicode>()
            .map(|v| v.as_str().to_owned())
            .or_else(|_| attribute.read_scalar::<u64>().map(|v| v.to_string()))
            .or_else(|_| attribute.read_scalar::<f64>().map(|v| v.to_string()))
            .unwrap_or_else(|_| "(not text or a number)".to_owned());
        listing.attributes.push((name, value));
    }
    walk(reader.file(), &mut listing.datasets).map_err(|e| fail("/", e))?;
    listing.attributes.sort();
    listing.datasets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

fn walk(group: &hdf5::Group, datasets: &mut Vec<Entry>) -> hdf5::Result<()> {
    for dataset in group.datasets()? {
        let dtype = dataset.dtype()?;
        datasets.push(Entry {
            name: dataset.name().trim_start_matches('/').to_owned(),
            shape: dataset.shape(),
            element: dtype.to_descriptor().map_or_else(|_| "?".to_owned(), |d| d.to_string()),
            bytes: (dataset.size() * dtype.size()) as u64,
        });
    }
    group.groups()?.iter().try_for_each(|g| walk(g, datasets))
}
