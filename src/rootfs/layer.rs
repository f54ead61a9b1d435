//! Reads one layer: stored bytes -> inflate -> tar headers, with both digests checked.
//!
//! One pass and bounded memory, whatever the size: the stored bytes are hashed as they come, the
//! archive as it is inflated, and of the archive only names are kept. Streams are read to their very
//! end, also behind the end of the archive, for the digests cover all of it.

use super::delta::DeltaBuilder;
use super::listing::{Entry, Kind, ListingWriter};
use super::place::{Nothing, Placer};
use super::record::{Counts, LayerRecord};
use super::source::Layer;
use super::tar::{self, Member, Members};
use super::{Digest, Universe, paths};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;

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
    /// 1 TiB, 20 million entries, 64 KiB, 24 MiB.
    fn default() -> Self {
        Self { archive_bytes: 1 << 40, entries: 20_000_000, path_bytes: 1 << 16, memory: 24 << 20 }
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
    /// The uncompressed archive is not that of the config.
    #[error("the uncompressed archive is {found}, but the config's diff_id is {expected}")]
    DiffId {
        /// `diff_id` of the config.
        expected: Digest,
        /// Digest of what came.
        found: Digest,
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

/// How the archive of a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

/// Largest zstd window that is believed, as a power of two: 32 MiB. Up to level 20 none is larger.
const ZSTD_WINDOW: u32 = 25;
const STORED_BUFFER: usize = 1 << 16;
const ARCHIVE_BUFFER: usize = 1 << 17;

/// Counts and hashes what passes.
struct Hashing<R> {
    reader: R,
    state: Rc<RefCell<State>>,
}

struct State {
    sha: Sha256,
    bytes: u64,
    limit: u64,
    error: Option<std::io::Error>,
}

impl<R: Read> Hashing<R> {
    fn new(reader: R, limit: u64) -> (Self, Rc<RefCell<State>>) {
        let state = Rc::new(RefCell::new(State { sha: Sha256::new(), bytes: 0, limit, error: None }));
        (Self { reader, state: Rc::clone(&state) }, state)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let read = match self.reader.read(into) {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Err(e),
            Err(e) => {
                // Who reads through a decoder gets a decoder's error; the reason is kept.
                let again = std::io::Error::new(e.kind(), e.to_string());
                state.error = Some(e);
                return Err(again);
            }
        };
        state.sha.update(&into[..read]);
        state.bytes += read as u64;
        if state.bytes > state.limit {
            return Err(std::io::Error::other("limit"));
        }
        Ok(read)
    }
}

impl State {
    fn digest(&self) -> Digest {
        Digest(self.sha.clone().finalize().into())
    }
}

/// Reads a layer from its stored bytes. `each` sees every entry, too.
///
/// # Errors
/// [`Error`]: whatever came is not used then.
pub fn read_layer(
    stored: impl Read,
    layer: &Layer,
    universe: &Universe,
    identity: &[u8; 32],
    limits: &Limits,
) -> Result<LayerRecord, Error> {
    // One byte more than expected is enough to know that it is another blob.
    let (stored, stored_state) = Hashing::new(stored, layer.size.saturating_add(1 << 16));
    let mut stored = BufReader::with_capacity(STORED_BUFFER, stored);
    let outcome = read_archive(&mut stored, universe, limits);
    // Whatever is wrong inside, the digest tells whether it was so from the start.
    let drained = std::io::copy(&mut stored, &mut std::io::sink());
    let mut state = stored_state.borrow_mut();
    if let (Some(error), true) = (state.error.take(), outcome.is_err() || drained.is_err()) {
        return Err(Error::Stream { bytes: state.bytes, size: layer.size, error });
    }
    if let Err(limit @ Error::Limit { .. }) = outcome {
        return Err(limit);
    }
    let (expected, found) = (layer.digest, state.digest());
    if found != expected || state.bytes != layer.size {
        return Err(Error::Digest { expected, found, bytes: state.bytes, size: layer.size });
    }
    let mut record = outcome?;
    if let Some(expected) = layer.diff_id.filter(|expected| *expected != record.diff_id) {
        return Err(Error::DiffId { expected, found: record.diff_id });
    }
    record.digest = layer.digest;
    record.stored_bytes = state.bytes;
    record.universe = *identity;
    Ok(record)
}

fn packing(start: &[u8]) -> Packing {
    match start {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        // A skippable frame (RFC 8878, 3.1.2).
        [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Packing::Zstd,
        _ => Packing::None,
    }
}

fn read_archive(
    stored: &mut impl BufRead,
    universe: &Universe,
    limits: &Limits,
) -> Result<LayerRecord, Error> {
    let io = |e: std::io::Error| Error::Archive(e.into());
    let start = stored.fill_buf().map_err(io)?;
    let inflated: Box<dyn Read + '_> = match packing(start) {
        Packing::None => Box::new(stored),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stored).map_err(io)?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(io)?;
            Box::new(decoder)
        }
    };
    let (archive, state) = Hashing::new(inflated, limits.archive_bytes);
    let mut archive = BufReader::with_capacity(ARCHIVE_BUFFER, archive);
    let outcome = read_members(&mut archive, universe, limits);
    let outcome = match outcome {
        Ok(record) => std::io::copy(&mut archive, &mut std::io::sink()).map(|_| record).map_err(io),
        Err(error) => Err(error),
    };
    let state = state.borrow();
    if state.bytes > limits.archive_bytes {
        let what = format!("the uncompressed archive passes {} bytes", limits.archive_bytes);
        return Err(Error::Limit { what });
    }
    let mut record = outcome?;
    record.diff_id = state.digest();
    record.archive_bytes = state.bytes;
    Ok(record)
}

