//! Exit codes, and which error ends in which.

use crate::rootfs::bases;
use crate::{corpus, embed, h5, harvest, pairs, rootfs, tokens, world};
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// All done.
    Done = 0,
    /// Something failed that no other code describes.
    Failed = 1,
    /// The command line is wrong (`clap` uses this code, too).
    Usage = 2,
    /// Done, but a part of the source could not be read; what was lost is listed.
    DoneWithLosses = 3,
    /// An input was refused: wrong file, another corpus, a value out of range.
    Refused = 4,
    /// The work does not fit into the memory or disk it may use.
    DoesNotFit = 5,
    /// The ranks were started wrongly, or one of them stalled.
    Launch = 6,
    /// A defect of the program: a rank panicked.
    Panic = 70,
    /// A file could not be written, for instance because the disk is full.
    Write = 74,
    /// Stopped by SIGTERM or SIGUSR1 with all finished tiles kept; start it again to go on.
    Requeue = 75,
}

/// The list of exit codes for `--help`.
pub const MANUAL: &str = "\
Exit codes:
   0  done
   1  failed for another reason
   2  wrong command line
   3  done, but a part of the source could not be read (listed)
   4  an input was refused: wrong file, another corpus, a value out of range
   5  the work does not fit into the memory or disk it may use
   6  the ranks were started wrongly, or one of them stalled
  70  a defect: a rank panicked (please report it)
  74  a file could not be written, for instance because the disk is full
  75  stopped by SIGTERM or SIGUSR1; the same command goes on where it stopped";

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// The exit code for an error: that of the first cause that has one.
pub fn code_of(error: &anyhow::Error) -> Code {
    error.chain().find_map(code_of_cause).unwrap_or(Code::Failed)
}

// A transparent error hides the one inside from `chain`, so that one is asked here.
fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    if let Some(e) = cause.downcast_ref::<h5::Error>() {
        return Some(match e {
            h5::Error::Write { .. } => Code::Write,
            _ => Code::Refused,
        });
    }
    if let Some(e) = cause.downcast_ref::<corpus::Error>() {
        return match e {
            corpus::Error::File(e) => code_of_cause(e),
            _ => Some(Code::Refused),
        };
    }
    if let Some(e) = cause.downcast_ref::<tokens::Error>() {
        return match e {
            tokens::Error::File(e) => code_of_cause(e),
            tokens::Error::Corpus(e) => code_of_cause(e),
            tokens::Error::Write { .. } => Some(Code::Write),
            tokens::Error::Stopped => Some(Code::Requeue),
            _ => Some(Code::Refused),
        };
    }
    if let Some(e) = cause.downcast_ref::<bases::Error>() {
        return match e {
            bases::Error::File(e) => code_of_cause(e),
            _ => Some(Code::Refused),
        };
    }
    if let Some(e) = cause.downcast_ref::<pairs::Error>() {
        return match e {
            pairs::Error::DoesNotFit { .. } => Some(Code::DoesNotFit),
            pairs::Error::Journal { .. } => Some(Code::Write),
            pairs::Error::Refused(_) => Some(Code::Refused),
            pairs::Error::Stopped => Some(Code::Requeue),
            pairs::Error::File(e) => code_of_cause(e),
        };
    }
    if let Some(e) = cause.downcast_ref::<embed::Error>() {
        return match e {
            embed::Error::DoesNotFit(_) => Some(Code::DoesNotFit),
            embed::Error::Option { .. } | embed::Error::Refused(_) | embed::Error::NoWords { .. } => {
                Some(Code::Refused)
            }
            embed::Error::Documents(e) => code_of_cause(e),
            embed::Error::File(e) => code_of_cause(e),
        };
    }
    if let Some(e) = cause.downcast_ref::<rootfs::campaign::Error>() {
        return match e {
            rootfs::campaign::Error::Store(_) => Some(Code::Write),
            rootfs::campaign::Error::File { error, .. } => code_of_cause(error),
            rootfs::campaign::Error::Views { .. } => Some(Code::Write),
        };
    }
    if cause.is::<rootfs::source::Error>()
        || cause.is::<rootfs::list::Error>()
        || cause.is::<harvest::Error>()
    {
        return Some(Code::Refused);
    }
    if cause.is::<crate::report::CannotWrite>() {
        return Some(Code::Write);
    }
    if cause.is::<world::Error>() {
        return Some(Code::Launch);
    }
    if let Some(rusqlite::Error::SqliteFailure(e, _)) = cause.downcast_ref() {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        return matches!(e.code, CannotOpen | DiskFull | ReadOnly | SystemIoFailure).then_some(Code::Write);
    }
    let io = cause.downcast_ref::<std::io::Error>()?;
    use std::io::ErrorKind::{NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match io.kind() {
        StorageFull | QuotaExceeded | ReadOnlyFilesystem => Some(Code::Write),
        NotFound | PermissionDenied => Some(Code::Refused),
        _ => None,
    }
}
