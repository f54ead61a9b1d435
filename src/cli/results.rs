//! The files that a comparison of all pairs leaves in its results directory.

use super::Context;
use crate::pairs::Error;
use crate::pairs::journal::{self, Fingerprint};
use anyhow::Context as _;
use std::io::ErrorKind::NotFound;
use std::path::Path;

/// Names of the files of one measure.
pub struct Results {
    /// The JSON file that is written last and carries the run's `fingerprint`: a directory with it
    /// holds a finished run.
    pub summary: &'static str,
    /// All other files and directories, whether this run writes them or not.
    pub others: &'static [&'static str],
    /// Directory of the journals.
    pub journal: &'static str,
}

/// What identifies a run.
pub struct Identity<'a> {
    /// Of the results, in hex: corpus and options.
    pub results: &'a str,
    /// Of the journals: the same and the tiles.
    pub journal: &'a Fingerprint,
}

impl Results {
    /// Prepares a claimed directory for a run that writes the summary and `wanted`. True if the
    /// results of this very run are there. Results and journals of another run are refused or, with
    /// `overwrite`, removed; those of this one are kept in either case. Collective.
    ///
    /// # Errors
    /// [`Error::Refused`] for results of another run; else if a file cannot be read or removed.
    pub fn settle(
        &self,
        context: &Context,
        directory: &Path,
        wanted: &[&str],
        run: &Identity<'_>,
        overwrite: bool,
    ) -> anyhow::Result<bool> {
        let mut done = [0];
        if context.world.is_root() {
            let names: Vec<_> = std::iter::once(self.summary).chain(self.others.iter().copied()).collect();
            remove_leftovers(directory, &names)?;
            let journals = directory.join(self.journal);
            if overwrite && journal::is_of_another_run(&journals, run.journal)? {
                remove_directory(&journals)?;
                if !directory.join(self.summary).exists() {
                    // Parts of results that the other run had begun, of which it may have had more.
                    self.remove_files(directory)?;
                }
            }
            done[0] = u64::from(self.is_done(directory, wanted, run, overwrite)?);
        }
        context.world.max_u64(&mut done);
        Ok(done[0] > 0)
    }

    fn is_done(
        &self,
        directory: &Path,
        wanted: &[&str],
        run: &Identity<'_>,
        overwrite: bool,
    ) -> anyhow::Result<bool> {
        let summary = directory.join(self.summary);
        let text = match std::fs::read_to_string(&summary) {
            Err(e) if e.kind() == NotFound => return Ok(false),
            other => other.with_context(|| summary.display().to_string())?,
        };
        let found = serde_json::from_str::<serde_json::Value>(&text).ok();
        let same = found.as_ref().and_then(|v| v.get("fingerprint")?.as_str()) == Some(run.results);
        if !same && !overwrite {
            return Err(Error::Refused(format!(
                "{}: holds results of another corpus or of other options; choose another directory, or \
                 give --overwrite",
                directory.display()
            ))
            .into());
        }
        let whole = |name: &&str| {
            std::fs::metadata(directory.join(name)).is_ok_and(|there| there.is_dir() || there.len() > 0)
        };
        if same && wanted.iter().all(whole) {
            remove_directory(&directory.join(self.journal))?;
            return Ok(true);
        }
        self.remove_files(directory)?;
        Ok(false)
    }

    /// Removes all files and journals of the measure.
    ///
    /// # Errors
    /// If one is there and cannot be removed; names it.
    pub fn remove(&self, directory: &Path) -> anyhow::Result<()> {
        self.remove_files(directory)?;
        remove_directory(&directory.join(self.journal))
    }

    fn remove_files(&self, directory: &Path) -> anyhow::Result<()> {
        // The summary goes first: without it, what else remains counts as unfinished.
        for name in std::iter::once(&self.summary).chain(self.others) {
            remove(&directory.join(name))?;
        }
        Ok(())
    }
}

/// Removes what killed runs were writing under these names: temporary files, `.NAME.PROCESS.tmp`.
///
/// # Errors
/// If the directory cannot be read or a file not removed; names it.
pub fn remove_leftovers(directory: &Path, names: &[&str]) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry.with_context(|| directory.display().to_string())?;
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let inner = found.strip_prefix('.').and_then(|f| f.strip_suffix(".tmp"));
        if inner.and_then(|f| f.rsplit_once('.')).is_some_and(|(name, _)| names.contains(&name)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file, or a directory with all that is in it, if it is there.
///
/// # Errors
/// If it cannot be removed; names it.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        return remove_directory(path);
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != NotFound => Err(e).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

/// Removes a directory and all that is in it, if it is there.
///
/// # Errors
/// If it cannot be removed; names it.
pub fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != NotFound => Err(e).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}
