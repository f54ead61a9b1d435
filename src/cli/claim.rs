//! What is written belongs to one run at a time.

use super::Context;
use crate::pairs::Error;
use anyhow::Context as _;
use std::fs::{File, Metadata, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file that is locked in a directory. It stays, and says which run was the last.
const NAME: &str = "run.lock";

/// A job that was killed a moment ago may still be on its way out.
const PATIENCE: Duration = Duration::from_secs(5);

/// The locks of a node that is gone live on for a lease on NFS, 90 s by default (RFC 8881, 8.3): a job
/// that was requeued to another node waits for that.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(150);

/// The right to write results, until it is dropped. The lock dies with its process: after a `kill -9`
/// the next run gets it.
#[must_use]
pub struct Claim {
    _file: Option<File>,
    /// Removed when it is dropped.
    mark: Option<PathBuf>,
}

/// What a file is, whatever its names.
fn identity_of(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Refuses on rank 0 to write over what is read, and two things into one file. A file of two names counts as
/// one.
///
/// # Errors
/// [`Error::Refused`].
pub fn keep_apart<'p>(
    context: &Context,
    input: &Path,
    outputs: impl IntoIterator<Item = &'p PathBuf>,
) -> Result<(), Error> {
    if !context.world.is_root() {
        return Ok(());
    }
    let identity =
        |path: &Path| std::fs::metadata(path).ok().filter(Metadata::is_file).as_ref().map(identity_of);
    let read = identity(input);
    let mut before: Vec<(&PathBuf, Option<(u64, u64)>)> = Vec::new();
    for output in outputs {
        let own = identity(output);
        let refuse =
            |reason| Err(Error::Refused(format!("{}: {reason}; name another file", output.display())));
        if own.is_some() && own == read {
            return refuse("is what is read, and would be written over");
        }
        // A pipe can take two things, one after the other.
        let is_new = own.is_none() && !output.exists();
        if before.iter().any(|(path, file)| (own.is_some() && *file == own) || (is_new && *path == output)) {
            return refuse("would be written twice");
        }
        before.push((output, own));
    }
    Ok(())
}

impl Claim {
    /// Makes the directory if it is missing and claims it, on rank 0; the other ranks follow it.
    ///
    /// On a file system without locks nothing is claimed, with a warning: results of two runs could
    /// then get mixed, and journals still keep their own from being overwritten.
    ///
    /// # Errors
    /// [`Error::Refused`] if another run holds the directory.
    pub fn take(context: &Context, directory: &Path) -> anyhow::Result<Self> {
        if !context.world.is_root() {
            return Ok(Self { _file: None, mark: None });
        }
        std::fs::create_dir_all(directory).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => anyhow::Error::new(Error::Refused(format!(
                "{}: cannot hold the results, because there is a file of that name; name another directory",
                directory.display()
            ))),
            _ => anyhow::Error::new(e).context(directory.display().to_string()),
        })?;
        Ok(Self { _file: lock(&directory.join(NAME), directory)?, mark: None })
    }

    /// The same for one file that is written, and what stands beside it meanwhile.
    ///
    /// # Errors
    /// [`Error::Refused`] if another run writes it; else if the lock beside it cannot be made.
    pub fn take_file(context: &Context, output: &Path) -> anyhow::Result<Self> {
        if !context.world.is_root() {
            return Ok(Self { _file: None, mark: None });
        }
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let mark = output.with_file_name(format!(".{name}.lock"));
        loop {
            let file = lock(&mark, output)?;
            // The run that held it before may have removed what was locked here.
            let locked = file.as_ref().and_then(|file| file.metadata().ok()).as_ref().map(identity_of);
            if locked.is_none() || locked == std::fs::metadata(&mark).ok().as_ref().map(identity_of) {
                return Ok(Self { _file: file, mark: Some(mark) });
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(mark) = &self.mark {
            // One that stays is only litter.
            let _ = std::fs::remove_file(mark);
        }
    }
}

/// Opens and locks a file, and writes into it who holds it. `what` is what it stands for.
fn lock(path: &Path, what: &Path) -> anyhow::Result<Option<File>> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| path.display().to_string())?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let begun = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(path).unwrap_or_default();
                let patience = if is_elsewhere(&holder, &host) { PATIENCE_WITH_OTHERS } else { PATIENCE };
                if begun.elapsed() >= patience {
                    return Err(Error::Refused(format!(
                        "{}: another run is writing here ({}); wait for it, or choose another output",
                        what.display(),
                        holder.trim(),
                    ))
                    .into());
                }
                if patience > PATIENCE && !told {
                    let seconds = patience.as_secs();
                    tracing::warn!(
                        "{}: locked by {}; waits up to {seconds} s, in case it is gone",
                        what.display(),
                        holder.trim()
                    );
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(TryLockError::Error(e)) => {
                tracing::warn!("{}: cannot be locked ({e}); see that no other run uses it", path.display());
                return Ok(None);
            }
        }
    }
    let job = std::env::var("SLURM_JOB_ID").map_or(String::new(), |id| format!(", Slurm job {id}"));
    let holder = format!("process {} on {}{job}\n", std::process::id(), host.trim());
    file.set_len(0)
        .and_then(|()| file.write_all(holder.as_bytes()))
        .with_context(|| path.display().to_string())?;
    Ok(Some(file))
}

/// True if the holder of a lock says that it runs on another node.
fn is_elsewhere(holder: &str, host: &str) -> bool {
    let named = holder.split_once(" on ").and_then(|(_, rest)| rest.split([',', '\n']).next());
    named.is_some_and(|named| named.trim() != host.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_names_its_node() {
        for (holder, elsewhere) in [
            ("process 7 on node1\n", false),
            ("process 7 on node1, Slurm job 3\n", false),
            ("process 7 on node10, Slurm job 3\n", true),
            ("process 7 on other\n", true),
            ("", false),
        ] {
            assert_eq!(is_elsewhere(holder, "node1\n"), elsewhere, "{holder}");
        }
    }
}
