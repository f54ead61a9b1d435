//! A results directory belongs to one run at a time.

use super::Context;
use crate::pairs::Error;
use anyhow::Context as _;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The file that is locked. It stays, and says which run was the last.
const NAME: &str = "run.lock";

/// A job that was killed a moment ago may still be on its way out.
const PATIENCE: Duration = Duration::from_secs(5);

/// The right to write results into a directory, until it is dropped. The lock dies with its process:
/// after a `kill -9` the next run gets it.
#[must_use]
pub struct Claim {
    _file: Option<File>,
}

/// Refuses on rank 0 to write over what is read. A file of two names counts as one.
///
/// # Errors
/// [`Error::Refused`].
pub fn keep_apart<'p>(
    context: &Context,
    input: &Path,
    outputs: impl IntoIterator<Item = &'p std::path::PathBuf>,
) -> Result<(), Error> {
    let identity = |path: &Path| {
        std::fs::metadata(path).ok().filter(|about| about.is_file()).map(|a| (a.dev(), a.ino()))
    };
    let Some(read) = identity(input).filter(|_| context.world.is_root()) else { return Ok(()) };
    match outputs.into_iter().find(|output| identity(output) == Some(read)) {
        Some(output) => Err(Error::Refused(format!(
            "{}: is what is read, and would be written over; name another file",
            output.display()
        ))),
        None => Ok(()),
    }
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
            return Ok(Self { _file: None });
        }
        std::fs::create_dir_all(directory).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => anyhow::Error::new(Error::Refused(format!(
                "{}: cannot hold the results, because there is a file of that name; name another directory",
                directory.display()
            ))),
            _ => anyhow::Error::new(e).context(directory.display().to_string()),
        })?;
        let path = directory.join(NAME);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    return Err(Error::Refused(format!(
                        "{}: another run is writing here ({}); wait for it, or choose another directory",
                        directory.display(),
                        holder.trim(),
                    ))
                    .into());
                }
                Err(TryLockError::Error(e)) => {
                    tracing::warn!(
                        "{}: cannot be locked ({e}); see that no other run uses it",
                        path.display()
                    );
                    break;
                }
            }
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let job = std::env::var("SLURM_JOB_ID").map_or(String::new(), |id| format!(", Slurm job {id}"));
        let holder = format!("process {} on {}{job}\n", std::process::id(), host.trim());
        file.set_len(0)
            .and_then(|()| file.write_all(holder.as_bytes()))
            .with_context(|| path.display().to_string())?;
        Ok(Self { _file: Some(file) })
    }
}
