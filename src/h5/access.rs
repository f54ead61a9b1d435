//! How files are opened.

use hdf5::FileBuilder;

/// Opens and creates files without the library's own locks.
///
/// Our files are never changed in place, so there is nothing to lock against. The locks would only
/// do harm: many cluster file systems have none and make every open fail, and a lock is inherited by
/// whatever process is forked while the file is open, which then keeps others from the file
/// ("unable to lock file"). `HDF5_USE_FILE_LOCKING` still overrides this.
pub fn options() -> FileBuilder {
    let mut builder = hdf5::File::with_options();
    builder.with_fapl(|p| p.file_locking(false));
    builder
}

#[cfg(test)]
mod tests {
    use crate::h5::{Reader, Writer};

    #[test]
    fn a_lock_of_another_process_does_not_keep_readers_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.h5");
        Writer::create(&path, "test", 1).unwrap().finish().unwrap();
        let other = std::fs::File::open(&path).unwrap();
        other.lock().unwrap();
        assert_eq!(Reader::open(&path, "test", 1).unwrap().kind().as_deref(), Some("test"));
    }
}