fn read_members(archive: impl Read, universe: &Universe, limits: &Limits) -> Result<LayerRecord, Error> {
    let io = |e: std::io::Error| Error::Archive(e.into());
    let mut members = Members::new(archive);
    let mut member = Member::default();
    let mut counts = Counts::default();
    let mut listing = ListingWriter::new().map_err(io)?;
    let mut placer = Placer::new(&Nothing);
    let mut delta = DeltaBuilder::new(universe);
    let mut number = 0u64;
    while members.next(&mut member).map_err(Error::Archive)? {
        number += 1;
        check(number, &member, placer.memory() + listing.memory(), limits)?;
        let path = paths::normal(&member.path);
        let hard_link;
        let Some(entry) = (match member.kind {
            b'0' | b'3' | b'4' | b'6' => entry(&path, Kind::File),
            b'5' | b'D' => entry(&path, Kind::Directory),
            b'2' => entry(&path, Kind::Link(&member.target)),
            b'1' => {
                hard_link = paths::normal(&member.target);
                entry(&path, Kind::HardLink(&hard_link))
            }
            _ => None,
        }) else {
            counts.odd += 1;
            continue;
        };
        let count = match entry.kind {
            Kind::Directory => &mut counts.directories,
            Kind::File => &mut counts.files,
            Kind::Link(_) => &mut counts.links,
            Kind::HardLink(_) => &mut counts.hard_links,
            Kind::Whiteout => &mut counts.whiteouts,
            Kind::Opaque => &mut counts.opaque,
        };
        *count += 1;
        let path;
        let entry = match entry.kind {
            // Of `.wh.NAME` the list keeps what it removes.
            Kind::Whiteout => {
                let (parent, name) = (paths::parent(entry.path), paths::name(entry.path));
                path = joined(parent, &name[WHITEOUT.len()..]);
                Entry { path: &path, kind: Kind::Whiteout }
            }
            Kind::Opaque => Entry { path: paths::parent(entry.path), kind: Kind::Opaque },
            _ => entry,
        };
        listing.push(&entry).map_err(io)?;
        placer.place(&entry, &mut delta);
    }
    Ok(LayerRecord {
        digest: Digest([0; 32]),
        diff_id: Digest([0; 32]),
        stored_bytes: 0,
        archive_bytes: 0,
        counts,
        universe: [0; 32],
        delta: delta.finish(),
        implied: placer.into_implied(),
        listing: listing.finish().map_err(io)?,
    })
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = parent.to_vec();
    paths::push(&mut path, name);
    path
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself; never a part of the file system.
const AUFS: &[u8] = b".wh..wh.";

/// The entry of a path as written, whiteouts and opaque markers told by their names; `None` for what
/// names no path.
fn entry<'a>(path: &'a [u8], kind: Kind<'a>) -> Option<Entry<'a>> {
    let name = paths::name(path);
    if name == OPAQUE {
        return Some(Entry { path, kind: Kind::Opaque });
    }
    if path.split(|b| *b == b'/').any(|part| part.starts_with(AUFS)) {
        return None;
    }
    let Some(removed) = name.strip_prefix(WHITEOUT) else {
        let named = !path.is_empty() || kind == Kind::Directory;
        return named.then_some(Entry { path, kind });
    };
    let sound = !matches!(removed, b"" | b"." | b"..");
    sound.then_some(Entry { path, kind: Kind::Whiteout })
}

fn check(number: u64, member: &Member, memory: usize, limits: &Limits) -> Result<(), Error> {
    let what = if number > limits.entries {
        format!("more than {} entries", limits.entries)
    } else if member.path.len().max(member.target.len()) > limits.path_bytes {
        format!("a path of more than {} bytes", limits.path_bytes)
    } else if memory > limits.memory {
        format!("its names take more than {} bytes of memory", limits.memory)
    } else {
        return Ok(());
    };
    Err(Error::Limit { what })
}

#[cfg(test)]
mod tests;
