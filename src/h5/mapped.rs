//! Datasets as memory maps: read-only arrays, and a matrix that is filled through its map.

use super::{Element, Error, Result, Writer};
use memmap2::{Mmap, MmapMut, MmapOptions};
use std::marker::PhantomData;
use std::path::Path;

/// A contiguous dataset mapped read-only. Ranks on one node share its pages.
pub struct MappedArray<T: Element>(Values<T>);

enum Values<T: Element> {
    Mapped(Mmap, PhantomData<T>),
    /// HDF5 packs small datasets (below a page) without regard to their alignment.
    Owned(Vec<T>),
}

impl<T: Element> MappedArray<T> {
    pub(super) fn owned(values: Vec<T>) -> Self {
        Self(Values::Owned(values))
    }

    pub(super) fn open(path: &Path, name: &str, offset: u64, length: usize) -> Result<Self> {
        let fail = |e: String| Error::item(path, name, e);
        let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
        let bytes = length * size_of::<T>();
        if file.metadata().map_err(|e| fail(e.to_string()))?.len() < offset + bytes as u64 {
            return Err(fail("reaches past the end of the file; the file was cut short".into()));
        }
        // SAFETY: files are never changed in place (written under a temporary name and renamed),
        // so the mapped bytes stay what they are for as long as the map lives.
        let map = unsafe { MmapOptions::new().offset(offset).len(bytes).map(&file) }
            .map_err(|e| fail(e.to_string()))?;
        bytemuck::try_cast_slice::<u8, T>(&map).map_err(|e| fail(format!("cannot be mapped: {e}")))?;
        Ok(Self(Values::Mapped(map, PhantomData)))
    }
}

impl<T: Element> std::ops::Deref for MappedArray<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Values::Mapped(map, _) => bytemuck::cast_slice(map),
            Values::Owned(values) => values,
        }
    }
}

/// Datasets of this many bytes or more begin at a multiple of it ([`Writer::create`]).
const ALIGNED_FROM: usize = 4096;

/// A two-dimensional dataset in a file of its own, filled row by row through a memory map.
pub struct MappedMatrix<T: Element> {
    writer: Writer,
    map: Option<MmapMut>,
    /// The elements of a matrix that is too small to be aligned in the file, and so to be mapped.
    small: Vec<T>,
    offset: u64,
    columns: usize,
    element: PhantomData<T>,
}

impl<T: Element> MappedMatrix<T> {
    /// Reserves `rows` x `columns` elements as dataset `name` in `writer` and maps them.
    /// All blocks are allocated at once, so that a full disk is an error here and not a
    /// bus error later.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn create(mut writer: Writer, name: &str, rows: usize, columns: usize) -> Result<Self> {
        let offset = writer.reserve::<T>(name, rows, columns)?;
        writer.close()?;
        let bytes = rows * columns * size_of::<T>();
        let path = writer.temporary().to_owned();
        let fail = |e: std::io::Error| Error::write(&path, e);
        let small = if bytes < ALIGNED_FROM { vec![T::zeroed(); rows * columns] } else { Vec::new() };
        let map = if bytes < ALIGNED_FROM {
            None
        } else {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
            allocate(&file, 0..offset + bytes as u64).map_err(fail)?;
            // SAFETY: the file carries a temporary name made from this process's id; no other
            // process or thread opens it before `finish` renames it.
            Some(unsafe { MmapOptions::new().offset(offset).len(bytes).map_mut(&file) }.map_err(fail)?)
        };
        Ok(Self { writer, map, small, offset, columns, element: PhantomData })
    }

    /// All rows, row-major.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.map {
            Some(map) => bytemuck::cast_slice_mut(map),
            None => &mut self.small,
        }
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Writes the pages of these rows back.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn flush(&self, rows: std::ops::Range<usize>) -> Result<()> {
        let row = self.columns * size_of::<T>();
        let Some(map) = &self.map else { return Ok(()) };
        map.flush_range(rows.start * row, rows.len() * row)
            .map_err(|e| Error::write(self.writer.temporary(), e))
    }

    /// Writes the pages back, syncs and renames.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish(mut self) -> Result<()> {
        if let Some(map) = self.map.take() {
            map.flush().map_err(|e| Error::write(self.writer.temporary(), e))?;
        }
        if !self.small.is_empty() {
            use std::os::unix::fs::FileExt;
            let file = std::fs::OpenOptions::new().write(true).open(self.writer.temporary());
            file.and_then(|f| f.write_all_at(bytemuck::cast_slice(&self.small), self.offset))
                .map_err(|e| Error::write(self.writer.temporary(), e))?;
        }
        self.writer.finish()
    }
}

/// Gives these bytes of `file` real blocks; a full disk is reported here.
pub(super) fn allocate(file: &std::fs::File, range: std::ops::Range<u64>) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let from = libc::off_t::try_from(range.start).map_err(std::io::Error::other)?;
    let bytes = libc::off_t::try_from(range.end - range.start).map_err(std::io::Error::other)?;
    // SAFETY: the descriptor is open for writing for the whole call; no memory is passed.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), from, bytes) } {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}
