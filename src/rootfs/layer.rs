//! Reads one layer: stored bytes -> inflate -> tar headers, with its digest checked and its diff_id found.
//!
//! One pass and bounded memory, whatever the size: the stored bytes are hashed as they come, the
//! archive as it is inflated, and of the archive only names are kept. Streams are read to their very
//! end, also behind the end of the archive, for the digests cover all of it. With a thread to spare
//! one inflates while the other hashes the archive and reads its headers.

use super::record::LayerRecord;
use super::source::Layer;
use super::tar::{self, Member, Members};
use super::{Digest, Universe};
use sha2::{Digest as _, Sha256};
use std::io::{BufReader, Read};

pub(super) mod inflate;
mod pipe;
pub(super) mod recorder;

use recorder::Recorder;

/// What a layer may at most be. Beyond, it counts as a bomb and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed archive.
    pub archive_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of a path or link target.
    pub path_bytes: usize,
    /// Bytes of memory for the names of its directories and links, and for the compressed names of
    /// all entries.
    pub memory: usize,
}

impl Default for Limits {
    /// 1 TiB, 20 million entries, 4 KiB, 24 MiB.
    fn default() -> Self {
        Self { archive_bytes: 1 << 40, entries: 20_000_000, path_bytes: 4096, memory: 24 << 20 }
    }
}

/// Why a layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stored bytes are not those of the digest.
    #[error("the stored bytes are {found}, not {expected} ({bytes} bytes read, {size} expected)")]
    Digest {
        /// Digest of the manifest.
        expected: Digest,
        /// Digest of what came.
        found: Digest,
        /// Bytes that came.
        bytes: u64,
        /// Size of the manifest.
        size: u64,
    },
    /// A limit was passed.
    #[error("{what}; raise the limit if this is no decompression bomb")]
    Limit {
        /// Which one.
        what: String,
    },
    /// The digest is right, but it is no layer.
    #[error("no readable layer: {0}")]
    Archive(#[source] tar::Error),
    /// The stream broke off.
    #[error("reading stopped after {bytes} of {size} bytes: {error}")]
    Stream {
        /// Bytes that came.
        bytes: u64,
        /// Size of the manifest.
        size: u64,
        /// What the source said.
        #[source]
        error: std::io::Error,
    },
}

const STORED_BUFFER: usize = 1 << 16;
const ARCHIVE_BUFFER: usize = 1 << 17;

/// Counts and hashes what passes.
pub(super) struct Hashing<R> {
    reader: R,
    sha: Sha256,
    limit: u64,
    /// Bytes so far.
    pub(super) bytes: u64,
    error: Option<std::io::Error>,
}

impl<R> Hashing<R> {
    pub(super) fn new(reader: R, limit: u64) -> Self {
        Self { reader, sha: Sha256::new(), limit, bytes: 0, error: None }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest(self.sha.clone().finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = match self.reader.read(into) {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Err(e),
            Err(e) => {
                // Who reads through a decoder gets a decoder's error; the reason is kept.
                let again = std::io::Error::new(e.kind(), e.to_string());
                self.error = Some(e);
                return Err(again);
            }
        };
        self.sha.update(&into[..read]);
        self.bytes += read as u64;
        if self.bytes > self.limit {
            return Err(std::io::Error::other("limit"));
        }
        Ok(read)
    }
}

/// Reads a layer from its stored bytes, with a second thread if `helped`. The record is the same.
/// Digest and size are checked; what configs say of the diff_id is for the caller to compare with the
/// record's, for many configs may speak of one layer.
///
/// # Errors
/// [`Error`]: whatever came is not used then.
pub fn read_layer(
    stored: impl Read + Send,
    layer: &Layer,
    universe: &Universe,
    identity: &[u8; 32],
    limits: &Limits,
    helped: bool,
) -> Result<LayerRecord, Error> {
    // A little more than expected is enough to know that it is another blob.
    let stored = Hashing::new(stored, layer.size.saturating_add(1 << 16));
    let mut stored = BufReader::with_capacity(STORED_BUFFER, stored);
    let outcome = if helped {
        read_in_two(&mut stored, universe, limits)
    } else {
        match inflate::unpacked(&mut stored) {
            Ok(archive) => read_archive(archive, universe, limits),
            Err(e) => Err(Error::Archive(e.into())),
        }
    };
    // Whatever is wrong inside, the digest tells whether it was so from the start.
    let drained = std::io::copy(&mut stored, &mut std::io::sink());
    let stored = stored.get_mut();
    if let (Some(error), true) = (stored.error.take(), outcome.is_err() || drained.is_err()) {
        return Err(Error::Stream { bytes: stored.bytes, size: layer.size, error });
    }
    if let Err(limit @ Error::Limit { .. }) = outcome {
        return Err(limit);
    }
    let (expected, found) = (layer.digest, stored.digest());
    if found != expected || stored.bytes != layer.size {
        return Err(Error::Digest { expected, found, bytes: stored.bytes, size: layer.size });
    }
    let mut record = outcome?;
    record.digest = layer.digest;
    record.stored_bytes = stored.bytes;
    record.universe = *identity;
    Ok(record)
}

/// One thread inflates, this one does the rest.
fn read_in_two<R: Read + Send>(
    stored: &mut BufReader<Hashing<R>>,
    universe: &Universe,
    limits: &Limits,
) -> Result<LayerRecord, Error> {
    let (inlet, outlet) = pipe::pipe();
    std::thread::scope(|scope| {
        scope.spawn(move || match inflate::unpacked(stored) {
            Ok(archive) => inlet.take_all(archive),
            Err(e) => inlet.take_all(pipe::Failed(Some(e))),
        });
        read_archive(outlet, universe, limits)
    })
}

fn read_archive(archive: impl Read, universe: &Universe, limits: &Limits) -> Result<LayerRecord, Error> {
    let archive = Hashing::new(archive, limits.archive_bytes);
    let mut archive = BufReader::with_capacity(ARCHIVE_BUFFER, archive);
    let outcome = match read_members(&mut archive, universe, limits) {
        Ok(record) => std::io::copy(&mut archive, &mut std::io::sink())
            .map(|_| record)
            .map_err(|e| Error::Archive(e.into())),
        Err(error) => Err(error),
    };
    let archive = archive.get_ref();
    if archive.bytes > limits.archive_bytes {
        let what = format!("the uncompressed archive passes {} bytes", limits.archive_bytes);
        return Err(Error::Limit { what });
    }
    let mut record = outcome?;
    record.diff_id = archive.digest();
    record.archive_bytes = archive.bytes;
    Ok(record)
}

fn read_members(archive: impl Read, universe: &Universe, limits: &Limits) -> Result<LayerRecord, Error> {
    let mut members = Members::new(archive);
    let mut member = Member::default();
    let mut recorder = Recorder::new(universe, limits)?;
    while members.next(&mut member).map_err(Error::Archive)? {
        recorder.push(member.kind, &member.path, &member.target)?;
    }
    recorder.finish()
}

#[cfg(test)]
mod tests;
