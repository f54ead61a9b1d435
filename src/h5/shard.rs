//! One matrix in many files: shards that ranks fill through memory maps, and a master that shows
//! them as one.

use super::mapped::allocate;
use super::{Element, Error, Result, Writer};
use memmap2::{MmapMut, MmapOptions};
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Datasets from this size on begin at a multiple of it, so that they can be mapped.
const PAGE: usize = 4096;

/// A two-dimensional dataset in a file of its own, filled in pieces by one process. The file has its
/// final name from the start, so that what a killed run has filled can be used by the next; only
/// pieces that were filled take up space on the disk.
pub struct Shard<T: Element> {
    path: PathBuf,
    file: std::fs::File,
    offset: u64,
    rows: usize,
    columns: usize,
    element: PhantomData<T>,
}

/// Some rows of a [`Shard`], mapped.
pub struct Piece<T: Element> {
    map: MmapMut,
    path: PathBuf,
    element: PhantomData<T>,
}

impl<T: Element> Shard<T> {
    /// Makes the file `path` of this kind with a dataset `name` of at least `rows` x `columns`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn create(
        path: &Path,
        kind: &str,
        format_version: u64,
        name: &str,
        (rows, columns): (usize, usize),
    ) -> Result<Self> {
        let row = columns.max(1) * size_of::<T>();
        let rows = rows.max(PAGE.div_ceil(row));
        let writer = Writer::create(path, kind, format_version)?;
        let offset = writer.reserve::<T>(name, rows, columns.max(1))?;
        writer.finish()?;
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|e| Error::write(path, e))?;
        let columns = columns.max(1);
        Ok(Self { path: path.to_owned(), file, offset, rows, columns, element: PhantomData })
    }

    /// Rows and columns of the dataset.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// Gives these rows space on the disk and maps them.
    ///
    /// # Errors
    /// [`Error::Write`], for instance if the disk is full.
    ///
    /// # Panics
    /// If the dataset has no such rows.
    pub fn piece(&mut self, rows: Range<usize>) -> Result<Piece<T>> {
        assert!(rows.start < rows.end && rows.end <= self.rows, "rows of the shard");
        let row = (self.columns * size_of::<T>()) as u64;
        let (from, bytes) = (self.offset + rows.start as u64 * row, rows.len() as u64 * row);
        let fail = |e: std::io::Error| Error::write(&self.path, e);
        allocate(&self.file, from..from + bytes).map_err(fail)?;
        // SAFETY: this process alone writes the file (its name has the rank, and `piece` borrows
        // the shard); readers come after the run.
        let map = unsafe { MmapOptions::new().offset(from).len(bytes as usize).map_mut(&self.file) };
        Ok(Piece { map: map.map_err(fail)?, path: self.path.clone(), element: PhantomData })
    }
}

impl<T: Element> Piece<T> {
    /// The elements, row-major.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map)
    }

    /// Brings them to the disk.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish(self) -> Result<()> {
        self.map.flush().map_err(|e| Error::write(&self.path, e))
    }
}

/// Where a rectangle of a master lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// File, as seen from the directory of the master.
    pub file: String,
    /// Rows and columns of the dataset in it.
    pub shape: [usize; 2],
    /// First row of the patch in that dataset; its first column is 0.
    pub from: usize,
    /// Rows in the master.
    pub rows: Range<usize>,
    /// Columns in the master.
    pub columns: Range<usize>,
}

impl Writer {
    /// Writes a matrix that consists of patches of datasets, all called `source`, in other files
    /// (a virtual dataset). What no patch covers reads as 0.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn virtual_matrix<T: Element>(
        &self,
        name: &str,
        [rows, columns]: [usize; 2],
        source: &str,
        patches: &[Patch],
    ) -> Result<()> {
        let fail = |e: hdf5::Error| Error::write(self.temporary(), e);
        let mut builder = self.file().new_dataset::<T>().shape((rows, columns)).obj_track_times(false);
        for patch in patches {
            let [height, width] = [patch.rows.len(), patch.columns.len()];
            let of = |rows: Range<usize>, columns: Range<usize>| hdf5::Selection::from((rows, columns));
            builder = builder.virtual_map(
                &patch.file,
                source,
                (patch.shape[0], patch.shape[1]),
                of(patch.from..patch.from + height, 0..width),
                (rows, columns),
                of(patch.rows.clone(), patch.columns.clone()),
            );
        }
        builder.create(name).map_err(fail)?;
        Ok(())
    }
}
