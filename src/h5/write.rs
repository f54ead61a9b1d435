//! Writing a file: datasets, string tables, attributes; then sync and rename.

use super::{Element, Error, FORMAT_ATTRIBUTE, Result, access};
use crate::strings::StringTable;
use hdf5::types::VarLenUnicode;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A file being written. Nothing appears under its final name before [`Writer::finish`].
pub struct Writer {
    file: Option<hdf5::File>,
    path: PathBuf,
    temporary: PathBuf,
}

impl Writer {
    /// Begins a file of the given kind and layout version.
    ///
    /// # Errors
    /// [`Error::Write`] if the temporary file cannot be made beside `path`.
    pub fn create(path: &Path, kind: &str, format_version: u64) -> Result<Self> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = access::options()
            .with_fapl(|p| p.alignment(4096, 4096))
            .with_fcpl(|p| p.obj_track_times(false))
            .create(&temporary)
            .map_err(|e| Error::write(path, e))?;
        let writer = Self { file: Some(file), path: path.to_owned(), temporary };
        writer.attribute(FORMAT_ATTRIBUTE, kind)?;
        writer.number("format_version", format_version)?;
        writer.attribute("program_version", env!("CARGO_PKG_VERSION"))?;
        Ok(writer)
    }

    pub(super) fn file(&self) -> &hdf5::File {
        self.file.as_ref().expect("the file is open until finish")
    }

    fn fail(&self, e: impl ToString) -> Error {
        Error::write(&self.path, e)
    }

    /// Writes a text attribute of the root group.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn attribute(&self, name: &str, value: &str) -> Result<()> {
        // HDF5 strings end at a NUL; such text is shown with a visible mark instead.
        let value = VarLenUnicode::from_str(&value.replace('\0', "\u{2400}")).map_err(|e| self.fail(e))?;
        let attribute = self.file().new_attr::<VarLenUnicode>().create(name).map_err(|e| self.fail(e))?;
        attribute.write_scalar(&value).map_err(|e| self.fail(e))
    }

    /// Writes an integer attribute of the root group.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn number(&self, name: &str, value: u64) -> Result<()> {
        let attribute = self.file().new_attr::<u64>().create(name).map_err(|e| self.fail(e))?;
        attribute.write_scalar(&value).map_err(|e| self.fail(e))
    }

    /// Writes a one-dimensional dataset; `name` may be a path (`layers/size`), missing groups are made.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn array<T: Element>(&self, name: &str, values: &[T]) -> Result<()> {
        self.empty_dataset::<T>(name, &[values.len()]).and_then(|d| {
            if values.is_empty() { Ok(()) } else { d.write_raw(values).map_err(|e| self.fail(e)) }
        })
    }

    /// Writes a two-dimensional dataset of `values.len() / columns` rows, row-major.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn matrix<T: Element>(&self, name: &str, columns: usize, values: &[T]) -> Result<()> {
        let rows = values.len().checked_div(columns).unwrap_or(0);
        assert_eq!(rows * columns, values.len(), "{name}: not a whole number of rows");
        self.empty_dataset::<T>(name, &[rows, columns]).and_then(|d| {
            if values.is_empty() { Ok(()) } else { d.write_raw(values).map_err(|e| self.fail(e)) }
        })
    }

    /// Writes a string table as `name/bytes` (u8) and `name/offsets` (u64, one more than strings).
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn strings(&self, name: &str, table: &StringTable) -> Result<()> {
        self.array(&format!("{name}/bytes"), table.bytes())?;
        self.array(&format!("{name}/offsets"), table.offsets())
    }

    /// Reserves a matrix whose content is written later through a memory map
    /// ([`super::MappedMatrix::create`]).
    pub(super) fn reserve<T: Element>(&self, name: &str, rows: usize, columns: usize) -> Result<u64> {
        let dataset = self.empty_dataset::<T>(name, &[rows, columns])?;
        if rows * columns == 0 {
            return Ok(0); // nothing is stored, so nothing has a place
        }
        dataset.offset().ok_or_else(|| self.fail(format!("{name}: no space was allocated")))
    }

    fn empty_dataset<T: Element>(&self, name: &str, shape: &[usize]) -> Result<hdf5::Dataset> {
        let builder = self.file().new_dataset::<T>();
        let builder = builder
            .no_chunk()
            .layout(hdf5::plist::dataset_create::Layout::Contiguous)
            .alloc_time(Some(hdf5::plist::dataset_create::AllocTime::Early))
            .fill_time(hdf5::plist::dataset_create::FillTime::Never)
            .obj_track_times(false)
            .create_intermediate_group(true);
        let created = match *shape {
            [n] => builder.shape(n).create(name),
            [r, c] => builder.shape((r, c)).create(name),
            _ => unreachable!("one or two dimensions"),
        };
        created.map_err(|e| self.fail(e))
    }

    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Closes the HDF5 handle but keeps the temporary name, so that the bytes can be mapped.
    pub(super) fn close(&mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            file.flush().map_err(|e| self.fail(e))?;
            file.close().map_err(|e| self.fail(e))?;
        }
        Ok(())
    }

    /// Flushes, syncs and renames: the file appears whole under its name.
    ///
    /// # Errors
    /// [`Error::Write`]; the temporary file is removed then.
    pub fn finish(mut self) -> Result<()> {
        self.close()?;
        let publish = || -> std::io::Result<()> {
            std::fs::File::open(&self.temporary)?.sync_all()?;
            std::fs::rename(&self.temporary, &self.path)?;
            if let Some(parent) = self.path.parent().filter(|p| !p.as_os_str().is_empty()) {
                std::fs::File::open(parent)?.sync_all()?;
            }
            Ok(())
        };
        publish().map_err(|e| self.fail(e))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.file.take());
        // After `finish` nothing stands under the temporary name any more.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
