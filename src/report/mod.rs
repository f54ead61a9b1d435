//! The rank-0 reducer: what a run found, as one summary that people read.

mod bases;
mod cosine;
mod format;
mod jaccard;
mod published;
mod stats;
mod summary;
mod tokens;

pub use bases::{accuracy_text, answers_text, bases_text, classification_text, study_text};
pub use cosine::cosine_text;
pub use format::{bytes, count, duration, table};
pub use jaccard::jaccard_text;
pub use published::{Columns, columns, columns_text};
pub use stats::stats_text;
pub use summary::{
    CosineFigures, DocumentFigures, JaccardFigures, Reduced, RunSummary, StatsFigures, reduce,
};
pub use tokens::{dockerfile_shares_text, history_shares_text};

use std::io::Write;
use std::path::{Path, PathBuf};

/// A file could not be written, for whatever reason.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written", path.display())]
pub struct CannotWrite {
    path: PathBuf,
    source: anyhow::Error,
}

/// Writes pretty JSON under a temporary name, syncs and renames.
///
/// # Errors
/// If the file cannot be written; names the file.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write_file(path, &text)
}

/// Writes a file under a temporary name, syncs and renames.
///
/// # Errors
/// If the file cannot be written; names the file.
pub fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    replace_file(path, |temporary| {
        let mut file = std::fs::File::create(temporary)?;
        file.write_all(bytes)?;
        Ok(file.sync_all()?)
    })
}

/// Lets `write` make a file under a temporary name beside `path` and renames it; on an error what
/// was at `path` stays as it was. A symbolic link stays one, to a new file. A pipe or a device stays what it
/// is, and is given the file's contents.
///
/// # Errors
/// Those of `write` and of the renaming; names the file.
pub fn replace_file(path: &Path, write: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // These may be files, too, but such as others have open.
    let open = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|place| path.starts_with(place));
    let into = open || std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
    // In a directory of its own: names in one that all share can be foreseen.
    let aside = into.then(tempfile::tempdir).transpose();
    let aside = aside.map_err(|e| CannotWrite { path: path.to_owned(), source: e.into() })?;
    let place = aside.as_ref().map_or_else(|| target_of(path), |aside| aside.path().join("whole"));
    let name = place.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = place.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    // What a killed process with the same number left.
    let _ = std::fs::remove_file(&temporary);
    let written = write(&temporary).and_then(|()| match into {
        false => Ok(std::fs::rename(&temporary, &place)?),
        true => {
            let mut to = std::fs::OpenOptions::new().write(true).open(path)?;
            std::io::copy(&mut std::fs::File::open(&temporary)?, &mut to)?;
            Ok(())
        }
    });
    written.map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        CannotWrite { path: path.to_owned(), source: e }.into()
    })
}

/// Where a symbolic link leads, if it is one.
fn target_of(path: &Path) -> PathBuf {
    let link = std::fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink());
    let target = link.then(|| std::fs::canonicalize(path).ok()).flatten();
    target.unwrap_or_else(|| path.to_owned())
}
