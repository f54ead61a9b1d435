//! What a file holds, for `stratigraph inspect`.

use super::{Error, Reader, Result};
use hdf5::LocationToken;
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

/// Lists a file's root attributes and datasets. What cannot be opened, as a link to what is not there, is
/// listed as such.
///
/// # Errors
/// [`Error::Item`] if the attributes or the root group cannot be read.
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
    walk(reader.file(), &mut Vec::new(), &mut listing.datasets).map_err(|e| fail("/", e))?;
    listing.attributes.sort();
    listing.datasets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

/// `above` are the groups on the way here: a link to one of them is not followed.
fn walk(
    group: &hdf5::Group,
    above: &mut Vec<(u64, LocationToken)>,
    datasets: &mut Vec<Entry>,
) -> hdf5::Result<()> {
    let info = group.loc_info()?;
    let here = (info.fileno, info.token);
    if above.contains(&here) {
        return Ok(());
    }
    above.push(here);
    for member in group.member_names()? {
        let path = format!("{}/{member}", group.name());
        let name = path.trim_start_matches('/').to_owned();
        let closed = || Entry {
            name: name.clone(),
            shape: Vec::new(),
            element: "(not to be opened)".into(),
            bytes: 0,
        };
        let entry = match (group.dataset(&member), group.group(&member)) {
            (Ok(dataset), _) => entry(&dataset, &name).unwrap_or_else(|_| closed()),
            (_, Ok(below)) => match walk(&below, above, datasets) {
                Ok(()) => continue,
                Err(_) => closed(),
            },
            // A type has no values.
            _ if group.committed_datatype(&member).is_ok() => continue,
            _ => closed(),
        };
        datasets.push(entry);
    }
    above.pop();
    Ok(())
}

fn entry(dataset: &hdf5::Dataset, name: &str) -> hdf5::Result<Entry> {
    let dtype = dataset.dtype()?;
    Ok(Entry {
        name: name.to_owned(),
        shape: dataset.shape(),
        element: dtype.to_descriptor().map_or_else(|_| "?".to_owned(), |d| d.to_string()),
        bytes: (dataset.size() * dtype.size()) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::Writer;

    #[test]
    fn what_cannot_be_opened_hides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.h5");
        let file = Writer::create(&path, "foreign", 1).unwrap();
        file.array("a/values", &[1.0f32, 2.0]).unwrap();
        file.finish().unwrap();
        let file = hdf5::File::open_rw(&path).unwrap();
        file.link_soft("/nowhere", "gone").unwrap();
        file.link_soft("/", "a/root").unwrap();
        file.link_soft("/a", "a/self").unwrap();
        file.close().unwrap();
        let found = list(&Reader::open_any(&path).unwrap()).unwrap();
        let names: Vec<_> = found.datasets.iter().map(|d| (d.name.as_str(), d.element.as_str())).collect();
        assert_eq!(names, [("a/values", "float32"), ("gone", "(not to be opened)")]);
    }
}
